/* How connections come about: create_connection and create_server with all their options, and what
   becomes of a socket whose connect was refused, took too long, or was the second one. */
#include "support/contexts.h"

/* ---- helpers ---- */

/* This end's address, and the other's, without the port. */
static void host_of(const pysock_addr *addr, char text[PYSOCK_ADDR_STRLEN]) {
    char *colon;
    pysock_addr_format(addr, text, PYSOCK_ADDR_STRLEN);
    colon = strrchr(text, ':');
    if (colon && addr->u.sa.sa_family != AF_UNIX)
        *colon = 0;
}

static void expect_host(const pysock_addr *addr, const char *host) {
    char text[PYSOCK_ADDR_STRLEN];
    host_of(addr, text);
    if (strcmp(text, host) != 0)
        T_FAIL("the address is %s, not %s", text, host);
}

static void expect_in_message(const char *text) {
    if (!strstr(pysock_error_message(), text))
        T_FAIL("'%s' does not say '%s'", pysock_error_message(), text);
}

static void expect_port_in_message(const char *host, int port) {
    char text[64];
    expect_in_message(host);
    snprintf(text, sizeof text, "%d", port);
    expect_in_message(text);
}

/* The addresses of a name, as create_connection looks them up. */
typedef struct addresses {
    size_t count, ipv4, ipv6;
} addresses;

static addresses addresses_of(const char *host) {
    struct addrinfo hints, *list = NULL;
    addresses a = {0, 0, 0};
    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    T_EQ(getaddrinfo(host, NULL, &hints, &list), 0);
    for (struct addrinfo *each = list; each; each = each->ai_next) {
        a.count++;
        a.ipv4 += each->ai_family == AF_INET;
        a.ipv6 += each->ai_family == AF_INET6;
    }
    freeaddrinfo(list);
    return a;
}

static pysock_connection_options no_options(void) {
    pysock_connection_options options = PYSOCK_CONNECTION_OPTIONS_INIT;
    return options;
}

static pysock_server_options no_server_options(void) {
    pysock_server_options options = PYSOCK_SERVER_OPTIONS_INIT;
    return options;
}

/* A number that no port is listening on or bound to right now, on a host of its own in 127/8: what
   is bound there by port is bound by nobody else, but for a rare accident. */
static int free_port(const char *host) {
    struct sockaddr_in in;
    socklen_t len = sizeof in;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memset(&in, 0, sizeof in);
    in.sin_family = AF_INET;
    T_EQ(inet_pton(AF_INET, host, &in.sin_addr), 1);
    T_EQ(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
    T_EQ(getsockname(fd, (struct sockaddr *)&in, &len), 0);
    close(fd);
    return ntohs(in.sin_port);
}

/* ---- create_connection: where from ---- */

T_TEST(a_connection_comes_from_the_source_it_was_given, 60) {
    static const struct {
        const char *host;
        int with_port;
        const char *want;
    } cases[] = {{"127.0.0.2", 0, "127.0.0.2"}, {"127.0.0.3", 1, "127.0.0.3"},
                 {"", 1, "127.0.0.1"},          {NULL, 1, "127.0.0.1"},
                 {"", 0, "127.0.0.1"},          {NULL, 0, "127.0.0.1"}};
    int port;
    pysock *listener;
    listener = t_listen(&port);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int timed = 0; timed < 2; timed++) {
            pysock_connection_options options = no_options();
            pysock *a = NULL, *b;
            pysock_addr peer;
            T_STEP("case %zu, %s", i, timed ? "timed" : "blocking");
            options.source_host = cases[i].host;
            for (int attempt = 0; !a && attempt < 20; attempt++) {
                if (cases[i].with_port)
                    options.source_port = free_port(
                        cases[i].host && cases[i].host[0] ? cases[i].host : "127.0.0.1");
                a = pysock_create_connection_ex("127.0.0.1", port, timed ? 30 : PYSOCK_NO_TIMEOUT,
                                                &options);
                if (!a)
                    T_EQ(errno, EADDRINUSE);
            }
            T_CHECK(a != NULL);
            b = T_OK(pysock_accept(listener, &peer));
            expect_host(&peer, cases[i].want);
            T_EQ(pysock_addr_port(&peer), t_port_of(a));
            if (cases[i].with_port)
                T_EQ(t_port_of(a), options.source_port);
            T_CHECK(pysock_gettimeout(a) == (timed ? 30 : PYSOCK_NO_TIMEOUT));
            t_echo_once(a, b);
            T_OK(pysock_close(a));
            T_OK(pysock_close(b));
        }
    T_OK(pysock_close(listener));
}

T_TEST(an_ipv6_connection_may_have_a_source_too, 30) {
    pysock_connection_options options = no_options();
    pysock *listener, *a, *b;
    pysock_addr peer;
    if (!t_has_ipv6())
        skip();
    listener = T_OK(pysock_create_server("::1", 0, 5));
    options.source_host = "::1";
    a = T_OK(pysock_create_connection_ex("::1", t_port_of(listener), 30, &options));
    b = T_OK(pysock_accept(listener, &peer));
    expect_host(&peer, "[::1]");
    T_EQ(pysock_family(a), AF_INET6);
    t_echo_once(a, b);
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
    T_OK(pysock_close(listener));
}

T_TEST(a_source_that_cannot_be_is_told, 60) {
    pysock_connection_options options = no_options();
    pysock *listener;
    int port, busy, fds;
    listener = t_listen(&port);
    pysock_error_clear();
    fds = t_count_fds();
    T_STEP("not an address of this machine");
    options.source_host = "192.0.2.1";
    T_FAILS(pysock_create_connection_ex("127.0.0.1", port, 30, &options), PYSOCK_OS_ERROR,
            EADDRNOTAVAIL);
    expect_in_message("192.0.2.1");
    T_STEP("a port that is taken");
    options.source_host = "127.0.0.1";
    options.source_port = t_deaf_port(&busy);
    T_FAILS(pysock_create_connection_ex("127.0.0.1", port, 30, &options), PYSOCK_OS_ERROR,
            EADDRINUSE);
    expect_port_in_message("127.0.0.1", options.source_port);
    close(busy);
    T_STEP("another family");
    options.source_host = "::1";
    options.source_port = 0;
    T_FAILS(pysock_create_connection_ex("127.0.0.1", port, 30, &options), T_ANY, T_ANY);
    T_STEP("no port at all");
    options.source_host = NULL;
    options.source_port = 65536;
    T_FAILS(pysock_create_connection_ex("127.0.0.1", port, 30, &options), PYSOCK_VALUE_ERROR,
            EINVAL);
    options.source_port = -1;
    T_FAILS(pysock_create_connection_ex("127.0.0.1", port, 30, &options), PYSOCK_VALUE_ERROR,
            EINVAL);
    T_STEP("no name at all");
    options.source_port = 0;
    options.source_host = "name.invalid";
    T_FAILS(pysock_create_connection_ex("127.0.0.1", port, 30, &options), PYSOCK_GAI_ERROR, T_ANY);
    T_EQ(t_count_fds(), fds);
    T_EQ(t_readable(listener, 0), 0);
    T_OK(pysock_close(listener));
}

