/* Signals that come while any call waits, and the interrupt hook, which says whether the call
   ends. */
#include "binding/hooks.h"

#include <sys/time.h>

/* ---- signals ----
   Every call that may wait, on a thread of its own, in a scene where it has to. */

typedef enum place {
    IDLE,          /* connected; nothing comes */
    DATAGRAM,      /* bound, UDP; nothing comes */
    FULL,          /* connected; the peer does not read */
    FULL_MESSAGES, /* the same, of messages */
    LISTENER,      /* nobody connects */
    BACKLOG,       /* TCP: the listener's queue is full */
    UNIX_BACKLOG,  /* the same with a Unix name */
    SHAKING,       /* the peer does not say hello */
    UNWRAPPING     /* the peer does not say goodbye */
} place;

enum {
    PARTLY = 1, /* some of what is read has come already */
    LOSSY = 2,  /* nobody can tell how much an interrupted one has sent: not repeated */
    READ_FILE = 4,
    READ_RAW_FILE = 8,
    WRITE_FILE = 16,
    WRITE_RAW_FILE = 32,
    READ_STDIO = 64,
    WRITE_STDIO = 128,
    POLLED_IN = 256,
    POLLED_OUT = 512,
    QUEUED = 1024, /* with a queue at its high watermark */
    FROM_DISK = 2048,
    SERVER = 4096,   /* the server's side of a handshake */
    ONCE = 8192,     /* an interrupted one leaves nothing that could be repeated */
    BUFFERED = 16384 /* a file with a piece in its buffer */
};

typedef struct scene scene;

typedef struct op {
    const char *name;
    place where;
    int tls;
    intptr_t (*run)(scene *sc);
    int flags;
} op;

struct scene {
    const op *op;
    double timeout;
    pysock *s, *peer, *child;
    pysock_poller *poller;
    pysock_file *file;
    FILE *stdio;
    int fds[2], disk, port;
    pysock_addr addr;
    char name[64];
    char got[64]; /* by a reader */
    size_t have;
    size_t sent; /* by a writer, or to fill the socket */
    size_t drained;
    t_thread thread, drain;
    int draining;
    intptr_t result;
    int code;
    double took;
    int ended; /* atomic */
    int asked; /* atomic: how often the interrupt hook was, on its thread */
};

enum { BULK = 3 * 1024 * 1024, PIECE = 1000 };

static unsigned char *bulk; /* what every writer sends, from its beginning */

static const char line[] = "line\n"; /* what every reader reads */

#define LINE (sizeof line - 1)

static intptr_t took_in(scene *sc, ptrdiff_t n) {
    sc->have += n > 0 ? (size_t)n : 0;
    return n;
}

static intptr_t sent_out(scene *sc, ptrdiff_t n) {
    sc->sent += n > 0 ? (size_t)n : 0;
    return n;
}

#define SPACE sc->got + sc->have, sizeof sc->got - 1 - sc->have

/* ---- reading ---- */

static intptr_t run_recv(scene *sc) {
    return took_in(sc, pysock_recv(sc->s, SPACE, 0));
}

static intptr_t run_recv_into(scene *sc) {
    return took_in(sc, pysock_recv_into(sc->s, SPACE, 0));
}

static intptr_t run_recvfrom(scene *sc) {
    return took_in(sc, pysock_recvfrom(sc->s, SPACE, 0, &sc->addr));
}

static intptr_t run_recvfrom_into(scene *sc) {
    return took_in(sc, pysock_recvfrom_into(sc->s, SPACE, 0, NULL));
}

static intptr_t run_recvmsg(scene *sc) {
    pysock_msg msg;
    memset(&msg, 0, sizeof msg);
    return took_in(sc, pysock_recvmsg(sc->s, SPACE, &msg, 0));
}

static intptr_t run_recvmsg_into(scene *sc) {
    struct iovec parts[2];
    pysock_msg msg;
    memset(&msg, 0, sizeof msg);
    parts[0].iov_base = sc->got + sc->have;
    parts[0].iov_len = 2;
    parts[1].iov_base = sc->got + sc->have + 2;
    parts[1].iov_len = 20;
    return took_in(sc, pysock_recvmsg_into(sc->s, parts, 2, &msg, 0));
}

static intptr_t take_buf(scene *sc, pysock_buf *b) {
    int code = errno;
    if (b) {
        T_CHECK(sc->have + pysock_buf_size(b) < sizeof sc->got);
        memcpy(sc->got + sc->have, pysock_buf_data(b), pysock_buf_size(b));
        sc->have += pysock_buf_size(b);
        pysock_buf_release(b);
    }
    errno = code;
    return b ? 0 : -1;
}

static intptr_t run_recv_buf(scene *sc) {
    return take_buf(sc, pysock_recv_buf(sc->s, 20));
}

static intptr_t run_recv_fds(scene *sc) {
    int fds[2], flags = 0;
    size_t count = 2;
    return took_in(sc, pysock_recv_fds(sc->s, SPACE, fds, &count, 0, &flags));
}

