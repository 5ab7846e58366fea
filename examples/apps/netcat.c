/*
netcat: carries bytes between stdin, stdout and a socket: TCP, TLS, UDP or Unix.

cc -I. examples/apps/netcat.c -o netcat -lbearssl -lpthread

./netcat -l 7000 >copy                         one end of a transfer
./netcat -N localhost 7000 <file               the other one
printf 'GET / HTTP/1.0\r\n\r\n' | ./netcat --tls example.org 443
./netcat -zv localhost 20-100                  what listens there
./netcat -lkU /tmp/log.sock                    one client after the other, on a Unix socket

Each direction has one buffer, and one select serves both: stdin is read only when the peer has
taken what was read before, the peer only when stdout has taken what was received before. So nothing
is lost, memory is bounded, and a slow reader slows the other end down. Either direction may end
first: after the end of stdin the peer is read to its end, and vice versa.
Exit status: 0 success (-z: something listens), 1 something failed, 2 wrong usage.
*/
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#define CLI_PROGRAM "netcat"
#include "cli.h"

#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PIECE = 16384, /* bytes that are read from stdin at once: the largest datagram that is sent */
    ROOM = 65536,  /* for the largest that is received */
    STDOUT_PIECE = 4096 /* what a writable pipe takes without blocking */
};

#define UDP_SCAN_TIMEOUT 1.0 /* seconds in which a closed UDP port must reply */

typedef struct options {
    const char *host, *port; /* host is the path if local is set */
    const char *source, *source_port;
    const char *cafile, *cert, *key, *servername;
    bool listen, keep, udp, local, scan, shut, crlf, numeric, verbose, tls, insecure;
    int family;
    double timeout;
} options;

typedef struct buffer {
    size_t pos, len; /* data[pos] to data[len - 1] wait */
    char data[ROOM];
} buffer;

typedef struct netcat {
    options opt;
    pysock_ssl_context *tls;

    /* stdin and stdout; with -k they outlive a connection */
    bool input_ended, input_is_tty, after_cr;
    size_t stdout_piece;

    /* the connection */
    pysock *s;
    bool connected;   /* else datagrams come from any sender, and go to: */
    pysock_addr peer; /* len 0: none yet */
    bool peer_ended, peer_deaf, failed;
    double moved; /* when a byte last moved; 0: a listener still waits for its first datagram */
    buffer to_peer, to_stdout;
} netcat;

static const char *bound_path; /* of a Unix socket that we made; removed at the end */

/* ---- addresses ---- */

static const char *protocol(const options *opt)
{
    return opt->udp ? "udp" : "tcp";
}

/* "127.0.0.1:80", and unless -n was given "127.0.0.1:80 (localhost, http)". */
static void describe(const netcat *n, const pysock_addr *addr, char *text, size_t size)
{
    char host[PYSOCK_HOST_STRLEN], service[PYSOCK_SERVICE_STRLEN];
    size_t used = pysock_addr_format(addr, text, size);

    if (used < size && !n->opt.numeric && !n->opt.local &&
        pysock_getnameinfo(addr, n->opt.udp ? NI_DGRAM : 0, host, sizeof host, service,
                           sizeof service) == 0)
        snprintf(text + used, size - used, " (%s, %s)", host, service);
}

static void tell(const netcat *n, const char *what, const pysock_addr *addr)
{
    char text[PYSOCK_ADDR_STRLEN + PYSOCK_HOST_STRLEN + PYSOCK_SERVICE_STRLEN];

    if (!n->opt.verbose)
        return;
    describe(n, addr, text, sizeof text);
    fprintf(stderr, "netcat: %s %s\n", what, text);
}

static void tell_tls(const netcat *n)
{
    pysock_ssl_cipher_info info;
    const char *checked = n->opt.insecure ? ", certificate not verified" : "";

    if (n->opt.verbose && pysock_ssl_cipher(n->s, &info) == 0)
        fprintf(stderr, "netcat: %s, %s%s\n", pysock_ssl_version(n->s), info.name, checked);
}

/* Every address for host (NULL: any) and port; as pysock_getaddrinfo(). */
static ptrdiff_t look_up(const netcat *n, const char *host, const char *port, int family,
                         pysock_addrinfo **list)
{
    const options *opt = &n->opt;
    int flags = (opt->numeric ? AI_NUMERICHOST | AI_NUMERICSERV : 0) |
                (opt->listen || !host ? AI_PASSIVE : 0);

    return pysock_getaddrinfo(host, port, family, opt->udp ? SOCK_DGRAM : SOCK_STREAM, 0, flags,
                              list);
}

