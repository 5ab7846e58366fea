/*
cli.h: what the programs in this folder share: time, messages, arguments, signals, TLS contexts,
addresses, URLs, and the client's side of HTTP.

    #define PYSOCK_IMPLEMENTATION
    #include "pysock.h"

    #define CLI_PROGRAM "netcat"
    #include "cli.h"

A program is one file, so everything here is static, and the little state that it has belongs to
that program. Functions are for the main thread unless their comment says otherwise.
*/
#ifndef CLI_H
#define CLI_H

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

/* ---- time ---- */

/* Seconds on a monotonic clock, for deadlines and durations. Thread-safe. */
static inline double cli_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- messages ---- */

/* Prints "PROGRAM: ..." on stderr. Returns false, as functions often end with it. Thread-safe. */
__attribute__((format(printf, 1, 2))) static inline bool cli_complain(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs(CLI_PROGRAM ": ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return false;
}

/* The same with pysock's last error. */
static inline bool cli_complain_of_pysock(void)
{
    return cli_complain("%s", pysock_error_message());
}

/* Writes text from the peer. Control characters, which could steer a terminal, become question
   marks, including those of UTF-8 (U+0080 to U+009F). */
static inline void cli_put_clean(FILE *to, const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        bool second = c == 0xc2 && i + 1 < size && (unsigned char)text[i + 1] >= 0x80 &&
                      (unsigned char)text[i + 1] < 0xa0;
        fputc(c < ' ' || c == 0x7f || second ? '?' : text[i], to);
        i += second;
    }
}

/* A line on stderr: before as it is, text cleaned. */
static inline void cli_print_clean(const char *before, const char *text)
{
    fputs(before, stderr);
    cli_put_clean(stderr, text, strlen(text));
    fputc('\n', stderr);
}

/* For functions that return NULL or an error message: formats that message. It is valid until the
   next call. */
__attribute__((format(printf, 1, 2))) static inline const char *cli_explain(const char *format, ...)
{
    static char why[1024];
    va_list args;

    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    return why;
}

/* "512 B", "1.5 KiB": 32 bytes of text are enough. */
static inline void cli_format_bytes(double n, char *text, size_t size)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t unit = 0;

    for (; n >= 1024 && unit < 4; unit++)
        n /= 1024;
    snprintf(text, size, unit ? "%.1f %s" : "%.0f %s", n, units[unit]);
}

/* ---- arguments ---- */

/* A number in digits alone, from lowest to highest; -1 if text is anything else. */
static inline int cli_parse_number(const char *text, int lowest, int highest)
{
    char *end;

    errno = 0;
    long n = strtol(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno != 0 || n < lowest || n > highest)
        return -1;
    return (int)n;
}

/* lowest: 0 if the system may choose the port, else 1. -1: text is not a port. */
static inline int cli_parse_port(const char *text, int lowest)
{
    return cli_parse_number(text, lowest, 65535);
}

/* A timeout: more than 0, at most a million seconds. */
static inline bool cli_parse_seconds(const char *text, double *seconds)
{
    char *end;

    *seconds = strtod(text, &end);
    return *text && !*end && *seconds > 0 && *seconds <= 1e6;
}

typedef struct cli_option {
    const char *name; /* "-v", "--cafile"; a row without one ends the table */
    /* Where it goes: one of these. All but a flag are followed by a value. */
    bool *flag;        /* set */
    const char **text; /* pointed to the argument */
    int *port;         /* 0 to 65535 */
    int *number;       /* from 0 on */
    double *seconds;   /* as cli_parse_seconds() */
} cli_option;

static inline bool cli_take_value(const cli_option *option, const char *value)
{
    if (option->text) {
        *option->text = value;
        return true;
    }
    if (option->seconds)
        return cli_parse_seconds(value, option->seconds);
    int *number = option->port ? option->port : option->number;
    *number = cli_parse_number(value, 0, option->port ? 65535 : INT32_MAX);
    return *number >= 0;
}

/* Prints the usage and ends the program with status 2. */
static inline void cli_wrong_usage(const char *usage)
{
    fputs(usage, stderr);
    exit(2);
}

