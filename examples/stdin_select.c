/*
stdin_select: telnet over TLS: the keyboard and a socket in one select.

cc -I. examples/stdin_select.c -o stdin_select -lbearssl -lpthread

./stdin_select example.org 443
printf 'GET / HTTP/1.0\r\n\r\n' | ./stdin_select localhost 8443 ca.pem

What is typed is sent, what is received is printed, and neither waits for the other: stdin is not
read until the server has taken what was typed before. TLS 1.2 has no half-close, so after the end
of the input the program stops when the server has been silent for QUIET seconds.
*/
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONNECT_TIMEOUT 15.0
#define QUIET 2.0

typedef struct session {
    pysock *s;
    int input_ended, output_ended;
    char typed[16384]; /* pos to len: not yet sent */
    size_t pos, len;
} session;

static int fail(const char *why)
{
    fprintf(stderr, "stdin_select: %s\n", why);
    return -1;
}

static int read_stdin(session *c)
{
    ssize_t n = read(STDIN_FILENO, c->typed, sizeof c->typed);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : fail(strerror(errno));
    c->pos = 0;
    c->len = (size_t)n;
    c->input_ended = n == 0;
    return 0;
}

static int send_some(session *c)
{
    ptrdiff_t n = pysock_send(c->s, c->typed + c->pos, c->len - c->pos, 0);

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
    c->output_ended = n == 0;
    if (c->output_ended && !pysock_ssl_eof_is_clean(c->s))
        return fail("truncated? The connection ended without close_notify");
    if (c->output_ended && c->pos < c->len)
        return fail("the server closed before everything was sent");
    return 0;
}

static int contains(const int *list, size_t count, int fd)
{
    while (count > 0)
        if (list[--count] == fd)
            return 1;
    return 0;
}

/* Blocks only in select. */
static int talk(session *c)
{
    int fd = pysock_fileno(c->s);

    while (!c->output_ended) {
        int readable[2] = {fd, STDIN_FILENO}, writable[1] = {fd};
        size_t writes = c->pos < c->len, reads = c->input_ended || writes ? 1 : 2;
        ptrdiff_t n = pysock_select(readable, &reads, writable, &writes, NULL, NULL,
                                    c->input_ended && !writes ? QUIET : PYSOCK_NO_TIMEOUT);
        if (n < 0)
            return fail(pysock_error_message());
        if (n == 0)
            return 0; /* everything was sent, and nothing more comes */
        if (contains(readable, reads, STDIN_FILENO) && read_stdin(c) < 0)
            return -1;
        if (writes > 0 && send_some(c) < 0)
            return -1;
        if (contains(readable, reads, fd) && receive_some(c) < 0)
            return -1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    static session c; /* zeroed */

    if (argc != 3 && argc != 4) {
        fputs("usage: stdin_select HOST PORT [CAFILE]\n", stderr);
        return 2;
    }
    pysock_ssl_context *tls = argv[3] ? pysock_ssl_context_new(PYSOCK_SERVER_AUTH)
                                      : pysock_ssl_client_context();
    int status = 1;

    /* The socket blocks up to here, which is simplest, and not in what follows. */
    if (!tls || (argv[3] && pysock_ssl_load_verify_locations(tls, argv[3], NULL) < 0) ||
        (c.s = pysock_create_connection(argv[1], atoi(argv[2]), CONNECT_TIMEOUT)) == NULL ||
        pysock_ssl_wrap_socket(c.s, tls, argv[1]) < 0 || pysock_setblocking(c.s, 0) < 0)
        fail(pysock_error_message());
    else
        status = talk(&c) == 0 ? 0 : 1;
    pysock_close(c.s);
    pysock_ssl_context_release(tls);
    return status;
}
