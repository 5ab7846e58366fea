/*
echo_threads: an echo server with a thread for each client, plain or TLS.

cc -I. examples/echo_threads.c -o echo_threads -lbearssl -lpthread

./echo_threads 7000                       plain: try it with netcat
./echo_threads 7000 cert.pem key.pem      TLS

The simplest kind of server: every call blocks, and a client's thread also does its handshake. At
most MAX_CLIENTS are served at a time, others wait in the kernel's queue, and a client that sends
nothing for a minute is disconnected. Ctrl-C ends it.
*/
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define IDLE_TIMEOUT 60.0

enum { MAX_CLIENTS = 100 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t one_left = PTHREAD_COND_INITIALIZER;
static int clients; /* guarded by lock */

static void client_enters(void)
{
    pthread_mutex_lock(&lock);
    while (clients == MAX_CLIENTS)
        pthread_cond_wait(&one_left, &lock);
    clients++;
    pthread_mutex_unlock(&lock);
}

static void client_leaves(void)
{
    pthread_mutex_lock(&lock);
    clients--;
    pthread_cond_signal(&one_left);
    pthread_mutex_unlock(&lock);
}

/* 0 when the client has ended, -1 with pysock's error. The same code serves plain and TLS. */
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

static void *serve_client(void *s)
{
    if (echo(s) < 0)
        fprintf(stderr, "echo_threads: a client: %s\n", pysock_error_message());
    pysock_close(s);
    client_leaves();
    return NULL;
}

/* Returns only when something fails. */
static void serve(pysock *listener)
{
    pthread_t thread;

    for (;;) {
        client_enters();
        pysock *s = pysock_accept(listener, NULL);
        int error = s ? pthread_create(&thread, NULL, serve_client, s) : errno;
        if (s && error == 0) {
            pthread_detach(thread);
            continue;
        }
        client_leaves();
        if (s)
            fputs("echo_threads: cannot start a thread: a client is disconnected\n", stderr);
        pysock_close(s);
        if (!s && error != ECONNABORTED)
            return;
    }
}

/* NULL with pysock's error. If the listening socket is wrapped, so is every accepted one. */
static pysock *listen_on(int port, const char *cert, const char *key)
{
    pysock *s = pysock_create_server("127.0.0.1", port, -1);
    pysock_ssl_context *tls = cert ? pysock_ssl_server_context() : NULL;

    if (s && cert &&
        (!tls || pysock_ssl_load_cert_chain(tls, cert, key) < 0 ||
         pysock_ssl_wrap_socket(s, tls, NULL) < 0)) {
        pysock_close(s); /* leaves the error as it is */
        s = NULL;
    }
    pysock_ssl_context_release(tls); /* the socket has its own reference */
    return s;
}

int main(int argc, char **argv)
{
    if (argc != 2 && argc != 4) {
        fputs("usage: echo_threads PORT [CERT KEY]\n", stderr);
        return 2;
    }
    pysock *listener = listen_on(atoi(argv[1]), argv[2], argv[2] ? argv[3] : NULL);
    if (listener)
        serve(listener);
    fprintf(stderr, "echo_threads: %s\n", pysock_error_message());
    pysock_close(listener);
    return 1;
}
