/* Pollers with epoll's manners: what Python's select.epoll, and programs written for epoll, expect;
   over plain sockets, TLS sockets and other descriptors. Linux only. */
#include "support/contexts.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#if defined(__linux__) && !T_MACOS_LIKE
#include <sys/epoll.h>

#define ET ((int)EPOLLET)
#define ONESHOT ((int)EPOLLONESHOT)
#define EXCLUSIVE ((int)EPOLLEXCLUSIVE)

static pysock_poller *epoll_with(int fd, int events) {
    pysock_poller *p = T_OK(pysock_poller_new_epoll());
    T_OK(pysock_poller_register(p, fd, events, NULL));
    return p;
}

/* ---- registrations ---- */

T_TEST(registering_twice_and_what_is_unknown_are_errors, 30) {
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        pysock_poller *p;
        int fd;
        plain_or_tls_pair(pair, tls);
        fd = pysock_fileno(pair[0]);
        p = epoll_with(fd, POLLIN);
        T_FAILS(pysock_poller_register(p, fd, POLLIN, NULL), PYSOCK_OS_ERROR, EEXIST);
        T_OK(pysock_poller_modify(p, fd, POLLOUT));
        T_EQ(t_poll_one(p, fd, PYSOCK_NO_TIMEOUT), POLLOUT);
        T_OK(pysock_poller_unregister(p, fd));
        T_FAILS(pysock_poller_unregister(p, fd), PYSOCK_OS_ERROR, ENOENT);
        T_FAILS(pysock_poller_modify(p, fd, POLLIN), PYSOCK_OS_ERROR, ENOENT);
        T_EQ(t_poll_one(p, fd, 0), 0);
        pysock_poller_release(p);
        t_close_pair(pair);
    }
}

T_TEST(files_and_numbers_that_are_not_open_are_refused, 30) {
    pysock_poller *p;
    int file, gone;
    p = T_OK(pysock_poller_new_epoll());
    file = T_OK(open(T_CERTS "ca.pem", O_RDONLY));
    gone = T_OK(dup(file));
    close(gone);
    T_FAILS(pysock_poller_register(p, file, POLLIN, NULL), PYSOCK_OS_ERROR, EPERM);
    T_FAILS(pysock_poller_register(p, gone, POLLIN, NULL), PYSOCK_OS_ERROR, EBADF);
    T_FAILS(pysock_poller_modify(p, gone, POLLIN), PYSOCK_OS_ERROR, EBADF);
    T_FAILS(pysock_poller_unregister(p, gone), PYSOCK_OS_ERROR, EBADF);
    T_FAILS(pysock_poller_register(p, -1, POLLIN, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    close(file);
    pysock_poller_release(p);
}

T_TEST(what_is_closed_is_forgotten, 30) {
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2], *next[2];
        pysock_poller *p;
        int fd;
        plain_or_tls_pair(pair, tls);
        fd = pysock_fileno(pair[0]);
        p = epoll_with(fd, POLLIN | POLLOUT);
        T_EQ(t_poll_one(p, fd, PYSOCK_NO_TIMEOUT), POLLOUT);
        pysock_close(pair[0]);
        T_EQ(t_poll_one(p, fd, 0), 0);
        T_FAILS(pysock_poller_unregister(p, fd), PYSOCK_OS_ERROR, EBADF);
        T_STEP("the number comes back");
        t_pair(next);
        T_OK(pysock_poller_register(p, pysock_fileno(next[0]), POLLOUT, NULL));
        T_EQ(t_poll_one(p, pysock_fileno(next[0]), PYSOCK_NO_TIMEOUT), POLLOUT);
        pysock_poller_release(p);
        pysock_close(pair[1]);
        t_close_pair(next);
    }
}

