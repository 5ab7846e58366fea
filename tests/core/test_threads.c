/* The classic bugs of sockets, TLS and threads, each by its name. */
#include "support/contexts.h"
#include "support/handshake.h"

/* Starts both handshakes of a connected pair without waiting for anything. */
static void wrap_both_nonblocking(pysock *pair[2]) {
    T_OK(pysock_setblocking(pair[0], 0));
    T_OK(pysock_setblocking(pair[1], 0));
    T_OK(pysock_ssl_wrap_socket(pair[1], server_ctx, NULL));
    T_OK(pysock_ssl_wrap_socket(pair[0], client_ctx, "localhost"));
}

/* ---- the lost wake-up ---- */

static void spin(double seconds) {
    double end = t_now() + seconds;
    while (t_now() < end)
        continue;
}

static unsigned int next_random(unsigned int *x) {
    *x ^= *x << 13;
    *x ^= *x >> 17;
    *x ^= *x << 5;
    return *x;
}

static void wait_by_poller_for(pysock_poller *p, int fd, short events) {
    pysock_pollevent event = {-1, 0, NULL};
    T_OK(pysock_poller_register(p, fd, events, NULL));
    T_EQ(T_OK(pysock_poller_poll(p, &event, 1, PYSOCK_NO_TIMEOUT)), 1);
    T_EQ(event.fd, fd);
    T_EQ(event.events, events);
    T_OK(pysock_poller_unregister(p, fd));
}

/* A handshake that finishes just between the level test of a wait and its sleep must still end
   the wait. The moment is tried at random, many thousands of times; the sessions are resumed, so
   that this is cheap. Without an answer the watchdog ends the program. */
static void race_handshakes_with_waits(pysock_poller *p) {
    unsigned int random = 88172645u;
    int resumed = 0, rounds = T_ASAN ? 2500 : T_SCALE(10000, 1200);
    for (int i = 0; i < rounds; i++) {
        pysock *pair[2];
        if (i % 256 == 0)
            T_STEP("round %d", i);
        T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
        wrap_both_nonblocking(pair);
        spin((double)(next_random(&random) % 700) * 1e-6);
        for (int k = 0; k < 2; k++) {
            pysock *s = pair[(k + i) % 2];
            if (p)
                wait_by_poller_for(p, pysock_fileno(s), POLLOUT);
            else
                T_EQ(t_writable(s, PYSOCK_NO_TIMEOUT), 1);
            T_EQ(pysock_ssl_do_handshake(s), 0);
        }
        resumed += pysock_ssl_session_reused(pair[0]);
        if (i % 64 == 0) {
            t_say(pair[0], "x");
            t_expect(pair[1], "x");
        }
        t_close_pair(pair);
    }
    T_CHECK(resumed > rounds / 2);
}

T_TEST(a_handshake_finishing_between_test_and_sleep_wakes_select, 200) {
    race_handshakes_with_waits(NULL);
}

T_TEST(a_handshake_finishing_between_test_and_sleep_wakes_a_poller, 200) {
    pysock_poller *p;
    p = T_OK(pysock_poller_new());
    race_handshakes_with_waits(p);
    pysock_poller_release(p);
}

/* The same with data: the sender's byte arrives at any moment of the receiver's wait. */
typedef struct ping_job {
    pysock *s;
    int rounds;
} ping_job;

static void *ping_thread(void *arg) {
    ping_job *job = arg;
    for (int i = 0; i < job->rounds; i++) {
        t_say(job->s, "p");
        t_expect(job->s, "q");
    }
    return NULL;
}

T_TEST(bytes_arriving_between_test_and_sleep_wake_select_and_poller, 120) {
    pysock *pair[2];
    pysock_poller *p;
    ping_job job;
    t_thread t;
    t_tls_pair(pair, client_ctx, server_ctx);
    p = T_OK(pysock_poller_new());
    job.s = pair[0];
    job.rounds = T_SCALE(20000, 2000);
    t_spawn(&t, ping_thread, &job);
    for (int i = 0; i < job.rounds; i++) {
        if (i % 2)
            T_EQ(t_readable(pair[1], PYSOCK_NO_TIMEOUT), 1);
        else
            wait_by_poller_for(p, pysock_fileno(pair[1]), POLLIN);
        t_expect(pair[1], "p");
        t_say(pair[1], "q");
    }
    t_join(&t);
    pysock_poller_release(p);
    t_close_pair(pair);
}

/* ---- mode switches ---- */

