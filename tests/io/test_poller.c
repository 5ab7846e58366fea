/* Pollers: Python's select.poll with registrations that stay, level-triggered, any number of
   threads around it. */
#include "support/contexts.h"

#include <sys/ioctl.h>

/* ---- registrations ---- */

T_TEST(an_empty_poller_only_waits, 30) {
    pysock_poller *p;
    pysock_pollevent event;
    double start;
    p = T_OK(pysock_poller_new());
    T_EQ(pysock_poller_poll(p, &event, 1, 0), 0);
    start = t_now();
    T_EQ(pysock_poller_poll(p, &event, 1, 0.05), 0);
    T_CHECK(t_now() - start >= 0.045);
    pysock_poller_release(p);
    pysock_poller_release(NULL);
}

T_TEST(register_modify_and_unregister_do_what_they_say, 30) {
    pysock *pair[2];
    pysock_poller *p;
    int fd;
    t_pair(pair);
    fd = pysock_fileno(pair[0]);
    p = T_OK(pysock_poller_new());
    T_FAILS(pysock_poller_modify(p, fd, POLLIN), PYSOCK_OS_ERROR, ENOENT);
    T_CHECK(strcmp(pysock_error_name(), "FileNotFoundError") == 0);
    T_FAILS(pysock_poller_unregister(p, fd), PYSOCK_KEY_ERROR, ENOENT);
    T_CHECK(strcmp(pysock_error_name(), "KeyError") == 0);
    T_OK(pysock_poller_register(p, fd, POLLIN, NULL));
    T_EQ(t_poll_one(p, fd, 0), 0);
    T_OK(pysock_poller_modify(p, fd, POLLIN | POLLOUT));
    T_EQ(t_poll_one(p, fd, PYSOCK_NO_TIMEOUT), POLLOUT);
    T_OK(pysock_poller_register(p, fd, POLLIN, NULL));
    T_EQ(t_poll_one(p, fd, 0), 0);
    t_say(pair[1], "x");
    T_EQ(t_poll_one(p, fd, PYSOCK_NO_TIMEOUT), POLLIN);
    T_OK(pysock_poller_unregister(p, fd));
    T_EQ(t_poll_one(p, fd, 0), 0);
    T_FAILS(pysock_poller_unregister(p, fd), PYSOCK_KEY_ERROR, ENOENT);
    pysock_poller_release(p);
    t_close_pair(pair);
}

/* What belongs to the one event that the poller has. */
static void *userdata_of(pysock_poller *p) {
    pysock_pollevent event = {-1, 0, NULL};
    T_EQ(pysock_poller_poll(p, &event, 1, PYSOCK_NO_TIMEOUT), 1);
    return event.userdata;
}

T_TEST(an_event_brings_the_userdata_of_its_registration, 60) {
    static char first, second;
    pysock *pair[2];
    for (int tls = 0; tls < 2; tls++)
        for (int epoll = 0; epoll < 2; epoll++) {
            pysock_poller *p = epoll ? pysock_poller_new_epoll() : pysock_poller_new();
            int fd;
            T_STEP("%s, %s", tls ? "TLS" : "plain", epoll ? "epoll" : "poller");
            if (!p && errno == ENOTSUP)
                continue;
            T_OK(p);
            plain_or_tls_pair(pair, tls);
            fd = pysock_fileno(pair[0]);
            T_OK(pysock_poller_register(p, fd, POLLOUT, &first));
            T_CHECK(userdata_of(p) == &first);
            T_OK(pysock_poller_modify(p, fd, POLLIN | POLLOUT));
            T_CHECK(userdata_of(p) == &first);
            if (epoll) {
                T_FAILS(pysock_poller_register(p, fd, POLLOUT, &second), PYSOCK_OS_ERROR, EEXIST);
                T_CHECK(userdata_of(p) == &first);
                T_OK(pysock_poller_unregister(p, fd));
            }
            T_OK(pysock_poller_register(p, fd, POLLOUT, &second));
            T_CHECK(userdata_of(p) == &second);
            pysock_poller_release(p);
            t_close_pair(pair);
        }
}

T_TEST(what_is_still_true_is_told_again, 30) {
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        pysock_poller *p;
        int fd;
        char byte;
        plain_or_tls_pair(pair, tls);
        fd = pysock_fileno(pair[1]);
        p = t_poller_with(fd, POLLIN | POLLOUT);
        for (int i = 0; i < 3; i++)
            T_EQ(t_poll_one(p, fd, PYSOCK_NO_TIMEOUT), POLLOUT);
        T_OK(pysock_poller_modify(p, fd, POLLIN));
        t_say(pair[0], "ab");
        for (int i = 0; i < 3; i++)
            T_EQ(t_poll_one(p, fd, PYSOCK_NO_TIMEOUT), POLLIN);
        T_EQ(pysock_recv(pair[1], &byte, 1, 0), 1);
        for (int i = 0; i < 3; i++)
            T_EQ(t_poll_one(p, fd, PYSOCK_NO_TIMEOUT), POLLIN);
        T_EQ(pysock_recv(pair[1], &byte, 1, 0), 1);
        T_EQ(t_poll_one(p, fd, 0), 0);
        pysock_poller_release(p);
        t_close_pair(pair);
    }
}

