/* What a program may have a say in: the audit hook, which is asked before things happen; the
   interrupt hook, and signals that come while any call waits; and states, several interpreters in
   one process that must not notice each other. */
#include "support/contexts.h"

#include <sys/time.h>

/* Both handshakes by whoever does what nobody waits for. */
static void nonblocking_pair(pysock *pair[2]) {
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    for (int i = 0; i < 2; i++) {
        T_OK(pysock_setblocking(pair[i], 0));
        T_OK(pysock_ssl_wrap_socket(pair[i], i ? server_ctx : client_ctx, i ? NULL : "localhost"));
    }
    for (int i = 0; i < 2; i++) {
        T_EQ(t_writable(pair[i], PYSOCK_NO_TIMEOUT), 1);
        T_EQ(pysock_ssl_do_handshake(pair[i]), 0);
    }
}

static void expect_text(const char *have, const char *want) {
    if (strcmp(have, want) != 0)
        T_FAIL("have '%s', not '%s'", have, want);
}

/* The count once it has stood still for a while. */
static int settled(int (*count)(void)) {
    int last = count();
    for (int same = 0; same < 10;) {
        int now;
        t_nap(0.01);
        now = count();
        same = now == last ? same + 1 : 0;
        last = now;
    }
    return last;
}

/* A joined thread can be seen for a moment longer, and closing may end in the reactor. */
static void expect_at_most(int (*count)(void), int bound, const char *what) {
    double end = t_now() + 20;
    int have;
    while ((have = count()) > bound && t_now() < end)
        t_nap(0.01);
    if (have > bound)
        T_FAIL("there are %d %s, not %d", have, what, bound);
}

static pysock *udp_on_loopback(pysock_addr *addr) {
    pysock *s = T_OK(pysock_socket(AF_INET, SOCK_DGRAM, 0));
    T_OK(pysock_bind(s, "127.0.0.1", 0));
    T_OK(pysock_getsockname(s, addr));
    return s;
}

/* ---- the audit hook ---- */

typedef struct told {
    char name[32];
    pysock *socket;
    char addr[PYSOCK_ADDR_STRLEN]; /* "-" for NULL, as in the two below */
    char host[64];
    char service[64];
    int family, type, proto;
} told;

static pthread_mutex_t told_lock = PTHREAD_MUTEX_INITIALIZER;
static told tale[64];        /* guarded by told_lock */
static int tale_length;      /* guarded by told_lock; may be more than there is room for */
static const char *unwanted; /* guarded by told_lock; the event that is denied */
static void (*look)(const pysock_audit_event *e); /* guarded by told_lock; asked at each event */

static void note_text(char *to, size_t size, const char *text) {
    snprintf(to, size, "%s", text ? text : "-");
}

static int audit(void *arg, const pysock_audit_event *e) {
    void (*ask)(const pysock_audit_event *);
    int denied;
    T_CHECK(arg == tale);
    T_CHECK(e->name != NULL);
    pthread_mutex_lock(&told_lock);
    if (tale_length < (int)(sizeof tale / sizeof tale[0])) {
        told *t = &tale[tale_length];
        note_text(t->name, sizeof t->name, e->name);
        note_text(t->host, sizeof t->host, e->host);
        note_text(t->service, sizeof t->service, e->service);
        note_text(t->addr, sizeof t->addr, NULL);
        if (e->addr)
            pysock_addr_format(e->addr, t->addr, sizeof t->addr);
        t->socket = e->socket;
        t->family = e->family;
        t->type = e->type;
        t->proto = e->proto;
    }
    tale_length++;
    denied = unwanted && strcmp(e->name, unwanted) == 0;
    ask = look;
    pthread_mutex_unlock(&told_lock);
    if (ask)
        ask(e);
    return denied;
}

/* From here on events are told; those of that name, if any, are denied. */
static void watch(const char *deny) {
    pthread_mutex_lock(&told_lock);
    tale_length = 0;
    unwanted = deny;
    look = NULL;
    pthread_mutex_unlock(&told_lock);
    pysock_set_audit_hook(audit, tale);
}

static void watch_and_look(void (*fn)(const pysock_audit_event *e)) {
    watch(NULL);
    pthread_mutex_lock(&told_lock);
    look = fn;
    pthread_mutex_unlock(&told_lock);
}

static void unwatch(void) {
    pysock_set_audit_hook(NULL, NULL);
}

static int times_told(const char *name) {
    int n = 0;
    pthread_mutex_lock(&told_lock);
    for (int i = 0; i < tale_length; i++)
        n += strcmp(tale[i].name, name) == 0;
    pthread_mutex_unlock(&told_lock);
    return n;
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
    static const char *const creating[] = {"socket.getaddrinfo", "socket.__new__",
                                           "socket.connect", NULL};
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
    }
    else if (strcmp(e->name, "socket.listen") == 0) {
        T_OK(pysock_getsockopt_int(e->socket, SOL_SOCKET, SO_ACCEPTCONN, &value));
        T_EQ(value, 0);
    }
    else if (strcmp(e->name, "socket.connect") == 0) {
        T_FAILS(pysock_getpeername(e->socket, &addr), PYSOCK_OS_ERROR, ENOTCONN);
        T_OK(pysock_setsockopt_int(e->socket, SOL_SOCKET, SO_KEEPALIVE, 1));
    }
    else if (strcmp(e->name, "socket.sendto") == 0 || strcmp(e->name, "socket.sendmsg") == 0) {
        T_EQ(t_readable(looked_receiver, 0), 0);
        T_EQ(pysock_addr_port(e->addr) > 0, 1);
    }
    else {
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

/* It failed with EACCES, named as in Python, and for this reason. */
static void expect_denied(const char *event) {
    T_CHECK(times_told(event) >= 1);
    expect_text(pysock_error_name(), "PermissionError");
    expect_text(pysock_error_reason(), "EACCES");
    T_CHECK(strstr(pysock_error_message(), "audit") != NULL);
}

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
    fds = settled(t_count_fds);
    DENIED("socket.__new__", pysock_socket(AF_INET, SOCK_STREAM, 0));
    DENIED("socket.__new__", pysock_dup(pair[0]));
    DENIED("socket.__new__", pysock_fromfd(fd, -1, -1, -1));
    DENIED("socket.__new__", pysock_adopt(fd, -1, -1, -1));
    T_CHECK(fcntl(fd, F_GETFD) >= 0); /* still the caller's */
    DENIED("socket.__new__", pysock_create_server("127.0.0.1", 0, 1));
    DENIED("socket.__new__", pysock_create_connection("127.0.0.1", port, 30));
    expect_at_most(t_count_fds, fds, "descriptors");
    DENIED("socket.__new__", pysock_accept(listener, NULL));
    expect_at_most(t_count_fds, fds, "descriptors");
    DENIED("socket.bind", pysock_create_server("127.0.0.1", 0, 1));
    DENIED("socket.listen", pysock_create_server("127.0.0.1", 0, 1));
    DENIED("socket.connect", pysock_create_connection("127.0.0.1", port, 30));
    expect_at_most(t_count_fds, fds, "descriptors");
    {
        pysock *none[2] = {NULL, NULL};
        DENIED("socket.__new__", pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, none));
        T_CHECK(none[0] == NULL && none[1] == NULL);
    }
    expect_at_most(t_count_fds, fds, "descriptors");
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
    threads = settled(t_count_threads);
    watch("pysock.thread");
    T_STEP("handshakes");
    nonblocking_pair(pair);
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
    nonblocking_pair(pair);
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
        n += e->addr->len;
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
        nonblocking_pair(pair);
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

/* ---- signals ----
   Every call that may wait, on a thread of its own, in a scene where it has to. */

