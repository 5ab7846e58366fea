/* What close() promises: that output on its way arrives, whatever input is unread, whatever the
   peer does, within a bound; and that output which was lost is reported. */
#include "support/contexts.h"
#include "support/file_id.h"
#include "support/losses.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>

#define SIZE (4u << 20)
#define LAST (128u * 1024) /* what fits into the kernel's buffers for certain */
#define LONG T_SCALE(30.0, 60.0)

static unsigned char reply[SIZE], got[SIZE + 1];

static int set_up(void **state) {
    t_fill(reply, SIZE, 0, 1);
    return make_contexts(state);
}

static void wrap_half_closing(pysock *s, pysock_ssl_context *ctx, const char *host) {
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    options.no_handshake_on_connect = 1;
    options.half_close = 1;
    options.server_hostname = host;
    T_OK(pysock_ssl_wrap_socket_ex(s, ctx, &options));
}

/* [0] is the client, which has little room. */
static void make_pair(pysock *pair[2], int tls) {
    t_thread t;
    t_pair(pair);
    T_OK(pysock_setsockopt_int(pair[0], SOL_SOCKET, SO_RCVBUF, 65536));
    T_OK(pysock_setsockopt_int(pair[1], SOL_SOCKET, SO_SNDBUF, 262144));
    for (int i = 0; i < 2; i++)
        T_OK(pysock_settimeout(pair[i], LONG));
    if (!tls)
        return;
    wrap_half_closing(pair[1], server_ctx, NULL);
    wrap_half_closing(pair[0], client_ctx, "localhost");
    t_spawn(&t, t_handshake_thread, pair[1]);
    T_OK(pysock_ssl_do_handshake(pair[0]));
    t_join(&t);
}

static void queue_all(pysock *s) {
    pysock_buf *b = T_OK(pysock_buf_wrap(reply, SIZE, NULL, NULL));
    T_OK(pysock_setblocking(s, 0));
    T_OK(pysock_send_buf(s, b));
    pysock_buf_release(b);
}

/* The reply from an offset on, and nothing behind it but a clean end. */
static void expect_the_rest(pysock *s, size_t have) {
    ptrdiff_t n = 1;
    while (have <= SIZE && (n = pysock_recv(s, got + have, SIZE + 1 - have, 0)) > 0)
        have += (size_t)n;
    if (n < 0 || have != SIZE)
        T_FAIL("%zu of %u bytes have arrived, then: %s", have, SIZE,
               n < 0 ? pysock_error_message() : "the end");
    t_verify(got, SIZE, 0, 1);
    if (pysock_is_ssl(s) == 1)
        T_EQ(pysock_ssl_eof_is_clean(s), 1);
}

static void wait_closed(file_id f) {
    double end = t_now() + LONG;
    while (is_open(f)) {
        if (t_now() > end)
            T_FAIL("the descriptor is never closed");
        t_nap(0.005);
    }
}

/* ---- input that nobody reads ---- */

enum { A_REQUEST, A_GOODBYE, A_REQUEST_AFTER_CLOSE, UNREAD_KINDS };

static const char *const unread_names[] = {"a request", "a close_notify or FIN",
                                           "a request that comes after close"};

/* What the server will not read is in its kernel when this returns. */
static void leave_unread(pysock *pair[2], int kind) {
    t_say(pair[0], "GET");
    t_expect(pair[1], "GET");
    if (kind == A_REQUEST_AFTER_CLOSE)
        return;
    if (kind == A_REQUEST || !pysock_is_ssl(pair[0]))
        t_say(pair[0], "GET");
    if (kind == A_GOODBYE)
        T_OK(pysock_shutdown(pair[0], SHUT_WR));
    t_wait_unread(pair[1]);
}