/* A path is ours once it is bound; abstract names, which begin with @, need no removal. */
static bool bind_path(pysock *s, const char *path)
{
    if (pysock_bind(s, path, 0) < 0)
        return false;
    if (path[0] != '\0' && path[0] != '@')
        bound_path = path;
    return true;
}

static void remove_path(void)
{
    if (bound_path)
        unlink(bound_path);
}

static void on_signal(int number)
{
    remove_path();
    signal(number, SIG_DFL);
    raise(number);
}

/* Binds a socket that will connect, if -s or -p is given. A Unix datagram socket needs a name of
   its own to get replies: Linux chooses one. */
static bool bind_source(const netcat *n, pysock *s, int family)
{
    const options *opt = &n->opt;
    pysock_addrinfo *list;
    bool ok;

    if (opt->local && opt->source)
        return bind_path(s, opt->source);
#ifdef __linux__
    if (opt->local && opt->udp)
        return pysock_bind(s, "", 0) == 0;
#endif
    if (!opt->source && !opt->source_port)
        return true;
    if (look_up(n, opt->source, opt->source_port ? opt->source_port : "0", family, &list) < 0)
        return false;
    ok = (opt->udp || pysock_setsockopt_int(s, SOL_SOCKET, SO_REUSEADDR, 1) == 0) &&
         pysock_bind_addr(s, &list[0].addr) == 0;
    pysock_freeaddrinfo(list);
    return ok;
}

/* A name or a number; -1, with a message, if it is neither. 0 is for listeners. */
static int parse_port(const options *opt, const char *text)
{
    int port = cli_parse_port(text, opt->listen ? 0 : 1);

    if (!opt->numeric && text[strspn(text, "0123456789")] != '\0')
        port = pysock_getservbyname(text, protocol(opt));
    if (port < 0)
        cli_complain("%s is not a port: 1 to 65535%s", text, opt->numeric ? "" : ", or a service");
    return port;
}

/* ---- connecting ---- */

static bool start_tls(netcat *n, const char *servername)
{
    if (!n->tls)
        return true;
    if (pysock_ssl_wrap_socket(n->s, n->tls, servername) < 0)
        return false;
    tell_tls(n);
    return true;
}

/* n->s is connected to addr within the timeout, or closed and NULL. */
static bool connect_to_address(netcat *n, const pysock_addr *addr)
{
    int family = addr->u.sa.sa_family;

    n->s = pysock_socket(family, n->opt.udp ? SOCK_DGRAM : SOCK_STREAM, 0);
    if (n->s && bind_source(n, n->s, family) && pysock_settimeout(n->s, n->opt.timeout) == 0 &&
        pysock_connect_addr(n->s, addr) == 0)
        return true;
    pysock_close(n->s); /* leaves the error as it is */
    n->s = NULL;
    return false;
}

static bool connect_to_path(netcat *n)
{
    pysock_addr addr;
    char text[PATH_MAX + 8];

    snprintf(text, sizeof text, "unix:%s", n->opt.host);
    return pysock_addr_parse(&addr, text) == 0 && connect_to_address(n, &addr);
}

static bool connect_to_host(netcat *n, int port)
{
    char digits[8];
    pysock_addrinfo *list;
    ptrdiff_t count;
    bool ok = false;

    snprintf(digits, sizeof digits, "%d", port);
    count = look_up(n, n->opt.host, digits, n->opt.family, &list);
    if (count < 0)
        return false;
    for (ptrdiff_t i = 0; i < count && !ok; i++) {
        ok = connect_to_address(n, &list[i].addr);
        if (!ok && i + 1 < count && n->opt.verbose)
            cli_complain("%s; trying the next address", pysock_error_message());
    }
    pysock_freeaddrinfo(list);
    return ok;
}

/* Connects, with TLS if it is wanted; false, with pysock's error, on failure. */
static bool connect_out(netcat *n, int port)
{
    const options *opt = &n->opt;
    pysock_addr addr;

    if (!(opt->local ? connect_to_path(n) : connect_to_host(n, port)))
        return false;
    n->connected = true;
    if (pysock_getpeername(n->s, &addr) == 0)
        tell(n, "connected to", &addr);
    return start_tls(n, opt->servername ? opt->servername : opt->host);
}

