/* What a handshake says when it comes to nothing, so that whoever reads it knows what to do; and
   the versions and certificates that a context goes along with. */
#include "support/contexts.h"
#include "support/process.h"
#include "support/rawtls.h"

#define CA T_CERTS "ca.pem"

static p_process program;

static void must_not_contain(const char *text, const char *part) {
    if (h_contains(text, part))
        T_FAIL("'%s' contains '%s'", text, part);
}

/* ---- openssl's servers ---- */

/* A connection to s_server with these arguments, up to NULL, besides its address. */
static pysock *start_s_server(const char *certificate, ...) {
    p_args args = {{NULL}, 0};
    int port;
    va_list list;
    const char *text;
    p_add(&args, "openssl", "s_server", "-accept", "127.0.0.1:" P_PORT, "-cert",
          p_format(T_CERTS "%s.pem", certificate), "-key", p_format(T_CERTS "%s.key", certificate),
          "-CAfile", CA, "-quiet", NULL);
    va_start(list, certificate);
    while ((text = va_arg(list, const char *)) != NULL)
        p_add(&args, text, NULL);
    va_end(list);
    return p_start_server(&program, &args, &port);
}

static h_outcome wrap_and_close(pysock *s, pysock_ssl_context *ctx) {
    h_outcome o = h_outcome_of(pysock_ssl_wrap_socket(s, ctx, "localhost"));
    T_OK(pysock_close(s));
    return o;
}

T_TEST(a_server_of_tls13_alone_is_told_of_with_our_version, 100) {
    h_outcome o;
    P_NEED("openssl");
    o = wrap_and_close(start_s_server("server-ec", "-tls1_3", NULL), client_ctx);
    T_EQ(o.result, -1);
    T_EQ(o.kind, PYSOCK_SSL_ERROR);
    H_SAME(o.reason, "TLSV1_ALERT_PROTOCOL_VERSION");
    H_CONTAINS(o.message, "1.2"); /* ours, the highest */
    must_not_contain(o.message, "certificate");
}

/* s_client's own words are OpenSSL's; ours are the server's. */
T_TEST(a_client_of_tls13_alone_is_told_of_with_our_version, 100) {
    p_args args = {{NULL}, 0};
    int port;
    pysock *listener, *s;
    h_outcome o;
    P_NEED("openssl");
    listener = t_listen(&port);
    T_OK(pysock_settimeout(listener, P_PATIENCE));
    p_add(&args, "openssl", "s_client", "-connect", p_format("127.0.0.1:%d", port), "-tls1_3",
          NULL);
    p_start(&program, &args);
    s = T_OK(pysock_accept(listener, NULL));
    T_OK(pysock_settimeout(s, P_PATIENCE));
    o = h_outcome_of(pysock_ssl_wrap_socket(s, server_ctx, NULL));
    T_OK(pysock_close(s));
    T_OK(pysock_close(listener));
    T_EQ(o.result, -1);
    H_SAME(o.reason, "UNSUPPORTED_PROTOCOL");
    H_CONTAINS(o.message, "1.2");
    p_wait_for(&program, "alert protocol version");
}

/* ---- a certificate is asked for ---- */

static pysock_ssl_context *client_with_certificate(void) {
    pysock_ssl_context *ctx = t_client_ctx();
    T_OK(pysock_ssl_load_cert_chain(ctx, T_CERTS "client.pem", T_CERTS "client.key"));
    return ctx;
}

static void says_that_a_certificate_is_wanted(const h_outcome *o) {
    T_EQ(o->result, -1);
    T_EQ(o->kind, PYSOCK_SSL_ERROR);
    H_CONTAINS(o->message, "certificate");
    H_CONTAINS(o->message, "pysock_ssl_load_cert_chain()");
    must_not_contain(o->message, "suite");
}

T_TEST(openssl_demands_a_certificate, 100) {
    h_outcome o;
    pysock_ssl_context *ctx = client_with_certificate();
    pysock *s;
    P_NEED("openssl");
    T_STEP("without one");
    o = wrap_and_close(start_s_server("server-ec", "-tls1_2", "-Verify", "2", NULL), client_ctx);
    says_that_a_certificate_is_wanted(&o);
    T_STEP("with one");
    s = start_s_server("server-ec", "-tls1_2", "-Verify", "2", "-verify_return_error", NULL);
    T_OK(pysock_ssl_wrap_socket(s, ctx, "localhost"));
    T_OK(pysock_close(s));
    pysock_ssl_context_release(ctx);
}

