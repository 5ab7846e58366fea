/* The tools among the examples, as their users run them: against each other, against openssl and
   python3, and against sockets of the test's own. */
#include "support/support.h"
#include "support/files.h"
#include "support/process.h"
#include "support/programs.h"
#include "support/shell.h"

#include <sys/stat.h>

#define BULK ((size_t)T_SCALE(20, 4) << 20)
#define CA T_CERTS "ca.pem"
#define CERT T_CERTS "server-ec.pem"
#define KEY T_CERTS "server-ec.key"

/* A Python program that runs another one in a terminal of its own. */
#define IN_A_TERMINAL                                                                              \
    "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"

static p_process one, two;

/* A loopback address that no other process uses, with port 0. */
static struct sockaddr_in own_address(void) {
    struct sockaddr_in in;
    uint32_t pid = (uint32_t)getpid();
    memset(&in, 0, sizeof in);
    in.sin_family = AF_INET;
    in.sin_addr.s_addr = htonl(0x7f400000 | (pid & 0x3fffff));
    return in;
}

static const char *own_host(void) {
    struct sockaddr_in in = own_address();
    char text[INET_ADDRSTRLEN];
    return p_format("%s", inet_ntop(AF_INET, &in.sin_addr, text, sizeof text));
}

/* Listens there, on a port that no connection comes from by itself. */
static int listen_on_own_address(int *port) {
    struct sockaddr_in in = own_address();
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *port = 20000;
    do
        in.sin_port = htons((uint16_t)(++*port));
    while (bind(fd, (struct sockaddr *)&in, sizeof in) != 0 && *port < 22000);
    T_EQ(listen(fd, 8), 0);
    return fd;
}

static int has_ipv6_loopback(void) {
    struct sockaddr_in6 in;
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0), ok;
    memset(&in, 0, sizeof in);
    in.sin6_family = AF_INET6;
    in.sin6_addr = in6addr_loopback;
    ok = fd >= 0 && bind(fd, (struct sockaddr *)&in, sizeof in) == 0;
    if (fd >= 0)
        close(fd);
    return ok;
}

/* ---- bulk data through two programs at once ----
   What one gets on stdin must come out of the other, and the other way round. */

typedef struct stream {
    p_process *from, *to;
    size_t size, fed, seen;
    unsigned int seed;
} stream;

static void feed(stream *x) {
    size_t left = x->size - x->fed, piece = left < T_PATTERN ? left : T_PATTERN;
    ssize_t n = write(x->from->in, t_bytes(x->fed, x->seed), piece);
    if (n < 0 && errno != EAGAIN)
        P_FAIL(x->from, "%s reads no more: %s", x->from->program, strerror(errno));
    if (n > 0)
        x->fed += (size_t)n;
}

static size_t arrived(const stream *x) {
    return x->to->said.size;
}

static void exchange(stream *x, size_t count) {
    double end = t_now() + P_PATIENCE;
    size_t before = 0;
    for (;;) {
        struct pollfd fds[6];
        size_t total = 0, wanted = 0;
        memset(fds, 0, sizeof fds);
        for (size_t i = 0; i < count; i++) {
            fds[3 * i].fd = x[i].fed < x[i].size ? x[i].from->in : -1;
            fds[3 * i].events = POLLOUT;
            fds[3 * i + 1].fd = x[i].to->out;
            fds[3 * i + 2].fd = x[i].to->err;
            fds[3 * i + 1].events = fds[3 * i + 2].events = POLLIN;
            total += x[i].fed + arrived(&x[i]);
            wanted += 2 * x[i].size;
        }
        if (total == wanted)
            break;
        if (total != before)
            end = t_now() + P_PATIENCE;
        before = total;
        if (t_now() > end)
            T_FAIL("stuck: of %zu bytes %s took %zu and %s printed %zu; back: %zu and %zu",
                   x[0].size, x[0].from->program, x[0].fed, x[0].to->program, arrived(&x[0]),
                   x[count - 1].fed, arrived(&x[count - 1]));
        poll(fds, (nfds_t)(3 * count), 1000);
        for (size_t i = 0; i < count; i++) {
            if (fds[3 * i].revents)
                feed(&x[i]);
            p_pump(x[i].to, 0);
            if (x[i].to->out < 0 && arrived(&x[i]) < x[i].size)
                P_FAIL(x[i].to, "%s ended after %zu bytes", x[i].to->program, arrived(&x[i]));
        }
    }
    for (size_t i = 0; i < count; i++)
        t_verify((unsigned char *)x[i].to->said.data, x[i].size, 0, x[i].seed);
}

static void exchange_both_ways(p_process *a, p_process *b, size_t size) {
    stream x[2] = {{a, b, size, 0, 0, 1}, {b, a, size, 0, 0, 2}};
    exchange(x, 2);
}

static void send_one_way(p_process *a, p_process *b, size_t size) {
    stream x = {a, b, size, 0, 0, 3};
    exchange(&x, 1);
}

/* Exactly what was expected, and nothing behind it. */
static void must_both_end_well(p_process *a, p_process *b, size_t size_a, size_t size_b) {
    must_end_with(a, 0);
    must_end_with(b, 0);
    T_EQ(a->said.size, size_a);
    T_EQ(b->said.size, size_b);
}

/* ==== netcat and netcat ==== */

T_TEST(netcat_carries_bulk_data_both_ways, 180) {
    NEED_EXAMPLE("netcat");
    start(&one, "netcat", "-lvnN", "127.0.0.1", "0", NULL);
    start(&two, "netcat", "-nN", "127.0.0.1", digits(listening_port(&one)), NULL);
    exchange_both_ways(&one, &two, BULK);
    p_close_fd(&one.in);
    p_close_fd(&two.in);
    must_both_end_well(&one, &two, BULK, BULK);
}

T_TEST(the_end_of_either_input_leaves_the_other_direction_alone, 180) {
    NEED_EXAMPLE("netcat");
    for (int turn = 0; turn < 2; turn++) {
        T_STEP("turn %d", turn);
        start(&one, "netcat", "-lvnN", "127.0.0.1", "0", NULL);
        start(&two, "netcat", "-nN", "127.0.0.1", digits(listening_port(&one)), NULL);
        p_process *first = turn ? &one : &two, *second = turn ? &two : &one;
        p_say(first, "short");
        p_close_fd(&first->in);
        wait_for_bytes(second, 5);
        while (second->out >= 0) /* its stdout ends, though it has not ended itself */
            p_pump(second, 1);
        must_have_printed(second, "short");
        send_one_way(second, first, BULK);
        p_close_fd(&second->in);
        must_both_end_well(first, second, BULK, 5);
    }
}

T_TEST(netcat_carries_bulk_data_both_ways_over_tls, 300) {
    NEED_EXAMPLE("netcat");
    start(&one, "netcat", "-lvn", "--tls-cert", CERT, "--tls-key", KEY, "127.0.0.1", "0", NULL);
    start(&two, "netcat", "-nvN", "--tls", "--cafile", CA, "127.0.0.1",
          digits(listening_port(&one)), NULL);
    exchange_both_ways(&one, &two, BULK);
    p_close_fd(&two.in);
    must_both_end_well(&one, &two, BULK, BULK);
    must_have_said(&one, "TLSv1.2");
    must_have_said(&two, "TLSv1.2");
}

