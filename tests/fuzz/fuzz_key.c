/* Arbitrary bytes as the PEM text of a private key with a password, for certificates of which the
   seeds hold the keys; and, behind a zero byte, as a key's text after that of its chain. */
#define PYSOCK_IMPLEMENTATION
#define PYSOCK_STATIC
#define PYSOCK__PBKDF2_MAX 100 /* iterations: what the fuzzer invents must not take long */
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

static ptrdiff_t ask(char *buf, size_t size, void *arg)
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
    pysock_ssl_chain_options options;
    char reason[64];
    int result, asked = 0;

    memset(&options, 0, sizeof options);
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pysock_ssl_context *ctx = pysock_ssl_context_new(PYSOCK_CLIENT_AUTH);
    uint8_t *copy = fuzz_copy(data, size), *zero = (uint8_t *)memchr(copy, 0, size), *key;
    size_t i, n = zero ? (size_t)(zero - copy) : size;

    FUZZ_CHECK(ctx);
    for (i = 0; i < sizeof good / sizeof good[0]; i++)
        try_key(ctx, good[i].data, good[i].size, copy, size);
    if (zero) {
        key = fuzz_copy(zero + 1, size - n - 1);
        try_key(ctx, copy, n, key, size - n - 1);
        free(key);
    }
    pysock_ssl_context_free(ctx);
    free(copy);
    return 0;
}
