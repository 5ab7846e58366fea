/*
embed_ca: turns CA certificates (PEM) into a C header, for programs that bring their own trust.

cc -O2 -o embed_ca tools/embed_ca.c -I. -lbearssl -pthread

./embed_ca -n my_cas -o my_cas.h ca-bundle.pem

    #include "my_cas.h"
    ...
    pysock_ssl_load_verify_data(ctx, my_cas, sizeof my_cas);

The certificates are there once each, as DER one behind the other. Those that have expired, or that
the library cannot use, are left out, which stderr tells. The same input gives the same output.
Exit status: 0 the header is written; 1 it is not; 2 wrong usage.
*/
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BEGIN_LINE "-----BEGIN CERTIFICATE-----"
#define END_LINE "-----END CERTIFICATE-----"

enum { MAX_COLUMNS = 100, BYTES_IN_LINE = 15 };

typedef struct item {
    pysock_buf *der;
    pysock_ssl_cert *cert;
} item;

typedef struct bundle {
    item *items;
    size_t count, room;
    pysock_ssl_context *probe; /* takes each certificate, to see whether it can be used */
    bool out_of_memory;
} bundle;

/* ---- text ---- */

/* The certificate's subject for a comment or stderr: printable ASCII, and nothing that opens or
   closes a comment, or goes on in the next line. */
static void format_subject(const pysock_ssl_cert *cert, char *text, size_t size)
{
    size_t used = 0;

    for (size_t i = cert->subject_count; i-- > 0 && used + 1 < size;) {
        int n = snprintf(text + used, size - used, "%s%s=%s", used ? ", " : "",
                         cert->subject[i].name, cert->subject[i].value);
        used = n < 0 || (size_t)n >= size - used ? size - 1 : used + (size_t)n;
    }
    text[used] = '\0';
    if (used == 0)
        snprintf(text, size, "(no subject)");

    char *to = text;
    for (const char *p = text; *p; p++) {
        unsigned char c = (unsigned char)*p;
        if (c >= 0x80 && c < 0xc0) /* the rest of a character whose first byte has become a ? */
            continue;
        bool comment = to > text && ((to[-1] == '*' && c == '/') || (to[-1] == '/' && c == '*'));
        *to++ = c < ' ' || c > '~' || c == '\\' || comment ? '?' : (char)c;
    }
    *to = '\0';
}

static void tell(const char *path, size_t line, const pysock_ssl_cert *cert, const char *what)
{
    char subject[256];

    format_subject(cert, subject, sizeof subject);
    fprintf(stderr, "embed_ca: %s:%zu: %s: %s\n", path, line, what, subject);
}

/* A whole file, terminated; NULL was told. */
static char *read_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    char *text = NULL, *more;
    size_t used = 0, room = 65536, n = 1;

    while (f && n > 0 && (more = realloc(text, room)) != NULL) {
        text = more;
        n = fread(text + used, 1, room - used - 1, f);
        used += n;
        text[used] = '\0';
        if (used + 1 == room)
            room *= 2;
    }
    bool ok = f && n == 0 && !ferror(f);
    if (!ok) {
        fprintf(stderr, "embed_ca: cannot read %s: %s\n", path, strerror(errno));
        free(text);
    }
    if (f)
        fclose(f);
    return ok ? text : NULL;
}

/* ---- collecting ---- */

/* Why the certificate is not wanted; NULL if it is. */
static const char *refuse(bundle *b, const pysock_buf *der, const pysock_ssl_cert *cert)
{
    for (size_t i = 0; i < b->count; i++)
        if (memcmp(b->items[i].cert->sha256, cert->sha256, sizeof cert->sha256) == 0)
            return "left out, it is there already";
    if (cert->not_after_seconds < (int64_t)time(NULL))
        return "left out, it has expired";
    if (pysock_ssl_load_verify_data(b->probe, pysock_buf_data(der), pysock_buf_size(der)) == 0)
        return NULL;
    b->out_of_memory = pysock_error() == PYSOCK_MEMORY_ERROR;
    return b->out_of_memory ? "out of memory" : "left out, it cannot be used";
}

static bool keep(bundle *b, pysock_buf *der, pysock_ssl_cert *cert)
{
    if (b->count == b->room) {
        size_t room = b->room ? 2 * b->room : 64;
        item *items = realloc(b->items, room * sizeof *items);
        if (!items) {
            fputs("embed_ca: out of memory\n", stderr);
            return false;
        }
        b->items = items;
        b->room = room;
    }
    b->items[b->count++] = (item){der, cert};
    return true;
}

/* One certificate, from its first line to its last. */
static bool add_one(bundle *b, const char *pem, const char *path, size_t line)
{
    pysock_buf *der = pysock_ssl_pem_cert_to_der_cert(pem);
    pysock_ssl_cert *cert =
        der ? pysock_ssl_cert_parse(pysock_buf_data(der), pysock_buf_size(der)) : NULL;
    const char *why;
    bool ok = cert != NULL;

    if (!cert) {
        fprintf(stderr, "embed_ca: %s:%zu: %s\n", path, line, pysock_error_message());
    } else if ((why = refuse(b, der, cert)) != NULL) {
        tell(path, line, cert, why);
        ok = !b->out_of_memory;
    } else {
        if (!cert->is_ca)
            tell(path, line, cert, "taken, though it is not marked as a CA");
        ok = keep(b, der, cert);
        if (ok)
            return true;
    }
    pysock_ssl_cert_free(cert);
    pysock_buf_release(der);
    return ok;
}

