/* The audit hook, which is asked before things happen: what it is told, and what comes of a call
   that it denies. */
#include "binding/hooks.h"

/* ---- the audit hook ---- */

static void watch_and_look(void (*fn)(const pysock_audit_event *e)) {
    watch(NULL);
    pthread_mutex_lock(&told_lock);
    look = fn;
    pthread_mutex_unlock(&told_lock);
}

/* The first event of that name since watch(); one must have been told. */
static told find_told(const char *name) {
    told t;
    int i = 0;
    pthread_mutex_lock(&told_lock);
    while (i < tale_length && strcmp(tale[i].name, name) != 0)
        i++;
    T_CHECK(tale_length <= (int)(sizeof tale / sizeof tale[0]));
    if (i == tale_length)
        T_FAIL("%s was not told", name);
    t = tale[i];
    pthread_mutex_unlock(&told_lock);
    return t;
}

/* Each of the events was told in this order, whatever else was told in between. */
static void expect_order(const char *const *names) {
    int i = 0;
    pthread_mutex_lock(&told_lock);
    for (; *names; names++, i++) {
        while (i < tale_length && strcmp(tale[i].name, *names) != 0)
            i++;
        if (i >= tale_length)
            T_FAIL("%s was not told, or not in its turn", *names);
    }
    pthread_mutex_unlock(&told_lock);
}

static void expect_kind(const told *t, int family, int type, int proto) {
    T_EQ(t->family, family);
    T_EQ(t->type, type);
    T_EQ(t->proto, proto);
}

T_TEST(the_audit_hook_is_told_what_sockets_do, 30) {
    pysock *s, *a, *b;
    pysock_addr addr;
    char text[PYSOCK_ADDR_STRLEN];
    told t;
    watch(NULL);
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, IPPROTO_TCP));
    T_EQ(times_told("socket.__new__"), 1);
    t = find_told("socket.__new__");
    expect_kind(&t, AF_INET, SOCK_STREAM, IPPROTO_TCP);
    expect_text(t.addr, "-");
    expect_text(t.host, "-");
    watch(NULL);
    T_OK(pysock_bind(s, "127.0.0.1", 0));
    T_EQ(times_told("socket.bind"), 1);
    t = find_told("socket.bind");
    T_CHECK(t.socket == s);
    expect_text(t.addr, "127.0.0.1:0");
    T_OK(pysock_listen(s, 1));
    T_EQ(times_told("socket.listen"), 1);
    T_CHECK(find_told("socket.listen").socket == s);
    T_OK(pysock_getsockname(s, &addr));
    pysock_addr_format(&addr, text, sizeof text);
    T_STEP("connect");
    watch(NULL);
    a = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_connect(a, "127.0.0.1", pysock_addr_port(&addr)));
    T_EQ(times_told("socket.connect"), 1);
    t = find_told("socket.connect");
    T_CHECK(t.socket == a);
    expect_text(t.addr, text);
    T_STEP("accept makes a socket too");
    watch(NULL);
    b = T_OK(pysock_accept(s, NULL));
    T_EQ(times_told("socket.__new__"), 1);
    t = find_told("socket.__new__");
    T_EQ(t.family, AF_INET);
    T_EQ(t.type, SOCK_STREAM);
    T_STEP("what is connected needs nobody's leave");
    watch(NULL);
    t_echo_once(a, b);
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
    T_EQ(tale_length, 0);
    T_STEP("by address");
    a = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_connect_addr(a, &addr));
    expect_text(find_told("socket.connect").addr, text);
    T_OK(pysock_close(a));
    watch(NULL);
    a = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_EQ(pysock_connect_ex(a, "127.0.0.1", pysock_addr_port(&addr)), 0);
    expect_text(find_told("socket.connect").addr, text);
    T_OK(pysock_close(a));
    T_OK(pysock_close(s));
    unwatch();
}

