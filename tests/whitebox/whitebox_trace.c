/* What only the inside can show: that no call waits while a handshake computes, and that the
   library gives back every byte it took. The handshake is stopped right before its crypto, on
   whichever thread runs it, for as long as the test likes; a call that took the lock which the
   crypto runs under would never return, and the watchdog would say where. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <stddef.h>

__attribute__((unused)) static void trace(const char *event, const void *s);
__attribute__((unused)) static void *count_malloc(size_t size);
__attribute__((unused)) static void *count_realloc(void *p, size_t size);
__attribute__((unused)) static void count_free(void *p);

#define PYSOCK_TRACE(event, s) trace(event, s)
#define PYSOCK_MALLOC(size) count_malloc(size)
#define PYSOCK_REALLOC(p, size) count_realloc(p, size)
#define PYSOCK_FREE(p) count_free(p)
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#include "support/contexts.h"

/* ---- the counting allocator ---- */

static long live_blocks, live_bytes; /* atomic */

typedef union block_head {
    size_t size;
    long double align;
    void *align_too;
} block_head;

static void *count_malloc(size_t size) {
    block_head *head;
    if (size > SIZE_MAX - sizeof *head || !(head = malloc(sizeof *head + size)))
        return NULL;
    head->size = size;
    __atomic_add_fetch(&live_blocks, 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(&live_bytes, (long)size, __ATOMIC_RELAXED);
    return head + 1;
}

static void count_free(void *p) {
    block_head *head = p;
    if (!p)
        return;
    head--;
    __atomic_sub_fetch(&live_blocks, 1, __ATOMIC_RELAXED);
    __atomic_sub_fetch(&live_bytes, (long)head->size, __ATOMIC_RELAXED);
    free(head);
}

static void *count_realloc(void *p, size_t size) {
    size_t old = p ? ((block_head *)p - 1)->size : 0;
    void *bigger = count_malloc(size);
    if (!bigger)
        return NULL;
    if (p)
        memcpy(bigger, p, old < size ? old : size);
    count_free(p);
    return bigger;
}

static long count_blocks(void) {
    return __atomic_load_n(&live_blocks, __ATOMIC_RELAXED);
}

static long count_bytes(void) {
    return __atomic_load_n(&live_bytes, __ATOMIC_RELAXED);
}

/* ---- the stop in front of the crypto ---- */

enum { NOBODY, FOREIGN_THREADS, MARKED_THREADS };

static int stop_whom;          /* atomic; whose handshake steps stop */
static __thread int is_ours;   /* set in the threads of the test; the reactor's is foreign */
static __thread int is_marked; /* the one thread of the test that shall stop */
static sem_t stopped, go_on;

static int naps;     /* atomic */
static int wake_ups; /* atomic; so many sleeps to come are woken for nothing */

static void trace(const char *event, const void *s) {
    int whom = __atomic_load_n(&stop_whom, __ATOMIC_ACQUIRE);
    (void)s;
    if (strcmp(event, "backoff") == 0)
        __atomic_add_fetch(&naps, 1, __ATOMIC_RELAXED);
    if (strcmp(event, "before_sleep") == 0 && __atomic_load_n(&wake_ups, __ATOMIC_RELAXED) > 0) {
        __atomic_sub_fetch(&wake_ups, 1, __ATOMIC_RELAXED);
        pysock__wake_sleepers();
    }
    if (whom == NOBODY || strcmp(event, "handshake_step") != 0)
        return;
    if (whom == FOREIGN_THREADS ? is_ours : !is_marked)
        return;
    sem_post(&stopped);
    t_sem_take(&go_on);
}

/* Lets what has stopped run on, and nothing stop any more. */
static void release_all(void) {
    __atomic_store_n(&stop_whom, NOBODY, __ATOMIC_RELEASE);
    for (int i = 0; i < 16; i++)
        sem_post(&go_on);
}

static void begin_stopping(int whom) {
    T_EQ(sem_init(&stopped, 0, 0), 0);
    T_EQ(sem_init(&go_on, 0, 0), 0);
    __atomic_store_n(&stop_whom, whom, __ATOMIC_RELEASE);
}

/* ---- the calls ---- */

static int set_up(void **state) {
    is_ours = 1;
    return make_contexts(state);
}

typedef struct client_job {
    pysock *s;
    int marked;
    int rc;
} client_job;

static void *client_thread(void *arg) {
    client_job *job = arg;
    is_ours = 1;
    is_marked = job->marked;
    job->rc = pysock_ssl_do_handshake(job->s);
    return NULL;
}

/* Every call that must not wait, on a non-blocking socket whose handshake is computing. That they
   return is the proof; a call that waits for the crypto hangs here. */
static void make_every_nonblocking_call(pysock *s, pysock_poller *p) {
    pysock_pollevent event;
    pysock_addr addr;
    pysock_buf *b;
    char buf[16];
    int value = 0, fd = T_OK(pysock_fileno(s)), r = fd, w = fd;
    size_t nr = 1, nw = 1;
    T_STEP("recv");
    T_FAILS(pysock_recv(s, buf, sizeof buf, 0), PYSOCK_OS_ERROR, EAGAIN);
    T_FAILS(pysock_recv_buf(s, 16), PYSOCK_OS_ERROR, EAGAIN);
    T_STEP("send");
    T_FAILS(pysock_send(s, "x", 1, 0), PYSOCK_OS_ERROR, EAGAIN);
    T_FAILS(pysock_sendall(s, "x", 1, 0), PYSOCK_OS_ERROR, EAGAIN);
    T_STEP("do_handshake");
    T_FAILS(pysock_ssl_do_handshake(s), PYSOCK_OS_ERROR, EINPROGRESS);
    T_STEP("select");
    T_EQ(pysock_select(&r, &nr, &w, &nw, NULL, NULL, 0), 0);
    r = w = fd;
    nr = nw = 1;
    T_EQ(pysock_select(&r, &nr, &w, &nw, NULL, NULL, 0.02), 0);
    T_STEP("poller");
    T_EQ(pysock_poller_poll(p, &event, 1, 0), 0);
    T_EQ(pysock_poller_poll(p, &event, 1, 0.02), 0);
    T_OK(pysock_poller_modify(p, fd, POLLIN));
    T_EQ(pysock_poller_poll(p, &event, 1, 0), 0);
    T_OK(pysock_poller_unregister(p, fd));
    T_OK(pysock_poller_register(p, fd, POLLIN | POLLOUT, NULL));
    T_EQ(pysock_poller_poll(p, &event, 1, 0), 0);
    T_STEP("options");
    T_OK(pysock_getsockopt_int(s, SOL_SOCKET, SO_TYPE, &value));
    T_OK(pysock_getsockopt_int(s, SOL_SOCKET, SO_ERROR, &value));
    T_EQ(value, 0);
    T_OK(pysock_setsockopt_int(s, SOL_SOCKET, SO_KEEPALIVE, 1));
    T_STEP("timeouts");
    T_OK(pysock_settimeout(s, 5));
    T_OK(pysock_setblocking(s, 0));
    T_CHECK(pysock_gettimeout(s) == 0);
    T_STEP("names");
    T_OK(pysock_getsockname(s, &addr));
    T_OK(pysock_getpeername(s, &addr));
    T_CHECK(pysock_from_fileno(fd) == s);
    T_STEP("what TLS knows");
    T_EQ(pysock_is_ssl(s), 1);
    T_CHECK(pysock_ssl_version(s) == NULL);
    T_EQ(pysock_ssl_pending(s), 0);
    T_CHECK(pysock_ssl_eof_is_clean(s) <= 0);
    T_STEP("the queue");
    T_OK(pysock_set_watermarks(s, 1000, 2000));
    T_OK(pysock_queued(s));
    b = T_OK(pysock_buf_copy("", 0));
    (void)pysock_send_buf(s, b);
    pysock_buf_release(b);
}

/* The server's side is non-blocking and stands still in the reactor; the client is a thread. */
static void stop_the_reactor(pysock *pair[2], client_job *job, t_thread *t) {
    t_pair(pair);
    T_OK(pysock_setblocking(pair[1], 0));
    t_wrap_later(pair[0], client_ctx, "localhost");
    begin_stopping(FOREIGN_THREADS);
    T_OK(pysock_ssl_wrap_socket(pair[1], server_ctx, NULL));
    job->s = pair[0];
    job->marked = 0;
    job->rc = -2;
    t_spawn(t, client_thread, job);
    T_STEP("waiting for the reactor to reach the crypto");
    t_sem_take(&stopped);
}

/* Another process that has the descriptor may have taken O_NONBLOCK away, and then an accept(2)
   without a connection would know of no timeout, and of no close. */
T_TEST(accept_does_not_take_a_wake_up_for_a_connection, 60) {
    pysock *listener = pysock_create_server("127.0.0.1", 0, 5);
    T_CHECK(listener != NULL);
    T_OK(pysock_settimeout(listener, 0.1));
    T_EQ(fcntl(pysock_fileno(listener), F_SETFL, 0), 0);
    __atomic_store_n(&wake_ups, 3, __ATOMIC_RELAXED);
    T_CHECK(pysock_accept(listener, NULL) == NULL);
    T_EQ(pysock_error(), PYSOCK_TIMEOUT_ERROR);
    T_EQ(__atomic_load_n(&wake_ups, __ATOMIC_RELAXED), 0);
    T_OK(pysock_close(listener));
}

T_TEST(no_nonblocking_call_waits_while_the_reactor_computes, 60) {
    pysock *pair[2];
    pysock_poller *p;
    client_job job;
    t_thread t;
    stop_the_reactor(pair, &job, &t);
    p = t_poller_with(pysock_fileno(pair[1]), POLLIN | POLLOUT);
    make_every_nonblocking_call(pair[1], p);
    release_all();
    T_STEP("the handshake goes on as if nothing had been");
    T_EQ(t_writable(pair[1], PYSOCK_NO_TIMEOUT), 1);
    T_EQ(pysock_ssl_do_handshake(pair[1]), 0);
    t_join(&t);
    T_EQ(job.rc, 0);
    t_say(pair[1], "after all");
    t_expect(pair[0], "after all");
    pysock_poller_release(p);
    t_close_pair(pair);
}

/* The same when the crypto runs in a caller: another thread's non-blocking calls do not wait. */
T_TEST(no_nonblocking_call_waits_while_another_caller_computes, 60) {
    pysock *pair[2];
    pysock_poller *p;
    client_job job;
    t_thread t;
    t_pair(pair);
    t_wrap_later(pair[0], client_ctx, "localhost");
    begin_stopping(MARKED_THREADS);
    job.s = pair[0];
    job.marked = 1;
    t_spawn(&t, client_thread, &job);
    T_OK(pysock_setblocking(pair[1], 0));
    T_OK(pysock_ssl_wrap_socket(pair[1], server_ctx, NULL));
    T_STEP("waiting for the client to reach the crypto");
    t_sem_take(&stopped);
    T_OK(pysock_setblocking(pair[0], 0));
    p = t_poller_with(pysock_fileno(pair[0]), POLLIN | POLLOUT);
    make_every_nonblocking_call(pair[0], p);
    release_all();
    T_EQ(t_writable(pair[0], PYSOCK_NO_TIMEOUT), 1);
    t_join(&t);
    T_CHECK(job.rc == 0);
    T_EQ(pysock_ssl_do_handshake(pair[0]), 0);
    T_EQ(t_writable(pair[1], PYSOCK_NO_TIMEOUT), 1);
    t_say(pair[1], "after all");
    t_expect(pair[0], "after all");
    pysock_poller_release(p);
    t_close_pair(pair);
}

T_TEST(close_does_not_wait_while_the_reactor_computes, 60) {
    pysock *pair[2];
    pysock_poller *p;
    pysock_pollevent event;
    client_job job;
    t_thread t;
    int fd;
    char byte;
    stop_the_reactor(pair, &job, &t);
    fd = pysock_fileno(pair[1]);
    p = t_poller_with(fd, POLLIN);
    T_STEP("close");
    T_OK(pysock_close(pair[1]));
    T_EQ(pysock_close(pair[1]), 0);
    T_FAILS(pysock_recv(pair[1], &byte, 1, 0), PYSOCK_OS_ERROR, EBADF);
    T_FAILS(pysock_ssl_do_handshake(pair[1]), PYSOCK_OS_ERROR, EBADF);
    T_EQ(pysock_poller_poll(p, &event, 1, PYSOCK_NO_TIMEOUT), 1);
    T_EQ(event.events, POLLNVAL);
    release_all();
    T_STEP("the client's handshake may still have got through; then comes the end");
    t_join(&t);
    T_CHECK(job.rc == -1 || pysock_recv(pair[0], &byte, 1, 0) <= 0);
    pysock_poller_release(p);
    T_OK(pysock_close(pair[0]));
}

/* Open connections of the same program are served by their callers meanwhile. */
T_TEST(other_sockets_go_on_while_the_reactor_computes, 60) {
    pysock *pair[2], *other[2];
    client_job job;
    t_thread t;
    t_tls_pair(other, client_ctx, server_ctx);
    T_OK(pysock_setblocking(other[0], 0));
    stop_the_reactor(pair, &job, &t);
    for (int i = 0; i < 100; i++) {
        t_say(other[0], "ping");
        T_EQ(t_readable(other[1], PYSOCK_NO_TIMEOUT), 1);
        t_expect(other[1], "ping");
        t_say(other[1], "pong");
        t_expect(other[0], "pong");
    }
    release_all();
    t_join(&t);
    T_EQ(job.rc, 0);
    t_close_pair(other);
    t_close_pair(pair);
}

/* ---- memory ---- */

static void nonblocking_pair(pysock *pair[2]) {
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    for (int i = 0; i < 2; i++) {
        T_OK(pysock_setblocking(pair[i], 0));
        T_OK(pysock_ssl_wrap_socket(pair[i], i ? server_ctx : client_ctx, i ? NULL : "localhost"));
    }
    for (int i = 0; i < 2; i++)
        T_EQ(t_writable(pair[i], PYSOCK_NO_TIMEOUT), 1);
}

static void connect_and_part(int i) {
    pysock *pair[2];
    pysock_buf *b;
    pysock_poller *p;
    if (i % 3 == 0)
        t_pair(pair);
    else if (i % 3 == 1)
        nonblocking_pair(pair);
    else
        t_tls_local_pair(pair, client_ctx, server_ctx);
    p = t_poller_with(pysock_fileno(pair[1]), POLLIN);
    t_say(pair[0], "x");
    t_expect(pair[1], "x");
    b = T_OK(pysock_buf_copy("queued", 6));
    T_OK(pysock_send_buf(pair[1], b));
    pysock_buf_release(b);
    t_expect(pair[0], "queued");
    pysock_poller_release(p);
    t_close_pair(pair);
}

static void settle(long *blocks, long *bytes) {
    for (int same = 0; same < 10;) {
        *blocks = count_blocks();
        *bytes = count_bytes();
        t_nap(0.01);
        same = *blocks == count_blocks() && *bytes == count_bytes() ? same + 1 : 0;
    }
}

/* Tables may keep the size they once grew to, so that the first connections do not count. */
T_TEST(memory_is_where_it_was_after_2000_connections, 200) {
    long blocks, bytes;
    double end;
    for (int i = 0; i < 60; i++)
        connect_and_part(i);
    settle(&blocks, &bytes);
    for (int i = 0; i < 2000; i++) {
        if (i % 100 == 0)
            T_STEP("connection %d", i);
        connect_and_part(i);
    }
    end = t_now() + 20; /* closing ends in the reactor */
    while ((count_blocks() > blocks || count_bytes() > bytes) && t_now() < end)
        t_nap(0.01);
    T_CHECK(count_blocks() <= blocks);
    T_CHECK(count_bytes() <= bytes);
}

static void leave_everything_to_cleanup(void) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    pysock *pair[2];
    t_tls_pair(pair, client, server);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
    nonblocking_pair(pair);
    t_pair(pair);
    pysock_cleanup();
}

