/* Queued output: its marks, who is told when it passes them, and its order among sends. */
#include "support/contexts.h"

#define PIECE 16384

/* A non-blocking socket, plain or TLS, and the descriptor that its peer's bytes come out of. */
typedef struct line {
    pysock *pair[2];
    int raw;
} line;

static void begin_line(line *l, int tls) {
    if (tls)
        t_tls_local_pair(l->pair, client_ctx, server_ctx);
    else
        T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, l->pair));
    T_OK(pysock_setblocking(l->pair[0], 0));
    l->raw = T_OK(pysock_fileno(l->pair[1]));
}

static void end_line(line *l) {
    T_OK(pysock_close(l->pair[1])); /* the peer first: nothing is finished */
    (void)pysock_close(l->pair[0]); /* what was queued is lost */
}

static int queue_piece(pysock *s) {
    pysock_buf *b = T_OK(pysock_buf_new(PIECE));
    int r = pysock_send_buf(s, b);
    if (r < 0 && errno != EAGAIN)
        T_FAIL("send_buf: %s", pysock_error_message());
    pysock_buf_release(b);
    return r;
}

/* errno of one more, which is not taken. */
static int queue_piece_fails(pysock *s) {
    pysock_buf *b = T_OK(pysock_buf_new(PIECE));
    int code = pysock_send_buf(s, b) < 0 ? pysock_error_code() : 0;
    pysock_buf_release(b);
    return code;
}

/* Until the kernel takes no more, and so much is queued behind it. */
static void fill(line *l, size_t queued) {
    while (T_OK(pysock_queued(l->pair[0])) < (ptrdiff_t)queued)
        T_EQ(queue_piece(l->pair[0]), 0);
}

static size_t take_raw(int raw, size_t size) {
    static char buf[65536];
    size_t have = 0;
    while (have < size) {
        ssize_t n = recv(raw, buf, size - have < sizeof buf ? size - have : sizeof buf,
                         MSG_DONTWAIT);
        if (n <= 0)
            break;
        have += (size_t)n;
    }
    return have;
}

/* ---- marks ---- */

/* Full from the high mark on, and until the queue is below the low one. */
static void marks(int tls) {
    enum { LOW = 2 * PIECE, HIGH = 40 * PIECE };
    line l;
    int between = 0, writable = 0, took = 0;
    ptrdiff_t before, after;
    begin_line(&l, tls);
    T_OK(pysock_set_watermarks(l.pair[0], LOW, HIGH));
    while (queue_piece(l.pair[0]) == 0)
        if (pysock_queued(l.pair[0]) > 0) /* else it is the kernel's word */
            T_EQ(t_writable(l.pair[0], 0), pysock_queued(l.pair[0]) < HIGH);
    T_CHECK(pysock_queued(l.pair[0]) >= HIGH);
    T_CHECK(pysock_queued(l.pair[0]) < HIGH + PIECE);
    while (!writable && !took) {
        take_raw(l.raw, 4096);
        before = T_OK(pysock_queued(l.pair[0]));
        writable = t_writable(l.pair[0], 0);
        took = queue_piece(l.pair[0]) == 0;
        after = T_OK(pysock_queued(l.pair[0])) - (took ? PIECE : 0);
        if (writable && after >= LOW)
            T_FAIL("writable with %td bytes in the queue", after);
        if (took && after >= LOW)
            T_FAIL("more was taken with %td bytes in the queue", after);
        if (before > 0 && before < LOW && !writable)
            T_FAIL("not writable with %td bytes in the queue", before);
        between += !writable && before < HIGH;
    }
    T_CHECK(between > 0); /* or nothing was seen */
    end_line(&l);
}

T_TEST(a_queue_is_full_from_its_high_mark_down_to_its_low_one, 60) {
    marks(0);
    marks(1);
}

/* What is sent behind a queue goes into it, and fills it. */
T_TEST(sends_behind_a_queue_fill_it_too, 60) {
    static char data[PIECE];
    for (int tls = 0; tls < 2; tls++) {
        line l;
        int taken = 0;
        T_STEP("tls %d", tls);
        begin_line(&l, tls);
        T_OK(pysock_set_watermarks(l.pair[0], PIECE, 10 * PIECE));
        fill(&l, 2 * PIECE);
        while (pysock_send(l.pair[0], data, sizeof data, 0) == PIECE)
            T_CHECK(++taken < 100);
        T_FAILS(pysock_send(l.pair[0], data, sizeof data, 0), PYSOCK_OS_ERROR, EAGAIN);
        T_CHECK(taken > 0);
        T_CHECK(pysock_queued(l.pair[0]) >= 10 * PIECE);
        T_CHECK(pysock_queued(l.pair[0]) < 11 * PIECE);
        T_EQ(t_writable(l.pair[0], 0), 0);
        end_line(&l);
    }
}

