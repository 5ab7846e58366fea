/* A flood must not own a thread. Records and messages that carry nothing end the connection once
   there are more of them than anybody needs; what is legal goes on up to that; and while a flood
   runs, others are served, deadlines hold, and close and cleanup are obeyed. */
#include "support/contexts.h"

#include "support/rawtls.h"

#include <sys/ioctl.h>

/* So many in a row are taken, and no more. */
#define EMPTY_RECORDS 32
#define WARNINGS 5
#define HELLO_REQUESTS 32

/* Tenfold slack for what should take no time at all. */
#define AT_ONCE T_SCALE(10.0, 60.0)

enum {
    UNEXPECTED = PYSOCK_ALERT_UNEXPECTED_MESSAGE,
    DECODE = PYSOCK_ALERT_DECODE_ERROR,
    ILLEGAL = PYSOCK_ALERT_ILLEGAL_PARAMETER,
    OVERFLOW = PYSOCK_ALERT_RECORD_OVERFLOW
};

static pysock_ssl_context *no_renegotiation, *mutual;

static int set_up(void **state) {
    make_contexts(state);
    no_renegotiation = t_client_ctx();
    T_OK(pysock_ssl_set_options(no_renegotiation, pysock_ssl_get_options(no_renegotiation) |
                                                      PYSOCK_OP_NO_RENEGOTIATION));
    mutual = t_server_ctx();
    T_OK(pysock_ssl_load_verify_locations(mutual, T_CERTS "ca.pem", NULL));
    T_OK(pysock_ssl_set_verify_mode(mutual, PYSOCK_CERT_OPTIONAL));
    return 0;
}

static int tear_down(void **state) {
    pysock_ssl_context_release(no_renegotiation);
    pysock_ssl_context_release(mutual);
    return free_contexts(state);
}

/* ---- where in a connection ---- */

enum { FIRST, MIDDLE, ENCRYPTED, ESTABLISHED, STAGES };

static const char *const stage_names[STAGES] = {
    "before the other's hello", "in the middle of a handshake", "before Finished, encrypted",
    "after the handshake"};

/* The peer's part of the handshake, up to a stage. */
static void go_to(r_peer *p, int stage) {
    static r_hello h;
    if (p->server)
        T_EQ(r_read_client_hello(p), 0);
    if (stage == FIRST)
        return;
    if (p->server) {
        r_send_server_hello(p);
    } else {
        r_make_client_hello(&h, "localhost");
        r_say_hello(p, &h);
        T_EQ(r_read_server_flight(p), 0);
    }
    if (stage == MIDDLE)
        return;
    if (p->server) {
        r_send_certificate(p);
        r_send_server_key(p);
        r_send_hello_done(p);
        T_EQ(r_read_client_flight(p), 0);
    } else {
        if (p->certificate_asked)
            r_send(p, R_CERTIFICATE, "\0\0\0", 3);
        r_send_client_key(p);
    }
    r_send_ccs(p);
    if (stage == ENCRYPTED)
        return;
    r_send_finished(p);
    if (!p->server)
        T_EQ(r_read_finished(p), 0);
}

/* The rest of it, and a few bytes of data. 0, or what came instead. */
static int go_on(r_peer *p, int stage) {
    static r_hello h;
    int came = 0;
    switch (stage) {
    case FIRST:
        if (p->server) {
            r_send_server_hello(p);
        } else {
            r_make_client_hello(&h, "localhost");
            r_say_hello(p, &h);
            came = r_read_server_flight(p);
        }
        if (came)
            break;
        /* fall through */
    case MIDDLE:
        if (p->server) {
            r_send_certificate(p);
            r_send_server_key(p);
            r_send_hello_done(p);
            came = r_read_client_flight(p);
        } else {
            r_send_client_key(p);
        }
        if (came)
            break;
        r_send_ccs(p);
        /* fall through */
    case ENCRYPTED:
        r_send_finished(p);
        if (!p->server)
            came = r_read_finished(p);
        break;
    default: break;
    }
    if (!came)
        r_write_record(p, R_DATA, "ping", 4);
    return came;
}

/* ---- the floods ---- */

typedef struct flood {
    const char *name;
    void (*once)(r_peer *p, int i);
    int limit;
    int from_server; /* 1: only a server can send it; its client does not renegotiate */
    unsigned stages; /* bits */
    r_alerts alerts;
} flood;

#define AT(stage) (1u << (stage))

static void empty_handshake_record(r_peer *p, int i) {
    (void)i;
    r_write_record(p, R_HANDSHAKE, NULL, 0);
}

static void empty_data_record(r_peer *p, int i) {
    (void)i;
    r_write_record(p, R_DATA, NULL, 0);
}

static void warning(r_peer *p, int i) {
    (void)i;
    r_write_alert(p, 1, PYSOCK_ALERT_USER_CANCELLED);
}

static void hello_request(r_peer *p, int i) {
    (void)i;
    r_send(p, R_HELLO_REQUEST, NULL, 0);
}

static void mixture(r_peer *p, int i) {
    if (i % 2)
        empty_handshake_record(p, i);
    else
        warning(p, i);
}

static void change_cipher_spec(r_peer *p, int i) {
    (void)i;
    r_write_record(p, R_CCS, "\1", 1);
}

