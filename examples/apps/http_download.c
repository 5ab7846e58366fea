/*
http_download: downloads a URL to a file, with a progress bar, and can resume a download.

cc -I. examples/apps/http_download.c -o http_download -lbearssl -lpthread

./http_download https://example.org/big.iso
./http_download -c -o copy.iso --cacert ca.pem https://localhost:8443/big.iso

pysock_makefile() makes a file of the socket: the head of the response is read by lines, the body in
pieces, from one buffer. Data is written to NAME.part, which is renamed to NAME once it is complete
and on the disk, so NAME is never half a file. NAME.part gets the server's Last-Modified as its own
time; with that, -c (Range, If-Range) resumes only if the file is still the same.
Exit status: 0 the file is there, 1 something failed, 2 wrong usage, 3 the server replied with a
status of 400 or above.
*/
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#define CLI_PROGRAM "http_download"
#include "cli.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_TIMEOUT 30.0 /* seconds that the server may be silent, unless -t is given */

enum { MAX_REDIRECTS = 10, MAX_PATH = 4096, BAR = 30 /* columns */ };

typedef struct options {
    const char *url, *output, *cacert;
    bool resume, quiet;
    double timeout;
} options;

/* A Content-Range: where the body belongs, and how long the whole file is. */
typedef struct range {
    bool has_total;
    uint64_t start, total;
} range;

typedef struct download {
    options opt;
    cli_url u;
    pysock_ssl_context *tls; /* made for the first https URL */
    cli_http http;

    char name[MAX_PATH], part[MAX_PATH + 8];
    int fd; /* of the part; -1 */
    uint64_t have, begun_with;
    time_t changed; /* of the part, as far as it is known */
    bool complete;

    bool has_total;
    uint64_t total;
    double started, shown;
    bool bar;
} download;

/* Every step below that can fail returns NULL, or an error message. */

static const char *explain_file(const char *doing, const char *path)
{
    return cli_explain("cannot %s %.300s: %s", doing, path, strerror(errno));
}

/* The last part of the path, or index.html. */
static const char *name_after(const cli_url *u, char *name, size_t size)
{
    size_t end = strcspn(u->target, "?"), begin = end;

    while (begin > 0 && u->target[begin - 1] != '/')
        begin--;
    if ((size_t)snprintf(name, size, "%.*s", (int)(end - begin), u->target + begin) >= size)
        return "the file's name would be too long; give one with -o";
    if (name[0] == '\0')
        snprintf(name, size, "index.html");
    return NULL;
}

/* ---- progress ---- */

/* Only on a terminal, ten times a second. */
static void show_progress(download *d, bool last)
{
    double t = cli_now(), seconds = t - d->started > 1e-3 ? t - d->started : 1e-3;
    double rate = (double)(d->have - d->begun_with) / seconds;
    char have[32], total[32], speed[32], filled[BAR + 1];

    if (!d->bar || (!last && t - d->shown < 0.1))
        return;
    d->shown = t;
    cli_format_bytes((double)d->have, have, sizeof have);
    cli_format_bytes((double)d->total, total, sizeof total);
    cli_format_bytes(rate, speed, sizeof speed);
    if (d->has_total && d->total > 0) {
        double part = (double)d->have / (double)d->total;
        int columns = part < 1 ? (int)(part * BAR) : BAR;
        memset(filled, '#', BAR);
        filled[BAR] = '\0';
        fprintf(stderr, "\r\033[K[%-*.*s] %3.0f%%  %s of %s  %s/s", BAR, columns, filled,
                100 * part, have, total, speed);
        if (!last && rate > 0 && d->have < d->total)
            fprintf(stderr, "  %.0f s", (double)(d->total - d->have) / rate);
    } else {
        fprintf(stderr, "\r\033[K%s  %s/s", have, speed);
    }
    fputs(last ? "\n" : "", stderr);
}

/* ---- the file ---- */

/* Opens NAME.part, locked, and finds out how much of it there is. */
static const char *open_part(download *d)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    struct stat st;

    if (stat(d->name, &st) == 0 && S_ISDIR(st.st_mode))
        return cli_explain("%.300s is a directory", d->name);
    d->fd = open(d->part, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (d->fd < 0 || fstat(d->fd, &st) < 0)
        return explain_file("open", d->part);
    if (fcntl(d->fd, F_SETLK, &lock) < 0 && (errno == EACCES || errno == EAGAIN))
        return cli_explain("%.300s is being downloaded by another program", d->name);
    if (!S_ISREG(st.st_mode))
        return cli_explain("%.300s is not a regular file", d->part);
    if (d->opt.resume && st.st_size > 0) {
        d->have = (uint64_t)st.st_size;
        d->changed = st.st_mtime;
    }
    return NULL;
}

