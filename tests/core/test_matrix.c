/* Every kind of socket in every blocking mode, in both roles, driven in every way: {plain, TLS} x
   {blocking, timed, non-blocking} x {client, server} x {direct, select, poller}. One end is under
   test; the other is a reference (blocking, a thread for each direction), a raw descriptor, or a
   twin of the end under test. The tests' names are made of the row. */
#include "support/contexts.h"

enum mode { BLOCKING, TIMED, NONBLOCKING };
enum style { DIRECT, SELECT, POLLER };

/* The size of one direction of a transfer: odd on purpose. */
#define TRANSFER ((uint64_t)T_SCALE(10 * 1024 * 1024 + 7, 1024 * 1024 + 7))

static const double mode_timeout[] = {PYSOCK_NO_TIMEOUT, 60.0, 0.0};

static const size_t odd_sizes[] = {1,     65537, 17,    16384, 4093, 127,   16385,
                                   40009, 3,     16383, 1021,  8192, 65521, 28657};
#define ODD_SIZES (sizeof odd_sizes / sizeof odd_sizes[0])
#define LARGEST 65537

typedef struct end {
    int tls;
    enum mode mode;
    enum style style;
    int is_server;
    int is_raw;
    pysock_ssl_context *ctx; /* borrowed */
    pysock *listener;        /* a server's */
    int raw_listener;
    pysock *s;
    int raw;
    pysock_poller *poller;
    uint64_t total;    /* to send and to receive */
    uint64_t sent;     /* the writer's */
    uint64_t received; /* the reader's */
    size_t send_turn, recv_turn;
    unsigned int seed_out, seed_in;
} end;

typedef enum scenario {
    TRANSFERS,
    TRANSFERS_WITH_A_RAW_PEER,
    TRANSFERS_WITH_ITS_TWIN,
    SEES_AN_ABRUPT_CLOSE,
    TELLS_A_RAGGED_END,
    TIMES_OUT,
    IS_REFUSED,
    FINDS_NO_SUCH_NAME,
    WRAPS_BEFORE_CONNECT,
    ACCEPTS_TLS_CHILDREN,
    SCENARIOS
} scenario;

typedef struct row {
    int tls;
    enum mode mode;
    enum style style;
    int is_server;
    scenario what;
    char name[128];
} row;

/* ---- one end, whatever it is ---- */

static void end_init(end *e, const row *r, int is_server) {
    memset(e, 0, sizeof *e);
    e->tls = r->tls;
    e->mode = r->mode;
    e->style = r->style;
    e->is_server = is_server;
    e->ctx = is_server ? server_ctx : client_ctx;
    e->raw = e->raw_listener = -1;
    e->total = TRANSFER;
    e->seed_out = is_server ? 1 : 2;
    e->seed_in = is_server ? 2 : 1;
    if (e->style == POLLER)
        e->poller = T_OK(pysock_poller_new());
}

/* The other end of the one that a row tests: blocking, without select or poller. */
static void end_init_reference(end *e, const row *r, int is_server) {
    row reference = *r;
    reference.mode = BLOCKING;
    reference.style = DIRECT;
    end_init(e, &reference, is_server);
}

static short wait_by_select(pysock *s, short events, double timeout) {
    int fd = T_OK(pysock_fileno(s));
    int r = fd, w = fd;
    size_t nr = (events & POLLIN) ? 1 : 0;
    size_t nw = (events & POLLOUT) ? 1 : 0;
    ptrdiff_t n = T_OK(pysock_select(&r, &nr, &w, &nw, NULL, NULL, timeout));
    T_EQ(n, nr + nw);
    T_CHECK(n > 0 || timeout >= 0);
    T_CHECK((!nr || r == fd) && (!nw || w == fd));
    return (short)((nr ? POLLIN : 0) | (nw ? POLLOUT : 0));
}

