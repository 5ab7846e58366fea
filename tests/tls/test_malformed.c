/* Messages and records that are malformed, out of turn or not what was offered, to a server and to
   a client: each is answered with the alert of RFC 5246, 5746, 7301 or 8422, and the error says
   that the peer was wrong, not the library. */
#include "support/contexts.h"

#include "support/rawtls.h"

enum {
    UNEXPECTED = PYSOCK_ALERT_UNEXPECTED_MESSAGE,
    BAD_MAC = PYSOCK_ALERT_BAD_RECORD_MAC,
    OVERFLOW = PYSOCK_ALERT_RECORD_OVERFLOW,
    FAILURE = PYSOCK_ALERT_HANDSHAKE_FAILURE,
    BAD_CERTIFICATE = PYSOCK_ALERT_BAD_CERTIFICATE,
    ILLEGAL = PYSOCK_ALERT_ILLEGAL_PARAMETER,
    DECODE = PYSOCK_ALERT_DECODE_ERROR,
    DECRYPT = PYSOCK_ALERT_DECRYPT_ERROR,
    VERSION = PYSOCK_ALERT_PROTOCOL_VERSION,
    EXTENSION = PYSOCK_ALERT_UNSUPPORTED_EXTENSION
};

/* Contexts of the end under test. */
static pysock_ssl_context *mutual, *with_rsa, *with_alpn, *renegotiating;

static int set_up(void **state) {
    static const char *const names[] = {"h2", "http/1.1"};
    make_contexts(state);
    mutual = t_server_ctx();
    T_OK(pysock_ssl_load_verify_locations(mutual, T_CERTS "ca.pem", NULL));
    T_OK(pysock_ssl_set_verify_mode(mutual, PYSOCK_CERT_OPTIONAL));
    with_rsa = t_server_ctx_of("server-rsa");
    T_OK(pysock_ssl_set_ciphers(with_rsa, "AES128-GCM-SHA256"));
    with_alpn = t_client_ctx();
    T_OK(pysock_ssl_set_alpn_protocols(with_alpn, names, 2));
    renegotiating = t_server_ctx();
    T_OK(pysock_ssl_set_options(renegotiating, pysock_ssl_get_options(renegotiating) |
                                                   PYSOCK_OP_ALLOW_CLIENT_RENEGOTIATION));
    return 0;
}

static int tear_down(void **state) {
    pysock_ssl_context_release(mutual);
    pysock_ssl_context_release(with_rsa);
    pysock_ssl_context_release(with_alpn);
    pysock_ssl_context_release(renegotiating);
    return free_contexts(state);
}

static int is_client_ctx(const pysock_ssl_context *ctx) {
    return ctx == client_ctx || ctx == with_alpn;
}

/* ---- how far a handshake has come: what the peer sends next ---- */

enum { HELLO, CERTIFICATE, KEY, REQUEST, DONE, VERIFY, CCS, FINISHED, DATA };

static int curve_offered; /* by the peer as a client; 0: both */

static void say_client_hello(r_peer *p) {
    static r_hello h;
    unsigned char list[4] = {0, 2, 0, (unsigned char)curve_offered};
    r_make_client_hello(&h, "localhost");
    memcpy(h.suites + 2, "\0\x9c", 2); /* static RSA, for a server that has nothing else */
    h.suites_size = 4;
    if (curve_offered)
        r_reextend(&h, R_GROUPS, list, 4);
    r_say_hello(p, &h);
}

/* As a client: its flight up to where it would send a message of this kind. */
static void advance_client(r_peer *p, int level) {
    if (level == HELLO)
        return;
    say_client_hello(p);
    T_EQ(r_read_server_flight(p), 0);
    if (level == CERTIFICATE)
        return;
    if (p->certificate_asked && level == VERIFY) {
        static const char *const chain[] = {T_CERTS "client.pem", NULL};
        static r_bytes body;
        r_write_chain(&body, chain);
        r_send(p, R_CERTIFICATE, body.data, body.size);
    } else if (p->certificate_asked) {
        r_send(p, R_CERTIFICATE, "\0\0\0", 3);
    }
    if (level == KEY)
        return;
    r_send_client_key(p);
    if (level == VERIFY || level == CCS)
        return;
    r_send_ccs(p);
    if (level == FINISHED)
        return;
    r_send_finished(p);
    T_EQ(r_read_finished(p), 0);
}

/* The same as a server. */
static void advance_server(r_peer *p, int level) {
    T_EQ(r_read_client_hello(p), 0);
    if (level == HELLO)
        return;
    r_send_server_hello(p);
    if (level == CERTIFICATE)
        return;
    r_send_certificate(p);
    if (level == KEY)
        return;
    r_send_server_key(p);
    if (level == REQUEST || level == DONE)
        return;
    r_send_hello_done(p);
    T_EQ(r_read_client_flight(p), 0);
    if (level == CCS)
        return;
    r_send_ccs(p);
    if (level == FINISHED)
        return;
    r_send_finished(p);
}

static void advance(r_peer *p, int level) {
    if (p->server)
        advance_server(p, level);
    else
        advance_client(p, level);
}

/* ---- rows ---- */

typedef struct row {
    const char *name;
    int level;
    void (*say)(r_peer *p, const struct row *r);
    int type;
    const void *data;
    size_t size;
    r_alerts alerts;
} row;

/* clang-format off */
#define ROW(name, level, say, type, text, ...)                                                     \
    { name, level, say, type, text, sizeof(text) - 1, R_ONE_OF(__VA_ARGS__) }
/* clang-format on */

static void message(r_peer *p, const row *r) {
    r_send(p, r->type, r->data, r->size);
}

static void record(r_peer *p, const row *r) {
    r_write_record(p, r->type, r->data, r->size);
}

static void clear_record(r_peer *p, const row *r) {
    r_write_clear(p, r->type, r->data, r->size);
}

/* A record whose type is wrong for what is going on comes in the middle of a message. */
static void record_in_a_message(r_peer *p, const row *r) {
    static const unsigned char half[] = {R_CERTIFICATE, 0, 0, 9, 0};
    r_write_record(p, R_HANDSHAKE, half, sizeof half);
    record(p, r);
}

static void try_row(const row *r, pysock_ssl_context *ctx, int way) {
    static r_end e;
    static r_peer p;
    char name[160];
    snprintf(name, sizeof name, "%s to a %s (by %s)", r->name,
             is_client_ctx(ctx) ? "client" : "server", r_way_names[way]);
    T_STEP("%s", name);
    r_open(&e, &p, way, ctx, is_client_ctx(ctx) ? "localhost" : NULL);
    advance(&p, r->level);
    r->say(&p, r);
    r_check_refusal(&e, &p, name, r->alerts);
}

static void try_rows(const row *rows, size_t count, pysock_ssl_context *ctx) {
    for (size_t i = 0; i < count; i++)
        FOR_EACH_WAY(way)
            try_row(&rows[i], ctx, way);
}

#define TRY(rows, ctx) try_rows(rows, sizeof rows / sizeof rows[0], ctx)

/* A message that ends anywhere, with a length that says so. */
static void try_parts(const char *name, pysock_ssl_context *ctx, int level, int type,
                      void (*make)(r_peer *p, r_bytes *body), size_t but) {
    static r_end e;
    static r_peer p;
    static r_bytes body;
    for (size_t size = 0; r_complaints < 10; size++) {
        char text[96];
        snprintf(text, sizeof text, "%zu bytes of %s", size, name);
        if (size == but)
            continue;
        r_open(&e, &p, R_BY_BIO, ctx, is_client_ctx(ctx) ? "localhost" : NULL);
        advance(&p, level);
        make(&p, &body);
        if (size >= body.size) { /* which is not always the same: it holds a signature */
            r_close(&e, &p);
            return;
        }
        r_send(&p, type, body.data, size);
        r_check_refusal(&e, &p, text, R_ALERTS(DECODE));
    }
}

/* ---- messages and records out of turn ---- */

#define ZERO_31 "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"

#define OUT_OF_TURN(name, level, type) ROW(name, level, message, type, "", UNEXPECTED)