static const flood floods[] = {
    {"empty handshake records", empty_handshake_record, EMPTY_RECORDS, 0,
     AT(FIRST) | AT(MIDDLE) | AT(ENCRYPTED) | AT(ESTABLISHED), R_ONE_OF(UNEXPECTED, DECODE)},
    {"empty records of data", empty_data_record, EMPTY_RECORDS, 0, AT(ESTABLISHED),
     R_ONE_OF(UNEXPECTED, DECODE)},
    {"warning alerts", warning, WARNINGS, 0,
     AT(FIRST) | AT(MIDDLE) | AT(ENCRYPTED) | AT(ESTABLISHED), R_ONE_OF(UNEXPECTED, DECODE)},
    {"HelloRequests", hello_request, HELLO_REQUESTS, 1, AT(FIRST) | AT(MIDDLE) | AT(ESTABLISHED),
     R_ONE_OF(UNEXPECTED, DECODE)},
};
#define FLOODS (sizeof floods / sizeof floods[0])

/* Those that are not so many of one kind. */
static const flood others[] = {
    {"warnings and empty records in turn", mixture, 64, 0,
     AT(FIRST) | AT(MIDDLE) | AT(ENCRYPTED) | AT(ESTABLISHED), R_ONE_OF(UNEXPECTED, DECODE)},
    {"ChangeCipherSpec", change_cipher_spec, 0, 0, AT(FIRST) | AT(MIDDLE) | AT(ESTABLISHED),
     R_ONE_OF(UNEXPECTED)},
};
#define OTHERS (sizeof others / sizeof others[0])

static void send_flood(r_peer *p, const flood *f, int n) {
    for (int i = 0; i < n && !p->broken; i++)
        f->once(p, i);
}

static const char *row_name(const flood *f, int server, int stage, int way) {
    static char text[256];
    snprintf(text, sizeof text, "%s to a %s, %s (by %s)", f->name, server ? "server" : "client",
             stage_names[stage], r_way_names[way]);
    return text;
}

static void open_end(r_end *e, r_peer *p, const flood *f, int server, int way) {
    if (server)
        r_open(e, p, way, server_ctx, NULL);
    else
        r_open(e, p, way, f && f->from_server ? no_renegotiation : client_ctx, "localhost");
}

/* Calls run() for each flood, side, stage and way that go together. */
static void for_each_row(const flood *list, size_t count,
                         void (*run)(const flood *f, int server, int stage, int way)) {
    for (size_t i = 0; i < count; i++)
        for (int server = 0; server < 2; server++)
            for (int stage = FIRST; stage < STAGES; stage++) {
                if (!(list[i].stages & AT(stage)) || (server && list[i].from_server))
                    continue;
                FOR_EACH_WAY(way)
                    run(&list[i], server, stage, way);
            }
    r_no_complaints();
}

/* ---- limits ---- */

static void take_up_to_the_limit(const flood *f, int server, int stage, int way) {
    static r_end e;
    static r_peer p;
    const char *row = row_name(f, server, stage, way);
    int came;
    T_STEP("%s", row);
    open_end(&e, &p, f, server, way);
    go_to(&p, stage);
    send_flood(&p, f, f->limit);
    came = go_on(&p, stage);
    if (!came && stage == ESTABLISHED) {
        send_flood(&p, f, f->limit); /* data begins a new row */
        r_write_record(&p, R_DATA, "pong", 4);
    }
    if (!came)
        r_write_alert(&p, 1, PYSOCK_ALERT_CLOSE_NOTIFY);
    r_close(&e, &p);
    if (came)
        r_complain(row, "%s came (alert %d): %s", r_what(came), p.alert, e.outcome.message);
    else if (e.outcome.result < 0)
        r_complain(row, "failed: %s", e.outcome.message);
    else if (e.received_size != (stage == ESTABLISHED ? 8u : 4u))
        r_complain(row, "%zu bytes of data came", e.received_size);
}

T_TEST(as_many_as_are_allowed_are_taken, 240) {
    for_each_row(floods, FLOODS, take_up_to_the_limit);
}

/* What r_check_alert() does, past what a client says when it goes along with a HelloRequest. */
static void check_alert(r_peer *p, const char *row, r_alerts alerts) {
    static r_bytes body;
    int came;
    do
        came = r_next(p, &body);
    while ((came == R_IS_ALERT && p->alert_level == 1) || came == R_CLIENT_HELLO);
    if (came != R_IS_ALERT)
        r_complain(row, "%s came, not the alert %s", r_what(came), r_list(alerts));
    else if (!r_is_one_of(alerts, p->alert))
        r_complain(row, "the alert %d came, not %s", p->alert, r_list(alerts));
}

static void end_at_the_limit(const flood *f, int server, int stage, int way) {
    static r_end e;
    static r_peer p;
    const char *row = row_name(f, server, stage, way);
    int before = r_complaints;
    T_STEP("%s", row);
    open_end(&e, &p, f, server, way);
    go_to(&p, stage);
    send_flood(&p, f, f->limit + 1);
    check_alert(&p, row, f->alerts);
    r_close(&e, &p);
    if (r_complaints == before)
        r_check_error(&e, row);
}

T_TEST(one_more_ends_the_connection, 240) {
    for_each_row(floods, FLOODS, end_at_the_limit);
}

T_TEST(other_floods_end_the_connection, 240) {
    for_each_row(others, OTHERS, end_at_the_limit);
}

/* The alert arrives although much of what was sent before it is never read; the kernel would reset
   the connection and drop what is on its way. */
static void alert_in_spite_of_unread_input(const flood *f, int server, int stage, int way) {
    static r_end e;
    static r_peer p;
    const char *row = row_name(f, server, stage, way);
    int before = r_complaints;
    T_STEP("%s", row);
    open_end(&e, &p, f, server, way);
    go_to(&p, stage);
    send_flood(&p, f, f->limit + 1 + 3000);
    check_alert(&p, row, f->alerts);
    r_close(&e, &p);
    if (r_complaints == before)
        r_check_error(&e, row);
}

T_TEST(the_alert_arrives_although_input_is_unread, 240) {
    for_each_row(floods, FLOODS, alert_in_spite_of_unread_input);
}

