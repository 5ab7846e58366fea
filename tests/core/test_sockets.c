/* Sockets one call at a time: making, naming, connecting, options, ends and errors; then TLS in
   place: STARTTLS and back, what a handshake tells. */
#include "support/contexts.h"

/* ---- making ---- */

T_TEST(a_new_socket_is_blocking_and_closed_on_exec, 30) {
    pysock *s;
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_CHECK(pysock_gettimeout(s) == PYSOCK_NO_TIMEOUT);
    T_CHECK(fcntl(pysock_fileno(s), F_GETFD) & FD_CLOEXEC);
    T_EQ(pysock_is_ssl(s), 0);
    T_CHECK(pysock_from_fileno(pysock_fileno(s)) == s);
    T_OK(pysock_close(s));
}

T_TEST(accepted_and_paired_sockets_are_closed_on_exec_too, 30) {
    pysock *pair[2], *local[2];
    t_pair(pair);
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, local));
    for (int i = 0; i < 2; i++) {
        T_CHECK(fcntl(pysock_fileno(pair[i]), F_GETFD) & FD_CLOEXEC);
        T_CHECK(fcntl(pysock_fileno(local[i]), F_GETFD) & FD_CLOEXEC);
    }
    t_close_pair(pair);
    t_close_pair(local);
}

T_TEST(timeouts_are_what_they_were_set_to, 30) {
    pysock *s;
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_settimeout(s, 2.5));
    T_CHECK(pysock_gettimeout(s) == 2.5);
    T_OK(pysock_settimeout(s, 0));
    T_CHECK(pysock_gettimeout(s) == 0);
    T_OK(pysock_setblocking(s, 1));
    T_CHECK(pysock_gettimeout(s) == PYSOCK_NO_TIMEOUT);
    T_OK(pysock_setblocking(s, 0));
    T_CHECK(pysock_gettimeout(s) == 0);
    T_OK(pysock_settimeout(s, PYSOCK_NO_TIMEOUT));
    T_CHECK(pysock_gettimeout(s) == PYSOCK_NO_TIMEOUT);
    T_OK(pysock_close(s));
}

T_TEST(a_closed_socket_is_gone, 30) {
    pysock *s;
    int fd;
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    fd = T_OK(pysock_fileno(s));
    T_EQ(pysock_close(s), 0);
    T_EQ(pysock_close(s), 0);
    T_EQ(pysock_close(NULL), 0);
    T_FAILS(pysock_fileno(s), PYSOCK_OS_ERROR, EBADF);
    T_CHECK(pysock_from_fileno(fd) == NULL);
    T_CHECK(pysock_from_fileno(-1) == NULL);
    T_CHECK(pysock_from_fileno(1000000) == NULL);
    T_EQ(fcntl(fd, F_GETFD), -1);
}

/* A handle is never a number that comes back: what is made after it is not it. */
T_TEST(a_dead_handle_never_means_a_younger_socket, 30) {
    pysock *old, *young[64];
    old = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_close(old));
    for (int i = 0; i < 64; i++) {
        young[i] = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
        T_CHECK(young[i] != old);
    }
    T_FAILS(pysock_fileno(old), PYSOCK_OS_ERROR, EBADF);
    T_EQ(pysock_close(old), 0);
    for (int i = 0; i < 64; i++) {
        T_CHECK(pysock_fileno(young[i]) >= 0);
        T_OK(pysock_close(young[i]));
    }
}

T_TEST(socketpair_talks_both_ways, 30) {
    pysock *pair[2];
    char byte;
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    t_echo_once(pair[0], pair[1]);
    T_OK(pysock_setblocking(pair[1], 0));
    T_FAILS(pysock_recv(pair[1], &byte, 1, 0), PYSOCK_OS_ERROR, EAGAIN);
    T_OK(pysock_close(pair[0]));
    T_EQ(pysock_recv(pair[1], &byte, 1, 0), 0);
    T_OK(pysock_close(pair[1]));
}

T_TEST(datagrams_keep_their_borders, 30) {
    pysock *a, *b;
    char buf[16];
    a = T_OK(pysock_socket(AF_INET, SOCK_DGRAM, 0));
    b = T_OK(pysock_socket(AF_INET, SOCK_DGRAM, 0));
    T_OK(pysock_bind(b, "127.0.0.1", 0));
    T_OK(pysock_connect(a, "127.0.0.1", t_port_of(b)));
    T_EQ(pysock_send(a, "one", 3, 0), 3);
    T_EQ(pysock_send(a, "", 0, 0), 0);
    T_EQ(pysock_send(a, "three", 5, 0), 5);
    T_EQ(pysock_recv(b, buf, sizeof buf, 0), 3);
    T_EQ(pysock_recv(b, buf, sizeof buf, 0), 0);
    T_EQ(pysock_recv(b, buf, sizeof buf, 0), 5);
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
}

/* ---- addresses ---- */

