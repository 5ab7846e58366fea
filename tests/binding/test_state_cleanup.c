/* A call that has begun when its interpreter is cleaned up does not succeed afterwards: the audit
   hook holds it where it is while the cleanup runs. */
#include "support/contexts.h"

#define LONG T_SCALE(30.0, 60.0)

/* ---- the calls that make a socket ---- */

typedef enum maker {
    SOCKET,
    SOCKETPAIR,
    ACCEPT,
    ACCEPT_TLS,
    ADOPT,
    FROMFD,
    DUP,
    CREATE_CONNECTION,
    CREATE_CONNECTION_BY_NAME,
    CREATE_SERVER
} maker;

static const char *const maker_names[] = {"socket",
                                          "socketpair",
                                          "accept",
                                          "accept with TLS",
                                          "adopt",
                                          "fromfd",
                                          "dup",
                                          "create_connection",
                                          "create_connection by name",
                                          "create_server"};

typedef struct making {
    maker what;
    const char *event; /* where the hook stops it */
    pysock_state *in;
    pysock *from;         /* accept, dup */
    int fd;               /* adopt, fromfd */
    int port;             /* create_connection */
    sem_t arrived, leave; /* the hook's */
    int stopped;          /* only the first event stops; the hook is one thread's */
    pysock *made[2];
    int result, code;
    pysock_error_kind kind;
    t_thread thread;
} making;

static int stop_here(void *arg, const pysock_audit_event *e) {
    making *m = arg;
    if (strcmp(e->name, m->event) != 0 || m->stopped)
        return 0;
    m->stopped = 1;
    sem_post(&m->arrived);
    while (sem_wait(&m->leave) != 0)
        continue;
    return 0;
}

static void make(making *m) {
    m->made[0] = m->made[1] = NULL;
    m->result = 0;
    switch (m->what) {
    case SOCKET: m->made[0] = pysock_socket(AF_INET, SOCK_STREAM, 0); break;
    case SOCKETPAIR: m->result = pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, m->made); break;
    case ACCEPT:
    case ACCEPT_TLS: m->made[0] = pysock_accept(m->from, NULL); break;
    case ADOPT: m->made[0] = pysock_adopt(m->fd, -1, -1, -1); break;
    case FROMFD: m->made[0] = pysock_fromfd(m->fd, -1, -1, -1); break;
    case DUP: m->made[0] = pysock_dup(m->from); break;
    case CREATE_CONNECTION:
        m->made[0] = pysock_create_connection("127.0.0.1", m->port, LONG);
        break;
    case CREATE_CONNECTION_BY_NAME:
        m->made[0] = pysock_create_connection("localhost", m->port, LONG);
        break;
    case CREATE_SERVER: m->made[0] = pysock_create_server("127.0.0.1", 0, -1); break;
    }
    m->code = errno;
    m->kind = pysock_error();
    if (m->what != SOCKETPAIR && !m->made[0])
        m->result = -1;
}

static void *make_thread(void *arg) {
    making *m = arg;
    pysock_state_swap(m->in);
    make(m);
    pysock_state_swap(NULL);
    return NULL;
}

/* What the call needs: made in its state, where it is a socket. */
static void prepare(making *m, maker what, const char *event, pysock_state *in) {
    pysock_state *before = pysock_state_swap(in);
    memset(m, 0, sizeof *m);
    m->what = what;
    m->event = event;
    m->in = in;
    m->fd = -1;
    sem_init(&m->arrived, 0, 0);
    sem_init(&m->leave, 0, 0);
    if (what == ACCEPT || what == ACCEPT_TLS) {
        m->from = t_listen(&m->port);
        if (what == ACCEPT_TLS)
            T_OK(pysock_ssl_wrap_socket(m->from, server_ctx, NULL));
        m->fd = t_raw_connect(m->port);
    }
    if (what == DUP)
        m->from = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    if (what == ADOPT || what == FROMFD)
        m->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (what == CREATE_CONNECTION || what == CREATE_CONNECTION_BY_NAME)
        m->fd = t_raw_listen(&m->port);
    pysock_set_audit_hook(stop_here, m);
    pysock_state_swap(before);
}

static void start(making *m) {
    T_STEP("%s, held at %s", maker_names[m->what], m->event);
    t_spawn(&m->thread, make_thread, m);
    while (sem_wait(&m->arrived) != 0)
        continue;
}

static void let_go(making *m) {
    sem_post(&m->leave);
    t_join(&m->thread);
}

static void unhook(making *m) {
    pysock_state *before = pysock_state_swap(m->in);
    pysock_set_audit_hook(NULL, NULL);
    pysock_state_swap(before);
}