static intptr_t run_file_read(scene *sc) {
    return took_in(sc, pysock_file_read(sc->file, sc->got, LINE));
}

static intptr_t run_file_readinto(scene *sc) {
    return took_in(sc, pysock_file_readinto(sc->file, sc->got, LINE));
}

static intptr_t run_file_read1(scene *sc) {
    return took_in(sc, pysock_file_read1(sc->file, SPACE));
}

static intptr_t run_file_readline(scene *sc) {
    return took_in(sc, pysock_file_readline(sc->file, sc->got, sizeof sc->got));
}

static intptr_t run_file_readall(scene *sc) {
    return take_buf(sc, pysock_file_readall(sc->file));
}

static intptr_t run_file_readlines(scene *sc) {
    pysock_buf **lines = NULL;
    ptrdiff_t n = pysock_file_readlines(sc->file, 0, &lines);
    int code = errno;
    if (n > 0) {
        T_EQ(n, 1);
        memcpy(sc->got, pysock_buf_data(lines[0]), pysock_buf_size(lines[0]));
        sc->have = pysock_buf_size(lines[0]);
        pysock_file_freelines(lines, (size_t)n);
    }
    errno = code;
    return n;
}

static intptr_t run_fgets(scene *sc) {
    clearerr(sc->stdio);
    if (!fgets(sc->got + sc->have, (int)(sizeof sc->got - sc->have), sc->stdio))
        return -1;
    sc->have = strlen(sc->got);
    return 0;
}

/* A timeout is no error of these two: here it is made to look like one. */
static intptr_t timed_out(void) {
    errno = ETIMEDOUT;
    return -1;
}

static intptr_t run_select_in(scene *sc) {
    int fd = pysock_fileno(sc->s);
    size_t count = 1;
    ptrdiff_t n = pysock_select(&fd, &count, NULL, NULL, NULL, NULL, sc->timeout);
    return n > 0 ? run_recv(sc) : n == 0 ? timed_out() : n;
}

static intptr_t run_poll_in(scene *sc) {
    pysock_pollevent event;
    ptrdiff_t n = pysock_poller_poll(sc->poller, &event, 1, sc->timeout);
    return n > 0 ? run_recv(sc) : n == 0 ? timed_out() : n;
}

/* ---- writing ---- */

static intptr_t run_send(scene *sc) {
    return sent_out(sc, pysock_send(sc->s, bulk + sc->sent, PIECE, 0));
}

static intptr_t run_sendall(scene *sc) {
    int rc = pysock_sendall(sc->s, bulk + sc->sent, BULK - sc->sent, 0);
    sc->sent = BULK;
    return rc;
}

static intptr_t run_sendto(scene *sc) {
    return sent_out(sc, pysock_sendto_addr(sc->s, bulk + sc->sent, PIECE, 0, &sc->addr));
}

static intptr_t run_sendmsg(scene *sc) {
    struct iovec parts[2];
    parts[0].iov_base = bulk + sc->sent;
    parts[0].iov_len = 10;
    parts[1].iov_base = bulk + sc->sent + 10;
    parts[1].iov_len = PIECE - 10;
    return sent_out(sc, pysock_sendmsg(sc->s, parts, 2, NULL, 0, 0, NULL));
}

static intptr_t send_piece_buf(scene *sc, size_t size) {
    pysock_buf *b = T_OK(pysock_buf_copy(bulk + sc->sent, size));
    int rc = pysock_send_buf(sc->s, b), code = errno;
    pysock_buf_release(b);
    sc->sent += rc == 0 ? size : 0;
    errno = code;
    return rc;
}

static intptr_t run_send_buf(scene *sc) {
    return send_piece_buf(sc, PIECE);
}

static intptr_t run_send_fds(scene *sc) {
    int fd = 1;
    return sent_out(sc, pysock_send_fds(sc->s, bulk + sc->sent, 1, &fd, 1, 0));
}

/* It goes on where the file stands. */
static intptr_t run_sendfile(scene *sc) {
    int64_t n = pysock_sendfile(sc->s, sc->disk, -1, -1);
    int code = errno;
    sc->sent = (size_t)lseek(sc->disk, 0, SEEK_CUR);
    errno = code;
    return n < 0 ? -1 : 0;
}

static intptr_t run_file_write(scene *sc) {
    size_t taken = 0;
    ptrdiff_t n = pysock_file_write(sc->file, bulk + sc->sent, BULK - sc->sent, &taken);
    if (n >= 0 && !(sc->op->flags & WRITE_RAW_FILE)) /* which is one send */
        T_EQ(n, BULK - sc->sent);
    sc->sent += n >= 0 ? (size_t)n : taken;
    return n < 0 ? -1 : 0;
}

static intptr_t run_file_flush(scene *sc) {
    return pysock_file_flush(sc->file);
}

static intptr_t run_fflush(scene *sc) {
    T_EQ(fwrite(bulk + sc->sent, 1, PIECE, sc->stdio), PIECE);
    sc->sent += PIECE;
    return fflush(sc->stdio);
}