/* Takes options, anywhere in argv[1] and after it, and at most max operands, which do not begin
   with "-". Returns the number of operands. "-h" and "--help" print usage and end the program with
   status 0, any error ends it with status 2. */
static inline int cli_parse(int argc, char **argv, const cli_option *options, const char **operands,
                            int max, const char *usage)
{
    int count = 0;

    for (int i = 1; i < argc; i++) {
        const cli_option *option = options;
        if (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--help") == 0) {
            fputs(usage, stdout);
            exit(0);
        }
        while (option->name && strcmp(option->name, argv[i]) != 0)
            option++;
        if (option->name && option->flag)
            *option->flag = true;
        else if (option->name && i + 1 < argc && cli_take_value(option, argv[i + 1]))
            i++;
        else if (argv[i][0] != '-' && count < max)
            operands[count++] = argv[i];
        else
            cli_wrong_usage(usage);
    }
    return count;
}

/* ---- signals ---- */

/* Not 0 once SIGINT or SIGTERM has arrived, after cli_stop_on_signals(). */
static volatile sig_atomic_t cli_stopping;

static inline void cli_on_signal(int number)
{
    (void)number;
    cli_stopping = 1;
}

static inline int cli_is_stopping(void *arg)
{
    (void)arg;
    return cli_stopping;
}

/* From now on these signals set cli_stopping, and a call that waits fails with EINTR instead of
   going on, as it would in Python. */
static inline void cli_stop_on_signals(void)
{
    struct sigaction action;

    memset(&action, 0, sizeof action);
    action.sa_handler = cli_on_signal;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    pysock_set_interrupt_hook(cli_is_stopping, NULL);
}

/* ---- TLS contexts ---- */

/* A client's context, which the caller releases, or NULL with pysock's error. It trusts the
   certificates in cafile or, if that is NULL, the system's; insecure: it verifies nothing. cert and
   key are files with the client's own, or NULL. */
static inline pysock_ssl_context *cli_client_context(const char *cafile, bool insecure,
                                                     const char *cert, const char *key)
{
    pysock_ssl_context *tls = cafile || insecure
                                  ? pysock_ssl_context_new(PYSOCK_SERVER_AUTH)
                                  : pysock_ssl_create_default_context(PYSOCK_SERVER_AUTH);

    if (tls &&
        (!insecure || (pysock_ssl_set_check_hostname(tls, 0) == 0 &&
                       pysock_ssl_set_verify_mode(tls, PYSOCK_CERT_NONE) == 0)) &&
        (!cafile || pysock_ssl_load_verify_locations(tls, cafile, NULL) == 0) &&
        (!cert || pysock_ssl_load_cert_chain(tls, cert, key) == 0))
        return tls;
    pysock_ssl_context_release(tls); /* leaves the error as it is */
    return NULL;
}

/* A server's context, as above, with its certificate chain and key; key NULL: both in one file. */
static inline pysock_ssl_context *cli_server_context(const char *cert, const char *key)
{
    pysock_ssl_context *tls = pysock_ssl_create_default_context(PYSOCK_CLIENT_AUTH);

    if (tls && pysock_ssl_load_cert_chain(tls, cert, key) == 0)
        return tls;
    pysock_ssl_context_release(tls);
    return NULL;
}

/* ---- addresses ---- */

/* Where s is bound, as "127.0.0.1:8443", into text[PYSOCK_ADDR_STRLEN]; returns it. */
static inline const char *cli_name_of(pysock *s, char *text)
{
    pysock_addr addr;

    if (pysock_getsockname(s, &addr) < 0)
        return "an unknown address";
    pysock_addr_format(&addr, text, PYSOCK_ADDR_STRLEN);
    return text;
}

/* 127.0.0.0/8 or ::1. */
static inline bool cli_is_loopback(const pysock_addr *addr)
{
    if (addr->u.sa.sa_family == AF_INET)
        return ntohl(addr->u.in.sin_addr.s_addr) >> 24 == 127;
    return addr->u.sa.sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&addr->u.in6.sin6_addr);
}