static void hang_up(netcat *n)
{
    pysock_close(n->s);
    n->s = NULL;
}

/* ---- both directions ---- */

static bool contains(const int *list, size_t count, int fd)
{
    for (size_t i = 0; i < count; i++)
        if (list[i] == fd)
            return true;
    return false;
}

static bool is_empty(const buffer *b)
{
    return b->pos == b->len;
}

/* Whether a datagram's sender has an address for replies. */
static bool is_named(const pysock_addr *addr)
{
    return addr->size >
           (addr->u.sa.sa_family == AF_UNIX ? offsetof(struct sockaddr_un, sun_path) : 0);
}

static bool is_same(const pysock_addr *a, const pysock_addr *b)
{
    char first[PYSOCK_ADDR_STRLEN], second[PYSOCK_ADDR_STRLEN];

    pysock_addr_format(a, first, sizeof first);
    pysock_addr_format(b, second, sizeof second);
    return strcmp(first, second) == 0;
}

/* Puts n bytes into b, every line feed with a carriage return before it. */
static void fill_with_crlf(netcat *n, buffer *b, const char *data, size_t size)
{
    b->len = 0;
    for (size_t i = 0; i < size; i++) {
        if (data[i] == '\n' && !n->after_cr)
            b->data[b->len++] = '\r';
        b->data[b->len++] = data[i];
        n->after_cr = data[i] == '\r';
    }
}

static bool read_stdin(netcat *n)
{
    buffer *b = &n->to_peer;
    char data[PIECE];
    ssize_t size = read(STDIN_FILENO, data, sizeof data);

    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (size < 0)
        cli_complain("cannot read from stdin: %s", strerror(errno));
    if (size > 0) {
        b->pos = 0;
        if (n->opt.crlf) {
            fill_with_crlf(n, b, data, (size_t)size);
        } else {
            memcpy(b->data, data, (size_t)size);
            b->len = (size_t)size;
        }
        return true;
    }
    n->input_ended = true;
    return size == 0;
}

/* Signals the end of stdin to the peer, with -N. */
static bool shut_down(netcat *n)
{
    if (n->opt.udp || !n->opt.shut || n->peer_deaf)
        return true;
    n->peer_deaf = true;
    return pysock_shutdown(n->s, SHUT_WR) == 0 || errno == ENOTCONN || cli_complain_of_pysock();
}

static bool send_some(netcat *n)
{
    buffer *b = &n->to_peer;
    ptrdiff_t size = n->connected
                         ? pysock_send(n->s, b->data + b->pos, b->len - b->pos, 0)
                         : pysock_sendto_addr(n->s, b->data + b->pos, b->len - b->pos, 0, &n->peer);

    if (size < 0 && errno == EAGAIN)
        return true;
    if (size >= 0) {
        b->pos = n->opt.udp ? b->len : b->pos + (size_t)size;
        return true;
    }
    cli_complain_of_pysock();
    if (n->opt.udp)
        return false;
    n->failed = n->peer_deaf = true; /* what it sent before can still be read */
    b->pos = b->len;
    return true;
}

/* Whether there is unsent input. Called when nothing can be sent any more, as it has to read. With
   -k the input is for the next client. */
static bool is_unsent(netcat *n)
{
    int fd = STDIN_FILENO;
    size_t reads = 1;

    if (is_empty(&n->to_peer) && !n->input_ended && !n->input_is_tty && !n->opt.keep &&
        pysock_select(&fd, &reads, NULL, NULL, NULL, NULL, 0) == 1)
        read_stdin(n);
    return !is_empty(&n->to_peer);
}

/* TLS 1.2 has no half-close: after the peer's close_notify nothing can be sent. */
static bool end_of_stream(netcat *n)
{
    n->peer_ended = true;
    if (!pysock_is_ssl(n->s))
        return true;
    if (!pysock_ssl_eof_is_clean(n->s))
        return cli_complain("truncated? The connection ended without close_notify");
    if (is_unsent(n))
        return cli_complain("the peer closed before all was sent");
    return true;
}

