/*
tls_inspect: shows a TLS server's parameters and its certificates, whether they verify or not.

cc -I. examples/apps/tls_inspect.c -o tls_inspect -lbearssl -lpthread

./tls_inspect example.org
./tls_inspect --cafile ca.pem --servername localhost 127.0.0.1:8443
./tls_inspect --insecure --timeout 5 [::1]:8443

The first connection verifies. If that fails on the certificate, the reason is kept, and a second
connection without verification shows the rest. Nothing is sent except the handshake.
Exit status: 0 it verifies, or --insecure was given; 1 it does not, or there is no connection;
2 wrong usage.
*/
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#define CLI_PROGRAM "tls_inspect"
#include "cli.h"

enum { MAX_CHAIN = 32 };

typedef struct options {
    char host[256]; /* without the brackets of an IPv6 address */
    int port;
    const char *cafile, *servername;
    bool insecure;
    double timeout;
} options;

static void put_line(const char *label, const char *text)
{
    printf("%-12s", label);
    cli_put_clean(stdout, text, strlen(text));
    putchar('\n');
}

/* ---- certificates ---- */

/* The usual short name, or the long one if there is none. */
static const char *short_name(const char *name)
{
    static const char *const names[][2] = {
        {"commonName", "CN"},      {"organizationName", "O"},     {"organizationalUnitName", "OU"},
        {"countryName", "C"},      {"stateOrProvinceName", "ST"}, {"localityName", "L"},
        {"domainComponent", "DC"},
    };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(name, names[i][0]) == 0)
            return names[i][1];
    return name;
}

static void put_name(const pysock_ssl_attribute *attributes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        printf("%s%s=", i ? ", " : "", short_name(attributes[i].name));
        cli_put_clean(stdout, attributes[i].value, attributes[i].value_size);
    }
    puts(count ? "" : "(empty)");
}

/* How far a time is from now, in the most suitable unit. */
static void put_distance(int64_t seconds)
{
    const char *unit = seconds < 2 * 3600 ? "minute" : seconds < 2 * 86400 ? "hour" : "day";
    int64_t n = seconds / (seconds < 2 * 3600 ? 60 : seconds < 2 * 86400 ? 3600 : 86400);

    printf("%" PRId64 " %s%s", n, unit, n == 1 ? "" : "s");
}

static void put_dates(const pysock_ssl_cert *cert)
{
    int64_t now = (int64_t)time(NULL);

    printf("      not before   %s", cert->not_before);
    if (now < cert->not_before_seconds) {
        fputs(" (NOT YET VALID: begins in ", stdout);
        put_distance(cert->not_before_seconds - now);
        putchar(')');
    }
    printf("\n      not after    %s (", cert->not_after);
    if (now > cert->not_after_seconds) {
        fputs("EXPIRED ", stdout);
        put_distance(now - cert->not_after_seconds);
        puts(" ago)");
    } else {
        put_distance(cert->not_after_seconds - now);
        puts(" left)");
    }
}

static void put_alt_names(const pysock_ssl_cert *cert)
{
    for (size_t i = 0; i < cert->subject_alt_name_count; i++) {
        const pysock_ssl_alt_name *n = &cert->subject_alt_names[i];
        printf("%s%s:", i ? ", " : "      names        ", n->type);
        if (n->dirname_count == 0)
            cli_put_clean(stdout, n->value, n->value_size);
        for (size_t k = 0; k < n->dirname_count; k++) {
            printf("/%s=", short_name(n->dirname[k].name));
            cli_put_clean(stdout, n->dirname[k].value, n->dirname[k].value_size);
        }
    }
    if (cert->subject_alt_name_count)
        putchar('\n');
}

static void put_cert(const pysock_ssl_cert *cert)
{
    fputs(cert->is_ca ? "CA, subject  " : "subject      ", stdout);
    put_name(cert->subject, cert->subject_count);
    fputs("      issuer       ", stdout);
    put_name(cert->issuer, cert->issuer_count);
    put_dates(cert);
    put_alt_names(cert);
    if (cert->key_type)
        printf("      key          %s, %d bits\n", cert->key_type, cert->key_bits);
    else
        puts("      key          of a kind that is not known here");
    printf("      signed with  %s\n      serial       %s\n      SHA-256      ",
           cert->signature_algorithm, cert->serial_number);
    for (size_t i = 0; i < sizeof cert->sha256; i++)
        printf("%s%02X", i ? ":" : "", cert->sha256[i]);
    putchar('\n');
}

/* A damaged certificate is reported and skipped: the others are still of interest. */
static int show_chain(pysock *s)
{
    pysock_buf *chain[MAX_CHAIN];
    ptrdiff_t count = pysock_ssl_get_unverified_chain(s, chain, MAX_CHAIN);

    if (count < 0)
        return -1;
    printf("\nThe server sent %td certificate%s:\n", count, count == 1 ? "" : "s");
    for (ptrdiff_t i = 0; i < count && i < MAX_CHAIN; i++) {
        pysock_ssl_cert *cert = pysock_ssl_cert_parse(pysock_buf_data(chain[i]),
                                                      pysock_buf_size(chain[i]));
        printf("\n %3td  ", i);
        if (cert)
            put_cert(cert);
        else
            put_line("UNREADABLE:", pysock_error_message());
        pysock_ssl_cert_free(cert);
        pysock_buf_release(chain[i]);
    }
    return 0;
}

