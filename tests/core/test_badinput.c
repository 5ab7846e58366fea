/* Every public function with what it should never be given: NULL, closed and made-up handles, the
   wrong state, names too long, sizes and ports out of range, files that are no certificates. Each
   time an error with a message, never a crash. */
#include "support/contexts.h"

/* Sizes that no allocator can serve are asked for on purpose. */
#if T_ASAN
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "allocator_may_return_null=1";
}
#endif
#if T_TSAN
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) {
    return "allocator_may_return_null=1";
}
#endif

/* ---- every function of a socket, with a handle that is none ---- */

static char scratch[64];
static pysock_addr some_addr;
static pysock_buf *some_buf;
static pysock_ssl_wrap_options no_options = PYSOCK_SSL_WRAP_OPTIONS_INIT;

#define CALL(name, expr)                                                                           \
    static intptr_t call_##name(pysock *s) {                                                       \
        return (intptr_t)(expr);                                                                   \
    }

CALL(connect, pysock_connect(s, "127.0.0.1", 9))
CALL(connect_addr, pysock_connect_addr(s, &some_addr))
CALL(connect_ex, pysock_connect_ex(s, "127.0.0.1", 9) > 0 ? -1 : 0)
CALL(bind, pysock_bind(s, "127.0.0.1", 0))
CALL(bind_addr, pysock_bind_addr(s, &some_addr))
CALL(listen, pysock_listen(s, 5))
CALL(accept, pysock_accept(s, &some_addr) ? 0 : -1)
CALL(recv, pysock_recv(s, scratch, sizeof scratch, 0))
CALL(recv_into, pysock_recv_into(s, scratch, sizeof scratch, 0))
CALL(send, pysock_send(s, scratch, 1, 0))
CALL(sendall, pysock_sendall(s, scratch, 1, 0))
CALL(shutdown, pysock_shutdown(s, SHUT_RDWR))
CALL(fileno, pysock_fileno(s))
CALL(getsockname, pysock_getsockname(s, &some_addr))
CALL(getpeername, pysock_getpeername(s, &some_addr))
CALL(setblocking, pysock_setblocking(s, 1))
CALL(settimeout, pysock_settimeout(s, 1))
CALL(setsockopt_int, pysock_setsockopt_int(s, SOL_SOCKET, SO_KEEPALIVE, 1))
CALL(recv_buf, pysock_recv_buf(s, 10) ? 0 : -1)
CALL(send_buf, pysock_send_buf(s, some_buf))
CALL(set_watermarks, pysock_set_watermarks(s, 1, 2))
CALL(queued, pysock_queued(s))
CALL(wrap_client, pysock_ssl_wrap_socket(s, client_ctx, "localhost"))
CALL(wrap_server, pysock_ssl_wrap_socket(s, server_ctx, NULL))
CALL(wrap_ex, pysock_ssl_wrap_socket_ex(s, server_ctx, &no_options))
CALL(do_handshake, pysock_ssl_do_handshake(s))
CALL(unwrap, pysock_ssl_unwrap(s))
CALL(getpeercert, pysock_ssl_getpeercert_der(s) ? 0 : -1)

