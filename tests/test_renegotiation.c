/* Renegotiation, asked for by either side, with openssl at the far end; and reading ahead. */
#include "support.h"

#include "peers/handshake.h"
#include "peers/process.h"

#define CA T_CERTS "ca.pem"

enum { BLOCKING, TIMED, NON_BLOCKING };

static int tear_down(void **state) {
    return p_end_all(state);
}

static pysock_ssl_session_stats stats_of(pysock_ssl_context *ctx) {
    pysock_ssl_session_stats stats;
    T_OK(pysock_ssl_get_session_stats(ctx, &stats));
    return stats;
}

static void add_options(pysock_ssl_context *ctx, uint64_t options) {
    T_OK(pysock_ssl_set_options(ctx, pysock_ssl_get_options(ctx) | options));
}

/* ---- a server asks ---- */

static pysock *start_s_server(p_process *p) {
    int port;
    p_args args = {{NULL}, 0};
    p_add(&args, "stdbuf", "-oL", "openssl", "s_server", "-accept", "127.0.0.1:" P_PORT, "-cert",
          T_CERTS "server-ec.pem", "-key", T_CERTS "server-ec.key", "-tls1_2", "-state", NULL);
    return p_start_server(p, &args, &port);
}

/* How often s_server has said that it finished a handshake. */
static unsigned count_finished(p_process *p) {
    unsigned seen = 0;
    const char *at = p_string(&p->complained);
    while ((at = strstr(at, "SSL_accept:SSLv3/TLS write finished")) != NULL) {
        at++;
        seen++;
    }
    return seen;
}

/* Until it has finished one more. What it sends before, while our ClientHello is on its way, is no
   part of these tests; nor may its next line come in one read with the command. */
static void wait_finished(p_process *p, unsigned before) {
    double end = t_now() + P_PATIENCE;
    while (count_finished(p) == before)
        if (!p_pump(p, 0.1) || t_now() > end)
            P_FAIL(p, "the handshake does not finish");
}

static void *expect_after(void *arg) {
    t_expect(arg, "after\n");
    return NULL;
}

static void server_asks(p_process *p, pysock *s, uint64_t options, int mode) {
    pysock_ssl_context *ctx = t_client_ctx();
    add_options(ctx, options);
    T_OK(pysock_ssl_wrap_socket(s, ctx, "localhost"));
    T_OK(pysock_settimeout(s, mode == BLOCKING ? PYSOCK_NO_TIMEOUT
                              : mode == TIMED  ? P_PATIENCE
                                               : 0));
    p_wait_for(p, "CIPHER is");
    p_say(p, "before\n");
    t_expect(s, "before\n");
    for (unsigned i = 1; i <= 2; i++) {
        t_thread t;
        unsigned finished = count_finished(p);
        T_STEP("renegotiation %u", i);
        t_spawn(&t, expect_after, s);
        p_say(p, "R\n");
        wait_finished(p, finished);
        p_say(p, "after\n");
        t_join(&t);
        T_EQ(stats_of(ctx).connect_renegotiate, i);
        t_say(s, p_format("from the client %u\n", i));
        p_wait_for(p, p_format("from the client %u\n", i));
    }
    T_EQ(stats_of(ctx).accept_renegotiate, 0);
    T_OK(pysock_close(s));
    p_end(p);
    pysock_ssl_context_free(ctx);
}

static void a_client_goes_along_when_openssl_s_server_asks(void **state) {
    (void)state;
    t_deadline(200);
    P_NEED("openssl");
    static p_process p;
    for (int mode = BLOCKING; mode <= NON_BLOCKING; mode++) {
        T_STEP("mode %d", mode);
        server_asks(&p, start_s_server(&p), 0, mode);
    }
}

static void a_client_goes_along_while_it_reads_ahead(void **state) {
    (void)state;
    t_deadline(100);
    P_NEED("openssl");
    static p_process p;
    server_asks(&p, start_s_server(&p), PYSOCK_OP_READ_AHEAD, TIMED);
    server_asks(&p, start_s_server(&p), PYSOCK_OP_READ_AHEAD, NON_BLOCKING);
}

/* ---- a client asks ---- */

