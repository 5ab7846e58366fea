/* Certificates that are unusual, and what the verifier says of them: those that it takes as others
   do, those that this library cannot check, those that are no DER. The chains are made byte by byte
   and shown to a client by a server that says nothing else. */
#include "support/support.h"
#include "support/files.h"
#include "support/handshake.h"
#include "support/messages.h"
#include "support/mint.h"
#include "support/process.h"
#include "support/shown.h"
#include "support/shell.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define WWW "www.example.test"

/* Root, key 0; Middle, key 1, by it; Leaf, key 2, by that. */
static m_spec root_spec(void) {
    m_spec s = {.subject = "Root", .extensions = M_AUTHORITY};
    return s;
}

static m_spec middle_spec(void) {
    m_spec s = {.subject = "Middle", .issuer = "Root", .key = 1, .extensions = M_AUTHORITY};
    return s;
}

static m_spec leaf_spec(void) {
    m_spec s = {.subject = "Leaf", .issuer = "Middle", .key = 2, .signer = 1, .extensions = M_LEAF};
    return s;
}

static m_der issue(m_spec s) {
    return m_issue(&s);
}

static m_spec spec_of(int place) {
    return place == 0 ? root_spec() : place == 1 ? middle_spec() : leaf_spec();
}

/* ---- a client that trusts the root ---- */

static pysock_ssl_context *new_client(void) {
    return T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
}

static pysock_ssl_context *client_that_trusts(const m_der *root) {
    pysock_ssl_context *ctx = new_client();
    T_OK(pysock_ssl_load_verify_data(ctx, root->data, root->size));
    return ctx;
}

static pysock_ssl_context *server_with(const m_der *leaf, const m_der *middle) {
    pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
    m_der key = m_key_der(2);
    p_text text = {NULL, 0, 0};
    m_put_certificate(&text, leaf);
    m_put_certificate(&text, middle);
    m_put_pem(&text, "EC PRIVATE KEY", key.data, key.size);
    T_OK(pysock_ssl_load_cert_chain_data(ctx, text.data, text.size, NULL, 0));
    free(text.data);
    return ctx;
}

/* A whole handshake. Takes the client's context. host NULL: whatever the name. */
static h_outcome judge_whole(pysock_ssl_context *client, const m_der *leaf, const m_der *middle,
                             const char *host) {
    pysock_ssl_context *server = server_with(leaf, middle);
    h_pair p;
    if (!host)
        T_OK(pysock_ssl_set_check_hostname(client, 0));
    h_try(&p, client, server, host ? host : WWW);
    if (p.client)
        h_greet(&p);
    h_close(&p);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
    return p.at_client;
}

/* What a client says of a chain whose key nobody has. Takes the context. */
static h_outcome judge_chain(pysock_ssl_context *client, const m_der *chain, size_t count,
                             int rsa) {
    h_outcome o = s_show(client, chain, count, rsa, WWW);
    pysock_ssl_context_release(client);
    return o;
}

/* Prints what is wrong with a refusal; 0 if nothing is. words, and what must not be said:
   alternatives parted by bars. */
static int is_told(const char *what, const h_outcome *o, const char *words, const char *not_words) {
    const char *wrong = NULL;
    if (s_is_taken(o))
        wrong = "accepted";
    else if (o->kind != PYSOCK_SSL_CERT_VERIFICATION_ERROR)
        wrong = "no verification error";
    else if (!o->verify_code)
        wrong = "no code";
    else if (!says_one_of(o->message, words))
        wrong = "the cause is not told";
    else if (says_one_of(o->message, not_words))
        wrong = "another cause is told";
    if (wrong)
        fprintf(stderr, "%s: %s, not '%s' (code %d: %s)\n", what, wrong, words, o->verify_code,
                o->message);
    return wrong != NULL;
}

/* ==== what others take ==== */

/* RFC 5280, 4.1.2.2: certificate users should be prepared to handle such ones gracefully. */
T_TEST(serial_numbers_may_be_zero_long_or_negative, 60) {
    static const char *const serials[] = {
        "00",
        "01",
        "ff",
        "80",
        "4011223344556677889900aabbccddeeff00112233",
        "7f112233445566778899001122334455667788990011223344556677889900112233445566778899",
    };
    static const char *const places[] = {"root", "middle", "leaf"};
    int wrong = 0;
    for (size_t i = 0; i < COUNT(serials) * 3; i++) {
        m_der certs[3];
        h_outcome o;
        for (int place = 0; place < 3; place++) {
            m_spec s = spec_of(place);
            if (place == (int)i % 3)
                s.serial = serials[i / 3];
            certs[place] = issue(s);
        }
        o = judge_whole(client_that_trusts(&certs[0]), &certs[2], &certs[1], WWW);
        if (o.result < 0) {
            fprintf(stderr, "serial %s in the %s: %s\n", serials[i / 3], places[i % 3], o.message);
            wrong++;
        }
    }
    T_EQ(wrong, 0);
}