typedef enum place {
    IDLE,         /* connected; nothing comes */
    DATAGRAM,     /* bound, UDP; nothing comes */
    FULL,         /* connected; the peer does not read */
    FULL_MESSAGES, /* the same, of messages */
    LISTENER,     /* nobody connects */
    BACKLOG,      /* TCP: the listener's queue is full */
    UNIX_BACKLOG, /* the same with a Unix name */
    SHAKING,      /* the peer does not say hello */
    UNWRAPPING    /* the peer does not say goodbye */
} place;

enum {
    PARTLY = 1, /* some of what is read has come already */
    LOSSY = 2,  /* nobody can tell how much an interrupted one has sent: not repeated */
    READ_FILE = 4,
    READ_RAW_FILE = 8,
    WRITE_FILE = 16,
    WRITE_RAW_FILE = 32,
    READ_STDIO = 64,
    WRITE_STDIO = 128,
    POLLED_IN = 256,
    POLLED_OUT = 512,
    QUEUED = 1024,  /* with a queue at its high watermark */
    FROM_DISK = 2048,
    SERVER = 4096,  /* the server's side of a handshake */
    ONCE = 8192,    /* an interrupted one leaves nothing that could be repeated */
    BUFFERED = 16384 /* a file with a piece in its buffer */
};

typedef struct scene scene;

typedef struct op {
    const char *name;
    place where;
    int tls;
    intptr_t (*run)(scene *sc);
    int flags;
} op;

struct scene {
    const op *op;
    double timeout;
    pysock *s, *peer, *child;
    pysock_poller *poller;
    pysock_file *file;
    FILE *stdio;
    int fds[2], disk, port;
    pysock_addr addr;
    char name[64];
    char got[64]; /* by a reader */
    size_t have;
    size_t sent; /* by a writer, or to fill the socket */
    size_t drained;
    t_thread thread, drain;
    int draining;
    intptr_t result;
    int code;
    double took;
    int ended; /* atomic */
    int asked; /* atomic: how often the interrupt hook was, on its thread */
};

enum { BULK = 3 * 1024 * 1024, PIECE = 1000 };

static unsigned char *bulk; /* what every writer sends, from its beginning */

static const char line[] = "line\n"; /* what every reader reads */

#define LINE (sizeof line - 1)

static intptr_t took_in(scene *sc, ptrdiff_t n) {
    sc->have += n > 0 ? (size_t)n : 0;
    return n;
}

static intptr_t sent_out(scene *sc, ptrdiff_t n) {
    sc->sent += n > 0 ? (size_t)n : 0;
    return n;
}

#define SPACE sc->got + sc->have, sizeof sc->got - 1 - sc->have

/* ---- reading ---- */

static intptr_t run_recv(scene *sc) {
    return took_in(sc, pysock_recv(sc->s, SPACE, 0));
}

static intptr_t run_recv_into(scene *sc) {
    return took_in(sc, pysock_recv_into(sc->s, SPACE, 0));
}

static intptr_t run_recvfrom(scene *sc) {
    return took_in(sc, pysock_recvfrom(sc->s, SPACE, 0, &sc->addr));
}

static intptr_t run_recvfrom_into(scene *sc) {
    return took_in(sc, pysock_recvfrom_into(sc->s, SPACE, 0, NULL));
}

static intptr_t run_recvmsg(scene *sc) {
    pysock_msg msg;
    memset(&msg, 0, sizeof msg);
    return took_in(sc, pysock_recvmsg(sc->s, SPACE, &msg, 0));
}

static intptr_t run_recvmsg_into(scene *sc) {
    struct iovec parts[2];
    pysock_msg msg;
    memset(&msg, 0, sizeof msg);
    parts[0].iov_base = sc->got + sc->have;
    parts[0].iov_len = 2;
    parts[1].iov_base = sc->got + sc->have + 2;
    parts[1].iov_len = 20;
    return took_in(sc, pysock_recvmsg_into(sc->s, parts, 2, &msg, 0));
}

static intptr_t take_buf(scene *sc, pysock_buf *b) {
    int code = errno;
    if (b) {
        T_CHECK(sc->have + pysock_buf_size(b) < sizeof sc->got);
        memcpy(sc->got + sc->have, pysock_buf_data(b), pysock_buf_size(b));
        sc->have += pysock_buf_size(b);
        pysock_buf_release(b);
    }
    errno = code;
    return b ? 0 : -1;
}

static intptr_t run_recv_buf(scene *sc) {
    return take_buf(sc, pysock_recv_buf(sc->s, 20));
}

static intptr_t run_recv_fds(scene *sc) {
    int fds[2], flags = 0;
    size_t count = 2;
    return took_in(sc, pysock_recv_fds(sc->s, SPACE, fds, &count, 0, &flags));
}

static intptr_t run_file_read(scene *sc) {
    return took_in(sc, pysock_file_read(sc->file, sc->got, LINE));
}

static intptr_t run_file_readinto(scene *sc) {
    return took_in(sc, pysock_file_readinto(sc->file, sc->got, LINE));
}

static intptr_t run_file_read1(scene *sc) {
    return took_in(sc, pysock_file_read1(sc->file, SPACE));
}

static intptr_t run_file_readline(scene *sc) {
    return took_in(sc, pysock_file_readline(sc->file, sc->got, sizeof sc->got));
}

static intptr_t run_file_readall(scene *sc) {
    return take_buf(sc, pysock_file_readall(sc->file));
}

static intptr_t run_file_readlines(scene *sc) {
    pysock_buf **lines = NULL;
    ptrdiff_t n = pysock_file_readlines(sc->file, 0, &lines);
    int code = errno;
    if (n > 0) {
        T_EQ(n, 1);
        memcpy(sc->got, pysock_buf_data(lines[0]), pysock_buf_size(lines[0]));
        sc->have = pysock_buf_size(lines[0]);
        pysock_file_freelines(lines, (size_t)n);
    }
    errno = code;
    return n;
}

static intptr_t run_fgets(scene *sc) {
    clearerr(sc->stdio);
    if (!fgets(sc->got + sc->have, (int)(sizeof sc->got - sc->have), sc->stdio))
        return -1;
    sc->have = strlen(sc->got);
    return 0;
}

/* A timeout is no error of these two: here it is made to look like one. */
static intptr_t timed_out(void) {
    errno = ETIMEDOUT;
    return -1;
}

static intptr_t run_select_in(scene *sc) {
    int fd = pysock_fileno(sc->s);
    size_t count = 1;
    ptrdiff_t n = pysock_select(&fd, &count, NULL, NULL, NULL, NULL, sc->timeout);
    return n > 0 ? run_recv(sc) : n == 0 ? timed_out() : n;
}

static intptr_t run_poll_in(scene *sc) {
    pysock_pollevent event;
    ptrdiff_t n = pysock_poller_poll(sc->poller, &event, 1, sc->timeout);
    return n > 0 ? run_recv(sc) : n == 0 ? timed_out() : n;
}

/* ---- writing ---- */

static intptr_t run_send(scene *sc) {
    return sent_out(sc, pysock_send(sc->s, bulk + sc->sent, PIECE, 0));
}

static intptr_t run_sendall(scene *sc) {
    int rc = pysock_sendall(sc->s, bulk + sc->sent, BULK - sc->sent, 0);
    sc->sent = BULK;
    return rc;
}

static intptr_t run_sendto(scene *sc) {
    return sent_out(sc, pysock_sendto_addr(sc->s, bulk + sc->sent, PIECE, 0, &sc->addr));
}

static intptr_t run_sendmsg(scene *sc) {
    struct iovec parts[2];
    parts[0].iov_base = bulk + sc->sent;
    parts[0].iov_len = 10;
    parts[1].iov_base = bulk + sc->sent + 10;
    parts[1].iov_len = PIECE - 10;
    return sent_out(sc, pysock_sendmsg(sc->s, parts, 2, NULL, 0, 0, NULL));
}

static intptr_t send_piece_buf(scene *sc, size_t size) {
    pysock_buf *b = T_OK(pysock_buf_copy(bulk + sc->sent, size));
    int rc = pysock_send_buf(sc->s, b), code = errno;
    pysock_buf_release(b);
    sc->sent += rc == 0 ? size : 0;
    errno = code;
    return rc;
}

