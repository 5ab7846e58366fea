/* Every suite and version, certificates of both kinds, and records of all sizes with other people's
   TLS in both roles. What tests/peers/test_peers.c has is not repeated here. */
#include "support/support.h"
#include "support/files.h"
#include "support/handshake.h"
#include "support/process.h"
#include "support/shell.h"

#define CA T_CERTS "ca.pem"
#define ALL_SUITES "ALL:COMPLEMENTOFALL"
#define OPENSSL_ALL "ALL:COMPLEMENTOFALL:@SECLEVEL=0"
#define MAX_SUITES 64

/* ---- contexts ---- */

/* What the newest rules would forbid is allowed: these tests are about what can be spoken. */
static pysock_ssl_context *lax(pysock_ssl_context *ctx, const char *suites, int version) {
    T_OK(pysock_ssl_set_security_level(ctx, 0));
    T_OK(pysock_ssl_set_ciphers(ctx, suites));
    if (version == 0)
        return ctx;
    T_OK(pysock_ssl_set_minimum_version(ctx, PYSOCK_TLSv1));
    T_OK(pysock_ssl_set_maximum_version(ctx, version));
    T_OK(pysock_ssl_set_minimum_version(ctx, version));
    return ctx;
}

/* A server with a certificate of each kind. */
static pysock_ssl_context *server_of_both_kinds(void) {
    pysock_ssl_context *ctx = t_server_ctx_of("server-ec");
    T_OK(pysock_ssl_load_cert_chain(ctx, p_cert_file("server-rsa"), p_key_file("server-rsa")));
    return ctx;
}

static void shake(pysock *s, p_process *p, pysock_ssl_context *ctx, const char *host) {
    T_OK(pysock_settimeout(s, P_PATIENCE));
    if (pysock_ssl_wrap_socket(s, ctx, host) != 0)
        P_FAIL(p, "handshake with %s: %s", p->program, pysock_error_message());
}

static h_outcome try_to_shake(pysock *s, pysock_ssl_context *ctx, const char *host) {
    T_OK(pysock_settimeout(s, P_PATIENCE));
    return h_outcome_of(pysock_ssl_wrap_socket(s, ctx, host));
}

static const char *cipher_of(pysock *s) {
    pysock_ssl_cipher_info info;
    T_OK(pysock_ssl_cipher(s, &info));
    return info.name;
}

static pysock *accept_from(p_process *p, pysock *listener) {
    pysock *s;
    T_OK(pysock_settimeout(listener, P_PATIENCE));
    s = pysock_accept(listener, NULL);
    p_pump(p, 0);
    if (!s)
        P_FAIL(p, "%s does not connect: %s", p->program, pysock_error_message());
    T_OK(pysock_settimeout(s, P_PATIENCE));
    return s;
}

/* Until the end of the stream; terminated, and to be freed by the caller. */
static char *read_all(pysock *s) {
    char buf[4096];
    ptrdiff_t n;
    p_text text;
    memset(&text, 0, sizeof text);
    p_append(&text, "", 0);
    while ((n = T_OK(pysock_recv(s, buf, sizeof buf, 0))) > 0)
        p_append(&text, buf, (size_t)n);
    return text.data;
}

/* ---- other programs ---- */

static void add_options(p_args *args, va_list options) {
    const char *option;
    while ((option = va_arg(options, const char *)) != NULL)
        p_add(args, option, NULL);
}

static pysock *start_server(p_process *p, int *port, const char *program, ...) {
    p_args args = {{NULL}, 0};
    va_list options;
    p_add(&args, "stdbuf", "-oL", program, NULL);
    va_start(options, program);
    add_options(&args, options);
    va_end(options);
    return p_start_server(p, &args, port);
}

/* openssl s_server with a certificate of each kind. */
#define S_SERVER                                                                                   \
    "openssl", "s_server", "-accept", "127.0.0.1:" P_PORT, "-cert", T_CERTS "server-rsa.pem",      \
        "-key", T_CERTS "server-rsa.key", "-dcert", T_CERTS "server-ec.pem", "-dkey",              \
        T_CERTS "server-ec.key"

#define GNUTLS_SERV                                                                                \
    "gnutls-serv", "--echo", "--crlf", "--x509certfile", T_CERTS "server-rsa.pem",                 \
        "--x509keyfile", T_CERTS "server-rsa.key", "--x509certfile", T_CERTS "server-ec.pem",      \
        "--x509keyfile", T_CERTS "server-ec.key", "--port", P_PORT

static void start_client(p_process *p, const char *program, ...) {
    p_args args = {{NULL}, 0};
    va_list options;
    p_add(&args, "stdbuf", "-oL", program, NULL);
    va_start(options, program);
    add_options(&args, options);
    va_end(options);
    p_start(p, &args);
}

#define S_CLIENT(port)                                                                             \
    "openssl", "s_client", "-connect", p_format("127.0.0.1:%d", port), "-CAfile", CA,              \
        "-verify_return_error"

#define GNUTLS_CLI(port)                                                                           \
    "gnutls-cli", "--x509cafile", CA, "--verify-hostname", "localhost", "--port",                  \
        p_format("%d", port), "127.0.0.1"

/* Runs openssl to its end, which must be a good one; what it wrote stays until the next run. */
static const char *run_openssl(const char *command, ...) {
    static p_process p;
    p_args args = {{NULL}, 0};
    va_list options;
    p_add(&args, "openssl", command, NULL);
    va_start(options, command);
    add_options(&args, options);
    va_end(options);
    if (p_run(&p, &args) != 0)
        P_FAIL(&p, "openssl %s failed", command);
    return p_string(&p.said);
}

