/* What a failed call leaves behind: the thread's error, whole and nobody else's. */
#include "support/contexts.h"
#include "support/handshake.h"

/* The DER of a certificate of tests/certs. */
static pysock_buf *certificate(const char *name) {
    static char pem[8192];
    char path[256];
    size_t n;
    FILE *f;
    snprintf(path, sizeof path, T_CERTS "%s.pem", name);
    f = fopen(path, "r");
    T_CHECK(f != NULL);
    n = fread(pem, 1, sizeof pem - 1, f);
    pem[n] = 0;
    fclose(f);
    return T_OK(pysock_ssl_pem_cert_to_der_cert(pem));
}

/* Leaves an error of verification in the thread. */
static void refuse_a_certificate(void) {
    pysock_buf *der = certificate("server-ec");
    T_FAILS(pysock_ssl_match_hostname(pysock_buf_data(der), pysock_buf_size(der), "other.test"),
            PYSOCK_SSL_CERT_VERIFICATION_ERROR, T_ANY);
    T_EQ(pysock_error_verify_code(), 62);
    T_CHECK(strcmp(pysock_error_verify_message(), "Hostname mismatch") == 0);
    pysock_buf_release(der);
}

static void expect_no_verification(const char *name, const char *library) {
    T_EQ(pysock_error_verify_code(), 0);
    H_SAME(pysock_error_verify_message(), "");
    H_SAME(pysock_error_name(), name);
    H_SAME(pysock_error_library(), library);
}