static short wait_by_poller(pysock_poller *p, pysock *s, short events, double timeout) {
    pysock_pollevent event = {-1, 0, NULL};
    int fd = T_OK(pysock_fileno(s));
    short ready;
    ptrdiff_t n;
    T_OK(pysock_poller_register(p, fd, (uint32_t)events, NULL));
    n = T_OK(pysock_poller_poll(p, &event, 1, timeout));
    if (n == 0) {
        T_CHECK(timeout >= 0);
        return 0;
    }
    T_EQ(n, 1);
    T_EQ(event.fd, fd);
    ready = event.events;
    T_CHECK(ready != 0);
    T_CHECK(!(ready & POLLNVAL));
    if (ready & (POLLERR | POLLHUP))
        ready = (short)(ready | events);
    return (short)(ready & events);
}

/* What is true of POLLIN and POLLOUT, told by a select or a poller as the style has it. */
static short end_wait_on(end *e, pysock *s, short events, double timeout) {
    if (e->style == POLLER)
        return wait_by_poller(e->poller, s, events, timeout);
    return wait_by_select(s, events, timeout);
}

static short end_wait(end *e, short events, double timeout) {
    return end_wait_on(e, e->s, events, timeout);
}

static void end_forget_on(end *e, pysock *s) {
    if (e->poller)
        (void)pysock_poller_unregister(e->poller, pysock_fileno(s));
}

static void end_close(end *e) {
    if (e->s) {
        end_forget_on(e, e->s);
        T_OK(pysock_close(e->s));
    }
    if (e->listener)
        T_OK(pysock_close(e->listener));
    if (e->raw >= 0)
        close(e->raw);
    if (e->raw_listener >= 0)
        close(e->raw_listener);
    e->s = e->listener = NULL;
    e->raw = e->raw_listener = -1;
    pysock_poller_release(e->poller);
    e->poller = NULL;
}

static int end_listen(end *e) {
    int port;
    if (e->is_raw) {
        e->raw_listener = t_raw_listen(&port);
        return port;
    }
    e->listener = t_listen(&port);
    T_OK(pysock_settimeout(e->listener, mode_timeout[e->mode]));
    return port;
}

/* The documented loop, with nothing but "in progress" in it. */
static void end_finish_handshake(end *e) {
    while (t_in_progress(pysock_ssl_do_handshake(e->s))) {
        T_EQ(e->mode, NONBLOCKING);
        (void)end_wait(e, POLLOUT, PYSOCK_NO_TIMEOUT);
    }
    T_CHECK(strcmp(pysock_ssl_version(e->s), "TLSv1.2") == 0);
}

static void end_wrap(end *e) {
    T_OK(pysock_ssl_wrap_socket(e->s, e->ctx, e->is_server ? NULL : "localhost"));
    T_EQ(pysock_is_ssl(e->s), 1);
}

/* A socket of the right mode that is not connected yet. */
static void end_make_socket(end *e) {
    e->s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_settimeout(e->s, mode_timeout[e->mode]));
}

static void end_connect_only(end *e, int port) {
    int error = -1;
    int rc = pysock_connect(e->s, "127.0.0.1", port);
    if (e->mode == NONBLOCKING) {
        T_EQ(rc, -1);
        T_EQ(errno, EINPROGRESS);
        T_EQ(pysock_error(), PYSOCK_OS_ERROR);
        while (!end_wait(e, POLLOUT, PYSOCK_NO_TIMEOUT))
            continue;
    } else {
        T_OK(rc);
    }
    T_OK(pysock_getsockopt_int(e->s, SOL_SOCKET, SO_ERROR, &error));
    T_EQ(error, 0);
}

static void end_connect(end *e, int port) {
    if (e->is_raw) {
        e->raw = t_raw_connect(port);
        return;
    }
    end_make_socket(e);
    end_connect_only(e, port);
    if (!e->tls)
        return;
    end_wrap(e);
    end_finish_handshake(e);
}