static intptr_t call_setsockopt(pysock *s) {
    int on = 1;
    return pysock_setsockopt(s, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

static intptr_t call_getsockopt(pysock *s) {
    int on = 1;
    socklen_t len = sizeof on;
    return pysock_getsockopt(s, SOL_SOCKET, SO_KEEPALIVE, &on, &len);
}

static intptr_t call_getsockopt_int(pysock *s) {
    int on = 1;
    return pysock_getsockopt_int(s, SOL_SOCKET, SO_KEEPALIVE, &on);
}

static intptr_t call_cipher(pysock *s) {
    pysock_ssl_cipher_info info;
    return pysock_ssl_cipher(s, &info);
}

/* clang-format off */
#define ENTRY(name) {#name, call_##name}
/* clang-format on */

static const struct {
    const char *name;
    intptr_t (*call)(pysock *s);
} calls[] = {
    ENTRY(connect),        ENTRY(connect_addr), ENTRY(connect_ex),     ENTRY(bind),
    ENTRY(bind_addr),      ENTRY(listen),       ENTRY(accept),         ENTRY(recv),
    ENTRY(recv_into),      ENTRY(send),         ENTRY(sendall),        ENTRY(shutdown),
    ENTRY(fileno),         ENTRY(getsockname),  ENTRY(getpeername),    ENTRY(setblocking),
    ENTRY(settimeout),     ENTRY(setsockopt),   ENTRY(setsockopt_int), ENTRY(getsockopt),
    ENTRY(getsockopt_int), ENTRY(recv_buf),     ENTRY(send_buf),       ENTRY(set_watermarks),
    ENTRY(queued),         ENTRY(wrap_client),  ENTRY(wrap_server),    ENTRY(wrap_ex),
    ENTRY(do_handshake),   ENTRY(unwrap),       ENTRY(cipher),         ENTRY(getpeercert),
};
#define CALLS (sizeof calls / sizeof calls[0])

/* Functions that have no way to fail, and still must not crash. */
static void ask_what_cannot_fail(pysock *s) {
    T_CHECK(pysock_gettimeout(s) == PYSOCK_NO_TIMEOUT);
    T_EQ(pysock_is_ssl(s), 0);
    T_CHECK(pysock_ssl_version(s) == NULL);
    T_CHECK(t_alpn(s) == NULL);
    T_CHECK(t_server_hostname(s) == NULL);
    T_EQ(pysock_ssl_session_reused(s), 0);
    T_EQ(pysock_ssl_pending(s), -1);
    T_EQ(pysock_ssl_eof_is_clean(s), 0);
}

static void call_everything(pysock *s, int kind, int code) {
    some_buf = T_OK(pysock_buf_copy("x", 1));
    T_OK(pysock_addr_parse(&some_addr, "127.0.0.1:9"));
    for (size_t i = 0; i < CALLS; i++) {
        T_STEP("%s", calls[i].name);
        T_FAILS(calls[i].call(s), kind, code);
    }
    T_STEP("what cannot fail");
    ask_what_cannot_fail(s);
    pysock_buf_release(some_buf);
}

T_TEST(every_call_refuses_NULL, 30) {
    call_everything(NULL, PYSOCK_VALUE_ERROR, EINVAL);
    T_EQ(pysock_close(NULL), 0);
}

T_TEST(every_call_refuses_a_closed_socket, 60) {
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        if (tls)
            t_tls_pair(pair, client_ctx, server_ctx);
        else
            t_pair(pair);
        t_close_pair(pair);
        call_everything(pair[0], PYSOCK_OS_ERROR, EBADF);
        T_EQ(pysock_close(pair[0]), 0);
    }
}

T_TEST(every_call_refuses_a_handle_that_never_was, 60) {
    static const uintptr_t made_up[] = {
        1, 16, 4096, (uintptr_t)UINT64_C(0x7fff12345678), UINTPTR_MAX, UINTPTR_MAX - 15};
    int here = 0;
    for (size_t i = 0; i < sizeof made_up / sizeof made_up[0]; i++) {
        T_STEP("handle %zu", i);
        call_everything((pysock *)made_up[i], T_ANY, T_ANY);
        (void)pysock_close((pysock *)made_up[i]);
    }
    call_everything((pysock *)(void *)&here, T_ANY, T_ANY);
    call_everything((pysock *)(void *)calls, T_ANY, T_ANY);
}

/* ---- the wrong state ---- */

T_TEST(a_socket_that_is_not_connected_says_so, 30) {
    pysock *s;
    pysock_addr addr;
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_FAILS(pysock_recv(s, scratch, 1, 0), PYSOCK_OS_ERROR, ENOTCONN);
    T_FAILS(pysock_recv_buf(s, 1), PYSOCK_OS_ERROR, ENOTCONN);
    T_FAILS(pysock_send(s, "x", 1, 0), PYSOCK_OS_ERROR, T_ANY);
    T_FAILS(pysock_sendall(s, "x", 1, 0), PYSOCK_OS_ERROR, T_ANY);
    T_FAILS(pysock_getpeername(s, &addr), PYSOCK_OS_ERROR, ENOTCONN);
    T_FAILS(pysock_shutdown(s, SHUT_RDWR), PYSOCK_OS_ERROR, ENOTCONN);
    T_FAILS(pysock_accept(s, NULL), PYSOCK_OS_ERROR, EINVAL);
    T_STEP("with TLS around it");
    T_OK(pysock_ssl_wrap_socket(s, client_ctx, "localhost"));
    T_FAILS(pysock_recv(s, scratch, 1, 0), T_ANY, T_ANY);
    T_FAILS(pysock_send(s, "x", 1, 0), T_ANY, T_ANY);
    T_FAILS(pysock_ssl_do_handshake(s), T_ANY, T_ANY);
    T_FAILS(pysock_ssl_unwrap(s), T_ANY, T_ANY);
    T_FAILS(call_cipher(s), T_ANY, T_ANY);
    T_FAILS(pysock_ssl_getpeercert_der(s), T_ANY, T_ANY);
    T_CHECK(pysock_ssl_version(s) == NULL);
    T_OK(pysock_close(s));
}

T_TEST(a_connected_socket_cannot_begin_again, 60) {
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        T_STEP("%s", tls ? "TLS" : "plain");
        if (tls)
            t_tls_pair(pair, client_ctx, server_ctx);
        else
            t_pair(pair);
        T_FAILS(pysock_connect(pair[0], "127.0.0.1", 9), PYSOCK_OS_ERROR, EISCONN);
        T_FAILS(pysock_listen(pair[0], 5), PYSOCK_OS_ERROR, EINVAL);
        T_FAILS(pysock_accept(pair[0], NULL), PYSOCK_OS_ERROR, EINVAL);
        T_FAILS(pysock_bind(pair[0], "127.0.0.1", 0), PYSOCK_OS_ERROR, EINVAL);
        T_STEP("and works all the same");
        t_say(pair[0], "fine");
        t_expect(pair[1], "fine");
        t_close_pair(pair);
    }
}

T_TEST(a_listening_socket_neither_sends_nor_receives, 30) {
    int port;
    pysock *listener;
    pysock_addr addr;
    listener = t_listen(&port);
    T_FAILS(pysock_recv(listener, scratch, 1, 0), PYSOCK_OS_ERROR, T_ANY);
    T_FAILS(pysock_send(listener, "x", 1, 0), PYSOCK_OS_ERROR, T_ANY);
    T_FAILS(pysock_getpeername(listener, &addr), PYSOCK_OS_ERROR, ENOTCONN);
    T_FAILS(pysock_connect(listener, "127.0.0.1", port), PYSOCK_OS_ERROR, EISCONN);
    T_STEP("with TLS around it");
    T_OK(pysock_ssl_wrap_socket(listener, server_ctx, NULL));
    T_FAILS(pysock_recv(listener, scratch, 1, 0), T_ANY, T_ANY);
    T_FAILS(pysock_send(listener, "x", 1, 0), T_ANY, T_ANY);
    T_FAILS(pysock_ssl_do_handshake(listener), T_ANY, T_ANY);
    T_FAILS(pysock_ssl_unwrap(listener), T_ANY, T_ANY);
    T_FAILS(pysock_ssl_wrap_socket(listener, server_ctx, NULL), T_ANY, T_ANY);
    T_OK(pysock_close(listener));
}

T_TEST(tls_calls_refuse_a_plain_socket, 30) {
    pysock *pair[2];
    t_pair(pair);
    T_FAILS(pysock_ssl_do_handshake(pair[0]), T_ANY, T_ANY);
    T_FAILS(pysock_ssl_unwrap(pair[0]), T_ANY, T_ANY);
    T_FAILS(call_cipher(pair[0]), T_ANY, T_ANY);
    T_FAILS(pysock_ssl_getpeercert_der(pair[0]), T_ANY, T_ANY);
    ask_what_cannot_fail(pair[0]);
    t_say(pair[0], "still plain");
    t_expect(pair[1], "still plain");
    t_close_pair(pair);
}