static bool receive_datagram(netcat *n)
{
    buffer *b = &n->to_stdout;
    pysock_addr from;
    ptrdiff_t size = pysock_recvfrom(n->s, b->data, sizeof b->data, 0, &from);

    if (size < 0)
        return errno == EAGAIN || cli_complain_of_pysock();
    if (!n->connected && n->peer.size > 0 && !n->opt.keep && !is_same(&from, &n->peer))
        return true; /* from another sender */
    if (!n->connected && is_named(&from)) {
        if (n->peer.size == 0 || !is_same(&from, &n->peer))
            tell(n, "datagrams from", &from);
        n->peer = from;
    }
    b->pos = 0;
    b->len = (size_t)size;
    return true;
}

static bool receive_some(netcat *n)
{
    buffer *b = &n->to_stdout;
    ptrdiff_t size;

    if (n->opt.udp)
        return receive_datagram(n);
    size = pysock_recv(n->s, b->data, sizeof b->data, 0);
    if (size < 0 && errno == EAGAIN)
        return true;
    if (size < 0)
        return n->failed ? false : cli_complain_of_pysock();
    b->pos = 0;
    b->len = (size_t)size;
    return size > 0 || end_of_stream(n);
}

/* Writes little enough that a pipe which select reports as writable does not block. */
static bool write_stdout(netcat *n)
{
    buffer *b = &n->to_stdout;
    size_t left = b->len - b->pos;
    ssize_t size = write(STDOUT_FILENO, b->data + b->pos,
                         left < n->stdout_piece ? left : n->stdout_piece);

    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (size < 0)
        return cli_complain("cannot write to stdout: %s", strerror(errno));
    b->pos += (size_t)size;
    return true;
}

/* Closes stdout, so that its reader does not wait while we still send. With -k more may come. */
static void end_stdout(netcat *n)
{
    int fd = n->opt.keep ? -1 : open("/dev/null", O_WRONLY);

    if (fd < 0)
        return;
    dup2(fd, STDOUT_FILENO);
    close(fd);
}

/* A connection is over when both directions have ended. A peer that has ended does not keep a user
   at a keyboard waiting, nor, with -k, the next client. */
static bool is_over(const netcat *n)
{
    if (!is_empty(&n->to_stdout))
        return false;
    if (n->opt.udp)
        return n->input_ended && n->opt.shut && is_empty(&n->to_peer);
    if (!n->peer_ended)
        return false;
    return n->peer_deaf || pysock_is_ssl(n->s) ||
           (is_empty(&n->to_peer) && (n->input_ended || n->input_is_tty || n->opt.keep));
}

static double time_left(const netcat *n)
{
    double left = n->moved + n->opt.timeout - cli_now();

    if (n->opt.timeout == PYSOCK_NO_TIMEOUT || n->moved == 0)
        return PYSOCK_NO_TIMEOUT;
    return left > 0 ? left : 0;
}

/* One select, and the work that it reports as possible. *idle: none within the timeout. */
static bool step(netcat *n, bool *idle)
{
    int fd = pysock_fileno(n->s), rlist[2], wlist[2];
    size_t reads = 0, writes = 0;
    bool to_whom = n->connected || n->peer.size > 0;

    if (!n->peer_ended && is_empty(&n->to_stdout))
        rlist[reads++] = fd;
    if (!n->input_ended && !n->peer_deaf && to_whom && is_empty(&n->to_peer))
        rlist[reads++] = STDIN_FILENO;
    if (!is_empty(&n->to_peer))
        wlist[writes++] = fd;
    if (!is_empty(&n->to_stdout))
        wlist[writes++] = STDOUT_FILENO;

    ptrdiff_t ready = pysock_select(rlist, &reads, wlist, &writes, NULL, NULL, time_left(n));
    if (ready < 0)
        return cli_complain_of_pysock();
    *idle = ready == 0;
    if (ready > 0)
        n->moved = cli_now();
    return (!contains(wlist, writes, fd) || send_some(n)) &&
           (!contains(wlist, writes, STDOUT_FILENO) || write_stdout(n)) &&
           (!contains(rlist, reads, fd) || receive_some(n)) &&
           (!contains(rlist, reads, STDIN_FILENO) || read_stdin(n));
}

/* The timeout has passed. Most UDP sessions end so; it is a failure if something could not be
   delivered. */