T_TEST(a_server_refuses_what_is_out_of_turn, 240) {
    static const row rows[] = {
        OUT_OF_TURN("HelloRequest for ClientKeyExchange", KEY, R_HELLO_REQUEST),
        OUT_OF_TURN("ClientHello for ClientKeyExchange", KEY, R_CLIENT_HELLO),
        OUT_OF_TURN("ServerHello for ClientKeyExchange", KEY, R_SERVER_HELLO),
        OUT_OF_TURN("NewSessionTicket for ClientKeyExchange", KEY, R_TICKET),
        OUT_OF_TURN("a Certificate that nobody asked for", KEY, R_CERTIFICATE),
        OUT_OF_TURN("ServerKeyExchange for ClientKeyExchange", KEY, R_SERVER_KEY),
        OUT_OF_TURN("CertificateRequest for ClientKeyExchange", KEY, R_CERTIFICATE_REQUEST),
        OUT_OF_TURN("ServerHelloDone for ClientKeyExchange", KEY, R_HELLO_DONE),
        OUT_OF_TURN("CertificateVerify for ClientKeyExchange", KEY, R_CERTIFICATE_VERIFY),
        OUT_OF_TURN("Finished for ClientKeyExchange", KEY, R_FINISHED),
        ROW("TLS 1.3's Finished for ClientKeyExchange", KEY, message, R_FINISHED, ZERO_31 "\0",
            UNEXPECTED),
        OUT_OF_TURN("an unknown message for ClientKeyExchange", KEY, 99),
        ROW("ChangeCipherSpec for ClientKeyExchange", KEY, record, R_CCS, "\1", UNEXPECTED),
        ROW("data for ClientKeyExchange", KEY, record, R_DATA, "data", UNEXPECTED),
        ROW("empty data for ClientKeyExchange", KEY, record, R_DATA, "", UNEXPECTED),
        ROW("an unknown record for ClientKeyExchange", KEY, record, 24, "\1\0\0", UNEXPECTED),
        OUT_OF_TURN("a second ClientKeyExchange", CCS, R_CLIENT_KEY),
        OUT_OF_TURN("CertificateVerify without a certificate", CCS, R_CERTIFICATE_VERIFY),
        OUT_OF_TURN("Finished before ChangeCipherSpec", CCS, R_FINISHED),
        OUT_OF_TURN("HelloRequest before ChangeCipherSpec", CCS, R_HELLO_REQUEST),
        ROW("data before ChangeCipherSpec", CCS, record, R_DATA, "data", UNEXPECTED),
        OUT_OF_TURN("ClientKeyExchange for Finished", FINISHED, R_CLIENT_KEY),
        OUT_OF_TURN("HelloRequest for Finished", FINISHED, R_HELLO_REQUEST),
        ROW("a second ChangeCipherSpec", FINISHED, record, R_CCS, "\1", UNEXPECTED),
        ROW("data for Finished", FINISHED, record, R_DATA, "data", UNEXPECTED),
        OUT_OF_TURN("HelloRequest after the handshake", DATA, R_HELLO_REQUEST),
        OUT_OF_TURN("ServerHello after the handshake", DATA, R_SERVER_HELLO),
        OUT_OF_TURN("Certificate after the handshake", DATA, R_CERTIFICATE),
        OUT_OF_TURN("ClientKeyExchange after the handshake", DATA, R_CLIENT_KEY),
        OUT_OF_TURN("a second Finished", DATA, R_FINISHED),
        OUT_OF_TURN("an unknown message after the handshake", DATA, 99),
        ROW("ChangeCipherSpec after the handshake", DATA, record, R_CCS, "\1", UNEXPECTED),
        ROW("an unknown record after the handshake", DATA, record, 24, "\1\0\0", UNEXPECTED),
        ROW("ChangeCipherSpec in a message", KEY, record_in_a_message, R_CCS, "\1", UNEXPECTED),
        ROW("data in a message", KEY, record_in_a_message, R_DATA, "data", UNEXPECTED),
        ROW("ChangeCipherSpec in a message, later", CCS, record_in_a_message, R_CCS, "\1",
            UNEXPECTED),
    };
    static const row mutual_rows[] = {
        OUT_OF_TURN("ClientKeyExchange for Certificate", CERTIFICATE, R_CLIENT_KEY),
        OUT_OF_TURN("CertificateVerify for Certificate", CERTIFICATE, R_CERTIFICATE_VERIFY),
        OUT_OF_TURN("CertificateVerify behind no certificate", CCS, R_CERTIFICATE_VERIFY),
        ROW("no CertificateVerify", VERIFY, record, R_CCS, "\1", UNEXPECTED),
        OUT_OF_TURN("Certificate for CertificateVerify", VERIFY, R_CERTIFICATE),
    };
    TRY(rows, server_ctx);
    TRY(mutual_rows, mutual);
    r_no_complaints();
}

T_TEST(a_client_refuses_what_is_out_of_turn, 240) {
    static const row rows[] = {
        OUT_OF_TURN("ClientHello for ServerHello", HELLO, R_CLIENT_HELLO),
        OUT_OF_TURN("Certificate for ServerHello", HELLO, R_CERTIFICATE),
        OUT_OF_TURN("ServerHelloDone for ServerHello", HELLO, R_HELLO_DONE),
        OUT_OF_TURN("Finished for ServerHello", HELLO, R_FINISHED),
        OUT_OF_TURN("an unknown message for ServerHello", HELLO, 99),
        ROW("ChangeCipherSpec for ServerHello", HELLO, record, R_CCS, "\1", UNEXPECTED),
        ROW("data for ServerHello", HELLO, record, R_DATA, "data", UNEXPECTED),
        ROW("empty data for ServerHello", HELLO, record, R_DATA, "", UNEXPECTED),
        ROW("an unknown record for ServerHello", HELLO, record, 24, "\1\0\0", UNEXPECTED),
        OUT_OF_TURN("a second ServerHello", CERTIFICATE, R_SERVER_HELLO),
        OUT_OF_TURN("ServerKeyExchange for Certificate", CERTIFICATE, R_SERVER_KEY),
        OUT_OF_TURN("CertificateRequest for Certificate", CERTIFICATE, R_CERTIFICATE_REQUEST),
        OUT_OF_TURN("ServerHelloDone for Certificate", CERTIFICATE, R_HELLO_DONE),
        OUT_OF_TURN("NewSessionTicket for Certificate", CERTIFICATE, R_TICKET),
        OUT_OF_TURN("Finished for Certificate", CERTIFICATE, R_FINISHED),
        ROW("ChangeCipherSpec for Certificate", CERTIFICATE, record, R_CCS, "\1", UNEXPECTED),
        OUT_OF_TURN("a second Certificate", KEY, R_CERTIFICATE),
        OUT_OF_TURN("a CertificateStatus that nobody asked for", KEY, 22),
        OUT_OF_TURN("ServerHelloDone for ServerKeyExchange", KEY, R_HELLO_DONE),
        OUT_OF_TURN("CertificateRequest for ServerKeyExchange", KEY, R_CERTIFICATE_REQUEST),
        ROW("ChangeCipherSpec for ServerKeyExchange", KEY, record, R_CCS, "\1", UNEXPECTED),
        OUT_OF_TURN("a second ServerKeyExchange", DONE, R_SERVER_KEY),
        OUT_OF_TURN("Certificate for ServerHelloDone", DONE, R_CERTIFICATE),
        OUT_OF_TURN("Finished for ServerHelloDone", DONE, R_FINISHED),
        OUT_OF_TURN("ClientKeyExchange for ServerHelloDone", DONE, R_CLIENT_KEY),
        ROW("ChangeCipherSpec for ServerHelloDone", DONE, record, R_CCS, "\1", UNEXPECTED),
        OUT_OF_TURN("a NewSessionTicket that nobody asked for", CCS, R_TICKET),
        OUT_OF_TURN("a second ServerHelloDone", CCS, R_HELLO_DONE),
        OUT_OF_TURN("Finished before ChangeCipherSpec", CCS, R_FINISHED),
        ROW("data before ChangeCipherSpec", CCS, record, R_DATA, "data", UNEXPECTED),
        OUT_OF_TURN("ServerHelloDone for Finished", FINISHED, R_HELLO_DONE),
        ROW("a second ChangeCipherSpec", FINISHED, record, R_CCS, "\1", UNEXPECTED),
        ROW("data for Finished", FINISHED, record, R_DATA, "data", UNEXPECTED),
        OUT_OF_TURN("ClientHello after the handshake", DATA, R_CLIENT_HELLO),
        OUT_OF_TURN("ServerHello after the handshake", DATA, R_SERVER_HELLO),
        OUT_OF_TURN("NewSessionTicket after the handshake", DATA, R_TICKET),
        OUT_OF_TURN("a second Finished", DATA, R_FINISHED),
        OUT_OF_TURN("an unknown message after the handshake", DATA, 99),
        ROW("ChangeCipherSpec after the handshake", DATA, record, R_CCS, "\1", UNEXPECTED),
        ROW("an unknown record after the handshake", DATA, record, 24, "\1\0\0", UNEXPECTED),
        ROW("data in a message", CERTIFICATE, record_in_a_message, R_DATA, "data", UNEXPECTED),
        ROW("ChangeCipherSpec in a message", CERTIFICATE, record_in_a_message, R_CCS, "\1",
            UNEXPECTED),
        ROW("ChangeCipherSpec in a message, later", CCS, record_in_a_message, R_CCS, "\1",
            UNEXPECTED),
    };
    TRY(rows, client_ctx);
    r_no_complaints();
}

