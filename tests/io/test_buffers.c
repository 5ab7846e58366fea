/* Counted buffers and the output queue that takes them: references, slices, broadcast, watermarks,
   order, and what becomes of a queue when its socket closes. */
#include "support/contexts.h"

/* Memory that knows how often it was given back. */
typedef struct owned {
    unsigned char *data;
    size_t size;
    int freed; /* atomic */
} owned;

static void count_free(void *arg, void *data) {
    owned *o = arg;
    if (data != o->data)
        abort();
    __atomic_add_fetch(&o->freed, 1, __ATOMIC_ACQ_REL);
}

static int times_freed(owned *o) {
    return __atomic_load_n(&o->freed, __ATOMIC_ACQUIRE);
}

static void wait_until_freed(owned *o) {
    while (!times_freed(o))
        t_nap(0.002);
    T_EQ(times_freed(o), 1);
}

static pysock_buf *wrap_pattern(owned *o, size_t size, unsigned int seed) {
    o->data = malloc(size);
    o->size = size;
    o->freed = 0;
    T_CHECK(o->data != NULL);
    t_fill(o->data, size, 0, seed);
    return T_OK(pysock_buf_wrap(o->data, size, count_free, o));
}

/* Reads size bytes of the pattern, in odd pieces. */
static void expect_pattern(pysock *s, uint64_t offset, uint64_t size, unsigned int seed) {
    unsigned char buf[16001];
    for (uint64_t done = 0; done < size;) {
        size_t want = (size_t)(done * 13 % sizeof buf) + 1;
        if (want > size - done)
            want = (size_t)(size - done);
        t_recv_exactly(s, buf, want);
        t_verify(buf, want, offset + done, seed);
        done += want;
    }
}

static void expect_end(pysock *s) {
    char byte;
    T_EQ(t_readable(s, PYSOCK_NO_TIMEOUT), 1);
    T_EQ(pysock_recv(s, &byte, 1, 0), 0);
}

/* ---- references ---- */

T_TEST(buffers_hold_what_they_were_given, 30) {
    pysock_buf *b;
    b = T_OK(pysock_buf_new(1000));
    T_EQ(pysock_buf_size(b), 1000);
    for (int i = 0; i < 1000; i++)
        T_EQ(((char *)pysock_buf_data(b))[i], 0);
    memset(pysock_buf_data(b), 'w', 1000);
    pysock_buf_release(b);

    b = T_OK(pysock_buf_copy("copied", 6));
    T_EQ(pysock_buf_size(b), 6);
    T_CHECK(memcmp(pysock_buf_data(b), "copied", 6) == 0);
    pysock_buf_release(b);

    b = T_OK(pysock_buf_new(0));
    T_EQ(pysock_buf_size(b), 0);
    pysock_buf_release(b);
    b = T_OK(pysock_buf_copy(NULL, 0));
    T_EQ(pysock_buf_size(b), 0);
    pysock_buf_release(b);

    pysock_buf_release(NULL);
    T_CHECK(pysock_buf_retain(NULL) == NULL);
    T_CHECK(pysock_buf_data(NULL) == NULL);
    T_EQ(pysock_buf_size(NULL), 0);
}

T_TEST(the_last_reference_frees_exactly_once, 30) {
    owned o;
    pysock_buf *b;
    b = wrap_pattern(&o, 100, 1);
    T_CHECK(pysock_buf_data(b) == o.data);
    T_CHECK(pysock_buf_retain(b) == b);
    T_CHECK(pysock_buf_retain(b) == b);
    pysock_buf_release(b);
    pysock_buf_release(b);
    T_EQ(times_freed(&o), 0);
    pysock_buf_release(b);
    T_EQ(times_freed(&o), 1);
    free(o.data);

    b = T_OK(pysock_buf_wrap(&o, sizeof o, NULL, NULL));
    T_CHECK(pysock_buf_data(b) == (void *)&o);
    pysock_buf_release(b);
}