T_TEST(addresses_are_read_and_written_alike, 30) {
    static const struct {
        const char *text;
        int family, port;
    } cases[] = {{"127.0.0.1:80", AF_INET, 80},
                 {"0.0.0.0:0", AF_INET, 0},
                 {"255.255.255.255:65535", AF_INET, 65535},
                 {"[::1]:443", AF_INET6, 443},
                 {"[::]:1", AF_INET6, 1},
                 {"[2001:db8::ff00:42:8329]:8080", AF_INET6, 8080},
                 {"unix:/tmp/some.socket", AF_UNIX, -1},
                 {"unix:@abstract", AF_UNIX, -1}};
    pysock_addr addr;
    char text[PYSOCK_ADDR_STRLEN];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        T_STEP("%s", cases[i].text);
        T_OK(pysock_addr_parse(&addr, cases[i].text));
        T_EQ(addr.u.sa.sa_family, cases[i].family);
        T_EQ(pysock_addr_port(&addr), cases[i].port);
        T_CHECK(addr.size > 0);
        T_EQ(pysock_addr_format(&addr, text, sizeof text), strlen(cases[i].text));
        T_CHECK(strcmp(text, cases[i].text) == 0);
    }
}

T_TEST(a_scope_in_an_address_is_kept, 30) {
    pysock_addr addr, again;
    char text[PYSOCK_ADDR_STRLEN];
    T_OK(pysock_addr_parse(&addr, "[fe80::1%lo]:80"));
    T_CHECK(addr.u.in6.sin6_scope_id != 0);
    pysock_addr_format(&addr, text, sizeof text);
    T_OK(pysock_addr_parse(&again, text));
    T_EQ(again.u.in6.sin6_scope_id, addr.u.in6.sin6_scope_id);
    T_EQ(pysock_addr_port(&again), 80);
}

T_TEST(a_formatted_address_is_cut_off_and_terminated, 30) {
    pysock_addr addr;
    char text[32];
    T_OK(pysock_addr_parse(&addr, "127.0.0.1:8080"));
    memset(text, 'x', sizeof text);
    T_EQ(pysock_addr_format(&addr, text, 5), 14);
    T_CHECK(memcmp(text, "127.\0x", 6) == 0);
    memset(text, 'x', sizeof text);
    T_EQ(pysock_addr_format(&addr, text, 1), 14);
    T_CHECK(memcmp(text, "\0x", 2) == 0);
    T_EQ(pysock_addr_format(&addr, text, 0), 14);
    T_EQ(pysock_addr_format(&addr, NULL, 0), 14);
}

T_TEST(the_longest_unix_path_is_written_whole, 30) {
    pysock_addr addr;
    char path[sizeof addr.u.un.sun_path + 8], text[PYSOCK_ADDR_STRLEN];
    size_t longest = sizeof addr.u.un.sun_path - 1;
    memset(path, 'p', sizeof path);
    memcpy(path, "unix:/", 6);
    path[5 + longest] = 0;
    T_OK(pysock_addr_parse(&addr, path));
    T_EQ(pysock_addr_format(&addr, text, sizeof text), strlen(path));
    T_CHECK(strcmp(text, path) == 0);
}

T_TEST(both_ends_agree_on_their_names, 30) {
    pysock *listener, *a, *b;
    pysock_addr a_name, a_peer, b_name, b_peer, accepted;
    char one[PYSOCK_ADDR_STRLEN], two[PYSOCK_ADDR_STRLEN];
    int port;
    listener = t_listen(&port);
    a = T_OK(pysock_create_connection("127.0.0.1", port, 30));
    b = T_OK(pysock_accept(listener, &accepted));
    T_OK(pysock_getsockname(a, &a_name));
    T_OK(pysock_getpeername(a, &a_peer));
    T_OK(pysock_getsockname(b, &b_name));
    T_OK(pysock_getpeername(b, &b_peer));
    T_EQ(pysock_addr_port(&a_peer), port);
    T_EQ(pysock_addr_port(&b_name), port);
    T_EQ(pysock_addr_port(&a_name), pysock_addr_port(&b_peer));
    pysock_addr_format(&a_name, one, sizeof one);
    pysock_addr_format(&accepted, two, sizeof two);
    T_CHECK(strcmp(one, two) == 0);
    T_FAILS(pysock_getpeername(listener, &accepted), PYSOCK_OS_ERROR, ENOTCONN);
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
    T_OK(pysock_close(listener));
}

T_TEST(connect_and_bind_take_addresses_by_value, 30) {
    pysock *listener, *a, *b;
    pysock_addr addr;
    listener = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_addr_parse(&addr, "127.0.0.1:0"));
    T_OK(pysock_bind_addr(listener, &addr));
    T_OK(pysock_listen(listener, -1));
    T_OK(pysock_getsockname(listener, &addr));
    a = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_connect_addr(a, &addr));
    b = T_OK(pysock_accept(listener, NULL));
    t_echo_once(a, b);
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
    T_OK(pysock_close(listener));
}

/* ---- IPv6 and Unix ---- */

T_TEST(ipv6_works_plain_and_with_tls, 30) {
    pysock *listener, *pair[2];
    pysock_addr addr;
    char text[PYSOCK_ADDR_STRLEN];
    if (!t_has_ipv6())
        skip();
    listener = T_OK(pysock_create_server("::1", 0, -1));
    pair[0] = T_OK(pysock_create_connection("::1", t_port_of(listener), 30));
    pair[1] = T_OK(pysock_accept(listener, &addr));
    T_EQ(addr.u.sa.sa_family, AF_INET6);
    pysock_addr_format(&addr, text, sizeof text);
    T_CHECK(strncmp(text, "[::1]:", 6) == 0);
    t_echo_once(pair[0], pair[1]);
    t_wrap_pair(pair, client_ctx, server_ctx);
    t_echo_once(pair[0], pair[1]);
    t_close_pair(pair);
    T_OK(pysock_close(listener));
}

