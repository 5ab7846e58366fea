/* States: several interpreters in one process that must not notice each other. */
#include "binding/hooks.h"

/* ---- states ---- */

typedef struct waiting {
    pysock_state *in;
    t_stage stage;
    t_thread thread;
} waiting;

static const struct {
    t_wait_kind what;
    int tls;
    double timeout;
} waits[] = {{T_WAIT_RECV, 0, PYSOCK_NO_TIMEOUT},      {T_WAIT_RECV, 0, 60},
             {T_WAIT_RECV, 1, PYSOCK_NO_TIMEOUT},      {T_WAIT_RECV, 1, 60},
             {T_WAIT_ACCEPT, 0, PYSOCK_NO_TIMEOUT},    {T_WAIT_ACCEPT, 1, 60},
             {T_WAIT_CONNECT, 0, PYSOCK_NO_TIMEOUT},   {T_WAIT_CONNECT, 1, 60},
             {T_WAIT_HANDSHAKE, 1, PYSOCK_NO_TIMEOUT}, {T_WAIT_SENDALL, 0, PYSOCK_NO_TIMEOUT},
             {T_WAIT_SENDALL, 1, PYSOCK_NO_TIMEOUT},   {T_WAIT_SEND_BUF, 0, 60},
             {T_WAIT_UNWRAP, 1, PYSOCK_NO_TIMEOUT},    {T_WAIT_SELECT, 0, PYSOCK_NO_TIMEOUT},
             {T_WAIT_SELECT, 1, PYSOCK_NO_TIMEOUT},    {T_WAIT_POLLER, 0, PYSOCK_NO_TIMEOUT},
             {T_WAIT_POLLER, 1, PYSOCK_NO_TIMEOUT}};
enum { WAITS = sizeof waits / sizeof waits[0] };

static void *waiting_thread(void *arg) {
    waiting *w = arg;
    T_CHECK(pysock_state_swap(w->in) == NULL); /* every thread begins in the main one */
    return t_wait_thread(&w->stage.w);
}

/* Every kind of wait, in a state of its own. */
static void begin_waits(waiting list[WAITS], pysock_state *in) {
    pysock_state *before = pysock_state_swap(in);
    (void)t_flood();
    for (int i = 0; i < WAITS; i++) {
        T_STEP("wait %d", i);
        list[i].in = in;
        t_stage_set(&list[i].stage, waits[i].what, waits[i].tls, waits[i].timeout, client_ctx,
                    server_ctx);
        t_spawn(&list[i].thread, waiting_thread, &list[i]);
        t_wait_asleep(&list[i].thread);
    }
    T_CHECK(pysock_state_swap(before) == in);
}

static void expect_asleep(waiting list[WAITS]) {
    for (int i = 0; i < WAITS; i++) {
        T_STEP("wait %d goes on", i);
        t_wait_asleep(&list[i].thread);
        T_CHECK(pysock_fileno(list[i].stage.w.s) >= 0);
    }
}

static void expect_ended(waiting list[WAITS]) {
    for (int i = 0; i < WAITS; i++) {
        const t_waiter *w = &list[i].stage.w;
        T_STEP("wait %d has ended", i);
        t_join(&list[i].thread);
        if (w->result != -1 || w->code != ESHUTDOWN || w->kind != PYSOCK_OS_ERROR)
            T_FAIL("wait %d gave %ld, errno %d, kind %d", i, (long)w->result, w->code,
                   (int)w->kind);
        T_FAILS(pysock_fileno(w->s), PYSOCK_OS_ERROR, EBADF);
        t_stage_clear(&list[i].stage);
    }
}

static void work_a_little_in(pysock_state *st) {
    pysock_state *before = pysock_state_swap(st);
    work_a_little();
    T_CHECK(pysock_state_swap(before) == st);
}

T_TEST(states_are_swapped_by_thread, 30) {
    pysock_state *a = T_OK(pysock_state_new()), *b = T_OK(pysock_state_new());
    T_CHECK(a != b);
    T_CHECK(pysock_state_swap(a) == NULL);
    T_CHECK(pysock_state_swap(b) == a);
    T_CHECK(pysock_state_swap(b) == b);
    T_CHECK(pysock_state_swap(NULL) == b);
    T_CHECK(pysock_state_swap(NULL) == NULL);
    pysock_state_free(a);
    pysock_state_free(b);
}

