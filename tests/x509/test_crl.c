/* What a trust store holds besides anchors: revocation lists, and directories that are looked up
   when an issuer is wanted; and what it tells about itself. The certificates are made by
   tools/mkchains.sh, the directories by "openssl rehash". */
#include "support/support.h"
#include "support/chains.h"
#include "support/files.h"
#include "support/handshake.h"
#include "support/process.h"
#include "support/shell.h"

#define WWW "www.example.test"

#define LEAF PYSOCK_VERIFY_CRL_CHECK_LEAF
#define CHAIN PYSOCK_VERIFY_CRL_CHECK_CHAIN
#define PARTIAL PYSOCK_VERIFY_X509_PARTIAL_CHAIN

/* Codes as OpenSSL numbers them (X509_V_ERR_). */
enum {
    OK = 0,
    NO_CRL = 3,
    CRL_SIGNATURE = 8,
    CRL_FUTURE = 11,
    CRL_EXPIRED = 12,
    NO_LOCAL_ISSUER = 20,
    REVOKED = 23,
    NO_CRL_ISSUER = 33,
    NO_CRL_SIGN = 35,
    CRITICAL_CRL_EXTENSION = 36,
    SCOPE = 44,
    HOSTNAME = 62,
    IP_ADDRESS = 64,
    WEAK_HASH = 68
};

static int make_chains(void **state) {
    (void)state;
    return c_make_chains("revocation");
}

/* files: of the directory, without ".pem", parted by blanks. */
static void load(pysock_ssl_context *ctx, const char *files) {
    char names[256], *name, *rest = names;
    snprintf(names, sizeof names, "%s", files);
    while ((name = strtok_r(rest, " ", &rest)) != NULL)
        T_OK(pysock_ssl_load_verify_locations(ctx, f_path(p_format("%s.pem", name)), NULL));
}

static pysock_ssl_context *client_that_trusts(const char *files, unsigned flags) {
    pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    load(ctx, files);
    T_OK(pysock_ssl_set_verify_flags(ctx, flags | PYSOCK_VERIFY_X509_TRUSTED_FIRST));
    return ctx;
}

static pysock_ssl_context *server_of(const char *chain) {
    pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
    T_OK(pysock_ssl_load_cert_chain(ctx, f_path(p_format("chain-%s.pem", chain)), NULL));
    return ctx;
}

/* The verify code of a handshake, 0 if it succeeds; the client's context is the caller's. */
static int code_of(pysock_ssl_context *client, const char *chain) {
    pysock_ssl_context *server = server_of(chain);
    h_pair p;
    int code;
    h_try(&p, client, server, WWW);
    if (p.at_client.result < 0 && p.at_client.kind != PYSOCK_SSL_CERT_VERIFICATION_ERROR)
        T_FAIL("no verification error: %s", p.at_client.message);
    code = p.at_client.verify_code;
    T_EQ(p.at_client.result < 0, code != 0);
    if (code && (!p.at_client.verify_message[0] ||
                 strcmp(p.at_client.verify_message, "certificate verify failed") == 0))
        T_FAIL("code %d has no sentence", code);
    if (code == REVOKED) {
        H_SAME(p.at_client.verify_message, "certificate revoked");
        h_is_alert(&p.at_server, "CERTIFICATE_REVOKED");
    }
    h_close(&p);
    pysock_ssl_context_release(server);
    return code;
}

typedef struct verdict {
    const char *chain, *files;
    unsigned flags;
    int code;
} verdict;

/* All of them are tried, so that one run shows everything that is wrong. */
static void judge_all(const verdict *list, size_t count) {
    int wrong = 0;
    P_NEED("openssl");
    for (size_t i = 0; i < count; i++) {
        pysock_ssl_context *client = client_that_trusts(list[i].files, list[i].flags);
        int code;
        T_STEP("%s, with %s", list[i].chain, list[i].files);
        code = code_of(client, list[i].chain);
        if (code != list[i].code)
            fprintf(stderr, "%s, with %s, flags 0x%x: code %d, not %d\n", list[i].chain,
                    list[i].files, list[i].flags, code, list[i].code);
        wrong += code != list[i].code;
        pysock_ssl_context_release(client);
    }
    T_EQ(wrong, 0);
}

#define JUDGE(list) judge_all(list, sizeof(list) / sizeof(list)[0])

/* ==== revocation lists ==== */