/* More ready than asked for: the rest comes first the next time, so that nobody starves. */
T_TEST(nobody_starves_when_more_are_ready_than_fit, 60) {
    enum { N = 10 };
    pysock *pairs[N][2];
    pysock_poller *p;
    int seen[N] = {0};
    p = T_OK(pysock_poller_new());
    for (int i = 0; i < N; i++) {
        if (i % 2)
            t_tls_pair(pairs[i], client_ctx, server_ctx);
        else
            t_pair(pairs[i]);
        t_say(pairs[i][0], "x");
        T_EQ(t_readable(pairs[i][1], PYSOCK_NO_TIMEOUT), 1);
        T_OK(pysock_poller_register(p, pysock_fileno(pairs[i][1]), POLLIN, NULL));
    }
    for (int turn = 0; turn < 4; turn++) {
        pysock_pollevent events[3];
        ptrdiff_t n = T_OK(pysock_poller_poll(p, events, 3, PYSOCK_NO_TIMEOUT));
        T_EQ(n, 3);
        for (int e = 0; e < n; e++)
            for (int i = 0; i < N; i++)
                seen[i] += events[e].fd == pysock_fileno(pairs[i][1]);
    }
    for (int i = 0; i < N; i++)
        T_CHECK(seen[i] > 0);
    for (int i = 0; i < N; i++)
        t_close_pair(pairs[i]);
    pysock_poller_release(p);
}

T_TEST(a_closed_socket_is_told_as_POLLNVAL_until_it_is_unregistered, 30) {
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        pysock_poller *p;
        int fd;
        plain_or_tls_pair(pair, tls);
        fd = pysock_fileno(pair[0]);
        p = t_poller_with(fd, POLLIN);
        T_OK(pysock_close(pair[0]));
        for (int i = 0; i < 3; i++)
            T_EQ(t_poll_one(p, fd, PYSOCK_NO_TIMEOUT), POLLNVAL);
        T_OK(pysock_poller_unregister(p, fd));
        T_EQ(t_poll_one(p, fd, 0), 0);
        pysock_poller_release(p);
        T_OK(pysock_close(pair[1]));
    }
}

/* A new socket often gets the number of the one just closed: registering it starts afresh. */
T_TEST(a_number_that_comes_back_can_be_registered_again, 30) {
    pysock *s;
    pysock *pair[2];
    pysock_poller *p;
    int fd;
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    fd = pysock_fileno(s);
    p = t_poller_with(fd, POLLIN);
    T_OK(pysock_close(s));
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    if (pysock_fileno(pair[0]) != fd && pysock_fileno(pair[1]) != fd) {
        T_EQ(pysock_close(pair[0]) | pysock_close(pair[1]), 0);
        pysock_poller_release(p);
        skip();
    }
    T_OK(pysock_poller_register(p, fd, POLLIN, NULL));
    T_EQ(t_poll_one(p, fd, 0), 0);
    t_say(pysock_fileno(pair[0]) == fd ? pair[1] : pair[0], "x");
    T_EQ(t_poll_one(p, fd, PYSOCK_NO_TIMEOUT), POLLIN);
    T_OK(pysock_poller_unregister(p, fd));
    t_close_pair(pair);
    pysock_poller_release(p);
}

T_TEST(a_poller_stays_until_its_last_reference_is_released, 30) {
    pysock_poller *p = T_OK(pysock_poller_new());
    pysock_pollevent event;
    T_CHECK(pysock_poller_retain(NULL) == NULL);
    T_CHECK(pysock_poller_retain(p) == p);
    pysock_poller_release(p);
    T_EQ(pysock_poller_poll(p, &event, 1, 0), 0);
    pysock_poller_release(p);
}