static void put_away(making *m) {
    int taken = m->what == ADOPT && m->made[0];
    pysock_close(m->made[0]);
    pysock_close(m->made[1]);
    pysock_close(m->from);
    if (m->fd >= 0 && !taken)
        close(m->fd);
    sem_destroy(&m->arrived);
    sem_destroy(&m->leave);
}

static void must_have_failed(const making *m) {
    if (m->result == 0)
        T_FAIL("%s succeeded after the cleanup", maker_names[m->what]);
    T_CHECK(m->made[0] == NULL);
    T_EQ(m->kind, PYSOCK_OS_ERROR);
    if (m->code != ESHUTDOWN && !(m->from && m->code == EBADF)) /* its own socket was closed */
        T_FAIL("%s: errno %d", maker_names[m->what], m->code);
}

/* The peer of a connection that was accepted in vain sees its end. */
static void must_be_over(int fd) {
    struct pollfd p;
    char byte;
    p.fd = fd;
    p.events = POLLIN;
    T_EQ(poll(&p, 1, (int)(LONG * 1000)), 1);
    T_CHECK(recv(fd, &byte, 1, MSG_DONTWAIT) <= 0);
}

typedef void cleanup_fn(pysock_state *st);

static void clean_this(pysock_state *st) {
    pysock_state_cleanup(st);
}

static void clean_all(pysock_state *st) {
    (void)st;
    pysock_cleanup();
}

static void clean_twice(pysock_state *st) {
    pysock_state_cleanup(st);
    pysock_state_cleanup(st);
}

static void hold_during(cleanup_fn *clean, int in_main, maker what, const char *event) {
    pysock_state *st = in_main ? NULL : T_OK(pysock_state_new());
    making m;
    int fds;
    prepare(&m, what, event, st);
    start(&m);
    clean(st);
    fds = t_count_fds();
    let_go(&m);
    must_have_failed(&m);
    if (what == ADOPT || what == FROMFD)
        T_CHECK(fcntl(m.fd, F_GETFD) >= 0); /* a call that fails takes nothing */
    if (what == ACCEPT || what == ACCEPT_TLS)
        must_be_over(m.fd);
    while (t_count_fds() > fds) /* an abandoned lookup reads its files to the end */
        t_nap(0.005);
    unhook(&m);
    put_away(&m);
    /* The state can be used again. */
    prepare(&m, what, "nothing", st);
    t_spawn(&m.thread, make_thread, &m);
    t_join(&m.thread);
    T_EQ(m.result, 0);
    unhook(&m);
    put_away(&m);
    if (st)
        pysock_state_free(st);
}

/* Where a call can be held. */
static const struct {
    maker what;
    const char *event;
} holds[] = {{SOCKET, "socket.__new__"},
             {SOCKETPAIR, "socket.__new__"},
             {ACCEPT, "socket.__new__"},
             {ACCEPT_TLS, "socket.__new__"},
             {ADOPT, "socket.__new__"},
             {FROMFD, "socket.__new__"},
             {DUP, "socket.__new__"},
             {CREATE_CONNECTION_BY_NAME, "socket.getaddrinfo"},
             {CREATE_CONNECTION, "socket.__new__"},
             {CREATE_CONNECTION, "socket.connect"},
             {CREATE_SERVER, "socket.__new__"},
             {CREATE_SERVER, "socket.bind"},
             {CREATE_SERVER, "socket.listen"}};
#define HOLDS (sizeof holds / sizeof holds[0])

static void hold_each_during(cleanup_fn *clean, int in_main) {
    for (size_t i = 0; i < HOLDS; i++)
        hold_during(clean, in_main, holds[i].what, holds[i].event);
}

T_TEST(what_began_before_a_states_cleanup_fails_after_it, 120) {
    hold_each_during(clean_this, 0);
}

T_TEST(two_cleanups_do_not_make_it_forgotten, 120) {
    hold_each_during(clean_twice, 0);
}

T_TEST(the_main_state_is_no_exception, 120) {
    hold_each_during(clean_this, 1);
}

T_TEST(cleanup_of_all_ends_what_began_in_any_state, 120) {
    hold_each_during(clean_all, 0);
    hold_each_during(clean_all, 1);
}

T_TEST(another_states_cleanup_changes_nothing, 120) {
    pysock_state *other = T_OK(pysock_state_new());
    for (size_t i = 0; i < HOLDS; i++) {
        pysock_state *st = T_OK(pysock_state_new());
        making m;
        prepare(&m, holds[i].what, holds[i].event, st);
        start(&m);
        pysock_state_cleanup(other);
        pysock_state_cleanup(NULL);
        let_go(&m);
        if (m.result != 0)
            T_FAIL("%s failed: errno %d", maker_names[m.what], m.code);
        T_CHECK(pysock_fileno(m.made[0]) >= 0);
        unhook(&m);
        put_away(&m);
        pysock_state_free(st);
    }
    pysock_state_free(other);
}

