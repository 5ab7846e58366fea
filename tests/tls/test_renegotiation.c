/* Renegotiation, asked for by either side, with openssl at the far end, or with a peer that comes
   back as somebody else; and reading ahead. */
#include "support/support.h"
#include "support/bear.h"
#include "support/handshake.h"
#include "support/process.h"
#include "support/rawtls.h"

#define CA T_CERTS "ca.pem"

enum { BLOCKING, TIMED, NON_BLOCKING };

static void add_options(pysock_ssl_context *ctx, uint64_t options) {
    T_OK(pysock_ssl_set_options(ctx, pysock_ssl_get_options(ctx) | options));
}

/* ---- a server asks ---- */

static pysock *start_s_server(p_process *p) {
    int port;
    p_args args = {{NULL}, 0};
    p_add(&args, "stdbuf", "-oL", "openssl", "s_server", "-accept", "127.0.0.1:" P_PORT, "-cert",
          T_CERTS "server-ec.pem", "-key", T_CERTS "server-ec.key", "-tls1_2", "-state", NULL);
    return p_start_server(p, &args, &port);
}

/* How often s_server has said that it finished a handshake. */
static unsigned count_finished(p_process *p) {
    unsigned seen = 0;
    const char *at = p_string(&p->complained);
    while ((at = strstr(at, "SSL_accept:SSLv3/TLS write finished")) != NULL) {
        at++;
        seen++;
    }
    return seen;
}

/* Until it has finished one more. What it sends before, while our ClientHello is on its way, is no
   part of these tests; nor may its next line come in one read with the command. */
static void wait_finished(p_process *p, unsigned before) {
    double end = t_now() + P_PATIENCE;
    while (count_finished(p) == before)
        if (!p_pump(p, 0.1) || t_now() > end)
            P_FAIL(p, "the handshake does not finish");
}

static void *expect_after(void *arg) {
    t_expect(arg, "after\n");
    return NULL;
}

static void server_asks(p_process *p, pysock *s, uint64_t options, int mode) {
    pysock_ssl_context *ctx = t_client_ctx();
    add_options(ctx, options);
    T_OK(pysock_ssl_wrap_socket(s, ctx, "localhost"));
    T_OK(pysock_settimeout(s, mode == BLOCKING ? PYSOCK_NO_TIMEOUT
                              : mode == TIMED  ? P_PATIENCE
                                               : 0));
    p_wait_for(p, "CIPHER is");
    p_say(p, "before\n");
    t_expect(s, "before\n");
    for (unsigned i = 1; i <= 2; i++) {
        t_thread t;
        unsigned finished = count_finished(p);
        T_STEP("renegotiation %u", i);
        t_spawn(&t, expect_after, s);
        p_say(p, "R\n");
        wait_finished(p, finished);
        p_say(p, "after\n");
        t_join(&t);
        T_EQ(h_stats_of(ctx).connect_renegotiate, i);
        t_say(s, p_format("from the client %u\n", i));
        p_wait_for(p, p_format("from the client %u\n", i));
    }
    T_EQ(h_stats_of(ctx).accept_renegotiate, 0);
    T_OK(pysock_close(s));
    p_end(p);
    pysock_ssl_context_release(ctx);
}

T_TEST(a_client_goes_along_when_openssl_s_server_asks, 200) {
    P_NEED("openssl");
    static p_process p;
    for (int mode = BLOCKING; mode <= NON_BLOCKING; mode++) {
        T_STEP("mode %d", mode);
        server_asks(&p, start_s_server(&p), 0, mode);
    }
}

T_TEST(a_client_goes_along_while_it_reads_ahead, 100) {
    P_NEED("openssl");
    static p_process p;
    server_asks(&p, start_s_server(&p), PYSOCK_OP_READ_AHEAD, TIMED);
    server_asks(&p, start_s_server(&p), PYSOCK_OP_READ_AHEAD, NON_BLOCKING);
}

/* ---- a client asks ---- */