/* ---- suites ---- */

static size_t all_suites(pysock_ssl_cipher_info rows[MAX_SUITES]) {
    pysock_ssl_context *ctx = lax(t_client_ctx(), ALL_SUITES, 0);
    ptrdiff_t n = T_OK(pysock_ssl_get_ciphers(ctx, rows, MAX_SUITES));
    pysock_ssl_context_release(ctx);
    T_EQ(n, 45);
    return (size_t)n;
}

/* Whether a list of names separated by colons has this one. */
static int names_suite(const char *list, const char *name) {
    size_t n = strlen(name);
    for (const char *at = list; (at = strstr(at, name)) != NULL; at += n)
        if ((at == list || at[-1] == ':') && (at[n] == ':' || at[n] == '\n' || at[n] == 0))
            return 1;
    return 0;
}

/* Which suites this openssl speaks: most builds have no 3DES, and none has static ECDH. */
static size_t openssl_suites(pysock_ssl_cipher_info rows[MAX_SUITES]) {
    const char *list = run_openssl("ciphers", "-s", "-tls1_2", OPENSSL_ALL, NULL);
    size_t n = all_suites(rows), kept = 0;
    for (size_t i = 0; i < n; i++)
        if (names_suite(list, rows[i].name))
            rows[kept++] = rows[i];
    T_CHECK(kept >= 28);
    return kept;
}

static int is_static_ecdh(const pysock_ssl_cipher_info *suite) {
    return strcmp(suite->kea, "kx-ecdh") == 0;
}

T_TEST(every_suite_is_spoken_with_openssl_s_server, 120) {
    P_NEED("openssl");
    static p_process p;
    pysock_ssl_cipher_info rows[MAX_SUITES];
    size_t n = openssl_suites(rows);
    int port;
    pysock *s = start_server(&p, &port, S_SERVER, "-cipher", OPENSSL_ALL, "-www", NULL);
    for (size_t i = 0; i < n; i++) {
        pysock_ssl_context *ctx = lax(t_client_ctx(), rows[i].name, 0);
        char *page;
        T_STEP("%s", rows[i].name);
        shake(s, &p, ctx, "localhost");
        H_SAME(cipher_of(s), rows[i].name);
        t_say(s, "GET / HTTP/1.0\r\n\r\n");
        page = read_all(s);
        H_CONTAINS(page, p_format("Cipher    : %s\n", rows[i].name));
        free(page);
        T_OK(pysock_close(s));
        pysock_ssl_context_release(ctx);
        s = p_connect(&p, port);
    }
    T_OK(pysock_close(s));
}

T_TEST(every_suite_is_spoken_with_openssl_s_client, 120) {
    P_NEED("openssl");
    static p_process p;
    pysock_ssl_cipher_info rows[MAX_SUITES];
    size_t n = openssl_suites(rows);
    int port;
    pysock *listener = t_listen(&port), *s;
    pysock_ssl_context *ctx = lax(server_of_both_kinds(), ALL_SUITES, 0);
    for (size_t i = 0; i < n; i++) {
        T_STEP("%s", rows[i].name);
        start_client(&p, S_CLIENT(port), "-tls1_2", "-cipher",
                     p_format("%s:@SECLEVEL=0", rows[i].name), NULL);
        s = accept_from(&p, listener);
        shake(s, &p, ctx, NULL);
        H_SAME(cipher_of(s), rows[i].name);
        p_say(&p, "hello\n");
        t_expect(s, "hello\n");
        t_say(s, "good day\n");
        p_wait_for(&p, "good day");
        p_wait_for(&p, p_format("Cipher is %s\n", rows[i].name));
        T_OK(pysock_close(s));
        T_EQ(p_exit_status(&p), 0);
        p_end(&p);
    }
    T_OK(pysock_close(listener));
    pysock_ssl_context_release(ctx);
}

/* 3DES and CCM, which GnuTLS has. */
static const struct gnutls_suite {
    const char *name, *kx, *cipher, *mac;
} gnutls_suites[] = {
    {"ECDHE-ECDSA-DES-CBC3-SHA", "ECDHE-ECDSA", "3DES-CBC", "SHA1"},
    {"ECDHE-RSA-DES-CBC3-SHA", "ECDHE-RSA", "3DES-CBC", "SHA1"},
    {"DES-CBC3-SHA", "RSA", "3DES-CBC", "SHA1"},
    {"ECDHE-ECDSA-AES128-CCM8", "ECDHE-ECDSA", "AES-128-CCM-8", "AEAD"},
    {"AES256-CCM", "RSA", "AES-256-CCM", "AEAD"},
    {"ECDHE-RSA-CHACHA20-POLY1305", "ECDHE-RSA", "CHACHA20-POLY1305", "AEAD"},
};

#define GNUTLS_COUNT (sizeof gnutls_suites / sizeof gnutls_suites[0])

static const char *priority_of(const struct gnutls_suite *suite) {
    return p_format("NONE:+VERS-TLS1.2:+CTYPE-X509:+COMP-NULL:+SIGN-ALL:+GROUP-ALL:+%s:+%s:+%s",
                    suite->kx, suite->cipher, suite->mac);
}

