/*
udp_echo: an echo server and its client over UDP: timeouts, retransmission, IPv4 and IPv6.

cc -I. examples/apps/udp_echo.c -o udp_echo -lbearssl -lpthread

./udp_echo server 7007
./udp_echo client localhost 7007 hello 'how are you'
./udp_echo

A datagram may be lost, duplicated, or late. So the client numbers its requests, waits a quarter of
a second for the reply, sends the request again and waits twice as long, and so on; late replies to
earlier requests are dropped. Without arguments the program runs both, on loopback, where nothing is
ever lost: so the server drops every third datagram on purpose.
Exit status: 0 all was echoed, 1 something failed, 2 wrong usage.
*/
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#define CLI_PROGRAM "udp_echo"
#include "cli.h"

#include <pthread.h>
#include <unistd.h>

enum { MAX_TEXT = 1000, MAX_DATAGRAM = 1200, ATTEMPTS = 5 };

#define FIRST_TIMEOUT 0.25 /* seconds; it doubles with each attempt */

/* ---- the server ---- */

typedef struct server {
    pysock *s;
    int drop; /* every how many datagrams one is dropped; 0: none */
    bool verbose;
    bool ok;
} server;

/* A bound socket; host NULL: every address of this machine, with one IPv6 socket for IPv4 too if
   the system supports that. */
static pysock *open_server(const char *host, const char *port)
{
    int both = !host && pysock_has_dualstack_ipv6();
    pysock_addrinfo *list;
    pysock *s = NULL;
    ptrdiff_t count = pysock_getaddrinfo(host, port,
                                         host   ? AF_UNSPEC
                                         : both ? AF_INET6
                                                : AF_INET,
                                         SOCK_DGRAM, 0, AI_PASSIVE, &list);

    for (ptrdiff_t i = 0; i < count && !s; i++) {
        s = pysock_socket(list[i].family, SOCK_DGRAM, 0);
        if (s && ((list[i].family == AF_INET6 &&
                   pysock_setsockopt_int(s, IPPROTO_IPV6, IPV6_V6ONLY, !both) < 0) ||
                  pysock_bind_addr(s, &list[i].addr) < 0)) {
            pysock_close(s); /* leaves the error as it is */
            s = NULL;
        }
    }
    if (count > 0)
        pysock_freeaddrinfo(list);
    return s;
}

/* Echoes datagrams until a signal arrives or the socket is closed. A client that is gone, or a
   reply that cannot be sent, is no reason to stop: with UDP these are losses like any other. */
static bool serve(server *sv)
{
    char data[MAX_DATAGRAM + 1], peer[PYSOCK_ADDR_STRLEN];
    pysock_addr from;

    for (long number = 1; !cli_stopping; number++) {
        ptrdiff_t n = pysock_recvfrom(sv->s, data, sizeof data, 0, &from);
        if (n < 0 && (errno == EBADF || errno == EINTR))
            return true;
        if (n < 0 && (errno == ECONNREFUSED || errno == ETIMEDOUT))
            continue;
        if (n < 0)
            return cli_complain_of_pysock();
        if (n > MAX_DATAGRAM || (sv->drop > 0 && number % sv->drop == 0))
            continue;
        pysock_addr_format(&from, peer, sizeof peer);
        if (pysock_sendto_addr(sv->s, data, (size_t)n, 0, &from) < 0 && sv->verbose)
            fprintf(stderr, "udp_echo: %s: %s\n", peer, pysock_error_message());
        else if (sv->verbose)
            printf("%s: %td bytes\n", peer, n);
    }
    return true;
}

static void *serve_in_thread(void *arg)
{
    server *sv = arg;

    sv->ok = serve(sv);
    return NULL;
}

/* ---- the client ---- */

typedef struct client {
    pysock *s;
    unsigned long number; /* of the last request */
} client;

/* Connected: the kernel drops datagrams from others, and reports a closed port. */
static bool open_client(client *c, const pysock_addr *addr)
{
    struct timespec t;

    c->s = pysock_socket(addr->u.sa.sa_family, SOCK_DGRAM, 0);
    if (!c->s || pysock_connect_addr(c->s, addr) < 0)
        return false;
    clock_gettime(CLOCK_REALTIME, &t); /* unlike an earlier client's, on this port */
    c->number = ((unsigned long)t.tv_sec * 1000 + (unsigned long)t.tv_nsec / 1000000) % 1000000000;
    return true;
}

/* Waits until the deadline for exactly these bytes. 1: received; 0: not received; -1: an error. */
static int await_echo(client *c, const char *said, size_t size, double deadline)
{
    char data[MAX_DATAGRAM + 1];

    for (;;) {
        double left = deadline - cli_now();
        if (left <= 0)
            return 0;
        pysock_settimeout(c->s, left);
        ptrdiff_t n = pysock_recv(c->s, data, sizeof data, 0);
        if (n < 0)
            return errno == ETIMEDOUT ? 0 : -1;
        if ((size_t)n == size && memcmp(data, said, size) == 0)
            return 1;
    }
}

/* Sends text until it is echoed. 1: it was; 0: never; -1: an error, such as a closed port. */
static int say(client *c, const char *text)
{
    char data[MAX_DATAGRAM];
    double timeout = FIRST_TIMEOUT, begin = cli_now();
    int n = snprintf(data, sizeof data, "%lu %.*s", ++c->number, MAX_TEXT, text);

    for (int attempt = 1; attempt <= ATTEMPTS; attempt++, timeout *= 2) {
        if (pysock_send(c->s, data, (size_t)n, 0) < 0)
            return -1;
        int came = await_echo(c, data, (size_t)n, cli_now() + timeout);
        if (came < 0)
            return -1;
        if (came > 0) {
            printf("'%s' echoed after %.3f ms, attempt %d\n", text, 1000 * (cli_now() - begin),
                   attempt);
            return 1;
        }
    }
    return 0;
}