/* ---- alerts ---- */

#define ALERTS_AT(level)                                                                           \
    ROW("an empty alert, level " #level, level, record, R_ALERT, "", DECODE, UNEXPECTED),          \
        ROW("half an alert, level " #level, level, record, R_ALERT, "\1", DECODE),                 \
        ROW("an alert of three bytes, level " #level, level, record, R_ALERT, "\1\132\0", DECODE), \
        ROW("two alerts in a record, level " #level, level, record, R_ALERT, "\1\132\1\132",       \
            DECODE),                                                                               \
        ROW("an alert of level 0, level " #level, level, record, R_ALERT, "\0\132", DECODE),       \
        ROW("an alert of level 3, level " #level, level, record, R_ALERT, "\3\50", DECODE),        \
        ROW("an alert of level 255, level " #level, level, record, R_ALERT, "\377\0", DECODE)

T_TEST(malformed_alerts_are_decode_errors, 240) {
    static const row of_server[] = {ALERTS_AT(HELLO), ALERTS_AT(CERTIFICATE), ALERTS_AT(CCS),
                                    ALERTS_AT(FINISHED), ALERTS_AT(DATA)};
    static const row of_client[] = {ALERTS_AT(KEY), ALERTS_AT(FINISHED), ALERTS_AT(DATA)};
    TRY(of_server, client_ctx);
    TRY(of_client, server_ctx);
    r_no_complaints();
}

/* ---- ChangeCipherSpec, records ---- */

static void damaged_record(r_peer *p, const row *r) {
    p->out.iv[0] ^= 1;
    r_write_record(p, r->type, "damaged", 7);
}

static void record_out_of_sequence(r_peer *p, const row *r) {
    p->out.sequence++;
    r_write_record(p, r->type, "\1\132", 2);
}

/* type: the version. */
static void record_of_version(r_peer *p, const row *r) {
    p->record_version = r->type;
    r_write_record(p, R_ALERT, "\1\132", 2);
}

static unsigned char zeros[R_ROOM];

static void record_of_16385_bytes(r_peer *p, const row *r) {
    r_write_record(p, r->type, zeros, R_FRAGMENT + 1);
}

static void record_above_all_limits(r_peer *p, const row *r) {
    r_write_clear(p, r->type, zeros, R_FRAGMENT + 2049);
}

#define RECORDS_AT(level)                                                                          \
    ROW("an empty record that is not encrypted, level " #level, level, clear_record, R_HANDSHAKE,  \
        "", BAD_MAC),                                                                              \
        ROW("a record of 1 byte, level " #level, level, clear_record, R_HANDSHAKE, "1", BAD_MAC),  \
        ROW("a record of 8 bytes, level " #level, level, clear_record, R_HANDSHAKE, "12345678",    \
            BAD_MAC),                                                                              \
        ROW("a record of 23 bytes, level " #level, level, clear_record, R_HANDSHAKE,               \
            "12345678901234567890123", BAD_MAC),                                                   \
        ROW("data of 23 bytes, level " #level, level, clear_record, R_DATA,                        \
            "12345678901234567890123", BAD_MAC),                                                   \
        ROW("an alert that is not encrypted, level " #level, level, clear_record, R_ALERT, "\1\0", \
            BAD_MAC),                                                                              \
        ROW("a record that is not encrypted, level " #level, level, clear_record, R_HANDSHAKE,     \
            "\24\0\0\14verify data!verify data!", BAD_MAC),                                        \
        ROW("a damaged record, level " #level, level, damaged_record, R_HANDSHAKE, "", BAD_MAC),   \
        ROW("a record that was left out, level " #level, level, record_out_of_sequence, R_ALERT,   \
            "", BAD_MAC),                                                                          \
        ROW("a record of TLS 1.1, level " #level, level, record_of_version, 0x302, "", VERSION),   \
        ROW("a record of TLS 1.3, level " #level, level, record_of_version, 0x304, "", VERSION),   \
        ROW("a record of 16,385 bytes, level " #level, level, record_of_16385_bytes, R_HANDSHAKE,  \
            "", OVERFLOW),                                                                         \
        ROW("a record of 18,433 bytes, level " #level, level, record_above_all_limits,             \
            R_HANDSHAKE, "", OVERFLOW)

T_TEST(records_that_cannot_be_opened_are_refused, 240) {
    static const row rows[] = {
        RECORDS_AT(FINISHED),
        RECORDS_AT(DATA),
        ROW("data of 16,385 bytes", DATA, record_of_16385_bytes, R_DATA, "", OVERFLOW),
        ROW("a ChangeCipherSpec of two bytes", CCS, record, R_CCS, "\1\1", UNEXPECTED, ILLEGAL,
            DECODE),
        ROW("an empty ChangeCipherSpec", CCS, record, R_CCS, "", UNEXPECTED, ILLEGAL, DECODE),
        ROW("a ChangeCipherSpec of 2", CCS, record, R_CCS, "\2", UNEXPECTED, ILLEGAL, DECODE),
    };
    TRY(rows, client_ctx);
    TRY(rows, server_ctx);
    r_no_complaints();
}

/* ---- Finished ---- */

static void finished_with(r_peer *p, const row *r) {
    static r_bytes body;
    unsigned char data[12];
    r_verify_data(p, p->server, data);
    body.size = 0;
    r_put(&body, data, r->size ? 12 : 11);
    r_put(&body, r->data, r->size);
    r_send(p, R_FINISHED, body.data, body.size);
}

static void wrong_finished(r_peer *p, const row *r) {
    unsigned char data[12];
    r_verify_data(p, p->server, data);
    data[r->type] ^= 1;
    r_send(p, R_FINISHED, data, 12);
}

/* Finished with the other side's label: a reflection. */
static void reflected_finished(r_peer *p, const row *r) {
    unsigned char data[12];
    (void)r;
    r_verify_data(p, !p->server, data);
    r_send(p, R_FINISHED, data, 12);
}

static void finished_and(r_peer *p, const row *r) {
    static r_bytes both;
    unsigned char data[12];
    r_verify_data(p, p->server, data);
    both.size = 0;
    r_message(&both, R_FINISHED, data, 12);
    r_put(&both, r->data, r->size);
    r_write_record(p, R_HANDSHAKE, both.data, both.size);
}

T_TEST(a_finished_that_is_wrong_is_refused, 240) {
    static const row rows[] = {
        ROW("Finished of 11 bytes", FINISHED, finished_with, 0, "", DECODE),
        ROW("Finished of 13 bytes", FINISHED, finished_with, 0, "\0", DECODE),
        ROW("Finished of 36 bytes", FINISHED, finished_with, 0, "123456789012345678901234", DECODE),
        ROW("an empty Finished", FINISHED, message, R_FINISHED, "", DECODE),
        ROW("Finished with a wrong first byte", FINISHED, wrong_finished, 0, "", DECRYPT),
        ROW("Finished with a wrong last byte", FINISHED, wrong_finished, 11, "", DECRYPT),
        ROW("the Finished of the other side", FINISHED, reflected_finished, 0, "", DECRYPT),
        ROW("a byte behind Finished", FINISHED, finished_and, 0, "\0", UNEXPECTED, DECODE),
        ROW("a HelloRequest behind Finished in its record", FINISHED, finished_and, 0, "\0\0\0\0",
            UNEXPECTED, DECODE),
        ROW("half a message behind Finished in its record", FINISHED, finished_and, 0, "\1\0\1\0",
            UNEXPECTED, DECODE),
        ROW("a second Finished behind it in its record", FINISHED, finished_and, 0,
            "\24\0\0\14verify data!", UNEXPECTED, DECODE),
    };
    TRY(rows, client_ctx);
    TRY(rows, server_ctx);
    r_no_complaints();
}

/* ---- ClientKeyExchange ---- */

/* Whatever is given, before and behind an honest point. */
static void point_and(r_peer *p, const row *r) {
    static r_bytes body;
    r_make_client_key(p, &body);
    body.data[0] = (unsigned char)(body.data[0] + r->type);
    r_put(&body, r->data, r->size);
    r_send(p, R_CLIENT_KEY, body.data, body.size);
}

/* The point as it is given; more of it: type bytes of 2. */
static void point(r_peer *p, const row *r) {
    static r_bytes body;
    body.size = 0;
    r_number(&body, 1, r->size + (size_t)r->type);
    r_put(&body, r->data, r->size);
    r_fill(&body, 2, (size_t)r->type);
    r_send(p, R_CLIENT_KEY, body.data, body.size);
}

#define ORDER_8_A                                                                                  \
    "\xe0\xeb\x7a\x7c\x3b\x41\xb8\xae\x16\x56\xe3\xfa\xf1\x9f\xc4\x6a\xda\x09\x8d\xeb\x9c\x32\xb1" \
    "\xfd\x86\x62\x05\x16\x5f\x49\xb8\x00"
#define ORDER_8_B                                                                                  \
    "\x5f\x9c\x95\xbc\xa3\x50\x8c\x24\xb1\xd0\xb1\x55\x9c\x83\xef\x5b\x04\x44\x5c\xc4\x58\x1c\x8e" \
    "\x86\xd8\x22\x4e\xdd\xd0\x9f\x11\x57"
#define FF_30                                                                                      \
    "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" \
    "\xff\xff\xff\xff\xff\xff\xff"

/* RFC 7748: with these the shared secret is zero, whoever computes it. */
#define SMALL_ORDER(ROW_OF)                                                                        \
    ROW_OF("a point of zero", ZERO_31 "\0"), ROW_OF("a point of one", "\1" ZERO_31),               \
        ROW_OF("a point of order 8", ORDER_8_A), ROW_OF("another point of order 8", ORDER_8_B),    \
        ROW_OF("a point of p - 1", "\xec" FF_30 "\x7f"),                                           \
        ROW_OF("a point of p", "\xed" FF_30 "\x7f"),                                               \
        ROW_OF("a point of p + 1", "\xee" FF_30 "\x7f")

#define KEY_ROW(name, text) ROW(name, KEY, point, 0, text, ILLEGAL, FAILURE)

T_TEST(a_client_key_exchange_that_is_wrong_is_refused, 240) {
    static const row both_curves[] = {
        ROW("an empty ClientKeyExchange", KEY, message, R_CLIENT_KEY, "", DECODE),
        ROW("a point without bytes", KEY, message, R_CLIENT_KEY, "\0", DECODE, ILLEGAL),
        ROW("a byte behind the point", KEY, point_and, 0, "\0", DECODE),
        ROW("many bytes behind the point", KEY, point_and, 0, "0123456789", DECODE),
        ROW("a point that is longer than its message", KEY, point_and, 1, "", DECODE),
        ROW("a point that is shorter", KEY, point_and, -1, "", DECODE),
        ROW("a point of one byte", KEY, point, 0, "\4", ILLEGAL, DECODE),
    };
    static const row p256[] = {
        ROW("a point that is not on the curve", KEY, point, 64, "\4", ILLEGAL),
        ROW("a compressed point", KEY, point, 32, "\2", ILLEGAL),
        ROW("a hybrid point", KEY, point, 64, "\6", ILLEGAL),
        ROW("the point at infinity", KEY, point, 0, "\0", ILLEGAL, DECODE),
        ROW("a point that is too short", KEY, point, 63, "\4", ILLEGAL, DECODE),
        ROW("a point that is too long", KEY, point, 65, "\4", ILLEGAL, DECODE),
        ROW("a point of P-384's size", KEY, point, 96, "\4", ILLEGAL, DECODE),
    };
    static const row x25519[] = {
        SMALL_ORDER(KEY_ROW),
        ROW("a point of 31 bytes", KEY, point, 31, "", ILLEGAL, DECODE),
        ROW("a point of 33 bytes", KEY, point, 33, "", ILLEGAL, DECODE),
    };
    curve_offered = R_X25519;
    TRY(both_curves, server_ctx);
    TRY(x25519, server_ctx);
    curve_offered = R_P256;
    TRY(both_curves, server_ctx);
    TRY(p256, server_ctx);
    curve_offered = 0;
    r_no_complaints();
}

/* A key exchange by RSA whose secret does not decrypt must look like a record that does not (RFC
   5246, 7.4.7.1): nothing is said before Finished. */
static void secret_of_noise(r_peer *p, const row *r) {
    static r_bytes body;
    body.size = 0;
    r_number(&body, 2, (size_t)r->type);
    r_fill(&body, 3, (size_t)r->type);
    r_send(p, R_CLIENT_KEY, body.data, body.size);
    r_write_record(p, R_CCS, "\1", 1);
    r_write_clear(p, R_HANDSHAKE, zeros, 40);
}

T_TEST(a_secret_by_rsa_that_is_wrong_is_refused, 120) {
    static const row rows[] = {
        ROW("an empty ClientKeyExchange", KEY, message, R_CLIENT_KEY, "", DECODE),
        ROW("half a length", KEY, message, R_CLIENT_KEY, "\0", DECODE),
        ROW("a secret that is longer than its message", KEY, message, R_CLIENT_KEY, "\1\0secret",
            DECODE),
        ROW("a secret that is shorter", KEY, message, R_CLIENT_KEY, "\0\2secret", DECODE),
        ROW("a secret of noise", KEY, secret_of_noise, 256, "", BAD_MAC),
        ROW("a secret that is too short", KEY, secret_of_noise, 255, "", BAD_MAC, ILLEGAL, DECODE),
        ROW("a secret that is too long", KEY, secret_of_noise, 257, "", BAD_MAC, ILLEGAL, DECODE),
    };
    TRY(rows, with_rsa);
    r_no_complaints();
}

/* ---- certificates, on both sides ---- */

static void chain_and(r_peer *p, const row *r) {
    static const char *const client[] = {T_CERTS "client.pem", NULL};
    static const char *const server[] = {T_CERTS "server-ec.pem", NULL};
    static r_bytes body;
    r_write_chain(&body, p->server ? server : client);
    body.data[2] = (unsigned char)(body.data[2] + r->type); /* the list's length */
    r_put(&body, r->data, r->size);
    r_send(p, R_CERTIFICATE, body.data, body.size);
}

T_TEST(a_malformed_certificate_message_is_refused, 240) {
    static const row rows[] = {
        ROW("an empty Certificate", CERTIFICATE, message, R_CERTIFICATE, "", DECODE),
        ROW("half a length", CERTIFICATE, message, R_CERTIFICATE, "\0\0", DECODE),
        ROW("a byte behind an empty list", CERTIFICATE, message, R_CERTIFICATE, "\0\0\0\0", DECODE),
        ROW("a list that is longer than its message", CERTIFICATE, message, R_CERTIFICATE, "\0\0\1",
            DECODE),
        ROW("half a length of a certificate", CERTIFICATE, message, R_CERTIFICATE, "\0\0\2\0\0",
            DECODE),
        ROW("a certificate without bytes", CERTIFICATE, message, R_CERTIFICATE, "\0\0\3\0\0\0",
            DECODE),
        ROW("a certificate without bytes behind a good one", CERTIFICATE, chain_and, 3, "\0\0\0",
            DECODE),
        ROW("a certificate that is longer than its list", CERTIFICATE, message, R_CERTIFICATE,
            "\0\0\7\0\0\5cert", DECODE),
        ROW("a list of 16 MB", CERTIFICATE, message, R_CERTIFICATE, "\377\377\377\0\0\1x", DECODE,
            ILLEGAL, OVERFLOW),
        ROW("a certificate that is none", CERTIFICATE, message, R_CERTIFICATE, "\0\0\7\0\0\4cert",
            BAD_CERTIFICATE, DECODE),
        ROW("a byte behind the list", CERTIFICATE, chain_and, 0, "\0", DECODE),
        ROW("a list that ends in a certificate", CERTIFICATE, chain_and, -1, "", DECODE),
        ROW("a list with a byte too many", CERTIFICATE, chain_and, 1, "", DECODE),
        ROW("half a length behind the certificate", CERTIFICATE, chain_and, 2, "\0\0", DECODE),
    };
    static const row no_certificate[] = {
        ROW("no certificate", CERTIFICATE, message, R_CERTIFICATE, "\0\0\0", DECODE,
            BAD_CERTIFICATE, FAILURE, ILLEGAL),
    };
    TRY(rows, client_ctx);
    TRY(no_certificate, client_ctx);
    TRY(rows, mutual);
    r_no_complaints();
}

/* ---- CertificateVerify ---- */

static void make_verify(r_peer *p, r_bytes *body) {
    unsigned char hash[32];
    br_sha256_out(&p->transcript, hash);
    body->size = 0;
    r_sign(body, T_CERTS "client.key", hash);
}

/* type: the algorithm, or 0 for the right one. */
static void verify_and(r_peer *p, const row *r) {
    static r_bytes body;
    make_verify(p, &body);
    if (r->type) {
        body.data[0] = (unsigned char)(r->type >> 8);
        body.data[1] = (unsigned char)r->type;
    }
    r_put(&body, r->data, r->size);
    r_send(p, R_CERTIFICATE_VERIFY, body.data, body.size);
}

static void wrong_verify(r_peer *p, const row *r) {
    static r_bytes body;
    (void)r;
    br_sha256_update(&p->transcript, "x", 1);
    make_verify(p, &body);
    r_send(p, R_CERTIFICATE_VERIFY, body.data, body.size);
}

static void longer_verify(r_peer *p, const row *r) {
    static r_bytes body;
    make_verify(p, &body);
    body.data[3] = (unsigned char)(body.data[3] + r->type);
    r_send(p, R_CERTIFICATE_VERIFY, body.data, body.size);
}

T_TEST(a_certificate_verify_that_is_wrong_is_refused, 120) {
    static const row rows[] = {
        ROW("an empty CertificateVerify", VERIFY, message, R_CERTIFICATE_VERIFY, "", DECODE),
        ROW("an algorithm alone", VERIFY, message, R_CERTIFICATE_VERIFY, "\4\3", DECODE),
        ROW("half a length", VERIFY, message, R_CERTIFICATE_VERIFY, "\4\3\0", DECODE),
        ROW("a signature without bytes", VERIFY, message, R_CERTIFICATE_VERIFY, "\4\3\0\0", DECODE,
            DECRYPT),
        ROW("a byte behind the signature", VERIFY, verify_and, 0, "\0", DECODE),
        ROW("a signature that is longer than its message", VERIFY, longer_verify, 1, "", DECODE),
        ROW("a signature that is shorter", VERIFY, longer_verify, -1, "", DECODE),
        ROW("a signature of something else", VERIFY, wrong_verify, 0, "", DECRYPT),
        ROW("a signature that is none", VERIFY, message, R_CERTIFICATE_VERIFY, "\4\3\0\4sign",
            DECRYPT, DECODE),
        ROW("MD5 with RSA, which was not offered", VERIFY, verify_and, 0x0101, "", ILLEGAL),
        ROW("SHA-1 with DSA, which was not offered", VERIFY, verify_and, 0x0202, "", ILLEGAL),
        ROW("RSA-PSS, which was not offered", VERIFY, verify_and, 0x0804, "", ILLEGAL),
        ROW("Ed25519, which was not offered", VERIFY, verify_and, 0x0807, "", ILLEGAL),
        ROW("an algorithm that is none", VERIFY, verify_and, 0xffff, "", ILLEGAL),
        ROW("RSA, with a key that is none", VERIFY, verify_and, 0x0401, "", ILLEGAL, DECRYPT),
    };
    TRY(rows, mutual);
    r_no_complaints();
}

/* The control: what is right is taken. */
T_TEST(a_certificate_verify_that_is_right_is_taken, 60) {
    static r_end e;
    static r_peer p;
    static r_bytes body;
    FOR_EACH_WAY(way) {
        int came;
        r_open(&e, &p, way, mutual, NULL);
        advance(&p, VERIFY);
        make_verify(&p, &body);
        r_send(&p, R_CERTIFICATE_VERIFY, body.data, body.size);
        r_send_ccs(&p);
        r_send_finished(&p);
        came = r_read_finished(&p);
        r_close(&e, &p);
        if (came)
            r_complain(r_way_names[way], "%s came: %s", r_what(came), e.outcome.message);
    }
    r_no_complaints();
}

/* ---- ServerHello ---- */

static r_hello answer;

static void say_answer(r_peer *p) {
    r_say_hello(p, &answer);
}

typedef struct change {
    const char *name;
    void (*make)(r_hello *h);
    r_alerts alerts;
} change;

/* clang-format off */
static void is_ssl3(r_hello *h) { h->version = 0x300; }
static void is_tls10(r_hello *h) { h->version = 0x301; }
static void is_tls11(r_hello *h) { h->version = 0x302; }
static void is_tls13(r_hello *h) { h->version = 0x304; }
static void is_tls4(r_hello *h) { h->version = 0x404; }
static void has_session_of_33(r_hello *h) { h->session_size = 33; }
static void has_session_of_255(r_hello *h) { h->session_size = 255; }
static void has_rsa_suite(r_hello *h) { memcpy(h->suites, "\0\x2f", 2); }
static void has_sha1_suite(r_hello *h) { memcpy(h->suites, "\xc0\x09", 2); }
static void has_tls13_suite(r_hello *h) { memcpy(h->suites, "\x13\1", 2); }
static void has_null_suite(r_hello *h) { memcpy(h->suites, "\0\0", 2); }
static void has_scsv(r_hello *h) { memcpy(h->suites, "\0\xff", 2); }
static void is_compressed(r_hello *h) { h->compressions[0] = 1; }
static void has_tail(r_hello *h) { r_fill(&h->tail, 0, 1); }
static void has_half_a_length(r_hello *h) {
    h->no_extensions = 1;
    r_fill(&h->tail, 0, 1);
}
static void has_byte_left(r_hello *h) { r_fill(&h->extensions, 0, 1); }
static void has_three_bytes_left(r_hello *h) { r_fill(&h->extensions, 0, 3); }
static void has_long_extension(r_hello *h) { r_put(&h->extensions, "\0\13\0\3\1\0", 6); }
static void has_unknown(r_hello *h) { r_extend(h, 0x1234, NULL, 0); }
static void has_heartbeat(r_hello *h) { r_extend(h, 15, "\1", 1); }
static void has_ticket(r_hello *h) { r_extend(h, 35, NULL, 0); }
static void has_versions(r_hello *h) { r_extend(h, R_VERSIONS, "\3\4", 2); }
static void has_two_infos(r_hello *h) { r_extend(h, R_RENEGOTIATION, "\0", 1); }
static void has_two_names(r_hello *h) {
    r_extend(h, R_SERVER_NAME, NULL, 0);
    r_extend(h, R_SERVER_NAME, NULL, 0);
}
static void has_name_with_value(r_hello *h) { r_extend(h, R_SERVER_NAME, "\0\4\0\0\1a", 6); }
static void has_info_with_value(r_hello *h) {
    r_reextend(h, R_RENEGOTIATION, "\14" "123456789012", 13);
}
static void has_info_of_nothing(r_hello *h) { r_reextend(h, R_RENEGOTIATION, NULL, 0); }
/* clang-format on */
static void has_info_and_more(r_hello *h) {
    r_reextend(h, R_RENEGOTIATION, "\0\0", 2);
}
static void has_info_cut_off(r_hello *h) {
    r_reextend(h, R_RENEGOTIATION, "\3\0", 2);
}
static void has_no_uncompressed(r_hello *h) {
    r_extend(h, R_POINT_FORMATS, "\1\1", 2);
}
static void has_no_formats(r_hello *h) {
    r_extend(h, R_POINT_FORMATS, "\0", 1);
}
static void has_empty_formats(r_hello *h) {
    r_extend(h, R_POINT_FORMATS, NULL, 0);
}
static void has_formats_and_more(r_hello *h) {
    r_extend(h, R_POINT_FORMATS, "\1\0\0", 3);
}
static void has_protocol(r_hello *h) {
    r_extend(h, R_ALPN, R_TEXT("\0\3\2h2"));
}

static void try_answers(const change *rows, size_t count, pysock_ssl_context *ctx) {
    static r_end e;
    static r_peer p;
    for (size_t i = 0; i < count; i++)
        FOR_EACH_WAY(way) {
            char name[128];
            snprintf(name, sizeof name, "ServerHello: %s (by %s)", rows[i].name, r_way_names[way]);
            T_STEP("%s", name);
            r_open(&e, &p, way, ctx, "localhost");
            advance(&p, HELLO);
            r_make_server_hello(&answer);
            rows[i].make(&answer);
            say_answer(&p);
            r_check_refusal(&e, &p, name, rows[i].alerts);
        }
    r_no_complaints();
}

#define TRY_ANSWERS(rows, ctx) try_answers(rows, sizeof rows / sizeof rows[0], ctx)

T_TEST(a_server_hello_that_is_wrong_is_refused, 240) {
    static const change rows[] = {
        {"SSL 3.0", is_ssl3, R_ONE_OF(VERSION)},
        {"TLS 1.0", is_tls10, R_ONE_OF(VERSION)},
        {"TLS 1.1", is_tls11, R_ONE_OF(VERSION)},
        {"TLS 1.3", is_tls13, R_ONE_OF(VERSION)},
        {"version 4.4", is_tls4, R_ONE_OF(VERSION)},
        {"a session id of 33 bytes", has_session_of_33, R_ONE_OF(DECODE)},
        {"a session id of 255 bytes", has_session_of_255, R_ONE_OF(DECODE)},
        {"a suite with static RSA", has_rsa_suite, R_ONE_OF(ILLEGAL)},
        {"a suite with SHA-1", has_sha1_suite, R_ONE_OF(ILLEGAL)},
        {"a suite of TLS 1.3", has_tls13_suite, R_ONE_OF(ILLEGAL)},
        {"no suite", has_null_suite, R_ONE_OF(ILLEGAL)},
        {"a signal in the place of a suite", has_scsv, R_ONE_OF(ILLEGAL)},
        {"compression", is_compressed, R_ONE_OF(ILLEGAL)},
        {"a byte behind it", has_tail, R_ONE_OF(DECODE)},
        {"half a length of extensions", has_half_a_length, R_ONE_OF(DECODE)},
        {"a byte left among the extensions", has_byte_left, R_ONE_OF(DECODE)},
        {"three bytes left among the extensions", has_three_bytes_left, R_ONE_OF(DECODE)},
        {"an extension that is longer than the rest", has_long_extension, R_ONE_OF(DECODE)},
        {"an extension that nobody knows", has_unknown, R_ONE_OF(EXTENSION)},
        {"a heartbeat that was not offered", has_heartbeat, R_ONE_OF(EXTENSION)},
        {"a ticket that was not offered", has_ticket, R_ONE_OF(EXTENSION)},
        {"supported_versions, which was not offered", has_versions, R_ONE_OF(EXTENSION)},
        {"a protocol, and none was offered", has_protocol, R_ONE_OF(EXTENSION)},
        {"renegotiation_info twice", has_two_infos, R_ONE_OF(ILLEGAL, DECODE, EXTENSION)},
        {"server_name twice", has_two_names, R_ONE_OF(ILLEGAL, DECODE, EXTENSION)},
        {"server_name with a name", has_name_with_value, R_ONE_OF(DECODE, ILLEGAL)},
        {"renegotiation_info of no renegotiation", has_info_with_value, R_ONE_OF(FAILURE)},
        {"an empty renegotiation_info", has_info_of_nothing, R_ONE_OF(DECODE, FAILURE)},
        {"renegotiation_info and more", has_info_and_more, R_ONE_OF(DECODE, FAILURE)},
        {"renegotiation_info cut off", has_info_cut_off, R_ONE_OF(DECODE, FAILURE)},
        {"point formats without uncompressed", has_no_uncompressed, R_ONE_OF(ILLEGAL)},
        {"an empty list of point formats", has_no_formats, R_ONE_OF(DECODE)},
        {"an empty extension of point formats", has_empty_formats, R_ONE_OF(DECODE)},
        {"point formats and more", has_formats_and_more, R_ONE_OF(DECODE)},
    };
    TRY_ANSWERS(rows, client_ctx);
}

/* clang-format off */
static void chose_another(r_hello *h) { r_extend(h, R_ALPN, R_TEXT("\0\4\3gop")); }
static void chose_a_part(r_hello *h) { r_extend(h, R_ALPN, R_TEXT("\0\2\1h")); }
static void chose_more(r_hello *h) { r_extend(h, R_ALPN, R_TEXT("\0\5\4h2\0\0")); }
static void chose_nothing(r_hello *h) { r_extend(h, R_ALPN, R_TEXT("\0\1\0")); }
static void chose_none(r_hello *h) { r_extend(h, R_ALPN, R_TEXT("\0\0")); }
static void chose_without_a_list(r_hello *h) { r_extend(h, R_ALPN, NULL, 0); }
static void chose_half_a_length(r_hello *h) { r_extend(h, R_ALPN, R_TEXT("\0")); }
static void chose_two(r_hello *h) { r_extend(h, R_ALPN, R_TEXT("\0\14\2h2\10http/1.1")); }
static void chose_too_long(r_hello *h) { r_extend(h, R_ALPN, R_TEXT("\0\3\3h2")); }
static void chose_too_short(r_hello *h) { r_extend(h, R_ALPN, R_TEXT("\0\3\1h2")); }
static void chose_in_a_long_list(r_hello *h) { r_extend(h, R_ALPN, R_TEXT("\0\4\2h2")); }
static void chose_and_more(r_hello *h) { r_extend(h, R_ALPN, R_TEXT("\0\3\2h2\0")); }
/* clang-format on */
static void chose_twice(r_hello *h) {
    has_protocol(h);
    has_protocol(h);
}

T_TEST(a_protocol_that_was_not_offered_is_refused, 120) {
    static const change rows[] = {
        {"another protocol", chose_another, R_ONE_OF(ILLEGAL)},
        {"the beginning of one", chose_a_part, R_ONE_OF(ILLEGAL)},
        {"one with NULs behind", chose_more, R_ONE_OF(ILLEGAL)},
        {"a protocol without a name", chose_nothing, R_ONE_OF(DECODE, ILLEGAL)},
        {"an empty list of protocols", chose_none, R_ONE_OF(DECODE)},
        {"ALPN without a list", chose_without_a_list, R_ONE_OF(DECODE)},
        {"ALPN with half a length", chose_half_a_length, R_ONE_OF(DECODE)},
        {"two protocols", chose_two, R_ONE_OF(DECODE, ILLEGAL)},
        {"a name that is longer than its list", chose_too_long, R_ONE_OF(DECODE)},
        {"a name that is shorter", chose_too_short, R_ONE_OF(DECODE)},
        {"a list that is longer than its extension", chose_in_a_long_list, R_ONE_OF(DECODE)},
        {"a byte behind the list", chose_and_more, R_ONE_OF(DECODE)},
        {"ALPN twice", chose_twice, R_ONE_OF(ILLEGAL, DECODE, EXTENSION)},
    };
    TRY_ANSWERS(rows, with_alpn);
}

/* The control, and the two that are no error: an answer with and without a protocol. */
T_TEST(a_server_may_choose_a_protocol_or_none, 60) {
    static r_end e;
    static r_peer p;
    for (int choose = 0; choose < 2; choose++)
        FOR_EACH_WAY(way) {
            int came;
            r_open(&e, &p, way, with_alpn, "localhost");
            advance(&p, HELLO);
            r_make_server_hello(&answer);
            r_extend(&answer, R_POINT_FORMATS, "\1\0", 2);
            r_extend(&answer, R_SERVER_NAME, NULL, 0);
            if (choose)
                has_protocol(&answer);
            say_answer(&p);
            r_send_certificate(&p);
            r_send_server_key(&p);
            r_send_hello_done(&p);
            came = r_read_client_flight(&p);
            if (!came)
                r_finish_server(&p);
            r_close(&e, &p);
            if (came || strcmp(e.protocol, choose ? "h2" : "") != 0)
                r_complain(r_way_names[way], "%s came, the protocol is '%s': %s", r_what(came),
                           e.protocol, e.outcome.message);
        }
    r_no_complaints();
}

static void make_answer(r_peer *p, r_bytes *body) {
    r_make_server_hello(&answer);
    r_extend(&answer, R_POINT_FORMATS, "\1\0", 2);
    r_write_hello(body, &answer, 1, p->random[1]);
}

T_TEST(a_server_hello_that_ends_early_is_refused, 60) {
    try_parts("a ServerHello", client_ctx, HELLO, R_SERVER_HELLO, make_answer,
              2 + 32 + 1 + 2 + 1 /* without extensions it is whole */);
    r_no_complaints();
}

/* ---- secure renegotiation (RFC 5746) ---- */

static int finish_without_info(r_end *e, r_peer *p, int way, pysock_ssl_context *ctx) {
    int came;
    r_open(e, p, way, ctx, "localhost");
    advance(p, HELLO);
    r_make_server_hello(&answer);
    r_unextend(&answer, R_RENEGOTIATION);
    answer.no_extensions = 1;
    say_answer(p);
    r_send_certificate(p);
    r_send_server_key(p);
    r_send_hello_done(p);
    came = r_read_client_flight(p);
    if (!came)
        r_finish_server(p);
    return came;
}

T_TEST(a_server_without_renegotiation_info_is_refused, 60) {
    static r_end e;
    static r_peer p;
    FOR_EACH_WAY(way) {
        int came = finish_without_info(&e, &p, way, client_ctx);
        if (came != R_IS_ALERT || p.alert != FAILURE || p.alert_level != 2)
            r_complain(r_way_names[way], "%s came (alert %d), not handshake_failure", r_what(came),
                       p.alert);
        r_close(&e, &p);
        r_check_error(&e, r_way_names[way]);
        if (!h_contains(e.outcome.message, "renegotiation"))
            r_complain(r_way_names[way], "the message is '%s'", e.outcome.message);
    }
    r_no_complaints();
}

T_TEST(a_server_without_renegotiation_info_is_taken_by_an_option, 60) {
    static r_end e;
    static r_peer p;
    pysock_ssl_context *ctx = t_client_ctx();
    uint64_t options = pysock_ssl_get_options(ctx);
    T_EQ(options & PYSOCK_OP_LEGACY_SERVER_CONNECT, 0);
    T_OK(pysock_ssl_set_options(ctx, options | PYSOCK_OP_LEGACY_SERVER_CONNECT));
    T_CHECK(pysock_ssl_get_options(ctx) & PYSOCK_OP_LEGACY_SERVER_CONNECT);
    FOR_EACH_WAY(way) {
        int came = finish_without_info(&e, &p, way, ctx);
        if (!came)
            r_write_record(&p, R_DATA, "ping", 4);
        r_close(&e, &p);
        if (came || e.received_size != 4)
            r_complain(r_way_names[way], "%s came: %s", r_what(came), e.outcome.message);
    }
    pysock_ssl_context_release(ctx);
    r_no_complaints();
}

/* A client's second hello, where it is allowed to send one. */
static void hello_again(r_peer *p, const row *r) {
    static r_hello h;
    unsigned char info[13] = {12};
    r_make_client_hello(&h, "localhost");
    memcpy(info + 1, p->verify[0], 12);
    r_reextend(&h, R_RENEGOTIATION, info, 13);
    r_reextend(&h, r->type, r->data, r->size);
    br_sha256_init(&p->transcript);
    r_say_hello(p, &h);
}

/* The same without any renegotiation_info, or with the signal that stands for an empty one. */
static void hello_without_info(r_peer *p, const row *r) {
    static r_hello h;
    r_make_client_hello(&h, "localhost");
    r_unextend(&h, R_RENEGOTIATION);
    memcpy(h.suites + h.suites_size, r->data, r->size);
    h.suites_size += r->size;
    br_sha256_init(&p->transcript);
    r_say_hello(p, &h);
}

/* RFC 5746, 3.7; and what a first hello may not say a second one may not either. */
T_TEST(a_second_hello_is_read_as_carefully_as_the_first, 120) {
    static const row rows[] = {
        ROW("no renegotiation_info", DATA, hello_without_info, 0, "", FAILURE),
        ROW("a renegotiation_info of zeros", DATA, hello_again, R_RENEGOTIATION,
            "\14\0\0\0\0\0\0\0\0\0\0\0\0", FAILURE),
        ROW("the signal of a first hello", DATA, hello_without_info, 0, "\0\xff", FAILURE),
        ROW("an empty renegotiation_info", DATA, hello_again, R_RENEGOTIATION, "\0", FAILURE),
        ROW("an empty ALPN extension", DATA, hello_again, R_ALPN, "", DECODE),
        ROW("an empty list of protocols", DATA, hello_again, R_ALPN, "\0\0", DECODE),
        ROW("a name that is much longer than its list", DATA, hello_again, R_ALPN, "\0\3\377h2",
            DECODE),
        ROW("an empty server_name", DATA, hello_again, R_SERVER_NAME, "", DECODE),
        ROW("an empty list of curves", DATA, hello_again, R_GROUPS, "\0\0", DECODE),
        ROW("point formats without uncompressed", DATA, hello_again, R_POINT_FORMATS, "\1\1",
            ILLEGAL),
    };
    TRY(rows, renegotiating);
    r_no_complaints();
}

/* By default it is not refused as an error (RFC 5246, 7.2.2): a warning, and all goes on. */
T_TEST(a_server_declines_a_second_hello_and_goes_on, 60) {
    static const row again = ROW("a second hello", DATA, hello_again, R_MASTER_SECRET, "", 0);
    static r_end e;
    static r_peer p;
    static r_bytes body;
    FOR_EACH_WAY(way) {
        int came;
        r_open(&e, &p, way, server_ctx, NULL);
        advance(&p, DATA);
        hello_again(&p, &again);
        came = r_next(&p, &body);
        r_write_record(&p, R_DATA, "ping", 4);
        r_write_alert(&p, 1, PYSOCK_ALERT_CLOSE_NOTIFY);
        r_close(&e, &p);
        if (came != R_IS_ALERT || p.warnings < 1 || e.received_size != 4)
            r_complain(r_way_names[way], "%s came, %zu bytes of data: %s", r_what(came),
                       e.received_size, e.outcome.message);
    }
    r_no_complaints();
}

/* ---- ServerKeyExchange ---- */

/* type: the curve; the point as it is given, or an honest one, and a good signature. The client may
   look at the point when it comes, or when it computes, which is behind ServerHelloDone. */
static void server_key(r_peer *p, const row *r) {
    static r_bytes body;
    r_make_key(p);
    if (r->size)
        r_write_server_key(p, &body, r->type, r->data, r->size);
    else
        r_write_server_key(p, &body, r->type, p->point, p->point_size);
    r_send(p, R_SERVER_KEY, body.data, body.size);
    r_send_hello_done(p);
}

/* P-256, with so many bytes of 2 behind the first. */
static void server_point(r_peer *p, const row *r) {
    static r_bytes body, bytes;
    bytes.size = 0;
    r_put(&bytes, r->data, r->size);
    r_fill(&bytes, 2, (size_t)r->type);
    r_write_server_key(p, &body, R_P256, bytes.data, bytes.size);
    r_send(p, R_SERVER_KEY, body.data, body.size);
    r_send_hello_done(p);
}

static size_t signature_at(const r_bytes *body) {
    return 4 + (size_t)body->data[3];
}

/* An honest one, whose algorithm is changed to type. */
static void server_key_of_algorithm(r_peer *p, const row *r) {
    static r_bytes body;
    r_make_server_key(p, &body);
    body.data[signature_at(&body)] = (unsigned char)(r->type >> 8);
    body.data[signature_at(&body) + 1] = (unsigned char)r->type;
    r_send(p, R_SERVER_KEY, body.data, body.size);
}

/* An honest one, with bytes behind. */
static void server_key_and(r_peer *p, const row *r) {
    static r_bytes body;
    r_make_server_key(p, &body);
    r_put(&body, r->data, r->size);
    r_send(p, R_SERVER_KEY, body.data, body.size);
}

/* The signature's length is off by type. */
static void server_key_off_by(r_peer *p, const row *r) {
    static r_bytes body;
    unsigned char *length;
    r_make_server_key(p, &body);
    length = body.data + signature_at(&body) + 3;
    *length = (unsigned char)(*length + r->type);
    r_send(p, R_SERVER_KEY, body.data, body.size);
}

/* The byte at type is another. */
static void server_key_changed_at(r_peer *p, const row *r) {
    static r_bytes body;
    r_make_server_key(p, &body);
    body.data[r->type] = (unsigned char)(body.data[r->type] ^ 1);
    r_send(p, R_SERVER_KEY, body.data, body.size);
}

static void server_key_of_zero_signature(r_peer *p, const row *r) {
    static r_bytes body;
    r_make_server_key(p, &body);
    body.size = signature_at(&body) + 2;
    r_put(&body, r->data, r->size);
    r_send(p, R_SERVER_KEY, body.data, body.size);
}

#define SERVER_KEY_ROW(name, text) ROW(name, KEY, server_key, R_X25519, text, ILLEGAL, FAILURE)

T_TEST(a_server_key_exchange_that_is_wrong_is_refused, 240) {
    static const row rows[] = {
        SMALL_ORDER(SERVER_KEY_ROW),
        ROW("X448, which was not offered", KEY, server_key, 30, "", ILLEGAL),
        ROW("secp224r1, which was not offered", KEY, server_key, 21, "", ILLEGAL),
        ROW("a curve that is none", KEY, server_key, 0, "", ILLEGAL),
        ROW("ffdhe2048, which is no curve", KEY, server_key, 256, "", ILLEGAL),
        ROW("an explicit curve", KEY, message, R_SERVER_KEY, "\1\0\35\4abcd", ILLEGAL, FAILURE),
        ROW("a kind of curve that is none", KEY, message, R_SERVER_KEY, "\0\0\35\4abcd", ILLEGAL,
            FAILURE, DECODE),
        ROW("an empty ServerKeyExchange", KEY, message, R_SERVER_KEY, "", DECODE),
        ROW("a point without bytes", KEY, server_point, 0, "", DECODE, ILLEGAL),
        ROW("a point that is not on the curve", KEY, server_point, 64, "\4", ILLEGAL),
        ROW("a compressed point", KEY, server_point, 32, "\2", ILLEGAL),
        ROW("the point at infinity", KEY, server_point, 0, "\0", ILLEGAL, DECODE),
        ROW("a point that is too short", KEY, server_point, 63, "\4", ILLEGAL, DECODE),
        ROW("a point that is too long", KEY, server_point, 65, "\4", ILLEGAL, DECODE),
        ROW("X25519 of 31 bytes", KEY, server_key, R_X25519, "1234567890123456789012345678901",
            ILLEGAL, DECODE),
        ROW("X25519 of 33 bytes", KEY, server_key, R_X25519, "123456789012345678901234567890123",
            ILLEGAL, DECODE),
        ROW("MD5 with RSA, which was not offered", KEY, server_key_of_algorithm, 0x0101, "",
            ILLEGAL),
        ROW("SHA-1 with DSA, which was not offered", KEY, server_key_of_algorithm, 0x0202, "",
            ILLEGAL),
        ROW("RSA-PSS, which was not offered", KEY, server_key_of_algorithm, 0x0804, "", ILLEGAL),
        ROW("an algorithm that is none", KEY, server_key_of_algorithm, 0xffff, "", ILLEGAL),
        ROW("RSA, with a key that is none", KEY, server_key_of_algorithm, 0x0401, "", ILLEGAL),
        ROW("a byte behind the signature", KEY, server_key_and, 0, "\0", DECODE),
        ROW("many bytes behind the signature", KEY, server_key_and, 0, "0123456789", DECODE),
        ROW("a signature that is longer than its message", KEY, server_key_off_by, 1, "", DECODE),
        ROW("a signature that is shorter", KEY, server_key_off_by, -1, "", DECODE),
        ROW("a signature of another point", KEY, server_key_changed_at, 10, "", DECRYPT),
        ROW("a signature without bytes", KEY, server_key_of_zero_signature, 0, "\0\0", DECRYPT,
            DECODE),
        ROW("a signature that is none", KEY, server_key_of_zero_signature, 0, "\0\4sign", DECRYPT,
            DECODE),
    };
    TRY(rows, client_ctx);
    r_no_complaints();
}

T_TEST(a_server_key_exchange_that_ends_early_is_refused, 60) {
    try_parts("a ServerKeyExchange", client_ctx, KEY, R_SERVER_KEY, r_make_server_key, SIZE_MAX);
    r_no_complaints();
}

/* ---- CertificateRequest, ServerHelloDone ---- */

#define CR(name, text, ...) ROW(name, REQUEST, message, R_CERTIFICATE_REQUEST, text, __VA_ARGS__)

static void two_requests(r_peer *p, const row *r) {
    message(p, r);
    message(p, r);
}

T_TEST(a_malformed_certificate_request_is_refused, 120) {
    static const row rows[] = {
        CR("an empty CertificateRequest", "", DECODE),
        CR("no types", "\0\0\2\4\3\0\0", DECODE),
        CR("types that are longer than their message", "\377\100", DECODE),
        CR("no algorithms", "\1\100\0\0\0\0", DECODE),
        CR("half an algorithm", "\1\100\0\3\4\3\4\0\0", DECODE),
        CR("algorithms that are longer than their message", "\1\100\0\10\4\3", DECODE),
        CR("no length of names", "\1\100\0\2\4\3", DECODE),
        CR("half a length of names", "\1\100\0\2\4\3\0", DECODE),
        CR("names that are longer than their message", "\1\100\0\2\4\3\0\4\0\1", DECODE),
        CR("a name that is longer than its list", "\1\100\0\2\4\3\0\4\0\3ab", DECODE),
        CR("a name without bytes", "\1\100\0\2\4\3\0\2\0\0", DECODE),
        CR("half a length of a name", "\1\100\0\2\4\3\0\1\0", DECODE),
        CR("a byte behind it", "\1\100\0\2\4\3\0\0\0", DECODE),
        ROW("a second CertificateRequest", REQUEST, two_requests, R_CERTIFICATE_REQUEST,
            "\1\100\0\2\4\3\0\0", UNEXPECTED),
        ROW("ServerHelloDone with a byte", DONE, message, R_HELLO_DONE, "\0", DECODE),
        ROW("ServerHelloDone with many", DONE, message, R_HELLO_DONE, "0123456789", DECODE),
    };
    TRY(rows, client_ctx);
    r_no_complaints();
}

/* ---- HelloRequest ---- */

/* A handshake with a HelloRequest before each of the server's messages. 0, or what came. */
static int serve_with_requests(r_peer *p, int at) {
    int came = r_read_client_hello(p);
    if (came)
        return came;
#define MAYBE(place)                                                                               \
    if (at == (place) || at < 0)                                                                   \
    r_send(p, R_HELLO_REQUEST, NULL, 0)
    MAYBE(0);
    r_send_server_hello(p);
    MAYBE(1);
    r_send_certificate(p);
    MAYBE(2);
    r_send_server_key(p);
    MAYBE(3);
    r_send_hello_done(p);
    MAYBE(4);
#undef MAYBE
    came = r_read_client_flight(p);
    if (!came)
        r_finish_server(p);
    return came;
}

/* RFC 5246, 7.4.1.1: ignored while a handshake goes on, and in no hash. */
T_TEST(a_client_ignores_a_hello_request_in_its_handshake, 120) {
    static r_end e;
    static r_peer p;
    for (int at = -1; at < 5; at++)
        FOR_EACH_WAY(way) {
            char name[64];
            int came;
            snprintf(name, sizeof name, "at %d (by %s)", at, r_way_names[way]);
            T_STEP("%s", name);
            r_open(&e, &p, way, client_ctx, "localhost");
            came = serve_with_requests(&p, at);
            if (!came)
                r_write_record(&p, R_DATA, "ping", 4);
            r_close(&e, &p);
            if (came || e.received_size != 4)
                r_complain(name, "%s came, alert %d: %s", r_what(came), p.alert, e.outcome.message);
        }
    r_no_complaints();
}

/* In one record with what is next to it, or in two. */
T_TEST(a_hello_request_may_share_its_record_or_be_split, 60) {
    static r_end e;
    static r_peer p;
    static r_bytes body, both;
    static r_hello h;
    for (int split = 0; split < 2; split++)
        FOR_EACH_WAY(way) {
            int came;
            r_open(&e, &p, way, client_ctx, "localhost");
            advance(&p, HELLO);
            r_make_server_hello(&h);
            r_write_hello(&body, &h, 1, p.random[1]);
            both.size = 0;
            r_message(&both, R_SERVER_HELLO, body.data, body.size);
            br_sha256_update(&p.transcript, both.data, both.size);
            if (split) {
                r_write_record(&p, R_HANDSHAKE, "\0\0", 2);
                r_write_record(&p, R_HANDSHAKE, "\0\0", 2);
            }
            r_message(&both, R_HELLO_REQUEST, NULL, 0);
            r_write_record(&p, R_HANDSHAKE, both.data, both.size);
            r_send_certificate(&p);
            r_send_server_key(&p);
            r_send_hello_done(&p);
            came = r_read_client_flight(&p);
            if (!came)
                r_finish_server(&p);
            r_close(&e, &p);
            if (came)
                r_complain(r_way_names[way], "%s came, alert %d: %s", r_what(came), p.alert,
                           e.outcome.message);
        }
    r_no_complaints();
}

T_TEST(a_hello_request_with_contents_is_a_decode_error, 60) {
    static const row rows[] = {
        ROW("HelloRequest with a byte, first", HELLO, message, R_HELLO_REQUEST, "\0", DECODE),
        ROW("HelloRequest with a byte, in the middle", KEY, message, R_HELLO_REQUEST, "\0", DECODE),
        ROW("HelloRequest with a byte, at the end", CCS, message, R_HELLO_REQUEST, "\0", DECODE),
        ROW("HelloRequest with a byte, after the handshake", DATA, message, R_HELLO_REQUEST, "\0",
            DECODE),
        ROW("HelloRequest with many, after the handshake", DATA, message, R_HELLO_REQUEST,
            "0123456789", DECODE),
    };
    TRY(rows, client_ctx);
    r_no_complaints();
}

T_MAIN(.setup = set_up, .teardown = tear_down)
