/* What a binding to an interpreter needs of TLS: handshakes that begin later than the wrapping,
   half-closed connections, and the messages of a handshake. */
#include "support/support.h"
#include "support/handshake.h"

static pysock_ssl_wrap_options later(const char *host) {
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    options.server_hostname = host;
    options.no_handshake_on_connect = 1;
    return options;
}

static void *do_handshake(void *arg) {
    T_OK(pysock_ssl_do_handshake(arg));
    return NULL;
}

/* ---- when a handshake begins, and who drives it ---- */

/* Python's documented loop waits for readability when do_handshake() wants to read, which here says
   no more than that it goes on. Without caller_drives levels are about data alone. */
T_TEST(the_end_of_a_handshake_makes_readable_for_a_caller_that_drives, 60) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    pysock_ssl_wrap_options options = later("localhost");
    pysock *pair[2];
    h_pair p;
    char byte;
    t_thread thread;
    options.caller_drives = 1;
    for (int by_recv = 0; by_recv < 2; by_recv++) {
        h_plain_pair(pair);
        memset(&p, 0, sizeof p);
        p.client = pair[0];
        p.server = pair[1];
        p.server_ctx = server;
        T_OK(pysock_settimeout(p.server, H_TIMEOUT));
        T_OK(pysock_setblocking(p.client, 0));
        T_OK(pysock_ssl_wrap_socket_ex(p.client, client, &options));
        T_FAILS(pysock_ssl_do_handshake(p.client), PYSOCK_OS_ERROR, EINPROGRESS);
        T_CHECK(!t_readable(p.client, 0));
        t_spawn(&thread, h_serve, &p);
        T_CHECK(t_readable(p.client, H_TIMEOUT));
        t_join(&thread);
        T_CHECK(t_readable(p.client, 0)); /* a level: until somebody has seen it */
        if (by_recv)
            T_FAILS(pysock_recv(p.client, &byte, 1, 0), PYSOCK_OS_ERROR, EAGAIN);
        else
            T_EQ(pysock_ssl_do_handshake(p.client), 0);
        T_CHECK(!t_readable(p.client, 0));
        t_say(p.server, "x");
        T_CHECK(t_readable(p.client, H_TIMEOUT));
        h_close(&p);
    }
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

T_TEST(the_end_of_a_handshake_makes_writable_alone, 60) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    pysock_ssl_wrap_options options = later("localhost");
    pysock *pair[2];
    h_pair p;
    t_thread thread;
    h_plain_pair(pair);
    memset(&p, 0, sizeof p);
    p.client = pair[0];
    p.server = pair[1];
    p.server_ctx = server;
    T_OK(pysock_settimeout(p.server, H_TIMEOUT));
    T_OK(pysock_setblocking(p.client, 0));
    T_OK(pysock_ssl_wrap_socket_ex(p.client, client, &options));
    T_FAILS(pysock_ssl_do_handshake(p.client), PYSOCK_OS_ERROR, EINPROGRESS);
    t_spawn(&thread, h_serve, &p);
    T_CHECK(t_writable(p.client, H_TIMEOUT));
    T_CHECK(!t_readable(p.client, 0));
    T_EQ(pysock_ssl_do_handshake(p.client), 0);
    t_join(&thread);
    h_close_all(&p, client, server);
}

/* An event loop that watches the descriptor itself, as gevent's: the kernel's word must do, and
   nobody else may read what has come. */
T_TEST(a_caller_that_drives_needs_nobody_elses_poll, 60) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    pysock_ssl_wrap_options options = later("localhost");
    int port, threads = t_count_threads(), calls[2] = {0, 0}, done[2] = {0, 0};
    pysock *listener = t_listen(&port);
    char byte;
    h_pair p;
    memset(&p, 0, sizeof p);
    options.caller_drives = 1;
    p.client = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_setblocking(p.client, 0));
    T_OK(pysock_ssl_wrap_socket_ex(p.client, client, &options));
    T_FAILS(pysock_connect(p.client, "127.0.0.1", port), PYSOCK_OS_ERROR, EINPROGRESS);
    p.server = T_OK(pysock_accept(listener, NULL));
    T_OK(pysock_setblocking(p.server, 0));
    options.server_hostname = NULL;
    T_OK(pysock_ssl_wrap_socket_ex(p.server, server, &options));
    while (!done[0] || !done[1])
        for (int i = 0; i < 2; i++) {
            pysock *s = i ? p.server : p.client;
            struct pollfd fd = {T_OK(pysock_fileno(s)), (short)(calls[i] ? POLLIN : POLLOUT), 0};
            if (done[i] || poll(&fd, 1, 10) == 0)
                continue;
            calls[i]++;
            done[i] = !t_in_progress(pysock_ssl_do_handshake(s));
        }
    T_CHECK(calls[0] < 8 && calls[1] < 8);
    T_EQ(t_count_threads(), threads);
    T_FAILS(pysock_recv(p.client, &byte, 1, 0), PYSOCK_OS_ERROR, EAGAIN);
    h_greet(&p);
    T_OK(pysock_close(listener));
    h_close_all(&p, client, server);
}