static intptr_t run_send_buf(scene *sc) {
    return send_piece_buf(sc, PIECE);
}

static intptr_t run_send_fds(scene *sc) {
    int fd = 1;
    return sent_out(sc, pysock_send_fds(sc->s, bulk + sc->sent, 1, &fd, 1, 0));
}

/* It goes on where the file stands. */
static intptr_t run_sendfile(scene *sc) {
    int64_t n = pysock_sendfile(sc->s, sc->disk, -1, -1);
    int code = errno;
    sc->sent = (size_t)lseek(sc->disk, 0, SEEK_CUR);
    errno = code;
    return n < 0 ? -1 : 0;
}

static intptr_t run_file_write(scene *sc) {
    size_t taken = 0;
    ptrdiff_t n = pysock_file_write(sc->file, bulk + sc->sent, BULK - sc->sent, &taken);
    if (n >= 0 && !(sc->op->flags & WRITE_RAW_FILE)) /* which is one send */
        T_EQ(n, BULK - sc->sent);
    sc->sent += n >= 0 ? (size_t)n : taken;
    return n < 0 ? -1 : 0;
}

static intptr_t run_file_flush(scene *sc) {
    return pysock_file_flush(sc->file);
}

static intptr_t run_fflush(scene *sc) {
    T_EQ(fwrite(bulk + sc->sent, 1, PIECE, sc->stdio), PIECE);
    sc->sent += PIECE;
    return fflush(sc->stdio);
}

static intptr_t run_select_out(scene *sc) {
    int fd = pysock_fileno(sc->s);
    size_t count = 1;
    ptrdiff_t n = pysock_select(NULL, NULL, &fd, &count, NULL, NULL, sc->timeout);
    return n > 0 ? run_send(sc) : n == 0 ? timed_out() : n;
}

static intptr_t run_poll_out(scene *sc) {
    pysock_pollevent event;
    ptrdiff_t n = pysock_poller_poll(sc->poller, &event, 1, sc->timeout);
    return n > 0 ? run_send(sc) : n == 0 ? timed_out() : n;
}

/* ---- beginning and ending ---- */

static intptr_t run_accept(scene *sc) {
    pysock_addr peer;
    sc->child = pysock_accept(sc->s, &peer);
    return sc->child ? 0 : -1;
}

static intptr_t run_connect(scene *sc) {
    return pysock_connect(sc->s, sc->op->where == BACKLOG ? "127.0.0.1" : sc->name, sc->port);
}

static intptr_t run_connect_ex(scene *sc) {
    int rc = pysock_connect_ex(sc->s, "127.0.0.1", sc->port);
    errno = rc;
    return rc ? -1 : 0;
}

static intptr_t run_connect_addr(scene *sc) {
    return pysock_connect_addr(sc->s, &sc->addr);
}

static intptr_t run_create_connection(scene *sc) {
    sc->child = pysock_create_connection("127.0.0.1", sc->port, sc->timeout);
    return sc->child ? 0 : -1;
}

static intptr_t run_handshake(scene *sc) {
    return pysock_ssl_do_handshake(sc->s);
}

static intptr_t run_send_line(scene *sc) {
    return pysock_sendall(sc->s, line, LINE, 0);
}

static intptr_t run_unwrap(scene *sc) {
    return pysock_ssl_unwrap(sc->s);
}

static const op ops[] = {
    {"recv", IDLE, 0, run_recv, 0},
    {"recv_into", IDLE, 0, run_recv_into, 0},
    {"recvfrom", IDLE, 0, run_recvfrom, 0},
    {"recvmsg", IDLE, 0, run_recvmsg, 0},
    {"recv_buf", IDLE, 0, run_recv_buf, 0},
    {"recv_fds", IDLE, 0, run_recv_fds, 0},
    {"file_read", IDLE, 0, run_file_read, READ_FILE | PARTLY},
    {"file_readinto", IDLE, 0, run_file_readinto, READ_FILE | PARTLY},
    {"file_read1", IDLE, 0, run_file_read1, READ_FILE},
    {"file_readline", IDLE, 0, run_file_readline, READ_FILE | PARTLY},
    {"file_readlines", IDLE, 0, run_file_readlines, READ_FILE | PARTLY},
    {"file_readall", IDLE, 0, run_file_readall, READ_FILE | PARTLY},
    {"file_read, unbuffered", IDLE, 0, run_file_read, READ_RAW_FILE},
    {"fgets", IDLE, 0, run_fgets, READ_STDIO},
    {"select, readable", IDLE, 0, run_select_in, 0},
    {"poller, readable", IDLE, 0, run_poll_in, POLLED_IN},
    {"UDP recv", DATAGRAM, 0, run_recv, 0},
    {"UDP recv_into", DATAGRAM, 0, run_recv_into, 0},
    {"UDP recvfrom", DATAGRAM, 0, run_recvfrom, 0},
    {"UDP recvfrom_into", DATAGRAM, 0, run_recvfrom_into, 0},
    {"UDP recvmsg", DATAGRAM, 0, run_recvmsg, 0},
    {"UDP recvmsg_into", DATAGRAM, 0, run_recvmsg_into, 0},
    {"TLS recv", IDLE, 1, run_recv, 0},
    {"TLS recv_buf", IDLE, 1, run_recv_buf, 0},
    {"TLS file_read", IDLE, 1, run_file_read, READ_FILE | PARTLY},
    {"TLS file_readline", IDLE, 1, run_file_readline, READ_FILE | PARTLY},
    {"TLS fgets", IDLE, 1, run_fgets, READ_STDIO},
    {"TLS select, readable", IDLE, 1, run_select_in, 0},
    {"TLS poller, readable", IDLE, 1, run_poll_in, POLLED_IN},
    {"send", FULL, 0, run_send, 0},
    {"sendall", FULL, 0, run_sendall, LOSSY},
    {"sendmsg", FULL, 0, run_sendmsg, 0},
    {"send_buf", FULL, 0, run_send_buf, QUEUED},
    {"send_fds", FULL, 0, run_send_fds, 0},
    {"sendfile", FULL, 0, run_sendfile, FROM_DISK},
    {"file_write", FULL, 0, run_file_write, WRITE_FILE},
    {"file_write, unbuffered", FULL, 0, run_file_write, WRITE_RAW_FILE},
    {"file_flush", FULL, 0, run_file_flush, WRITE_FILE | BUFFERED},
    {"fflush", FULL, 0, run_fflush, WRITE_STDIO | LOSSY},
    {"select, writable", FULL, 0, run_select_out, 0},
    {"poller, writable", FULL, 0, run_poll_out, POLLED_OUT},
    {"message send", FULL_MESSAGES, 0, run_send, 0},
    {"message sendto", FULL_MESSAGES, 0, run_sendto, 0},
    {"message sendmsg", FULL_MESSAGES, 0, run_sendmsg, 0},
    {"TLS send", FULL, 1, run_send, 0},
    {"TLS sendall", FULL, 1, run_sendall, LOSSY},
    {"TLS send_buf", FULL, 1, run_send_buf, QUEUED},
    {"TLS sendfile", FULL, 1, run_sendfile, FROM_DISK},
    {"TLS file_write", FULL, 1, run_file_write, WRITE_FILE},
    {"TLS file_flush", FULL, 1, run_file_flush, WRITE_FILE | BUFFERED},
    {"TLS select, writable", FULL, 1, run_select_out, 0},
    {"TLS poller, writable", FULL, 1, run_poll_out, POLLED_OUT},
    {"accept", LISTENER, 0, run_accept, 0},
    {"TLS accept", LISTENER, 1, run_accept, 0},
    {"connect", BACKLOG, 0, run_connect, 0},
    {"connect_ex", BACKLOG, 0, run_connect_ex, 0},
    {"connect_addr", BACKLOG, 0, run_connect_addr, 0},
    {"create_connection", BACKLOG, 0, run_create_connection, 0},
    {"Unix connect", UNIX_BACKLOG, 0, run_connect, 0},
    {"handshake", SHAKING, 1, run_handshake, 0},
    {"server's handshake", SHAKING, 1, run_handshake, SERVER},
    {"recv in a handshake", SHAKING, 1, run_recv, 0},
    {"sendall in a handshake", SHAKING, 1, run_send_line, ONCE},
    {"unwrap", UNWRAPPING, 1, run_unwrap, 0},
};

