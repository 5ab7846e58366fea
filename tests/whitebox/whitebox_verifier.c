/* What the verifier is told to do by fields of its own, and what it leaves there: security levels,
   common names, the verified path, the store as it has grown. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#include "support/support.h"
#include "support/chains.h"
#include "support/files.h"
#include "support/process.h"
#include "support/shell.h"

#define WWW "www.example.test"

static int make_chains(void **state) {
    (void)state;
    return c_make_chains("revocation");
}

/* ---- a verifier that is shown chain-NAME.pem ---- */

static int show_one(void *arg, const pysock__object *object, pysock__file_fault *fault) {
    pysock__verifier *v = arg;
    (void)fault;
    if (!pysock__label_is_certificate(object->name))
        return 0;
    v->vtable->start_cert(&v->vtable, (uint32_t)object->der.len);
    v->vtable->append(&v->vtable, object->der.data, object->der.len);
    v->vtable->end_cert(&v->vtable);
    return 0;
}

static void show(pysock__verifier *v, const char *chain) {
    pysock__bytes text = {NULL, 0, 0, 0};
    pysock__file_fault fault;
    T_EQ(pysock__read_file(f_path(p_format("chain-%s.pem", chain)), &text), 0);
    v->vtable->start_chain(&v->vtable, NULL);
    T_EQ(pysock__file_each(&text, &fault, show_one, v), 0);
    pysock__bytes_free(&text);
    v->verify_code = 0;
    v->vtable->end_chain(&v->vtable);
}

/* file: the one anchor; NULL: none. */
static pysock__verifier *verifier_that_trusts(const char *file) {
    pysock__verifier *v = pysock__alloc(sizeof *v);
    T_CHECK(v);
    v->vtable = &pysock__verifier_class;
    v->rules.purpose = PYSOCK_SERVER_AUTH;
    v->rules.security_level = 2;
    v->rules.host = WWW;
    v->store = pysock__store_clone(NULL);
    T_CHECK(v->store);
    if (file)
        T_OK(pysock__store_load_file(v->store, f_path(p_format("%s.pem", file))));
    return v;
}

static int code_at_level(const char *chain, int level) {
    pysock__verifier *v = verifier_that_trusts("root");
    int code;
    v->rules.security_level = level;
    show(v, chain);
    code = v->verify_code;
    pysock__verifier_free(v);
    return code;
}

/* ---- security levels, names, paths, look-ups ---- */

enum { OK = 0, HOSTNAME = 62, LEAF_KEY = 66, CA_KEY = 67, WEAK_HASH = 68 };

T_TEST(the_security_level_says_which_keys_and_hashes_are_taken, 60) {
    static const struct {
        const char *chain;
        int code[4]; /* by level */
    } list[] = {
        {"good", {OK, OK, OK, OK}},
        {"sha1", {OK, WEAK_HASH, WEAK_HASH, WEAK_HASH}},
        {"rsa-sha1", {OK, WEAK_HASH, WEAK_HASH, CA_KEY}},
        {"rsa512", {OK, CA_KEY, CA_KEY, CA_KEY}},
        {"rsa1024", {OK, OK, CA_KEY, CA_KEY}},
        {"rsa2048", {OK, OK, OK, CA_KEY}},
        {"rsa3072", {OK, OK, OK, OK}},
        {"leaf-rsa1024", {OK, OK, LEAF_KEY, LEAF_KEY}},
    };
    P_NEED("openssl");
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++)
        for (int level = 0; level < 4; level++) {
            T_STEP("%s at level %d", list[i].chain, level);
            T_EQ(code_at_level(list[i].chain, level), list[i].code[level]);
        }
}

T_TEST(a_key_counts_by_its_bits, 60) {
    static unsigned char n[256];
    br_x509_pkey key;
    memset(&key, 0, sizeof key);
    key.key_type = BR_KEYTYPE_RSA;
    key.key.rsa.n = n;
    key.key.rsa.nlen = sizeof n;
    n[0] = 0x80;
    T_EQ(pysock__key_weak(&key, 2), 0);
    n[0] = 0x7f;
    T_EQ(pysock__key_weak(&key, 2), 1);
    T_EQ(pysock__key_weak(&key, 1), 0);
    n[0] = 1;
    key.key.rsa.nlen = 65; /* 513 bits */
    T_EQ(pysock__key_weak(&key, 0), 0);
    key.key.rsa.nlen = 64;
    T_EQ(pysock__key_weak(&key, 0), 1);
}

T_TEST(the_common_name_can_be_switched_off, 60) {
    P_NEED("openssl");
    for (int off = 0; off < 2; off++) {
        pysock__verifier *v = verifier_that_trusts("root");
        v->rules.no_common_name = off;
        show(v, "cn-only");
        T_EQ(v->verify_code, off ? HOSTNAME : OK);
        show(v, "good");
        T_EQ(v->verify_code, OK);
        pysock__verifier_free(v);
    }
}