T_TEST(cleanup_of_a_state_ends_its_waits_and_nobody_elses, 120) {
    static waiting here[WAITS], there[WAITS];
    pysock_state *st = T_OK(pysock_state_new());
    begin_waits(here, NULL);
    begin_waits(there, st);
    T_STEP("cleanup of the state");
    pysock_state_cleanup(st);
    expect_ended(there);
    expect_asleep(here);
    T_STEP("the state and its siblings can be used after it");
    work_a_little_in(st);
    work_a_little();
    begin_waits(there, st);
    expect_asleep(here);
    T_STEP("cleanup of all");
    pysock_cleanup();
    expect_ended(there);
    expect_ended(here);
    work_a_little_in(st);
    work_a_little();
    pysock_state_free(st);
    work_a_little();
}

T_TEST(cleanup_of_the_main_state_leaves_the_others, 120) {
    static waiting here[WAITS], there[WAITS];
    pysock_state *st = T_OK(pysock_state_new());
    begin_waits(here, NULL);
    begin_waits(there, st);
    pysock_state_cleanup(NULL);
    expect_ended(here);
    expect_asleep(there);
    work_a_little();
    T_STEP("freeing the state cleans it up");
    pysock_state_free(st);
    expect_ended(there);
    work_a_little();
}

T_TEST(timeouts_belong_to_a_state, 30) {
    pysock_state *st = T_OK(pysock_state_new());
    pysock *s;
    T_OK(pysock_setdefaulttimeout(7));
    (void)pysock_state_swap(st);
    T_CHECK(pysock_getdefaulttimeout() == PYSOCK_NO_TIMEOUT);
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_CHECK(pysock_gettimeout(s) == PYSOCK_NO_TIMEOUT);
    T_OK(pysock_close(s));
    T_OK(pysock_setdefaulttimeout(3));
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_CHECK(pysock_gettimeout(s) == 3);
    T_OK(pysock_close(s));
    (void)pysock_state_swap(NULL);
    T_CHECK(pysock_getdefaulttimeout() == 7);
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_CHECK(pysock_gettimeout(s) == 7);
    T_OK(pysock_close(s));
    T_OK(pysock_setdefaulttimeout(PYSOCK_NO_TIMEOUT));
    pysock_state_free(st);
}

T_TEST(audit_hooks_belong_to_a_state, 30) {
    pysock_state *st = T_OK(pysock_state_new());
    pysock *s;
    (void)pysock_state_swap(st);
    watch("socket.__new__");
    T_FAILS(pysock_socket(AF_INET, SOCK_STREAM, 0), PYSOCK_OS_ERROR, EACCES);
    (void)pysock_state_swap(NULL);
    T_EQ(tale_length, 1);
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_bind(s, "localhost", 0));
    T_OK(pysock_close(s));
    T_EQ(tale_length, 1);
    T_STEP("taking away the one leaves the other");
    unwatch();
    (void)pysock_state_swap(st);
    T_FAILS(pysock_socket(AF_INET, SOCK_STREAM, 0), PYSOCK_OS_ERROR, EACCES);
    unwatch();
    T_OK(pysock_close(T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0))));
    (void)pysock_state_swap(NULL);
    pysock_state_free(st);
}

/* A name that is looked up on another thread is told to the hook of the socket's state. */
T_TEST(a_connect_by_name_is_told_in_its_own_state, 30) {
    pysock_state *st = T_OK(pysock_state_new());
    int port;
    pysock *listener, *s;
    listener = t_listen(&port);
    (void)pysock_state_swap(st);
    watch("socket.connect");
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_settimeout(s, 30));
    T_FAILS(pysock_connect(s, "localhost", port), PYSOCK_OS_ERROR, EACCES);
    expect_denied("socket.connect");
    T_OK(pysock_close(s));
    (void)pysock_state_swap(NULL);
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_settimeout(s, 30));
    T_OK(pysock_connect(s, "localhost", port));
    T_EQ(times_told("socket.connect"), 1);
    T_OK(pysock_close(s));
    T_OK(pysock_close(listener));
    pysock_state_free(st);
}

typedef struct reader {
    pysock_state *in;
    pysock *s;
    int code;
    int ended; /* atomic */
} reader;

static void *reader_thread(void *arg) {
    reader *r = arg;
    char byte;
    (void)pysock_state_swap(r->in);
    r->code = pysock_recv(r->s, &byte, 1, 0) == 1 ? 0 : errno;
    __atomic_store_n(&r->ended, 1, __ATOMIC_RELEASE);
    return NULL;
}

