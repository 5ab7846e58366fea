/* The hand-written loops on descriptors: read and write, poll(2), epoll. */
#include "bench.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static int connection;  /* the client's */
static int polls_first; /* poll(2) before each read */

static struct sockaddr_in loopback(int port)
{
    struct sockaddr_in a;

    memset(&a, 0, sizeof a);
    a.sin_family = AF_INET;
    a.sin_port = htons((unsigned short)port);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return a;
}

static int without_delay(int fd)
{
    int on = 1;

    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
        die("TCP_NODELAY: %s", strerror(errno));
    return fd;
}

int raw_listen(int *port)
{
    struct sockaddr_in a = loopback(0);
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&a, len) < 0 || listen(fd, 128) < 0
        || getsockname(fd, (struct sockaddr *)&a, &len) < 0)
        die("listen: %s", strerror(errno));
    *port = ntohs(a.sin_port);
    return fd;
}

int raw_accept(int listener)
{
    int fd = accept(listener, NULL, NULL);

    if (fd < 0)
        die("accept: %s", strerror(errno));
    return without_delay(fd);
}

int raw_connect(int port)
{
    struct sockaddr_in a = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
        die("connect: %s", strerror(errno));
    return without_delay(fd);
}

void read_all(int fd, void *buf, size_t size)
{
    size_t got = 0;
    ssize_t n;

    while (got < size) {
        n = read(fd, (char *)buf + got, size - got);
        if (n <= 0)
            die("read: %s", n ? strerror(errno) : "end of stream");
        got += (size_t)n;
    }
}

void write_all(int fd, const void *data, size_t size)
{
    size_t sent = 0;
    ssize_t n;

    while (sent < size) {
        n = write(fd, (const char *)data + sent, size - sent);
        if (n < 0)
            die("write: %s", strerror(errno));
        sent += (size_t)n;
    }
}

/* ---- echo ---- */

static void read_message(int fd, char *buf)
{
    struct pollfd p = {fd, POLLIN, 0};

    if (polls_first && poll(&p, 1, -1) != 1)
        die("poll: %s", strerror(errno));
    read_all(fd, buf, MESSAGE_SIZE);
}

void raw_echo_serve(int arg)
{
    char buf[MESSAGE_SIZE];
    int port, fd;
    int listener = raw_listen(&port);

    polls_first = arg;
    tell(port);
    fd = raw_accept(listener);
    for (;;) {
        read_message(fd, buf);
        write_all(fd, buf, sizeof buf);
    }
}

void raw_echo_open(int arg, int port)
{
    polls_first = arg;
    connection = raw_connect(port);
}

long raw_echo_batch(void)
{
    char buf[MESSAGE_SIZE] = "ping";
    int i;

    for (i = 0; i < ECHO_BATCH; i++) {
        write_all(connection, buf, sizeof buf);
        read_message(connection, buf);
    }
    return ECHO_BATCH;
}

/* ---- one ready among many idle ---- */

int open_idle(int n, int port)
{
    char greeting;
    int i, fd, middle = -1;

    for (i = 0; i <= n; i++) {
        fd = raw_connect(port);
        read_all(fd, &greeting, 1); /* in step with accept(), so that no backlog overflows */
        if (i == n / 2)
            middle = fd;
    }
    return middle;
}

void ping_open(int arg, int port)
{
    connection = open_idle(arg < 0 ? -arg : arg, port);
}

/* The bytes of a burst are told and received one by one, so that nearly all of the time is that of
   polling and not that of switching between the processes. */
long ping_batch(void)
{
    char burst[PING_BURST] = "ping";

    write_all(connection, burst, sizeof burst);
    read_all(connection, burst, 1);
    return PING_BURST;
}

/* n + 1 accepted descriptors, greeted, the one in the middle being the one that is pinged. */
static struct pollfd *accept_idle(int n)
{
    struct pollfd *all = calloc((size_t)n + 1, sizeof *all);
    int i, port;
    int listener = raw_listen(&port);

    if (!all)
        die("out of memory");
    tell(port);
    for (i = 0; i <= n; i++) {
        all[i].fd = raw_accept(listener);
        all[i].events = POLLIN;
        write_all(all[i].fd, "k", 1);
    }
    return all;
}

static void serve_pings_with_poll(int n)
{
    struct pollfd *all = accept_idle(n);
    char byte;
    int i;

    for (;;) {
        for (i = 0; i < PING_BURST; i++) {
            if (poll(all, (nfds_t)n + 1, -1) != 1 || !(all[n / 2].revents & POLLIN))
                die("poll tells the wrong descriptor");
            read_all(all[n / 2].fd, &byte, 1);
        }
        write_all(all[n / 2].fd, "k", 1);
    }
}

static void serve_pings_with_epoll(int n)
{
    struct pollfd *all = accept_idle(n);
    struct epoll_event event;
    char byte;
    int i, epfd = epoll_create1(0);

    for (i = 0; i <= n; i++) {
        memset(&event, 0, sizeof event);
        event.events = EPOLLIN;
        event.data.fd = all[i].fd;
        if (epoll_ctl(epfd, EPOLL_CTL_ADD, all[i].fd, &event) < 0)
            die("epoll_ctl: %s", strerror(errno));
    }
    for (;;) {
        for (i = 0; i < PING_BURST; i++) {
            if (epoll_wait(epfd, &event, 1, -1) != 1 || event.data.fd != all[n / 2].fd)
                die("epoll tells the wrong descriptor");
            read_all(event.data.fd, &byte, 1);
        }
        write_all(event.data.fd, "k", 1);
    }
}

void raw_ping_serve(int arg)
{
    if (arg < 0)
        serve_pings_with_poll(-arg);
    else
        serve_pings_with_epoll(arg);
}