T_TEST(what_is_queued_arrives_whatever_is_unread, 120) {
    for (int tls = 0; tls < 2; tls++)
        for (int kind = 0; kind < UNREAD_KINDS; kind++) {
            pysock *pair[2];
            T_STEP("%s, unread is %s", tls ? "TLS" : "plain", unread_names[kind]);
            make_pair(pair, tls);
            leave_unread(pair, kind);
            queue_all(pair[1]);
            T_OK(pysock_close(pair[1]));
            if (kind == A_REQUEST_AFTER_CLOSE)
                t_say(pair[0], "GET");
            expect_the_rest(pair[0], 0);
            T_OK(pysock_close(pair[0]));
        }
}

typedef struct sender {
    pysock *s;
    sem_t closed;
} sender;

static void *send_all_and_close(void *arg) {
    sender *j = arg;
    T_OK(pysock_sendall(j->s, reply, SIZE, 0));
    T_OK(pysock_close(j->s));
    sem_post(&j->closed);
    return NULL;
}

/* What the kernel has taken is still in its buffers when the socket is closed. (Of a plain socket
   the kernel's own close decides: another process may have the connection, too.) */
T_TEST(what_the_kernel_has_taken_arrives_whatever_is_unread, 120) {
    for (int tls = 1; tls < 2; tls++)
        for (int kind = 0; kind < UNREAD_KINDS; kind++) {
            pysock *pair[2];
            sender j;
            t_thread t;
            T_STEP("%s, unread is %s", tls ? "TLS" : "plain", unread_names[kind]);
            make_pair(pair, tls);
            leave_unread(pair, kind);
            j.s = pair[1];
            sem_init(&j.closed, 0, 0);
            t_spawn(&t, send_all_and_close, &j);
            t_recv_exactly(pair[0], got, SIZE - LAST);
            while (sem_wait(&j.closed) != 0)
                continue;
            if (kind == A_REQUEST_AFTER_CLOSE)
                t_say(pair[0], "GET");
            expect_the_rest(pair[0], SIZE - LAST);
            t_join(&t);
            sem_destroy(&j.closed);
            T_OK(pysock_close(pair[0]));
        }
}

/* The peer's bytes keep coming for as long as it reads. */
T_TEST(a_peer_that_goes_on_sending_gets_all, 120) {
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        size_t have = 0;
        make_pair(pair, tls);
        leave_unread(pair, A_REQUEST);
        queue_all(pair[1]);
        T_OK(pysock_close(pair[1]));
        while (have < SIZE - LAST) {
            t_recv_exactly(pair[0], got + have, LAST);
            have += LAST;
            T_OK(pysock_sendall(pair[0], reply, 1024, 0));
        }
        expect_the_rest(pair[0], have);
        T_OK(pysock_close(pair[0]));
    }
}

/* A reader that sleeps in the kernel is woken by shutdown(2): that must not cost what is queued. */
T_TEST(a_reader_in_the_kernel_does_not_cost_what_is_queued, 120) {
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        t_waiter w = {0};
        t_thread t;
        make_pair(pair, tls);
        queue_all(pair[1]);
        T_OK(pysock_settimeout(pair[1], PYSOCK_NO_TIMEOUT));
        w.what = T_WAIT_RECV;
        w.s = pair[1];
        t_spawn(&t, t_wait_thread, &w);
        t_wait_asleep(&t);
        T_OK(pysock_close(pair[1]));
        t_join(&t);
        T_EQ(w.result, -1);
        T_EQ(w.code, EBADF);
        expect_the_rest(pair[0], 0);
        T_OK(pysock_close(pair[0]));
    }
}

/* ---- the end of the process ---- */

typedef struct ending {
    int fd, tls, queued;
} ending;

static void send_close_and_exit(void *arg) {
    const ending *e = arg;
    pysock *s = T_OK(pysock_adopt(e->fd, -1, -1, -1));
    T_OK(pysock_settimeout(s, LONG));
    T_OK(pysock_setsockopt_int(s, SOL_SOCKET, SO_SNDBUF, 2 * LAST));
    if (e->tls)
        T_OK(pysock_ssl_wrap_socket(s, server_ctx, NULL));
    t_expect(s, "GET");
    t_wait_unread(s);
    if (e->queued) {
        pysock_buf *b = T_OK(pysock_buf_copy(reply, LAST));
        T_OK(pysock_setblocking(s, 0));
        T_OK(pysock_send_buf(s, b));
        pysock_buf_release(b);
    } else {
        T_OK(pysock_sendall(s, reply, LAST, 0));
    }
    T_OK(pysock_close(s));
}

