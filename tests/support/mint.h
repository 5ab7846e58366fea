/* Certificates made byte by byte: what the openssl command does not write. Keys are on P-256 and
   have numbers; BearSSL signs. And PEM of any shape. */
#ifndef TESTS_SUPPORT_MINT_H
#define TESTS_SUPPORT_MINT_H

#include "support/support.h"

#include <bearssl.h>

#include "support/process.h"

/* ---- DER, by value ---- */

typedef struct m_der {
    size_t size;
    unsigned char data[16384];
} m_der;

T_FUNC void m_add_bytes(m_der *to, const void *data, size_t size) {
    T_CHECK(to->size + size <= sizeof to->data);
    memcpy(to->data + to->size, data, size);
    to->size += size;
}

T_FUNC void m_add(m_der *to, m_der what) {
    m_add_bytes(to, what.data, what.size);
}

T_FUNC m_der m_bytes(const void *data, size_t size) {
    m_der d;
    d.size = 0;
    m_add_bytes(&d, data, size);
    return d;
}

T_FUNC void m_add_hex(m_der *to, const char *hex) {
    unsigned int byte;
    for (; hex[0] && hex[1]; hex += 2) {
        unsigned char c;
        T_EQ(sscanf(hex, "%2x", &byte), 1);
        c = (unsigned char)byte;
        m_add_bytes(to, &c, 1);
    }
}

T_FUNC m_der m_hex(const char *hex) {
    m_der d;
    d.size = 0;
    m_add_hex(&d, hex);
    return d;
}

T_FUNC m_der m_tlv(unsigned int tag, m_der inner) {
    unsigned char head[4] = {(unsigned char)tag, (unsigned char)inner.size, 0, 0};
    size_t n = 2;
    m_der d;
    if (inner.size >= 256) {
        head[1] = 0x82;
        head[2] = (unsigned char)(inner.size >> 8);
        head[3] = (unsigned char)inner.size;
        n = 4;
    } else if (inner.size >= 128) {
        head[1] = 0x81;
        head[2] = (unsigned char)inner.size;
        n = 3;
    }
    d.size = 0;
    m_add_bytes(&d, head, n);
    m_add(&d, inner);
    return d;
}

T_FUNC m_der m_string(unsigned int tag, const char *text) {
    return m_tlv(tag, m_bytes(text, strlen(text)));
}

/* The size of the element at p, with its header, and that of the header. */
T_FUNC size_t m_element(const unsigned char *p, size_t *header) {
    size_t n = p[1];
    *header = 2;
    if (n == 0x81 || n == 0x82) {
        *header = n - 0x7f + 1;
        n = n == 0x81 ? p[2] : (size_t)p[2] << 8 | p[3];
    }
    return *header + n;
}

/* A certificate's field by its number: 0 the version, 3 the issuer, 5 the subject, 6 the key. */
T_FUNC m_der m_field(const m_der *cert, int number) {
    const unsigned char *p = cert->data;
    size_t header, n;
    m_element(p, &header);
    p += header;
    m_element(p, &header);
    p += header;
    for (n = m_element(p, &header); number > 0; number--) {
        p += n;
        n = m_element(p, &header);
    }
    return m_bytes(p, n);
}

/* ---- PEM ---- */

T_FUNC void m_put(p_text *out, const char *text) {
    p_append(out, text, strlen(text));
}

/* In lines of so many columns; 0: in one. */
T_FUNC void m_put_base64(p_text *out, const void *data, size_t size, size_t width) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *p = data;
    size_t column = 0;
    for (size_t i = 0; i < size; i += 3) {
        unsigned long v = (unsigned long)p[i] << 16;
        char four[4];
        v |= i + 1 < size ? (unsigned long)p[i + 1] << 8 : 0;
        v |= i + 2 < size ? (unsigned long)p[i + 2] : 0;
        for (int k = 0; k < 4; k++)
            four[k] = digits[v >> (18 - 6 * k) & 63];
        if (i + 2 >= size)
            four[3] = '=';
        if (i + 1 >= size)
            four[2] = '=';
        for (int k = 0; k < 4; k++) {
            if (width && column == width) {
                m_put(out, "\n");
                column = 0;
            }
            p_append(out, &four[k], 1);
            column++;
        }
    }
    m_put(out, "\n");
}