T_TEST(a_pipe_that_is_closed_is_forgotten_and_its_number_free, 30) {
    pysock_poller *p;
    int ends[2], again[2];
    T_OK(pipe(ends));
    p = epoll_with(ends[0], POLLIN);
    T_FAILS(pysock_poller_register(p, ends[0], POLLIN, NULL), PYSOCK_OS_ERROR, EEXIST);
    T_EQ(write(ends[1], "x", 1), 1);
    T_EQ(t_poll_one(p, ends[0], PYSOCK_NO_TIMEOUT), POLLIN);
    close(ends[0]);
    T_EQ(t_poll_one(p, ends[0], 0), 0);
    T_OK(pipe(again));
    T_EQ(again[0], ends[0]);
    T_FAILS(pysock_poller_modify(p, again[0], POLLIN), PYSOCK_OS_ERROR, ENOENT);
    T_OK(pysock_poller_register(p, again[0], POLLIN, NULL));
    T_EQ(t_poll_one(p, again[0], 0), 0);
    T_EQ(write(again[1], "x", 1), 1);
    T_EQ(t_poll_one(p, again[0], PYSOCK_NO_TIMEOUT), POLLIN);
    T_OK(pysock_poller_unregister(p, again[0]));
    pysock_poller_release(p);
    close(ends[1]);
    close(again[0]);
    close(again[1]);
}

/* Python's ssl wraps a socket by making another one of its descriptor. */
T_TEST(a_detached_descriptor_stays_registered_for_whoever_takes_it, 30) {
    pysock *pair[2], *taken;
    pysock_poller *p;
    int fd;
    t_pair(pair);
    fd = pysock_fileno(pair[0]);
    p = epoll_with(fd, POLLIN);
    T_EQ(t_poll_one(p, fd, 0), 0);
    taken = T_OK(pysock_adopt(fd, AF_INET, SOCK_STREAM, 0));
    T_EQ(pysock_detach(pair[0]), fd);
    t_say(pair[1], "x");
    T_EQ(t_poll_one(p, fd, PYSOCK_NO_TIMEOUT), POLLIN);
    T_FAILS(pysock_poller_register(p, fd, POLLIN, NULL), PYSOCK_OS_ERROR, EEXIST);
    t_expect(taken, "x");
    T_EQ(t_poll_one(p, fd, 0), 0);
    T_OK(pysock_poller_unregister(p, fd));
    pysock_poller_release(p);
    pysock_close(taken);
    pysock_close(pair[1]);
}

T_TEST(many_that_are_ready_are_told_at_once, 60) {
    enum { N = 300 };
    static pysock *pairs[N][2];
    static pysock_pollevent events[2 * N];
    static int seen[4096];
    pysock_poller *p;
    p = T_OK(pysock_poller_new_epoll());
    for (int i = 0; i < N; i++) {
        T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pairs[i]));
        T_OK(pysock_poller_register(p, pysock_fileno(pairs[i][0]), POLLOUT, NULL));
        t_say(pairs[i][0], "x");
    }
    T_EQ(pysock_poller_poll(p, events, 2 * N, PYSOCK_NO_TIMEOUT), N);
    for (int i = 0; i < N; i++) {
        T_EQ(events[i].events, POLLOUT);
        T_CHECK(!seen[events[i].fd]++);
    }
    pysock_poller_release(p);
    for (int i = 0; i < N; i++)
        t_close_pair(pairs[i]);
}

/* ---- edges ---- */

T_TEST(an_edge_is_told_once, 30) {
    char buf[100];
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        pysock_poller *p;
        int fd;
        plain_or_tls_pair(pair, tls);
        fd = pysock_fileno(pair[1]);
        p = epoll_with(fd, POLLIN | ET);
        T_EQ(t_poll_one(p, fd, 0), 0);
        for (int i = 0; i < 3; i++) {
            t_say(pair[0], "some bytes");
            T_EQ(t_poll_one(p, fd, PYSOCK_NO_TIMEOUT), POLLIN);
            T_EQ(t_poll_one(p, fd, 0), 0);
            T_EQ(t_poll_one(p, fd, 0.02), 0);
        }
        T_STEP("a part is read: no edge");
        T_EQ(pysock_recv(pair[1], buf, 3, 0), 3);
        T_EQ(t_poll_one(p, fd, 0.02), 0);
        T_STEP("asked anew");
        T_OK(pysock_poller_modify(p, fd, POLLIN | ET));
        T_EQ(t_poll_one(p, fd, PYSOCK_NO_TIMEOUT), POLLIN);
        if (tls) /* the engine's bytes, and perhaps the records in the kernel once more */
            t_poll_one(p, fd, 0);
        T_EQ(t_poll_one(p, fd, 0), 0);
        pysock_poller_release(p);
        t_close_pair(pair);
    }
}