static size_t count_lines(const char *from, const char *to)
{
    size_t n = 0;

    for (; from < to; from++)
        n += *from == '\n';
    return n;
}

/* All of a file; what stands between certificates is passed over. */
static bool add_file(bundle *b, const char *path)
{
    char *text = read_file(path), *p = text, *begin, *end;
    size_t line = 1, found = 0;
    bool ok = text != NULL;

    while (ok && (begin = strstr(p, BEGIN_LINE)) != NULL) {
        line += count_lines(p, begin);
        end = strstr(begin, END_LINE);
        if (!end) {
            fprintf(stderr, "embed_ca: %s:%zu: this certificate has no end\n", path, line);
            ok = false;
            break;
        }
        end += strlen(END_LINE);
        char after = *end;
        *end = '\0';
        ok = add_one(b, begin, path, line);
        *end = after;
        line += count_lines(begin, end);
        p = end;
        found++;
    }
    if (ok && found == 0) {
        fprintf(stderr, "embed_ca: %s: there is no certificate in it (" BEGIN_LINE ")\n", path);
        ok = false;
    }
    free(text);
    return ok;
}

/* ---- writing ---- */

static void write_bytes(FILE *f, const pysock_buf *der)
{
    const unsigned char *data = pysock_buf_data(der);
    for (size_t i = 0; i < pysock_buf_size(der); i++) {
        const char *before = i % BYTES_IN_LINE ? " " : "\n    ";
        fprintf(f, "%s0x%02x,", before, data[i]);
    }
}

static void write_header(FILE *f, const bundle *b, const char *name)
{
    char guard[128], subject[MAX_COLUMNS - 10];
    size_t n = 0;

    for (; name[n]; n++)
        guard[n] = (char)toupper((unsigned char)name[n]);
    guard[n] = '\0';

    fprintf(f,
            "/* CA certificates as DER, one behind the other, written by embed_ca: for\n"
            "   pysock_ssl_load_verify_data(ctx, %s, sizeof %s). */\n"
            "#ifndef %s_H\n#define %s_H\n\n#define %s_COUNT %zu\n\n"
            "static const unsigned char %s[] = {",
            name, name, guard, guard, guard, b->count, name);
    for (size_t i = 0; i < b->count; i++) {
        format_subject(b->items[i].cert, subject, sizeof subject);
        fprintf(f, "\n    /* %s */", subject);
        write_bytes(f, b->items[i].der);
    }
    fputs("\n};\n\n#endif\n", f);
}

/* To a file, or to stdout if path is NULL. What could not be written whole is not left behind. */
static bool write_output(const bundle *b, const char *name, const char *path)
{
    FILE *f = path ? fopen(path, "wb") : stdout;
    bool ok = f != NULL;

    if (ok) {
        write_header(f, b, name);
        ok = !ferror(f);
        ok = (path ? fclose(f) : fflush(f)) == 0 && ok;
    }
    if (ok)
        return true;
    fprintf(stderr, "embed_ca: cannot write %s: %s\n", path ? path : "to stdout", strerror(errno));
    if (f && path)
        remove(path);
    return false;
}

/* ---- the command line ---- */

static int usage(FILE *to)
{
    fputs("usage: embed_ca [-o FILE] [-n NAME] BUNDLE...\n"
          "  BUNDLE   a file of certificates, PEM\n"
          "  -o FILE  write the header to FILE, not to stdout\n"
          "  -n NAME  of the array; ca_certs if not said\n",
          to);
    return to == stdout ? 0 : 2;
}

static bool is_name(const char *text)
{
    size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");

    return n > 0 && n <= 64 && text[n] == '\0' && isalpha((unsigned char)text[0]);
}

static bool embed(bundle *b, char **paths, int count, const char *name, const char *output)
{
    b->probe = pysock_ssl_context_new(PYSOCK_SERVER_AUTH);
    if (!b->probe) {
        fprintf(stderr, "embed_ca: %s\n", pysock_error_message());
        return false;
    }
    for (int i = 0; i < count; i++)
        if (!add_file(b, paths[i]))
            return false;
    if (b->count == 0) {
        fputs("embed_ca: no certificate is left\n", stderr);
        return false;
    }
    return write_output(b, name, output);
}

int main(int argc, char **argv)
{
    const char *output = NULL, *name = "ca_certs";
    bundle b = {.items = NULL};
    int first = 1;

    for (; first < argc && argv[first][0] == '-'; first++) {
        if (strcmp(argv[first], "-h") == 0 || strcmp(argv[first], "--help") == 0)
            return usage(stdout);
        if (strcmp(argv[first], "-o") == 0 && first + 1 < argc)
            output = argv[++first];
        else if (strcmp(argv[first], "-n") == 0 && first + 1 < argc)
            name = argv[++first];
        else
            return usage(stderr);
    }
    if (first == argc || !is_name(name))
        return usage(stderr);

    bool ok = embed(&b, argv + first, argc - first, name, output);
    for (size_t i = 0; i < b.count; i++) {
        pysock_ssl_cert_free(b.items[i].cert);
        pysock_buf_release(b.items[i].der);
    }
    free(b.items);
    pysock_ssl_context_release(b.probe);
    return ok ? 0 : 1;
}
