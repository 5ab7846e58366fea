/* pysock_select tells the truth: the table of levels in the manual, row by row, and the classic
   mistakes of TLS with select. */
#include "support/contexts.h"

#include <sys/ioctl.h>

static int fd_readable(int fd, double timeout) {
    size_t n = 1;
    return T_OK(pysock_select(&fd, &n, NULL, NULL, NULL, NULL, timeout)) == 1;
}

static int fd_writable(int fd, double timeout) {
    size_t n = 1;
    return T_OK(pysock_select(NULL, NULL, &fd, &n, NULL, NULL, timeout)) == 1;
}

/* Fills what a non-blocking socket takes, until it would wait. */
static size_t fill_up(pysock *s) {
    static char chunk[65536];
    size_t total = 0;
    for (;;) {
        ptrdiff_t n = pysock_send(s, chunk, sizeof chunk, 0);
        if (n < 0) {
            T_EQ(errno, EAGAIN);
            T_EQ(pysock_error(), PYSOCK_OS_ERROR);
            return total;
        }
        T_CHECK(n > 0);
        total += (size_t)n;
    }
}

static void drain(pysock *s, size_t size) {
    static char chunk[65536];
    while (size > 0) {
        size_t want = size < sizeof chunk ? size : sizeof chunk;
        ptrdiff_t n = pysock_recv(s, chunk, want, 0);
        T_CHECK(n > 0);
        size -= (size_t)n;
    }
}

/* ---- the lists ---- */

T_TEST(the_lists_keep_only_what_is_ready_in_order, 30) {
    int pipes[4][2], r[4], w[4];
    size_t nr = 4, nw = 4;
    for (int i = 0; i < 4; i++) {
        T_EQ(pipe(pipes[i]), 0);
        r[i] = pipes[i][0];
        w[i] = pipes[i][1];
    }
    T_EQ(write(pipes[3][1], "x", 1), 1);
    T_EQ(write(pipes[1][1], "x", 1), 1);
    T_EQ(pysock_select(r, &nr, w, &nw, NULL, NULL, PYSOCK_NO_TIMEOUT), 6);
    T_EQ(nr, 2);
    T_EQ(r[0], pipes[1][0]);
    T_EQ(r[1], pipes[3][0]);
    T_EQ(nw, 4);
    for (int i = 0; i < 4; i++)
        T_EQ(w[i], pipes[i][1]);
    for (int i = 0; i < 4; i++) {
        close(pipes[i][0]);
        close(pipes[i][1]);
    }
}

T_TEST(empty_lists_only_wait, 30) {
    size_t none = 0;
    double start;
    T_EQ(pysock_select(NULL, NULL, NULL, NULL, NULL, NULL, 0), 0);
    start = t_now();
    T_EQ(pysock_select(NULL, NULL, NULL, NULL, NULL, NULL, 0.05), 0);
    T_CHECK(t_now() - start >= 0.045);
    T_EQ(pysock_select(NULL, &none, NULL, &none, NULL, &none, 0), 0);
}

T_TEST(a_descriptor_may_be_in_several_lists_and_twice_in_one, 30) {
    pysock *pair[2];
    int fd, r[2], w[1], x[1];
    size_t nr = 2, nw = 1, nx = 1;
    t_tls_pair(pair, client_ctx, server_ctx);
    t_say(pair[0], "x");
    T_EQ(t_readable(pair[1], PYSOCK_NO_TIMEOUT), 1);
    fd = pysock_fileno(pair[1]);
    r[0] = r[1] = w[0] = x[0] = fd;
    T_EQ(pysock_select(r, &nr, w, &nw, x, &nx, PYSOCK_NO_TIMEOUT), 3);
    T_EQ(nr, 2);
    T_EQ(nw, 1);
    T_EQ(nx, 0);
    t_close_pair(pair);
}

T_TEST(sockets_pipes_and_files_share_one_select, 30) {
    pysock *plain[2], *tls[2];
    int pipe_fds[2], file, r[4];
    size_t nr = 4;
    t_pair(plain);
    t_tls_pair(tls, client_ctx, server_ctx);
    T_EQ(pipe(pipe_fds), 0);
    file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    T_CHECK(file >= 0);
    r[0] = pysock_fileno(plain[1]);
    r[1] = pysock_fileno(tls[1]);
    r[2] = pipe_fds[0];
    r[3] = file;
    T_EQ(pysock_select(r, &nr, NULL, NULL, NULL, NULL, PYSOCK_NO_TIMEOUT), 1);
    T_EQ(r[0], file);
    t_say(plain[0], "x");
    t_say(tls[0], "x");
    T_EQ(write(pipe_fds[1], "x", 1), 1);
    T_EQ(t_readable(plain[1], PYSOCK_NO_TIMEOUT), 1);
    T_EQ(t_readable(tls[1], PYSOCK_NO_TIMEOUT), 1);
    r[0] = pysock_fileno(plain[1]);
    nr = 4;
    r[1] = pysock_fileno(tls[1]);
    r[2] = pipe_fds[0];
    r[3] = file;
    T_EQ(pysock_select(r, &nr, NULL, NULL, NULL, NULL, PYSOCK_NO_TIMEOUT), 4);
    t_close_pair(plain);
    t_close_pair(tls);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    close(file);
}

