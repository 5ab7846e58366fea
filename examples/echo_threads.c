/*
echo_threads: an echo server with a thread for each connection, plain or TLS.

cc -I. examples/echo_threads.c -o echo_threads -lbearssl -lpthread

./echo_threads -p 7000
./echo_threads -p 7000 --cert cert.pem --key key.pem

The simplest server there is: every call blocks and every thread does its own work, handshakes
included. The library starts a thread of its own at most for what is still on its way at close.
Bounded: at most MAX_CLIENTS threads, further clients wait in the kernel's queue; a client that is
silent for a minute is sent away. Ctrl-C stops it.
*/
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define IDLE_TIMEOUT 60.0

enum { MAX_CLIENTS = 128 };

typedef struct server {
    pysock *listener;
    sigset_t signals;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    size_t clients; /* guarded by lock, as is */
    bool stopping;
} server;

typedef struct client {
    server *server;
    pysock *s;
    char peer[PYSOCK_ADDR_STRLEN];
} client;

static void client_leaves(server *sv)
{
    pthread_mutex_lock(&sv->lock);
    sv->clients--;
    pthread_cond_signal(&sv->changed);
    pthread_mutex_unlock(&sv->lock);
}

/* Waits until there is room for another client, and counts it. False: we are stopping. */
static bool client_enters(server *sv)
{
    pthread_mutex_lock(&sv->lock);
    while (sv->clients >= MAX_CLIENTS && !sv->stopping)
        pthread_cond_wait(&sv->changed, &sv->lock);
    bool entered = !sv->stopping;
    if (entered)
        sv->clients++;
    pthread_mutex_unlock(&sv->lock);
    return entered;
}

static void wait_for_clients(server *sv)
{
    pthread_mutex_lock(&sv->lock);
    while (sv->clients > 0)
        pthread_cond_wait(&sv->changed, &sv->lock);
    pthread_mutex_unlock(&sv->lock);
}

/* Returns 0 when the client is done, -1 on an error. TLS or not: it is the same code. */
static int echo(pysock *s)
{
    char buf[16384];
    ptrdiff_t n;

    if (pysock_settimeout(s, IDLE_TIMEOUT) < 0)
        return -1;
    while ((n = pysock_recv(s, buf, sizeof buf, 0)) > 0)
        if (pysock_sendall(s, buf, (size_t)n, 0) < 0)
            return -1;
    return (int)n;
}

static void *serve_client(void *arg)
{
    client *c = arg;

    if (echo(c->s) < 0)
        fprintf(stderr, "%s: %s\n", c->peer, pysock_error_message());
    else
        printf("%s: done\n", c->peer);
    pysock_close(c->s);
    client_leaves(c->server);
    free(c);
    return NULL;
}

/* Takes s over if it succeeds. */
static bool start_client(server *sv, pysock *s, const pysock_addr *peer)
{
    client *c = calloc(1, sizeof *c);
    pthread_t thread;

    if (!c)
        return false;
    c->server = sv;
    c->s = s;
    pysock_addr_format(peer, c->peer, sizeof c->peer);
    if (pthread_create(&thread, NULL, serve_client, c) != 0) {
        free(c);
        return false;
    }
    pthread_detach(thread);
    return true;
}

/* Until the signal thread closes the listening socket, which ends a waiting accept. */
static void accept_clients(server *sv)
{
    while (client_enters(sv)) {
        pysock_addr peer;
        pysock *s = pysock_accept(sv->listener, &peer);
        if (s && start_client(sv, s, &peer))
            continue;
        client_leaves(sv);
        if (!s && errno == EBADF)
            return;
        fprintf(stderr, "echo_threads: cannot serve a client: %s\n",
                s ? "no thread" : pysock_error_message());
        pysock_close(s);
        usleep(100000); /* out of descriptors, memory or threads: some will be free again */
    }
}

/* Signals are blocked everywhere else; here they arrive like any other event. */
static void *wait_for_signal(void *arg)
{
    server *sv = arg;
    int number;

    sigwait(&sv->signals, &number);
    pthread_mutex_lock(&sv->lock);
    sv->stopping = true;
    pthread_cond_signal(&sv->changed);
    pthread_mutex_unlock(&sv->lock);
    pysock_close(sv->listener);
    return NULL;
}

static int run(server *sv)
{
    pthread_t thread;
    pysock_addr addr;
    char name[PYSOCK_ADDR_STRLEN];

    sigemptyset(&sv->signals);
    sigaddset(&sv->signals, SIGINT);
    sigaddset(&sv->signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &sv->signals, NULL);
    if (pysock_getsockname(sv->listener, &addr) < 0 ||
        pthread_create(&thread, NULL, wait_for_signal, sv) != 0) {
        fputs("echo_threads: cannot start\n", stderr);
        return 1;
    }
    pysock_addr_format(&addr, name, sizeof name);
    fprintf(stderr, "echo_threads: listening on %s\n", name);

    accept_clients(sv);
    pthread_join(thread, NULL);
    pysock_cleanup(); /* wakes every thread that waits for its client */
    wait_for_clients(sv);
    fputs("echo_threads: stopped\n", stderr);
    return 0;
}

typedef struct options {
    const char *address, *cert, *key;
    int port;
} options;

/* The listening socket; TLS around it makes its children TLS. */
static pysock *listen_on(const options *opt)
{
    pysock *s = pysock_create_server(opt->address, opt->port, -1);

    if (!s || !opt->cert)
        return s;
    pysock_ssl_context *tls = pysock_ssl_create_default_context(PYSOCK_CLIENT_AUTH);
    if (!tls || pysock_ssl_load_cert_chain(tls, opt->cert, opt->key) < 0 ||
        pysock_ssl_wrap_socket(s, tls, NULL) < 0) {
        pysock_close(s);
        s = NULL;
    }
    pysock_ssl_context_free(tls); /* the socket has its own reference */
    return s;
}

static int usage(FILE *to)
{
    fputs("usage: echo_threads [-p PORT] [-b ADDRESS] [--cert FILE [--key FILE]]\n"
          "  -p PORT      7000 if not said; 0: a free one\n"
          "  -b ADDRESS   127.0.0.1 if not said; \"\": all of this machine's\n"
          "  --cert FILE  speak TLS, with this certificate chain (PEM)\n"
          "  --key FILE   its private key (PEM), if it is not in the same file\n", to);
    return to == stdout ? 0 : 2;
}

static int parse_port(const char *text)
{
    char *end;
    long n = strtol(text, &end, 10);

    return *text && !*end && n >= 0 && n <= 65535 ? (int)n : -1;
}

int main(int argc, char **argv)
{
    options opt = {.address = "127.0.0.1", .port = 7000};
    server sv = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--help") == 0)
            return usage(stdout);
        if (strcmp(argv[i], "-p") == 0 && more)
            opt.port = parse_port(argv[++i]);
        else if (strcmp(argv[i], "-b") == 0 && more)
            opt.address = argv[++i];
        else if (strcmp(argv[i], "--cert") == 0 && more)
            opt.cert = argv[++i];
        else if (strcmp(argv[i], "--key") == 0 && more)
            opt.key = argv[++i];
        else
            return usage(stderr);
    }
    if (opt.port < 0 || (opt.key && !opt.cert))
        return usage(stderr);

    setvbuf(stdout, NULL, _IOLBF, 0);
    sv.listener = listen_on(&opt);
    if (!sv.listener) {
        fprintf(stderr, "echo_threads: %s\n", pysock_error_message());
        return 1;
    }
    return run(&sv);
}