T_TEST(send_close_exit_loses_nothing, 120) {
    if (T_TSAN) /* it confuses the threads of a forked child with those of its parent */
        skip();
    for (int tls = 0; tls < 2; tls++)
        for (int queued = !tls; queued < 2; queued++) { /* a plain send is the kernel's */
            int port, raw = t_raw_listen(&port);
            int fd = t_raw_connect(port);
            ending e;
            pid_t pid;
            pysock *s;
            char byte;
            T_STEP("%s, %s", tls ? "TLS" : "plain", queued ? "send_buf" : "sendall");
            e.fd = t_raw_accept(raw);
            e.tls = tls;
            e.queued = queued;
            pid = t_run_in_child(send_close_and_exit, &e, 1);
            close(e.fd);
            close(raw);
            s = T_OK(pysock_adopt(fd, -1, -1, -1));
            T_OK(pysock_settimeout(s, LONG));
            if (tls)
                T_OK(pysock_ssl_wrap_socket(s, client_ctx, "localhost"));
            t_say(s, "GET");
            t_say(s, "GET");
            t_wait_for_child(pid);
            t_recv_exactly(s, got, LAST);
            t_verify(got, LAST, 0, 1);
            T_EQ(pysock_recv(s, &byte, 1, 0), 0);
            if (tls)
                T_EQ(pysock_ssl_eof_is_clean(s), 1);
            T_OK(pysock_close(s));
        }
}

/* The same for what is open when an interpreter ends: the peer is another's. */
T_TEST(a_cleanup_loses_nothing_of_what_is_out, 120) {
    for (int tls = 0; tls < 2; tls++)
        for (int closed = 0; closed < 2; closed++) {
            pysock_state *st = T_OK(pysock_state_new()), *before;
            int port, raw = t_raw_listen(&port), fd, mine;
            file_id file;
            pysock *pair[2];
            pysock_buf *b;
            t_thread t;
            char byte;
            T_STEP("%s, %s", tls ? "TLS" : "plain", closed ? "closed before" : "open");
            fd = t_raw_connect(port);
            mine = t_raw_accept(raw);
            close(raw);
            pair[0] = T_OK(pysock_adopt(fd, -1, -1, -1));
            before = pysock_state_swap(st);
            pair[1] = T_OK(pysock_adopt(mine, -1, -1, -1));
            pysock_state_swap(before);
            for (int i = 0; i < 2; i++)
                T_OK(pysock_settimeout(pair[i], LONG));
            T_OK(pysock_setsockopt_int(pair[1], SOL_SOCKET, SO_SNDBUF, 2 * LAST));
            if (tls) {
                wrap_half_closing(pair[1], server_ctx, NULL);
                wrap_half_closing(pair[0], client_ctx, "localhost");
                t_spawn(&t, t_handshake_thread, pair[1]);
                T_OK(pysock_ssl_do_handshake(pair[0]));
                t_join(&t);
            }
            leave_unread(pair, A_REQUEST);
            b = T_OK(pysock_buf_copy(reply, LAST));
            T_OK(pysock_send_buf(pair[1], b));
            pysock_buf_release(b);
            file = file_of(pair[1]);
            if (closed)
                T_OK(pysock_close(pair[1]));
            pysock_state_cleanup(st);
            T_CHECK(!is_open(file));
            t_recv_exactly(pair[0], got, LAST);
            t_verify(got, LAST, 0, 1);
            T_EQ(pysock_recv(pair[0], &byte, 1, 0), 0);
            T_OK(pysock_close(pair[0]));
            pysock_state_free(st);
        }
}

