/* How an interpreter's state ends: what is refused meanwhile, how long it takes, and what is never
   asked again. */
#include "support/support.h"

static int tear_down(void **state) {
    (void)state;
    (void)pysock_state_swap(NULL);
    pysock_set_audit_hook(NULL, NULL);
    return 0;
}

/* ---- new sockets ---- */

typedef struct attempt {
    pysock_state *st;
    int asked, code;
    pysock *made;
} attempt;

/* The last reference to what was queued goes: tries to make a socket. */
static void try_to_make_a_socket(void *arg, void *data) {
    attempt *a = arg;
    pysock_state *before = pysock_state_swap(a->st);
    (void)data;
    a->made = pysock_socket(AF_INET, SOCK_STREAM, 0);
    a->code = pysock_error_code();
    a->asked++;
    (void)pysock_state_swap(before);
}

/* A cleanup drops what is queued on this socket, and calls back in the middle of it. Where there is
   no thread, it does so itself. */
static void queue_what_calls_back(pysock *pair[2], attempt *a) {
    static char data[8 << 20];
    struct linger none = {1, 0};
    pysock_buf *b = T_OK(pysock_buf_wrap(data, sizeof data, try_to_make_a_socket, a));
    t_pair(pair);
    T_OK(pysock_setblocking(pair[0], 0));
    T_OK(pysock_setsockopt(pair[0], SOL_SOCKET, SO_LINGER, &none, sizeof none));
    T_OK(pysock_send_buf(pair[0], b));
    T_CHECK(pysock_queued(pair[0]) > 0);
    pysock_buf_release(b);
}

T_TEST(new_sockets_are_refused_while_everything_ends, 60) {
    attempt a = {NULL, 0, 0, NULL};
    pysock *pair[2];
    pysock_set_audit_hook(t_deny_threads, NULL);
    queue_what_calls_back(pair, &a);
    pysock_cleanup();
    T_EQ(a.asked, 1);
    T_CHECK(a.made == NULL);
    T_EQ(a.code, ESHUTDOWN);
    T_STEP("and made again afterwards");
    t_pair(pair);
    t_close_pair(pair);
}

T_TEST(new_sockets_are_refused_while_a_state_ends, 60) {
    pysock_state *st = T_OK(pysock_state_new()), *other = T_OK(pysock_state_new());
    attempt a = {st, 0, 0, NULL};
    pysock *pair[2];
    pysock_set_audit_hook(t_deny_threads, NULL);
    (void)pysock_state_swap(st);
    queue_what_calls_back(pair, &a);
    (void)pysock_state_swap(NULL);
    pysock_state_cleanup(st);
    T_EQ(a.asked, 1);
    T_CHECK(a.made == NULL);
    T_EQ(a.code, ESHUTDOWN);
    T_STEP("and made again afterwards");
    (void)pysock_state_swap(st);
    t_pair(pair);
    t_close_pair(pair);
    T_STEP("by others all the time");
    memset(&a, 0, sizeof a);
    a.st = other;
    queue_what_calls_back(pair, &a);
    (void)pysock_state_swap(NULL);
    pysock_state_cleanup(st);
    T_EQ(a.asked, 1);
    T_OK(pysock_close(T_OK(a.made)));
    pysock_state_free(other);
    pysock_state_free(st);
}

/* ---- how long it takes ---- */

#define ROUNDS 20

typedef struct held {
    pysock_state *st;
    pysock *binding, *receiving;
    sem_t in_hook, may_leave;
    int bind_code, recv_code;
} held;

static int hold_binds(void *arg, const pysock_audit_event *event) {
    held *h = arg;
    if (strcmp(event->name, "socket.bind") != 0)
        return 0;
    sem_post(&h->in_hook);
    t_sem_take(&h->may_leave);
    return 0;
}

static void *bind_thread(void *arg) {
    held *h = arg;
    (void)pysock_state_swap(h->st);
    h->bind_code = pysock_bind(h->binding, "127.0.0.1", 0) < 0 ? pysock_error_code() : 0;
    (void)pysock_state_swap(NULL);
    return NULL;
}

