/* Revocation lists, alone and in a store that judges a chain by them. The first byte has options
   (below); then come records of a kind, a length in two octets, and the contents: 'A' an anchor,
   'C' a certificate that the peer sends, 'R' a list, 'N' a distinguished name to be hashed, as
   those of anchors are. A signature is hard to guess: with an option each is believed. */
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

enum { BELIEVE = 1, PARTIAL = 2, WEAK = 4 };

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

static void check_inside(const pysock__der *part, const uint8_t *data, size_t size)
{
    FUZZ_CHECK(!part->p == !part->end);
    FUZZ_CHECK(!part->p || (part->p >= data && part->p <= part->end && part->end <= data + size));
}

/* Every entry is found, and nothing behind the last. */
static void check_entries(const pysock__crl *crl)
{
    pysock__der list = crl->revoked, entry, serial;
    int tried = 0;

    while (list.p < list.end) {
        FUZZ_CHECK(pysock__der_expect(&list, 0x30, &entry) == 0);
        FUZZ_CHECK(pysock__der_expect(&entry, 0x02, &serial) == 0);
        FUZZ_CHECK(pysock__serial_same(serial, serial));
        if (tried++ < 8)
            FUZZ_CHECK(pysock__crl_lists(crl, &serial));
    }
    if (!tried) {
        entry.p = crl->all.p;
        entry.end = crl->all.p + 1;
        FUZZ_CHECK(!pysock__crl_lists(crl, &entry));
    }
}

static void try_list(pysock__store *store, const uint8_t *data, size_t size)
{
    pysock__crl crl;
    size_t before = store->crl_count;
    int good = pysock__crl_parse(&crl, data, size) == 0;

    FUZZ_CHECK((pysock__store_add_crl(store, data, size) == 0) == good);
    FUZZ_CHECK(store->crl_count >= before && store->crl_count <= before + (good ? 1 : 0));
    if (!good)
        return;
    FUZZ_CHECK(crl.all.p == data && crl.all.end == data + size);
    FUZZ_CHECK(crl.tbs.p && crl.issuer.p && crl.signature.p);
    check_inside(&crl.tbs, data, size);
    check_inside(&crl.issuer, data, size);
    check_inside(&crl.revoked, data, size);
    check_inside(&crl.signature, data, size);
    check_inside(&crl.aki, data, size);
    check_entries(&crl);
    before = store->crl_count;
    FUZZ_CHECK(pysock__store_add_crl(store, data, size) == 0 && store->crl_count == before);
}

static void try_name(pysock__der name)
{
    uint32_t hash = 0, again = 0;
    int result;

    result = pysock__name_hash(name, &hash);
    FUZZ_CHECK(result == 0 || result == -EBADMSG);
    FUZZ_CHECK(pysock__name_hash(name, &again) == result && hash == again);
}

static void send_certificate(pysock__verifier *v, const uint8_t *data, size_t size)
{
    const br_x509_class **x = &v->vtable;

    v->vtable->start_cert(x, (uint32_t)size);
    v->vtable->append(x, data, size);
    v->vtable->end_cert(x);
}

static void read_records(pysock__store *store, pysock__verifier *v, const uint8_t *data,
                         size_t size)
{
    const char *problem;
    pysock__der name;
    uint8_t *part;
    size_t n, i;

    while (size >= 3) {
        n = (size_t)data[1] << 8 | data[2];
        n = n < size - 3 ? n : size - 3;
        part = fuzz_copy(data + 3, n);
        name.p = part;
        name.end = part + n;
        switch (data[0]) {
        case 'A': pysock__store_add_der(store, part, n, 0, &problem); break;
        case 'C': send_certificate(v, part, n); break;
        case 'R': try_list(store, part, n); break;
        case 'N': try_name(name); break;
        default: break;
        }
        free(part);
        data += 3 + n;
        size -= 3 + n;
    }
    for (i = 0; i < store->count; i++)
        try_name(store->items[i]->cert.subject);
}

static int judge(const pysock__store *store, const pysock__verifier *v, const pysock__cert *chain,
                 int options, unsigned flags)
{
    pysock__verify_rules rules;
    pysock__path path;
    int code;

    memset(&rules, 0, sizeof rules);
    rules.purpose = PYSOCK_SERVER_AUTH;
    rules.flags = flags | (options & PARTIAL ? PYSOCK_VERIFY_X509_PARTIAL_CHAIN : 0);
    rules.security_level = options & WEAK ? 0 : 2;
    rules.now = NOW;
    code = pysock__chain_check(&path, store, chain, v->count, &rules);
    FUZZ_CHECK(code >= 0 && *pysock__verify_sentence(code));
    FUZZ_CHECK(!code == !pysock__verify_error(code));
    FUZZ_CHECK(!path.extended && path.depth <= PYSOCK__PATH_MAX);
    return code;
}

/* 1 if a list in the store says that this certificate is good, going by the names and the dates. */
static int is_covered(const pysock__store *store, const pysock__cert *cert)
{
    const pysock__crl *crl;
    size_t i;

    for (i = 0; i < store->crl_count; i++) {
        crl = &store->crls[i]->crl;
        if (pysock__name_same(&crl->issuer, &cert->issuer) && crl->this_update <= NOW
            && crl->next_update >= NOW && !crl->unknown_critical && !crl->is_delta
            && !crl->is_indirect && !crl->is_partial && !pysock__crl_lists(crl, &cert->serial))
            return 1;
    }
    return 0;
}

static void try_chain(const pysock__store *store, pysock__verifier *v, int options)
{
    const unsigned leaf = PYSOCK_VERIFY_CRL_CHECK_LEAF, all = PYSOCK_VERIFY_CRL_CHECK_CHAIN;
    pysock__cert *chain = (pysock__cert *)calloc(v->count, sizeof *chain);
    clock_t start = clock();
    int code;

    FUZZ_CHECK(chain);
    if (pysock__verifier_parse(v, chain) == 0) {
        code = judge(store, v, chain, options, leaf);
        FUZZ_CHECK(code == judge(store, v, chain, options, leaf));
        if (!code) {
            FUZZ_CHECK(!judge(store, v, chain, options, 0));
            FUZZ_CHECK(pysock__cert_self_issued(&chain[0]) || is_covered(store, &chain[0]));
        }
        if (!judge(store, v, chain, options, all))
            FUZZ_CHECK(!code);
    }
    FUZZ_CHECK((double)(clock() - start) / CLOCKS_PER_SEC < CPU_SECONDS);
    free(chain);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pysock__store *store, *copy;
    pysock__verifier *v;

    if (!size)
        return 0;
    store = pysock__store_clone(NULL);
    v = (pysock__verifier *)pysock__alloc(sizeof *v);
    FUZZ_CHECK(store && v);
    v->vtable = &pysock__verifier_class;
    v->vtable->start_chain(&v->vtable, NULL);
    believe = data[0] & BELIEVE;
    read_records(store, v, data + 1, size - 1);
    copy = pysock__store_clone(store);
    FUZZ_CHECK(copy && copy->count == store->count && copy->crl_count == store->crl_count);
    FUZZ_CHECK(pysock__store_merge(copy, store) == 0 && copy->count == store->count
               && copy->crl_count == store->crl_count);
    pysock__store_release(store);
    /* An empty leaf is refused before the chain is parsed. */
    if (v->count && v->ends[0] && !v->too_long)
        try_chain(copy, v, data[0]);
    pysock__verifier_free(v);
    pysock__store_release(copy);
    return 0;
}
