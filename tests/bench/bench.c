/* The benchmark: pysock against hand-written loops, every figure a ratio within this run.

       bench [--row NAME] [--turns N]

   Each side of a ratio has a client and a server process on loopback, all pinned to one core. The
   sides of a group take turns, forwards and backwards; a row's value is the median of the turns'
   own ratios, so that a machine that slows down for a while slows down both. For the floods the
   server has that core to itself, if there is another. The table goes to stdout and, tab-separated,
   to build/bench.txt: row, value, bound, "ok" or "short". Exits with 0 also when a row falls short,
   with 1 when one could not be measured. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1 /* sched_setaffinity */
#endif

#include "bench.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RESULT_FILE "build/bench.txt"
#define TURN_SECONDS 0.2
#define WARM_UP_SECONDS 0.05
#define TURNS_A_CONNECTION 3
#define PATIENCE_SECONDS 30 /* until a child that does not answer is given up */

enum { MAX_TURNS = 99, DEFAULT_TURNS = 15, FLOOD_TURNS = 9 };

enum { PLAIN, TLS, BULK, HANDSHAKES, POLLER, FLOODS, TIMEOUTS, GROUPS };

static const char *const group_names[GROUPS] = {"plain echo", "TLS echo", "TLS bulk", "handshakes",
                                                "poller",     "floods",   "timeouts"};

/* The indices into sides[]. */
enum {
    RAW,
    RAW_AGAIN,
    RAW_POLL,
    PY,
    PY_TIMED,
    BEAR,
    BEAR_AGAIN,
    PY_TLS,
    PY_POLLED,
    BEAR_BULK,
    PY_BULK,
    BEAR_FULL,
    BEAR_RESUMED,
    PY_FULL,
    PY_RESUMED,
    PY_10,
    PY_1000,
    PY_5000,
    EPOLL_10,
    EPOLL_5000,
    POLL_1000,
    QUIET,
    EMPTY,
    WARNINGS,
    TINY,
    RENEGOTIATIONS,
    HELLOS,
    SILENT,
    FLOODED,
    SILENT_CLOSE,
    FLOODED_CLOSE,
    SILENT_CLEANUP,
    FLOODED_CLEANUP,
    SIDES
};

#define FLOOD_FUNCTIONS py_flood_serve, py_flood_open, py_flood_batch, flood_turn