/* A client that goes along with the first HelloRequest is flooded no less. */
T_TEST(a_client_that_renegotiates_ends_endless_hello_requests, 120) {
    static r_end e;
    static r_peer p;
    FOR_EACH_WAY(way) {
        const char *row = row_name(&floods[3], 0, ESTABLISHED, way);
        r_open(&e, &p, way, client_ctx, "localhost");
        go_to(&p, ESTABLISHED);
        send_flood(&p, &floods[3], 2 * HELLO_REQUESTS + 2);
        check_alert(&p, row, R_ALERTS(UNEXPECTED, DECODE));
        r_close(&e, &p);
        r_check_error(&e, row);
    }
    r_no_complaints();
}

/* ---- large messages ---- */

/* The header of a message of so many bytes, and the first hundred. */
static void begin_message(r_peer *p, int type, size_t size) {
    static r_bytes b;
    b.size = 0;
    r_number(&b, 1, (size_t)type);
    r_number(&b, 3, size);
    r_fill(&b, 0, 100);
    r_write_record(p, R_HANDSHAKE, b.data, b.size);
}

T_TEST(a_message_that_is_too_large_is_refused_at_its_header, 240) {
    static const struct {
        const char *name;
        int server, stage, type;
        size_t least; /* what is above the limit of its kind */
    } rows[] = {
        {"ClientHello", 1, FIRST, R_CLIENT_HELLO, 66000},
        {"a client's Certificate", 1, MIDDLE, R_CERTIFICATE, 170000},
        {"ClientKeyExchange", 1, MIDDLE, R_CLIENT_KEY, 66000},
        {"CertificateVerify", 1, MIDDLE, R_CERTIFICATE_VERIFY, 66000},
        {"a client's Finished", 1, ENCRYPTED, R_FINISHED, 66000},
        {"a ClientHello that renegotiates", 1, ESTABLISHED, R_CLIENT_HELLO, 66000},
        {"ServerHello", 0, FIRST, R_SERVER_HELLO, 66000},
        {"a server's Certificate", 0, MIDDLE, R_CERTIFICATE, 170000},
        {"ServerKeyExchange", 0, MIDDLE, R_SERVER_KEY, 66000},
        {"CertificateRequest", 0, MIDDLE, R_CERTIFICATE_REQUEST, 66000},
        {"ServerHelloDone", 0, MIDDLE, R_HELLO_DONE, 66000},
        {"a server's Finished", 0, ENCRYPTED, R_FINISHED, 66000},
        {"HelloRequest", 0, ESTABLISHED, R_HELLO_REQUEST, 66000},
    };
    static r_end e;
    static r_peer p;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (int large = 0; large < 2; large++)
            FOR_EACH_WAY(way) {
                char row[128];
                snprintf(row, sizeof row, "%s of %s (by %s)", rows[i].name,
                         large ? "16 MB" : "little more than is allowed", r_way_names[way]);
                T_STEP("%s", row);
                if (rows[i].server)
                    r_open(&e, &p, way, mutual, NULL);
                else
                    r_open(&e, &p, way, client_ctx, "localhost");
                go_to(&p, rows[i].stage);
                if (rows[i].type == R_SERVER_KEY || rows[i].type == R_HELLO_DONE ||
                    rows[i].type == R_CERTIFICATE_REQUEST)
                    r_send_certificate(&p);
                if (rows[i].type == R_HELLO_DONE || rows[i].type == R_CERTIFICATE_REQUEST)
                    r_send_server_key(&p);
                if (rows[i].type == R_CERTIFICATE_VERIFY) {
                    static const char *const chain[] = {T_CERTS "client.pem", NULL};
                    static r_bytes body;
                    r_write_chain(&body, chain);
                    r_send(&p, R_CERTIFICATE, body.data, body.size);
                }
                if (rows[i].type == R_CLIENT_KEY)
                    r_send(&p, R_CERTIFICATE, "\0\0\0", 3);
                if (rows[i].type == R_CERTIFICATE_VERIFY)
                    r_send_client_key(&p);
                begin_message(&p, rows[i].type, large ? 0xffffff : rows[i].least);
                r_check_refusal(&e, &p, row, R_ALERTS(ILLEGAL, DECODE, OVERFLOW, UNEXPECTED));
            }
    r_no_complaints();
}

/* ---- what is legal, if only just ---- */

/* A DER element around what is in the buffer from a place on. */
static void der_wrap(r_bytes *b, size_t from, int tag) {
    size_t size = b->size - from;
    unsigned char head[5] = {(unsigned char)tag, 0x83, (unsigned char)(size >> 16),
                             (unsigned char)(size >> 8), (unsigned char)size};
    size_t n = sizeof head;
    if (size < 128) {
        head[1] = (unsigned char)size;
        n = 2;
    } else if (size < 256) {
        head[1] = 0x81;
        head[2] = (unsigned char)size;
        n = 3;
    } else if (size < 65536) {
        head[1] = 0x82;
        head[2] = (unsigned char)(size >> 8);
        head[3] = (unsigned char)size;
        n = 4;
    }
    r_fill(b, 0, n);
    memmove(b->data + from + n, b->data + from, size);
    memcpy(b->data + from, head, n);
}

/* An element's length with its header; *start: where its contents are. */
static size_t der_size(const unsigned char *p, size_t *start) {
    size_t bytes = p[1] < 128 ? 0 : p[1] & 127u;
    *start = 2 + bytes;
    return *start + (bytes ? r_get(p + 2, (int)bytes) : p[1]);
}

/* The test CA's certificate with other extensions: one that nobody knows, of so many bytes. Its
   signature is wrong, but a certificate that is in no path is not looked at so closely. */