enum { OPS = sizeof ops / sizeof ops[0] };

static scene scenes[OPS];

/* ---- setting a scene ---- */

/* Until the socket takes no more. */
static void fill_up(scene *sc) {
    ptrdiff_t n;
    T_OK(pysock_setblocking(sc->s, 0));
    while ((n = pysock_send(sc->s, bulk + sc->sent, PIECE, 0)) > 0) {
        sc->sent += (size_t)n;
        T_CHECK(sc->sent < BULK / 2);
    }
    T_EQ(errno, EAGAIN);
    if (sc->op->flags & QUEUED) {
        T_OK(pysock_set_watermarks(sc->s, 1, 1));
        T_OK(send_piece_buf(sc, 1));
    }
}

static void open_files(scene *sc) {
    int flags = sc->op->flags;
    if (flags & (READ_FILE | READ_RAW_FILE))
        sc->file = T_OK(pysock_makefile(sc->s, "r", flags & READ_FILE ? -1 : 0));
    if (flags & (WRITE_FILE | WRITE_RAW_FILE))
        sc->file = T_OK(pysock_makefile(sc->s, "w", flags & WRITE_FILE ? -1 : 0));
    if (flags & BUFFERED) {
        T_EQ(pysock_file_write(sc->file, bulk + sc->sent, PIECE, NULL), PIECE);
        sc->sent += PIECE;
    }
    if (flags & (READ_STDIO | WRITE_STDIO))
        sc->stdio = T_OK(pysock_fdopen(sc->s, flags & READ_STDIO ? "r" : "w"));
    if (flags & FROM_DISK) {
        sc->disk = memfd_create("pysock-test", MFD_CLOEXEC);
        T_CHECK(sc->disk >= 0);
        T_EQ(write(sc->disk, bulk, BULK), BULK);
        T_EQ(lseek(sc->disk, (off_t)sc->sent, SEEK_SET), sc->sent);
    }
    if (flags & (POLLED_IN | POLLED_OUT))
        sc->poller = t_poller_with(pysock_fileno(sc->s), flags & POLLED_IN ? POLLIN : POLLOUT);
}

static void set_connected(scene *sc) {
    pysock *pair[2];
    int type = sc->op->where == FULL_MESSAGES ? SOCK_DGRAM : SOCK_STREAM;
    if (sc->op->tls && sc->op->where != SHAKING)
        t_tls_local_pair(pair, client_ctx, server_ctx);
    else
        T_OK(pysock_socketpair(AF_UNIX, type, 0, pair));
    sc->s = pair[0];
    sc->peer = pair[1];
    if (sc->op->where == FULL_MESSAGES) {
        T_OK(pysock_bind(sc->peer, "", 0));
        T_OK(pysock_getsockname(sc->peer, &sc->addr));
    }
    if (sc->op->where == FULL || sc->op->where == FULL_MESSAGES)
        fill_up(sc);
    if (sc->op->where == SHAKING)
        t_wrap_later(sc->s, sc->op->flags & SERVER ? server_ctx : client_ctx,
                     sc->op->flags & SERVER ? NULL : "localhost");
    if (sc->op->flags & PARTLY)
        T_OK(pysock_sendall(sc->peer, line, 2, 0));
}

