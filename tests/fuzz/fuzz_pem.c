/* Arbitrary bytes as trust anchors, as a chain with its key, as a chain to a good key and as a key
   to a good chain. What stands between a BEGIN line and its END line is counted, or there is an
   error. Run it in the project's folder: the good ones are read from tests/certs/. */
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

static int load_chain(pysock_ssl_context *ctx, const void *cert, size_t certlen, const void *key,
                      size_t keylen)
{
    int result = pysock_ssl_load_cert_chain_data(ctx, cert, certlen, key, keylen);

    check_result(result);
    return result;
}

/* Objects, by another reading than the library's: lines end with a newline, blanks behind them do
   not count, and neither does a byte order mark before them. */
typedef struct object {
    size_t start, end; /* from BEGIN to behind END */
    int is_certificate, is_list;
} object;

#define OBJECTS 64

typedef struct objects {
    object list[OBJECTS];
    size_t count;
    int broken; /* an object does not end, or an END has no BEGIN */
} objects;

/* The length of the line's label, "BEGIN X" or "END X"; 0 if it is no such line. */
static size_t label_of(const uint8_t *line, size_t size, const char *word, const uint8_t **label)
{
    size_t n = strlen(word), i;

    if (size >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0) {
        line += 3;
        size -= 3;
    }
    while (size && line[size - 1] <= ' ')
        size--;
    if (size < n + 10 || memcmp(line, "-----", 5) != 0 || memcmp(line + 5, word, n) != 0
        || memcmp(line + size - 5, "-----", 5) != 0)
        return 0;
    for (i = 5; i < size - 5; i++)
        if (line[i] != ' ' && (line[i] < 'A' || line[i] > 'Z') && (line[i] < '0' || line[i] > '9'))
            return 0;
    *label = line + 5 + n;
    return size - 10 - n;
}

static int is_kind(const uint8_t *label, size_t n, const char *kind)
{
    return n == strlen(kind) && memcmp(label, kind, n) == 0;
}

static int is_certificate(const uint8_t *label, size_t n)
{
    return is_kind(label, n, "CERTIFICATE") || is_kind(label, n, "X509 CERTIFICATE")
           || is_kind(label, n, "TRUSTED CERTIFICATE");
}

static void find_objects(const uint8_t *data, size_t size, objects *found)
{
    const uint8_t *label, *newline, *open = NULL;
    size_t at = 0, n, length, open_length = 0, start = 0;
    object *o;

    memset(found, 0, sizeof *found);
    for (; at < size; at += length + 1) {
        newline = (const uint8_t *)memchr(data + at, '\n', size - at);
        length = newline ? (size_t)(newline - data) - at : size - at;
        n = label_of(data + at, length, "BEGIN ", &label);
        if (n) {
            found->broken |= open != NULL;
            open = label;
            open_length = n;
            start = at;
            continue;
        }
        n = label_of(data + at, length, "END ", &label);
        if (!n)
            continue;
        if (!open || n != open_length || memcmp(label, open, n) != 0 || found->count == OBJECTS) {
            found->broken |= found->count < OBJECTS;
            return;
        }
        o = &found->list[found->count++];
        o->start = start;
        o->end = at + length;
        o->is_certificate = is_certificate(open, n);
        o->is_list = is_kind(open, n, "X509 CRL");
        open = NULL;
    }
    found->broken |= open != NULL;
}

static size_t stored(pysock_ssl_context *ctx)
{
    pysock_ssl_store_stats stats;

    FUZZ_CHECK(pysock_ssl_cert_store_stats(ctx, &stats) == 0);
    return stats.x509 + stats.crl;
}

/* What loads gives no less than its objects one by one, each of which loads. loaded: NULL for a
   chain, of which nobody tells how long it is, and lists are no part. */
static void check_objects(const uint8_t *data, size_t size, pysock_ssl_context *loaded)
{
    pysock_ssl_context *one = pysock_ssl_context_new(PYSOCK_SERVER_AUTH);
    objects found;
    uint8_t *copy;
    size_t i, n;

    find_objects(data, size, &found);
    FUZZ_CHECK(one && !found.broken);
    for (i = 0; i < found.count; i++) {
        if (!found.list[i].is_certificate && !(loaded && found.list[i].is_list))
            continue;
        n = found.list[i].end - found.list[i].start;
        copy = fuzz_copy(data + found.list[i].start, n);
        FUZZ_CHECK(pysock_ssl_load_verify_data(one, copy, n) == 0);
        free(copy);
    }
    FUZZ_CHECK(!loaded || stored(loaded) >= stored(one));
    pysock_ssl_context_release(one);
}

/* 1 if it is something else than text for who looks at its beginning: DER, or UTF-16. */
static int may_be_no_text(const uint8_t *data, size_t size)
{
    return size && (data[0] == 0x30 || data[0] >= 0xfe || data[0] == 0);
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
    FUZZ_CHECK(result == 0 ? stored(client) > 0 : count == 0);
    check_result(result);
    if (result == 0 && !may_be_no_text(data, size))
        check_objects(data, size, client);
    /* the same once more: no more of them */
    result = pysock_ssl_load_verify_data(client, copy, size);
    FUZZ_CHECK(pysock_ssl_ca_count(client) == count);
    check_result(result);

    load_chain(server, copy, size, copy, size);
    for (i = 0; i < sizeof good / sizeof good[0]; i += 2) {
        result = load_chain(server, copy, size, good[i + 1].data, good[i + 1].size);
        if (result == 0 && !may_be_no_text(data, size)) /* what is sent can be read */
            check_objects(data, size, NULL);
        load_chain(server, good[i].data, good[i].size, copy, size);
    }
    for (i = 0; i < size && copy[i]; i++) /* a zero parts a chain from its key */
        continue;
    if (i < size)
        load_chain(server, copy, i, copy + i + 1, size - i - 1);

    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
    free(copy);
    return 0;
}
