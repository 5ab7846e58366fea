/* What a socket is rather than what it sends: family, type and proto, timeouts and O_NONBLOCK,
   inheritance, options, ends; and how a descriptor becomes a socket, a socket two, and a socket a
   descriptor again. */
#include "support/contexts.h"

/* ---- helpers ---- */

static void expect_properties(pysock *s, int family, int type, int proto) {
    T_EQ(pysock_family(s), family);
    T_EQ(pysock_type(s), type);
    T_EQ(pysock_proto(s), proto);
}

/* The timeout, and O_NONBLOCK as it belongs to it. */
static void expect_timeout(pysock *s, double timeout) {
    int flags = fcntl(T_OK(pysock_fileno(s)), F_GETFL);
    if (pysock_gettimeout(s) != timeout)
        T_FAIL("the timeout is %g, not %g", pysock_gettimeout(s), timeout);
    T_EQ(pysock_getblocking(s), timeout != 0);
    T_CHECK(flags != -1);
    T_EQ((flags & O_NONBLOCK) != 0, T_HAS_O_NONBLOCK(timeout));
}

/* What a type may carry on some systems. */
#define TYPE_FLAGS (SOCK_NONBLOCK | SOCK_CLOEXEC)

/* The proto that is found out of a descriptor, where the system tells it. */
#define FOUND_PROTO(proto) (T_MACOS_LIKE ? 0 : (proto))

static int is_open(int fd) {
    return fcntl(fd, F_GETFD) != -1;
}

static int raw_socket(int family, int type) {
    int fd = socket(family, type | SOCK_CLOEXEC, 0);
    T_CHECK(fd >= 0);
    return fd;
}

static void raw_pair(int type, int fds[2]) {
    T_EQ(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds), 0);
}

static void set_nonblocking(int fd) {
    T_EQ(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), 0);
}

/* ---- what it was made as ---- */

T_TEST(family_type_and_proto_are_what_a_socket_was_made_as, 30) {
    static const struct {
        int family, type, proto, told;
        double timeout;
    } cases[] = {{AF_INET, SOCK_STREAM, 0, SOCK_STREAM, PYSOCK_NO_TIMEOUT},
                 {AF_INET, SOCK_STREAM, IPPROTO_TCP, SOCK_STREAM, PYSOCK_NO_TIMEOUT},
                 {AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0, SOCK_STREAM, 0},
                 {AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0, SOCK_STREAM, PYSOCK_NO_TIMEOUT},
                 {AF_INET, SOCK_DGRAM, 0, SOCK_DGRAM, PYSOCK_NO_TIMEOUT},
                 {AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_UDP, SOCK_DGRAM, 0},
                 {AF_INET6, SOCK_STREAM, 0, SOCK_STREAM, PYSOCK_NO_TIMEOUT},
                 {AF_INET6, SOCK_DGRAM, IPPROTO_UDP, SOCK_DGRAM, PYSOCK_NO_TIMEOUT},
                 {AF_UNIX, SOCK_STREAM, 0, SOCK_STREAM, PYSOCK_NO_TIMEOUT},
                 {AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, SOCK_DGRAM, PYSOCK_NO_TIMEOUT},
                 {AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, SOCK_SEQPACKET, 0}};
    int ipv6 = t_has_ipv6();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pysock *s;
        if (cases[i].family == AF_INET6 && !ipv6)
            continue;
        if (T_MACOS_LIKE && cases[i].type & TYPE_FLAGS)
            continue;
        T_STEP("case %zu", i);
        s = T_OK(pysock_socket(cases[i].family, cases[i].type, cases[i].proto));
        expect_properties(s, cases[i].family, cases[i].told, cases[i].proto);
        expect_timeout(s, cases[i].timeout);
        T_EQ(pysock_get_inheritable(s), 0);
        T_OK(pysock_close(s));
    }
}

/* As in Python a new connection is what its listener was made as. */
T_TEST(an_accepted_socket_is_as_its_listener, 30) {
    static const int protos[] = {0, IPPROTO_TCP};
    for (int i = 0; i < 2; i++) {
        pysock *listener = T_OK(pysock_socket(AF_INET, SOCK_STREAM, protos[i]));
        pysock *a, *b;
        T_OK(pysock_setblocking(listener, 0));
        T_OK(pysock_bind(listener, "127.0.0.1", 0));
        T_OK(pysock_listen(listener, 5));
        a = T_OK(pysock_create_connection("127.0.0.1", t_port_of(listener), 30));
        T_EQ(t_readable(listener, PYSOCK_NO_TIMEOUT), 1);
        b = T_OK(pysock_accept(listener, NULL));
        expect_properties(b, AF_INET, SOCK_STREAM, protos[i]);
        expect_timeout(b, PYSOCK_NO_TIMEOUT);
        T_EQ(pysock_get_inheritable(b), 0);
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
        T_OK(pysock_close(listener));
    }
}

T_TEST(paired_sockets_are_as_they_were_asked_for, 30) {
    static const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
    for (int i = 0; i < 3; i++)
        for (int flags = 0; flags < 2 - T_MACOS_LIKE; flags++) {
            pysock *pair[2];
            T_STEP("type %d, %s", types[i], flags ? "with flags" : "without flags");
            T_OK(pysock_socketpair(AF_UNIX, types[i] | (flags ? TYPE_FLAGS : 0), 0, pair));
            for (int n = 0; n < 2; n++) {
                expect_properties(pair[n], AF_UNIX, types[i], 0);
                expect_timeout(pair[n], flags ? 0 : PYSOCK_NO_TIMEOUT);
                T_EQ(pysock_get_inheritable(pair[n]), 0);
            }
            T_EQ(pysock_send(pair[0], "x", 1, 0), 1);
            T_EQ(t_readable(pair[1], PYSOCK_NO_TIMEOUT), 1);
            t_expect(pair[1], "x");
            t_close_pair(pair);
        }
}

T_TEST(tls_changes_nothing_of_this, 30) {
    pysock *pair[2];
    t_pair(pair);
    T_OK(pysock_settimeout(pair[0], 7));
    t_wrap_pair(pair, client_ctx, server_ctx);
    for (int i = 0; i < 2; i++) {
        expect_properties(pair[i], AF_INET, SOCK_STREAM, 0);
        T_EQ(pysock_getblocking(pair[i]), 1);
        T_EQ(pysock_get_inheritable(pair[i]), 0);
    }
    T_CHECK(pysock_gettimeout(pair[0]) == 7);
    T_CHECK(pysock_gettimeout(pair[1]) == PYSOCK_NO_TIMEOUT);
    T_OK(pysock_setblocking(pair[0], 0));
    T_EQ(pysock_getblocking(pair[0]), 0);
    t_close_pair(pair);
}

/* ---- timeouts ---- */

static const double several[] = {PYSOCK_NO_TIMEOUT, 0, 2.5, 0, PYSOCK_NO_TIMEOUT, 1e-9, 3600, 0.5,
                                 PYSOCK_NO_TIMEOUT};
#define SEVERAL (sizeof several / sizeof several[0])

T_TEST(a_timeout_and_the_descriptors_mode_go_together, 30) {
    for (int type = 0; type < 2; type++) {
        pysock *s = T_OK(pysock_socket(AF_INET, type ? SOCK_DGRAM : SOCK_STREAM, 0));
        expect_timeout(s, PYSOCK_NO_TIMEOUT);
        for (size_t i = 0; i < SEVERAL; i++)
            for (size_t k = 0; k < SEVERAL; k++) {
                T_OK(pysock_settimeout(s, several[i]));
                expect_timeout(s, several[i]);
                T_OK(pysock_settimeout(s, several[k]));
                expect_timeout(s, several[k]);
                T_OK(pysock_setblocking(s, i & 1 ? 1 : -7));
                expect_timeout(s, PYSOCK_NO_TIMEOUT);
                T_OK(pysock_settimeout(s, several[k]));
                T_OK(pysock_setblocking(s, 0));
                expect_timeout(s, 0);
            }
        T_OK(pysock_close(s));
    }
}

T_TEST(a_wrong_timeout_leaves_the_right_one, 30) {
    static const double wrong[] = {-0.5, -3, PYSOCK_DEFAULT_TIMEOUT, -1e300, -INFINITY, NAN};
    pysock *s;
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    for (size_t k = 0; k < SEVERAL; k++)
        for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
            T_OK(pysock_settimeout(s, several[k]));
            T_FAILS(pysock_settimeout(s, wrong[i]), PYSOCK_VALUE_ERROR, EINVAL);
            expect_timeout(s, several[k]);
            T_OK(pysock_setdefaulttimeout(several[k]));
            T_FAILS(pysock_setdefaulttimeout(wrong[i]), PYSOCK_VALUE_ERROR, EINVAL);
            T_CHECK(pysock_getdefaulttimeout() == several[k]);
        }
    T_OK(pysock_setdefaulttimeout(PYSOCK_NO_TIMEOUT));
    T_OK(pysock_close(s));
}

