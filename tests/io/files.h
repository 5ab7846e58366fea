/* Connected pairs of every kind, and signals that end their waits. */
#ifndef TESTS_IO_FILES_H
#define TESTS_IO_FILES_H

#include "support/contexts.h"

enum { TCP, TCP6, LOCAL, TLS, TLS6, TLS_LOCAL, KINDS };

static const char *const kind_names[KINDS] = {"TCP", "TCP over IPv6", "Unix",
                                              "TLS", "TLS over IPv6", "TLS over Unix"};

/* Those that differ by more than the address. */
static const int few_kinds[] = {TCP, LOCAL, TLS};
#define FEW_KINDS (sizeof few_kinds / sizeof few_kinds[0])

T_FUNC void open_ipv6_pair(pysock *pair[2]) {
    pysock *listener = T_OK(pysock_create_server("::1", 0, 5));
    pysock_addr addr;
    T_OK(pysock_getsockname(listener, &addr));
    pair[0] = T_OK(pysock_create_connection("::1", pysock_addr_port(&addr), PYSOCK_NO_TIMEOUT));
    pair[1] = T_OK(pysock_accept(listener, NULL));
    T_OK(pysock_close(listener));
}

/* A connected blocking pair; 0 where the machine cannot make one. What is sent goes at once, so
   that a moment's silence means something. */
T_FUNC int open_pair(int kind, pysock *pair[2]) {
    static int told;
    if (kind % TLS == TCP6 && !t_has_ipv6()) {
        if (!told++)
            print_message("this machine has no IPv6 loopback: those pairs are skipped\n");
        return 0;
    }
    T_STEP("%s", kind_names[kind]);
    if (kind % TLS == TCP)
        t_pair(pair);
    else if (kind % TLS == TCP6)
        open_ipv6_pair(pair);
    else
        T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    for (int i = 0; i < 2 && kind % TLS != LOCAL; i++)
        T_OK(pysock_setsockopt_int(pair[i], IPPROTO_TCP, TCP_NODELAY, 1));
    if (kind >= TLS)
        t_wrap_pair(pair, client_ctx, server_ctx);
    return 1;
}

/* Nothing has come within a moment, and nothing will by itself. */
T_FUNC void expect_silence(pysock *s) {
    T_EQ(t_readable(s, 0.02), 0);
}

static int hook_answer;

/* From now on SIGUSR1 ends waits with EINTR. */
T_FUNC void let_signals_interrupt(void) {
    t_catch_signal(SIGUSR1);
    __atomic_store_n(&hook_answer, 1, __ATOMIC_RELEASE);
    pysock_set_interrupt_hook(t_interrupt_hook, &hook_answer);
}

T_FUNC void interrupt_until(t_thread *t, int *done) {
    while (!__atomic_load_n(done, __ATOMIC_ACQUIRE)) {
        T_EQ(pthread_kill(t->id, SIGUSR1), 0);
        t_nap(0.005);
    }
}

static const size_t odd_sizes[] = {1, 4093, 17, 16385, 3, 127, 8192, 1021, 40009, 16384, 8193};
#define ODD_SIZES (sizeof odd_sizes / sizeof odd_sizes[0])

#endif
