/* Output that cannot go on because a handshake does: every call that waits for it keeps its
   timeout, is ended by close and cleanup, sleeps, and never reports that the output is out. The
   handshake is one that openssl s_server asks for and then leaves unanswered (it is stopped), or
   the first one of a connection. */
#include "support/support.h"
#include "support/process.h"

#include <sys/ioctl.h>

#define BLOCK (1024 * 1024)
#define MARK '~' /* nothing else that s_server says has one */

/* How long a call may wait in these tests, and the most that it may take to end after that. */
#define SHORT T_SCALE(1.5, 3.0)
#define LONG T_SCALE(30.0, 60.0)

/* ---- the stage ---- */

typedef struct stage {
    p_process *server;
    pysock_ssl_context *ctx;
    pysock *s;
    size_t queued; /* bytes that send_buf has taken */
    int has_reader;
    t_waiter reader;
    t_thread reader_thread;
} stage;

static void stop_server(p_process *p) {
    int status = 0;
    pid_t pid;
    T_EQ(kill(p->pid, SIGSTOP), 0);
    do
        pid = waitpid(p->pid, &status, WUNTRACED);
    while (pid < 0 && errno == EINTR);
    T_EQ(pid, p->pid);
    T_CHECK(WIFSTOPPED(status));
}

static void go_on(stage *st) {
    T_EQ(kill(st->server->pid, SIGCONT), 0);
}

/* A connection to s_server, whose HelloRequest lies unread in the kernel, while s_server is stopped
   and the queue is full. */
static void set_stage(stage *st) {
    static p_process server;
    p_args args = {{NULL}, 0};
    pysock_buf *b = T_OK(pysock_buf_new(BLOCK));
    int port;
    memset(st, 0, sizeof *st);
    memset(pysock_buf_data(b), MARK, BLOCK);
    st->server = &server;
    p_add(&args, "stdbuf", "-oL", "openssl", "s_server", "-accept", "127.0.0.1:" P_PORT, "-cert",
          T_CERTS "server-ec.pem", "-key", T_CERTS "server-ec.key", "-tls1_2", "-state", NULL);
    st->s = p_start_server(st->server, &args, &port);
    st->ctx = t_client_ctx();
    T_OK(pysock_setsockopt_int(st->s, SOL_SOCKET, SO_SNDBUF, 16384));
    T_OK(pysock_ssl_wrap_socket(st->s, st->ctx, "localhost"));
    p_wait_for(st->server, "CIPHER is");
    p_say(st->server, "R\n");
    p_wait_for(st->server, "SSL_do_handshake ->");
    stop_server(st->server);
    T_CHECK(t_unread(st->s) > 0);
    T_OK(pysock_setblocking(st->s, 0));
    while (pysock_send_buf(st->s, b) == 0)
        st->queued += BLOCK;
    T_EQ(errno, EAGAIN);
    T_CHECK(T_OK(pysock_queued(st->s)) > 0);
    pysock_buf_release(b);
}

static void clear_stage(stage *st) {
    T_OK(pysock_close(st->s));
    if (st->has_reader)
        t_join(&st->reader_thread);
    p_end(st->server);
    pysock_ssl_context_release(st->ctx);
}

/* Has the HelloRequest taken by a thread whose recv then sleeps, as there are no data. */
static void a_reader_takes_the_request(stage *st) {
    st->reader.what = T_WAIT_RECV;
    st->reader.s = st->s;
    st->has_reader = 1;
    t_spawn(&st->reader_thread, t_wait_thread, &st->reader);
    while (t_unread(st->s) > 0)
        t_nap(0.002);
}

/* The same by calls that do not wait. */
static void take_the_request(stage *st) {
    char byte;
    T_OK(pysock_setblocking(st->s, 0));
    while (t_unread(st->s) > 0) {
        T_FAILS(pysock_recv(st->s, &byte, 1, 0), PYSOCK_OS_ERROR, EAGAIN);
        t_nap(0.002);
    }
}

/* ---- the calls ---- */

typedef enum call_kind { SEND_BUF, SENDALL, SEND, UNWRAP, DETACH, FLUSH } call_kind;

static const char *const call_names[] = {"send_buf", "sendall", "send",
                                         "unwrap",   "detach",  "file_flush"};

typedef struct call {
    call_kind kind;
    pysock *s;
    int result, code;
    pysock_error_kind error;
    double took, cpu;
} call;

