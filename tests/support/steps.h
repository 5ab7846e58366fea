/* A handshake that stands still in the middle of a step: the server's engine is in the hands of the
   reactor, which waits in the sni_callback. */
#ifndef TESTS_SUPPORT_STEPS_H
#define TESTS_SUPPORT_STEPS_H

#include "support/contexts.h"

static sem_t in_step, step_may_end;

T_FUNC int stop_in_the_step(void *arg, const pysock_ssl_client_hello *hello) {
    (void)hello, (void)arg;
    sem_post(&in_step);
    t_sem_take(&step_may_end);
    return 0;
}

T_FUNC void *client_thread(void *arg) {
    T_OK(pysock_ssl_wrap_socket(arg, client_ctx, "localhost"));
    return NULL;
}

/* Returns when the server, pair[1], is in the step; t is the client's. */
T_FUNC void stop_a_handshake(pysock *pair[2], pysock_ssl_context *ctx, t_thread *t) {
    T_EQ(sem_init(&in_step, 0, 0), 0);
    T_EQ(sem_init(&step_may_end, 0, 0), 0);
    T_OK(pysock_ssl_set_sni_callback(ctx, stop_in_the_step, NULL));
    t_pair(pair);
    T_OK(pysock_settimeout(pair[0], 50));
    T_OK(pysock_setblocking(pair[1], 0));
    T_OK(pysock_ssl_wrap_socket(pair[1], ctx, NULL));
    t_spawn(t, client_thread, pair[0]);
    t_sem_take(&in_step);
}

T_FUNC void let_it_go(void) {
    sem_post(&step_may_end);
}

#endif
