/* The hand-written loops on BearSSL: br_sslio on blocking descriptors, one suite, contexts made
   once and reset for each connection. */
#include "bench.h"

#include <bearssl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct bytes {
    unsigned char *data;
    size_t size;
} bytes;

/* One connection at a time, so everything is static: what a small program would do. */
static br_ssl_client_context client;
static br_ssl_server_context server;
static br_x509_minimal_context verifier;
static br_ssl_session_cache_lru session_cache;
static br_skey_decoder_context key;
static br_x509_trust_anchor anchor;
static br_x509_certificate certificate;
static br_sslio_context io;
static unsigned char record_buffer[BR_SSL_BUFSIZE_BIDI];
static unsigned char session_memory[16384];
static int descriptor;
static int server_port; /* for the client of the handshakes */
static int resumes;

/* ---- certificates ---- */

static void append(void *cc, const void *data, size_t size)
{
    bytes *b = cc;
    unsigned char *grown = realloc(b->data, b->size + size);

    if (!grown)
        die("out of memory");
    memcpy(grown + b->size, data, size);
    b->data = grown;
    b->size += size;
}

static bytes read_file(const char *path)
{
    char part[4096];
    bytes whole = {NULL, 0};
    size_t n;
    FILE *f = fopen(path, "rb");

    if (!f)
        die("%s: %s", path, strerror(errno));
    while ((n = fread(part, 1, sizeof part, f)) > 0)
        append(&whole, part, n);
    fclose(f);
    append(&whole, "\n", 1); /* BearSSL sees the end of an object at the end of its line */
    return whole;
}

/* The DER of the first object in a PEM file whose name ends so. */
static bytes read_pem(const char *path, const char *suffix)
{
    br_pem_decoder_context pem;
    bytes text = read_file(path), der = {NULL, 0};
    size_t done = 0, name_size;
    int wanted = 0;

    br_pem_decoder_init(&pem);
    while (done < text.size) {
        done += br_pem_decoder_push(&pem, text.data + done, text.size - done);
        switch (br_pem_decoder_event(&pem)) {
        case BR_PEM_BEGIN_OBJ:
            name_size = strlen(br_pem_decoder_name(&pem));
            wanted = name_size >= strlen(suffix)
                     && !strcmp(br_pem_decoder_name(&pem) + name_size - strlen(suffix), suffix);
            br_pem_decoder_setdest(&pem, wanted ? append : NULL, &der);
            break;
        case BR_PEM_END_OBJ:
            if (wanted) {
                free(text.data);
                return der;
            }
            break;
        case BR_PEM_ERROR: die("%s: not PEM", path);
        }
    }
    die("%s: no %s in it", path, suffix);
}

static void load_anchor(void)
{
    br_x509_decoder_context decoder;
    bytes name = {NULL, 0}, der = read_pem(CA_FILE, "CERTIFICATE");
    br_x509_pkey *pkey;

    br_x509_decoder_init(&decoder, append, &name);
    br_x509_decoder_push(&decoder, der.data, der.size);
    pkey = br_x509_decoder_get_pkey(&decoder);
    if (!pkey || pkey->key_type != BR_KEYTYPE_EC)
        die("%s: not a certificate with an EC key", CA_FILE);
    anchor.dn.data = name.data;
    anchor.dn.len = name.size;
    anchor.flags = BR_X509_TA_CA;
    anchor.pkey = *pkey;
    anchor.pkey.key.ec.q = malloc(pkey->key.ec.qlen);
    if (!anchor.pkey.key.ec.q)
        die("out of memory");
    memcpy(anchor.pkey.key.ec.q, pkey->key.ec.q, pkey->key.ec.qlen);
    free(der.data);
}

static void load_key(void)
{
    bytes cert = read_pem(CERT_FILE, "CERTIFICATE"), der = read_pem(KEY_FILE, "PRIVATE KEY");

    certificate.data = cert.data;
    certificate.data_len = cert.size;
    br_skey_decoder_init(&key);
    br_skey_decoder_push(&key, der.data, der.size);
    if (br_skey_decoder_key_type(&key) != BR_KEYTYPE_EC)
        die("%s: not an EC key", KEY_FILE);
    free(der.data);
}

/* ---- connections ---- */

static const uint16_t suites[] = {BR_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256};

static int low_read(void *cc, unsigned char *buf, size_t size)
{
    ssize_t n;

    do
        n = read(*(int *)cc, buf, size);
    while (n < 0 && errno == EINTR);
    return n <= 0 ? -1 : (int)n;
}

static int low_write(void *cc, const unsigned char *data, size_t size)
{
    ssize_t n;

    do
        n = write(*(int *)cc, data, size);
    while (n < 0 && errno == EINTR);
    return n <= 0 ? -1 : (int)n;
}

static void set_up_engine(br_ssl_engine_context *engine)
{
    br_ssl_engine_set_versions(engine, BR_TLS12, BR_TLS12);
    br_ssl_engine_set_suites(engine, suites, sizeof suites / sizeof suites[0]);
    br_ssl_engine_set_buffer(engine, record_buffer, sizeof record_buffer, 1);
}

static void set_up_client(void)
{
    load_anchor();
    br_ssl_client_init_full(&client, &verifier, &anchor, 1);
    set_up_engine(&client.eng);
}

static void set_up_server(void)
{
    load_key();
    br_ssl_server_init_full_ec(&server, &certificate, 1, BR_KEYTYPE_EC,
                               br_skey_decoder_get_ec(&key));
    set_up_engine(&server.eng);
}