static int flush_a_file(pysock *s) {
    pysock_file *f = T_OK(pysock_makefile(s, "w", -1));
    int rc, code;
    T_EQ(pysock_file_write(f, "~", 1, NULL), 1);
    rc = pysock_file_flush(f);
    code = errno;
    pysock_file_close(f);
    errno = code;
    return rc;
}

static void *make_call(void *arg) {
    call *c = arg;
    pysock_buf *b = T_OK(pysock_buf_copy("~", 1));
    double start = t_now(), cpu = t_thread_cpu();
    switch (c->kind) {
    case SEND_BUF: c->result = pysock_send_buf(c->s, b); break;
    case SENDALL: c->result = pysock_sendall(c->s, "~", 1, 0); break;
    case SEND: c->result = (int)pysock_send(c->s, "~", 1, 0); break;
    case UNWRAP: c->result = pysock_ssl_unwrap(c->s); break;
    case DETACH: c->result = pysock_detach(c->s); break;
    case FLUSH: c->result = flush_a_file(c->s); break;
    }
    c->code = errno;
    c->error = pysock_error();
    c->took = t_now() - start;
    c->cpu = t_thread_cpu() - cpu;
    pysock_buf_release(b);
    return NULL;
}

/* How often the mark has come out of s_server. */
static size_t marks(const p_process *p) {
    size_t n = 0;
    for (size_t i = 0; i < p->said.size; i++)
        n += p->said.data[i] == MARK;
    return n;
}

static void wait_for_marks(p_process *p, size_t want) {
    double end = t_now() + P_PATIENCE;
    while (marks(p) < want)
        if (!p_pump(p, 0.1) || t_now() > end) {
            fprintf(stderr, "*** %s has got %zu of %zu bytes\n", p->program, marks(p), want);
            T_FAIL("output was lost, or does not go on");
        }
    T_EQ(marks(p), want);
}

/* A call that waits ends at its deadline, and has slept: before or after the request is taken. */
static void keeps_its_timeout(call_kind kind) {
    for (int early = 0; early < 2; early++) {
        stage st;
        call c = {0};
        t_thread t;
        T_STEP("%s, %s", call_names[kind], early ? "then the call" : "the call first");
        set_stage(&st);
        c.kind = kind;
        c.s = st.s;
        if (early)
            take_the_request(&st);
        T_OK(pysock_settimeout(st.s, SHORT));
        t_spawn(&t, make_call, &c);
        if (!early)
            a_reader_takes_the_request(&st);
        t_join(&t);
        T_EQ(c.result, -1);
        T_EQ(c.code, ETIMEDOUT);
        T_EQ(c.error, PYSOCK_TIMEOUT_ERROR);
        T_CHECK(c.took > SHORT * 0.9 && c.took < LONG);
        T_CHECK(c.cpu < SHORT / 2);
        T_EQ(pysock_is_ssl(st.s), 1);
        T_CHECK(pysock_queued(st.s) > 0);
        clear_stage(&st);
        if (early)
            continue;
        T_EQ(st.reader.result, -1);
        T_CHECK(st.reader.code == ETIMEDOUT || st.reader.code == EBADF);
    }
}

/* A call without a timeout ends when the socket is closed, or the library ends. */
static void is_ended(call_kind kind, int by_cleanup) {
    for (int early = 0; early < 2; early++) {
        stage st;
        call c = {0};
        t_thread t;
        double start;
        T_STEP("%s, %s", call_names[kind], early ? "then the call" : "the call first");
        set_stage(&st);
        c.kind = kind;
        c.s = st.s;
        if (early)
            take_the_request(&st);
        T_OK(pysock_settimeout(st.s, PYSOCK_NO_TIMEOUT));
        t_spawn(&t, make_call, &c);
        t_wait_asleep(&t);
        if (!early) {
            a_reader_takes_the_request(&st);
            t_wait_asleep(&st.reader_thread);
            t_wait_asleep(&t);
        }
        start = t_now();
        if (by_cleanup)
            pysock_cleanup();
        else
            T_OK(pysock_close(st.s));
        T_CHECK(t_now() - start < LONG);
        t_join(&t);
        T_CHECK(t_now() - start < LONG);
        T_EQ(c.result, -1);
        T_EQ(c.code, by_cleanup ? ESHUTDOWN : EBADF);
        clear_stage(&st);
        if (!early)
            T_EQ(st.reader.code, by_cleanup ? ESHUTDOWN : EBADF);
    }
}

