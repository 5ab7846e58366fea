/* How a socket ends: what was promised at a close arrives, whoever else is in a call; a peer that
   takes nothing is given so much time and no more. How much, each test says. */
static double close_timeout;

#define PYSOCK_IMPLEMENTATION
#define PYSOCK_CLOSE_TIMEOUT close_timeout
#include "pysock.h"

#include "support/contexts.h"
#include "support/steps.h"

#define MUCH ((size_t)8 << 20) /* more than any kernel takes at once */

static int tear_down(void **state) {
    (void)state;
    pysock_set_audit_hook(NULL, NULL);
    return 0;
}

/* Queues so much, of the pattern, in pieces. */
static void queue_much(pysock *s) {
    size_t done;
    T_OK(pysock_set_watermarks(s, MUCH, 2 * MUCH));
    for (done = 0; done < MUCH; done += 65536) {
        pysock_buf *b = T_OK(pysock_buf_copy(t_bytes(done, 3), 65521));
        T_OK(pysock_send_buf(s, b));
        pysock_buf_release(b);
        b = T_OK(pysock_buf_copy(t_bytes(done + 65521, 3), 65536 - 65521));
        T_OK(pysock_send_buf(s, b));
        pysock_buf_release(b);
    }
    T_CHECK(pysock_queued(s) > 0);
}

/* All of it has come, whole, and then the end. */
static void expect_much(pysock *s) {
    static unsigned char buf[65521];
    size_t have = 0;
    ptrdiff_t n;
    while ((n = T_OK(pysock_recv(s, buf, sizeof buf, 0))) > 0) {
        t_verify(buf, (size_t)n, have, 3);
        have += (size_t)n;
    }
    T_EQ(have, MUCH);
}

/* ---- calls under way ---- */

typedef struct reading {
    pysock *s;
    int fd; /* for select */
    ptrdiff_t result;
    int code;
} reading;

static void *recv_thread(void *arg) {
    reading *r = arg;
    char byte;
    r->result = pysock_recv(r->s, &byte, 1, 0);
    r->code = errno;
    return NULL;
}

static void *select_thread(void *arg) {
    reading *r = arg;
    size_t n = 1;
    r->result = pysock_select(&r->fd, &n, NULL, NULL, NULL, NULL, PYSOCK_NO_TIMEOUT);
    r->code = errno;
    return NULL;
}

/* Queues, closes under somebody who reads, and only then does the peer begin to read. */
static void close_under_a_reader(int tls, double timeout, void *(*run)(void *arg)) {
    reading r;
    pysock *pair[2];
    t_thread t;
    memset(&r, 0, sizeof r);
    close_timeout = 60;
    plain_or_tls_pair(pair, tls);
    r.s = pair[0];
    r.fd = T_OK(pysock_fileno(r.s));
    T_OK(pysock_settimeout(r.s, timeout));
    T_OK(pysock_settimeout(pair[1], 50));
    t_spawn(&t, run, &r);
    t_wait_asleep(&t);
    queue_much(r.s);
    T_OK(pysock_close(r.s));
    t_join(&t);
    T_EQ(r.result, -1);
    T_EQ(r.code, EBADF);
    expect_much(pair[1]);
    T_OK(pysock_close(pair[1]));
}

T_TEST(a_close_loses_nothing_under_a_reader_in_the_kernel, 100) {
    close_under_a_reader(0, PYSOCK_NO_TIMEOUT, recv_thread);
}

T_TEST(a_close_loses_nothing_under_a_tls_reader_in_the_kernel, 100) {
    close_under_a_reader(1, PYSOCK_NO_TIMEOUT, recv_thread);
}

T_TEST(a_close_loses_nothing_under_a_reader_with_a_timeout, 100) {
    close_under_a_reader(0, 60, recv_thread);
    close_under_a_reader(1, 60, recv_thread);
}

T_TEST(a_close_loses_nothing_under_a_select, 100) {
    close_under_a_reader(0, PYSOCK_NO_TIMEOUT, select_thread);
    close_under_a_reader(1, PYSOCK_NO_TIMEOUT, select_thread);
}

/* ---- in the middle of a handshake's step ---- */

