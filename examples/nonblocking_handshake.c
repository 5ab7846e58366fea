/*
nonblocking_handshake: the loop from Python's documentation for a non-blocking handshake, in C.

cc -I. examples/nonblocking_handshake.c -o nonblocking_handshake -lbearssl -lpthread

./nonblocking_handshake example.org 443
./nonblocking_handshake --cacert ca.pem localhost 8443

Python's ssl page says ("Notes on non-blocking sockets"):

    while True:
        try:
            s.do_handshake()
            break
        except ssl.SSLWantReadError:
            select.select([s], [], [])
        except ssl.SSLWantWriteError:
            select.select([], [s], [])

The same loop stands below. It is correct, and its branches are never needed: do_handshake says "in
progress", the reactor finishes the handshake, and select tells when. Meanwhile the program draws
its frames; no call below ever waits for cryptography.
*/
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TIMEOUT 15.0
#define FRAME (1.0 / 60)

typedef struct counts {
    int want_read, want_write, frames;
} counts;

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int fail(void)
{
    fprintf(stderr, "nonblocking_handshake: %s: %s\n", pysock_error_name(),
            pysock_error_message());
    return -1;
}

/* select.select([s], [], []) */
static ptrdiff_t wait_readable(pysock *s)
{
    int list[1] = {pysock_fileno(s)};
    size_t count = 1;

    return pysock_select(list, &count, NULL, NULL, NULL, NULL, PYSOCK_NO_TIMEOUT);
}

/* select.select([], [s], [], timeout) */
static ptrdiff_t wait_writable(pysock *s, double timeout)
{
    int list[1] = {pysock_fileno(s)};
    size_t count = 1;

    return pysock_select(NULL, NULL, list, &count, NULL, NULL, timeout);
}

/* The documented loop: 0, PYSOCK_IN_PROGRESS, or, like all that follow, -1 after telling why. */
static int handshake_loop(pysock *s, counts *c)
{
    for (;;) {
        int result = pysock_ssl_do_handshake(s);
        if (result >= 0)
            return result;
        if (pysock_error() == PYSOCK_SSL_WANT_READ_ERROR) {
            c->want_read++;
            if (wait_readable(s) < 0)
                return fail();
        } else if (pysock_error() == PYSOCK_SSL_WANT_WRITE_ERROR) {
            c->want_write++;
            if (wait_writable(s, PYSOCK_NO_TIMEOUT) < 0)
                return fail();
        } else {
            return fail();
        }
    }
}

/* What a game does while it waits. A socket is writable when its connect, or its handshake, has
   finished or failed; if it failed the next call tells the error. */
static int draw_frames_until_writable(pysock *s, counts *c)
{
    for (double deadline = now() + TIMEOUT; now() < deadline; c->frames++) {
        ptrdiff_t n = wait_writable(s, FRAME);
        if (n != 0)
            return n < 0 ? fail() : 0;
    }
    fputs("nonblocking_handshake: the server does not answer\n", stderr);
    return -1;
}

static int connect_nonblocking(pysock *s, const char *host, int port, counts *c)
{
    if (pysock_setblocking(s, 0) < 0)
        return fail();
    if (pysock_connect(s, host, port) == 0)
        return 0;
    if (errno != EINPROGRESS)
        return fail();
    if (draw_frames_until_writable(s, c) < 0)
        return -1;
    return pysock_connect(s, host, port) == 0 || errno == EISCONN ? 0 : fail(); /* how did it go? */
}

static int shake_hands(pysock *s, pysock_ssl_context *tls, const char *host, counts *c)
{
    const pysock_ssl_wrap_options wrap = {.server_hostname = host, .no_handshake_on_connect = 1};
    double start = now();

    if (pysock_ssl_wrap_socket_ex(s, tls, &wrap) < 0)
        return fail();
    int result = handshake_loop(s, c);
    if (result < 0)
        return -1;
    printf("do_handshake    %s after %.2f ms\n",
           result == PYSOCK_IN_PROGRESS ? "says \"in progress\"" : "says \"finished\"",
           (now() - start) * 1e3);
    if (draw_frames_until_writable(s, c) < 0)
        return -1;
    if (pysock_ssl_do_handshake(s) < 0)
        return fail();
    printf("select          says \"writable\" after %.2f ms: it is finished\n",
           (now() - start) * 1e3);
    return 0;
}

static void report(pysock *s, const counts *c)
{
    pysock_ssl_cipher_info info = {.name = "?", .protocol = "?"};
    pysock_buf *certificate = pysock_ssl_getpeercert_der(s);

    pysock_ssl_cipher(s, &info);
    printf("connection      %s, %s, %d bits\n", info.protocol, info.name, info.secret_bits);
    printf("certificate     %zu bytes, verified for \"%s\"\n", pysock_buf_size(certificate),
           pysock_ssl_server_hostname(s));
    printf("loop branches   WANT_READ taken %d times, WANT_WRITE %d times\n", c->want_read,
           c->want_write);
    printf("meanwhile       %d frames\n", c->frames);
    pysock_buf_release(certificate);
}

static int run(pysock *s, pysock_ssl_context *tls, const char *host, int port)
{
    counts c = {.frames = 0};

    if (connect_nonblocking(s, host, port, &c) < 0 || shake_hands(s, tls, host, &c) < 0)
        return -1;
    report(s, &c);
    return c.want_read + c.want_write == 0 ? 0 : -1;
}

static int usage(FILE *to)
{
    fputs("usage: nonblocking_handshake [-6] [--cacert FILE] HOST PORT\n"
          "  -6             connect over IPv6\n"
          "  --cacert FILE  trust the certificates in this PEM file, not the system's\n", to);
    return to == stdout ? 0 : 2;
}

int main(int argc, char **argv)
{
    const char *host = NULL, *cacert = NULL;
    int port = 0, family = AF_INET;
    char *end = "";

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--help") == 0)
            return usage(stdout);
        if (strcmp(argv[i], "-6") == 0)
            family = AF_INET6;
        else if (strcmp(argv[i], "--cacert") == 0 && i + 1 < argc)
            cacert = argv[++i];
        else if (argv[i][0] != '-' && !host)
            host = argv[i];
        else if (argv[i][0] != '-' && !port)
            port = (int)strtol(argv[i], &end, 10);
        else
            return usage(stderr);
    }
    if (!host || *end || port < 1 || port > 65535)
        return usage(stderr);

    pysock_ssl_context *tls = cacert ? pysock_ssl_context_new(PYSOCK_SERVER_AUTH)
                                     : pysock_ssl_create_default_context(PYSOCK_SERVER_AUTH);
    pysock *s = pysock_socket(family, SOCK_STREAM, 0);
    int status = -1;

    if (!tls || !s || (cacert && pysock_ssl_load_verify_locations(tls, cacert, NULL) < 0))
        fail();
    else
        status = run(s, tls, host, port);
    pysock_close(s);
    pysock_ssl_context_free(tls);
    return status == 0 ? 0 : 1;
}
