/* The same jobs on pysock. */
#include "bench.h"

#include "pysock.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

static pysock *connection; /* the client's */
static pysock_poller *poller;
static pysock_ssl_context *context;
static int server_port; /* for the client of the handshakes */
static int resumes;
static long handshakes;

static void fail(const char *what)
{
    die("%s: %s", what, pysock_error_message());
}

static pysock *without_delay(pysock *s, const char *what)
{
    if (!s)
        fail(what);
    if (pysock_setsockopt_int(s, IPPROTO_TCP, TCP_NODELAY, 1) < 0)
        fail("TCP_NODELAY");
    return s;
}

static pysock *make_listener(int *port)
{
    pysock_addr addr;
    pysock *s = pysock_create_server("127.0.0.1", 0, -1);

    if (!s || pysock_getsockname(s, &addr) < 0)
        fail("listen");
    *port = pysock_addr_port(&addr);
    return s;
}

static pysock *accept_plain(pysock *listener)
{
    return without_delay(pysock_accept(listener, NULL), "accept");
}

static pysock *connect_plain(int port)
{
    return without_delay(pysock_create_connection("127.0.0.1", port, PYSOCK_NO_TIMEOUT), "connect");
}

static void make_client_context(void)
{
    context = pysock_ssl_context_new(PYSOCK_SERVER_AUTH);
    if (!context || pysock_ssl_load_verify_locations(context, CA_FILE, NULL) < 0)
        fail("client's context");
}

static void make_server_context(void)
{
    context = pysock_ssl_context_new(PYSOCK_CLIENT_AUTH);
    if (!context || pysock_ssl_load_cert_chain(context, CERT_FILE, KEY_FILE) < 0)
        fail("server's context");
}

/* What is compared must be the same suite. */
static void check_suite(pysock *s)
{
    pysock_ssl_cipher_info info;

    if (pysock_ssl_cipher(s, &info) < 0)
        fail("cipher");
    if (strcmp(info.name, "ECDHE-ECDSA-AES128-GCM-SHA256") != 0)
        die("the suite is %s, not the one it is compared with", info.name);
}

/* ---- echo, plain and TLS, blocking ---- */

static void receive_all(pysock *s, char *buf, size_t size)
{
    size_t got = 0;
    ptrdiff_t n;

    while (got < size) {
        n = pysock_recv(s, buf + got, size - got, 0);
        if (n < 0)
            fail("recv");
        if (n == 0)
            die("recv: end of stream");
        got += (size_t)n;
    }
}

static void send_all(pysock *s, const char *data, size_t size)
{
    if (pysock_sendall(s, data, size, 0) < 0)
        fail("sendall");
}

static void serve_echo(pysock *s)
{
    char buf[MESSAGE_SIZE];

    for (;;) {
        receive_all(s, buf, sizeof buf);
        send_all(s, buf, sizeof buf);
    }
}

static void set_timeout(pysock *s, int seconds)
{
    if (pysock_settimeout(s, seconds ? seconds : PYSOCK_NO_TIMEOUT) < 0)
        fail("settimeout");
}

void py_echo_serve(int arg)
{
    int port;
    pysock *s, *listener = make_listener(&port);

    tell(port);
    s = accept_plain(listener);
    set_timeout(s, arg);
    serve_echo(s);
}

void py_echo_open(int arg, int port)
{
    connection = connect_plain(port);
    set_timeout(connection, arg);
}

long py_echo_batch(void)
{
    char buf[MESSAGE_SIZE] = "ping";
    int i;

    for (i = 0; i < ECHO_BATCH; i++) {
        send_all(connection, buf, sizeof buf);
        receive_all(connection, buf, sizeof buf);
    }
    return ECHO_BATCH;
}

static pysock *accept_tls(pysock *listener)
{
    pysock *s = accept_plain(listener);

    if (pysock_ssl_wrap_socket(s, context, NULL) < 0)
        fail("server's handshake");
    return s;
}

static pysock *connect_tls(int port)
{
    pysock *s = connect_plain(port);

    if (pysock_ssl_wrap_socket(s, context, HOST_NAME) < 0)
        fail("client's handshake");
    return s;
}

static pysock *accept_only_tls(void)
{
    int port;
    pysock *listener = make_listener(&port);

    make_server_context();
    tell(port);
    return accept_tls(listener);
}

void py_tls_serve(int arg)
{
    (void)arg;
    serve_echo(accept_only_tls());
}

void py_tls_open(int arg, int port)
{
    (void)arg;
    make_client_context();
    connection = connect_tls(port);
    check_suite(connection);
}

/* ---- echo, TLS, non-blocking on a poller, handshake included ---- */

static void poll_for(short events)
{
    pysock_pollevent event;
    ptrdiff_t n;

    do {
        n = pysock_poller_poll(poller, &event, 1, PYSOCK_NO_TIMEOUT);
        if (n < 0)
            fail("poll");
    } while (n == 0 || !(event.events & (events | POLLERR | POLLHUP | POLLNVAL)));
}

