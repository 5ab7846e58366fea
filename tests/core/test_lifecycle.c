/* Beginnings and ends: closers, cleanup, threads and descriptors that come and go, fork, exit,
   signals. */
#include "support/contexts.h"

#include <sys/stat.h>

#if T_TSAN
/* A child that starts its own reactor is what is tested here. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) {
    return "die_after_fork=0";
}
#endif

/* ---- closers ---- */

static char called[64];

static void note_call(void *arg) {
    size_t n = strlen(called);
    T_CHECK(n + 1 < sizeof called);
    called[n] = *(const char *)arg;
    called[n + 1] = 0;
}

T_TEST(closers_run_last_first_and_exactly_once, 30) {
    memset(called, 0, sizeof called);
    T_OK(pysock_register_closer(note_call, "a"));
    T_OK(pysock_register_closer(note_call, "b"));
    T_OK(pysock_register_closer(note_call, "c"));
    T_OK(pysock_register_closer(note_call, "b"));
    pysock_cleanup();
    T_CHECK(strcmp(called, "bcba") == 0);
    pysock_cleanup();
    T_CHECK(strcmp(called, "bcba") == 0);
    T_FAILS(pysock_register_closer(NULL, NULL), PYSOCK_VALUE_ERROR, EINVAL);
}

T_TEST(a_closer_can_be_taken_back, 30) {
    static char x[] = "x", y[] = "y";
    memset(called, 0, sizeof called);
    T_OK(pysock_register_closer(note_call, x));
    T_OK(pysock_register_closer(note_call, y));
    T_OK(pysock_register_closer(note_call, x));
    T_OK(pysock_unregister_closer(note_call, x));
    pysock_cleanup();
    T_CHECK(strcmp(called, "y") == 0);
}

static pysock *held[2];

static void say_goodbye(void *arg) {
    (void)arg;
    t_say(held[0], "goodbye");
    t_expect(held[1], "goodbye");
    T_OK(pysock_register_closer(note_call, "n"));
}

/* Everything still works inside a closer, even registering another one. */
T_TEST(a_closer_may_use_every_call, 30) {
    memset(called, 0, sizeof called);
    t_tls_pair(held, client_ctx, server_ctx);
    T_OK(pysock_register_closer(say_goodbye, NULL));
    pysock_cleanup();
    T_FAILS(pysock_send(held[0], "x", 1, 0), PYSOCK_OS_ERROR, EBADF);
    pysock_cleanup();
    T_CHECK(strcmp(called, "n") == 0);
}

static int counted;

static void count_call(void *arg) {
    (void)arg;
    __atomic_add_fetch(&counted, 1, __ATOMIC_ACQ_REL);
}

static void *cleanup_thread(void *arg) {
    (void)arg;
    pysock_cleanup();
    T_EQ(__atomic_load_n(&counted, __ATOMIC_ACQUIRE) % 10, 0);
    return NULL;
}

T_TEST(two_cleanups_at_once_run_each_closer_once, 60) {
    counted = 0;
    for (int round = 1; round <= 50; round++) {
        t_thread threads[3];
        for (int i = 0; i < 10; i++)
            T_OK(pysock_register_closer(count_call, NULL));
        for (int i = 0; i < 3; i++)
            t_spawn(&threads[i], cleanup_thread, NULL);
        for (int i = 0; i < 3; i++)
            t_join(&threads[i]);
        T_EQ(counted, 10 * round);
    }
}

/* ---- cleanup ---- */

T_TEST(cleanup_ends_every_wait_with_ESHUTDOWN, 60) {
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
    enum { N = sizeof waits / sizeof waits[0] };
    t_stage stages[N];
    t_thread threads[N];
    (void)t_flood();
    for (int i = 0; i < N; i++) {
        T_STEP("stage %d", i);
        t_stage_set(&stages[i], waits[i].what, waits[i].tls, waits[i].timeout, client_ctx,
                    server_ctx);
        t_spawn(&threads[i], t_wait_thread, &stages[i].w);
        t_wait_asleep(&threads[i]);
    }
    T_STEP("cleanup");
    pysock_cleanup();
    for (int i = 0; i < N; i++) {
        const t_waiter *w = &stages[i].w;
        T_STEP("join %d", i);
        t_join(&threads[i]);
        if (w->result != -1 || w->code != ESHUTDOWN || w->kind != PYSOCK_OS_ERROR)
            T_FAIL("wait %d gave %ld, errno %d, kind %d", i, (long)w->result, w->code,
                   (int)w->kind);
        T_FAILS(pysock_fileno(w->s), PYSOCK_OS_ERROR, EBADF);
        t_stage_clear(&stages[i]);
    }
    work_a_little();
}