/* Ends by the cleanup, and lets the other one go. */
static void *recv_thread(void *arg) {
    held *h = arg;
    char byte;
    (void)pysock_state_swap(h->st);
    h->recv_code = pysock_recv(h->receiving, &byte, 1, 0) < 0 ? pysock_error_code() : 0;
    t_nap(0.01); /* so that the cleanup is likely to sleep by then; nothing else depends on it */
    sem_post(&h->may_leave);
    (void)pysock_state_swap(NULL);
    return NULL;
}

/* A call still has a socket when its state is cleaned up, and leaves it at once: the cleanup ends
   then, and not after the 100 ms that it would wait at most. A busy machine may be slow now and
   then, but not in half of the rounds. */
T_TEST(a_cleanup_ends_with_the_last_call, 120) {
    int slow = 0;
    for (int i = 0; i < ROUNDS; i++) {
        held h;
        pysock *pair[2];
        t_thread binder, receiver;
        double begin;
        T_STEP("round %d", i);
        memset(&h, 0, sizeof h);
        T_EQ(sem_init(&h.in_hook, 0, 0), 0);
        T_EQ(sem_init(&h.may_leave, 0, 0), 0);
        h.st = T_OK(pysock_state_new());
        (void)pysock_state_swap(h.st);
        t_pair(pair);
        h.receiving = pair[0];
        h.binding = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
        pysock_set_audit_hook(hold_binds, &h);
        (void)pysock_state_swap(NULL);
        t_spawn(&binder, bind_thread, &h);
        t_sem_take(&h.in_hook);
        t_spawn(&receiver, recv_thread, &h);
        t_wait_asleep(&receiver);
        begin = t_now();
        pysock_state_cleanup(h.st);
        slow += t_now() - begin > 0.095;
        t_join(&binder);
        t_join(&receiver);
        T_EQ(h.bind_code, ESHUTDOWN);
        T_EQ(h.recv_code, ESHUTDOWN);
        pysock_state_free(h.st);
        sem_destroy(&h.in_hook);
        sem_destroy(&h.may_leave);
    }
    if (slow > ROUNDS / 2)
        T_FAIL("%d of %d cleanups waited for their deadline", slow, ROUNDS);
}

/* ... but it waits for a call that has not left, so that nothing of the state is in use soon after:
   for 100 ms. */
T_TEST(a_cleanup_waits_for_calls_but_not_for_long, 60) {
    held h;
    t_thread t;
    double begin, took;
    memset(&h, 0, sizeof h);
    T_EQ(sem_init(&h.in_hook, 0, 0), 0);
    T_EQ(sem_init(&h.may_leave, 0, 0), 0);
    h.st = T_OK(pysock_state_new());
    (void)pysock_state_swap(h.st);
    h.binding = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    pysock_set_audit_hook(hold_binds, &h);
    (void)pysock_state_swap(NULL);
    t_spawn(&t, bind_thread, &h);
    t_sem_take(&h.in_hook);
    begin = t_now();
    pysock_state_cleanup(h.st);
    took = t_now() - begin;
    T_CHECK(took > 0.09);
    T_CHECK(took < 10);
    sem_post(&h.may_leave);
    t_join(&t);
    T_EQ(h.bind_code, ESHUTDOWN);
    pysock_state_free(h.st);
    sem_destroy(&h.in_hook);
    sem_destroy(&h.may_leave);
}

/* A peer that reads nothing, and more queued for it than any kernel takes. */
static int close_what_nobody_reads(int port) {
    pysock_buf *b = T_OK(pysock_buf_new(16u << 20));
    pysock *s = T_OK(pysock_create_connection("127.0.0.1", port, 30));
    int fd;
    T_OK(pysock_setblocking(s, 0));
    T_OK(pysock_send_buf(s, b));
    pysock_buf_release(b);
    fd = T_OK(pysock_fileno(s));
    T_CHECK(pysock_queued(s) > 0);
    T_OK(pysock_close(s));
    return fd;
}

