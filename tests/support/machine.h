/* The machine and this process: what there is, how many threads and descriptors, children. */
#ifndef TESTS_SUPPORT_MACHINE_H
#define TESTS_SUPPORT_MACHINE_H

#include "support/checks.h"

T_FUNC int t_count_dir(const char *path) {
    int n = 0;
    DIR *d = opendir(path);
    if (!d)
        return -1;
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

T_FUNC int t_count_threads(void) {
    return t_count_dir("/proc/self/task");
}

T_FUNC int t_count_fds(void) {
    return t_count_dir("/proc/self/fd") - 1; /* without the one that reads the directory */
}

/* The count once it has stood still for a while. */
T_FUNC int t_settled(int (*count)(void)) {
    int last = count();
    for (int same = 0; same < 10;) {
        int now;
        t_nap(0.01);
        now = count();
        same = now == last ? same + 1 : 0;
        last = now;
    }
    return last;
}

/* A joined thread can be seen for a moment longer, and closing may end in the reactor. */
T_FUNC void t_expect_at_most(int (*count)(void), int bound, const char *what) {
    double end = t_now() + 20;
    int have;
    while ((have = count()) > bound && t_now() < end)
        t_nap(0.01);
    if (have > bound)
        T_FAIL("there are %d %s, not %d", have, what, bound);
}

/* 1 if there is an IPv6 loopback; says so, once, if there is none. */
T_FUNC int t_has_ipv6(void) {
    static int told;
    struct sockaddr_in6 in6;
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int ok;
    memset(&in6, 0, sizeof in6);
    in6.sin6_family = AF_INET6;
    in6.sin6_addr = in6addr_loopback;
    ok = fd >= 0 && bind(fd, (struct sockaddr *)&in6, sizeof in6) == 0;
    if (fd >= 0)
        close(fd);
    if (!ok && !told++)
        print_message("this machine has no IPv6 loopback: skipped\n");
    return ok;
}

/* A socket of a family that the machine may lack, or reserve for the superuser: then the case is
   skipped. Call it before the case holds anything. */
T_FUNC pysock *t_socket_or_skip(int family, int type, int proto) {
    pysock *s = pysock_socket(family, type, proto);
    if (s)
        return s;
    if (errno != EPERM && errno != EACCES && errno != EAFNOSUPPORT && errno != EPROTONOSUPPORT &&
        errno != ESOCKTNOSUPPORT && errno != ENOPROTOOPT)
        T_FAIL("a socket of family %d, type %d: %s", family, type, pysock_error_message());
    print_message("no socket of family %d, type %d, protocol %d: %s: skipped\n", family, type,
                  proto, pysock_error_message());
    skip();
    return NULL;
}

/* ---- child processes ---- */

/* Runs fn in a forked child, which ends by exit(), atexit handlers included, or by _exit(). */
T_FUNC pid_t t_run_in_child(void (*fn)(void *arg), void *arg, int by_exit) {
    pid_t pid;
    fflush(NULL);
    pid = fork();
    if (pid < 0)
        T_FAIL("fork: %s", strerror(errno));
    if (pid > 0)
        return pid;
    t_is_child = 1;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    fn(arg);
    if (by_exit)
        exit(0);
    _exit(0);
}

T_FUNC void t_wait_for_child(pid_t pid) {
    int status = 0;
    pid_t done;
    do
        done = waitpid(pid, &status, 0);
    while (done < 0 && errno == EINTR);
    if (done != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        T_FAIL("the child ended with status 0x%x", (unsigned int)status);
}

#endif
