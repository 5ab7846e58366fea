/* Other people's TLS at the far end, in both roles: openssl, gnutls, nginx, curl and python3. */
#include "support/support.h"
#include "support/files.h"
#include "support/handshake.h"
#include "support/process.h"
#include "support/shell.h"

#define BULK ((size_t)T_SCALE(4, 2) << 20)
#define CA T_CERTS "ca.pem"
#define GNUTLS_TLS12 "NORMAL:-VERS-ALL:+VERS-TLS1.2"

/* ---- data ----
   Digits in lines of 64: gnutls-cli and its kind think in text. */

static char bulk[2][4u << 20];

static const char *bulk_text(int which) {
    static int made;
    for (; made < 2; made++)
        for (size_t i = 0; i < BULK; i++)
            bulk[made][i] = i % 64 == 63 ? '\n'
                                         : (char)('0' + t_bytes(i, (unsigned int)made + 1)[0] % 10);
    return bulk[which];
}

static void same_part(const char *have, size_t size, int which, size_t part, const char *where) {
    if (size != part || memcmp(have, bulk_text(which), part) != 0)
        T_FAIL("%s: %zu bytes arrived, not the %zu that were sent, or other ones", where, size,
               part);
}

static void same_bulk(const char *have, size_t size, int which, const char *where) {
    same_part(have, size, which, BULK, where);
}

/* ---- an exchange in both directions at once ----
   One thread and one select for all: the TLS socket and the peer's pipes. Either the peer carries
   what it gets to and from its pipes, or (echo) it sends everything back. */

typedef struct exchange {
    pysock *s;
    p_process *p;
    int echo;
    char *received;
    size_t to_send, sent, have, fed;
    size_t begin; /* of the data in what the peer says */
} exchange;

static size_t carried(const exchange *x) {
    return x->echo ? x->to_send : x->p->said.size - x->begin;
}

static int is_complete(const exchange *x) {
    return x->sent == x->to_send && x->have == BULK && (x->echo || x->fed == BULK) &&
           carried(x) == x->to_send;
}

static int is_listed(const int *list, size_t count, int fd) {
    for (size_t i = 0; i < count; i++)
        if (list[i] == fd)
            return 1;
    return 0;
}

static void exchange_send(exchange *x) {
    size_t left = x->to_send - x->sent;
    size_t size = left < 20011 ? left : 20011;
    ptrdiff_t n = pysock_send(x->s, bulk_text(0) + x->sent, size, 0);
    if (n <= 0)
        P_FAIL(x->p, "send gave %td on a writable socket: %s", n, pysock_error_message());
    x->sent += (size_t)n;
}

static void exchange_receive(exchange *x) {
    ptrdiff_t n = pysock_recv(x->s, x->received + x->have, BULK - x->have, 0);
    if (n <= 0)
        P_FAIL(x->p, "recv gave %td on a readable socket after %zu bytes: %s", n, x->have,
               pysock_error_message());
    x->have += (size_t)n;
}

static void exchange_feed(exchange *x) {
    ssize_t n = write(x->p->in, bulk_text(1) + x->fed, BULK - x->fed);
    if (n < 0 && errno != EAGAIN)
        P_FAIL(x->p, "%s reads no more: %s", x->p->program, strerror(errno));
    if (n > 0)
        x->fed += (size_t)n;
}

static void exchange_step(exchange *x) {
    int rlist[3], wlist[2];
    size_t rcount = 0, wcount = 0;
    int fd = T_OK(pysock_fileno(x->s));
    if (x->have < BULK)
        rlist[rcount++] = fd;
    if (x->p->out >= 0)
        rlist[rcount++] = x->p->out;
    if (x->p->err >= 0)
        rlist[rcount++] = x->p->err;
    if (x->sent < x->to_send)
        wlist[wcount++] = fd;
    if (!x->echo && x->fed < BULK)
        wlist[wcount++] = x->p->in;
    if (T_OK(pysock_select(rlist, &rcount, wlist, &wcount, NULL, NULL, P_PATIENCE)) == 0)
        P_FAIL(x->p, "stuck: sent %zu, received %zu, fed %zu, carried %zu", x->sent, x->have,
               x->fed, carried(x));
    if (is_listed(rlist, rcount, x->p->out))
        p_read(&x->p->out, &x->p->said);
    if (is_listed(rlist, rcount, x->p->err))
        p_read(&x->p->err, &x->p->complained);
    if (is_listed(wlist, wcount, x->p->in))
        exchange_feed(x);
    if (is_listed(rlist, rcount, fd))
        exchange_receive(x);
    if (is_listed(wlist, wcount, fd))
        exchange_send(x);
    if (x->p->out < 0 && !is_complete(x))
        P_FAIL(x->p, "%s ended early", x->p->program);
}

static void exchange_part(pysock *s, p_process *p, int echo, size_t to_send) {
    exchange x;
    memset(&x, 0, sizeof x);
    x.s = s;
    x.p = p;
    x.echo = echo;
    x.to_send = to_send;
    x.begin = p->said.size;
    x.received = malloc(BULK);
    T_CHECK(x.received != NULL);
    T_OK(pysock_setblocking(s, 0));
    T_STEP("exchange with %s", p->program);
    while (!is_complete(&x))
        exchange_step(&x);
    same_bulk(x.received, x.have, echo ? 0 : 1, "at the socket");
    if (!echo)
        same_part(p->said.data + x.begin, carried(&x), 0, to_send, p->program);
    free(x.received);
    T_OK(pysock_settimeout(s, P_PATIENCE));
}

static void exchange_bulk(pysock *s, p_process *p, int echo) {
    exchange_part(s, p, echo, BULK);
}

/* ---- handshakes ---- */

enum { BLOCKING, NON_BLOCKING };

static int finish_handshake(pysock *s) {
    int result;
    while ((result = pysock_ssl_do_handshake(s)) < 0 && errno == EINPROGRESS)
        if (!t_writable(s, P_PATIENCE))
            T_FAIL("the handshake does not end");
    return result;
}

static h_outcome shake(pysock *s, pysock_ssl_context *ctx, const char *host, int mode) {
    h_outcome o;
    int result;
    T_OK(pysock_settimeout(s, mode == BLOCKING ? P_PATIENCE : 0));
    result = pysock_ssl_wrap_socket(s, ctx, host);
    if (result == 0 && mode == NON_BLOCKING)
        result = finish_handshake(s);
    o = h_outcome_of(result);
    T_OK(pysock_settimeout(s, P_PATIENCE));
    return o;
}

/* The handshake succeeds, and what is negotiated makes sense. */
static void shake_well(pysock *s, p_process *p, pysock_ssl_context *ctx, const char *host,
                       int mode) {
    pysock_ssl_cipher_info cipher;
    h_outcome o = shake(s, ctx, host, mode);
    if (o.result != 0)
        P_FAIL(p, "handshake with %s: %s", p->program, o.message);
    H_SAME(pysock_ssl_version(s), "TLSv1.2");
    T_OK(pysock_ssl_cipher(s, &cipher));
    T_CHECK(cipher.name != NULL && cipher.secret_bits >= 128);
}

/* The next connection to a server of ours; plain so far. */
static pysock *accept_from(p_process *p, pysock *listener) {
    pysock *s;
    T_OK(pysock_settimeout(listener, P_PATIENCE));
    s = pysock_accept(listener, NULL);
    p_pump(p, 0);
    if (!s)
        P_FAIL(p, "%s does not connect: %s", p->program, pysock_error_message());
    return s;
}

/* Until the end of the stream. */
static void read_to_end(pysock *s, int clean) {
    char buf[4096];
    while (T_OK(pysock_recv(s, buf, sizeof buf, 0)) > 0)
        continue;
    T_EQ(pysock_ssl_eof_is_clean(s), clean);
    T_EQ(pysock_recv(s, buf, sizeof buf, 0), 0);
}

/* A FIN without close_notify before it, which the library has no call for. */
static void close_raggedly(pysock *s) {
    T_EQ(shutdown(T_OK(pysock_fileno(s)), SHUT_WR), 0);
}

