/* Families and protocols of sockets that the library knows nothing of, and passes on as they are:
   netlink, packet, vsock, CAN, TIPC, RDS, QIPCRTR, MPTCP, SCTP, AF_ALG. Where the machine lacks
   one, its case is skipped. CPython's classes are named at the cases that come from its tests. */
#include "support/support.h"

#include <net/ethernet.h>
#include <net/if.h>
#include <netpacket/packet.h>

#if defined(__has_include)
#if __has_include(<linux/rtnetlink.h>)
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#define HAVE_NETLINK 1
#endif
#if __has_include(<linux/vm_sockets.h>)
#include <linux/vm_sockets.h>
#define HAVE_VSOCK 1
#endif
#if __has_include(<linux/can/raw.h>)
#include <linux/can.h>
#include <linux/can/raw.h>
#define HAVE_CAN 1
#endif
#if __has_include(<linux/tipc.h>)
#include <linux/tipc.h>
#define HAVE_TIPC 1
#endif
#if __has_include(<linux/if_alg.h>)
#include <linux/if_alg.h>
#define HAVE_ALG 1
#endif
#endif

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif
#ifndef AF_QIPCRTR
#define AF_QIPCRTR 42
#endif

/* The three ways in which a socket may wait, or not. */
static const double modes[] = {PYSOCK_NO_TIMEOUT, 60, 0};
#define MODES 3

static const char msg[] = "Michael was here\xe1\x88\xb4\r\n";
#define MSG (sizeof msg - 1)

static void hosts_mean_nothing_to(pysock *s) {
    T_FAILS(pysock_bind(s, "127.0.0.1", 0), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_connect(s, "127.0.0.1", 9), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_sendto(s, "x", 1, 0, "127.0.0.1", 9), PYSOCK_VALUE_ERROR, EINVAL);
}

/* ---- streams of other protocols ---- */

static void talk_over_streams_of(int proto) {
    pysock *listener = t_socket_or_skip(AF_INET, SOCK_STREAM, proto), *a, *b;
    pysock_addr addr;
    T_OK(pysock_bind(listener, "127.0.0.1", 0));
    T_OK(pysock_listen(listener, 5));
    T_OK(pysock_getsockname(listener, &addr));
    a = T_OK(pysock_socket(AF_INET, SOCK_STREAM, proto));
    T_OK(pysock_settimeout(a, 30));
    T_OK(pysock_connect_addr(a, &addr));
    b = T_OK(pysock_accept(listener, NULL));
    T_EQ(pysock_proto(b), proto);
    t_say(a, msg);
    t_expect(b, msg);
    t_say(b, msg);
    t_expect(a, msg);
    T_OK(pysock_close(a));
    T_EQ(pysock_recv(b, &(char){0}, 1, 0), 0);
    T_OK(pysock_close(b));
    T_OK(pysock_close(listener));
}

T_TEST(mptcp_is_a_stream_like_any_other, 60) {
    talk_over_streams_of(IPPROTO_MPTCP);
}

T_TEST(sctp_is_a_stream_like_any_other, 60) {
    talk_over_streams_of(IPPROTO_SCTP);
}

/* ---- netlink ---- */

#ifdef HAVE_NETLINK

/* Reads the answer to a dump; 1 when it was the last part. *found: loopback was in it. */
static int read_links(pysock *s, int *found) {
    static char answer[65536] __attribute__((aligned(8)));
    pysock_addr from;
    struct sockaddr_nl nl;
    const struct nlmsghdr *h;
    ptrdiff_t n;
    T_EQ(t_readable(s, PYSOCK_NO_TIMEOUT), 1);
    n = T_OK(pysock_recvfrom(s, answer, sizeof answer, 0, &from));
    T_EQ(from.size, sizeof nl);
    memcpy(&nl, &from.u, sizeof nl);
    T_EQ(nl.nl_family, AF_NETLINK);
    T_EQ(nl.nl_pid, 0); /* the kernel */
    for (h = (const void *)answer; NLMSG_OK(h, (unsigned int)n);
         n -= (ptrdiff_t)NLMSG_ALIGN(h->nlmsg_len),
        h = (const void *)((const char *)h + NLMSG_ALIGN(h->nlmsg_len))) {
        const struct ifinfomsg *info = NLMSG_DATA(h);
        T_EQ(h->nlmsg_seq, 7);
        if (h->nlmsg_type == NLMSG_DONE)
            return 1;
        T_EQ(h->nlmsg_type, RTM_NEWLINK);
        if (info->ifi_index == (int)if_nametoindex("lo"))
            ++*found;
    }
    return 0;
}

