/* A client's and a server's context that trust each other, for all tests of a program. */
#ifndef TESTS_SUPPORT_CONTEXTS_H
#define TESTS_SUPPORT_CONTEXTS_H

#include "support/support.h"

static pysock_ssl_context *client_ctx, *server_ctx;

T_FUNC int make_contexts(void **state) {
    (void)state;
    client_ctx = t_client_ctx();
    server_ctx = t_server_ctx();
    return 0;
}

/* Names that nobody knows are given up at once, even where the name server is gone. */
T_FUNC int make_contexts_and_a_short_wait(void **state) {
    setenv("RES_OPTIONS", "timeout:1 attempts:1", 1);
    return make_contexts(state);
}

T_FUNC int free_contexts(void **state) {
    (void)state;
    pysock_ssl_context_release(client_ctx);
    pysock_ssl_context_release(server_ctx);
    return 0;
}

T_FUNC void plain_or_tls_pair(pysock *pair[2], int tls) {
    if (tls)
        t_tls_pair(pair, client_ctx, server_ctx);
    else
        t_pair(pair);
}

T_FUNC void work_a_little(void) {
    pysock *pair[2];
    t_pair(pair);
    t_echo_once(pair[0], pair[1]);
    t_close_pair(pair);
    t_nonblocking_tls_pair(pair, client_ctx, server_ctx);
    t_echo_once(pair[0], pair[1]);
    t_close_pair(pair);
}

#endif