static intptr_t run_select_out(scene *sc) {
    int fd = pysock_fileno(sc->s);
    size_t count = 1;
    ptrdiff_t n = pysock_select(NULL, NULL, &fd, &count, NULL, NULL, sc->timeout);
    return n > 0 ? run_send(sc) : n == 0 ? timed_out() : n;
}

static intptr_t run_poll_out(scene *sc) {
    pysock_pollevent event;
    ptrdiff_t n = pysock_poller_poll(sc->poller, &event, 1, sc->timeout);
    return n > 0 ? run_send(sc) : n == 0 ? timed_out() : n;
}

/* ---- beginning and ending ---- */

static intptr_t run_accept(scene *sc) {
    pysock_addr peer;
    sc->child = pysock_accept(sc->s, &peer);
    return sc->child ? 0 : -1;
}

static intptr_t run_connect(scene *sc) {
    return pysock_connect(sc->s, sc->op->where == BACKLOG ? "127.0.0.1" : sc->name, sc->port);
}

static intptr_t run_connect_ex(scene *sc) {
    int rc = pysock_connect_ex(sc->s, "127.0.0.1", sc->port);
    errno = rc;
    return rc ? -1 : 0;
}

static intptr_t run_connect_addr(scene *sc) {
    return pysock_connect_addr(sc->s, &sc->addr);
}

static intptr_t run_create_connection(scene *sc) {
    sc->child = pysock_create_connection("127.0.0.1", sc->port, sc->timeout);
    return sc->child ? 0 : -1;
}

static intptr_t run_handshake(scene *sc) {
    return pysock_ssl_do_handshake(sc->s);
}

static intptr_t run_send_line(scene *sc) {
    return pysock_sendall(sc->s, line, LINE, 0);
}

static intptr_t run_unwrap(scene *sc) {
    return pysock_ssl_unwrap(sc->s);
}

static const op ops[] = {
    {"recv", IDLE, 0, run_recv, 0},
    {"recv_into", IDLE, 0, run_recv_into, 0},
    {"recvfrom", IDLE, 0, run_recvfrom, 0},
    {"recvmsg", IDLE, 0, run_recvmsg, 0},
    {"recv_buf", IDLE, 0, run_recv_buf, 0},
    {"recv_fds", IDLE, 0, run_recv_fds, 0},
    {"file_read", IDLE, 0, run_file_read, READ_FILE | PARTLY},
    {"file_readinto", IDLE, 0, run_file_readinto, READ_FILE | PARTLY},
    {"file_read1", IDLE, 0, run_file_read1, READ_FILE},
    {"file_readline", IDLE, 0, run_file_readline, READ_FILE | PARTLY},
    {"file_readlines", IDLE, 0, run_file_readlines, READ_FILE | PARTLY},
    {"file_readall", IDLE, 0, run_file_readall, READ_FILE | PARTLY},
    {"file_read, unbuffered", IDLE, 0, run_file_read, READ_RAW_FILE},
    {"fgets", IDLE, 0, run_fgets, READ_STDIO},
    {"select, readable", IDLE, 0, run_select_in, 0},
    {"poller, readable", IDLE, 0, run_poll_in, POLLED_IN},
    {"UDP recv", DATAGRAM, 0, run_recv, 0},
    {"UDP recv_into", DATAGRAM, 0, run_recv_into, 0},
    {"UDP recvfrom", DATAGRAM, 0, run_recvfrom, 0},
    {"UDP recvfrom_into", DATAGRAM, 0, run_recvfrom_into, 0},
    {"UDP recvmsg", DATAGRAM, 0, run_recvmsg, 0},
    {"UDP recvmsg_into", DATAGRAM, 0, run_recvmsg_into, 0},
    {"TLS recv", IDLE, 1, run_recv, 0},
    {"TLS recv_buf", IDLE, 1, run_recv_buf, 0},
    {"TLS file_read", IDLE, 1, run_file_read, READ_FILE | PARTLY},
    {"TLS file_readline", IDLE, 1, run_file_readline, READ_FILE | PARTLY},
    {"TLS fgets", IDLE, 1, run_fgets, READ_STDIO},
    {"TLS select, readable", IDLE, 1, run_select_in, 0},
    {"TLS poller, readable", IDLE, 1, run_poll_in, POLLED_IN},
    {"send", FULL, 0, run_send, 0},
    {"sendall", FULL, 0, run_sendall, LOSSY},
    {"sendmsg", FULL, 0, run_sendmsg, 0},
    {"send_buf", FULL, 0, run_send_buf, QUEUED},
    {"send_fds", FULL, 0, run_send_fds, 0},
    {"sendfile", FULL, 0, run_sendfile, FROM_DISK},
    {"file_write", FULL, 0, run_file_write, WRITE_FILE},
    {"file_write, unbuffered", FULL, 0, run_file_write, WRITE_RAW_FILE},
    {"file_flush", FULL, 0, run_file_flush, WRITE_FILE | BUFFERED},
    {"fflush", FULL, 0, run_fflush, WRITE_STDIO | LOSSY},
    {"select, writable", FULL, 0, run_select_out, 0},
    {"poller, writable", FULL, 0, run_poll_out, POLLED_OUT},
    {"message send", FULL_MESSAGES, 0, run_send, 0},
    {"message sendto", FULL_MESSAGES, 0, run_sendto, 0},
    {"message sendmsg", FULL_MESSAGES, 0, run_sendmsg, 0},
    {"TLS send", FULL, 1, run_send, 0},
    {"TLS sendall", FULL, 1, run_sendall, LOSSY},
    {"TLS send_buf", FULL, 1, run_send_buf, QUEUED},
    {"TLS sendfile", FULL, 1, run_sendfile, FROM_DISK},
    {"TLS file_write", FULL, 1, run_file_write, WRITE_FILE},
    {"TLS file_flush", FULL, 1, run_file_flush, WRITE_FILE | BUFFERED},
    {"TLS select, writable", FULL, 1, run_select_out, 0},
    {"TLS poller, writable", FULL, 1, run_poll_out, POLLED_OUT},
    {"accept", LISTENER, 0, run_accept, 0},
    {"TLS accept", LISTENER, 1, run_accept, 0},
    {"connect", BACKLOG, 0, run_connect, 0},
    {"connect_ex", BACKLOG, 0, run_connect_ex, 0},
    {"connect_addr", BACKLOG, 0, run_connect_addr, 0},
    {"create_connection", BACKLOG, 0, run_create_connection, 0},
    {"Unix connect", UNIX_BACKLOG, 0, run_connect, 0},
    {"handshake", SHAKING, 1, run_handshake, 0},
    {"server's handshake", SHAKING, 1, run_handshake, SERVER},
    {"recv in a handshake", SHAKING, 1, run_recv, 0},
    {"sendall in a handshake", SHAKING, 1, run_send_line, ONCE},
    {"unwrap", UNWRAPPING, 1, run_unwrap, 0},
};

