/* A TLS 1.2 peer made by hand, client or server: it writes any record and any message, in clear or
   under the right keys, and reads what comes back. It speaks one suite, ECDHE_ECDSA with
   AES_128_GCM_SHA256, over X25519 or P-256; its primitives are BearSSL's. What it talks to is an
   r_end: a connection of the library, driven in one of three ways. */
#ifndef TESTS_SUPPORT_RAWTLS_H
#define TESTS_SUPPORT_RAWTLS_H

#include "support/support.h"
#include "support/handshake.h"

#include <bearssl.h>

#define R_PATIENCE T_SCALE(10.0, 60.0)
#define R_ROOM (192u * 1024)
#define R_FRAGMENT 16384u

/* Records, handshake messages, extensions, curves, signature algorithms. */
enum { R_CCS = 20, R_ALERT = 21, R_HANDSHAKE = 22, R_DATA = 23 };
enum {
    R_HELLO_REQUEST = 0,
    R_CLIENT_HELLO = 1,
    R_SERVER_HELLO = 2,
    R_TICKET = 4,
    R_CERTIFICATE = 11,
    R_SERVER_KEY = 12,
    R_CERTIFICATE_REQUEST = 13,
    R_HELLO_DONE = 14,
    R_CERTIFICATE_VERIFY = 15,
    R_CLIENT_KEY = 16,
    R_FINISHED = 20
};
enum {
    R_SERVER_NAME = 0,
    R_MAX_FRAGMENT = 1,
    R_GROUPS = 10,
    R_POINT_FORMATS = 11,
    R_SIGNATURES = 13,
    R_ALPN = 16,
    R_MASTER_SECRET = 23,
    R_VERSIONS = 43,
    R_RENEGOTIATION = 0xff01
};
enum { R_P256 = 23, R_X25519 = 29 };
enum { R_SHA256_ECDSA = 0x0403 };
#define R_SUITE 0xc02b

/* What r_next() returns besides the kind of a handshake message. */
enum { R_NOTHING = -1, R_IS_ALERT = -2, R_IS_CCS = -3, R_IS_DATA = -4, R_IS_NOISE = -5 };

#define R_TEXT(text) (const unsigned char *)(text), sizeof(text) - 1

/* ---- bytes ---- */

typedef struct r_bytes {
    size_t size;
    unsigned char data[R_ROOM];
} r_bytes;

T_FUNC void r_put(r_bytes *b, const void *data, size_t size) {
    T_CHECK(size <= R_ROOM - b->size);
    if (size)
        memcpy(b->data + b->size, data, size);
    b->size += size;
}

T_FUNC void r_fill(r_bytes *b, int value, size_t size) {
    T_CHECK(size <= R_ROOM - b->size);
    memset(b->data + b->size, value, size);
    b->size += size;
}

/* A number in so many bytes. */
T_FUNC void r_number(r_bytes *b, int bytes, size_t n) {
    while (bytes--) {
        unsigned char c = (unsigned char)(n >> 8 * bytes);
        r_put(b, &c, 1);
    }
}

/* A vector: its length, which is so many bytes long, and its contents. */
T_FUNC void r_vector(r_bytes *b, int bytes, const void *data, size_t size) {
    r_number(b, bytes, size);
    r_put(b, data, size);
}

T_FUNC size_t r_get(const unsigned char *p, int bytes) {
    size_t n = 0;
    while (bytes--)
        n = n << 8 | *p++;
    return n;
}

/* A handshake message, behind those that are there already. */
T_FUNC void r_message(r_bytes *b, int type, const void *body, size_t size) {
    r_number(b, 1, (size_t)type);
    r_vector(b, 3, body, size);
}

/* The first object of a PEM file. */
T_FUNC void r_append_bytes(void *arg, const void *data, size_t size) {
    r_put(arg, data, size);
}

T_FUNC void r_read_pem(const char *path, r_bytes *der) {
    br_pem_decoder_context pem;
    char text[8192];
    size_t n, done = 0;
    int events = 0;
    FILE *f = fopen(path, "rb");
    T_CHECK(f != NULL);
    n = fread(text, 1, sizeof text, f);
    fclose(f);
    der->size = 0;
    br_pem_decoder_init(&pem);
    while (done < n && events != BR_PEM_END_OBJ) {
        done += br_pem_decoder_push(&pem, text + done, n - done);
        events = br_pem_decoder_event(&pem);
        if (events == BR_PEM_BEGIN_OBJ)
            br_pem_decoder_setdest(&pem, r_append_bytes, der);
    }
    T_EQ(events, BR_PEM_END_OBJ);
}

/* ---- hellos ---- */

/* The parts of a ClientHello or ServerHello. suites: of a server its choice alone; so are
   compressions. */
typedef struct r_hello {
    int version;
    unsigned char session[256];
    size_t session_size;
    unsigned char suites[256];
    size_t suites_size;
    unsigned char compressions[256];
    size_t compressions_size;
    int no_extensions; /* 1: not even their length */
    r_bytes extensions;
    r_bytes tail; /* behind all */
} r_hello;

