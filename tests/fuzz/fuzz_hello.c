/* What a client says first, to a server with an sni_callback. The client is BearSSL's, and honest:
   left alone it completes the handshake. The input is a script that rewrites its first messages,
   and puts anything before, between and behind their records; the client's transcript follows, so
   that whatever the server believes to have read, both ends agree about it.

   The first byte says what the callback answers (see WITH_). With one that refuses no handshake is
   ever completed, and no application data received; with one that agrees, none without its having
   been asked, once. */
#include "pysock.h"

#include "fuzz.h"

#include <bearssl.h>

enum {
    WITH_CONSENT = 1, /* the callback agrees */
    WITH_ALPN = 2     /* the server has protocols */
};

#define STREAM_MAX (512u * 1024)
#define MESSAGE_MAX 16000u
#define REFUSAL PYSOCK_ALERT_ACCESS_DENIED

/* Random numbers that are the same in every run, so that a finding can be repeated. It stands in
   for BearSSL's own function of this name. */
static int seed_fixed(const br_prng_class **ctx)
{
    (*ctx)->update(ctx, "fuzz", 4);
    return 1;
}

br_prng_seeder br_prng_seeder_system(const char **name)
{
    if (name)
        *name = "fixed";
    return seed_fixed;
}

/* ---- input ---- */

typedef struct input {
    const uint8_t *p, *end;
} input;

static size_t left(const input *in)
{
    return (size_t)(in->end - in->p);
}

static unsigned take_byte(input *in)
{
    return left(in) ? *in->p++ : 0;
}

static size_t take_short(input *in)
{
    size_t high = take_byte(in);

    return high << 8 | take_byte(in);
}

/* A length, and that many bytes or as many as there are. */
static const uint8_t *take_block(input *in, size_t *n)
{
    const uint8_t *p;

    *n = take_byte(in);
    *n = *n < left(in) ? *n : left(in);
    p = in->p;
    in->p += *n;
    return p;
}

/* ---- bytes ---- */

typedef struct bytes {
    size_t size;
    unsigned char data[STREAM_MAX];
} bytes;

static void bytes_insert(bytes *b, size_t pos, const void *data, size_t n)
{
    if (n > sizeof b->data - b->size || !n)
        return;
    memmove(b->data + pos + n, b->data + pos, b->size - pos);
    memcpy(b->data + pos, data, n);
    b->size += n;
}

static void bytes_append(bytes *b, const void *data, size_t n)
{
    bytes_insert(b, b->size, data, n);
}

static void append_record(bytes *b, unsigned type, unsigned version, const void *data, size_t n)
{
    unsigned char header[5] = {(unsigned char)type, (unsigned char)(version >> 8),
                               (unsigned char)version, (unsigned char)(n >> 8), (unsigned char)n};

    if (n + 5 > sizeof b->data - b->size)
        return;
    bytes_append(b, header, 5);
    bytes_append(b, data, n);
}

/* ---- the client ---- */

/* A verifier that believes everything. */
typedef struct believer {
    const br_x509_class *vtable;
    br_x509_decoder_context decoder;
    br_x509_pkey key;
    int certificates;
} believer;

static void start_chain(const br_x509_class **ctx, const char *name)
{
    (void)name;
    ((believer *)(void *)ctx)->certificates = 0;
}

static void start_cert(const br_x509_class **ctx, uint32_t length)
{
    (void)length;
    br_x509_decoder_init(&((believer *)(void *)ctx)->decoder, NULL, NULL);
}

static void append_cert(const br_x509_class **ctx, const unsigned char *data, size_t n)
{
    br_x509_decoder_push(&((believer *)(void *)ctx)->decoder, data, n);
}

static void end_cert(const br_x509_class **ctx)
{
    believer *b = (believer *)(void *)ctx;
    const br_x509_pkey *key = br_x509_decoder_get_pkey(&b->decoder);

    if (!b->certificates++ && key)
        b->key = *key;
}

static unsigned end_chain(const br_x509_class **ctx)
{
    (void)ctx;
    return 0;
}

static const br_x509_pkey *get_pkey(const br_x509_class *const *ctx, unsigned *usages)
{
    if (usages)
        *usages = BR_KEYTYPE_KEYX | BR_KEYTYPE_SIGN;
    return &((const believer *)(const void *)ctx)->key;
}