T_TEST(the_audit_hook_is_told_of_every_way_to_make_a_socket, 30) {
    pysock *pair[2], *again;
    int fd;
    told t;
    watch(NULL);
    T_OK(pysock_socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
    T_CHECK(times_told("socket.__new__") >= 1);
    t = find_told("socket.__new__");
    expect_kind(&t, AF_UNIX, SOCK_DGRAM, 0);
    watch(NULL);
    again = T_OK(pysock_dup(pair[0]));
    T_EQ(times_told("socket.__new__"), 1);
    T_OK(pysock_close(again));
    watch(NULL);
    again = T_OK(pysock_fromfd(pysock_fileno(pair[0]), AF_UNIX, SOCK_DGRAM, 0));
    T_EQ(times_told("socket.__new__"), 1);
    t = find_told("socket.__new__");
    expect_kind(&t, AF_UNIX, SOCK_DGRAM, 0);
    watch(NULL);
    fd = T_OK(pysock_detach(again));
    again = T_OK(pysock_adopt(fd, AF_UNIX, SOCK_DGRAM, 0));
    T_EQ(times_told("socket.__new__"), 1);
    t = find_told("socket.__new__");
    expect_kind(&t, AF_UNIX, SOCK_DGRAM, 0);
    T_OK(pysock_close(again));
    t_close_pair(pair);
    unwatch();
}

T_TEST(the_audit_hook_is_told_where_messages_go, 30) {
    pysock *a, *b;
    pysock_addr addr;
    char text[PYSOCK_ADDR_STRLEN], byte = 'x';
    struct iovec part = {&byte, 1};
    told t;
    b = udp_on_loopback(&addr);
    pysock_addr_format(&addr, text, sizeof text);
    a = T_OK(pysock_socket(AF_INET, SOCK_DGRAM, 0));
    watch(NULL);
    T_EQ(pysock_sendto(a, "x", 1, 0, "127.0.0.1", pysock_addr_port(&addr)), 1);
    T_EQ(times_told("socket.sendto"), 1);
    t = find_told("socket.sendto");
    T_CHECK(t.socket == a);
    expect_text(t.addr, text);
    watch(NULL);
    T_EQ(pysock_sendto_addr(a, "x", 1, 0, &addr), 1);
    expect_text(find_told("socket.sendto").addr, text);
    watch(NULL);
    T_EQ(pysock_sendmsg(a, &part, 1, NULL, 0, 0, &addr), 1);
    T_EQ(times_told("socket.sendmsg"), 1);
    t = find_told("socket.sendmsg");
    T_CHECK(t.socket == a);
    expect_text(t.addr, text);
    T_STEP("to the peer");
    T_OK(pysock_connect_addr(a, &addr));
    watch(NULL);
    T_EQ(pysock_sendmsg(a, &part, 1, NULL, 0, 0, NULL), 1);
    expect_text(find_told("socket.sendmsg").addr, "-");
    for (int i = 0; i < 4; i++)
        T_EQ(pysock_recv(b, &byte, 1, 0), 1);
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
    unwatch();
}

T_TEST(the_audit_hook_is_told_which_names_are_looked_up, 60) {
    char text[PYSOCK_HOST_STRLEN];
    pysock_addrinfo *list;
    pysock_addr addr;
    told t;
    watch(NULL);
    T_OK(pysock_getaddrinfo("localhost", "80", AF_INET, SOCK_STREAM, IPPROTO_TCP, 0, &list));
    pysock_freeaddrinfo(list);
    T_EQ(times_told("socket.getaddrinfo"), 1);
    t = find_told("socket.getaddrinfo");
    expect_text(t.host, "localhost");
    expect_text(t.service, "80");
    expect_kind(&t, AF_INET, SOCK_STREAM, IPPROTO_TCP);
    T_STEP("numbers too, and what is not given");
    watch(NULL);
    T_OK(pysock_getaddrinfo("127.0.0.1", NULL, 0, 0, 0, 0, &list));
    pysock_freeaddrinfo(list);
    t = find_told("socket.getaddrinfo");
    expect_text(t.host, "127.0.0.1");
    expect_text(t.service, "-");
    watch(NULL);
    T_OK(pysock_getaddrinfo(NULL, "80", 0, 0, 0, 0, &list));
    pysock_freeaddrinfo(list);
    t = find_told("socket.getaddrinfo");
    expect_text(t.host, "-");
    expect_kind(&t, 0, 0, 0);
    T_STEP("getnameinfo");
    T_OK(pysock_addr_parse(&addr, "127.0.0.1:80"));
    watch(NULL);
    T_OK(pysock_getnameinfo(&addr, NI_NUMERICHOST, text, sizeof text, NULL, 0));
    T_EQ(times_told("socket.getnameinfo"), 1);
    expect_text(find_told("socket.getnameinfo").addr, "127.0.0.1:80");
    T_STEP("hosts");
    watch(NULL);
    T_OK(pysock_gethostbyname("127.0.0.1", text, sizeof text));
    T_EQ(times_told("socket.gethostbyname"), 1);
    expect_text(find_told("socket.gethostbyname").host, "127.0.0.1");
    watch(NULL);
    pysock_freehostent(T_OK(pysock_gethostbyname_ex("localhost")));
    T_EQ(times_told("socket.gethostbyname"), 1);
    expect_text(find_told("socket.gethostbyname").host, "localhost");
    watch(NULL);
    pysock_freehostent(pysock_gethostbyaddr("127.0.0.1"));
    T_EQ(times_told("socket.gethostbyaddr"), 1);
    expect_text(find_told("socket.gethostbyaddr").host, "127.0.0.1");
    watch(NULL);
    T_OK(pysock_getfqdn("127.0.0.1", text, sizeof text));
    expect_text(find_told("socket.gethostbyaddr").host, "127.0.0.1");
    T_STEP("this machine");
    watch(NULL);
    T_OK(pysock_gethostname(text, sizeof text));
    T_EQ(times_told("socket.gethostname"), 1);
    watch("socket.sethostname"); /* lest it be changed */
    T_FAILS(pysock_sethostname("no-such-name"), PYSOCK_OS_ERROR, EACCES);
    expect_text(find_told("socket.sethostname").host, "no-such-name");
    T_STEP("services");
    watch(NULL);
    (void)pysock_getservbyname("http", "tcp");
    T_EQ(times_told("socket.getservbyname"), 1);
    t = find_told("socket.getservbyname");
    expect_text(t.service, "http");
    expect_text(t.host, "tcp");
    watch(NULL);
    (void)pysock_getservbyname("http", NULL);
    expect_text(find_told("socket.getservbyname").service, "http");
    (void)pysock_getservbyport(80, "udp", text, sizeof text);
    T_EQ(times_told("socket.getservbyport"), 1);
    t = find_told("socket.getservbyport");
    expect_text(t.service, "80");
    expect_text(t.host, "udp");
    unwatch();
}

T_TEST(a_connect_by_name_is_told_twice, 60) {
    static const char *const connecting[] = {"socket.getaddrinfo", "socket.connect", NULL};
    static const char *const creating[] = {"socket.getaddrinfo", "socket.__new__", "socket.connect",
                                           NULL};
    static const double timeouts[] = {PYSOCK_NO_TIMEOUT, 30, 0};
    int port;
    pysock *listener, *s;
    char digits[16];
    listener = t_listen(&port);
    snprintf(digits, sizeof digits, "%d", port);
    for (int i = 0; i < 3; i++) {
        told t;
        T_STEP("timeout %g", timeouts[i]);
        s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
        T_OK(pysock_settimeout(s, timeouts[i]));
        watch(NULL);
        if (timeouts[i] != 0)
            T_OK(pysock_connect(s, "localhost", port));
        else
            T_FAILS(pysock_connect(s, "localhost", port), PYSOCK_OS_ERROR, EINPROGRESS);
        T_EQ(t_writable(s, PYSOCK_NO_TIMEOUT), 1);
        expect_order(connecting);
        T_EQ(times_told("socket.getaddrinfo"), 1);
        T_EQ(times_told("socket.connect"), 1);
        t = find_told("socket.getaddrinfo");
        expect_text(t.host, "localhost");
        expect_text(t.service, digits);
        T_CHECK(strstr(find_told("socket.connect").addr, digits) != NULL);
        T_CHECK(find_told("socket.connect").socket == s);
        T_OK(pysock_close(s));
    }
    for (int i = 0; i < 2; i++) {
        T_STEP("create_connection, timeout %g", timeouts[i]);
        watch(NULL);
        s = T_OK(pysock_create_connection("localhost", port, timeouts[i]));
        expect_order(creating);
        T_OK(pysock_close(s));
    }
    T_OK(pysock_close(listener));
    unwatch();
}

T_TEST(other_calls_by_name_are_told_too, 60) {
    static const char *const binding[] = {"socket.getaddrinfo", "socket.bind", NULL};
    static const char *const serving[] = {"socket.__new__", "socket.bind", "socket.listen", NULL};
    static const char *const sending[] = {"socket.getaddrinfo", "socket.sendto", NULL};
    pysock *s, *b;
    pysock_addr addr;
    watch(NULL);
    T_OK(pysock_addr_resolve(&addr, AF_INET, "localhost", 80));
    expect_text(find_told("socket.getaddrinfo").host, "localhost");
    s = T_OK(pysock_socket(AF_INET, SOCK_DGRAM, 0));
    watch(NULL);
    T_OK(pysock_bind(s, "localhost", 0));
    expect_order(binding);
    b = udp_on_loopback(&addr);
    watch(NULL);
    T_EQ(pysock_sendto(s, "x", 1, 0, "localhost", pysock_addr_port(&addr)), 1);
    expect_order(sending);
    T_OK(pysock_close(s));
    T_OK(pysock_close(b));
    watch(NULL);
    s = T_OK(pysock_create_server("127.0.0.1", 0, 1));
    expect_order(serving);
    T_OK(pysock_close(s));
    unwatch();
}

/* Looked at by the hook: nothing has happened yet. Every look uses the library, on the socket that
   it is asked about too. */

static int looks;
static pysock *looked_receiver;

static void look_before(const pysock_audit_event *e) {
    pysock_addr addr;
    int value = -1;
    if (strcmp(e->name, "socket.bind") == 0) {
        T_OK(pysock_getsockname(e->socket, &addr));
        T_EQ(pysock_addr_port(&addr), 0);
    } else if (strcmp(e->name, "socket.listen") == 0) {
        T_OK(pysock_getsockopt_int(e->socket, SOL_SOCKET, SO_ACCEPTCONN, &value));
        T_EQ(value, 0);
    } else if (strcmp(e->name, "socket.connect") == 0) {
        T_FAILS(pysock_getpeername(e->socket, &addr), PYSOCK_OS_ERROR, ENOTCONN);
        T_OK(pysock_setsockopt_int(e->socket, SOL_SOCKET, SO_KEEPALIVE, 1));
    } else if (strcmp(e->name, "socket.sendto") == 0 || strcmp(e->name, "socket.sendmsg") == 0) {
        T_EQ(t_readable(looked_receiver, 0), 0);
        T_EQ(pysock_addr_port(e->addr) > 0, 1);
    } else {
        return;
    }
    looks++;
}

T_TEST(the_audit_hook_is_asked_before_it_happens, 30) {
    pysock *listener, *a, *b;
    pysock_addr addr;
    char byte = 'x';
    struct iovec part = {&byte, 1};
    looks = 0;
    watch_and_look(look_before);
    listener = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_bind(listener, "127.0.0.1", 0));
    T_OK(pysock_listen(listener, 5));
    T_OK(pysock_getsockname(listener, &addr));
    T_EQ(looks, 2);
    a = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_connect(a, "127.0.0.1", pysock_addr_port(&addr)));
    T_EQ(looks, 3);
    b = T_OK(pysock_accept(listener, NULL));
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
    T_OK(pysock_close(listener));
    T_STEP("messages");
    looked_receiver = udp_on_loopback(&addr);
    a = T_OK(pysock_socket(AF_INET, SOCK_DGRAM, 0));
    looks = 0;
    T_EQ(pysock_sendto_addr(a, "x", 1, 0, &addr), 1);
    T_EQ(pysock_recv(looked_receiver, &byte, 1, 0), 1);
    T_EQ(pysock_sendmsg(a, &part, 1, NULL, 0, 0, &addr), 1);
    T_EQ(pysock_recv(looked_receiver, &byte, 1, 0), 1);
    T_EQ(looks, 2);
    T_OK(pysock_close(a));
    T_OK(pysock_close(looked_receiver));
    unwatch();
}

