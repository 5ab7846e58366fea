/* The audit hook about the library's threads: when it is asked, and what becomes of calls under way
   where it denies them. */
#include "binding/hooks.h"

static int times_asked; /* atomic: about a thread */

static int is_about_threads(const pysock_audit_event *event) {
    return strcmp(event->name, "pysock.thread") == 0;
}

static int deny_threads(void *arg, const pysock_audit_event *event) {
    (void)arg;
    if (is_about_threads(event))
        __atomic_add_fetch(&times_asked, 1, __ATOMIC_ACQ_REL);
    return is_about_threads(event);
}

/* No thread is left from before, and nobody has been asked about one. */
static int begin_anew(void **state) {
    (void)state;
    (void)pysock_state_swap(NULL);
    pysock_set_audit_hook(NULL, NULL);
    pysock_set_interrupt_hook(NULL, NULL);
    pysock_cleanup();
    times_asked = 0;
    return 0;
}

#define HOOK_TEST(name, seconds) T_TEST_WITH(name, seconds, begin_anew, begin_anew)

/* More than the kernel takes at once, so that somebody has to send the rest later. */
static void queue_much(pysock *s) {
    pysock_buf *much = T_OK(pysock_buf_new(1u << 20));
    T_OK(pysock_setblocking(s, 0));
    T_OK(pysock_send_buf(s, much));
    pysock_buf_release(much);
}

/* After this the library has been denied its threads, until the next cleanup. */
static void go_threadless(pysock *busy[2]) {
    pysock_set_audit_hook(deny_threads, NULL);
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, busy));
    queue_much(busy[0]);
    T_EQ(times_asked, 1);
}

typedef struct select_call {
    t_thread t;
    pysock *s;
    int result, ended; /* ended: atomic */
} select_call;

static void *select_to_write(void *arg) {
    select_call *c = arg;
    c->result = t_writable(c->s, 20);
    __atomic_store_n(&c->ended, 1, __ATOMIC_RELEASE);
    return NULL;
}

static int deny_when_another_sleeps(void *arg, const pysock_audit_event *event) {
    select_call *c = arg;
    if (!is_about_threads(event))
        return 0;
    if (__atomic_fetch_add(&times_asked, 1, __ATOMIC_ACQ_REL) == 0) {
        t_spawn(&c->t, select_to_write, c);
        t_wait_asleep(&c->t);
    }
    return 1;
}

/* Nobody knew that there would be no thread when this one went to sleep: the work is its now. */
HOOK_TEST(a_sleeper_takes_over_when_the_thread_is_denied, 40) {
    pysock *pair[2];
    select_call c;
    int raw;
    memset(&c, 0, sizeof c);
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    raw = T_OK(pysock_fileno(pair[1]));
    c.s = pair[0];
    pysock_set_audit_hook(deny_when_another_sleeps, &c);
    queue_much(pair[0]);
    T_EQ(times_asked, 1);
    while (!__atomic_load_n(&c.ended, __ATOMIC_ACQUIRE)) { /* and this thread never asks */
        struct pollfd fd = {raw, POLLIN, 0};
        (void)poll(&fd, 1, 10);
        (void)drain_raw(raw);
    }
    t_join(&c.t);
    T_EQ(c.result, 1);
    t_close_pair(pair);
}

static int close_and_sleep(void *arg, const pysock_audit_event *event) {
    t_thread t;
    if (!is_about_threads(event) || __atomic_fetch_add(&times_asked, 1, __ATOMIC_ACQ_REL) > 0)
        return 0;
    t_spawn(&t, t_close_thread, arg);
    t_join(&t);
    T_EQ(pysock_select(NULL, NULL, NULL, NULL, NULL, NULL, 0.001), 0);
    return 0;
}