/* It succeeds when the server goes on, and then the output is out: all of it, and in order. */
static void succeeds_in_the_end(call_kind kind) {
    for (int early = 0; early < 2; early++) {
        stage st;
        call c = {0};
        t_thread t;
        size_t own = kind == UNWRAP || kind == DETACH ? 0 : 1;
        T_STEP("%s, %s", call_names[kind], early ? "then the call" : "the call first");
        set_stage(&st);
        c.kind = kind;
        c.s = st.s;
        if (early)
            take_the_request(&st);
        T_OK(pysock_settimeout(st.s, LONG));
        t_spawn(&t, make_call, &c);
        t_wait_asleep(&t);
        if (!early)
            a_reader_takes_the_request(&st);
        t_wait_asleep(&t);
        go_on(&st);
        wait_for_marks(st.server, st.queued + own);
        t_join(&t);
        if (c.result < 0)
            T_FAIL("%s: errno %d", call_names[kind], c.code);
        if (kind == UNWRAP)
            T_EQ(pysock_is_ssl(st.s), 0);
        if (kind == DETACH)
            close(c.result);
        else
            T_EQ(pysock_queued(st.s), 0);
        clear_stage(&st);
    }
}

#define CALL_TESTS(name, kind)                                                                     \
    CALL_TESTS_BUT_FOR_CLOSE(name, kind)                                                           \
    T_TEST(name##_is_ended_by_close, 120) {                                                        \
        P_NEED("openssl");                                                                         \
        is_ended(kind, 0);                                                                         \
    }

/* An open file keeps its socket open. */
#define CALL_TESTS_BUT_FOR_CLOSE(name, kind)                                                       \
    T_TEST(name##_keeps_its_timeout, 120) {                                                        \
        P_NEED("openssl");                                                                         \
        keeps_its_timeout(kind);                                                                   \
    }                                                                                              \
    T_TEST(name##_is_ended_by_cleanup, 120) {                                                      \
        P_NEED("openssl");                                                                         \
        is_ended(kind, 1);                                                                         \
    }                                                                                              \
    T_TEST(name##_succeeds_when_the_server_goes_on, 200) {                                         \
        P_NEED("openssl");                                                                         \
        succeeds_in_the_end(kind);                                                                 \
    }

CALL_TESTS(send_buf, SEND_BUF)
CALL_TESTS(sendall, SENDALL)
CALL_TESTS(send, SEND)
CALL_TESTS(unwrap, UNWRAP)
CALL_TESTS_BUT_FOR_CLOSE(a_files_flush, FLUSH)

/* detach() only where no thread waits with the socket: that is EBUSY. */
static void detach_alone(stage *st, double timeout) {
    set_stage(st);
    take_the_request(st);
    T_OK(pysock_settimeout(st->s, timeout));
}

T_TEST(detach_keeps_its_timeout, 60) {
    stage st;
    call c = {0};
    P_NEED("openssl");
    detach_alone(&st, SHORT);
    c.kind = DETACH;
    c.s = st.s;
    make_call(&c);
    T_EQ(c.result, -1);
    T_EQ(c.code, ETIMEDOUT);
    T_CHECK(c.took > SHORT * 0.9 && c.took < LONG);
    T_CHECK(c.cpu < SHORT / 2);
    T_CHECK(T_OK(pysock_queued(st.s)) > 0);
    go_on(&st);
    wait_for_marks(st.server, st.queued);
    clear_stage(&st);
}

T_TEST(detach_says_EAGAIN_where_it_must_not_wait, 60) {
    stage st;
    int fd;
    P_NEED("openssl");
    detach_alone(&st, 0);
    for (int i = 0; i < 20; i++)
        T_FAILS(pysock_detach(st.s), PYSOCK_OS_ERROR, EAGAIN);
    T_CHECK(T_OK(pysock_queued(st.s)) > 0);
    go_on(&st);
    while ((fd = pysock_detach(st.s)) < 0) {
        T_EQ(errno, EAGAIN);
        p_pump(st.server, 0.01);
    }
    wait_for_marks(st.server, st.queued);
    close(fd);
    clear_stage(&st);
}

T_TEST(detach_is_ended_by_close, 60) {
    stage st;
    call c = {0};
    t_thread t;
    P_NEED("openssl");
    detach_alone(&st, PYSOCK_NO_TIMEOUT);
    c.kind = DETACH;
    c.s = st.s;
    t_spawn(&t, make_call, &c);
    t_wait_asleep(&t);
    T_OK(pysock_close(st.s));
    t_join(&t);
    T_EQ(c.result, -1);
    T_EQ(c.code, EBADF);
    clear_stage(&st);
}