/* The hook itself connects somewhere, looks names up and fails at something; what it was asked
   about goes on as if it had not. */

static int inside; /* only its own thread */
static int inside_port;

static void use_the_library(const pysock_audit_event *e) {
    pysock *pair[2], *s;
    pysock_addrinfo *list;
    char byte;
    (void)e;
    if (inside)
        return;
    inside = 1;
    t_pair(pair);
    t_echo_once(pair[0], pair[1]);
    T_OK(pysock_setblocking(pair[0], 0));
    T_FAILS(pysock_recv(pair[0], &byte, 1, 0), PYSOCK_OS_ERROR, EAGAIN);
    t_close_pair(pair);
    T_OK(pysock_getaddrinfo("localhost", "80", 0, SOCK_STREAM, 0, 0, &list));
    pysock_freeaddrinfo(list);
    s = T_OK(pysock_create_connection("127.0.0.1", inside_port, 30));
    T_OK(pysock_close(s));
    looks++;
    inside = 0;
}

T_TEST(the_audit_hook_may_use_the_library, 60) {
    pysock *listener, *s;
    char text[PYSOCK_HOST_STRLEN];
    listener = t_listen(&inside_port);
    looks = 0;
    watch_and_look(use_the_library);
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_connect(s, "localhost", inside_port));
    T_OK(pysock_close(s));
    T_CHECK(looks >= 3);
    T_OK(pysock_gethostname(text, sizeof text));
    T_CHECK(looks >= 4);
    unwatch();
    T_OK(pysock_close(listener));
}