T_TEST(slices_share_bytes_and_keep_them_alive, 30) {
    owned o;
    pysock_buf *whole, *middle, *inner, *empty;
    whole = wrap_pattern(&o, 1000, 1);
    middle = T_OK(pysock_buf_slice(whole, 100, 500));
    inner = T_OK(pysock_buf_slice(middle, 499, 1));
    empty = T_OK(pysock_buf_slice(whole, 1000, 0));
    T_EQ(pysock_buf_size(middle), 500);
    T_CHECK(pysock_buf_data(middle) == o.data + 100);
    T_CHECK(pysock_buf_data(inner) == o.data + 599);
    T_EQ(pysock_buf_size(empty), 0);
    T_FAILS(pysock_buf_slice(whole, 1001, 0), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_buf_slice(whole, 1000, 1), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_buf_slice(middle, 0, 501), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_buf_slice(middle, 1, (size_t)-1), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_buf_slice(middle, (size_t)-1, 2), PYSOCK_VALUE_ERROR, EINVAL);
    pysock_buf_release(whole);
    pysock_buf_release(middle);
    T_EQ(times_freed(&o), 0);
    T_EQ(*(unsigned char *)pysock_buf_data(inner), o.data[599]);
    pysock_buf_release(empty);
    pysock_buf_release(inner);
    T_EQ(times_freed(&o), 1);
    free(o.data);
}

static void *churn_references(void *arg) {
    pysock_buf *b = arg;
    for (int i = 0; i < T_SCALE(20000, 3000); i++) {
        pysock_buf *slice = T_OK(pysock_buf_slice(pysock_buf_retain(b), 10, 20));
        pysock_buf_release(b);
        pysock_buf_release(slice);
    }
    return NULL;
}

T_TEST(references_are_counted_across_threads, 60) {
    t_thread threads[4];
    owned o;
    pysock_buf *b;
    b = wrap_pattern(&o, 100, 1);
    for (int i = 0; i < 4; i++)
        t_spawn(&threads[i], churn_references, b);
    for (int i = 0; i < 4; i++)
        t_join(&threads[i]);
    T_EQ(times_freed(&o), 0);
    pysock_buf_release(b);
    T_EQ(times_freed(&o), 1);
    free(o.data);
}

/* ---- receiving ---- */

T_TEST(recv_buf_hands_out_what_came, 30) {
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        pysock_buf *b;
        plain_or_tls_pair(pair, tls);
        t_say(pair[0], "abc");
        b = T_OK(pysock_recv_buf(pair[1], 100000));
        T_EQ(pysock_buf_size(b), 3);
        T_CHECK(memcmp(pysock_buf_data(b), "abc", 3) == 0);
        pysock_buf_release(b);
        T_OK(pysock_setblocking(pair[1], 0));
        T_FAILS(pysock_recv_buf(pair[1], 10), PYSOCK_OS_ERROR, EAGAIN);
        T_OK(pysock_settimeout(pair[1], 0.02));
        T_FAILS(pysock_recv_buf(pair[1], 10), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
        T_OK(pysock_close(pair[0]));
        T_OK(pysock_setblocking(pair[1], 1));
        b = T_OK(pysock_recv_buf(pair[1], 10));
        T_EQ(pysock_buf_size(b), 0);
        pysock_buf_release(b);
        T_OK(pysock_close(pair[1]));
    }
}

/* ---- the queue ---- */

T_TEST(queued_buffers_arrive_in_order_with_what_is_sent_later, 60) {
    for (int tls = 0; tls < 2; tls++) {
        static const char *const words[] = {"one ", "two ", "three "};
        pysock *pair[2];
        plain_or_tls_pair(pair, tls);
        for (int i = 0; i < 3; i++) {
            pysock_buf *b = T_OK(pysock_buf_copy(words[i], strlen(words[i])));
            T_OK(pysock_send_buf(pair[0], b));
            pysock_buf_release(b);
        }
        t_say(pair[0], "four");
        t_expect(pair[1], "one two three four");
        T_EQ(pysock_queued(pair[0]), 0);
        t_close_pair(pair);
    }
}

T_TEST(an_empty_buffer_is_nothing, 30) {
    pysock *pair[2];
    pysock_buf *b;
    b = T_OK(pysock_buf_new(0));
    for (int tls = 0; tls < 2; tls++) {
        plain_or_tls_pair(pair, tls);
        T_OK(pysock_send_buf(pair[0], b));
        T_EQ(pysock_queued(pair[0]), 0);
        t_say(pair[0], "x");
        t_expect(pair[1], "x");
        T_EQ(t_readable(pair[1], 0.02), 0);
        t_close_pair(pair);
    }
    pysock_buf_release(b);
}