static const side sides[SIDES] = {
    [RAW] = {"read/write", PLAIN, 0, raw_echo_serve, raw_echo_open, raw_echo_batch},
    [RAW_AGAIN] = {"read/write again", PLAIN, 0, raw_echo_serve, raw_echo_open, raw_echo_batch},
    [RAW_POLL] = {"poll, read, write", PLAIN, 1, raw_echo_serve, raw_echo_open, raw_echo_batch},
    [PY] = {"pysock", PLAIN, 0, py_echo_serve, py_echo_open, py_echo_batch},
    [PY_TIMED] = {"pysock with a timeout", PLAIN, 30, py_echo_serve, py_echo_open, py_echo_batch},
    [BEAR] = {"br_sslio", TLS, 0, bear_echo_serve, bear_echo_open, bear_echo_batch},
    [BEAR_AGAIN] = {"br_sslio again", TLS, 0, bear_echo_serve, bear_echo_open, bear_echo_batch},
    [PY_TLS] = {"pysock", TLS, 0, py_tls_serve, py_tls_open, py_echo_batch},
    [PY_POLLED] = {"pysock on a poller", TLS, 0, py_polled_serve, py_polled_open, py_polled_batch},
    [BEAR_BULK] = {"br_sslio", BULK, 0, bear_bulk_serve, bear_bulk_open, bear_bulk_batch},
    [PY_BULK] = {"pysock", BULK, 0, py_bulk_serve, py_tls_open, py_bulk_batch},
    [BEAR_FULL] = {"BearSSL, full", HANDSHAKES, 0, bear_handshake_serve, bear_handshake_open,
                   bear_handshake_batch},
    [BEAR_RESUMED] = {"BearSSL, resumed", HANDSHAKES, 1, bear_handshake_serve, bear_handshake_open,
                      bear_handshake_batch},
    [PY_FULL] = {"pysock, full", HANDSHAKES, 0, py_handshake_serve, py_handshake_open,
                 py_handshake_batch},
    [PY_RESUMED] = {"pysock, resumed", HANDSHAKES, 1, py_handshake_serve, py_handshake_open,
                    py_handshake_batch},
    [PY_10] = {"pysock, 10 idle", POLLER, 10, py_ping_serve, ping_open, ping_batch},
    [PY_1000] = {"pysock, 1,000 idle", POLLER, 1000, py_ping_serve, ping_open, ping_batch},
    [PY_5000] = {"pysock, 5,000 idle", POLLER, 5000, py_ping_serve, ping_open, ping_batch},
    [EPOLL_10] = {"epoll, 10 idle", POLLER, 10, raw_ping_serve, ping_open, ping_batch},
    [EPOLL_5000] = {"epoll, 5,000 idle", POLLER, 5000, raw_ping_serve, ping_open, ping_batch},
    [POLL_1000] = {"poll(2), 1,000 idle", POLLER, -1000, raw_ping_serve, ping_open, ping_batch},
    [QUIET] = {"no flood", FLOODS, FLOOD_NONE, FLOOD_FUNCTIONS},
    [EMPTY] = {"empty records", FLOODS, FLOOD_EMPTY, FLOOD_FUNCTIONS},
    [WARNINGS] = {"warnings", FLOODS, FLOOD_WARNINGS, FLOOD_FUNCTIONS},
    [TINY] = {"tiny records", FLOODS, FLOOD_TINY, FLOOD_FUNCTIONS},
    [RENEGOTIATIONS] = {"renegotiations", FLOODS, FLOOD_RENEGOTIATIONS, FLOOD_FUNCTIONS},
    [HELLOS] = {"hellos", FLOODS, FLOOD_HELLOS, FLOOD_FUNCTIONS},
    [SILENT] = {"no answer", TIMEOUTS, 0, flood_serve, py_timeout_open, py_timeout_batch, NULL},
    [FLOODED] = {"a flood", TIMEOUTS, 1, flood_serve, py_timeout_open, py_timeout_batch, NULL},
    [SILENT_CLOSE] = {"close, no answer", TIMEOUTS, 0, flood_serve, py_timeout_open, py_close_batch,
                      NULL},
    [FLOODED_CLOSE] = {"close, a flood", TIMEOUTS, 1, flood_serve, py_timeout_open, py_close_batch,
                       NULL},
    [SILENT_CLEANUP] = {"cleanup, no answer", TIMEOUTS, 0, flood_serve, py_timeout_open,
                        py_cleanup_batch, NULL},
    [FLOODED_CLEANUP] = {"cleanup, a flood", TIMEOUTS, 1, flood_serve, py_timeout_open,
                         py_cleanup_batch, NULL},
};

typedef enum bound_kind {
    TIME_AT_MOST,  /* times the other side's time */
    RATE_AT_LEAST, /* times the other side's rate */
    NO_THREADS,    /* threads that the two sides started */
    TIME_FOR_SCALE,
    RATE_FOR_SCALE
} bound_kind;

typedef struct row {
    const char *name;
    const char *text;
    int one, other; /* sides */
    bound_kind kind;
    double bound;
} row;

