/* Private keys: every form that openssl writes, with the right password, a wrong one and none; what
   is not supported is named. Each key loads against a certificate that was made of it. */
#include "support/support.h"
#include "support/files.h"
#include "support/handshake.h"
#include "support/process.h"
#include "support/shell.h"

#define PASSWORD "correct horse battery staple"

static const char *const rsa_keys[] = {"rsa2048", "rsa3072", "rsa4096"};
static const char *const ec_keys[] = {"p256", "p384", "p521"};

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* ---- making keys ---- */

/* Runs a line of shell in the test's directory. */
static void certify(const char *name) {
    f_run(p_format("openssl req -x509 -key %s.key -subj /CN=localhost -days 30 -out %s.pem", name,
                   name));
}

static int make_keys(void **state) {
    static const char *const curves[] = {"P-256", "P-384", "P-521"};
    (void)state;
    if (!p_is_installed("openssl"))
        return 0; /* each test says so */
    t_deadline_at(__func__, 300);
    for (size_t i = 0; i < COUNT(rsa_keys); i++) {
        f_run(p_format("openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:%s -out %s.key",
                       rsa_keys[i] + 3, rsa_keys[i]));
        certify(rsa_keys[i]);
    }
    for (size_t i = 0; i < COUNT(ec_keys); i++) {
        f_run(p_format("openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:%s -out %s.key",
                       curves[i], ec_keys[i]));
        certify(ec_keys[i]);
    }
    return 0;
}

/* ---- loading them ---- */

static int load(pysock_ssl_context *ctx, const char *cert, const char *key, const char *password) {
    pysock_ssl_chain_options options = PYSOCK_SSL_CHAIN_OPTIONS_INIT;
    options.certfile = f_path(p_format("%s.pem", cert));
    options.keyfile = f_path(key);
    options.password = password;
    return pysock_ssl_load_cert_chain_ex(ctx, &options);
}

static pysock_ssl_context *new_server(void) {
    return T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
}

static void loads(const char *cert, const char *key, const char *password) {
    pysock_ssl_context *ctx = new_server();
    T_STEP("%s for %s", key, cert);
    T_OK(load(ctx, cert, key, password));
    pysock_ssl_context_release(ctx);
}

static void is_error(const char *reason, const char *library, const char *words) {
    if (strcmp(pysock_error_reason(), reason) != 0 || strcmp(pysock_error_library(), library) != 0)
        T_FAIL("[%s: %s], not [%s: %s]: %s", pysock_error_library(), pysock_error_reason(), library,
               reason, pysock_error_message());
    if (!strstr(pysock_error_message(), words))
        T_FAIL("'%s' does not say '%s'", pysock_error_message(), words);
}

static void fails(const char *cert, const char *key, const char *password, const char *reason,
                  const char *library, const char *words) {
    pysock_ssl_context *ctx = new_server();
    T_STEP("%s for %s", key, cert);
    T_FAILS(load(ctx, cert, key, password), PYSOCK_SSL_ERROR, EPROTO);
    is_error(reason, library, words);
    if (!strstr(pysock_error_message(), key))
        T_FAIL("'%s' does not name %s", pysock_error_message(), key);
    pysock_ssl_context_release(ctx);
}

/* An encrypted key. */
static void opens(const char *cert, const char *key) {
    loads(cert, key, PASSWORD);
    fails(cert, key, "Correct horse battery staple", "BAD_DECRYPT", "PEM", "password is wrong");
    fails(cert, key, "", "BAD_DECRYPT", "PEM", "password is wrong");
    fails(cert, key, NULL, "BAD_PASSWORD_READ", "PEM", "there is no password");
}

static void contains(const char *name, const char *text) {
    char *data = f_read(f_path(name), NULL);
    if (!strstr(data, text))
        T_FAIL("%s was to have '%s':\n%s", name, text, data);
    free(data);
}