static const br_x509_class believer_class = {sizeof(believer), start_chain, start_cert, append_cert,
                                             end_cert,         end_chain,   get_pkey};

typedef struct client {
    br_ssl_client_context ctx;
    br_x509_minimal_context unused;
    believer x509;
    unsigned char buffer[BR_SSL_BUFSIZE_BIDI];
    int sent;
} client;

static void client_open(client *c)
{
    br_ssl_client_init_full(&c->ctx, &c->unused, NULL, 0);
    c->x509.vtable = &believer_class;
    br_ssl_engine_set_x509(&c->ctx.eng, &c->x509.vtable);
    br_ssl_engine_set_buffer(&c->ctx.eng, c->buffer, sizeof c->buffer, 1);
    FUZZ_CHECK(br_ssl_client_reset(&c->ctx, "a.example", 0));
    c->sent = 0;
}

/* Takes all that it wants to send. */
static void client_say(client *c, bytes *to)
{
    unsigned char *p;
    size_t n;

    while ((p = br_ssl_engine_sendrec_buf(&c->ctx.eng, &n)) != NULL) {
        bytes_append(to, p, n);
        br_ssl_engine_sendrec_ack(&c->ctx.eng, n);
    }
}

static void client_hear(client *c, const unsigned char *data, size_t size)
{
    unsigned char *p;
    size_t n;

    while (size && (p = br_ssl_engine_recvrec_buf(&c->ctx.eng, &n)) != NULL) {
        n = n < size ? n : size;
        memcpy(p, data, n);
        br_ssl_engine_recvrec_ack(&c->ctx.eng, n);
        data += n;
        size -= n;
    }
}

/* Once, when the handshake is over for what it knows. */
static void client_send(client *c)
{
    size_t n;
    unsigned char *p = br_ssl_engine_sendapp_buf(&c->ctx.eng, &n);

    if (!p || c->sent++)
        return;
    memcpy(p, "secret", 6);
    br_ssl_engine_sendapp_ack(&c->ctx.eng, 6);
    br_ssl_engine_flush(&c->ctx.eng, 0);
}

/* Makes the transcript that of the handshake messages in a stream of records, as the server sees
   it. */
static void client_believe(client *c, const bytes *stream)
{
    size_t pos = 0;

    br_multihash_init(&c->ctx.eng.mhash);
    while (stream->size - pos >= 5) {
        size_t n = (size_t)stream->data[pos + 3] << 8 | stream->data[pos + 4];
        if (n > stream->size - pos - 5)
            break;
        if (stream->data[pos] == 22)
            br_multihash_update(&c->ctx.eng.mhash, stream->data + pos + 5, n);
        pos += 5 + n;
    }
}

/* ---- the script ---- */

/* Where the extensions' length is in a ClientHello with its header; 0: nowhere. */
static size_t find_extensions(const bytes *m)
{
    size_t pos = 4 + 34;

    if (pos >= m->size)
        return 0;
    pos += 1 + (size_t)m->data[pos];
    if (pos + 2 > m->size)
        return 0;
    pos += 2 + ((size_t)m->data[pos] << 8 | m->data[pos + 1]);
    if (pos >= m->size)
        return 0;
    pos += 1 + (size_t)m->data[pos];
    return pos + 2 <= m->size ? pos : 0;
}

static void add_to_length(unsigned char *p, size_t bytes, size_t n)
{
    for (; bytes--; n >>= 8) {
        n += p[bytes];
        p[bytes] = (unsigned char)n;
    }
}

/* One more extension, first or last, with all lengths made right. */
static void hello_extend(bytes *m, size_t type, int last, const uint8_t *data, size_t n)
{
    unsigned char head[4] = {(unsigned char)(type >> 8), (unsigned char)type,
                             (unsigned char)(n >> 8), (unsigned char)n};
    size_t at = find_extensions(m), pos;

    if (!at || m->size + n + 4 > MESSAGE_MAX)
        return;
    pos = at + 2 + (last ? (size_t)m->data[at] << 8 | m->data[at + 1] : 0);
    if (pos > m->size)
        return;
    bytes_insert(m, pos, data, n);
    bytes_insert(m, pos, head, 4);
    add_to_length(m->data + at, 2, n + 4);
    add_to_length(m->data + 1, 3, n + 4);
}

