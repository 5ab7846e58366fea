/* What a forked child finds of its parent's sockets, where other threads, or the reactor, were in
   the middle of something. */
#include "support/contexts.h"
#include "support/steps.h"

static void *recv_thread(void *arg) {
    char byte;
    T_OK(pysock_recv(arg, &byte, 1, 0));
    return NULL;
}

/* Nobody is in a call here any more: the descriptor is closed with the socket, and handed out. */
static void child_closes_and_detaches(void *arg) {
    pysock **sockets = arg;
    int fd = T_OK(pysock_fileno(sockets[0]));
    T_OK(pysock_close(sockets[0]));
    T_EQ(fcntl(fd, F_GETFD), -1);
    fd = T_OK(pysock_detach(sockets[1]));
    T_CHECK(fcntl(fd, F_GETFD) >= 0);
    close(fd);
}

T_TEST(calls_of_other_threads_hold_nothing_in_a_child, 60) {
    pysock *pair[2][2], *sockets[2];
    t_thread t[2];
    for (int i = 0; i < 2; i++) {
        T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair[i]));
        sockets[i] = pair[i][0];
        t_spawn(&t[i], recv_thread, sockets[i]);
        t_wait_asleep(&t[i]);
    }
    t_wait_for_child(t_run_in_child(child_closes_and_detaches, sockets, 0));
    for (int i = 0; i < 2; i++) {
        t_say(pair[i][1], "x");
        t_join(&t[i]);
        t_close_pair(pair[i]);
    }
}

#define MUCH ((size_t)2 << 20)

static void queue_much(pysock *s) {
    pysock_buf *b = T_OK(pysock_buf_new(MUCH));
    T_OK(pysock_send_buf(s, b));
    pysock_buf_release(b);
    T_CHECK(pysock_queued(s) > 0);
}

/* What the parent has queued is the parent's to send; what the child queues, its reactor sends. */
static void child_queues_for_itself(void *arg) {
    static char buf[65536];
    pysock **pair = arg;
    size_t have = 0;
    ptrdiff_t n;
    T_EQ(pysock_queued(pair[0]), 0);
    queue_much(pair[2]);
    while (have < MUCH) {
        n = pysock_recv(pair[3], buf, sizeof buf, 0);
        T_CHECK(n > 0);
        have += (size_t)n;
    }
}

T_TEST(a_childs_queues_are_its_own, 60) {
    static char buf[65536];
    pysock *pair[4];
    size_t have = 0;
    ptrdiff_t n;
    if (T_TSAN) {
        print_message("threads of a child are more than this sanitizer can do: skipped\n");
        skip();
    }
    for (int i = 0; i < 4; i += 2) {
        T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair + i));
        T_OK(pysock_setblocking(pair[i], 0));
    }
    queue_much(pair[0]); /* the reactor waits for room */
    t_wait_for_child(t_run_in_child(child_queues_for_itself, pair, 0));
    T_CHECK(pysock_queued(pair[0]) > 0);
    while (have < MUCH) {
        n = pysock_recv(pair[1], buf, sizeof buf, 0);
        T_CHECK(n > 0);
        have += (size_t)n;
    }
    for (int i = 0; i < 4; i += 2)
        t_close_pair(pair + i);
}

/* ---- in the middle of a handshake's step ---- */

static void child_takes_the_descriptor(void *arg) {
    int fd = T_OK(pysock_detach(*(pysock **)arg));
    T_CHECK(fcntl(fd, F_GETFD) >= 0);
}

T_TEST(a_step_of_the_parents_keeps_no_child_waiting, 60) {
    pysock_ssl_context *ctx = t_server_ctx();
    pysock *pair[2];
    t_thread t;
    stop_a_handshake(pair, ctx, &t);
    t_wait_for_child(t_run_in_child(child_takes_the_descriptor, &pair[1], 0));
    let_it_go();
    t_join(&t);
    t_close_pair(pair);
    pysock_ssl_context_release(ctx);
}

/* A child that closes its copy leaves its parent's poller alone. */
T_TEST(a_childs_close_leaves_the_parents_poller_alone, 60) {
    pysock *pair[2];
    pysock_pollevent event;
    pid_t pid;
    int status;
    pysock_poller *p = T_OK(pysock_poller_new());
    t_pair(pair);
    T_OK(pysock_poller_register(p, pysock_fileno(pair[0]), POLLIN, NULL));
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
    pysock_poller_release(p);
    T_OK(pysock_close(pair[0]));
    T_OK(pysock_close(pair[1]));
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts)