T_TEST(a_handshake_begun_without_blocking_is_finished_by_a_blocking_call, 60) {
    pysock *pair[2];
    t_thread t;
    t_pair(pair);
    T_OK(pysock_setblocking(pair[0], 0));
    T_OK(pysock_ssl_wrap_socket(pair[0], client_ctx, "localhost"));
    T_FAILS(pysock_ssl_do_handshake(pair[0]), PYSOCK_OS_ERROR, EINPROGRESS);
    t_wrap_later(pair[1], server_ctx, NULL);
    T_OK(pysock_setblocking(pair[0], 1));
    t_spawn(&t, t_handshake_thread, pair[1]);
    T_EQ(pysock_ssl_do_handshake(pair[0]), 0);
    t_join(&t);
    t_say(pair[0], "switched");
    t_expect(pair[1], "switched");
    t_close_pair(pair);
}

T_TEST(a_handshake_begun_by_a_timed_call_is_finished_without_blocking, 60) {
    pysock *pair[2];
    char byte;
    t_pair(pair);
    t_wrap_later(pair[0], client_ctx, "localhost");
    T_OK(pysock_settimeout(pair[0], 0.05));
    T_FAILS(pysock_ssl_do_handshake(pair[0]), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    T_FAILS(pysock_recv(pair[0], &byte, 1, 0), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    T_OK(pysock_setblocking(pair[0], 0));
    T_FAILS(pysock_ssl_do_handshake(pair[0]), PYSOCK_OS_ERROR, EINPROGRESS);
    T_EQ(t_writable(pair[0], 0), 0);
    T_STEP("now the server takes part");
    T_OK(pysock_setblocking(pair[1], 0));
    T_OK(pysock_ssl_wrap_socket(pair[1], server_ctx, NULL));
    T_EQ(t_writable(pair[0], PYSOCK_NO_TIMEOUT), 1);
    T_EQ(pysock_ssl_do_handshake(pair[0]), 0);
    t_say(pair[0], "switched");
    t_expect(pair[1], "switched");
    t_close_pair(pair);
}

/* A handshake that a blocking call has begun goes on by itself once the socket does not block any
   more, whether it is asked for again or not. */
T_TEST(a_handshake_goes_on_by_itself_when_its_socket_becomes_non_blocking, 60) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    pysock *pair[2];
    for (int side = 0; side < 2; side++) {
        T_STEP("side %d", side);
        h_plain_pair(pair);
        t_wrap_later(pair[0], client, "localhost");
        t_wrap_later(pair[1], server, NULL);
        T_OK(pysock_settimeout(pair[side], 0.01));
        T_FAILS(pysock_ssl_do_handshake(pair[side]), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
        T_OK(pysock_setblocking(pair[side], 0));
        T_OK(pysock_settimeout(pair[!side], H_TIMEOUT));
        T_EQ(pysock_ssl_do_handshake(pair[!side]), 0);
        t_close_pair(pair);
    }
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

static void *handshake_to_its_end(void *arg) {
    pysock *s = arg;
    while (t_in_progress(pysock_ssl_do_handshake(s)))
        T_EQ(t_writable(s, PYSOCK_NO_TIMEOUT), 1);
    return NULL;
}

/* The switch comes while a blocking call sleeps in the handshake. */
T_TEST(a_switch_to_nonblocking_under_a_sleeping_handshake_loses_nothing, 60) {
    pysock *pair[2];
    t_thread client;
    t_pair(pair);
    t_wrap_later(pair[0], client_ctx, "localhost");
    t_spawn(&client, handshake_to_its_end, pair[0]);
    t_wait_asleep(&client);
    T_OK(pysock_setblocking(pair[0], 0));
    T_OK(pysock_setblocking(pair[1], 0));
    T_OK(pysock_ssl_wrap_socket(pair[1], server_ctx, NULL));
    T_EQ(t_writable(pair[1], PYSOCK_NO_TIMEOUT), 1);
    t_join(&client);
    T_EQ(pysock_ssl_do_handshake(pair[0]), 0);
    t_say(pair[0], "switched");
    t_expect(pair[1], "switched");
    t_close_pair(pair);
}

typedef struct flip_job {
    pysock *pair[2];
    int stop; /* atomic */
} flip_job;

static void *flip_thread(void *arg) {
    flip_job *job = arg;
    for (int i = 0; !__atomic_load_n(&job->stop, __ATOMIC_ACQUIRE); i++) {
        T_OK(pysock_setblocking(job->pair[0], i & 1));
        T_OK(pysock_settimeout(job->pair[1], i & 1 ? 0 : 60));
        spin(2e-5);
    }
    return NULL;
}

/* Modes flip at any moment; whoever drives, both ends get there. */
T_TEST(a_mode_may_flip_at_any_moment_of_a_handshake, 120) {
    for (int i = 0; i < T_SCALE(400, 60); i++) {
        flip_job job;
        t_thread server, flipper;
        T_STEP("round %d", i);
        job.stop = 0;
        T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, job.pair));
        t_wrap_later(job.pair[0], client_ctx, "localhost");
        t_wrap_later(job.pair[1], server_ctx, NULL);
        t_spawn(&flipper, flip_thread, &job);
        t_spawn(&server, handshake_to_its_end, job.pair[1]);
        handshake_to_its_end(job.pair[0]);
        t_join(&server);
        __atomic_store_n(&job.stop, 1, __ATOMIC_RELEASE);
        t_join(&flipper);
        t_say(job.pair[0], "x");
        t_expect(job.pair[1], "x");
        t_close_pair(job.pair);
    }
}

/* ---- several threads, one socket ---- */

typedef struct stream_job {
    pysock *s;
    uint64_t total;
    unsigned int seed;
} stream_job;

static void *write_stream(void *arg) {
    stream_job *job = arg;
    unsigned char buf[20011];
    for (uint64_t done = 0; done < job->total;) {
        size_t size = (size_t)(done * 7 % sizeof buf) + 1;
        ptrdiff_t n;
        if (size > job->total - done)
            size = (size_t)(job->total - done);
        t_fill(buf, size, done, job->seed);
        n = pysock_send(job->s, buf, size, 0);
        if (n < 0 && errno == EAGAIN) {
            T_EQ(t_writable(job->s, PYSOCK_NO_TIMEOUT), 1);
            continue;
        }
        done += (uint64_t)T_OK(n);
    }
    return NULL;
}

static void *read_stream(void *arg) {
    stream_job *job = arg;
    unsigned char buf[16001];
    for (uint64_t done = 0; done < job->total;) {
        ptrdiff_t n = pysock_recv(job->s, buf, (size_t)(done * 11 % sizeof buf) + 1, 0);
        if (n < 0 && errno == EAGAIN) {
            T_EQ(t_readable(job->s, PYSOCK_NO_TIMEOUT), 1);
            continue;
        }
        T_CHECK(T_OK(n) > 0);
        t_verify(buf, (size_t)n, done, job->seed);
        done += (uint64_t)n;
    }
    return NULL;
}

T_TEST(one_thread_reads_and_one_writes_one_tls_socket, 200) {
    static const double modes[] = {PYSOCK_NO_TIMEOUT, 60, 0};
    for (int m = 0; m < 3; m++) {
        uint64_t total = (uint64_t)T_SCALE(8 * 1024 * 1024 + 3, 512 * 1024 + 3);
        pysock *pair[2];
        stream_job jobs[4];
        t_thread threads[4];
        T_STEP("timeout %g", modes[m]);
        t_tls_pair(pair, client_ctx, server_ctx);
        for (int i = 0; i < 4; i++) {
            jobs[i].s = pair[i % 2];
            jobs[i].total = total;
            jobs[i].seed = (unsigned int)(i == 0 || i == 3 ? 5 : 6);
            T_OK(pysock_settimeout(jobs[i].s, modes[m]));
            t_spawn(&threads[i], i < 2 ? write_stream : read_stream, &jobs[i]);
        }
        for (int i = 0; i < 4; i++)
            t_join(&threads[i]);
        t_close_pair(pair);
    }
}

typedef struct recv_job {
    pysock *s;
    char buf[64];
    ptrdiff_t n;
} recv_job;

static void *recv_thread(void *arg) {
    recv_job *job = arg;
    job->n = T_OK(pysock_recv(job->s, job->buf, sizeof job->buf, 0));
    return NULL;
}

T_TEST(a_recv_that_waits_does_not_hold_up_a_send, 60) {
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        recv_job job;
        t_thread t;
        plain_or_tls_pair(pair, tls);
        job.s = pair[0];
        t_spawn(&t, recv_thread, &job);
        t_wait_asleep(&t);
        t_say(pair[0], "question");
        t_expect(pair[1], "question");
        t_say(pair[1], "answer");
        t_join(&t);
        T_EQ(job.n, 6);
        t_close_pair(pair);
    }
}

