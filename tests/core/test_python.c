/* What CPython's own tests of its socket module (test_socket.py, test_timeout.py) ask for, where no
   other program here asks for it: grouped by CPython's classes. What it asks of the
   families of Linux stands in io/test_families.c. */
#include "support/support.h"

#include <limits.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

static const char msg[] = "Michael was here\xe1\x88\xb4\r\n"; /* not ASCII, and a line's end */
#define MSG (sizeof msg - 1)

static void expect_name(const pysock_addr *addr, const char *want) {
    char have[PYSOCK_ADDR_STRLEN];
    pysock_addr_format(addr, have, sizeof have);
    if (strcmp(have, want) != 0)
        T_FAIL("the address is '%s', not '%s'", have, want);
}

static void expect_exception(const char *want) {
    if (strcmp(pysock_error_name(), want) != 0)
        T_FAIL("the exception is %s, not %s", pysock_error_name(), want);
}

static pysock *udp_on_loopback(void) {
    pysock *s = T_OK(pysock_socket(AF_INET, SOCK_DGRAM, 0));
    T_OK(pysock_bind(s, "127.0.0.1", 0));
    T_OK(pysock_settimeout(s, 30));
    return s;
}

/* ---- GeneralModuleTests ---- */

T_TEST(a_new_socket_has_no_name_and_no_peer, 30) {
    static const struct {
        int family, type;
        const char *name;
    } kinds[] = {{AF_INET, SOCK_STREAM, "0.0.0.0:0"}, {AF_INET, SOCK_DGRAM, "0.0.0.0:0"},
                 {AF_INET6, SOCK_STREAM, "[::]:0"},   {AF_INET6, SOCK_DGRAM, "[::]:0"},
                 {AF_UNIX, SOCK_STREAM, "unix:"},     {AF_UNIX, SOCK_DGRAM, "unix:"},
                 {AF_UNIX, SOCK_SEQPACKET, "unix:"}};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        pysock_addr addr;
        pysock *s;
        if (kinds[i].family == AF_INET6 && !t_has_ipv6())
            continue;
        T_STEP("%s, type %d", kinds[i].name, kinds[i].type);
        s = T_OK(pysock_socket(kinds[i].family, kinds[i].type, 0));
        T_OK(pysock_getsockname(s, &addr));
        expect_name(&addr, kinds[i].name);
        T_FAILS(pysock_getpeername(s, &addr), PYSOCK_OS_ERROR, ENOTCONN);
        T_OK(pysock_close(s));
        T_FAILS(pysock_getsockname(s, &addr), PYSOCK_OS_ERROR, EBADF);
        T_FAILS(pysock_getpeername(s, &addr), PYSOCK_OS_ERROR, EBADF);
    }
}

/* testSockName: the wildcard stays the wildcard, and the port is the one that was chosen. */
T_TEST(a_socket_bound_to_any_address_is_named_so, 30) {
    static const char *const hosts[] = {"0.0.0.0", "", NULL};
    for (int i = 0; i < 3; i++) {
        char want[32];
        pysock_addr addr;
        pysock *s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
        T_OK(pysock_bind(s, hosts[i], 0));
        T_OK(pysock_getsockname(s, &addr));
        T_CHECK(pysock_addr_port(&addr) > 0);
        snprintf(want, sizeof want, "0.0.0.0:%d", pysock_addr_port(&addr));
        expect_name(&addr, want);
        T_FAILS(pysock_bind(s, hosts[i], 0), PYSOCK_OS_ERROR, EINVAL); /* once is enough */
        T_OK(pysock_close(s));
    }
}

T_TEST(an_address_of_another_machine_cannot_be_bound, 30) {
    pysock *s;
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_FAILS(pysock_bind(s, "198.51.100.1", 0), PYSOCK_OS_ERROR, EADDRNOTAVAIL);
    T_STEP("and it can still be bound to one that is ours");
    T_OK(pysock_bind(s, "127.0.0.1", 0));
    T_CHECK(t_port_of(s) > 0);
    T_OK(pysock_close(s));
}

/* testGetSockOpt, testSetSockOpt. */
T_TEST(a_new_socket_reuses_no_address_until_told, 30) {
    int value = -1;
    pysock *s;
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_getsockopt_int(s, SOL_SOCKET, SO_REUSEADDR, &value));
    T_EQ(value, 0);
    T_OK(pysock_setsockopt_int(s, SOL_SOCKET, SO_REUSEADDR, 1));
    T_OK(pysock_getsockopt_int(s, SOL_SOCKET, SO_REUSEADDR, &value));
    T_CHECK(value != 0);
    T_OK(pysock_setsockopt_int(s, SOL_SOCKET, SO_REUSEADDR, 0));
    T_OK(pysock_getsockopt_int(s, SOL_SOCKET, SO_REUSEADDR, &value));
    T_EQ(value, 0);
    T_OK(pysock_close(s));
}

/* testNtoH; the header must bring these names by itself. */
T_TEST(the_byte_order_calls_undo_themselves, 30) {
    static const uint32_t values[] = {0,          1,          2,          0xffff,
                                      0xffff0000, 0x01234567, 0x76543210, 0xffffffff};
    static const unsigned char wire[4] = {0x01, 0x23, 0x45, 0x67};
    uint32_t four;
    uint16_t two;
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        T_EQ(htonl(htonl(values[i])), values[i]);
        T_EQ(ntohl(htonl(values[i])), values[i]);
        T_EQ(htons(htons((uint16_t)values[i])), (uint16_t)values[i]);
        T_EQ(ntohs(htons((uint16_t)values[i])), (uint16_t)values[i]);
    }
    memcpy(&four, wire, sizeof four);
    memcpy(&two, wire, sizeof two);
    T_EQ(ntohl(four), 0x01234567);
    T_EQ(ntohs(two), 0x0123);
}

/* Unknown families, types and protocols: the kernel's own answer, and no other. */
T_TEST(what_cannot_be_made_fails_as_the_kernel_says, 30) {
    static const struct {
        int family, type, proto;
    } kinds[] = {{9999, SOCK_STREAM, 0},
                 {AF_UNSPEC, SOCK_STREAM, 0},
                 {AF_INET, 9999, 0},
                 {AF_INET, 0, 0},
                 {AF_INET, SOCK_RDM, 0},
                 {AF_INET, SOCK_STREAM, 9999},
                 {AF_INET, SOCK_STREAM, -1},
                 {AF_INET, SOCK_STREAM, IPPROTO_UDP},
                 {AF_INET, SOCK_DGRAM, IPPROTO_TCP},
                 {AF_UNIX, SOCK_STREAM, 7},
                 {AF_UNIX, SOCK_RDM, 0}};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        int fds[2], want;
        pysock *pair[2];
        T_STEP("%d, %d, %d", kinds[i].family, kinds[i].type, kinds[i].proto);
        fds[0] = socket(kinds[i].family, kinds[i].type, kinds[i].proto);
        want = errno;
        T_EQ(fds[0], -1);
        T_FAILS(pysock_socket(kinds[i].family, kinds[i].type, kinds[i].proto), PYSOCK_OS_ERROR,
                want);
        T_EQ(socketpair(kinds[i].family, kinds[i].type, kinds[i].proto, fds), -1);
        want = errno;
        T_FAILS(pysock_socketpair(kinds[i].family, kinds[i].type, kinds[i].proto, pair),
                PYSOCK_OS_ERROR, want);
    }
}