static void end_accept_only(end *e) {
    if (e->style != DIRECT)
        T_EQ(end_wait_on(e, e->listener, POLLIN, PYSOCK_NO_TIMEOUT), POLLIN);
    while (!(e->s = pysock_accept(e->listener, NULL))) {
        T_EQ(e->mode, NONBLOCKING);
        T_EQ(e->style, DIRECT);
        T_EQ(errno, EAGAIN);
        T_EQ(end_wait_on(e, e->listener, POLLIN, PYSOCK_NO_TIMEOUT), POLLIN);
    }
    T_CHECK(pysock_gettimeout(e->s) == PYSOCK_NO_TIMEOUT);
    T_OK(pysock_settimeout(e->s, mode_timeout[e->mode]));
    end_forget_on(e, e->listener);
}

static void end_accept(end *e) {
    if (e->is_raw) {
        e->raw = t_raw_accept(e->raw_listener);
        return;
    }
    end_accept_only(e);
    if (!e->tls)
        return;
    end_wrap(e);
    end_finish_handshake(e);
}

/* One recv, waited for as mode and style have it. */
static ptrdiff_t end_recv(end *e, void *buf, size_t size) {
    ptrdiff_t n;
    if (e->is_raw)
        return recv(e->raw, buf, size, 0);
    if (e->style != DIRECT)
        T_EQ(end_wait(e, POLLIN, PYSOCK_NO_TIMEOUT), POLLIN);
    for (;;) {
        n = pysock_recv(e->s, buf, size, 0);
        if (n >= 0 || errno != EAGAIN)
            return n;
        T_EQ(e->mode, NONBLOCKING);
        T_EQ(e->style, DIRECT);
        T_EQ(end_wait(e, POLLIN, PYSOCK_NO_TIMEOUT), POLLIN);
    }
}

static void end_expect(end *e, const char *text) {
    char buf[128];
    size_t want = strlen(text), have = 0;
    while (have < want) {
        ptrdiff_t n = end_recv(e, buf + have, want - have);
        T_CHECK(n > 0);
        have += (size_t)n;
    }
    T_CHECK(memcmp(buf, text, want) == 0);
}

/* The end of the stream stays the end, however often one asks. */
static void end_expect_eof(end *e) {
    char buf[16];
    T_EQ(end_recv(e, buf, sizeof buf), 0);
    T_EQ(end_recv(e, buf, sizeof buf), 0);
}

/* ---- the full-duplex engine ---- */

/* Sends one piece. 1: some went. 0: it would have to wait. */
static int send_some(end *e) {
    unsigned char buf[LARGEST];
    size_t size = odd_sizes[e->send_turn++ % ODD_SIZES];
    ptrdiff_t n;
    if (size > e->total - e->sent)
        size = (size_t)(e->total - e->sent);
    t_fill(buf, size, e->sent, e->seed_out);
    if (e->is_raw)
        n = send(e->raw, buf, size, MSG_NOSIGNAL);
    else
        n = pysock_send(e->s, buf, size, 0);
    if (n < 0 && errno == EAGAIN && e->mode == NONBLOCKING)
        return 0;
    T_CHECK(n > 0 && (size_t)n <= size);
    e->sent += (uint64_t)n;
    return 1;
}

static int recv_some(end *e) {
    unsigned char buf[LARGEST];
    size_t size = odd_sizes[(e->recv_turn++ * 5 + 2) % ODD_SIZES];
    ptrdiff_t n;
    if (e->is_raw)
        n = recv(e->raw, buf, size, 0);
    else
        n = pysock_recv(e->s, buf, size, 0);
    if (n < 0 && errno == EAGAIN && e->mode == NONBLOCKING)
        return 0;
    T_CHECK(n > 0 && (size_t)n <= size);
    T_CHECK(e->received + (uint64_t)n <= e->total);
    t_verify(buf, (size_t)n, e->received, e->seed_in);
    e->received += (uint64_t)n;
    return 1;
}