T_TEST(a_strange_serial_number_is_told_as_it_is, 60) {
    static const struct {
        const char *serial, *told;
    } list[] = {
        {"00", "00"},
        {"4011223344556677889900aabbccddeeff00112233",
         "4011223344556677889900AABBCCDDEEFF00112233"},
    };
    for (size_t i = 0; i < COUNT(list); i++) {
        m_spec s = leaf_spec();
        m_der d;
        pysock_ssl_cert *cert;
        s.serial = list[i].serial;
        d = issue(s);
        cert = T_OK(pysock_ssl_cert_parse(d.data, d.size));
        H_SAME(cert->serial_number, list[i].told);
        pysock_ssl_cert_free(cert);
    }
}

T_TEST(an_empty_extensions_sequence_is_no_fault, 60) {
    m_der root = issue(root_spec()), middle = issue(middle_spec()), leaf, odd;
    m_spec s = leaf_spec();
    h_outcome o;
    pysock_ssl_cert *cert;
    s.extensions = "";
    leaf = issue(s);
    o = judge_whole(client_that_trusts(&root), &leaf, &middle, NULL);
    if (o.result < 0)
        T_FAIL("%s", o.message);
    cert = T_OK(pysock_ssl_cert_parse(leaf.data, leaf.size));
    T_EQ(cert->version, 3);
    T_EQ(cert->subject_alt_name_count, 0);
    pysock_ssl_cert_free(cert);
    /* Nothing says that these are authorities; but nothing is malformed. */
    leaf = issue(leaf_spec());
    s = middle_spec();
    s.extensions = "";
    odd = issue(s);
    o = judge_whole(client_that_trusts(&root), &leaf, &odd, WWW);
    h_is_refusal(&o, 79, "invalid CA certificate");
    s = root_spec();
    s.extensions = "";
    odd = issue(s);
    o = judge_whole(client_that_trusts(&odd), &leaf, &middle, WWW);
    h_is_refusal(&o, 79, "invalid CA certificate");
}

/* ==== the common name ==== */

#define SAN_DNS_OTHER "30150603551d11040e300c820a6f746865722e74657374"
#define SAN_EMAIL "30180603551d110411300f810d61406f746865722e746573742e"
#define SAN_ADDRESS                                                                                \
    "300f0603551d1104083006"                                                                       \
    "87047f000001"
#define SAN_TEST_NET                                                                               \
    "300f0603551d1104083006"                                                                       \
    "8704c0000201" /* 192.0.2.1 */
#define SAN_URI                                                                                    \
    "30160603551d11040f300d"                                                                       \
    "860b687474703a2f2f782e792f"