T_TEST(descriptors_above_FD_SETSIZE_work, 30) {
    struct rlimit limit;
    int fds[2], high;
    T_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    T_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_cur < 3001)
        skip();
    T_EQ(pipe(fds), 0);
    high = dup2(fds[0], 3000);
    T_EQ(high, 3000);
    T_EQ(fd_readable(high, 0), 0);
    T_EQ(write(fds[1], "x", 1), 1);
    T_EQ(fd_readable(high, PYSOCK_NO_TIMEOUT), 1);
    close(high);
    close(fds[0]);
    close(fds[1]);
}

T_TEST(a_closed_descriptor_is_an_error, 30) {
    int fds[2], fd;
    size_t n = 1;
    T_EQ(pipe(fds), 0);
    fd = fcntl(fds[0], F_DUPFD_CLOEXEC, 700); /* no number that select itself would be given */
    T_CHECK(fd >= 700);
    close(fd);
    T_FAILS(pysock_select(&fd, &n, NULL, NULL, NULL, NULL, PYSOCK_NO_TIMEOUT), PYSOCK_OS_ERROR,
            EBADF);
    n = 1;
    T_FAILS(pysock_select(NULL, NULL, &fd, &n, NULL, NULL, 0), PYSOCK_OS_ERROR, EBADF);
    n = 1;
    T_FAILS(pysock_select(NULL, NULL, NULL, NULL, &fd, &n, 0), PYSOCK_OS_ERROR, EBADF);
    close(fds[0]);
    close(fds[1]);
}

T_TEST(a_pipe_without_a_writer_is_readable, 30) {
    int fds[2];
    T_EQ(pipe(fds), 0);
    T_EQ(fd_readable(fds[0], 0), 0);
    close(fds[1]);
    T_EQ(fd_readable(fds[0], PYSOCK_NO_TIMEOUT), 1);
    close(fds[0]);
}

T_TEST(a_pipe_without_a_reader_is_writable, 30) {
    int fds[2];
    T_EQ(pipe(fds), 0);
    close(fds[0]);
    T_EQ(fd_writable(fds[1], PYSOCK_NO_TIMEOUT), 1);
    close(fds[1]);
}

/* ---- readable ---- */

/* The classic bug: the record has left the kernel, and poll(2) alone would wait for ever. */
T_TEST(select_sees_bytes_left_in_the_engine, 30) {
    pysock *pair[2];
    char text[1000], buf[1000];
    int in_kernel = -1;
    memset(text, 'e', sizeof text);
    t_tls_pair(pair, client_ctx, server_ctx);
    T_OK(pysock_sendall(pair[0], text, sizeof text, 0));
    T_EQ(pysock_recv(pair[1], buf, 10, 0), 10);
    T_EQ(ioctl(pysock_fileno(pair[1]), FIONREAD, &in_kernel), 0);
    T_EQ(in_kernel, 0);
    T_EQ(pysock_ssl_pending(pair[1]), 990);
    T_EQ(t_readable(pair[1], 0), 1);
    T_EQ(t_readable(pair[1], PYSOCK_NO_TIMEOUT), 1);
    T_EQ(pysock_recv(pair[1], buf, 989, 0), 989);
    T_EQ(t_readable(pair[1], PYSOCK_NO_TIMEOUT), 1);
    T_EQ(pysock_recv(pair[1], buf, sizeof buf, 0), 1);
    T_EQ(pysock_ssl_pending(pair[1]), 0);
    T_EQ(t_readable(pair[1], 0), 0);
    t_close_pair(pair);
}

/* The other classic bug: bytes in the kernel that are no bytes for the user. Neither may select
   say so, nor may it, or the reactor, turn round and round meanwhile. */