T_FUNC void r_extend(r_hello *h, int type, const void *data, size_t size) {
    r_number(&h->extensions, 2, (size_t)type);
    r_vector(&h->extensions, 2, data, size);
}

/* Takes an extension away. */
T_FUNC void r_unextend(r_hello *h, int type) {
    unsigned char *p = h->extensions.data, *end = p + h->extensions.size;
    while (p < end) {
        size_t size = 4 + r_get(p + 2, 2);
        if (r_get(p, 2) == (size_t)type) {
            memmove(p, p + size, (size_t)(end - p) - size);
            end -= size;
        } else {
            p += size;
        }
    }
    h->extensions.size = (size_t)(end - h->extensions.data);
}

/* Puts another value in the place of an extension's. */
T_FUNC void r_reextend(r_hello *h, int type, const void *data, size_t size) {
    r_unextend(h, type);
    r_extend(h, type, data, size);
}

T_FUNC void r_extend_name(r_hello *h, const void *name, size_t size) {
    static r_bytes value;
    value.size = 0;
    r_number(&value, 2, size + 3);
    r_number(&value, 1, 0);
    r_vector(&value, 2, name, size);
    r_reextend(h, R_SERVER_NAME, value.data, value.size);
}

/* An honest client's; name: by SNI, or NULL. */
T_FUNC void r_make_client_hello(r_hello *h, const char *name) {
    static const unsigned char suites[] = {0xc0, 0x2b};
    h->version = 0x303;
    h->session_size = h->extensions.size = h->tail.size = 0;
    h->no_extensions = 0;
    memcpy(h->suites, suites, sizeof suites);
    h->suites_size = sizeof suites;
    h->compressions[0] = 0;
    h->compressions_size = 1;
    r_extend(h, R_RENEGOTIATION, R_TEXT("\0"));
    r_extend(h, R_GROUPS, R_TEXT("\0\4\0\35\0\27"));
    r_extend(h, R_POINT_FORMATS, R_TEXT("\1\0"));
    r_extend(h, R_SIGNATURES, R_TEXT("\0\4\4\3\4\1"));
    if (name)
        r_extend_name(h, name, strlen(name));
}

/* An honest server's, in answer to a hello of the library. */
T_FUNC void r_make_server_hello(r_hello *h) {
    static const unsigned char suite[] = {0xc0, 0x2b};
    h->version = 0x303;
    h->session_size = h->extensions.size = h->tail.size = 0;
    h->no_extensions = 0;
    memcpy(h->suites, suite, sizeof suite);
    h->suites_size = sizeof suite;
    h->compressions[0] = 0;
    h->compressions_size = 1;
    r_extend(h, R_RENEGOTIATION, R_TEXT("\0"));
}

/* The body of the message. */
T_FUNC void r_write_hello(r_bytes *b, const r_hello *h, int server, const unsigned char *random) {
    b->size = 0;
    r_number(b, 2, (size_t)h->version);
    r_put(b, random, 32);
    r_vector(b, 1, h->session, h->session_size);
    if (!server)
        r_number(b, 2, h->suites_size);
    r_put(b, h->suites, h->suites_size);
    if (!server)
        r_number(b, 1, h->compressions_size);
    r_put(b, h->compressions, h->compressions_size);
    if (!h->no_extensions)
        r_vector(b, 2, h->extensions.data, h->extensions.size);
    r_put(b, h->tail.data, h->tail.size);
}

/* ---- the peer ---- */

typedef struct r_keys {
    unsigned char key[16], iv[4];
    uint64_t sequence;
    int on;
} r_keys;

typedef struct r_peer {
    int fd; /* or -1 and the two BIOs */
    pysock_bio *to, *from;
    const char *certificate;  /* a server's, of tests/certs */
    void (*drive)(void *arg); /* lets the other end go on; or NULL, where it does by itself */
    void *drive_arg;
    int server;
    int record_version;
    unsigned char random[2][32]; /* the client's and the server's */
    br_sha256_context transcript;
    int curve;
    unsigned char secret[64], point[133], peer_point[133];
    size_t secret_size, point_size, peer_point_size;
    unsigned char master[48];
    unsigned char verify[2][12]; /* the client's and the server's last Finished */
    r_keys in, out;
    r_keys next_in, next_out; /* from the next ChangeCipherSpec on */
    r_bytes hello;            /* the other's, without its header */
    r_bytes pending;          /* handshake bytes that came, and are not taken yet */
    int certificate_asked;
    int alert, alert_level; /* the last that came; -1 */
    int warnings;           /* how many warnings came */
    int ended;              /* the stream has: 1 by its end, 2 by a reset */
    int broken;             /* what is written arrives nowhere */
    size_t records_written; /* atomic */
} r_peer;

