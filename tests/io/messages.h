/* Two sockets of any kind, and messages between them. */
#ifndef TESTS_IO_MESSAGES_H
#define TESTS_IO_MESSAGES_H

#include "support/contexts.h"

#include <net/if.h>

T_FUNC int make_contexts_and_watchdog(void **state) {
    T_STEP("set-up"); /* starts the watchdog, before there are sockets that it would inherit */
    return make_contexts(state);
}

static const char MSG[] = "what comes, comes whole";
#define MSG_LEN (sizeof MSG - 1)

/* The three ways in which a socket may wait, or not. */
static const double modes[] = {PYSOCK_NO_TIMEOUT, 60, 0};
#define MODES 3

enum { UDP4, UDP6, UNIX_DGRAM, UNIX_SEQPACKET, UNIX_STREAM, TCP, KINDS };

static const char *const kind_names[KINDS] = {"UDP over IPv4",  "UDP over IPv6",
                                              "Unix datagrams", "Unix sequenced packets",
                                              "Unix stream",    "TCP"};

/* a sends to b: to an address (those that are not connected), or to NULL. */
typedef struct channel {
    int kind;
    pysock *a, *b;
    pysock_addr at_a, at_b;
    const pysock_addr *to;
} channel;

T_FUNC pysock *bound(int kind) {
    static int names_made;
    char name[64];
    pysock *s;
    if (kind == UNIX_DGRAM) {
        snprintf(name, sizeof name, "@pysock-test-msg-%ld-%d", (long)getpid(), ++names_made);
        s = T_OK(pysock_socket(AF_UNIX, SOCK_DGRAM, 0));
    } else {
        snprintf(name, sizeof name, "%s", kind == UDP4 ? "127.0.0.1" : "::1");
        s = T_OK(pysock_socket(kind == UDP4 ? AF_INET : AF_INET6, SOCK_DGRAM, 0));
    }
    T_OK(pysock_bind(s, name, 0));
    return s;
}

T_FUNC void channel_make(channel *l, int kind) {
    pysock *pair[2];
    memset(l, 0, sizeof *l);
    l->kind = kind;
    if (kind <= UNIX_DGRAM) {
        l->a = bound(kind);
        l->b = bound(kind);
        l->at_a = t_addr_of(l->a);
        l->at_b = t_addr_of(l->b);
        l->to = &l->at_b;
        return;
    }
    if (kind == TCP)
        t_pair(pair);
    else
        T_OK(pysock_socketpair(AF_UNIX, kind == UNIX_STREAM ? SOCK_STREAM : SOCK_SEQPACKET, 0,
                               pair));
    l->a = pair[0];
    l->b = pair[1];
}

T_FUNC void channel_mode(channel *l, int mode) {
    T_OK(pysock_settimeout(l->a, modes[mode]));
    T_OK(pysock_settimeout(l->b, modes[mode]));
}

T_FUNC void channel_close(channel *l) {
    T_OK(pysock_close(l->a));
    T_OK(pysock_close(l->b));
}

T_FUNC int kind_after(int kind, int last) {
    do
        kind++;
    while (kind == UDP6 && !t_has_ipv6());
    if (kind <= last)
        T_STEP("%s", kind_names[kind]);
    return kind;
}

/* clang-format off */
#define FOR_EACH_KIND_OF(kind, first, last)                                                        \
    for (int kind = kind_after((first) - 1, last); kind <= (last); kind = kind_after(kind, last))
/* clang-format on */
#define FOR_EACH_KIND(kind) FOR_EACH_KIND_OF(kind, UDP4, TCP)

T_FUNC struct iovec iov_of(const void *data, size_t size) {
    struct iovec iov;
    iov.iov_base = (void *)(uintptr_t)data;
    iov.iov_len = size;
    return iov;
}

T_FUNC void send_bytes(channel *l, const void *data, size_t size) {
    struct iovec iov = iov_of(data, size);
    T_EQ(pysock_sendmsg(l->a, &iov, 1, NULL, 0, 0, l->to), size);
}

T_FUNC void send_with(channel *l, const pysock_cmsg *items, size_t count) {
    struct iovec iov = iov_of(MSG, MSG_LEN);
    T_EQ(pysock_sendmsg(l->a, &iov, 1, items, count, 0, l->to), MSG_LEN);
}

/* The two calls, and the second with its memory in pieces: all do the same. */
enum { WHOLE, INTO, SCATTERED, WAYS };

T_FUNC ptrdiff_t receive(int way, pysock *s, void *buf, size_t size, pysock_msg *msg, int flags) {
    struct iovec iov[4];
    size_t third = size / 3;
    if (way == WHOLE)
        return pysock_recvmsg(s, buf, size, msg, flags);
    iov[0] = iov_of(buf, size);
    if (way == INTO)
        return pysock_recvmsg_into(s, iov, 1, msg, flags);
    iov[0].iov_len = third;
    iov[1] = iov_of(NULL, 0);
    iov[2] = iov_of((char *)buf + third, third);
    iov[3] = iov_of((char *)buf + 2 * third, size - 2 * third);
    return pysock_recvmsg_into(s, iov, 4, msg, flags);
}