static const row rows[] = {
    {"plain-echo", "plain echo, 64 bytes, against a read/write loop", PY, RAW, TIME_AT_MOST, 1.06},
    {"plain-echo-timeout", "plain echo with a timeout, against a read/write loop", PY_TIMED, RAW,
     TIME_AT_MOST, 1.20},
    {"tls-echo", "TLS echo, 64 bytes, blocking, against a br_sslio loop", PY_TLS, BEAR,
     TIME_AT_MOST, 1.06},
    {"tls-echo-poller", "TLS echo, non-blocking on a poller, against the same", PY_POLLED, BEAR,
     TIME_AT_MOST, 1.35},
    {"tls-bulk", "TLS bulk, one way, AES-128-GCM, throughput of br_sslio's", PY_BULK, BEAR_BULK,
     RATE_AT_LEAST, 0.97},
    {"full-handshakes", "full handshakes, blocking, rate of hand-written BearSSL's", PY_FULL,
     BEAR_FULL, RATE_AT_LEAST, 0.95},
    {"resumed-handshakes", "resumed handshakes, rate of full ones'", PY_RESUMED, PY_FULL,
     RATE_AT_LEAST, 5.5},
    {"poller-1000", "one ready among 1,000 idle on a poller, against 10", PY_1000, PY_10,
     TIME_AT_MOST, 1.3},
    {"poller-5000", "one ready among 5,000 idle on a poller, against 10", PY_5000, PY_10,
     TIME_AT_MOST, 1.3},
    {"flood-empty", "handshake during a flood of empty records, against none", EMPTY, QUIET,
     TIME_AT_MOST, 2.0},
    {"flood-warnings", "handshake during a flood of warning alerts, against none", WARNINGS, QUIET,
     TIME_AT_MOST, 2.0},
    {"flood-tiny", "handshake during a flood of tiny records, against none", TINY, QUIET,
     TIME_AT_MOST, 2.0},
    {"flood-renegotiations", "handshake while a peer asks for renegotiation, against none",
     RENEGOTIATIONS, QUIET, TIME_AT_MOST, 2.0},
    {"flood-hellos", "handshake during a flood of hellos, against none", HELLOS, QUIET,
     TIME_AT_MOST, 2.0},
    {"flood-deadline", "a handshake that times out during a flood, against silence", FLOODED,
     SILENT, TIME_AT_MOST, 1.1},
    {"flood-close", "a handshake that another thread closes during a flood, against silence",
     FLOODED_CLOSE, SILENT_CLOSE, TIME_AT_MOST, 1.1},
    {"flood-cleanup", "a handshake that a cleanup ends during a flood, against silence",
     FLOODED_CLEANUP, SILENT_CLEANUP, TIME_AT_MOST, 1.1},
    {"threads", "threads started by plain and by blocking TLS sockets", PY, PY_TLS, NO_THREADS, 0},
    {"scale-plain", "a read/write loop against itself", RAW_AGAIN, RAW, TIME_FOR_SCALE, 0},
    {"scale-tls", "a br_sslio loop against itself", BEAR_AGAIN, BEAR, TIME_FOR_SCALE, 0},
    {"scale-poll-read", "poll, read and write against read and write", RAW_POLL, RAW,
     TIME_FOR_SCALE, 0},
    {"scale-resumed", "hand-written BearSSL, rate of resumed handshakes to full", BEAR_RESUMED,
     BEAR_FULL, RATE_FOR_SCALE, 0},
    {"scale-poller", "pysock's poller against epoll, both among 10 idle", PY_10, EPOLL_10,
     TIME_FOR_SCALE, 0},
    {"scale-epoll-5000", "epoll among 5,000 idle against epoll among 10", EPOLL_5000, EPOLL_10,
     TIME_FOR_SCALE, 0},
    {"scale-poll-1000", "poll(2) among 1,000 idle against epoll among 10", POLL_1000, EPOLL_10,
     TIME_FOR_SCALE, 0},
};

enum { ROWS = sizeof rows / sizeof rows[0] };

/* A process and the parent's end of the socket pair to it. */
typedef struct child {
    pid_t pid;
    int control;
} child;

typedef struct run {
    int wanted, broken;
    child server, client;
    double seconds[MAX_TURNS]; /* an operation's time in each turn */
    int threads;               /* the most that were seen beside the processes' own */
} run;

static run runs[SIDES];
static int turns = DEFAULT_TURNS;
static const char *only_row; /* NULL for all */

/* ---- in the children ---- */

static int parent = -1; /* a child's end of the socket pair */
static const char *my_name = "set-up";

void die(const char *format, ...)
{
    va_list args;

    fprintf(stderr, "bench: %s: ", my_name);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    _exit(1);
}

void tell(double answer)
{
    if (write(parent, &answer, sizeof answer) != (ssize_t)sizeof answer)
        _exit(1);
}