/* A pipe that has the number of one that was closed without being unregistered. */
T_TEST(a_reused_number_of_a_pipe_is_asked_for_anew, 60) {
    pysock_poller *p = T_OK(pysock_poller_new());
    pysock_pollevent event;
    int old[2], again[2];
    T_EQ(pipe(old), 0);
    T_OK(pysock_poller_register(p, old[0], POLLIN, NULL));
    T_EQ(pysock_poller_poll(p, &event, 1, 0), 0);
    close(old[0]);
    close(old[1]);
    T_EQ(pipe(again), 0);
    T_EQ(again[0], old[0]);
    T_OK(pysock_poller_register(p, again[0], POLLIN, NULL));
    T_EQ(write(again[1], "x", 1), 1);
    T_EQ(pysock_poller_poll(p, &event, 1, 30), 1);
    pysock_poller_release(p);
    close(again[0]);
    close(again[1]);
}

T_TEST(a_poller_may_go_before_its_sockets_and_after, 30) {
    pysock *pair[2];
    pysock_poller *p;
    t_tls_pair(pair, client_ctx, server_ctx);
    p = t_poller_with(pysock_fileno(pair[0]), POLLIN | POLLOUT);
    T_OK(pysock_poller_register(p, pysock_fileno(pair[1]), POLLIN, NULL));
    pysock_poller_release(p);
    t_say(pair[0], "still here");
    t_expect(pair[1], "still here");
    p = t_poller_with(pysock_fileno(pair[0]), POLLIN | POLLOUT);
    t_close_pair(pair);
    pysock_poller_release(p);
}

T_TEST(every_call_on_a_closed_poller_fails, 30) {
    pysock *pair[2];
    pysock_poller *p = T_OK(pysock_poller_new());
    pysock_pollevent event;
    int fds[2];
    t_pair(pair);
    for (int i = 0; i < 2; i++)
        fds[i] = T_OK(pysock_fileno(pair[i]));
    T_OK(pysock_poller_register(p, fds[0], POLLIN, NULL));
    T_OK(pysock_poller_close(p));
    for (int i = 0; i < 2; i++) {
        T_FAILS(pysock_poller_register(p, fds[i], POLLIN, NULL), PYSOCK_OS_ERROR, EBADF);
        T_FAILS(pysock_poller_modify(p, fds[i], POLLIN), PYSOCK_OS_ERROR, EBADF);
        T_FAILS(pysock_poller_unregister(p, fds[i]), PYSOCK_OS_ERROR, EBADF);
    }
    T_FAILS(pysock_poller_poll(p, &event, 1, 0), PYSOCK_OS_ERROR, EBADF);
    pysock_poller_release(p);
    t_close_pair(pair);
}

/* ---- descriptors of every kind ---- */

T_TEST(pipes_tell_hangup_and_error, 30) {
    int fds[2];
    pysock_poller *p;
    T_EQ(pipe(fds), 0);
    p = t_poller_with(fds[0], POLLIN);
    T_EQ(t_poll_one(p, fds[0], 0), 0);
    T_EQ(write(fds[1], "x", 1), 1);
    T_EQ(t_poll_one(p, fds[0], PYSOCK_NO_TIMEOUT), POLLIN);
    close(fds[1]);
    T_CHECK(t_poll_one(p, fds[0], PYSOCK_NO_TIMEOUT) & POLLHUP);
    pysock_poller_release(p);
    close(fds[0]);

    T_EQ(pipe(fds), 0);
    p = t_poller_with(fds[1], 0);
    T_EQ(t_poll_one(p, fds[1], 0), 0);
    close(fds[0]);
    T_CHECK(t_poll_one(p, fds[1], PYSOCK_NO_TIMEOUT) & POLLERR);
    pysock_poller_release(p);
    close(fds[1]);
}

/* epoll refuses these; poll(2) says that they are always ready, and so do we. */
T_TEST(files_are_always_ready, 30) {
    pysock_poller *p;
    int fd;
    fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    T_CHECK(fd >= 0);
    p = t_poller_with(fd, POLLIN);
    T_EQ(t_poll_one(p, fd, PYSOCK_NO_TIMEOUT), POLLIN);
    T_EQ(t_poll_one(p, fd, 0), POLLIN);
    T_OK(pysock_poller_unregister(p, fd));
    T_EQ(t_poll_one(p, fd, 0), 0);
    pysock_poller_release(p);
    close(fd);
}

T_TEST(a_listening_socket_tells_connections, 30) {
    int port, fd;
    pysock *listener, *s;
    pysock_poller *p;
    listener = t_listen(&port);
    p = t_poller_with(pysock_fileno(listener), POLLIN | POLLOUT);
    T_EQ(t_poll_one(p, pysock_fileno(listener), 0), 0);
    fd = t_raw_connect(port);
    T_EQ(t_poll_one(p, pysock_fileno(listener), PYSOCK_NO_TIMEOUT), POLLIN);
    s = T_OK(pysock_accept(listener, NULL));
    T_EQ(t_poll_one(p, pysock_fileno(listener), 0), 0);
    pysock_poller_release(p);
    close(fd);
    T_OK(pysock_close(s));
    T_OK(pysock_close(listener));
}

