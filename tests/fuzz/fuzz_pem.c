/* Arbitrary bytes as trust anchors, as a chain with its key, as a chain to a good key and as a key
   to a good chain. Run it in the project's folder: the good ones are read from tests/certs/. */
#include "pysock.h"
#include "fuzz.h"

typedef struct good_file {
    const char *path;
    char data[4096];
    size_t size;
} good_file;

static good_file good[] = {
    {"tests/certs/server-ec.pem", {0}, 0},
    {"tests/certs/server-ec.key", {0}, 0},
    {"tests/certs/server-rsa.pem", {0}, 0},
    {"tests/certs/server-rsa.key", {0}, 0},
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

/* Success, or an error that says something. */
static void check_result(int result)
{
    FUZZ_CHECK(result == 0 || result == -1);
    FUZZ_CHECK(result == 0 || pysock_error() != PYSOCK_NO_ERROR);
    FUZZ_CHECK(result == 0 || pysock_error_message()[0]);
    pysock_error_clear();
}

static void load_chain(pysock_ssl_context *ctx, const void *cert, size_t certlen, const void *key,
                       size_t keylen)
{
    check_result(pysock_ssl_load_cert_chain_data(ctx, cert, certlen, key, keylen));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pysock_ssl_context *client = pysock_ssl_context_new(PYSOCK_SERVER_AUTH);
    pysock_ssl_context *server = pysock_ssl_context_new(PYSOCK_CLIENT_AUTH);
    uint8_t *copy = fuzz_copy(data, size);
    size_t count, i;
    int result;

    FUZZ_CHECK(client && server);
    pysock_error_clear();
    result = pysock_ssl_load_verify_data(client, copy, size);
    count = pysock_ssl_ca_count(client);
    FUZZ_CHECK(result == 0 ? count > 0 : count == 0);
    check_result(result);
    /* the same once more: no more of them */
    result = pysock_ssl_load_verify_data(client, copy, size);
    FUZZ_CHECK(pysock_ssl_ca_count(client) == count);
    check_result(result);

    load_chain(server, copy, size, copy, size);
    for (i = 0; i < sizeof good / sizeof good[0]; i += 2) {
        load_chain(server, copy, size, good[i + 1].data, good[i + 1].size);
        load_chain(server, good[i].data, good[i].size, copy, size);
    }
    for (i = 0; i < size && copy[i]; i++) /* a zero parts a chain from its key */
        continue;
    if (i < size)
        load_chain(server, copy, i, copy + i + 1, size - i - 1);

    pysock_ssl_context_free(client);
    pysock_ssl_context_free(server);
    free(copy);
    return 0;
}