double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double take_turn(const side *sd, double seconds)
{
    double start = now(), end;
    long done = 0;

    do {
        done += sd->batch();
        end = now();
    } while (end - start < seconds);
    return (end - start) / (double)done;
}

static double take_whole_turn(const side *sd, double seconds)
{
    double answer;

    if (sd->turn)
        sd->turn(1);
    answer = take_turn(sd, seconds);
    if (sd->turn)
        sd->turn(0);
    return answer;
}

static void be_client(const side *sd, int port)
{
    double seconds;

    sd->open(sd->arg, port);
    tell(0);
    while (read(parent, &seconds, sizeof seconds) == (ssize_t)sizeof seconds)
        tell(take_whole_turn(sd, seconds));
}

/* ---- processes ---- */

/* A client connects to port; port 0 makes a server. */
static child start_child(const side *sd, int port)
{
    int pair[2];
    child c;

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0 || (c.pid = fork()) < 0)
        die("cannot start a process: %s", strerror(errno));
    if (c.pid > 0) {
        close(pair[1]);
        c.control = pair[0];
        return c;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(pair[0]);
    parent = pair[1];
    my_name = sd->name;
    if (port)
        be_client(sd, port);
    else
        sd->serve(sd->arg);
    _exit(0);
}

/* The child's next answer in *answer; 0 if it died or says nothing. */
static int hear(const child *c, double *answer)
{
    struct pollfd p = {c->control, POLLIN, 0};

    return poll(&p, 1, PATIENCE_SECONDS * 1000) == 1
           && read(c->control, answer, sizeof *answer) == (ssize_t)sizeof *answer;
}

static int ask(const child *c, double question, double *answer)
{
    return send(c->control, &question, sizeof question, MSG_NOSIGNAL) == (ssize_t)sizeof question
           && hear(c, answer);
}

static void end_child(child *c)
{
    if (c->pid <= 0)
        return;
    kill(c->pid, SIGKILL);
    waitpid(c->pid, NULL, 0);
    close(c->control);
    c->pid = 0;
}

/* The server first: it would report its client's death. */
static void end_side(run *r)
{
    end_child(&r->server);
    end_child(&r->client);
}

static void give_up(int index, const char *where)
{
    fprintf(stderr, "bench: %s, %s: no answer %s\n", group_names[sides[index].group],
            sides[index].name, where);
    runs[index].broken = 1;
    end_side(&runs[index]);
}

static int threads_beside_the_first(pid_t pid)
{
    char path[64];
    struct dirent *entry;
    int n = 0;
    DIR *d;

    snprintf(path, sizeof path, "/proc/%ld/task", (long)pid);
    d = opendir(path);
    if (!d)
        return 0;
    while ((entry = readdir(d)) != NULL)
        n += entry->d_name[0] != '.';
    closedir(d);
    return n > 1 ? n - 1 : 0;
}

static void count_threads(run *r)
{
    int n = threads_beside_the_first(r->server.pid) + threads_beside_the_first(r->client.pid);

    if (n > r->threads)
        r->threads = n;
}

/* ---- turns ---- */

static void start_side(int index)
{
    const side *sd = &sides[index];
    run *r = &runs[index];
    double port, ignored;

    r->server = start_child(sd, 0);
    if (!hear(&r->server, &port)) {
        give_up(index, "from the server");
        return;
    }
    r->client = start_child(sd, (int)port);
    if (!hear(&r->client, &ignored)) {
        give_up(index, "from the client");
        return;
    }
    if (!ask(&r->client, WARM_UP_SECONDS, &ignored))
        give_up(index, "to the first turn");
}

/* A flood's ratios are large: fewer turns do. */
static int turns_of(int group)
{
    return (group == FLOODS || group == TIMEOUTS) && turns > FLOOD_TURNS ? FLOOD_TURNS : turns;
}

static int takes_part(int index, int group)
{
    return sides[index].group == group && runs[index].wanted && !runs[index].broken;
}

static void play_turn(int index, int turn)
{
    run *r = &runs[index];

    if (!ask(&r->client, TURN_SECONDS, &r->seconds[turn]))
        give_up(index, "to a turn");
    else
        count_threads(r);
}

