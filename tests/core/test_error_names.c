/* Errors name the call that the user made, and say what to do instead. */
#include "support/contexts.h"

#include "support/handshake.h"

/* The message of the last error begins with this call's name; a family may share the name of its
   first (connect_addr is told as connect), and EAGAIN has one message for all. */
static int names(const char *call) {
    const char *message = pysock_error_message();
    size_t n = strcspn(message, ": ");
    if (strncmp(message, "the call would have to wait", 27) == 0)
        return 1;
    return n > 0 && strncmp(message, call, n) == 0 && (call[n] == 0 || call[n] == '_');
}

#define NAMES(expr, call)                                                                          \
    do {                                                                                           \
        T_FAILS(expr, T_ANY, T_ANY);                                                               \
        if (!names(call))                                                                          \
            T_FAIL("%s failed, but the message is: %s", call, pysock_error_message());             \
    } while (0)

/* ---- every call, on a socket that is closed, plain, or without a handshake ---- */

typedef struct swept {
    const char *name;
    intptr_t (*call)(pysock *s);
} swept;

static char room[512] __attribute__((aligned(16))); /* for any of the structures, too */
static size_t room_count;
static pysock_addr room_addr;
static pysock_msg room_msg;
static struct iovec room_iov = {room, sizeof room};
static pysock_ssl_wrap_options room_options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
static pysock_buf *room_buf;

#define SWEPT(call_name, expr)                                                                     \
    static intptr_t call_##call_name(pysock *s) {                                                  \
        return (intptr_t)(expr);                                                                   \
    }