/* ---- connections ---- */

/* NULL with pysock's error if there is no connection or its handshake fails. Closing a socket
   leaves the error as it is. */
static pysock *open_tls(const options *opt, bool verify)
{
    static const char *const protocols[] = {"h2", "http/1.1"};
    pysock_ssl_context *tls = cli_client_context(verify ? opt->cafile : NULL, !verify, NULL, NULL);
    bool ready = tls && pysock_ssl_set_alpn_protocols(tls, protocols, 2) == 0;
    pysock *s = ready ? pysock_create_connection(opt->host, opt->port, opt->timeout) : NULL;
    bool ok = s && pysock_ssl_wrap_socket(s, tls, opt->servername) == 0;

    pysock_ssl_context_release(tls); /* the socket has its own reference */
    if (ok)
        return s;
    pysock_close(s);
    return NULL;
}

static void show_session(pysock *s)
{
    char alpn[256];
    pysock_addr addr;
    char text[PYSOCK_ADDR_STRLEN];
    pysock_ssl_cipher_info info;

    if (pysock_getpeername(s, &addr) == 0) {
        pysock_addr_format(&addr, text, sizeof text);
        put_line("address", text);
    }
    put_line("protocol", pysock_ssl_version(s));
    if (pysock_ssl_cipher(s, &info) == 0)
        printf("%-12s%s, %d bits (%s)\n", "suite", info.name, info.secret_bits, info.standard_name);
    int selected = pysock_ssl_selected_alpn_protocol(s, alpn, sizeof alpn) > 0;
    put_line("ALPN", selected ? alpn : "none (h2 and http/1.1 were offered)");
}

/* Shown separately: the first reason why a chain does not verify hides others. */
static void show_fit(pysock *s, const char *name)
{
    pysock_buf *der = pysock_ssl_getpeercert_der(s);

    if (der && pysock_ssl_match_hostname(pysock_buf_data(der), pysock_buf_size(der), name) == 0)
        printf("%-12sthe certificate is for %s\n", "host name", name);
    else
        printf("%-12sthe certificate is NOT for %s\n", "host name", name);
    pysock_buf_release(der);
}

static int fail(void)
{
    cli_complain_of_pysock();
    return 1;
}

static int inspect(const options *opt)
{
    bool verified = !opt->insecure;
    char reason[256] = "", message[512] = "";
    pysock *s = open_tls(opt, verified);

    if (!s && pysock_error() == PYSOCK_SSL_CERT_VERIFICATION_ERROR) {
        snprintf(reason, sizeof reason, "%s", pysock_error_verify_message());
        snprintf(message, sizeof message, "%s", pysock_error_message());
        verified = false;
        s = open_tls(opt, false);
    }
    if (reason[0]) {
        printf("%-12sNO: %s\n", "verified", reason);
        put_line("", message);
    }
    if (!s)
        return fail();

    if (verified)
        printf("%-12syes, for %s\n", "verified", opt->servername);
    else if (opt->insecure)
        printf("%-12snot asked for (--insecure)\n", "verified");
    show_session(s);
    show_fit(s, opt->servername);
    int status = show_chain(s) < 0 ? fail() : reason[0] ? 1 : 0;
    pysock_close(s);
    return fflush(stdout) == 0 ? status : 1;
}

/* ---- the command line ---- */

static const char usage[] =
    "usage: tls_inspect [--insecure | --cafile FILE] [--servername NAME] [--timeout S]\n"
    "                   HOST[:PORT]\n"
    "  HOST[:PORT]        443 if not said; an IPv6 address with a port in brackets\n"
    "  --cafile FILE      trust the certificates in FILE (PEM), not the system's\n"
    "  --insecure         do not try to verify\n"
    "  --servername NAME  what to ask for and the certificate must be for, if not HOST\n"
    "  --timeout S        seconds for each connection, and its handshake; 10 if not said\n"
    "Exit status: 0 it verifies; 1 it does not, or there is no connection; 2 wrong usage\n";

/* "host", "host:port", "[IPv6]", "[IPv6]:port", or an IPv6 address alone. */
static bool parse_host(options *opt, const char *text)
{
    bool bracket = text[0] == '[';
    const char *end = bracket ? strchr(text, ']') : strchr(text, ':');

    if (bracket && !end)
        return false;
    if (!end || (!bracket && strchr(end + 1, ':')))
        end = text + strlen(text);

    size_t n = (size_t)(end - text) - bracket;
    if (n == 0 || n >= sizeof opt->host)
        return false;
    memcpy(opt->host, text + bracket, n);
    opt->host[n] = '\0';

    end += bracket;
    if (*end == ':')
        opt->port = cli_parse_port(end + 1, 1);
    return (*end == '\0' || *end == ':') && opt->port > 0;
}

int main(int argc, char **argv)
{
    options opt = {.port = 443, .timeout = 10};
    const char *host;
    const cli_option table[] = {{"--insecure", .flag = &opt.insecure},
                                {"--cafile", .text = &opt.cafile},
                                {"--servername", .text = &opt.servername},
                                {"--timeout", .seconds = &opt.timeout},
                                {.name = NULL}};

    if (cli_parse(argc, argv, table, &host, 1, usage) == 0 || !parse_host(&opt, host) ||
        (opt.cafile && opt.insecure))
        cli_wrong_usage(usage);
    if (!opt.servername)
        opt.servername = opt.host;
    return inspect(&opt);
}