/* What one asks for is what one has, for every kind that can be made. */
T_TEST(the_kernel_agrees_about_family_type_and_proto, 30) {
    static const struct {
        int family, type, proto, real_proto;
    } kinds[] = {{AF_INET, SOCK_STREAM, 0, IPPROTO_TCP},
                 {AF_INET, SOCK_STREAM | SOCK_NONBLOCK, IPPROTO_TCP, IPPROTO_TCP},
                 {AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0, IPPROTO_UDP},
                 {AF_INET6, SOCK_DGRAM, IPPROTO_UDP, IPPROTO_UDP},
                 {AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE, IPPROTO_UDPLITE},
                 {AF_INET, SOCK_STREAM, IPPROTO_MPTCP, IPPROTO_MPTCP},
                 {AF_INET, SOCK_RAW, IPPROTO_ICMP, IPPROTO_ICMP},
                 {AF_UNIX, SOCK_SEQPACKET, 0, 0},
                 {AF_NETLINK, SOCK_RAW, 15, 15}};
    static const int names[] = {SO_DOMAIN, SO_TYPE, SO_PROTOCOL};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        int have[3], type = kinds[i].type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC);
        pysock *s;
        if (T_MACOS_LIKE && kinds[i].type != type)
            continue;
        T_STEP("%d, %d, %d", kinds[i].family, kinds[i].type, kinds[i].proto);
        s = pysock_socket(kinds[i].family, kinds[i].type, kinds[i].proto);
        if (!s)
            continue; /* this machine has none */
        for (int j = 0; j < 3; j++)
            T_OK(pysock_getsockopt_int(s, SOL_SOCKET, names[j], &have[j]));
        T_EQ(have[0], kinds[i].family);
        T_EQ(have[1], type);
        T_EQ(have[2], kinds[i].real_proto);
        T_EQ(pysock_family(s), kinds[i].family);
        T_EQ(pysock_type(s), type);
        T_EQ(pysock_proto(s), kinds[i].proto); /* as Python: what was asked for */
        T_OK(pysock_close(s));
    }
}

/* test_listen_backlog: 0, -1 and none; and again, which changes it. */
T_TEST(any_backlog_lets_a_connection_in, 60) {
    static const int backlogs[] = {0, -1, 1, INT_MAX, INT_MIN};
    for (size_t i = 0; i < sizeof backlogs / sizeof backlogs[0]; i++) {
        int listening = -1;
        pysock *listener = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0)), *a, *b;
        T_STEP("backlog %d", backlogs[i]);
        T_OK(pysock_bind(listener, "127.0.0.1", 0));
        T_OK(pysock_getsockopt_int(listener, SOL_SOCKET, SO_ACCEPTCONN, &listening));
        T_EQ(listening, 0);
        T_OK(pysock_listen(listener, backlogs[i]));
        T_OK(pysock_getsockopt_int(listener, SOL_SOCKET, SO_ACCEPTCONN, &listening));
        T_CHECK(listening);
        for (int again = 0; again < 2; again++) {
            a = T_OK(pysock_create_connection("127.0.0.1", t_port_of(listener), 30));
            b = T_OK(pysock_accept(listener, NULL));
            t_say(a, "in");
            t_expect(b, "in");
            T_OK(pysock_close(a));
            T_OK(pysock_close(b));
            T_OK(pysock_listen(listener, 3));
        }
        T_OK(pysock_close(listener));
    }
}

T_TEST(a_socket_that_listens_without_a_name_gets_one, 30) {
    pysock *listener, *a, *b;
    pysock_addr addr;
    listener = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_listen(listener, 1));
    T_OK(pysock_getsockname(listener, &addr));
    T_CHECK(pysock_addr_port(&addr) > 0);
    a = T_OK(pysock_create_connection("127.0.0.1", pysock_addr_port(&addr), 30));
    b = T_OK(pysock_accept(listener, NULL));
    T_STEP("one that listens connects to nobody");
    T_FAILS(pysock_connect_addr(listener, &addr), PYSOCK_OS_ERROR, T_ANY);
    T_FAILS(pysock_bind(listener, "127.0.0.1", 0), PYSOCK_OS_ERROR, EINVAL);
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
    T_OK(pysock_close(listener));
}

T_TEST(what_cannot_listen_cannot_accept_either, 30) {
    static const int families[] = {AF_INET, AF_UNIX};
    for (int i = 0; i < 2; i++) {
        pysock *s = T_OK(pysock_socket(families[i], SOCK_DGRAM, 0));
        T_STEP("datagrams of family %d", families[i]);
        T_FAILS(pysock_listen(s, 5), PYSOCK_OS_ERROR, EOPNOTSUPP);
        T_FAILS(pysock_accept(s, NULL), PYSOCK_OS_ERROR, EOPNOTSUPP);
        T_OK(pysock_close(s));
        T_STEP("a stream that does not listen");
        s = T_OK(pysock_socket(families[i], SOCK_STREAM, 0));
        T_FAILS(pysock_accept(s, NULL), PYSOCK_OS_ERROR, EINVAL);
        T_OK(pysock_setblocking(s, 0));
        T_FAILS(pysock_accept(s, NULL), PYSOCK_OS_ERROR, EINVAL);
        T_OK(pysock_close(s));
    }
    T_STEP("a Unix socket without a name cannot listen");
    {
        pysock *s = T_OK(pysock_socket(AF_UNIX, SOCK_STREAM, 0));
        T_FAILS(pysock_listen(s, 5), PYSOCK_OS_ERROR, EINVAL);
        T_OK(pysock_close(s));
    }
}

/* test_socket_fileno: a second socket is made around the first one's descriptor, and the first one
   lets it go. */
T_TEST(a_second_socket_can_take_a_descriptor_over, 30) {
    static const struct {
        int family, type;
    } kinds[] = {{AF_INET, SOCK_STREAM},
                 {AF_INET, SOCK_DGRAM},
                 {AF_INET6, SOCK_STREAM},
                 {AF_UNIX, SOCK_STREAM},
                 {AF_UNIX, SOCK_DGRAM}};
    int fds_before;
    fds_before = t_count_fds();
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        pysock *one, *two;
        pysock_addr before, after;
        int fd;
        if (kinds[i].family == AF_INET6 && !t_has_ipv6())
            continue;
        T_STEP("family %d, type %d", kinds[i].family, kinds[i].type);
        one = T_OK(pysock_socket(kinds[i].family, kinds[i].type, 0));
        T_OK(pysock_bind(one, "", 0));
        T_OK(pysock_getsockname(one, &before));
        fd = T_OK(pysock_fileno(one));
        two = T_OK(pysock_adopt(fd, -1, -1, -1));
        T_EQ(pysock_detach(one), fd);
        T_EQ(pysock_family(two), kinds[i].family);
        T_EQ(pysock_type(two), kinds[i].type);
        T_EQ(pysock_fileno(two), fd);
        T_CHECK(pysock_from_fileno(fd) == two);
        T_FAILS(pysock_fileno(one), PYSOCK_OS_ERROR, EBADF);
        T_EQ(pysock_close(one), 0);
        T_OK(pysock_getsockname(two, &after));
        T_EQ(after.size, before.size);
        T_CHECK(memcmp(&after.u, &before.u, after.size) == 0);
        T_OK(pysock_close(two));
        T_EQ(fcntl(fd, F_GETFD), -1);
    }
    T_EQ(t_count_fds(), fds_before);
}

