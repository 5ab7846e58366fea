/* Messages: recvmsg, recvmsg_into and sendmsg with several buffers and ancillary data, descriptors
   and credentials that are passed, the MSG_ flags; and what of all that TLS refuses. */
#include "support/contexts.h"

#include <net/if.h>

#if defined(__has_include)
#if __has_include(<linux/errqueue.h>) && !T_MACOS_LIKE
#include <linux/errqueue.h>
#define HAVE_ERRQUEUE 1
#endif
#endif

static const char MSG[] = "what comes, comes whole";
#define MSG_LEN (sizeof MSG - 1)

/* The three ways in which a socket may wait, or not. */
static const double modes[] = {PYSOCK_NO_TIMEOUT, 60, 0};
#define MODES 3

static int make_contexts_and_watchdog(void **state) {
    T_STEP("set-up"); /* starts the watchdog, before there are sockets that it would inherit */
    return make_contexts(state);
}

/* ---- two sockets of any kind ---- */

enum { UDP4, UDP6, UNIX_DGRAM, UNIX_SEQPACKET, UNIX_STREAM, TCP, KINDS };

static const char *const kind_names[KINDS] = {"UDP over IPv4",      "UDP over IPv6",
                                              "Unix datagrams",     "Unix sequenced packets",
                                              "Unix stream",        "TCP"};

/* a sends to b: to an address (those that are not connected), or to NULL. */
typedef struct channel {
    int kind;
    pysock *a, *b;
    pysock_addr at_a, at_b;
    const pysock_addr *to;
} channel;

static int is_stream(int kind) {
    return kind >= UNIX_STREAM;
}