static void *send_all_of_it(void *arg) {
    end *e = arg;
    while (e->sent < e->total)
        T_CHECK(send_some(e));
    return NULL;
}

static void transfer_with_two_threads(end *e) {
    t_thread writer;
    t_spawn(&writer, send_all_of_it, e);
    while (e->received < e->total)
        T_CHECK(recv_some(e));
    t_join(&writer);
}

static short wanted(const end *e) {
    return (short)((e->received < e->total ? POLLIN : 0) | (e->sent < e->total ? POLLOUT : 0));
}

/* Tries first and waits after EAGAIN. */
static void transfer_by_trying(end *e) {
    while (wanted(e)) {
        int moved = 0;
        if (wanted(e) & POLLIN)
            moved |= recv_some(e);
        if (wanted(e) & POLLOUT)
            moved |= send_some(e);
        if (!moved)
            (void)end_wait(e, wanted(e), PYSOCK_NO_TIMEOUT);
    }
}

/* Asks first; what it is told must be true: nobody else uses the socket. */
static void transfer_by_asking(end *e) {
    while (wanted(e)) {
        short ready = end_wait(e, wanted(e), PYSOCK_NO_TIMEOUT);
        T_CHECK(ready != 0);
        if ((ready & POLLIN) && !recv_some(e))
            T_FAIL("said readable, but recv would wait");
        if ((ready & POLLOUT) && !send_some(e))
            T_FAIL("said writable, but send would wait");
    }
}

static void end_transfer(end *e) {
    if (e->is_raw || (e->style == DIRECT && e->mode != NONBLOCKING))
        transfer_with_two_threads(e);
    else if (e->style == DIRECT)
        transfer_by_trying(e);
    else
        transfer_by_asking(e);
}

/* ---- transfers ---- */

static const char after_half_close[] = "one direction still works";

static void end_say(end *e, const char *text) {
    if (e->is_raw)
        t_raw_write(e->raw, text, strlen(text));
    else
        t_say(e->s, text);
}

static void end_half_close(end *e) {
    if (e->is_raw)
        T_EQ(shutdown(e->raw, SHUT_WR), 0);
    else
        T_OK(pysock_shutdown(e->s, SHUT_WR));
}

/* Plain sockets: the client ends its direction, the server hears it and answers all the same. TLS
   1.2 has no half-close: the client closes, and the server sees a clean end. */
static void server_ends(end *e) {
    T_STEP("the server waits for the end");
    end_expect_eof(e);
    if (e->tls)
        T_EQ(pysock_ssl_eof_is_clean(e->s), 1);
    else
        end_say(e, after_half_close);
    end_close(e);
}

static void client_ends(end *e) {
    T_STEP("the client ends");
    if (!e->tls) {
        end_half_close(e);
        end_expect(e, after_half_close);
        end_expect_eof(e);
    }
    end_close(e);
}

static void *serve_transfer(void *arg) {
    end *e = arg;
    T_STEP("the server accepts");
    end_accept(e);
    T_STEP("the server transfers");
    end_transfer(e);
    server_ends(e);
    return NULL;
}

static void run_transfer(end *client, end *server) {
    t_thread t;
    int port = end_listen(server);
    t_spawn(&t, serve_transfer, server);
    T_STEP("the client connects");
    end_connect(client, port);
    T_STEP("the client transfers");
    end_transfer(client);
    client_ends(client);
    t_join(&t);
}

static void transfers(const row *r) {
    end tested, other;
    end_init(&tested, r, r->is_server);
    if (r->what == TRANSFERS_WITH_ITS_TWIN)
        end_init(&other, r, !r->is_server);
    else
        end_init_reference(&other, r, !r->is_server);
    other.is_raw = r->what == TRANSFERS_WITH_A_RAW_PEER;
    if (r->is_server)
        run_transfer(&other, &tested);
    else
        run_transfer(&tested, &other);
}

