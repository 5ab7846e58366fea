/* Names that take for ever, fail in every way, or stand for several addresses: the library's
   getaddrinfo is one of this file's. "held.test" is not answered until the test opens the gate, so
   that what waits for it hangs, and the watchdog says where; other names that end in ".test" fail,
   each with its own code. The answer is an address of 127/8 that is this process's own: nobody
   else connects there by mistake. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <netdb.h>
#include <sys/socket.h>
#include <sys/types.h>

static int fake_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                            struct addrinfo **res);

#ifdef __GLIBC__
static int fake_gethostbyaddr_r(const void *addr, socklen_t len, int type, struct hostent *entry,
                                char *room, size_t size, struct hostent **found, int *code);
#define gethostbyaddr_r fake_gethostbyaddr_r
#endif

#define PYSOCK_IMPLEMENTATION
#define getaddrinfo fake_getaddrinfo
#include "pysock.h"
#undef getaddrinfo
#undef gethostbyaddr_r

#include "support/contexts.h"

/* ---- the resolver ---- */

static pthread_mutex_t gate_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_turn = PTHREAD_COND_INITIALIZER;
static int gate_is_shut, at_gate, held_error; /* guarded by gate_lock */

static const struct {
    const char *name;
    int code, sys;
} failing[] = {
    {"noname.test", EAI_NONAME, 0}, {"again.test", EAI_AGAIN, 0},        {"fail.test", EAI_FAIL, 0},
    {"memory.test", EAI_MEMORY, 0}, {"system.test", EAI_SYSTEM, EMFILE},
#ifdef EAI_NODATA
    {"nodata.test", EAI_NODATA, 0},
#endif
};
#define FAILING (sizeof failing / sizeof failing[0])

static int wait_at_gate(void) {
    int error;
    pthread_mutex_lock(&gate_lock);
    at_gate++;
    pthread_cond_broadcast(&gate_turn);
    while (gate_is_shut)
        pthread_cond_wait(&gate_turn, &gate_lock);
    at_gate--;
    error = held_error;
    pthread_cond_broadcast(&gate_turn);
    pthread_mutex_unlock(&gate_lock);
    return error;
}

/* This process's address, 127.something. */
static const char *here(void) {
    static char text[32];
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    if (!text[0]) {
        long pid = (long)getpid();
        snprintf(text, sizeof text, "127.%ld.%ld.%ld", 1 + (pid >> 14) % 250, (pid >> 7) % 128,
                 1 + pid % 128);
    }
    pthread_mutex_unlock(&lock);
    return text;
}

/* An address where nobody listens, and then that one. */
static int answer_twice(const char *service, const struct addrinfo *hints, struct addrinfo **res) {
    int err = getaddrinfo("127.0.0.2", service, hints, res);
    if (err == 0)
        err = getaddrinfo(here(), service, hints, &(*res)->ai_next);
    return err;
}

static int fake_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                            struct addrinfo **res) {
    int numeric = hints && (hints->ai_flags & AI_NUMERICHOST), err;
    if (!node || numeric)
        return getaddrinfo(node, service, hints, res);
    if (strcmp(node, "held.test") == 0) {
        err = wait_at_gate();
        return err ? err : getaddrinfo(here(), service, hints, res);
    }
    if (strcmp(node, "here.test") == 0)
        return getaddrinfo(here(), service, hints, res);
    if (strcmp(node, "two.test") == 0)
        return answer_twice(service, hints, res);
    for (size_t i = 0; i < FAILING; i++)
        if (strcmp(node, failing[i].name) == 0) {
            errno = failing[i].sys;
            return failing[i].code;
        }
    return getaddrinfo(node, service, hints, res);
}

#ifdef __GLIBC__

static const int host_codes[] = {HOST_NOT_FOUND, TRY_AGAIN, NO_RECOVERY, NO_DATA};
enum { HOST_CODES = sizeof host_codes / sizeof host_codes[0], ALIASES = 100 };

typedef struct big_host {
    char *aliases[ALIASES + 1], *addresses[2];
    char names[ALIASES + 1][64];
    unsigned char ip[4];
} big_host;

/* 192.0.2.1 and those after it fail, each with its own code; 192.0.2.100 has more names than fit
   what one would think of first, of which the first two have no dot. */
static int fake_gethostbyaddr_r(const void *addr, socklen_t len, int type, struct hostent *entry,
                                char *room, size_t size, struct hostent **found, int *code) {
    const unsigned char *ip = addr;
    big_host *big = (big_host *)(void *)room;
    if (type != AF_INET || ip[0] != 192 || ip[1] != 0 || ip[2] != 2)
        return gethostbyaddr_r(addr, len, type, entry, room, size, found, code);
    *found = NULL;
    if (ip[3] <= HOST_CODES) {
        *code = host_codes[ip[3] - 1];
        return 0;
    }
    *code = NETDB_INTERNAL;
    if (size < sizeof *big)
        return ERANGE;
    memset(big, 0, sizeof *big);
    for (int i = 0; i <= ALIASES; i++)
        snprintf(big->names[i], sizeof big->names[i], "alias-%d%s", i, i > 1 ? ".example" : "");
    for (int i = 0; i < ALIASES; i++)
        big->aliases[i] = big->names[i + 1];
    memcpy(big->ip, ip, 4);
    big->addresses[0] = (char *)big->ip;
    entry->h_name = big->names[0];
    entry->h_aliases = big->aliases;
    entry->h_addrtype = AF_INET;
    entry->h_length = 4;
    entry->h_addr_list = big->addresses;
    *found = entry;
    return 0;
}

#endif

/* From here on "held.test" is not answered, and then with here(), or this EAI_ code. */
static void shut_gate(int error) {
    pthread_mutex_lock(&gate_lock);
    gate_is_shut = 1;
    held_error = error;
    pthread_mutex_unlock(&gate_lock);
}

static void wait_until_held(int lookups) {
    T_STEP("waiting for %d lookups to begin", lookups);
    pthread_mutex_lock(&gate_lock);
    while (at_gate < lookups)
        pthread_cond_wait(&gate_turn, &gate_lock);
    pthread_mutex_unlock(&gate_lock);
}

static void open_gate(void) {
    pthread_mutex_lock(&gate_lock);
    gate_is_shut = 0;
    pthread_cond_broadcast(&gate_turn);
    while (at_gate)
        pthread_cond_wait(&gate_turn, &gate_lock);
    pthread_mutex_unlock(&gate_lock);
}

/* ---- connect ---- */

static pysock *stream(double timeout) {
    pysock *s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_settimeout(s, timeout));
    return s;
}

static pysock *listen_here(int *port) {
    pysock *s = T_OK(pysock_create_server(here(), 0, 64));
    pysock_addr addr;
    T_OK(pysock_getsockname(s, &addr));
    *port = pysock_addr_port(&addr);
    return s;
}

/* Nobody has connected who was not accepted. */
static void expect_no_caller(pysock *listener) {
    T_EQ(t_readable(listener, 0.1), 0);
}

