/* Sessions as objects, what a context remembers, channel bindings, and the peer's chains. */
#include "support/handshake.h"

static pysock_ssl_context *client, *server;

static int setup(void **state) {
    (void)state;
    client = t_client_ctx();
    server = t_server_ctx();
    return 0;
}

static int teardown(void **state) {
    (void)state;
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
    return 0;
}

/* Connects with options, says whether a session was resumed, and closes. */
static int resumes(const char *host, pysock_ssl_session *session) {
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    h_pair p;
    int reused;
    options.server_hostname = host;
    options.session = session;
    h_connect_ex(&p, client, server, &options);
    reused = pysock_ssl_session_reused(p.client);
    T_EQ(pysock_ssl_session_reused(p.server), reused);
    h_greet(&p);
    h_close(&p);
    return reused;
}

/* A session of a connection that is closed again. */
static pysock_ssl_session *session_with(const char *host) {
    pysock_ssl_session *se;
    h_pair p;
    h_connect(&p, client, server, host);
    se = T_OK(pysock_ssl_get_session(p.client));
    h_close(&p);
    return se;
}

/* ---- resumption ---- */

T_TEST(a_session_is_resumed_where_it_is_given, 60) {
    unsigned char id[32], again[32];
    pysock_ssl_session *se;
    h_pair p;
    T_OK(pysock_ssl_set_session_cache(client, 0));
    se = session_with("localhost");
    T_EQ(pysock_ssl_session_id(se, id), 32);
    T_EQ(pysock_ssl_session_timeout(se), 7200);
    T_CHECK(llabs(pysock_ssl_session_time(se) - (long long)time(NULL)) < 60);
    T_EQ(resumes("localhost", NULL), 0);
    T_EQ(resumes("localhost", se), 1);
    T_EQ(resumes("localhost", se), 1);
    T_STEP("the resumed connection has the same session");
    {
        pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
        pysock_ssl_session *same;
        options.server_hostname = "localhost";
        options.session = se;
        h_connect_ex(&p, client, server, &options);
        same = T_OK(pysock_ssl_get_session(p.client));
        T_EQ(pysock_ssl_session_id(same, again), 32);
        T_EQ(memcmp(id, again, 32), 0);
        pysock_ssl_session_release(same);
        same = T_OK(pysock_ssl_get_session(p.server));
        T_EQ(pysock_ssl_session_id(same, again), 32);
        T_EQ(memcmp(id, again, 32), 0);
        pysock_ssl_session_release(same);
        h_close(&p);
    }
    pysock_ssl_session_release(se);
    pysock_ssl_session_release(NULL);
}

T_TEST(a_session_belongs_to_its_context_and_to_clients, 60) {
    pysock_ssl_session *se = session_with("localhost");
    pysock_ssl_context *other = t_client_ctx();
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    pysock *pair[2];
    options.server_hostname = "localhost";
    options.session = se;
    h_plain_pair(pair);
    T_FAILS(pysock_ssl_wrap_socket_ex(pair[0], other, &options), PYSOCK_VALUE_ERROR, EINVAL);
    options.server_hostname = NULL;
    T_FAILS(pysock_ssl_wrap_socket_ex(pair[1], server, &options), PYSOCK_VALUE_ERROR, EINVAL);
    T_OK(pysock_close(pair[0]));
    T_OK(pysock_close(pair[1]));
    pysock_ssl_context_release(other);
    pysock_ssl_session_release(se);
}

T_TEST(a_session_is_no_way_round_the_host_name, 60) {
    pysock_ssl_session *se = session_with("localhost");
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    h_pair p;
    T_STEP("a name that the certificate has as well, but SNI is another: a full handshake");
    T_EQ(resumes("www.example.test", se), 0);
    T_STEP("a name that it does not have");
    options.server_hostname = "other.test";
    options.session = se;
    h_try_ex(&p, client, server, &options);
    h_is_refusal(&p.at_client, 62, "Hostname mismatch");
    pysock_ssl_session_release(se);
}

