/* Ancillary data: its sizes, its items, and what IP tells by it. */
#include "io/messages.h"

/* ---- the sizes of ancillary data ---- */

#define LIMIT ((ptrdiff_t)INT32_MAX) /* CPython's: the smallest that a socklen_t may hold */

static void expect_too_big(ptrdiff_t have) {
    T_EQ(have, -1);
    T_EQ(pysock_error(), PYSOCK_VALUE_ERROR);
    T_CHECK(pysock_error_message()[0]);
    pysock_error_clear();
}

T_TEST(cmsg_len_is_CMSG_LEN, 30) {
    size_t toobig = (size_t)LIMIT - CMSG_LEN(0) + 1;
    T_CHECK(pysock_cmsg_len(0) > 2 * (ptrdiff_t)sizeof(int));
    pysock_error_clear();
    for (size_t n = 0; n < 2 * 257; n++) {
        size_t size = n < 257 ? n : toobig - (2 * 257 - n);
        T_EQ(pysock_cmsg_len(size), CMSG_LEN(size));
        T_EQ(pysock_cmsg_len(size) - pysock_cmsg_len(0), size);
        T_CHECK(pysock_cmsg_len(size) <= LIMIT);
    }
    T_EQ(pysock_error(), PYSOCK_NO_ERROR);
    expect_too_big(pysock_cmsg_len(toobig));
    expect_too_big(pysock_cmsg_len(PTRDIFF_MAX));
    expect_too_big(pysock_cmsg_len((size_t)-1));
    expect_too_big(pysock_cmsg_len((size_t)-1 - CMSG_LEN(0) + 1));
}

T_TEST(cmsg_space_is_CMSG_SPACE, 30) {
    size_t toobig = (size_t)LIMIT - CMSG_SPACE(1) + 1;
    ptrdiff_t last = pysock_cmsg_space(0);
    T_CHECK(last > 2 * (ptrdiff_t)sizeof(int));
    pysock_error_clear();
    for (size_t n = 0; n < 2 * 257; n++) {
        size_t size = n < 257 ? n : toobig - (2 * 257 - n);
        T_EQ(pysock_cmsg_space(size), CMSG_SPACE(size));
        T_CHECK(pysock_cmsg_space(size) >= last);
        T_CHECK(pysock_cmsg_space(size) >= (ptrdiff_t)CMSG_LEN(size));
        T_CHECK(pysock_cmsg_space(size) <= LIMIT);
        last = pysock_cmsg_space(size);
    }
    T_EQ(pysock_error(), PYSOCK_NO_ERROR);
    expect_too_big(pysock_cmsg_space(toobig));
    expect_too_big(pysock_cmsg_space(PTRDIFF_MAX));
    expect_too_big(pysock_cmsg_space((size_t)-1));
    expect_too_big(pysock_cmsg_space((size_t)-1 - CMSG_SPACE(0) + 1));
}

/* ---- the items of a message that was built by hand ---- */

/* Appends an item whose header claims claim bytes of data. */
static size_t put_item(char *control, size_t at, int type, size_t size, size_t claim) {
    struct cmsghdr head;
    memset(&head, 0, sizeof head);
    head.cmsg_len = (__typeof__(head.cmsg_len))(CMSG_LEN(0) + claim);
    head.cmsg_level = 1000 + type;
    head.cmsg_type = type;
    memcpy(control + at, &head, sizeof head);
    memset(control + at + CMSG_LEN(0), 'a' + type, CMSG_SPACE(size) - CMSG_LEN(0));
    return at + CMSG_SPACE(size);
}

/* Item number type is next, with so many bytes. */
static void expect_item(const pysock_msg *msg, pysock_cmsg *item, int type, size_t size) {
    T_EQ(pysock_msg_next(msg, item), 1);
    T_EQ(item->level, 1000 + type);
    T_EQ(item->type, type);
    T_EQ(item->size, size);
    for (size_t i = 0; i < size; i++)
        T_EQ(((const char *)item->data)[i], 'a' + type);
}

static void expect_end(const pysock_msg *msg, pysock_cmsg *item) {
    for (int i = 0; i < 3; i++)
        T_EQ(pysock_msg_next(msg, item), 0);
}

/* A message whose control data is size bytes of a copy that begins off an aligned address, and
   ends where the memory ends. */