static bool end_idle(const netcat *n)
{
    if (!is_empty(&n->to_peer))
        return cli_complain("timed out: the peer takes no more");
    if (!is_empty(&n->to_stdout))
        return cli_complain("timed out: stdout takes no more");
    if (n->opt.verbose)
        cli_complain("nothing came or went for %g s", n->opt.timeout);
    return true;
}

static bool carry(netcat *n)
{
    bool ok = pysock_setblocking(n->s, 0) == 0 || cli_complain_of_pysock(), idle = false;
    bool stdout_ended = false;

    n->moved = n->connected ? cli_now() : 0;
    while (ok && !is_over(n)) {
        ok = step(n, &idle);
        if (ok && idle)
            return end_idle(n);
        if (ok && n->input_ended && is_empty(&n->to_peer))
            ok = shut_down(n);
        if (n->peer_ended && is_empty(&n->to_stdout) && !stdout_ended && !is_over(n)) {
            end_stdout(n);
            stdout_ended = true;
        }
    }
    return ok && !n->failed;
}

/* Carries everything over the connection in n->s, and ends it. */
static bool talk(netcat *n)
{
    n->peer_ended = n->peer_deaf = n->failed = false;
    n->to_peer.pos = n->to_peer.len = n->to_stdout.pos = n->to_stdout.len = 0;

    bool ok = carry(n);
    /* The process is about to end: TLS must have sent its output before. */
    if (ok && !n->opt.udp && !n->peer_deaf && pysock_settimeout(n->s, n->opt.timeout) == 0 &&
        pysock_shutdown(n->s, SHUT_WR) < 0 && !n->peer_ended)
        ok = cli_complain_of_pysock();
    hang_up(n);
    return ok;
}

/* ---- listening ---- */

/* Binds s for listening; true if that worked. */
static bool bind_listener(pysock *s, const options *opt, const pysock_addr *addr, bool any)
{
    int only_v6 = any && opt->family != AF_INET6 ? 0 : 1;

    if (addr->u.sa.sa_family == AF_INET6 &&
        pysock_setsockopt_int(s, IPPROTO_IPV6, IPV6_V6ONLY, only_v6) < 0)
        return false;
    if (!opt->udp && pysock_setsockopt_int(s, SOL_SOCKET, SO_REUSEADDR, 1) < 0)
        return false;
    return pysock_bind_addr(s, addr) == 0 && (opt->udp || pysock_listen(s, -1) == 0);
}

/* Listens on the first address that works. Without a host, -4 and -6 that is one IPv6 socket for
   both families, if the system supports it. */
static pysock *listen_on_host(netcat *n)
{
    const options *opt = &n->opt;
    const char *host = opt->host ? opt->host : opt->source;
    bool any = host == NULL;
    int family = opt->family;
    pysock_addrinfo *list;
    ptrdiff_t count;
    pysock *s = NULL;

    if (any && family == 0)
        family = pysock_has_dualstack_ipv6() ? AF_INET6 : AF_INET;
    count = look_up(n, host, opt->port, family, &list);
    for (ptrdiff_t i = 0; i < count && !s; i++) {
        s = pysock_socket(list[i].family, opt->udp ? SOCK_DGRAM : SOCK_STREAM, 0);
        if (s && !bind_listener(s, opt, &list[i].addr, any)) {
            pysock_close(s);
            s = NULL;
        }
    }
    if (count > 0)
        pysock_freeaddrinfo(list);
    return s;
}

static pysock *listen_on_path(netcat *n)
{
    const options *opt = &n->opt;
    pysock *s = pysock_socket(AF_UNIX, opt->udp ? SOCK_DGRAM : SOCK_STREAM, 0);

    if (s && bind_path(s, opt->host) && (opt->udp || pysock_listen(s, -1) == 0))
        return s;
    pysock_close(s);
    return NULL;
}

static bool serve_client(netcat *n)
{
    if (pysock_settimeout(n->s, n->opt.timeout) == 0 && start_tls(n, NULL))
        return talk(n);
    cli_complain_of_pysock();
    hang_up(n);
    return false;
}

static bool serve_clients(netcat *n, pysock *listener)
{
    pysock_addr peer;
    bool ok = true;

    do {
        n->s = pysock_accept(listener, &peer);
        if (!n->s && errno == ECONNABORTED)
            continue;
        if (!n->s) {
            cli_complain_of_pysock();
            pysock_close(listener);
            return false;
        }
        n->connected = true;
        tell(n, "connection from", &peer);
        if (!n->opt.keep)
            pysock_close(listener); /* further clients are refused instead of waiting */
        ok = serve_client(n);
    } while (n->opt.keep || !n->connected);
    return ok;
}

