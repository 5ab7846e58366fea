/* Waits in hard places: threads that are cancelled in one, sockets with SO_SNDTIMEO, no descriptor
   left, many threads at once, a low watermark of 0; and what ThreadSanitizer sees. */
#include "support/contexts.h"

#define LONG T_SCALE(30.0, 60.0)

/* ---- pthread_cancel ----
   Calls are no cancellation points: one that waits ends as it would have, and its thread at the
   next point of the program's own. */

typedef struct cancelled {
    t_stage stage;
    t_thread thread;
    int returned, survived;
    int old_state; /* PTHREAD_CANCEL_..., behind the call */
    int disabled;  /* the caller has disabled cancellation itself */
} cancelled;

static void *wait_and_be_cancelled(void *arg) {
    cancelled *c = arg;
    int old;
    if (c->disabled)
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
    t_wait_thread(&c->stage.w);
    c->returned = 1;
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &c->old_state);
    pthread_testcancel();
    c->survived = 1;
    return NULL;
}

static void *answer_handshake(void *arg) {
    pysock_ssl_wrap_socket(arg, server_ctx, NULL); /* fails when the client is closed behind it */
    return NULL;
}

/* Ends the wait by what it waits for, where that is easy. 0: the call fails with EBADF. */
static int end_wait(cancelled *c) {
    switch (c->stage.w.what) {
    case T_WAIT_RECV:
    case T_WAIT_SELECT:
    case T_WAIT_POLLER: t_say(c->stage.peer, "x"); return 1;
    case T_WAIT_ACCEPT: close(t_raw_connect(c->stage.w.port)); return 1;
    case T_WAIT_HANDSHAKE: {
        t_thread t;
        t_spawn(&t, answer_handshake, c->stage.peer);
        t_join(&t);
        return 1;
    }
    default: T_OK(pysock_close(c->stage.w.s)); return 0;
    }
}

static void cancel_in(t_wait_kind what, int tls, double timeout, int disabled) {
    static cancelled c;
    int good;
    memset(&c, 0, sizeof c);
    c.disabled = disabled;
    t_stage_set(&c.stage, what, tls, timeout, client_ctx, server_ctx);
    t_spawn(&c.thread, wait_and_be_cancelled, &c);
    t_wait_asleep(&c.thread);
    T_EQ(pthread_cancel(c.thread.id), 0);
    good = end_wait(&c);
    T_CHECK(t_join(&c.thread) == PTHREAD_CANCELED);
    if (!c.returned)
        T_FAIL("the thread was cancelled inside the call");
    T_EQ(c.survived, 0);
    T_EQ(c.old_state, disabled ? PTHREAD_CANCEL_DISABLE : PTHREAD_CANCEL_ENABLE);
    if (good) {
        T_CHECK(c.stage.w.result >= 0);
    } else {
        T_EQ(c.stage.w.result, -1);
        T_EQ(c.stage.w.code, EBADF);
    }
    /* The socket is of use to others. */
    if (what == T_WAIT_SELECT || what == T_WAIT_POLLER)
        t_expect(c.stage.w.s, "x");
    if (what == T_WAIT_RECV || what == T_WAIT_SELECT || what == T_WAIT_POLLER) {
        t_say(c.stage.peer, "more");
        T_CHECK(t_readable(c.stage.w.s, LONG));
        t_expect(c.stage.w.s, "more");
        t_say(c.stage.w.s, "back");
        t_expect(c.stage.peer, "back");
    }
    t_stage_clear(&c.stage);
}

T_TEST(a_cancelled_thread_ends_behind_the_call_it_waits_in, 240) {
    for (int what = T_WAIT_RECV; what <= T_WAIT_POLLER; what++)
        for (int tls = 0; tls < 2; tls++)
            for (int timed = 0; timed < 2; timed++) {
                if (!tls && (what == T_WAIT_HANDSHAKE || what == T_WAIT_UNWRAP))
                    continue;
                T_STEP("wait %d, %s, %s", what, tls ? "TLS" : "plain", timed ? "timed" : "not");
                cancel_in((t_wait_kind)what, tls, timed ? 600.0 : PYSOCK_NO_TIMEOUT, 0);
            }
}

T_TEST(the_callers_own_cancel_state_is_restored, 60) {
    cancel_in(T_WAIT_RECV, 0, 600.0, 1);
    cancel_in(T_WAIT_RECV, 1, PYSOCK_NO_TIMEOUT, 1);
    cancel_in(T_WAIT_SELECT, 1, PYSOCK_NO_TIMEOUT, 1);
}