T_TEST(pysock_demands_a_certificate, 100) {
    pysock_ssl_context *demanding = t_server_ctx();
    h_pair p;
    T_OK(pysock_ssl_load_verify_locations(demanding, CA, NULL));
    T_OK(pysock_ssl_set_verify_mode(demanding, PYSOCK_CERT_REQUIRED));
    h_try(&p, client_ctx, demanding, "localhost");
    T_EQ(p.at_server.result, -1);
    H_SAME(p.at_server.reason, "PEER_DID_NOT_RETURN_A_CERTIFICATE");
    H_CONTAINS(p.at_server.message, "certificate");
    says_that_a_certificate_is_wanted(&p.at_client);
    h_close(&p);
    pysock_ssl_context_release(demanding);
}

/* A server that asks, whatever alert it chooses when there is none. after: 1: in answer to the
   client's flight; 0: without having asked. */
static h_outcome refuse_client(pysock_ssl_context *ctx, int asks, int alert) {
    static r_end e;
    static r_peer p;
    r_open(&e, &p, R_BY_BIO, ctx, "localhost");
    T_EQ(r_read_client_hello(&p), 0);
    r_send_server_hello(&p);
    r_send_certificate(&p);
    r_send_server_key(&p);
    if (asks)
        r_send(&p, R_CERTIFICATE_REQUEST, "\2\1\100\0\4\4\3\4\1\0\0", 11);
    r_send_hello_done(&p);
    T_EQ(r_read_client_flight(&p), 0);
    r_write_alert(&p, 2, alert);
    r_close(&e, &p);
    return e.outcome;
}

T_TEST(only_a_request_that_was_seen_is_told_of, 100) {
    static const int alerts[] = {PYSOCK_ALERT_HANDSHAKE_FAILURE, PYSOCK_ALERT_BAD_CERTIFICATE,
                                 PYSOCK_ALERT_CERTIFICATE_UNKNOWN, PYSOCK_ALERT_ACCESS_DENIED,
                                 116 /* certificate_required */};
    pysock_ssl_context *with = client_with_certificate();
    for (size_t i = 0; i < sizeof alerts / sizeof alerts[0]; i++) {
        h_outcome o;
        T_STEP("alert %d", alerts[i]);
        o = refuse_client(client_ctx, 1, alerts[i]);
        says_that_a_certificate_is_wanted(&o);
        T_STEP("alert %d, nobody asked", alerts[i]);
        o = refuse_client(client_ctx, 0, alerts[i]);
        T_EQ(o.result, -1);
        must_not_contain(o.message, "load_cert_chain");
        T_STEP("alert %d, and there was one", alerts[i]);
        o = refuse_client(with, 1, alerts[i]);
        T_EQ(o.result, -1);
        must_not_contain(o.message, "load_cert_chain");
    }
    pysock_ssl_context_release(with);
}

/* ---- no suite in common ---- */

static void says_that_no_suite_is_shared(const h_outcome *o) {
    T_EQ(o->result, -1);
    T_EQ(o->kind, PYSOCK_SSL_ERROR);
    H_SAME(o->reason, "SSLV3_ALERT_HANDSHAKE_FAILURE");
    H_CONTAINS(o->message, "suite");
    H_CONTAINS(o->message, "DHE"); /* what we do not have */
    H_CONTAINS(o->message, "pysock_ssl_set_ciphers()");
    must_not_contain(o->message, "load_cert_chain");
}

T_TEST(a_server_that_has_only_dhe_is_told_of, 100) {
    h_outcome o;
    P_NEED("openssl");
    o = wrap_and_close(
        start_s_server("server-rsa", "-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256", NULL),
        client_ctx);
    says_that_no_suite_is_shared(&o);
}

T_TEST(a_server_that_has_only_static_rsa_is_told_of, 100) {
    h_outcome o;
    pysock_ssl_context *ctx = t_client_ctx();
    pysock *s;
    P_NEED("openssl");
    o = wrap_and_close(
        start_s_server("server-rsa", "-tls1_2", "-cipher", "AES128-GCM-SHA256", NULL), client_ctx);
    says_that_no_suite_is_shared(&o);
    T_STEP("what it says helps");
    T_OK(pysock_ssl_set_ciphers(ctx, "ECDHE:AES128-GCM-SHA256"));
    s = start_s_server("server-rsa", "-tls1_2", "-cipher", "AES128-GCM-SHA256", NULL);
    T_OK(pysock_ssl_wrap_socket(s, ctx, "localhost"));
    T_OK(pysock_close(s));
    pysock_ssl_context_release(ctx);
}