/* T_FAILS clears the error first, which is what this is about. */
#define LATER(expr, name, library)                                                                 \
    do {                                                                                           \
        T_STEP("%s", #expr);                                                                       \
        refuse_a_certificate();                                                                    \
        T_CHECK((intptr_t)(expr) == -1 || (intptr_t)(expr) == 0);                                  \
        expect_no_verification(name, library);                                                     \
    } while (0)

T_TEST(a_later_error_has_no_verify_code, 60) {
    pysock *pair[2];
    char byte, text[64];
    pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    t_pair(pair);
    T_OK(pysock_setblocking(pair[0], 0));
    LATER(pysock_recv(pair[0], &byte, 1, 0), "BlockingIOError", "");
    T_OK(pysock_settimeout(pair[0], 0.001));
    LATER(pysock_recv(pair[0], &byte, 1, 0), "TimeoutError", "");
    LATER(pysock_settimeout(pair[0], -5), "ValueError", "");
    LATER(pysock_poller_unregister(NULL, 3), "ValueError", "");
    LATER(pysock_inet_pton(AF_INET, "nowhere", text), "OSError", "");
    LATER(pysock_ssl_load_cert_chain(ctx, T_CERTS "server-ec.key", NULL), "SSLError", "PEM");
    LATER(pysock_ssl_load_cert_chain(ctx, T_CERTS "server-ec.pem", T_CERTS "server-rsa.key"),
          "SSLError", "X509");
    LATER(pysock_ssl_set_ciphers(ctx, "NONE-OF-THESE"), "SSLError", "SSL");
    t_close_pair(pair);
    LATER(pysock_recv(pair[0], &byte, 1, 0), "OSError", "");
    pysock_ssl_context_release(ctx);
}

/* What the reactor met is told with all that belongs to it. */
T_TEST(a_refusal_in_the_reactor_keeps_its_verify_code, 60) {
    pysock *pair[2];
    pysock_ssl_context *server = t_server_ctx_of("wrong-host");
    t_pair(pair);
    T_OK(pysock_setblocking(pair[0], 0));
    T_OK(pysock_setblocking(pair[1], 0));
    T_OK(pysock_ssl_wrap_socket(pair[1], server, NULL));
    T_OK(pysock_ssl_wrap_socket(pair[0], client_ctx, "localhost"));
    T_EQ(t_readable(pair[0], 30), 1);
    {
        struct pollfd fd = {pysock_fileno(pair[0]), POLLIN | POLLOUT, 0};
        T_EQ(pysock_poll(&fd, 1, 0), 1);
        T_EQ(fd.revents, POLLIN | POLLOUT | POLLERR);
    }
    for (int i = 0; i < 3; i++) { /* each call tells it */
        pysock_error_clear();
        T_EQ(pysock_ssl_do_handshake(pair[0]), -1);
        T_EQ(pysock_error(), PYSOCK_SSL_CERT_VERIFICATION_ERROR);
        T_EQ(errno, EPROTO);
        T_EQ(pysock_error_verify_code(), 62);
        H_SAME(pysock_error_verify_message(), "Hostname mismatch");
        T_FAILS(pysock_send(pair[0], "x", 1, 0), PYSOCK_SSL_CERT_VERIFICATION_ERROR, EPROTO);
        T_EQ(pysock_error_verify_code(), 62);
    }
    t_close_pair(pair);
    pysock_ssl_context_release(server);
}

T_TEST(clear_forgets_all_of_it, 30) {
    refuse_a_certificate();
    pysock_error_clear();
    T_EQ(pysock_error(), PYSOCK_NO_ERROR);
    T_EQ(pysock_error_code(), 0);
    expect_no_verification("", "");
    H_SAME(pysock_error_reason(), "");
    H_SAME(pysock_error_message(), "no error");
}

static void *fail_thread(void *arg) {
    (void)arg;
    T_EQ(pysock_error(), PYSOCK_NO_ERROR);
    T_FAILS(pysock_settimeout(NULL, 1), PYSOCK_VALUE_ERROR, EINVAL);
    return NULL;
}

T_TEST(an_error_is_its_threads_and_outlives_success, 30) {
    char before[512];
    pysock *pair[2];
    t_thread t;
    refuse_a_certificate();
    snprintf(before, sizeof before, "%s", pysock_error_message());
    t_spawn(&t, fail_thread, NULL);
    t_join(&t);
    t_pair(pair);
    t_close_pair(pair);
    T_EQ(pysock_error(), PYSOCK_SSL_CERT_VERIFICATION_ERROR);
    T_EQ(pysock_error_verify_code(), 62);
    H_SAME(pysock_error_message(), before);
}

/* Python's exception, and the errno that goes with it. */
T_TEST(each_kind_has_its_errno_and_name, 60) {
    pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
    pysock_poller *p = T_OK(pysock_poller_new());
    pysock_addrinfo *list;
    pysock *pair[2];
    char text[64];
    T_FAILS(pysock_getaddrinfo("256.256.256.256", NULL, 0, 0, 0, AI_NUMERICHOST, &list),
            PYSOCK_GAI_ERROR, EADDRNOTAVAIL);
    T_EQ(pysock_error_code(), EAI_NONAME);
    H_SAME(pysock_error_name(), "gaierror");
    T_FAILS(pysock_poller_unregister(p, 900), PYSOCK_KEY_ERROR, ENOENT);
    H_SAME(pysock_error_name(), "KeyError");
    T_FAILS(pysock_inet_ntop(AF_INET, "1234", 3, text, sizeof text), PYSOCK_VALUE_ERROR, EINVAL);
    H_SAME(pysock_error_name(), "ValueError");
    T_FAILS(pysock_ssl_load_cert_chain_data(ctx, "x", 1, "y", 1), PYSOCK_SSL_ERROR, EPROTO);
    H_SAME(pysock_error_name(), "SSLError");
    t_tls_pair(pair, client_ctx, server_ctx);
    T_OK(pysock_settimeout(pair[0], 0.001));
    T_FAILS(pysock_recv(pair[0], text, 1, 0), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    H_SAME(pysock_error_name(), "TimeoutError");
    T_OK(pysock_close(pair[1]));
    T_OK(pysock_settimeout(pair[0], 30));
    T_EQ(pysock_recv(pair[0], text, 1, 0), 0);
    T_FAILS(pysock_send(pair[0], "x", 1, 0), PYSOCK_SSL_ZERO_RETURN_ERROR, EPIPE);
    H_SAME(pysock_error_name(), "SSLZeroReturnError");
    T_OK(pysock_close(pair[0]));
    pysock_poller_release(p);
    pysock_ssl_context_release(ctx);
}

T_TEST(errors_that_are_not_of_ssl_have_no_library, 60) {
    pysock_error_clear();
    H_SAME(pysock_error_library(), "");
    T_FAILS(pysock_ssl_load_cert_chain(NULL, "x", "y"), PYSOCK_VALUE_ERROR, EINVAL);
    H_SAME(pysock_error_library(), "");
    T_FAILS(pysock_create_server("127.0.0.1", -1, 0), T_ANY, T_ANY);
    H_SAME(pysock_error_library(), "");
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts)