T_TEST(a_revoked_certificate_is_refused_if_that_is_asked_for, 120) {
    static const verdict list[] = {
        {"good", "root crl-int-leaf", 0, OK},
        {"good", "root crl-int", LEAF, OK},
        {"good", "root crl-int-leaf", LEAF, REVOKED},
        {"other", "root crl-int-leaf", LEAF, OK},
        {"good", "root crl-int-no-aki", LEAF, REVOKED},
        {"other", "root crl-int-no-aki", LEAF, OK},
        {"of-root", "root crl-root", LEAF, OK},
        {"good", "root crl-int crl-root", CHAIN, OK},
        {"good", "root crl-int crl-root-int", LEAF, OK},
        {"good", "root crl-int crl-root-int", CHAIN, REVOKED},
        {"good", "root crl-int-leaf crl-root", CHAIN, REVOKED},
        {"long", "root crl-int2", LEAF, OK},
        {"long", "root crl-int2 crl-int crl-root", CHAIN, OK},
        {"long", "root crl-int2 crl-int-int2 crl-root", LEAF, OK},
        {"long", "root crl-int2 crl-int-int2 crl-root", CHAIN, REVOKED},
        {"self-signed", "leaf-self", CHAIN, OK}, /* an anchor, which nobody else revokes */
    };
    JUDGE(list);
}

T_TEST(without_a_list_to_rely_on_the_chain_is_refused, 120) {
    static const verdict list[] = {
        {"good", "root", LEAF, NO_CRL},
        {"good", "root crl-root", LEAF, NO_CRL},
        {"good", "root crl-int", CHAIN, NO_CRL},
        {"long", "root crl-int2 crl-root", CHAIN, NO_CRL},
        {"good", "root crl-int-expired", LEAF, CRL_EXPIRED},
        {"good", "root crl-int-expired-leaf", LEAF, CRL_EXPIRED},
        {"good", "root crl-int-future", LEAF, CRL_FUTURE},
        {"good", "root crl-int-forged", LEAF, CRL_SIGNATURE},
        {"good", "root crl-int-forged-leaf", LEAF, CRL_SIGNATURE},
        {"good", "root crl-int-namesake", LEAF, NO_CRL}, /* the list of another key */
        {"int-no-sign", "root crl-int-no-sign", LEAF, NO_CRL_SIGN},
        {"good", "root crl-int-sha1", LEAF, WEAK_HASH},
        {"good", "int crl-int", LEAF | PARTIAL, OK},
        {"good", "int crl-int", CHAIN | PARTIAL, NO_CRL_ISSUER},
        {"good", "leaf crl-int", LEAF | PARTIAL, NO_CRL_ISSUER},
    };
    JUDGE(list);
}

T_TEST(of_several_lists_a_good_one_suffices_and_any_good_one_revokes, 120) {
    static const verdict list[] = {
        {"good", "root crl-int-expired crl-int", LEAF, OK},
        {"good", "root crl-int crl-int-expired", LEAF, OK},
        {"good", "root crl-int-expired-leaf crl-int", LEAF, OK},
        {"good", "root crl-int crl-int-later", LEAF, OK},
        {"good", "root crl-int crl-int-leaf", LEAF, REVOKED},
        {"good", "root crl-int-leaf crl-int-later", LEAF, REVOKED},
        {"good", "root crl-int-later crl-int-leaf", LEAF, REVOKED},
        {"good", "root crl-int-forged-leaf crl-int", LEAF, OK},
        {"good", "root crl-int crl-int-forged-leaf", LEAF, OK},
        {"good", "root crl-int-namesake crl-int", LEAF, OK},
        {"good", "root crl-int-future crl-int", LEAF, OK},
        {"good", "root crl-int-expired crl-int-forged", LEAF, CRL_SIGNATURE},
        {"good", "root crl-int-delta crl-int", LEAF, OK},
        {"good", "root crl-int-partition crl-int", LEAF, OK},
        {"good", "root crl-int crl-int-reasons-leaf", LEAF, REVOKED},
    };
    JUDGE(list);
}

