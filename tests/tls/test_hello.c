/* What a client says first. A server's sni_callback is asked about every ClientHello that the
   server goes on with, however it comes; every other is refused, with the alert that RFC 5246,
   5746, 6066, 7301 or 8422 names. Nothing reaches the engine unseen. */
#include "support/contexts.h"

#include "support/rawtls.h"

/* What the refusing callback answers; no parser would. */
#define CALLBACKS_ALERT PYSOCK_ALERT_ACCESS_DENIED

enum {
    DECODE = PYSOCK_ALERT_DECODE_ERROR,
    ILLEGAL = PYSOCK_ALERT_ILLEGAL_PARAMETER,
    UNEXPECTED = PYSOCK_ALERT_UNEXPECTED_MESSAGE,
    FAILURE = PYSOCK_ALERT_HANDSHAKE_FAILURE,
    VERSION = PYSOCK_ALERT_PROTOCOL_VERSION,
    OVERFLOW = PYSOCK_ALERT_RECORD_OVERFLOW,
    NAME = PYSOCK_ALERT_UNRECOGNIZED_NAME
};

static pysock_ssl_context *refusing, *accepting, *with_alpn;

/* ---- the callback ---- */

typedef struct asked {
    int times, answer; /* atomic */
    char name[256];    /* "" for none */
} asked;

static asked asks;

static int answer_for(void *arg, const pysock_ssl_client_hello *hello) {
    snprintf(asks.name, sizeof asks.name, "%s", hello->server_name ? hello->server_name : "");
    __atomic_add_fetch(&asks.times, 1, __ATOMIC_SEQ_CST);
    return *(int *)arg;
}

static int times_asked(void) {
    return __atomic_exchange_n(&asks.times, 0, __ATOMIC_SEQ_CST);
}

static pysock_ssl_context *server_that(int *answer) {
    pysock_ssl_context *ctx = t_server_ctx();
    T_OK(pysock_ssl_set_sni_callback(ctx, answer_for, answer));
    return ctx;
}

static int set_up(void **state) {
    static const char *const names[] = {"h2", "http/1.1"};
    static int no = CALLBACKS_ALERT, yes = 0;
    make_contexts(state);
    refusing = server_that(&no);
    with_alpn = server_that(&no);
    T_OK(pysock_ssl_set_alpn_protocols(with_alpn, names, 2));
    accepting = server_that(&yes);
    return 0;
}

static int tear_down(void **state) {
    pysock_ssl_context_release(refusing);
    pysock_ssl_context_release(with_alpn);
    pysock_ssl_context_release(accepting);
    return free_contexts(state);
}

/* ---- hellos in any form ---- */

/* Sends the message in fragments of so many bytes. */
static void say_in_fragments(r_peer *p, const r_hello *h, size_t fragment) {
    static r_bytes body, message;
    message.size = 0;
    r_write_hello(&body, h, 0, p->random[0]);
    r_message(&message, R_CLIENT_HELLO, body.data, body.size);
    br_sha256_update(&p->transcript, message.data, message.size);
    for (size_t done = 0; done < message.size;) {
        size_t n = message.size - done < fragment ? message.size - done : fragment;
        r_write_record(p, R_HANDSHAKE, message.data + done, n);
        done += n;
    }
}

static const char *row_name(const char *name, int way) {
    static char text[256];
    snprintf(text, sizeof text, "%s (by %s)", name, r_way_names[way]);
    return text;
}

/* The server was asked so often; T_ANY: it does not matter. */
static void check_asked(const char *row, int want) {
    int have = times_asked();
    if (want != T_ANY && have != want)
        r_complain(row, "the sni_callback was asked %d times, not %d", have, want);
}

/* ---- shapes that must be asked about ---- */

typedef struct shape {
    const char *name;
    void (*before)(r_peer *p);
    void (*change)(r_hello *h);
    size_t fragment; /* 0: as large as they come */
} shape;

static r_hello hello; /* of the row; too large for a stack with others like it */

static void warn_once(r_peer *p) {
    r_write_alert(p, 1, PYSOCK_ALERT_USER_CANCELLED);
}

static void warn_five_times(r_peer *p) {
    for (int i = 0; i < 5; i++)
        warn_once(p);
}

static void send_empty_records(r_peer *p, int n) {
    for (int i = 0; i < n; i++)
        r_write_record(p, R_HANDSHAKE, NULL, 0);
}

static void one_empty_record(r_peer *p) {
    send_empty_records(p, 1);
}

static void empty_records_up_to_the_limit(r_peer *p) {
    send_empty_records(p, 32);
}

static void records_say_ssl3(r_peer *p) {
    p->record_version = 0x300;
}

static void records_say_tls10(r_peer *p) {
    p->record_version = 0x301;
}

static void records_say_more(r_peer *p) {
    p->record_version = 0x3ff;
}

static void no_extensions(r_hello *h) {
    h->no_extensions = 1;
}

static void empty_extensions(r_hello *h) {
    h->extensions.size = 0;
}

static void no_name(r_hello *h) {
    r_unextend(h, R_SERVER_NAME);
}