static pysock *bound(int kind) {
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

static void channel_make(channel *l, int kind) {
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

static void channel_mode(channel *l, int mode) {
    T_OK(pysock_settimeout(l->a, modes[mode]));
    T_OK(pysock_settimeout(l->b, modes[mode]));
}

static void channel_close(channel *l) {
    T_OK(pysock_close(l->a));
    T_OK(pysock_close(l->b));
}

static int kind_after(int kind, int last) {
    do
        kind++;
    while (kind == UDP6 && !t_has_ipv6());
    if (kind <= last)
        T_STEP("%s", kind_names[kind]);
    return kind;
}

#define FOR_EACH_KIND_OF(kind, first, last)                                                        \
    for (int kind = kind_after((first) - 1, last); kind <= (last); kind = kind_after(kind, last))
#define FOR_EACH_KIND(kind) FOR_EACH_KIND_OF(kind, UDP4, TCP)

static struct iovec iov_of(const void *data, size_t size) {
    struct iovec iov;
    iov.iov_base = (void *)(uintptr_t)data;
    iov.iov_len = size;
    return iov;
}

static void send_bytes(channel *l, const void *data, size_t size) {
    struct iovec iov = iov_of(data, size);
    T_EQ(pysock_sendmsg(l->a, &iov, 1, NULL, 0, 0, l->to), size);
}

static void send_with(channel *l, const pysock_cmsg *items, size_t count) {
    struct iovec iov = iov_of(MSG, MSG_LEN);
    T_EQ(pysock_sendmsg(l->a, &iov, 1, items, count, 0, l->to), MSG_LEN);
}

/* The two calls, and the second with its memory in pieces: all do the same. */
enum { WHOLE, INTO, SCATTERED, WAYS };

static ptrdiff_t receive(int way, pysock *s, void *buf, size_t size, pysock_msg *msg, int flags) {
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
static void expect_msg(channel *l, int way, pysock_msg *msg, int flags) {
    char buf[2 * MSG_LEN];
    T_EQ(t_readable(l->b, PYSOCK_NO_TIMEOUT), 1);
    T_EQ(receive(way, l->b, buf, sizeof buf, msg, flags), MSG_LEN);
    T_CHECK(memcmp(buf, MSG, MSG_LEN) == 0);
}

static void expect_sender(const channel *l, const pysock_msg *msg) {
    if (!l->to) {
        T_EQ(msg->addr.len, 0);
        return;
    }
    T_EQ(msg->addr.len, l->at_a.len);
    T_CHECK(memcmp(&msg->addr.u, &l->at_a.u, l->at_a.len) == 0);
}

static size_t count_items(const pysock_msg *msg) {
    pysock_cmsg item;
    size_t n = 0;
    memset(&item, 0, sizeof item);
    while (pysock_msg_next(msg, &item))
        n++;
    return n;
}

/* ---- a message and what is told of it ---- */

T_TEST(a_message_arrives_with_its_address_and_no_flags, 60) {
    static const size_t rooms[] = {0, 1, 7, 10240};
    static char control[10240];
    FOR_EACH_KIND(kind) {
        for (int i = 0; i < MODES * WAYS * 4; i++) {
            channel l;
            pysock_msg msg;
            char buf[MSG_LEN + 42];
            size_t size = i & 1 ? sizeof buf : MSG_LEN;
            channel_make(&l, kind);
            channel_mode(&l, i / (WAYS * 4));
            memset(&msg, 0, sizeof msg);
            msg.controllen = rooms[i % 4];
            msg.control = msg.controllen ? control : NULL;
            msg.flags = -1;
            memset(&msg.addr, 0xee, sizeof msg.addr);
            send_bytes(&l, MSG, MSG_LEN);
            T_EQ(t_readable(l.b, PYSOCK_NO_TIMEOUT), 1);
            T_EQ(receive(i / 4 % WAYS, l.b, buf, size, &msg, 0), MSG_LEN);
            T_CHECK(memcmp(buf, MSG, MSG_LEN) == 0);
            expect_sender(&l, &msg);
            T_EQ(msg.controllen, 0);
            T_EQ(count_items(&msg), 0);
            T_EQ(msg.flags & (MSG_CTRUNC | MSG_OOB | MSG_TRUNC | MSG_ERRQUEUE), 0);
            channel_close(&l);
        }
    }
}

T_TEST(a_message_that_is_cut_off_says_so, 60) {
    FOR_EACH_KIND(kind) {
        for (int i = 0; i < MODES * WAYS; i++) {
            channel l;
            pysock_msg msg;
            char buf[64];
            channel_make(&l, kind);
            channel_mode(&l, i / WAYS);
            send_bytes(&l, MSG, MSG_LEN);
            T_EQ(t_readable(l.b, PYSOCK_NO_TIMEOUT), 1);
            memset(&msg, 0, sizeof msg);
            memset(buf, '.', sizeof buf);
            T_EQ(receive(i % WAYS, l.b, buf, MSG_LEN - 3, &msg, 0), MSG_LEN - 3);
            T_CHECK(memcmp(buf, MSG, MSG_LEN - 3) == 0);
            T_CHECK(buf[MSG_LEN - 3] == '.');
            expect_sender(&l, &msg);
            T_EQ(msg.flags & MSG_TRUNC, is_stream(kind) ? 0 : MSG_TRUNC);
            T_EQ(msg.flags & MSG_CTRUNC, 0);
            if (is_stream(kind)) {
                T_EQ(receive(i % WAYS, l.b, buf, sizeof buf, &msg, 0), 3);
                T_CHECK(memcmp(buf, MSG + MSG_LEN - 3, 3) == 0);
            } else {
                send_bytes(&l, "next", 4);
                T_EQ(t_readable(l.b, PYSOCK_NO_TIMEOUT), 1);
                T_EQ(receive(i % WAYS, l.b, buf, sizeof buf, &msg, 0), 4);
                T_EQ(msg.flags & MSG_TRUNC, 0);
            }
            channel_close(&l);
        }
    }
}

/* MSG_TRUNC as a flag of the call: Linux tells how long the message was. */
T_TEST(MSG_TRUNC_tells_the_whole_length_of_a_message, 60) {
    FOR_EACH_KIND_OF(kind, UDP4, UNIX_SEQPACKET) {
        for (int i = 0; i < MODES * WAYS; i++) {
            channel l;
            pysock_msg msg;
            char buf[64];
            channel_make(&l, kind);
            channel_mode(&l, i / WAYS);
            send_bytes(&l, MSG, MSG_LEN);
            T_EQ(t_readable(l.b, PYSOCK_NO_TIMEOUT), 1);
            memset(&msg, 0, sizeof msg);
            T_EQ(receive(i % WAYS, l.b, buf, 6, &msg, MSG_TRUNC | MSG_PEEK), MSG_LEN);
            memset(buf, '.', sizeof buf);
            T_EQ(receive(i % WAYS, l.b, buf, 6, &msg, MSG_TRUNC), MSG_LEN);
            T_CHECK(memcmp(buf, "what c.", 7) == 0);
            T_EQ(msg.flags & MSG_TRUNC, MSG_TRUNC);
            channel_close(&l);
        }
    }
}

T_TEST(peeking_at_a_message_leaves_it, 60) {
    FOR_EACH_KIND(kind) {
        for (int i = 0; i < MODES * WAYS; i++) {
            channel l;
            pysock_msg msg;
            char buf[64];
            channel_make(&l, kind);
            channel_mode(&l, i / WAYS);
            send_bytes(&l, MSG, MSG_LEN);
            T_EQ(t_readable(l.b, PYSOCK_NO_TIMEOUT), 1);
            memset(&msg, 0, sizeof msg);
            T_EQ(receive(i % WAYS, l.b, buf, MSG_LEN - 3, &msg, MSG_PEEK), MSG_LEN - 3);
            expect_sender(&l, &msg);
            for (int peek = 1; peek >= 0; peek--) {
                memset(buf, 0, sizeof buf);
                T_EQ(receive(i % WAYS, l.b, buf, sizeof buf, &msg, peek ? MSG_PEEK : 0), MSG_LEN);
                T_CHECK(memcmp(buf, MSG, MSG_LEN) == 0);
                expect_sender(&l, &msg);
                T_EQ(msg.flags & (MSG_TRUNC | MSG_CTRUNC), 0);
            }
            T_EQ(t_readable(l.b, 0), 0);
            channel_close(&l);
        }
    }
}

T_TEST(an_end_of_stream_is_a_message_of_nothing, 60) {
    FOR_EACH_KIND_OF(kind, UNIX_SEQPACKET, TCP) {
        for (int i = 0; i < MODES * WAYS; i++) {
            channel l;
            pysock_msg msg;
            char buf[8], control[64];
            int fds[2];
            size_t count = 2;
            channel_make(&l, kind);
            channel_mode(&l, i / WAYS);
            T_OK(pysock_close(l.a));
            T_EQ(t_readable(l.b, PYSOCK_NO_TIMEOUT), 1);
            for (int n = 0; n < 3; n++) {
                memset(&msg, 0, sizeof msg);
                msg.control = control;
                msg.controllen = sizeof control;
                T_EQ(receive(i % WAYS, l.b, buf, sizeof buf, &msg, 0), 0);
                T_EQ(msg.controllen, 0);
                T_EQ(msg.addr.len, 0);
                T_EQ(msg.flags & (MSG_CTRUNC | MSG_OOB), 0);
            }
            T_EQ(pysock_recv_fds(l.b, buf, sizeof buf, fds, &count, 0, NULL), 0);
            T_EQ(count, 0);
            T_OK(pysock_close(l.b));
        }
    }
}

T_TEST(an_empty_message_ends_nothing, 60) {
    FOR_EACH_KIND_OF(kind, UDP4, UNIX_SEQPACKET) {
        for (int i = 0; i < MODES * WAYS; i++) {
            channel l;
            pysock_msg msg;
            char buf[8];
            channel_make(&l, kind);
            channel_mode(&l, i / WAYS);
            send_bytes(&l, NULL, 0);
            T_EQ(pysock_sendmsg(l.a, NULL, 0, NULL, 0, 0, l.to), 0);
            send_bytes(&l, "x", 1);
            memset(&msg, 0, sizeof msg);
            for (int n = 0; n < 3; n++) {
                T_EQ(t_readable(l.b, PYSOCK_NO_TIMEOUT), 1);
                T_EQ(receive(i % WAYS, l.b, buf, sizeof buf, &msg, 0), n / 2);
                expect_sender(&l, &msg);
            }
            T_EQ(t_readable(l.b, 0), 0);
            channel_close(&l);
        }
    }
}

T_TEST(buffers_are_filled_in_turn, 60) {
    FOR_EACH_KIND(kind) {
        for (int mode = 0; mode < MODES; mode++) {
            char b1[] = "----", b2[] = "0123456789", b3[] = "--------------";
            struct iovec iov[5];
            channel l;
            pysock_msg msg;
            channel_make(&l, kind);
            channel_mode(&l, mode);
            iov[0] = iov_of(b1, 4);
            iov[1] = iov_of(NULL, 0);
            iov[2] = iov_of(b2 + 2, 7);
            iov[3] = iov_of(b2, 0);
            iov[4] = iov_of(b3, 14);
            send_bytes(&l, "Mary had a little lamb", 22);
            T_EQ(t_readable(l.b, PYSOCK_NO_TIMEOUT), 1);
            memset(&msg, 0, sizeof msg);
            T_EQ(pysock_recvmsg_into(l.b, iov, 5, &msg, 0), 22);
            T_CHECK(strcmp(b1, "Mary") == 0);
            T_CHECK(strcmp(b2, "01 had a 9") == 0);
            T_CHECK(strcmp(b3, "little lamb---") == 0);
            expect_sender(&l, &msg);
            T_EQ(msg.flags & (MSG_TRUNC | MSG_CTRUNC), 0);
            channel_close(&l);
        }
    }
}

T_TEST(without_a_buffer_a_message_is_taken_and_lost, 60) {
    FOR_EACH_KIND_OF(kind, UDP4, UNIX_SEQPACKET) {
        channel l;
        pysock_msg msg;
        char buf[8];
        channel_make(&l, kind);
        send_bytes(&l, "lost", 4);
        send_bytes(&l, "lost", 4);
        send_bytes(&l, "kept", 4);
        memset(&msg, 0, sizeof msg);
        T_EQ(pysock_recvmsg_into(l.b, NULL, 0, &msg, 0), 0);
        T_EQ(msg.flags & MSG_TRUNC, MSG_TRUNC);
        expect_sender(&l, &msg);
        T_EQ(pysock_recvmsg(l.b, NULL, 0, &msg, 0), 0);
        T_EQ(msg.flags & MSG_TRUNC, MSG_TRUNC);
        T_EQ(pysock_recvmsg(l.b, buf, sizeof buf, &msg, 0), 4);
        T_CHECK(memcmp(buf, "kept", 4) == 0);
        T_EQ(msg.flags & MSG_TRUNC, 0);
        channel_close(&l);
    }
}

/* ---- sendmsg ---- */

T_TEST(buffers_are_sent_in_turn_as_one_message, 60) {
    FOR_EACH_KIND(kind) {
        for (int mode = 0; mode < MODES; mode++) {
            struct iovec iov[4];
            channel l;
            char buf[64];
            channel_make(&l, kind);
            channel_mode(&l, mode);
            iov[0] = iov_of(MSG, 3);
            iov[1] = iov_of(NULL, 0);
            iov[2] = iov_of(MSG + 3, 10);
            iov[3] = iov_of(MSG + 13, MSG_LEN - 13);
            T_EQ(pysock_sendmsg(l.a, iov, 4, NULL, 0, 0, l.to), MSG_LEN);
            T_EQ(t_readable(l.b, PYSOCK_NO_TIMEOUT), 1);
            T_EQ(pysock_recv(l.b, buf, sizeof buf, 0), MSG_LEN);
            T_CHECK(memcmp(buf, MSG, MSG_LEN) == 0);
            channel_close(&l);
        }
    }
}

T_TEST(many_buffers_go_until_the_system_has_enough, 60) {
    enum { MOST = 1024 }; /* Linux's UIO_MAXIOV */
    static struct iovec iov[MOST + 1];
    static char out[MOST + 1], in[MOST + 1];
    FOR_EACH_KIND(kind) {
        channel l;
        pysock_msg msg;
        channel_make(&l, kind);
        for (int i = 0; i <= MOST; i++) {
            out[i] = (char)('a' + i % 23);
            iov[i] = iov_of(out + i, 1);
        }
        T_EQ(pysock_sendmsg(l.a, iov, MOST, NULL, 0, 0, l.to), MOST);
        T_FAILS(pysock_sendmsg(l.a, iov, MOST + 1, NULL, 0, 0, l.to), PYSOCK_OS_ERROR, EMSGSIZE);
        for (int i = 0; i <= MOST; i++)
            iov[i] = iov_of(in + i, 1);
        memset(&msg, 0, sizeof msg);
        T_EQ(t_readable(l.b, PYSOCK_NO_TIMEOUT), 1);
        T_FAILS(pysock_recvmsg_into(l.b, iov, MOST + 1, &msg, 0), PYSOCK_OS_ERROR, EMSGSIZE);
        T_EQ(pysock_recvmsg_into(l.b, iov, MOST, &msg, 0), MOST);
        T_CHECK(memcmp(in, out, MOST) == 0);
        channel_close(&l);
    }
}

T_TEST(no_buffers_on_a_stream_are_nothing, 30) {
    FOR_EACH_KIND_OF(kind, UNIX_STREAM, TCP) {
        for (int mode = 0; mode < MODES; mode++) {
            channel l;
            channel_make(&l, kind);
            channel_mode(&l, mode);
            T_EQ(pysock_sendmsg(l.a, NULL, 0, NULL, 0, 0, NULL), 0);
            send_bytes(&l, NULL, 0);
            T_EQ(t_readable(l.b, 0), 0);
            send_bytes(&l, "x", 1);
            t_expect(l.b, "x");
            channel_close(&l);
        }
    }
}

T_TEST(without_a_destination_sendmsg_is_an_error, 30) {
    FOR_EACH_KIND_OF(kind, UDP4, UNIX_DGRAM) {
        channel l;
        struct iovec iov = iov_of("x", 1);
        pysock_addr empty;
        char buf[8];
        memset(&empty, 0, sizeof empty);
        channel_make(&l, kind);
        for (int mode = 0; mode < MODES; mode++) {
            channel_mode(&l, mode);
            T_FAILS(pysock_sendmsg(l.a, &iov, 1, NULL, 0, 0, NULL), PYSOCK_OS_ERROR,
                    kind == UNIX_DGRAM ? ENOTCONN : EDESTADDRREQ);
            T_FAILS(pysock_sendmsg(l.a, &iov, 1, NULL, 0, 0, &empty), PYSOCK_VALUE_ERROR, EINVAL);
        }
        T_OK(pysock_connect_addr(l.a, &l.at_b));
        T_EQ(pysock_sendmsg(l.a, &iov, 1, NULL, 0, 0, NULL), 1);
        T_EQ(t_readable(l.b, PYSOCK_NO_TIMEOUT), 1);
        T_EQ(pysock_recv(l.b, buf, sizeof buf, 0), 1);
        channel_close(&l);
    }
}

/* Sends messages of 512 bytes until it fails; returns how many went. */
static int send_until_it_fails(channel *l, int flags) {
    static const char chunk[512];
    struct iovec iov = iov_of(chunk, sizeof chunk);
    int sent = 0;
    while (pysock_sendmsg(l->a, &iov, 1, NULL, 0, flags, l->to) > 0)
        T_CHECK(++sent < 10000000);
    return sent;
}

T_TEST(sendmsg_does_not_wait_where_it_must_not, 60) {
    FOR_EACH_KIND_OF(kind, UNIX_DGRAM, TCP) {
        for (int i = 0; i < 4; i++) {
            static const double timeouts[] = {0.05, 0, PYSOCK_NO_TIMEOUT, 60};
            channel l;
            channel_make(&l, kind);
            if (l.to) /* for a queue that is full poll(2) speaks of the peer's */
                T_OK(pysock_connect_addr(l.a, l.to));
            T_OK(pysock_settimeout(l.a, timeouts[i]));
            T_CHECK(send_until_it_fails(&l, i >= 2 ? MSG_DONTWAIT : 0) > 0);
            T_EQ(errno, i == 0 ? ETIMEDOUT : EAGAIN);
            T_EQ(pysock_error(), i == 0 ? PYSOCK_TIMEOUT_ERROR : PYSOCK_OS_ERROR);
            T_EQ(pysock_queued(l.a), 0);
            channel_close(&l);
        }
    }
}

typedef struct big {
    pysock *s;
    size_t size;
    unsigned char *data;
} big;

static void *read_all_thread(void *arg) {
    big *b = arg;
    t_recv_exactly(b->s, b->data, b->size);
    return NULL;
}

/* A blocking call sends all of it, where it can sleep in the kernel; others what that takes.
   Nothing is queued. */
T_TEST(a_large_message_on_a_stream_goes_as_far_as_the_mode_lets_it, 100) {
    enum { SIZE = 3 << 20 };
    static unsigned char out[SIZE], in[SIZE];
    t_fill(out, SIZE, 0, 3);
    FOR_EACH_KIND_OF(kind, UNIX_STREAM, TCP) {
        for (int mode = 0; mode < MODES; mode++) {
            struct iovec iov[3];
            channel l;
            big b;
            t_thread t;
            ptrdiff_t n;
            T_STEP("%s, mode %d", kind_names[kind], mode);
            channel_make(&l, kind);
            channel_mode(&l, mode);
            iov[0] = iov_of(out, 1000000);
            iov[1] = iov_of(out + 1000000, 1);
            iov[2] = iov_of(out + 1000001, SIZE - 1000001);
            b.s = l.b;
            b.size = SIZE;
            b.data = in;
            if (!T_HAS_O_NONBLOCK(modes[mode]))
                t_spawn(&t, read_all_thread, &b);
            n = T_OK(pysock_sendmsg(l.a, iov, 3, NULL, 0, 0, NULL));
            T_CHECK(n > 0 && n <= SIZE);
            T_EQ(pysock_queued(l.a), 0);
            if (!T_HAS_O_NONBLOCK(modes[mode])) {
                T_EQ(n, SIZE);
                t_join(&t);
            } else {
                t_recv_exactly(l.b, in, (size_t)n);
                T_EQ(t_readable(l.b, 0), 0);
            }
            t_verify(in, (size_t)n, 0, 3);
            channel_close(&l);
        }
    }
}

/* sendmsg keeps the order of what pysock_send_buf() has queued before it. */
T_TEST(a_message_stays_behind_what_is_queued, 100) {
    enum { SIZE = 8 << 20 };
    static unsigned char in[SIZE];
    pysock_buf *queued;
    queued = T_OK(pysock_buf_new(SIZE));
    t_fill(pysock_buf_data(queued), SIZE, 0, 5);
    FOR_EACH_KIND_OF(kind, UNIX_STREAM, TCP) {
        struct iovec iov = iov_of("after", 5);
        channel l;
        big b;
        t_thread t;
        channel_make(&l, kind);
        T_OK(pysock_setblocking(l.a, 0));
        T_OK(pysock_send_buf(l.a, queued));
        T_CHECK(pysock_queued(l.a) > 0);
        T_FAILS(pysock_sendmsg(l.a, &iov, 1, NULL, 0, 0, NULL), PYSOCK_OS_ERROR, EAGAIN);
        T_OK(pysock_setblocking(l.a, 1));
        T_FAILS(pysock_sendmsg(l.a, &iov, 1, NULL, 0, MSG_DONTWAIT, NULL), PYSOCK_OS_ERROR,
                EAGAIN);
        T_OK(pysock_settimeout(l.a, 0.05));
        T_FAILS(pysock_sendmsg(l.a, &iov, 1, NULL, 0, 0, NULL), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
        T_OK(pysock_setblocking(l.a, 1));
        b.s = l.b;
        b.size = SIZE;
        b.data = in;
        t_spawn(&t, read_all_thread, &b);
        T_EQ(pysock_sendmsg(l.a, &iov, 1, NULL, 0, 0, NULL), 5);
        t_join(&t);
        t_verify(in, SIZE, 0, 5);
        t_expect(l.b, "after");
        T_EQ(pysock_queued(l.a), 0);
        channel_close(&l);
    }
    pysock_buf_release(queued);
}

T_TEST(a_dead_peer_is_EPIPE_and_no_signal, 60) {
    FOR_EACH_KIND_OF(kind, UNIX_SEQPACKET, TCP) {
        for (int mode = 0; mode < MODES; mode++) {
            struct iovec iov = iov_of("x", 1);
            channel l;
            channel_make(&l, kind);
            channel_mode(&l, mode);
            T_OK(pysock_shutdown(l.a, SHUT_WR));
            T_FAILS(pysock_sendmsg(l.a, &iov, 1, NULL, 0, 0, NULL), PYSOCK_OS_ERROR, EPIPE);
            T_CHECK(strcmp(pysock_error_name(), "BrokenPipeError") == 0);
            T_FAILS(pysock_send_fds(l.a, "x", 1, NULL, 0, 0), PYSOCK_OS_ERROR, EPIPE);
            channel_close(&l);
        }
    }
}

/* ---- wrong use ---- */

T_TEST(recvmsg_refuses_what_makes_no_sense, 30) {
    channel l;
    pysock_msg msg;
    struct iovec iov[2];
    char buf[64], control[64];
    size_t count = 1;
    int fd, flags;
    channel_make(&l, UDP4);
    send_bytes(&l, MSG, MSG_LEN);
    memset(&msg, 0, sizeof msg);
    T_FAILS(pysock_recvmsg(l.b, NULL, 1, &msg, 0), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_recvmsg(l.b, buf, (size_t)-1, &msg, 0), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_recvmsg(l.b, buf, sizeof buf, NULL, 0), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_recvmsg(NULL, buf, sizeof buf, &msg, 0), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_recvmsg_into(l.b, NULL, 1, &msg, 0), PYSOCK_VALUE_ERROR, EINVAL);
    iov[0] = iov_of(buf, 1);
    iov[1] = iov_of(NULL, 1);
    T_FAILS(pysock_recvmsg_into(l.b, iov, 2, &msg, 0), PYSOCK_VALUE_ERROR, EINVAL);
    iov[1] = iov_of(buf, PTRDIFF_MAX);
    T_FAILS(pysock_recvmsg_into(l.b, iov, 2, &msg, 0), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_recvmsg_into(l.b, iov, 1, NULL, 0), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_recvmsg_into(l.b, iov, (size_t)-1 / sizeof iov[0], &msg, 0), T_ANY, T_ANY);
    T_FAILS(pysock_recvmsg_into(NULL, iov, 1, &msg, 0), PYSOCK_VALUE_ERROR, EINVAL);
    msg.controllen = 1; /* without memory */
    T_FAILS(pysock_recvmsg(l.b, buf, sizeof buf, &msg, 0), PYSOCK_VALUE_ERROR, EINVAL);
    msg.control = control;
    msg.controllen = (size_t)-1;
    T_FAILS(pysock_recvmsg(l.b, buf, sizeof buf, &msg, 0), T_ANY, T_ANY);
    T_FAILS(pysock_recv_fds(l.b, buf, sizeof buf, &fd, NULL, 0, &flags), PYSOCK_VALUE_ERROR,
            EINVAL);
    T_FAILS(pysock_recv_fds(l.b, buf, sizeof buf, NULL, &count, 0, &flags), PYSOCK_VALUE_ERROR,
            EINVAL);
    T_FAILS(pysock_recv_fds(l.b, NULL, 1, &fd, &count, 0, &flags), PYSOCK_VALUE_ERROR, EINVAL);
    count = (size_t)-1;
    T_FAILS(pysock_recv_fds(l.b, buf, sizeof buf, &fd, &count, 0, &flags), PYSOCK_VALUE_ERROR,
            EINVAL);
    T_STEP("the message is still there");
    memset(&msg, 0, sizeof msg);
    T_EQ(pysock_recvmsg(l.b, buf, sizeof buf, &msg, 0), MSG_LEN);
    T_OK(pysock_close(l.b));
    count = 1;
    T_FAILS(pysock_recvmsg(l.b, buf, sizeof buf, &msg, 0), PYSOCK_OS_ERROR, EBADF);
    T_FAILS(pysock_recvmsg_into(l.b, iov, 1, &msg, 0), PYSOCK_OS_ERROR, EBADF);
    T_FAILS(pysock_recv_fds(l.b, buf, sizeof buf, &fd, &count, 0, &flags), PYSOCK_OS_ERROR, EBADF);
    T_OK(pysock_close(l.a));
}

T_TEST(sendmsg_refuses_what_makes_no_sense, 30) {
    channel l;
    struct iovec iov[2];
    pysock_cmsg items[2];
    pysock_addr addr;
    int fd = 0;
    channel_make(&l, UDP4);
    memset(items, 0, sizeof items);
    iov[0] = iov_of("x", 1);
    iov[1] = iov_of(NULL, 1);
    T_FAILS(pysock_sendmsg(NULL, iov, 1, NULL, 0, 0, l.to), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_sendmsg(l.a, NULL, 1, NULL, 0, 0, l.to), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_sendmsg(l.a, iov, 2, NULL, 0, 0, l.to), PYSOCK_VALUE_ERROR, EINVAL);
    iov[1] = iov_of("x", PTRDIFF_MAX);
    T_FAILS(pysock_sendmsg(l.a, iov, 2, NULL, 0, 0, l.to), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_sendmsg(l.a, iov, 1, NULL, 1, 0, l.to), PYSOCK_VALUE_ERROR, EINVAL);
    addr = l.at_b;
    addr.len = 100000;
    T_FAILS(pysock_sendmsg(l.a, iov, 1, NULL, 0, 0, &addr), PYSOCK_VALUE_ERROR, EINVAL);
    T_STEP("items");
    items[0].size = 4; /* without data */
    T_FAILS(pysock_sendmsg(l.a, iov, 1, items, 1, 0, l.to), PYSOCK_VALUE_ERROR, EINVAL);
    items[0].data = "data";
    T_FAILS(pysock_sendmsg(l.a, iov, 1, items, 1, 0, l.to), PYSOCK_OS_ERROR, EINVAL);
    items[0].size = (size_t)-1;
    T_FAILS(pysock_sendmsg(l.a, iov, 1, items, 1, 0, l.to), PYSOCK_VALUE_ERROR, EINVAL);
    items[0].size = (size_t)-1 - 32;
    T_FAILS(pysock_sendmsg(l.a, iov, 1, items, 1, 0, l.to), PYSOCK_VALUE_ERROR, EINVAL);
    items[0].size = INT32_MAX;
    T_FAILS(pysock_sendmsg(l.a, iov, 1, items, 1, 0, l.to), PYSOCK_VALUE_ERROR, EINVAL);
    items[0].size = items[1].size = INT32_MAX / 2;
    items[1].data = "data";
    T_FAILS(pysock_sendmsg(l.a, iov, 1, items, 2, 0, l.to), PYSOCK_VALUE_ERROR, EINVAL);
    items[0].size = 0;
    items[1].size = (size_t)-1 - 15;
    T_FAILS(pysock_sendmsg(l.a, iov, 1, items, 2, 0, l.to), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_send_fds(l.a, NULL, 1, &fd, 1, 0), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_send_fds(l.a, "x", 1, NULL, 1, 0), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_send_fds(l.a, "x", 1, &fd, (size_t)-1, 0), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_send_fds(NULL, "x", 1, &fd, 1, 0), PYSOCK_VALUE_ERROR, EINVAL);
    T_STEP("nothing was sent");
    send_bytes(&l, MSG, MSG_LEN);
    {
        pysock_msg msg;
        memset(&msg, 0, sizeof msg);
        expect_msg(&l, WHOLE, &msg, 0);
    }
    T_OK(pysock_close(l.a));
    T_FAILS(pysock_sendmsg(l.a, iov, 1, NULL, 0, 0, l.to), PYSOCK_OS_ERROR, EBADF);
    T_FAILS(pysock_send_fds(l.a, "x", 1, &fd, 1, 0), PYSOCK_OS_ERROR, EBADF);
    T_OK(pysock_close(l.b));
}

static int denied;

static int deny_sendmsg(void *arg, const pysock_audit_event *event) {
    const channel *l = arg;
    if (strcmp(event->name, "socket.sendmsg") != 0)
        return 0;
    T_CHECK(event->socket == l->a);
    T_CHECK(!event->addr == !l->to);
    denied++;
    return 1;
}

T_TEST(the_audit_hook_can_deny_a_sendmsg, 30) {
    FOR_EACH_KIND(kind) {
        struct iovec iov = iov_of(MSG, MSG_LEN);
        pysock_msg msg;
        channel l;
        channel_make(&l, kind);
        denied = 0;
        pysock_set_audit_hook(deny_sendmsg, &l);
        T_FAILS(pysock_sendmsg(l.a, &iov, 1, NULL, 0, 0, l.to), PYSOCK_OS_ERROR, EACCES);
        T_EQ(denied, 1);
        pysock_set_audit_hook(NULL, NULL);
        send_bytes(&l, MSG, MSG_LEN);
        memset(&msg, 0, sizeof msg);
        expect_msg(&l, WHOLE, &msg, 0);
        channel_close(&l);
    }
}

/* ---- the sizes of ancillary data ---- */

#define LIMIT ((size_t)INT32_MAX) /* CPython's: the smallest that a socklen_t may hold */

static void expect_too_big(size_t have) {
    T_EQ(have, 0);
    T_EQ(pysock_error(), PYSOCK_VALUE_ERROR);
    T_CHECK(pysock_error_message()[0]);
    pysock_error_clear();
}

T_TEST(cmsg_len_is_CMSG_LEN, 30) {
    size_t toobig = LIMIT - CMSG_LEN(0) + 1;
    T_CHECK(pysock_cmsg_len(0) > 2 * sizeof(int));
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
    size_t toobig = LIMIT - CMSG_SPACE(1) + 1, last = pysock_cmsg_space(0);
    T_CHECK(last > 2 * sizeof(int));
    pysock_error_clear();
    for (size_t n = 0; n < 2 * 257; n++) {
        size_t size = n < 257 ? n : toobig - (2 * 257 - n);
        T_EQ(pysock_cmsg_space(size), CMSG_SPACE(size));
        T_CHECK(pysock_cmsg_space(size) >= last);
        T_CHECK(pysock_cmsg_space(size) >= CMSG_LEN(size));
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
    msg->controllen = size;
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
    msg.controllen = 100; /* of nothing */
    T_EQ(pysock_msg_next(&msg, &item), 0);
    put_item(control, 0, 0, 4, 4);
    msg.control = control;
    msg.controllen = 0;
    T_EQ(pysock_msg_next(&msg, &item), 0);
}

/* ---- ancillary data of IP ---- */

typedef struct found {
    int level, type;
    size_t size;
    unsigned char data[64];
} found;

static size_t collect(const pysock_msg *msg, found *list, size_t max) {
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
static void expect_data(const pysock_msg *msg, int level, int type, void *data, size_t size) {
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

static int int_of(const pysock_msg *msg, int level, int type) {
    int value = -1;
    expect_data(msg, level, type, &value, sizeof value);
    return value;
}

static pysock_cmsg item_of(int level, int type, const void *data, size_t size) {
    pysock_cmsg item;
    item.level = level;
    item.type = type;
    item.data = data;
    item.size = size;
    return item;
}

static void receive_with_room(channel *l, int way, pysock_msg *msg, void *control, size_t room) {
    memset(msg, 0, sizeof *msg);
    msg->control = control;
    msg->controllen = room;
    expect_msg(l, way, msg, 0);
    expect_sender(l, msg);
    T_EQ(msg->flags & MSG_CTRUNC, 0);
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

/* Sends MSG and receives it with every size of control memory, at every alignment: what comes is
   the beginning of the whole, MSG_CTRUNC tells that it was cut, nothing behind it is touched. */
static void cut_at_every_length(channel *l, const pysock_msg *whole) {
    found want[16], have[16];
    size_t want_n = collect(whole, want, 16), complete = 0;
    for (size_t room = 0; room <= whole->controllen + 9; room++) {
        for (size_t off = 0; off < 3; off++) {
            char *memory = T_OK(malloc(room + off + 8));
            size_t have_n, full = 0;
            pysock_msg msg;
            T_STEP("room for %zu bytes, %zu off", room, off);
            memset(memory, 0xee, room + off + 8);
            memset(&msg, 0, sizeof msg);
            msg.control = memory + off;
            msg.controllen = room;
            send_bytes(l, MSG, MSG_LEN);
            expect_msg(l, (int)(room % WAYS), &msg, 0);
            T_CHECK(msg.controllen <= room);
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
            if (room >= whole->controllen) {
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
        T_EQ(msg.controllen, 0);
        T_EQ(msg.flags & MSG_CTRUNC, MSG_CTRUNC);
    }
    send_bytes(&l, MSG, MSG_LEN);
    T_EQ(pysock_recv(l.b, buf, sizeof buf, 0), MSG_LEN);
    send_bytes(&l, MSG, MSG_LEN);
    T_EQ(pysock_recvfrom(l.b, buf, sizeof buf, 0, NULL), MSG_LEN);
    channel_close(&l);
}

/* ---- descriptors ---- */

/* How many descriptors are open, the library's own for waiting among them. */
static int fds_at_rest(void) {
    pysock *pair[2];
    char byte;
    T_OK(pysock_socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
    T_EQ(t_readable(pair[0], 0), 0);
    T_OK(pysock_settimeout(pair[0], 0.001));
    T_FAILS(pysock_recv(pair[0], &byte, 1, 0), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    t_close_pair(pair);
    return t_count_fds();
}

/* Files that hold their numbers. */
static void new_fds(int *fds, int n) {
    for (int i = 0; i < n; i++) {
        char text[16];
        int len = snprintf(text, sizeof text, "%d", i);
        fds[i] = memfd_create("pysock-test", MFD_CLOEXEC);
        if (fds[i] < 0 || write(fds[i], text, (size_t)len) != len)
            T_FAIL("a file in memory: %s", strerror(errno));
    }
}

static void close_fds(const int *fds, int n) {
    for (int i = 0; i < n; i++)
        T_EQ(close(fds[i]), 0);
}

static void expect_number(int fd, int number) {
    char text[16] = "";
    T_CHECK(fd >= 0);
    T_CHECK(pread(fd, text, sizeof text - 1, 0) > 0);
    T_EQ(strtol(text, NULL, 10), number);
}

/* Takes the descriptors out of a message's items, of at most max_items, all whole; returns how
   many. They hold numbers from 0 on. They are closed here. */
static int take_fds(const pysock_msg *msg, int max_items, int partial, int cloexec) {
    pysock_cmsg item;
    int n = 0, items = 0;
    memset(&item, 0, sizeof item);
    while (pysock_msg_next(msg, &item)) {
        T_CHECK(++items <= max_items);
        T_EQ(item.level, SOL_SOCKET);
        T_EQ(item.type, SCM_RIGHTS);
        if (!partial)
            T_EQ(item.size % sizeof(int), 0);
        for (size_t i = 0; i < item.size / sizeof(int); i++) {
            int fd;
            memcpy(&fd, (const char *)item.data + i * sizeof fd, sizeof fd);
            expect_number(fd, n++);
            T_EQ(!!(fcntl(fd, F_GETFD) & FD_CLOEXEC), cloexec);
            close(fd);
        }
    }
    return n;
}

static void send_rights(channel *l, const int *fds, int n) {
    pysock_cmsg item = item_of(SOL_SOCKET, SCM_RIGHTS, fds, (size_t)n * sizeof *fds);
    send_with(l, &item, 1);
}

#define FOR_EACH_UNIX_KIND(kind) FOR_EACH_KIND_OF(kind, UNIX_DGRAM, UNIX_STREAM)

T_TEST(descriptors_are_passed_by_hand, 60) {
    static const struct {
        int n;
        size_t room;
    } cases[] = {{1, 10240}, {4, 10240}, {4, CMSG_SPACE(4 * sizeof(int))},
                 {1, CMSG_LEN(4 * sizeof(int))}, {4, CMSG_LEN(4 * sizeof(int))}};
    static char control[10240];
    int fds[4], open_fds;
    open_fds = fds_at_rest();
    new_fds(fds, 4);
    FOR_EACH_UNIX_KIND(kind) {
        for (int i = 0; i < 5 * WAYS * MODES * 2; i++) {
            channel l;
            pysock_msg msg;
            int cloexec = i & 1;
            int n = cases[i / 2 % 5].n;
            channel_make(&l, kind);
            channel_mode(&l, i / 10 % MODES);
            send_rights(&l, fds, n);
            memset(&msg, 0, sizeof msg);
            msg.control = control;
            msg.controllen = cases[i / 2 % 5].room;
            expect_msg(&l, i / 30 % WAYS, &msg, cloexec ? MSG_CMSG_CLOEXEC : 0);
            expect_sender(&l, &msg);
            T_EQ(msg.flags & MSG_CTRUNC, 0);
            T_EQ(take_fds(&msg, 1, 0, cloexec), n);
            channel_close(&l);
        }
    }
    close_fds(fds, 4);
    T_EQ(t_count_fds(), open_fds);
}

/* The kernel may join the arrays of one message. */
T_TEST(descriptors_may_come_in_several_items, 60) {
    char control[256];
    int fds[2], open_fds;
    open_fds = fds_at_rest();
    new_fds(fds, 2);
    FOR_EACH_UNIX_KIND(kind) {
        for (int least = 0; least < 2; least++) {
            pysock_cmsg items[2];
            channel l;
            pysock_msg msg;
            channel_make(&l, kind);
            items[0] = item_of(SOL_SOCKET, SCM_RIGHTS, &fds[0], sizeof fds[0]);
            items[1] = item_of(SOL_SOCKET, SCM_RIGHTS, &fds[1], sizeof fds[1]);
            send_with(&l, items, 2);
            memset(&msg, 0, sizeof msg);
            msg.control = control;
            msg.controllen = least ? CMSG_SPACE(sizeof(int)) + CMSG_LEN(2 * sizeof(int))
                                   : sizeof control;
            expect_msg(&l, WHOLE, &msg, MSG_CMSG_CLOEXEC);
            T_EQ(take_fds(&msg, 2, 0, 1), 2);
            channel_close(&l);
        }
    }
    close_fds(fds, 2);
    T_EQ(t_count_fds(), open_fds);
}

/* Arrays that are empty, or no whole number of descriptors: the kernel may refuse them; what comes
   is never a descriptor that was not sent. */
T_TEST(arrays_of_no_whole_number_pass_nothing_strange, 60) {
    char control[256];
    int fds[2], bad = -0x5555, open_fds;
    open_fds = fds_at_rest();
    new_fds(fds, 2);
    FOR_EACH_UNIX_KIND(kind) {
        for (int i = 0; i < 4; i++) {
            struct iovec iov = iov_of(MSG, MSG_LEN);
            int middle[2] = {fds[0], bad};
            pysock_cmsg items[2];
            size_t n = 1;
            channel l;
            pysock_msg msg;
            channel_make(&l, kind);
            if (i == 0) {
                items[0] = item_of(SOL_SOCKET, SCM_RIGHTS, NULL, 0);
            } else if (i == 1) {
                items[0] = item_of(SOL_SOCKET, SCM_RIGHTS, "", 0);
            } else if (i == 2) {
                items[0] = item_of(SOL_SOCKET, SCM_RIGHTS, &bad, sizeof bad - 1);
            } else {
                items[0] = item_of(SOL_SOCKET, SCM_RIGHTS, middle, sizeof middle - 1);
                items[1] = item_of(SOL_SOCKET, SCM_RIGHTS, &fds[1], sizeof fds[1]);
                n = 2;
            }
            if (pysock_sendmsg(l.a, &iov, 1, items, n, 0, l.to) < 0) {
                T_EQ(pysock_error(), PYSOCK_OS_ERROR);
                send_bytes(&l, MSG, MSG_LEN);
            }
            memset(&msg, 0, sizeof msg);
            msg.control = control;
            msg.controllen = sizeof control;
            expect_msg(&l, WHOLE, &msg, MSG_CMSG_CLOEXEC);
            T_CHECK(take_fds(&msg, (int)n, 1, 1) <= (i == 3 ? 2 : 0));
            channel_close(&l);
        }
    }
    close_fds(fds, 2);
    T_EQ(t_count_fds(), open_fds);
}

T_TEST(bad_descriptors_and_too_many_are_refused, 60) {
    enum { MOST = 253 }; /* Linux's SCM_MAX_FD */
    int fds[MOST + 1], got[MOST + 1], bad = -0x5555, open_fds, flags;
    size_t count;
    open_fds = fds_at_rest();
    new_fds(fds, 1);
    for (int i = 1; i <= MOST; i++)
        fds[i] = fds[0];
    FOR_EACH_UNIX_KIND(kind) {
        struct iovec iov = iov_of("x", 1);
        char byte;
        pysock_cmsg item;
        channel l;
        channel_make(&l, kind);
        if (l.to)
            T_OK(pysock_connect_addr(l.a, l.to));
        T_FAILS(pysock_send_fds(l.a, "x", 1, &bad, 1, 0), PYSOCK_OS_ERROR, EBADF);
        T_FAILS(pysock_send_fds(l.a, "x", 1, fds, MOST + 1, 0), T_ANY, EINVAL);
        item = item_of(SOL_SOCKET, SCM_RIGHTS, fds, sizeof fds);
        T_FAILS(pysock_sendmsg(l.a, &iov, 1, &item, 1, 0, NULL), T_ANY, EINVAL);
        T_EQ(t_readable(l.b, 0), 0);
        T_EQ(pysock_send_fds(l.a, "x", 1, fds, MOST, 0), 1);
        count = MOST + 1;
        T_EQ(pysock_recv_fds(l.b, &byte, 1, got, &count, 0, &flags), 1);
        T_EQ(count, MOST);
        T_EQ(flags & MSG_CTRUNC, 0);
        for (int i = 0; i < MOST; i++) {
            expect_number(got[i], 0);
            close(got[i]);
        }
        channel_close(&l);
    }
    close_fds(fds, 1);
    T_EQ(t_count_fds(), open_fds);
}

/* By hand, with every size of room: those that came are whole and right, none is lost open. */
T_TEST(descriptors_are_cut_at_any_length_and_none_is_lost, 60) {
    int fds[3], open_fds;
    open_fds = fds_at_rest();
    new_fds(fds, 3);
    FOR_EACH_UNIX_KIND(kind) {
        int last = 0;
        for (size_t room = 0; room <= CMSG_SPACE(4 * sizeof(int)); room++) {
            char *memory = T_OK(malloc(room + 1));
            channel l;
            pysock_msg msg;
            int n;
            T_STEP("%s, room for %zu bytes", kind_names[kind], room);
            channel_make(&l, kind);
            send_rights(&l, fds, 3);
            memset(&msg, 0, sizeof msg);
            msg.control = memory;
            msg.controllen = room;
            expect_msg(&l, (int)(room % WAYS), &msg, MSG_CMSG_CLOEXEC);
            n = take_fds(&msg, 1, 1, 1);
            T_CHECK(n >= last && n <= 3);
            if (room < CMSG_LEN(sizeof(int)))
                T_EQ(n, 0);
            else if (room < CMSG_LEN(2 * sizeof(int)))
                T_EQ(n, 1);
            T_EQ(msg.flags & MSG_CTRUNC, n < 3 ? MSG_CTRUNC : 0);
            last = n;
            channel_close(&l);
            free(memory);
            T_EQ(t_count_fds(), open_fds + 3);
        }
        T_EQ(last, 3);
    }
    close_fds(fds, 3);
    T_EQ(t_count_fds(), open_fds);
}

/* recv and recvfrom have nowhere to put descriptors: the kernel closes them. */
T_TEST(descriptors_that_nobody_asks_for_are_closed, 30) {
    int fds[2], open_fds;
    open_fds = fds_at_rest();
    new_fds(fds, 2);
    FOR_EACH_UNIX_KIND(kind) {
        char buf[64];
        pysock_addr from;
        channel l;
        channel_make(&l, kind);
        send_rights(&l, fds, 2);
        T_EQ(pysock_recv(l.b, buf, sizeof buf, 0), MSG_LEN);
        send_rights(&l, fds, 2);
        T_EQ(pysock_recvfrom(l.b, buf, sizeof buf, 0, &from), MSG_LEN);
        send_rights(&l, fds, 2); /* never received */
        channel_close(&l);
    }
    close_fds(fds, 2);
    T_EQ(t_count_fds(), open_fds);
}

T_TEST(send_fds_and_recv_fds_pass_open_files, 60) {
    enum { N = 10 };
    int open_fds;
    open_fds = fds_at_rest();
    FOR_EACH_UNIX_KIND(kind) {
        for (int mode = 0; mode < MODES; mode++) {
            int pipes[N][2], fds[N], got[2 * N + 1], flags = -1;
            char buf[2 * MSG_LEN], text[8];
            size_t count = 2 * N;
            channel l;
            channel_make(&l, kind);
            channel_mode(&l, mode);
            if (l.to)
                T_OK(pysock_connect_addr(l.a, l.to));
            for (int i = 0; i < N; i++) {
                T_EQ(pipe(pipes[i]), 0);
                fds[i] = pipes[i][0];
            }
            memset(got, 0x77, sizeof got);
            T_EQ(pysock_send_fds(l.a, MSG, MSG_LEN, fds, N, 0), MSG_LEN);
            T_EQ(pysock_recv_fds(l.b, buf, sizeof buf, got, &count, 0, &flags), MSG_LEN);
            T_CHECK(memcmp(buf, MSG, MSG_LEN) == 0);
            T_EQ(count, N);
            T_EQ(flags & (MSG_TRUNC | MSG_CTRUNC | MSG_OOB), 0);
            T_EQ(got[N], 0x77777777);
            for (int i = 0; i < N; i++) {
                T_CHECK(fcntl(got[i], F_GETFD) & FD_CLOEXEC);
                T_EQ(snprintf(text, sizeof text, "%d", i), 1);
                T_EQ(write(pipes[i][1], text, 1), 1);
            }
            for (int i = 0; i < N; i++) {
                memset(text, 0, sizeof text);
                T_EQ(read(got[i], text, sizeof text), 1);
                T_EQ(text[0], '0' + i);
                T_EQ(close(got[i]) | close(pipes[i][0]) | close(pipes[i][1]), 0);
            }
            channel_close(&l);
        }
    }
    T_EQ(t_count_fds(), open_fds);
}

/* Room for fewer: exactly so many come, the others are closed, and that is told. CMSG_SPACE's
   padding has room for a descriptor more than was asked for. */
T_TEST(recv_fds_closes_what_does_not_fit, 60) {
    enum { N = 5 };
    int fds[N], open_fds;
    open_fds = fds_at_rest();
    new_fds(fds, N);
    FOR_EACH_UNIX_KIND(kind) {
        for (int sent = 0; sent <= N; sent++) {
            for (int room = 0; room <= N + 1; room++) {
                int got[N + 2], flags = -1, want = sent < room ? sent : room;
                char byte;
                size_t count = (size_t)room;
                channel l;
                T_STEP("%s, %d sent, room for %d", kind_names[kind], sent, room);
                channel_make(&l, kind);
                if (l.to)
                    T_OK(pysock_connect_addr(l.a, l.to));
                T_EQ(pysock_send_fds(l.a, "x", 1, sent ? fds : NULL, (size_t)sent, 0), 1);
                memset(got, 0x77, sizeof got);
                T_EQ(pysock_recv_fds(l.b, &byte, 1, room ? got : NULL, &count, 0, &flags), 1);
                T_EQ(byte, 'x');
                T_EQ(count, want);
                T_EQ(flags & MSG_CTRUNC, sent > room ? MSG_CTRUNC : 0);
                for (int i = 0; i < want; i++) {
                    expect_number(got[i], i);
                    T_CHECK(fcntl(got[i], F_GETFD) & FD_CLOEXEC);
                    close(got[i]);
                }
                T_EQ(got[want], 0x77777777);
                channel_close(&l);
                T_EQ(t_count_fds(), open_fds + N);
            }
        }
    }
    close_fds(fds, N);
    T_EQ(t_count_fds(), open_fds);
}

/* On a stream the bytes that came with descriptors are not mixed with those of others. */
T_TEST(descriptors_stay_with_their_bytes, 30) {
    int fds[2], got[4], open_fds, flags;
    char buf[16];
    size_t count;
    open_fds = fds_at_rest();
    new_fds(fds, 2);
    for (int peek = 0; peek < 2; peek++) {
        channel l;
        channel_make(&l, UNIX_STREAM);
        T_EQ(pysock_send_fds(l.a, "ab", 2, &fds[0], 1, 0), 2);
        T_EQ(pysock_send_fds(l.a, "cd", 2, &fds[1], 1, 0), 2);
        for (int i = 0; i < 2; i++) {
            if (peek) { /* that gives descriptors of their own */
                count = 4;
                T_EQ(pysock_recv_fds(l.b, buf, sizeof buf, got, &count, MSG_PEEK, NULL), 2);
                T_EQ(count, 1);
                expect_number(got[0], i);
                close(got[0]);
            }
            count = 4;
            T_EQ(pysock_recv_fds(l.b, buf, sizeof buf, got, &count, 0, &flags), 2);
            T_CHECK(memcmp(buf, i ? "cd" : "ab", 2) == 0);
            T_EQ(count, 1);
            expect_number(got[0], i);
            close(got[0]);
        }
        channel_close(&l);
    }
    close_fds(fds, 2);
    T_EQ(t_count_fds(), open_fds);
}

T_TEST(an_empty_datagram_may_carry_descriptors, 30) {
    int fds[1], got[2], open_fds;
    size_t count = 2;
    channel l;
    open_fds = fds_at_rest();
    new_fds(fds, 1);
    channel_make(&l, UNIX_DGRAM);
    {
        struct iovec iov = iov_of(NULL, 0);
        pysock_cmsg item = item_of(SOL_SOCKET, SCM_RIGHTS, fds, sizeof fds);
        T_EQ(pysock_sendmsg(l.a, &iov, 1, &item, 1, 0, l.to), 0);
    }
    T_EQ(pysock_recv_fds(l.b, NULL, 0, got, &count, 0, NULL), 0);
    T_EQ(count, 1);
    expect_number(got[0], 0);
    close(got[0]);
    channel_close(&l);
    close_fds(fds, 1);
    T_EQ(t_count_fds(), open_fds);
}

static void child_has_no_room(void *arg) {
    int got[4], flags = 0, spare[2];
    size_t count = 4;
    struct rlimit limit;
    char byte;
    for (int i = 0; i < 2; i++)
        T_CHECK((spare[i] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0);
    T_EQ(close(spare[0]) | close(spare[1]), 0);
    T_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = (rlim_t)spare[1] + 1;
    T_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    T_EQ(pysock_recv_fds(arg, &byte, 1, got, &count, 0, &flags), 1);
    T_EQ(count, 2);
    T_EQ(flags & MSG_CTRUNC, MSG_CTRUNC);
    expect_number(got[0], 0);
    expect_number(got[1], 1);
}

/* A process that may not have more descriptors open gets those that it may. */
T_TEST(a_process_without_room_gets_what_it_can_hold, 30) {
    int fds[4];
    channel l;
    new_fds(fds, 4);
    channel_make(&l, UNIX_STREAM);
    T_EQ(pysock_send_fds(l.a, "x", 1, fds, 4, 0), 1);
    t_wait_for_child(t_run_in_child(child_has_no_room, l.b, 0));
    channel_close(&l);
    close_fds(fds, 4);
}

static void child_writes_where_it_is_told(void *arg) {
    int fd = -1, flags;
    size_t count = 1;
    char buf[16];
    T_EQ(t_readable(arg, PYSOCK_NO_TIMEOUT), 1);
    T_EQ(pysock_recv_fds(arg, buf, sizeof buf, &fd, &count, 0, &flags), 5);
    T_EQ(count, 1);
    T_EQ(write(fd, buf, 5), 5);
    T_EQ(close(fd), 0);
}

T_TEST(descriptors_are_passed_to_a_child, 60) {
    FOR_EACH_UNIX_KIND(kind) {
        for (int mode = 0; mode < MODES; mode++) {
            int fds[2];
            char buf[8];
            channel l;
            pid_t pid;
            channel_make(&l, kind);
            channel_mode(&l, mode);
            if (l.to)
                T_OK(pysock_connect_addr(l.a, l.to));
            pid = t_run_in_child(child_writes_where_it_is_told, l.b, mode & 1);
            T_EQ(pipe(fds), 0); /* which the child did not inherit */
            T_EQ(pysock_send_fds(l.a, "write", 5, &fds[1], 1, 0), 5);
            T_EQ(close(fds[1]), 0);
            T_EQ(t_raw_read(-1, buf, 0), 0);
            T_EQ(read(fds[0], buf, sizeof buf), 5);
            T_CHECK(memcmp(buf, "write", 5) == 0);
            T_EQ(read(fds[0], buf, sizeof buf), 0);
            t_wait_for_child(pid);
            close(fds[0]);
            channel_close(&l);
        }
    }
}

T_TEST(a_passed_socket_can_be_adopted, 30) {
    pysock *pair[2], *adopted;
    int fd, got = -1;
    size_t count = 1;
    char byte;
    channel l;
    channel_make(&l, UNIX_STREAM);
    t_pair(pair);
    fd = pysock_fileno(pair[0]);
    T_EQ(pysock_send_fds(l.a, "x", 1, &fd, 1, 0), 1);
    T_EQ(pysock_recv_fds(l.b, &byte, 1, &got, &count, 0, NULL), 1);
    T_EQ(count, 1);
    T_CHECK(got != fd);
    adopted = T_OK(pysock_adopt(got, -1, -1, -1));
    T_EQ(pysock_family(adopted), AF_INET);
    T_EQ(pysock_type(adopted), SOCK_STREAM);
    t_say(adopted, "passed on");
    t_expect(pair[1], "passed on");
    T_OK(pysock_close(adopted));
    t_close_pair(pair);
    channel_close(&l);
}

/* ---- credentials ---- */

static void expect_credentials(const pysock_msg *msg, pid_t pid) {
    struct ucred who;
    memset(&who, 0xee, sizeof who);
    expect_data(msg, SOL_SOCKET, SCM_CREDENTIALS, &who, sizeof who);
    T_EQ(who.pid, pid);
    T_EQ(who.uid, getuid());
    T_EQ(who.gid, getgid());
}

T_TEST(credentials_come_where_they_are_asked_for, 60) {
    char control[256];
    FOR_EACH_UNIX_KIND(kind) {
        for (int i = 0; i < MODES * WAYS; i++) {
            struct ucred me;
            pysock_cmsg item;
            pysock_msg msg;
            channel l;
            channel_make(&l, kind);
            channel_mode(&l, i / WAYS);
            memset(&me, 0, sizeof me);
            me.pid = getpid();
            me.uid = getuid();
            me.gid = getgid();
            item = item_of(SOL_SOCKET, SCM_CREDENTIALS, &me, sizeof me);
            T_STEP("not asked for");
            send_with(&l, &item, 1);
            receive_with_room(&l, i % WAYS, &msg, control, sizeof control);
            T_EQ(count_items(&msg), 0);
            T_STEP("from the kernel");
            T_OK(pysock_setsockopt_int(l.b, SOL_SOCKET, SO_PASSCRED, 1));
            send_bytes(&l, MSG, MSG_LEN);
            memset(&msg, 0, sizeof msg);
            msg.control = control;
            msg.controllen = sizeof control;
            expect_msg(&l, i % WAYS, &msg, 0);
            T_EQ(count_items(&msg), 1);
            expect_credentials(&msg, getpid());
            T_STEP("by hand");
            send_with(&l, &item, 1);
            msg.controllen = CMSG_SPACE(sizeof me);
            expect_msg(&l, i % WAYS, &msg, 0);
            T_EQ(msg.flags & MSG_CTRUNC, 0);
            expect_credentials(&msg, getpid());
            T_STEP("cut off");
            send_with(&l, &item, 1);
            msg.controllen = CMSG_LEN(sizeof me) - 1;
            expect_msg(&l, i % WAYS, &msg, 0);
            T_EQ(msg.flags & MSG_CTRUNC, MSG_CTRUNC);
            T_CHECK(count_items(&msg) <= 1);
            item.size--;
            {
                struct iovec iov = iov_of(MSG, MSG_LEN);
                T_FAILS(pysock_sendmsg(l.a, &iov, 1, &item, 1, 0, l.to), PYSOCK_OS_ERROR, EINVAL);
            }
            channel_close(&l);
        }
    }
}

T_TEST(credentials_and_descriptors_come_together, 30) {
    char control[256], byte;
    int fds[2], open_fds, got[2], flags = 0;
    size_t count = 2;
    open_fds = fds_at_rest();
    new_fds(fds, 2);
    FOR_EACH_UNIX_KIND(kind) {
        pysock_msg msg;
        pysock_cmsg item;
        int rights = 0;
        channel l;
        channel_make(&l, kind);
        T_OK(pysock_setsockopt_int(l.b, SOL_SOCKET, SO_PASSCRED, 1));
        send_rights(&l, fds, 2);
        receive_with_room(&l, WHOLE, &msg, control, sizeof control);
        T_EQ(count_items(&msg), 2);
        expect_credentials(&msg, getpid());
        memset(&item, 0, sizeof item);
        while (pysock_msg_next(&msg, &item)) {
            if (item.type != SCM_RIGHTS)
                continue;
            T_EQ(item.size, sizeof got);
            memcpy(got, item.data, sizeof got);
            rights++;
        }
        T_EQ(rights, 1);
        expect_number(got[0], 0);
        expect_number(got[1], 1);
        close_fds(got, 2);
        T_STEP("%s: where credentials take the room, nothing is lost silently", kind_names[kind]);
        if (l.to)
            T_OK(pysock_connect_addr(l.a, l.to));
        T_EQ(pysock_send_fds(l.a, "x", 1, fds, 2, 0), 1);
        count = 2;
        T_EQ(pysock_recv_fds(l.b, &byte, 1, got, &count, 0, &flags), 1);
        T_CHECK(count <= 2);
        T_EQ(!!(flags & MSG_CTRUNC), count < 2);
        close_fds(got, (int)count);
        channel_close(&l);
    }
    close_fds(fds, 2);
    T_EQ(t_count_fds(), open_fds);
}

static void child_says_who_it_is(void *arg) {
    T_EQ(pysock_send(arg, MSG, MSG_LEN, 0), MSG_LEN);
}

T_TEST(credentials_tell_the_child_from_the_parent, 30) {
    char control[256];
    pysock_msg msg;
    channel l;
    pid_t pid;
    channel_make(&l, UNIX_STREAM);
    T_OK(pysock_setsockopt_int(l.b, SOL_SOCKET, SO_PASSCRED, 1));
    pid = t_run_in_child(child_says_who_it_is, l.a, 0);
    receive_with_room(&l, WHOLE, &msg, control, sizeof control);
    expect_credentials(&msg, pid);
    t_wait_for_child(pid);
    send_bytes(&l, MSG, MSG_LEN);
    receive_with_room(&l, WHOLE, &msg, control, sizeof control);
    expect_credentials(&msg, getpid());
    channel_close(&l);
}

/* ---- flags ---- */

enum { RECV, RECV_INTO, RECVFROM, RECVFROM_INTO, RECVMSG, RECVMSG_INTO, RECV_FDS, RECEIVERS };

static const char *const receiver_names[RECEIVERS] = {
    "recv", "recv_into", "recvfrom", "recvfrom_into", "recvmsg", "recvmsg_into", "recv_fds"};

static ptrdiff_t receive_by(int call, pysock *s, void *buf, size_t size, int flags) {
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
static ptrdiff_t send_by(int call, pysock *s, const void *data, size_t size, int flags) {
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

T_TEST(what_is_not_there_is_EAGAIN_or_a_timeout, 60) {
    FOR_EACH_KIND(kind) {
        channel l;
        char byte;
        channel_make(&l, kind);
        for (int call = 0; call < RECEIVERS; call++) {
            double start = t_now();
            T_STEP("%s, %s", kind_names[kind], receiver_names[call]);
            T_OK(pysock_setblocking(l.b, 0));
            T_FAILS(receive_by(call, l.b, &byte, 1, 0), PYSOCK_OS_ERROR, EAGAIN);
            T_CHECK(strcmp(pysock_error_name(), "BlockingIOError") == 0);
            T_OK(pysock_settimeout(l.b, 0.03));
            T_FAILS(receive_by(call, l.b, &byte, 1, 0), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
            T_CHECK(strcmp(pysock_error_name(), "TimeoutError") == 0);
            T_CHECK(t_now() - start >= 0.025);
        }
        channel_close(&l);
    }
}

/* Blocking and timed sockets too; the watchdog ends a call that waits. */
T_TEST(MSG_DONTWAIT_never_waits_to_receive, 30) {
    FOR_EACH_KIND(kind) {
        channel l;
        char buf[MSG_LEN];
        channel_make(&l, kind);
        for (int mode = 0; mode < MODES; mode++) {
            channel_mode(&l, mode);
            for (int call = 0; call < RECEIVERS; call++) {
                T_STEP("%s, %s, mode %d", kind_names[kind], receiver_names[call], mode);
                T_FAILS(receive_by(call, l.b, buf, sizeof buf, MSG_DONTWAIT), PYSOCK_OS_ERROR,
                        EAGAIN);
                T_FAILS(receive_by(call, l.b, buf, sizeof buf, MSG_DONTWAIT | MSG_PEEK),
                        PYSOCK_OS_ERROR, EAGAIN);
                send_bytes(&l, MSG, MSG_LEN);
                T_EQ(t_readable(l.b, PYSOCK_NO_TIMEOUT), 1);
                T_EQ(receive_by(call, l.b, buf, sizeof buf, MSG_DONTWAIT), MSG_LEN);
            }
        }
        channel_close(&l);
    }
}

T_TEST(MSG_DONTWAIT_never_waits_to_send, 60) {
    static const char chunk[4096];
    FOR_EACH_KIND_OF(kind, UNIX_DGRAM, TCP) {
        for (int i = 0; i < MODES * SENDERS; i++) {
            channel l;
            int sent = 0;
            T_STEP("%s, %s, mode %d", kind_names[kind], sender_names[i % SENDERS], i / SENDERS);
            channel_make(&l, kind);
            channel_mode(&l, i / SENDERS);
            if (l.to)
                T_OK(pysock_connect_addr(l.a, l.to));
            while (send_by(i % SENDERS, l.a, chunk, sizeof chunk, MSG_DONTWAIT) > 0)
                T_CHECK(++sent < 1000000);
            T_EQ(errno, EAGAIN);
            T_EQ(pysock_error(), PYSOCK_OS_ERROR);
            T_CHECK(sent > 0);
            T_EQ(pysock_queued(l.a), 0);
            channel_close(&l);
        }
    }
}

typedef struct wait_all {
    int call;
    pysock *s;
    char buf[16];
    ptrdiff_t result;
    double took;
} wait_all;

static void *wait_all_thread(void *arg) {
    wait_all *w = arg;
    double start = t_now();
    w->result = receive_by(w->call, w->s, w->buf, 6, MSG_WAITALL);
    w->took = t_now() - start;
    return NULL;
}

/* The bytes come in two pieces, or one piece and the end of the stream. */
static void wait_for_all(int kind, int call, double timeout, int ends) {
    wait_all w;
    t_thread t;
    channel l;
    T_STEP("%s, %s, timeout %g%s", kind_names[kind], receiver_names[call], timeout,
           ends ? ", and an end" : "");
    channel_make(&l, kind);
    T_OK(pysock_settimeout(l.b, timeout));
    memset(&w, 0, sizeof w);
    w.call = call;
    w.s = l.b;
    t_spawn(&t, wait_all_thread, &w);
    t_wait_asleep(&t);
    send_bytes(&l, "abc", 3);
    t_wait_asleep(&t);
    if (ends)
        T_OK(pysock_shutdown(l.a, SHUT_WR));
    else
        send_bytes(&l, "def", 3);
    t_join(&t);
    T_EQ(w.result, ends ? 3 : 6);
    T_CHECK(memcmp(w.buf, "abcdef", ends ? 3 : 6) == 0);
    channel_close(&l);
}

T_TEST(MSG_WAITALL_waits_for_all_or_the_end, 60) {
    FOR_EACH_KIND_OF(kind, UNIX_STREAM, TCP) {
        for (int ends = 0; ends < 2; ends++) {
            for (int call = 0; call < RECEIVERS; call++)
                if (!T_HAS_O_NONBLOCK(PYSOCK_NO_TIMEOUT) || call == RECV || call == RECV_INTO)
                    wait_for_all(kind, call, PYSOCK_NO_TIMEOUT, ends);
            wait_for_all(kind, RECV, 50, ends);
            wait_for_all(kind, RECV_INTO, 50, ends);
        }
    }
}

/* What has come is not lost when the deadline comes before the rest; nothing at all is a timeout.
   */
T_TEST(MSG_WAITALL_ends_at_the_deadline, 60) {
    FOR_EACH_KIND_OF(kind, UNIX_STREAM, TCP) {
        for (int call = RECV; call <= RECV_INTO; call++) {
            channel l;
            wait_all w;
            channel_make(&l, kind);
            T_OK(pysock_settimeout(l.b, 0.1));
            send_bytes(&l, "abc", 3);
            T_EQ(t_readable(l.b, PYSOCK_NO_TIMEOUT), 1);
            memset(&w, 0, sizeof w);
            w.call = call;
            w.s = l.b;
            wait_all_thread(&w);
            T_EQ(w.result, 3);
            T_CHECK(memcmp(w.buf, "abc", 3) == 0);
            T_CHECK(w.took >= 0.09);
            T_FAILS(receive_by(call, l.b, w.buf, 6, MSG_WAITALL), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
            channel_close(&l);
        }
    }
}

/* Where nothing may wait MSG_WAITALL asks for nothing: as in the kernel. */
T_TEST(MSG_WAITALL_takes_what_is_there_without_blocking, 60) {
    FOR_EACH_KIND_OF(kind, UNIX_STREAM, TCP) {
        channel l;
        char buf[8];
        channel_make(&l, kind);
        for (int mode = 0; mode < MODES; mode++) {
            int flags = modes[mode] == 0 ? MSG_WAITALL : MSG_WAITALL | MSG_DONTWAIT;
            channel_mode(&l, mode);
            for (int call = 0; call < RECEIVERS; call++) {
                T_STEP("%s, %s, mode %d", kind_names[kind], receiver_names[call], mode);
                send_bytes(&l, "abc", 3);
                T_EQ(t_readable(l.b, PYSOCK_NO_TIMEOUT), 1);
                T_EQ(receive_by(call, l.b, buf, 6, flags), 3);
                T_CHECK(memcmp(buf, "abc", 3) == 0);
                T_FAILS(receive_by(call, l.b, buf, 6, flags), PYSOCK_OS_ERROR, EAGAIN);
            }
        }
        channel_close(&l);
    }
}

/* On TCP MSG_TRUNC throws bytes away unseen; on other streams it means nothing. */
T_TEST(MSG_TRUNC_on_a_tcp_socket_discards, 30) {
    channel l;
    char buf[16];
    channel_make(&l, TCP);
    for (int mode = 0; mode < MODES; mode++) {
        channel_mode(&l, mode);
        for (int call = 0; call < RECEIVERS; call++) {
            T_EQ(pysock_send(l.a, "0123456789", 10, 0), 10);
            T_EQ(t_readable(l.b, PYSOCK_NO_TIMEOUT), 1);
            memset(buf, '.', sizeof buf);
            T_EQ(receive_by(call, l.b, buf, 4, MSG_TRUNC), 4);
            T_CHECK(memcmp(buf, "....", 4) == 0);
            t_expect(l.b, "456789");
        }
    }
    channel_close(&l);
}

static int is_exceptional(pysock *s, double timeout) {
    int fd = T_OK(pysock_fileno(s));
    size_t n = 1;
    return T_OK(pysock_select(NULL, NULL, NULL, NULL, &fd, &n, timeout)) == 1;
}

T_TEST(urgent_data_is_told_apart, 60) {
    for (int i = 0; i < MODES * RECEIVERS; i++) {
        channel l;
        pysock_poller *p, *all;
        pysock_pollevent event;
        char byte;
        int fd;
        T_STEP("mode %d, %s", i / RECEIVERS, receiver_names[i % RECEIVERS]);
        channel_make(&l, TCP);
        channel_mode(&l, i / RECEIVERS);
        fd = pysock_fileno(l.b);
        p = t_poller_with(fd, POLLPRI);
        all = t_poller_with(fd, POLLIN | POLLPRI);
        T_FAILS(receive_by(i % RECEIVERS, l.b, &byte, 1, MSG_OOB), PYSOCK_OS_ERROR, EINVAL);
        T_EQ(is_exceptional(l.b, 0), 0);
        t_say(l.a, "before");
        T_EQ(send_by(i % SENDERS, l.a, "!", 1, MSG_OOB), 1);
        T_EQ(is_exceptional(l.b, PYSOCK_NO_TIMEOUT), 1);
        T_EQ(t_readable(l.b, PYSOCK_NO_TIMEOUT), 1);
        T_EQ(pysock_poller_poll(p, &event, 1, PYSOCK_NO_TIMEOUT), 1);
        T_EQ(event.events, POLLPRI);
        T_EQ(pysock_poller_poll(all, &event, 1, PYSOCK_NO_TIMEOUT), 1);
        T_EQ(event.events, POLLIN | POLLPRI);
        byte = 0;
        T_EQ(receive_by(i % RECEIVERS, l.b, &byte, 1, MSG_OOB), 1);
        T_EQ(byte, '!');
        T_FAILS(receive_by(i % RECEIVERS, l.b, &byte, 1, MSG_OOB), PYSOCK_OS_ERROR, EINVAL);
        T_EQ(is_exceptional(l.b, 0), 0);
        T_EQ(pysock_poller_poll(p, &event, 1, 0), 0);
        T_EQ(pysock_poller_poll(all, &event, 1, 0), 1);
        T_EQ(event.events, POLLIN);
        t_expect(l.b, "before");
        T_EQ(t_readable(l.b, 0), 0);
        pysock_poller_free(p);
        pysock_poller_free(all);
        channel_close(&l);
    }
}

T_TEST(recvmsg_says_that_data_is_urgent, 30) {
    channel l;
    pysock_msg msg;
    char buf[8];
    channel_make(&l, TCP);
    for (int way = 0; way < WAYS; way++) {
        T_EQ(pysock_send(l.a, "!", 1, MSG_OOB), 1);
        T_EQ(is_exceptional(l.b, PYSOCK_NO_TIMEOUT), 1);
        memset(&msg, 0, sizeof msg);
        T_EQ(receive(way, l.b, buf, sizeof buf, &msg, MSG_OOB), 1);
        T_EQ(msg.flags & MSG_OOB, MSG_OOB);
        t_say(l.a, "x");
        T_EQ(receive(way, l.b, buf, sizeof buf, &msg, 0), 1);
        T_EQ(msg.flags & MSG_OOB, 0);
    }
    channel_close(&l);
}

T_TEST(urgent_data_may_come_in_line, 30) {
    for (int mode = 0; mode < MODES; mode++) {
        channel l;
        char byte;
        channel_make(&l, TCP);
        channel_mode(&l, mode);
        T_OK(pysock_setsockopt_int(l.b, SOL_SOCKET, SO_OOBINLINE, 1));
        t_say(l.a, "before");
        T_EQ(pysock_send(l.a, "!", 1, MSG_OOB), 1);
        t_say(l.a, "after");
        T_EQ(is_exceptional(l.b, PYSOCK_NO_TIMEOUT), 1);
        T_FAILS(pysock_recv(l.b, &byte, 1, MSG_OOB), PYSOCK_OS_ERROR, EINVAL);
        t_expect(l.b, "before!after");
        T_EQ(is_exceptional(l.b, 0), 0);
        channel_close(&l);
    }
}

typedef struct urgent_wait {
    pysock *s;
    pysock_poller *p;
    pysock_pollevent event;
    ptrdiff_t result;
} urgent_wait;

static void *urgent_thread(void *arg) {
    urgent_wait *u = arg;
    int fd = pysock_fileno(u->s);
    size_t n = 1;
    u->result = u->p ? pysock_poller_poll(u->p, &u->event, 1, PYSOCK_NO_TIMEOUT)
                     : pysock_select(NULL, NULL, NULL, NULL, &fd, &n, PYSOCK_NO_TIMEOUT);
    return NULL;
}

/* What is not urgent does not end the wait for what is. */
T_TEST(urgent_data_ends_a_wait_for_it, 30) {
    for (int i = 0; i < 2; i++) {
        urgent_wait u;
        t_thread t;
        channel l;
        channel_make(&l, TCP);
        memset(&u, 0, sizeof u);
        u.s = l.b;
        if (i)
            u.p = t_poller_with(pysock_fileno(l.b), POLLPRI);
        t_spawn(&t, urgent_thread, &u);
        t_wait_asleep(&t);
        t_say(l.a, "patience");
        t_wait_asleep(&t);
        T_EQ(pysock_send(l.a, "!", 1, MSG_OOB), 1);
        t_join(&t);
        T_EQ(u.result, 1);
        pysock_poller_free(u.p);
        channel_close(&l);
    }
}

T_TEST(MSG_ERRQUEUE_never_waits, 30) {
    if (T_MACOS_LIKE)
        skip(); /* there is no such flag */
    for (int kind = UDP4; kind <= TCP; kind++) {
        channel l;
        char buf[64];
        if ((kind == UDP6 && !t_has_ipv6()) || (kind != UDP4 && kind != UDP6 && kind != TCP))
            continue; /* Unix sockets have no such queue, and do not look at the flag */
        channel_make(&l, kind);
        for (int mode = 0; mode < MODES; mode++) {
            channel_mode(&l, mode);
            for (int call = 0; call < RECEIVERS; call++) {
                T_STEP("%s, %s, mode %d", kind_names[kind], receiver_names[call], mode);
                T_FAILS(receive_by(call, l.b, buf, sizeof buf, MSG_ERRQUEUE), PYSOCK_OS_ERROR,
                        EAGAIN);
            }
        }
        channel_close(&l);
    }
}

#ifdef HAVE_ERRQUEUE

/* A socket with IP_RECVERR that has sent "lost" where nobody listens (and nobody can, while deaf is
   open), and has been told. */
static pysock *sender_with_an_error(pysock **deaf, pysock_addr *to) {
    pysock *s = bound(UDP4);
    *deaf = bound(UDP4);
    *to = t_addr_of(*deaf);
    T_OK(pysock_connect_addr(*deaf, to)); /* it hears but itself */
    T_OK(pysock_setsockopt_int(s, IPPROTO_IP, IP_RECVERR, 1));
    T_EQ(pysock_sendto_addr(s, "lost", 4, 0, to), 4);
    T_EQ(t_readable(s, PYSOCK_NO_TIMEOUT), 1);
    return s;
}

T_TEST(the_error_queue_tells_what_was_lost, 30) {
    for (int i = 0; i < MODES * WAYS; i++) {
        char control[256], buf[16];
        struct {
            struct sock_extended_err error;
            struct sockaddr_in offender;
        } what;
        pysock_poller *p;
        pysock_pollevent event;
        pysock_addr to;
        pysock_msg msg;
        pysock *deaf, *s = sender_with_an_error(&deaf, &to);
        T_OK(pysock_settimeout(s, modes[i / WAYS]));
        p = t_poller_with(pysock_fileno(s), POLLIN);
        T_EQ(pysock_poller_poll(p, &event, 1, 0), 1);
        T_CHECK(event.events & POLLERR);
        memset(&msg, 0, sizeof msg);
        msg.control = control;
        msg.controllen = sizeof control;
        T_EQ(receive(i % WAYS, s, buf, sizeof buf, &msg, MSG_ERRQUEUE), 4);
        T_CHECK(memcmp(buf, "lost", 4) == 0);
        T_EQ(msg.flags & MSG_ERRQUEUE, MSG_ERRQUEUE);
        T_EQ(msg.addr.len, to.len); /* where it was to go */
        T_EQ(pysock_addr_port(&msg.addr), pysock_addr_port(&to));
        expect_data(&msg, IPPROTO_IP, IP_RECVERR, &what, sizeof what);
        T_EQ(what.error.ee_errno, ECONNREFUSED);
        T_EQ(what.error.ee_origin, SO_EE_ORIGIN_ICMP);
        T_EQ(ntohl(what.offender.sin_addr.s_addr), INADDR_LOOPBACK);
        T_FAILS(receive(i % WAYS, s, buf, sizeof buf, &msg, MSG_ERRQUEUE), PYSOCK_OS_ERROR,
                EAGAIN);
        T_EQ(pysock_poller_poll(p, &event, 1, 0), 0);
        pysock_poller_free(p);
        T_OK(pysock_close(s));
        T_OK(pysock_close(deaf));
    }
}

typedef struct idle {
    pysock *s;
    ptrdiff_t result;
    int code;
    double cpu;
} idle;

static void *idle_thread(void *arg) {
    idle *w = arg;
    double start = t_thread_cpu();
    char byte;
    w->result = pysock_recv(w->s, &byte, 1, 0);
    w->code = errno;
    w->cpu = t_thread_cpu() - start;
    return NULL;
}

/* While the error queue has something poll(2) says POLLERR at once, whatever it is asked; a recv
   that waits for a datagram need not spin, and its deadline holds. */
T_TEST(an_error_queue_that_nobody_reads_makes_no_call_spin, 30) {
    for (int timed = 1; timed >= 0; timed--) {
        pysock_addr to, at;
        pysock *deaf, *s = sender_with_an_error(&deaf, &to), *other = bound(UDP4);
        char byte;
        idle w;
        t_thread t;
        T_STEP(timed ? "timed" : "blocking");
        at = t_addr_of(s);
        T_FAILS(pysock_recv(s, &byte, 1, 0), PYSOCK_OS_ERROR, ECONNREFUSED);
        memset(&w, 0, sizeof w);
        w.s = s;
        if (timed) {
            double start = t_now();
            T_OK(pysock_settimeout(s, 0.4));
            t_spawn(&t, idle_thread, &w);
            t_join(&t);
            T_EQ(w.result, -1);
            T_EQ(w.code, ETIMEDOUT);
            T_CHECK(t_now() - start >= 0.39);
        } else {
            t_spawn(&t, idle_thread, &w);
            t_nap(0.4); /* the time over which it is measured */
            T_EQ(pysock_sendto_addr(other, "x", 1, 0, &at), 1);
            t_join(&t);
            T_EQ(w.result, 1);
        }
        T_CHECK(w.cpu < 0.2);
        T_OK(pysock_close(s));
        T_OK(pysock_close(deaf));
        T_OK(pysock_close(other));
    }
}

#else

T_TEST(the_error_queue_tells_what_was_lost, 30) {
    print_message("compiled without linux/errqueue.h: skipped\n");
    skip();
}

T_TEST(an_error_queue_that_nobody_reads_makes_no_call_spin, 30) {
    print_message("compiled without linux/errqueue.h: skipped\n");
    skip();
}

#endif

/* The kernel keeps what comes with MSG_MORE, and sends it with what comes without. */
T_TEST(MSG_MORE_joins_what_follows, 60) {
    FOR_EACH_KIND(kind) {
        if (kind >= UNIX_DGRAM && kind <= UNIX_STREAM)
            continue; /* takes the flag for nothing */
        for (int i = 0; i < MODES * SENDERS; i++) {
            channel l;
            char buf[16];
            int call = i % SENDERS;
            T_STEP("%s, %s, mode %d", kind_names[kind], sender_names[call], i / SENDERS);
            channel_make(&l, kind);
            channel_mode(&l, i / SENDERS);
            if (l.to)
                T_OK(pysock_connect_addr(l.a, l.to));
            T_EQ(send_by(call, l.a, "ab", 2, MSG_MORE), 2);
            T_EQ(send_by(call, l.a, "cd", 2, MSG_MORE), 2);
            T_EQ(send_by(call, l.a, "ef", 2, 0), 2);
            if (kind == TCP) {
                t_expect(l.b, "abcdef");
            } else {
                T_EQ(t_readable(l.b, PYSOCK_NO_TIMEOUT), 1);
                T_EQ(pysock_recv(l.b, buf, sizeof buf, 0), 6);
                T_CHECK(memcmp(buf, "abcdef", 6) == 0);
            }
            channel_close(&l);
        }
    }
}

T_TEST(MSG_EOR_and_MSG_NOSIGNAL_are_taken, 60) {
    FOR_EACH_KIND(kind) {
        for (int call = 0; call < SENDERS; call++) {
            channel l;
            pysock_msg msg;
            channel_make(&l, kind);
            if (l.to)
                T_OK(pysock_connect_addr(l.a, l.to));
            T_EQ(send_by(call, l.a, MSG, MSG_LEN, MSG_EOR | MSG_NOSIGNAL), MSG_LEN);
            memset(&msg, 0, sizeof msg);
            expect_msg(&l, INTO, &msg, 0);
            channel_close(&l);
        }
    }
}

/* ---- TLS has no messages ---- */

static void expect_no_messages(pysock *s) {
    struct iovec iov = iov_of("x", 1);
    pysock_addr addr;
    pysock_msg msg;
    char buf[8];
    int fd = 0;
    size_t count = 1;
    T_OK(pysock_addr_parse(&addr, "127.0.0.1:9"));
    memset(&msg, 0, sizeof msg);
    for (int flags = 0; flags <= MSG_PEEK; flags += MSG_PEEK) {
        T_FAILS(pysock_recvfrom(s, buf, 1, flags, &addr), PYSOCK_OS_ERROR, ENOTSUP);
        T_CHECK(strstr(pysock_error_message(), "TLS") != NULL);
        T_FAILS(pysock_recvfrom_into(s, buf, 1, flags, NULL), PYSOCK_OS_ERROR, ENOTSUP);
        T_FAILS(pysock_recvmsg(s, buf, 1, &msg, flags), PYSOCK_OS_ERROR, ENOTSUP);
        iov = iov_of(buf, 1);
        T_FAILS(pysock_recvmsg_into(s, &iov, 1, &msg, flags), PYSOCK_OS_ERROR, ENOTSUP);
        T_FAILS(pysock_recv_fds(s, buf, 1, &fd, &count, flags, NULL), PYSOCK_OS_ERROR, ENOTSUP);
    }
    T_OK(pysock_addr_parse(&addr, "127.0.0.1:9"));
    T_FAILS(pysock_sendto(s, "x", 1, 0, "127.0.0.1", 9), PYSOCK_OS_ERROR, ENOTSUP);
    T_FAILS(pysock_sendto(s, "x", 1, 0, "localhost", 9), PYSOCK_OS_ERROR, ENOTSUP);
    T_FAILS(pysock_sendto_addr(s, "x", 1, 0, &addr), PYSOCK_OS_ERROR, ENOTSUP);
    iov = iov_of("x", 1);
    T_FAILS(pysock_sendmsg(s, &iov, 1, NULL, 0, 0, NULL), PYSOCK_OS_ERROR, ENOTSUP);
    T_FAILS(pysock_sendmsg(s, &iov, 1, NULL, 0, 0, &addr), PYSOCK_OS_ERROR, ENOTSUP);
    fd = 0;
    T_FAILS(pysock_send_fds(s, "x", 1, &fd, 1, 0), PYSOCK_OS_ERROR, ENOTSUP);
    T_FAILS(pysock_send_fds(s, "x", 1, NULL, 0, 0), PYSOCK_OS_ERROR, ENOTSUP);
}

T_TEST(tls_sockets_have_no_messages, 60) {
    pysock *pair[2], *s;
    int port;
    for (int local = 0; local < 2; local++) {
        for (int mode = 0; mode < MODES; mode++) {
            T_STEP("%s, mode %d", local ? "over a Unix socket" : "over TCP", mode);
            if (local)
                t_tls_local_pair(pair, client_ctx, server_ctx);
            else
                t_tls_pair(pair, client_ctx, server_ctx);
            for (int i = 0; i < 2; i++) {
                T_OK(pysock_settimeout(pair[i], modes[mode]));
                expect_no_messages(pair[i]);
            }
            t_say(pair[0], "still a stream");
            T_EQ(t_readable(pair[1], PYSOCK_NO_TIMEOUT), 1);
            expect_no_messages(pair[1]);
            t_expect(pair[1], "still a stream");
            t_close_pair(pair);
        }
    }
    T_STEP("before the handshake");
    t_pair(pair);
    t_wrap_later(pair[0], client_ctx, "localhost");
    expect_no_messages(pair[0]);
    t_close_pair(pair);
    T_STEP("before the connection");
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_ssl_wrap_socket(s, client_ctx, "localhost"));
    expect_no_messages(s);
    T_OK(pysock_close(s));
    T_STEP("listening");
    s = t_listen(&port);
    T_OK(pysock_ssl_wrap_socket(s, server_ctx, NULL));
    expect_no_messages(s);
    T_OK(pysock_close(s));
}

static void *unwrap_thread(void *arg) {
    T_EQ(pysock_ssl_unwrap(arg), 0);
    return NULL;
}

T_TEST(after_tls_the_messages_are_back, 60) {
    pysock *pair[2];
    pysock_msg msg;
    struct iovec iov = iov_of("plain", 5);
    char buf[16];
    t_thread t;
    t_tls_local_pair(pair, client_ctx, server_ctx);
    t_spawn(&t, unwrap_thread, pair[1]);
    T_OK(pysock_ssl_unwrap(pair[0]));
    t_join(&t);
    T_EQ(pysock_sendmsg(pair[0], &iov, 1, NULL, 0, 0, NULL), 5);
    memset(&msg, 0, sizeof msg);
    T_EQ(pysock_recvmsg(pair[1], buf, sizeof buf, &msg, 0), 5);
    t_close_pair(pair);
}

T_TEST(tls_sockets_take_no_flag_but_MSG_PEEK, 60) {
    static const int to_receive[] = {MSG_OOB,      MSG_WAITALL,  MSG_DONTWAIT,
                                     MSG_TRUNC,    MSG_ERRQUEUE, MSG_PEEK | MSG_WAITALL,
                                     MSG_NOSIGNAL, MSG_EOR,      MSG_PEEK | MSG_DONTWAIT};
    static const int to_send[] = {MSG_OOB, MSG_PEEK,     MSG_DONTWAIT,  MSG_MORE,
                                  MSG_EOR, MSG_NOSIGNAL, MSG_DONTROUTE, MSG_OOB | MSG_PEEK};
    for (int mode = 0; mode < MODES; mode++) {
        pysock *pair[2];
        char buf[16];
        t_tls_pair(pair, client_ctx, server_ctx);
        T_OK(pysock_settimeout(pair[0], modes[mode]));
        T_OK(pysock_settimeout(pair[1], modes[mode]));
        t_say(pair[0], "hello");
        T_EQ(t_readable(pair[1], PYSOCK_NO_TIMEOUT), 1);
        for (size_t i = 0; i < sizeof to_receive / sizeof to_receive[0]; i++) {
            T_STEP("mode %d, receiving with 0x%x", mode, (unsigned int)to_receive[i]);
            T_FAILS(pysock_recv(pair[1], buf, sizeof buf, to_receive[i]), PYSOCK_VALUE_ERROR,
                    EINVAL);
            T_CHECK(strstr(pysock_error_message(), "flag") != NULL);
            T_FAILS(pysock_recv_into(pair[1], buf, sizeof buf, to_receive[i]), PYSOCK_VALUE_ERROR,
                    EINVAL);
        }
        for (size_t i = 0; i < sizeof to_send / sizeof to_send[0]; i++) {
            T_STEP("mode %d, sending with 0x%x", mode, (unsigned int)to_send[i]);
            T_FAILS(pysock_send(pair[1], "x", 1, to_send[i]), PYSOCK_VALUE_ERROR, EINVAL);
            T_CHECK(strstr(pysock_error_message(), "flag") != NULL);
            T_FAILS(pysock_sendall(pair[1], "x", 1, to_send[i]), PYSOCK_VALUE_ERROR, EINVAL);
        }
        t_expect(pair[1], "hello");
        t_say(pair[1], "back");
        t_expect(pair[0], "back");
        t_close_pair(pair);
    }
}

T_TEST(tls_sockets_can_be_peeked_at, 60) {
    for (int mode = 0; mode < MODES; mode++) {
        pysock *pair[2];
        char buf[16];
        t_tls_pair(pair, client_ctx, server_ctx);
        if (mode > 0) {
            T_OK(pysock_settimeout(pair[1], mode == 1 ? 0.03 : 0));
            T_FAILS(pysock_recv(pair[1], buf, sizeof buf, MSG_PEEK),
                    mode == 1 ? PYSOCK_TIMEOUT_ERROR : PYSOCK_OS_ERROR,
                    mode == 1 ? ETIMEDOUT : EAGAIN);
        }
        T_OK(pysock_settimeout(pair[1], modes[mode]));
        t_say(pair[0], "look twice");
        T_EQ(t_readable(pair[1], PYSOCK_NO_TIMEOUT), 1);
        T_EQ(pysock_recv(pair[1], buf, 4, MSG_PEEK), 4);
        T_CHECK(memcmp(buf, "look", 4) == 0);
        for (int i = 0; i < 2; i++) {
            memset(buf, 0, sizeof buf);
            T_EQ(pysock_recv_into(pair[1], buf, sizeof buf, MSG_PEEK), 10);
            T_CHECK(memcmp(buf, "look twice", 10) == 0);
            T_EQ(t_readable(pair[1], 0), 1);
        }
        t_expect(pair[1], "look");
        T_EQ(pysock_recv(pair[1], buf, sizeof buf, MSG_PEEK), 6);
        t_expect(pair[1], " twice");
        T_OK(pysock_shutdown(pair[0], SHUT_WR));
        T_EQ(t_readable(pair[1], PYSOCK_NO_TIMEOUT), 1);
        for (int i = 0; i < 2; i++)
            T_EQ(pysock_recv(pair[1], buf, sizeof buf, MSG_PEEK), 0);
        T_EQ(pysock_recv(pair[1], buf, sizeof buf, 0), 0);
        t_close_pair(pair);
    }
}

/* ---- waits, and their ends ---- */

typedef struct job {
    int receiver, sender; /* the other is -1 */
    pysock *s;
    int done;    /* atomic */
    int partial; /* the call before the last one sent less than it was given */
    ptrdiff_t result;
    int code;
    pysock_error_kind kind;
    double took;
} job;

static void *job_thread(void *arg) {
    static const char chunk[4096];
    job *j = arg;
    char buf[64];
    double start = t_now();
    if (j->receiver >= 0)
        j->result = receive_by(j->receiver, j->s, buf, sizeof buf, 0);
    else
        while ((j->result = send_by(j->sender, j->s, chunk, sizeof chunk, 0)) > 0)
            j->partial = j->result < (ptrdiff_t)sizeof chunk;
    j->code = errno;
    j->kind = pysock_error();
    j->took = t_now() - start;
    __atomic_store_n(&j->done, 1, __ATOMIC_RELEASE);
    return NULL;
}

/* Every call that may wait on this kind of socket: number i; 0: there are no more. */
static int job_set(job *j, channel *l, int i) {
    int senders = l->kind >= UNIX_DGRAM ? SENDERS : 0;
    memset(j, 0, sizeof *j);
    if (i >= RECEIVERS + senders)
        return 0;
    j->receiver = i < RECEIVERS ? i : -1;
    j->sender = i < RECEIVERS ? -1 : i - RECEIVERS;
    j->s = i < RECEIVERS ? l->b : l->a;
    if (i >= RECEIVERS && l->to)
        T_OK(pysock_connect_addr(l->a, l->to));
    T_STEP("%s, %s", kind_names[l->kind],
           i < RECEIVERS ? receiver_names[j->receiver] : sender_names[j->sender]);
    return 1;
}

static void expect_ended(const job *j, int code) {
    T_EQ(j->result, -1);
    T_EQ(j->code, code);
    T_EQ(j->kind, PYSOCK_OS_ERROR);
}

T_TEST(a_close_ends_every_call_that_waits, 120) {
    FOR_EACH_KIND(kind) {
        for (int mode = 0; mode < 2; mode++) {
            for (int i = 0;; i++) {
                channel l;
                job j;
                t_thread t;
                int more;
                channel_make(&l, kind);
                channel_mode(&l, mode);
                more = job_set(&j, &l, i);
                if (more) {
                    t_spawn(&t, job_thread, &j);
                    t_wait_asleep(&t);
                    T_OK(pysock_close(j.s));
                    t_join(&t);
                    expect_ended(&j, EBADF);
                }
                channel_close(&l);
                if (!more)
                    break;
            }
        }
    }
}

T_TEST(a_cleanup_ends_every_call_that_waits, 120) {
    FOR_EACH_KIND(kind) {
        for (int mode = 0; mode < 2; mode++) {
            channel l[RECEIVERS + SENDERS];
            job j[RECEIVERS + SENDERS];
            t_thread t[RECEIVERS + SENDERS];
            int n = 0;
            for (; n < RECEIVERS + SENDERS; n++) {
                channel_make(&l[n], kind);
                channel_mode(&l[n], mode);
                if (!job_set(&j[n], &l[n], n))
                    break;
                t_spawn(&t[n], job_thread, &j[n]);
                t_wait_asleep(&t[n]);
            }
            pysock_cleanup();
            for (int i = 0; i < n; i++) {
                t_join(&t[i]);
                T_STEP("%s, call %d, after the cleanup", kind_names[kind], i);
                /* a send that had sent something told that; the next met what cleanup does */
                expect_ended(&j[i], j[i].partial ? j[i].code : ESHUTDOWN);
            }
        }
    }
}

static int hook_answer;

T_TEST(the_interrupt_hook_ends_every_call_that_waits, 120) {
    t_catch_signal(SIGUSR1);
    __atomic_store_n(&hook_answer, 1, __ATOMIC_RELEASE);
    pysock_set_interrupt_hook(t_interrupt_hook, &hook_answer);
    FOR_EACH_KIND(kind) {
        for (int mode = 0; mode < 2; mode++) {
            for (int i = 0;; i++) {
                channel l;
                job j;
                t_thread t;
                int more;
                channel_make(&l, kind);
                channel_mode(&l, mode);
                more = job_set(&j, &l, i);
                if (more) {
                    t_spawn(&t, job_thread, &j);
                    t_wait_asleep(&t);
                    while (!__atomic_load_n(&j.done, __ATOMIC_ACQUIRE)) {
                        /* the first may end a send that has sent something, and tells how much */
                        (void)pthread_kill(t.id, SIGUSR1);
                        t_nap(0.005);
                    }
                    t_join(&t);
                    expect_ended(&j, EINTR);
                }
                channel_close(&l);
                if (!more)
                    break;
            }
        }
    }
    pysock_set_interrupt_hook(NULL, NULL);
}

/* PEP 475: signals that nobody minds neither end a call nor give it more time. */
T_TEST(a_timeout_is_one_deadline_for_each_call, 120) {
    t_catch_signal(SIGUSR1);
    __atomic_store_n(&hook_answer, 0, __ATOMIC_RELEASE);
    FOR_EACH_KIND(kind) {
        for (int i = 0;; i++) {
            channel l;
            job j;
            t_thread t;
            double start;
            channel_make(&l, kind);
            if (!job_set(&j, &l, i)) {
                channel_close(&l);
                break;
            }
            pysock_set_interrupt_hook(i & 1 ? t_interrupt_hook : NULL, &hook_answer);
            if (j.sender >= 0) { /* until it is full, so that one call takes all the time */
                while (send_by(j.sender == SENDALL ? SEND : j.sender, l.a, "fills", 5,
                               MSG_DONTWAIT) > 0)
                    ;
                T_EQ(errno, EAGAIN);
            }
            T_OK(pysock_settimeout(j.s, 0.08));
            start = t_now();
            t_spawn(&t, job_thread, &j);
            while (!__atomic_load_n(&t.tid, __ATOMIC_ACQUIRE))
                t_nap(0.001);
            while (t_now() - start < 0.05) {
                (void)pthread_kill(t.id, SIGUSR1);
                t_nap(0.01);
            }
            t_join(&t);
            T_EQ(j.result, -1);
            T_EQ(j.kind, PYSOCK_TIMEOUT_ERROR);
            T_EQ(j.code, ETIMEDOUT);
            T_CHECK(j.took >= 0.07 && j.took < 20);
            channel_close(&l);
        }
    }
    pysock_set_interrupt_hook(NULL, NULL);
}

/* ---- threads ---- */

enum { SENDING = 3, EACH = 200 };

static void *sendmsg_thread(void *arg) {
    struct iovec iov[3];
    static char bytes[3] = {'a', 'b', 'c'};
    static int next;
    char mine = bytes[__atomic_fetch_add(&next, 1, __ATOMIC_ACQ_REL) % SENDING];
    char part[3][7];
    channel *l = arg;
    memset(part, mine, sizeof part);
    for (int i = 0; i < 3; i++)
        iov[i] = iov_of(part[i], sizeof part[i]);
    for (int i = 0; i < EACH; i++)
        T_EQ(pysock_sendmsg(l->a, iov, 3, NULL, 0, 0, NULL), sizeof part);
    return NULL;
}

/* However many threads send on one socket, each message's buffers stay together. */
T_TEST(messages_of_several_threads_do_not_mix, 60) {
    FOR_EACH_KIND_OF(kind, UNIX_DGRAM, UNIX_SEQPACKET) {
        for (int mode = 0; mode < 2; mode++) {
            t_thread t[SENDING];
            int seen[SENDING] = {0};
            channel l;
            channel_make(&l, kind);
            channel_mode(&l, mode);
            if (l.to)
                T_OK(pysock_connect_addr(l.a, l.to));
            for (int i = 0; i < SENDING; i++)
                t_spawn(&t[i], sendmsg_thread, &l);
            for (int i = 0; i < SENDING * EACH; i++) {
                pysock_msg msg;
                char buf[64];
                memset(&msg, 0, sizeof msg);
                T_EQ(receive(i % WAYS, l.b, buf, sizeof buf, &msg, 0), 21);
                for (int k = 1; k < 21; k++)
                    T_EQ(buf[k], buf[0]);
                seen[buf[0] - 'a']++;
            }
            for (int i = 0; i < SENDING; i++) {
                t_join(&t[i]);
                T_EQ(seen[i], EACH);
            }
            channel_close(&l);
        }
    }
}

T_MAIN(.setup = make_contexts_and_watchdog, .teardown = free_contexts)