/* ---- URLs (RFC 3986) ---- */

enum { CLI_MAX_URL = 8192, CLI_MAX_LINE = 8192, CLI_MAX_HEADERS = 256 };

typedef struct cli_url {
    bool tls;
    int port;
    char host[256];           /* without the brackets of an IPv6 address */
    char target[CLI_MAX_URL]; /* path and query, as in the request line */
} cli_url;

/* Whether text begins with "https://", or any other scheme. */
static inline bool cli_has_scheme(const char *text)
{
    size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-.");

    return n > 0 && strncmp(text + n, "://", 3) == 0;
}

/* Percent-encodes what a request must not contain: control characters, spaces, some punctuation,
   and non-ASCII bytes. False: it does not fit. */
static inline bool cli_encode_url(const char *text, char *out, size_t size)
{
    size_t used = 0;

    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        bool plain = c > ' ' && c < 0x7f && !strchr("\"<>\\^`{|}", c);
        if (used + 4 > size)
            return false;
        used += (size_t)snprintf(out + used, 4, plain ? "%c" : "%%%02X", c);
    }
    out[used] = '\0';
    return true;
}

/* text, n: "host", "host:port", "[IPv6]" or "[IPv6]:port". NULL, or what is wrong with it. */
static inline const char *cli_parse_authority(const char *text, size_t n, cli_url *u)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";
    bool bracket = n > 0 && text[0] == '[';
    const char *end = text + n, *host = text + bracket;
    const char *after = memchr(text, bracket ? ']' : ':', n);
    char port[8];

    if (memchr(text, '@', n))
        return "a user name in a URL is not supported";
    if (!after && bracket)
        return "the ] after the IPv6 address is missing";
    if (!after)
        after = end;

    size_t length = (size_t)(after - host);
    if (length == 0)
        return "the host name is missing";
    if (length >= sizeof u->host)
        return "the host name is too long";
    memcpy(u->host, host, length);
    u->host[length] = '\0';
    if (u->host[strspn(u->host, bracket ? "0123456789abcdefABCDEF:." : letters)] != '\0')
        return "the host name has a character that cannot be in one";

    after += bracket;
    if (after < end && *after != ':')
        return "the host name is followed by something that is not a port";
    if (end - after < 2) /* "host:" has no port either */
        return NULL;
    snprintf(port, sizeof port, "%.*s", (int)(end - after - 1), after + 1);
    u->port = end - after - 1 < (ptrdiff_t)sizeof port ? cli_parse_port(port, 1) : -1;
    return u->port > 0 ? NULL : "the port is not a number from 1 to 65535";
}

/* "/a/./b/../c?d" becomes "/a/c?d". */
static inline void cli_remove_dot_segments(char *target)
{
    char *in = target, *out = target, *query = target + strcspn(target, "?");

    while (in < query) {
        size_t n = 1 + strcspn(in + 1, "/?");
        bool dot = n == 2 && in[1] == '.', dots = n == 3 && in[1] == '.' && in[2] == '.';

        if (!dot && !dots) {
            memmove(out, in, n);
            out += n;
        }
        while (dots && out > target && *--out != '/')
            continue;
        if ((dot || dots) && in + n == query)
            *out++ = '/';
        in += n;
    }
    memmove(out, query, strlen(query) + 1);
}

/* Reads "http://..." or "https://...". NULL, or what is wrong with it. */
static inline const char *cli_parse_url(const char *text, cli_url *u)
{
    bool tls = strncasecmp(text, "https://", 8) == 0;

    if (!tls && strncasecmp(text, "http://", 7) != 0)
        return "only http:// and https:// are supported";
    text += tls ? 8 : 7;
    *u = (cli_url){.tls = tls, .port = tls ? 443 : 80};

    size_t authority = strcspn(text, "/?#"), target = strcspn(text + authority, "#");
    const char *slash = text[authority] == '/' ? "" : "/";
    for (size_t i = authority; i < authority + target; i++)
        if ((unsigned char)text[i] <= ' ' || (unsigned char)text[i] >= 0x7f)
            return "a space, or another character that must be percent-encoded, is in the path";
    if ((size_t)snprintf(u->target, sizeof u->target, "%s%.*s", slash, (int)target,
                         text + authority) >= sizeof u->target)
        return "the URL is too long";
    cli_remove_dot_segments(u->target);
    return cli_parse_authority(text, authority, u);
}

