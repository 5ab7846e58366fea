/* Contexts, sockets and connected pairs, plain and TLS, and waiting on them. */
#ifndef TESTS_SUPPORT_PAIRS_H
#define TESTS_SUPPORT_PAIRS_H

#include "support/threads.h"

/* ---- contexts and pairs ---- */

#define T_CERTS "tests/certs/"

/* A client that trusts the test CA and checks host names. */
T_FUNC pysock_ssl_context *t_client_ctx(void) {
    pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    T_OK(pysock_ssl_load_verify_locations(ctx, T_CERTS "ca.pem", NULL));
    return ctx;
}

/* A server with the certificate of that name, such as "server-ec". */
T_FUNC pysock_ssl_context *t_server_ctx_of(const char *name) {
    char cert[256], key[256];
    pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
    snprintf(cert, sizeof cert, T_CERTS "%s.pem", name);
    snprintf(key, sizeof key, T_CERTS "%s.key", name);
    T_OK(pysock_ssl_load_cert_chain(ctx, cert, key));
    return ctx;
}

T_FUNC pysock_ssl_context *t_server_ctx(void) {
    return t_server_ctx_of("server-ec");
}

/* Whether ctx is the one in force. */
T_FUNC int t_has_context(pysock *s, const pysock_ssl_context *ctx) {
    pysock_ssl_context *now = pysock_ssl_get_context(s);
    pysock_ssl_context_release(now);
    return now == ctx;
}

/* Texts that the library copies out: NULL for none, or valid for three more calls of the thread. */
T_FUNC char *t_text_room(void) {
    static __thread char rooms[4][1024];
    static __thread unsigned next;
    return rooms[next++ % 4];
}

T_FUNC const char *t_alpn(pysock *s) {
    char *room = t_text_room();
    return pysock_ssl_selected_alpn_protocol(s, room, 1024) > 0 ? room : NULL;
}

T_FUNC const char *t_server_hostname(pysock *s) {
    char *room = t_text_room();
    return pysock_ssl_server_hostname(s, room, 1024) > 0 ? room : NULL;
}

T_FUNC const char *t_keylog_filename(pysock_ssl_context *ctx) {
    char *room = t_text_room();
    return pysock_ssl_get_keylog_filename(ctx, room, 1024) > 0 ? room : NULL;
}

T_FUNC pysock_addr t_addr_of(pysock *s) {
    pysock_addr addr;
    T_OK(pysock_getsockname(s, &addr));
    return addr;
}

T_FUNC pysock_addr t_addr_from(const void *sa, size_t size) {
    pysock_addr addr;
    T_OK(pysock_addr_from_sockaddr(&addr, sa, (socklen_t)size));
    return addr;
}

/* Sets an option, and reads it back. */
T_FUNC void t_check_option(pysock *s, int level, int name, int value) {
    int have = -1;
    T_OK(pysock_setsockopt_int(s, level, name, value));
    T_OK(pysock_getsockopt_int(s, level, name, &have));
    T_EQ(have, value);
}