static void make_large_certificate(r_bytes *out, size_t size) {
    static r_bytes ca;
    size_t start, pos, end, from;
    r_read_pem(T_CERTS "ca.pem", &ca);
    out->size = 0;
    der_size(ca.data, &pos);
    end = pos + der_size(ca.data + pos, &start);
    pos += start;
    while (pos < end && ca.data[pos] != 0xa3) {
        size_t n = der_size(ca.data + pos, &start);
        r_put(out, ca.data + pos, n);
        pos += n;
    }
    from = out->size;
    r_put(out, "\6\11\x2b\6\1\4\1\x86\x8d\x1f\1", 11);
    r_put(out, "\4", 1); /* an OCTET STRING, whose length follows */
    out->size--;
    start = out->size;
    r_fill(out, 0, size);
    der_wrap(out, start, 4);
    der_wrap(out, from, 0x30);
    der_wrap(out, from, 0x30);
    der_wrap(out, from, 0xa3);
    der_wrap(out, 0, 0x30);
    r_put(out, ca.data + end, ca.size - end);
    der_wrap(out, 0, 0x30);
}

T_TEST(a_chain_of_150_kb_is_taken, 120) {
    static r_end e;
    static r_peer p;
    static r_bytes leaf, large, body;
    r_read_pem(T_CERTS "server-ec.pem", &leaf);
    make_large_certificate(&large, 150000);
    FOR_EACH_WAY(way) {
        const char *row = r_way_names[way];
        int came;
        r_open(&e, &p, way, client_ctx, "localhost");
        go_to(&p, MIDDLE);
        body.size = 0;
        r_number(&body, 3, leaf.size + large.size + 6);
        r_vector(&body, 3, leaf.data, leaf.size);
        r_vector(&body, 3, large.data, large.size);
        r_send(&p, R_CERTIFICATE, body.data, body.size);
        r_send_server_key(&p);
        r_send_hello_done(&p);
        came = r_read_client_flight(&p);
        r_close(&e, &p);
        if (came)
            r_complain(row, "%s came, alert %d: %s", r_what(came), p.alert, e.outcome.message);
    }
    r_no_complaints();
}

/* Handshake messages in records of one byte, each with empty ones before it, up to the limit. */
static void drip(r_peer *p, const r_bytes *messages, int empty) {
    for (size_t i = 0; i < messages->size && !p->broken; i++) {
        for (int k = 0; k < empty; k++)
            r_write_record(p, R_HANDSHAKE, NULL, 0);
        r_write_record(p, R_HANDSHAKE, messages->data + i, 1);
    }
}

static void drip_message(r_peer *p, int type, const r_bytes *body, int empty) {
    static r_bytes message;
    message.size = 0;
    r_message(&message, type, body->data, body->size);
    br_sha256_update(&p->transcript, message.data, message.size);
    drip(p, &message, empty);
}

static int drip_to_a_server(r_peer *p, int empty) {
    static r_hello h;
    static r_bytes body;
    int came;
    r_make_client_hello(&h, "localhost");
    r_write_hello(&body, &h, 0, p->random[0]);
    drip_message(p, R_CLIENT_HELLO, &body, empty);
    came = r_read_server_flight(p);
    if (came)
        return came;
    r_make_client_key(p, &body);
    drip_message(p, R_CLIENT_KEY, &body, empty);
    r_send_ccs(p);
    body.size = 12;
    r_verify_data(p, 0, body.data);
    drip_message(p, R_FINISHED, &body, empty);
    return r_read_finished(p);
}

static int drip_to_a_client(r_peer *p, int empty) {
    static r_hello h;
    static r_bytes body;
    int came = r_read_client_hello(p);
    if (came)
        return came;
    r_make_server_hello(&h);
    r_write_hello(&body, &h, 1, p->random[1]);
    drip_message(p, R_SERVER_HELLO, &body, empty);
    r_make_certificate(p, &body);
    drip_message(p, R_CERTIFICATE, &body, empty);
    r_make_server_key(p, &body);
    drip_message(p, R_SERVER_KEY, &body, empty);
    body.size = 0;
    drip_message(p, R_HELLO_DONE, &body, empty);
    came = r_read_client_flight(p);
    if (came)
        return came;
    r_send_ccs(p);
    body.size = 12;
    r_verify_data(p, 1, body.data);
    drip_message(p, R_FINISHED, &body, empty);
    return 0;
}

T_TEST(a_handshake_in_drips_below_the_limits_works, 240) {
    static r_end e;
    static r_peer p;
    for (int server = 0; server < 2; server++)
        for (int empty = 0; empty <= EMPTY_RECORDS; empty += EMPTY_RECORDS)
            FOR_EACH_WAY(way) {
                char row[96];
                int came;
                snprintf(row, sizeof row, "a %s, %d empty records between (by %s)",
                         server ? "server" : "client", empty, r_way_names[way]);
                T_STEP("%s", row);
                open_end(&e, &p, NULL, server, way);
                came = server ? drip_to_a_server(&p, empty) : drip_to_a_client(&p, empty);
                for (int i = 0; i < 100 && !came; i++) {
                    send_flood(&p, &floods[1], empty);
                    r_write_record(&p, R_DATA, "x", 1);
                }
                if (!came)
                    r_write_alert(&p, 1, PYSOCK_ALERT_CLOSE_NOTIFY);
                r_close(&e, &p);
                if (came || e.outcome.result < 0 || e.received_size != 100)
                    r_complain(row, "%s came, alert %d, %zu of 100 bytes: %s",
                               came ? r_what(came) : "all", p.alert, e.received_size,
                               e.outcome.message);
            }
    r_no_complaints();
}

/* ---- a budget for each step ---- */