/* "host", "host:port", "[IPv6]:port": as it is written in a URL and in the Host header. */
static inline void cli_format_authority(const cli_url *u, char *text, size_t size)
{
    int n = snprintf(text, size, strchr(u->host, ':') ? "[%s]" : "%s", u->host);

    if (u->port != (u->tls ? 443 : 80))
        snprintf(text + n, size - (size_t)n, ":%d", u->port);
}

/* The target of a redirect from base to location, which may be relative. As cli_parse_url(). */
static inline const char *cli_resolve_url(const cli_url *base, const char *location, cli_url *to)
{
    const char *scheme = base->tls ? "https:" : "http:";
    char authority[sizeof base->host + 16], text[2 * CLI_MAX_URL + 512];
    size_t keep = 0; /* how much of the base's target stays */

    if (cli_has_scheme(location))
        return cli_parse_url(location, to);
    if (strncmp(location, "//", 2) == 0) {
        snprintf(text, sizeof text, "%s%s", scheme, location);
        return cli_parse_url(text, to);
    }
    if (location[0] == '\0' || location[0] == '#') {
        keep = strlen(base->target);
    } else if (location[0] != '/') {
        keep = strcspn(base->target, "?");
        while (keep > 0 && location[0] != '?' && base->target[keep - 1] != '/')
            keep--;
    }
    cli_format_authority(base, authority, sizeof authority);
    if ((size_t)snprintf(text, sizeof text, "%s//%s%.*s%s", scheme, authority, (int)keep,
                         base->target, location) >= sizeof text)
        return "the URL is too long";
    return cli_parse_url(text, to);
}

/* ---- HTTP/1.1 (RFC 9112), a client's side ----
   Functions return NULL, or an error message. */

typedef struct cli_http {
    pysock *s;
    pysock_file *file; /* what pysock_makefile() made of s */
    bool verbose;      /* requests and responses, without bodies, are shown on stderr */
} cli_http;

typedef struct cli_response {
    int status;
    char reason[128];
    bool chunked, has_length;
    uint64_t length;
    char location[CLI_MAX_LINE], content_range[128], last_modified[64]; /* "" if there is none */
} cli_response;

/* The message for a failed call on the connection. */
static inline const char *cli_explain_network(void)
{
    return cli_stopping ? "interrupted" : cli_explain("%s", pysock_error_message());
}

/* Connects within 15 seconds, with another 15 for the handshake; afterwards each call may take
   timeout seconds. tls may be NULL for an http URL. Call cli_http_close() after a failure too. */
static inline const char *cli_http_open(cli_http *c, const cli_url *u, pysock_ssl_context *tls,
                                        double timeout)
{
    c->s = pysock_create_connection(u->host, u->port, 15.0);
    if (!c->s || (u->tls && pysock_ssl_wrap_socket(c->s, tls, u->host) < 0) ||
        pysock_settimeout(c->s, timeout) < 0)
        return cli_explain_network();
    c->file = pysock_makefile(c->s, "rw", -1);
    return c->file ? NULL : cli_explain_network();
}

/* The socket is closed with the last file that was made of it. */
static inline void cli_http_close(cli_http *c)
{
    pysock_file_close(c->file);
    pysock_close(c->s);
    c->file = NULL;
    c->s = NULL;
}