/* An address is not sent as a name, so the server has nothing against resumption. */
T_TEST(a_session_is_no_way_round_the_address, 60) {
    pysock_ssl_session *se = session_with("127.0.0.1");
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    h_pair p;
    T_EQ(resumes("127.0.0.1", se), 1);
    T_STEP("an address that the certificate has as well");
    T_EQ(resumes("::1", se), 1);
    T_STEP("one that it does not have");
    options.server_hostname = "127.0.0.2";
    options.session = se;
    h_try_ex(&p, client, server, &options);
    h_is_refusal(&p.at_client, 64, "IP address mismatch");
    pysock_ssl_session_release(se);
}

/* Nobody has asked whom the first connection was with: the second one asks. */
T_TEST(what_was_not_checked_is_checked_when_it_is_resumed, 60) {
    pysock_ssl_context *wrong = t_server_ctx_of("wrong-host");
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    pysock_ssl_session *se;
    h_pair p;
    options.server_hostname = "localhost";
    for (int given = 0; given < 2; given++) {
        T_STEP("the session is %s", given ? "given" : "the context's");
        options.insecure_no_check_hostname = 1;
        options.session = NULL;
        h_connect_ex(&p, client, wrong, &options);
        se = T_OK(pysock_ssl_get_session(p.client));
        h_close(&p);
        options.insecure_no_check_hostname = 0;
        options.session = given ? se : NULL;
        h_try_ex(&p, client, wrong, &options);
        h_is_refusal(&p.at_client, 62, "Hostname mismatch");
        pysock_ssl_session_release(se);
    }
    T_STEP("the same with the server that is meant");
    options.insecure_no_check_hostname = 1;
    options.session = NULL;
    h_connect_ex(&p, client, server, &options);
    se = T_OK(pysock_ssl_get_session(p.client));
    h_close(&p);
    T_EQ(resumes("localhost", se), 1);
    pysock_ssl_session_release(se);
    pysock_ssl_context_release(wrong);
}

T_TEST(new_rules_resume_nothing, 60) {
    pysock_ssl_session *se;
    T_OK(pysock_ssl_set_check_hostname(client, 0));
    T_OK(pysock_ssl_set_verify_mode(client, PYSOCK_CERT_NONE));
    se = session_with("localhost");
    T_EQ(resumes("localhost", se), 1);
    T_OK(pysock_ssl_set_verify_mode(client, PYSOCK_CERT_REQUIRED));
    T_EQ(resumes("localhost", NULL), 0);
    T_EQ(resumes("localhost", se), 0);
    pysock_ssl_session_release(se);
    T_EQ(resumes("localhost", NULL), 1);
    T_OK(pysock_ssl_set_ciphers(server, "ECDHE"));
    T_EQ(resumes("localhost", NULL), 0);
}

/* A handshake that began under CERT_NONE must not leave a session for CERT_REQUIRED. */
T_TEST(a_session_does_not_outlive_the_rules_it_was_made_by, 60) {
    pysock_ssl_context *lax = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    pysock_ssl_context *self_signed = t_server_ctx_of("self-signed");
    pysock *pair[2];
    T_OK(pysock_ssl_set_check_hostname(lax, 0));
    T_OK(pysock_ssl_set_verify_mode(lax, PYSOCK_CERT_NONE));
    for (int i = 0; i < 2; i++) {
        t_pair(pair);
        for (int k = 0; k < 2; k++)
            T_OK(pysock_setblocking(pair[k], 0));
        T_OK(pysock_ssl_wrap_socket(pair[0], lax, "localhost"));
        if (i == 0) {
            T_OK(pysock_ssl_set_verify_mode(lax, PYSOCK_CERT_REQUIRED));
            T_OK(pysock_ssl_set_check_hostname(lax, 1));
        }
        T_OK(pysock_ssl_wrap_socket(pair[1], self_signed, NULL));
        T_EQ(t_writable(pair[0], 30), 1);
        if (i == 0)
            T_EQ(pysock_ssl_do_handshake(pair[0]), 0);
        else
            T_FAILS(pysock_ssl_do_handshake(pair[0]), PYSOCK_SSL_CERT_VERIFICATION_ERROR, T_ANY);
        T_OK(pysock_close(pair[0]));
        T_OK(pysock_close(pair[1]));
    }
    pysock_ssl_context_release(lax);
    pysock_ssl_context_release(self_signed);
}