/* host is a path or an abstract name; plain first, then TLS around the same connection. */
static void talk_on_unix(const char *host) {
    pysock *listener = T_OK(pysock_socket(AF_UNIX, SOCK_STREAM, 0));
    pysock *pair[2];
    pysock_addr addr;
    char text[PYSOCK_ADDR_STRLEN], want[PYSOCK_ADDR_STRLEN];
    T_OK(pysock_bind(listener, host, 0));
    T_OK(pysock_listen(listener, 5));
    pair[0] = T_OK(pysock_socket(AF_UNIX, SOCK_STREAM, 0));
    T_OK(pysock_connect(pair[0], host, 0));
    pair[1] = T_OK(pysock_accept(listener, &addr));
    T_OK(pysock_getpeername(pair[0], &addr));
    pysock_addr_format(&addr, text, sizeof text);
    snprintf(want, sizeof want, "unix:%s", host);
    T_CHECK(strcmp(text, want) == 0);
    T_OK(pysock_getsockname(pair[0], &addr));
    pysock_addr_format(&addr, text, sizeof text);
    T_CHECK(strcmp(text, "unix:") == 0);
    t_echo_once(pair[0], pair[1]);
    t_wrap_pair(pair, client_ctx, server_ctx);
    t_echo_once(pair[0], pair[1]);
    t_close_pair(pair);
    T_OK(pysock_close(listener));
}

T_TEST(unix_sockets_have_paths, 30) {
    char dir[] = "/tmp/pysock-test-XXXXXX", path[64];
    T_CHECK(mkdtemp(dir) != NULL);
    snprintf(path, sizeof path, "%s/socket", dir);
    talk_on_unix(path);
    T_EQ(unlink(path), 0);
    T_EQ(rmdir(dir), 0);
}

T_TEST(unix_sockets_have_abstract_names, 30) {
    char name[64];
    snprintf(name, sizeof name, "@pysock-test-%ld", (long)getpid());
    talk_on_unix(name);
}

T_TEST(a_nonblocking_unix_socket_connects, 30) {
    char name[64];
    pysock *listener, *a, *b;
    snprintf(name, sizeof name, "@pysock-test-nb-%ld", (long)getpid());
    listener = T_OK(pysock_socket(AF_UNIX, SOCK_STREAM, 0));
    T_OK(pysock_bind(listener, name, 0));
    T_OK(pysock_listen(listener, 5));
    a = T_OK(pysock_socket(AF_UNIX, SOCK_STREAM, 0));
    T_OK(pysock_setblocking(a, 0));
    if (pysock_connect(a, name, 0) != 0)
        T_EQ(errno, EINPROGRESS);
    T_EQ(t_writable(a, PYSOCK_NO_TIMEOUT), 1);
    b = T_OK(pysock_accept(listener, NULL));
    t_echo_once(a, b);
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
    T_OK(pysock_close(listener));
}

T_TEST(a_missing_unix_path_is_told, 30) {
    pysock *s;
    s = T_OK(pysock_socket(AF_UNIX, SOCK_STREAM, 0));
    T_FAILS(pysock_connect(s, "/nowhere/at/all", 0), PYSOCK_OS_ERROR, ENOENT);
    T_CHECK(strcmp(pysock_error_name(), "FileNotFoundError") == 0);
    T_OK(pysock_close(s));
}

/* ---- connecting ---- */

/* "localhost" may be ::1 first: then one address refuses and the next one serves. */
T_TEST(create_connection_tries_every_address, 60) {
    static const char *const hosts[] = {"127.0.0.1", "::1"};
    for (int i = 0; i < (t_has_ipv6() ? 2 : 1); i++) {
        struct addrinfo hints, *list = NULL, *each;
        int wanted = i ? AF_INET6 : AF_INET, known = 0;
        pysock *listener, *a, *b;
        T_STEP("localhost, served on %s only", hosts[i]);
        memset(&hints, 0, sizeof hints);
        hints.ai_socktype = SOCK_STREAM;
        T_EQ(getaddrinfo("localhost", NULL, &hints, &list), 0);
        for (each = list; each; each = each->ai_next)
            known |= each->ai_family == wanted;
        freeaddrinfo(list);
        if (!known)
            continue;
        listener = T_OK(pysock_create_server(hosts[i], 0, 5));
        a = T_OK(pysock_create_connection("localhost", t_port_of(listener), 30));
        T_CHECK(pysock_gettimeout(a) == 30);
        b = T_OK(pysock_accept(listener, NULL));
        t_echo_once(a, b);
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
        T_OK(pysock_close(listener));
    }
}

T_TEST(create_connection_tells_the_last_error, 60) {
    int fd, port;
    port = t_deaf_port(&fd);
    T_FAILS(pysock_create_connection("localhost", port, 30), PYSOCK_OS_ERROR, ECONNREFUSED);
    T_FAILS(pysock_create_connection("127.0.0.1", port, PYSOCK_NO_TIMEOUT), PYSOCK_OS_ERROR,
            ECONNREFUSED);
    T_FAILS(pysock_create_connection("name.invalid", port, 30), PYSOCK_GAI_ERROR, T_ANY);
    close(fd);
}