/* ---- create_connection: what fails ---- */

typedef struct failures {
    size_t count;
    int port, code, same;
    char hosts[8][PYSOCK_ADDR_STRLEN];
} failures;

/* May use the library, and leaves an error behind that is not the connection's. */
static void note_failure(void *arg, const pysock_addr *addr) {
    failures *f = arg;
    pysock *s;
    T_CHECK(f->count < 8);
    host_of(addr, f->hosts[f->count++]);
    f->same &= pysock_addr_port(addr) == f->port && pysock_error_code() == f->code &&
               pysock_error() != PYSOCK_NO_ERROR && pysock_error_message()[0];
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_close(s));
    T_FAILS(pysock_fileno(s), PYSOCK_OS_ERROR, EBADF);
}

static void failures_begin(failures *f, int port, int code) {
    memset(f, 0, sizeof *f);
    f->port = port;
    f->code = code;
    f->same = 1;
}

T_TEST(every_address_that_fails_is_told, 60) {
    addresses of_name = addresses_of("localhost");
    int busy, port = t_deaf_port(&busy);
    for (int all = 0; all < 2; all++)
        for (int timed = 0; timed < 2; timed++) {
            pysock_connection_options options = no_options();
            failures f;
            T_STEP("%s, %s", all ? "all errors" : "the last error", timed ? "timed" : "blocking");
            failures_begin(&f, port, ECONNREFUSED);
            options.all_errors = all;
            options.failed = note_failure;
            options.arg = &f;
            T_FAILS(pysock_create_connection_ex("localhost", port, timed ? 30 : PYSOCK_NO_TIMEOUT,
                                                &options),
                    PYSOCK_OS_ERROR, ECONNREFUSED);
            T_CHECK(strcmp(pysock_error_name(), "ConnectionRefusedError") == 0);
            T_EQ(f.count, of_name.count);
            T_EQ(f.same, 1);
            for (size_t i = all ? 0 : f.count - 1; i < f.count; i++)
                expect_port_in_message(f.hosts[i], port);
            T_STEP("one address");
            failures_begin(&f, port, ECONNREFUSED);
            T_FAILS(pysock_create_connection_ex("127.0.0.1", port, timed ? 30 : PYSOCK_NO_TIMEOUT,
                                                &options),
                    PYSOCK_OS_ERROR, ECONNREFUSED);
            expect_port_in_message("127.0.0.1", port);
            T_EQ(f.count, 1);
            T_EQ(f.same, 1);
            T_CHECK(strcmp(f.hosts[0], "127.0.0.1") == 0);
        }
    close(busy);
}

T_TEST(a_source_that_fails_is_told_for_each_address, 60) {
    pysock_connection_options options = no_options();
    int port;
    pysock *listener = t_listen(&port);
    failures f;
    failures_begin(&f, port, EADDRNOTAVAIL);
    options.source_host = "192.0.2.1";
    options.failed = note_failure;
    options.arg = &f;
    T_FAILS(pysock_create_connection_ex("127.0.0.1", port, 30, &options), PYSOCK_OS_ERROR,
            EADDRNOTAVAIL);
    T_EQ(f.count, 1);
    T_EQ(f.same, 1);
    T_OK(pysock_close(listener));
}

/* Served on one address of the name: those before it fail, and nothing is wrong in the end. */
T_TEST(an_address_that_fails_gives_way_to_the_next, 60) {
    static const char *const hosts[] = {"127.0.0.1", "::1"};
    addresses of_name = addresses_of("localhost");
    for (int i = 0; i < 2; i++) {
        pysock_connection_options options = no_options();
        pysock *listener, *a, *b;
        pysock_addr peer;
        failures f;
        T_STEP("localhost, served on %s", hosts[i]);
        if (!(i ? of_name.ipv6 : of_name.ipv4) || (i && !t_has_ipv6()))
            continue;
        listener = T_OK(pysock_create_server(hosts[i], 0, 5));
        failures_begin(&f, t_port_of(listener), ECONNREFUSED);
        options.all_errors = 1;
        options.failed = note_failure;
        options.arg = &f;
        a = T_OK(pysock_create_connection_ex("localhost", f.port, 30, &options));
        T_CHECK(f.count < of_name.count);
        T_EQ(f.same, 1);
        T_OK(pysock_getpeername(a, &peer));
        expect_host(&peer, i ? "[::1]" : "127.0.0.1");
        for (size_t n = 0; n < f.count; n++)
            T_CHECK(strcmp(f.hosts[n], i ? "[::1]" : "127.0.0.1") != 0);
        b = T_OK(pysock_accept(listener, NULL));
        t_echo_once(a, b);
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
        T_OK(pysock_close(listener));
    }
}

T_TEST(a_name_that_is_none_is_no_failed_address, 60) {
    pysock_connection_options options = no_options();
    failures f;
    failures_begin(&f, 80, 0);
    options.failed = note_failure;
    options.arg = &f;
    for (int all = 0; all < 2; all++) {
        options.all_errors = all;
        T_FAILS(pysock_create_connection_ex("name.invalid", 80, 30, &options), PYSOCK_GAI_ERROR,
                T_ANY);
        expect_in_message("name.invalid");
        T_FAILS(pysock_create_connection_ex("name.invalid", 80, PYSOCK_NO_TIMEOUT, &options),
                PYSOCK_GAI_ERROR, T_ANY);
        T_FAILS(pysock_create_connection_ex("127.0.0.1", 65536, 30, &options), PYSOCK_VALUE_ERROR,
                EINVAL);
        T_FAILS(pysock_create_connection_ex("127.0.0.1", -1, 30, &options), PYSOCK_VALUE_ERROR,
                EINVAL);
    }
    T_EQ(f.count, 0);
}