typedef struct pending {
    pysock *pair[2];
    int port;
    int files; /* 1: the calls that read files, too */
    int done;
} pending;

/* Cancelled already, it goes through calls that wait, or might. */
static void *use_while_cancelled(void *arg) {
    pending *p = arg;
    pysock_addrinfo *list = NULL;
    pysock_poller *poller;
    pysock_pollevent event;
    struct pollfd f;
    size_t n = 1;
    int fd;
    char buf[8];
    pthread_cancel(pthread_self());
    if (p->files) {
        pysock_ssl_context_release(t_server_ctx());
        pysock_ssl_context_release(t_client_ctx());
        T_CHECK(T_OK(pysock_getaddrinfo("localhost", "80", 0, SOCK_STREAM, 0, 0, &list)) > 0);
        pysock_freeaddrinfo(list);
    } else {
        pysock *s = T_OK(pysock_create_connection("127.0.0.1", p->port, LONG));
        T_OK(pysock_close(s));
        T_OK(pysock_settimeout(p->pair[0], LONG));
        T_EQ(pysock_send(p->pair[0], "abcd", 4, 0), 4);
        fd = pysock_fileno(p->pair[1]);
        T_EQ(pysock_select(&fd, &n, NULL, NULL, NULL, NULL, LONG), 1);
        f.fd = fd;
        f.events = POLLIN;
        T_EQ(pysock_poll(&f, 1, LONG), 1);
        poller = t_poller_with(fd, POLLIN);
        T_EQ(pysock_poller_poll(poller, &event, 1, LONG), 1);
        pysock_poller_release(poller);
        T_OK(pysock_settimeout(p->pair[1], LONG));
        T_EQ(pysock_recv(p->pair[1], buf, 4, 0), 4);
        T_OK(pysock_close(p->pair[0]));
        T_EQ(pysock_recv(p->pair[1], buf, 4, 0), 0);
    }
    p->done = 1;
    pthread_testcancel();
    p->done = 2;
    return NULL;
}

static void pass_while_cancelled(int tls, int files) {
    static pending p;
    pysock *listener;
    t_thread t;
    memset(&p, 0, sizeof p);
    p.files = files;
    listener = t_listen(&p.port);
    t_pair(p.pair);
    if (tls)
        t_wrap_pair(p.pair, client_ctx, server_ctx);
    t_spawn(&t, use_while_cancelled, &p);
    T_CHECK(t_join(&t) == PTHREAD_CANCELED);
    T_EQ(p.done, 1);
    t_close_pair(p.pair);
    T_OK(pysock_close(listener));
}

T_TEST(calls_are_no_cancellation_points, 60) {
    pass_while_cancelled(0, 0);
    pass_while_cancelled(1, 0);
}

/* Nor are those that read files. */
T_TEST(calls_that_read_files_are_no_cancellation_points, 60) {
    pass_while_cancelled(0, 1);
}

/* ---- SO_SNDTIMEO and SO_RCVTIMEO ---- */

/* On a blocking socket each send of it ends with EAGAIN, as the kernel has it on plain ones. */
T_TEST(a_blocking_send_obeys_SO_SNDTIMEO, 120) {
    static const t_wait_kind kinds[] = {T_WAIT_SENDALL, T_WAIT_SEND_BUF};
    struct timeval tv = {0, 200000};
    for (int tls = 0; tls < 2; tls++)
        for (int i = 0; i < 2; i++) {
            t_stage st;
            double start;
            T_STEP("%s, %s", tls ? "TLS" : "plain", i ? "send_buf" : "sendall");
            t_stage_set(&st, kinds[i], tls, PYSOCK_NO_TIMEOUT, client_ctx, server_ctx);
            T_OK(pysock_setsockopt(st.w.s, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv));
            start = t_now();
            t_wait_thread(&st.w);
            T_EQ(st.w.result, -1);
            T_EQ(st.w.code, EAGAIN);
            T_EQ(st.w.kind, PYSOCK_OS_ERROR);
            T_CHECK(t_now() - start < LONG);
            T_CHECK(pysock_fileno(st.w.s) >= 0);
            t_stage_clear(&st);
        }
}

