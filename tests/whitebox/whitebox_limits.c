/* The limits that only a hostile peer, or a very large program, runs into: how much work a chain of
   certificates may cause, and how many sockets there may be. The certificates are made by hand, and
   their signatures are good or bad as the test says. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <bearssl.h>

static br_ecdsa_vrfy judge_by_the_test(void);

#define PYSOCK_IMPLEMENTATION
#define PYSOCK_MAX_SOCKETS 16
#define br_ecdsa_vrfy_asn1_get_default judge_by_the_test
#include "pysock.h"
#undef br_ecdsa_vrfy_asn1_get_default

#include "support/bear.h"
#include "support/files.h"

enum { TOO_LONG = PYSOCK__V_CHAIN_TOO_LONG };

/* ---- certificates and signatures to order ---- */

static int checked;   /* signatures so far */
static int good_ones; /* so many of them are good */

static uint32_t count_and_judge(const br_ec_impl *impl, const void *hash, size_t hash_len,
                                const br_ec_public_key *key, const void *signature, size_t len) {
    (void)impl, (void)hash, (void)hash_len, (void)key, (void)signature, (void)len;
    return checked++ < good_ones;
}

static br_ecdsa_vrfy judge_by_the_test(void) {
    return count_and_judge;
}

typedef struct made {
    pysock__cert cert;
    unsigned char subject[32], issuer[32], all[4], q[4];
} made;

/* A distinguished name of one common name. */
static pysock__der put_name(unsigned char out[32], const char *text) {
    size_t n = strlen(text);
    pysock__der name;
    T_CHECK(n < 16);
    out[0] = 0x31;
    out[1] = (unsigned char)(n + 9);
    out[2] = 0x30;
    out[3] = (unsigned char)(n + 7);
    memcpy(out + 4, "\x06\x03\x55\x04\x03\x0c", 6);
    out[10] = (unsigned char)n;
    memcpy(out + 11, text, n);
    name.p = out;
    name.end = out + 11 + n;
    return name;
}

static pysock__der bytes(const void *data, size_t n) {
    pysock__der d;
    d.p = data;
    d.end = d.p + n;
    return d;
}

/* number: what makes it and its key differ from others. */
static void make(made *m, const char *subject, const char *issuer, unsigned number, int is_ca) {
    pysock__cert *c = &m->cert;
    memset(m, 0, sizeof *m);
    c->subject = put_name(m->subject, subject);
    c->issuer = put_name(m->issuer, issuer);
    m->all[0] = m->q[0] = (unsigned char)(number >> 8);
    m->all[1] = m->q[1] = (unsigned char)number;
    m->all[2] = (unsigned char)is_ca;
    c->all = c->tbs = bytes(m->all, sizeof m->all);
    c->serial = bytes("\x01", 1);
    c->signature = bytes("signature", 9);
    c->sig_alg = &pysock__sig_algs[3];
    T_EQ(c->sig_alg->key_type, BR_KEYTYPE_EC);
    c->key.key_type = BR_KEYTYPE_EC;
    c->key.key.ec.curve = BR_EC_secp256r1;
    c->key.key.ec.q = m->q;
    c->key.key.ec.qlen = sizeof m->q;
    c->not_after = INT64_MAX;
    c->version = 3;
    c->is_ca = is_ca;
    c->pathlen = -1;
}

/* A store with one anchor, a root of that name. */
static pysock__store *store_with(const char *name) {
    pysock__store *st = pysock__store_clone(NULL);
    pysock__anchor *a = pysock__alloc(sizeof *a);
    static made root;
    T_CHECK(st && a);
    make(&root, name, name, 9999, 1);
    a->refs = 1;
    a->cert = root.cert;
    T_EQ(pysock__store_add_anchor(st, a), 0);
    pysock__anchor_release(a);
    return st;
}

static int judge(const pysock__store *st, const made *list, size_t count, unsigned flags) {
    static pysock__cert chain[200];
    pysock__verify_rules rules;
    pysock__path path;
    int code;
    T_CHECK(count <= 200);
    for (size_t i = 0; i < count; i++)
        chain[i] = list[i].cert;
    memset(&rules, 0, sizeof rules);
    rules.purpose = PYSOCK_SERVER_AUTH;
    rules.security_level = 2;
    rules.flags = flags;
    checked = 0;
    code = pysock__chain_check(&path, st, chain, count, &rules);
    pysock__store_release(path.extended);
    return code;
}

/* ---- chains ---- */