static void offers_tls13(r_hello *h) {
    r_extend(h, R_VERSIONS, R_TEXT("\6\x7f\x1c\3\4\3\3"));
}

static void is_of_version_304(r_hello *h) {
    h->version = 0x304;
}

static void is_of_version_3ff(r_hello *h) {
    h->version = 0x3ff;
}

static void is_of_version_400(r_hello *h) {
    h->version = 0x400;
}

static void has_a_session(r_hello *h) {
    h->session_size = 32;
    memset(h->session, 7, 32);
}

static void has_unknown_extensions(r_hello *h) {
    r_extend(h, 0x0a0a, NULL, 0);
    r_extend(h, 0xfafa, "\0", 1);
    r_extend(h, R_MASTER_SECRET, NULL, 0);
    r_extend(h, 22, NULL, 0); /* encrypt_then_mac */
    r_extend(h, 35, "ticket", 6);
}

static void has_many_suites(r_hello *h) {
    h->suites_size = 254;
    memset(h->suites, 0x7a, 252);
    memcpy(h->suites + 252, "\xc0\x2b", 2);
}

static void has_more_compressions(r_hello *h) {
    memcpy(h->compressions, "\1\0", 2);
    h->compressions_size = 2;
}

static void offers_protocols(r_hello *h) {
    r_extend(h, R_ALPN, R_TEXT("\0\14\2h2\10http/1.1"));
}

static void offers_other_protocols(r_hello *h) {
    r_extend(h, R_ALPN, R_TEXT("\0\4\3gop"));
}

static void has_more_point_formats(r_hello *h) {
    r_reextend(h, R_POINT_FORMATS, R_TEXT("\3\1\2\0"));
}

/* 60 KB of padding (RFC 7685). */
static void is_large(r_hello *h) {
    static unsigned char zeros[60000];
    r_extend(h, 21, zeros, sizeof zeros);
}

static const shape good_shapes[] = {
    {"a plain hello", NULL, NULL, 0},
    {"a warning alert first", warn_once, NULL, 0},
    {"five warning alerts first", warn_five_times, NULL, 0},
    {"an empty record first", one_empty_record, NULL, 0},
    {"32 empty records first", empty_records_up_to_the_limit, NULL, 0},
    {"records of SSL 3.0's version", records_say_ssl3, NULL, 0},
    {"records of TLS 1.0's version", records_say_tls10, NULL, 0},
    {"records of a later version", records_say_more, NULL, 0},
    {"no extensions at all", NULL, no_extensions, 0},
    {"an empty list of extensions", NULL, empty_extensions, 0},
    {"no server_name", NULL, no_name, 0},
    {"supported_versions with 1.3 and 1.2", NULL, offers_tls13, 0},
    {"version 3.4", NULL, is_of_version_304, 0},
    {"version 3.255", NULL, is_of_version_3ff, 0},
    {"version 4.0", NULL, is_of_version_400, 0},
    {"an unknown session", NULL, has_a_session, 0},
    {"unknown extensions", NULL, has_unknown_extensions, 0},
    {"127 suites", NULL, has_many_suites, 0},
    {"two compression methods", NULL, has_more_compressions, 0},
    {"protocols", NULL, offers_protocols, 0},
    {"protocols of others", NULL, offers_other_protocols, 0},
    {"three point formats", NULL, has_more_point_formats, 0},
    {"records of one byte", NULL, NULL, 1},
    {"records of three bytes", NULL, NULL, 3},
    {"a record that holds the message's header alone", NULL, NULL, 4},
    {"five warnings, and records of one byte", warn_five_times, NULL, 1},
    {"60 KB", NULL, is_large, 0},
    {"60 KB, in records of 100 bytes", NULL, is_large, 100},
};
#define GOOD_SHAPES (sizeof good_shapes / sizeof good_shapes[0])

static void say_shape(r_peer *p, const shape *sh) {
    r_make_client_hello(&hello, "a.example");
    if (sh->change)
        sh->change(&hello);
    if (sh->before)
        sh->before(p);
    say_in_fragments(p, &hello, sh->fragment ? sh->fragment : R_FRAGMENT);
    p->record_version = 0x303;
}

static void refuse_shape(pysock_ssl_context *ctx, const shape *sh, int way) {
    static r_end e;
    static r_peer p;
    const char *row = row_name(sh->name, way);
    int before = r_complaints;
    int named = sh->change != no_extensions && sh->change != empty_extensions &&
                sh->change != no_name;
    T_STEP("%s", row);
    r_open(&e, &p, way, ctx, NULL);
    say_shape(&p, sh);
    r_check_refusal(&e, &p, row, R_ALERTS(CALLBACKS_ALERT));
    check_asked(row, 1);
    if (r_complaints == before && strcmp(asks.name, named ? "a.example" : "") != 0)
        r_complain(row, "the sni_callback was told the name '%s'", asks.name);
}

T_TEST(the_callback_is_asked_about_every_shape_of_hello, 240) {
    for (size_t i = 0; i < GOOD_SHAPES; i++)
        FOR_EACH_WAY(way) {
            asks.name[0] = 0;
            refuse_shape(refusing, &good_shapes[i], way);
        }
    r_no_complaints();
}