T_TEST(create_connection_gives_up_at_its_deadline, 60) {
    int fds[2], port;
    double start;
    port = t_silent_port(fds);
    start = t_now();
    T_FAILS(pysock_create_connection("127.0.0.1", port, 0.3), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    T_CHECK(t_now() - start >= 0.29);
    close(fds[0]);
    close(fds[1]);
}

T_TEST(a_timed_connect_gives_up_at_its_deadline, 60) {
    int fds[2], port;
    double start;
    pysock *s;
    port = t_silent_port(fds);
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_settimeout(s, 0.2));
    start = t_now();
    T_FAILS(pysock_connect(s, "127.0.0.1", port), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    T_CHECK(t_now() - start >= 0.19);
    T_OK(pysock_close(s));
    close(fds[0]);
    close(fds[1]);
}

T_TEST(a_connecting_socket_is_neither_readable_nor_writable, 60) {
    int fds[2], port;
    pysock *s;
    char byte;
    port = t_silent_port(fds);
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_setblocking(s, 0));
    T_FAILS(pysock_connect(s, "127.0.0.1", port), PYSOCK_OS_ERROR, EINPROGRESS);
    T_EQ(t_writable(s, 0), 0);
    T_EQ(t_readable(s, 0.05), 0);
    T_FAILS(pysock_recv(s, &byte, 1, 0), T_ANY, T_ANY);
    T_FAILS(pysock_send(s, "x", 1, 0), T_ANY, T_ANY);
    T_OK(pysock_close(s));
    close(fds[0]);
    close(fds[1]);
}

/* The idiom of C and of asyncio: writable, then SO_ERROR. */
T_TEST(a_failed_nonblocking_connect_is_told_by_getsockopt, 60) {
    int fd, error = 0;
    pysock *s;
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_setblocking(s, 0));
    T_FAILS(pysock_connect(s, "127.0.0.1", t_deaf_port(&fd)), PYSOCK_OS_ERROR, EINPROGRESS);
    T_EQ(t_writable(s, PYSOCK_NO_TIMEOUT), 1);
    T_EQ(t_readable(s, PYSOCK_NO_TIMEOUT), 1);
    T_OK(pysock_getsockopt_int(s, SOL_SOCKET, SO_ERROR, &error));
    T_EQ(error, ECONNREFUSED);
    T_OK(pysock_close(s));
    close(fd);
}

T_TEST(a_nonblocking_connect_by_name_waits_for_nobody, 60) {
    int port, error = -1;
    pysock *listener, *a, *b;
    listener = t_listen(&port);
    a = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_setblocking(a, 0));
    T_FAILS(pysock_connect(a, "localhost", port), PYSOCK_OS_ERROR, EINPROGRESS);
    T_EQ(t_writable(a, PYSOCK_NO_TIMEOUT), 1);
    T_OK(pysock_getsockopt_int(a, SOL_SOCKET, SO_ERROR, &error));
    T_EQ(error, 0);
    b = T_OK(pysock_accept(listener, NULL));
    t_echo_once(a, b);
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
    T_OK(pysock_close(listener));
}

/* Closing while a resolver thread still works on the name must leave no trace. */
T_TEST(a_socket_may_close_while_its_name_is_looked_up, 60) {
    for (int i = 0; i < 10; i++) {
        pysock *s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
        T_OK(pysock_setblocking(s, 0));
        T_FAILS(pysock_connect(s, "name.invalid", 80), PYSOCK_OS_ERROR, EINPROGRESS);
        T_OK(pysock_close(s));
    }
}

T_TEST(connect_ex_returns_the_errno, 60) {
    int fd, port, rc;
    pysock *listener, *s;
    port = t_deaf_port(&fd);
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_EQ(pysock_connect_ex(s, "127.0.0.1", port), ECONNREFUSED);
    T_EQ(pysock_error(), PYSOCK_OS_ERROR);
    T_OK(pysock_close(s));
    close(fd);

    listener = t_listen(&port);
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_EQ(pysock_connect_ex(s, "127.0.0.1", port), 0);
    T_EQ(pysock_connect_ex(s, "127.0.0.1", port), EISCONN);
    T_OK(pysock_close(s));

    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_setblocking(s, 0));
    T_EQ(pysock_connect_ex(s, "127.0.0.1", port), EINPROGRESS);
    rc = pysock_connect_ex(s, "127.0.0.1", port);
    T_CHECK(rc == EALREADY || rc == EISCONN || rc == 0);
    T_EQ(t_writable(s, PYSOCK_NO_TIMEOUT), 1);
    rc = pysock_connect_ex(s, "127.0.0.1", port);
    T_CHECK(rc == EISCONN || rc == 0);
    T_OK(pysock_close(s));

    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_CHECK(pysock_connect_ex(s, "name.invalid", port) > 0);
    T_EQ(pysock_error(), PYSOCK_GAI_ERROR);
    T_OK(pysock_close(s));
    T_OK(pysock_close(listener));
}

T_TEST(create_server_listens_where_it_is_told, 60) {
    static const char *const hosts[] = {NULL, "", "127.0.0.1", "localhost"};
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        int on = 0;
        pysock *listener, *a, *b;
        T_STEP("host %s", hosts[i] ? hosts[i] : "NULL");
        listener = T_OK(pysock_create_server(hosts[i], 0, -1));
        T_OK(pysock_getsockopt_int(listener, SOL_SOCKET, SO_REUSEADDR, &on));
        T_CHECK(on);
        a = T_OK(pysock_create_connection("localhost", t_port_of(listener), 30));
        b = T_OK(pysock_accept(listener, NULL));
        t_echo_once(a, b);
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
        T_OK(pysock_close(listener));
    }
}