#define QUEUED ((size_t)8 * 1024 * 1024 + 11) /* more than two kernels' buffers take */

typedef struct later_job {
    pysock *s;
    size_t size;
} later_job;

/* Continues the pattern behind what is queued, with plain sends. */
static void *send_later(void *arg) {
    later_job *job = arg;
    unsigned char buf[3001];
    for (size_t done = 0; done < job->size;) {
        size_t want = job->size - done < sizeof buf ? job->size - done : sizeof buf;
        ptrdiff_t n;
        t_fill(buf, want, QUEUED + done, 3);
        n = pysock_send(job->s, buf, want, 0);
        if (n < 0 && errno == EAGAIN) {
            T_EQ(t_writable(job->s, PYSOCK_NO_TIMEOUT), 1);
            continue;
        }
        done += (size_t)T_OK(n);
    }
    return NULL;
}

/* A later send never overtakes the queue, in any mode. */
T_TEST(a_send_does_not_overtake_a_long_queue, 120) {
    static const double modes[] = {PYSOCK_NO_TIMEOUT, 60, 0};
    for (int i = 0; i < 6; i++) {
        pysock *pair[2];
        later_job job;
        t_thread t;
        owned o;
        pysock_buf *b;
        T_STEP("%s, timeout %g", i % 2 ? "TLS" : "plain", modes[i / 2]);
        plain_or_tls_pair(pair, i % 2);
        T_OK(pysock_setblocking(pair[0], 0));
        b = wrap_pattern(&o, QUEUED, 3);
        T_OK(pysock_send_buf(pair[0], b));
        pysock_buf_release(b);
        T_CHECK(pysock_queued(pair[0]) > 0);
        T_EQ(times_freed(&o), 0);
        T_OK(pysock_settimeout(pair[0], modes[i / 2]));
        job.s = pair[0];
        job.size = 100000;
        t_spawn(&t, send_later, &job);
        expect_pattern(pair[1], 0, QUEUED + job.size, 3);
        t_join(&t);
        wait_until_freed(&o);
        free(o.data);
        t_close_pair(pair);
    }
}

T_TEST(one_buffer_goes_to_many_sockets, 60) {
    enum { N = 40 };
    pysock *pairs[N][2];
    size_t size = 30011;
    owned o;
    pysock_buf *b;
    b = wrap_pattern(&o, size, 4);
    for (int i = 0; i < N; i++) {
        plain_or_tls_pair(pairs[i], i % 2);
        T_OK(pysock_setblocking(pairs[i][0], i % 3 == 0));
    }
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < N; i++)
            T_OK(pysock_send_buf(pairs[i][0], b));
    pysock_buf_release(b);
    for (int i = 0; i < N; i++) {
        expect_pattern(pairs[i][1], 0, size, 4);
        expect_pattern(pairs[i][1], 0, size, 4);
    }
    wait_until_freed(&o);
    t_verify(o.data, o.size, 0, 4);
    for (int i = 0; i < N; i++)
        t_close_pair(pairs[i]);
    T_EQ(times_freed(&o), 1);
    free(o.data);
}

/* Queues pieces until the socket says that it is full; returns how much was queued in all. */
static uint64_t queue_until_full(pysock *s, pysock_buf *piece) {
    uint64_t total = 0;
    while (pysock_send_buf(s, piece) == 0)
        total += pysock_buf_size(piece);
    T_EQ(errno, EAGAIN);
    T_EQ(pysock_error(), PYSOCK_OS_ERROR);
    return total;
}

T_TEST(a_slow_reader_holds_up_nobody_else, 60) {
    pysock *slow[2], *fast[2];
    pysock_buf *piece;
    uint64_t queued;
    piece = T_OK(pysock_buf_new(10000));
    t_fill(pysock_buf_data(piece), 10000, 0, 6);
    t_tls_pair(slow, client_ctx, server_ctx);
    t_tls_pair(fast, client_ctx, server_ctx);
    T_OK(pysock_setblocking(slow[0], 0));
    T_OK(pysock_setblocking(fast[0], 0));
    queued = queue_until_full(slow[0], piece);
    for (int i = 0; i < 50; i++) {
        T_OK(pysock_send_buf(fast[0], piece));
        expect_pattern(fast[1], 0, 10000, 6);
    }
    T_STEP("and the slow one gets all of it in the end");
    for (uint64_t done = 0; done < queued; done += 10000)
        expect_pattern(slow[1], 0, 10000, 6);
    pysock_buf_release(piece);
    t_close_pair(slow);
    t_close_pair(fast);
}