T_TEST(a_path_has_twelve_certificates_and_no_more, 60) {
    static made list[16];
    pysock__store *st = store_with("root");
    good_ones = INT_MAX;
    for (size_t sent = 1; sent <= 14; sent++) {
        for (size_t i = 0; i < sent; i++) {
            char subject[8], issuer[8];
            snprintf(subject, sizeof subject, "%u", (unsigned)i);
            snprintf(issuer, sizeof issuer, "%u", (unsigned)i + 1);
            make(&list[i], subject, i + 1 == sent ? "root" : issuer, (unsigned)i, i > 0);
        }
        T_STEP("%zu certificates and a root", sent);
        T_EQ(judge(st, list, sent, 0), sent < 12 ? 0 : TOO_LONG);
    }
    pysock__store_release(st);
}

T_TEST(forty_eight_signatures_are_checked_and_no_more, 60) {
    static made list[150];
    pysock__store *st = store_with("root");
    make(&list[0], "leaf", "middle", 0, 0);
    for (unsigned i = 1; i < 150; i++)
        make(&list[i], "middle", "root", i, 1);
    good_ones = 0;
    T_EQ(judge(st, list, 40, 0), PYSOCK__V_BAD_SIGNATURE);
    T_EQ(checked, 39);
    T_CHECK(judge(st, list, 150, 0) != 0);
    T_EQ(checked, 48);
    pysock__store_release(st);
}

/* Nothing is spent on an issuer whose key is not the one that is meant. */
T_TEST(a_key_that_is_not_meant_is_not_tried, 60) {
    static made list[2];
    pysock__store *st = store_with("root");
    good_ones = INT_MAX;
    make(&list[0], "leaf", "middle", 0, 0);
    make(&list[1], "middle", "root", 1, 1);
    list[0].cert.aki = bytes("one", 3);
    list[1].cert.ski = bytes("one", 3);
    T_EQ(judge(st, list, 2, 0), 0);
    T_EQ(checked, 2);
    list[1].cert.ski = bytes("two", 3);
    T_EQ(judge(st, list, 2, 0), PYSOCK__V_NO_LOCAL_ISSUER);
    T_EQ(checked, 0);
    pysock__store_release(st);
}

static pysock__revocations *add_list(pysock__store *st, const made *issuer, unsigned number) {
    pysock__revocations *r = pysock__alloc(sizeof *r);
    static unsigned char all[256][2];
    T_CHECK(r && number < 256);
    all[number][0] = (unsigned char)number;
    r->refs = 1;
    r->crl.all = r->crl.tbs = bytes(all[number], 2);
    r->crl.issuer = issuer->cert.issuer;
    r->crl.signature = bytes("signature", 9);
    r->crl.sig_alg = &pysock__sig_algs[3];
    r->crl.next_update = INT64_MAX;
    T_EQ(pysock__store_add_revocations(st, r), 0);
    pysock__revocations_release(r);
    return st->crls[st->crl_count - 1];
}

/* Each of these lists might be the one that revokes, so leaving some out is no answer. */
T_TEST(revocation_lists_count_as_signatures, 60) {
    static made leaf;
    pysock__store *st = store_with("root");
    make(&leaf, "leaf", "root", 0, 0);
    for (unsigned i = 0; i < 40; i++)
        add_list(st, &leaf, i);
    good_ones = 1; /* the leaf's own */
    T_EQ(judge(st, &leaf, 1, PYSOCK_VERIFY_CRL_CHECK_LEAF), PYSOCK__V_CRL_SIGNATURE);
    T_EQ(checked, 41);
    for (unsigned i = 40; i < 150; i++)
        add_list(st, &leaf, i);
    T_EQ(judge(st, &leaf, 1, PYSOCK_VERIFY_CRL_CHECK_LEAF), TOO_LONG);
    T_EQ(checked, 48);
    pysock__store_release(st);
}

T_TEST(a_list_must_say_the_same_algorithm_twice, 60) {
    static made leaf;
    pysock__store *st = store_with("root");
    pysock__revocations *r;
    make(&leaf, "leaf", "root", 0, 0);
    good_ones = INT_MAX;
    r = add_list(st, &leaf, 0);
    T_EQ(judge(st, &leaf, 1, PYSOCK_VERIFY_CRL_CHECK_LEAF), 0);
    r->crl.algorithms_differ = 1;
    T_EQ(judge(st, &leaf, 1, PYSOCK_VERIFY_CRL_CHECK_LEAF), PYSOCK__V_CRL_SIGNATURE);
    pysock__store_release(st);
}

