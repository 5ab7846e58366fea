/*
chat: a chat server on one thread, with plain and TLS clients side by side.

cc -I. examples/apps/chat.c -o chat -lbearssl -lpthread

./chat -p 7000 -t 7001 --cert cert.pem --key key.pem
./netcat localhost 7000
./netcat --cafile ca.pem localhost 7001

The first line that a client sends is its name, every other one is sent to all. A line is put into
one buffer, and that buffer is queued on every socket: no copy for each client, no loop that waits
for the slow ones. A client whose queue is full, because it reads too slowly, is dropped. The loop
below never tests whether a client uses TLS.
*/
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#define CLI_PROGRAM "chat"
#include "cli.h"

enum { MAX_CLIENTS = 200, MAX_NAME = 20, MAX_LINE = 512 };

#define NAME_TIMEOUT 30.0 /* seconds until a client must have a name, its handshake included */

typedef struct client {
    pysock *s;
    int fd;
    char peer[PYSOCK_ADDR_STRLEN];
    bool greeted;
    const char *gone; /* why it is to be dropped, or NULL */
    double deadline;  /* for the name */
    char name[MAX_NAME + 1];
    char line[MAX_LINE]; /* what has been received of the next one */
    size_t len;
} client;

typedef struct chat {
    pysock_poller *poller;
    pysock *listeners[2]; /* plain, and TLS or NULL */
    bool listening;       /* the listeners are watched */
    client *clients[MAX_CLIENTS];
    size_t count;
} chat;

/* Marks a client; it is removed later, when no loop walks the list. The first reason counts. */
static void drop(client *c, const char *why)
{
    if (!c->gone)
        c->gone = why;
}

static void send_to(client *c, pysock_buf *b)
{
    if (c->gone || pysock_send_buf(c->s, b) == 0)
        return;
    drop(c, errno == EAGAIN ? "too slow" : "connection lost");
}

/* Sends a line to one client, or, if it is NULL, to all that have a name. */
__attribute__((format(printf, 3, 4))) static void say(chat *room, client *to, const char *format,
                                                      ...)
{
    char text[MAX_LINE + MAX_NAME + 16];
    va_list args;

    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    pysock_buf *b = pysock_buf_copy(text, (size_t)n);
    if (!b) {
        cli_complain_of_pysock();
        return;
    }
    if (to)
        send_to(to, b);
    for (size_t i = 0; !to && i < room->count; i++)
        if (room->clients[i]->name[0])
            send_to(room->clients[i], b);
    pysock_buf_release(b);
}

static client *find_name(chat *room, const char *name)
{
    for (size_t i = 0; i < room->count; i++)
        if (strcmp(room->clients[i]->name, name) == 0)
            return room->clients[i];
    return NULL;
}

static void take_name(chat *room, client *c, const char *line)
{
    if (line[0] == '\0' || strlen(line) > MAX_NAME || strpbrk(line, " \t/*")) {
        say(room, c, "* a name has 1 to %d bytes, no spaces, slashes or stars\n", MAX_NAME);
    } else if (find_name(room, line)) {
        say(room, c, "* %s is taken\n", line);
    } else {
        strcpy(c->name, line);
        say(room, NULL, "* %s is here%s\n", c->name, pysock_is_ssl(c->s) ? ", by TLS" : "");
        printf("%s is %s\n", c->peer, c->name);
    }
}

static void list_names(chat *room, client *to)
{
    for (size_t i = 0; i < room->count; i++)
        if (room->clients[i]->name[0])
            say(room, to, "* %s\n", room->clients[i]->name);
}

static void take_line(chat *room, client *c, char *line)
{
    for (char *p = line; *p; p++) /* no control characters for other terminals */
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?';
    if (!c->name[0])
        take_name(room, c, line);
    else if (strcmp(line, "/quit") == 0)
        drop(c, "said goodbye");
    else if (strcmp(line, "/who") == 0)
        list_names(room, c);
    else if (line[0])
        say(room, NULL, "%s: %s\n", c->name, line);
}