T_TEST(the_verified_path_is_kept, 60) {
    P_NEED("openssl");
    pysock__verifier *v = verifier_that_trusts("root");
    pysock_buf *anchor;
    show(v, "long");
    T_EQ(v->verify_code, OK);
    T_EQ(v->path_count, 4);
    for (size_t i = 0; i < 3; i++) {
        T_CHECK(!v->path[i].anchor);
        T_EQ(v->path[i].sent, i);
    }
    anchor = v->path[3].anchor;
    T_CHECK(anchor == v->store->items[0]->der);
    pysock_buf_retain(anchor);
    v->rules.host = "other.test";
    show(v, "long");
    T_EQ(v->verify_code, HOSTNAME);
    T_EQ(v->path_count, 0);
    pysock__verifier_free(v);
    T_CHECK(pysock_buf_size(anchor) > 100); /* it outlives the store */
    T_EQ(anchor->refs, 1);
    pysock_buf_release(anchor);
}

T_TEST(what_is_looked_up_grows_a_copy, 60) {
    static p_process p;
    p_args args = {{NULL}, 0};
    P_NEED("openssl");
    pysock__verifier *v = verifier_that_trusts(NULL);
    pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    p_add(&args, "openssl", "rehash", f_path("many"), NULL);
    T_EQ(p_run(&p, &args), 0);
    T_OK(pysock__store_load_dir(v->store, f_path("many"), 0));
    show(v, "good");
    T_EQ(v->verify_code, OK);
    T_EQ(v->store->count, 0);
    T_CHECK(v->extended);
    T_EQ(v->extended->count, 2);
    T_CHECK(v->path[2].anchor == v->extended->items[0]->der ||
            v->path[2].anchor == v->extended->items[1]->der);
    T_EQ(v->store->refs, 1);

    /* The context got another store meanwhile: what it has stays. */
    T_OK(pysock_ssl_load_verify_locations(ctx, f_path("int.pem"), NULL));
    pysock__context_take_found(ctx, v);
    T_CHECK(!v->extended);
    T_EQ(pysock_ssl_ca_count(ctx), 3);
    T_EQ(ctx->store->dir_count, 1);
    T_EQ(ctx->store->dir_lookup_count, 1);
    T_EQ(v->store->refs, 1);
    T_EQ(ctx->store->refs, 1);
    pysock__verifier_free(v);

    /* Nothing is read again that the context has. */
    v = verifier_that_trusts(NULL);
    pysock__store_release(v->store);
    v->store = ctx->store;
    pysock__add(&v->store->refs, 1);
    show(v, "good");
    T_EQ(v->verify_code, OK);
    T_CHECK(!v->extended);
    pysock__verifier_free(v);
    pysock_ssl_context_release(ctx);
}

T_TEST(a_hash_is_that_of_openssl, 60) {
    static const char *const files[] = {"root",          "named/case",  "named/blanks",
                                        "named/umlaut",  "named/multi", "named/bmp",
                                        "named/teletex", "named/latin"};
    static p_process p;
    P_NEED("openssl");
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        p_args args = {{NULL}, 0};
        pysock__verifier *v = verifier_that_trusts(files[i]);
        uint32_t hash;
        char text[16];
        T_STEP("%s", files[i]);
        p_add(&args, "openssl", "x509", "-hash", "-noout", "-in",
              f_path(p_format("%s.pem", files[i])), NULL);
        T_EQ(p_run(&p, &args), 0);
        T_EQ(pysock__name_hash(v->store->items[0]->cert.subject, &hash), 0);
        snprintf(text, sizeof text, "%08lx\n", (unsigned long)hash);
        T_EQ(strcmp(text, p_string(&p.said)), 0);
        pysock__verifier_free(v);
    }
}

T_TEST(serial_numbers_are_the_same_if_their_values_are, 60) {
    static const struct {
        const char *a, *b;
        size_t a_size, b_size;
        int same;
    } list[] = {
        {"\x01", "\x01", 1, 1, 1},
        {"\x00\x01", "\x01", 2, 1, 1},
        {"\x00\x00\x80", "\x00\x80", 3, 2, 1},
        {"\x00\x80", "\x80", 2, 1, 0},
        {"\xff\x80", "\x80", 2, 1, 1},
        {"\x01\x00", "\x01", 2, 1, 0},
        {"\x00", "\x00\x00", 1, 2, 1},
        {"\xff", "\x00\xff", 1, 2, 0},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        pysock__der a, b;
        a.p = (const unsigned char *)list[i].a;
        a.end = a.p + list[i].a_size;
        b.p = (const unsigned char *)list[i].b;
        b.end = b.p + list[i].b_size;
        T_STEP("pair %zu", i);
        T_EQ(pysock__serial_same(a, b), list[i].same);
        T_EQ(pysock__serial_same(b, a), list[i].same);
    }
}

T_MAIN(.setup = make_chains, .teardown = p_clear_away)