T_TEST(wrapping_refuses_what_cannot_be_wrapped, 60) {
    pysock *pair[2], *s;
    t_pair(pair);
    T_FAILS(pysock_ssl_wrap_socket(pair[0], NULL, "localhost"), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_wrap_socket_ex(pair[0], NULL, &no_options), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_wrap_socket_ex(pair[0], client_ctx, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_wrap_socket(pair[0], client_ctx, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_wrap_socket(pair[0], client_ctx, ""), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_wrap_socket(pair[0], client_ctx, ".localhost"), PYSOCK_VALUE_ERROR, EINVAL);
    T_EQ(pysock_is_ssl(pair[0]), 0);
    T_STEP("nothing of it was sent");
    t_say(pair[0], "plain");
    t_expect(pair[1], "plain");
    t_wrap_pair(pair, client_ctx, server_ctx);
    T_FAILS(pysock_ssl_wrap_socket(pair[0], client_ctx, "localhost"), T_ANY, T_ANY);
    T_FAILS(pysock_ssl_wrap_socket(pair[1], server_ctx, NULL), T_ANY, T_ANY);
    t_say(pair[0], "wrapped once");
    t_expect(pair[1], "wrapped once");
    t_close_pair(pair);
    s = T_OK(pysock_socket(AF_INET, SOCK_DGRAM, 0));
    T_FAILS(pysock_ssl_wrap_socket(s, client_ctx, "localhost"), T_ANY, T_ANY);
    T_OK(pysock_close(s));
}

static void *shake_in_vain(void *arg) {
    T_FAILS(pysock_ssl_do_handshake(arg), T_ANY, T_ANY);
    T_OK(pysock_close(arg));
    return NULL;
}

T_TEST(a_server_without_a_certificate_fails_its_handshakes, 60) {
    pysock_ssl_context *bare = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
    pysock *pair[2];
    t_thread t;
    t_pair(pair);
    t_wrap_later(pair[0], client_ctx, "localhost");
    t_spawn(&t, shake_in_vain, pair[0]);
    T_FAILS(pysock_ssl_wrap_socket(pair[1], bare, NULL), T_ANY, T_ANY);
    T_OK(pysock_close(pair[1]));
    t_join(&t);
    pysock_ssl_context_release(bare);
}

/* ---- names, ports, paths ---- */

static char *long_name(size_t size) {
    char *name = malloc(size + 1);
    T_CHECK(name != NULL);
    for (size_t i = 0; i < size; i++)
        name[i] = i % 50 == 49 ? '.' : 'n';
    name[size - 1] = 'n';
    name[size] = 0;
    return name;
}

static void no_host_is_like_that(const char *host) {
    pysock *s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_FAILS(pysock_connect(s, host, 80), T_ANY, T_ANY);
    T_FAILS(pysock_bind(s, host, 0), T_ANY, T_ANY);
    T_CHECK(pysock_connect_ex(s, host, 80) > 0);
    T_FAILS(pysock_create_connection(host, 80, 20), T_ANY, T_ANY);
    T_FAILS(pysock_create_server(host, 0, 5), T_ANY, T_ANY);
    T_OK(pysock_close(s));
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_setblocking(s, 0));
    if (pysock_connect(s, host, 80) != 0 && errno == EINPROGRESS)
        T_EQ(t_readable(s, PYSOCK_NO_TIMEOUT), 1);
    T_FAILS(pysock_recv(s, scratch, 1, 0), T_ANY, T_ANY);
    T_OK(pysock_close(s));
}

T_TEST(host_names_that_are_none_are_refused, 120) {
    static const size_t sizes[] = {64, 300, 100000};
    static const char *const hosts[] = {"two words", "name.invalid",    "..",  "\xff\xfe",
                                        "[::1",      "256.256.256.256", "a\nb"};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char *name = long_name(sizes[i]);
        T_STEP("%zu characters", sizes[i]);
        if (sizes[i] == 64)
            memset(name, 'n', 64); /* one label, one too long */
        no_host_is_like_that(name);
        free(name);
    }
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        T_STEP("host '%s'", hosts[i]);
        no_host_is_like_that(hosts[i]);
    }
}

/* Options of an older version of the header, and of a newer one. */
T_TEST(options_are_taken_by_their_size, 60) {
    struct {
        pysock_server_options options;
        size_t newer; /* no padding behind it */
    } more = {PYSOCK_SERVER_OPTIONS_INIT, 0};
    pysock_ssl_wrap_options wrap;
    pysock_ssl_chain_options chain;
    pysock_connection_options connection;
    pysock *s, *pair[2];
    T_STEP("a size that was not set");
    memset(&wrap, 0, sizeof wrap);
    memset(&chain, 0, sizeof chain);
    memset(&connection, 0xff, sizeof connection);
    t_pair(pair);
    T_FAILS(pysock_ssl_wrap_socket_ex(pair[0], server_ctx, &wrap), PYSOCK_VALUE_ERROR, EINVAL);
    T_CHECK(strstr(pysock_error_message(), "PYSOCK_SSL_WRAP_OPTIONS_INIT") != NULL);
    T_FAILS(pysock_ssl_load_cert_chain_ex(server_ctx, &chain), PYSOCK_VALUE_ERROR, EINVAL);
    T_CHECK(strstr(pysock_error_message(), "PYSOCK_SSL_CHAIN_OPTIONS_INIT") != NULL);
    T_FAILS(pysock_create_connection_ex("127.0.0.1", 1, 1, &connection), PYSOCK_VALUE_ERROR,
            EINVAL);
    T_CHECK(strstr(pysock_error_message(), "PYSOCK_CONNECTION_OPTIONS_INIT") != NULL);
    t_close_pair(pair);
    T_STEP("an older header: what it does not have is not looked at");
    more.options.size = offsetof(pysock_server_options, dualstack_ipv6);
    more.options.dualstack_ipv6 = 1;
    s = T_OK(pysock_create_server_ex("127.0.0.1", 0, &more.options));
    T_OK(pysock_close(s));
    T_STEP("a newer header: what is not known must not be set");
    more.options.size = sizeof more;
    more.options.dualstack_ipv6 = 0;
    s = T_OK(pysock_create_server_ex("127.0.0.1", 0, &more.options));
    T_OK(pysock_close(s));
    more.newer = 1;
    T_FAILS(pysock_create_server_ex("127.0.0.1", 0, &more.options), PYSOCK_OS_ERROR, ENOTSUP);
}