/* ---- how it can end ---- */

static void *accept_thread(void *arg) {
    end_accept(arg);
    return NULL;
}

/* Connects the two ends of a row, handshakes included. */
static void connect_ends(const row *r, end *tested, end *other) {
    t_thread t;
    end *client = r->is_server ? other : tested;
    end *server = r->is_server ? tested : other;
    int port;
    end_init(tested, r, r->is_server);
    end_init_reference(other, r, !r->is_server);
    port = end_listen(server);
    t_spawn(&t, accept_thread, server);
    T_STEP("connect");
    end_connect(client, port);
    t_join(&t);
}

static void sees_an_abrupt_close(const row *r) {
    end tested, other;
    char buf[8];
    connect_ends(r, &tested, &other);
    T_STEP("a byte each way, so that nothing of the handshake is on its way");
    end_say(&tested, "x");
    end_expect(&other, "x");
    end_say(&other, "y");
    end_expect(&tested, "y");
    T_STEP("reset");
    t_raw_reset(pysock_fileno(other.s));
    T_FAILS(end_recv(&tested, buf, sizeof buf), PYSOCK_OS_ERROR, ECONNRESET);
    T_CHECK(strcmp(pysock_error_name(), "ConnectionResetError") == 0);
    T_CHECK(strcmp(pysock_error_reason(), "ECONNRESET") == 0);
    T_STEP("sending now fails and raises no signal");
    T_FAILS(pysock_send(tested.s, "z", 1, 0), T_ANY, T_ANY);
    T_FAILS(pysock_sendall(tested.s, "z", 1, 0), T_ANY, T_ANY);
    end_close(&tested);
    end_close(&other);
}

/* The peer's kernel ends the stream, but its TLS never said close_notify. */
static void tells_a_ragged_end(const row *r) {
    end tested, other;
    connect_ends(r, &tested, &other);
    end_say(&tested, "x");
    end_expect(&other, "x");
    end_say(&other, "the last words");
    T_EQ(shutdown(pysock_fileno(other.s), SHUT_WR), 0);
    T_STEP("the data comes before the end");
    end_expect(&tested, "the last words");
    end_expect_eof(&tested);
    T_EQ(pysock_ssl_eof_is_clean(tested.s), 0);
    end_close(&tested);
    end_close(&other);
}

