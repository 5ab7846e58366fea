/* A watchdog for every case. It is a process of its own, started before the first test has threads:
   it needs nothing of the process that hangs, not even a working signal handler. */
#ifndef TESTS_SUPPORT_WATCHDOG_H
#define TESTS_SUPPORT_WATCHDOG_H

#include "support/base.h"

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
    setvbuf(stdout, NULL, _IOLBF, 0);            /* an abort must not swallow which test it was */
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

__attribute__((format(printf, 2, 3), unused)) static void t_step(int line, const char *format,
                                                                 ...) {
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

#endif
