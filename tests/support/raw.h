/* Raw peers: plain descriptors that the library knows nothing of. */
#ifndef TESTS_SUPPORT_RAW_H
#define TESTS_SUPPORT_RAW_H

#include "support/checks.h"

/* A blocking TCP listener on 127.0.0.1. */
T_FUNC int t_raw_listen(int *port) {
    struct sockaddr_in in;
    socklen_t len = sizeof in;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memset(&in, 0, sizeof in);
    in.sin_family = AF_INET;
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (struct sockaddr *)&in, sizeof in) != 0 || listen(fd, 64) != 0 ||
        getsockname(fd, (struct sockaddr *)&in, &len) != 0)
        T_FAIL("raw listener: %s", strerror(errno));
    *port = ntohs(in.sin_port);
    return fd;
}

T_FUNC int t_raw_accept(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        T_FAIL("raw accept: %s", strerror(errno));
    return fd;
}

T_FUNC int t_raw_connect(int port) {
    struct sockaddr_in in;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memset(&in, 0, sizeof in);
    in.sin_family = AF_INET;
    in.sin_port = htons((uint16_t)port);
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&in, sizeof in) != 0)
        T_FAIL("raw connect: %s", strerror(errno));
    return fd;
}

/* A port on 127.0.0.1 where nobody listens, and nobody can while *fd is open. */
T_FUNC int t_deaf_port(int *fd) {
    struct sockaddr_in in;
    socklen_t len = sizeof in;
    memset(&in, 0, sizeof in);
    in.sin_family = AF_INET;
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    *fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (*fd < 0 || bind(*fd, (struct sockaddr *)&in, sizeof in) != 0 ||
        getsockname(*fd, (struct sockaddr *)&in, &len) != 0)
        T_FAIL("raw socket: %s", strerror(errno));
    return ntohs(in.sin_port);
}

/* A port whose listener has a full queue: the kernel drops further attempts, so that a connect is
   under way for as long as one likes. fds[0] listens, fds[1] fills. */
T_FUNC int t_silent_port(int fds[2]) {
    int port = t_deaf_port(&fds[0]);
    if (listen(fds[0], 0) != 0)
        T_FAIL("raw listen: %s", strerror(errno));
    fds[1] = t_raw_connect(port);
    return port;
}

/* Reads until size bytes are there or the stream ends; returns how many. */
T_FUNC size_t t_raw_read(int fd, void *buf, size_t size) {
    size_t have = 0;
    while (have < size) {
        ssize_t n = recv(fd, (char *)buf + have, size - have, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        have += (size_t)n;
    }
    return have;
}

T_FUNC void t_raw_write(int fd, const void *data, size_t size) {
    size_t done = 0;
    while (done < size) {
        ssize_t n = send(fd, (const char *)data + done, size - done, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            T_FAIL("raw write: %s", strerror(errno));
        done += (size_t)n;
    }
}

/* Makes the kernel send RST on the connection behind fd, without closing fd. */
T_FUNC void t_raw_reset(int fd) {
    struct sockaddr none;
    memset(&none, 0, sizeof none);
    none.sa_family = AF_UNSPEC;
    if (connect(fd, &none, sizeof none) != 0)
        T_FAIL("raw reset: %s", strerror(errno));
}

#endif