static void *flood_thread(void *arg) {
    T_FAILS(pysock_sendall(arg, t_flood(), T_FLOOD, 0), T_ANY, T_ANY);
    return NULL;
}

T_TEST(a_send_that_waits_does_not_hold_up_a_recv, 60) {
    (void)t_flood();
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        t_thread t;
        plain_or_tls_pair(pair, tls);
        t_spawn(&t, flood_thread, pair[0]);
        t_wait_asleep(&t);
        t_say(pair[1], "still listening");
        t_expect(pair[0], "still listening");
        T_OK(pysock_close(pair[0]));
        t_join(&t);
        T_OK(pysock_close(pair[1]));
    }
}

typedef struct letter_job {
    pysock *s;
    char letter;
    int rounds;
} letter_job;

static void *letter_thread(void *arg) {
    letter_job *job = arg;
    char text[999];
    memset(text, job->letter, sizeof text);
    for (int i = 0; i < job->rounds; i++)
        T_OK(pysock_sendall(job->s, text, sizeof text, 0));
    return NULL;
}

T_TEST(many_threads_may_send_on_one_tls_socket, 120) {
    enum { N = 4 };
    pysock *pair[2];
    letter_job jobs[N];
    t_thread threads[N];
    size_t counts[256] = {0}, have = 0;
    int rounds = T_SCALE(500, 60);
    size_t total = (size_t)rounds * 999 * N;
    t_tls_pair(pair, client_ctx, server_ctx);
    for (int i = 0; i < N; i++) {
        jobs[i].s = pair[0];
        jobs[i].letter = (char)('a' + i);
        jobs[i].rounds = rounds;
        t_spawn(&threads[i], letter_thread, &jobs[i]);
    }
    while (have < total) {
        unsigned char buf[4096];
        ptrdiff_t n = T_OK(pysock_recv(pair[1], buf, sizeof buf, 0));
        T_CHECK(n > 0);
        for (ptrdiff_t k = 0; k < n; k++)
            counts[buf[k]]++;
        have += (size_t)n;
    }
    for (int i = 0; i < N; i++) {
        t_join(&threads[i]);
        T_EQ(counts['a' + i], (size_t)rounds * 999);
    }
    t_close_pair(pair);
}