T_FUNC void r_peer_init(r_peer *p, int server) {
    memset(p, 0, offsetof(r_peer, hello));
    p->hello.size = p->pending.size = 0;
    p->certificate_asked = p->warnings = p->ended = p->broken = 0;
    p->alert = p->alert_level = -1;
    p->records_written = 0;
    p->fd = -1;
    p->server = server;
    p->record_version = 0x303;
    p->certificate = "server-ec";
    p->curve = R_X25519;
    memcpy(p->random[server], t_bytes((uint64_t)(server ? 1000 : 2000), 7), 32);
    br_sha256_init(&p->transcript);
}

/* ---- bytes to and fro ---- */

T_FUNC void r_write(r_peer *p, const void *data, size_t size) {
    size_t done = 0;
    if (p->fd < 0) {
        T_EQ(pysock_bio_write(p->to, data, size), size);
        return;
    }
    while (done < size && !p->broken) {
        ssize_t n = send(p->fd, (const char *)data + done, size - done,
                         MSG_NOSIGNAL | (p->drive ? MSG_DONTWAIT : 0));
        if (n < 0 && errno == EAGAIN && p->drive)
            p->drive(p->drive_arg);
        else if (n < 0 && errno != EINTR)
            p->broken = 1;
        else if (n > 0)
            done += (size_t)n;
    }
}

/* Some bytes; 0: nothing comes. */
T_FUNC size_t r_read_some(r_peer *p, unsigned char *buf, size_t size) {
    double end = t_now() + R_PATIENCE;
    ssize_t n;
    if (p->fd < 0) {
        n = T_OK(pysock_bio_read(p->from, buf, size));
        if (n == 0) {
            p->drive(p->drive_arg);
            n = T_OK(pysock_bio_read(p->from, buf, size));
        }
        return (size_t)n;
    }
    while (!p->ended && t_now() < end) {
        struct pollfd pfd = {p->fd, POLLIN, 0};
        if (p->drive)
            p->drive(p->drive_arg);
        if (poll(&pfd, 1, p->drive ? 5 : 100) <= 0)
            continue;
        n = recv(p->fd, buf, size, MSG_DONTWAIT);
        if (n > 0)
            return (size_t)n;
        if (n == 0 || (errno != EINTR && errno != EAGAIN))
            p->ended = n == 0 ? 1 : 2;
    }
    return 0;
}

T_FUNC int r_read_all(r_peer *p, unsigned char *buf, size_t size) {
    size_t have = 0, n = 1;
    while (have < size && n > 0) {
        n = r_read_some(p, buf + have, size - have);
        have += n;
    }
    return have == size;
}

/* ---- records ---- */

T_FUNC void r_gcm(const r_keys *k, const unsigned char *nonce, int type, int version,
                  unsigned char *data, size_t size, int encrypt, unsigned char tag[16]) {
    br_aes_ct_ctr_keys aes;
    br_gcm_context gcm;
    unsigned char iv[12], aad[13];
    memcpy(iv, k->iv, 4);
    memcpy(iv + 4, nonce, 8);
    for (int i = 0; i < 8; i++)
        aad[i] = (unsigned char)(k->sequence >> 8 * (7 - i));
    aad[8] = (unsigned char)type;
    aad[9] = (unsigned char)(version >> 8);
    aad[10] = (unsigned char)version;
    aad[11] = (unsigned char)(size >> 8);
    aad[12] = (unsigned char)size;
    br_aes_ct_ctr_init(&aes, k->key, 16);
    br_gcm_init(&gcm, &aes.vtable, br_ghash_ctmul);
    br_gcm_reset(&gcm, iv, sizeof iv);
    br_gcm_aad_inject(&gcm, aad, sizeof aad);
    br_gcm_flip(&gcm);
    br_gcm_run(&gcm, encrypt, data, size);
    br_gcm_get_tag(&gcm, tag);
}

T_FUNC void r_write_header(r_peer *p, int type, size_t size) {
    unsigned char header[5] = {(unsigned char)type, (unsigned char)(p->record_version >> 8),
                               (unsigned char)p->record_version, (unsigned char)(size >> 8),
                               (unsigned char)size};
    r_write(p, header, 5);
}

/* A record as it stands, whatever keys are on. */
T_FUNC void r_write_clear(r_peer *p, int type, const void *data, size_t size) {
    r_bytes record;
    record.size = 0;
    r_number(&record, 1, (size_t)type);
    r_number(&record, 2, (size_t)p->record_version);
    r_vector(&record, 2, data, size);
    __atomic_add_fetch(&p->records_written, 1, __ATOMIC_RELAXED);
    r_write(p, record.data, record.size);
}