T_TEST(new_marks_count_for_what_is_queued, 60) {
    line l;
    begin_line(&l, 0);
    T_OK(pysock_set_watermarks(l.pair[0], PIECE, 4 * PIECE));
    fill(&l, 4 * PIECE);
    T_EQ(t_writable(l.pair[0], 0), 0);
    T_STEP("higher ones");
    T_OK(pysock_set_watermarks(l.pair[0], 8 * PIECE, 16 * PIECE));
    T_EQ(t_writable(l.pair[0], 0), 1);
    T_EQ(queue_piece(l.pair[0]), 0);
    T_STEP("lower ones");
    T_OK(pysock_set_watermarks(l.pair[0], PIECE, 2 * PIECE));
    T_EQ(t_writable(l.pair[0], 0), 0);
    T_EQ(queue_piece(l.pair[0]), -1);
    T_STEP("wrong ones");
    T_FAILS(pysock_set_watermarks(l.pair[0], 2 * PIECE, PIECE), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_set_watermarks(l.pair[0], 0, 0), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_set_watermarks(l.pair[0], 0, SIZE_MAX), PYSOCK_VALUE_ERROR, EINVAL);
    end_line(&l);
}

/* What a shutdown has said is the last is the last. */
T_TEST(nothing_is_taken_behind_a_shutdown, 60) {
    for (int tls = 0; tls < 2; tls++) {
        line l;
        T_STEP("tls %d", tls);
        begin_line(&l, tls);
        fill(&l, PIECE);
        T_OK(pysock_shutdown(l.pair[0], SHUT_WR));
        T_CHECK(pysock_queued(l.pair[0]) > 0);
        T_FAILS(pysock_send(l.pair[0], "x", 1, 0), PYSOCK_OS_ERROR, EPIPE);
        T_EQ(queue_piece_fails(l.pair[0]), EPIPE);
        end_line(&l);
    }
}

T_TEST(urgent_data_does_not_overtake_a_queue, 60) {
    line l;
    begin_line(&l, 0);
    fill(&l, PIECE);
    T_FAILS(pysock_send(l.pair[0], "x", 1, MSG_OOB), PYSOCK_VALUE_ERROR, EINVAL);
    end_line(&l);
}

/* ---- who waits for room ---- */

typedef struct waiting {
    t_thread t;
    pysock *s;
    pysock_poller *p; /* NULL: select */
    ptrdiff_t result;
} waiting;

static void *wait_for_room(void *arg) {
    waiting *w = arg;
    pysock_pollevent event;
    int fd = pysock_fileno(w->s);
    size_t n = 1;
    if (w->p)
        w->result = pysock_poller_poll(w->p, &event, 1, 20);
    else
        w->result = pysock_select(NULL, NULL, &fd, &n, NULL, NULL, 20);
    return NULL;
}

static void begin_wait(waiting *w, pysock *s, int by_poller) {
    w->s = s;
    w->p = by_poller ? t_poller_with(pysock_fileno(s), POLLOUT) : NULL;
    t_spawn(&w->t, wait_for_room, w);
    t_wait_asleep(&w->t);
}

static void end_wait(waiting *w) {
    t_join(&w->t);
    T_EQ(w->result, 1);
    pysock_poller_release(w->p);
}

/* The low mark is far above nothing: who waits is told long before all is out. */
T_TEST(who_waits_for_room_is_told_at_the_low_mark, 100) {
    for (int i = 0; i < 4; i++) {
        waiting w;
        line l;
        T_STEP("tls %d, by poller %d", i & 1, i >> 1);
        begin_line(&l, i & 1);
        T_OK(pysock_set_watermarks(l.pair[0], 60 * PIECE, 64 * PIECE));
        fill(&l, 64 * PIECE);
        begin_wait(&w, l.pair[0], i >> 1);
        for (size_t have = 0; have < 20 * PIECE;)
            have += take_raw(l.raw, 20 * PIECE - have);
        end_wait(&w);
        T_CHECK(pysock_queued(l.pair[0]) > 0);
        end_line(&l);
    }
}

T_TEST(who_waits_for_room_is_told_of_new_marks, 100) {
    for (int i = 0; i < 4; i++) {
        waiting w;
        line l;
        T_STEP("tls %d, by poller %d", i & 1, i >> 1);
        begin_line(&l, i & 1);
        T_OK(pysock_set_watermarks(l.pair[0], PIECE, 4 * PIECE));
        fill(&l, 4 * PIECE);
        begin_wait(&w, l.pair[0], i >> 1);
        T_OK(pysock_set_watermarks(l.pair[0], 16 * PIECE, 32 * PIECE));
        end_wait(&w);
        end_line(&l);
    }
}