T_FUNC void m_put_pem(p_text *out, const char *label, const void *data, size_t size) {
    m_put(out, p_format("-----BEGIN %s-----\n", label));
    m_put_base64(out, data, size, 64);
    m_put(out, p_format("-----END %s-----\n", label));
}

T_FUNC void m_put_certificate(p_text *out, const m_der *der) {
    m_put_pem(out, "CERTIFICATE", der->data, der->size);
}

/* The bytes of the object number (from 0 on) of a text that is as openssl writes it. */
T_FUNC m_der m_from_pem(const char *text, int number) {
    m_der d;
    const char *p = text;
    unsigned long v = 0;
    int bits = 0;
    d.size = 0;
    do {
        p = strstr(p, "-----BEGIN ");
        T_CHECK(p != NULL);
        p = strchr(p, '\n');
        T_CHECK(p != NULL);
    } while (number--);
    for (; *p && *p != '-' && *p != '='; p++) {
        unsigned long digit;
        if (*p >= 'A' && *p <= 'Z')
            digit = (unsigned long)(*p - 'A');
        else if (*p >= 'a' && *p <= 'z')
            digit = (unsigned long)(*p - 'a' + 26);
        else if (*p >= '0' && *p <= '9')
            digit = (unsigned long)(*p - '0' + 52);
        else if (*p == '+' || *p == '/')
            digit = *p == '+' ? 62 : 63;
        else
            continue;
        v = v << 6 | digit;
        bits += 6;
        if (bits >= 8) {
            unsigned char c = (unsigned char)(v >> (bits - 8));
            bits -= 8;
            m_add_bytes(&d, &c, 1);
        }
    }
    return d;
}

/* ---- keys ---- */

#define M_OID_P256 "06082a8648ce3d030107"

T_FUNC void m_scalar(int number, unsigned char scalar[32]) {
    memset(scalar, 0x20 + number, 32);
}

/* The public point, uncompressed. */
T_FUNC m_der m_point(int number) {
    unsigned char scalar[32], room[BR_EC_KBUF_PUB_MAX_SIZE];
    br_ec_private_key sk;
    br_ec_public_key pk;
    m_scalar(number, scalar);
    sk.curve = BR_EC_secp256r1;
    sk.x = scalar;
    sk.xlen = sizeof scalar;
    T_EQ(br_ec_compute_pub(br_ec_get_default(), &pk, room, &sk), 65);
    return m_bytes(pk.q, pk.qlen);
}

/* SubjectPublicKeyInfo: the algorithm in hexadecimal digits, and the contents of the bit string. */
T_FUNC m_der m_spki(const char *algorithm, m_der key) {
    m_der all = m_tlv(0x30, m_hex(algorithm)), bits = m_hex("00");
    m_add(&bits, key);
    m_add(&all, m_tlv(0x03, bits));
    return m_tlv(0x30, all);
}

#define M_ALGORITHM_P256 "06072a8648ce3d0201" M_OID_P256
#define M_ALGORITHM_RSA "06092a864886f70d0101010500"

/* An RSA key of so many bits whose modulus nobody has ever factored. */
T_FUNC m_der m_rsa_spki(size_t bits) {
    m_der n = m_hex("00"), key;
    unsigned char c = 0xd5;
    for (size_t i = 0; i < bits / 8; i++)
        m_add_bytes(&n, &c, 1);
    key = m_tlv(0x02, n);
    m_add_hex(&key, "0203010001");
    return m_spki(M_ALGORITHM_RSA, m_tlv(0x30, key));
}

/* In SEC1's form, as DER. */
T_FUNC m_der m_key_der(int number) {
    unsigned char scalar[32];
    m_der d = m_hex("020101");
    m_scalar(number, scalar);
    m_add(&d, m_tlv(0x04, m_bytes(scalar, sizeof scalar)));
    m_add_hex(&d, "a00a" M_OID_P256);
    return m_tlv(0x30, d);
}

/* ---- certificates ---- */

