/* pysock_abort(): what is queued is dropped, the peer sees a reset, and nobody waits. */
#include "support/contexts.h"
#include "support/file_id.h"

#define LONG T_SCALE(30.0, 60.0)

/* ---- helpers ---- */

static void must_be_reset(int fd) {
    struct pollfd p;
    int error = 0;
    socklen_t len = sizeof error;
    p.fd = fd;
    p.events = 0;
    T_EQ(poll(&p, 1, (int)(LONG * 1000)), 1);
    T_CHECK(p.revents & POLLERR);
    T_EQ(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len), 0);
    T_EQ(error, ECONNRESET);
}

/* Fills the kernel, the engine and the queue. The peer reads nothing. */
static void fill(pysock *s) {
    pysock_buf *b = T_OK(pysock_buf_new(1024 * 1024));
    T_OK(pysock_setblocking(s, 0));
    while (pysock_send_buf(s, b) == 0)
        continue;
    T_EQ(errno, EAGAIN);
    pysock_buf_release(b);
}

/* ---- sockets that are not open ---- */

T_TEST(what_is_not_open_is_fine, 60) {
    pysock *pair[2];
    T_EQ(pysock_abort(NULL), 0);
    t_pair(pair);
    T_OK(pysock_close(pair[0]));
    T_EQ(pysock_abort(pair[0]), 0);
    T_EQ(pysock_abort(pair[1]), 0);
    T_EQ(pysock_abort(pair[1]), 0);
    T_EQ(pysock_close(pair[1]), 0);
    T_FAILS(pysock_fileno(pair[1]), PYSOCK_OS_ERROR, EBADF);
}

T_TEST(any_kind_of_socket_is_fine, 60) {
    pysock *pair[2], *s;
    int port;
    s = t_listen(&port);
    T_EQ(pysock_abort(s), 0);
    T_FAILS(pysock_fileno(s), PYSOCK_OS_ERROR, EBADF);
    T_FAILS(pysock_create_connection("127.0.0.1", port, LONG), PYSOCK_OS_ERROR, ECONNREFUSED);
    s = T_OK(pysock_socket(AF_INET, SOCK_DGRAM, 0));
    T_EQ(pysock_abort(s), 0);
    T_FAILS(pysock_fileno(s), PYSOCK_OS_ERROR, EBADF);
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0)); /* not connected */
    T_EQ(pysock_abort(s), 0);
    T_FAILS(pysock_fileno(s), PYSOCK_OS_ERROR, EBADF);
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    T_EQ(pysock_abort(pair[0]), 0);
    T_FAILS(pysock_fileno(pair[0]), PYSOCK_OS_ERROR, EBADF);
    T_OK(pysock_close(pair[1]));
}

T_TEST(memory_BIOs_are_fine, 60) {
    pysock_bio *in = T_OK(pysock_bio_new()), *out = T_OK(pysock_bio_new());
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    pysock *s;
    options.server_hostname = "localhost";
    s = T_OK(pysock_ssl_wrap_bio(client_ctx, in, out, &options));
    T_FAILS(pysock_ssl_do_handshake(s), PYSOCK_SSL_WANT_READ_ERROR, T_ANY);
    T_EQ(pysock_abort(s), 0);
    T_FAILS(pysock_ssl_do_handshake(s), PYSOCK_OS_ERROR, EBADF);
    pysock_bio_release(in);
    pysock_bio_release(out);
}

/* ---- what the peer sees ---- */

T_TEST(the_peer_sees_a_reset, 120) {
    for (int tls = 0; tls < 2; tls++)
        for (int blocking = 0; blocking < 2; blocking++)
            for (int full = 0; full < 2; full++)
                for (int linger = 0; linger < 2; linger++) {
                    pysock *pair[2];
                    file_id file;
                    T_STEP("%s, %s, %s, %s", tls ? "TLS" : "plain", blocking ? "blocking" : "not",
                           full ? "full" : "idle", linger ? "SO_LINGER" : "no SO_LINGER");
                    t_pair(pair);
                    if (tls)
                        t_wrap_pair(pair, client_ctx, server_ctx);
                    file = file_of(pair[0]);
                    if (full)
                        fill(pair[0]);
                    T_OK(pysock_setblocking(pair[0], blocking));
                    if (linger)
                        t_set_linger(pair[0], 600); /* the kernel's close would sleep */
                    T_EQ(pysock_abort(pair[0]), 0);
                    while (is_open(file)) /* the reactor may have to let go of it first */
                        t_nap(0.002);
                    T_FAILS(pysock_fileno(pair[0]), PYSOCK_OS_ERROR, EBADF);
                    must_be_reset(pysock_fileno(pair[1]));
                    T_OK(pysock_close(pair[1]));
                }
}

/* No close_notify is sent: a reset is no clean end. */
T_TEST(a_TLS_peer_sees_no_clean_end, 60) {
    pysock *pair[2];
    char byte;
    t_tls_pair(pair, client_ctx, server_ctx);
    T_EQ(pysock_abort(pair[0]), 0);
    T_FAILS(pysock_recv(pair[1], &byte, 1, 0), PYSOCK_OS_ERROR, ECONNRESET);
    T_EQ(pysock_ssl_eof_is_clean(pair[1]), 0);
    T_OK(pysock_close(pair[1]));
}

T_TEST(unread_input_makes_no_difference, 60) {
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        t_pair(pair);
        if (tls)
            t_wrap_pair(pair, client_ctx, server_ctx);
        t_say(pair[1], "unread");
        T_CHECK(t_readable(pair[0], LONG));
        T_EQ(pysock_abort(pair[0]), 0);
        must_be_reset(pysock_fileno(pair[1]));
        T_OK(pysock_close(pair[1]));
    }
}