static int group_size(int group)
{
    int i, n = 0;

    for (i = 0; i < SIDES; i++)
        n += takes_part(i, group);
    return n;
}

static void end_sides(int group)
{
    int i;

    for (i = 0; i < SIDES; i++)
        if (sides[i].group == group)
            end_side(&runs[i]);
}

/* New processes and a new connection: some are faster than others for as long as they last. */
static void restart_sides(int group)
{
    int i;

    end_sides(group);
    for (i = 0; i < SIDES; i++)
        if (takes_part(i, group))
            start_side(i);
}

static void play_group(int group)
{
    int i, index, turn;

    if (group_size(group) == 0)
        return;
    fprintf(stderr, "%s: %d sides, %d turns each\n", group_names[group], group_size(group),
            turns_of(group));
    for (turn = 0; turn < turns_of(group); turn++) {
        if (turn % TURNS_A_CONNECTION == 0)
            restart_sides(group);
        for (i = 0; i < SIDES; i++) {
            index = turn % 2 ? SIDES - 1 - i : i;
            if (takes_part(index, group))
                play_turn(index, turn);
        }
    }
    end_sides(group);
}

/* ---- results ---- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(const double *values, int n)
{
    double sorted[MAX_TURNS];

    memcpy(sorted, values, (size_t)n * sizeof *values);
    qsort(sorted, (size_t)n, sizeof *sorted, compare);
    return (sorted[n / 2] + sorted[(n - 1) / 2]) / 2;
}

static int is_rate(const row *w)
{
    return w->kind == RATE_AT_LEAST || w->kind == RATE_FOR_SCALE;
}

static int is_for_scale(const row *w)
{
    return w->kind == TIME_FOR_SCALE || w->kind == RATE_FOR_SCALE;
}

static double value_of(const row *w)
{
    const double *one = runs[w->one].seconds, *other = runs[w->other].seconds;
    double ratios[MAX_TURNS];
    int i, n = turns_of(sides[w->one].group);

    if (w->kind == NO_THREADS)
        return runs[w->one].threads + runs[w->other].threads;
    for (i = 0; i < n; i++)
        ratios[i] = is_rate(w) ? other[i] / one[i] : one[i] / other[i];
    return median(ratios, n);
}

static int is_reached(const row *w, double value)
{
    return w->kind == RATE_AT_LEAST ? value >= w->bound : value <= w->bound;
}

static void format_row(const row *w, char *value, char *bound, size_t size)
{
    int digits = w->kind == NO_THREADS ? 0 : 3;

    snprintf(value, size, "%.*f", digits, value_of(w));
    if (w->kind == NO_THREADS)
        snprintf(bound, size, "%.0f", w->bound);
    else
        snprintf(bound, size, "%s%.2f", w->kind == RATE_AT_LEAST ? ">=" : "<=", w->bound);
}

static int is_selected(const row *w)
{
    return !only_row || !strcmp(only_row, w->name);
}

/* Returns how many rows could not be measured. */
static int report_rows(FILE *f)
{
    char value[32], bound[32];
    const char *verdict;
    const row *w;
    int broken = 0;

    printf("\n%-20s %9s  %-7s %-6s %s\n", "row", "value", "bound", "", "what");
    for (w = rows; w < rows + ROWS; w++) {
        if (!is_selected(w))
            continue;
        if (runs[w->one].broken || runs[w->other].broken) {
            printf("%-20s %9s  %-7s %-6s %s\n", w->name, "-", "", "broken", w->text);
            broken++;
            continue;
        }
        format_row(w, value, bound, sizeof value);
        if (is_for_scale(w)) {
            printf("%-20s %9s  %-7s %-6s %s\n", w->name, value, "", "", w->text);
            continue;
        }
        verdict = is_reached(w, value_of(w)) ? "ok" : "short";
        printf("%-20s %9s  %-7s %-6s %s\n", w->name, value, bound, verdict, w->text);
        fprintf(f, "%s\t%s\t%s\t%s\n", w->name, value, bound, verdict);
    }
    return broken;
}