enum { OPS = sizeof ops / sizeof ops[0] };

static scene scenes[OPS];

/* ---- setting a scene ---- */

/* Until the socket takes no more. */
static void fill_up(scene *sc) {
    ptrdiff_t n;
    T_OK(pysock_setblocking(sc->s, 0));
    while ((n = pysock_send(sc->s, bulk + sc->sent, PIECE, 0)) > 0) {
        sc->sent += (size_t)n;
        T_CHECK(sc->sent < BULK / 2);
    }
    T_EQ(errno, EAGAIN);
    if (sc->op->flags & QUEUED) {
        T_OK(pysock_set_watermarks(sc->s, 1, 1));
        T_OK(send_piece_buf(sc, 1));
    }
}

static void open_files(scene *sc) {
    int flags = sc->op->flags;
    if (flags & (READ_FILE | READ_RAW_FILE))
        sc->file = T_OK(pysock_makefile(sc->s, "r", flags & READ_FILE ? -1 : 0));
    if (flags & (WRITE_FILE | WRITE_RAW_FILE))
        sc->file = T_OK(pysock_makefile(sc->s, "w", flags & WRITE_FILE ? -1 : 0));
    if (flags & BUFFERED) {
        T_EQ(pysock_file_write(sc->file, bulk + sc->sent, PIECE, NULL), PIECE);
        sc->sent += PIECE;
    }
    if (flags & (READ_STDIO | WRITE_STDIO))
        sc->stdio = T_OK(pysock_fdopen(sc->s, flags & READ_STDIO ? "r" : "w"));
    if (flags & FROM_DISK) {
        sc->disk = memfd_create("pysock-test", MFD_CLOEXEC);
        T_CHECK(sc->disk >= 0);
        T_EQ(write(sc->disk, bulk, BULK), BULK);
        T_EQ(lseek(sc->disk, (off_t)sc->sent, SEEK_SET), sc->sent);
    }
    if (flags & (POLLED_IN | POLLED_OUT))
        sc->poller = t_poller_with(pysock_fileno(sc->s), flags & POLLED_IN ? POLLIN : POLLOUT);
}

static void set_connected(scene *sc) {
    pysock *pair[2];
    int type = sc->op->where == FULL_MESSAGES ? SOCK_DGRAM : SOCK_STREAM;
    if (sc->op->tls && sc->op->where != SHAKING)
        t_tls_local_pair(pair, client_ctx, server_ctx);
    else
        T_OK(pysock_socketpair(AF_UNIX, type, 0, pair));
    sc->s = pair[0];
    sc->peer = pair[1];
    if (sc->op->where == FULL_MESSAGES) {
        T_OK(pysock_bind(sc->peer, "", 0));
        T_OK(pysock_getsockname(sc->peer, &sc->addr));
    }
    if (sc->op->where == FULL || sc->op->where == FULL_MESSAGES)
        fill_up(sc);
    if (sc->op->where == SHAKING)
        t_wrap_later(sc->s, sc->op->flags & SERVER ? server_ctx : client_ctx,
                     sc->op->flags & SERVER ? NULL : "localhost");
    if (sc->op->flags & PARTLY)
        T_OK(pysock_sendall(sc->peer, line, 2, 0));
}