T_TEST(a_client_that_has_only_dhe_is_told_of, 100) {
    p_args args = {{NULL}, 0};
    int port;
    pysock *listener, *s;
    h_outcome o;
    P_NEED("openssl");
    listener = t_listen(&port);
    T_OK(pysock_settimeout(listener, P_PATIENCE));
    p_add(&args, "openssl", "s_client", "-connect", p_format("127.0.0.1:%d", port), "-tls1_2",
          "-cipher", "DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384", NULL);
    p_start(&program, &args);
    s = T_OK(pysock_accept(listener, NULL));
    T_OK(pysock_settimeout(s, P_PATIENCE));
    o = h_outcome_of(pysock_ssl_wrap_socket(s, server_ctx, NULL));
    T_OK(pysock_close(s));
    T_OK(pysock_close(listener));
    T_EQ(o.result, -1);
    H_SAME(o.reason, "NO_SHARED_CIPHER");
    H_CONTAINS(o.message, "suite");
    p_wait_for(&program, "alert handshake failure");
}

/* ---- versions ---- */

#define V10 PYSOCK_TLSv1
#define V11 PYSOCK_TLSv1_1
#define V12 PYSOCK_TLSv1_2

static void set_versions(pysock_ssl_context *ctx, int lowest, int highest) {
    /* In this order the range is never empty. */
    T_OK(pysock_ssl_set_minimum_version(ctx, V10));
    T_OK(pysock_ssl_set_maximum_version(ctx, highest));
    T_OK(pysock_ssl_set_minimum_version(ctx, lowest));
    T_OK(pysock_ssl_set_ciphers(ctx, "ECDHE+AES:@SECLEVEL=0"));
}

/* An extension of the library's ClientHello; its value's size, or -1. */
static int find_extension(const r_bytes *hello, int type) {
    const unsigned char *p = hello->data + 34, *end = hello->data + hello->size;
    p += 1 + p[0];
    p += 2 + r_get(p, 2);
    p += 1 + p[0];
    for (p += 2; p + 4 <= end; p += 4 + r_get(p + 2, 2))
        if ((int)r_get(p, 2) == type)
            return (int)r_get(p + 2, 2);
    return -1;
}

/* RFC 5246, 7.4.1.4.1 and E.1. */
T_TEST(a_hello_is_that_of_its_highest_version, 60) {
    static const struct {
        int lowest, highest, records[2];
    } rows[] = {
        {V10, V10, {0x301, 0x301}}, {V10, V11, {0x301, 0x301}}, {V11, V11, {0x301, 0x302}},
        {V10, V12, {0x301, 0x301}}, {V11, V12, {0x301, 0x302}}, {V12, V12, {0x301, 0x303}},
    };
    static r_end e;
    static r_peer p;
    static r_bytes out;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        pysock_ssl_context *ctx = t_client_ctx();
        char row[64];
        int version, record;
        snprintf(row, sizeof row, "from 0x%x to 0x%x", rows[i].lowest, rows[i].highest);
        set_versions(ctx, rows[i].lowest, rows[i].highest);
        r_open(&e, &p, R_BY_BIO, ctx, "localhost");
        out.size = (size_t)T_OK(pysock_bio_read(e.out, out.data, R_ROOM));
        T_CHECK(out.size > 50);
        record = (int)r_get(out.data + 1, 2);
        memmove(out.data, out.data + 9, out.size -= 9);
        version = (int)r_get(out.data, 2);
        if (version != rows[i].highest)
            r_complain(row, "the hello's version is 0x%x", (unsigned)version);
        if (record != rows[i].records[0] && record != rows[i].records[1])
            r_complain(row, "the record's version is 0x%x", (unsigned)record);
        if ((find_extension(&out, R_SIGNATURES) >= 0) != (rows[i].highest == V12))
            r_complain(row, "signature_algorithms of %d bytes", find_extension(&out, R_SIGNATURES));
        if (find_extension(&out, R_GROUPS) < 4)
            r_complain(row, "no list of curves");
        r_close(&e, &p);
        pysock_ssl_context_release(ctx);
    }
    r_no_complaints();
}