static void fail(br_ssl_engine_context *engine, const char *what)
{
    die("%s: BearSSL error %d", what, br_ssl_engine_last_error(engine));
}

/* br_sslio does the handshake when it first has to; a flush makes it. */
static void shake_hands(br_ssl_engine_context *engine)
{
    br_sslio_init(&io, engine, low_read, &descriptor, low_write, &descriptor);
    if (br_sslio_flush(&io) < 0)
        fail(engine, "handshake");
}

static void connect_tls(int port)
{
    descriptor = raw_connect(port);
    if (!br_ssl_client_reset(&client, HOST_NAME, resumes))
        fail(&client.eng, "reset");
    shake_hands(&client.eng);
}

static void accept_tls(int listener)
{
    descriptor = raw_accept(listener);
    if (!br_ssl_server_reset(&server))
        fail(&server.eng, "reset");
    shake_hands(&server.eng);
}

/* The one connection of an echo or a bulk transfer. */
static void accept_only(void)
{
    int port;
    int listener = raw_listen(&port);

    set_up_server();
    tell(port);
    accept_tls(listener);
}

static void connect_only(int port)
{
    set_up_client();
    connect_tls(port);
}

/* ---- echo ---- */

static void send_all(br_ssl_engine_context *engine, const void *data, size_t size)
{
    if (br_sslio_write_all(&io, data, size) < 0 || br_sslio_flush(&io) < 0)
        fail(engine, "write");
}

static void receive_all(br_ssl_engine_context *engine, void *buf, size_t size)
{
    if (br_sslio_read_all(&io, buf, size) < 0)
        fail(engine, "read");
}

void bear_echo_serve(int arg)
{
    char buf[MESSAGE_SIZE];

    (void)arg;
    accept_only();
    for (;;) {
        receive_all(&server.eng, buf, sizeof buf);
        send_all(&server.eng, buf, sizeof buf);
    }
}

void bear_echo_open(int arg, int port)
{
    (void)arg;
    connect_only(port);
}

long bear_echo_batch(void)
{
    char buf[MESSAGE_SIZE] = "ping";
    int i;

    for (i = 0; i < ECHO_BATCH; i++) {
        send_all(&client.eng, buf, sizeof buf);
        receive_all(&client.eng, buf, sizeof buf);
    }
    return ECHO_BATCH;
}

/* ---- a client that asks for handshakes ---- */

void bear_renegotiate(int port, int (*goes_on)(void), void (*works)(int works))
{
    if (!anchor.dn.data)
        set_up_client();
    connect_tls(port);
    works(1);
    while (goes_on() && br_ssl_engine_renegotiate(&client.eng) && br_sslio_flush(&io) == 0)
        ;
    close(descriptor);
}

/* ---- bulk ---- */

void bear_bulk_serve(int arg)
{
    static char buf[BULK_WRITE];
    size_t left;
    int n;

    (void)arg;
    accept_only();
    for (;;) {
        for (left = (size_t)BULK_WRITE * BULK_WRITES; left > 0; left -= (size_t)n) {
            n = br_sslio_read(&io, buf, left < sizeof buf ? left : sizeof buf);
            if (n < 0)
                fail(&server.eng, "read");
        }
        send_all(&server.eng, "k", 1);
    }
}

void bear_bulk_open(int arg, int port)
{
    (void)arg;
    connect_only(port);
}

long bear_bulk_batch(void)
{
    static char buf[BULK_WRITE];
    int i;

    for (i = 0; i < BULK_WRITES; i++)
        send_all(&client.eng, buf, sizeof buf);
    receive_all(&client.eng, buf, 1);
    return BULK_WRITES;
}

/* ---- handshakes ---- */

void bear_handshake_serve(int arg)
{
    char byte;
    int port;
    int listener = raw_listen(&port);

    set_up_server();
    br_ssl_session_cache_lru_init(&session_cache, session_memory, sizeof session_memory);
    if (arg)
        br_ssl_server_set_cache(&server, &session_cache.vtable);
    tell(port);
    for (;;) {
        accept_tls(listener);
        if (br_sslio_read(&io, &byte, 1) >= 0)
            die("data where only a close was due");
        if (br_ssl_engine_last_error(&server.eng) != BR_ERR_OK
            && br_ssl_engine_last_error(&server.eng) != BR_ERR_IO)
            fail(&server.eng, "close");
        close(descriptor);
    }
}

void bear_handshake_open(int arg, int port)
{
    set_up_client();
    server_port = port;
    resumes = arg;
}

/* close_notify, and no waiting for the other one. */
static void close_tls(void)
{
    unsigned char *record;
    size_t size;

    br_ssl_engine_close(&client.eng);
    while ((record = br_ssl_engine_sendrec_buf(&client.eng, &size)) != NULL) {
        write_all(descriptor, record, size);
        br_ssl_engine_sendrec_ack(&client.eng, size);
    }
    close(descriptor);
}

long bear_handshake_batch(void)
{
    br_ssl_session_parameters before, after;

    br_ssl_engine_get_session_parameters(&client.eng, &before);
    connect_tls(server_port);
    br_ssl_engine_get_session_parameters(&client.eng, &after);
    close_tls();
    if (resumes && before.session_id_len > 0
        && memcmp(before.master_secret, after.master_secret, sizeof before.master_secret) != 0)
        die("a session was not resumed");
    return 1;
}
