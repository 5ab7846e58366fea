/* What the verifier says of chains that tools/mkchains.sh makes: each one is judged in a handshake,
   by a client that is shown a server's certificate, or by a server that is shown a client's. Chains
   that no server of this library loads are shown by one that says nothing else. */
#include "support/support.h"
#include "support/chains.h"
#include "support/files.h"
#include "support/handshake.h"
#include "support/mint.h"
#include "support/process.h"
#include "support/shown.h"

#define STRICT PYSOCK_VERIFY_X509_STRICT
#define PARTIAL PYSOCK_VERIFY_X509_PARTIAL_CHAIN
/* No flag of the library's: pysock_ssl_set_hostname_checks_common_name(). */
#define COMMON_NAME 0x80000000u

#define WWW "www.example.test"

/* Codes as OpenSSL numbers them (X509_V_ERR_). */
enum {
    ANY = -1, /* of the others: which check comes first is open */
    OK = 0,
    MALFORMED = 1,
    NO_ISSUER = 2,
    ISSUER_KEY_UNSUPPORTED = 6,
    BAD_SIGNATURE = 7,
    FUTURE = 9,
    EXPIRED = 10,
    SELF_SIGNED = 18,
    SELF_SIGNED_IN_CHAIN = 19,
    NO_LOCAL_ISSUER = 20,
    PATH_LENGTH = 25,
    PURPOSE = 26,
    NO_CERT_SIGN = 32,
    CRITICAL_EXTENSION = 34,
    INVALID_EXTENSION = 41,
    NO_POLICY = 43,
    NOT_PERMITTED = 47,
    EXCLUDED = 48,
    SUBTREE_MINMAX = 49,
    CONSTRAINT_TYPE = 51,
    CONSTRAINT_SYNTAX = 52,
    NAME_SYNTAX = 53,
    HOSTNAME = 62,
    IP_ADDRESS = 64,
    LEAF_KEY = 66,
    CA_KEY = 67,
    WEAK_HASH = 68,
    SIGNATURE_UNSUPPORTED = 76,
    ALGORITHMS_DIFFER = 78,
    INVALID_CA = 79,
    PATHLEN_OF_NO_CA = 80,
    CERT_SIGN_OF_NO_CA = 82,
    EMPTY_ISSUER = 83,
    EMPTY_SUBJECT = 84,
    NO_AKI = 85,
    NO_SKI = 86,
    SAN_NOT_CRITICAL = 88,
    BASIC_NOT_CRITICAL = 89,
    AKI_CRITICAL = 90,
    SKI_CRITICAL = 91,
    CA_NO_KEY_USAGE = 92,
    OLD_VERSION = 93
};

/* chain is chain-NAME.pem; anchors are the names of files, parted by blanks. */
typedef struct verdict {
    const char *chain, *anchors, *host;
    unsigned flags;
    int code;
} verdict;

static int make_chains(void **state) {
    (void)state;
    return c_make_chains(NULL);
}

static void trust(pysock_ssl_context *ctx, const char *anchors) {
    char names[128], *name, *rest = names;
    snprintf(names, sizeof names, "%s", anchors);
    while ((name = strtok_r(rest, " ", &rest)) != NULL)
        T_OK(pysock_ssl_load_verify_locations(ctx, f_path(p_format("%s.pem", name)), NULL));
}

static void use_chain(pysock_ssl_context *ctx, const char *name) {
    T_OK(pysock_ssl_load_cert_chain(ctx, f_path(p_format("chain-%s.pem", name)), NULL));
}

static void use_flags(pysock_ssl_context *ctx, unsigned flags) {
    unsigned given = flags & ~COMMON_NAME;
    T_OK(pysock_ssl_set_verify_flags(ctx, given | PYSOCK_VERIFY_X509_TRUSTED_FIRST));
    if (flags & COMMON_NAME)
        T_OK(pysock_ssl_set_hostname_checks_common_name(ctx, 1));
}

/* 0 if the one that judged, and the other (NULL: nobody knows), ended as they should; else prints
   what is wrong. */