T_TEST(openssl_understands_each_range_of_versions, 200) {
    static const struct {
        int lowest, highest;
        const char *peer, *version;
    } rows[] = {
        {V10, V10, "-tls1", "TLSv1"},     {V10, V11, "-tls1_1", "TLSv1.1"},
        {V10, V11, "-tls1", "TLSv1"},     {V11, V11, "-tls1_1", "TLSv1.1"},
        {V10, V12, "-tls1", "TLSv1"},     {V10, V12, "-tls1_1", "TLSv1.1"},
        {V10, V12, "-tls1_2", "TLSv1.2"}, {V11, V12, "-tls1_1", "TLSv1.1"},
    };
    P_NEED("openssl");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        pysock_ssl_context *ctx = t_client_ctx();
        pysock *s;
        T_STEP("from 0x%x to 0x%x, %s", rows[i].lowest, rows[i].highest, rows[i].peer);
        set_versions(ctx, rows[i].lowest, rows[i].highest);
        s = start_s_server("server-ec", rows[i].peer, "-cipher", "ALL:@SECLEVEL=0", NULL);
        T_OK(pysock_ssl_wrap_socket(s, ctx, "localhost"));
        H_SAME(pysock_ssl_version(s), rows[i].version);
        T_OK(pysock_close(s));
        pysock_ssl_context_release(ctx);
    }
}

/* ---- defaults ---- */

T_TEST(no_context_speaks_less_than_tls12_unasked, 60) {
    static const int protocols[] = {PYSOCK_PROTOCOL_TLS, PYSOCK_PROTOCOL_TLS_CLIENT,
                                    PYSOCK_PROTOCOL_TLS_SERVER};
    pysock_ssl_context *ctx[7];
    ctx[0] = T_OK(pysock_ssl_create_default_context(PYSOCK_SERVER_AUTH));
    ctx[1] = T_OK(pysock_ssl_create_default_context(PYSOCK_CLIENT_AUTH));
    ctx[2] = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    ctx[3] = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
    for (int i = 0; i < 3; i++)
        ctx[4 + i] = T_OK(pysock_ssl_context_new_protocol(protocols[i]));
    for (int i = 0; i < 7; i++) {
        T_STEP("context %d", i);
        T_CHECK(pysock_ssl_get_minimum_version(ctx[i]) >= PYSOCK_TLSv1_2);
        pysock_ssl_context_release(ctx[i]);
    }
}

T_TEST(a_default_client_refuses_a_server_of_tls11, 100) {
    pysock_ssl_context *ctx = T_OK(pysock_ssl_create_default_context(PYSOCK_SERVER_AUTH));
    h_outcome o;
    P_NEED("openssl");
    T_OK(pysock_ssl_load_verify_locations(ctx, CA, NULL));
    T_OK(pysock_ssl_set_ciphers(ctx, "ECDHE+AES:@SECLEVEL=0")); /* nothing else is in the way */
    o = wrap_and_close(start_s_server("server-ec", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0", NULL),
                       ctx);
    T_EQ(o.result, -1);
    T_EQ(o.kind, PYSOCK_SSL_ERROR);
    H_CONTAINS(o.message, "version");
    pysock_ssl_context_release(ctx);
}

/* Of its own accord: a server that answers with an old version all the same is refused. */
T_TEST(a_default_context_refuses_older_versions_by_itself, 60) {
    static const int versions[] = {0x300, 0x301, 0x302};
    static r_end e;
    static r_peer p;
    static r_hello h;
    for (int server = 0; server < 2; server++)
        for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++) {
            pysock_ssl_context *ctx = T_OK(pysock_ssl_create_default_context(
                server ? PYSOCK_CLIENT_AUTH : PYSOCK_SERVER_AUTH));
            char row[64];
            snprintf(row, sizeof row, "0x%x to a %s", (unsigned)versions[i],
                     server ? "server" : "client");
            if (server)
                T_OK(pysock_ssl_load_cert_chain(ctx, T_CERTS "server-ec.pem",
                                                T_CERTS "server-ec.key"));
            r_open(&e, &p, R_BY_BIO, ctx, server ? NULL : "localhost");
            if (server)
                r_make_client_hello(&h, "localhost");
            else
                T_EQ(r_read_client_hello(&p), 0);
            if (!server)
                r_make_server_hello(&h);
            h.version = versions[i];
            r_say_hello(&p, &h);
            r_check_refusal(&e, &p, row, R_ALERTS(PYSOCK_ALERT_PROTOCOL_VERSION));
            if (!h_contains(e.outcome.message, "version") &&
                !h_contains(e.outcome.message, "TLS 1."))
                r_complain(row, "the message is '%s'", e.outcome.message);
            pysock_ssl_context_release(ctx);
        }
    r_no_complaints();
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts, .each_teardown = p_end_all)