/* A Unix listener with a full queue; fds as t_silent_port() has them. */
static void set_unix_backlog(scene *sc) {
    static int number;
    pysock_addr addr;
    snprintf(sc->name, sizeof sc->name, "@pysock-test-hooks-%ld-%d", (long)getpid(), number++);
    T_OK(pysock_addr_resolve(&addr, AF_UNIX, sc->name, 0));
    sc->fds[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sc->fds[1] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    T_EQ(bind(sc->fds[0], &addr.u.sa, addr.len), 0);
    T_EQ(listen(sc->fds[0], 0), 0);
    T_EQ(connect(sc->fds[1], &addr.u.sa, addr.len), 0);
    sc->s = T_OK(pysock_socket(AF_UNIX, SOCK_STREAM, 0));
}

static void set_scene(scene *sc, const op *what, double timeout) {
    memset(sc, 0, sizeof *sc);
    sc->op = what;
    sc->timeout = timeout;
    sc->fds[0] = sc->fds[1] = sc->disk = -1;
    T_STEP("setting %s", what->name);
    switch (what->where) {
    case DATAGRAM:
        sc->s = udp_on_loopback(&sc->addr);
        sc->peer = T_OK(pysock_socket(AF_INET, SOCK_DGRAM, 0));
        T_OK(pysock_connect_addr(sc->peer, &sc->addr));
        break;
    case LISTENER: /* on an address of its own: nobody else connects there by mistake */
        snprintf(sc->name, sizeof sc->name, "127.99.%ld.%ld", (long)getpid() / 250 % 250,
                 1 + (long)getpid() % 250);
        sc->s = T_OK(pysock_create_server(sc->name, 0, 5));
        T_OK(pysock_getsockname(sc->s, &sc->addr));
        if (what->tls)
            T_OK(pysock_ssl_wrap_socket(sc->s, server_ctx, NULL));
        break;
    case BACKLOG:
        sc->port = t_silent_port(sc->fds);
        T_OK(pysock_addr_resolve(&sc->addr, AF_INET, "127.0.0.1", sc->port));
        sc->s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
        break;
    case UNIX_BACKLOG:
        set_unix_backlog(sc);
        break;
    default:
        set_connected(sc);
        break;
    }
    T_OK(pysock_settimeout(sc->s, timeout));
    open_files(sc);
}

/* ---- what the call waits for ---- */

static void *drain_thread(void *arg) {
    scene *sc = arg;
    static __thread unsigned char buf[65536];
    ptrdiff_t n;
    while ((n = T_OK(pysock_recv(sc->peer, buf, sizeof buf, 0))) > 0) {
        T_CHECK(sc->drained + (size_t)n <= BULK);
        T_EQ(memcmp(buf, bulk + sc->drained, (size_t)n), 0);
        sc->drained += (size_t)n;
    }
    return NULL;
}

static void satisfy(scene *sc) {
    T_STEP("satisfying %s", sc->op->name);
    switch (sc->op->where) {
    case IDLE:
        t_say(sc->peer, sc->op->flags & PARTLY ? line + 2 : line);
        T_OK(pysock_shutdown(sc->peer, SHUT_WR));
        break;
    case DATAGRAM:
        t_say(sc->peer, line);
        break;
    case FULL:
    case FULL_MESSAGES:
        t_spawn(&sc->drain, drain_thread, sc);
        sc->draining = 1;
        break;
    case LISTENER:
        sc->peer = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
        T_OK(pysock_connect(sc->peer, sc->name, pysock_addr_port(&sc->addr)));
        break;
    case BACKLOG:
    case UNIX_BACKLOG:
        close(sc->fds[1]);
        sc->fds[1] = t_raw_accept(sc->fds[0]);
        break;
    case SHAKING:
        T_OK(pysock_ssl_wrap_socket(sc->peer, sc->op->flags & SERVER ? client_ctx : server_ctx,
                                    sc->op->flags & SERVER ? "localhost" : NULL));
        t_say(sc->peer, line);
        break;
    case UNWRAPPING:
        T_EQ(pysock_ssl_unwrap(sc->peer), 0);
        break;
    }
}

/* A writer is done: the peer has everything, and nothing else. */
static void check_all_has_arrived(scene *sc) {
    if (sc->file) {
        T_OK(pysock_file_close(sc->file));
        sc->file = NULL;
    }
    T_OK(pysock_settimeout(sc->s, PYSOCK_NO_TIMEOUT));
    if (sc->op->where == FULL_MESSAGES)
        T_EQ(pysock_send(sc->s, "", 0, 0), 0);
    else
        T_OK(pysock_shutdown(sc->s, SHUT_WR));
    t_join(&sc->drain);
    sc->draining = 0;
    T_EQ(sc->drained, sc->sent);
}

/* The call has ended well. */
static void check_success(scene *sc) {
    T_STEP("checking %s", sc->op->name);
    if (sc->result < 0)
        T_FAIL("%s failed: errno %d (%s)", sc->op->name, sc->code, strerror(sc->code));
    switch (sc->op->where) {
    case IDLE:
    case DATAGRAM:
        T_EQ(sc->have, LINE);
        T_EQ(memcmp(sc->got, line, LINE), 0);
        break;
    case FULL:
    case FULL_MESSAGES:
        check_all_has_arrived(sc);
        break;
    case LISTENER:
        T_CHECK(sc->child != NULL);
        break;
    case BACKLOG:
    case UNIX_BACKLOG: {
        pysock *s = sc->child ? sc->child : sc->s;
        int fd = t_raw_accept(sc->fds[0]);
        char buf[LINE];
        t_say(s, line);
        T_EQ(t_raw_read(fd, buf, LINE), LINE);
        close(fd);
        break;
    }
    case SHAKING:
        if (sc->op->run == run_recv)
            T_EQ(memcmp(sc->got, line, LINE), 0);
        else
            t_expect(sc->s, line);
        if (sc->op->run == run_send_line)
            t_expect(sc->peer, line);
        break;
    case UNWRAPPING:
        T_EQ(pysock_is_ssl(sc->s), 0);
        t_echo_once(sc->s, sc->peer);
        break;
    }
}

static void clear_scene(scene *sc) {
    T_OK(pysock_setblocking(sc->s, 0)); /* files do not wait for what nobody reads */
    (void)pysock_file_close(sc->file);
    if (sc->stdio)
        (void)fclose(sc->stdio);
    pysock_poller_free(sc->poller);
    T_OK(pysock_close(sc->child));
    T_OK(pysock_close(sc->s));
    T_OK(pysock_close(sc->peer));
    if (sc->draining)
        t_join(&sc->drain);
    for (int i = 0; i < 2; i++)
        if (sc->fds[i] >= 0)
            close(sc->fds[i]);
    if (sc->disk >= 0)
        close(sc->disk);
}

/* ---- the threads, and who disturbs them ---- */

static __thread scene *my_scene;

/* The hook, too, may use the library. */
static int interrupt_hook(void *arg) {
    if (my_scene) {
        T_CHECK(pysock_gettimeout(my_scene->s) == my_scene->timeout);
        __atomic_add_fetch(&my_scene->asked, 1, __ATOMIC_ACQ_REL);
    }
    return *(int *)arg;
}

static int stop = 1, go_on = 0; /* what it answers */

static void *scene_thread(void *arg) {
    scene *sc = arg;
    double start = t_now();
    my_scene = sc;
    sc->result = sc->op->run(sc);
    sc->code = errno;
    sc->took = t_now() - start;
    __atomic_store_n(&sc->ended, 1, __ATOMIC_RELEASE);
    return NULL;
}

static int has_ended(scene *sc) {
    return __atomic_load_n(&sc->ended, __ATOMIC_ACQUIRE);
}

static void begin_scene(scene *sc) {
    sc->ended = sc->asked = 0;
    t_spawn(&sc->thread, scene_thread, sc);
}

static void begin_all(double timeout) {
    if (!bulk) {
        bulk = malloc(BULK);
        T_CHECK(bulk != NULL);
        t_fill(bulk, BULK, 0, 1);
    }
    t_catch_signal(SIGUSR1);
    for (int i = 0; i < OPS; i++)
        set_scene(&scenes[i], &ops[i], timeout);
    for (int i = 0; i < OPS; i++)
        begin_scene(&scenes[i]);
}

/* A signal for each of those that wait; returns how many there are. */
static int disturb_all(void) {
    int n = 0;
    for (int i = 0; i < OPS; i++)
        if (!has_ended(&scenes[i])) {
            T_EQ(pthread_kill(scenes[i].thread.id, SIGUSR1), 0);
            n++;
        }
    t_nap(0.02);
    return n;
}

/* Without a hook nobody knows which signals interrupt; with one each call is, three times. */
static void disturb_until_each_was_asked(int hooked) {
    int least;
    do {
        least = 3;
        (void)disturb_all();
        for (int i = 0; i < OPS && hooked; i++) {
            int asked = __atomic_load_n(&scenes[i].asked, __ATOMIC_ACQUIRE);
            if (has_ended(&scenes[i]))
                asked = least; /* it should not have; that is told in a moment */
            if (asked < least)
                T_STEP("waiting for %s to be interrupted", scenes[i].op->name);
            least = asked < least ? asked : least;
        }
    } while (least < 3);
    for (int i = 0; i < 10; i++)
        (void)disturb_all();
}

T_TEST(an_interrupted_call_goes_on_where_the_hook_does_not_mind, T_SCALE(120, 240)) {
    for (int round = 0; round < 4; round++) {
        int hooked = round & 1;
        begin_all(round & 2 ? 50 : PYSOCK_NO_TIMEOUT);
        T_STEP("round %d", round);
        pysock_set_interrupt_hook(hooked ? interrupt_hook : NULL, &go_on);
        disturb_until_each_was_asked(hooked);
        for (int i = 0; i < OPS; i++)
            if (has_ended(&scenes[i]))
                T_FAIL("%s ended by itself: %ld, errno %d (%s)", ops[i].name,
                       (long)scenes[i].result, scenes[i].code, strerror(scenes[i].code));
        for (int i = 0; i < OPS; i++)
            satisfy(&scenes[i]);
        for (int i = 0; i < OPS; i++) {
            T_STEP("waiting for %s", ops[i].name);
            t_join(&scenes[i].thread);
        }
        pysock_set_interrupt_hook(NULL, NULL);
        for (int i = 0; i < OPS; i++)
            check_success(&scenes[i]);
        for (int i = 0; i < OPS; i++)
            clear_scene(&scenes[i]);
    }
}

/* One deadline in all, however often the call is interrupted. */
T_TEST(an_interrupted_call_keeps_its_deadline, T_SCALE(60, 120)) {
    for (int hooked = 0; hooked < 2; hooked++) {
        pysock_set_interrupt_hook(hooked ? interrupt_hook : NULL, &go_on);
        begin_all(0.5);
        T_STEP("%s hook", hooked ? "with a" : "without a");
        while (disturb_all())
            for (int i = 0; i < OPS; i++)
                if (!has_ended(&scenes[i]))
                    T_STEP("waiting for %s", ops[i].name);
        for (int i = 0; i < OPS; i++)
            t_join(&scenes[i].thread);
        for (int i = 0; i < OPS; i++) {
            scene *sc = &scenes[i];
            if (sc->result != -1 || sc->code != ETIMEDOUT)
                T_FAIL("%s gave %ld, errno %d (%s)", ops[i].name, (long)sc->result, sc->code,
                       strerror(sc->code));
            if (sc->took < 0.49 || sc->took > 20)
                T_FAIL("%s took %.3f s", ops[i].name, sc->took);
            T_CHECK(!hooked || sc->asked > 0);
        }
        pysock_set_interrupt_hook(NULL, NULL);
        for (int i = 0; i < OPS; i++)
            clear_scene(&scenes[i]);
    }
}

static void check_interrupted(const scene *sc) {
    if (sc->result != -1 || sc->code != EINTR)
        T_FAIL("%s gave %ld, errno %d (%s)", sc->op->name, (long)sc->result, sc->code,
               strerror(sc->code));
    T_CHECK(sc->asked == 1); /* its answer was final */
}

/* What an interrupted sendall() has sent is some of it, in order. */
static void check_some_has_arrived(scene *sc) {
    satisfy(sc);
    T_OK(pysock_settimeout(sc->s, PYSOCK_NO_TIMEOUT));
    T_OK(pysock_shutdown(sc->s, SHUT_WR));
    t_join(&sc->drain);
    sc->draining = 0;
    T_CHECK(sc->drained > 0 && sc->drained <= sc->sent);
}

T_TEST(an_interrupted_call_ends_where_the_hook_says_so_and_nothing_is_lost, T_SCALE(120, 240)) {
    for (int round = 0; round < 2; round++) {
        pysock_set_interrupt_hook(interrupt_hook, &stop);
        begin_all(round ? 50 : PYSOCK_NO_TIMEOUT);
        T_STEP("round %d", round);
        while (disturb_all())
            for (int i = 0; i < OPS; i++)
                if (!has_ended(&scenes[i]))
                    T_STEP("waiting for %s", ops[i].name);
        for (int i = 0; i < OPS; i++)
            t_join(&scenes[i].thread);
        pysock_set_interrupt_hook(NULL, NULL);
        for (int i = 0; i < OPS; i++)
            check_interrupted(&scenes[i]);
        T_STEP("once more");
        for (int i = 0; i < OPS; i++)
            if (!(ops[i].flags & (LOSSY | ONCE)))
                begin_scene(&scenes[i]);
        for (int i = 0; i < OPS; i++) {
            if (ops[i].flags & ONCE)
                continue;
            if (ops[i].flags & LOSSY) {
                check_some_has_arrived(&scenes[i]);
                continue;
            }
            satisfy(&scenes[i]);
            T_STEP("waiting for %s once more", ops[i].name);
            t_join(&scenes[i].thread);
            check_success(&scenes[i]);
        }
        for (int i = 0; i < OPS; i++)
            clear_scene(&scenes[i]);
    }
}

/* The hook's answer is read from the thread's own error, in Python's words. */
T_TEST(an_interrupted_call_says_so, 30) {
    struct itimerval soon = {{0, 20000}, {0, 20000}}, never = {{0, 0}, {0, 0}};
    pysock *pair[2];
    char byte;
    t_catch_signal(SIGALRM);
    t_pair(pair);
    pysock_set_interrupt_hook(interrupt_hook, &stop);
    T_EQ(setitimer(ITIMER_REAL, &soon, NULL), 0); /* again and again: one may come too early */
    T_FAILS(pysock_recv(pair[0], &byte, 1, 0), PYSOCK_OS_ERROR, EINTR);
    T_EQ(setitimer(ITIMER_REAL, &never, NULL), 0);
    pysock_set_interrupt_hook(NULL, NULL);
    expect_text(pysock_error_name(), "InterruptedError");
    expect_text(pysock_error_reason(), "EINTR");
    T_CHECK(strstr(pysock_error_message(), "recv") != NULL);
    t_say(pair[1], "x");
    t_expect(pair[0], "x");
    t_close_pair(pair);
}

/* A timer of the process, as alarm() is one: its signal finds the thread that waits, and none of
   the library's. */
T_TEST(a_timer_changes_no_deadline, 60) {
    struct itimerval soon = {{0, 20000}, {0, 20000}}, never = {{0, 0}, {0, 0}};
    t_catch_signal(SIGALRM);
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2], *other[2];
        double start;
        char byte;
        if (tls)
            t_tls_pair(pair, client_ctx, server_ctx);
        else
            t_pair(pair);
        nonblocking_pair(other); /* the library has a thread now */
        T_OK(pysock_settimeout(pair[0], 0.4));
        T_EQ(setitimer(ITIMER_REAL, &soon, NULL), 0);
        start = t_now();
        T_FAILS(pysock_recv(pair[0], &byte, 1, 0), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
        T_EQ(setitimer(ITIMER_REAL, &never, NULL), 0);
        T_CHECK(t_now() - start >= 0.39);
        T_CHECK(t_now() - start < 20);
        t_close_pair(other);
        t_close_pair(pair);
    }
}