static int is_as_expected(const verdict *v, const h_outcome *judge, const h_outcome *other) {
    const char *what = NULL;
    if (!v->code && (judge->result < 0 || (other && other->result < 0)))
        what = "refused";
    else if (v->code && judge->result == 0)
        what = "accepted";
    else if (v->code && judge->kind != PYSOCK_SSL_CERT_VERIFICATION_ERROR)
        what = "no verification error";
    else if (v->code && strcmp(judge->reason, "CERTIFICATE_VERIFY_FAILED") != 0)
        what = "wrong reason";
    else if (v->code && (v->code == ANY ? !judge->verify_code : judge->verify_code != v->code))
        what = "wrong code";
    else if (v->code &&
             (!judge->verify_message[0] || !strstr(judge->message, judge->verify_message)))
        what = "nothing said";
    else if (v->code && other && (other->result == 0 || other->kind != PYSOCK_SSL_ERROR))
        what = "the other side was not told";
    if (!what)
        return 0;
    fprintf(stderr, "%s, trusting %s, for %s, flags 0x%x: %s: code %d, not %d (%s; other: %s)\n",
            v->chain, v->anchors, v->host ? v->host : "no host", v->flags, what, judge->verify_code,
            v->code, judge->message, other ? other->message : "nobody");
    return 1;
}

static void does_not_load(const char *path) {
    pysock_ssl_context *server = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
    T_FAILS(pysock_ssl_load_cert_chain(server, path, NULL), PYSOCK_SSL_ERROR, EPROTO);
    H_CONTAINS(pysock_error_message(), path);
    H_CONTAINS(pysock_error_message(), "malformed");
    pysock_ssl_context_release(server);
}

static int judge_shown(const verdict *v) {
    pysock_ssl_context *client = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    const char *path = f_path(p_format("chain-%s.pem", v->chain)), *next;
    char *text = f_read(path, NULL);
    m_der chain[4];
    size_t count = 0;
    h_outcome o;
    does_not_load(path);
    for (next = text; (next = strstr(next, "-----BEGIN CERTIFICATE-----")) != NULL; next++) {
        T_CHECK(count < sizeof chain / sizeof chain[0]);
        chain[count++] = m_from_pem(next, 0);
    }
    free(text);
    trust(client, v->anchors);
    use_flags(client, v->flags);
    o = s_show(client, chain, count, 0, v->host);
    if (s_is_taken(&o))
        o.result = 0;
    pysock_ssl_context_release(client);
    return is_as_expected(v, &o, NULL);
}

static int judge_server(const verdict *v) {
    pysock_ssl_context *client = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    pysock_ssl_context *server = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
    h_pair p;
    int wrong;
    trust(client, v->anchors);
    use_flags(client, v->flags);
    use_chain(server, v->chain);
    if (!v->host)
        T_OK(pysock_ssl_set_check_hostname(client, 0));
    h_try(&p, client, server, v->host ? v->host : WWW);
    wrong = is_as_expected(v, &p.at_client, &p.at_server);
    h_close(&p);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
    return wrong;
}

/* The client has finished its part of the handshake before the server refuses it. */
static int judge_client(const verdict *v) {
    pysock_ssl_context *client = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    pysock_ssl_context *server = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
    h_pair p;
    int wrong;
    trust(client, "root");
    use_chain(client, v->chain);
    trust(server, v->anchors);
    use_flags(server, v->flags);
    use_chain(server, "good");
    T_OK(pysock_ssl_set_verify_mode(server, PYSOCK_CERT_REQUIRED));
    h_try(&p, client, server, WWW);
    wrong = is_as_expected(v, &p.at_server, &p.at_client);
    h_close(&p);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
    return wrong;
}

/* All of them are tried, so that one run shows everything that is wrong. */
static void judge_all(int (*judge)(const verdict *v), const verdict *list, size_t count) {
    int wrong = 0;
    P_NEED("openssl");
    for (size_t i = 0; i < count; i++) {
        T_STEP("%s, trusting %s", list[i].chain, list[i].anchors);
        wrong += judge(&list[i]);
    }
    T_EQ(wrong, 0);
}

#define JUDGE(judge, list) judge_all(judge, list, sizeof(list) / sizeof(list)[0])

/* ==== paths ==== */

