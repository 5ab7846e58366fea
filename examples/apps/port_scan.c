/*
port_scan: lists the open TCP ports of this machine, with many connects at once on one poller.

cc -I. examples/apps/port_scan.c -o port_scan -lbearssl -lpthread

./port_scan 1-1024,8080
./port_scan -n 20 -t 0.5 ::1 1-65535

A non-blocking connect fails with EINPROGRESS; the poller reports when it has ended, and SO_ERROR
how. At most N are under way at a time (-n), each for at most SECONDS (-t), and every port is tried
once: so a scan takes at most PORTS / N * SECONDS.
It scans loopback addresses only, on purpose: scanning other people's machines needs their
permission, and a tool made for it. Exit status: 0 scanned, 1 something failed, 2 wrong usage.
*/
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#define CLI_PROGRAM "port_scan"
#include "cli.h"

enum { PORTS = 65536, MAX_ATTEMPTS = 500, EVENTS = 64 };

typedef enum port_state { UNWANTED, WANTED, CLOSED, OPEN, SILENT } port_state;

typedef struct attempt {
    pysock *s; /* NULL: free */
    int fd, port;
    double deadline;
} attempt;

typedef struct scan {
    pysock_addr target; /* its port is set for each attempt */
    double timeout;
    size_t limit;
    pysock_poller *poller;
    attempt attempts[MAX_ATTEMPTS];
    size_t running;
    int next; /* the first port that was not tried */
    port_state state[PORTS];
} scan;

/* ---- what may be scanned ---- */

/* Every address of host must be loopback; the first one is scanned. */
static bool find_target(scan *sc, const char *host)
{
    pysock_addrinfo *list;
    ptrdiff_t count = pysock_getaddrinfo(host, NULL, AF_UNSPEC, SOCK_STREAM, 0, 0, &list);
    bool ok = true;

    if (count < 0)
        return cli_complain_of_pysock();
    for (ptrdiff_t i = 0; i < count; i++)
        ok = ok && cli_is_loopback(&list[i].addr);
    if (ok)
        sc->target = list[0].addr;
    pysock_freeaddrinfo(list);
    if (ok)
        return true;
    return cli_complain("%s is not (only) this machine's loopback address. This program scans "
                        "127.0.0.0/8 and ::1 and nothing else: to scan other machines needs their "
                        "owner's leave",
                        host);
}

static void set_port(pysock_addr *addr, int port)
{
    if (addr->u.sa.sa_family == AF_INET)
        addr->u.in.sin_port = htons((uint16_t)port);
    else
        addr->u.in6.sin6_port = htons((uint16_t)port);
}

/* ---- attempts ---- */

/* The kernel may choose the target port as the source port; then the socket connects to itself. */
static bool is_itself(pysock *s)
{
    pysock_addr here, there;

    return pysock_getsockname(s, &here) == 0 && pysock_getpeername(s, &there) == 0 &&
           pysock_addr_port(&here) == pysock_addr_port(&there);
}

static port_state result_of(pysock *s, int error)
{
    if (error == 0)
        return is_itself(s) ? CLOSED : OPEN;
    return error == ECONNREFUSED ? CLOSED : SILENT;
}

static void end_attempt(scan *sc, attempt *a, port_state result)
{
    sc->state[a->port] = result;
    pysock_poller_unregister(sc->poller, a->fd);
    pysock_close(a->s);
    a->s = NULL;
    sc->running--;
}

/* 1: under way, or already decided; 0: not now, there are too many sockets; -1: cannot go on. */
static int start_attempt(scan *sc, int port)
{
    attempt *a = sc->attempts;
    pysock *s = pysock_socket(sc->target.u.sa.sa_family, SOCK_STREAM, 0);

    if (!s)
        return errno == EMFILE && sc->running > 0 ? 0 : -1;
    set_port(&sc->target, port);
    int error = pysock_setblocking(s, 0) < 0 || pysock_connect_addr(s, &sc->target) < 0 ? errno : 0;
    if (error != EINPROGRESS) {
        sc->state[port] = result_of(s, error);
        pysock_close(s);
        return 1;
    }

    while (a->s)
        a++;
    *a = (attempt){.s = s, .fd = pysock_fileno(s), .port = port};
    a->deadline = cli_now() + sc->timeout;
    sc->running++;
    return pysock_poller_register(sc->poller, a->fd, POLLOUT, NULL) < 0 ? -1 : 1;
}