/* Every call returns though the name is never found; and when it is, all goes on. */
T_TEST(a_nonblocking_connect_waits_for_no_name, 60) {
    int port, value = -1;
    pysock *listener, *a, *b;
    pysock_poller *p;
    pysock_pollevent event;
    pysock_addr addr;
    char byte;
    listener = listen_here(&port);
    a = stream(0);
    p = t_poller_with(pysock_fileno(a), POLLIN | POLLOUT);
    shut_gate(0);
    T_FAILS(pysock_connect(a, "held.test", port), PYSOCK_OS_ERROR, EINPROGRESS);
    wait_until_held(1);
    T_STEP("again");
    T_FAILS(pysock_connect(a, "held.test", port), PYSOCK_OS_ERROR, EALREADY);
    T_EQ(pysock_connect_ex(a, here(), port), EALREADY);
    T_STEP("select and poll");
    T_EQ(t_writable(a, 0), 0);
    T_EQ(t_readable(a, 0.02), 0);
    T_EQ(pysock_poller_poll(p, &event, 1, 0.02), 0);
    T_STEP("input and output");
    T_FAILS(pysock_recv(a, &byte, 1, 0), PYSOCK_OS_ERROR, T_ANY);
    T_FAILS(pysock_send(a, "x", 1, 0), PYSOCK_OS_ERROR, T_ANY);
    T_FAILS(pysock_getpeername(a, &addr), PYSOCK_OS_ERROR, ENOTCONN);
    T_STEP("options");
    T_OK(pysock_getsockopt_int(a, SOL_SOCKET, SO_ERROR, &value));
    T_EQ(value, 0);
    T_OK(pysock_setsockopt_int(a, IPPROTO_TCP, TCP_NODELAY, 1));
    T_OK(pysock_getsockname(a, &addr));
    T_OK(pysock_settimeout(a, 5));
    T_OK(pysock_setblocking(a, 0));
    expect_no_caller(listener);
    open_gate();
    T_STEP("the name is found");
    T_EQ(pysock_poller_poll(p, &event, 1, PYSOCK_NO_TIMEOUT), 1);
    T_EQ(event.events, POLLOUT);
    T_EQ(t_writable(a, PYSOCK_NO_TIMEOUT), 1);
    T_OK(pysock_getsockopt_int(a, SOL_SOCKET, SO_ERROR, &value));
    T_EQ(value, 0);
    b = T_OK(pysock_accept(listener, NULL));
    t_echo_once(a, b);
    pysock_poller_release(p);
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
    T_OK(pysock_close(listener));
}

T_TEST(a_name_that_is_not_found_is_told_by_select_and_the_next_call, 60) {
    int value = 0;
    for (int by_option = 0; by_option < 2; by_option++) {
        pysock *s = stream(0);
        char byte;
        shut_gate(EAI_NONAME);
        T_FAILS(pysock_connect(s, "held.test", 80), PYSOCK_OS_ERROR, EINPROGRESS);
        wait_until_held(1);
        open_gate();
        T_EQ(t_writable(s, PYSOCK_NO_TIMEOUT), 1);
        T_EQ(t_readable(s, PYSOCK_NO_TIMEOUT), 1);
        if (by_option) {
            T_OK(pysock_getsockopt_int(s, SOL_SOCKET, SO_ERROR, &value));
            T_EQ(value, EADDRNOTAVAIL);
        } else {
            T_FAILS(pysock_recv(s, &byte, 1, 0), PYSOCK_GAI_ERROR, T_ANY);
            T_EQ(pysock_error_code(), EAI_NONAME);
            T_CHECK(strstr(pysock_error_message(), "held.test") != NULL);
        }
        T_OK(pysock_close(s));
    }
}

T_TEST(closing_abandons_a_nonblocking_connect, 60) {
    int port, fd;
    pysock *listener, *s;
    char byte;
    listener = listen_here(&port);
    for (int tls = 0; tls < 2; tls++) {
        T_STEP("%s", tls ? "TLS" : "plain");
        s = stream(0);
        if (tls)
            T_OK(pysock_ssl_wrap_socket(s, client_ctx, "localhost"));
        fd = T_OK(pysock_fileno(s));
        shut_gate(0);
        T_FAILS(pysock_connect(s, "held.test", port), PYSOCK_OS_ERROR, EINPROGRESS);
        wait_until_held(1);
        T_STEP("close");
        T_OK(pysock_close(s));
        T_FAILS(pysock_recv(s, &byte, 1, 0), PYSOCK_OS_ERROR, EBADF);
        T_EQ(fcntl(fd, F_GETFD), -1);
        open_gate();
        expect_no_caller(listener);
    }
    T_OK(pysock_close(listener));
}

/* It gives up in time, the socket can be used for something else, and the answer that comes too
   late changes nothing. */