T_TEST(a_failed_connect_is_an_error_to_a_poller, 30) {
    pysock_poller *p;
    pysock *s;
    short events;
    int deaf, port;
    char byte;
    port = t_deaf_port(&deaf);
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_setblocking(s, 0));
    T_FAILS(pysock_connect(s, "127.0.0.1", port), PYSOCK_OS_ERROR, EINPROGRESS);
    p = t_poller_with(pysock_fileno(s), POLLIN | POLLOUT);
    events = t_poll_one(p, pysock_fileno(s), PYSOCK_NO_TIMEOUT);
    T_CHECK((events & (POLLIN | POLLOUT)) == (POLLIN | POLLOUT));
    T_CHECK(events & (POLLERR | POLLHUP));
    T_FAILS(pysock_recv(s, &byte, 1, 0), PYSOCK_OS_ERROR, ECONNREFUSED);
    pysock_poller_release(p);
    T_OK(pysock_close(s));
    close(deaf);
}

T_TEST(out_of_band_data_is_POLLPRI, 30) {
    int port, fd;
    pysock *listener, *s;
    pysock_poller *p;
    listener = t_listen(&port);
    fd = t_raw_connect(port);
    s = T_OK(pysock_accept(listener, NULL));
    p = t_poller_with(pysock_fileno(s), POLLPRI);
    T_EQ(t_poll_one(p, pysock_fileno(s), 0), 0);
    T_EQ(send(fd, "!", 1, MSG_OOB), 1);
    T_EQ(t_poll_one(p, pysock_fileno(s), PYSOCK_NO_TIMEOUT), POLLPRI);
    pysock_poller_release(p);
    close(fd);
    T_OK(pysock_close(s));
    T_OK(pysock_close(listener));
}

/* ---- TLS ---- */

T_TEST(a_poller_sees_bytes_left_in_the_engine, 30) {
    pysock *pair[2];
    pysock_poller *before, *after;
    char text[1000], buf[1000];
    int fd, in_kernel = -1;
    memset(text, 'e', sizeof text);
    t_tls_pair(pair, client_ctx, server_ctx);
    fd = pysock_fileno(pair[1]);
    before = t_poller_with(fd, POLLIN);
    T_OK(pysock_sendall(pair[0], text, sizeof text, 0));
    T_EQ(t_poll_one(before, fd, PYSOCK_NO_TIMEOUT), POLLIN);
    T_EQ(pysock_recv(pair[1], buf, 10, 0), 10);
    T_EQ(ioctl(fd, FIONREAD, &in_kernel), 0);
    T_EQ(in_kernel, 0);
    T_EQ(t_poll_one(before, fd, 0), POLLIN);
    T_EQ(t_poll_one(before, fd, PYSOCK_NO_TIMEOUT), POLLIN);
    T_STEP("a registration made while the bytes wait");
    after = t_poller_with(fd, POLLIN);
    T_EQ(t_poll_one(after, fd, PYSOCK_NO_TIMEOUT), POLLIN);
    T_STEP("modified to and fro");
    T_OK(pysock_poller_modify(before, fd, 0));
    T_EQ(t_poll_one(before, fd, 0), 0);
    T_OK(pysock_poller_modify(before, fd, POLLIN));
    T_EQ(t_poll_one(before, fd, PYSOCK_NO_TIMEOUT), POLLIN);
    T_EQ(pysock_recv(pair[1], buf, sizeof buf, 0), 990);
    T_EQ(t_poll_one(before, fd, 0), 0);
    T_EQ(t_poll_one(after, fd, 0), 0);
    T_STEP("and the next record");
    t_say(pair[0], "more");
    T_EQ(t_poll_one(before, fd, PYSOCK_NO_TIMEOUT), POLLIN);
    T_EQ(t_poll_one(after, fd, PYSOCK_NO_TIMEOUT), POLLIN);
    pysock_poller_release(before);
    pysock_poller_release(after);
    t_close_pair(pair);
}