typedef struct plan {
    bytes message;    /* the ClientHello, as rewritten */
    bytes before;     /* what comes before its records */
    bytes between;    /* and what between them */
    bytes behind;     /* and between them and the rest of the client's */
    size_t fragment;  /* of the message, in each record */
    unsigned version; /* of the records */
} plan;

static void repeat_record(bytes *to, input *in)
{
    size_t count = take_short(in), n;
    unsigned type = take_byte(in);
    const uint8_t *block = take_block(in, &n);

    for (; count; count--)
        append_record(to, type < 8 ? 20 + type % 4 : type, 0x303, block, n);
}

static void plan_step(plan *p, input *in)
{
    bytes *m = &p->message, *places[3] = {&p->before, &p->between, &p->behind};
    unsigned op = take_byte(in), v;
    const uint8_t *block;
    size_t n, pos;

    switch (op & 15) {
    case 0:
    case 1:
        pos = take_short(in);
        block = take_block(in, &n);
        hello_extend(m, pos, op & 1, block, n);
        break;
    case 2: /* one byte is another */
        pos = take_short(in);
        v = take_byte(in);
        if (m->size)
            m->data[pos % m->size] ^= (unsigned char)v;
        break;
    case 3: /* bytes are put in, and the message's length follows */
        pos = take_short(in);
        block = take_block(in, &n);
        if (m->size < 4 || m->size + n > MESSAGE_MAX)
            break;
        bytes_insert(m, 4 + pos % (m->size - 3), block, n);
        add_to_length(m->data + 1, 3, n);
        break;
    case 4: /* it ends early, and says so or not */
        pos = take_short(in);
        if (pos < 4 || pos >= m->size)
            break;
        m->size = pos;
        if (op & 16) {
            m->data[1] = 0;
            m->data[2] = (unsigned char)((pos - 4) >> 8);
            m->data[3] = (unsigned char)(pos - 4);
        }
        break;
    case 5: p->fragment = 1 + take_short(in); break;
    case 6: p->version = (unsigned)take_short(in); break;
    case 7: /* another message in the same record, or in the same row of them */
        block = take_block(in, &n);
        if (m->size + n <= MESSAGE_MAX)
            bytes_append(m, block, n);
        break;
    case 8: /* it is said twice */
        if (2 * m->size <= MESSAGE_MAX)
            bytes_append(m, m->data, m->size);
        break;
    case 9: repeat_record(places[(op >> 4) % 3], in); break;
    default: /* any bytes */
        block = take_block(in, &n);
        bytes_append(places[(op >> 4) % 3], block, n);
        break;
    }
}

/* The client's first records, rewritten. */
static void plan_stream(const plan *p, bytes *stream)
{
    size_t pos, n;

    stream->size = 0;
    bytes_append(stream, p->before.data, p->before.size);
    for (pos = 0; pos < p->message.size; pos += n) {
        n = p->message.size - pos < p->fragment ? p->message.size - pos : p->fragment;
        if (pos)
            bytes_append(stream, p->between.data, p->between.size);
        append_record(stream, 22, p->version, p->message.data + pos, n);
    }
}

/* ---- the server ---- */

static pysock_ssl_context *contexts[4];
static int asked;

static int answer(void *arg, const pysock_ssl_client_hello *hello)
{
    FUZZ_CHECK(hello->socket != NULL);
    FUZZ_CHECK(!hello->server_name || (hello->server_name[0] && strlen(hello->server_name) < 256));
    asked++;
    return *(const int *)arg;
}

static pysock_ssl_context *make_context(unsigned with)
{
    static const char *const names[] = {"h2", "http/1.1", "x"};
    static int answers[2] = {REFUSAL, 0};
    pysock_ssl_context *ctx = pysock_ssl_context_new(PYSOCK_CLIENT_AUTH);

    FUZZ_CHECK(ctx);
    FUZZ_CHECK(
        pysock_ssl_load_cert_chain(ctx, "tests/certs/server-ec.pem", "tests/certs/server-ec.key")
        == 0);
    FUZZ_CHECK(pysock_ssl_set_session_cache(ctx, 0) == 0);
    FUZZ_CHECK(pysock_ssl_set_sni_callback(ctx, answer, &answers[with & WITH_CONSENT]) == 0);
    if (with & WITH_ALPN)
        FUZZ_CHECK(pysock_ssl_set_alpn_protocols(ctx, names, 3) == 0);
    return ctx;
}