static void same_der(pysock *s, const char *pem) {
    static p_process p;
    p_args args = {{NULL}, 0};
    const char *der = f_path("peer.der");
    size_t size;
    char *want;
    pysock_buf *have = T_OK(pysock_ssl_getpeercert_der(s));
    p_add(&args, "openssl", "x509", "-in", pem, "-outform", "DER", "-out", der, NULL);
    T_EQ(p_run(&p, &args), 0);
    p_end(&p);
    want = f_read(der, &size);
    T_EQ(pysock_buf_size(have), size);
    T_EQ(memcmp(pysock_buf_data(have), want, size), 0);
    free(want);
    pysock_buf_release(have);
}

/* Certificates that must be refused, and what each side has to say about it. The codes are
   OpenSSL's and Python's; alert is 0 where RFC 5246 leaves a choice. */
typedef struct bad_certificate {
    const char *name;
    int verify_code;
    const char *check;
    int alert;
    const char *alert_reason; /* from a peer that verifies with OpenSSL */
} bad_certificate;

static const bad_certificate bad_certificates[] = {
    {"wrong-host", 62, "hostname mismatch", 0, "SSLV3_ALERT_BAD_CERTIFICATE"},
    {"expired", 10, "certificate has expired", 45, "SSLV3_ALERT_CERTIFICATE_EXPIRED"},
    {"not-yet-valid", 9, "certificate is not yet valid", 0, "SSLV3_ALERT_BAD_CERTIFICATE"},
    {"self-signed", 18, "self-signed certificate", 48, "TLSV1_ALERT_UNKNOWN_CA"},
    {"untrusted", 20, "unable to get local issuer certificate", 48, "TLSV1_ALERT_UNKNOWN_CA"},
};

#define BAD_COUNT (sizeof bad_certificates / sizeof bad_certificates[0])

/* A session of the first connection is resumed by the second; both are closed. */
static void connect_twice(p_process *p, pysock *first, int port, pysock_ssl_context *ctx,
                          const char *connected, const char *reused) {
    pysock *second;
    T_STEP("first connection to %s", p->program);
    shake_well(first, p, ctx, "localhost", BLOCKING);
    T_EQ(pysock_ssl_session_reused(first), 0);
    p_wait_for(p, connected);
    T_CHECK(!p_has_said(p, reused));
    T_OK(pysock_close(first));
    T_STEP("second connection to %s", p->program);
    second = p_connect(p, port);
    shake_well(second, p, ctx, "localhost", BLOCKING);
    T_EQ(pysock_ssl_session_reused(second), 1);
    same_der(second, p_cert_file("server-ec"));
    p_wait_for(p, reused);
    T_OK(pysock_close(second));
}

/* ==== openssl s_server ==== */

/* s_server takes only the leaf from a file with a chain. */
static const char *intermediate_of(const char *cert) {
    char *chain = f_read(p_cert_file(cert), NULL);
    const char *second = strstr(chain + 1, "-----BEGIN CERTIFICATE-----");
    const char *path;
    T_CHECK(second != NULL);
    path = f_write_text("intermediate.pem", second);
    free(chain);
    return path;
}

static pysock *start_s_server(p_process *p, int *port, const char *cert, ...) {
    p_args args = {{NULL}, 0};
    const char *option;
    va_list options;
    p_add(&args, "stdbuf", "-oL", "openssl", "s_server", "-accept", "127.0.0.1:" P_PORT, "-cert",
          p_cert_file(cert), "-key", p_key_file(cert), NULL);
    if (strcmp(cert, "chain-ec") == 0)
        p_add(&args, "-cert_chain", intermediate_of(cert), NULL);
    va_start(options, cert);
    while ((option = va_arg(options, const char *)) != NULL)
        p_add(&args, option, NULL);
    va_end(options);
    return p_start_server(p, &args, port);
}

static void bulk_with_s_server(const char *cert, const char *version, int mode) {
    static p_process p;
    int port;
    pysock_ssl_context *ctx = t_client_ctx();
    pysock *s = start_s_server(&p, &port, cert, "-quiet", "-naccept", "1", version, NULL);
    shake_well(s, &p, ctx, "localhost", mode);
    same_der(s, p_cert_file(cert));
    exchange_bulk(s, &p, 0);
    T_OK(pysock_close(s));
    T_EQ(p_exit_status(&p), 0);
    T_CHECK(!p_has_said(&p, "unexpected eof"));
    p_end(&p);
    pysock_ssl_context_release(ctx);
}

T_TEST(bulk_data_goes_both_ways_with_openssl_s_server, 300) {
    P_NEED("openssl");
    bulk_with_s_server("server-ec", "-tls1_2", BLOCKING);
    bulk_with_s_server("server-rsa", "-tls1_2", NON_BLOCKING);
}

T_TEST(openssl_s_server_that_prefers_tls13_agrees_on_tls12, 300) {
    P_NEED("openssl");
    bulk_with_s_server("chain-ec", NULL, BLOCKING);
}

T_TEST(a_session_is_resumed_with_openssl_s_server, 120) {
    P_NEED("openssl");
    static p_process p;
    int port;
    pysock *s;
    pysock_ssl_context *ctx = t_client_ctx();
    s = start_s_server(&p, &port, "server-ec", NULL);
    connect_twice(&p, s, port, ctx, "CIPHER is", "Reused session-id");
    pysock_ssl_context_release(ctx);
}

T_TEST(openssl_s_server_with_a_wrong_certificate_is_refused, 240) {
    P_NEED("openssl");
    pysock_ssl_context *ctx = t_client_ctx();
    for (size_t i = 0; i < BAD_COUNT; i++) {
        const bad_certificate *bad = &bad_certificates[i];
        static p_process p;
        int port;
        h_outcome o;
        pysock *s = start_s_server(&p, &port, bad->name, NULL);
        T_STEP("%s", bad->name);
        o = shake(s, ctx, "localhost", i % 2 ? NON_BLOCKING : BLOCKING);
        h_is_refusal(&o, bad->verify_code, bad->check);
        p_wait_for(&p,
                   bad->alert ? p_format("SSL alert number %d", bad->alert) : "SSL alert number");
        T_OK(pysock_close(s));
        p_end(&p);
    }
    pysock_ssl_context_release(ctx);
}

T_TEST(alpn_and_sni_reach_openssl_s_server, 120) {
    P_NEED("openssl");
    static const char *const protocols[] = {"pysock/1", "http/1.1"};
    static p_process p;
    int port;
    pysock *s;
    pysock_ssl_context *ctx = t_client_ctx();
    T_OK(pysock_ssl_set_alpn_protocols(ctx, protocols, 2));
    s = start_s_server(&p, &port, "server-rsa", "-alpn", "h2,http/1.1", "-servername",
                       "elsewhere.test", "-cert2", p_cert_file("server-ec"), "-key2",
                       p_key_file("server-ec"), NULL);
    shake_well(s, &p, ctx, "a.example.test", BLOCKING);
    H_SAME(t_alpn(s), "http/1.1");
    H_SAME(t_server_hostname(s), "a.example.test");
    p_wait_for(&p, "Hostname in TLS extension: \"a.example.test\"");
    p_wait_for(&p, "ALPN protocols selected: http/1.1");
    T_OK(pysock_close(s));
    pysock_ssl_context_release(ctx);
}

T_TEST(ends_of_openssl_s_server_are_told_apart, 120) {
    P_NEED("openssl");
    pysock_ssl_wrap_options strict = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    static p_process p;
    int port;
    char byte;
    pysock *s;
    pysock_ssl_context *ctx = t_client_ctx();
    T_STEP("clean");
    s = start_s_server(&p, &port, "server-ec", "-www", NULL);
    shake_well(s, &p, ctx, "localhost", BLOCKING);
    t_say(s, "GET / HTTP/1.0\r\n\r\n");
    read_to_end(s, 1);
    T_OK(pysock_close(s));
    p_end(&p);

    T_STEP("ragged");
    s = start_s_server(&p, &port, "server-ec", NULL);
    shake_well(s, &p, ctx, "localhost", BLOCKING);
    p_wait_for(&p, "CIPHER is");
    T_EQ(kill(p.pid, SIGKILL), 0);
    read_to_end(s, 0);
    T_OK(pysock_close(s));
    p_end(&p);

    T_STEP("ragged, and told so");
    s = start_s_server(&p, &port, "server-ec", NULL);
    strict.server_hostname = "localhost";
    strict.raise_ragged_eofs = 1;
    T_OK(pysock_ssl_wrap_socket_ex(s, ctx, &strict));
    p_wait_for(&p, "CIPHER is");
    T_EQ(kill(p.pid, SIGKILL), 0);
    T_FAILS(pysock_recv(s, &byte, 1, 0), PYSOCK_SSL_EOF_ERROR, EPROTO);
    T_OK(pysock_close(s));
    pysock_ssl_context_release(ctx);
}