/* With what a peer does not read, a cleanup takes 100 ms and not the time of a close. */
static void cleanups_do_not_wait_for_peers(int deny) {
    pysock_state *st = T_OK(pysock_state_new());
    int port, listener = t_raw_listen(&port); /* it accepts nobody */
    if (deny)
        pysock_set_audit_hook(t_deny_threads, NULL);
    for (int of_state = 0; of_state < 2; of_state++) {
        double begin;
        int fd;
        T_STEP("%s", of_state ? "a state's" : "everybody's");
        if (of_state)
            (void)pysock_state_swap(st);
        fd = close_what_nobody_reads(port);
        (void)pysock_state_swap(NULL);
        T_CHECK(fcntl(fd, F_GETFD) >= 0);
        begin = t_now();
        if (of_state)
            pysock_state_cleanup(st);
        else
            pysock_cleanup();
        T_CHECK(t_now() - begin < 3);
        while (fcntl(fd, F_GETFD) >= 0) /* the last turn of the reactor's may come after it */
            T_EQ(pysock_select(NULL, NULL, NULL, NULL, NULL, NULL, 0.001), 0);
        T_CHECK(t_now() - begin < 3);
    }
    close(listener);
    pysock_state_free(st);
}

T_TEST(a_cleanup_cuts_closes_short, 60) {
    cleanups_do_not_wait_for_peers(0);
}

T_TEST(a_cleanup_without_a_thread_cuts_closes_short, 60) {
    cleanups_do_not_wait_for_peers(1);
}

#define REST 65536

/* A socket whose kernel is full, and REST bytes more in its queue; returns how many there are. */
static size_t queue_behind_the_kernel(pysock *pair[2]) {
    static char chunk[4096];
    pysock_buf *b = T_OK(pysock_buf_new(REST));
    size_t total = 0;
    ptrdiff_t n;
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    T_OK(pysock_setblocking(pair[0], 0));
    while ((n = pysock_send(pair[0], chunk, sizeof chunk, 0)) > 0)
        total += (size_t)n;
    T_EQ(errno, EAGAIN);
    T_OK(pysock_send_buf(pair[0], b));
    pysock_buf_release(b);
    T_EQ(pysock_queued(pair[0]), REST);
    return total + REST;
}

static size_t read_all(int raw) {
    static char buf[65536];
    size_t have = 0, n;
    while ((n = t_raw_read(raw, buf, sizeof buf)) > 0)
        have += n;
    return have;
}

/* The kernel has room by the time of the cleanup, which uses it. */
T_TEST(a_cleanup_without_a_thread_sends_what_it_can, 60) {
    pysock *pair[2];
    size_t total, have;
    int raw;
    pysock_set_audit_hook(t_deny_threads, NULL);
    total = queue_behind_the_kernel(pair);
    raw = dup(T_OK(pysock_fileno(pair[1])));
    T_CHECK(raw >= 0);
    T_OK(pysock_close(pair[1]));
    T_OK(pysock_close(pair[0]));
    {
        static char buf[65536];
        for (have = 0; have < total - REST;) {
            size_t want = total - REST - have;
            have += t_raw_read(raw, buf, want < sizeof buf ? want : sizeof buf);
        }
    }
    pysock_cleanup();
    T_EQ(have + read_all(raw), total);
    close(raw);
}

typedef struct late_reader {
    t_thread t;
    pysock *s;
    int raw;
    size_t have;
} late_reader;

/* Reads from the moment on when its peer's socket is closed. */
static void *read_late(void *arg) {
    late_reader *r = arg;
    while (pysock_fileno(r->s) >= 0)
        t_nap(0.0005);
    r->have = read_all(r->raw);
    return NULL;
}