T_TEST(detach_gives_the_descriptor_when_all_is_out, 60) {
    stage st;
    call c = {0};
    t_thread t;
    P_NEED("openssl");
    detach_alone(&st, LONG);
    c.kind = DETACH;
    c.s = st.s;
    t_spawn(&t, make_call, &c);
    t_wait_asleep(&t);
    go_on(&st);
    wait_for_marks(st.server, st.queued);
    t_join(&t);
    T_CHECK(c.result >= 0);
    close(c.result);
    clear_stage(&st);
}

/* ---- a reader alone ---- */

/* Until s_server has finished its second handshake: what it says before is no part of this. */
static void wait_renegotiated(p_process *p) {
    double end = t_now() + P_PATIENCE;
    for (;;) {
        unsigned seen = 0;
        const char *at = p_string(&p->complained);
        while ((at = strstr(at, "SSL_accept:SSLv3/TLS write finished")) != NULL) {
            at++;
            seen++;
        }
        if (seen >= 2)
            return;
        if (!p_pump(p, 0.1) || t_now() > end)
            P_FAIL(p, "the handshake does not finish");
    }
}

enum { BLOCKING, TIMED, NON_BLOCKING, BY_POLLER, READERS };

typedef struct line_reader {
    pysock *s;
    int how;
    double cpu;
} line_reader;

static void *read_a_line(void *arg) {
    line_reader *r = arg;
    double cpu = t_thread_cpu();
    if (r->how == BY_POLLER) {
        pysock_poller *p = t_poller_with(pysock_fileno(r->s), POLLIN);
        pysock_pollevent event;
        size_t have = 0;
        char text[16];
        while (have < 6) {
            ptrdiff_t n = pysock_recv(r->s, text + have, 6 - have, 0);
            if (n > 0)
                have += (size_t)n;
            else if (n < 0 && errno == EAGAIN)
                T_EQ(pysock_poller_poll(p, &event, 1, LONG), 1);
            else
                T_FAIL("recv gave %ld: %s", (long)n, pysock_error_message());
        }
        T_EQ(memcmp(text, "after\n", 6), 0);
        pysock_poller_release(p);
    } else {
        t_expect(r->s, "after\n");
    }
    r->cpu = t_thread_cpu() - cpu;
    return NULL;
}

/* recv takes the request while the kernel is full: what it waits for is room first, then the
   server's flights, then data; and it sleeps. */
T_TEST(a_reader_waits_in_the_right_direction, 200) {
    P_NEED("openssl");
    for (int how = 0; how < READERS; how++) {
        stage st;
        line_reader r = {0};
        t_thread t;
        double until;
        T_STEP("reader %d", how);
        set_stage(&st);
        r.s = st.s;
        r.how = how;
        T_OK(pysock_settimeout(st.s, how == BLOCKING ? PYSOCK_NO_TIMEOUT
                                     : how == TIMED  ? LONG
                                                     : 0));
        t_spawn(&t, read_a_line, &r);
        while (t_unread(st.s) > 0)
            t_nap(0.002);
        t_wait_asleep(&t);
        for (until = t_now() + SHORT; t_now() < until;)
            t_nap(0.1); /* time that a reader which spins would use */
        go_on(&st);
        wait_renegotiated(st.server);
        wait_for_marks(st.server, st.queued);
        p_say(st.server, "after\n");
        t_join(&t);
        T_CHECK(r.cpu < SHORT / 2);
        T_EQ(pysock_queued(st.s), 0);
        clear_stage(&st);
    }
}

/* ---- calls that do not wait ---- */

/* 0: done. */
static int unwrap_step(pysock *s) {
    int rc = pysock_ssl_unwrap(s);
    if (rc != 0)
        T_CHECK(rc == -1 && (errno == EINPROGRESS || errno == EAGAIN));
    return rc;
}

T_TEST(a_nonblocking_unwrap_is_done_only_when_TLS_is_off, 100) {
    stage st;
    P_NEED("openssl");
    set_stage(&st);
    take_the_request(&st);
    for (int i = 0; i < 50; i++) {
        unwrap_step(st.s);
        T_EQ(pysock_is_ssl(st.s), 1);
        T_CHECK(T_OK(pysock_queued(st.s)) > 0);
    }
    go_on(&st);
    while (unwrap_step(st.s) != 0) {
        T_EQ(pysock_is_ssl(st.s), 1);
        p_pump(st.server, 0.01);
    }
    T_EQ(pysock_is_ssl(st.s), 0);
    T_EQ(pysock_queued(st.s), 0);
    wait_for_marks(st.server, st.queued);
    clear_stage(&st);
}

