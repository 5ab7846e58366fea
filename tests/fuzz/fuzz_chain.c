/* Several certificates, some of them trusted, and a host name: the search for paths, and all that
   is judged on the way. The first byte has options (below); then come records of a kind, a length
   in two octets, and the contents: 'A' an anchor, 'C' a certificate that the peer sends, 'H' the
   host. A signature is hard to guess: with an option each is believed, which a malicious or
   constrained authority could have made. */
#define PYSOCK_IMPLEMENTATION
#define PYSOCK_STATIC
#include <bearssl.h>

static int believe; /* every signature */
static br_ecdsa_vrfy fuzz_ecdsa(void);

#define br_ecdsa_vrfy_asn1_get_default fuzz_ecdsa
#include "pysock.h"
#undef br_ecdsa_vrfy_asn1_get_default
#include "fuzz.h"

#include <time.h>

#define NOW 1790000000  /* in 2026 */
#define CPU_SECONDS 4.0 /* for all the judgements of one input, with the sanitizers' slowness */

enum {
    BELIEVE = 1,
    CLIENT = 2, /* its certificate is judged, not a server's */
    STRICT = 4,
    PARTIAL = 8,
    ANCHORS_TWICE = 16, /* the anchors are sent too */
    WEAK = 32,          /* security level 0 */
    NO_COMMON_NAME = 64
};

static uint32_t believe_ecdsa(const br_ec_impl *impl, const void *hash, size_t hash_len,
                              const br_ec_public_key *key, const void *signature, size_t len)
{
    if (believe)
        return 1;
    return br_ecdsa_vrfy_asn1_get_default()(impl, hash, hash_len, key, signature, len);
}

static br_ecdsa_vrfy fuzz_ecdsa(void)
{
    return believe_ecdsa;
}

static void send_certificate(pysock__verifier *v, const uint8_t *data, size_t size)
{
    const br_x509_class **x = &v->vtable;

    v->vtable->start_cert(x, (uint32_t)size);
    v->vtable->append(x, data, size);
    v->vtable->end_cert(x);
}

typedef struct input {
    pysock__store *store;
    pysock__verifier *verifier;
    char *host;
} input;

static void read_records(input *in, const uint8_t *data, size_t size, int options)
{
    const char *problem;
    uint8_t *part;
    size_t n;

    while (size >= 3) {
        n = (size_t)data[1] << 8 | data[2];
        n = n < size - 3 ? n : size - 3;
        part = fuzz_copy(data + 3, n);
        if (data[0] == 'A')
            pysock__store_add_der(in->store, part, n, 0, &problem);
        if (data[0] == 'C' || (data[0] == 'A' && options & ANCHORS_TWICE))
            send_certificate(in->verifier, part, n);
        if (data[0] == 'H') {
            free(in->host);
            in->host = fuzz_text(part, n);
        }
        free(part);
        data += 3 + n;
        size -= 3 + n;
    }
}

static int judge(const input *in, const pysock__cert *chain, int options)
{
    pysock__verify_rules rules;
    pysock__path path;

    rules.purpose = options & CLIENT ? PYSOCK_CLIENT_AUTH : PYSOCK_SERVER_AUTH;
    rules.flags = (options & STRICT ? PYSOCK_VERIFY_X509_STRICT : 0)
                  | (options & PARTIAL ? PYSOCK_VERIFY_X509_PARTIAL_CHAIN : 0);
    rules.security_level = options & WEAK ? 0 : 2;
    rules.no_common_name = options & NO_COMMON_NAME;
    rules.host = in->host;
    rules.now = NOW;
    return pysock__chain_check(&path, in->store, chain, in->verifier->count, &rules);
}

static void try_chain(const input *in, int options)
{
    pysock__cert *chain = (pysock__cert *)calloc(in->verifier->count, sizeof *chain);
    clock_t start = clock();
    int code;

    FUZZ_CHECK(chain);
    if (pysock__verifier_parse(in->verifier, chain) == 0) {
        code = judge(in, chain, options);
        FUZZ_CHECK(code >= 0 && *pysock__verify_sentence(code));
        FUZZ_CHECK(code == judge(in, chain, options));
        FUZZ_CHECK(!code == !pysock__verify_error(code));
        if (!code) {
            FUZZ_CHECK(in->store->count);
            FUZZ_CHECK(!in->host
                       || pysock__cert_matches(&chain[0], in->host, options & NO_COMMON_NAME));
            FUZZ_CHECK(!chain[0].unknown_critical && chain[0].key.key_type);
            FUZZ_CHECK(NOW >= chain[0].not_before && NOW <= chain[0].not_after);
            /* Who passes the stricter test passes the other. */
            FUZZ_CHECK(!judge(in, chain, options & ~STRICT));
            FUZZ_CHECK(!judge(in, chain, options | PARTIAL));
            FUZZ_CHECK(!judge(in, chain, options & ~NO_COMMON_NAME));
            FUZZ_CHECK(!judge(in, chain, options | WEAK));
        }
    }
    FUZZ_CHECK((double)(clock() - start) / CLOCKS_PER_SEC < CPU_SECONDS);
    free(chain);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input in = {NULL, NULL, NULL};

    if (!size)
        return 0;
    in.store = pysock__store_clone(NULL);
    in.verifier = (pysock__verifier *)pysock__alloc(sizeof *in.verifier);
    FUZZ_CHECK(in.store && in.verifier);
    in.verifier->vtable = &pysock__verifier_class;
    in.verifier->vtable->start_chain(&in.verifier->vtable, NULL);
    believe = data[0] & BELIEVE;
    read_records(&in, data + 1, size - 1, data[0]);
    /* An empty leaf is refused before the chain is parsed. */
    if (in.verifier->count && in.verifier->ends[0] && !in.verifier->too_long)
        try_chain(&in, data[0]);
    pysock__verifier_free(in.verifier);
    pysock__store_release(in.store);
    free(in.host);
    return 0;
}
