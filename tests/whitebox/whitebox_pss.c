/* RSASSA-PSS (RFC 8017): encodings that are made here, right and nearly right ones, and signatures
   that openssl makes with keys of all sizes. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#include "support/support.h"
#include "support/files.h"
#include "support/process.h"
#include "support/shell.h"

/* What may be wrong with an encoding. */
typedef struct fault {
    const char *what;
    size_t salt;           /* instead of the hash's size, if not 0 */
    unsigned char trailer; /* instead of 0xbc, if not 0 */
    unsigned char pad;     /* instead of 0x01, if not 0 */
    int filler;            /* a byte before that is not 0 */
    int top;               /* a bit above the encoding's is set */
    int digest;            /* a bit of the digest is another */
} fault;

/* EMSA-PSS-ENCODE (9.1.1) with a salt of bytes 7. */
static void encode(unsigned char *em, size_t bits, const br_hash_class *hash,
                   const unsigned char *digest, const fault *f) {
    size_t size = (bits + 7) / 8, hash_size = pysock__hash_size(hash);
    size_t salt_size = f->salt ? f->salt : hash_size, db = size - hash_size - 1;
    static const unsigned char zeros[8];
    unsigned char salt[128];
    br_hash_compat_context hc;
    T_CHECK(salt_size < sizeof salt && salt_size + 1 <= db);
    memset(salt, 7, sizeof salt);
    memset(em, 0, size);
    hash->init(&hc.vtable);
    hash->update(&hc.vtable, zeros, 8);
    hash->update(&hc.vtable, digest, hash_size);
    hash->update(&hc.vtable, salt, salt_size);
    hash->out(&hc.vtable, em + db);
    em[db - salt_size - 1] = f->pad ? f->pad : 1;
    if (f->filler)
        em[db - salt_size - 2] = 1;
    memcpy(em + db - salt_size, salt, salt_size);
    pysock__mgf1_xor(hash, em + db, hash_size, em, db);
    em[0] &= (unsigned char)(0xff >> (8 * size - bits));
    if (f->top)
        em[0] |= 0x80;
    em[size - 1] = f->trailer ? f->trailer : 0xbc;
}

T_TEST(only_the_right_encoding_is_accepted, 60) {
    static const br_hash_class *const hashes[] = {&br_sha256_vtable, &br_sha384_vtable,
                                                  &br_sha512_vtable};
    static const size_t bits[] = {1039, 1047, 2047, 2048, 2055, 4095};
    static const fault faults[] = {{.what = "right"},
                                   {.what = "shorter salt", .salt = 20},
                                   {.what = "longer salt", .salt = 65},
                                   {.what = "trailer", .trailer = 0xcc},
                                   {.what = "pad", .pad = 2},
                                   {.what = "filler", .filler = 1},
                                   {.what = "top bit", .top = 1},
                                   {.what = "digest", .digest = 1}};
    unsigned char em[512], digest[64];
    for (size_t h = 0; h < 3; h++)
        for (size_t b = 0; b < sizeof bits / sizeof *bits; b++)
            for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
                size_t size = (bits[b] + 7) / 8, hash_size = pysock__hash_size(hashes[h]);
                size_t salt_size = faults[i].salt ? faults[i].salt : hash_size;
                if (size < hash_size + salt_size + 2 + (size_t)faults[i].filler ||
                    (faults[i].top && bits[b] % 8 == 0))
                    continue; /* there is no room for it */
                T_STEP("%s, hash of %zu bytes, %zu bits", faults[i].what, hash_size, bits[b]);
                memset(digest, 5, sizeof digest);
                encode(em, bits[b], hashes[h], digest, &faults[i]);
                digest[0] ^= (unsigned char)faults[i].digest;
                T_EQ(pysock__pss_encodes(hashes[h], digest, em, bits[b]), i == 0);
            }
}

T_TEST(an_encoding_needs_room_for_hash_and_salt, 30) {
    static const fault none = {.what = "right"};
    unsigned char em[66], digest[32] = {0};
    encode(em, 66 * 8 - 1, &br_sha256_vtable, digest, &none);
    T_EQ(pysock__pss_encodes(&br_sha256_vtable, digest, em, 66 * 8 - 1), 1);
    T_EQ(pysock__pss_encodes(&br_sha256_vtable, digest, em, 65 * 8 - 1), 0);
    T_EQ(pysock__pss_encodes(&br_sha512_vtable, digest, em, 66 * 8 - 1), 0);
}

/* openssl's signature of "text" by key, and the key itself from a certificate. */
T_TEST_WITH(openssls_signatures_are_verified, 300, NULL, p_clear_away) {
    static const int sizes[] = {1024, 1025, 2048, 2049, 2055, 3072, 4096};
    static const struct {
        const char *name;
        const br_hash_class *hash;
    } hashes[] = {{"sha256", &br_sha256_vtable},
                  {"sha384", &br_sha384_vtable},
                  {"sha512", &br_sha512_vtable}};
    P_NEED("openssl");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        pysock__cert cert;
        size_t der_size;
        char *der;
        f_run(p_format("openssl req -x509 -newkey rsa:%d -nodes -keyout key -subj /CN=x -days 9 "
                       "-sha256 -outform der -out der; printf text >text",
                       sizes[i]));
        der = f_read(f_path("der"), &der_size);
        T_EQ(pysock__cert_parse(&cert, (const unsigned char *)der, der_size), 0);
        for (size_t h = 0; h < 3; h++) {
            br_hash_compat_context hc;
            unsigned char digest[64];
            size_t size;
            char *sig;
            if (sizes[i] < 1030 && h == 2)
                continue; /* 130 bytes are needed */
            T_STEP("%d bits, %s", sizes[i], hashes[h].name);
            f_run(p_format("openssl dgst -%s -sign key -sigopt rsa_padding_mode:pss "
                           "-sigopt rsa_pss_saltlen:digest -out sig text",
                           hashes[h].name));
            sig = f_read(f_path("sig"), &size);
            hashes[h].hash->init(&hc.vtable);
            hashes[h].hash->update(&hc.vtable, "text", 4);
            hashes[h].hash->out(&hc.vtable, digest);
#define VERIFIES(n)                                                                                \
    pysock__pss_verify(&cert.key.key.rsa, hashes[h].hash, digest, (const unsigned char *)sig, n)
            T_EQ(VERIFIES(size), 1);
            T_EQ(VERIFIES(size - 1), 0);
            digest[3] ^= 4;
            T_EQ(VERIFIES(size), 0);
            digest[3] ^= 4;
            for (size_t at = 0; at < size; at += size / 7) {
                sig[at] ^= 1;
                T_EQ(VERIFIES(size), 0);
                sig[at] ^= 1;
            }
#undef VERIFIES
            free(sig);
        }
        free(der);
    }
}

T_MAIN()
