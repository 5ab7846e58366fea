/* STARTTLS, and what was read before it: nothing that came in clear is ever handed out as if TLS
   had protected it (CVE-2011-0411 and its kin). */
#include "support/contexts.h"

#define LONG T_SCALE(30.0, 60.0)

/* [0] is the client. Both have a timeout. */
static void make_pair(pysock *pair[2]) {
    t_pair(pair);
    for (int i = 0; i < 2; i++)
        T_OK(pysock_settimeout(pair[i], LONG));
}

/* wrap_socket, in one of its forms, on a plain socket that has a file with unread input. */
enum { BLOCKING, NON_BLOCKING, NO_HANDSHAKE, AS_SERVER, FORMS };

static int wrap(pysock *s, int form) {
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    if (form == NON_BLOCKING)
        T_OK(pysock_setblocking(s, 0));
    if (form != NO_HANDSHAKE)
        return pysock_ssl_wrap_socket(s, form == AS_SERVER ? server_ctx : client_ctx,
                                      form == AS_SERVER ? NULL : "localhost");
    options.server_hostname = "localhost";
    options.no_handshake_on_connect = 1;
    return pysock_ssl_wrap_socket_ex(s, client_ctx, &options);
}

/* It fails, says why, and leaves a plain socket. */
static void must_refuse(pysock *s, int form) {
    int rc;
    pysock_error_clear();
    rc = wrap(s, form);
    if (rc != -1)
        T_FAIL("wrapped, although a file has unread input");
    T_CHECK(pysock_error() != PYSOCK_NO_ERROR);
    if (!strstr(pysock_error_message(), "file") ||
        (!strstr(pysock_error_message(), "unread") && !strstr(pysock_error_message(), "not read")))
        T_FAIL("the message does not say that a file has unread input: %s", pysock_error_message());
    T_CHECK(strncmp(pysock_error_message(), "ssl_wrap_socket", 15) == 0);
    T_EQ(pysock_is_ssl(s), 0);
    T_OK(pysock_settimeout(s, LONG));
}

/* TLS at the far end, and a line over it. */
static void *answer_over_tls(void *arg) {
    pysock *s = arg;
    T_OK(pysock_ssl_wrap_socket(s, server_ctx, NULL));
    t_say(s, "250 genuine\r\n");
    return NULL;
}

static void expect_line(pysock_file *f, const char *want) {
    char line[100];
    T_OK(pysock_file_readline(f, line, sizeof line));
    if (strcmp(line, want) != 0)
        T_FAIL("the file gives '%s', not '%s'", line, want);
}

/* ---- makefile ---- */

T_TEST(wrap_refuses_where_a_file_has_unread_input, 120) {
    for (int form = 0; form < FORMS; form++)
        for (int rw = 0; rw < 2; rw++) {
            pysock *pair[2];
            pysock_file *f;
            make_pair(pair);
            t_say(pair[1], "220 ready\r\n250 INJECTED\r\n");
            f = T_OK(pysock_makefile(pair[0], rw ? "rw" : "r", -1));
            expect_line(f, "220 ready\r\n");
            must_refuse(pair[0], form);
            expect_line(f, "250 INJECTED\r\n"); /* in clear, and told so: nothing is lost */
            T_OK(pysock_file_close(f));
            t_close_pair(pair);
        }
}

/* However little was read, and however little is left. */
T_TEST(one_byte_is_enough, 60) {
    pysock *pair[2];
    pysock_file *f;
    char buf[32];
    make_pair(pair);
    t_say(pair[1], "abc");
    f = T_OK(pysock_makefile(pair[0], "r", 4096));
    while (!t_readable(pair[0], LONG))
        continue;
    T_EQ(pysock_file_read(f, buf, 2), 2);
    must_refuse(pair[0], BLOCKING);
    T_EQ(pysock_file_read1(f, buf, sizeof buf), 1);
    T_EQ(buf[0], 'c');
    T_OK(pysock_file_close(f));
    t_close_pair(pair);
}

T_TEST(any_of_several_files_is_enough, 60) {
    pysock *pair[2];
    pysock_file *f[3];
    for (int which = 0; which < 3; which++) {
        make_pair(pair);
        t_say(pair[1], "220 ready\r\n250 INJECTED\r\n");
        for (int i = 0; i < 3; i++)
            f[i] = T_OK(pysock_makefile(pair[0], "r", -1));
        expect_line(f[which], "220 ready\r\n");
        must_refuse(pair[0], BLOCKING);
        for (int i = 0; i < 3; i++)
            T_OK(pysock_file_close(f[i]));
        t_close_pair(pair);
    }
}