T_TEST(all_arrives_that_was_sent_before_the_end_of_a_tls_connection, 300) {
    NEED_EXAMPLE("netcat");
    for (int turn = 0; turn < 2; turn++) {
        T_STEP("turn %d", turn);
        start(&one, "netcat", "-lvnN", "--tls-cert", CERT, "--tls-key", KEY, "127.0.0.1", "0",
              NULL);
        start(&two, "netcat", "-nN", "--cafile", CA, "127.0.0.1", digits(listening_port(&one)),
              NULL);
        p_process *from = turn ? &one : &two, *to = turn ? &two : &one;
        stream x = {from, to, BULK, 0, 0, 3};
        while (x.fed < BULK) { /* the end follows at once, before much has arrived */
            feed(&x);
            p_pump(to, 0);
        }
        p_close_fd(&from->in);
        exchange(&x, 1);
        must_both_end_well(from, to, 0, BULK);
    }
}

T_TEST(netcat_carries_bulk_data_over_a_unix_socket_and_removes_it, 180) {
    NEED_EXAMPLE("netcat");
    const char *path = f_path("stream.sock");
    start(&one, "netcat", "-lvNU", path, NULL);
    p_wait_for(&one, "listening on ");
    start(&two, "netcat", "-NU", path, NULL);
    exchange_both_ways(&one, &two, BULK);
    p_close_fd(&one.in);
    p_close_fd(&two.in);
    must_both_end_well(&one, &two, BULK, BULK);
    T_EQ(access(path, F_OK), -1);
}

T_TEST(netcat_knows_abstract_unix_names, 60) {
    NEED_EXAMPLE("netcat");
    const char *name = p_format("@pysock-netcat-%ld", (long)getpid());
    start(&one, "netcat", "-lvNU", name, NULL);
    p_wait_for(&one, "listening on ");
    start(&two, "netcat", "-NU", name, NULL);
    p_say(&two, "hello");
    p_close_fd(&one.in);
    p_close_fd(&two.in);
    must_both_end_well(&one, &two, 5, 0);
}

T_TEST(netcat_speaks_tls_over_a_unix_socket, 60) {
    NEED_EXAMPLE("netcat");
    const char *path = f_path("tls.sock");
    start(&one, "netcat", "-lvNU", "--tls-cert", CERT, "--tls-key", KEY, path, NULL);
    p_wait_for(&one, "listening on ");
    start(&two, "netcat", "-NU", "--cafile", CA, "--servername", "localhost", path, NULL);
    p_say(&two, "hello");
    p_close_fd(&two.in);
    must_both_end_well(&one, &two, 5, 0);
}

T_TEST(netcat_speaks_ipv6_and_a_listener_without_an_address_both, 60) {
    NEED_EXAMPLE("netcat");
    if (!has_ipv6_loopback()) {
        print_message("no IPv6 loopback here: skipped\n");
        skip();
    }
    for (int turn = 0; turn < 2; turn++) {
        start(&one, "netcat", "-lvnN", "0", NULL);
        start(&two, "netcat", "-nN", turn ? "127.0.0.1" : "::1", digits(listening_port(&one)),
              NULL);
        p_say(&two, "hello");
        p_close_fd(&one.in);
        p_close_fd(&two.in);
        must_both_end_well(&one, &two, 5, 0);
    }
    start(&one, "netcat", "-6lvn", "0", NULL);
    T_EQ(run(&two, "netcat", "-n", "127.0.0.1", digits(listening_port(&one)), NULL), 1);
    must_have_said(&two, "refused");
}

T_TEST(a_listener_with_k_serves_one_client_after_the_other, 120) {
    NEED_EXAMPLE("netcat");
    const char *path = f_path("many.sock");
    start(&one, "netcat", "-lkvU", path, NULL);
    p_wait_for(&one, "listening on ");
    for (int i = 0; i < 5; i++) {
        start(&two, "netcat", "-NU", path, NULL);
        p_say(&two, p_format("client %d\n", i));
        wait_for_bytes(&one, (size_t)(i + 1) * 9);
        p_say(&one, p_format("answer %d\n", i));
        wait_for_bytes(&two, 9);
        p_close_fd(&two.in);
        must_end_with(&two, 0);
        must_have_printed(&two, p_format("answer %d\n", i));
    }
    must_have_printed(&one, "client 0\nclient 1\nclient 2\nclient 3\nclient 4\n");
    T_EQ(kill(one.pid, SIGTERM), 0);
    must_end_with(&one, 128 + SIGTERM);
    T_EQ(access(path, F_OK), -1);
}

T_TEST(a_failed_handshake_does_not_end_a_listener_with_k, 120) {
    NEED_EXAMPLE("netcat");
    start(&one, "netcat", "-lkvn", "--tls-cert", CERT, "--tls-key", KEY, "127.0.0.1", "0", NULL);
    const char *port = digits(listening_port(&one));
    T_EQ(run(&two, "netcat", "-nN", "--cafile", T_CERTS "other-ca.pem", "127.0.0.1", port, NULL),
         1);
    must_have_said(&two, "certificate");
    start(&two, "netcat", "-nN", "--cafile", CA, "127.0.0.1", port, NULL);
    p_say(&two, "hello");
    p_close_fd(&two.in);
    must_end_with(&two, 0);
    wait_for_bytes(&one, 5);
    must_have_printed(&one, "hello");
}

/* ==== datagrams ==== */

T_TEST(netcat_carries_datagrams_both_ways, 60) {
    NEED_EXAMPLE("netcat");
    static const char *const hosts[] = {"127.0.0.1", "::1"};
    for (int i = 0; i < (has_ipv6_loopback() ? 2 : 1); i++) {
        start(&one, "netcat", "-luvn", "-w", "2", hosts[i], "0", NULL);
        start(&two, "netcat", "-uN", hosts[i], digits(listening_port(&one)), NULL);
        p_say(&two, "question");
        wait_for_bytes(&one, 8);
        p_say(&one, "answer");
        wait_for_bytes(&two, 6);
        p_close_fd(&two.in);                  /* -N: no further answers are waited for */
        must_both_end_well(&one, &two, 8, 6); /* -w: the listener ends when nothing comes */
    }
}

T_TEST(the_largest_datagram_arrives_whole, 60) {
    NEED_EXAMPLE("netcat");
    static unsigned char sent[65507], got[65536];
    struct sockaddr_in in;
    socklen_t len = sizeof in;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    memset(&in, 0, sizeof in);
    in.sin_family = AF_INET;
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    start(&one, "netcat", "-luvn", "127.0.0.1", "0", NULL);
    in.sin_port = htons((uint16_t)listening_port(&one));
    t_fill(sent, sizeof sent, 0, 4);
    T_EQ(sendto(fd, sent, sizeof sent, 0, (struct sockaddr *)&in, len), (ssize_t)sizeof sent);
    wait_for_bytes(&one, sizeof sent);
    t_verify((unsigned char *)one.said.data, sizeof sent, 0, 4);

    p_say(&one, p_format("%300s", "back")); /* a piece of input is one datagram */
    T_EQ(recvfrom(fd, got, sizeof got, 0, NULL, NULL), 300);
    close(fd);
}

/* Without -k others than the first are strangers; with it all are heard. */
T_TEST(datagrams_of_strangers_are_dropped_unless_k_is_given, 60) {
    NEED_EXAMPLE("netcat");
    for (int keep = 0; keep < 2; keep++) {
        start(&one, "netcat", keep ? "-luvnk" : "-luvn", "127.0.0.1", "0", NULL);
        struct sockaddr_in in;
        int first = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        int second = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        char byte;
        memset(&in, 0, sizeof in);
        in.sin_family = AF_INET;
        in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        in.sin_port = htons((uint16_t)listening_port(&one));
        T_EQ(connect(first, (struct sockaddr *)&in, sizeof in), 0);
        T_EQ(connect(second, (struct sockaddr *)&in, sizeof in), 0);
        T_EQ(send(first, "1", 1, 0), 1);
        wait_for_bytes(&one, 1);
        T_EQ(send(second, "2", 1, 0), 1);
        if (keep)
            wait_for_bytes(&one, 2);
        T_EQ(send(first, "3", 1, 0), 1);
        wait_for_bytes(&one, keep ? 3 : 2);
        must_have_printed(&one, keep ? "123" : "13");
        p_say(&one, "4"); /* to whom spoke last */
        T_EQ(recv(first, &byte, 1, 0), 1);
        T_EQ(byte, '4');
        close(first);
        close(second);
        p_end(&one);
    }
}

