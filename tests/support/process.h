/* Other programs as peers: started with pipes, fed and read without blocking, killed and reaped at
   the end of the test whatever happens (teardown), or with the test program (PR_SET_PDEATHSIG). */
#ifndef TESTS_SUPPORT_PROCESS_H
#define TESTS_SUPPORT_PROCESS_H

#include "support/support.h"

/* A test with programs is slow on a loaded machine, and hangs only when something is wrong. */
#define P_PATIENCE T_SCALE(20.0, 60.0)
#define P_ARGS 64
#define P_PROCESSES 8

typedef struct p_text {
    char *data; /* terminated */
    size_t size, room;
} p_text;

typedef struct p_process {
    pid_t pid; /* 0: not running, reaped */
    int status;
    int in, out, err;  /* our ends of its pipes, non-blocking; -1 once closed */
    p_text said;       /* its standard output, as far as it was read */
    p_text complained; /* and its standard error */
    const char *program;
} p_process;

typedef struct p_args {
    const char *argv[P_ARGS];
    size_t count;
} p_args;

static p_process *p_running[P_PROCESSES];

/* ---- arguments ---- */

/* Adds strings, which must stay, up to a NULL. */
T_FUNC void p_add(p_args *args, ...) {
    va_list list;
    const char *text;
    va_start(list, args);
    while ((text = va_arg(list, const char *)) != NULL) {
        if (args->count + 1 >= P_ARGS)
            T_FAIL("too many arguments");
        args->argv[args->count++] = text;
    }
    va_end(list);
    args->argv[args->count] = NULL;
}

/* A text that stays until twenty-four more were made. */
__attribute__((format(printf, 1, 2), unused)) static const char *p_format(const char *format, ...) {
    static char texts[24][512];
    static size_t next;
    char *text = texts[next++ % 24];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof texts[0], format, list);
    va_end(list);
    return text;
}

/* Files of tests/certs. */
T_FUNC const char *p_cert_file(const char *name) {
    return p_format("tests/certs/%s.pem", name);
}

T_FUNC const char *p_key_file(const char *name) {
    return p_format("tests/certs/%s.key", name);
}

/* ---- programs ---- */

T_FUNC int p_is_installed(const char *program) {
    const char *path = getenv("PATH");
    char file[1024];
    while (path && *path) {
        const char *end = strchr(path, ':');
        int length = end ? (int)(end - path) : (int)strlen(path);
        snprintf(file, sizeof file, "%.*s/%s", length, path, program);
        if (access(file, X_OK) == 0)
            return 1;
        path = end ? end + 1 : NULL;
    }
    return 0;
}

/* A test that could not run must not look like one that passed. */
#define P_NEED(program)                                                                            \
    do {                                                                                           \
        if (p_is_installed(program))                                                               \
            break;                                                                                 \
        if (!getenv("PYSOCK_TEST_SKIP_MISSING"))                                                   \
            T_FAIL("%s is not installed; run tools/setup.sh test, or set "                         \
                   "PYSOCK_TEST_SKIP_MISSING to skip what needs it",                               \
                   program);                                                                       \
        print_message("%s is not installed: skipped\n", program);                                  \
        skip();                                                                                    \
    } while (0)

/* ---- starting and ending ---- */

T_FUNC void p_exec(const p_process *p, const char *const *argv, int in, int out, int err,
                   pid_t parent) {
    sigset_t none;
    char *args[P_ARGS];
    size_t n = 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0)
        _exit(127);
    /* execvp takes char *, and changes nothing. */
    for (; argv[n]; n++)
        memcpy(&args[n], &argv[n], sizeof args[n]);
    args[n] = NULL;
    execvp(p->program, args);
    _exit(127);
}

