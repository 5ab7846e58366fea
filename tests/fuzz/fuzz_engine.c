/* A TLS connection whose peer, or whose wire, is the fuzzer. The first byte chooses what is done,
   the second how the two ends are set up (see MODE_ and WITH_), the rest is the peer's bytes or a
   script:

   first bytes   one end on a socket pair, the input is all that its peer ever sends
   established   two ends on two socket pairs with the harness between them; after the handshake it
                 carries data and puts the input into the stream
   midway        the same, but the input gets into the handshake
   script        two engines without descriptors; the script carries, changes, adds, repeats and
                 drops bytes, and seals records of any type with the sender's own keys

   Whatever happens, an end must only ever receive what the other has sent, in order; only call an
   end of stream clean if the other has closed; and come to an end when the stream does. */
#define PYSOCK_IMPLEMENTATION
#define PYSOCK_STATIC
#include "pysock.h"
#include "fuzz.h"

enum { MODE_FIRST, MODE_ESTABLISHED, MODE_MIDWAY, MODE_SCRIPT };

enum {
    WITH_ALPN = 1,
    WITH_CLIENT_AUTH = 2,
    WITH_RSA = 4,
    WITH_VERIFY = 8,
    WITH_RESUMPTION = 16,
    WITH_NONBLOCKING = 32, /* first bytes: the reactor does the handshake, not the caller; else the
                              last calls do not wait */
    WITH_UNWRAP = 64,      /* in the end, TLS is taken off again */
    WITH_ALL = 31          /* of the context's */
};

#define HOST "localhost"
#define SENT_MAX 65536

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

/* ---- contexts ---- */

/* Kept: making them costs more than using them. */
static pysock_ssl_context *contexts[2][WITH_ALL + 1];

static void load_identity(pysock_ssl_context *ctx, const char *name)
{
    char cert[64], key[64];

    snprintf(cert, sizeof cert, "tests/certs/%s.pem", name);
    snprintf(key, sizeof key, "tests/certs/%s.key", name);
    FUZZ_CHECK(pysock_ssl_load_cert_chain(ctx, cert, key) == 0);
}

static pysock_ssl_context *make_context(int client, unsigned with)
{
    static const char *const names[] = {"h2", "http/1.1", "x"};
    pysock_ssl_context *ctx =
        pysock_ssl_context_new(client ? PYSOCK_SERVER_AUTH : PYSOCK_CLIENT_AUTH);

    FUZZ_CHECK(ctx);
    if (client && !(with & WITH_VERIFY)) {
        FUZZ_CHECK(pysock_ssl_set_check_hostname(ctx, 0) == 0);
        FUZZ_CHECK(pysock_ssl_set_verify_mode(ctx, PYSOCK_CERT_NONE) == 0);
    }
    if (!client)
        load_identity(ctx, with & WITH_RSA ? "server-rsa" : "server-ec");
    else if (with & WITH_CLIENT_AUTH)
        load_identity(ctx, "client");
    if (client || with & WITH_CLIENT_AUTH)
        FUZZ_CHECK(pysock_ssl_load_verify_locations(ctx, "tests/certs/ca.pem", NULL) == 0);
    if (!client && with & WITH_CLIENT_AUTH)
        FUZZ_CHECK(pysock_ssl_set_verify_mode(ctx, PYSOCK_CERT_OPTIONAL) == 0);
    if (with & WITH_ALPN)
        FUZZ_CHECK(pysock_ssl_set_alpn_protocols(ctx, names, client ? 3 : 2) == 0);
    FUZZ_CHECK(pysock_ssl_set_session_cache(ctx, with & WITH_RESUMPTION ? 16 : 0) == 0);
    return ctx;
}

/* ---- script: two engines and what is on its way between them ---- */

typedef struct engine_end {
    pysock__tls *t;
    struct engine_end *peer;
    pysock__bytes inbox; /* records on their way to it */
    pysock__bytes sent;  /* plaintext that it has sent */
    size_t received;     /* how much of the peer's it has received */
    int sealed_alert;    /* the script has made an alert in its name */
} engine_end;

/* Takes n bytes away at pos. */
static void bytes_cut(pysock__bytes *b, size_t pos, size_t n)
{
    memmove(b->data + pos, b->data + pos + n, b->len - pos - n);
    b->len -= n;
}