static void client_asks(uint64_t options, int verify_mode) {
    static p_process p;
    p_args args = {{NULL}, 0};
    int port;
    char buf[64];
    pysock *listener = t_listen(&port), *s;
    pysock_ssl_context *ctx = t_server_ctx();
    add_options(ctx, options);
    if (verify_mode != PYSOCK_CERT_NONE)
        T_OK(pysock_ssl_load_verify_locations(ctx, CA, NULL));
    T_OK(pysock_ssl_set_verify_mode(ctx, verify_mode));
    p_add(&args, "stdbuf", "-oL", "openssl", "s_client", "-connect", p_format("127.0.0.1:%d", port),
          "-CAfile", CA, "-tls1_2", NULL);
    if (verify_mode != PYSOCK_CERT_NONE)
        p_add(&args, "-cert", T_CERTS "client.pem", "-key", T_CERTS "client.key", NULL);
    p_start(&p, &args);
    T_OK(pysock_settimeout(listener, P_PATIENCE));
    s = T_OK(pysock_accept(listener, NULL));
    T_OK(pysock_settimeout(s, P_PATIENCE));
    T_OK(pysock_ssl_wrap_socket(s, ctx, NULL));
    p_wait_for(&p, "Verify return code");
    p_say(&p, "before\n");
    t_expect(s, "before\n");
    p_say(&p, "R\n");
    p_wait_for(&p, "RENEGOTIATING");
    if (options & PYSOCK_OP_ALLOW_CLIENT_RENEGOTIATION) {
        p_say(&p, "after\n");
        t_expect(s, "after\n");
        t_say(s, "from the server\n");
        p_wait_for(&p, "from the server");
        T_EQ(h_stats_of(ctx).accept_renegotiate, 1);
    } else {
        /* The alert no_renegotiation makes s_client go away. */
        while (pysock_recv(s, buf, sizeof buf, 0) > 0)
            continue;
        p_wait_for(&p, "no renegotiation");
        T_EQ(h_stats_of(ctx).accept_renegotiate, 0);
    }
    T_EQ(h_stats_of(ctx).connect_renegotiate, 0);
    T_OK(pysock_close(s));
    p_end(&p);
    T_OK(pysock_close(listener));
    pysock_ssl_context_release(ctx);
}

T_TEST(a_server_refuses_openssl_s_client_by_default, 100) {
    P_NEED("openssl");
    client_asks(0, PYSOCK_CERT_NONE);
}

T_TEST(a_server_goes_along_where_it_was_allowed, 200) {
    P_NEED("openssl");
    client_asks(PYSOCK_OP_ALLOW_CLIENT_RENEGOTIATION, PYSOCK_CERT_NONE);
    client_asks(PYSOCK_OP_ALLOW_CLIENT_RENEGOTIATION, PYSOCK_CERT_REQUIRED);
    client_asks(PYSOCK_OP_ALLOW_CLIENT_RENEGOTIATION | PYSOCK_OP_READ_AHEAD, PYSOCK_CERT_REQUIRED);
}

/* ---- who the peer is must not change ---- */

typedef struct bear_run {
    bear_peer peer;
    const bear_identity *first, *second;
    int fd;
    int again; /* it went on after the second handshake */
} bear_run;

/* Shows its first certificate, then asks for another handshake and shows its second. */
static void *serve_twice(void *arg) {
    bear_run *run = arg;
    bear_begin_server(&run->peer, run->fd, run->first);
    T_CHECK(bear_say(&run->peer, "before"));
    bear_show(&run->peer, run->second);
    T_CHECK(br_ssl_engine_renegotiate(run->peer.eng));
    run->again = bear_expect(&run->peer, "go on") && bear_say(&run->peer, "after");
    shutdown(run->fd, SHUT_RDWR);
    return NULL;
}

typedef struct receiver {
    pysock *s;
    h_outcome outcome;
    char text[8];
} receiver;

static void *receive_after(void *arg) {
    receiver *r = arg;
    ptrdiff_t n = pysock_recv(r->s, r->text, 5, 0);
    r->outcome = h_outcome_of(n < 0 ? -1 : 0);
    return NULL;
}

/* Until the context has finished so many handshakes, or the thread has its answer. */
static void wait_for_handshakes(pysock_ssl_context *ctx, unsigned n) {
    while (h_stats_of(ctx).connect_good < n)
        t_nap(0.001);
}