/* A record, encrypted once the keys are on. */
T_FUNC void r_write_record(r_peer *p, int type, const void *data, size_t size) {
    r_bytes sealed;
    unsigned char tag[16];
    if (!p->out.on) {
        r_write_clear(p, type, data, size);
        return;
    }
    sealed.size = 0;
    r_number(&sealed, 4, (size_t)(p->out.sequence >> 32));
    r_number(&sealed, 4, (size_t)(p->out.sequence & 0xffffffff));
    r_put(&sealed, data, size);
    r_gcm(&p->out, sealed.data, type, p->record_version, sealed.data + 8, size, 1, tag);
    r_put(&sealed, tag, 16);
    p->out.sequence++;
    r_write_clear(p, type, sealed.data, sealed.size);
}

/* As many records as it takes. */
T_FUNC void r_write_records(r_peer *p, int type, const void *data, size_t size) {
    const unsigned char *bytes = data;
    do {
        size_t n = size < R_FRAGMENT ? size : R_FRAGMENT;
        r_write_record(p, type, bytes, n);
        bytes += n;
        size -= n;
    } while (size);
}

T_FUNC void r_write_alert(r_peer *p, int level, int description) {
    unsigned char alert[2] = {(unsigned char)level, (unsigned char)description};
    r_write_record(p, R_ALERT, alert, 2);
}

/* One record, decrypted; its type, or R_NOTHING, or R_IS_NOISE if it is none. */
T_FUNC int r_read_record(r_peer *p, r_bytes *out) {
    unsigned char header[5], tag[16];
    size_t size;
    int type;
    out->size = 0;
    if (!r_read_all(p, header, 5))
        return R_NOTHING;
    type = header[0];
    size = r_get(header + 3, 2);
    if (header[1] != 3 || size > R_FRAGMENT + 2048 || !r_read_all(p, out->data, size))
        return R_IS_NOISE;
    out->size = size;
    if (!p->in.on)
        return type;
    if (size < 24)
        return R_IS_NOISE;
    size -= 24;
    r_gcm(&p->in, out->data, type, (int)r_get(header + 1, 2), out->data + 8, size, 0, tag);
    p->in.sequence++;
    if (memcmp(tag, out->data + 8 + size, 16) != 0)
        return R_IS_NOISE;
    memmove(out->data, out->data + 8, size);
    out->size = size;
    return type;
}

/* ---- messages ---- */

/* A handshake message, hashed, in as many records as it takes. */
T_FUNC void r_send(r_peer *p, int type, const void *body, size_t size) {
    r_bytes b;
    b.size = 0;
    r_message(&b, type, body, size);
    if (type != R_HELLO_REQUEST)
        br_sha256_update(&p->transcript, b.data, b.size);
    r_write_records(p, R_HANDSHAKE, b.data, b.size);
}

T_FUNC int r_take_message(r_peer *p, r_bytes *body) {
    size_t size = p->pending.size < 4 ? 0 : r_get(p->pending.data + 1, 3);
    int type = p->pending.data[0];
    if (p->pending.size < 4 || p->pending.size - 4 < size)
        return R_NOTHING;
    if (type != R_HELLO_REQUEST)
        br_sha256_update(&p->transcript, p->pending.data, size + 4);
    body->size = 0;
    r_put(body, p->pending.data + 4, size);
    p->pending.size -= size + 4;
    memmove(p->pending.data, p->pending.data + 4 + size, p->pending.size);
    return type;
}

/* What comes next: a handshake message, whose body is put into *body and which is hashed, or
   something else. */
T_FUNC int r_next(r_peer *p, r_bytes *body) {
    for (;;) {
        int type = r_take_message(p, body);
        if (type != R_NOTHING)
            return type;
        type = r_read_record(p, body);
        switch (type) {
        case R_HANDSHAKE: r_put(&p->pending, body->data, body->size); break;
        case R_ALERT:
            if (body->size != 2)
                return R_IS_NOISE;
            p->alert_level = body->data[0];
            p->alert = body->data[1];
            p->warnings += p->alert_level == 1;
            return R_IS_ALERT;
        case R_CCS: p->in = p->next_in; return R_IS_CCS;
        case R_DATA: return R_IS_DATA;
        case R_NOTHING: return R_NOTHING;
        default: return R_IS_NOISE;
        }
    }
}

/* ---- keys ---- */

T_FUNC void r_make_key(r_peer *p) {
    br_hmac_drbg_context drbg;
    br_ec_private_key key;
    const br_ec_impl *ec = br_ec_get_default();
    br_hmac_drbg_init(&drbg, &br_sha256_vtable, p, sizeof p->random);
    br_hmac_drbg_update(&drbg, p->random, sizeof p->random);
    p->secret_size = br_ec_keygen(&drbg.vtable, ec, &key, p->secret, p->curve);
    T_CHECK(p->secret_size > 0);
    p->point_size = br_ec_compute_pub(ec, NULL, p->point, &key);
    T_CHECK(p->point_size > 0);
}

T_FUNC void r_prf(unsigned char *out, size_t size, const void *secret, size_t secret_size,
                  const char *label, const void *a, size_t a_size, const void *b, size_t b_size) {
    br_tls_prf_seed_chunk seeds[2] = {{a, a_size}, {b, b_size}};
    br_tls12_sha256_prf(out, size, secret, secret_size, label, b ? 2 : 1, seeds);
}

