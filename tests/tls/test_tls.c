/* TLS between two sockets of the library: what each side knows, resumption, ends, alerts. */
#include "support/support.h"
#include "support/handshake.h"
#include "support/process.h"

static size_t size_of_peer_certificate(pysock *s) {
    pysock_buf *der = T_OK(pysock_ssl_getpeercert_der(s));
    size_t size = pysock_buf_size(der);
    pysock_buf_release(der);
    return size;
}

static pysock_ssl_cipher_info cipher_of(pysock *s) {
    pysock_ssl_cipher_info info;
    memset(&info, 0, sizeof info);
    T_OK(pysock_ssl_cipher(s, &info));
    return info;
}

/* ==== what both sides know ==== */

T_TEST(both_sides_know_the_same_about_a_connection, 60) {
    h_pair p;
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    h_connect(&p, client, server, "localhost");
    H_SAME(pysock_ssl_version(p.client), "TLSv1.2");
    H_SAME(pysock_ssl_version(p.server), "TLSv1.2");
    H_SAME(cipher_of(p.client).name, cipher_of(p.server).name);
    H_SAME(cipher_of(p.client).protocol, "TLSv1.2");
    T_EQ(cipher_of(p.client).secret_bits, cipher_of(p.server).secret_bits);
    T_CHECK(cipher_of(p.client).secret_bits >= 128);
    T_CHECK(strncmp(cipher_of(p.client).name, "ECDHE-ECDSA-", 12) == 0);
    H_SAME(t_server_hostname(p.client), "localhost");
    H_SAME(t_server_hostname(p.server), "localhost");
    T_CHECK(t_alpn(p.client) == NULL);
    T_CHECK(t_alpn(p.server) == NULL);
    T_EQ(pysock_ssl_session_reused(p.client), 0);
    T_EQ(pysock_ssl_session_reused(p.server), 0);
    T_CHECK(size_of_peer_certificate(p.client) > 200);
    T_EQ(size_of_peer_certificate(p.server), 0);
    for (int i = 0; i < 2; i++) {
        pysock *s = i ? p.server : p.client;
        T_EQ(pysock_is_ssl(s), 1);
        T_EQ(pysock_ssl_pending(s), 0);
        T_EQ(pysock_ssl_eof_is_clean(s), 0);
        T_EQ(pysock_ssl_do_handshake(s), 0);
    }
    h_close_all(&p, client, server);
}

T_TEST(nothing_is_known_before_the_handshake, 60) {
    pysock *pair[2];
    pysock_ssl_cipher_info info;
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    pysock_ssl_context *client = t_client_ctx();
    t_pair(pair);
    options.server_hostname = "localhost";
    options.no_handshake_on_connect = 1;
    T_OK(pysock_ssl_wrap_socket_ex(pair[0], client, &options));
    T_EQ(pysock_is_ssl(pair[0]), 1);
    T_CHECK(pysock_ssl_version(pair[0]) == NULL);
    T_FAILS(pysock_ssl_cipher(pair[0], &info), T_ANY, T_ANY);
    T_FAILS(pysock_ssl_getpeercert_der(pair[0]), T_ANY, T_ANY);
    T_CHECK(t_alpn(pair[0]) == NULL);
    T_CHECK(pysock_ssl_session_reused(pair[0]) != 1);
    T_EQ(pysock_ssl_pending(pair[0]), 0);
    t_close_pair(pair);
    pysock_ssl_context_release(client);
}

T_TEST(a_plain_socket_answers_questions_about_tls, 60) {
    pysock *pair[2];
    pysock_ssl_cipher_info info;
    t_pair(pair);
    T_EQ(pysock_is_ssl(pair[0]), 0);
    T_CHECK(pysock_ssl_version(pair[0]) == NULL);
    T_CHECK(t_alpn(pair[0]) == NULL);
    T_CHECK(t_server_hostname(pair[0]) == NULL);
    T_FAILS(pysock_ssl_pending(pair[0]), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_cipher(pair[0], &info), T_ANY, T_ANY);
    T_FAILS(pysock_ssl_getpeercert_der(pair[0]), T_ANY, T_ANY);
    T_FAILS(pysock_ssl_do_handshake(pair[0]), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_unwrap(pair[0]), PYSOCK_VALUE_ERROR, EINVAL);
    t_close_pair(pair);
}

/* 1 or 0; -1: this is no x86. */
static int processor_has_aes(void) {
    char line[8192];
    int found = -1;
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && found < 0 && fgets(line, sizeof line, f))
        if (strncmp(line, "flags", 5) == 0)
            found = strstr(line, " aes ") != NULL && strstr(line, " pclmulqdq ") != NULL;
    if (f)
        fclose(f);
    return found;
}

T_TEST(aes_gcm_is_chosen_where_the_processor_has_it, 60) {
    int aes = processor_has_aes();
    static const char *const certs[] = {"server-ec", "server-rsa"};
    if (aes < 0)
        skip();
    for (int i = 0; i < 2; i++) {
        h_pair p;
        pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx_of(certs[i]);
        h_connect(&p, client, server, "localhost");
        H_CONTAINS(cipher_of(p.client).name, i ? "ECDHE-RSA-" : "ECDHE-ECDSA-");
        H_CONTAINS(cipher_of(p.client).name, aes ? "AES128-GCM" : "CHACHA20");
        h_close_all(&p, client, server);
    }
}

T_TEST(pending_counts_what_is_left_in_the_engine, 60) {
    h_pair p;
    char buf[100];
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    h_connect(&p, client, server, "localhost");
    memset(buf, 'x', sizeof buf);
    T_OK(pysock_sendall(p.client, buf, sizeof buf, 0));
    t_recv_exactly(p.server, buf, 10);
    T_EQ(pysock_ssl_pending(p.server), 90);
    t_recv_exactly(p.server, buf, 89);
    T_EQ(pysock_ssl_pending(p.server), 1);
    t_recv_exactly(p.server, buf, 1);
    T_EQ(pysock_ssl_pending(p.server), 0);
    T_EQ(pysock_ssl_pending(p.client), 0);
    h_close_all(&p, client, server);
}

T_TEST(tls_works_on_a_unix_socketpair, 60) {
    h_pair p;
    pysock *pair[2];
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    options.server_hostname = "localhost";
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    h_try_on(&p, pair, client, server, &options);
    h_must_be_connected(&p, "localhost");
    h_greet(&p);
    h_close_all(&p, client, server);
}

/* ==== wrapping ==== */