/* ---- denied ---- */

#define DENIED(event, expr)                                                                        \
    do {                                                                                           \
        T_STEP("%s denied", event);                                                                \
        watch(event);                                                                              \
        T_FAILS(expr, PYSOCK_OS_ERROR, EACCES);                                                    \
        expect_denied(event);                                                                      \
        unwatch();                                                                                 \
    } while (0)

T_TEST(what_is_denied_makes_no_socket, 30) {
    pysock *pair[2], *listener, *s;
    int port, fds, fd, raw;
    listener = t_listen(&port);
    t_pair(pair);
    raw = t_raw_connect(port);
    fd = dup(pysock_fileno(pair[0]));
    T_CHECK(fd >= 0);
    fds = t_settled(t_count_fds);
    DENIED("socket.__new__", pysock_socket(AF_INET, SOCK_STREAM, 0));
    DENIED("socket.__new__", pysock_dup(pair[0]));
    DENIED("socket.__new__", pysock_fromfd(fd, -1, -1, -1));
    DENIED("socket.__new__", pysock_adopt(fd, -1, -1, -1));
    T_CHECK(fcntl(fd, F_GETFD) >= 0); /* still the caller's */
    DENIED("socket.__new__", pysock_create_server("127.0.0.1", 0, 1));
    DENIED("socket.__new__", pysock_create_connection("127.0.0.1", port, 30));
    t_expect_at_most(t_count_fds, fds, "descriptors");
    DENIED("socket.__new__", pysock_accept(listener, NULL));
    t_expect_at_most(t_count_fds, fds, "descriptors");
    DENIED("socket.bind", pysock_create_server("127.0.0.1", 0, 1));
    DENIED("socket.listen", pysock_create_server("127.0.0.1", 0, 1));
    DENIED("socket.connect", pysock_create_connection("127.0.0.1", port, 30));
    t_expect_at_most(t_count_fds, fds, "descriptors");
    {
        pysock *none[2] = {NULL, NULL};
        DENIED("socket.__new__", pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, none));
        T_CHECK(none[0] == NULL && none[1] == NULL);
    }
    t_expect_at_most(t_count_fds, fds, "descriptors");
    T_STEP("and afterwards all is as it was");
    t_echo_once(pair[0], pair[1]);
    s = T_OK(pysock_adopt(fd, -1, -1, -1));
    T_OK(pysock_close(s));
    close(raw);
    t_close_pair(pair);
    T_OK(pysock_close(listener));
}