static void meet_server(int verify_mode, const bear_identity *first, const bear_identity *second,
                        receiver *r, int same) {
    static bear_run run;
    t_thread serving, receiving;
    int port, listener = t_raw_listen(&port);
    pysock_ssl_context *ctx = t_client_ctx();
    T_OK(pysock_ssl_set_check_hostname(ctx, verify_mode != PYSOCK_CERT_NONE));
    T_OK(pysock_ssl_set_verify_mode(ctx, verify_mode));
    memset(&run, 0, sizeof run);
    memset(r, 0, sizeof *r);
    run.first = first;
    run.second = second;
    r->s = T_OK(pysock_create_connection("127.0.0.1", port, H_TIMEOUT));
    run.fd = t_raw_accept(listener);
    t_spawn(&serving, serve_twice, &run);
    T_OK(pysock_ssl_wrap_socket(r->s, ctx, "localhost"));
    t_expect(r->s, "before");
    t_spawn(&receiving, receive_after, r);
    if (same) {
        wait_for_handshakes(ctx, 2);
        t_say(r->s, "go on");
    }
    t_join(&receiving);
    if (!same)
        T_FAILS(pysock_send(r->s, "x", 1, 0), T_ANY, T_ANY); /* for good */
    T_OK(pysock_close(r->s));
    t_join(&serving);
    T_EQ(run.again, same);
    T_EQ(h_stats_of(ctx).connect_renegotiate, 1);
    close(run.fd);
    close(listener);
    pysock_ssl_context_release(ctx);
}

/* Both certificates are good ones for the host, by themselves. */
T_TEST(a_client_refuses_another_certificate_in_a_renegotiation, 100) {
    static const int modes[] = {PYSOCK_CERT_REQUIRED, PYSOCK_CERT_NONE};
    static bear_identity one, other;
    receiver r;
    bear_load(&one, "server-ec");
    bear_load(&other, "chain-ec");
    for (size_t i = 0; i < 2; i++) {
        T_STEP("verify mode %d, the same certificate", modes[i]);
        meet_server(modes[i], &one, &one, &r, 1);
        T_EQ(r.outcome.result, 0);
        T_CHECK(strncmp(r.text, "after", 5) == 0);
        T_STEP("verify mode %d, another certificate", modes[i]);
        meet_server(modes[i], &one, &other, &r, 0);
        T_EQ(r.outcome.result, -1);
        T_EQ(r.outcome.kind, PYSOCK_SSL_CERT_VERIFICATION_ERROR);
        H_CONTAINS(r.outcome.message, "another certificate");
    }
    bear_unload(&one);
    bear_unload(&other);
}

/* ... or refuses any renegotiation, and goes on without. */
T_TEST(a_client_may_refuse_every_renegotiation, 100) {
    static bear_identity one;
    static bear_run run;
    receiver r;
    t_thread serving;
    int port, listener = t_raw_listen(&port);
    pysock_ssl_context *ctx = t_client_ctx();
    bear_load(&one, "server-ec");
    add_options(ctx, PYSOCK_OP_NO_RENEGOTIATION);
    memset(&run, 0, sizeof run);
    memset(&r, 0, sizeof r);
    run.first = run.second = &one;
    r.s = T_OK(pysock_create_connection("127.0.0.1", port, H_TIMEOUT));
    run.fd = t_raw_accept(listener);
    t_spawn(&serving, serve_twice, &run);
    T_OK(pysock_ssl_wrap_socket(r.s, ctx, "localhost"));
    t_expect(r.s, "before");
    t_say(r.s, "go on");
    receive_after(&r);
    T_EQ(h_stats_of(ctx).connect_good, 1);
    T_EQ(h_stats_of(ctx).connect_renegotiate, 0);
    T_OK(pysock_close(r.s));
    t_join(&serving);
    close(run.fd);
    close(listener);
    bear_unload(&one);
    pysock_ssl_context_release(ctx);
}

/* Brings its first certificate (NULL: none), then begins another handshake with its second. */
static void *call_twice(void *arg) {
    bear_run *run = arg;
    bear_begin_client(&run->peer, run->fd, run->first);
    T_CHECK(bear_say(&run->peer, "before"));
    T_CHECK(bear_expect(&run->peer, "next"));
    if (run->second)
        bear_bring(&run->peer, run->second);
    T_CHECK(br_ssl_engine_renegotiate(run->peer.eng));
    run->again = bear_say(&run->peer, "after") && bear_expect(&run->peer, "done");
    shutdown(run->fd, SHUT_RDWR);
    return NULL;
}