typedef struct server {
    pysock *s;
    pysock_bio *in, *out;
    int result, over; /* of the handshake */
    size_t received;
} server;

static void server_open(server *sv, pysock_ssl_context *ctx)
{
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;

    memset(sv, 0, sizeof *sv);
    options.server_side = 1;
    sv->in = pysock_bio_new();
    sv->out = pysock_bio_new();
    FUZZ_CHECK(sv->in && sv->out);
    sv->s = pysock_ssl_wrap_bio(ctx, sv->in, sv->out, &options);
    FUZZ_CHECK(sv->s);
    sv->result = -1;
}

static int wants_more(void)
{
    return pysock_error() == PYSOCK_SSL_WANT_READ_ERROR;
}

static void server_drive(server *sv)
{
    unsigned char data[1024];
    ptrdiff_t n;

    if (!sv->over && sv->result != 0) {
        sv->result = pysock_ssl_do_handshake(sv->s);
        FUZZ_CHECK(sv->result == 0 || sv->result == -1);
        FUZZ_CHECK(sv->result == 0 || pysock_error_message()[0]);
        sv->over = sv->result < 0 && !wants_more();
    }
    while (sv->result == 0 && (n = pysock_recv(sv->s, data, sizeof data, 0)) > 0)
        sv->received += (size_t)n;
}

static void server_close(server *sv)
{
    FUZZ_CHECK(pysock_bio_write_eof(sv->in) == 0);
    server_drive(sv);
    FUZZ_CHECK(sv->over || sv->result == 0); /* nothing waits for more than the end */
    pysock_close(sv->s);
    pysock_bio_release(sv->in);
    pysock_bio_release(sv->out);
}

/* Carries the client's records to the server and the answer back. 0: nothing moved. */
static int carry(client *c, server *sv, bytes *stream)
{
    unsigned char data[4096];
    ptrdiff_t n;
    int moved = stream->size > 0;

    if (stream->size)
        FUZZ_CHECK(pysock_bio_write(sv->in, stream->data, stream->size) == (ptrdiff_t)stream->size);
    stream->size = 0;
    server_drive(sv);
    while ((n = pysock_bio_read(sv->out, data, sizeof data)) > 0) {
        client_hear(c, data, (size_t)n);
        moved = 1;
    }
    return moved;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static client c;
    static plan p;
    static bytes stream, said;
    server sv;
    input in = {data, data + size};
    unsigned with = take_byte(&in) & 3;

    if (!contexts[with])
        contexts[with] = make_context(with);
    asked = 0;
    client_open(&c);
    said.size = p.before.size = p.between.size = p.behind.size = p.message.size = 0;
    client_say(&c, &said);
    FUZZ_CHECK(said.size > 5 && said.data[0] == 22);
    bytes_append(&p.message, said.data + 5, said.size - 5);
    p.fragment = MESSAGE_MAX;
    p.version = 0x303;
    while (left(&in))
        plan_step(&p, &in);
    if (p.fragment < 64 && p.between.size > 4096)
        p.between.size = 4096; /* what comes so often must be short */
    plan_stream(&p, &stream);
    client_believe(&c, &stream);
    server_open(&sv, contexts[with]);
    while (carry(&c, &sv, &stream)) {
        bytes_append(&stream, p.behind.data, p.behind.size);
        p.behind.size = 0;
        client_send(&c);
        client_say(&c, &stream);
    }
    server_close(&sv);
    FUZZ_CHECK(asked <= 1);
    if (with & WITH_CONSENT)
        FUZZ_CHECK(sv.result != 0 || asked == 1);
    else
        FUZZ_CHECK(sv.result != 0);
    FUZZ_CHECK(sv.result == 0 || sv.received == 0);
    if (size <= 1 && with & WITH_CONSENT)
        FUZZ_CHECK(sv.result == 0 && sv.received == 6); /* left alone it works */
    return 0;
}
