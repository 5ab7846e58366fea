/* Arbitrary bytes as a DER certificate, and as a pattern and a host name. What is found must lie
   inside the input, and a name that matches must do so by the rules as told again here. */
#define PYSOCK_IMPLEMENTATION
#define PYSOCK_STATIC
#include "pysock.h"
#include "fuzz.h"

/* clang-format off */
static const char *const hosts[] = {
    "localhost", "a.example.org", "example.org", "x.", ".", "..", "", "*", "*.example.org",
    "xn--bcher-kva.example", "127.0.0.1", "::1", "fe80::1", "1", "www.example.com.", "a.b.c.d.e",
};
/* clang-format on */

static void check_inside(const pysock__der *part, const uint8_t *data, size_t size)
{
    FUZZ_CHECK(!part->p == !part->end);
    FUZZ_CHECK(!part->p || (part->p >= data && part->p <= part->end && part->end <= data + size));
}

static void check_key(const pysock__cert *cert, const uint8_t *data, size_t size)
{
    pysock__der part;

    if (cert->key.key_type == BR_KEYTYPE_EC) {
        part.p = cert->key.key.ec.q;
        part.end = part.p + cert->key.key.ec.qlen;
        check_inside(&part, data, size);
    } else if (cert->key.key_type == BR_KEYTYPE_RSA) {
        part.p = cert->key.key.rsa.n;
        part.end = part.p + cert->key.key.rsa.nlen;
        check_inside(&part, data, size);
        FUZZ_CHECK(part.p < part.end && part.p[0]);
        part.p = cert->key.key.rsa.e;
        part.end = part.p + cert->key.key.rsa.elen;
        check_inside(&part, data, size);
        FUZZ_CHECK(part.p < part.end && part.p[0]);
    } else {
        FUZZ_CHECK(!cert->key.key_type);
    }
    FUZZ_CHECK(!cert->key.key_type || pysock__key_same(&cert->key, &cert->key));
}

/* The name's constraints on itself, and the key's signature of itself. */
static void try_as_its_own_issuer(const pysock__cert *cert)
{
    int budget = 1000, code;

    code = pysock__constraints_check(cert, cert, 1, &budget);
    FUZZ_CHECK(code >= 0 && *pysock__verify_sentence(code));
    FUZZ_CHECK(cert->permitted.p || cert->excluded.p || !code || code == PYSOCK__V_NAME_SYNTAX);
    if (cert->key.key_type && !pysock__key_weak(&cert->key, 0))
        FUZZ_CHECK(
            pysock__signature_check(cert->sig_alg, &cert->tbs, &cert->signature, &cert->key, 0)
            >= 0);
}

static void try_certificate(const uint8_t *data, size_t size)
{
    pysock__cert cert;
    const pysock__der *const parts[] = {
        &cert.all,      &cert.tbs,       &cert.issuer, &cert.subject, &cert.subject_tlv,
        &cert.serial,   &cert.signature, &cert.san,    &cert.eku,     &cert.permitted,
        &cert.excluded, &cert.ski,       &cert.aki,
    };
    uint32_t hash;
    size_t i;

    if (pysock__cert_parse(&cert, data, size) < 0)
        return;
    for (i = 0; i < sizeof parts / sizeof parts[0]; i++)
        check_inside(parts[i], data, size);
    check_key(&cert, data, size);
    FUZZ_CHECK(cert.all.p == data && cert.all.end == data + size);
    FUZZ_CHECK(cert.issuer.p && cert.subject.p && cert.tbs.p && cert.serial.p && cert.signature.p);
    FUZZ_CHECK(!(cert.critical & ~cert.seen));
    FUZZ_CHECK(cert.version >= 1 && cert.version <= 3 && cert.pathlen >= -1);
    FUZZ_CHECK(cert.version == 3 || !cert.seen);
    FUZZ_CHECK(!cert.san.p == !(cert.seen & PYSOCK__EXT_SAN));
    FUZZ_CHECK(!cert.eku.p == !(cert.seen & PYSOCK__EXT_EKU));
    FUZZ_CHECK((!cert.permitted.p && !cert.excluded.p) == !(cert.seen & PYSOCK__EXT_NAMES));
    FUZZ_CHECK(!cert.is_ca || cert.seen & PYSOCK__EXT_BASIC);
    FUZZ_CHECK(pysock__cert_self_issued(&cert) == pysock__name_same(&cert.subject, &cert.issuer));
    try_as_its_own_issuer(&cert);
    FUZZ_CHECK(pysock__name_hash(cert.subject, &hash) != -ENOMEM);
    FUZZ_CHECK(pysock__name_hash(cert.issuer, &hash) != -ENOMEM);
    FUZZ_CHECK(pysock__cert_is_ca(&cert) >= 0);
    pysock__cert_allows(&cert, PYSOCK_SERVER_AUTH);
    pysock__cert_allows(&cert, PYSOCK_CLIENT_AUTH);
    for (i = 0; i < sizeof hosts / sizeof hosts[0]; i++)
        FUZZ_CHECK(pysock__cert_matches(&cert, hosts[i], 0)
                   || !pysock__cert_matches(&cert, hosts[i], 1));
}

/* What BearSSL reads of it, and what it is as a trust anchor. */
static void try_anchor(const uint8_t *data, size_t size)
{
    pysock__store *store = pysock__store_clone(NULL);
    const char *problem;

    FUZZ_CHECK(store);
    if (pysock__store_add_der(store, data, size, 0, &problem) == 0)
        FUZZ_CHECK(store->count == 1);
    pysock__store_release(store);
}

static int same_text(const char *a, const char *b, size_t n)
{
    return strncasecmp(a, b, n) == 0;
}

/* The first byte is the pattern's length, then the pattern, then the host. */
static void try_names(const uint8_t *data, size_t size)
{
    size_t plen, hlen;
    uint8_t *pattern;
    const char *dot;
    char *host;
    int match;

    if (!size)
        return;
    plen = data[0] < size ? data[0] : size - 1;
    pattern = fuzz_copy(data + 1, plen);
    host = fuzz_text(data + 1 + plen, size - 1 - plen);
    hlen = strlen(host);
    match = pysock__dns_match(pattern, plen, host, hlen);
    if (plen && pattern[plen - 1] == '.')
        plen--;
    if (match && pattern[0] != '*')
        FUZZ_CHECK(plen == hlen && same_text((char *)pattern, host, hlen));
    if (match && pattern[0] == '*') {
        dot = strchr(host, '.');
        FUZZ_CHECK(plen >= 3 && pattern[1] == '.' && dot && dot > host);
        FUZZ_CHECK(strlen(dot) == plen - 1 && same_text((char *)pattern + 1, dot, plen - 1));
        FUZZ_CHECK(strchr(dot + 1, '.'));
    }
    if (!match && plen && hlen && plen == hlen && pattern[0] != '*' && !memchr(pattern, 0, plen))
        FUZZ_CHECK(!same_text((char *)pattern, host, hlen));
    free(pattern);
    free(host);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = fuzz_copy(data, size);

    try_certificate(copy, size);
    try_anchor(copy, size);
    try_names(copy, size);
    free(copy);
    return 0;
}