T_TEST(openssl_s_server_sees_how_we_end, 120) {
    P_NEED("openssl");
    static p_process p;
    int port;
    pysock *s;
    pysock_ssl_context *ctx = t_client_ctx();
    s = start_s_server(&p, &port, "server-ec", "-naccept", "1", NULL);
    shake_well(s, &p, ctx, "localhost", BLOCKING);
    T_OK(pysock_close(s));
    p_exit_status(&p);
    T_CHECK(p_has_said(&p, "DONE"));
    T_CHECK(!p_has_said(&p, "unexpected eof"));
    p_end(&p);

    s = start_s_server(&p, &port, "server-ec", "-naccept", "1", NULL);
    shake_well(s, &p, ctx, "localhost", BLOCKING);
    close_raggedly(s);
    p_wait_for(&p, "unexpected eof");
    T_OK(pysock_close(s));
    pysock_ssl_context_release(ctx);
}

/* ==== openssl s_client ==== */

static void start_s_client(p_process *p, int port, ...) {
    p_args args = {{NULL}, 0};
    const char *option;
    va_list options;
    p_add(&args, "stdbuf", "-oL", "openssl", "s_client", "-connect", p_format("127.0.0.1:%d", port),
          "-CAfile", CA, "-verify_return_error", "-verify_hostname", "localhost", NULL);
    va_start(options, port);
    while ((option = va_arg(options, const char *)) != NULL)
        p_add(&args, option, NULL);
    va_end(options);
    p_start(p, &args);
}

static void bulk_with_s_client(const char *cert, const char *version, int mode) {
    static p_process p;
    int port;
    pysock_ssl_context *ctx = t_server_ctx_of(cert);
    pysock *listener = t_listen(&port), *s;
    start_s_client(&p, port, "-quiet", "-servername", "localhost", version, NULL);
    s = accept_from(&p, listener);
    shake_well(s, &p, ctx, NULL, mode);
    exchange_bulk(s, &p, 0);
    T_OK(pysock_close(s));
    T_EQ(p_exit_status(&p), 0);
    T_CHECK(!p_has_said(&p, "unexpected eof"));
    p_end(&p);
    T_OK(pysock_close(listener));
    pysock_ssl_context_release(ctx);
}

T_TEST(bulk_data_goes_both_ways_with_openssl_s_client, 300) {
    P_NEED("openssl");
    bulk_with_s_client("server-ec", "-tls1_2", BLOCKING);
    bulk_with_s_client("server-rsa", "-tls1_2", NON_BLOCKING);
}

T_TEST(openssl_s_client_that_offers_tls13_agrees_on_tls12, 300) {
    P_NEED("openssl");
    bulk_with_s_client("chain-ec", NULL, NON_BLOCKING);
}

T_TEST(openssl_s_client_resumes_a_session, 120) {
    P_NEED("openssl");
    static p_process p;
    int port;
    const char *file = f_path("session.pem");
    pysock_ssl_context *ctx = t_server_ctx();
    pysock *listener = t_listen(&port), *s;
    for (int turn = 0; turn < 2; turn++) {
        T_STEP("turn %d", turn);
        start_s_client(&p, port, "-servername", "localhost", turn ? "-sess_in" : "-sess_out", file,
                       NULL);
        s = accept_from(&p, listener);
        shake_well(s, &p, ctx, NULL, BLOCKING);
        T_EQ(pysock_ssl_session_reused(s), turn);
        p_wait_for(&p, turn ? "Reused, TLSv1.2" : "New, TLSv1.2");
        p_say(&p, "Q\n");
        read_to_end(s, 1);
        T_OK(pysock_close(s));
        T_EQ(p_exit_status(&p), 0);
        p_end(&p);
    }
    T_OK(pysock_close(listener));
    pysock_ssl_context_release(ctx);
}

T_TEST(openssl_s_client_refuses_our_wrong_certificates, 240) {
    P_NEED("openssl");
    int port;
    pysock *listener = t_listen(&port);
    for (size_t i = 0; i < BAD_COUNT; i++) {
        const bad_certificate *bad = &bad_certificates[i];
        static p_process p;
        h_outcome o;
        pysock_ssl_context *ctx = t_server_ctx_of(bad->name);
        pysock *s;
        T_STEP("%s", bad->name);
        start_s_client(&p, port, "-servername", "localhost", NULL);
        s = accept_from(&p, listener);
        o = shake(s, ctx, NULL, i % 2 ? NON_BLOCKING : BLOCKING);
        h_is_alert(&o, bad->alert_reason);
        T_OK(pysock_close(s));
        T_CHECK(p_exit_status(&p) != 0);
        T_CHECK(p_has_said(&p, p_format("verify error:num=%d", bad->verify_code)));
        p_end(&p);
        pysock_ssl_context_release(ctx);
    }
    T_OK(pysock_close(listener));
}

T_TEST(alpn_and_sni_arrive_from_openssl_s_client, 120) {
    P_NEED("openssl");
    static const char *const protocols[] = {"http/1.1", "h2"};
    static p_process p;
    int port;
    pysock_ssl_context *ctx = t_server_ctx();
    pysock *listener = t_listen(&port), *s;
    T_OK(pysock_ssl_set_alpn_protocols(ctx, protocols, 2));
    start_s_client(&p, port, "-servername", "b.example.test", "-alpn", "h3,h2,http/1.1", NULL);
    s = accept_from(&p, listener);
    shake_well(s, &p, ctx, NULL, BLOCKING);
    H_SAME(t_alpn(s), "http/1.1");
    H_SAME(t_server_hostname(s), "b.example.test");
    p_wait_for(&p, "ALPN protocol: http/1.1");
    T_OK(pysock_close(s));
    p_end(&p);

    T_STEP("nothing asked for, nothing told");
    start_s_client(&p, port, "-noservername", NULL);
    s = accept_from(&p, listener);
    shake_well(s, &p, ctx, NULL, BLOCKING);
    T_CHECK(t_alpn(s) == NULL);
    T_CHECK(t_server_hostname(s) == NULL);
    T_OK(pysock_close(s));
    p_end(&p);

    T_STEP("nothing in common");
    start_s_client(&p, port, "-servername", "localhost", "-alpn", "h3", NULL);
    s = accept_from(&p, listener);
    shake_well(s, &p, ctx, NULL, BLOCKING);
    T_CHECK(t_alpn(s) == NULL);
    p_wait_for(&p, "No ALPN negotiated");
    T_OK(pysock_close(s));
    p_end(&p);
    T_OK(pysock_close(listener));
    pysock_ssl_context_release(ctx);
}

T_TEST(ends_of_openssl_s_client_are_told_apart, 120) {
    P_NEED("openssl");
    static p_process p;
    int port;
    pysock_ssl_context *ctx = t_server_ctx();
    pysock *listener = t_listen(&port), *s;
    for (int clean = 0; clean < 2; clean++) {
        T_STEP("%s", clean ? "clean" : "ragged");
        start_s_client(&p, port, "-servername", "localhost", NULL);
        s = accept_from(&p, listener);
        shake_well(s, &p, ctx, NULL, BLOCKING);
        p_wait_for(&p, "New, TLSv1.2");
        if (clean)
            p_say(&p, "Q\n");
        else
            T_EQ(kill(p.pid, SIGKILL), 0);
        read_to_end(s, clean);
        T_OK(pysock_close(s));
        p_end(&p);
    }
    T_OK(pysock_close(listener));
    pysock_ssl_context_release(ctx);
}