/* The kernel was not asked to connect it: that would have given it a port. */
static void expect_untouched(pysock *s) {
    pysock_addr addr;
    T_OK(pysock_getsockname(s, &addr));
    T_EQ(pysock_addr_port(&addr), 0);
    T_FAILS(pysock_getpeername(s, &addr), PYSOCK_OS_ERROR, ENOTCONN);
}

T_TEST(what_is_denied_does_nothing_to_a_socket, 30) {
    pysock *listener, *s, *b;
    pysock_addr addr;
    int port, value = -1;
    listener = t_listen(&port);
    T_OK(pysock_getsockname(listener, &addr));
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    DENIED("socket.connect", pysock_connect(s, "127.0.0.1", port));
    DENIED("socket.connect", pysock_connect_addr(s, &addr));
    T_STEP("connect_ex");
    watch("socket.connect");
    T_EQ(pysock_connect_ex(s, "127.0.0.1", port), EACCES);
    unwatch();
    DENIED("socket.getaddrinfo", pysock_connect(s, "localhost", port));
    DENIED("socket.connect", pysock_connect(s, "localhost", port));
    expect_untouched(s);
    T_STEP("allowed");
    T_OK(pysock_connect(s, "127.0.0.1", port));
    b = T_OK(pysock_accept(listener, NULL));
    t_echo_once(s, b);
    T_OK(pysock_close(s));
    T_OK(pysock_close(b));
    T_OK(pysock_close(listener));
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    DENIED("socket.bind", pysock_bind(s, "127.0.0.1", 0));
    expect_untouched(s);
    T_OK(pysock_addr_parse(&addr, "127.0.0.1:0"));
    DENIED("socket.bind", pysock_bind_addr(s, &addr));
    DENIED("socket.getaddrinfo", pysock_bind(s, "localhost", 0));
    T_OK(pysock_bind(s, "127.0.0.1", 0));
    DENIED("socket.listen", pysock_listen(s, 5));
    T_OK(pysock_getsockopt_int(s, SOL_SOCKET, SO_ACCEPTCONN, &value));
    T_EQ(value, 0);
    T_OK(pysock_listen(s, 5));
    T_OK(pysock_close(s));
}