T_TEST(netlink_lists_the_links, 60) {
    struct {
        struct nlmsghdr head;
        struct ifinfomsg info;
    } ask;
    struct sockaddr_nl nl;
    pysock_addr any, kernel, mine;
    pysock *s;
    char text[PYSOCK_ADDR_STRLEN];
    s = t_socket_or_skip(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    hosts_mean_nothing_to(s);
    memset(&nl, 0, sizeof nl);
    nl.nl_family = AF_NETLINK;
    T_OK(pysock_addr_from_sockaddr(&any, (struct sockaddr *)&nl, sizeof nl));
    kernel = any;
    T_OK(pysock_bind_addr(s, &any));
    mine = t_addr_of(s);
    T_EQ(mine.size, sizeof nl);
    memcpy(&nl, &mine.u, sizeof nl);
    T_EQ(nl.nl_family, AF_NETLINK);
    T_CHECK(nl.nl_pid != 0);
    T_EQ(pysock_addr_port(&mine), -1);
    T_CHECK(pysock_addr_format(&mine, text, sizeof text) > 0);
    T_EQ(pysock_family(s), AF_NETLINK);
    memset(&ask, 0, sizeof ask);
    ask.head.nlmsg_len = sizeof ask;
    ask.head.nlmsg_type = RTM_GETLINK;
    ask.head.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    ask.head.nlmsg_seq = 7;
    for (int mode = 0; mode < 2 * MODES; mode++) {
        int found = 0;
        T_STEP("mode %d", mode);
        T_OK(pysock_settimeout(s, modes[mode % MODES]));
        if (mode < MODES) {
            T_EQ(pysock_sendto_addr(s, &ask, sizeof ask, 0, &kernel), sizeof ask);
        } else {
            T_OK(pysock_connect_addr(s, &kernel));
            T_EQ(pysock_send(s, &ask, sizeof ask, 0), sizeof ask);
        }
        while (!read_links(s, &found))
            ;
        T_EQ(found, 1);
    }
    T_OK(pysock_close(s));
}

#else
T_TEST(netlink_lists_the_links, 30) {
    print_message("compiled without linux/rtnetlink.h: skipped\n");
    skip();
}
#endif

/* ---- packet sockets ---- */

/* Frames of a protocol for experiments, on loopback. */
T_TEST(packet_sockets_send_frames, 60) {
    enum { PROTOCOL = 0x88b5 };
    struct sockaddr_ll ll;
    pysock_addr at, from, to;
    pysock *a, *b;
    char frame[64], buf[128];
    int n;
    a = t_socket_or_skip(AF_PACKET, SOCK_DGRAM, 0);
    b = T_OK(pysock_socket(AF_PACKET, SOCK_DGRAM, htons(PROTOCOL)));
    hosts_mean_nothing_to(b);
    memset(&ll, 0, sizeof ll);
    ll.sll_family = AF_PACKET;
    ll.sll_protocol = htons(PROTOCOL);
    ll.sll_ifindex = (int)if_nametoindex("lo");
    T_CHECK(ll.sll_ifindex > 0);
    T_OK(pysock_addr_from_sockaddr(&at, (struct sockaddr *)&ll, sizeof ll));
    T_OK(pysock_bind_addr(b, &at));
    from = t_addr_of(b);
    memcpy(&ll, &from.u, sizeof ll);
    T_EQ(ll.sll_protocol, htons(PROTOCOL));
    T_EQ(ll.sll_ifindex, if_nametoindex("lo"));
    ll.sll_halen = ETH_ALEN;
    memset(ll.sll_addr, 0, sizeof ll.sll_addr);
    T_OK(pysock_addr_from_sockaddr(&to, (struct sockaddr *)&ll, sizeof ll));
    for (int mode = 0; mode < MODES; mode++) {
        T_OK(pysock_settimeout(a, modes[mode]));
        T_OK(pysock_settimeout(b, modes[mode]));
        n = snprintf(frame, sizeof frame, "pysock test %ld, mode %d", (long)getpid(), mode);
        T_EQ(pysock_sendto_addr(a, frame, (size_t)n, 0, &to), n);
        do { /* others may experiment too */
            T_EQ(t_readable(b, PYSOCK_NO_TIMEOUT), 1);
            memset(buf, 0, sizeof buf);
            T_OK(pysock_recvfrom(b, buf, sizeof buf - 1, 0, &from));
        } while (memcmp(buf, frame, (size_t)n) != 0);
        T_CHECK(from.size >= offsetof(struct sockaddr_ll, sll_addr));
        memcpy(&ll, &from.u, sizeof ll);
        T_EQ(ll.sll_family, AF_PACKET);
        T_EQ(ll.sll_protocol, htons(PROTOCOL));
        T_EQ(ll.sll_ifindex, if_nametoindex("lo"));
    }
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
}

/* ---- vsock ---- */

#ifdef HAVE_VSOCK

static void set_vsock(pysock_addr *addr, unsigned int cid, unsigned int port) {
    struct sockaddr_vm vm;
    memset(&vm, 0, sizeof vm);
    vm.svm_family = AF_VSOCK;
    vm.svm_cid = cid;
    vm.svm_port = port;
    T_OK(pysock_addr_from_sockaddr(addr, (struct sockaddr *)&vm, sizeof vm));
}

/* VMADDR_CID_LOCAL, which older headers lack. */
#define VSOCK_LOCAL 1

T_TEST(vsock_streams_connect, 60) {
    pysock *listener, *a, *b;
    pysock_addr addr, peer;
    struct sockaddr_vm vm;
    char byte;
    listener = t_socket_or_skip(AF_VSOCK, SOCK_STREAM, 0);
    hosts_mean_nothing_to(listener);
    set_vsock(&addr, VSOCK_LOCAL, VMADDR_PORT_ANY);
    if (pysock_bind_addr(listener, &addr) < 0) {
        T_EQ(errno, EADDRNOTAVAIL);
        print_message("no vsock loopback: nothing is connected\n");
        set_vsock(&addr, VMADDR_CID_ANY, VMADDR_PORT_ANY);
        T_OK(pysock_bind_addr(listener, &addr));
        addr = t_addr_of(listener);
        memcpy(&vm, &addr.u, sizeof vm);
        T_EQ(vm.svm_family, AF_VSOCK);
        T_EQ(vm.svm_cid, VMADDR_CID_ANY);
        T_CHECK(vm.svm_port != VMADDR_PORT_ANY);
        T_OK(pysock_close(listener));
        skip();
    }
    T_OK(pysock_listen(listener, 1));
    addr = t_addr_of(listener);
    for (int mode = 0; mode < MODES; mode++) {
        a = T_OK(pysock_socket(AF_VSOCK, SOCK_STREAM, 0));
        T_OK(pysock_settimeout(a, modes[mode]));
        if (pysock_connect_addr(a, &addr) < 0)
            T_EQ(errno, EINPROGRESS);
        b = T_OK(pysock_accept(listener, &peer));
        T_EQ(peer.u.sa.sa_family, AF_VSOCK);
        T_EQ(t_writable(a, PYSOCK_NO_TIMEOUT), 1);
        t_say(a, "x");
        T_EQ(pysock_recv(b, &byte, 1, 0), 1);
        T_OK(pysock_close(a));
        T_EQ(pysock_recv(b, &byte, 1, 0), 0);
        T_OK(pysock_close(b));
    }
    T_OK(pysock_close(listener));
}

#else
T_TEST(vsock_streams_connect, 30) {
    print_message("compiled without linux/vm_sockets.h: skipped\n");
    skip();
}
#endif

/* BasicVSOCKTest.testSocketBufferSize: options of another level, and of eight bytes. */
T_TEST(vsock_has_buffers_of_its_own, 30) {
    static const int names[] = {2, 0, 1}; /* SO_VM_SOCKETS_BUFFER_MAX_SIZE, _SIZE, _MIN_SIZE */
    uint64_t before, value;
    socklen_t len;
    pysock *s;
    s = t_socket_or_skip(AF_VSOCK, SOCK_STREAM, 0);
    for (int i = 0; i < 3; i++) {
        len = sizeof before;
        T_OK(pysock_getsockopt(s, AF_VSOCK, names[i], &before, &len));
        T_EQ(len, sizeof before);
        before *= 2;
        T_OK(pysock_setsockopt(s, AF_VSOCK, names[i], &before, sizeof before));
        len = sizeof value;
        T_OK(pysock_getsockopt(s, AF_VSOCK, names[i], &value, &len));
        T_EQ(value, before);
    }
    T_OK(pysock_close(s));
}

/* ---- CAN ---- */

#ifdef HAVE_CAN

T_TEST(can_sockets_take_their_addresses_and_options, 60) {
    struct sockaddr_can can;
    struct can_filter filter = {0x200, 0x700}, have;
    socklen_t len = sizeof have;
    pysock_addr addr;
    pysock *s;
    s = t_socket_or_skip(AF_CAN, SOCK_RAW, CAN_RAW);
    hosts_mean_nothing_to(s);
    memset(&can, 0, sizeof can);
    can.can_family = AF_CAN; /* any interface */
    T_OK(pysock_addr_from_sockaddr(&addr, (struct sockaddr *)&can, sizeof can));
    T_OK(pysock_bind_addr(s, &addr));
    addr = t_addr_of(s);
    T_EQ(addr.u.sa.sa_family, AF_CAN);
    t_check_option(s, SOL_CAN_RAW, CAN_RAW_LOOPBACK, 0);
    t_check_option(s, SOL_CAN_RAW, CAN_RAW_LOOPBACK, 1);
    T_OK(pysock_setsockopt(s, SOL_CAN_RAW, CAN_RAW_FILTER, &filter, sizeof filter));
    T_OK(pysock_getsockopt(s, SOL_CAN_RAW, CAN_RAW_FILTER, &have, &len));
    T_EQ(len, sizeof have);
    T_CHECK(memcmp(&filter, &have, sizeof have) == 0);
    T_OK(pysock_close(s));
}

#else
T_TEST(can_sockets_take_their_addresses_and_options, 30) {
    print_message("compiled without linux/can/raw.h: skipped\n");
    skip();
}
#endif

/* CANTest, where there is a vcan0. */
T_TEST(can_carries_frames, 30) {
    struct {
        uint32_t id;
        unsigned char size, pad[3], data[8];
    } frame, back;
    struct {
        unsigned short family;
        int index;
        uint64_t rest[2];
    } can;
    pysock_addr addr;
    pysock *a, *b;
    a = t_socket_or_skip(AF_CAN, SOCK_RAW, 1);
    memset(&can, 0, sizeof can);
    can.family = AF_CAN;
    can.index = pysock_if_nametoindex("vcan0");
    if (can.index <= 0) {
        print_message("this machine has no vcan0: skipped\n");
        pysock_close(a);
        skip();
    }
    addr = t_addr_from(&can, sizeof can);
    b = T_OK(pysock_socket(AF_CAN, SOCK_RAW, 1));
    T_OK(pysock_bind_addr(a, &addr));
    T_OK(pysock_bind_addr(b, &addr));
    T_OK(pysock_settimeout(b, 20));
    for (unsigned char size = 5; size <= 8; size = (unsigned char)(size + 3)) {
        memset(&frame, 0, sizeof frame);
        frame.id = 0x123;
        frame.size = size;
        memset(frame.data, 7, size);
        T_EQ(pysock_send(a, &frame, sizeof frame, 0), sizeof frame);
        T_EQ(pysock_recvfrom(b, &back, sizeof back, 0, &addr), sizeof back);
        T_CHECK(memcmp(&back, &frame, sizeof back) == 0);
        memcpy(&can, &addr.u, sizeof can);
        T_EQ(can.index, pysock_if_nametoindex("vcan0"));
    }
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
}

/* ---- TIPC, RDS, QIPCRTR ---- */

#ifdef HAVE_TIPC

/* TIPCTest, TIPCThreadableTest. */
T_TEST(tipc_sends_by_name, 30) {
    static const int types[] = {SOCK_RDM, SOCK_STREAM};
    for (int i = 0; i < 2; i++) {
        pysock *server = t_socket_or_skip(AF_TIPC, types[i], 0), *client, *b;
        uint32_t type = 20000 + (uint32_t)getpid() % 10000;
        struct sockaddr_tipc tipc;
        pysock_addr addr, from, name;
        char buf[64];
        memset(&tipc, 0, sizeof tipc);
        tipc.family = AF_TIPC;
        tipc.addrtype = TIPC_ADDR_NAMESEQ;
        tipc.scope = TIPC_NODE_SCOPE;
        tipc.addr.nameseq.type = type;
        tipc.addr.nameseq.lower = 200;
        tipc.addr.nameseq.upper = 210;
        addr = t_addr_from(&tipc, sizeof tipc);
        T_OK(pysock_bind_addr(server, &addr));
        T_OK(pysock_settimeout(server, 20));
        memset(&tipc, 0, sizeof tipc);
        tipc.family = AF_TIPC;
        tipc.addrtype = TIPC_ADDR_NAME;
        tipc.addr.name.name.type = type;
        tipc.addr.name.name.instance = 205;
        addr = t_addr_from(&tipc, sizeof tipc);
        client = T_OK(pysock_socket(AF_TIPC, types[i], 0));
        if (types[i] == SOCK_RDM) {
            T_EQ(pysock_sendto_addr(client, msg, MSG, 0, &addr), MSG);
            T_EQ(pysock_recvfrom(server, buf, sizeof buf, 0, &from), MSG);
            T_OK(pysock_getsockname(client, &name));
            T_CHECK(memcmp(&((struct sockaddr_tipc *)(void *)&from.u)->addr.id,
                           &((struct sockaddr_tipc *)(void *)&name.u)->addr.id,
                           sizeof tipc.addr.id) == 0);
        } else {
            T_OK(pysock_listen(server, 1));
            T_OK(pysock_settimeout(client, 0));
            if (pysock_connect_addr(client, &addr) != 0)
                T_EQ(errno, EINPROGRESS);
            b = T_OK(pysock_accept(server, NULL));
            T_OK(pysock_settimeout(client, 20));
            T_EQ(t_writable(client, 20), 1);
            t_say(client, msg);
            t_expect(b, msg);
            T_OK(pysock_close(b));
        }
        T_OK(pysock_close(client));
        T_OK(pysock_close(server));
    }
}

#else

T_TEST(tipc_sends_by_name, 30) {
    print_message("compiled without linux/tipc.h: skipped\n");
    skip();
}

#endif

/* BasicRDSTest, RDSTest. */
T_TEST(rds_sends_and_receives, 30) {
    pysock *a, *b;
    pysock_addr from;
    char buf[64];
    a = t_socket_or_skip(AF_RDS, SOCK_SEQPACKET, 0);
    b = T_OK(pysock_socket(AF_RDS, SOCK_SEQPACKET, 0));
    T_OK(pysock_setsockopt_int(a, SOL_SOCKET, SO_SNDBUF, 16384));
    for (int i = 0; i < 2; i++) {
        struct sockaddr_in in;
        pysock_addr addr;
        memset(&in, 0, sizeof in);
        in.sin_family = AF_INET;
        in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        addr = t_addr_from(&in, sizeof in);
        if (pysock_bind_addr(i ? b : a, &addr) != 0) {
            print_message("RDS cannot be bound here: %s: skipped\n", pysock_error_message());
            skip();
        }
    }
    T_OK(pysock_settimeout(b, 20));
    T_OK(pysock_getsockname(b, &from));
    T_EQ(pysock_sendto_addr(a, msg, MSG, 0, &from), MSG);
    T_EQ(t_readable(b, 20), 1);
    T_EQ(pysock_recvfrom(b, buf, sizeof buf, MSG_PEEK, &from), MSG);
    T_EQ(pysock_recvfrom(b, buf, sizeof buf, 0, &from), MSG);
    T_CHECK(memcmp(buf, msg, MSG) == 0);
    T_EQ(pysock_addr_port(&from), t_port_of(a));
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
}

/* BasicQIPCRTRTest. */
T_TEST(qipcrtr_gets_a_port_when_it_connects, 30) {
    struct {
        unsigned short family;
        uint32_t node, port;
    } qrtr;
    pysock_addr addr;
    pysock *s;
    s = t_socket_or_skip(AF_QIPCRTR, SOCK_DGRAM, 0);
    T_OK(pysock_getsockname(s, &addr));
    memcpy(&qrtr, &addr.u, sizeof qrtr);
    T_EQ(qrtr.port, 0);
    qrtr.node = 123;
    qrtr.port = 123;
    addr = t_addr_from(&qrtr, sizeof qrtr);
    T_FAILS(pysock_bind_addr(s, &addr), PYSOCK_OS_ERROR, T_ANY);
    T_OK(pysock_connect_addr(s, &addr));
    T_OK(pysock_getsockname(s, &addr));
    memcpy(&qrtr, &addr.u, sizeof qrtr);
    T_CHECK(qrtr.port != 0);
    T_OK(pysock_close(s));
}

/* ---- sockets of every other family ---- */

/* testCreate...Socket of BasicCANTest, ISOTPTest, J1939Test, BasicBluetoothTest. */
T_TEST(what_the_kernel_makes_is_made, 30) {
    static const struct {
        const char *name;
        int family, type, proto;
    } kinds[] = {{"CAN_BCM", AF_CAN, SOCK_DGRAM, 2},
                 {"CAN_ISOTP", AF_CAN, SOCK_DGRAM, 6},
                 {"CAN_J1939", AF_CAN, SOCK_DGRAM, 7},
                 {"BTPROTO_L2CAP", AF_BLUETOOTH, SOCK_SEQPACKET, 0},
                 {"BTPROTO_HCI", AF_BLUETOOTH, SOCK_RAW, 1},
                 {"BTPROTO_SCO", AF_BLUETOOTH, SOCK_SEQPACKET, 2},
                 {"BTPROTO_RFCOMM", AF_BLUETOOTH, SOCK_STREAM, 3},
                 {"AF_KEY", AF_KEY, SOCK_RAW, 2},
                 {"AF_ALG", AF_ALG, SOCK_SEQPACKET, 0}};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        int fd = socket(kinds[i].family, kinds[i].type | SOCK_CLOEXEC, kinds[i].proto);
        int want = errno;
        pysock *s;
        T_STEP("%s", kinds[i].name);
        if (fd < 0) {
            T_FAILS(pysock_socket(kinds[i].family, kinds[i].type, kinds[i].proto), PYSOCK_OS_ERROR,
                    want);
            continue;
        }
        close(fd);
        s = T_OK(pysock_socket(kinds[i].family, kinds[i].type, kinds[i].proto));
        T_FAILS(pysock_bind(s, "127.0.0.1", 80), T_ANY, T_ANY); /* it has no such addresses */
        T_FAILS(pysock_connect(s, "127.0.0.1", 80), T_ANY, T_ANY);
        T_OK(pysock_setblocking(s, 0));
        T_OK(pysock_close(s));
    }
}