static h_outcome meet_client(int verify_mode, const bear_identity *first,
                             const bear_identity *second, int good) {
    static bear_run run;
    t_thread t;
    h_outcome outcome;
    char text[8] = "";
    int port;
    pysock *listener = t_listen(&port), *s;
    pysock_ssl_context *ctx = t_server_ctx();
    T_OK(pysock_ssl_load_verify_locations(ctx, CA, NULL));
    T_OK(pysock_ssl_set_verify_mode(ctx, verify_mode));
    T_OK(pysock_ssl_set_session_cache(ctx, 0)); /* a resumed handshake brings no certificate */
    add_options(ctx, PYSOCK_OP_ALLOW_CLIENT_RENEGOTIATION);
    memset(&run, 0, sizeof run);
    run.first = first;
    run.second = second;
    run.fd = t_raw_connect(port);
    s = T_OK(pysock_accept(listener, NULL));
    T_OK(pysock_settimeout(s, H_TIMEOUT));
    t_spawn(&t, call_twice, &run);
    T_OK(pysock_ssl_wrap_socket(s, ctx, NULL));
    t_expect(s, "before");
    t_say(s, "next");
    outcome = h_outcome_of(pysock_recv(s, text, 5, 0) < 0 ? -1 : 0);
    if (outcome.result == 0) {
        T_CHECK(strncmp(text, "after", 5) == 0);
        t_say(s, "done");
    }
    T_OK(pysock_close(s));
    t_join(&t);
    T_EQ(run.again, good);
    T_EQ(h_stats_of(ctx).accept_renegotiate, 1);
    close(run.fd);
    T_OK(pysock_close(listener));
    pysock_ssl_context_release(ctx);
    return outcome;
}

T_TEST(a_server_refuses_another_certificate_in_a_renegotiation, 100) {
    static bear_identity one, other;
    h_outcome outcome;
    bear_load(&one, "client");
    bear_load(&other, "server-ec");
    T_STEP("the same certificate");
    outcome = meet_client(PYSOCK_CERT_REQUIRED, &one, &one, 1);
    T_EQ(outcome.result, 0);
    T_STEP("another one");
    outcome = meet_client(PYSOCK_CERT_REQUIRED, &one, &other, 0);
    T_EQ(outcome.result, -1);
    T_EQ(outcome.kind, PYSOCK_SSL_CERT_VERIFICATION_ERROR);
    H_CONTAINS(outcome.message, "another certificate");
    bear_unload(&one);
    bear_unload(&other);
}

/* Who needs no certificate, and brings one all the same, must bring a good one, each time. */
T_TEST(a_certificate_that_comes_with_a_renegotiation_is_verified, 100) {
    static bear_identity good, bad;
    h_outcome outcome;
    bear_load(&good, "client");
    bear_load(&bad, "untrusted");
    T_STEP("none, twice");
    outcome = meet_client(PYSOCK_CERT_OPTIONAL, NULL, NULL, 1);
    T_EQ(outcome.result, 0);
    T_STEP("a good one");
    outcome = meet_client(PYSOCK_CERT_OPTIONAL, NULL, &good, 1);
    T_EQ(outcome.result, 0);
    T_STEP("a bad one");
    outcome = meet_client(PYSOCK_CERT_OPTIONAL, NULL, &bad, 0);
    T_EQ(outcome.result, -1);
    T_EQ(outcome.kind, PYSOCK_SSL_CERT_VERIFICATION_ERROR);
    bear_unload(&good);
    bear_unload(&bad);
}

/* ---- the same with a server whose every message is made by hand ---- */

/* A client that looks at no name; what else it verifies is the row's. */
static pysock_ssl_context *nameless_client(int verify_mode) {
    pysock_ssl_context *ctx = t_client_ctx();
    T_OK(pysock_ssl_set_check_hostname(ctx, 0));
    T_OK(pysock_ssl_set_verify_mode(ctx, verify_mode));
    return ctx;
}

/* The server asks for another handshake, and shows this certificate. 0, or what came instead. */
static int renegotiate(r_peer *p, const char *certificate) {
    static r_hello h;
    unsigned char info[25] = {24};
    int came;
    r_send(p, R_HELLO_REQUEST, NULL, 0);
    br_sha256_init(&p->transcript);
    came = r_read_client_hello(p);
    if (came)
        return came;
    p->certificate = certificate;
    r_make_server_hello(&h);
    memcpy(info + 1, p->verify[0], 12);
    memcpy(info + 13, p->verify[1], 12);
    r_reextend(&h, R_RENEGOTIATION, info, sizeof info);
    r_say_hello(p, &h);
    r_send_certificate(p);
    r_send_server_key(p);
    r_send_hello_done(p);
    came = r_read_client_flight(p);
    if (!came)
        r_finish_server(p);
    return came;
}

