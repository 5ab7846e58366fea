/*
sni: several hosts on one listening socket, each with a certificate of its own.

cc -I. examples/sni.c -o sni -lbearssl -lpthread

./sni 8443 a.example a.pem a.key b.example b.pem b.key
curl --cacert ca.pem --resolve b.example:8443:127.0.0.1 https://b.example:8443/

A client names the host that it wants in its first message, before any certificate is sent. The
callback then replaces the context that the socket was wrapped with by that host's. A client that
names another host is refused, and one that names none gets the first host.

One client is served at a time, and each call waits TIMEOUT seconds at most. For many at once see
echo_poller.c and echo_threads.c: then the callback may run on a thread of the library's.
*/
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define TIMEOUT 5.0

enum { MAX_HOSTS = 16 };

typedef struct host {
    const char *name;
    pysock_ssl_context *tls;
} host;

static host hosts[MAX_HOSTS]; /* set once, before the first client; unused ones have no name */

/* 0, or the alert that the client gets. */
static int choose_host(void *arg, const pysock_ssl_client_hello *hello)
{
    (void)arg;
    if (!hello->server_name)
        return 0;
    for (host *h = hosts; h < hosts + MAX_HOSTS && h->name; h++)
        if (strcasecmp(h->name, hello->server_name) == 0) {
            return pysock_ssl_set_context(hello->socket, h->tls) < 0 ? PYSOCK_ALERT_INTERNAL_ERROR
                                                                     : 0;
        }
    return PYSOCK_ALERT_UNRECOGNIZED_NAME;
}

static int read_request(pysock *s)
{
    char text[4096];
    size_t size = 0;

    while (size < 4 || memcmp(text + size - 4, "\r\n\r\n", 4) != 0) {
        ptrdiff_t n = pysock_recv(s, text + size, sizeof text - size, 0);
        if (n <= 0) /* 0: the client has ended, or sent too much */
            return n < 0 ? -1 : 0;
        size += (size_t)n;
    }
    return 1;
}

/* 0, or -1 with pysock's error, perhaps of the handshake, which the first recv does. */
static int serve_client(pysock *s)
{
    char text[512];
    int complete = pysock_settimeout(s, TIMEOUT) == 0 ? read_request(s) : -1;
    char name[256];

    if (complete != 1)
        return complete;
    if (pysock_ssl_server_hostname(s, name, sizeof name) < 0)
        return -1;
    int n = snprintf(text, sizeof text,
                     "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n"
                     "This is %s.\n",
                     name[0] ? name : hosts[0].name);
    return pysock_sendall(s, text, (size_t)n, 0);
}

/* Returns only when something fails. */
static void serve(pysock *listener)
{
    for (;;) {
        pysock *s = pysock_accept(listener, NULL);
        if (!s && errno != ECONNABORTED)
            return;
        if (s && serve_client(s) < 0)
            fprintf(stderr, "sni: a client: %s\n", pysock_error_message());
        pysock_close(s);
    }
}

/* 0, or -1 with pysock's error. */
static int add_host(host *h, char **names)
{
    h->name = names[0];
    h->tls = pysock_ssl_server_context();
    return h->tls && pysock_ssl_load_cert_chain(h->tls, names[1], names[2]) == 0 ? 0 : -1;
}

int main(int argc, char **argv)
{
    int count = (argc - 2) / 3, failed = 0;
    pysock *listener = NULL;

    if (argc < 5 || (argc - 2) % 3 != 0 || count > MAX_HOSTS) {
        fputs("usage: sni PORT NAME CERT KEY [NAME CERT KEY ...]\n", stderr);
        return 2;
    }
    for (int i = 0; i < count && !failed; i++)
        failed = add_host(&hosts[i], argv + 2 + 3 * i);

    /* The first host's context is the listening socket's, and the one with the callback. */
    if (!failed && pysock_ssl_set_sni_callback(hosts[0].tls, choose_host, NULL) == 0 &&
        (listener = pysock_create_server("127.0.0.1", atoi(argv[1]), -1)) != NULL &&
        pysock_ssl_wrap_socket(listener, hosts[0].tls, NULL) == 0)
        serve(listener);
    fprintf(stderr, "sni: %s\n", pysock_error_message());
    pysock_close(listener);
    for (int i = 0; i < count; i++)
        pysock_ssl_context_release(hosts[i].tls);
    return 1;
}