T_TEST(a_poller_does_not_say_readable_for_half_a_record, 60) {
    static const size_t cuts[] = {1, 4, 5, 6, 20};
    unsigned char record[T_RECORD];
    pysock *pair[2];
    pysock_poller *p;
    t_proxy proxy;
    int fd;
    t_tls_pair_by_proxy(pair, &proxy, client_ctx, server_ctx);
    fd = pysock_fileno(pair[0]);
    p = t_poller_with(fd, POLLIN);
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        double cpu;
        size_t size;
        T_STEP("%zu bytes of the record", cuts[i]);
        t_say(pair[1], "hello");
        size = t_raw_record(proxy.to_server, record);
        t_raw_write(proxy.to_client, record, cuts[i]);
        T_EQ(t_poll_one(p, fd, 0), 0);
        cpu = t_process_cpu();
        T_EQ(t_poll_one(p, fd, 0.5), 0);
        T_CHECK(t_process_cpu() - cpu < 0.25);
        t_raw_write(proxy.to_client, record + cuts[i], size - cuts[i]);
        T_EQ(t_poll_one(p, fd, PYSOCK_NO_TIMEOUT), POLLIN);
        t_expect(pair[0], "hello");
        T_EQ(t_poll_one(p, fd, 0), 0);
    }
    pysock_poller_release(p);
    t_close_pair(pair);
    t_proxy_close(&proxy);
}

T_TEST(a_poller_follows_a_handshake_to_its_end, 60) {
    pysock *pair[2];
    pysock_poller *p;
    int done = 0;
    t_pair(pair);
    p = T_OK(pysock_poller_new());
    for (int i = 0; i < 2; i++) {
        T_OK(pysock_setblocking(pair[i], 0));
        T_OK(pysock_poller_register(p, pysock_fileno(pair[i]), POLLIN | POLLOUT, NULL));
    }
    T_STEP("plain and writable; wrapped while registered");
    for (int i = 0; i < 2; i++)
        T_OK(pysock_ssl_wrap_socket(pair[i], i ? server_ctx : client_ctx, i ? NULL : "localhost"));
    while (done < 2) {
        pysock_pollevent events[2];
        ptrdiff_t n = T_OK(pysock_poller_poll(p, events, 2, PYSOCK_NO_TIMEOUT));
        T_CHECK(n > 0);
        for (int e = 0; e < n; e++) {
            pysock *s = T_OK(pysock_from_fileno(events[e].fd));
            T_EQ(events[e].events, POLLOUT);
            T_EQ(pysock_ssl_do_handshake(s), 0);
            T_OK(pysock_poller_modify(p, events[e].fd, POLLIN));
            done++;
        }
    }
    t_say(pair[0], "x");
    T_EQ(t_poll_one(p, pysock_fileno(pair[1]), PYSOCK_NO_TIMEOUT), POLLIN);
    pysock_poller_release(p);
    t_close_pair(pair);
}

T_TEST(a_full_tls_socket_is_not_POLLOUT_until_its_peer_reads, 60) {
    static char chunk[65536];
    pysock *pair[2];
    pysock_poller *p;
    size_t total = 0, got = 0;
    int fd;
    t_tls_pair(pair, client_ctx, server_ctx);
    T_OK(pysock_setblocking(pair[0], 0));
    fd = pysock_fileno(pair[0]);
    p = t_poller_with(fd, POLLOUT);
    while (t_poll_one(p, fd, 0.05) == POLLOUT) { /* the kernel moves bytes to the peer by itself */
        ptrdiff_t n = T_OK(pysock_send(pair[0], chunk, sizeof chunk, 0));
        T_CHECK(n > 0);
        total += (size_t)n;
    }
    T_EQ(t_poll_one(p, fd, 0), 0);
    while (got < total) {
        ptrdiff_t n = T_OK(pysock_recv(pair[1], chunk, sizeof chunk, 0));
        T_CHECK(n > 0);
        got += (size_t)n;
    }
    T_EQ(got, total);
    T_EQ(t_poll_one(p, fd, PYSOCK_NO_TIMEOUT), POLLOUT);
    pysock_poller_release(p);
    t_close_pair(pair);
}

T_TEST(the_end_of_a_tls_stream_is_told_for_good, 60) {
    pysock *pair[2];
    pysock_poller *p;
    int fd;
    char byte;
    t_tls_pair(pair, client_ctx, server_ctx);
    fd = pysock_fileno(pair[1]);
    p = t_poller_with(fd, POLLIN);
    t_say(pair[0], "z");
    T_OK(pysock_close(pair[0]));
    T_CHECK(t_poll_one(p, fd, PYSOCK_NO_TIMEOUT) & POLLIN);
    T_EQ(pysock_recv(pair[1], &byte, 1, 0), 1);
    for (int i = 0; i < 3; i++) {
        T_CHECK(t_poll_one(p, fd, PYSOCK_NO_TIMEOUT) & POLLIN);
        T_EQ(pysock_recv(pair[1], &byte, 1, 0), 0);
    }
    pysock_poller_release(p);
    T_OK(pysock_close(pair[1]));
}

/* ---- from another thread, while someone polls ---- */

typedef struct poll_job {
    pysock_poller *p;
    pysock_pollevent event;
} poll_job;