T_TEST(what_openssl_lacks_is_spoken_with_gnutls, 120) {
    P_NEED("gnutls-serv");
    static p_process p;
    int port;
    pysock *listener = t_listen(&port), *s;
    pysock_ssl_context *server = lax(server_of_both_kinds(), ALL_SUITES, 0);
    for (size_t i = 0; i < GNUTLS_COUNT; i++) {
        const struct gnutls_suite *suite = &gnutls_suites[i];
        pysock_ssl_context *client = lax(t_client_ctx(), suite->name, 0);
        int its_port;
        T_STEP("gnutls-serv, %s", suite->name);
        s = start_server(&p, &its_port, GNUTLS_SERV, "--disable-client-cert", "--priority",
                         priority_of(suite), NULL);
        shake(s, &p, client, "localhost");
        H_SAME(cipher_of(s), suite->name);
        t_say(s, "hello\n");
        t_expect(s, "hello\n");
        p_wait_for(&p, p_format("(%s)", suite->cipher));
        T_OK(pysock_close(s));
        p_end(&p);
        pysock_ssl_context_release(client);

        T_STEP("gnutls-cli, %s", suite->name);
        start_client(&p, GNUTLS_CLI(port), "--priority", priority_of(suite), NULL);
        s = accept_from(&p, listener);
        shake(s, &p, server, NULL);
        H_SAME(cipher_of(s), suite->name);
        p_say(&p, "hello\n");
        t_expect(s, "hello\n");
        p_wait_for(&p, p_format("(%s)", suite->cipher));
        T_OK(pysock_close(s));
        p_end(&p);
    }
    T_OK(pysock_close(listener));
    pysock_ssl_context_release(server);
}

/* ---- certificates made for one test ---- */

/* A key and a certificate by an authority, both paths without .pem and .key; "" signs itself. */
static void issue(const char *path, const char *kind, const char *ca, const char *usage) {
    static const char config[] = "[req]\ndistinguished_name=dn\nprompt=no\n[dn]\nCN=localhost\n"
                                 "[leaf]\nsubjectAltName=DNS:localhost\n"
                                 "basicConstraints=critical,CA:FALSE\n"
                                 "[ca]\nbasicConstraints=critical,CA:TRUE\n"
                                 "subjectKeyIdentifier=hash\n";
    const char *cnf = f_write_text("issue.cnf", config);
    const char *key = p_format("%s.key", path), *request = p_format("%s.csr", path);
    const char *cert = p_format("%s.pem", path);
    if (strcmp(kind, "rsa") == 0)
        run_openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", key,
                    NULL);
    else
        run_openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key, NULL);
    run_openssl("req", "-new", "-config", cnf, "-key", key, "-subj",
                ca[0] ? "/CN=localhost" : "/CN=an RSA authority", "-out", request, NULL);
    if (ca[0])
        run_openssl("x509", "-req", "-in", request, "-CA", p_format("%s.pem", ca), "-CAkey",
                    p_format("%s.key", ca), "-set_serial", "4711", "-days", "30", "-extfile", cnf,
                    "-extensions", usage, "-out", cert, NULL);
    else
        run_openssl("x509", "-req", "-in", request, "-signkey", key, "-days", "30", "-extfile", cnf,
                    "-extensions", usage, "-out", cert, NULL);
}

static pysock_ssl_context *server_with(const char *path) {
    pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
    T_OK(pysock_ssl_load_cert_chain(ctx, p_format("%s.pem", path), p_format("%s.key", path)));
    return ctx;
}

/* ECDH-ECDSA wants an EC certificate that an EC key has signed, ECDH-RSA one by an RSA key. Nobody
   else speaks them any more. */
T_TEST(static_ecdh_is_spoken_between_two_of_us, 120) {
    P_NEED("openssl");
    pysock_ssl_cipher_info rows[MAX_SUITES];
    size_t n = all_suites(rows), spoken = 0;
    const char *ca = f_path("rsa-ca");
    const char *by_rsa_path = f_path("ec-by-rsa"), *by_ec_path = f_path("ec-by-ec");
    pysock_ssl_context *by_ec, *by_rsa;
    issue(ca, "rsa", "", "ca");
    issue(by_rsa_path, "ec", ca, "leaf");
    issue(by_ec_path, "ec", T_CERTS "ca", "leaf");
    by_ec = lax(server_with(by_ec_path), ALL_SUITES, 0);
    by_rsa = lax(server_with(by_rsa_path), ALL_SUITES, 0);
    for (size_t i = 0; i < n; i++) {
        int rsa = strncmp(rows[i].name, "ECDH-RSA", 8) == 0;
        pysock_ssl_context *client;
        h_pair p;
        if (!is_static_ecdh(&rows[i]))
            continue;
        T_STEP("%s", rows[i].name);
        client = lax(t_client_ctx(), rows[i].name, 0);
        T_OK(pysock_ssl_load_verify_locations(client, p_format("%s.pem", ca), NULL));
        h_connect(&p, client, rsa ? by_rsa : by_ec, "localhost");
        H_SAME(cipher_of(p.client), rows[i].name);
        H_SAME(cipher_of(p.server), rows[i].name);
        h_greet(&p);
        h_close(&p);
        pysock_ssl_context_release(client);
        spoken++;
    }
    T_EQ(spoken, 14);
    pysock_ssl_context_release(by_ec);
    pysock_ssl_context_release(by_rsa);
}

/* ---- versions ---- */

