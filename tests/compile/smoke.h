/* A few calls, so that a configuration that links is also seen to run. */
#include <stdio.h>
#include <string.h>

static int smoke_fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, pysock_error_message());
    return 1;
}

static int smoke_plain(void)
{
    pysock *pair[2];
    char buf[8];

    if (pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
        return smoke_fail("socketpair");
    if (pysock_sendall(pair[0], "hello", 5, 0) < 0)
        return smoke_fail("sendall");
    if (pysock_recv(pair[1], buf, sizeof buf, 0) != 5 || memcmp(buf, "hello", 5) != 0)
        return smoke_fail("recv");
    if (pysock_close(pair[0]) < 0 || pysock_close(pair[1]) < 0)
        return smoke_fail("close");
    return 0;
}

static int smoke_poller(void)
{
    pysock *pair[2];
    pysock_pollevent event;
    pysock_poller *p = pysock_poller_new();

    if (!p || pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
        return smoke_fail("poller_new");
    if (pysock_poller_register(p, pysock_fileno(pair[0]), POLLIN | POLLOUT, NULL) < 0)
        return smoke_fail("register");
    if (pysock_poller_poll(p, &event, 1, 1.0) != 1 || event.events != POLLOUT)
        return smoke_fail("poll");
    pysock_poller_release(p);
    pysock_close(pair[0]);
    pysock_close(pair[1]);
    return 0;
}

static int smoke_ssl(void)
{
    pysock_ssl_context *ctx = pysock_ssl_context_new(PYSOCK_SERVER_AUTH);

#ifdef PYSOCK_NO_SSL
    if (ctx || pysock_error() == PYSOCK_NO_ERROR || !pysock_error_message()[0])
        return smoke_fail("a context without TLS");
#else
    if (!ctx)
        return smoke_fail("ssl_context_new");
#endif
    pysock_ssl_context_release(ctx);
    return 0;
}

static int smoke(void)
{
    if (smoke_plain() || smoke_poller() || smoke_ssl())
        return 1;
    pysock_cleanup();
    return 0;
}