static void client_asks(uint64_t options, int verify_mode) {
    static p_process p;
    p_args args = {{NULL}, 0};
    int port;
    char buf[64];
    pysock *listener = t_listen(&port), *s;
    pysock_ssl_context *ctx = t_server_ctx();
    add_options(ctx, options);
    if (verify_mode != PYSOCK_CERT_NONE)
        T_OK(pysock_ssl_load_verify_locations(ctx, CA, NULL));
    T_OK(pysock_ssl_set_verify_mode(ctx, verify_mode));
    p_add(&args, "stdbuf", "-oL", "openssl", "s_client", "-connect",
          p_format("127.0.0.1:%d", port), "-CAfile", CA, "-tls1_2", NULL);
    if (verify_mode != PYSOCK_CERT_NONE)
        p_add(&args, "-cert", T_CERTS "client.pem", "-key", T_CERTS "client.key", NULL);
    p_start(&p, &args);
    T_OK(pysock_settimeout(listener, P_PATIENCE));
    s = T_OK(pysock_accept(listener, NULL));
    T_OK(pysock_settimeout(s, P_PATIENCE));
    T_OK(pysock_ssl_wrap_socket(s, ctx, NULL));
    p_wait_for(&p, "Verify return code");
    p_say(&p, "before\n");
    t_expect(s, "before\n");
    p_say(&p, "R\n");
    p_wait_for(&p, "RENEGOTIATING");
    if (options & PYSOCK_OP_ALLOW_CLIENT_RENEGOTIATION) {
        p_say(&p, "after\n");
        t_expect(s, "after\n");
        t_say(s, "from the server\n");
        p_wait_for(&p, "from the server");
        T_EQ(stats_of(ctx).accept_renegotiate, 1);
    } else {
        /* The alert no_renegotiation makes s_client go away. */
        while (pysock_recv(s, buf, sizeof buf, 0) > 0)
            continue;
        p_wait_for(&p, "no renegotiation");
        T_EQ(stats_of(ctx).accept_renegotiate, 0);
    }
    T_EQ(stats_of(ctx).connect_renegotiate, 0);
    T_OK(pysock_close(s));
    p_end(&p);
    T_OK(pysock_close(listener));
    pysock_ssl_context_free(ctx);
}

static void a_server_refuses_openssl_s_client_by_default(void **state) {
    (void)state;
    t_deadline(100);
    P_NEED("openssl");
    client_asks(0, PYSOCK_CERT_NONE);
}

static void a_server_goes_along_where_it_was_allowed(void **state) {
    (void)state;
    t_deadline(200);
    P_NEED("openssl");
    client_asks(PYSOCK_OP_ALLOW_CLIENT_RENEGOTIATION, PYSOCK_CERT_NONE);
    client_asks(PYSOCK_OP_ALLOW_CLIENT_RENEGOTIATION, PYSOCK_CERT_REQUIRED);
    client_asks(PYSOCK_OP_ALLOW_CLIENT_RENEGOTIATION | PYSOCK_OP_READ_AHEAD, PYSOCK_CERT_REQUIRED);
}

/* ---- reading ahead ---- */

#define RECORDS 50

/* All the records are in the kernel when the first byte is read; one read takes them, and select
   must know of every one of them until the last. */
static void select_sees_what_was_read_ahead(void **state) {
    (void)state;
    t_deadline(60);
    pysock *pair[2];
    t_proxy proxy;
    unsigned char *records = malloc((size_t)RECORDS * 256);
    static unsigned char record[T_RECORD];
    size_t size = 0;
    char byte;
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    T_CHECK(records != NULL);
    add_options(client, PYSOCK_OP_READ_AHEAD);
    t_tls_pair_by_proxy(pair, &proxy, client, server);
    for (int i = 0; i < RECORDS; i++) {
        char c = (char)('0' + i);
        T_EQ(pysock_send(pair[1], &c, 1, 0), 1);
    }
    for (int i = 0; i < RECORDS; i++) {
        size_t n = t_raw_record(proxy.to_server, record);
        T_CHECK(size + n <= (size_t)RECORDS * 256);
        memcpy(records + size, record, n);
        size += n;
    }
    t_raw_write(proxy.to_client, records, size);
    for (int i = 0; i < RECORDS; i++) {
        if (!t_readable(pair[0], i ? 0 : P_PATIENCE))
            T_FAIL("record %d is not seen", i);
        T_EQ(pysock_recv(pair[0], &byte, 1, 0), 1);
        T_EQ(byte, '0' + i);
        if (i == 0)
            T_EQ(recv(pysock_fileno(pair[0]), &byte, 1, MSG_DONTWAIT | MSG_PEEK), -1);
    }
    T_EQ(t_readable(pair[0], 0), 0);
    t_close_pair(pair);
    t_proxy_close(&proxy);
    free(records);
    pysock_ssl_context_free(client);
    pysock_ssl_context_free(server);
}

#define CASE(test) cmocka_unit_test_teardown(test, tear_down)

static const struct CMUnitTest tests[] = {
    CASE(a_client_goes_along_when_openssl_s_server_asks),
    CASE(a_client_goes_along_while_it_reads_ahead),
    CASE(a_server_refuses_openssl_s_client_by_default),
    CASE(a_server_goes_along_where_it_was_allowed),
    CASE(select_sees_what_was_read_ahead),
};

T_MAIN(tests)