/* A hello in 20,000 records is in the kernel. A call that drives takes some of it and comes back,
   and goes on when it is called again. */
T_TEST(a_step_of_a_handshake_takes_so_much_and_no_more, 60) {
    static r_peer p;
    static r_hello h;
    static r_bytes body, message;
    static unsigned char zeros[20000];
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    pysock *s;
    int fds[2], left = 0, before = 0, calls = 0, room = 4 << 20;
    options.caller_drives = 1;
    options.no_handshake_on_connect = 1;
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    setsockopt(fds[1], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
    r_peer_init(&p, 0);
    r_make_client_hello(&h, "localhost");
    r_extend(&h, 21, zeros, sizeof zeros);
    r_write_hello(&body, &h, 0, p.random[0]);
    message.size = 0;
    r_message(&message, R_CLIENT_HELLO, body.data, body.size);
    body.size = 0;
    for (size_t i = 0; i < message.size; i++) {
        r_put(&body, "\26\3\3\0\1", 5);
        r_put(&body, message.data + i, 1);
    }
    fcntl(fds[1], F_SETFL, O_NONBLOCK);
    before = (int)send(fds[1], body.data, body.size, MSG_NOSIGNAL);
    T_CHECK(before > 60000); /* at least half of it is there */
    s = T_OK(pysock_adopt(fds[0], -1, -1, -1));
    T_OK(pysock_setblocking(s, 0));
    T_OK(pysock_ssl_wrap_socket_ex(s, server_ctx, &options));
    T_EQ(ioctl(fds[0], FIONREAD, &left), 0);
    T_CHECK(left > before / 2);
    do {
        int r = pysock_ssl_do_handshake(s), now = 0;
        if (r == 0 || errno != EINPROGRESS)
            T_FAIL("call %d gave %d: %s", calls, r, pysock_error_message());
        T_EQ(ioctl(fds[0], FIONREAD, &now), 0);
        T_CHECK(now < left); /* it goes on */
        left = now;
        calls++;
    } while (left);
    T_CHECK(calls > 1);
    T_OK(pysock_close(s));
    close(fds[1]);
}

/* ---- a server under load ---- */

/* What a flooder sends, in clear, again and again on one connection after the other. */
typedef struct flooder {
    t_thread thread;
    int port;
    const char *name;
    void (*once)(r_peer *p, int i); /* NULL: a hello in drips */
    int after_hello;                /* it says hello first, and reads the answer */
    int stop;                       /* atomic */
    int connections;                /* atomic: how many it has made */
} flooder;

static int is_stopped(flooder *f) {
    return __atomic_load_n(&f->stop, __ATOMIC_ACQUIRE);
}

static void *flood_thread(void *arg) {
    flooder *f = arg;
    r_peer *p = malloc(sizeof *p);
    r_hello *h = malloc(sizeof *h);
    r_bytes *batch = malloc(sizeof *batch);
    T_CHECK(p && h && batch);
    batch->size = 0;
    for (int i = 0; batch->size < 60000; i++) {
        r_number(batch, 1, f->once == warning ? R_ALERT : R_HANDSHAKE);
        r_number(batch, 2, 0x303);
        if (f->once == warning)
            r_vector(batch, 2, "\1\132", 2);
        else if (f->once)
            r_number(batch, 2, 0);
        else
            r_vector(batch, 2, i == 0 ? "\1" : i == 1 ? "\0" : i == 2 ? "\xf0" : "\0", 1);
    }
    while (!is_stopped(f)) {
        struct timeval patience = {1, 0};
        r_peer_init(p, 0);
        p->fd = t_raw_connect(f->port);
        setsockopt(p->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
        __atomic_add_fetch(&f->connections, 1, __ATOMIC_ACQ_REL);
        if (f->after_hello) {
            r_make_client_hello(h, "localhost");
            r_say_hello(p, h);
            if (r_read_server_flight(p))
                p->broken = 1;
        }
        while (!is_stopped(f) && !p->broken) {
            ssize_t n = send(p->fd, batch->data, batch->size, MSG_NOSIGNAL);
            if (n < 0 && errno != EINTR && errno != EAGAIN)
                p->broken = 1;
        }
        close(p->fd);
    }
    free(batch);
    free(h);
    free(p);
    return NULL;
}

#define CLIENTS 200 /* at a time, of one server */

/* A server in one thread: accepts, echoes, closes. */
typedef struct server {
    t_thread thread;
    pysock *listener;
    pysock_poller *poller;
    pysock *clients[CLIENTS];
    int stop; /* atomic */
} server;

static void serve_one(server *sv, int i) {
    char buf[256];
    ptrdiff_t n = pysock_recv(sv->clients[i], buf, sizeof buf, 0);
    if (n > 0)
        n = pysock_send(sv->clients[i], buf, (size_t)n, 0);
    if (n > 0 || (n < 0 && errno == EAGAIN))
        return;
    pysock_poller_unregister(sv->poller, pysock_fileno(sv->clients[i]));
    pysock_close(sv->clients[i]);
    sv->clients[i] = NULL;
}

static void accept_one(server *sv) {
    int i = 0;
    pysock *s = pysock_accept(sv->listener, NULL);
    if (!s)
        return;
    while (i < CLIENTS && sv->clients[i])
        i++;
    T_OK(pysock_setblocking(s, 0));
    if (i == CLIENTS || pysock_poller_register(sv->poller, pysock_fileno(s), POLLIN, NULL) < 0) {
        pysock_close(s);
        return;
    }
    sv->clients[i] = s;
}

static void *server_thread(void *arg) {
    server *sv = arg;
    while (!__atomic_load_n(&sv->stop, __ATOMIC_ACQUIRE)) {
        pysock_pollevent events[16];
        ptrdiff_t n = T_OK(pysock_poller_poll(sv->poller, events, 16, 0.05));
        for (ptrdiff_t k = 0; k < n; k++) {
            if (events[k].fd == pysock_fileno(sv->listener))
                accept_one(sv);
            for (int i = 0; i < CLIENTS; i++)
                if (sv->clients[i] && pysock_fileno(sv->clients[i]) == events[k].fd)
                    serve_one(sv, i);
        }
    }
    return NULL;
}

static int start_server(server *sv) {
    int port;
    memset(sv, 0, sizeof *sv);
    sv->listener = t_listen(&port);
    T_OK(pysock_setblocking(sv->listener, 0));
    T_OK(pysock_ssl_wrap_socket(sv->listener, server_ctx, NULL));
    sv->poller = t_poller_with(pysock_fileno(sv->listener), POLLIN);
    t_spawn(&sv->thread, server_thread, sv);
    return port;
}

static void stop_server(server *sv) {
    __atomic_store_n(&sv->stop, 1, __ATOMIC_RELEASE);
    t_join(&sv->thread);
    for (int i = 0; i < CLIENTS; i++)
        pysock_close(sv->clients[i]);
    pysock_poller_release(sv->poller);
    pysock_close(sv->listener);
}

static int answers(pysock *s) {
    char buf[4];
    size_t have = 0;
    ptrdiff_t n = pysock_sendall(s, "ping", 4, 0) == 0;
    while (n > 0 && have < 4) {
        n = pysock_recv(s, buf + have, 4 - have, 0);
        have += n > 0 ? (size_t)n : 0;
    }
    return have == 4 && memcmp(buf, "ping", 4) == 0;
}

/* How many of so many other clients are served, each within its time. */
static int serve_others(int port, int count, char *why, size_t size) {
    int served = 0;
    for (int i = 0; i < count; i++) {
        pysock *s = pysock_create_connection("127.0.0.1", port, AT_ONCE);
        if (s && pysock_ssl_wrap_socket(s, client_ctx, "localhost") == 0 && answers(s))
            served++;
        else
            snprintf(why, size, "%s", pysock_error_message());
        pysock_close(s);
        if (served <= i)
            break; /* it will not get better, and takes its time */
    }
    return served;
}

#define SERVED 10

/* The server has ended its first connection, so that it made another. */
static int is_cut(flooder *f, double deadline) {
    while (__atomic_load_n(&f->connections, __ATOMIC_ACQUIRE) < 2 && t_now() < deadline)
        t_nap(0.005);
    return __atomic_load_n(&f->connections, __ATOMIC_ACQUIRE) >= 2;
}

static void others_are_served_during(const flooder *kinds, size_t count) {
    static server sv;
    flooder f[4];
    char why[512] = "";
    size_t cut = 0;
    int port, served;
    T_CHECK(count <= 4);
    port = start_server(&sv);
    for (size_t i = 0; i < count; i++) {
        f[i] = kinds[i];
        f[i].port = port;
        t_spawn(&f[i].thread, flood_thread, &f[i]);
    }
    while (__atomic_load_n(&f[0].connections, __ATOMIC_ACQUIRE) == 0)
        t_nap(0.002);
    served = serve_others(port, SERVED, why, sizeof why);
    for (size_t i = 0; i < count && served == SERVED; i++)
        cut += (size_t)is_cut(&f[i], t_now() + AT_ONCE);
    for (size_t i = 0; i < count; i++) {
        __atomic_store_n(&f[i].stop, 1, __ATOMIC_RELEASE);
        t_join(&f[i].thread);
    }
    stop_server(&sv);
    if (served < SERVED)
        T_FAIL("only %d of %d clients were served: %s", served, SERVED, why);
    if (cut < count)
        T_FAIL("only %zu of %zu floods were ever cut", cut, count);
}

static const flooder kinds[] = {
    {.name = "empty records before a hello", .once = empty_handshake_record},
    {.name = "empty records after it", .once = empty_handshake_record, .after_hello = 1},
    {.name = "warnings", .once = warning},
    {.name = "a hello in drips", .once = NULL},
};

T_TEST(the_reactor_serves_others_during_each_flood, 240) {
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        T_STEP("%s", kinds[i].name);
        others_are_served_during(&kinds[i], 1);
    }
}

T_TEST(the_reactor_serves_others_during_all_floods, 120) {
    others_are_served_during(kinds, sizeof kinds / sizeof kinds[0]);
}

/* Where there is no reactor: the poller's own thread does its work. */
static int allow_threads(void **state) {
    (void)state;
    pysock_set_audit_hook(NULL, NULL);
    return 0;
}

T_TEST_WITH(a_poller_without_threads_serves_others_during_floods, 240, NULL, allow_threads) {
    pysock_cleanup();
    pysock_set_audit_hook(t_deny_threads, NULL);
    others_are_served_during(kinds, sizeof kinds / sizeof kinds[0]);
    pysock_set_audit_hook(NULL, NULL);
}

/* ---- deadlines ---- */

/* Sends something without end, on a connection that is there: until it breaks, or is told to stop.
   What takes a place in the handshake comes before. */
typedef struct source {
    t_thread thread;
    r_peer p;
    void (*once)(r_peer *p, int i);
    double pause; /* seconds between, for a drip */
    int stop;     /* atomic */
} source;

static void *source_thread(void *arg) {
    source *so = arg;
    for (int i = 0; !so->p.broken && !__atomic_load_n(&so->stop, __ATOMIC_ACQUIRE); i++) {
        so->once(&so->p, i);
        if (so->pause > 0)
            t_nap(so->pause);
    }
    return NULL;
}

static void stop_source(source *so) {
    __atomic_store_n(&so->stop, 1, __ATOMIC_RELEASE);
    shutdown(so->p.fd, SHUT_RDWR);
    t_join(&so->thread);
    close(so->p.fd);
}

/* A plain socket of the library's; its peer is so->p. */
static pysock *connect_source(source *so, int is_server, double timeout) {
    int port, raw = t_raw_listen(&port);
    pysock *s;
    memset(so, 0, offsetof(source, p));
    so->stop = 0;
    so->pause = 0;
    r_peer_init(&so->p, is_server);
    so->p.fd = t_raw_connect(port);
    s = T_OK(pysock_adopt(t_raw_accept(raw), -1, -1, -1));
    close(raw);
    T_OK(pysock_settimeout(s, timeout));
    t_wrap_later(s, is_server ? client_ctx : server_ctx, is_server ? "localhost" : NULL);
    return s;
}

static void *shake_as_peer(void *arg) {
    r_peer *p = arg;
    static r_hello h;
    if (p->server)
        return r_serve(p) ? p : NULL;
    r_make_client_hello(&h, "localhost");
    return r_connect(p, &h) ? p : NULL;
}

/* The same with the handshake done. */
static pysock *connect_established(source *so, int is_server, double timeout) {
    pysock *s = connect_source(so, is_server, timeout);
    t_thread t;
    t_spawn(&t, shake_as_peer, &so->p);
    T_EQ(pysock_ssl_do_handshake(s), 0);
    T_CHECK(t_join(&t) == NULL);
    return s;
}

/* A handshake message that never ends in time: one byte after the other. */
static void next_byte(r_peer *p, int i) {
    static const unsigned char head[] = {R_CLIENT_HELLO, 0, 0xf0, 0, 3, 3};
    unsigned char c = i < (int)sizeof head ? head[i] : 0;
    if (i == 0 && p->server)
        c = R_SERVER_HELLO;
    r_write_record(p, R_HANDSHAKE, &c, 1);
}

/* The same with all that is allowed between. */
static void next_byte_in_froth(r_peer *p, int i) {
    for (int k = 0; k < EMPTY_RECORDS; k++)
        r_write_record(p, R_HANDSHAKE, NULL, 0);
    next_byte(p, i);
}

T_TEST(a_deadline_holds_while_a_handshake_drips, 120) {
    static source so;
    for (int is_server = 0; is_server < 2; is_server++)
        for (int fast = 0; fast < 2; fast++) {
            pysock *s = connect_source(&so, is_server, 0.5);
            double begin = t_now(), took;
            h_outcome o;
            T_STEP("a %s, %s", is_server ? "server drips" : "client drips", fast ? "fast" : "slow");
            so.once = fast ? next_byte_in_froth : next_byte;
            so.pause = fast ? 0 : 0.02;
            t_spawn(&so.thread, source_thread, &so);
            o = h_outcome_of(pysock_ssl_do_handshake(s));
            took = t_now() - begin;
            stop_source(&so);
            T_OK(pysock_close(s));
            T_EQ(o.result, -1);
            T_CHECK(took < AT_ONCE);
            if (o.kind != PYSOCK_TIMEOUT_ERROR && !fast)
                T_FAIL("failed with %s: %s", o.name, o.message);
        }
}

/* A blocking call with a timeout, and a peer that floods: it comes back in time, with an error. */
T_TEST(a_flooded_call_with_a_timeout_comes_back, 240) {
    static const struct {
        const char *name;
        int is_server, established;
        void (*once)(r_peer *p, int i);
    } rows[] = {
        {"a server's handshake, empty records", 0, 0, empty_handshake_record},
        {"a server's handshake, warnings", 0, 0, warning},
        {"a client's handshake, empty records", 1, 0, empty_handshake_record},
        {"a client's handshake, warnings", 1, 0, warning},
        {"a client's handshake, HelloRequests", 1, 0, hello_request},
        {"a server's recv, empty records", 0, 1, empty_handshake_record},
        {"a server's recv, empty data", 0, 1, empty_data_record},
        {"a server's recv, warnings", 0, 1, warning},
        {"a client's recv, empty records", 1, 1, empty_handshake_record},
        {"a client's recv, empty data", 1, 1, empty_data_record},
        {"a client's recv, warnings", 1, 1, warning},
        {"a client's recv, HelloRequests", 1, 1, hello_request},
    };
    static source so;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        double begin, took;
        char byte;
        h_outcome o;
        pysock *s;
        T_STEP("%s", rows[i].name);
        if (rows[i].established)
            s = connect_established(&so, rows[i].is_server, 2.0);
        else
            s = connect_source(&so, rows[i].is_server, 2.0);
        so.once = rows[i].once;
        begin = t_now();
        t_spawn(&so.thread, source_thread, &so);
        o = h_outcome_of(rows[i].established ? (int)pysock_recv(s, &byte, 1, 0)
                                             : pysock_ssl_do_handshake(s));
        took = t_now() - begin;
        T_OK(pysock_close(s));
        stop_source(&so);
        if (o.result >= 0 || o.kind != PYSOCK_SSL_ERROR)
            r_complain(rows[i].name, "gave %d, %s: %s", o.result, o.name, o.message);
        if (took > 2 * AT_ONCE)
            r_complain(rows[i].name, "took %.1f s", took);
    }
    r_no_complaints();
}