T_TEST(a_session_may_be_set_until_the_handshake_begins, 60) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx(), *other = t_client_ctx();
    pysock_ssl_wrap_options options = later("localhost");
    pysock_ssl_session *session, *foreign;
    h_pair p;
    pysock *pair[2];
    t_thread thread;
    T_OK(pysock_ssl_set_session_cache(client, 0)); /* nothing is resumed by itself */
    h_connect(&p, other, server, "localhost");
    foreign = T_OK(pysock_ssl_get_session(p.client));
    h_close(&p);
    h_connect(&p, client, server, "localhost");
    session = T_OK(pysock_ssl_get_session(p.client));
    T_FAILS(pysock_ssl_set_session(p.client, session), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_set_session(p.server, session), PYSOCK_VALUE_ERROR, EINVAL);
    h_close(&p);
    for (int set = 0; set < 2; set++) {
        h_plain_pair(pair);
        memset(&p, 0, sizeof p);
        p.client = pair[0];
        p.server = pair[1];
        p.server_ctx = server;
        T_OK(pysock_settimeout(p.server, H_TIMEOUT));
        T_OK(pysock_ssl_wrap_socket_ex(p.client, client, &options));
        T_FAILS(pysock_ssl_set_session(p.client, foreign), PYSOCK_VALUE_ERROR, EINVAL);
        if (set)
            T_OK(pysock_ssl_set_session(p.client, session));
        t_spawn(&thread, h_serve, &p);
        T_OK(pysock_ssl_do_handshake(p.client));
        t_join(&thread);
        T_EQ(pysock_ssl_session_reused(p.client), set);
        T_EQ(pysock_ssl_session_reused(p.server), set);
        h_greet(&p);
        h_close(&p);
    }
    pysock_ssl_session_release(session);
    pysock_ssl_session_release(foreign);
    pysock_ssl_context_release(other);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

/* CPython's SSLSocket wraps in each connect(), after one that failed too. */
T_TEST(what_connect_has_not_come_to_may_be_wrapped_anew, 60) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    pysock_ssl_wrap_options options = later("elsewhere");
    pysock *s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0)), *listener;
    t_thread thread;
    h_pair p;
    int port;
    memset(&p, 0, sizeof p);
    T_OK(pysock_settimeout(s, H_TIMEOUT));
    T_OK(pysock_close(t_listen(&port))); /* nobody listens there now */
    T_OK(pysock_ssl_wrap_socket_ex(s, client, &options));
    T_FAILS(pysock_connect(s, "127.0.0.1", port), PYSOCK_OS_ERROR, ECONNREFUSED);
    options.server_hostname = "localhost";
    T_OK(pysock_ssl_wrap_socket_ex(s, client, &options));
    listener = t_listen(&port);
    T_OK(pysock_connect(s, "127.0.0.1", port));
    T_FAILS(pysock_ssl_wrap_socket_ex(s, client, &options), PYSOCK_VALUE_ERROR, EINVAL);
    p.client = s;
    p.server = T_OK(pysock_accept(listener, NULL));
    p.server_ctx = server;
    T_OK(pysock_settimeout(p.server, H_TIMEOUT));
    t_spawn(&thread, h_serve, &p);
    T_OK(pysock_ssl_do_handshake(s));
    t_join(&thread);
    h_greet(&p);
    T_OK(pysock_close(listener));
    h_close_all(&p, client, server);
}

static int bring_certificate(void *arg, const pysock_ssl_client_hello *hello) {
    T_OK(pysock_ssl_set_context(hello->socket, arg));
    return 0;
}

static void *fail_to_serve(void *arg) {
    T_FAILS(pysock_ssl_do_handshake(arg), PYSOCK_SSL_ERROR, T_ANY);
    H_SAME(pysock_error_reason(), "NO_SHARED_CIPHER");
    H_CONTAINS(pysock_error_message(), "no certificate");
    return NULL;
}