/* ---- a program that is killed: what it does next is denied ---- */

static int deny(void *arg, const pysock_audit_event *e) {
    (void)arg;
    (void)e;
    return 1;
}

typedef struct program {
    making m;
    int rounds; /* atomic */
} program;

static void *make_and_block(void *arg) {
    program *p = arg;
    char byte;
    pysock_state_swap(p->m.in);
    for (;;) {
        __atomic_add_fetch(&p->rounds, 1, __ATOMIC_RELAXED);
        make(&p->m);
        if (p->m.result < 0)
            break;
        (void)!pysock_recv(p->m.made[0], &byte, 1, 0); /* for ever, unless it is ended */
    }
    pysock_state_swap(NULL);
    return NULL;
}

/* The thread is past the hook when the next calls are denied and the state is cleaned up; then it
   must end by itself. */
T_TEST(one_cleanup_ends_a_program_that_makes_sockets_and_blocks, 60) {
    pysock_state *st = T_OK(pysock_state_new()), *before;
    static program p;
    prepare(&p.m, SOCKETPAIR, "socket.__new__", st);
    p.rounds = 0;
    t_spawn(&p.m.thread, make_and_block, &p);
    while (sem_wait(&p.m.arrived) != 0)
        continue;
    before = pysock_state_swap(st);
    pysock_set_audit_hook(deny, NULL);
    pysock_state_swap(before);
    pysock_state_cleanup(st);
    let_go(&p.m); /* joins */
    T_EQ(p.rounds, 1);
    put_away(&p.m);
    pysock_state_free(st);
}

/* At random moments too. */
T_TEST(any_moment_will_do_for_that_cleanup, 120) {
    static program p;
    for (int i = 0; i < T_SCALE(300, 60); i++) {
        pysock_state *st = T_OK(pysock_state_new()), *before;
        prepare(&p.m, SOCKETPAIR, "nothing", st);
        p.rounds = 0;
        t_spawn(&p.m.thread, make_and_block, &p);
        while (__atomic_load_n(&p.rounds, __ATOMIC_RELAXED) == 0)
            continue;
        before = pysock_state_swap(st);
        pysock_set_audit_hook(deny, NULL);
        pysock_state_swap(before);
        pysock_state_cleanup(st);
        t_join(&p.m.thread);
        put_away(&p.m);
        pysock_state_free(st);
    }
}

/* ---- waits that begin too late ---- */

typedef struct late {
    making m; /* of the connect */
    pysock *s;
    int result, code;
} late;

static void *connect_late(void *arg) {
    late *l = arg;
    pysock_state_swap(l->m.in);
    l->result = pysock_connect(l->s, "127.0.0.1", l->m.port);
    l->code = errno;
    pysock_state_swap(NULL);
    return NULL;
}

/* A connect to a host that does not answer would wait for ever. */
T_TEST(a_call_on_a_socket_that_is_past_the_hook_ends_too, 60) {
    pysock_state *st = T_OK(pysock_state_new()), *before;
    int fds[2];
    late l;
    memset(&l, 0, sizeof l);
    prepare(&l.m, SOCKET, "socket.connect", st);
    l.m.port = t_silent_port(fds);
    before = pysock_state_swap(st);
    l.s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    pysock_state_swap(before);
    t_spawn(&l.m.thread, connect_late, &l);
    while (sem_wait(&l.m.arrived) != 0)
        continue;
    pysock_state_cleanup(st);
    let_go(&l.m);
    T_EQ(l.result, -1);
    T_CHECK(l.code == ESHUTDOWN || l.code == EBADF);
    T_FAILS(pysock_fileno(l.s), PYSOCK_OS_ERROR, EBADF);
    unhook(&l.m);
    put_away(&l.m);
    close(fds[0]);
    close(fds[1]);
    pysock_state_free(st);
}

/* ---- what the cleanup calls itself ---- */

static int closer_result, closer_code;

static void make_in_a_closer(void *arg) {
    pysock *s = pysock_socket(AF_INET, SOCK_STREAM, 0);
    (void)arg;
    closer_code = errno;
    closer_result = s ? 0 : -1;
    pysock_close(s);
}

/* The closers may use every call: they run before anything is closed, and are no late-comers. */
T_TEST(a_closer_makes_sockets_all_the_same, 30) {
    pysock_state *st = T_OK(pysock_state_new()), *before = pysock_state_swap(st);
    T_OK(pysock_register_closer(make_in_a_closer, NULL));
    pysock_state_swap(before);
    closer_result = 1;
    pysock_state_cleanup(st);
    T_EQ(closer_result, 0);
    pysock_state_free(st);
}

T_MAIN(.setup = make_contexts, .teardown = free_contexts)
