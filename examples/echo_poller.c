/*
echo_poller: an echo server for many clients on one thread, plain or TLS.

cc -I. examples/echo_poller.c -o echo_poller -lbearssl -lpthread

./echo_poller 7000                        plain: try it with netcat
./echo_poller 7000 cert.pem key.pem       TLS

All sockets are non-blocking, and one poller watches them; each event brings its socket along. What
a client does not take is queued; a client with a full queue is not read from until it has taken
some, so that memory is bounded. The loop is the same with TLS and without. Ctrl-C ends it.
*/
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_CLIENTS = 500, MAX_QUEUED = 65536 };

typedef struct server {
    pysock_poller *poller;
    pysock *listener;
    int clients;
} server;

static volatile sig_atomic_t stopping;

static void on_signal(int number)
{
    (void)number;
    stopping = 1;
}

/* Lets a signal end a poll, which would otherwise go on, as in Python. */
static int is_stopping(void *arg)
{
    (void)arg;
    return stopping;
}

/* NULL with pysock's error. If the listening socket is wrapped, so is every accepted one. */
static pysock *listen_on(int port, const char *cert, const char *key)
{
    pysock *s = pysock_create_server("127.0.0.1", port, -1);
    pysock_ssl_context *tls = cert ? pysock_ssl_server_context() : NULL;

    if (!s || pysock_setblocking(s, 0) < 0 ||
        (cert && (!tls || pysock_ssl_load_cert_chain(tls, cert, key) < 0 ||
                  pysock_ssl_wrap_socket(s, tls, NULL) < 0))) {
        pysock_close(s); /* leaves the error as it is */
        s = NULL;
    }
    pysock_ssl_context_release(tls); /* the socket has its own reference */
    return s;
}

/* New clients are accepted while there is room for them; others wait in the kernel's queue. */
static int watch_listener(server *sv)
{
    return pysock_poller_register(sv->poller, pysock_fileno(sv->listener),
                                  sv->clients < MAX_CLIENTS ? POLLIN : 0, sv->listener);
}

static int accept_client(server *sv)
{
    pysock *s = pysock_accept(sv->listener, NULL);

    if (!s)
        return errno == EAGAIN || errno == ECONNABORTED ? 0 : -1;
    if (pysock_setblocking(s, 0) < 0 ||
        pysock_poller_register(sv->poller, pysock_fileno(s), POLLIN, s) < 0) {
        pysock_close(s);
        return -1;
    }
    sv->clients++;
    return watch_listener(sv);
}

/* 1: go on; 0: the client has ended; -1: an error. A client that is watched for POLLOUT comes here
   when its queue is half empty, or when it has failed, which recv reports. */
static int echo(server *sv, pysock *s)
{
    pysock_buf *b = pysock_recv_buf(s, 16384);
    int ended = b && pysock_buf_size(b) == 0;
    int failed = b ? !ended && pysock_send_buf(s, b) < 0 : errno != EAGAIN;

    pysock_buf_release(b);
    if (ended || failed)
        return ended ? 0 : -1;
    int wanted = pysock_queued(s) < MAX_QUEUED ? POLLIN : POLLOUT;
    return pysock_poller_modify(sv->poller, pysock_fileno(s), wanted) == 0 ? 1 : -1;
}

static int serve_client(server *sv, pysock *s)
{
    int result = echo(sv, s);

    if (result < 0)
        fprintf(stderr, "echo_poller: a client: %s\n", pysock_error_message());
    if (result == 1)
        return 0;
    pysock_poller_unregister(sv->poller, pysock_fileno(s));
    pysock_close(s); /* the library still sends what is queued */
    sv->clients--;
    return watch_listener(sv);
}

static int serve(server *sv)
{
    pysock_pollevent events[64];

    while (!stopping) {
        ptrdiff_t n = pysock_poller_poll(sv->poller, events, 64, 1.0);
        if (n < 0 && errno != EINTR)
            return -1;
        for (ptrdiff_t i = 0; i < n; i++) {
            pysock *s = events[i].userdata;
            if ((s == sv->listener ? accept_client(sv) : serve_client(sv, s)) < 0)
                return -1;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 2 && argc != 4) {
        fputs("usage: echo_poller PORT [CERT KEY]\n", stderr);
        return 2;
    }
    signal(SIGINT, on_signal);
    pysock_set_interrupt_hook(is_stopping, NULL);

    server sv = {pysock_poller_new(), listen_on(atoi(argv[1]), argv[2], argv[2] ? argv[3] : NULL),
                 0};
    int failed = !sv.poller || !sv.listener || watch_listener(&sv) < 0 || serve(&sv) < 0;
    if (failed)
        fprintf(stderr, "echo_poller: %s\n", pysock_error_message());
    pysock_cleanup(); /* closes the clients too */
    pysock_poller_release(sv.poller);
    return failed;
}