T_TEST(each_TLS_send_obeys_SO_SNDTIMEO, 60) {
    struct timeval tv = {0, 100000};
    pysock *pair[2];
    ptrdiff_t n;
    t_tls_pair(pair, client_ctx, server_ctx);
    T_OK(pysock_setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv));
    while ((n = pysock_send(pair[0], t_flood(), 65536, 0)) > 0)
        continue;
    T_EQ(n, -1);
    T_EQ(errno, EAGAIN);
    T_FAILS(pysock_send(pair[0], "x", 1, 0), PYSOCK_OS_ERROR, EAGAIN);
    t_close_pair(pair);
}

T_TEST(a_blocking_recv_obeys_SO_RCVTIMEO, 60) {
    struct timeval tv = {0, 100000};
    char byte;
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        t_pair(pair);
        if (tls)
            t_wrap_pair(pair, client_ctx, server_ctx);
        T_OK(pysock_setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
        T_FAILS(pysock_recv(pair[0], &byte, 1, 0), PYSOCK_OS_ERROR, EAGAIN);
        t_say(pair[1], "x");
        t_expect(pair[0], "x");
        t_close_pair(pair);
    }
}

/* A timeout of the library's own is the one that counts. */
T_TEST(a_timeout_is_longer_than_SO_SNDTIMEO, 60) {
    struct timeval tv = {0, 1000};
    pysock *pair[2];
    ptrdiff_t n;
    t_tls_pair(pair, client_ctx, server_ctx);
    T_OK(pysock_settimeout(pair[0], 0.3));
    T_OK(pysock_setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv));
    while ((n = pysock_send(pair[0], t_flood(), 65536, 0)) > 0)
        continue;
    T_EQ(n, -1);
    T_EQ(errno, ETIMEDOUT);
    T_EQ(pysock_error(), PYSOCK_TIMEOUT_ERROR);
    t_close_pair(pair);
}

/* ---- no descriptor left ---- */

typedef struct scarce {
    pysock *pair[2], *tls[2];
    pysock_poller *poller;
} scarce;

static void use_every_descriptor(void) {
    struct rlimit limit;
    T_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = 256;
    T_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    while (dup(0) >= 0)
        continue;
    T_EQ(errno, EMFILE);
}

/* It has never waited, and waits now: in vain first, and then not. */
static void *wait_without_a_descriptor(void *arg) {
    scarce *s = arg;
    int fd = pysock_fileno(s->pair[0]);
    size_t n = 1;
    struct pollfd f;
    pysock_pollevent event;
    f.fd = fd;
    f.events = POLLIN;
    T_EQ(pysock_select(&fd, &n, NULL, NULL, NULL, NULL, 0.05), 0);
    T_EQ(pysock_poll(&f, 1, 0.05), 0);
    T_EQ(pysock_poller_poll(s->poller, &event, 1, 0.05), 0);
    t_say(s->pair[1], "abc");
    fd = f.fd;
    n = 1;
    T_EQ(pysock_select(&fd, &n, NULL, NULL, NULL, NULL, LONG), 1);
    T_EQ(pysock_poll(&f, 1, LONG), 1);
    T_EQ(pysock_poller_poll(s->poller, &event, 1, LONG), 1);
    t_expect(s->pair[0], "abc");
    return NULL;
}