/* A hundred names by a hundred constraints, with room for some of them. */
T_TEST(names_are_compared_so_often_and_no_more, 60) {
    static made ca, leaf;
    static unsigned char permitted[100 * 5], san[100 * 3];
    int budget;
    make(&ca, "root", "root", 1, 1);
    make(&leaf, "leaf", "root", 0, 0);
    for (size_t i = 0; i < 100; i++) {
        memcpy(permitted + 5 * i,
               i < 99 ? "\x30\x03\x82\x01z"
                      : "\x30\x03\x82\x01"
                        "a",
               5);
        memcpy(san + 3 * i,
               "\x82\x01"
               "a",
               3);
    }
    ca.cert.permitted = bytes(permitted, sizeof permitted);
    leaf.cert.san = bytes(san, sizeof san);
    leaf.cert.subject = bytes(san, 0);
    budget = 100 * 100 + 1;
    T_EQ(pysock__constraints_check(&ca.cert, &leaf.cert, 1, &budget), 0);
    T_EQ(budget, 1);
    budget = 100 * 100;
    T_EQ(pysock__constraints_check(&ca.cert, &leaf.cert, 1, &budget), PYSOCK__V_CONSTRAINT_TYPE);
    T_EQ(budget, 0);
}

/* Each name that is looked for in a directory costs system calls. */
T_TEST(thirty_two_names_are_looked_up_and_no_more, 60) {
    pysock__store *st = pysock__store_clone(NULL);
    pysock__path path;
    unsigned char text[32];
    pysock__der name;
    T_CHECK(st != NULL);
    T_EQ(pysock__store_keep_dir(st, f_dir()), 0);
    memset(&path, 0, sizeof path);
    path.store = st;
    for (int i = 0; i < 40; i++) {
        char cn[12];
        snprintf(cn, sizeof cn, "%d", i);
        name = put_name(text, cn);
        T_EQ(pysock__path_look_up(&path, &name, 0), i < 32 ? 0 : -1);
    }
    T_STEP("those that were are known");
    name = put_name(text, "0");
    T_EQ(pysock__path_look_up(&path, &name, 0), 0);
    T_EQ(path.dir_lookup_count, 32);
    pysock__store_release(st);
}

/* ---- what is sent ---- */

static unsigned char leaf_der[4096];
static size_t leaf_size;

static void keep_leaf(void *arg, bear_bytes *object) {
    (void)arg;
    T_CHECK(object->len <= sizeof leaf_der);
    memcpy(leaf_der, object->data, object->len);
    leaf_size = object->len;
}

/* A verifier that verifies nothing is shown the leaf, and so many others of that size. */
static int code_of(size_t others, size_t size) {
    static unsigned char zeros[4096];
    pysock__verifier *v = pysock__alloc(sizeof *v);
    int code;
    T_CHECK(v != NULL);
    bear_read_pem("server-ec", "pem", "CERTIFICATE", keep_leaf, NULL);
    v->vtable = &pysock__verifier_class;
    v->vtable->start_chain(&v->vtable, NULL);
    for (size_t i = 0; i <= others; i++) {
        size_t n = i ? size : leaf_size;
        v->vtable->start_cert(&v->vtable, (uint32_t)n);
        for (size_t done = 0, k; done < n; done += k) {
            k = n - done < sizeof zeros ? n - done : sizeof zeros;
            v->vtable->append(&v->vtable, i ? zeros : leaf_der, k);
        }
        v->vtable->end_cert(&v->vtable);
    }
    v->vtable->end_chain(&v->vtable);
    code = v->verify_code;
    T_CHECK(v->chain.len <= PYSOCK__CHAIN_BYTES);
    pysock__verifier_free(v);
    return code;
}

T_TEST(a_chain_has_64_certificates_and_160_kilobytes_and_no_more, 60) {
    T_EQ(code_of(0, 0), 0);
    T_EQ(code_of(63, 100), 0);
    T_EQ(code_of(64, 100), TOO_LONG);
    T_EQ(code_of(1, 160 * 1024 - leaf_size), 0);
    T_EQ(code_of(1, 160 * 1024 - leaf_size + 1), TOO_LONG);
    T_EQ(code_of(1, 16000000), TOO_LONG);
    T_EQ(code_of(10, 17000), TOO_LONG);
}

/* ---- signatures with RSA, which the above has not ---- */