T_TEST(lists_that_are_not_understood_or_cover_others_do_not_count, 120) {
    static const verdict list[] = {
        {"good", "root crl-int-critical", LEAF, CRITICAL_CRL_EXTENSION},
        {"good", "root crl-int-critical-leaf", LEAF, CRITICAL_CRL_EXTENSION},
        {"good", "root crl-int-not-critical", LEAF, OK},
        {"good", "root crl-int-entry-critical", LEAF, CRITICAL_CRL_EXTENSION},
        {"good", "root crl-int-entry-soft", LEAF, OK},
        {"good", "root crl-int-entry-reason", LEAF, OK},
        {"good", "root crl-int-entry-issuer", LEAF, SCOPE},
        {"good", "root crl-int-delta", LEAF, NO_CRL},
        {"good", "root crl-int-users", LEAF, OK},
        {"good", "root crl-int-users-leaf", LEAF, REVOKED},
        {"long", "root crl-int2 crl-int-users crl-root", CHAIN, SCOPE},
        {"good", "root crl-int-cas", LEAF, SCOPE},
        {"good", "root crl-int-cas-soft", LEAF, SCOPE},
        {"long", "root crl-int2 crl-int-cas crl-root", CHAIN, OK},
        {"good", "root crl-int-reasons", LEAF, SCOPE},
        {"good", "root crl-int-reasons-leaf", LEAF, REVOKED},
        {"good", "root crl-int-indirect", LEAF, SCOPE},
        {"good", "root crl-int-attributes", LEAF, SCOPE},
        {"good", "root crl-int-partition", LEAF, SCOPE},
    };
    JUDGE(list);
}

T_TEST(malformed_lists_do_not_load, 60) {
    static const char *const names[] = {"bad-no-next",   "bad-entry",     "bad-version-1",
                                        "bad-version-3", "int-bad-scope", "int-bad-order"};
    P_NEED("openssl");
    pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    pysock_ssl_store_stats stats;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        T_STEP("%s", names[i]);
        T_FAILS(
            pysock_ssl_load_verify_locations(ctx, f_path(p_format("crl-%s.pem", names[i])), NULL),
            PYSOCK_SSL_ERROR, EPROTO);
        H_CONTAINS(pysock_error_message(), names[i]);
    }
    T_OK(pysock_ssl_cert_store_stats(ctx, &stats));
    T_EQ(stats.crl, 0);
    pysock_ssl_context_release(ctx);
}

T_TEST(a_list_of_fifty_thousand_is_searched_in_little_time, 120) {
    P_NEED("openssl");
    pysock_ssl_context *client = client_that_trusts("root crl-int-many", LEAF);
    double before = t_process_cpu();
    T_EQ(code_of(client, "good"), REVOKED);
    T_EQ(code_of(client, "other"), OK);
    T_CHECK(t_process_cpu() - before < T_SCALE(1.0, 5.0));
    pysock_ssl_context_release(client);
}

T_TEST(a_server_refuses_clients_that_are_revoked, 60) {
    P_NEED("openssl");
    for (int revoked = 0; revoked < 2; revoked++) {
        pysock_ssl_context *client = client_that_trusts("root", 0);
        pysock_ssl_context *server = server_of("good");
        h_pair p;
        T_OK(pysock_ssl_load_cert_chain(client, f_path("chain-client.pem"), NULL));
        load(server, revoked ? "root crl-int-client" : "root crl-int");
        T_OK(pysock_ssl_set_verify_mode(server, PYSOCK_CERT_REQUIRED));
        T_OK(pysock_ssl_set_verify_flags(server, LEAF));
        h_try(&p, client, server, WWW);
        T_EQ(p.at_server.verify_code, revoked ? REVOKED : OK);
        T_EQ(p.at_server.result, revoked ? -1 : 0);
        h_close(&p);
        pysock_ssl_context_release(client);
        pysock_ssl_context_release(server);
    }
}

