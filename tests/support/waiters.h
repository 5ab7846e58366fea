/* Calls that wait, each on a thread of its own, for a close or a cleanup to end them. */
#ifndef TESTS_SUPPORT_WAITERS_H
#define TESTS_SUPPORT_WAITERS_H

#include "support/pairs.h"
#include "support/raw.h"

/* As much as no kernel takes at once. */
#define T_FLOOD (48u * 1024 * 1024)

T_FUNC char *t_flood(void) {
    static char *bytes;
    if (!bytes) {
        bytes = mmap(NULL, T_FLOOD, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        T_CHECK(bytes != MAP_FAILED);
    }
    return bytes;
}

typedef enum t_wait_kind {
    T_WAIT_RECV,
    T_WAIT_ACCEPT,
    T_WAIT_CONNECT,
    T_WAIT_HANDSHAKE,
    T_WAIT_SENDALL,
    T_WAIT_SEND_BUF,
    T_WAIT_UNWRAP,
    T_WAIT_SELECT,
    T_WAIT_POLLER
} t_wait_kind;

typedef struct t_waiter {
    t_wait_kind what;
    pysock *s;
    int port; /* of a connect */
    pysock_poller *p;
    intptr_t result;
    int code;
    pysock_error_kind kind;
    pysock_pollevent event;
} t_waiter;

T_FUNC intptr_t t_send_bufs_until_it_fails(pysock *s) {
    pysock_buf *b = T_OK(pysock_buf_new(1024 * 1024));
    int rc;
    do
        rc = pysock_send_buf(s, b);
    while (rc == 0);
    pysock_buf_release(b); /* leaves the error, and errno is read from it */
    errno = pysock_error_code();
    return rc;
}

T_FUNC void *t_wait_thread(void *arg) {
    t_waiter *w = arg;
    char byte;
    int fd;
    size_t n = 1;
    switch (w->what) {
    case T_WAIT_RECV: w->result = pysock_recv(w->s, &byte, 1, 0); break;
    case T_WAIT_ACCEPT: w->result = pysock_accept(w->s, NULL) ? 0 : -1; break;
    case T_WAIT_CONNECT: w->result = pysock_connect(w->s, "127.0.0.1", w->port); break;
    case T_WAIT_HANDSHAKE: w->result = pysock_ssl_do_handshake(w->s); break;
    case T_WAIT_SENDALL: w->result = pysock_sendall(w->s, t_flood(), T_FLOOD, 0); break;
    case T_WAIT_SEND_BUF: w->result = t_send_bufs_until_it_fails(w->s); break;
    case T_WAIT_UNWRAP: w->result = pysock_ssl_unwrap(w->s); break;
    case T_WAIT_SELECT:
        fd = pysock_fileno(w->s);
        w->result = pysock_select(&fd, &n, NULL, NULL, NULL, NULL, PYSOCK_NO_TIMEOUT);
        break;
    case T_WAIT_POLLER:
        w->result = pysock_poller_poll(w->p, &w->event, 1, PYSOCK_NO_TIMEOUT);
        break;
    }
    w->code = errno;
    w->kind = pysock_error();
    return NULL;
}

/* A socket on which such a wait sleeps, and what belongs to it. */
typedef struct t_stage {
    t_waiter w;
    pysock *peer;
    int fds[2];
} t_stage;

T_FUNC void t_stage_set(t_stage *st, t_wait_kind what, int tls, double timeout,
                        pysock_ssl_context *client, pysock_ssl_context *server) {
    pysock *pair[2];
    memset(st, 0, sizeof *st);
    st->w.what = what;
    st->fds[0] = st->fds[1] = -1;
    if (what == T_WAIT_ACCEPT) {
        st->w.s = t_listen(&st->w.port);
        if (tls)
            T_OK(pysock_ssl_wrap_socket(st->w.s, server, NULL));
    } else if (what == T_WAIT_CONNECT) {
        st->w.port = t_silent_port(st->fds);
        st->w.s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
        if (tls)
            T_OK(pysock_ssl_wrap_socket(st->w.s, client, "localhost"));
    } else {
        if (tls && what != T_WAIT_HANDSHAKE)
            t_tls_pair(pair, client, server);
        else
            t_pair(pair);
        st->w.s = pair[0];
        st->peer = pair[1];
        if (what == T_WAIT_HANDSHAKE)
            t_wrap_later(st->w.s, client, "localhost");
    }
    T_OK(pysock_settimeout(st->w.s, timeout));
    if (what == T_WAIT_POLLER)
        st->w.p = t_poller_with(pysock_fileno(st->w.s), POLLIN);
}

T_FUNC void t_stage_clear(t_stage *st) {
    T_OK(pysock_close(st->w.s));
    T_OK(pysock_close(st->peer));
    pysock_poller_release(st->w.p);
    for (int i = 0; i < 2; i++)
        if (st->fds[i] >= 0)
            close(st->fds[i]);
}

#endif