/* There are 100 ms for it, which a busy machine may use up otherwise, but not each time. */
T_TEST(a_cleanup_sends_what_it_can_in_time, 100) {
    int whole = 0;
    for (int i = 0; i < 20 && !whole; i++) {
        late_reader r;
        pysock *pair[2];
        size_t total = queue_behind_the_kernel(pair);
        r.s = pair[0];
        r.raw = dup(T_OK(pysock_fileno(pair[1])));
        T_CHECK(r.raw >= 0);
        T_OK(pysock_close(pair[1]));
        t_spawn(&r.t, read_late, &r);
        pysock_cleanup();
        t_join(&r.t);
        close(r.raw);
        T_CHECK(r.have <= total);
        whole = r.have == total;
    }
    T_EQ(whole, 1);
}

/* ---- afterwards ---- */

typedef struct freed {
    sem_t in_hook, may_go_on, has_left;
    int freed, asked, late; /* atomic */
} freed;

/* On a worker, about a connect; and asks about itself, when its state is gone. */
static int make_a_socket_late(void *arg, const pysock_audit_event *event) {
    freed *f = arg;
    if (__atomic_load_n(&f->freed, __ATOMIC_ACQUIRE))
        __atomic_store_n(&f->late, 1, __ATOMIC_RELEASE);
    if (strcmp(event->name, "socket.connect") != 0 ||
        __atomic_fetch_add(&f->asked, 1, __ATOMIC_ACQ_REL) > 0)
        return 0;
    sem_post(&f->in_hook);
    t_sem_take(&f->may_go_on);
    (void)pysock_close(pysock_socket(AF_INET, SOCK_STREAM, 0));
    sem_post(&f->has_left);
    return 1;
}

/* What stands behind a hook goes with its state: who is in it still is not asked anything more. */
T_TEST(a_freed_states_hook_is_asked_nothing, 60) {
    pysock_state *st = T_OK(pysock_state_new());
    static freed f;
    pysock *s;
    int port;
    pysock *listener = t_listen(&port);
    memset(&f, 0, sizeof f);
    T_EQ(sem_init(&f.in_hook, 0, 0), 0);
    T_EQ(sem_init(&f.may_go_on, 0, 0), 0);
    T_EQ(sem_init(&f.has_left, 0, 0), 0);
    (void)pysock_state_swap(st);
    pysock_set_audit_hook(make_a_socket_late, &f);
    s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
    T_OK(pysock_setblocking(s, 0));
    T_FAILS(pysock_connect(s, "localhost", port), PYSOCK_OS_ERROR, EINPROGRESS);
    (void)pysock_state_swap(NULL);
    t_sem_take(&f.in_hook);
    pysock_state_free(st);
    __atomic_store_n(&f.freed, 1, __ATOMIC_RELEASE);
    sem_post(&f.may_go_on);
    t_sem_take(&f.has_left);
    T_EQ(f.late, 0);
    T_EQ(f.asked, 1);
    T_FAILS(pysock_fileno(s), PYSOCK_OS_ERROR, EBADF);
    T_OK(pysock_close(listener));
}

T_TEST(a_freed_state_is_current_no_more, 30) {
    pysock_state *st = T_OK(pysock_state_new());
    pysock *pair[2];
    (void)pysock_state_swap(st);
    t_pair(pair);
    pysock_state_free(st);
    T_CHECK(pysock_state_swap(NULL) == NULL);
    T_FAILS(pysock_fileno(pair[0]), PYSOCK_OS_ERROR, EBADF);
}

/* ---- closers ---- */

static char order[16];

static void note_closer(void *arg) {
    size_t n = strlen(order);
    T_CHECK(n + 1 < sizeof order);
    order[n] = *(const char *)arg;
    order[n + 1] = 0;
}

static void clean_up_and_note(void *arg) {
    pysock_state *mine = pysock_state_swap(NULL);
    (void)pysock_state_swap(mine);
    pysock_state_cleanup(mine);
    pysock_cleanup();
    note_closer(arg);
}