static void *poll_for_ever(void *arg) {
    poll_job *job = arg;
    T_EQ(T_OK(pysock_poller_poll(job->p, &job->event, 1, PYSOCK_NO_TIMEOUT)), 1);
    return NULL;
}

T_TEST(modify_and_register_wake_who_polls, 60) {
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        poll_job job;
        t_thread t;
        int fd;
        plain_or_tls_pair(pair, tls);
        fd = pysock_fileno(pair[0]);

        T_STEP("modify");
        job.p = t_poller_with(fd, POLLIN);
        t_spawn(&t, poll_for_ever, &job);
        t_wait_asleep(&t);
        T_OK(pysock_poller_modify(job.p, fd, POLLIN | POLLOUT));
        t_join(&t);
        T_EQ(job.event.fd, fd);
        T_EQ(job.event.events, POLLOUT);

        T_STEP("register");
        T_OK(pysock_poller_unregister(job.p, fd));
        t_spawn(&t, poll_for_ever, &job);
        t_wait_asleep(&t);
        T_OK(pysock_poller_register(job.p, fd, POLLOUT, NULL));
        t_join(&t);
        T_EQ(job.event.events, POLLOUT);

        T_STEP("unregistering what was waited for, then something happens elsewhere");
        T_OK(pysock_poller_register(job.p, fd, POLLIN, NULL));
        T_OK(pysock_poller_register(job.p, pysock_fileno(pair[1]), POLLIN, NULL));
        t_spawn(&t, poll_for_ever, &job);
        t_wait_asleep(&t);
        T_OK(pysock_poller_unregister(job.p, fd));
        t_say(pair[1], "nobody hears this");
        t_say(pair[0], "but this");
        t_join(&t);
        T_EQ(job.event.fd, pysock_fileno(pair[1]));
        pysock_poller_release(job.p);
        t_close_pair(pair);
    }
}
/* What is registered may be ready without any word of the kernel's, who has given all out. */
T_TEST(registering_what_waits_in_the_engine_wakes_who_polls, 60) {
    pysock *pair[2];
    poll_job job;
    t_thread t;
    char byte;
    t_tls_pair(pair, client_ctx, server_ctx);
    t_say(pair[1], "two bytes");
    T_EQ(pysock_recv(pair[0], &byte, 1, 0), 1);
    job.p = T_OK(pysock_poller_new());
    t_spawn(&t, poll_for_ever, &job);
    t_wait_asleep(&t);
    T_OK(pysock_poller_register(job.p, pysock_fileno(pair[0]), POLLIN, NULL));
    t_join(&t);
    T_EQ(job.event.fd, pysock_fileno(pair[0]));
    T_EQ(job.event.events, POLLIN);
    pysock_poller_release(job.p);
    t_close_pair(pair);
}

T_TEST(one_event_reaches_every_poller, 60) {
    enum { N = 4 };
    pysock *pair[2];
    poll_job jobs[N];
    t_thread threads[N];
    t_tls_pair(pair, client_ctx, server_ctx);
    for (int i = 0; i < N; i++) {
        jobs[i].p = t_poller_with(pysock_fileno(pair[1]), POLLIN);
        t_spawn(&threads[i], poll_for_ever, &jobs[i]);
    }
    for (int i = 0; i < N; i++)
        t_wait_asleep(&threads[i]);
    t_say(pair[0], "to all of you");
    for (int i = 0; i < N; i++) {
        t_join(&threads[i]);
        T_EQ(jobs[i].event.events, POLLIN);
        pysock_poller_release(jobs[i].p);
    }
    t_close_pair(pair);
}

/* Registering and unregistering while another thread polls and serves: nothing is lost. */
typedef struct churn {
    pysock_poller *p;
    int fd;
    int stop; /* atomic */
} churn;

static void *churn_thread(void *arg) {
    churn *c = arg;
    while (!__atomic_load_n(&c->stop, __ATOMIC_ACQUIRE)) {
        T_OK(pysock_poller_register(c->p, c->fd, POLLIN, NULL));
        T_OK(pysock_poller_modify(c->p, c->fd, 0));
        T_OK(pysock_poller_unregister(c->p, c->fd));
    }
    return NULL;
}

T_TEST(registrations_may_change_while_someone_polls, 120) {
    pysock *steady[2], *other[2];
    pysock_poller *p;
    t_thread t;
    churn c;
    t_tls_pair(steady, client_ctx, server_ctx);
    t_tls_pair(other, client_ctx, server_ctx);
    p = t_poller_with(pysock_fileno(steady[1]), POLLIN);
    c.p = p;
    c.fd = pysock_fileno(other[1]);
    c.stop = 0;
    t_spawn(&t, churn_thread, &c);
    for (int i = 0; i < T_SCALE(5000, 500); i++) {
        t_say(steady[0], "tick");
        T_EQ(t_poll_one(p, pysock_fileno(steady[1]), PYSOCK_NO_TIMEOUT), POLLIN);
        t_expect(steady[1], "tick");
    }
    __atomic_store_n(&c.stop, 1, __ATOMIC_RELEASE);
    t_join(&t);
    pysock_poller_release(p);
    t_close_pair(steady);
    t_close_pair(other);
}