static char *put_control(pysock_msg *msg, const char *control, size_t size, size_t off) {
    char *memory = T_OK(malloc(size + off + 1));
    memcpy(memory + off, control, size);
    memset(msg, 0, sizeof *msg);
    msg->control = memory + off;
    msg->control_size = size;
    memory[size + off] = 'X';
    return memory;
}

T_TEST(items_are_told_one_by_one_wherever_they_lie, 30) {
    static const size_t sizes[] = {0, 1, 3, 4, 7, 8, 9, 13, 100};
    enum { N = sizeof sizes / sizeof sizes[0] };
    char control[1024];
    for (size_t off = 0; off < 16; off++) {
        for (int padded = 0; padded < 2; padded++) {
            pysock_msg msg;
            pysock_cmsg item;
            size_t used = 0;
            char *memory;
            for (int i = 0; i < N; i++)
                used = put_item(control, used, i, sizes[i], sizes[i]);
            if (!padded) /* the kernel leaves out what is behind the last item */
                used -= CMSG_SPACE(sizes[N - 1]) - CMSG_LEN(sizes[N - 1]);
            memory = put_control(&msg, control, used, off);
            memset(&item, 0, sizeof item);
            for (int i = 0; i < N; i++)
                expect_item(&msg, &item, i, sizes[i]);
            expect_end(&msg, &item);
            T_EQ(count_items(&msg), N);
            free(memory);
        }
    }
}

/* Whatever the length at which the memory ends: whole items first, then what there is of one. */
T_TEST(items_end_where_the_memory_ends, 30) {
    char control[256];
    size_t first = CMSG_SPACE(5), used;
    used = put_item(control, 0, 0, 5, 5);
    used = put_item(control, used, 1, 9, 9);
    for (size_t size = 0; size <= used; size++) {
        for (size_t off = 0; off < 4; off++) {
            pysock_msg msg;
            pysock_cmsg item;
            char *memory = put_control(&msg, control, size, off);
            T_STEP("%zu bytes of control data", size);
            memset(&item, 0, sizeof item);
            if (size >= CMSG_LEN(0))
                expect_item(&msg, &item, 0, size < CMSG_LEN(5) ? size - CMSG_LEN(0) : 5);
            if (size >= first + CMSG_LEN(0))
                expect_item(&msg, &item, 1,
                            size < first + CMSG_LEN(9) ? size - first - CMSG_LEN(0) : 9);
            expect_end(&msg, &item);
            free(memory);
        }
    }
}

T_TEST(lengths_that_lie_are_not_believed, 30) {
    static const size_t claims[] = {100, 1000000, (size_t)-1 - 64, (size_t)-1 - 32};
    char control[64];
    pysock_msg msg;
    pysock_cmsg item;
    size_t used;
    char *memory;
    for (size_t i = 0; i < sizeof claims / sizeof claims[0]; i++) {
        T_STEP("claim %zu", i);
        used = put_item(control, 0, 0, 16, claims[i]);
        memory = put_control(&msg, control, used, 0);
        memset(&item, 0, sizeof item);
        expect_item(&msg, &item, 0, 16);
        expect_end(&msg, &item);
        free(memory);
    }
    for (size_t len = 0; len < CMSG_LEN(0); len++) {
        T_STEP("a header that is %zu bytes long", len);
        used = put_item(control, 0, 0, 4, 4);
        used = put_item(control, used, 1, 4, len - CMSG_LEN(0));
        memory = put_control(&msg, control, used, 0);
        memset(&item, 0, sizeof item);
        expect_item(&msg, &item, 0, 4);
        expect_end(&msg, &item);
        free(memory);
    }
}

T_TEST(no_control_data_is_no_item, 30) {
    pysock_msg msg;
    pysock_cmsg item;
    char control[64];
    memset(&msg, 0, sizeof msg);
    memset(&item, 0, sizeof item);
    T_EQ(pysock_msg_next(NULL, &item), 0);
    T_EQ(pysock_msg_next(&msg, NULL), 0);
    T_EQ(pysock_msg_next(NULL, NULL), 0);
    T_EQ(pysock_msg_next(&msg, &item), 0);
    msg.control_size = 100; /* of nothing */
    T_EQ(pysock_msg_next(&msg, &item), 0);
    put_item(control, 0, 0, 4, 4);
    msg.control = control;
    msg.control_size = 0;
    T_EQ(pysock_msg_next(&msg, &item), 0);
}

/* ---- ancillary data of IP ---- */