T_TEST(interrupt_hooks_belong_to_a_state, 30) {
    pysock_state *st = T_OK(pysock_state_new());
    reader here, there;
    pysock *mine[2], *its[2];
    t_thread t[2];
    int stop = 1;
    t_catch_signal(SIGUSR1);
    memset(&here, 0, sizeof here);
    memset(&there, 0, sizeof there);
    t_pair(mine);
    (void)pysock_state_swap(st);
    t_pair(its);
    pysock_set_interrupt_hook(t_interrupt_hook, &stop);
    (void)pysock_state_swap(NULL);
    here.s = mine[0];
    there.s = its[0];
    there.in = st;
    t_spawn(&t[0], reader_thread, &here);
    t_spawn(&t[1], reader_thread, &there);
    for (int i = 0; i < 2; i++)
        t_wait_asleep(&t[i]);
    while (!__atomic_load_n(&there.ended, __ATOMIC_ACQUIRE)) {
        T_EQ(pthread_kill(t[0].id, SIGUSR1), 0);
        T_EQ(pthread_kill(t[1].id, SIGUSR1), 0);
        t_nap(0.02);
    }
    t_join(&t[1]);
    T_EQ(there.code, EINTR);
    t_wait_asleep(&t[0]);
    t_say(mine[1], "x");
    t_join(&t[0]);
    T_EQ(here.code, 0);
    t_close_pair(mine);
    t_close_pair(its);
    pysock_state_free(st);
}

/* A check that fails in a closer would leave the cleanup undone: what is wrong is told after it. */
static char called[32];
static pysock_state *expected_state;
static int wrong_states;

static void note_call(void *arg) {
    size_t n = strlen(called);
    pysock_state *now = pysock_state_swap(NULL);
    (void)pysock_state_swap(now);
    wrong_states += now != expected_state;
    T_CHECK(n + 1 < sizeof called);
    called[n] = *(const char *)arg;
    called[n + 1] = 0;
    work_a_little(); /* everything still works */
}

T_TEST(closers_belong_to_a_state_and_run_in_it, 60) {
    static char a[] = "a", b[] = "b", c[] = "c", m[] = "m";
    pysock_state *st = T_OK(pysock_state_new());
    memset(called, 0, sizeof called);
    wrong_states = 0;
    T_OK(pysock_register_closer(note_call, m));
    (void)pysock_state_swap(st);
    T_OK(pysock_register_closer(note_call, a));
    T_OK(pysock_register_closer(note_call, b));
    T_OK(pysock_register_closer(note_call, c));
    T_OK(pysock_unregister_closer(note_call, m)); /* another state's: it stays */
    (void)pysock_state_swap(NULL);
    T_OK(pysock_unregister_closer(note_call, b));
    expected_state = st;
    pysock_state_cleanup(st);
    expect_text(called, "cba");
    pysock_state_cleanup(st);
    expect_text(called, "cba");
    T_STEP("the main one");
    expected_state = NULL;
    pysock_state_cleanup(NULL);
    expect_text(called, "cbam");
    T_STEP("free runs them too");
    memset(called, 0, sizeof called);
    (void)pysock_state_swap(st);
    T_OK(pysock_register_closer(note_call, a));
    (void)pysock_state_swap(NULL);
    expected_state = st;
    pysock_state_free(st);
    expect_text(called, "a");
    T_EQ(wrong_states, 0);
}

/* The general cleanup runs the closers of all states, each with its own current. */
static void note_state(void *arg) {
    pysock_state **slot = arg;
    *slot = pysock_state_swap(NULL);
    (void)pysock_state_swap(*slot);
}

T_TEST(cleanup_runs_the_closers_of_every_state, 60) {
    static char marker;
    pysock_state *none = (pysock_state *)(void *)&marker, *seen[3] = {none, none, none};
    pysock_state *st[2] = {T_OK(pysock_state_new()), T_OK(pysock_state_new())};
    T_OK(pysock_register_closer(note_state, &seen[0]));
    for (int i = 0; i < 2; i++) {
        (void)pysock_state_swap(st[i]);
        T_OK(pysock_register_closer(note_state, &seen[i + 1]));
    }
    (void)pysock_state_swap(NULL);
    pysock_cleanup();
    T_CHECK(seen[0] == NULL);
    T_CHECK(seen[1] == st[0]);
    T_CHECK(seen[2] == st[1]);
    pysock_state_free(st[0]);
    pysock_state_free(st[1]);
}