T_TEST(an_edge_for_writing_comes_when_there_is_room_again, 60) {
    static char bulk[65536];
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        pysock_poller *p;
        int64_t sent = 0, got = 0;
        int fd;
        plain_or_tls_pair(pair, tls);
        fd = pysock_fileno(pair[0]);
        T_OK(pysock_setblocking(pair[0], 0));
        p = epoll_with(fd, POLLOUT | ET);
        T_EQ(t_poll_one(p, fd, PYSOCK_NO_TIMEOUT), POLLOUT);
        for (int round = 0; round < 3; round++) {
            ptrdiff_t n;
            while ((n = pysock_send(pair[0], bulk, sizeof bulk, 0)) > 0)
                sent += n;
            T_EQ(errno, EAGAIN);
            T_STEP("round %d: %lld bytes are out", round, (long long)sent);
            while (t_poll_one(p, fd, 0))
                ; /* what was still true before it was full */
            while (got < sent)
                got += T_OK(pysock_recv(pair[1], bulk, sizeof bulk, 0));
            T_EQ(t_poll_one(p, fd, PYSOCK_NO_TIMEOUT), POLLOUT);
        }
        pysock_poller_release(p);
        t_close_pair(pair);
    }
}

typedef struct edge_job {
    pysock *s;
    int count;
} edge_job;

static void *say_in_pieces(void *arg) {
    edge_job *job = arg;
    char piece[300];
    memset(piece, 'p', sizeof piece);
    for (int i = 0; i < job->count; i++)
        T_OK(pysock_sendall(job->s, piece, 1 + (size_t)(i * 37) % sizeof piece, 0));
    T_OK(pysock_shutdown(job->s, SHUT_WR));
    return NULL;
}

/* Whoever reads until EAGAIN after each edge misses nothing. */
T_TEST(no_edge_is_lost, 120) {
    for (int tls = 0; tls < 2; tls++) {
        edge_job job = {NULL, T_SCALE(20000, 3000)};
        int64_t want = 0, got = 0;
        pysock *pair[2];
        pysock_poller *p;
        t_thread thread;
        ptrdiff_t n;
        char buf[100];
        int fd, ended = 0;
        for (int i = 0; i < job.count; i++)
            want += 1 + i * 37 % 300;
        plain_or_tls_pair(pair, tls);
        fd = pysock_fileno(pair[1]);
        T_OK(pysock_setblocking(pair[1], 0));
        p = epoll_with(fd, POLLIN | ET);
        job.s = pair[0];
        t_spawn(&thread, say_in_pieces, &job);
        while (!ended) {
            T_CHECK(t_poll_one(p, fd, PYSOCK_NO_TIMEOUT) & POLLIN);
            while ((n = pysock_recv(pair[1], buf, sizeof buf, 0)) > 0)
                got += n;
            ended = n == 0;
            T_CHECK(ended || errno == EAGAIN);
        }
        T_EQ(got, want);
        t_join(&thread);
        pysock_poller_release(p);
        t_close_pair(pair);
    }
}

T_TEST(an_edge_tells_the_end_of_a_handshake, 30) {
    pysock *pair[2];
    pysock_poller *p;
    t_thread thread;
    int fd;
    t_pair(pair);
    fd = pysock_fileno(pair[0]);
    T_OK(pysock_setblocking(pair[0], 0));
    t_wrap_later(pair[1], server_ctx, NULL);
    T_OK(pysock_ssl_wrap_socket(pair[0], client_ctx, "localhost"));
    p = epoll_with(fd, POLLIN | POLLOUT | ET);
    T_EQ(t_poll_one(p, fd, 0), 0);
    t_spawn(&thread, t_handshake_thread, pair[1]);
    T_EQ(t_poll_one(p, fd, PYSOCK_NO_TIMEOUT), POLLOUT);
    T_EQ(pysock_ssl_do_handshake(pair[0]), 0);
    t_join(&thread);
    t_say(pair[1], "x");
    T_CHECK(t_poll_one(p, fd, PYSOCK_NO_TIMEOUT) & POLLIN);
    pysock_poller_release(p);
    t_close_pair(pair);
}