T_TEST(server_hostnames_that_are_too_long_are_refused, 60) {
    static const size_t sizes[] = {300, 100000};
    pysock *pair[2];
    t_pair(pair);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char *name = long_name(sizes[i]);
        T_FAILS(pysock_ssl_wrap_socket(pair[0], client_ctx, name), PYSOCK_VALUE_ERROR, EINVAL);
        free(name);
    }
    T_EQ(pysock_is_ssl(pair[0]), 0);
    t_close_pair(pair);
}

T_TEST(unix_paths_that_are_too_long_are_refused, 30) {
    static const size_t sizes[] = {109, 300, 100000};
    for (int abstract = 0; abstract < 2; abstract++)
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            pysock *s = T_OK(pysock_socket(AF_UNIX, SOCK_STREAM, 0));
            char *path = long_name(sizes[i]);
            path[0] = abstract ? '@' : '/';
            T_FAILS(pysock_connect(s, path, 0), T_ANY, T_ANY);
            T_FAILS(pysock_bind(s, path, 0), T_ANY, T_ANY);
            T_OK(pysock_close(s));
            free(path);
        }
}

T_TEST(ports_out_of_range_are_refused, 30) {
    static const int ports[] = {-1, 65536, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < sizeof ports / sizeof ports[0]; i++) {
        pysock *s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
        T_STEP("port %d", ports[i]);
        T_FAILS(pysock_connect(s, "127.0.0.1", ports[i]), PYSOCK_VALUE_ERROR, EINVAL);
        T_EQ(pysock_connect_ex(s, "127.0.0.1", ports[i]), EINVAL);
        T_FAILS(pysock_bind(s, "127.0.0.1", ports[i]), PYSOCK_VALUE_ERROR, EINVAL);
        T_FAILS(pysock_create_connection("127.0.0.1", ports[i], 5), PYSOCK_VALUE_ERROR, EINVAL);
        T_FAILS(pysock_create_server("127.0.0.1", ports[i], 5), PYSOCK_VALUE_ERROR, EINVAL);
        T_OK(pysock_close(s));
    }
}

