/* Files into sockets: pysock_sendfile(), on plain and TLS sockets of every family. */
#include "io/files.h"

/* ---- the file that is sent, and its receiver ---- */

#define BIG ((int64_t)10 * 1024 * 1024 + 7) /* more than the kernel's buffers take */
#define SEED 12

static int big_fd; /* unlinked; each test opens it anew, for a position of its own */

static int make_big_file(void **state) {
    char path[] = "/tmp/pysock-test-XXXXXX";
    make_contexts(state);
    big_fd = mkstemp(path);
    T_CHECK(big_fd >= 0);
    T_EQ(unlink(path), 0);
    for (int64_t done = 0; done < BIG;) {
        size_t n = BIG - done < T_PATTERN ? (size_t)(BIG - done) : T_PATTERN;
        T_EQ(write(big_fd, t_bytes((uint64_t)done, SEED), n), n);
        done += (int64_t)n;
    }
    return 0;
}

static int close_big_file(void **state) {
    close(big_fd);
    return free_contexts(state);
}

static int open_big(int flags) {
    char path[32];
    int fd;
    snprintf(path, sizeof path, "/proc/self/fd/%d", big_fd);
    fd = open(path, flags | O_CLOEXEC);
    T_CHECK(fd >= 0);
    return fd;
}

static int64_t position(int fd) {
    return (int64_t)lseek(fd, 0, SEEK_CUR);
}

/* Receives to the end, and checks that it is the file from an offset on. */
typedef struct sink {
    pysock *s;
    uint64_t from;
    int64_t have;
    int64_t stop; /* > 0: after so many bytes it closes its socket */
    double stall; /* > 0: seconds without reading, twice */
    t_thread t;
} sink;

static void *sink_thread(void *arg) {
    sink *k = arg;
    unsigned char *buf = malloc(65536);
    int64_t next_stall = 0;
    int stalls = k->stall > 0 ? 2 : 0;
    T_CHECK(buf != NULL);
    for (;;) {
        ptrdiff_t n;
        if (stalls && k->have >= next_stall) {
            t_nap(k->stall);
            next_stall = k->have + BIG / 4;
            stalls--;
        }
        n = T_OK(pysock_recv(k->s, buf, 65536, 0));
        if (n == 0)
            break;
        t_verify(buf, (size_t)n, k->from + (uint64_t)k->have, SEED);
        k->have += n;
        if (k->stop > 0 && k->have >= k->stop) {
            T_OK(pysock_close(k->s));
            break;
        }
    }
    free(buf);
    return NULL;
}

static void sink_start(sink *k, pysock *s, int64_t from) {
    memset(k, 0, sizeof *k);
    k->s = s;
    k->from = (uint64_t)from;
    t_spawn(&k->t, sink_thread, k);
}

/* ---- what is sent, and what is refused ---- */

T_TEST(sendfile_sends_what_is_asked_for, T_SCALE(120, 240)) {
    static const struct {
        int64_t at, offset, count; /* at: where the file stands before */
        int64_t from, sent;
    } cases[] = {{0, 0, -1, 0, BIG},
                 {0, -1, -1, 0, BIG},
                 {0, 5000, -1, 5000, BIG - 5000},
                 {0, 0, 5000007, 0, 5000007},
                 {99, 0, 1, 0, 1},
                 {0, 2007, 100007, 2007, 100007},
                 {4321, -1, 1000, 4321, 1000},
                 {4321, -1, -1, 4321, BIG - 4321},
                 {4321, -1, 16384, 4321, 16384},
                 {0, 0, BIG + 1000, 0, BIG},
                 {0, BIG - 3, 100, BIG - 3, 3},
                 {0, 0, INT64_MAX, 0, BIG},
                 {0, BIG, -1, BIG, 0},
                 {0, BIG + 5, 10, BIG + 5, 0},
                 {BIG, -1, -1, BIG, 0}};
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            pysock *pair[2];
            int fd;
            sink k;
            if ((kind % TLS == TCP6 && i > 5) || !open_pair(kind, pair))
                continue;
            T_STEP("%s, case %zu", kind_names[kind], i);
            T_OK(pysock_settimeout(pair[0], i & 1 ? 60 : PYSOCK_NO_TIMEOUT));
            fd = open_big(O_RDONLY);
            T_EQ(lseek(fd, cases[i].at, SEEK_SET), cases[i].at);
            sink_start(&k, pair[1], cases[i].from);
            T_EQ(pysock_sendfile(pair[0], fd, cases[i].offset, cases[i].count), cases[i].sent);
            if (cases[i].sent)
                T_EQ(position(fd), cases[i].from + cases[i].sent);
            T_OK(pysock_close(pair[0]));
            t_join(&k.t);
            T_EQ(k.have, cases[i].sent);
            T_OK(pysock_close(pair[1]));
            close(fd);
        }
}