T_TEST(oneshot_is_told_once_until_it_is_modified, 30) {
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        pysock_poller *p;
        int fd;
        plain_or_tls_pair(pair, tls);
        fd = pysock_fileno(pair[1]);
        p = epoll_with(fd, POLLIN | ONESHOT);
        T_EQ(t_poll_one(p, fd, 0), 0);
        t_say(pair[0], "one");
        T_EQ(t_poll_one(p, fd, PYSOCK_NO_TIMEOUT), POLLIN);
        t_say(pair[0], "two");
        T_EQ(t_poll_one(p, fd, 0.02), 0);
        pysock_close(pair[0]);
        T_EQ(t_poll_one(p, fd, 0.02), 0); /* not even errors */
        T_OK(pysock_poller_modify(p, fd, POLLIN | ONESHOT));
        T_CHECK(t_poll_one(p, fd, PYSOCK_NO_TIMEOUT) & POLLIN);
        T_EQ(t_poll_one(p, fd, 0), 0);
        pysock_poller_release(p);
        pysock_close(pair[1]);
    }
}

/* Half a record wakes the kernel's set, but is nothing to tell: it must be asked again. */
T_TEST(oneshot_is_not_spent_by_half_a_record, 30) {
    unsigned char record[T_RECORD];
    pysock *pair[2];
    pysock_poller *p;
    t_proxy proxy;
    size_t size;
    int fd;
    t_tls_pair_by_proxy(pair, &proxy, client_ctx, server_ctx);
    fd = pysock_fileno(pair[0]);
    p = epoll_with(fd, POLLIN | ONESHOT);
    t_say(pair[1], "hello");
    size = t_raw_record(proxy.to_server, record);
    t_raw_write(proxy.to_client, record, 6);
    T_EQ(t_poll_one(p, fd, 0.05), 0);
    t_raw_write(proxy.to_client, record + 6, size - 6);
    T_EQ(t_poll_one(p, fd, PYSOCK_NO_TIMEOUT), POLLIN);
    t_expect(pair[0], "hello");
    pysock_poller_release(p);
    t_close_pair(pair);
    t_proxy_close(&proxy);
}

T_TEST(exclusive_is_taken_and_cannot_be_modified, 30) {
    pysock *pair[2];
    pysock_poller *p;
    int fd;
    t_pair(pair);
    fd = pysock_fileno(pair[1]);
    p = epoll_with(fd, POLLIN | EXCLUSIVE);
    T_FAILS(pysock_poller_modify(p, fd, POLLIN), PYSOCK_OS_ERROR, EINVAL);
    t_say(pair[0], "x");
    T_EQ(t_poll_one(p, fd, PYSOCK_NO_TIMEOUT), POLLIN);
    T_OK(pysock_poller_unregister(p, fd));
    T_OK(pysock_poller_register(p, fd, POLLIN, NULL));
    T_FAILS(pysock_poller_modify(p, fd, POLLIN | EXCLUSIVE), PYSOCK_OS_ERROR, EINVAL);
    pysock_poller_release(p);
    t_close_pair(pair);
}

T_TEST(the_peers_end_is_RDHUP, 30) {
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        pysock_poller *p;
        int fd;
        plain_or_tls_pair(pair, tls);
        fd = pysock_fileno(pair[1]);
        p = epoll_with(fd, (int)EPOLLRDHUP);
        T_EQ(t_poll_one(p, fd, 0), 0);
        t_say(pair[0], "not the end");
        T_EQ(t_poll_one(p, fd, 0.02), 0);
        T_OK(pysock_shutdown(pair[0], SHUT_WR));
        T_EQ(t_poll_one(p, fd, PYSOCK_NO_TIMEOUT), (int)EPOLLRDHUP);
        T_EQ(t_poll_one(p, fd, PYSOCK_NO_TIMEOUT), (int)EPOLLRDHUP);
        pysock_poller_release(p);
        t_close_pair(pair);
    }
}

/* ---- its descriptor ---- */

static int fd_readable(int fd, double timeout) {
    size_t count = 1;
    return (int)T_OK(pysock_select(&fd, &count, NULL, NULL, NULL, NULL, timeout));
}

