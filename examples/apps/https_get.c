/*
https_get: fetches a URL and writes the body to stdout, or to a file.

cc -I. examples/apps/https_get.c -o https_get -lbearssl -lpthread

./https_get https://example.org/
./https_get -o page.html --cacert ca.pem https://localhost:8443/
./https_get -v --cert client.pem --key client.key https://localhost:8443/

Blocking sockets with a timeout: the calling thread does all the work and no other is started.
Exit status: 0 everything arrived, 1 something failed, 2 wrong usage, 3 the server replied with a
status of 400 or above.
*/
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#define CLI_PROGRAM "https_get"
#include "cli.h"

#include <unistd.h>

#define READ_TIMEOUT 30.0 /* seconds that the server may be silent */

enum { MAX_REDIRECTS = 10 };

typedef struct options {
    const char *url, *output, *cacert, *cert, *key;
    bool verbose, insecure;
} options;

typedef struct sink { /* where the body goes, and how far it is */
    FILE *file;
    bool has_total, progress, tty;
    uint64_t got, total;
    double started, shown;
} sink;

typedef struct fetch {
    const options *opt;
    pysock_ssl_context *tls; /* made for the first https URL */
    cli_http http;
} fetch;

/* Every step below that can fail returns NULL, or an error message. */

/* ---- the body's destination ---- */

/* On a terminal ten times a second, elsewhere once at the end. */
static void show_progress(sink *k, bool last)
{
    double t = cli_now(), seconds = t - k->started;
    char got[32], total[32], rate[32];

    if (!k->progress || (!last && (!k->tty || t - k->shown < 0.1)))
        return;
    k->shown = t;
    cli_format_bytes((double)k->got, got, sizeof got);
    cli_format_bytes((double)k->total, total, sizeof total);
    cli_format_bytes((double)k->got / (seconds > 0 ? seconds : 1e-9), rate, sizeof rate);

    fputs(k->tty ? "\r\033[K" : "", stderr);
    if (k->has_total && k->total > 0 && k->got < k->total)
        fprintf(stderr, "%3.0f%%  %s of %s, %s/s", 100 * (double)k->got / (double)k->total, got,
                total, rate);
    else
        fprintf(stderr, "%s in %.1f s, %s/s", got, seconds, rate);
    fputs(last ? "\n" : "", stderr);
}

static const char *open_sink(const char *path, const cli_response *r, sink *k)
{
    *k = (sink){.file = stdout, .has_total = r->has_length, .total = r->length};
    k->tty = isatty(STDERR_FILENO);
    k->progress = path || (k->tty && !isatty(STDOUT_FILENO));
    k->started = k->shown = cli_now();
    if (path)
        k->file = fopen(path, "wb");
    return k->file ? NULL : cli_explain("cannot write %.150s: %s", path, strerror(errno));
}

static const char *write_sink(void *arg, const char *data, size_t n)
{
    sink *k = arg;

    if (fwrite(data, 1, n, k->file) != n)
        return cli_explain("cannot write: %s", strerror(errno));
    k->got += n;
    show_progress(k, false);
    return NULL;
}

static const char *copy_body(fetch *f, const cli_response *r)
{
    sink k;
    const char *why = open_sink(f->opt->output, r, &k);

    if (why)
        return why;
    if (r->status != 204 && r->status != 304)
        why = cli_http_copy_body(&f->http, r, write_sink, &k);
    int failed = f->opt->output ? fclose(k.file) : fflush(k.file);
    if (failed && !why)
        why = cli_explain("cannot write: %s", strerror(errno));
    show_progress(&k, true);
    return why;
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
    cli_print_clean(label, line);
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
    cli_print_clean("*   names:   ", line);
    fputs("*   SHA-256: ", stderr);
    for (size_t i = 0; i < sizeof cert->sha256; i++)
        fprintf(stderr, "%s%02X", i ? ":" : "", cert->sha256[i]);
    fputc('\n', stderr);
}

static const char *show_tls(fetch *f)
{
    pysock_ssl_cipher_info info;
    pysock_ssl_cert *cert;

    if (pysock_ssl_cipher(f->http.s, &info) < 0)
        return pysock_error_message();
    fprintf(stderr, "* %s, %s\n", pysock_ssl_version(f->http.s), info.name);
    cert = pysock_ssl_getpeercert(f->http.s);
    if (!cert)
        return pysock_error_message();
    fprintf(stderr, "* certificate, %s:\n", f->opt->insecure ? "NOT verified" : "verified");
    show_cert(cert);
    pysock_ssl_cert_free(cert);
    return NULL;
}