/* A peer that reads nothing and never ends costs a cleanup its bound, and no more. */
T_TEST(a_cleanup_does_not_wait_for_a_silent_peer, 120) {
    for (int closed = 0; closed < 2; closed++) {
        pysock_state *st = T_OK(pysock_state_new()), *before;
        int port, raw = t_raw_listen(&port), fd = t_raw_connect(port), mine = t_raw_accept(raw);
        struct linger linger = {1, 600};
        file_id file;
        double start;
        pysock *s;
        close(raw);
        before = pysock_state_swap(st);
        s = T_OK(pysock_adopt(mine, -1, -1, -1));
        pysock_state_swap(before);
        t_raw_write(fd, "GET", 3);
        t_wait_unread(s);
        T_OK(pysock_setsockopt(s, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
        queue_all(s);
        file = file_of(s);
        if (closed)
            T_OK(pysock_close(s));
        start = t_now();
        pysock_state_cleanup(st);
        T_CHECK(t_now() - start < LONG);
        T_CHECK(!is_open(file));
        close(fd);
        pysock_state_free(st);
    }
}

/* ---- when close has nothing to wait for ---- */

static void wait_acknowledged(pysock *s) {
    int n = 1;
    while (n > 0) {
        T_EQ(ioctl(pysock_fileno(s), SIOCOUTQ, &n), 0);
        t_nap(0.002);
    }
}

static void *do_nothing(void *arg) {
    return arg;
}

/* How many threads there are without the library's. One that was joined may still be listed, and a
   sanitizer brings one of its own with the first. */
static int count_threads_without_ours(void) {
    t_thread first;
    int last = 0;
    t_spawn(&first, do_nothing, NULL);
    t_join(&first);
    pysock_cleanup();
    for (int same = 0; same < 10;) {
        int now = t_count_threads();
        same = now == last ? same + 1 : 0;
        last = now;
        t_nap(0.01);
    }
    return last;
}

/* The library's would stay. */
static void must_settle_at(int threads) {
    double end = t_now() + LONG;
    while (t_count_threads() > threads) {
        if (t_now() > end)
            T_FAIL("there are %d threads, not %d", t_count_threads(), threads);
        t_nap(0.002);
    }
}

/* The library lingers only where output is not acknowledged and input can still come. */
T_TEST(close_starts_no_thread_where_all_has_arrived, 60) {
    int threads;
    threads = count_threads_without_ours();
    for (int leftover = 0; leftover < 2; leftover++) {
        pysock *pair[2];
        file_id file;
        t_pair(pair);
        file = file_of(pair[1]);
        t_say(pair[0], "GET");
        t_expect(pair[1], "GET");
        t_say(pair[1], "reply");
        t_expect(pair[0], "reply");
        if (leftover) {
            t_say(pair[0], "GET");
            t_wait_unread(pair[1]);
        }
        wait_acknowledged(pair[1]);
        T_OK(pysock_close(pair[1]));
        T_CHECK(!is_open(file));
        must_settle_at(threads);
        T_OK(pysock_close(pair[0]));
    }
}

T_TEST(close_starts_no_thread_where_the_peer_has_ended, 60) {
    int threads;
    threads = count_threads_without_ours();
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        char byte;
        file_id file;
        make_pair(pair, tls);
        file = file_of(pair[1]);
        T_OK(pysock_shutdown(pair[0], SHUT_WR));
        T_EQ(pysock_recv(pair[1], &byte, 1, 0), 0);
        if (tls) { /* the FIN behind the close_notify */
            struct pollfd p = {file.fd, POLLRDHUP, 0};
            T_EQ(poll(&p, 1, (int)(LONG * 1000)), 1);
        }
        T_OK(pysock_sendall(pair[1], "reply", 5, 0));
        T_OK(pysock_close(pair[1]));
        T_CHECK(!is_open(file));
        must_settle_at(threads);
        t_expect(pair[0], "reply");
        T_EQ(pysock_recv(pair[0], &byte, 1, 0), 0);
        T_OK(pysock_close(pair[0]));
    }
}

/* ---- SO_LINGER ---- */

static void one_handshake_by_the_reactor(void) {
    pysock *pair[2];
    t_pair(pair);
    for (int i = 0; i < 2; i++) {
        T_OK(pysock_setblocking(pair[i], 0));
        T_OK(pysock_ssl_wrap_socket(pair[i], i ? server_ctx : client_ctx, i ? NULL : "localhost"));
    }
    T_CHECK(t_writable(pair[0], LONG));
    T_EQ(pysock_ssl_do_handshake(pair[0]), 0);
    t_close_pair(pair);
}

/* The kernel would sleep in close(2) for ten minutes: nobody must, neither the caller of close nor
   the reactor, which has other sockets to look after. */
T_TEST(SO_LINGER_does_not_stop_the_reactor, 120) {
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        file_id file;
        make_pair(pair, tls);
        file = file_of(pair[1]);
        t_set_linger(pair[1], 600);
        queue_all(pair[1]);
        T_OK(pysock_close(pair[1]));
        one_handshake_by_the_reactor();
        wait_closed(file); /* the peer reads nothing: by the close deadline */
        one_handshake_by_the_reactor();
        T_OK(pysock_close(pair[0]));
    }
}