static const struct version {
    int number;
    const char *name, *openssl, *gnutls, *python;
} versions[] = {
    {PYSOCK_TLSv1, "TLSv1", "-tls1", "1.0", "TLSv1"},
    {PYSOCK_TLSv1_1, "TLSv1.1", "-tls1_1", "1.1", "TLSv1_1"},
    {PYSOCK_TLSv1_2, "TLSv1.2", "-tls1_2", "1.2", "TLSv1_2"},
};

#define VERSIONS (sizeof versions / sizeof versions[0])

static const char *gnutls_version(const struct version *v) {
    return p_format("NORMAL:-VERS-ALL:+VERS-TLS%s:+SHA1:+SIGN-ALL:%%VERIFY_ALLOW_SIGN_WITH_SHA1",
                    v->gnutls);
}

/* Both sides say which version it is, and a line goes each way: openssl and gnutls-cli say what
   comes on their stdin, the others echo. */
static void greet_as_client(p_process *p, pysock *s, const struct version *v, const char *said,
                            int echo) {
    pysock_ssl_context *ctx = lax(t_client_ctx(), ALL_SUITES, v->number);
    shake(s, p, ctx, "localhost");
    H_SAME(pysock_ssl_version(s), v->name);
    p_wait_for(p, said);
    t_say(s, "hello\n");
    if (!echo) {
        p_wait_for(p, "hello\n");
        p_say(p, "hello\n");
    }
    t_expect(s, "hello\n");
    T_OK(pysock_close(s));
    p_end(p);
    pysock_ssl_context_release(ctx);
}

T_TEST(every_version_is_spoken_with_servers, 120) {
    P_NEED("openssl");
    P_NEED("gnutls-serv");
    P_NEED("python3");
    static p_process p;
    int port;
    for (size_t i = 0; i < VERSIONS; i++) {
        const struct version *v = &versions[i];
        pysock *s;
        T_STEP("openssl, %s", v->name);
        s = start_server(&p, &port, S_SERVER, "-cipher", OPENSSL_ALL, v->openssl, NULL);
        greet_as_client(&p, s, v, "CIPHER is", 0);
        T_STEP("gnutls, %s", v->name);
        s = start_server(&p, &port, GNUTLS_SERV, "--disable-client-cert", "--priority",
                         gnutls_version(v), NULL);
        greet_as_client(&p, s, v, p_format("(TLS%s", v->gnutls), 1);
        T_STEP("python, %s", v->name);
        s = start_server(&p, &port, "python3", "tests/peers/peer.py", "server", "--port", P_PORT,
                         "--cert", T_CERTS "server-rsa.pem", "--key", T_CERTS "server-rsa.key",
                         "--version", v->python, NULL);
        greet_as_client(&p, s, v, p_format("version=%s ", v->name), 1);
    }
}

T_TEST(every_version_is_spoken_with_clients, 120) {
    P_NEED("openssl");
    P_NEED("gnutls-cli");
    P_NEED("python3");
    static p_process p;
    int port;
    pysock *listener = t_listen(&port);
    for (size_t i = 0; i < 3 * VERSIONS; i++) {
        const struct version *v = &versions[i / 3];
        pysock_ssl_context *ctx = lax(server_of_both_kinds(), ALL_SUITES, v->number);
        const char *said;
        pysock *s;
        if (i % 3 == 0) {
            start_client(&p, S_CLIENT(port), "-cipher", OPENSSL_ALL, v->openssl, NULL);
            said = p_format("New, %s", i < 6 ? "TLSv1.0" : "TLSv1.2");
        } else if (i % 3 == 1) {
            start_client(&p, GNUTLS_CLI(port), "--priority", gnutls_version(v), NULL);
            said = p_format("(TLS%s", v->gnutls);
        } else {
            start_client(&p, "python3", "tests/peers/peer.py", "client", "--port",
                         p_format("%d", port), "--ca", CA, "--version", v->python, NULL);
            said = p_format("version=%s ", v->name);
        }
        T_STEP("%s, %s", p.program, said);
        s = accept_from(&p, listener);
        shake(s, &p, ctx, NULL);
        H_SAME(pysock_ssl_version(s), v->name);
        if (i % 3 == 2) {
            char echo[10];
            t_recv_exactly(s, echo, sizeof echo);
            T_OK(pysock_sendall(s, echo, sizeof echo, 0));
            p_wait_for(&p, "echoed 10");
        } else {
            p_say(&p, "hello\n");
            t_expect(s, "hello\n");
            t_say(s, "good day\n");
            p_wait_for(&p, "good day\n");
        }
        p_wait_for(&p, said);
        T_OK(pysock_close(s));
        p_end(&p);
        pysock_ssl_context_release(ctx);
    }
    T_OK(pysock_close(listener));
}