/* As in Python O_NONBLOCK stays where a descriptor brought it along and nothing asks for a mode;
   the socket blocks all the same. */
static void expect_default(pysock *s, double timeout, int nonblocking) {
    T_CHECK(pysock_gettimeout(s) == timeout);
    T_EQ(pysock_getblocking(s), timeout != 0);
    if (!nonblocking || timeout >= 0)
        expect_timeout(s, timeout);
}

/* Whatever a socket is made by, and whatever its descriptor or its listener was. */
T_TEST(every_new_socket_has_the_default_timeout, 30) {
    static const double defaults[] = {PYSOCK_NO_TIMEOUT, 0, 5, 0.25, PYSOCK_NO_TIMEOUT};
    pysock *old;
    T_CHECK(pysock_getdefaulttimeout() == PYSOCK_NO_TIMEOUT);
    old = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    for (size_t i = 0; i < sizeof defaults / sizeof defaults[0]; i++) {
        pysock *s, *pair[2];
        T_STEP("default %g", defaults[i]);
        T_OK(pysock_setdefaulttimeout(defaults[i]));
        T_CHECK(pysock_getdefaulttimeout() == defaults[i]);
        s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
        expect_timeout(s, defaults[i]);
        expect_properties(s, AF_INET, SOCK_STREAM, 0);
        T_OK(pysock_close(s));
        s = t_nonblocking_socket(AF_INET);
        expect_timeout(s, 0);
        T_OK(pysock_close(s));
        T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
        expect_timeout(pair[0], defaults[i]);
        expect_timeout(pair[1], defaults[i]);
        t_close_pair(pair);
        s = T_OK(pysock_create_server("127.0.0.1", 0, 5));
        expect_timeout(s, defaults[i]);
        T_OK(pysock_close(s));
        for (int nonblocking = 0; nonblocking < 2; nonblocking++) {
            int fd = raw_socket(AF_INET, SOCK_STREAM);
            if (nonblocking)
                set_nonblocking(fd);
            s = T_OK(pysock_fromfd(fd, AF_INET, SOCK_STREAM, 0));
            expect_default(s, defaults[i], nonblocking);
            T_OK(pysock_close(s));
            s = T_OK(pysock_adopt(fd, -1, -1, -1));
            expect_default(s, defaults[i], nonblocking);
            T_OK(pysock_settimeout(s, 3));
            T_OK(pysock_settimeout(s, PYSOCK_NO_TIMEOUT));
            expect_timeout(s, PYSOCK_NO_TIMEOUT);
            T_OK(pysock_close(s));
        }
        T_STEP("what is older keeps its own");
        expect_timeout(old, PYSOCK_NO_TIMEOUT);
    }
    T_OK(pysock_close(old));
}

T_TEST(an_accepted_socket_has_the_default_timeout_whatever_its_listener_has, 60) {
    static const double timeouts[] = {PYSOCK_NO_TIMEOUT, 0, 10, 20};
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 4; k++)
            for (int tls = 0; tls < 2; tls++) {
                int port;
                pysock *listener = t_listen(&port), *a, *b;
                T_STEP("%s listener with %g, default %g", tls ? "TLS" : "plain", timeouts[i],
                       timeouts[k]);
                T_OK(pysock_settimeout(listener, timeouts[i]));
                if (tls)
                    T_OK(pysock_ssl_wrap_socket(listener, server_ctx, NULL));
                a = T_OK(pysock_create_connection("127.0.0.1", port, PYSOCK_NO_TIMEOUT));
                T_EQ(t_readable(listener, PYSOCK_NO_TIMEOUT), 1);
                T_OK(pysock_setdefaulttimeout(timeouts[k]));
                b = T_OK(pysock_accept(listener, NULL));
                T_OK(pysock_setdefaulttimeout(PYSOCK_NO_TIMEOUT));
                if (!tls)
                    expect_timeout(b, timeouts[k]);
                T_CHECK(pysock_gettimeout(b) == timeouts[k]);
                T_EQ(pysock_getblocking(b), timeouts[k] != 0);
                T_CHECK(pysock_gettimeout(listener) == timeouts[i]);
                T_OK(pysock_close(a));
                T_OK(pysock_close(b));
                T_OK(pysock_close(listener));
            }
}

