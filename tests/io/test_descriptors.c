/* Descriptors and credentials that are passed from one process to another. */
#include "io/messages.h"

/* ---- descriptors ---- */

/* How many descriptors are open, the library's own for waiting among them. */
static int fds_at_rest(void) {
    pysock *pair[2];
    char byte;
    T_OK(pysock_socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
    T_EQ(t_readable(pair[0], 0), 0);
    T_OK(pysock_settimeout(pair[0], 0.001));
    T_FAILS(pysock_recv(pair[0], &byte, 1, 0), PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    t_close_pair(pair);
    return t_count_fds();
}

/* Files that hold their numbers. */
static void new_fds(int *fds, int n) {
    for (int i = 0; i < n; i++) {
        char text[16];
        int len = snprintf(text, sizeof text, "%d", i);
        fds[i] = memfd_create("pysock-test", MFD_CLOEXEC);
        if (fds[i] < 0 || write(fds[i], text, (size_t)len) != len)
            T_FAIL("a file in memory: %s", strerror(errno));
    }
}

static void close_fds(const int *fds, int n) {
    for (int i = 0; i < n; i++)
        T_EQ(close(fds[i]), 0);
}

static void expect_number(int fd, int number) {
    char text[16] = "";
    T_CHECK(fd >= 0);
    T_CHECK(pread(fd, text, sizeof text - 1, 0) > 0);
    T_EQ(strtol(text, NULL, 10), number);
}

/* Takes the descriptors out of a message's items, of at most max_items, all whole; returns how
   many. They hold numbers from 0 on. They are closed here. */
static int take_fds(const pysock_msg *msg, int max_items, int partial, int cloexec) {
    pysock_cmsg item;
    int n = 0, items = 0;
    memset(&item, 0, sizeof item);
    while (pysock_msg_next(msg, &item)) {
        T_CHECK(++items <= max_items);
        T_EQ(item.level, SOL_SOCKET);
        T_EQ(item.type, SCM_RIGHTS);
        if (!partial)
            T_EQ(item.size % sizeof(int), 0);
        for (size_t i = 0; i < item.size / sizeof(int); i++) {
            int fd;
            memcpy(&fd, (const char *)item.data + i * sizeof fd, sizeof fd);
            expect_number(fd, n++);
            T_EQ(!!(fcntl(fd, F_GETFD) & FD_CLOEXEC), cloexec);
            close(fd);
        }
    }
    return n;
}

static void send_rights(channel *l, const int *fds, int n) {
    pysock_cmsg item = item_of(SOL_SOCKET, SCM_RIGHTS, fds, (size_t)n * sizeof *fds);
    send_with(l, &item, 1);
}

#define FOR_EACH_UNIX_KIND(kind) FOR_EACH_KIND_OF(kind, UNIX_DGRAM, UNIX_STREAM)

T_TEST(descriptors_are_passed_by_hand, 60) {
    static const struct {
        int n;
        size_t room;
    } cases[] = {{1, 10240},
                 {4, 10240},
                 {4, CMSG_SPACE(4 * sizeof(int))},
                 {1, CMSG_LEN(4 * sizeof(int))},
                 {4, CMSG_LEN(4 * sizeof(int))}};
    static char control[10240];
    int fds[4], open_fds;
    open_fds = fds_at_rest();
    new_fds(fds, 4);
    FOR_EACH_UNIX_KIND(kind) {
        for (int i = 0; i < 5 * WAYS * MODES * 2; i++) {
            channel l;
            pysock_msg msg;
            int cloexec = i & 1;
            int n = cases[i / 2 % 5].n;
            channel_make(&l, kind);
            channel_mode(&l, i / 10 % MODES);
            send_rights(&l, fds, n);
            memset(&msg, 0, sizeof msg);
            msg.control = control;
            msg.control_size = cases[i / 2 % 5].room;
            expect_msg(&l, i / 30 % WAYS, &msg, cloexec ? MSG_CMSG_CLOEXEC : 0);
            expect_sender(&l, &msg);
            T_EQ(msg.flags & MSG_CTRUNC, 0);
            T_EQ(take_fds(&msg, 1, 0, cloexec), n);
            channel_close(&l);
        }
    }
    close_fds(fds, 4);
    T_EQ(t_count_fds(), open_fds);
}

/* The kernel may join the arrays of one message. */
T_TEST(descriptors_may_come_in_several_items, 60) {
    char control[256];
    int fds[2], open_fds;
    open_fds = fds_at_rest();
    new_fds(fds, 2);
    FOR_EACH_UNIX_KIND(kind) {
        for (int least = 0; least < 2; least++) {
            pysock_cmsg items[2];
            channel l;
            pysock_msg msg;
            channel_make(&l, kind);
            items[0] = item_of(SOL_SOCKET, SCM_RIGHTS, &fds[0], sizeof fds[0]);
            items[1] = item_of(SOL_SOCKET, SCM_RIGHTS, &fds[1], sizeof fds[1]);
            send_with(&l, items, 2);
            memset(&msg, 0, sizeof msg);
            msg.control = control;
            msg.control_size = least ? CMSG_SPACE(sizeof(int)) + CMSG_LEN(2 * sizeof(int))
                                     : sizeof control;
            expect_msg(&l, WHOLE, &msg, MSG_CMSG_CLOEXEC);
            T_EQ(take_fds(&msg, 2, 0, 1), 2);
            channel_close(&l);
        }
    }
    close_fds(fds, 2);
    T_EQ(t_count_fds(), open_fds);
}

/* Arrays that are empty, or no whole number of descriptors: the kernel may refuse them; what comes
   is never a descriptor that was not sent. */
T_TEST(arrays_of_no_whole_number_pass_nothing_strange, 60) {
    char control[256];
    int fds[2], bad = -0x5555, open_fds;
    open_fds = fds_at_rest();
    new_fds(fds, 2);
    FOR_EACH_UNIX_KIND(kind) {
        for (int i = 0; i < 4; i++) {
            struct iovec iov = iov_of(MSG, MSG_LEN);
            int middle[2] = {fds[0], bad};
            pysock_cmsg items[2];
            size_t n = 1;
            channel l;
            pysock_msg msg;
            channel_make(&l, kind);
            if (i == 0) {
                items[0] = item_of(SOL_SOCKET, SCM_RIGHTS, NULL, 0);
            } else if (i == 1) {
                items[0] = item_of(SOL_SOCKET, SCM_RIGHTS, "", 0);
            } else if (i == 2) {
                items[0] = item_of(SOL_SOCKET, SCM_RIGHTS, &bad, sizeof bad - 1);
            } else {
                items[0] = item_of(SOL_SOCKET, SCM_RIGHTS, middle, sizeof middle - 1);
                items[1] = item_of(SOL_SOCKET, SCM_RIGHTS, &fds[1], sizeof fds[1]);
                n = 2;
            }
            if (pysock_sendmsg(l.a, &iov, 1, items, n, 0, l.to) < 0) {
                T_EQ(pysock_error(), PYSOCK_OS_ERROR);
                send_bytes(&l, MSG, MSG_LEN);
            }
            memset(&msg, 0, sizeof msg);
            msg.control = control;
            msg.control_size = sizeof control;
            expect_msg(&l, WHOLE, &msg, MSG_CMSG_CLOEXEC);
            T_CHECK(take_fds(&msg, (int)n, 1, 1) <= (i == 3 ? 2 : 0));
            channel_close(&l);
        }
    }
    close_fds(fds, 2);
    T_EQ(t_count_fds(), open_fds);
}

T_TEST(bad_descriptors_and_too_many_are_refused, 60) {
    enum { MOST = 253 }; /* Linux's SCM_MAX_FD */
    int fds[MOST + 1], got[MOST + 1], bad = -0x5555, open_fds, flags;
    size_t count;
    open_fds = fds_at_rest();
    new_fds(fds, 1);
    for (int i = 1; i <= MOST; i++)
        fds[i] = fds[0];
    FOR_EACH_UNIX_KIND(kind) {
        struct iovec iov = iov_of("x", 1);
        char byte;
        pysock_cmsg item;
        channel l;
        channel_make(&l, kind);
        if (l.to)
            T_OK(pysock_connect_addr(l.a, l.to));
        T_FAILS(pysock_send_fds(l.a, "x", 1, &bad, 1, 0), PYSOCK_OS_ERROR, EBADF);
        T_FAILS(pysock_send_fds(l.a, "x", 1, fds, MOST + 1, 0), T_ANY, EINVAL);
        item = item_of(SOL_SOCKET, SCM_RIGHTS, fds, sizeof fds);
        T_FAILS(pysock_sendmsg(l.a, &iov, 1, &item, 1, 0, NULL), T_ANY, EINVAL);
        T_EQ(t_readable(l.b, 0), 0);
        T_EQ(pysock_send_fds(l.a, "x", 1, fds, MOST, 0), 1);
        count = MOST + 1;
        T_EQ(pysock_recv_fds(l.b, &byte, 1, got, &count, 0, &flags), 1);
        T_EQ(count, MOST);
        T_EQ(flags & MSG_CTRUNC, 0);
        for (int i = 0; i < MOST; i++) {
            expect_number(got[i], 0);
            close(got[i]);
        }
        channel_close(&l);
    }
    close_fds(fds, 1);
    T_EQ(t_count_fds(), open_fds);
}

/* By hand, with every size of room: those that came are whole and right, none is lost open. */
T_TEST(descriptors_are_cut_at_any_length_and_none_is_lost, 60) {
    int fds[3], open_fds;
    open_fds = fds_at_rest();
    new_fds(fds, 3);
    FOR_EACH_UNIX_KIND(kind) {
        int last = 0;
        for (size_t room = 0; room <= CMSG_SPACE(4 * sizeof(int)); room++) {
            char *memory = T_OK(malloc(room + 1));
            channel l;
            pysock_msg msg;
            int n;
            T_STEP("%s, room for %zu bytes", kind_names[kind], room);
            channel_make(&l, kind);
            send_rights(&l, fds, 3);
            memset(&msg, 0, sizeof msg);
            msg.control = memory;
            msg.control_size = room;
            expect_msg(&l, (int)(room % WAYS), &msg, MSG_CMSG_CLOEXEC);
            n = take_fds(&msg, 1, 1, 1);
            T_CHECK(n >= last && n <= 3);
            if (room < CMSG_LEN(sizeof(int)))
                T_EQ(n, 0);
            else if (room < CMSG_LEN(2 * sizeof(int)))
                T_EQ(n, 1);
            T_EQ(msg.flags & MSG_CTRUNC, n < 3 ? MSG_CTRUNC : 0);
            last = n;
            channel_close(&l);
            free(memory);
            T_EQ(t_count_fds(), open_fds + 3);
        }
        T_EQ(last, 3);
    }
    close_fds(fds, 3);
    T_EQ(t_count_fds(), open_fds);
}

/* recv and recvfrom have nowhere to put descriptors: the kernel closes them. */
T_TEST(descriptors_that_nobody_asks_for_are_closed, 30) {
    int fds[2], open_fds;
    open_fds = fds_at_rest();
    new_fds(fds, 2);
    FOR_EACH_UNIX_KIND(kind) {
        char buf[64];
        pysock_addr from;
        channel l;
        channel_make(&l, kind);
        send_rights(&l, fds, 2);
        T_EQ(pysock_recv(l.b, buf, sizeof buf, 0), MSG_LEN);
        send_rights(&l, fds, 2);
        T_EQ(pysock_recvfrom(l.b, buf, sizeof buf, 0, &from), MSG_LEN);
        send_rights(&l, fds, 2); /* never received */
        channel_close(&l);
    }
    close_fds(fds, 2);
    T_EQ(t_count_fds(), open_fds);
}

T_TEST(send_fds_and_recv_fds_pass_open_files, 60) {
    enum { N = 10 };
    int open_fds;
    open_fds = fds_at_rest();
    FOR_EACH_UNIX_KIND(kind) {
        for (int mode = 0; mode < MODES; mode++) {
            int pipes[N][2], fds[N], got[2 * N + 1], flags = -1;
            char buf[2 * MSG_LEN], text[8];
            size_t count = 2 * N;
            channel l;
            channel_make(&l, kind);
            channel_mode(&l, mode);
            if (l.to)
                T_OK(pysock_connect_addr(l.a, l.to));
            for (int i = 0; i < N; i++) {
                T_EQ(pipe(pipes[i]), 0);
                fds[i] = pipes[i][0];
            }
            memset(got, 0x77, sizeof got);
            T_EQ(pysock_send_fds(l.a, MSG, MSG_LEN, fds, N, 0), MSG_LEN);
            T_EQ(pysock_recv_fds(l.b, buf, sizeof buf, got, &count, 0, &flags), MSG_LEN);
            T_CHECK(memcmp(buf, MSG, MSG_LEN) == 0);
            T_EQ(count, N);
            T_EQ(flags & (MSG_TRUNC | MSG_CTRUNC | MSG_OOB), 0);
            T_EQ(got[N], 0x77777777);
            for (int i = 0; i < N; i++) {
                T_CHECK(fcntl(got[i], F_GETFD) & FD_CLOEXEC);
                T_EQ(snprintf(text, sizeof text, "%d", i), 1);
                T_EQ(write(pipes[i][1], text, 1), 1);
            }
            for (int i = 0; i < N; i++) {
                memset(text, 0, sizeof text);
                T_EQ(read(got[i], text, sizeof text), 1);
                T_EQ(text[0], '0' + i);
                T_EQ(close(got[i]) | close(pipes[i][0]) | close(pipes[i][1]), 0);
            }
            channel_close(&l);
        }
    }
    T_EQ(t_count_fds(), open_fds);
}

/* Room for fewer: exactly so many come, the others are closed, and that is told. CMSG_SPACE's
   padding has room for a descriptor more than was asked for. */
T_TEST(recv_fds_closes_what_does_not_fit, 60) {
    enum { N = 5 };
    int fds[N], open_fds;
    open_fds = fds_at_rest();
    new_fds(fds, N);
    FOR_EACH_UNIX_KIND(kind) {
        for (int sent = 0; sent <= N; sent++) {
            for (int room = 0; room <= N + 1; room++) {
                int got[N + 2], flags = -1, want = sent < room ? sent : room;
                char byte;
                size_t count = (size_t)room;
                channel l;
                T_STEP("%s, %d sent, room for %d", kind_names[kind], sent, room);
                channel_make(&l, kind);
                if (l.to)
                    T_OK(pysock_connect_addr(l.a, l.to));
                T_EQ(pysock_send_fds(l.a, "x", 1, sent ? fds : NULL, (size_t)sent, 0), 1);
                memset(got, 0x77, sizeof got);
                T_EQ(pysock_recv_fds(l.b, &byte, 1, room ? got : NULL, &count, 0, &flags), 1);
                T_EQ(byte, 'x');
                T_EQ(count, want);
                T_EQ(flags & MSG_CTRUNC, sent > room ? MSG_CTRUNC : 0);
                for (int i = 0; i < want; i++) {
                    expect_number(got[i], i);
                    T_CHECK(fcntl(got[i], F_GETFD) & FD_CLOEXEC);
                    close(got[i]);
                }
                T_EQ(got[want], 0x77777777);
                channel_close(&l);
                T_EQ(t_count_fds(), open_fds + N);
            }
        }
    }
    close_fds(fds, N);
    T_EQ(t_count_fds(), open_fds);
}

/* On a stream the bytes that came with descriptors are not mixed with those of others. */
T_TEST(descriptors_stay_with_their_bytes, 30) {
    int fds[2], got[4], open_fds, flags;
    char buf[16];
    size_t count;
    open_fds = fds_at_rest();
    new_fds(fds, 2);
    for (int peek = 0; peek < 2; peek++) {
        channel l;
        channel_make(&l, UNIX_STREAM);
        T_EQ(pysock_send_fds(l.a, "ab", 2, &fds[0], 1, 0), 2);
        T_EQ(pysock_send_fds(l.a, "cd", 2, &fds[1], 1, 0), 2);
        for (int i = 0; i < 2; i++) {
            if (peek) { /* that gives descriptors of their own */
                count = 4;
                T_EQ(pysock_recv_fds(l.b, buf, sizeof buf, got, &count, MSG_PEEK, NULL), 2);
                T_EQ(count, 1);
                expect_number(got[0], i);
                close(got[0]);
            }
            count = 4;
            T_EQ(pysock_recv_fds(l.b, buf, sizeof buf, got, &count, 0, &flags), 2);
            T_CHECK(memcmp(buf, i ? "cd" : "ab", 2) == 0);
            T_EQ(count, 1);
            expect_number(got[0], i);
            close(got[0]);
        }
        channel_close(&l);
    }
    close_fds(fds, 2);
    T_EQ(t_count_fds(), open_fds);
}

T_TEST(an_empty_datagram_may_carry_descriptors, 30) {
    int fds[1], got[2], open_fds;
    size_t count = 2;
    channel l;
    open_fds = fds_at_rest();
    new_fds(fds, 1);
    channel_make(&l, UNIX_DGRAM);
    {
        struct iovec iov = iov_of(NULL, 0);
        pysock_cmsg item = item_of(SOL_SOCKET, SCM_RIGHTS, fds, sizeof fds);
        T_EQ(pysock_sendmsg(l.a, &iov, 1, &item, 1, 0, l.to), 0);
    }
    T_EQ(pysock_recv_fds(l.b, NULL, 0, got, &count, 0, NULL), 0);
    T_EQ(count, 1);
    expect_number(got[0], 0);
    close(got[0]);
    channel_close(&l);
    close_fds(fds, 1);
    T_EQ(t_count_fds(), open_fds);
}

static void child_has_no_room(void *arg) {
    int got[4], flags = 0, spare[2];
    size_t count = 4;
    struct rlimit limit;
    char byte;
    for (int i = 0; i < 2; i++)
        T_CHECK((spare[i] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0);
    T_EQ(close(spare[0]) | close(spare[1]), 0);
    T_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = (rlim_t)spare[1] + 1;
    T_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    T_EQ(pysock_recv_fds(arg, &byte, 1, got, &count, 0, &flags), 1);
    T_EQ(count, 2);
    T_EQ(flags & MSG_CTRUNC, MSG_CTRUNC);
    expect_number(got[0], 0);
    expect_number(got[1], 1);
}

/* A process that may not have more descriptors open gets those that it may. */
T_TEST(a_process_without_room_gets_what_it_can_hold, 30) {
    int fds[4];
    channel l;
    new_fds(fds, 4);
    channel_make(&l, UNIX_STREAM);
    T_EQ(pysock_send_fds(l.a, "x", 1, fds, 4, 0), 1);
    t_wait_for_child(t_run_in_child(child_has_no_room, l.b, 0));
    channel_close(&l);
    close_fds(fds, 4);
}

static void child_writes_where_it_is_told(void *arg) {
    int fd = -1, flags;
    size_t count = 1;
    char buf[16];
    T_EQ(t_readable(arg, PYSOCK_NO_TIMEOUT), 1);
    T_EQ(pysock_recv_fds(arg, buf, sizeof buf, &fd, &count, 0, &flags), 5);
    T_EQ(count, 1);
    T_EQ(write(fd, buf, 5), 5);
    T_EQ(close(fd), 0);
}

T_TEST(descriptors_are_passed_to_a_child, 60) {
    FOR_EACH_UNIX_KIND(kind) {
        for (int mode = 0; mode < MODES; mode++) {
            int fds[2];
            char buf[8];
            channel l;
            pid_t pid;
            channel_make(&l, kind);
            channel_mode(&l, mode);
            if (l.to)
                T_OK(pysock_connect_addr(l.a, l.to));
            pid = t_run_in_child(child_writes_where_it_is_told, l.b, mode & 1);
            T_EQ(pipe(fds), 0); /* which the child did not inherit */
            T_EQ(pysock_send_fds(l.a, "write", 5, &fds[1], 1, 0), 5);
            T_EQ(close(fds[1]), 0);
            T_EQ(t_raw_read(-1, buf, 0), 0);
            T_EQ(read(fds[0], buf, sizeof buf), 5);
            T_CHECK(memcmp(buf, "write", 5) == 0);
            T_EQ(read(fds[0], buf, sizeof buf), 0);
            t_wait_for_child(pid);
            close(fds[0]);
            channel_close(&l);
        }
    }
}

T_TEST(a_passed_socket_can_be_adopted, 30) {
    pysock *pair[2], *adopted;
    int fd, got = -1;
    size_t count = 1;
    char byte;
    channel l;
    channel_make(&l, UNIX_STREAM);
    t_pair(pair);
    fd = pysock_fileno(pair[0]);
    T_EQ(pysock_send_fds(l.a, "x", 1, &fd, 1, 0), 1);
    T_EQ(pysock_recv_fds(l.b, &byte, 1, &got, &count, 0, NULL), 1);
    T_EQ(count, 1);
    T_CHECK(got != fd);
    adopted = T_OK(pysock_adopt(got, -1, -1, -1));
    T_EQ(pysock_family(adopted), AF_INET);
    T_EQ(pysock_type(adopted), SOCK_STREAM);
    t_say(adopted, "passed on");
    t_expect(pair[1], "passed on");
    T_OK(pysock_close(adopted));
    t_close_pair(pair);
    channel_close(&l);
}

/* ---- credentials ---- */

static void expect_credentials(const pysock_msg *msg, pid_t pid) {
    struct ucred who;
    memset(&who, 0xee, sizeof who);
    expect_data(msg, SOL_SOCKET, SCM_CREDENTIALS, &who, sizeof who);
    T_EQ(who.pid, pid);
    T_EQ(who.uid, getuid());
    T_EQ(who.gid, getgid());
}

T_TEST(credentials_come_where_they_are_asked_for, 60) {
    char control[256];
    FOR_EACH_UNIX_KIND(kind) {
        for (int i = 0; i < MODES * WAYS; i++) {
            struct ucred me;
            pysock_cmsg item;
            pysock_msg msg;
            channel l;
            channel_make(&l, kind);
            channel_mode(&l, i / WAYS);
            memset(&me, 0, sizeof me);
            me.pid = getpid();
            me.uid = getuid();
            me.gid = getgid();
            item = item_of(SOL_SOCKET, SCM_CREDENTIALS, &me, sizeof me);
            T_STEP("not asked for");
            send_with(&l, &item, 1);
            receive_with_room(&l, i % WAYS, &msg, control, sizeof control);
            T_EQ(count_items(&msg), 0);
            T_STEP("from the kernel");
            T_OK(pysock_setsockopt_int(l.b, SOL_SOCKET, SO_PASSCRED, 1));
            send_bytes(&l, MSG, MSG_LEN);
            memset(&msg, 0, sizeof msg);
            msg.control = control;
            msg.control_size = sizeof control;
            expect_msg(&l, i % WAYS, &msg, 0);
            T_EQ(count_items(&msg), 1);
            expect_credentials(&msg, getpid());
            T_STEP("by hand");
            send_with(&l, &item, 1);
            msg.control_size = CMSG_SPACE(sizeof me);
            expect_msg(&l, i % WAYS, &msg, 0);
            T_EQ(msg.flags & MSG_CTRUNC, 0);
            expect_credentials(&msg, getpid());
            T_STEP("cut off");
            send_with(&l, &item, 1);
            msg.control_size = CMSG_LEN(sizeof me) - 1;
            expect_msg(&l, i % WAYS, &msg, 0);
            T_EQ(msg.flags & MSG_CTRUNC, MSG_CTRUNC);
            T_CHECK(count_items(&msg) <= 1);
            item.size--;
            {
                struct iovec iov = iov_of(MSG, MSG_LEN);
                T_FAILS(pysock_sendmsg(l.a, &iov, 1, &item, 1, 0, l.to), PYSOCK_OS_ERROR, EINVAL);
            }
            channel_close(&l);
        }
    }
}

T_TEST(credentials_and_descriptors_come_together, 30) {
    char control[256], byte;
    int fds[2], open_fds, got[2], flags = 0;
    size_t count = 2;
    open_fds = fds_at_rest();
    new_fds(fds, 2);
    FOR_EACH_UNIX_KIND(kind) {
        pysock_msg msg;
        pysock_cmsg item;
        int rights = 0;
        channel l;
        channel_make(&l, kind);
        T_OK(pysock_setsockopt_int(l.b, SOL_SOCKET, SO_PASSCRED, 1));
        send_rights(&l, fds, 2);
        receive_with_room(&l, WHOLE, &msg, control, sizeof control);
        T_EQ(count_items(&msg), 2);
        expect_credentials(&msg, getpid());
        memset(&item, 0, sizeof item);
        while (pysock_msg_next(&msg, &item)) {
            if (item.type != SCM_RIGHTS)
                continue;
            T_EQ(item.size, sizeof got);
            memcpy(got, item.data, sizeof got);
            rights++;
        }
        T_EQ(rights, 1);
        expect_number(got[0], 0);
        expect_number(got[1], 1);
        close_fds(got, 2);
        T_STEP("%s: where credentials take the room, nothing is lost silently", kind_names[kind]);
        if (l.to)
            T_OK(pysock_connect_addr(l.a, l.to));
        T_EQ(pysock_send_fds(l.a, "x", 1, fds, 2, 0), 1);
        count = 2;
        T_EQ(pysock_recv_fds(l.b, &byte, 1, got, &count, 0, &flags), 1);
        T_CHECK(count <= 2);
        T_EQ(!!(flags & MSG_CTRUNC), count < 2);
        close_fds(got, (int)count);
        channel_close(&l);
    }
    close_fds(fds, 2);
    T_EQ(t_count_fds(), open_fds);
}

static void child_says_who_it_is(void *arg) {
    T_EQ(pysock_send(arg, MSG, MSG_LEN, 0), MSG_LEN);
}

T_TEST(credentials_tell_the_child_from_the_parent, 30) {
    char control[256];
    pysock_msg msg;
    channel l;
    pid_t pid;
    channel_make(&l, UNIX_STREAM);
    T_OK(pysock_setsockopt_int(l.b, SOL_SOCKET, SO_PASSCRED, 1));
    pid = t_run_in_child(child_says_who_it_is, l.a, 0);
    receive_with_room(&l, WHOLE, &msg, control, sizeof control);
    expect_credentials(&msg, pid);
    t_wait_for_child(pid);
    send_bytes(&l, MSG, MSG_LEN);
    receive_with_room(&l, WHOLE, &msg, control, sizeof control);
    expect_credentials(&msg, getpid());
    channel_close(&l);
}

T_MAIN(.setup = make_contexts_and_watchdog, .teardown = free_contexts)