T_TEST(netcat_carries_datagrams_over_unix_sockets, 60) {
    NEED_EXAMPLE("netcat");
    const char *path = f_path("datagrams.sock"), *own = f_path("own.sock");
    for (int turn = 0; turn < 2; turn++) {
        start(&one, "netcat", "-luvU", "-w", "1", path, NULL);
        p_wait_for(&one, "listening on ");
        if (turn)
            start(&two, "netcat", "-uNU", "-s", own, path, NULL);
        else
            start(&two, "netcat", "-uNU", path, NULL);
        p_say(&two, "question");
        wait_for_bytes(&one, 8);
        T_EQ(access(own, F_OK), turn ? 0 : -1);
        p_say(&one, "answer");
        wait_for_bytes(&two, 6);
        p_close_fd(&two.in);
        must_both_end_well(&one, &two, 8, 6);
        T_EQ(access(path, F_OK), -1);
        T_EQ(access(own, F_OK), -1);
    }
}

T_TEST(a_refused_datagram_is_a_failure, 60) {
    NEED_EXAMPLE("netcat");
    struct sockaddr_in in;
    socklen_t len = sizeof in;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    memset(&in, 0, sizeof in);
    in.sin_family = AF_INET;
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    T_EQ(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
    T_EQ(getsockname(fd, (struct sockaddr *)&in, &len), 0);
    T_EQ(connect(fd, (struct sockaddr *)&in, sizeof in), 0); /* hears itself, refuses others */
    start(&one, "netcat", "-nu", "127.0.0.1", digits(ntohs(in.sin_port)), NULL);
    p_say(&one, "anybody?");
    must_end_with(&one, 1);
    must_have_said(&one, "refused");
    close(fd);
}

/* ==== netcat and sockets of the test's own ==== */

T_TEST(the_answer_to_the_end_of_the_input_is_read, 60) {
    NEED_EXAMPLE("netcat");
    int port, listener = t_raw_listen(&port);
    char buf[16];
    start(&one, "netcat", "-nN", "127.0.0.1", digits(port), NULL);
    int fd = t_raw_accept(listener);
    p_say(&one, "question");
    p_close_fd(&one.in);
    T_EQ(t_raw_read(fd, buf, sizeof buf), 8); /* up to the end */
    t_raw_write(fd, "answer", 6);
    close(fd);
    must_end_with(&one, 0);
    must_have_printed(&one, "answer");
    close(listener);
}

T_TEST(without_N_the_end_of_the_input_is_not_told, 60) {
    NEED_EXAMPLE("netcat");
    int port, listener = t_raw_listen(&port);
    char buf[16];
    start(&one, "netcat", "-n", "127.0.0.1", digits(port), NULL);
    int fd = t_raw_accept(listener);
    p_say(&one, "question");
    p_close_fd(&one.in);
    T_EQ(t_raw_read(fd, buf, 8), 8);
    t_raw_write(fd, "answer", 6);
    wait_for_bytes(&one, 6);
    t_raw_write(fd, " again", 6); /* when that is printed, the end of stdin has been seen */
    wait_for_bytes(&one, 12);
    T_EQ(recv(fd, buf, 1, MSG_DONTWAIT), -1);
    T_EQ(errno, EAGAIN);
    close(fd);
    must_end_with(&one, 0);
    close(listener);
}

/* A megabyte or two fit into the kernel's buffers: nothing like the whole is read ahead. */
T_TEST(stdin_is_read_only_as_fast_as_the_peer_reads, 120) {
    NEED_EXAMPLE("netcat");
    enum { SIZE = 64 << 20 };
    static unsigned char got[T_PATTERN];
    int small = 65536, port, listener = t_raw_listen(&port);
    T_EQ(setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
    start(&one, "netcat", "-nN", "127.0.0.1", digits(port), NULL);
    int fd = t_raw_accept(listener);
    stream x = {&one, NULL, SIZE, 0, 0, 5};
    struct pollfd room = {one.in, POLLOUT, 0};
    while (x.fed < SIZE && poll(&room, 1, 1000) == 1)
        feed(&x);
    if (x.fed > SIZE / 4)
        T_FAIL("%zu bytes were read from stdin, though the peer reads nothing", x.fed);

    x.size = x.fed;
    p_close_fd(&one.in);
    for (size_t have = 0, n; have < x.size; have += n) {
        n = t_raw_read(fd, got, x.size - have < sizeof got ? x.size - have : sizeof got);
        T_CHECK(n > 0);
        t_verify(got, n, have, 5);
    }
    T_EQ(t_raw_read(fd, got, 1), 0);
    close(fd);
    must_end_with(&one, 0);
    close(listener);
}

/* And the peer only as fast as stdout is. */
T_TEST(a_slow_reader_of_stdout_slows_the_peer_down, 120) {
    NEED_EXAMPLE("netcat");
    enum { SIZE = 64 << 20 };
    int small = 65536, port, listener = t_raw_listen(&port);
    T_EQ(setsockopt(listener, SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    start(&one, "netcat", "-n", "127.0.0.1", digits(port), NULL);
    p_close_fd(&one.in);
    int fd = t_raw_accept(listener);
    struct pollfd room = {fd, POLLOUT, 0};
    size_t sent = 0;
    while (sent < SIZE && poll(&room, 1, 1000) == 1) {
        ssize_t n = send(fd, t_bytes(sent, 6), T_PATTERN, MSG_DONTWAIT | MSG_NOSIGNAL);
        T_CHECK(n > 0 || errno == EAGAIN);
        sent += n > 0 ? (size_t)n : 0;
    }
    if (sent > SIZE / 2)
        T_FAIL("%zu bytes were taken, though nobody reads stdout", sent);
    close(fd);
    must_end_with(&one, 0);
    T_EQ(one.said.size, sent);
    t_verify((unsigned char *)one.said.data, sent, 0, 6);
    close(listener);
}

/* An answer that comes while stdin is still full must be read, or both wait for ever. */
T_TEST(netcat_does_not_deadlock_with_an_echo_server, 180) {
    NEED_EXAMPLE("netcat");
    P_NEED("python3");
    p_args args = {{NULL}, 0};
    p_add(&args, "python3", "tests/peers/peer.py", "server", "--port", P_PORT, "--cert", CERT,
          "--key", KEY, NULL);
    int port;
    T_OK(pysock_close(p_start_server(&two, &args, &port)));
    start(&one, "netcat", "-nN", "--cafile", CA, "127.0.0.1", digits(port), NULL);
    stream x = {&one, &one, BULK, 0, 0, 7};
    exchange(&x, 1);
    p_close_fd(&one.in);
    must_end_with(&one, 0);
    T_EQ(one.said.size, BULK);
    p_wait_for(&two, p_format("end clean bytes=%zu", BULK));
}

T_TEST(source_address_and_port_are_as_they_were_asked_for, 60) {
    NEED_EXAMPLE("netcat");
    struct sockaddr_in in = own_address(), want = in;
    socklen_t len = sizeof in;
    int port, listener = t_raw_listen(&port), own;
    int probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); /* finds a port that is free */
    T_EQ(bind(probe, (struct sockaddr *)&in, sizeof in), 0);
    T_EQ(getsockname(probe, (struct sockaddr *)&in, &len), 0);
    own = ntohs(in.sin_port);
    close(probe);
    start(&one, "netcat", "-nN", "-s", own_host(), "-p", digits(own), "127.0.0.1", digits(port),
          NULL);
    int fd = t_raw_accept(listener);
    T_EQ(getpeername(fd, (struct sockaddr *)&in, &len), 0);
    T_EQ(in.sin_addr.s_addr, want.sin_addr.s_addr);
    T_EQ(ntohs(in.sin_port), own);
    close(fd);
    p_close_fd(&one.in);
    must_end_with(&one, 0);
    close(listener);
}

T_TEST(line_feeds_get_their_carriage_return_once, 60) {
    NEED_EXAMPLE("netcat");
    int port, listener = t_raw_listen(&port);
    char buf[64];
    start(&one, "netcat", "-nNc", "127.0.0.1", digits(port), NULL);
    int fd = t_raw_accept(listener);
    p_say(&one, "a\nb\r\n\n\rc\r");
    T_EQ(t_raw_read(fd, buf, 11), 11);
    p_say(&one, "\nd"); /* what begins with the end of a line goes on with it */
    p_close_fd(&one.in);
    T_EQ(t_raw_read(fd, buf + 11, sizeof buf - 11), 2);
    buf[13] = 0;
    if (strcmp(buf, "a\r\nb\r\n\r\n\rc\r\nd") != 0)
        T_FAIL("'%s' arrived", buf);
    close(fd);
    must_end_with(&one, 0);
    close(listener);
}

T_TEST(a_reset_is_a_failure_and_no_signal, 60) {
    NEED_EXAMPLE("netcat");
    int port, listener = t_raw_listen(&port);
    start(&one, "netcat", "-n", "127.0.0.1", digits(port), NULL);
    int fd = t_raw_accept(listener);
    t_raw_reset(fd);
    must_end_with(&one, 1);
    close(fd);

    T_STEP("the peer has closed; what is sent then comes back as a reset");
    start(&one, "netcat", "-n", "127.0.0.1", digits(port), NULL);
    fd = t_raw_accept(listener);
    close(fd);
    while (!p_is_over(&one)) {
        ssize_t n = write(one.in, t_bytes(0, 8), 1000);
        T_CHECK(n > 0 || errno == EAGAIN || errno == EPIPE);
        p_pump(&one, 0.01);
    }
    must_end_with(&one, 1);
    must_have_said(&one, "netcat: send");
    close(listener);
}

T_TEST(a_stdout_that_is_closed_is_a_failure_and_no_signal, 60) {
    NEED_EXAMPLE("netcat");
    int port, listener = t_raw_listen(&port);
    start(&one, "netcat", "-n", "127.0.0.1", digits(port), NULL);
    int fd = t_raw_accept(listener);
    p_close_fd(&one.out);
    t_raw_write(fd, "for nobody", 10);
    must_end_with(&one, 1);
    must_have_said(&one, "stdout");
    close(fd);
    close(listener);
}

/* Nor does the socket become descriptor 0. */
T_TEST(netcat_does_without_a_stdin, 60) {
    NEED_EXAMPLE("netcat");
    int port, listener = t_raw_listen(&port);
    char byte;
    p_args args = {{NULL}, 0};
    p_add(&args, "sh", "-c", "exec \"$@\" <&-", "sh", find_example("netcat"), "-nN", "127.0.0.1",
          digits(port), NULL);
    p_start(&one, &args);
    int fd = t_raw_accept(listener);
    T_EQ(t_raw_read(fd, &byte, 1), 0);
    t_raw_write(fd, "hello", 5);
    close(fd);
    must_end_with(&one, 0);
    must_have_printed(&one, "hello");
    close(listener);
}

/* What a program on a terminal says comes by its master, stderr too. */
T_TEST(somebody_at_a_keyboard_is_not_kept_waiting, 60) {
    NEED_EXAMPLE("netcat");
    P_NEED("python3");
    int port, listener = t_raw_listen(&port);
    p_args args = {{NULL}, 0};
    p_add(&args, "python3", "-c", IN_A_TERMINAL, find_example("netcat"), "-n", "127.0.0.1",
          digits(port), NULL);
    p_start(&one, &args);
    int fd = t_raw_accept(listener);
    t_raw_write(fd, "goodbye", 7);
    close(fd);
    must_end_with(&one, 0); /* though its stdin has not ended */
    must_have_printed(&one, "goodbye");
    close(listener);
}

T_TEST(the_timeout_ends_connecting_and_silence, 60) {
    NEED_EXAMPLE("netcat");
    int fds[2], port = t_silent_port(fds), listener;
    T_EQ(run(&one, "netcat", "-nw", "0.2", "127.0.0.1", digits(port), NULL), 1);
    must_have_said(&one, "timed out");
    close(fds[0]);
    close(fds[1]);

    T_STEP("nothing comes or goes");
    listener = t_raw_listen(&port);
    start(&one, "netcat", "-nw", "0.2", "127.0.0.1", digits(port), NULL);
    int fd = t_raw_accept(listener);
    t_raw_write(fd, "hello", 5);
    must_end_with(&one, 0);
    must_have_printed(&one, "hello");
    close(fd);

    T_STEP("something cannot go");
    start(&one, "netcat", "-nw", "0.2", "127.0.0.1", digits(port), NULL);
    fd = t_raw_accept(listener);
    while (!p_is_over(&one)) {
        ssize_t n = write(one.in, t_bytes(0, 8), T_PATTERN);
        T_CHECK(n > 0 || errno == EAGAIN || errno == EPIPE);
    }
    must_end_with(&one, 1);
    must_have_said(&one, "the peer takes no more");
    close(fd);
    close(listener);
}

T_TEST(scanning_tells_open_ports_from_closed_ones, 60) {
    NEED_EXAMPLE("netcat");
    int open_port, deaf, listener = t_raw_listen(&open_port), closed_port = t_deaf_port(&deaf);
    T_EQ(run(&one, "netcat", "-zn", "127.0.0.1", digits(open_port), NULL), 0);
    must_have_printed(&one, p_format("127.0.0.1 %d/tcp: open\n", open_port));
    T_EQ(run(&one, "netcat", "-zn", "127.0.0.1", digits(closed_port), NULL), 1);
    must_have_printed(&one, "");
    T_EQ(run(&one, "netcat", "-znv", "127.0.0.1", digits(closed_port), NULL), 1);
    must_have_said(&one, "refused");
    T_STEP("a range, on an address of our own"); /* else it could be somebody's */
    int first, fd = listen_on_own_address(&first);
    T_EQ(run(&one, "netcat", "-zn", own_host(), p_format("%d-%d", first, first + 2), NULL), 0);
    must_have_said(&one, p_format("%s %d/tcp: open\n", own_host(), first));
    close(fd);
    T_EQ(run(&one, "netcat", "-zn", "127.0.0.1", "20-10", NULL), 2);
    must_have_said(&one, "20-10");
    close(listener);
    close(deaf);
}

/* ==== netcat and certificates ==== */

T_TEST(netcat_refuses_certificates_that_do_not_fit, 120) {
    NEED_EXAMPLE("netcat");
    static const struct {
        const char *cert, *says;
    } bad[] = {{"wrong-host", "mismatch"}, {"expired", "expired"}, {"untrusted", "issuer"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        T_STEP("%s", bad[i].cert);
        start(&one, "netcat", "-lkvn", "--tls-cert", p_format(T_CERTS "%s.pem", bad[i].cert),
              "--tls-key", p_format(T_CERTS "%s.key", bad[i].cert), "127.0.0.1", "0", NULL);
        const char *port = digits(listening_port(&one));
        T_EQ(run(&two, "netcat", "-nN", "--cafile", CA, "127.0.0.1", port, NULL), 1);
        must_have_said(&two, bad[i].says);

        start(&two, "netcat", "-nvN", "--insecure", "127.0.0.1", port, NULL);
        p_say(&two, "hello");
        p_close_fd(&two.in);
        must_end_with(&two, 0);
        must_have_said(&two, "not verified");
        wait_for_bytes(&one, 5);
        must_have_printed(&one, "hello");
        p_end(&one);
    }
}

T_TEST(the_certificate_is_checked_for_the_name_that_was_given, 120) {
    NEED_EXAMPLE("netcat");
    start(&one, "netcat", "-lkvn", "--tls-cert", T_CERTS "wrong-host.pem", "--tls-key",
          T_CERTS "wrong-host.key", "127.0.0.1", "0", NULL);
    const char *port = digits(listening_port(&one));
    T_EQ(run(&two, "netcat", "-nN", "--cafile", CA, "--servername", "other.test", "127.0.0.1", port,
             NULL),
         0);
    T_EQ(run(&two, "netcat", "-nN", "--cafile", CA, "--servername", "localhost", "127.0.0.1", port,
             NULL),
         1);
    must_have_said(&two, "mismatch");
}

T_TEST(a_listener_with_cafile_asks_for_certificates, 120) {
    NEED_EXAMPLE("netcat");
    start(&one, "netcat", "-lkvn", "--tls-cert", CERT, "--tls-key", KEY, "--cafile", CA,
          "127.0.0.1", "0", NULL);
    const char *port = digits(listening_port(&one));
    run(&two, "netcat", "-nN", "--cafile", CA, "127.0.0.1", port, NULL);
    p_wait_for(&one, "the client sent no certificate");
    start(&two, "netcat", "-nN", "--cafile", CA, "--tls-cert", T_CERTS "client.pem", "--tls-key",
          T_CERTS "client.key", "127.0.0.1", port, NULL);
    p_say(&two, "hello");
    p_close_fd(&two.in);
    must_end_with(&two, 0);
    wait_for_bytes(&one, 5);
    must_have_printed(&one, "hello");
}

T_TEST(a_tls_stream_that_is_cut_off_is_a_failure, 120) {
    NEED_EXAMPLE("netcat");
    start(&one, "netcat", "-lvn", "--tls-cert", CERT, "--tls-key", KEY, "127.0.0.1", "0", NULL);
    start(&two, "netcat", "-n", "--cafile", CA, "127.0.0.1", digits(listening_port(&one)), NULL);
    p_say(&one, "hello");
    wait_for_bytes(&two, 5);
    T_EQ(kill(one.pid, SIGKILL), 0);
    must_end_with(&two, 1);
    must_have_said(&two, "without close_notify");
    must_have_printed(&two, "hello");
}

T_TEST(what_a_tls_peer_that_has_closed_did_not_get_is_a_failure, 120) {
    NEED_EXAMPLE("netcat");
    start(&one, "netcat", "-lvnN", "--tls-cert", CERT, "--tls-key", KEY, "127.0.0.1", "0", NULL);
    start(&two, "netcat", "-n", "--cafile", CA, "127.0.0.1", digits(listening_port(&one)), NULL);
    p_say(&one, "hello");
    wait_for_bytes(&two, 5);
    T_EQ(kill(two.pid, SIGSTOP), 0);
    p_close_fd(&one.in);
    p_say(&two, "too late");
    T_EQ(kill(two.pid, SIGCONT), 0);
    /* Either it was sent, and nobody read it, or it was not. */
    int status = p_exit_status(&two);
    if (status != 0 && !p_has_said(&two, "the peer has closed"))
        must_have_said(&two, "the peer closed before all was sent");
    must_end_with(&one, 0);
    T_EQ(status == 0, one.said.size == 8);
}

/* ==== netcat and openssl ==== */

T_TEST(netcat_exchanges_bulk_data_with_openssl_s_server, 180) {
    NEED_EXAMPLE("netcat");
    P_NEED("openssl");
    p_args args = {{NULL}, 0};
    int port;
    p_add(&args, "openssl", "s_server", "-accept", "127.0.0.1:" P_PORT, "-cert", CERT, "-key", KEY,
          "-quiet", "-naccept", "2", NULL);
    T_OK(pysock_close(p_start_server(&two, &args, &port)));
    start(&one, "netcat", "-nvN", "--cafile", CA, "--servername", "localhost", "127.0.0.1",
          digits(port), NULL);
    p_wait_for(&one, "TLSv1.2"); /* before that its stdin goes to the connection that has probed */
    exchange_both_ways(&one, &two, BULK / 4);
    p_close_fd(&one.in);
    must_both_end_well(&one, &two, BULK / 4, BULK / 4);
}

T_TEST(netcat_exchanges_bulk_data_with_openssl_s_client, 180) {
    NEED_EXAMPLE("netcat");
    P_NEED("openssl");
    p_args args = {{NULL}, 0};
    start(&one, "netcat", "-lvnN", "--tls-cert", CERT, "--tls-key", KEY, "127.0.0.1", "0", NULL);
    p_add(&args, "openssl", "s_client", "-connect", p_format("127.0.0.1:%d", listening_port(&one)),
          "-CAfile", CA, "-verify_return_error", "-quiet", NULL);
    p_start(&two, &args);
    exchange_both_ways(&one, &two, BULK / 4);
    p_close_fd(&one.in);
    must_both_end_well(&one, &two, BULK / 4, BULK / 4);
}

/* ==== netcat's command line ==== */

T_TEST(wrong_usage_names_the_option, 120) {
    NEED_EXAMPLE("netcat");
    static const struct {
        const char *argv[6];
        const char *says;
    } wrong[] = {
        {{"-x", "localhost", "80"}, "-x"},
        {{"--nonsense", "localhost", "80"}, "--nonsense"},
        {{"-e", "sh", "localhost", "80"}, "-e"},
        {{"localhost", "80", "-w"}, "-w"},
        {{"-w", "soon", "localhost", "80"}, "-w wants seconds"},
        {{"-w", "0", "localhost", "80"}, "-w wants seconds"},
        {{"-w", "nan", "localhost", "80"}, "-w wants seconds"},
        {{"--cafile"}, "--cafile"},
        {{"localhost"}, "a host and a port"},
        {{"localhost", "80", "81"}, "a host and a port"},
        {{"-n", "localhost", "http"}, "http"},
        {{"localhost", "65536"}, "65536"},
        {{"localhost", "0"}, "0"},
        {{"localhost", "80-90"}, "80-90"},
        {{"-p", "99999", "localhost", "80"}, "99999"},
        {{"-l"}, "-l"},
        {{"-lp", "80", "81"}, "-l"},
        {{"-k", "localhost", "80"}, "-k"},
        {{"-zl", "80"}, "-z"},
        {{"-U"}, "-U"},
        {{"-4U", "/nowhere"}, "-4"},
        {{"-u", "--tls", "localhost", "80"}, "-u"},
        {{"-l", "--tls", "80"}, "--tls-cert"},
        {{"--tls-key", "key.pem", "localhost", "80"}, "--tls-key"},
        {{"-U", "--tls", "/nowhere"}, "--servername"},
        {{"--insecure", "--cafile", CA, "localhost", "80"}, "--insecure"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        const char *const *v = wrong[i].argv;
        T_STEP("%s", wrong[i].says);
        int status = run(&one, "netcat", v[0], v[1], v[2], v[3], v[4], v[5], NULL);
        if (status != 2)
            P_FAIL(&one, "case %zu ended with status %d", i, status);
        must_have_said(&one, "netcat: ");
        must_have_said(&one, wrong[i].says);
        must_have_printed(&one, "");
    }
}

T_TEST(each_tool_has_a_usage_text, 60) {
    static const char *const tools[] = {"netcat", "http_download", "port_scan", "udp_echo"};
    for (size_t i = 0; i < sizeof tools / sizeof tools[0]; i++) {
        NEED_EXAMPLE(tools[i]);
        for (int turn = 0; turn < 2; turn++) {
            T_EQ(run(&one, tools[i], turn ? "-h" : "--help", NULL), 0);
            T_CHECK(strncmp(p_string(&one.said), "usage: ", 7) == 0);
            T_EQ(one.complained.size, 0);
        }
        T_EQ(run(&one, tools[i], "--nonsense", NULL), 2);
        T_CHECK(one.complained.size > 0);
    }
}

T_TEST(what_cannot_be_reached_is_told, 60) {
    NEED_EXAMPLE("netcat");
    int deaf, port = t_deaf_port(&deaf);
    T_EQ(run(&one, "netcat", "-n", "127.0.0.1", digits(port), NULL), 1);
    must_have_said(&one, "netcat: ");
    must_have_said(&one, "refused");
    T_EQ(run(&one, "netcat", "-n", "localhost", digits(port), NULL), 1); /* a name */
    must_have_said(&one, "localhost");
    T_EQ(run(&one, "netcat", "-4n", "::1", digits(port), NULL), 1);
    must_have_said(&one, "::1");
    T_EQ(run(&one, "netcat", "-U", f_path("nobody.sock"), NULL), 1);
    must_have_said(&one, "nobody.sock");
    T_EQ(run(&one, "netcat", "--cafile", f_path("none.pem"), "127.0.0.1", digits(port), NULL), 1);
    must_have_said(&one, "none.pem");
    close(deaf);

    T_STEP("a path or port that is taken");
    const char *path = f_write_text("taken", "");
    T_EQ(run(&one, "netcat", "-lU", path, NULL), 1);
    must_have_said(&one, "taken");
    T_EQ(access(path, F_OK), 0); /* it was not ours to remove */
    int listener = t_raw_listen(&port);
    T_EQ(run(&one, "netcat", "-ln", "127.0.0.1", digits(port), NULL), 1);
    must_have_said(&one, digits(port));
    close(listener);
}

/* ==== http_download ==== */

#define FILE_SIZE 1000003u

static char web_root[256];

static const char *root_path(const char *name) {
    return p_format("%s/%s", web_root, name);
}

/* A file for the server, changed at that time. */
static void publish(const char *name, unsigned int seed, time_t changed) {
    struct timespec times[2] = {{.tv_sec = changed}, {.tv_sec = changed}};
    unsigned char *data = malloc(FILE_SIZE);
    FILE *f = fopen(root_path(name), "wb");
    T_CHECK(data != NULL && f != NULL);
    t_fill(data, FILE_SIZE, 0, seed);
    T_EQ(fwrite(data, 1, FILE_SIZE, f), FILE_SIZE);
    T_EQ(fclose(f), 0);
    T_EQ(utimensat(AT_FDCWD, root_path(name), times, 0), 0);
    free(data);
}

#define CHANGED 1000000000 /* in 2001 */

/* The server in `two`; its port. */
static int start_web(int tls) {
    p_args args = {{NULL}, 0};
    int port;
    snprintf(web_root, sizeof web_root, "%s", f_path("web"));
    mkdir(web_root, 0777);
    publish("file", 1, CHANGED);
    p_add(&args, "python3", "tests/peers/web.py", "--port", P_PORT, "--directory", web_root, NULL);
    if (tls)
        p_add(&args, "--cert", CERT, "--key", KEY, NULL);
    T_OK(pysock_close(p_start_server(&two, &args, &port)));
    return port;
}

/* Downloads from the server to the file "got"; the exit status. */
static int download(int port, const char *path, const char *option) {
    const char *url = p_format("http://127.0.0.1:%d/%s", port, path);
    return run(&one, "http_download", "-o", f_path("got"), url, option, NULL);
}

static int exists(const char *name) {
    return access(f_path(name), F_OK) == 0;
}

/* Under its name is the whole file, and nothing else is left. */
static void must_have_got(int status, unsigned int seed) {
    size_t size;
    if (status != 0)
        P_FAIL(&one, "http_download ended with status %d", status);
    char *data = f_read(f_path("got"), &size);
    T_EQ(size, FILE_SIZE);
    t_verify((unsigned char *)data, size, 0, seed);
    free(data);
    T_CHECK(!exists("got.part"));
    must_have_printed(&one, "");
    T_EQ(one.complained.size, 0); /* no terminal, no bar */
    T_EQ(remove(f_path("got")), 0);
}

static size_t part_size(void) {
    struct stat st;
    return stat(f_path("got.part"), &st) == 0 ? (size_t)st.st_size : 0;
}

T_TEST(a_file_is_downloaded_whatever_its_length_is_told_by, 120) {
    NEED_EXAMPLE("http_download");
    P_NEED("python3");
    int port = start_web(0);
    static const char *const paths[] = {"plain/file", "chunked/file", "to-the-end/file",
                                        "interim/file", "redirect/5/plain/file"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        T_STEP("%s", paths[i]);
        must_have_got(download(port, paths[i], NULL), 1);
    }
}

T_TEST(a_download_keeps_the_time_of_change_and_replaces_the_file, 120) {
    NEED_EXAMPLE("http_download");
    P_NEED("python3");
    struct stat st;
    int port = start_web(0);
    f_write_text("got", "an older one");
    T_EQ(download(port, "plain/file", NULL), 0);
    T_EQ(stat(f_path("got"), &st), 0);
    T_EQ(st.st_size, FILE_SIZE);
    T_EQ(st.st_mtime, CHANGED);
}

T_TEST(without_o_the_name_comes_from_the_url, 120) {
    NEED_EXAMPLE("http_download");
    P_NEED("python3");
    p_args args = {{NULL}, 0};
    int port = start_web(0);
    char here[1024];
    const char *example = find_example("http_download");
    T_CHECK(getcwd(here, sizeof here) != NULL);
    if (example[0] != '/')
        example = p_format("%.200s/%s", here, example);
    p_add(&args, "sh", "-c", "cd \"$1\" && exec \"$2\" \"$3\"", "sh", f_dir(), example,
          p_format("http://127.0.0.1:%d/plain/./x/../file?a/b#c", port), NULL);
    T_EQ(p_run(&one, &args), 0);
    T_CHECK(exists("file"));
}

T_TEST(a_download_over_tls_is_verified, 120) {
    NEED_EXAMPLE("http_download");
    P_NEED("python3");
    int port = start_web(1);
    const char *url = p_format("https://localhost:%d/plain/file", port);
    must_have_got(run(&one, "http_download", "--cacert", CA, "-o", f_path("got"), url, NULL), 1);
    T_EQ(run(&one, "http_download", "--cacert", T_CERTS "other-ca.pem", "-o", f_path("got"), url,
             NULL),
         1);
    must_have_said(&one, "certificate");
    T_CHECK(!exists("got") && !exists("got.part"));

    T_STEP("the end of the connection is the end of the file only if TLS says so");
    url = p_format("https://localhost:%d/to-the-end/file", port);
    T_EQ(run(&one, "http_download", "--cacert", CA, "-o", f_path("got"), url, NULL), 1);
    must_have_said(&one, "truncated?");
    T_CHECK(!exists("got"));

    T_STEP("downgrade");
    url = p_format("https://localhost:%d/downgrade/plain/file", port);
    T_EQ(run(&one, "http_download", "--cacert", CA, "-o", f_path("got"), url, NULL), 1);
    must_have_said(&one, "not safe");
}

T_TEST(a_download_that_was_cut_off_goes_on_where_it_was, 120) {
    NEED_EXAMPLE("http_download");
    P_NEED("python3");
    int port = start_web(0);
    T_EQ(download(port, "cut/file", NULL), 1);
    must_have_said(&one, "bytes too early; -c goes on from here");
    T_CHECK(!exists("got"));
    T_EQ(part_size(), FILE_SIZE / 2);
    must_have_got(download(port, "cut/file", "-c"), 1);
    p_wait_for(&two, p_format("206 /cut/file bytes=%u-", FILE_SIZE / 2));

    T_STEP("without -c it begins anew");
    T_EQ(download(port, "cut/file", NULL), 1);
    must_have_got(download(port, "plain/file", NULL), 1);

    T_STEP("from a server that knows no ranges it comes anew as well");
    T_EQ(download(port, "cut/file", NULL), 1);
    must_have_got(download(port, "plain/file", "-c"), 1);

    T_STEP("chunks");
    T_EQ(download(port, "cut-chunked/file", NULL), 1);
    must_have_said(&one, "truncated");
    T_CHECK(!exists("got"));
}

T_TEST(a_file_that_has_changed_meanwhile_is_not_mixed_with_the_old_one, 120) {
    NEED_EXAMPLE("http_download");
    P_NEED("python3");
    int port = start_web(0);
    T_EQ(download(port, "cut/file", NULL), 1);
    T_EQ(part_size(), FILE_SIZE / 2);
    publish("file", 2, CHANGED + 60);
    must_have_got(download(port, "range/file", "-c"), 2);
    p_wait_for(&two, p_format("200 /range/file bytes=%u-", FILE_SIZE / 2));
}

T_TEST(a_part_that_is_complete_already_only_gets_its_name, 120) {
    NEED_EXAMPLE("http_download");
    P_NEED("python3");
    struct timespec times[2] = {{.tv_sec = CHANGED}, {.tv_sec = CHANGED}};
    int port = start_web(0);
    size_t size;
    char *data = f_read(root_path("file"), &size);
    const char *part = f_write("got.part", data, size);
    T_EQ(utimensat(AT_FDCWD, part, times, 0), 0);
    free(data);
    must_have_got(download(port, "range/file", "-c"), 1);
    p_wait_for(&two, p_format("416 /range/file bytes=%u-", FILE_SIZE));
}

T_TEST(an_interrupted_download_leaves_what_it_has, 120) {
    NEED_EXAMPLE("http_download");
    P_NEED("python3");
    int port = start_web(0);
    start(&one, "http_download", "-o", f_path("got"),
          p_format("http://127.0.0.1:%d/hang/file", port), NULL);
    while (part_size() < FILE_SIZE / 2)
        p_pump(&one, 0.01);
    T_EQ(kill(one.pid, SIGINT), 0);
    must_end_with(&one, 1);
    must_have_said(&one, "interrupted; -c goes on from here");
    T_CHECK(!exists("got"));
    T_EQ(part_size(), FILE_SIZE / 2);
    must_have_got(download(port, "hang/file", "-c"), 1);
    p_wait_for(&two, "206 /hang/file");
}

T_TEST(two_downloads_of_one_file_do_not_mix, 120) {
    NEED_EXAMPLE("http_download");
    P_NEED("python3");
    static p_process three;
    int port = start_web(0);
    start(&three, "http_download", "-o", f_path("got"),
          p_format("http://127.0.0.1:%d/hang/file", port), NULL);
    while (part_size() < FILE_SIZE / 2)
        p_pump(&three, 0.01);
    T_EQ(download(port, "plain/file", NULL), 1);
    must_have_said(&one, "another program");
    T_EQ(part_size(), FILE_SIZE / 2);
    T_CHECK(!exists("got"));
}

T_TEST(a_server_that_is_silent_is_not_waited_for_for_ever, 120) {
    NEED_EXAMPLE("http_download");
    P_NEED("python3");
    int port = start_web(0);
    static const char *const paths[] = {"silent", "hang/file"};
    for (int i = 0; i < 2; i++) {
        T_EQ(run(&one, "http_download", "-t", "0.3", "-o", f_path("got"),
                 p_format("http://127.0.0.1:%d/%s", port, paths[i]), NULL),
             1);
        must_have_said(&one, "timed out");
        T_CHECK(!exists("got"));
        T_EQ(part_size(), i ? FILE_SIZE / 2 : 0);
    }
}

T_TEST(what_a_server_does_wrong_is_told, 120) {
    NEED_EXAMPLE("http_download");
    P_NEED("python3");
    int port = start_web(0), deaf, closed = t_deaf_port(&deaf);
    static const struct {
        const char *path;
        int status;
        const char *says;
    } wrong[] = {
        {"status/404", 3, "404 As asked?for"},
        {"status/503", 3, "503"},
        {"status/204", 1, "204"},
        {"status/302", 1, "302"},
        {"loop", 1, "too many redirects"},
        {"redirect/1/%00", 3, "404"},
        {"garbage", 1, "does not speak HTTP"},
        {"wrong-range/file", 1, "another part"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        T_STEP("%s", wrong[i].path);
        int status = download(port, wrong[i].path, NULL);
        if (status != wrong[i].status)
            P_FAIL(&one, "%s ended with status %d", wrong[i].path, status);
        must_have_said(&one, "http_download: ");
        must_have_said(&one, wrong[i].says);
        T_CHECK(!exists("got") && !exists("got.part"));
    }
    T_EQ(download(closed, "", NULL), 1);
    must_have_said(&one, "refused");
    T_CHECK(!exists("got.part"));
    close(deaf);

    T_STEP("what cannot be written");
    T_EQ(run(&one, "http_download", "-o", f_dir(), p_format("http://127.0.0.1:%d/plain/file", port),
             NULL),
         1);
    must_have_said(&one, "is a directory");
    T_EQ(run(&one, "http_download", "-o", f_path("no/such"),
             p_format("http://127.0.0.1:%d/plain/file", port), NULL),
         1);
    must_have_said(&one, "no/such.part");
}

T_TEST(bad_urls_are_refused, 60) {
    NEED_EXAMPLE("http_download");
    /* clang-format off */
    static const char *const urls[] = {
        "ftp://localhost/file", "localhost/file", "http://", "http://:80/", "http://[::1/",
        "http://localhost:65536/", "http://localhost:http/", "http://me@localhost/",
        "http://local host/", "http://localhost/a b", "http://[::1]x/", "http://[nonsense]/"};
    /* clang-format on */
    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        T_STEP("%s", urls[i]);
        T_EQ(run(&one, "http_download", "-o", f_path("got"), urls[i], NULL), 2);
        must_have_said(&one, "bad URL: ");
    }
}

T_TEST(a_terminal_gets_a_progress_bar, 120) {
    NEED_EXAMPLE("http_download");
    P_NEED("python3");
    p_args args = {{NULL}, 0};
    int port = start_web(0);
    p_add(&args, "python3", "-c", IN_A_TERMINAL, find_example("http_download"), "-o", f_path("got"),
          p_format("http://127.0.0.1:%d/range/file", port), NULL);
    T_EQ(p_run(&one, &args), 0);
    must_have_said(&one, "[##############################] 100%  976.6 KiB of 976.6 KiB");
    T_CHECK(exists("got"));
}

/* ==== port_scan, udp_echo, unix_fds ==== */

static int compare_ints(const void *a, const void *b) {
    return *(const int *)a - *(const int *)b;
}

T_TEST(open_ports_are_found_and_closed_ones_are_not, 120) {
    NEED_EXAMPLE("port_scan");
    enum { COUNT = 5 };
    int fds[COUNT], ports[COUNT], deaf, closed = t_deaf_port(&deaf);
    char list[256] = "", want[256] = "";
    for (int i = 0; i < COUNT; i++)
        fds[i] = t_raw_listen(&ports[i]);
    qsort(ports, COUNT, sizeof ports[0], compare_ints);
    for (int i = 0; i < COUNT; i++) {
        snprintf(list + strlen(list), sizeof list - strlen(list), "%d,", ports[i]);
        snprintf(want + strlen(want), sizeof want - strlen(want), "%5d  ?\n", ports[i]);
    }
    for (int limit = 1; limit <= 500; limit = limit * 8 + 4) {
        T_EQ(run(&one, "port_scan", "-n", digits(limit), "-t", "10", "localhost",
                 p_format("%s%d", list, closed), NULL),
             0);
        for (const char *c = p_string(&one.said), *w = want; *w || *c; c++, w++)
            if (*c != *w && *w != '?') /* one of them may have a name in /etc/services */
                P_FAIL(&one, "that is not\n%s", want);
        must_have_said(&one, "5 open, 1 closed, 0 silent");
    }
    for (int i = 0; i < COUNT; i++)
        close(fds[i]);
    close(deaf);
}

T_TEST(a_port_that_does_not_answer_costs_its_timeout_and_no_more, 120) {
    NEED_EXAMPLE("port_scan");
    int fds[2], silent = t_silent_port(fds), open_port, listener = t_raw_listen(&open_port);
    T_EQ(run(&one, "port_scan", "-t", "0.3", "-n", "1", p_format("%d,%d", silent, open_port), NULL),
         0);
    must_have_said(&one, "1 open, 0 closed, 1 silent");
    must_have_said(&one, p_format("%d  ", open_port));
    close(fds[0]);
    close(fds[1]);
    close(listener);
}

/* All of it on an address of our own: what else listens on this machine is left in peace. */
T_TEST(a_range_is_scanned_within_a_limit_of_descriptors, 300) {
    NEED_EXAMPLE("port_scan");
    int port, fd = listen_on_own_address(&port);
    p_args args = {{NULL}, 0};
    p_add(&args, "sh", "-c", "ulimit -n 64 && exec \"$@\"", "sh", find_example("port_scan"), "-n",
          "500", "-t", "20", own_host(), "20001-22000", NULL);
    if (p_run(&one, &args) != 0)
        P_FAIL(&one, "port_scan failed");
    must_have_said(&one, p_format("%5d  ", port));
    must_have_said(&one, " 0 silent");
    close(fd);
}

T_TEST(other_machines_are_not_scanned, 60) {
    NEED_EXAMPLE("port_scan");
    static const char *const hosts[] = {"192.0.2.1", "0.0.0.0",   "2001:db8::1",
                                        "::",        "128.0.0.1", "::ffff:127.0.0.1"};
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        T_EQ(run(&one, "port_scan", hosts[i], "80", NULL), 2);
        must_have_said(&one, hosts[i]);
        must_have_said(&one, "loopback");
    }
    static const char *const ports[] = {"0", "65536", "80-", "-80", "90-80", "80,", "http", ""};
    for (size_t i = 0; i < sizeof ports / sizeof ports[0]; i++)
        T_EQ(run(&one, "port_scan", "127.0.0.1", ports[i], NULL), 2);
}

T_TEST(udp_echo_demonstrates_itself, 60) {
    NEED_EXAMPLE("udp_echo");
    int status = run(&one, "udp_echo", NULL);
    if (status != 0)
        P_FAIL(&one, "status %d", status);
    must_have_said(&one, "'three' echoed after");
    must_have_said(&one, "attempt 2");
    must_have_said(&one, "refused");
}

T_TEST(udp_echo_serves_its_client, 60) {
    NEED_EXAMPLE("udp_echo");
    start(&two, "udp_echo", "server", "-d", "2", "-b", "", "0", NULL);
    const char *port = digits(listening_port(&two));
    for (int i = 0; i < (has_ipv6_loopback() ? 2 : 1); i++) {
        T_EQ(run(&one, "udp_echo", "client", i ? "::1" : "127.0.0.1", port, "hello", "again", NULL),
             0);
        must_have_said(&one, "'hello' echoed after");
        must_have_said(&one, "'again' echoed after");
        must_have_said(&one, "attempt 2");
    }
    T_EQ(run(&one, "udp_echo", "client", "localhost", port, NULL), 0);
    must_have_said(&one, "'hello' echoed after");
    T_EQ(kill(two.pid, SIGTERM), 0);
    must_end_with(&two, 0);
}

/* What comes late or twice is not taken for the answer to something else. */
T_TEST(udp_echo_drops_answers_to_something_else, 60) {
    NEED_EXAMPLE("udp_echo");
    struct sockaddr_in in, from;
    socklen_t len = sizeof in;
    char data[1500], again[1500];
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    memset(&in, 0, sizeof in);
    in.sin_family = AF_INET;
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    T_EQ(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
    T_EQ(getsockname(fd, (struct sockaddr *)&in, &len), 0);
    start(&one, "udp_echo", "client", "127.0.0.1", digits(ntohs(in.sin_port)), "first", "second",
          NULL);
    len = sizeof from;
    ssize_t n = recvfrom(fd, data, sizeof data, 0, (struct sockaddr *)&from, &len);
    T_CHECK(n > 5);
    T_EQ(sendto(fd, "nonsense", 8, 0, (struct sockaddr *)&from, len), 8);
    T_EQ(sendto(fd, "", 0, 0, (struct sockaddr *)&from, len), 0);
    T_EQ(recv(fd, again, sizeof again, 0), n); /* it says it again, in the same words */
    T_EQ(memcmp(data, again, (size_t)n), 0);
    for (int i = 0; i < 2; i++) /* the second is no answer to what comes next */
        T_EQ(sendto(fd, data, (size_t)n, 0, (struct sockaddr *)&from, len), n);
    do
        n = recv(fd, data, sizeof data, 0);
    while (n > 0 && memcmp(data, again, (size_t)n) == 0);
    T_CHECK(n > 6 && memcmp(data + n - 6, "second", 6) == 0);
    T_EQ(recv(fd, again, sizeof again, 0), n);
    T_EQ(memcmp(data, again, (size_t)n), 0);
    T_EQ(sendto(fd, data, (size_t)n, 0, (struct sockaddr *)&from, len), n);
    must_end_with(&one, 0);
    must_have_said(&one, "'first' echoed");
    must_have_said(&one, "'second' echoed");
    close(fd);
}

T_TEST(udp_echo_gives_up_on_a_server_that_never_answers, 60) {
    NEED_EXAMPLE("udp_echo");
    struct sockaddr_in in;
    socklen_t len = sizeof in;
    char data[1500];
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), count = 0;
    memset(&in, 0, sizeof in);
    in.sin_family = AF_INET;
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    T_EQ(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
    T_EQ(getsockname(fd, (struct sockaddr *)&in, &len), 0);
    T_EQ(run(&one, "udp_echo", "client", "127.0.0.1", digits(ntohs(in.sin_port)), NULL), 1);
    must_have_said(&one, "no answer to 'hello' after 5 attempts");
    while (recv(fd, data, sizeof data, MSG_DONTWAIT) > 0)
        count++;
    T_EQ(count, 5);
    close(fd);
}

T_TEST(descriptors_are_passed_and_used, 60) {
    NEED_EXAMPLE("unix_fds");
    int status = run(&one, "unix_fds", NULL);
    if (status != 0)
        P_FAIL(&one, "status %d", status);
    must_have_said(&one, "has received descriptors");
    must_have_said(&one, "the child served: written by the parent");
    T_EQ(one.complained.size, 0);
}

T_MAIN(.setup = ignore_SIGPIPE, .each_teardown = p_clear_away)