T_TEST(no_options_are_the_plain_call, 30) {
    pysock_connection_options options = no_options();
    int port, busy, deaf = t_deaf_port(&busy);
    pysock *listener = t_listen(&port);
    for (int i = 0; i < 2; i++) {
        pysock *a = T_OK(pysock_create_connection_ex("127.0.0.1", port, 30, i ? &options : NULL));
        pysock *b = T_OK(pysock_accept(listener, NULL));
        t_echo_once(a, b);
        T_CHECK(pysock_gettimeout(a) == 30);
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
        T_FAILS(pysock_create_connection_ex("127.0.0.1", deaf, 30, i ? &options : NULL),
                PYSOCK_OS_ERROR, ECONNREFUSED);
    }
    T_STEP("no host is this machine");
    for (int i = 0; i < 2; i++) {
        pysock *a = T_OK(pysock_create_connection_ex(i ? "" : NULL, port, 30, NULL));
        pysock *b = T_OK(pysock_accept(listener, NULL));
        t_echo_once(a, b);
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
    }
    T_OK(pysock_close(listener));
    close(busy);
}

/* ---- create_connection: how long ---- */

/* NetworkConnectionAttributesTest. */
T_TEST(a_connection_has_the_timeout_it_was_asked_for, 30) {
    static const struct {
        double global, asked, want;
    } cases[] = {{42, PYSOCK_DEFAULT_TIMEOUT, 42},
                 {PYSOCK_NO_TIMEOUT, PYSOCK_DEFAULT_TIMEOUT, PYSOCK_NO_TIMEOUT},
                 {30, PYSOCK_NO_TIMEOUT, PYSOCK_NO_TIMEOUT},
                 {PYSOCK_NO_TIMEOUT, 30, 30},
                 {0, 30, 30},
                 {0, PYSOCK_NO_TIMEOUT, PYSOCK_NO_TIMEOUT},
                 {17, 30, 30}};
    int port;
    pysock *listener;
    listener = t_listen(&port);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int by_name = 0; by_name < 2; by_name++) {
            pysock *a, *b;
            int flags;
            T_STEP("case %zu", i);
            T_OK(pysock_setdefaulttimeout(cases[i].global));
            a = T_OK(pysock_create_connection(by_name ? "localhost" : "127.0.0.1", port,
                                              cases[i].asked));
            T_OK(pysock_setdefaulttimeout(PYSOCK_NO_TIMEOUT));
            T_CHECK(pysock_gettimeout(a) == cases[i].want);
            flags = fcntl(pysock_fileno(a), F_GETFL);
            T_EQ((flags & O_NONBLOCK) != 0, T_HAS_O_NONBLOCK(cases[i].want));
            T_EQ(pysock_family(a), AF_INET);
            T_EQ(pysock_type(a), SOCK_STREAM);
            T_EQ(pysock_get_inheritable(a), 0);
            b = T_OK(pysock_accept(listener, NULL));
            t_echo_once(a, b);
            T_OK(pysock_close(a));
            T_OK(pysock_close(b));
        }
    T_OK(pysock_close(listener));
}

T_TEST(timeouts_that_are_none_are_refused, 30) {
    static const double wrong[] = {-0.5, -3, -1e300, -INFINITY, NAN};
    int port;
    pysock *listener;
    listener = t_listen(&port);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        T_FAILS(pysock_create_connection("127.0.0.1", port, wrong[i]), PYSOCK_VALUE_ERROR, EINVAL);
        T_FAILS(pysock_create_connection_ex("127.0.0.1", port, wrong[i], NULL), PYSOCK_VALUE_ERROR,
                EINVAL);
    }
    T_STEP("nobody connects without waiting, by default neither");
    T_FAILS(pysock_create_connection("127.0.0.1", port, 0), T_ANY, T_ANY);
    T_OK(pysock_setdefaulttimeout(0));
    T_FAILS(pysock_create_connection("127.0.0.1", port, PYSOCK_DEFAULT_TIMEOUT), T_ANY, T_ANY);
    T_OK(pysock_setdefaulttimeout(PYSOCK_NO_TIMEOUT));
    T_OK(pysock_close(listener));
}

typedef struct late {
    pysock *s;
    double after;
} late;

static void *say_late(void *arg) {
    late *l = arg;
    t_nap(l->after);
    t_say(l->s, "done!");
    return NULL;
}