/* A session stands for a verification without the list. */
T_TEST(a_list_that_is_loaded_ends_resumption, 60) {
    P_NEED("openssl");
    pysock_ssl_context *client = client_that_trusts("root crl-int", LEAF);
    pysock_ssl_context *server = server_of("good");
    h_pair p;
    for (int again = 0; again < 2; again++) {
        h_connect(&p, client, server, WWW);
        T_EQ(pysock_ssl_session_reused(p.client), again);
        h_close(&p);
    }
    load(client, "crl-int-leaf");
    h_try(&p, client, server, WWW);
    T_EQ(p.at_client.verify_code, REVOKED);
    h_close(&p);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

T_TEST(flags_that_are_supported_are_taken, 60) {
    pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    T_OK(pysock_ssl_set_verify_flags(ctx, LEAF));
    T_EQ(pysock_ssl_get_verify_flags(ctx), LEAF);
    T_OK(pysock_ssl_set_verify_flags(ctx, CHAIN | PARTIAL));
    T_EQ(pysock_ssl_get_verify_flags(ctx), CHAIN | PARTIAL);
    T_FAILS(pysock_ssl_set_verify_flags(ctx, PYSOCK_VERIFY_ALLOW_PROXY_CERTS), PYSOCK_OS_ERROR,
            ENOTSUP);
    T_FAILS(pysock_ssl_set_verify_flags(ctx, 0x10), PYSOCK_OS_ERROR, ENOTSUP);
    T_EQ(pysock_ssl_get_verify_flags(ctx), CHAIN | PARTIAL);
    pysock_ssl_context_release(ctx);
}

/* ==== loading ==== */

static void has(pysock_ssl_context *ctx, size_t x509, size_t x509_ca, size_t crl) {
    pysock_ssl_store_stats stats;
    T_OK(pysock_ssl_cert_store_stats(ctx, &stats));
    T_EQ(stats.x509, x509);
    T_EQ(stats.x509_ca, x509_ca);
    T_EQ(stats.crl, crl);
    T_EQ(pysock_ssl_ca_count(ctx), x509);
    T_EQ(pysock_ssl_get_ca_certs(ctx, NULL, 0), x509_ca);
}

/* The certificate or list in a PEM file, in DER. */
static size_t der_of(const char *name, unsigned char *out, size_t size) {
    static p_process p;
    p_args args = {{NULL}, 0};
    const char *der = f_path("one.der");
    char *data;
    size_t n;
    p_add(&args, "openssl", strncmp(name, "crl", 3) == 0 ? "crl" : "x509", "-in",
          f_path(p_format("%s.pem", name)), "-outform", "DER", "-out", der, NULL);
    T_EQ(p_run(&p, &args), 0);
    data = f_read(der, &n);
    T_CHECK(n <= size);
    memcpy(out, data, n);
    free(data);
    return n;
}

T_TEST(lists_and_anchors_load_from_files_directories_and_memory, 60) {
    P_NEED("openssl");
    unsigned char der[8192];
    size_t root, crl, n;
    char *pem = f_read(f_path("crl-int-leaf.pem"), &n);
    pysock_ssl_context *ctx = client_that_trusts("root", LEAF);
    has(ctx, 1, 1, 0);
    T_OK(pysock_ssl_load_verify_data(ctx, pem, n));
    has(ctx, 1, 1, 1);
    T_OK(pysock_ssl_load_verify_data(ctx, pem, n)); /* what is there is not doubled */
    has(ctx, 1, 1, 1);
    T_EQ(code_of(ctx, "good"), REVOKED);
    pysock_ssl_context_release(ctx);

    root = der_of("root", der, sizeof der);
    crl = der_of("crl-int-leaf", der + root, sizeof der - root);
    n = root + crl + der_of("leaf", der + root + crl, sizeof der - root - crl);
    ctx = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    T_OK(pysock_ssl_set_verify_flags(ctx, LEAF));
    T_OK(pysock_ssl_load_verify_data(ctx, der, n));
    has(ctx, 2, 1, 1);
    T_EQ(code_of(ctx, "good"), REVOKED);
    T_FAILS(pysock_ssl_load_verify_data(ctx, der, n - 1), PYSOCK_SSL_ERROR, EPROTO);
    der[n] = 'A';
    T_FAILS(pysock_ssl_load_verify_data(ctx, der, n + 1), PYSOCK_SSL_ERROR, EPROTO);
    has(ctx, 2, 1, 1);
    pysock_ssl_context_release(ctx);

    T_EQ(mkdir(f_path("plain"), 0777), 0);
    f_write("plain/list.pem", pem, strlen(pem));
    free(pem);
    ctx = client_that_trusts("root", LEAF);
    T_FAILS(pysock_ssl_load_verify_locations(ctx, NULL, f_path("plain")), PYSOCK_SSL_ERROR, EPROTO);
    H_SAME(pysock_error_reason(), "NO_CERTIFICATE_OR_CRL_FOUND");
    H_CONTAINS(pysock_error_message(), "openssl rehash");
    has(ctx, 1, 1, 0);
    T_EQ(code_of(ctx, "good"), NO_CRL);
    T_OK(pysock_ssl_load_verify_directory(ctx, f_path("plain")));
    has(ctx, 1, 1, 1);
    T_EQ(code_of(ctx, "good"), REVOKED);
    pysock_ssl_context_release(ctx);
}

T_TEST(a_store_tells_what_is_in_it, 60) {
    P_NEED("openssl");
    pysock_ssl_context *ctx = client_that_trusts("leaf root crl-int int crl-root", 0);
    unsigned char der[4096];
    pysock_buf *out[3] = {NULL, NULL, NULL};
    pysock_ssl_store_stats stats;
    size_t n = der_of("root", der, sizeof der);
    has(ctx, 3, 2, 2);
    T_EQ(pysock_ssl_get_ca_certs(ctx, out, 1), 2);
    T_CHECK(out[0] && !out[1]);
    T_EQ(pysock_buf_size(out[0]), n);
    T_EQ(memcmp(pysock_buf_data(out[0]), der, n), 0);
    pysock_buf_release(out[0]);
    T_EQ(pysock_ssl_get_ca_certs(ctx, out, 3), 2);
    T_CHECK(out[0] && out[1] && !out[2]);
    T_FAILS(pysock_ssl_get_ca_certs(ctx, NULL, 1), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_get_ca_certs(NULL, out, 1), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_cert_store_stats(NULL, &stats), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_cert_store_stats(ctx, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    pysock_ssl_context_release(ctx);
    T_EQ(memcmp(pysock_buf_data(out[0]), der, n), 0); /* it is the caller's */
    pysock_buf_release(out[0]);
    pysock_buf_release(out[1]);
}

typedef struct loader {
    pysock_ssl_context *ctx;
    int from;
} loader;

#define EACH 20

static void *load_some(void *arg) {
    loader *l = arg;
    for (int i = 0; i < EACH; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/many/%d.pem", f_dir(), l->from + i);
        T_OK(pysock_ssl_load_verify_locations(l->ctx, path, NULL));
    }
    return NULL;
}

T_TEST(what_two_threads_load_at_a_time_is_all_there, 60) {
    P_NEED("openssl");
    pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    loader l[4];
    t_thread threads[4];
    for (int i = 0; i < 4; i++) {
        l[i].ctx = ctx;
        l[i].from = 1 + i * EACH;
        t_spawn(&threads[i], load_some, &l[i]);
    }
    for (int i = 0; i < 4; i++)
        t_join(&threads[i]);
    has(ctx, 4 * EACH, 4 * EACH, 0);
    pysock_ssl_context_release(ctx);
}

/* ==== directories that are looked up ==== */

static void rehash(const char *dir) {
    static p_process p;
    p_args args = {{NULL}, 0};
    p_add(&args, "openssl", "rehash", f_path(dir), NULL);
    if (p_run(&p, &args) != 0)
        P_FAIL(&p, "openssl rehash failed");
}

static void put(const char *dir, const char *name) {
    size_t n;
    char *data = f_read(f_path(p_format("%s.pem", name)), &n);
    f_write(p_format("%s/%s.pem", dir, name), data, n);
    free(data);
}

static void make_dir(const char *dir, const char *name) {
    T_EQ(mkdir(f_path(dir), 0777), 0);
    if (name)
        put(dir, name);
    rehash(dir);
}

T_TEST(an_issuer_is_looked_up_when_it_is_wanted_and_then_listed, 120) {
    P_NEED("openssl");
    pysock_ssl_context *client = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    unsigned char der[4096];
    size_t n = der_of("root", der, sizeof der);
    pysock_buf *out;
    rehash("many"); /* 200, two of them with one name */
    T_OK(pysock_ssl_load_verify_locations(client, NULL, f_path("many")));
    has(client, 0, 0, 0);
    T_EQ(code_of(client, "good"), OK);
    has(client, 2, 2, 0);
    T_EQ(code_of(client, "of-root"), OK);
    has(client, 2, 2, 0);
    T_EQ(pysock_ssl_get_ca_certs(client, &out, 1), 2);
    T_CHECK(pysock_buf_size(out) > 0);
    pysock_buf_release(out);
    T_CHECK(n > 0);
    pysock_ssl_context_release(client);
}

T_TEST(an_anchor_may_be_the_leaf_itself, 60) {
    P_NEED("openssl");
    pysock_ssl_context *client = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    make_dir("selves", "leaf-self");
    T_OK(pysock_ssl_load_verify_locations(client, NULL, f_path("selves")));
    T_EQ(code_of(client, "self-signed"), OK);
    has(client, 1, 0, 0);
    T_EQ(code_of(client, "good"), NO_LOCAL_ISSUER);
    pysock_ssl_context_release(client);
}

T_TEST(names_are_found_however_they_are_written, 120) {
    static const char *const names[] = {"case", "blanks",  "umlaut", "multi",
                                        "bmp",  "teletex", "latin"};
    P_NEED("openssl");
    pysock_ssl_context *client = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    rehash("named");
    T_OK(pysock_ssl_load_verify_locations(client, NULL, f_path("named")));
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        T_STEP("%s", names[i]);
        T_EQ(code_of(client, p_format("named-%s", names[i])), OK);
    }
    T_EQ(pysock_ssl_ca_count(client), sizeof names / sizeof names[0]);
    pysock_ssl_context_release(client);
}

T_TEST(lists_are_looked_up_too_and_new_ones_are_seen, 60) {
    P_NEED("openssl");
    pysock_ssl_context *client = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    make_dir("lists", "root");
    make_dir("more-lists", "crl-root");
    T_OK(pysock_ssl_load_verify_locations(client, NULL, f_path("lists")));
    T_OK(pysock_ssl_load_verify_locations(client, NULL, f_path("more-lists")));
    T_OK(pysock_ssl_set_verify_flags(client, CHAIN));
    T_EQ(code_of(client, "good"), NO_CRL);
    put("lists", "crl-int-expired");
    rehash("lists");
    T_EQ(code_of(client, "good"), CRL_EXPIRED);
    put("lists", "crl-int");
    rehash("lists");
    T_EQ(code_of(client, "good"), OK);
    has(client, 1, 1, 3);
    put("lists", "crl-int-leaf"); /* sessions are not resumed over it */
    rehash("lists");
    T_OK(pysock_ssl_set_session_cache(client, 0));
    pysock_ssl_context_release(client);
    client = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    T_OK(pysock_ssl_load_verify_locations(client, f_path("root.pem"), f_path("lists")));
    T_OK(pysock_ssl_set_verify_flags(client, LEAF));
    T_EQ(code_of(client, "good"), REVOKED);
    T_EQ(code_of(client, "other"), OK);
    has(client, 1, 1, 3);
    pysock_ssl_context_release(client);
}

T_TEST(a_file_that_is_added_later_is_found_by_the_next_handshake, 60) {
    P_NEED("openssl");
    pysock_ssl_context *client = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    make_dir("growing", "leaf-self");
    T_OK(pysock_ssl_load_verify_locations(client, NULL, f_path("growing")));
    T_EQ(code_of(client, "good"), NO_LOCAL_ISSUER);
    f_write_text("growing/0000000g.0", "no hash, and no certificate\n");
    put("growing", "root");
    rehash("growing");
    T_EQ(code_of(client, "good"), OK);
    pysock_ssl_context_release(client);
}

T_TEST(a_damaged_file_does_not_hide_the_next, 60) {
    static p_process p;
    p_args args = {{NULL}, 0};
    char hash[9];
    P_NEED("openssl");
    pysock_ssl_context *client = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    p_add(&args, "openssl", "x509", "-hash", "-noout", "-in", f_path("root.pem"), NULL);
    T_EQ(p_run(&p, &args), 0);
    snprintf(hash, sizeof hash, "%s", p_string(&p.said));
    T_EQ(mkdir(f_path("damaged"), 0777), 0);
    f_write_text(p_format("damaged/%s.0", hash), "-----BEGIN CERTIFICATE-----\n!!!\n");
    put("damaged", "root");
    T_EQ(rename(f_path("damaged/root.pem"), f_path(p_format("damaged/%s.1", hash))), 0);
    T_OK(pysock_ssl_load_verify_locations(client, NULL, f_path("damaged")));
    pysock_error_clear();
    T_EQ(code_of(client, "good"), OK);
    T_EQ(pysock_error(), PYSOCK_NO_ERROR); /* a call that succeeds leaves the error alone */
    pysock_ssl_context_release(client);
}

/* A server has to name its authorities, so it reads the directory; what comes later it looks up. */
T_TEST(a_server_reads_the_directory_and_looks_up_what_comes_later, 60) {
    P_NEED("openssl");
    pysock_ssl_context *client = client_that_trusts("root", 0);
    pysock_ssl_context *server = server_of("good");
    h_pair p;
    make_dir("for-clients", "leaf-self");
    T_OK(pysock_ssl_load_cert_chain(client, f_path("chain-client.pem"), NULL));
    T_OK(pysock_ssl_load_verify_locations(server, NULL, f_path("for-clients")));
    T_OK(pysock_ssl_set_verify_mode(server, PYSOCK_CERT_REQUIRED));
    has(server, 1, 0, 0);
    h_try(&p, client, server, WWW);
    T_EQ(p.at_server.verify_code, NO_LOCAL_ISSUER);
    h_close(&p);
    put("for-clients", "root");
    rehash("for-clients");
    h_connect(&p, client, server, WWW);
    h_greet(&p);
    h_close(&p);
    has(server, 2, 1, 0);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

/* Non-blocking: the look-up is the reactor's then. */
T_TEST(a_non_blocking_handshake_looks_up_too, 60) {
    P_NEED("openssl");
    pysock_ssl_context *client = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    pysock_ssl_context *server = server_of("good");
    pysock *pair[2];
    t_thread thread;
    h_pair p;
    int fd;
    memset(&p, 0, sizeof p);
    make_dir("for-reactor", "root");
    T_OK(pysock_ssl_load_verify_locations(client, NULL, f_path("for-reactor")));
    h_plain_pair(pair);
    p.server = pair[1];
    p.server_ctx = server;
    T_OK(pysock_settimeout(pair[1], H_TIMEOUT));
    T_OK(pysock_setblocking(pair[0], 0));
    t_spawn(&thread, h_serve, &p);
    T_OK(pysock_ssl_wrap_socket(pair[0], client, WWW));
    do {
        size_t writers = 1;
        fd = pysock_fileno(pair[0]);
        T_EQ(pysock_select(NULL, NULL, &fd, &writers, NULL, NULL, H_TIMEOUT), 1);
    } while (t_in_progress(pysock_ssl_do_handshake(pair[0])));
    t_join(&thread);
    T_EQ(p.at_server.result, 0);
    has(client, 1, 1, 0);
    T_OK(pysock_close(pair[0]));
    T_OK(pysock_close(pair[1]));
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

T_TEST(the_default_directories_are_looked_up, 60) {
    P_NEED("openssl");
    pysock_ssl_context *client = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    const char *dirs;
    make_dir("default-1", "leaf-self");
    make_dir("default-2", "root");
    T_EQ(setenv("SSL_CERT_FILE", "/nowhere", 1), 0);
    dirs = p_format("/nowhere:%s:%s", f_path("default-1"), f_path("default-2"));
    T_EQ(setenv("SSL_CERT_DIR", dirs, 1), 0);
    T_OK(pysock_ssl_load_default_certs(client));
    unsetenv("SSL_CERT_DIR");
    unsetenv("SSL_CERT_FILE");
    has(client, 0, 0, 0);
    T_EQ(code_of(client, "good"), OK);
    T_EQ(code_of(client, "self-signed"), OK);
    has(client, 2, 1, 0);
    pysock_ssl_context_release(client);
}

/* ==== what a context tells the verifier, and what it says afterwards ==== */

T_TEST(the_security_level_of_the_context_counts, 60) {
    static const struct {
        const char *chain;
        int level, code;
    } list[] = {
        {"sha1", 0, OK},    {"sha1", 1, WEAK_HASH}, {"rsa1024", 0, OK}, {"rsa1024", 1, OK},
        {"rsa1024", 2, 67}, {"rsa2048", 2, OK},     {"rsa2048", 3, 67}, {"rsa3072", 3, OK},
    };
    P_NEED("openssl");
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        pysock_ssl_context *client = client_that_trusts("root", 0);
        T_STEP("%s at level %d", list[i].chain, list[i].level);
        T_OK(pysock_ssl_set_security_level(client, list[i].level));
        T_EQ(code_of(client, list[i].chain), list[i].code);
        pysock_ssl_context_release(client);
    }
}

T_TEST(the_common_name_counts_while_it_is_switched_on, 60) {
    P_NEED("openssl");
    pysock_ssl_context *client = client_that_trusts("root", 0);
    T_EQ(pysock_ssl_get_hostname_checks_common_name(client), 0);
    T_EQ(code_of(client, "cn-only"), HOSTNAME);
    T_EQ(code_of(client, "good"), OK);
    T_OK(pysock_ssl_set_hostname_checks_common_name(client, 1));
    T_EQ(pysock_ssl_get_hostname_checks_common_name(client), 1);
    T_EQ(code_of(client, "cn-only"), OK);
    T_EQ(code_of(client, "cn-only-mail"), OK);
    T_EQ(code_of(client, "cn-beside"), HOSTNAME);
    T_EQ(code_of(client, "cn-beside-address"), HOSTNAME);
    T_EQ(code_of(client, "good"), OK);
    T_OK(pysock_ssl_set_hostname_checks_common_name(client, 0));
    T_EQ(pysock_ssl_get_hostname_checks_common_name(client), 0);
    T_EQ(code_of(client, "cn-only"), HOSTNAME);
    T_EQ(code_of(client, "good"), OK);
    pysock_ssl_context_release(client);
}

/* One server and one session cache: a session stands for the name check as it was. */
T_TEST(a_common_name_that_is_switched_off_ends_resumption, 60) {
    P_NEED("openssl");
    pysock_ssl_context *client = client_that_trusts("root", 0), *server = server_of("cn-only");
    h_pair p;
    T_OK(pysock_ssl_set_hostname_checks_common_name(client, 1));
    for (int again = 0; again < 2; again++) {
        h_connect(&p, client, server, WWW);
        T_EQ(pysock_ssl_session_reused(p.client), again);
        h_close(&p);
    }
    T_OK(pysock_ssl_set_hostname_checks_common_name(client, 0));
    h_try(&p, client, server, WWW);
    T_EQ(p.at_client.verify_code, HOSTNAME);
    h_close(&p);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

/* From the leaf to the anchor, which the peer had not sent. */
T_TEST(the_verified_chain_ends_at_the_anchor, 60) {
    static const char *const names[] = {"leaf", "int", "root"};
    P_NEED("openssl");
    pysock_ssl_context *client = client_that_trusts("root", 0), *server = server_of("good");
    pysock_buf *out[4];
    unsigned char der[4096];
    h_pair p;
    h_connect(&p, client, server, WWW);
    T_EQ(pysock_ssl_get_unverified_chain(p.client, NULL, 0), 2);
    T_EQ(pysock_ssl_get_verified_chain(p.client, out, 4), 3);
    for (size_t i = 0; i < 3; i++) {
        size_t n = der_of(names[i], der, sizeof der);
        T_EQ(pysock_buf_size(out[i]), n);
        T_EQ(memcmp(pysock_buf_data(out[i]), der, n), 0);
        pysock_buf_release(out[i]);
    }
    h_close(&p);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

/* ==== host names ==== */

T_TEST(match_hostname_says_for_whom_a_certificate_is, 60) {
    unsigned char der[4096];
    size_t n;
    P_NEED("openssl");
    n = der_of("leaf", der, sizeof der);
    T_EQ(pysock_ssl_match_hostname(der, n, WWW), 0);
    T_EQ(pysock_ssl_match_hostname(der, n, "WWW.Example.Test."), 0);
    T_FAILS(pysock_ssl_match_hostname(der, n, "example.test"), PYSOCK_SSL_CERT_VERIFICATION_ERROR,
            EPROTO);
    T_EQ(pysock_error_verify_code(), HOSTNAME);
    H_SAME(pysock_error_reason(), "CERTIFICATE_VERIFY_FAILED");
    H_CONTAINS(pysock_error_verify_message(), "Hostname mismatch");
    H_CONTAINS(pysock_error_message(), "not valid for 'example.test'");
    T_FAILS(pysock_ssl_match_hostname(der, n, "127.0.0.1"), PYSOCK_SSL_CERT_VERIFICATION_ERROR,
            EPROTO);
    T_EQ(pysock_error_verify_code(), IP_ADDRESS);
    T_FAILS(pysock_ssl_match_hostname(der, n - 1, WWW), PYSOCK_SSL_ERROR, EPROTO);
    T_FAILS(pysock_ssl_match_hostname(NULL, 0, WWW), PYSOCK_SSL_ERROR, EPROTO);
    T_FAILS(pysock_ssl_match_hostname(NULL, 1, WWW), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_match_hostname(der, n, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_match_hostname(der, n, ""), PYSOCK_VALUE_ERROR, EINVAL);
    /* As it is encoded, or, without libidn2, not at all; never by its bytes. */
    T_FAILS(pysock_ssl_match_hostname(der, n, "www.exämple.test"), T_ANY, T_ANY);
    n = der_of("cn-only", der, sizeof der);
    T_FAILS(pysock_ssl_match_hostname(der, n, WWW), PYSOCK_SSL_CERT_VERIFICATION_ERROR, EPROTO);
}

T_MAIN(.setup = make_chains, .teardown = p_clear_away)