/* At the high watermark: not writable, and send_buf says EAGAIN; writable again only below the low
   one. */
T_TEST(watermarks_say_when_a_queue_is_full, 120) {
    static const size_t low_marks[] = {32768, 1000, 200000}, high_marks[] = {65536, 50000, 200000};
    pysock_buf *piece;
    piece = T_OK(pysock_buf_new(5000));
    for (int i = 0; i < 6; i++) {
        size_t low = low_marks[i / 2], high = high_marks[i / 2];
        pysock *pair[2];
        uint64_t queued, received = 0;
        int writable = 0;
        T_STEP("%s, %zu to %zu", i % 2 ? "TLS" : "plain", low, high);
        plain_or_tls_pair(pair, i % 2);
        /* so that the kernel's room does not grow while it is filled */
        T_OK(pysock_setsockopt_int(pair[0], SOL_SOCKET, SO_SNDBUF, 65536));
        T_OK(pysock_setsockopt_int(pair[1], SOL_SOCKET, SO_RCVBUF, 65536));
        if (i >= 2) /* the first are the defaults */
            T_OK(pysock_set_watermarks(pair[0], low, high));
        T_OK(pysock_setblocking(pair[0], 0));
        T_OK(pysock_setblocking(pair[1], 0));
        T_EQ(t_writable(pair[0], PYSOCK_NO_TIMEOUT), 1);
        queued = queue_until_full(pair[0], piece);
        for (;;) { /* until the kernel takes no more from the queue either */
            t_nap(0.05);
            if (pysock_queued(pair[0]) >= (ptrdiff_t)low)
                break;
            queued += queue_until_full(pair[0], piece);
        }
        T_EQ(t_writable(pair[0], 0), 0);
        T_STEP("reading");
        while (received < queued) {
            char buf[4096];
            ptrdiff_t n;
            writable |= t_writable(pair[0], 0);
            if (writable)
                T_CHECK(pysock_queued(pair[0]) < (ptrdiff_t)low);
            n = pysock_recv(pair[1], buf, sizeof buf, 0);
            if (n < 0 && errno == EAGAIN) {
                T_EQ(t_readable(pair[1], PYSOCK_NO_TIMEOUT), 1);
                continue;
            }
            received += (uint64_t)T_OK(n);
        }
        T_EQ(received, queued);
        T_EQ(t_writable(pair[0], PYSOCK_NO_TIMEOUT), 1);
        T_EQ(pysock_queued(pair[0]), 0);
        t_close_pair(pair);
    }
    pysock_buf_release(piece);
}

static void *read_it_all(void *arg) {
    later_job *job = arg;
    expect_pattern(job->s, 0, job->size, 7);
    return NULL;
}

T_TEST(a_blocking_send_buf_waits_for_room, 60) {
    for (int tls = 0; tls < 2; tls++) {
        size_t piece = 100003, count = (size_t)T_SCALE(100, 40);
        pysock *pair[2];
        later_job job;
        t_thread t;
        plain_or_tls_pair(pair, tls);
        job.s = pair[1];
        job.size = piece * count;
        t_spawn(&t, read_it_all, &job);
        for (size_t i = 0; i < count; i++) {
            pysock_buf *b = T_OK(pysock_buf_new(piece));
            t_fill(pysock_buf_data(b), piece, i * piece, 7);
            T_OK(pysock_send_buf(pair[0], b));
            T_CHECK(pysock_queued(pair[0]) <= (ptrdiff_t)(65536 + piece));
            pysock_buf_release(b);
        }
        t_join(&t);
        t_close_pair(pair);
    }
}

T_TEST(a_timed_send_buf_keeps_its_deadline, 60) {
    pysock_buf *b;
    b = T_OK(pysock_buf_new(300000));
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        double start;
        plain_or_tls_pair(pair, tls);
        T_OK(pysock_setblocking(pair[0], 0));
        (void)queue_until_full(pair[0], b);
        T_OK(pysock_settimeout(pair[0], 0.2));
        do /* the kernel's probes of a closed window may still move a little */
            start = t_now();
        while (pysock_send_buf(pair[0], b) == 0);
        T_EQ(errno, ETIMEDOUT);
        T_EQ(pysock_error(), PYSOCK_TIMEOUT_ERROR);
        T_CHECK(t_now() - start >= 0.19);
        t_close_pair(pair);
    }
    pysock_buf_release(b);
}