T_TEST(after_cleanup_the_library_works_again, 60) {
    for (int i = 0; i < 20; i++) {
        pysock *left_open[2];
        pysock_poller *p = T_OK(pysock_poller_new());
        T_STEP("round %d", i);
        work_a_little();
        t_nonblocking_tls_pair(left_open, client_ctx, server_ctx);
        T_OK(pysock_poller_register(p, pysock_fileno(left_open[0]), POLLIN, NULL));
        pysock_cleanup();
        T_FAILS(pysock_send(left_open[0], "x", 1, 0), PYSOCK_OS_ERROR, EBADF);
        T_EQ(pysock_close(left_open[0]), 0);
        pysock_poller_release(p);
    }
}

T_TEST(cleanup_of_what_was_never_used_is_nothing, 30) {
    pysock_cleanup();
    pysock_cleanup();
}

/* Output that is on its way, and close_notify, still reach the peer. */
T_TEST(cleanup_flushes_and_says_goodbye, 60) {
    unsigned char record[T_RECORD];
    int port, fd;
    for (int tls = 0; tls < 2; tls++) {
        pysock *s;
        T_STEP("%s", tls ? "TLS" : "plain");
        if (tls) {
            pysock *pair[2];
            t_proxy proxy;
            t_tls_pair_by_proxy(pair, &proxy, client_ctx, server_ctx);
            t_say(pair[0], "last");
            pysock_cleanup();
            (void)t_raw_record(proxy.to_client, record);
            T_EQ(record[0], 23);
            (void)t_raw_record(proxy.to_client, record);
            T_EQ(record[0], 21); /* the alert that close_notify is */
            T_EQ(t_raw_read(proxy.to_client, record, 1), 0);
            t_proxy_close(&proxy);
            continue;
        }
        pysock *listener = t_listen(&port);
        fd = t_raw_connect(port);
        s = T_OK(pysock_accept(listener, NULL));
        t_say(s, "last");
        pysock_cleanup();
        T_EQ(t_raw_read(fd, record, 5), 4);
        close(fd);
    }
}

/* Handshakes that have just begun do not keep cleanup waiting, nor does it tread on them. */
T_TEST(cleanup_in_the_middle_of_handshakes, 120) {
    enum { N = 8 };
    for (int round = 0; round < T_SCALE(40, 10); round++) {
        pysock *pairs[N][2];
        T_STEP("round %d", round);
        for (int i = 0; i < N; i++) {
            T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pairs[i]));
            for (int k = 0; k < 2; k++) {
                T_OK(pysock_setblocking(pairs[i][k], 0));
                T_OK(pysock_ssl_wrap_socket(pairs[i][k], k ? server_ctx : client_ctx,
                                            k ? NULL : "localhost"));
            }
        }
        if (round % 2)
            T_EQ(t_writable(pairs[0][0], PYSOCK_NO_TIMEOUT), 1);
        pysock_cleanup();
        T_FAILS(pysock_ssl_do_handshake(pairs[0][0]), PYSOCK_OS_ERROR, EBADF);
    }
}