T_TEST(the_common_name_counts_where_it_is_asked_for_and_there_is_no_other, 60) {
    static const struct {
        const char *name, *extensions, *host;
        int off, on; /* codes */
    } list[] = {
        {WWW, M_LEAF_USAGE M_SERVER, WWW, 62, 0},
        {WWW, NULL, WWW, 62, 0},
        {"*.example.test", M_LEAF_USAGE M_SERVER, WWW, 62, 0},
        {WWW, M_LEAF_USAGE M_SERVER, "other.test", 62, 62},
        {WWW, M_LEAF_USAGE M_SERVER SAN_EMAIL, WWW, 62, 0},
        {WWW, M_LEAF_USAGE M_SERVER SAN_URI, WWW, 62, 0},
        {WWW, M_LEAF_USAGE M_SERVER SAN_DNS_OTHER, WWW, 62, 62},
        {WWW, M_LEAF_USAGE M_SERVER SAN_ADDRESS, WWW, 62, 62},
        {"127.0.0.1", M_LEAF_USAGE M_SERVER, "127.0.0.1", 64, 64},
        {"127.0.0.1", M_LEAF_USAGE M_SERVER SAN_EMAIL, "127.0.0.1", 64, 64},
        {"x", M_LEAF_USAGE M_SERVER SAN_ADDRESS, "127.0.0.1", 0, 0},
        {"x", M_LEAF, WWW, 0, 0},
    };
    m_der root = issue(root_spec()), middle = issue(middle_spec());
    int wrong = 0;
    for (size_t i = 0; i < COUNT(list) * 3; i++) {
        pysock_ssl_context *client = client_that_trusts(&root);
        m_spec s = leaf_spec();
        m_der leaf;
        h_outcome o;
        int code = i % 3 == 1 ? list[i / 3].on : list[i / 3].off;
        s.subject = list[i / 3].name;
        s.extensions = list[i / 3].extensions;
        leaf = issue(s);
        if (i % 3) /* else as it is by default */
            T_OK(pysock_ssl_set_hostname_checks_common_name(client, i % 3 == 1));
        T_EQ(pysock_ssl_get_hostname_checks_common_name(client), i % 3 == 1);
        o = judge_whole(client, &leaf, &middle, list[i / 3].host);
        if (o.verify_code == code && (o.result == 0) == (code == 0))
            continue;
        fprintf(stderr, "%s, extensions %s, for %s, %s: code %d, not %d (%s)\n", s.subject,
                s.extensions, list[i / 3].host, i % 3 == 1 ? "on" : "off", o.verify_code, code,
                o.message);
        wrong++;
    }
    T_EQ(wrong, 0);
}

/* ==== what is no DER ==== */

/* An unknown extension whose critical flag is FALSE for who reads DER: the default must not be
   written; and TRUE as 01, which BER allows. */
#define CA_OF_ONE                                                                                  \
    "300f0603551d130101ff040530030101"                                                             \
    "01"
#define CA_CRITICAL_ONE "300f0603551d13010101040530030101ff"
#define USAGE_CRITICAL_ONE "300e0603551d0f010101040403020780"

T_TEST(true_as_01_is_named_as_no_der, 60) {
    static const struct {
        const char *what;
        int place;
        const char *extensions;
    } list[] = {
        {"leaf, a critical flag", 2, USAGE_CRITICAL_ONE M_WWW M_SERVER},
        {"middle, a critical flag", 1, CA_CRITICAL_ONE M_CA_USAGE},
        {"middle, cA", 1, CA_OF_ONE M_CA_USAGE},
    };
    static const char *const subjects[] = {"Root", "Middle|certificate 2|2nd|second|intermediate",
                                           "Leaf|certificate 1|1st|first|peer's"};
    int wrong = 0;
    for (size_t i = 0; i < COUNT(list); i++) {
        m_der certs[3], chain[2];
        h_outcome o;
        for (int place = 0; place < 3; place++) {
            m_spec s = spec_of(place);
            if (place == list[i].place)
                s.extensions = list[i].extensions;
            certs[place] = issue(s);
        }
        chain[0] = certs[2];
        chain[1] = certs[1];
        o = judge_chain(client_that_trusts(&certs[0]), chain, 2, 0);
        wrong += is_told(list[i].what, &o, "not DER", "local issuer|signature failure");
        wrong += is_told(list[i].what, &o, subjects[list[i].place], "local issuer");
    }
    T_EQ(wrong, 0);
}

/* Told when it is loaded, or by the verdict; never as an issuer that is missing. */
T_TEST(true_as_01_in_an_anchor_is_named_as_no_der, 60) {
    static const char *const extensions[] = {CA_CRITICAL_ONE M_CA_USAGE, CA_OF_ONE M_CA_USAGE};
    int wrong = 0;
    for (size_t i = 0; i < COUNT(extensions); i++) {
        pysock_ssl_context *client = new_client();
        m_spec s = root_spec();
        m_der good, root, chain[2];
        p_text text = {NULL, 0, 0};
        const char *path;
        s.subject = "Another root";
        good = issue(s);
        s.subject = "Root";
        s.extensions = extensions[i];
        root = issue(s);
        m_put_certificate(&text, &good);
        m_put_certificate(&text, &root);
        path = f_write("anchors.pem", text.data, text.size);
        free(text.data);
        if (pysock_ssl_load_verify_locations(client, path, NULL) < 0) {
            error_names(path, 2, 2, "not DER");
            T_EQ(pysock_ssl_ca_count(client), 0);
            pysock_ssl_context_release(client);
            continue;
        }
        T_EQ(pysock_ssl_ca_count(client), 2);
        chain[0] = issue(leaf_spec());
        chain[1] = issue(middle_spec());
        h_outcome o = judge_chain(client, chain, 2, 0);
        wrong += is_told("an anchor", &o, "not DER", "local issuer|signature failure");
        wrong += is_told("an anchor", &o, "Root|anchor", "local issuer");
    }
    T_EQ(wrong, 0);
}

