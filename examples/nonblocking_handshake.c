/*
nonblocking_handshake: the loop from Python's documentation for a non-blocking handshake, in C.

cc -I. examples/nonblocking_handshake.c -o nonblocking_handshake -lbearssl -lpthread

./nonblocking_handshake example.org 443
./nonblocking_handshake localhost 8443 ca.pem

Python's ssl page says ("Notes on non-blocking sockets"):

    while True:
        try:
            s.do_handshake()
            break
        except ssl.SSLWantReadError:
            select.select([s], [], [])
        except ssl.SSLWantWriteError:
            select.select([], [s], [])

The same loop is below, and its branches are never needed: do_handshake reports "in progress", the
library finishes it, and select reports when. Meanwhile the program draws frames; no call waits.
*/
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_FRAMES = 900 }; /* at 60 a second: the time that the server may take */

static int want_read, want_write, frames;

/* select.select([s], [], [], timeout), or with [s] in the other list */
static ptrdiff_t wait_for(pysock *s, int writable, double timeout)
{
    int list[1] = {pysock_fileno(s)};
    size_t count = 1;

    return writable ? pysock_select(NULL, NULL, list, &count, NULL, NULL, timeout)
                    : pysock_select(list, &count, NULL, NULL, NULL, NULL, timeout);
}

/* The documented loop. 0: finished; 1: in progress; -1, here and below: failed, with pysock's
   error. */
static int handshake_loop(pysock *s)
{
    for (;;) {
        int result = pysock_ssl_do_handshake(s);
        if (result == 0 || errno == EINPROGRESS)
            return result < 0;
        if (pysock_error() == PYSOCK_SSL_WANT_READ_ERROR) {
            want_read++;
            if (wait_for(s, 0, PYSOCK_NO_TIMEOUT) < 0)
                return -1;
        } else if (pysock_error() == PYSOCK_SSL_WANT_WRITE_ERROR) {
            want_write++;
            if (wait_for(s, 1, PYSOCK_NO_TIMEOUT) < 0)
                return -1;
        } else {
            return -1;
        }
    }
}

/* What a game does while it waits. A socket is writable when its connect, or its handshake, has
   finished or failed; if it failed, the next call reports the error. */
static int draw_frames_until_writable(pysock *s)
{
    for (; frames < MAX_FRAMES; frames++) {
        ptrdiff_t n = wait_for(s, 1, 1.0 / 60);
        if (n != 0)
            return n < 0 ? -1 : 0;
    }
    return -1;
}

static int connect_nonblocking(pysock *s, const char *host, int port)
{
    if (pysock_setblocking(s, 0) < 0)
        return -1;
    if (pysock_connect(s, host, port) == 0)
        return 0;
    if (errno != EINPROGRESS || draw_frames_until_writable(s) < 0)
        return -1;
    return pysock_connect(s, host, port) == 0 || errno == EISCONN ? 0 : -1; /* the result */
}

static int shake_hands(pysock *s, pysock_ssl_context *tls, const char *host)
{
    pysock_ssl_wrap_options wrap = PYSOCK_SSL_WRAP_OPTIONS_INIT;

    wrap.server_hostname = host;
    wrap.no_handshake_on_connect = 1;
    if (pysock_ssl_wrap_socket_ex(s, tls, &wrap) < 0)
        return -1;
    int result = handshake_loop(s);
    if (result < 0)
        return -1;
    printf("do_handshake says \"%s\"\n", result ? "in progress" : "finished");
    if (draw_frames_until_writable(s) < 0 || pysock_ssl_do_handshake(s) < 0)
        return -1;
    printf("select says \"writable\"\n%s, %d frames, WANT_READ %d times, WANT_WRITE %d times\n",
           pysock_ssl_version(s), frames, want_read, want_write);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 3 && argc != 4) {
        fputs("usage: nonblocking_handshake HOST PORT [CAFILE]\n", stderr);
        return 2;
    }
    pysock_ssl_context *tls = argv[3] ? pysock_ssl_context_new(PYSOCK_SERVER_AUTH)
                                      : pysock_ssl_client_context();
    pysock *s = pysock_socket(AF_INET, SOCK_STREAM, 0);
    int failed = !tls || !s ||
                 (argv[3] && pysock_ssl_load_verify_locations(tls, argv[3], NULL) < 0) ||
                 connect_nonblocking(s, argv[1], atoi(argv[2])) < 0 ||
                 shake_hands(s, tls, argv[1]) < 0;
    if (failed)
        fprintf(stderr, "nonblocking_handshake: %s\n",
                frames == MAX_FRAMES ? "the server does not answer" : pysock_error_message());
    pysock_close(s);
    pysock_ssl_context_release(tls);
    return failed;
}