T_TEST(sendfile_of_an_empty_file_sends_nothing, 30) {
    for (int kind = 0; kind < KINDS; kind++) {
        char path[] = "/tmp/pysock-test-XXXXXX";
        pysock *pair[2];
        int fd;
        if (!open_pair(kind, pair))
            continue;
        fd = mkstemp(path);
        T_CHECK(fd >= 0);
        T_EQ(unlink(path), 0);
        T_EQ(pysock_sendfile(pair[0], fd, 0, -1), 0);
        T_EQ(pysock_sendfile(pair[0], fd, -1, -1), 0);
        T_EQ(pysock_sendfile(pair[0], fd, -1, 10), 0);
        T_EQ(position(fd), 0);
        t_say(pair[0], "still here");
        t_expect(pair[1], "still here");
        close(fd);
        t_close_pair(pair);
    }
}

/* What lies behind four GiB is reached, without reading what is before. */
T_TEST(sendfile_counts_in_64_bits, 30) {
    static const int64_t far = INT64_C(5000000001);
    for (size_t k = 0; k < FEW_KINDS; k++) {
        char path[] = "/tmp/pysock-test-XXXXXX";
        pysock *pair[2];
        int fd = mkstemp(path);
        T_CHECK(fd >= 0);
        T_EQ(unlink(path), 0);
        if (pwrite(fd, "far away", 8, far) != 8) {
            print_message("no sparse files in /tmp: skipped\n");
            close(fd);
            skip();
        }
        T_CHECK(open_pair(few_kinds[k], pair));
        T_EQ(pysock_sendfile(pair[0], fd, far, -1), 8);
        t_expect(pair[1], "far away");
        T_EQ(position(fd), far + 8);
        T_EQ(lseek(fd, far + 4, SEEK_SET), far + 4);
        T_EQ(pysock_sendfile(pair[0], fd, -1, 3), 3);
        t_expect(pair[1], "awa");
        T_EQ(position(fd), far + 7);
        close(fd);
        t_close_pair(pair);
    }
}