static void shake_hands_polled(pysock *s, const char *host)
{
    int rc;

    poller = pysock_poller_new();
    if (!poller || pysock_setblocking(s, 0) < 0 || pysock_ssl_wrap_socket(s, context, host) < 0
        || pysock_poller_register(poller, pysock_fileno(s), POLLOUT, NULL) < 0)
        fail("non-blocking handshake");
    while ((rc = pysock_ssl_do_handshake(s)) < 0 && errno == EINPROGRESS)
        poll_for(POLLOUT);
    if (rc < 0 || pysock_poller_modify(poller, pysock_fileno(s), POLLIN) < 0)
        fail("non-blocking handshake");
}

static void receive_polled(pysock *s, char *buf, size_t size)
{
    size_t got = 0;
    ptrdiff_t n;

    while (got < size) {
        poll_for(POLLIN);
        n = pysock_recv(s, buf + got, size - got, 0);
        if (n < 0 && errno == EAGAIN)
            continue;
        if (n < 0)
            fail("recv");
        if (n == 0)
            die("recv: end of stream");
        got += (size_t)n;
    }
}

static void send_polled(pysock *s, const char *data, size_t size)
{
    ptrdiff_t n = pysock_send(s, data, size, 0);

    if (n < 0)
        fail("send");
    if ((size_t)n != size)
        die("send took %ld bytes", (long)n);
}

void py_polled_serve(int arg)
{
    char buf[MESSAGE_SIZE];
    int port;
    pysock *s, *listener = make_listener(&port);

    (void)arg;
    make_server_context();
    tell(port);
    s = accept_plain(listener);
    shake_hands_polled(s, NULL);
    for (;;) {
        receive_polled(s, buf, sizeof buf);
        send_polled(s, buf, sizeof buf);
    }
}

void py_polled_open(int arg, int port)
{
    (void)arg;
    make_client_context();
    connection = connect_plain(port);
    shake_hands_polled(connection, HOST_NAME);
    check_suite(connection);
}

long py_polled_batch(void)
{
    char buf[MESSAGE_SIZE] = "ping";
    int i;

    for (i = 0; i < ECHO_BATCH; i++) {
        send_polled(connection, buf, sizeof buf);
        receive_polled(connection, buf, sizeof buf);
    }
    return ECHO_BATCH;
}

/* ---- bulk ---- */

void py_bulk_serve(int arg)
{
    static char buf[BULK_WRITE];
    pysock *s = accept_only_tls();
    size_t left;
    ptrdiff_t n;

    (void)arg;
    for (;;) {
        for (left = (size_t)BULK_WRITE * BULK_WRITES; left > 0; left -= (size_t)n) {
            n = pysock_recv(s, buf, left < sizeof buf ? left : sizeof buf, 0);
            if (n < 0)
                fail("recv");
            if (n == 0)
                die("recv: end of stream");
        }
        send_all(s, "k", 1);
    }
}

long py_bulk_batch(void)
{
    static char buf[BULK_WRITE];
    int i;

    for (i = 0; i < BULK_WRITES; i++)
        send_all(connection, buf, sizeof buf);
    receive_all(connection, buf, 1);
    return BULK_WRITES;
}

/* ---- handshakes ---- */

static void forget_sessions_unless(int resuming)
{
    if (!resuming && pysock_ssl_set_session_cache(context, 0) < 0)
        fail("session cache");
}

void py_handshake_serve(int arg)
{
    char byte;
    int port;
    pysock *s, *listener = make_listener(&port);

    make_server_context();
    forget_sessions_unless(arg);
    tell(port);
    for (;;) {
        s = accept_tls(listener);
        if (pysock_recv(s, &byte, 1, 0) != 0)
            fail("data or an error where only a close was due");
        pysock_close(s);
    }
}

void py_handshake_open(int arg, int port)
{
    make_client_context();
    forget_sessions_unless(arg);
    server_port = port;
    resumes = arg;
}

long py_handshake_batch(void)
{
    pysock *s = connect_tls(server_port);
    int reused = pysock_ssl_session_reused(s);

    if (handshakes++ == 0)
        check_suite(s);
    else if (reused != resumes)
        die("a session was %s", reused ? "resumed" : "not resumed");
    pysock_close(s);
    return 1;
}

/* ---- handshakes of others during a flood ---- */

enum { MAX_FD = 6000 };

static pysock *guests[MAX_FD]; /* by descriptor */

static void end_guest(int fd)
{
    pysock_poller_unregister(poller, fd);
    pysock_close(guests[fd]);
    guests[fd] = NULL;
}