/* Sends a request that ends the connection. extra: more header lines, or "". */
static inline const char *cli_http_ask(cli_http *c, const cli_url *u, const char *extra)
{
    char authority[sizeof u->host + 16], text[CLI_MAX_URL + 1024];

    cli_format_authority(u, authority, sizeof authority);
    int n = snprintf(text, sizeof text,
                     "GET %s HTTP/1.1\r\n"
                     "Host: %s\r\n"
                     "User-Agent: " CLI_PROGRAM " (pysock " PYSOCK_VERSION ")\r\n"
                     "Accept: */*\r\n"
                     "Accept-Encoding: identity\r\n"
                     "Connection: close\r\n"
                     "%s\r\n",
                     u->target, authority, extra);
    if (c->verbose)
        fprintf(stderr, "> GET %s HTTP/1.1\n> Host: %s\n", u->target, authority);
    if (pysock_file_write(c->file, text, (size_t)n, NULL) < 0 || pysock_file_flush(c->file) < 0)
        return cli_explain_network();
    return NULL;
}

/* Reads a line into line[CLI_MAX_LINE], without its end. */
static inline const char *cli_http_read_line(cli_http *c, char *line)
{
    ptrdiff_t n = pysock_file_readline(c->file, line, CLI_MAX_LINE);

    if (n < 0)
        return cli_explain_network();
    if (n == 0 || (line[n - 1] != '\n' && n < CLI_MAX_LINE - 1))
        return "truncated: the server closed the connection in the middle of its response";
    if (line[n - 1] != '\n')
        return "the server sent a line that is too long";
    if (memchr(line, '\0', (size_t)n))
        return "the server sent a zero byte in its header";
    n--;
    if (n > 0 && line[n - 1] == '\r')
        n--;
    line[n] = '\0';
    return NULL;
}

/* Reads the digits at *text and advances it. False: there are none, or too many. */
static inline bool cli_take_digits(const char **text, uint64_t *value)
{
    char *end;

    errno = 0;
    *value = strtoull(*text, &end, 10);
    if ((*text)[0] < '0' || (*text)[0] > '9' || errno != 0 || *value > INT64_MAX)
        return false;
    *text = end;
    return true;
}

static inline const char *cli_http_take_length(cli_response *r, const char *text)
{
    uint64_t n;

    if (!cli_take_digits(&text, &n) || *text)
        return "the server sent a Content-Length that is not a number";
    if (r->has_length && r->length != n)
        return "the server sent two different Content-Lengths";
    r->has_length = true;
    r->length = n;
    return NULL;
}

static inline const char *cli_http_take_header(cli_response *r, char *line)
{
    char *value = strchr(line, ':');

    if (!value)
        return "the server sent a header line without a colon";
    *value++ = '\0';
    value += strspn(value, " \t");
    for (size_t n = strlen(value); n > 0 && strchr(" \t", value[n - 1]); n--)
        value[n - 1] = '\0';

    if (strcasecmp(line, "Content-Length") == 0)
        return cli_http_take_length(r, value);
    if (strcasecmp(line, "Location") == 0)
        snprintf(r->location, sizeof r->location, "%s", value);
    if (strcasecmp(line, "Content-Range") == 0)
        snprintf(r->content_range, sizeof r->content_range, "%s", value);
    if (strcasecmp(line, "Last-Modified") == 0)
        snprintf(r->last_modified, sizeof r->last_modified, "%s", value);
    if (strcasecmp(line, "Transfer-Encoding") == 0) {
        if (strcasecmp(value, "chunked") != 0)
            return "the server sent a Transfer-Encoding other than chunked";
        r->chunked = true;
    }
    return NULL;
}

/* Reads header lines up to the empty one. r NULL: they are trailers and are ignored. */
static inline const char *cli_http_read_headers(cli_http *c, cli_response *r)
{
    char line[CLI_MAX_LINE];

    for (int i = 0; i < CLI_MAX_HEADERS; i++) {
        const char *why = cli_http_read_line(c, line);
        if (why || line[0] == '\0')
            return why;
        if (r && c->verbose)
            cli_print_clean("< ", line);
        if (r && line[0] != ' ' && line[0] != '\t') /* otherwise a continuation line */
            why = cli_http_take_header(r, line);
        if (why)
            return why;
    }
    return "the server sent too many header lines";
}