static bool listen_in(netcat *n)
{
    pysock *s = n->opt.local ? listen_on_path(n) : listen_on_host(n);
    pysock_addr addr;

    if (!s)
        return cli_complain_of_pysock();
    if (pysock_getsockname(s, &addr) == 0)
        tell(n, "listening on", &addr);
    if (!n->opt.udp)
        return serve_clients(n, s);
    n->s = s;
    return talk(n);
}

/* ---- scanning (-z) ---- */

/* A closed UDP port may be reported by ICMP; an open one usually does not reply to an empty
   datagram. */
static bool is_udp_silent(netcat *n)
{
    char byte;

    if (n->opt.timeout == PYSOCK_NO_TIMEOUT && pysock_settimeout(n->s, UDP_SCAN_TIMEOUT) < 0)
        return false;
    return pysock_send(n->s, "", 0, 0) == 0 &&
           (pysock_recv(n->s, &byte, 1, 0) >= 0 || errno == ETIMEDOUT);
}

static bool scan_port(netcat *n, int port)
{
    const options *opt = &n->opt;
    char service[PYSOCK_SERVICE_STRLEN] = "";
    bool found = connect_out(n, port) && (!opt->udp || opt->local || is_udp_silent(n));

    if (!found) {
        if (opt->verbose)
            cli_complain_of_pysock();
        hang_up(n);
        return false;
    }
    if (opt->local) {
        printf("%s: open\n", opt->host);
    } else {
        if (!opt->numeric)
            pysock_getservbyport(port, protocol(opt), service, sizeof service);
        printf("%s %d/%s%s%s: %s\n", opt->host, port, protocol(opt), service[0] ? " " : "", service,
               opt->udp ? "open, or silent" : "open");
    }
    hang_up(n);
    return true;
}

/* "80" or "20-100". */
static bool parse_ports(const options *opt, int *first, int *last)
{
    char text[64];
    size_t digits = strspn(opt->port, "0123456789");

    if (digits > 0 && digits < sizeof text && opt->port[digits] == '-') {
        snprintf(text, sizeof text, "%.*s", (int)digits, opt->port);
        *first = parse_port(opt, text);
        *last = *first < 0 ? -1 : parse_port(opt, opt->port + digits + 1);
        return *last >= *first ||
               (*last >= 0 && cli_complain("%s is not a range of ports", opt->port));
    }
    *first = *last = parse_port(opt, opt->port);
    return *first >= 0;
}

static int scan(netcat *n)
{
    int first = 0, last = 0, found = 0;

    if (!n->opt.local && !parse_ports(&n->opt, &first, &last))
        return 2;
    for (int port = first; port <= last; port++)
        found += scan_port(n, port);
    return found > 0 ? 0 : 1;
}

/* ---- TLS ---- */

/* It requests client certificates if cafile is given. */
static pysock_ssl_context *make_server_tls(const options *opt)
{
    pysock_ssl_context *tls = pysock_ssl_context_new(PYSOCK_CLIENT_AUTH);

    if (tls &&
        (!opt->cafile || (pysock_ssl_set_verify_mode(tls, PYSOCK_CERT_REQUIRED) == 0 &&
                          pysock_ssl_load_verify_locations(tls, opt->cafile, NULL) == 0)) &&
        pysock_ssl_load_cert_chain(tls, opt->cert, opt->key) == 0)
        return tls;
    pysock_ssl_context_release(tls);
    return NULL;
}

static bool make_tls(netcat *n)
{
    const options *opt = &n->opt;

    n->tls = opt->listen ? make_server_tls(opt)
                         : cli_client_context(opt->cafile, opt->insecure, opt->cert, opt->key);
    return n->tls || cli_complain_of_pysock();
}

/* ---- the command line ---- */