T_TEST(the_callback_is_asked_where_the_server_has_protocols, 120) {
    for (size_t i = 0; i < GOOD_SHAPES; i++) {
        asks.name[0] = 0;
        refuse_shape(with_alpn, &good_shapes[i], R_BY_BIO);
    }
    r_no_complaints();
}

/* What the callback lets in gets a handshake, whatever its shape: the bytes that were held back are
   all there, once, and in order. */
T_TEST(what_the_callback_lets_in_gets_a_handshake, 240) {
    static r_end e;
    static r_peer p;
    for (size_t i = 0; i < GOOD_SHAPES; i++)
        FOR_EACH_WAY(way) {
            const shape *sh = &good_shapes[i];
            const char *row = row_name(sh->name, way);
            int came;
            if (sh->change == no_extensions || sh->change == empty_extensions)
                continue; /* signed with SHA-1, if at all */
            T_STEP("%s", row);
            r_open(&e, &p, way, accepting, NULL);
            say_shape(&p, sh);
            came = r_read_server_flight(&p);
            if (!came)
                came = r_finish_client(&p);
            if (came)
                r_complain(row, "the handshake failed: %s came, alert %d", r_what(came), p.alert);
            else
                r_write_record(&p, R_DATA, "hello", 5);
            if (!came)
                r_write_alert(&p, 1, PYSOCK_ALERT_CLOSE_NOTIFY);
            r_close(&e, &p);
            check_asked(row, 1);
            if (!came && (e.received_size != 5 || memcmp(e.received, "hello", 5) != 0))
                r_complain(row, "%zu bytes were received, not 'hello' (%s)", e.received_size,
                           e.outcome.message);
        }
    r_no_complaints();
}

/* ---- what is refused before anybody is asked ---- */

typedef struct bad {
    const char *name;
    int extension; /* that is put in the place of a good one */
    const void *data;
    size_t size;
    r_alerts alerts;
} bad;

/* clang-format off */
#define B(name, extension, text, ...)                                                              \
    { name, extension, text, sizeof(text) - 1, R_ONE_OF(__VA_ARGS__) }
/* clang-format on */

/* Sends the hello; it must be refused. What cannot be read is refused without a question; about
   what depends on the context the callback may be asked. */
static void must_be_refused(pysock_ssl_context *ctx, const char *name, r_alerts alerts, int way) {
    static r_end e;
    static r_peer p;
    const char *row = row_name(name, way);
    int may_ask = !r_is_one_of(alerts, DECODE), before = r_complaints;
    if (may_ask && ctx == refusing)
        ctx = accepting;
    else if (may_ask)
        ctx = server_ctx;
    T_STEP("%s", row);
    r_open(&e, &p, way, ctx, NULL);
    say_in_fragments(&p, &hello, R_FRAGMENT);
    r_check_refusal(&e, &p, row, alerts);
    if (r_complaints == before)
        check_asked(row, may_ask ? T_ANY : 0);
    times_asked();
    if (r_complaints == before && h_contains(e.outcome.reason, "CALLBACK"))
        r_complain(row, "the reason is '%s'", e.outcome.reason);
}

/* The same with and without a callback, and in each way. */
static void must_be_refused_by_all(const char *name, r_alerts alerts) {
    pysock_ssl_context *ctx[R_WAYS] = {refusing, server_ctx, with_alpn};
    FOR_EACH_WAY(way)
        must_be_refused(ctx[way], name, alerts, way);
}

static void try_bad_extensions(const bad *rows, size_t count) {
    for (size_t i = 0; i < count; i++) {
        r_make_client_hello(&hello, "a.example");
        r_reextend(&hello, rows[i].extension, rows[i].data, rows[i].size);
        must_be_refused_by_all(rows[i].name, rows[i].alerts);
    }
    r_no_complaints();
}

#define TRY(rows) try_bad_extensions(rows, sizeof rows / sizeof rows[0])

T_TEST(a_malformed_server_name_is_refused, 120) {
    static const bad rows[] = {
        B("an empty server_name extension", R_SERVER_NAME, "", DECODE),
        B("half a length", R_SERVER_NAME, "\0", DECODE),
        B("an empty list of names", R_SERVER_NAME, "\0\0", DECODE),
        B("an empty name", R_SERVER_NAME, "\0\3\0\0\0", DECODE),
        B("a list that is longer than its extension", R_SERVER_NAME, "\0\11\0\0\4name", DECODE),
        B("a list that is shorter", R_SERVER_NAME, "\0\6\0\0\4name", DECODE),
        B("a name that is longer than its list", R_SERVER_NAME, "\0\7\0\0\5name", DECODE),
        B("a name that is shorter", R_SERVER_NAME, "\0\7\0\0\3name", DECODE),
        B("bytes behind the list", R_SERVER_NAME, "\0\7\0\0\4name\0", DECODE),
        B("an entry without a length", R_SERVER_NAME, "\0\10\0\0\4name\0", DECODE),
        B("two names", R_SERVER_NAME, "\0\16\0\0\4name\0\0\4else", ILLEGAL, DECODE),
        B("the same name twice", R_SERVER_NAME, "\0\16\0\0\4name\0\0\4name", ILLEGAL, DECODE),
        B("a NUL inside a name", R_SERVER_NAME, "\0\12\0\0\7a\0.test", ILLEGAL, DECODE, NAME),
        B("a NUL behind a name", R_SERVER_NAME, "\0\10\0\0\5name\0", ILLEGAL, DECODE, NAME),
        B("a NUL alone", R_SERVER_NAME, "\0\4\0\0\1\0", ILLEGAL, DECODE, NAME),
    };
    TRY(rows);
}