T_TEST(a_path_is_found_in_what_is_sent_and_trusted, 120) {
    static const verdict list[] = {
        {"good", "root", WWW, 0, OK},
        {"good", "root", NULL, 0, OK},
        {"good", "root-other root", WWW, 0, OK},
        {"good-rooted", "root", WWW, 0, OK},
        {"of-root", "root", WWW, 0, OK},
        {"long", "root", WWW, 0, OK},
        {"long-disorder", "root", WWW, 0, OK},
        {"extra", "root", WWW, 0, OK},
        {"twice", "root", WWW, 0, OK},
        {"both", "root", WWW, 0, OK},
        {"missing", "root", WWW, 0, NO_LOCAL_ISSUER},
        {"missing", "int root", WWW, 0, OK},
        {"missing-middle", "root", WWW, 0, NO_LOCAL_ISSUER},
        {"missing-middle", "root int2", WWW, 0, OK},
        {"good", "root-other", WWW, 0, NO_LOCAL_ISSUER},
        {"good", "unrelated", WWW, 0, NO_LOCAL_ISSUER},
        {"good-rooted", "root-other", WWW, 0, SELF_SIGNED_IN_CHAIN},
        {"by-leaf", "root", WWW, 0, INVALID_CA},
    };
    JUDGE(judge_server, list);
}

T_TEST(a_path_ends_at_a_root_or_with_partial_chains_at_any_anchor, 120) {
    static const verdict list[] = {
        {"good", "int", WWW, 0, NO_ISSUER},
        {"missing", "int", WWW, 0, NO_ISSUER},
        {"good", "int", WWW, PARTIAL, OK},
        {"missing", "int", WWW, PARTIAL, OK},
        {"missing", "int", WWW, PARTIAL | STRICT, OK},
        {"long", "int2", WWW, PARTIAL, OK},
        {"long", "int", WWW, PARTIAL, OK},
        {"good", "leaf", WWW, 0, NO_LOCAL_ISSUER},
        {"good", "leaf", WWW, PARTIAL, OK},
        {"good", "leaf", "other.test", PARTIAL, HOSTNAME},
        {"missing", "leaf", WWW, PARTIAL, OK},
        {"good", "leaf-self", WWW, PARTIAL, NO_LOCAL_ISSUER},
        {"good", "root-other leaf2", WWW, PARTIAL, NO_LOCAL_ISSUER},
        {"self-signed", "root", WWW, 0, SELF_SIGNED},
        {"self-signed", "root", WWW, PARTIAL, SELF_SIGNED},
        {"self-signed", "leaf-self", WWW, 0, OK},
        {"self-signed", "leaf-self", WWW, PARTIAL, OK},
        {"by-leaf", "leaf", WWW, PARTIAL, INVALID_CA},
        {"leaf-expired", "leaf-expired", WWW, PARTIAL, EXPIRED},
        {"int-expired", "int-expired", WWW, PARTIAL, EXPIRED},
    };
    JUDGE(judge_server, list);
}

T_TEST(crossed_and_renewed_certificates_are_alternatives, 120) {
    static const verdict list[] = {
        {"crossed", "root", WWW, 0, OK},
        {"crossed", "new-root", WWW, 0, OK},
        {"crossed-both", "root", WWW, 0, OK},
        {"crossed-both", "new-root", WWW, 0, OK},
        {"crossed-both", "root-other", WWW, 0, SELF_SIGNED_IN_CHAIN},
        {"crossed-expired", "root", WWW, 0, EXPIRED},
        {"crossed-expired", "new-root", WWW, 0, OK},
        {"crossed-expired", "root new-root", WWW, 0, OK},
        {"crossed-expired-and-good", "root", WWW, 0, OK},
        {"renewed", "root", WWW, 0, OK},
        {"renewed-not", "root", WWW, 0, EXPIRED},
        {"renewed-not", "root int", WWW, 0, OK},
        {"two-keys", "root", WWW, 0, OK},
        {"forged", "root", WWW, 0, BAD_SIGNATURE},
        {"cycle", "root", WWW, 0, NO_LOCAL_ISSUER},
        {"cycle", "root b", WWW, 0, NO_ISSUER},
        {"cycle-with-way-out", "root", WWW, 0, OK},
        {"self-issued", "root", WWW, 0, OK},
    };
    JUDGE(judge_server, list);
}

/* ==== each certificate ==== */

T_TEST(dates_count_for_every_certificate_of_a_path, 120) {
    static const verdict list[] = {
        {"leaf-expired", "root", WWW, 0, EXPIRED},
        {"leaf-future", "root", WWW, 0, FUTURE},
        {"int-expired", "root", WWW, 0, EXPIRED},
        {"int-future", "root", WWW, 0, FUTURE},
        {"root-expired", "root-expired", WWW, 0, EXPIRED},
        {"root-future", "root-future", WWW, 0, FUTURE},
        {"root-expired", "root-expired", WWW, PARTIAL, EXPIRED},
    };
    JUDGE(judge_server, list);
}