T_TEST(shutdown_and_close_finish_what_is_queued, 200) {
    P_NEED("openssl");
    for (int by_close = 0; by_close < 2; by_close++)
        for (int blocking = 0; blocking < 2; blocking++) {
            stage st;
            T_STEP("%s, %s", by_close ? "close" : "shutdown", blocking ? "blocking" : "not");
            set_stage(&st);
            take_the_request(&st);
            if (blocking && by_close)
                T_OK(pysock_settimeout(st.s, LONG));
            if (by_close)
                T_OK(pysock_close(st.s));
            else
                T_OK(pysock_shutdown(st.s, SHUT_WR));
            go_on(&st);
            wait_for_marks(st.server, st.queued);
            p_wait_for(st.server, "DONE"); /* a close_notify has come, not a bare end */
            clear_stage(&st);
        }
}

/* Neither direction is ready: whoever asks sleeps for as long as it said. */
T_TEST(select_and_pollers_sleep_meanwhile, 120) {
    P_NEED("openssl");
    for (int by_poller = 0; by_poller < 2; by_poller++) {
        stage st;
        double start, cpu;
        int fd;
        set_stage(&st);
        take_the_request(&st);
        fd = pysock_fileno(st.s);
        start = t_now();
        cpu = t_thread_cpu();
        if (by_poller) {
            pysock_poller *p = t_poller_with(fd, POLLIN | POLLOUT);
            pysock_pollevent event;
            T_EQ(pysock_poller_poll(p, &event, 1, SHORT), 0);
            pysock_poller_release(p);
        } else {
            int wfd = fd;
            size_t rn = 1, wn = 1;
            T_EQ(pysock_select(&fd, &rn, &wfd, &wn, NULL, NULL, SHORT), 0);
        }
        T_CHECK(t_now() - start > SHORT * 0.9);
        T_CHECK(t_thread_cpu() - cpu < SHORT / 2);
        go_on(&st);
        wait_for_marks(st.server, st.queued);
        T_CHECK(t_writable(st.s, LONG));
        clear_stage(&st);
    }
}

/* All threads together: the reactor is one of those that would spin. */
T_TEST(nothing_spins_while_the_server_is_silent, 60) {
    stage st;
    double start, cpu;
    P_NEED("openssl");
    set_stage(&st);
    take_the_request(&st);
    start = t_now();
    cpu = t_process_cpu();
    T_CHECK(!t_writable(st.s, SHORT));
    T_CHECK(t_now() - start > SHORT * 0.9);
    T_CHECK(t_process_cpu() - cpu < SHORT / 2);
    go_on(&st);
    wait_for_marks(st.server, st.queued);
    clear_stage(&st);
}

/* ---- the first handshake: the same for what is queued behind it ---- */

static void pair_with_a_queue(pysock *pair[2], pysock_ssl_context *client) {
    pysock_buf *b = T_OK(pysock_buf_copy("queued", 6));
    t_pair(pair);
    T_OK(pysock_setblocking(pair[0], 0));
    T_OK(pysock_ssl_wrap_socket(pair[0], client, "localhost"));
    T_OK(pysock_send_buf(pair[0], b));
    T_EQ(pysock_queued(pair[0]), 6);
    pysock_buf_release(b);
}

static void *detach_thread(void *arg) {
    call *c = arg;
    make_call(c);
    if (c->result >= 0)
        close(c->result);
    return NULL;
}