T_TEST(a_server_name_that_is_too_long_is_refused, 120) {
    static const size_t sizes[] = {256, 257, 1000, 16000, 60000};
    static char name[60000];
    memset(name, 'n', sizeof name);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char row[64];
        snprintf(row, sizeof row, "a name of %zu bytes", sizes[i]);
        r_make_client_hello(&hello, NULL);
        r_extend_name(&hello, name, sizes[i]);
        must_be_refused_by_all(row, R_ALERTS(ILLEGAL, DECODE, NAME));
    }
    r_no_complaints();
}

T_TEST(a_malformed_list_of_protocols_is_refused, 120) {
    static const bad rows[] = {
        B("an empty ALPN extension", R_ALPN, "", DECODE),
        B("half a length", R_ALPN, "\0", DECODE),
        B("an empty list", R_ALPN, "\0\0", DECODE),
        B("an empty name", R_ALPN, "\0\1\0", DECODE, ILLEGAL),
        B("an empty name behind a good one", R_ALPN, "\0\4\2h2\0", DECODE, ILLEGAL),
        B("an empty name before a good one", R_ALPN, "\0\4\0\2h2", DECODE, ILLEGAL),
        B("a list that is longer than its extension", R_ALPN, "\0\4\2h2", DECODE),
        B("a list that is shorter", R_ALPN, "\0\2\2h2", DECODE),
        B("a name that is longer than its list", R_ALPN, "\0\3\3h2", DECODE),
        B("a name that is shorter", R_ALPN, "\0\3\1h2", DECODE),
        B("a name that is much longer than its list", R_ALPN, "\0\3\377h2", DECODE),
        B("bytes behind the list", R_ALPN, "\0\3\2h2\0", DECODE),
    };
    TRY(rows);
}

T_TEST(a_malformed_list_of_point_formats_is_refused, 60) {
    static const bad rows[] = {
        B("an empty extension", R_POINT_FORMATS, "", DECODE),
        B("an empty list", R_POINT_FORMATS, "\0", DECODE),
        B("a list that is longer than its extension", R_POINT_FORMATS, "\2\0", DECODE),
        B("a list that is shorter", R_POINT_FORMATS, "\1\0\1", DECODE),
        B("without uncompressed", R_POINT_FORMATS, "\1\1", ILLEGAL),
        B("both compressed kinds, but not uncompressed", R_POINT_FORMATS, "\2\1\2", ILLEGAL),
    };
    TRY(rows);
}

T_TEST(a_malformed_list_of_curves_is_refused, 60) {
    static const bad rows[] = {
        B("an empty extension", R_GROUPS, "", DECODE),
        B("half a length", R_GROUPS, "\0", DECODE),
        B("an empty list", R_GROUPS, "\0\0", DECODE),
        B("an odd list", R_GROUPS, "\0\3\0\27\0", DECODE),
        B("a list that is longer than its extension", R_GROUPS, "\0\4\0\27", DECODE),
        B("a list that is shorter", R_GROUPS, "\0\2\0\27\0\35", DECODE),
        B("half a curve behind", R_GROUPS, "\0\2\0\27\0", DECODE),
    };
    TRY(rows);
}

T_TEST(a_malformed_list_of_signature_algorithms_is_refused, 60) {
    static const bad rows[] = {
        B("an empty extension", R_SIGNATURES, "", DECODE),
        B("half a length", R_SIGNATURES, "\0", DECODE),
        B("an empty list", R_SIGNATURES, "\0\0", DECODE),
        B("an odd list", R_SIGNATURES, "\0\3\4\3\4", DECODE),
        B("a list that is longer than its extension", R_SIGNATURES, "\0\4\4\3", DECODE),
        B("a list that is shorter", R_SIGNATURES, "\0\2\4\3\4\1", DECODE),
    };
    TRY(rows);
}

T_TEST(a_malformed_list_of_versions_is_refused, 60) {
    static const bad rows[] = {
        B("an empty extension", R_VERSIONS, "", DECODE),
        B("an empty list", R_VERSIONS, "\0", DECODE),
        B("an odd list", R_VERSIONS, "\3\3\3\3", DECODE),
        B("a list that is longer than its extension", R_VERSIONS, "\4\3\3", DECODE),
        B("a list that is shorter", R_VERSIONS, "\2\3\3\3\4", DECODE),
        B("TLS 1.3 alone", R_VERSIONS, "\2\3\4", VERSION),
        B("versions of the future", R_VERSIONS, "\4\3\5\4\0", VERSION),
        B("TLS 1.1 alone, which is not spoken here", R_VERSIONS, "\2\3\2", VERSION),
    };
    TRY(rows);
}