/* Reads the head of the final response; interim ones ("103 Early Hints") are skipped. */
static inline const char *cli_http_read_head(cli_http *c, cli_response *r)
{
    char line[CLI_MAX_LINE];
    int skip = 0;

    for (int i = 0; i < 10; i++) {
        *r = (cli_response){.status = 0};
        const char *why = cli_http_read_line(c, line);
        if (why)
            return why;
        if (sscanf(line, "HTTP/1.%*1[0-9] %3d%n", &r->status, &skip) != 1 || r->status < 100)
            return "the server does not speak HTTP/1";
        snprintf(r->reason, sizeof r->reason, "%s", line + skip + (line[skip] == ' '));
        if (c->verbose)
            cli_print_clean("< ", line);
        why = cli_http_read_headers(c, r);
        if (why || r->status >= 200)
            return why;
    }
    return "the server sent no final response";
}

/* Takes a piece of the body; NULL, or an error message. */
typedef const char *cli_writer(void *arg, const char *data, size_t size);

static inline const char *cli_http_copy_exactly(cli_http *c, uint64_t size, cli_writer *write_to,
                                                void *arg)
{
    char buf[16384];

    while (size > 0) {
        size_t most = size < sizeof buf ? (size_t)size : sizeof buf;
        ptrdiff_t n = pysock_file_read1(c->file, buf, most);
        if (n < 0)
            return cli_explain_network();
        if (n == 0)
            return cli_explain(
                "truncated: the server closed the connection %" PRIu64 " bytes too early", size);
        const char *why = write_to(arg, buf, (size_t)n);
        if (why)
            return why;
        size -= (uint64_t)n;
    }
    return NULL;
}

static inline const char *cli_http_copy_chunks(cli_http *c, cli_writer *write_to, void *arg)
{
    char line[CLI_MAX_LINE];

    for (;;) {
        const char *why = cli_http_read_line(c, line);
        if (why)
            return why;
        size_t digits = strspn(line, "0123456789abcdefABCDEF");
        if (digits < 1 || digits > 15 || !strchr("; \t", line[digits]))
            return "the server sent a chunk without a valid size";
        uint64_t size = strtoull(line, NULL, 16);
        if (size == 0)
            return cli_http_read_headers(c, NULL);
        why = cli_http_copy_exactly(c, size, write_to, arg);
        if (!why)
            why = cli_http_read_line(c, line);
        if (why)
            return why;
        if (line[0] != '\0')
            return "the server sent a chunk that is longer than its size";
    }
}

/* Without a length, the end of the stream ends the body, so TLS must have closed cleanly. */
static inline const char *cli_http_copy_to_end(cli_http *c, cli_writer *write_to, void *arg)
{
    char buf[16384];
    ptrdiff_t n;

    while ((n = pysock_file_read1(c->file, buf, sizeof buf)) > 0) {
        const char *why = write_to(arg, buf, (size_t)n);
        if (why)
            return why;
    }
    if (n < 0)
        return cli_explain_network();
    if (pysock_is_ssl(c->s) && !pysock_ssl_eof_is_clean(c->s))
        return "truncated? The connection ended without close_notify, and no length was given";
    return NULL;
}

/* Passes the body to write_to(arg, ...), piece by piece, in any framing. */
static inline const char *cli_http_copy_body(cli_http *c, const cli_response *r,
                                             cli_writer *write_to, void *arg)
{
    if (r->chunked)
        return cli_http_copy_chunks(c, write_to, arg);
    if (r->has_length)
        return cli_http_copy_exactly(c, r->length, write_to, arg);
    return cli_http_copy_to_end(c, write_to, arg);
}

static inline bool cli_is_redirect(const cli_response *r)
{
    switch (r->status) {
    case 301:
    case 302:
    case 303:
    case 307:
    case 308: return r->location[0] != '\0';
    default: return false;
    }
}

/* The target of a redirect from the URL from to location; never from https to http. */
static inline const char *cli_follow(const cli_url *from, const char *location, cli_url *to)
{
    const char *why = cli_resolve_url(from, location, to);

    if (why)
        return cli_explain("cannot follow a redirect to %.200s: %s", location, why);
    if (from->tls && !to->tls)
        return "the server redirects from https to http, which is not safe to follow";
    return NULL;
}

#endif