static void *send_buf_thread(void *arg) {
    waiting *w = arg;
    w->result = queue_piece(w->s) + 1;
    return NULL;
}

/* A blocking send_buf waits for room, and for nothing else. */
T_TEST(a_blocking_send_buf_goes_on_where_there_is_room, 100) {
    for (int i = 0; i < 4; i++) {
        waiting w;
        line l;
        T_STEP("tls %d, new marks %d", i & 1, i >> 1);
        begin_line(&l, i & 1);
        T_OK(pysock_set_watermarks(l.pair[0], 60 * PIECE, 64 * PIECE));
        fill(&l, 64 * PIECE);
        T_OK(pysock_settimeout(l.pair[0], 60));
        w.p = NULL;
        w.s = l.pair[0];
        t_spawn(&w.t, send_buf_thread, &w);
        t_wait_asleep(&w.t);
        if (i >> 1)
            T_OK(pysock_set_watermarks(l.pair[0], 100 * PIECE, 100 * PIECE));
        else
            for (size_t have = 0; have < 20 * PIECE;)
                have += take_raw(l.raw, 20 * PIECE - have);
        end_wait(&w);
        end_line(&l);
    }
}

/* ---- when it fails ---- */

T_TEST(what_cannot_be_sent_is_dropped_and_told, 100) {
    for (int i = 0; i < 4; i++) {
        waiting w;
        line l;
        T_STEP("tls %d, by poller %d", i & 1, i >> 1);
        if (i & 1)
            t_tls_pair(l.pair, client_ctx, server_ctx);
        else
            t_pair(l.pair);
        T_OK(pysock_setblocking(l.pair[0], 0));
        T_OK(pysock_set_watermarks(l.pair[0], PIECE, 4 * PIECE));
        fill(&l, 4 * PIECE);
        begin_wait(&w, l.pair[0], i >> 1);
        t_raw_reset(T_OK(pysock_fileno(l.pair[1])));
        end_wait(&w);
        while (pysock_queued(l.pair[0]) > 0)
            t_nap(0.001); /* the kernel's word may come before the reactor's */
        T_CHECK(queue_piece_fails(l.pair[0]) == EPIPE || pysock_error_code() == ECONNRESET);
        T_EQ(pysock_queued(l.pair[0]), 0);
        T_EQ(t_writable(l.pair[0], 0), 1);
        end_line(&l);
    }
}

/* ---- order ---- */

typedef struct sending {
    t_thread t;
    pysock *s;
    const void *data;
    size_t size;
    ptrdiff_t result;
} sending;

static void *send_thread(void *arg) {
    sending *j = arg;
    j->result = pysock_send(j->s, j->data, j->size, 0);
    return NULL;
}

/* A send that sleeps in the kernel has not ended: what is queued meanwhile comes behind it, and
   what is sent then, behind that. Nobody calls after that; each is told when its turn has come. */
T_TEST(a_queue_and_later_sends_wait_for_a_send_in_the_kernel, 60) {
    enum { MUCH = 4 << 20 };
    static char much[MUCH], received[MUCH + 8];
    sending first, last;
    pysock *pair[2];
    pysock_buf *b = T_OK(pysock_buf_copy("next", 4));
    memset(much, 'm', sizeof much);
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    first.s = last.s = pair[0];
    first.data = much;
    first.size = sizeof much;
    last.data = "last";
    last.size = 4;
    t_spawn(&first.t, send_thread, &first);
    t_wait_asleep(&first.t);
    T_OK(pysock_send_buf(pair[0], b));
    pysock_buf_release(b);
    T_EQ(pysock_queued(pair[0]), 4);
    t_spawn(&last.t, send_thread, &last);
    t_wait_asleep(&last.t);
    T_EQ(t_raw_read(pysock_fileno(pair[1]), received, sizeof received), sizeof received);
    t_join(&first.t);
    t_join(&last.t);
    T_EQ(first.result, MUCH);
    T_EQ(last.result, 4);
    T_EQ(memcmp(received, much, sizeof much), 0);
    T_EQ(memcmp(received + MUCH, "nextlast", 8), 0);
    T_EQ(pysock_queued(pair[0]), 0);
    t_close_pair(pair);
}