T_TEST(other_malformed_extensions_are_refused, 60) {
    static const bad rows[] = {
        B("renegotiation_info in a first hello", R_RENEGOTIATION,
          "\14"
          "123456789012",
          FAILURE),
        B("an empty renegotiation_info", R_RENEGOTIATION, "", DECODE, FAILURE),
        B("renegotiation_info with bytes behind", R_RENEGOTIATION, "\0\0", DECODE, FAILURE),
        B("renegotiation_info that is cut off", R_RENEGOTIATION,
          "\14"
          "123",
          DECODE, FAILURE),
        B("a maximum fragment length of no size", R_MAX_FRAGMENT, "\5", ILLEGAL),
        B("a maximum fragment length of 0", R_MAX_FRAGMENT, "\0", ILLEGAL),
        B("an empty maximum fragment length", R_MAX_FRAGMENT, "", DECODE),
        B("a maximum fragment length with bytes behind", R_MAX_FRAGMENT, "\1\1", DECODE),
    };
    TRY(rows);
}

/* RFC 5246, 7.4.1.4: at most one of each type; also of those that nobody here knows. */
T_TEST(an_extension_that_comes_twice_is_refused, 120) {
    static const struct {
        int type;
        const char *data;
        size_t size;
    } rows[] = {
        {R_SERVER_NAME, "\0\14\0\0\11b.example", 14},
        {R_MAX_FRAGMENT, "\4", 1},
        {R_GROUPS, "\0\4\0\35\0\27", 6},
        {R_POINT_FORMATS, "\1\0", 2},
        {R_SIGNATURES, "\0\4\4\3\4\1", 6},
        {R_ALPN, "\0\3\2h2", 5},
        {R_MASTER_SECRET, "", 0},
        {R_VERSIONS, "\2\3\3", 3},
        {R_RENEGOTIATION, "\0", 1},
        {0x1234, "", 0},
        {0x4321, "data", 4},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char row[64];
        snprintf(row, sizeof row, "two extensions of type %d", rows[i].type);
        r_make_client_hello(&hello, "a.example");
        r_reextend(&hello, rows[i].type, rows[i].data, rows[i].size);
        r_extend(&hello, 0x0a0a, NULL, 0); /* not side by side */
        r_extend(&hello, rows[i].type, rows[i].data, rows[i].size);
        must_be_refused_by_all(row, R_ALERTS(ILLEGAL, DECODE));
    }
    r_no_complaints();
}

/* ---- the hello itself ---- */

static void session_of_33_bytes(r_hello *h) {
    h->session_size = 33;
}

static void session_of_255_bytes(r_hello *h) {
    h->session_size = 255;
}

static void no_suites(r_hello *h) {
    h->suites_size = 0;
}

static void odd_suites(r_hello *h) {
    h->suites_size = 3;
    h->suites[2] = 0xc0;
}

static void no_compressions(r_hello *h) {
    h->compressions_size = 0;
}

static void compression_alone(r_hello *h) {
    h->compressions[0] = 1;
}

static void one_byte_behind(r_hello *h) {
    r_fill(&h->tail, 0, 1);
}

static void an_extension_behind(r_hello *h) {
    r_put(&h->tail, "\0\0\0\0", 4);
}

static void half_a_length_of_extensions(r_hello *h) {
    h->no_extensions = 1;
    r_fill(&h->tail, 0, 1);
}

static void extensions_that_end_early(r_hello *h) {
    h->no_extensions = 1;
    r_put(&h->tail, "\0\12\0\12\0\4\0\2", 8);
}

static void extensions_with_a_byte_left(r_hello *h) {
    r_fill(&h->extensions, 0, 1);
}

static void extensions_with_three_bytes_left(r_hello *h) {
    r_fill(&h->extensions, 0, 3);
}

static void an_extension_that_is_longer_than_the_rest(r_hello *h) {
    r_put(&h->extensions, "\x12\x34\0\1", 4);
}

static void is_of_version_302(r_hello *h) {
    h->version = 0x302;
}

static void is_of_version_300(r_hello *h) {
    h->version = 0x300;
}

static void is_of_version_200(r_hello *h) {
    h->version = 0x200;
}

static void no_suite_of_ours(r_hello *h) {
    memcpy(h->suites, "\x13\1", 2);
}

static void no_signature_of_ours(r_hello *h) {
    r_reextend(h, R_SIGNATURES, R_TEXT("\0\4\10\7\10\4")); /* Ed25519, RSA-PSS */
}