SWEPT(dup, pysock_dup(s))
SWEPT(detach, pysock_detach(s))
SWEPT(connect, pysock_connect(s, "127.0.0.1", 1))
SWEPT(connect_addr, pysock_connect_addr(s, &room_addr))
SWEPT(bind, pysock_bind(s, "127.0.0.1", 0))
SWEPT(bind_addr, pysock_bind_addr(s, &room_addr))
SWEPT(listen, pysock_listen(s, 1))
SWEPT(accept, pysock_accept(s, NULL))
SWEPT(accept_fd, pysock_accept_fd(s, NULL))
SWEPT(recv, pysock_recv(s, room, 1, 0))
SWEPT(recv_into, pysock_recv_into(s, room, 1, 0))
SWEPT(send, pysock_send(s, "x", 1, 0))
SWEPT(sendall, pysock_sendall(s, "x", 1, 0))
SWEPT(recvfrom, pysock_recvfrom(s, room, 1, 0, NULL))
SWEPT(recvfrom_into, pysock_recvfrom_into(s, room, 1, 0, NULL))
SWEPT(sendto, pysock_sendto(s, "x", 1, 0, "127.0.0.1", 1))
SWEPT(sendto_addr, pysock_sendto_addr(s, "x", 1, 0, &room_addr))
SWEPT(recvmsg, pysock_recvmsg(s, room, 1, &room_msg, 0))
SWEPT(recvmsg_into, pysock_recvmsg_into(s, &room_iov, 1, &room_msg, 0))
SWEPT(sendmsg, pysock_sendmsg(s, &room_iov, 1, NULL, 0, 0, NULL))
SWEPT(send_fds, pysock_send_fds(s, "x", 1, NULL, 0, 0))
SWEPT(recv_fds, pysock_recv_fds(s, room, 1, NULL, &room_count, 0, NULL))
SWEPT(shutdown, pysock_shutdown(s, SHUT_RD))
SWEPT(fileno, pysock_fileno(s))
SWEPT(set_userdata, pysock_set_userdata(s, NULL))
SWEPT(wait, pysock_wait(s, 0, 0))
SWEPT(family, pysock_family(s))
SWEPT(type, pysock_type(s))
SWEPT(proto, pysock_proto(s))
SWEPT(get_inheritable, pysock_get_inheritable(s))
SWEPT(set_inheritable, pysock_set_inheritable(s, 0))
SWEPT(getsockname, pysock_getsockname(s, &room_addr))
SWEPT(getpeername, pysock_getpeername(s, &room_addr))
SWEPT(setblocking, pysock_setblocking(s, 1))
SWEPT(settimeout, pysock_settimeout(s, 1))
SWEPT(getblocking, pysock_getblocking(s))
SWEPT(obey_nonblock, pysock_obey_nonblock(s, 0))
SWEPT(setsockopt, pysock_setsockopt(s, SOL_SOCKET, SO_KEEPALIVE, room, sizeof(int)))
SWEPT(setsockopt_int, pysock_setsockopt_int(s, SOL_SOCKET, SO_KEEPALIVE, 0))
SWEPT(getsockopt_int, pysock_getsockopt_int(s, SOL_SOCKET, SO_KEEPALIVE, (int *)(void *)room))
SWEPT(recv_buf, pysock_recv_buf(s, 1))
SWEPT(send_buf, pysock_send_buf(s, room_buf))
SWEPT(set_watermarks, pysock_set_watermarks(s, 1, 2))
SWEPT(queued, pysock_queued(s))
SWEPT(sendfile, pysock_sendfile(s, 0, 0, 0))
SWEPT(makefile, pysock_makefile(s, "r", -1))
SWEPT(fdopen, pysock_fdopen(s, "r"))
SWEPT(ssl_wrap_socket, pysock_ssl_wrap_socket(s, client_ctx, "localhost"))
SWEPT(ssl_wrap_socket_ex, pysock_ssl_wrap_socket_ex(s, client_ctx, &room_options))
SWEPT(ssl_do_handshake, pysock_ssl_do_handshake(s))
SWEPT(ssl_unwrap, pysock_ssl_unwrap(s))
SWEPT(is_ssl, pysock_is_ssl(s))
SWEPT(ssl_server_side, pysock_ssl_server_side(s))
SWEPT(ssl_version, pysock_ssl_version(s))
SWEPT(ssl_get_context, pysock_ssl_get_context(s))
SWEPT(ssl_set_context, pysock_ssl_set_context(s, client_ctx))
SWEPT(ssl_cipher, pysock_ssl_cipher(s, (pysock_ssl_cipher_info *)(void *)room))
SWEPT(ssl_shared_ciphers, pysock_ssl_shared_ciphers(s, NULL, 0))
SWEPT(ssl_getpeercert, pysock_ssl_getpeercert(s))
SWEPT(ssl_getpeercert_der, pysock_ssl_getpeercert_der(s))
SWEPT(ssl_get_unverified_chain, pysock_ssl_get_unverified_chain(s, NULL, 0))
SWEPT(ssl_get_verified_chain, pysock_ssl_get_verified_chain(s, NULL, 0))
SWEPT(ssl_get_channel_binding, pysock_ssl_get_channel_binding(s, "tls-unique", room, 64))
SWEPT(ssl_get_session, pysock_ssl_get_session(s))

/* clang-format off */
#define ROW(call_name) {#call_name, call_##call_name}

static const swept socket_calls[] = {
    ROW(dup), ROW(detach), ROW(connect), ROW(connect_addr), ROW(bind), ROW(bind_addr), ROW(listen),
    ROW(accept), ROW(accept_fd), ROW(recv), ROW(recv_into), ROW(send), ROW(sendall), ROW(recvfrom),
    ROW(recvfrom_into), ROW(sendto), ROW(sendto_addr), ROW(recvmsg), ROW(recvmsg_into),
    ROW(sendmsg), ROW(send_fds), ROW(recv_fds), ROW(shutdown), ROW(fileno), ROW(set_userdata),
    ROW(wait), ROW(family), ROW(type),
    ROW(proto), ROW(get_inheritable), ROW(set_inheritable), ROW(getsockname), ROW(getpeername),
    ROW(setblocking), ROW(settimeout), ROW(getblocking), ROW(obey_nonblock), ROW(setsockopt),
    ROW(setsockopt_int), ROW(getsockopt_int), ROW(recv_buf), ROW(send_buf), ROW(set_watermarks),
    ROW(queued), ROW(sendfile), ROW(makefile), ROW(fdopen)};