T_TEST(once_all_is_read_the_file_goes_on_over_TLS, 60) {
    for (int refused = 0; refused < 2; refused++) {
        pysock *pair[2];
        pysock_file *f;
        t_thread t;
        make_pair(pair);
        t_say(pair[1], refused ? "220 ready\r\n250 plain\r\n" : "220 ready\r\n");
        f = T_OK(pysock_makefile(pair[0], "rw", -1));
        expect_line(f, "220 ready\r\n");
        if (refused) {
            must_refuse(pair[0], BLOCKING);
            expect_line(f, "250 plain\r\n");
        }
        t_spawn(&t, answer_over_tls, pair[1]);
        T_OK(pysock_ssl_wrap_socket(pair[0], client_ctx, "localhost"));
        t_join(&t);
        expect_line(f, "250 genuine\r\n");
        T_EQ(pysock_file_write(f, "QUIT\r\n", 6, NULL), 6);
        T_OK(pysock_file_flush(f));
        t_expect(pair[1], "QUIT\r\n");
        T_OK(pysock_file_close(f));
        t_close_pair(pair);
    }
}

/* What a closed file had not handed out can be told by nobody. */
T_TEST(a_closed_file_is_no_obstacle, 60) {
    pysock *pair[2];
    pysock_file *f;
    t_thread t;
    make_pair(pair);
    t_say(pair[1], "220 ready\r\n250 INJECTED\r\n");
    f = T_OK(pysock_makefile(pair[0], "r", -1));
    expect_line(f, "220 ready\r\n");
    T_OK(pysock_file_close(f));
    t_spawn(&t, answer_over_tls, pair[1]);
    T_OK(pysock_ssl_wrap_socket(pair[0], client_ctx, "localhost"));
    t_join(&t);
    t_expect(pair[0], "250 genuine\r\n");
    t_close_pair(pair);
}

/* A write buffer is no input; nor is what an unbuffered file has passed on. */
T_TEST(other_files_are_no_obstacle, 60) {
    for (int kind = 0; kind < 3; kind++) {
        pysock *pair[2];
        pysock_file *f;
        char line[32];
        t_thread t;
        make_pair(pair);
        t_say(pair[1], "220 ready\r\n");
        f = T_OK(pysock_makefile(pair[0],
                                 kind == 0   ? "w"
                                 : kind == 1 ? "r"
                                             : "rw",
                                 kind == 0 ? -1 : 0));
        if (kind == 0)
            t_expect(pair[0], "220 ready\r\n");
        else
            for (size_t have = 0; have < 11;)
                have += (size_t)T_OK(pysock_file_read(f, line + have, 11 - have));
        t_spawn(&t, answer_over_tls, pair[1]);
        T_OK(pysock_ssl_wrap_socket(pair[0], client_ctx, "localhost"));
        t_join(&t);
        t_expect(pair[0], "250 genuine\r\n");
        T_OK(pysock_file_close(f));
        t_close_pair(pair);
    }
}

/* A server's end: the client pipelines commands behind its STARTTLS (RFC 3207, 4.2; CVE-2011-0411
   itself). */
T_TEST(commands_behind_STARTTLS_are_not_taken_over, 60) {
    pysock *pair[2];
    pysock_file *f;
    make_pair(pair);
    t_say(pair[1], "STARTTLS\r\nMAIL FROM:<evil>\r\n");
    f = T_OK(pysock_makefile(pair[0], "rw", -1));
    expect_line(f, "STARTTLS\r\n");
    must_refuse(pair[0], AS_SERVER);
    T_OK(pysock_file_close(f));
    t_close_pair(pair);
}

/* A listening socket, and one that is not connected, have no input. */
T_TEST(sockets_without_input_are_wrapped_as_ever, 30) {
    int port;
    pysock *s = t_listen(&port);
    T_OK(pysock_ssl_wrap_socket(s, server_ctx, NULL));
    T_OK(pysock_close(s));
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_ssl_wrap_socket(s, client_ctx, "localhost"));
    T_OK(pysock_close(s));
}

/* ---- fdopen ---- */

T_TEST(wrap_refuses_where_a_FILE_has_unread_input, 120) {
    for (int form = 0; form < FORMS; form++) {
        pysock *pair[2];
        char line[100];
        FILE *f;
        make_pair(pair);
        t_say(pair[1], "220 ready\r\n250 INJECTED\r\n");
        f = T_OK(pysock_fdopen(pair[0], "r"));
        T_CHECK(fgets(line, sizeof line, f) && strcmp(line, "220 ready\r\n") == 0);
        must_refuse(pair[0], form);
        T_CHECK(fgets(line, sizeof line, f) && strcmp(line, "250 INJECTED\r\n") == 0);
        fclose(f);
        t_close_pair(pair);
    }
}