static void *busy_thread(void *arg) {
    int *stop = arg;
    while (!__atomic_load_n(stop, __ATOMIC_ACQUIRE)) {
        pysock *pair[2];
        if (pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
            continue;
        for (int i = 0; i < 2; i++) {
            (void)pysock_setblocking(pair[i], 0);
            (void)pysock_ssl_wrap_socket(pair[i], i ? server_ctx : client_ctx,
                                         i ? NULL : "localhost");
        }
        for (int i = 0; i < 2; i++) {
            int fd = pysock_fileno(pair[i]);
            size_t n = 1;
            if (fd >= 0)
                (void)pysock_select(NULL, NULL, &fd, &n, NULL, NULL, 0.05);
        }
        (void)pysock_send(pair[0], "x", 1, 0);
        (void)pysock_close(pair[0]);
        (void)pysock_close(pair[1]);
    }
    return NULL;
}

/* Other threads go on using the library while it ends: errors are fine, anything else is not. */
T_TEST(cleanup_under_load_harms_nobody, 120) {
    enum { N = 3 };
    t_thread threads[N];
    int stop = 0;
    for (int i = 0; i < N; i++)
        t_spawn(&threads[i], busy_thread, &stop);
    for (int i = 0; i < T_SCALE(60, 12); i++) {
        T_STEP("cleanup %d", i);
        t_nap(0.01);
        pysock_cleanup();
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < N; i++)
        t_join(&threads[i]);
    pysock_cleanup();
    work_a_little();
}

/* ---- threads and descriptors ---- */

static void *do_nothing(void *arg) {
    return arg;
}

T_TEST(plain_and_blocking_tls_sockets_start_no_thread, 60) {
    static const double modes[] = {PYSOCK_NO_TIMEOUT, 30};
    t_thread first;
    int threads;
    pysock_cleanup();
    t_spawn(&first, do_nothing, NULL); /* brings a sanitizer's own thread with it */
    t_join(&first);
    threads = t_settled(t_count_threads);
    for (int i = 0; i < 4; i++) {
        pysock *pair[2];
        pysock_poller *p;
        pysock_pollevent event;
        char byte;
        T_STEP("%s, timeout %g", i % 2 ? "TLS" : "plain", modes[i / 2]);
        if (i % 2)
            t_tls_pair(pair, client_ctx, server_ctx);
        else
            t_pair(pair);
        T_OK(pysock_settimeout(pair[0], modes[i / 2]));
        T_OK(pysock_settimeout(pair[1], modes[i / 2]));
        t_echo_once(pair[0], pair[1]);
        T_EQ(t_writable(pair[0], PYSOCK_NO_TIMEOUT), 1);
        T_EQ(t_readable(pair[0], 0.01), 0);
        p = t_poller_with(pysock_fileno(pair[1]), POLLIN);
        T_EQ(pysock_poller_poll(p, &event, 1, 0.01), 0);
        pysock_poller_release(p);
        t_expect_at_most(t_count_threads, threads, "threads");
        /* whoever has seen the other's end has nothing to wait for at close */
        T_OK(pysock_shutdown(pair[1], SHUT_WR));
        T_EQ(pysock_recv(pair[0], &byte, 1, 0), 0);
        T_OK(pysock_close(pair[0]));
        T_EQ(pysock_recv(pair[1], &byte, 1, 0), 0);
        T_OK(pysock_close(pair[1]));
        t_expect_at_most(t_count_threads, threads, "threads");
    }
    T_STEP("plain non-blocking");
    {
        pysock *pair[2];
        char byte;
        t_pair(pair);
        T_OK(pysock_setblocking(pair[0], 0));
        T_FAILS(pysock_recv(pair[0], &byte, 1, 0), PYSOCK_OS_ERROR, EAGAIN);
        t_echo_once(pair[0], pair[1]);
        t_close_pair(pair);
        t_expect_at_most(t_count_threads, threads, "threads");
    }
}

T_TEST(a_nonblocking_handshake_starts_the_reactor_and_cleanup_ends_it, 60) {
    int threads, fds;
    work_a_little();
    pysock_cleanup();
    threads = t_settled(t_count_threads);
    fds = t_settled(t_count_fds);
    for (int i = 0; i < 5; i++) {
        pysock *pair[2];
        t_nonblocking_tls_pair(pair, client_ctx, server_ctx);
        T_CHECK(t_count_threads() > threads);
        pysock_cleanup();
        t_expect_at_most(t_count_threads, threads, "threads");
        t_expect_at_most(t_count_fds, fds, "descriptors");
    }
}

/* One connection of each kind in turn. */
static void connect_and_part(int i) {
    pysock *pair[2];
    switch (i % 4) {
    case 0: t_pair(pair); break;
    case 1: t_tls_local_pair(pair, client_ctx, server_ctx); break;
    case 2: t_nonblocking_tls_pair(pair, client_ctx, server_ctx); break;
    default:
        t_pair(pair);
        T_OK(pysock_setblocking(pair[0], 0));
        T_OK(pysock_setblocking(pair[1], 0));
        break;
    }
    t_echo_once(pair[0], pair[1]);
    if (i % 3)
        t_close_pair(pair);
    else
        T_EQ(pysock_close(pair[1]) | pysock_close(pair[0]), 0);
}

T_TEST(descriptors_and_threads_are_where_they_were_after_2000_connections, 200) {
    int fds, threads, fds_at_rest, threads_at_rest;
    work_a_little();
    pysock_cleanup();
    fds_at_rest = t_settled(t_count_fds);
    threads_at_rest = t_settled(t_count_threads);
    for (int i = 0; i < 20; i++)
        connect_and_part(i);
    fds = t_settled(t_count_fds);
    threads = t_settled(t_count_threads);
    for (int i = 0; i < 2000; i++) {
        if (i % 100 == 0)
            T_STEP("connection %d", i);
        connect_and_part(i);
    }
    t_expect_at_most(t_count_fds, fds, "descriptors");
    t_expect_at_most(t_count_threads, threads, "threads");
    pysock_cleanup();
    t_expect_at_most(t_count_fds, fds_at_rest, "descriptors");
    t_expect_at_most(t_count_threads, threads_at_rest, "threads");
}

/* A program may look at a number that it has closed, or count on the lowest free one. */
T_TEST(a_sleeping_thread_takes_no_low_descriptor, 30) {
    t_waiter w;
    t_thread t;
    int lowest, port;
    pysock_cleanup(); /* closes that are still finishing would free numbers meanwhile */
    memset(&w, 0, sizeof w);
    w.what = T_WAIT_ACCEPT;
    w.s = t_listen(&port);
    T_OK(pysock_settimeout(w.s, 60));
    lowest = dup(0);
    close(lowest);
    t_spawn(&t, t_wait_thread, &w);
    t_wait_asleep(&t);
    T_EQ(dup(0), lowest);
    close(lowest);
    T_OK(pysock_close(w.s));
    t_join(&t);
}

/* ---- fork and exit ---- */

static void child_starts_a_reactor(void *arg) {
    int threads = t_count_threads();
    T_STEP("the child works");
    work_a_little();
    work_a_little();
    T_CHECK(t_count_threads() > threads);
    T_CHECK(arg == NULL || pysock_fileno(*(pysock **)arg) >= 0);
}

/* The child of a parent whose reactor runs. ThreadSanitizer knows no such child with threads of its
   own: it takes them for the parent's. */
static void child_works(void *arg) {
    pysock *pair[2];
    if (!T_TSAN) {
        child_starts_a_reactor(arg);
        return;
    }
    t_pair(pair);
    t_echo_once(pair[0], pair[1]);
    t_close_pair(pair);
}

T_TEST(a_child_finds_a_library_that_works_and_starts_its_own_reactor, 60) {
    pysock *pair[2];
    T_STEP("a parent without a thread");
    pysock_cleanup();
    t_wait_for_child(t_run_in_child(child_starts_a_reactor, NULL, 0));
    t_wait_for_child(t_run_in_child(child_starts_a_reactor, NULL, 1));
    T_STEP("a parent whose reactor runs");
    t_nonblocking_tls_pair(pair, client_ctx, server_ctx);
    t_wait_for_child(t_run_in_child(child_works, pair, 0));
    t_echo_once(pair[0], pair[1]);
    t_wait_for_child(t_run_in_child(child_works, pair, 1));
    t_echo_once(pair[0], pair[1]);
    t_close_pair(pair);
    work_a_little();
}

static void child_does_nothing(void *arg) {
    (void)arg;
}

static void child_cleans_up(void *arg) {
    (void)arg;
    pysock_cleanup();
}

static void child_works_and_cleans_up(void *arg) {
    child_works(arg);
    pysock_cleanup();
}

/* A daemon's first steps. What it has opened since has the numbers that were the library's. */
static void child_closes_every_number_it_finds(void *arg) {
    int files[64], n = 0, fd;
    struct stat is;
    (void)arg;
    for (fd = 3; fd < 256; fd++)
        close(fd);
    while (n < 64)
        files[n++] = T_OK(open("/dev/null", O_RDONLY | O_CLOEXEC));
    T_EQ(T_OK(pysock_select(NULL, NULL, NULL, NULL, NULL, NULL, 0.01)), 0);
    work_a_little();
    while (n-- > 0) {
        T_OK(fstat(files[n], &is));
        T_CHECK(S_ISCHR(is.st_mode));
    }
}

T_TEST(a_childs_own_files_are_not_taken_for_the_librarys, 60) {
    pysock *pair[2];
    pysock_poller *p = T_OK(pysock_poller_new());
    pysock_pollevent event;
    t_pair(pair);
    T_EQ(t_readable(pair[0], 0.01), 0); /* this thread sleeps, and so does a poller */
    T_OK(pysock_poller_register(p, pysock_fileno(pair[0]), POLLIN, NULL));
    T_EQ(pysock_poller_poll(p, &event, 1, 0.01), 0);
    t_wait_for_child(t_run_in_child(child_closes_every_number_it_finds, NULL, 0));
    pysock_poller_release(p);
    t_close_pair(pair);
}

/* No close_notify, no shutdown(2) comes from a child that ends, whichever way. */
T_TEST(a_childs_end_leaves_the_parents_connections_alone, 120) {
    void (*const children[])(void *) = {child_does_nothing, child_cleans_up, child_works,
                                        child_works_and_cleans_up};
    pysock *tls[2], *plain[2], *listener, *late[2];
    int port;
    t_nonblocking_tls_pair(tls, client_ctx, server_ctx);
    t_pair(plain);
    listener = t_listen(&port);
    for (int i = 0; i < 8; i++) {
        T_STEP("child %d", i);
        t_wait_for_child(t_run_in_child(children[i / 2], tls, i % 2));
        t_echo_once(tls[0], tls[1]);
        t_echo_once(plain[0], plain[1]);
        late[0] = T_OK(pysock_create_connection("127.0.0.1", port, 30));
        late[1] = T_OK(pysock_accept(listener, NULL));
        t_echo_once(late[0], late[1]);
        t_close_pair(late);
    }
    T_EQ(pysock_ssl_eof_is_clean(tls[0]), 0);
    T_OK(pysock_close(listener));
    t_close_pair(tls);
    t_close_pair(plain);
}

/* Unfinished business of the parent is the parent's: its handshake ends, its queue is flushed
   once. */
T_TEST(a_child_does_not_finish_its_parents_business, 120) {
    static unsigned char buf[4 * 1024 * 1024];
    pysock *pair[2], *hand[2];
    pysock_buf *b;
    t_nonblocking_tls_pair(pair, client_ctx, server_ctx);
    b = T_OK(pysock_buf_new(sizeof buf));
    t_fill(pysock_buf_data(b), sizeof buf, 0, 1);
    T_OK(pysock_send_buf(pair[0], b));
    pysock_buf_release(b);
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, hand));
    T_OK(pysock_setblocking(hand[0], 0));
    T_OK(pysock_ssl_wrap_socket(hand[0], client_ctx, "localhost"));
    t_wait_for_child(t_run_in_child(child_works, NULL, 1));
    t_recv_exactly(pair[1], buf, sizeof buf);
    t_verify(buf, sizeof buf, 0, 1);
    t_echo_once(pair[0], pair[1]);
    T_OK(pysock_setblocking(hand[1], 0));
    T_OK(pysock_ssl_wrap_socket(hand[1], server_ctx, NULL));
    T_EQ(t_writable(hand[0], PYSOCK_NO_TIMEOUT), 1);
    T_EQ(t_writable(hand[1], PYSOCK_NO_TIMEOUT), 1);
    t_echo_once(hand[0], hand[1]);
    t_close_pair(hand);
    t_close_pair(pair);
}

