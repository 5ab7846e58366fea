/* Hostile peers beside the client that is measured. A flooder is a process of its own, on another
   core where there is one, and works only while its client has a turn. What it sends is made by
   hand: one connection at a time, as fast as the server takes it; when that is cut, another. */
#include "bench.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { BATCH_SIZE = 60000, EMPTY_BETWEEN = 32 };

/* Shared by a client and its flooder. */
typedef struct reins {
    int on;    /* the client's turn has begun */
    int works; /* the flooder has a connection, and sends */
} reins;

static reins *shared;
static unsigned char batch[BATCH_SIZE + 5 * EMPTY_BETWEEN + 16];
static size_t batch_size;

static int goes_on(void)
{
    return __atomic_load_n(&shared->on, __ATOMIC_ACQUIRE);
}

static void says_it_works(int works)
{
    __atomic_store_n(&shared->works, works, __ATOMIC_RELEASE);
}

/* ---- what is sent ---- */

static void put_record(int type, const void *data, size_t size)
{
    unsigned char header[5] = {(unsigned char)type, 3, 3, (unsigned char)(size >> 8),
                               (unsigned char)size};

    memcpy(batch + batch_size, header, 5);
    if (size)
        memcpy(batch + batch_size + 5, data, size);
    batch_size += 5 + size;
}

static void make_empty_records(void)
{
    while (batch_size < BATCH_SIZE)
        put_record(22, NULL, 0);
}

static void make_warnings(void)
{
    while (batch_size < BATCH_SIZE)
        put_record(21, "\1\132", 2); /* user_canceled */
}

/* A message of this type that is announced as 60 KB, in records of a byte, with as many empty ones
   between as are allowed. */
static void make_tiny_records(int type, int empty)
{
    unsigned char header[4] = {(unsigned char)type, 0, 0xea, 0x60};
    size_t i;
    int k;

    for (i = 0; batch_size < BATCH_SIZE; i++) {
        put_record(22, i < sizeof header ? (const void *)(header + i) : "", 1);
        for (k = 0; k < empty; k++)
            put_record(22, NULL, 0);
    }
}

/* A good ClientHello: the server has to make a key and a signature for it. */
static void make_hello(void)
{
    static const unsigned char head[] = {1, 0, 0, 0, 3, 3};
    static const unsigned char tail[] = {
        0,                          /* no session */
        0, 4,  0xc0, 0x2b, 0, 0xff, /* ECDHE-ECDSA-AES128-GCM-SHA256, secure renegotiation */
        1, 0,                       /* no compression */
        0, 22, 0,    10,   0, 4,    0, 2, 0, 23, /* the curve P-256 */
        0, 11, 0,    2,    1, 0,                 /* points uncompressed */
        0, 13, 0,    4,    0, 2,    4, 3,        /* ECDSA with SHA-256 */
    };
    unsigned char hello[sizeof head + 32 + sizeof tail];

    memcpy(hello, head, sizeof head);
    memset(hello + sizeof head, 'r', 32);
    memcpy(hello + sizeof head + 32, tail, sizeof tail);
    hello[3] = sizeof hello - 4;
    put_record(22, hello, sizeof hello);
}

/* ---- the flooder ---- */

/* 0 when the connection has broken. A send waits a while at most, so that the reins are felt. */
static int send_batch(int fd)
{
    size_t done = 0;
    ssize_t n;

    while (done < batch_size && goes_on()) {
        n = send(fd, batch + done, batch_size - done, MSG_NOSIGNAL);
        if (n > 0)
            done += (size_t)n;
        else if (errno != EINTR && errno != EAGAIN)
            return 0;
    }
    return 1;
}

static void limit_waits(int fd)
{
    struct timeval patience = {0, 20000};

    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
}

/* Until a hello's answer begins. */
static void await_answer(int fd)
{
    unsigned char type = 22;

    while (goes_on() && recv(fd, &type, 1, 0) < 0 && (errno == EAGAIN || errno == EINTR))
        ;
    if (type != 22)
        die("the server does not like the hello of the flood");
}

/* One connection's worth. */
static void flood(int kind, int port)
{
    int fd;

    if (kind == FLOOD_RENEGOTIATIONS) {
        bear_renegotiate(port, goes_on, says_it_works);
        return;
    }
    fd = raw_connect(port);
    limit_waits(fd);
    says_it_works(1);
    if (kind == FLOOD_HELLOS) {
        send_batch(fd);
        await_answer(fd);
    } else {
        while (goes_on() && send_batch(fd))
            ;
    }
    close(fd);
}

static void make_batch(int kind)
{
    batch_size = 0;
    switch (kind) {
    case FLOOD_EMPTY: make_empty_records(); break;
    case FLOOD_WARNINGS: make_warnings(); break;
    case FLOOD_TINY: make_tiny_records(1, 0); break;
    case FLOOD_HELLOS: make_hello(); break;
    default: break;
    }
}

static void be_flooder(int kind, int port)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);
    leave_the_core();
    make_batch(kind);
    for (;;) {
        while (goes_on())
            flood(kind, port);
        says_it_works(0);
        usleep(500);
    }
}

void flood_start(int kind, int port)
{
    pid_t pid;

    if (kind == FLOOD_NONE)
        return;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || (pid = fork()) < 0)
        die("cannot start a flooder: %s", strerror(errno));
    if (pid == 0)
        be_flooder(kind, port);
}

/* Waits until the flooder has begun, or ended, what it does: before and after the clock runs. */
void flood_turn(int begins)
{
    double patience = now() + 10;

    if (!shared)
        return;
    __atomic_store_n(&shared->on, begins, __ATOMIC_RELEASE);
    while (__atomic_load_n(&shared->works, __ATOMIC_ACQUIRE) != begins) {
        if (now() > patience)
            die("the flooder does not %s", begins ? "begin" : "end");
        usleep(200);
    }
}

/* ---- a server that answers a hello with a flood, or with nothing ---- */

void flood_serve(int arg)
{
    static reins always = {1, 1};
    static unsigned char hello[4096];
    int port, fd;
    int listener = raw_listen(&port);

    if (arg)
        leave_the_core();
    shared = &always;
    make_tiny_records(2, EMPTY_BETWEEN);
    tell(port);
    for (;;) {
        fd = raw_accept(listener);
        limit_waits(fd);
        while (recv(fd, hello, sizeof hello, 0) < 0 && (errno == EAGAIN || errno == EINTR))
            ;
        while (arg && send_batch(fd))
            ;
        while (!arg && (recv(fd, hello, sizeof hello, 0) > 0 || errno == EAGAIN))
            errno = 0;
        close(fd);
    }
}