T_TEST(extended_key_usage_counts_for_leaf_and_authorities, 120) {
    static const verdict list[] = {
        {"eku-none", "root", WWW, 0, OK},      {"eku-any", "root", WWW, 0, PURPOSE},
        {"eku-code", "root", WWW, 0, PURPOSE}, {"client", "root", WWW, 0, PURPOSE},
        {"int-server", "root", WWW, 0, OK},    {"int-client", "root", WWW, 0, PURPOSE},
        {"int-code", "root", WWW, 0, PURPOSE}, {"root-client", "root-client", WWW, 0, PURPOSE},
    };
    JUDGE(judge_server, list);
}

T_TEST(key_usage_must_allow_what_tls_does, 120) {
    static const verdict list[] = {
        {"usage-none", "root", WWW, 0, OK},
        {"usage-other", "root", WWW, 0, PURPOSE},
    };
    JUDGE(judge_server, list);
}

T_TEST(only_authorities_may_sign_and_only_so_far_down, 120) {
    static const verdict list[] = {
        {"ca-no-basic", "root", WWW, 0, INVALID_CA},
        {"ca-false", "root", WWW, 0, INVALID_CA},
        {"ca-no-sign", "root", WWW, 0, NO_CERT_SIGN},
        {"ca-version-1", "root", WWW, 0, INVALID_CA},
        {"pathlen-0", "root", WWW, 0, OK},
        {"below-pathlen-0", "root", WWW, 0, PATH_LENGTH},
        {"below-pathlen-1", "root", WWW, 0, OK},
        {"below-root-pathlen", "root-pathlen", WWW, 0, PATH_LENGTH},
        {"root-pathlen", "root-pathlen", WWW, 0, OK},
        {"root-version-1", "root-version-1", WWW, 0, OK},
        {"root-version-1", "root-version-1", WWW, STRICT, OLD_VERSION},
    };
    JUDGE(judge_server, list);
}

T_TEST(weak_and_unknown_algorithms_are_refused, 120) {
    static const verdict list[] = {
        {"leaf-sha1", "root", WWW, 0, WEAK_HASH},
        {"int-sha1", "root", WWW, 0, WEAK_HASH},
        {"root-sha1", "root-sha1", WWW, 0, OK}, /* nobody checks an anchor's own signature */
        {"leaf-rsa", "root", WWW, 0, OK},
        {"leaf-rsa1024", "root", WWW, 0, LEAF_KEY},
        {"int-rsa", "root", WWW, 0, OK},
        {"rsa-sha512", "root", WWW, 0, OK},
        {"int-rsa1024", "root", WWW, 0, CA_KEY},
        {"rsa-pss", "root", WWW, 0, SIGNATURE_UNSUPPORTED},
        {"leaf-p384", "root", WWW, 0, OK},
        {"leaf-p521", "root", WWW, 0, OK},
        {"int-p384", "root", WWW, 0, OK},
        {"int-p521", "root", WWW, 0, OK},
        {"int-k1", "root", WWW, 0, ISSUER_KEY_UNSUPPORTED},
        {"int-ed25519", "root", WWW, 0, ISSUER_KEY_UNSUPPORTED},
        {"int-dsa", "root", WWW, 0, ISSUER_KEY_UNSUPPORTED},
        {"damaged", "root", WWW, 0, BAD_SIGNATURE},
        {"algorithms-differ", "root", WWW, 0, ALGORITHMS_DIFFER},
    };
    JUDGE(judge_server, list);
}

T_TEST(extensions_that_are_not_understood_are_refused, 120) {
    static const verdict list[] = {
        {"critical", "root", WWW, 0, CRITICAL_EXTENSION},
        {"not-critical", "root", WWW, 0, OK},
        {"int-critical", "root", WWW, 0, CRITICAL_EXTENSION},
        {"root-critical", "root-critical", WWW, 0, CRITICAL_EXTENSION},
        {"policies", "root", WWW, 0, OK},
        {"int-policies", "root", WWW, 0, NO_POLICY},
    };
    JUDGE(judge_server, list);
}

