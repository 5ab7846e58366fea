/*
sni_server: several hosts on one listening socket, each with a certificate of its own.

cc -I. examples/apps/sni_server.c -o sni_server -lbearssl -lpthread

./sni_server -p 8443 a.example=a.pem,a.key b.example=b.pem '*.c.example=c.pem,c.key'
curl --cacert ca.pem --resolve b.example:8443:127.0.0.1 https://b.example:8443/

A client names the host that it wants in its first message, before any certificate is sent. The
callback then replaces the context that the socket was wrapped with by that host's. A client that
names an unknown host is refused with the alert unrecognized_name or, with --default, gets the first
host's certificate, as does a client that names none.

The callback may run on a thread of the library's, as handshakes of non-blocking sockets do. Here
it only reads what main() has set up before the first client. All the rest is one poller.
*/
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#define CLI_PROGRAM "sni_server"
#include "cli.h"

enum { MAX_HOSTS = 64, MAX_CLIENTS = 128, MAX_REQUEST = 4096 };

#define CLIENT_TIMEOUT 10.0 /* seconds for the handshake and the request */
#define SWEEP 0.5           /* how often deadlines are checked */

typedef struct host {
    char name[256]; /* "a.example", or "*.example" for all names one label longer */
    pysock_ssl_context *tls;
} host;

typedef struct client {
    pysock *s; /* NULL: the entry is free */
    int fd;
    double deadline;
    char peer[PYSOCK_ADDR_STRLEN];
    char in[MAX_REQUEST];
    size_t in_len;
} client;

typedef struct server {
    /* set once, before the first client */
    host hosts[MAX_HOSTS];
    size_t host_count;
    bool has_default;
    pysock *listener;
    pysock_poller *poller;

    client clients[MAX_CLIENTS];
} server;

static int complain(const char *what)
{
    fprintf(stderr, "sni_server: %s: %s\n", what, pysock_error_message());
    return -1;
}

static const char *peer_name(pysock *s, char *text, size_t size)
{
    pysock_addr addr;

    if (pysock_getpeername(s, &addr) < 0)
        return "somebody";
    pysock_addr_format(&addr, text, size);
    return text;
}

/* ---- which host ---- */

static const host *find_host(const server *sv, const char *name)
{
    const char *dot = strchr(name, '.');

    for (size_t i = 0; i < sv->host_count; i++)
        if (strcasecmp(sv->hosts[i].name, name) == 0)
            return &sv->hosts[i];
    for (size_t i = 0; i < sv->host_count && dot && dot > name; i++)
        if (sv->hosts[i].name[0] == '*' && strcasecmp(sv->hosts[i].name + 1, dot) == 0)
            return &sv->hosts[i];
    return NULL;
}

/* A client may send anything. */
static void copy_printable(char *out, size_t size, const char *text)
{
    size_t n = 0;

    for (; text[n] && n + 1 < size; n++)
        out[n] = text[n] > ' ' && text[n] < 0x7f ? text[n] : '?';
    out[n] = '\0';
}

/* Returns 0, or the alert that the client gets. Resumed sessions come here too. */
static int choose_host(void *arg, const pysock_ssl_client_hello *hello)
{
    const server *sv = arg;
    char peer[PYSOCK_ADDR_STRLEN], name[256];
    const char *who = peer_name(hello->socket, peer, sizeof peer);

    if (!hello->server_name) {
        printf("%s asks for no name: gets %s\n", who, sv->hosts[0].name);
        return 0;
    }
    const host *h = find_host(sv, hello->server_name);
    copy_printable(name, sizeof name, hello->server_name);
    if (!h && !sv->has_default) {
        printf("%s asks for %s: refused\n", who, name);
        return PYSOCK_ALERT_UNRECOGNIZED_NAME;
    }
    if (!h)
        h = &sv->hosts[0];
    printf("%s asks for %s: gets %s\n", who, name, h->name);
    return pysock_ssl_set_context(hello->socket, h->tls) < 0 ? PYSOCK_ALERT_INTERNAL_ERROR : 0;
}

/* ---- clients ---- */