/* Whatever lock another thread holds at that moment, the child must not find it held. */
T_TEST(fork_under_load_gives_children_that_work, 120) {
    enum { N = 2 };
    t_thread threads[N];
    int stop = 0;
    if (T_SANITIZED)
        skip(); /* the sanitizers' own allocators may be locked in such a child */
    for (int i = 0; i < N; i++)
        t_spawn(&threads[i], busy_thread, &stop);
    for (int i = 0; i < 60; i++) {
        T_STEP("fork %d", i);
        t_wait_for_child(t_run_in_child(child_works, NULL, 0));
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < N; i++)
        t_join(&threads[i]);
}

static int report_fd;

static void report_call(void *arg) {
    T_EQ(write(report_fd, arg, 1), 1);
}

static void child_leaves_things_open(void *arg) {
    pysock *pair[2], *hand[2];
    (void)arg;
    T_OK(pysock_register_closer(report_call, "1"));
    T_OK(pysock_register_closer(report_call, "2"));
    t_nonblocking_tls_pair(pair, client_ctx, server_ctx);
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, hand));
    T_OK(pysock_setblocking(hand[0], 0));
    T_OK(pysock_ssl_wrap_socket(hand[0], client_ctx, "localhost"));
}

T_TEST(exit_runs_the_closers_and_ends_cleanly, 60) {
    int fds[2];
    char text[8];
    pysock_cleanup();
    T_EQ(pipe(fds), 0);
    report_fd = fds[1];
    t_wait_for_child(t_run_in_child(child_leaves_things_open, NULL, 1));
    close(fds[1]);
    T_EQ(read(fds[0], text, sizeof text), 2);
    T_CHECK(memcmp(text, "21", 2) == 0);
    close(fds[0]);
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
        execl("/proc/self/exe", "test_lifecycle", "--closer", (char *)NULL);
        _exit(127);
    }
    T_EQ(waitpid(pid, &status, 0), pid);
    T_CHECK(WIFEXITED(status));
    T_EQ(WEXITSTATUS(status), 7);
}