/* A hook that sleeps takes the news for which the call that asks it was about to sleep. */
HOOK_TEST(a_close_during_the_hook_about_threads_is_not_lost, 100) {
    for (int by_poller = 0; by_poller < 2; by_poller++) {
        pysock *pair[2];
        pysock_poller *p = NULL;
        pysock_pollevent event;
        int fd;
        size_t n = 1;
        double start;
        T_STEP("%s", by_poller ? "a poller" : "select");
        begin_anew(NULL);
        T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
        t_wrap_later(pair[0], client_ctx, "localhost");
        fd = T_OK(pysock_fileno(pair[0]));
        if (by_poller)
            p = T_OK(pysock_poller_new());
        pysock_set_audit_hook(close_and_sleep, pair[0]);
        start = t_now();
        if (by_poller) {
            T_OK(pysock_poller_register(p, fd, POLLIN, NULL));
            T_EQ(pysock_poller_poll(p, &event, 1, 20), 1);
            T_CHECK(event.events & POLLNVAL);
        } else {
            T_FAILS(pysock_select(&fd, &n, NULL, NULL, NULL, NULL, 20), PYSOCK_OS_ERROR, EBADF);
        }
        T_CHECK(t_now() - start < 15); /* and not at the timeout */
        T_EQ(times_asked, 1);
        pysock_set_audit_hook(NULL, NULL);
        pysock_poller_release(p);
        T_OK(pysock_close(pair[1]));
    }
}

static int fail_inside(void *arg, const pysock_audit_event *event) {
    unsigned char ip[4];
    (void)arg;
    if (!is_about_threads(event))
        return 0;
    __atomic_add_fetch(&times_asked, 1, __ATOMIC_ACQ_REL);
    T_FAILS(pysock_inet_aton("no address", ip), PYSOCK_OS_ERROR, EINVAL);
    errno = ENOENT;
    return 0;
}

/* It is asked after the call has set its own. */
HOOK_TEST(the_hook_about_threads_leaves_the_calls_error_alone, 30) {
    int port;
    pysock *listener, *s;
    pysock_addr addr;
    listener = t_listen(&port);
    addr = t_addr_of(listener);
    s = t_nonblocking_socket(AF_INET);
    T_OK(pysock_ssl_wrap_socket(s, client_ctx, "localhost"));
    pysock_set_audit_hook(fail_inside, NULL);
    T_FAILS(pysock_connect_addr(s, &addr), PYSOCK_OS_ERROR, EINPROGRESS);
    T_EQ(pysock_error_code(), EINPROGRESS);
    T_EQ(times_asked, 1);
    T_OK(pysock_close(s));
    T_OK(pysock_close(listener));
}

static int write_a_log(void *arg, const pysock_audit_event *event) {
    static int depth; /* of the thread that queues */
    pysock_buf *line;
    if (!is_about_threads(event))
        return 0;
    times_asked++;
    if (++depth > 3)
        T_FAIL("the hook is asked from inside itself");
    line = T_OK(pysock_buf_copy("log\n", 4));
    T_OK(pysock_send_buf(arg, line));
    pysock_buf_release(line);
    depth--;
    return 0;
}

HOOK_TEST(what_the_hook_about_threads_sends_asks_no_second_time, 30) {
    pysock *pair[2];
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    T_OK(pysock_set_watermarks(pair[0], 1u << 20, 1u << 24));
    pysock_set_audit_hook(write_a_log, pair[0]);
    queue_much(pair[0]);
    T_EQ(times_asked, 1);
    pysock_set_audit_hook(NULL, NULL);
    t_close_pair(pair);
}

typedef struct guard {
    int asked, answer; /* asked: atomic */
} guard;

static int ask_guard(void *arg, const pysock_audit_event *event) {
    guard *g = arg;
    if (!is_about_threads(event))
        return 0;
    __atomic_add_fetch(&g->asked, 1, __ATOMIC_ACQ_REL);
    return g->answer;
}

/* One interpreter's rules are not the process's. */
HOOK_TEST(the_main_states_hook_alone_is_asked_about_threads, 30) {
    pysock *pair[2];
    guard sandbox = {0, 1}, top = {0, 0};
    size_t got = 0;
    int raw;
    pysock_state *mine = T_OK(pysock_state_new());
    pysock_set_audit_hook(ask_guard, &top);
    T_CHECK(pysock_state_swap(mine) == NULL);
    pysock_set_audit_hook(ask_guard, &sandbox);
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    raw = T_OK(pysock_fileno(pair[1]));
    queue_much(pair[0]);
    T_EQ(sandbox.asked, 0);
    T_EQ(top.asked, 1);
    T_STEP("the thread, that was not denied, sends the rest");
    while (got < 1u << 20) {
        struct pollfd fd = {raw, POLLIN, 0};
        (void)poll(&fd, 1, -1);
        got += drain_raw(raw);
    }
    T_EQ(got, 1u << 20);
    t_close_pair(pair);
    T_CHECK(pysock_state_swap(NULL) == mine);
    pysock_state_free(mine);
}