/* The next message is MSG, whole. Any mode. */
T_FUNC void expect_msg(channel *l, int way, pysock_msg *msg, int flags) {
    char buf[2 * MSG_LEN];
    T_EQ(t_readable(l->b, PYSOCK_NO_TIMEOUT), 1);
    T_EQ(receive(way, l->b, buf, sizeof buf, msg, flags), MSG_LEN);
    T_CHECK(memcmp(buf, MSG, MSG_LEN) == 0);
}

T_FUNC void expect_sender(const channel *l, const pysock_msg *msg) {
    if (!l->to) {
        T_EQ(msg->addr.size, 0);
        return;
    }
    T_EQ(msg->addr.size, l->at_a.size);
    T_CHECK(memcmp(&msg->addr.u, &l->at_a.u, l->at_a.size) == 0);
}

T_FUNC size_t count_items(const pysock_msg *msg) {
    pysock_cmsg item;
    size_t n = 0;
    memset(&item, 0, sizeof item);
    while (pysock_msg_next(msg, &item))
        n++;
    return n;
}

typedef struct found {
    int level, type;
    size_t size;
    unsigned char data[64];
} found;

T_FUNC size_t collect(const pysock_msg *msg, found *list, size_t max) {
    pysock_cmsg item;
    size_t n = 0;
    memset(&item, 0, sizeof item);
    while (pysock_msg_next(msg, &item)) {
        T_CHECK(n < max && item.size <= sizeof list->data);
        list[n].level = item.level;
        list[n].type = item.type;
        list[n].size = item.size;
        memcpy(list[n].data, item.data, item.size);
        n++;
    }
    return n;
}

/* The item of that kind, exactly so long, is there once; copies it. */
T_FUNC void expect_data(const pysock_msg *msg, int level, int type, void *data, size_t size) {
    found list[16];
    size_t n = collect(msg, list, 16), times = 0;
    for (size_t i = 0; i < n; i++) {
        if (list[i].level != level || list[i].type != type)
            continue;
        times++;
        T_EQ(list[i].size, size);
        memcpy(data, list[i].data, size);
    }
    T_EQ(times, 1);
}

T_FUNC pysock_cmsg item_of(int level, int type, const void *data, size_t size) {
    pysock_cmsg item;
    item.level = level;
    item.type = type;
    item.data = data;
    item.size = size;
    return item;
}

T_FUNC void receive_with_room(channel *l, int way, pysock_msg *msg, void *control, size_t room) {
    memset(msg, 0, sizeof *msg);
    msg->control = control;
    msg->control_size = room;
    expect_msg(l, way, msg, 0);
    expect_sender(l, msg);
    T_EQ(msg->flags & MSG_CTRUNC, 0);
}

enum { RECV, RECV_INTO, RECVFROM, RECVFROM_INTO, RECVMSG, RECVMSG_INTO, RECV_FDS, RECEIVERS };

static const char *const receiver_names[RECEIVERS] = {
    "recv", "recv_into", "recvfrom", "recvfrom_into", "recvmsg", "recvmsg_into", "recv_fds"};

T_FUNC ptrdiff_t receive_by(int call, pysock *s, void *buf, size_t size, int flags) {
    pysock_addr from;
    pysock_msg msg;
    struct iovec iov = iov_of(buf, size);
    size_t count = 0;
    memset(&msg, 0, sizeof msg);
    switch (call) {
    case RECV: return pysock_recv(s, buf, size, flags);
    case RECV_INTO: return pysock_recv_into(s, buf, size, flags);
    case RECVFROM: return pysock_recvfrom(s, buf, size, flags, &from);
    case RECVFROM_INTO: return pysock_recvfrom_into(s, buf, size, flags, &from);
    case RECVMSG: return pysock_recvmsg(s, buf, size, &msg, flags);
    case RECVMSG_INTO: return pysock_recvmsg_into(s, &iov, 1, &msg, flags);
    default: return pysock_recv_fds(s, buf, size, NULL, &count, flags, NULL);
    }
}

enum { SEND, SENDALL, SENDTO, SENDMSG, SEND_FDS, SENDERS };

static const char *const sender_names[SENDERS] = {"send", "sendall", "sendto", "sendmsg",
                                                  "send_fds"};

/* On a connected socket; sendto has an address that streams make nothing of. */
T_FUNC ptrdiff_t send_by(int call, pysock *s, const void *data, size_t size, int flags) {
    struct iovec iov = iov_of(data, size);
    pysock_addr peer;
    switch (call) {
    case SEND: return pysock_send(s, data, size, flags);
    case SENDALL: return pysock_sendall(s, data, size, flags) < 0 ? -1 : (ptrdiff_t)size;
    case SENDTO:
        if (pysock_family(s) == AF_UNIX)
            return pysock_send(s, data, size, flags);
        if (pysock_getpeername(s, &peer) < 0)
            return -1; /* it has been closed meanwhile */
        return pysock_sendto_addr(s, data, size, flags, &peer);
    case SENDMSG: return pysock_sendmsg(s, &iov, 1, NULL, 0, flags, NULL);
    default: return pysock_send_fds(s, data, size, NULL, 0, flags);
    }
}

#endif
