/* Output that was lost is reported without threads, too: there the call that speaks of output, or
   a wait, is the one that meets the reset. */
#define PYSOCK_IMPLEMENTATION
#define PYSOCK_NO_THREADS
#include "pysock.h"

#include "support/contexts.h"
#include "support/losses.h"

#define SIZE (4u << 20)
#define LONG T_SCALE(30.0, 60.0)

static unsigned char bytes[SIZE];

/* Connected, non-blocking; handshakes are done by turns. */
static void make_pair(pysock *pair[2], int tls) {
    t_pair(pair);
    for (int i = 0; i < 2; i++) {
        T_OK(pysock_setsockopt_int(pair[i], SOL_SOCKET, SO_SNDBUF, 16384));
        T_OK(pysock_setblocking(pair[i], 0));
    }
    if (!tls)
        return;
    T_OK(pysock_ssl_wrap_socket(pair[0], client_ctx, "localhost"));
    T_OK(pysock_ssl_wrap_socket(pair[1], server_ctx, NULL));
    for (int i = 0; i < 2; i++) {
        T_CHECK(t_writable(pair[i], LONG));
        T_EQ(pysock_ssl_do_handshake(pair[i]), 0);
    }
}

/* The kernel knows of the reset when this returns, and the library does not. */
static pysock *lose_output(int tls) {
    pysock *pair[2];
    pysock_buf *b = T_OK(pysock_buf_wrap(bytes, SIZE, NULL, NULL));
    struct pollfd p;
    make_pair(pair, tls);
    T_OK(pysock_send_buf(pair[0], b));
    T_CHECK(T_OK(pysock_queued(pair[0])) > 0);
    pysock_buf_release(b);
    t_raw_reset(pysock_fileno(pair[1]));
    p.fd = pysock_fileno(pair[0]);
    p.events = 0;
    T_EQ(poll(&p, 1, (int)(LONG * 1000)), 1);
    pysock_close(pair[1]);
    return pair[0];
}

/* Any wait of the library does what a thread would. */
static void let_the_library_notice(pysock *s) {
    struct pollfd p;
    p.fd = pysock_fileno(s);
    p.events = 0;
    while (T_OK(pysock_queued(s)) > 0)
        T_OK(pysock_poll(&p, 1, 0.01));
}

T_TEST(every_call_about_output_reports_a_loss, 120) {
    for (int tls = 0; tls < 2; tls++)
        for (int noticed = 0; noticed < 2; noticed++)
            for (int teller = 0; teller < TELLERS; teller++) {
                pysock *s;
                T_STEP("%s, %s, told by %s", tls ? "TLS" : "plain",
                       noticed ? "noticed before" : "met by the call", teller_names[teller]);
                s = lose_output(tls);
                if (noticed)
                    let_the_library_notice(s);
                must_tell(s, (told_by)teller);
                pysock_close(s);
            }
}

T_TEST(POLLERR_comes_whatever_was_asked_for, 120) {
    static const short asked[] = {0, POLLIN, POLLOUT, POLLPRI};
    for (int tls = 0; tls < 2; tls++)
        for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++)
            for (int by_poller = 0; by_poller < 2; by_poller++) {
                pysock *s = lose_output(tls);
                short events;
                T_STEP("%s, events 0x%x, %s", tls ? "TLS" : "plain", (unsigned)asked[i],
                       by_poller ? "poller" : "poll");
                let_the_library_notice(s);
                if (by_poller) {
                    pysock_poller *p = t_poller_with(pysock_fileno(s), asked[i]);
                    pysock_pollevent event = {0, 0, NULL};
                    T_EQ(pysock_poller_poll(p, &event, 1, LONG), 1);
                    events = event.events;
                    pysock_poller_release(p);
                } else {
                    struct pollfd f;
                    f.fd = pysock_fileno(s);
                    f.events = asked[i];
                    f.revents = 0;
                    T_EQ(pysock_poll(&f, 1, LONG), 1);
                    events = f.revents;
                }
                T_CHECK(events & POLLERR);
                pysock_close(s);
            }
}

/* Whoever selects learns that there is something to be told. */
T_TEST(select_says_ready_after_a_loss, 60) {
    for (int tls = 0; tls < 2; tls++) {
        pysock *s = lose_output(tls);
        T_CHECK(t_writable(s, LONG));
        let_the_library_notice(s);
        T_CHECK(t_writable(s, LONG));
        T_CHECK(t_readable(s, LONG));
        pysock_close(s);
    }
}

/* Nothing is lost, and nothing is said. */
T_TEST(what_arrives_is_no_loss, 60) {
    static unsigned char got[65536];
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2];
        pysock_buf *b = T_OK(pysock_buf_wrap(bytes, SIZE, NULL, NULL));
        size_t have = 0;
        make_pair(pair, tls);
        T_OK(pysock_send_buf(pair[0], b));
        pysock_buf_release(b);
        while (have < SIZE) {
            ptrdiff_t n = pysock_recv(pair[1], got, sizeof got, 0);
            if (n < 0) {
                T_EQ(errno, EAGAIN);
                T_CHECK(t_readable(pair[1], LONG));
                continue;
            }
            T_CHECK(n > 0);
            have += (size_t)n;
        }
        T_OK(pysock_shutdown(pair[0], SHUT_WR));
        t_close_pair(pair);
    }
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts)