/* One parser decides: what the verifier will not read is not shown to anybody either. */
T_TEST(a_chain_that_is_no_der_is_not_loaded, 60) {
    for (int place = 1; place < 3; place++) {
        pysock_ssl_context *server = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
        m_spec middle = middle_spec(), leaf = leaf_spec();
        m_der d, key = m_key_der(2);
        p_text text = {NULL, 0, 0};
        const char *path;
        if (place == 1)
            middle.extensions = CA_CRITICAL_ONE M_CA_USAGE;
        else
            leaf.extensions = USAGE_CRITICAL_ONE M_WWW M_SERVER;
        d = issue(leaf);
        m_put_certificate(&text, &d);
        d = issue(middle);
        m_put_certificate(&text, &d);
        m_put_pem(&text, "EC PRIVATE KEY", key.data, key.size);
        path = f_write("chain.pem", text.data, text.size);
        free(text.data);
        T_FAILS(pysock_ssl_load_cert_chain(server, path, NULL), PYSOCK_SSL_ERROR, EPROTO);
        error_names(path, 3 - place, 3 - place, "not DER");
        pysock_ssl_context_release(server);
    }
}

/* ==== what is malformed in another way ==== */

/* A server of this library would not load them. Who is shown one does not take it, and does not say
   that something is missing. */
T_TEST(a_malformed_certificate_that_is_shown_is_refused_as_such, 60) {
    static const struct {
        const char *what, *extensions; /* besides the usual ones */
        const char *version, *not_before;
    } list[] = {
        {"an extension twice", M_SERVER M_SERVER, NULL, NULL},
        {"another extension twice", "300906032a030404020500300906032a030404020500", NULL, NULL},
        {"malformed extKeyUsage", "30090603551d2504020500", NULL, NULL},
        {"empty extKeyUsage", "30090603551d2504023000", NULL, NULL},
        {"malformed nameConstraints", "30090603551d1e04023000", NULL, NULL},
        {"a malformed key identifier", "30090603551d0e04020500", NULL, NULL},
        {"a malformed authority identifier", "30090603551d2304020500", NULL, NULL},
        {"an extension with something behind", "300b06032a0304040205000500", NULL, NULL},
        {"version 4", "", "a003020103", NULL},
        {"version 1 with extensions", "", "", NULL},
        {"a time without seconds", "", NULL, "2001010000Z"},
        {"a time with an offset", "", NULL, "200101000000+0100"},
        {"a time that is none", "", NULL, "yesterday"},
    };
    int wrong = 0;
    for (size_t i = 0; i < COUNT(list) * 2; i++) {
        m_der certs[3], chain[2];
        int place = 1 + (int)i % 2;
        char what[96], extensions[512];
        h_outcome o;
        snprintf(what, sizeof what, "%s in the %s", list[i / 2].what,
                 place == 1 ? "middle" : "leaf");
        snprintf(extensions, sizeof extensions, "%s%s",
                 place == 1 ? M_AUTHORITY : M_LEAF_USAGE M_WWW, list[i / 2].extensions);
        for (int k = 0; k < 3; k++) {
            m_spec s = spec_of(k);
            if (k == place) {
                s.extensions = extensions;
                s.version = list[i / 2].version;
                s.not_before = list[i / 2].not_before;
            }
            certs[k] = issue(s);
        }
        chain[0] = certs[2];
        chain[1] = certs[1];
        o = judge_chain(client_that_trusts(&certs[0]), chain, 2, 0);
        wrong += is_told(what, &o, "certificate", "local issuer|signature failure");
    }
    T_EQ(wrong, 0);
}

/* ==== what this library cannot check ==== */

#define OID_EC "06072a8648ce3d0201"
#define NEVER "signature failure|signature is wrong|too weak|local issuer|bad signature"

static m_der compressed_key(int number) {
    m_der point = m_point(number);
    point.data[0] = (unsigned char)(2 | (point.data[64] & 1));
    point.size = 33;
    return m_spki(M_ALGORITHM_P256, point);
}

