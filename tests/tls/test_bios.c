/* TLS between memory BIOs: what a BIO is, and connections whose bytes the caller carries. */
#include "support/support.h"
#include "support/contexts.h"
#include "support/handshake.h"

/* Two ends, [0] the client; each has a BIO to read from and one to write to. */
typedef struct wire {
    pysock *end[2];
    pysock_bio *in[2], *out[2];
} wire;

static void wire_make(wire *w, pysock_ssl_context *client, pysock_ssl_context *server) {
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    options.server_hostname = "localhost";
    for (int i = 0; i < 2; i++) {
        w->in[i] = T_OK(pysock_bio_new());
        w->out[i] = T_OK(pysock_bio_new());
    }
    w->end[0] = T_OK(pysock_ssl_wrap_bio(client, w->in[0], w->out[0], &options));
    w->end[1] = T_OK(pysock_ssl_wrap_bio(server, w->in[1], w->out[1], NULL));
}

static void wire_free(wire *w) {
    for (int i = 0; i < 2; i++) {
        T_OK(pysock_close(w->end[i]));
        pysock_bio_release(w->in[i]);
        pysock_bio_release(w->out[i]);
    }
}

/* Carries what the end has written, up to so many bytes, to the other one; how many. */
static size_t carry_from(wire *w, int from, size_t most) {
    static char buf[65536];
    ptrdiff_t n = T_OK(pysock_bio_read(w->out[from], buf, most < sizeof buf ? most : sizeof buf));
    T_EQ(pysock_bio_write(w->in[1 - from], buf, (size_t)n), n);
    return (size_t)n;
}

static void carry_all(wire *w) {
    while (carry_from(w, 0, SIZE_MAX) + carry_from(w, 1, SIZE_MAX) > 0)
        continue;
}

static int is_want_read(void) {
    return pysock_error() == PYSOCK_SSL_WANT_READ_ERROR &&
           strcmp(pysock_error_name(), "SSLWantReadError") == 0 && errno == EPROTO;
}

#define WANTS_READ(expr)                                                                           \
    do {                                                                                           \
        T_FAILS(expr, PYSOCK_SSL_WANT_READ_ERROR, EPROTO);                                         \
        H_SAME(pysock_error_name(), "SSLWantReadError");                                           \
    } while (0)

/* 1 when it is finished; it may only want more. */
static int try_handshake(pysock *s) {
    int r = pysock_ssl_do_handshake(s);
    if (r < 0 && !is_want_read())
        T_FAIL("handshake: %s (%s)", pysock_error_message(), pysock_error_name());
    return r == 0;
}

/* Up to so many bytes at a time; returns how often an end was asked and wanted more. */
static size_t wire_shake(wire *w, size_t portion) {
    size_t waits = 0;
    int done[2] = {0, 0};
    while (!done[0] || !done[1]) {
        for (int i = 0; i < 2; i++)
            if (!done[i] && !(done[i] = try_handshake(w->end[i])))
                waits++;
        carry_from(w, 0, portion);
        carry_from(w, 1, portion);
    }
    carry_all(w);
    return waits;
}

static void wire_connect(wire *w) {
    wire_make(w, client_ctx, server_ctx);
    wire_shake(w, SIZE_MAX);
}

static void says_to(wire *w, int from, const char *text) {
    t_say(w->end[from], text);
    carry_all(w);
    t_expect(w->end[1 - from], text);
}

/* ---- the BIO alone ---- */

T_TEST(a_bio_gives_back_what_was_written_in_order, 30) {
    char buf[16];
    pysock_bio *bio = T_OK(pysock_bio_new());
    T_EQ(pysock_bio_pending(bio), 0);
    T_EQ(pysock_bio_eof(bio), 0);
    T_EQ(pysock_bio_read(bio, buf, sizeof buf), 0);
    T_EQ(pysock_bio_write(bio, "", 0), 0);
    T_EQ(pysock_bio_write(bio, "abc", 3), 3);
    T_EQ(pysock_bio_write(bio, "defg", 4), 4);
    T_EQ(pysock_bio_pending(bio), 7);
    T_EQ(pysock_bio_read(bio, buf, 5), 5);
    T_EQ(memcmp(buf, "abcde", 5), 0);
    T_EQ(pysock_bio_read(bio, buf, 0), 0);
    T_EQ(pysock_bio_write(bio, "h", 1), 1);
    T_EQ(pysock_bio_pending(bio), 3);
    T_EQ(pysock_bio_read(bio, buf, sizeof buf), 3);
    T_EQ(memcmp(buf, "fgh", 3), 0);
    T_EQ(pysock_bio_pending(bio), 0);
    pysock_bio_release(bio);
}