T_TEST(a_handshake_left_to_later_tells_both_sides_of_a_missing_certificate, 60) {
    pysock_ssl_context *bare = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    pysock_ssl_wrap_options options = later(NULL);
    pysock *pair[2];
    t_thread thread;
    h_pair p;
    t_pair(pair);
    options.no_handshake_on_connect = 0;
    T_FAILS(pysock_ssl_wrap_socket_ex(pair[1], bare, &options), PYSOCK_SSL_ERROR, T_ANY);
    options.no_handshake_on_connect = 1;
    T_OK(pysock_ssl_wrap_socket_ex(pair[1], bare, &options));
    options.server_hostname = "localhost";
    T_OK(pysock_ssl_wrap_socket_ex(pair[0], client, &options));
    t_spawn(&thread, fail_to_serve, pair[1]);
    T_FAILS(pysock_ssl_do_handshake(pair[0]), PYSOCK_SSL_ERROR, T_ANY);
    H_SAME(pysock_error_reason(), "SSLV3_ALERT_HANDSHAKE_FAILURE");
    t_join(&thread);
    t_close_pair(pair);
    T_OK(pysock_ssl_set_sni_callback(bare, bring_certificate, server));
    h_connect(&p, client, bare, "localhost");
    h_greet(&p);
    pysock_ssl_context_release(bare);
    h_close_all(&p, client, server);
}

T_TEST(the_host_name_of_one_connection_may_go_unchecked, 60) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx(), *strange;
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    h_pair p;
    options.insecure_no_check_hostname = 1;
    for (int with_name = 0; with_name < 2; with_name++) {
        options.server_hostname = with_name ? "elsewhere" : NULL;
        h_try_ex(&p, client, server, &options);
        h_must_be_connected(&p, options.server_hostname);
        h_greet(&p);
        h_close(&p);
    }
    strange = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH)); /* a chain is verified still */
    h_try_ex(&p, strange, server, &options);
    T_EQ(p.at_client.kind, PYSOCK_SSL_CERT_VERIFICATION_ERROR);
    pysock_ssl_context_release(strange);
    options.insecure_no_check_hostname = 0;
    h_try_ex(&p, client, server, &options);
    T_EQ(p.at_client.kind, PYSOCK_SSL_CERT_VERIFICATION_ERROR);
    h_close_all(&p, client, server);
}

/* ---- half-closed connections and unwrap ---- */

static void wrapped_pair(h_pair *p, pysock_ssl_context *client, pysock_ssl_context *server,
                         pysock_ssl_wrap_options options) {
    t_thread thread;
    pysock *pair[2];
    h_plain_pair(pair);
    memset(p, 0, sizeof *p);
    p->client = pair[0];
    p->server = pair[1];
    p->server_ctx = server;
    T_OK(pysock_settimeout(p->client, H_TIMEOUT));
    T_OK(pysock_settimeout(p->server, H_TIMEOUT));
    T_OK(pysock_ssl_wrap_socket_ex(p->client, client, &options));
    options.server_hostname = NULL;
    T_OK(pysock_ssl_wrap_socket_ex(p->server, server, &options));
    t_spawn(&thread, do_handshake, p->server);
    T_OK(pysock_ssl_do_handshake(p->client));
    t_join(&thread);
}

static void half_closed_pair(h_pair *p, pysock_ssl_context *client, pysock_ssl_context *server) {
    pysock_ssl_wrap_options options = later("localhost");
    options.half_close = 1;
    wrapped_pair(p, client, server, options);
}

/* RFC 5246 wants the end answered at once, and what is on its way dropped; OpenSSL does not. */
T_TEST(with_half_close_each_direction_ends_by_itself, 60) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    char buf[8];
    h_pair p;
    half_closed_pair(&p, client, server);
    T_OK(pysock_shutdown(p.client, SHUT_WR));
    T_EQ(pysock_recv(p.server, buf, sizeof buf, 0), 0);
    T_EQ(pysock_ssl_eof_is_clean(p.server), 1);
    for (int i = 0; i < 3; i++) {
        t_say(p.server, "still here");
        t_expect(p.client, "still here");
    }
    T_EQ(pysock_recv(p.server, buf, sizeof buf, 0), 0);
    T_EQ(pysock_ssl_eof_is_clean(p.client), 0);
    T_OK(pysock_shutdown(p.server, SHUT_WR));
    T_EQ(pysock_recv(p.client, buf, sizeof buf, 0), 0);
    T_EQ(pysock_ssl_eof_is_clean(p.client), 1);
    T_FAILS(pysock_send(p.server, "x", 1, 0), T_ANY, EPIPE);
    h_close(&p);
    half_closed_pair(&p, client, server); /* and close() sends ours */
    T_OK(pysock_shutdown(p.client, SHUT_WR));
    T_EQ(pysock_recv(p.server, buf, sizeof buf, 0), 0);
    T_OK(pysock_close(p.server));
    p.server = NULL;
    T_EQ(pysock_recv(p.client, buf, sizeof buf, 0), 0);
    T_EQ(pysock_ssl_eof_is_clean(p.client), 1);
    h_close_all(&p, client, server);
}