/* By their code; who is shown one never says that an issuer is missing. */
T_TEST(malformed_certificates_are_refused, 120) {
    static const verdict list[] = {
        {"duplicate", "root", WWW, 0, MALFORMED},
        {"int-duplicate", "root", WWW, 0, MALFORMED},
        {"version-4", "root", WWW, 0, MALFORMED},
        {"version-1-extensions", "root", WWW, 0, MALFORMED},
        {"version-4", "root", WWW, PARTIAL | STRICT, MALFORMED},
    };
    JUDGE(judge_shown, list);
}

/* It is as if it had not been sent, where the certificate's double is trusted. */
T_TEST(a_malformed_certificate_is_passed_over_where_there_is_another_path, 120) {
    static const verdict list[] = {
        {"int-duplicate", "root int-two", WWW, 0, OK},
        {"version-4", "root int", WWW, 0, OK},
        {"version-4", "int", WWW, PARTIAL, OK},
        {"version-1-extensions", "root int", WWW, 0, OK},
        {"duplicate", "root plain", WWW, PARTIAL, MALFORMED}, /* the leaf has no double */
    };
    JUDGE(judge_shown, list);
}

/* RFC 5280, 4.1.2.2: users should be prepared to handle such numbers. */
T_TEST(serial_numbers_of_any_size_are_taken, 120) {
    static const verdict list[] = {
        {"serial-zero", "root", WWW, 0, OK},
        {"serial-zero", "root", WWW, STRICT, OK},
        {"serial-long", "root", WWW, 0, OK},
        {"serial-long", "root", WWW, STRICT, OK},
    };
    JUDGE(judge_server, list);
}

T_TEST(version_1_is_old_but_not_malformed, 120) {
    static const verdict list[] = {
        {"version-1", "root", WWW, 0, HOSTNAME}, /* it has a common name alone */
        {"version-1", "root", NULL, 0, OK},
        {"version-1", "root", WWW, COMMON_NAME, OK},
        {"version-1", "root", WWW, COMMON_NAME | STRICT, OLD_VERSION},
    };
    JUDGE(judge_server, list);
}

T_TEST(strictness_asks_for_what_rfc_5280_does, 120) {
    static const verdict list[] = {
        {"good", "root", WWW, STRICT, OK},
        {"long-disorder", "root", WWW, STRICT, OK},
        {"soft-basic", "root", WWW, 0, OK},
        {"soft-basic", "root", WWW, STRICT, BASIC_NOT_CRITICAL},
        {"no-usage", "root", WWW, 0, OK},
        {"no-usage", "root", WWW, STRICT, CA_NO_KEY_USAGE},
        {"no-ski", "root", WWW, 0, OK},
        {"no-ski", "root", WWW, STRICT, NO_SKI},
        {"no-aki", "root", WWW, 0, OK},
        {"no-aki", "root", WWW, STRICT, NO_AKI},
        {"critical-ski", "root", WWW, 0, OK},
        {"critical-ski", "root", WWW, STRICT, SKI_CRITICAL},
        {"critical-aki", "root", WWW, 0, OK},
        {"critical-aki", "root", WWW, STRICT, AKI_CRITICAL},
        {"leaf-no-aki", "root", WWW, 0, OK},
        {"leaf-no-aki", "root", WWW, STRICT, NO_AKI},
        {"leaf-no-ski", "root", WWW, STRICT, OK},
        {"leaf-no-basic", "root", WWW, STRICT, OK},
        {"leaf-pathlen", "root", WWW, 0, OK},
        {"leaf-pathlen", "root", WWW, STRICT, PATHLEN_OF_NO_CA},
        {"leaf-signs", "root", WWW, 0, OK},
        {"leaf-signs", "root", WWW, STRICT, CERT_SIGN_OF_NO_CA},
        {"root-nameless", "root-nameless", WWW, 0, OK},
        {"root-nameless", "root-nameless", WWW, STRICT, EMPTY_ISSUER},
        {"int-nameless", "root", WWW, 0, OK},
        {"int-nameless", "root", WWW, STRICT, EMPTY_SUBJECT},
        {"root-no-usage", "root-no-usage", WWW, 0, OK},
        {"root-no-usage", "root-no-usage", WWW, STRICT, CA_NO_KEY_USAGE},
        {"root-no-ski", "root-no-ski", WWW, 0, OK},
        {"root-no-ski", "root-no-ski", WWW, STRICT, NO_SKI},
        {"empty-subject", "root", WWW, STRICT, OK},
        {"empty-subject-soft", "root", WWW, 0, OK},
        {"empty-subject-soft", "root", WWW, STRICT, SAN_NOT_CRITICAL},
    };
    JUDGE(judge_server, list);
}