/* ---- handshakes and connections that are under way ---- */

T_TEST(a_handshake_ends, 60) {
    for (int server = 0; server < 2; server++)
        for (int queued = 0; queued < 2; queued++) {
            pysock *pair[2];
            file_id file;
            t_pair(pair);
            file = file_of(pair[0]);
            T_OK(pysock_setblocking(pair[0], 0));
            T_OK(pysock_ssl_wrap_socket(pair[0], server ? server_ctx : client_ctx,
                                        server ? NULL : "localhost"));
            if (queued) {
                pysock_buf *b = T_OK(pysock_buf_copy("queued", 6));
                T_OK(pysock_send_buf(pair[0], b));
                pysock_buf_release(b);
            }
            if (!server) /* the reactor is at work: its ClientHello has come */
                T_CHECK(t_readable(pair[1], LONG));
            T_EQ(pysock_abort(pair[0]), 0);
            must_be_reset(pysock_fileno(pair[1]));
            while (is_open(file)) /* the reactor may be in a step of it */
                t_nap(0.002);
            T_OK(pysock_close(pair[1]));
        }
}

/* Until a call on a non-blocking socket tells its end, which is no clean one. */
static void must_fail(pysock *s) {
    ptrdiff_t n;
    char byte;
    while ((n = pysock_recv(s, &byte, 1, 0)) < 0 && errno == EAGAIN)
        T_CHECK(t_readable(s, LONG));
    T_EQ(n, -1);
}

/* At any moment of a handshake that the reactor does. */
T_TEST(a_handshake_ends_at_any_moment, 120) {
    for (int i = 0; i < T_SCALE(200, 40); i++) {
        pysock *pair[2];
        t_pair(pair);
        for (int k = 0; k < 2; k++) {
            T_OK(pysock_setblocking(pair[k], 0));
            T_OK(pysock_ssl_wrap_socket(pair[k], k ? server_ctx : client_ctx,
                                        k ? NULL : "localhost"));
        }
        t_nap(i % 40 * 0.0001);
        T_EQ(pysock_abort(pair[i & 1]), 0);
        must_fail(pair[!(i & 1)]);
        T_EQ(pysock_abort(pair[!(i & 1)]), 0);
    }
}

T_TEST(a_connect_ends, 60) {
    int fds[2], port;
    pysock *s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    port = t_silent_port(fds);
    T_OK(pysock_setblocking(s, 0));
    T_FAILS(pysock_connect(s, "127.0.0.1", port), PYSOCK_OS_ERROR, EINPROGRESS);
    T_EQ(pysock_abort(s), 0);
    T_FAILS(pysock_fileno(s), PYSOCK_OS_ERROR, EBADF);
    close(fds[0]);
    close(fds[1]);
}

/* ---- other threads ---- */

T_TEST(other_threads_waits_end_with_EBADF, 200) {
    for (int what = T_WAIT_RECV; what <= T_WAIT_POLLER; what++)
        for (int tls = 0; tls < 2; tls++)
            for (int timed = 0; timed < 2; timed++) {
                t_stage st;
                t_thread t;
                if (!tls && (what == T_WAIT_HANDSHAKE || what == T_WAIT_UNWRAP))
                    continue;
                T_STEP("wait %d, %s, %s", what, tls ? "TLS" : "plain", timed ? "timed" : "not");
                t_stage_set(&st, (t_wait_kind)what, tls, timed ? 600.0 : PYSOCK_NO_TIMEOUT,
                            client_ctx, server_ctx);
                t_spawn(&t, t_wait_thread, &st.w);
                t_wait_asleep(&t);
                T_EQ(pysock_abort(st.w.s), 0);
                t_join(&t);
                if (what == T_WAIT_POLLER) {
                    T_EQ(st.w.result, 1);
                    T_CHECK(st.w.event.events & POLLNVAL);
                } else {
                    T_EQ(st.w.result, -1);
                    T_EQ(st.w.code, EBADF);
                }
                t_stage_clear(&st);
            }
}

static void *abort_thread(void *arg) {
    T_EQ(pysock_abort(arg), 0);
    return NULL;
}

T_TEST(close_and_abort_may_meet, 120) {
    for (int i = 0; i < T_SCALE(200, 40); i++) {
        pysock *pair[2];
        t_thread t[3];
        t_pair(pair);
        if (i & 1)
            t_wrap_pair(pair, client_ctx, server_ctx);
        for (int k = 0; k < 3; k++)
            t_spawn(&t[k], k == i % 3 ? t_close_thread : abort_thread, pair[0]);
        for (int k = 0; k < 3; k++)
            t_join(&t[k]);
        T_FAILS(pysock_fileno(pair[0]), PYSOCK_OS_ERROR, EBADF);
        T_OK(pysock_close(pair[1]));
    }
}

/* ---- files ---- */

/* A file that is still open cannot make an orderly end of it. */
T_TEST(a_file_does_not_prevent_the_reset, 60) {
    pysock *pair[2];
    pysock_file *f;
    t_pair(pair);
    f = T_OK(pysock_makefile(pair[0], "rw", -1));
    T_EQ(pysock_file_write(f, "buffered", 8, NULL), 8);
    T_EQ(pysock_abort(pair[0]), 0);
    pysock_file_close(f);
    must_be_reset(pysock_fileno(pair[1]));
    T_OK(pysock_close(pair[1]));
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts)