/* What was queued behind the handshake is sent when it is over, and so is the end. */
T_TEST(a_close_in_the_middle_of_a_handshake_loses_nothing, 60) {
    pysock_ssl_context *ctx = t_server_ctx();
    pysock_buf *b = T_OK(pysock_buf_copy("good day", 8));
    pysock *pair[2];
    t_thread t;
    char byte;
    close_timeout = 60;
    stop_a_handshake(pair, ctx, &t);
    T_OK(pysock_send_buf(pair[1], b));
    T_OK(pysock_close(pair[1]));
    t_nap(0.02); /* for the reactor to have a turn or two, were it free; nothing depends on it */
    let_it_go();
    t_join(&t);
    t_expect(pair[0], "good day");
    T_EQ(pysock_recv(pair[0], &byte, 1, 0), 0);
    T_EQ(pysock_ssl_eof_is_clean(pair[0]), 1);
    T_OK(pysock_close(pair[0]));
    pysock_buf_release(b);
    pysock_ssl_context_release(ctx);
}

static void *handshake_thread(void *arg) {
    (void)pysock_ssl_do_handshake(arg); /* it is closed meanwhile */
    return NULL;
}

/* The same where a call drives, and the reactor has its turns in the middle of it. */
T_TEST(a_close_in_the_middle_of_a_callers_step_loses_nothing, 60) {
    pysock_ssl_context *ctx = t_server_ctx();
    pysock_buf *b = T_OK(pysock_buf_copy("good day", 8));
    pysock *pair[2];
    t_thread server, client;
    int fd;
    T_EQ(sem_init(&in_step, 0, 0), 0);
    T_EQ(sem_init(&step_may_end, 0, 0), 0);
    T_OK(pysock_ssl_set_sni_callback(ctx, stop_in_the_step, NULL));
    close_timeout = 60;
    t_pair(pair);
    T_OK(pysock_settimeout(pair[0], 50));
    t_wrap_later(pair[1], ctx, NULL);
    t_spawn(&server, handshake_thread, pair[1]);
    t_spawn(&client, client_thread, pair[0]);
    t_sem_take(&in_step);
    T_OK(pysock_setblocking(pair[1], 0));
    T_OK(pysock_send_buf(pair[1], b));
    fd = T_OK(pysock_fileno(pair[1]));
    T_OK(pysock_close(pair[1]));
    t_nap(0.05); /* for the reactor's turns; nothing depends on it */
    T_CHECK(fcntl(fd, F_GETFD) >= 0);
    let_it_go();
    t_join(&server);
    t_join(&client);
    t_expect(pair[0], "good day");
    T_OK(pysock_close(pair[0]));
    pysock_buf_release(b);
    pysock_ssl_context_release(ctx);
}

/* The reactor reads and writes the descriptor: it is not handed out now. */
T_TEST(a_descriptor_is_not_handed_out_in_the_middle_of_a_step, 60) {
    pysock_ssl_context *ctx = t_server_ctx();
    pysock *pair[2];
    t_thread t;
    close_timeout = 60;
    stop_a_handshake(pair, ctx, &t);
    T_FAILS(pysock_detach(pair[1]), PYSOCK_OS_ERROR, EAGAIN);
    T_OK(pysock_fileno(pair[1]));
    let_it_go();
    t_join(&t);
    t_say(pair[0], "good day");
    T_OK(pysock_settimeout(pair[1], 50));
    t_expect(pair[1], "good day");
    t_close_pair(pair);
    pysock_ssl_context_release(ctx);
}

/* No call that must not wait waits for the step. */
T_TEST(a_call_that_must_not_wait_waits_for_no_step, 60) {
    pysock_ssl_context *ctx = t_server_ctx();
    pysock *pair[2];
    t_thread t;
    char byte;
    close_timeout = 60;
    stop_a_handshake(pair, ctx, &t);
    T_FAILS(pysock_recv(pair[1], &byte, 1, 0), PYSOCK_OS_ERROR, EAGAIN);
    T_FAILS(pysock_send(pair[1], "x", 1, 0), PYSOCK_OS_ERROR, EAGAIN);
    T_FAILS(pysock_ssl_do_handshake(pair[1]), PYSOCK_OS_ERROR, EINPROGRESS);
    T_EQ(t_readable(pair[1], 0), 0);
    T_EQ(t_writable(pair[1], 0), 0);
    let_it_go();
    t_join(&t);
    t_close_pair(pair);
    pysock_ssl_context_release(ctx);
}