T_TEST(what_is_denied_sends_nothing, 30) {
    pysock *a, *b;
    pysock_addr addr;
    char byte = 'x';
    struct iovec part = {&byte, 1};
    int port;
    b = udp_on_loopback(&addr);
    port = pysock_addr_port(&addr);
    a = T_OK(pysock_socket(AF_INET, SOCK_DGRAM, 0));
    DENIED("socket.sendto", pysock_sendto(a, "x", 1, 0, "127.0.0.1", port));
    DENIED("socket.sendto", pysock_sendto(a, "x", 1, 0, "localhost", port));
    DENIED("socket.getaddrinfo", pysock_sendto(a, "x", 1, 0, "localhost", port));
    DENIED("socket.sendto", pysock_sendto_addr(a, "x", 1, 0, &addr));
    DENIED("socket.sendmsg", pysock_sendmsg(a, &part, 1, NULL, 0, 0, &addr));
    T_EQ(t_readable(b, 0.05), 0);
    T_OK(pysock_settimeout(a, 30));
    DENIED("socket.getaddrinfo", pysock_sendto(a, "x", 1, 0, "localhost", port));
    DENIED("socket.sendto", pysock_sendto(a, "x", 1, 0, "localhost", port));
    T_EQ(t_readable(b, 0.05), 0);
    T_EQ(pysock_sendto(a, "x", 1, 0, "localhost", port), 1);
    T_EQ(pysock_recv(b, &byte, 1, 0), 1);
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
}

T_TEST(what_is_denied_is_not_looked_up, 30) {
    pysock_addrinfo *list = NULL;
    pysock_addr addr;
    char text[PYSOCK_HOST_STRLEN], mine[PYSOCK_HOST_STRLEN];
    T_OK(pysock_gethostname(mine, sizeof mine));
    T_OK(pysock_addr_parse(&addr, "127.0.0.1:80"));
    DENIED("socket.getaddrinfo", pysock_getaddrinfo("localhost", "80", 0, 0, 0, 0, &list));
    T_CHECK(list == NULL);
    DENIED("socket.getaddrinfo", pysock_addr_resolve(&addr, AF_INET, "localhost", 80));
    DENIED("socket.getaddrinfo", pysock_create_connection("localhost", 9, 30));
    DENIED("socket.getaddrinfo", pysock_create_connection("localhost", 9, PYSOCK_NO_TIMEOUT));
    memset(text, 'x', sizeof text);
    DENIED("socket.getnameinfo", pysock_getnameinfo(&addr, NI_NUMERICHOST, text, 64, NULL, 0));
    T_EQ(text[0], 'x');
    DENIED("socket.gethostbyname", pysock_gethostbyname("127.0.0.1", text, sizeof text));
    T_EQ(text[0], 'x');
    DENIED("socket.gethostbyname", pysock_gethostbyname_ex("127.0.0.1"));
    DENIED("socket.gethostbyaddr", pysock_gethostbyaddr("127.0.0.1"));
    DENIED("socket.getservbyname", pysock_getservbyname("http", "tcp"));
    DENIED("socket.getservbyport", pysock_getservbyport(80, "tcp", text, sizeof text));
    DENIED("socket.gethostname", pysock_gethostname(text, sizeof text));
    T_EQ(text[0], 'x');
    DENIED("socket.sethostname", pysock_sethostname("no-such-name"));
    T_OK(pysock_gethostname(text, sizeof text));
    expect_text(text, mine);
}

