/* What happens to a socket in the middle of a copying sendfile, whose file is read without a lock:
   the reading stops where the test likes. And what a full table leaves behind: it is small here. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <sys/types.h>
#include <unistd.h>

static ssize_t held_pread(int fd, void *buf, size_t size, off_t offset);

#define PYSOCK_IMPLEMENTATION
#define PYSOCK_MAX_SOCKETS 64
#define pread held_pread
#include "pysock.h"
#undef pread

#include "support/support.h"

/* ---- the file that is read slowly ---- */

static sem_t reading, read_on;

static ssize_t held_pread(int fd, void *buf, size_t size, off_t offset) {
    ssize_t n = pread(fd, buf, size, offset);
    sem_post(&reading);
    t_sem_take(&read_on);
    return n;
}

typedef struct sender {
    t_thread t;
    pysock *pair[2];
    FILE *f;
    int64_t result;
    int code;
} sender;

static void *sendfile_thread(void *arg) {
    sender *j = arg;
    j->result = pysock_sendfile(j->pair[0], fileno(j->f), 0, -1);
    j->code = errno;
    return NULL;
}

/* Begins a sendfile, which now has a piece of the file and no lock. */
static void begin_sendfile(sender *j, double timeout) {
    memset(j, 0, sizeof *j);
    T_EQ(sem_init(&reading, 0, 0), 0);
    T_EQ(sem_init(&read_on, 0, 0), 0);
    j->f = tmpfile();
    T_CHECK(j->f != NULL);
    T_EQ(ftruncate(fileno(j->f), 50000), 0);
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, j->pair));
    T_OK(pysock_settimeout(j->pair[0], timeout));
    t_spawn(&j->t, sendfile_thread, j);
    t_sem_take(&reading);
}

static void end_sendfile(sender *j, int code) {
    for (int i = 0; i < 8; i++)
        sem_post(&read_on);
    t_join(&j->t);
    T_EQ(j->result, -1);
    T_EQ(j->code, code);
    T_EQ(fclose(j->f), 0);
    sem_destroy(&reading);
    sem_destroy(&read_on);
}

/* Without a thread a sendfile without a timeout copies. */
static int go_threadless(void **state) {
    pysock *pair[2];
    pysock_buf *much = T_OK(pysock_buf_new(1u << 20));
    (void)state;
    pysock_set_audit_hook(t_deny_threads, NULL);
    T_OK(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    T_OK(pysock_setblocking(pair[0], 0));
    T_OK(pysock_send_buf(pair[0], much));
    T_EQ(pysock__load(&pysock__reactor.threadless), 1);
    T_OK(pysock_close(pair[1]));
    T_FAILS(pysock_close(pair[0]), PYSOCK_OS_ERROR, T_ANY); /* what was queued is lost */
    pysock_buf_release(much);
    return 0;
}

static int begin_anew(void **state) {
    (void)state;
    pysock_set_audit_hook(NULL, NULL);
    pysock_setdefaulttimeout(PYSOCK_NO_TIMEOUT);
    pysock_cleanup();
    return 0;
}

#define COPY_TEST(name, seconds) T_TEST_WITH(name, seconds, go_threadless, begin_anew)

/* Nothing goes where the number of what was detached means something else by now. */
COPY_TEST(a_detach_in_the_middle_of_a_copy_ends_it, 30) {
    sender j;
    int other[2], fd;
    char byte;
    begin_sendfile(&j, PYSOCK_NO_TIMEOUT);
    fd = T_OK(pysock_detach(j.pair[0]));
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, other), 0);
    T_EQ(dup2(other[0], fd), fd);
    end_sendfile(&j, EBADF);
    T_EQ(recv(other[1], &byte, 1, MSG_DONTWAIT), -1);
    T_EQ(errno, EAGAIN);
    close(fd);
    close(other[0]);
    close(other[1]);
    T_OK(pysock_close(j.pair[1]));
}

COPY_TEST(a_close_in_the_middle_of_a_copy_ends_it, 30) {
    sender j;
    int raw;
    char byte;
    begin_sendfile(&j, PYSOCK_NO_TIMEOUT);
    raw = dup(T_OK(pysock_fileno(j.pair[1])));
    T_CHECK(raw >= 0);
    T_OK(pysock_close(j.pair[0]));
    end_sendfile(&j, EBADF);
    T_EQ(recv(raw, &byte, 1, MSG_DONTWAIT), 0);
    close(raw);
    T_OK(pysock_close(j.pair[1]));
}

COPY_TEST(a_cleanup_in_the_middle_of_a_copy_ends_it, 30) {
    sender j;
    int raw;
    char byte;
    begin_sendfile(&j, PYSOCK_NO_TIMEOUT);
    raw = dup(T_OK(pysock_fileno(j.pair[1])));
    T_CHECK(raw >= 0);
    pysock_cleanup();
    end_sendfile(&j, ESHUTDOWN);
    T_EQ(recv(raw, &byte, 1, MSG_DONTWAIT), 0);
    close(raw);
}

/* ---- a full table ---- */

T_TEST_WITH(a_failed_adopt_hands_the_descriptor_back_as_it_was, 30, NULL, begin_anew) {
    pysock *all[PYSOCK_MAX_SOCKETS + 1];
    int n = 0, raw[2];
    while (n <= PYSOCK_MAX_SOCKETS && (all[n] = pysock_socket(AF_UNIX, SOCK_STREAM, 0)) != NULL)
        n++;
    T_EQ(pysock_error_code(), EMFILE);
    T_EQ(n, PYSOCK_MAX_SOCKETS);
    for (int i = 0; i < 4; i++) {
        int flags = i & 1 ? O_NONBLOCK : 0;
        T_STEP("%s, timeout %d", flags ? "O_NONBLOCK" : "blocking", i & 2);
        T_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, raw), 0);
        T_EQ(fcntl(raw[0], F_SETFL, (fcntl(raw[0], F_GETFL) & ~O_NONBLOCK) | flags), 0);
        T_OK(pysock_setdefaulttimeout(i & 2 ? 1.0 : PYSOCK_NO_TIMEOUT));
        T_FAILS(pysock_adopt(raw[0], -1, -1, -1), PYSOCK_OS_ERROR, EMFILE);
        T_EQ(fcntl(raw[0], F_GETFL) & O_NONBLOCK, flags);
        T_EQ(close(raw[0]), 0);
        T_EQ(close(raw[1]), 0);
    }
    while (n)
        T_OK(pysock_close(all[--n]));
}

T_MAIN()