T_TEST(cleanup_gives_back_what_sockets_held, 60) {
    long blocks, bytes;
    leave_everything_to_cleanup();
    settle(&blocks, &bytes);
    for (int round = 0; round < 5; round++) {
        leave_everything_to_cleanup();
        T_EQ(count_blocks(), blocks);
        T_EQ(count_bytes(), bytes);
    }
}

/* ---- back-off ---- */

enum { BULK = 8 << 20 };

static void *drain(void *arg) {
    char buf[65536];
    size_t have = 0;
    ptrdiff_t n;
    while (have < BULK && (n = recv(*(int *)arg, buf, sizeof buf, 0)) > 0)
        have += (size_t)n;
    T_EQ(have, BULK);
    return NULL;
}

/* Many waits in one call, and each brings it on: none of them was futile. */
T_TEST(bulk_with_a_timeout_takes_no_naps, 60) {
    char path[] = "/tmp/pysock-test-XXXXXX";
    char *data = calloc(1, BULK);
    int file = mkstemp(path);
    T_CHECK(data && file >= 0 && write(file, data, BULK) == BULK);
    unlink(path);
    for (int by_file = 0; by_file < 2; by_file++) {
        pysock *pair[2];
        t_thread reader;
        int fd;
        T_STEP(by_file ? "sendfile" : "sendall");
        T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
        T_OK(pysock_settimeout(pair[0], 30));
        fd = pysock_fileno(pair[1]);
        __atomic_store_n(&naps, 0, __ATOMIC_RELAXED);
        t_spawn(&reader, drain, &fd);
        if (by_file)
            T_EQ(pysock_sendfile(pair[0], file, 0, -1), BULK);
        else
            T_OK(pysock_sendall(pair[0], data, BULK, 0));
        t_join(&reader);
        T_EQ(__atomic_load_n(&naps, __ATOMIC_RELAXED), 0);
        T_OK(pysock_close(pair[0]));
        T_OK(pysock_close(pair[1]));
    }
    close(file);
    free(data);
}

