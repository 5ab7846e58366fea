/* Contexts: versions, options, cipher suites, curves, two chains, the sni_callback, the key log. */
#include "support/files.h"
#include "support/handshake.h"

#define EC_PEM T_CERTS "server-ec.pem"
#define EC_KEY T_CERTS "server-ec.key"
#define RSA_PEM T_CERTS "server-rsa.pem"
#define RSA_KEY T_CERTS "server-rsa.key"

static pysock_ssl_context *client, *server;

static int setup(void **state) {
    (void)state;
    client = t_client_ctx();
    server = t_server_ctx();
    return 0;
}

static int teardown(void **state) {
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
    return f_remove_all(state);
}

static void agree_on(const char *version) {
    h_pair p;
    h_connect(&p, client, server, "localhost");
    H_SAME(pysock_ssl_version(p.client), version);
    H_SAME(pysock_ssl_version(p.server), version);
    h_greet(&p);
    h_close(&p);
}

/* ==== versions and options ==== */

T_TEST(each_version_is_spoken_when_it_is_the_only_one, 60) {
    static const char *const names[] = {"TLSv1", "TLSv1.1", "TLSv1.2"};
    for (int v = PYSOCK_TLSv1; v <= PYSOCK_TLSv1_2; v++) {
        T_STEP("version 0x%x", v);
        T_OK(pysock_ssl_set_minimum_version(client, v));
        T_OK(pysock_ssl_set_maximum_version(client, v));
        T_OK(pysock_ssl_set_minimum_version(server, PYSOCK_MINIMUM_SUPPORTED));
        T_EQ(pysock_ssl_get_minimum_version(client), v);
        T_EQ(pysock_ssl_get_maximum_version(client), v);
        agree_on(names[v - PYSOCK_TLSv1]);
        T_OK(pysock_ssl_load_cert_chain(server, RSA_PEM, RSA_KEY));
        agree_on(names[v - PYSOCK_TLSv1]);
    }
}

T_TEST(contexts_are_made_by_the_side_they_are_for, 60) {
    h_pair p;
    pysock_ssl_context *c = T_OK(pysock_ssl_client_context());
    pysock_ssl_context *s = T_OK(pysock_ssl_server_context());
    T_EQ(pysock_ssl_get_protocol(c), PYSOCK_PROTOCOL_TLS_CLIENT);
    T_EQ(pysock_ssl_get_protocol(s), PYSOCK_PROTOCOL_TLS_SERVER);
    T_EQ(pysock_ssl_get_verify_mode(c), PYSOCK_CERT_REQUIRED);
    T_EQ(pysock_ssl_get_verify_mode(s), PYSOCK_CERT_NONE);
    T_OK(pysock_ssl_load_verify_locations(c, T_CERTS "ca.pem", NULL));
    T_OK(pysock_ssl_load_cert_chain(s, RSA_PEM, RSA_KEY));
    h_connect(&p, c, s, "localhost");
    h_greet(&p);
    h_close(&p);
    pysock_ssl_context_release(c);
    pysock_ssl_context_release(s);
}

T_TEST(the_default_is_tls12_alone, 60) {
    h_pair p;
    T_EQ(pysock_ssl_get_minimum_version(client), PYSOCK_TLSv1_2);
    T_EQ(pysock_ssl_get_maximum_version(client), PYSOCK_MAXIMUM_SUPPORTED);
    T_OK(pysock_ssl_set_minimum_version(client, PYSOCK_TLSv1));
    T_OK(pysock_ssl_set_maximum_version(client, PYSOCK_TLSv1_1));
    h_try(&p, client, server, "localhost");
    h_is_alert(&p.at_client, "TLSV1_ALERT_PROTOCOL_VERSION");
    H_SAME(p.at_server.reason, "UNSUPPORTED_PROTOCOL");
    T_STEP("and the other way round");
    T_OK(pysock_ssl_set_ciphers(client, "ALL"));
    T_OK(pysock_ssl_set_ciphers(server, "ALL"));
    T_OK(pysock_ssl_set_maximum_version(client, PYSOCK_TLSv1_2));
    T_OK(pysock_ssl_set_minimum_version(client, PYSOCK_TLSv1_2));
    T_OK(pysock_ssl_set_minimum_version(server, PYSOCK_TLSv1));
    T_OK(pysock_ssl_set_maximum_version(server, PYSOCK_TLSv1_1));
    h_try(&p, client, server, "localhost");
    h_is_alert(&p.at_server, "TLSV1_ALERT_PROTOCOL_VERSION");
    H_SAME(p.at_client.reason, "UNSUPPORTED_PROTOCOL");
}