T_TEST(texts_that_are_no_addresses_are_refused, 30) {
    /* clang-format off */
    static const char *const texts[] = {
        "",           "127.0.0.1",    "127.0.0.1:",   ":80",           "127.0.0.1:65536",
        "127.0.0.1:-1", "127.0.0.1:+1", "127.0.0.1:80x", "127.0.0.1: 80", "127.0.0.1:0x50",
        "256.0.0.1:80", "example.org:80", "[::1]",    "[::1:80",       "[::1]80",
        "[::1]:",       "[:::1]:80",    "[]:80",      "::1:80",        "[::1]:99999",
        "127.0.0.1:99999999999999999999"};
    /* clang-format on */
    pysock_addr addr;
    char *text;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        T_STEP("'%s'", texts[i]);
        T_FAILS(pysock_addr_parse(&addr, texts[i]), PYSOCK_VALUE_ERROR, EINVAL);
        if (texts[i][0])
            T_CHECK(strstr(pysock_error_message(), texts[i]) != NULL);
    }
    T_FAILS(pysock_addr_parse(NULL, "127.0.0.1:80"), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_addr_parse(&addr, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    text = long_name(100000);
    T_FAILS(pysock_addr_parse(&addr, text), PYSOCK_VALUE_ERROR, EINVAL);
    memcpy(text, "unix:/", 6);
    T_FAILS(pysock_addr_parse(&addr, text), PYSOCK_VALUE_ERROR, EINVAL);
    memcpy(text, "unix:@", 6);
    T_FAILS(pysock_addr_parse(&addr, text), PYSOCK_VALUE_ERROR, EINVAL);
    memcpy(text, "[fe80::1%", 9);
    T_FAILS(pysock_addr_parse(&addr, text), PYSOCK_VALUE_ERROR, EINVAL);
    free(text);
}

T_TEST(addresses_that_make_no_sense_are_refused, 30) {
    pysock_addr addr;
    char text[PYSOCK_ADDR_STRLEN];
    pysock *s;
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    memset(&addr, 0, sizeof addr);
    T_FAILS(pysock_connect_addr(s, &addr), T_ANY, T_ANY);
    T_FAILS(pysock_bind_addr(s, &addr), T_ANY, T_ANY);
    T_FAILS(pysock_connect_addr(s, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_bind_addr(s, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_getsockname(s, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_OK(pysock_addr_parse(&addr, "[::1]:80"));
    T_FAILS(pysock_connect_addr(s, &addr), PYSOCK_OS_ERROR, T_ANY);
    addr.size = 1000000;
    T_FAILS(pysock_connect_addr(s, &addr), T_ANY, T_ANY);
    addr.size = 1;
    T_FAILS(pysock_connect_addr(s, &addr), T_ANY, T_ANY);
    T_STEP("formatting them");
    addr.u.sa.sa_family = 9999;
    addr.size = sizeof addr.u.storage;
    memset(text, 'x', sizeof text);
    T_CHECK(pysock_addr_format(&addr, text, sizeof text) < sizeof text);
    T_CHECK(memchr(text, 0, sizeof text) != NULL);
    T_EQ(pysock_addr_port(&addr), -1);
    addr.size = 0;
    memset(text, 'x', sizeof text);
    (void)pysock_addr_format(&addr, text, sizeof text);
    T_CHECK(memchr(text, 0, sizeof text) != NULL);
    T_EQ(pysock_addr_port(NULL), -1);
    memset(text, 'x', sizeof text);
    (void)pysock_addr_format(NULL, text, sizeof text);
    T_CHECK(memchr(text, 0, sizeof text) != NULL);
    T_STEP("a Unix path without an end");
    memset(&addr, 'p', sizeof addr);
    addr.u.un.sun_family = AF_UNIX;
    addr.size = sizeof addr.u.un;
    T_EQ(pysock_addr_format(&addr, text, sizeof text), 5 + sizeof addr.u.un.sun_path);
    T_OK(pysock_close(s));
}

/* ---- sizes, timeouts, flags ---- */

T_TEST(sizes_that_cannot_be_are_refused, 60) {
    static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 64, (size_t)PTRDIFF_MAX + 1};
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        if (tls)
            t_tls_pair(pair, client_ctx, server_ctx);
        else
            t_pair(pair);
        t_say(pair[1], "data that waits");
        T_EQ(t_readable(pair[0], PYSOCK_NO_TIMEOUT), 1);
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            T_STEP("%s, %zu", tls ? "TLS" : "plain", sizes[i]);
            T_FAILS(pysock_recv(pair[0], scratch, sizes[i], 0), T_ANY, T_ANY);
            T_FAILS(pysock_recv_into(pair[0], scratch, sizes[i], 0), T_ANY, T_ANY);
            T_FAILS(pysock_send(pair[0], scratch, sizes[i], 0), T_ANY, T_ANY);
            T_FAILS(pysock_sendall(pair[0], scratch, sizes[i], 0), T_ANY, T_ANY);
            T_FAILS(pysock_recv_buf(pair[0], sizes[i]), T_ANY, T_ANY);
        }
        T_FAILS(pysock_recv(pair[0], NULL, 10, 0), T_ANY, T_ANY);
        T_FAILS(pysock_send(pair[0], NULL, 10, 0), T_ANY, T_ANY);
        T_FAILS(pysock_sendall(pair[0], NULL, 10, 0), T_ANY, T_ANY);
        t_expect(pair[0], "data that waits");
        t_close_pair(pair);
    }
}

T_TEST(buffers_that_cannot_be_are_refused, 30) {
    pysock *pair[2];
    T_FAILS(pysock_buf_new(SIZE_MAX), PYSOCK_MEMORY_ERROR, ENOMEM);
    T_FAILS(pysock_buf_new(SIZE_MAX - 64), PYSOCK_MEMORY_ERROR, ENOMEM);
    if (SIZE_MAX > UINT32_MAX) /* else the system may have it */
        T_FAILS(pysock_buf_new(SIZE_MAX / 16 + 1), PYSOCK_MEMORY_ERROR, ENOMEM);
    T_FAILS(pysock_buf_copy("x", SIZE_MAX), PYSOCK_MEMORY_ERROR, ENOMEM);
    T_FAILS(pysock_buf_copy(NULL, 5), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_buf_wrap(NULL, 5, NULL, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_buf_slice(NULL, 0, 0), PYSOCK_VALUE_ERROR, EINVAL);
    t_pair(pair);
    T_FAILS(pysock_send_buf(pair[0], NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_set_watermarks(pair[0], 10, 9), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_set_watermarks(pair[0], 0, 0), PYSOCK_VALUE_ERROR, EINVAL);
    t_close_pair(pair);
}

T_TEST(timeouts_that_are_no_times_are_refused, 30) {
    static const double times[] = {-0.5, -2, -1e300, -INFINITY, NAN};
    pysock *s;
    pysock_poller *p;
    pysock_pollevent event;
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_settimeout(s, 3));
    p = T_OK(pysock_poller_new());
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        T_STEP("%g", times[i]);
        T_FAILS(pysock_settimeout(s, times[i]), PYSOCK_VALUE_ERROR, EINVAL);
        T_CHECK(pysock_gettimeout(s) == 3);
        T_FAILS(pysock_select(NULL, NULL, NULL, NULL, NULL, NULL, times[i]), PYSOCK_VALUE_ERROR,
                EINVAL);
        T_FAILS(pysock_poller_poll(p, &event, 1, times[i]), PYSOCK_VALUE_ERROR, EINVAL);
        T_FAILS(pysock_create_connection("127.0.0.1", 9, times[i]), PYSOCK_VALUE_ERROR, EINVAL);
    }
    pysock_poller_release(p);
    T_OK(pysock_close(s));
}

/* Too long to count in nanoseconds: as good as for ever, and no overflow to a moment long past. */
T_TEST(enormous_timeouts_do_not_end_at_once, 60) {
    static const double times[] = {1e10, 1e18, 1e300};
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        pysock *pair[2];
        t_stage st;
        t_thread t;
        T_STEP("%g", times[i]);
        t_pair(pair);
        if (pysock_settimeout(pair[0], times[i]) != 0) {
            T_EQ(pysock_error(), PYSOCK_VALUE_ERROR);
            t_close_pair(pair);
            continue;
        }
        memset(&st, 0, sizeof st);
        st.w.what = T_WAIT_RECV;
        st.w.s = pair[0];
        t_spawn(&t, t_wait_thread, &st.w);
        t_wait_asleep(&t);
        t_say(pair[1], "x");
        t_join(&t);
        T_EQ(st.w.result, 1);
        t_close_pair(pair);
    }
}

T_TEST(options_that_make_no_sense_are_refused, 30) {
    pysock *pair[2];
    socklen_t len = 4;
    int value = 0;
    t_pair(pair);
    T_FAILS(pysock_setsockopt(pair[0], 9999, 9999, &value, sizeof value), PYSOCK_OS_ERROR, T_ANY);
    T_FAILS(pysock_setsockopt(pair[0], SOL_SOCKET, SO_KEEPALIVE, NULL, 4), T_ANY, T_ANY);
    T_FAILS(pysock_setsockopt(pair[0], SOL_SOCKET, SO_KEEPALIVE, &value, 0), T_ANY, T_ANY);
    T_FAILS(pysock_getsockopt(pair[0], SOL_SOCKET, SO_TYPE, NULL, &len), T_ANY, T_ANY);
    T_FAILS(pysock_getsockopt(pair[0], SOL_SOCKET, SO_TYPE, &value, NULL), T_ANY, T_ANY);
    T_FAILS(pysock_getsockopt_int(pair[0], SOL_SOCKET, SO_TYPE, NULL), T_ANY, T_ANY);
    T_FAILS(pysock_getsockopt_int(pair[0], 9999, 9999, &value), PYSOCK_OS_ERROR, T_ANY);
    T_FAILS(pysock_shutdown(pair[0], -1), T_ANY, EINVAL);
    T_FAILS(pysock_shutdown(pair[0], 3), T_ANY, EINVAL);
    t_close_pair(pair);
}

T_TEST(sockets_that_cannot_be_are_refused, 30) {
    pysock *pair[2] = {NULL, NULL};
    T_FAILS(pysock_socket(9999, SOCK_STREAM, 0), PYSOCK_OS_ERROR, T_ANY);
    T_FAILS(pysock_socket(-1, SOCK_STREAM, 0), PYSOCK_OS_ERROR, T_ANY);
    T_FAILS(pysock_socket(AF_INET, 9999, 0), PYSOCK_OS_ERROR, T_ANY);
    T_FAILS(pysock_socket(AF_INET, SOCK_STREAM, 9999), PYSOCK_OS_ERROR, T_ANY);
    T_FAILS(pysock_socketpair(AF_INET, SOCK_STREAM, 0, pair), PYSOCK_OS_ERROR, T_ANY);
    T_FAILS(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_CHECK(pair[0] == NULL && pair[1] == NULL);
}

/* ---- select and pollers ---- */

T_TEST(select_refuses_what_is_no_list_of_descriptors, 30) {
    static const int bad[] = {-1, INT32_MIN, 999999, INT32_MAX};
    size_t n = 1;
    int fd;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        for (int list = 0; list < 3; list++) {
            T_STEP("descriptor %d in list %d", bad[i], list);
            n = 1;
            fd = bad[i];
            T_FAILS(pysock_select(list == 0 ? &fd : NULL, list == 0 ? &n : NULL,
                                  list == 1 ? &fd : NULL, list == 1 ? &n : NULL,
                                  list == 2 ? &fd : NULL, list == 2 ? &n : NULL, 0),
                    T_ANY, T_ANY);
        }
    }
    n = 1;
    T_FAILS(pysock_select(NULL, &n, NULL, NULL, NULL, NULL, 0), T_ANY, T_ANY);
    fd = STDIN_FILENO;
    n = SIZE_MAX;
    T_FAILS(pysock_select(&fd, &n, NULL, NULL, NULL, NULL, 0), T_ANY, T_ANY);
    n = SIZE_MAX / 4;
    T_FAILS(pysock_select(&fd, &n, NULL, NULL, NULL, NULL, 0), T_ANY, T_ANY);
}

T_TEST(pollers_refuse_what_they_cannot_watch, 30) {
    pysock_poller *p;
    pysock_pollevent event;
    pysock *s;
    int fd;
    T_FAILS(pysock_poller_register(NULL, 0, POLLIN, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_poller_modify(NULL, 0, POLLIN), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_poller_unregister(NULL, 0), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_poller_poll(NULL, &event, 1, 0), PYSOCK_VALUE_ERROR, EINVAL);
    pysock_poller_release(NULL);
    p = T_OK(pysock_poller_new());
    T_FAILS(pysock_poller_register(p, -1, POLLIN, NULL), T_ANY, T_ANY);
    T_FAILS(pysock_poller_register(p, INT32_MIN, POLLIN, NULL), T_ANY, T_ANY);
    T_FAILS(pysock_poller_modify(p, -1, POLLIN), T_ANY, T_ANY);
    T_FAILS(pysock_poller_unregister(p, -1), T_ANY, T_ANY);
    T_FAILS(pysock_poller_poll(p, NULL, 1, 0), PYSOCK_VALUE_ERROR, EINVAL);
    T_CHECK(pysock_poller_poll(p, &event, 0, 0) <= 0);
    T_STEP("a descriptor that is not open: refused, or told as POLLNVAL");
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    fd = pysock_fileno(s);
    T_OK(pysock_close(s));
    if (pysock_poller_register(p, fd, POLLIN, NULL) == 0) {
        T_EQ(pysock_poller_poll(p, &event, 1, PYSOCK_NO_TIMEOUT), 1);
        T_EQ(event.events, POLLNVAL);
        T_OK(pysock_poller_unregister(p, fd));
    } else {
        T_EQ(errno, EBADF);
    }
    T_EQ(pysock_poller_poll(p, &event, 1, 0), 0);
    pysock_poller_release(p);
}

T_TEST(hooks_may_be_missing, 30) {
    T_FAILS(pysock_register_closer(NULL, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    (void)pysock_unregister_closer(NULL, NULL);
    pysock_set_interrupt_hook(NULL, NULL);
    pysock_error_clear();
    pysock_error_clear();
    T_CHECK(pysock_error_message() != NULL);
}

/* ---- contexts ---- */

T_TEST(every_context_call_refuses_NULL, 30) {
    static const char *const names[] = {"h2"};
    pysock_ssl_context_release(NULL);
    T_FAILS(pysock_ssl_load_cert_chain(NULL, "x", "y"), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_load_cert_chain_data(NULL, "x", 1, "y", 1), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_load_verify_locations(NULL, "x", NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_load_verify_data(NULL, "x", 1), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_load_default_certs(NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_ca_count(NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_set_verify_mode(NULL, PYSOCK_CERT_NONE), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_set_check_hostname(NULL, 0), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_set_alpn_protocols(NULL, names, 1), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_set_session_cache(NULL, 1), PYSOCK_VALUE_ERROR, EINVAL);
    T_EQ((int)pysock_ssl_get_verify_mode(NULL), PYSOCK_CERT_NONE);
    T_ASKS_IN_VAIN(pysock_ssl_get_check_hostname(NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_ASKS_IN_VAIN(pysock_ssl_get_hostname_checks_common_name(NULL), PYSOCK_VALUE_ERROR, EINVAL);
}

T_TEST(contexts_refuse_values_out_of_range, 30) {
    pysock_ssl_context *ctx;
    char name[257];
    const char *names[2] = {"h2", NULL};
    T_FAILS(pysock_ssl_context_new((pysock_ssl_purpose)99), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_create_default_context((pysock_ssl_purpose)99), PYSOCK_VALUE_ERROR, EINVAL);
    ctx = t_client_ctx();
    T_FAILS(pysock_ssl_set_verify_mode(ctx, 99), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_set_verify_mode(ctx, -1), PYSOCK_VALUE_ERROR, EINVAL);
    T_EQ(pysock_ssl_get_verify_mode(ctx), PYSOCK_CERT_REQUIRED);
    T_FAILS(pysock_ssl_set_alpn_protocols(ctx, NULL, 1), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_set_alpn_protocols(ctx, names, 2), PYSOCK_VALUE_ERROR, EINVAL);
    names[1] = "";
    T_FAILS(pysock_ssl_set_alpn_protocols(ctx, names, 2), PYSOCK_VALUE_ERROR, EINVAL);
    memset(name, 'a', 256);
    name[256] = 0;
    names[1] = name;
    T_FAILS(pysock_ssl_set_alpn_protocols(ctx, names, 2), PYSOCK_VALUE_ERROR, EINVAL);
    T_OK(pysock_ssl_set_alpn_protocols(ctx, NULL, 0));
    T_STEP("an absurd number of sessions is refused or costs nothing");
    (void)pysock_ssl_set_session_cache(ctx, SIZE_MAX);
    pysock_ssl_context_release(ctx);
}

/* ---- certificate files ---- */

typedef struct file_text {
    char *data;
    size_t size;
} file_text;

static file_text read_text(const char *path) {
    file_text t = {NULL, 0};
    FILE *f = fopen(path, "rb");
    T_CHECK(f != NULL);
    t.data = malloc(65536);
    T_CHECK(t.data != NULL);
    t.size = fread(t.data, 1, 65535, f);
    t.data[t.size] = 0;
    fclose(f);
    return t;
}

/* A new file with these bytes; path is filled in. */
static void write_file(char path[64], const void *data, size_t size) {
    int fd;
    snprintf(path, 64, "/tmp/pysock-test-XXXXXX");
    fd = mkstemp(path);
    T_CHECK(fd >= 0);
    T_EQ(write(fd, data, size), size);
    close(fd);
}

static file_text with_crlf(file_text t) {
    file_text r = {malloc(2 * t.size + 1), 0};
    T_CHECK(r.data != NULL);
    for (size_t i = 0; i < t.size; i++) {
        if (t.data[i] == '\n')
            r.data[r.size++] = '\r';
        r.data[r.size++] = t.data[i];
    }
    r.data[r.size] = 0;
    return r;
}

/* A handshake with this server context, by a client that trusts the test CA. */
static void shake_hands_with(pysock_ssl_context *server) {
    pysock *pair[2];
    t_tls_pair(pair, client_ctx, server);
    t_say(pair[0], "x");
    t_expect(pair[1], "x");
    t_close_pair(pair);
}

enum { CRLF, NO_LAST_NEWLINE, BOTH_OF_THEM };

/* A file with the contents of another one, but odd line ends. */
static void write_odd_file(char path[64], const char *from, int kind) {
    file_text t = read_text(from);
    if (kind != NO_LAST_NEWLINE) {
        file_text crlf = with_crlf(t);
        free(t.data);
        t = crlf;
    }
    while (kind != CRLF && (t.data[t.size - 1] == '\n' || t.data[t.size - 1] == '\r'))
        t.size--;
    write_file(path, t.data, t.size);
    free(t.data);
}

/* Carriage returns and a missing last newline are what files from elsewhere look like. */
T_TEST(odd_line_ends_in_pem_files_are_fine, 60) {
    for (int kind = CRLF; kind <= BOTH_OF_THEM; kind++) {
        pysock_ssl_context *server = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
        pysock_ssl_context *client = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
        char cert[64], key[64], ca[64];
        pysock *pair[2];
        T_STEP("kind %d", kind);
        write_odd_file(cert, T_CERTS "server-ec.pem", kind);
        write_odd_file(key, T_CERTS "server-ec.key", kind);
        write_odd_file(ca, T_CERTS "ca.pem", kind);
        T_OK(pysock_ssl_load_cert_chain(server, cert, key));
        T_OK(pysock_ssl_load_verify_locations(client, ca, NULL));
        T_EQ(pysock_ssl_ca_count(client), 1);
        t_tls_pair(pair, client, server);
        t_close_pair(pair);
        unlink(cert);
        unlink(key);
        unlink(ca);
        pysock_ssl_context_release(server);
        pysock_ssl_context_release(client);
    }
}

/* The error must name the file; the context must be as good as before. */
static void refuse_chain(pysock_ssl_context *ctx, const char *cert, const char *key,
                         const char *named) {
    T_STEP("%s and %s", cert, key ? key : "NULL");
    T_FAILS(pysock_ssl_load_cert_chain(ctx, cert, key), T_ANY, T_ANY);
    if (!strstr(pysock_error_message(), named))
        T_FAIL("'%s' does not name %s", pysock_error_message(), named);
}

static void refuse_anchors(pysock_ssl_context *ctx, const char *file, const char *named) {
    ptrdiff_t before = pysock_ssl_ca_count(ctx);
    T_STEP("%s as trust anchor", file);
    T_FAILS(pysock_ssl_load_verify_locations(ctx, file, NULL), T_ANY, T_ANY);
    if (!strstr(pysock_error_message(), named))
        T_FAIL("'%s' does not name %s", pysock_error_message(), named);
    T_EQ(pysock_ssl_ca_count(ctx), before);
}

T_TEST(files_that_are_no_certificates_are_named, 60) {
    static const char nonsense[] =
        "-----BEGIN CERTIFICATE-----\nAAAABBBBCCCCDDDD\n-----END CERTIFICATE-----\n";
    static const char no_base64[] =
        "-----BEGIN CERTIFICATE-----\n!!! ??? !!!\n-----END CERTIFICATE-----\n";
    static const char encrypted[] =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIBvTBXBgkqhkiG9w0BBQ0w\n"
        "-----END ENCRYPTED PRIVATE KEY-----\n";
    const char *good_cert = T_CERTS "server-ec.pem", *good_key = T_CERTS "server-ec.key";
    file_text cert = read_text(good_cert);
    unsigned char noise[3000];
    char path[64];
    struct {
        const void *data;
        size_t size;
    } bad[7];
    pysock_ssl_context *ctx;
    t_fill(noise, sizeof noise, 0, 11);
    bad[0].data = "";
    bad[0].size = 0;
    bad[1].data = noise;
    bad[1].size = sizeof noise;
    bad[2].data = nonsense;
    bad[2].size = strlen(nonsense);
    bad[3].data = no_base64;
    bad[3].size = strlen(no_base64);
    bad[4].data = encrypted;
    bad[4].size = strlen(encrypted);
    bad[5].data = cert.data; /* cut off in the middle */
    bad[5].size = cert.size / 2;
    bad[6].data = "just a line of text\n";
    bad[6].size = 20;

    ctx = t_server_ctx();
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_file(path, bad[i].data, bad[i].size);
        refuse_chain(ctx, path, good_key, path);
        refuse_chain(ctx, good_cert, path, path);
        refuse_chain(ctx, path, NULL, path);
        refuse_anchors(client_ctx, path, path);
        unlink(path);
    }
    refuse_chain(ctx, path, good_key, path); /* missing */
    T_EQ(errno, ENOENT);
    refuse_chain(ctx, good_cert, path, path);
    refuse_anchors(client_ctx, path, path);
    T_EQ(errno, ENOENT);
    refuse_chain(ctx, "/tmp", good_key, "/tmp");
    refuse_anchors(client_ctx, "/tmp", "/tmp");
    refuse_anchors(client_ctx, good_key, good_key); /* a key is no certificate */
    T_STEP("the context still works");
    shake_hands_with(ctx);
    pysock_ssl_context_release(ctx);
    free(cert.data);
}

T_TEST(a_key_that_does_not_match_is_told, 60) {
    pysock_ssl_context *ctx;
    ctx = t_server_ctx();
    refuse_chain(ctx, T_CERTS "server-ec.pem", T_CERTS "client.key", "client.key");
    T_CHECK(strcmp(pysock_error_reason(), "KEY_VALUES_MISMATCH") == 0);
    refuse_chain(ctx, T_CERTS "server-ec.pem", T_CERTS "server-rsa.key", "server-rsa.key");
    refuse_chain(ctx, T_CERTS "server-rsa.pem", T_CERTS "server-ec.key", "server-ec.key");
    refuse_chain(ctx, T_CERTS "server-ec.pem", T_CERTS "server-rsa.pem", "server-rsa.pem");
    shake_hands_with(ctx);
    pysock_ssl_context_release(ctx);
}

T_TEST(missing_arguments_of_a_context_are_refused, 60) {
    pysock_ssl_context *ctx;
    ctx = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    T_FAILS(pysock_ssl_load_cert_chain(ctx, NULL, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_load_cert_chain(ctx, NULL, T_CERTS "server-ec.key"), PYSOCK_VALUE_ERROR,
            EINVAL);
    T_FAILS(pysock_ssl_load_cert_chain_data(ctx, NULL, 5, NULL, 5), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_load_cert_chain_data(ctx, "", 0, "", 0), T_ANY, T_ANY);
    T_FAILS(pysock_ssl_load_verify_locations(ctx, NULL, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_load_verify_locations(ctx, NULL, "/nowhere/at/all"), T_ANY, T_ANY);
    T_CHECK(strstr(pysock_error_message(), "/nowhere/at/all") != NULL);
    T_FAILS(pysock_ssl_load_verify_data(ctx, NULL, 5), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_load_verify_data(ctx, "", 0), T_ANY, T_ANY);
    T_FAILS(pysock_ssl_load_verify_data(ctx, "neither PEM nor DER", 19), T_ANY, T_ANY);
    T_EQ(pysock_ssl_ca_count(ctx), 0);
    pysock_ssl_context_release(ctx);
}

/* Certificates and keys with bytes of them changed: refused or taken, never a crash. */
T_TEST(mutated_certificates_never_crash, 120) {
    static const char *const files[] = {T_CERTS "server-ec.pem", T_CERTS "server-rsa.pem",
                                        T_CERTS "ca.pem"};
    file_text key, originals[3];
    unsigned int random = 1234567u;
    key = read_text(T_CERTS "server-ec.key");
    for (int i = 0; i < 3; i++)
        originals[i] = read_text(files[i]);
    for (int i = 0; i < T_SCALE(3000, 400); i++) {
        pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
        file_text original = originals[i % 3];
        char *mutated = malloc(original.size);
        T_CHECK(mutated != NULL);
        if (i % 100 == 0)
            T_STEP("mutation %d", i);
        memcpy(mutated, original.data, original.size);
        for (int k = 0; k <= i % 4; k++) {
            random = random * 1103515245u + 12345u;
            mutated[(random >> 8) % original.size] = (char)("ABab01+/=-\n"[(random >> 4) % 11]);
        }
        (void)pysock_ssl_load_verify_data(ctx, mutated, original.size);
        (void)pysock_ssl_load_cert_chain_data(ctx, mutated, original.size, key.data, key.size);
        (void)pysock_ssl_load_cert_chain_data(ctx, original.data, original.size, mutated,
                                              original.size);
        free(mutated);
        pysock_ssl_context_release(ctx);
    }
    for (int i = 0; i < 3; i++)
        free(originals[i].data);
    free(key.data);
}

T_MAIN(.setup = make_contexts_and_a_short_wait, .teardown = free_contexts)