static void *recv_one(void *arg) {
    char byte;
    pysock *s = arg;
    T_EQ(pysock_recv(s, &byte, 1, 0), 1);
    return NULL;
}

/* Two blocking calls on one silent handshake take turns only when something happens. */
T_TEST(two_callers_of_one_handshake_sleep, 60) {
    pysock *pair[2];
    pysock_ssl_wrap_options later = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    t_thread t[2];
    double cpu;
    t_pair(pair);
    later.no_handshake_on_connect = 1;
    T_OK(pysock_ssl_wrap_socket_ex(pair[1], server_ctx, &later));
    for (int i = 0; i < 2; i++)
        t_spawn(&t[i], recv_one, pair[1]);
    for (int i = 0; i < 2; i++)
        t_wait_asleep(&t[i]);
    cpu = t_process_cpu();
    t_nap(0.3);
    T_CHECK(t_process_cpu() - cpu < 0.15);
    T_OK(pysock_ssl_wrap_socket(pair[0], client_ctx, "localhost"));
    T_OK(pysock_sendall(pair[0], "ab", 2, 0));
    for (int i = 0; i < 2; i++)
        t_join(&t[i]);
    T_OK(pysock_close(pair[0]));
    T_OK(pysock_close(pair[1]));
}

/* ---- several waiters, one socket ---- */

typedef struct watch_job {
    pysock *s;
    pysock_poller *p; /* NULL: by select */
    int rounds;
    sem_t *seen;
    sem_t go;
} watch_job;

static void *watch_thread(void *arg) {
    watch_job *job = arg;
    for (int i = 0; i < job->rounds; i++) {
        pysock_pollevent event = {-1, 0, NULL};
        if (job->p) {
            T_EQ(T_OK(pysock_poller_poll(job->p, &event, 1, PYSOCK_NO_TIMEOUT)), 1);
            T_EQ(event.events, POLLIN);
        } else {
            T_EQ(t_readable(job->s, PYSOCK_NO_TIMEOUT), 1);
        }
        sem_post(job->seen);
        t_sem_take(&job->go);
    }
    return NULL;
}