/* The body begins at that byte of the file: drops what follows it. */
static const char *position_part(download *d, uint64_t start)
{
    d->have = d->begun_with = start;
    if (ftruncate(d->fd, (off_t)start) < 0 || lseek(d->fd, (off_t)start, SEEK_SET) < 0)
        return explain_file("write", d->part);
    return NULL;
}

static const char *write_part(void *arg, const char *data, size_t size)
{
    download *d = arg;

    while (size > 0) {
        if (cli_stopping)
            return "interrupted";
        ssize_t n = write(d->fd, data, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return explain_file("write", d->part);
        data += n;
        size -= (size_t)n;
        d->have += (uint64_t)n;
    }
    show_progress(d, false);
    return NULL;
}

/* Sets the server's Last-Modified, for the next -c and for the user. */
static void stamp_part(download *d)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = d->changed}};

    if (d->changed > 0)
        futimens(d->fd, times);
}

/* The file is complete: first syncs it to the disk, then renames it. */
static const char *finish_part(download *d)
{
    stamp_part(d);
    if (fsync(d->fd) < 0)
        return explain_file("write", d->part);
    if (rename(d->part, d->name) < 0)
        return cli_explain("cannot rename %.200s to %.200s: %s", d->part, d->name, strerror(errno));
    d->complete = true;
    return NULL;
}

/* Keeps an incomplete file for -c, unless it is empty. */
static void close_part(download *d)
{
    struct stat st;

    if (d->fd < 0)
        return;
    if (!d->complete && fstat(d->fd, &st) == 0 && st.st_size == 0)
        unlink(d->part);
    else if (!d->complete && d->have > 0)
        stamp_part(d);
    close(d->fd);
    d->fd = -1;
}

/* ---- what the response says about the file ---- */

/* "bytes 100-199/200"; a star is an unknown total or, in a 416, the range. */
static const char *parse_range(const char *text, range *r)
{
    const char *const wrong = "the server sent an invalid Content-Range";
    uint64_t last = 0;
    bool none = strncasecmp(text, "bytes *", 7) == 0;

    *r = (range){.start = 0};
    if (text[0] == '\0')
        return NULL;
    if (strncasecmp(text, "bytes ", 6) != 0)
        return wrong;
    text += none ? 7 : 6;
    if (!none && (!cli_take_digits(&text, &r->start) || *text++ != '-' ||
                  !cli_take_digits(&text, &last) || last < r->start))
        return wrong;
    if (*text++ != '/')
        return wrong;
    if (strcmp(text, "*") == 0)
        return NULL;
    if (!cli_take_digits(&text, &r->total) || *text || (!none && r->total <= last))
        return wrong;
    r->has_total = true;
    return NULL;
}

/* "Sun, 06 Nov 1994 08:49:37 GMT"; 0 for anything else. */
static time_t parse_date(const char *text)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    char month[4];
    int day, year, hour, minute, second;

    if (sscanf(text, "%*3s, %2d %3s %4d %2d:%2d:%2d GMT", &day, month, &year, &hour, &minute,
               &second) != 6 ||
        year < 1970)
        return 0;
    const char *found = strstr(months, month);
    if (!found || strlen(month) != 3 || (found - months) % 3 != 0)
        return 0;
    struct tm tm = {.tm_mday = day,
                    .tm_mon = (int)(found - months) / 3,
                    .tm_year = year - 1900,
                    .tm_hour = hour,
                    .tm_min = minute,
                    .tm_sec = second};
    return timegm(&tm);
}