/* test_unknown_socket_family_repr: numbers that are given are believed, known or not. */
T_TEST(a_socket_around_a_descriptor_is_what_it_is_said_to_be, 30) {
    pysock *s;
    int fd;
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    fd = T_OK(pysock_detach(s));
    s = T_OK(pysock_adopt(fd, 1234, 77, 23));
    T_EQ(pysock_family(s), 1234);
    T_EQ(pysock_type(s), 77);
    T_EQ(pysock_proto(s), 23);
    T_OK(pysock_close(s));
    T_EQ(fcntl(fd, F_GETFD), -1);
}

static void rename_the_machine(void *arg) {
    char name[PYSOCK_HOST_STRLEN];
    (void)arg;
    for (int i = 0; i < 2; i++) {
        const char *want = i ? "bar" : "pysock-test";
        T_OK(pysock_sethostname(want));
        T_OK(pysock_gethostname(name, sizeof name));
        T_CHECK(strcmp(name, want) == 0);
    }
}

static void in_a_machine_of_its_own(void *arg) {
    if (unshare(CLONE_NEWUTS) == 0)
        rename_the_machine(arg);
    else
        _exit(77);
}

/* test_sethostname; what it names here is another process's own. */
T_TEST(a_name_that_is_set_is_the_name_that_is_told, 30) {
    int status = 0;
    pid_t pid;
    pid = t_run_in_child(in_a_machine_of_its_own, NULL, 0);
    T_EQ(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        print_message("no process here may have a host name of its own: skipped\n");
        skip();
    }
    T_CHECK(WIFEXITED(status));
    T_EQ(WEXITSTATUS(status), 0);
}

/* ---- BasicTCPTest, BufferIOTest, TCPCloserTest ---- */

/* testOverFlowRecv, testOverFlowRecvFrom: a stream has no borders, and does not say who sends. */
T_TEST(a_stream_is_received_in_pieces, 30) {
    pysock *pair[2];
    pysock_addr from;
    pysock_buf *rest;
    char buf[64];
    t_pair(pair);
    for (int i = 0; i < 3; i++) {
        T_EQ(pysock_send(pair[0], msg, MSG, 0), MSG);
        memset(buf, 0, sizeof buf);
        memset(&from, 0xff, sizeof from);
        if (i == 0)
            T_EQ(pysock_recv(pair[1], buf, MSG - 3, 0), MSG - 3);
        else if (i == 1)
            T_EQ(pysock_recvfrom(pair[1], buf, MSG - 3, 0, &from), MSG - 3);
        else
            T_EQ(pysock_recvfrom_into(pair[1], buf, MSG - 3, 0, NULL), MSG - 3);
        if (i == 1)
            T_EQ(from.size, 0);
        if (i < 2) {
            T_EQ(pysock_recv_into(pair[1], buf + MSG - 3, 1024, 0), 3);
        } else {
            rest = T_OK(pysock_recv_buf(pair[1], 1024));
            T_EQ(pysock_buf_size(rest), 3);
            memcpy(buf + MSG - 3, pysock_buf_data(rest), 3);
            pysock_buf_release(rest);
        }
        T_CHECK(memcmp(buf, msg, MSG) == 0);
    }
    t_close_pair(pair);
}

/* testRecvFromIntoEmptyBuffer and sock_recv: whoever asks recv for no bytes gets none, at once,
   and nothing is taken. */
T_TEST(asking_for_nothing_gives_nothing_at_once, 30) {
    pysock *pair[2];
    pysock_addr from;
    pysock_buf *nothing;
    char byte = 'y';
    t_pair(pair);
    for (int mode = 0; mode < 3; mode++) {
        T_OK(pysock_settimeout(pair[1], mode == 0 ? 0 : mode == 1 ? 20 : PYSOCK_NO_TIMEOUT));
        T_STEP("mode %d, with nothing there", mode);
        T_EQ(pysock_recv(pair[1], &byte, 0, 0), 0);
        T_EQ(pysock_recv_into(pair[1], NULL, 0, 0), 0);
        nothing = T_OK(pysock_recv_buf(pair[1], 0));
        T_EQ(pysock_buf_size(nothing), 0);
        pysock_buf_release(nothing);
        T_STEP("mode %d, with a byte there", mode);
        t_say(pair[0], "x");
        T_EQ(t_readable(pair[1], 30), 1);
        T_EQ(pysock_recv(pair[1], &byte, 0, 0), 0);
        T_EQ(pysock_recvfrom(pair[1], &byte, 0, 0, &from), 0);
        T_EQ(pysock_recvfrom_into(pair[1], NULL, 0, 0, NULL), 0);
        T_EQ(byte, 'y');
        t_expect(pair[1], "x");
    }
    T_STEP("but recvfrom asks the kernel");
    T_OK(pysock_setblocking(pair[1], 0));
    T_FAILS(pysock_recvfrom(pair[1], &byte, 0, 0, &from), PYSOCK_OS_ERROR, EAGAIN);
    t_close_pair(pair);
}

T_TEST(sending_nothing_sends_nothing, 30) {
    pysock *pair[2];
    t_pair(pair);
    T_EQ(pysock_send(pair[0], "", 0, 0), 0);
    T_EQ(pysock_send(pair[0], NULL, 0, 0), 0);
    T_EQ(pysock_sendall(pair[0], NULL, 0, 0), 0);
    T_EQ(t_readable(pair[1], 0), 0);
    t_say(pair[0], "x");
    t_expect(pair[1], "x");
    T_OK(pysock_shutdown(pair[0], SHUT_WR));
    T_FAILS(pysock_send(pair[0], "x", 1, 0), PYSOCK_OS_ERROR, EPIPE);
    expect_exception("BrokenPipeError");
    t_close_pair(pair);
}

/* TCPTimeoutTestCase.testSendto: "The address argument is ignored since we already connected." */
T_TEST(a_connected_stream_sends_to_its_peer_alone, 30) {
    pysock *pair[2];
    int fd, port;
    port = t_deaf_port(&fd);
    t_pair(pair);
    T_EQ(pysock_sendto(pair[0], msg, MSG, 0, "127.0.0.1", port), MSG);
    t_expect(pair[1], msg);
    t_close_pair(pair);
    close(fd);
}

/* testShutdown: what was sent before arrives, then the end. */
T_TEST(a_shutdown_of_both_directions_loses_nothing_that_was_sent, 30) {
    pysock *pair[2];
    pysock_addr addr;
    char byte;
    t_pair(pair);
    t_say(pair[0], msg);
    T_OK(pysock_shutdown(pair[0], SHUT_RDWR));
    t_expect(pair[1], msg);
    for (int i = 0; i < 3; i++)
        T_EQ(pysock_recv(pair[1], &byte, 1, 0), 0);
    T_EQ(pysock_recv(pair[0], &byte, 1, 0), 0);
    T_FAILS(pysock_send(pair[0], "x", 1, 0), PYSOCK_OS_ERROR, EPIPE);
    T_STEP("who it was is known as long as the connection is");
    T_OK(pysock_getpeername(pair[0], &addr));
    T_OK(pysock_close(pair[1]));
    T_OK(pysock_getsockname(pair[0], &addr));
    T_OK(pysock_close(pair[0]));
}

