/* Every public function with what it should never be given: NULL, closed and made-up handles, the
   wrong state, names too long, sizes and ports out of range. Each time an error with a message,
   never a crash. What one family of calls refuses stands in the program of that family. */
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
static pysock_addr some_addr, told_addr;
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
CALL(accept, pysock_accept(s, &told_addr) ? 0 : -1)
CALL(recv, pysock_recv(s, scratch, sizeof scratch, 0))
CALL(recv_into, pysock_recv_into(s, scratch, sizeof scratch, 0))
CALL(send, pysock_send(s, scratch, 1, 0))
CALL(sendall, pysock_sendall(s, scratch, 1, 0))
CALL(shutdown, pysock_shutdown(s, SHUT_RDWR))
CALL(fileno, pysock_fileno(s))
CALL(getsockname, pysock_getsockname(s, &told_addr))
CALL(getpeername, pysock_getpeername(s, &told_addr))
CALL(setblocking, pysock_setblocking(s, 1))
CALL(settimeout, pysock_settimeout(s, 1))
CALL(setsockopt_int, pysock_setsockopt_int(s, SOL_SOCKET, SO_KEEPALIVE, 1))
CALL(recv_buf, pysock_recv_buf(s, 10) ? 0 : -1)
CALL(family, pysock_family(s))
CALL(type, pysock_type(s))
CALL(proto, pysock_proto(s))
CALL(get_inheritable, pysock_get_inheritable(s) ? 0 : -1)
CALL(set_inheritable, pysock_set_inheritable(s, 1))
CALL(getblocking, pysock_getblocking(s) ? 0 : -1)
CALL(dup, pysock_dup(s) ? 0 : -1)
CALL(detach, pysock_detach(s))
CALL(recvfrom, pysock_recvfrom(s, scratch, 1, 0, &told_addr))
CALL(recvfrom_into, pysock_recvfrom_into(s, scratch, 1, 0, NULL))
CALL(sendto, pysock_sendto(s, "x", 1, 0, "127.0.0.1", 9))
CALL(sendto_addr, pysock_sendto_addr(s, "x", 1, 0, &some_addr))
CALL(setsockopt_null, pysock_setsockopt(s, SOL_SOCKET, SO_KEEPALIVE, NULL, 4))
CALL(makefile, pysock_makefile(s, "rb", -1) ? 0 : -1)
CALL(fdopen, pysock_fdopen(s, "r") ? 0 : -1)
CALL(sendfile, pysock_sendfile(s, STDIN_FILENO, 0, -1))
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

static intptr_t call_recvmsg(pysock *s) {
    pysock_msg msg;
    memset(&msg, 0, sizeof msg);
    return pysock_recvmsg(s, scratch, 1, &msg, 0);
}

static intptr_t call_recvmsg_into(pysock *s) {
    struct iovec v = {scratch, 1};
    pysock_msg msg;
    memset(&msg, 0, sizeof msg);
    return pysock_recvmsg_into(s, &v, 1, &msg, 0);
}

static intptr_t call_sendmsg(pysock *s) {
    struct iovec v = {scratch, 1};
    return pysock_sendmsg(s, &v, 1, NULL, 0, 0, NULL);
}

static intptr_t call_send_fds(pysock *s) {
    int fd = STDIN_FILENO;
    return pysock_send_fds(s, "x", 1, &fd, 1, 0);
}

static intptr_t call_recv_fds(pysock *s) {
    int fd = -1, flags = 0;
    size_t count = 1;
    return pysock_recv_fds(s, scratch, 1, &fd, &count, 0, &flags);
}

/* clang-format off */
#define ENTRY(name) {#name, call_##name}
/* clang-format on */