T_TEST(its_descriptor_is_readable_when_there_is_something_to_tell, 30) {
    char buf[4];
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        pysock_poller *p;
        int fd, epfd;
        plain_or_tls_pair(pair, tls);
        fd = pysock_fileno(pair[1]);
        p = epoll_with(fd, POLLIN);
        epfd = T_OK(pysock_poller_fileno(p));
        T_EQ(fcntl(epfd, F_GETFD), FD_CLOEXEC);
        while (fd_readable(epfd, 0)) /* it is new, and may say so */
            T_EQ(t_poll_one(p, fd, 0), 0);
        t_say(pair[0], "abcdefgh");
        T_EQ(fd_readable(epfd, PYSOCK_NO_TIMEOUT), 1);
        T_EQ(t_poll_one(p, fd, 0), POLLIN);
        T_STEP("the rest waits in the engine, and the kernel knows nothing of it");
        T_EQ(pysock_recv(pair[1], buf, 4, 0), 4);
        T_EQ(fd_readable(epfd, PYSOCK_NO_TIMEOUT), 1);
        T_EQ(t_poll_one(p, fd, 0), POLLIN);
        T_EQ(pysock_recv(pair[1], buf, 4, 0), 4);
        while (fd_readable(epfd, 0))
            T_EQ(t_poll_one(p, fd, 0), 0);
        pysock_poller_release(p);
        t_close_pair(pair);
    }
}

T_TEST(two_share_one_and_close_ends_both, 30) {
    pysock *pair[2];
    pysock_poller *p, *q;
    pysock_pollevent event;
    int fd, epfd;
    t_pair(pair);
    fd = pysock_fileno(pair[0]);
    p = epoll_with(fd, POLLOUT);
    epfd = T_OK(pysock_poller_fileno(p));
    q = T_OK(pysock_poller_from_fileno(epfd));
    T_EQ(t_poll_one(q, fd, PYSOCK_NO_TIMEOUT), POLLOUT);
    T_FAILS(pysock_poller_register(q, fd, POLLOUT, NULL), PYSOCK_OS_ERROR, EEXIST);
    T_OK(pysock_poller_close(p));
    pysock_poller_release(p);
    T_EQ(fcntl(epfd, F_GETFD), -1);
    T_FAILS(pysock_poller_poll(q, &event, 1, 0), PYSOCK_OS_ERROR, EBADF);
    T_FAILS(pysock_poller_register(q, fd, POLLIN, NULL), PYSOCK_OS_ERROR, EBADF);
    T_FAILS(pysock_poller_unregister(q, fd), PYSOCK_OS_ERROR, EBADF);
    T_FAILS(pysock_poller_fileno(q), PYSOCK_OS_ERROR, EBADF);
    T_FAILS(pysock_poller_from_fileno(epfd), PYSOCK_OS_ERROR, EINVAL);
    pysock_poller_release(q);
    T_FAILS(pysock_poller_from_fileno(fd), PYSOCK_OS_ERROR, EINVAL);
    T_FAILS(pysock_poller_from_fileno(-1), PYSOCK_OS_ERROR, EINVAL);
    t_close_pair(pair);
}

T_TEST(a_duplicate_of_its_descriptor_finds_the_poller, 30) {
    pysock_poller *p, *q, *other;
    int ends[2], copy, foreign;
    T_OK(pipe(ends));
    foreign = T_OK(epoll_create1(EPOLL_CLOEXEC));
    other = T_OK(pysock_poller_new_epoll());
    p = epoll_with(ends[0], POLLIN);
    copy = T_OK(dup(T_OK(pysock_poller_fileno(p))));
    q = T_OK(pysock_poller_from_fileno(copy));
    T_CHECK(q == p);
    pysock_poller_release(q);
    T_FAILS(pysock_poller_from_fileno(foreign), PYSOCK_OS_ERROR, EINVAL);
    T_FAILS(pysock_poller_from_fileno(ends[0]), PYSOCK_OS_ERROR, EINVAL);
    T_EQ(write(ends[1], "x", 1), 1);
    T_EQ(t_poll_one(p, ends[0], PYSOCK_NO_TIMEOUT), POLLIN);
    T_OK(pysock_poller_close(p));
    T_FAILS(pysock_poller_from_fileno(copy), PYSOCK_OS_ERROR, EINVAL);
    pysock_poller_release(p);
    pysock_poller_release(other);
    close(copy);
    close(foreign);
    close(ends[0]);
    close(ends[1]);
}

static void *poll_until_it_fails(void *arg) {
    pysock_pollevent event;
    T_FAILS(pysock_poller_poll(arg, &event, 1, PYSOCK_NO_TIMEOUT), PYSOCK_OS_ERROR, EBADF);
    return NULL;
}