/* Data without end, which unwrap may drop or refuse, but not read for ever. */
static void more_data(r_peer *p, int i) {
    static unsigned char bytes[1000];
    (void)i;
    r_write_record(p, R_DATA, bytes, sizeof bytes);
}

T_TEST(the_deadline_of_unwrap_holds_while_data_comes, 120) {
    static source so;
    for (int is_server = 0; is_server < 2; is_server++) {
        pysock *s = connect_established(&so, is_server, 1.0);
        double begin = t_now(), took;
        h_outcome o;
        so.once = more_data;
        t_spawn(&so.thread, source_thread, &so);
        o = h_outcome_of(pysock_ssl_unwrap(s));
        took = t_now() - begin;
        stop_source(&so);
        T_OK(pysock_close(s));
        T_EQ(o.result, -1);
        T_CHECK(took < AT_ONCE);
    }
}

/* ---- close and cleanup ---- */

enum { FLOODED_UNWRAP, FLOODED_HANDSHAKE, FLOODED_KINDS };

/* Until the thread has been at work for a while: it is in its call, and nowhere else. */
static void wait_busy(const t_thread *t) {
    struct timespec cpu = {0, 0};
    clockid_t clock;
    T_EQ(pthread_getcpuclockid(t->id, &clock), 0);
    while (cpu.tv_sec == 0 && cpu.tv_nsec < 10 * 1000 * 1000) {
        t_nap(0.001);
        T_EQ(clock_gettime(clock, &cpu), 0);
    }
}