T_TEST(a_bio_is_at_its_end_when_it_is_empty_and_no_more_will_come, 30) {
    char buf[4];
    pysock_bio *bio = T_OK(pysock_bio_new());
    T_OK(pysock_bio_write(bio, "abc", 3));
    T_EQ(pysock_bio_write_eof(bio), 0);
    T_EQ(pysock_bio_write_eof(bio), 0);
    T_EQ(pysock_bio_eof(bio), 0);
    T_FAILS(pysock_bio_write(bio, "d", 1), PYSOCK_SSL_ERROR, T_ANY);
    T_EQ(pysock_bio_pending(bio), 3);
    T_EQ(pysock_bio_read(bio, buf, 4), 3);
    T_EQ(pysock_bio_eof(bio), 1);
    T_EQ(pysock_bio_read(bio, buf, 4), 0);
    pysock_bio_release(bio);
}

T_TEST(null_where_a_bio_belongs_is_a_value_error, 30) {
    char byte = 0;
    pysock_bio *bio = T_OK(pysock_bio_new());
    T_CHECK(pysock_bio_retain(NULL) == NULL);
    T_CHECK(pysock_bio_retain(bio) == bio);
    pysock_bio_release(bio);
    T_FAILS(pysock_bio_read(NULL, &byte, 1), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_bio_write(NULL, &byte, 1), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_bio_read(bio, NULL, 1), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_bio_write(bio, NULL, 1), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_bio_write_eof(NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_ASKS_IN_VAIN(pysock_bio_eof(NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_bio_pending(NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_wrap_bio(NULL, bio, bio, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_wrap_bio(server_ctx, NULL, bio, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_wrap_bio(server_ctx, bio, NULL, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    /* A client that checks host names needs one. */
    T_FAILS(pysock_ssl_wrap_bio(client_ctx, bio, bio, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    pysock_bio_release(bio);
    pysock_bio_release(NULL);
}

#define RELAYED T_SCALE(4000000u, 400000u)

static void *relay_writer(void *arg) {
    for (size_t at = 0; at < RELAYED; at += 1000)
        T_EQ(pysock_bio_write(arg, t_bytes(at, 5), 1000), 1000);
    T_OK(pysock_bio_write_eof(arg));
    return NULL;
}

T_TEST(one_thread_may_write_what_another_reads, 60) {
    t_thread t;
    char buf[1777];
    size_t have = 0;
    pysock_bio *bio = T_OK(pysock_bio_new());
    t_spawn(&t, relay_writer, bio);
    while (!pysock_bio_eof(bio)) {
        size_t n = (size_t)T_OK(pysock_bio_read(bio, buf, sizeof buf));
        T_EQ(memcmp(buf, t_bytes(have, 5), n), 0);
        have += n;
    }
    t_join(&t);
    T_EQ(have, RELAYED);
    pysock_bio_release(bio);
}

/* ---- handshakes ---- */

T_TEST(a_handshake_succeeds_in_portions_of_any_size, 120) {
    static const size_t portions[] = {1, 2, 5, 6, 333, SIZE_MAX};
    for (size_t i = 0; i < sizeof portions / sizeof portions[0]; i++) {
        wire w;
        size_t waits;
        T_STEP("portions of %zu", portions[i]);
        /* Contexts of its own each, so that none of them resumes a session. */
        pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
        wire_make(&w, client, server);
        waits = wire_shake(&w, portions[i]);
        T_CHECK(waits >= (portions[i] == 1 ? 500u : 2u));
        for (int e = 0; e < 2; e++) {
            T_EQ(pysock_is_ssl(w.end[e]), 1);
            T_EQ(pysock_ssl_server_side(w.end[e]), e);
            H_SAME(pysock_ssl_version(w.end[e]), "TLSv1.2");
            H_SAME(t_server_hostname(w.end[e]), "localhost");
        }
        says_to(&w, 0, "from the client");
        says_to(&w, 1, "from the server");
        wire_free(&w);
        pysock_ssl_context_release(client);
        pysock_ssl_context_release(server);
    }
}

T_TEST(a_resumed_handshake_works_in_single_bytes, 60) {
    wire w;
    pysock_ssl_session *session;
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    wire_connect(&w);
    session = T_OK(pysock_ssl_get_session(w.end[0]));
    wire_free(&w);
    wire_make(&w, client_ctx, server_ctx);
    T_OK(pysock_close(w.end[0]));
    while (pysock_bio_pending(w.out[0])) /* what the other client has said already */
        pysock_bio_read(w.out[0], (char[64]){0}, 64);
    options.server_hostname = "localhost";
    options.session = session;
    w.end[0] = T_OK(pysock_ssl_wrap_bio(client_ctx, w.in[0], w.out[0], &options));
    pysock_ssl_session_release(session);
    wire_shake(&w, 1);
    T_EQ(pysock_ssl_session_reused(w.end[0]), 1);
    T_EQ(pysock_ssl_session_reused(w.end[1]), 1);
    says_to(&w, 0, "again");
    wire_free(&w);
}

T_TEST(calls_without_enough_bytes_say_so, 60) {
    wire w;
    char buf[64];
    wire_make(&w, client_ctx, server_ctx);
    T_CHECK(pysock_ssl_version(w.end[0]) == NULL);
    WANTS_READ(pysock_ssl_do_handshake(w.end[1])); /* a server waits for the client */
    T_EQ(pysock_bio_pending(w.out[1]), 0);
    WANTS_READ(pysock_ssl_do_handshake(w.end[0]));
    T_CHECK(pysock_bio_pending(w.out[0]) > 0);
    WANTS_READ(pysock_recv(w.end[0], buf, sizeof buf, 0));
    WANTS_READ(pysock_send(w.end[0], "x", 1, 0));
    wire_shake(&w, SIZE_MAX);
    WANTS_READ(pysock_recv(w.end[0], buf, sizeof buf, 0));
    t_say(w.end[1], "whole or nothing");
    while (pysock_bio_pending(w.out[1]) > 1) {
        carry_from(&w, 1, 1);
        WANTS_READ(pysock_recv(w.end[0], buf, sizeof buf, 0));
    }
    carry_from(&w, 1, 1);
    T_EQ(pysock_recv(w.end[0], buf, 5, 0), 5);
    T_EQ(pysock_ssl_pending(w.end[0]), 11);
    T_EQ(pysock_recv(w.end[0], buf, sizeof buf, 0), 11);
    wire_free(&w);
}

T_TEST(an_end_in_the_middle_of_the_handshake_fails_it, 60) {
    for (int server = 0; server < 2; server++) {
        wire w;
        wire_make(&w, client_ctx, server_ctx);
        WANTS_READ(pysock_ssl_do_handshake(w.end[0]));
        carry_from(&w, 0, 20);
        T_OK(pysock_bio_write_eof(w.in[server]));
        T_FAILS(pysock_ssl_do_handshake(w.end[server]), PYSOCK_SSL_EOF_ERROR, T_ANY);
        H_SAME(pysock_error_name(), "SSLEOFError");
        T_FAILS(pysock_ssl_do_handshake(w.end[server]), PYSOCK_SSL_EOF_ERROR, T_ANY);
        wire_free(&w);
    }
}

T_TEST(a_failing_verification_tells_the_peer_by_an_alert, 60) {
    wire w;
    h_outcome o;
    pysock_ssl_context *trustless = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    wire_make(&w, trustless, server_ctx);
    WANTS_READ(pysock_ssl_do_handshake(w.end[0]));
    carry_all(&w);
    WANTS_READ(pysock_ssl_do_handshake(w.end[1]));
    carry_all(&w);
    o = h_outcome_of(pysock_ssl_do_handshake(w.end[0]));
    h_is_refusal(&o, 20, "unable to get local issuer certificate");
    T_CHECK(pysock_bio_pending(w.out[0]) > 0);
    carry_all(&w);
    o = h_outcome_of(pysock_ssl_do_handshake(w.end[1]));
    h_is_alert(&o, "TLSV1_ALERT_UNKNOWN_CA");
    wire_free(&w);
    pysock_ssl_context_release(trustless);
}

T_TEST(bytes_that_are_no_tls_fail_the_handshake, 60) {
    wire w;
    wire_make(&w, client_ctx, server_ctx);
    T_OK(pysock_bio_write(w.in[1], "GET / HTTP/1.0\r\n\r\n", 18));
    T_FAILS(pysock_ssl_do_handshake(w.end[1]), PYSOCK_SSL_ERROR, T_ANY);
    wire_free(&w);
}

T_TEST(tls_keeps_its_bios_and_two_ends_may_share_them, 60) {
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    pysock *client, *server;
    pysock_bio *up = T_OK(pysock_bio_new()), *down = T_OK(pysock_bio_new());
    options.server_hostname = "localhost";
    client = T_OK(pysock_ssl_wrap_bio(client_ctx, down, up, &options));
    server = T_OK(pysock_ssl_wrap_bio(server_ctx, up, down, NULL));
    pysock_bio_release(up);
    pysock_bio_release(down);
    for (int done = 0; done != 3;)
        done = try_handshake(client) | try_handshake(server) << 1;
    t_say(client, "up");
    t_expect(server, "up");
    t_say(server, "down");
    t_expect(client, "down");
    T_OK(pysock_close(client));
    T_OK(pysock_close(server));
}

/* Python's SSLObject.context = other. */
T_TEST(a_handshake_begins_with_the_context_that_was_put_in_place, 30) {
    pysock_ssl_context *bare = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    wire w;
    int r;
    wire_make(&w, bare, server_ctx);
    T_FAILS(pysock_ssl_set_context(w.end[0], server_ctx), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_set_context(w.end[0], NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_OK(pysock_ssl_set_context(w.end[0], client_ctx));
    T_CHECK(t_has_context(w.end[0], client_ctx));
    wire_shake(&w, SIZE_MAX);
    T_FAILS(pysock_ssl_set_context(w.end[0], bare), PYSOCK_OS_ERROR, EALREADY);
    wire_free(&w);
    T_STEP("and one that speaks nothing");
    wire_make(&w, client_ctx, server_ctx);
    T_OK(pysock_ssl_set_options(bare, PYSOCK_OP_NO_TLSv1_2));
    T_FAILS(pysock_ssl_set_context(w.end[0], bare), PYSOCK_SSL_ERROR, T_ANY);
    T_FAILS(pysock_ssl_do_handshake(w.end[0]), PYSOCK_SSL_ERROR, T_ANY);
    T_CHECK(strcmp(pysock_error_reason(), "NO_PROTOCOLS_AVAILABLE") == 0);
    wire_free(&w);
    T_OK(pysock_ssl_set_options(bare, 0));
    T_STEP("and one that trusts nobody");
    wire_make(&w, client_ctx, server_ctx);
    T_OK(pysock_ssl_set_context(w.end[0], bare));
    while ((r = pysock_ssl_do_handshake(w.end[0])) < 0 && is_want_read()) {
        carry_all(&w);
        pysock_ssl_do_handshake(w.end[1]);
        carry_all(&w);
    }
    T_EQ(r, -1);
    T_EQ(pysock_error(), PYSOCK_SSL_CERT_VERIFICATION_ERROR);
    wire_free(&w);
    pysock_ssl_context_release(bare);
}

/* ---- data and ends ---- */

#define BULK ((size_t)T_SCALE(10u, 2u) << 20)

T_TEST(bulk_data_goes_both_ways, 120) {
    static unsigned char buf[50000];
    size_t sent[2] = {0, 0}, have[2] = {0, 0};
    wire w;
    wire_connect(&w);
    while (have[0] < BULK || have[1] < BULK) {
        for (int i = 0; i < 2; i++) {
            size_t left = BULK - sent[i];
            if (left > 0)
                sent[i] += (size_t)T_OK(pysock_send(w.end[i], t_bytes(sent[i], (unsigned)i),
                                                    left < 40009 ? left : 40009, 0));
            carry_from(&w, i, 54321);
        }
        for (int i = 0; i < 2; i++) {
            ptrdiff_t n = pysock_recv(w.end[i], buf, sizeof buf, 0);
            if (n < 0 && !is_want_read())
                T_FAIL("recv: %s", pysock_error_message());
            if (n <= 0)
                continue;
            T_EQ(memcmp(buf, t_bytes(have[i], (unsigned)(1 - i)), (size_t)n), 0);
            have[i] += (size_t)n;
        }
    }
    T_EQ(have[0], BULK);
    T_EQ(have[1], BULK);
    T_EQ(pysock_bio_pending(w.in[0]) + pysock_bio_pending(w.in[1]), 0);
    wire_free(&w);
}

T_TEST(unwrap_needs_the_close_notify_of_both, 60) {
    wire w;
    char byte;
    wire_connect(&w);
    WANTS_READ(pysock_ssl_unwrap(w.end[0]));
    WANTS_READ(pysock_ssl_unwrap(w.end[0]));
    carry_all(&w);
    T_EQ(pysock_recv(w.end[1], &byte, 1, 0), 0);
    T_EQ(pysock_ssl_eof_is_clean(w.end[1]), 1);
    T_EQ(pysock_ssl_unwrap(w.end[1]), 0);
    carry_all(&w);
    T_EQ(pysock_ssl_unwrap(w.end[0]), 0);
    T_EQ(pysock_bio_pending(w.in[0]) + pysock_bio_pending(w.in[1]), 0);
    T_FAILS(pysock_send(w.end[0], "x", 1, 0), T_ANY, T_ANY);
    wire_free(&w);
}

T_TEST(a_ragged_end_is_told_from_a_clean_one, 60) {
    wire w;
    char byte;
    wire_connect(&w);
    T_OK(pysock_bio_write_eof(w.in[0]));
    T_EQ(pysock_recv(w.end[0], &byte, 1, 0), 0);
    T_EQ(pysock_ssl_eof_is_clean(w.end[0]), 0);
    wire_free(&w);
}

/* ---- TLS inside TLS ---- */

static void carry_through(wire *w, pysock *outer[2], int from) {
    static char buf[16384];
    ptrdiff_t n;
    while ((n = T_OK(pysock_bio_read(w->out[from], buf, sizeof buf))) > 0) {
        T_OK(pysock_sendall(outer[from], buf, (size_t)n, 0));
        t_recv_exactly(outer[1 - from], buf, (size_t)n);
        T_OK(pysock_bio_write(w->in[1 - from], buf, (size_t)n));
    }
}

T_TEST(tls_goes_inside_a_tls_socket, 60) {
    wire w;
    pysock *outer[2];
    int done[2] = {0, 0};
    t_tls_pair(outer, client_ctx, server_ctx);
    wire_make(&w, client_ctx, server_ctx);
    while (!done[0] || !done[1]) {
        for (int i = 0; i < 2; i++) {
            done[i] = done[i] || try_handshake(w.end[i]);
            carry_through(&w, outer, i);
        }
    }
    for (int i = 0; i < 40; i++) {
        unsigned char buf[16000];
        int from = i % 2;
        T_OK(pysock_sendall(w.end[from], t_bytes((uint64_t)i, 9), sizeof buf, 0));
        carry_through(&w, outer, from);
        t_recv_exactly(w.end[1 - from], buf, sizeof buf);
        T_EQ(memcmp(buf, t_bytes((uint64_t)i, 9), sizeof buf), 0);
    }
    wire_free(&w);
    t_say(outer[0], "the outer one goes on");
    t_expect(outer[1], "the outer one goes on");
    t_close_pair(outer);
}

/* ---- no descriptor ---- */

T_TEST(what_needs_a_descriptor_fails, 60) {
    wire w;
    pysock_addr addr;
    pysock_poller *p = T_OK(pysock_poller_new());
    int fd = -1;
    size_t n = 1;
    wire_connect(&w);
    T_EQ(pysock_fileno(w.end[0]), -1);
    T_FAILS(pysock_wait(w.end[0], POLLIN, 0), PYSOCK_OS_ERROR, ENOTSUP);
    T_FAILS(pysock_select(&fd, &n, NULL, NULL, NULL, NULL, 0), T_ANY, T_ANY);
    T_FAILS(pysock_poller_register(p, -1, POLLIN, NULL), T_ANY, T_ANY);
    T_FAILS(pysock_getpeername(w.end[0], &addr), PYSOCK_OS_ERROR, T_ANY);
    T_FAILS(pysock_getsockname(w.end[0], &addr), PYSOCK_OS_ERROR, T_ANY);
    T_FAILS(pysock_settimeout(w.end[0], 1.0), T_ANY, T_ANY);
    T_FAILS(pysock_setblocking(w.end[0], 1), T_ANY, T_ANY);
    T_FAILS(pysock_detach(w.end[0]), T_ANY, T_ANY);
    T_FAILS(pysock_dup(w.end[0]), T_ANY, T_ANY);
    T_FAILS(pysock_connect(w.end[0], "127.0.0.1", 9), T_ANY, T_ANY);
    T_FAILS(pysock_accept(w.end[0], NULL), T_ANY, T_ANY);
    T_FAILS(pysock_ssl_wrap_socket(w.end[0], client_ctx, "localhost"), PYSOCK_VALUE_ERROR, EINVAL);
    says_to(&w, 0, "still there");
    says_to(&w, 1, "here too");
    pysock_poller_release(p);
    wire_free(&w);
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts)