T_TEST(versions_without_an_overlap_are_told_apart, 120) {
    P_NEED("openssl");
    static p_process p;
    int port;
    pysock *listener = t_listen(&port);
    for (int we_are_newer = 0; we_are_newer < 2; we_are_newer++) {
        int ours = we_are_newer ? PYSOCK_TLSv1_2 : PYSOCK_TLSv1;
        const char *theirs = we_are_newer ? "-tls1" : "-tls1_2";
        pysock_ssl_context *client = lax(t_client_ctx(), ALL_SUITES, ours);
        pysock_ssl_context *server = lax(server_of_both_kinds(), ALL_SUITES, ours);
        h_outcome o;
        int its_port;
        pysock *s;
        T_STEP("s_server %s", theirs);
        s = start_server(&p, &its_port, S_SERVER, "-cipher", OPENSSL_ALL, theirs, NULL);
        o = try_to_shake(s, client, "localhost");
        T_EQ(o.result, -1);
        T_EQ(o.kind, PYSOCK_SSL_ERROR);
        H_CONTAINS(o.reason, we_are_newer ? "UNSUPPORTED_PROTOCOL" : "ALERT_PROTOCOL_VERSION");
        p_wait_for(&p, we_are_newer ? "alert protocol version" : "unsupported protocol");
        T_OK(pysock_close(s));
        p_end(&p);

        T_STEP("s_client %s", theirs);
        start_client(&p, S_CLIENT(port), "-cipher", OPENSSL_ALL, theirs, NULL);
        s = accept_from(&p, listener);
        o = try_to_shake(s, server, NULL);
        T_EQ(o.result, -1);
        T_EQ(o.kind, PYSOCK_SSL_ERROR);
        /* Its alert comes in a record of the version that it wanted, not of the one chosen. */
        H_CONTAINS(o.reason, we_are_newer ? "UNSUPPORTED_PROTOCOL" : "VERSION");
        T_OK(pysock_close(s));
        p_wait_for(&p, we_are_newer ? "alert protocol version" : "unsupported protocol");
        p_end(&p);
        pysock_ssl_context_release(client);
        pysock_ssl_context_release(server);
    }
    T_OK(pysock_close(listener));
}

/* ---- two certificates, two contexts ---- */

T_TEST(a_server_of_both_kinds_shows_openssl_the_one_it_can_use, 60) {
    P_NEED("openssl");
    static p_process p;
    int port;
    pysock *listener = t_listen(&port);
    pysock_ssl_context *ctx = server_of_both_kinds();
    for (int rsa = 0; rsa < 2; rsa++) {
        pysock *s;
        T_STEP("%s", rsa ? "RSA" : "EC");
        start_client(&p, S_CLIENT(port), "-tls1_2", "-cipher", rsa ? "aRSA" : "aECDSA", NULL);
        s = accept_from(&p, listener);
        shake(s, &p, ctx, NULL);
        p_wait_for(&p, rsa ? "Server public key is 2048 bit" : "Server public key is 256 bit");
        T_OK(pysock_close(s));
        p_end(&p);
    }
    T_OK(pysock_close(listener));
    pysock_ssl_context_release(ctx);
}

/* The other context, with an RSA key, is for a.example.test. */
static int choose_by_name(void *arg, const pysock_ssl_client_hello *hello) {
    if (hello->server_name && strcmp(hello->server_name, "a.example.test") == 0)
        T_OK(pysock_ssl_set_context(hello->socket, arg));
    return 0;
}

static void start_client_of(p_process *p, int program, int port, const char *host) {
    switch (program) {
    case 0: start_client(p, S_CLIENT(port), "-tls1_2", "-servername", host, NULL); break;
    case 1:
        start_client(p, "curl", "-q", "-s", "-S", "-v", "--noproxy", "*", "--cacert", CA,
                     "--resolve", p_format("%s:%d:127.0.0.1", host, port),
                     p_format("https://%s:%d/", host, port), NULL);
        break;
    default:
        start_client(p, "python3", "tests/peers/peer.py", "client", "--port", p_format("%d", port),
                     "--ca", CA, "--host", host, "--tls12", NULL);
    }
}

T_TEST(a_name_chooses_among_two_contexts, 60) {
    P_NEED("openssl");
    P_NEED("curl");
    P_NEED("python3");
    static p_process p;
    int port;
    pysock *listener = t_listen(&port);
    pysock_ssl_context *first = t_server_ctx_of("server-ec");
    pysock_ssl_context *other = t_server_ctx_of("server-rsa");
    T_OK(pysock_ssl_set_sni_callback(first, choose_by_name, other));
    for (int i = 0; i < 6; i++) {
        int is_other = i % 2;
        pysock *s;
        start_client_of(&p, i / 2, port, is_other ? "a.example.test" : "localhost");
        T_STEP("%s, turn %d", p.program, i);
        s = accept_from(&p, listener);
        shake(s, &p, first, NULL);
        H_CONTAINS(cipher_of(s), is_other ? "-RSA-" : "-ECDSA-");
        T_CHECK(t_has_context(s, (is_other ? other : first)));
        p_wait_for(&p, cipher_of(s));
        T_OK(pysock_close(s));
        p_end(&p);
    }
    T_OK(pysock_close(listener));
    pysock_ssl_context_release(first);
    pysock_ssl_context_release(other);
}

/* ---- client certificates, RSA and EC ---- */

static pysock_ssl_context *client_with(const char *path) {
    pysock_ssl_context *ctx = t_client_ctx();
    T_OK(pysock_ssl_load_cert_chain(ctx, p_format("%s.pem", path), p_format("%s.key", path)));
    return ctx;
}

static pysock_ssl_context *server_asking(void) {
    pysock_ssl_context *ctx = t_server_ctx();
    T_OK(pysock_ssl_load_verify_locations(ctx, CA, NULL));
    T_OK(pysock_ssl_set_verify_mode(ctx, PYSOCK_CERT_REQUIRED));
    return ctx;
}

/* Two clients of the tests' authority; [0] has an EC key, [1] an RSA key. */
static void make_clients(const char *paths[2]) {
    paths[0] = T_CERTS "client";
    paths[1] = f_path("client-rsa");
    issue(paths[1], "rsa", T_CERTS "ca", "leaf");
}