static void format_date(time_t t, char *text, size_t size)
{
    static const char *const days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                         "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    struct tm tm;

    gmtime_r(&t, &tm);
    snprintf(text, size, "%s, %02d %s %04d %02d:%02d:%02d GMT", days[tm.tm_wday], tm.tm_mday,
             months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

/* ---- one request ---- */

static const char *copy_body(download *d, const cli_response *r, const range *at)
{
    const char *why;

    d->has_total = at->has_total || (r->has_length && !r->chunked);
    d->total = at->has_total ? at->total : d->have + r->length;
    d->started = d->shown = cli_now();
    why = cli_http_copy_body(&d->http, r, write_part, d);
    show_progress(d, true);

    if (!why && d->has_total && d->have != d->total)
        why = cli_explain("the server sent %" PRIu64 " bytes of %" PRIu64 ", and calls that all",
                          d->have, d->total);
    return why ? why : finish_part(d);
}

static const char *connect_to_server(download *d)
{
    if (d->u.tls && !d->tls)
        d->tls = cli_client_context(d->opt.cacert, false, NULL, NULL);
    if (d->u.tls && !d->tls)
        return cli_explain_network();
    return cli_http_open(&d->http, &d->u, d->tls, d->opt.timeout);
}

static const char *send_request(download *d)
{
    char extra[160] = "", date[64];

    format_date(d->changed, date, sizeof date);
    if (d->have > 0)
        snprintf(extra, sizeof extra, "Range: bytes=%" PRIu64 "-\r\nIf-Range: %s\r\n", d->have,
                 date);
    return cli_http_ask(&d->http, &d->u, extra);
}

/* What the response means for the part that we have. *again: send another request. */
static const char *take_answer(download *d, const cli_response *r, bool *again)
{
    range at;
    const char *why = parse_range(r->content_range, &at);

    if (why)
        return why;
    if (cli_is_redirect(r)) {
        cli_url to;
        *again = true;
        why = cli_follow(&d->u, r->location, &to);
        if (!why)
            d->u = to;
        return why;
    }
    if (r->status == 416 && d->have > 0) { /* there is no more: we have all of it, or too much */
        if (at.has_total && at.total == d->have)
            return finish_part(d);
        *again = true;
        return position_part(d, 0);
    }
    if (r->status >= 400)
        return NULL;
    if (r->status != 200 && r->status != 206)
        return cli_explain("the server answered with status %d, which has no file", r->status);
    if (r->status == 206 && (at.start != d->have || d->have == 0))
        return "the server sent another part of the file than the one asked for";

    why = position_part(d, r->status == 206 ? d->have : 0);
    d->changed = parse_date(r->last_modified);
    return why ? why : copy_body(d, r, &at);
}

static const char *ask_once(download *d, cli_response *r, bool *again)
{
    const char *why = connect_to_server(d);

    if (!why)
        why = send_request(d);
    if (!why)
        why = cli_http_read_head(&d->http, r);
    *again = false;
    if (!why)
        why = take_answer(d, r, again);
    cli_http_close(&d->http);
    return why;
}

static int run(download *d)
{
    cli_response r = {.status = 0};
    bool again = true;
    const char *why = open_part(d);

    for (int i = 0; again && !why; i++)
        why = i > MAX_REDIRECTS ? "too many redirects" : ask_once(d, &r, &again);
    if (why) {
        fputs("http_download: ", stderr);
        cli_put_clean(stderr, why, strlen(why));
        fputs(d->have > 0 && d->changed > 0 ? "; -c goes on from here\n" : "\n", stderr);
    } else if (!d->complete) {
        fprintf(stderr, "http_download: the server answered %d ", r.status);
        cli_print_clean("", r.reason);
    }
    close_part(d);
    if (d->complete)
        return 0;
    return why ? 1 : 3;
}

/* ---- the command line ---- */

static const char usage[] =
    "usage: http_download [-c] [-q] [-o NAME] [-t SECONDS] [--cacert FILE] URL\n"
    "  URL            http://host[:port][/path] or https://...\n"
    "  -o NAME        the file to write; otherwise the last part of the URL's path\n"
    "  -c             resume NAME.part, which an earlier attempt has left\n"
    "  -q             no progress bar (there is none either if stderr is no terminal)\n"
    "  -t SECONDS     how long the server may be silent (30)\n"
    "  --cacert FILE  trust the certificates in this PEM file, not the system's\n"
    "Exit status: 0 done, 1 failure, 2 wrong usage, 3 the server has no such file\n";

static void parse_options(options *opt, int argc, char **argv)
{
    const cli_option table[] = {
        {"-c", .flag = &opt->resume},       {"-q", .flag = &opt->quiet},
        {"-o", .text = &opt->output},       {"-t", .seconds = &opt->timeout},
        {"--cacert", .text = &opt->cacert}, {.name = NULL}};

    if (cli_parse(argc, argv, table, &opt->url, 1, usage) == 0 || (opt->output && !opt->output[0]))
        cli_wrong_usage(usage);
}

static const char *choose_names(download *d)
{
    const char *why = NULL;

    if (!d->opt.output)
        why = name_after(&d->u, d->name, sizeof d->name);
    else if ((size_t)snprintf(d->name, sizeof d->name, "%s", d->opt.output) >= sizeof d->name)
        why = "the file's name is too long";
    snprintf(d->part, sizeof d->part, "%s.part", d->name);
    return why;
}

int main(int argc, char **argv)
{
    static download d; /* zeroed, and large for a stack */

    d.opt.timeout = READ_TIMEOUT;
    d.fd = -1;
    parse_options(&d.opt, argc, argv);
    const char *why = cli_parse_url(d.opt.url, &d.u);
    if (!why)
        why = choose_names(&d);
    if (why) {
        cli_complain("bad URL: %s", why);
        return 2;
    }

    d.bar = !d.opt.quiet && isatty(STDERR_FILENO);
    cli_stop_on_signals();
    int status = run(&d);
    pysock_ssl_context_release(d.tls);
    return status;
}