T_TEST(the_host_name_is_copied, 60) {
    h_pair p;
    t_thread thread;
    pysock *pair[2];
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    char host[] = "localhost";
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    t_pair(pair);
    options.server_hostname = host;
    options.no_handshake_on_connect = 1;
    T_OK(pysock_ssl_wrap_socket_ex(pair[0], client, &options));
    memset(host, 'x', sizeof host - 1);
    memset(&options, 0xff, sizeof options);
    memset(&p, 0, sizeof p);
    p.client = pair[0];
    p.server = pair[1];
    p.server_ctx = server;
    t_spawn(&thread, h_serve, &p);
    T_STEP("the first call does the handshake");
    t_say(p.client, "hello");
    t_join(&thread);
    t_expect(p.server, "hello");
    H_SAME(t_server_hostname(p.client), "localhost");
    H_SAME(t_server_hostname(p.server), "localhost");
    h_close_all(&p, client, server);
}

T_TEST(what_cannot_be_wrapped_is_refused, 60) {
    h_pair p;
    pysock *pair[2];
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    t_pair(pair);
    T_FAILS(pysock_ssl_wrap_socket(pair[0], NULL, "localhost"), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_wrap_socket_ex(pair[0], NULL, &options), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_wrap_socket_ex(pair[0], client, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_wrap_socket(pair[0], server, "localhost"), PYSOCK_VALUE_ERROR, EINVAL);
    T_EQ(pysock_is_ssl(pair[0]), 0);
    T_STEP("nothing of it was sent");
    t_say(pair[0], "plain");
    t_expect(pair[1], "plain");
    t_close_pair(pair);
    T_STEP("what is wrapped already");
    h_connect(&p, client, server, "localhost");
    T_FAILS(pysock_ssl_wrap_socket(p.client, client, "localhost"), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_wrap_socket(p.server, server, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    h_greet(&p);
    h_close_all(&p, client, server);
}

T_TEST(flags_without_meaning_on_tls_are_refused, 60) {
    h_pair p;
    char byte = 'x';
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    h_connect(&p, client, server, "localhost");
    T_FAILS(pysock_recv(p.client, &byte, 1, MSG_OOB), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_send(p.client, &byte, 1, MSG_OOB), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_sendall(p.client, &byte, 1, MSG_OOB), PYSOCK_VALUE_ERROR, EINVAL);
    h_greet(&p);
    h_close_all(&p, client, server);
}

T_TEST(a_context_may_be_freed_while_sockets_use_it, 60) {
    h_pair p;
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    T_STEP("after the handshake");
    h_connect(&p, client, server, "localhost");
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
    h_greet(&p);
    T_CHECK(size_of_peer_certificate(p.client) > 200);
    h_close(&p);
}

T_TEST(a_context_may_be_freed_before_the_handshake, 60) {
    int port;
    t_thread thread;
    pysock *listener, *child, *s;
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    options.server_hostname = "localhost";
    options.no_handshake_on_connect = 1;
    listener = t_listen(&port);
    T_OK(pysock_ssl_wrap_socket(listener, server, NULL));
    pysock_ssl_context_release(server);
    s = T_OK(pysock_create_connection("127.0.0.1", port, H_TIMEOUT));
    T_OK(pysock_ssl_wrap_socket_ex(s, client, &options));
    pysock_ssl_context_release(client);
    child = T_OK(pysock_accept(listener, NULL));
    T_EQ(pysock_is_ssl(child), 1);
    T_OK(pysock_close(listener));
    t_spawn(&thread, t_handshake_thread, child);
    T_EQ(pysock_ssl_do_handshake(s), 0);
    t_join(&thread);
    t_say(s, "hello");
    t_expect(child, "hello");
    T_OK(pysock_close(s));
    T_OK(pysock_close(child));
}

/* ==== contexts that change ==== */

T_TEST(a_connection_keeps_what_it_was_made_with, 60) {
    static const char *const names[] = {"new/1"};
    h_pair old, new;
    size_t old_size;
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    T_OK(pysock_ssl_set_session_cache(client, 0));
    h_connect(&old, client, server, "localhost");
    old_size = size_of_peer_certificate(old.client);
    T_OK(pysock_ssl_load_cert_chain(server, T_CERTS "chain-ec.pem", T_CERTS "chain-ec.key"));
    T_OK(pysock_ssl_set_alpn_protocols(server, names, 1));
    T_OK(pysock_ssl_set_alpn_protocols(client, names, 1));
    h_greet(&old);
    h_connect(&new, client, server, "localhost");
    H_SAME(t_alpn(new.client), "new/1");
    T_CHECK(t_alpn(old.client) == NULL);
    T_CHECK(size_of_peer_certificate(new.client) != old_size);
    T_EQ(size_of_peer_certificate(old.client), old_size);
    h_greet(&old);
    h_greet(&new);
    h_close(&old);
    h_close_all(&new, client, server);
}

typedef struct changes {
    pysock_ssl_context *client, *server;
    int stop; /* atomic */
} changes;

static void *change_contexts(void *arg) {
    static const char *const names[] = {"one", "two"};
    changes *c = arg;
    for (size_t i = 0; !__atomic_load_n(&c->stop, __ATOMIC_ACQUIRE); i++) {
        const char *cert = i % 2 ? T_CERTS "server-rsa.pem" : T_CERTS "server-ec.pem";
        const char *key = i % 2 ? T_CERTS "server-rsa.key" : T_CERTS "server-ec.key";
        T_OK(pysock_ssl_load_cert_chain(c->server, cert, key));
        T_OK(pysock_ssl_set_alpn_protocols(c->server, names, i % 3));
        T_OK(pysock_ssl_set_alpn_protocols(c->client, names, i % 3));
        T_OK(pysock_ssl_set_session_cache(c->client, i % 4));
        T_OK(pysock_ssl_load_verify_locations(c->client, T_CERTS "other-ca.pem", NULL));
    }
    return NULL;
}

T_TEST(contexts_may_change_while_handshakes_run, 120) {
    changes c;
    t_thread thread;
    memset(&c, 0, sizeof c);
    c.client = t_client_ctx();
    c.server = t_server_ctx();
    t_spawn(&thread, change_contexts, &c);
    for (int i = 0; i < T_SCALE(40, 15); i++) {
        h_pair p;
        T_STEP("handshake %d", i);
        h_connect(&p, c.client, c.server, "localhost");
        h_greet(&p);
        h_close(&p);
    }
    __atomic_store_n(&c.stop, 1, __ATOMIC_RELEASE);
    t_join(&thread);
    pysock_ssl_context_release(c.client);
    pysock_ssl_context_release(c.server);
}

/* ==== ALPN and SNI ==== */

static const char *alpn_of(pysock_ssl_context *client, pysock_ssl_context *server) {
    static char chosen[300];
    h_pair p;
    const char *at_client, *at_server;
    h_connect(&p, client, server, "localhost");
    at_client = t_alpn(p.client);
    at_server = t_alpn(p.server);
    T_EQ(at_client == NULL, at_server == NULL);
    if (at_client && at_server)
        H_SAME(at_client, at_server);
    snprintf(chosen, sizeof chosen, "%s", at_client ? at_client : "none");
    h_greet(&p);
    h_close(&p);
    return chosen;
}

T_TEST(the_server_chooses_the_alpn_protocol, 60) {
    static const char *const ours[] = {"h2", "http/1.1", "x"};
    static const char *const theirs[] = {"y", "http/1.1", "h2"};
    static const char *const others[] = {"smtp"};
    char longest[257], name[] = "h2";
    const char *list[1];
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    H_SAME(alpn_of(client, server), "none");
    T_OK(pysock_ssl_set_alpn_protocols(server, ours, 3));
    H_SAME(alpn_of(client, server), "none");
    T_OK(pysock_ssl_set_alpn_protocols(client, theirs, 3));
    H_SAME(alpn_of(client, server), "h2");
    T_STEP("on a session that is resumed, too");
    H_SAME(alpn_of(client, server), "h2");
    T_STEP("the names are copied");
    list[0] = name;
    T_OK(pysock_ssl_set_alpn_protocols(client, list, 1));
    name[0] = '?';
    H_SAME(alpn_of(client, server), "h2");
    T_STEP("nothing in common");
    T_OK(pysock_ssl_set_alpn_protocols(client, others, 1));
    H_SAME(alpn_of(client, server), "none");
    T_STEP("taken away");
    T_OK(pysock_ssl_set_alpn_protocols(client, theirs, 3));
    T_OK(pysock_ssl_set_alpn_protocols(server, NULL, 0));
    H_SAME(alpn_of(client, server), "none");
    T_STEP("names that do not fit");
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    list[0] = longest;
    T_FAILS(pysock_ssl_set_alpn_protocols(client, list, 1), PYSOCK_VALUE_ERROR, EINVAL);
    list[0] = "";
    T_FAILS(pysock_ssl_set_alpn_protocols(client, list, 1), PYSOCK_VALUE_ERROR, EINVAL);
    list[0] = NULL;
    T_FAILS(pysock_ssl_set_alpn_protocols(client, list, 1), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_set_alpn_protocols(NULL, ours, 1), PYSOCK_VALUE_ERROR, EINVAL);
    T_STEP("the longest that fits");
    longest[255] = 0;
    list[0] = longest;
    T_OK(pysock_ssl_set_alpn_protocols(client, list, 1));
    T_OK(pysock_ssl_set_alpn_protocols(server, list, 1));
    H_SAME(alpn_of(client, server), longest);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

T_TEST(the_server_learns_the_name_that_was_asked_for, 60) {
    h_pair p;
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    h_connect(&p, client, server, "some.example.test");
    H_SAME(t_server_hostname(p.server), "some.example.test");
    h_close(&p);
    T_STEP("an address is no name");
    h_connect(&p, client, server, "127.0.0.1");
    H_SAME(t_server_hostname(p.client), "127.0.0.1");
    T_CHECK(t_server_hostname(p.server) == NULL);
    h_close(&p);
    h_connect(&p, client, server, "::1");
    T_CHECK(t_server_hostname(p.server) == NULL);
    h_close(&p);
    T_STEP("no name at all");
    T_OK(pysock_ssl_set_check_hostname(client, 0));
    h_connect(&p, client, server, NULL);
    T_CHECK(t_server_hostname(p.client) == NULL);
    T_CHECK(t_server_hostname(p.server) == NULL);
    h_close_all(&p, client, server);
}

/* ==== resumption ==== */

static int is_resumed(pysock_ssl_context *client, pysock_ssl_context *server, const char *host) {
    h_pair p;
    int reused;
    h_connect(&p, client, server, host);
    reused = pysock_ssl_session_reused(p.client);
    T_EQ(pysock_ssl_session_reused(p.server), reused);
    h_greet(&p);
    h_close(&p);
    return reused;
}

T_TEST(sessions_are_resumed_by_default, 60) {
    h_pair first, second;
    pysock_buf *one, *two;
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    h_connect(&first, client, server, "localhost");
    T_EQ(pysock_ssl_session_reused(first.client), 0);
    T_STEP("while the first connection is still open");
    h_connect(&second, client, server, "localhost");
    T_EQ(pysock_ssl_session_reused(second.client), 1);
    T_EQ(pysock_ssl_session_reused(second.server), 1);
    H_SAME(cipher_of(second.client).name, cipher_of(first.client).name);
    T_STEP("the certificate of the first handshake is known in the second");
    one = T_OK(pysock_ssl_getpeercert_der(first.client));
    two = T_OK(pysock_ssl_getpeercert_der(second.client));
    T_CHECK(pysock_buf_size(one) > 200);
    T_EQ(pysock_buf_size(two), pysock_buf_size(one));
    T_EQ(memcmp(pysock_buf_data(two), pysock_buf_data(one), pysock_buf_size(one)), 0);
    h_greet(&first);
    h_greet(&second);
    h_close(&first);
    h_close(&second);
    pysock_buf_release(one);
    pysock_buf_release(two);
    T_EQ(is_resumed(client, server, "localhost"), 1);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

T_TEST(either_side_can_switch_resumption_off, 60) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    T_STEP("the client");
    T_EQ(is_resumed(client, server, "localhost"), 0);
    T_EQ(is_resumed(client, server, "localhost"), 1);
    T_OK(pysock_ssl_set_session_cache(client, 0));
    T_EQ(is_resumed(client, server, "localhost"), 0);
    T_EQ(is_resumed(client, server, "localhost"), 0);
    T_STEP("and on again");
    T_OK(pysock_ssl_set_session_cache(client, 10));
    T_EQ(is_resumed(client, server, "localhost"), 0);
    T_EQ(is_resumed(client, server, "localhost"), 1);
    T_STEP("the server");
    T_OK(pysock_ssl_set_session_cache(server, 0));
    T_EQ(is_resumed(client, server, "localhost"), 0);
    T_EQ(is_resumed(client, server, "localhost"), 0);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

T_TEST(a_session_belongs_to_one_host_name, 60) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    T_EQ(is_resumed(client, server, "a.example.test"), 0);
    T_EQ(is_resumed(client, server, "b.example.test"), 0);
    T_EQ(is_resumed(client, server, "localhost"), 0);
    T_EQ(is_resumed(client, server, "a.example.test"), 1);
    T_EQ(is_resumed(client, server, "b.example.test"), 1);
    T_EQ(is_resumed(client, server, "127.0.0.1"), 0);
    T_EQ(is_resumed(client, server, "localhost"), 1);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

T_TEST(a_session_belongs_to_one_port, 60) {
    h_pair p;
    pysock *pair[2];
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    options.server_hostname = "localhost";
    T_EQ(is_resumed(client, server, "localhost"), 0);
    t_pair(pair);
    h_try_on(&p, pair, client, server, &options);
    h_must_be_connected(&p, "localhost");
    T_EQ(pysock_ssl_session_reused(p.client), 0);
    h_close(&p);
    T_EQ(is_resumed(client, server, "localhost"), 1);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

T_TEST(a_session_belongs_to_one_context, 60) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    pysock_ssl_context *other_client = t_client_ctx(), *other_server = t_server_ctx();
    T_EQ(is_resumed(client, server, "localhost"), 0);
    T_EQ(is_resumed(other_client, server, "localhost"), 0);
    T_EQ(is_resumed(client, server, "localhost"), 1);
    T_STEP("a server that does not know the session makes a new one");
    T_EQ(is_resumed(client, other_server, "localhost"), 0);
    T_EQ(is_resumed(client, other_server, "localhost"), 1);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
    pysock_ssl_context_release(other_client);
    pysock_ssl_context_release(other_server);
}

T_TEST(the_cache_keeps_as_many_sessions_as_it_may, 60) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    T_OK(pysock_ssl_set_session_cache(client, 1));
    T_EQ(is_resumed(client, server, "a.example.test"), 0);
    T_EQ(is_resumed(client, server, "a.example.test"), 1);
    T_EQ(is_resumed(client, server, "b.example.test"), 0);
    T_EQ(is_resumed(client, server, "b.example.test"), 1);
    T_EQ(is_resumed(client, server, "a.example.test"), 0);
    T_STEP("a server with room for one");
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
    client = t_client_ctx();
    server = t_server_ctx();
    T_OK(pysock_ssl_set_session_cache(server, 1));
    T_EQ(is_resumed(client, server, "a.example.test"), 0);
    T_EQ(is_resumed(client, server, "a.example.test"), 1);
    T_EQ(is_resumed(client, server, "b.example.test"), 0);
    T_EQ(is_resumed(client, server, "a.example.test"), 0);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

/* A session says that somebody was verified once: by the rules of that time. */
T_TEST(a_session_is_no_way_round_verification, 60) {
    static const char *const certs[] = {"expired", "untrusted", "wrong-host"};
    static const int codes[] = {10, 20, 62};
    static const char *const checks[] = {"expired", "local issuer", "hostname mismatch"};
    for (int i = 0; i < 3; i++) {
        h_pair p;
        pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx_of(certs[i]);
        T_STEP("%s", certs[i]);
        T_OK(pysock_ssl_set_check_hostname(client, 0));
        T_OK(pysock_ssl_set_verify_mode(client, PYSOCK_CERT_NONE));
        is_resumed(client, server, "localhost");
        T_OK(pysock_ssl_set_verify_mode(client, PYSOCK_CERT_REQUIRED));
        T_OK(pysock_ssl_set_check_hostname(client, 1));
        h_try(&p, client, server, "localhost");
        h_is_refusal(&p.at_client, codes[i], checks[i]);
        h_close_all(&p, client, server);
    }
}

T_TEST(a_refused_connection_leaves_no_session, 60) {
    h_pair p;
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx_of("expired");
    for (int i = 0; i < 2; i++) {
        h_try(&p, client, server, "localhost");
        h_is_refusal(&p.at_client, 10, "certificate has expired");
        h_close(&p);
    }
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

/* Clients that share contexts: the caches are used by many threads at once. */
static void *connect_often(void *arg) {
    changes *c = arg;
    for (int i = 0; i < T_SCALE(15, 8); i++) {
        h_pair p;
        h_connect(&p, c->client, c->server, i % 2 ? "a.example.test" : "b.example.test");
        h_greet(&p);
        h_close(&p);
    }
    return NULL;
}

T_TEST(many_threads_share_contexts, 120) {
    t_thread threads[4];
    changes c;
    memset(&c, 0, sizeof c);
    c.client = t_client_ctx();
    c.server = t_server_ctx();
    T_OK(pysock_ssl_set_session_cache(c.server, 2));
    for (int i = 0; i < 4; i++)
        t_spawn(&threads[i], connect_often, &c);
    for (int i = 0; i < 4; i++)
        t_join(&threads[i]);
    pysock_ssl_context_release(c.client);
    pysock_ssl_context_release(c.server);
}

static int finish_handshake(pysock *s) {
    int result;
    while ((result = pysock_ssl_do_handshake(s)) < 0 && errno == EINPROGRESS)
        T_CHECK(t_writable(s, H_TIMEOUT));
    return result;
}

T_TEST(non_blocking_handshakes_resume_too, 60) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    for (int i = 0; i < 3; i++) {
        pysock *pair[2];
        T_STEP("turn %d", i);
        h_plain_pair(pair);
        T_OK(pysock_setblocking(pair[0], 0));
        T_OK(pysock_setblocking(pair[1], 0));
        T_EQ(pysock_ssl_wrap_socket(pair[0], client, "localhost"), 0);
        T_EQ(pysock_ssl_wrap_socket(pair[1], server, NULL), 0);
        T_EQ(finish_handshake(pair[0]), 0);
        T_EQ(finish_handshake(pair[1]), 0);
        T_EQ(pysock_ssl_session_reused(pair[0]), i > 0);
        T_EQ(pysock_ssl_session_reused(pair[1]), i > 0);
        T_CHECK(size_of_peer_certificate(pair[0]) > 200);
        t_say(pair[0], "hello");
        t_expect(pair[1], "hello");
        t_close_pair(pair);
    }
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

/* ==== ends ==== */

T_TEST(a_closed_peer_is_a_clean_end, 60) {
    h_pair p;
    char byte;
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    h_connect(&p, client, server, "localhost");
    t_say(p.server, "bye");
    T_OK(pysock_close(p.server));
    T_EQ(pysock_ssl_eof_is_clean(p.client), 0);
    t_expect(p.client, "bye");
    T_EQ(pysock_recv(p.client, &byte, 1, 0), 0);
    T_EQ(pysock_ssl_eof_is_clean(p.client), 1);
    T_STEP("and stays one");
    T_EQ(pysock_recv(p.client, &byte, 1, 0), 0);
    T_CHECK(t_readable(p.client, 0));
    h_close_all(&p, client, server);
}

static void connect_with_ragged_eofs(h_pair *p, pysock_ssl_context *client,
                                     pysock_ssl_context *server, int raise) {
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    options.server_hostname = "localhost";
    options.raise_ragged_eofs = raise;
    h_connect_ex(p, client, server, &options);
}

T_TEST(a_ragged_end_is_an_end_or_an_error_as_asked, 60) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    for (int raise = 0; raise < 2; raise++) {
        h_pair p;
        char byte;
        T_STEP("raise_ragged_eofs %d", raise);
        connect_with_ragged_eofs(&p, client, server, raise);
        t_say(p.server, "bye");
        T_EQ(shutdown(T_OK(pysock_fileno(p.server)), SHUT_WR), 0);
        t_expect(p.client, "bye");
        T_CHECK(t_readable(p.client, H_TIMEOUT));
        for (int again = 0; again < 2; again++) {
            if (raise)
                T_FAILS(pysock_recv(p.client, &byte, 1, 0), PYSOCK_SSL_EOF_ERROR, EPROTO);
            else
                T_EQ(pysock_recv(p.client, &byte, 1, 0), 0);
            T_EQ(pysock_ssl_eof_is_clean(p.client), 0);
        }
        h_close(&p);
    }
    T_STEP("an option makes it none");
    {
        uint64_t before = pysock_ssl_get_options(client);
        h_pair p;
        char byte;
        T_OK(pysock_ssl_set_options(client, before | PYSOCK_OP_IGNORE_UNEXPECTED_EOF));
        connect_with_ragged_eofs(&p, client, server, 1);
        T_EQ(shutdown(T_OK(pysock_fileno(p.server)), SHUT_WR), 0);
        T_EQ(pysock_recv(p.client, &byte, 1, 0), 0);
        h_close(&p);
        T_OK(pysock_ssl_set_options(client, before));
    }
    T_STEP("a clean end is no error");
    for (int raise = 0; raise < 2; raise++) {
        h_pair p;
        char byte;
        connect_with_ragged_eofs(&p, client, server, raise);
        T_OK(pysock_close(p.server));
        T_EQ(pysock_recv(p.client, &byte, 1, 0), 0);
        T_EQ(pysock_ssl_eof_is_clean(p.client), 1);
        h_close(&p);
    }
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

/* The peer has closed and is gone, so that our answer to its close_notify cannot be sent: that is
   the peer's clean end all the same, and no reason to wait for anything. */
T_TEST(a_close_notify_that_cannot_be_answered_is_an_end, 60) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    for (int non_blocking = 0; non_blocking < 2; non_blocking++) {
        h_pair p;
        char byte;
        double cpu;
        T_STEP("non-blocking %d", non_blocking);
        h_connect(&p, client, server, "localhost");
        T_OK(pysock_close(p.client));
        t_say(p.server, "nobody reads this; a reset comes back");
        if (non_blocking) {
            T_OK(pysock_setblocking(p.server, 0));
            T_CHECK(t_readable(p.server, H_TIMEOUT));
        }
        cpu = t_thread_cpu();
        T_EQ(pysock_recv(p.server, &byte, 1, 0), 0);
        T_EQ(pysock_ssl_eof_is_clean(p.server), 1);
        T_EQ(pysock_recv(p.server, &byte, 1, 0), 0);
        T_CHECK(t_thread_cpu() - cpu < 1);
        h_close(&p);
    }
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

/* A close with unread bytes makes the kernel reset the connection: whether the peer still sees the
   close_notify before it or not, it does not wait. */
T_TEST(a_close_with_unread_bytes_ends_the_peers_calls, 60) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    for (int non_blocking = 0; non_blocking < 2; non_blocking++) {
        h_pair p;
        char byte;
        ptrdiff_t n;
        struct pollfd arrived;
        T_STEP("non-blocking %d", non_blocking);
        h_connect(&p, client, server, "localhost");
        t_say(p.server, "unread");
        arrived.fd = T_OK(pysock_fileno(p.client));
        arrived.events = POLLIN;
        T_EQ(poll(&arrived, 1, -1), 1);
        T_OK(pysock_close(p.client));
        if (non_blocking) {
            T_OK(pysock_setblocking(p.server, 0));
            T_CHECK(t_readable(p.server, H_TIMEOUT));
        }
        n = pysock_recv(p.server, &byte, 1, 0);
        if (n != 0)
            T_EQ(pysock_error(), PYSOCK_OS_ERROR);
        if (n != 0)
            T_EQ(errno, ECONNRESET);
        h_close(&p);
    }
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

/* The next record must be an alert; then comes the end. */
static void alert_and_end_arrive(int fd) {
    unsigned char record[T_RECORD];
    size_t n = t_raw_record(fd, record);
    T_EQ(record[0], 21);
    T_CHECK(n > 7); /* encrypted: the keys are on */
    T_EQ(t_raw_read(fd, record, 1), 0);
}

T_TEST(close_sends_close_notify, 60) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    for (int way = 0; way < 6; way++) {
        pysock *pair[2];
        t_proxy proxy;
        int closer = way % 2;
        T_STEP("way %d", way);
        t_tls_pair_by_proxy(pair, &proxy, client, server);
        if (way / 2 == 1)
            T_OK(pysock_setblocking(pair[closer], 0));
        if (way / 2 == 2)
            T_OK(pysock_shutdown(pair[closer], SHUT_WR));
        else
            T_OK(pysock_close(pair[closer]));
        alert_and_end_arrive(closer ? proxy.to_server : proxy.to_client);
        t_proxy_close(&proxy);
        t_close_pair(pair);
    }
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

T_TEST(close_sends_what_was_written_before_close_notify, 60) {
    pysock *pair[2];
    t_proxy proxy;
    unsigned char record[T_RECORD];
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    t_tls_pair_by_proxy(pair, &proxy, client, server);
    t_say(pair[0], "last words");
    T_OK(pysock_close(pair[0]));
    t_raw_record(proxy.to_client, record);
    T_EQ(record[0], 23);
    alert_and_end_arrive(proxy.to_client);
    t_proxy_close(&proxy);
    t_close_pair(pair);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

T_TEST(a_record_that_was_changed_on_its_way_is_an_error, 60) {
    pysock *pair[2];
    t_proxy proxy;
    char byte;
    unsigned char record[T_RECORD];
    size_t n;
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    t_tls_pair_by_proxy(pair, &proxy, client, server);
    t_say(pair[0], "one");
    n = t_raw_record(proxy.to_client, record);
    t_raw_write(proxy.to_server, record, n);
    t_expect(pair[1], "one");
    t_say(pair[0], "two");
    n = t_raw_record(proxy.to_client, record);
    record[n - 1] ^= 1;
    t_raw_write(proxy.to_server, record, n);
    for (int again = 0; again < 2; again++) {
        T_FAILS(pysock_recv(pair[1], &byte, 1, 0), PYSOCK_SSL_ERROR, EPROTO);
        H_SAME(pysock_error_reason(), "DECRYPTION_FAILED_OR_BAD_RECORD_MAC");
    }
    T_FAILS(pysock_send(pair[1], &byte, 1, 0), PYSOCK_SSL_ERROR, EPROTO);
    t_proxy_close(&proxy);
    t_close_pair(pair);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

/* ==== unwrap ==== */

static void unwrap_both(h_pair *p) {
    t_thread thread;
    t_spawn(&thread, t_unwrap_thread, p->server);
    T_EQ(pysock_ssl_unwrap(p->client), 0);
    t_join(&thread);
}

T_TEST(unwrap_makes_plain_sockets_that_can_be_wrapped_again, 60) {
    h_pair p;
    pysock *pair[2];
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    options.server_hostname = "localhost";
    t_pair(pair);
    t_say(pair[0], "plain");
    t_expect(pair[1], "plain");
    for (int turn = 0; turn < 3; turn++) {
        T_STEP("turn %d", turn);
        h_try_on(&p, pair, client, server, &options);
        h_must_be_connected(&p, "localhost");
        h_greet(&p);
        unwrap_both(&p);
        T_EQ(pysock_is_ssl(p.client), 0);
        T_EQ(pysock_is_ssl(p.server), 0);
        T_CHECK(pysock_ssl_version(p.client) == NULL);
        h_greet(&p);
    }
    h_close_all(&p, client, server);
}

static void *unwrap_and_talk(void *arg) {
    T_EQ(pysock_ssl_unwrap(arg), 0);
    t_say(arg, "plain again");
    return NULL;
}

/* The peer's plain text follows its close_notify at once, perhaps in the same segment. */
T_TEST(unwrap_leaves_what_follows_to_the_plain_socket, 60) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    for (int turn = 0; turn < 20; turn++) {
        h_pair p;
        t_thread thread;
        T_STEP("turn %d", turn);
        h_connect(&p, client, server, "localhost");
        t_spawn(&thread, unwrap_and_talk, p.server);
        if (turn % 2)
            t_nap(0.005);
        T_EQ(pysock_ssl_unwrap(p.client), 0);
        t_expect(p.client, "plain again");
        t_join(&thread);
        h_close(&p);
    }
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

static int unwrap_step(pysock *s) {
    int result = pysock_ssl_unwrap(s);
    T_CHECK(result >= 0);
    return result == 0;
}

T_TEST(unwrap_goes_on_step_by_step_on_non_blocking_sockets, 60) {
    h_pair p;
    int done;
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    h_connect(&p, client, server, "localhost");
    T_OK(pysock_setblocking(p.client, 0));
    T_OK(pysock_setblocking(p.server, 0));
    T_FAILS(pysock_ssl_unwrap(p.client), PYSOCK_OS_ERROR, EINPROGRESS);
    T_FAILS(pysock_ssl_unwrap(p.client), PYSOCK_OS_ERROR, EINPROGRESS);
    T_CHECK(!t_readable(p.client, 0));
    T_CHECK(t_readable(p.server, H_TIMEOUT));
    do {
        done = unwrap_step(p.server);
    } while (!done && t_readable(p.server, H_TIMEOUT));
    T_CHECK(done);
    T_CHECK(t_readable(p.client, H_TIMEOUT));
    T_EQ(pysock_ssl_unwrap(p.client), 0);
    T_EQ(pysock_is_ssl(p.client) + pysock_is_ssl(p.server), 0);
    T_OK(pysock_setblocking(p.client, 1));
    T_OK(pysock_setblocking(p.server, 1));
    h_greet(&p);
    h_close_all(&p, client, server);
}

T_TEST(unwrap_waits_no_longer_than_the_timeout, 60) {
    h_pair p;
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    h_connect(&p, client, server, "localhost");
    T_OK(pysock_settimeout(p.client, 0.05));
    T_FAILS(pysock_ssl_unwrap(p.client), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    h_close_all(&p, client, server);
}

T_TEST(unwrap_reports_a_peer_that_just_hung_up, 60) {
    h_pair p;
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    h_connect(&p, client, server, "localhost");
    T_EQ(shutdown(T_OK(pysock_fileno(p.server)), SHUT_WR), 0);
    T_FAILS(pysock_ssl_unwrap(p.client), T_ANY, T_ANY);
    h_close_all(&p, client, server);
}

/* ==== handshakes that fail: against bytes made by hand ==== */

/* A wrapped client whose server is a raw descriptor, and the other way round. */
typedef struct raw_peer {
    pysock *s;
    int fd;
    pysock_ssl_context *ctx;
    t_thread thread;
    h_outcome outcome;
    int non_blocking;
} raw_peer;

static void *raw_handshake(void *arg) {
    raw_peer *r = arg;
    int result = pysock_ssl_do_handshake(r->s);
    if (result < 0 && errno == EINPROGRESS)
        result = finish_handshake(r->s);
    r->outcome = h_outcome_of(result);
    return NULL;
}

static void raw_start(raw_peer *r, int is_server, int non_blocking) {
    int port;
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    memset(r, 0, sizeof *r);
    options.no_handshake_on_connect = 1;
    if (is_server) {
        pysock *listener = t_listen(&port);
        r->fd = t_raw_connect(port);
        r->s = T_OK(pysock_accept(listener, NULL));
        T_OK(pysock_close(listener));
        r->ctx = t_server_ctx();
    } else {
        int listener = t_raw_listen(&port);
        r->s = T_OK(pysock_create_connection("127.0.0.1", port, H_TIMEOUT));
        r->fd = t_raw_accept(listener);
        close(listener);
        r->ctx = t_client_ctx();
        options.server_hostname = "localhost";
    }
    T_OK(pysock_settimeout(r->s, non_blocking ? 0 : H_TIMEOUT));
    T_OK(pysock_ssl_wrap_socket_ex(r->s, r->ctx, &options));
    t_spawn(&r->thread, raw_handshake, r);
}

static void raw_end(raw_peer *r) {
    T_OK(pysock_close(r->s));
    close(r->fd);
    pysock_ssl_context_release(r->ctx);
}

/* What the library says to the raw peer before it hangs up: a fatal alert, or nothing. Returns the
   alert's number, 0 for nothing. */
static int raw_alert(int fd) {
    unsigned char record[16];
    size_t n = t_raw_read(fd, record, 7);
    if (n == 0)
        return 0;
    T_EQ(n, 7);
    T_EQ(record[0], 21);
    T_EQ(record[1], 3);
    T_EQ(record[3], 0);
    T_EQ(record[4], 2);
    T_EQ(record[5], 2);
    return record[6];
}

typedef struct garbage {
    const char *what;
    const char *bytes;
    size_t size;
    const char *reason; /* NULL: whatever, as long as it is an SSLError */
} garbage;

#define BYTES(text) text, sizeof text - 1

T_TEST(garbage_instead_of_a_client_hello_is_an_error, 120) {
    static const garbage cases[] = {
        {"GET", BYTES("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), "HTTP_REQUEST"},
        {"POST", BYTES("POST /x HTTP/1.1\r\nHost: localhost\r\n\r\n"), "HTTP_REQUEST"},
        {"HEAD", BYTES("HEAD / HTTP/1.0\r\n\r\n"), "HTTP_REQUEST"},
        {"SSH", BYTES("SSH-2.0-OpenSSH_9.2\r\n"), "WRONG_VERSION_NUMBER"},
        {"zeros", BYTES("\0\0\0\0\0\0\0\0\0\0\0\0"), "WRONG_VERSION_NUMBER"},
        {"noise", BYTES("\x8f\x12\xfe\x00\x33\x99\xab\xcd\xef\x01\x02\x03"),
         "WRONG_VERSION_NUMBER"},
        {"record that is too long", BYTES("\x16\x03\x03\xff\xff\x01\x00\xff\xfb\x03\x03"), NULL},
        {"empty handshake", BYTES("\x16\x03\x03\x00\x04\x01\x00\x00\x00"), NULL},
        {"data", BYTES("\x17\x03\x03\x00\x05hello"), NULL},
        {"hello of TLS 1.3 alone",
         BYTES("\x16\x03\x01\x00\x36\x01\x00\x00\x32\x03\x03"
               "0123456789abcdef0123456789abcdef\x00\x00\x02\x13\x01\x01\x00"
               "\x00\x07\x00\x2b\x00\x03\x02\x03\x04"),
         "UNSUPPORTED_PROTOCOL"},
        {"truncated hello", BYTES("\x16\x03\x03\x00\x0a\x01\x00\x00\x06\x03\x03\x00\x00\x00\x00"),
         NULL},
    };
    for (size_t i = 0; i < 2 * sizeof cases / sizeof cases[0]; i++) {
        const garbage *g = &cases[i / 2];
        raw_peer r;
        T_STEP("%s", g->what);
        raw_start(&r, 1, i % 2);
        t_raw_write(r.fd, g->bytes, g->size);
        t_join(&r.thread);
        T_EQ(r.outcome.result, -1);
        if (r.outcome.kind != PYSOCK_SSL_ERROR)
            T_FAIL("%s: %s, %s", g->what, r.outcome.name, r.outcome.message);
        if (g->reason)
            H_SAME(r.outcome.reason, g->reason);
        T_OK(pysock_close(r.s));
        raw_alert(r.fd);
        raw_end(&r);
    }
}

T_TEST(garbage_instead_of_a_server_hello_is_an_error, 60) {
    static const garbage cases[] = {
        {"HTTP", BYTES("HTTP/1.1 400 Bad Request\r\n\r\n"), "WRONG_VERSION_NUMBER"},
        {"FTP", BYTES("220 ready\r\n"), "WRONG_VERSION_NUMBER"},
        {"data", BYTES("\x17\x03\x03\x00\x05hello"), NULL},
        {"hello of TLS 1.0",
         BYTES("\x16\x03\x01\x00\x2a\x02\x00\x00\x26\x03\x01"
               "0123456789abcdef0123456789abcdef\x00\x00\x2f\x00"),
         NULL},
    };
    for (size_t i = 0; i < 2 * sizeof cases / sizeof cases[0]; i++) {
        const garbage *g = &cases[i / 2];
        raw_peer r;
        T_STEP("%s", g->what);
        raw_start(&r, 0, i % 2);
        t_raw_write(r.fd, g->bytes, g->size);
        t_join(&r.thread);
        T_EQ(r.outcome.result, -1);
        if (r.outcome.kind != PYSOCK_SSL_ERROR)
            T_FAIL("%s: %s, %s", g->what, r.outcome.name, r.outcome.message);
        if (g->reason)
            H_SAME(r.outcome.reason, g->reason);
        raw_end(&r);
    }
}

T_TEST(fatal_alerts_are_named, 60) {
    static const struct {
        unsigned char number;
        const char *reason;
    } alerts[] = {
        {10, "SSLV3_ALERT_UNEXPECTED_MESSAGE"},
        {20, "SSLV3_ALERT_BAD_RECORD_MAC"},
        {40, "SSLV3_ALERT_HANDSHAKE_FAILURE"},
        {42, "SSLV3_ALERT_BAD_CERTIFICATE"},
        {43, "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE"},
        {44, "SSLV3_ALERT_CERTIFICATE_REVOKED"},
        {45, "SSLV3_ALERT_CERTIFICATE_EXPIRED"},
        {46, "SSLV3_ALERT_CERTIFICATE_UNKNOWN"},
        {47, "SSLV3_ALERT_ILLEGAL_PARAMETER"},
        {48, "TLSV1_ALERT_UNKNOWN_CA"},
        {49, "TLSV1_ALERT_ACCESS_DENIED"},
        {50, "TLSV1_ALERT_DECODE_ERROR"},
        {51, "TLSV1_ALERT_DECRYPT_ERROR"},
        {70, "TLSV1_ALERT_PROTOCOL_VERSION"},
        {71, "TLSV1_ALERT_INSUFFICIENT_SECURITY"},
        {80, "TLSV1_ALERT_INTERNAL_ERROR"},
        {112, "TLSV1_UNRECOGNIZED_NAME"},
        {120, "TLSV1_ALERT_NO_APPLICATION_PROTOCOL"},
    };
    for (size_t i = 0; i < sizeof alerts / sizeof alerts[0]; i++) {
        raw_peer r;
        unsigned char record[7] = {21, 3, 3, 0, 2, 2, 0};
        T_STEP("alert %d", alerts[i].number);
        record[6] = alerts[i].number;
        raw_start(&r, 0, (int)(i % 2));
        t_raw_write(r.fd, record, sizeof record);
        t_join(&r.thread);
        h_is_alert(&r.outcome, "");
        H_SAME(r.outcome.reason, alerts[i].reason);
        raw_end(&r);
    }
}

T_TEST(the_end_of_the_stream_in_a_handshake_is_an_error, 60) {
    for (int way = 0; way < 4; way++) {
        raw_peer r;
        T_STEP("way %d", way);
        raw_start(&r, way & 1, way >> 1);
        T_EQ(shutdown(r.fd, SHUT_WR), 0);
        t_join(&r.thread);
        T_EQ(r.outcome.result, -1);
        T_EQ(r.outcome.kind, PYSOCK_SSL_EOF_ERROR);
        H_SAME(r.outcome.name, "SSLEOFError");
        H_SAME(r.outcome.reason, "UNEXPECTED_EOF");
        raw_end(&r);
    }
}

T_TEST(a_reset_in_a_handshake_is_an_error_of_the_system, 60) {
    for (int way = 0; way < 4; way++) {
        raw_peer r;
        T_STEP("way %d", way);
        raw_start(&r, way & 1, way >> 1);
        if (!(way & 1)) {
            unsigned char record[T_RECORD];
            t_raw_record(r.fd, record);
        }
        t_raw_reset(r.fd);
        t_join(&r.thread);
        T_EQ(r.outcome.result, -1);
        T_EQ(r.outcome.kind, PYSOCK_OS_ERROR);
        T_EQ(r.outcome.error_number, ECONNRESET);
        raw_end(&r);
    }
}

/* A ClientHello for that version, with suites of the time and nothing else. */
static size_t client_hello(unsigned char *out, unsigned char minor) {
    static const unsigned char suites[] = {0xc0, 0x09, 0xc0, 0x0a, 0xc0, 0x13,
                                           0xc0, 0x14, 0x00, 0x2f, 0x00, 0x35};
    size_t n = 0;
    memset(out, 0, 100);
    out[n++] = 22;
    out[n++] = 3;
    out[n++] = 1;
    out[n++] = 0;
    out[n++] = 4 + 2 + 32 + 1 + 2 + sizeof suites + 2;
    out[n++] = 1;
    out[n++] = 0;
    out[n++] = 0;
    out[n++] = 2 + 32 + 1 + 2 + sizeof suites + 2;
    out[n++] = 3;
    out[n++] = minor;
    memset(out + n, 0x5a, 32);
    n += 32;
    out[n++] = 0;
    out[n++] = 0;
    out[n++] = sizeof suites;
    memcpy(out + n, suites, sizeof suites);
    n += sizeof suites;
    out[n++] = 1;
    out[n++] = 0;
    return n;
}

T_TEST(old_versions_are_refused_with_protocol_version, 60) {
    for (int i = 0; i < 6; i++) {
        raw_peer r;
        unsigned char hello[100];
        size_t n = client_hello(hello, (unsigned char)(i / 2));
        T_STEP("3.%d", i / 2);
        raw_start(&r, 1, i % 2);
        t_raw_write(r.fd, hello, n);
        T_EQ(raw_alert(r.fd), 70);
        t_join(&r.thread);
        T_EQ(r.outcome.result, -1);
        T_EQ(r.outcome.kind, PYSOCK_SSL_ERROR);
        raw_end(&r);
    }
}

static void openssl_is_told(const char *version, const char *ciphers, const char *alert) {
    static p_process process;
    p_args args = {{NULL}, 0};
    int port;
    h_outcome o;
    pysock *listener = t_listen(&port), *s;
    pysock_ssl_context *ctx = t_server_ctx();
    p_add(&args, "openssl", "s_client", "-connect", p_format("127.0.0.1:%d", port), version,
          "-cipher", ciphers, NULL);
    p_start(&process, &args);
    T_OK(pysock_settimeout(listener, P_PATIENCE));
    s = T_OK(pysock_accept(listener, NULL));
    T_OK(pysock_settimeout(s, P_PATIENCE));
    o = h_outcome_of(pysock_ssl_wrap_socket(s, ctx, NULL));
    T_EQ(o.result, -1);
    T_EQ(o.kind, PYSOCK_SSL_ERROR);
    T_CHECK(p_exit_status(&process) != 0);
    if (!p_has_said(&process, alert))
        P_FAIL(&process, "openssl was not told '%s'", alert);
    p_end(&process);
    T_OK(pysock_close(s));
    T_OK(pysock_close(listener));
    pysock_ssl_context_release(ctx);
}

T_TEST(openssl_is_told_why_its_hello_was_refused, 60) {
    P_NEED("openssl");
    T_STEP("TLS 1.0");
    openssl_is_told("-tls1", "DEFAULT@SECLEVEL=0", "alert protocol version");
    T_STEP("TLS 1.1");
    openssl_is_told("-tls1_1", "DEFAULT@SECLEVEL=0", "alert protocol version");
    T_STEP("no suite in common: the key is for ECDSA");
    openssl_is_told("-tls1_2", "ECDHE-RSA-AES128-GCM-SHA256", "alert handshake failure");
}

/* ---- alerts of a client, seen on the wire ---- */

typedef struct tap {
    int to_client, to_server;
    unsigned char bytes[8192]; /* from the client to the server */
    size_t size;
} tap;

/* Passes on what comes; 0 at the end, which is passed on too. */
static int tap_forward(tap *t, int from_client) {
    unsigned char buf[4096];
    int from = from_client ? t->to_client : t->to_server;
    int to = from_client ? t->to_server : t->to_client;
    ssize_t n = recv(from, buf, sizeof buf, 0);
    if (n <= 0) {
        shutdown(to, SHUT_WR);
        return 0;
    }
    if (from_client && t->size + (size_t)n <= sizeof t->bytes) {
        memcpy(t->bytes + t->size, buf, (size_t)n);
        t->size += (size_t)n;
    }
    /* The other side may be gone already. */
    return send(to, buf, (size_t)n, MSG_NOSIGNAL) == n;
}

static void *tap_thread(void *arg) {
    tap *t = arg;
    int from_client = 1, from_server = 1;
    while (from_client || from_server) {
        struct pollfd fds[2];
        fds[0].fd = from_client ? t->to_client : -1;
        fds[1].fd = from_server ? t->to_server : -1;
        fds[0].events = fds[1].events = POLLIN;
        fds[0].revents = fds[1].revents = 0;
        poll(fds, 2, -1);
        if (fds[0].revents)
            from_client = tap_forward(t, 1);
        if (fds[1].revents)
            from_server = tap_forward(t, 0);
    }
    return NULL;
}

/* The last record in the bytes; there must be whole records only. */
static const unsigned char *last_record(const unsigned char *bytes, size_t size) {
    size_t at = 0, last = 0;
    while (at + 5 <= size) {
        last = at;
        at += 5 + (((size_t)bytes[at + 3] << 8) | bytes[at + 4]);
    }
    T_EQ(at, size);
    return bytes + last;
}

T_TEST(a_client_that_refuses_sends_the_alert_for_it, 60) {
    static const struct {
        const char *cert;
        int alert; /* 0: any */
    } cases[] = {{"untrusted", 48}, {"self-signed", 48}, {"expired", 45}, {"wrong-host", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        h_pair p;
        tap t;
        t_thread thread;
        int raw_port, port, raw = t_raw_listen(&raw_port);
        pysock *pair[2], *listener = t_listen(&port);
        const unsigned char *record;
        pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
        pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx_of(cases[i].cert);
        T_STEP("%s", cases[i].cert);
        memset(&t, 0, sizeof t);
        options.server_hostname = "localhost";
        pair[0] = T_OK(pysock_create_connection("127.0.0.1", raw_port, H_TIMEOUT));
        t.to_client = t_raw_accept(raw);
        t.to_server = t_raw_connect(port);
        pair[1] = T_OK(pysock_accept(listener, NULL));
        t_spawn(&thread, tap_thread, &t);
        h_try_on(&p, pair, client, server, &options);
        T_EQ(p.at_client.kind, PYSOCK_SSL_CERT_VERIFICATION_ERROR);
        h_close(&p);
        t_join(&thread);
        record = last_record(t.bytes, t.size);
        T_EQ(record[0], 21);
        T_EQ(record[3], 0);
        T_EQ(record[4], 2);
        T_EQ(record[5], 2);
        if (cases[i].alert)
            T_EQ(record[6], cases[i].alert);
        close(t.to_client);
        close(t.to_server);
        close(raw);
        T_OK(pysock_close(listener));
        pysock_ssl_context_release(client);
        pysock_ssl_context_release(server);
    }
}

T_MAIN(.each_teardown = p_end_all)
