/*
mutual: server and client both present a certificate; the server greets the client by name.

cc -I. examples/mutual.c -o mutual -lbearssl -lpthread

./mutual server 7443 server.pem server.key ca.pem
./mutual client 7443 ada.pem ada.key ca.pem

The last file holds the CAs that must have issued the other side's certificate. Use your own: with
the system's, a server would accept any client with a certificate of a public CA. The server is
"localhost", serves one client at a time, and waits for it TIMEOUT seconds at most.
*/
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT 5.0

/* NULL with pysock's error. */
static pysock_ssl_context *make_context(pysock_ssl_purpose purpose, char **files)
{
    pysock_ssl_context *tls = pysock_ssl_context_new(purpose);

    /* A client verifies anyway. This makes a server request a certificate and insist on it. */
    if (tls && pysock_ssl_load_cert_chain(tls, files[0], files[1]) == 0 &&
        pysock_ssl_load_verify_locations(tls, files[2], NULL) == 0 &&
        pysock_ssl_set_verify_mode(tls, PYSOCK_CERT_REQUIRED) == 0)
        return tls;
    pysock_ssl_context_release(tls); /* leaves the error as it is */
    return NULL;
}

/* The certificate's common name, in text[size]. Names that contain a NUL are ignored: a C string
   would show only the part before it. */
static int common_name(pysock *s, char *text, size_t size)
{
    pysock_ssl_cert *cert = pysock_ssl_getpeercert(s);
    int found = 0;

    for (size_t i = 0; cert && i < cert->subject_count && !found; i++) {
        const pysock_ssl_attribute *a = &cert->subject[i];
        found = strcmp(a->name, "commonName") == 0 && strlen(a->value) == a->value_size &&
                a->value_size < size;
        if (found)
            strcpy(text, a->value);
    }
    pysock_ssl_cert_free(cert);
    return found;
}

/* The client's identity is known only once the handshake is finished. */
static int greet(pysock *s)
{
    char name[128], text[160];

    if (pysock_settimeout(s, TIMEOUT) < 0 || pysock_ssl_do_handshake(s) < 0)
        return -1;
    if (!common_name(s, name, sizeof name))
        strcpy(name, "whoever you are");
    int n = snprintf(text, sizeof text, "Good day, %s!\n", name);
    return pysock_sendall(s, text, (size_t)n, 0);
}

/* Returns only when something fails. */
static void be_server(pysock_ssl_context *tls, int port)
{
    pysock *listener = pysock_create_server("127.0.0.1", port, -1), *s;

    if (listener && pysock_ssl_wrap_socket(listener, tls, NULL) == 0)
        while ((s = pysock_accept(listener, NULL)) != NULL || errno == ECONNABORTED) {
            if (s && greet(s) < 0)
                fprintf(stderr, "mutual: refused a client: %s\n", pysock_error_message());
            pysock_close(s);
        }
    pysock_close(listener);
}

/* 0, or -1 with pysock's error: an alert reports that the server refuses our certificate. */
static int be_client(pysock_ssl_context *tls, int port)
{
    char buf[256];
    ptrdiff_t n = -1;
    pysock *s = pysock_create_connection("localhost", port, TIMEOUT);

    if (s && pysock_ssl_wrap_socket(s, tls, "localhost") == 0)
        while ((n = pysock_recv(s, buf, sizeof buf, 0)) > 0)
            fwrite(buf, 1, (size_t)n, stdout);
    pysock_close(s);
    return (int)n;
}

int main(int argc, char **argv)
{
    int is_server = argc > 1 && strcmp(argv[1], "server") == 0, result = -1;

    if (argc != 6 || (!is_server && strcmp(argv[1], "client") != 0)) {
        fputs("usage: mutual server|client PORT CERT KEY CAFILE\n", stderr);
        return 2;
    }
    pysock_ssl_context *tls = make_context(is_server ? PYSOCK_CLIENT_AUTH : PYSOCK_SERVER_AUTH,
                                           argv + 3);
    if (tls && is_server)
        be_server(tls, atoi(argv[2]));
    else if (tls)
        result = be_client(tls, atoi(argv[2]));
    if (result < 0)
        fprintf(stderr, "mutual: %s\n", pysock_error_message());
    pysock_ssl_context_release(tls);
    return result < 0;
}