static const struct {
    const char *name;
    intptr_t (*call)(pysock *s);
} calls[] = {
    ENTRY(connect),
    ENTRY(connect_addr),
    ENTRY(connect_ex),
    ENTRY(bind),
    ENTRY(bind_addr),
    ENTRY(listen),
    ENTRY(accept),
    ENTRY(recv),
    ENTRY(recv_into),
    ENTRY(send),
    ENTRY(sendall),
    ENTRY(shutdown),
    ENTRY(fileno),
    ENTRY(getsockname),
    ENTRY(getpeername),
    ENTRY(setblocking),
    ENTRY(settimeout),
    ENTRY(setsockopt),
    ENTRY(setsockopt_int),
    ENTRY(getsockopt),
    ENTRY(getsockopt_int),
    ENTRY(recv_buf),
    ENTRY(send_buf),
    ENTRY(set_watermarks),
    ENTRY(queued),
    ENTRY(wrap_client),
    ENTRY(wrap_server),
    ENTRY(wrap_ex),
    ENTRY(do_handshake),
    ENTRY(unwrap),
    ENTRY(cipher),
    ENTRY(getpeercert),
    ENTRY(family),
    ENTRY(type),
    ENTRY(proto),
    ENTRY(get_inheritable),
    ENTRY(set_inheritable),
    ENTRY(getblocking),
    ENTRY(dup),
    ENTRY(detach),
    ENTRY(recvfrom),
    ENTRY(recvfrom_into),
    ENTRY(sendto),
    ENTRY(sendto_addr),
    ENTRY(setsockopt_null),
    ENTRY(makefile),
    ENTRY(fdopen),
    ENTRY(sendfile),
    ENTRY(recvmsg),
    ENTRY(recvmsg_into),
    ENTRY(sendmsg),
    ENTRY(send_fds),
    ENTRY(recv_fds),
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
        plain_or_tls_pair(pair, tls);
        t_close_pair(pair);
        call_everything(pair[0], PYSOCK_OS_ERROR, EBADF);
        T_EQ(pysock_close(pair[0]), 0);
    }
}

T_TEST(every_call_on_a_dead_handle_fails_with_EBADF, 30) {
    pysock *pair[2], *s;
    int fd;
    T_STEP("detached");
    t_pair(pair);
    fd = T_OK(pysock_detach(pair[0]));
    call_everything(pair[0], PYSOCK_OS_ERROR, EBADF);
    T_CHECK(fcntl(fd, F_GETFD) != -1);
    close(fd);
    T_OK(pysock_close(pair[1]));
    T_STEP("ended by cleanup");
    s = T_OK(pysock_socket(AF_INET, SOCK_DGRAM, 0));
    pysock_cleanup();
    call_everything(s, PYSOCK_OS_ERROR, EBADF);
    T_EQ(pysock_close(s), 0);
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
        plain_or_tls_pair(pair, tls);
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
        plain_or_tls_pair(pair, tls);
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
    pysock_poller *p = T_OK(pysock_poller_new());
    pysock_pollevent event;
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        T_STEP("%g", times[i]);
        T_FAILS(pysock_select(NULL, NULL, NULL, NULL, NULL, NULL, times[i]), PYSOCK_VALUE_ERROR,
                EINVAL);
        T_FAILS(pysock_poller_poll(p, &event, 1, times[i]), PYSOCK_VALUE_ERROR, EINVAL);
    }
    pysock_poller_release(p);
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
    T_FAILS(pysock_setsockopt(pair[0], SOL_SOCKET, SO_KEEPALIVE, NULL, 4), T_ANY, T_ANY);
    T_FAILS(pysock_setsockopt(pair[0], SOL_SOCKET, SO_KEEPALIVE, &value, 0), T_ANY, T_ANY);
    T_FAILS(pysock_getsockopt(pair[0], SOL_SOCKET, SO_TYPE, NULL, &len), T_ANY, T_ANY);
    T_FAILS(pysock_getsockopt(pair[0], SOL_SOCKET, SO_TYPE, &value, NULL), T_ANY, T_ANY);
    T_FAILS(pysock_getsockopt_int(pair[0], SOL_SOCKET, SO_TYPE, NULL), T_ANY, T_ANY);
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

T_MAIN(.setup = make_contexts_and_a_short_wait, .teardown = free_contexts)
