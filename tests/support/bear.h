/* A TLS peer made of BearSSL's own engine over a plain descriptor, for what no program can be asked
   to do: to come back with another certificate, say. It blocks; use it on a thread of its own. */
#ifndef TESTS_SUPPORT_BEAR_H
#define TESTS_SUPPORT_BEAR_H

#include "support/support.h"

#include <bearssl.h>

#define BEAR_CERTS 4

/* A chain and its key, from the PEM files of tests/certs. */
typedef struct bear_identity {
    br_x509_certificate chain[BEAR_CERTS];
    size_t count;
    br_skey_decoder_context key;
} bear_identity;

typedef struct bear_bytes {
    unsigned char *data;
    size_t len, cap;
} bear_bytes;

T_FUNC void bear_append(void *arg, const void *data, size_t n) {
    bear_bytes *b = arg;
    if (b->len + n > b->cap) {
        b->cap = 2 * (b->len + n);
        b->data = realloc(b->data, b->cap);
        T_CHECK(b->data != NULL);
    }
    memcpy(b->data + b->len, data, n);
    b->len += n;
}

/* Calls each(arg, object) for the objects of that kind in a PEM file of tests/certs. */
T_FUNC void bear_read_pem(const char *name, const char *ending, const char *kind,
                          void (*each)(void *arg, bear_bytes *object), void *arg) {
    char path[256];
    unsigned char text[16384];
    bear_bytes object = {NULL, 0, 0};
    br_pem_decoder_context pem;
    size_t n, pos = 0;
    int wanted = 0;
    FILE *f;
    snprintf(path, sizeof path, T_CERTS "%s.%s", name, ending);
    f = fopen(path, "r");
    T_CHECK(f != NULL);
    n = fread(text, 1, sizeof text, f);
    T_CHECK(n > 0 && n < sizeof text);
    fclose(f);
    br_pem_decoder_init(&pem);
    while (pos < n) {
        pos += br_pem_decoder_push(&pem, text + pos, n - pos);
        switch (br_pem_decoder_event(&pem)) {
        case BR_PEM_BEGIN_OBJ:
            wanted = strstr(br_pem_decoder_name(&pem), kind) != NULL;
            object.len = 0;
            br_pem_decoder_setdest(&pem, wanted ? bear_append : NULL, &object);
            break;
        case BR_PEM_END_OBJ:
            if (wanted)
                each(arg, &object);
            break;
        default: break;
        }
    }
    free(object.data);
}

T_FUNC void bear_add_cert(void *arg, bear_bytes *object) {
    bear_identity *id = arg;
    br_x509_certificate *cert = &id->chain[id->count++];
    T_CHECK(id->count <= BEAR_CERTS);
    cert->data = malloc(object->len);
    T_CHECK(cert->data != NULL);
    memcpy(cert->data, object->data, object->len);
    cert->data_len = object->len;
}

T_FUNC void bear_add_key(void *arg, bear_bytes *object) {
    bear_identity *id = arg;
    br_skey_decoder_init(&id->key);
    br_skey_decoder_push(&id->key, object->data, object->len);
    T_EQ(br_skey_decoder_last_error(&id->key), 0);
}

/* name: such as "server-ec"; its key must be on a curve. */
T_FUNC void bear_load(bear_identity *id, const char *name) {
    memset(id, 0, sizeof *id);
    bear_read_pem(name, "pem", "CERTIFICATE", bear_add_cert, id);
    bear_read_pem(name, "key", "PRIVATE KEY", bear_add_key, id);
    T_CHECK(id->count > 0);
    T_EQ(br_skey_decoder_key_type(&id->key), BR_KEYTYPE_EC);
}

T_FUNC void bear_unload(bear_identity *id) {
    for (size_t i = 0; i < id->count; i++)
        free(id->chain[i].data);
    memset(id, 0, sizeof *id);
}

/* An engine that takes whatever certificate it is shown. */
typedef struct bear_peer {
    int fd;
    union {
        br_ssl_server_context server;
        br_ssl_client_context client;
    } br;
    br_ssl_engine_context *eng;
    br_x509_minimal_context minimal;
    struct {
        const br_x509_class *vtable;
        br_x509_decoder_context decoder;
        unsigned certs;
    } lenient;
    unsigned char buffers[BR_SSL_BUFSIZE_BIDI];
} bear_peer;

T_FUNC void bear_start_chain(const br_x509_class **ctx, const char *name) {
    bear_peer *p = (bear_peer *)(void *)((char *)ctx - offsetof(bear_peer, lenient));
    (void)name;
    p->lenient.certs = 0;
    br_x509_decoder_init(&p->lenient.decoder, NULL, NULL);
}

T_FUNC void bear_start_cert(const br_x509_class **ctx, uint32_t len) {
    (void)ctx, (void)len;
}

T_FUNC void bear_push(const br_x509_class **ctx, const unsigned char *data, size_t n) {
    bear_peer *p = (bear_peer *)(void *)((char *)ctx - offsetof(bear_peer, lenient));
    if (!p->lenient.certs)
        br_x509_decoder_push(&p->lenient.decoder, data, n);
}

T_FUNC void bear_end_cert(const br_x509_class **ctx) {
    bear_peer *p = (bear_peer *)(void *)((char *)ctx - offsetof(bear_peer, lenient));
    p->lenient.certs++;
}

T_FUNC unsigned bear_end_chain(const br_x509_class **ctx) {
    (void)ctx;
    return 0;
}

