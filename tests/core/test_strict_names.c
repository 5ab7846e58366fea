/* Names and numbers that are nearly right: services that would wrap to another port, scope ids in
   the names of TLS, names with empty labels. */
#include "support/contexts.h"

#include "support/handshake.h"

#include <net/if.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Refused as a name, or as a value; never looked up as something else. */
#define REFUSES(expr)                                                                              \
    do {                                                                                           \
        T_FAILS(expr, T_ANY, T_ANY);                                                               \
        T_CHECK(pysock_error() == PYSOCK_GAI_ERROR || pysock_error() == PYSOCK_VALUE_ERROR ||      \
                pysock_error() == PYSOCK_OS_ERROR || pysock_error() == PYSOCK_H_ERROR);            \
    } while (0)

/* ---- services ---- */

/* clang-format off */
static const char *const no_services[] = {
    "65536",  "65616", "131152", "4294967296", "4294967376", "18446744073709551696",
    "99999999999999999999", "-1", "-65456", "+80", "+0", " 80", "80 ", "\t80", "\n80",
    "80\n",   "80x",   "0x50",   "8 0",        "80.0",       "8e1",
    "\xef\xbc\x98\xef\xbc\x90" /* fullwidth digits */, "+", "-", " "};
/* clang-format on */

static ptrdiff_t look_up(const char *host, const char *service, int family, int type, int flags) {
    pysock_addrinfo *list = NULL;
    ptrdiff_t n = pysock_getaddrinfo(host, service, family, type, 0, flags, &list);
    int code = errno;
    if (n > 0)
        fprintf(stderr, "*** \"%s\" is port %d\n", service, pysock_addr_port(&list[0].addr));
    pysock_freeaddrinfo(list);
    errno = code;
    return n;
}

T_TEST(getaddrinfo_refuses_services_that_would_wrap, 60) {
    static const char *const hosts[] = {"127.0.0.1", "localhost", NULL};
    static const int types[] = {SOCK_STREAM, SOCK_DGRAM, 0};
    for (size_t i = 0; i < COUNT(no_services); i++)
        for (size_t h = 0; h < COUNT(hosts); h++)
            for (size_t t = 0; t < COUNT(types); t++)
                for (int numeric = 0; numeric < 2; numeric++) {
                    int flags = (numeric ? AI_NUMERICSERV : 0) | (hosts[h] ? 0 : AI_PASSIVE);
                    T_STEP("'%s' of %s, type %d, flags 0x%x", no_services[i],
                           hosts[h] ? hosts[h] : "NULL", types[t], (unsigned)flags);
                    REFUSES(look_up(hosts[h], no_services[i], AF_INET, types[t], flags));
                }
}

T_TEST(the_message_names_the_service, 30) {
    for (size_t i = 0; i < COUNT(no_services); i++) {
        if (no_services[i][0] <= ' ')
            continue; /* what cannot be printed may be told otherwise */
        REFUSES(look_up("127.0.0.1", no_services[i], AF_INET, SOCK_STREAM, 0));
        if (!strchr(no_services[i], '\n') && !strstr(pysock_error_message(), no_services[i]))
            T_FAIL("'%s' does not name '%s'", pysock_error_message(), no_services[i]);
    }
}

T_TEST(addresses_refuse_ports_that_would_wrap, 30) {
    pysock_addr addr;
    char text[100];
    for (size_t i = 0; i < COUNT(no_services); i++) {
        snprintf(text, sizeof text, "127.0.0.1:%s", no_services[i]);
        T_STEP("%s", text);
        T_FAILS(pysock_addr_parse(&addr, text), PYSOCK_VALUE_ERROR, EINVAL);
        snprintf(text, sizeof text, "[::1]:%s", no_services[i]);
        T_FAILS(pysock_addr_parse(&addr, text), PYSOCK_VALUE_ERROR, EINVAL);
    }
}

T_TEST(getservbyname_takes_names_alone, 30) {
    for (size_t i = 0; i < COUNT(no_services); i++)
        T_FAILS(pysock_getservbyname(no_services[i], "tcp"), T_ANY, T_ANY);
    T_FAILS(pysock_getservbyname(" http", "tcp"), T_ANY, T_ANY);
}