/* NetworkConnectionBehaviourTest. */
T_TEST(the_timeout_of_a_connection_is_its_recvs, 60) {
    int port;
    pysock *listener, *a, *b;
    char buf[8];
    t_thread t;
    late l;
    double start;
    listener = t_listen(&port);
    a = T_OK(pysock_create_connection("127.0.0.1", port, PYSOCK_DEFAULT_TIMEOUT));
    b = T_OK(pysock_accept(listener, NULL));
    l.s = b;
    l.after = 0.2;
    t_spawn(&t, say_late, &l);
    T_EQ(pysock_recv(a, buf, sizeof buf, 0), 5);
    t_join(&t);
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
    a = T_OK(pysock_create_connection("127.0.0.1", port, 0.1));
    b = T_OK(pysock_accept(listener, NULL));
    start = t_now();
    T_FAILS(pysock_recv(a, buf, sizeof buf, 0), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    T_CHECK(t_now() - start >= 0.099);
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
    T_OK(pysock_close(listener));
}

/* TimeoutError, not OSError, and it says to whom. */
T_TEST(a_connection_that_takes_too_long_is_told, 60) {
    pysock_connection_options options = no_options();
    int fds[2], port = t_silent_port(fds), count;
    failures f;
    count = t_count_fds();
    for (int i = 0; i < 8; i++) {
        double start = t_now();
        const char *host = i & 1 ? "localhost" : "127.0.0.1";
        T_STEP("%s, %s, %s", host, i & 2 ? "all errors" : "the last error",
               i & 4 ? "by default" : "asked for");
        failures_begin(&f, port, ETIMEDOUT);
        options.all_errors = (i & 2) != 0;
        options.failed = note_failure;
        options.arg = &f;
        if (i & 4)
            T_OK(pysock_setdefaulttimeout(0.2));
        T_FAILS(
            pysock_create_connection_ex(host, port, i & 4 ? PYSOCK_DEFAULT_TIMEOUT : 0.2, &options),
            i & 1 ? T_ANY : PYSOCK_TIMEOUT_ERROR, i & 1 ? T_ANY : ETIMEDOUT);
        T_OK(pysock_setdefaulttimeout(PYSOCK_NO_TIMEOUT));
        T_CHECK(t_now() - start < 20);
        if (!(i & 1)) {
            T_CHECK(strcmp(pysock_error_name(), "TimeoutError") == 0);
            T_CHECK(t_now() - start >= 0.19);
            T_EQ(f.count, 1);
            T_EQ(f.same, 1);
            expect_port_in_message("127.0.0.1", port);
        }
    }
    pysock_cleanup();
    T_CHECK(t_count_fds() <= count);
    close(fds[0]);
    close(fds[1]);
}

static int hook_answer = 1;

typedef struct connecting {
    int port;
    double timeout;
    pysock *s;
    int code;
    pysock_error_kind kind;
    int done; /* atomic */
} connecting;

static void *attempt_thread(void *arg) {
    connecting *a = arg;
    a->s = pysock_create_connection("127.0.0.1", a->port, a->timeout);
    a->code = errno;
    a->kind = pysock_error();
    __atomic_store_n(&a->done, 1, __ATOMIC_RELEASE);
    return NULL;
}

T_TEST(a_signal_or_a_cleanup_ends_a_connection_that_waits, 60) {
    static const double timeouts[] = {PYSOCK_NO_TIMEOUT, 60};
    int fds[2], port = t_silent_port(fds);
    t_catch_signal(SIGUSR1);
    pysock_set_interrupt_hook(t_interrupt_hook, &hook_answer);
    for (int i = 0; i < 4; i++) {
        connecting a;
        t_thread t;
        T_STEP("timeout %g, %s", timeouts[i & 1], i & 2 ? "a signal" : "cleanup");
        memset(&a, 0, sizeof a);
        a.port = port;
        a.timeout = timeouts[i & 1];
        t_spawn(&t, attempt_thread, &a);
        t_wait_asleep(&t);
        if (!(i & 2))
            pysock_cleanup();
        while (!__atomic_load_n(&a.done, __ATOMIC_ACQUIRE)) {
            if (i & 2)
                T_EQ(pthread_kill(t.id, SIGUSR1), 0);
            t_nap(0.005);
        }
        t_join(&t);
        T_CHECK(a.s == NULL);
        T_EQ(a.kind, PYSOCK_OS_ERROR);
        T_EQ(a.code, i & 2 ? EINTR : ESHUTDOWN);
    }
    pysock_set_interrupt_hook(NULL, NULL);
    close(fds[0]);
    close(fds[1]);
}

/* ---- create_server ---- */

static void expect_option(pysock *s, int level, int name, int want) {
    int value = -1;
    T_OK(pysock_getsockopt_int(s, level, name, &value));
    T_EQ(value != 0, want);
}

static void talk_to(pysock *listener, int family, const char *host, int port) {
    pysock *a = T_OK(pysock_socket(family, SOCK_STREAM, 0)), *b;
    T_OK(pysock_connect(a, host, port));
    b = T_OK(pysock_accept(listener, NULL));
    T_EQ(pysock_family(b), pysock_family(listener));
    t_echo_once(a, b);
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
}

T_TEST(a_server_is_of_the_family_it_was_asked_for, 60) {
    static const struct {
        int family;
        const char *host;
        int want;
        const char *bound, *reached;
    } cases[] = {{0, NULL, AF_INET, "0.0.0.0", "127.0.0.1"},
                 {0, "", AF_INET, "0.0.0.0", "127.0.0.1"},
                 {0, "127.0.0.1", AF_INET, "127.0.0.1", "127.0.0.1"},
                 {0, "localhost", AF_INET, "127.0.0.1", "127.0.0.1"},
                 {AF_INET, NULL, AF_INET, "0.0.0.0", "127.0.0.1"},
                 {AF_INET, "", AF_INET, "0.0.0.0", "127.0.0.1"},
                 {AF_INET, "127.0.0.5", AF_INET, "127.0.0.5", "127.0.0.5"},
                 {0, "::1", AF_INET6, "[::1]", "::1"},
                 {0, "::", AF_INET6, "[::]", "::1"},
                 {AF_INET6, NULL, AF_INET6, "[::]", "::1"},
                 {AF_INET6, "", AF_INET6, "[::]", "::1"},
                 {AF_INET6, "::1", AF_INET6, "[::1]", "::1"}};
    int ipv6 = t_has_ipv6();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pysock_server_options options = no_server_options();
        pysock *s;
        pysock_addr addr;
        if (cases[i].want == AF_INET6 && !ipv6)
            continue;
        T_STEP("case %zu", i);
        options.family = cases[i].family;
        s = T_OK(pysock_create_server_ex(cases[i].host, 0, &options));
        T_EQ(pysock_family(s), cases[i].want);
        T_EQ(pysock_type(s), SOCK_STREAM);
        T_CHECK(pysock_gettimeout(s) == PYSOCK_NO_TIMEOUT);
        T_EQ(pysock_get_inheritable(s), 0);
        T_OK(pysock_getsockname(s, &addr));
        expect_host(&addr, cases[i].bound);
        T_CHECK(pysock_addr_port(&addr) > 0);
        expect_option(s, SOL_SOCKET, SO_REUSEADDR, 1);
        expect_option(s, SOL_SOCKET, SO_REUSEPORT, 0);
        expect_option(s, SOL_SOCKET, SO_ACCEPTCONN, 1);
        if (cases[i].want == AF_INET6)
            expect_option(s, IPPROTO_IPV6, IPV6_V6ONLY, 1);
        talk_to(s, cases[i].want, cases[i].reached, t_port_of(s));
        T_OK(pysock_close(s));
    }
    {
        pysock *s = T_OK(pysock_create_server_ex("127.0.0.1", 0, NULL));
        talk_to(s, AF_INET, "127.0.0.1", t_port_of(s));
        T_OK(pysock_close(s));
    }
}