T_TEST(a_default_timeout_is_kept_by_calls, 30) {
    int port;
    pysock *listener, *a, *b;
    char byte;
    double start;
    T_OK(pysock_setdefaulttimeout(0.1));
    listener = t_listen(&port);
    start = t_now();
    T_FAILS(pysock_accept(listener, NULL), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    T_CHECK(t_now() - start >= 0.099);
    a = T_OK(pysock_create_connection("127.0.0.1", port, PYSOCK_NO_TIMEOUT));
    T_OK(pysock_settimeout(listener, 30));
    b = T_OK(pysock_accept(listener, NULL));
    T_OK(pysock_setdefaulttimeout(0));
    T_STEP("that of the moment when it was made");
    T_FAILS(pysock_recv(b, &byte, 1, 0), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    T_OK(pysock_close(b));
    T_OK(pysock_close(a));
    T_OK(pysock_close(listener));
    listener = t_listen(&port);
    T_FAILS(pysock_accept(listener, NULL), PYSOCK_OS_ERROR, EAGAIN);
    T_OK(pysock_setdefaulttimeout(PYSOCK_NO_TIMEOUT));
    T_OK(pysock_close(listener));
}

/* ---- inheritance ---- */

T_TEST(inheritance_is_the_descriptors_flag, 30) {
    pysock *s;
    int fd, flags;
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    fd = T_OK(pysock_fileno(s));
    T_EQ(pysock_get_inheritable(s), 0);
    T_EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    T_OK(pysock_set_inheritable(s, 1));
    T_EQ(pysock_get_inheritable(s), 1);
    T_EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
    T_OK(pysock_set_inheritable(s, 0));
    T_EQ(pysock_get_inheritable(s), 0);
    T_EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    T_OK(pysock_set_inheritable(s, -5));
    T_EQ(pysock_get_inheritable(s), 1);
    T_STEP("changed behind the library's back");
    flags = fcntl(fd, F_GETFD);
    T_EQ(fcntl(fd, F_SETFD, flags | FD_CLOEXEC), 0);
    T_EQ(pysock_get_inheritable(s), 0);
    T_EQ(fcntl(fd, F_SETFD, flags & ~FD_CLOEXEC), 0);
    T_EQ(pysock_get_inheritable(s), 1);
    T_OK(pysock_close(s));
}

/* Adopting leaves the flag alone, as in Python; a copy is never inherited. */
T_TEST(only_an_adopted_descriptor_keeps_its_inheritance, 30) {
    for (int inheritable = 0; inheritable < 2; inheritable++) {
        int fd = raw_socket(AF_INET, SOCK_STREAM);
        pysock *s, *copy;
        T_STEP("inheritable %d", inheritable);
        T_EQ(fcntl(fd, F_SETFD, inheritable ? 0 : FD_CLOEXEC), 0);
        copy = T_OK(pysock_fromfd(fd, -1, -1, -1));
        T_EQ(pysock_get_inheritable(copy), 0);
        T_OK(pysock_close(copy));
        s = T_OK(pysock_adopt(fd, -1, -1, -1));
        T_EQ(pysock_get_inheritable(s), inheritable);
        copy = T_OK(pysock_dup(s));
        T_EQ(pysock_get_inheritable(copy), 0);
        T_EQ(pysock_get_inheritable(s), inheritable);
        T_OK(pysock_close(copy));
        T_EQ(pysock_detach(s), fd);
        T_EQ((fcntl(fd, F_GETFD) & FD_CLOEXEC) == 0, inheritable);
        close(fd);
    }
}

/* Whether a program that is started has the descriptor. */
static int is_open_in_a_program(int fd) {
    char command[64];
    int status = 0;
    pid_t pid;
    snprintf(command, sizeof command, "test -e /proc/self/fd/%d", fd);
    pid = fork();
    T_CHECK(pid >= 0);
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    T_EQ(waitpid(pid, &status, 0), pid);
    T_CHECK(WIFEXITED(status) && WEXITSTATUS(status) <= 1);
    return WEXITSTATUS(status) == 0;
}

T_TEST(programs_get_what_is_inheritable_and_nothing_else, 60) {
    pysock *made[8], *pair[2];
    int port, raw, n = 0;
    made[n++] = t_listen(&port);
    made[n++] = T_OK(pysock_create_connection("127.0.0.1", port, 30));
    made[n++] = T_OK(pysock_accept(made[0], NULL));
    T_OK(pysock_socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
    made[n++] = pair[0];
    made[n++] = pair[1];
    made[n++] = T_OK(pysock_dup(made[0]));
    raw = socket(AF_INET, SOCK_STREAM, 0);
    T_CHECK(raw >= 0);
    made[n++] = T_OK(pysock_fromfd(raw, -1, -1, -1));
    T_EQ(is_open_in_a_program(raw), 1);
    close(raw);
    for (int i = 0; i < n; i++) {
        int fd = T_OK(pysock_fileno(made[i]));
        T_STEP("socket %d", i);
        T_EQ(is_open_in_a_program(fd), 0);
        T_OK(pysock_set_inheritable(made[i], 1));
        T_EQ(is_open_in_a_program(fd), 1);
        T_OK(pysock_set_inheritable(made[i], 0));
        T_EQ(is_open_in_a_program(fd), 0);
    }
    for (int i = 0; i < n; i++)
        T_OK(pysock_close(made[i]));
}

/* ---- adopting ---- */

/* What another program does with a listener that it was started with: adopts it, and serves. */
static int serve(int fd) {
    pysock *listener = T_OK(pysock_adopt(fd, -1, -1, -1));
    pysock *s = T_OK(pysock_accept(listener, NULL));
    expect_properties(listener, AF_INET, SOCK_STREAM, FOUND_PROTO(IPPROTO_TCP));
    t_say(s, "slapmahfro");
    T_OK(pysock_close(s));
    T_OK(pysock_close(listener));
    return 0;
}

/* As inetd and systemd do it; Python's TestSocketSharing. */
T_TEST(a_program_may_be_started_with_a_listener, 60) {
    int port;
    pysock *listener, *s;
    char text[16], byte;
    pid_t pid;
    listener = t_listen(&port);
    T_OK(pysock_set_inheritable(listener, 1));
    snprintf(text, sizeof text, "%d", T_OK(pysock_fileno(listener)));
    pid = fork();
    T_CHECK(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl("/proc/self/exe", "test_properties", "--serve", text, (char *)NULL);
        _exit(127);
    }
    T_OK(pysock_close(listener));
    s = T_OK(pysock_create_connection("127.0.0.1", port, PYSOCK_NO_TIMEOUT));
    t_expect(s, "slapmahfro");
    T_EQ(pysock_recv(s, &byte, 1, 0), 0);
    T_OK(pysock_close(s));
    t_wait_for_child(pid);
}

T_TEST(what_a_descriptor_is_is_found_out, 30) {
    static const struct {
        int family, type, proto;
    } cases[] = {{AF_INET, SOCK_STREAM, IPPROTO_TCP},
                 {AF_INET, SOCK_DGRAM, IPPROTO_UDP},
                 {AF_INET6, SOCK_STREAM, IPPROTO_TCP},
                 {AF_INET6, SOCK_DGRAM, IPPROTO_UDP},
                 {AF_UNIX, SOCK_STREAM, 0},
                 {AF_UNIX, SOCK_DGRAM, 0},
                 {AF_UNIX, SOCK_SEQPACKET, 0}};
    int ipv6 = t_has_ipv6();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int fd;
        pysock *s;
        if (cases[i].family == AF_INET6 && !ipv6)
            continue;
        T_STEP("case %zu", i);
        fd = raw_socket(cases[i].family, cases[i].type);
        s = T_OK(pysock_adopt(fd, -1, -1, -1));
        T_EQ(pysock_fileno(s), fd);
        T_CHECK(pysock_from_fileno(fd) == s);
        expect_properties(s, cases[i].family, cases[i].type, FOUND_PROTO(cases[i].proto));
        T_EQ(pysock_is_ssl(s), 0);
        T_OK(pysock_close(s));
        T_EQ(is_open(fd), 0);
        T_STEP("case %zu, half of it told", i);
        fd = raw_socket(cases[i].family, cases[i].type);
        s = T_OK(pysock_adopt(fd, cases[i].family, -1, cases[i].proto));
        expect_properties(s, cases[i].family, cases[i].type, cases[i].proto);
        T_EQ(pysock_detach(s), fd);
        s = T_OK(pysock_adopt(fd, -1, cases[i].type, -1));
        expect_properties(s, cases[i].family, cases[i].type, FOUND_PROTO(cases[i].proto));
        T_EQ(pysock_detach(s), fd);
        T_STEP("case %zu, all of it told", i);
        s = T_OK(pysock_adopt(fd, cases[i].family,
                              cases[i].type | (T_MACOS_LIKE ? 0 : SOCK_CLOEXEC), 0));
        expect_properties(s, cases[i].family, cases[i].type, 0);
        T_OK(pysock_close(s));
    }
}

T_TEST(what_is_no_socket_stays_with_its_owner, 30) {
    int fds[2], file, dir, fds_before;
    char byte;
    T_EQ(pipe(fds), 0);
    file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    dir = open("/", O_RDONLY | O_CLOEXEC);
    T_CHECK(file >= 0 && dir >= 0);
    fds_before = t_count_fds();
    for (int told = 0; told < 2; told++) {
        int family = told ? AF_INET : -1, type = told ? SOCK_STREAM : -1, proto = told ? 0 : -1;
        const int none[] = {fds[0], fds[1], file, dir};
        T_STEP("%s", told ? "with a family" : "to be found out");
        for (int i = 0; i < 4; i++) {
            T_FAILS(pysock_adopt(none[i], family, type, proto), PYSOCK_OS_ERROR, ENOTSOCK);
            T_FAILS(pysock_fromfd(none[i], family, type, proto), PYSOCK_OS_ERROR, ENOTSOCK);
            T_EQ(is_open(none[i]), 1);
            T_CHECK(pysock_from_fileno(none[i]) == NULL);
        }
        T_FAILS(pysock_adopt(-1, family, type, proto), PYSOCK_VALUE_ERROR, EINVAL);
        T_FAILS(pysock_adopt(-42, family, type, proto), PYSOCK_VALUE_ERROR, EINVAL);
        T_FAILS(pysock_fromfd(-1, family, type, proto), PYSOCK_VALUE_ERROR, EINVAL);
        T_FAILS(pysock_adopt(1000000, family, type, proto), PYSOCK_OS_ERROR, EBADF);
        T_FAILS(pysock_fromfd(1000000, family, type, proto), PYSOCK_OS_ERROR, EBADF);
        close(dir);
        T_FAILS(pysock_adopt(dir, family, type, proto), PYSOCK_OS_ERROR, EBADF);
        T_FAILS(pysock_fromfd(dir, family, type, proto), PYSOCK_OS_ERROR, EBADF);
        T_EQ(open("/", O_RDONLY | O_CLOEXEC), dir);
    }
    T_EQ(t_count_fds(), fds_before);
    T_EQ(write(fds[1], "x", 1), 1);
    T_EQ(read(fds[0], &byte, 1), 1);
    close(fds[0]);
    close(fds[1]);
    close(file);
    close(dir);
}

T_TEST(an_adopted_connection_sends_and_receives, 60) {
    for (int tcp = 0; tcp < 2; tcp++)
        for (int nonblocking = 0; nonblocking < 2; nonblocking++) {
            int fds[2];
            pysock *pair[2];
            pysock_addr addr;
            t_waiter w;
            t_thread t;
            T_STEP("%s, %s", tcp ? "TCP" : "Unix", nonblocking ? "O_NONBLOCK" : "blocking");
            if (tcp) {
                int port, listener = t_raw_listen(&port);
                fds[0] = t_raw_connect(port);
                fds[1] = t_raw_accept(listener);
                close(listener);
            } else {
                raw_pair(SOCK_STREAM, fds);
            }
            if (nonblocking)
                set_nonblocking(fds[0]);
            for (int i = 0; i < 2; i++)
                pair[i] = T_OK(pysock_adopt(fds[i], -1, -1, -1));
            T_OK(pysock_getpeername(pair[0], &addr));
            T_EQ(addr.u.sa.sa_family, tcp ? AF_INET : AF_UNIX);
            t_echo_once(pair[0], pair[1]);
            T_STEP("it is connected");
            if (tcp)
                T_FAILS(pysock_connect(pair[0], "127.0.0.1", 9), PYSOCK_OS_ERROR, EISCONN);
            T_EQ(t_readable(pair[0], 0), 0);
            T_EQ(t_writable(pair[0], 0), 1);
            T_STEP("it blocks, whatever the descriptor did");
            memset(&w, 0, sizeof w);
            w.what = T_WAIT_RECV;
            w.s = pair[0];
            t_spawn(&t, t_wait_thread, &w);
            t_wait_asleep(&t);
            t_say(pair[1], "x");
            t_join(&t);
            T_EQ(w.result, 1);
            T_STEP("TLS goes around it");
            t_wrap_pair(pair, client_ctx, server_ctx);
            t_echo_once(pair[0], pair[1]);
            t_close_pair(pair);
        }
}

/* As Python's sockets are; the other ones wait, as the cases above have it. */
T_TEST(a_socket_that_obeys_o_nonblock_does_not_wait, 30) {
    int fds[2], port, fd;
    char buf[8];
    pysock *s;
    raw_pair(SOCK_STREAM, fds);
    set_nonblocking(fds[0]);
    s = T_OK(pysock_adopt(fds[0], -1, -1, -1));
    T_OK(pysock_obey_nonblock(s, 1));
    T_CHECK(pysock_gettimeout(s) == PYSOCK_NO_TIMEOUT);
    T_FAILS(pysock_recv(s, buf, sizeof buf, 0), PYSOCK_OS_ERROR, EAGAIN);
    T_FAILS(pysock_sendall(s, t_flood(), 4u << 20, 0), PYSOCK_OS_ERROR, EAGAIN);
    T_STEP("a timeout makes an end of it");
    T_OK(pysock_settimeout(s, PYSOCK_NO_TIMEOUT));
    T_EQ((fcntl(fds[0], F_GETFL) & O_NONBLOCK) != 0, T_HAS_O_NONBLOCK(PYSOCK_NO_TIMEOUT));
    T_EQ(send(fds[1], "x", 1, 0), 1);
    T_EQ(T_OK(pysock_recv(s, buf, sizeof buf, 0)), 1);
    T_OK(pysock_close(s));
    close(fds[1]);
    T_STEP("a listener, and a connect");
    fd = t_raw_listen(&port);
    set_nonblocking(fd);
    s = T_OK(pysock_adopt(fd, -1, -1, -1));
    T_OK(pysock_obey_nonblock(s, 1));
    T_FAILS(pysock_accept(s, NULL), PYSOCK_OS_ERROR, EAGAIN);
    T_OK(pysock_close(s));
    if (T_HAS_O_NONBLOCK(PYSOCK_NO_TIMEOUT))
        return; /* every descriptor has it: who set it cannot be seen afterwards */
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_obey_nonblock(s, 1));
    fd = t_raw_listen(&port);
    set_nonblocking(T_OK(pysock_fileno(s)));
    T_FAILS(pysock_connect(s, "127.0.0.1", port), PYSOCK_OS_ERROR, EINPROGRESS);
    T_EQ(t_writable(s, PYSOCK_NO_TIMEOUT), 1);
    T_CHECK(fcntl(T_OK(pysock_fileno(s)), F_GETFL) & O_NONBLOCK);
    T_OK(pysock_close(s));
    close(fd);
}

T_TEST(an_adopted_listener_accepts, 60) {
    for (int tls = 0; tls < 2; tls++) {
        int port, fd = t_raw_listen(&port), on = 0;
        pysock *listener = T_OK(pysock_adopt(fd, -1, -1, -1));
        pysock *a, *b;
        pysock_addr addr;
        t_thread t;
        T_OK(pysock_getsockopt_int(listener, SOL_SOCKET, SO_ACCEPTCONN, &on));
        T_EQ(on, 1);
        T_EQ(t_readable(listener, 0), 0);
        T_EQ(t_writable(listener, 0), 0);
        if (tls)
            T_OK(pysock_ssl_wrap_socket(listener, server_ctx, NULL));
        a = T_OK(pysock_create_connection("127.0.0.1", port, PYSOCK_NO_TIMEOUT));
        T_EQ(t_readable(listener, PYSOCK_NO_TIMEOUT), 1);
        b = T_OK(pysock_accept(listener, &addr));
        T_EQ(pysock_addr_port(&addr), t_port_of(a));
        expect_properties(b, AF_INET, SOCK_STREAM, FOUND_PROTO(IPPROTO_TCP));
        T_EQ(pysock_is_ssl(b), tls);
        if (tls) {
            t_spawn(&t, t_handshake_thread, b);
            T_OK(pysock_ssl_wrap_socket(a, client_ctx, "localhost"));
            t_join(&t);
        }
        t_echo_once(a, b);
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
        T_OK(pysock_close(listener));
    }
}

T_TEST(what_is_adopted_before_it_is_connected_can_do_so, 60) {
    int port;
    pysock *listener, *s, *b;
    T_STEP("connect");
    listener = t_listen(&port);
    s = T_OK(pysock_adopt(raw_socket(AF_INET, SOCK_STREAM), -1, -1, -1));
    T_OK(pysock_connect(s, "127.0.0.1", port));
    b = T_OK(pysock_accept(listener, NULL));
    t_echo_once(s, b);
    T_OK(pysock_close(s));
    T_OK(pysock_close(b));
    T_OK(pysock_close(listener));
    T_STEP("bind and listen");
    s = T_OK(pysock_adopt(raw_socket(AF_INET, SOCK_STREAM), -1, -1, -1));
    T_OK(pysock_bind(s, "127.0.0.1", 0));
    T_OK(pysock_listen(s, 5));
    listener = T_OK(pysock_create_connection("127.0.0.1", t_port_of(s), 30));
    b = T_OK(pysock_accept(s, NULL));
    t_echo_once(listener, b);
    T_OK(pysock_close(listener));
    T_OK(pysock_close(b));
    T_OK(pysock_close(s));
}

T_TEST(an_adopted_datagram_socket_keeps_borders, 30) {
    static const int types[] = {SOCK_DGRAM, SOCK_SEQPACKET};
    for (int i = 0; i < 2; i++) {
        int fds[2];
        char buf[8];
        pysock *s;
        T_STEP("type %d", types[i]);
        raw_pair(types[i], fds);
        s = T_OK(pysock_adopt(fds[0], -1, -1, -1));
        T_EQ(send(fds[1], "one", 3, 0), 3);
        T_EQ(send(fds[1], "four", 4, 0), 4);
        T_EQ(pysock_recv(s, buf, sizeof buf, 0), 3);
        T_EQ(pysock_recv(s, buf, sizeof buf, 0), 4);
        T_EQ(pysock_send(s, "five5", 5, 0), 5);
        T_EQ(recv(fds[1], buf, sizeof buf, 0), 5);
        T_OK(pysock_close(s));
        close(fds[1]);
    }
}

T_TEST(userdata_is_the_programs_own, 30) {
    static char mine;
    int port;
    pysock *listener = t_listen(&port), *s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    pysock *child, *copy;
    T_CHECK(pysock_userdata(s) == NULL);
    T_OK(pysock_set_userdata(listener, &port));
    T_OK(pysock_set_userdata(s, &mine));
    T_OK(pysock_connect(s, "127.0.0.1", port));
    T_CHECK(pysock_userdata(s) == &mine);
    T_CHECK(pysock_userdata(pysock_from_fileno(pysock_fileno(s))) == &mine);
    child = T_OK(pysock_accept(listener, NULL));
    copy = T_OK(pysock_dup(s));
    T_CHECK(pysock_userdata(child) == NULL);
    T_CHECK(pysock_userdata(copy) == NULL);
    T_OK(pysock_set_userdata(s, NULL));
    T_CHECK(pysock_userdata(s) == NULL);
    T_OK(pysock_close(s));
    T_FAILS(pysock_userdata(s), PYSOCK_OS_ERROR, EBADF);
    T_FAILS(pysock_set_userdata(s, &mine), PYSOCK_OS_ERROR, EBADF);
    T_FAILS(pysock_set_userdata(NULL, &mine), PYSOCK_VALUE_ERROR, EINVAL);
    T_OK(pysock_close(copy));
    T_OK(pysock_close(child));
    T_OK(pysock_close(listener));
}

/* Python's test_setblocking_invalidfd: of two sockets on one descriptor the one that is left says
   that it is gone. */
T_TEST(a_descriptor_that_somebody_closed_is_told, 30) {
    pysock *first, *second;
    int fd, value;
    char byte;
    first = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    fd = T_OK(pysock_fileno(first));
    second = T_OK(pysock_adopt(fd, -1, -1, -1));
    T_OK(pysock_close(first));
    T_EQ(is_open(fd), 0);
    T_FAILS(pysock_setblocking(second, 0), PYSOCK_OS_ERROR, EBADF);
    T_FAILS(pysock_settimeout(second, 5), PYSOCK_OS_ERROR, EBADF);
    T_ASKS_IN_VAIN(pysock_get_inheritable(second), PYSOCK_OS_ERROR, EBADF);
    T_FAILS(pysock_getsockopt_int(second, SOL_SOCKET, SO_TYPE, &value), PYSOCK_OS_ERROR, EBADF);
    T_FAILS(pysock_recv(second, &byte, 1, 0), PYSOCK_OS_ERROR, EBADF);
    T_FAILS(pysock_dup(second), PYSOCK_OS_ERROR, EBADF);
    (void)pysock_detach(second);
    T_OK(pysock_close(second));
}

/* ---- copies ---- */

T_TEST(fromfd_leaves_the_descriptor_to_its_owner, 30) {
    int fds[2], count;
    pysock *s;
    raw_pair(SOCK_STREAM, fds);
    pysock_cleanup();
    count = t_count_fds();
    s = T_OK(pysock_fromfd(fds[0], -1, -1, -1));
    T_CHECK(pysock_fileno(s) != fds[0]);
    expect_properties(s, AF_UNIX, SOCK_STREAM, 0);
    t_say(s, "by the copy");
    T_EQ(write(fds[0], " or not", 7), 7);
    {
        char buf[18];
        T_EQ(t_raw_read(fds[1], buf, 18), 18);
        T_CHECK(memcmp(buf, "by the copy or not", 18) == 0);
    }
    T_EQ(write(fds[1], "answer", 6), 6);
    t_expect(s, "answer");
    T_OK(pysock_close(s));
    T_EQ(is_open(fds[0]), 1);
    T_EQ(write(fds[0], "x", 1), 1);
    T_EQ(t_count_fds(), count);
    close(fds[0]);
    close(fds[1]);
}

T_TEST(a_duplicate_is_a_second_socket_on_the_connection, 60) {
    for (int local = 0; local < 2; local++)
        for (int first = 0; first < 2; first++) {
            pysock *pair[2], *both[2];
            char byte;
            T_STEP("%s, number %d closed first", local ? "Unix" : "TCP", first);
            if (local)
                T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
            else
                t_pair(pair);
            both[0] = pair[0];
            both[1] = T_OK(pysock_dup(pair[0]));
            T_CHECK(both[1] != both[0]);
            T_CHECK(pysock_fileno(both[1]) != pysock_fileno(both[0]));
            expect_properties(both[1], local ? AF_UNIX : AF_INET, SOCK_STREAM, 0);
            T_EQ(pysock_get_inheritable(both[1]), 0);
            for (int i = 0; i < 2; i++)
                t_echo_once(both[i], pair[1]);
            T_OK(pysock_close(both[first]));
            T_FAILS(pysock_fileno(both[first]), PYSOCK_OS_ERROR, EBADF);
            t_echo_once(both[!first], pair[1]);
            T_EQ(t_readable(pair[1], 0), 0);
            T_OK(pysock_close(both[!first]));
            T_EQ(pysock_recv(pair[1], &byte, 1, 0), 0);
            T_OK(pysock_close(pair[1]));
        }
}

T_TEST(a_duplicate_begins_with_the_timeout_of_the_first, 30) {
    T_OK(pysock_setdefaulttimeout(17));
    for (size_t i = 0; i < SEVERAL; i++) {
        pysock *pair[2], *copy;
        T_STEP("%g", several[i]);
        T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
        T_OK(pysock_settimeout(pair[0], several[i]));
        copy = T_OK(pysock_dup(pair[0]));
        expect_timeout(copy, several[i]);
        expect_timeout(pair[0], several[i]);
        T_OK(pysock_close(copy));
        expect_timeout(pair[0], several[i]);
        t_close_pair(pair);
    }
    T_OK(pysock_setdefaulttimeout(PYSOCK_NO_TIMEOUT));
}

/* O_NONBLOCK is one for both, a timeout is not. */
T_TEST(two_duplicates_may_have_different_timeouts, 30) {
    for (int last = 0; last < 2; last++) {
        pysock *pair[2], *waits, *never;
        t_waiter w;
        t_thread t;
        char byte;
        T_STEP("the %s one is set last", last ? "blocking" : "non-blocking");
        t_pair(pair);
        waits = pair[0];
        never = T_OK(pysock_dup(waits));
        T_OK(pysock_setblocking(last ? never : waits, !last));
        T_OK(pysock_setblocking(last ? waits : never, last));
        T_FAILS(pysock_recv(never, &byte, 1, 0), PYSOCK_OS_ERROR, EAGAIN);
        memset(&w, 0, sizeof w);
        w.what = T_WAIT_RECV;
        w.s = waits;
        t_spawn(&t, t_wait_thread, &w);
        t_wait_asleep(&t);
        T_FAILS(pysock_recv(never, &byte, 1, 0), PYSOCK_OS_ERROR, EAGAIN);
        t_say(pair[1], "x");
        t_join(&t);
        T_EQ(w.result, 1);
        T_OK(pysock_close(never));
        t_close_pair(pair);
    }
}

/* As CPython: whoever asks for a mode gets it, even if this socket had it already and somebody else
   has changed it, or the descriptor brought another one along. */
T_TEST(a_timeout_sets_the_mode_whatever_it_was, 30) {
    static const double timeouts[] = {PYSOCK_NO_TIMEOUT, 0, 5};
    for (size_t i = 0; i < sizeof timeouts / sizeof timeouts[0]; i++) {
        pysock *pair[2];
        int fd;
        T_STEP("%g", timeouts[i]);
        t_pair(pair);
        fd = pysock_fileno(pair[0]);
        for (int again = 0; again < 2; again++) {
            T_OK(pysock_settimeout(pair[0], timeouts[i]));
            expect_timeout(pair[0], timeouts[i]);
            T_EQ(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) ^ O_NONBLOCK), 0);
        }
        T_OK(pysock_settimeout(pair[0], timeouts[i]));
        expect_timeout(pair[0], timeouts[i]);
        t_close_pair(pair);
    }
}