static int taken_elsewhere; /* atomic */

static void note_thread(int number) {
    (void)number;
    __atomic_store_n(&taken_elsewhere, 1, __ATOMIC_RELEASE);
}

/* A signal that all of the program's threads block stays pending. */
T_TEST(the_librarys_own_threads_take_no_signal, 30) {
    struct sigaction action;
    struct timespec no_time = {0, 0};
    pysock *pair[2];
    sigset_t one, before, pending;
    memset(&action, 0, sizeof action);
    action.sa_handler = note_thread;
    T_EQ(sigaction(SIGUSR2, &action, NULL), 0);
    nonblocking_pair(pair); /* its thread takes over nothing of this one's mask */
    sigemptyset(&one);
    sigaddset(&one, SIGUSR2);
    T_EQ(pthread_sigmask(SIG_BLOCK, &one, &before), 0);
    T_EQ(kill(getpid(), SIGUSR2), 0);
    t_echo_once(pair[0], pair[1]);
    T_EQ(sigpending(&pending), 0);
    T_EQ(sigismember(&pending, SIGUSR2), 1);
    T_EQ(sigtimedwait(&one, NULL, &no_time), SIGUSR2);
    T_EQ(pthread_sigmask(SIG_SETMASK, &before, NULL), 0);
    T_EQ(taken_elsewhere, 0);
    t_close_pair(pair);
}

/* ---- states ---- */

typedef struct waiting {
    pysock_state *in;
    t_stage stage;
    t_thread thread;
} waiting;

static const struct {
    t_wait_kind what;
    int tls;
    double timeout;
} waits[] = {{T_WAIT_RECV, 0, PYSOCK_NO_TIMEOUT},    {T_WAIT_RECV, 0, 60},
             {T_WAIT_RECV, 1, PYSOCK_NO_TIMEOUT},    {T_WAIT_RECV, 1, 60},
             {T_WAIT_ACCEPT, 0, PYSOCK_NO_TIMEOUT},  {T_WAIT_ACCEPT, 1, 60},
             {T_WAIT_CONNECT, 0, PYSOCK_NO_TIMEOUT}, {T_WAIT_CONNECT, 1, 60},
             {T_WAIT_HANDSHAKE, 1, PYSOCK_NO_TIMEOUT}, {T_WAIT_SENDALL, 0, PYSOCK_NO_TIMEOUT},
             {T_WAIT_SENDALL, 1, PYSOCK_NO_TIMEOUT}, {T_WAIT_SEND_BUF, 0, 60},
             {T_WAIT_UNWRAP, 1, PYSOCK_NO_TIMEOUT},  {T_WAIT_SELECT, 0, PYSOCK_NO_TIMEOUT},
             {T_WAIT_SELECT, 1, PYSOCK_NO_TIMEOUT},  {T_WAIT_POLLER, 0, PYSOCK_NO_TIMEOUT},
             {T_WAIT_POLLER, 1, PYSOCK_NO_TIMEOUT}};
enum { WAITS = sizeof waits / sizeof waits[0] };

static void *waiting_thread(void *arg) {
    waiting *w = arg;
    T_CHECK(pysock_state_swap(w->in) == NULL); /* every thread begins in the main one */
    return t_wait_thread(&w->stage.w);
}

/* Every kind of wait, in a state of its own. */
static void begin_waits(waiting list[WAITS], pysock_state *in) {
    pysock_state *before = pysock_state_swap(in);
    (void)t_flood();
    for (int i = 0; i < WAITS; i++) {
        T_STEP("wait %d", i);
        list[i].in = in;
        t_stage_set(&list[i].stage, waits[i].what, waits[i].tls, waits[i].timeout, client_ctx,
                    server_ctx);
        t_spawn(&list[i].thread, waiting_thread, &list[i]);
        t_wait_asleep(&list[i].thread);
    }
    T_CHECK(pysock_state_swap(before) == in);
}

