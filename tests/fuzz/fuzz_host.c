/* Host names: a host, and names of a certificate, some of them with wildcards. What matches must do
   so by the rules as told again here; the common name only where that is asked for and no name of
   a host is in the subjectAltName.

   The input: flags (1: there is a subjectAltName; 2: a trailing dot is put behind the host), then
   texts that each end at a line feed: the host, the common name, and the names of the
   subjectAltName, each behind a byte for its kind (see kinds). */
#define PYSOCK_IMPLEMENTATION
#define PYSOCK_STATIC
#include "pysock.h"
#include "fuzz.h"

static const uint8_t kinds[] = {0x82, 0x82, 0x82, 0x87, 0x87, 0x81, 0x86, 0x88};

/* ---- a certificate's names in DER ---- */

typedef struct bytes {
    uint8_t data[8192];
    size_t size;
} bytes;

static void put(bytes *b, const void *data, size_t size)
{
    FUZZ_CHECK(size <= sizeof b->data - b->size);
    if (size)
        memcpy(b->data + b->size, data, size);
    b->size += size;
}

static void put_element(bytes *b, int tag, const void *data, size_t size)
{
    uint8_t head[4];
    size_t n = 0;

    head[n++] = (uint8_t)tag;
    if (size >= 0x80)
        head[n++] = size > 0xff ? 0x82 : 0x81;
    if (size > 0xff)
        head[n++] = (uint8_t)(size >> 8);
    head[n++] = (uint8_t)size;
    put(b, head, n);
    put(b, data, size);
}

/* A Name's contents with that common name. */
static void put_common_name(bytes *b, const uint8_t *cn, size_t size)
{
    static const uint8_t oid[] = {0x06, 3, 0x55, 4, 3};
    bytes atv, seq, set;

    atv.size = seq.size = set.size = 0;
    put(&atv, oid, sizeof oid);
    put_element(&atv, 0x0c, cn, size);
    put_element(&seq, 0x30, atv.data, atv.size);
    put_element(b, 0x31, seq.data, seq.size);
}

/* ---- the rules, told again ---- */

static int same_text(const uint8_t *a, const char *b, size_t n)
{
    return strncasecmp((const char *)a, b, n) == 0;
}

/* A name of a certificate, for a host without a dot at its end: the same text, or "*." and all but
   the first label of a host, which has two labels more at least. */
static int meets(const uint8_t *name, size_t size, const char *host)
{
    const char *rest = strchr(host, '.');

    if (size && name[size - 1] == '.')
        size--;
    if (!size || !*host || memchr(name, 0, size))
        return 0;
    if (name[0] != '*')
        return size == strlen(host) && same_text(name, host, size);
    if (size < 2 || name[1] != '.' || memchr(name + 1, '*', size - 1)
        || !memchr(name + 2, '.', size - 2))
        return 0;
    return rest && rest > host && strlen(rest) == size - 1 && same_text(name + 1, rest, size - 1);
}

/* ---- one certificate and one host ---- */

typedef struct input {
    const uint8_t *at, *end;
} input;

/* The text up to the next line feed. */
static size_t next_text(input *in, const uint8_t **text)
{
    size_t left = (size_t)(in->end - in->at), n;
    const uint8_t *stop = left ? (const uint8_t *)memchr(in->at, '\n', left) : NULL;

    *text = in->at;
    n = stop ? (size_t)(stop - in->at) : left;
    in->at += stop ? n + 1 : n;
    return n;
}

/* Reads the alternative names into b; whether one of them is the host. *others: whether there is
   one of the kinds that hosts have. */
static int read_alt_names(input *in, bytes *b, const char *host, const uint8_t *ip, size_t iplen,
                          int *others)
{
    const uint8_t *text;
    int found = 0;

    *others = 0;
    while (in->at < in->end && b->size < 4000) {
        int kind = kinds[*in->at++ % sizeof kinds];
        size_t n = next_text(in, &text);
        if (n > 1000)
            n = 1000;
        put_element(b, kind, text, n);
        *others |= kind == 0x82 || kind == 0x87;
        if (kind == 0x82 && !iplen)
            found |= meets(text, n, host);
        if (kind == 0x87 && iplen)
            found |= n == iplen && memcmp(text, ip, n) == 0;
    }
    return found;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bytes alt, subject;
    pysock__cert cert;
    uint8_t ip[16];
    const uint8_t *text, *cn;
    uint8_t *alt_copy, *subject_copy;
    char *host, *asked;
    input in;
    size_t n, cn_size, iplen;
    int flags, want, others;

    if (!size)
        return 0;
    in.at = data + 1;
    in.end = data + size;
    flags = data[0];
    n = next_text(&in, &text);
    host = fuzz_text(text, n);
    n = strlen(host);
    asked = fuzz_text((uint8_t *)host, n + 1);
    if (flags & 2)
        asked[n] = '.';
    iplen = pysock__sys_pton(asked, ip);
    if (!(flags & 2) && n && host[n - 1] == '.')
        host[n - 1] = 0; /* a dot at the end means nothing */
    cn_size = next_text(&in, &cn);
    if (cn_size > 1000)
        cn_size = 1000;
    alt.size = subject.size = 0;
    put_common_name(&subject, cn, cn_size);
    want = read_alt_names(&in, &alt, host, ip, iplen, &others);
    if (!(flags & 1)) {
        alt.size = 0;
        want = others = 0;
    }
    alt_copy = fuzz_copy(alt.data, alt.size);
    subject_copy = fuzz_copy(subject.data, subject.size);
    memset(&cert, 0, sizeof cert);
    cert.san.p = alt_copy;
    cert.san.end = alt_copy + alt.size;
    cert.subject.p = subject_copy;
    cert.subject.end = subject_copy + subject.size;
    cert.seen = flags & 1 ? PYSOCK__EXT_SAN : 0;
    FUZZ_CHECK(pysock__cert_matches(&cert, asked, 1) == want);
    if (!others && !iplen)
        want = meets(cn, cn_size, host);
    FUZZ_CHECK(pysock__cert_matches(&cert, asked, 0) == want);
    free(alt_copy);
    free(subject_copy);
    free(host);
    free(asked);
    return 0;
}