T_TEST(options_cut_versions_out, 60) {
    pysock *pair[2];
    T_OK(pysock_ssl_set_minimum_version(server, PYSOCK_TLSv1));
    T_OK(pysock_ssl_set_minimum_version(client, PYSOCK_TLSv1));
    T_OK(pysock_ssl_set_options(server, pysock_ssl_get_options(server) | PYSOCK_OP_NO_TLSv1_2));
    agree_on("TLSv1.1");
    T_STEP("what is below a gap is not spoken");
    T_OK(pysock_ssl_set_options(server, PYSOCK_OP_NO_TLSv1_1));
    agree_on("TLSv1.2");
    T_STEP("nothing is left");
    T_OK(pysock_ssl_set_options(client,
                                PYSOCK_OP_NO_TLSv1 | PYSOCK_OP_NO_TLSv1_1 | PYSOCK_OP_NO_TLSv1_2));
    h_plain_pair(pair);
    T_FAILS(pysock_ssl_wrap_socket(pair[0], client, "localhost"), PYSOCK_SSL_ERROR, EPROTO);
    H_SAME(pysock_error_reason(), "NO_PROTOCOLS_AVAILABLE");
    T_OK(pysock_close(pair[0]));
    T_OK(pysock_close(pair[1]));
}

T_TEST(versions_and_options_that_are_not_supported_are_refused, 30) {
    pysock_ssl_context *fixed = T_OK(pysock_ssl_context_new_protocol(PYSOCK_PROTOCOL_TLSv1_1));
    uint64_t before = pysock_ssl_get_options(client);
    T_EQ(pysock_ssl_get_minimum_version(fixed), PYSOCK_TLSv1_1);
    T_FAILS(pysock_ssl_set_minimum_version(fixed, PYSOCK_TLSv1), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_set_minimum_version(client, PYSOCK_TLSv1_3), PYSOCK_OS_ERROR, ENOTSUP);
    T_FAILS(pysock_ssl_set_maximum_version(client, PYSOCK_SSLv3), PYSOCK_OS_ERROR, ENOTSUP);
    T_FAILS(pysock_ssl_set_maximum_version(client, 0x305), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_set_options(client, before | 0x2), PYSOCK_OS_ERROR, ENOTSUP);
    T_CHECK(pysock_ssl_get_options(client) == before);
    T_CHECK(pysock_ssl_context_new_protocol(1) == NULL);
    T_EQ(pysock_error(), PYSOCK_VALUE_ERROR);
    T_EQ(pysock_ssl_get_protocol(client), PYSOCK_PROTOCOL_TLS_CLIENT);
    T_EQ(pysock_ssl_get_protocol(fixed), PYSOCK_PROTOCOL_TLSv1_1);
    pysock_ssl_context_release(fixed);
}