T_TEST(select_does_not_say_readable_for_half_a_record, 60) {
    unsigned char record[T_RECORD];
    pysock *pair[2];
    t_proxy proxy;
    size_t size;
    static const size_t cuts[] = {1, 3, 5, 6, 20};
    t_tls_pair_by_proxy(pair, &proxy, client_ctx, server_ctx);
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        double cpu, start;
        T_STEP("%zu bytes of the record", cuts[i]);
        t_say(pair[1], "hello");
        size = t_raw_record(proxy.to_server, record);
        T_CHECK(size > cuts[i]);
        t_raw_write(proxy.to_client, record, cuts[i]);
        T_EQ(t_readable(pair[0], 0), 0);
        cpu = t_process_cpu();
        start = t_now();
        T_EQ(t_readable(pair[0], 0.5), 0);
        T_CHECK(t_now() - start >= 0.49);
        T_CHECK(t_process_cpu() - cpu < 0.25);
        T_STEP("the rest");
        t_raw_write(proxy.to_client, record + cuts[i], size - cuts[i]);
        T_EQ(t_readable(pair[0], PYSOCK_NO_TIMEOUT), 1);
        t_expect(pair[0], "hello");
        T_EQ(t_readable(pair[0], 0), 0);
    }
    t_close_pair(pair);
    t_proxy_close(&proxy);
}

typedef struct dribble {
    int fd;
    const unsigned char *bytes;
    size_t size;
    int stop; /* atomic */
} dribble;

static void *dribble_thread(void *arg) {
    dribble *d = arg;
    for (size_t i = 0; i < d->size && !__atomic_load_n(&d->stop, __ATOMIC_ACQUIRE); i++) {
        t_raw_write(d->fd, d->bytes + i, 1);
        t_nap(0.01);
    }
    return NULL;
}

/* Each byte of an unfinished record wakes the wait; the deadline stays where it was. */
T_TEST(spurious_wakeups_do_not_extend_the_deadline, 60) {
    unsigned char record[T_RECORD];
    char big[16000];
    pysock *pair[2];
    t_proxy proxy;
    t_thread t;
    dribble d;
    double start;
    memset(big, 'b', sizeof big);
    t_tls_pair_by_proxy(pair, &proxy, client_ctx, server_ctx);
    T_OK(pysock_sendall(pair[1], big, sizeof big, 0));
    d.size = t_raw_record(proxy.to_server, record);
    d.fd = proxy.to_client;
    d.bytes = record;
    d.stop = 0;
    t_spawn(&t, dribble_thread, &d);
    start = t_now();
    T_EQ(t_readable(pair[0], 0.3), 0);
    T_CHECK(t_now() - start >= 0.29);
    T_CHECK(t_now() - start < 20);
    __atomic_store_n(&d.stop, 1, __ATOMIC_RELEASE);
    t_join(&t);
    t_close_pair(pair);
    t_proxy_close(&proxy);
}

T_TEST(the_end_of_a_stream_is_readable_for_good, 60) {
    char byte;
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        T_STEP("%s", tls ? "TLS" : "plain");
        plain_or_tls_pair(pair, tls);
        T_EQ(t_readable(pair[1], 0), 0);
        T_OK(pysock_close(pair[0]));
        for (int i = 0; i < 3; i++) {
            T_EQ(t_readable(pair[1], PYSOCK_NO_TIMEOUT), 1);
            T_EQ(pysock_recv(pair[1], &byte, 1, 0), 0);
        }
        T_OK(pysock_close(pair[1]));
    }
}

T_TEST(an_end_behind_data_is_seen_after_the_data, 60) {
    pysock *pair[2];
    char byte;
    t_tls_pair(pair, client_ctx, server_ctx);
    t_say(pair[0], "ab");
    T_OK(pysock_close(pair[0]));
    for (int i = 0; i < 2; i++) {
        T_EQ(t_readable(pair[1], PYSOCK_NO_TIMEOUT), 1);
        T_EQ(pysock_recv(pair[1], &byte, 1, 0), 1);
    }
    T_EQ(t_readable(pair[1], PYSOCK_NO_TIMEOUT), 1);
    T_EQ(pysock_recv(pair[1], &byte, 1, 0), 0);
    T_OK(pysock_close(pair[1]));
}

T_TEST(a_reset_is_readable_before_and_after_it_was_told, 60) {
    char byte;
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        T_STEP("%s", tls ? "TLS" : "plain");
        plain_or_tls_pair(pair, tls);
        t_say(pair[0], "x");
        t_expect(pair[1], "x");
        t_raw_reset(pysock_fileno(pair[0]));
        T_EQ(t_readable(pair[1], PYSOCK_NO_TIMEOUT), 1);
        T_EQ(t_readable(pair[1], 0), 1);
        T_FAILS(pysock_recv(pair[1], &byte, 1, 0), PYSOCK_OS_ERROR, ECONNRESET);
        T_EQ(t_readable(pair[1], PYSOCK_NO_TIMEOUT), 1);
        t_close_pair(pair);
    }
}