/* Extensions, in hexadecimal digits. */
#define M_CA "300f0603551d130101ff040530030101ff"
#define M_CA_USAGE "300e0603551d0f0101ff040403020106"
#define M_LEAF_USAGE "300e0603551d0f0101ff040403020780"
#define M_WWW "301b0603551d110414301282107777772e6578616d706c652e74657374" /* www.example.test */
#define M_SERVER "30130603551d25040c300a06082b06010505070301"
#define M_CLIENT "30130603551d25040c300a06082b06010505070302"
#define M_AUTHORITY M_CA M_CA_USAGE
#define M_LEAF M_LEAF_USAGE M_WWW M_SERVER

#define M_ECDSA_SHA256 "06082a8648ce3d040302"

typedef struct m_spec {                 /* what is 0 is as usual */
    const char *subject, *issuer;       /* common names; NULL issuer: the subject */
    const m_der *issuer_name;           /* instead of that: a whole Name */
    int key, signer;                    /* numbers of keys */
    const char *extensions;             /* M_...; NULL: no such field; "": an empty sequence */
    const m_der *extension;             /* one more */
    const m_der *spki;                  /* instead of the key's own */
    const char *serial;                 /* the contents of the INTEGER, in hexadecimal digits */
    const char *not_before, *not_after; /* UTCTime */
    const m_der *validity;              /* instead of both: a whole Validity */
    const char *version;   /* instead of version 3, with its tag, in hexadecimal digits */
    const char *algorithm; /* the contents of AlgorithmIdentifier; not ours: the signature
                              is noise */
    size_t noise;          /* of so many bytes */
} m_spec;

T_FUNC m_der m_name(const char *common_name) {
    m_der d = m_hex("0603550403");
    m_add(&d, m_string(0x0c, common_name));
    return m_tlv(0x30, m_tlv(0x31, m_tlv(0x30, d)));
}

T_FUNC m_der m_sign(const m_der *tbs, int signer) {
    unsigned char scalar[32], hash[32], room[80];
    br_sha256_context sha;
    br_ec_private_key sk;
    size_t n;
    m_scalar(signer, scalar);
    sk.curve = BR_EC_secp256r1;
    sk.x = scalar;
    sk.xlen = sizeof scalar;
    br_sha256_init(&sha);
    br_sha256_update(&sha, tbs->data, tbs->size);
    br_sha256_out(&sha, hash);
    n = br_ecdsa_sign_asn1_get_default()(br_ec_get_default(), &br_sha256_vtable, hash, &sk, room);
    T_CHECK(n > 0);
    return m_bytes(room, n);
}

T_FUNC m_der m_issue(const m_spec *s) {
    const char *algorithm = s->algorithm ? s->algorithm : M_ECDSA_SHA256;
    m_der tbs = m_hex(s->version ? s->version : "a003020102"), times, d, bits = m_hex("00");
    m_add(&tbs, m_tlv(0x02, m_hex(s->serial ? s->serial : "4001")));
    m_add(&tbs, m_tlv(0x30, m_hex(algorithm)));
    m_add(&tbs, s->issuer_name ? *s->issuer_name : m_name(s->issuer ? s->issuer : s->subject));
    times = m_string(0x17, s->not_before ? s->not_before : "200101000000Z");
    m_add(&times, m_string(0x17, s->not_after ? s->not_after : "491231235959Z"));
    m_add(&tbs, s->validity ? *s->validity : m_tlv(0x30, times));
    m_add(&tbs, m_name(s->subject));
    m_add(&tbs, s->spki ? *s->spki : m_spki(M_ALGORITHM_P256, m_point(s->key)));
    if (s->extensions) {
        d = m_hex(s->extensions);
        if (s->extension)
            m_add(&d, *s->extension);
        m_add(&tbs, m_tlv(0xa3, m_tlv(0x30, d)));
    }
    tbs = m_tlv(0x30, tbs);
    if (strcmp(algorithm, M_ECDSA_SHA256) == 0)
        m_add(&bits, m_sign(&tbs, s->signer));
    else
        for (size_t i = 0; i < (s->noise ? s->noise : 64); i++)
            m_add_hex(&bits, p_format("%02zx", i * 7 % 251));
    m_add(&tbs, m_tlv(0x30, m_hex(algorithm)));
    m_add(&tbs, m_tlv(0x03, bits));
    return m_tlv(0x30, tbs);
}

#endif
