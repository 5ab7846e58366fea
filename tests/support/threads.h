/* Threads, and whether they sleep. */
#ifndef TESTS_SUPPORT_THREADS_H
#define TESTS_SUPPORT_THREADS_H

#include "support/checks.h"

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

T_FUNC void t_sem_take(sem_t *sem) {
    while (sem_wait(sem) != 0)
        T_EQ(errno, EINTR);
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
    /* clang-format off */
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
    /* clang-format on */
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

#endif