/* An idle poll must sleep, whatever is registered. */
T_TEST(idle_registrations_cost_no_cpu, 120) {
    enum { N = 40 };
    pysock *pairs[N][2];
    pysock_poller *p;
    pysock_pollevent events[4];
    double cpu;
    p = T_OK(pysock_poller_new());
    for (int i = 0; i < N; i++) {
        t_tls_pair(pairs[i], client_ctx, server_ctx);
        T_OK(pysock_poller_register(p, pysock_fileno(pairs[i][1]), POLLIN, NULL));
    }
    cpu = t_process_cpu();
    T_EQ(pysock_poller_poll(p, events, 4, 0.5), 0);
    T_CHECK(t_process_cpu() - cpu < 0.25);
    pysock_poller_release(p);
    for (int i = 0; i < N; i++)
        t_close_pair(pairs[i]);
}

/* ---- pysock_poll and pysock_wait: once, without a poller ---- */

T_TEST(wait_answers_for_one_socket, 60) {
    pysock *pair[2];
    char byte;
    for (int tls = 0; tls < 2; tls++) {
        T_STEP("%s", tls ? "TLS" : "plain");
        plain_or_tls_pair(pair, tls);
        T_EQ(pysock_wait(pair[0], POLLOUT, PYSOCK_NO_TIMEOUT), POLLOUT);
        T_EQ(pysock_wait(pair[0], POLLIN, 0), 0);
        T_EQ(pysock_wait(pair[0], POLLIN, 0.01), 0);
        T_EQ(pysock_wait(pair[0], 0, 0), 0);
        t_say(pair[1], "ab");
        T_EQ(pysock_wait(pair[0], POLLIN, PYSOCK_NO_TIMEOUT), POLLIN);
        T_EQ(pysock_recv(pair[0], &byte, 1, 0), 1);
        T_STEP("the second byte may be in the engine");
        T_EQ(pysock_wait(pair[0], POLLIN | POLLOUT, PYSOCK_NO_TIMEOUT), POLLIN | POLLOUT);
        T_OK(pysock_close(pair[1]));
        T_EQ(pysock_recv(pair[0], &byte, 1, 0), 1);
        T_CHECK(pysock_wait(pair[0], POLLIN, PYSOCK_NO_TIMEOUT) & POLLIN);
        T_FAILS(pysock_wait(pair[1], POLLIN, 0), PYSOCK_OS_ERROR, EBADF);
        T_FAILS(pysock_wait(pair[0], -1, 0), PYSOCK_VALUE_ERROR, EINVAL);
        T_FAILS(pysock_wait(pair[0], POLLIN, -3), PYSOCK_VALUE_ERROR, EINVAL);
        T_FAILS(pysock_wait(NULL, POLLIN, 0), PYSOCK_VALUE_ERROR, EINVAL);
        T_OK(pysock_close(pair[0]));
    }
}

static void *wait_until_it_is_closed(void *arg) {
    T_FAILS(pysock_wait(arg, POLLIN, PYSOCK_NO_TIMEOUT), PYSOCK_OS_ERROR, EBADF);
    return NULL;
}

T_TEST(wait_ends_with_its_socket, 60) {
    pysock *pair[2];
    t_thread thread;
    for (int tls = 0; tls < 2; tls++) {
        T_STEP("%s", tls ? "TLS" : "plain");
        plain_or_tls_pair(pair, tls);
        t_spawn(&thread, wait_until_it_is_closed, pair[0]);
        t_wait_asleep(&thread);
        T_OK(pysock_close(pair[0]));
        t_join(&thread);
        T_OK(pysock_close(pair[1]));
    }
}