T_TEST(close_ends_the_polls_that_wait, 30) {
    enum { N = 3 };
    t_thread threads[N];
    pysock_poller *p;
    p = T_OK(pysock_poller_new_epoll());
    for (int i = 0; i < N; i++)
        t_spawn(&threads[i], poll_until_it_fails, p);
    for (int i = 0; i < N; i++)
        t_wait_asleep(&threads[i]);
    T_OK(pysock_poller_close(p));
    for (int i = 0; i < N; i++)
        t_join(&threads[i]);
    pysock_poller_release(p);
}

typedef struct fork_job {
    pysock_poller *p;
    pysock **pair;
    int epfd, fd, other;
} fork_job;

static void poll_in_the_child(void *arg) {
    fork_job *job = arg;
    T_EQ(t_poll_one(job->p, job->fd, PYSOCK_NO_TIMEOUT), POLLIN);
    T_EQ(pysock_poller_fileno(job->p), job->epfd);
    T_OK(pysock_poller_unregister(job->p, job->fd));
    T_EQ(t_poll_one(job->p, job->fd, 0), 0);
}

T_TEST(a_forked_child_has_a_set_of_its_own_under_the_same_number, 30) {
    pysock *pair[2];
    fork_job job;
    t_pair(pair);
    job.pair = pair;
    job.fd = pysock_fileno(pair[1]);
    job.p = epoll_with(job.fd, POLLIN);
    job.epfd = T_OK(pysock_poller_fileno(job.p));
    t_say(pair[0], "x");
    t_wait_for_child(t_run_in_child(poll_in_the_child, &job, 0));
    T_EQ(t_poll_one(job.p, job.fd, PYSOCK_NO_TIMEOUT), POLLIN);
    T_EQ(pysock_poller_fileno(job.p), job.epfd);
    pysock_poller_release(job.p);
    t_close_pair(pair);
}

static void change_in_the_child(void *arg) {
    fork_job *job = arg;
    T_OK(pysock_poller_modify(job->p, job->fd, POLLIN | ET));
    T_OK(pysock_poller_unregister(job->p, job->other));
    T_FAILS(pysock_poller_unregister(job->p, job->other), PYSOCK_OS_ERROR, ENOENT);
    T_FAILS(pysock_poller_register(job->p, job->fd, POLLIN, NULL), PYSOCK_OS_ERROR, EEXIST);
    T_EQ(t_poll_one(job->p, job->fd, PYSOCK_NO_TIMEOUT), POLLIN);
    T_OK(pysock_poller_unregister(job->p, job->fd));
    T_FAILS(pysock_poller_modify(job->p, job->fd, POLLIN), PYSOCK_OS_ERROR, ENOENT);
}

T_TEST(in_a_forked_child_registrations_can_be_changed_before_the_first_poll, 30) {
    int ends[2], others[2];
    fork_job job;
    T_OK(pipe(ends));
    T_OK(pipe(others));
    T_EQ(write(ends[1], "x", 1), 1);
    memset(&job, 0, sizeof job);
    job.fd = ends[0];
    job.other = others[0];
    job.p = epoll_with(job.fd, POLLIN);
    T_OK(pysock_poller_register(job.p, job.other, POLLIN, NULL));
    t_wait_for_child(t_run_in_child(change_in_the_child, &job, 0));
    T_EQ(t_poll_one(job.p, job.fd, PYSOCK_NO_TIMEOUT), POLLIN);
    T_OK(pysock_poller_unregister(job.p, job.other));
    pysock_poller_release(job.p);
    for (int i = 0; i < 2; i++) {
        close(ends[i]);
        close(others[i]);
    }
}

T_TEST(nothing_is_left_open, 30) {
    int before;
    pysock_poller_release(T_OK(pysock_poller_new_epoll())); /* what stays, stays from now on */
    before = t_count_fds();
    for (int i = 0; i < 20; i++) {
        pysock_poller *p = T_OK(pysock_poller_new_epoll());
        if (i % 2)
            T_OK(pysock_poller_close(p));
        pysock_poller_release(p);
    }
    T_EQ(t_count_fds(), before);
}

#else

T_TEST(there_is_no_epoll_here, 30) {
    T_FAILS(pysock_poller_new_epoll(), PYSOCK_OS_ERROR, ENOTSUP);
}

#endif

T_MAIN(.setup = make_contexts, .teardown = free_contexts)
