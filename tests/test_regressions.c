/* What a review found, each as the test that would have found it. */
#include "contexts.h"

/* The peer closes while our queue is long: the queue is dropped, and nobody spins or waits. */
static void a_queue_ends_with_the_peers_close_notify(void **state) {
    pysock *pair[2];
    pysock_buf *big = T_OK(pysock_buf_new(8u << 20));
    char byte;
    (void)state;
    t_deadline(60);
    t_tls_pair(pair, client_ctx, server_ctx);
    T_OK(pysock_setblocking(pair[0], 0));
    T_OK(pysock_send_buf(pair[0], big));
    T_OK(pysock_shutdown(pair[1], SHUT_WR));
    T_EQ(t_readable(pair[0], 30), 1);
    T_EQ(pysock_recv(pair[0], &byte, 1, 0), 0);
    T_OK(pysock_settimeout(pair[0], 30));
    T_FAILS(pysock_sendall(pair[0], "x", 1, 0), T_ANY, T_ANY);
    T_OK(pysock_close(pair[0]));
    T_OK(pysock_close(pair[1]));
    pysock_buf_release(big);
}

/* Queued behind a handshake that the reactor began and a blocking call finishes. */
static void what_is_queued_behind_a_handshake_survives_a_mode_switch(void **state) {
    (void)state;
    t_deadline(60);
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
static void a_shutdown_behind_a_queue_is_a_clean_end(void **state) {
    pysock *pair[2];
    pysock_buf *big = T_OK(pysock_buf_new(4u << 20));
    static char buf[65536];
    size_t got = 0;
    ptrdiff_t n;
    (void)state;
    t_deadline(60);
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
static void a_session_does_not_outlive_the_rules_it_was_made_by(void **state) {
    pysock_ssl_context *client = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    pysock_ssl_context *server = t_server_ctx_of("self-signed");
    pysock *pair[2];
    (void)state;
    t_deadline(60);
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
static void two_callers_of_one_handshake_sleep(void **state) {
    pysock *pair[2];
    pysock_ssl_wrap_options later = {NULL, 1, 0};
    t_thread t[2];
    double cpu;
    (void)state;
    t_deadline(60);
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
static void a_childs_close_leaves_the_parents_poller_alone(void **state) {
    pysock *pair[2];
    pysock_pollevent event;
    pid_t pid;
    int status;
    pysock_poller *p = T_OK(pysock_poller_new());
    (void)state;
    t_deadline(60);
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
static void a_reused_number_of_a_pipe_is_asked_for_anew(void **state) {
    pysock_poller *p = T_OK(pysock_poller_new());
    pysock_pollevent event;
    int old[2], again[2];
    (void)state;
    t_deadline(60);
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
static void the_host_name_stays_from_wrap_to_close(void **state) {
    int port;
    pysock *listener = t_listen(&port), *s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0)), *child;
    const char *before;
    pysock_ssl_wrap_options later = {"localhost", 1, 0};
    (void)state;
    t_deadline(60);
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

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(a_queue_ends_with_the_peers_close_notify),
    cmocka_unit_test(what_is_queued_behind_a_handshake_survives_a_mode_switch),
    cmocka_unit_test(a_shutdown_behind_a_queue_is_a_clean_end),
    cmocka_unit_test(a_session_does_not_outlive_the_rules_it_was_made_by),
    cmocka_unit_test(two_callers_of_one_handshake_sleep),
    cmocka_unit_test(a_childs_close_leaves_the_parents_poller_alone),
    cmocka_unit_test(a_reused_number_of_a_pipe_is_asked_for_anew),
    cmocka_unit_test(the_host_name_stays_from_wrap_to_close),
};

int main(void) {
    return cmocka_run_group_tests_name("test_regressions", tests, make_contexts, free_contexts);
}