T_TEST(a_renegotiation_with_the_same_certificate_works, 100) {
    static const int modes[] = {PYSOCK_CERT_NONE, PYSOCK_CERT_REQUIRED};
    static r_end e;
    static r_peer p;
    for (int i = 0; i < 2; i++)
        FOR_EACH_WAY(way) {
            pysock_ssl_context *ctx = nameless_client(modes[i]);
            int came = 0;
            r_open(&e, &p, way, ctx, "localhost");
            T_EQ(r_serve(&p), 0);
            for (int k = 0; k < 2 && !came; k++) {
                r_write_record(&p, R_DATA, "before", 6);
                came = renegotiate(&p, "server-ec");
                if (!came)
                    r_write_record(&p, R_DATA, "after", 5);
            }
            if (!came)
                r_write_alert(&p, 1, PYSOCK_ALERT_CLOSE_NOTIFY);
            r_close(&e, &p);
            if (came || e.outcome.result < 0 || e.received_size != 22)
                r_complain(r_way_names[way], "%s came, alert %d, %zu bytes of data: %s",
                           r_what(came), p.alert, e.received_size, e.outcome.message);
            pysock_ssl_context_release(ctx);
        }
    r_no_complaints();
}

/* Each would do for a first handshake. */
T_TEST(a_renegotiation_with_another_certificate_is_refused, 100) {
    static const struct {
        int verify_mode;
        const char *certificate;
    } rows[] = {{PYSOCK_CERT_NONE, "self-signed"},
                {PYSOCK_CERT_NONE, "wrong-host"},
                {PYSOCK_CERT_NONE, "expired"},
                {PYSOCK_CERT_OPTIONAL, "wrong-host"},
                {PYSOCK_CERT_REQUIRED, "wrong-host"}};
    static r_end e;
    static r_peer p;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        FOR_EACH_WAY(way) {
            pysock_ssl_context *ctx = nameless_client(rows[i].verify_mode);
            char row[96];
            int came;
            snprintf(row, sizeof row, "%s, verify mode %d (by %s)", rows[i].certificate,
                     rows[i].verify_mode, r_way_names[way]);
            T_STEP("%s", row);
            r_open(&e, &p, way, ctx, "localhost");
            T_EQ(r_serve(&p), 0);
            came = renegotiate(&p, rows[i].certificate);
            if (!came)
                r_write_record(&p, R_DATA, "stolen", 6);
            r_close(&e, &p);
            if (came != R_IS_ALERT || p.alert_level != 2 ||
                !r_is_one_of(
                    R_ALERTS(PYSOCK_ALERT_BAD_CERTIFICATE, PYSOCK_ALERT_CERTIFICATE_UNKNOWN,
                             PYSOCK_ALERT_ILLEGAL_PARAMETER, PYSOCK_ALERT_HANDSHAKE_FAILURE),
                    p.alert))
                r_complain(row, "%s came, alert %d", r_what(came), p.alert);
            if (e.received_size)
                r_complain(row, "data was received");
            r_check_error(&e, row);
            if (!h_contains(e.outcome.message, "certificate"))
                r_complain(row, "the message is '%s'", e.outcome.message);
            pysock_ssl_context_release(ctx);
        }
    r_no_complaints();
}

/* ---- reading ahead ---- */

#define RECORDS 50

/* All the records are in the kernel when the first byte is read; one read takes them, and select
   must know of every one of them until the last. */
T_TEST(select_sees_what_was_read_ahead, 60) {
    pysock *pair[2];
    t_proxy proxy;
    unsigned char *records = malloc((size_t)RECORDS * 256);
    static unsigned char record[T_RECORD];
    size_t size = 0;
    char byte;
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    T_CHECK(records != NULL);
    add_options(client, PYSOCK_OP_READ_AHEAD);
    t_tls_pair_by_proxy(pair, &proxy, client, server);
    for (int i = 0; i < RECORDS; i++) {
        char c = (char)('0' + i);
        T_EQ(pysock_send(pair[1], &c, 1, 0), 1);
    }
    for (int i = 0; i < RECORDS; i++) {
        size_t n = t_raw_record(proxy.to_server, record);
        T_CHECK(size + n <= (size_t)RECORDS * 256);
        memcpy(records + size, record, n);
        size += n;
    }
    t_raw_write(proxy.to_client, records, size);
    for (int i = 0; i < RECORDS; i++) {
        if (!t_readable(pair[0], i ? 0 : P_PATIENCE))
            T_FAIL("record %d is not seen", i);
        T_EQ(pysock_recv(pair[0], &byte, 1, 0), 1);
        T_EQ(byte, '0' + i);
        if (i == 0)
            T_EQ(recv(pysock_fileno(pair[0]), &byte, 1, MSG_DONTWAIT | MSG_PEEK), -1);
    }
    T_EQ(t_readable(pair[0], 0), 0);
    t_close_pair(pair);
    t_proxy_close(&proxy);
    free(records);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

T_MAIN(.each_teardown = p_end_all)