/* What the ratios are made of; it depends on the machine and on the minute. */
static void report_sides(void)
{
    double seconds;
    int i;

    printf("\nmedians of the turns:\n");
    for (i = 0; i < SIDES; i++) {
        if (!runs[i].wanted || runs[i].broken)
            continue;
        seconds = median(runs[i].seconds, turns_of(sides[i].group));
        printf("  %-10s  %-22s ", group_names[sides[i].group], sides[i].name);
        if (sides[i].group == BULK)
            printf("%8.0f MB/s\n", BULK_WRITE / seconds / 1e6);
        else if (sides[i].group == HANDSHAKES)
            printf("%8.0f /s\n", 1 / seconds);
        else
            printf("%8.2f us\n", seconds * 1e6);
    }
}

/* ---- the run ---- */

static void usage(void)
{
    size_t i;

    fprintf(stderr, "usage: bench [--row NAME] [--turns N]\nrows:\n");
    for (i = 0; i < ROWS; i++)
        fprintf(stderr, "  %-20s %s\n", rows[i].name, rows[i].text);
    exit(2);
}

static int is_row(const char *name)
{
    size_t i;

    for (i = 0; i < ROWS; i++)
        if (!strcmp(rows[i].name, name))
            return 1;
    return 0;
}

static void read_options(int argc, char **argv)
{
    int i;

    for (i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--row") && is_row(argv[i + 1]))
            only_row = argv[i + 1];
        else if (!strcmp(argv[i], "--turns"))
            turns = atoi(argv[i + 1]);
        else
            usage();
    }
    if (i != argc || turns < 1 || turns > MAX_TURNS)
        usage();
}

static cpu_set_t pinned;  /* the one that it and its children use */
static cpu_set_t allowed; /* the cores that this process might use at first */

void leave_the_core(void)
{
    cpu_set_t others = allowed;
    size_t core;

    for (core = 0; core < CPU_SETSIZE; core++)
        if (CPU_ISSET(core, &pinned))
            CPU_CLR(core, &others);
    if (CPU_COUNT(&others) > 0 && sched_setaffinity(0, sizeof others, &others) < 0)
        die("sched_setaffinity: %s", strerror(errno));
}

/* The last core that this process may use: interrupts tend to go to the first. Children inherit
   it. */
static void pin_to_one_core(void)
{
    size_t core = CPU_SETSIZE - 1;

    if (sched_getaffinity(0, sizeof allowed, &allowed) < 0)
        die("sched_getaffinity: %s", strerror(errno));
    while (core > 0 && !CPU_ISSET(core, &allowed))
        core--;
    CPU_ZERO(&pinned);
    CPU_SET(core, &pinned);
    if (sched_setaffinity(0, sizeof pinned, &pinned) < 0)
        die("sched_setaffinity: %s", strerror(errno));
}

static void allow_descriptors(rlim_t wanted)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        die("getrlimit: %s", strerror(errno));
    if (limit.rlim_cur >= wanted)
        return;
    limit.rlim_cur = wanted;
    if (limit.rlim_max < wanted)
        limit.rlim_max = wanted;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        die("%ld descriptors are needed: %s", (long)wanted, strerror(errno));
}

static void choose_sides(void)
{
    size_t i;

    for (i = 0; i < ROWS; i++)
        if (is_selected(&rows[i]))
            runs[rows[i].one].wanted = runs[rows[i].other].wanted = 1;
}

int main(int argc, char **argv)
{
    int group, broken;
    FILE *f;

    read_options(argc, argv);
    choose_sides();
    pin_to_one_core();
    allow_descriptors(6000);
    signal(SIGPIPE, SIG_IGN);
    mkdir("build", 0777);
    f = fopen(RESULT_FILE, "w");
    if (!f)
        die("%s: %s", RESULT_FILE, strerror(errno));
    for (group = 0; group < GROUPS; group++)
        play_group(group);
    broken = report_rows(f);
    report_sides();
    if (fclose(f) != 0)
        die("%s: %s", RESULT_FILE, strerror(errno));
    return broken ? 1 : 0;
}