T_TEST(a_hello_that_is_malformed_is_refused, 120) {
    static const struct {
        const char *name;
        void (*change)(r_hello *h);
        r_alerts alerts;
    } rows[] = {
        {"a session id of 33 bytes", session_of_33_bytes, R_ONE_OF(DECODE)},
        {"a session id of 255 bytes", session_of_255_bytes, R_ONE_OF(DECODE)},
        {"no suites", no_suites, R_ONE_OF(DECODE)},
        {"half a suite", odd_suites, R_ONE_OF(DECODE)},
        {"no compression methods", no_compressions, R_ONE_OF(DECODE)},
        {"no null compression", compression_alone, R_ONE_OF(ILLEGAL, DECODE)},
        {"a byte behind the extensions", one_byte_behind, R_ONE_OF(DECODE)},
        {"an extension behind the extensions", an_extension_behind, R_ONE_OF(DECODE)},
        {"half a length of extensions", half_a_length_of_extensions, R_ONE_OF(DECODE)},
        {"extensions that end early", extensions_that_end_early, R_ONE_OF(DECODE)},
        {"a byte that is left among the extensions", extensions_with_a_byte_left, R_ONE_OF(DECODE)},
        {"three bytes that are left among the extensions", extensions_with_three_bytes_left,
         R_ONE_OF(DECODE)},
        {"an extension that is longer than the rest", an_extension_that_is_longer_than_the_rest,
         R_ONE_OF(DECODE)},
        {"TLS 1.1", is_of_version_302, R_ONE_OF(VERSION)},
        {"SSL 3.0", is_of_version_300, R_ONE_OF(VERSION)},
        {"version 2.0", is_of_version_200, R_ONE_OF(VERSION)},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        r_make_client_hello(&hello, "a.example");
        rows[i].change(&hello);
        must_be_refused_by_all(rows[i].name, rows[i].alerts);
    }
    r_no_complaints();
}

/* A hello that ends anywhere, with a length that says so: never a handshake, and decode_error but
   where the part is a hello of its own, without extensions. */
T_TEST(a_hello_that_ends_early_is_refused, 120) {
    static r_end e;
    static r_peer p;
    static r_bytes body;
    size_t whole;
    r_peer_init(&p, 0);
    r_make_client_hello(&hello, "a.example");
    r_write_hello(&body, &hello, 0, p.random[0]);
    whole = body.size;
    for (size_t size = 0; size < whole; size++) {
        size_t bare = 2 + 32 + 1 + 2 + hello.suites_size + 1 + hello.compressions_size;
        char row[64];
        snprintf(row, sizeof row, "the first %zu bytes of a hello", size);
        if (size == bare)
            continue;
        r_open(&e, &p, R_BY_BIO, refusing, NULL);
        r_send(&p, R_CLIENT_HELLO, body.data, size);
        r_check_refusal(&e, &p, row, R_ALERTS(DECODE));
        check_asked(row, 0);
        if (r_complaints > 10)
            break;
    }
    r_no_complaints();
}

/* The parsers agree about what is shared, too; the callback may be asked first. */
T_TEST(a_hello_that_shares_nothing_is_a_handshake_failure, 60) {
    static const struct {
        const char *name;
        void (*change)(r_hello *h);
    } rows[] = {{"no suite of ours", no_suite_of_ours},
                {"no signature algorithm of ours", no_signature_of_ours}};
    static r_end e;
    static r_peer p;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        FOR_EACH_WAY(way) {
            const char *row = row_name(rows[i].name, way);
            r_make_client_hello(&hello, "a.example");
            rows[i].change(&hello);
            r_open(&e, &p, way, accepting, NULL);
            r_say_hello(&p, &hello);
            r_check_refusal(&e, &p, row, R_ALERTS(FAILURE));
            check_asked(row, T_ANY);
        }
    r_no_complaints();
}

/* RFC 8422, 4: the list says which curves are welcome. ffdhe2048 and x448 are none of ours. */
T_TEST(without_a_curve_of_ours_there_is_no_ecdhe, 60) {
    static r_end e;
    static r_peer p;
    static r_bytes body;
    pysock_ssl_context *ctx = t_server_ctx_of("server-rsa");
    T_OK(pysock_ssl_set_ciphers(ctx, "ECDHE-RSA-AES128-GCM-SHA256:AES128-GCM-SHA256"));
    FOR_EACH_WAY(way) {
        const char *row = row_name("ECDHE alone", way);
        r_make_client_hello(&hello, NULL);
        r_reextend(&hello, R_GROUPS, R_TEXT("\0\4\1\0\0\36"));
        r_open(&e, &p, way, accepting, NULL);
        r_say_hello(&p, &hello);
        r_check_refusal(&e, &p, row, R_ALERTS(FAILURE));
        row = row_name("ECDHE and static RSA", way);
        memcpy(hello.suites, "\xc0\x2f\0\x9c", 4);
        hello.suites_size = 4;
        r_open(&e, &p, way, ctx, NULL);
        r_say_hello(&p, &hello);
        if (r_next(&p, &body) != R_SERVER_HELLO)
            r_complain(row, "no ServerHello came (alert %d)", p.alert);
        else if (body.size < 37 || r_get(body.data + 35 + body.data[34], 2) != 0x009c)
            r_complain(row, "another suite was chosen");
        r_close(&e, &p);
    }
    times_asked();
    pysock_ssl_context_release(ctx);
    r_no_complaints();
}