static m_der noise_key(const char *algorithm, size_t size) {
    m_der d = m_hex("");
    for (size_t i = 0; i < size; i++)
        m_add_hex(&d, i ? p_format("%02zx", i * 11 % 251) : "04");
    return m_spki(algorithm, d);
}

/* Kinds of keys, and what is signed with them; without an algorithm the signature is ECDSA's. */
static const struct kind {
    const char *words;
    const char *key;       /* AlgorithmIdentifier's contents; NULL: made otherwise */
    size_t size;           /* of the key: bits of RSA, bytes of others */
    const char *algorithm; /* of signatures */
    size_t noise;          /* their size */
    int rsa;
} kinds[] = {
    {"8,192|8192", NULL, 8192, "06092a864886f70d01010b0500", 1024, 1},
    {"4,104|4104", NULL, 4104, "06092a864886f70d01010b0500", 513, 1},
    {"compressed", NULL, 33, NULL, 0, 0},
    {"RSA-PSS|RSASSA-PSS", "06092a864886f70d01010a", 270, "06092a864886f70d01010a", 256, 1},
    {"Ed25519", "06032b6570", 32, "06032b6570", 64, 0},
    {"Ed448", "06032b6571", 57, "06032b6571", 114, 0},
    {"secp256k1", OID_EC "06052b8104000a", 65, "06082a8648ce3d040302", 0, 0},
    {"brainpool", OID_EC "06092b2403030208010107", 65, "06082a8648ce3d040302", 0, 0},
    {"brainpool", OID_EC "06092b240303020801010d", 129, "06082a8648ce3d040302", 0, 0},
    {"secp224r1|P-224", OID_EC "06052b81040021", 57, "06082a8648ce3d040302", 0, 0},
    {" DSA|(DSA|'DSA", "06072a8648ce380401", 130, "0609608648016503040302", 46, 0},
    {"2.16.840.1.101.3.4.3.17|ML-DSA", "0609608648016503040311", 1312, "0609608648016503040311",
     2420, 0},
};

static m_der key_of_kind(const struct kind *k, int number) {
    if (k->key)
        return noise_key(k->key, k->size);
    return k->rsa ? m_rsa_spki(k->size) : compressed_key(number);
}

/* A chain whose certificate at this place has such a key; what is below is signed with it. */
static h_outcome judge_kind(const struct kind *k, int place) {
    m_der certs[3], chain[2], key = key_of_kind(k, place);
    for (int i = 0; i < 3; i++) {
        m_spec s = spec_of(i);
        if (i == place)
            s.spki = &key;
        if ((i == place + 1 || (i == 0 && place == 0)) && k->algorithm) {
            s.algorithm = k->algorithm;
            s.noise = k->noise;
        }
        certs[i] = issue(s);
    }
    chain[0] = certs[2];
    chain[1] = certs[1];
    return judge_chain(client_that_trusts(&certs[0]), chain, 2, place == 2 && k->rsa);
}

T_TEST(keys_that_this_library_cannot_use_are_named, 120) {
    static const char *const places[] = {"root", "middle", "leaf"};
    int wrong = 0;
    for (size_t i = 0; i < COUNT(kinds) * 3; i++) {
        const struct kind *k = &kinds[i / 3];
        int place = (int)i % 3;
        char what[96];
        h_outcome o;
        snprintf(what, sizeof what, "%s in the %s", k->words, places[place]);
        T_STEP("%s", what);
        o = judge_kind(k, place);
        wrong += is_told(what, &o, k->words, NEVER);
        wrong += is_told(what, &o, "this library", NEVER);
        if (o.verify_code && place < 2 && o.verify_code != 6 && o.verify_code != 76) {
            fprintf(stderr, "%s: code %d, not 6 or 76\n", what, o.verify_code);
            wrong++;
        }
    }
    T_EQ(wrong, 0);
}

