/* Datagrams: UDP over IPv4 and IPv6, Unix datagrams with paths, abstract names and none at all,
   sequenced packets, raw sockets, UDP-Lite. */
#include "support/contexts.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>

#ifndef IPV6_FLOWINFO_SEND
#define IPV6_FLOWINFO_SEND 33
#endif

/* ---- what all the cases use ---- */

enum { UDP4, UDP6, UNIX_PATH, UNIX_ABSTRACT, KINDS };

static const char *const kind_names[KINDS] = {"UDP over IPv4", "UDP over IPv6", "a Unix path",
                                              "an abstract name"};

/* The three ways in which a socket may wait, or not. */
static const double modes[] = {PYSOCK_NO_TIMEOUT, 60, 0};
#define MODES 3

static char dir[64];
static int names_made;

static int make_dir_and_contexts(void **state) {
    T_STEP("set-up"); /* starts the watchdog, before there are sockets that it would inherit */
    snprintf(dir, sizeof dir, "/tmp/pysock-test-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    setenv("RES_OPTIONS", "timeout:1 attempts:1", 1);
    return make_contexts(state);
}

static int remove_dir_and_contexts(void **state) {
    char path[128];
    for (int i = 1; i <= names_made; i++) {
        snprintf(path, sizeof path, "%s/%d", dir, i);
        unlink(path);
    }
    rmdir(dir);
    return free_contexts(state);
}

static int family_of(int kind) {
    return kind == UDP4 ? AF_INET : kind == UDP6 ? AF_INET6 : AF_UNIX;
}

static int has_localhost(void) {
    struct addrinfo hints, *list;
    memset(&hints, 0, sizeof hints);
    hints.ai_family = AF_INET;
    hints.ai_socktype = SOCK_DGRAM;
    if (getaddrinfo("localhost", "1", &hints, &list) != 0) {
        print_message("this machine has no address for localhost: skipped\n");
        return 0;
    }
    freeaddrinfo(list);
    return 1;
}

static int kind_after(int kind) {
    do
        kind++;
    while (kind == UDP6 && !t_has_ipv6());
    if (kind < KINDS)
        T_STEP("%s", kind_names[kind]);
    return kind;
}

#define FOR_EACH_KIND(kind) for (int kind = kind_after(-1); kind < KINDS; kind = kind_after(kind))

static pysock *unbound(int kind) {
    return T_OK(pysock_socket(family_of(kind), SOCK_DGRAM, 0));
}

/* A name that nobody has: of a socket to come, or of none. */
static const char *fresh_name(int kind, char name[100]) {
    if (kind == UNIX_PATH)
        snprintf(name, 100, "%s/%d", dir, ++names_made);
    else if (kind == UNIX_ABSTRACT)
        snprintf(name, 100, "@pysock-test-%ld-%d", (long)getpid(), ++names_made);
    else
        snprintf(name, 100, "%s", kind == UDP4 ? "127.0.0.1" : "::1");
    return name;
}

static pysock *bound(int kind) {
    char name[100];
    pysock *s = unbound(kind);
    T_OK(pysock_bind(s, fresh_name(kind, name), 0));
    return s;
}

static void expect_same(const pysock_addr *a, const pysock_addr *b) {
    char text[2][PYSOCK_ADDR_STRLEN];
    pysock_addr_format(a, text[0], sizeof text[0]);
    pysock_addr_format(b, text[1], sizeof text[1]);
    if (a->size != b->size || memcmp(&a->u, &b->u, a->size) != 0)
        T_FAIL("the address is %s, not %s", text[0], text[1]);
}

static void send_to(pysock *s, const char *text, const pysock_addr *to) {
    T_EQ(pysock_sendto_addr(s, text, strlen(text), 0, to), strlen(text));
}

/* The next datagram is this text, from there (NULL: from anywhere). Any mode. */
static void expect_from(pysock *s, const char *text, const pysock_addr *who) {
    char buf[256];
    pysock_addr from;
    ptrdiff_t n;
    T_EQ(t_readable(s, PYSOCK_NO_TIMEOUT), 1);
    n = T_OK(pysock_recvfrom(s, buf, sizeof buf, 0, &from));
    if ((size_t)n != strlen(text) || memcmp(buf, text, (size_t)n) != 0)
        T_FAIL("received '%.*s', not '%s'", (int)n, buf, text);
    if (who)
        expect_same(&from, who);
}

/* Nothing has come: what is sent now is the next to arrive. */
static void expect_nothing(pysock *s) {
    pysock_addr at = t_addr_of(s);
    pysock *other = T_OK(pysock_socket(at.u.sa.sa_family, SOCK_DGRAM, 0));
    send_to(other, "a marker", &at);
    expect_from(s, "a marker", NULL);
    T_OK(pysock_close(other));
}

/* ---- a call on a thread of its own ---- */

enum { RECV, RECV_INTO, RECVFROM, RECVFROM_INTO, SENDTO, SELECT, POLLER, CALLS };
#define RECEIVERS (RECVFROM_INTO + 1)

static const char *const call_names[CALLS] = {"recv",   "recv_into", "recvfrom", "recvfrom_into",
                                              "sendto", "select",    "poller"};

typedef struct job {
    int call;
    pysock *s;
    const pysock_addr *to; /* of SENDTO */
    pysock_poller *p;      /* of POLLER */
    pysock_pollevent event;
    char buf[64];
    ptrdiff_t result;
    int code;
    pysock_error_kind kind;
    double took, cpu;
} job;

static ptrdiff_t receive_by(int call, pysock *s, void *buf, size_t size, int flags) {
    pysock_addr from;
    switch (call) {
    case RECV: return pysock_recv(s, buf, size, flags);
    case RECV_INTO: return pysock_recv_into(s, buf, size, flags);
    case RECVFROM: return pysock_recvfrom(s, buf, size, flags, &from);
    default: return pysock_recvfrom_into(s, buf, size, flags, NULL);
    }
}

static void *job_thread(void *arg) {
    job *j = arg;
    double start = t_now(), cpu = t_thread_cpu();
    int fd;
    size_t n = 1;
    switch (j->call) {
    case SENDTO: j->result = pysock_sendto_addr(j->s, "waits", 5, 0, j->to); break;
    case SELECT:
        fd = pysock_fileno(j->s);
        j->result = pysock_select(&fd, &n, NULL, NULL, NULL, NULL, PYSOCK_NO_TIMEOUT);
        break;
    case POLLER: j->result = pysock_poller_poll(j->p, &j->event, 1, PYSOCK_NO_TIMEOUT); break;
    default: j->result = receive_by(j->call, j->s, j->buf, sizeof j->buf, 0); break;
    }
    j->code = errno;
    j->kind = pysock_error();
    j->took = t_now() - start;
    j->cpu = t_thread_cpu() - cpu;
    return NULL;
}

/* Sends to a Unix socket until its queue takes no more. */
static int fill_queue(pysock *s, const pysock_addr *to) {
    double before = pysock_gettimeout(s);
    int sent = 0;
    T_OK(pysock_setblocking(s, 0));
    while (pysock_sendto_addr(s, "fills", 5, 0, to) == 5)
        T_CHECK(++sent < 1000000);
    T_EQ(errno, EAGAIN);
    T_OK(pysock_settimeout(s, before));
    return sent;
}

static void drain(pysock *s) {
    char buf[16];
    double before = pysock_gettimeout(s);
    T_OK(pysock_setblocking(s, 0));
    while (pysock_recv(s, buf, sizeof buf, 0) > 0)
        ;
    T_EQ(errno, EAGAIN);
    T_OK(pysock_settimeout(s, before));
}

/* ---- to and fro ---- */

T_TEST(a_datagram_tells_where_it_comes_from, 60) {
    FOR_EACH_KIND(kind) {
        for (int mode = 0; mode < MODES; mode++) {
            pysock *a = bound(kind), *b = bound(kind);
            pysock_addr at_a = t_addr_of(a), at_b = t_addr_of(b), from;
            char buf[32];
            T_OK(pysock_settimeout(a, modes[mode]));
            T_OK(pysock_settimeout(b, modes[mode]));
            T_EQ(pysock_sendto_addr(a, "there", 5, 0, &at_b), 5);
            T_EQ(t_readable(b, PYSOCK_NO_TIMEOUT), 1);
            memset(&from, 0xee, sizeof from);
            T_EQ(pysock_recvfrom(b, buf, sizeof buf, 0, &from), 5);
            T_CHECK(memcmp(buf, "there", 5) == 0);
            expect_same(&from, &at_a);
            T_EQ(pysock_sendto_addr(b, "and back", 8, 0, &from), 8);
            T_EQ(t_readable(a, PYSOCK_NO_TIMEOUT), 1);
            memset(&from, 0xee, sizeof from);
            T_EQ(pysock_recvfrom_into(a, buf, sizeof buf, 0, &from), 8);
            T_CHECK(memcmp(buf, "and back", 8) == 0);
            expect_same(&from, &at_b);
            T_OK(pysock_close(a));
            T_OK(pysock_close(b));
        }
    }
}

T_TEST(sendto_takes_what_bind_takes, 60) {
    FOR_EACH_KIND(kind) {
        for (int mode = 0; mode < MODES; mode++) {
            char name[100];
            pysock *a = unbound(kind), *b = unbound(kind);
            T_OK(pysock_bind(b, fresh_name(kind, name), 0));
            T_OK(pysock_settimeout(a, modes[mode]));
            T_EQ(pysock_sendto(a, "hello", 5, 0, name, kind <= UDP6 ? t_port_of(b) : 0), 5);
            expect_from(b, "hello", NULL);
            T_OK(pysock_close(a));
            T_OK(pysock_close(b));
        }
    }
}

/* As in Python, where ('', port) is the address of any interface: Linux takes it for its own. */
T_TEST(an_empty_host_is_this_machine, 30) {
    for (int kind = UDP4; kind <= UDP6; kind++) {
        pysock *a, *b;
        if (kind == UDP6 && !t_has_ipv6())
            continue;
        a = unbound(kind);
        b = bound(kind);
        T_EQ(pysock_sendto(a, "empty", 5, 0, "", t_port_of(b)), 5);
        expect_from(b, "empty", NULL);
        T_EQ(pysock_sendto(a, "NULL", 4, 0, NULL, t_port_of(b)), 4);
        expect_from(b, "NULL", NULL);
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
    }
}

T_TEST(every_receiving_call_takes_a_datagram_in_every_mode, 60) {
    FOR_EACH_KIND(kind) {
        pysock *a = unbound(kind), *b = bound(kind);
        pysock_addr at = t_addr_of(b);
        for (int mode = 0; mode < MODES; mode++) {
            T_OK(pysock_settimeout(b, modes[mode]));
            for (int call = 0; call < RECEIVERS; call++) {
                char buf[16];
                T_STEP("%s, %s, mode %d", kind_names[kind], call_names[call], mode);
                send_to(a, "one", &at);
                send_to(a, "four", &at);
                if (modes[mode] == 0)
                    T_EQ(t_readable(b, PYSOCK_NO_TIMEOUT), 1);
                T_EQ(receive_by(call, b, buf, sizeof buf, 0), 3);
                T_CHECK(memcmp(buf, "one", 3) == 0);
                if (modes[mode] == 0)
                    T_EQ(t_readable(b, PYSOCK_NO_TIMEOUT), 1);
                T_EQ(receive_by(call, b, buf, sizeof buf, 0), 4);
                T_CHECK(memcmp(buf, "four", 4) == 0);
            }
        }
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
    }
}

T_TEST(recv_buf_takes_one_datagram, 60) {
    FOR_EACH_KIND(kind) {
        static const char *const texts[] = {"whole", "", "cut off"};
        pysock *a = unbound(kind), *b = bound(kind);
        pysock_addr at = t_addr_of(b);
        for (int i = 0; i < 3; i++)
            send_to(a, texts[i], &at);
        for (int i = 0; i < 3; i++) {
            pysock_buf *buf = T_OK(pysock_recv_buf(b, 5));
            T_EQ(pysock_buf_size(buf), i == 1 ? 0 : 5);
            T_CHECK(memcmp(pysock_buf_data(buf), texts[i], pysock_buf_size(buf)) == 0);
            pysock_buf_release(buf);
        }
        T_OK(pysock_setblocking(b, 0));
        T_FAILS(pysock_recv_buf(b, 5), PYSOCK_OS_ERROR, EAGAIN);
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
    }
}

T_TEST(a_nonblocking_socket_without_datagrams_is_EAGAIN, 30) {
    FOR_EACH_KIND(kind) {
        pysock *s = bound(kind);
        pysock_addr from;
        char byte;
        T_OK(pysock_setblocking(s, 0));
        for (int call = 0; call < RECEIVERS; call++)
            T_FAILS(receive_by(call, s, &byte, 1, 0), PYSOCK_OS_ERROR, EAGAIN);
        T_FAILS(pysock_recvfrom(s, &byte, 1, 0, &from), PYSOCK_OS_ERROR, EAGAIN);
        T_CHECK(strcmp(pysock_error_name(), "BlockingIOError") == 0);
        T_OK(pysock_close(s));
    }
}

T_TEST(unnamed_senders_have_no_address, 30) {
    pysock *pair[2], *named;
    pysock_addr from, at;
    char buf[8];
    T_OK(pysock_socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
    T_EQ(pysock_send(pair[0], "x", 1, 0), 1);
    memset(&from, 0xee, sizeof from);
    T_EQ(pysock_recvfrom(pair[1], buf, sizeof buf, 0, &from), 1);
    T_EQ(from.size, 0);
    T_EQ(pysock_addr_port(&from), -1);
    t_close_pair(pair);
    T_STEP("a socket that was never bound");
    named = bound(UNIX_PATH);
    at = t_addr_of(named);
    pair[0] = unbound(UNIX_PATH);
    send_to(pair[0], "y", &at);
    memset(&from, 0xee, sizeof from);
    T_EQ(pysock_recvfrom_into(named, buf, sizeof buf, 0, &from), 1);
    T_EQ(from.size, 0);
    T_FAILS(pysock_sendto_addr(named, "z", 1, 0, &from), PYSOCK_VALUE_ERROR, EINVAL);
    T_OK(pysock_close(pair[0]));
    T_OK(pysock_close(named));
}

/* Autobind: bind to "" makes the kernel choose an abstract name, that others can answer to. */
T_TEST(a_unix_sender_may_leave_its_name_to_the_kernel, 30) {
    pysock *a[2], *b;
    pysock_addr at, from, mine[2];
    char buf[8];
    b = bound(UNIX_ABSTRACT);
    at = t_addr_of(b);
    for (int i = 0; i < 2; i++) {
        a[i] = unbound(UNIX_ABSTRACT);
        T_OK(pysock_bind(a[i], "", 0));
        mine[i] = t_addr_of(a[i]);
        T_EQ(mine[i].size, offsetof(struct sockaddr_un, sun_path) + 6);
        T_EQ(mine[i].u.un.sun_path[0], 0);
        send_to(a[i], "x", &at);
        T_EQ(pysock_recvfrom(b, buf, sizeof buf, 0, &from), 1);
        expect_same(&from, &mine[i]);
        send_to(b, "y", &from);
        expect_from(a[i], "y", &at);
    }
    T_CHECK(memcmp(&mine[0], &mine[1], sizeof mine[0]) != 0);
    for (int i = 0; i < 2; i++)
        T_OK(pysock_close(a[i]));
    T_OK(pysock_close(b));
}

/* An abstract name is bytes: zeros and what is no UTF-8 belong to it. */
T_TEST(an_abstract_name_may_have_any_bytes, 30) {
    static const char tail[] = "\0hello\0\xff"; /* and the terminating zero: 8 bytes */
    pysock *a = unbound(UNIX_ABSTRACT), *b = unbound(UNIX_ABSTRACT);
    struct sockaddr_un un;
    pysock_addr addr, from;
    char byte;
    int n;
    memset(&un, 0, sizeof un);
    un.sun_family = AF_UNIX;
    n = snprintf(un.sun_path + 1, 60, "pysock-test-%ld", (long)getpid());
    memcpy(un.sun_path + 1 + n, tail, sizeof tail);
    T_OK(pysock_addr_from_sockaddr(
        &addr, (struct sockaddr *)&un,
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n + sizeof tail)));
    T_OK(pysock_bind_addr(b, &addr));
    from = t_addr_of(b);
    expect_same(&from, &addr);
    send_to(a, "x", &addr);
    T_EQ(pysock_recv(b, &byte, 1, 0), 1);
    T_OK(pysock_connect_addr(a, &addr));
    T_OK(pysock_getpeername(a, &from));
    expect_same(&from, &addr);
    send_to(b, "", &addr);
    T_EQ(pysock_recvfrom(b, &byte, 1, 0, &from), 0);
    expect_same(&from, &addr);
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
}

/* ---- connected ---- */

T_TEST(a_connected_socket_hears_its_peer_alone, 60) {
    FOR_EACH_KIND(kind) {
        for (int mode = 0; mode < MODES; mode++) {
            pysock *a = bound(kind), *b = bound(kind), *c = bound(kind);
            pysock_addr at_a = t_addr_of(a), at_b = t_addr_of(b), peer;
            T_OK(pysock_settimeout(a, modes[mode]));
            T_OK(pysock_connect_addr(a, &at_b));
            T_OK(pysock_getpeername(a, &peer));
            expect_same(&peer, &at_b);
            if (kind >= UNIX_PATH)
                T_FAILS(pysock_sendto_addr(c, "x", 1, 0, &at_a), PYSOCK_OS_ERROR, EPERM);
            else
                send_to(c, "not heard", &at_a);
            send_to(b, "heard", &at_a);
            expect_from(a, "heard", &at_b);
            T_EQ(pysock_send(a, "answer", 6, 0), 6);
            expect_from(b, "answer", &at_a);
            T_OK(pysock_sendall(a, "all", 3, 0));
            expect_from(b, "all", &at_a);
            T_OK(pysock_close(a));
            T_OK(pysock_close(b));
            T_OK(pysock_close(c));
        }
    }
}

T_TEST(a_connected_socket_may_send_elsewhere, 30) {
    FOR_EACH_KIND(kind) {
        pysock *a = bound(kind), *b = bound(kind), *c = bound(kind);
        pysock_addr at_a = t_addr_of(a), at_b = t_addr_of(b), at_c = t_addr_of(c), peer;
        T_OK(pysock_connect_addr(a, &at_b));
        send_to(a, "elsewhere", &at_c);
        expect_from(c, "elsewhere", &at_a);
        T_OK(pysock_getpeername(a, &peer));
        expect_same(&peer, &at_b);
        T_EQ(pysock_send(a, "home", 4, 0), 4);
        expect_from(b, "home", &at_a);
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
        T_OK(pysock_close(c));
    }
}

T_TEST(connecting_again_changes_the_peer, 60) {
    FOR_EACH_KIND(kind) {
        for (int mode = 0; mode < MODES; mode++) {
            pysock *a = bound(kind), *peers[2] = {bound(kind), bound(kind)};
            pysock_addr at_a = t_addr_of(a), at[2] = {t_addr_of(peers[0]), t_addr_of(peers[1])},
                        peer;
            T_OK(pysock_settimeout(a, modes[mode]));
            for (int i = 0; i < 6; i++) {
                T_EQ(pysock_connect_addr(a, &at[i & 1]), 0);
                T_OK(pysock_getpeername(a, &peer));
                expect_same(&peer, &at[i & 1]);
                T_EQ(pysock_send(a, "to you", 6, 0), 6);
                expect_from(peers[i & 1], "to you", &at_a);
                send_to(peers[i & 1], "to me", &at_a);
                expect_from(a, "to me", &at[i & 1]);
            }
            if (kind <= UDP6) {
                T_EQ(pysock_connect(a, kind == UDP4 ? "127.0.0.1" : "::1", t_port_of(peers[1])), 0);
                T_EQ(pysock_connect_ex(a, kind == UDP4 ? "127.0.0.1" : "::1", t_port_of(peers[0])),
                     0);
                T_EQ(pysock_send(a, "by text", 7, 0), 7);
                expect_from(peers[0], "by text", &at_a);
            }
            T_OK(pysock_close(a));
            T_OK(pysock_close(peers[0]));
            T_OK(pysock_close(peers[1]));
        }
    }
}

/* POSIX: connecting to a null address, whose family is AF_UNSPEC, dissolves the association. */
T_TEST(AF_UNSPEC_dissolves_a_connection, 60) {
    struct sockaddr none;
    pysock_addr nowhere;
    memset(&none, 0, sizeof none);
    none.sa_family = AF_UNSPEC;
    T_OK(pysock_addr_from_sockaddr(&nowhere, &none, sizeof none));
    FOR_EACH_KIND(kind) {
        for (int mode = 0; mode < MODES; mode++) {
            pysock *a = bound(kind), *b = bound(kind), *c = bound(kind);
            pysock_addr at_b = t_addr_of(b), from, peer;
            char buf[16];
            T_OK(pysock_settimeout(a, modes[mode]));
            for (int i = 0; i < 2; i++) {
                T_OK(pysock_connect_addr(a, &at_b));
                T_EQ(pysock_connect_addr(a, &nowhere), 0);
                T_FAILS(pysock_getpeername(a, &peer), PYSOCK_OS_ERROR, ENOTCONN);
                T_FAILS(pysock_send(a, "x", 1, 0), PYSOCK_OS_ERROR,
                        kind <= UDP6 ? EDESTADDRREQ : ENOTCONN);
                send_to(a, "still here", &at_b);
                T_EQ(pysock_recvfrom(b, buf, sizeof buf, 0, &from), 10);
                send_to(c, "everybody is heard", &from); /* where the port may be a new one */
                expect_from(a, "everybody is heard", NULL);
            }
            T_OK(pysock_close(a));
            T_OK(pysock_close(b));
            T_OK(pysock_close(c));
        }
    }
}

T_TEST(without_a_peer_send_is_an_error, 30) {
    FOR_EACH_KIND(kind) {
        pysock *s = unbound(kind);
        pysock_addr peer;
        for (int mode = 0; mode < MODES; mode++) {
            T_OK(pysock_settimeout(s, modes[mode]));
            T_FAILS(pysock_send(s, "x", 1, 0), PYSOCK_OS_ERROR,
                    kind <= UDP6 ? EDESTADDRREQ : ENOTCONN);
            T_FAILS(pysock_sendall(s, "x", 1, 0), PYSOCK_OS_ERROR,
                    kind <= UDP6 ? EDESTADDRREQ : ENOTCONN);
        }
        T_FAILS(pysock_getpeername(s, &peer), PYSOCK_OS_ERROR, ENOTCONN);
        T_OK(pysock_close(s));
    }
}

T_TEST(shutdown_ends_a_connected_socket_one_way_at_a_time, 60) {
    for (int kind = UDP4; kind <= UDP6; kind++) {
        pysock *a, *b;
        pysock_addr at;
        job j;
        t_thread t;
        if (kind == UDP6 && !t_has_ipv6())
            continue;
        a = bound(kind);
        b = bound(kind);
        at = t_addr_of(b);
        T_FAILS(pysock_shutdown(b, SHUT_RDWR), PYSOCK_OS_ERROR, ENOTCONN);
        T_OK(pysock_connect_addr(a, &at));
        memset(&j, 0, sizeof j);
        j.call = RECVFROM;
        j.s = a;
        t_spawn(&t, job_thread, &j);
        t_wait_asleep(&t);
        T_OK(pysock_shutdown(a, SHUT_RD));
        t_join(&t);
        T_EQ(j.result, 0);
        T_EQ(pysock_send(a, "still out", 9, 0), 9);
        expect_from(b, "still out", NULL);
        T_OK(pysock_shutdown(a, SHUT_WR));
        T_FAILS(pysock_send(a, "x", 1, 0), PYSOCK_OS_ERROR, EPIPE);
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
    }
}

/* ---- sizes ---- */

T_TEST(what_does_not_fit_is_cut_off_and_gone, 60) {
    FOR_EACH_KIND(kind) {
        pysock *a = bound(kind), *b = bound(kind);
        pysock_addr at_a = t_addr_of(a), at = t_addr_of(b), from;
        for (int mode = 0; mode < MODES; mode++) {
            char buf[16];
            T_OK(pysock_settimeout(b, modes[mode]));
            for (int call = 0; call < RECEIVERS; call++) {
                memset(buf, '.', sizeof buf);
                send_to(a, "hello world", &at);
                T_EQ(t_readable(b, PYSOCK_NO_TIMEOUT), 1);
                T_EQ(receive_by(call, b, buf, 4, 0), 4);
                T_CHECK(memcmp(buf, "hell............", 16) == 0);
            }
            send_to(a, "hello world", &at);
            T_EQ(t_readable(b, PYSOCK_NO_TIMEOUT), 1);
            T_EQ(pysock_recvfrom(b, buf, 1, 0, &from), 1);
            expect_same(&from, &at_a);
            send_to(a, "next", &at);
            expect_from(b, "next", &at_a);
        }
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
    }
}

/* MSG_TRUNC as a flag of the call: Linux returns how long the datagram was, more than the buffer
   has; with MSG_PEEK that is how to ask for the size of the next one. */
T_TEST(MSG_TRUNC_tells_the_whole_length, 60) {
    FOR_EACH_KIND(kind) {
        pysock *a = unbound(kind), *b = bound(kind);
        pysock_addr at = t_addr_of(b);
        for (int mode = 0; mode < MODES; mode++) {
            char buf[16];
            T_OK(pysock_settimeout(b, modes[mode]));
            for (int call = 0; call < RECEIVERS; call++) {
                memset(buf, '.', sizeof buf);
                send_to(a, "hello world", &at);
                T_EQ(t_readable(b, PYSOCK_NO_TIMEOUT), 1);
                T_EQ(receive_by(call, b, buf, 4, MSG_PEEK | MSG_TRUNC), 11);
                T_CHECK(memcmp(buf, "hell............", 16) == 0);
                T_EQ(pysock_recvfrom(b, NULL, 0, MSG_PEEK | MSG_TRUNC, NULL), 11);
                memset(buf, '.', sizeof buf);
                T_EQ(receive_by(call, b, buf, 2, MSG_TRUNC), 11);
                T_CHECK(memcmp(buf, "he..............", 16) == 0);
                expect_nothing(b);
            }
        }
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
    }
}

T_TEST(MSG_PEEK_leaves_the_datagram, 60) {
    FOR_EACH_KIND(kind) {
        pysock *a = bound(kind), *b = bound(kind);
        pysock_addr at_a = t_addr_of(a), at = t_addr_of(b), from;
        char buf[16];
        for (int mode = 0; mode < MODES; mode++) {
            T_OK(pysock_settimeout(b, modes[mode]));
            send_to(a, "look", &at);
            send_to(a, "after", &at);
            T_EQ(t_readable(b, PYSOCK_NO_TIMEOUT), 1);
            T_EQ(pysock_recvfrom(b, buf, 2, MSG_PEEK, &from), 2);
            expect_same(&from, &at_a);
            T_EQ(pysock_recvfrom_into(b, buf, sizeof buf, MSG_PEEK, &from), 4);
            expect_same(&from, &at_a);
            T_EQ(pysock_recv(b, buf, sizeof buf, MSG_PEEK), 4);
            T_CHECK(memcmp(buf, "look", 4) == 0);
            expect_from(b, "look", &at_a);
            expect_from(b, "after", &at_a);
        }
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
    }
}

/* An empty datagram is readable, gives 0, and is no end of anything: the next one arrives, and when
   none is left the socket would wait again. */
T_TEST(an_empty_datagram_ends_nothing, 60) {
    FOR_EACH_KIND(kind) {
        pysock *a = bound(kind), *b = bound(kind);
        pysock_addr at_a = t_addr_of(a), at = t_addr_of(b), from;
        pysock_poller *p = t_poller_with(pysock_fileno(b), POLLIN);
        for (int mode = 0; mode < MODES; mode++) {
            T_OK(pysock_settimeout(b, modes[mode]));
            for (int call = 0; call < RECEIVERS; call++) {
                pysock_pollevent event;
                char buf[8];
                T_EQ(pysock_sendto_addr(a, NULL, 0, 0, &at), 0);
                T_EQ(pysock_sendto_addr(a, "", 0, 0, &at), 0);
                T_EQ(pysock_sendto_addr(a, "x", 1, 0, &at), 1);
                for (int i = 0; i < 2; i++) {
                    T_EQ(t_readable(b, PYSOCK_NO_TIMEOUT), 1);
                    T_EQ(pysock_poller_poll(p, &event, 1, PYSOCK_NO_TIMEOUT), 1);
                    T_EQ(event.events, POLLIN);
                    T_EQ(receive_by(call, b, buf, sizeof buf, 0), 0);
                }
                T_EQ(t_readable(b, PYSOCK_NO_TIMEOUT), 1);
                T_EQ(receive_by(call, b, buf, sizeof buf, 0), 1);
                T_EQ(pysock_poller_poll(p, &event, 1, 0), 0);
                T_EQ(pysock_sendto_addr(a, "", 0, 0, &at), 0);
                T_EQ(t_readable(b, PYSOCK_NO_TIMEOUT), 1);
                memset(&from, 0xee, sizeof from);
                T_EQ(pysock_recvfrom(b, buf, sizeof buf, 0, &from), 0);
                expect_same(&from, &at_a);
                if (modes[mode] == 0)
                    T_FAILS(receive_by(call, b, buf, sizeof buf, 0), PYSOCK_OS_ERROR, EAGAIN);
            }
        }
        pysock_poller_release(p);
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
    }
}

/* A buffer of no bytes: as CPython has it recv(0) returns at once and takes nothing, recvfrom(0)
   takes a datagram and drops all of it. */
T_TEST(recv_of_no_bytes_takes_nothing_but_recvfrom_does, 60) {
    FOR_EACH_KIND(kind) {
        pysock *a = bound(kind), *b = bound(kind);
        pysock_addr at_a = t_addr_of(a), at = t_addr_of(b), from;
        for (int mode = 0; mode < MODES; mode++) {
            T_OK(pysock_settimeout(b, modes[mode]));
            T_EQ(pysock_recv(b, NULL, 0, 0), 0);
            T_EQ(pysock_recv_into(b, NULL, 0, 0), 0);
            send_to(a, "first", &at);
            send_to(a, "second", &at);
            T_EQ(t_readable(b, PYSOCK_NO_TIMEOUT), 1);
            T_EQ(pysock_recv(b, NULL, 0, 0), 0);
            T_EQ(pysock_recvfrom(b, NULL, 0, 0, &from), 0);
            expect_same(&from, &at_a);
            expect_from(b, "second", &at_a);
        }
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
    }
}

T_TEST(datagrams_that_are_too_large_are_EMSGSIZE, 60) {
    static char data[300000];
    FOR_EACH_KIND(kind) {
        size_t most = kind == UDP4 ? 65507 : kind == UDP6 ? 65527 : 0;
        pysock *a = bound(kind), *b = bound(kind);
        pysock_addr at = t_addr_of(b);
        for (int mode = 0; mode < MODES; mode++) {
            T_OK(pysock_settimeout(a, modes[mode]));
            if (kind >= UNIX_PATH)
                T_OK(pysock_setsockopt_int(a, SOL_SOCKET, SO_SNDBUF, 20000));
            T_FAILS(pysock_sendto_addr(a, data, most ? most + 1 : sizeof data, 0, &at),
                    PYSOCK_OS_ERROR, EMSGSIZE);
            T_FAILS(pysock_sendto_addr(a, data, sizeof data, 0, &at), PYSOCK_OS_ERROR, EMSGSIZE);
            T_OK(pysock_connect_addr(a, &at));
            T_FAILS(pysock_send(a, data, sizeof data, 0), PYSOCK_OS_ERROR, EMSGSIZE);
            T_FAILS(pysock_sendall(a, data, sizeof data, 0), PYSOCK_OS_ERROR, EMSGSIZE);
            send_to(a, "small", &at);
            expect_from(b, "small", NULL);
        }
        if (most) {
            T_STEP("%s: the largest", kind_names[kind]);
            t_fill((unsigned char *)data, most, 0, 7);
            T_OK(pysock_setblocking(a, 1));
            T_OK(pysock_setsockopt_int(a, SOL_SOCKET, SO_SNDBUF, 150000));
            T_OK(pysock_setsockopt_int(b, SOL_SOCKET, SO_RCVBUF, 150000));
            T_EQ(pysock_sendto_addr(a, data, most, 0, &at), most);
            memset(data, 0, sizeof data);
            T_EQ(pysock_recvfrom(b, data, sizeof data, 0, NULL), most);
            t_verify((unsigned char *)data, most, 0, 7);
        }
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
    }
}

/* ---- what comes back ---- */

/* A port where nobody listens, and nobody can while the socket is open: it hears but itself. */
static pysock *deaf(int kind) {
    pysock *s = bound(kind);
    pysock_addr at = t_addr_of(s);
    T_OK(pysock_connect_addr(s, &at));
    return s;
}

enum { BY_RECV, BY_RECVFROM, BY_SEND, BY_SENDTO, BY_SO_ERROR, WAYS };

static void expect_refused(pysock *s, int way, const pysock_addr *to) {
    char byte;
    int err;
    switch (way) {
    case BY_RECV: T_FAILS(pysock_recv(s, &byte, 1, 0), PYSOCK_OS_ERROR, ECONNREFUSED); break;
    case BY_RECVFROM:
        T_FAILS(pysock_recvfrom(s, &byte, 1, 0, NULL), PYSOCK_OS_ERROR, ECONNREFUSED);
        break;
    case BY_SEND: T_FAILS(pysock_send(s, "x", 1, 0), PYSOCK_OS_ERROR, ECONNREFUSED); break;
    case BY_SENDTO:
        T_FAILS(pysock_sendto_addr(s, "x", 1, 0, to), PYSOCK_OS_ERROR, ECONNREFUSED);
        break;
    default:
        T_OK(pysock_getsockopt_int(s, SOL_SOCKET, SO_ERROR, &err));
        T_EQ(err, ECONNREFUSED);
        T_OK(pysock_getsockopt_int(s, SOL_SOCKET, SO_ERROR, &err));
        T_EQ(err, 0);
        return;
    }
    T_CHECK(strcmp(pysock_error_name(), "ConnectionRefusedError") == 0);
}

T_TEST(a_refused_datagram_is_told_once_and_then_it_works, 60) {
    for (int i = 0; i < 2 * MODES * WAYS; i++) {
        int kind = i & 1 ? UDP6 : UDP4, way = i / 2 % WAYS;
        pysock *s, *d;
        pysock_addr at_s, at_d;
        pysock_poller *p;
        pysock_pollevent event;
        if (kind == UDP6 && !t_has_ipv6())
            continue;
        T_STEP("%s, way %d, mode %d", kind_names[kind], way, i / (2 * WAYS));
        s = bound(kind);
        d = deaf(kind);
        at_s = t_addr_of(s);
        at_d = t_addr_of(d);
        T_OK(pysock_settimeout(s, modes[i / (2 * WAYS)]));
        T_OK(pysock_connect_addr(s, &at_d));
        p = t_poller_with(pysock_fileno(s), POLLIN);
        T_EQ(pysock_poller_poll(p, &event, 1, 0), 0);
        T_EQ(pysock_send(s, "anybody?", 8, 0), 8);
        if (way != BY_RECV || pysock_gettimeout(s) == 0) { /* else the wait itself is to end */
            T_EQ(pysock_poller_poll(p, &event, 1, PYSOCK_NO_TIMEOUT), 1);
            T_CHECK(event.events & POLLERR);
            T_EQ(t_readable(s, 0), 1);
            T_EQ(t_writable(s, 0), 1);
        }
        expect_refused(s, way, &at_d);
        T_EQ(pysock_poller_poll(p, &event, 1, 0), 0);
        T_OK(pysock_connect_addr(d, &at_s));
        T_EQ(pysock_send(s, "you there?", 10, 0), 10);
        expect_from(d, "you there?", &at_s);
        send_to(d, "yes", &at_s);
        expect_from(s, "yes", &at_d);
        pysock_poller_release(p);
        T_OK(pysock_close(s));
        T_OK(pysock_close(d));
    }
}

/* Who is not connected is not told, as so many peers may be meant. */
T_TEST(an_unconnected_sender_hears_of_no_refusal, 30) {
    pysock *s = bound(UDP4), *d = deaf(UDP4);
    pysock_addr at = t_addr_of(d);
    int err;
    for (int i = 0; i < 3; i++)
        send_to(s, "anybody?", &at);
    expect_nothing(s);
    T_OK(pysock_getsockopt_int(s, SOL_SOCKET, SO_ERROR, &err));
    T_EQ(err, 0);
    T_OK(pysock_close(s));
    T_OK(pysock_close(d));
}

T_TEST(unix_senders_are_told_at_once, 30) {
    char name[100], stream_name[100];
    pysock *a = unbound(UNIX_PATH), *b = bound(UNIX_PATH), *listener;
    pysock_addr at = t_addr_of(b);
    listener = T_OK(pysock_socket(AF_UNIX, SOCK_STREAM, 0));
    T_OK(pysock_bind(listener, fresh_name(UNIX_PATH, stream_name), 0));
    T_OK(pysock_listen(listener, 1));
    for (int mode = 0; mode < MODES; mode++) {
        T_OK(pysock_settimeout(a, modes[mode]));
        T_FAILS(pysock_sendto(a, "x", 1, 0, fresh_name(UNIX_PATH, name), 0), PYSOCK_OS_ERROR,
                ENOENT);
        T_FAILS(pysock_sendto(a, "x", 1, 0, fresh_name(UNIX_ABSTRACT, name), 0), PYSOCK_OS_ERROR,
                ECONNREFUSED);
        T_FAILS(pysock_sendto(a, "x", 1, 0, stream_name, 0), PYSOCK_OS_ERROR, EPROTOTYPE);
    }
    T_OK(pysock_connect_addr(a, &at));
    T_OK(pysock_close(b));
    T_FAILS(pysock_send(a, "x", 1, 0), PYSOCK_OS_ERROR, ECONNREFUSED);
    T_STEP("the path is still there, its socket is not");
    T_FAILS(pysock_sendto_addr(a, "x", 1, 0, &at), PYSOCK_OS_ERROR, ECONNREFUSED);
    T_FAILS(pysock_connect_addr(a, &at), PYSOCK_OS_ERROR, ECONNREFUSED);
    T_OK(pysock_close(a));
    T_OK(pysock_close(listener));
}

/* ---- broadcast and multicast ---- */

T_TEST(broadcast_needs_its_option, 30) {
    pysock *a = bound(UDP4), *b = unbound(UDP4);
    pysock_addr all;
    char text[PYSOCK_ADDR_STRLEN];
    int port, on;
    T_OK(pysock_bind(b, "", 0));
    port = t_port_of(b);
    T_STEP("loopback's own broadcast address");
    T_OK(pysock_getsockopt_int(a, SOL_SOCKET, SO_BROADCAST, &on));
    T_EQ(on, 0);
    T_FAILS(pysock_sendto(a, "all", 3, 0, "127.255.255.255", port), PYSOCK_OS_ERROR, EACCES);
    T_CHECK(strcmp(pysock_error_name(), "PermissionError") == 0);
    T_OK(pysock_setsockopt_int(a, SOL_SOCKET, SO_BROADCAST, 1));
    T_EQ(pysock_sendto(a, "all", 3, 0, "127.255.255.255", port), 3);
    expect_from(b, "all", NULL);
    T_STEP("<broadcast>");
    T_OK(pysock_addr_resolve(&all, AF_INET, "<broadcast>", port));
    pysock_addr_format(&all, text, sizeof text);
    T_CHECK(strncmp(text, "255.255.255.255:", 16) == 0);
    T_EQ(pysock_addr_port(&all), port);
    if (pysock_setsockopt(a, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3) < 0) {
        print_message("a socket may not be bound to lo: nothing is sent to <broadcast>\n");
    } else {
        for (int mode = 0; mode < MODES; mode++) {
            T_OK(pysock_settimeout(a, modes[mode]));
            T_OK(pysock_setsockopt_int(a, SOL_SOCKET, SO_BROADCAST, 0));
            T_FAILS(pysock_sendto(a, "everybody", 9, 0, "<broadcast>", port), PYSOCK_OS_ERROR,
                    EACCES);
            T_OK(pysock_setsockopt_int(a, SOL_SOCKET, SO_BROADCAST, 1));
            T_EQ(pysock_sendto(a, "everybody", 9, 0, "<broadcast>", port), 9);
            expect_from(b, "everybody", NULL);
        }
    }
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
}

T_TEST(broadcast_is_a_word_of_ipv4_alone, 30) {
    pysock_addr addr;
    T_FAILS(pysock_addr_resolve(&addr, AF_INET6, "<broadcast>", 1), T_ANY, T_ANY);
    T_OK(pysock_addr_resolve(&addr, AF_UNIX, "<broadcast>", 1));
    T_CHECK(strcmp(addr.u.un.sun_path, "<broadcast>") == 0);
}

T_TEST(the_options_of_datagrams_are_set_and_read_back, 30) {
    static const int ip[] = {IP_TTL,          IP_TOS,     IP_MULTICAST_TTL, IP_MULTICAST_LOOP,
                             IP_PKTINFO,      IP_RECVTOS, IP_RECVTTL,       IP_RECVERR,
                             IP_MULTICAST_ALL};
    static const int ipv6[] = {IPV6_UNICAST_HOPS, IPV6_MULTICAST_HOPS, IPV6_MULTICAST_LOOP,
                               IPV6_RECVPKTINFO,  IPV6_RECVHOPLIMIT,   IPV6_RECVTCLASS,
                               IPV6_RECVERR,      IPV6_V6ONLY};
    static const int any[] = {SO_BROADCAST, SO_REUSEADDR, SO_TIMESTAMP, SO_DONTROUTE};
    pysock *s;
    s = unbound(UDP4);
    for (size_t i = 0; i < sizeof ip / sizeof ip[0]; i++) {
        T_STEP("IP option %d", ip[i]);
        t_check_option(s, IPPROTO_IP, ip[i], 1);
        t_check_option(s, IPPROTO_IP, ip[i], i < 3 ? 32 : 0);
    }
    for (size_t i = 0; i < sizeof any / sizeof any[0]; i++) {
        T_STEP("socket option %d", any[i]);
        t_check_option(s, SOL_SOCKET, any[i], 1);
        t_check_option(s, SOL_SOCKET, any[i], 0);
    }
    T_FAILS(pysock_setsockopt_int(s, IPPROTO_IP, IP_MULTICAST_TTL, 256), PYSOCK_OS_ERROR, EINVAL);
    T_OK(pysock_close(s));
    if (!t_has_ipv6())
        return;
    s = unbound(UDP6);
    for (size_t i = 0; i < sizeof ipv6 / sizeof ipv6[0]; i++) {
        T_STEP("IPv6 option %d", ipv6[i]);
        t_check_option(s, IPPROTO_IPV6, ipv6[i], 1);
        t_check_option(s, IPPROTO_IPV6, ipv6[i], i < 2 ? 32 : 0);
    }
    T_OK(pysock_close(s));
}

/* A group that a copy of this program at the same time does not take. */
static void group_text(char text[32]) {
    snprintf(text, 32, "239.255.%d.%d", (int)(getpid() >> 8 & 0xff), (int)(getpid() & 0xff));
}

T_TEST(multicast_reaches_who_has_joined, 30) {
    pysock *a = unbound(UDP4), *b = unbound(UDP4);
    struct in_addr lo, have;
    struct ip_mreq group;
    socklen_t len = sizeof have;
    char text[32];
    int port;
    lo.s_addr = htonl(INADDR_LOOPBACK);
    group_text(text);
    T_OK(pysock_bind(b, "", 0));
    port = t_port_of(b);
    T_OK(pysock_setsockopt_int(b, IPPROTO_IP, IP_MULTICAST_ALL, 0));
    T_OK(pysock_setsockopt(a, IPPROTO_IP, IP_MULTICAST_IF, &lo, sizeof lo));
    T_OK(pysock_getsockopt(a, IPPROTO_IP, IP_MULTICAST_IF, &have, &len));
    T_EQ(len, sizeof have);
    T_EQ(have.s_addr, lo.s_addr);
    T_OK(pysock_setsockopt_int(a, IPPROTO_IP, IP_MULTICAST_TTL, 0)); /* stays on this machine */
    T_EQ(inet_pton(AF_INET, text, &group.imr_multiaddr), 1);
    group.imr_interface = lo;
    T_OK(pysock_setsockopt(b, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group));
    T_FAILS(pysock_setsockopt(b, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group),
            PYSOCK_OS_ERROR, EADDRINUSE);
    for (int mode = 0; mode < MODES; mode++) {
        T_OK(pysock_settimeout(a, modes[mode]));
        T_OK(pysock_settimeout(b, modes[mode]));
        T_EQ(pysock_sendto(a, "members", 7, 0, text, port), 7);
        expect_from(b, "members", NULL);
    }
    T_OK(pysock_setsockopt(b, IPPROTO_IP, IP_DROP_MEMBERSHIP, &group, sizeof group));
    T_FAILS(pysock_setsockopt(b, IPPROTO_IP, IP_DROP_MEMBERSHIP, &group, sizeof group),
            PYSOCK_OS_ERROR, EADDRNOTAVAIL);
    T_OK(pysock_setblocking(a, 1));
    T_EQ(pysock_sendto(a, "members", 7, 0, text, port), 7);
    T_EQ(pysock_sendto(a, "you alone", 9, 0, "127.0.0.1", port), 9);
    expect_from(b, "you alone", NULL);
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
}

/* The index of an interface with IPv6 multicast, 0 where there is none: Linux has no route for it
   on lo. What is sent has hop limit 0 and interface-local scope: it does not leave the machine. */
static unsigned int multicast_interface(void) {
    struct ifaddrs *list, *at;
    unsigned int found = 0;
    if (getifaddrs(&list) != 0)
        return 0;
    for (at = list; at && !found; at = at->ifa_next)
        if (at->ifa_addr && at->ifa_addr->sa_family == AF_INET6 &&
            (at->ifa_flags & (IFF_UP | IFF_MULTICAST)) == (IFF_UP | IFF_MULTICAST))
            found = if_nametoindex(at->ifa_name);
    freeifaddrs(list);
    return found;
}

T_TEST(ipv6_multicast_reaches_who_has_joined, 30) {
    pysock *a, *b;
    struct ipv6_mreq group;
    unsigned int lo = if_nametoindex("lo"), index = multicast_interface();
    char text[48];
    int port, have;
    if (!t_has_ipv6() || !lo) {
        print_message("this machine has no IPv6 loopback: skipped\n");
        skip();
    }
    a = unbound(UDP6);
    b = unbound(UDP6);
    T_OK(pysock_bind(b, "", 0));
    port = t_port_of(b);
    snprintf(text, sizeof text, "ff01::%x:7b5", (unsigned int)getpid() & 0xffff);
    T_EQ(inet_pton(AF_INET6, text, &group.ipv6mr_multiaddr), 1);
    T_STEP("options, and a group on loopback");
    t_check_option(a, IPPROTO_IPV6, IPV6_MULTICAST_IF, (int)lo);
    t_check_option(a, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 0);
    T_OK(pysock_getsockopt_int(a, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, &have));
    T_EQ(have, 1);
    group.ipv6mr_interface = lo;
    T_OK(pysock_setsockopt(b, IPPROTO_IPV6, IPV6_JOIN_GROUP, &group, sizeof group));
    T_FAILS(pysock_setsockopt(b, IPPROTO_IPV6, IPV6_JOIN_GROUP, &group, sizeof group),
            PYSOCK_OS_ERROR, EADDRINUSE);
    T_OK(pysock_setsockopt(b, IPPROTO_IPV6, IPV6_LEAVE_GROUP, &group, sizeof group));
    T_FAILS(pysock_setsockopt(b, IPPROTO_IPV6, IPV6_LEAVE_GROUP, &group, sizeof group),
            PYSOCK_OS_ERROR, EADDRNOTAVAIL);
    if (index) {
        T_STEP("a group on interface %u", index);
        t_check_option(a, IPPROTO_IPV6, IPV6_MULTICAST_IF, (int)index);
        group.ipv6mr_interface = index;
        T_OK(pysock_setsockopt(b, IPPROTO_IPV6, IPV6_JOIN_GROUP, &group, sizeof group));
        T_EQ(pysock_sendto(a, "members", 7, 0, text, port), 7);
        expect_from(b, "members", NULL);
        T_OK(pysock_setsockopt(b, IPPROTO_IPV6, IPV6_LEAVE_GROUP, &group, sizeof group));
    } else {
        print_message("no interface has IPv6 multicast: nothing is sent\n");
    }
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
}

/* ---- IPv6 ---- */

T_TEST(an_ipv6_socket_may_speak_ipv4, 30) {
    pysock *both, *v4;
    pysock_addr from, at;
    char text[PYSOCK_ADDR_STRLEN], buf[8];
    int off = 0;
    if (!t_has_ipv6()) {
        print_message("this machine has no IPv6 loopback: skipped\n");
        skip();
    }
    both = unbound(UDP6);
    v4 = bound(UDP4);
    T_OK(pysock_setsockopt(both, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off));
    T_OK(pysock_bind(both, "::", 0));
    T_EQ(pysock_sendto(v4, "up", 2, 0, "127.0.0.1", t_port_of(both)), 2);
    T_EQ(pysock_recvfrom(both, buf, sizeof buf, 0, &from), 2);
    T_EQ(from.u.sa.sa_family, AF_INET6);
    T_CHECK(IN6_IS_ADDR_V4MAPPED(&from.u.in6.sin6_addr));
    T_EQ(pysock_addr_port(&from), t_port_of(v4));
    pysock_addr_format(&from, text, sizeof text);
    T_CHECK(strncmp(text, "[::ffff:127.0.0.1]:", 19) == 0);
    send_to(both, "down", &from);
    T_EQ(pysock_recvfrom(v4, buf, sizeof buf, 0, &at), 4);
    T_EQ(at.u.sa.sa_family, AF_INET);
    T_EQ(pysock_addr_port(&at), t_port_of(both));
    T_EQ(pysock_sendto(both, "text", 4, 0, "::ffff:127.0.0.1", t_port_of(v4)), 4);
    expect_from(v4, "text", NULL);
    T_OK(pysock_close(both));
    T_OK(pysock_close(v4));
}

T_TEST(a_flow_is_kept_in_an_address, 30) {
    pysock *a, *b;
    pysock_addr to, peer;
    char byte;
    if (!t_has_ipv6()) {
        print_message("this machine has no IPv6 loopback: skipped\n");
        skip();
    }
    a = unbound(UDP6);
    b = bound(UDP6);
    to = t_addr_of(b);
    to.u.in6.sin6_flowinfo = htonl(0x12345);
    T_OK(pysock_setsockopt_int(a, IPPROTO_IPV6, IPV6_FLOWINFO_SEND, 1));
    for (int mode = 0; mode < MODES; mode++) {
        T_OK(pysock_settimeout(a, modes[mode]));
        T_OK(pysock_connect_addr(a, &to));
        T_OK(pysock_getpeername(a, &peer));
        T_EQ(ntohl(peer.u.in6.sin6_flowinfo), 0x12345);
        expect_same(&peer, &to);
        T_EQ(pysock_send(a, "x", 1, 0), 1);
        T_EQ(pysock_recv(b, &byte, 1, 0), 1);
        send_to(a, "y", &to);
        T_EQ(pysock_recv(b, &byte, 1, 0), 1);
    }
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
}

/* A link-local address of this machine, with its scope. 0: there is none that can be bound. */
static int link_local(pysock_addr *addr) {
    struct ifaddrs *list, *at;
    int found = 0;
    if (getifaddrs(&list) != 0)
        return 0;
    for (at = list; at && !found; at = at->ifa_next) {
        struct sockaddr_in6 in6;
        int fd;
        if (!at->ifa_addr || at->ifa_addr->sa_family != AF_INET6)
            continue;
        memcpy(&in6, at->ifa_addr, sizeof in6);
        if (!IN6_IS_ADDR_LINKLOCAL(&in6.sin6_addr))
            continue;
        in6.sin6_scope_id = if_nametoindex(at->ifa_name);
        fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        found = fd >= 0 && bind(fd, (struct sockaddr *)&in6, sizeof in6) == 0;
        if (fd >= 0)
            close(fd);
        if (found)
            T_OK(pysock_addr_from_sockaddr(addr, (struct sockaddr *)&in6, sizeof in6));
    }
    freeifaddrs(list);
    return found;
}

T_TEST(a_scope_goes_with_a_link_local_address, 30) {
    pysock *a, *b;
    pysock_addr ll, at, peer, from;
    char text[PYSOCK_ADDR_STRLEN], host[PYSOCK_ADDR_STRLEN], byte;
    if (!t_has_ipv6() || !link_local(&ll)) {
        print_message("this machine has no link-local address: skipped\n");
        skip();
    }
    a = unbound(UDP6);
    b = unbound(UDP6);
    T_OK(pysock_bind_addr(b, &ll));
    at = t_addr_of(b);
    T_EQ(at.u.in6.sin6_scope_id, ll.u.in6.sin6_scope_id);
    T_STEP("as text");
    pysock_addr_format(&at, text, sizeof text);
    T_CHECK(strchr(text, '%') != NULL);
    snprintf(host, sizeof host, "%.*s", (int)(strchr(text, ']') - text - 1), text + 1);
    T_OK(pysock_bind(a, host, 0));
    T_EQ(pysock_sendto(a, "x", 1, 0, host, t_port_of(b)), 1);
    T_EQ(pysock_recvfrom(b, &byte, 1, 0, &from), 1);
    T_EQ(from.u.in6.sin6_scope_id, ll.u.in6.sin6_scope_id);
    T_STEP("by value");
    for (int mode = 0; mode < MODES; mode++) {
        T_OK(pysock_settimeout(a, modes[mode]));
        T_OK(pysock_connect_addr(a, &at));
        T_OK(pysock_getpeername(a, &peer));
        expect_same(&peer, &at);
        peer = t_addr_of(a);
        T_EQ(peer.u.in6.sin6_scope_id, ll.u.in6.sin6_scope_id);
        send_to(b, "answer", &peer);
        expect_from(a, "answer", &at);
    }
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
}

/* ---- waiting ---- */

T_TEST(select_and_pollers_tell_of_datagrams_in_every_mode, 60) {
    FOR_EACH_KIND(kind) {
        pysock *a = unbound(kind), *b = bound(kind);
        pysock_addr at = t_addr_of(b);
        int fd = pysock_fileno(b);
        pysock_poller *p = t_poller_with(fd, POLLIN | POLLOUT);
        pysock_pollevent event;
        for (int mode = 0; mode < MODES; mode++) {
            T_OK(pysock_settimeout(b, modes[mode]));
            T_EQ(t_readable(b, 0), 0);
            T_EQ(t_writable(b, 0), 1);
            T_EQ(pysock_poller_poll(p, &event, 1, PYSOCK_NO_TIMEOUT), 1);
            T_EQ(event.fd, fd);
            T_EQ(event.events, POLLOUT);
            T_OK(pysock_poller_modify(p, fd, POLLIN));
            T_EQ(pysock_poller_poll(p, &event, 1, 0), 0);
            send_to(a, "one", &at);
            send_to(a, "two", &at);
            T_EQ(pysock_poller_poll(p, &event, 1, PYSOCK_NO_TIMEOUT), 1);
            T_EQ(event.events, POLLIN);
            T_OK(pysock_poller_modify(p, fd, POLLIN | POLLOUT));
            expect_from(b, "one", NULL);
            T_EQ(t_readable(b, PYSOCK_NO_TIMEOUT), 1);
            T_EQ(pysock_poller_poll(p, &event, 1, PYSOCK_NO_TIMEOUT), 1);
            T_EQ(event.events, POLLIN | POLLOUT);
            expect_from(b, "two", NULL);
            T_EQ(t_readable(b, 0), 0);
            T_EQ(pysock_poller_poll(p, &event, 1, 0), 1);
            T_EQ(event.events, POLLOUT);
        }
        pysock_poller_release(p);
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
    }
}

T_TEST(a_datagram_ends_every_wait_for_it, 60) {
    FOR_EACH_KIND(kind) {
        for (int call = 0; call < CALLS; call++) {
            pysock *a = unbound(kind), *b = bound(kind);
            pysock_addr at = t_addr_of(b);
            job j;
            t_thread t;
            if (call == SENDTO)
                call++;
            T_STEP("%s, %s", kind_names[kind], call_names[call]);
            T_OK(pysock_settimeout(b, call & 1 ? 60 : PYSOCK_NO_TIMEOUT));
            memset(&j, 0, sizeof j);
            j.call = call;
            j.s = b;
            j.p = t_poller_with(pysock_fileno(b), POLLIN);
            t_spawn(&t, job_thread, &j);
            t_wait_asleep(&t);
            send_to(a, "wake", &at);
            t_join(&t);
            T_EQ(j.result, call < RECEIVERS ? 4 : 1);
            if (call < RECEIVERS)
                T_CHECK(memcmp(j.buf, "wake", 4) == 0);
            pysock_poller_release(j.p);
            T_OK(pysock_close(a));
            T_OK(pysock_close(b));
        }
    }
}

/* Disturbs the thread with signals for most of its time, and expects its timeout, neither earlier
   nor much later than it was to be. */
static void expect_one_deadline(job *j, double timeout) {
    t_thread t;
    double start = t_now();
    T_OK(pysock_settimeout(j->s, timeout));
    t_spawn(&t, job_thread, j);
    while (!__atomic_load_n(&t.tid, __ATOMIC_ACQUIRE))
        t_nap(0.001);
    while (t_now() - start < timeout * 0.75) {
        (void)pthread_kill(t.id, SIGUSR1);
        t_nap(0.01);
    }
    t_join(&t);
    T_EQ(j->result, -1);
    T_EQ(j->kind, PYSOCK_TIMEOUT_ERROR);
    T_EQ(j->code, ETIMEDOUT);
    T_CHECK(j->took >= timeout - 0.01);
    T_CHECK(j->took < timeout + 20);
}

T_TEST(a_timeout_is_one_deadline_for_the_call, 60) {
    t_catch_signal(SIGUSR1);
    FOR_EACH_KIND(kind) {
        for (int call = 0; call < RECEIVERS; call++) {
            pysock *s = bound(kind);
            job j;
            memset(&j, 0, sizeof j);
            j.call = call;
            j.s = s;
            expect_one_deadline(&j, 0.2);
            T_OK(pysock_close(s));
        }
    }
}

/* A Unix datagram socket whose receiver does not read takes a few datagrams (net.unix.
   max_dgram_qlen) and then makes its senders wait. Where they are not connected poll(2) does not
   know for whose queue they wait, and calls them writable: no reason to spin. */
T_TEST(a_full_queue_makes_unix_senders_wait, 120) {
    t_catch_signal(SIGUSR1);
    for (int connected = 0; connected < 2; connected++) {
        pysock *a = unbound(UNIX_PATH), *b = bound(UNIX_PATH);
        pysock_addr at = t_addr_of(b);
        t_thread t;
        job j;
        int sent;
        T_STEP(connected ? "connected" : "not connected");
        if (connected)
            T_OK(pysock_connect_addr(a, &at));
        sent = fill_queue(a, &at);
        T_CHECK(sent > 0);
        T_OK(pysock_setblocking(a, 0));
        T_FAILS(pysock_sendto_addr(a, "x", 1, 0, &at), PYSOCK_OS_ERROR, EAGAIN);
        if (connected) {
            T_FAILS(pysock_send(a, "x", 1, 0), PYSOCK_OS_ERROR, EAGAIN);
            T_EQ(t_writable(a, 0), 0);
        }
        memset(&j, 0, sizeof j);
        j.call = SENDTO;
        j.s = a;
        j.to = &at;
        T_STEP("%sconnected, timed", connected ? "" : "un");
        expect_one_deadline(&j, 0.4);
        T_CHECK(j.cpu < 0.2);
        T_STEP("%sconnected, blocking", connected ? "" : "un");
        T_OK(pysock_setblocking(a, 1));
        t_spawn(&t, job_thread, &j);
        t_nap(0.3); /* the time over which it is measured; it may as well not have begun */
        for (int i = 0; i < sent; i++)
            expect_from(b, "fills", NULL);
        expect_from(b, "waits", NULL);
        t_join(&t);
        T_EQ(j.result, 5);
        T_CHECK(j.cpu < 0.15);
        T_EQ(t_writable(a, PYSOCK_NO_TIMEOUT), 1);
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
    }
}

/* ---- names ---- */

T_TEST(sendto_looks_names_up, 60) {
    pysock *a, *b;
    pysock_addr at;
    int port;
    if (!has_localhost())
        skip();
    a = bound(UDP4);
    b = bound(UDP4);
    at = t_addr_of(a);
    port = t_port_of(b);
    T_STEP("blocking");
    for (int i = 0; i < 3; i++) {
        T_EQ(pysock_sendto(a, "blocking", 8, 0, "localhost", port), 8);
        expect_from(b, "blocking", &at);
    }
    T_STEP("timed");
    T_OK(pysock_settimeout(a, 60));
    for (int i = 0; i < 3; i++) {
        T_EQ(pysock_sendto(a, "timed", 5, 0, "localhost", port), 5);
        expect_from(b, "timed", &at);
    }
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
}

/* Begins a non-blocking sendto by name, whose lookup somebody else does: 0 after EAGAIN; 1 if it
   was that fast that the datagram has gone. */
static int goes_at_once(pysock *s, const char *text, const char *host, int port) {
    ptrdiff_t n = pysock_sendto(s, text, strlen(text), 0, host, port);
    if (n < 0) {
        T_EQ(errno, EAGAIN);
        T_EQ(pysock_error(), PYSOCK_OS_ERROR);
        return 0;
    }
    T_EQ(n, strlen(text));
    return 1;
}

/* The whole of it. */
static void send_by_name(pysock *s, const char *text, const char *host, int port) {
    while (!goes_at_once(s, text, host, port))
        T_EQ(t_writable(s, PYSOCK_NO_TIMEOUT), 1);
}

/* A non-blocking call does not look names up in its own time: EAGAIN, then select or a poller says
   when it can go. */
T_TEST(a_nonblocking_sendto_by_name_is_writable_when_it_can_go, 60) {
    pysock *a, *b;
    pysock_addr at;
    pysock_poller *p;
    int port, waited = 0;
    if (!has_localhost())
        skip();
    a = bound(UDP4);
    b = bound(UDP4);
    at = t_addr_of(a);
    port = t_port_of(b);
    T_OK(pysock_setblocking(a, 0));
    p = t_poller_with(pysock_fileno(a), POLLOUT);
    for (int i = 0; i < 50; i++) {
        pysock_pollevent event;
        T_STEP("round %d", i);
        if (!goes_at_once(a, "by name", "localhost", port)) {
            waited++;
            if (i & 1) {
                T_EQ(pysock_poller_poll(p, &event, 1, PYSOCK_NO_TIMEOUT), 1);
                T_EQ(event.events, POLLOUT);
            } else {
                T_EQ(t_writable(a, PYSOCK_NO_TIMEOUT), 1);
            }
            T_EQ(pysock_sendto(a, "by name", 7, 0, "localhost", port), 7);
        }
        expect_from(b, "by name", &at);
    }
    T_CHECK(waited > 0);
    T_STEP("what was begun without blocking may be ended otherwise");
    for (int mode = 0; mode < 2; mode++) {
        T_OK(pysock_setblocking(a, 0));
        if (goes_at_once(a, "by name", "localhost", port))
            expect_from(b, "by name", &at);
        T_OK(pysock_settimeout(a, modes[mode]));
        T_EQ(pysock_sendto(a, "waits", 5, 0, "localhost", port), 5);
        expect_from(b, "waits", &at);
    }
    pysock_poller_release(p);
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
}

/* The lookup is a matter of that one datagram: others come and go meanwhile. */
T_TEST(a_lookup_holds_up_nothing_else, 60) {
    pysock *a, *b;
    pysock_addr at_a, at_b;
    char buf[16];
    int sent;
    if (!has_localhost())
        skip();
    a = bound(UDP4);
    b = bound(UDP4);
    at_a = t_addr_of(a);
    at_b = t_addr_of(b);
    T_OK(pysock_setblocking(a, 0));
    for (int i = 0; i < 20; i++) {
        send_to(b, "comes", &at_a);
        T_EQ(t_readable(a, PYSOCK_NO_TIMEOUT), 1);
        sent = goes_at_once(a, "by name", "localhost", t_port_of(b));
        T_EQ(t_readable(a, 0), 1);
        T_EQ(pysock_recv(a, buf, sizeof buf, 0), 5);
        if (sent)
            expect_from(b, "by name", &at_a);
        T_EQ(pysock_sendto_addr(a, "goes", 4, 0, &at_b), 4);
        T_EQ(pysock_sendto(a, "numeric", 7, 0, "127.0.0.1", t_port_of(b)), 7);
        expect_from(b, "goes", &at_a);
        expect_from(b, "numeric", &at_a);
        if (!sent) {
            T_EQ(t_writable(a, PYSOCK_NO_TIMEOUT), 1);
            T_EQ(pysock_sendto(a, "by name", 7, 0, "localhost", t_port_of(b)), 7);
            expect_from(b, "by name", &at_a);
        }
    }
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
}

T_TEST(a_socket_may_close_while_it_looks_a_name_up, 60) {
    if (!has_localhost())
        skip();
    for (int i = 0; i < 50; i++) {
        pysock *s = bound(UDP4);
        int port = t_port_of(s);
        T_OK(pysock_setblocking(s, 0));
        (void)goes_at_once(s, "x", "localhost", port);
        T_OK(pysock_close(s));
        T_FAILS(pysock_sendto(s, "x", 1, 0, "localhost", port), PYSOCK_OS_ERROR, EBADF);
    }
}

/* Names that no resolver asks anybody about: a label is empty. */
T_TEST(a_name_that_is_none_is_told_in_every_mode, 60) {
    pysock *a = bound(UDP4), *b = bound(UDP4);
    pysock_addr at = t_addr_of(b);
    for (int i = 0; i < 3; i++) {
        T_OK(pysock_setblocking(a, 1));
        T_FAILS(pysock_sendto(a, "x", 1, 0, "no..name", 9), PYSOCK_GAI_ERROR, T_ANY);
        T_CHECK(pysock_error_code() != 0);
        T_OK(pysock_settimeout(a, 60));
        T_FAILS(pysock_sendto(a, "x", 1, 0, "no..name", 9), PYSOCK_GAI_ERROR, T_ANY);
        T_OK(pysock_setblocking(a, 0));
        while (pysock_sendto(a, "x", 1, 0, "no..name", 9) < 0 && errno == EAGAIN)
            T_EQ(t_writable(a, PYSOCK_NO_TIMEOUT), 1);
        T_EQ(pysock_error(), PYSOCK_GAI_ERROR);
        T_CHECK(strstr(pysock_error_message(), "no..name") != NULL);
        send_to(a, "but this", &at);
        expect_from(b, "but this", NULL);
    }
    T_STEP("the answer for one name is none for another, nor for another port");
    if (has_localhost()) {
        int port = t_port_of(b), other = t_port_of(a);
        if (goes_at_once(a, "by name", "localhost", port))
            expect_from(b, "by name", NULL);
        T_EQ(t_writable(a, PYSOCK_NO_TIMEOUT), 1);
        T_FAILS(pysock_sendto(a, "x", 1, 0, "no..name", port), T_ANY, T_ANY);
        send_by_name(a, "to myself", "localhost", other);
        expect_from(a, "to myself", NULL);
        expect_nothing(b);
    }
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
}

typedef struct name_job {
    pysock *s;
    int port, rounds;
} name_job;

static void *send_by_name_thread(void *arg) {
    name_job *j = arg;
    for (int i = 0; i < j->rounds; i++)
        T_EQ(pysock_sendto(j->s, "by name", 7, 0, "localhost", j->port), 7);
    return NULL;
}

/* Each looks up what it asked for; none takes the other's answer, or takes it away. */
T_TEST(two_threads_may_send_by_name_on_one_socket, 100) {
    pysock *s, *to[2];
    name_job jobs[2];
    t_thread threads[2];
    if (!has_localhost())
        skip();
    for (int mode = 0; mode < 2; mode++) {
        T_STEP("mode %d", mode);
        s = bound(UDP4);
        T_OK(pysock_settimeout(s, modes[mode]));
        for (int i = 0; i < 2; i++) {
            to[i] = bound(UDP4);
            T_OK(pysock_setsockopt_int(to[i], SOL_SOCKET, SO_RCVBUF, 1 << 20));
            jobs[i].s = s;
            jobs[i].port = t_port_of(to[i]);
            jobs[i].rounds = 50;
            t_spawn(&threads[i], send_by_name_thread, &jobs[i]);
        }
        for (int i = 0; i < 2; i++)
            t_join(&threads[i]);
        for (int i = 0; i < 2; i++) {
            for (int n = 0; n < jobs[i].rounds; n++)
                expect_from(to[i], "by name", NULL);
            expect_nothing(to[i]);
            T_OK(pysock_close(to[i]));
        }
        T_OK(pysock_close(s));
    }
}

/* The call may find the result before the worker has said that it is there. */
T_TEST(a_socket_is_writable_again_after_each_name, 60) {
    for (int i = 0; i < 300; i++) {
        pysock *s = T_OK(pysock_socket(AF_INET, SOCK_DGRAM, 0));
        T_OK(pysock_setblocking(s, 0));
        while (pysock_sendto(s, "x", 1, 0, "localhost", 9) < 0)
            T_EQ(errno, EAGAIN);
        T_EQ(pysock_wait(s, POLLOUT, 30), POLLOUT);
        T_OK(pysock_close(s));
    }
}

/* ---- wrong use ---- */

T_TEST(sendto_refuses_what_makes_no_sense, 60) {
    static const int ports[] = {70000, 65536, -1, INT32_MAX, INT32_MIN};
    pysock *a = bound(UDP4), *b = bound(UDP4);
    pysock_addr at = t_addr_of(b), addr;
    char host[400];
    memset(host, 'n', sizeof host);
    host[sizeof host - 1] = 0;
    for (int mode = 0; mode < MODES; mode++) {
        T_OK(pysock_settimeout(a, modes[mode]));
        for (size_t i = 0; i < sizeof ports / sizeof ports[0]; i++) {
            T_FAILS(pysock_sendto(a, "x", 1, 0, "127.0.0.1", ports[i]), PYSOCK_VALUE_ERROR, EINVAL);
            T_FAILS(pysock_sendto(a, "x", 1, 0, "localhost", ports[i]), PYSOCK_VALUE_ERROR, EINVAL);
        }
        T_FAILS(pysock_sendto(a, NULL, 1, 0, "127.0.0.1", t_port_of(b)), PYSOCK_VALUE_ERROR,
                EINVAL);
        T_FAILS(pysock_sendto(a, "x", (size_t)-1, 0, "127.0.0.1", t_port_of(b)), PYSOCK_VALUE_ERROR,
                EINVAL);
        T_FAILS(pysock_sendto(a, "x", 1, 0, host, t_port_of(b)), T_ANY, T_ANY);
        T_CHECK(errno != EAGAIN);
        T_FAILS(pysock_sendto(a, "x", 1, 0, "127.0.0.1", 0), PYSOCK_OS_ERROR, EINVAL);
        T_FAILS(pysock_sendto_addr(a, NULL, 1, 0, &at), PYSOCK_VALUE_ERROR, EINVAL);
        T_FAILS(pysock_sendto_addr(a, "x", (size_t)-1, 0, &at), PYSOCK_VALUE_ERROR, EINVAL);
        T_FAILS(pysock_sendto_addr(a, "x", 1, 0, NULL), PYSOCK_VALUE_ERROR, EINVAL);
        memset(&addr, 0, sizeof addr);
        T_FAILS(pysock_sendto_addr(a, "x", 1, 0, &addr), PYSOCK_VALUE_ERROR, EINVAL);
        addr = at;
        addr.size = 100000;
        T_FAILS(pysock_sendto_addr(a, "x", 1, 0, &addr), PYSOCK_VALUE_ERROR, EINVAL);
        addr.size = 4;
        T_FAILS(pysock_sendto_addr(a, "x", 1, 0, &addr), PYSOCK_OS_ERROR, EINVAL);
        T_FAILS(pysock_sendto(a, "x", 1, MSG_OOB, "127.0.0.1", t_port_of(b)), PYSOCK_OS_ERROR,
                EOPNOTSUPP);
    }
    expect_nothing(b);
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
}

T_TEST(an_address_of_another_family_is_refused, 30) {
    pysock *a;
    pysock_addr unix_addr, in_addr, in6_addr;
    char name[120];
    T_OK(pysock_addr_parse(&in_addr, "127.0.0.1:9"));
    T_OK(pysock_addr_parse(&in6_addr, "[::1]:9"));
    T_OK(pysock_addr_parse(&unix_addr, "unix:@pysock-test-nobody"));
    a = bound(UDP4);
    T_FAILS(pysock_sendto_addr(a, "x", 1, 0, &in6_addr), PYSOCK_OS_ERROR, EAFNOSUPPORT);
    T_FAILS(pysock_sendto_addr(a, "x", 1, 0, &unix_addr), PYSOCK_OS_ERROR, EAFNOSUPPORT);
    T_FAILS(pysock_sendto(a, "x", 1, 0, "::1", 9), PYSOCK_GAI_ERROR, T_ANY);
    T_OK(pysock_close(a));
    a = unbound(UNIX_PATH);
    T_FAILS(pysock_sendto_addr(a, "x", 1, 0, &in_addr), PYSOCK_OS_ERROR, EINVAL);
    T_FAILS(pysock_sendto(a, "x", 1, 0, "", 0), PYSOCK_OS_ERROR, T_ANY);
    T_FAILS(pysock_sendto(a, "x", 1, 0, NULL, 0), T_ANY, T_ANY);
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = 0;
    T_FAILS(pysock_sendto(a, "x", 1, 0, name, 0), PYSOCK_OS_ERROR, ENAMETOOLONG);
    T_OK(pysock_close(a));
}

T_TEST(recvfrom_refuses_what_makes_no_sense, 30) {
    pysock *s = bound(UDP4);
    pysock_addr from;
    char byte;
    for (int call = 0; call < RECEIVERS; call++) {
        T_FAILS(receive_by(call, s, NULL, 1, 0), PYSOCK_VALUE_ERROR, EINVAL);
        T_FAILS(receive_by(call, s, &byte, (size_t)-1, 0), PYSOCK_VALUE_ERROR, EINVAL);
    }
    T_OK(pysock_setblocking(s, 0));
    memset(&from, 0xee, sizeof from);
    T_FAILS(pysock_recvfrom(s, &byte, 1, 0, &from), PYSOCK_OS_ERROR, EAGAIN);
    T_OK(pysock_close(s));
}

typedef struct oob_wait {
    pysock *s;
    ptrdiff_t result;
} oob_wait;

static void *oob_thread(void *arg) {
    oob_wait *w = arg;
    char byte;
    w->result = pysock_recv(w->s, &byte, 1, MSG_OOB);
    return NULL;
}

/* Only streams have urgent data. UDP does not look at the flag, and a datagram ends the wait. */
T_TEST(MSG_OOB_means_nothing_to_who_receives_datagrams, 60) {
    FOR_EACH_KIND(kind) {
        pysock *a = unbound(kind), *b = bound(kind);
        pysock_addr at = t_addr_of(b);
        oob_wait w = {b, -1};
        t_thread t;
        char byte;
        T_OK(pysock_settimeout(b, 10));
        if (kind >= UNIX_PATH) {
            T_FAILS(pysock_recv(b, &byte, 1, MSG_OOB), PYSOCK_OS_ERROR, EOPNOTSUPP);
        } else {
            t_spawn(&t, oob_thread, &w);
            t_wait_asleep(&t);
            send_to(a, "x", &at);
            t_join(&t);
            T_EQ(w.result, 1);
        }
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
    }
}

T_TEST(datagram_sockets_are_no_streams, 60) {
    pysock_buf *b;
    b = T_OK(pysock_buf_copy("x", 1));
    FOR_EACH_KIND(kind) {
        pysock *s = bound(kind);
        T_FAILS(pysock_listen(s, 1), PYSOCK_OS_ERROR, EOPNOTSUPP);
        T_FAILS(pysock_accept(s, NULL), PYSOCK_OS_ERROR, T_ANY);
        T_FAILS(pysock_send_buf(s, b), PYSOCK_OS_ERROR, EOPNOTSUPP);
        T_FAILS(pysock_ssl_wrap_socket(s, client_ctx, "localhost"), T_ANY, T_ANY);
        T_FAILS(pysock_ssl_wrap_socket(s, server_ctx, NULL), T_ANY, T_ANY);
        expect_nothing(s);
        T_OK(pysock_close(s));
    }
    pysock_buf_release(b);
}

/* On streams the kernel knows the peer: what sendto and recvfrom do there is up to it. */
T_TEST(streams_take_sendto_and_recvfrom_as_the_kernel_does, 60) {
    pysock *pair[2], *s;
    pysock_addr at, from;
    char buf[8], name[100];
    t_pair(pair);
    at = t_addr_of(pair[1]);
    for (int mode = 0; mode < MODES; mode++) {
        T_OK(pysock_settimeout(pair[0], modes[mode]));
        T_OK(pysock_settimeout(pair[1], modes[mode]));
        T_EQ(pysock_sendto_addr(pair[0], "abc", 3, 0, &at), 3);
        T_EQ(t_readable(pair[1], PYSOCK_NO_TIMEOUT), 1);
        memset(&from, 0xee, sizeof from);
        T_EQ(pysock_recvfrom(pair[1], buf, sizeof buf, 0, &from), 3);
        T_EQ(from.size, 0);
    }
    T_OK(pysock_close(pair[0]));
    T_OK(pysock_setblocking(pair[1], 1));
    T_EQ(pysock_recvfrom(pair[1], buf, sizeof buf, 0, &from), 0);
    T_OK(pysock_close(pair[1]));
    T_STEP("a Unix stream");
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    T_FAILS(pysock_sendto(pair[0], "x", 1, 0, fresh_name(UNIX_PATH, name), 0), PYSOCK_OS_ERROR,
            EISCONN);
    t_close_pair(pair);
    T_STEP("streams without a connection");
    for (int mode = 0; mode < MODES; mode++) {
        s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
        T_OK(pysock_settimeout(s, modes[mode]));
        T_FAILS(pysock_recvfrom(s, buf, sizeof buf, 0, &from), PYSOCK_OS_ERROR, ENOTCONN);
        T_FAILS(pysock_sendto_addr(s, "x", 1, 0, &at), PYSOCK_OS_ERROR, EPIPE);
        T_OK(pysock_close(s));
        s = T_OK(pysock_socket(AF_UNIX, SOCK_STREAM, 0));
        T_OK(pysock_settimeout(s, modes[mode]));
        T_FAILS(pysock_sendto(s, "x", 1, 0, name, 0), PYSOCK_OS_ERROR, EOPNOTSUPP);
        T_FAILS(pysock_recvfrom(s, buf, sizeof buf, 0, &from), PYSOCK_OS_ERROR, EINVAL);
        T_OK(pysock_close(s));
    }
}

static int denied, denials_of_names;

static int deny_sendto(void *arg, const pysock_audit_event *event) {
    const pysock_addr *want = arg;
    if (strcmp(event->name, "socket.getaddrinfo") == 0)
        denials_of_names++;
    if (strcmp(event->name, "socket.sendto") != 0)
        return 0;
    T_CHECK(event->socket != NULL && event->addr != NULL);
    expect_same(event->addr, want);
    denied++;
    return 1;
}

T_TEST(the_audit_hook_can_deny_a_sendto, 30) {
    pysock *a, *b;
    pysock_addr at;
    a = bound(UDP4);
    b = bound(UDP4);
    at = t_addr_of(b);
    denied = denials_of_names = 0;
    pysock_set_audit_hook(deny_sendto, &at);
    for (int mode = 0; mode < MODES; mode++) {
        T_OK(pysock_settimeout(a, modes[mode]));
        T_FAILS(pysock_sendto_addr(a, "x", 1, 0, &at), PYSOCK_OS_ERROR, EACCES);
        T_FAILS(pysock_sendto(a, "x", 1, 0, "127.0.0.1", t_port_of(b)), PYSOCK_OS_ERROR, EACCES);
    }
    T_EQ(denied, 2 * MODES);
    T_EQ(denials_of_names, 0);
    pysock_set_audit_hook(NULL, NULL);
    expect_nothing(b);
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
}

/* ---- the end of waits ---- */

/* Begins call on b (whose queue a has filled where it is a sendto), and waits until it sleeps. */
static void begin_wait(job *j, t_thread *t, int call, pysock *a, pysock *b, const pysock_addr *to) {
    memset(j, 0, sizeof *j);
    j->call = call;
    j->s = call == SENDTO ? a : b;
    j->to = to;
    if (call == POLLER)
        j->p = t_poller_with(pysock_fileno(b), POLLIN);
    if (call == SENDTO) {
        T_OK(pysock_connect_addr(a, to));
        fill_queue(a, to);
    }
    t_spawn(t, job_thread, j);
    t_wait_asleep(t);
}

T_TEST(a_close_ends_every_wait_for_datagrams_with_EBADF, 120) {
    FOR_EACH_KIND(kind) {
        for (int i = 0; i < 2 * CALLS; i++) {
            int call = i / 2;
            pysock *a, *b;
            pysock_addr at;
            job j;
            t_thread t;
            if (call == SENDTO && kind < UNIX_PATH)
                continue; /* UDP drops what does not fit */
            T_STEP("%s, %s, %s", kind_names[kind], call_names[call], i & 1 ? "timed" : "blocking");
            a = unbound(kind);
            b = bound(kind);
            at = t_addr_of(b);
            T_OK(pysock_settimeout(call == SENDTO ? a : b, i & 1 ? 60 : PYSOCK_NO_TIMEOUT));
            begin_wait(&j, &t, call, a, b, &at);
            T_OK(pysock_close(j.s));
            t_join(&t);
            if (call == POLLER) {
                T_EQ(j.result, 1);
                T_EQ(j.event.events, POLLNVAL);
                pysock_poller_release(j.p);
            } else {
                T_EQ(j.result, -1);
                T_EQ(j.kind, PYSOCK_OS_ERROR);
                T_EQ(j.code, EBADF);
            }
            T_OK(pysock_close(a));
            T_OK(pysock_close(b));
        }
    }
}

T_TEST(a_connected_sockets_wait_ends_with_its_close_too, 60) {
    FOR_EACH_KIND(kind) {
        pysock *a = bound(kind), *b = bound(kind);
        pysock_addr at = t_addr_of(a);
        job j;
        t_thread t;
        T_OK(pysock_connect_addr(b, &at));
        begin_wait(&j, &t, RECVFROM, a, b, NULL);
        T_OK(pysock_close(b));
        t_join(&t);
        T_EQ(j.result, -1);
        T_EQ(j.code, EBADF);
        T_OK(pysock_close(a));
    }
}

T_TEST(a_cleanup_ends_every_wait_for_datagrams_with_ESHUTDOWN, 120) {
    FOR_EACH_KIND(kind) {
        job jobs[2 * CALLS];
        t_thread threads[2 * CALLS];
        pysock *a[2 * CALLS], *b[2 * CALLS];
        pysock_addr at[2 * CALLS];
        int n = 0;
        for (int i = 0; i < 2 * CALLS; i++) {
            int call = i / 2;
            if (call == SENDTO && kind < UNIX_PATH)
                continue;
            T_STEP("%s, %s", kind_names[kind], call_names[call]);
            a[n] = unbound(kind);
            b[n] = bound(kind);
            at[n] = t_addr_of(b[n]);
            T_OK(pysock_settimeout(call == SENDTO ? a[n] : b[n], i & 1 ? 60 : PYSOCK_NO_TIMEOUT));
            begin_wait(&jobs[n], &threads[n], call, a[n], b[n], &at[n]);
            n++;
        }
        pysock_cleanup();
        for (int i = 0; i < n; i++) {
            t_join(&threads[i]);
            T_STEP("%s, %s after the cleanup", kind_names[kind], call_names[jobs[i].call]);
            T_EQ(jobs[i].result, -1);
            T_EQ(jobs[i].kind, PYSOCK_OS_ERROR);
            T_EQ(jobs[i].code, ESHUTDOWN);
            pysock_poller_release(jobs[i].p);
            T_FAILS(pysock_sendto_addr(a[i], "x", 1, 0, &at[i]), PYSOCK_OS_ERROR, EBADF);
        }
        a[0] = unbound(kind);
        b[0] = bound(kind);
        at[0] = t_addr_of(b[0]);
        send_to(a[0], "after all", &at[0]);
        expect_from(b[0], "after all", NULL);
        T_OK(pysock_close(a[0]));
        T_OK(pysock_close(b[0]));
    }
}

static int hook_answer;

T_TEST(the_interrupt_hook_ends_a_wait_for_datagrams, 120) {
    t_catch_signal(SIGUSR1);
    __atomic_store_n(&hook_answer, 1, __ATOMIC_RELEASE);
    pysock_set_interrupt_hook(t_interrupt_hook, &hook_answer);
    FOR_EACH_KIND(kind) {
        for (int i = 0; i < 2 * (SENDTO + 1); i++) {
            int call = i / 2;
            pysock *a = unbound(kind), *b = bound(kind);
            pysock_addr at = t_addr_of(b);
            job j;
            t_thread t;
            if (call == SENDTO && kind < UNIX_PATH)
                call = RECV;
            T_STEP("%s, %s, %s", kind_names[kind], call_names[call], i & 1 ? "timed" : "blocking");
            T_OK(pysock_settimeout(call == SENDTO ? a : b, i & 1 ? 60 : PYSOCK_NO_TIMEOUT));
            begin_wait(&j, &t, call, a, b, &at);
            T_EQ(pthread_kill(t.id, SIGUSR1), 0);
            t_join(&t);
            T_EQ(j.result, -1);
            T_EQ(j.kind, PYSOCK_OS_ERROR);
            T_EQ(j.code, EINTR);
            T_OK(pysock_close(a));
            T_OK(pysock_close(b));
        }
    }
    pysock_set_interrupt_hook(NULL, NULL);
}

/* ---- threads and processes ---- */

enum { SHARED = 600, SHARERS = 4 };

typedef struct share {
    pysock *s;
    unsigned char *seen; /* atomic counters */
} share;

static void *share_thread(void *arg) {
    share *sh = arg;
    for (;;) {
        int number = -1;
        T_EQ(pysock_recvfrom(sh->s, &number, sizeof number, 0, NULL), sizeof number);
        if (number < 0)
            return NULL;
        T_CHECK(number < SHARED);
        __atomic_add_fetch(&sh->seen[number], 1, __ATOMIC_ACQ_REL);
    }
}

T_TEST(each_datagram_goes_to_one_of_many_readers, 60) {
    for (int mode = 0; mode < 2; mode++) {
        unsigned char seen[SHARED] = {0};
        pysock *a = unbound(UNIX_PATH), *b = bound(UNIX_PATH);
        pysock_addr at = t_addr_of(b);
        t_thread threads[SHARERS];
        share sh = {b, seen};
        int end = -1;
        T_STEP("mode %d", mode);
        T_OK(pysock_settimeout(b, modes[mode]));
        for (int i = 0; i < SHARERS; i++)
            t_spawn(&threads[i], share_thread, &sh);
        for (int i = 0; i < SHARED; i++)
            T_EQ(pysock_sendto_addr(a, &i, sizeof i, 0, &at), sizeof i);
        for (int i = 0; i < SHARERS; i++)
            T_EQ(pysock_sendto_addr(a, &end, sizeof end, 0, &at), sizeof end);
        for (int i = 0; i < SHARERS; i++)
            t_join(&threads[i]);
        for (int i = 0; i < SHARED; i++)
            T_EQ(seen[i], 1);
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
    }
}

static void child_answers(void *arg) {
    pysock *s = arg;
    pysock_addr from;
    char buf[16];
    T_EQ(t_readable(s, PYSOCK_NO_TIMEOUT), 1);
    T_EQ(pysock_recvfrom(s, buf, sizeof buf, 0, &from), 8);
    T_CHECK(memcmp(buf, "question", 8) == 0);
    send_to(s, "answer", &from);
}

static void child_closes(void *arg) {
    T_OK(pysock_close(arg));
    pysock_cleanup();
}

/* A child has the socket too, and what it does to its own copy is no business of the parent's. */
T_TEST(a_child_shares_the_socket_and_may_close_its_own, 60) {
    FOR_EACH_KIND(kind) {
        for (int i = 0; i < 2 * MODES; i++) {
            pysock *a = bound(kind), *b = bound(kind);
            pysock_addr at_a = t_addr_of(a), at_b = t_addr_of(b);
            pid_t pid;
            T_OK(pysock_settimeout(b, modes[i / 2]));
            pid = t_run_in_child(child_answers, b, i & 1);
            send_to(a, "question", &at_b);
            expect_from(a, "answer", &at_b);
            t_wait_for_child(pid);
            t_wait_for_child(t_run_in_child(child_closes, b, i & 1));
            send_to(a, "still here?", &at_b);
            expect_from(b, "still here?", &at_a);
            T_OK(pysock_close(a));
            T_OK(pysock_close(b));
        }
    }
}

static int child_port;

static void child_sends_by_name(void *arg) {
    pysock *s = arg;
    send_by_name(s, "child", "localhost", child_port);
}

/* The parent's lookup is not the child's: its worker is not there. */
T_TEST(a_child_of_a_parent_that_looks_up_a_name_can_send, 60) {
    pysock *a, *b;
    pysock_addr at;
    if (!has_localhost())
        skip();
    if (T_TSAN) {
        print_message("ThreadSanitizer takes a child's threads for its parent's: skipped\n");
        skip();
    }
    a = bound(UDP4);
    b = bound(UDP4);
    at = t_addr_of(a);
    child_port = t_port_of(b);
    T_OK(pysock_setblocking(a, 0));
    for (int i = 0; i < 10; i++) {
        pid_t pid;
        T_STEP("child %d", i);
        if (goes_at_once(a, "parent", "localhost", child_port))
            expect_from(b, "parent", &at);
        /* not by exit(): the worker's memory, which the child must not touch, is no leak */
        pid = t_run_in_child(child_sends_by_name, a, 0);
        expect_from(b, "child", &at);
        t_wait_for_child(pid);
        send_by_name(a, "parent", "localhost", child_port);
        expect_from(b, "parent", &at);
    }
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
}

/* ---- sequenced packets ---- */

T_TEST(seqpacket_keeps_borders_and_has_an_end, 60) {
    for (int mode = 0; mode < MODES; mode++) {
        pysock *pair[2];
        pysock_pollevent event;
        pysock_poller *p;
        char buf[16];
        T_STEP("mode %d", mode);
        T_OK(pysock_socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
        T_OK(pysock_settimeout(pair[0], modes[mode]));
        T_OK(pysock_settimeout(pair[1], modes[mode]));
        T_EQ(pysock_send(pair[0], "one", 3, 0), 3);
        T_EQ(pysock_send(pair[0], "three", 5, MSG_EOR), 5);
        T_EQ(pysock_send(pair[0], "", 0, 0), 0);
        T_EQ(pysock_send(pair[0], "cut off", 7, 0), 7);
        T_EQ(pysock_send(pair[0], "last", 4, 0), 4);
        T_EQ(t_readable(pair[1], PYSOCK_NO_TIMEOUT), 1);
        T_EQ(pysock_recv(pair[1], buf, sizeof buf, 0), 3);
        T_EQ(pysock_recv(pair[1], buf, sizeof buf, MSG_PEEK), 5);
        T_EQ(pysock_recvfrom(pair[1], buf, sizeof buf, 0, NULL), 5);
        T_EQ(t_readable(pair[1], PYSOCK_NO_TIMEOUT), 1);
        T_EQ(pysock_recv(pair[1], buf, sizeof buf, 0), 0); /* a packet, not the end */
        T_EQ(pysock_recv(pair[1], buf, 3, MSG_PEEK | MSG_TRUNC), 7);
        T_EQ(pysock_recv(pair[1], buf, 3, 0), 3);
        T_EQ(pysock_recv(pair[1], buf, sizeof buf, 0), 4);
        T_CHECK(memcmp(buf, "last", 4) == 0);
        T_EQ(t_readable(pair[1], 0), 0);
        T_OK(pysock_setblocking(pair[1], 0));
        T_FAILS(pysock_recv(pair[1], buf, sizeof buf, 0), PYSOCK_OS_ERROR, EAGAIN);
        T_OK(pysock_settimeout(pair[1], modes[mode]));
        p = t_poller_with(pysock_fileno(pair[1]), POLLIN);
        T_OK(pysock_close(pair[0]));
        T_EQ(pysock_poller_poll(p, &event, 1, PYSOCK_NO_TIMEOUT), 1);
        T_CHECK(event.events & POLLIN);
        for (int i = 0; i < 3; i++) {
            T_EQ(t_readable(pair[1], 0), 1);
            T_EQ(pysock_recv(pair[1], buf, sizeof buf, 0), 0);
        }
        T_FAILS(pysock_send(pair[1], "x", 1, 0), PYSOCK_OS_ERROR, EPIPE);
        pysock_poller_release(p);
        T_OK(pysock_close(pair[1]));
    }
}

T_TEST(seqpacket_listens_and_connects, 60) {
    for (int mode = 0; mode < MODES; mode++) {
        for (int kind = UNIX_PATH; kind <= UNIX_ABSTRACT; kind++) {
            pysock *listener, *a, *b;
            pysock_addr at, peer;
            char name[100], buf[16];
            job j;
            t_thread t;
            T_STEP("mode %d, %s", mode, kind_names[kind]);
            listener = T_OK(pysock_socket(AF_UNIX, SOCK_SEQPACKET, 0));
            T_OK(pysock_bind(listener, fresh_name(kind, name), 0));
            T_OK(pysock_listen(listener, 1));
            at = t_addr_of(listener);
            a = T_OK(pysock_socket(AF_UNIX, SOCK_SEQPACKET, 0));
            T_FAILS(pysock_recv(a, buf, sizeof buf, 0), PYSOCK_OS_ERROR, ENOTCONN);
            T_FAILS(pysock_send(a, "x", 1, 0), PYSOCK_OS_ERROR, ENOTCONN);
            T_OK(pysock_settimeout(a, modes[mode]));
            T_EQ(pysock_connect(a, name, 0), 0);
            T_EQ(t_readable(listener, PYSOCK_NO_TIMEOUT), 1);
            b = T_OK(pysock_accept(listener, &peer));
            T_EQ(pysock_type(b), SOCK_SEQPACKET);
            T_OK(pysock_getpeername(a, &peer));
            expect_same(&peer, &at);
            T_FAILS(pysock_connect_addr(a, &at), PYSOCK_OS_ERROR, EISCONN);
            T_EQ(pysock_send(a, "packet", 6, 0), 6);
            T_EQ(pysock_recv(b, buf, sizeof buf, 0), 6);
            T_EQ(pysock_sendto_addr(b, "address is ignored", 7, 0, &at), 7);
            T_EQ(t_readable(a, PYSOCK_NO_TIMEOUT), 1);
            T_EQ(pysock_recvfrom(a, buf, sizeof buf, 0, &peer), 7);
            T_STEP("mode %d, %s: a wait", mode, kind_names[kind]);
            begin_wait(&j, &t, RECVFROM, a, b, NULL);
            T_EQ(pysock_send(a, "woken", 5, 0), 5);
            t_join(&t);
            T_EQ(j.result, 5);
            begin_wait(&j, &t, RECV, a, b, NULL);
            T_OK(pysock_close(b));
            t_join(&t);
            T_EQ(j.result, -1);
            T_EQ(j.code, EBADF);
            T_EQ(t_readable(a, PYSOCK_NO_TIMEOUT), 1);
            T_EQ(pysock_recv(a, buf, sizeof buf, 0), 0);
            T_OK(pysock_close(a));
            T_OK(pysock_close(listener));
        }
    }
}

/* The peer's shutdown is an end, as of a stream; and it wakes who waits. */
T_TEST(a_seqpacket_wait_ends_with_the_stream, 30) {
    pysock *pair[2];
    job j;
    t_thread t;
    T_OK(pysock_socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
    begin_wait(&j, &t, RECVFROM_INTO, pair[0], pair[1], NULL);
    T_OK(pysock_shutdown(pair[0], SHUT_WR));
    t_join(&t);
    T_EQ(j.result, 0);
    T_EQ(pysock_send(pair[1], "half open", 9, 0), 9);
    T_EQ(pysock_recv(pair[0], j.buf, sizeof j.buf, 0), 9);
    t_close_pair(pair);
}

/* ---- raw sockets ---- */

static uint16_t checksum(const void *data, size_t size) {
    const unsigned char *p = data;
    uint32_t sum = 0;
    for (size_t i = 0; i + 1 < size; i += 2)
        sum += (uint32_t)(p[i] << 8 | p[i + 1]);
    if (size & 1)
        sum += (uint32_t)p[size - 1] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return htons((uint16_t)~sum);
}

typedef struct echo {
    struct icmphdr head;
    char data[8];
} echo;

/* The echo reply with this id and number, among all the ICMP that passes by. */
static void expect_echo(pysock *s, uint16_t id, uint16_t number) {
    for (;;) {
        unsigned char packet[256];
        pysock_addr from;
        struct iphdr ip;
        echo reply;
        size_t n;
        T_EQ(t_readable(s, PYSOCK_NO_TIMEOUT), 1);
        n = (size_t)T_OK(pysock_recvfrom(s, packet, sizeof packet, 0, &from));
        T_CHECK(n >= sizeof ip);
        memcpy(&ip, packet, sizeof ip);
        T_EQ(ip.version, 4);
        T_EQ(ip.protocol, IPPROTO_ICMP);
        if (n < ip.ihl * 4u + sizeof reply)
            continue;
        memcpy(&reply, packet + ip.ihl * 4u, sizeof reply);
        if (reply.head.type != ICMP_ECHOREPLY || reply.head.un.echo.id != id ||
            reply.head.un.echo.sequence != number)
            continue;
        T_CHECK(memcmp(reply.data, "an echo!", 8) == 0);
        T_EQ(from.u.sa.sa_family, AF_INET);
        T_EQ(ntohl(from.u.in.sin_addr.s_addr), INADDR_LOOPBACK);
        T_EQ(pysock_addr_port(&from), 0);
        return;
    }
}

T_TEST(a_raw_socket_hears_its_echo, 60) {
    pysock *s;
    echo ask;
    uint16_t id = (uint16_t)getpid();
    job j;
    t_thread t;
    s = t_socket_or_skip(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    T_EQ(pysock_type(s), SOCK_RAW);
    T_EQ(pysock_proto(s), IPPROTO_ICMP);
    for (uint16_t mode = 0; mode < MODES; mode++) {
        T_OK(pysock_settimeout(s, modes[mode]));
        memset(&ask, 0, sizeof ask);
        ask.head.type = ICMP_ECHO;
        ask.head.un.echo.id = id;
        ask.head.un.echo.sequence = mode;
        memcpy(ask.data, "an echo!", 8);
        ask.head.checksum = checksum(&ask, sizeof ask);
        T_EQ(pysock_sendto(s, &ask, sizeof ask, 0, "127.0.0.1", 0), sizeof ask);
        expect_echo(s, id, mode);
    }
    T_STEP("connected: to an address of loopback that nobody sends from");
    T_OK(pysock_connect(s, "127.254.253.252", 0));
    drain(s);
    T_OK(pysock_setblocking(s, 1));
    begin_wait(&j, &t, RECVFROM, s, s, NULL);
    T_OK(pysock_close(s));
    t_join(&t);
    T_EQ(j.result, -1);
    T_EQ(j.code, EBADF);
}

T_TEST(a_raw_ipv6_socket_hears_its_echo, 60) {
    pysock *s;
    struct {
        struct icmp6_hdr head;
        char data[8];
    } ask, reply;
    struct icmp6_filter filter;
    pysock_addr from;
    uint16_t id = (uint16_t)getpid();
    if (!t_has_ipv6()) {
        print_message("this machine has no IPv6 loopback: skipped\n");
        skip();
    }
    s = t_socket_or_skip(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6);
    ICMP6_FILTER_SETBLOCKALL(&filter);
    ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &filter);
    T_OK(pysock_setsockopt(s, IPPROTO_ICMPV6, ICMP6_FILTER, &filter, sizeof filter));
    memset(&ask, 0, sizeof ask);
    ask.head.icmp6_type = ICMP6_ECHO_REQUEST;
    ask.head.icmp6_id = id;
    memcpy(ask.data, "an echo!", 8);
    T_EQ(pysock_sendto(s, &ask, sizeof ask, 0, "::1", 0), sizeof ask);
    do
        T_EQ(pysock_recvfrom(s, &reply, sizeof reply, 0, &from), sizeof reply);
    while (reply.head.icmp6_id != id);
    T_EQ(reply.head.icmp6_type, ICMP6_ECHO_REPLY);
    T_CHECK(memcmp(reply.data, "an echo!", 8) == 0);
    T_CHECK(IN6_IS_ADDR_LOOPBACK(&from.u.in6.sin6_addr));
    T_OK(pysock_close(s));
}

/* What ping uses without privileges, where net.ipv4.ping_group_range allows it. */
T_TEST(a_ping_socket_hears_its_echo, 60) {
    pysock *s;
    echo ask, reply;
    s = t_socket_or_skip(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
    memset(&ask, 0, sizeof ask);
    ask.head.type = ICMP_ECHO;
    ask.head.un.echo.sequence = htons(7);
    memcpy(ask.data, "an echo!", 8);
    T_EQ(pysock_sendto(s, &ask, sizeof ask, 0, "127.0.0.1", 0), sizeof ask);
    T_EQ(pysock_recvfrom(s, &reply, sizeof reply, 0, NULL), sizeof reply);
    T_EQ(reply.head.type, ICMP_ECHOREPLY);
    T_EQ(ntohs(reply.head.un.echo.sequence), 7);
    T_OK(pysock_close(s));
}

/* ---- UDP-Lite ---- */

#ifndef IPPROTO_UDPLITE
#define IPPROTO_UDPLITE 136
#endif

T_TEST(udplite_covers_what_it_is_told, 30) {
    enum { SOL_LITE = 136, SEND_CSCOV = 10, RECV_CSCOV = 11 };
    pysock *a, *b;
    pysock_addr at;
    a = t_socket_or_skip(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE);
    b = T_OK(pysock_socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE));
    T_EQ(pysock_proto(b), IPPROTO_UDPLITE);
    T_OK(pysock_bind(b, "127.0.0.1", 0));
    at = t_addr_of(b);
    t_check_option(a, SOL_LITE, SEND_CSCOV, 20);
    t_check_option(b, SOL_LITE, RECV_CSCOV, 20);
    send_to(a, "not all of this is covered by a checksum", &at);
    expect_from(b, "not all of this is covered by a checksum", NULL);
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
}

T_MAIN(.setup = make_dir_and_contexts, .teardown = remove_dir_and_contexts)