/* As with OpenSSL: a peer that just closes has ended its direction, and data in front of its end is
   not thrown away. */
T_TEST(with_half_close_unwrap_is_as_openssl_has_it, 60) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    pysock_ssl_wrap_options options = later("localhost");
    char buf[8];
    h_pair p;
    options.half_close = options.no_close_notify = 1;
    wrapped_pair(&p, client, server, options);
    T_OK(pysock_close(p.server));
    p.server = NULL;
    T_OK(pysock_ssl_unwrap(p.client));
    T_EQ(pysock_is_ssl(p.client), 0);
    h_close(&p);
    T_STEP("data in front");
    wrapped_pair(&p, client, server, options);
    t_say(p.server, "late");
    T_FAILS(pysock_ssl_unwrap(p.client), PYSOCK_SSL_ERROR, EPROTO);
    H_SAME(pysock_error_reason(), "APPLICATION_DATA_AFTER_CLOSE_NOTIFY");
    T_EQ(pysock_recv(p.client, buf, sizeof buf, 0), 4);
    T_STEP("the other direction goes on");
    T_FAILS(pysock_send(p.client, "x", 1, 0), PYSOCK_SSL_ERROR, T_ANY);
    H_SAME(pysock_error_reason(), "PROTOCOL_IS_SHUTDOWN");
    T_OK(pysock_settimeout(p.client, 0.01));
    T_FAILS(pysock_recv(p.client, buf, sizeof buf, 0), PYSOCK_TIMEOUT_ERROR, T_ANY);
    T_OK(pysock_settimeout(p.client, 0));
    T_FAILS(pysock_recv(p.client, buf, sizeof buf, 0), T_ANY, EAGAIN);
    T_FAILS(pysock_send(p.client, "x", 1, 0), PYSOCK_SSL_ERROR, T_ANY);
    T_OK(pysock_settimeout(p.client, H_TIMEOUT));
    t_say(p.server, "more");
    T_EQ(pysock_recv(p.client, buf, sizeof buf, 0), 4);
    T_EQ(pysock_recv(p.server, buf, sizeof buf, 0), 0);
    T_OK(pysock_ssl_unwrap(p.server));
    T_EQ(pysock_recv(p.client, buf, sizeof buf, 0), 0);
    T_OK(pysock_ssl_unwrap(p.client));
    T_EQ(pysock_is_ssl(p.client), 0);
    h_close_all(&p, client, server);
}

T_TEST(without_close_notify_only_unwrap_says_the_end, 60) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    pysock_ssl_wrap_options options = later("localhost");
    char buf[8];
    h_pair p;
    options.no_close_notify = 1;
    wrapped_pair(&p, client, server, options);
    t_say(p.client, "last");
    T_OK(pysock_shutdown(p.client, SHUT_WR));
    t_expect(p.server, "last");
    T_EQ(pysock_recv(p.server, buf, sizeof buf, 0), 0);
    T_EQ(pysock_ssl_eof_is_clean(p.server), 0);
    T_OK(pysock_close(p.server));
    p.server = NULL;
    T_EQ(pysock_recv(p.client, buf, sizeof buf, 0), 0);
    T_EQ(pysock_ssl_eof_is_clean(p.client), 0);
    h_close(&p);
    wrapped_pair(&p, client, server, options);
    T_OK(pysock_setblocking(p.client, 0));
    T_FAILS(pysock_ssl_unwrap(p.client), PYSOCK_OS_ERROR, EINPROGRESS);
    T_EQ(pysock_recv(p.server, buf, sizeof buf, 0), 0);
    T_EQ(pysock_ssl_eof_is_clean(p.server), 1);
    h_close_all(&p, client, server);
}