/* The master secret and the keys, out of both points and both randoms. */
T_FUNC void r_derive(r_peer *p) {
    unsigned char shared[133], block[40];
    const br_ec_impl *ec = br_ec_get_default();
    r_keys *client = p->server ? &p->next_in : &p->next_out;
    r_keys *server = p->server ? &p->next_out : &p->next_in;
    size_t offset, size;
    memcpy(shared, p->peer_point, p->peer_point_size);
    ec->mul(shared, p->peer_point_size, p->secret, p->secret_size, p->curve);
    offset = ec->xoff(p->curve, &size);
    r_prf(p->master, 48, shared + offset, size, "master secret", p->random[0], 32, p->random[1],
          32);
    r_prf(block, sizeof block, p->master, 48, "key expansion", p->random[1], 32, p->random[0], 32);
    memcpy(client->key, block, 16);
    memcpy(server->key, block + 16, 16);
    memcpy(client->iv, block + 32, 4);
    memcpy(server->iv, block + 36, 4);
    client->sequence = server->sequence = 0;
    client->on = server->on = 1;
}

T_FUNC void r_verify_data(const r_peer *p, int server, unsigned char out[12]) {
    unsigned char hash[32];
    br_sha256_out(&p->transcript, hash);
    r_prf(out, 12, p->master, 48, server ? "server finished" : "client finished", hash, 32, NULL,
          0);
}

/* A signature by the key in a PEM file: 0x0403, its length and itself. */
T_FUNC void r_sign(r_bytes *out, const char *keyfile, const void *hash) {
    br_skey_decoder_context decoder;
    unsigned char signature[80];
    r_bytes der;
    size_t size;
    r_read_pem(keyfile, &der);
    br_skey_decoder_init(&decoder);
    br_skey_decoder_push(&decoder, der.data, der.size);
    T_EQ(br_skey_decoder_key_type(&decoder), BR_KEYTYPE_EC);
    size = br_ecdsa_sign_asn1_get_default()(br_ec_get_default(), &br_sha256_vtable, hash,
                                            br_skey_decoder_get_ec(&decoder), signature);
    T_CHECK(size > 0);
    r_number(out, 2, R_SHA256_ECDSA);
    r_vector(out, 2, signature, size);
}

/* The body of a Certificate message with the certificates of these PEM files, up to NULL. */
T_FUNC void r_write_chain(r_bytes *out, const char *const *files) {
    r_bytes der;
    out->size = 0;
    r_number(out, 3, 0);
    for (; *files; files++) {
        r_read_pem(*files, &der);
        r_vector(out, 3, der.data, der.size);
    }
    out->data[1] = (unsigned char)((out->size - 3) >> 8);
    out->data[2] = (unsigned char)(out->size - 3);
}

/* ---- a client's steps ---- */

T_FUNC void r_say_hello(r_peer *p, const r_hello *h) {
    r_bytes body;
    r_write_hello(&body, h, p->server, p->random[p->server]);
    r_send(p, p->server ? R_SERVER_HELLO : R_CLIENT_HELLO, body.data, body.size);
}

T_FUNC void r_note_hello(r_peer *p, const r_bytes *body) {
    T_CHECK(body->size >= 35);
    memcpy(p->random[!p->server], body->data + 2, 32);
    p->hello.size = 0;
    r_put(&p->hello, body->data, body->size);
}

/* Reads the server's messages up to its ServerHelloDone. 0, or what came instead. */
T_FUNC int r_read_server_flight(r_peer *p) {
    r_bytes body;
    for (;;) {
        int type = r_next(p, &body);
        switch (type) {
        case R_SERVER_HELLO: r_note_hello(p, &body); break;
        case R_CERTIFICATE: break;
        case R_CERTIFICATE_REQUEST: p->certificate_asked = 1; break;
        case R_SERVER_KEY:
            p->curve = (int)r_get(body.data + 1, 2);
            p->peer_point_size = body.data[3];
            T_CHECK(p->peer_point_size <= sizeof p->peer_point);
            memcpy(p->peer_point, body.data + 4, p->peer_point_size);
            break;
        case R_HELLO_DONE: return 0;
        default: return type;
        }
    }
}

/* Makes the key pair and the keys; the body of an honest ClientKeyExchange. */
T_FUNC void r_make_client_key(r_peer *p, r_bytes *body) {
    r_make_key(p);
    r_derive(p);
    body->size = 0;
    r_vector(body, 1, p->point, p->point_size);
}

T_FUNC void r_send_client_key(r_peer *p) {
    r_bytes body;
    r_make_client_key(p, &body);
    r_send(p, R_CLIENT_KEY, body.data, body.size);
}

T_FUNC void r_send_ccs(r_peer *p) {
    r_write_record(p, R_CCS, "\1", 1);
    p->out = p->next_out;
}