/* ---- the kernel's cryptography: AF_ALG ---- */

/* Python: "algset is only supported for AF_ALG". What is to be encrypted must not go to a peer. */
T_TEST(sendmsg_afalg_sends_nothing_over_other_sockets, 30) {
    static const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
    struct iovec iov;
    char secret[] = "secret";
    pysock *pair[2];
    iov.iov_base = secret;
    iov.iov_len = sizeof secret;
    for (int i = 0; i < 4; i++) {
        T_STEP("kind %d", i);
        if (i < 3)
            T_OK(pysock_socketpair(AF_UNIX, types[i], 0, pair));
        else
            t_pair(pair);
        T_FAILS(pysock_sendmsg_afalg(pair[0], &iov, 1, 1, NULL, 0, -1, 0), T_ANY, T_ANY);
        T_FAILS(pysock_sendmsg_afalg(pair[0], &iov, 1, -1, NULL, 0, -1, 0), T_ANY, T_ANY);
        T_EQ(t_readable(pair[1], 0.02), 0);
        t_close_pair(pair);
    }
}

#ifdef HAVE_ALG

/* An algorithm's socket, or a skipped test. */
static pysock *algorithm(const char *type, const char *name) {
    pysock *s = t_socket_or_skip(AF_ALG, SOCK_SEQPACKET, 0);
    struct sockaddr_alg alg;
    pysock_addr addr;
    memset(&alg, 0, sizeof alg);
    alg.salg_family = AF_ALG;
    snprintf((char *)alg.salg_type, sizeof alg.salg_type, "%s", type);
    snprintf((char *)alg.salg_name, sizeof alg.salg_name, "%s", name);
    addr = t_addr_from(&alg, sizeof alg);
    if (pysock_bind_addr(s, &addr) != 0) {
        T_EQ(errno, ENOENT);
        print_message("the kernel has no %s: skipped\n", name);
        pysock_close(s);
        skip();
    }
    return s;
}

