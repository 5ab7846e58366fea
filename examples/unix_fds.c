/*
unix_fds: one process opens files and ports, another one, which may not, receives and uses them.

cc -I. examples/unix_fds.c -o unix_fds -lbearssl -lpthread

./unix_fds

The parent opens a file and a listening socket, and passes both descriptors over a Unix socket to a
child that was forked before there was either. The child has first given up what it could: as root
it becomes nobody, in any case it forbids itself to start programs with more rights. It makes a
socket of the descriptor by pysock_adopt(), accepts a client there and sends it the file. The client
is the parent, which has closed its own listener. That is how a server keeps its keys and its
privileged port in a small process, and its parser in another.
Exit status: 0 only if all went as it should.
*/
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#include <errno.h>
#include <grp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#define TIMEOUT 20.0 /* seconds for anything that waits for the other process */
#define WHAT "a file and a listener"

enum { NOBODY = 65534 };

static const char secret[] = "written by the parent, in a file that has no name any more\n";

static bool fail(const char *who, const char *why)
{
    fprintf(stderr, "unix_fds: %s: %s\n", who, why);
    return false;
}

/* ---- the child ---- */

static bool drop_privileges(void)
{
#ifdef __linux__
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return fail("child", strerror(errno));
#endif
    if (geteuid() != 0)
        return true;
    if (setgroups(0, NULL) == 0 && setgid(NOBODY) == 0 && setuid(NOBODY) == 0)
        return setuid(0) < 0 || fail("child", "could become root again");
    if (errno != EPERM && errno != EINVAL)
        return fail("child", strerror(errno));
    printf("child:  stays root: this container lets nobody change\n"); /* a server would refuse */
    return true;
}

/* What comes is what was agreed on, or is closed: nobody keeps descriptors unseen. */
static bool receive(pysock *from, int fds[2])
{
    char text[sizeof WHAT];
    size_t count = 2;
    int flags = 0;
    ptrdiff_t n = pysock_recv_fds(from, text, sizeof text, fds, &count, 0, &flags);

    if (n < 0)
        return fail("child", pysock_error_message());
    if (n == (ptrdiff_t)strlen(WHAT) && memcmp(text, WHAT, (size_t)n) == 0 && count == 2 &&
        !(flags & MSG_CTRUNC))
        return true;
    while (count > 0)
        close(fds[--count]);
    return fail("child", n == 0 ? "the parent is gone" : "the parent sent something else");
}

/* Accepts one client on the listener, and sends it the file. */
static bool serve(pysock *listener, int file)
{
    pysock *client = NULL;
    bool ok = pysock_settimeout(listener, TIMEOUT) == 0 &&
              (client = pysock_accept(listener, NULL)) != NULL &&
              pysock_settimeout(client, TIMEOUT) == 0 &&
              pysock_sendfile(client, file, 0, -1) == (int64_t)strlen(secret) &&
              pysock_shutdown(client, SHUT_WR) == 0;

    if (!ok)
        fail("child", pysock_error_message());
    pysock_close(client);
    return ok;
}

static int be_child(pysock *from)
{
    int fds[2];

    if (!drop_privileges() || pysock_settimeout(from, TIMEOUT) < 0 || !receive(from, fds))
        return 1;
    printf("child:  user %ld has received descriptors %d and %d\n", (long)getuid(), fds[0], fds[1]);

    pysock *listener = pysock_adopt(fds[1], -1, -1, -1); /* it finds out what it is */
    bool ok = listener ? serve(listener, fds[0]) : fail("child", pysock_error_message());
    if (!listener)
        close(fds[1]);
    close(fds[0]);
    pysock_close(listener);
    pysock_close(from);
    return ok ? 0 : 1;
}

/* ---- the parent ---- */

/* A file that only who has its descriptor can read; -1 if there can be none. */
static int make_file(void)
{
    char path[] = "/tmp/unix_fds-XXXXXX";
    int fd = mkstemp(path);
    size_t n = strlen(secret);

    if (fd < 0)
        return -1;
    unlink(path);
    if (write(fd, secret, n) == (ssize_t)n)
        return fd;
    close(fd);
    return -1;
}

/* Opens both, passes them on, and keeps neither. *port: where the child will listen. */
static bool pass(pysock *to, int *port)
{
    int file = make_file();
    pysock *listener = pysock_create_server("127.0.0.1", 0, -1);
    pysock_addr addr;
    bool ok = false;

    if (file < 0) {
        fail("parent", strerror(errno));
    } else if (!listener || pysock_getsockname(listener, &addr) < 0) {
        fail("parent", pysock_error_message());
    } else {
        int fds[2] = {file, pysock_fileno(listener)};
        *port = pysock_addr_port(&addr);
        ok = pysock_send_fds(to, WHAT, strlen(WHAT), fds, 2, 0) == (ptrdiff_t)strlen(WHAT) ||
             fail("parent", pysock_error_message());
    }
    pysock_close(listener);
    if (file >= 0)
        close(file);
    return ok;
}

/* What the child serves must be what the parent wrote. */
static bool read_back(int port)
{
    char text[sizeof secret + 1];
    size_t have = 0;
    ptrdiff_t n = 1;
    pysock *s = pysock_create_connection("127.0.0.1", port, TIMEOUT);

    while (s && n > 0 && have < sizeof text) {
        n = pysock_recv(s, text + have, sizeof text - have, 0);
        have += n > 0 ? (size_t)n : 0;
    }
    if (!s || n < 0)
        fail("parent", pysock_error_message());
    pysock_close(s);
    if (!s || n < 0)
        return false;
    if (have != strlen(secret) || memcmp(text, secret, have) != 0)
        return fail("parent", "the child served something else");
    printf("parent: the child served: %.*s", (int)have, text);
    return true;
}

static bool wait_for(pid_t child)
{
    int status;

    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return fail("parent", strerror(errno));
    return (WIFEXITED(status) && WEXITSTATUS(status) == 0) || fail("parent", "the child failed");
}

int main(void)
{
    pysock *pair[2];
    int port = 0;

    if (pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
        return fail("parent", pysock_error_message()) ? 0 : 1;

    pid_t child = fork();
    if (child < 0)
        return fail("parent", strerror(errno)) ? 0 : 1;
    if (child == 0) {
        pysock_close(pair[0]);
        return be_child(pair[1]);
    }
    pysock_close(pair[1]); /* so that each end notices when the other one dies */
    printf("parent: user %ld opens a file and a listening socket\n", (long)getuid());
    fflush(stdout);
    bool ok = pass(pair[0], &port) && read_back(port);
    pysock_close(pair[0]);
    return wait_for(child) && ok ? 0 : 1;
}