/* Sends everything to one address. -1 only if its port was closed from the start. */
static int talk(const pysock_addr *addr, char *const *texts, int count)
{
    client c = {.s = NULL};
    int came = open_client(&c, addr) ? 1 : -1, i;

    for (i = 0; i < count && came > 0; i++)
        came = say(&c, texts[i]);
    if (came == 0)
        fprintf(stderr, "udp_echo: no answer to '%s' after %d attempts\n", texts[i - 1], ATTEMPTS);
    else if (came < 0 && i > 1)
        came = cli_complain_of_pysock();
    pysock_close(c.s);
    return came;
}

/* A name may have several addresses, and only a datagram shows which one the server has. */
static bool talk_to(const char *host, const char *port, char *const *texts, int count)
{
    pysock_addrinfo *list;
    ptrdiff_t addresses = pysock_getaddrinfo(host, port, AF_UNSPEC, SOCK_DGRAM, 0, 0, &list);
    int came = -1;

    if (addresses < 0)
        return cli_complain_of_pysock();
    for (ptrdiff_t i = 0; i < addresses && came < 0; i++)
        came = talk(&list[i].addr, texts, count);
    pysock_freeaddrinfo(list);
    return came >= 0 ? came > 0 : cli_complain_of_pysock();
}

/* ---- both here ---- */

static bool demonstrate_on(const char *host)
{
    char *texts[] = {"one", "two", "three", "four", "five"}, name[PYSOCK_ADDR_STRLEN];
    server sv = {.s = open_server(host, "0"), .drop = 3};
    pysock_addr addr;
    pthread_t thread;

    if (!sv.s || pysock_getsockname(sv.s, &addr) < 0)
        return cli_complain_of_pysock();
    pysock_addr_format(&addr, name, sizeof name);
    printf("server on %s, which drops every third datagram\n", name);
    if (pthread_create(&thread, NULL, serve_in_thread, &sv) != 0) {
        pysock_close(sv.s);
        return cli_complain("cannot start a thread");
    }
    int came = talk(&addr, texts, 5);
    pysock_close(sv.s); /* wakes the thread, whose call fails with EBADF */
    pthread_join(thread, NULL);
    if (came < 0)
        return cli_complain_of_pysock();
    if (came == 0 || !sv.ok)
        return false;

    came = talk(&addr, texts, 1);
    if (came >= 0)
        return cli_complain("a server that is closed has answered");
    printf("and now: %s\n", pysock_error_message());
    return true;
}

/* A system can have IPv6 without ::1. */
static bool has_ipv6_loopback(void)
{
    pysock *s = pysock_has_ipv6() ? open_server("::1", "0") : NULL;
    bool has = s != NULL;

    pysock_close(s);
    return has;
}

static bool demonstrate(void)
{
    if (!demonstrate_on("127.0.0.1"))
        return false;
    if (has_ipv6_loopback())
        return demonstrate_on("::1");
    printf("(there is no IPv6 here)\n");
    return true;
}

/* ---- the command line ---- */

static const char usage[] =
    "usage: udp_echo                               both, on loopback: a demonstration\n"
    "       udp_echo server [-b ADDRESS] [-d N] PORT\n"
    "       udp_echo client HOST PORT [TEXT...]\n"
    "  -b ADDRESS  default 127.0.0.1; \"\": all of this machine's\n"
    "  -d N        drop every Nth datagram\n"
    "  PORT        of the server 0: a free one\n"
    "  TEXT        what to say, each in a datagram (hello)\n";

static int run_server(int argc, char **argv)
{
    server sv = {.verbose = true};
    const char *address = "127.0.0.1", *port;
    const cli_option table[] = {
        {"-b", .text = &address}, {"-d", .number = &sv.drop}, {.name = NULL}};
    char name[PYSOCK_ADDR_STRLEN];
    pysock_addr addr;

    if (cli_parse(argc, argv, table, &port, 1, usage) == 0)
        cli_wrong_usage(usage);
    setvbuf(stdout, NULL, _IOLBF, 0);
    cli_stop_on_signals();
    sv.s = open_server(address[0] ? address : NULL, port);
    if (!sv.s || pysock_getsockname(sv.s, &addr) < 0 ||
        pysock_settimeout(sv.s, 1.0) < 0) { /* for a signal that comes just before the call */
        cli_complain_of_pysock();
        pysock_close(sv.s);
        return 1;
    }
    pysock_addr_format(&addr, name, sizeof name);
    fprintf(stderr, "udp_echo: listening on %s\n", name);
    if (!cli_is_loopback(&addr))
        fprintf(stderr, "udp_echo: others can reach it; with a forged sender it answers anybody\n");
    bool ok = serve(&sv);
    pysock_close(sv.s);
    return ok ? 0 : 1;
}

int main(int argc, char **argv)
{
    char hello[] = "hello", *texts[] = {hello};

    if (argc == 1)
        return demonstrate() ? 0 : 1;
    if (strcmp(argv[1], "server") == 0)
        return run_server(argc - 1, argv + 1);
    if (strcmp(argv[1], "client") != 0)
        cli_parse(argc, argv, &(cli_option){.name = NULL}, NULL, 0, usage);
    if (argc < 4 || argv[2][0] == '-')
        cli_wrong_usage(usage);
    return talk_to(argv[2], argv[3], argc > 4 ? argv + 4 : texts, argc > 4 ? argc - 4 : 1) ? 0 : 1;
}