T_TEST(one_socket_is_watched_by_two_selects_and_a_poller, 120) {
    for (int tls = 0; tls < 2; tls++) {
        int rounds = T_SCALE(2000, 200);
        pysock *pair[2];
        watch_job jobs[3];
        t_thread threads[3];
        sem_t seen;
        plain_or_tls_pair(pair, tls);
        T_EQ(sem_init(&seen, 0, 0), 0);
        for (int i = 0; i < 3; i++) {
            jobs[i].s = pair[1];
            jobs[i].p = i == 2 ? t_poller_with(pysock_fileno(pair[1]), POLLIN) : NULL;
            jobs[i].rounds = rounds;
            jobs[i].seen = &seen;
            T_EQ(sem_init(&jobs[i].go, 0, 0), 0);
            t_spawn(&threads[i], watch_thread, &jobs[i]);
        }
        for (int i = 0; i < rounds; i++) {
            t_say(pair[0], "x");
            for (int k = 0; k < 3; k++)
                t_sem_take(&seen);
            t_expect(pair[1], "x");
            for (int k = 0; k < 3; k++)
                sem_post(&jobs[k].go);
        }
        for (int i = 0; i < 3; i++) {
            t_join(&threads[i]);
            pysock_poller_release(jobs[i].p);
            sem_destroy(&jobs[i].go);
        }
        sem_destroy(&seen);
        t_close_pair(pair);
    }
}

/* ---- close while someone waits ---- */

static void expect_closed(const t_waiter *w) {
    if (w->what == T_WAIT_POLLER) {
        T_EQ(w->result, 1);
        T_EQ(w->event.events, POLLNVAL);
        return;
    }
    T_EQ(w->result, -1);
    T_EQ(w->kind, PYSOCK_OS_ERROR);
    T_EQ(w->code, EBADF);
}

static void close_under(t_wait_kind what, int tls, double timeout) {
    t_stage st;
    t_thread t;
    T_STEP("%s, timeout %g", tls ? "TLS" : "plain", timeout);
    t_stage_set(&st, what, tls, timeout, client_ctx, server_ctx);
    t_spawn(&t, t_wait_thread, &st.w);
    t_wait_asleep(&t);
    T_OK(pysock_close(st.w.s));
    t_join(&t);
    expect_closed(&st.w);
    t_stage_clear(&st);
}

static void close_under_all(t_wait_kind what) {
    for (int tls = what == T_WAIT_HANDSHAKE || what == T_WAIT_UNWRAP; tls < 2; tls++) {
        close_under(what, tls, PYSOCK_NO_TIMEOUT);
        close_under(what, tls, 60);
    }
}

#define CLOSE_TEST(name, what)                                                                     \
    T_TEST(name, 60) {                                                                             \
        (void)t_flood();                                                                           \
        close_under_all(what);                                                                     \
    }

CLOSE_TEST(close_from_another_thread_ends_a_recv, T_WAIT_RECV)
CLOSE_TEST(close_from_another_thread_ends_an_accept, T_WAIT_ACCEPT)
CLOSE_TEST(close_from_another_thread_ends_a_connect, T_WAIT_CONNECT)
CLOSE_TEST(close_from_another_thread_ends_a_handshake, T_WAIT_HANDSHAKE)
CLOSE_TEST(close_from_another_thread_ends_a_sendall, T_WAIT_SENDALL)
CLOSE_TEST(close_from_another_thread_ends_a_send_buf, T_WAIT_SEND_BUF)
CLOSE_TEST(close_from_another_thread_ends_an_unwrap, T_WAIT_UNWRAP)
CLOSE_TEST(close_from_another_thread_ends_a_select, T_WAIT_SELECT)
CLOSE_TEST(close_from_another_thread_is_POLLNVAL_to_a_poller, T_WAIT_POLLER)

/* The descriptors that a stage makes get numbers which nothing made later is given: who selects on
   one that was closed a moment ago must not find another one there. */
static void stage_set_out_of_reach(t_stage *st, t_wait_kind what, int tls, double timeout) {
    int low[48];
    for (int i = 0; i < 48; i++) {
        low[i] = dup(STDERR_FILENO);
        T_CHECK(low[i] >= 0);
    }
    t_stage_set(st, what, tls, timeout, client_ctx, server_ctx);
    for (int i = 0; i < 48; i++)
        close(low[i]);
}

/* Not asleep for sure, but at any moment on the way there. */
T_TEST(close_at_any_moment_of_a_wait_ends_it, 200) {
    static const t_wait_kind kinds[] = {T_WAIT_RECV, T_WAIT_SELECT, T_WAIT_POLLER, T_WAIT_HANDSHAKE,
                                        T_WAIT_ACCEPT};
    unsigned int random = 2463534242u;
    for (int i = 0; i < T_SCALE(2000, 200); i++) {
        t_wait_kind what = kinds[(size_t)i % (sizeof kinds / sizeof kinds[0])];
        t_stage st;
        t_thread t;
        T_STEP("round %d, kind %d", i, (int)what);
        stage_set_out_of_reach(&st, what, i / 5 % 2 || what == T_WAIT_HANDSHAKE,
                               i % 3 ? PYSOCK_NO_TIMEOUT : 60);
        t_spawn(&t, t_wait_thread, &st.w);
        spin((double)(next_random(&random) % 150) * 1e-6);
        T_OK(pysock_close(st.w.s));
        t_join(&t);
        if (what == T_WAIT_SELECT && st.w.code == EINVAL) /* it was closed before fileno() */
            T_EQ(st.w.result, -1);
        else
            expect_closed(&st.w);
        t_stage_clear(&st);
    }
}