/* Without unread input it goes on over TLS, or fails; but never hands out what came in clear. */
T_TEST(a_FILE_goes_on_over_TLS_or_fails, 60) {
    pysock *pair[2];
    char line[100];
    FILE *f;
    t_thread t;
    make_pair(pair);
    t_say(pair[1], "220 ready\r\n");
    f = T_OK(pysock_fdopen(pair[0], "r"));
    T_CHECK(fgets(line, sizeof line, f) && strcmp(line, "220 ready\r\n") == 0);
    t_spawn(&t, answer_over_tls, pair[1]);
    T_OK(pysock_ssl_wrap_socket(pair[0], client_ctx, "localhost"));
    t_join(&t);
    if (fgets(line, sizeof line, f))
        T_CHECK(strcmp(line, "250 genuine\r\n") == 0);
    else
        T_CHECK(ferror(f));
    fclose(f);
    t_close_pair(pair);
}

/* One for each direction: what waits to be written is not read, but what is read is. */
T_TEST(a_FILE_to_write_is_no_obstacle, 60) {
    pysock *pair[2];
    FILE *f;
    t_thread t;
    make_pair(pair);
    f = T_OK(pysock_fdopen(pair[0], "w"));
    T_CHECK(fputs("STARTTLS\r\n", f) >= 0);
    T_EQ(fflush(f), 0);
    t_expect(pair[1], "STARTTLS\r\n");
    t_spawn(&t, answer_over_tls, pair[1]);
    T_OK(pysock_ssl_wrap_socket(pair[0], client_ctx, "localhost"));
    t_join(&t);
    t_expect(pair[0], "250 genuine\r\n");
    T_CHECK(fputs("QUIT\r\n", f) >= 0);
    T_EQ(fflush(f), 0);
    t_expect(pair[1], "QUIT\r\n");
    fclose(f);
    t_close_pair(pair);
}

/* ---- without files ---- */

static void *inject_and_answer(void *arg) {
    pysock *s = arg;
    char byte;
    t_say(s, "250 INJECTED\r\n");
    while (pysock_recv(s, &byte, 1, 0) > 0) /* the ClientHello, and then its alert and the end */
        continue;
    return NULL;
}

/* Text in the kernel is no record: the handshake fails, and nobody is given the text. */
T_TEST(what_is_in_the_kernel_fails_the_handshake, 60) {
    for (int ahead = 0; ahead < 2; ahead++) {
        pysock *pair[2];
        pysock_ssl_context *ctx = t_client_ctx();
        t_thread t;
        char buf[64];
        if (ahead)
            T_OK(pysock_ssl_set_options(ctx, pysock_ssl_get_options(ctx) | PYSOCK_OP_READ_AHEAD));
        make_pair(pair);
        t_spawn(&t, inject_and_answer, pair[1]);
        T_CHECK(t_readable(pair[0], LONG));
        T_FAILS(pysock_ssl_wrap_socket(pair[0], ctx, "localhost"), PYSOCK_SSL_ERROR, EPROTO);
        T_FAILS(pysock_recv(pair[0], buf, sizeof buf, 0), T_ANY, T_ANY);
        T_OK(pysock_close(pair[0]));
        t_join(&t);
        T_OK(pysock_close(pair[1]));
        pysock_ssl_context_release(ctx);
    }
}

/* A short read lets the library guess that there is no more; TLS begins without that guess. */
T_TEST(a_short_read_in_clear_holds_up_nothing, 60) {
    for (int by_buffer = 0; by_buffer < 2; by_buffer++)
        for (int timed = 0; timed < 2; timed++) {
            pysock *pair[2];
            char buf[64];
            t_thread t;
            make_pair(pair);
            T_OK(pysock_settimeout(pair[0], timed ? LONG : PYSOCK_NO_TIMEOUT));
            t_say(pair[1], "220 ready\r\n");
            if (by_buffer) {
                pysock_buf *b = T_OK(pysock_recv_buf(pair[0], 4096));
                T_EQ(pysock_buf_size(b), 11);
                pysock_buf_release(b);
            } else {
                T_EQ(pysock_recv(pair[0], buf, sizeof buf, 0), 11);
            }
            t_spawn(&t, answer_over_tls, pair[1]);
            T_OK(pysock_ssl_wrap_socket(pair[0], client_ctx, "localhost"));
            t_join(&t);
            t_expect(pair[0], "250 genuine\r\n");
            T_OK(pysock_setblocking(pair[0], 0));
            T_FAILS(pysock_recv(pair[0], buf, sizeof buf, 0), PYSOCK_OS_ERROR, EAGAIN);
            t_close_pair(pair);
        }
}

/* A peek leaves the text in the kernel, where it is no record either. */
T_TEST(what_was_peeked_at_is_not_told_again, 60) {
    pysock *pair[2];
    char buf[64];
    t_thread t;
    make_pair(pair);
    t_spawn(&t, inject_and_answer, pair[1]);
    T_CHECK(T_OK(pysock_recv(pair[0], buf, sizeof buf, MSG_PEEK)) > 0);
    T_FAILS(pysock_ssl_wrap_socket(pair[0], client_ctx, "localhost"), PYSOCK_SSL_ERROR, EPROTO);
    T_OK(pysock_close(pair[0]));
    t_join(&t);
    T_OK(pysock_close(pair[1]));
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts)