/* By keys that this library does use. */
T_TEST(signatures_that_this_library_cannot_check_are_named, 60) {
    static const struct {
        const char *words, *algorithm;
        int by_rsa;
    } list[] = {
        {"RSA-PSS|RSASSA-PSS", "06092a864886f70d01010a3000", 1},
        {"SHA-224|SHA224", "06092a864886f70d01010e0500", 1},
        {"SHA3|SHA-3|2.16.840.1.101.3.4.3.14", "060960864801650304030e0500", 1},
        {"SHA-224|SHA224", "06082a8648ce3d040301", 0},
        {"SHA3|SHA-3|2.16.840.1.101.3.4.3.10", "060960864801650304030a", 0},
        {"1.2.3.4", "06032a0304", 0},
    };
    int wrong = 0;
    for (size_t i = 0; i < COUNT(list) * 2; i++) {
        int below = (int)i % 2; /* signed by the root, or by what is between */
        m_der rsa = m_rsa_spki(2048), certs[3], chain[2];
        h_outcome o;
        for (int place = 0; place < 3; place++) {
            m_spec s = spec_of(place);
            if (list[i / 2].by_rsa && place == below)
                s.spki = &rsa;
            if (place == below + 1) {
                s.algorithm = list[i / 2].algorithm;
                s.noise = list[i / 2].by_rsa ? 256 : 70;
            }
            certs[place] = issue(s);
        }
        chain[0] = certs[2];
        chain[1] = certs[1];
        o = judge_chain(client_that_trusts(&certs[0]), chain, 2, 0);
        wrong += is_told(list[i / 2].words, &o, list[i / 2].words, NEVER);
        wrong += is_told(list[i / 2].words, &o, "this library", NEVER);
        if (o.verify_code && o.verify_code != 76) {
            fprintf(stderr, "%s: code %d, not 76\n", list[i / 2].words, o.verify_code);
            wrong++;
        }
    }
    T_EQ(wrong, 0);
}

/* What is wrong is still called wrong. */
T_TEST(a_wrong_signature_is_still_called_wrong, 60) {
    m_der root = issue(root_spec()), chain[2];
    m_spec s = leaf_spec();
    h_outcome o;
    s.signer = 5;
    chain[0] = issue(s);
    chain[1] = issue(middle_spec());
    o = judge_chain(client_that_trusts(&root), chain, 2, 0);
    h_is_refusal(&o, 7, "certificate signature failure");
    if (h_contains(o.message, "this library"))
        T_FAIL("'%s'", o.message);
}

/* Two roots of one name: one that can be used is enough. */
T_TEST(an_anchor_that_cannot_be_used_hides_no_other, 60) {
    m_der chain[2] = {issue(leaf_spec()), issue(middle_spec())};
    for (size_t i = 0; i < COUNT(kinds) * 2; i++) {
        const struct kind *k = &kinds[i / 2];
        m_der key = key_of_kind(k, 3), odd, root = issue(root_spec());
        pysock_ssl_context *client = new_client();
        m_spec s = root_spec();
        h_outcome o;
        T_STEP("%s", k->words);
        s.spki = &key;
        odd = issue(s);
        for (size_t turn = 0; turn < 2; turn++) {
            const m_der *one = (turn == 0) == (i % 2 == 0) ? &odd : &root;
            T_OK(pysock_ssl_load_verify_data(client, one->data, one->size));
        }
        T_EQ(pysock_ssl_ca_count(client), 2);
        o = judge_chain(client, chain, 2, 0);
        if (!s_is_taken(&o))
            T_FAIL("%s", o.message);
    }
}

/* A server that has such a certificate and its key, and a client that looks at no chain. */
T_TEST(the_key_of_a_server_is_named_without_verification_too, 60) {
    int wrong = 0;
    for (size_t i = 0; i < COUNT(kinds); i++) {
        pysock_ssl_context *client = new_client();
        m_der key = key_of_kind(&kinds[i], 2), leaf;
        m_spec s = leaf_spec();
        h_outcome o;
        T_STEP("%s", kinds[i].words);
        s.spki = &key;
        leaf = issue(s);
        T_OK(pysock_ssl_set_check_hostname(client, 0));
        T_OK(pysock_ssl_set_verify_mode(client, PYSOCK_CERT_NONE));
        o = judge_chain(client, &leaf, 1, kinds[i].rsa);
        if (s_is_taken(&o) || !says_one_of(o.message, kinds[i].words) ||
            !h_contains(o.message, "this library") || says_one_of(o.message, NEVER)) {
            fprintf(stderr, "%s: %s\n", kinds[i].words, o.message);
            wrong++;
        }
    }
    T_EQ(wrong, 0);
}