T_TEST(a_listening_socket_is_readable_with_a_connection_and_never_writable, 60) {
    int port, fd;
    pysock *listener, *a, *b;
    listener = t_listen(&port);
    T_EQ(t_readable(listener, 0), 0);
    T_EQ(t_writable(listener, 0), 0);
    fd = t_raw_connect(port);
    T_EQ(t_readable(listener, PYSOCK_NO_TIMEOUT), 1);
    T_EQ(t_writable(listener, 0), 0);
    a = T_OK(pysock_accept(listener, NULL));
    T_EQ(t_readable(listener, 0), 0);
    T_STEP("the same with TLS around it");
    T_OK(pysock_ssl_wrap_socket(listener, server_ctx, NULL));
    T_EQ(t_readable(listener, 0), 0);
    T_EQ(t_writable(listener, 0), 0);
    close(fd);
    fd = t_raw_connect(port);
    T_EQ(t_readable(listener, PYSOCK_NO_TIMEOUT), 1);
    b = T_OK(pysock_accept(listener, NULL));
    T_EQ(pysock_is_ssl(b), 1);
    close(fd);
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
    T_OK(pysock_close(listener));
}

T_TEST(out_of_band_data_is_an_exceptional_condition, 60) {
    int port, fd, x;
    size_t n = 1;
    pysock *listener, *s;
    listener = t_listen(&port);
    fd = t_raw_connect(port);
    s = T_OK(pysock_accept(listener, NULL));
    x = pysock_fileno(s);
    T_EQ(pysock_select(NULL, NULL, NULL, NULL, &x, &n, 0), 0);
    T_EQ(send(fd, "!", 1, MSG_OOB), 1);
    n = 1;
    x = pysock_fileno(s);
    T_EQ(pysock_select(NULL, NULL, NULL, NULL, &x, &n, PYSOCK_NO_TIMEOUT), 1);
    T_EQ(x, pysock_fileno(s));
    close(fd);
    T_OK(pysock_close(s));
    T_OK(pysock_close(listener));
}

/* ---- writable ---- */

T_TEST(a_full_socket_is_not_writable_until_its_peer_reads, 60) {
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        size_t size;
        T_STEP("%s", tls ? "TLS" : "plain");
        plain_or_tls_pair(pair, tls);
        T_EQ(t_writable(pair[0], 0), 1);
        T_OK(pysock_setblocking(pair[0], 0));
        size = fill_up(pair[0]);
        while (t_writable(pair[0], 0.05)) /* the kernel moves bytes to the peer by itself */
            size += fill_up(pair[0]);
        T_EQ(t_writable(pair[0], 0), 0);
        T_STEP("now the peer reads");
        drain(pair[1], size);
        T_EQ(t_writable(pair[0], PYSOCK_NO_TIMEOUT), 1);
        T_EQ(pysock_send(pair[0], "more", 4, 0), 4);
        t_expect(pair[1], "more");
        t_close_pair(pair);
    }
}

/* What the kernel did not take of the last record is sent by the reactor, although nobody calls
   anything on the sender any more: the peer gets every byte. */
T_TEST(a_stuck_record_is_finished_without_the_caller, 60) {
    pysock *pair[2];
    size_t size;
    t_tls_pair(pair, client_ctx, server_ctx);
    T_OK(pysock_setblocking(pair[0], 0));
    size = fill_up(pair[0]);
    drain(pair[1], size);
    T_EQ(t_readable(pair[1], 0.02), 0);
    t_close_pair(pair);
}

typedef struct select_to_write {
    t_thread t;
    int fd, writable;
} select_to_write;

static void *select_thread(void *arg) {
    select_to_write *w = arg;
    w->writable = fd_writable(w->fd, 20);
    return NULL;
}

/* The peer says that it is done with both directions, and then, after all, takes what is there: a
   hangup, which nobody who waits to write asks about, does not hide that there is room now. */
T_TEST(a_hangup_does_not_hide_what_comes_after_it, 60) {
    static char buf[65536];
    pysock *pair[2];
    select_to_write w;
    int raw;
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    T_OK(pysock_setblocking(pair[0], 0));
    fill_up(pair[0]);
    w.fd = T_OK(pysock_fileno(pair[0]));
    raw = T_OK(pysock_fileno(pair[1]));
    t_spawn(&w.t, select_thread, &w);
    t_wait_asleep(&w.t);
    T_EQ(shutdown(raw, SHUT_RDWR), 0);
    t_wait_asleep(&w.t);
    while (recv(raw, buf, sizeof buf, MSG_DONTWAIT) > 0)
        continue;
    t_join(&w.t);
    T_EQ(w.writable, 1);
    t_close_pair(pair);
}

