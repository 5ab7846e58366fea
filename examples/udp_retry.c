/*
udp_retry: a request and its reply by UDP, where either may be lost, late, or duplicated.

cc -I. examples/udp_retry.c -o udp_retry -lbearssl -lpthread

./udp_retry server 7007
./udp_retry client localhost 7007 'how are you'

The client numbers its request, waits a quarter of a second for the echo, sends the same bytes
again and waits twice as long, and so on. Anything else that it receives is dropped. The server
ignores every other datagram, as nothing is ever lost on loopback.
*/
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FIRST_TIMEOUT 0.25 /* seconds; it doubles with each attempt */

enum { ATTEMPTS = 5, MAX_DATAGRAM = 1200 };

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Returns only when something fails. A client that is gone, or a reply that cannot be sent, is no
   reason to stop: with UDP these are losses like any other. */
static int serve(int port)
{
    char data[MAX_DATAGRAM];
    pysock_addr from;
    pysock *s = pysock_socket(AF_INET, SOCK_DGRAM, 0);
    int result = s ? pysock_bind(s, "127.0.0.1", port) : -1;

    for (unsigned number = 1; result == 0; number++) {
        ptrdiff_t n = pysock_recvfrom(s, data, sizeof data, 0, &from);
        if (n < 0 && errno != ECONNREFUSED)
            result = -1;
        if (n >= 0 && number % 2 == 0)
            pysock_sendto_addr(s, data, (size_t)n, 0, &from);
    }
    pysock_close(s);
    return result;
}

/* Waits until the deadline for exactly these bytes. 1: received; 0: not received; -1: an error. */
static int await_echo(pysock *s, const char *said, size_t size, double deadline)
{
    char data[MAX_DATAGRAM + 1];

    for (;;) {
        double left = deadline - now();
        if (left <= 0)
            return 0;
        if (pysock_settimeout(s, left) < 0)
            return -1;
        ptrdiff_t n = pysock_recv(s, data, sizeof data, 0);
        if (n < 0)
            return errno == ETIMEDOUT ? 0 : -1;
        if ((size_t)n == size && memcmp(data, said, size) == 0)
            return 1;
    }
}

/* As await_echo(). A connected socket receives only from its peer, and fails if none is there. */
static int ask(pysock *s, const char *text)
{
    char said[MAX_DATAGRAM];
    double timeout = FIRST_TIMEOUT, begin = now();
    unsigned id;
    int came = pysock_ssl_rand_bytes(&id, sizeof id); /* unlike an earlier client's, on this port */
    int n = snprintf(said, sizeof said, "%u %.1000s", id, text);

    for (int i = 1; came == 0 && i <= ATTEMPTS; i++, timeout *= 2) {
        came = pysock_send(s, said, (size_t)n, 0) < 0
                   ? -1
                   : await_echo(s, said, (size_t)n, now() + timeout);
        if (came == 1)
            printf("'%s' echoed after %.1f ms, attempt %d\n", text, 1000 * (now() - begin), i);
    }
    return came;
}

int main(int argc, char **argv)
{
    int is_server = argc == 3 && strcmp(argv[1], "server") == 0, came = -1;

    if (!is_server && (argc != 5 || strcmp(argv[1], "client") != 0)) {
        fputs("usage: udp_retry server PORT, or udp_retry client HOST PORT TEXT\n", stderr);
        return 2;
    }
    if (is_server) {
        came = serve(atoi(argv[2]));
    } else {
        pysock *s = pysock_socket(AF_INET, SOCK_DGRAM, 0);
        if (s && pysock_connect(s, argv[2], atoi(argv[3])) == 0)
            came = ask(s, argv[4]);
        pysock_close(s);
    }
    if (came != 1)
        fprintf(stderr, "udp_retry: %s\n", came == 0 ? "no answer" : pysock_error_message());
    return came == 1 ? 0 : 1;
}