T_TEST(openssl_s_client_sees_how_we_end, 120) {
    P_NEED("openssl");
    static p_process p;
    int port;
    pysock_ssl_context *ctx = t_server_ctx();
    pysock *listener = t_listen(&port), *s;
    for (int clean = 0; clean < 2; clean++) {
        T_STEP("%s", clean ? "clean" : "ragged");
        start_s_client(&p, port, "-servername", "localhost", NULL);
        s = accept_from(&p, listener);
        shake_well(s, &p, ctx, NULL, BLOCKING);
        p_wait_for(&p, "New, TLSv1.2");
        if (!clean)
            close_raggedly(s);
        else
            T_OK(pysock_close(s));
        p_exit_status(&p);
        T_EQ(p_has_said(&p, "unexpected eof"), !clean);
        if (!clean)
            T_OK(pysock_close(s));
        p_end(&p);
    }
    T_OK(pysock_close(listener));
    pysock_ssl_context_release(ctx);
}

/* ==== gnutls-serv ==== */

static pysock *start_gnutls_serv(p_process *p, int *port, const char *cert, const char *priority,
                                 ...) {
    p_args args = {{NULL}, 0};
    const char *option;
    va_list options;
    p_add(&args, "stdbuf", "-oL", "gnutls-serv", "--echo", "--crlf", "--disable-client-cert",
          "--x509certfile", p_cert_file(cert), "--x509keyfile", p_key_file(cert), "--priority",
          priority, "--port", P_PORT, NULL);
    va_start(options, priority);
    while ((option = va_arg(options, const char *)) != NULL)
        p_add(&args, option, NULL);
    va_end(options);
    return p_start_server(p, &args, port);
}

static void bulk_with_gnutls_serv(const char *cert, const char *priority, int mode) {
    static p_process p;
    int port;
    pysock_ssl_context *ctx = t_client_ctx();
    pysock *s = start_gnutls_serv(&p, &port, cert, priority, NULL);
    shake_well(s, &p, ctx, "localhost", mode);
    exchange_bulk(s, &p, 1);
    T_OK(pysock_close(s));
    p_end(&p);
    pysock_ssl_context_release(ctx);
}

T_TEST(bulk_data_is_echoed_by_gnutls_serv, 300) {
    P_NEED("gnutls-serv");
    bulk_with_gnutls_serv("server-rsa", GNUTLS_TLS12, BLOCKING);
    bulk_with_gnutls_serv("server-ec", GNUTLS_TLS12, NON_BLOCKING);
}

T_TEST(gnutls_serv_that_prefers_tls13_agrees_on_tls12, 300) {
    P_NEED("gnutls-serv");
    bulk_with_gnutls_serv("chain-ec", "NORMAL", BLOCKING);
}

T_TEST(a_session_is_resumed_with_gnutls_serv, 120) {
    P_NEED("gnutls-serv");
    P_NEED("openssl");
    static p_process p;
    int port;
    pysock *s;
    pysock_ssl_context *ctx = t_client_ctx();
    s = start_gnutls_serv(&p, &port, "server-ec", "NORMAL", NULL);
    connect_twice(&p, s, port, ctx, "Description: (TLS1.2", "*** This is a resumed session");
    pysock_ssl_context_release(ctx);
}

T_TEST(gnutls_serv_with_a_wrong_certificate_is_refused, 240) {
    P_NEED("gnutls-serv");
    pysock_ssl_context *ctx = t_client_ctx();
    for (size_t i = 0; i < BAD_COUNT; i++) {
        const bad_certificate *bad = &bad_certificates[i];
        static p_process p;
        int port;
        h_outcome o;
        pysock *s = start_gnutls_serv(&p, &port, bad->name, "NORMAL", NULL);
        T_STEP("%s", bad->name);
        o = shake(s, ctx, "localhost", i % 2 ? BLOCKING : NON_BLOCKING);
        h_is_refusal(&o, bad->verify_code, bad->check);
        p_wait_for(&p,
                   bad->alert ? p_format("Received alert '%d'", bad->alert) : "Received alert '");
        T_OK(pysock_close(s));
        p_end(&p);
    }
    pysock_ssl_context_release(ctx);
}

T_TEST(alpn_and_sni_reach_gnutls_serv, 120) {
    P_NEED("gnutls-serv");
    static const char *const protocols[] = {"pysock/1", "http/1.1"};
    static p_process p;
    int port;
    pysock *s;
    pysock_ssl_context *ctx = t_client_ctx();
    T_OK(pysock_ssl_set_alpn_protocols(ctx, protocols, 2));
    s = start_gnutls_serv(&p, &port, "server-rsa", "NORMAL", "--alpn", "http/1.1", NULL);
    shake_well(s, &p, ctx, "a.example.test", BLOCKING);
    H_SAME(t_alpn(s), "http/1.1");
    p_wait_for(&p, "Given server name[1]: a.example.test");
    p_wait_for(&p, "Application protocol: http/1.1");
    T_OK(pysock_close(s));
    pysock_ssl_context_release(ctx);
}

T_TEST(gnutls_serv_sees_how_we_end, 120) {
    P_NEED("gnutls-serv");
    static p_process p;
    int port;
    pysock *s;
    pysock_ssl_context *ctx = t_client_ctx();
    s = start_gnutls_serv(&p, &port, "server-ec", "NORMAL", NULL);
    shake_well(s, &p, ctx, "localhost", BLOCKING);
    t_say(s, "hello\n");
    t_expect(s, "hello\n");
    T_OK(pysock_close(s));

    T_STEP("a second connection, so that the end of the first has been seen");
    s = p_connect(&p, port);
    shake_well(s, &p, ctx, "localhost", BLOCKING);
    t_say(s, "hello\n");
    t_expect(s, "hello\n");
    p_pump(&p, 0.05);
    T_CHECK(!p_has_said(&p, "non-properly terminated"));
    close_raggedly(s);
    p_wait_for(&p, "non-properly terminated");
    T_OK(pysock_close(s));
    pysock_ssl_context_release(ctx);
}

T_TEST(a_killed_gnutls_serv_is_a_ragged_end, 120) {
    P_NEED("gnutls-serv");
    static p_process p;
    int port;
    pysock *s;
    pysock_ssl_context *ctx = t_client_ctx();
    s = start_gnutls_serv(&p, &port, "server-ec", GNUTLS_TLS12, NULL);
    shake_well(s, &p, ctx, "localhost", BLOCKING);
    t_say(s, "hello\n");
    t_expect(s, "hello\n");
    T_EQ(kill(p.pid, SIGKILL), 0);
    read_to_end(s, 0);
    T_OK(pysock_close(s));
    pysock_ssl_context_release(ctx);
}

/* ==== gnutls-cli ==== */

enum { REPORTS, DATA_ONLY };

/* Its stdout has reports, line by line as they come, or the data alone and in large pieces. */
static void start_gnutls_cli(p_process *p, int port, int output, const char *priority, ...) {
    p_args args = {{NULL}, 0};
    const char *option;
    va_list options;
    if (output == DATA_ONLY)
        p_add(&args, "gnutls-cli", "--logfile=/dev/stderr", NULL);
    else
        p_add(&args, "stdbuf", "-oL", "gnutls-cli", NULL);
    p_add(&args, "--x509cafile", CA, "--verify-hostname", "localhost", "--priority", priority,
          "--port", p_format("%d", port), NULL);
    va_start(options, priority);
    while ((option = va_arg(options, const char *)) != NULL)
        p_add(&args, option, NULL);
    va_end(options);
    p_add(&args, "127.0.0.1", NULL);
    p_start(p, &args);
}

