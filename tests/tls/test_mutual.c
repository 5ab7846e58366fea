/* Client certificates: a server that asks for one, in each of its modes. */
#include "support/support.h"
#include "support/handshake.h"

static pysock_ssl_context *server_asking(int mode) {
    pysock_ssl_context *ctx = t_server_ctx();
    T_OK(pysock_ssl_load_verify_locations(ctx, T_CERTS "ca.pem", NULL));
    T_OK(pysock_ssl_set_verify_mode(ctx, mode));
    return ctx;
}

static pysock_ssl_context *client_with(const char *name) {
    pysock_ssl_context *ctx = t_client_ctx();
    char cert[128], key[128];
    snprintf(cert, sizeof cert, T_CERTS "%s.pem", name);
    snprintf(key, sizeof key, T_CERTS "%s.key", name);
    T_OK(pysock_ssl_load_cert_chain(ctx, cert, key));
    return ctx;
}

static void free_both(pysock_ssl_context *client, pysock_ssl_context *server) {
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

static size_t peer_cert_size(pysock *s) {
    pysock_buf *der = T_OK(pysock_ssl_getpeercert_der(s));
    size_t n = pysock_buf_size(der);
    pysock_buf_release(der);
    return n;
}

T_TEST(a_client_with_a_certificate_is_let_in, 60) {
    for (int mode = PYSOCK_CERT_OPTIONAL; mode <= PYSOCK_CERT_REQUIRED; mode++) {
        h_pair p;
        pysock_ssl_context *client = client_with("client"), *server = server_asking(mode);
        T_STEP("mode %d", mode);
        h_connect(&p, client, server, "localhost");
        T_CHECK(peer_cert_size(p.server) > 100);
        h_greet(&p);
        h_close(&p);
        free_both(client, server);
    }
}

T_TEST(a_client_without_one_is_let_in_only_if_it_is_optional, 60) {
    h_pair p;
    pysock_ssl_context *client = t_client_ctx(), *server = server_asking(PYSOCK_CERT_OPTIONAL);
    h_connect(&p, client, server, "localhost");
    T_EQ(peer_cert_size(p.server), 0);
    h_close(&p);
    free_both(client, server);

    client = t_client_ctx();
    server = server_asking(PYSOCK_CERT_REQUIRED);
    h_try(&p, client, server, "localhost");
    T_EQ(p.at_server.result, -1);
    H_SAME(p.at_server.reason, "PEER_DID_NOT_RETURN_A_CERTIFICATE");
    h_close(&p);
    free_both(client, server);
}

T_TEST(a_certificate_of_an_unknown_authority_is_refused, 60) {
    for (int mode = PYSOCK_CERT_OPTIONAL; mode <= PYSOCK_CERT_REQUIRED; mode++) {
        h_pair p;
        pysock_ssl_context *client = client_with("untrusted"), *server = server_asking(mode);
        T_STEP("mode %d", mode);
        h_try(&p, client, server, "localhost");
        T_EQ(p.at_server.result, -1);
        T_EQ(p.at_server.kind, PYSOCK_SSL_CERT_VERIFICATION_ERROR);
        T_EQ(p.at_server.verify_code, 20);
        h_close(&p);
        free_both(client, server);
    }
}

/* As with OpenSSL: it is the handshake that fails, so that both sides are told. */
T_TEST(a_server_that_asks_but_trusts_nobody_lets_no_certificate_in, 60) {
    for (int mode = PYSOCK_CERT_OPTIONAL; mode <= PYSOCK_CERT_REQUIRED; mode++) {
        pysock_ssl_context *client = client_with("client"), *server = t_server_ctx();
        h_pair p;
        T_STEP("mode %d", mode);
        T_OK(pysock_ssl_set_verify_mode(server, mode));
        h_try(&p, client, server, "localhost");
        T_EQ(p.at_server.result, -1);
        T_EQ(p.at_server.kind, PYSOCK_SSL_CERT_VERIFICATION_ERROR);
        h_close(&p);
        pysock_ssl_context_release(client);
        client = t_client_ctx();
        h_try(&p, client, server, "localhost");
        T_EQ(p.at_server.result, mode == PYSOCK_CERT_OPTIONAL ? 0 : -1);
        if (mode == PYSOCK_CERT_REQUIRED)
            H_SAME(p.at_server.reason, "PEER_DID_NOT_RETURN_A_CERTIFICATE");
        h_close(&p);
        free_both(client, server);
    }
}

T_TEST(a_session_from_before_is_no_way_round_the_question, 60) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    h_pair p;
    h_connect(&p, client, server, "localhost");
    h_close(&p);
    T_OK(pysock_ssl_load_verify_locations(server, T_CERTS "ca.pem", NULL));
    T_OK(pysock_ssl_set_verify_mode(server, PYSOCK_CERT_REQUIRED));
    h_try(&p, client, server, "localhost");
    T_EQ(p.at_server.result, -1);
    H_SAME(p.at_server.reason, "PEER_DID_NOT_RETURN_A_CERTIFICATE");
    h_close(&p);
    free_both(client, server);
}

T_MAIN()
