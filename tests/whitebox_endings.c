/* How a socket ends: what was promised at a close arrives, whoever else is in a call; a peer that
   takes nothing is given so much time and no more. How much, each test says. */
static double close_timeout;

#define PYSOCK_IMPLEMENTATION
#define PYSOCK_CLOSE_TIMEOUT close_timeout
#include "pysock.h"

#include "contexts.h"

#define MUCH ((size_t)8 << 20) /* more than any kernel takes at once */

static int deny_threads(void *arg, const pysock_audit_event *event) {
    (void)arg;
    return strcmp(event->name, "pysock.thread") == 0;
}

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
    if (tls)
        t_tls_pair(pair, client_ctx, server_ctx);
    else
        t_pair(pair);
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

static void a_close_loses_nothing_under_a_reader_in_the_kernel(void **state) {
    (void)state;
    t_deadline(100);
    close_under_a_reader(0, PYSOCK_NO_TIMEOUT, recv_thread);
}

static void a_close_loses_nothing_under_a_tls_reader_in_the_kernel(void **state) {
    (void)state;
    t_deadline(100);
    close_under_a_reader(1, PYSOCK_NO_TIMEOUT, recv_thread);
}

static void a_close_loses_nothing_under_a_reader_with_a_timeout(void **state) {
    (void)state;
    t_deadline(100);
    close_under_a_reader(0, 60, recv_thread);
    close_under_a_reader(1, 60, recv_thread);
}

static void a_close_loses_nothing_under_a_select(void **state) {
    (void)state;
    t_deadline(100);
    close_under_a_reader(0, PYSOCK_NO_TIMEOUT, select_thread);
    close_under_a_reader(1, PYSOCK_NO_TIMEOUT, select_thread);
}

/* ---- peers that take nothing ---- */

/* What is left goes nowhere: after so long the descriptor is closed, and not before. */
static void close_before_a_deaf_peer(int tls, int deny) {
    pysock *pair[2];
    double begin;
    int fd;
    close_timeout = 1;
    if (deny)
        pysock_set_audit_hook(deny_threads, NULL);
    if (tls)
        t_tls_pair(pair, client_ctx, server_ctx);
    else
        t_pair(pair);
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

static void a_close_gives_a_deaf_peer_so_long_and_no_longer(void **state) {
    (void)state;
    t_deadline(30);
    close_before_a_deaf_peer(0, 0);
    close_before_a_deaf_peer(1, 0);
}

static void a_close_without_a_thread_gives_a_deaf_peer_as_long(void **state) {
    (void)state;
    t_deadline(30);
    close_before_a_deaf_peer(0, 1);
    close_before_a_deaf_peer(1, 1);
}

/* A select that sleeps for good leads, where there is no thread: the deadline is its, too. */
static void a_sleeping_leader_keeps_the_deadlines_of_others(void **state) {
    reading r;
    pysock *pair[2], *other[2];
    t_thread t;
    int fd;
    (void)state;
    t_deadline(30);
    memset(&r, 0, sizeof r);
    close_timeout = 1;
    pysock_set_audit_hook(deny_threads, NULL);
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

#define CASE(test) cmocka_unit_test_teardown(test, tear_down)

static const struct CMUnitTest tests[] = {
    CASE(a_close_loses_nothing_under_a_reader_in_the_kernel),
    CASE(a_close_loses_nothing_under_a_tls_reader_in_the_kernel),
    CASE(a_close_loses_nothing_under_a_reader_with_a_timeout),
    CASE(a_close_loses_nothing_under_a_select),
    CASE(a_close_gives_a_deaf_peer_so_long_and_no_longer),
    CASE(a_close_without_a_thread_gives_a_deaf_peer_as_long),
    CASE(a_sleeping_leader_keeps_the_deadlines_of_others),
};

int main(void) {
    return cmocka_run_group_tests_name("whitebox_endings", tests, make_contexts, free_contexts);
}
