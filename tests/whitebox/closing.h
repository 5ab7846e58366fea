/* The bound of a close, and what arrives within it, for programs with a short PYSOCK_CLOSE_TIMEOUT,
   with threads and without. The including file has the implementation. The peers are raw
   descriptors on threads of their own, which never enter the library. */
#ifndef TESTS_CLOSING_H
#define TESTS_CLOSING_H

#include "support/contexts.h"
#include "support/file_id.h"

#include <sys/ioctl.h>

#define SIZE (1u << 20)
#define LONG T_SCALE(30.0, 60.0)

static unsigned char reply[SIZE], got[SIZE + 1];

static int set_up(void **state) {
    t_fill(reply, SIZE, 0, 1);
    return make_contexts(state);
}

/* A socket of the library, and the raw descriptor at its other end; both have little room. */
static pysock *raw_pair(int *peer) {
    int port, small = 16384, raw = t_raw_listen(&port);
    pysock *s;
    T_EQ(setsockopt(raw, SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
    s = T_OK(pysock_create_connection("127.0.0.1", port, LONG));
    T_OK(pysock_setsockopt_int(s, SOL_SOCKET, SO_SNDBUF, 65536));
    *peer = t_raw_accept(raw);
    close(raw);
    return s;
}

static void queue_all(pysock *s) {
    pysock_buf *b = T_OK(pysock_buf_wrap(reply, SIZE, NULL, NULL));
    T_OK(pysock_setblocking(s, 0));
    T_OK(pysock_send_buf(s, b));
    pysock_buf_release(b);
}

/* Without threads somebody must call: any call that sleeps does the work. */
static void wait_closed(file_id f) {
    double end = t_now() + LONG;
    int fds[2];
    T_EQ(pipe(fds), 0);
    while (is_open(f)) {
        struct pollfd p = {fds[0], POLLIN, 0};
        if (t_now() > end)
            T_FAIL("the descriptor is never closed");
        T_EQ(pysock_poll(&p, 1, 0.02), 0);
    }
    close(fds[0]);
    close(fds[1]);
}

/* ---- peers ---- */

typedef struct peer {
    int fd;
    t_thread thread;
    size_t got;
    int error;   /* of the first call that failed */
    sem_t *wait; /* before it reads */
} peer;

static void *read_to_the_end(void *arg) {
    peer *p = arg;
    ssize_t n;
    while (p->wait && sem_wait(p->wait) != 0)
        continue;
    while (p->got <= SIZE && (n = recv(p->fd, got + p->got, SIZE + 1 - p->got, 0)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            p->error = errno;
            break;
        }
        p->got += (size_t)n;
    }
    return NULL;
}

/* Sends for as long as it may, and reads nothing. */
static void *flood(void *arg) {
    peer *p = arg;
    static const char bytes[4096];
    ssize_t n;
    do
        n = send(p->fd, bytes, sizeof bytes, MSG_NOSIGNAL);
    while (n > 0 || (n < 0 && errno == EINTR));
    p->error = errno;
    return NULL;
}

static void must_have_all(const peer *p) {
    if (p->got != SIZE || p->error)
        T_FAIL("%zu of %u bytes have arrived, then: %s", p->got, SIZE,
               p->error ? strerror(p->error) : "the end");
    t_verify(got, SIZE, 0, 1);
}

/* ---- cases ---- */

T_TEST(all_arrives_although_input_is_unread, 120) {
    for (int queued = 1; queued < 2; queued++) { /* a plain send is the kernel's */
        peer p = {0};
        pysock *s = raw_pair(&p.fd);
        file_id file = file_of(s);
        T_STEP(queued ? "send_buf" : "sendall");
        t_raw_write(p.fd, "GET", 3);
        t_wait_unread(s);
        t_spawn(&p.thread, read_to_the_end, &p);
        if (queued)
            queue_all(s);
        else
            T_OK(pysock_sendall(s, reply, SIZE, 0));
        T_OK(pysock_close(s));
        wait_closed(file);
        t_join(&p.thread);
        must_have_all(&p);
        close(p.fd);
    }
}

/* It reads nothing, and does not end. Its input is unread, too. */
T_TEST(a_silent_peer_costs_close_no_more_than_its_bound, 120) {
    for (int unread = 0; unread < 2; unread++)
        for (int queued = 0; queued < 2; queued++) {
            int peer_fd;
            pysock *s = raw_pair(&peer_fd);
            file_id file = file_of(s);
            double start;
            T_STEP("%s, %s", unread ? "unread input" : "no input", queued ? "send_buf" : "send");
            if (unread) {
                t_raw_write(peer_fd, "GET", 3);
                t_wait_unread(s);
            }
            if (queued) {
                queue_all(s);
            } else {
                T_OK(pysock_setblocking(s, 0));
                while (pysock_send(s, reply, SIZE, 0) > 0)
                    continue;
                T_EQ(errno, EAGAIN);
            }
            start = t_now();
            pysock_close(s);
            wait_closed(file);
            T_CHECK(t_now() - start < LONG);
            close(peer_fd);
        }
}

T_TEST(a_flooding_peer_costs_close_no_more_than_its_bound, 120) {
    peer p = {0};
    pysock *s;
    file_id file;
    s = raw_pair(&p.fd);
    file = file_of(s);
    t_spawn(&p.thread, flood, &p);
    t_wait_unread(s);
    queue_all(s);
    pysock_close(s);
    wait_closed(file);
    t_join(&p.thread);
    T_CHECK(p.error == ECONNRESET || p.error == EPIPE);
    close(p.fd);
}

/* Reading begins when close has returned or, where that waits, while it waits. */
T_TEST(a_late_reader_gets_all_within_the_bound, 120) {
    peer p = {0};
    pysock *s;
    sem_t closed;
    file_id file;
    sem_init(&closed, 0, 0);
    p.wait = &closed;
    s = raw_pair(&p.fd);
    file = file_of(s);
    t_raw_write(p.fd, "GET", 3);
    t_wait_unread(s);
    t_spawn(&p.thread, read_to_the_end, &p);
    queue_all(s);
    sem_post(&closed);
    T_OK(pysock_close(s));
    wait_closed(file);
    t_join(&p.thread);
    must_have_all(&p);
    close(p.fd);
    sem_destroy(&closed);
}

/* On a non-blocking socket: who blocks and asks for ten minutes may get them. */
T_TEST(SO_LINGER_is_no_longer_than_the_bound, 120) {
    struct linger linger = {1, 600};
    int peer_fd;
    pysock *s;
    file_id file;
    s = raw_pair(&peer_fd);
    file = file_of(s);
    queue_all(s);
    T_OK(pysock_setsockopt(s, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
    pysock_close(s);
    wait_closed(file);
    close(peer_fd);
}

/* ---- the end of the process ---- */

static void send_close_and_exit(void *arg) {
    pysock *s = T_OK(pysock_adopt(*(int *)arg, -1, -1, -1));
    T_OK(pysock_setsockopt_int(s, SOL_SOCKET, SO_SNDBUF, (int)SIZE));
    pysock_buf *b = T_OK(pysock_buf_wrap(reply, 65536, NULL, NULL));
    t_wait_unread(s);
    T_OK(pysock_send_buf(s, b));
    pysock_buf_release(b);
    T_OK(pysock_close(s));
}

T_TEST(send_close_exit_loses_nothing, 120) {
    int port, raw, fd, theirs;
    pid_t pid;
    if (T_TSAN) /* it confuses the threads of a forked child with those of its parent */
        skip();
    raw = t_raw_listen(&port);
    fd = t_raw_connect(port);
    theirs = t_raw_accept(raw);
    close(raw);
    pid = t_run_in_child(send_close_and_exit, &theirs, 1);
    close(theirs);
    t_raw_write(fd, "GET", 3);
    T_EQ(t_raw_read(fd, got, 65536), 65536);
    t_verify(got, 65536, 0, 1);
    T_EQ(recv(fd, got, 1, 0), 0);
    t_wait_for_child(pid);
    close(fd);
}

static void a_tls_server_closes_and_exits(void *arg) {
    pysock *s = T_OK(pysock_adopt(*(int *)arg, -1, -1, -1));
    T_OK(pysock_setsockopt_int(s, SOL_SOCKET, SO_SNDBUF, (int)SIZE));
    T_OK(pysock_ssl_wrap_socket(s, server_ctx, NULL));
    t_expect(s, "GET");
    t_wait_unread(s);
    T_OK(pysock_sendall(s, reply, 65536, 0));
    T_OK(pysock_close(s));
}

T_TEST(send_close_exit_over_TLS_loses_nothing, 120) {
    int port, raw, fd, theirs;
    pid_t pid;
    pysock *s;
    if (T_TSAN) /* it confuses the threads of a forked child with those of its parent */
        skip();
    raw = t_raw_listen(&port);
    fd = t_raw_connect(port);
    theirs = t_raw_accept(raw);
    close(raw);
    pid = t_run_in_child(a_tls_server_closes_and_exits, &theirs, 1);
    close(theirs);
    s = T_OK(pysock_adopt(fd, -1, -1, -1));
    T_OK(pysock_settimeout(s, LONG));
    T_OK(pysock_ssl_wrap_socket(s, client_ctx, "localhost"));
    t_say(s, "GET");
    t_say(s, "GET");
    t_wait_for_child(pid);
    t_recv_exactly(s, got, 65536);
    t_verify(got, 65536, 0, 1);
    T_EQ(pysock_recv(s, got, 1, 0), 0);
    T_EQ(pysock_ssl_eof_is_clean(s), 1);
    T_OK(pysock_close(s));
}

#endif