static void bytes_insert(pysock__bytes *b, size_t pos, const void *data, size_t n)
{
    size_t tail = b->len - pos;

    if (!n)
        return;
    pysock__bytes_append(b, data, n);
    FUZZ_CHECK(!b->out_of_memory);
    memmove(b->data + pos + n, b->data + pos, tail);
    memcpy(b->data + pos, data, n);
}

static void engine_receive(engine_end *e)
{
    size_t n;
    const unsigned char *p = pysock__tls_app_in(e->t, &n);

    FUZZ_CHECK(p && n);
    FUZZ_CHECK(pysock__tls_established(e->t));
    FUZZ_CHECK(n <= e->peer->sent.len - e->received);
    FUZZ_CHECK(memcmp(p, e->peer->sent.data + e->received, n) == 0);
    e->received += n;
    pysock__tls_app_in_done(e->t, n);
}

/* Does what can be done without input. Returns the flags that are left. */
static int engine_settle(engine_end *e)
{
    const unsigned char *out;
    int flags;
    size_t n;

    for (;;) {
        flags = pysock__tls_flags(e->t);
        if (flags & PYSOCK__OUT) {
            out = pysock__tls_out(e->t, &n);
            FUZZ_CHECK(out && n);
            pysock__bytes_append(&e->peer->inbox, out, n);
            pysock__tls_out_done(e->t, n);
        } else if (flags & PYSOCK__ENDED) {
            FUZZ_CHECK(!e->t->fault.kind || (e->t->fault.message[0] && e->t->fault.reason));
            return flags;
        } else if (!pysock__tls_established(e->t) && flags & (PYSOCK__APP_IN | PYSOCK__APP_OUT)) {
            FUZZ_CHECK(pysock__tls_finish(e->t) == 0);
        } else if (flags & PYSOCK__APP_IN) {
            engine_receive(e);
        } else {
            return flags;
        }
    }
}

/* Delivers at most max bytes of the inbox. Returns how many. */
static size_t engine_deliver(engine_end *e, size_t max)
{
    unsigned char *p;
    size_t n, done = 0;

    while (engine_settle(e) & PYSOCK__IN && done < max && e->inbox.len) {
        p = pysock__tls_in(e->t, &n);
        FUZZ_CHECK(p && n);
        n = n < e->inbox.len ? n : e->inbox.len;
        n = n < max - done ? n : max - done;
        memcpy(p, e->inbox.data, n);
        bytes_cut(&e->inbox, 0, n);
        pysock__tls_in_done(e->t, n);
        if (pysock__tls_renegotiates(e->t))
            pysock__tls_begin_again(e->t);
        done += n;
    }
    engine_settle(e);
    if (pysock__tls_established(e->t) && pysock__tls_closed_cleanly(e->t))
        FUZZ_CHECK(pysock__tls_sent_close(e->peer->t) || e->peer->sealed_alert
                   || e->peer->t->eng->shutdown_recv);
    return done;
}

static void engines_pump(engine_end *e)
{
    while (engine_deliver(&e[0], SIZE_MAX) + engine_deliver(&e[1], SIZE_MAX) > 0)
        continue;
}

static void engine_send(engine_end *e, size_t size)
{
    unsigned char data[256];
    size_t i, n;

    if (!pysock__tls_established(e->t) || !(engine_settle(e) & PYSOCK__APP_OUT)
        || e->sent.len > SENT_MAX || !size)
        return;
    size = size < sizeof data ? size : sizeof data;
    for (i = 0; i < size; i++)
        data[i] = (unsigned char)(e->sent.len + i);
    n = pysock__tls_app_out(e->t, data, size);
    FUZZ_CHECK(n);
    pysock__bytes_append(&e->sent, data, n);
    engine_settle(e);
}

/* A record as e would make it, of a type and with contents that it would not. */
static void engine_seal(engine_end *e, unsigned type, const uint8_t *data, size_t size)
{
    const br_sslrec_out_class **out = &e->t->eng->out.vtable;
    unsigned char room[64 + 255 + 128], *record;

    if (engine_settle(e) & PYSOCK__ENDED || pysock__tls_sent_close(e->t))
        return;
    if (type == 23 && !pysock__tls_established(e->t))
        return;
    memcpy(room + 64, data, size);
    if (type == 23)
        pysock__bytes_append(&e->sent, data, size);
    e->sealed_alert |= type == 21;
    record = (*out)->encrypt(out, (int)type, BR_TLS12, room + 64, &size);
    pysock__bytes_append(&e->peer->inbox, record, size);
}