/* Waits in vain for s to be readable, as the mode and the style of e have it. */
static void wait_in_vain(end *e, pysock *s, int is_listener) {
    double start = t_now();
    char buf[8];
    if (e->mode == TIMED && e->style == DIRECT) {
        T_OK(pysock_settimeout(s, 0.05));
        if (is_listener)
            T_FAILS(pysock_accept(s, NULL), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
        else
            T_FAILS(pysock_recv(s, buf, sizeof buf, 0), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
        T_CHECK(strcmp(pysock_error_name(), "TimeoutError") == 0);
        T_OK(pysock_settimeout(s, mode_timeout[e->mode]));
    } else {
        T_EQ(end_wait_on(e, s, POLLIN, 0), 0);
        T_EQ(end_wait_on(e, s, POLLIN, 0.05), 0);
    }
    T_CHECK(t_now() - start >= 0.045);
    if (e->mode != NONBLOCKING)
        return;
    if (is_listener)
        T_FAILS(pysock_accept(s, NULL), PYSOCK_OS_ERROR, EAGAIN);
    else
        T_FAILS(pysock_recv(s, buf, sizeof buf, 0), PYSOCK_OS_ERROR, EAGAIN);
    T_CHECK(strcmp(pysock_error_name(), "BlockingIOError") == 0);
}

/* A timeout costs nothing but time: the connection is as good as before. */
static void times_out(const row *r) {
    end tested, other;
    connect_ends(r, &tested, &other);
    T_STEP("nothing comes");
    if (r->is_server) {
        end_forget_on(&tested, tested.s);
        wait_in_vain(&tested, tested.listener, 1);
        end_forget_on(&tested, tested.listener);
    }
    wait_in_vain(&tested, tested.s, 0);
    T_STEP("then something does");
    end_say(&other, "late");
    end_expect(&tested, "late");
    end_say(&tested, "but welcome");
    end_expect(&other, "but welcome");
    end_close(&tested);
    end_close(&other);
}

/* ---- clients that get nowhere ---- */

static void expect_failed_connect(end *e, const char *host, int port, int kind, int code) {
    char buf[8];
    if (e->mode != NONBLOCKING) {
        T_FAILS(pysock_connect(e->s, host, port), kind, code);
        return;
    }
    T_FAILS(pysock_connect(e->s, host, port), PYSOCK_OS_ERROR, EINPROGRESS);
    T_STEP("a failed connect is readable and writable");
    while (end_wait(e, POLLIN | POLLOUT, PYSOCK_NO_TIMEOUT) != (POLLIN | POLLOUT))
        continue;
    T_FAILS(pysock_recv(e->s, buf, sizeof buf, 0), kind, code);
}

static void is_refused(const row *r) {
    end e;
    int reserved;
    int port = t_deaf_port(&reserved);
    end_init(&e, r, 0);
    end_make_socket(&e);
    if (e.tls)
        end_wrap(&e);
    expect_failed_connect(&e, "127.0.0.1", port, PYSOCK_OS_ERROR, ECONNREFUSED);
    T_CHECK(strcmp(pysock_error_name(), "ConnectionRefusedError") == 0);
    T_CHECK(strcmp(pysock_error_reason(), "ECONNREFUSED") == 0);
    end_close(&e);
    close(reserved);
}

static void finds_no_such_name(const row *r) {
    end e;
    end_init(&e, r, 0);
    end_make_socket(&e);
    if (e.tls)
        end_wrap(&e);
    expect_failed_connect(&e, "name.invalid", 80, PYSOCK_GAI_ERROR, T_ANY);
    T_CHECK(strcmp(pysock_error_name(), "gaierror") == 0);
    T_CHECK(strncmp(pysock_error_reason(), "EAI_", 4) == 0);
    T_CHECK(strstr(pysock_error_message(), "name.invalid") != NULL);
    end_close(&e);
}

/* ---- TLS wrapped before there is a connection ---- */

static void *serve_small_talk(void *arg) {
    end *e = arg;
    end_accept(e);
    end_expect(e, "ping");
    end_say(e, "pong");
    end_expect_eof(e);
    end_close(e);
    return NULL;
}

static void client_small_talk(end *e) {
    end_say(e, "ping");
    end_expect(e, "pong");
    end_close(e);
}

/* connect() does the handshake too; a non-blocking socket is writable when both are done. */
static void wraps_before_connect(const row *r) {
    end client, server;
    t_thread t;
    int port;
    end_init(&client, r, 0);
    end_init_reference(&server, r, 1);
    port = end_listen(&server);
    t_spawn(&t, serve_small_talk, &server);
    end_make_socket(&client);
    end_wrap(&client);
    T_CHECK(pysock_ssl_version(client.s) == NULL);
    end_connect_only(&client, port);
    T_EQ(pysock_ssl_do_handshake(client.s), 0);
    T_CHECK(strcmp(pysock_ssl_version(client.s), "TLSv1.2") == 0);
    client_small_talk(&client);
    t_join(&t);
}

static void *serve_tls_children(void *arg) {
    end *e = arg;
    end_accept_only(e);
    T_EQ(pysock_is_ssl(e->s), 1);
    T_STEP("the first call on the child, or the reactor, does the handshake");
    end_expect(e, "ping");
    end_say(e, "pong");
    end_expect_eof(e);
    T_EQ(pysock_ssl_eof_is_clean(e->s), 1);
    end_close(e);
    return NULL;
}

static void accepts_tls_children(const row *r) {
    end client, server;
    t_thread t;
    int port;
    end_init_reference(&client, r, 0);
    end_init(&server, r, 1);
    port = end_listen(&server);
    T_OK(pysock_ssl_wrap_socket(server.listener, server_ctx, NULL));
    t_spawn(&t, serve_tls_children, &server);
    end_connect(&client, port);
    client_small_talk(&client);
    t_join(&t);
}

/* ---- the rows ---- */

static void run_row(void **state) {
    const row *r = *state;
    t_deadline_at(r->name, 120);
    switch (r->what) {
    case TRANSFERS:
    case TRANSFERS_WITH_A_RAW_PEER:
    case TRANSFERS_WITH_ITS_TWIN: transfers(r); break;
    case SEES_AN_ABRUPT_CLOSE: sees_an_abrupt_close(r); break;
    case TELLS_A_RAGGED_END: tells_a_ragged_end(r); break;
    case TIMES_OUT: times_out(r); break;
    case IS_REFUSED: is_refused(r); break;
    case FINDS_NO_SUCH_NAME: finds_no_such_name(r); break;
    case WRAPS_BEFORE_CONNECT: wraps_before_connect(r); break;
    case ACCEPTS_TLS_CHILDREN: accepts_tls_children(r); break;
    case SCENARIOS: break;
    }
}

static int row_makes_sense(const row *r) {
    int waits_forever = r->mode == BLOCKING && r->style == DIRECT;
    switch (r->what) {
    case TRANSFERS_WITH_A_RAW_PEER: return !r->tls;
    case TRANSFERS_WITH_ITS_TWIN: return r->mode == NONBLOCKING && !r->is_server;
    case TELLS_A_RAGGED_END: return r->tls;
    case TIMES_OUT: return !waits_forever;
    case IS_REFUSED:
    case FINDS_NO_SUCH_NAME: return !r->is_server;
    case WRAPS_BEFORE_CONNECT: return r->tls && !r->is_server;
    case ACCEPTS_TLS_CHILDREN: return r->tls && r->is_server;
    default: return 1;
    }
}

static const char *row_name(row *r) {
    static const char *const what[SCENARIOS] = {"transfers_10_MB_both_ways_at_once",
                                                "transfers_10_MB_both_ways_with_a_raw_peer",
                                                "transfers_10_MB_both_ways_with_its_twin",
                                                "sees_an_abrupt_close",
                                                "tells_a_ragged_end_from_a_clean_one",
                                                "times_out_and_goes_on",
                                                "is_refused",
                                                "finds_no_such_name",
                                                "wraps_before_connect",
                                                "accepts_children_that_are_TLS"};
    static const char *const mode[] = {"blocking", "timed", "nonblocking"};
    static const char *const style[] = {"direct", "select", "poller"};
    snprintf(r->name, sizeof r->name, "%s_%s_%s_%s_%s", r->tls ? "tls" : "plain", mode[r->mode],
             r->is_server ? "server" : "client", style[r->style], what[r->what]);
    return r->name;
}

#define ROWS (SCENARIOS * 2 * 3 * 3 * 2)

__attribute__((constructor)) static void add_rows(void) {
    static row rows[ROWS];
    for (int i = 0; i < ROWS; i++) {
        row *r = &rows[i];
        r->what = (scenario)(i / 36);
        r->tls = i / 18 % 2;
        r->mode = (enum mode)(i / 6 % 3);
        r->style = (enum style)(i / 2 % 3);
        r->is_server = i % 2;
        if (row_makes_sense(r)) {
            struct CMUnitTest test = {row_name(r), run_row, NULL, NULL, r};
            t_add(i, test);
        }
    }
}

T_MAIN(.setup = make_contexts_and_a_short_wait, .teardown = free_contexts)