T_TEST(a_chain_with_a_key_that_cannot_be_used_is_not_loaded, 60) {
    int wrong = 0;
    for (size_t i = 0; i < COUNT(kinds); i++) {
        pysock_ssl_context *server = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
        m_der public = key_of_kind(&kinds[i], 2), key = m_key_der(2), leaf;
        p_text text = {NULL, 0, 0};
        m_spec s = leaf_spec();
        const char *path;
        int r;
        s.spki = &public;
        leaf = issue(s);
        m_put_certificate(&text, &leaf);
        m_put_pem(&text, "EC PRIVATE KEY", key.data, key.size);
        path = f_write("chain.pem", text.data, text.size);
        free(text.data);
        pysock_error_clear();
        r = pysock_ssl_load_cert_chain(server, path, NULL);
        if (r == 0 || !strstr(pysock_error_message(), path) ||
            !says_besides(pysock_error_message(), path, kinds[i].words) ||
            h_contains(pysock_error_message(), "does not belong")) {
            fprintf(stderr, "%s: %d (%s)\n", kinds[i].words, r, pysock_error_message());
            wrong++;
        }
        pysock_ssl_context_release(server);
    }
    T_EQ(wrong, 0);
}

/* Who shows a chain need not be able to check it. */
T_TEST(an_issuer_that_cannot_be_used_is_shown, 60) {
    for (size_t i = 0; i < COUNT(kinds); i++) {
        m_der key = key_of_kind(&kinds[i], 1), middle, leaf;
        m_spec s = middle_spec();
        pysock_ssl_context *client = new_client(), *server;
        h_pair p;
        T_STEP("%s", kinds[i].words);
        s.spki = &key;
        middle = issue(s);
        s = leaf_spec();
        s.algorithm = kinds[i].algorithm;
        s.noise = kinds[i].noise;
        leaf = issue(s);
        server = server_with(&leaf, &middle);
        T_OK(pysock_ssl_set_check_hostname(client, 0));
        T_OK(pysock_ssl_set_verify_mode(client, PYSOCK_CERT_NONE));
        h_connect(&p, client, server, WWW);
        T_EQ(pysock_ssl_get_unverified_chain(p.client, NULL, 0), 2);
        h_close(&p);
        pysock_ssl_context_release(client);
        pysock_ssl_context_release(server);
    }
}

/* ---- the same by openssl, which does have the keys ---- */

/* Compressed points it shows to nobody who has not asked for them. */
T_TEST(a_server_of_openssl_with_a_long_rsa_key_is_told_from_a_forger, 120) {
    P_NEED("openssl");
    f_run("openssl req -x509 -newkey rsa:4160 -nodes -keyout key -subj /CN=localhost -days 30 "
          "-addext 'subjectAltName = DNS:localhost' -out cert");
    for (int verify = 0; verify < 2; verify++) {
        static p_process p;
        p_args args = {{NULL}, 0};
        pysock_ssl_context *client = new_client();
        h_outcome o;
        pysock *s;
        int port;
        T_OK(pysock_ssl_load_verify_locations(client, f_path("cert"), NULL));
        if (!verify) {
            T_OK(pysock_ssl_set_check_hostname(client, 0));
            T_OK(pysock_ssl_set_verify_mode(client, PYSOCK_CERT_NONE));
        }
        p_add(&args, "openssl", "s_server", "-accept", "127.0.0.1:" P_PORT, "-cert", f_path("cert"),
              "-key", f_path("key"), "-tls1_2", "-quiet", NULL);
        s = p_start_server(&p, &args, &port);
        T_OK(pysock_settimeout(s, H_TIMEOUT));
        o = h_outcome_of(pysock_ssl_wrap_socket(s, client, "localhost"));
        if (o.result == 0)
            T_FAIL("accepted");
        T_CHECK(says_one_of(o.message, "4,160|4160"));
        H_CONTAINS(o.message, "this library");
        if (says_one_of(o.message, NEVER))
            T_FAIL("'%s'", o.message);
        T_OK(pysock_close(s));
        p_end(&p);
        pysock_ssl_context_release(client);
    }
}

/* ==== what a refusal says ==== */

T_TEST(an_expired_certificate_is_refused_with_its_date_and_the_clock, 60) {
    static const struct {
        const char *not_before, *not_after;
        int code;
        const char *year, *day;
    } list[] = {
        {"010203040506Z", "030417060708Z", 10, "2003", "17"},
        {"470213040506Z", "490405060708Z", 9, "2047", "13"},
    };
    time_t now = time(NULL);
    for (size_t i = 0; i < COUNT(list) * 3; i++) {
        int place = (int)i % 3;
        m_der certs[3], chain[2];
        h_outcome o;
        T_STEP("%d in %d", list[i / 3].code, place);
        for (int k = 0; k < 3; k++) {
            m_spec s = spec_of(k);
            if (k == place) {
                s.not_before = list[i / 3].not_before;
                s.not_after = list[i / 3].not_after;
            }
            certs[k] = issue(s);
        }
        chain[0] = certs[2];
        chain[1] = certs[1];
        o = judge_chain(client_that_trusts(&certs[0]), chain, 2, 0);
        T_EQ(o.verify_code, list[i / 3].code);
        H_CONTAINS(o.message, list[i / 3].year);
        H_CONTAINS(o.message, list[i / 3].day);
        H_CONTAINS(o.message, "clock");
        H_CONTAINS(o.message, p_format("%d", gmtime(&now)->tm_year + 1900));
    }
}