T_TEST(a_timed_connect_gives_up_a_name_at_its_deadline, 60) {
    int port;
    pysock *listener, *a, *b;
    double start;
    listener = listen_here(&port);
    a = stream(1);
    shut_gate(0);
    start = t_now();
    T_FAILS(pysock_connect(a, "held.test", port), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    T_CHECK(t_now() - start >= 0.99);
    wait_until_held(1);
    T_STEP("the same socket, by number");
    T_OK(pysock_settimeout(a, 30));
    T_OK(pysock_connect(a, here(), port));
    b = T_OK(pysock_accept(listener, NULL));
    open_gate();
    expect_no_caller(listener);
    t_echo_once(a, b);
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
    T_OK(pysock_close(listener));
}

typedef struct caller {
    pysock *s;
    int port;
    double timeout;
    intptr_t result;
    int code;
    int ended; /* atomic */
} caller;

static void note_result(caller *c, intptr_t result) {
    c->result = result;
    c->code = errno;
}

static void *connect_thread(void *arg) {
    caller *c = arg;
    note_result(c, pysock_connect(c->s, "held.test", c->port));
    return NULL;
}

static void *sendto_thread(void *arg) {
    caller *c = arg;
    note_result(c, pysock_sendto(c->s, "x", 1, 0, "held.test", c->port));
    return NULL;
}

static void *create_thread(void *arg) {
    caller *c = arg;
    c->s = pysock_create_connection("held.test", c->port, c->timeout);
    note_result(c, c->s ? 0 : -1);
    return NULL;
}

static void *create_two_thread(void *arg) {
    caller *c = arg;
    c->s = pysock_create_connection("two.test", c->port, c->timeout);
    note_result(c, c->s ? 0 : -1);
    return NULL;
}

static void expect_result(const caller *c, intptr_t result, int code) {
    if (c->result != result || (result < 0 && c->code != code))
        T_FAIL("the call gave %ld, errno %d (%s), not %ld, %s", (long)c->result, c->code,
               strerror(c->code), (long)result, strerror(code));
}

T_TEST(closing_ends_a_timed_connect_that_waits_for_a_name, 60) {
    for (int tls = 0; tls < 2; tls++) {
        caller c = {stream(50), 9, 0, 0, 0, 0};
        t_thread t;
        if (tls)
            T_OK(pysock_ssl_wrap_socket(c.s, client_ctx, "localhost"));
        shut_gate(0);
        t_spawn(&t, connect_thread, &c);
        wait_until_held(1);
        t_wait_asleep(&t);
        T_OK(pysock_close(c.s));
        T_STEP("waiting for the connect to end");
        t_join(&t);
        expect_result(&c, -1, EBADF);
        open_gate();
    }
}

/* The thread that has no deadline looks the name up itself: it ends when it has. */
T_TEST(closing_does_not_wait_for_a_blocking_connect, 60) {
    int port;
    pysock *listener;
    caller c = {NULL, 0, 0, 0, 0, 0};
    t_thread t;
    listener = listen_here(&port);
    c.s = stream(PYSOCK_NO_TIMEOUT);
    c.port = port;
    shut_gate(0);
    t_spawn(&t, connect_thread, &c);
    wait_until_held(1);
    T_STEP("close");
    T_OK(pysock_close(c.s));
    T_FAILS(pysock_fileno(c.s), PYSOCK_OS_ERROR, EBADF);
    open_gate();
    t_join(&t);
    expect_result(&c, -1, EBADF);
    expect_no_caller(listener);
    T_OK(pysock_close(listener));
}

T_TEST(a_blocking_connect_by_name_can_be_made_nonblocking_meanwhile, 60) {
    int port;
    pysock *listener, *b;
    caller c = {NULL, 0, 0, 0, 0, 0};
    t_thread t;
    listener = listen_here(&port);
    c.s = stream(30);
    c.port = port;
    shut_gate(0);
    t_spawn(&t, connect_thread, &c);
    wait_until_held(1);
    T_OK(pysock_setblocking(c.s, 0));
    T_EQ(t_writable(c.s, 0), 0);
    T_OK(pysock_setblocking(c.s, 1));
    open_gate();
    t_join(&t);
    expect_result(&c, 0, 0);
    b = T_OK(pysock_accept(listener, NULL));
    t_echo_once(c.s, b);
    T_OK(pysock_close(c.s));
    T_OK(pysock_close(b));
    T_OK(pysock_close(listener));
}

T_TEST(connect_takes_the_first_address_and_create_connection_each, 60) {
    int port;
    pysock *listener, *s, *b;
    pysock_addrinfo *list = NULL;
    pysock_addr addr;
    char text[PYSOCK_ADDR_STRLEN], want[PYSOCK_ADDR_STRLEN];
    listener = listen_here(&port);
    T_EQ(pysock_getaddrinfo("two.test", "80", AF_INET, SOCK_STREAM, 0, 0, &list), 2);
    pysock_addr_format(&list[0].addr, text, sizeof text);
    T_CHECK(strcmp(text, "127.0.0.2:80") == 0);
    pysock_addr_format(&list[1].addr, text, sizeof text);
    snprintf(want, sizeof want, "%s:80", here());
    T_CHECK(strcmp(text, want) == 0);
    pysock_freeaddrinfo(list);
    s = stream(30);
    T_FAILS(pysock_connect(s, "two.test", port), PYSOCK_OS_ERROR, ECONNREFUSED);
    T_OK(pysock_close(s));
    s = T_OK(pysock_create_connection("two.test", port, 30));
    T_OK(pysock_getpeername(s, &addr));
    T_EQ(addr.u.in.sin_addr.s_addr, inet_addr(here()));
    b = T_OK(pysock_accept(listener, NULL));
    T_OK(pysock_close(s));
    T_OK(pysock_close(b));
    T_OK(pysock_close(listener));
}

/* Then it is a socket like a new one. */
T_TEST(a_name_that_is_not_found_is_told_once, 60) {
    pysock *s = stream(0);
    char byte;
    T_FAILS(pysock_connect(s, "noname.test", 9), PYSOCK_OS_ERROR, EINPROGRESS);
    T_EQ(t_writable(s, 20), 1);
    T_FAILS(pysock_recv(s, &byte, 1, 0), PYSOCK_GAI_ERROR, EADDRNOTAVAIL);
    T_FAILS(pysock_recv(s, &byte, 1, 0), PYSOCK_OS_ERROR, ENOTCONN);
    T_FAILS(pysock_connect(s, "noname.test", 9), PYSOCK_OS_ERROR, EINPROGRESS);
    T_OK(pysock_close(s));
}

/* ---- fork ---- */

/* What the parent's workers look up is lost here, and said to be; other names are found. */
static void child_looks_up(void *arg) {
    pysock *lost = arg, *s;
    T_EQ(t_writable(lost, 20), 1);
    T_FAILS(pysock_send(lost, "x", 1, 0), PYSOCK_OS_ERROR, ECONNABORTED);
    if (T_TSAN)
        return; /* threads of a child are more than this sanitizer can do */
    s = stream(0);
    T_FAILS(pysock_connect(s, "noname.test", 9), PYSOCK_OS_ERROR, EINPROGRESS);
    T_EQ(t_writable(s, 20), 1);
    T_FAILS(pysock_send(s, "x", 1, 0), PYSOCK_GAI_ERROR, EADDRNOTAVAIL);
    T_OK(pysock_close(s));
}

T_TEST(a_child_looks_names_up_itself, 60) {
    enum { HELD = 8 };
    pysock *held[HELD];
    shut_gate(0);
    for (int i = 0; i < HELD; i++) {
        held[i] = stream(0);
        T_FAILS(pysock_connect(held[i], "held.test", 9), PYSOCK_OS_ERROR, EINPROGRESS);
    }
    wait_until_held(HELD); /* none of them is in a lock that the child would find taken */
    t_wait_for_child(t_run_in_child(child_looks_up, held[0], 0));
    for (int i = 0; i < HELD; i++)
        T_OK(pysock_close(held[i]));
    open_gate();
}

/* ---- create_connection ---- */

static int raw_listen_at(const char *ip, int *port, int backlog) {
    struct sockaddr_in in;
    socklen_t len = sizeof in;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memset(&in, 0, sizeof in);
    in.sin_family = AF_INET;
    in.sin_port = htons((uint16_t)*port);
    in.sin_addr.s_addr = inet_addr(ip);
    if (fd < 0 || bind(fd, (struct sockaddr *)&in, sizeof in) != 0 || listen(fd, backlog) != 0 ||
        getsockname(fd, (struct sockaddr *)&in, &len) != 0)
        T_FAIL("raw listener at %s: %s", ip, strerror(errno));
    *port = ntohs(in.sin_port);
    return fd;
}

/* Of the addresses of "two.test", at one port, the first never answers: its queue is full. fds: its
   listener, who fills that, the other listener. */
static int first_is_silent(int fds[3]) {
    struct sockaddr_in in;
    int port = 0;
    fds[2] = raw_listen_at(here(), &port, 8);
    fds[0] = raw_listen_at("127.0.0.2", &port, 0);
    fds[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memset(&in, 0, sizeof in);
    in.sin_family = AF_INET;
    in.sin_port = htons((uint16_t)port);
    in.sin_addr.s_addr = inet_addr("127.0.0.2");
    T_EQ(connect(fds[1], (struct sockaddr *)&in, sizeof in), 0);
    return port;
}

static void close_three(int fds[3]) {
    for (int i = 0; i < 3; i++)
        close(fds[i]);
}

/* The time is shared, so that there is some left for the second. */
T_TEST(an_address_that_is_silent_leaves_time_for_the_next, 60) {
    pysock_addr addr;
    pysock *s;
    int fds[3], port;
    port = first_is_silent(fds);
    s = T_OK(pysock_create_connection("two.test", port, 4));
    T_OK(pysock_getpeername(s, &addr));
    T_EQ(addr.u.in.sin_addr.s_addr, inet_addr(here()));
    T_OK(pysock_close(s));
    close_three(fds);
}

/* A cleanup ends the call, and not one attempt of it. */
T_TEST(a_cleanup_ends_all_attempts, 60) {
    caller c = {NULL, 0, 60, 0, 0, 0};
    t_thread t;
    int fds[3];
    struct pollfd none;
    c.port = first_is_silent(fds);
    t_spawn(&t, create_two_thread, &c);
    t_wait_asleep(&t);
    pysock_cleanup();
    t_join(&t);
    expect_result(&c, -1, ESHUTDOWN);
    none.fd = fds[2];
    none.events = POLLIN;
    T_EQ(poll(&none, 1, 0), 0);
    close_three(fds);
}

T_TEST(create_connection_gives_up_a_name_at_its_deadline, 60) {
    int port;
    pysock *listener;
    double start;
    listener = listen_here(&port);
    shut_gate(0);
    start = t_now();
    T_FAILS(pysock_create_connection("held.test", port, 0.2), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    T_CHECK(t_now() - start >= 0.19);
    T_CHECK(strstr(pysock_error_message(), "held.test") != NULL);
    T_STEP("the default timeout");
    T_OK(pysock_setdefaulttimeout(0.1));
    T_FAILS(pysock_create_connection("held.test", port, PYSOCK_DEFAULT_TIMEOUT),
            PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    T_OK(pysock_setdefaulttimeout(PYSOCK_NO_TIMEOUT));
    wait_until_held(2);
    open_gate();
    expect_no_caller(listener);
    T_OK(pysock_close(listener));
}

T_TEST(create_connection_goes_on_when_the_name_is_found, 60) {
    static const double timeouts[] = {30, PYSOCK_NO_TIMEOUT};
    int port;
    pysock *listener, *b;
    listener = listen_here(&port);
    for (int i = 0; i < 2; i++) {
        caller c = {NULL, 0, 0, 0, 0, 0};
        t_thread t;
        c.port = port;
        c.timeout = timeouts[i];
        shut_gate(0);
        t_spawn(&t, create_thread, &c);
        wait_until_held(1);
        open_gate();
        t_join(&t);
        expect_result(&c, 0, 0);
        b = T_OK(pysock_accept(listener, NULL));
        t_echo_once(c.s, b);
        T_OK(pysock_close(c.s));
        T_OK(pysock_close(b));
    }
    T_OK(pysock_close(listener));
}

/* ---- sendto ---- */

static pysock *datagram(double timeout) {
    pysock *s = T_OK(pysock_socket(AF_INET, SOCK_DGRAM, 0));
    T_OK(pysock_settimeout(s, timeout));
    return s;
}

static pysock *bound_datagram(int *port) {
    pysock *s = datagram(PYSOCK_NO_TIMEOUT);
    pysock_addr addr;
    T_OK(pysock_bind(s, here(), 0));
    T_OK(pysock_getsockname(s, &addr));
    *port = pysock_addr_port(&addr);
    return s;
}

static void expect_datagram(pysock *s, const char *text) {
    char buf[64];
    T_EQ(pysock_recv(s, buf, sizeof buf, 0), strlen(text));
    T_EQ(memcmp(buf, text, strlen(text)), 0);
}

T_TEST(a_nonblocking_sendto_waits_for_no_name, 60) {
    int port;
    pysock *a, *b;
    b = bound_datagram(&port);
    a = datagram(0);
    T_EQ(t_writable(a, 0), 1);
    shut_gate(0);
    T_FAILS(pysock_sendto(a, "one", 3, 0, "held.test", port), PYSOCK_OS_ERROR, EAGAIN);
    wait_until_held(1);
    T_FAILS(pysock_sendto(a, "one", 3, 0, "held.test", port), PYSOCK_OS_ERROR, EAGAIN);
    T_EQ(t_writable(a, 0), 0);
    T_EQ(t_writable(a, 0.02), 0);
    T_EQ(t_readable(b, 0), 0);
    open_gate();
    T_EQ(t_writable(a, PYSOCK_NO_TIMEOUT), 1);
    T_EQ(pysock_sendto(a, "one", 3, 0, "held.test", port), 3);
    expect_datagram(b, "one");
    T_STEP("no more than was sent");
    T_EQ(t_readable(b, 0.05), 0);
    T_STEP("by number there is nothing to wait for");
    T_EQ(pysock_sendto(a, "two", 3, 0, here(), port), 3);
    expect_datagram(b, "two");
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
}

T_TEST(a_name_that_is_not_found_is_told_by_the_next_sendto, 60) {
    int port;
    pysock *a, *b;
    b = bound_datagram(&port);
    a = datagram(0);
    shut_gate(EAI_NONAME);
    T_FAILS(pysock_sendto(a, "one", 3, 0, "held.test", port), PYSOCK_OS_ERROR, EAGAIN);
    wait_until_held(1);
    open_gate();
    T_EQ(t_writable(a, PYSOCK_NO_TIMEOUT), 1);
    T_FAILS(pysock_sendto(a, "one", 3, 0, "held.test", port), PYSOCK_GAI_ERROR, T_ANY);
    T_EQ(pysock_error_code(), EAI_NONAME);
    T_CHECK(strstr(pysock_error_message(), "held.test") != NULL);
    T_STEP("it is looked up anew each time, and this time it is there");
    shut_gate(0);
    T_FAILS(pysock_sendto(a, "two", 3, 0, "held.test", port), PYSOCK_OS_ERROR, EAGAIN);
    wait_until_held(1);
    open_gate();
    T_EQ(t_writable(a, PYSOCK_NO_TIMEOUT), 1);
    T_EQ(pysock_sendto(a, "two", 3, 0, "held.test", port), 3);
    expect_datagram(b, "two");
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
}

T_TEST(a_timed_sendto_gives_up_a_name_at_its_deadline, 60) {
    int port;
    pysock *a, *b;
    double start;
    b = bound_datagram(&port);
    a = datagram(0.2);
    shut_gate(0);
    start = t_now();
    T_FAILS(pysock_sendto(a, "one", 3, 0, "held.test", port), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    T_CHECK(t_now() - start >= 0.19);
    wait_until_held(1);
    T_EQ(pysock_sendto(a, "two", 3, 0, here(), port), 3);
    expect_datagram(b, "two");
    open_gate();
    T_EQ(t_readable(b, 0.05), 0);
    T_OK(pysock_settimeout(a, 30));
    T_EQ(pysock_sendto(a, "three", 5, 0, "held.test", port), 5);
    expect_datagram(b, "three");
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
}

T_TEST(closing_ends_a_sendto_that_waits_for_a_name, 60) {
    static const double timeouts[] = {50, 0, PYSOCK_NO_TIMEOUT};
    int port;
    pysock *b;
    b = bound_datagram(&port);
    for (int i = 0; i < 3; i++) {
        caller c = {NULL, 0, 0, 0, 0, 0};
        t_thread t;
        T_STEP("timeout %g", timeouts[i]);
        c.s = datagram(timeouts[i]);
        c.port = port;
        shut_gate(0);
        t_spawn(&t, sendto_thread, &c);
        wait_until_held(1);
        if (timeouts[i] == 0)
            t_join(&t);
        T_STEP("close, timeout %g", timeouts[i]);
        T_OK(pysock_close(c.s));
        if (timeouts[i] > 0)
            t_join(&t);
        open_gate();
        if (timeouts[i] < 0) /* it looks the name up itself */
            t_join(&t);
        expect_result(&c, -1, timeouts[i] == 0 ? EAGAIN : EBADF);
        T_EQ(t_readable(b, 0.05), 0);
    }
    T_OK(pysock_close(b));
}

typedef struct select_to_write {
    t_thread t;
    pysock *s;
    int writable;
} select_to_write;

static void *select_thread(void *arg) {
    select_to_write *w = arg;
    w->writable = t_writable(w->s, 20);
    return NULL;
}

/* It was asleep before the name was there, and the kernel has nothing to say. */
T_TEST(who_selects_is_told_when_a_sendtos_name_is_there, 60) {
    select_to_write w;
    int port;
    pysock *b;
    b = bound_datagram(&port);
    w.s = datagram(0);
    shut_gate(0);
    T_FAILS(pysock_sendto(w.s, "one", 3, 0, "held.test", port), PYSOCK_OS_ERROR, EAGAIN);
    wait_until_held(1);
    t_spawn(&w.t, select_thread, &w);
    t_wait_asleep(&w.t);
    open_gate();
    t_join(&w.t);
    T_EQ(w.writable, 1);
    T_EQ(pysock_sendto(w.s, "one", 3, 0, "held.test", port), 3);
    T_OK(pysock_close(w.s));
    T_OK(pysock_close(b));
}

/* The connect's name is still wanted when the sendto's comes. */
T_TEST(a_sendto_leaves_a_connect_under_way_alone, 30) {
    int port;
    pysock *a, *b;
    b = bound_datagram(&port);
    T_OK(pysock_settimeout(b, 20));
    a = datagram(0);
    shut_gate(0);
    T_FAILS(pysock_connect(a, "held.test", port), PYSOCK_OS_ERROR, EINPROGRESS);
    wait_until_held(1);
    T_FAILS(pysock_sendto(a, "one", 3, 0, "here.test", port), PYSOCK_OS_ERROR, EAGAIN);
    open_gate();
    T_EQ(t_writable(a, 20), 1);
    T_EQ(pysock_send(a, "two", 3, 0), 3);
    expect_datagram(b, "two");
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
}

static int times_told; /* atomic: of a name */

static int count_names(void *arg, const pysock_audit_event *event) {
    (void)arg;
    if (strcmp(event->name, "socket.getaddrinfo") == 0)
        __atomic_add_fetch(&times_told, 1, __ATOMIC_ACQ_REL);
    return 0;
}

/* A datagram for one name does not throw away what was found for another. */
T_TEST(datagrams_for_two_names_take_two_lookups, 30) {
    static const char *const texts[] = {"one", "two"};
    int port[2], left = 2, sent[2] = {0, 0};
    pysock *a, *b[2];
    for (int i = 0; i < 2; i++) {
        b[i] = bound_datagram(&port[i]);
        T_OK(pysock_settimeout(b[i], 20));
    }
    a = datagram(0);
    times_told = 0;
    pysock_set_audit_hook(count_names, NULL);
    shut_gate(0);
    for (int i = 0; i < 2; i++)
        T_FAILS(pysock_sendto(a, texts[i], 3, 0, "held.test", port[i]), PYSOCK_OS_ERROR, EAGAIN);
    open_gate();
    while (left) {
        T_EQ(t_writable(a, 20), 1);
        for (int i = 0; i < 2; i++) {
            if (sent[i])
                continue;
            sent[i] = pysock_sendto(a, texts[i], 3, 0, "held.test", port[i]) == 3;
            T_CHECK(sent[i] || errno == EAGAIN);
            left -= sent[i];
        }
    }
    T_EQ(times_told, 2);
    for (int i = 0; i < 2; i++)
        expect_datagram(b[i], texts[i]);
    T_OK(pysock_close(a));
    for (int i = 0; i < 2; i++)
        T_OK(pysock_close(b[i]));
}

T_TEST(no_call_with_MSG_DONTWAIT_waits_for_a_name, 30) {
    pysock *s;
    char byte;
    s = stream(0);
    shut_gate(0);
    T_FAILS(pysock_connect(s, "held.test", 9), PYSOCK_OS_ERROR, EINPROGRESS);
    wait_until_held(1);
    T_OK(pysock_settimeout(s, 5));
    T_FAILS(pysock_recv(s, &byte, 1, MSG_DONTWAIT), PYSOCK_OS_ERROR, EAGAIN);
    T_FAILS(pysock_send(s, "x", 1, MSG_DONTWAIT), PYSOCK_OS_ERROR, EAGAIN);
    T_OK(pysock_close(s));
    open_gate();
}

/* ---- many, and ends ---- */

/* However many names are never answered: once nobody waits for them any more, others are. */
T_TEST(abandoned_lookups_hold_nobody_up, 60) {
    enum { N = 12 };
    int port;
    pysock *listener, *s[N], *a, *b;
    listener = listen_here(&port);
    shut_gate(0);
    for (int i = 0; i < N; i++) {
        s[i] = stream(0);
        T_FAILS(pysock_connect(s[i], "held.test", port), PYSOCK_OS_ERROR, EINPROGRESS);
    }
    for (int i = 0; i < N; i++)
        T_OK(pysock_close(s[i]));
    a = stream(0);
    T_FAILS(pysock_connect(a, "here.test", port), PYSOCK_OS_ERROR, EINPROGRESS);
    T_STEP("a name that can be found, after %d that cannot", N);
    T_EQ(t_writable(a, 20), 1);
    b = T_OK(pysock_accept(listener, NULL));
    t_echo_once(a, b);
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
    T_STEP("and with a timeout");
    a = T_OK(pysock_create_connection("here.test", port, 30));
    T_OK(pysock_close(a));
    b = T_OK(pysock_accept(listener, NULL));
    T_OK(pysock_close(b));
    open_gate();
    expect_no_caller(listener);
    T_OK(pysock_close(listener));
}

/* A call that looks a name up itself holds no lock that others want. */
static void *getaddrinfo_thread(void *arg) {
    caller *c = arg;
    pysock_addrinfo *list = NULL;
    note_result(c, pysock_getaddrinfo("held.test", "80", AF_INET, SOCK_STREAM, 0, 0, &list));
    pysock_freeaddrinfo(list);
    return NULL;
}

T_TEST(a_slow_name_holds_up_nobody_else, 60) {
    caller c = {NULL, 0, 0, 0, 0, 0};
    pysock_addrinfo *list = NULL;
    pysock *pair[2];
    char ip[INET_ADDRSTRLEN];
    pysock_addr addr;
    t_thread t;
    shut_gate(0);
    t_spawn(&t, getaddrinfo_thread, &c);
    wait_until_held(1);
    T_EQ(pysock_getaddrinfo("two.test", "80", AF_INET, SOCK_STREAM, 0, 0, &list), 2);
    pysock_freeaddrinfo(list);
    T_OK(pysock_gethostbyname("localhost", ip, sizeof ip));
    T_OK(pysock_addr_resolve(&addr, AF_INET, "localhost", 80));
    t_tls_pair(pair, client_ctx, server_ctx);
    t_echo_once(pair[0], pair[1]);
    t_close_pair(pair);
    open_gate();
    t_join(&t);
    expect_result(&c, 1, 0);
}

/* What waits for a name ends with ESHUTDOWN, and the cleanup does not wait for the name itself. */
T_TEST(cleanup_waits_for_no_name, 60) {
    for (int round = 0; round < 2; round++) {
        caller connecting = {stream(50), 9, 0, 0, 0, 0};
        caller sending = {datagram(50), 9, 0, 0, 0, 0};
        caller creating = {NULL, 9, 50, 0, 0, 0};
        pysock *idle = stream(0);
        t_thread t[3];
        shut_gate(0);
        T_FAILS(pysock_connect(idle, "held.test", 9), PYSOCK_OS_ERROR, EINPROGRESS);
        t_spawn(&t[0], connect_thread, &connecting);
        t_spawn(&t[1], sendto_thread, &sending);
        t_spawn(&t[2], create_thread, &creating);
        for (int i = 0; i < 3; i++)
            t_wait_asleep(&t[i]);
        T_STEP("cleanup");
        pysock_cleanup();
        for (int i = 0; i < 3; i++) {
            T_STEP("join %d", i);
            t_join(&t[i]);
        }
        expect_result(&connecting, -1, ESHUTDOWN);
        expect_result(&sending, -1, ESHUTDOWN);
        expect_result(&creating, -1, ESHUTDOWN);
        T_FAILS(pysock_fileno(idle), PYSOCK_OS_ERROR, EBADF);
        T_STEP("and a name that can be found is found afterwards");
        {
            int port;
            pysock *listener = listen_here(&port);
            pysock *s = T_OK(pysock_create_connection("here.test", port, 30));
            T_OK(pysock_close(s));
            T_OK(pysock_close(listener));
        }
        open_gate();
    }
}

/* The one state's lookups are abandoned, the main one's go on. */
T_TEST(cleanup_of_a_state_abandons_its_names_alone, 60) {
    pysock_state *mine = T_OK(pysock_state_new());
    caller here = {NULL, 9, 0, 0, 0, 0};
    int port;
    pysock *listener, *there, *b;
    t_thread t;
    listener = listen_here(&port);
    there = stream(0);
    T_CHECK(pysock_state_swap(mine) == NULL);
    here.s = stream(50);
    T_CHECK(pysock_state_swap(NULL) == mine);
    shut_gate(0);
    T_FAILS(pysock_connect(there, "held.test", port), PYSOCK_OS_ERROR, EINPROGRESS);
    t_spawn(&t, connect_thread, &here);
    wait_until_held(2);
    t_wait_asleep(&t);
    pysock_state_cleanup(mine);
    t_join(&t);
    expect_result(&here, -1, ESHUTDOWN);
    T_EQ(t_writable(there, 0), 0);
    open_gate();
    T_EQ(t_writable(there, PYSOCK_NO_TIMEOUT), 1);
    b = T_OK(pysock_accept(listener, NULL));
    t_echo_once(there, b);
    T_OK(pysock_close(there));
    T_OK(pysock_close(b));
    T_OK(pysock_close(listener));
    pysock_state_free(mine);
}

static void *open_thread(void *arg) {
    open_gate();
    return arg;
}

/* The answer and the close at the same moment. */
T_TEST(an_answer_and_a_close_may_meet, 120) {
    int port;
    pysock *listener;
    listener = listen_here(&port);
    for (int round = 0; round < T_SCALE(200, 60); round++) {
        pysock *s = round & 1 ? datagram(0) : stream(0);
        t_thread closer, opener;
        T_STEP("round %d", round);
        shut_gate(round % 3 ? 0 : EAI_NONAME);
        if (round & 1)
            T_FAILS(pysock_sendto(s, "x", 1, 0, "held.test", 9), PYSOCK_OS_ERROR, EAGAIN);
        else
            T_FAILS(pysock_connect(s, "held.test", port), PYSOCK_OS_ERROR, EINPROGRESS);
        wait_until_held(1);
        t_spawn(&opener, open_thread, NULL);
        t_spawn(&closer, t_close_thread, s);
        t_join(&closer);
        t_join(&opener);
        T_FAILS(pysock_fileno(s), PYSOCK_OS_ERROR, EBADF);
        T_OK(pysock_setblocking(listener, 0));
        for (pysock *b; (b = pysock_accept(listener, NULL)) != NULL;)
            T_OK(pysock_close(b));
    }
    T_OK(pysock_close(listener));
}

typedef struct meeting {
    pysock *s;
    int port, by_sendto;
    pthread_barrier_t *both;
} meeting;

static void *meet_thread(void *arg) {
    meeting *m = arg;
    pthread_barrier_wait(m->both);
    if (m->by_sendto)
        (void)pysock_sendto(m->s, "x", 1, 0, "here.test", m->port);
    else
        (void)pysock_connect(m->s, "here.test", m->port);
    return NULL;
}

/* The lookup begins while the socket goes. */
T_TEST(a_lookup_that_begins_and_a_close_may_meet, 120) {
    static const double timeouts[] = {0, 30, PYSOCK_NO_TIMEOUT};
    pthread_barrier_t both;
    int port;
    pysock *listener;
    T_EQ(pthread_barrier_init(&both, NULL, 2), 0);
    listener = listen_here(&port);
    T_OK(pysock_setblocking(listener, 0));
    for (int round = 0; round < T_SCALE(1200, 300); round++) {
        meeting m = {NULL, port, round & 1, &both};
        t_thread t;
        T_STEP("round %d", round);
        m.s = round & 1 ? datagram(timeouts[round % 3]) : stream(timeouts[round % 3]);
        t_spawn(&t, meet_thread, &m);
        pthread_barrier_wait(&both);
        T_OK(pysock_close(m.s));
        t_join(&t);
        T_FAILS(pysock_fileno(m.s), PYSOCK_OS_ERROR, EBADF);
        for (pysock *b; (b = pysock_accept(listener, NULL)) != NULL;)
            T_OK(pysock_close(b));
    }
    pthread_barrier_destroy(&both);
    T_OK(pysock_close(listener));
}

/* The cleanup first tells that it has come, and closes afterwards: who finds the socket as it was
   in between is told of the cleanup all the same. */
T_TEST(a_cleanup_during_a_blocking_lookup_is_ESHUTDOWN, 30) {
    caller c = {NULL, 9, 0, 0, 0, 0};
    t_thread t;
    c.s = stream(PYSOCK_NO_TIMEOUT);
    shut_gate(0);
    t_spawn(&t, connect_thread, &c);
    wait_until_held(1);
    pysock__broadcast(NULL);
    open_gate();
    t_join(&t);
    expect_result(&c, -1, ESHUTDOWN);
    T_OK(pysock_close(c.s));
}

/* Until no worker of the resolver's has anything left to do. */
static void wait_for_the_workers(void) {
    int workers;
    do {
        t_nap(0.001);
        pysock__lock(&pysock__resolver.lock);
        workers = pysock__resolver.workers;
        pysock__unlock(&pysock__resolver.lock);
    } while (workers);
}

static sem_t hook_begun, hook_may_end;

static int stop_in_the_hook(void *arg, const pysock_audit_event *event) {
    (void)arg;
    if (strcmp(event->name, "pysock.thread") == 0) {
        sem_post(&hook_begun);
        t_sem_take(&hook_may_end);
    }
    return 0;
}

/* A call that a cleanup ends before it has slept leaves nothing of its thread with the worker; a
   sanitizer sees what wakes a thread that is gone. */
T_TEST(a_lookup_wakes_nobody_who_has_gone, 30) {
    caller c = {NULL, 9, 20, 0, 0, 0};
    t_thread t;
    T_EQ(sem_init(&hook_begun, 0, 0), 0);
    T_EQ(sem_init(&hook_may_end, 0, 0), 0);
    wait_for_the_workers();
    pysock_set_audit_hook(stop_in_the_hook, NULL);
    shut_gate(0);
    t_spawn(&t, create_thread, &c);
    t_sem_take(&hook_begun);
    pysock_set_audit_hook(NULL, NULL);
    pysock_cleanup();
    sem_post(&hook_may_end);
    t_join(&t);
    expect_result(&c, -1, ESHUTDOWN);
    open_gate();
    wait_for_the_workers();
    sem_destroy(&hook_begun);
    sem_destroy(&hook_may_end);
}

/* The lookup is the connect's until the resolver has it, whoever closes the socket meanwhile. The
   connect is made to wait for the resolver's lock, and the close comes first. A sanitizer sees what
   is used after it was freed. */
T_TEST(a_close_takes_no_lookup_that_is_being_handed_over, 60) {
    for (int round = 0; round < 60; round++) {
        caller c = {stream(0), 9, 0, 0, 0, 0};
        t_thread t;
        T_STEP("round %d", round);
        pysock__lock(&pysock__resolver.lock);
        t_spawn(&t, connect_thread, &c);
        t_nap(0.002); /* so that it is likely to wait; nothing depends on it */
        pysock__unlock(&pysock__resolver.lock);
        T_OK(pysock_close(c.s));
        t_join(&t);
        T_EQ(c.result, -1);
        T_CHECK(c.code == EBADF || c.code == EINPROGRESS);
    }
}

/* ---- signals ---- */

static void *timed_connect_thread(void *arg) {
    caller *c = arg;
    double start = t_now();
    note_result(c, pysock_connect(c->s, "held.test", c->port));
    c->timeout = t_now() - start;
    __atomic_store_n(&c->ended, 1, __ATOMIC_RELEASE);
    return NULL;
}

T_TEST(signals_end_a_wait_for_a_name_only_where_the_hook_says_so, 60) {
    int port;
    pysock *listener;
    t_catch_signal(SIGUSR1);
    listener = listen_here(&port);
    for (int answer = 0; answer < 2; answer++) {
        caller c = {stream(answer ? 50 : 0.4), port, 0, 0, 0, 0};
        t_thread t;
        pysock *b;
        shut_gate(0);
        pysock_set_interrupt_hook(t_interrupt_hook, &answer);
        t_spawn(&t, timed_connect_thread, &c);
        wait_until_held(1);
        t_wait_asleep(&t);
        while (!__atomic_load_n(&c.ended, __ATOMIC_ACQUIRE)) {
            T_EQ(pthread_kill(t.id, SIGUSR1), 0);
            t_nap(0.02);
        }
        t_join(&t);
        pysock_set_interrupt_hook(NULL, NULL);
        expect_result(&c, -1, answer ? EINTR : ETIMEDOUT);
        T_CHECK(answer || (c.timeout >= 0.39 && c.timeout < 20));
        T_STEP("the socket is none the worse");
        T_OK(pysock_settimeout(c.s, 30));
        T_OK(pysock_connect(c.s, here(), port));
        b = T_OK(pysock_accept(listener, NULL));
        open_gate();
        t_echo_once(c.s, b);
        T_OK(pysock_close(c.s));
        T_OK(pysock_close(b));
    }
    T_OK(pysock_close(listener));
}

/* ---- what a resolver may say ---- */

static void expect_failure(size_t i) {
    if (failing[i].code == EAI_SYSTEM) {
        T_EQ(pysock_error(), PYSOCK_OS_ERROR);
        T_EQ(pysock_error_code(), failing[i].sys);
    } else if (failing[i].code == EAI_MEMORY) {
        T_EQ(pysock_error(), PYSOCK_MEMORY_ERROR);
    } else {
        T_EQ(pysock_error(), PYSOCK_GAI_ERROR);
        T_EQ(pysock_error_code(), failing[i].code);
        T_CHECK(strstr(pysock_error_message(), failing[i].name) != NULL);
    }
}

T_TEST(every_code_of_the_resolver_is_told_by_every_call, 60) {
    for (size_t i = 0; i < FAILING; i++) {
        const char *name = failing[i].name;
        pysock *s = stream(PYSOCK_NO_TIMEOUT), *timed = stream(30), *d = datagram(30), *n;
        pysock_addrinfo *list = NULL;
        pysock_addr addr;
        char ip[INET_ADDRSTRLEN];
        T_STEP("%s", name);
        T_FAILS(pysock_getaddrinfo(name, "80", 0, 0, 0, 0, &list), T_ANY, T_ANY);
        expect_failure(i);
        T_CHECK(list == NULL);
        T_FAILS(pysock_addr_resolve(&addr, AF_INET, name, 80), T_ANY, T_ANY);
        expect_failure(i);
        T_FAILS(pysock_gethostbyname(name, ip, sizeof ip), T_ANY, T_ANY);
        expect_failure(i);
        T_FAILS(pysock_connect(s, name, 80), T_ANY, T_ANY);
        expect_failure(i);
        T_FAILS(pysock_connect(timed, name, 80), T_ANY, T_ANY);
        expect_failure(i);
        T_FAILS(pysock_bind(s, name, 80), T_ANY, T_ANY);
        expect_failure(i);
        T_FAILS(pysock_sendto(d, "x", 1, 0, name, 80), T_ANY, T_ANY);
        expect_failure(i);
        T_FAILS(pysock_create_connection(name, 80, 30), T_ANY, T_ANY);
        expect_failure(i);
        T_FAILS(pysock_create_server(name, 0, 1), T_ANY, T_ANY);
        expect_failure(i);
        n = stream(0);
        T_FAILS(pysock_connect(n, name, 80), PYSOCK_OS_ERROR, EINPROGRESS);
        T_EQ(t_writable(n, PYSOCK_NO_TIMEOUT), 1);
        T_FAILS(pysock_connect(n, name, 80), T_ANY, T_ANY);
        expect_failure(i);
        T_OK(pysock_close(s));
        T_OK(pysock_close(timed));
        T_OK(pysock_close(d));
        T_OK(pysock_close(n));
    }
}

T_TEST(every_code_of_gethostbyaddr_is_told, 30) {
#ifdef __GLIBC__
    static const char *const reasons[] = {"HOST_NOT_FOUND", "TRY_AGAIN", "NO_RECOVERY", "NO_DATA"};
    for (int i = 0; i < HOST_CODES; i++) {
        char ip[32], text[PYSOCK_HOST_STRLEN];
        snprintf(ip, sizeof ip, "192.0.2.%d", i + 1);
        T_STEP("%s", ip);
        T_FAILS(pysock_gethostbyaddr(ip), PYSOCK_H_ERROR, T_ANY);
        T_EQ(pysock_error_code(), host_codes[i]);
        T_CHECK(strcmp(pysock_error_reason(), reasons[i]) == 0);
        T_CHECK(strcmp(pysock_error_name(), "herror") == 0);
        T_CHECK(strstr(pysock_error_message(), ip) != NULL);
        T_OK(pysock_getfqdn(ip, text, sizeof text));
        T_CHECK(strcmp(text, ip) == 0);
    }
#else
    print_message("only glibc's calls are replaced here: skipped\n");
    skip();
#endif
}

T_TEST(a_host_with_many_names_is_told_whole, 30) {
#ifdef __GLIBC__
    char text[PYSOCK_HOST_STRLEN], want[64];
    pysock_hostent *h;
    h = T_OK(pysock_gethostbyaddr("192.0.2.100"));
    T_CHECK(strcmp(h->name, "alias-0") == 0);
    T_EQ(h->alias_count, ALIASES);
    for (int i = 0; i < ALIASES; i++) {
        snprintf(want, sizeof want, "alias-%d%s", i + 1, i > 0 ? ".example" : "");
        T_CHECK(strcmp(h->aliases[i], want) == 0);
    }
    T_EQ(h->address_count, 1);
    T_CHECK(strcmp(h->addresses[0], "192.0.2.100") == 0);
    pysock_freehostent(h);
    T_STEP("the first name with a dot");
    T_OK(pysock_getfqdn("192.0.2.100", text, sizeof text));
    T_CHECK(strcmp(text, "alias-2.example") == 0);
#else
    print_message("only glibc's calls are replaced here: skipped\n");
    skip();
#endif
}

T_TEST(a_host_without_a_name_leaves_no_error, 30) {
    char text[PYSOCK_HOST_STRLEN];
    for (size_t i = 0; i < FAILING; i++) {
        if (failing[i].code == EAI_MEMORY)
            continue; /* that is one */
        T_STEP("%s", failing[i].name);
        pysock_error_clear();
        T_OK(pysock_getfqdn(failing[i].name, text, sizeof text));
        T_CHECK(strcmp(text, failing[i].name) == 0);
        T_EQ(pysock_error(), PYSOCK_NO_ERROR);
        T_FAILS(pysock_getfqdn(failing[i].name, text, 3), T_ANY, T_ANY);
    }
    T_FAILS(pysock_socket(-1, -1, -1), T_ANY, T_ANY);
    {
        pysock_error_kind before = pysock_error();
        T_OK(pysock_getfqdn("noname.test", text, sizeof text));
        T_EQ(pysock_error(), before);
    }
}

/* ---- the audit hook ---- */

static int deny_two(void *arg, const pysock_audit_event *event) {
    int *told = arg;
    if (strcmp(event->name, "socket.getaddrinfo") != 0)
        return 0;
    ++*told;
    return strcmp(event->host, "two.test") == 0;
}

/* What was looked up for a connect is no leave to look up. */
T_TEST(the_audit_hook_is_asked_about_every_name_of_a_socket, 30) {
    int port, told = 0;
    pysock *a, *b;
    b = bound_datagram(&port);
    T_OK(pysock_settimeout(b, 20));
    a = datagram(20);
    pysock_set_audit_hook(deny_two, &told);
    T_OK(pysock_connect(a, "here.test", port));
    T_EQ(told, 1);
    T_FAILS(pysock_sendto(a, "one", 3, 0, "two.test", port), PYSOCK_OS_ERROR, EACCES);
    T_EQ(told, 2);
    T_EQ(t_readable(b, 0), 0);
    T_STEP("the same name once more");
    T_EQ(pysock_sendto(a, "two", 3, 0, "here.test", port), 3);
    T_EQ(told, 3);
    expect_datagram(b, "two");
    T_STEP("and the denied one once more");
    T_FAILS(pysock_sendto(a, "one", 3, 0, "two.test", port), PYSOCK_OS_ERROR, EACCES);
    T_EQ(told, 4);
    pysock_set_audit_hook(NULL, NULL);
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
}

typedef struct late_hook {
    pysock_state *mine;
    caller c;
    int ended, late; /* atomic */
} late_hook;

/* Holds a bind up, and notes a connect that is asked about too late. */
static int note_if_late(void *arg, const pysock_audit_event *event) {
    late_hook *h = arg;
    if (strcmp(event->name, "socket.bind") == 0) {
        sem_post(&hook_begun);
        t_sem_take(&hook_may_end);
    }
    if (strcmp(event->name, "socket.connect") == 0 && __atomic_load_n(&h->ended, __ATOMIC_ACQUIRE))
        __atomic_store_n(&h->late, 1, __ATOMIC_RELEASE);
    return 0;
}

static void *bind_thread(void *arg) {
    late_hook *h = arg;
    (void)pysock_state_swap(h->mine);
    note_result(&h->c, pysock_bind(h->c.s, "127.0.0.1", 0));
    return NULL;
}

/* A call that is still in the socket keeps it, but the worker asks about nothing that was closed:
   what stands behind a hook goes with its state. */
T_TEST(nobody_asks_a_hook_about_a_socket_that_was_closed, 30) {
    pysock_state *mine = T_OK(pysock_state_new());
    late_hook h;
    t_thread t;
    T_EQ(sem_init(&hook_begun, 0, 0), 0);
    T_EQ(sem_init(&hook_may_end, 0, 0), 0);
    memset(&h, 0, sizeof h);
    h.mine = mine;
    T_CHECK(pysock_state_swap(mine) == NULL);
    pysock_set_audit_hook(note_if_late, &h);
    h.c.s = stream(0);
    T_CHECK(pysock_state_swap(NULL) == mine);
    t_spawn(&t, bind_thread, &h);
    t_sem_take(&hook_begun);
    shut_gate(0);
    T_FAILS(pysock_connect(h.c.s, "held.test", 9), PYSOCK_OS_ERROR, EINPROGRESS);
    wait_until_held(1);
    T_OK(pysock_close(h.c.s));
    pysock_state_cleanup(mine);
    __atomic_store_n(&h.ended, 1, __ATOMIC_RELEASE);
    open_gate();
    wait_for_the_workers();
    T_EQ(h.late, 0);
    sem_post(&hook_may_end);
    t_join(&t);
    expect_result(&h.c, -1, ESHUTDOWN);
    pysock_state_free(mine);
    sem_destroy(&hook_begun);
    sem_destroy(&hook_may_end);
}

/* What a failed test has left waiting is not for the next one. */
static int leave_gate_open(void **state) {
    (void)state;
    (void)pysock_state_swap(NULL);
    pysock_set_interrupt_hook(NULL, NULL);
    pysock_set_audit_hook(NULL, NULL);
    open_gate();
    return 0;
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts, .each_teardown = leave_gate_open)