/* Told by the call itself, or, where the name is looked up first, by the next one. */
T_TEST(a_denied_nonblocking_connect_is_told_by_the_next_call, 60) {
    static const char *const events[] = {"socket.getaddrinfo", "socket.connect"};
    int port;
    pysock *listener;
    listener = t_listen(&port);
    for (int i = 0; i < 6; i++) {
        pysock *s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
        const char *event = events[i % 2], *host = i / 2 == 2 ? "127.0.0.1" : "localhost";
        int rc;
        if (strcmp(host, "localhost") != 0 && i % 2 == 0) { /* nothing is looked up */
            T_OK(pysock_close(s));
            continue;
        }
        T_STEP("%s denied, %s%s", event, host, i / 2 == 1 ? ", TLS" : "");
        if (i / 2 == 1)
            T_OK(pysock_ssl_wrap_socket(s, client_ctx, "localhost"));
        T_OK(pysock_setblocking(s, 0));
        watch(event);
        rc = pysock_connect(s, host, port);
        T_EQ(rc, -1);
        T_CHECK(errno == EINPROGRESS || errno == EACCES);
        if (errno == EINPROGRESS) {
            T_EQ(t_writable(s, PYSOCK_NO_TIMEOUT), 1);
            T_EQ(t_readable(s, PYSOCK_NO_TIMEOUT), 1);
            T_FAILS(pysock_send(s, "x", 1, 0), PYSOCK_OS_ERROR, EACCES);
        }
        expect_denied(event);
        unwatch();
        expect_untouched(s);
        T_OK(pysock_close(s));
    }
    T_STEP("by SO_ERROR");
    {
        pysock *s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
        int error = 0;
        T_OK(pysock_setblocking(s, 0));
        watch("socket.connect");
        T_FAILS(pysock_connect(s, "localhost", port), PYSOCK_OS_ERROR, EINPROGRESS);
        T_EQ(t_writable(s, PYSOCK_NO_TIMEOUT), 1);
        T_OK(pysock_getsockopt_int(s, SOL_SOCKET, SO_ERROR, &error));
        T_EQ(error, EACCES);
        unwatch();
        expect_untouched(s);
        T_OK(pysock_close(s));
    }
    T_STEP("with a timeout");
    for (int i = 0; i < 2; i++) {
        pysock *s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
        T_OK(pysock_settimeout(s, 30));
        DENIED(events[i], pysock_connect(s, "localhost", port));
        DENIED(events[i], pysock_create_connection("localhost", port, 30));
        expect_untouched(s);
        T_OK(pysock_close(s));
    }
    T_OK(pysock_close(listener));
}

T_TEST(a_denied_nonblocking_sendto_is_told_by_the_next_call, 60) {
    static const char *const events[] = {"socket.getaddrinfo", "socket.sendto"};
    for (int i = 0; i < 2; i++) {
        pysock_addr addr;
        pysock *b = udp_on_loopback(&addr), *a = T_OK(pysock_socket(AF_INET, SOCK_DGRAM, 0));
        int port = pysock_addr_port(&addr);
        T_STEP("%s denied", events[i]);
        T_OK(pysock_setblocking(a, 0));
        watch(events[i]);
        T_EQ(pysock_sendto(a, "x", 1, 0, "localhost", port), -1);
        T_CHECK(errno == EAGAIN || errno == EACCES);
        if (errno == EAGAIN) {
            T_EQ(t_writable(a, PYSOCK_NO_TIMEOUT), 1);
            T_FAILS(pysock_sendto(a, "x", 1, 0, "localhost", port), PYSOCK_OS_ERROR, EACCES);
        }
        expect_denied(events[i]);
        unwatch();
        T_EQ(t_readable(b, 0.05), 0);
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
    }
}

static void *do_nothing(void *arg) {
    return arg;
}