static void expect_asleep(waiting list[WAITS]) {
    for (int i = 0; i < WAITS; i++) {
        T_STEP("wait %d goes on", i);
        t_wait_asleep(&list[i].thread);
        T_CHECK(pysock_fileno(list[i].stage.w.s) >= 0);
    }
}

static void expect_ended(waiting list[WAITS]) {
    for (int i = 0; i < WAITS; i++) {
        const t_waiter *w = &list[i].stage.w;
        T_STEP("wait %d has ended", i);
        t_join(&list[i].thread);
        if (w->result != -1 || w->code != ESHUTDOWN || w->kind != PYSOCK_OS_ERROR)
            T_FAIL("wait %d gave %ld, errno %d, kind %d", i, (long)w->result, w->code,
                   (int)w->kind);
        T_FAILS(pysock_fileno(w->s), PYSOCK_OS_ERROR, EBADF);
        t_stage_clear(&list[i].stage);
    }
}

static void work_a_little(void) {
    pysock *pair[2];
    t_pair(pair);
    t_echo_once(pair[0], pair[1]);
    t_close_pair(pair);
    nonblocking_pair(pair);
    t_echo_once(pair[0], pair[1]);
    t_close_pair(pair);
}

static void work_a_little_in(pysock_state *st) {
    pysock_state *before = pysock_state_swap(st);
    work_a_little();
    T_CHECK(pysock_state_swap(before) == st);
}

T_TEST(states_are_swapped_by_thread, 30) {
    pysock_state *a = T_OK(pysock_state_new()), *b = T_OK(pysock_state_new());
    T_CHECK(a != b);
    T_CHECK(pysock_state_swap(a) == NULL);
    T_CHECK(pysock_state_swap(b) == a);
    T_CHECK(pysock_state_swap(b) == b);
    T_CHECK(pysock_state_swap(NULL) == b);
    T_CHECK(pysock_state_swap(NULL) == NULL);
    pysock_state_free(a);
    pysock_state_free(b);
}

T_TEST(cleanup_of_a_state_ends_its_waits_and_nobody_elses, 120) {
    static waiting here[WAITS], there[WAITS];
    pysock_state *st = T_OK(pysock_state_new());
    begin_waits(here, NULL);
    begin_waits(there, st);
    T_STEP("cleanup of the state");
    pysock_state_cleanup(st);
    expect_ended(there);
    expect_asleep(here);
    T_STEP("the state and its siblings can be used after it");
    work_a_little_in(st);
    work_a_little();
    begin_waits(there, st);
    expect_asleep(here);
    T_STEP("cleanup of all");
    pysock_cleanup();
    expect_ended(there);
    expect_ended(here);
    work_a_little_in(st);
    work_a_little();
    pysock_state_free(st);
    work_a_little();
}

T_TEST(cleanup_of_the_main_state_leaves_the_others, 120) {
    static waiting here[WAITS], there[WAITS];
    pysock_state *st = T_OK(pysock_state_new());
    begin_waits(here, NULL);
    begin_waits(there, st);
    pysock_state_cleanup(NULL);
    expect_ended(here);
    expect_asleep(there);
    work_a_little();
    T_STEP("freeing the state cleans it up");
    pysock_state_free(st);
    expect_ended(there);
    work_a_little();
}

T_TEST(timeouts_belong_to_a_state, 30) {
    pysock_state *st = T_OK(pysock_state_new());
    pysock *s;
    T_OK(pysock_setdefaulttimeout(7));
    (void)pysock_state_swap(st);
    T_CHECK(pysock_getdefaulttimeout() == PYSOCK_NO_TIMEOUT);
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_CHECK(pysock_gettimeout(s) == PYSOCK_NO_TIMEOUT);
    T_OK(pysock_close(s));
    T_OK(pysock_setdefaulttimeout(3));
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_CHECK(pysock_gettimeout(s) == 3);
    T_OK(pysock_close(s));
    (void)pysock_state_swap(NULL);
    T_CHECK(pysock_getdefaulttimeout() == 7);
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_CHECK(pysock_gettimeout(s) == 7);
    T_OK(pysock_close(s));
    T_OK(pysock_setdefaulttimeout(PYSOCK_NO_TIMEOUT));
    pysock_state_free(st);
}

T_TEST(audit_hooks_belong_to_a_state, 30) {
    pysock_state *st = T_OK(pysock_state_new());
    pysock *s;
    (void)pysock_state_swap(st);
    watch("socket.__new__");
    T_FAILS(pysock_socket(AF_INET, SOCK_STREAM, 0), PYSOCK_OS_ERROR, EACCES);
    (void)pysock_state_swap(NULL);
    T_EQ(tale_length, 1);
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_bind(s, "localhost", 0));
    T_OK(pysock_close(s));
    T_EQ(tale_length, 1);
    T_STEP("taking away the one leaves the other");
    unwatch();
    (void)pysock_state_swap(st);
    T_FAILS(pysock_socket(AF_INET, SOCK_STREAM, 0), PYSOCK_OS_ERROR, EACCES);
    unwatch();
    T_OK(pysock_close(T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0))));
    (void)pysock_state_swap(NULL);
    pysock_state_free(st);
}

/* A name that is looked up on another thread is told to the hook of the socket's state. */
T_TEST(a_connect_by_name_is_told_in_its_own_state, 30) {
    pysock_state *st = T_OK(pysock_state_new());
    int port;
    pysock *listener, *s;
    listener = t_listen(&port);
    (void)pysock_state_swap(st);
    watch("socket.connect");
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_settimeout(s, 30));
    T_FAILS(pysock_connect(s, "localhost", port), PYSOCK_OS_ERROR, EACCES);
    expect_denied("socket.connect");
    T_OK(pysock_close(s));
    (void)pysock_state_swap(NULL);
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_settimeout(s, 30));
    T_OK(pysock_connect(s, "localhost", port));
    T_EQ(times_told("socket.connect"), 1);
    T_OK(pysock_close(s));
    T_OK(pysock_close(listener));
    pysock_state_free(st);
}

typedef struct reader {
    pysock_state *in;
    pysock *s;
    int code;
    int ended; /* atomic */
} reader;

static void *reader_thread(void *arg) {
    reader *r = arg;
    char byte;
    (void)pysock_state_swap(r->in);
    r->code = pysock_recv(r->s, &byte, 1, 0) == 1 ? 0 : errno;
    __atomic_store_n(&r->ended, 1, __ATOMIC_RELEASE);
    return NULL;
}

T_TEST(interrupt_hooks_belong_to_a_state, 30) {
    pysock_state *st = T_OK(pysock_state_new());
    reader here, there;
    pysock *mine[2], *its[2];
    t_thread t[2];
    t_catch_signal(SIGUSR1);
    memset(&here, 0, sizeof here);
    memset(&there, 0, sizeof there);
    t_pair(mine);
    (void)pysock_state_swap(st);
    t_pair(its);
    pysock_set_interrupt_hook(interrupt_hook, &stop);
    (void)pysock_state_swap(NULL);
    here.s = mine[0];
    there.s = its[0];
    there.in = st;
    t_spawn(&t[0], reader_thread, &here);
    t_spawn(&t[1], reader_thread, &there);
    for (int i = 0; i < 2; i++)
        t_wait_asleep(&t[i]);
    while (!__atomic_load_n(&there.ended, __ATOMIC_ACQUIRE)) {
        T_EQ(pthread_kill(t[0].id, SIGUSR1), 0);
        T_EQ(pthread_kill(t[1].id, SIGUSR1), 0);
        t_nap(0.02);
    }
    t_join(&t[1]);
    T_EQ(there.code, EINTR);
    t_wait_asleep(&t[0]);
    t_say(mine[1], "x");
    t_join(&t[0]);
    T_EQ(here.code, 0);
    t_close_pair(mine);
    t_close_pair(its);
    pysock_state_free(st);
}

/* A check that fails in a closer would leave the cleanup undone: what is wrong is told after it. */
static char called[32];
static pysock_state *expected_state;
static int wrong_states;