T_TEST(sendfile_refuses_what_it_cannot_send, 60) {
    int fd, dir, null, bad, fds[2];
    fd = open_big(O_RDONLY);
    dir = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    T_CHECK(dir >= 0 && null >= 0);
    T_EQ(pipe(fds), 0);
    T_EQ(write(fds[1], "in the pipe", 11), 11);
    for (int kind = 0; kind < KINDS; kind++) {
        pysock *pair[2];
        if (!open_pair(kind, pair))
            continue;
        T_STEP("%s, counts", kind_names[kind]);
        T_FAILS(pysock_sendfile(pair[0], fd, 0, 0), PYSOCK_VALUE_ERROR, EINVAL);
        T_STEP("%s, not a regular file", kind_names[kind]);
        T_FAILS(pysock_sendfile(pair[0], fds[0], 0, -1), PYSOCK_VALUE_ERROR, EINVAL);
        T_FAILS(pysock_sendfile(pair[0], fds[0], -1, 5), PYSOCK_VALUE_ERROR, EINVAL);
        T_FAILS(pysock_sendfile(pair[0], dir, 0, -1), PYSOCK_VALUE_ERROR, EINVAL);
        T_FAILS(pysock_sendfile(pair[0], null, 0, -1), PYSOCK_VALUE_ERROR, EINVAL);
        T_FAILS(pysock_sendfile(pair[0], pysock_fileno(pair[0]), 0, -1), PYSOCK_VALUE_ERROR,
                EINVAL);
        T_STEP("%s, not a descriptor", kind_names[kind]);
        T_FAILS(pysock_sendfile(pair[0], -1, 0, -1), T_ANY, T_ANY);
        bad = open_big(O_RDONLY);
        close(bad);
        T_FAILS(pysock_sendfile(pair[0], bad, 0, -1), PYSOCK_OS_ERROR, EBADF);
        T_STEP("%s, not readable", kind_names[kind]);
        bad = open_big(O_WRONLY);
        T_FAILS(pysock_sendfile(pair[0], bad, 0, -1), PYSOCK_OS_ERROR, EBADF);
        close(bad);
        T_STEP("%s, non-blocking", kind_names[kind]);
        T_OK(pysock_setblocking(pair[0], 0));
        T_FAILS(pysock_sendfile(pair[0], fd, 0, -1), PYSOCK_VALUE_ERROR, EINVAL);
        T_EQ(position(fd), 0);
        T_OK(pysock_setblocking(pair[0], 1));
        T_STEP("%s, nothing of it was sent", kind_names[kind]);
        t_say(pair[0], "next");
        t_expect(pair[1], "next");
        t_close_pair(pair);
        T_FAILS(pysock_sendfile(pair[0], fd, 0, -1), PYSOCK_OS_ERROR, EBADF);
    }
    T_FAILS(pysock_sendfile(NULL, fd, 0, -1), PYSOCK_VALUE_ERROR, EINVAL);
    T_EQ(position(fd), 0);
    close(fds[0]);
    close(fds[1]);
    close(null);
    close(dir);
    close(fd);
}