static void has_der_of(pysock *s, const char *path) {
    pysock_buf *der = T_OK(pysock_ssl_getpeercert_der(s));
    pysock_buf *want;
    char *pem = f_read(p_format("%s.pem", path), NULL);
    want = T_OK(pysock_ssl_pem_cert_to_der_cert(pem));
    T_EQ(pysock_buf_size(der), pysock_buf_size(want));
    T_EQ(memcmp(pysock_buf_data(der), pysock_buf_data(want), pysock_buf_size(der)), 0);
    free(pem);
    pysock_buf_release(want);
    pysock_buf_release(der);
}

T_TEST(servers_see_our_certificate, 60) {
    P_NEED("openssl");
    P_NEED("gnutls-serv");
    static p_process p;
    const char *paths[2];
    int port;
    make_clients(paths);
    for (int i = 0; i < 2; i++) {
        pysock_ssl_context *ctx = client_with(paths[i]);
        pysock *s;
        T_STEP("openssl, %s", paths[i]);
        s = start_server(&p, &port, S_SERVER, "-tls1_2", "-CAfile", CA, "-Verify", "1",
                         "-verify_return_error", NULL);
        shake(s, &p, ctx, "localhost");
        p_wait_for(&p, i ? "Peer signature type: RSA" : "Peer signature type: ECDSA");
        T_OK(pysock_close(s));
        p_end(&p);

        T_STEP("gnutls, %s", paths[i]);
        s = start_server(&p, &port, GNUTLS_SERV, "--x509cafile", CA, "--require-client-cert",
                         "--verify-client-cert", NULL);
        shake(s, &p, ctx, "localhost");
        t_say(s, "hello\n");
        t_expect(s, "hello\n");
        p_wait_for(&p, i ? "Client Signature: RSA" : "Client Signature: ECDSA");
        T_OK(pysock_close(s));
        p_end(&p);
        pysock_ssl_context_release(ctx);
    }
}

T_TEST(we_see_the_certificates_of_clients, 60) {
    P_NEED("openssl");
    P_NEED("gnutls-cli");
    P_NEED("curl");
    static p_process p;
    const char *paths[2];
    int port;
    pysock *listener = t_listen(&port), *s;
    pysock_ssl_context *ctx = server_asking();
    make_clients(paths);
    for (int i = 0; i < 6; i++) {
        const char *path = paths[i % 2];
        const char *cert = p_format("%s.pem", path), *key = p_format("%s.key", path);
        if (i / 2 == 0)
            start_client(&p, S_CLIENT(port), "-cert", cert, "-key", key, NULL);
        else if (i / 2 == 1)
            start_client(&p, GNUTLS_CLI(port), "--x509certfile", cert, "--x509keyfile", key, NULL);
        else
            start_client(&p, "curl", "-q", "-s", "-S", "--noproxy", "*", "--cacert", CA, "--cert",
                         cert, "--key", key, p_format("https://127.0.0.1:%d/", port), NULL);
        T_STEP("program %d, %s", i / 2, path);
        s = accept_from(&p, listener);
        shake(s, &p, ctx, NULL);
        has_der_of(s, path);
        T_OK(pysock_close(s));
        p_end(&p);
    }
    T_OK(pysock_close(listener));
    pysock_ssl_context_release(ctx);
}

/* ---- programs with a configuration ---- */

/* Starts a server whose configuration is a text with P_PORT in it; command is run by a shell, with
   the file as $1. */
static pysock *start_configured(p_process *p, int *port, const char *config, const char *command) {
    p_args args = {{NULL}, 0};
    const char *in = f_write_text("config.in", config), *out = f_path("config");
    p_add(
        &args, "sh", "-c",
        p_format("PATH=$PATH:/usr/sbin; sed \"s/@P[O]RT@/$3/\" \"$2\" >\"$1\" && exec %s", command),
        "sh", out, in, P_PORT, NULL);
    return p_start_server(p, &args, port);
}

static const char *absolute(const char *path) {
    char full[PATH_MAX];
    if (!realpath(path, full))
        T_FAIL("realpath of %s: %s", path, strerror(errno));
    return p_format("%s", full);
}

static void need_in_sbin(const char *program) {
    if (access(p_format("/usr/sbin/%s", program), X_OK) != 0)
        P_NEED(program);
}

