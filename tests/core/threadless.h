/* Everything that the reactor does, in programs where it has no thread: whoever calls does it. The
   including file has the implementation. One thread plays both ends. */
#ifndef TESTS_THREADLESS_H
#define TESTS_THREADLESS_H

#include "support/contexts.h"

/* A connected pair, non-blocking, with the handshake begun on both ends. */
static void begin_pair(pysock *pair[2]) {
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    T_OK(pysock_setblocking(pair[0], 0));
    T_OK(pysock_setblocking(pair[1], 0));
    T_OK(pysock_ssl_wrap_socket(pair[0], client_ctx, "localhost"));
    T_OK(pysock_ssl_wrap_socket(pair[1], server_ctx, NULL));
}

static void exchange(pysock *pair[2]) {
    char buf[16];
    int fd = pysock_fileno(pair[1]);
    size_t n = 1;
    T_OK(pysock_sendall(pair[0], "hello", 5, 0));
    T_EQ(pysock_select(&fd, &n, NULL, NULL, NULL, NULL, 30), 1);
    T_EQ(pysock_recv(pair[1], buf, sizeof buf, 0), 5);
    T_EQ(memcmp(buf, "hello", 5), 0);
}

T_TEST(select_drives_the_handshakes, 60) {
    pysock *pair[2];
    int fd;
    size_t n = 1;
    begin_pair(pair);
    fd = pysock_fileno(pair[0]);
    T_EQ(pysock_select(NULL, NULL, &fd, &n, NULL, NULL, 30), 1);
    T_EQ(pysock_ssl_do_handshake(pair[0]), 0);
    exchange(pair);
    T_OK(pysock_close(pair[0]));
    T_OK(pysock_close(pair[1]));
}

T_TEST(a_poller_drives_the_handshakes, 60) {
    pysock *pair[2];
    pysock_poller *p = T_OK(pysock_poller_new());
    int done = 0;
    begin_pair(pair);
    for (int i = 0; i < 2; i++)
        T_OK(pysock_poller_register(p, pysock_fileno(pair[i]), POLLOUT, NULL));
    while (done != 3) {
        pysock_pollevent events[2];
        ptrdiff_t n = T_OK(pysock_poller_poll(p, events, 2, 30));
        T_CHECK(n > 0);
        for (ptrdiff_t k = 0; k < n; k++)
            done |= events[k].fd == pysock_fileno(pair[0]) ? 1 : 2;
    }
    exchange(pair);
    pysock_poller_release(p);
    T_OK(pysock_close(pair[0]));
    T_OK(pysock_close(pair[1]));
}

T_TEST(calls_alone_drive_the_handshakes, 60) {
    pysock *pair[2];
    int r[2] = {1, 1};
    begin_pair(pair);
    while (r[0] || r[1]) { /* a game's loop, that never selects */
        r[0] = t_in_progress(pysock_ssl_do_handshake(pair[0]));
        r[1] = t_in_progress(pysock_ssl_do_handshake(pair[1]));
    }
    exchange(pair);
    T_OK(pysock_close(pair[0]));
    T_OK(pysock_close(pair[1]));
}

T_TEST(queued_output_is_sent_by_whoever_calls, 60) {
    enum { PIECES = 400, SIZE = 10000 };
    pysock *pair[2];
    pysock_buf *b = T_OK(pysock_buf_new(SIZE));
    size_t sent = 0, received = 0;
    static char buf[65536];
    begin_pair(pair);
    while (received < (size_t)PIECES * SIZE) {
        ptrdiff_t n;
        if (sent < PIECES && pysock_send_buf(pair[0], b) == 0)
            sent++;
        n = pysock_recv(pair[1], buf, sizeof buf, 0);
        T_CHECK(n > 0 || errno == EAGAIN);
        received += n > 0 ? (size_t)n : 0;
    }
    T_EQ(pysock_queued(pair[0]), 0);
    pysock_buf_release(b);
    T_OK(pysock_close(pair[0]));
    T_OK(pysock_close(pair[1]));
}

T_TEST(any_sleep_sends_what_a_close_left, 60) {
    pysock *pair[2];
    static char buf[65536];
    pysock_buf *b = T_OK(pysock_buf_new(60000));
    int raw;
    size_t received = 0;
    ssize_t n;
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    T_OK(pysock_setblocking(pair[0], 0));
    raw = dup(pysock_fileno(pair[1])); /* a reader whom the cleanup does not end */
    T_CHECK(raw >= 0);
    T_OK(pysock_set_watermarks(pair[0], 100000, 1000000));
    for (int i = 0; i < 10; i++)
        T_OK(pysock_send_buf(pair[0], b));
    T_CHECK(pysock_queued(pair[0]) > 0);
    T_OK(pysock_close(pair[0]));
    while (received < 600000) {
        T_OK(pysock_getsockopt_int(pair[1], SOL_SOCKET, SO_TYPE, &(int){0}));
        n = recv(raw, buf, sizeof buf, MSG_DONTWAIT);
        T_CHECK(n > 0 || errno == EAGAIN);
        received += n > 0 ? (size_t)n : 0;
        if (n < 0) /* any sleep gives the unfinished business its turn */
            T_EQ(pysock_select(NULL, NULL, NULL, NULL, NULL, NULL, 0.001), 0);
    }
    T_EQ(recv(raw, buf, sizeof buf, 0), 0);
    close(raw);
    pysock_buf_release(b);
    T_OK(pysock_close(pair[1]));
}

T_TEST(blocking_calls_need_no_reactor, 60) {
    pysock *pair[2];
    char byte;
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    T_OK(pysock_settimeout(pair[1], 0.05));
    T_FAILS(pysock_recv(pair[1], &byte, 1, 0), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    T_OK(pysock_sendall(pair[0], "x", 1, 0));
    T_EQ(pysock_recv(pair[1], &byte, 1, 0), 1);
    T_OK(pysock_close(pair[0]));
    T_EQ(pysock_recv(pair[1], &byte, 1, 0), 0);
    T_OK(pysock_close(pair[1]));
}

T_TEST(a_name_is_looked_up_all_the_same, 60) {
    int port;
    pysock *listener = t_listen(&port), *s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    int fd = pysock_fileno(s);
    size_t n = 1;
    T_OK(pysock_setblocking(s, 0));
    T_FAILS(pysock_connect(s, "localhost", port), PYSOCK_OS_ERROR, EINPROGRESS);
    T_EQ(pysock_select(NULL, NULL, &fd, &n, NULL, NULL, 30), 1);
    T_OK(pysock_close(s));
    s = T_OK(pysock_create_connection("localhost", port, 30));
    T_OK(pysock_close(s));
    T_OK(pysock_close(listener));
}

T_TEST(the_library_ends_and_begins_again, 60) {
    pysock *pair[2];
    begin_pair(pair);
    pysock_cleanup();
    T_FAILS(pysock_fileno(pair[0]), PYSOCK_OS_ERROR, EBADF);
    calls_alone_drive_the_handshakes();
}

#endif