/* ---- handshaking ---- */

T_TEST(a_handshaking_socket_is_neither_readable_nor_writable_until_it_failed, 60) {
    int port, fd;
    pysock *listener, *s;
    char byte;
    listener = t_listen(&port);
    fd = t_raw_connect(port);
    s = T_OK(pysock_accept(listener, NULL));
    T_OK(pysock_setblocking(s, 0));
    T_OK(pysock_ssl_wrap_socket(s, server_ctx, NULL));
    T_FAILS(pysock_ssl_do_handshake(s), PYSOCK_OS_ERROR, EINPROGRESS);
    T_EQ(t_readable(s, 0), 0);
    T_EQ(t_writable(s, 0.05), 0);
    T_FAILS(pysock_recv(s, &byte, 1, 0), PYSOCK_OS_ERROR, EAGAIN);
    T_FAILS(pysock_send(s, "x", 1, 0), PYSOCK_OS_ERROR, EAGAIN);
    T_STEP("a first byte changes nothing");
    t_raw_write(fd, "\x16", 1);
    T_EQ(t_readable(s, 0.05), 0);
    T_EQ(t_writable(s, 0), 0);
    T_STEP("garbage does");
    t_raw_write(fd, "garbage garbage garbage garbage", 31);
    T_EQ(t_writable(s, PYSOCK_NO_TIMEOUT), 1);
    T_EQ(t_readable(s, PYSOCK_NO_TIMEOUT), 1);
    T_FAILS(pysock_recv(s, &byte, 1, 0), PYSOCK_SSL_ERROR, EPROTO);
    T_FAILS(pysock_ssl_do_handshake(s), PYSOCK_SSL_ERROR, EPROTO);
    close(fd);
    T_OK(pysock_close(s));
    T_OK(pysock_close(listener));
}

T_TEST(a_finished_handshake_is_writable_and_not_readable, 60) {
    pysock *pair[2];
    t_pair(pair);
    for (int i = 0; i < 2; i++) {
        T_OK(pysock_setblocking(pair[i], 0));
        T_OK(pysock_ssl_wrap_socket(pair[i], i ? server_ctx : client_ctx, i ? NULL : "localhost"));
    }
    for (int i = 0; i < 2; i++) {
        T_EQ(t_writable(pair[i], PYSOCK_NO_TIMEOUT), 1);
        T_EQ(pysock_ssl_do_handshake(pair[i]), 0);
        T_EQ(t_readable(pair[i], 0), 0);
    }
    t_close_pair(pair);
}

/* A blocking socket that is handed to select before its handshake: the reactor takes over. */
T_TEST(select_finishes_the_handshake_of_a_blocking_socket, 60) {
    pysock *pair[2];
    t_pair(pair);
    t_wrap_later(pair[1], server_ctx, NULL);
    T_OK(pysock_setblocking(pair[0], 0));
    T_OK(pysock_ssl_wrap_socket(pair[0], client_ctx, "localhost"));
    T_EQ(t_writable(pair[1], PYSOCK_NO_TIMEOUT), 1);
    T_EQ(pysock_ssl_do_handshake(pair[1]), 0);
    T_EQ(t_writable(pair[0], PYSOCK_NO_TIMEOUT), 1);
    t_say(pair[0], "done");
    t_expect(pair[1], "done");
    t_close_pair(pair);
}

/* ---- many ---- */

#define MANY T_SCALE(300, 60)

T_TEST(one_ready_socket_is_found_among_many, 120) {
    static pysock *pairs[300][2];
    static int r[300];
    for (int i = 0; i < MANY; i++) {
        if (i % 10 == 0)
            t_tls_pair(pairs[i], client_ctx, server_ctx);
        else
            T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pairs[i]));
    }
    for (int turn = 0; turn < MANY; turn += 7) {
        size_t n = (size_t)MANY;
        for (int i = 0; i < MANY; i++)
            r[i] = pysock_fileno(pairs[i][1]);
        t_say(pairs[turn][0], "x");
        T_EQ(pysock_select(r, &n, NULL, NULL, NULL, NULL, PYSOCK_NO_TIMEOUT), 1);
        T_EQ(r[0], pysock_fileno(pairs[turn][1]));
        t_expect(pairs[turn][1], "x");
    }
    for (int i = 0; i < MANY; i++)
        t_close_pair(pairs[i]);
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts)
