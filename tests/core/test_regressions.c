/* What a review found, each as the test that would have found it. */
#include "support/contexts.h"

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

/* A handshake that began under CERT_NONE must not leave a session for CERT_REQUIRED. */
T_TEST(a_session_does_not_outlive_the_rules_it_was_made_by, 60) {
    pysock_ssl_context *client = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    pysock_ssl_context *server = t_server_ctx_of("self-signed");
    pysock *pair[2];
    T_OK(pysock_ssl_set_check_hostname(client, 0));
    T_OK(pysock_ssl_set_verify_mode(client, PYSOCK_CERT_NONE));
    for (int i = 0; i < 2; i++) {
        t_pair(pair);
        for (int k = 0; k < 2; k++)
            T_OK(pysock_setblocking(pair[k], 0));
        T_OK(pysock_ssl_wrap_socket(pair[0], client, "localhost"));
        if (i == 0) {
            T_OK(pysock_ssl_set_verify_mode(client, PYSOCK_CERT_REQUIRED));
            T_OK(pysock_ssl_set_check_hostname(client, 1));
        }
        T_OK(pysock_ssl_wrap_socket(pair[1], server, NULL));
        T_EQ(t_writable(pair[0], 30), 1);
        if (i == 0)
            T_EQ(pysock_ssl_do_handshake(pair[0]), 0);
        else
            T_FAILS(pysock_ssl_do_handshake(pair[0]), PYSOCK_SSL_CERT_VERIFICATION_ERROR, T_ANY);
        T_OK(pysock_close(pair[0]));
        T_OK(pysock_close(pair[1]));
    }
    pysock_ssl_context_free(client);
    pysock_ssl_context_free(server);
}

static void *recv_one(void *arg) {
    char byte;
    pysock *s = arg;
    T_EQ(pysock_recv(s, &byte, 1, 0), 1);
    return NULL;
}

static double process_cpu(void) {
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Two blocking calls on one silent handshake take turns only when something happens. */
T_TEST(two_callers_of_one_handshake_sleep, 60) {
    pysock *pair[2];
    pysock_ssl_wrap_options later = {.no_handshake_on_connect = 1};
    t_thread t[2];
    double cpu;
    t_pair(pair);
    T_OK(pysock_ssl_wrap_socket_ex(pair[1], server_ctx, &later));
    for (int i = 0; i < 2; i++)
        t_spawn(&t[i], recv_one, pair[1]);
    for (int i = 0; i < 2; i++)
        t_wait_asleep(&t[i]);
    cpu = process_cpu();
    t_nap(0.3);
    T_CHECK(process_cpu() - cpu < 0.15);
    T_OK(pysock_ssl_wrap_socket(pair[0], client_ctx, "localhost"));
    T_OK(pysock_sendall(pair[0], "ab", 2, 0));
    for (int i = 0; i < 2; i++)
        t_join(&t[i]);
    T_OK(pysock_close(pair[0]));
    T_OK(pysock_close(pair[1]));
}

/* A child that closes its copy leaves its parent's poller alone. */
T_TEST(a_childs_close_leaves_the_parents_poller_alone, 60) {
    pysock *pair[2];
    pysock_pollevent event;
    pid_t pid;
    int status;
    pysock_poller *p = T_OK(pysock_poller_new());
    t_pair(pair);
    T_OK(pysock_poller_register(p, pysock_fileno(pair[0]), POLLIN));
    T_EQ(pysock_poller_poll(p, &event, 1, 0), 0);
    pid = fork();
    T_CHECK(pid >= 0);
    if (pid == 0) {
        pysock_close(pair[0]);
        _exit(0);
    }
    T_EQ(waitpid(pid, &status, 0), pid);
    t_say(pair[1], "x");
    T_EQ(pysock_poller_poll(p, &event, 1, 30), 1);
    T_EQ(event.fd, pysock_fileno(pair[0]));
    pysock_poller_free(p);
    T_OK(pysock_close(pair[0]));
    T_OK(pysock_close(pair[1]));
}

/* A pipe that has the number of one that was closed without being unregistered. */
T_TEST(a_reused_number_of_a_pipe_is_asked_for_anew, 60) {
    pysock_poller *p = T_OK(pysock_poller_new());
    pysock_pollevent event;
    int old[2], again[2];
    T_EQ(pipe(old), 0);
    T_OK(pysock_poller_register(p, old[0], POLLIN));
    T_EQ(pysock_poller_poll(p, &event, 1, 0), 0);
    close(old[0]);
    close(old[1]);
    T_EQ(pipe(again), 0);
    T_EQ(again[0], old[0]);
    T_OK(pysock_poller_register(p, again[0], POLLIN));
    T_EQ(write(again[1], "x", 1), 1);
    T_EQ(pysock_poller_poll(p, &event, 1, 30), 1);
    pysock_poller_free(p);
    close(again[0]);
    close(again[1]);
}

/* The string that was handed out before the connection lives on with it. */
T_TEST(the_host_name_stays_from_wrap_to_close, 60) {
    int port;
    pysock *listener = t_listen(&port), *s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0)), *child;
    const char *before;
    pysock_ssl_wrap_options later = {.server_hostname = "localhost", .no_handshake_on_connect = 1};
    T_OK(pysock_ssl_wrap_socket_ex(s, client_ctx, &later));
    before = pysock_ssl_server_hostname(s);
    T_OK(pysock_connect(s, "127.0.0.1", port));
    child = T_OK(pysock_accept(listener, NULL));
    T_EQ(strcmp(before, "localhost"), 0);
    T_EQ(strcmp(pysock_ssl_server_hostname(s), "localhost"), 0);
    T_OK(pysock_close(s));
    T_OK(pysock_close(child));
    T_OK(pysock_close(listener));
}

