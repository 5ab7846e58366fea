/*
https_get: fetches a URL and writes what it finds there to stdout, or to a file.

cc -I. examples/apps/https_get.c -o https_get -lbearssl -lpthread

./https_get https://example.org/
./https_get -o page.html --cacert ca.pem https://localhost:8443/
./https_get -v --cert client.pem --key client.key https://localhost:8443/

Blocking sockets with a timeout: the calling thread does all the work and no other is started.
Exit status: 0 everything arrived, 1 something failed, 2 wrong usage, 3 the server answered with a
status of 400 or above.
*/
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#define CONNECT_TIMEOUT 15.0 /* seconds for the connection, and again for its handshake */
#define READ_TIMEOUT 30.0    /* seconds that the server may be silent */

enum { MAX_REDIRECTS = 10, MAX_URL = 8192, MAX_LINE = 8192, MAX_HEADERS = 256 };

typedef struct options {
    const char *url, *output, *cacert, *cert, *key;
    bool verbose, insecure;
} options;

typedef struct url {
    bool tls;
    int port;
    char host[256];       /* without the brackets of an IPv6 address */
    char target[MAX_URL]; /* path and query, ready for the request line */
} url;

typedef struct response {
    int status;
    char reason[128];
    bool chunked, has_length;
    uint64_t length;
    char location[MAX_LINE];
} response;

typedef struct sink { /* where the body goes, and how far it is */
    FILE *file;
    bool has_total, progress, tty;
    uint64_t got, total;
    double started, shown;
} sink;

typedef struct fetch {
    const options *opt;
    pysock_ssl_context *tls; /* made when the first https URL comes */
    pysock *s;
    size_t pos, len; /* in[pos] to in[len - 1] was received and not yet used */
    char in[16384];
    char why[256];
} fetch;

/* Every step below that can fail returns NULL, or a sentence that says what went wrong. */