static void bulk_with_gnutls_cli(const char *cert, const char *priority, int mode) {
    static p_process p;
    int port;
    pysock_ssl_context *ctx = t_server_ctx_of(cert);
    pysock *listener = t_listen(&port), *s;
    start_gnutls_cli(&p, port, DATA_ONLY, priority, "--sni-hostname", "localhost", NULL);
    s = accept_from(&p, listener);
    shake_well(s, &p, ctx, NULL, mode);
    /* It writes what it gets byte by byte. */
    exchange_part(s, &p, 0, BULK / 8);
    T_OK(pysock_close(s));
    T_EQ(p_exit_status(&p), 0);
    T_CHECK(p_has_said(&p, "Peer has closed the GnuTLS connection"));
    p_end(&p);
    T_OK(pysock_close(listener));
    pysock_ssl_context_release(ctx);
}

T_TEST(bulk_data_goes_both_ways_with_gnutls_cli, 300) {
    P_NEED("gnutls-cli");
    bulk_with_gnutls_cli("server-ec", GNUTLS_TLS12, BLOCKING);
    bulk_with_gnutls_cli("server-rsa", GNUTLS_TLS12, NON_BLOCKING);
}

T_TEST(gnutls_cli_that_offers_tls13_agrees_on_tls12, 300) {
    P_NEED("gnutls-cli");
    bulk_with_gnutls_cli("chain-ec", "NORMAL", BLOCKING);
}

/* It connects twice by itself, the second time with the session of the first. */
T_TEST(gnutls_cli_resumes_a_session, 120) {
    P_NEED("gnutls-cli");
    static p_process p;
    int port;
    pysock_ssl_context *ctx = t_server_ctx();
    pysock *listener = t_listen(&port), *s;
    start_gnutls_cli(&p, port, REPORTS, "NORMAL", "--sni-hostname", "localhost", "--resume", NULL);
    s = accept_from(&p, listener);
    shake_well(s, &p, ctx, NULL, BLOCKING);
    T_EQ(pysock_ssl_session_reused(s), 0);
    T_STEP("second connection");
    T_OK(pysock_close(s));
    s = accept_from(&p, listener);
    shake_well(s, &p, ctx, NULL, BLOCKING);
    T_EQ(pysock_ssl_session_reused(s), 1);
    p_wait_for(&p, "*** This is a resumed session");
    T_OK(pysock_close(s));
    T_EQ(p_exit_status(&p), 0);
    T_OK(pysock_close(listener));
    pysock_ssl_context_release(ctx);
}

T_TEST(gnutls_cli_refuses_our_wrong_certificates, 240) {
    P_NEED("gnutls-cli");
    int port;
    pysock *listener = t_listen(&port);
    for (size_t i = 0; i < BAD_COUNT; i++) {
        static p_process p;
        h_outcome o;
        pysock_ssl_context *ctx = t_server_ctx_of(bad_certificates[i].name);
        pysock *s;
        T_STEP("%s", bad_certificates[i].name);
        start_gnutls_cli(&p, port, REPORTS, "NORMAL", "--sni-hostname", "localhost", NULL);
        s = accept_from(&p, listener);
        o = shake(s, ctx, NULL, i % 2 ? NON_BLOCKING : BLOCKING);
        h_is_alert(&o, "ALERT_BAD_CERTIFICATE");
        T_OK(pysock_close(s));
        T_EQ(p_exit_status(&p), 1);
        T_CHECK(p_has_said(&p, "PKI verification of server certificate failed"));
        p_end(&p);
        pysock_ssl_context_release(ctx);
    }
    T_OK(pysock_close(listener));
}

T_TEST(alpn_and_sni_arrive_from_gnutls_cli, 120) {
    P_NEED("gnutls-cli");
    static const char *const protocols[] = {"http/1.1"};
    static p_process p;
    int port;
    pysock_ssl_context *ctx = t_server_ctx();
    pysock *listener = t_listen(&port), *s;
    T_OK(pysock_ssl_set_alpn_protocols(ctx, protocols, 1));
    start_gnutls_cli(&p, port, REPORTS, "NORMAL", "--sni-hostname", "c.example.test", "--alpn",
                     "h2", "--alpn", "http/1.1", NULL);
    s = accept_from(&p, listener);
    shake_well(s, &p, ctx, NULL, BLOCKING);
    H_SAME(t_alpn(s), "http/1.1");
    H_SAME(t_server_hostname(s), "c.example.test");
    p_wait_for(&p, "Application protocol: http/1.1");
    T_OK(pysock_close(s));
    T_OK(pysock_close(listener));
    pysock_ssl_context_release(ctx);
}

T_TEST(ends_with_gnutls_cli_are_told_apart_by_both, 120) {
    P_NEED("gnutls-cli");
    static p_process p;
    int port;
    pysock_ssl_context *ctx = t_server_ctx();
    pysock *listener = t_listen(&port), *s;
    T_STEP("it ends cleanly");
    start_gnutls_cli(&p, port, REPORTS, "NORMAL", NULL);
    s = accept_from(&p, listener);
    shake_well(s, &p, ctx, NULL, BLOCKING);
    p_close_fd(&p.in);
    read_to_end(s, 1);
    T_OK(pysock_close(s));
    p_end(&p);

    T_STEP("it is killed");
    start_gnutls_cli(&p, port, REPORTS, "NORMAL", NULL);
    s = accept_from(&p, listener);
    shake_well(s, &p, ctx, NULL, BLOCKING);
    p_wait_for(&p, "Simple Client Mode");
    T_EQ(kill(p.pid, SIGKILL), 0);
    read_to_end(s, 0);
    T_OK(pysock_close(s));
    p_end(&p);

    T_STEP("we end raggedly");
    start_gnutls_cli(&p, port, REPORTS, "NORMAL", NULL);
    s = accept_from(&p, listener);
    shake_well(s, &p, ctx, NULL, BLOCKING);
    close_raggedly(s);
    p_wait_for(&p, "non-properly terminated");
    T_OK(pysock_close(s));
    T_OK(pysock_close(listener));
    pysock_ssl_context_release(ctx);
}

/* ==== nginx ==== */

static const char nginx_config[] =
    "daemon off;\n"
    "master_process off;\n"
    "pid nginx.pid;\n"
    "error_log stderr info;\n"
    "events { worker_connections 64; }\n"
    "http {\n"
    "    access_log off;\n"
    "    client_body_temp_path body;\n"
    "    proxy_temp_path proxy;\n"
    "    fastcgi_temp_path fastcgi;\n"
    "    uwsgi_temp_path uwsgi;\n"
    "    scgi_temp_path scgi;\n"
    "    client_max_body_size 64m;\n"
    "    ssl_protocols TLSv1.2 TLSv1.3;\n"
    "    ssl_session_cache builtin:100;\n"
    "    ssl_session_tickets off;\n"
    "    server {\n"
    "        listen 127.0.0.1:" P_PORT " ssl;\n"
    "        server_name localhost;\n"
    "        ssl_certificate %s/server-ec.pem;\n"
    "        ssl_certificate_key %s/server-ec.key;\n"
    "        root files;\n"
    "        dav_methods PUT;\n"
    "        add_header X-Session \"<$ssl_session_reused>\" always;\n"
    "        add_header X-Name \"<$ssl_server_name>\" always;\n"
    "    }\n"
    "    server {\n"
    "        listen 127.0.0.1:" P_PORT " ssl;\n"
    "        server_name a.example.test;\n"
    "        ssl_certificate %s/server-rsa.pem;\n"
    "        ssl_certificate_key %s/server-rsa.key;\n"
    "        location / { return 200 \"the other host\"; }\n"
    "    }\n"
    "    server {\n"
    "        listen 127.0.0.1:" P_PORT " ssl;\n"
    "        server_name late.example.test;\n"
    "        ssl_certificate %s/expired.pem;\n"
    "        ssl_certificate_key %s/expired.key;\n"
    "        location / { return 200 \"late\"; }\n"
    "    }\n"
    "}\n";