static void engine_header(engine_end *e, unsigned type, const uint8_t *data, size_t size)
{
    unsigned char header[5] = {(unsigned char)type, 3, 3, 0, (unsigned char)size};

    pysock__bytes_append(&e->inbox, header, sizeof header);
    pysock__bytes_append(&e->inbox, data, size);
}

static void add_to_length(unsigned char *p, size_t bytes, size_t n)
{
    for (; bytes--; n >>= 8) {
        n += p[bytes];
        p[bytes] = (unsigned char)n;
    }
}

/* Puts one more extension into the hello that is first in the inbox; all lengths are made right. */
static void hello_extend(engine_end *e, unsigned type, int at_end, const uint8_t *data, size_t size)
{
    unsigned char head[4] = {0, (unsigned char)type, 0, (unsigned char)size};
    unsigned char *p = e->inbox.data;
    size_t len, pos, extensions;

    if (e->inbox.len < 5 + 4 + 35 || p[0] != 22 || (p[5] != 1 && p[5] != 2))
        return;
    len = 5 + ((size_t)p[3] << 8 | p[4]);
    pos = 5 + 4 + 34;
    pos += 1 + (size_t)p[pos];
    if (p[5] == 1 && pos + 2 <= e->inbox.len)
        pos += 2 + ((size_t)p[pos] << 8 | p[pos + 1]);
    else
        pos += 2;
    if (p[5] == 1 && pos + 1 <= e->inbox.len)
        pos += 1 + (size_t)p[pos];
    else
        pos += 1;
    if (pos + 2 > len || len > e->inbox.len || len > 15000)
        return;
    extensions = pos;
    pos += 2;
    if (at_end)
        pos += (size_t)p[extensions] << 8 | p[extensions + 1];
    if (pos > len)
        return;
    bytes_insert(&e->inbox, pos, data, size);
    bytes_insert(&e->inbox, pos, head, sizeof head);
    add_to_length(e->inbox.data + 3, 2, size + 4);
    add_to_length(e->inbox.data + 6, 3, size + 4);
    add_to_length(e->inbox.data + extensions, 2, size + 4);
}

static void script_step(engine_end *both, input *in)
{
    unsigned op = take_byte(in);
    engine_end *e = &both[op >> 7];
    const uint8_t *block;
    size_t n, pos;
    unsigned v;

    switch (op & 15) {
    case 0: engines_pump(both); break;
    case 1: engine_deliver(e, 1 + take_byte(in)); break;
    case 2:
        pos = take_short(in);
        v = take_byte(in);
        if (e->inbox.len)
            e->inbox.data[pos % e->inbox.len] ^= (unsigned char)v;
        break;
    case 3:
        block = take_block(in, &n);
        pysock__bytes_append(&e->inbox, block, n);
        break;
    case 4:
        v = take_byte(in);
        block = take_block(in, &n);
        engine_seal(e, v < 8 ? 20 + v % 4 : v, block, n);
        break;
    case 5: engine_send(e, take_short(in)); break;
    case 6:
        pysock__tls_close_notify(e->t);
        engine_settle(e);
        break;
    case 7:
        pos = take_short(in);
        n = take_byte(in);
        if (pos < e->inbox.len)
            bytes_cut(&e->inbox, pos, n < e->inbox.len - pos ? n : e->inbox.len - pos);
        break;
    case 8:
        if (e->inbox.len < SENT_MAX && e->inbox.len) {
            unsigned char *copy = fuzz_copy(e->inbox.data, e->inbox.len);
            pysock__bytes_append(&e->inbox, copy, e->inbox.len);
            free(copy);
        }
        break;
    case 9:
        v = take_byte(in);
        block = take_block(in, &n);
        engine_header(e, v < 8 ? 20 + v % 4 : v, block, n);
        break;
    case 10:
        v = take_byte(in);
        block = take_block(in, &n);
        hello_extend(e, v & 127, (int)(v >> 7), block, n);
        break;
    case 11:
        pos = take_short(in);
        block = take_block(in, &n);
        bytes_insert(&e->inbox, e->inbox.len ? pos % e->inbox.len : 0, block, n);
        break;
    case 12: engine_deliver(e, SIZE_MAX); break;
    case 13:
        pos = take_short(in);
        block = take_block(in, &n);
        if (e->inbox.len) {
            pos %= e->inbox.len;
            n = n < e->inbox.len - pos ? n : e->inbox.len - pos;
            memcpy(e->inbox.data + pos, block, n);
        }
        break;
    default: engine_settle(e); break;
    }
}