T_TEST(good_services_are_what_they_say, 30) {
    static const struct {
        const char *service;
        int port;
    } good[] = {{"0", 0}, {"1", 1}, {"80", 80}, {"65535", 65535}, {"http", 80}};
    for (size_t i = 0; i < COUNT(good); i++) {
        pysock_addrinfo *list;
        T_CHECK(T_OK(pysock_getaddrinfo("127.0.0.1", good[i].service, AF_INET, SOCK_STREAM, 0, 0,
                                        &list)) > 0);
        T_EQ(pysock_addr_port(&list[0].addr), good[i].port);
        pysock_freeaddrinfo(list);
    }
}

/* ---- scope ids ---- */

static char asked_for[300];

static int note_sni(void *arg, const pysock_ssl_client_hello *hello) {
    (void)arg;
    snprintf(asked_for, sizeof asked_for, "%s", hello->server_name ? hello->server_name : "(none)");
    return 0;
}

static const char *with_index(const char *before) {
    static char text[64];
    snprintf(text, sizeof text, "%s%%%u", before, if_nametoindex("lo"));
    return text;
}

static void try_name(const char *name, int good, const char *sni) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    h_pair p;
    T_STEP("server_hostname %s", name);
    T_OK(pysock_ssl_set_sni_callback(server, note_sni, NULL));
    strcpy(asked_for, "(no hello)");
    h_try(&p, client, server, name);
    if (good && p.at_client.result != 0)
        T_FAIL("%s: %s", name, p.at_client.message);
    if (!good && p.at_client.result == 0)
        T_FAIL("%s was accepted", name);
    if (sni && strcmp(asked_for, sni) != 0)
        T_FAIL("%s asked for %s by SNI, not for %s", name, asked_for, sni);
    h_close(&p);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

T_TEST(a_scope_is_no_part_of_a_name, 120) {
    if (!t_has_ipv6())
        skip();
    try_name("::1", 1, "(none)");
    try_name("::1%lo", 1, "(none)");
    try_name(with_index("::1"), 1, "(none)");
    try_name("0:0::0:1%lo", 1, "(none)");
    try_name("fe80::1%lo", 0, "(none)"); /* an address that the certificate does not have */
    try_name("::1%", 0, NULL);
    try_name("127.0.0.1%lo", 0, NULL);
    try_name("localhost%lo", 0, NULL);
}

T_TEST(a_wrong_address_with_a_scope_is_a_mismatch, 60) {
    h_pair p;
    h_try(&p, client_ctx, server_ctx, "fe80::1%lo");
    T_EQ(p.at_client.result, -1);
    T_EQ(p.at_client.kind, PYSOCK_SSL_CERT_VERIFICATION_ERROR);
    h_close(&p);
}

T_TEST(match_hostname_strips_a_scope, 60) {
    static const struct {
        const char *name;
        int good;
    } names[] = {{"::1", 1},          {"::1%lo", 1},       {"0:0::0:1%lo", 1},
                 {"127.0.0.1", 1},    {"fe80::1%lo", 0},   {"::1%", 0},
                 {"127.0.0.1%lo", 0}, {"localhost%lo", 0}, {"localhost", 1}};
    pysock_buf *der;
    h_pair p;
    h_try(&p, client_ctx, server_ctx, "localhost");
    h_must_be_connected(&p, "localhost");
    der = T_OK(pysock_ssl_getpeercert_der(p.client));
    for (size_t i = 0; i < COUNT(names); i++) {
        int rc = pysock_ssl_match_hostname(pysock_buf_data(der), pysock_buf_size(der),
                                           names[i].name);
        if ((rc == 0) != names[i].good)
            T_FAIL("%s: %s", names[i].name, rc ? pysock_error_message() : "accepted");
    }
    pysock_buf_release(der);
    h_close(&p);
}

T_TEST(a_scope_may_be_given_to_connect, 60) {
    pysock *listener, *s, *peer;
    int port;
    if (!t_has_ipv6())
        skip();
    listener = T_OK(pysock_create_server("::1", 0, -1));
    port = t_port_of(listener);
    s = T_OK(pysock_create_connection(with_index("::1"), port, 30));
    peer = T_OK(pysock_accept(listener, NULL));
    T_OK(pysock_close(s));
    T_OK(pysock_close(peer));
    T_OK(pysock_close(listener));
}