T_FUNC void p_close_fd(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Kills what still runs, reaps it and frees all. */
T_FUNC void p_end(p_process *p) {
    if (p->pid > 0) {
        kill(p->pid, SIGKILL);
        while (waitpid(p->pid, &p->status, 0) < 0 && errno == EINTR)
            continue;
        p->pid = 0;
    }
    p_close_fd(&p->in);
    p_close_fd(&p->out);
    p_close_fd(&p->err);
    free(p->said.data);
    free(p->complained.data);
    memset(&p->said, 0, sizeof p->said);
    memset(&p->complained, 0, sizeof p->complained);
    for (size_t i = 0; i < P_PROCESSES; i++)
        if (p_running[i] == p)
            p_running[i] = NULL;
}

/* p must outlive the test: its memory is static, and may be used again. */
T_FUNC void p_start(p_process *p, const p_args *args) {
    int in[2], out[2], err[2];
    pid_t parent = getpid();
    size_t slot = 0;
    for (size_t i = 0; i < P_PROCESSES; i++)
        if (p_running[i] == p)
            p_end(p);
    memset(p, 0, sizeof *p);
    p->program = args->argv[0];
    while (slot < P_PROCESSES && p_running[slot])
        slot++;
    T_CHECK(slot < P_PROCESSES);
    if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0)
        T_FAIL("pipe: %s", strerror(errno));
    fflush(NULL);
    p->pid = fork();
    if (p->pid == 0)
        p_exec(p, args->argv, in[0], out[1], err[1], parent);
    close(in[0]);
    close(out[1]);
    close(err[1]);
    p->in = in[1];
    p->out = out[0];
    p->err = err[0];
    p_running[slot] = p;
    if (p->pid < 0)
        T_FAIL("fork: %s", strerror(errno));
    fcntl(p->in, F_SETFL, O_NONBLOCK);
    fcntl(p->out, F_SETFL, O_NONBLOCK);
    fcntl(p->err, F_SETFL, O_NONBLOCK);
}

/* For cmocka's teardown: after a failure too. */
T_FUNC int p_end_all(void **state) {
    (void)state;
    for (size_t i = 0; i < P_PROCESSES; i++)
        if (p_running[i])
            p_end(p_running[i]);
    return 0;
}

/* ---- reading and feeding ---- */

T_FUNC void p_append(p_text *text, const void *data, size_t size) {
    if (text->size + size + 1 > text->room) {
        text->room = (text->size + size + 1) * 2;
        text->data = realloc(text->data, text->room);
        if (!text->data)
            T_FAIL("no memory for the output of a program");
    }
    memcpy(text->data + text->size, data, size);
    text->size += size;
    text->data[text->size] = 0;
}

T_FUNC const char *p_string(const p_text *text) {
    return text->data ? text->data : "";
}

/* Takes what there is on a pipe of p; closes it at its end. */
T_FUNC void p_read(int *fd, p_text *text) {
    char buf[16384];
    ssize_t n;
    if (*fd < 0)
        return;
    while ((n = read(*fd, buf, sizeof buf)) > 0)
        p_append(text, buf, (size_t)n);
    if (n == 0 || (errno != EAGAIN && errno != EINTR))
        p_close_fd(fd);
}

/* Waits for output, at most that long. 0: both pipes are at their end. */
T_FUNC int p_pump(p_process *p, double seconds) {
    struct pollfd fds[2];
    fds[0].fd = p->out; /* poll ignores negative descriptors */
    fds[1].fd = p->err;
    fds[0].events = fds[1].events = POLLIN;
    fds[0].revents = fds[1].revents = 0;
    if (p->out < 0 && p->err < 0)
        return 0;
    poll(fds, 2, (int)(seconds * 1000));
    p_read(&p->out, &p->said);
    p_read(&p->err, &p->complained);
    return 1;
}

T_FUNC void p_show(const p_process *p) {
    size_t skip_said = p->said.size > 4000 ? p->said.size - 4000 : 0;
    fprintf(stderr, "*** %s said:\n%s\n*** and complained:\n%s\n", p->program,
            p_string(&p->said) + skip_said, p_string(&p->complained));
}

#define P_FAIL(p, ...)                                                                             \
    do {                                                                                           \
        p_show(p);                                                                                 \
        T_FAIL(__VA_ARGS__);                                                                       \
    } while (0)

T_FUNC int p_has_said(const p_process *p, const char *text) {
    return strstr(p_string(&p->said), text) || strstr(p_string(&p->complained), text);
}

/* Until the program has written the text somewhere. */
T_FUNC void p_wait_for(p_process *p, const char *text) {
    double end = t_now() + P_PATIENCE;
    T_STEP("waiting for %s to say '%s'", p->program, text);
    while (!p_has_said(p, text)) {
        if (!p_pump(p, 0.1))
            P_FAIL(p, "%s ended without saying '%s'", p->program, text);
        if (t_now() > end)
            P_FAIL(p, "%s did not say '%s'", p->program, text);
    }
}

/* Some text, which must fit into the pipe. */
T_FUNC void p_say(p_process *p, const char *text) {
    size_t n = strlen(text);
    if (write(p->in, text, n) != (ssize_t)n)
        P_FAIL(p, "cannot write to %s: %s", p->program, strerror(errno));
}

/* Reaps p if it has ended; says whether it has. */
T_FUNC int p_is_over(p_process *p) {
    if (p->pid > 0 && waitpid(p->pid, &p->status, WNOHANG) == p->pid)
        p->pid = 0;
    return p->pid == 0;
}