T_TEST(a_server_may_have_a_path_or_an_abstract_name, 30) {
    pysock_server_options options = no_server_options();
    char dir[] = "/tmp/pysock-test-XXXXXX", path[64], name[64], text[PYSOCK_ADDR_STRLEN];
    pysock *s;
    pysock_addr addr;
    options.family = AF_UNIX;
    T_CHECK(mkdtemp(dir) != NULL);
    snprintf(path, sizeof path, "%s/socket", dir);
    snprintf(name, sizeof name, "@pysock-test-server-%ld", (long)getpid());
    for (int abstract = 0; abstract < 2; abstract++) {
        const char *host = abstract ? name : path;
        T_STEP("%s", host);
        s = T_OK(pysock_create_server_ex(host, 0, &options));
        T_EQ(pysock_family(s), AF_UNIX);
        talk_to(s, AF_UNIX, host, 0);
        T_STEP("%s, twice", host);
        T_FAILS(pysock_create_server_ex(host, 0, &options), PYSOCK_OS_ERROR, EADDRINUSE);
        expect_in_message(host);
        T_STEP("%s, the port does not matter", host);
        T_FAILS(pysock_create_server_ex(host, 70000, &options), PYSOCK_OS_ERROR, EADDRINUSE);
        T_OK(pysock_close(s));
    }
    T_STEP("a path that was left behind");
    T_FAILS(pysock_create_server_ex(path, 0, &options), PYSOCK_OS_ERROR, EADDRINUSE);
    T_EQ(unlink(path), 0);
    T_EQ(rmdir(dir), 0);
    T_STEP("a directory that is gone");
    T_FAILS(pysock_create_server_ex(path, 0, &options), PYSOCK_OS_ERROR, ENOENT);
    expect_in_message(path);
    T_STEP("a name that the system chooses");
    s = T_OK(pysock_create_server_ex("", 0, &options));
    T_OK(pysock_getsockname(s, &addr));
    pysock_addr_format(&addr, text, sizeof text);
    T_CHECK(strncmp(text, "unix:@", 6) == 0 && strlen(text) > 6);
    talk_to(s, AF_UNIX, text + 5, 0);
    T_OK(pysock_close(s));
}

/* Of a listening socket Linux tells the backlog as tcpi_sacked. */
static int backlog_of(pysock *s) {
    struct tcp_info info;
    socklen_t len = sizeof info;
    memset(&info, 0, sizeof info);
    T_OK(pysock_getsockopt(s, IPPROTO_TCP, TCP_INFO, &info, &len));
    return (int)info.tcpi_sacked;
}

T_TEST(the_backlog_is_the_kernels, 30) {
    pysock_server_options options = no_server_options();
    pysock *s;
    for (int backlog = 1; backlog < 10; backlog += 4) {
        options.backlog = backlog;
        s = T_OK(pysock_create_server_ex("127.0.0.1", 0, &options));
        T_EQ(backlog_of(s), backlog);
        T_OK(pysock_close(s));
        s = T_OK(pysock_create_server("127.0.0.1", 0, backlog));
        T_EQ(backlog_of(s), backlog);
        T_STEP("it may be changed");
        T_OK(pysock_listen(s, backlog + 1));
        T_EQ(backlog_of(s), backlog + 1);
        T_OK(pysock_close(s));
    }
    T_STEP("a reasonable one");
    for (int backlog = -1; backlog > -3; backlog--) {
        options.backlog = backlog;
        s = T_OK(pysock_create_server_ex("127.0.0.1", 0, &options));
        T_CHECK(backlog_of(s) >= 16);
        T_OK(pysock_close(s));
    }
    s = T_OK(pysock_create_server("127.0.0.1", 0, -1));
    T_CHECK(backlog_of(s) >= 16);
    T_OK(pysock_close(s));
}

T_TEST(two_servers_share_a_port_if_both_want_to, 60) {
    pysock_server_options options = no_server_options();
    pysock *first, *second, *alone;
    int port, got[2] = {0, 0};
    options.reuse_port = 1;
    first = T_OK(pysock_create_server_ex("127.0.0.1", 0, &options));
    expect_option(first, SOL_SOCKET, SO_REUSEPORT, 1);
    port = t_port_of(first);
    T_STEP("one that does not want to");
    T_FAILS(pysock_create_server("127.0.0.1", port, 5), PYSOCK_OS_ERROR, EADDRINUSE);
    T_STEP("one that does");
    second = T_OK(pysock_create_server_ex("127.0.0.1", port, &options));
    T_EQ(t_port_of(second), port);
    for (int i = 0; i < 500 && !(got[0] && got[1]); i++) { /* the kernel draws lots */
        pysock *a = T_OK(pysock_create_connection("127.0.0.1", port, 30)), *b;
        int fds[2] = {pysock_fileno(first), pysock_fileno(second)};
        size_t n = 2;
        int which;
        T_EQ(pysock_select(fds, &n, NULL, NULL, NULL, NULL, PYSOCK_NO_TIMEOUT), 1);
        which = fds[0] == pysock_fileno(second);
        b = T_OK(pysock_accept(which ? second : first, NULL));
        got[which]++;
        t_echo_once(a, b);
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
    }
    T_CHECK(got[0] && got[1]);
    T_STEP("the first one did not want to");
    alone = T_OK(pysock_create_server("127.0.0.1", 0, 5));
    expect_option(alone, SOL_SOCKET, SO_REUSEPORT, 0);
    T_FAILS(pysock_create_server_ex("127.0.0.1", t_port_of(alone), &options), PYSOCK_OS_ERROR,
            EADDRINUSE);
    T_OK(pysock_close(alone));
    T_OK(pysock_close(first));
    T_OK(pysock_close(second));
}

T_TEST(a_dual_stack_server_serves_both, 30) {
    pysock_server_options options = no_server_options();
    if (!t_has_ipv6())
        skip();
    T_EQ(pysock_has_dualstack_ipv6(), 1);
    options.dualstack_ipv6 = 1;
    options.family = AF_INET6;
    for (int i = 0; i < 2; i++) {
        pysock *s = T_OK(pysock_create_server_ex(i ? "" : NULL, 0, &options)), *a, *b;
        pysock_addr peer;
        T_EQ(pysock_family(s), AF_INET6);
        expect_option(s, IPPROTO_IPV6, IPV6_V6ONLY, 0);
        T_STEP("an IPv4 client");
        a = T_OK(pysock_create_connection("127.0.0.1", t_port_of(s), 30));
        b = T_OK(pysock_accept(s, &peer));
        T_EQ(peer.u.sa.sa_family, AF_INET6);
        T_CHECK(IN6_IS_ADDR_V4MAPPED(&peer.u.in6.sin6_addr));
        T_EQ(pysock_addr_port(&peer), t_port_of(a));
        t_echo_once(a, b);
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
        T_STEP("an IPv6 client");
        talk_to(s, AF_INET6, "::1", t_port_of(s));
        T_OK(pysock_close(s));
    }
    T_STEP("one address is fine too, as in Python");
    {
        pysock *s = T_OK(pysock_create_server_ex("::1", 0, &options));
        T_EQ(pysock_family(s), AF_INET6);
        talk_to(s, AF_INET6, "::1", t_port_of(s));
        T_OK(pysock_close(s));
    }
}