/* Takes the lines out of what was received. */
static void take_lines(chat *room, client *c)
{
    char *start = c->line, *end;

    while (!c->gone && (end = memchr(start, '\n', c->len)) != NULL) {
        c->len -= (size_t)(end + 1 - start);
        *end = '\0';
        if (end > start && end[-1] == '\r')
            end[-1] = '\0';
        take_line(room, c, start);
        start = end + 1;
    }
    memmove(c->line, start, c->len);
    if (c->len == sizeof c->line)
        drop(c, "line too long");
}

static void receive_from(chat *room, client *c)
{
    ptrdiff_t n = pysock_recv(c->s, c->line + c->len, sizeof c->line - c->len, 0);

    if (n < 0 && errno == EAGAIN)
        return;
    if (n < 0)
        fprintf(stderr, "%s: %s\n", c->peer, pysock_error_message());
    if (n <= 0) {
        drop(c, n < 0 ? "connection lost" : "left");
        return;
    }
    c->len += (size_t)n;
    take_lines(room, c);
}

/* A client is watched for writing only until it is greeted: that is when its handshake is over. */
static void greet(chat *room, client *c)
{
    c->greeted = true;
    say(room, c, "* Hello. What is your name?\n");
    if (pysock_poller_modify(room->poller, c->fd, POLLIN) < 0)
        drop(c, "connection lost");
}

static void serve_client(chat *room, client *c, short events)
{
    if (events & ~POLLOUT)
        receive_from(room, c);
    else if (!c->greeted)
        greet(room, c);
}

static void listen_for_clients(chat *room, bool on)
{
    for (int i = 0; i < 2; i++)
        if (room->listeners[i])
            pysock_poller_modify(room->poller, pysock_fileno(room->listeners[i]), on ? POLLIN : 0);
    room->listening = on;
}

static void add_client(chat *room, pysock *s, const pysock_addr *peer)
{
    client *c = calloc(1, sizeof *c);

    if (!c || pysock_setblocking(s, 0) < 0 || (c->fd = pysock_fileno(s)) < 0 ||
        pysock_poller_register(room->poller, c->fd, POLLIN | POLLOUT, NULL) < 0) {
        free(c);
        pysock_close(s);
        return;
    }
    c->s = s;
    c->deadline = cli_now() + NAME_TIMEOUT;
    pysock_addr_format(peer, c->peer, sizeof c->peer);
    room->clients[room->count++] = c;
}

static void accept_client(chat *room, pysock *listener)
{
    pysock_addr peer;
    pysock *s = pysock_accept(listener, &peer);

    if (s) {
        add_client(room, s, &peer);
    } else if (errno != EAGAIN && errno != ECONNABORTED) {
        cli_complain_of_pysock();
        listen_for_clients(room, false); /* probably out of descriptors: pause for a second */
        return;
    }
    if (room->count == MAX_CLIENTS)
        listen_for_clients(room, false);
}

/* Removes dropped clients. Notifying the others may drop more of them. */
static void remove_dropped(chat *room)
{
    for (size_t i = 0; i < room->count;) {
        client *c = room->clients[i];
        if (!c->gone) {
            i++;
            continue;
        }
        room->clients[i] = room->clients[--room->count];
        pysock_poller_unregister(room->poller, c->fd);
        pysock_close(c->s);
        printf("%s is gone: %s\n", c->peer, c->gone);
        if (c->name[0])
            say(room, NULL, "* %s is gone: %s\n", c->name, c->gone);
        free(c);
        i = 0;
    }
}

static void check_deadlines(chat *room)
{
    double t = cli_now();

    for (size_t i = 0; i < room->count; i++)
        if (!room->clients[i]->name[0] && t > room->clients[i]->deadline)
            drop(room->clients[i], "did not say its name");
}

static void serve_event(chat *room, const pysock_pollevent *event)
{
    for (int i = 0; i < 2; i++)
        if (room->listeners[i] && event->fd == pysock_fileno(room->listeners[i])) {
            accept_client(room, room->listeners[i]);
            return;
        }
    for (size_t i = 0; i < room->count; i++)
        if (room->clients[i]->fd == event->fd && !room->clients[i]->gone) {
            serve_client(room, room->clients[i], event->events);
            return;
        }
}