/* ---- the hook about threads, and programs without them ---- */

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

/* What there is now, without the library. Returns how much that was. */
static size_t drain_raw(int fd) {
    static char buf[65536];
    size_t got = 0;
    ssize_t n;
    while ((n = recv(fd, buf, sizeof buf, MSG_DONTWAIT)) > 0)
        got += (size_t)n;
    return got;
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

static void *close_thread(void *arg) {
    T_OK(pysock_close(arg));
    return NULL;
}

static int close_and_sleep(void *arg, const pysock_audit_event *event) {
    t_thread t;
    if (!is_about_threads(event) || __atomic_fetch_add(&times_asked, 1, __ATOMIC_ACQ_REL) > 0)
        return 0;
    t_spawn(&t, close_thread, arg);
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
            T_OK(pysock_poller_register(p, fd, POLLIN));
            T_EQ(pysock_poller_poll(p, &event, 1, 20), 1);
            T_CHECK(event.events & POLLNVAL);
        }
        else {
            T_FAILS(pysock_select(&fd, &n, NULL, NULL, NULL, NULL, 20), PYSOCK_OS_ERROR, EBADF);
        }
        T_CHECK(t_now() - start < 15); /* and not at the timeout */
        T_EQ(times_asked, 1);
        pysock_set_audit_hook(NULL, NULL);
        pysock_poller_free(p);
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

static void detach_it(void *data, void *arg) {
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

/* ---- the interrupt hook ---- */

static int times_interrupted; /* atomic */

static int stop_once(void *arg) {
    (void)arg;
    return __atomic_fetch_add(&times_interrupted, 1, __ATOMIC_ACQ_REL) == 0;
}

static FILE *file_of(size_t size) {
    FILE *f = tmpfile();
    T_CHECK(f != NULL);
    T_EQ(ftruncate(fileno(f), (off_t)size), 0);
    return f;
}

/* The end of a file is no interruption. */
HOOK_TEST(a_sendfile_that_is_done_asks_no_interrupt_hook, 30) {
    static const int64_t counts[] = {-1, 20000, 10000, 5000};
    static const double timeouts[] = {PYSOCK_NO_TIMEOUT, 20};
    FILE *f = file_of(10000);
    times_interrupted = 0;
    pysock_set_interrupt_hook(stop_once, NULL);
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < 4; i++) {
            pysock *pair[2];
            int64_t want = counts[i] == 5000 ? 5000 : 10000;
            T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
            T_OK(pysock_settimeout(pair[0], timeouts[k]));
            T_EQ(pysock_sendfile(pair[0], fileno(f), 0, counts[i]), want);
            T_EQ(times_interrupted, 0);
            T_EQ(drain_raw(pysock_fileno(pair[1])), want);
            t_close_pair(pair);
        }
    T_EQ(fclose(f), 0);
}

static void *drain_to_the_end(void *arg) {
    static char buf[65536];
    size_t *got = arg, n;
    int fd = (int)*got;
    for (*got = 0; (n = t_raw_read(fd, buf, sizeof buf)) > 0;)
        *got += n;
    return NULL;
}

/* Somebody else's O_NONBLOCK makes sends short; no signal does. */
HOOK_TEST(a_short_send_asks_no_interrupt_hook_without_a_signal, 30) {
    int raw[2];
    pysock *s;
    t_thread t;
    size_t got;
    times_interrupted = 0;
    pysock_set_interrupt_hook(stop_once, NULL);
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, raw), 0);
    T_EQ(fcntl(raw[0], F_SETFL, fcntl(raw[0], F_GETFL) | O_NONBLOCK), 0);
    s = T_OK(pysock_adopt(raw[0], -1, -1, -1));
    T_CHECK(fcntl(raw[0], F_GETFL) & O_NONBLOCK);
    got = (size_t)raw[1];
    t_spawn(&t, drain_to_the_end, &got);
    T_OK(pysock_sendall(s, t_flood(), 4u << 20, 0));
    T_EQ(times_interrupted, 0);
    T_OK(pysock_close(s));
    t_join(&t);
    T_EQ(got, 4u << 20);
    close(raw[1]);
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

/* ---- closers ---- */

static void count_call(void *arg) {
    ++*(int *)arg;
}

static void free_state(void *arg) {
    pysock_state_free(arg);
}