/* ---- connection and redirects ---- */

static const char *connect_to(fetch *f, const cli_url *u)
{
    const options *opt = f->opt;
    const char *why;

    if (u->tls && !f->tls)
        f->tls = cli_client_context(opt->cacert, opt->insecure, opt->cert, opt->key);
    if (u->tls && !f->tls)
        return pysock_error_message();
    why = cli_http_open(&f->http, u, f->tls, READ_TIMEOUT);
    return !why && opt->verbose && u->tls ? show_tls(f) : why;
}

/* Sets u to the target of the redirect r. */
static const char *follow(fetch *f, const cli_response *r, cli_url *u)
{
    char location[CLI_MAX_URL];
    cli_url to;
    const char *why = cli_encode_url(r->location, location, sizeof location)
                          ? cli_follow(u, location, &to)
                          : "the server redirects to a URL that is too long";

    if (why)
        return why;
    if (f->opt->cert && (strcasecmp(u->host, to.host) != 0 || (u->tls && u->port != to.port)))
        return cli_explain("the server redirects to %.100s, which must not see the client's "
                           "certificate unasked; give that URL if it may",
                           to.host);
    *u = to;
    return NULL;
}

/* One request and its response. *again: u is now another URL, to be fetched next. */
static const char *fetch_once(fetch *f, cli_url *u, cli_response *r, bool *again)
{
    const char *why = connect_to(f, u);

    if (!why)
        why = cli_http_ask(&f->http, u, "");
    if (!why)
        why = cli_http_read_head(&f->http, r);
    if (why)
        return why;
    *again = cli_is_redirect(r);
    if (*again)
        return follow(f, r, u);
    return r->status < 400 ? copy_body(f, r) : NULL;
}

/* https:// if text has no scheme. */
static const char *parse_argument(const char *text, cli_url *u)
{
    char whole[CLI_MAX_URL], encoded[CLI_MAX_URL];
    int n = snprintf(whole, sizeof whole, "%s%s", cli_has_scheme(text) ? "" : "https://", text);

    if ((size_t)n >= sizeof whole || !cli_encode_url(whole, encoded, sizeof encoded))
        return "the URL is too long";
    return cli_parse_url(encoded, u);
}

static int run(fetch *f)
{
    cli_url u;
    bool again = true;
    cli_response r = {.status = 0};
    const char *why = parse_argument(f->opt->url, &u);

    if (why) {
        cli_complain("bad URL: %s", why);
        return 2;
    }
    for (int i = 0; again && !why; i++) {
        why = i > MAX_REDIRECTS ? "too many redirects" : fetch_once(f, &u, &r, &again);
        if (why)
            cli_print_clean(CLI_PROGRAM ": ", why);
        cli_http_close(&f->http);
    }
    if (why)
        return 1;
    if (r.status < 400)
        return 0;
    fprintf(stderr, "https_get: HTTP %d", r.status);
    cli_print_clean(" ", r.reason);
    return 3;
}

static const char usage[] =
    "usage: https_get [-v] [-o FILE] [--cacert FILE | --insecure]\n"
    "                 [--cert FILE [--key FILE]] URL\n"
    "  URL            https://host[:port][/path] or http://...; default https\n"
    "  -o FILE        write the body to FILE, not to stdout\n"
    "  --cacert FILE  trust the certificates in this PEM file, not the system's\n"
    "  --insecure     verify nothing: open to man-in-the-middle attacks\n"
    "  --cert FILE    our own certificate chain (PEM), for servers that ask for one\n"
    "  --key FILE     its private key (PEM), if it is not in the same file\n"
    "  -v             show headers, cipher and the server's certificate on stderr\n";

int main(int argc, char **argv)
{
    options opt = {.url = NULL};
    const cli_option table[] = {{"-v", .flag = &opt.verbose},
                                {"-o", .text = &opt.output},
                                {"--cacert", .text = &opt.cacert},
                                {"--insecure", .flag = &opt.insecure},
                                {"--cert", .text = &opt.cert},
                                {"--key", .text = &opt.key},
                                {.name = NULL}};

    if (cli_parse(argc, argv, table, &opt.url, 1, usage) == 0 || (opt.key && !opt.cert) ||
        (opt.cacert && opt.insecure))
        cli_wrong_usage(usage);
    if (opt.insecure)
        cli_complain("warning: the server's certificate is not verified");

    fetch f = {.opt = &opt, .http = {.verbose = opt.verbose}};
    int status = run(&f);
    pysock_ssl_context_release(f.tls);
    return status;
}