/* ---- peers that misbehave ---- */

T_TEST(a_peer_that_sends_one_byte_of_a_record_and_stops_harms_nobody, 60) {
    unsigned char record[T_RECORD];
    pysock *pair[2], *other[2];
    t_proxy proxy;
    size_t size;
    char byte;
    double start;
    t_tls_pair_by_proxy(pair, &proxy, client_ctx, server_ctx);
    t_tls_pair(other, client_ctx, server_ctx);
    t_say(pair[1], "late but whole");
    size = t_raw_record(proxy.to_server, record);
    t_raw_write(proxy.to_client, record, 1);
    T_STEP("a timed recv keeps its deadline");
    T_OK(pysock_settimeout(pair[0], 0.1));
    start = t_now();
    T_FAILS(pysock_recv(pair[0], &byte, 1, 0), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    T_CHECK(t_now() - start >= 0.09);
    T_STEP("a non-blocking one does not wait");
    T_OK(pysock_setblocking(pair[0], 0));
    T_FAILS(pysock_recv(pair[0], &byte, 1, 0), PYSOCK_OS_ERROR, EAGAIN);
    T_STEP("other connections go on");
    t_say(other[0], "meanwhile");
    t_expect(other[1], "meanwhile");
    T_STEP("the rest of the record");
    t_raw_write(proxy.to_client, record + 1, size - 1);
    t_expect(pair[0], "late but whole");
    t_close_pair(pair);
    t_close_pair(other);
    t_proxy_close(&proxy);
}

T_TEST(a_client_that_sends_one_byte_of_a_hello_holds_up_nobody, 60) {
    pysock *slow, *listener, *pair[2];
    int port, fd;
    listener = t_listen(&port);
    fd = t_raw_connect(port);
    slow = T_OK(pysock_accept(listener, NULL));
    T_OK(pysock_setblocking(slow, 0));
    T_OK(pysock_ssl_wrap_socket(slow, server_ctx, NULL));
    t_raw_write(fd, "\x16", 1);
    T_FAILS(pysock_ssl_do_handshake(slow), PYSOCK_OS_ERROR, EINPROGRESS);
    T_STEP("a whole handshake on the same reactor");
    t_pair(pair);
    wrap_both_nonblocking(pair);
    T_EQ(t_writable(pair[0], PYSOCK_NO_TIMEOUT), 1);
    T_EQ(t_writable(pair[1], PYSOCK_NO_TIMEOUT), 1);
    t_say(pair[0], "through");
    t_expect(pair[1], "through");
    T_FAILS(pysock_ssl_do_handshake(slow), PYSOCK_OS_ERROR, EINPROGRESS);
    T_OK(pysock_settimeout(slow, 0.1));
    T_FAILS(pysock_ssl_do_handshake(slow), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    close(fd);
    t_close_pair(pair);
    T_OK(pysock_close(slow));
    T_OK(pysock_close(listener));
}

T_TEST(a_silent_client_does_not_hold_up_accept_on_a_tls_listener, 60) {
    pysock *listener, *silent, *child, *client;
    int port, fd;
    char byte;
    listener = t_listen(&port);
    T_OK(pysock_ssl_wrap_socket(listener, server_ctx, NULL));
    fd = t_raw_connect(port);
    silent = T_OK(pysock_accept(listener, NULL));
    client = T_OK(pysock_create_connection("127.0.0.1", port, PYSOCK_NO_TIMEOUT));
    T_OK(pysock_setblocking(client, 0));
    T_OK(pysock_ssl_wrap_socket(client, client_ctx, "localhost"));
    child = T_OK(pysock_accept(listener, NULL));
    T_STEP("the first call on the child does its handshake");
    t_say(child, "welcome");
    t_expect(client, "welcome");
    T_OK(pysock_setblocking(silent, 0));
    T_FAILS(pysock_recv(silent, &byte, 1, 0), PYSOCK_OS_ERROR, EAGAIN);
    close(fd);
    T_OK(pysock_close(silent));
    T_OK(pysock_close(child));
    T_OK(pysock_close(client));
    T_OK(pysock_close(listener));
}

T_TEST(a_peer_that_never_reads_stops_sends_but_not_the_sender, 120) {
    (void)t_flood();
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        double start;
        ptrdiff_t n;
        plain_or_tls_pair(pair, tls);
        T_STEP("%s: a timed sendall keeps its deadline", tls ? "TLS" : "plain");
        T_OK(pysock_settimeout(pair[0], 0.3));
        start = t_now();
        T_FAILS(pysock_sendall(pair[0], t_flood(), T_FLOOD, 0), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
        T_CHECK(t_now() - start >= 0.29);
        T_STEP("a non-blocking send takes nothing");
        T_OK(pysock_setblocking(pair[0], 0));
        while ((n = pysock_send(pair[0], t_flood(), 65536, 0)) >= 0)
            T_CHECK(n > 0);
        T_EQ(errno, EAGAIN);
        T_EQ(pysock_error(), PYSOCK_OS_ERROR);
        T_EQ(t_writable(pair[0], 0), 0);
        T_STEP("close does not wait for it");
        start = t_now();
        T_OK(pysock_close(pair[0]));
        T_CHECK(t_now() - start < 10);
        T_OK(pysock_close(pair[1]));
    }
}

/* What close() leaves to the reactor ends within a bound, even if the peer never reads a byte. */
T_TEST(a_close_that_cannot_flush_is_given_up, 60) {
    char link[64], before[64], now[64];
    pysock *pair[2];
    ssize_t n;
    t_tls_pair(pair, client_ctx, server_ctx);
    T_OK(pysock_setblocking(pair[0], 0));
    while (pysock_send(pair[0], t_flood(), 65536, 0) > 0)
        continue;
    snprintf(link, sizeof link, "/proc/self/fd/%d", pysock_fileno(pair[0]));
    n = readlink(link, before, sizeof before - 1);
    T_CHECK(n > 0);
    before[n] = 0;
    T_OK(pysock_close(pair[0]));
    T_STEP("waiting until the descriptor is gone");
    for (;;) {
        n = readlink(link, now, sizeof now - 1);
        now[n > 0 ? n : 0] = 0;
        if (strcmp(now, before) != 0)
            break;
        t_nap(0.05);
    }
    T_OK(pysock_close(pair[1]));
}

/* ---- what is no TLS at all ---- */

/* Gives a server these bytes as its client's first; returns with the error in this thread and the
   server still open. */
static pysock *serve_garbage(pysock *listener, int fd, const void *bytes, size_t size,
                             int nonblocking) {
    pysock *s = T_OK(pysock_accept(listener, NULL));
    char byte;
    t_raw_write(fd, bytes, size);
    if (!nonblocking) {
        T_FAILS(pysock_ssl_wrap_socket(s, server_ctx, NULL), T_ANY, EPROTO);
        return s;
    }
    T_OK(pysock_setblocking(s, 0));
    (void)pysock_ssl_wrap_socket(s, server_ctx, NULL);
    T_EQ(t_readable(s, PYSOCK_NO_TIMEOUT), 1);
    T_EQ(t_writable(s, PYSOCK_NO_TIMEOUT), 1);
    T_FAILS(pysock_recv(s, &byte, 1, 0), T_ANY, EPROTO);
    T_FAILS(pysock_ssl_do_handshake(s), T_ANY, EPROTO);
    return s;
}

T_TEST(garbage_instead_of_a_client_hello_is_refused, 60) {
    static unsigned char zeros[600], ones[600], noise[600];
    const struct {
        const void *bytes;
        size_t size;
        const char *reason;
    } cases[] = {{"SSH-2.0-OpenSSH_9.2p1\r\n", 23, "WRONG_VERSION_NUMBER"},
                 {zeros, sizeof zeros, "WRONG_VERSION_NUMBER"},
                 {ones, sizeof ones, "WRONG_VERSION_NUMBER"},
                 {noise, sizeof noise, NULL},
                 {"\x16\x03\x01\xff\xff\x01\x00\x00\x00\x00\x00\x00", 12, NULL},
                 {"\x17\x03\x03\x00\x10xxxxxxxxxxxxxxxx", 21, NULL},
                 {"\x16\x03\x01\x00\x04\x01\x00\x00\x00", 9, NULL}};
    pysock *listener;
    int port;
    memset(ones, 0xff, sizeof ones);
    t_fill(noise, sizeof noise, 0, 9);
    noise[0] = 0x99;
    listener = t_listen(&port);
    for (size_t i = 0; i < 2 * sizeof cases / sizeof cases[0]; i++) {
        int fd = t_raw_connect(port);
        pysock *s;
        T_STEP("case %zu", i / 2);
        s = serve_garbage(listener, fd, cases[i / 2].bytes, cases[i / 2].size, i % 2);
        T_CHECK(pysock_error() == PYSOCK_SSL_ERROR);
        if (cases[i / 2].reason && strcmp(pysock_error_reason(), cases[i / 2].reason) != 0)
            T_FAIL("reason %s: %s", pysock_error_reason(), pysock_error_message());
        T_OK(pysock_close(s));
        close(fd);
    }
    T_OK(pysock_close(listener));
}

static void expect_alert(int fd) {
    unsigned char alert[8];
    T_EQ(t_raw_read(fd, alert, 7), 7);
    T_EQ(alert[0], 0x15);
    T_EQ(alert[1], 3);
    T_EQ(alert[3], 0);
    T_EQ(alert[4], 2);
    T_EQ(alert[5], 2);
}

T_TEST(a_plain_http_client_on_a_tls_port_is_told_so, 60) {
    static const char *const requests[] = {"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
                                           "POST /x HTTP/1.0\r\n\r\n", "HEAD / HTTP/1.0\r\n\r\n"};
    pysock *listener;
    int port;
    listener = t_listen(&port);
    for (size_t i = 0; i < 2 * sizeof requests / sizeof requests[0]; i++) {
        const char *request = requests[i / 2];
        int fd = t_raw_connect(port);
        pysock *s;
        T_STEP("%.8s", request);
        s = serve_garbage(listener, fd, request, strlen(request), i % 2);
        T_EQ(pysock_error(), PYSOCK_SSL_ERROR);
        T_CHECK(strcmp(pysock_error_reason(), "HTTP_REQUEST") == 0);
        if (i / 2) { /* the alert is on its way whether or not the server closes at once */
            T_OK(pysock_close(s));
            expect_alert(fd);
        } else {
            expect_alert(fd);
            T_OK(pysock_close(s));
        }
        close(fd);
    }
    T_OK(pysock_close(listener));
}

/* A TLS client that talks to a plain server: what comes back is no TLS either. */
T_TEST(a_plain_server_is_no_tls_server, 60) {
    pysock *pair[2];
    t_pair(pair);
    t_say(pair[1], "220 mail.example.test ESMTP\r\n");
    T_FAILS(pysock_ssl_wrap_socket(pair[0], client_ctx, "localhost"), PYSOCK_SSL_ERROR, EPROTO);
    T_CHECK(strcmp(pysock_error_reason(), "WRONG_VERSION_NUMBER") == 0);
    t_close_pair(pair);
}

/* A real hello with bytes of it changed: the server fails or waits for more, and comes to an end
   in any case when the client does. */
T_TEST(a_mutated_client_hello_never_crashes_a_server, 200) {
    unsigned char hello[T_RECORD], mutated[T_RECORD];
    unsigned int random = 521288629u;
    int raw_port, port, raw, peer;
    pysock *client, *listener;
    size_t size;
    raw = t_raw_listen(&raw_port);
    client = T_OK(pysock_create_connection("127.0.0.1", raw_port, PYSOCK_NO_TIMEOUT));
    T_OK(pysock_setblocking(client, 0));
    T_OK(pysock_ssl_wrap_socket(client, client_ctx, "localhost"));
    peer = t_raw_accept(raw);
    size = t_raw_record(peer, hello);
    T_CHECK(size > 50);
    close(peer);
    close(raw);
    T_OK(pysock_close(client));

    listener = t_listen(&port);
    for (int i = 0; i < T_SCALE(1500, 200); i++) {
        int fd = t_raw_connect(port);
        pysock *s = T_OK(pysock_accept(listener, NULL));
        size_t cut = next_random(&random) % 8 ? size : next_random(&random) % size;
        if (i % 100 == 0)
            T_STEP("mutation %d", i);
        memcpy(mutated, hello, size);
        for (unsigned int k = next_random(&random) % 4 + 1; k > 0; k--)
            mutated[next_random(&random) % size] = (unsigned char)next_random(&random);
        t_raw_write(fd, mutated, cut);
        T_EQ(shutdown(fd, SHUT_WR), 0);
        T_FAILS(pysock_ssl_wrap_socket(s, server_ctx, NULL), T_ANY, T_ANY);
        T_OK(pysock_close(s));
        close(fd);
    }
    T_OK(pysock_close(listener));
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts)
