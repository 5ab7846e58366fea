/* An audit hook that denies the library its threads: the same as without them, at run time. The
   program has threads of its own, of which one does the work of the others while it sleeps. */
#include "core/threadless.h"

static int deny_and_make_contexts(void **state) {
    pysock_set_audit_hook(t_deny_threads, NULL);
    return make_contexts(state);
}

/* ---- one sleeps for all ---- */

#define MUCH ((size_t)4 << 20)

typedef struct sleeper {
    t_thread t;
    pysock *pair[2];
    int by_poller;
    ptrdiff_t result;
} sleeper;

static void *sleep_thread(void *arg) {
    sleeper *sl = arg;
    pysock_pollevent event;
    char byte;
    if (sl->by_poller) {
        pysock_poller *p = t_poller_with(pysock_fileno(sl->pair[0]), POLLIN);
        sl->result = pysock_poller_poll(p, &event, 1, PYSOCK_NO_TIMEOUT);
        pysock_poller_release(p);
    } else {
        sl->result = pysock_recv(sl->pair[0], &byte, 1, 0);
    }
    return NULL;
}

static void put_to_sleep(sleeper *sl, int by_poller) {
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, sl->pair));
    sl->by_poller = by_poller;
    t_spawn(&sl->t, sleep_thread, sl);
    t_wait_asleep(&sl->t);
}

static void wake_up(sleeper *sl) {
    int raw = pysock_fileno(sl->pair[1]);
    t_raw_write(raw, "x", 1); /* by no call of the library's, which would do some of the work */
    t_join(&sl->t);
    T_EQ(sl->result, 1);
}

static void clear_away(sleeper *sl) {
    t_close_pair(sl->pair);
}

/* A non-blocking socket with more queued than its peer has room for; returns the peer. */
static int queue_much(pysock *pair[2]) {
    pysock_buf *b = T_OK(pysock_buf_new(MUCH));
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    T_OK(pysock_setblocking(pair[0], 0));
    T_OK(pysock_send_buf(pair[0], b));
    pysock_buf_release(b);
    T_CHECK(pysock_queued(pair[0]) > 0);
    return pysock_fileno(pair[1]);
}

static void expect_much(int raw) {
    static char buf[65536];
    size_t have = 0, n;
    while (have < MUCH) {
        n = t_raw_read(raw, buf, sizeof buf);
        T_CHECK(n > 0);
        have += n;
    }
    T_EQ(have, MUCH);
}

/* Makes it known that there is no thread: it is found out when one is needed first. */
static void find_out(void) {
    pysock *pair[2];
    (void)queue_much(pair);
    T_OK(pysock_close(pair[1]));
    T_FAILS(pysock_close(pair[0]), PYSOCK_OS_ERROR, T_ANY); /* what was queued is lost */
    T_EQ(pysock_select(NULL, NULL, NULL, NULL, NULL, NULL, 0.001), 0);
}

/* What somebody else begins is the sleeper's work at once, though it was asleep before. */
T_TEST(who_sleeps_is_woken_for_the_work_of_others, 60) {
    find_out();
    for (int by_poller = 0; by_poller < 2; by_poller++) {
        sleeper sl;
        pysock *pair[2];
        int raw;
        T_STEP("by poller: %d", by_poller);
        put_to_sleep(&sl, by_poller);
        raw = queue_much(pair);
        expect_much(raw);
        wake_up(&sl);
        clear_away(&sl);
        t_close_pair(pair);
    }
}

/* Two sleep; the one that does the work leaves, and the other goes on with it. */
T_TEST(who_leaves_hands_the_work_over, 60) {
    find_out();
    for (int by_poller = 0; by_poller < 2; by_poller++) {
        sleeper first, second;
        pysock *pair[2];
        int raw;
        T_STEP("by poller: %d", by_poller);
        put_to_sleep(&first, by_poller);
        put_to_sleep(&second, by_poller);
        raw = queue_much(pair);
        wake_up(&first);
        expect_much(raw);
        wake_up(&second);
        clear_away(&first);
        clear_away(&second);
        t_close_pair(pair);
    }
}

/* A call that does not wait does the work too, where nobody sleeps, and then leaves it to who has
   come meanwhile. */
T_TEST(calls_that_do_not_wait_do_some_of_the_work, 60) {
    static char buf[65536];
    pysock *pair[2], *idle[2];
    size_t have = 0;
    int raw;
    find_out();
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, idle));
    T_OK(pysock_setblocking(idle[0], 0));
    for (int way = 0; way < 3; way++) {
        pysock_poller *p = t_poller_with(pysock_fileno(idle[0]), POLLIN);
        T_STEP("way %d", way);
        raw = queue_much(pair);
        for (have = 0; have < MUCH;) {
            pysock_pollevent event;
            ssize_t n = recv(raw, buf, sizeof buf, MSG_DONTWAIT);
            T_CHECK(n > 0 || errno == EAGAIN);
            have += n > 0 ? (size_t)n : 0;
            if (way == 0)
                T_FAILS(pysock_recv(idle[0], buf, 1, 0), PYSOCK_OS_ERROR, EAGAIN);
            else if (way == 1)
                T_EQ(t_readable(idle[0], 0), 0);
            else
                T_EQ(pysock_poller_poll(p, &event, 1, 0), 0);
        }
        pysock_poller_release(p);
        t_close_pair(pair);
    }
    t_close_pair(idle);
}

static void *cleanup_thread(void *arg) {
    (void)arg;
    pysock_cleanup();
    return NULL;
}

/* A cleanup takes the work from who sleeps, and finishes it as far as it goes in time. */
T_TEST(a_cleanup_takes_the_work_from_who_sleeps, 60) {
    sleeper sl;
    pysock *pair[2];
    t_thread t;
    int raw;
    find_out();
    put_to_sleep(&sl, 0);
    raw = dup(queue_much(pair));
    T_CHECK(raw >= 0);
    t_spawn(&t, cleanup_thread, NULL);
    t_join(&sl.t);
    T_EQ(sl.result, -1);
    t_join(&t);
    T_FAILS(pysock_fileno(pair[0]), PYSOCK_OS_ERROR, EBADF);
    T_CHECK(t_raw_read(raw, (char[16]){0}, 16) == 16); /* what had been sent before */
    close(raw);
    find_out();
}

T_MAIN(.setup = deny_and_make_contexts, .teardown = free_contexts)
