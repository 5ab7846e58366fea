/* Which certificates are accepted, which refused and why, and which files load. */
#include "support/support.h"
#include "support/files.h"
#include "support/handshake.h"
#include "support/process.h"
#include "support/shell.h"

#define CA T_CERTS "ca.pem"

/* ---- accepted, refused ---- */

static pysock_ssl_context *client_that_trusts(const char *file) {
    pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    T_OK(pysock_ssl_load_verify_locations(ctx, file, NULL));
    return ctx;
}

static pysock_ssl_context *server_with(const char *cert, const char *key) {
    pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
    T_OK(pysock_ssl_load_cert_chain(ctx, cert, key));
    return ctx;
}

/* Takes both contexts. */
static void is_accepted(pysock_ssl_context *client, pysock_ssl_context *server, const char *host) {
    h_pair p;
    h_connect(&p, client, server, host);
    h_greet(&p);
    h_close(&p);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

/* Takes both contexts. Code T_ANY: any check may say no. The server must learn of it by an alert
   whose name contains the text. */
static void is_refused(pysock_ssl_context *client, pysock_ssl_context *server, const char *host,
                       int code, const char *check, const char *alert) {
    h_pair p;
    T_STEP("for %s", host);
    h_try(&p, client, server, host);
    h_is_refusal(&p.at_client, code == T_ANY ? p.at_client.verify_code : code, check);
    T_CHECK(p.at_client.verify_code != 0);
    h_is_alert(&p.at_server, alert);
    h_close(&p);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

static void accepts(const char *name, const char *host) {
    T_STEP("%s for %s", name, host);
    is_accepted(t_client_ctx(), t_server_ctx_of(name), host);
}

static void refuses(const char *name, const char *host, int code, const char *check,
                    const char *alert) {
    T_STEP("%s for %s", name, host);
    is_refused(t_client_ctx(), t_server_ctx_of(name), host, code, check, alert);
}

static void refuses_the_name(const char *name, const char *host) {
    refuses(name, host, 62, "hostname mismatch", "ALERT");
}

static void refuses_the_address(const char *name, const char *host) {
    refuses(name, host, 64, "IP address mismatch", "ALERT");
}

/* ---- certificates made on the spot, with the key of server-ec ---- */

static const char request_config[] = "[req]\ndistinguished_name = dn\nprompt = no\n"
                                     "[dn]\nCN = placeholder\n";

static void openssl(const p_args *args) {
    static p_process p;
    if (p_run(&p, args) != 0)
        P_FAIL(&p, "openssl %s failed", args->argv[1]);
    p_end(&p);
}

/* Issues NAME.pem with this subject and these lines of x509v3_config for the key; the issuer is a
   path without ".pem" and ".key". */
static const char *issue_for(const char *name, const char *key, const char *issuer,
                             const char *subject, const char *extensions) {
    p_args request = {{NULL}, 0}, sign = {{NULL}, 0};
    const char *config = f_write_text("request.cnf", request_config);
    const char *lines = f_write_text("extensions.cnf", extensions);
    const char *csr = f_path("request.pem");
    const char *pem = f_path(p_format("%s.pem", name));
    static int serial = 1000;
    p_add(&request, "openssl", "req", "-new", "-config", config, "-key", key, "-subj", subject,
          "-out", csr, NULL);
    openssl(&request);
    p_add(&sign, "openssl", "x509", "-req", "-in", csr, "-CA", p_format("%s.pem", issuer), "-CAkey",
          p_format("%s.key", issuer), "-set_serial", p_format("%d", ++serial), "-days", "3650",
          "-sha256", "-extfile", lines, "-out", pem, NULL);
    openssl(&sign);
    return pem;
}

static const char *issue(const char *name, const char *subject, const char *extensions) {
    return issue_for(name, T_CERTS "server-ec.key", T_CERTS "ca", subject, extensions);
}

static pysock_ssl_context *server_with_issued(const char *name, const char *subject,
                                              const char *extensions) {
    return server_with(issue(name, subject, extensions), T_CERTS "server-ec.key");
}

static void copy_to(const char *name, const char *from) {
    size_t size;
    char *data = f_read(from, &size);
    f_write(name, data, size);
    free(data);
}

/* One file after the other. */
static const char *join(const char *name, const char *first, const char *second) {
    size_t a, b;
    char *one = f_read(first, &a), *two = f_read(second, &b);
    const char *path;
    one = realloc(one, a + b + 1);
    T_CHECK(one != NULL);
    memcpy(one + a, two, b + 1);
    path = f_write(name, one, a + b);
    free(one);
    free(two);
    return path;
}

/* ==== chains ==== */

T_TEST(good_certificates_are_accepted, 120) {
    accepts("server-ec", "localhost");
    accepts("server-rsa", "localhost");
    accepts("chain-ec", "localhost");
}

T_TEST(a_certificate_for_another_host_is_refused, 60) {
    refuses_the_name("wrong-host", "localhost");
    accepts("wrong-host", "other.test");
}

T_TEST(the_message_names_the_host_that_did_not_match, 60) {
    h_pair p;
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx_of("wrong-host");
    h_try(&p, client, server, "shop.example.test");
    H_CONTAINS(p.at_client.message, "shop.example.test");
    H_CONTAINS(p.at_client.message, "hostname mismatch");
    h_close(&p);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

T_TEST(an_expired_certificate_is_refused, 60) {
    refuses("expired", "localhost", 10, "certificate has expired",
            "SSLV3_ALERT_CERTIFICATE_EXPIRED");
}

T_TEST(a_certificate_of_the_future_is_refused, 60) {
    refuses("not-yet-valid", "localhost", 9, "not yet valid", "ALERT");
}

T_TEST(a_self_signed_certificate_is_refused, 60) {
    refuses("self-signed", "localhost", 18, "self-signed certificate", "TLSV1_ALERT_UNKNOWN_CA");
}

T_TEST(a_self_signed_certificate_may_be_trusted_itself, 60) {
    is_accepted(client_that_trusts(T_CERTS "self-signed.pem"), t_server_ctx_of("self-signed"),
                "localhost");
    is_refused(client_that_trusts(T_CERTS "self-signed.pem"), t_server_ctx_of("self-signed"),
               "elsewhere.test", 62, "hostname mismatch", "ALERT");
    is_refused(client_that_trusts(T_CERTS "self-signed.pem"), t_server_ctx_of("server-ec"),
               "localhost", 20, "unable to get local issuer", "TLSV1_ALERT_UNKNOWN_CA");
}

T_TEST(a_certificate_of_an_unknown_authority_is_refused, 60) {
    refuses("untrusted", "localhost", 20, "unable to get local issuer certificate",
            "TLSV1_ALERT_UNKNOWN_CA");
    is_accepted(client_that_trusts(T_CERTS "other-ca.pem"), t_server_ctx_of("untrusted"),
                "localhost");
}

T_TEST(a_root_sent_along_is_not_trusted_for_that, 60) {
    const char *chain = join("chain.pem", T_CERTS "untrusted.pem", T_CERTS "other-ca.pem");
    is_refused(t_client_ctx(), server_with(chain, T_CERTS "untrusted.key"), "localhost", 19,
               "self-signed certificate in certificate chain", "TLSV1_ALERT_UNKNOWN_CA");
}

T_TEST(a_trusted_root_may_be_sent_along, 60) {
    const char *chain = join("chain.pem", T_CERTS "chain-ec.pem", CA);
    is_accepted(t_client_ctx(), server_with(chain, T_CERTS "chain-ec.key"), "localhost");
}

T_TEST(a_chain_without_its_intermediate_is_refused, 60) {
    char *chain = f_read(T_CERTS "chain-ec.pem", NULL);
    char *second = strstr(chain + 1, "-----BEGIN CERTIFICATE-----");
    const char *leaf;
    T_CHECK(second != NULL);
    *second = 0;
    leaf = f_write_text("leaf.pem", chain);
    free(chain);
    is_refused(t_client_ctx(), server_with(leaf, T_CERTS "chain-ec.key"), "localhost", 20,
               "unable to get local issuer certificate", "TLSV1_ALERT_UNKNOWN_CA");
}

T_TEST(a_client_without_authorities_trusts_nobody, 60) {
    is_refused(T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH)), t_server_ctx(), "localhost", 20,
               "unable to get local issuer certificate", "TLSV1_ALERT_UNKNOWN_CA");
}

T_TEST(a_certificate_for_clients_is_no_server, 60) {
    refuses("client", "client", 26, "unsuitable certificate purpose", "ALERT");
}

T_TEST(a_leaf_cannot_issue_certificates, 60) {
    P_NEED("openssl");
    const char *pem = issue_for("false", T_CERTS "server-ec.key", T_CERTS "wrong-host",
                                "/CN=localhost", "subjectAltName = DNS:localhost\n");
    const char *chain = join("chain.pem", pem, T_CERTS "wrong-host.pem");
    is_refused(t_client_ctx(), server_with(chain, T_CERTS "server-ec.key"), "localhost", T_ANY, "",
               "ALERT");
}

T_TEST(a_forged_signature_is_refused, 60) {
    P_NEED("openssl");
    /* The issuer has the right name and another key. */
    const char *pem;
    copy_to("forger.pem", CA);
    copy_to("forger.key", T_CERTS "server-ec.key");
    p_args forge = {{NULL}, 0};
    const char *config = f_write_text("forger.cnf", request_config);
    p_add(&forge, "openssl", "req", "-x509", "-new", "-config", config, "-key",
          f_path("forger.key"), "-subj", "/O=pysock tests/CN=pysock test CA", "-days", "3650",
          "-out", f_path("forger.pem"), NULL);
    openssl(&forge);
    pem = issue_for("forged", T_CERTS "server-ec.key", f_path("forger"), "/CN=localhost",
                    "subjectAltName = DNS:localhost\n");
    is_refused(t_client_ctx(), server_with(pem, T_CERTS "server-ec.key"), "localhost", T_ANY, "",
               "ALERT");
}

/* BearSSL does not look at name constraints: what cannot be checked must not pass. */
T_TEST(a_chain_that_breaks_its_name_constraints_is_refused, 60) {
    P_NEED("openssl");
    const char *middle, *leaf, *chain;
    copy_to("middle.key", T_CERTS "wrong-host.key");
    middle = issue_for("middle", f_path("middle.key"), T_CERTS "ca", "/CN=constrained",
                       "basicConstraints = critical, CA:TRUE\n"
                       "keyUsage = critical, keyCertSign\n"
                       "nameConstraints = permitted;DNS:allowed.test\n");
    leaf = issue_for("leaf", T_CERTS "server-ec.key", f_path("middle"), "/CN=localhost",
                     "subjectAltName = DNS:localhost\n");
    chain = join("chain.pem", leaf, middle);
    is_refused(t_client_ctx(), server_with(chain, T_CERTS "server-ec.key"), "localhost", T_ANY, "",
               "ALERT");
}

/* Longer ones than BearSSL's examples have room for do exist. */
T_TEST(distinguished_names_may_be_long, 60) {
    P_NEED("openssl");
    char subject[4096];
    size_t used = 0;
    const char *config, *leaf, *root;
    p_args make = {{NULL}, 0};
    for (int i = 0; i < 30; i++)
        used += (size_t)snprintf(subject + used, sizeof subject - used,
                                 "/OU=%02d a department with quite a long name in the tree %02d", i,
                                 i);
    copy_to("long.key", T_CERTS "wrong-host.key");
    config = f_write_text("long.cnf", request_config);
    root = f_path("long.pem");
    p_add(&make, "openssl", "req", "-x509", "-new", "-config", config, "-key", f_path("long.key"),
          "-subj", subject, "-days", "3650", "-addext", "basicConstraints=critical,CA:TRUE",
          "-addext", "keyUsage=critical,keyCertSign", "-out", root, NULL);
    openssl(&make);
    snprintf(subject + used, sizeof subject - used, "/CN=localhost");
    leaf = issue_for("leaf", T_CERTS "server-ec.key", f_path("long"), subject,
                     "subjectAltName = DNS:localhost\n");
    is_accepted(client_that_trusts(root), server_with(leaf, T_CERTS "server-ec.key"), "localhost");
    is_refused(t_client_ctx(), server_with(leaf, T_CERTS "server-ec.key"), "localhost", 20,
               "unable to get local issuer", "TLSV1_ALERT_UNKNOWN_CA");
}

T_TEST(a_key_on_p384_works, 60) {
    P_NEED("openssl");
    p_args make = {{NULL}, 0};
    const char *key = f_path("p384.key"), *pem;
    p_add(&make, "openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384",
          "-pkeyopt", "ec_param_enc:named_curve", "-out", key, NULL);
    openssl(&make);
    pem = issue_for("p384", key, T_CERTS "ca", "/CN=localhost", "subjectAltName = DNS:localhost\n");
    is_accepted(t_client_ctx(), server_with(pem, key), "localhost");
}

/* ==== names ==== */

T_TEST(the_common_name_does_not_count_by_itself, 60) {
    refuses_the_name("cn-only", "localhost");
    refuses_the_name("cn-only", "LocalHost");
    refuses_the_name("cn-only", "elsewhere.test");
}

static pysock_ssl_context *client_of_common_names(void) {
    pysock_ssl_context *ctx = t_client_ctx();
    T_OK(pysock_ssl_set_hostname_checks_common_name(ctx, 1));
    return ctx;
}

T_TEST(the_common_name_counts_on_request_where_there_is_no_other, 60) {
    is_accepted(client_of_common_names(), t_server_ctx_of("cn-only"), "localhost");
    is_accepted(client_of_common_names(), t_server_ctx_of("cn-only"), "LocalHost");
    is_refused(client_of_common_names(), t_server_ctx_of("cn-only"), "elsewhere.test", 62,
               "hostname mismatch", "ALERT");
}

T_TEST(the_common_name_is_ignored_beside_a_subject_alt_name, 60) {
    refuses_the_name("cn-ignored", "localhost");
    accepts("cn-ignored", "other.test");
    is_refused(client_of_common_names(), t_server_ctx_of("cn-ignored"), "localhost", 62,
               "hostname mismatch", "ALERT");
    is_accepted(client_of_common_names(), t_server_ctx_of("cn-ignored"), "other.test");
}

T_TEST(the_common_name_is_ignored_beside_an_address, 60) {
    P_NEED("openssl");
    is_refused(client_of_common_names(),
               server_with_issued("ip", "/CN=localhost", "subjectAltName = IP:127.0.0.1\n"),
               "localhost", 62, "hostname mismatch", "ALERT");
    is_accepted(client_of_common_names(),
                server_with_issued("mail", "/CN=localhost", "subjectAltName = email:a@b.test\n"),
                "localhost");
}

T_TEST(addresses_are_matched_as_addresses, 120) {
    accepts("server-ec", "127.0.0.1");
    accepts("server-rsa", "::1");
    accepts("server-ec", "0:0:0:0:0:0:0:1");
    refuses_the_address("server-ec", "127.0.0.2");
    refuses_the_address("server-ec", "::2");
    refuses_the_address("chain-ec", "127.0.0.1");
    refuses_the_address("cn-only", "127.0.0.1");
    is_refused(client_of_common_names(), t_server_ctx_of("cn-only"), "127.0.0.1", 64,
               "IP address mismatch", "ALERT");
}

T_TEST(an_address_is_not_matched_by_names, 60) {
    P_NEED("openssl");
    is_refused(t_client_ctx(),
               server_with_issued("dns", "/CN=x", "subjectAltName = DNS:127.0.0.1\n"), "127.0.0.1",
               64, "IP address mismatch", "ALERT");
    is_refused(t_client_ctx(),
               server_with_issued("cn", "/CN=127.0.0.1", "basicConstraints = CA:FALSE\n"),
               "127.0.0.1", 64, "IP address mismatch", "ALERT");
    is_refused(client_of_common_names(),
               server_with_issued("cn", "/CN=127.0.0.1", "basicConstraints = CA:FALSE\n"),
               "127.0.0.1", 64, "IP address mismatch", "ALERT");
    is_refused(t_client_ctx(),
               server_with_issued("star", "/CN=x", "subjectAltName = DNS:*.0.0.1\n"), "127.0.0.1",
               64, "IP address mismatch", "ALERT");
}

T_TEST(a_wildcard_stands_for_one_label, 120) {
    accepts("server-ec", "foo.example.test");
    accepts("server-ec", "x-y.example.test");
    refuses_the_name("server-ec", "a.b.example.test");
    refuses_the_name("server-ec", "example.test");
    refuses_the_name("server-ec", "foo.example.test.evil");
    refuses_the_name("server-ec", "fooexample.test");
    refuses_the_name("server-ec", "*.b.example.test");
}

T_TEST(strange_wildcards_match_nothing, 120) {
    P_NEED("openssl");
    is_refused(t_client_ctx(), server_with_issued("a", "/CN=x", "subjectAltName = DNS:*\n"),
               "localhost", 62, "hostname mismatch", "ALERT");
    is_refused(t_client_ctx(),
               server_with_issued("b", "/CN=x", "subjectAltName = DNS:f*.example.test\n"),
               "foo.example.test", 62, "hostname mismatch", "ALERT");
    is_refused(t_client_ctx(),
               server_with_issued("c", "/CN=x", "subjectAltName = DNS:foo.*.example.test\n"),
               "foo.bar.example.test", 62, "hostname mismatch", "ALERT");
    is_refused(t_client_ctx(),
               server_with_issued("d", "/CN=x", "subjectAltName = DNS:*.*.example.test\n"),
               "foo.bar.example.test", 62, "hostname mismatch", "ALERT");
}

T_TEST(case_does_not_matter_in_names, 60) {
    accepts("server-ec", "LOCALHOST");
    accepts("server-ec", "Foo.EXAMPLE.Test");
}

T_TEST(a_trailing_dot_does_not_matter_in_names, 60) {
    h_pair p;
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    h_connect(&p, client, server, "localhost.");
    /* RFC 6066: no trailing dot in SNI. */
    H_SAME(t_server_hostname(p.server), "localhost");
    h_close(&p);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
    accepts("server-ec", "foo.example.test.");
    refuses_the_name("server-ec", "a.b.example.test.");
}

/* "localhost", a NUL, ".evil": whoever reads it as a C string is fooled. */
T_TEST(a_nul_does_not_end_a_name, 60) {
    P_NEED("openssl");
    is_refused(t_client_ctx(),
               server_with_issued("nul", "/CN=x",
                                  "subjectAltName = DER:30:11:82:0F:6C:6F:63:61:6C:68:6F:73:74:00:"
                                  "2E:65:76:69:6C\n"),
               "localhost", T_ANY, "", "ALERT");
}

T_TEST(the_last_of_many_names_counts, 60) {
    P_NEED("openssl");
    char text[16384];
    size_t used = (size_t)snprintf(text, sizeof text, "subjectAltName = DNS:first.test");
    for (int i = 0; i < 300; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, ",DNS:name-%d.of-many.test", i);
    snprintf(text + used, sizeof text - used, ",URI:https://x.test/,DNS:localhost\n");
    is_accepted(t_client_ctx(), server_with_issued("many", "/CN=x", text), "localhost");
}

T_TEST(unusable_host_names_are_refused_at_once, 60) {
    static const size_t sizes[] = {300, 399, 100000};
    static char name[100001];
    pysock_ssl_context *ctx = t_client_ctx();
    pysock *pair[2];
    t_pair(pair);
    T_FAILS(pysock_ssl_wrap_socket(pair[0], ctx, ""), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_wrap_socket(pair[0], ctx, ".example.test"), PYSOCK_VALUE_ERROR, EINVAL);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        memset(name, 'a', sizes[i]);
        name[sizes[i]] = 0;
        T_FAILS(pysock_ssl_wrap_socket(pair[0], ctx, name), PYSOCK_VALUE_ERROR, EINVAL);
    }
    T_FAILS(pysock_ssl_wrap_socket(pair[0], ctx, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_EQ(pysock_is_ssl(pair[0]), 0);
    t_say(pair[0], "plain as ever");
    t_expect(pair[1], "plain as ever");
    t_close_pair(pair);
    pysock_ssl_context_release(ctx);
}

/* ==== modes ==== */

T_TEST(without_verification_every_certificate_will_do, 120) {
    static const char *const names[] = {"server-ec", "server-rsa",    "chain-ec",    "wrong-host",
                                        "expired",   "not-yet-valid", "self-signed", "untrusted",
                                        "cn-only",   "cn-ignored",    "client"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        h_pair p;
        pysock_buf *der;
        pysock_ssl_context *client = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
        pysock_ssl_context *server = t_server_ctx_of(names[i]);
        T_STEP("%s", names[i]);
        T_OK(pysock_ssl_set_check_hostname(client, 0));
        T_OK(pysock_ssl_set_verify_mode(client, PYSOCK_CERT_NONE));
        h_connect(&p, client, server, i % 2 ? NULL : "localhost");
        h_greet(&p);
        der = T_OK(pysock_ssl_getpeercert_der(p.client));
        T_CHECK(pysock_buf_size(der) > 200);
        pysock_buf_release(der);
        h_close(&p);
        pysock_ssl_context_release(client);
        pysock_ssl_context_release(server);
    }
}

static pysock_ssl_context *client_without_names(void) {
    pysock_ssl_context *ctx = t_client_ctx();
    T_OK(pysock_ssl_set_check_hostname(ctx, 0));
    return ctx;
}

T_TEST(without_check_hostname_only_the_name_is_free, 120) {
    is_accepted(client_without_names(), t_server_ctx_of("wrong-host"), "localhost");
    is_accepted(client_without_names(), t_server_ctx_of("wrong-host"), NULL);
    is_accepted(client_without_names(), t_server_ctx_of("server-ec"), "127.0.0.9");
    is_refused(client_without_names(), t_server_ctx_of("expired"), "localhost", 10,
               "certificate has expired", "ALERT");
    is_refused(client_without_names(), t_server_ctx_of("untrusted"), "localhost", 20,
               "unable to get local issuer", "ALERT");
    is_refused(client_without_names(), t_server_ctx_of("client"), NULL, 26,
               "unsuitable certificate purpose", "ALERT");
}

T_TEST(verification_and_name_check_depend_on_each_other_as_in_python, 60) {
    pysock_ssl_context *ctx = t_client_ctx();
    T_EQ(pysock_ssl_get_verify_mode(ctx), PYSOCK_CERT_REQUIRED);
    T_EQ(pysock_ssl_get_check_hostname(ctx), 1);
    T_FAILS(pysock_ssl_set_verify_mode(ctx, PYSOCK_CERT_NONE), PYSOCK_VALUE_ERROR, EINVAL);
    T_EQ(pysock_ssl_get_verify_mode(ctx), PYSOCK_CERT_REQUIRED);
    T_OK(pysock_ssl_set_check_hostname(ctx, 0));
    T_OK(pysock_ssl_set_verify_mode(ctx, PYSOCK_CERT_NONE));
    T_EQ(pysock_ssl_get_verify_mode(ctx), PYSOCK_CERT_NONE);
    T_OK(pysock_ssl_set_check_hostname(ctx, 1));
    T_EQ(pysock_ssl_get_verify_mode(ctx), PYSOCK_CERT_REQUIRED);
    T_FAILS(pysock_ssl_set_verify_mode(ctx, 17), PYSOCK_VALUE_ERROR, EINVAL);
    pysock_ssl_context_release(ctx);
}

T_TEST(a_refusal_on_a_non_blocking_socket_says_the_same, 60) {
    h_pair p;
    h_outcome o;
    t_thread thread;
    pysock *pair[2];
    char byte;
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx_of("expired");
    t_pair(pair);
    memset(&p, 0, sizeof p);
    p.client = pair[0];
    p.server = pair[1];
    p.server_ctx = server;
    T_OK(pysock_settimeout(p.server, H_TIMEOUT));
    t_spawn(&thread, h_serve, &p);
    T_OK(pysock_setblocking(p.client, 0));
    T_OK(pysock_ssl_wrap_socket(p.client, client, "localhost"));
    T_STEP("waiting for the handshake to fail");
    T_CHECK(t_readable(p.client, H_TIMEOUT));
    T_CHECK(t_writable(p.client, 0));
    for (int i = 0; i < 2; i++) {
        o = h_outcome_of(pysock_ssl_do_handshake(p.client));
        h_is_refusal(&o, 10, "certificate has expired");
        o = h_outcome_of((int)pysock_recv(p.client, &byte, 1, 0));
        h_is_refusal(&o, 10, "certificate has expired");
        o = h_outcome_of((int)pysock_send(p.client, &byte, 1, 0));
        h_is_refusal(&o, 10, "certificate has expired");
    }
    t_join(&thread);
    h_is_alert(&p.at_server, "SSLV3_ALERT_CERTIFICATE_EXPIRED");
    h_close(&p);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

/* ==== loading an identity ==== */

static void peer_is(pysock *s, const char *der, size_t size) {
    pysock_buf *have = T_OK(pysock_ssl_getpeercert_der(s));
    T_EQ(pysock_buf_size(have), size);
    T_EQ(memcmp(pysock_buf_data(have), der, size), 0);
    pysock_buf_release(have);
}

/* The server context still has the identity of server-ec. */
static void is_still_server_ec(pysock_ssl_context *server) {
    h_pair p;
    pysock_buf *have, *want;
    pysock_ssl_context *client = t_client_ctx(), *other = t_server_ctx();
    T_OK(pysock_ssl_set_session_cache(client, 0));
    h_connect(&p, client, other, "localhost");
    want = T_OK(pysock_ssl_getpeercert_der(p.client));
    h_close(&p);
    h_connect(&p, client, server, "localhost");
    have = T_OK(pysock_ssl_getpeercert_der(p.client));
    h_greet(&p);
    h_close(&p);
    T_EQ(pysock_buf_size(have), pysock_buf_size(want));
    T_EQ(memcmp(pysock_buf_data(have), pysock_buf_data(want), pysock_buf_size(want)), 0);
    pysock_buf_release(have);
    pysock_buf_release(want);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(other);
}

/* Words separated by '|', of which one must be in the message. */
static void says_one_of(const char *words) {
    const char *message = pysock_error_message();
    char word[64];
    const char *rest = words;
    while (*rest) {
        size_t n = strcspn(rest, "|");
        snprintf(word, sizeof word, "%.*s", (int)n, rest);
        if (h_contains(message, word))
            return;
        rest += n + (rest[n] == '|');
    }
    T_FAIL("the message '%s' has none of: %s", message, words);
}

/* Fails, names the file at fault and the cause, and leaves the identity as it was. */
static void load_fails(pysock_ssl_context *ctx, const char *cert, const char *key, int kind,
                       int error_number, const char *at_fault, const char *words) {
    T_STEP("loading %s, %s", cert, key ? key : "its own key");
    T_FAILS(pysock_ssl_load_cert_chain(ctx, cert, key), kind, error_number);
    if (!h_contains(pysock_error_message(), at_fault))
        T_FAIL("the message '%s' does not name %s", pysock_error_message(), at_fault);
    says_one_of(words);
    is_still_server_ec(ctx);
}

#define EC_PEM T_CERTS "server-ec.pem"
#define EC_KEY T_CERTS "server-ec.key"
#define RSA_PEM T_CERTS "server-rsa.pem"
#define RSA_KEY T_CERTS "server-rsa.key"
#define MISMATCH "match|belong"

T_TEST(files_that_cannot_be_read_are_named, 120) {
    pysock_ssl_context *ctx = t_server_ctx();
    load_fails(ctx, "build/none.pem", EC_KEY, PYSOCK_OS_ERROR, ENOENT, "build/none.pem",
               "no such file");
    H_SAME(pysock_error_name(), "FileNotFoundError");
    load_fails(ctx, EC_PEM, "build/none.key", PYSOCK_OS_ERROR, ENOENT, "build/none.key",
               "no such file");
    load_fails(ctx, "tests/certs", EC_KEY, T_ANY, T_ANY, "tests/certs", "directory");
    load_fails(ctx, EC_PEM, "tests/certs", T_ANY, T_ANY, "tests/certs", "directory");
    load_fails(ctx, EC_PEM "/x", EC_KEY, PYSOCK_OS_ERROR, ENOTDIR, EC_PEM "/x", "not a directory");
    pysock_ssl_context_release(ctx);
}

T_TEST(files_without_a_certificate_or_key_are_named, 120) {
    pysock_ssl_context *ctx = t_server_ctx();
    static const char zeros[300] = {0};
    const char *empty = f_write_text("empty.pem", "");
    const char *noise = f_write_text("noise.pem", "This is a poem,\nnot a PEM.\n");
    const char *binary = f_write("binary.pem", zeros, sizeof zeros);
    load_fails(ctx, empty, EC_KEY, PYSOCK_SSL_ERROR, EPROTO, "empty.pem", "certificate|empty");
    load_fails(ctx, noise, EC_KEY, PYSOCK_SSL_ERROR, EPROTO, "noise.pem", "certificate");
    load_fails(ctx, binary, EC_KEY, PYSOCK_SSL_ERROR, EPROTO, "binary.pem", "certificate");
    load_fails(ctx, EC_PEM, empty, PYSOCK_SSL_ERROR, EPROTO, "empty.pem", "key|empty");
    load_fails(ctx, EC_PEM, noise, PYSOCK_SSL_ERROR, EPROTO, "noise.pem", "key");
    load_fails(ctx, EC_PEM, binary, PYSOCK_SSL_ERROR, EPROTO, "binary.pem", "key");
    load_fails(ctx, EC_KEY, EC_KEY, PYSOCK_SSL_ERROR, EPROTO, "server-ec.key", "certificate");
    load_fails(ctx, EC_PEM, EC_PEM, PYSOCK_SSL_ERROR, EPROTO, "server-ec.pem", "key");
    load_fails(ctx, EC_PEM, NULL, PYSOCK_SSL_ERROR, EPROTO, "server-ec.pem", "key");
    pysock_ssl_context_release(ctx);
}

T_TEST(keys_that_do_not_match_are_named, 120) {
    P_NEED("openssl");
    pysock_ssl_context *ctx = t_server_ctx();
    p_args make = {{NULL}, 0};
    const char *rsa = f_path("other-rsa.key");
    p_add(&make, "openssl", "genrsa", "-out", rsa, "2048", NULL);
    openssl(&make);
    load_fails(ctx, EC_PEM, T_CERTS "wrong-host.key", PYSOCK_SSL_ERROR, EPROTO, "wrong-host.key",
               MISMATCH);
    load_fails(ctx, RSA_PEM, rsa, PYSOCK_SSL_ERROR, EPROTO, "other-rsa.key", MISMATCH);
    load_fails(ctx, RSA_PEM, EC_KEY, PYSOCK_SSL_ERROR, EPROTO, "server-ec.key", MISMATCH);
    load_fails(ctx, EC_PEM, RSA_KEY, PYSOCK_SSL_ERROR, EPROTO, "server-rsa.key", MISMATCH);
    pysock_ssl_context_release(ctx);
}

T_TEST(a_chain_in_the_wrong_order_does_not_match, 60) {
    pysock_ssl_context *ctx = t_server_ctx();
    char *chain = f_read(T_CERTS "chain-ec.pem", NULL);
    char *second = strstr(chain + 1, "-----BEGIN CERTIFICATE-----");
    const char *file;
    T_CHECK(second != NULL);
    file = f_write_text("second.pem", second);
    *second = 0;
    file = join("swapped.pem", file, f_write_text("first.pem", chain));
    free(chain);
    load_fails(ctx, file, T_CERTS "chain-ec.key", PYSOCK_SSL_ERROR, EPROTO, "swapped.pem",
               MISMATCH);
    pysock_ssl_context_release(ctx);
}

T_TEST(encrypted_keys_are_called_encrypted, 60) {
    P_NEED("openssl");
    pysock_ssl_context *ctx = t_server_ctx();
    p_args pkcs8 = {{NULL}, 0}, old = {{NULL}, 0};
    const char *modern = f_path("modern.key"), *ancient = f_path("ancient.key");
    p_add(&pkcs8, "openssl", "pkcs8", "-topk8", "-in", EC_KEY, "-passout", "pass:secret", "-out",
          modern, NULL);
    openssl(&pkcs8);
    p_add(&old, "openssl", "ec", "-in", EC_KEY, "-aes128", "-passout", "pass:secret", "-out",
          ancient, NULL);
    openssl(&old);
    load_fails(ctx, EC_PEM, modern, PYSOCK_SSL_ERROR, EPROTO, "modern.key",
               "encrypted|password|passphrase");
    load_fails(ctx, EC_PEM, ancient, PYSOCK_SSL_ERROR, EPROTO, "ancient.key",
               "encrypted|password|passphrase");
    pysock_ssl_context_release(ctx);
}

T_TEST(keys_of_a_kind_that_is_not_supported_are_named, 60) {
    P_NEED("openssl");
    pysock_ssl_context *ctx = t_server_ctx();
    p_args make = {{NULL}, 0};
    const char *key = f_path("ed25519.key"), *pem;
    p_add(&make, "openssl", "genpkey", "-algorithm", "ED25519", "-out", key, NULL);
    openssl(&make);
    pem = issue_for("ed25519", key, T_CERTS "ca", "/CN=localhost",
                    "subjectAltName = DNS:localhost\n");
    load_fails(ctx, pem, key, PYSOCK_SSL_ERROR, EPROTO, "ed25519", "support|type|kind|unknown|key");
    pysock_ssl_context_release(ctx);
}

#define DAMAGE "certificate|base64|PEM|truncated|damaged|broken|invalid|cut|END"

T_TEST(damaged_certificates_are_named, 120) {
    pysock_ssl_context *ctx = t_server_ctx();
    size_t size;
    char *text = f_read(EC_PEM, &size);
    char *copy = malloc(size + 1);
    char *end = strstr(text, "-----END");
    char *body = strchr(text, '\n') + 1;
    const char *file;
    T_CHECK(copy != NULL && end != NULL && size > 400);

    T_STEP("the end is missing");
    file = f_write("no-end.pem", text, (size_t)(end - text));
    load_fails(ctx, file, EC_KEY, PYSOCK_SSL_ERROR, EPROTO, "no-end.pem", DAMAGE);

    T_STEP("a foreign character");
    memcpy(copy, text, size + 1);
    copy[(body - text) + 70] = '!';
    file = f_write("foreign.pem", copy, size);
    load_fails(ctx, file, EC_KEY, PYSOCK_SSL_ERROR, EPROTO, "foreign.pem", DAMAGE);

    T_STEP("whole lines are missing");
    snprintf(copy, size, "%.*s%s", (int)(body - text) + 65 * 3, text, end);
    file = f_write_text("short.pem", copy);
    load_fails(ctx, file, EC_KEY, PYSOCK_SSL_ERROR, EPROTO, "short.pem", DAMAGE);

    T_STEP("nothing between BEGIN and END");
    file = f_write_text("hollow.pem", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n");
    load_fails(ctx, file, EC_KEY, PYSOCK_SSL_ERROR, EPROTO, "hollow.pem", DAMAGE);
    free(copy);
    free(text);
    pysock_ssl_context_release(ctx);
}

T_TEST(damaged_keys_are_named, 120) {
    pysock_ssl_context *ctx = t_server_ctx();
    size_t size;
    char *text = f_read(EC_KEY, &size);
    char *end = strstr(text, "-----END");
    char *body = strchr(text, '\n') + 1;
    const char *file;
    T_CHECK(end != NULL);
    file = f_write("no-end.key", text, (size_t)(end - text));
    load_fails(ctx, EC_PEM, file, PYSOCK_SSL_ERROR, EPROTO, "no-end.key", DAMAGE "|key");
    body[10] = '!';
    file = f_write("foreign.key", text, size);
    load_fails(ctx, EC_PEM, file, PYSOCK_SSL_ERROR, EPROTO, "foreign.key", DAMAGE "|key");
    free(text);
    pysock_ssl_context_release(ctx);
}

/* The error must name the file; the context must be as good as before. */
static void refuse_chain(pysock_ssl_context *ctx, const char *cert, const char *key,
                         const char *named) {
    T_STEP("%s and %s", cert, key ? key : "NULL");
    T_FAILS(pysock_ssl_load_cert_chain(ctx, cert, key), T_ANY, T_ANY);
    if (!strstr(pysock_error_message(), named))
        T_FAIL("'%s' does not name %s", pysock_error_message(), named);
}

static void refuse_anchors(pysock_ssl_context *ctx, const char *file, const char *named) {
    ptrdiff_t before = pysock_ssl_ca_count(ctx);
    T_STEP("%s as trust anchor", file);
    T_FAILS(pysock_ssl_load_verify_locations(ctx, file, NULL), T_ANY, T_ANY);
    if (!strstr(pysock_error_message(), named))
        T_FAIL("'%s' does not name %s", pysock_error_message(), named);
    T_EQ(pysock_ssl_ca_count(ctx), before);
}

T_TEST(files_that_are_no_certificates_are_named, 60) {
    static const char nonsense[] =
        "-----BEGIN CERTIFICATE-----\nAAAABBBBCCCCDDDD\n-----END CERTIFICATE-----\n";
    static const char no_base64[] =
        "-----BEGIN CERTIFICATE-----\n!!! ??? !!!\n-----END CERTIFICATE-----\n";
    static const char encrypted[] =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIBvTBXBgkqhkiG9w0BBQ0w\n"
        "-----END ENCRYPTED PRIVATE KEY-----\n";
    size_t cert_size;
    char *cert = f_read(EC_PEM, &cert_size);
    unsigned char noise[3000];
    const char *path;
    struct {
        const void *data;
        size_t size;
    } bad[7];
    pysock_ssl_context *ctx = t_server_ctx(), *client = t_client_ctx();
    t_fill(noise, sizeof noise, 0, 11);
    bad[0].data = "";
    bad[0].size = 0;
    bad[1].data = noise;
    bad[1].size = sizeof noise;
    bad[2].data = nonsense;
    bad[2].size = strlen(nonsense);
    bad[3].data = no_base64;
    bad[3].size = strlen(no_base64);
    bad[4].data = encrypted;
    bad[4].size = strlen(encrypted);
    bad[5].data = cert; /* cut off in the middle */
    bad[5].size = cert_size / 2;
    bad[6].data = "just a line of text\n";
    bad[6].size = 20;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        path = f_write("bad.pem", bad[i].data, bad[i].size);
        refuse_chain(ctx, path, EC_KEY, path);
        refuse_chain(ctx, EC_PEM, path, path);
        refuse_chain(ctx, path, NULL, path);
        refuse_anchors(client, path, path);
    }
    T_STEP("the context still works");
    is_still_server_ec(ctx);
    pysock_ssl_context_release(ctx);
    pysock_ssl_context_release(client);
    free(cert);
}
/* Certificates and keys with bytes of them changed: refused or taken, never a crash. */
T_TEST(mutated_certificates_never_crash, 120) {
    static const char *const files[] = {T_CERTS "server-ec.pem", T_CERTS "server-rsa.pem",
                                        T_CERTS "ca.pem"};
    char *key, *originals[3];
    size_t key_size, sizes[3];
    unsigned int random = 1234567u;
    key = f_read(T_CERTS "server-ec.key", &key_size);
    for (int i = 0; i < 3; i++)
        originals[i] = f_read(files[i], &sizes[i]);
    for (int i = 0; i < T_SCALE(3000, 400); i++) {
        pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
        const char *original = originals[i % 3];
        size_t size = sizes[i % 3];
        char *mutated = malloc(size);
        T_CHECK(mutated != NULL);
        if (i % 100 == 0)
            T_STEP("mutation %d", i);
        memcpy(mutated, original, size);
        for (int k = 0; k <= i % 4; k++) {
            random = random * 1103515245u + 12345u;
            mutated[(random >> 8) % size] = (char)("ABab01+/=-\n"[(random >> 4) % 11]);
        }
        (void)pysock_ssl_load_verify_data(ctx, mutated, size);
        (void)pysock_ssl_load_cert_chain_data(ctx, mutated, size, key, key_size);
        (void)pysock_ssl_load_cert_chain_data(ctx, original, size, mutated, size);
        free(mutated);
        pysock_ssl_context_release(ctx);
    }
    for (int i = 0; i < 3; i++)
        free(originals[i]);
    free(key);
}

/* Every text that PEM files come in. */
static const char *variant(const char *name, const char *from, int crlf, int final_newline,
                           const char *before) {
    size_t size, used = strlen(before);
    char *text = f_read(from, &size);
    char *out = malloc(2 * size + used + 1);
    const char *path;
    T_CHECK(out != NULL);
    memcpy(out, before, used);
    for (size_t i = 0; i < size; i++) {
        if (crlf && text[i] == '\n')
            out[used++] = '\r';
        out[used++] = text[i];
    }
    while (!final_newline && used && (out[used - 1] == '\n' || out[used - 1] == '\r'))
        used--;
    path = f_write(name, out, used);
    free(out);
    free(text);
    return path;
}

T_TEST(pem_files_load_in_every_usual_form, 240) {
    for (int i = 0; i < 8; i++) {
        const char *before = i & 4 ? "Bag Attributes\r\n  friendlyName: x\r\n\r\n" : "";
        const char *pem, *key;
        T_STEP("variant %d", i);
        pem = variant("variant.pem", T_CERTS "chain-ec.pem", i & 1, !(i & 2), before);
        key = variant("variant.key", T_CERTS "chain-ec.key", i & 1, !(i & 2), before);
        is_accepted(t_client_ctx(), server_with(pem, key), "localhost");
        pem = variant("variant.pem", RSA_PEM, i & 1, !(i & 2), before);
        key = variant("variant.key", RSA_KEY, i & 1, !(i & 2), before);
        is_accepted(t_client_ctx(), server_with(pem, key), "localhost");
    }
}

T_TEST(certificate_and_key_may_share_a_file, 60) {
    is_accepted(t_client_ctx(),
                server_with(join("one.pem", T_CERTS "chain-ec.pem", T_CERTS "chain-ec.key"), NULL),
                "localhost");
    is_accepted(t_client_ctx(),
                server_with(join("two.pem", T_CERTS "chain-ec.key", T_CERTS "chain-ec.pem"), NULL),
                "localhost");
    is_accepted(t_client_ctx(), server_with(join("three.pem", RSA_KEY, RSA_PEM), NULL),
                "localhost");
}

T_TEST(keys_load_in_every_usual_format, 60) {
    P_NEED("openssl");
    p_args sec1 = {{NULL}, 0}, params = {{NULL}, 0}, pkcs1 = {{NULL}, 0}, pkcs8 = {{NULL}, 0};
    const char *ec = f_path("sec1.key"), *parameters = f_path("parameters.pem");
    const char *rsa = f_path("pkcs1.key"), *converted = f_path("pkcs8.key");
    T_STEP("EC, SEC 1");
    p_add(&sec1, "openssl", "ec", "-in", EC_KEY, "-out", ec, NULL);
    openssl(&sec1);
    is_accepted(t_client_ctx(), server_with(EC_PEM, ec), "localhost");

    T_STEP("EC, SEC 1 with its parameters before it");
    p_add(&params, "openssl", "ecparam", "-name", "prime256v1", "-out", parameters, NULL);
    openssl(&params);
    is_accepted(t_client_ctx(), server_with(EC_PEM, join("both.key", parameters, ec)), "localhost");

    T_STEP("EC, PKCS #8");
    p_add(&pkcs8, "openssl", "pkcs8", "-topk8", "-nocrypt", "-in", T_CERTS "chain-ec.key", "-out",
          converted, NULL);
    openssl(&pkcs8);
    is_accepted(t_client_ctx(), server_with(T_CERTS "chain-ec.pem", converted), "localhost");

    T_STEP("RSA, PKCS #1");
    p_add(&pkcs1, "openssl", "rsa", "-traditional", "-in", RSA_KEY, "-out", rsa, NULL);
    openssl(&pkcs1);
    is_accepted(t_client_ctx(), server_with(RSA_PEM, rsa), "localhost");
}

T_TEST(an_identity_loads_from_memory, 60) {
    pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
    size_t cert_size, key_size;
    char *cert = f_read(EC_PEM, &cert_size), *key = f_read(EC_KEY, &key_size);
    /* Exactly as long as they are: a reader that looks for a terminator is caught. */
    char *exact_cert = malloc(cert_size), *exact_key = malloc(key_size);
    T_CHECK(exact_cert != NULL && exact_key != NULL);
    memcpy(exact_cert, cert, cert_size);
    memcpy(exact_key, key, key_size);
    T_OK(pysock_ssl_load_cert_chain_data(ctx, exact_cert, cert_size, exact_key, key_size));
    memset(exact_cert, 0, cert_size);
    memset(exact_key, 0, key_size);
    free(exact_cert);
    free(exact_key);
    is_still_server_ec(ctx);
    T_FAILS(pysock_ssl_load_cert_chain_data(ctx, cert, cert_size, cert, cert_size),
            PYSOCK_SSL_ERROR, EPROTO);
    T_FAILS(pysock_ssl_load_cert_chain_data(ctx, key, key_size, key, key_size), PYSOCK_SSL_ERROR,
            EPROTO);
    T_FAILS(pysock_ssl_load_cert_chain_data(ctx, cert, 0, key, key_size), T_ANY, T_ANY);
    T_FAILS(pysock_ssl_load_cert_chain_data(ctx, NULL, 0, key, key_size), T_ANY, T_ANY);
    is_still_server_ec(ctx);
    free(cert);
    free(key);
    pysock_ssl_context_release(ctx);
}

T_TEST(a_new_identity_replaces_the_old_one_of_its_kind, 60) {
    h_pair p;
    pysock_buf *ec, *other;
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    T_OK(pysock_ssl_set_session_cache(client, 0));
    h_connect(&p, client, server, "localhost");
    ec = T_OK(pysock_ssl_getpeercert_der(p.client));
    h_close(&p);
    T_OK(pysock_ssl_load_cert_chain(server, T_CERTS "chain-ec.pem", T_CERTS "chain-ec.key"));
    h_connect(&p, client, server, "localhost");
    other = T_OK(pysock_ssl_getpeercert_der(p.client));
    h_close(&p);
    T_CHECK(pysock_buf_size(ec) != pysock_buf_size(other));
    T_OK(pysock_ssl_load_cert_chain(server, EC_PEM, EC_KEY));
    h_connect(&p, client, server, "localhost");
    peer_is(p.client, pysock_buf_data(ec), pysock_buf_size(ec));
    h_close(&p);
    pysock_buf_release(ec);
    pysock_buf_release(other);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

T_TEST(a_server_without_an_identity_says_so, 60) {
    h_pair p;
    pysock_ssl_context *client = t_client_ctx();
    pysock_ssl_context *server = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
    h_try(&p, client, server, "localhost");
    T_EQ(p.at_server.result, -1);
    H_CONTAINS(p.at_server.message, "certificate");
    T_EQ(p.at_client.result, -1);
    h_close(&p);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

T_TEST(missing_arguments_of_a_context_are_refused, 60) {
    pysock_ssl_context *ctx = t_server_ctx();
    ptrdiff_t before = pysock_ssl_ca_count(ctx);
    T_FAILS(pysock_ssl_load_cert_chain(ctx, NULL, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_load_cert_chain(ctx, NULL, T_CERTS "server-ec.key"), PYSOCK_VALUE_ERROR,
            EINVAL);
    T_FAILS(pysock_ssl_load_cert_chain_data(ctx, NULL, 5, NULL, 5), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_load_cert_chain_data(ctx, "", 0, "", 0), T_ANY, T_ANY);
    T_FAILS(pysock_ssl_load_verify_locations(ctx, NULL, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_load_verify_locations(ctx, NULL, "/nowhere/at/all"), T_ANY, T_ANY);
    T_CHECK(strstr(pysock_error_message(), "/nowhere/at/all") != NULL);
    T_FAILS(pysock_ssl_load_verify_data(ctx, NULL, 5), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_load_verify_data(ctx, "", 0), T_ANY, T_ANY);
    T_FAILS(pysock_ssl_load_verify_data(ctx, "neither PEM nor DER", 19), T_ANY, T_ANY);
    T_EQ(pysock_ssl_ca_count(ctx), before);
    is_still_server_ec(ctx);
    pysock_ssl_context_release(ctx);
}

/* ==== loading authorities ==== */

/* ca.pem, another one, and what is neither. */
static void make_directory(const char *name) {
    T_EQ(mkdir(f_path(name), 0777), 0);
    T_EQ(mkdir(f_path(p_format("%s/subdirectory", name)), 0777), 0);
    copy_to(p_format("%s/ca.pem", name), CA);
    copy_to(p_format("%s/other.crt", name), T_CERTS "other-ca.pem");
    f_write_text(p_format("%s/README", name), "Nothing to see here.\n");
}

static void rehash(const char *name) {
    p_args args = {{NULL}, 0};
    p_add(&args, "openssl", "rehash", f_path(name), NULL);
    openssl(&args);
}

static pysock_ssl_context *client_with_all_of(const char *directory) {
    pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    T_OK(pysock_ssl_load_verify_directory(ctx, directory));
    return ctx;
}

T_TEST(authorities_load_from_all_of_a_directory, 60) {
    pysock_ssl_context *ctx;
    make_directory("cas");
    ctx = client_with_all_of(f_path("cas"));
    T_EQ(pysock_ssl_ca_count(ctx), 2);
    is_accepted(ctx, t_server_ctx_of("untrusted"), "localhost");
    is_accepted(client_with_all_of(f_path("cas")), t_server_ctx(), "localhost");
}

T_TEST(a_directory_without_hashed_names_is_an_error, 60) {
    pysock_ssl_context *client = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    pysock_ssl_context *server = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
    make_directory("cas");
    for (int i = 0; i < 2; i++) {
        pysock_ssl_context *ctx = i ? server : client;
        T_FAILS(pysock_ssl_load_verify_locations(ctx, NULL, f_path("cas")), PYSOCK_SSL_ERROR,
                EPROTO);
        H_SAME(pysock_error_reason(), "NO_CERTIFICATE_OR_CRL_FOUND");
        H_CONTAINS(pysock_error_message(), f_path("cas"));
        H_CONTAINS(pysock_error_message(), "openssl rehash");
        H_CONTAINS(pysock_error_message(), "pysock_ssl_load_verify_directory()");
        T_EQ(pysock_ssl_ca_count(ctx), 0);
        T_STEP("the file beside it is not taken either");
        T_FAILS(pysock_ssl_load_verify_locations(ctx, CA, f_path("cas")), PYSOCK_SSL_ERROR, EPROTO);
        T_EQ(pysock_ssl_ca_count(ctx), 0);
    }
    pysock_ssl_context_release(server);
    is_refused(client, t_server_ctx(), "localhost", 20, "unable to get local issuer",
               "TLSV1_ALERT_UNKNOWN_CA");
}

T_TEST(authorities_load_from_hashed_names_alone, 60) {
    P_NEED("openssl");
    pysock_ssl_context *client = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    pysock_ssl_context *server = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
    T_EQ(mkdir(f_path("cas"), 0777), 0);
    copy_to("cas/ca.pem", CA);
    rehash("cas");
    copy_to("cas/other.crt", T_CERTS "other-ca.pem"); /* it has no such name */
    T_OK(pysock_ssl_load_verify_locations(client, NULL, f_path("cas")));
    T_EQ(pysock_ssl_ca_count(client), 0); /* it is looked up when it is wanted */
    T_OK(pysock_ssl_load_verify_locations(server, NULL, f_path("cas")));
    T_EQ(pysock_ssl_ca_count(server), 1); /* it is read at once */
    pysock_ssl_context_release(server);
    pysock_ssl_context_retain(client);
    is_accepted(client, t_server_ctx(), "localhost");
    T_EQ(pysock_ssl_ca_count(client), 1);
    is_refused(client, t_server_ctx_of("untrusted"), "localhost", 20, "unable to get local issuer",
               "TLSV1_ALERT_UNKNOWN_CA");
}

T_TEST(several_authorities_load_from_one_file, 60) {
    const char *file = join("cas.pem", CA, T_CERTS "other-ca.pem");
    pysock_ssl_context *ctx = client_that_trusts(file);
    T_EQ(pysock_ssl_ca_count(ctx), 2);
    is_accepted(ctx, t_server_ctx_of("untrusted"), "localhost");
    is_accepted(client_that_trusts(file), t_server_ctx(), "localhost");
    T_STEP("CRLF, no final newline, text around");
    file = variant("crlf.pem", file, 1, 0, "The authorities:\r\n");
    ctx = client_that_trusts(file);
    T_EQ(pysock_ssl_ca_count(ctx), 2);
    is_accepted(ctx, t_server_ctx_of("untrusted"), "localhost");
    T_STEP("file after file");
    ctx = t_client_ctx();
    T_EQ(pysock_ssl_ca_count(ctx), 1);
    T_OK(pysock_ssl_load_verify_locations(ctx, T_CERTS "other-ca.pem", NULL));
    T_EQ(pysock_ssl_ca_count(ctx), 2);
    is_accepted(ctx, t_server_ctx_of("untrusted"), "localhost");
}

T_TEST(authorities_load_from_memory, 60) {
    P_NEED("openssl");
    p_args convert = {{NULL}, 0};
    const char *der = f_path("ca.der");
    size_t size;
    char *text = f_read(CA, &size), *data = malloc(size);
    pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    T_STEP("PEM");
    T_CHECK(data != NULL);
    memcpy(data, text, size);
    T_OK(pysock_ssl_load_verify_data(ctx, data, size));
    free(text);
    free(data);
    T_EQ(pysock_ssl_ca_count(ctx), 1);
    is_accepted(ctx, t_server_ctx(), "localhost");

    T_STEP("DER");
    p_add(&convert, "openssl", "x509", "-in", CA, "-outform", "DER", "-out", der, NULL);
    openssl(&convert);
    text = f_read(der, &size);
    ctx = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    T_OK(pysock_ssl_load_verify_data(ctx, text, size));
    T_EQ(pysock_ssl_ca_count(ctx), 1);
    T_STEP("DER that is cut off, or followed by more");
    T_FAILS(pysock_ssl_load_verify_data(ctx, text, size - 10), PYSOCK_SSL_ERROR, EPROTO);
    T_EQ(pysock_ssl_ca_count(ctx), 1);
    free(text);
    is_accepted(ctx, t_server_ctx(), "localhost");
}

/* A sequence whose length is right, and whose first element is not. */
T_TEST(der_that_is_damaged_inside_is_an_error, 60) {
    static const struct {
        unsigned char der[8];
        size_t size;
    } list[] = {
        {{0x30, 0x02, 0x7e, 0x3b}, 4},       {{0x30, 0x01, 0x02}, 3},
        {{0x30, 0x03, 0x02, 0x05, 0x01}, 5}, {{0x30, 0x02, 0x1f, 0x01}, 4},
        {{0x30, 0x03, 0x30, 0x80, 0x00}, 5}, {{0x30, 0x04, 0x30, 0x02, 0x02, 0x7f}, 6},
    };
    pysock_ssl_context *client = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    pysock_ssl_context *server = t_server_ctx();
    size_t cert_size, key_size;
    char *cert = f_read(EC_PEM, &cert_size), *key = f_read(EC_KEY, &key_size);
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        const unsigned char *der = list[i].der;
        size_t n = list[i].size;
        T_STEP("number %zu", i);
        T_FAILS(pysock_ssl_load_verify_data(client, der, n), PYSOCK_SSL_ERROR, EPROTO);
        T_FAILS(pysock_ssl_load_cert_chain_data(server, der, n, key, key_size), PYSOCK_SSL_ERROR,
                EPROTO);
        T_FAILS(pysock_ssl_load_cert_chain_data(server, cert, cert_size, der, n), PYSOCK_SSL_ERROR,
                EPROTO);
    }
    free(cert);
    free(key);
    T_EQ(pysock_ssl_ca_count(client), 0);
    is_still_server_ec(server);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

T_TEST(authorities_that_are_not_found_are_named, 60) {
    pysock_ssl_context *ctx = t_client_ctx();
    const char *noise = f_write_text("noise.pem", "nothing\n");
    const char *empty = f_write_text("empty.pem", "");
    T_FAILS(pysock_ssl_load_verify_locations(ctx, "build/none.pem", NULL), PYSOCK_OS_ERROR, ENOENT);
    H_CONTAINS(pysock_error_message(), "build/none.pem");
    T_FAILS(pysock_ssl_load_verify_locations(ctx, NULL, "build/none"), PYSOCK_OS_ERROR, ENOENT);
    H_CONTAINS(pysock_error_message(), "build/none");
    T_FAILS(pysock_ssl_load_verify_locations(ctx, noise, NULL), PYSOCK_SSL_ERROR, EPROTO);
    H_CONTAINS(pysock_error_message(), "noise.pem");
    H_CONTAINS(pysock_error_message(), "certificate");
    T_FAILS(pysock_ssl_load_verify_locations(ctx, empty, NULL), PYSOCK_SSL_ERROR, EPROTO);
    H_CONTAINS(pysock_error_message(), "empty.pem");
    T_FAILS(pysock_ssl_load_verify_locations(ctx, EC_KEY, NULL), PYSOCK_SSL_ERROR, EPROTO);
    H_CONTAINS(pysock_error_message(), "server-ec.key");
    T_FAILS(pysock_ssl_load_verify_locations(ctx, "tests/certs", NULL), T_ANY, T_ANY);
    H_CONTAINS(pysock_error_message(), "tests/certs");
    T_FAILS(pysock_ssl_load_verify_data(ctx, "nothing", 7), PYSOCK_SSL_ERROR, EPROTO);
    T_FAILS(pysock_ssl_load_verify_data(ctx, "", 0), T_ANY, T_ANY);
    T_EQ(pysock_ssl_ca_count(ctx), 1);
    is_accepted(ctx, t_server_ctx(), "localhost");
}

T_TEST(the_default_context_uses_the_system_trust_store, 60) {
    P_NEED("openssl");
    pysock_ssl_context *ctx;
    ptrdiff_t usual;
    T_STEP("as the system has it");
    ctx = T_OK(pysock_ssl_create_default_context(PYSOCK_SERVER_AUTH));
    usual = pysock_ssl_ca_count(ctx);
    is_refused(ctx, t_server_ctx(), "localhost", 20, "unable to get local issuer",
               "TLSV1_ALERT_UNKNOWN_CA");
    T_STEP("SSL_CERT_FILE");
    setenv("SSL_CERT_FILE", CA, 1);
    setenv("SSL_CERT_DIR", f_dir(), 1);
    ctx = T_OK(pysock_ssl_create_default_context(PYSOCK_SERVER_AUTH));
    T_EQ(pysock_ssl_ca_count(ctx), 1);
    is_accepted(ctx, t_server_ctx(), "localhost");
    T_STEP("SSL_CERT_FILE alone");
    unsetenv("SSL_CERT_DIR");
    ctx = T_OK(pysock_ssl_create_default_context(PYSOCK_SERVER_AUTH));
    T_EQ(pysock_ssl_ca_count(ctx), 1);
    is_accepted(ctx, t_server_ctx(), "localhost");
    T_STEP("SSL_CERT_DIR");
    copy_to("ca.pem", CA);
    setenv("SSL_CERT_FILE", f_path("none.pem"), 1);
    setenv("SSL_CERT_DIR", f_dir(), 1);
    is_refused(T_OK(pysock_ssl_create_default_context(PYSOCK_SERVER_AUTH)), t_server_ctx(),
               "localhost", 20, "unable to get local issuer", "TLSV1_ALERT_UNKNOWN_CA");
    T_STEP("SSL_CERT_DIR with hashed names");
    rehash(".");
    is_accepted(T_OK(pysock_ssl_create_default_context(PYSOCK_SERVER_AUTH)), t_server_ctx(),
                "localhost");
    T_STEP("SSL_CERT_DIR alone");
    unsetenv("SSL_CERT_FILE");
    ctx = T_OK(pysock_ssl_create_default_context(PYSOCK_SERVER_AUTH));
    T_EQ(pysock_ssl_ca_count(ctx), usual);
    is_accepted(ctx, t_server_ctx(), "localhost");
    unsetenv("SSL_CERT_DIR");
}

T_MAIN(.each_teardown = p_clear_away)