T_TEST(what_comes_before_the_peers_end_can_be_received_while_unwrapping, 60) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    char buf[8];
    h_pair p;
    half_closed_pair(&p, client, server);
    T_OK(pysock_setblocking(p.client, 0));
    T_FAILS(pysock_ssl_unwrap(p.client), PYSOCK_OS_ERROR, EINPROGRESS);
    T_EQ(pysock_recv(p.server, buf, sizeof buf, 0), 0);
    t_say(p.server, "late");
    while (pysock_ssl_unwrap(p.client) < 0 && errno == EINPROGRESS)
        poll(NULL, 0, 1);
    H_SAME(pysock_error_reason(), "APPLICATION_DATA_AFTER_CLOSE_NOTIFY");
    T_EQ(pysock_recv(p.client, buf, sizeof buf, 0), 4);
    T_FAILS(pysock_recv(p.client, buf, sizeof buf, 0), PYSOCK_OS_ERROR, EAGAIN);
    T_OK(pysock_ssl_unwrap(p.server));
    T_OK(pysock_settimeout(p.client, H_TIMEOUT));
    T_OK(pysock_ssl_unwrap(p.client));
    h_greet(&p);
    h_close_all(&p, client, server);
}

static void carry(pysock_bio *from, pysock_bio *to) {
    char buf[4096];
    ptrdiff_t n;
    while ((n = pysock_bio_read(from, buf, sizeof buf)) > 0)
        T_EQ(pysock_bio_write(to, buf, (size_t)n), n);
}

T_TEST(what_is_sent_after_unwrap_between_bios_is_an_error_of_tls, 60) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    pysock_bio *there = T_OK(pysock_bio_new()), *back = T_OK(pysock_bio_new());
    pysock_ssl_wrap_options options = later("localhost");
    pysock *c = T_OK(pysock_ssl_wrap_bio(client, back, there, &options));
    pysock_bio *there2 = T_OK(pysock_bio_new()), *back2 = T_OK(pysock_bio_new());
    pysock *s = T_OK(pysock_ssl_wrap_bio(server, there2, back2, NULL));
    for (int i = 0; i < 4; i++) {
        pysock_ssl_do_handshake(c);
        carry(there, there2);
        pysock_ssl_do_handshake(s);
        carry(back2, back);
    }
    T_EQ(pysock_ssl_do_handshake(c), 0);
    T_FAILS(pysock_ssl_unwrap(c), PYSOCK_SSL_WANT_READ_ERROR, T_ANY);
    carry(there, there2);
    T_EQ(pysock_ssl_unwrap(s), 0);
    carry(back2, back);
    T_EQ(pysock_ssl_unwrap(c), 0);
    T_FAILS(pysock_send(c, "x", 1, 0), PYSOCK_SSL_ERROR, T_ANY);
    H_SAME(pysock_error_reason(), "PROTOCOL_IS_SHUTDOWN");
    T_OK(pysock_close(c));
    T_OK(pysock_close(s));
    pysock_bio_release(there);
    pysock_bio_release(back);
    pysock_bio_release(there2);
    pysock_bio_release(back2);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

/* ---- messages, records, the key log ---- */

/* Of one side: "<" or ">", content type, kind; without the headers. */
typedef struct transcript {
    char text[512];
    size_t headers, bytes;
} transcript;

static void note_message(void *arg, const pysock_ssl_message *m) {
    transcript *t = arg;
    size_t used = strlen(t->text);
    T_CHECK(m->socket != NULL);
    if (m->content_type == 256) {
        T_EQ(m->size, 5);
        T_EQ(((const unsigned char *)m->data)[0], m->type);
        t->headers++;
        return;
    }
    t->bytes += m->size;
    snprintf(t->text + used, sizeof t->text - used, "%c%d.%d ", m->sent ? '>' : '<',
             m->content_type, m->type);
}