T_TEST(a_direction_may_be_shut_down_again_while_the_connection_stands, 30) {
    pysock *pair[2];
    pysock_addr addr;
    char byte;
    t_pair(pair);
    for (int i = 0; i < 2; i++) {
        T_OK(pysock_shutdown(pair[0], SHUT_RD));
        T_OK(pysock_shutdown(pair[0], SHUT_WR));
    }
    T_EQ(pysock_recv(pair[1], &byte, 1, 0), 0);
    T_OK(pysock_shutdown(pair[1], SHUT_WR));
    T_STEP("until both are over");
    T_EQ(pysock_recv(pair[0], &byte, 1, 0), 0);
    while (pysock_getpeername(pair[1], &addr) == 0)
        t_nap(0.001); /* the last acknowledgement is no event */
    T_EQ(errno, ENOTCONN);
    T_FAILS(pysock_shutdown(pair[1], SHUT_WR), PYSOCK_OS_ERROR, ENOTCONN);
    T_OK(pysock_getsockname(pair[1], &addr));
    t_close_pair(pair);
}

/* SHUT_RD is this side's alone, and on Linux what comes later can be read all the same: the end is
   the kernel's to tell each time, not the library's to remember. */
T_TEST(after_SHUT_RD_the_kernel_has_the_last_word, 30) {
    pysock *pair[2];
    int listener, raw[2], port;
    char ours[8], theirs[8];
    t_pair(pair);
    listener = t_raw_listen(&port);
    raw[0] = t_raw_connect(port);
    raw[1] = t_raw_accept(listener);
    T_OK(pysock_shutdown(pair[0], SHUT_RD));
    T_EQ(shutdown(raw[0], SHUT_RD), 0);
    T_EQ(pysock_recv(pair[0], ours, sizeof ours, 0), 0);
    t_say(pair[1], "late");
    t_raw_write(raw[1], "late", 4);
    for (int i = 0; i < 2; i++) {
        ssize_t n = 0;
        for (int j = 0; j < 2000 && n == 0; j++) { /* it is readable all the time: no event */
            n = recv(raw[0], theirs, sizeof theirs, 0);
            if (i == 0 && n == 0)
                t_nap(0.001);
        }
        for (int j = 0; j < 2000 && n > 0 && pysock_recv(pair[0], ours, 1, MSG_PEEK) == 0; j++)
            t_nap(0.001);
        T_EQ(pysock_recv(pair[0], ours, sizeof ours, 0), n);
        T_CHECK(memcmp(ours, theirs, (size_t)n) == 0);
        if (n == 0)
            break;
    }
    close(listener);
    close(raw[0]);
    close(raw[1]);
    t_close_pair(pair);
}

/* SO_LINGER with no time: the peer hears a reset, once; then the stream is just at its end. */
T_TEST(a_reset_is_told_once, 30) {
    static const struct linger hard = {1, 0};
    pysock *pair[2];
    char byte;
    t_pair(pair);
    T_OK(pysock_setsockopt(pair[1], SOL_SOCKET, SO_LINGER, &hard, sizeof hard));
    T_OK(pysock_close(pair[1]));
    T_FAILS(pysock_recv(pair[0], &byte, 1, 0), PYSOCK_OS_ERROR, ECONNRESET);
    expect_exception("ConnectionResetError");
    T_EQ(pysock_recv(pair[0], &byte, 1, 0), 0);
    T_FAILS(pysock_send(pair[0], "x", 1, 0), PYSOCK_OS_ERROR, EPIPE);
    T_OK(pysock_close(pair[0]));
}

typedef struct rescue {
    pysock *peer;
    sem_t over;
} rescue;

/* Ends a recv that nothing else ends: what it returns is wrong, but the tests go on. */
static void *send_a_byte_at_last(void *arg) {
    rescue *r = arg;
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    at.tv_sec += 5;
    if (sem_timedwait(&r->over, &at) != 0)
        t_say(r->peer, "x");
    return NULL;
}

/* The kernel's own time limit, set as an option, is not the library's: on a socket that blocks it
   makes a BlockingIOError, and a timeout goes before it. */