T_TEST(nginx_lets_us_in_by_our_certificate_and_resumes, 60) {
    need_in_sbin("nginx");
    P_NEED("openssl");
    static const char *const protocols[] = {"h2", "http/1.1"};
    static p_process p;
    const char *paths[2], *certs = absolute(T_CERTS), *dir = absolute(f_dir());
    char config[4096];
    int port;
    pysock *s;
    make_clients(paths);
    snprintf(config, sizeof config,
             "daemon off;\nmaster_process off;\npid %s/nginx.pid;\nerror_log stderr info;\n"
             "events { worker_connections 64; }\n"
             "http {\naccess_log off;\nclient_body_temp_path %s/body;\nproxy_temp_path %s/proxy;\n"
             "fastcgi_temp_path %s/fastcgi;\nuwsgi_temp_path %s/uwsgi;\nscgi_temp_path %s/scgi;\n"
             "server {\nlisten 127.0.0.1:" P_PORT " ssl;\nssl_certificate %s/server-ec.pem;\n"
             "ssl_certificate_key %s/server-ec.key;\nssl_client_certificate %s/ca.pem;\n"
             "ssl_verify_client on;\nssl_session_tickets off;\nssl_session_cache shared:s:1m;\n"
             "location / { return 200 \"<$ssl_client_verify $ssl_session_reused "
             "$ssl_alpn_protocol>\"; }\n}\n}\n",
             dir, dir, dir, dir, dir, dir, certs, certs, certs);
    s = start_configured(&p, &port, config, "nginx -c \"$PWD/$1\" -e stderr");
    for (int i = 0; i < 4; i++) {
        static pysock_ssl_context *ctx;
        char *answer;
        T_STEP("turn %d", i);
        if (i % 2 == 0) {
            ctx = client_with(paths[i / 2]);
            T_OK(pysock_ssl_set_alpn_protocols(ctx, protocols, 2));
        }
        shake(s, &p, ctx, "localhost");
        T_EQ(pysock_ssl_session_reused(s), i % 2);
        H_SAME(t_alpn(s), "http/1.1");
        t_say(s, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        answer = read_all(s);
        H_CONTAINS(answer, i % 2 ? "<SUCCESS r http/1.1>" : "<SUCCESS . http/1.1>");
        free(answer);
        T_OK(pysock_close(s));
        if (i % 2)
            pysock_ssl_context_release(ctx);
        s = p_connect(&p, port);
    }
    T_OK(pysock_close(s));
}

/* ---- bulk in records of any size ---- */

typedef struct sender {
    pysock *s;
    size_t size, record;
} sender;

static void *send_all(void *arg) {
    const sender *x = arg;
    static unsigned char record[64 << 10];
    for (size_t done = 0; done < x->size;) {
        size_t n = x->size - done < x->record ? x->size - done : x->record;
        t_fill(record, n, done, 1);
        T_OK(pysock_sendall(x->s, record, n, 0));
        done += n;
    }
    return NULL;
}

/* From one socket to another, or to itself where the peer is an echo. */
static void carry(pysock *from, pysock *to, size_t size, size_t record) {
    sender x = {from, size, record};
    unsigned char buf[32 << 10];
    t_thread thread;
    T_OK(pysock_settimeout(from, P_PATIENCE));
    T_OK(pysock_settimeout(to, P_PATIENCE));
    t_spawn(&thread, send_all, &x);
    for (size_t have = 0; have < size;) {
        size_t want = size - have < sizeof buf ? size - have : sizeof buf;
        ptrdiff_t n = T_OK(pysock_recv(to, buf, want, 0));
        if (n == 0)
            T_FAIL("the stream ended after %zu of %zu bytes", have, size);
        t_verify(buf, (size_t)n, have, 1);
        have += (size_t)n;
    }
    t_join(&thread);
}

static const struct {
    const char *text;
    size_t record, size;
} records[] = {
    {"1", 1, 2000},
    {"512", 512, 256u << 10},
    {"16384", 16384, 2u << 20},
};

T_TEST(records_of_all_sizes_go_both_ways, 120) {
    P_NEED("python3");
    static p_process p;
    int port;
    pysock *listener = t_listen(&port), *s;
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    for (size_t i = 0; i < sizeof records / sizeof records[0]; i++) {
        char buf[16384];
        ptrdiff_t n;
        int its_port;
        T_STEP("a server, records of %s", records[i].text);
        s = start_server(&p, &its_port, "python3", "tests/peers/peer.py", "server", "--port",
                         P_PORT, "--cert", T_CERTS "server-ec.pem", "--key",
                         T_CERTS "server-ec.key", "--record", records[i].text, NULL);
        shake(s, &p, client, "localhost");
        carry(s, s, records[i].size, records[i].record);
        T_OK(pysock_close(s));
        p_wait_for(&p, p_format("end clean bytes=%zu", records[i].size));
        p_end(&p);

        T_STEP("a client, records of %s", records[i].text);
        start_client(&p, "python3", "tests/peers/peer.py", "client", "--port", p_format("%d", port),
                     "--ca", CA, "--record", records[i].text, "--size",
                     p_format("%zu", records[i].size), NULL);
        s = accept_from(&p, listener);
        shake(s, &p, server, NULL);
        while ((n = T_OK(pysock_recv(s, buf, records[i].record, 0))) > 0)
            T_OK(pysock_sendall(s, buf, (size_t)n, 0));
        T_OK(pysock_close(s));
        if (p_exit_status(&p) != 0)
            P_FAIL(&p, "the client failed");
        p_end(&p);
    }
    T_OK(pysock_close(listener));
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

T_TEST(a_hundred_megabytes_go_both_ways, 240) {
    P_NEED("python3");
    static p_process p;
    size_t size = (size_t)T_SCALE(100, 8) * 1000 * 1000;
    int port;
    pysock_ssl_context *ctx = t_client_ctx();
    pysock *s = start_server(&p, &port, "python3", "tests/peers/peer.py", "server", "--port",
                             P_PORT, "--cert", T_CERTS "server-ec.pem", "--key",
                             T_CERTS "server-ec.key", NULL);
    shake(s, &p, ctx, "localhost");
    carry(s, s, size, 64 << 10);
    T_OK(pysock_close(s));
    p_wait_for(&p, p_format("end clean bytes=%zu", size));
    pysock_ssl_context_release(ctx);
}

/* ---- a new handshake that a server asks for ---- */

static void *expect_after(void *arg) {
    t_expect(arg, "after\n");
    return NULL;
}

T_TEST(openssl_s_server_renegotiates_while_we_wait_in_recv, 60) {
    P_NEED("openssl");
    static p_process p;
    pysock_ssl_session_stats stats;
    t_thread thread;
    int port;
    pysock_ssl_context *ctx = client_with(T_CERTS "client");
    pysock *s = start_server(&p, &port, S_SERVER, "-tls1_2", "-CAfile", CA, "-state", NULL);
    shake(s, &p, ctx, "localhost");
    p_wait_for(&p, "CIPHER is");
    p.complained.size = 0; /* what it said of the first handshake */
    p.complained.data[0] = 0;
    t_spawn(&thread, expect_after, s);
    t_wait_asleep(&thread);
    p_say(&p, "R\n");
    /* From here on it looks at its input only when the handshake is over. Data before that is
       allowed, but BearSSL cannot take it. */
    p_wait_for(&p, "read client hello");
    p_say(&p, "after\n");
    t_join(&thread);
    T_OK(pysock_ssl_get_session_stats(ctx, &stats));
    T_EQ(stats.connect_renegotiate, 1);
    t_say(s, "hello\n");
    p_wait_for(&p, "hello\n");
    T_OK(pysock_close(s));
    pysock_ssl_context_release(ctx);
}

/* ---- proxies ---- */

#define CARRIED ((size_t)T_SCALE(4, 1) << 20)

/* A plain client, the proxy, a TLS server of ours. */
static void behind_a_proxy(const char *config, const char *command, pysock *listener,
                           pysock_ssl_context *ctx) {
    static p_process p;
    int port;
    pysock *client = start_configured(&p, &port, config, command), *s;
    s = accept_from(&p, listener);
    shake(s, &p, ctx, NULL);
    H_SAME(t_server_hostname(s), "localhost");
    carry(client, s, CARRIED, 20011);
    carry(s, client, CARRIED, 20011);
    T_OK(pysock_close(client));
    T_OK(pysock_close(s));
    p_end(&p);
}

/* A TLS client of ours, the proxy, a plain server. */
static void in_front_of_us_a_proxy(const char *config, const char *command, pysock *listener) {
    static p_process p;
    int port;
    pysock_ssl_context *ctx = t_client_ctx();
    pysock *client = start_configured(&p, &port, config, command), *s;
    shake(client, &p, ctx, "localhost");
    s = accept_from(&p, listener);
    carry(client, s, CARRIED, 20011);
    carry(s, client, CARRIED, 20011);
    T_OK(pysock_close(client));
    T_OK(pysock_close(s));
    p_end(&p);
    pysock_ssl_context_release(ctx);
}

T_TEST(stunnel_carries_tls_in_both_roles, 60) {
    P_NEED("stunnel");
    static const char command[] = "stunnel \"$1\"";
    const char *certs = absolute(T_CERTS);
    int port;
    pysock *listener = t_listen(&port);
    pysock_ssl_context *server = t_server_ctx();
    T_STEP("as a client");
    behind_a_proxy(p_format("foreground = yes\npid =\nsyslog = no\n[s]\nclient = yes\n"
                            "accept = 127.0.0.1:" P_PORT "\nconnect = 127.0.0.1:%d\n"
                            "CAfile = %s/ca.pem\nverifyChain = yes\ncheckHost = localhost\n"
                            "sni = localhost\n",
                            port, certs),
                   command, listener, server);
    T_STEP("as a server");
    in_front_of_us_a_proxy(p_format("foreground = yes\npid =\nsyslog = no\n[s]\n"
                                    "accept = 127.0.0.1:" P_PORT "\nconnect = 127.0.0.1:%d\n"
                                    "cert = %s/server-rsa.pem\nkey = %s/server-rsa.key\n",
                                    port, certs, certs),
                           command, listener);
    T_OK(pysock_close(listener));
    pysock_ssl_context_release(server);
}

#define HAPROXY                                                                                    \
    "global\nmaxconn 50\nssl-server-verify required\n"                                             \
    "defaults\nmode tcp\ntimeout connect 60s\ntimeout client 60s\ntimeout server 60s\n"            \
    "listen l\nbind 127.0.0.1:" P_PORT

T_TEST(haproxy_carries_tls_in_both_roles, 60) {
    need_in_sbin("haproxy");
    static const char command[] = "haproxy -db -f \"$1\"";
    const char *certs = absolute(T_CERTS), *both = f_path("both.pem");
    char *cert = f_read(p_cert_file("server-ec"), NULL),
         *key = f_read(p_key_file("server-ec"), NULL);
    int port;
    pysock *listener = t_listen(&port);
    pysock_ssl_context *server = t_server_ctx_of("server-rsa");
    FILE *f = fopen(both, "w");
    T_CHECK(f && fputs(cert, f) >= 0 && fputs(key, f) >= 0 && fclose(f) == 0);
    T_STEP("as a client");
    behind_a_proxy(p_format(HAPROXY "\nserver s 127.0.0.1:%d ssl verify required "
                                    "ca-file %s/ca.pem sni str(localhost) verifyhost localhost\n",
                            port, certs),
                   command, listener, server);
    T_STEP("as a server");
    in_front_of_us_a_proxy(
        p_format(HAPROXY " ssl crt %s\nserver s 127.0.0.1:%d\n", absolute(both), port), command,
        listener);
    free(cert);
    free(key);
    T_OK(pysock_close(listener));
    pysock_ssl_context_release(server);
}

T_MAIN(.each_teardown = p_clear_away)