T_FUNC void r_send_finished(r_peer *p) {
    r_verify_data(p, p->server, p->verify[p->server]);
    r_send(p, R_FINISHED, p->verify[p->server], 12);
}

/* Behind the other's ChangeCipherSpec. */
T_FUNC int r_read_finished_message(r_peer *p) {
    r_bytes body;
    unsigned char *data = p->verify[!p->server];
    int type;
    r_verify_data(p, !p->server, data);
    type = r_next(p, &body);
    if (type != R_FINISHED)
        return type == 0 ? R_IS_NOISE : type;
    return body.size == 12 && memcmp(data, body.data, 12) == 0 ? 0 : R_IS_NOISE;
}

/* Reads the other's ChangeCipherSpec and Finished, and whether that is right. 0, or what came. */
T_FUNC int r_read_finished(r_peer *p) {
    r_bytes body;
    int type = r_next(p, &body);
    return type == R_IS_CCS ? r_read_finished_message(p) : type == 0 ? R_IS_NOISE : type;
}

/* What is left of a client's handshake, behind the server's first flight. */
T_FUNC int r_finish_client(r_peer *p) {
    if (p->certificate_asked)
        r_send(p, R_CERTIFICATE, "\0\0\0", 3);
    r_send_client_key(p);
    r_send_ccs(p);
    r_send_finished(p);
    return r_read_finished(p);
}

/* A client's whole handshake. 0, or what came instead. */
T_FUNC int r_connect(r_peer *p, const r_hello *h) {
    int r;
    r_say_hello(p, h);
    r = r_read_server_flight(p);
    return r ? r : r_finish_client(p);
}

/* ---- a server's steps ---- */

/* The library's ClientHello, into p->hello. */
T_FUNC int r_read_client_hello(r_peer *p) {
    r_bytes body;
    int type = r_next(p, &body);
    if (type != R_CLIENT_HELLO)
        return type == 0 ? R_IS_NOISE : type;
    r_note_hello(p, &body);
    return 0;
}

T_FUNC void r_send_server_hello(r_peer *p) {
    r_hello h;
    r_make_server_hello(&h);
    r_say_hello(p, &h);
}

T_FUNC void r_make_certificate(const r_peer *p, r_bytes *body) {
    char path[128];
    const char *files[2] = {path, NULL};
    snprintf(path, sizeof path, T_CERTS "%s.pem", p->certificate);
    r_write_chain(body, files);
}

T_FUNC void r_send_certificate(r_peer *p) {
    r_bytes body;
    r_make_certificate(p, &body);
    r_send(p, R_CERTIFICATE, body.data, body.size);
}

/* The parameters of a ServerKeyExchange, for any curve and point, and a good signature. */
T_FUNC void r_write_server_key(const r_peer *p, r_bytes *body, int curve, const void *point,
                               size_t size) {
    br_sha256_context sha;
    unsigned char hash[32];
    char path[128];
    snprintf(path, sizeof path, T_CERTS "%s.key", p->certificate);
    body->size = 0;
    r_number(body, 1, 3);
    r_number(body, 2, (size_t)curve);
    r_vector(body, 1, point, size);
    br_sha256_init(&sha);
    br_sha256_update(&sha, p->random[0], 32);
    br_sha256_update(&sha, p->random[1], 32);
    br_sha256_update(&sha, body->data, body->size);
    br_sha256_out(&sha, hash);
    r_sign(body, path, hash);
}

T_FUNC void r_make_server_key(r_peer *p, r_bytes *body) {
    r_make_key(p);
    r_write_server_key(p, body, p->curve, p->point, p->point_size);
}

T_FUNC void r_send_server_key(r_peer *p) {
    r_bytes body;
    r_make_server_key(p, &body);
    r_send(p, R_SERVER_KEY, body.data, body.size);
}

/* Reads the client's messages, up to its Finished, and looks at that. 0, or what came instead. */
T_FUNC int r_read_client_flight(r_peer *p) {
    r_bytes body;
    for (;;) {
        int type = r_next(p, &body);
        switch (type) {
        case R_CERTIFICATE:
        case R_CERTIFICATE_VERIFY: break;
        case R_CLIENT_KEY:
            p->peer_point_size = body.data[0];
            T_CHECK(p->peer_point_size <= sizeof p->peer_point);
            memcpy(p->peer_point, body.data + 1, p->peer_point_size);
            r_derive(p);
            break;
        case R_IS_CCS: return r_read_finished_message(p);
        default: return type == 0 ? R_IS_NOISE : type;
        }
    }
}

T_FUNC void r_send_hello_done(r_peer *p) {
    r_send(p, R_HELLO_DONE, NULL, 0);
}

T_FUNC void r_send_server_flight(r_peer *p) {
    r_send_server_hello(p);
    r_send_certificate(p);
    r_send_server_key(p);
    r_send_hello_done(p);
}

/* What is left of a server's handshake, behind the client's flight. */
T_FUNC void r_finish_server(r_peer *p) {
    r_send_ccs(p);
    r_send_finished(p);
}