/* ==== names ==== */

T_TEST(a_certificate_is_for_the_names_in_it, 120) {
    static const verdict list[] = {
        {"good", "root", "WWW.Example.Test.", 0, OK},
        {"good", "root", "example.test", 0, HOSTNAME},
        {"wildcard", "root", WWW, 0, OK},
        {"wildcard", "root", "example.test", 0, HOSTNAME},
        {"wildcard", "root", "a.b.example.test", 0, HOSTNAME},
        {"wildcard-top", "root", "example.test", 0, HOSTNAME},
        {"wildcard-part", "root", WWW, 0, HOSTNAME},
        {"wildcard-inner", "root", "www.example.test", 0, HOSTNAME},
        {"wildcard-bare", "root", "localhost", 0, HOSTNAME},
        {"address", "root", "127.0.0.1", 0, OK},
        {"address", "root", "::1", 0, OK},
        {"address", "root", "0:0:0:0:0:0:0:1", 0, OK},
        {"address", "root", "127.0.0.2", 0, IP_ADDRESS},
        {"address", "root", WWW, 0, HOSTNAME},
        {"address-as-name", "root", "127.0.0.1", 0, IP_ADDRESS},
        {"good", "root", "127.0.0.1", 0, IP_ADDRESS},
        {"mail-only", "root", WWW, 0, HOSTNAME},
        {"empty-subject", "root", WWW, 0, OK},
    };
    JUDGE(judge_server, list);
}

T_TEST(the_common_name_does_not_count_by_itself, 120) {
    static const verdict list[] = {
        {"cn-only", "root", WWW, 0, HOSTNAME},
        {"cn-only", "root", NULL, 0, OK},
        {"cn-only", "root", "other.test", 0, HOSTNAME},
        {"cn-beside", "root", WWW, 0, HOSTNAME},
        {"cn-beside", "root", "other.test", 0, OK},
        {"cn-beside-mail", "root", WWW, 0, HOSTNAME},
        {"cn-address", "root", "127.0.0.1", 0, IP_ADDRESS},
        {"cn-wildcard", "root", WWW, 0, HOSTNAME},
    };
    JUDGE(judge_server, list);
}

T_TEST(the_common_name_counts_if_asked_for_and_no_name_or_address_is_there, 120) {
    static const verdict list[] = {
        {"cn-only", "root", WWW, COMMON_NAME, OK},
        {"cn-only", "root", "other.test", COMMON_NAME, HOSTNAME},
        {"cn-beside", "root", WWW, COMMON_NAME, HOSTNAME},
        {"cn-beside", "root", "other.test", COMMON_NAME, OK},
        {"cn-beside-address", "root", WWW, COMMON_NAME, HOSTNAME},
        {"cn-beside-address", "root", "127.0.0.1", COMMON_NAME, OK},
        {"cn-beside-mail", "root", WWW, COMMON_NAME, OK},
        {"cn-address", "root", "127.0.0.1", COMMON_NAME, IP_ADDRESS},
        {"cn-wildcard", "root", WWW, COMMON_NAME, OK},
        {"cn-wildcard", "root", "example.test", COMMON_NAME, HOSTNAME},
        {"empty-subject", "root", WWW, COMMON_NAME, OK},
    };
    JUDGE(judge_server, list);
}