/* The state's own cleanup, and everybody's, do nothing when a closer asks for them. */
T_TEST(closers_of_a_state_run_last_first_and_in_one_cleanup, 30) {
    static char names[] = "abcd";
    pysock_state *st = T_OK(pysock_state_new());
    order[0] = 0;
    (void)pysock_state_swap(st);
    T_OK(pysock_register_closer(note_closer, &names[0]));
    T_OK(pysock_register_closer(note_closer, &names[1]));
    T_OK(pysock_register_closer(clean_up_and_note, &names[2]));
    T_OK(pysock_register_closer(note_closer, &names[3]));
    T_OK(pysock_unregister_closer(note_closer, &names[1]));
    (void)pysock_state_swap(NULL);
    pysock_state_cleanup(st);
    if (strcmp(order, "dca") != 0)
        T_FAIL("the closers ran as '%s', not as 'dca'", order);
    pysock_state_cleanup(st);
    T_EQ(strlen(order), 3);
    pysock_state_free(st);
}

static void count_call(void *arg) {
    ++*(int *)arg;
}

static void free_state(void *arg) {
    pysock_state_free(arg);
}

static pysock_state *state_with_closer(void (*fn)(void *), void *arg) {
    pysock_state *st = T_OK(pysock_state_new());
    T_CHECK(pysock_state_swap(st) == NULL);
    T_OK(pysock_register_closer(fn, arg ? arg : st));
    T_CHECK(pysock_state_swap(NULL) == st);
    return st;
}

T_TEST(a_closer_may_end_its_own_state, 30) {
    T_STEP("in the state's cleanup");
    pysock_state_cleanup(state_with_closer(free_state, NULL));
    T_STEP("in everybody's");
    (void)state_with_closer(free_state, NULL);
    pysock_cleanup();
}

/* Whichever of the two states is older. */
T_TEST(a_closer_may_end_another_state_whose_closers_run, 30) {
    for (int younger = 0; younger < 2; younger++)
        for (int every = 0; every < 2; every++) {
            int runs = 0;
            pysock_state *a, *b;
            T_STEP("%s, %s", younger ? "a younger one" : "an older one",
                   every ? "everybody's cleanup" : "the one's");
            if (younger) {
                b = T_OK(pysock_state_new());
                a = state_with_closer(count_call, &runs);
                T_CHECK(pysock_state_swap(b) == NULL);
                T_OK(pysock_register_closer(free_state, a));
                T_CHECK(pysock_state_swap(NULL) == b);
            } else {
                a = state_with_closer(count_call, &runs);
                b = state_with_closer(free_state, a);
            }
            if (every)
                pysock_cleanup();
            else
                pysock_state_cleanup(b);
            T_EQ(runs, 1);
            pysock_state_free(b);
            T_EQ(runs, 1);
        }
}

typedef struct slow_closer {
    sem_t begun;
    int freed, over; /* atomic */
} slow_closer;

static void close_slowly(void *arg) {
    slow_closer *c = arg;
    sem_post(&c->begun);
    for (int i = 0; i < 50 && !__atomic_load_n(&c->freed, __ATOMIC_ACQUIRE); i++)
        t_nap(0.002); /* time for who does not wait; nothing depends on it */
    __atomic_store_n(&c->over, 1, __ATOMIC_RELEASE);
}

static void *cleanup_thread(void *arg) {
    pysock_cleanup();
    return arg;
}

/* What a closer uses may go when the state has been freed. */
T_TEST(freeing_a_state_waits_for_its_closer, 30) {
    slow_closer c;
    pysock_state *st;
    t_thread t;
    memset(&c, 0, sizeof c);
    T_EQ(sem_init(&c.begun, 0, 0), 0);
    st = state_with_closer(close_slowly, &c);
    t_spawn(&t, cleanup_thread, NULL);
    while (sem_wait(&c.begun) != 0)
        T_EQ(errno, EINTR);
    pysock_state_free(st);
    __atomic_store_n(&c.freed, 1, __ATOMIC_RELEASE);
    T_EQ(__atomic_load_n(&c.over, __ATOMIC_ACQUIRE), 1);
    t_join(&t);
    sem_destroy(&c.begun);
}

T_MAIN(.each_teardown = tear_down)
