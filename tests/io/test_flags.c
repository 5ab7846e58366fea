/* The MSG_ flags, of every call that takes them. */
#include "io/messages.h"

#if defined(__has_include)
#if __has_include(<linux/errqueue.h>) && !T_MACOS_LIKE
#include <linux/errqueue.h>
#define HAVE_ERRQUEUE 1
#endif
#endif

/* ---- MSG_DONTWAIT, MSG_WAITALL, MSG_TRUNC ---- */

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

/* ---- urgent data ---- */

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
        pysock_poller_release(p);
        pysock_poller_release(all);
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
        pysock_poller_release(u.p);
        channel_close(&l);
    }
}

/* ---- the error queue ---- */

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
        memset(&what, 0, sizeof what);
        T_OK(pysock_settimeout(s, modes[i / WAYS]));
        p = t_poller_with(pysock_fileno(s), POLLIN);
        T_EQ(pysock_poller_poll(p, &event, 1, 0), 1);
        T_CHECK(event.events & POLLERR);
        memset(&msg, 0, sizeof msg);
        msg.control = control;
        msg.control_size = sizeof control;
        T_EQ(receive(i % WAYS, s, buf, sizeof buf, &msg, MSG_ERRQUEUE), 4);
        T_CHECK(memcmp(buf, "lost", 4) == 0);
        T_EQ(msg.flags & MSG_ERRQUEUE, MSG_ERRQUEUE);
        T_EQ(msg.addr.size, to.size); /* where it was to go */
        T_EQ(pysock_addr_port(&msg.addr), pysock_addr_port(&to));
        expect_data(&msg, IPPROTO_IP, IP_RECVERR, &what, sizeof what);
        T_EQ(what.error.ee_errno, ECONNREFUSED);
        T_EQ(what.error.ee_origin, SO_EE_ORIGIN_ICMP);
        T_EQ(ntohl(what.offender.sin_addr.s_addr), INADDR_LOOPBACK);
        T_FAILS(receive(i % WAYS, s, buf, sizeof buf, &msg, MSG_ERRQUEUE), PYSOCK_OS_ERROR, EAGAIN);
        T_EQ(pysock_poller_poll(p, &event, 1, 0), 0);
        pysock_poller_release(p);
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

/* ---- flags of calls that send ---- */

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

T_MAIN(.setup = make_contexts_and_watchdog, .teardown = free_contexts)