/* An IPv6 server leaves IPv4 to somebody else unless it is told to take it. */
T_TEST(an_ipv6_server_does_not_take_the_ipv4_port, 30) {
    pysock_server_options options = no_server_options();
    pysock *six, *four = NULL, *both;
    if (!t_has_ipv6())
        skip();
    for (int attempt = 0; !four && attempt < 20; attempt++) {
        six = T_OK(pysock_create_server("::", 0, 5));
        four = pysock_create_server("127.0.0.1", t_port_of(six), 5);
        if (four) {
            talk_to(six, AF_INET6, "::1", t_port_of(six));
            talk_to(four, AF_INET, "127.0.0.1", t_port_of(six));
        } else {
            T_EQ(errno, EADDRINUSE); /* somebody else's, by accident */
        }
        T_OK(pysock_close(six));
    }
    T_CHECK(four != NULL);
    T_STEP("and one that takes it finds it taken");
    options.family = AF_INET6;
    options.dualstack_ipv6 = 1;
    T_FAILS(pysock_create_server_ex("", t_port_of(four), &options), PYSOCK_OS_ERROR, EADDRINUSE);
    T_OK(pysock_close(four));
    both = T_OK(pysock_create_server_ex("", 0, &options));
    T_FAILS(pysock_create_server("127.0.0.1", t_port_of(both), 5), PYSOCK_OS_ERROR, EADDRINUSE);
    T_OK(pysock_close(both));
}

T_TEST(servers_that_cannot_be_are_refused, 60) {
    pysock_server_options options = no_server_options();
    int fds;
    fds = t_count_fds();
    T_STEP("two stacks need IPv6");
    options.dualstack_ipv6 = 1;
    options.family = AF_INET;
    T_FAILS(pysock_create_server_ex("127.0.0.1", 0, &options), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_create_server_ex("", 0, &options), PYSOCK_VALUE_ERROR, EINVAL);
    options.family = AF_UNIX;
    T_FAILS(pysock_create_server_ex("@pysock-test-dual", 0, &options), PYSOCK_VALUE_ERROR, EINVAL);
    options.family = 0;
    T_FAILS(pysock_create_server_ex("127.0.0.1", 0, &options), T_ANY, T_ANY);
    T_STEP("an address of another family");
    options = no_server_options();
    options.family = AF_INET;
    T_FAILS(pysock_create_server_ex("::1", 0, &options), PYSOCK_GAI_ERROR, T_ANY);
    expect_in_message("::1");
    options.family = AF_INET6;
    T_FAILS(pysock_create_server_ex("127.0.0.1", 0, &options), T_ANY, T_ANY);
    expect_in_message("127.0.0.1");
    T_STEP("families that are none");
    options.family = 9999;
    T_FAILS(pysock_create_server_ex("127.0.0.1", 0, &options), T_ANY, T_ANY);
    options.family = -1;
    T_FAILS(pysock_create_server_ex("127.0.0.1", 0, &options), T_ANY, T_ANY);
    T_STEP("ports that are none");
    options.family = 0;
    T_FAILS(pysock_create_server_ex("127.0.0.1", -1, &options), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_create_server_ex("127.0.0.1", 65536, &options), PYSOCK_VALUE_ERROR, EINVAL);
    T_STEP("names that are none");
    T_FAILS(pysock_create_server_ex("name.invalid", 0, &options), PYSOCK_GAI_ERROR, T_ANY);
    expect_in_message("name.invalid");
    T_STEP("not an address of this machine");
    T_FAILS(pysock_create_server_ex("192.0.2.1", 0, &options), PYSOCK_OS_ERROR, EADDRNOTAVAIL);
    expect_in_message("192.0.2.1");
    T_EQ(t_count_fds(), fds);
}

T_TEST(a_port_in_use_is_named, 30) {
    pysock_server_options options = no_server_options();
    pysock *s;
    int port;
    s = t_listen(&port);
    T_FAILS(pysock_create_server("127.0.0.1", port, 5), PYSOCK_OS_ERROR, EADDRINUSE);
    expect_port_in_message("127.0.0.1", port);
    T_FAILS(pysock_create_server_ex("127.0.0.1", port, &options), PYSOCK_OS_ERROR, EADDRINUSE);
    expect_port_in_message("127.0.0.1", port);
    T_CHECK(strcmp(pysock_error_reason(), "EADDRINUSE") == 0);
    T_FAILS(pysock_create_server_ex("", port, &options), PYSOCK_OS_ERROR, EADDRINUSE);
    expect_port_in_message("", port);
    T_OK(pysock_close(s));
    T_STEP("and free again at once");
    s = T_OK(pysock_create_server("127.0.0.1", port, 5));
    T_OK(pysock_close(s));
}

/* ---- connect, and what it leaves behind ---- */

enum { MODES = 3 };
static const double modes[MODES] = {PYSOCK_NO_TIMEOUT, 30, 0};

/* Connects in any mode; what it comes to: 0 or the errno. */
static int connect_at_last(pysock *s, const char *host, int port) {
    int error = -1;
    if (pysock_connect(s, host, port) == 0)
        return 0;
    if (errno != EINPROGRESS)
        return errno;
    T_EQ(t_writable(s, PYSOCK_NO_TIMEOUT), 1);
    T_OK(pysock_getsockopt_int(s, SOL_SOCKET, SO_ERROR, &error));
    return error;
}

static void expect_mode(pysock *s, double timeout) {
    T_CHECK(pysock_gettimeout(s) == timeout);
    T_EQ((fcntl(pysock_fileno(s), F_GETFL) & O_NONBLOCK) != 0, T_HAS_O_NONBLOCK(timeout));
}

/* A connect that was refused while nobody slept in it is ended by Linux with the next one, which
   fails with ECONNABORTED, once; Python tells that too. */
static int connect_again(pysock *s, const char *host, int port) {
    int error = connect_at_last(s, host, port);
    if (error == ECONNABORTED && pysock_gettimeout(s) != PYSOCK_NO_TIMEOUT)
        error = connect_at_last(s, host, port);
    return error;
}