T_TEST(any_plain_socket_can_be_duplicated, 30) {
    int port;
    pysock *listener, *copy, *a, *b;
    char buf[8];
    T_STEP("a listener");
    listener = t_listen(&port);
    copy = T_OK(pysock_dup(listener));
    T_OK(pysock_close(listener));
    a = T_OK(pysock_create_connection("127.0.0.1", port, 30));
    b = T_OK(pysock_accept(copy, NULL));
    t_echo_once(a, b);
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
    T_OK(pysock_close(copy));
    T_STEP("one that is nothing yet");
    a = T_OK(pysock_socket(AF_INET, SOCK_DGRAM, 0));
    copy = T_OK(pysock_dup(a));
    T_OK(pysock_bind(a, "127.0.0.1", 0));
    T_EQ(t_port_of(copy), t_port_of(a));
    b = T_OK(pysock_socket(AF_INET, SOCK_DGRAM, 0));
    T_OK(pysock_connect(b, "127.0.0.1", t_port_of(copy)));
    T_EQ(pysock_send(b, "one", 3, 0), 3);
    T_EQ(pysock_recv(copy, buf, sizeof buf, 0), 3);
    T_EQ(pysock_send(b, "four", 4, 0), 4);
    T_EQ(pysock_recv(a, buf, sizeof buf, 0), 4);
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
    T_OK(pysock_close(copy));
}

