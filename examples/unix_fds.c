/*
unix_fds: a process opens a file and a port and passes both to another one, which uses them.

cc -I. examples/unix_fds.c -o unix_fds -lbearssl -lpthread

./unix_fds

The descriptors are sent over a Unix socket to a child that was forked before they were opened. It
makes a socket of one with pysock_adopt(), accepts a client and sends it the file. In this way a
server can keep its keys and its privileged port in a small process and its parser in another, which
should also drop its privileges. Exit status 0 only if everything succeeded.
*/
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define TIMEOUT 20.0 /* seconds for anything that waits for the other process */
#define WHAT "a file and a listener"

static const char secret[] = "written by the parent, in a file that has no name any more\n";

static int fail(const char *who, const char *why)
{
    fprintf(stderr, "unix_fds: %s: %s\n", who, why);
    return -1;
}

/* ---- the child ---- */

/* Accepts only what was agreed on; closes any other descriptors, so that none leaks. */
static int receive(pysock *from, int fds[2])
{
    char text[sizeof WHAT];
    size_t count = 2;
    int flags = 0;
    ptrdiff_t n = pysock_recv_fds(from, text, sizeof text, fds, &count, 0, &flags);

    if (n < 0)
        return fail("child", pysock_error_message());
    if (n == sizeof WHAT - 1 && memcmp(text, WHAT, sizeof WHAT - 1) == 0 && count == 2 &&
        !(flags & MSG_CTRUNC))
        return 0;
    while (count > 0)
        close(fds[--count]);
    return fail("child", n == 0 ? "the parent is gone" : "the parent sent something else");
}

static int be_child(pysock *from)
{
    int fds[2];

    if (pysock_settimeout(from, TIMEOUT) < 0 || receive(from, fds) < 0)
        return 1;
    printf("child:  has received descriptors %d and %d\n", fds[0], fds[1]);

    pysock *listener = pysock_adopt(fds[1], -1, -1, -1), *client = NULL; /* detects its type */
    int ok = listener && pysock_settimeout(listener, TIMEOUT) == 0 &&
             (client = pysock_accept(listener, NULL)) != NULL &&
             pysock_settimeout(client, TIMEOUT) == 0 &&
             pysock_sendfile(client, fds[0], 0, -1) == sizeof secret - 1;
    if (!ok)
        fail("child", pysock_error_message());
    if (!listener)
        close(fds[1]);
    close(fds[0]);
    pysock_close(client);
    pysock_close(listener);
    pysock_close(from);
    return !ok;
}

/* ---- the parent ---- */

/* A file that only holders of its descriptor can read, or -1. */
static int make_file(void)
{
    char path[] = "/tmp/unix_fds-XXXXXX";
    int fd = mkstemp(path);

    if (fd < 0)
        return fail("parent", strerror(errno));
    unlink(path);
    if (write(fd, secret, sizeof secret - 1) == sizeof secret - 1)
        return fd;
    close(fd);
    return fail("parent", "cannot write the file");
}

/* Opens both, passes them on, and keeps neither. The port of the listener, or -1. */
static int pass(pysock *to)
{
    int fds[2] = {make_file(), -1}, port = -1;
    pysock *listener = fds[0] < 0 ? NULL : pysock_create_server("127.0.0.1", 0, -1);
    pysock_addr addr;

    fds[1] = listener ? pysock_fileno(listener) : -1;
    if (listener && pysock_getsockname(listener, &addr) == 0 &&
        pysock_send_fds(to, WHAT, sizeof WHAT - 1, fds, 2, 0) == sizeof WHAT - 1)
        port = pysock_addr_port(&addr);
    else if (fds[0] >= 0)
        fail("parent", pysock_error_message());
    pysock_close(listener);
    if (fds[0] >= 0)
        close(fds[0]);
    return port;
}

/* What the child serves must be what the parent wrote. */
static int read_back(int port)
{
    char text[sizeof secret];
    pysock *s = pysock_create_connection("127.0.0.1", port, TIMEOUT);
    pysock_file *f = s ? pysock_makefile(s, "r", -1) : NULL;
    ptrdiff_t n = f ? pysock_file_read(f, text, sizeof text) : -1;

    if (n < 0)
        fail("parent", pysock_error_message());
    pysock_file_close(f);
    pysock_close(s);
    if (n < 0 || n != sizeof secret - 1 || memcmp(text, secret, sizeof secret - 1) != 0)
        return fail("parent", "that is not what the child should serve");
    printf("parent: the child served: %.*s", (int)n, text);
    return 0;
}

int main(void)
{
    pysock *pair[2];
    int status = 1, port;
    pid_t child = pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 ? fork() : -1;

    if (child < 0) {
        fail("parent", strerror(errno));
        return 1;
    }
    pysock_close(pair[child == 0 ? 0 : 1]); /* so that each end notices when the other one dies */
    if (child == 0)
        return be_child(pair[1]);
    int result = (port = pass(pair[0])) < 0 ? -1 : read_back(port);
    pysock_close(pair[0]);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;
    return result == 0 && status == 0 ? 0 : 1;
}
