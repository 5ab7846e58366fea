/*
tls_client: a request and its response over TLS, with the server's certificate verified.

cc -I. examples/tls_client.c -o tls_client -lbearssl -lpthread

./tls_client example.org 443
./tls_client localhost 8443 ca.pem

Every call blocks, for ten seconds at most. The third argument is a file of CAs (PEM) to trust
instead of the system's. Exit status 0 only if the response is complete.
*/
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#include <stdio.h>
#include <stdlib.h>

static pysock_ssl_context *make_context(const char *cafile)
{
    if (!cafile)
        return pysock_ssl_client_context();

    pysock_ssl_context *tls = pysock_ssl_context_new(PYSOCK_SERVER_AUTH);
    if (tls && pysock_ssl_load_verify_locations(tls, cafile, NULL) == 0)
        return tls;
    pysock_ssl_context_release(tls); /* leaves the error as it is */
    return NULL;
}

/* 0, or -1 with pysock's error. */
static int send_request(pysock *s, const char *host)
{
    char text[512];
    int n = snprintf(text, sizeof text, "GET / HTTP/1.0\r\nHost: %.255s\r\n\r\n", host);

    return pysock_sendall(s, text, (size_t)n, 0);
}

/* Prints up to the end of the stream; 0, or -1 with pysock's error. */
static int print_answer(pysock *s)
{
    char buf[16384];
    ptrdiff_t n;

    while ((n = pysock_recv(s, buf, sizeof buf, 0)) > 0)
        fwrite(buf, 1, (size_t)n, stdout);
    return (int)n;
}

int main(int argc, char **argv)
{
    if (argc != 3 && argc != 4) {
        fputs("usage: tls_client HOST PORT [CAFILE]\n", stderr);
        return 2;
    }

    int status = 1;
    pysock_ssl_context *tls = make_context(argv[3]); /* NULL if there are three */
    pysock *s = tls ? pysock_create_connection(argv[1], atoi(argv[2]), 10.0) : NULL;
    if (!s || pysock_ssl_wrap_socket(s, tls, argv[1]) < 0 || send_request(s, argv[1]) < 0 ||
        print_answer(s) < 0)
        fprintf(stderr, "tls_client: %s\n", pysock_error_message());
    else if (!pysock_ssl_eof_is_clean(s)) /* truncated, perhaps by an attacker */
        fputs("tls_client: the connection ended without close_notify\n", stderr);
    else
        status = fflush(stdout) == 0 ? 0 : 1;
    pysock_close(s);
    pysock_ssl_context_release(tls);
    return status;
}