T_TEST(SO_LINGER_lets_the_output_arrive, 120) {
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        make_pair(pair, tls);
        leave_unread(pair, A_REQUEST);
        t_set_linger(pair[1], 600);
        queue_all(pair[1]);
        T_OK(pysock_close(pair[1]));
        expect_the_rest(pair[0], 0);
        T_OK(pysock_close(pair[0]));
    }
}

/* Nothing is waited for, and the peer sees a reset. */
T_TEST(SO_LINGER_of_no_seconds_aborts, 120) {
    for (int tls = 0; tls < 2; tls++)
        for (int queued = 0; queued < 2; queued++) {
            pysock *pair[2];
            int error = 0;
            file_id file;
            struct pollfd p;
            socklen_t len = sizeof error;
            T_STEP("%s, %s", tls ? "TLS" : "plain", queued ? "queued output" : "idle");
            make_pair(pair, tls);
            file = file_of(pair[1]);
            if (queued)
                queue_all(pair[1]);
            t_set_linger(pair[1], 0);
            pysock_close(pair[1]); /* may report the loss */
            wait_closed(file);
            p.fd = pysock_fileno(pair[0]);
            p.events = 0;
            T_EQ(poll(&p, 1, (int)(LONG * 1000)), 1);
            T_CHECK(p.revents & POLLERR);
            T_EQ(getsockopt(p.fd, SOL_SOCKET, SO_ERROR, &error, &len), 0);
            T_EQ(error, ECONNRESET);
            T_OK(pysock_close(pair[0]));
        }
}

/* ---- output that was lost ---- */

typedef struct loss {
    int tls, local, by_send;
} loss;

/* Output is queued, or half of a record is out, when the peer resets the connection. */
static pysock *lose_output(const loss *l) {
    pysock *pair[2];
    if (l->local)
        T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    else
        t_pair(pair);
    if (l->tls)
        t_wrap_pair(pair, client_ctx, server_ctx);
    if (l->by_send) {
        T_OK(pysock_setblocking(pair[0], 0));
        while (pysock_send(pair[0], reply, SIZE, 0) > 0)
            continue;
        T_EQ(errno, EAGAIN);
    } else {
        queue_all(pair[0]);
    }
    t_set_linger(pair[1], 0);
    pysock_close(pair[1]);
    return pair[0];
}

/* Until the library has met the reset: what was queued is gone. */
static void wait_lost(pysock *s) {
    while (T_OK(pysock_queued(s)) > 0)
        t_nap(0.002);
}

/* POLLERR is asked for by nobody, and comes. */
static void wait_for_POLLERR(pysock *s, short events) {
    double end = t_now() + LONG;
    struct pollfd p;
    p.fd = pysock_fileno(s);
    p.events = events;
    for (;;) {
        p.revents = 0;
        T_OK(pysock_poll(&p, 1, 1.0));
        if (p.revents & POLLERR)
            return;
        if (t_now() > end)
            T_FAIL("POLLERR is never told: revents 0x%x", (unsigned)p.revents);
        t_nap(0.002);
    }
}

