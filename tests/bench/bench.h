/* What the parts of the benchmark share. A side is one way of doing a job; each side that is run
   has a server process and a client process of its own, which do nothing between its turns. */
#ifndef BENCH_H
#define BENCH_H

#include <stddef.h>

enum {
    MESSAGE_SIZE = 64,  /* an echo's message */
    ECHO_BATCH = 32,    /* round trips between two looks at the clock */
    BULK_WRITE = 16384, /* one write of a bulk transfer, and one record of TLS */
    BULK_WRITES = 128,  /* writes until the receiver acknowledges with one byte */
    TIMED_OUT = 50,     /* ms that a handshake without an answer may take */
    PING_BURST = 64     /* bytes of a ping, polled for and received one by one */
};

/* What a hostile peer does to a server meanwhile. */
enum {
    FLOOD_NONE,
    FLOOD_EMPTY,          /* empty records before a hello */
    FLOOD_WARNINGS,       /* warning alerts */
    FLOOD_TINY,           /* a hello without end, in records of one byte */
    FLOOD_RENEGOTIATIONS, /* requests for another handshake, on a connection that has had one */
    FLOOD_HELLOS          /* hellos, each on a connection of its own that is closed at the answer */
};

#define CA_FILE "tests/certs/ca.pem"
#define CERT_FILE "tests/certs/server-ec.pem"
#define KEY_FILE "tests/certs/server-ec.key"
#define HOST_NAME "localhost"

typedef struct side {
    const char *name;
    int group; /* sides of one group take turns */
    int arg;   /* for serve and open */
    /* The server process: says where it listens with tell(), then serves until it is ended. */
    void (*serve)(int arg);
    /* The client process: connects, which is not timed; then does operations, which are, and
       returns how many. */
    void (*open)(int arg, int port);
    long (*batch)(void);
    /* NULL, or called before (1) and after (0) each turn, which is not timed. */
    void (*turn)(int begins);
} side;

/* Ends this process, which breaks the rows of its side. Named after the side being run. */
#if defined(__GNUC__)
__attribute__((noreturn, format(printf, 1, 2)))
#endif
void die(const char *format, ...);

/* The answer of a child to its parent. */
void tell(double answer);

double now(void);

/* Lets this process run on the other cores, if there are any. */
void leave_the_core(void);

/* Descriptors of TCP sockets on loopback, blocking, with TCP_NODELAY. */
int raw_listen(int *port);
int raw_accept(int listener);
int raw_connect(int port);
void read_all(int fd, void *buf, size_t size);
void write_all(int fd, const void *data, size_t size);

/* n connections whose server has greeted each with one byte; the one in the middle is returned. */
int open_idle(int n, int port);

/* Hand-written loops on descriptors. arg of the echo: 1 to poll(2) before each read. */
void raw_echo_serve(int arg);
void raw_echo_open(int arg, int port);
long raw_echo_batch(void);

/* arg: how many idle connections; negative for poll(2) instead of epoll. */
void raw_ping_serve(int arg);
void ping_open(int arg, int port);
long ping_batch(void);

/* Hand-written loops on BearSSL. arg of the handshakes: 1 to resume sessions. */
void bear_echo_serve(int arg);
void bear_echo_open(int arg, int port);
long bear_echo_batch(void);
void bear_bulk_serve(int arg);
void bear_bulk_open(int arg, int port);
long bear_bulk_batch(void);
/* Asks the server for another handshake on one connection, until that breaks or goes_on() says 0;
   works(1) once the first is done. */
void bear_renegotiate(int port, int (*goes_on)(void), void (*works)(int works));
void bear_handshake_serve(int arg);
void bear_handshake_open(int arg, int port);
long bear_handshake_batch(void);

/* The same on pysock. arg of the plain echo: seconds of timeout, 0 for none. */
void py_echo_serve(int arg);
void py_echo_open(int arg, int port);
long py_echo_batch(void);
void py_tls_serve(int arg);
void py_tls_open(int arg, int port);
void py_polled_serve(int arg);
void py_polled_open(int arg, int port);
long py_polled_batch(void);
void py_bulk_serve(int arg);
long py_bulk_batch(void);
void py_handshake_serve(int arg);
void py_handshake_open(int arg, int port);
long py_handshake_batch(void);
void py_ping_serve(int arg);

/* A server on a poller and clients' handshakes; arg: what a flooder does to it meanwhile. */
void py_flood_serve(int arg);
void py_flood_open(int arg, int port);
long py_flood_batch(void);

/* Handshakes with a timeout of TIMED_OUT ms that a server does not finish. */
void py_timeout_open(int arg, int port);
long py_timeout_batch(void);
/* Likewise, but after so long another thread closes the socket, or cleans up. */
long py_close_batch(void);
long py_cleanup_batch(void);

/* arg of the server: 1 to flood its clients, 0 to be silent. */
void flood_serve(int arg);
void flood_start(int kind, int port);
void flood_turn(int begins);

#endif