static bool start_attempts(scan *sc)
{
    while (sc->next < PORTS && sc->running < sc->limit) {
        int started = sc->state[sc->next] == WANTED ? start_attempt(sc, sc->next) : 1;
        if (started == 0)
            return true;
        if (started < 0)
            return cli_complain_of_pysock();
        sc->next++;
    }
    return true;
}

static void finish_attempt(scan *sc, int fd)
{
    attempt *a = sc->attempts;
    int error = 0;

    while (a < sc->attempts + MAX_ATTEMPTS && !(a->s && a->fd == fd))
        a++;
    if (a == sc->attempts + MAX_ATTEMPTS)
        return;
    if (pysock_getsockopt_int(a->s, SOL_SOCKET, SO_ERROR, &error) < 0)
        error = errno;
    end_attempt(sc, a, result_of(a->s, error));
}

static void end_late_attempts(scan *sc)
{
    double t = cli_now();

    for (size_t i = 0; i < MAX_ATTEMPTS; i++)
        if (sc->attempts[i].s && sc->attempts[i].deadline <= t)
            end_attempt(sc, &sc->attempts[i], SILENT);
}

static double next_deadline(const scan *sc)
{
    double first = cli_now() + sc->timeout;

    for (size_t i = 0; i < MAX_ATTEMPTS; i++)
        if (sc->attempts[i].s && sc->attempts[i].deadline < first)
            first = sc->attempts[i].deadline;
    return first;
}

static bool run(scan *sc)
{
    pysock_pollevent events[EVENTS];

    while (start_attempts(sc)) {
        if (sc->running == 0)
            return true;
        double left = next_deadline(sc) - cli_now();
        ptrdiff_t n = pysock_poller_poll(sc->poller, events, EVENTS, left > 0 ? left : 0);
        if (n < 0)
            return cli_complain_of_pysock();
        for (ptrdiff_t i = 0; i < n; i++)
            finish_attempt(sc, events[i].fd);
        end_late_attempts(sc);
    }
    return false;
}

static void report(const scan *sc)
{
    int count[SILENT + 1] = {0};

    for (int port = 1; port < PORTS; port++) {
        char service[PYSOCK_SERVICE_STRLEN];
        count[sc->state[port]]++;
        if (sc->state[port] != OPEN)
            continue;
        if (pysock_getservbyport(port, "tcp", service, sizeof service) < 0)
            strcpy(service, "?");
        printf("%5d  %s\n", port, service);
    }
    fprintf(stderr, "port_scan: %d open, %d closed, %d silent\n", count[OPEN], count[CLOSED],
            count[SILENT]);
}

/* ---- the command line ---- */

/* "22,80,8000-8100" */
static bool parse_ports(scan *sc, const char *text)
{
    for (;;) {
        char *end;
        long first = strtol(text, &end, 10), last = first;

        if (end > text && *end == '-') {
            text = end + 1;
            last = strtol(text, &end, 10);
        }
        if (end == text || first < 1 || last < first || last >= PORTS || (*end && *end != ','))
            return false;
        for (long port = first; port <= last; port++)
            sc->state[port] = WANTED;
        if (!*end)
            return true;
        text = end + 1;
    }
}

static const char usage[] = "usage: port_scan [-n N] [-t SECONDS] [HOST] PORTS\n"
                            "  HOST        a loopback address or a name of one; default 127.0.0.1\n"
                            "  PORTS       22 or 1-1024 or 22,80,8000-8100\n"
                            "  -n N        connects at a time, 1 to 500 (100)\n"
                            "  -t SECONDS  for each of them (1)\n";

int main(int argc, char **argv)
{
    static scan sc; /* zeroed, and large for a stack */
    const char *operands[2];
    int limit = 100;
    const cli_option table[] = {
        {"-n", .number = &limit}, {"-t", .seconds = &sc.timeout}, {.name = NULL}};

    sc.timeout = 1.0;
    int count = cli_parse(argc, argv, table, operands, 2, usage);
    if (count == 0 || limit < 1 || limit > MAX_ATTEMPTS)
        cli_wrong_usage(usage);
    if (!parse_ports(&sc, operands[count - 1])) {
        cli_complain("'%s' is not a list of ports", operands[count - 1]);
        return 2;
    }
    sc.limit = (size_t)limit;
    if (!find_target(&sc, count == 2 ? operands[0] : "127.0.0.1"))
        return 2;

    sc.poller = pysock_poller_new();
    bool ok = sc.poller ? run(&sc) : cli_complain_of_pysock();
    if (ok)
        report(&sc);
    for (size_t i = 0; i < MAX_ATTEMPTS; i++)
        pysock_close(sc.attempts[i].s);
    pysock_poller_release(sc.poller);
    return ok ? 0 : 1;
}
