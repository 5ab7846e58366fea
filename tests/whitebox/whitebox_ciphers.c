/* The table of cipher suites and OpenSSL's cipher language, measured against openssl and Python:
   their choice among the suites that both sides have is ours, in the same order. That needs the
   parser itself, and a processor that has AES or has not, as the test says. */
#define br_aes_x86ni_ctr_get_vtable fake_x86ni_ctr_get_vtable
#define br_aes_pwr8_ctr_get_vtable fake_pwr8_ctr_get_vtable
#define PYSOCK_IMPLEMENTATION
#include "support/support.h"
#include "support/files.h"
#include "support/process.h"
#include "support/shell.h"

static int has_fast_aes = 1;

const br_block_ctr_class *fake_x86ni_ctr_get_vtable(void) {
    return has_fast_aes ? &br_aes_ct_ctr_vtable : NULL;
}

const br_block_ctr_class *fake_pwr8_ctr_get_vtable(void) {
    return NULL;
}

#define SUITES PYSOCK__COUNT(pysock__suites)

/* The ids that somebody has chosen, or why there are none: 0 or -1, as the parser says it. */
typedef struct choice {
    ptrdiff_t count;
    uint16_t ids[BR_MAX_CIPHER_SUITES];
} choice;

static choice ours(const char *text) {
    choice c;
    char *copy = strdup(text); /* so that a read behind it is seen */
    int level = -1;
    T_CHECK(copy);
    memset(&c, 0, sizeof c);
    c.count = pysock__ciphers_parse(copy, c.ids, &level);
    free(copy);
    T_CHECK(c.count >= -1 && c.count <= (ptrdiff_t)SUITES);
    return c;
}

static int has(const choice *c, uint16_t id) {
    for (ptrdiff_t i = 0; i < c->count; i++)
        if (c->ids[i] == id)
            return 1;
    return 0;
}

static const pysock__suite *named(const char *name) {
    for (size_t i = 0; i < SUITES; i++)
        if (strcmp(pysock__suites[i].name, name) == 0)
            return &pysock__suites[i];
    T_FAIL("no suite is named %s", name);
}

/* The names, with colons between; good until sixteen more were made. */
static const char *names_of(const choice *c) {
    static char texts[16][2048];
    static size_t next;
    char *text = texts[next++ % 16];
    size_t used = 0;
    text[0] = 0;
    for (ptrdiff_t i = 0; i < c->count; i++)
        used += (size_t)snprintf(text + used, sizeof texts[0] - used, "%s%s", i ? ":" : "",
                                 pysock__suite_find(c->ids[i])->name);
    return text;
}

static void chooses(const char *text, const char *want) {
    choice c = ours(text);
    if (strcmp(names_of(&c), want) != 0)
        T_FAIL("'%s' chooses '%s', not '%s'", text, names_of(&c), want);
}

static choice without(const choice *all, uint32_t traits) {
    choice c;
    memset(&c, 0, sizeof c);
    for (ptrdiff_t i = 0; i < all->count; i++)
        if (!(pysock__suite_find(all->ids[i])->traits & traits))
            c.ids[c.count++] = all->ids[i];
    return c;
}

/* ---- what openssl says ---- */

typedef struct row { /* of openssl ciphers -V -stdname */
    uint16_t id;
    char standard_name[64], name[64], protocol[16], kx[16], au[16], enc[32], mac[16];
    int bits;
} row;

static int read_row(const char *line, row *r) {
    unsigned int high, low;
    int n = sscanf(line, " 0x%2X,0x%2X - %63s - %63s %15s Kx=%15s Au=%15s Enc=%31[^(](%d) Mac=%15s",
                   &high, &low, r->standard_name, r->name, r->protocol, r->kx, r->au, r->enc,
                   &r->bits, r->mac);
    r->id = (uint16_t)(high << 8 | low);
    return n == 10;
}

/* Up to max rows of the suites that this string chooses in openssl, all of them, not only ours; 0
   or -1 as the parser has it. Suites of TLS 1.3 are not chosen by strings. */