/* A blocking call without a timeout that a flood keeps busy. */
static pysock *begin_flooded_call(source *so, t_waiter *w, t_thread *t, int kind) {
    memset(w, 0, sizeof *w);
    if (kind == FLOODED_UNWRAP) {
        w->s = connect_established(so, 0, PYSOCK_NO_TIMEOUT);
        w->what = T_WAIT_UNWRAP;
        so->once = more_data;
    } else {
        w->s = connect_source(so, 0, PYSOCK_NO_TIMEOUT);
        w->what = T_WAIT_HANDSHAKE;
        so->once = next_byte_in_froth;
    }
    t_spawn(&so->thread, source_thread, so);
    t_spawn(t, t_wait_thread, w);
    wait_busy(t);
    return w->s;
}

T_TEST(a_flooded_call_ends_when_its_socket_is_closed, 120) {
    static source so;
    for (int kind = 0; kind < FLOODED_KINDS; kind++)
        for (int i = 0; i < 5; i++) {
            t_waiter w;
            t_thread t;
            double begin;
            pysock *s = begin_flooded_call(&so, &w, &t, kind);
            T_STEP("%s", kind == FLOODED_UNWRAP ? "unwrap" : "handshake");
            begin = t_now();
            pysock_close(s);
            t_join(&t);
            begin = t_now() - begin;
            stop_source(&so);
            T_EQ(w.result, -1);
            T_EQ(w.code, EBADF);
            T_CHECK(begin < AT_ONCE);
        }
}

