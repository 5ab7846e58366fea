/* RSASSA-PSS in certificates and revocation lists (RFC 4055), made by openssl: accepted with SHA-2,
   the same hash for MGF1 and a salt of its length, on keys of all sizes; refused otherwise. */
#include "support/support.h"
#include "support/files.h"
#include "support/handshake.h"
#include "support/process.h"
#include "support/shell.h"

enum { OK = 0, BAD_SIGNATURE = 7, REVOKED = 23, SIGNATURE_UNSUPPORTED = 76 };

#define PSS(hash, salt, mgf1)                                                                      \
    "-" hash " -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:" salt                         \
    " -sigopt rsa_mgf1_md:" mgf1

/* ca.pem signs itself with PKCS#1, leaf.pem is signed as how says. */
static void make_pair(int bits, const char *how) {
    f_run(p_format("openssl req -x509 -newkey rsa:%d -nodes -keyout ca.key -out ca.pem -days 9 "
                   "-subj /CN=ca -sha256; "
                   "openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes "
                   "-keyout leaf.key -out leaf.csr -subj /CN=localhost; "
                   "printf 'subjectAltName=DNS:localhost\n' >ext; "
                   "openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial "
                   "-days 9 -extfile ext -out leaf.pem %s",
                   bits, how));
}

/* The verify code of a client that trusts ca.pem; 0 if the handshake succeeds. */
static int code_with(const char *leaf, unsigned flags) {
    pysock_ssl_context *client = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    pysock_ssl_context *server = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
    h_pair p;
    int code;
    T_OK(pysock_ssl_load_verify_locations(client, f_path("ca.pem"), NULL));
    if (flags) {
        T_OK(pysock_ssl_load_verify_locations(client, f_path("crl.pem"), NULL));
        T_OK(pysock_ssl_set_verify_flags(client, flags));
    }
    T_OK(pysock_ssl_load_cert_chain(server, leaf, f_path("leaf.key")));
    h_try(&p, client, server, "localhost");
    code = p.at_client.verify_code;
    T_EQ(p.at_client.result < 0, code != 0);
    h_close(&p);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
    return code;
}

T_TEST_WITH(a_certificate_signed_by_PSS_is_verified, 300, NULL, p_clear_away) {
    static const struct {
        int bits;
        const char *how;
    } rows[] = {{2048, PSS("sha256", "digest", "sha256")}, {2048, PSS("sha384", "48", "sha384")},
                {2048, PSS("sha512", "-1", "sha512")},     {2049, PSS("sha256", "32", "sha256")},
                {2056, PSS("sha384", "-1", "sha384")},     {3072, PSS("sha512", "64", "sha512")},
                {4096, PSS("sha256", "-1", "sha256")},     {4095, PSS("sha512", "-1", "sha512")}};
    P_NEED("openssl");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        T_STEP("%d bits, %s", rows[i].bits, rows[i].how);
        make_pair(rows[i].bits, rows[i].how);
        T_EQ(code_with(f_path("leaf.pem"), 0), OK);
    }
}

T_TEST_WITH(other_kinds_of_PSS_are_refused, 120, NULL, p_clear_away) {
    static const char *const rows[] = {
        PSS("sha256", "20", "sha256"), PSS("sha256", "0", "sha256"), PSS("sha256", "max", "sha256"),
        PSS("sha256", "32", "sha384"), PSS("sha256", "32", "sha1"),  PSS("sha1", "20", "sha1"),
        PSS("sha224", "28", "sha224")};
    P_NEED("openssl");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        T_STEP("%s", rows[i]);
        make_pair(2048, rows[i]);
        T_EQ(code_with(f_path("leaf.pem"), 0), SIGNATURE_UNSUPPORTED);
    }
}

T_TEST_WITH(a_changed_PSS_signature_is_refused, 120, NULL, p_clear_away) {
    static const size_t from_end[] = {1, 2, 100, 255, 256};
    P_NEED("openssl");
    make_pair(2048, PSS("sha256", "-1", "sha256"));
    f_run("openssl x509 -in leaf.pem -outform der -out leaf.der");
    for (size_t i = 0; i < sizeof from_end / sizeof *from_end; i++) {
        size_t size;
        char *der = f_read(f_path("leaf.der"), &size);
        T_STEP("byte %zu from the end", from_end[i]);
        der[size - from_end[i]] ^= 1;
        T_EQ(code_with(f_write("changed.der", der, size), 0), BAD_SIGNATURE);
        free(der);
    }
}

T_TEST_WITH(a_certificate_says_that_it_is_signed_by_PSS, 60, NULL, p_clear_away) {
    pysock_ssl_cert *cert;
    size_t size;
    char *der;
    P_NEED("openssl");
    make_pair(2048, PSS("sha256", "-1", "sha256"));
    f_run("openssl x509 -in leaf.pem -outform der -out leaf.der");
    der = f_read(f_path("leaf.der"), &size);
    cert = T_OK(pysock_ssl_cert_parse(der, size));
    H_SAME(cert->signature_algorithm, "rsassaPss");
    pysock_ssl_cert_free(cert);
    free(der);
}

T_TEST_WITH(a_revocation_list_signed_by_PSS_is_verified, 120, NULL, p_clear_away) {
    static const struct {
        const char *hash, *salt;
        int code;
    } rows[] = {
        {"sha256", "32", OK}, {"sha512", "64", OK}, {"sha256", "20", SIGNATURE_UNSUPPORTED}};
    P_NEED("openssl");
    make_pair(2048, PSS("sha384", "-1", "sha384"));
    for (int revoked = 0; revoked < 2; revoked++)
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            int code = rows[i].code == OK && revoked ? REVOKED : rows[i].code;
            T_STEP("%s, %s, salt %s", revoked ? "revoked" : "good", rows[i].hash, rows[i].salt);
            f_run(p_format("rm -f index*; : >index; echo 01 >number; "
                           "printf '[ca]\ndefault_ca=c\n[c]\ndatabase=index\ncrlnumber=number\n"
                           "certificate=ca.pem\nprivate_key=ca.key\ndefault_md=%s\n"
                           "default_crl_days=9\n' >conf; %s"
                           "openssl ca -config conf -gencrl -out crl.pem "
                           "-sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:%s",
                           rows[i].hash,
                           revoked ? "openssl ca -config conf -revoke leaf.pem; " : "",
                           rows[i].salt));
            T_EQ(code_with(f_path("leaf.pem"), PYSOCK_VERIFY_CRL_CHECK_LEAF), code);
        }
}

T_MAIN()