/* The server's key signs in a handshake; the client looks at nothing but the signature. */
static void shakes_hands(const char *cert, const char *key, const char *password) {
    pysock_ssl_context *server = new_server();
    pysock_ssl_context *client = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    h_pair p;
    T_STEP("a handshake with %s", key);
    T_OK(pysock_ssl_set_check_hostname(client, 0));
    T_OK(pysock_ssl_set_verify_mode(client, PYSOCK_CERT_NONE));
    T_OK(load(server, cert, key, password));
    h_connect(&p, client, server, "localhost");
    h_greet(&p);
    h_close(&p);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

/* ==== keys that are not encrypted ==== */

T_TEST(rsa_keys_load_as_pkcs1_and_pkcs8, 120) {
    P_NEED("openssl");
    for (size_t i = 0; i < COUNT(rsa_keys); i++) {
        const char *k = rsa_keys[i];
        contains(p_format("%s.key", k), "-----BEGIN PRIVATE KEY-----");
        shakes_hands(k, p_format("%s.key", k), NULL);
        f_run(p_format("openssl rsa -in %s.key -traditional -out pkcs1.key", k));
        contains("pkcs1.key", "-----BEGIN RSA PRIVATE KEY-----");
        shakes_hands(k, "pkcs1.key", NULL);
        f_run(p_format("openssl pkcs8 -topk8 -nocrypt -in pkcs1.key -out pkcs8.key"));
        loads(k, "pkcs8.key", NULL);
    }
}

T_TEST(ec_keys_load_as_sec1_and_pkcs8, 120) {
    P_NEED("openssl");
    for (size_t i = 0; i < COUNT(ec_keys); i++) {
        const char *k = ec_keys[i];
        contains(p_format("%s.key", k), "-----BEGIN PRIVATE KEY-----");
        shakes_hands(k, p_format("%s.key", k), NULL);
        f_run(p_format("openssl ec -in %s.key -out sec1.key", k));
        contains("sec1.key", "-----BEGIN EC PRIVATE KEY-----");
        shakes_hands(k, "sec1.key", NULL);
        f_run(p_format("openssl ec -in %s.key -no_public -out private.key", k));
        loads(k, "private.key", NULL);
        f_run(p_format("openssl ec -in %s.key -conv_form compressed -out compressed.key", k));
        loads(k, "compressed.key", NULL);
        f_run("openssl pkcs8 -topk8 -nocrypt -in private.key -out pkcs8.key");
        loads(k, "pkcs8.key", NULL);
    }
}

T_TEST(a_key_by_ecparam_loads_behind_its_parameters, 60) {
    static const char *const names[] = {"prime256v1", "secp384r1", "secp521r1"};
    P_NEED("openssl");
    for (size_t i = 0; i < COUNT(names); i++) {
        f_run(p_format("openssl ecparam -name %s -genkey -out ecparam.key", names[i]));
        contains("ecparam.key", "-----BEGIN EC PARAMETERS-----");
        contains("ecparam.key", "-----BEGIN EC PRIVATE KEY-----");
        certify("ecparam");
        shakes_hands("ecparam", "ecparam.key", NULL);
    }
}

/* SEC1 lets a key leave its curve to EC PARAMETERS; openssl writes none like this. */
T_TEST(a_key_without_a_curve_takes_that_of_its_parameters, 60) {
    static const char *const names[] = {"prime256v1", "secp384r1", "secp521r1"};
    P_NEED("openssl");
    for (size_t i = 0; i < COUNT(ec_keys); i++) {
        size_t n;
        char *der;
        f_run(p_format("openssl ec -in %s.key -no_public -outform DER -out full.der", ec_keys[i]));
        der = f_read(f_path("full.der"), &n);
        T_CHECK(n > 10 && der[0] == 0x30 && der[2] == 2 && der[5] == 4);
        der[1] = (char)(5 + der[6]); /* the version and the scalar alone */
        f_write("short.der", der, (size_t)der[1] + 2);
        free(der);
        f_run("(echo '-----BEGIN EC PRIVATE KEY-----'; openssl base64 -in short.der; "
              "echo '-----END EC PRIVATE KEY-----') >short.key");
        fails(ec_keys[i], "short.key", NULL, "UNSUPPORTED_PRIVATE_KEY_ALGORITHM", "SSL",
              "does not name its curve");
        f_run(p_format("(openssl ecparam -name %s; cat short.key) >pair.key", names[i]));
        shakes_hands(ec_keys[i], "pair.key", NULL);
        f_run(p_format("(openssl ecparam -name %s; cat short.key) >wrong.key", names[(i + 1) % 3]));
        if (i < 2)
            fails(ec_keys[i], "wrong.key", NULL, "KEY_VALUES_MISMATCH", "X509", "does not belong");
        else
            fails(ec_keys[i], "wrong.key", NULL, "PEM_LIB", "SSL", "damaged");
    }
}

T_TEST(keys_of_other_kinds_are_named, 240) {
    static const struct {
        const char *make, *words;
    } other[] = {
        {"openssl genpkey -algorithm ED25519", "Ed25519"},
        {"openssl genpkey -algorithm ED448", "Ed448"},
        {"openssl genpkey -algorithm X25519", "X25519"},
        {"openssl genpkey -algorithm X448", "X448"},
        {"openssl genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048", "RSA-PSS"},
        {"openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:secp256k1", "another curve"},
        {"openssl ecparam -name secp224r1 -genkey -noout", "another curve"},
        {"openssl ec -in p256.key -param_enc explicit", "explicit curve parameters"},
        {"openssl ec -in p256.key -param_enc explicit | openssl pkcs8 -topk8 -nocrypt",
         "explicit curve parameters"},
        {"openssl genrsa -primes 3 2048", "more than two primes"},
        {"openssl genrsa -traditional 4160", "more than 4,096 bits"},
        {"openssl dsaparam -genkey -noout 1024", "DSA"},
        {"openssl dsaparam -genkey -noout 1024 | openssl dsa", "DSA"},
        {"openssl genpkey -algorithm DH -pkeyopt group:ffdhe2048", "Diffie-Hellman"},
        {"sed 's/BEGIN P/BEGIN OPENSSH P/;s/END P/END OPENSSH P/' p256.key", "ssh-keygen"},
        {"openssl genpkey -algorithm ED25519 -aes256 -pass 'pass:" PASSWORD "'", "Ed25519"},
    };
    P_NEED("openssl");
    for (size_t i = 0; i < COUNT(other); i++) {
        T_STEP("%s", other[i].make);
        f_run(p_format("{ %s; } >other.key", other[i].make));
        fails("p256", "other.key", PASSWORD, "UNSUPPORTED_PRIVATE_KEY_ALGORITHM", "SSL",
              other[i].words);
    }
}

/* ==== encrypted keys ==== */

T_TEST(the_traditional_form_opens_with_every_cipher, 240) {
    static const struct {
        const char *option, *name;
    } ciphers[] = {
        {"-aes128", "AES-128-CBC"},
        {"-aes192", "AES-192-CBC"},
        {"-aes256", "AES-256-CBC"},
        {"-des3", "DES-EDE3-CBC"},
        {"-des -provider legacy -provider default", "DES-CBC"},
    };
    P_NEED("openssl");
    for (size_t c = 0; c < COUNT(ciphers); c++) {
        for (size_t i = 0; i < COUNT(rsa_keys); i++) {
            f_run(p_format("openssl rsa -in %s.key -traditional %s -passout 'pass:" PASSWORD
                           "' -out old.key",
                           rsa_keys[i], ciphers[c].option));
            contains("old.key", "Proc-Type: 4,ENCRYPTED");
            contains("old.key", p_format("DEK-Info: %s,", ciphers[c].name));
            opens(rsa_keys[i], "old.key");
        }
        for (size_t i = 0; i < COUNT(ec_keys); i++) {
            f_run(p_format("openssl ec -in %s.key %s -passout 'pass:" PASSWORD "' -out old.key",
                           ec_keys[i], ciphers[c].option));
            contains("old.key", p_format("DEK-Info: %s,", ciphers[c].name));
            opens(ec_keys[i], "old.key");
        }
    }
    shakes_hands("p521", "old.key", PASSWORD);
}

T_TEST(pkcs8_opens_with_every_cipher_and_prf, 240) {
    static const char *const ciphers[] = {"aes-128-cbc", "aes-192-cbc", "aes-256-cbc", "des3"};
    static const char *const prfs[] = {"hmacWithSHA1", "hmacWithSHA224", "hmacWithSHA256",
                                       "hmacWithSHA384", "hmacWithSHA512"};
    P_NEED("openssl");
    for (size_t c = 0; c < COUNT(ciphers) * COUNT(prfs); c++) {
        const char *cert = c % 2 ? rsa_keys[c % 3] : ec_keys[c % 3];
        f_run(p_format(
            "openssl pkcs8 -topk8 -in %s.key -v2 %s -v2prf %s -iter %zu -passout 'pass:" PASSWORD
            "' -out new.key",
            cert, ciphers[c % 4], prfs[c / 4], 1 + c * 50));
        contains("new.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----");
        opens(cert, "new.key");
    }
    shakes_hands("p521", "p521.key", NULL);
}

T_TEST(keys_open_as_the_tools_write_them_by_default, 120) {
    static const char *const lines[] = {
        "openssl pkcs8 -topk8 -in rsa2048.key -passout 'pass:" PASSWORD "'",
        "openssl pkcs8 -topk8 -in rsa4096.key -v2 aes256 -passout 'pass:" PASSWORD "'",
        "openssl rsa -in rsa3072.key -aes128 -passout 'pass:" PASSWORD "'",
        "openssl pkey -in rsa2048.key -aes256 -passout 'pass:" PASSWORD "'",
        "openssl pkey -in p384.key -des3 -passout 'pass:" PASSWORD "'",
        "openssl pkey -in p256.key -traditional -aes192 -passout 'pass:" PASSWORD "'",
    };
    static const char *const certs[] = {"rsa2048", "rsa4096", "rsa3072", "rsa2048", "p384", "p256"};
    P_NEED("openssl");
    for (size_t i = 0; i < COUNT(lines); i++) {
        f_run(p_format("{ %s; } >default.key", lines[i]));
        opens(certs[i], "default.key");
        shakes_hands(certs[i], "default.key", PASSWORD);
    }
    f_run("openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -aes256 -pass "
          "'pass:" PASSWORD
          "' -out made.key; openssl req -x509 -key made.key -passin 'pass:" PASSWORD
          "' -subj /CN=localhost -out made.pem");
    opens("made", "made.key");
    f_run("openssl genrsa -aes128 -passout 'pass:" PASSWORD "' -out made.key 2048;"
          "openssl req -x509 -key made.key -passin 'pass:" PASSWORD
          "' -subj /CN=localhost -out made.pem");
    opens("made", "made.key");
    f_run("openssl req -x509 -newkey rsa:2048 -keyout made.key -passout 'pass:" PASSWORD
          "' -subj /CN=localhost -out made.pem");
    opens("made", "made.key");
}

T_TEST(a_key_by_certtool_opens, 60) {
    P_NEED("openssl");
    P_NEED("certtool");
    f_run("certtool --to-p8 --load-privkey p384.key --password '" PASSWORD
          "' --pkcs-cipher aes-192 --outfile gnutls.key");
    loads("p384", "gnutls.key", PASSWORD);
    fails("p384", "gnutls.key", "no", "BAD_DECRYPT", "PEM", "password is wrong");
}

T_TEST(encryption_of_other_kinds_is_named, 120) {
#define LEGACY " -provider legacy -provider default"
    static const struct {
        const char *make, *words;
    } other[] = {
        {"pkcs8 -topk8 -in p256.key -scrypt", "scrypt"},
        {"pkcs8 -topk8 -in p256.key -v2 camellia-256-cbc", "another cipher"},
        {"pkcs8 -topk8 -in p256.key -v2 aes-256-ofb", "another cipher"},
        {"pkcs8 -topk8 -in p256.key -v2 rc2" LEGACY, "RC2"},
        {"pkcs8 -topk8 -in p256.key -v2prf hmacWithSHA512-256", "PRF"},
        {"pkcs8 -topk8 -in p256.key -v2prf hmacWithMD5", "PRF"},
        {"pkcs8 -topk8 -in p256.key -v1 PBE-MD5-DES" LEGACY, "PBES1"},
        {"pkcs8 -topk8 -in p256.key -v1 PBE-SHA1-3DES", "PKCS#12"},
        {"rsa -traditional -in rsa2048.key -camellia128", "CAMELLIA-128-CBC"},
        {"ec -in p256.key -aria256", "ARIA-256-CBC"},
    };
    P_NEED("openssl");
    for (size_t i = 0; i < COUNT(other); i++) {
        f_run(p_format("openssl %s -passout 'pass:" PASSWORD "' >other.key", other[i].make));
        fails("p256", "other.key", PASSWORD, "UNSUPPORTED_ENCRYPTION", "PEM", other[i].words);
        if (!strstr(pysock_error_message(), "openssl pkcs8 -topk8 -v2 aes-256-cbc"))
            T_FAIL("'%s' does not say what to do", pysock_error_message());
    }
}

/* ---- PKCS#8 as other programs write it, out of what openssl wrote ---- */

typedef struct blob {
    unsigned char data[4096];
    size_t size;
} blob;

static void put(blob *b, int tag, const void *data, size_t size) {
    unsigned char *p = b->data + b->size;
    T_CHECK(size < 0x10000 && b->size + size + 4 <= sizeof b->data);
    *p++ = (unsigned char)tag;
    if (size > 0xff)
        *p++ = 0x82;
    else if (size > 0x7f)
        *p++ = 0x81;
    if (size > 0xff)
        *p++ = (unsigned char)(size >> 8);
    *p++ = (unsigned char)size;
    memcpy(p, data, size);
    b->size = (size_t)(p - b->data) + size;
}

static void put_blob(blob *b, int tag, const blob *inner) {
    put(b, tag, inner->data, inner->size);
}

/* The element behind the tag-length-value that these bytes are. */
static const unsigned char *behind(const char *der, size_t size, const void *tlv, size_t n) {
    const unsigned char *p = memmem(der, size, tlv, n);
    T_CHECK(p != NULL);
    return p + n;
}

/* Encrypted p256.key by AES-256 and HMAC-SHA1, with these integers (DER) as the number of
   iterations and the length of the key; an empty one is left out. */
static void write_pkcs8(const char *name, const char *iterations, size_t ilen, const char *length,
                        size_t llen) {
    static const char pbes2[] = "\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d";
    static const char pbkdf2[] = "\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0c";
    static const char aes[] = "\x60\x86\x48\x01\x65\x03\x04\x01\x2a";
    blob params = {{0}, 0}, kdf = {{0}, 0}, cipher = {{0}, 0}, both = {{0}, 0}, seq = {{0}, 0};
    blob alg = {{0}, 0}, all = {{0}, 0};
    const unsigned char *p;
    size_t size;
    char *der;
    f_run("openssl pkcs8 -topk8 -in p256.key -v2 aes-256-cbc -v2prf hmacWithSHA1 -iter 1000 "
          "-passout 'pass:" PASSWORD "' | sed /-----/d | openssl base64 -d >plain.der");
    der = f_read(f_path("plain.der"), &size);
    p = behind(der, size, pbkdf2, 9); /* SEQUENCE, OCTET STRING */
    put(&params, 4, p + 4, p[3]);
    put(&params, 2, iterations, ilen);
    if (llen)
        put(&params, 2, length, llen);
    put(&kdf, 6, pbkdf2, 9);
    put_blob(&kdf, 0x30, &params);
    p = behind(der, size, aes, 9);
    put(&cipher, 6, aes, 9);
    put(&cipher, 4, p + 2, p[1]);
    p += 2 + p[1]; /* OCTET STRING with a length of two bytes */
    T_CHECK(p[0] == 4 && p[1] == 0x81);
    put_blob(&both, 0x30, &kdf);
    put_blob(&both, 0x30, &cipher);
    put(&alg, 6, pbes2, 9);
    put_blob(&alg, 0x30, &both);
    put_blob(&seq, 0x30, &alg);
    put(&seq, 4, p + 3, p[2]);
    put_blob(&all, 0x30, &seq);
    free(der);
    f_write("again.der", all.data, all.size);
    f_run(p_format("(echo '-----BEGIN ENCRYPTED PRIVATE KEY-----'; openssl base64 -in again.der; "
                   "echo '-----END ENCRYPTED PRIVATE KEY-----') >%s",
                   name));
}

T_TEST(a_key_may_tell_the_length_of_its_cipher_key, 60) {
    P_NEED("openssl");
    write_pkcs8("length.key", "\x03\xe8", 2, "", 0);
    opens("p256", "length.key");
    write_pkcs8("length.key", "\x03\xe8", 2, "\x20", 1);
    opens("p256", "length.key");
    write_pkcs8("length.key", "\x03\xe8", 2, "\x10", 1);
    fails("p256", "length.key", PASSWORD, "UNSUPPORTED_ENCRYPTION", "PEM", "key length");
    write_pkcs8("length.key", "\x03\xe8", 2, "\x00", 1);
    fails("p256", "length.key", PASSWORD, "PEM_LIB", "SSL", "damaged");
}

T_TEST(the_number_of_iterations_is_bounded, 60) {
    static const char *const many[] = {"\x00\x98\x96\x81", "\x7f\xff\xff\xff"};
    P_NEED("openssl");
    for (size_t i = 0; i < COUNT(many); i++) {
        write_pkcs8("many.key", many[i], 4, "", 0);
        fails("p256", "many.key", PASSWORD, "UNSUPPORTED_ENCRYPTION", "PEM", "10,000,000");
    }
    write_pkcs8("many.key", "\x01\x00\x00\x00\x00\x00\x00\x00\x01", 9, "", 0);
    fails("p256", "many.key", PASSWORD, "UNSUPPORTED_ENCRYPTION", "PEM", "10,000,000");
    write_pkcs8("many.key", "\x00", 1, "", 0);
    fails("p256", "many.key", PASSWORD, "PEM_LIB", "SSL", "damaged");
    write_pkcs8("many.key", "\xff", 1, "", 0);
    fails("p256", "many.key", PASSWORD, "PEM_LIB", "SSL", "damaged");
}

/* One wrong password in 256 leaves what looks like good padding. */
T_TEST(a_wrong_password_is_told_whatever_it_yields, 120) {
    static const char *const names[] = {"new.key", "old.key"};
    P_NEED("openssl");
    f_run("openssl pkcs8 -topk8 -in p256.key -iter 1 -passout 'pass:" PASSWORD "' -out new.key");
    f_run("openssl ec -in p256.key -aes128 -passout 'pass:" PASSWORD "' -out old.key");
    for (int i = 0; i < 2 * 1500; i++)
        fails("p256", names[i % 2], p_format("guess %d", i), "BAD_DECRYPT", "PEM", "password");
    loads("p256", "new.key", PASSWORD);
    loads("p256", "old.key", PASSWORD);
}

/* ==== passwords ==== */

typedef struct answer {
    const char *password;
    ptrdiff_t length;
    int asked;
    size_t size;
} answer;

static ptrdiff_t give_password(void *arg, char *buf, size_t size) {
    answer *a = arg;
    a->asked++;
    a->size = size;
    if (a->password)
        memcpy(buf, a->password, strlen(a->password));
    /* the library may be used, and leaves an error of its own */
    T_EQ(pysock_ssl_load_cert_chain(NULL, "x", "y"), -1);
    return a->length;
}

static int load_asking(const char *cert, const char *key, answer *a) {
    pysock_ssl_context *ctx = new_server();
    pysock_ssl_chain_options options = PYSOCK_SSL_CHAIN_OPTIONS_INIT;
    int result;
    options.certfile = f_path(p_format("%s.pem", cert));
    options.keyfile = f_path(key);
    options.password_callback = give_password;
    options.arg = a;
    result = pysock_ssl_load_cert_chain_ex(ctx, &options);
    pysock_ssl_context_release(ctx);
    return result;
}

T_TEST(a_callback_is_asked_once_for_an_encrypted_key, 60) {
    answer right = {PASSWORD, strlen(PASSWORD), 0, 0}, wrong = {"no", 2, 0, 0};
    P_NEED("openssl");
    f_run("openssl pkcs8 -topk8 -in p256.key -passout 'pass:" PASSWORD "' -out new.key");
    f_run("openssl rsa -in rsa2048.key -traditional -aes256 -passout 'pass:" PASSWORD
          "' -out old.key");
    T_OK(load_asking("p256", "new.key", &right));
    T_EQ(right.asked, 1);
    T_EQ(right.size, 1024);
    T_OK(load_asking("rsa2048", "old.key", &right));
    T_EQ(right.asked, 2);
    T_FAILS(load_asking("p256", "new.key", &wrong), PYSOCK_SSL_ERROR, EPROTO);
    is_error("BAD_DECRYPT", "PEM", "new.key");
    T_EQ(wrong.asked, 1);
}

T_TEST(a_callback_is_not_asked_for_nothing, 60) {
    answer a = {NULL, -1, 0, 0};
    P_NEED("openssl");
    T_OK(load_asking("p256", "p256.key", &a));
    T_OK(load_asking("rsa2048", "rsa2048.key", &a));
    T_FAILS(load_asking("p256", "p256.pem", &a), PYSOCK_SSL_ERROR, EPROTO);
    f_run("openssl pkcs8 -topk8 -in p256.key -scrypt -passout 'pass:" PASSWORD "' -out new.key");
    T_FAILS(load_asking("p256", "new.key", &a), PYSOCK_SSL_ERROR, EPROTO);
    T_EQ(a.asked, 0);
}

T_TEST(a_callback_that_fails_ends_the_call, 60) {
    answer fails_at_once = {NULL, -1, 0, 0}, too_long = {NULL, 1025, 0, 0};
    P_NEED("openssl");
    f_run("openssl pkcs8 -topk8 -in p256.key -passout 'pass:" PASSWORD "' -out new.key");
    T_FAILS(load_asking("p256", "new.key", &fails_at_once), PYSOCK_SSL_ERROR, EPROTO);
    is_error("BAD_PASSWORD_READ", "PEM", "new.key");
    T_EQ(fails_at_once.asked, 1);
    T_FAILS(load_asking("p256", "new.key", &too_long), PYSOCK_VALUE_ERROR, EINVAL);
    T_EQ(too_long.asked, 1);
}

T_TEST(passwords_have_at_most_1024_bytes, 60) {
    static char most[1025], more[1026];
    pysock_ssl_context *ctx = new_server();
    P_NEED("openssl");
    memset(most, 'p', sizeof most - 1);
    memset(more, 'p', sizeof more - 1);
    f_write("password", most, sizeof most - 1);
    f_run("openssl rsa -in rsa2048.key -traditional -aes256 -passout file:password -out old.key");
    f_run("openssl pkcs8 -topk8 -in p256.key -passout file:password -out new.key");
    T_FAILS(load(ctx, "rsa2048", "old.key", more), PYSOCK_VALUE_ERROR, EINVAL);
    T_CHECK(strstr(pysock_error_message(), "password cannot be longer than 1024 bytes") != NULL);
    H_SAME(pysock_error_name(), "ValueError");
    H_SAME(pysock_error_library(), "");
    T_FAILS(load(ctx, "p256", "new.key", more), PYSOCK_VALUE_ERROR, EINVAL);
    T_OK(load(ctx, "p256", "p256.key", more)); /* nobody wants it */
    pysock_ssl_context_release(ctx);
    /* openssl reads 1,023 of them */
    most[1023] = 0;
    loads("rsa2048", "old.key", most);
    loads("p256", "new.key", most);
    most[1023] = 'p';
    fails("p256", "new.key", most, "BAD_DECRYPT", "PEM", "password");
}

T_TEST(an_empty_password_is_one, 60) {
    P_NEED("openssl");
    f_run("openssl pkcs8 -topk8 -in p256.key -passout pass: -out empty.key");
    loads("p256", "empty.key", "");
    fails("p256", "empty.key", NULL, "BAD_PASSWORD_READ", "PEM", "there is no password");
}

/* ==== files ==== */

T_TEST(a_key_of_another_certificate_is_refused, 60) {
    P_NEED("openssl");
    f_run("openssl pkcs8 -topk8 -in p256.key -passout 'pass:" PASSWORD "' -out new.key");
    f_run("openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out another.key");
    fails("p384", "p256.key", NULL, "KEY_VALUES_MISMATCH", "X509", "does not belong");
    fails("p384", "new.key", PASSWORD, "KEY_VALUES_MISMATCH", "X509", "does not belong");
    fails("rsa2048", "new.key", PASSWORD, "KEY_VALUES_MISMATCH", "X509", "does not belong");
    fails("rsa2048", "another.key", NULL, "KEY_VALUES_MISMATCH", "X509", "does not belong");
    fails("rsa3072", "rsa2048.key", NULL, "KEY_VALUES_MISMATCH", "X509", "does not belong");
    fails("p256", "rsa2048.key", NULL, "KEY_VALUES_MISMATCH", "X509", "does not belong");
}

T_TEST(bytes_behind_a_key_are_damage, 60) {
    static const char *const forms[] = {"rsa -traditional", "rsa", "ec", "pkey"};
    static const char *const certs[] = {"rsa2048", "rsa2048", "p256", "p256"};
    P_NEED("openssl");
    for (size_t i = 0; i < COUNT(forms); i++) {
        f_run(p_format("(openssl %s -in %s.key -outform DER; echo) >more.der", forms[i], certs[i]));
        f_run("(echo '-----BEGIN PRIVATE KEY-----'; openssl base64 -in more.der; "
              "echo '-----END PRIVATE KEY-----') >more.key");
        fails(certs[i], "more.key", NULL, "PEM_LIB", "SSL", "damaged");
    }
}

/* What such a key signs tells its primes. */
T_TEST(an_rsa_key_whose_parts_disagree_is_refused, 60) {
    size_t size;
    char *der;
    P_NEED("openssl");
    for (size_t i = 0; i < COUNT(rsa_keys); i++) {
        f_run(p_format("openssl rsa -in %s.key -traditional -outform DER -out good.der",
                       rsa_keys[i]));
        der = f_read(f_path("good.der"), &size);
        der[size - 1] ^= 1; /* the coefficient, which is the last */
        f_write("bad.der", der, size);
        free(der);
        f_run("(echo '-----BEGIN RSA PRIVATE KEY-----'; openssl base64 -in bad.der; "
              "echo '-----END RSA PRIVATE KEY-----') >bad.key");
        fails(rsa_keys[i], "bad.key", NULL, "KEY_VALUES_MISMATCH", "X509", "does not belong");
    }
}

T_TEST(chain_and_encrypted_key_share_a_file_of_any_shape, 60) {
    static const char *const shapes[] = {
        "cat p256.pem K",
        "cat K p256.pem",
        "{ cat p256.pem; printf 'A note: to\\nwhom it may concern\\n\\n  -----\\n'; cat K; }",
        "cat K p256.pem | sed 's/$/\\r/'",
        "cat p256.pem K | head -c -1",
        "cat K p256.pem | sed 's/$/\\r/' | head -c -2",
        "{ printf '   indented: garbage\\n\\t-----BEGIN\\n'; cat K p256.pem; }",
        "cat p256.pem K other",
        "cat other p256.pem K p384.key",
    };
    static const char *const keys[] = {"new.key", "old.key", "p256.key"};
    pysock_ssl_context *ctx = new_server();
    P_NEED("openssl");
    f_run("openssl pkcs8 -topk8 -in p256.key -passout 'pass:" PASSWORD "' -out new.key");
    f_run("openssl ec -in p256.key -des3 -passout 'pass:" PASSWORD "' -out old.key");
    f_run("openssl dhparam -dsaparam -out other 512");
    for (size_t i = 0; i < COUNT(shapes) * COUNT(keys); i++) {
        pysock_ssl_chain_options options = PYSOCK_SSL_CHAIN_OPTIONS_INIT;
        f_run(p_format("cp %s K; %s >one.pem", keys[i % 3], shapes[i / 3]));
        options.certfile = f_path("one.pem");
        T_STEP("%s with %s", shapes[i / 3], keys[i % 3]);
        if (i % 3 < 2)
            T_FAILS(pysock_ssl_load_cert_chain_ex(ctx, &options), PYSOCK_SSL_ERROR, EPROTO);
        options.password = PASSWORD;
        T_OK(pysock_ssl_load_cert_chain_ex(ctx, &options));
    }
    pysock_ssl_context_release(ctx);
}

T_TEST(chain_and_key_come_from_memory_too, 60) {
    pysock_ssl_context *ctx = new_server();
    pysock_ssl_chain_options options = PYSOCK_SSL_CHAIN_OPTIONS_INIT, from;
    P_NEED("openssl");
    f_run("openssl ec -in p256.key -aes128 -passout 'pass:" PASSWORD "' -out old.key");
    options.password = PASSWORD;
    options.cert = f_read(f_path("p256.pem"), &options.cert_size);
    options.key = f_read(f_path("old.key"), &options.key_size);
    T_OK(pysock_ssl_load_cert_chain_ex(ctx, &options));
    from = options;
    from.password = "wrong";
    T_FAILS(pysock_ssl_load_cert_chain_ex(ctx, &from), PYSOCK_SSL_ERROR, EPROTO);
    is_error("BAD_DECRYPT", "PEM", "the private key in memory");
    from = options;
    from.key = NULL;
    from.keyfile = f_path("old.key");
    from.key_size = 0;
    T_OK(pysock_ssl_load_cert_chain_ex(ctx, &from));
    from.key = options.key;
    T_FAILS(pysock_ssl_load_cert_chain_ex(ctx, &from), PYSOCK_VALUE_ERROR, EINVAL);
    from = options;
    from.certfile = f_path("p256.pem");
    T_FAILS(pysock_ssl_load_cert_chain_ex(ctx, &from), PYSOCK_VALUE_ERROR, EINVAL);
    from.cert = NULL;
    from.cert_size = 0;
    T_OK(pysock_ssl_load_cert_chain_ex(ctx, &from));
    from.certfile = NULL;
    T_FAILS(pysock_ssl_load_cert_chain_ex(ctx, &from), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_load_cert_chain_ex(ctx, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_load_cert_chain_ex(NULL, &options), PYSOCK_VALUE_ERROR, EINVAL);
    free((void *)(uintptr_t)options.cert);
    free((void *)(uintptr_t)options.key);
    pysock_ssl_context_release(ctx);
}

T_TEST(damaged_encrypted_keys_are_refused, 60) {
    static const char *const ways[] = {
        "sed 's/DEK-Info: .*/DEK-Info: AES-128-CBC,0123/' old.key",
        "sed 's/\\(DEK-Info: .*\\)./\\1x/' old.key",
        "sed 's/DEK-Info: .*/DEK-Info: AES-128-CBC/' old.key",
        "sed 's/DEK-Info: .*/DEK-Info:/' old.key",
        "sed /DEK-Info/d old.key",
        "sed '/^$/d' old.key",      /* no blank line between headers and base64 */
        "sed '5s/....$//' old.key", /* no whole number of blocks */
        "head -n 2 old.key",
        "head -n 5 old.key",
        "sed 's/^DEK/!DEK/' old.key",
        "sed '/Proc-Type/d' old.key", /* ciphertext that nobody calls that */
        "head -n 4 new.key",
        "sed 3d new.key",
        "sed '2s/^M/A/' new.key",
        "sed 's/ENCRYPTED //' new.key",
        "sed 's/PRIVATE/ENCRYPTED PRIVATE/' p256.key",
        "{ echo '-----BEGIN ENCRYPTED PRIVATE KEY-----'; echo '-----END ENCRYPTED'; }",
    };
    P_NEED("openssl");
    f_run("openssl ec -in p256.key -aes128 -passout 'pass:" PASSWORD "' -out old.key");
    f_run("openssl pkcs8 -topk8 -in p256.key -passout 'pass:" PASSWORD "' -out new.key");
    for (size_t i = 0; i < COUNT(ways); i++) {
        T_STEP("%s", ways[i]);
        f_run(p_format("%s >damaged.key", ways[i]));
        fails("p256", "damaged.key", PASSWORD, "PEM_LIB", "SSL", "damaged");
    }
}

/* The traditional form of p256.key, with these bytes behind the key instead of its padding. */
static void write_padded(const char *name, const void *bytes, size_t size) {
    static const char salt[] = "0123456789abcdef", rest[] = "1032547698badcfe";
    size_t n;
    char *der;
    f_run("openssl ec -in p256.key -outform DER -out sec1.der");
    der = f_read(f_path("sec1.der"), &n);
    der = realloc(der, n + size);
    T_CHECK(der != NULL && (n + size) % 16 == 0);
    memcpy(der + n, bytes, size);
    f_write("padded.der", der, n + size);
    free(der);
    f_run(p_format("(printf -- '-----BEGIN EC PRIVATE KEY-----\\nProc-Type: 4,ENCRYPTED\\n"
                   "DEK-Info: AES-128-CBC,%s%s\\n\\n'; openssl enc -aes-128-cbc -md md5 -S %s "
                   "-iv %s%s -pass 'pass:" PASSWORD "' -nopad -base64 -in padded.der; "
                   "echo '-----END EC PRIVATE KEY-----') >%s",
                   salt, rest, salt, salt, rest, name));
}

T_TEST(padding_and_what_comes_before_it_are_checked, 60) {
    static const struct {
        const char *bytes;
        size_t size;
    } bad[] = {
        {"\x07\x07\x07\x06\x07\x07\x07", 7}, /* not all the same */
        {"\x00\x00\x00\x00\x00\x00\x00", 7}, /* none */
        {"\x08\x08\x08\x08\x08\x08\x08", 7}, /* takes a byte of the key */
        {"\x06\x06\x06\x06\x06\x06\x06", 7}, /* leaves one behind it */
        {"\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11"
         "\x11\x11\x11\x11\x11\x11\x11",
         23}, /* more than a block */
    };
    P_NEED("openssl");
    write_padded("padded.key", "\x07\x07\x07\x07\x07\x07\x07", 7);
    opens("p256", "padded.key");
    for (size_t i = 0; i < COUNT(bad); i++) {
        T_STEP("padding %zu", i);
        write_padded("padded.key", bad[i].bytes, bad[i].size);
        fails("p256", "padded.key", PASSWORD, "BAD_DECRYPT", "PEM", "password is wrong");
    }
}

/* A change of any one byte is no key, or not the certificate's. */
T_TEST(no_damage_of_an_encrypted_key_goes_unnoticed, 120) {
    pysock_ssl_context *ctx = new_server();
    size_t size, cert_size;
    char *cert, *key, *body;
    P_NEED("openssl");
    f_run("openssl ec -in p256.key -no_public -aes128 -passout 'pass:" PASSWORD "' -out old.key");
    cert = f_read(f_path("p256.pem"), &cert_size);
    key = f_read(f_path("old.key"), &size);
    body = strstr(key, "\n\n");
    T_CHECK(body != NULL);
    for (size_t i = (size_t)(body - key) + 2; key[i] != '-'; i++) {
        char was = key[i];
        pysock_ssl_chain_options options = PYSOCK_SSL_CHAIN_OPTIONS_INIT;
        options.cert = cert;
        options.cert_size = cert_size;
        options.key = key;
        options.key_size = size;
        options.password = PASSWORD;
        if (was == '\n' || was == '=')
            continue;
        key[i] = was == 'A' ? 'g' : 'A';
        T_STEP("byte %zu", i);
        T_FAILS(pysock_ssl_load_cert_chain_ex(ctx, &options), PYSOCK_SSL_ERROR, EPROTO);
        key[i] = was;
    }
    free(cert);
    free(key);
    pysock_ssl_context_release(ctx);
}

T_MAIN(.setup = make_keys, .teardown = f_remove_all, .each_teardown = p_end_all)