/* ---- signals ---- */

static int hook_answer, hook_calls;

static int interrupt_hook(void *arg) {
    T_CHECK(arg == &hook_answer);
    __atomic_add_fetch(&hook_calls, 1, __ATOMIC_ACQ_REL);
    return __atomic_load_n(&hook_answer, __ATOMIC_ACQUIRE);
}

static const t_wait_kind interruptible[] = {T_WAIT_RECV,   T_WAIT_ACCEPT,  T_WAIT_CONNECT,
                                            T_WAIT_SELECT, T_WAIT_SENDALL, T_WAIT_POLLER};
#define INTERRUPTIBLE ((int)(sizeof interruptible / sizeof interruptible[0]))

T_TEST(an_interrupt_hook_ends_a_wait_with_EINTR, 60) {
    t_catch_signal(SIGUSR1);
    (void)t_flood();
    hook_answer = 1;
    pysock_set_interrupt_hook(interrupt_hook, &hook_answer);
    for (int i = 0; i < 4 * INTERRUPTIBLE; i++) {
        t_stage st;
        t_thread t;
        T_STEP("wait %d", i);
        t_stage_set(&st, interruptible[i / 4], i & 1, i & 2 ? 60 : PYSOCK_NO_TIMEOUT, client_ctx,
                    server_ctx);
        t_spawn(&t, t_wait_thread, &st.w);
        t_wait_asleep(&t);
        T_EQ(pthread_kill(t.id, SIGUSR1), 0);
        t_join(&t);
        T_EQ(st.w.result, -1);
        T_EQ(st.w.kind, PYSOCK_OS_ERROR);
        T_EQ(st.w.code, EINTR);
        t_stage_clear(&st);
    }
    T_CHECK(hook_calls >= 4 * INTERRUPTIBLE);
    pysock_set_interrupt_hook(NULL, NULL);
}