/* A leaf with so many DNS names: n1.example.test ... */
static m_der leaf_of_names(int count) {
    m_der names = m_hex(""), extension = m_hex("0603551d11"), leaf;
    m_spec s = leaf_spec();
    for (int i = 1; i <= count; i++)
        m_add(&names, m_string(0x82, p_format("n%d.example.test", i)));
    m_add(&extension, m_tlv(0x04, m_tlv(0x30, names)));
    extension = m_tlv(0x30, extension);
    s.extensions = M_LEAF_USAGE M_SERVER;
    s.extension = &extension;
    leaf = issue(s);
    return leaf;
}

static h_outcome judge_leaf(const m_der *leaf) {
    m_der root = issue(root_spec()), chain[2] = {*leaf, issue(middle_spec())};
    return judge_chain(client_that_trusts(&root), chain, 2, 0);
}

T_TEST(a_wrong_host_is_told_a_few_names_that_are_right, 60) {
    m_der leaf = leaf_of_names(2);
    h_outcome o = judge_leaf(&leaf);
    h_is_refusal(&o, 62, "hostname mismatch");
    H_CONTAINS(o.message, WWW);
    H_CONTAINS(o.message, "n1.example.test");
    H_CONTAINS(o.message, "n2.example.test");
    leaf = leaf_of_names(300);
    o = judge_leaf(&leaf);
    h_is_refusal(&o, 62, "hostname mismatch");
    H_CONTAINS(o.message, WWW);
    H_CONTAINS(o.message, "n1.example.test");
    for (int i = 20; i <= 300; i++)
        if (h_contains(o.message, p_format("n%d.example.test", i)))
            T_FAIL("too many names: '%s'", o.message);
    T_CHECK(strlen(o.message) < 500);
}

T_TEST(a_wrong_address_is_told_the_addresses_that_are_right, 60) {
    m_der root = issue(root_spec()), middle = issue(middle_spec()), leaf;
    m_spec s = leaf_spec();
    h_outcome o;
    s.extensions = M_LEAF_USAGE M_SERVER SAN_TEST_NET;
    leaf = issue(s);
    o = judge_whole(client_that_trusts(&root), &leaf, &middle, "198.51.100.7");
    h_is_refusal(&o, 64, "IP address mismatch");
    H_CONTAINS(o.message, "198.51.100.7");
    H_CONTAINS(o.message, "192.0.2.1");
}

/* A name is the peer's own text: it writes no lines of its own, and no escapes. */
T_TEST(names_in_a_message_are_text_that_cannot_do_harm, 60) {
    m_der names = m_string(0x82, "a\nb.test"), extension = m_hex("0603551d11"), leaf;
    m_spec s = leaf_spec();
    h_outcome o;
    m_add(&names, m_string(0x82, "c\x1b[31md.test"));
    m_add(&names, m_tlv(0x82, m_bytes("e\0f.test", 8)));
    m_add(&names, m_string(0x82, "\xff\xfe.test"));
    m_add(&names, m_string(0x82, "plain.test"));
    m_add(&extension, m_tlv(0x04, m_tlv(0x30, names)));
    extension = m_tlv(0x30, extension);
    s.extensions = M_LEAF_USAGE M_SERVER;
    s.extension = &extension;
    leaf = issue(s);
    o = judge_leaf(&leaf);
    T_EQ(o.kind, PYSOCK_SSL_CERT_VERIFICATION_ERROR);
    H_CONTAINS(o.message, WWW);
    for (const char *p = o.message; *p; p++)
        if ((unsigned char)*p < 0x20 || (unsigned char)*p >= 0x7f)
            T_FAIL("byte %d of the message is 0x%02x", (int)(p - o.message), (unsigned char)*p);
}

T_MAIN(.each_teardown = p_clear_away)