/* test_sha256: accept without listen, MSG_MORE, and an empty send that ends the message. */
T_TEST(the_kernel_hashes, 30) {
    static const unsigned char want[32] = {0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea,
                                           0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23,
                                           0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c,
                                           0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad};
    unsigned char have[64];
    pysock *hash, *op;
    hash = algorithm("hash", "sha256");
    for (int pieces = 0; pieces < 2; pieces++) {
        op = T_OK(pysock_accept(hash, NULL));
        if (pieces) {
            T_EQ(pysock_send(op, "a", 1, MSG_MORE), 1);
            T_EQ(pysock_send(op, "b", 1, MSG_MORE), 1);
            T_EQ(pysock_send(op, "c", 1, MSG_MORE), 1);
            T_EQ(pysock_send(op, "", 0, 0), 0);
        } else {
            T_OK(pysock_sendall(op, "abc", 3, 0));
        }
        T_EQ(pysock_recv(op, have, sizeof have, 0), sizeof want);
        T_CHECK(memcmp(have, want, sizeof want) == 0);
        T_OK(pysock_close(op));
    }
    T_OK(pysock_close(hash));
}

/* test_aes_cbc: by sendmsg_afalg, and by sendmsg with items made by hand. */
T_TEST(the_kernel_encrypts, 30) {
    static const unsigned char key[16] = {0x06, 0xa9, 0x21, 0x40, 0x36, 0xb8, 0xa1, 0x5b,
                                          0x51, 0x2e, 0x03, 0xd5, 0x34, 0x12, 0x00, 0x06},
                               iv[16] = {0x3d, 0xaf, 0xba, 0x42, 0x9d, 0x9e, 0xb4, 0x30,
                                         0xb4, 0x22, 0xda, 0x80, 0x2c, 0x9f, 0xac, 0x41},
                               want[16] = {0xe3, 0x53, 0x77, 0x9c, 0x10, 0x79, 0xae, 0xb8,
                                           0x27, 0x08, 0x94, 0x2d, 0xbe, 0x77, 0x18, 0x1a};
    static const char plain[] = "Single block msg";
    unsigned char have[16], with_size[20];
    uint32_t what = ALG_OP_DECRYPT, size = sizeof iv;
    pysock_cmsg items[2];
    struct iovec iov;
    pysock *cipher, *op;
    cipher = algorithm("skcipher", "cbc(aes)");
    T_OK(pysock_setsockopt(cipher, SOL_ALG, ALG_SET_KEY, key, sizeof key));
    memcpy(with_size, &size, sizeof size);
    memcpy(with_size + 4, iv, sizeof iv);
    for (int decrypt = 0; decrypt < 2; decrypt++) {
        items[0] = (pysock_cmsg){SOL_ALG, ALG_SET_OP, &what, sizeof what};
        items[1] = (pysock_cmsg){SOL_ALG, ALG_SET_IV, with_size, sizeof with_size};
        iov.iov_base = (void *)(uintptr_t)(decrypt ? (const void *)want : (const void *)plain);
        iov.iov_len = 16;
        op = T_OK(pysock_accept(cipher, NULL));
        if (decrypt)
            T_EQ(pysock_sendmsg(op, &iov, 1, items, 2, 0, NULL), 16);
        else
            T_EQ(pysock_sendmsg_afalg(op, &iov, 1, ALG_OP_ENCRYPT, iv, sizeof iv, -1, 0), 16);
        T_EQ(pysock_recv(op, have, sizeof have, 0), 16);
        T_CHECK(memcmp(have, decrypt ? (const void *)plain : (const void *)want, 16) == 0);
        T_OK(pysock_close(op));
    }
    T_OK(pysock_close(cipher));
}

#else

T_TEST(the_kernel_hashes, 30) {
    print_message("compiled without linux/if_alg.h: skipped\n");
    skip();
}

T_TEST(the_kernel_encrypts, 30) {
    the_kernel_hashes();
}

#endif

T_MAIN()