typedef struct timed_recv {
    pysock *s;
    double took;
    int code;
} timed_recv;

static void *timed_recv_thread(void *arg) {
    timed_recv *job = arg;
    double start = t_now();
    char byte;
    T_EQ(pysock_recv(job->s, &byte, 1, 0), -1);
    job->code = errno;
    job->took = t_now() - start;
    return NULL;
}

/* PEP 475: a signal that nobody minds neither ends a wait nor makes it longer. */
T_TEST(a_signal_without_a_say_changes_no_deadline, 60) {
    t_catch_signal(SIGUSR1);
    __atomic_store_n(&hook_answer, 0, __ATOMIC_RELEASE);
    for (int i = 0; i < 4; i++) {
        pysock *pair[2];
        timed_recv job;
        t_thread t;
        double start = t_now();
        T_STEP("round %d", i);
        pysock_set_interrupt_hook(i & 2 ? interrupt_hook : NULL, &hook_answer);
        if (i & 1)
            t_tls_pair(pair, client_ctx, server_ctx);
        else
            t_pair(pair);
        T_OK(pysock_settimeout(pair[0], 0.4));
        job.s = pair[0];
        t_spawn(&t, timed_recv_thread, &job);
        while (!__atomic_load_n(&t.tid, __ATOMIC_ACQUIRE))
            t_nap(0.001);
        while (t_now() - start < 0.3) {
            (void)pthread_kill(t.id, SIGUSR1);
            t_nap(0.01);
        }
        t_join(&t);
        T_EQ(job.code, ETIMEDOUT);
        T_CHECK(job.took >= 0.39 && job.took < 20);
        t_close_pair(pair);
    }
    pysock_set_interrupt_hook(NULL, NULL);
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts, .as_child = only_register_a_closer)
