/* What all the tests share: a watchdog, checks that print the library's own message, threads,
   connected pairs, raw peers and a pattern for bulk data. Include it before anything else. */
#ifndef TESTS_SUPPORT_H
#define TESTS_SUPPORT_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#ifndef _FILE_OFFSET_BITS
#define _FILE_OFFSET_BITS 64 /* as tests/pysock_impl.c */
#endif

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pysock.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define T_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define T_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) && !defined(T_ASAN)
#define T_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__) && !defined(T_TSAN)
#define T_TSAN 1
#endif
#ifndef T_ASAN
#define T_ASAN 0
#endif
#ifndef T_TSAN
#define T_TSAN 0
#endif
#define T_SANITIZED (T_ASAN || T_TSAN)

#if T_TSAN
/* glibc keeps the resolver configurations of all threads in one array, which grows under a lock
   that ThreadSanitizer does not see: it is no pthread_mutex_t. ThreadSanitizer itself leaves
   getaddrinfo out of its reports, but neither gethostbyname2_r nor gethostbyaddr_r: the growing
   frame is left out here. The case in tests/test_names.c that needs it is
   many_threads_that_look_hosts_up_live_at_once. pysock__pset_knows asks the kernel whether a number
   that the program gave is a poller's set; whose number that is meanwhile is the program's affair,
   but ThreadSanitizer takes the question for a use of what another thread has just opened. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void) {
    return "race:__libc_dynarray_emplace_enlarge\nrace:pysock__pset_knows\n";
}
#endif

/* Built with an implementation that takes the system for macOS: see tests/macos_like.h. */
#ifndef T_MACOS_LIKE
#define T_MACOS_LIKE 0
#endif

/* Whether the descriptor of a socket with this timeout has O_NONBLOCK. */
#define T_HAS_O_NONBLOCK(timeout) ((timeout) >= 0 || T_MACOS_LIKE)

/* The number for a plain build, and the one for builds that run many times slower. */
#define T_SCALE(plain, sanitized) (T_SANITIZED ? (sanitized) : (plain))

#define T_FUNC static __attribute__((unused))

/* ---- watchdog ----
   A process of its own, started before the first test has threads: it needs nothing of the process
   that hangs, not even a working signal handler. */

#define T_STEPS 6

typedef struct t_watchdog {
    double deadline; /* CLOCK_MONOTONIC; 0 while no test runs */
    char test[128];
    unsigned int next;
    char step[T_STEPS][192];
} t_watchdog;

static t_watchdog *t_watch;
static pthread_t t_main_thread;
static int t_live_threads;
static int t_is_child; /* in a process made by t_run_in_child() */
static pthread_mutex_t t_step_lock = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction t_crash_action[4];
static const int t_crash_signal[4] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};