/* A send that was broken off says how much of it is on its way, so that nothing is sent twice. */
T_TEST(what_a_timed_tls_send_has_taken_is_what_arrives, 60) {
    static char data[65536], received[65536];
    pysock *pair[2];
    size_t taken = 0, arrived = 0;
    ptrdiff_t n;
    t_tls_local_pair(pair, client_ctx, server_ctx);
    T_OK(pysock_settimeout(pair[0], 0.05));
    while ((n = pysock_send(pair[0], data, sizeof data, 0)) > 0)
        taken += (size_t)n;
    T_EQ(pysock_error(), PYSOCK_TIMEOUT_ERROR);
    T_OK(pysock_settimeout(pair[1], 20));
    while (arrived < taken) {
        n = T_OK(pysock_recv(pair[1], received, sizeof received, 0));
        T_CHECK(n > 0);
        arrived += (size_t)n;
    }
    T_EQ(arrived, taken);
    T_OK(pysock_settimeout(pair[0], 20));
    T_OK(pysock_shutdown(pair[0], SHUT_WR));
    T_EQ(pysock_recv(pair[1], received, sizeof received, 0), 0);
    t_close_pair(pair);
}

/* The same without the one who comes last: it is the send that sets the queue going. */
T_TEST(a_send_in_the_kernel_sets_the_queue_going, 60) {
    enum { MUCH = 4 << 20 };
    static char much[MUCH], received[MUCH + 4];
    sending first;
    pysock *pair[2];
    pysock_buf *b = T_OK(pysock_buf_copy("next", 4));
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    first.s = pair[0];
    first.data = much;
    first.size = sizeof much;
    t_spawn(&first.t, send_thread, &first);
    t_wait_asleep(&first.t);
    T_OK(pysock_send_buf(pair[0], b));
    pysock_buf_release(b);
    T_EQ(t_raw_read(pysock_fileno(pair[1]), received, sizeof received), sizeof received);
    t_join(&first.t);
    T_EQ(memcmp(received + MUCH, "next", 4), 0);
    t_close_pair(pair);
}

/* The peer closes while our queue is long: the queue is dropped, and nobody spins or waits. */
T_TEST(a_queue_ends_with_the_peers_close_notify, 60) {
    pysock *pair[2];
    pysock_buf *big = T_OK(pysock_buf_new(8u << 20));
    char byte;
    t_tls_pair(pair, client_ctx, server_ctx);
    T_OK(pysock_setblocking(pair[0], 0));
    T_OK(pysock_send_buf(pair[0], big));
    T_OK(pysock_shutdown(pair[1], SHUT_WR));
    T_EQ(t_readable(pair[0], 30), 1);
    T_EQ(pysock_recv(pair[0], &byte, 1, 0), 0);
    T_OK(pysock_settimeout(pair[0], 30));
    T_FAILS(pysock_sendall(pair[0], "x", 1, 0), T_ANY, T_ANY);
    (void)pysock_close(pair[0]); /* tells of the loss, if sendall has not */
    T_OK(pysock_close(pair[1]));
    pysock_buf_release(big);
}

/* Queued behind a handshake that the reactor began and a blocking call finishes. */
T_TEST(what_is_queued_behind_a_handshake_survives_a_mode_switch, 60) {
    for (int i = 0; i < 50; i++) {
        pysock *pair[2];
        pysock_buf *b = T_OK(pysock_buf_copy("hello", 5));
        t_pair(pair);
        T_OK(pysock_setblocking(pair[0], 0));
        T_OK(pysock_setblocking(pair[1], 0));
        T_OK(pysock_ssl_wrap_socket(pair[0], client_ctx, "localhost"));
        T_OK(pysock_send_buf(pair[0], b));
        T_OK(pysock_ssl_wrap_socket(pair[1], server_ctx, NULL));
        T_OK(pysock_settimeout(pair[0], 30));
        T_EQ(pysock_ssl_do_handshake(pair[0]), 0);
        T_OK(pysock_settimeout(pair[1], 30));
        t_expect(pair[1], "hello");
        pysock_buf_release(b);
        T_OK(pysock_close(pair[0]));
        T_OK(pysock_close(pair[1]));
    }
}

/* SHUT_WR with a queue: close_notify comes after the queue and before the FIN. */
T_TEST(a_shutdown_behind_a_queue_is_a_clean_end, 60) {
    pysock *pair[2];
    pysock_buf *big = T_OK(pysock_buf_new(4u << 20));
    static char buf[65536];
    size_t got = 0;
    ptrdiff_t n;
    t_tls_pair(pair, client_ctx, server_ctx);
    T_OK(pysock_setblocking(pair[0], 0));
    T_OK(pysock_send_buf(pair[0], big));
    T_OK(pysock_shutdown(pair[0], SHUT_WR));
    T_FAILS(pysock_send(pair[0], "x", 1, 0), PYSOCK_OS_ERROR, EPIPE);
    while ((n = T_OK(pysock_recv(pair[1], buf, sizeof buf, 0))) > 0)
        got += (size_t)n;
    T_EQ(got, 4u << 20);
    T_EQ(pysock_ssl_eof_is_clean(pair[1]), 1);
    T_OK(pysock_close(pair[0]));
    T_OK(pysock_close(pair[1]));
    pysock_buf_release(big);
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts)