__attribute__((format(printf, 2, 3)))
static const char *explain(fetch *f, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(f->why, sizeof f->why, format, args);
    va_end(args);
    return f->why;
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* What a server says goes to a terminal only without its control characters. */
static void print_clean(const char *before, const char *text)
{
    fputs(before, stderr);
    for (; *text; text++)
        fputc((unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text, stderr);
    fputc('\n', stderr);
}

/* ---- URLs (RFC 3986) ---- */

static bool has_scheme(const char *text)
{
    size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-.");

    return n > 0 && strncmp(text + n, "://", 3) == 0;
}

/* The authority as it is written in a URL and in the Host header. */
static void format_authority(const url *u, char *text, size_t size)
{
    const char *format = strchr(u->host, ':') ? "[%s]" : "%s";
    int n = snprintf(text, size, format, u->host);

    if (u->port != (u->tls ? 443 : 80))
        snprintf(text + n, size - (size_t)n, ":%d", u->port);
}

static const char *parse_port(const char *text, size_t n, int *port)
{
    int value = 0;

    for (size_t i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9' || value > 65535)
            return "the port is not a number from 1 to 65535";
        value = value * 10 + (text[i] - '0');
    }
    if (n > 0 && (value < 1 || value > 65535))
        return "the port is not a number from 1 to 65535";
    if (n > 0)
        *port = value;
    return NULL;
}

/* text, n: "host", "host:port", "[IPv6]" or "[IPv6]:port". */
static const char *parse_authority(const char *text, size_t n, url *u)
{
    const char *end = text + n, *allowed, *after;

    if (memchr(text, '@', n))
        return "a user name in a URL is not supported";
    if (n > 0 && text[0] == '[') {
        allowed = "0123456789abcdefABCDEF:.";
        text++;
        after = memchr(text, ']', n - 1);
        if (!after)
            return "the ] after the IPv6 address is missing";
    } else {
        allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";
        after = memchr(text, ':', n);
        if (!after)
            after = end;
    }

    size_t length = (size_t)(after - text);
    if (length == 0)
        return "the host name is missing";
    if (length >= sizeof u->host)
        return "the host name is too long";
    memcpy(u->host, text, length);
    u->host[length] = '\0';
    if (strspn(u->host, allowed) != length)
        return "the host name has a character that cannot be in one";

    if (after < end && *after == ']')
        after++;
    if (after == end)
        return NULL;
    if (*after != ':')
        return "the host name is followed by something that is not a port";
    return parse_port(after + 1, (size_t)(end - after - 1), &u->port);
}

/* Appends n bytes to u->target, with those that may not stand in a request percent-encoded: control
   characters, spaces, and what is not ASCII. */
static bool append_target(url *u, size_t *used, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        bool plain = c > ' ' && c < 0x7f && !strchr("\"<>\\^`{|}", c);

        if (*used + 4 > sizeof u->target)
            return false;
        *used += (size_t)snprintf(u->target + *used, 4, plain ? "%c" : "%%%02X", c);
    }
    return true;
}

/* "/a/./b/../c" becomes "/a/c". */
static void remove_dot_segments(char *path)
{
    char *in = path, *out = path;

    while (*in) {
        size_t n = 1 + strcspn(in + 1, "/");
        bool dot = n == 2 && in[1] == '.', dots = n == 3 && in[1] == '.' && in[2] == '.';

        if (!dot && !dots) {
            memmove(out, in, n);
            out += n;
        }
        while (dots && out > path && *--out != '/')
            continue;
        if ((dot || dots) && in[n] == '\0')
            *out++ = '/';
        in += n;
    }
    *out = '\0';
}

static const char *parse_target(const char *text, url *u)
{
    size_t path = strcspn(text, "?#"), query = strcspn(text + path, "#"), used = 0;

    if (!append_target(u, &used, path ? text : "/", path ? path : 1))
        return "the URL is too long";
    u->target[used] = '\0';
    remove_dot_segments(u->target);
    used = strlen(u->target);
    if (!append_target(u, &used, text + path, query))
        return "the URL is too long";
    u->target[used] = '\0';
    return NULL;
}

static const char *parse_url(const char *text, url *u)
{
    size_t scheme;

    if (strncasecmp(text, "https://", 8) == 0)
        scheme = 8;
    else if (strncasecmp(text, "http://", 7) == 0)
        scheme = 7;
    else
        return "only http:// and https:// are supported";

    u->tls = scheme == 8;
    u->port = u->tls ? 443 : 80;
    text += scheme;
    size_t n = strcspn(text, "/?#");
    const char *why = parse_authority(text, n, u);
    return why ? why : parse_target(text + n, u);
}

/* Where a redirect from base to location, which may be relative, leads. */
static const char *resolve_url(const url *base, const char *location, url *to)
{
    const char *scheme = base->tls ? "https:" : "http:";
    char authority[sizeof base->host + 16], text[MAX_URL + MAX_LINE];
    size_t keep = 0; /* how much of the base's target stays */

    if (has_scheme(location))
        return parse_url(location, to);
    if (strncmp(location, "//", 2) == 0) {
        snprintf(text, sizeof text, "%s%s", scheme, location);
        return parse_url(text, to);
    }

    if (location[0] == '\0' || location[0] == '#') {
        keep = strlen(base->target);
    } else if (location[0] != '/') {
        keep = strcspn(base->target, "?");
        while (location[0] != '?' && base->target[keep - 1] != '/')
            keep--;
    }
    format_authority(base, authority, sizeof authority);
    if ((size_t)snprintf(text, sizeof text, "%s//%s%.*s%s", scheme, authority, (int)keep,
                         base->target, location) >= sizeof text)
        return "the URL is too long";
    return parse_url(text, to);
}

/* ---- the body's destination ---- */

static void format_bytes(double n, char *text, size_t size)
{
    const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t unit = 0;

    for (; n >= 1024 && unit < 4; unit++)
        n /= 1024;
    snprintf(text, size, unit ? "%.1f %s" : "%.0f %s", n, units[unit]);
}

/* On a terminal ten times a second, elsewhere once at the end. */
static void show_progress(sink *k, bool last)
{
    double t = now(), seconds = t - k->started;
    char got[32], total[32], rate[32];

    if (!k->progress || (!last && (!k->tty || t - k->shown < 0.1)))
        return;
    k->shown = t;
    format_bytes((double)k->got, got, sizeof got);
    format_bytes((double)k->total, total, sizeof total);
    format_bytes((double)k->got / (seconds > 0 ? seconds : 1e-9), rate, sizeof rate);

    fputs(k->tty ? "\r\033[K" : "", stderr);
    if (k->has_total && k->total > 0 && k->got < k->total)
        fprintf(stderr, "%3.0f%%  %s of %s, %s/s", 100 * (double)k->got / (double)k->total, got,
                total, rate);
    else
        fprintf(stderr, "%s in %.1f s, %s/s", got, seconds, rate);
    fputs(last ? "\n" : "", stderr);
}

static const char *open_sink(fetch *f, const response *r, sink *k)
{
    const char *path = f->opt->output;

    *k = (sink){.file = stdout, .has_total = r->has_length, .total = r->length};
    k->tty = isatty(STDERR_FILENO);
    k->progress = path || (k->tty && !isatty(STDOUT_FILENO));
    k->started = k->shown = now();
    if (path)
        k->file = fopen(path, "wb");
    return k->file ? NULL : explain(f, "cannot write %.150s: %s", path, strerror(errno));
}

static const char *write_sink(fetch *f, sink *k, const char *data, size_t n)
{
    if (fwrite(data, 1, n, k->file) != n)
        return explain(f, "cannot write: %s", strerror(errno));
    k->got += n;
    show_progress(k, false);
    return NULL;
}

static const char *close_sink(fetch *f, sink *k)
{
    int failed = f->opt->output ? fclose(k->file) : fflush(k->file);

    show_progress(k, true);
    return failed ? explain(f, "cannot write: %s", strerror(errno)) : NULL;
}

/* ---- HTTP/1.1 (RFC 9112) ---- */

/* Receives more. Afterwards len is 0 if the stream has ended. */
static const char *fill(fetch *f)
{
    ptrdiff_t n = pysock_recv(f->s, f->in, sizeof f->in, 0);

    f->pos = 0;
    f->len = n > 0 ? (size_t)n : 0;
    return n < 0 ? pysock_error_message() : NULL;
}

/* Reads a line into line[MAX_LINE], without its end. */
static const char *read_line(fetch *f, char *line)
{
    size_t n = 0;

    for (;;) {
        if (f->pos == f->len) {
            const char *why = fill(f);
            if (why)
                return why;
            if (f->len == 0)
                return "truncated: the server closed the connection in the middle of its answer";
        }
        char c = f->in[f->pos++];
        if (c == '\n')
            break;
        if (n == MAX_LINE - 1)
            return "the server sent a header line that is too long";
        line[n++] = c;
    }
    if (n > 0 && line[n - 1] == '\r')
        n--;
    line[n] = '\0';
    return NULL;
}

static const char *parse_length(fetch *f, response *r, const char *text)
{
    char *end;

    errno = 0;
    uint64_t n = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0)
        return explain(f, "the server sent a Content-Length that is not a number");
    if (r->has_length && r->length != n)
        return explain(f, "the server sent two different Content-Lengths");
    r->has_length = true;
    r->length = n;
    return NULL;
}

