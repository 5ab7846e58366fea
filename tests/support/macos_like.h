/* Makes Linux look like macOS to the implementation, and to nothing else: `make test-macos-like`
   includes this file before tests/pysock_impl.c, and then runs the programs of the suite. What is
   taken away is what only Linux has; what the kernel does otherwise is done here:

     - XNU's send() waits for room unless the descriptor has O_NONBLOCK: MSG_DONTWAIT does not keep
       it from that (sosendcheck() looks at SS_NBIO and MSG_NBIO). Its recv() honours the flag.
     - There is no MSG_NOSIGNAL: a socket without SO_NOSIGPIPE gets SIGPIPE.
     - Whatever was shut down for reading is at its end, datagram sockets too, and recv() says so
       without waiting.
     - A child that is accepted has the listener's O_NONBLOCK.
     - shutdown() of a listening socket is ENOTCONN, and wakes nobody.
     - A Unix socket without a name has an address of 16 bytes whose path is empty.
     - SO_NWRITE is what the peer has not acknowledged; Linux has an ioctl for it.
     - ENODATA is missing, as on FreeBSD, OpenBSD and DragonFly (macOS has it). */
#ifndef TESTS_SUPPORT_MACOS_LIKE_H
#define TESTS_SUPPORT_MACOS_LIKE_H

#define _GNU_SOURCE 1

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sockios.h>
#include <locale.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define T_MACOS_FUNC static __attribute__((unused))

/* ---- SO_NOSIGPIPE: a bit for each socket, by its inode ---- */

#define T_MACOS_SO_NOSIGPIPE 0x1022
#define T_MACOS_SOCKETS (1u << 22)

static unsigned char t_macos_quiet[T_MACOS_SOCKETS / 8]; /* atomic */

T_MACOS_FUNC unsigned t_macos_socket(int fd) {
    struct stat st;
    return fstat(fd, &st) == 0 ? (unsigned)st.st_ino % T_MACOS_SOCKETS : 0;
}

T_MACOS_FUNC int t_macos_setsockopt(int fd, int level, int name, const void *value, socklen_t len) {
    unsigned at = t_macos_socket(fd);
    if (level != SOL_SOCKET || name != T_MACOS_SO_NOSIGPIPE)
        return setsockopt(fd, level, name, value, len);
    __atomic_or_fetch(&t_macos_quiet[at / 8], (unsigned char)(1u << at % 8), __ATOMIC_SEQ_CST);
    return 0;
}

#define T_MACOS_SO_NWRITE 0x1024

T_MACOS_FUNC int t_macos_getsockopt(int fd, int level, int name, void *value, socklen_t *len) {
    if (level != SOL_SOCKET || name != T_MACOS_SO_NWRITE)
        return getsockopt(fd, level, name, value, len);
    return ioctl(fd, SIOCOUTQ, value);
}

T_MACOS_FUNC int t_macos_send_flags(int fd, int flags) {
    unsigned at = t_macos_socket(fd);
    int quiet = __atomic_load_n(&t_macos_quiet[at / 8], __ATOMIC_SEQ_CST) >> at % 8 & 1;
    return (flags & ~MSG_DONTWAIT) | (quiet ? MSG_NOSIGNAL : 0);
}

/* ---- sending ---- */

T_MACOS_FUNC ssize_t t_macos_send(int fd, const void *data, size_t size, int flags) {
    return send(fd, data, size, t_macos_send_flags(fd, flags));
}

T_MACOS_FUNC ssize_t t_macos_sendto(int fd, const void *data, size_t size, int flags,
                                    const struct sockaddr *to, socklen_t len) {
    return sendto(fd, data, size, t_macos_send_flags(fd, flags), to, len);
}

T_MACOS_FUNC ssize_t t_macos_sendmsg(int fd, const struct msghdr *msg, int flags) {
    return sendmsg(fd, msg, t_macos_send_flags(fd, flags));
}

/* ---- receiving ---- */

/* Whether recv is to answer 0 where Linux has answered n. */
T_MACOS_FUNC int t_macos_at_end(int fd, ssize_t n) {
    struct pollfd p = {fd, POLLRDHUP, 0};
    int type = SOCK_STREAM, kept = errno;
    socklen_t len = sizeof type;
    if (n >= 0 || (kept != EAGAIN && kept != EWOULDBLOCK))
        return 0;
    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len);
    if (type != SOCK_STREAM && poll(&p, 1, 0) > 0 && p.revents & POLLRDHUP)
        return 1;
    errno = kept;
    return 0;
}

