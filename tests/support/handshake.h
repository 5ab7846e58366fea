/* Handshakes between two sockets of the library that may fail, and what each side said about it. */
#ifndef TESTS_SUPPORT_HANDSHAKE_H
#define TESTS_SUPPORT_HANDSHAKE_H

#include "support/support.h"

#define H_TIMEOUT T_SCALE(20.0, 60.0)

/* The result of a call and, if it failed, the calling thread's error. */
typedef struct h_outcome {
    int result;
    int error_number; /* errno */
    pysock_error_kind kind;
    int verify_code;
    char name[64];
    char reason[96];
    char message[1024];
    char verify_message[192];
} h_outcome;

typedef struct h_pair {
    pysock *client, *server; /* NULL: its handshake failed, and it is closed */
    h_outcome at_client, at_server;
    pysock_ssl_context *server_ctx;
} h_pair;

T_FUNC h_outcome h_outcome_of(int result) {
    h_outcome o;
    int saved = errno;
    memset(&o, 0, sizeof o);
    o.result = result;
    if (result >= 0)
        return o;
    o.error_number = saved;
    o.kind = pysock_error();
    o.verify_code = pysock_error_verify_code();
    snprintf(o.name, sizeof o.name, "%s", pysock_error_name());
    snprintf(o.reason, sizeof o.reason, "%s", pysock_error_reason());
    snprintf(o.message, sizeof o.message, "%s", pysock_error_message());
    snprintf(o.verify_message, sizeof o.verify_message, "%s", pysock_error_verify_message());
    return o;
}

T_FUNC void *h_serve(void *arg) {
    h_pair *p = arg;
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    options.no_handshake_on_connect = 1;
    p->at_server = h_outcome_of(pysock_ssl_wrap_socket_ex(p->server, p->server_ctx, &options));
    if (p->at_server.result == 0)
        p->at_server = h_outcome_of(pysock_ssl_do_handshake(p->server));
    if (p->at_server.result == 0)
        return NULL;
    pysock_close(p->server);
    p->server = NULL;
    return NULL;
}

/* A handshake on a connected plain pair (pair[0] is the client), both sides blocking with a
   timeout, each in a thread of its own. A side that fails is closed, as a program would, so that
   the other cannot wait for it. */
T_FUNC void h_try_on(h_pair *p, pysock *pair[2], pysock_ssl_context *client,
                     pysock_ssl_context *server, const pysock_ssl_wrap_options *options) {
    t_thread thread;
    memset(p, 0, sizeof *p);
    T_OK(pysock_settimeout(pair[0], H_TIMEOUT));
    T_OK(pysock_settimeout(pair[1], H_TIMEOUT));
    p->client = pair[0];
    p->server = pair[1];
    p->server_ctx = server;
    t_spawn(&thread, h_serve, p);
    p->at_client = h_outcome_of(pysock_ssl_wrap_socket_ex(p->client, client, options));
    if (p->at_client.result < 0) {
        pysock_close(p->client);
        p->client = NULL;
    }
    t_join(&thread);
}

/* A plain connected pair over TCP. The port is always the same: it is part of what a session is
   remembered by. Thread-safe. */
T_FUNC void h_plain_pair(pysock *pair[2]) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static pysock *listener;
    static int port;
    pthread_mutex_lock(&lock);
    if (!listener)
        listener = t_listen(&port);
    pair[0] = T_OK(pysock_create_connection("127.0.0.1", port, H_TIMEOUT));
    pair[1] = T_OK(pysock_accept(listener, NULL));
    pthread_mutex_unlock(&lock);
}

T_FUNC void h_try_ex(h_pair *p, pysock_ssl_context *client, pysock_ssl_context *server,
                     const pysock_ssl_wrap_options *options) {
    pysock *pair[2];
    h_plain_pair(pair);
    h_try_on(p, pair, client, server, options);
}

T_FUNC void h_try(h_pair *p, pysock_ssl_context *client, pysock_ssl_context *server,
                  const char *host) {
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    options.server_hostname = host;
    h_try_ex(p, client, server, &options);
}

T_FUNC void h_close(h_pair *p) {
    T_OK(pysock_close(p->client));
    T_OK(pysock_close(p->server));
    p->client = p->server = NULL;
}

T_FUNC void h_must_be_connected(const h_pair *p, const char *host) {
    if (p->at_client.result < 0 || p->at_server.result < 0)
        T_FAIL("handshake for %s failed: client '%s', server '%s'", host ? host : "no host",
               p->at_client.message, p->at_server.message);
}

/* Both sides must be happy. */
T_FUNC void h_connect(h_pair *p, pysock_ssl_context *client, pysock_ssl_context *server,
                      const char *host) {
    h_try(p, client, server, host);
    h_must_be_connected(p, host);
}

T_FUNC void h_connect_ex(h_pair *p, pysock_ssl_context *client, pysock_ssl_context *server,
                         const pysock_ssl_wrap_options *options) {
    h_try_ex(p, client, server, options);
    h_must_be_connected(p, options->server_hostname);
}

/* A few bytes each way. */
T_FUNC void h_greet(h_pair *p) {
    t_say(p->client, "hello");
    t_expect(p->server, "hello");
    t_say(p->server, "good day");
    t_expect(p->client, "good day");
}

T_FUNC int h_contains(const char *text, const char *part) {
    return strcasestr(text, part) != NULL;
}

/* The text, without regard to case, must be part of what was said. */
#define H_CONTAINS(text, part)                                                                     \
    do {                                                                                           \
        const char *h_text = (text);                                                               \
        if (!h_contains(h_text, part))                                                             \
            T_FAIL("'%s' does not contain '%s'", h_text, part);                                    \
    } while (0)

#define H_SAME(have, want)                                                                         \
    do {                                                                                           \
        const char *h_have = (have), *h_want = (want);                                             \
        if (!h_have || strcmp(h_have, h_want) != 0)                                                \
            T_FAIL("%s is '%s', not '%s'", #have, h_have ? h_have : "NULL", h_want);               \
    } while (0)

/* An error of certificate verification: the kind, the code, and words that say which check. */
T_FUNC void h_is_refusal(const h_outcome *o, int verify_code, const char *check) {
    if (o->result == 0)
        T_FAIL("a certificate was accepted that should have failed with '%s'", check);
    if (o->kind != PYSOCK_SSL_CERT_VERIFICATION_ERROR)
        T_FAIL("refused with %s (%s), not SSLCertVerificationError", o->name, o->message);
    H_SAME(o->name, "SSLCertVerificationError");
    H_SAME(o->reason, "CERTIFICATE_VERIFY_FAILED");
    T_EQ(o->error_number, EPROTO);
    T_EQ(o->verify_code, verify_code);
    H_CONTAINS(o->verify_message, check);
    H_CONTAINS(o->message, check);
}

/* An error of the other side's making: it refused, and told so with this alert. */
T_FUNC void h_is_alert(const h_outcome *o, const char *reason) {
    if (o->result == 0)
        T_FAIL("the handshake succeeded, but the peer should have refused with %s", reason);
    if (o->kind != PYSOCK_SSL_ERROR)
        T_FAIL("failed with %s (%s), not with an alert", o->name, o->message);
    H_CONTAINS(o->reason, reason);
}

T_FUNC void h_close_all(h_pair *p, pysock_ssl_context *client, pysock_ssl_context *server) {
    h_close(p);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

T_FUNC pysock_ssl_session_stats h_stats_of(pysock_ssl_context *ctx) {
    pysock_ssl_session_stats stats;
    T_OK(pysock_ssl_get_session_stats(ctx, &stats));
    return stats;
}

#endif