T_TEST(a_context_of_protocol_tls_serves_both_sides, 60) {
    pysock_ssl_context *both = T_OK(pysock_ssl_context_new_protocol(PYSOCK_PROTOCOL_TLS));
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    pysock *pair[2];
    T_EQ(pysock_ssl_get_verify_mode(both), PYSOCK_CERT_NONE);
    T_EQ(pysock_ssl_get_check_hostname(both), 0);
    T_OK(pysock_ssl_load_cert_chain(both, EC_PEM, EC_KEY));
    h_plain_pair(pair);
    T_OK(pysock_setblocking(pair[1], 0));
    options.server_side = 1;
    T_OK(pysock_ssl_wrap_socket_ex(pair[1], both, &options));
    T_OK(pysock_ssl_wrap_socket(pair[0], both, NULL));
    T_EQ(pysock_ssl_server_side(pair[0]), 0);
    T_EQ(pysock_ssl_server_side(pair[1]), 1);
    t_say(pair[0], "hello");
    T_OK(pysock_settimeout(pair[1], H_TIMEOUT));
    t_expect(pair[1], "hello");
    T_CHECK(t_has_context(pair[0], both));
    T_CHECK(pysock_ssl_compression(pair[0]) == NULL);
    T_OK(pysock_close(pair[0]));
    T_OK(pysock_close(pair[1]));
    pysock_ssl_context_release(both);
    T_STEP("a client's context is no server's");
    h_plain_pair(pair);
    T_FAILS(pysock_ssl_wrap_socket_ex(pair[0], client, &options), PYSOCK_VALUE_ERROR, EINVAL);
    T_OK(pysock_close(pair[0]));
    T_OK(pysock_close(pair[1]));
}

/* ==== suites, curves, chains ==== */

static const char *suite_of(pysock *s) {
    pysock_ssl_cipher_info info;
    T_OK(pysock_ssl_cipher(s, &info));
    return info.name;
}

T_TEST(whose_order_of_suites_counts_is_an_option, 60) {
    h_pair p;
    T_OK(pysock_ssl_set_session_cache(client, 0));
    T_OK(pysock_ssl_set_ciphers(client, "AES256-SHA:ECDHE-ECDSA-AES256-GCM-SHA384:"
                                        "ECDHE-ECDSA-AES128-GCM-SHA256"));
    T_OK(pysock_ssl_set_ciphers(server,
                                "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"));
    h_connect(&p, client, server, "localhost");
    H_SAME(suite_of(p.client), "ECDHE-ECDSA-AES128-GCM-SHA256");
    h_close(&p);
    T_OK(pysock_ssl_set_options(server, pysock_ssl_get_options(server) &
                                            ~PYSOCK_OP_CIPHER_SERVER_PREFERENCE));
    h_connect(&p, client, server, "localhost");
    H_SAME(suite_of(p.client), "ECDHE-ECDSA-AES256-GCM-SHA384");
    H_SAME(suite_of(p.server), "ECDHE-ECDSA-AES256-GCM-SHA384");
    T_EQ(pysock_ssl_shared_ciphers(p.client, NULL, 0), 0);
    T_EQ(pysock_ssl_shared_ciphers(p.server, NULL, 0), 2);
    h_close(&p);
}

T_TEST(no_suite_in_common_is_told_to_both, 60) {
    h_pair p;
    T_OK(pysock_ssl_set_ciphers(client, "ECDHE-ECDSA-AES128-GCM-SHA256"));
    T_OK(pysock_ssl_set_ciphers(server, "ECDHE-ECDSA-AES256-GCM-SHA384"));
    h_try(&p, client, server, "localhost");
    h_is_alert(&p.at_client, "SSLV3_ALERT_HANDSHAKE_FAILURE");
    H_SAME(p.at_server.reason, "NO_SHARED_CIPHER");
}

T_TEST(suites_are_chosen_in_openssls_language, 30) {
    pysock_ssl_cipher_info rows[64];
    ptrdiff_t n;
    T_FAILS(pysock_ssl_set_ciphers(client, "RC4"), PYSOCK_SSL_ERROR, EPROTO);
    H_SAME(pysock_error_reason(), "NO_CIPHER_MATCH");
    H_CONTAINS(pysock_error_message(), "No cipher can be selected");
    T_EQ(pysock_ssl_get_ciphers(client, NULL, 0), 10);
    T_OK(pysock_ssl_set_ciphers(client, "AES256-GCM-SHA384:AES128-SHA:@SECLEVEL=1"));
    n = pysock_ssl_get_ciphers(client, rows, 64);
    T_EQ(n, 2);
    H_SAME(rows[0].name, "AES256-GCM-SHA384");
    H_SAME(rows[1].standard_name, "TLS_RSA_WITH_AES_128_CBC_SHA");
    T_EQ(rows[1].id, 0x2f);
    T_EQ(pysock_ssl_get_security_level(client), 1);
    T_STEP("level 3 leaves forward secrecy only");
    T_OK(pysock_ssl_set_ciphers(client, "AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"));
    T_OK(pysock_ssl_set_security_level(client, 3));
    T_EQ(pysock_ssl_get_ciphers(client, rows, 64), 1);
    H_SAME(rows[0].name, "ECDHE-RSA-AES256-GCM-SHA384");
    T_FAILS(pysock_ssl_set_security_level(client, 4), PYSOCK_VALUE_ERROR, EINVAL);
}