static void take_guest(pysock *listener)
{
    pysock *s = pysock_accept(listener, NULL);
    int fd;

    if (!s)
        return; /* it has gone already */
    fd = pysock_fileno(s);
    if (fd >= MAX_FD || pysock_setblocking(s, 0) < 0
        || pysock_poller_register(poller, fd, POLLIN, NULL) < 0)
        fail("register");
    guests[fd] = s;
}

static void serve_guest(int fd)
{
    char buf[256];
    ptrdiff_t n = pysock_recv(guests[fd], buf, sizeof buf, 0);

    if (n > 0 || (n < 0 && errno == EAGAIN))
        return;
    end_guest(fd);
}

void py_flood_serve(int arg)
{
    pysock_pollevent events[64];
    ptrdiff_t i, n;
    int port, fd;
    pysock *listener = make_listener(&port);

    (void)arg;
    make_server_context();
    forget_sessions_unless(0);
    poller = pysock_poller_new();
    if (!poller || pysock_ssl_wrap_socket(listener, context, NULL) < 0
        || pysock_setblocking(listener, 0) < 0
        || pysock_poller_register(poller, pysock_fileno(listener), POLLIN, NULL) < 0)
        fail("server");
    tell(port);
    for (;;) {
        n = pysock_poller_poll(poller, events, 64, PYSOCK_NO_TIMEOUT);
        if (n < 0)
            fail("poll");
        for (i = 0; i < n; i++) {
            fd = events[i].fd;
            if (fd == pysock_fileno(listener))
                take_guest(listener);
            else if (fd < MAX_FD && guests[fd])
                serve_guest(fd);
        }
    }
}

void py_flood_open(int arg, int port)
{
    flood_start(arg, port);
    leave_the_core(); /* the server is never idle: the client must not wait for its turn there */
    py_handshake_open(0, port);
}

long py_flood_batch(void)
{
    return py_handshake_batch();
}

/* ---- a deadline during a flood ---- */

void py_timeout_open(int arg, int port)
{
    (void)arg;
    make_client_context();
    server_port = port;
}

long py_timeout_batch(void)
{
    pysock *s = connect_plain(server_port);

    if (pysock_settimeout(s, TIMED_OUT / 1000.0) < 0)
        fail("settimeout");
    if (pysock_ssl_wrap_socket(s, context, HOST_NAME) == 0)
        die("a handshake where a timeout was due");
    if (pysock_error() != PYSOCK_TIMEOUT_ERROR)
        fail("handshake");
    pysock_abort(s);
    return 1;
}

static void *handshake_that_is_ended(void *s)
{
    if (pysock_ssl_do_handshake(s) == 0)
        die("a handshake with a server that finishes none");
    if (pysock_error_code() != EBADF && pysock_error_code() != ESHUTDOWN)
        fail("handshake");
    return NULL;
}

/* TIMED_OUT ms after another thread has begun the handshake, cleans up or closes the socket. */
static long end_handshake(int cleans_up)
{
    const struct timespec span = {TIMED_OUT / 1000, TIMED_OUT % 1000 * 1000000L};
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    pysock *s = connect_plain(server_port);
    pthread_t t;

    options.server_hostname = HOST_NAME;
    options.no_handshake_on_connect = 1;
    if (pysock_ssl_wrap_socket_ex(s, context, &options) < 0)
        fail("wrap_socket");
    if (pthread_create(&t, NULL, handshake_that_is_ended, s) != 0)
        die("no thread");
    nanosleep(&span, NULL);
    if (cleans_up)
        pysock_cleanup();
    else if (pysock_close(s) < 0)
        fail("close");
    pthread_join(t, NULL);
    return 1;
}

long py_close_batch(void)
{
    return end_handshake(0);
}

long py_cleanup_batch(void)
{
    return end_handshake(1);
}

/* ---- one ready among many idle ---- */

/* n + 1 sockets on the poller, of which the one in the middle is returned. */
static pysock *accept_idle(int n)
{
    int i, port;
    pysock *s, *middle = NULL, *listener = make_listener(&port);

    tell(port);
    for (i = 0; i <= n; i++) {
        s = accept_plain(listener);
        send_all(s, "k", 1);
        if (pysock_setblocking(s, 0) < 0
            || pysock_poller_register(poller, pysock_fileno(s), POLLIN, NULL) < 0)
            fail("register");
        if (i == n / 2)
            middle = s;
    }
    return middle;
}

void py_ping_serve(int arg)
{
    pysock_pollevent events[16];
    char byte;
    pysock *s;
    int i;

    poller = pysock_poller_new();
    if (!poller)
        fail("poller");
    s = accept_idle(arg);
    for (;;) {
        for (i = 0; i < PING_BURST; i++) {
            if (pysock_poller_poll(poller, events, 16, PYSOCK_NO_TIMEOUT) != 1
                || events[0].fd != pysock_fileno(s) || !(events[0].events & POLLIN))
                die("the poller tells the wrong descriptor");
            receive_all(s, &byte, 1);
        }
        send_all(s, "k", 1);
    }
}