typedef struct detacher {
    pysock *s;
    int armed, fd;
} detacher;

static void detach_it(void *arg, void *data) {
    detacher *d = arg;
    (void)data;
    T_EQ(d->armed, 1);
    d->armed = 0;
    d->fd = pysock_detach(d->s);
}

/* Without a thread a call first does what others have left; that may end its own socket. */
HOOK_TEST(a_socket_that_goes_while_a_call_begins_is_closed_to_it, 30) {
    enum { MUCH = 400000 };
    pysock *busy[2], *full[2], *pair[2];
    pysock_buf *b;
    detacher d = {NULL, 0, -1};
    char *much = calloc(1, MUCH);
    T_CHECK(much != NULL);
    go_threadless(busy);
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, full));
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    T_OK(pysock_setblocking(pair[0], 0));
    T_OK(pysock_setblocking(full[0], 0));
    d.s = pair[0];
    b = T_OK(pysock_buf_wrap(much, MUCH, detach_it, &d));
    T_OK(pysock_send_buf(full[0], b));
    T_CHECK(pysock_queued(full[0]) > 0);
    pysock_buf_release(b);
    d.armed = 1;
    T_CHECK(drain_raw(T_OK(pysock_fileno(full[1]))) > 0);
    T_FAILS(pysock_detach(pair[0]), PYSOCK_OS_ERROR, EBADF);
    T_EQ(d.armed, 0);
    T_CHECK(d.fd >= 0);
    T_EQ(close(d.fd), 0);
    T_OK(pysock_close(pair[1]));
    t_close_pair(full);
    t_close_pair(busy);
    free(much);
}

static void *recv_all_ten(void *arg) {
    char buf[10];
    T_EQ(pysock_recv(arg, buf, 10, MSG_WAITALL), 10);
    T_EQ(memcmp(buf, "1234567890", 10), 0);
    return NULL;
}

HOOK_TEST(MSG_WAITALL_waits_for_all_without_a_thread_too, 30) {
    static const double timeouts[] = {PYSOCK_NO_TIMEOUT, 20};
    pysock *busy[2], *pair[2];
    go_threadless(busy);
    for (int i = 0; i < 2; i++) {
        t_thread t;
        T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
        T_OK(pysock_settimeout(pair[0], timeouts[i]));
        t_say(pair[1], "12345");
        t_spawn(&t, recv_all_ten, pair[0]);
        t_wait_asleep(&t);
        t_say(pair[1], "67890");
        t_join(&t);
        t_close_pair(pair);
    }
    t_close_pair(busy);
}

typedef struct sender {
    pysock *s;
    FILE *f;
    int64_t result;
    int code;
} sender;

static void *sendfile_thread(void *arg) {
    sender *j = arg;
    j->result = pysock_sendfile(j->s, fileno(j->f), 0, -1);
    j->code = errno;
    return NULL;
}

/* It is told once, in the middle of a piece of which some has gone. */
HOOK_TEST(an_interrupt_in_the_middle_of_a_copy_is_not_forgotten, 30) {
    pysock *busy[2], *pair[2];
    sender j = {NULL, NULL, 0, 0};
    t_thread t;
    t_catch_signal(SIGUSR1);
    go_threadless(busy); /* there sendfile copies */
    times_interrupted = 0;
    pysock_set_interrupt_hook(stop_once, NULL);
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    T_OK(pysock_setsockopt_int(pair[0], SOL_SOCKET, SO_SNDBUF, 4608));
    j.s = pair[0];
    j.f = file_of(1u << 20);
    t_spawn(&t, sendfile_thread, &j);
    t_wait_asleep(&t);
    while (!__atomic_load_n(&times_interrupted, __ATOMIC_ACQUIRE)) {
        T_EQ(pthread_kill(t.id, SIGUSR1), 0);
        t_nap(0.005);
    }
    T_STEP("waiting for the sendfile to end");
    t_join(&t);
    T_EQ(j.result, -1);
    T_EQ(j.code, EINTR);
    T_CHECK(ftell(j.f) >= 0);
    T_CHECK(lseek(fileno(j.f), 0, SEEK_CUR) > 0); /* behind what has gone */
    T_EQ(fclose(j.f), 0);
    t_close_pair(pair);
    t_close_pair(busy);
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts)