T_TEST(name_constraints_bind_dns_names, 120) {
    static const verdict list[] = {
        {"dns-in", "root", WWW, 0, OK},
        {"dns-in-all", "root", WWW, 0, OK},
        {"dns-out", "root", "www.other.test", 0, NOT_PERMITTED},
        {"dns-suffix-out", "root", "www.notexample.test", 0, NOT_PERMITTED},
        {"dns-one-out", "root", WWW, 0, NOT_PERMITTED},
        {"dns-wildcard-in", "root", WWW, 0, OK},
        {"dns-other-kinds", "root", WWW, 0, OK},
        {"dns-cn-out", "root", "www.other.test", 0, NOT_PERMITTED},
        {"dns-cn-out", "root", "www.other.test", COMMON_NAME, NOT_PERMITTED},
        {"dns-cn-in", "root", WWW, 0, HOSTNAME},
        {"dns-cn-in", "root", WWW, COMMON_NAME, OK},
        {"dns-cn-dot-out", "root", "www.other.test", 0, ANY},
        {"dns-cn-dot-out", "root", "www.other.test", COMMON_NAME, ANY},
        {"dns-cn-label-out", "root", "localhost", 0, ANY},
        {"dns-cn-label-out", "root", "localhost", COMMON_NAME, ANY},
        {"dns-star-hit", "root", WWW, 0, ANY}, /* no name as RFC 5280 has it */
        {"dns-end-hit", "root", WWW, 0, ANY},
        {"dns-soft-out", "root", "www.other.test", 0, NOT_PERMITTED},
        {"dns-dot-in", "root", WWW, 0, OK},
        {"dns-no-hit", "root", WWW, 0, EXCLUDED},
        {"dns-no-miss", "root", "www.other.test", 0, OK},
        {"dns-no-wildcard", "root", NULL, 0, EXCLUDED},
        {"dns-no-covered", "root", "mail.example.test", 0, EXCLUDED},
        {"dns-both-hit", "root", WWW, 0, EXCLUDED},
        {"dns-both-miss", "root", "mail.example.test", 0, OK},
        {"dns-two-in", "root", WWW, 0, OK},
        {"dns-nothing-left", "root", WWW, 0, EXCLUDED},
        {"root-nc-in", "root-nc", WWW, 0, OK},
        {"root-nc-out", "root-nc", "www.other.test", 0, NOT_PERMITTED},
        {"nc-in-leaf", "root", WWW, 0, INVALID_EXTENSION},
    };
    JUDGE(judge_server, list);
}

T_TEST(name_constraints_bind_all_other_names, 120) {
    static const verdict list[] = {
        {"ip-in", "root", "127.0.0.1", 0, OK},
        {"ip-out", "root", "10.0.0.1", 0, NOT_PERMITTED},
        {"ip-six-out", "root", "::1", 0, NOT_PERMITTED},
        {"ip6-in", "root", "::1", 0, OK},
        {"ip6-out", "root", "fe80::1", 0, NOT_PERMITTED},
        {"ip-no-hit", "root", "127.0.0.1", 0, EXCLUDED},
        {"ip-no-miss", "root", "10.0.0.1", 0, OK},
        {"mail-in", "root", WWW, 0, OK},
        {"mail-out", "root", WWW, 0, NOT_PERMITTED},
        {"mail-below", "root", WWW, 0, NOT_PERMITTED},
        {"mail-subject-out", "root", WWW, 0, NOT_PERMITTED},
        {"mail-no-hit", "root", WWW, 0, EXCLUDED},
        {"mail-no-miss", "root", WWW, 0, OK},
        {"mail-at-hit", "root", WWW, 0, ANY},
        {"uri-in", "root", WWW, 0, OK},
        {"uri-out", "root", WWW, 0, NOT_PERMITTED},
        {"uri-bare", "root", WWW, 0, NAME_SYNTAX},
        {"dir-in", "root", WWW, 0, OK},
        {"dir-in-folded", "root", WWW, 0, OK},
        {"dir-out", "root", WWW, 0, NOT_PERMITTED},
        {"dir-no-miss", "root", WWW, 0, OK},
        {"dir-no-hit", "root", WWW, 0, EXCLUDED},
        {"dir-middle-out", "root", WWW, 0, NOT_PERMITTED},
        {"id-other-kind", "root", WWW, 0, OK},
        {"id-out", "root", WWW, 0, CONSTRAINT_TYPE},
        {"other-kind", "root", WWW, 0, OK},
        {"other-hit", "root", WWW, 0, CONSTRAINT_TYPE},
    };
    JUDGE(judge_server, list);
}

T_TEST(name_constraints_that_cannot_be_read_are_refused, 120) {
    static const verdict malformed[] = {
        {"bad-empty", "root", WWW, 0, MALFORMED},
        {"bad-cut", "root", WWW, 0, MALFORMED},
        {"bad-nothing", "root", WWW, 0, MALFORMED},
    };
    static const verdict list[] = {
        {"bad-max", "root", WWW, 0, SUBTREE_MINMAX},
        {"bad-min", "root", WWW, 0, SUBTREE_MINMAX},
        {"bad-mask", "root", "127.0.0.1", 0, CONSTRAINT_SYNTAX},
        {"bad-length", "root", "127.0.0.1", 0, CONSTRAINT_SYNTAX},
    };
    JUDGE(judge_shown, malformed);
    JUDGE(judge_server, list);
}