T_TEST(scopes_that_are_none_are_refused, 30) {
    static const char *const bad[] = {
        "[fe80::1%nosuchif]:80", "[fe80::1%]:80",   "[fe80::1%4294967297]:80", "[fe80::1%-1]:80",
        "[fe80::1%1x]:80",       "[fe80::1%+1]:80", "[fe80::1% 1]:80"};
    pysock_addr addr;
    for (size_t i = 0; i < COUNT(bad); i++) {
        T_STEP("%s", bad[i]);
        T_FAILS(pysock_addr_parse(&addr, bad[i]), PYSOCK_VALUE_ERROR, EINVAL);
    }
    T_OK(pysock_addr_parse(&addr, "[fe80::1%lo]:80"));
    T_EQ(addr.u.in6.sin6_scope_id, if_nametoindex("lo"));
}

/* ---- empty labels ---- */

static const char *const no_names[] = {
    "localhost..", "localhost...", ".localhost", "local..host", "..", ".", "localhost. ."};

T_TEST(names_with_empty_labels_are_refused_everywhere, 120) {
    for (size_t i = 0; i < COUNT(no_names); i++) {
        const char *name = no_names[i];
        pysock *s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
        pysock *d = T_OK(pysock_socket(AF_INET, SOCK_DGRAM, 0));
        pysock_addr addr;
        char ip[64];
        int fd, port = t_deaf_port(&fd);
        T_STEP("'%s'", name);
        REFUSES(look_up(name, "80", 0, SOCK_STREAM, 0));
        REFUSES(look_up(name, "80", AF_INET, SOCK_STREAM, AI_PASSIVE));
        REFUSES(pysock_addr_resolve(&addr, AF_INET, name, 80));
        REFUSES(pysock_gethostbyname(name, ip, sizeof ip));
        REFUSES(pysock_gethostbyname_ex(name));
        REFUSES(pysock_gethostbyaddr(name));
        REFUSES(pysock_bind(s, name, 0));
        REFUSES(pysock_create_server(name, 0, -1));
        REFUSES(pysock_sendto(d, "x", 1, 0, name, port));
        T_STEP("connect '%s'", name);
        T_FAILS(pysock_connect(s, name, port), T_ANY, T_ANY);
        T_CHECK(errno != ECONNREFUSED); /* there nobody listens, and nobody must be asked */
        T_OK(pysock_settimeout(s, 30));
        T_FAILS(pysock_connect(s, name, port), T_ANY, T_ANY);
        T_CHECK(errno != ECONNREFUSED);
        T_FAILS(pysock_create_connection(name, port, 30), T_ANY, T_ANY);
        T_CHECK(errno != ECONNREFUSED);
        T_FAILS(pysock_create_connection(name, port, PYSOCK_NO_TIMEOUT), T_ANY, T_ANY);
        T_CHECK(errno != ECONNREFUSED);
        close(fd);
        T_OK(pysock_close(s));
        T_OK(pysock_close(d));
    }
}

T_TEST(names_with_empty_labels_are_no_server_hostnames, 120) {
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    pysock_buf *der;
    h_pair p;
    h_try(&p, client_ctx, server_ctx, "localhost");
    h_must_be_connected(&p, "localhost");
    der = T_OK(pysock_ssl_getpeercert_der(p.client));
    h_close(&p);
    for (size_t i = 0; i < COUNT(no_names); i++) {
        pysock_bio *in = T_OK(pysock_bio_new()), *out = T_OK(pysock_bio_new());
        pysock *pair[2];
        T_STEP("'%s'", no_names[i]);
        T_FAILS(pysock_ssl_match_hostname(pysock_buf_data(der), pysock_buf_size(der), no_names[i]),
                T_ANY, T_ANY);
        t_pair(pair);
        T_OK(pysock_setblocking(pair[0], 0));
        T_FAILS(pysock_ssl_wrap_socket(pair[0], client_ctx, no_names[i]), PYSOCK_VALUE_ERROR,
                EINVAL);
        T_EQ(pysock_is_ssl(pair[0]), 0);
        t_close_pair(pair);
        options.server_hostname = no_names[i];
        T_FAILS(pysock_ssl_wrap_bio(client_ctx, in, out, &options), PYSOCK_VALUE_ERROR, EINVAL);
        pysock_bio_release(in);
        pysock_bio_release(out);
    }
    pysock_buf_release(der);
}

/* One dot at the end is the root's (RFC 1034), and no part of SNI (RFC 6066, 3). */
T_TEST(one_dot_at_the_end_is_fine, 60) {
    try_name("localhost.", 1, "localhost");
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts)