T_TEST(a_flooded_call_ends_at_cleanup, 120) {
    static source so;
    for (int kind = 0; kind < FLOODED_KINDS; kind++) {
        t_waiter w;
        t_thread t;
        double begin;
        begin_flooded_call(&so, &w, &t, kind);
        T_STEP("%s", kind == FLOODED_UNWRAP ? "unwrap" : "handshake");
        begin = t_now();
        pysock_cleanup();
        t_join(&t);
        begin = t_now() - begin;
        stop_source(&so);
        T_EQ(w.result, -1);
        T_EQ(w.code, ESHUTDOWN);
        T_CHECK(begin < AT_ONCE);
    }
}

/* The reactor is in the middle of a handshake that a flood keeps going. */
T_TEST(the_reactor_ends_at_cleanup_whatever_floods_it, 120) {
    static source so[2];
    pysock *s[2];
    double begin;
    for (int i = 0; i < 2; i++) {
        s[i] = connect_source(&so[i], i, 0);
        pysock_ssl_do_handshake(s[i]);
        so[i].once = next_byte_in_froth;
        t_spawn(&so[i].thread, source_thread, &so[i]);
        while (__atomic_load_n(&so[i].p.records_written, __ATOMIC_RELAXED) < 1000)
            t_nap(0.001);
    }
    begin = t_now();
    pysock_close(s[0]);
    pysock_cleanup();
    begin = t_now() - begin;
    for (int i = 0; i < 2; i++)
        stop_source(&so[i]);
    T_CHECK(begin < AT_ONCE);
    T_FAILS(pysock_fileno(s[1]), PYSOCK_OS_ERROR, EBADF);
}

/* ---- what a timeout costs ---- */

#define WAITING 8

/* Nothing but the kernel and close can end these waits: a thousand descriptors are a thousand
   clients. */
T_TEST(threads_that_wait_with_a_timeout_need_no_descriptor_each, 120) {
    pysock *pair[WAITING][2];
    t_waiter w[WAITING];
    t_thread t[WAITING];
    int before, during;
    for (int i = 0; i < WAITING; i++)
        t_tls_pair(pair[i], client_ctx, server_ctx);
    before = t_count_fds();
    memset(w, 0, sizeof w);
    for (int i = 0; i < WAITING; i++) {
        w[i].what = T_WAIT_RECV;
        w[i].s = pair[i][1];
        T_OK(pysock_settimeout(w[i].s, 100));
        t_spawn(&t[i], t_wait_thread, &w[i]);
    }
    for (int i = 0; i < WAITING; i++)
        t_wait_asleep(&t[i]);
    during = t_count_fds();
    for (int i = 0; i < WAITING; i++) {
        T_OK(pysock_close(pair[i][1])); /* while it sleeps */
        t_join(&t[i]);
        T_OK(pysock_close(pair[i][0]));
        T_EQ(w[i].result, -1);
        T_EQ(w[i].code, EBADF);
    }
    if (during - before > 2)
        T_FAIL("%d threads that wait hold %d descriptors", WAITING, during - before);
}

T_MAIN(.setup = set_up, .teardown = tear_down)