static const swept ssl_calls[] = {
    ROW(ssl_wrap_socket), ROW(ssl_wrap_socket_ex), ROW(ssl_do_handshake), ROW(ssl_unwrap),
    ROW(is_ssl), ROW(ssl_server_side), ROW(ssl_version), ROW(ssl_get_context),
    ROW(ssl_set_context), ROW(ssl_cipher), ROW(ssl_shared_ciphers), ROW(ssl_getpeercert),
    ROW(ssl_getpeercert_der), ROW(ssl_get_unverified_chain), ROW(ssl_get_verified_chain),
    ROW(ssl_get_channel_binding), ROW(ssl_get_session)};
/* clang-format on */

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Calls that fail on s name themselves; returns how many do not, having printed them. Those that
   have nothing to complain of do not count. */
static int sweep(const swept *calls, size_t count, pysock *s, int must_fail) {
    int wrong = 0;
    for (size_t i = 0; i < count; i++) {
        intptr_t r;
        pysock_error_clear();
        r = calls[i].call(s);
        if (pysock_error() == PYSOCK_NO_ERROR) {
            if (must_fail && (r == 0 || r == -1)) {
                fprintf(stderr, "*** %s fails without an error\n", calls[i].name);
                wrong++;
            }
            continue;
        }
        if (!names(calls[i].name)) {
            fprintf(stderr, "*** %s: '%s'\n", calls[i].name, pysock_error_message());
            wrong++;
        }
    }
    return wrong;
}

T_TEST(every_call_on_a_closed_socket_names_itself, 60) {
    pysock *s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_addr_parse(&room_addr, "127.0.0.1:1"));
    room_buf = T_OK(pysock_buf_copy("x", 1));
    room_options.server_hostname = "localhost";
    T_OK(pysock_close(s));
    T_EQ(sweep(socket_calls, COUNT(socket_calls), s, 1), 0);
    T_EQ(sweep(ssl_calls, COUNT(ssl_calls), s, 0), 0);
    T_EQ(sweep(socket_calls, COUNT(socket_calls), NULL, 1), 0);
    T_EQ(sweep(ssl_calls, COUNT(ssl_calls), NULL, 0), 0);
    pysock_buf_release(room_buf);
}

T_TEST(every_ssl_call_on_a_plain_socket_names_itself, 60) {
    pysock *pair[2];
    t_pair(pair);
    T_EQ(sweep(ssl_calls + 2, COUNT(ssl_calls) - 2, pair[0], 0), 0);
    t_close_pair(pair);
}

T_TEST(every_ssl_call_before_the_handshake_names_itself, 60) {
    pysock *pair[2];
    t_pair(pair);
    T_OK(pysock_setblocking(pair[1], 0));
    t_wrap_later(pair[1], server_ctx, NULL);
    T_EQ(sweep(ssl_calls, COUNT(ssl_calls), pair[1], 0), 0);
    t_close_pair(pair);
}

/* What waits and times out: the name of the call, and what it was on. */
T_TEST(a_call_that_times_out_names_itself, 60) {
    pysock *pair[2];
    for (int tls = 0; tls < 2; tls++) {
        t_pair(pair);
        if (tls)
            t_wrap_pair(pair, client_ctx, server_ctx);
        T_OK(pysock_settimeout(pair[0], 0.01));
        NAMES(pysock_recv(pair[0], room, 1, 0), "recv");
        NAMES(pysock_recv_into(pair[0], room, 1, 0), "recv_into");
        NAMES(pysock_recv_buf(pair[0], 1), "recv_buf");
        if (tls)
            NAMES(pysock_ssl_unwrap(pair[0]), "ssl_unwrap");
        t_close_pair(pair);
    }
}