/* nginx with its own directory under build/; the shell puts the port into its configuration. */
static pysock *start_nginx(p_process *p, int *port) {
    char config[4096], certs[PATH_MAX], dir[PATH_MAX];
    p_args args = {{NULL}, 0};
    if (!realpath(T_CERTS, certs) || !realpath(f_dir(), dir))
        T_FAIL("realpath: %s", strerror(errno));
    if ((size_t)snprintf(config, sizeof config, nginx_config, certs, certs, certs, certs, certs,
                         certs) >= sizeof config)
        T_FAIL("the path of the project is too long");
    f_write_text("nginx.in", config);
    if (mkdir(f_path("files"), 0777) != 0)
        T_FAIL("mkdir: %s", strerror(errno));
    f_write("files/bulk.txt", bulk_text(0), BULK);
    p_add(&args, "sh", "-c",
          "sed \"s/@P[O]RT@/$2/\" \"$1/nginx.in\" >\"$1/nginx.conf\" && "
          "exec nginx -p \"$1\" -c nginx.conf -e stderr",
          "nginx", dir, P_PORT, NULL);
    return p_start_server(p, &args, port);
}

static int nginx_is_missing(void) {
    if (p_is_installed("nginx"))
        return 0;
    /* Debian keeps it where only root's PATH leads. */
    if (access("/usr/sbin/nginx", X_OK) == 0) {
        const char *path = getenv("PATH");
        setenv("PATH", p_format("%s:/usr/sbin", path ? path : "/bin"), 1);
        return 0;
    }
    return 1;
}

#define NEED_NGINX()                                                                               \
    do {                                                                                           \
        if (nginx_is_missing())                                                                    \
            P_NEED("nginx");                                                                       \
    } while (0)

/* Reads a whole response, up to the end of the stream, which must be clean. */
static void read_response(pysock *s, p_text *response) {
    char buf[16384];
    ptrdiff_t n;
    memset(response, 0, sizeof *response);
    while ((n = T_OK(pysock_recv(s, buf, sizeof buf, 0))) > 0)
        p_append(response, buf, (size_t)n);
    T_EQ(pysock_ssl_eof_is_clean(s), 1);
}

static const char *body_of(const p_text *response, size_t *size) {
    const char *end = strstr(p_string(response), "\r\n\r\n");
    if (!end)
        T_FAIL("no response: '%.200s'", p_string(response));
    end += 4;
    *size = response->size - (size_t)(end - response->data);
    return end;
}