/* A server's whole handshake. 0, or what came instead. */
T_FUNC int r_serve(r_peer *p) {
    int r = r_read_client_hello(p);
    if (r)
        return r;
    r_send_server_flight(p);
    r = r_read_client_flight(p);
    if (r)
        return r;
    r_finish_server(p);
    return 0;
}

/* ---- the end under test ---- */

/* Who does its work: calls, between two memory BIOs; calls that block, in a thread; the reactor. */
enum { R_BY_BIO, R_BY_CALLER, R_BY_REACTOR, R_WAYS };

static const char *const r_way_names[R_WAYS] = {"memory BIOs", "a caller", "the reactor"};

typedef struct r_end {
    int way;
    pysock *s;
    pysock_bio *in, *out;
    t_thread thread;
    int established, over; /* over: the outcome is known */
    h_outcome outcome;     /* the first error, or 0 for the end of the stream */
    char version[16], protocol[256];
    char received[4096];
    size_t received_size; /* what came of it fits, up to that much */
} r_end;

T_FUNC void r_end_receive(r_end *e, const char *data, size_t size) {
    size_t room = sizeof e->received - e->received_size;
    memcpy(e->received + e->received_size, data, size < room ? size : room);
    e->received_size += size < room ? size : room;
}

T_FUNC void r_end_connected(r_end *e) {
    const char *version = pysock_ssl_version(e->s);
    const char *protocol = t_alpn(e->s);
    e->established = 1;
    snprintf(e->version, sizeof e->version, "%s", version ? version : "");
    snprintf(e->protocol, sizeof e->protocol, "%s", protocol ? protocol : "");
}

/* It has failed, or its stream has ended: it is closed at once, as programs do. */
T_FUNC void r_end_is_over(r_end *e, int result) {
    e->outcome = h_outcome_of(result);
    e->over = 1;
    if (e->way != R_BY_BIO) {
        pysock_close(e->s);
        e->s = NULL;
    }
}

T_FUNC void *r_end_thread(void *arg) {
    r_end *e = arg;
    char buf[4096];
    ptrdiff_t n = pysock_ssl_do_handshake(e->s);
    if (n == 0) {
        r_end_connected(e);
        while ((n = pysock_recv(e->s, buf, sizeof buf, 0)) > 0)
            r_end_receive(e, buf, (size_t)n);
    }
    r_end_is_over(e, n < 0 ? -1 : 0);
    return NULL;
}

T_FUNC int r_would_wait(void) {
    return errno == EAGAIN || pysock_error() == PYSOCK_SSL_WANT_READ_ERROR;
}

/* What can be done without waiting. */
T_FUNC void r_end_drive(void *arg) {
    r_end *e = arg;
    char buf[4096];
    if (e->over)
        return;
    if (!e->established) {
        int r = pysock_ssl_do_handshake(e->s);
        if (r < 0 && (errno == EINPROGRESS || r_would_wait()))
            return;
        if (r < 0) {
            r_end_is_over(e, -1);
            return;
        }
        r_end_connected(e);
    }
    for (int i = 0; i < 64; i++) {
        ptrdiff_t n = pysock_recv(e->s, buf, sizeof buf, 0);
        if (n < 0 && r_would_wait())
            return;
        if (n <= 0) {
            r_end_is_over(e, n < 0 ? -1 : 0);
            return;
        }
        r_end_receive(e, buf, (size_t)n);
    }
}

/* A connection that a peer's functions can talk to; host: NULL on a server. */
T_FUNC void r_open(r_end *e, r_peer *p, int way, pysock_ssl_context *ctx, const char *host) {
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    memset(e, 0, sizeof *e);
    options.server_hostname = host;
    options.server_side = !host;
    options.no_handshake_on_connect = 1;
    options.raise_ragged_eofs = 1;
    e->way = way;
    r_peer_init(p, host != NULL);
    if (way == R_BY_BIO) {
        e->in = T_OK(pysock_bio_new());
        e->out = T_OK(pysock_bio_new());
        e->s = T_OK(pysock_ssl_wrap_bio(ctx, e->in, e->out, &options));
        p->to = e->in;
        p->from = e->out;
    } else {
        int port, raw = t_raw_listen(&port);
        p->fd = t_raw_connect(port);
        e->s = T_OK(pysock_adopt(t_raw_accept(raw), -1, -1, -1));
        close(raw);
        T_OK(pysock_settimeout(e->s, way == R_BY_CALLER ? 2 * R_PATIENCE : 0));
        T_OK(pysock_ssl_wrap_socket_ex(e->s, ctx, &options));
    }
    if (way == R_BY_CALLER) {
        t_spawn(&e->thread, r_end_thread, e);
        return;
    }
    p->drive = r_end_drive;
    p->drive_arg = e;
    r_end_drive(e);
}

/* Ends the peer's stream, lets the end come to its own, and frees all. What the end still says is
   read: to close with unread input would reset the connection. */