T_FUNC double t_now(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* CPU seconds of the calling thread. */
T_FUNC double t_thread_cpu(void) {
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* CPU seconds of all threads of the process. */
T_FUNC double t_process_cpu(void) {
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* Only for waiting on what has no event, in a loop with the watchdog as its bound. */
T_FUNC void t_nap(double seconds) {
    struct timespec ts;
    ts.tv_sec = (time_t)seconds;
    ts.tv_nsec = (long)((seconds - (double)ts.tv_sec) * 1e9);
    nanosleep(&ts, NULL);
}

T_FUNC void t_learn_calls(void);

T_FUNC void t_print_stacks(pid_t victim) {
    char text[32];
    pid_t child;
    if (getenv("T_NO_STACKS")) /* tools/mutants.sh: nobody reads them */
        return;
    child = fork();
    if (child == 0) {
        snprintf(text, sizeof text, "%ld", (long)victim);
        execlp("gdb", "gdb", "-q", "-nx", "-batch", "-p", text, "-ex", "thread apply all bt 16",
               (char *)NULL);
        _exit(127);
    }
    for (int i = 0; child > 0 && i < 300; i++) {
        if (waitpid(child, NULL, WNOHANG) == child)
            return;
        t_nap(0.1);
    }
    if (child > 0)
        kill(child, SIGKILL);
}

T_FUNC void t_watch_process(pid_t victim) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGINT, SIG_IGN);
    for (;;) {
        double deadline;
        t_nap(0.2);
        if (getppid() != victim)
            _exit(0);
        __atomic_load(&t_watch->deadline, &deadline, __ATOMIC_ACQUIRE);
        if (deadline == 0 || t_now() < deadline)
            continue;
        fprintf(stderr, "\n*** %s did not finish in time; its last steps:\n", t_watch->test);
        for (unsigned int i = 0; i < T_STEPS; i++) {
            const char *step = t_watch->step[(t_watch->next + i) % T_STEPS];
            if (step[0])
                fprintf(stderr, "***   %s\n", step);
        }
        t_print_stacks(victim);
        kill(victim, SIGABRT);
        t_nap(5);
        kill(victim, SIGKILL);
        _exit(1);
    }
}

/* cmocka leaves a crashed test by longjmp, on whatever thread it was; the sanitizers' reports and
   core files are worth more. */
__attribute__((constructor)) static void t_before_main(void) {
    for (int i = 0; i < 4; i++)
        sigaction(t_crash_signal[i], NULL, &t_crash_action[i]);
    setvbuf(stdout, NULL, _IOLBF, 0); /* an abort must not swallow which test it was */
    if (getenv("T_ONLY") && getenv("T_ONLY")[0]) /* cases by name; "*" and "?" stand for any */
        cmocka_set_test_filter(getenv("T_ONLY"));
}

T_FUNC void t_watch_start(void) {
    pid_t self = getpid();
    t_watch = mmap(NULL, sizeof *t_watch, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                   0);
    if (t_watch == MAP_FAILED)
        abort();
    t_main_thread = pthread_self();
    fflush(NULL);
    if (fork() == 0)
        t_watch_process(self);
    t_learn_calls();
}

/* Aborts the program, printing the test, its last steps and every stack, when the test is not over
   after so many seconds. The next test's deadline replaces it. T_TEST calls it. */
T_FUNC void t_deadline_at(const char *test, double seconds) {
    double at = t_now() + seconds;
    if (!t_watch)
        t_watch_start();
    for (int i = 0; i < 4; i++)
        sigaction(t_crash_signal[i], &t_crash_action[i], NULL);
    pthread_mutex_lock(&t_step_lock);
    snprintf(t_watch->test, sizeof t_watch->test, "%s", test);
    memset(t_watch->step, 0, sizeof t_watch->step);
    pthread_mutex_unlock(&t_step_lock);
    __atomic_store(&t_watch->deadline, &at, __ATOMIC_RELEASE);
}

/* Where the test is, printf-like; the last few are printed when it hangs. Any thread. */
#define T_STEP(...) t_step(__LINE__, __VA_ARGS__)

__attribute__((format(printf, 2, 3), unused)) static void
t_step(int line, const char *format, ...) {
    va_list args;
    char text[160];
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (!t_watch)
        t_watch_start();
    pthread_mutex_lock(&t_step_lock);
    snprintf(t_watch->step[t_watch->next], sizeof t_watch->step[0], "line %d: %s", line, text);
    t_watch->next = (t_watch->next + 1) % T_STEPS;
    pthread_mutex_unlock(&t_step_lock);
}

/* ---- checks ----
   cmocka's own asserts longjmp and are for the test's thread only. These may be used on any; while
   other threads run, whose stacks a longjmp would pull away, they abort the program. */

__attribute__((format(printf, 3, 4), noreturn, unused)) static void
t_fail_at(const char *file, int line, const char *format, ...) {
    va_list args;
    fprintf(stderr, "*** %s: %s:%d: ", t_watch ? t_watch->test : "?", file, line);
    if (t_watch && t_watch->step[(t_watch->next + T_STEPS - 1) % T_STEPS][0])
        fprintf(stderr, "[%s] ", t_watch->step[(t_watch->next + T_STEPS - 1) % T_STEPS]);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    if (t_is_child)
        _exit(99);
    if (!t_watch || !pthread_equal(pthread_self(), t_main_thread) ||
        __atomic_load_n(&t_live_threads, __ATOMIC_ACQUIRE) > 0) {
        fprintf(stderr, "*** other threads are running: no further test can be trusted\n");
        abort();
    }
    _fail(file, line);
    abort();
}

#define T_FAIL(...) t_fail_at(__FILE__, __LINE__, __VA_ARGS__)

/* A condition, with the error of the library should it matter. */
#define T_CHECK(condition)                                                                         \
    ((condition) ? (void)0                                                                         \
                 : t_fail_at(__FILE__, __LINE__, "%s is false (last error: %s)", #condition,       \
                             pysock_error_message()))

T_FUNC void t_equal_at(const char *file, int line, const char *text, long long have,
                       long long want) {
    if (have != want)
        t_fail_at(file, line, "%s is %lld, not %lld (last error: %s)", text, have, want,
                  pysock_error_message());
}

#define T_EQ(have, want)                                                                           \
    t_equal_at(__FILE__, __LINE__, #have, (long long)(have), (long long)(want))

T_FUNC intptr_t t_ok_at(intptr_t value, int is_pointer, const char *text, const char *file,
                        int line) {
    if (is_pointer ? value == 0 : value < 0)
        t_fail_at(file, line, "%s failed: %s [%s, %s, errno %d]", text, pysock_error_message(),
                  pysock_error_name(), pysock_error_reason(), errno);
    return value;
}

#define T_IS_POINTER(expr) (__builtin_classify_type(expr) == 5)

/* The value of expr, which must not be negative (a pointer: NULL). */
#define T_OK(expr)                                                                                 \
    __extension__({                                                                                \
        (__typeof__(expr)) t_ok_at((intptr_t)(expr), T_IS_POINTER(expr), #expr, __FILE__,          \
                                   __LINE__);                                                      \
    })

#define T_ANY (-1)

T_FUNC void t_fails_at(intptr_t value, int is_pointer, int code, int kind, int want,
                       const char *text, const char *file, int line) {
    if (is_pointer ? value != 0 : value != -1)
        t_fail_at(file, line, "%s gave %lld, but should have failed", text, (long long)value);
    if (kind != T_ANY && (int)pysock_error() != kind)
        t_fail_at(file, line, "%s failed with kind %d (%s: %s), not %d", text, (int)pysock_error(),
                  pysock_error_name(), pysock_error_message(), kind);
    if (want != T_ANY && code != want)
        t_fail_at(file, line, "%s failed with errno %d (%s), not %d (%s): %s", text, code,
                  strerror(code), want, strerror(want), pysock_error_message());
    if (pysock_error() == PYSOCK_NO_ERROR || code == 0 || !pysock_error_message()[0] ||
        !pysock_error_name()[0] || !pysock_error_reason()[0])
        t_fail_at(file, line, "%s failed without saying why (kind %d, errno %d, '%s', '%s', '%s')",
                  text, (int)pysock_error(), code, pysock_error_name(), pysock_error_reason(),
                  pysock_error_message());
}

/* expr must fail (-1 or NULL) with this kind and errno (either may be T_ANY) and a message. */
#define T_FAILS(expr, kind, want)                                                                  \
    __extension__({                                                                                \
        intptr_t t_value;                                                                          \
        pysock_error_clear();                                                                      \
        errno = 0;                                                                                 \
        t_value = (intptr_t)(expr);                                                                \
        t_fails_at(t_value, T_IS_POINTER(expr), errno, (int)(kind), want, #expr, __FILE__,         \
                   __LINE__);                                                                      \
    })

/* ---- threads ---- */

typedef struct t_thread {
    pthread_t id;
    pid_t tid; /* atomic; 0 until it runs */
    void *(*run)(void *arg);
    void *arg;
} t_thread;

T_FUNC void *t_thread_main(void *arg) {
    t_thread *t = arg;
    __atomic_store_n(&t->tid, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
    return t->run(t->arg);
}

T_FUNC void t_spawn(t_thread *t, void *(*run)(void *arg), void *arg) {
    t->tid = 0;
    t->run = run;
    t->arg = arg;
    __atomic_add_fetch(&t_live_threads, 1, __ATOMIC_ACQ_REL);
    if (pthread_create(&t->id, NULL, t_thread_main, t) != 0)
        T_FAIL("no thread");
}

T_FUNC void *t_join(t_thread *t) {
    void *result = NULL;
    if (pthread_join(t->id, &result) != 0)
        T_FAIL("pthread_join");
    __atomic_sub_fetch(&t_live_threads, 1, __ATOMIC_ACQ_REL);
    return result;
}

/* The number of the system call that a thread of this process is in; -1: it runs. */
T_FUNC long t_call_of(pid_t tid) {
    char path[64], text[64];
    long call = -1;
    FILE *f;
    snprintf(path, sizeof path, "/proc/self/task/%ld/syscall", (long)tid);
    f = fopen(path, "r");
    if (f) {
        if (fgets(text, sizeof text, f) && text[0] >= '0' && text[0] <= '9')
            call = strtol(text, NULL, 10);
        fclose(f);
    }
    return call;
}

T_FUNC int t_is_sleeping_call(long call) {
    static const long calls[] = {SYS_recvfrom, SYS_recvmsg, SYS_read,  SYS_accept4,
                                 SYS_ppoll,    SYS_sendto,  SYS_write, SYS_epoll_pwait,
                                 SYS_sendmsg,  SYS_connect, SYS_sendfile,
/* What not every processor has. */
#ifdef SYS_accept
                                 SYS_accept,
#endif
#ifdef SYS_poll
                                 SYS_poll,
#endif
#ifdef SYS_ppoll_time64
                                 SYS_ppoll_time64,
#endif
#ifdef SYS_epoll_wait
                                 SYS_epoll_wait,
#endif
#ifdef SYS_select
                                 SYS_select,
#endif
#ifdef SYS__newselect
                                 SYS__newselect,
#endif
#ifdef SYS_pselect6
                                 SYS_pselect6,
#endif
#ifdef SYS_pselect6_time64
                                 SYS_pselect6_time64,
#endif
#ifdef SYS_recv
                                 SYS_recv,
#endif
#ifdef SYS_send
                                 SYS_send,
#endif
#ifdef SYS_sendfile64
                                 SYS_sendfile64,
#endif
#ifdef SYS_socketcall
                                 SYS_socketcall,
#endif
    };
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++)
        if (calls[i] == call)
            return 1;
    return 0;
}

/* An emulator's threads are seen in the calls of the machine that it runs on, whose numbers mean
   nothing here. What a thread is in that waits for a mutex, and one that naps, is found out then:
   all others wait for descriptors. */

typedef enum t_sleep_kind { T_SLEEP_READ, T_SLEEP_MUTEX, T_SLEEP_NAP } t_sleep_kind;

typedef struct t_sleeper {
    t_sleep_kind kind;
    pid_t tid; /* atomic */
    int over;  /* atomic */
    int fds[2];
    pthread_mutex_t lock;
} t_sleeper;

static int t_is_emulated;
static long t_mutex_call, t_nap_call;

T_FUNC void *t_sleeper_thread(void *arg) {
    t_sleeper *s = arg;
    char byte;
    __atomic_store_n(&s->tid, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
    switch (s->kind) {
    case T_SLEEP_READ:
        while (read(s->fds[0], &byte, 1) < 0 && errno == EINTR)
            ;
        break;
    case T_SLEEP_MUTEX:
        pthread_mutex_lock(&s->lock);
        pthread_mutex_unlock(&s->lock);
        break;
    case T_SLEEP_NAP:
        while (!__atomic_load_n(&s->over, __ATOMIC_ACQUIRE))
            t_nap(0.02);
        break;
    }
    return NULL;
}

/* The call that a thread is seen in which sleeps so; -1 where that cannot be seen. */
T_FUNC long t_learn_call(t_sleep_kind kind) {
    t_sleeper s = {kind, 0, 0, {-1, -1}, PTHREAD_MUTEX_INITIALIZER};
    pthread_t id;
    long call = -1;
    int seen = 0;
    if (pipe(s.fds) != 0)
        abort();
    pthread_mutex_lock(&s.lock);
    if (pthread_create(&id, NULL, t_sleeper_thread, &s) != 0)
        abort();
    for (int i = 0; seen < 3 && i < 5000; i++) {
        pid_t tid = __atomic_load_n(&s.tid, __ATOMIC_ACQUIRE);
        long now = tid ? t_call_of(tid) : -1;
        seen = now >= 0 && now == call ? seen + 1 : 0;
        call = now;
        t_nap(0.001);
    }
    __atomic_store_n(&s.over, 1, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&s.lock);
    close(s.fds[1]);
    pthread_join(id, NULL);
    close(s.fds[0]);
    return seen == 3 ? call : -1;
}

T_FUNC void t_learn_calls(void) {
    t_is_emulated = t_learn_call(T_SLEEP_READ) != SYS_read;
    if (!t_is_emulated)
        return;
    t_mutex_call = t_learn_call(T_SLEEP_MUTEX);
    t_nap_call = t_learn_call(T_SLEEP_NAP);
}

/* Waits until the thread sleeps in a system call that waits for a descriptor (not in a mutex), and
   was still there when looked at again. */
T_FUNC void t_wait_asleep(t_thread *t) {
    int seen = 0;
    while (seen < 3) {
        long call = t_call_of(__atomic_load_n(&t->tid, __ATOMIC_ACQUIRE));
        int sleeps = t_is_emulated ? call >= 0 && call != t_mutex_call && call != t_nap_call
                                   : t_is_sleeping_call(call);
        seen = sleeps ? seen + 1 : 0;
        t_nap(0.002);
    }
}

T_FUNC int t_count_dir(const char *path) {
    int n = 0;
    DIR *d = opendir(path);
    if (!d)
        return -1;
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

T_FUNC int t_count_threads(void) {
    return t_count_dir("/proc/self/task");
}

T_FUNC int t_count_fds(void) {
    return t_count_dir("/proc/self/fd") - 1; /* without the one that reads the directory */
}

/* ---- the machine ---- */

/* 1 if there is an IPv6 loopback; says so, once, if there is none. */
T_FUNC int t_has_ipv6(void) {
    static int told;
    struct sockaddr_in6 in6;
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int ok;
    memset(&in6, 0, sizeof in6);
    in6.sin6_family = AF_INET6;
    in6.sin6_addr = in6addr_loopback;
    ok = fd >= 0 && bind(fd, (struct sockaddr *)&in6, sizeof in6) == 0;
    if (fd >= 0)
        close(fd);
    if (!ok && !told++)
        print_message("this machine has no IPv6 loopback: skipped\n");
    return ok;
}

/* ---- child processes ---- */

/* Runs fn in a forked child, which ends by exit(), atexit handlers included, or by _exit(). */
T_FUNC pid_t t_run_in_child(void (*fn)(void *arg), void *arg, int by_exit) {
    pid_t pid;
    fflush(NULL);
    pid = fork();
    if (pid < 0)
        T_FAIL("fork: %s", strerror(errno));
    if (pid > 0)
        return pid;
    t_is_child = 1;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    fn(arg);
    if (by_exit)
        exit(0);
    _exit(0);
}

T_FUNC void t_wait_for_child(pid_t pid) {
    int status = 0;
    pid_t done;
    do
        done = waitpid(pid, &status, 0);
    while (done < 0 && errno == EINTR);
    if (done != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        T_FAIL("the child ended with status 0x%x", (unsigned int)status);
}

/* ---- contexts and pairs ---- */

#define T_CERTS "tests/certs/"

/* A client that trusts the test CA and checks host names. */
T_FUNC pysock_ssl_context *t_client_ctx(void) {
    pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    T_OK(pysock_ssl_load_verify_locations(ctx, T_CERTS "ca.pem", NULL));
    return ctx;
}

/* A server with the certificate of that name, such as "server-ec". */
T_FUNC pysock_ssl_context *t_server_ctx_of(const char *name) {
    char cert[256], key[256];
    pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
    snprintf(cert, sizeof cert, T_CERTS "%s.pem", name);
    snprintf(key, sizeof key, T_CERTS "%s.key", name);
    T_OK(pysock_ssl_load_cert_chain(ctx, cert, key));
    return ctx;
}

T_FUNC pysock_ssl_context *t_server_ctx(void) {
    return t_server_ctx_of("server-ec");
}

T_FUNC pysock_addr t_addr_of(pysock *s) {
    pysock_addr addr;
    T_OK(pysock_getsockname(s, &addr));
    return addr;
}

T_FUNC int t_port_of(pysock *s) {
    pysock_addr addr = t_addr_of(s);
    return pysock_addr_port(&addr);
}

/* A server socket on 127.0.0.1; its port in *port. */
T_FUNC pysock *t_listen(int *port) {
    pysock *s = T_OK(pysock_create_server("127.0.0.1", 0, 64));
    *port = t_port_of(s);
    T_CHECK(*port > 0);
    return s;
}

/* A stream socket with timeout 0. */
T_FUNC pysock *t_nonblocking_socket(int family) {
    pysock *s = T_OK(pysock_socket(family, SOCK_STREAM, 0));
    T_OK(pysock_setblocking(s, 0));
    return s;
}

/* A connected pair over TCP: [0] connected, [1] accepted; both plain and blocking. */
T_FUNC void t_pair(pysock *pair[2]) {
    int port;
    pysock *listener = t_listen(&port);
    pair[0] = T_OK(pysock_create_connection("127.0.0.1", port, 30.0));
    T_OK(pysock_settimeout(pair[0], PYSOCK_NO_TIMEOUT));
    pair[1] = T_OK(pysock_accept(listener, NULL));
    T_OK(pysock_close(listener));
}

T_FUNC void *t_handshake_thread(void *arg) {
    T_EQ(pysock_ssl_do_handshake(arg), 0);
    return NULL;
}

T_FUNC pysock_poller *t_poller_with(int fd, short events) {
    pysock_poller *p = T_OK(pysock_poller_new());
    T_OK(pysock_poller_register(p, fd, events));
    return p;
}

/* Wraps a connected socket and leaves the handshake to whatever comes next. */
T_FUNC void t_wrap_later(pysock *s, pysock_ssl_context *ctx, const char *host) {
    pysock_ssl_wrap_options options;
    memset(&options, 0, sizeof options);
    options.no_handshake_on_connect = 1;
    options.server_hostname = host;
    T_OK(pysock_ssl_wrap_socket_ex(s, ctx, &options));
}

/* Puts TLS around a connected blocking pair: [0] is the client. Both handshakes run in callers, so
   that nothing here needs the reactor. */
T_FUNC void t_wrap_pair(pysock *pair[2], pysock_ssl_context *client, pysock_ssl_context *server) {
    t_thread t;
    t_wrap_later(pair[1], server, NULL);
    t_spawn(&t, t_handshake_thread, pair[1]);
    T_OK(pysock_ssl_wrap_socket(pair[0], client, "localhost"));
    t_join(&t);
}

/* A connected TLS pair over TCP, both blocking, handshakes done. */
T_FUNC void t_tls_pair(pysock *pair[2], pysock_ssl_context *client, pysock_ssl_context *server) {
    t_pair(pair);
    t_wrap_pair(pair, client, server);
}

/* The same over a Unix socketpair: always the same peer by name and port, so that all but the first
   handshakes between two contexts resume a session. */
T_FUNC void t_tls_local_pair(pysock *pair[2], pysock_ssl_context *client,
                             pysock_ssl_context *server) {
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    t_wrap_pair(pair, client, server);
}

T_FUNC void t_close_pair(pysock *pair[2]) {
    T_OK(pysock_close(pair[0]));
    T_OK(pysock_close(pair[1]));
}

/* ---- waiting on a socket ---- */

/* 1 if select says so at once, or within the timeout. */
T_FUNC int t_readable(pysock *s, double timeout) {
    int fd = T_OK(pysock_fileno(s));
    size_t n = 1;
    return T_OK(pysock_select(&fd, &n, NULL, NULL, NULL, NULL, timeout)) == 1;
}

T_FUNC int t_writable(pysock *s, double timeout) {
    int fd = T_OK(pysock_fileno(s));
    size_t n = 1;
    return T_OK(pysock_select(NULL, NULL, &fd, &n, NULL, NULL, timeout)) == 1;
}

/* Exactly size bytes, on a socket of any mode. */
T_FUNC void t_recv_exactly(pysock *s, void *buf, size_t size) {
    size_t have = 0;
    while (have < size) {
        ptrdiff_t n = pysock_recv(s, (char *)buf + have, size - have, 0);
        if (n < 0 && errno == EAGAIN) {
            t_readable(s, PYSOCK_NO_TIMEOUT);
            continue;
        }
        if (T_OK(n) == 0)
            T_FAIL("the stream ended after %zu of %zu bytes", have, size);
        have += (size_t)n;
    }
}

/* The text arrives as it is, nothing less. */
T_FUNC void t_expect(pysock *s, const char *text) {
    char buf[256];
    size_t n = strlen(text);
    T_CHECK(n < sizeof buf);
    t_recv_exactly(s, buf, n);
    buf[n] = 0;
    if (memcmp(buf, text, n) != 0)
        T_FAIL("received '%s', not '%s'", buf, text);
}

T_FUNC void t_say(pysock *s, const char *text) {
    T_OK(pysock_sendall(s, text, strlen(text), 0));
}

/* ---- raw peers: plain descriptors that the library knows nothing of ---- */

/* A blocking TCP listener on 127.0.0.1. */
T_FUNC int t_raw_listen(int *port) {
    struct sockaddr_in in;
    socklen_t len = sizeof in;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memset(&in, 0, sizeof in);
    in.sin_family = AF_INET;
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (struct sockaddr *)&in, sizeof in) != 0 || listen(fd, 64) != 0 ||
        getsockname(fd, (struct sockaddr *)&in, &len) != 0)
        T_FAIL("raw listener: %s", strerror(errno));
    *port = ntohs(in.sin_port);
    return fd;
}

T_FUNC int t_raw_accept(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        T_FAIL("raw accept: %s", strerror(errno));
    return fd;
}

T_FUNC int t_raw_connect(int port) {
    struct sockaddr_in in;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memset(&in, 0, sizeof in);
    in.sin_family = AF_INET;
    in.sin_port = htons((uint16_t)port);
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&in, sizeof in) != 0)
        T_FAIL("raw connect: %s", strerror(errno));
    return fd;
}

/* A port on 127.0.0.1 where nobody listens, and nobody can while *fd is open. */
T_FUNC int t_deaf_port(int *fd) {
    struct sockaddr_in in;
    socklen_t len = sizeof in;
    memset(&in, 0, sizeof in);
    in.sin_family = AF_INET;
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    *fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (*fd < 0 || bind(*fd, (struct sockaddr *)&in, sizeof in) != 0 ||
        getsockname(*fd, (struct sockaddr *)&in, &len) != 0)
        T_FAIL("raw socket: %s", strerror(errno));
    return ntohs(in.sin_port);
}

/* A port whose listener has a full queue: the kernel drops further attempts, so that a connect is
   under way for as long as one likes. fds[0] listens, fds[1] fills. */
T_FUNC int t_silent_port(int fds[2]) {
    int port = t_deaf_port(&fds[0]);
    if (listen(fds[0], 0) != 0)
        T_FAIL("raw listen: %s", strerror(errno));
    fds[1] = t_raw_connect(port);
    return port;
}

/* Reads until size bytes are there or the stream ends; returns how many. */
T_FUNC size_t t_raw_read(int fd, void *buf, size_t size) {
    size_t have = 0;
    while (have < size) {
        ssize_t n = recv(fd, (char *)buf + have, size - have, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        have += (size_t)n;
    }
    return have;
}

T_FUNC void t_raw_write(int fd, const void *data, size_t size) {
    size_t done = 0;
    while (done < size) {
        ssize_t n = send(fd, (const char *)data + done, size - done, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            T_FAIL("raw write: %s", strerror(errno));
        done += (size_t)n;
    }
}

/* Makes the kernel send RST on the connection behind fd, without closing fd. */
T_FUNC void t_raw_reset(int fd) {
    struct sockaddr none;
    memset(&none, 0, sizeof none);
    none.sa_family = AF_UNSPEC;
    if (connect(fd, &none, sizeof none) != 0)
        T_FAIL("raw reset: %s", strerror(errno));
}

/* ---- calls that wait, each on a thread of its own, for a close or a cleanup to end them ---- */

/* As much as no kernel takes at once. */
#define T_FLOOD (48u * 1024 * 1024)

T_FUNC char *t_flood(void) {
    static char *bytes;
    if (!bytes) {
        bytes = mmap(NULL, T_FLOOD, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        T_CHECK(bytes != MAP_FAILED);
    }
    return bytes;
}

typedef enum t_wait_kind {
    T_WAIT_RECV,
    T_WAIT_ACCEPT,
    T_WAIT_CONNECT,
    T_WAIT_HANDSHAKE,
    T_WAIT_SENDALL,
    T_WAIT_SEND_BUF,
    T_WAIT_UNWRAP,
    T_WAIT_SELECT,
    T_WAIT_POLLER
} t_wait_kind;

typedef struct t_waiter {
    t_wait_kind what;
    pysock *s;
    int port; /* of a connect */
    pysock_poller *p;
    intptr_t result;
    int code;
    pysock_error_kind kind;
    pysock_pollevent event;
} t_waiter;

T_FUNC intptr_t t_send_bufs_until_it_fails(pysock *s) {
    pysock_buf *b = T_OK(pysock_buf_new(1024 * 1024));
    int rc;
    do
        rc = pysock_send_buf(s, b);
    while (rc == 0);
    pysock_buf_release(b); /* leaves the error, and errno is read from it */
    errno = pysock_error_code();
    return rc;
}

T_FUNC void *t_wait_thread(void *arg) {
    t_waiter *w = arg;
    char byte;
    int fd;
    size_t n = 1;
    switch (w->what) {
    case T_WAIT_RECV: w->result = pysock_recv(w->s, &byte, 1, 0); break;
    case T_WAIT_ACCEPT: w->result = pysock_accept(w->s, NULL) ? 0 : -1; break;
    case T_WAIT_CONNECT: w->result = pysock_connect(w->s, "127.0.0.1", w->port); break;
    case T_WAIT_HANDSHAKE: w->result = pysock_ssl_do_handshake(w->s); break;
    case T_WAIT_SENDALL: w->result = pysock_sendall(w->s, t_flood(), T_FLOOD, 0); break;
    case T_WAIT_SEND_BUF: w->result = t_send_bufs_until_it_fails(w->s); break;
    case T_WAIT_UNWRAP: w->result = pysock_ssl_unwrap(w->s); break;
    case T_WAIT_SELECT:
        fd = pysock_fileno(w->s);
        w->result = pysock_select(&fd, &n, NULL, NULL, NULL, NULL, PYSOCK_NO_TIMEOUT);
        break;
    case T_WAIT_POLLER:
        w->result = pysock_poller_poll(w->p, &w->event, 1, PYSOCK_NO_TIMEOUT);
        break;
    }
    w->code = errno;
    w->kind = pysock_error();
    return NULL;
}

/* A socket on which such a wait sleeps, and what belongs to it. */
typedef struct t_stage {
    t_waiter w;
    pysock *peer;
    int fds[2];
} t_stage;

T_FUNC void t_stage_set(t_stage *st, t_wait_kind what, int tls, double timeout,
                        pysock_ssl_context *client, pysock_ssl_context *server) {
    pysock *pair[2];
    memset(st, 0, sizeof *st);
    st->w.what = what;
    st->fds[0] = st->fds[1] = -1;
    if (what == T_WAIT_ACCEPT) {
        st->w.s = t_listen(&st->w.port);
        if (tls)
            T_OK(pysock_ssl_wrap_socket(st->w.s, server, NULL));
    }
    else if (what == T_WAIT_CONNECT) {
        st->w.port = t_silent_port(st->fds);
        st->w.s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
        if (tls)
            T_OK(pysock_ssl_wrap_socket(st->w.s, client, "localhost"));
    }
    else {
        if (tls && what != T_WAIT_HANDSHAKE)
            t_tls_pair(pair, client, server);
        else
            t_pair(pair);
        st->w.s = pair[0];
        st->peer = pair[1];
        if (what == T_WAIT_HANDSHAKE)
            t_wrap_later(st->w.s, client, "localhost");
    }
    T_OK(pysock_settimeout(st->w.s, timeout));
    if (what == T_WAIT_POLLER)
        st->w.p = t_poller_with(pysock_fileno(st->w.s), POLLIN);
}

T_FUNC void t_stage_clear(t_stage *st) {
    T_OK(pysock_close(st->w.s));
    T_OK(pysock_close(st->peer));
    pysock_poller_free(st->w.p);
    for (int i = 0; i < 2; i++)
        if (st->fds[i] >= 0)
            close(st->fds[i]);
}

/* ---- a peer in the middle ----
   A TLS pair whose bytes go through two raw descriptors. Once the handshake is over the test itself
   carries the records, whole, in halves, or not at all. */

typedef struct t_proxy {
    int to_client; /* what is written here arrives at pair[0] */
    int to_server; /* and here at pair[1] */
    int stop[2];
} t_proxy;

T_FUNC int t_forward(int from, int to) {
    char buf[4096];
    ssize_t n = recv(from, buf, sizeof buf, MSG_DONTWAIT);
    if (n > 0)
        t_raw_write(to, buf, (size_t)n);
    return n > 0;
}

T_FUNC void *t_proxy_thread(void *arg) {
    t_proxy *p = arg;
    for (;;) {
        struct pollfd fds[3] = {
            {p->to_client, POLLIN, 0}, {p->to_server, POLLIN, 0}, {p->stop[0], POLLIN, 0}};
        if (poll(fds, 3, -1) < 0)
            continue;
        if (fds[0].revents && !t_forward(p->to_client, p->to_server))
            return NULL;
        if (fds[1].revents && !t_forward(p->to_server, p->to_client))
            return NULL;
        if (fds[2].revents)
            return NULL;
    }
}

/* A connected TLS pair with p in the middle, which has stopped forwarding when this returns. */
T_FUNC void t_tls_pair_by_proxy(pysock *pair[2], t_proxy *p, pysock_ssl_context *client,
                                pysock_ssl_context *server) {
    t_thread t;
    int raw_port, port;
    int raw = t_raw_listen(&raw_port);
    pysock *listener = t_listen(&port);
    pair[0] = T_OK(pysock_create_connection("127.0.0.1", raw_port, PYSOCK_NO_TIMEOUT));
    p->to_client = t_raw_accept(raw);
    p->to_server = t_raw_connect(port);
    pair[1] = T_OK(pysock_accept(listener, NULL));
    T_EQ(pipe(p->stop), 0);
    t_spawn(&t, t_proxy_thread, p);
    t_wrap_pair(pair, client, server);
    T_EQ(write(p->stop[1], "", 1), 1);
    t_join(&t);
    close(raw);
    T_OK(pysock_close(listener));
}

T_FUNC void t_proxy_close(t_proxy *p) {
    close(p->to_client);
    close(p->to_server);
    close(p->stop[0]);
    close(p->stop[1]);
}

#define T_RECORD (5 + 16384 + 2048)

/* One whole TLS record from a raw descriptor; returns its length, header included. */
T_FUNC size_t t_raw_record(int fd, unsigned char record[T_RECORD]) {
    size_t n;
    T_EQ(t_raw_read(fd, record, 5), 5);
    n = ((size_t)record[3] << 8) | record[4];
    T_CHECK(n + 5 <= T_RECORD);
    T_EQ(t_raw_read(fd, record + 5, n), n);
    return n + 5;
}

/* ---- bulk data ---- */

#define T_PATTERN 65521 /* prime: a shifted, repeated or swapped piece does not look right */

static unsigned char t_pattern[2 * T_PATTERN];
static pthread_once_t t_pattern_once = PTHREAD_ONCE_INIT;

T_FUNC void t_pattern_make(void) {
    uint32_t x = 2463534242u;
    for (size_t i = 0; i < T_PATTERN; i++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        t_pattern[i] = t_pattern[i + T_PATTERN] = (unsigned char)(x >> 11);
    }
}

/* Up to T_PATTERN bytes of stream number seed, from an offset on. */
T_FUNC const unsigned char *t_bytes(uint64_t offset, unsigned int seed) {
    pthread_once(&t_pattern_once, t_pattern_make);
    return t_pattern + (offset + (uint64_t)seed * 7919u) % T_PATTERN;
}

T_FUNC void t_fill(unsigned char *buf, size_t size, uint64_t offset, unsigned int seed) {
    for (size_t done = 0; done < size;) {
        size_t n = size - done < T_PATTERN ? size - done : T_PATTERN;
        memcpy(buf + done, t_bytes(offset + done, seed), n);
        done += n;
    }
}

T_FUNC void t_verify(const unsigned char *buf, size_t size, uint64_t offset, unsigned int seed) {
    for (size_t done = 0; done < size;) {
        size_t n = size - done < 1024 ? size - done : 1024;
        if (memcmp(buf + done, t_bytes(offset + done, seed), n) != 0)
            T_FAIL("wrong bytes in stream %u near offset %llu", seed,
                   (unsigned long long)(offset + done));
        done += n;
    }
}

/* ---- cases ---- */

#define T_MOST_CASES 512

typedef struct t_case {
    int place; /* they run in the order in which they are defined */
    struct CMUnitTest test;
} t_case;

static t_case t_cases[T_MOST_CASES];
static size_t t_case_count;

/* Constructors run in any order. */
T_FUNC void t_add(int place, struct CMUnitTest test) {
    size_t at = t_case_count++;
    if (at == T_MOST_CASES)
        abort();
    for (; at > 0 && t_cases[at - 1].place > place; at--)
        t_cases[at] = t_cases[at - 1];
    t_cases[at].place = place;
    t_cases[at].test = test;
}

/* T_TEST(name, seconds) { ... } is a case of the program. When it is not over after so many
   seconds, the program is aborted; see t_deadline_at. */
#define T_TEST(name, seconds) T_TEST_WITH(name, seconds, NULL, NULL)

/* The same with fixtures of its own, in place of the program's .each_setup and .each_teardown. */
#define T_TEST_WITH(name, seconds, setup, teardown)                                                \
    static void name(void);                                                                        \
    static void t_run_##name(void **state) {                                                       \
        (void)state;                                                                               \
        t_deadline_at(#name, seconds);                                                             \
        name();                                                                                    \
    }                                                                                              \
    __attribute__((constructor)) static void t_add_##name(void) {                                  \
        struct CMUnitTest test = {#name, t_run_##name, setup, teardown, NULL};                     \
        t_add(__COUNTER__, test);                                                                  \
    }                                                                                              \
    static void name(void)

typedef struct t_program {
    const char *file;
    CMFixtureFunction setup, teardown;           /* before the first case, after the last */
    CMFixtureFunction each_setup, each_teardown; /* around every case without its own */
    int (*as_child)(int argc, char **argv);      /* -1: it was not started by one of its cases */
} t_program;

T_FUNC int t_main(const t_program *p, int argc, char **argv) {
    static struct CMUnitTest tests[T_MOST_CASES];
    const char *slash = strrchr(p->file, '/');
    int status = p->as_child ? p->as_child(argc, argv) : -1;
    if (status >= 0)
        return status;
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    for (size_t i = 0; i < t_case_count; i++) {
        tests[i] = t_cases[i].test;
        if (!tests[i].setup_func && !tests[i].teardown_func) {
            tests[i].setup_func = p->each_setup;
            tests[i].teardown_func = p->each_teardown;
        }
    }
    return _cmocka_run_group_tests(slash ? slash + 1 : p->file, tests, t_case_count, p->setup,
                                   p->teardown);
}

/* Runs all cases; a command-line argument such as '*select*' chooses among them. What is given are
   fields of t_program: T_MAIN(.setup = make_contexts, .teardown = free_contexts) */
#define T_MAIN(...)                                                                                \
    int main(int argc, char **argv) {                                                              \
        static const t_program t_this = {.file = __BASE_FILE__, __VA_ARGS__};                      \
        return t_main(&t_this, argc, argv);                                                        \
    }

#endif