T_TEST(detach_drops_nothing_that_waits_for_the_first_handshake, 60) {
    pysock *pair[2];
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    for (int timed = 0; timed < 2; timed++) {
        call c = {0};
        t_thread t;
        pair_with_a_queue(pair, client);
        T_OK(pysock_settimeout(pair[0], timed ? 0.2 : 0));
        T_FAILS(pysock_detach(pair[0]), timed ? PYSOCK_TIMEOUT_ERROR : PYSOCK_OS_ERROR,
                timed ? ETIMEDOUT : EAGAIN);
        T_EQ(pysock_queued(pair[0]), 6);
        T_OK(pysock_settimeout(pair[0], LONG));
        c.kind = DETACH;
        c.s = pair[0];
        t_spawn(&t, detach_thread, &c);
        t_wait_asleep(&t);
        T_OK(pysock_ssl_wrap_socket(pair[1], server, NULL));
        t_expect(pair[1], "queued");
        t_join(&t);
        T_CHECK(c.result >= 0);
        T_OK(pysock_close(pair[1]));
        T_OK(pysock_close(pair[0]));
    }
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

T_TEST(unwrap_waits_for_what_is_queued_behind_the_first_handshake, 60) {
    pysock *pair[2];
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    char byte;
    pair_with_a_queue(pair, client);
    T_CHECK(unwrap_step(pair[0]) != 0);
    T_EQ(pysock_is_ssl(pair[0]), 1);
    T_EQ(pysock_queued(pair[0]), 6);
    T_OK(pysock_ssl_wrap_socket(pair[1], server, NULL));
    t_expect(pair[1], "queued");
    while (unwrap_step(pair[0]) != 0) {
        T_EQ(pysock_is_ssl(pair[0]), 1);
        T_EQ(pysock_recv(pair[1], &byte, 1, 0), 0); /* its close_notify */
        T_OK(pysock_shutdown(pair[1], SHUT_WR));
        t_readable(pair[0], LONG);
    }
    T_EQ(pysock_is_ssl(pair[0]), 0);
    t_close_pair(pair);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

/* Nor what waits for a connection. */
T_TEST(detach_drops_nothing_that_waits_for_a_connection, 60) {
    int fds[2], port;
    pysock *s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    pysock_buf *b = T_OK(pysock_buf_copy("queued", 6));
    port = t_silent_port(fds);
    T_OK(pysock_setblocking(s, 0));
    T_FAILS(pysock_connect(s, "127.0.0.1", port), PYSOCK_OS_ERROR, EINPROGRESS);
    if (pysock_send_buf(s, b) == 0) {
        T_FAILS(pysock_detach(s), PYSOCK_OS_ERROR, EAGAIN);
        T_EQ(pysock_queued(s), 6);
        T_OK(pysock_settimeout(s, 0.2));
        T_FAILS(pysock_detach(s), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
        T_EQ(pysock_queued(s), 6);
    } else {
        T_CHECK(errno == EAGAIN || errno == ENOTCONN || errno == EPIPE);
    }
    T_OK(pysock_close(s));
    pysock_buf_release(b);
    close(fds[0]);
    close(fds[1]);
}

/* ---- two threads end TLS at once, while the kernel takes no more ---- */

static void *unwrap_it(void *arg) {
    T_OK(pysock_ssl_unwrap(arg));
    return NULL;
}

static void *shut_it(void *arg) {
    T_OK(pysock_shutdown(arg, SHUT_WR));
    return NULL;
}

/* The peer has ended already, reads everything at last, and two calls finish what one began. With
   queued output the first has not made its close_notify yet. */
static void end_twice(void *(*second)(void *), int queued) {
    static char bulk[65536];
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    pysock_buf *b = T_OK(pysock_buf_copy(bulk, sizeof bulk));
    pysock *pair[2];
    t_thread threads[2];
    ptrdiff_t n;
    t_tls_local_pair(pair, client, server);
    T_OK(pysock_settimeout(pair[0], 0));
    while ((n = pysock_send(pair[0], bulk, sizeof bulk, 0)) > 0) {
    }
    T_EQ(errno, EAGAIN);
    if (queued)
        T_OK(pysock_send_buf(pair[0], b));
    T_OK(pysock_settimeout(pair[0], 60));
    T_OK(pysock_shutdown(pair[1], SHUT_WR));
    t_spawn(&threads[0], unwrap_it, pair[0]);
    t_wait_asleep(&threads[0]);
    t_spawn(&threads[1], second, pair[0]);
    t_wait_asleep(&threads[1]);
    while ((n = pysock_recv(pair[1], bulk, sizeof bulk, 0)) > 0) {
    }
    T_EQ(n, 0);
    t_join(&threads[0]);
    t_join(&threads[1]);
    T_EQ(pysock_is_ssl(pair[0]), 0);
    t_close_pair(pair);
    pysock_buf_release(b);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

T_TEST(two_threads_unwrap_one_socket, 120) {
    end_twice(unwrap_it, 0);
}

T_TEST(a_shutdown_waits_while_another_thread_unwraps, 120) {
    end_twice(shut_it, 1);
}

T_MAIN(.each_teardown = p_end_all)
