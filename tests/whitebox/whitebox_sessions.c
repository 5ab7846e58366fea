/* Sessions that are too old, or of other rules: nobody waits two hours for them here. */
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#include "support/contexts.h"
#include "support/handshake.h"

/* Connects and closes again, and says whether a session was resumed; the two sides' sessions. */
static int connect_once(pysock_ssl_session *at[2]) {
    h_pair p;
    int reused;
    h_connect(&p, client_ctx, server_ctx, "localhost");
    reused = pysock_ssl_session_reused(p.client);
    T_EQ(pysock_ssl_session_reused(p.server), reused);
    at[0] = T_OK(pysock_ssl_get_session(p.client));
    at[1] = T_OK(pysock_ssl_get_session(p.server));
    h_close(&p);
    return reused;
}

static void forget(pysock_ssl_session *at[2]) {
    pysock_ssl_session_release(at[0]);
    pysock_ssl_session_release(at[1]);
}

/* side: 0 the client, 1 the server. */
static int resumes_after(int side, int64_t seconds) {
    pysock_ssl_session *at[2], *again[2];
    int reused;
    T_OK(pysock_ssl_set_session_cache(client_ctx, 0)); /* forgets what there is */
    T_OK(pysock_ssl_set_session_cache(server_ctx, 0));
    T_OK(pysock_ssl_set_session_cache(client_ctx, 8));
    T_OK(pysock_ssl_set_session_cache(server_ctx, 8));
    T_EQ(connect_once(at), 0);
    at[side]->time -= seconds;
    reused = connect_once(again);
    forget(at);
    forget(again);
    return reused;
}

T_TEST(a_session_lasts_two_hours, 60) {
    for (int side = 0; side < 2; side++) {
        pysock_ssl_context *ctx = side ? server_ctx : client_ctx;
        uint64_t before;
        T_STEP("%s", side ? "the server's" : "the client's");
        T_EQ(resumes_after(side, 0), 1);
        T_EQ(resumes_after(side, 7100), 1);
        before = h_stats_of(ctx).timeouts;
        T_EQ(resumes_after(side, 7300), 0);
        T_EQ(h_stats_of(ctx).timeouts, before + 1);
        T_STEP("the clock was put back");
        T_EQ(resumes_after(side, -7300), 0);
    }
}

T_TEST(a_session_that_is_given_lasts_no_longer, 60) {
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    pysock_ssl_session *at[2];
    h_pair p;
    options.server_hostname = "localhost";
    connect_once(at);
    options.session = at[0];
    h_connect_ex(&p, client_ctx, server_ctx, &options);
    T_EQ(pysock_ssl_session_reused(p.client), 1);
    h_close(&p);
    T_OK(pysock_ssl_set_session_cache(client_ctx, 0));
    at[0]->time -= 7300;
    h_connect_ex(&p, client_ctx, server_ctx, &options);
    T_EQ(pysock_ssl_session_reused(p.client), 0);
    h_close(&p);
    forget(at);
}

/* A server's connection that began under other rules than those the session was made by. */
T_TEST(a_session_of_other_rules_is_not_resumed, 60) {
    pysock_ssl_session *at[2], *again[2];
    T_OK(pysock_ssl_set_session_cache(client_ctx, 8));
    connect_once(at);
    at[1]->epoch--;
    T_EQ(connect_once(again), 0);
    forget(again);
    forget(at);
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts)