T_FUNC const br_x509_pkey *bear_get_key(const br_x509_class *const *ctx, unsigned *usages) {
    bear_peer *p = (bear_peer *)(void *)((char *)(uintptr_t)ctx - offsetof(bear_peer, lenient));
    if (usages)
        *usages = BR_KEYTYPE_KEYX | BR_KEYTYPE_SIGN;
    return br_x509_decoder_get_pkey(&p->lenient.decoder);
}

static const br_x509_class bear_x509_class = {
    sizeof(bear_peer), bear_start_chain, bear_start_cert, bear_push,
    bear_end_cert,     bear_end_chain,   bear_get_key,
};

/* Moves records until the engine is in one of these states, or has closed: its state. */
T_FUNC unsigned bear_until(bear_peer *p, unsigned states) {
    for (;;) {
        unsigned st = br_ssl_engine_current_state(p->eng);
        unsigned char *buf;
        size_t n;
        ssize_t r;
        if (st == BR_SSL_CLOSED)
            return st;
        if (st & BR_SSL_SENDREC) {
            buf = br_ssl_engine_sendrec_buf(p->eng, &n);
            r = send(p->fd, buf, n, MSG_NOSIGNAL);
            if (r <= 0)
                return BR_SSL_CLOSED;
            br_ssl_engine_sendrec_ack(p->eng, (size_t)r);
            continue;
        }
        if (st & states)
            return st;
        if (!(st & BR_SSL_RECVREC))
            T_FAIL("the engine waits for nothing (state 0x%x)", st);
        buf = br_ssl_engine_recvrec_buf(p->eng, &n);
        r = recv(p->fd, buf, n, 0);
        if (r <= 0)
            return BR_SSL_CLOSED;
        br_ssl_engine_recvrec_ack(p->eng, (size_t)r);
    }
}

/* Which chain a server shows from now on, in a renegotiation too. */
T_FUNC void bear_show(bear_peer *p, const bear_identity *id) {
    br_ssl_server_set_single_ec(&p->br.server, id->chain, id->count,
                                br_skey_decoder_get_ec(&id->key), BR_KEYTYPE_SIGN | BR_KEYTYPE_KEYX,
                                BR_KEYTYPE_EC, br_ec_get_default(),
                                br_ecdsa_sign_asn1_get_default());
}

T_FUNC void bear_begin_server(bear_peer *p, int fd, const bear_identity *id) {
    memset(p, 0, sizeof *p);
    p->fd = fd;
    p->eng = &p->br.server.eng;
    br_ssl_server_init_full_ec(&p->br.server, id->chain, id->count, BR_KEYTYPE_EC,
                               br_skey_decoder_get_ec(&id->key));
    br_ssl_engine_set_buffers_bidi(p->eng, p->buffers, BR_SSL_BUFSIZE_INPUT,
                                   p->buffers + BR_SSL_BUFSIZE_INPUT, BR_SSL_BUFSIZE_OUTPUT);
    T_CHECK(br_ssl_server_reset(&p->br.server));
}

/* Which certificate a client shows from now on where it is asked for one. */
T_FUNC void bear_bring(bear_peer *p, const bear_identity *id) {
    br_ssl_client_set_single_ec(&p->br.client, id->chain, id->count,
                                br_skey_decoder_get_ec(&id->key), BR_KEYTYPE_SIGN, BR_KEYTYPE_EC,
                                br_ec_get_default(), br_ecdsa_sign_asn1_get_default());
}

/* id: NULL brings none. */
T_FUNC void bear_begin_client(bear_peer *p, int fd, const bear_identity *id) {
    memset(p, 0, sizeof *p);
    p->fd = fd;
    p->eng = &p->br.client.eng;
    br_ssl_client_init_full(&p->br.client, &p->minimal, NULL, 0);
    p->lenient.vtable = &bear_x509_class;
    br_ssl_engine_set_x509(p->eng, &p->lenient.vtable);
    br_ssl_engine_set_buffers_bidi(p->eng, p->buffers, BR_SSL_BUFSIZE_INPUT,
                                   p->buffers + BR_SSL_BUFSIZE_INPUT, BR_SSL_BUFSIZE_OUTPUT);
    if (id)
        bear_bring(p, id);
    T_CHECK(br_ssl_client_reset(&p->br.client, "localhost", 0));
}

/* Sends text. 1, or 0: the connection has ended. */
T_FUNC int bear_say(bear_peer *p, const char *text) {
    size_t n = strlen(text), room;
    unsigned char *buf;
    if (bear_until(p, BR_SSL_SENDAPP) == BR_SSL_CLOSED)
        return 0;
    buf = br_ssl_engine_sendapp_buf(p->eng, &room);
    T_CHECK(buf != NULL && room >= n);
    memcpy(buf, text, n);
    br_ssl_engine_sendapp_ack(p->eng, n);
    br_ssl_engine_flush(p->eng, 0);
    return bear_until(p, BR_SSL_RECVREC | BR_SSL_SENDAPP | BR_SSL_RECVAPP) != BR_SSL_CLOSED;
}

/* Receives exactly this. 1, or 0: the connection has ended. */
T_FUNC int bear_expect(bear_peer *p, const char *text) {
    size_t n = strlen(text), have;
    while (n) {
        unsigned char *buf;
        if (bear_until(p, BR_SSL_RECVAPP) == BR_SSL_CLOSED)
            return 0;
        buf = br_ssl_engine_recvapp_buf(p->eng, &have);
        have = have < n ? have : n;
        T_EQ(memcmp(buf, text, have), 0);
        br_ssl_engine_recvapp_ack(p->eng, have);
        text += have;
        n -= have;
    }
    return 1;
}

#endif