static const char *parse_header(fetch *f, response *r, char *line)
{
    char *value = strchr(line, ':');

    if (!value)
        return "the server sent a header line without a colon";
    *value++ = '\0';
    value += strspn(value, " \t");
    for (size_t n = strlen(value); n > 0 && strchr(" \t", value[n - 1]); n--)
        value[n - 1] = '\0';

    if (strcasecmp(line, "Content-Length") == 0)
        return parse_length(f, r, value);
    if (strcasecmp(line, "Location") == 0)
        strcpy(r->location, value);
    if (strcasecmp(line, "Transfer-Encoding") == 0) {
        if (strcasecmp(value, "chunked") != 0)
            return "the server sent a Transfer-Encoding other than chunked";
        r->chunked = true;
    }
    return NULL;
}

static const char *read_head_once(fetch *f, response *r)
{
    char line[MAX_LINE];
    int skip = 0;
    const char *why = read_line(f, line);

    *r = (response){.status = 0};
    if (why)
        return why;
    if (sscanf(line, "HTTP/1.%*1[0-9] %3d%n", &r->status, &skip) != 1 || r->status < 100)
        return "the server does not speak HTTP/1";
    snprintf(r->reason, sizeof r->reason, "%s", line + skip + (line[skip] == ' '));

    if (f->opt->verbose)
        print_clean("< ", line);

    for (int i = 0; i < MAX_HEADERS; i++) {
        why = read_line(f, line);
        if (why || line[0] == '\0')
            return why;
        if (f->opt->verbose)
            print_clean("< ", line);
        if (line[0] == ' ' || line[0] == '\t') /* goes on with a header that we do not need */
            continue;
        why = parse_header(f, r, line);
        if (why)
            return why;
    }
    return "the server sent too many header lines";
}