T_MACOS_FUNC ssize_t t_macos_recv(int fd, void *buf, size_t size, int flags) {
    ssize_t n = recv(fd, buf, size, flags);
    return t_macos_at_end(fd, n) ? 0 : n;
}

T_MACOS_FUNC ssize_t t_macos_recvfrom(int fd, void *buf, size_t size, int flags,
                                      struct sockaddr *from, socklen_t *len) {
    ssize_t n = recvfrom(fd, buf, size, flags, from, len);
    if (!t_macos_at_end(fd, n))
        return n;
    if (len)
        *len = 0;
    return 0;
}

T_MACOS_FUNC ssize_t t_macos_recvmsg(int fd, struct msghdr *msg, int flags) {
    ssize_t n = recvmsg(fd, msg, flags);
    if (!t_macos_at_end(fd, n))
        return n;
    msg->msg_namelen = 0;
    msg->msg_controllen = 0;
    msg->msg_flags = 0;
    return 0;
}

/* ---- addresses and connections ---- */

T_MACOS_FUNC void t_macos_unnamed(struct sockaddr *sa, socklen_t room, socklen_t *len) {
    if (*len != sizeof sa->sa_family || sa->sa_family != AF_UNIX || room < 16)
        return;
    memset(sa->sa_data, 0, 16 - offsetof(struct sockaddr, sa_data));
    *len = 16;
}

T_MACOS_FUNC int t_macos_getsockname(int fd, struct sockaddr *sa, socklen_t *len) {
    socklen_t room = *len;
    int r = getsockname(fd, sa, len);
    if (r == 0)
        t_macos_unnamed(sa, room, len);
    return r;
}

T_MACOS_FUNC int t_macos_getpeername(int fd, struct sockaddr *sa, socklen_t *len) {
    socklen_t room = *len;
    int r = getpeername(fd, sa, len);
    if (r == 0)
        t_macos_unnamed(sa, room, len);
    return r;
}

T_MACOS_FUNC int t_macos_accept(int fd, struct sockaddr *sa, socklen_t *len) {
    socklen_t room = len ? *len : 0;
    int flags = fcntl(fd, F_GETFL);
    int child = accept(fd, sa, len);
    if (child < 0)
        return child;
    if (sa)
        t_macos_unnamed(sa, room, len);
    if (flags & O_NONBLOCK)
        fcntl(child, F_SETFL, fcntl(child, F_GETFL) | O_NONBLOCK);
    return child;
}

T_MACOS_FUNC int t_macos_shutdown(int fd, int how) {
    int listens = 0;
    socklen_t len = sizeof listens;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) == 0 && listens) {
        errno = ENOTCONN;
        return -1;
    }
    return shutdown(fd, how);
}

/* ---- what the implementation sees from here on ---- */

#undef __linux__
#undef __linux
#undef __gnu_linux__
#undef SOCK_CLOEXEC
#undef SOCK_NONBLOCK
#undef MSG_NOSIGNAL
#undef MSG_ERRQUEUE
#undef MSG_CMSG_CLOEXEC
#undef POLLRDHUP
#undef SO_PROTOCOL
#undef SO_DOMAIN
#undef ENODATA
#undef SIOCOUTQ
#undef SIOCINQ

#define SO_NWRITE T_MACOS_SO_NWRITE
#define getsockopt(fd, level, name, value, len) t_macos_getsockopt(fd, level, name, value, len)
#define SO_NOSIGPIPE T_MACOS_SO_NOSIGPIPE
#define setsockopt(fd, level, name, value, len) t_macos_setsockopt(fd, level, name, value, len)
#define send(fd, data, size, flags) t_macos_send(fd, data, size, flags)
#define sendto(fd, data, size, flags, to, len) t_macos_sendto(fd, data, size, flags, to, len)
#define sendmsg(fd, msg, flags) t_macos_sendmsg(fd, msg, flags)
#define recv(fd, buf, size, flags) t_macos_recv(fd, buf, size, flags)
#define recvfrom(fd, buf, size, flags, from, len) t_macos_recvfrom(fd, buf, size, flags, from, len)
#define recvmsg(fd, msg, flags) t_macos_recvmsg(fd, msg, flags)
#define getsockname(fd, sa, len) t_macos_getsockname(fd, sa, len)
#define getpeername(fd, sa, len) t_macos_getpeername(fd, sa, len)
#define accept(fd, sa, len) t_macos_accept(fd, sa, len)
#define shutdown(fd, how) t_macos_shutdown(fd, how)

#endif