/* poll calls an unconnected Unix datagram socket writable, however full the receiver's queue. */
T_TEST(SO_SNDTIMEO_ends_a_call_that_takes_naps, 60) {
    struct timeval limit = {0, 200000};
    pysock *from = T_OK(pysock_socket(AF_UNIX, SOCK_DGRAM, 0));
    pysock *to = T_OK(pysock_socket(AF_UNIX, SOCK_DGRAM, 0));
    pysock_addr at;
    double start;
    T_OK(pysock_bind(to, "", 0));
    at = t_addr_of(to);
    T_OK(pysock_setblocking(from, 0));
    while (pysock_sendto_addr(from, "fills", 5, 0, &at) == 5)
        ;
    T_EQ(errno, EAGAIN);
    T_OK(pysock_setblocking(from, 1));
    T_OK(pysock_setsockopt(from, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit));
    __atomic_store_n(&naps, 0, __ATOMIC_RELAXED);
    start = t_now();
    T_FAILS(pysock_sendto_addr(from, "x", 1, 0, &at), PYSOCK_OS_ERROR, EAGAIN);
    T_CHECK(t_now() - start >= 0.19);
    T_CHECK(__atomic_load_n(&naps, __ATOMIC_RELAXED) > 0);
    T_OK(pysock_close(from));
    T_OK(pysock_close(to));
}

T_MAIN(.setup = set_up, .teardown = free_contexts)