/* What the rules leave nothing of is told when a connection begins, by name. */
T_TEST(suites_that_the_security_level_forbids_are_not_spoken, 60) {
    pysock *pair[2];
    T_OK(pysock_ssl_set_ciphers(client, "AES128-GCM-SHA256"));
    T_OK(pysock_ssl_set_security_level(client, 3));
    h_plain_pair(pair);
    T_FAILS(pysock_ssl_wrap_socket(pair[0], client, "localhost"), PYSOCK_SSL_ERROR, EPROTO);
    H_SAME(pysock_error_reason(), "NO_CIPHERS_AVAILABLE");
    t_close_pair(pair);
}

T_TEST(the_chain_is_chosen_by_the_clients_suites, 60) {
    static const struct {
        const char *ciphers, *auth;
    } rows[] = {{"aECDSA", "auth-ecdsa"}, {"ECDHE+aRSA", "auth-rsa"}, {"kRSA", "auth-rsa"}};
    h_pair p;
    T_OK(pysock_ssl_set_session_cache(client, 0));
    T_OK(pysock_ssl_load_cert_chain(server, RSA_PEM, RSA_KEY));
    T_OK(pysock_ssl_set_ciphers(server, "ALL"));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pysock_ssl_cipher_info info;
        pysock_ssl_cert *cert;
        T_OK(pysock_ssl_set_ciphers(client, rows[i].ciphers));
        h_connect(&p, client, server, "localhost");
        T_OK(pysock_ssl_cipher(p.client, &info));
        H_SAME(info.auth, rows[i].auth);
        cert = T_OK(pysock_ssl_getpeercert(p.client));
        H_SAME(cert->key_type, i ? "RSA" : "EC");
        pysock_ssl_cert_free(cert);
        h_greet(&p);
        h_close(&p);
    }
}

T_TEST(curves_are_chosen_by_name, 60) {
    static const char *const names[] = {"X25519", "prime256v1", "secp384r1", "secp521r1"};
    h_pair p;
    T_OK(pysock_ssl_load_cert_chain(server, RSA_PEM, RSA_KEY));
    for (size_t i = 0; i < 4; i++) {
        pysock_ssl_context *one = t_client_ctx();
        T_OK(pysock_ssl_set_ciphers(one, "ECDHE+aRSA"));
        T_OK(pysock_ssl_set_ecdh_curve(server, names[i]));
        h_connect(&p, one, server, "localhost");
        h_close(&p);
        T_STEP("a client that has another curve finds nothing in common");
        T_OK(pysock_ssl_set_session_cache(one, 0));
        T_OK(pysock_ssl_set_ecdh_curve(one, names[(i + 1) % 4]));
        h_try(&p, one, server, "localhost");
        h_is_alert(&p.at_client, "SSLV3_ALERT_HANDSHAKE_FAILURE");
        pysock_ssl_context_release(one);
    }
    T_OK(pysock_ssl_set_ecdh_curve(server, "X25519:P-256"));
    T_FAILS(pysock_ssl_set_ecdh_curve(server, "foo"), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_set_ecdh_curve(server, "X25519:"), PYSOCK_VALUE_ERROR, EINVAL);
}

/* ==== the sni_callback ==== */

typedef struct chooser {
    pysock_ssl_context *other; /* to switch to, or NULL */
    int answer, calls;
    char name[256], seen[256];
} chooser;