T_FUNC void r_close(r_end *e, r_peer *p) {
    double end = t_now() + R_PATIENCE;
    unsigned char rest[4096];
    if (p->fd >= 0) {
        shutdown(p->fd, SHUT_WR);
        while (!p->ended && r_read_some(p, rest, sizeof rest) > 0)
            continue;
        close(p->fd);
    } else {
        T_OK(pysock_bio_write_eof(e->in));
    }
    p->fd = -1;
    if (e->way == R_BY_CALLER)
        t_join(&e->thread);
    while (!e->over && t_now() < end) {
        r_end_drive(e);
        if (!e->over)
            t_nap(0.002);
    }
    pysock_close(e->s);
    pysock_bio_release(e->in);
    pysock_bio_release(e->out);
    e->s = NULL;
}

/* ---- tables: every row is tried, and all that are wrong are told ---- */

static int r_complaints;

__attribute__((format(printf, 2, 3), unused)) static void r_complain(const char *row,
                                                                     const char *format, ...) {
    va_list args;
    fprintf(stderr, "*** %s: ", row);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    r_complaints++;
}

/* Runs what follows in each way, until something is wrong: what is said by none of them is waited
   for once at most. */
#define FOR_EACH_WAY(way)                                                                          \
    for (int way = 0, way##_before = r_complaints; way < R_WAYS && r_complaints == way##_before;   \
         way++)

/* The last line of a test with a table. */
T_FUNC void r_no_complaints(void) {
    int n = r_complaints;
    r_complaints = 0;
    if (n)
        T_FAIL("%d rows are wrong, see above", n);
}

/* Alerts, any of which will do; no more of them at the first 0. */
typedef struct r_alerts {
    int any[4];
} r_alerts;

/* clang-format off */
#define R_ONE_OF(...) {{__VA_ARGS__}} /* in a table */
/* clang-format on */
#define R_ALERTS(...) ((r_alerts)R_ONE_OF(__VA_ARGS__))

T_FUNC int r_is_one_of(r_alerts alerts, int alert) {
    for (int i = 0; i < 4 && alerts.any[i]; i++)
        if (alerts.any[i] == alert)
            return 1;
    return 0;
}

T_FUNC const char *r_list(r_alerts alerts) {
    static char text[128];
    size_t n = 0;
    text[0] = 0;
    for (int i = 0; i < 4 && alerts.any[i]; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s%d", n ? " or " : "", alerts.any[i]);
    return text;
}

T_FUNC const char *r_what(int came) {
    static char text[64];
    switch (came) {
    case 0: return "all that was wanted";
    case R_NOTHING: return "nothing";
    case R_IS_ALERT: return "an alert";
    case R_IS_CCS: return "ChangeCipherSpec";
    case R_IS_DATA: return "application data";
    case R_IS_NOISE: return "noise";
    default: break;
    }
    snprintf(text, sizeof text, "handshake message %d", came);
    return text;
}

/* The next that comes, warnings aside, must be a fatal alert, one of these. */
T_FUNC void r_check_alert(r_peer *p, const char *row, r_alerts alerts) {
    static r_bytes body;
    int came;
    do
        came = r_next(p, &body);
    while (came == R_IS_ALERT && p->alert_level == 1);
    if (came != R_IS_ALERT)
        r_complain(row, "%s came, not the alert %s", r_what(came), r_list(alerts));
    else if (p->alert_level != 2 || !r_is_one_of(alerts, p->alert))
        r_complain(row, "the alert %d (level %d) came, not %s", p->alert, p->alert_level,
                   r_list(alerts));
}

/* What the end says of its failure, once it is over. */
T_FUNC void r_check_error(const r_end *e, const char *row) {
    const h_outcome *o = &e->outcome;
    if (!e->over) {
        r_complain(row, "is not over");
        return;
    }
    if (o->result == 0) {
        r_complain(row, "did not fail");
        return;
    }
    if (o->kind != PYSOCK_SSL_ERROR && o->kind != PYSOCK_SSL_CERT_VERIFICATION_ERROR)
        r_complain(row, "failed with %s (%s), not SSLError", o->name, o->message);
    if (!o->reason[0] || h_contains(o->reason, "INTERNAL_ERROR") || !strcmp(o->reason, "UNKNOWN"))
        r_complain(row, "the reason is '%s' (%s)", o->reason, o->message);
    if (!o->message[0] || h_contains(o->message, "BearSSL was called") ||
        h_contains(o->message, "unknown"))
        r_complain(row, "the message is '%s'", o->message);
}

/* The peer has said something wrong: an alert, an error, no application data. */
T_FUNC void r_check_refusal(r_end *e, r_peer *p, const char *row, r_alerts alerts) {
    int before = r_complaints;
    r_check_alert(p, row, alerts);
    r_close(e, p);
    if (r_complaints == before)
        r_check_error(e, row);
    if (e->received_size)
        r_complain(row, "application data was received");
}

#endif