static int usage(FILE *to)
{
    fputs("usage: netcat [options] HOST PORT         connect\n"
          "       netcat -l [options] [HOST] PORT    wait for a connection\n"
          "       netcat -U [-l] [options] PATH      the same with a Unix socket\n"
          "       netcat -z [options] HOST PORTS     list the open ports\n"
          "  -4, -6       IPv4 only, IPv6 only\n"
          "  -c, --crlf   send each line feed as carriage return and line feed\n"
          "  -h, --help   this text\n"
          "  -k           with -l: when a connection has ended wait for the next; with -u: hear\n"
          "               everybody, and answer who spoke last\n"
          "  -l           listen; PORT 0: a free one (-v shows it)\n"
          "  -N           tell the peer when stdin has ended, and read on; TLS 1.2 has no\n"
          "               half-close: many peers then stop; with -u: do not wait for answers\n"
          "  -n           numbers only: look no name up\n"
          "  -p PORT      the source port; with -l also the port to listen on\n"
          "  -s ADDRESS   the source address; with -l the one to listen on; with -U the path of\n"
          "               our own socket\n"
          "  -U           Unix stream socket; with -u datagrams; @NAME is an abstract name\n"
          "  -u           UDP; every piece of at most 16,384 bytes is a datagram\n"
          "  -v           report on stderr what happens\n"
          "  -w SECONDS   give up connecting, or end when nothing has moved for so long\n"
          "  -z           only look whether anything listens; PORTS: 80, or 20-100\n"
          "  --tls              TLS, and verify the server's certificate; the others imply it\n"
          "  --cafile FILE      trust the certificates in FILE (PEM), not the system's; with -l:\n"
          "                     ask clients for certificates that these have signed\n"
          "  --insecure         verify nothing: open to man-in-the-middle attacks\n"
          "  --servername NAME  what the certificate must be for, if that is not HOST\n"
          "  --tls-cert FILE    our certificate chain (PEM); a listener needs one\n"
          "  --tls-key FILE     its private key (PEM), if it is not in the same file\n"
          "Exit status: 0 all went well, with -z something is open; 1 failure; 2 wrong usage\n",
          to);
    return to == stdout ? 0 : 2;
}

__attribute__((format(printf, 1, 2))) static int wrong(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("netcat: ", stderr);
    vfprintf(stderr, format, args);
    fputs("; netcat -h lists the options\n", stderr);
    va_end(args);
    return 2;
}

enum { OPT_TLS = 256, OPT_CAFILE, OPT_INSECURE, OPT_SERVERNAME, OPT_CERT, OPT_KEY };

static const struct option long_options[] = {
    {"tls", no_argument, NULL, OPT_TLS},
    {"cafile", required_argument, NULL, OPT_CAFILE},
    {"insecure", no_argument, NULL, OPT_INSECURE},
    {"servername", required_argument, NULL, OPT_SERVERNAME},
    {"tls-cert", required_argument, NULL, OPT_CERT},
    {"tls-key", required_argument, NULL, OPT_KEY},
    {"crlf", no_argument, NULL, 'c'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0}};

/* Sets an option or stores its argument. 0, or the exit status. */
static int take_option(options *opt, int c, const char *arg)
{
    switch (c) {
    case '4': opt->family = AF_INET; break;
    case '6': opt->family = AF_INET6; break;
    case 'c': opt->crlf = true; break;
    case 'k': opt->keep = true; break;
    case 'l': opt->listen = true; break;
    case 'N': opt->shut = true; break;
    case 'n': opt->numeric = true; break;
    case 'p': opt->source_port = arg; break;
    case 's': opt->source = arg; break;
    case 'U': opt->local = true; break;
    case 'u': opt->udp = true; break;
    case 'v': opt->verbose = true; break;
    case 'w':
        if (!cli_parse_seconds(arg, &opt->timeout))
            return wrong("-w wants seconds, more than 0, not '%s'", arg);
        break;
    case 'z': opt->scan = true; break;
    case OPT_TLS: break;
    case OPT_CAFILE: opt->cafile = arg; break;
    case OPT_INSECURE: opt->insecure = true; break;
    case OPT_SERVERNAME: opt->servername = arg; break;
    case OPT_CERT: opt->cert = arg; break;
    case OPT_KEY: opt->key = arg; break;
    default: return 2;
    }
    opt->tls |= c >= OPT_TLS;
    return 0;
}