T_TEST(poll_answers_for_each_descriptor, 30) {
    struct pollfd fds[5];
    pysock *pair[2];
    int ends[2];
    t_pair(pair);
    T_OK(pipe(ends));
    memset(fds, 0, sizeof fds);
    fds[0].fd = pysock_fileno(pair[0]);
    fds[0].events = POLLIN | POLLOUT;
    fds[1].fd = ends[0];
    fds[1].events = POLLIN;
    fds[2].fd = -7; /* skipped */
    fds[3].fd = dup(ends[0]);
    fds[3].events = POLLIN;
    close(fds[3].fd);
    fds[4].fd = ends[1];
    T_EQ(pysock_poll(fds, 5, PYSOCK_NO_TIMEOUT), 2);
    T_EQ(fds[0].revents, POLLOUT);
    T_EQ(fds[1].revents, 0);
    T_EQ(fds[2].revents, 0);
    T_EQ(fds[3].revents, POLLNVAL);
    T_STEP("errors are told unasked");
    fds[3].fd = -1;
    fds[0].events = 0;
    close(ends[0]);
    fds[1].fd = -1;
    T_EQ(pysock_poll(fds, 5, PYSOCK_NO_TIMEOUT), 1);
    T_EQ(fds[4].revents, POLLERR);
    close(ends[1]);
    t_close_pair(pair);
}

T_TEST(poll_waits_no_longer_than_it_may, 30) {
    struct pollfd one;
    pysock *pair[2];
    double start;
    t_pair(pair);
    one.fd = pysock_fileno(pair[0]);
    one.events = POLLIN;
    T_EQ(pysock_poll(&one, 1, 0), 0);
    start = t_now();
    T_EQ(pysock_poll(&one, 1, 0.05), 0);
    T_EQ(pysock_poll(NULL, 0, 0.05), 0);
    T_CHECK(t_now() - start >= 0.09);
    T_FAILS(pysock_poll(&one, 1, -3), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_poll(NULL, 1, 0), PYSOCK_VALUE_ERROR, EINVAL);
    t_close_pair(pair);
}

T_TEST(poll_sees_bytes_left_in_the_engine, 30) {
    struct pollfd fds[2];
    pysock *pair[2];
    char buf[5];
    t_tls_pair(pair, client_ctx, server_ctx);
    fds[0].fd = fds[1].fd = pysock_fileno(pair[1]); /* the same one twice is fine */
    fds[0].events = POLLIN;
    fds[1].events = POLLRDNORM | POLLWRNORM;
    T_EQ(pysock_poll(fds, 1, 0), 0);
    t_say(pair[0], "0123456789");
    T_EQ(pysock_poll(fds, 1, PYSOCK_NO_TIMEOUT), 1);
    T_EQ(pysock_recv(pair[1], buf, 5, 0), 5);
    T_EQ(pysock_poll(fds, 2, PYSOCK_NO_TIMEOUT), 2);
    T_EQ(fds[0].revents, POLLIN);
    T_CHECK(fds[1].revents & POLLRDNORM);
    T_EQ(pysock_recv(pair[1], buf, 5, 0), 5);
    T_EQ(pysock_poll(fds, 1, 0), 0);
    T_EQ(pysock_poll(fds + 1, 1, PYSOCK_NO_TIMEOUT), 1);
    T_EQ(fds[1].revents, POLLWRNORM);
    t_close_pair(pair);
}

static void *poll_until_it_is_closed(void *arg) {
    struct pollfd one;
    one.fd = *(int *)arg;
    one.events = POLLIN;
    T_EQ(pysock_poll(&one, 1, PYSOCK_NO_TIMEOUT), 1);
    T_EQ(one.revents, POLLNVAL);
    return NULL;
}

T_TEST(poll_is_told_of_a_close, 30) {
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        t_thread thread;
        int fd;
        plain_or_tls_pair(pair, tls);
        fd = pysock_fileno(pair[0]);
        t_spawn(&thread, poll_until_it_is_closed, &fd);
        t_wait_asleep(&thread);
        pysock_close(pair[0]);
        t_join(&thread);
        pysock_close(pair[1]);
    }
}

typedef struct stale_job {
    int fd, select_fails;
} stale_job;

static void *ask_about_a_stale_number(void *arg) {
    stale_job *job = arg;
    struct pollfd one;
    size_t count = 1;
    int fd = job->fd;
    one.fd = fd;
    one.events = POLLIN;
    if (job->select_fails) {
        T_FAILS(pysock_select(&fd, &count, NULL, NULL, NULL, NULL, 0), PYSOCK_OS_ERROR, EBADF);
    } else {
        T_EQ(pysock_poll(&one, 1, 0), 1);
        T_EQ(one.revents, POLLNVAL);
    }
    return NULL;
}

/* A thread's first select opens a descriptor of the library's: it may get the very number. */
T_TEST(a_closed_descriptor_is_not_taken_for_one_of_the_librarys, 30) {
    for (int i = 0; i < 2; i++) {
        stale_job job = {0, i};
        t_thread thread;
        job.fd = T_OK(dup(0));
        close(job.fd);
        t_spawn(&thread, ask_about_a_stale_number, &job);
        t_join(&thread);
    }
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts)