/* ---- calls that others are made of ---- */

T_TEST(wrap_bio_names_itself, 60) {
    pysock_bio *in = T_OK(pysock_bio_new()), *out = T_OK(pysock_bio_new());
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    pysock_ssl_context *ctx = t_client_ctx();
    char name[400];
    T_STEP("no name");
    NAMES(pysock_ssl_wrap_bio(ctx, in, out, &options), "ssl_wrap_bio");
    NAMES(pysock_ssl_wrap_bio(ctx, in, out, NULL), "ssl_wrap_bio");
    T_STEP("too long a name");
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = 0;
    options.server_hostname = name;
    NAMES(pysock_ssl_wrap_bio(ctx, in, out, &options), "ssl_wrap_bio");
    T_STEP("a server's context with a name");
    options.server_hostname = "localhost";
    NAMES(pysock_ssl_wrap_bio(server_ctx, in, out, &options), "ssl_wrap_bio");
    T_STEP("NULL");
    NAMES(pysock_ssl_wrap_bio(NULL, in, out, &options), "ssl_wrap_bio");
    NAMES(pysock_ssl_wrap_bio(ctx, NULL, out, &options), "ssl_wrap_bio");
    NAMES(pysock_ssl_wrap_bio(ctx, in, NULL, &options), "ssl_wrap_bio");
    pysock_bio_release(in);
    pysock_bio_release(out);
    pysock_ssl_context_release(ctx);
}

T_TEST(set_context_names_itself, 60) {
    pysock_ssl_context *open = T_OK(pysock_ssl_context_new_protocol(PYSOCK_PROTOCOL_TLS));
    pysock_ssl_context *bare = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
    pysock *pair[2];
    t_pair(pair);
    T_OK(pysock_setblocking(pair[0], 0));
    t_wrap_later(pair[0], open, NULL);
    T_STEP("a context that wants a name");
    NAMES(pysock_ssl_set_context(pair[0], client_ctx), "ssl_set_context");
    T_STEP("NULL");
    NAMES(pysock_ssl_set_context(pair[0], NULL), "ssl_set_context");
    T_STEP("a context of the other side");
    NAMES(pysock_ssl_set_context(pair[0], bare), "ssl_set_context");
    t_close_pair(pair);
    pysock_ssl_context_release(open);
    pysock_ssl_context_release(bare);
}

T_TEST(getpeercert_names_itself, 60) {
    h_pair p;
    h_try(&p, client_ctx, server_ctx, "localhost");
    h_must_be_connected(&p, "localhost");
    NAMES(pysock_ssl_getpeercert(p.server), "ssl_getpeercert"); /* the client has none */
    h_close(&p);
}

T_TEST(a_files_calls_name_themselves, 60) {
    pysock *pair[2];
    pysock_buf **lines;
    size_t taken;
    t_pair(pair);
    for (int buffered = 0; buffered < 2; buffered++) {
        pysock_file *w = T_OK(pysock_makefile(pair[0], "w", buffered ? 8192 : 0));
        pysock_file *r = T_OK(pysock_makefile(pair[0], "r", buffered ? 8192 : 0));
        T_STEP(buffered ? "buffered" : "unbuffered");
        NAMES(pysock_file_read(w, room, 4), "file_read");
        NAMES(pysock_file_readinto(w, room, 4), "file_readinto");
        NAMES(pysock_file_read1(w, room, 4), "file_read1");
        NAMES(pysock_file_readall(w), "file_readall");
        NAMES(pysock_file_readline(w, room, 4), "file_readline");
        NAMES(pysock_file_readlines(w, 0, &lines), "file_readlines");
        NAMES(pysock_file_write(r, "x", 1, &taken), "file_write");
        NAMES(pysock_file_read(NULL, room, 4), "file_read");
        NAMES(pysock_file_readinto(NULL, room, 4), "file_readinto");
        NAMES(pysock_file_read1(NULL, room, 4), "file_read1");
        NAMES(pysock_file_readall(NULL), "file_readall");
        NAMES(pysock_file_readline(NULL, room, 4), "file_readline");
        NAMES(pysock_file_write(NULL, "x", 1, &taken), "file_write");
        NAMES(pysock_file_flush(NULL), "file_flush");
        T_OK(pysock_file_close(w));
        T_OK(pysock_file_close(r));
    }
    t_close_pair(pair);
}

