/*
starttls: from plain text to TLS on the same socket, as in SMTP (RFC 3207).

cc -I. examples/starttls.c -o starttls -lbearssl -lpthread

./starttls mail.example.org 587
./starttls localhost 2525 ca.pem

It prints the extensions that a mail server offers over TLS. What makes the change safe: if the
server does not offer STARTTLS, the program stops, as an attacker may have removed the offer; plain
text that follows the server's "220" makes the wrap fail, as it would pass for encrypted; and EHLO
is repeated, as the reply in plain text may have been forged.
*/
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT 30.0

static int fail(const char *what, const char *why)
{
    fprintf(stderr, "starttls: %s: %s\n", what, why);
    return -1;
}

/* Stores the reply's lines, without control characters, in reply. Returns its code, or -1. */
static int read_reply(pysock_file *f, char *reply, size_t size)
{
    size_t used = 0;

    while (used + 2 < size) {
        char *line = reply + used;
        ptrdiff_t n = pysock_file_readline(f, line, size - used);
        if (n <= 0)
            return fail("no answer", n < 0 ? pysock_error_message() : "the connection has ended");
        for (ptrdiff_t i = 0; i < n; i++)
            if (((unsigned char)line[i] < ' ' && line[i] != '\n') || line[i] == 0x7f)
                line[i] = line[i] == '\r' ? ' ' : '?';
        used += (size_t)n;
        if (n < 4 || line[n - 1] != '\n' || strspn(line, "0123456789") != 3)
            break;
        if (line[3] != '-') /* the last line is "250 ...", those before are "250-..." */
            return atoi(line);
    }
    return fail("this is not an SMTP reply", reply);
}

/* Sends a line, unless it is NULL, and reads the reply, which must have that code. */
static int command(pysock_file *f, const char *line, int code, char *reply, size_t size)
{
    if (line && (pysock_file_write(f, line, strlen(line), NULL) < 0 ||
                 pysock_file_write(f, "\r\n", 2, NULL) < 0 || pysock_file_flush(f) < 0))
        return fail("cannot send", pysock_error_message());
    int got = read_reply(f, reply, size);
    if (got == code)
        return 0;
    return got < 0 ? -1 : fail(line ? line : "connecting", reply);
}

/* The file buffers input. It can still be used over TLS, but wrapping fails if it holds any. */
static int talk(pysock *s, pysock_file *f, pysock_ssl_context *tls, const char *host)
{
    char reply[8192];

    if (command(f, NULL, 220, reply, sizeof reply) < 0 ||
        command(f, "EHLO localhost", 250, reply, sizeof reply) < 0)
        return -1;
    if (!strstr(reply, "STARTTLS"))
        return fail("not going on in plain text", "the server does not offer STARTTLS");
    if (command(f, "STARTTLS", 220, reply, sizeof reply) < 0)
        return -1;
    if (pysock_ssl_wrap_socket(s, tls, host) < 0)
        return fail("cannot change to TLS", pysock_error_message());
    if (command(f, "EHLO localhost", 250, reply, sizeof reply) < 0)
        return -1;
    printf("%s\n%s", pysock_ssl_version(s), reply);
    return command(f, "QUIT", 221, reply, sizeof reply);
}

int main(int argc, char **argv)
{
    if (argc != 3 && argc != 4) {
        fputs("usage: starttls HOST PORT [CAFILE]\n", stderr);
        return 2;
    }
    pysock_ssl_context *tls = argv[3] ? pysock_ssl_context_new(PYSOCK_SERVER_AUTH)
                                      : pysock_ssl_client_context();
    pysock *s = NULL;
    pysock_file *f = NULL;
    int result = -1;

    if (!tls || (argv[3] && pysock_ssl_load_verify_locations(tls, argv[3], NULL) < 0) ||
        (s = pysock_create_connection(argv[1], atoi(argv[2]), TIMEOUT)) == NULL ||
        (f = pysock_makefile(s, "rw", -1)) == NULL)
        fail("cannot begin", pysock_error_message());
    else
        result = talk(s, f, tls, argv[1]);
    pysock_file_close(f);
    pysock_close(s);
    pysock_ssl_context_release(tls);
    return result < 0;
}