/* Skips interim answers ("103 Early Hints"). */
static const char *read_head(fetch *f, response *r)
{
    const char *why = NULL;

    for (int i = 0; i < 10 && !why; i++) {
        why = read_head_once(f, r);
        if (!why && r->status >= 200)
            return NULL;
    }
    return why ? why : "the server sent no final answer";
}

static const char *copy_exactly(fetch *f, sink *k, uint64_t n)
{
    while (n > 0) {
        if (f->pos == f->len) {
            const char *why = fill(f);
            if (why)
                return why;
            if (f->len == 0)
                return explain(f, "truncated: the server closed the connection %" PRIu64
                               " bytes too early", n);
        }
        size_t have = f->len - f->pos, take = n < have ? (size_t)n : have;
        const char *why = write_sink(f, k, f->in + f->pos, take);
        if (why)
            return why;
        f->pos += take;
        n -= take;
    }
    return NULL;
}

static const char *copy_chunks(fetch *f, sink *k)
{
    char line[MAX_LINE];
    const char *why;

    for (;;) {
        why = read_line(f, line);
        if (why)
            return why;
        size_t digits = strspn(line, "0123456789abcdefABCDEF");
        if (digits < 1 || digits > 15 || !strchr("; \t", line[digits]))
            return "the server sent a chunk without a valid size";
        uint64_t n = strtoull(line, NULL, 16);
        if (n == 0)
            break;
        why = copy_exactly(f, k, n);
        if (!why)
            why = read_line(f, line);
        if (why)
            return why;
        if (line[0] != '\0')
            return "the server sent a chunk that is longer than it said";
    }
    for (int i = 0; i < MAX_HEADERS; i++) { /* the trailers */
        why = read_line(f, line);
        if (why || line[0] == '\0')
            return why;
    }
    return "the server sent too many trailer lines";
}

/* Without a length the end of the stream is the end of the body, so TLS has to vouch for it. */
static const char *copy_to_end(fetch *f, sink *k)
{
    do {
        const char *why = write_sink(f, k, f->in + f->pos, f->len - f->pos);
        if (!why)
            why = fill(f);
        if (why)
            return why;
    } while (f->len > 0);
    if (pysock_is_ssl(f->s) && !pysock_ssl_eof_is_clean(f->s))
        return "truncated? The connection ended without close_notify, and no length was given";
    return NULL;
}

static const char *copy_body(fetch *f, const response *r)
{
    sink k;
    const char *why = open_sink(f, r, &k);

    if (why)
        return why;
    if (r->status == 204 || r->status == 304)
        why = NULL;
    else if (r->chunked)
        why = copy_chunks(f, &k);
    else if (r->has_length)
        why = copy_exactly(f, &k, r->length);
    else
        why = copy_to_end(f, &k);

    const char *close_why = close_sink(f, &k);
    return why ? why : close_why;
}

/* ---- connection and redirects ---- */

static const char *make_tls(fetch *f)
{
    const options *opt = f->opt;

    if (f->tls)
        return NULL;
    f->tls = opt->cacert || opt->insecure ? pysock_ssl_context_new(PYSOCK_SERVER_AUTH)
                                          : pysock_ssl_create_default_context(PYSOCK_SERVER_AUTH);
    if (!f->tls)
        return pysock_error_message();
    if (opt->insecure && (pysock_ssl_set_check_hostname(f->tls, 0) < 0 ||
                          pysock_ssl_set_verify_mode(f->tls, PYSOCK_CERT_NONE) < 0))
        return pysock_error_message();
    if (opt->cacert && pysock_ssl_load_verify_locations(f->tls, opt->cacert, NULL) < 0)
        return pysock_error_message();
    if (opt->cert && pysock_ssl_load_cert_chain(f->tls, opt->cert, opt->key) < 0)
        return pysock_error_message();
    return NULL;
}

