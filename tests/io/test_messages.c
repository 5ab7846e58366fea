/* Messages: recvmsg, recvmsg_into and sendmsg with several buffers, their waits, and what of all
   that TLS refuses. */
#include "io/messages.h"

/* ---- two sockets of any kind ---- */

static int is_stream(int kind) {
    return kind >= UNIX_STREAM;
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
            msg.control_size = rooms[i % 4];
            msg.control = msg.control_size ? control : NULL;
            msg.flags = -1;
            memset(&msg.addr, 0xee, sizeof msg.addr);
            send_bytes(&l, MSG, MSG_LEN);
            T_EQ(t_readable(l.b, PYSOCK_NO_TIMEOUT), 1);
            T_EQ(receive(i / 4 % WAYS, l.b, buf, size, &msg, 0), MSG_LEN);
            T_CHECK(memcmp(buf, MSG, MSG_LEN) == 0);
            expect_sender(&l, &msg);
            T_EQ(msg.control_size, 0);
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
                msg.control_size = sizeof control;
                T_EQ(receive(i % WAYS, l.b, buf, sizeof buf, &msg, 0), 0);
                T_EQ(msg.control_size, 0);
                T_EQ(msg.addr.size, 0);
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
        T_FAILS(pysock_sendmsg(l.a, &iov, 1, NULL, 0, MSG_DONTWAIT, NULL), PYSOCK_OS_ERROR, EAGAIN);
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
    T_FAILS(pysock_recvmsg_into(l.b, NULL, 1, &msg, 0), PYSOCK_VALUE_ERROR, EINVAL);
    iov[0] = iov_of(buf, 1);
    iov[1] = iov_of(NULL, 1);
    T_FAILS(pysock_recvmsg_into(l.b, iov, 2, &msg, 0), PYSOCK_VALUE_ERROR, EINVAL);
    iov[1] = iov_of(buf, PTRDIFF_MAX);
    T_FAILS(pysock_recvmsg_into(l.b, iov, 2, &msg, 0), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_recvmsg_into(l.b, iov, 1, NULL, 0), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_recvmsg_into(l.b, iov, (size_t)-1 / sizeof iov[0], &msg, 0), T_ANY, T_ANY);
    msg.control_size = 1; /* without memory */
    T_FAILS(pysock_recvmsg(l.b, buf, sizeof buf, &msg, 0), PYSOCK_VALUE_ERROR, EINVAL);
    msg.control = control;
    msg.control_size = (size_t)-1;
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
    channel_close(&l);
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
    T_FAILS(pysock_sendmsg(l.a, NULL, 1, NULL, 0, 0, l.to), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_sendmsg(l.a, iov, 2, NULL, 0, 0, l.to), PYSOCK_VALUE_ERROR, EINVAL);
    iov[1] = iov_of("x", PTRDIFF_MAX);
    T_FAILS(pysock_sendmsg(l.a, iov, 2, NULL, 0, 0, l.to), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_sendmsg(l.a, iov, 1, NULL, 1, 0, l.to), PYSOCK_VALUE_ERROR, EINVAL);
    addr = l.at_b;
    addr.size = 100000;
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
    T_STEP("nothing was sent");
    send_bytes(&l, MSG, MSG_LEN);
    {
        pysock_msg msg;
        memset(&msg, 0, sizeof msg);
        expect_msg(&l, WHOLE, &msg, 0);
    }
    channel_close(&l);
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

T_TEST(after_tls_the_messages_are_back, 60) {
    pysock *pair[2];
    pysock_msg msg;
    struct iovec iov = iov_of("plain", 5);
    char buf[16];
    t_thread t;
    t_tls_local_pair(pair, client_ctx, server_ctx);
    t_spawn(&t, t_unwrap_thread, pair[1]);
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