/* As with PYSOCK_NO_THREADS: whoever calls does the work. */
T_TEST(where_threads_are_denied_the_library_goes_on_without, 60) {
    pysock *pair[2], *listener, *s, *b;
    int port, threads, error = -1;
    pysock_cleanup(); /* no thread of it is left from before */
    {
        t_thread first; /* brings a sanitizer's own thread with it */
        t_spawn(&first, do_nothing, NULL);
        t_join(&first);
    }
    threads = t_settled(t_count_threads);
    watch("pysock.thread");
    T_STEP("handshakes");
    t_nonblocking_tls_pair(pair, client_ctx, server_ctx);
    T_CHECK(times_told("pysock.thread") >= 1);
    t_echo_once(pair[0], pair[1]);
    T_CHECK(t_count_threads() <= threads);
    t_close_pair(pair);
    T_STEP("names");
    listener = t_listen(&port);
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_setblocking(s, 0));
    T_FAILS(pysock_connect(s, "localhost", port), PYSOCK_OS_ERROR, EINPROGRESS);
    T_EQ(t_writable(s, 30), 1);
    T_OK(pysock_getsockopt_int(s, SOL_SOCKET, SO_ERROR, &error));
    T_EQ(error, 0);
    b = T_OK(pysock_accept(listener, NULL));
    t_echo_once(s, b);
    T_OK(pysock_close(s));
    T_OK(pysock_close(b));
    s = T_OK(pysock_create_connection("localhost", port, 30));
    T_OK(pysock_close(s));
    T_CHECK(t_count_threads() <= threads);
    T_OK(pysock_close(listener));
    unwatch();
    T_STEP("and with them, after a new start");
    pysock_cleanup();
    watch(NULL);
    t_nonblocking_tls_pair(pair, client_ctx, server_ctx);
    T_CHECK(times_told("pysock.thread") >= 1);
    T_CHECK(t_count_threads() > threads);
    t_echo_once(pair[0], pair[1]);
    t_close_pair(pair);
    unwatch();
}

T_TEST(NULL_takes_the_audit_hook_away, 30) {
    pysock *pair[2];
    watch("socket.__new__");
    T_FAILS(pysock_socket(AF_INET, SOCK_STREAM, 0), PYSOCK_OS_ERROR, EACCES);
    T_EQ(times_told("socket.__new__"), 1);
    unwatch();
    t_pair(pair);
    t_echo_once(pair[0], pair[1]);
    t_close_pair(pair);
    T_EQ(times_told("socket.__new__"), 1);
}

static int count_and_allow(void *arg, const pysock_audit_event *e) {
    size_t n = strlen(e->name) + (e->host ? strlen(e->host) : 0);
    if (e->service)
        n += strlen(e->service);
    if (e->addr)
        n += e->addr->size;
    __atomic_add_fetch((size_t *)arg, n, __ATOMIC_RELAXED);
    return 0;
}

typedef struct busy_arg {
    int *stop;
    int port;
} busy_arg;

static void *busy_thread(void *arg) {
    busy_arg *busy = arg;
    while (!__atomic_load_n(busy->stop, __ATOMIC_ACQUIRE)) {
        pysock *pair[2], *s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
        pysock_addrinfo *list;
        T_OK(pysock_setblocking(s, 0));
        T_FAILS(pysock_connect(s, "localhost", busy->port), PYSOCK_OS_ERROR, EINPROGRESS);
        T_EQ(t_writable(s, PYSOCK_NO_TIMEOUT), 1);
        T_OK(pysock_close(s));
        T_OK(pysock_getaddrinfo("127.0.0.1", "80", 0, SOCK_STREAM, 0, 0, &list));
        pysock_freeaddrinfo(list);
        t_nonblocking_tls_pair(pair, client_ctx, server_ctx);
        t_close_pair(pair);
    }
    return NULL;
}

T_TEST(hooks_come_and_go_while_others_are_asked, 120) {
    enum { N = 3 };
    t_thread threads[N];
    busy_arg busy;
    size_t counts[2] = {0, 0};
    int stop = 0;
    pysock *listener;
    busy.stop = &stop;
    listener = T_OK(pysock_create_server("127.0.0.1", 0, 1024));
    {
        pysock_addr addr;
        T_OK(pysock_getsockname(listener, &addr));
        busy.port = pysock_addr_port(&addr);
    }
    for (int i = 0; i < N; i++)
        t_spawn(&threads[i], busy_thread, &busy);
    T_OK(pysock_setblocking(listener, 0));
    for (int i = 0; i < T_SCALE(300, 60); i++) {
        pysock *b;
        pysock_set_audit_hook(i % 3 == 2 ? NULL : count_and_allow, &counts[i % 3 == 1]);
        t_nap(0.003);
        while ((b = pysock_accept(listener, NULL)) != NULL)
            T_OK(pysock_close(b));
    }
    T_STEP("both hooks get their turn");
    for (int i = 0; i < 2; i++) {
        pysock_set_audit_hook(count_and_allow, &counts[i]);
        while (!__atomic_load_n(&counts[i], __ATOMIC_RELAXED)) {
            pysock *b = pysock_accept(listener, NULL);
            T_OK(pysock_close(b));
            t_nap(0.001);
        }
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < N; i++)
        t_join(&threads[i]);
    unwatch();
    T_OK(pysock_close(listener));
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts, .each_teardown = forget_hooks)