static void *recv_without_a_descriptor(void *arg) {
    scarce *s = arg;
    char byte;
    T_OK(pysock_settimeout(s->pair[0], 0.05));
    T_FAILS(pysock_recv(s->pair[0], &byte, 1, 0), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    T_OK(pysock_settimeout(s->tls[0], 0.05));
    T_FAILS(pysock_recv(s->tls[0], &byte, 1, 0), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    t_say(s->tls[1], "x");
    T_OK(pysock_settimeout(s->tls[0], LONG));
    t_expect(s->tls[0], "x");
    return NULL;
}

static void at_the_descriptor_limit(void *arg) {
    void *(*run)(void *) = *(void *(**)(void *))arg;
    scarce s;
    t_thread t;
    t_pair(s.pair);
    t_tls_pair(s.tls, client_ctx, server_ctx);
    s.poller = t_poller_with(pysock_fileno(s.pair[0]), POLLIN);
    use_every_descriptor();
    t_spawn(&t, run, &s);
    t_join(&t);
}

T_TEST(a_thread_waits_first_when_no_descriptor_is_left, 60) {
    void *(*run)(void *) = wait_without_a_descriptor;
    if (T_TSAN) /* it confuses the threads of a forked child with those of its parent */
        skip();
    t_wait_for_child(t_run_in_child(at_the_descriptor_limit, &run, 0));
}

T_TEST(a_timed_recv_works_when_no_descriptor_is_left, 60) {
    void *(*run)(void *) = recv_without_a_descriptor;
    if (T_TSAN) /* it confuses the threads of a forked child with those of its parent */
        skip();
    t_wait_for_child(t_run_in_child(at_the_descriptor_limit, &run, 0));
}

/* ---- descriptors of waits ---- */

static unsigned char big[65536];

#define CROWD 24
#define A_FEW 3 /* that they may share */

typedef enum crowd_end { BY_DATA, BY_CLOSE, BY_CLEANUP, CROWD_ENDS } crowd_end;

static void a_crowd_waits(t_wait_kind what, int tls, double timeout, crowd_end end) {
    static t_stage st[CROWD];
    static t_thread t[CROWD];
    int before;
    for (int i = 0; i < CROWD; i++)
        t_stage_set(&st[i], what, tls, timeout, client_ctx, server_ctx);
    before = t_count_fds();
    for (int i = 0; i < CROWD; i++)
        t_spawn(&t[i], t_wait_thread, &st[i].w);
    for (int i = 0; i < CROWD; i++)
        t_wait_asleep(&t[i]);
    if (t_count_fds() > before + A_FEW)
        T_FAIL("%d threads that wait cost %d descriptors", CROWD, t_count_fds() - before);
    if (end == BY_CLEANUP)
        pysock_cleanup();
    for (int i = 0; i < CROWD; i++) {
        if (end == BY_DATA)
            t_say(st[i].peer, "x");
        if (end == BY_CLOSE)
            T_OK(pysock_close(st[i].w.s));
        t_join(&t[i]);
        T_EQ(st[i].w.result, end == BY_DATA ? 1 : -1);
        if (end != BY_DATA)
            T_EQ(st[i].w.code, end == BY_CLOSE ? EBADF : ESHUTDOWN);
        t_stage_clear(&st[i]);
    }
}

T_TEST(a_timed_TLS_recv_costs_no_descriptor, 120) {
    for (int end = 0; end < CROWD_ENDS; end++) {
        T_STEP("end %d", end);
        a_crowd_waits(T_WAIT_RECV, 1, 600.0, (crowd_end)end);
    }
}

T_TEST(an_untimed_TLS_recv_costs_no_descriptor, 120) {
    for (int end = 0; end < CROWD_ENDS; end++) {
        T_STEP("end %d", end);
        a_crowd_waits(T_WAIT_RECV, 1, PYSOCK_NO_TIMEOUT, (crowd_end)end);
    }
}

T_TEST(a_timed_plain_recv_costs_no_descriptor, 120) {
    for (int end = 0; end < CROWD_ENDS; end++) {
        T_STEP("end %d", end);
        a_crowd_waits(T_WAIT_RECV, 0, 600.0, (crowd_end)end);
    }
}

T_TEST(a_timed_handshake_costs_no_descriptor, 120) {
    a_crowd_waits(T_WAIT_HANDSHAKE, 1, 600.0, BY_CLOSE);
    a_crowd_waits(T_WAIT_HANDSHAKE, 1, 600.0, BY_CLEANUP);
}

T_TEST(a_timed_TLS_sendall_costs_no_descriptor, 120) {
    a_crowd_waits(T_WAIT_SENDALL, 1, 600.0, BY_CLOSE);
    a_crowd_waits(T_WAIT_SENDALL, 1, 600.0, BY_CLEANUP);
}

/* Then poll reports the end of input whenever it is asked: the call must still sleep, and be woken
   by a close as well as by room. */
T_TEST(a_TLS_sendall_sleeps_when_the_peer_has_half_closed, 120) {
    for (int by_close = 0; by_close < 2; by_close++) {
        t_stage st;
        t_thread t;
        T_STEP("%s", by_close ? "close" : "room");
        t_stage_set(&st, T_WAIT_SENDALL, 1, 600.0, client_ctx, server_ctx);
        T_OK(shutdown(pysock_fileno(st.peer), SHUT_WR));
        t_spawn(&t, t_wait_thread, &st.w);
        t_wait_asleep(&t);
        if (by_close)
            T_OK(pysock_close(st.w.s));
        else
            for (size_t got = 0; got < T_FLOOD;)
                got += (size_t)T_OK(pysock_recv(st.peer, big, sizeof big, 0));
        t_join(&t);
        T_EQ(st.w.result, by_close ? -1 : 0);
        t_stage_clear(&st);
    }
}

/* The call has records that the kernel has not taken, and keeps others from sending them. */
T_TEST(what_a_broken_off_TLS_sendall_has_sent_arrives_whole, 120) {
    t_stage st;
    t_thread t;
    ptrdiff_t n;
    t_stage_set(&st, T_WAIT_SENDALL, 1, 600.0, client_ctx, server_ctx);
    t_spawn(&t, t_wait_thread, &st.w);
    t_wait_asleep(&t);
    T_OK(pysock_close(st.w.s));
    t_join(&t);
    T_EQ(st.w.result, -1);
    while ((n = pysock_recv(st.peer, big, sizeof big, 0)) > 0)
        continue;
    T_EQ(n, 0);
    T_EQ(pysock_ssl_eof_is_clean(st.peer), 1);
    t_stage_clear(&st);
}

/* ---- a low watermark of 0 ---- */

#define BLOCK 500000

/* The kernel has room for much less than a block, now and later. */
static void narrow_pair(pysock *pair[2], int tls) {
    t_pair(pair);
    T_OK(pysock_setsockopt_int(pair[0], SOL_SOCKET, SO_SNDBUF, 16384));
    T_OK(pysock_setsockopt_int(pair[1], SOL_SOCKET, SO_RCVBUF, 16384));
    if (tls)
        t_wrap_pair(pair, client_ctx, server_ctx);
}

static void fill(pysock *s, size_t *total) {
    pysock_buf *b = T_OK(pysock_buf_new(BLOCK));
    T_OK(pysock_setblocking(s, 0));
    while (pysock_send_buf(s, b) == 0)
        *total += BLOCK;
    T_EQ(errno, EAGAIN);
    pysock_buf_release(b);
}

static void read_so_much(pysock *s, size_t total) {
    static char buf[65536];
    while (total > 0)
        total -= (size_t)T_OK(pysock_recv(s, buf, total < sizeof buf ? total : sizeof buf, 0));
}

static const struct {
    size_t low, high;
} marks[] = {{0, 1000000}, {0, 1}, {1, 1}, {1, 1000000}, {1000000, 1000000}};

T_TEST(a_low_watermark_of_0_means_empty, 120) {
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++)
        for (int tls = 0; tls < 2; tls++) {
            pysock *pair[2];
            pysock_buf *b = T_OK(pysock_buf_copy("x", 1));
            pysock_poller *p;
            pysock_pollevent event;
            size_t total = 0;
            T_STEP("%zu and %zu, %s", marks[i].low, marks[i].high, tls ? "TLS" : "plain");
            narrow_pair(pair, tls);
            T_OK(pysock_set_watermarks(pair[0], marks[i].low, marks[i].high));
            T_CHECK(t_writable(pair[0], LONG)); /* nothing is queued */
            fill(pair[0], &total);
            T_CHECK(!t_writable(pair[0], 0));
            read_so_much(pair[1], total);
            T_CHECK(t_writable(pair[0], LONG));
            T_EQ(pysock_queued(pair[0]), 0);
            p = t_poller_with(pysock_fileno(pair[0]), POLLOUT);
            T_EQ(pysock_poller_poll(p, &event, 1, LONG), 1);
            T_OK(pysock_send_buf(pair[0], b));
            t_expect(pair[1], "x");
            T_OK(pysock_settimeout(pair[0], LONG));
            T_OK(pysock_send_buf(pair[0], b));
            t_expect(pair[1], "x");
            pysock_poller_release(p);
            pysock_buf_release(b);
            t_close_pair(pair);
        }
}

T_TEST(a_timed_send_buf_keeps_its_timeout_at_any_watermark, 120) {
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++)
        for (int tls = 0; tls < 2; tls++) {
            pysock *pair[2];
            pysock_buf *b = T_OK(pysock_buf_copy("x", 1));
            size_t total = 0;
            double cpu, start;
            T_STEP("%zu and %zu, %s", marks[i].low, marks[i].high, tls ? "TLS" : "plain");
            narrow_pair(pair, tls);
            T_OK(pysock_set_watermarks(pair[0], marks[i].low, marks[i].high));
            fill(pair[0], &total);
            T_OK(pysock_settimeout(pair[0], 0.5));
            start = t_now();
            cpu = t_thread_cpu();
            T_FAILS(pysock_send_buf(pair[0], b), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
            T_CHECK(t_now() - start > 0.4);
            T_CHECK(t_thread_cpu() - cpu < 0.25);
            pysock_buf_release(b);
            t_close_pair(pair);
        }
}

static void *send_a_buf(void *arg) {
    pysock_buf *b = T_OK(pysock_buf_copy("x", 1));
    T_OK(pysock_send_buf(arg, b));
    pysock_buf_release(b);
    return NULL;
}

T_TEST(a_send_buf_that_waits_goes_on_at_any_watermark, 120) {
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++)
        for (int timed = 0; timed < 2; timed++) {
            pysock *pair[2];
            size_t total = 0;
            t_thread t;
            T_STEP("%zu and %zu, %s", marks[i].low, marks[i].high, timed ? "timed" : "not");
            narrow_pair(pair, 0);
            T_OK(pysock_set_watermarks(pair[0], marks[i].low, marks[i].high));
            fill(pair[0], &total);
            T_OK(pysock_settimeout(pair[0], timed ? LONG : PYSOCK_NO_TIMEOUT));
            t_spawn(&t, send_a_buf, pair[0]);
            t_wait_asleep(&t);
            read_so_much(pair[1], total + 1);
            t_join(&t);
            t_close_pair(pair);
        }
}