static int choose(void *arg, const pysock_ssl_client_hello *hello) {
    chooser *c = arg;
    const char *name;
    c->calls++;
    snprintf(c->name, sizeof c->name, "%s", hello->server_name ? hello->server_name : "(none)");
    if (!pysock_is_ssl(hello->socket))
        return PYSOCK_ALERT_INTERNAL_ERROR;
    name = t_server_hostname(hello->socket);
    snprintf(c->seen, sizeof c->seen, "%s", name ? name : "(none)");
    if (c->other)
        T_OK(pysock_ssl_set_context(hello->socket, c->other));
    return c->answer;
}

T_TEST(an_sni_callback_switches_to_another_context, 60) {
    static const char *const names[] = {"second"};
    chooser c = {t_server_ctx_of("server-rsa"), 0, 0, "", ""};
    h_pair p;
    pysock_ssl_cert *cert;
    T_OK(pysock_ssl_set_sni_callback(server, choose, &c));
    T_OK(pysock_ssl_set_alpn_protocols(c.other, names, 1));
    T_OK(pysock_ssl_set_alpn_protocols(client, names, 1));
    h_connect(&p, client, server, "localhost");
    T_EQ(c.calls, 1);
    H_SAME(c.name, "localhost");
    H_SAME(c.seen, "localhost");
    T_CHECK(t_has_context(p.server, c.other));
    H_SAME(t_alpn(p.client), "second");
    cert = T_OK(pysock_ssl_getpeercert(p.client));
    H_SAME(cert->key_type, "RSA");
    pysock_ssl_cert_free(cert);
    h_greet(&p);
    h_close(&p);
    T_STEP("and is asked when the session is resumed, too");
    h_connect(&p, client, server, "localhost");
    T_EQ(c.calls, 2);
    T_EQ(pysock_ssl_session_reused(p.server), 1);
    pysock_ssl_context_release(c.other); /* the connection keeps it */
    h_greet(&p);
    h_close(&p);
    T_OK(pysock_ssl_set_sni_callback(server, NULL, NULL));
    h_connect(&p, client, server, "localhost");
    T_EQ(c.calls, 2);
    h_close(&p);
}

T_TEST(the_context_that_was_switched_to_verifies_clients, 60) {
    chooser c = {t_server_ctx(), 0, 0, "", ""};
    h_pair p;
    char byte;
    T_OK(pysock_ssl_load_verify_locations(c.other, T_CERTS "ca.pem", NULL));
    T_OK(pysock_ssl_set_verify_mode(c.other, PYSOCK_CERT_REQUIRED));
    T_OK(pysock_ssl_set_sni_callback(server, choose, &c));
    h_try(&p, client, server, "localhost");
    T_EQ(p.at_server.result, -1);
    H_SAME(p.at_server.reason, "PEER_DID_NOT_RETURN_A_CERTIFICATE");
    if (p.client)
        T_EQ(pysock_recv(p.client, &byte, 1, 0), -1);
    T_OK(pysock_close(p.client));
    T_OK(pysock_ssl_load_cert_chain(client, T_CERTS "client.pem", T_CERTS "client.key"));
    h_connect(&p, client, server, "localhost");
    h_greet(&p);
    h_close(&p);
    pysock_ssl_context_release(c.other);
}

static int bring(void *arg, const pysock_ssl_client_hello *hello) {
    pysock_ssl_context *mine = t_server_ctx_of("server-rsa"), *now;
    T_OK(pysock_ssl_set_context(hello->socket, mine));
    pysock_ssl_context_release(mine);
    now = T_OK(pysock_ssl_get_context(hello->socket));
    T_CHECK(now == mine);
    pysock_ssl_context_release(now);
    return *(int *)arg;
}

/* Nobody else has the context: it lives as long as the connection, and no longer, as the check for
   leaks says. */
T_TEST(an_sni_callback_need_not_keep_its_context, 60) {
    int answer = 0;
    h_pair p;
    T_OK(pysock_ssl_set_sni_callback(server, bring, &answer));
    h_connect(&p, client, server, "localhost");
    T_CHECK(!t_has_context(p.server, server));
    h_greet(&p);
    h_close(&p);
    T_STEP("also where the answer is no");
    answer = PYSOCK_ALERT_UNRECOGNIZED_NAME;
    h_try(&p, client, server, "localhost");
    h_is_alert(&p.at_client, "TLSV1_UNRECOGNIZED_NAME");
}

