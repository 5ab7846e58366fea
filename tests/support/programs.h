/* The examples as programs: found where make puts them, and run as their users run them. */
#ifndef TESTS_SUPPORT_PROGRAMS_H
#define TESTS_SUPPORT_PROGRAMS_H

#include "support/support.h"
#include "support/process.h"

/* Sanitized ones may stand below the test's own directory; the usual place is beside it. */
T_FUNC const char *find_example(const char *name) {
    char self[512];
    const char *path;
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n > 0) {
        self[n] = 0;
        *strrchr(self, '/') = 0;
        path = p_format("%.200s/examples/%s", self, name);
        if (access(path, X_OK) == 0)
            return path;
        path = p_format("%.200s/../examples/%s", self, name);
        if (access(path, X_OK) == 0)
            return path;
        path = p_format("%.200s/tools/%s", self, name);
        if (access(path, X_OK) == 0)
            return path;
    }
    path = p_format("build/examples/%s", name);
    return access(path, X_OK) == 0 ? path : NULL;
}

#define NEED_EXAMPLE(name)                                                                         \
    do {                                                                                           \
        if (find_example(name))                                                                    \
            break;                                                                                 \
        print_message("%s is not built (make examples): skipped\n", name);                         \
        skip();                                                                                    \
    } while (0)

T_FUNC void add_arguments(p_args *args, const char *name, va_list list) {
    const char *text;
    p_add(args, find_example(name), NULL);
    while ((text = va_arg(list, const char *)) != NULL)
        p_add(args, text, NULL);
}

/* Starts an example; its arguments end with NULL. */
T_FUNC void start(p_process *p, const char *name, ...) {
    p_args args = {{NULL}, 0};
    va_list list;
    va_start(list, name);
    add_arguments(&args, name, list);
    va_end(list);
    p_start(p, &args);
    p->program = name;
}

/* Runs one to its end, without an input; its exit status. */
T_FUNC int run(p_process *p, const char *name, ...) {
    p_args args = {{NULL}, 0};
    va_list list;
    va_start(list, name);
    add_arguments(&args, name, list);
    va_end(list);
    p_start(p, &args);
    p->program = name;
    p_close_fd(&p->in);
    return p_exit_status(p);
}

T_FUNC void must_end_with(p_process *p, int status) {
    int have = p_exit_status(p);
    if (have != status)
        P_FAIL(p, "%s ended with status %d, not %d", p->program, have, status);
}

T_FUNC void must_have_said(p_process *p, const char *text) {
    if (!p_has_said(p, text))
        P_FAIL(p, "%s did not say '%s'", p->program, text);
}

T_FUNC void must_have_printed(p_process *p, const char *text) {
    if (strcmp(p_string(&p->said), text) != 0)
        P_FAIL(p, "%s printed '%s', not '%s'", p->program, p_string(&p->said), text);
}

/* Until so much has come on its stdout. */
T_FUNC void wait_for_bytes(p_process *p, size_t size) {
    double end = t_now() + P_PATIENCE;
    T_STEP("waiting for %zu bytes of %s", size, p->program);
    while (p->said.size < size) {
        if (!p_pump(p, 0.1))
            P_FAIL(p, "%s ended after %zu of %zu bytes", p->program, p->said.size, size);
        if (t_now() > end)
            P_FAIL(p, "%s printed %zu of %zu bytes", p->program, p->said.size, size);
    }
}

/* The port in "listening on 127.0.0.1:4711", which the program says when it listens. */
T_FUNC int listening_port(p_process *p) {
    const char *line, *end;
    p_wait_for(p, "listening on ");
    while ((end = strchr(line = strstr(p_string(&p->complained), "listening on "), '\n')) == NULL)
        p_pump(p, 0.1);
    while (*end != ':' && end > line)
        end--;
    return atoi(end + 1);
}

T_FUNC const char *digits(int number) {
    return p_format("%d", number);
}

/* A fixture. A program that has ended reads no more of what it is fed. */
T_FUNC int ignore_SIGPIPE(void **state) {
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    return 0;
}

#endif