T_TEST(SO_RCVTIMEO_ends_a_blocking_recv, 30) {
    static const struct timeval limit = {0, 50000};
    pysock *pair[2];
    t_thread t;
    rescue r;
    ptrdiff_t n;
    char byte;
    int code;
    double start;
    t_pair(pair);
    T_OK(pysock_setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
    T_OK(pysock_settimeout(pair[0], 0.3));
    start = t_now();
    T_FAILS(pysock_recv(pair[0], &byte, 1, 0), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    T_CHECK(t_now() - start >= 0.29);
    T_OK(pysock_setblocking(pair[0], 1));
    r.peer = pair[1];
    T_EQ(sem_init(&r.over, 0, 0), 0);
    t_spawn(&t, send_a_byte_at_last, &r);
    n = pysock_recv(pair[0], &byte, 1, 0);
    code = errno;
    sem_post(&r.over);
    t_join(&t);
    sem_destroy(&r.over);
    T_EQ(n, -1);
    T_EQ(code, EAGAIN);
    expect_exception("BlockingIOError");
    t_close_pair(pair);
}

/* A datagram is waited for in another way than a stream's bytes, and no longer. */
T_TEST(SO_RCVTIMEO_ends_a_blocking_recv_of_datagrams, 30) {
    struct timeval limit = {0, 50000};
    pysock *s = T_OK(pysock_socket(AF_INET, SOCK_DGRAM, 0));
    double begin;
    char byte;
    T_OK(pysock_bind(s, "127.0.0.1", 0));
    T_OK(pysock_setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
    begin = t_now();
    T_FAILS(pysock_recv(s, &byte, 1, 0), PYSOCK_OS_ERROR, EAGAIN);
    T_CHECK(t_now() - begin > 0.045);
    T_FAILS(pysock_recvfrom(s, &byte, 1, 0, NULL), PYSOCK_OS_ERROR, EAGAIN);
    T_OK(pysock_close(s));
}

/* ---- a pair of the library's and a pair of the kernel's, side by side ----
   Whatever is done to both, in whatever order, both answer alike. */

typedef struct twins {
    pysock *ours[2];
    int theirs[2], open[2];
    int tcp;
    uint32_t random;
} twins;

static unsigned int pick(twins *t, unsigned int below) {
    t->random ^= t->random << 13;
    t->random ^= t->random >> 17;
    t->random ^= t->random << 5;
    return (t->random >> 8) % below;
}

static void same_answer(const char *what, ptrdiff_t ours, int our_errno, ssize_t theirs,
                        int their_errno) {
    if (ours != theirs || (ours < 0 && our_errno != their_errno))
        T_FAIL("%s gave %td (%s), the kernel %zd (%s)", what, ours,
               ours < 0 ? strerror(our_errno) : "well", theirs,
               theirs < 0 ? strerror(their_errno) : "well");
    if (ours < 0)
        T_EQ(pysock_error(), PYSOCK_OS_ERROR);
}

static void send_on_both(twins *t, int end, size_t size) {
    const unsigned char *data = t_bytes(pick(t, 10000), 1);
    ptrdiff_t ours;
    ssize_t theirs;
    int our_errno;
    T_STEP("end %d sends %zu bytes", end, size);
    ours = pysock_send(t->ours[end], data, size, 0);
    our_errno = errno;
    theirs = send(t->theirs[end], data, size, MSG_NOSIGNAL);
    same_answer("send", ours, our_errno, theirs, errno);
}

static void receive_on_both(twins *t, int end, size_t size, int flags, int from) {
    static char one[4096], two[4096];
    pysock_addr addr;
    ptrdiff_t ours;
    ssize_t theirs;
    int our_errno;
    T_STEP("end %d receives %zu bytes, flags %d, from %d", end, size, flags, from);
    ours = from ? pysock_recvfrom(t->ours[end], one, size, flags, &addr)
                : pysock_recv(t->ours[end], one, size, flags);
    our_errno = errno;
    theirs = recv(t->theirs[end], two, size, flags);
    same_answer("recv", ours, our_errno, theirs, errno);
    T_CHECK(ours <= 0 || memcmp(one, two, ours < (ptrdiff_t)size ? (size_t)ours : size) == 0);
}

/* What the kernel says of a descriptor. */
typedef struct outlook {
    int revents, bytes, state;
} outlook;

static outlook look_at(int fd) {
    struct pollfd p = {fd, POLLIN | POLLOUT | POLLRDHUP, 0};
    struct tcp_info info;
    socklen_t len = sizeof info;
    outlook o = {0, 0, 0};
    T_CHECK(poll(&p, 1, 0) >= 0);
    o.revents = p.revents;
    if (ioctl(fd, FIONREAD, &o.bytes) != 0)
        o.bytes = -1;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0)
        o.state = info.tcpi_state;
    return o;
}

/* Unix sockets have no wire between their ends; what is on TCP's has to arrive first: until the
   kernel says the same of both. */
static void settle(twins *t) {
    outlook ours, theirs;
    for (int end = 0; end < 2; end++)
        while (t->tcp && t->open[end]) {
            ours = look_at(pysock_fileno(t->ours[end]));
            theirs = look_at(t->theirs[end]);
            if (memcmp(&ours, &theirs, sizeof ours) == 0)
                break;
            t_nap(0.0002); /* the test's deadline bounds it */
        }
}

static void do_something_to_both(twins *t) {
    static const int flags[] = {0, 0, 0, MSG_PEEK, MSG_DONTWAIT, MSG_TRUNC};
    static const struct linger hard = {1, 0};
    struct sockaddr_un un;
    socklen_t len = sizeof un;
    pysock_addr addr;
    int end = (int)pick(t, 2), how, ours, our_errno, theirs, value = -1, other = -1;
    if (!t->open[end])
        end = !end;
    switch (pick(t, 40)) {
    case 0:
        if (pick(t, 3))
            break;
        how = (int)pick(t, 3);
        T_STEP("end %d shuts %d down", end, how);
        ours = pysock_shutdown(t->ours[end], how);
        our_errno = errno;
        theirs = shutdown(t->theirs[end], how);
        same_answer("shutdown", ours, our_errno, theirs, errno);
        break;
    case 1:
        T_STEP("end %d asks for its peer", end);
        ours = pysock_getpeername(t->ours[end], &addr);
        our_errno = errno;
        theirs = getpeername(t->theirs[end], (struct sockaddr *)&un, &len);
        same_answer("getpeername", ours, our_errno, theirs, errno);
        break;
    case 2:
    case 3:
        T_STEP("end %d asks for its error", end);
        len = sizeof other;
        T_OK(pysock_getsockopt_int(t->ours[end], SOL_SOCKET, SO_ERROR, &value));
        T_EQ(getsockopt(t->theirs[end], SOL_SOCKET, SO_ERROR, &other, &len), 0);
        T_EQ(value, other);
        break;
    case 4:
        if (!t->open[!end] || pick(t, 4))
            break;
        T_STEP("end %d closes", end);
        if (pick(t, 3) == 0) { /* with a reset */
            T_OK(pysock_setsockopt(t->ours[end], SOL_SOCKET, SO_LINGER, &hard, sizeof hard));
            T_EQ(setsockopt(t->theirs[end], SOL_SOCKET, SO_LINGER, &hard, sizeof hard), 0);
        }
        T_OK(pysock_close(t->ours[end]));
        T_EQ(close(t->theirs[end]), 0);
        t->open[end] = 0;
        break;
    case 5: send_on_both(t, end, 1 + pick(t, t->tcp ? 3000 : 60000)); break;
    case 6: send_on_both(t, end, 0); break;
    default:
        if (pick(t, 2))
            send_on_both(t, end, 1 + pick(t, 300));
        else
            receive_on_both(t, end, 1 + pick(t, 500), flags[pick(t, 6)], (int)pick(t, 2));
    }
}

static void play_with(twins *t, int moves) {
    t->open[0] = t->open[1] = 1;
    for (int i = 0; i < moves; i++) {
        settle(t);
        errno = 0;
        do_something_to_both(t);
    }
    for (int end = 0; end < 2; end++)
        if (t->open[end]) {
            T_OK(pysock_close(t->ours[end]));
            T_EQ(close(t->theirs[end]), 0);
        }
}

T_TEST(a_unix_pair_does_what_the_kernels_own_does, 120) {
    static const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
    for (uint32_t seed = 1; seed <= T_SCALE(600, 90); seed++) {
        twins t;
        if (T_MACOS_LIKE && types[seed % 3] != SOCK_STREAM)
            continue; /* the end of messages is told otherwise there */
        memset(&t, 0, sizeof t);
        t.random = seed * 2654435761u;
        T_OK(pysock_socketpair(AF_UNIX, types[seed % 3], 0, t.ours));
        for (int end = 0; end < 2; end++)
            T_OK(pysock_setblocking(t.ours[end], 0));
        T_EQ(socketpair(AF_UNIX, types[seed % 3] | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, t.theirs), 0);
        play_with(&t, 200);
    }
}

T_TEST(a_tcp_connection_does_what_the_kernels_own_does, 120) {
    int listener, port;
    listener = t_raw_listen(&port);
    for (uint32_t seed = 1; seed <= T_SCALE(300, 60); seed++) {
        twins t;
        memset(&t, 0, sizeof t);
        t.tcp = 1;
        t.random = seed * 2654435761u;
        t_pair(t.ours);
        t.theirs[0] = t_raw_connect(port);
        t.theirs[1] = t_raw_accept(listener);
        for (int end = 0; end < 2; end++) {
            T_OK(pysock_setblocking(t.ours[end], 0));
            T_OK(pysock_setsockopt_int(t.ours[end], IPPROTO_TCP, TCP_NODELAY, 1));
            T_EQ(fcntl(t.theirs[end], F_SETFL, O_NONBLOCK), 0);
            T_EQ(setsockopt(t.theirs[end], IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)), 0);
        }
        play_with(&t, 100);
    }
    close(listener);
}

/* ---- NonBlockingTCPTests, CreationTestCase ---- */

/* testFloatReturnValue: what is set in seconds comes back, not a nanosecond less. */
T_TEST(a_timeout_comes_back_as_it_was_set, 30) {
    pysock *s;
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    for (int i = 1; i <= 20000; i++) {
        double seconds = i / 1000.0;
        T_OK(pysock_settimeout(s, seconds));
        if (pysock_gettimeout(s) != seconds)
            T_FAIL("%.17g came back as %.17g", seconds, pysock_gettimeout(s));
    }
    T_OK(pysock_settimeout(s, -0.0));
    T_CHECK(pysock_gettimeout(s) == 0);
    T_EQ(pysock_getblocking(s), 0);
    T_OK(pysock_close(s));
}

/* However short, a timeout is a timeout, and 0 is none: TimeoutError against BlockingIOError. */
T_TEST(the_shortest_timeout_is_not_zero, 30) {
    static const double shortest[] = {1e-6, 1e-9, 1e-12, 5e-324};
    pysock *pair[2];
    char byte;
    t_pair(pair);
    for (size_t i = 0; i < sizeof shortest / sizeof shortest[0]; i++) {
        T_STEP("%g", shortest[i]);
        T_OK(pysock_settimeout(pair[0], shortest[i]));
        T_CHECK(pysock_gettimeout(pair[0]) > 0);
        T_EQ(pysock_getblocking(pair[0]), 1);
        T_FAILS(pysock_recv(pair[0], &byte, 1, 0), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    }
    t_say(pair[1], "x");
    T_EQ(t_readable(pair[0], 30), 1);
    T_EQ(pysock_recv(pair[0], &byte, 1, 0), 1); /* what is there needs no time */
    t_close_pair(pair);
}

typedef struct latecomer {
    int port;
    sem_t over;
} latecomer;

/* Ends an accept that nothing else ends. */
static void *connect_at_last(void *arg) {
    latecomer *l = arg;
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    at.tv_sec += 5;
    if (sem_timedwait(&l->over, &at) != 0)
        close(t_raw_connect(l->port));
    return NULL;
}

/* O_NONBLOCK belongs to what dup and fork share, a timeout to each socket. */
T_TEST(a_duplicate_that_blocks_holds_up_no_accept_that_must_not, 60) {
    pysock *listener, *copy, *child;
    t_thread t;
    latecomer l;
    int code;
    listener = t_listen(&l.port);
    for (int timed = 0; timed < 2; timed++) {
        T_STEP("%s", timed ? "timed" : "without blocking");
        T_OK(pysock_settimeout(listener, timed ? 0.05 : 0));
        copy = T_OK(pysock_dup(listener));
        T_OK(pysock_setblocking(copy, 1));
        T_EQ(sem_init(&l.over, 0, 0), 0);
        t_spawn(&t, connect_at_last, &l);
        child = pysock_accept(listener, NULL);
        code = errno;
        sem_post(&l.over);
        t_join(&t);
        sem_destroy(&l.over);
        T_CHECK(child == NULL);
        T_EQ(code, timed ? ETIMEDOUT : EAGAIN);
        T_OK(pysock_close(copy));
    }
    T_OK(pysock_close(listener));
}

/* ---- TCPTimeoutTest, UDPTimeoutTest, TimeoutTestCase ---- */

/* testTimeoutZero: with 0 nothing times out, it would block. */
T_TEST(a_timeout_of_zero_is_never_a_TimeoutError, 30) {
    pysock *pair[2], *listener, *udp;
    pysock_addr from;
    char byte;
    int port;
    listener = t_listen(&port);
    udp = udp_on_loopback();
    t_pair(pair);
    T_OK(pysock_settimeout(listener, 0));
    T_OK(pysock_settimeout(udp, 0));
    T_OK(pysock_settimeout(pair[0], 0));
    T_FAILS(pysock_accept(listener, NULL), PYSOCK_OS_ERROR, EAGAIN);
    expect_exception("BlockingIOError");
    T_FAILS(pysock_recv(udp, &byte, 1, 0), PYSOCK_OS_ERROR, EAGAIN);
    T_FAILS(pysock_recvfrom(udp, &byte, 1, 0, &from), PYSOCK_OS_ERROR, EAGAIN);
    expect_exception("BlockingIOError");
    T_FAILS(pysock_recv(pair[0], &byte, 1, 0), PYSOCK_OS_ERROR, EAGAIN);
    T_FAILS(pysock_sendall(pair[0], t_flood(), T_FLOOD, 0), PYSOCK_OS_ERROR, EAGAIN);
    expect_exception("BlockingIOError");
    t_close_pair(pair);
    T_OK(pysock_close(udp));
    T_OK(pysock_close(listener));
}

typedef enum timed_call {
    ACCEPT,
    RECV,
    RECVFROM,
    RECVMSG,
    SEND,
    SENDTO,
    SENDMSG,
    SENDALL
} timed_call;

/* Repeats the call, as _sock_operation does, until it fails; it must be for the time. */
static void times_out(timed_call what, pysock *s, int port) {
    static const double limit = 0.15;
    char *flood = t_flood(), buf[64];
    struct iovec iov;
    pysock_addr from;
    pysock_msg m;
    double start;
    intptr_t r;
    memset(&m, 0, sizeof m);
    iov.iov_base = flood;
    iov.iov_len = 200000;
    T_STEP("call %d", (int)what);
    T_OK(pysock_settimeout(s, limit));
    do {
        start = t_now();
        switch (what) {
        case ACCEPT: r = pysock_accept(s, NULL) ? 0 : -1; break;
        case RECV: r = pysock_recv(s, buf, sizeof buf, 0); break;
        case RECVFROM: r = pysock_recvfrom(s, buf, sizeof buf, 0, &from); break;
        case RECVMSG: r = pysock_recvmsg(s, buf, sizeof buf, &m, 0); break;
        case SEND: r = pysock_send(s, flood, 200000, 0); break;
        case SENDTO: r = pysock_sendto(s, flood, 200000, 0, "127.0.0.1", port); break;
        case SENDMSG: r = pysock_sendmsg(s, &iov, 1, NULL, 0, 0, NULL); break;
        default: r = pysock_sendall(s, flood, 200000, 0); break;
        }
    } while (r >= 0);
    T_EQ(errno, ETIMEDOUT);
    T_EQ(pysock_error(), PYSOCK_TIMEOUT_ERROR);
    expect_exception("TimeoutError");
    T_CHECK(t_now() - start >= limit - 0.01);
    T_CHECK(t_now() - start < limit + 20);
}

T_TEST(every_call_that_waits_times_out, 120) {
    pysock *pair[2], *listener, *udp;
    int port;
    listener = t_listen(&port);
    times_out(ACCEPT, listener, 0);
    udp = udp_on_loopback();
    times_out(RECV, udp, 0);
    times_out(RECVFROM, udp, 0);
    times_out(RECVMSG, udp, 0);
    t_pair(pair);
    times_out(RECV, pair[0], 0);
    times_out(RECVFROM, pair[0], 0);
    times_out(RECVMSG, pair[0], 0);
    for (int what = SEND; what <= SENDALL; what++)
        times_out((timed_call)what, pair[0], port);
    t_close_pair(pair);
    T_OK(pysock_close(udp));
    T_OK(pysock_close(listener));
}

T_TEST(after_a_timeout_everything_goes_on, 30) {
    pysock *listener, *a, *b;
    char byte;
    int port;
    listener = t_listen(&port);
    T_OK(pysock_settimeout(listener, 0.02));
    T_FAILS(pysock_accept(listener, NULL), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    a = T_OK(pysock_create_connection("127.0.0.1", port, 30));
    T_OK(pysock_settimeout(listener, 30));
    b = T_OK(pysock_accept(listener, NULL));
    T_OK(pysock_settimeout(b, 0.02));
    T_FAILS(pysock_recv(b, &byte, 1, 0), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    t_say(a, msg);
    T_OK(pysock_settimeout(b, 30));
    t_expect(b, msg);
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
    T_OK(pysock_close(listener));
}

static void *recv_a_byte(void *arg) {
    char byte;
    return (void *)pysock_recv(arg, &byte, 1, 0);
}

static void *time_out_in_recv(void *arg) {
    char byte;
    T_FAILS(pysock_recv(arg, &byte, 1, 0), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    return NULL;
}

/* A timeout that is set while a call waits is for the calls after it. */
T_TEST(a_call_keeps_the_timeout_it_began_with, 90) {
    static const double began[] = {PYSOCK_NO_TIMEOUT, 60}, became[] = {0.01, 0};
    pysock *pair[2];
    t_thread t;
    for (int i = 0; i < 4; i++) {
        T_STEP("from %g to %g", began[i / 2], became[i % 2]);
        t_pair(pair);
        T_OK(pysock_settimeout(pair[0], began[i / 2]));
        t_spawn(&t, recv_a_byte, pair[0]);
        t_wait_asleep(&t);
        T_OK(pysock_settimeout(pair[0], became[i % 2]));
        T_CHECK(pysock_gettimeout(pair[0]) == became[i % 2]);
        t_nap(0.05); /* longer than the new one */
        t_wait_asleep(&t);
        t_say(pair[1], "x");
        T_EQ((intptr_t)t_join(&t), 1);
        t_close_pair(pair);
    }
    T_STEP("and the other way round");
    t_pair(pair);
    T_OK(pysock_settimeout(pair[0], 0.3));
    t_spawn(&t, time_out_in_recv, pair[0]);
    t_wait_asleep(&t);
    T_OK(pysock_settimeout(pair[0], PYSOCK_NO_TIMEOUT));
    t_join(&t);
    t_close_pair(pair);
}

static void *drink_slowly(void *arg) {
    static char glass[16384];
    while (pysock_recv(arg, glass, sizeof glass, 0) > 0)
        t_nap(0.02);
    return NULL;
}

/* "The socket timeout is no longer reset each time data was sent successfully." */
T_TEST(the_timeout_of_sendall_is_for_all_of_it, 90) {
    pysock *pair[2];
    t_thread t;
    double start;
    t_pair(pair);
    T_OK(pysock_settimeout(pair[0], 0.4));
    t_spawn(&t, drink_slowly, pair[1]);
    start = t_now();
    T_FAILS(pysock_sendall(pair[0], t_flood(), T_FLOOD, 0), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    T_CHECK(t_now() - start >= 0.39);
    T_CHECK(t_now() - start < 20);
    T_OK(pysock_setsockopt(pair[0], SOL_SOCKET, SO_LINGER, &(struct linger){1, 0},
                           sizeof(struct linger)));
    T_OK(pysock_close(pair[0]));
    t_join(&t);
    T_OK(pysock_close(pair[1]));
}

/* ---- NetworkConnectionNoServer, and connect again ---- */

/* What connecting once more comes to. With a timeout Linux says ECONNABORTED, once, to the attempt
   that follows one that has failed. */
static int connect_anew(pysock *s, int port) {
    int code = pysock_connect_ex(s, "127.0.0.1", port);
    if (code == ECONNABORTED && pysock_gettimeout(s) != PYSOCK_NO_TIMEOUT)
        code = pysock_connect_ex(s, "127.0.0.1", port);
    return code;
}

T_TEST(after_a_refusal_the_same_socket_may_connect_elsewhere, 60) {
    static const double timeouts[] = {PYSOCK_NO_TIMEOUT, 30};
    pysock *listener;
    int deaf, fd, port;
    deaf = t_deaf_port(&fd);
    listener = t_listen(&port);
    for (int i = 0; i < 2; i++) {
        pysock *a = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0)), *b;
        T_STEP("timeout %g", timeouts[i]);
        T_OK(pysock_settimeout(a, timeouts[i]));
        T_FAILS(pysock_connect(a, "127.0.0.1", deaf), PYSOCK_OS_ERROR, ECONNREFUSED);
        expect_exception("ConnectionRefusedError");
        for (int again = 0; again < 3; again++)
            T_EQ(connect_anew(a, deaf), ECONNREFUSED);
        T_EQ(connect_anew(a, port), 0);
        b = T_OK(pysock_accept(listener, NULL));
        t_say(a, msg);
        t_expect(b, msg);
        T_FAILS(pysock_connect(a, "127.0.0.1", port), PYSOCK_OS_ERROR, EISCONN);
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
    }
    T_OK(pysock_close(listener));
    close(fd);
}

/* A connect that was begun without blocking is told by the next call, whichever it is; once. */
T_TEST(a_refusal_is_told_by_the_next_call_once, 60) {
    int deaf, fd;
    char byte;
    deaf = t_deaf_port(&fd);
    for (int how = 0; how < 3; how++) {
        pysock *s = t_nonblocking_socket(AF_INET);
        int error = -1;
        T_STEP("by call %d", how);
        T_FAILS(pysock_recv(s, &byte, 1, 0), PYSOCK_OS_ERROR, ENOTCONN);
        T_FAILS(pysock_send(s, "x", 1, 0), PYSOCK_OS_ERROR, EPIPE);
        T_FAILS(pysock_connect(s, "127.0.0.1", deaf), PYSOCK_OS_ERROR, EINPROGRESS);
        expect_exception("BlockingIOError");
        T_EQ(t_writable(s, 30), 1);
        if (how == 0)
            T_FAILS(pysock_connect(s, "127.0.0.1", deaf), PYSOCK_OS_ERROR, ECONNREFUSED);
        else if (how == 1)
            T_FAILS(pysock_recv(s, &byte, 1, 0), PYSOCK_OS_ERROR, ECONNREFUSED);
        else
            T_FAILS(pysock_send(s, "x", 1, 0), PYSOCK_OS_ERROR, ECONNREFUSED);
        T_OK(pysock_getsockopt_int(s, SOL_SOCKET, SO_ERROR, &error));
        T_EQ(error, 0);
        if (how == 0) { /* the attempt is over: another one may begin */
            T_FAILS(pysock_connect(s, "127.0.0.1", deaf), PYSOCK_OS_ERROR, EINPROGRESS);
            T_EQ(t_writable(s, 30), 1);
            T_OK(pysock_getsockopt_int(s, SOL_SOCKET, SO_ERROR, &error));
            T_EQ(error, ECONNREFUSED);
        }
        T_OK(pysock_close(s));
    }
    close(fd);
}

T_TEST(connect_understands_what_python_understands, 60) {
    static const char *const here[] = {"", NULL, "localhost", "127.0.0.1", "127.1"};
    pysock *listener, *s;
    int port;
    listener = t_listen(&port);
    for (int i = 0; i < 5; i++) {
        pysock *b;
        T_STEP("host '%s'", here[i] ? here[i] : "NULL");
        s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
        T_OK(pysock_connect(s, here[i], port));
        b = T_OK(pysock_accept(listener, NULL));
        T_OK(pysock_close(s));
        T_OK(pysock_close(b));
    }
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_STEP("an address of another family is no address at all");
    T_FAILS(pysock_connect(s, "::1", port), PYSOCK_GAI_ERROR, T_ANY);
    expect_exception("gaierror");
    T_STEP("nobody listens on port 0");
    T_FAILS(pysock_connect(s, "127.0.0.1", 0), PYSOCK_OS_ERROR, ECONNREFUSED);
    T_OK(pysock_close(s));
    T_OK(pysock_close(listener));
}

T_TEST(ipv6_sockets_reach_ipv4_by_mapped_addresses, 30) {
    pysock *listener, *a, *b;
    pysock_addr addr;
    int port;
    if (!t_has_ipv6()) {
        print_message("this machine has no IPv6 loopback: skipped\n");
        skip();
    }
    listener = t_listen(&port);
    a = T_OK(pysock_socket(AF_INET6, SOCK_STREAM, 0));
    T_OK(pysock_setsockopt_int(a, IPPROTO_IPV6, IPV6_V6ONLY, 0));
    T_OK(pysock_connect(a, "::ffff:127.0.0.1", port));
    b = T_OK(pysock_accept(listener, &addr));
    T_EQ(addr.u.sa.sa_family, AF_INET);
    T_OK(pysock_getpeername(a, &addr));
    T_EQ(addr.u.sa.sa_family, AF_INET6);
    T_CHECK(IN6_IS_ADDR_V4MAPPED(&addr.u.in6.sin6_addr));
    t_say(a, msg);
    t_expect(b, msg);
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
    T_OK(pysock_close(listener));
}

/* ---- TestLinuxAbstractNamespace, TestUnixDomain ---- */

/* An abstract name of this process, with bytes that end no name. */
static pysock_addr odd_name(const char *rest, size_t size) {
    struct sockaddr_un un;
    int n;
    memset(&un, 0, sizeof un);
    un.sun_family = AF_UNIX;
    n = snprintf(un.sun_path + 1, 48, "pysock-test-%ld-", (long)getpid());
    memcpy(un.sun_path + 1 + n, rest, size);
    return t_addr_from(&un, offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n + size);
}

/* testLinuxAbstractNamespace, testBytearrayName. */
T_TEST(an_abstract_name_may_hold_any_byte, 30) {
    static const char *const rests[] = {"hello\0\xff", "\0test\0\0", "\xff\xfe\1 \n/"};
    static const size_t sizes[] = {7, 7, 6};
    for (int i = 0; i < 3; i++) {
        pysock_addr name = odd_name(rests[i], sizes[i]), have, shorter = name;
        pysock *listener = T_OK(pysock_socket(AF_UNIX, SOCK_STREAM, 0)), *a, *b;
        T_STEP("name %d", i);
        T_OK(pysock_bind_addr(listener, &name));
        T_OK(pysock_listen(listener, 1));
        T_OK(pysock_getsockname(listener, &have));
        T_EQ(have.size, name.size);
        T_CHECK(memcmp(&have.u, &name.u, name.size) == 0);
        T_STEP("one byte less is another name");
        shorter.size--;
        a = T_OK(pysock_socket(AF_UNIX, SOCK_STREAM, 0));
        T_FAILS(pysock_connect_addr(a, &shorter), PYSOCK_OS_ERROR, ECONNREFUSED);
        T_OK(pysock_connect_addr(a, &have));
        b = T_OK(pysock_accept(listener, &have));
        expect_name(&have, "unix:"); /* who connects has no name */
        T_OK(pysock_getpeername(a, &have));
        T_EQ(have.size, name.size);
        T_CHECK(memcmp(&have.u, &name.u, name.size) == 0);
        t_say(a, msg);
        t_expect(b, msg);
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
        T_OK(pysock_close(listener));
    }
}

T_TEST(an_abstract_name_is_taken_exactly_as_long_as_its_socket_lives, 30) {
    pysock_addr name = odd_name("again", 5);
    pysock *s, *second, *datagrams;
    for (int i = 0; i < 3; i++) {
        s = T_OK(pysock_socket(AF_UNIX, SOCK_STREAM, 0));
        T_OK(pysock_bind_addr(s, &name));
        second = T_OK(pysock_socket(AF_UNIX, SOCK_STREAM, 0));
        T_FAILS(pysock_bind_addr(second, &name), PYSOCK_OS_ERROR, EADDRINUSE);
        T_STEP("bound is not listening");
        T_FAILS(pysock_connect_addr(second, &name), PYSOCK_OS_ERROR, ECONNREFUSED);
        T_STEP("each type has names of its own");
        datagrams = T_OK(pysock_socket(AF_UNIX, SOCK_DGRAM, 0));
        T_OK(pysock_bind_addr(datagrams, &name));
        T_OK(pysock_close(datagrams));
        T_OK(pysock_close(s));
        T_FAILS(pysock_connect_addr(second, &name), PYSOCK_OS_ERROR, ECONNREFUSED);
        T_OK(pysock_close(second));
    }
}

/* testBytesAddr, testSurrogateescapeBind: a path is bytes, of whatever encoding. */
T_TEST(a_unix_path_is_any_bytes, 30) {
    static const char *const names[] = {"plain", "\xe2\x98\xba", "latin-\xe4\xff", "with space\n"};
    char dir[] = "/tmp/pysock-test-XXXXXX", path[96], want[128];
    T_CHECK(mkdtemp(dir) != NULL);
    for (int i = 0; i < 4; i++) {
        pysock *listener = T_OK(pysock_socket(AF_UNIX, SOCK_STREAM, 0)), *a, *b;
        pysock_addr addr;
        struct stat st;
        T_STEP("name %d", i);
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        snprintf(want, sizeof want, "unix:%s", path);
        T_OK(pysock_bind(listener, path, 12345)); /* the port means nothing */
        T_EQ(stat(path, &st), 0);
        T_CHECK(S_ISSOCK(st.st_mode));
        T_OK(pysock_getsockname(listener, &addr));
        expect_name(&addr, want);
        T_OK(pysock_listen(listener, 1));
        a = T_OK(pysock_socket(AF_UNIX, SOCK_STREAM, 0));
        T_OK(pysock_connect(a, path, 0));
        b = T_OK(pysock_accept(listener, NULL));
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
        T_OK(pysock_close(listener));
        T_EQ(unlink(path), 0);
    }
    T_EQ(rmdir(dir), 0);
}

/* A path outlives its socket, until somebody unlinks it. */
T_TEST(a_unix_path_in_use_is_told, 30) {
    char dir[] = "/tmp/pysock-test-XXXXXX", path[64], nowhere[64], file[64];
    pysock *s, *stream, *datagrams;
    int fd;
    T_CHECK(mkdtemp(dir) != NULL);
    snprintf(path, sizeof path, "%s/socket", dir);
    snprintf(nowhere, sizeof nowhere, "%s/no/socket", dir);
    snprintf(file, sizeof file, "%s/file", dir);
    fd = open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    T_CHECK(fd >= 0);
    close(fd);
    datagrams = T_OK(pysock_socket(AF_UNIX, SOCK_DGRAM, 0));
    T_FAILS(pysock_bind(datagrams, nowhere, 0), PYSOCK_OS_ERROR, ENOENT);
    expect_exception("FileNotFoundError");
    T_OK(pysock_bind(datagrams, path, 0));
    s = T_OK(pysock_socket(AF_UNIX, SOCK_STREAM, 0));
    T_FAILS(pysock_bind(s, path, 0), PYSOCK_OS_ERROR, EADDRINUSE);
    T_CHECK(strstr(pysock_error_message(), path) != NULL);
    T_FAILS(pysock_bind(s, file, 0), PYSOCK_OS_ERROR, EADDRINUSE);
    T_STEP("a stream cannot reach datagrams, nor a file");
    T_FAILS(pysock_connect(s, path, 0), PYSOCK_OS_ERROR, EPROTOTYPE);
    T_FAILS(pysock_connect(s, file, 0), PYSOCK_OS_ERROR, ECONNREFUSED);
    T_OK(pysock_close(datagrams));
    T_STEP("the path is still there, and nobody behind it");
    stream = T_OK(pysock_socket(AF_UNIX, SOCK_STREAM, 0));
    T_FAILS(pysock_bind(stream, path, 0), PYSOCK_OS_ERROR, EADDRINUSE);
    T_FAILS(pysock_connect(s, path, 0), PYSOCK_OS_ERROR, ECONNREFUSED);
    T_EQ(unlink(path), 0);
    T_FAILS(pysock_connect(s, path, 0), PYSOCK_OS_ERROR, ENOENT);
    T_OK(pysock_bind(stream, path, 0));
    T_OK(pysock_close(stream));
    T_OK(pysock_close(s));
    T_EQ(unlink(path), 0);
    T_EQ(unlink(file), 0);
    T_EQ(rmdir(dir), 0);
}

T_MAIN()