T_TEST(sendfile_wants_a_connected_stream, 30) {
    pysock *s, *pair[2];
    int fd, port;
    fd = open_big(O_RDONLY);
    s = T_OK(pysock_socket(AF_INET, SOCK_DGRAM, 0));
    T_OK(pysock_connect(s, "127.0.0.1", 9));
    T_FAILS(pysock_sendfile(s, fd, 0, 100), PYSOCK_VALUE_ERROR, EINVAL);
    T_OK(pysock_close(s));
    T_OK(pysock_socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
    T_FAILS(pysock_sendfile(pair[0], fd, 0, 100), PYSOCK_VALUE_ERROR, EINVAL);
    t_close_pair(pair);
    T_STEP("not connected");
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_FAILS(pysock_sendfile(s, fd, 0, 100), PYSOCK_OS_ERROR, T_ANY);
    T_OK(pysock_close(s));
    s = t_listen(&port);
    T_FAILS(pysock_sendfile(s, fd, 0, 100), PYSOCK_OS_ERROR, T_ANY);
    T_OK(pysock_close(s));
    T_STEP("shut down");
    t_pair(pair);
    T_OK(pysock_shutdown(pair[0], SHUT_WR));
    T_FAILS(pysock_sendfile(pair[0], fd, 0, 100), PYSOCK_OS_ERROR, EPIPE);
    t_close_pair(pair);
    T_EQ(position(fd), 0);
    close(fd);
}

/* ---- timeouts ---- */

/* The position of the file tells how much was sent, no more and no less. */
T_TEST(a_sendfile_that_times_out_leaves_the_file_behind_what_was_sent, 60) {
    for (int kind = 0; kind < KINDS; kind++)
        for (int64_t offset = 0; offset < 10000; offset += 9999) {
            pysock *pair[2];
            int fd;
            int64_t sent;
            double start;
            sink k;
            if (!open_pair(kind, pair))
                continue;
            T_OK(pysock_settimeout(pair[0], 0.1));
            fd = open_big(O_RDONLY);
            start = t_now();
            T_FAILS(pysock_sendfile(pair[0], fd, offset, -1), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
            T_CHECK(t_now() - start >= 0.099);
            sent = position(fd) - offset;
            T_CHECK(sent > 0 && sent < BIG - offset);
            sink_start(&k, pair[1], offset);
            T_OK(pysock_close(pair[0]));
            t_join(&k.t);
            T_EQ(k.have, sent);
            T_OK(pysock_close(pair[1]));
            close(fd);
        }
}

/* Two stalls, each shorter than the timeout, both together longer. */
T_TEST(the_timeout_of_sendfile_is_for_each_wait, 60) {
    for (int kind = TCP; kind <= TLS; kind += TLS - TCP) {
        pysock *pair[2];
        int fd;
        double start;
        sink k;
        T_CHECK(open_pair(kind, pair));
        T_OK(pysock_settimeout(pair[0], 3));
        fd = open_big(O_RDONLY);
        memset(&k, 0, sizeof k);
        k.s = pair[1];
        k.stall = 1.7;
        start = t_now();
        t_spawn(&k.t, sink_thread, &k);
        T_EQ(pysock_sendfile(pair[0], fd, 0, -1), BIG);
        T_CHECK(t_now() - start > 3.1);
        T_OK(pysock_close(pair[0]));
        t_join(&k.t);
        T_EQ(k.have, BIG);
        T_OK(pysock_close(pair[1]));
        close(fd);
    }
}

/* ---- peers that are gone ---- */

static int sigpipe_is_pending(void) {
    sigset_t set;
    T_EQ(sigpending(&set), 0);
    return sigismember(&set, SIGPIPE);
}

static int sigpipe_is_blocked(void) {
    sigset_t set;
    T_EQ(pthread_sigmask(SIG_SETMASK, NULL, &set), 0);
    return sigismember(&set, SIGPIPE);
}

/* In a child, whose end by a signal is seen: a peer that is gone already, whoever looks after
   SIGPIPE. */
static void send_to_nobody(void *arg) {
    int how = *(int *)arg;
    struct sigaction action;
    sigset_t set;
    memset(&action, 0, sizeof action);
    action.sa_handler = SIG_DFL;
    T_EQ(sigaction(SIGPIPE, &action, NULL), 0);
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    if (how > 0)
        T_EQ(pthread_sigmask(SIG_BLOCK, &set, NULL), 0);
    if (how > 1)
        raise(SIGPIPE);
    for (int i = 0; i < 4; i++) {
        pysock *pair[2];
        int fd = open_big(O_RDONLY);
        if (i & 1)
            T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
        else
            t_pair(pair);
        T_OK(pysock_settimeout(pair[0], i & 2 ? 60 : PYSOCK_NO_TIMEOUT));
        t_say(pair[0], "never read");
        T_OK(pysock_close(pair[1]));
        T_EQ(pysock_sendfile(pair[0], fd, 0, -1), -1);
        T_CHECK(errno == EPIPE || errno == ECONNRESET);
        T_EQ(pysock_error(), PYSOCK_OS_ERROR);
        T_CHECK(position(fd) < BIG);
        T_EQ(pysock_sendfile(pair[0], fd, 0, 100), -1);
        T_EQ(errno, EPIPE);
        T_EQ(sigpipe_is_pending(), how > 1);
        T_EQ(sigpipe_is_blocked(), how > 0);
        T_OK(pysock_close(pair[0]));
        close(fd);
    }
}

T_TEST(sendfile_to_a_dead_peer_fails_without_a_signal, 60) {
    for (int how = 0; how < 3; how++) {
        T_STEP("SIGPIPE %s", how == 0 ? "at its default" : how == 1 ? "blocked" : "pending");
        t_wait_for_child(t_run_in_child(send_to_nobody, &how, 0));
    }
}

T_TEST(a_peer_that_vanishes_ends_sendfile, 60) {
    for (int kind = 0; kind < KINDS; kind++) {
        pysock *pair[2];
        int fd;
        int64_t rc;
        sink k;
        if (!open_pair(kind, pair))
            continue;
        fd = open_big(O_RDONLY);
        memset(&k, 0, sizeof k);
        k.s = pair[1];
        k.stop = 100000;
        t_spawn(&k.t, sink_thread, &k);
        errno = 0;
        rc = pysock_sendfile(pair[0], fd, 0, -1);
        t_join(&k.t);
        T_EQ(rc, -1);
        if (kind < TLS)
            T_EQ(pysock_error(), PYSOCK_OS_ERROR);
        T_CHECK(pysock_error_message()[0]);
        T_CHECK(position(fd) >= 100000 && position(fd) < BIG);
        T_EQ(sigpipe_is_pending(), 0);
        T_OK(pysock_close(pair[0]));
        close(fd);
    }
}

/* ---- close, cleanup, signals ---- */

typedef struct sendfile_job {
    pysock *s;
    int fd;
    int64_t offset, result;
    int code;
    pysock_error_kind kind;
    int done; /* atomic */
    t_thread t;
} sendfile_job;

static void *sendfile_thread(void *arg) {
    sendfile_job *j = arg;
    j->result = pysock_sendfile(j->s, j->fd, j->offset, -1);
    j->code = errno;
    j->kind = pysock_error();
    __atomic_store_n(&j->done, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void sendfile_start(sendfile_job *j, pysock *s, int64_t offset) {
    memset(j, 0, sizeof *j);
    j->s = s;
    j->fd = open_big(O_RDONLY);
    j->offset = offset;
    t_spawn(&j->t, sendfile_thread, j);
}

T_TEST(close_and_cleanup_end_a_sendfile_that_waits, T_SCALE(60, 120)) {
    static const double timeouts[] = {PYSOCK_NO_TIMEOUT, 60};
    for (int cleanup = 0; cleanup < 2; cleanup++)
        for (int kind = 0; kind < KINDS; kind++)
            for (int timed = 0; timed < 2; timed++) {
                pysock *pair[2];
                sendfile_job j;
                if (!open_pair(kind, pair))
                    continue;
                T_STEP("%s by %s, timeout %g", kind_names[kind], cleanup ? "cleanup" : "close",
                       timeouts[timed]);
                T_OK(pysock_settimeout(pair[0], timeouts[timed]));
                sendfile_start(&j, pair[0], 0);
                t_wait_asleep(&j.t);
                if (cleanup)
                    pysock_cleanup();
                else
                    T_OK(pysock_close(pair[0]));
                t_join(&j.t);
                T_EQ(j.result, -1);
                T_EQ(j.kind, PYSOCK_OS_ERROR);
                T_EQ(j.code, cleanup ? ESHUTDOWN : EBADF);
                T_CHECK(position(j.fd) > 0 && position(j.fd) < BIG);
                T_EQ(sigpipe_is_pending(), 0);
                close(j.fd);
                t_close_pair(pair);
            }
}

T_TEST(an_interrupted_sendfile_can_be_continued, T_SCALE(60, 120)) {
    static const double timeouts[] = {PYSOCK_NO_TIMEOUT, 60};
    let_signals_interrupt();
    for (int kind = 0; kind < KINDS; kind++)
        for (int timed = 0; timed < 2; timed++) {
            pysock *pair[2];
            sendfile_job j;
            sink k;
            int64_t sent;
            if (!open_pair(kind, pair))
                continue;
            T_STEP("%s, timeout %g", kind_names[kind], timeouts[timed]);
            T_OK(pysock_settimeout(pair[0], timeouts[timed]));
            sendfile_start(&j, pair[0], 77);
            t_wait_asleep(&j.t);
            interrupt_until(&j.t, &j.done);
            t_join(&j.t);
            T_EQ(j.result, -1);
            T_EQ(j.kind, PYSOCK_OS_ERROR);
            T_EQ(j.code, EINTR);
            sent = position(j.fd) - 77;
            T_CHECK(sent > 0 && sent < BIG - 77);
            sink_start(&k, pair[1], 77);
            T_EQ(pysock_sendfile(pair[0], j.fd, -1, -1), BIG - 77 - sent);
            T_EQ(position(j.fd), BIG);
            T_OK(pysock_close(pair[0]));
            t_join(&k.t);
            T_EQ(k.have, BIG - 77);
            T_OK(pysock_close(pair[1]));
            close(j.fd);
        }
    pysock_set_interrupt_hook(NULL, NULL);
}

/* A signal that nobody minds ends nothing. */
T_TEST(a_signal_without_a_say_does_not_end_sendfile, 60) {
    let_signals_interrupt();
    __atomic_store_n(&hook_answer, 0, __ATOMIC_RELEASE);
    for (size_t i = 0; i < FEW_KINDS; i++) {
        pysock *pair[2];
        sendfile_job j;
        sink k;
        T_CHECK(open_pair(few_kinds[i], pair));
        sendfile_start(&j, pair[0], 0);
        t_wait_asleep(&j.t);
        for (int n = 0; n < 10; n++) {
            T_EQ(pthread_kill(j.t.id, SIGUSR1), 0);
            t_nap(0.002);
        }
        sink_start(&k, pair[1], 0);
        interrupt_until(&j.t, &j.done);
        t_join(&j.t);
        T_EQ(j.result, BIG);
        T_OK(pysock_close(pair[0]));
        t_join(&k.t);
        T_EQ(k.have, BIG);
        T_OK(pysock_close(pair[1]));
        close(j.fd);
    }
    pysock_set_interrupt_hook(NULL, NULL);
}

/* ---- beside other calls ---- */

/* One direction does not hold up the other. */
T_TEST(a_sendfile_that_waits_does_not_hold_up_a_recv, 60) {
    static const double timeouts[] = {PYSOCK_NO_TIMEOUT, 60};
    for (int kind = 0; kind < KINDS; kind++)
        for (int timed = 0; timed < 2; timed++) {
            pysock *pair[2];
            sendfile_job j;
            sink k;
            if (!open_pair(kind, pair))
                continue;
            T_STEP("%s, timeout %g", kind_names[kind], timeouts[timed]);
            T_OK(pysock_settimeout(pair[0], timeouts[timed]));
            sendfile_start(&j, pair[0], 0);
            t_wait_asleep(&j.t);
            for (int i = 0; i < 3; i++) {
                t_say(pair[1], "slower!");
                t_expect(pair[0], "slower!");
            }
            T_EQ(__atomic_load_n(&j.done, __ATOMIC_ACQUIRE), 0);
            sink_start(&k, pair[1], 0);
            t_join(&j.t);
            T_EQ(j.result, BIG);
            T_OK(pysock_close(pair[0]));
            t_join(&k.t);
            T_EQ(k.have, BIG);
            T_OK(pysock_close(pair[1]));
            close(j.fd);
        }
}

T_TEST(sendfile_does_the_handshake_first, 30) {
    pysock *pair[2];
    sendfile_job j;
    unsigned char first[100];
    t_pair(pair);
    t_wrap_later(pair[0], client_ctx, "localhost");
    t_wrap_later(pair[1], server_ctx, NULL);
    sendfile_start(&j, pair[0], BIG - 100);
    t_recv_exactly(pair[1], first, 100);
    t_join(&j.t);
    T_EQ(j.result, 100);
    t_verify(first, 100, (uint64_t)BIG - 100, SEED);
    close(j.fd);
    t_close_pair(pair);
}

/* The first of the file is queued by pysock_send_buf(), the rest sent from the file, and a last
   word behind it. */
T_TEST(sendfile_does_not_overtake_what_is_queued, T_SCALE(60, 120)) {
    static const double timeouts[] = {PYSOCK_NO_TIMEOUT, 60};
    enum { QUEUED = 8 * 1024 * 1024 + 11 };
    for (int kind = 0; kind < KINDS; kind++)
        for (int timed = 0; timed < 2; timed++) {
            pysock *pair[2];
            pysock_buf *b;
            int fd;
            sink k;
            if (!open_pair(kind, pair))
                continue;
            fd = open_big(O_RDONLY);
            b = T_OK(pysock_buf_new(QUEUED));
            T_EQ(pread(fd, pysock_buf_data(b), QUEUED, 0), QUEUED);
            T_OK(pysock_setblocking(pair[0], 0));
            T_OK(pysock_send_buf(pair[0], b));
            pysock_buf_release(b);
            T_CHECK(pysock_queued(pair[0]) > 0);
            T_OK(pysock_settimeout(pair[0], timeouts[timed]));
            sink_start(&k, pair[1], 0);
            T_EQ(pysock_sendfile(pair[0], fd, QUEUED, BIG - QUEUED - 4), BIG - QUEUED - 4);
            T_OK(pysock_sendall(pair[0], t_bytes((uint64_t)BIG - 4, SEED), 4, 0));
            T_OK(pysock_close(pair[0]));
            t_join(&k.t);
            T_EQ(k.have, BIG);
            T_OK(pysock_close(pair[1]));
            close(fd);
        }
}

T_MAIN(.setup = make_big_file, .teardown = close_big_file)