static void get(pysock *s, const char *host, const char *path, p_text *response) {
    t_say(s, p_format("GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, host));
    read_response(s, response);
}

T_TEST(bulk_data_goes_both_ways_with_nginx, 240) {
    NEED_NGINX();
    static p_process p;
    p_text response;
    int port;
    size_t size;
    const char *body;
    char *uploaded;
    pysock *s;
    pysock_ssl_context *ctx = t_client_ctx();
    s = start_nginx(&p, &port);
    T_STEP("download");
    shake_well(s, &p, ctx, "localhost", BLOCKING);
    get(s, "localhost", "/bulk.txt", &response);
    body = body_of(&response, &size);
    same_bulk(body, size, 0, "from nginx");
    free(response.data);
    T_OK(pysock_close(s));

    T_STEP("upload");
    s = p_connect(&p, port);
    shake_well(s, &p, ctx, "localhost", NON_BLOCKING);
    t_say(s, p_format("PUT /up.txt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                      "Content-Length: %zu\r\n\r\n",
                      BULK));
    T_OK(pysock_sendall(s, bulk_text(1), BULK, 0));
    read_response(s, &response);
    H_CONTAINS(response.data, "201 Created");
    free(response.data);
    T_OK(pysock_close(s));
    uploaded = f_read(f_path("files/up.txt"), &size);
    same_bulk(uploaded, size, 1, "at nginx");
    free(uploaded);
    pysock_ssl_context_release(ctx);
}

T_TEST(a_session_is_resumed_with_nginx, 120) {
    NEED_NGINX();
    static p_process p;
    p_text response;
    int port;
    pysock *s;
    pysock_ssl_context *ctx = t_client_ctx();
    s = start_nginx(&p, &port);
    for (int turn = 0; turn < 3; turn++) {
        T_STEP("turn %d", turn);
        shake_well(s, &p, ctx, "localhost", turn == 1 ? NON_BLOCKING : BLOCKING);
        T_EQ(pysock_ssl_session_reused(s), turn > 0);
        get(s, "localhost", "/none", &response);
        H_CONTAINS(response.data, turn ? "X-Session: <r>" : "X-Session: <.>");
        free(response.data);
        T_OK(pysock_close(s));
        s = p_connect(&p, port);
    }
    T_OK(pysock_close(s));
    pysock_ssl_context_release(ctx);
}

T_TEST(nginx_chooses_its_host_by_our_sni, 120) {
    NEED_NGINX();
    P_NEED("openssl");
    static const char *const protocols[] = {"http/1.1"};
    static p_process p;
    p_text response;
    int port;
    pysock *s;
    pysock_ssl_context *ctx = t_client_ctx();
    T_OK(pysock_ssl_set_alpn_protocols(ctx, protocols, 1));
    s = start_nginx(&p, &port);
    shake_well(s, &p, ctx, "a.example.test", BLOCKING);
    same_der(s, p_cert_file("server-rsa"));
    H_SAME(t_alpn(s), "http/1.1");
    get(s, "a.example.test", "/", &response);
    H_CONTAINS(response.data, "the other host");
    free(response.data);
    T_OK(pysock_close(s));

    s = p_connect(&p, port);
    shake_well(s, &p, ctx, "localhost", BLOCKING);
    same_der(s, p_cert_file("server-ec"));
    get(s, "localhost", "/none", &response);
    H_CONTAINS(response.data, "X-Name: <localhost>");
    free(response.data);
    T_OK(pysock_close(s));
    pysock_ssl_context_release(ctx);
}

T_TEST(nginx_with_a_wrong_certificate_is_refused, 120) {
    NEED_NGINX();
    static p_process p;
    int port;
    h_outcome o;
    pysock *s;
    pysock_ssl_context *ctx = t_client_ctx();
    pysock_ssl_context *suspicious = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    T_OK(pysock_ssl_load_verify_locations(suspicious, T_CERTS "other-ca.pem", NULL));
    s = start_nginx(&p, &port);
    T_STEP("untrusted");
    o = shake(s, suspicious, "localhost", BLOCKING);
    h_is_refusal(&o, 20, "unable to get local issuer certificate");
    p_wait_for(&p, "SSL alert number 48");
    T_OK(pysock_close(s));

    T_STEP("wrong host");
    s = p_connect(&p, port);
    o = shake(s, ctx, "nowhere.test", NON_BLOCKING);
    h_is_refusal(&o, 62, "hostname mismatch");
    T_OK(pysock_close(s));

    T_STEP("expired");
    s = p_connect(&p, port);
    o = shake(s, ctx, "late.example.test", BLOCKING);
    h_is_refusal(&o, 10, "certificate has expired");
    p_wait_for(&p, "SSL alert number 45");
    T_OK(pysock_close(s));
    pysock_ssl_context_release(ctx);
    pysock_ssl_context_release(suspicious);
}

/* ==== curl ==== */

static void start_curl(p_process *p, int port, const char *host, const char *ca, ...) {
    p_args args = {{NULL}, 0};
    const char *option;
    va_list options;
    p_add(&args, "curl", "-q", "-s", "-S", "-v", "--noproxy", "*", "--max-time", "100", "--cacert",
          ca, "--resolve", p_format("%s:%d:127.0.0.1", host, port), NULL);
    va_start(options, ca);
    while ((option = va_arg(options, const char *)) != NULL)
        p_add(&args, option, NULL);
    va_end(options);
    p_start(p, &args);
}

/* Reads a request up to its empty line; what came after that is left in rest. */
static void read_request(pysock *s, char *head, size_t size, p_text *rest) {
    size_t have = 0;
    const char *end;
    memset(rest, 0, sizeof *rest);
    head[0] = 0;
    while (!(end = strstr(head, "\r\n\r\n"))) {
        ptrdiff_t n = T_OK(pysock_recv(s, head + have, size - 1 - have, 0));
        T_CHECK(n > 0);
        have += (size_t)n;
        head[have] = 0;
    }
    end += 4;
    p_append(rest, end, have - (size_t)(end - head));
}

static void respond(pysock *s, const char *body, size_t announced, size_t size) {
    t_say(s, p_format("HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
                      announced));
    T_OK(pysock_sendall(s, body, size, 0));
}

T_TEST(bulk_data_goes_both_ways_with_curl, 240) {
    P_NEED("curl");
    static p_process p;
    p_text body;
    int port;
    char head[8192];
    char *downloaded;
    size_t size;
    const char *upload, *output;
    pysock_ssl_context *ctx = t_server_ctx_of("server-rsa");
    pysock *listener = t_listen(&port), *s;
    upload = f_write("upload.txt", bulk_text(1), BULK);
    output = f_path("download.txt");
    start_curl(&p, port, "localhost", CA, "-H", "Expect:", "-T", upload, "-o", output,
               p_format("https://localhost:%d/there", port), NULL);
    s = accept_from(&p, listener);
    shake_well(s, &p, ctx, NULL, BLOCKING);
    H_SAME(t_server_hostname(s), "localhost");
    read_request(s, head, sizeof head, &body);
    H_CONTAINS(head, "PUT /there");
    while (body.size < BULK) {
        char buf[10007];
        ptrdiff_t n = T_OK(pysock_recv(s, buf, sizeof buf, 0));
        T_CHECK(n > 0);
        p_append(&body, buf, (size_t)n);
    }
    same_bulk(body.data, body.size, 1, "from curl");
    free(body.data);
    respond(s, bulk_text(0), BULK, BULK);
    T_OK(pysock_close(s));
    if (p_exit_status(&p) != 0)
        P_FAIL(&p, "curl failed");
    downloaded = f_read(output, &size);
    same_bulk(downloaded, size, 0, "at curl");
    free(downloaded);
    T_OK(pysock_close(listener));
    pysock_ssl_context_release(ctx);
}

T_TEST(curl_resumes_a_session, 120) {
    P_NEED("curl");
    static const char *const protocols[] = {"http/1.1"};
    static p_process p;
    p_text rest;
    int port;
    char head[8192];
    const char *url;
    pysock_ssl_context *ctx = t_server_ctx();
    pysock *listener = t_listen(&port), *s;
    T_OK(pysock_ssl_set_alpn_protocols(ctx, protocols, 1));
    url = p_format("https://localhost:%d/", port);
    start_curl(&p, port, "localhost", CA, url, url, NULL);
    for (int turn = 0; turn < 2; turn++) {
        T_STEP("turn %d", turn);
        s = accept_from(&p, listener);
        shake_well(s, &p, ctx, NULL, turn ? NON_BLOCKING : BLOCKING);
        T_EQ(pysock_ssl_session_reused(s), turn);
        H_SAME(t_alpn(s), "http/1.1");
        read_request(s, head, sizeof head, &rest);
        free(rest.data);
        respond(s, "well\n", 5, 5);
        T_OK(pysock_close(s));
    }
    if (p_exit_status(&p) != 0)
        P_FAIL(&p, "curl failed");
    H_SAME(p_string(&p.said), "well\nwell\n");
    T_CHECK(p_has_said(&p, "session ID"));
    T_OK(pysock_close(listener));
    pysock_ssl_context_release(ctx);
}

T_TEST(curl_refuses_our_wrong_certificates, 240) {
    P_NEED("curl");
    static const struct {
        const char *cert, *host, *ca, *words;
    } cases[] = {
        {"server-ec", "localhost", T_CERTS "other-ca.pem", "unable to get local issuer"},
        {"untrusted", "localhost", CA, "unable to get local issuer"},
        {"self-signed", "localhost", CA, "self"},
        {"expired", "localhost", CA, "expired"},
        {"not-yet-valid", "localhost", CA, "not yet valid"},
        {"wrong-host", "localhost", CA, "localhost"},
        {"server-ec", "nowhere.test", CA, "nowhere.test"},
    };
    int port;
    pysock *listener = t_listen(&port);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        static p_process p;
        h_outcome o;
        char byte;
        pysock_ssl_context *ctx = t_server_ctx_of(cases[i].cert);
        pysock *s;
        T_STEP("case %zu, %s", i, cases[i].cert);
        /* The system's own authorities must not be asked either. */
        start_curl(&p, port, cases[i].host, cases[i].ca, "--capath", f_dir(),
                   p_format("https://%s:%d/", cases[i].host, port), NULL);
        s = accept_from(&p, listener);
        o = shake(s, ctx, NULL, BLOCKING);
        /* It looks at the name when the handshake is over, and hangs up then. */
        if (o.result == 0)
            T_CHECK(pysock_recv(s, &byte, 1, 0) <= 0);
        else
            h_is_alert(&o, "ALERT");
        T_OK(pysock_close(s));
        T_EQ(p_exit_status(&p), 60);
        T_CHECK(p_has_said(&p, cases[i].words));
        p_end(&p);
        pysock_ssl_context_release(ctx);
    }
    T_OK(pysock_close(listener));
}

T_TEST(curl_notices_a_response_that_is_cut_off, 120) {
    P_NEED("curl");
    static p_process p;
    p_text rest;
    int port;
    char head[8192];
    pysock_ssl_context *ctx = t_server_ctx();
    pysock *listener = t_listen(&port), *s;
    start_curl(&p, port, "localhost", CA, p_format("https://localhost:%d/", port), NULL);
    s = accept_from(&p, listener);
    shake_well(s, &p, ctx, NULL, BLOCKING);
    read_request(s, head, sizeof head, &rest);
    free(rest.data);
    respond(s, "well", 1000, 4);
    close_raggedly(s);
    T_CHECK(p_exit_status(&p) != 0);
    T_OK(pysock_close(s));
    T_OK(pysock_close(listener));
    pysock_ssl_context_release(ctx);
}

/* ==== python3 ==== */

static pysock *start_python_server(p_process *p, int *port, const char *cert, ...) {
    p_args args = {{NULL}, 0};
    const char *option;
    va_list options;
    p_add(&args, "python3", "tests/peers/peer.py", "server", "--port", P_PORT, "--cert",
          p_cert_file(cert), "--key", p_key_file(cert), NULL);
    va_start(options, cert);
    while ((option = va_arg(options, const char *)) != NULL)
        p_add(&args, option, NULL);
    va_end(options);
    return p_start_server(p, &args, port);
}

static void start_python_client(p_process *p, int port, ...) {
    p_args args = {{NULL}, 0};
    const char *option;
    va_list options;
    p_add(&args, "python3", "tests/peers/peer.py", "client", "--port", p_format("%d", port), "--ca",
          CA, NULL);
    va_start(options, port);
    while ((option = va_arg(options, const char *)) != NULL)
        p_add(&args, option, NULL);
    va_end(options);
    p_start(p, &args);
}

static void *send_bulk(void *arg) {
    T_OK(pysock_sendall(arg, bulk_text(0), BULK, 0));
    return NULL;
}

/* Blocking calls in two threads: one writes, the other reads. */
static void echo_with_two_threads(pysock *s) {
    t_thread sender;
    char *received = malloc(BULK);
    T_CHECK(received != NULL);
    bulk_text(0);
    T_OK(pysock_settimeout(s, P_PATIENCE));
    t_spawn(&sender, send_bulk, s);
    t_recv_exactly(s, received, BULK);
    t_join(&sender);
    same_bulk(received, BULK, 0, "echoed by python3");
    free(received);
}

T_TEST(bulk_data_is_echoed_by_python, 240) {
    P_NEED("python3");
    static p_process p;
    int port;
    pysock *s;
    pysock_ssl_context *ctx = t_client_ctx();
    s = start_python_server(&p, &port, "server-rsa", "--tls12", NULL);
    T_STEP("one thread, non-blocking");
    shake_well(s, &p, ctx, "localhost", NON_BLOCKING);
    exchange_bulk(s, &p, 1);
    T_OK(pysock_close(s));
    p_wait_for(&p, p_format("end clean bytes=%zu", BULK));
    p_end(&p);

    T_STEP("two threads, blocking; TLS 1.3 on offer");
    s = start_python_server(&p, &port, "chain-ec", NULL);
    shake_well(s, &p, ctx, "localhost", BLOCKING);
    echo_with_two_threads(s);
    T_OK(pysock_close(s));
    p_wait_for(&p, p_format("end clean bytes=%zu", BULK));
    pysock_ssl_context_release(ctx);
}

T_TEST(a_session_is_resumed_with_a_python_server, 120) {
    P_NEED("python3");
    P_NEED("openssl");
    static p_process p;
    int port;
    pysock *s;
    pysock_ssl_context *ctx = t_client_ctx();
    s = start_python_server(&p, &port, "server-ec", NULL);
    connect_twice(&p, s, port, ctx, "reused=False", "reused=True");
    pysock_ssl_context_release(ctx);
}

T_TEST(a_python_server_with_a_wrong_certificate_is_refused, 240) {
    P_NEED("python3");
    pysock_ssl_context *ctx = t_client_ctx();
    for (size_t i = 0; i < BAD_COUNT; i++) {
        const bad_certificate *bad = &bad_certificates[i];
        static p_process p;
        int port;
        h_outcome o;
        pysock *s = start_python_server(&p, &port, bad->name, NULL);
        T_STEP("%s", bad->name);
        o = shake(s, ctx, "localhost", i % 2 ? NON_BLOCKING : BLOCKING);
        h_is_refusal(&o, bad->verify_code, bad->check);
        p_wait_for(&p, "failed SSLError");
        T_CHECK(p_has_said(&p, bad->alert ? bad->alert_reason : "ALERT_"));
        T_OK(pysock_close(s));
        p_end(&p);
    }
    pysock_ssl_context_release(ctx);
}

T_TEST(alpn_sni_and_ends_are_right_with_a_python_server, 120) {
    P_NEED("python3");
    static const char *const protocols[] = {"pysock/1", "http/1.1"};
    static p_process p;
    int port;
    pysock *s;
    pysock_ssl_context *ctx = t_client_ctx();
    T_OK(pysock_ssl_set_alpn_protocols(ctx, protocols, 2));
    T_STEP("clean");
    s = start_python_server(&p, &port, "server-ec", "--alpn", "h2,http/1.1", "--end", "clean",
                            NULL);
    shake_well(s, &p, ctx, "a.example.test", BLOCKING);
    H_SAME(t_alpn(s), "http/1.1");
    t_expect(s, "bye");
    read_to_end(s, 1);
    T_OK(pysock_close(s));
    p_wait_for(&p, "gone");
    T_CHECK(p_has_said(&p, "alpn=http/1.1 sni=a.example.test"));
    p_end(&p);

    T_STEP("ragged; an address is not sent as SNI");
    s = start_python_server(&p, &port, "server-ec", "--end", "ragged", NULL);
    shake_well(s, &p, ctx, "127.0.0.1", BLOCKING);
    T_CHECK(t_alpn(s) == NULL);
    t_expect(s, "bye");
    read_to_end(s, 0);
    T_OK(pysock_close(s));
    p_wait_for(&p, "gone");
    T_CHECK(p_has_said(&p, "alpn=None sni=None"));
    pysock_ssl_context_release(ctx);
}

T_TEST(unwrap_ends_tls_with_a_python_server, 120) {
    P_NEED("python3");
    static p_process p;
    int port;
    char byte;
    pysock *s;
    pysock_ssl_context *ctx = t_client_ctx();
    s = start_python_server(&p, &port, "server-ec", NULL);
    shake_well(s, &p, ctx, "localhost", BLOCKING);
    t_say(s, "hello");
    t_expect(s, "hello");
    T_OK(pysock_ssl_unwrap(s));
    T_EQ(pysock_is_ssl(s), 0);
    T_EQ(pysock_recv(s, &byte, 1, 0), 0);
    p_wait_for(&p, "end clean bytes=5 ");
    T_OK(pysock_close(s));
    pysock_ssl_context_release(ctx);
}

static void echo_until_end(pysock *s) {
    char buf[10007];
    ptrdiff_t n;
    while ((n = T_OK(pysock_recv(s, buf, sizeof buf, 0))) > 0)
        T_OK(pysock_sendall(s, buf, (size_t)n, 0));
}

T_TEST(a_python_client_gets_its_bulk_back_and_resumes, 240) {
    P_NEED("python3");
    static p_process p;
    int port;
    pysock_ssl_context *ctx = t_server_ctx_of("server-rsa");
    pysock *listener = t_listen(&port), *s;
    for (int tls12 = 0; tls12 < 2; tls12++) {
        start_python_client(&p, port, "--times", "2", "--size", p_format("%zu", BULK),
                            tls12 ? "--tls12" : NULL, NULL);
        for (int turn = 0; turn < 2; turn++) {
            T_STEP("turn %d", turn);
            s = accept_from(&p, listener);
            shake_well(s, &p, ctx, NULL, turn ? NON_BLOCKING : BLOCKING);
            T_EQ(pysock_ssl_session_reused(s), turn);
            echo_until_end(s);
            T_EQ(pysock_ssl_eof_is_clean(s), 1);
            T_OK(pysock_close(s));
        }
        if (p_exit_status(&p) != 0)
            P_FAIL(&p, "the client failed");
        T_CHECK(p_has_said(&p, "reused=False") && p_has_said(&p, "reused=True"));
        p_end(&p);
    }
    T_OK(pysock_close(listener));
    pysock_ssl_context_release(ctx);
}

T_TEST(a_python_client_refuses_our_wrong_certificates, 240) {
    P_NEED("python3");
    int port;
    pysock *listener = t_listen(&port);
    for (size_t i = 0; i < BAD_COUNT; i++) {
        const bad_certificate *bad = &bad_certificates[i];
        static p_process p;
        h_outcome o;
        pysock_ssl_context *ctx = t_server_ctx_of(bad->name);
        pysock *s;
        T_STEP("%s", bad->name);
        start_python_client(&p, port, NULL);
        s = accept_from(&p, listener);
        o = shake(s, ctx, NULL, i % 2 ? NON_BLOCKING : BLOCKING);
        h_is_alert(&o, bad->alert_reason);
        T_OK(pysock_close(s));
        T_EQ(p_exit_status(&p), 1);
        T_CHECK(p_has_said(&p, p_format("failed SSLCertVerificationError "
                                        "reason=CERTIFICATE_VERIFY_FAILED code=%d",
                                        bad->verify_code)));
        p_end(&p);
        pysock_ssl_context_release(ctx);
    }
    T_OK(pysock_close(listener));
}

T_TEST(alpn_sni_and_ends_are_right_with_a_python_client, 120) {
    P_NEED("python3");
    static const char *const protocols[] = {"http/1.1", "h2"};
    static p_process p;
    int port;
    pysock_ssl_context *ctx = t_server_ctx();
    pysock *listener = t_listen(&port), *s;
    T_OK(pysock_ssl_set_alpn_protocols(ctx, protocols, 2));
    T_STEP("it ends raggedly");
    start_python_client(&p, port, "--host", "a.example.test", "--alpn", "h2,http/1.1", "--end",
                        "ragged", NULL);
    s = accept_from(&p, listener);
    shake_well(s, &p, ctx, NULL, BLOCKING);
    H_SAME(t_alpn(s), "http/1.1");
    H_SAME(t_server_hostname(s), "a.example.test");
    echo_until_end(s);
    T_EQ(pysock_ssl_eof_is_clean(s), 0);
    T_OK(pysock_close(s));
    T_EQ(p_exit_status(&p), 0);
    T_CHECK(p_has_said(&p, "alpn=http/1.1"));
    p_end(&p);

    for (int clean = 0; clean < 2; clean++) {
        T_STEP("we end %s", clean ? "cleanly" : "raggedly");
        start_python_client(&p, port, "--end", "wait", NULL);
        s = accept_from(&p, listener);
        shake_well(s, &p, ctx, NULL, BLOCKING);
        if (!clean)
            close_raggedly(s);
        T_OK(pysock_close(s));
        T_EQ(p_exit_status(&p), 0);
        T_CHECK(p_has_said(&p, clean ? "end clean" : "end ragged"));
        p_end(&p);
    }
    T_OK(pysock_close(listener));
    pysock_ssl_context_release(ctx);
}

T_MAIN(.each_teardown = p_clear_away)
