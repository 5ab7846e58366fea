/* Arbitrary bytes as the PEM text of a private key with a password, for certificates of which the
   seeds hold the keys; and, behind a zero byte, as a key's text after that of its chain. Where the
   first byte is the number of a name below, what follows is DER, which is turned into PEM here. */
#define PYSOCK_IMPLEMENTATION
#define PYSOCK_STATIC
#define PYSOCK_MAX_PBKDF2_ITERATIONS 100 /* what the fuzzer invents must not take long */
#include "pysock.h"
#include "fuzz.h"

typedef struct good_file {
    const char *path;
    char data[4096];
    size_t size;
} good_file;

static good_file good[] = {
    {"tests/certs/server-ec.pem", {0}, 0},
    {"tests/certs/server-rsa.pem", {0}, 0},
};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    size_t i;

    (void)argc, (void)argv;
    for (i = 0; i < sizeof good / sizeof good[0]; i++) {
        FILE *f = fopen(good[i].path, "rb");
        if (!f) {
            perror(good[i].path);
            exit(1);
        }
        good[i].size = fread(good[i].data, 1, sizeof good[i].data, f);
        fclose(f);
    }
    return 0;
}

static ptrdiff_t ask(void *arg, char *buf, size_t size)
{
    int *asked = (int *)arg;

    FUZZ_CHECK(size == 1024);
    memset(buf, 'x', size);
    memcpy(buf, "secret", 6);
    ++*asked;
    return 6;
}

/* Success, or an error that says what and in which file; the same with a callback, which is asked
   exactly if the password mattered. */
static void try_key(pysock_ssl_context *ctx, const void *cert, size_t cert_size, const void *key,
                    size_t key_size)
{
    pysock_ssl_chain_options options = PYSOCK_SSL_CHAIN_OPTIONS_INIT;
    char reason[64];
    int result, asked = 0;

    options.cert = cert;
    options.cert_size = cert_size;
    options.key = key;
    options.key_size = key_size;
    options.password_callback = ask;
    options.arg = &asked;
    pysock_error_clear();
    result = pysock_ssl_load_cert_chain_ex(ctx, &options);
    FUZZ_CHECK(result == 0 || result == -1);
    FUZZ_CHECK(asked <= 1);
    FUZZ_CHECK((result == 0) == (pysock_error() == PYSOCK_NO_ERROR));
    FUZZ_CHECK(result == 0 || (pysock_error() == PYSOCK_SSL_ERROR && *pysock_error_reason()));
    FUZZ_CHECK(result == 0 || (*pysock_error_library() && *pysock_error_message()));
    snprintf(reason, sizeof reason, "%s", pysock_error_reason());
    FUZZ_CHECK(asked || strcmp(reason, "BAD_DECRYPT") != 0);
    options.password_callback = NULL;
    FUZZ_CHECK(pysock_ssl_load_cert_chain_ex(ctx, &options) == (asked ? -1 : result));
    FUZZ_CHECK(!result || !strcmp(pysock_error_reason(), asked ? "BAD_PASSWORD_READ" : reason));
    FUZZ_CHECK(!asked || !strcmp(pysock_error_reason(), "BAD_PASSWORD_READ"));
}

static const char *const names[] = {"PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY",
                                    "EC PRIVATE KEY", "EC PARAMETERS"};

/* Appends the DER as PEM. */
static void write_pem(pysock__bytes *text, const char *name, const uint8_t *der, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char line[64];
    size_t i, n;
    unsigned bits;

    pysock__bytes_append(text, line, (size_t)snprintf(line, 64, "-----BEGIN %s-----\n", name));
    for (i = 0; i < size; i += 3) {
        n = size - i < 3 ? size - i : 3;
        bits = (unsigned)der[i] << 16 | (unsigned)(n > 1 ? der[i + 1] : 0) << 8
               | (unsigned)(n > 2 ? der[i + 2] : 0);
        line[0] = digits[bits >> 18];
        line[1] = digits[bits >> 12 & 63];
        line[2] = n > 1 ? digits[bits >> 6 & 63] : '=';
        line[3] = n > 2 ? digits[bits & 63] : '=';
        line[4] = '\n';
        pysock__bytes_append(text, line, i % 48 == 45 || size - i <= 3 ? 5 : 4);
    }
    pysock__bytes_append(text, line, (size_t)snprintf(line, 64, "-----END %s-----\n", name));
    FUZZ_CHECK(!text->out_of_memory);
}

/* The DER alone, and behind the parameters of the first certificate's curve. */
static void try_der(pysock_ssl_context *ctx, const char *name, const uint8_t *der, size_t size)
{
    static const uint8_t p256[] = {6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7};
    pysock__bytes text = {NULL, 0, 0, 0};
    size_t i, skip;

    write_pem(&text, names[4], p256, sizeof p256);
    skip = text.len;
    write_pem(&text, name, der, size);
    for (i = 0; i < sizeof good / sizeof good[0]; i++)
        try_key(ctx, good[i].data, good[i].size, text.data + skip, text.len - skip);
    try_key(ctx, good[0].data, good[0].size, text.data, text.len);
    pysock__bytes_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pysock_ssl_context *ctx = pysock_ssl_context_new(PYSOCK_CLIENT_AUTH);
    uint8_t *copy = fuzz_copy(data, size), *zero = (uint8_t *)memchr(copy, 0, size), *key;
    size_t i, n = zero ? (size_t)(zero - copy) : size;

    FUZZ_CHECK(ctx);
    if (size && data[0] && data[0] <= sizeof names / sizeof names[0])
        try_der(ctx, names[data[0] - 1], copy + 1, size - 1);
    for (i = 0; i < sizeof good / sizeof good[0]; i++)
        try_key(ctx, good[i].data, good[i].size, copy, size);
    if (zero) {
        key = fuzz_copy(zero + 1, size - n - 1);
        try_key(ctx, copy, n, key, size - n - 1);
        free(key);
    }
    pysock_ssl_context_release(ctx);
    free(copy);
    return 0;
}