T_TEST(cleanup_of_a_state_closes_its_sockets_and_nobody_elses, 60) {
    pysock_state *st = T_OK(pysock_state_new());
    pysock *mine[2], *shaken[2], *its[4][2];
    pysock_poller *p;
    pysock_pollevent event;
    int fds;
    t_pair(mine);
    t_nonblocking_tls_pair(shaken, client_ctx, server_ctx);
    work_a_little_in(st);
    fds = t_settled(t_count_fds);
    (void)pysock_state_swap(st);
    t_pair(its[0]);
    t_tls_pair(its[1], client_ctx, server_ctx);
    t_nonblocking_tls_pair(its[2], client_ctx, server_ctx);
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, its[3]));
    p = t_poller_with(pysock_fileno(its[0][0]), POLLIN);
    (void)pysock_state_swap(NULL);
    pysock_state_cleanup(st);
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 2; k++) {
            T_FAILS(pysock_send(its[i][k], "x", 1, 0), PYSOCK_OS_ERROR, EBADF);
            T_EQ(pysock_close(its[i][k]), 0);
        }
    T_EQ(pysock_poller_poll(p, &event, 1, PYSOCK_NO_TIMEOUT), 1);
    T_EQ(event.events, POLLNVAL);
    pysock_poller_release(p);
    t_expect_at_most(t_count_fds, fds, "descriptors");
    t_echo_once(mine[0], mine[1]);
    t_echo_once(shaken[0], shaken[1]);
    t_close_pair(mine);
    t_close_pair(shaken);
    pysock_state_free(st);
}

/* Handshakes that the reactor does for one state do not suffer from another's end. */
T_TEST(cleanup_of_a_state_in_the_middle_of_handshakes, 120) {
    for (int round = 0; round < T_SCALE(40, 10); round++) {
        pysock_state *st = T_OK(pysock_state_new());
        pysock *pairs[2][2];
        T_STEP("round %d", round);
        for (int k = 0; k < 2; k++) {
            (void)pysock_state_swap(k ? st : NULL);
            T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pairs[k]));
            for (int i = 0; i < 2; i++) {
                T_OK(pysock_setblocking(pairs[k][i], 0));
                T_OK(pysock_ssl_wrap_socket(pairs[k][i], i ? server_ctx : client_ctx,
                                            i ? NULL : "localhost"));
            }
        }
        (void)pysock_state_swap(NULL);
        if (round & 1)
            pysock_state_cleanup(st);
        pysock_state_free(st);
        T_FAILS(pysock_ssl_do_handshake(pairs[1][0]), PYSOCK_OS_ERROR, EBADF);
        for (int i = 0; i < 2; i++) {
            T_EQ(t_writable(pairs[0][i], PYSOCK_NO_TIMEOUT), 1);
            T_EQ(pysock_ssl_do_handshake(pairs[0][i]), 0);
        }
        t_echo_once(pairs[0][0], pairs[0][1]);
        t_close_pair(pairs[0]);
    }
}

typedef struct interpreter {
    int is_main, rounds;
} interpreter;

static void *interpreter_thread(void *arg) {
    const interpreter *me = arg;
    pysock_state *st = me->is_main ? NULL : T_OK(pysock_state_new());
    T_CHECK(pysock_state_swap(st) == NULL);
    for (int round = 0; round < me->rounds; round++) {
        pysock *left_open[2], *listener, *s;
        int port;
        work_a_little();
        t_nonblocking_tls_pair(left_open, client_ctx, server_ctx);
        listener = t_listen(&port);
        s = T_OK(pysock_create_connection("localhost", port, 30));
        T_OK(pysock_close(s));
        T_OK(pysock_close(listener));
        if (me->is_main) {
            t_close_pair(left_open);
            continue;
        }
        pysock_state_cleanup(st);
        T_FAILS(pysock_send(left_open[0], "x", 1, 0), PYSOCK_OS_ERROR, EBADF);
        if (round % 4 == 3) {
            (void)pysock_state_swap(NULL);
            pysock_state_free(st);
            st = T_OK(pysock_state_new());
            (void)pysock_state_swap(st);
        }
    }
    (void)pysock_state_swap(NULL);
    if (st)
        pysock_state_free(st);
    return NULL;
}

T_TEST(interpreters_come_and_go_without_noticing_each_other, T_SCALE(60, 180)) {
    enum { N = 5 };
    t_thread threads[N];
    interpreter who[N];
    int fds;
    work_a_little();
    pysock_cleanup();
    fds = t_settled(t_count_fds);
    for (int i = 0; i < N; i++) {
        who[i].is_main = i < 2;
        who[i].rounds = T_SCALE(40, 12);
        t_spawn(&threads[i], interpreter_thread, &who[i]);
    }
    for (int i = 0; i < N; i++)
        t_join(&threads[i]);
    pysock_cleanup();
    t_expect_at_most(t_count_fds, fds, "descriptors");
    work_a_little();
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts, .each_teardown = forget_hooks)
