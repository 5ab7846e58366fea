/* Hooks and signal handlers that many programs set. */
#ifndef TESTS_SUPPORT_HOOKS_H
#define TESTS_SUPPORT_HOOKS_H

#include "support/checks.h"

/* An interrupt hook: the int at arg, which is atomic, says whether a wait ends. */
T_FUNC int t_interrupt_hook(void *arg) {
    return __atomic_load_n((int *)arg, __ATOMIC_ACQUIRE);
}

T_FUNC void t_on_signal(int number) {
    (void)number;
}

/* From now on the signal ends system calls with EINTR. */
T_FUNC void t_catch_signal(int number) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = t_on_signal; /* without SA_RESTART */
    T_EQ(sigaction(number, &action, NULL), 0);
}

/* An audit hook by which the library gets no thread. */
T_FUNC int t_deny_threads(void *arg, const pysock_audit_event *event) {
    (void)arg;
    return strcmp(event->name, "pysock.thread") == 0;
}

#endif