static pysock_state *state_with_closer(void (*fn)(void *), void *arg) {
    pysock_state *st = T_OK(pysock_state_new());
    T_CHECK(pysock_state_swap(st) == NULL);
    T_OK(pysock_register_closer(fn, arg ? arg : st));
    T_CHECK(pysock_state_swap(NULL) == st);
    return st;
}

HOOK_TEST(a_closer_may_end_its_own_state, 30) {
    T_STEP("in the state's cleanup");
    pysock_state_cleanup(state_with_closer(free_state, NULL));
    T_STEP("in everybody's");
    (void)state_with_closer(free_state, NULL);
    pysock_cleanup();
}

/* Whichever of the two states is older. */
HOOK_TEST(a_closer_may_end_another_state_whose_closers_run, 30) {
    for (int younger = 0; younger < 2; younger++)
        for (int every = 0; every < 2; every++) {
            int runs = 0;
            pysock_state *a, *b;
            T_STEP("%s, %s", younger ? "a younger one" : "an older one",
                   every ? "everybody's cleanup" : "the one's");
            if (younger) {
                b = T_OK(pysock_state_new());
                a = state_with_closer(count_call, &runs);
                T_CHECK(pysock_state_swap(b) == NULL);
                T_OK(pysock_register_closer(free_state, a));
                T_CHECK(pysock_state_swap(NULL) == b);
            }
            else {
                a = state_with_closer(count_call, &runs);
                b = state_with_closer(free_state, a);
            }
            if (every)
                pysock_cleanup();
            else
                pysock_state_cleanup(b);
            T_EQ(runs, 1);
            pysock_state_free(b);
            T_EQ(runs, 1);
        }
}

typedef struct slow_closer {
    sem_t begun;
    int freed, over; /* atomic */
} slow_closer;

static void close_slowly(void *arg) {
    slow_closer *c = arg;
    sem_post(&c->begun);
    for (int i = 0; i < 50 && !__atomic_load_n(&c->freed, __ATOMIC_ACQUIRE); i++)
        t_nap(0.002); /* time for who does not wait; nothing depends on it */
    __atomic_store_n(&c->over, 1, __ATOMIC_RELEASE);
}

static void *cleanup_thread(void *arg) {
    pysock_cleanup();
    return arg;
}

/* What a closer uses may go when the state has been freed. */
HOOK_TEST(freeing_a_state_waits_for_its_closer, 30) {
    slow_closer c;
    pysock_state *st;
    t_thread t;
    memset(&c, 0, sizeof c);
    T_EQ(sem_init(&c.begun, 0, 0), 0);
    st = state_with_closer(close_slowly, &c);
    t_spawn(&t, cleanup_thread, NULL);
    while (sem_wait(&c.begun) != 0)
        T_EQ(errno, EINTR);
    pysock_state_free(st);
    __atomic_store_n(&c.freed, 1, __ATOMIC_RELEASE);
    T_EQ(__atomic_load_n(&c.over, __ATOMIC_ACQUIRE), 1);
    t_join(&t);
    sem_destroy(&c.begun);
}

static void end_with_7(void *arg) {
    (void)arg;
    _exit(7);
}

/* The program that a_closer_runs_at_exit_of_a_program_without_sockets starts. */
static int only_register_a_closer(int argc, char **argv) {
    if (argc != 2 || strcmp(argv[1], "--closer") != 0)
        return -1;
    return pysock_register_closer(end_with_7, NULL) < 0 ? 1 : 0;
}

T_TEST(a_closer_runs_at_exit_of_a_program_without_sockets, 30) {
    int status;
    pid_t pid;
    fflush(NULL);
    pid = fork();
    T_CHECK(pid >= 0);
    if (pid == 0) {
        execl("/proc/self/exe", "test_regressions", "--closer", (char *)NULL);
        _exit(127);
    }
    T_EQ(waitpid(pid, &status, 0), pid);
    T_CHECK(WIFEXITED(status));
    T_EQ(WEXITSTATUS(status), 7);
}

/* ---- sockets ---- */

/* It dissolves a connection that a stream has not: it is new, and can listen. */
T_TEST(AF_UNSPEC_connects_no_new_stream, 30) {
    pysock *s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0)), *child, *caller;
    pysock_addr none;
    char byte;
    memset(&none, 0, sizeof none);
    none.len = sizeof none.u.in;
    none.u.sa.sa_family = AF_UNSPEC;
    T_OK(pysock_connect_addr(s, &none));
    T_FAILS(pysock_recv(s, &byte, 1, 0), PYSOCK_OS_ERROR, ENOTCONN);
    T_OK(pysock_bind(s, "127.0.0.1", 0));
    T_OK(pysock_listen(s, 1));
    T_OK(pysock_settimeout(s, 20));
    T_STEP("or connect");
    caller = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_connect_addr(caller, &none));
    T_OK(pysock_connect(caller, "127.0.0.1", t_port_of(s)));
    child = T_OK(pysock_accept(s, NULL));
    t_say(caller, "hello");
    t_expect(child, "hello");
    T_OK(pysock_close(caller));
    T_OK(pysock_close(child));
    T_OK(pysock_close(s));
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts, .as_child = only_register_a_closer)