T_TEST(tls_cannot_be_duplicated, 60) {
    pysock *pair[2], *copy;
    t_tls_pair(pair, client_ctx, server_ctx);
    T_FAILS(pysock_dup(pair[0]), PYSOCK_OS_ERROR, ENOTSUP);
    T_FAILS(pysock_dup(pair[1]), PYSOCK_OS_ERROR, ENOTSUP);
    t_echo_once(pair[0], pair[1]);
    T_STEP("what was TLS can");
    {
        t_thread t;
        t_waiter w;
        memset(&w, 0, sizeof w);
        w.what = T_WAIT_UNWRAP;
        w.s = pair[1];
        t_spawn(&t, t_wait_thread, &w);
        T_EQ(pysock_ssl_unwrap(pair[0]), 0);
        t_join(&t);
        T_EQ(w.result, 0);
    }
    copy = T_OK(pysock_dup(pair[0]));
    t_echo_once(copy, pair[1]);
    T_OK(pysock_close(copy));
    t_close_pair(pair);
}

/* ---- detaching ---- */

T_TEST(detach_hands_the_descriptor_out, 60) {
    for (int local = 0; local < 2; local++)
        for (size_t i = 0; i < SEVERAL; i++) {
            pysock *pair[2], *again;
            char buf[8];
            int fd;
            T_STEP("%s, timeout %g", local ? "Unix" : "TCP", several[i]);
            if (local)
                T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
            else
                t_pair(pair);
            T_OK(pysock_settimeout(pair[0], several[i]));
            t_say(pair[1], "before");
            fd = T_OK(pysock_fileno(pair[0]));
            T_EQ(pysock_detach(pair[0]), fd);
            T_CHECK(pysock_from_fileno(fd) == NULL);
            T_FAILS(pysock_fileno(pair[0]), PYSOCK_OS_ERROR, EBADF);
            T_FAILS(pysock_recv(pair[0], buf, 1, 0), PYSOCK_OS_ERROR, EBADF);
            T_FAILS(pysock_send(pair[0], "x", 1, 0), PYSOCK_OS_ERROR, EBADF);
            T_FAILS(pysock_detach(pair[0]), PYSOCK_OS_ERROR, EBADF);
            T_EQ(pysock_close(pair[0]), 0);
            T_STEP("it is open, and has what was on its way");
            T_EQ(is_open(fd), 1);
            T_EQ((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0, several[i] >= 0);
            T_EQ(t_raw_read(fd, buf, 6), 6);
            T_CHECK(memcmp(buf, "before", 6) == 0);
            T_EQ(write(fd, "by hand", 7), 7);
            t_expect(pair[1], "by hand");
            T_STEP("and may become a socket again");
            again = T_OK(pysock_adopt(fd, -1, -1, -1));
            T_CHECK(again != pair[0]);
            t_echo_once(again, pair[1]);
            T_FAILS(pysock_fileno(pair[0]), PYSOCK_OS_ERROR, EBADF);
            T_EQ(pysock_close(pair[0]), 0);
            t_echo_once(again, pair[1]);
            T_OK(pysock_close(again));
            T_EQ(is_open(fd), 0);
            T_OK(pysock_close(pair[1]));
        }
}

/* A second socket looks through the descriptor for a moment: the first one has it again then, with
   all that select knows of it. */
T_TEST(a_descriptor_goes_back_to_whom_it_was_adopted_from, 30) {
    pysock *pair[2], *guest;
    int fd;
    t_pair(pair);
    fd = T_OK(pysock_fileno(pair[0]));
    T_CHECK(pysock_from_fileno(fd) == pair[0]);
    guest = T_OK(pysock_adopt(fd, -1, -1, -1));
    T_CHECK(pysock_from_fileno(fd) == guest);
    T_EQ(pysock_detach(guest), fd);
    T_CHECK(pysock_from_fileno(fd) == pair[0]);
    T_STEP("and to nobody where that one is gone");
    guest = T_OK(pysock_adopt(fd, -1, -1, -1));
    T_EQ(pysock_detach(pair[0]), fd);
    T_CHECK(pysock_from_fileno(fd) == guest);
    T_EQ(pysock_detach(guest), fd);
    T_CHECK(pysock_from_fileno(fd) == NULL);
    close(fd);
    T_OK(pysock_close(pair[1]));
}

T_TEST(what_is_detached_survives_cleanup, 30) {
    pysock *pair[2];
    char byte;
    int fd;
    t_pair(pair);
    fd = T_OK(pysock_detach(pair[0]));
    pysock_cleanup();
    T_EQ(is_open(fd), 1);
    T_EQ(t_raw_read(fd, &byte, 1), 0);
    close(fd);
}

/* A call that sleeps where it can be woken is; another one keeps the descriptor, and is none the
   worse for having been asked. */
T_TEST(detach_ends_a_call_that_waits_or_leaves_it_alone, 60) {
    static const t_wait_kind waits[] = {T_WAIT_SELECT, T_WAIT_RECV, T_WAIT_ACCEPT, T_WAIT_CONNECT,
                                        T_WAIT_SENDALL};
    static const double timeouts[] = {60, PYSOCK_NO_TIMEOUT};
    (void)t_flood();
    for (size_t i = 0; i < 2 * sizeof waits / sizeof waits[0]; i++) {
        t_stage st;
        t_thread t;
        int fd;
        T_STEP("wait %d, timeout %g", (int)waits[i / 2], timeouts[i & 1]);
        t_stage_set(&st, waits[i / 2], 0, timeouts[i & 1], client_ctx, server_ctx);
        t_spawn(&t, t_wait_thread, &st.w);
        t_wait_asleep(&t);
        errno = 0;
        fd = pysock_detach(st.w.s);
        if (waits[i / 2] == T_WAIT_SELECT)
            T_CHECK(fd >= 0);
        if (fd < 0) {
            T_EQ(errno, EBUSY);
            t_wait_asleep(&t);
            T_OK(pysock_close(st.w.s));
        }
        t_join(&t);
        T_EQ(st.w.result, -1);
        T_EQ(st.w.kind, PYSOCK_OS_ERROR);
        T_EQ(st.w.code, EBADF);
        if (fd >= 0) {
            T_EQ(is_open(fd), 1);
            close(fd);
        }
        t_stage_clear(&st);
    }
}

T_TEST(a_poller_tells_that_its_socket_was_detached, 30) {
    t_stage st;
    t_thread t;
    int fd;
    t_stage_set(&st, T_WAIT_POLLER, 0, 60, client_ctx, server_ctx);
    t_spawn(&t, t_wait_thread, &st.w);
    t_wait_asleep(&t);
    fd = T_OK(pysock_detach(st.w.s));
    t_join(&t);
    T_EQ(st.w.result, 1);
    T_EQ(st.w.event.fd, fd);
    T_EQ(st.w.event.events, POLLNVAL);
    close(fd);
    t_stage_clear(&st);
}

/* Another thread sleeps in the kernel's recv with the descriptor: it cannot be called back without
   shutting the connection down. */
T_TEST(detach_is_refused_while_a_call_sleeps_in_the_kernel, 30) {
    t_stage st;
    t_thread t;
    int fd;
    t_stage_set(&st, T_WAIT_RECV, 0, PYSOCK_NO_TIMEOUT, client_ctx, server_ctx);
    t_spawn(&t, t_wait_thread, &st.w);
    t_wait_asleep(&t);
    if (T_MACOS_LIKE) { /* no call sleeps there */
        close(T_OK(pysock_detach(st.w.s)));
        t_join(&t);
        T_EQ(st.w.code, EBADF);
        t_stage_clear(&st);
        return;
    }
    T_FAILS(pysock_detach(st.w.s), PYSOCK_OS_ERROR, EBUSY);
    T_STEP("that call goes on");
    t_say(st.peer, "x");
    t_join(&t);
    T_EQ(st.w.result, 1);
    t_echo_once(st.w.s, st.peer);
    fd = T_OK(pysock_detach(st.w.s));
    close(fd);
    t_stage_clear(&st);
}

#define QUEUED ((size_t)8 * 1024 * 1024 + 11) /* more than the kernel's buffers take */

static void *receive_thread(void *arg) {
    unsigned char *buf = malloc(65536);
    uint64_t done = 0;
    ptrdiff_t n;
    T_CHECK(buf != NULL);
    while ((n = T_OK(pysock_recv(arg, buf, 65536, 0))) > 0) {
        t_verify(buf, (size_t)n, done, 21);
        done += (uint64_t)n;
    }
    T_EQ(done, QUEUED + 100);
    free(buf);
    return NULL;
}

T_TEST(detach_sends_what_is_queued_first, 60) {
    for (int timed = 0; timed < 2; timed++) {
        pysock *pair[2];
        pysock_buf *b = T_OK(pysock_buf_new(QUEUED));
        t_thread t;
        int fd;
        t_fill(pysock_buf_data(b), QUEUED, 0, 21);
        t_pair(pair);
        T_OK(pysock_setblocking(pair[0], 0));
        T_OK(pysock_send_buf(pair[0], b));
        pysock_buf_release(b);
        T_CHECK(pysock_queued(pair[0]) > 0);
        T_STEP("where that must not wait");
        T_FAILS(pysock_detach(pair[0]), PYSOCK_OS_ERROR, EAGAIN);
        T_CHECK(pysock_queued(pair[0]) > 0);
        T_STEP("where there is not time enough");
        T_OK(pysock_settimeout(pair[0], 0.05));
        T_FAILS(pysock_detach(pair[0]), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
        T_CHECK(pysock_queued(pair[0]) > 0);
        T_STEP("where it may");
        T_OK(pysock_settimeout(pair[0], timed ? 60 : PYSOCK_NO_TIMEOUT));
        t_spawn(&t, receive_thread, pair[1]);
        fd = T_OK(pysock_detach(pair[0]));
        T_EQ(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK), 0);
        t_raw_write(fd, t_bytes(QUEUED, 21), 100);
        close(fd);
        t_join(&t);
        T_OK(pysock_close(pair[1]));
    }
}

T_TEST(detach_leaves_tls_behind, 60) {
    for (int unwrapped = 0; unwrapped < 2; unwrapped++) {
        pysock *pair[2];
        char buf[8];
        int fd;
        T_STEP("%s", unwrapped ? "unwrapped first" : "in the middle of it");
        t_tls_pair(pair, client_ctx, server_ctx);
        t_echo_once(pair[0], pair[1]);
        if (unwrapped) {
            t_thread t;
            t_waiter w;
            memset(&w, 0, sizeof w);
            w.what = T_WAIT_UNWRAP;
            w.s = pair[1];
            t_spawn(&t, t_wait_thread, &w);
            T_EQ(pysock_ssl_unwrap(pair[0]), 0);
            t_join(&t);
            T_EQ(w.result, 0);
        }
        fd = T_OK(pysock_detach(pair[0]));
        T_FAILS(pysock_send(pair[0], "x", 1, 0), PYSOCK_OS_ERROR, EBADF);
        T_CHECK(pysock_ssl_version(pair[0]) == NULL);
        T_EQ(is_open(fd), 1);
        if (unwrapped) {
            T_EQ(write(fd, "plain", 5), 5);
            t_expect(pair[1], "plain");
            t_say(pair[1], "too");
            T_EQ(t_raw_read(fd, buf, 3), 3);
            T_CHECK(memcmp(buf, "too", 3) == 0);
            close(fd);
        } else {
            T_STEP("no close_notify was sent");
            T_EQ(t_readable(pair[1], 0.05), 0);
            close(fd);
            T_EQ(pysock_recv(pair[1], buf, 1, 0), 0);
            T_EQ(pysock_ssl_eof_is_clean(pair[1]), 0);
        }
        T_OK(pysock_close(pair[1]));
    }
}

T_TEST(a_detached_listener_listens, 30) {
    int port, fd, raw;
    pysock *listener, *a;
    listener = t_listen(&port);
    fd = T_OK(pysock_detach(listener));
    a = T_OK(pysock_create_connection("127.0.0.1", port, 30));
    raw = t_raw_accept(fd);
    T_EQ(write(raw, "hello", 5), 5);
    t_expect(a, "hello");
    close(raw);
    close(fd);
    T_OK(pysock_close(a));
}

/* ---- options ---- */

T_TEST(options_take_numbers_and_bytes, 30) {
    pysock *s;
    int value = -1, byte_value = 1;
    struct linger linger = {1, 7}, have = {0, 0};
    struct timeval time = {3, 0}, time_have = {0, 0};
    socklen_t len;
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_STEP("a number");
    T_OK(pysock_getsockopt_int(s, SOL_SOCKET, SO_REUSEADDR, &value));
    T_EQ(value, 0);
    T_OK(pysock_setsockopt_int(s, SOL_SOCKET, SO_REUSEADDR, 1));
    T_OK(pysock_getsockopt_int(s, SOL_SOCKET, SO_REUSEADDR, &value));
    T_CHECK(value != 0);
    T_OK(pysock_setsockopt_int(s, IPPROTO_TCP, TCP_NODELAY, 1));
    T_OK(pysock_getsockopt_int(s, IPPROTO_TCP, TCP_NODELAY, &value));
    T_CHECK(value != 0);
    T_OK(pysock_setsockopt_int(s, IPPROTO_IP, IP_TTL, 33));
    T_OK(pysock_getsockopt_int(s, IPPROTO_IP, IP_TTL, &value));
    T_EQ(value, 33);
    T_STEP("the same as bytes");
    T_OK(pysock_setsockopt(s, SOL_SOCKET, SO_KEEPALIVE, &byte_value, sizeof byte_value));
    value = 0;
    len = sizeof value;
    T_OK(pysock_getsockopt(s, SOL_SOCKET, SO_KEEPALIVE, &value, &len));
    T_EQ(len, sizeof value);
    T_CHECK(value != 0);
    T_STEP("structures");
    T_OK(pysock_setsockopt(s, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
    len = sizeof have;
    T_OK(pysock_getsockopt(s, SOL_SOCKET, SO_LINGER, &have, &len));
    T_EQ(len, sizeof have);
    T_EQ(have.l_onoff, 1);
    T_EQ(have.l_linger, 7);
    T_OK(pysock_setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time));
    len = sizeof time_have;
    T_OK(pysock_getsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &time_have, &len));
    T_EQ(time_have.tv_sec, 3);
    T_STEP("what the socket was made as");
    T_OK(pysock_getsockopt_int(s, SOL_SOCKET, SO_TYPE, &value));
    T_EQ(value, SOCK_STREAM);
    T_OK(pysock_getsockopt_int(s, SOL_SOCKET, SO_DOMAIN, &value));
    T_EQ(value, AF_INET);
    T_OK(pysock_close(s));
}

/* As much as there is room for, and how much that was. */
T_TEST(an_option_is_cut_off_or_shorter_than_its_room, 30) {
    pysock *s;
    struct linger linger = {1, 9};
    unsigned char room[64];
    socklen_t len;
    int value = 0;
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_setsockopt(s, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
    T_STEP("more room than needed");
    memset(room, 0xee, sizeof room);
    len = sizeof room;
    T_OK(pysock_getsockopt(s, SOL_SOCKET, SO_LINGER, room, &len));
    T_EQ(len, sizeof linger);
    T_CHECK(memcmp(room, &linger, sizeof linger) == 0);
    T_EQ(room[sizeof linger], 0xee);
    T_STEP("less room than needed");
    memset(room, 0xee, sizeof room);
    len = sizeof(int);
    T_OK(pysock_getsockopt(s, SOL_SOCKET, SO_LINGER, room, &len));
    T_EQ(len, sizeof(int));
    T_CHECK(memcmp(room, &linger, sizeof(int)) == 0);
    T_EQ(room[sizeof(int)], 0xee);
    T_STEP("none at all");
    memset(room, 0xee, sizeof room);
    len = 0;
    T_OK(pysock_getsockopt(s, SOL_SOCKET, SO_TYPE, room, &len));
    T_EQ(len, 0);
    T_EQ(room[0], 0xee);
    T_FAILS(pysock_setsockopt(s, SOL_SOCKET, SO_LINGER, &linger, 1), PYSOCK_OS_ERROR, EINVAL);
    T_FAILS(pysock_setsockopt(s, SOL_SOCKET, SO_KEEPALIVE, &value, 1), PYSOCK_OS_ERROR, EINVAL);
    T_FAILS(pysock_getsockopt(s, SOL_SOCKET, SO_TYPE, NULL, &len), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_getsockopt(s, SOL_SOCKET, SO_TYPE, room, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_getsockopt_int(s, SOL_SOCKET, SO_TYPE, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_OK(pysock_close(s));
}

/* Python's setsockopt(level, name, None, length): it is the kernel that judges it, not we. */
T_TEST(an_option_without_a_value_is_handed_to_the_kernel, 30) {
    static const struct {
        int level, name;
        socklen_t len;
    } cases[] = {{SOL_SOCKET, SO_KEEPALIVE, 4},    {SOL_SOCKET, SO_KEEPALIVE, 0},
                 {SOL_SOCKET, SO_LINGER, 8},       {IPPROTO_TCP, TCP_NODELAY, 4},
                 {IPPROTO_TCP, TCP_CONGESTION, 3}, {SOL_SOCKET, SO_BINDTODEVICE, 0},
                 {SOL_SOCKET, SO_DETACH_FILTER, 4}};
    pysock *s;
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int raw = raw_socket(AF_INET, SOCK_STREAM);
        int rc = setsockopt(raw, cases[i].level, cases[i].name, NULL, cases[i].len);
        int code = errno;
        T_STEP("case %zu", i);
        if (rc == 0)
            T_OK(pysock_setsockopt(s, cases[i].level, cases[i].name, NULL, cases[i].len));
        else
            T_FAILS(pysock_setsockopt(s, cases[i].level, cases[i].name, NULL, cases[i].len),
                    PYSOCK_OS_ERROR, code);
        close(raw);
    }
    T_OK(pysock_close(s));
}

T_TEST(options_that_are_none_fail_as_the_kernel_says, 30) {
    static const struct {
        int level, name;
    } cases[] = {{SOL_SOCKET, 9999}, {9999, 1}, {IPPROTO_TCP, 9999}, {IPPROTO_UDP, 1}, {-1, -1}};
    static const int families[] = {AF_INET, AF_UNIX};
    pysock *s;
    int value = 1;
    for (int f = 0; f < 2; f++) {
        s = T_OK(pysock_socket(families[f], SOCK_STREAM, 0));
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            int raw = raw_socket(families[f], SOCK_STREAM), code;
            socklen_t len = sizeof value;
            T_STEP("family %d, case %zu", families[f], i);
            T_EQ(setsockopt(raw, cases[i].level, cases[i].name, &value, sizeof value), -1);
            code = errno;
            T_FAILS(pysock_setsockopt_int(s, cases[i].level, cases[i].name, 1), PYSOCK_OS_ERROR,
                    code);
            T_FAILS(pysock_setsockopt(s, cases[i].level, cases[i].name, &value, sizeof value),
                    PYSOCK_OS_ERROR, code);
            T_EQ(getsockopt(raw, cases[i].level, cases[i].name, &value, &len), -1);
            code = errno;
            len = sizeof value;
            T_FAILS(pysock_getsockopt_int(s, cases[i].level, cases[i].name, &value),
                    PYSOCK_OS_ERROR, code);
            T_FAILS(pysock_getsockopt(s, cases[i].level, cases[i].name, &value, &len),
                    PYSOCK_OS_ERROR, code);
            close(raw);
        }
        T_OK(pysock_close(s));
    }
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_FAILS(pysock_setsockopt_int(s, SOL_SOCKET, 9999, 1), PYSOCK_OS_ERROR, ENOPROTOOPT);
    T_FAILS(pysock_getsockopt_int(s, SOL_SOCKET, 9999, &value), PYSOCK_OS_ERROR, ENOPROTOOPT);
    T_FAILS(pysock_setsockopt_int(s, 9999, 1, 1), PYSOCK_OS_ERROR, ENOPROTOOPT);
    T_OK(pysock_close(s));
}

T_TEST(so_error_tells_an_error_once, 30) {
    int port, listener, peer, error = -1, deaf, busy;
    pysock *s;
    struct pollfd fd;
    T_STEP("a reset");
    listener = t_raw_listen(&port);
    s = T_OK(pysock_create_connection("127.0.0.1", port, 30));
    peer = t_raw_accept(listener);
    T_OK(pysock_getsockopt_int(s, SOL_SOCKET, SO_ERROR, &error));
    T_EQ(error, 0);
    t_raw_reset(peer);
    fd.fd = T_OK(pysock_fileno(s));
    fd.events = 0;
    T_EQ(poll(&fd, 1, -1), 1);
    T_OK(pysock_getsockopt_int(s, SOL_SOCKET, SO_ERROR, &error));
    T_EQ(error, ECONNRESET);
    T_OK(pysock_getsockopt_int(s, SOL_SOCKET, SO_ERROR, &error));
    T_EQ(error, 0);
    T_OK(pysock_close(s));
    close(peer);
    close(listener);
    T_STEP("a refusal, of a connect that did not wait");
    deaf = t_deaf_port(&busy);
    s = t_nonblocking_socket(AF_INET);
    T_FAILS(pysock_connect(s, "127.0.0.1", deaf), PYSOCK_OS_ERROR, EINPROGRESS);
    T_EQ(t_writable(s, PYSOCK_NO_TIMEOUT), 1);
    T_OK(pysock_getsockopt_int(s, SOL_SOCKET, SO_ERROR, &error));
    T_EQ(error, ECONNREFUSED);
    T_OK(pysock_getsockopt_int(s, SOL_SOCKET, SO_ERROR, &error));
    T_EQ(error, 0);
    T_OK(pysock_close(s));
    T_STEP("a refusal that was told already");
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_FAILS(pysock_connect(s, "127.0.0.1", deaf), PYSOCK_OS_ERROR, ECONNREFUSED);
    T_OK(pysock_getsockopt_int(s, SOL_SOCKET, SO_ERROR, &error));
    T_EQ(error, 0);
    T_OK(pysock_close(s));
    close(busy);
}

/* ---- shutdown ---- */

static int make_pair(int kind, pysock *pair[2]) {
    static const char *const hosts[] = {"127.0.0.1", "::1"};
    T_STEP("pair of kind %d", kind);
    if (kind == 2) {
        T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
        return 1;
    }
    if (kind == 1 && !t_has_ipv6())
        return 0;
    {
        pysock *listener = T_OK(pysock_create_server(hosts[kind], 0, 5));
        pair[0] = T_OK(pysock_create_connection(hosts[kind], t_port_of(listener), 30));
        T_OK(pysock_settimeout(pair[0], PYSOCK_NO_TIMEOUT));
        pair[1] = T_OK(pysock_accept(listener, NULL));
        T_OK(pysock_close(listener));
    }
    return 1;
}

T_TEST(each_direction_is_shut_by_itself, 30) {
    for (int kind = 0; kind < 3; kind++) {
        pysock *pair[2];
        char byte;
        if (!make_pair(kind, pair))
            continue;
        T_STEP("kind %d, SHUT_WR", kind);
        t_say(pair[0], "last");
        T_OK(pysock_shutdown(pair[0], SHUT_WR));
        t_expect(pair[1], "last");
        T_EQ(pysock_recv(pair[1], &byte, 1, 0), 0);
        T_FAILS(pysock_send(pair[0], "x", 1, 0), PYSOCK_OS_ERROR, EPIPE);
        t_say(pair[1], "still");
        t_expect(pair[0], "still");
        t_close_pair(pair);
        T_STEP("kind %d, SHUT_RD", kind);
        T_CHECK(make_pair(kind, pair));
        t_say(pair[1], "in time");
        T_EQ(t_readable(pair[0], PYSOCK_NO_TIMEOUT), 1);
        T_OK(pysock_shutdown(pair[0], SHUT_RD));
        t_expect(pair[0], "in time");
        T_EQ(pysock_recv(pair[0], &byte, 1, 0), 0);
        t_say(pair[0], "out");
        t_expect(pair[1], "out");
        t_close_pair(pair);
        T_STEP("kind %d, SHUT_RDWR, twice", kind);
        T_CHECK(make_pair(kind, pair));
        T_OK(pysock_shutdown(pair[0], SHUT_RDWR));
        T_EQ(pysock_recv(pair[0], &byte, 1, 0), 0);
        T_FAILS(pysock_send(pair[0], "x", 1, 0), PYSOCK_OS_ERROR, EPIPE);
        T_EQ(pysock_recv(pair[1], &byte, 1, 0), 0);
        t_close_pair(pair);
    }
}

T_TEST(a_shutdown_ends_a_recv_that_waits, 30) {
    static const double timeouts[] = {PYSOCK_NO_TIMEOUT, 60};
    static const int hows[] = {SHUT_RD, SHUT_RDWR};
    for (int i = 0; i < 4; i++) {
        t_stage st;
        t_thread t;
        T_STEP("timeout %g, how %d", timeouts[i & 1], hows[i / 2]);
        t_stage_set(&st, T_WAIT_RECV, 0, timeouts[i & 1], client_ctx, server_ctx);
        t_spawn(&t, t_wait_thread, &st.w);
        t_wait_asleep(&t);
        T_OK(pysock_shutdown(st.w.s, hows[i / 2]));
        t_join(&t);
        T_EQ(st.w.result, 0);
        T_OK(pysock_fileno(st.w.s));
        t_stage_clear(&st);
    }
}

T_TEST(what_cannot_be_shut_is_told, 30) {
    static const int wrong[] = {-1, 3, 17};
    pysock *pair[2], *s;
    t_pair(pair);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        T_FAILS(pysock_shutdown(pair[0], wrong[i]), T_ANY, EINVAL);
    t_echo_once(pair[0], pair[1]);
    t_close_pair(pair);
    for (int how = SHUT_RD; how <= SHUT_RDWR; how++) {
        s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
        T_FAILS(pysock_shutdown(s, how), PYSOCK_OS_ERROR, ENOTCONN);
        T_OK(pysock_close(s));
        T_FAILS(pysock_shutdown(s, how), PYSOCK_OS_ERROR, EBADF);
    }
}

static int serve_if_told(int argc, char **argv) {
    return argc == 3 && strcmp(argv[1], "--serve") == 0 ? serve(atoi(argv[2])) : -1;
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts, .as_child = serve_if_told)
