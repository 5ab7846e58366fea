/*
stdin_select: telnet over TLS: the keyboard and a socket in one select.

cc -I. examples/stdin_select.c -o stdin_select -lbearssl -lpthread

./stdin_select example.org 443
printf 'GET / HTTP/1.0\r\n\r\n' | ./stdin_select --cacert ca.pem localhost 8443
./stdin_select --plain localhost 7000

What is typed goes out, what comes in is printed. At the end of the input a plain connection is
half-closed and read to its end. TLS 1.2 has no half-close: there the connection ends when the
server ends it, or has been silent for two seconds (-q SECONDS).
*/
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONNECT_TIMEOUT 15.0

typedef struct session {
    pysock *s;
    double quiet;    /* seconds */
    bool input_done; /* stdin has ended, and the peer was told if it can be */
    bool output_done;
    char out[16384]; /* typed, not yet sent: nothing more is read from stdin until it is */
    size_t pos, len;
} session;

static int fail(const char *why)
{
    fprintf(stderr, "stdin_select: %s\n", why);
    return -1;
}

static bool contains(const int *list, size_t count, int fd)
{
    for (size_t i = 0; i < count; i++)
        if (list[i] == fd)
            return true;
    return false;
}

static int read_stdin(session *c)
{
    ssize_t n = read(STDIN_FILENO, c->out, sizeof c->out);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n < 0)
        return fail(strerror(errno));
    c->pos = 0;
    c->len = (size_t)n;
    if (n > 0)
        return 0;
    c->input_done = true;
    if (!pysock_is_ssl(c->s) && pysock_shutdown(c->s, SHUT_WR) < 0)
        return fail(pysock_error_message());
    return 0;
}

static int send_some(session *c)
{
    ptrdiff_t n = pysock_send(c->s, c->out + c->pos, c->len - c->pos, 0);

    if (n < 0)
        return errno == EAGAIN ? 0 : fail(pysock_error_message());
    c->pos += (size_t)n;
    return 0;
}

static int receive_some(session *c)
{
    char buf[16384];
    ptrdiff_t n = pysock_recv(c->s, buf, sizeof buf, 0);

    if (n < 0)
        return errno == EAGAIN ? 0 : fail(pysock_error_message());
    if (fwrite(buf, 1, (size_t)n, stdout) != (size_t)n || fflush(stdout) != 0)
        return fail("cannot write to stdout");
    c->output_done = n == 0;
    if (n > 0)
        return 0;
    if (pysock_is_ssl(c->s) && !pysock_ssl_eof_is_clean(c->s))
        return fail("truncated? The connection ended without close_notify");
    return c->pos < c->len ? fail("the server closed before it was told everything") : 0;
}

/* Never blocks but in select: a peer that sends before it reads on would otherwise block both. */
static int talk(session *c)
{
    int fd = pysock_fileno(c->s);

    while (!c->output_done) {
        int readable[2] = {fd, STDIN_FILENO}, writable[1] = {fd};
        size_t unsent = c->len - c->pos, reads = c->input_done || unsent > 0 ? 1 : 2;
        size_t writes = unsent > 0 ? 1 : 0;
        bool finishing = c->input_done && unsent == 0 && pysock_is_ssl(c->s);

        ptrdiff_t n = pysock_select(readable, &reads, writable, &writes, NULL, NULL,
                                    finishing ? c->quiet : PYSOCK_NO_TIMEOUT);
        if (n < 0)
            return fail(pysock_error_message());
        if (n == 0)
            return 0; /* all was said, and nothing more comes */
        if (contains(readable, reads, STDIN_FILENO) && read_stdin(c) < 0)
            return -1;
        if (writes > 0 && send_some(c) < 0)
            return -1;
        if (contains(readable, reads, fd) && receive_some(c) < 0)
            return -1;
    }
    return 0;
}

typedef struct options {
    const char *host, *cacert;
    int port;
    bool plain;
    double quiet;
} options;

/* Blocking, as it is simplest; what follows is not. NULL, with pysock's error, if it failed. */
static pysock *open_connection(const options *opt, pysock_ssl_context *tls)
{
    pysock *s = pysock_create_connection(opt->host, opt->port, CONNECT_TIMEOUT);

    if (s && (opt->plain || pysock_ssl_wrap_socket(s, tls, opt->host) == 0) &&
        pysock_setblocking(s, 0) == 0)
        return s;
    pysock_close(s);
    return NULL;
}

static pysock_ssl_context *make_tls(const options *opt)
{
    if (!opt->cacert)
        return pysock_ssl_create_default_context(PYSOCK_SERVER_AUTH);

    pysock_ssl_context *tls = pysock_ssl_context_new(PYSOCK_SERVER_AUTH);
    if (tls && pysock_ssl_load_verify_locations(tls, opt->cacert, NULL) == 0)
        return tls;
    pysock_ssl_context_free(tls);
    return NULL;
}

static int run(const options *opt)
{
    session c = {.quiet = opt->quiet};
    pysock_ssl_context *tls = opt->plain ? NULL : make_tls(opt);
    pysock_ssl_cipher_info info;

    if (opt->plain || tls)
        c.s = open_connection(opt, tls);
    if (!c.s)
        fail(pysock_error_message());
    else if (opt->plain)
        fprintf(stderr, "stdin_select: connected\n");
    else if (pysock_ssl_cipher(c.s, &info) == 0)
        fprintf(stderr, "stdin_select: connected, %s, %s\n", info.protocol, info.name);

    int status = c.s && talk(&c) == 0 ? 0 : 1;
    pysock_close(c.s);
    pysock_ssl_context_free(tls);
    return status;
}

static int usage(FILE *to)
{
    fputs("usage: stdin_select [--plain] [--cacert FILE] [-q SECONDS] HOST PORT\n"
          "  --plain        no TLS\n"
          "  --cacert FILE  trust the certificates in this PEM file, not the system's\n"
          "  -q SECONDS     with TLS, after the end of the input: how long the server may be\n"
          "                 silent before the connection is closed (2)\n", to);
    return to == stdout ? 0 : 2;
}

int main(int argc, char **argv)
{
    options opt = {.quiet = 2.0};
    char *end = "";

    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--help") == 0)
            return usage(stdout);
        if (strcmp(argv[i], "--plain") == 0)
            opt.plain = true;
        else if (strcmp(argv[i], "--cacert") == 0 && more)
            opt.cacert = argv[++i];
        else if (strcmp(argv[i], "-q") == 0 && more)
            opt.quiet = strtod(argv[++i], &end);
        else if (argv[i][0] != '-' && !opt.host)
            opt.host = argv[i];
        else if (argv[i][0] != '-' && !opt.port)
            opt.port = (int)strtol(argv[i], &end, 10);
        else
            return usage(stderr);
        if (*end)
            return usage(stderr);
    }
    if (!opt.host || opt.port < 1 || opt.port > 65535 || !(opt.quiet >= 0))
        return usage(stderr);
    return run(&opt);
}