T_TEST(after_a_refusal_a_socket_can_connect, 60) {
    static const char *const hosts[] = {"127.0.0.1", "localhost", "::1"};
    int ipv6 = t_has_ipv6();
    for (int h = 0; h < (ipv6 ? 3 : 2); h++)
        for (int mode = 0; mode < MODES; mode++)
            for (int tries = 1; tries < 4; tries += 2) {
                pysock *listener = T_OK(pysock_create_server(h == 2 ? "::1" : "127.0.0.1", 0, 5));
                pysock *s = T_OK(pysock_socket(h == 2 ? AF_INET6 : AF_INET, SOCK_STREAM, 0)), *b;
                pysock *gone = T_OK(pysock_create_server(h == 2 ? "::1" : "127.0.0.1", 0, 5));
                int port = t_port_of(gone);
                pysock_addr addr;
                T_STEP("%s, timeout %g, %d refusals", hosts[h], modes[mode], tries);
                T_OK(pysock_close(gone));
                T_OK(pysock_settimeout(s, modes[mode]));
                for (int i = 0; i < tries; i++) {
                    T_EQ(connect_again(s, hosts[h], port), ECONNREFUSED);
                    expect_mode(s, modes[mode]);
                    T_FAILS(pysock_getpeername(s, &addr), PYSOCK_OS_ERROR, ENOTCONN);
                }
                T_EQ(connect_again(s, hosts[h], t_port_of(listener)), 0);
                expect_mode(s, modes[mode]);
                b = T_OK(pysock_accept(listener, NULL));
                t_echo_once(s, b);
                T_OK(pysock_close(s));
                T_OK(pysock_close(b));
                T_OK(pysock_close(listener));
            }
}

T_TEST(a_refused_connect_says_who_refused, 30) {
    int busy, port = t_deaf_port(&busy);
    char where[32];
    snprintf(where, sizeof where, "127.0.0.1:%d", port);
    for (int mode = 0; mode < 2; mode++)
        for (int by_name = 0; by_name < 2; by_name++) {
            pysock *s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
            T_OK(pysock_settimeout(s, modes[mode]));
            T_FAILS(pysock_connect(s, by_name ? "localhost" : "127.0.0.1", port), PYSOCK_OS_ERROR,
                    ECONNREFUSED);
            T_CHECK(strcmp(pysock_error_name(), "ConnectionRefusedError") == 0);
            T_CHECK(strcmp(pysock_error_reason(), "ECONNREFUSED") == 0);
            expect_in_message(where);
            T_OK(pysock_close(s));
        }
    close(busy);
}

T_TEST(a_socket_connects_once, 60) {
    for (int kind = 0; kind < 3; kind++)
        for (int mode = 0; mode < MODES; mode++) {
            pysock_server_options options = no_server_options();
            char name[64];
            const char *host = kind == 0 ? "127.0.0.1" : kind == 1 ? "::1" : name;
            pysock *listener, *s, *b;
            int port;
            if (kind == 1 && !t_has_ipv6())
                continue;
            T_STEP("kind %d, timeout %g", kind, modes[mode]);
            snprintf(name, sizeof name, "@pysock-test-once-%ld-%d", (long)getpid(), mode);
            options.family = kind == 0 ? AF_INET : kind == 1 ? AF_INET6 : AF_UNIX;
            listener = T_OK(pysock_create_server_ex(host, 0, &options));
            port = kind == 2 ? 0 : t_port_of(listener);
            s = T_OK(pysock_socket(options.family, SOCK_STREAM, 0));
            T_OK(pysock_settimeout(s, modes[mode]));
            T_EQ(connect_at_last(s, host, port), 0);
            b = T_OK(pysock_accept(listener, NULL));
            for (int i = 0; i < 2; i++) {
                T_FAILS(pysock_connect(s, host, port), PYSOCK_OS_ERROR, EISCONN);
                T_EQ(pysock_connect_ex(s, host, port), EISCONN);
                T_FAILS(pysock_connect(b, host, port), PYSOCK_OS_ERROR, EISCONN);
            }
            t_echo_once(s, b);
            T_EQ(t_readable(listener, 0), 0);
            T_OK(pysock_close(s));
            T_OK(pysock_close(b));
            T_OK(pysock_close(listener));
        }
}

T_TEST(a_tls_socket_connects_once, 30) {
    pysock *pair[2];
    t_tls_pair(pair, client_ctx, server_ctx);
    for (int i = 0; i < 2; i++) {
        T_FAILS(pysock_connect(pair[i], "127.0.0.1", 9), PYSOCK_OS_ERROR, EISCONN);
        T_EQ(pysock_connect_ex(pair[i], "127.0.0.1", 9), EISCONN);
    }
    t_echo_once(pair[0], pair[1]);
    t_close_pair(pair);
}

/* A connect that ran out of time leaves a socket with the timeout it had, not connected; what was
   begun may still come true, and a second connect says so. */
T_TEST(a_timed_connect_leaves_a_socket_that_works, 60) {
    int fds[2], port = t_silent_port(fds), peer, rc;
    pysock *s;
    pysock_addr addr;
    double start;
    char byte;
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_settimeout(s, 0.15));
    for (int i = 0; i < 2; i++) {
        start = t_now();
        T_FAILS(pysock_connect(s, "127.0.0.1", port), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
        T_CHECK(t_now() - start >= 0.149);
        T_CHECK(strcmp(pysock_error_name(), "TimeoutError") == 0);
        expect_port_in_message("127.0.0.1", port);
        expect_mode(s, 0.15);
        T_FAILS(pysock_getpeername(s, &addr), PYSOCK_OS_ERROR, ENOTCONN);
    }
    T_EQ(t_writable(s, 0), 0);
    T_FAILS(pysock_send(s, "x", 1, MSG_DONTWAIT), T_ANY, T_ANY);
    T_STEP("without waiting it is under way");
    T_OK(pysock_setblocking(s, 0));
    rc = pysock_connect_ex(s, "127.0.0.1", port);
    T_CHECK(rc == EALREADY || rc == EINPROGRESS);
    T_STEP("once there is room it comes true");
    peer = t_raw_accept(fds[0]);
    close(peer);
    T_OK(pysock_settimeout(s, 60));
    rc = pysock_connect_ex(s, "127.0.0.1", port);
    T_CHECK(rc == 0 || rc == EISCONN);
    peer = t_raw_accept(fds[0]);
    t_say(s, "x");
    T_EQ(t_raw_read(peer, &byte, 1), 1);
    close(peer);
    T_OK(pysock_close(s));
    close(fds[0]);
    close(fds[1]);
}