static void engine_open(engine_end *e, engine_end *peer, pysock_ssl_context *ctx, int client)
{
    pysock__wrap wrap;

    memset(e, 0, sizeof *e);
    memset(&wrap, 0, sizeof wrap);
    e->peer = peer;
    wrap.ctx = pysock__context_retain(ctx);
    wrap.host = client ? pysock__strdup(HOST) : NULL;
    wrap.server = !client;
    e->t = pysock__tls_new(&wrap, NULL, 443, "fuzz");
    FUZZ_CHECK(e->t);
}

static void engine_close(engine_end *e)
{
    pysock__tls_free(e->t);
    pysock__bytes_free(&e->inbox);
    pysock__bytes_free(&e->sent);
}

static void run_script(pysock_ssl_context *const *ctx, input *in)
{
    engine_end both[2];

    engine_open(&both[0], &both[1], ctx[0], 1);
    engine_open(&both[1], &both[0], ctx[1], 0);
    engine_settle(&both[0]);
    while (left(in))
        script_step(both, in);
    engines_pump(both);
    pysock__tls_close_notify(both[0].t);
    pysock__tls_close_notify(both[1].t);
    engines_pump(both);
    engine_close(&both[0]);
    engine_close(&both[1]);
}

/* ---- sockets ---- */

#define PATIENCE 8.0 /* seconds, for what must happen: no harness waits so long for nothing */

/* A TLS socket, and the plain end of its pair in *wire. */
static pysock *socket_open(pysock **wire)
{
    pysock *pair[2];

    FUZZ_CHECK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    FUZZ_CHECK(pysock_setblocking(pair[1], 0) == 0);
    *wire = pair[1];
    return pair[0];
}

static void socket_ask(pysock *s)
{
    pysock_ssl_cipher_info cipher;
    char name[256];
    pysock_buf *cert;

    pysock_ssl_version(s);
    pysock_ssl_cipher(s, &cipher);
    FUZZ_CHECK(pysock_ssl_selected_alpn_protocol(s, name, sizeof name) < 256);
    FUZZ_CHECK(pysock_ssl_server_hostname(s, name, sizeof name) < 256);
    pysock_ssl_session_reused(s);
    pysock_ssl_pending(s);
    pysock_ssl_eof_is_clean(s);
    cert = pysock_ssl_getpeercert_der(s);
    pysock_buf_release(cert);
}

/* Waits until the handshake of a non-blocking socket is over, which it must be soon. */
static int socket_handshake(pysock *s)
{
    int fd = pysock_fileno(s), result, wfd;
    size_t one;

    for (;;) {
        result = pysock_ssl_do_handshake(s);
        if (result == 0 || pysock_error_code() != EINPROGRESS)
            return result;
        wfd = fd;
        one = 1;
        FUZZ_CHECK(pysock_select(NULL, NULL, &wfd, &one, NULL, NULL, PATIENCE) == 1);
    }
}

/* Everything that comes until nothing more does; the result is the last call's. */
static ptrdiff_t socket_drain(pysock *s, unsigned char *into, size_t size, size_t *got)
{
    ptrdiff_t n = 1;

    while (*got < size && (n = pysock_recv(s, into + *got, size - *got, 0)) > 0)
        *got += (size_t)n;
    return n;
}

static void run_first(pysock_ssl_context *ctx, int client, unsigned with, input *in)
{
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    unsigned char data[4096];
    pysock *wire, *s = socket_open(&wire);
    size_t part = left(in) / 2, got = 0;
    int result;

    options.server_hostname = client ? HOST : NULL;
    options.no_handshake_on_connect = 1;
    options.raise_ragged_eofs = 1;
    FUZZ_CHECK(pysock_settimeout(s, with & WITH_NONBLOCKING ? 0 : PATIENCE) == 0);
    FUZZ_CHECK(pysock_send(wire, in->p, part, 0) == (ptrdiff_t)part);
    FUZZ_CHECK(pysock_ssl_wrap_socket_ex(s, ctx, &options) == 0);
    if (with & WITH_NONBLOCKING)
        pysock_ssl_do_handshake(s);
    if (left(in) > part)
        pysock_send(wire, in->p + part, left(in) - part, 0); /* it may have hung up already */
    pysock_shutdown(wire, SHUT_WR);
    if (with & WITH_NONBLOCKING)
        result = socket_handshake(s);
    else
        result = pysock_ssl_do_handshake(s);
    FUZZ_CHECK(result == -1); /* the input is no peer that knows the keys */
    FUZZ_CHECK(pysock_error() != PYSOCK_TIMEOUT_ERROR && pysock_error_message()[0]);
    FUZZ_CHECK(socket_drain(s, data, sizeof data, &got) < 0 && got == 0);
    FUZZ_CHECK(pysock_send(s, "x", 1, 0) < 0);
    socket_ask(s);
    pysock_ssl_unwrap(s);
    pysock_close(s);
    pysock_close(wire);
}

