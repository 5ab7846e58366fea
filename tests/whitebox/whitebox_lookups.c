/* Many names that nobody answers: as many workers as are needed, up to PYSOCK_MAX_LOOKUPS, and
   none that stays. The library's getaddrinfo is this file's: "stuck*.test" is not answered until
   the gate opens, "good.test" at once. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <netdb.h>
#include <sys/socket.h>
#include <sys/types.h>

static int fake_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                            struct addrinfo **res);

#define PYSOCK_IMPLEMENTATION
#define getaddrinfo fake_getaddrinfo
#include "pysock.h"
#undef getaddrinfo

#include "support/contexts.h"

#ifdef PYSOCK_MAX_LOOKUPS
#define LIMIT PYSOCK_MAX_LOOKUPS
#else
#define LIMIT 64
#endif
#define LONG T_SCALE(30.0, 60.0)

/* ---- the resolver ---- */

static pthread_mutex_t gate_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_turn = PTHREAD_COND_INITIALIZER;
static int gate_is_shut, at_gate, most_at_gate; /* guarded by gate_lock */

static void wait_at_gate(void) {
    pthread_mutex_lock(&gate_lock);
    at_gate++;
    if (at_gate > most_at_gate)
        most_at_gate = at_gate;
    pthread_cond_broadcast(&gate_turn);
    while (gate_is_shut)
        pthread_cond_wait(&gate_turn, &gate_lock);
    at_gate--;
    pthread_cond_broadcast(&gate_turn);
    pthread_mutex_unlock(&gate_lock);
}

static int fake_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                            struct addrinfo **res) {
    if (!node || (hints && (hints->ai_flags & AI_NUMERICHOST)))
        return getaddrinfo(node, service, hints, res);
    if (strncmp(node, "stuck", 5) == 0) {
        wait_at_gate();
        return EAI_NONAME;
    }
    if (strcmp(node, "good.test") == 0)
        return getaddrinfo("127.0.0.1", service, hints, res);
    return EAI_NONAME;
}

static void shut_gate(void) {
    pthread_mutex_lock(&gate_lock);
    gate_is_shut = 1;
    most_at_gate = at_gate;
    pthread_mutex_unlock(&gate_lock);
}

/* Lets all through, and waits until the last is. */
static void open_gate(void) {
    pthread_mutex_lock(&gate_lock);
    gate_is_shut = 0;
    pthread_cond_broadcast(&gate_turn);
    while (at_gate > 0)
        pthread_cond_wait(&gate_turn, &gate_lock);
    pthread_mutex_unlock(&gate_lock);
}

/* Until so many look-ups are stuck at the same time. */
static void wait_for_stuck(int count) {
    pthread_mutex_lock(&gate_lock);
    while (at_gate < count)
        pthread_cond_wait(&gate_turn, &gate_lock);
    pthread_mutex_unlock(&gate_lock);
}

static int most_stuck(void) {
    int n;
    pthread_mutex_lock(&gate_lock);
    n = most_at_gate;
    pthread_mutex_unlock(&gate_lock);
    return n;
}

/* ---- sockets that wait for a name ---- */

static pysock *stuck[2 * LIMIT];
static int stuck_count;

static void add_stuck(int count) {
    for (int i = 0; i < count; i++) {
        char name[32];
        pysock *s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
        snprintf(name, sizeof name, "stuck%d.test", stuck_count);
        T_OK(pysock_setblocking(s, 0));
        T_FAILS(pysock_connect(s, name, 80), PYSOCK_OS_ERROR, EINPROGRESS);
        stuck[stuck_count++] = s;
    }
}

static void close_stuck(void) {
    while (stuck_count > 0)
        T_OK(pysock_close(stuck[--stuck_count]));
}

static int tear_down(void **state) {
    (void)state;
    open_gate();
    close_stuck();
    pysock_cleanup();
    return 0;
}

static void a_good_name_connects(void) {
    int port;
    pysock *listener = t_listen(&port), *s, *peer;
    s = T_OK(pysock_create_connection("good.test", port, LONG));
    peer = T_OK(pysock_accept(listener, NULL));
    T_OK(pysock_close(s));
    T_OK(pysock_close(peer));
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_setblocking(s, 0));
    if (pysock_connect(s, "good.test", port) < 0)
        T_EQ(errno, EINPROGRESS);
    T_CHECK(t_writable(s, LONG));
    peer = T_OK(pysock_accept(listener, NULL));
    T_OK(pysock_close(s));
    T_OK(pysock_close(peer));
    T_OK(pysock_close(listener));
}

/* ---- look-ups at a time, and their workers ---- */

T_TEST(names_that_are_stuck_do_not_stop_others, 120) {
    static const int counts[] = {1, 4, 5, 8, 40, LIMIT - 1};
    shut_gate();
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        T_STEP("%d names are stuck", counts[i]);
        add_stuck(counts[i] - stuck_count);
        wait_for_stuck(counts[i]);
        a_good_name_connects();
    }
}