static int int_of(const pysock_msg *msg, int level, int type) {
    int value = -1;
    expect_data(msg, level, type, &value, sizeof value);
    return value;
}

T_TEST(ip_headers_come_with_the_message, 60) {
    char control[256];
    channel l;
    pysock_msg msg;
    channel_make(&l, UDP4);
    T_OK(pysock_setsockopt_int(l.b, IPPROTO_IP, IP_RECVTTL, 1));
    T_OK(pysock_setsockopt_int(l.b, IPPROTO_IP, IP_RECVTOS, 1));
    T_OK(pysock_setsockopt_int(l.b, IPPROTO_IP, IP_PKTINFO, 1));
    for (int i = 0; i < MODES * WAYS; i++) {
        int ttl = 33, tos = 0x10;
        pysock_cmsg items[2];
        struct in_pktinfo info;
        unsigned char byte;
        channel_mode(&l, i / WAYS);
        T_STEP("the kernel's own values");
        send_bytes(&l, MSG, MSG_LEN);
        receive_with_room(&l, i % WAYS, &msg, control, sizeof control);
        T_EQ(count_items(&msg), 3);
        T_CHECK(int_of(&msg, IPPROTO_IP, IP_TTL) > 0);
        expect_data(&msg, IPPROTO_IP, IP_TOS, &byte, 1); /* one byte, as the header has it */
        T_EQ(byte, 0);
        expect_data(&msg, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
        T_EQ(ntohl(info.ipi_addr.s_addr), INADDR_LOOPBACK);
        T_EQ(info.ipi_ifindex, if_nametoindex("lo"));
        T_STEP("and the sender's");
        items[0] = item_of(IPPROTO_IP, IP_TTL, &ttl, sizeof ttl);
        items[1] = item_of(IPPROTO_IP, IP_TOS, &tos, sizeof tos);
        send_with(&l, items, 2);
        receive_with_room(&l, i % WAYS, &msg, control, sizeof control);
        T_EQ(int_of(&msg, IPPROTO_IP, IP_TTL), 33);
        expect_data(&msg, IPPROTO_IP, IP_TOS, &byte, 1);
        T_EQ(byte, 0x10);
    }
    channel_close(&l);
}

/* IP_PKTINFO on the way out chooses the sender's address. */
T_TEST(a_message_may_choose_where_it_comes_from, 30) {
    struct in_pktinfo info;
    pysock_cmsg item;
    pysock_msg msg;
    channel l;
    channel_make(&l, UDP4);
    T_OK(pysock_close(l.a));
    l.a = T_OK(pysock_socket(AF_INET, SOCK_DGRAM, 0));
    memset(&info, 0, sizeof info);
    info.ipi_spec_dst.s_addr = htonl(INADDR_LOOPBACK + 4);
    item = item_of(IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
    send_with(&l, &item, 1);
    memset(&msg, 0, sizeof msg);
    expect_msg(&l, WHOLE, &msg, 0);
    T_EQ(ntohl(msg.addr.u.in.sin_addr.s_addr), INADDR_LOOPBACK + 4);
    info.ipi_spec_dst.s_addr = htonl(0xc0000201); /* 192.0.2.1: for documentation */
    {
        struct iovec iov = iov_of(MSG, MSG_LEN);
        T_FAILS(pysock_sendmsg(l.a, &iov, 1, &item, 1, 0, l.to), PYSOCK_OS_ERROR, T_ANY);
    }
    channel_close(&l);
}

static int skip_without_ipv6(void) {
    if (t_has_ipv6())
        return 0;
    print_message("this machine has no IPv6 loopback: skipped\n");
    return 1;
}

T_TEST(ipv6_headers_come_with_the_message, 60) {
    char control[512];
    channel l;
    pysock_msg msg;
    if (skip_without_ipv6())
        skip();
    channel_make(&l, UDP6);
    T_OK(pysock_setsockopt_int(l.b, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1));
    for (int i = 0; i < MODES * WAYS; i++) {
        int hops = 2, tclass = 0x20;
        pysock_cmsg items[2];
        struct in6_pktinfo info;
        channel_mode(&l, i / WAYS);
        items[0] = item_of(IPPROTO_IPV6, IPV6_TCLASS, &tclass, sizeof tclass);
        items[1] = item_of(IPPROTO_IPV6, IPV6_HOPLIMIT, &hops, sizeof hops);
        T_STEP("the hop limit");
        T_OK(pysock_setsockopt_int(l.b, IPPROTO_IPV6, IPV6_RECVTCLASS, 0));
        T_OK(pysock_setsockopt_int(l.b, IPPROTO_IPV6, IPV6_RECVPKTINFO, 0));
        send_bytes(&l, MSG, MSG_LEN);
        receive_with_room(&l, i % WAYS, &msg, control, CMSG_SPACE(sizeof(int)));
        T_EQ(count_items(&msg), 1);
        T_CHECK(int_of(&msg, IPPROTO_IPV6, IPV6_HOPLIMIT) > 2);
        send_with(&l, items + 1, 1);
        receive_with_room(&l, i % WAYS, &msg, control, sizeof control);
        T_EQ(int_of(&msg, IPPROTO_IPV6, IPV6_HOPLIMIT), 2);
        T_STEP("the traffic class too");
        T_OK(pysock_setsockopt_int(l.b, IPPROTO_IPV6, IPV6_RECVTCLASS, 1));
        send_with(&l, items, 2);
        receive_with_room(&l, i % WAYS, &msg, control, 2 * CMSG_SPACE(sizeof(int)));
        T_EQ(count_items(&msg), 2);
        T_EQ(int_of(&msg, IPPROTO_IPV6, IPV6_HOPLIMIT), 2);
        T_EQ(int_of(&msg, IPPROTO_IPV6, IPV6_TCLASS), 0x20);
        tclass = -1; /* the kernel's own */
        send_with(&l, items, 2);
        receive_with_room(&l, i % WAYS, &msg, control, sizeof control);
        tclass = int_of(&msg, IPPROTO_IPV6, IPV6_TCLASS);
        T_CHECK(tclass >= 0 && tclass <= 255);
        T_STEP("and the packet's address");
        T_OK(pysock_setsockopt_int(l.b, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1));
        send_with(&l, items, 2);
        receive_with_room(&l, i % WAYS, &msg, control, sizeof control);
        T_EQ(count_items(&msg), 3);
        expect_data(&msg, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
        T_CHECK(IN6_IS_ADDR_LOOPBACK(&info.ipi6_addr));
        T_EQ(info.ipi6_ifindex, if_nametoindex("lo"));
        T_EQ(int_of(&msg, IPPROTO_IPV6, IPV6_HOPLIMIT), 2);
    }
    channel_close(&l);
}

/* The first item one byte too long: the kernel refuses it, or finds the second all the same. */
T_TEST(an_item_of_odd_size_does_not_hide_the_next, 30) {
    char odd[sizeof(int) + 1], control[256];
    int tclass = -1, hops = 2;
    struct iovec iov = iov_of(MSG, MSG_LEN);
    pysock_cmsg items[2];
    pysock_msg msg;
    channel l;
    if (skip_without_ipv6())
        skip();
    channel_make(&l, UDP6);
    T_OK(pysock_setsockopt_int(l.b, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1));
    T_OK(pysock_setsockopt_int(l.b, IPPROTO_IPV6, IPV6_RECVTCLASS, 1));
    memset(odd, 0, sizeof odd);
    memcpy(odd, &tclass, sizeof tclass);
    items[0] = item_of(IPPROTO_IPV6, IPV6_TCLASS, odd, sizeof odd);
    items[1] = item_of(IPPROTO_IPV6, IPV6_HOPLIMIT, &hops, sizeof hops);
    if (pysock_sendmsg(l.a, &iov, 1, items, 2, 0, l.to) < 0) {
        T_EQ(errno, EINVAL);
        items[0].size = sizeof tclass;
        send_with(&l, items, 2);
    }
    receive_with_room(&l, WHOLE, &msg, control, sizeof control);
    T_EQ(int_of(&msg, IPPROTO_IPV6, IPV6_HOPLIMIT), 2);
    channel_close(&l);
}

/* ---- too little room for control data ---- */

/* Sends MSG and receives it with every size of control memory, at every alignment: what comes is
   the beginning of the whole, MSG_CTRUNC tells that it was cut, nothing behind it is touched. */
static void cut_at_every_length(channel *l, const pysock_msg *whole) {
    found want[16], have[16];
    size_t want_n = collect(whole, want, 16), complete = 0;
    for (size_t room = 0; room <= whole->control_size + 9; room++) {
        for (size_t off = 0; off < 3; off++) {
            char *memory = T_OK(malloc(room + off + 8));
            size_t have_n, full = 0;
            pysock_msg msg;
            T_STEP("room for %zu bytes, %zu off", room, off);
            memset(memory, 0xee, room + off + 8);
            memset(&msg, 0, sizeof msg);
            msg.control = memory + off;
            msg.control_size = room;
            send_bytes(l, MSG, MSG_LEN);
            expect_msg(l, (int)(room % WAYS), &msg, 0);
            T_CHECK(msg.control_size <= room);
            T_EQ(msg.flags & MSG_TRUNC, 0);
            have_n = collect(&msg, have, 16);
            T_CHECK(have_n <= want_n);
            for (size_t i = 0; i < have_n; i++) {
                T_EQ(have[i].level, want[i].level);
                T_EQ(have[i].type, want[i].type);
                T_CHECK(have[i].size <= want[i].size);
                if (want[i].level == IPPROTO_IP || want[i].level == IPPROTO_IPV6)
                    T_CHECK(memcmp(have[i].data, want[i].data, have[i].size) == 0);
                if (have[i].size == want[i].size)
                    full++;
                else
                    T_EQ(i, have_n - 1);
            }
            if (full < want_n)
                T_EQ(msg.flags & MSG_CTRUNC, MSG_CTRUNC);
            if (room >= whole->control_size) {
                T_EQ(full, want_n);
                T_EQ(msg.flags & MSG_CTRUNC, 0);
            }
            T_CHECK(full >= complete); /* more room never gives less */
            complete = full;
            for (size_t i = 0; i < 8; i++)
                T_EQ((unsigned char)memory[off + room + i], 0xee);
            free(memory);
        }
    }
    T_EQ(complete, want_n);
}

T_TEST(control_data_is_cut_at_any_length_and_says_so, 60) {
    char control[512];
    channel l;
    pysock_msg msg;
    channel_make(&l, UDP4);
    T_OK(pysock_setsockopt_int(l.b, IPPROTO_IP, IP_RECVTTL, 1));
    T_OK(pysock_setsockopt_int(l.b, IPPROTO_IP, IP_RECVTOS, 1));
    T_OK(pysock_setsockopt_int(l.b, IPPROTO_IP, IP_PKTINFO, 1));
    T_OK(pysock_setsockopt_int(l.b, SOL_SOCKET, SO_TIMESTAMP, 1));
    send_bytes(&l, MSG, MSG_LEN);
    receive_with_room(&l, WHOLE, &msg, control, sizeof control);
    T_EQ(count_items(&msg), 4);
    cut_at_every_length(&l, &msg);
    channel_close(&l);
    if (!t_has_ipv6())
        return;
    channel_make(&l, UDP6);
    T_OK(pysock_setsockopt_int(l.b, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1));
    T_OK(pysock_setsockopt_int(l.b, IPPROTO_IPV6, IPV6_RECVTCLASS, 1));
    T_OK(pysock_setsockopt_int(l.b, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1));
    send_bytes(&l, MSG, MSG_LEN);
    receive_with_room(&l, WHOLE, &msg, control, sizeof control);
    T_EQ(count_items(&msg), 3);
    cut_at_every_length(&l, &msg);
    channel_close(&l);
}

/* Where nobody gives room for it, what would have come is told to be missing. */
T_TEST(without_room_ancillary_data_is_dropped, 30) {
    channel l;
    pysock_msg msg;
    char buf[64];
    channel_make(&l, UDP4);
    T_OK(pysock_setsockopt_int(l.b, IPPROTO_IP, IP_RECVTTL, 1));
    for (int way = 0; way < WAYS; way++) {
        send_bytes(&l, MSG, MSG_LEN);
        memset(&msg, 0, sizeof msg);
        expect_msg(&l, way, &msg, 0);
        T_EQ(msg.control_size, 0);
        T_EQ(msg.flags & MSG_CTRUNC, MSG_CTRUNC);
    }
    send_bytes(&l, MSG, MSG_LEN);
    T_EQ(pysock_recv(l.b, buf, sizeof buf, 0), MSG_LEN);
    send_bytes(&l, MSG, MSG_LEN);
    T_EQ(pysock_recvfrom(l.b, buf, sizeof buf, 0, NULL), MSG_LEN);
    channel_close(&l);
}

T_MAIN(.setup = make_contexts_and_watchdog, .teardown = free_contexts)
