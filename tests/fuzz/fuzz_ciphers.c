/* Arbitrary text in OpenSSL's cipher language. What it chooses must be suites of the table, each
   once, and the same when it is written with their names; more rules must change it as they say. */
#define PYSOCK_IMPLEMENTATION
#define PYSOCK_STATIC
#include "pysock.h"
#include "fuzz.h"

#define UNTOUCHED 77

typedef struct choice {
    ptrdiff_t count;
    int level;
    uint16_t *ids; /* in a block of just the room that the parser may use */
} choice;

static choice parse(const char *text)
{
    choice c;

    c.level = UNTOUCHED;
    c.ids = (uint16_t *)calloc(BR_MAX_CIPHER_SUITES, sizeof *c.ids);
    if (!c.ids)
        abort();
    c.count = pysock__ciphers_parse(text, c.ids, &c.level);
    FUZZ_CHECK(c.count >= -1 && c.count <= (ptrdiff_t)PYSOCK__COUNT(pysock__suites));
    FUZZ_CHECK(c.level == UNTOUCHED || (c.count > 0 && c.level >= 0 && c.level <= 3));
    return c;
}

static void check_ids(const choice *c)
{
    pysock_ssl_cipher_info info;
    const pysock__suite *suite;
    ptrdiff_t i, k;

    for (i = 0; i < c->count; i++) {
        suite = pysock__suite_find(c->ids[i]);
        FUZZ_CHECK(suite);
        pysock__suite_info(suite, &info);
        FUZZ_CHECK(info.id == c->ids[i] && info.symmetric && info.kea && info.auth);
        FUZZ_CHECK(info.aead == (info.digest == NULL));
        for (k = 0; k < i; k++)
            FUZZ_CHECK(c->ids[i] != c->ids[k]);
    }
}

/* The names of what was chosen, OpenSSL's and IANA's by turns. */
static void check_named_again(const choice *c)
{
    const pysock__suite *suite;
    char text[4096];
    size_t used = 0;
    choice again;
    ptrdiff_t i;

    text[0] = 0;
    for (i = 0; i < c->count; i++) {
        suite = pysock__suite_find(c->ids[i]);
        used += (size_t)snprintf(text + used, sizeof text - used,
                                 "%s:", i % 2 ? suite->name : suite->standard_name);
    }
    FUZZ_CHECK(used < sizeof text);
    again = parse(text);
    FUZZ_CHECK(again.count == c->count);
    FUZZ_CHECK(memcmp(again.ids, c->ids, (size_t)c->count * sizeof *c->ids) == 0);
    free(again.ids);
}

static choice parse_with(const char *text, const char *more)
{
    size_t n = strlen(text), extra = strlen(more);
    char *both = (char *)malloc(n + extra + 1);
    choice c;

    if (!both)
        abort();
    memcpy(both, text, n);
    memcpy(both + n, more, extra + 1);
    c = parse(both);
    free(both);
    return c;
}

static void check_more_rules(const char *text, const choice *c)
{
    choice none = parse_with(text, ":!ALL:ALL"), sorted = parse_with(text, ":@STRENGTH");
    ptrdiff_t i;

    FUZZ_CHECK(none.count == (c->count < 0 ? -1 : 0));
    FUZZ_CHECK(sorted.count == c->count && sorted.level == c->level);
    for (i = 1; i < sorted.count; i++)
        FUZZ_CHECK(pysock__suite_find(sorted.ids[i - 1])->bits
                   >= pysock__suite_find(sorted.ids[i])->bits);
    free(none.ids);
    free(sorted.ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_text(data, size);
    choice c = parse(text);

    check_ids(&c);
    if (c.count >= 0)
        check_named_again(&c);
    if (strncmp(text, "SUITEB", 6) != 0) /* what follows that is not read */
        check_more_rules(text, &c);
    free(c.ids);
    free(text);
    return 0;
}