typedef struct wire_side {
    pysock *tls, *wire;
    size_t carried;      /* bytes towards this side's TLS end */
    const uint8_t *data; /* what is put into that stream... */
    size_t size, at;     /* ...when that many bytes have been carried */
    unsigned char got[16384];
    size_t received, sent;
} wire_side;

static void wire_put(wire_side *to, const uint8_t *data, size_t n)
{
    ptrdiff_t r = n ? pysock_send(to->wire, data, n, 0) : 0;

    FUZZ_CHECK(r == (ptrdiff_t)n || r < 0); /* the other end may be closed */
}

/* Carries what is there. Returns how many bytes, or -1 at the end of the stream. */
static ptrdiff_t wire_carry(wire_side *from, wire_side *to)
{
    uint8_t chunk[2048];
    ptrdiff_t n = pysock_recv(from->wire, chunk, sizeof chunk, 0);
    size_t before;

    if (n <= 0)
        return n == 0 || errno != EAGAIN ? -1 : 0;
    before = (size_t)n;
    if (to->data && to->at < to->carried + before) {
        before = to->at - to->carried;
        wire_put(to, chunk, before);
        wire_put(to, to->data, to->size);
        to->data = NULL;
        wire_put(to, chunk + before, (size_t)n - before);
    } else {
        wire_put(to, chunk, before);
    }
    to->carried += (size_t)n;
    return n;
}

static int wire_wait(wire_side *side, int ms)
{
    struct pollfd fds[2] = {{pysock_fileno(side[0].wire), POLLIN, 0},
                            {pysock_fileno(side[1].wire), POLLIN, 0}};

    return poll(fds, 2, ms);
}

static void wires_open(wire_side *side)
{
    int i;

    memset(side, 0, 2 * sizeof *side);
    for (i = 0; i < 2; i++) {
        side[i].tls = socket_open(&side[i].wire);
        FUZZ_CHECK(pysock_setblocking(side[i].tls, 0) == 0);
    }
}

static void wires_wrap(wire_side *side, pysock_ssl_context *const *ctx)
{
    FUZZ_CHECK(pysock_ssl_wrap_socket(side[0].tls, ctx[0], HOST) == 0);
    FUZZ_CHECK(pysock_ssl_wrap_socket(side[1].tls, ctx[1], NULL) == 0);
}

/* Carries until both handshakes are over. When nothing moves for a while, which only the input can
   bring about, both streams are ended. */
static void wires_handshake(wire_side *side, int results[2])
{
    int i, going_on[2], over = 0, ended = 0, tampered = side[0].data || side[1].data;
    double waited = 0;

    do {
        if (!ended && wire_wait(side, 1) == 0 && (waited += 0.001) > (tampered ? 0.02 : PATIENCE)) {
            FUZZ_CHECK(tampered);
            pysock_shutdown(side[0].wire, SHUT_WR);
            pysock_shutdown(side[1].wire, SHUT_WR);
            ended = 1;
        }
        for (i = 0; i < 2; i++) {
            if (wire_carry(&side[i], &side[!i]) < 0 && !ended)
                pysock_shutdown(side[!i].wire, SHUT_WR);
            if (ended)
                results[i] = socket_handshake(side[i].tls);
            else
                results[i] = pysock_ssl_do_handshake(side[i].tls);
            going_on[i] = results[i] < 0 && pysock_error_code() == EINPROGRESS;
        }
        over = !going_on[0] && !going_on[1];
    } while (!over);
    FUZZ_CHECK(tampered || (results[0] == 0 && results[1] == 0));
}

static void wires_send(wire_side *from, size_t n)
{
    unsigned char data[1024];
    ptrdiff_t r;
    size_t i;

    n = n < sizeof data ? n : sizeof data;
    for (i = 0; i < n; i++)
        data[i] = (unsigned char)(from->sent + i);
    if (from->sent + n > sizeof from->got)
        return;
    r = pysock_send(from->tls, data, n, 0);
    if (r > 0)
        from->sent += (size_t)r;
}