static void drop(server *sv, client *c)
{
    pysock_poller_unregister(sv->poller, c->fd);
    pysock_close(c->s); /* what is queued is still sent */
    c->s = NULL;
}

static void answer(const server *sv, client *c)
{
    char asked[256], name[256], body[300], text[512];

    if (pysock_ssl_server_hostname(c->s, asked, sizeof asked) <= 0)
        snprintf(asked, sizeof asked, "%s", sv->hosts[0].name);
    copy_printable(name, sizeof name, asked);
    int n = snprintf(body, sizeof body, "This is %s.\n", name);
    n = snprintf(text, sizeof text,
                 "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n"
                 "Connection: close\r\n\r\n%s",
                 n, body);
    if (pysock_sendall(c->s, text, (size_t)n, 0) < 0)
        complain("no answer");
}

/* Whether the request's head is complete: it ends with an empty line. */
static bool is_complete(const client *c)
{
    for (size_t i = 0; i + 1 < c->in_len; i++)
        if (c->in[i] == '\n' &&
            (c->in[i + 1] == '\n' || (i + 2 < c->in_len && memcmp(c->in + i + 1, "\r\n", 2) == 0)))
            return true;
    return false;
}

/* One recv for each event, so that no client delays the others. */
static void read_request(server *sv, client *c)
{
    ptrdiff_t n = pysock_recv(c->s, c->in + c->in_len, sizeof c->in - c->in_len, 0);

    if (n < 0 && errno == EAGAIN)
        return;
    if (n < 0)
        complain("no request");
    if (n > 0) {
        c->in_len += (size_t)n;
        bool complete = is_complete(c);
        if (!complete && c->in_len < sizeof c->in)
            return;
        if (complete)
            answer(sv, c);
    }
    drop(sv, c);
}

static client *free_place(server *sv)
{
    for (size_t i = 0; i < MAX_CLIENTS; i++)
        if (!sv->clients[i].s)
            return &sv->clients[i];
    return NULL;
}

/* Closes the client that has been connected longest. */
static client *drop_the_oldest(server *sv)
{
    client *oldest = NULL;

    for (size_t i = 0; i < MAX_CLIENTS; i++) {
        client *c = &sv->clients[i];
        if (c->s && (!oldest || c->deadline < oldest->deadline))
            oldest = c;
    }
    if (oldest)
        drop(sv, oldest);
    return oldest;
}

static void accept_client(server *sv)
{
    pysock *s = pysock_accept(sv->listener, NULL);
    int error = errno;
    client *c;

    if (!s && error == EAGAIN)
        return;
    if (!s) {
        complain("cannot accept");
        if (error == EMFILE || error == ENFILE || error == ENOMEM)
            drop_the_oldest(sv);
        return;
    }
    c = free_place(sv);
    if (!c)
        c = drop_the_oldest(sv);
    memset(c, 0, sizeof *c);
    c->fd = pysock_fileno(s);
    c->deadline = cli_now() + CLIENT_TIMEOUT;
    snprintf(c->peer, sizeof c->peer, "%s", "somebody");
    peer_name(s, c->peer, sizeof c->peer);
    if (pysock_setblocking(s, 0) < 0 ||
        pysock_poller_register(sv->poller, c->fd, POLLIN, NULL) < 0) {
        complain("cannot serve a client");
        pysock_close(s);
        return;
    }
    c->s = s;
}

static client *find_client(server *sv, int fd)
{
    for (size_t i = 0; i < MAX_CLIENTS; i++)
        if (sv->clients[i].s && sv->clients[i].fd == fd)
            return &sv->clients[i];
    return NULL;
}

static void drop_the_late(server *sv)
{
    double t = cli_now();

    for (size_t i = 0; i < MAX_CLIENTS; i++)
        if (sv->clients[i].s && sv->clients[i].deadline < t) {
            fprintf(stderr, "sni_server: %s: took too long\n", sv->clients[i].peer);
            drop(sv, &sv->clients[i]);
        }
}