T_TEST(only_stream_sockets_queue, 30) {
    pysock *s;
    pysock_buf *b;
    b = T_OK(pysock_buf_copy("x", 1));
    s = T_OK(pysock_socket(AF_INET, SOCK_DGRAM, 0));
    T_FAILS(pysock_send_buf(s, b), T_ANY, T_ANY);
    T_OK(pysock_close(s));
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_FAILS(pysock_send_buf(s, b), PYSOCK_OS_ERROR, T_ANY);
    T_OK(pysock_close(s));
    pysock_buf_release(b);
}

/* ---- the queue and the end ---- */

T_TEST(close_delivers_what_is_queued, 60) {
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        owned o;
        pysock_buf *b = wrap_pattern(&o, QUEUED, 8);
        T_STEP("%s", tls ? "TLS" : "plain");
        plain_or_tls_pair(pair, tls);
        T_OK(pysock_setblocking(pair[0], 0));
        T_OK(pysock_send_buf(pair[0], b));
        pysock_buf_release(b);
        T_CHECK(pysock_queued(pair[0]) > 0);
        T_OK(pysock_close(pair[0]));
        expect_pattern(pair[1], 0, QUEUED, 8);
        expect_end(pair[1]);
        if (tls)
            T_EQ(pysock_ssl_eof_is_clean(pair[1]), 1);
        wait_until_freed(&o);
        T_OK(pysock_close(pair[1]));
        T_EQ(times_freed(&o), 1);
        free(o.data);
    }
}

T_TEST(shutdown_delivers_what_is_queued, 60) {
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        owned o;
        pysock_buf *b = wrap_pattern(&o, QUEUED, 8);
        T_STEP("%s", tls ? "TLS" : "plain");
        plain_or_tls_pair(pair, tls);
        T_OK(pysock_setblocking(pair[0], 0));
        T_OK(pysock_send_buf(pair[0], b));
        pysock_buf_release(b);
        T_OK(pysock_shutdown(pair[0], SHUT_WR));
        expect_pattern(pair[1], 0, QUEUED, 8);
        expect_end(pair[1]);
        t_close_pair(pair);
        wait_until_freed(&o);
        free(o.data);
    }
}

T_TEST(a_dead_peer_frees_the_queue_once, 60) {
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        owned o;
        pysock_buf *b = wrap_pattern(&o, QUEUED, 8);
        T_STEP("%s", tls ? "TLS" : "plain");
        plain_or_tls_pair(pair, tls);
        T_OK(pysock_setblocking(pair[0], 0));
        T_OK(pysock_send_buf(pair[0], b));
        pysock_buf_release(b);
        t_raw_reset(pysock_fileno(pair[1]));
        T_STEP("the reset is told");
        T_EQ(t_readable(pair[0], PYSOCK_NO_TIMEOUT), 1);
        T_EQ(t_writable(pair[0], PYSOCK_NO_TIMEOUT), 1);
        T_FAILS(pysock_send(pair[0], "x", 1, 0), T_ANY, T_ANY);
        t_close_pair(pair);
        wait_until_freed(&o);
        free(o.data);
    }
}

/* A handshake still runs: the buffer is refused with EAGAIN, or arrives when it is over. */
T_TEST(send_buf_during_a_handshake_is_queued_or_refused, 60) {
    pysock *pair[2];
    pysock_buf *b;
    int queued;
    b = T_OK(pysock_buf_copy("early", 5));
    t_pair(pair);
    T_OK(pysock_setblocking(pair[0], 0));
    T_OK(pysock_setblocking(pair[1], 0));
    T_OK(pysock_ssl_wrap_socket(pair[0], client_ctx, "localhost"));
    queued = pysock_send_buf(pair[0], b) == 0;
    if (!queued)
        T_EQ(errno, EAGAIN);
    T_OK(pysock_ssl_wrap_socket(pair[1], server_ctx, NULL));
    T_EQ(t_writable(pair[0], PYSOCK_NO_TIMEOUT), 1);
    t_say(pair[0], "late");
    t_expect(pair[1], queued ? "earlylate" : "late");
    pysock_buf_release(b);
    t_close_pair(pair);
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts)