T_FUNC void t_set_linger(pysock *s, int seconds) {
    struct linger linger;
    linger.l_onoff = 1;
    linger.l_linger = seconds;
    T_OK(pysock_setsockopt(s, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
}

/* How many bytes of input the kernel has. */
T_FUNC size_t t_unread(pysock *s) {
    int n = 0;
    T_EQ(ioctl(pysock_fileno(s), FIONREAD, &n), 0);
    return (size_t)n;
}

T_FUNC void t_wait_unread(pysock *s) {
    while (t_unread(s) == 0)
        t_nap(0.002);
}

T_FUNC int t_port_of(pysock *s) {
    pysock_addr addr = t_addr_of(s);
    return pysock_addr_port(&addr);
}

/* A server socket on 127.0.0.1; its port in *port. */
T_FUNC pysock *t_listen(int *port) {
    pysock *s = T_OK(pysock_create_server("127.0.0.1", 0, 64));
    *port = t_port_of(s);
    T_CHECK(*port > 0);
    return s;
}

/* A stream socket with timeout 0. */
T_FUNC pysock *t_nonblocking_socket(int family) {
    pysock *s = T_OK(pysock_socket(family, SOCK_STREAM, 0));
    T_OK(pysock_setblocking(s, 0));
    return s;
}

/* A connected pair over TCP: [0] connected, [1] accepted; both plain and blocking. */
T_FUNC void t_pair(pysock *pair[2]) {
    int port;
    pysock *listener = t_listen(&port);
    pair[0] = T_OK(pysock_create_connection("127.0.0.1", port, 30.0));
    T_OK(pysock_settimeout(pair[0], PYSOCK_NO_TIMEOUT));
    pair[1] = T_OK(pysock_accept(listener, NULL));
    T_OK(pysock_close(listener));
}

T_FUNC void *t_unwrap_thread(void *arg) {
    T_EQ(pysock_ssl_unwrap(arg), 0);
    return NULL;
}

T_FUNC void *t_close_thread(void *arg) {
    T_OK(pysock_close(arg));
    return NULL;
}

T_FUNC void *t_handshake_thread(void *arg) {
    T_EQ(pysock_ssl_do_handshake(arg), 0);
    return NULL;
}

T_FUNC pysock_poller *t_poller_with(int fd, short events) {
    pysock_poller *p = T_OK(pysock_poller_new());
    T_OK(pysock_poller_register(p, fd, events, NULL));
    return p;
}

/* The events of one descriptor, or 0; the poller has nothing else to tell. */
T_FUNC short t_poll_one(pysock_poller *p, int fd, double timeout) {
    pysock_pollevent event = {-1, 0, NULL};
    ptrdiff_t n = T_OK(pysock_poller_poll(p, &event, 1, timeout));
    if (n == 0) {
        T_CHECK(timeout >= 0);
        return 0;
    }
    T_EQ(n, 1);
    T_EQ(event.fd, fd);
    T_CHECK(event.events != 0);
    return event.events;
}

/* Wraps a connected socket and leaves the handshake to whatever comes next. */
T_FUNC void t_wrap_later(pysock *s, pysock_ssl_context *ctx, const char *host) {
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    options.no_handshake_on_connect = 1;
    options.server_hostname = host;
    T_OK(pysock_ssl_wrap_socket_ex(s, ctx, &options));
}

/* Puts TLS around a connected blocking pair: [0] is the client. Both handshakes run in callers, so
   that nothing here needs the reactor. */
T_FUNC void t_wrap_pair(pysock *pair[2], pysock_ssl_context *client, pysock_ssl_context *server) {
    t_thread t;
    t_wrap_later(pair[1], server, NULL);
    t_spawn(&t, t_handshake_thread, pair[1]);
    T_OK(pysock_ssl_wrap_socket(pair[0], client, "localhost"));
    t_join(&t);
}

/* A connected TLS pair over TCP, both blocking, handshakes done. */
T_FUNC void t_tls_pair(pysock *pair[2], pysock_ssl_context *client, pysock_ssl_context *server) {
    t_pair(pair);
    t_wrap_pair(pair, client, server);
}

/* The same over a Unix socketpair: always the same peer by name and port, so that all but the first
   handshakes between two contexts resume a session. */
T_FUNC void t_tls_local_pair(pysock *pair[2], pysock_ssl_context *client,
                             pysock_ssl_context *server) {
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    t_wrap_pair(pair, client, server);
}

T_FUNC void t_close_pair(pysock *pair[2]) {
    T_OK(pysock_close(pair[0]));
    T_OK(pysock_close(pair[1]));
}

/* ---- waiting on a socket ---- */

/* 1 if select says so at once, or within the timeout. */
T_FUNC int t_readable(pysock *s, double timeout) {
    int fd = T_OK(pysock_fileno(s));
    size_t n = 1;
    return T_OK(pysock_select(&fd, &n, NULL, NULL, NULL, NULL, timeout)) == 1;
}

T_FUNC int t_writable(pysock *s, double timeout) {
    int fd = T_OK(pysock_fileno(s));
    size_t n = 1;
    return T_OK(pysock_select(NULL, NULL, &fd, &n, NULL, NULL, timeout)) == 1;
}

/* A non-blocking TLS pair; the reactor does both handshakes, or whoever does its work. */
T_FUNC void t_nonblocking_tls_pair(pysock *pair[2], pysock_ssl_context *client,
                                   pysock_ssl_context *server) {
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    for (int i = 0; i < 2; i++) {
        T_OK(pysock_setblocking(pair[i], 0));
        T_OK(pysock_ssl_wrap_socket(pair[i], i ? server : client, i ? NULL : "localhost"));
    }
    for (int i = 0; i < 2; i++) {
        T_EQ(t_writable(pair[i], PYSOCK_NO_TIMEOUT), 1);
        T_EQ(pysock_ssl_do_handshake(pair[i]), 0);
    }
}

/* Exactly size bytes, on a socket of any mode. */
T_FUNC void t_recv_exactly(pysock *s, void *buf, size_t size) {
    size_t have = 0;
    while (have < size) {
        ptrdiff_t n = pysock_recv(s, (char *)buf + have, size - have, 0);
        if (n < 0 && errno == EAGAIN) {
            t_readable(s, PYSOCK_NO_TIMEOUT);
            continue;
        }
        if (T_OK(n) == 0)
            T_FAIL("the stream ended after %zu of %zu bytes", have, size);
        have += (size_t)n;
    }
}

/* The text arrives as it is, nothing less. */
T_FUNC void t_expect(pysock *s, const char *text) {
    char buf[256];
    size_t n = strlen(text);
    T_CHECK(n < sizeof buf);
    t_recv_exactly(s, buf, n);
    buf[n] = 0;
    if (memcmp(buf, text, n) != 0)
        T_FAIL("received '%s', not '%s'", buf, text);
}

T_FUNC void t_say(pysock *s, const char *text) {
    T_OK(pysock_sendall(s, text, strlen(text), 0));
}

/* A word each way. */
T_FUNC void t_echo_once(pysock *a, pysock *b) {
    t_say(a, "there");
    t_expect(b, "there");
    t_say(b, "and back");
    t_expect(a, "and back");
}

#endif