/* Waits for the end, reading on; the exit status, or 128 and the signal. */
T_FUNC int p_exit_status_within(p_process *p, double seconds) {
    double end = t_now() + seconds;
    T_STEP("waiting for %s to end", p->program);
    while (!p_is_over(p)) {
        if (t_now() > end)
            P_FAIL(p, "%s did not end", p->program);
        if (!p_pump(p, 0.02))
            t_nap(0.005);
    }
    p_read(&p->out, &p->said);
    p_read(&p->err, &p->complained);
    return WIFEXITED(p->status) ? WEXITSTATUS(p->status) : 128 + WTERMSIG(p->status);
}

T_FUNC int p_exit_status(p_process *p) {
    return p_exit_status_within(p, P_PATIENCE);
}

/* Runs a program that may take so long to its end; its exit status. */
T_FUNC int p_run_within(p_process *p, const p_args *args, double seconds) {
    p_start(p, args);
    p_close_fd(&p->in);
    return p_exit_status_within(p, seconds);
}

T_FUNC int p_run(p_process *p, const p_args *args) {
    return p_run_within(p, args, P_PATIENCE);
}

/* ---- servers ---- */

#define P_PORT "@PORT@"

/* A port of 127.0.0.1 that nobody uses at this moment: below those that the kernel gives to whoever
   asks for any, so that nobody gets it by chance before the server for which it is. */
T_FUNC int p_free_port(void) {
    static int calls;
    struct sockaddr_in in;
    int i, fd, port, bound;
    memset(&in, 0, sizeof in);
    in.sin_family = AF_INET;
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (i = 0; i < 1000; i++) {
        port = 10240 +
               (int)((getpid() * 61L + __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED)) % 22000);
        in.sin_port = htons((uint16_t)port);
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
            T_FAIL("no socket: %s", strerror(errno));
        bound = bind(fd, (struct sockaddr *)&in, sizeof in) == 0;
        close(fd);
        if (bound)
            return port;
    }
    T_FAIL("no free port: %s", strerror(errno));
    return -1;
}

/* Writes text into buf with every "@PORT@" replaced. */
T_FUNC void p_with_port(char *buf, size_t size, const char *text, int port) {
    size_t used = 0;
    while (*text && used + 8 < size) {
        if (strncmp(text, P_PORT, strlen(P_PORT)) == 0) {
            used += (size_t)snprintf(buf + used, size - used, "%d", port);
            text += strlen(P_PORT);
        } else {
            buf[used++] = *text++;
        }
    }
    buf[used] = 0;
    if (*text)
        T_FAIL("argument too long");
}

/* A connection that a server which has just been started accepts; NULL if it ended instead. */
T_FUNC pysock *p_connect_when_ready(p_process *p, int port) {
    double end = t_now() + P_PATIENCE;
    for (;;) {
        pysock *s = pysock_create_connection("127.0.0.1", port, P_PATIENCE);
        if (s)
            return s;
        if (errno != ECONNREFUSED)
            P_FAIL(p, "connecting to %s: %s", p->program, pysock_error_message());
        p_pump(p, 0.01);
        if (p_is_over(p))
            return NULL;
        if (t_now() > end)
            P_FAIL(p, "%s does not listen", p->program);
        t_nap(0.01);
    }
}

/* Starts a server on a free port, which takes the place of every "@PORT@" in the arguments.
   Somebody else may take the port before the server does: then it is started on another one.
   Returns the first connection; a timeout is set on it. */
T_FUNC pysock *p_start_server(p_process *p, const p_args *args, int *port) {
    for (int attempt = 0; attempt < 4; attempt++) {
        p_args with_port = {{NULL}, 0};
        char texts[P_ARGS][512];
        pysock *s;
        *port = p_free_port();
        for (size_t i = 0; i < args->count; i++) {
            p_with_port(texts[i], sizeof texts[i], args->argv[i], *port);
            p_add(&with_port, texts[i], NULL);
        }
        T_STEP("starting %s on port %d", args->argv[0], *port);
        p_start(p, &with_port);
        p->program = args->argv[0];
        s = p_connect_when_ready(p, *port);
        if (s)
            return s;
        if (attempt == 3)
            P_FAIL(p, "%s does not start", p->program);
        p_end(p);
    }
    return NULL;
}

/* One more connection to a server that runs. */
T_FUNC pysock *p_connect(p_process *p, int port) {
    pysock *s = pysock_create_connection("127.0.0.1", port, P_PATIENCE);
    if (!s)
        P_FAIL(p, "connecting to %s: %s", p->program, pysock_error_message());
    return s;
}

#endif