/* The first curve of the server's that the client has: not one that it lacks. */
T_TEST(a_curve_that_the_client_lists_is_chosen, 60) {
    static const struct {
        const char *list;
        int curve;
    } rows[] = {{"\0\2\0\27", R_P256}, {"\0\2\0\35", R_X25519}, {"\0\6\1\0\0\36\0\27", R_P256}};
    static r_end e;
    static r_peer p;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        r_make_client_hello(&hello, NULL);
        r_reextend(&hello, R_GROUPS, rows[i].list, 2 + (size_t)rows[i].list[1]);
        r_open(&e, &p, R_BY_BIO, server_ctx, NULL);
        r_say_hello(&p, &hello);
        T_EQ(r_read_server_flight(&p), 0);
        T_EQ(p.curve, rows[i].curve);
        T_EQ(r_finish_client(&p), 0);
        r_close(&e, &p);
    }
}

/* ---- what is no hello ---- */

typedef struct noise {
    const char *name;
    void (*say)(r_peer *p);
    r_alerts alerts;
} noise;

static void say_message(r_peer *p, int type) {
    r_send(p, type, "\0\0\0\0", 4);
}

static void say_hello_request(r_peer *p) {
    r_send(p, R_HELLO_REQUEST, NULL, 0);
}

static void say_server_hello(r_peer *p) {
    say_message(p, R_SERVER_HELLO);
}

static void say_client_key(r_peer *p) {
    say_message(p, R_CLIENT_KEY);
}

static void say_finished(r_peer *p) {
    say_message(p, R_FINISHED);
}

static void say_unknown_message(r_peer *p) {
    say_message(p, 99);
}

static void say_ccs(r_peer *p) {
    r_write_record(p, R_CCS, "\1", 1);
}

static void say_data(r_peer *p) {
    r_write_record(p, R_DATA, "GET / HTTP/1.0\r\n\r\n", 18);
}

static void say_unknown_record(r_peer *p) {
    r_write_record(p, 24, "\1\100\0", 3);
}

static void say_too_large_a_record(r_peer *p) {
    static unsigned char bytes[R_FRAGMENT + 1] = {R_CLIENT_HELLO, 0, 0xf0, 0};
    r_write_record(p, R_HANDSHAKE, bytes, sizeof bytes);
}

static void say_the_header_of_a_large_hello(r_peer *p) {
    r_write_record(p, R_HANDSHAKE, "\1\377\377\377", 4);
}

/* Above the limit of 64 KB, if only just. */
static void say_the_header_of_a_hello_above_the_limit(r_peer *p) {
    r_write_record(p, R_HANDSHAKE, "\1\1\2\0", 4);
}

static void say_a_hello_of_100_kb(r_peer *p) {
    static unsigned char zeros[60000], more[40000];
    r_make_client_hello(&hello, "a.example");
    r_extend(&hello, 21, zeros, sizeof zeros);
    r_put(&hello.tail, more, sizeof more);
    say_in_fragments(p, &hello, R_FRAGMENT);
}

static void say_fatal_alert(r_peer *p) {
    r_write_alert(p, 2, PYSOCK_ALERT_HANDSHAKE_FAILURE);
}

static void say_two_alerts_in_a_record(r_peer *p) {
    r_write_record(p, R_ALERT, "\1\132\1\132", 4);
}

static void say_half_an_alert(r_peer *p) {
    r_write_record(p, R_ALERT, "\1", 1);
}

static void say_an_alert_of_no_level(r_peer *p) {
    r_write_record(p, R_ALERT, "\3\132", 2);
}

static void say_an_alert_of_level_0(r_peer *p) {
    r_write_record(p, R_ALERT, "\0\132", 2);
}

static void say_six_warnings(r_peer *p) {
    for (int i = 0; i < 6; i++)
        warn_once(p);
}

static void say_33_empty_records(r_peer *p) {
    send_empty_records(p, 33);
}

static void say_14000_empty_records(r_peer *p) {
    send_empty_records(p, 14000);
}

/* Half a hello, and then something else than its rest. */
static void say_half_a_hello(r_peer *p) {
    r_write_record(p, R_HANDSHAKE, "\1\0\0\100\3\3", 6);
}

static void say_data_in_the_middle(r_peer *p) {
    say_half_a_hello(p);
    say_data(p);
}

static void say_ccs_in_the_middle(r_peer *p) {
    say_half_a_hello(p);
    say_ccs(p);
}

static void say_33_empty_records_in_the_middle(r_peer *p) {
    say_half_a_hello(p);
    send_empty_records(p, 33);
}

static void say_six_warnings_in_the_middle(r_peer *p) {
    say_half_a_hello(p);
    say_six_warnings(p);
}