T_TEST(a_file_that_timed_out_names_the_call, 60) {
    static const char *const calls[] = {"file_read", "file_readinto", "file_read1",
                                        "file_readline"};
    for (int buffered = 0; buffered < 2; buffered++)
        for (int i = 0; i < 4; i++) {
            pysock *pair[2];
            pysock_file *f;
            t_pair(pair);
            T_OK(pysock_settimeout(pair[0], 0.01));
            f = T_OK(pysock_makefile(pair[0], "r", buffered ? 8192 : 0));
            for (int again = 0; again < 2; again++) {
                ptrdiff_t n = -1;
                T_STEP("%s, %s, %s", calls[i], buffered ? "buffered" : "unbuffered",
                       again ? "again" : "first");
                pysock_error_clear();
                switch (i) {
                case 0: n = pysock_file_read(f, room, 4); break;
                case 1: n = pysock_file_readinto(f, room, 4); break;
                case 2: n = pysock_file_read1(f, room, 4); break;
                case 3: n = pysock_file_readline(f, room, 4); break;
                }
                T_EQ(n, -1);
                if (!names(calls[i]))
                    T_FAIL("the message is: %s", pysock_error_message());
            }
            T_OK(pysock_file_close(f));
            t_close_pair(pair);
        }
}

/* ---- cleanups ---- */

typedef struct ended {
    t_stage stage;
    t_thread thread;
    pysock_state *in;
    char message[256];
} ended;

static void *wait_to_be_ended(void *arg) {
    ended *e = arg;
    pysock_state_swap(e->in);
    t_wait_thread(&e->stage.w);
    snprintf(e->message, sizeof e->message, "%s", pysock_error_message());
    pysock_state_swap(NULL);
    return NULL;
}

enum { BY_STATE_CLEANUP, BY_STATE_FREE, BY_CLEANUP };

static void end_by(int how, t_wait_kind what, int tls) {
    static ended e;
    pysock_state *before;
    memset(&e, 0, sizeof e);
    e.in = T_OK(pysock_state_new());
    before = pysock_state_swap(e.in);
    t_stage_set(&e.stage, what, tls, PYSOCK_NO_TIMEOUT, client_ctx, server_ctx);
    pysock_state_swap(before);
    t_spawn(&e.thread, wait_to_be_ended, &e);
    t_wait_asleep(&e.thread);
    if (how == BY_CLEANUP)
        pysock_cleanup();
    else
        pysock_state_cleanup(e.in);
    t_join(&e.thread);
    T_EQ(e.stage.w.code, ESHUTDOWN);
    if (how == BY_CLEANUP
            ? !strstr(e.message, "pysock_cleanup()")
            : !strstr(e.message, "pysock_state_cleanup()") || strstr(e.message, "pysock_cleanup()"))
        T_FAIL("the message is: %s", e.message);
    t_stage_clear(&e.stage);
    pysock_state_free(e.in);
}

T_TEST(a_cleanup_is_named_as_what_it_was, 120) {
    static const t_wait_kind kinds[] = {T_WAIT_RECV, T_WAIT_ACCEPT, T_WAIT_SENDALL, T_WAIT_SELECT,
                                        T_WAIT_POLLER};
    for (size_t i = 0; i < COUNT(kinds); i++)
        for (int tls = 0; tls < 2; tls++) {
            T_STEP("wait %d, %s", (int)kinds[i], tls ? "TLS" : "plain");
            end_by(BY_STATE_CLEANUP, kinds[i], tls);
            end_by(BY_CLEANUP, kinds[i], tls);
        }
}