/* ---- contexts and pollers that threads share ---- */

T_TEST(a_context_may_be_set_while_the_reactor_shakes_hands, 120) {
    pysock_ssl_session *session;
    pysock *pair[2];
    int set = 0, late = 0;
    t_tls_local_pair(pair, client_ctx, server_ctx);
    session = T_OK(pysock_ssl_get_session(pair[0]));
    t_close_pair(pair);
    for (int i = 0; i < T_SCALE(100, 50); i++) {
        T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
        for (int k = 0; k < 2; k++)
            T_OK(pysock_setblocking(pair[k], 0));
        T_OK(pysock_ssl_wrap_socket(pair[1], server_ctx, NULL));
        T_OK(pysock_ssl_wrap_socket(pair[0], client_ctx, "localhost"));
        for (int k = 0; k < 30; k++) {
            if (pysock_ssl_set_context(pair[1], server_ctx) == 0)
                set++;
            else
                T_EQ(errno, EALREADY);
            if (pysock_ssl_set_context(pair[0], client_ctx) < 0)
                T_EQ(errno, EALREADY);
            if (pysock_ssl_set_session(pair[0], session) < 0) {
                T_EQ(pysock_error(), PYSOCK_VALUE_ERROR);
                late++;
            }
        }
        for (int k = 0; k < 2; k++)
            T_CHECK(t_writable(pair[k], LONG));
        T_EQ(pysock_ssl_do_handshake(pair[0]), 0);
        T_EQ(pysock_ssl_do_handshake(pair[1]), 0);
        T_EQ(pysock_ssl_set_context(pair[0], client_ctx), -1);
        T_EQ(errno, EALREADY);
        t_close_pair(pair);
    }
    T_CHECK(set + late > 0);
    pysock_ssl_session_release(session);
}