/* ---- what -v shows of a TLS connection ---- */

static void append(char *line, size_t size, const char *text)
{
    size_t used = strlen(line);

    snprintf(line + used, size - used, "%s", text);
}

static void show_name(const char *label, const pysock_ssl_attribute *attributes, size_t count)
{
    char line[1024] = "";

    for (size_t i = 0; i < count; i++) {
        append(line, sizeof line, i ? ", " : "");
        append(line, sizeof line, attributes[i].name);
        append(line, sizeof line, "=");
        append(line, sizeof line, attributes[i].value);
    }
    print_clean(label, line);
}

static void show_cert(const pysock_ssl_cert *cert)
{
    char line[1024] = "";

    show_name("*   subject: ", cert->subject, cert->subject_count);
    show_name("*   issuer:  ", cert->issuer, cert->issuer_count);
    fprintf(stderr, "*   valid:   %s to %s\n", cert->not_before, cert->not_after);
    for (size_t i = 0; i < cert->subject_alt_name_count; i++) {
        append(line, sizeof line, i ? ", " : "");
        append(line, sizeof line, cert->subject_alt_names[i].value);
    }
    print_clean("*   names:   ", line);
    fputs("*   SHA-256: ", stderr);
    for (size_t i = 0; i < sizeof cert->sha256; i++)
        fprintf(stderr, "%s%02X", i ? ":" : "", cert->sha256[i]);
    fputc('\n', stderr);
}

static const char *show_tls(fetch *f)
{
    pysock_ssl_cipher_info info;
    pysock_ssl_cert *cert;

    if (pysock_ssl_cipher(f->s, &info) < 0)
        return pysock_error_message();
    fprintf(stderr, "* %s, %s\n", pysock_ssl_version(f->s), info.name);
    cert = pysock_ssl_getpeercert(f->s);
    if (!cert)
        return pysock_error_message();
    fprintf(stderr, "* certificate, %s:\n", f->opt->insecure ? "NOT verified" : "verified");
    show_cert(cert);
    pysock_ssl_cert_free(cert);
    return NULL;
}

static const char *connect_to(fetch *f, const url *u)
{
    const char *why = u->tls ? make_tls(f) : NULL;

    if (why)
        return why;
    f->pos = f->len = 0;
    f->s = pysock_create_connection(u->host, u->port, CONNECT_TIMEOUT);
    if (!f->s || (u->tls && pysock_ssl_wrap_socket(f->s, f->tls, u->host) < 0) ||
        pysock_settimeout(f->s, READ_TIMEOUT) < 0)
        return pysock_error_message();
    return f->opt->verbose && u->tls ? show_tls(f) : NULL;
}

static const char *send_request(fetch *f, const url *u)
{
    char authority[sizeof u->host + 16], request[MAX_URL + 1024];

    format_authority(u, authority, sizeof authority);
    int n = snprintf(request, sizeof request,
                     "GET %s HTTP/1.1\r\n"
                     "Host: %s\r\n"
                     "User-Agent: https_get (pysock " PYSOCK_VERSION ")\r\n"
                     "Accept: */*\r\n"
                     "Accept-Encoding: identity\r\n"
                     "Connection: close\r\n"
                     "\r\n", u->target, authority);
    if (f->opt->verbose)
        fprintf(stderr, "> GET %s HTTP/1.1\n> Host: %s\n", u->target, authority);
    return pysock_sendall(f->s, request, (size_t)n, 0) < 0 ? pysock_error_message() : NULL;
}