/* ==== work ==== */

/* Whoever can send a chain chooses its keys, and how long it takes to find that they are wrong. */
T_TEST(a_costly_chain_is_refused_in_little_time, 300) {
    P_NEED("openssl");
    pysock_ssl_context *client = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    pysock_ssl_context *server = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
    h_pair p;
    double before;
    trust(client, "root");
    use_chain(server, "costly");
    before = t_process_cpu();
    h_try(&p, client, server, WWW);
    T_EQ(p.at_client.kind, PYSOCK_SSL_CERT_VERIFICATION_ERROR);
    T_CHECK(t_process_cpu() - before < T_SCALE(1.0, 4.0));
    h_close(&p);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

/* ==== clients ==== */

T_TEST(a_server_judges_its_clients_alike, 120) {
    static const verdict list[] = {
        {"client", "root", NULL, 0, OK},
        {"client", "root", NULL, STRICT, OK},
        {"both", "root", NULL, 0, OK},
        {"eku-none", "root", NULL, 0, OK},
        {"good", "root", NULL, 0, PURPOSE},
        {"eku-any", "root", NULL, 0, PURPOSE},
        {"eku-code", "root", NULL, 0, PURPOSE},
        {"client-int-server", "root", NULL, 0, PURPOSE},
        {"client-missing", "root", NULL, 0, NO_LOCAL_ISSUER},
        {"client-missing", "root int", NULL, 0, OK},
        {"client-missing", "int", NULL, 0, NO_ISSUER},
        {"client-missing", "int", NULL, PARTIAL, OK},
        {"client", "root-other", NULL, 0, NO_LOCAL_ISSUER},
        {"client-usage-other", "root", NULL, 0, PURPOSE},
        {"client-expired", "root", NULL, 0, EXPIRED},
        {"client-future", "root", NULL, 0, FUTURE},
        {"self-signed", "root", NULL, 0, SELF_SIGNED},
    };
    JUDGE(judge_client, list);
}

/* ==== keys without a suite in TLS 1.2 as it is here ==== */

T_TEST(keys_of_other_kinds_cannot_be_a_servers, 120) {
    static const char *const kinds[] = {"ed25519", "dsa"};
    P_NEED("openssl");
    for (size_t i = 0; i < 2; i++) {
        pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
        T_STEP("%s", kinds[i]);
        T_FAILS(
            pysock_ssl_load_cert_chain(ctx, f_path(p_format("chain-leaf-%s.pem", kinds[i])), NULL),
            PYSOCK_SSL_ERROR, EPROTO);
        pysock_ssl_context_release(ctx);
    }
}

/* So that a bundle with one of them loads; what they have signed is refused. */
T_TEST(anchors_with_keys_of_other_kinds_load_and_verify_nothing, 120) {
    static const struct {
        const char *name, *said;
    } kinds[] = {{"int-ed25519", "Ed25519"}, {"int-dsa", "DSA"}, {"int-k1", "secp256k1"}};
    P_NEED("openssl");
    for (size_t i = 0; i < 3; i++) {
        pysock_ssl_context *client = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
        pysock_ssl_context *server = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
        h_pair p;
        T_STEP("%s", kinds[i].name);
        trust(client, kinds[i].name);
        T_EQ(pysock_ssl_ca_count(client), 1);
        use_flags(client, PARTIAL);
        use_chain(server, kinds[i].name);
        h_try(&p, client, server, WWW);
        h_is_refusal(&p.at_client, ISSUER_KEY_UNSUPPORTED, "issuer public key");
        H_CONTAINS(p.at_client.message, kinds[i].said);
        h_close(&p);
        T_STEP("%s beside the root", kinds[i].name);
        trust(client, "root");
        T_EQ(pysock_ssl_ca_count(client), 2);
        use_chain(server, "good");
        h_connect(&p, client, server, WWW);
        h_close(&p);
        pysock_ssl_context_release(client);
        pysock_ssl_context_release(server);
    }
}

T_MAIN(.setup = make_chains, .teardown = f_remove_all)