static void *make_pollers(void *arg) {
    (void)arg;
    for (int i = 0; i < T_SCALE(2000, 500); i++)
        pysock_poller_release(T_OK(pysock_poller_new()));
    return NULL;
}

static void *look_for_pollers(void *arg) {
    int fd = T_OK(pysock_poller_fileno(arg));
    for (int i = 0; i < T_SCALE(2000, 500); i++) {
        pysock_poller *p = pysock_poller_from_fileno(fd);
        T_CHECK(p == arg);
        pysock_poller_release(p);
        for (int k = 3; k < 24; k++) { /* those that others are making, too */
            p = pysock_poller_from_fileno(k);
            if (p)
                T_CHECK(pysock_poller_fileno(p) >= 0 || errno == EBADF);
            pysock_poller_release(p);
        }
    }
    return NULL;
}

T_TEST(pollers_are_found_while_others_are_made, 120) {
    pysock_poller *p = T_OK(pysock_poller_new());
    t_thread t[4];
    for (int i = 0; i < 4; i++)
        t_spawn(&t[i], i < 2 ? make_pollers : look_for_pollers, p);
    for (int i = 0; i < 4; i++)
        t_join(&t[i]);
    T_CHECK(pysock_poller_fileno(p) >= 0);
    pysock_poller_release(p);
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts)