static void note_call(void *arg) {
    size_t n = strlen(called);
    pysock_state *now = pysock_state_swap(NULL);
    (void)pysock_state_swap(now);
    wrong_states += now != expected_state;
    T_CHECK(n + 1 < sizeof called);
    called[n] = *(const char *)arg;
    called[n + 1] = 0;
    work_a_little(); /* everything still works */
}

T_TEST(closers_belong_to_a_state_and_run_in_it, 60) {
    static char a[] = "a", b[] = "b", c[] = "c", m[] = "m";
    pysock_state *st = T_OK(pysock_state_new());
    memset(called, 0, sizeof called);
    wrong_states = 0;
    T_OK(pysock_register_closer(note_call, m));
    (void)pysock_state_swap(st);
    T_OK(pysock_register_closer(note_call, a));
    T_OK(pysock_register_closer(note_call, b));
    T_OK(pysock_register_closer(note_call, c));
    T_OK(pysock_unregister_closer(note_call, m)); /* another state's: it stays */
    (void)pysock_state_swap(NULL);
    T_OK(pysock_unregister_closer(note_call, b));
    expected_state = st;
    pysock_state_cleanup(st);
    expect_text(called, "cba");
    pysock_state_cleanup(st);
    expect_text(called, "cba");
    T_STEP("the main one");
    expected_state = NULL;
    pysock_state_cleanup(NULL);
    expect_text(called, "cbam");
    T_STEP("free runs them too");
    memset(called, 0, sizeof called);
    (void)pysock_state_swap(st);
    T_OK(pysock_register_closer(note_call, a));
    (void)pysock_state_swap(NULL);
    expected_state = st;
    pysock_state_free(st);
    expect_text(called, "a");
    T_EQ(wrong_states, 0);
}

/* The general cleanup runs the closers of all states, each with its own current. */
static void note_state(void *arg) {
    pysock_state **slot = arg;
    *slot = pysock_state_swap(NULL);
    (void)pysock_state_swap(*slot);
}

T_TEST(cleanup_runs_the_closers_of_every_state, 60) {
    static char marker;
    pysock_state *none = (pysock_state *)(void *)&marker, *seen[3] = {none, none, none};
    pysock_state *st[2] = {T_OK(pysock_state_new()), T_OK(pysock_state_new())};
    T_OK(pysock_register_closer(note_state, &seen[0]));
    for (int i = 0; i < 2; i++) {
        (void)pysock_state_swap(st[i]);
        T_OK(pysock_register_closer(note_state, &seen[i + 1]));
    }
    (void)pysock_state_swap(NULL);
    pysock_cleanup();
    T_CHECK(seen[0] == NULL);
    T_CHECK(seen[1] == st[0]);
    T_CHECK(seen[2] == st[1]);
    pysock_state_free(st[0]);
    pysock_state_free(st[1]);
}

T_TEST(cleanup_of_a_state_closes_its_sockets_and_nobody_elses, 60) {
    pysock_state *st = T_OK(pysock_state_new());
    pysock *mine[2], *shaken[2], *its[4][2];
    pysock_poller *p;
    pysock_pollevent event;
    int fds;
    t_pair(mine);
    nonblocking_pair(shaken);
    work_a_little_in(st);
    fds = settled(t_count_fds);
    (void)pysock_state_swap(st);
    t_pair(its[0]);
    t_tls_pair(its[1], client_ctx, server_ctx);
    nonblocking_pair(its[2]);
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, its[3]));
    p = t_poller_with(pysock_fileno(its[0][0]), POLLIN);
    (void)pysock_state_swap(NULL);
    pysock_state_cleanup(st);
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 2; k++) {
            T_FAILS(pysock_send(its[i][k], "x", 1, 0), PYSOCK_OS_ERROR, EBADF);
            T_EQ(pysock_close(its[i][k]), 0);
        }
    T_EQ(pysock_poller_poll(p, &event, 1, PYSOCK_NO_TIMEOUT), 1);
    T_EQ(event.events, POLLNVAL);
    pysock_poller_free(p);
    expect_at_most(t_count_fds, fds, "descriptors");
    t_echo_once(mine[0], mine[1]);
    t_echo_once(shaken[0], shaken[1]);
    t_close_pair(mine);
    t_close_pair(shaken);
    pysock_state_free(st);
}

/* Handshakes that the reactor does for one state do not suffer from another's end. */
T_TEST(cleanup_of_a_state_in_the_middle_of_handshakes, 120) {
    for (int round = 0; round < T_SCALE(40, 10); round++) {
        pysock_state *st = T_OK(pysock_state_new());
        pysock *pairs[2][2];
        T_STEP("round %d", round);
        for (int k = 0; k < 2; k++) {
            (void)pysock_state_swap(k ? st : NULL);
            T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pairs[k]));
            for (int i = 0; i < 2; i++) {
                T_OK(pysock_setblocking(pairs[k][i], 0));
                T_OK(pysock_ssl_wrap_socket(pairs[k][i], i ? server_ctx : client_ctx,
                                            i ? NULL : "localhost"));
            }
        }
        (void)pysock_state_swap(NULL);
        if (round & 1)
            pysock_state_cleanup(st);
        pysock_state_free(st);
        T_FAILS(pysock_ssl_do_handshake(pairs[1][0]), PYSOCK_OS_ERROR, EBADF);
        for (int i = 0; i < 2; i++) {
            T_EQ(t_writable(pairs[0][i], PYSOCK_NO_TIMEOUT), 1);
            T_EQ(pysock_ssl_do_handshake(pairs[0][i]), 0);
        }
        t_echo_once(pairs[0][0], pairs[0][1]);
        t_close_pair(pairs[0]);
    }
}

typedef struct interpreter {
    int is_main, rounds;
} interpreter;

static void *interpreter_thread(void *arg) {
    const interpreter *me = arg;
    pysock_state *st = me->is_main ? NULL : T_OK(pysock_state_new());
    T_CHECK(pysock_state_swap(st) == NULL);
    for (int round = 0; round < me->rounds; round++) {
        pysock *left_open[2], *listener, *s;
        int port;
        work_a_little();
        nonblocking_pair(left_open);
        listener = t_listen(&port);
        s = T_OK(pysock_create_connection("localhost", port, 30));
        T_OK(pysock_close(s));
        T_OK(pysock_close(listener));
        if (me->is_main) {
            t_close_pair(left_open);
            continue;
        }
        pysock_state_cleanup(st);
        T_FAILS(pysock_send(left_open[0], "x", 1, 0), PYSOCK_OS_ERROR, EBADF);
        if (round % 4 == 3) {
            (void)pysock_state_swap(NULL);
            pysock_state_free(st);
            st = T_OK(pysock_state_new());
            (void)pysock_state_swap(st);
        }
    }
    (void)pysock_state_swap(NULL);
    if (st)
        pysock_state_free(st);
    return NULL;
}

T_TEST(interpreters_come_and_go_without_noticing_each_other, T_SCALE(60, 180)) {
    enum { N = 5 };
    t_thread threads[N];
    interpreter who[N];
    int fds;
    work_a_little();
    pysock_cleanup();
    fds = settled(t_count_fds);
    for (int i = 0; i < N; i++) {
        who[i].is_main = i < 2;
        who[i].rounds = T_SCALE(40, 12);
        t_spawn(&threads[i], interpreter_thread, &who[i]);
    }
    for (int i = 0; i < N; i++)
        t_join(&threads[i]);
    pysock_cleanup();
    expect_at_most(t_count_fds, fds, "descriptors");
    work_a_little();
}

/* What a failed test leaves is not for the next one. */
static int forget_hooks(void **state) {
    (void)state;
    (void)pysock_state_swap(NULL);
    pysock_set_audit_hook(NULL, NULL);
    pysock_set_interrupt_hook(NULL, NULL);
    return 0;
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts, .each_teardown = forget_hooks)