T_TEST(a_port_in_use_is_told, 30) {
    int port;
    pysock *first, *second;
    first = t_listen(&port);
    T_FAILS(pysock_create_server("127.0.0.1", port, 5), PYSOCK_OS_ERROR, EADDRINUSE);
    second = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_FAILS(pysock_bind(second, "127.0.0.1", port), PYSOCK_OS_ERROR, EADDRINUSE);
    T_FAILS(pysock_bind(second, "name.invalid", 0), PYSOCK_GAI_ERROR, T_ANY);
    T_OK(pysock_close(second));
    T_OK(pysock_close(first));
}

/* ---- options and ends ---- */

T_TEST(options_are_set_and_read_back, 30) {
    pysock *pair[2];
    struct linger linger = {1, 7}, have = {0, 0};
    socklen_t len = sizeof have;
    int value = 0;
    t_pair(pair);
    T_OK(pysock_setsockopt_int(pair[0], SOL_SOCKET, SO_KEEPALIVE, 1));
    T_OK(pysock_getsockopt_int(pair[0], SOL_SOCKET, SO_KEEPALIVE, &value));
    T_CHECK(value);
    T_OK(pysock_setsockopt_int(pair[0], IPPROTO_TCP, TCP_NODELAY, 1));
    T_OK(pysock_getsockopt_int(pair[0], IPPROTO_TCP, TCP_NODELAY, &value));
    T_CHECK(value);
    T_OK(pysock_getsockopt_int(pair[0], SOL_SOCKET, SO_TYPE, &value));
    T_EQ(value, SOCK_STREAM);
    T_OK(pysock_setsockopt(pair[0], SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
    T_OK(pysock_getsockopt(pair[0], SOL_SOCKET, SO_LINGER, &have, &len));
    T_EQ(len, sizeof have);
    T_EQ(have.l_linger, 7);
    T_FAILS(pysock_setsockopt_int(pair[0], SOL_SOCKET, 9999, 1), PYSOCK_OS_ERROR, ENOPROTOOPT);
    T_FAILS(pysock_getsockopt_int(pair[0], SOL_SOCKET, 9999, &value), PYSOCK_OS_ERROR, ENOPROTOOPT);
    t_close_pair(pair);
}

T_TEST(shutdown_ends_one_direction_at_a_time, 30) {
    pysock *pair[2];
    char byte;
    t_pair(pair);
    T_OK(pysock_shutdown(pair[0], SHUT_WR));
    T_EQ(pysock_recv(pair[1], &byte, 1, 0), 0);
    T_FAILS(pysock_send(pair[0], "x", 1, 0), PYSOCK_OS_ERROR, EPIPE);
    T_CHECK(strcmp(pysock_error_name(), "BrokenPipeError") == 0);
    t_say(pair[1], "still");
    t_expect(pair[0], "still");
    T_OK(pysock_shutdown(pair[0], SHUT_RD));
    T_EQ(t_readable(pair[0], PYSOCK_NO_TIMEOUT), 1);
    T_EQ(pysock_recv(pair[0], &byte, 1, 0), 0);
    t_close_pair(pair);

    t_pair(pair);
    T_OK(pysock_shutdown(pair[0], SHUT_RDWR));
    T_EQ(pysock_recv(pair[0], &byte, 1, 0), 0);
    T_EQ(pysock_recv(pair[1], &byte, 1, 0), 0);
    T_FAILS(pysock_shutdown(pair[0], 17), T_ANY, EINVAL);
    t_close_pair(pair);
}

T_TEST(a_tls_shutdown_is_a_clean_end_for_the_peer, 60) {
    static const int hows[] = {SHUT_WR, SHUT_RDWR};
    for (int i = 0; i < 2; i++) {
        pysock *pair[2];
        char byte;
        t_tls_pair(pair, client_ctx, server_ctx);
        t_say(pair[0], "last words");
        T_OK(pysock_shutdown(pair[0], hows[i]));
        t_expect(pair[1], "last words");
        T_EQ(pysock_recv(pair[1], &byte, 1, 0), 0);
        T_EQ(pysock_ssl_eof_is_clean(pair[1]), 1);
        T_FAILS(pysock_send(pair[0], "x", 1, 0), T_ANY, T_ANY);
        t_close_pair(pair);
    }
}

/* What the peer sent before it heard our end is still there to read. */
T_TEST(after_a_tls_shutdown_the_peers_bytes_can_be_read, 60) {
    pysock *pair[2];
    t_tls_pair(pair, client_ctx, server_ctx);
    t_say(pair[1], "crossed on the way");
    T_OK(pysock_shutdown(pair[0], SHUT_WR));
    t_expect(pair[0], "crossed on the way");
    t_close_pair(pair);
}

T_TEST(no_signal_comes_from_a_dead_peer, 60) {
    struct sigaction action;
    T_EQ(sigaction(SIGPIPE, NULL, &action), 0);
    T_CHECK(action.sa_handler == SIG_DFL);
    for (int kind = 0; kind < 3; kind++) {
        pysock *pair[2];
        pysock_buf *buf = T_OK(pysock_buf_copy("queued", 6));
        int failed = 0;
        T_STEP("kind %d", kind);
        if (kind == 0)
            t_pair(pair);
        else if (kind == 1)
            t_tls_pair(pair, client_ctx, server_ctx);
        else
            T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
        T_OK(pysock_close(pair[1]));
        while (!failed)
            failed = pysock_send(pair[0], "x", 1, 0) < 0;
        T_FAILS(pysock_sendall(pair[0], "x", 1, 0), T_ANY, T_ANY);
        (void)pysock_send_buf(pair[0], buf);
        pysock_buf_release(buf);
        T_OK(pysock_close(pair[0]));
    }
    T_EQ(sigaction(SIGPIPE, NULL, &action), 0);
    T_CHECK(action.sa_handler == SIG_DFL);
}

T_TEST(peek_leaves_the_bytes, 30) {
    pysock *pair[2];
    char buf[8];
    t_pair(pair);
    t_say(pair[0], "peek");
    T_EQ(t_readable(pair[1], PYSOCK_NO_TIMEOUT), 1);
    T_EQ(pysock_recv(pair[1], buf, sizeof buf, MSG_PEEK), 4);
    T_EQ(pysock_recv_into(pair[1], buf, sizeof buf, 0), 4);
    T_CHECK(memcmp(buf, "peek", 4) == 0);
    t_close_pair(pair);
}

T_TEST(tls_sockets_refuse_the_kernels_flags, 30) {
    pysock *pair[2];
    char buf[8];
    t_tls_pair(pair, client_ctx, server_ctx);
    t_say(pair[0], "x");
    T_FAILS(pysock_recv(pair[1], buf, sizeof buf, MSG_OOB), T_ANY, T_ANY);
    T_FAILS(pysock_recv(pair[1], buf, sizeof buf, MSG_WAITALL), T_ANY, T_ANY);
    T_FAILS(pysock_send(pair[1], "y", 1, MSG_OOB), T_ANY, T_ANY);
    t_expect(pair[1], "x");
    t_close_pair(pair);
}

/* A mode switch with data and without, on one connection. */
T_TEST(a_plain_socket_changes_its_mode_at_any_time, 30) {
    pysock *pair[2];
    char byte;
    t_pair(pair);
    T_OK(pysock_setblocking(pair[1], 0));
    T_FAILS(pysock_recv(pair[1], &byte, 1, 0), PYSOCK_OS_ERROR, EAGAIN);
    T_OK(pysock_settimeout(pair[1], 0.02));
    T_FAILS(pysock_recv(pair[1], &byte, 1, 0), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    T_OK(pysock_setblocking(pair[1], 1));
    t_say(pair[0], "now");
    t_expect(pair[1], "now");
    t_close_pair(pair);
}

/* ---- errors ---- */

static void *fail_in_a_thread(void *arg) {
    (void)arg;
    T_EQ(pysock_error(), PYSOCK_NO_ERROR);
    T_FAILS(pysock_addr_parse(NULL, "x"), PYSOCK_VALUE_ERROR, EINVAL);
    return NULL;
}

T_TEST(errors_belong_to_the_thread_and_stay, 30) {
    t_thread t;
    pysock *s;
    char message[256];
    T_FAILS(pysock_fileno(NULL), PYSOCK_VALUE_ERROR, EINVAL);
    snprintf(message, sizeof message, "%s", pysock_error_message());
    t_spawn(&t, fail_in_a_thread, NULL);
    t_join(&t);
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_close(s));
    T_EQ(pysock_error(), PYSOCK_VALUE_ERROR);
    T_CHECK(strcmp(pysock_error_name(), "ValueError") == 0);
    T_CHECK(strcmp(pysock_error_message(), message) == 0);
    T_EQ(pysock_error_verify_code(), 0);
    T_CHECK(strcmp(pysock_error_verify_message(), "") == 0);
    pysock_error_clear();
    T_EQ(pysock_error(), PYSOCK_NO_ERROR);
    T_EQ(pysock_error_code(), 0);
    T_CHECK(pysock_error_name() && pysock_error_reason() && pysock_error_message());
}

/* ---- TLS in place ---- */

static void *starttls_server(void *arg) {
    pysock *s = arg;
    t_expect(s, "STARTTLS\n");
    t_say(s, "220 go\n");
    T_OK(pysock_ssl_wrap_socket(s, server_ctx, NULL));
    t_expect(s, "secret");
    t_say(s, "secret too");
    T_STEP("the server unwraps");
    T_EQ(pysock_ssl_unwrap(s), 0);
    T_EQ(pysock_is_ssl(s), 0);
    t_say(s, "plain again\n");
    t_expect(s, "bye\n");
    return NULL;
}

T_TEST(starttls_and_back_in_place, 60) {
    pysock *pair[2];
    t_thread t;
    t_pair(pair);
    t_spawn(&t, starttls_server, pair[1]);
    t_say(pair[0], "STARTTLS\n");
    t_expect(pair[0], "220 go\n");
    T_OK(pysock_ssl_wrap_socket(pair[0], client_ctx, "localhost"));
    T_EQ(pysock_is_ssl(pair[0]), 1);
    t_say(pair[0], "secret");
    t_expect(pair[0], "secret too");
    T_STEP("the client unwraps");
    T_EQ(pysock_ssl_unwrap(pair[0]), 0);
    T_EQ(pysock_is_ssl(pair[0]), 0);
    T_CHECK(pysock_ssl_version(pair[0]) == NULL);
    t_expect(pair[0], "plain again\n");
    t_say(pair[0], "bye\n");
    t_join(&t);
    t_close_pair(pair);
}

/* Both ends non-blocking, one thread, twice on the same connection; what is sent in plain text
   right behind the close_notify is not lost in the engine. */
T_TEST(starttls_and_back_without_blocking, 60) {
    pysock *pair[2];
    t_pair(pair);
    T_OK(pysock_setblocking(pair[0], 0));
    T_OK(pysock_setblocking(pair[1], 0));
    for (int round = 0; round < 2; round++) {
        T_STEP("wrap, round %d", round);
        T_OK(pysock_ssl_wrap_socket(pair[1], server_ctx, NULL));
        T_OK(pysock_ssl_wrap_socket(pair[0], client_ctx, "localhost"));
        for (int i = 0; i < 2; i++)
            while (t_in_progress(pysock_ssl_do_handshake(pair[i])))
                T_EQ(t_writable(pair[i], PYSOCK_NO_TIMEOUT), 1);
        t_echo_once(pair[0], pair[1]);
        T_STEP("unwrap, round %d", round);
        T_FAILS(pysock_ssl_unwrap(pair[0]), PYSOCK_OS_ERROR, EINPROGRESS);
        while (t_in_progress(pysock_ssl_unwrap(pair[1])))
            T_EQ(t_readable(pair[1], PYSOCK_NO_TIMEOUT), 1);
        t_say(pair[1], "right behind it");
        while (t_in_progress(pysock_ssl_unwrap(pair[0])))
            T_EQ(t_readable(pair[0], PYSOCK_NO_TIMEOUT), 1);
        T_EQ(pysock_is_ssl(pair[0]), 0);
        T_EQ(pysock_is_ssl(pair[1]), 0);
        t_expect(pair[0], "right behind it");
        t_echo_once(pair[0], pair[1]);
    }
    t_close_pair(pair);
}

T_TEST(a_handshake_tells_what_was_agreed, 60) {
    static const char *const offered[] = {"h2", "http/1.1"}, *const accepted[] = {"http/1.1"};
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    pysock_ssl_cipher_info info;
    pysock_buf *cert;
    pysock *pair[2];
    T_OK(pysock_ssl_set_alpn_protocols(client, offered, 2));
    T_OK(pysock_ssl_set_alpn_protocols(server, accepted, 1));
    t_tls_pair(pair, client, server);
    for (int i = 0; i < 2; i++) {
        T_CHECK(strcmp(pysock_ssl_version(pair[i]), "TLSv1.2") == 0);
        T_OK(pysock_ssl_cipher(pair[i], &info));
        T_CHECK(strncmp(info.name, "ECDHE-ECDSA-", 12) == 0);
        T_CHECK(strcmp(info.protocol, "TLSv1.2") == 0);
        T_CHECK(info.secret_bits >= 128);
        T_CHECK(strcmp(t_alpn(pair[i]), "http/1.1") == 0);
        T_CHECK(strcmp(t_server_hostname(pair[i]), "localhost") == 0);
        T_EQ(pysock_ssl_session_reused(pair[i]), 0);
    }
    cert = T_OK(pysock_ssl_getpeercert_der(pair[0]));
    T_CHECK(pysock_buf_size(cert) > 100);
    T_EQ(*(unsigned char *)pysock_buf_data(cert), 0x30);
    pysock_buf_release(cert);
    cert = T_OK(pysock_ssl_getpeercert_der(pair[1]));
    T_EQ(pysock_buf_size(cert), 0);
    pysock_buf_release(cert);
    t_close_pair(pair);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

/* All connections go to one port: a session is for one server. */
T_TEST(sessions_are_resumed_by_default_and_not_when_switched_off, 60) {
    pysock_ssl_context *client, *server;
    pysock *listener;
    int port;
    client = t_client_ctx();
    server = t_server_ctx();
    listener = t_listen(&port);
    for (int i = 0; i < 6; i++) {
        pysock *pair[2];
        T_STEP("connection %d", i);
        if (i == 3)
            T_OK(pysock_ssl_set_session_cache(client, 0));
        pair[0] = T_OK(pysock_create_connection("127.0.0.1", port, PYSOCK_NO_TIMEOUT));
        pair[1] = T_OK(pysock_accept(listener, NULL));
        t_wrap_pair(pair, client, server);
        T_EQ(pysock_ssl_session_reused(pair[0]), i == 1 || i == 2);
        T_EQ(pysock_ssl_session_reused(pair[1]), i == 1 || i == 2);
        t_echo_once(pair[0], pair[1]);
        t_close_pair(pair);
    }
    T_OK(pysock_close(listener));
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

T_TEST(a_context_may_be_freed_while_its_sockets_live, 60) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    pysock *pair[2];
    t_tls_pair(pair, client, server);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
    t_echo_once(pair[0], pair[1]);
    t_close_pair(pair);
}

static void *expect_failed_handshake(void *arg) {
    pysock *s = arg;
    char byte;
    T_FAILS(pysock_ssl_do_handshake(s), T_ANY, T_ANY);
    T_FAILS(pysock_recv(s, &byte, 1, 0), T_ANY, T_ANY);
    return NULL;
}

/* Wraps a pair whose client must refuse the server; the error is left in the calling thread. */
static void wrap_in_vain(pysock *pair[2], pysock_ssl_context *client, pysock_ssl_context *server,
                         const char *host) {
    t_thread t;
    t_pair(pair);
    t_wrap_later(pair[1], server, NULL);
    t_spawn(&t, expect_failed_handshake, pair[1]);
    T_FAILS(pysock_ssl_wrap_socket(pair[0], client, host), PYSOCK_SSL_CERT_VERIFICATION_ERROR,
            EPROTO);
    t_join(&t);
    T_CHECK(strcmp(pysock_error_name(), "SSLCertVerificationError") == 0);
    T_CHECK(strcmp(pysock_error_reason(), "CERTIFICATE_VERIFY_FAILED") == 0);
}

T_TEST(a_wrong_certificate_is_refused_and_says_which_check_failed, 120) {
    static const struct {
        const char *cert, *host;
        int code;
    } cases[] = {{"expired", "localhost", 10},     {"not-yet-valid", "localhost", 9},
                 {"self-signed", "localhost", 18}, {"untrusted", "localhost", 20},
                 {"wrong-host", "localhost", 62},  {"cn-ignored", "localhost", 62},
                 {"server-ec", "127.0.0.2", 64},   {"client", "localhost", 26}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pysock_ssl_context *server = t_server_ctx_of(cases[i].cert);
        pysock *pair[2];
        T_STEP("%s", cases[i].cert);
        wrap_in_vain(pair, client_ctx, server, cases[i].host);
        T_EQ(pysock_error_verify_code(), cases[i].code);
        T_CHECK(pysock_error_verify_message()[0]);
        T_CHECK(strstr(pysock_error_message(), pysock_error_verify_message()) != NULL);
        T_STEP("the socket keeps that error");
        T_FAILS(pysock_ssl_do_handshake(pair[0]), PYSOCK_SSL_CERT_VERIFICATION_ERROR, EPROTO);
        t_close_pair(pair);
        pysock_ssl_context_release(server);
    }
}

T_TEST(cert_none_asks_nothing, 60) {
    pysock_ssl_context *client = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    pysock_ssl_context *server = t_server_ctx_of("self-signed");
    pysock *pair[2];
    T_EQ(pysock_ssl_get_verify_mode(client), PYSOCK_CERT_REQUIRED);
    T_EQ(pysock_ssl_get_check_hostname(client), 1);
    T_FAILS(pysock_ssl_set_verify_mode(client, PYSOCK_CERT_NONE), PYSOCK_VALUE_ERROR, EINVAL);
    T_OK(pysock_ssl_set_check_hostname(client, 0));
    T_OK(pysock_ssl_set_verify_mode(client, PYSOCK_CERT_NONE));
    t_tls_pair(pair, client, server);
    t_echo_once(pair[0], pair[1]);
    t_close_pair(pair);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

/* Python's suppress_ragged_eofs=False: an end without close_notify is an error. */
T_TEST(a_ragged_end_can_be_an_error, 60) {
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    pysock *pair[2];
    t_thread t;
    char byte;
    options.raise_ragged_eofs = 1;
    options.no_handshake_on_connect = 1;
    t_pair(pair);
    T_OK(pysock_ssl_wrap_socket_ex(pair[1], server_ctx, &options));
    t_spawn(&t, t_handshake_thread, pair[1]);
    T_OK(pysock_ssl_wrap_socket(pair[0], client_ctx, "localhost"));
    t_join(&t);
    t_echo_once(pair[0], pair[1]);
    T_EQ(shutdown(pysock_fileno(pair[0]), SHUT_WR), 0);
    T_FAILS(pysock_recv(pair[1], &byte, 1, 0), PYSOCK_SSL_EOF_ERROR, EPROTO);
    T_CHECK(strcmp(pysock_error_name(), "SSLEOFError") == 0);
    T_CHECK(strcmp(pysock_error_reason(), "UNEXPECTED_EOF") == 0);
    t_close_pair(pair);
}

T_TEST(an_end_in_the_middle_of_a_handshake_is_an_error, 60) {
    pysock *pair[2];
    t_pair(pair);
    T_OK(pysock_shutdown(pair[1], SHUT_WR));
    T_FAILS(pysock_ssl_wrap_socket(pair[0], client_ctx, "localhost"), PYSOCK_SSL_EOF_ERROR, EPROTO);
    T_CHECK(strcmp(pysock_error_reason(), "UNEXPECTED_EOF") == 0);
    t_close_pair(pair);
}

T_TEST(a_timed_handshake_gives_up_at_its_deadline, 60) {
    pysock *pair[2];
    double start;
    t_pair(pair);
    T_OK(pysock_settimeout(pair[0], 0.2));
    start = t_now();
    T_FAILS(pysock_ssl_wrap_socket(pair[0], client_ctx, "localhost"), PYSOCK_TIMEOUT_ERROR,
            ETIMEDOUT);
    T_CHECK(t_now() - start >= 0.19);
    t_close_pair(pair);
}

T_TEST(the_host_name_stays_from_wrap_to_close, 60) {
    int port;
    pysock *listener = t_listen(&port), *s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0)), *child;
    char room[10];
    pysock_ssl_wrap_options later = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    later.server_hostname = "localhost";
    later.no_handshake_on_connect = 1;
    T_OK(pysock_ssl_wrap_socket_ex(s, client_ctx, &later));
    T_EQ(strcmp(t_server_hostname(s), "localhost"), 0);
    T_EQ(pysock_ssl_server_hostname(s, room, 10), 9);
    T_FAILS(pysock_ssl_server_hostname(s, room, 9), PYSOCK_OS_ERROR, ENAMETOOLONG);
    T_FAILS(pysock_ssl_server_hostname(s, NULL, 9), PYSOCK_VALUE_ERROR, EINVAL);
    T_OK(pysock_connect(s, "127.0.0.1", port));
    child = T_OK(pysock_accept(listener, NULL));
    T_EQ(strcmp(t_server_hostname(s), "localhost"), 0);
    T_OK(pysock_close(s));
    T_OK(pysock_close(child));
    T_OK(pysock_close(listener));
}

T_MAIN(.setup = make_contexts_and_a_short_wait, .teardown = free_contexts)