/* Goes from u to where r points. */
static const char *follow(fetch *f, const response *r, url *u)
{
    url to;
    const char *why = resolve_url(u, r->location, &to);

    if (why)
        return explain(f, "cannot follow a redirect to %.100s: %s", r->location, why);
    if (u->tls && !to.tls)
        return "the server redirects from https to http, which is not safe to follow";
    if (f->opt->cert && (strcasecmp(u->host, to.host) != 0 || (u->tls && u->port != to.port)))
        return explain(f, "the server redirects to %.100s, which must not see the client's "
                       "certificate unasked; give that URL if it may", to.host);
    *u = to;
    return NULL;
}

static bool is_redirect(const response *r)
{
    switch (r->status) {
    case 301: case 302: case 303: case 307: case 308:
        return r->location[0] != '\0';
    default:
        return false;
    }
}

/* One request and its answer. *again: u is now another URL, to be asked next. */
static const char *fetch_once(fetch *f, url *u, response *r, bool *again)
{
    const char *why = connect_to(f, u);

    if (!why)
        why = send_request(f, u);
    if (!why)
        why = read_head(f, r);
    if (why)
        return why;
    *again = is_redirect(r);
    if (*again)
        return follow(f, r, u);
    return r->status < 400 ? copy_body(f, r) : NULL;
}

static int run(fetch *f)
{
    url u;
    char with_scheme[MAX_URL];
    bool again = true;
    response r = {.status = 0};

    int n = snprintf(with_scheme, sizeof with_scheme, "%s%s",
                     has_scheme(f->opt->url) ? "" : "https://", f->opt->url);
    const char *why = n < MAX_URL ? parse_url(with_scheme, &u) : "the URL is too long";
    if (why) {
        fprintf(stderr, "https_get: bad URL: %s\n", why);
        return 2;
    }

    for (int i = 0; again && !why; i++) {
        if (i > MAX_REDIRECTS)
            why = "too many redirects";
        else
            why = fetch_once(f, &u, &r, &again);
        if (why)
            print_clean("https_get: ", why);
        pysock_close(f->s);
        f->s = NULL;
    }
    if (why)
        return 1;
    if (r.status < 400)
        return 0;
    fprintf(stderr, "https_get: HTTP %d", r.status);
    print_clean(" ", r.reason);
    return 3;
}

static int usage(FILE *to)
{
    fputs("usage: https_get [-v] [-o FILE] [--cacert FILE | --insecure]\n"
          "                 [--cert FILE [--key FILE]] URL\n"
          "  URL            https://host[:port][/path] or http://...; https if not said\n"
          "  -o FILE        write the body to FILE, not to stdout\n"
          "  --cacert FILE  trust the certificates in this PEM file, not the system's\n"
          "  --insecure     verify nothing: anybody can be in the middle\n"
          "  --cert FILE    our own certificate chain (PEM), for servers that ask for one\n"
          "  --key FILE     its private key (PEM), if it is not in the same file\n"
          "  -v             show headers, cipher and the server's certificate on stderr\n", to);
    return to == stdout ? 0 : 2;
}

int main(int argc, char **argv)
{
    options opt = {.url = NULL};
    static fetch f; /* zeroed, and large for a stack */

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--help") == 0)
            return usage(stdout);
        if (strcmp(argv[i], "-v") == 0)
            opt.verbose = true;
        else if (strcmp(argv[i], "-o") == 0 && i + 1 < argc)
            opt.output = argv[++i];
        else if (strcmp(argv[i], "--cacert") == 0 && i + 1 < argc)
            opt.cacert = argv[++i];
        else if (strcmp(argv[i], "--cert") == 0 && i + 1 < argc)
            opt.cert = argv[++i];
        else if (strcmp(argv[i], "--key") == 0 && i + 1 < argc)
            opt.key = argv[++i];
        else if (strcmp(argv[i], "--insecure") == 0)
            opt.insecure = true;
        else if (argv[i][0] != '-' && !opt.url)
            opt.url = argv[i];
        else
            return usage(stderr);
    }
    if (!opt.url || (opt.key && !opt.cert) || (opt.cacert && opt.insecure))
        return usage(stderr);
    if (opt.insecure)
        fputs("https_get: warning: the server's certificate is not verified\n", stderr);

    f.opt = &opt;
    int status = run(&f);
    pysock_ssl_context_free(f.tls);
    return status;
}