/* It fits, but no version is left in it. */
T_TEST(a_context_that_serves_nobody_is_an_error_of_the_handshake, 60) {
    chooser c = {t_server_ctx(), 0, 0, "", ""};
    h_pair p;
    T_OK(pysock_ssl_set_options(c.other, pysock_ssl_get_options(c.other) | PYSOCK_OP_NO_TLSv1_2));
    T_OK(pysock_ssl_set_sni_callback(server, choose, &c));
    h_try(&p, client, server, "localhost");
    T_EQ(c.calls, 1);
    T_EQ(p.at_server.result, -1);
    H_CONTAINS(p.at_server.message, "version");
    h_is_alert(&p.at_client, "TLSV1_ALERT_INTERNAL_ERROR");
    pysock_ssl_context_release(c.other);
}

T_TEST(an_sni_callback_refuses_with_an_alert, 60) {
    static const struct {
        int answer;
        const char *reason;
    } rows[] = {{PYSOCK_ALERT_UNRECOGNIZED_NAME, "TLSV1_UNRECOGNIZED_NAME"},
                {PYSOCK_ALERT_ACCESS_DENIED, "TLSV1_ALERT_ACCESS_DENIED"},
                {-1, "TLSV1_ALERT_INTERNAL_ERROR"},
                {1000, "TLSV1_ALERT_INTERNAL_ERROR"}};
    h_pair p;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        chooser c = {NULL, rows[i].answer, 0, "", ""};
        T_OK(pysock_ssl_set_sni_callback(server, choose, &c));
        h_try(&p, client, server, "localhost");
        h_is_alert(&p.at_client, rows[i].reason);
        T_EQ(p.at_server.result, -1);
        H_SAME(p.at_server.reason, "CALLBACK_FAILED");
        T_EQ(c.calls, 1);
    }
}

T_TEST(a_client_without_sni_is_asked_about_too, 60) {
    chooser c = {NULL, 0, 0, "", ""};
    h_pair p;
    T_OK(pysock_ssl_set_sni_callback(server, choose, &c));
    h_connect(&p, client, server, "127.0.0.1");
    H_SAME(c.name, "(none)");
    T_CHECK(t_server_hostname(p.server) == NULL);
    h_close(&p);
}