/* ---- peers that take nothing ---- */

/* What is left goes nowhere: after so long the descriptor is closed, and not before. */
static void close_before_a_deaf_peer(int tls, int deny) {
    pysock *pair[2];
    double begin;
    int fd;
    close_timeout = 1;
    if (deny)
        pysock_set_audit_hook(t_deny_threads, NULL);
    plain_or_tls_pair(pair, tls);
    T_OK(pysock_setblocking(pair[0], 0));
    queue_much(pair[0]);
    fd = T_OK(pysock_fileno(pair[0]));
    begin = t_now();
    T_OK(pysock_close(pair[0]));
    T_CHECK(t_now() - begin < 0.9); /* the close itself waits for nobody */
    while (fcntl(fd, F_GETFD) >= 0)
        if (deny)
            T_EQ(pysock_select(NULL, NULL, NULL, NULL, NULL, NULL, 0.01), 0);
        else
            t_nap(0.01);
    T_CHECK(t_now() - begin > 0.99);
    T_OK(pysock_close(pair[1]));
}

T_TEST(a_close_gives_a_deaf_peer_so_long_and_no_longer, 30) {
    close_before_a_deaf_peer(0, 0);
    close_before_a_deaf_peer(1, 0);
}

T_TEST(a_close_without_a_thread_gives_a_deaf_peer_as_long, 30) {
    close_before_a_deaf_peer(0, 1);
    close_before_a_deaf_peer(1, 1);
}

/* ---- sockets that are closing ---- */

/* Its output may still be on its way: it is nobody's any more. */
T_TEST(a_socket_that_is_closing_is_closed_to_every_call, 60) {
    pysock *pair[2];
    pysock_buf *b = T_OK(pysock_buf_new(1));
    int fd;
    char byte;
    for (int tls = 0; tls < 2; tls++) {
        close_timeout = 30;
        plain_or_tls_pair(pair, tls);
        T_OK(pysock_setblocking(pair[0], 0));
        queue_much(pair[0]);
        fd = T_OK(pysock_fileno(pair[0]));
        T_OK(pysock_close(pair[0]));
        T_CHECK(fcntl(fd, F_GETFD) >= 0);
        T_FAILS(pysock_fileno(pair[0]), PYSOCK_OS_ERROR, EBADF);
        T_FAILS(pysock_recv(pair[0], &byte, 1, 0), PYSOCK_OS_ERROR, EBADF);
        T_FAILS(pysock_send(pair[0], "x", 1, 0), PYSOCK_OS_ERROR, EBADF);
        T_FAILS(pysock_send_buf(pair[0], b), PYSOCK_OS_ERROR, EBADF);
        T_FAILS(pysock_settimeout(pair[0], 1), PYSOCK_OS_ERROR, EBADF);
        T_FAILS(pysock_shutdown(pair[0], SHUT_RDWR), PYSOCK_OS_ERROR, EBADF);
        T_OK(pysock_close(pair[0]));
        T_OK(pysock_settimeout(pair[1], 50));
        expect_much(pair[1]);
        T_OK(pysock_close(pair[1]));
    }
    pysock_buf_release(b);
}

/* A select that sleeps for good leads, where there is no thread: the deadline is its, too. */
T_TEST(a_sleeping_leader_keeps_the_deadlines_of_others, 30) {
    reading r;
    pysock *pair[2], *other[2];
    t_thread t;
    int fd;
    memset(&r, 0, sizeof r);
    close_timeout = 1;
    pysock_set_audit_hook(t_deny_threads, NULL);
    t_pair(pair);
    t_pair(other);
    T_OK(pysock_setblocking(pair[0], 0));
    queue_much(pair[0]); /* from here on it is known that there is no thread */
    r.s = other[0];
    t_spawn(&t, recv_thread, &r);
    t_wait_asleep(&t);
    fd = T_OK(pysock_fileno(pair[0]));
    T_OK(pysock_close(pair[0]));
    while (fcntl(fd, F_GETFD) >= 0)
        t_nap(0.01); /* this thread does nothing for it */
    t_say(other[1], "x");
    t_join(&t);
    T_EQ(r.result, 1);
    T_OK(pysock_close(pair[1]));
    t_close_pair(other);
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts, .each_teardown = tear_down)