/* Each of them is at work, and not in a queue behind another. */
T_TEST(so_many_are_looked_up_at_a_time, 120) {
    shut_gate();
    add_stuck(LIMIT);
    wait_for_stuck(LIMIT);
    T_EQ(most_stuck(), LIMIT);
}

/* What comes then waits for a worker, with its deadline; and is looked up when there is one. */
T_TEST(and_no_more, 120) {
    int port;
    pysock *listener, *s, *peer;
    listener = t_listen(&port);
    shut_gate();
    add_stuck(LIMIT);
    wait_for_stuck(LIMIT);
    add_stuck(LIMIT / 2);
    T_FAILS(pysock_create_connection("good.test", port, 0.2), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_setblocking(s, 0));
    T_FAILS(pysock_connect(s, "good.test", port), PYSOCK_OS_ERROR, EINPROGRESS);
    T_CHECK(!t_writable(s, 0.1));
    T_EQ(most_stuck(), LIMIT);
    open_gate();
    T_CHECK(t_writable(s, LONG));
    peer = T_OK(pysock_accept(listener, NULL));
    T_OK(pysock_close(s));
    T_OK(pysock_close(peer));
    T_OK(pysock_close(listener));
    T_CHECK(most_stuck() <= LIMIT);
}

T_TEST(workers_that_are_idle_end, 240) {
    int before;
    a_good_name_connects(); /* the reactor, one worker, a sanitizer's own thread */
    before = t_count_threads();
    shut_gate();
    add_stuck(40);
    wait_for_stuck(40);
    T_CHECK(t_count_threads() >= 41); /* with the test's own */
    open_gate();
    close_stuck();
    T_STEP("workers end");
    while (t_count_threads() > before + 1) /* some seconds later, at most */
        t_nap(0.01);
    a_good_name_connects();
}

/* A hundred names, one after the other, leave no worker behind. */
T_TEST(workers_end_one_by_one, 120) {
    int before;
    a_good_name_connects();
    before = t_count_threads(); /* that worker may be among them */
    for (int i = 0; i < 100; i++) {
        T_STEP("name %d", i);
        a_good_name_connects();
        while (t_count_threads() > before)
            t_nap(0.001);
    }
}

T_TEST(cleanup_waits_for_none_of_them, 120) {
    double start;
    shut_gate();
    add_stuck(40);
    wait_for_stuck(40);
    start = t_now();
    pysock_cleanup();
    T_CHECK(t_now() - start < LONG);
    while (stuck_count > 0)
        T_FAILS(pysock_fileno(stuck[--stuck_count]), PYSOCK_OS_ERROR, EBADF);
    a_good_name_connects();
}

/* Who gives up leaves the name to its worker, and others in peace. */
T_TEST(names_that_were_given_up_stop_nobody, 120) {
    shut_gate();
    for (int i = 0; i < 40; i++) {
        char name[32];
        snprintf(name, sizeof name, "stuck%d.test", i);
        T_FAILS(pysock_create_connection(name, 80, 0.01), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    }
    a_good_name_connects();
}

typedef struct late_cancel {
    pysock *s;
    int returned, code;
} late_cancel;

static void *look_up_and_be_cancelled(void *arg) {
    late_cancel *c = arg;
    T_EQ(pysock_connect(c->s, "stuck.test", 80), -1);
    c->code = errno;
    c->returned = 1;
    pthread_testcancel();
    c->returned = 2;
    return NULL;
}

/* Waiting for a name is no cancellation point either. */
T_TEST(a_thread_that_is_cancelled_while_it_waits_for_a_name, 60) {
    static late_cancel c;
    t_thread t;
    memset(&c, 0, sizeof c);
    c.s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_settimeout(c.s, 600));
    shut_gate();
    t_spawn(&t, look_up_and_be_cancelled, &c);
    wait_for_stuck(1);
    T_EQ(pthread_cancel(t.id), 0);
    T_OK(pysock_close(c.s));
    T_CHECK(t_join(&t) == PTHREAD_CANCELED);
    T_EQ(c.returned, 1);
    T_EQ(c.code, EBADF);
    a_good_name_connects();
}

/* Nor does giving up make room for more workers than there may be. */
T_TEST(names_that_were_given_up_count, 120) {
    shut_gate();
    for (int i = 0; i < LIMIT + 10; i++) {
        char name[32];
        snprintf(name, sizeof name, "stuck%d.test", i);
        T_FAILS(pysock_create_connection(name, 80, 0.01), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    }
    T_CHECK(most_stuck() <= LIMIT);
    open_gate();
    a_good_name_connects();
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts, .each_teardown = tear_down)