/* Contexts that do not fit are refused, and the last of the others counts. */
static int offer_nonsense(void *arg, const pysock_ssl_client_hello *hello) {
    T_FAILS(pysock_ssl_set_context(hello->socket, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_set_context(hello->socket, client), PYSOCK_VALUE_ERROR, EINVAL);
    T_OK(pysock_ssl_set_context(hello->socket, arg));
    T_OK(pysock_ssl_set_context(hello->socket, server));
    T_CHECK(t_has_context(hello->socket, server));
    return 0;
}

T_TEST(an_sni_callback_may_change_its_mind, 60) {
    pysock_ssl_context *other = t_server_ctx_of("server-rsa");
    h_pair p;
    T_OK(pysock_ssl_set_sni_callback(server, offer_nonsense, other));
    h_connect(&p, client, server, "localhost");
    T_CHECK(t_has_context(p.server, server));
    T_FAILS(pysock_ssl_set_context(p.server, other), PYSOCK_OS_ERROR, EALREADY);
    h_greet(&p);
    h_close(&p);
    pysock_ssl_context_release(other);
}

static int close_it(void *arg, const pysock_ssl_client_hello *hello) {
    (void)arg;
    pysock_close(hello->socket);
    return 0;
}

T_TEST(an_sni_callback_may_close_the_socket, 60) {
    h_pair p;
    T_OK(pysock_ssl_set_sni_callback(server, close_it, NULL));
    h_try(&p, client, server, "localhost");
    T_EQ(p.at_server.result, -1);
    T_EQ(p.at_server.error_number, EBADF);
    T_OK(pysock_close(p.client)); /* its handshake may have been over before the close was seen */
}

/* A ClientHello of TLS 1.2 that asks for a host of these bytes. */
static size_t hello_for(unsigned char out[256], const void *name, size_t n) {
    static const unsigned char rest[] = {/* suites */ 0, 4,    0xc0, 0x2b,
                                         0xc0,           0x2f, 1,    0};
    static const unsigned char more[] = {
        /* groups */ 0,     10, 0, 4, 0, 2, 0, 23,
        /* signatures */ 0, 13, 0, 6, 0, 4, 4, 3,  4, 1};
    size_t size = 0, extensions;
    T_CHECK(n < 100);
    memset(out, 0, 256);
    memcpy(out, "\x16\x03\x01\0\0\x01\0\0\0\x03\x03", 11);
    size = 11 + 32 + 1; /* the random and no session */
    memcpy(out + size, rest, sizeof rest);
    size += sizeof rest;
    extensions = size;
    size += 2;
    memcpy(out + size,
           (unsigned char[]){0, 0, 0, (unsigned char)(n + 5), 0, (unsigned char)(n + 3), 0, 0,
                             (unsigned char)n},
           9);
    memcpy(out + size + 9, name, n);
    size += 9 + n;
    memcpy(out + size, more, sizeof more);
    size += sizeof more;
    out[extensions + 1] = (unsigned char)(size - extensions - 2);
    out[4] = (unsigned char)(size - 5);
    out[8] = (unsigned char)(size - 9);
    return size;
}

/* What stands before a NUL is no name that anybody has asked for. */
T_TEST(a_server_name_does_not_end_at_a_NUL, 60) {
    static const struct {
        const char *name;
        size_t size;
        int good;
    } rows[] = {{"localhost", 9, 1},
                {"localhost\0.example.test", 23, 0},
                {"localhost\0", 10, 0},
                {"\0localhost", 10, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        chooser c = {NULL, PYSOCK_ALERT_ACCESS_DENIED, 0, "", ""};
        unsigned char hello[256], answer[2];
        const char *said;
        pysock *pair[2];
        size_t n = hello_for(hello, rows[i].name, rows[i].size);
        T_STEP("row %zu", i);
        T_OK(pysock_ssl_set_sni_callback(server, choose, &c));
        h_plain_pair(pair);
        T_OK(pysock_sendall(pair[0], hello, n, 0));
        t_wrap_later(pair[1], server, NULL);
        T_FAILS(pysock_ssl_do_handshake(pair[1]), PYSOCK_SSL_ERROR, EPROTO);
        T_EQ(pysock_recv(pair[0], answer, 2, 0), 2);
        T_EQ(answer[0], 21);
        if (rows[i].good)
            T_EQ(c.calls, 1);
        T_EQ(strcmp(c.name, "localhost") == 0, rows[i].good);
        said = t_server_hostname(pair[1]);
        T_EQ(said && strcmp(said, "localhost") == 0, rows[i].good);
        t_close_pair(pair);
    }
}

T_TEST(a_hello_in_single_bytes_and_small_records_is_waited_for, 60) {
    chooser c = {NULL, 0, 0, "", ""};
    pysock_bio *to_server = T_OK(pysock_bio_new()), *to_client = T_OK(pysock_bio_new());
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    pysock *s, *peer;
    unsigned char hello[4096], record[6] = {22, 3, 1, 0, 1, 0};
    ptrdiff_t n, i;
    options.server_hostname = "localhost";
    T_OK(pysock_ssl_set_sni_callback(server, choose, &c));
    peer = T_OK(pysock_ssl_wrap_bio(client, to_client, to_server, &options));
    s = T_OK(pysock_ssl_wrap_bio(server, to_server, to_client, NULL));
    T_FAILS(pysock_ssl_do_handshake(peer), PYSOCK_SSL_WANT_READ_ERROR, EPROTO);
    n = T_OK(pysock_bio_read(to_server, hello, sizeof hello));
    T_STEP("a record for each byte of the ClientHello");
    for (i = 5; i < n; i++) {
        T_EQ(c.calls, 0);
        record[5] = hello[i];
        for (size_t k = 0; k < sizeof record; k++) {
            T_EQ(pysock_bio_write(to_server, record + k, 1), 1);
            T_FAILS(pysock_ssl_do_handshake(s), PYSOCK_SSL_WANT_READ_ERROR, EPROTO);
        }
    }
    T_EQ(c.calls, 1);
    H_SAME(c.name, "localhost");
    T_CHECK(pysock_bio_pending(to_client) > 500);
    T_OK(pysock_close(s));
    T_OK(pysock_close(peer));
    pysock_bio_release(to_server);
    pysock_bio_release(to_client);
}

/* ==== check_hostname ==== */

/* The context asks for a name later than it was wrapped, and before there is a connection. */
T_TEST(a_check_without_a_name_is_no_connection, 60) {
    int port;
    pysock *listener = t_listen(&port), *s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_settimeout(s, H_TIMEOUT));
    T_OK(pysock_ssl_set_check_hostname(client, 0));
    T_OK(pysock_ssl_wrap_socket(s, client, NULL));
    T_OK(pysock_ssl_set_check_hostname(client, 1));
    T_FAILS(pysock_connect(s, "127.0.0.1", port), PYSOCK_VALUE_ERROR, EINVAL);
    H_CONTAINS(pysock_error_message(), "server_hostname");
    T_OK(pysock_close(s));
    T_OK(pysock_close(listener));
}

/* ==== the key log ==== */

T_TEST(connections_are_logged_where_the_context_says, 60) {
    struct stat st;
    char line[512], again[512];
    h_pair p;
    FILE *f;
    T_CHECK(t_keylog_filename(client) == NULL);
    T_OK(pysock_ssl_set_keylog_filename(client, f_path("keys")));
    T_OK(pysock_ssl_set_keylog_filename(server, f_path("server-keys")));
    H_SAME(t_keylog_filename(client), f_path("keys"));
    h_connect(&p, client, server, "localhost");
    h_close(&p);
    T_EQ(stat(f_path("keys"), &st), 0);
    T_EQ(st.st_mode & 0777, 0600);
    f = fopen(f_path("keys"), "r");
    T_CHECK(f && fgets(line, sizeof line, f));
    while (line[0] == '#')
        T_CHECK(fgets(line, sizeof line, f) != NULL);
    T_EQ(strlen(line), 14 + 64 + 1 + 96 + 1);
    T_EQ(strncmp(line, "CLIENT_RANDOM ", 14), 0);
    T_EQ(strspn(line + 14, "0123456789abcdef"), 64);
    T_EQ(strspn(line + 79, "0123456789abcdef"), 96);
    fclose(f);
    f = fopen(f_path("server-keys"), "r");
    do
        T_CHECK(f && fgets(again, sizeof again, f));
    while (again[0] == '#');
    fclose(f);
    H_SAME(again, line);
    T_OK(pysock_ssl_set_keylog_filename(client, NULL));
    T_CHECK(t_keylog_filename(client) == NULL);
    T_FAILS(pysock_ssl_set_keylog_filename(client, f_path("no/such/folder")), PYSOCK_OS_ERROR,
            ENOENT);
}

T_TEST(the_default_context_heeds_sslkeylogfile, 30) {
    pysock_ssl_context *ctx;
    setenv("SSLKEYLOGFILE", f_path("from-environment"), 1);
    ctx = T_OK(pysock_ssl_create_default_context(PYSOCK_CLIENT_AUTH));
    H_SAME(t_keylog_filename(ctx), f_path("from-environment"));
    pysock_ssl_context_release(ctx);
    setenv("SSLKEYLOGFILE", f_path("no/such/folder"), 1);
    T_CHECK(pysock_ssl_create_default_context(PYSOCK_CLIENT_AUTH) == NULL);
    T_EQ(errno, ENOENT);
    unsetenv("SSLKEYLOGFILE");
}

T_MAIN(.each_setup = setup, .each_teardown = teardown)