T_TEST(servers_that_ask_for_certificates_resume_and_know_the_client, 60) {
    h_pair p;
    T_OK(pysock_ssl_load_verify_locations(server, T_CERTS "ca.pem", NULL));
    T_OK(pysock_ssl_set_verify_mode(server, PYSOCK_CERT_REQUIRED));
    T_OK(pysock_ssl_load_cert_chain(client, T_CERTS "client.pem", T_CERTS "client.key"));
    for (int i = 0; i < 2; i++) {
        pysock_ssl_cert *cert;
        h_connect(&p, client, server, "localhost");
        T_EQ(pysock_ssl_session_reused(p.server), i);
        cert = T_OK(pysock_ssl_getpeercert(p.server));
        T_CHECK(cert->subject_count > 0);
        pysock_ssl_cert_free(cert);
        T_CHECK(pysock_ssl_get_verified_chain(p.server, NULL, 0) == 2);
        h_close(&p);
    }
}

T_TEST(the_counters_count, 60) {
    pysock_ssl_session_stats stats;
    T_OK(pysock_ssl_set_session_cache(server, 2));
    T_EQ(resumes("localhost", NULL), 0);
    T_EQ(resumes("localhost", NULL), 1);
    stats = h_stats_of(server);
    T_EQ(stats.number, 1);
    T_EQ(stats.accept, 2);
    T_EQ(stats.accept_good, 2);
    T_EQ(stats.hits, 1);
    T_EQ(stats.cache_full, 0);
    stats = h_stats_of(client);
    T_EQ(stats.connect, 2);
    T_EQ(stats.connect_good, 2);
    T_EQ(stats.hits, 1);
    T_EQ(stats.number, 0);
    T_STEP("two more push the first one out");
    T_EQ(resumes("www.example.test", NULL), 0);
    T_EQ(resumes("ftp.example.test", NULL), 0);
    stats = h_stats_of(server);
    T_EQ(stats.number, 2);
    T_EQ(stats.cache_full, 1);
    T_EQ(resumes("localhost", NULL), 0);
    T_EQ(h_stats_of(server).misses, 1);
    T_OK(pysock_ssl_set_session_cache(server, 0));
    T_EQ(h_stats_of(server).number, 0);
    T_EQ(resumes("localhost", NULL), 0);
    T_EQ(resumes("localhost", NULL), 0);
}

/* ---- channel bindings ---- */

T_TEST(both_sides_agree_on_channel_bindings, 60) {
    static const char *const certs[] = {"server-ec", "server-rsa"};
    unsigned char ours[64], theirs[64], first[64];
    h_pair p;
    for (size_t c = 0; c < 2; c++) {
        pysock_ssl_context *one = t_server_ctx_of(certs[c]);
        pysock_ssl_context *asks = t_client_ctx();
        for (int i = 0; i < 2; i++) {
            h_connect(&p, asks, one, "localhost");
            T_EQ(pysock_ssl_session_reused(p.client), i);
            T_EQ(pysock_ssl_get_channel_binding(p.client, "tls-unique", ours, 64), 12);
            T_EQ(pysock_ssl_get_channel_binding(p.server, "tls-unique", theirs, 64), 12);
            T_EQ(memcmp(ours, theirs, 12), 0);
            if (i)
                T_CHECK(memcmp(ours, first, 12) != 0);
            memcpy(first, ours, 12);
            T_EQ(pysock_ssl_get_channel_binding(p.client, "tls-server-end-point", ours, 64), 32);
            T_EQ(pysock_ssl_get_channel_binding(p.server, "tls-server-end-point", theirs, 64), 32);
            T_EQ(memcmp(ours, theirs, 32), 0);
            T_FAILS(pysock_ssl_get_channel_binding(p.client, "tls-foo", ours, 64),
                    PYSOCK_VALUE_ERROR, EINVAL);
            h_close(&p);
        }
        pysock_ssl_context_release(asks);
        pysock_ssl_context_release(one);
    }
}

