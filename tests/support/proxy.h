/* A TLS pair whose bytes go through two raw descriptors. Once the handshake is over the test itself
   carries the records, whole, in halves, or not at all. */
#ifndef TESTS_SUPPORT_PROXY_H
#define TESTS_SUPPORT_PROXY_H

#include "support/pairs.h"
#include "support/raw.h"

typedef struct t_proxy {
    int to_client; /* what is written here arrives at pair[0] */
    int to_server; /* and here at pair[1] */
    int stop[2];
} t_proxy;

T_FUNC int t_forward(int from, int to) {
    char buf[4096];
    ssize_t n = recv(from, buf, sizeof buf, MSG_DONTWAIT);
    if (n > 0)
        t_raw_write(to, buf, (size_t)n);
    return n > 0;
}

T_FUNC void *t_proxy_thread(void *arg) {
    t_proxy *p = arg;
    for (;;) {
        struct pollfd fds[3] = {
            {p->to_client, POLLIN, 0}, {p->to_server, POLLIN, 0}, {p->stop[0], POLLIN, 0}};
        if (poll(fds, 3, -1) < 0)
            continue;
        if (fds[0].revents && !t_forward(p->to_client, p->to_server))
            return NULL;
        if (fds[1].revents && !t_forward(p->to_server, p->to_client))
            return NULL;
        if (fds[2].revents)
            return NULL;
    }
}

/* A connected TLS pair with p in the middle, which has stopped forwarding when this returns. */
T_FUNC void t_tls_pair_by_proxy(pysock *pair[2], t_proxy *p, pysock_ssl_context *client,
                                pysock_ssl_context *server) {
    t_thread t;
    int raw_port, port;
    int raw = t_raw_listen(&raw_port);
    pysock *listener = t_listen(&port);
    pair[0] = T_OK(pysock_create_connection("127.0.0.1", raw_port, PYSOCK_NO_TIMEOUT));
    p->to_client = t_raw_accept(raw);
    p->to_server = t_raw_connect(port);
    pair[1] = T_OK(pysock_accept(listener, NULL));
    T_EQ(pipe(p->stop), 0);
    t_spawn(&t, t_proxy_thread, p);
    t_wrap_pair(pair, client, server);
    T_EQ(write(p->stop[1], "", 1), 1);
    t_join(&t);
    close(raw);
    T_OK(pysock_close(listener));
}

T_FUNC void t_proxy_close(t_proxy *p) {
    close(p->to_client);
    close(p->to_server);
    close(p->stop[0]);
    close(p->stop[1]);
}

#define T_RECORD (5 + 16384 + 2048)

/* One whole TLS record from a raw descriptor; returns its length, header included. */
T_FUNC size_t t_raw_record(int fd, unsigned char record[T_RECORD]) {
    size_t n;
    T_EQ(t_raw_read(fd, record, 5), 5);
    n = ((size_t)record[3] << 8) | record[4];
    T_CHECK(n + 5 <= T_RECORD);
    T_EQ(t_raw_read(fd, record + 5, n), n);
    return n + 5;
}

#endif