T_TEST(an_rsa_signature_is_of_these_bytes, 60) {
    static bear_identity id;
    static const char text[] = "what is signed", other[] = "what was signed";
    unsigned char hash[32], signature[256];
    br_sha256_context sha;
    pysock__cert cert;
    pysock__der tbs = bytes(text, sizeof text), forged = bytes(other, sizeof other);
    pysock__der sig = bytes(signature, sizeof signature);
    bear_read_pem("server-rsa", "pem", "CERTIFICATE", keep_leaf, NULL);
    bear_read_pem("server-rsa", "key", "PRIVATE KEY", bear_add_key, &id);
    T_EQ(pysock__cert_parse(&cert, leaf_der, leaf_size), 0);
    T_EQ(cert.key.key_type, BR_KEYTYPE_RSA);
    br_sha256_init(&sha);
    br_sha256_update(&sha, text, sizeof text);
    br_sha256_out(&sha, hash);
    T_CHECK(br_rsa_pkcs1_sign_get_default()(BR_HASH_OID_SHA256, hash, sizeof hash,
                                            br_skey_decoder_get_rsa(&id.key), signature));
    T_EQ(pysock__sig_algs[0].key_type, BR_KEYTYPE_RSA);
    T_EQ(pysock__signature_check(&pysock__sig_algs[0], &tbs, &sig, &cert.key, 2), 0);
    T_EQ(pysock__signature_check(&pysock__sig_algs[0], &forged, &sig, &cert.key, 2),
         PYSOCK__V_BAD_SIGNATURE);
    signature[100] ^= 1;
    T_EQ(pysock__signature_check(&pysock__sig_algs[0], &tbs, &sig, &cert.key, 2),
         PYSOCK__V_BAD_SIGNATURE);
}

/* ---- sockets ---- */

T_TEST(there_are_so_many_sockets_and_no_more, 60) {
    pysock *list[PYSOCK_MAX_SOCKETS], *pair[2];
    int fds;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < PYSOCK_MAX_SOCKETS; i++)
            list[i] = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
        fds = t_count_fds();
        T_FAILS(pysock_socket(AF_INET, SOCK_STREAM, 0), PYSOCK_OS_ERROR, EMFILE);
        T_CHECK(strstr(pysock_error_message(), "PYSOCK_MAX_SOCKETS") != NULL);
        T_FAILS(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair), PYSOCK_OS_ERROR, EMFILE);
        T_EQ(t_count_fds(), fds);
        T_OK(pysock_close(list[7]));
        list[7] = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
        T_FAILS(pysock_socket(AF_INET, SOCK_STREAM, 0), PYSOCK_OS_ERROR, EMFILE);
        for (int i = 0; i < PYSOCK_MAX_SOCKETS; i++)
            T_OK(pysock_close(list[i]));
    }
}

/* A handle is of one socket, whoever has its place now; and nothing else is one. */
T_TEST(an_old_handle_is_never_a_new_socket, 60) {
    pysock *old[PYSOCK_MAX_SOCKETS], *young[PYSOCK_MAX_SOCKETS];
    for (int i = 0; i < PYSOCK_MAX_SOCKETS; i++)
        old[i] = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    for (int i = 0; i < PYSOCK_MAX_SOCKETS; i++)
        T_OK(pysock_close(old[i]));
    for (int i = 0; i < PYSOCK_MAX_SOCKETS; i++)
        young[i] = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    for (int i = 0; i < PYSOCK_MAX_SOCKETS; i++) {
        T_FAILS(pysock_fileno(old[i]), PYSOCK_OS_ERROR, EBADF);
        T_OK(pysock_close(old[i]));
    }
    for (int i = 0; i < PYSOCK_MAX_SOCKETS; i++) {
        T_OK(pysock_fileno(young[i]));
        T_OK(pysock_close(young[i]));
    }
    T_FAILS(pysock_fileno((pysock *)(uintptr_t)1), PYSOCK_OS_ERROR, EBADF);
    T_FAILS(pysock_fileno((pysock *)UINTPTR_MAX), PYSOCK_OS_ERROR, EBADF);
    T_FAILS(pysock_fileno((pysock *)((uintptr_t)1 << PYSOCK__HALF)), PYSOCK_OS_ERROR, EBADF);
    T_FAILS(pysock_fileno((pysock *)&old), PYSOCK_OS_ERROR, EBADF);
}

T_MAIN(.teardown = f_remove_all)