static int serve(server *sv)
{
    int listening = pysock_fileno(sv->listener);
    pysock_pollevent events[32];

    for (;;) {
        ptrdiff_t n = pysock_poller_poll(sv->poller, events, 32, SWEEP);
        if (n < 0)
            return complain("cannot wait");
        for (ptrdiff_t i = 0; i < n; i++) {
            client *c = find_client(sv, events[i].fd);
            if (c)
                read_request(sv, c);
            else if (events[i].fd == listening)
                accept_client(sv);
        }
        drop_the_late(sv);
    }
}

/* ---- setting up ---- */

/* NAME=CERT.pem[,KEY.pem] */
static int add_host(server *sv, const char *text)
{
    const char *equals = strchr(text, '=');
    char files[1024];

    if (!equals || equals == text || !equals[1] ||
        (size_t)(equals - text) >= sizeof sv->hosts[0].name || strlen(equals) > sizeof files) {
        fprintf(stderr, "sni_server: \"%s\" is not NAME=CERT.pem,KEY.pem\n", text);
        return -1;
    }
    host *h = &sv->hosts[sv->host_count];
    snprintf(h->name, sizeof h->name, "%.*s", (int)(equals - text), text);
    snprintf(files, sizeof files, "%s", equals + 1);
    char *comma = strchr(files, ',');
    if (comma)
        *comma = '\0';

    h->tls = cli_server_context(files, comma ? comma + 1 : NULL);
    if (!h->tls)
        return complain(h->name);
    sv->host_count++;
    return 0;
}

/* The first host's context is the listening socket's, and the one with the callback. */
static int start(server *sv, const char *address, int port)
{
    char text[PYSOCK_ADDR_STRLEN];

    sv->listener = pysock_create_server(address, port, -1);
    sv->poller = pysock_poller_new();
    if (!sv->listener || !sv->poller ||
        pysock_ssl_set_sni_callback(sv->hosts[0].tls, choose_host, sv) < 0 ||
        pysock_ssl_wrap_socket(sv->listener, sv->hosts[0].tls, NULL) < 0 ||
        pysock_setblocking(sv->listener, 0) < 0 ||
        pysock_poller_register(sv->poller, pysock_fileno(sv->listener), POLLIN, NULL) < 0)
        return complain("cannot listen");
    fprintf(stderr, "sni_server: listening on %s for %zu hosts\n", cli_name_of(sv->listener, text),
            sv->host_count);
    return 0;
}

static void finish(server *sv)
{
    for (size_t i = 0; i < MAX_CLIENTS; i++)
        if (sv->clients[i].s)
            drop(sv, &sv->clients[i]);
    pysock_close(sv->listener);
    pysock_poller_release(sv->poller);
    for (size_t i = 0; i < sv->host_count; i++)
        pysock_ssl_context_release(sv->hosts[i].tls);
}

static const char usage[] =
    "usage: sni_server [-p PORT] [-b ADDRESS] [--default] NAME=CERT.pem[,KEY.pem] ...\n"
    "  NAME=...     a host, its certificate chain and its private key, if it is not in the\n"
    "               same file; \"*.NAME\" stands for all names that are one label longer\n"
    "  --default    clients that ask for another name get the first host, not an alert\n"
    "  -p PORT      default 8443; 0: any free port\n"
    "  -b ADDRESS   default 127.0.0.1; \"\": all of this machine's\n";

int main(int argc, char **argv)
{
    static server sv; /* zeroed, and large for a stack */
    const char *address = "127.0.0.1", *hosts[MAX_HOSTS];
    int port = 8443, result = 0;
    const cli_option table[] = {{"--default", .flag = &sv.has_default},
                                {"-p", .port = &port},
                                {"-b", .text = &address},
                                {.name = NULL}};
    int count = cli_parse(argc, argv, table, hosts, MAX_HOSTS, usage);

    if (count == 0)
        cli_wrong_usage(usage);
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 0; i < count && result == 0; i++)
        result = add_host(&sv, hosts[i]);
    if (result == 0 && start(&sv, address, port) == 0)
        serve(&sv); /* returns only on an error */
    finish(&sv);
    return 1;
}