static int run(chat *room)
{
    pysock_pollevent events[64];
    double tick = cli_now() + 1;

    while (!cli_stopping) {
        ptrdiff_t n = pysock_poller_poll(room->poller, events, 64, 1.0);
        if (n < 0 && errno != EINTR) {
            cli_complain_of_pysock();
            return 1;
        }
        for (ptrdiff_t i = 0; i < n; i++)
            serve_event(room, &events[i]);
        if (cli_now() >= tick) {
            check_deadlines(room);
            if (!room->listening && room->count < MAX_CLIENTS)
                listen_for_clients(room, true);
            tick = cli_now() + 1;
        }
        remove_dropped(room);
    }
    say(room, NULL, "* The server stops. Goodbye.\n");
    return 0;
}

static void close_all(chat *room)
{
    for (size_t i = 0; i < room->count; i++) {
        pysock_close(room->clients[i]->s); /* what is queued is still sent */
        free(room->clients[i]);
    }
    pysock_close(room->listeners[0]);
    pysock_close(room->listeners[1]);
    pysock_poller_release(room->poller);
}

typedef struct options {
    const char *address, *cert, *key;
    int port, tls_port;
} options;

/* Opens listeners[which], wrapped in TLS unless tls is NULL. */
static bool listen_on(chat *room, int which, const char *address, int port, pysock_ssl_context *tls)
{
    char name[PYSOCK_ADDR_STRLEN];
    pysock *s = pysock_create_server(address, port, -1);

    room->listeners[which] = s;
    if (!s || (tls && pysock_ssl_wrap_socket(s, tls, NULL) < 0) || pysock_setblocking(s, 0) < 0 ||
        pysock_poller_register(room->poller, pysock_fileno(s), POLLIN, NULL) < 0)
        return false;
    fprintf(stderr, "chat: %s on %s\n", tls ? "TLS" : "plain", cli_name_of(s, name));
    return true;
}

static bool start(chat *room, const options *opt)
{
    room->listening = true;
    room->poller = pysock_poller_new();
    if (!room->poller || !listen_on(room, 0, opt->address, opt->port, NULL))
        return false;
    if (!opt->cert)
        return true;

    pysock_ssl_context *tls = cli_server_context(opt->cert, opt->key);
    bool ok = tls && listen_on(room, 1, opt->address, opt->tls_port, tls);
    pysock_ssl_context_release(tls); /* the listening socket has its own reference */
    return ok;
}

static const char usage[] =
    "usage: chat [-p PORT] [-b ADDRESS] [-t PORT --cert FILE [--key FILE]]\n"
    "  -p PORT      for plain clients; default 7000; 0: any free port\n"
    "  -t PORT      for TLS clients; default 7001\n"
    "  -b ADDRESS   default 127.0.0.1; \"\": all of this machine's\n"
    "  --cert FILE  serve TLS clients too, with this certificate chain (PEM)\n"
    "  --key FILE   its private key (PEM), if it is not in the same file\n";

int main(int argc, char **argv)
{
    options opt = {.address = "127.0.0.1", .port = 7000, .tls_port = 7001};
    const cli_option table[] = {{"-p", .port = &opt.port},    {"-t", .port = &opt.tls_port},
                                {"-b", .text = &opt.address}, {"--cert", .text = &opt.cert},
                                {"--key", .text = &opt.key},  {.name = NULL}};
    chat room = {.count = 0};
    int status = 1;

    cli_parse(argc, argv, table, NULL, 0, usage);
    if (opt.key && !opt.cert)
        cli_wrong_usage(usage);
    setvbuf(stdout, NULL, _IOLBF, 0);
    cli_stop_on_signals();
    if (start(&room, &opt))
        status = run(&room);
    else
        cli_complain_of_pysock();
    close_all(&room);
    return status;
}