/* ---- the peer's chain ---- */

T_TEST(the_chain_that_was_sent_and_the_path_are_there, 60) {
    pysock_ssl_context *chain = t_server_ctx_of("chain-ec");
    pysock_buf *sent[4], *path[4];
    h_pair p;
    for (int i = 0; i < 2; i++) {
        h_connect(&p, client, chain, "localhost");
        T_EQ(pysock_ssl_session_reused(p.client), i);
        T_EQ(pysock_ssl_get_unverified_chain(p.client, sent, 4), 2);
        T_EQ(pysock_ssl_get_verified_chain(p.client, path, 4), 3);
        for (size_t k = 0; k < 2; k++) {
            T_EQ(pysock_buf_size(sent[k]), pysock_buf_size(path[k]));
            T_EQ(memcmp(pysock_buf_data(sent[k]), pysock_buf_data(path[k]),
                        pysock_buf_size(sent[k])),
                 0);
            pysock_buf_release(sent[k]);
        }
        for (size_t k = 0; k < 3; k++)
            pysock_buf_release(path[k]);
        T_EQ(pysock_ssl_get_verified_chain(p.server, path, 4), 0);
        h_close(&p);
    }
    T_OK(pysock_ssl_set_check_hostname(client, 0));
    T_OK(pysock_ssl_set_verify_mode(client, PYSOCK_CERT_NONE));
    h_connect(&p, client, chain, "localhost");
    T_EQ(pysock_ssl_get_unverified_chain(p.client, NULL, 0), 2);
    T_EQ(pysock_ssl_get_verified_chain(p.client, NULL, 0), 0);
    h_close(&p);
    pysock_ssl_context_release(chain);
}

/* As OpenSSL does by itself, and a client's certificate like a server's. */
T_TEST(a_lone_certificate_is_shown_with_its_issuers_where_that_is_wanted, 60) {
    pysock_ssl_context *shown = t_server_ctx_of("server-rsa"), *mine = t_client_ctx();
    h_pair p;
    T_OK(pysock_ssl_load_verify_locations(shown, T_CERTS "ca.pem", NULL));
    T_OK(pysock_ssl_set_verify_mode(shown, PYSOCK_CERT_REQUIRED));
    T_OK(pysock_ssl_load_cert_chain(mine, T_CERTS "client.pem", T_CERTS "client.key"));
    for (int wanted = 0; wanted < 2; wanted++) {
        uint64_t options = wanted ? PYSOCK_OP_COMPLETE_CHAIN : 0;
        T_OK(pysock_ssl_set_options(shown, pysock_ssl_get_options(shown) | options));
        T_OK(pysock_ssl_set_options(mine, pysock_ssl_get_options(mine) | options));
        h_connect(&p, mine, shown, "localhost");
        T_EQ(pysock_ssl_get_unverified_chain(p.client, NULL, 0), 1 + wanted);
        T_EQ(pysock_ssl_get_unverified_chain(p.server, NULL, 0), 1 + wanted);
        T_EQ(pysock_ssl_get_verified_chain(p.client, NULL, 0), 2);
        h_close(&p);
    }
    pysock_ssl_context_release(shown);
    pysock_ssl_context_release(mine);
}

T_MAIN(.each_setup = setup, .each_teardown = teardown)