static ptrdiff_t openssl_rows(const char *text, row *rows, size_t max) {
    static p_process p;
    p_args args = {{NULL}, 0};
    ptrdiff_t n = 0;
    char *line, *rest;
    p_add(&args, "openssl", "ciphers", "-V", "-stdname", "--", text, NULL);
    if (p_run(&p, &args) != 0) {
        if (strstr(p_string(&p.complained), "no cipher match"))
            return 0;
        if (strstr(p_string(&p.complained), "invalid command"))
            return -1;
        P_FAIL(&p, "openssl ciphers '%s' failed", text);
    }
    for (line = strtok_r(p.said.data, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        T_CHECK((size_t)n < max);
        if (read_row(line, &rows[n]) && strcmp(rows[n].protocol, "TLSv1.3") != 0)
            n++;
    }
    return n;
}

/* What openssl and this library both have; 3DES, which a special build of openssl may have, is
   chosen by other rules here. */
static const choice *common(void) {
    static choice both;
    static row rows[512];
    ptrdiff_t n;
    if (both.count)
        return &both;
    n = openssl_rows("ALL:COMPLEMENTOFALL:@SECLEVEL=0", rows, 512);
    for (ptrdiff_t i = 0; i < n; i++) {
        const pysock__suite *suite = pysock__suite_find(rows[i].id);
        if (suite && !(suite->traits & (PYSOCK__ENC_3DES | PYSOCK__KX_ECDH)))
            both.ids[both.count++] = rows[i].id;
    }
    T_CHECK(both.count >= 20);
    return &both;
}

static choice only_common(const choice *all) {
    choice c;
    memset(&c, 0, sizeof c);
    for (ptrdiff_t i = 0; i < all->count; i++)
        if (has(common(), all->ids[i]))
            c.ids[c.count++] = all->ids[i];
    return c;
}

static void expect_same(const char *text, const choice *have, const choice *want) {
    choice mine = only_common(have);
    if (mine.count == want->count &&
        memcmp(mine.ids, want->ids, (size_t)mine.count * sizeof *mine.ids) == 0)
        return;
    T_FAIL("'%s' chooses\n    '%s', not\n    '%s'", text, names_of(&mine), names_of(want));
}

/* ---- the table ---- */

T_TEST(every_suite_has_its_own_number_and_names, 60) {
    T_EQ(SUITES, 45);
    T_CHECK(SUITES <= BR_MAX_CIPHER_SUITES && SUITES <= 64);
    T_CHECK(!pysock__suite_find(0));
    T_CHECK(!pysock__suite_find(BR_TLS_FALLBACK_SCSV));
    T_CHECK(!pysock__suite_find(BR_TLS_DHE_RSA_WITH_AES_128_GCM_SHA256));
    for (size_t i = 0; i < SUITES; i++) {
        const pysock__suite *suite = &pysock__suites[i];
        T_CHECK(pysock__suite_find(suite->id) == suite);
        for (size_t k = 0; k < i; k++) {
            T_CHECK(strcmp(suite->name, pysock__suites[k].name) != 0);
            T_CHECK(strcmp(suite->standard_name, pysock__suites[k].standard_name) != 0);
        }
    }
}

/* BearSSL's own profile for clients has all that it can do but for two variants of CCM. */
T_TEST(what_bearssl_offers_is_in_the_table, 60) {
    br_ssl_client_context *client = calloc(1, sizeof *client);
    br_x509_minimal_context *verifier = calloc(1, sizeof *verifier);
    T_CHECK(client && verifier);
    br_ssl_client_init_full(client, verifier, NULL, 0);
    T_CHECK(client->eng.suites_num >= 40);
    for (size_t i = 0; i < client->eng.suites_num; i++)
        if (!pysock__suite_find(client->eng.suites_buf[i]))
            T_FAIL("suite %04x is missing", client->eng.suites_buf[i]);
    free(client);
    free(verifier);
}

/* Where OpenSSL's word for something is another one than that of its objects. */
static const char *translated(const char *word) {
    static const char *const words[][2] = {
        {"TLSv1", "TLSv1.0"},
        {"kx-ECDH", "kx-ecdhe"},
        {"kx-RSA", "kx-rsa"},
        {"auth-RSA", "auth-rsa"},
        {"auth-ECDSA", "auth-ecdsa"},
        {"AES128", "aes-128-cbc"},
        {"AES256", "aes-256-cbc"},
        {"AESGCM128", "aes-128-gcm"},
        {"AESGCM256", "aes-256-gcm"},
        {"AESCCM128", "aes-128-ccm"},
        {"AESCCM256", "aes-256-ccm"},
        {"AESCCM8128", "aes-128-ccm"},
        {"AESCCM8256", "aes-256-ccm"},
        {"CHACHA20/POLY1305256", "chacha20-poly1305"},
        {"3DES168", "des-ede3-cbc"},
        {"SHA1", "sha1"},
        {"SHA256", "sha256"},
        {"SHA384", "sha384"},
        {"AEAD", "(none)"},
    };
    for (size_t i = 0; i < PYSOCK__COUNT(words); i++)
        if (strcmp(word, words[i][0]) == 0)
            return words[i][1];
    return word;
}

static void expect_word(const row *r, const char *what, const char *have, const char *want) {
    if (strcmp(have ? have : "(none)", want) != 0)
        T_FAIL("%s: the %s is %s, not %s", r->name, what, have ? have : "(none)", want);
}

static void expect_row(const row *r, const pysock_ssl_cipher_info *info) {
    expect_word(r, "name", info->name, r->name);
    expect_word(r, "standard name", info->standard_name, r->standard_name);
    expect_word(r, "protocol", info->protocol, translated(r->protocol));
    expect_word(r, "key exchange", info->kea, translated(p_format("kx-%s", r->kx)));
    expect_word(r, "authentication", info->auth, translated(p_format("auth-%s", r->au)));
    expect_word(r, "cipher", info->symmetric, translated(p_format("%s%d", r->enc, r->bits)));
    expect_word(r, "MAC", info->digest, translated(r->mac));
    T_EQ(info->aead, strcmp(r->mac, "AEAD") == 0);
    T_EQ(info->alg_bits, r->bits);
    T_EQ(info->id, r->id);
}

T_TEST(names_and_kinds_are_those_of_openssl, 60) {
    static row rows[512];
    pysock_ssl_cipher_info info;
    ptrdiff_t n, met = 0;
    P_NEED("openssl");
    n = openssl_rows("ALL:@SECLEVEL=0", rows, 512);
    for (ptrdiff_t i = 0; i < n; i++) {
        const pysock__suite *suite = pysock__suite_find(rows[i].id);
        if (!suite)
            continue;
        pysock__suite_info(suite, &info);
        expect_row(&rows[i], &info);
        met++;
    }
    T_CHECK(met >= common()->count);
}

/* Those that no openssl of today has. */
T_TEST(static_keys_and_3des_are_described_alike, 60) {
    static const struct {
        const char *name, *standard_name, *protocol, *symmetric, *digest, *kea, *auth;
        int id, secret_bits, alg_bits;
    } rows[] = {
        {"ECDH-RSA-AES128-GCM-SHA256", "TLS_ECDH_RSA_WITH_AES_128_GCM_SHA256", "TLSv1.2",
         "aes-128-gcm", "(none)", "kx-ecdh", "auth-ecdh", 0xC031, 128, 128},
        {"ECDH-ECDSA-AES256-SHA384", "TLS_ECDH_ECDSA_WITH_AES_256_CBC_SHA384", "TLSv1.2",
         "aes-256-cbc", "sha384", "kx-ecdh", "auth-ecdh", 0xC026, 256, 256},
        {"ECDHE-RSA-DES-CBC3-SHA", "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA", "TLSv1.0", "des-ede3-cbc",
         "sha1", "kx-ecdhe", "auth-rsa", 0xC012, 112, 168},
        {"DES-CBC3-SHA", "TLS_RSA_WITH_3DES_EDE_CBC_SHA", "SSLv3", "des-ede3-cbc", "sha1", "kx-rsa",
         "auth-rsa", 0x000A, 112, 168},
    };
    pysock_ssl_cipher_info info;
    for (size_t i = 0; i < PYSOCK__COUNT(rows); i++) {
        row r;
        memset(&r, 0, sizeof r);
        snprintf(r.name, sizeof r.name, "%s", rows[i].name);
        pysock__suite_info(named(rows[i].name), &info);
        expect_word(&r, "standard name", info.standard_name, rows[i].standard_name);
        expect_word(&r, "protocol", info.protocol, rows[i].protocol);
        expect_word(&r, "cipher", info.symmetric, rows[i].symmetric);
        expect_word(&r, "MAC", info.digest, rows[i].digest);
        expect_word(&r, "key exchange", info.kea, rows[i].kea);
        expect_word(&r, "authentication", info.auth, rows[i].auth);
        T_EQ(info.id, rows[i].id);
        T_EQ(info.secret_bits, rows[i].secret_bits);
        T_EQ(info.alg_bits, rows[i].alg_bits);
        T_EQ(info.aead, strcmp(rows[i].digest, "(none)") == 0);
    }
}

static const char get_ciphers[] =
    "import ssl\n"
    "c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)\n"
    "c.set_ciphers('ALL:@SECLEVEL=0')\n"
    "for x in c.get_ciphers():\n"
    "    print(x['id'] & 65535, x['name'], x['protocol'], x['strength_bits'], x['alg_bits'],\n"
    "          int(x['aead']), x['symmetric'], x['digest'], x['kea'], x['auth'])\n";

T_TEST(a_row_is_the_dictionary_of_pythons_get_ciphers, 60) {
    static p_process p;
    p_args args = {{NULL}, 0};
    pysock_ssl_cipher_info info;
    ptrdiff_t met = 0;
    char *line, *rest;
    P_NEED("openssl");
    P_NEED("python3");
    p_add(&args, "python3", "-c", get_ciphers, NULL);
    if (p_run(&p, &args) != 0)
        P_FAIL(&p, "python3 failed");
    for (line = strtok_r(p.said.data, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        const pysock__suite *suite = pysock__suite_find((uint16_t)atoi(line));
        const char *want;
        if (!suite)
            continue;
        pysock__suite_info(suite, &info);
        want = p_format("%d %s %s %d %d %d %s %s %s %s", info.id, info.name, info.protocol,
                        info.secret_bits, info.alg_bits, info.aead, info.symmetric,
                        info.digest ? info.digest : "None", info.kea, info.auth);
        if (strcmp(line, want) != 0)
            T_FAIL("Python: %s\nhere:   %s", line, want);
        met++;
    }
    T_CHECK(met >= common()->count);
}

/* ---- the language ---- */

/* The order is compared, too: only ChaCha20 has another place here, and only without AES. */
/* clang-format off */
static const char *const strings[] = {
    /* what servers, clients and guides say */
    "DEFAULT", "ALL", "HIGH", "HIGH:!aNULL:!MD5", "HIGH:!aNULL:!eNULL", "DEFAULT:!RSA",
    "@SECLEVEL=2:ECDH+AESGCM:ECDH+CHACHA20:ECDH+AES:DHE+AES:!aNULL:!eNULL:!aDSS:!SHA1:!AESCCM",
    "DEFAULT:!aNULL:!eNULL:!MD5:!3DES:!DES:!RC4:!IDEA:!SEED:!aDSS:!SRP:!PSK",
    "ECDH+AESGCM:ECDH+CHACHA20:DH+AESGCM:DH+CHACHA20:ECDH+AES256:DH+AES256:ECDH+AES128:DH+AES:"
    "RSA+AESGCM:RSA+AES:!aNULL:!eNULL:!MD5:!DSS:!RC4:!3DES",
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
    "DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384:DHE-RSA-CHACHA20-POLY1305",
    "EECDH+AESGCM:EDH+AESGCM:AES256+EECDH:AES256+EDH",
    "EECDH+ECDSA+AESGCM EECDH+aRSA+AESGCM EECDH+ECDSA+SHA384 EECDH+ECDSA+SHA256 EECDH+aRSA+SHA384 "
    "EECDH+aRSA+SHA256 EECDH+aRSA+RC4 EECDH EDH+aRSA RC4 !aNULL !eNULL !LOW !3DES !MD5 !EXP !PSK "
    "!SRP !DSS",
    "ALL:!aNULL:!ADH:!eNULL:!LOW:!EXP:RC4+RSA:+HIGH:+MEDIUM", "kEECDH+ECDSA:kEECDH:kEDH:HIGH:+SHA",
    "TLSv1.2+FIPS:kRSA+FIPS:!eNULL:!aNULL", "HIGH:!DH:!aNULL", "AES128-SHA", "AES256",
    "ECDHE+AESGCM:!aNULL", "DEFAULT@SECLEVEL=1", "ALL:@SECLEVEL=0",
    "DEFAULT:@SECLEVEL=3", "@SECLEVEL=0:ALL", "ECDHE-RSA-AES256-GCM-SHA384",
    /* every word */
    "COMPLEMENTOFDEFAULT", "COMPLEMENTOFALL", "LOW", "eNULL", "NULL", "aNULL", "kRSA", "RSA",
    "aRSA", "kECDHE", "kEECDH", "ECDHE", "EECDH", "ECDH", "aECDSA", "ECDSA", "kDHE", "kEDH", "DHE",
    "EDH", "DH", "ADH", "AECDH", "aDSS", "DSS", "AES", "AES128", "AESGCM", "AESCCM", "AESCCM8",
    "CHACHA20", "CBC", "DES", "RC4", "RC2", "IDEA", "SEED", "CAMELLIA", "CAMELLIA128", "ARIA",
    "ARIA256", "MD5", "SHA", "SHA1", "SHA256", "SHA384", "GOST94", "kGOST", "aGOST", "PSK", "kPSK",
    "aPSK", "kECDHEPSK", "kDHEPSK", "kRSAPSK", "SRP", "kSRP", "aSRP", "TLSv1", "TLSv1.0", "TLSv1.1",
    "TLSv1.2", "SSLv3", "SSLv2", "FIPS", "EXP", "EXPORT",
    /* signs */
    "ALL:!ALL", "ALL:-ALL", "ALL:-ALL:AES", "ALL:!AES:AES", "ALL:-AES:AES128", "!AES:ALL",
    "ALL:+AES", "ALL:+ECDHE", "ALL:+kRSA:+AES128", "-ALL", "+ALL", "!ALL", "!ALL:ALL", "-AES:ALL",
    "AES128-SHA:AES256-SHA:AES128-SHA", "AES128-SHA:AES256-SHA:+AES128-SHA",
    "AES128-SHA:AES256-SHA:-AES128-SHA:AES128-SHA", "kRSA:ECDHE:-kRSA:ALL",
    "ALL:-AES128:-CHACHA20:+ECDSA:ALL", "AES256:-SHA256:-SHA384:-AESGCM:ALL",
    "ECDHE:-AES128:-CHACHA20:kRSA:-AES256:ALL:@STRENGTH", "DEFAULT:-AES256:+RSA",
    "DEFAULT:-ECDHE:ECDHE", "ALL:+ECDHE+AES:!AES",
    /* conjunctions */
    "ECDHE+AES", "ECDHE+AES+SHA", "ECDHE+AES128+SHA256", "ECDHE-RSA-AES128-SHA+aRSA",
    "ECDHE-RSA-AES128-SHA+ECDSA", "AES128-SHA+AES256-SHA", "AES128+AES256", "AES+AESGCM",
    "AESCCM+AESCCM8", "aRSA+kECDHE+AESGCM", "TLSv1.2+kRSA", "SSLv3+kRSA", "TLSv1.0+RSA",
    "TLSv1+ECDHE", "RC4+AES", "ALL+AES", "ALL+ALL", "BOGUS+AES", "AES+BOGUS", "AES+BOGUS:SHA",
    "CHACHA20+AES", "SHA+SHA256", "COMPLEMENTOFDEFAULT+AES", "ECDHE+HIGH",
    /* order */
    "AES128:@STRENGTH", "AES128:AES256:@STRENGTH", "AES128:CHACHA20:@STRENGTH",
    "ALL:@STRENGTH", "ALL:+AES256:@STRENGTH", "AES128-SHA:ECDHE+AES128:AES256-SHA:@STRENGTH",
    "@STRENGTH:AES128:AES256", "DEFAULT@STRENGTH", "AES128:@STRENGTH:AES256", "ALL:@STRENGTH+AES",
    "AES256-SHA:AES128-SHA:ECDHE-RSA-AES128-SHA:ECDHE-ECDSA-AES256-GCM-SHA384",
    /* separators, and what is not well formed */
    "AES128-SHA;AES256-SHA AES256-SHA256,AES128-SHA256", "::AES128-SHA::", " AES128-SHA , ",
    "AES128-SHA!AES128-SHA", "AES128-SHA@STRENGTH", "AES-AES128", "AES128-SHA-AES256-SHA",
    "", ":", " ,;:", "!", "-", "+", "@", "!:AES", "ALL:!", "ALL:+", "ALL:AES+", "ALL:AES+:SHA",
    "++AES", "!!AES:ALL", "!-AES:ALL", "@AES", "ALL:@", "ALL:@STRONG", "ALL:@SECLEVEL",
    "ALL:@SECLEVEL=", "ALL:@SECLEVEL=6", "ALL:@SECLEVEL=11", "ALL:@SECLEVEL=x", "ALL:@seclevel=1",
    "ALL:@SECLEVEL=-1", "AES128-SHA\tAES256-SHA", "AES128-SHA\n", "ALL/AES", "ALL:\"AES\"",
    "AES\xC3\xA4", "ALL:%s%n", "BOGUS", "aes128-sha", "default", "all", "Bogus:AES128-SHA",
    "BOGUS+:AES128-SHA", "BOGUS/AES128-SHA", "ALL=AES", "AES128-SHAx", "AES128-SH",
    /* DEFAULT and Suite B are for the beginning */
    "ALL:DEFAULT", "AES128-SHA:DEFAULT", " DEFAULT", "!DEFAULT:ALL", "DEFAULTX", "DEFAULTAES",
    "DEFAULT+AES", "DEFAULT-AES", "DEFAULT!AES", "DEFAULT:AESCCM", "DEFAULT:COMPLEMENTOFDEFAULT",
    "DEFAULT:ALL", "DEFAULT DEFAULT", "DEFAULT:DEFAULT", "DEFAULT,AES", "DEFAULT:ECDHE-ARIA",
    "DEFAUL", "SUITEB128", "SUITEB128ONLY", "SUITEB128C2", "SUITEB192", "SUITEB192:ALL",
    "ALL:SUITEB192", "SUITEB128X", "SUITEB", "TLS_AES_128_GCM_SHA256",
    "TLS_AES_128_GCM_SHA256:AES128-SHA", "AES128-SHA:TLS_CHACHA20_POLY1305_SHA256:AES256-SHA",
};
/* clang-format on */

T_TEST(openssl_chooses_the_same_in_the_same_order, T_SCALE(120, 300)) {
    static row rows[512];
    P_NEED("openssl");
    for (size_t i = 0; i < PYSOCK__COUNT(strings); i++) {
        choice have = ours(strings[i]), want;
        ptrdiff_t n;
        T_STEP("'%s'", strings[i]);
        n = openssl_rows(strings[i], rows, 512);
        memset(&want, 0, sizeof want);
        for (ptrdiff_t k = 0; k < n; k++)
            if (has(common(), rows[k].id))
                want.ids[want.count++] = rows[k].id;
        /* openssl takes an underscore for the end of a word, where these names are words. */
        if ((n < 0) != (have.count < 0) && !strchr(strings[i], '_'))
            T_FAIL("'%s' is %s here", strings[i], have.count < 0 ? "malformed" : "well formed");
        if (n >= 0)
            expect_same(strings[i], &have, &want);
    }
}

static const char set_ciphers[] = "import ssl, sys\n"
                                  "for text in open(sys.argv[1]):\n"
                                  "    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)\n"
                                  "    try:\n"
                                  "        c.set_ciphers(text.rstrip('\\n'))\n"
                                  "        print(*[x['id'] & 65535 for x in c.get_ciphers()])\n"
                                  "    except ssl.SSLError:\n"
                                  "        print()\n";

static unsigned int next_random(unsigned int *seed) {
    *seed = *seed * 1103515245u + 12345u;
    return *seed >> 16 & 0x7fffu;
}

/* A string of one to nine rules, well formed but for its unknown words. COMPLEMENTOFDEFAULT stands
   alone: OpenSSL forgets it as soon as "+HIGH" or a name follows. */
static size_t random_string(char *text, size_t size, unsigned int *seed) {
    static const char *const words[] = {
        "ALL",     "HIGH",  "AES",   "AES128",   "AES256", "AESGCM",  "AESCCM", "AESCCM8",
        "ECDHE",   "kRSA",  "RSA",   "aRSA",     "ECDSA",  "SHA",     "SHA256", "SHA384",
        "TLSv1.2", "SSLv3", "TLSv1", "CHACHA20", "CBC",    "ECDH",    "DHE",    "aNULL",
        "eNULL",   "RC4",   "BOGUS", "PSK",      "kECDHE", "DEFAULT", "LOW",    "DSS",
    };
    static const char *const signs[] = {"", "", "", "", "-", "-", "+", "+", "!"};
    static const char *const ends[] = {":", ":", ":", ",", " ", ";", "::", ":@STRENGTH:"};
    size_t used = 0, rules = 1 + next_random(seed) % 9;
    if (next_random(seed) % 4 == 0)
        used += (size_t)snprintf(text, size, "DEFAULT:");
    while (rules--) {
        used += (size_t)snprintf(text + used, size - used, "%s",
                                 signs[next_random(seed) % PYSOCK__COUNT(signs)]);
        int more = next_random(seed) % 20 != 0;
        if (!more)
            used += (size_t)snprintf(text + used, size - used, "COMPLEMENTOFDEFAULT+");
        for (; more; more = next_random(seed) % 3 == 0) {
            unsigned int pick = next_random(seed) % (PYSOCK__COUNT(words) + 12);
            const choice *both = common();
            const char *word =
                pick < PYSOCK__COUNT(words)
                    ? words[pick]
                    : pysock__suite_find(both->ids[next_random(seed) % (size_t)both->count])->name;
            used += (size_t)snprintf(text + used, size - used, "%s+", word);
        }
        used--; /* the last '+' */
        used += (size_t)snprintf(text + used, size - used, "%s",
                                 ends[next_random(seed) % PYSOCK__COUNT(ends)]);
    }
    T_CHECK(used < size);
    return used;
}

#define RANDOM_STRINGS 2000

T_TEST(python_chooses_the_same_for_strings_at_random, T_SCALE(60, 300)) {
    static char texts[RANDOM_STRINGS][1024];
    static p_process p;
    p_text all = {NULL, 0, 0};
    p_args args = {{NULL}, 0};
    unsigned int seed = 4;
    char *line, *end;
    P_NEED("openssl");
    P_NEED("python3");
    for (size_t i = 0; i < RANDOM_STRINGS; i++) {
        p_append(&all, texts[i], random_string(texts[i], sizeof texts[i], &seed));
        p_append(&all, "\n", 1);
    }
    p_add(&args, "python3", "-c", set_ciphers, f_write("strings", all.data, all.size), NULL);
    free(all.data);
    if (p_run(&p, &args) != 0)
        P_FAIL(&p, "python3 failed");
    line = p.said.data;
    for (size_t i = 0; i < RANDOM_STRINGS; i++, line = end + 1) {
        choice have = ours(texts[i]), want;
        char *word, *rest;
        memset(&want, 0, sizeof want);
        end = strchr(line, '\n');
        T_CHECK(end);
        *end = 0;
        for (word = strtok_r(line, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
            if (has(common(), (uint16_t)atoi(word)))
                want.ids[want.count++] = (uint16_t)atoi(word);
        T_CHECK(have.count >= 0);
        expect_same(texts[i], &have, &want);
    }
}

/* ---- what is this library's own ---- */

T_TEST(standard_names_are_taken_too, 60) {
    chooses("TLS_RSA_WITH_AES_128_CBC_SHA:TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
            "AES128-SHA:ECDHE-RSA-CHACHA20-POLY1305");
    chooses("kRSA+SHA:!TLS_RSA_WITH_AES_128_CBC_SHA", "AES256-SHA");
    chooses("TLS_RSA_WITH_AES_128_CBC_SHA+AES128", "AES128-SHA");
    chooses("TLS_AES_128_GCM_SHA256:AES128-SHA:TLS_AES_256_GCM_SHA384", "AES128-SHA");
    chooses("TLS_AES_128_GCM_SHA256", "");
}

T_TEST(suites_of_the_last_resort_must_be_meant, 60) {
    /* clang-format off */
    static const char *const meant[] = {
        "ALL", "COMPLEMENTOFDEFAULT", "3DES", "MEDIUM", "kECDH", "kECDHe", "kECDHr", "aECDH",
        "DES-CBC3-SHA", "ECDH-RSA-AES128-SHA", "TLS_RSA_WITH_3DES_EDE_CBC_SHA", "kRSA+3DES",
        "3DES+kRSA", "ALL+SHA", "AES+kECDH", "HIGH:3DES",
    };
    /* clang-format on */
    static const char *const not_meant[] = {
        "DEFAULT",   "HIGH",       "AES",
        "AESGCM",    "SHA",        "SHA256",
        "SHA384",    "kRSA",       "RSA",
        "aRSA",      "ECDH",       "ECDHE",
        "ECDSA",     "aECDSA",     "TLSv1",
        "TLSv1.2",   "SSLv3",      "CBC",
        "FIPS",      "-3DES:HIGH", "ALL:-3DES:-kECDH:HIGH:kRSA",
        "+3DES:AES", "CHACHA20",
    };
    const uint32_t traits = PYSOCK__ENC_3DES | PYSOCK__KX_ECDH;
    for (size_t i = 0; i < PYSOCK__COUNT(meant); i++) {
        choice all = ours(meant[i]), rest = without(&all, traits);
        if (rest.count == all.count)
            T_FAIL("'%s' chooses none of them", meant[i]);
    }
    for (size_t i = 0; i < PYSOCK__COUNT(not_meant); i++) {
        choice all = ours(not_meant[i]), rest = without(&all, traits);
        if (rest.count != all.count || !all.count)
            T_FAIL("'%s' chooses '%s'", not_meant[i], names_of(&all));
    }
    T_EQ(ours("ALL").count, 45);
    T_EQ(ours("kECDH").count, 14);
    T_EQ(ours("aECDH").count, 14);
    T_EQ(ours("kECDHr").count, 7);
    T_EQ(ours("kECDHe").count, 7);
    T_EQ(ours("3DES").count, 5);
    chooses("ALL:!3DES:3DES:!AES:!CHACHA20", "");
    chooses("kRSA+3DES", "DES-CBC3-SHA");
    chooses("kECDHe+AESGCM+AES128:3DES+ECDHE+ECDSA",
            "ECDH-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-DES-CBC3-SHA");
    chooses("DES-CBC3-SHA:AES128-SHA:@STRENGTH", "AES128-SHA:DES-CBC3-SHA");
}

T_TEST(chacha20_is_first_where_the_processor_has_no_aes, 60) {
    static const char *const words[] = {"ALL",   "DEFAULT", "HIGH",
                                        "ECDHE", "TLSv1.2", "HIGH:@STRENGTH"};
    for (size_t i = 0; i < PYSOCK__COUNT(words); i++) {
        choice fast = ours(words[i]), slow, fast_rest, slow_rest;
        has_fast_aes = 0;
        slow = ours(words[i]);
        has_fast_aes = 1;
        T_EQ(slow.count, fast.count);
        T_EQ(fast.ids[0], BR_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384);
        T_EQ(fast.ids[2], BR_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256);
        T_EQ(slow.ids[0], BR_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256);
        T_EQ(slow.ids[1], BR_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256);
        fast_rest = without(&fast, PYSOCK__ENC_CHACHA20);
        slow_rest = without(&slow, PYSOCK__ENC_CHACHA20);
        T_EQ(fast_rest.count, fast.count - 2);
        T_EQ(memcmp(&fast_rest, &slow_rest, sizeof fast_rest), 0);
    }
    has_fast_aes = 0;
    chooses("ECDHE+AESGCM+AES256:ECDHE+CHACHA20",
            "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
            "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305");
    has_fast_aes = 1;
}

T_TEST(a_context_has_ten_suites_unless_it_is_told, 60) {
    static const char gcm[] = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
                              "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384",
                      chacha20[] = "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305",
                      cbc[] = "ECDHE-ECDSA-AES128-SHA256:ECDHE-RSA-AES128-SHA256:"
                              "ECDHE-ECDSA-AES256-SHA384:ECDHE-RSA-AES256-SHA384";
    choice c;
    for (int fast = 0; fast < 2; fast++) {
        has_fast_aes = fast;
        memset(&c, 0, sizeof c);
        c.count = (ptrdiff_t)pysock__suite_list(c.ids);
        has_fast_aes = 1;
        assert_string_equal(names_of(&c), fast ? p_format("%s:%s:%s", gcm, chacha20, cbc)
                                               : p_format("%s:%s:%s", chacha20, gcm, cbc));
    }
}

T_TEST(the_security_level_is_told_when_there_is_one, 60) {
    static const struct {
        const char *text;
        int level;
    } cases[] = {
        {"ALL", 77},
        {"ALL:@SECLEVEL=0", 0},
        {"@SECLEVEL=1:ALL", 1},
        {"DEFAULT@SECLEVEL=2", 2},
        {"ALL:@SECLEVEL=3", 3},
        {"ALL:@SECLEVEL=3:@SECLEVEL=1", 1},
        {"BOGUS:@SECLEVEL=1", 77},   /* nothing chosen: nothing changes */
        {"@SECLEVEL=1:ALL:@NO", 77}, /* malformed */
        {"ALL:@SECLEVEL=4", 77},     /* more than BearSSL can keep */
        {"ALL:@SECLEVEL=5", 77},
        {"ALL:@SECLEVEL=6", 77},
    };
    uint16_t ids[BR_MAX_CIPHER_SUITES];
    for (size_t i = 0; i < PYSOCK__COUNT(cases); i++) {
        int level = 77;
        ptrdiff_t n = pysock__ciphers_parse(cases[i].text, ids, &level);
        T_STEP("'%s'", cases[i].text);
        T_EQ(level, cases[i].level);
        if (strstr(cases[i].text, "=4") || strstr(cases[i].text, "=5"))
            T_EQ(n, -1);
    }
}

/* ---- whatever somebody writes ---- */

static void expect_quick(const char *text) {
    double start = t_now();
    choice c = ours(text);
    for (ptrdiff_t i = 0; i < c.count; i++)
        for (ptrdiff_t k = 0; k < i; k++)
            T_CHECK(c.ids[i] != c.ids[k]);
    T_CHECK(t_now() - start < T_SCALE(2.0, 20.0));
}

T_TEST(garbage_is_harmless, T_SCALE(60, 300)) {
    static const char *const pieces[] = {
        "A",    "!",     "+",         "-",          "@",       ":",         "AES",
        "AES+", "+AES:", "-AES:AES:", "@STRENGTH:", "DEFAULT", "ALL:!ALL:", "_"};
    const size_t size = 100000;
    char *text = malloc(size + 1);
    unsigned int seed = 1;
    T_CHECK(text);
    for (size_t i = 0; i < PYSOCK__COUNT(pieces); i++) {
        size_t n = strlen(pieces[i]);
        for (size_t k = 0; k < size; k++)
            text[k] = pieces[i][k % n];
        text[size] = 0;
        T_STEP("100 KB of '%s'", pieces[i]);
        expect_quick(text);
    }
    for (int round = 0; round < 200; round++) {
        size_t n = next_random(&seed) % (round % 10 ? 64 : size);
        for (size_t k = 0; k < n; k++)
            text[k] = (char)(next_random(&seed) % (round % 2 ? 255 : 90) + 1);
        text[n] = 0;
        T_STEP("round %d of random bytes", round);
        expect_quick(text);
    }
    free(text);
}

T_MAIN(.each_teardown = p_clear_away)