T_TEST(what_is_no_hello_is_refused, 240) {
    static const noise rows[] = {
        {"HelloRequest", say_hello_request, R_ONE_OF(UNEXPECTED)},
        {"ServerHello", say_server_hello, R_ONE_OF(UNEXPECTED)},
        {"ClientKeyExchange", say_client_key, R_ONE_OF(UNEXPECTED)},
        {"Finished", say_finished, R_ONE_OF(UNEXPECTED)},
        {"a message of an unknown kind", say_unknown_message, R_ONE_OF(UNEXPECTED)},
        {"ChangeCipherSpec", say_ccs, R_ONE_OF(UNEXPECTED)},
        {"application data", say_data, R_ONE_OF(UNEXPECTED)},
        {"a record of an unknown kind", say_unknown_record, R_ONE_OF(UNEXPECTED)},
        {"a record of 16,385 bytes", say_too_large_a_record, R_ONE_OF(OVERFLOW)},
        {"the header of a hello of 16 MB", say_the_header_of_a_large_hello,
         R_ONE_OF(ILLEGAL, DECODE, OVERFLOW)},
        {"the header of a hello of 64.5 KB", say_the_header_of_a_hello_above_the_limit,
         R_ONE_OF(ILLEGAL, DECODE, OVERFLOW)},
        {"a hello of 100 KB", say_a_hello_of_100_kb, R_ONE_OF(ILLEGAL, DECODE, OVERFLOW)},
        {"two alerts in a record", say_two_alerts_in_a_record, R_ONE_OF(DECODE)},
        {"half an alert", say_half_an_alert, R_ONE_OF(DECODE)},
        {"an alert of level 3", say_an_alert_of_no_level, R_ONE_OF(DECODE)},
        {"an alert of level 0", say_an_alert_of_level_0, R_ONE_OF(DECODE)},
        {"six warnings", say_six_warnings, R_ONE_OF(UNEXPECTED, DECODE)},
        {"33 empty records", say_33_empty_records, R_ONE_OF(UNEXPECTED, DECODE)},
        {"14,000 empty records", say_14000_empty_records, R_ONE_OF(UNEXPECTED, DECODE)},
        {"application data in the middle", say_data_in_the_middle, R_ONE_OF(UNEXPECTED)},
        {"ChangeCipherSpec in the middle", say_ccs_in_the_middle, R_ONE_OF(UNEXPECTED)},
        {"33 empty records in the middle", say_33_empty_records_in_the_middle,
         R_ONE_OF(UNEXPECTED, DECODE)},
        {"six warnings in the middle", say_six_warnings_in_the_middle,
         R_ONE_OF(UNEXPECTED, DECODE)},
    };
    static r_end e;
    static r_peer p;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        FOR_EACH_WAY(way) {
            const char *row = row_name(rows[i].name, way);
            T_STEP("%s", row);
            r_open(&e, &p, way, refusing, NULL);
            rows[i].say(&p);
            r_check_refusal(&e, &p, row, rows[i].alerts);
            check_asked(row, 0);
        }
    r_no_complaints();
}

/* The other's own words are told, not answered. */
T_TEST(a_fatal_alert_instead_of_a_hello_is_told, 60) {
    static r_end e;
    static r_peer p;
    static r_bytes body;
    FOR_EACH_WAY(way) {
        int came;
        r_open(&e, &p, way, refusing, NULL);
        say_fatal_alert(&p);
        came = r_next(&p, &body);
        r_close(&e, &p);
        T_EQ(came, R_NOTHING);
        T_EQ(e.over, 1);
        T_EQ(e.outcome.result, -1);
        H_SAME(e.outcome.reason, "SSLV3_ALERT_HANDSHAKE_FAILURE");
        T_EQ(times_asked(), 0);
    }
}

/* A client waits for the server's answer before it says more: what is behind the hello in its
   record is out of turn, and hides nothing. */
T_TEST(what_is_behind_the_hello_in_its_record_is_refused, 60) {
    static const struct {
        const char *name;
        int type;
    } rows[] = {{"ClientKeyExchange", R_CLIENT_KEY},
                {"Finished", R_FINISHED},
                {"HelloRequest", R_HELLO_REQUEST},
                {"a second ClientHello", R_CLIENT_HELLO}};
    static r_end e;
    static r_peer p;
    static r_bytes body, both;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (int refuse = 0; refuse < 2; refuse++)
            FOR_EACH_WAY(way) {
                const char *row = row_name(rows[i].name, way);
                r_open(&e, &p, way, refuse ? refusing : accepting, NULL);
                r_make_client_hello(&hello, "a.example");
                r_write_hello(&body, &hello, 0, p.random[0]);
                both.size = 0;
                r_message(&both, R_CLIENT_HELLO, body.data, body.size);
                r_message(&both, rows[i].type, body.data,
                          rows[i].type == R_CLIENT_HELLO ? body.size : 0);
                r_write_record(&p, R_HANDSHAKE, both.data, both.size);
                if (refuse)
                    r_check_refusal(&e, &p, row, R_ALERTS(UNEXPECTED, CALLBACKS_ALERT));
                else
                    r_check_refusal(&e, &p, row, R_ALERTS(UNEXPECTED));
                check_asked(row, T_ANY);
            }
    r_no_complaints();
}

T_MAIN(.setup = set_up, .teardown = tear_down)