static void wires_receive(wire_side *to, const wire_side *from)
{
    size_t i;
    ptrdiff_t last = socket_drain(to->tls, to->got, sizeof to->got, &to->received);

    FUZZ_CHECK(to->received <= from->sent);
    for (i = 0; i < to->received; i++)
        FUZZ_CHECK(to->got[i] == (unsigned char)i);
    FUZZ_CHECK(last != 0 || to->received == sizeof to->got || !pysock_ssl_eof_is_clean(to->tls));
}

static void wires_carry_both(wire_side *side)
{
    while (wire_carry(&side[0], &side[1]) > 0 || wire_carry(&side[1], &side[0]) > 0)
        continue;
}

static void wires_unwrap(wire_side *side)
{
    int i, round, result;

    for (round = 0; round < 3; round++) {
        for (i = 0; i < 2; i++) {
            if (!pysock_is_ssl(side[i].tls))
                continue;
            result = pysock_ssl_unwrap(side[i].tls);
            FUZZ_CHECK(result != 0 || !pysock_is_ssl(side[i].tls));
            FUZZ_CHECK(result >= 0 || pysock_error_message()[0]);
            wires_carry_both(side);
        }
    }
}

/* What is left is received to the end of the stream, so that a blocking call does not wait. */
static void wires_close(wire_side *side, unsigned with)
{
    int i;

    for (i = 0; i < 2; i++)
        socket_ask(side[i].tls);
    if (with & WITH_UNWRAP)
        wires_unwrap(side);
    for (i = 0; i < 2; i++) {
        pysock_shutdown(side[i].wire, SHUT_WR);
        FUZZ_CHECK(pysock_setblocking(side[i].tls, !(with & WITH_NONBLOCKING)) == 0);
        if (!(with & WITH_UNWRAP))
            wires_receive(&side[i], &side[!i]);
        pysock_close(side[i].wire);
        pysock_close(side[i].tls);
    }
}

static void run_established(pysock_ssl_context *const *ctx, unsigned with, input *in)
{
    static wire_side side[2];
    const uint8_t *block;
    int results[2];
    unsigned op;
    size_t n;

    wires_open(side);
    wires_wrap(side, ctx);
    wires_handshake(side, results);
    while (left(in)) {
        op = take_byte(in);
        switch (op & 3) {
        case 0: wires_send(&side[op >> 7], take_byte(in) * 4); break;
        case 1:
            block = take_block(in, &n);
            wire_put(&side[op >> 7], block, n);
            break;
        case 2: wires_carry_both(side); break;
        default: wires_receive(&side[op >> 7], &side[!(op >> 7)]); break;
        }
    }
    wires_carry_both(side);
    wires_receive(&side[0], &side[1]);
    wires_receive(&side[1], &side[0]);
    wires_close(side, with);
}

static void run_midway(pysock_ssl_context *const *ctx, int client, unsigned with, input *in)
{
    static wire_side side[2];
    wire_side *to = &side[!client];
    int results[2];

    wires_open(side);
    to->at = take_short(in) % 2048;
    to->data = in->p;
    to->size = left(in);
    if (!to->size)
        to->data = NULL;
    wires_wrap(side, ctx);
    wires_handshake(side, results);
    wires_send(&side[0], 100);
    wires_send(&side[1], 100);
    wires_carry_both(side);
    wires_receive(&side[0], &side[1]);
    wires_receive(&side[1], &side[0]);
    wires_close(side, with);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input in = {data, data + size};
    unsigned choice = take_byte(&in), with = take_byte(&in);
    int client = !(choice & 1), i;
    pysock_ssl_context *ctx[2];
    input nothing = {data, data};

    for (i = 0; i < 2; i++) {
        if (!contexts[i][with & WITH_ALL])
            contexts[i][with & WITH_ALL] = make_context(!i, with);
        ctx[i] = contexts[i][with & WITH_ALL];
    }
    if (with & WITH_RESUMPTION && !ctx[0]->sessions.count)
        run_script(ctx, &nothing); /* something to resume */
    switch (choice >> 1 & 3) {
    case MODE_FIRST: run_first(ctx[!client], client, with, &in); break;
    case MODE_ESTABLISHED: run_established(ctx, with, &in); break;
    case MODE_MIDWAY: run_midway(ctx, client, with, &in); break;
    default: run_script(ctx, &in); break;
    }
    return 0;
}