static int take_options(options *opt, int argc, char **argv)
{
    int c, status = 0;

    opterr = 0;
    while (status == 0 &&
           (c = getopt_long(argc, argv, ":46chklNnp:s:Uuvw:z", long_options, NULL)) >= 0) {
        if (c == 'h')
            exit(usage(stdout));
        if (c == ':')
            return wrong("%s wants an argument", argv[optind - 1]);
        if (c == '?' && optopt == 'e')
            return wrong("there is no -e: this netcat starts no programs; use pipes");
        if (c == '?' && optopt > 0 && optopt < 256)
            return wrong("unknown option -%c", optopt);
        if (c == '?')
            return wrong("unknown option %s", argv[optind - 1]);
        status = take_option(opt, c, optarg);
    }
    return status;
}

/* What is left after the options: HOST PORT, PORT or PATH. */
static int take_operands(options *opt, int count, char **operands)
{
    if (opt->local) {
        if (count != 1)
            return wrong("-U wants one path");
        opt->host = operands[0];
        return 0;
    }
    if (opt->listen && count < 2) {
        if ((count == 1) == (opt->source_port != NULL))
            return wrong("-l wants a port");
        opt->port = count == 1 ? operands[0] : opt->source_port;
        return 0;
    }
    if (count != 2 || (opt->listen && opt->source_port))
        return wrong(opt->listen ? "-l wants an address, or none, and one port"
                                 : "a host and a port are wanted");
    opt->host = operands[0];
    opt->port = operands[1];
    return 0;
}

/* Options that do not go together. */
static int check_options(const options *opt)
{
    if (opt->keep && !opt->listen)
        return wrong("-k is only for -l");
    if (opt->scan && opt->listen)
        return wrong("-z does not go with -l");
    if (opt->local && (opt->family || opt->source_port))
        return wrong("-4, -6 and -p do not go with -U");
    if (opt->local && opt->listen && opt->source)
        return wrong("-s does not go with -l and -U");
    if (opt->host && opt->listen && opt->source)
        return wrong("-s does not go with -l and an address");
    if (opt->tls && opt->udp)
        return wrong("TLS does not go over datagrams (-u)");
    if (opt->listen && opt->tls && !opt->cert)
        return wrong("a TLS listener needs --tls-cert");
    if (opt->key && !opt->cert)
        return wrong("--tls-key needs --tls-cert");
    if (opt->listen && (opt->servername || opt->insecure))
        return wrong("--servername and --insecure are not for -l");
    if (opt->insecure && opt->cafile)
        return wrong("--insecure does not go with --cafile");
    if (opt->tls && opt->local && !opt->listen && !opt->servername && !opt->insecure)
        return wrong("TLS over a Unix socket needs --servername");
    return 0;
}

/* Opens descriptors 0 to 2 if they are closed, so that no socket gets their number. */
static void open_standard_descriptors(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

static void look_at_standard_descriptors(netcat *n)
{
    struct stat st;

    n->input_is_tty = isatty(STDIN_FILENO);
    n->stdout_piece = fstat(STDOUT_FILENO, &st) == 0 && S_ISREG(st.st_mode) ? ROOM : STDOUT_PIECE;
}

static int run(netcat *n)
{
    options *opt = &n->opt;
    int port = 0;

    if (opt->port && !opt->scan && (port = parse_port(opt, opt->port)) < 0)
        return 2;
    if (opt->source_port && parse_port(opt, opt->source_port) < 0)
        return 2;
    if (opt->tls && !make_tls(n))
        return 1;
    if (opt->scan)
        return scan(n);
    if (opt->listen)
        return listen_in(n) ? 0 : 1;
    if (connect_out(n, port))
        return talk(n) ? 0 : 1;
    cli_complain_of_pysock();
    hang_up(n);
    return 1;
}

int main(int argc, char **argv)
{
    static netcat n; /* zeroed, and large for a stack */

    n.opt.timeout = PYSOCK_NO_TIMEOUT;
    int status = take_options(&n.opt, argc, argv);
    if (status == 0)
        status = take_operands(&n.opt, argc - optind, argv + optind);
    if (status == 0)
        status = check_options(&n.opt);
    if (status != 0)
        return status;

    open_standard_descriptors();
    look_at_standard_descriptors(&n);
    signal(SIGPIPE, SIG_IGN); /* write() reports it */
    if (n.opt.local) {
        static const int ends[] = {SIGINT, SIGTERM, SIGHUP};
        for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
            if (signal(ends[i], on_signal) == SIG_IGN)
                signal(ends[i], SIG_IGN); /* nohup */
    }
    status = run(&n);
    pysock_ssl_context_release(n.tls);
    remove_path();
    return status;
}