T_TEST(every_call_about_output_reports_a_loss, 200) {
    for (int i = 0; i < 8; i++)
        for (int teller = 0; teller < TELLERS; teller++) {
            loss l;
            pysock *s;
            l.tls = i & 1;
            l.local = i >> 1 & 1;
            l.by_send = i >> 2 & 1;
            if (l.by_send && (!l.tls || teller == BY_CLOSE))
                continue; /* what the kernel has is not the library's; nor is it queued */
            T_STEP("%s, %s, %s, told by %s", l.tls ? "TLS" : "plain", l.local ? "Unix" : "TCP",
                   l.by_send ? "send" : "send_buf", teller_names[teller]);
            s = lose_output(&l);
            wait_lost(s);
            if (l.by_send)
                wait_for_POLLERR(s, 0);
            must_tell(s, (told_by)teller);
            if (teller == BY_CLOSE)
                T_FAILS(pysock_fileno(s), PYSOCK_OS_ERROR, EBADF);
            pysock_close(s);
        }
}

/* That a reader has heard of the reset does not make up for it. */
T_TEST(a_loss_is_reported_after_recv_has_said_why, 120) {
    for (int tls = 0; tls < 2; tls++)
        for (int teller = 0; teller <= BY_CLOSE; teller++) {
            loss l = {0};
            pysock *s;
            ptrdiff_t n;
            char buf[256];
            l.tls = tls;
            T_STEP("%s, %s", tls ? "TLS" : "plain", teller_names[teller]);
            s = lose_output(&l);
            T_OK(pysock_settimeout(s, LONG));
            while ((n = pysock_recv(s, buf, sizeof buf, 0)) > 0)
                continue;
            wait_lost(s);
            must_tell(s, (told_by)teller);
            pysock_close(s);
        }
}

T_TEST(an_unwrap_reports_a_loss, 60) {
    loss l = {1, 0, 0};
    pysock *s;
    s = lose_output(&l);
    wait_for_POLLERR(s, 0);
    T_OK(pysock_settimeout(s, LONG));
    T_EQ(pysock_ssl_unwrap(s), -1);
    T_CHECK(errno == ECONNRESET || errno == EPIPE || errno == EPROTO);
    pysock_close(s);
}

T_TEST(POLLERR_comes_whatever_was_asked_for, 120) {
    static const short asked[] = {0, POLLIN, POLLOUT, POLLIN | POLLOUT, POLLPRI};
    for (int tls = 0; tls < 2; tls++)
        for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++)
            for (int by_poller = 0; by_poller < 2; by_poller++) {
                loss l = {0};
                pysock *s;
                l.tls = tls;
                T_STEP("%s, events 0x%x, %s", tls ? "TLS" : "plain", (unsigned)asked[i],
                       by_poller ? "poller" : "poll");
                s = lose_output(&l);
                wait_lost(s);
                if (by_poller) {
                    pysock_poller *p = t_poller_with(pysock_fileno(s), asked[i]);
                    pysock_pollevent event = {0, 0, NULL};
                    T_EQ(pysock_poller_poll(p, &event, 1, LONG), 1);
                    T_CHECK(event.events & POLLERR);
                    pysock_poller_release(p);
                } else {
                    struct pollfd f = {pysock_fileno(s), asked[i], 0};
                    T_EQ(pysock_poll(&f, 1, LONG), 1);
                    T_CHECK(f.revents & POLLERR);
                }
                pysock_close(s);
            }
}

/* A close that can still hope reports nothing. */
T_TEST(a_close_with_output_under_way_succeeds, 60) {
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        make_pair(pair, tls);
        queue_all(pair[1]);
        T_EQ(pysock_close(pair[1]), 0);
        expect_the_rest(pair[0], 0);
        T_OK(pysock_close(pair[0]));
    }
}

T_MAIN(.setup = set_up, .teardown = free_contexts)