/* ---- what to do instead ---- */

static void has(const char *word) {
    if (!strstr(pysock_error_message(), word))
        T_FAIL("'%s' does not say '%s'", pysock_error_message(), word);
}

T_TEST(a_client_with_a_servers_context_is_told, 60) {
    pysock_ssl_context *wrong = T_OK(pysock_ssl_create_default_context(PYSOCK_CLIENT_AUTH));
    pysock_bio *in = T_OK(pysock_bio_new()), *out = T_OK(pysock_bio_new());
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    pysock *pair[2];
    options.server_hostname = "localhost";
    t_pair(pair);
    NAMES(pysock_ssl_wrap_socket(pair[0], wrong, "localhost"), "ssl_wrap_socket");
    has("SERVER_AUTH");
    NAMES(pysock_ssl_wrap_bio(wrong, in, out, &options), "ssl_wrap_bio");
    has("SERVER_AUTH");
    T_STEP("with a certificate it is the same mistake");
    T_FAILS(pysock_ssl_wrap_socket(pair[0], server_ctx, "localhost"), T_ANY, T_ANY);
    has("SERVER_AUTH");
    T_STEP("without a name it lacks a certificate, at the least");
    T_FAILS(pysock_ssl_wrap_socket(pair[0], wrong, NULL), T_ANY, T_ANY);
    has("SERVER_AUTH");
    t_close_pair(pair);
    pysock_bio_release(in);
    pysock_bio_release(out);
    pysock_ssl_context_release(wrong);
}

static const char *const urls[] = {"https://localhost", "http://localhost/",
                                   "https://localhost:1/x", "ftp://localhost"};
static const char *const with_ports[] = {"localhost:443", "127.0.0.1:443", "[::1]:443",
                                         "name.invalid:80"};

/* Every call that takes a host. */
static void refuses_host(const char *host, const char *why) {
    pysock *s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    pysock *d = T_OK(pysock_socket(AF_INET, SOCK_DGRAM, 0)), *pair[2];
    pysock_addrinfo *list;
    pysock_addr addr;
    char ip[64];
#define TELLS(expr)                                                                                \
    do {                                                                                           \
        T_STEP("%s: %s", host, #expr);                                                             \
        T_FAILS(expr, T_ANY, T_ANY);                                                               \
        has(host);                                                                                 \
        has(why);                                                                                  \
    } while (0)
    TELLS(pysock_create_connection(host, 443, 30));
    TELLS(pysock_create_connection(host, 443, PYSOCK_NO_TIMEOUT));
    TELLS(pysock_connect(s, host, 443));
    T_OK(pysock_settimeout(s, 30));
    TELLS(pysock_connect(s, host, 443));
    TELLS(pysock_bind(s, host, 443));
    TELLS(pysock_create_server(host, 0, -1));
    TELLS(pysock_sendto(d, "x", 1, 0, host, 443));
    TELLS(pysock_getaddrinfo(host, "443", 0, SOCK_STREAM, 0, 0, &list));
    TELLS(pysock_gethostbyname(host, ip, sizeof ip));
    TELLS(pysock_addr_resolve(&addr, AF_INET, host, 443));
    t_pair(pair);
    TELLS(pysock_ssl_wrap_socket(pair[0], client_ctx, host));
    t_close_pair(pair);
#undef TELLS
    T_OK(pysock_close(s));
    T_OK(pysock_close(d));
}

T_TEST(a_URL_is_no_host, 60) {
    for (size_t i = 0; i < COUNT(urls); i++)
        refuses_host(urls[i], "URL");
}

T_TEST(a_host_with_a_port_is_no_host, 60) {
    for (size_t i = 0; i < COUNT(with_ports); i++)
        refuses_host(with_ports[i], "port");
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts)