/* A Unix listener whose backlog is full: the kernel has no event for room. */
T_TEST(a_connect_to_a_full_unix_listener_waits_and_gives_up, 60) {
    pysock *listener, *filler[8], *s, *b;
    char name[64];
    int filled = 0, rc;
    double start;
    snprintf(name, sizeof name, "@pysock-test-full-%ld", (long)getpid());
    listener = T_OK(pysock_socket(AF_UNIX, SOCK_STREAM, 0));
    T_OK(pysock_bind(listener, name, 0));
    T_OK(pysock_listen(listener, 0));
    for (;;) {
        T_CHECK(filled < 8);
        filler[filled] = t_nonblocking_socket(AF_UNIX);
        rc = pysock_connect_ex(filler[filled], name, 0);
        filled++;
        if (rc)
            break;
    }
    T_EQ(rc, EAGAIN);
    s = T_OK(pysock_socket(AF_UNIX, SOCK_STREAM, 0));
    T_OK(pysock_settimeout(s, 0.1));
    start = t_now();
    T_FAILS(pysock_connect(s, name, 0), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    T_CHECK(t_now() - start >= 0.099);
    expect_mode(s, 0.1);
    T_STEP("with room it works, and the same socket does");
    b = T_OK(pysock_accept(listener, NULL));
    T_OK(pysock_close(b));
    T_OK(pysock_settimeout(s, 30));
    T_OK(pysock_connect(s, name, 0));
    T_OK(pysock_close(s));
    for (int i = 0; i < filled; i++)
        T_OK(pysock_close(filler[i]));
    T_OK(pysock_close(listener));
}

T_TEST(connect_ex_tells_each_outcome, 60) {
    int busy, deaf = t_deaf_port(&busy), fds[2], silent = t_silent_port(fds), port, rc;
    pysock *listener = t_listen(&port), *s;
    T_STEP("refused, in every mode");
    for (int mode = 0; mode < 2; mode++) {
        s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
        T_OK(pysock_settimeout(s, modes[mode]));
        T_EQ(pysock_connect_ex(s, "127.0.0.1", deaf), ECONNREFUSED);
        T_EQ(connect_again(s, "127.0.0.1", port), 0);
        T_EQ(pysock_connect_ex(s, "127.0.0.1", port), EISCONN);
        T_OK(pysock_close(s));
        T_EQ(pysock_connect_ex(s, "127.0.0.1", port), EBADF);
    }
    T_STEP("under way");
    s = t_nonblocking_socket(AF_INET);
    T_EQ(pysock_connect_ex(s, "127.0.0.1", silent), EINPROGRESS);
    for (int i = 0; i < 3; i++) {
        rc = pysock_connect_ex(s, "127.0.0.1", silent);
        T_CHECK(rc == EALREADY || rc == EINPROGRESS);
    }
    T_OK(pysock_close(s));
    T_STEP("refused without waiting: told by the next one");
    s = t_nonblocking_socket(AF_INET);
    T_EQ(pysock_connect_ex(s, "127.0.0.1", deaf), EINPROGRESS);
    T_EQ(t_writable(s, PYSOCK_NO_TIMEOUT), 1);
    T_EQ(pysock_connect_ex(s, "127.0.0.1", deaf), ECONNREFUSED);
    T_OK(pysock_close(s));
    T_STEP("too late");
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_settimeout(s, 0.05));
    T_EQ(pysock_connect_ex(s, "127.0.0.1", silent), ETIMEDOUT);
    T_EQ(pysock_error(), PYSOCK_TIMEOUT_ERROR);
    T_OK(pysock_close(s));
    T_STEP("names");
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_EQ(pysock_connect_ex(s, "name.invalid", port), EADDRNOTAVAIL);
    T_EQ(pysock_error(), PYSOCK_GAI_ERROR);
    T_CHECK(pysock_error_code() != 0 && pysock_error_code() != EADDRNOTAVAIL);
    T_EQ(pysock_connect_ex(s, "::1", port), EADDRNOTAVAIL);
    T_STEP("arguments");
    T_EQ(pysock_connect_ex(s, "127.0.0.1", 65536), EINVAL);
    T_EQ(pysock_connect_ex(s, "127.0.0.1", -1), EINVAL);
    T_EQ(pysock_connect_ex(NULL, "127.0.0.1", port), EINVAL);
    T_EQ(pysock_connect_ex(s, "localhost", port), 0);
    T_OK(pysock_close(s));
    T_STEP("paths");
    s = T_OK(pysock_socket(AF_UNIX, SOCK_STREAM, 0));
    T_EQ(pysock_connect_ex(s, "/nowhere/at/all", 0), ENOENT);
    T_EQ(pysock_connect_ex(s, "@pysock-test-nobody-listens-here", 0), ECONNREFUSED);
    T_OK(pysock_close(s));
    T_OK(pysock_close(listener));
    close(busy);
    close(fds[0]);
    close(fds[1]);
}

T_TEST(a_datagram_socket_connects_as_often_as_it_likes, 30) {
    pysock *s, *peers[3];
    pysock_addr addr;
    char buf[8];
    for (int mode = 0; mode < MODES; mode++) {
        T_STEP("timeout %g", modes[mode]);
        s = T_OK(pysock_socket(AF_INET, SOCK_DGRAM, 0));
        T_OK(pysock_settimeout(s, modes[mode]));
        for (int i = 0; i < 3; i++) {
            peers[i] = T_OK(pysock_socket(AF_INET, SOCK_DGRAM, 0));
            T_OK(pysock_bind(peers[i], "127.0.0.1", 0));
            T_EQ(connect_at_last(s, "127.0.0.1", t_port_of(peers[i])), 0);
            T_OK(pysock_getpeername(s, &addr));
            T_EQ(pysock_addr_port(&addr), t_port_of(peers[i]));
            T_EQ(pysock_send(s, "hello", 5, 0), 5);
            T_EQ(pysock_recv(peers[i], buf, sizeof buf, 0), 5);
        }
        for (int i = 0; i < 3; i++)
            T_OK(pysock_close(peers[i]));
        T_OK(pysock_close(s));
    }
}

/* It dissolves a connection that a stream has not: it is new, and can listen. */
T_TEST(AF_UNSPEC_connects_no_new_stream, 30) {
    pysock *s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0)), *child, *caller;
    pysock_addr none;
    char byte;
    memset(&none, 0, sizeof none);
    none.size = sizeof none.u.in;
    none.u.sa.sa_family = AF_UNSPEC;
    T_OK(pysock_connect_addr(s, &none));
    T_FAILS(pysock_recv(s, &byte, 1, 0), PYSOCK_OS_ERROR, ENOTCONN);
    T_OK(pysock_bind(s, "127.0.0.1", 0));
    T_OK(pysock_listen(s, 1));
    T_OK(pysock_settimeout(s, 20));
    T_STEP("or connect");
    caller = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_connect_addr(caller, &none));
    T_OK(pysock_connect(caller, "127.0.0.1", t_port_of(s)));
    child = T_OK(pysock_accept(s, NULL));
    t_say(caller, "hello");
    t_expect(child, "hello");
    T_OK(pysock_close(caller));
    T_OK(pysock_close(child));
    T_OK(pysock_close(s));
}

T_MAIN(.setup = make_contexts_and_a_short_wait, .teardown = free_contexts)
