/* Every suite and version, certificates of both kinds, and records of all sizes with other people's
   TLS in both roles. What tests/test_peers.c has is not repeated here. */
#include "support.h"

#include "peers/files.h"
#include "peers/handshake.h"
#include "peers/process.h"

#define CA T_CERTS "ca.pem"
#define ALL_SUITES "ALL:COMPLEMENTOFALL"
#define OPENSSL_ALL "ALL:COMPLEMENTOFALL:@SECLEVEL=0"
#define MAX_SUITES 64

static int tear_down(void **state) {
    p_end_all(state);
    return f_remove_all(state);
}

static const char *cert_file(const char *name) {
    return p_format(T_CERTS "%s.pem", name);
}

static const char *key_file(const char *name) {
    return p_format(T_CERTS "%s.key", name);
}

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
    T_OK(pysock_ssl_load_cert_chain(ctx, cert_file("server-rsa"), key_file("server-rsa")));
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
    pysock_ssl_context_free(ctx);
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

static void every_suite_is_spoken_with_openssl_s_server(void **state) {
    (void)state;
    t_deadline(120);
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
        pysock_ssl_context_free(ctx);
        s = p_connect(&p, port);
    }
    T_OK(pysock_close(s));
}

static void every_suite_is_spoken_with_openssl_s_client(void **state) {
    (void)state;
    t_deadline(120);
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
    pysock_ssl_context_free(ctx);
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

static void what_openssl_lacks_is_spoken_with_gnutls(void **state) {
    (void)state;
    t_deadline(120);
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
        pysock_ssl_context_free(client);

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
    pysock_ssl_context_free(server);
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
        run_openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out",
                    key, NULL);
    else
        run_openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key, NULL);
    run_openssl("req", "-new", "-config", cnf, "-key", key, "-subj",
                ca[0] ? "/CN=localhost" : "/CN=an RSA authority", "-out", request, NULL);
    if (ca[0])
        run_openssl("x509", "-req", "-in", request, "-CA", p_format("%s.pem", ca), "-CAkey",
                    p_format("%s.key", ca), "-set_serial", "4711", "-days", "30", "-extfile", cnf,
                    "-extensions", usage, "-out", cert, NULL);
    else
        run_openssl("x509", "-req", "-in", request, "-signkey", key, "-days", "30", "-extfile",
                    cnf, "-extensions", usage, "-out", cert, NULL);
}

static pysock_ssl_context *server_with(const char *path) {
    pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
    T_OK(pysock_ssl_load_cert_chain(ctx, p_format("%s.pem", path), p_format("%s.key", path)));
    return ctx;
}

/* ECDH-ECDSA wants an EC certificate that an EC key has signed, ECDH-RSA one by an RSA key. Nobody
   else speaks them any more. */
static void static_ecdh_is_spoken_between_two_of_us(void **state) {
    (void)state;
    t_deadline(120);
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
        pysock_ssl_context_free(client);
        spoken++;
    }
    T_EQ(spoken, 14);
    pysock_ssl_context_free(by_ec);
    pysock_ssl_context_free(by_rsa);
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
    pysock_ssl_context_free(ctx);
}

static void every_version_is_spoken_with_servers(void **state) {
    (void)state;
    t_deadline(120);
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
        greet_as_client(&p, s, v, p_format("(TLS%s)", v->gnutls), 1);
        T_STEP("python, %s", v->name);
        s = start_server(&p, &port, "python3", "tests/peers/peer.py", "server", "--port", P_PORT,
                         "--cert", T_CERTS "server-rsa.pem", "--key", T_CERTS "server-rsa.key",
                         "--version", v->python, NULL);
        greet_as_client(&p, s, v, p_format("version=%s ", v->name), 1);
    }
}

static void every_version_is_spoken_with_clients(void **state) {
    (void)state;
    t_deadline(120);
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
            said = p_format("(TLS%s)", v->gnutls);
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
        pysock_ssl_context_free(ctx);
    }
    T_OK(pysock_close(listener));
}

static void versions_without_an_overlap_are_told_apart(void **state) {
    (void)state;
    t_deadline(120);
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
        H_CONTAINS(o.reason, we_are_newer ? "UNSUPPORTED_PROTOCOL" : "ALERT_PROTOCOL_VERSION");
        T_OK(pysock_close(s));
        p_wait_for(&p, we_are_newer ? "alert protocol version" : "unsupported protocol");
        p_end(&p);
        pysock_ssl_context_free(client);
        pysock_ssl_context_free(server);
    }
    T_OK(pysock_close(listener));
}

/* ---- two certificates, two contexts ---- */

static void a_server_of_both_kinds_shows_openssl_the_one_it_can_use(void **state) {
    (void)state;
    t_deadline(60);
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
    pysock_ssl_context_free(ctx);
}

/* The other context, with an RSA key, is for a.example.test. */
static int choose_by_name(pysock_ssl_client_hello *hello, void *arg) {
    if (hello->server_name && strcmp(hello->server_name, "a.example.test") == 0)
        hello->context = arg;
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
        start_client(p, "python3", "tests/peers/peer.py", "client", "--port",
                     p_format("%d", port), "--ca", CA, "--host", host, "--tls12", NULL);
    }
}

static void a_name_chooses_among_two_contexts(void **state) {
    (void)state;
    t_deadline(60);
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
        T_CHECK(pysock_ssl_get_context(s) == (is_other ? other : first));
        p_wait_for(&p, cipher_of(s));
        T_OK(pysock_close(s));
        p_end(&p);
    }
    T_OK(pysock_close(listener));
    pysock_ssl_context_free(first);
    pysock_ssl_context_free(other);
}
/*MORE*/

#define CASE(test) cmocka_unit_test_teardown(test, tear_down)

static const struct CMUnitTest tests[] = {
    CASE(every_suite_is_spoken_with_openssl_s_server),
    CASE(every_suite_is_spoken_with_openssl_s_client),
    CASE(what_openssl_lacks_is_spoken_with_gnutls),
    CASE(static_ecdh_is_spoken_between_two_of_us),
    CASE(every_version_is_spoken_with_servers),
    CASE(every_version_is_spoken_with_clients),
    CASE(versions_without_an_overlap_are_told_apart),
    CASE(a_server_of_both_kinds_shows_openssl_the_one_it_can_use),
    CASE(a_name_chooses_among_two_contexts),
/*CASES*/
};

T_MAIN(tests)