/* A Unix listener with a full queue; fds as t_silent_port() has them. */
static void set_unix_backlog(scene *sc) {
    static int number;
    pysock_addr addr;
    snprintf(sc->name, sizeof sc->name, "@pysock-test-hooks-%ld-%d", (long)getpid(), number++);
    T_OK(pysock_addr_resolve(&addr, AF_UNIX, sc->name, 0));
    sc->fds[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sc->fds[1] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    T_EQ(bind(sc->fds[0], &addr.u.sa, addr.size), 0);
    T_EQ(listen(sc->fds[0], 0), 0);
    T_EQ(connect(sc->fds[1], &addr.u.sa, addr.size), 0);
    sc->s = T_OK(pysock_socket(AF_UNIX, SOCK_STREAM, 0));
}

static void set_scene(scene *sc, const op *what, double timeout) {
    memset(sc, 0, sizeof *sc);
    sc->op = what;
    sc->timeout = timeout;
    sc->fds[0] = sc->fds[1] = sc->disk = -1;
    T_STEP("setting %s", what->name);
    switch (what->where) {
    case DATAGRAM:
        sc->s = udp_on_loopback(&sc->addr);
        sc->peer = T_OK(pysock_socket(AF_INET, SOCK_DGRAM, 0));
        T_OK(pysock_connect_addr(sc->peer, &sc->addr));
        break;
    case LISTENER: /* on an address of its own: nobody else connects there by mistake */
        snprintf(sc->name, sizeof sc->name, "127.99.%ld.%ld", (long)getpid() / 250 % 250,
                 1 + (long)getpid() % 250);
        sc->s = T_OK(pysock_create_server(sc->name, 0, 5));
        T_OK(pysock_getsockname(sc->s, &sc->addr));
        if (what->tls)
            T_OK(pysock_ssl_wrap_socket(sc->s, server_ctx, NULL));
        break;
    case BACKLOG:
        sc->port = t_silent_port(sc->fds);
        T_OK(pysock_addr_resolve(&sc->addr, AF_INET, "127.0.0.1", sc->port));
        sc->s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
        break;
    case UNIX_BACKLOG: set_unix_backlog(sc); break;
    default: set_connected(sc); break;
    }
    T_OK(pysock_settimeout(sc->s, timeout));
    open_files(sc);
}

/* ---- what the call waits for ---- */

static void *drain_thread(void *arg) {
    scene *sc = arg;
    static __thread unsigned char buf[65536];
    ptrdiff_t n;
    while ((n = T_OK(pysock_recv(sc->peer, buf, sizeof buf, 0))) > 0) {
        T_CHECK(sc->drained + (size_t)n <= BULK);
        T_EQ(memcmp(buf, bulk + sc->drained, (size_t)n), 0);
        sc->drained += (size_t)n;
    }
    return NULL;
}

static void satisfy(scene *sc) {
    T_STEP("satisfying %s", sc->op->name);
    switch (sc->op->where) {
    case IDLE:
        t_say(sc->peer, sc->op->flags & PARTLY ? line + 2 : line);
        T_OK(pysock_shutdown(sc->peer, SHUT_WR));
        break;
    case DATAGRAM: t_say(sc->peer, line); break;
    case FULL:
    case FULL_MESSAGES:
        t_spawn(&sc->drain, drain_thread, sc);
        sc->draining = 1;
        break;
    case LISTENER:
        sc->peer = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
        T_OK(pysock_connect(sc->peer, sc->name, pysock_addr_port(&sc->addr)));
        break;
    case BACKLOG:
    case UNIX_BACKLOG:
        close(sc->fds[1]);
        sc->fds[1] = t_raw_accept(sc->fds[0]);
        break;
    case SHAKING:
        T_OK(pysock_ssl_wrap_socket(sc->peer, sc->op->flags & SERVER ? client_ctx : server_ctx,
                                    sc->op->flags & SERVER ? "localhost" : NULL));
        t_say(sc->peer, line);
        break;
    case UNWRAPPING: T_EQ(pysock_ssl_unwrap(sc->peer), 0); break;
    }
}

/* A writer is done: the peer has everything, and nothing else. */
static void check_all_has_arrived(scene *sc) {
    if (sc->file) {
        T_OK(pysock_file_close(sc->file));
        sc->file = NULL;
    }
    T_OK(pysock_settimeout(sc->s, PYSOCK_NO_TIMEOUT));
    if (sc->op->where == FULL_MESSAGES)
        T_EQ(pysock_send(sc->s, "", 0, 0), 0);
    else
        T_OK(pysock_shutdown(sc->s, SHUT_WR));
    t_join(&sc->drain);
    sc->draining = 0;
    T_EQ(sc->drained, sc->sent);
}

/* The call has ended well. */
static void check_success(scene *sc) {
    T_STEP("checking %s", sc->op->name);
    if (sc->result < 0)
        T_FAIL("%s failed: errno %d (%s)", sc->op->name, sc->code, strerror(sc->code));
    switch (sc->op->where) {
    case IDLE:
    case DATAGRAM:
        T_EQ(sc->have, LINE);
        T_EQ(memcmp(sc->got, line, LINE), 0);
        break;
    case FULL:
    case FULL_MESSAGES: check_all_has_arrived(sc); break;
    case LISTENER: T_CHECK(sc->child != NULL); break;
    case BACKLOG:
    case UNIX_BACKLOG: {
        pysock *s = sc->child ? sc->child : sc->s;
        int fd = t_raw_accept(sc->fds[0]);
        char buf[LINE];
        t_say(s, line);
        T_EQ(t_raw_read(fd, buf, LINE), LINE);
        close(fd);
        break;
    }
    case SHAKING:
        if (sc->op->run == run_recv)
            T_EQ(memcmp(sc->got, line, LINE), 0);
        else
            t_expect(sc->s, line);
        if (sc->op->run == run_send_line)
            t_expect(sc->peer, line);
        break;
    case UNWRAPPING:
        T_EQ(pysock_is_ssl(sc->s), 0);
        t_echo_once(sc->s, sc->peer);
        break;
    }
}

static void clear_scene(scene *sc) {
    T_OK(pysock_setblocking(sc->s, 0)); /* files do not wait for what nobody reads */
    (void)pysock_file_close(sc->file);
    if (sc->stdio)
        (void)fclose(sc->stdio);
    pysock_poller_release(sc->poller);
    T_OK(pysock_close(sc->child));
    T_OK(pysock_close(sc->s));
    T_OK(pysock_close(sc->peer));
    if (sc->draining)
        t_join(&sc->drain);
    for (int i = 0; i < 2; i++)
        if (sc->fds[i] >= 0)
            close(sc->fds[i]);
    if (sc->disk >= 0)
        close(sc->disk);
}

/* ---- the threads, and who disturbs them ---- */

static __thread scene *my_scene;

/* The hook, too, may use the library. */
static int interrupt_hook(void *arg) {
    if (my_scene) {
        T_CHECK(pysock_gettimeout(my_scene->s) == my_scene->timeout);
        __atomic_add_fetch(&my_scene->asked, 1, __ATOMIC_ACQ_REL);
    }
    return *(int *)arg;
}

static int stop = 1, go_on = 0; /* what it answers */

static void *scene_thread(void *arg) {
    scene *sc = arg;
    double start = t_now();
    my_scene = sc;
    sc->result = sc->op->run(sc);
    sc->code = errno;
    sc->took = t_now() - start;
    __atomic_store_n(&sc->ended, 1, __ATOMIC_RELEASE);
    return NULL;
}

static int has_ended(scene *sc) {
    return __atomic_load_n(&sc->ended, __ATOMIC_ACQUIRE);
}

static void begin_scene(scene *sc) {
    sc->ended = sc->asked = 0;
    t_spawn(&sc->thread, scene_thread, sc);
}

static void begin_all(double timeout) {
    if (!bulk) {
        bulk = malloc(BULK);
        T_CHECK(bulk != NULL);
        t_fill(bulk, BULK, 0, 1);
    }
    t_catch_signal(SIGUSR1);
    for (int i = 0; i < OPS; i++)
        set_scene(&scenes[i], &ops[i], timeout);
    for (int i = 0; i < OPS; i++)
        begin_scene(&scenes[i]);
}

/* A signal for each of those that wait; returns how many there are. */
static int disturb_all(void) {
    int n = 0;
    for (int i = 0; i < OPS; i++)
        if (!has_ended(&scenes[i])) {
            T_EQ(pthread_kill(scenes[i].thread.id, SIGUSR1), 0);
            n++;
        }
    t_nap(0.02);
    return n;
}

/* Without a hook nobody knows which signals interrupt; with one each call is, three times. */
static void disturb_until_each_was_asked(int hooked) {
    int least;
    do {
        least = 3;
        (void)disturb_all();
        for (int i = 0; i < OPS && hooked; i++) {
            int asked = __atomic_load_n(&scenes[i].asked, __ATOMIC_ACQUIRE);
            if (has_ended(&scenes[i]))
                asked = least; /* it should not have; that is told in a moment */
            if (asked < least)
                T_STEP("waiting for %s to be interrupted", scenes[i].op->name);
            least = asked < least ? asked : least;
        }
    } while (least < 3);
    for (int i = 0; i < 10; i++)
        (void)disturb_all();
}

T_TEST(an_interrupted_call_goes_on_where_the_hook_does_not_mind, T_SCALE(120, 240)) {
    for (int round = 0; round < 4; round++) {
        int hooked = round & 1;
        begin_all(round & 2 ? 50 : PYSOCK_NO_TIMEOUT);
        T_STEP("round %d", round);
        pysock_set_interrupt_hook(hooked ? interrupt_hook : NULL, &go_on);
        disturb_until_each_was_asked(hooked);
        for (int i = 0; i < OPS; i++)
            if (has_ended(&scenes[i]))
                T_FAIL("%s ended by itself: %ld, errno %d (%s)", ops[i].name,
                       (long)scenes[i].result, scenes[i].code, strerror(scenes[i].code));
        for (int i = 0; i < OPS; i++)
            satisfy(&scenes[i]);
        for (int i = 0; i < OPS; i++) {
            T_STEP("waiting for %s", ops[i].name);
            t_join(&scenes[i].thread);
        }
        pysock_set_interrupt_hook(NULL, NULL);
        for (int i = 0; i < OPS; i++)
            check_success(&scenes[i]);
        for (int i = 0; i < OPS; i++)
            clear_scene(&scenes[i]);
    }
}

/* One deadline in all, however often the call is interrupted. */
T_TEST(an_interrupted_call_keeps_its_deadline, T_SCALE(60, 120)) {
    for (int hooked = 0; hooked < 2; hooked++) {
        pysock_set_interrupt_hook(hooked ? interrupt_hook : NULL, &go_on);
        begin_all(0.5);
        T_STEP("%s hook", hooked ? "with a" : "without a");
        while (disturb_all())
            for (int i = 0; i < OPS; i++)
                if (!has_ended(&scenes[i]))
                    T_STEP("waiting for %s", ops[i].name);
        for (int i = 0; i < OPS; i++)
            t_join(&scenes[i].thread);
        for (int i = 0; i < OPS; i++) {
            scene *sc = &scenes[i];
            if (sc->result != -1 || sc->code != ETIMEDOUT)
                T_FAIL("%s gave %ld, errno %d (%s)", ops[i].name, (long)sc->result, sc->code,
                       strerror(sc->code));
            if (sc->took < 0.49 || sc->took > 20)
                T_FAIL("%s took %.3f s", ops[i].name, sc->took);
            T_CHECK(!hooked || sc->asked > 0);
        }
        pysock_set_interrupt_hook(NULL, NULL);
        for (int i = 0; i < OPS; i++)
            clear_scene(&scenes[i]);
    }
}

static void check_interrupted(const scene *sc) {
    if (sc->result != -1 || sc->code != EINTR)
        T_FAIL("%s gave %ld, errno %d (%s)", sc->op->name, (long)sc->result, sc->code,
               strerror(sc->code));
    T_CHECK(sc->asked == 1); /* its answer was final */
}

/* What an interrupted sendall() has sent is some of it, in order. */
static void check_some_has_arrived(scene *sc) {
    satisfy(sc);
    T_OK(pysock_settimeout(sc->s, PYSOCK_NO_TIMEOUT));
    T_OK(pysock_shutdown(sc->s, SHUT_WR));
    t_join(&sc->drain);
    sc->draining = 0;
    T_CHECK(sc->drained > 0 && sc->drained <= sc->sent);
}

T_TEST(an_interrupted_call_ends_where_the_hook_says_so_and_nothing_is_lost, T_SCALE(120, 240)) {
    for (int round = 0; round < 2; round++) {
        pysock_set_interrupt_hook(interrupt_hook, &stop);
        begin_all(round ? 50 : PYSOCK_NO_TIMEOUT);
        T_STEP("round %d", round);
        while (disturb_all())
            for (int i = 0; i < OPS; i++)
                if (!has_ended(&scenes[i]))
                    T_STEP("waiting for %s", ops[i].name);
        for (int i = 0; i < OPS; i++)
            t_join(&scenes[i].thread);
        pysock_set_interrupt_hook(NULL, NULL);
        for (int i = 0; i < OPS; i++)
            check_interrupted(&scenes[i]);
        T_STEP("once more");
        for (int i = 0; i < OPS; i++)
            if (!(ops[i].flags & (LOSSY | ONCE)))
                begin_scene(&scenes[i]);
        for (int i = 0; i < OPS; i++) {
            if (ops[i].flags & ONCE)
                continue;
            if (ops[i].flags & LOSSY) {
                check_some_has_arrived(&scenes[i]);
                continue;
            }
            satisfy(&scenes[i]);
            T_STEP("waiting for %s once more", ops[i].name);
            t_join(&scenes[i].thread);
            check_success(&scenes[i]);
        }
        for (int i = 0; i < OPS; i++)
            clear_scene(&scenes[i]);
    }
}

/* The hook's answer is read from the thread's own error, in Python's words. */
T_TEST(an_interrupted_call_says_so, 30) {
    struct itimerval soon = {{0, 20000}, {0, 20000}}, never = {{0, 0}, {0, 0}};
    pysock *pair[2];
    char byte;
    t_catch_signal(SIGALRM);
    t_pair(pair);
    pysock_set_interrupt_hook(interrupt_hook, &stop);
    T_EQ(setitimer(ITIMER_REAL, &soon, NULL), 0); /* again and again: one may come too early */
    T_FAILS(pysock_recv(pair[0], &byte, 1, 0), PYSOCK_OS_ERROR, EINTR);
    T_EQ(setitimer(ITIMER_REAL, &never, NULL), 0);
    pysock_set_interrupt_hook(NULL, NULL);
    expect_text(pysock_error_name(), "InterruptedError");
    expect_text(pysock_error_reason(), "EINTR");
    T_CHECK(strstr(pysock_error_message(), "recv") != NULL);
    t_say(pair[1], "x");
    t_expect(pair[0], "x");
    t_close_pair(pair);
}

/* A timer of the process, as alarm() is one: its signal finds the thread that waits, and none of
   the library's. */
T_TEST(a_timer_changes_no_deadline, 60) {
    struct itimerval soon = {{0, 20000}, {0, 20000}}, never = {{0, 0}, {0, 0}};
    t_catch_signal(SIGALRM);
    for (int tls = 0; tls < 2; tls++) {
        pysock *pair[2], *other[2];
        double start;
        char byte;
        plain_or_tls_pair(pair, tls);
        t_nonblocking_tls_pair(other, client_ctx, server_ctx); /* the library has a thread now */
        T_OK(pysock_settimeout(pair[0], 0.4));
        T_EQ(setitimer(ITIMER_REAL, &soon, NULL), 0);
        start = t_now();
        T_FAILS(pysock_recv(pair[0], &byte, 1, 0), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
        T_EQ(setitimer(ITIMER_REAL, &never, NULL), 0);
        T_CHECK(t_now() - start >= 0.39);
        T_CHECK(t_now() - start < 20);
        t_close_pair(other);
        t_close_pair(pair);
    }
}

static int taken_elsewhere; /* atomic */

static void note_thread(int number) {
    (void)number;
    __atomic_store_n(&taken_elsewhere, 1, __ATOMIC_RELEASE);
}

/* A signal that all of the program's threads block stays pending. */
T_TEST(the_librarys_own_threads_take_no_signal, 30) {
    struct sigaction action;
    struct timespec no_time = {0, 0};
    pysock *pair[2];
    sigset_t one, before, pending;
    memset(&action, 0, sizeof action);
    action.sa_handler = note_thread;
    T_EQ(sigaction(SIGUSR2, &action, NULL), 0);
    t_nonblocking_tls_pair(pair, client_ctx,
                           server_ctx); /* its thread takes over nothing of this one's mask */
    sigemptyset(&one);
    sigaddset(&one, SIGUSR2);
    T_EQ(pthread_sigmask(SIG_BLOCK, &one, &before), 0);
    T_EQ(kill(getpid(), SIGUSR2), 0);
    t_echo_once(pair[0], pair[1]);
    T_EQ(sigpending(&pending), 0);
    T_EQ(sigismember(&pending, SIGUSR2), 1);
    T_EQ(sigtimedwait(&one, NULL, &no_time), SIGUSR2);
    T_EQ(pthread_sigmask(SIG_SETMASK, &before, NULL), 0);
    T_EQ(taken_elsewhere, 0);
    t_close_pair(pair);
}

/* The end of a file is no interruption. */
T_TEST(a_sendfile_that_is_done_asks_no_interrupt_hook, 30) {
    static const int64_t counts[] = {-1, 20000, 10000, 5000};
    static const double timeouts[] = {PYSOCK_NO_TIMEOUT, 20};
    FILE *f = file_of(10000);
    times_interrupted = 0;
    pysock_set_interrupt_hook(stop_once, NULL);
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < 4; i++) {
            pysock *pair[2];
            int64_t want = counts[i] == 5000 ? 5000 : 10000;
            T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
            T_OK(pysock_settimeout(pair[0], timeouts[k]));
            T_EQ(pysock_sendfile(pair[0], fileno(f), 0, counts[i]), want);
            T_EQ(times_interrupted, 0);
            T_EQ(drain_raw(pysock_fileno(pair[1])), want);
            t_close_pair(pair);
        }
    T_EQ(fclose(f), 0);
}

static void *drain_to_the_end(void *arg) {
    static char buf[65536];
    size_t *got = arg, n;
    int fd = (int)*got;
    for (*got = 0; (n = t_raw_read(fd, buf, sizeof buf)) > 0;)
        *got += n;
    return NULL;
}

/* Somebody else's O_NONBLOCK makes sends short; no signal does. */
T_TEST(a_short_send_asks_no_interrupt_hook_without_a_signal, 30) {
    int raw[2];
    pysock *s;
    t_thread t;
    size_t got;
    times_interrupted = 0;
    pysock_set_interrupt_hook(stop_once, NULL);
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, raw), 0);
    T_EQ(fcntl(raw[0], F_SETFL, fcntl(raw[0], F_GETFL) | O_NONBLOCK), 0);
    s = T_OK(pysock_adopt(raw[0], -1, -1, -1));
    T_CHECK(fcntl(raw[0], F_GETFL) & O_NONBLOCK);
    got = (size_t)raw[1];
    t_spawn(&t, drain_to_the_end, &got);
    T_OK(pysock_sendall(s, t_flood(), 4u << 20, 0));
    T_EQ(times_interrupted, 0);
    T_OK(pysock_close(s));
    t_join(&t);
    T_EQ(got, 4u << 20);
    close(raw[1]);
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts, .each_teardown = forget_hooks)