/* RFC 5246, 7.3: all but the two Finished messages, which are encrypted. */
T_TEST(the_messages_of_a_handshake_can_be_watched, 60) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    transcript seen[2];
    h_pair p;
    memset(seen, 0, sizeof seen);
    T_OK(pysock_ssl_set_message_callback(client, note_message, &seen[0]));
    T_OK(pysock_ssl_set_message_callback(server, note_message, &seen[1]));
    h_connect(&p, client, server, "localhost");
    h_greet(&p);
    H_SAME(seen[0].text, ">22.1 <22.2 <22.11 <22.12 <22.14 >22.16 >20.257 <20.257 ");
    H_SAME(seen[1].text, "<22.1 >22.2 >22.11 >22.12 >22.14 <22.16 <20.257 >20.257 ");
    T_EQ(seen[0].bytes, seen[1].bytes);
    T_EQ(seen[0].headers, seen[1].headers);
    T_OK(pysock_ssl_set_message_callback(client, NULL, NULL));
    h_close(&p);
    h_connect(&p, client, server, "localhost");
    H_SAME(seen[0].text, ">22.1 <22.2 <22.11 <22.12 <22.14 >22.16 >20.257 <20.257 ");
    T_FAILS(pysock_ssl_set_message_callback(NULL, NULL, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    h_close_all(&p, client, server);
}

/* TLS 1.0 sends a record of one byte first. */
T_TEST(what_one_send_takes_comes_in_one_recv_in_tls_1_0_too, 60) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    char buf[64];
    h_pair p;
    T_OK(pysock_ssl_set_minimum_version(client, PYSOCK_TLSv1));
    T_OK(pysock_ssl_set_minimum_version(server, PYSOCK_TLSv1));
    T_OK(pysock_ssl_set_maximum_version(server, PYSOCK_TLSv1));
    T_OK(pysock_ssl_set_ciphers(client, "ALL"));
    T_OK(pysock_ssl_set_ciphers(server, "ALL"));
    h_connect(&p, client, server, "localhost");
    H_SAME(pysock_ssl_version(p.client), "TLSv1");
    T_EQ(pysock_send(p.client, "twelve bytes", 12, 0), 12);
    T_CHECK(t_readable(p.server, H_TIMEOUT));
    T_EQ(pysock_recv(p.server, buf, sizeof buf, MSG_PEEK), 1);
    T_EQ(pysock_recv(p.server, buf, sizeof buf, 0), 12);
    T_CHECK(memcmp(buf, "twelve bytes", 12) == 0);
    T_EQ(pysock_send(p.client, "twelve bytes", 12, 0), 12);
    T_CHECK(t_readable(p.server, H_TIMEOUT));
    T_EQ(pysock_recv(p.server, buf, 5, 0), 5);
    T_EQ(pysock_recv(p.server, buf, sizeof buf, 0), 7);
    h_close_all(&p, client, server);
}

T_TEST(a_new_key_log_has_a_first_line_at_once, 60) {
    pysock_ssl_context *ctx = t_client_ctx();
    char name[] = "/tmp/pysock-keylog-XXXXXX", text[256];
    int fd = mkstemp(name);
    size_t before, n;
    FILE *f;
    T_CHECK(fd >= 0);
    close(fd);
    for (int turn = 0; turn < 2; turn++) {
        T_OK(pysock_ssl_set_keylog_filename(ctx, name));
        f = fopen(name, "r");
        n = fread(text, 1, sizeof text, f);
        fclose(f);
        T_CHECK(n > 2 && text[0] == '#' && text[n - 1] == '\n');
        if (turn)
            T_EQ(n, before);
        before = n;
    }
    remove(name);
    pysock_ssl_context_release(ctx);
}

/* ---- descriptors ---- */

T_TEST(a_detached_descriptor_is_again_that_of_the_socket_it_was_adopted_from, 60) {
    pysock *pair[2], *second;
    int fd;
    t_pair(pair);
    fd = T_OK(pysock_fileno(pair[0]));
    second = T_OK(pysock_adopt(fd, -1, -1, -1));
    T_CHECK(pysock_from_fileno(fd) == second);
    t_say(second, "by the second");
    T_EQ(pysock_detach(second), fd);
    T_CHECK(pysock_from_fileno(fd) == pair[0]);
    t_say(pair[0], "by the first");
    t_expect(pair[1], "by the secondby the first");
    T_STEP("two at a time, in either order");
    for (int i = 0; i < 2; i++) {
        pysock *others[2];
        for (int k = 0; k < 2; k++)
            others[k] = T_OK(pysock_adopt(fd, -1, -1, -1));
        T_EQ(pysock_detach(others[i]), fd);
        T_CHECK(pysock_from_fileno(fd) == (i ? others[0] : others[1]));
        T_EQ(pysock_detach(others[!i]), fd);
        T_CHECK(pysock_from_fileno(fd) == pair[0]);
    }
    second = T_OK(pysock_adopt(fd, -1, -1, -1));
    T_EQ(pysock_detach(pair[0]), fd); /* in this order the second is the one that stays */
    T_CHECK(pysock_from_fileno(fd) == second);
    T_EQ(pysock_detach(second), fd);
    T_CHECK(pysock_from_fileno(fd) == NULL);
    close(fd);
    T_OK(pysock_close(pair[1]));
}

T_MAIN()
