/*
http_download: downloads a URL to a file, with a progress bar, and goes on where it was broken off.

cc -I. examples/apps/http_download.c -o http_download -lbearssl -lpthread

./http_download https://example.org/big.iso
./http_download -c -o copy.iso --cacert ca.pem https://localhost:8443/big.iso

A socket becomes a file by pysock_makefile(): the head of the answer is read by lines, the body in
pieces, from one buffer. What arrives is written to NAME.part, which is renamed to NAME when all is
there and on the disk: under NAME there never is half a file. NAME.part has the server's time of
change as its own; by that -c (Range, If-Range) goes on only with the file that it began with.
Exit status: 0 the file is there, 1 something failed, 2 wrong usage, 3 the server answered with a
status of 400 or above.
*/
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CONNECT_TIMEOUT 15.0 /* seconds for the connection, and again for its handshake */
#define READ_TIMEOUT 30.0    /* seconds that the server may be silent, unless -t says another */

#define HOST_CHARACTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._"

enum {
    MAX_REDIRECTS = 10,
    MAX_URL = 4096,
    MAX_LINE = 8192,
    MAX_HEADERS = 256,
    MAX_PATH = 4096,
    BAR = 30 /* columns */
};

typedef struct options {
    const char *url, *output, *cacert;
    bool resume, quiet;
    double timeout;
} options;

typedef struct url {
    bool tls;
    int port;
    char host[256];       /* without the brackets of an IPv6 address */
    char target[MAX_URL]; /* path and query, as in the request line */
} url;

typedef struct response {
    int status;
    char reason[128], location[MAX_URL];
    bool chunked, has_length, has_range;
    uint64_t length;
    uint64_t range_start; /* where the body belongs; of a 206 */
    uint64_t total;       /* of the whole file: a Content-Range says so */
    time_t changed;       /* 0: the server does not say */
} response;

typedef struct download {
    options opt;
    url u;
    pysock_ssl_context *tls; /* made when the first https URL comes */
    pysock *s;
    pysock_file *in; /* what pysock_makefile() made of s */

    char name[MAX_PATH], part[MAX_PATH + 8];
    int fd; /* of the part; -1 */
    uint64_t have, begun_with;
    time_t changed; /* of the part, as far as it is known */
    bool complete;

    bool has_total;
    uint64_t total;
    double started, shown;
    bool bar;
    char why[512];
} download;

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

/* Lets a signal end a call that waits, which would otherwise go on, as in Python. */
static int is_interrupted(void *arg)
{
    (void)arg;
    return interrupted;
}

/* Every step below that can fail returns NULL, or a sentence that says what went wrong. */

__attribute__((format(printf, 2, 3)))
static const char *explain(download *d, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(d->why, sizeof d->why, format, args);
    va_end(args);
    return d->why;
}

static const char *explain_network(void)
{
    return interrupted ? "interrupted" : pysock_error_message();
}

static const char *explain_file(download *d, const char *doing, const char *path)
{
    return explain(d, "cannot %s %.300s: %s", doing, path, strerror(errno));
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* What a server says goes to a terminal only without its control characters. */
static void print_clean(const char *text)
{
    for (; *text; text++)
        fputc((unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text, stderr);
}

/* ---- URLs (RFC 3986) ---- */

static const char *parse_port(const char *text, size_t n, int *port)
{
    int value = 0;

    if (n == 0)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9' || value > 65535)
            return "the port is not a number";
        value = value * 10 + (text[i] - '0');
    }
    if (value < 1 || value > 65535)
        return "the port is not a number from 1 to 65535";
    *port = value;
    return NULL;
}

/* text, n: "host", "host:port", "[IPv6]" or "[IPv6]:port". */
static const char *parse_authority(const char *text, size_t n, url *u)
{
    bool bracket = n > 0 && text[0] == '[';
    const char *end = text + n, *host = text + bracket, *after;

    after = memchr(text, bracket ? ']' : ':', n);
    if (!after && bracket)
        return "the ] after the IPv6 address is missing";
    if (!after)
        after = end;

    size_t length = (size_t)(after - host);
    if (memchr(text, '@', n))
        return "a user name in a URL is not supported";
    if (length == 0)
        return "the host name is missing";
    if (length >= sizeof u->host)
        return "the host name is too long";
    memcpy(u->host, host, length);
    u->host[length] = '\0';
    if (u->host[strspn(u->host, bracket ? "0123456789abcdefABCDEF:." : HOST_CHARACTERS)] != '\0')
        return "the host name has a character that cannot be in one";

    after += bracket;
    if (after < end && *after != ':')
        return "the host name is followed by something that is not a port";
    return after < end ? parse_port(after + 1, (size_t)(end - after - 1), &u->port) : NULL;
}

/* "/a/./b/../c?d" becomes "/a/c?d". */
static void remove_dot_segments(char *target)
{
    char *in = target, *out = target, *query = target + strcspn(target, "?");

    while (in < query) {
        size_t n = 1 + strcspn(in + 1, "/?");
        bool dot = n == 2 && in[1] == '.', dots = n == 3 && in[1] == '.' && in[2] == '.';

        if (!dot && !dots) {
            memmove(out, in, n);
            out += n;
        }
        while (dots && out > target && *--out != '/')
            continue;
        if ((dot || dots) && in + n == query)
            *out++ = '/';
        in += n;
    }
    memmove(out, query, strlen(query) + 1);
}

static const char *parse_url(const char *text, url *u)
{
    bool tls = strncasecmp(text, "https://", 8) == 0;

    if (!tls && strncasecmp(text, "http://", 7) != 0)
        return "only http:// and https:// are supported";
    text += tls ? 8 : 7;
    *u = (url){.tls = tls, .port = tls ? 443 : 80};

    size_t authority = strcspn(text, "/?#"), target = strcspn(text + authority, "#");
    const char *slash = text[authority] == '/' ? "" : "/";
    for (size_t i = authority; i < authority + target; i++)
        if ((unsigned char)text[i] <= ' ' || (unsigned char)text[i] >= 0x7f)
            return "a space, or another character that must be percent-encoded, is in the path";
    if ((size_t)snprintf(u->target, sizeof u->target, "%s%.*s", slash, (int)target,
                         text + authority) >= sizeof u->target)
        return "the URL is too long";
    remove_dot_segments(u->target);
    return parse_authority(text, authority, u);
}

/* "host", "host:port", "[IPv6]:port": as it is written in a URL and in the Host header. */
static void format_authority(const url *u, char *text, size_t size)
{
    int n = snprintf(text, size, strchr(u->host, ':') ? "[%s]" : "%s", u->host);

    if (u->port != (u->tls ? 443 : 80))
        snprintf(text + n, size - (size_t)n, ":%d", u->port);
}

/* Where a redirect, which may be relative, leads. */
static const char *resolve_url(const url *base, const char *location, url *to)
{
    const char *scheme = base->tls ? "https:" : "http:";
    char authority[sizeof base->host + 16], text[2 * MAX_URL + 512];
    int keep = 0; /* how much of the base's target stays */

    if (strstr(location, "://") && strcspn(location, ":/?#") == strcspn(location, ":"))
        return parse_url(location, to);
    if (strncmp(location, "//", 2) == 0) {
        snprintf(text, sizeof text, "%s%s", scheme, location);
        return parse_url(text, to);
    }
    if (location[0] != '/')
        keep = (int)strcspn(base->target, "?");
    while (keep > 0 && location[0] != '?' && base->target[keep - 1] != '/')
        keep--;
    format_authority(base, authority, sizeof authority);
    snprintf(text, sizeof text, "%s//%s%.*s%s", scheme, authority, keep, base->target, location);
    return parse_url(text, to);
}

/* The last part of the path, or index.html. */
static const char *name_after(const url *u, char *name, size_t size)
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

static void format_bytes(double n, char *text, size_t size)
{
    const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t unit = 0;

    for (; n >= 1024 && unit < 4; unit++)
        n /= 1024;
    snprintf(text, size, unit ? "%.1f %s" : "%.0f %s", n, units[unit]);
}

/* Only on a terminal, ten times a second. */
static void show_progress(download *d, bool last)
{
    double t = now(), seconds = t - d->started > 1e-3 ? t - d->started : 1e-3;
    double rate = (double)(d->have - d->begun_with) / seconds;
    char have[32], total[32], speed[32], filled[BAR + 1];

    if (!d->bar || (!last && t - d->shown < 0.1))
        return;
    d->shown = t;
    format_bytes((double)d->have, have, sizeof have);
    format_bytes((double)d->total, total, sizeof total);
    format_bytes(rate, speed, sizeof speed);
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

/* Opens NAME.part, for us alone, and finds out what is there of it. */
static const char *open_part(download *d)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    struct stat st;

    if (stat(d->name, &st) == 0 && S_ISDIR(st.st_mode))
        return explain(d, "%.300s is a directory", d->name);
    d->fd = open(d->part, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (d->fd < 0 || fstat(d->fd, &st) < 0)
        return explain_file(d, "open", d->part);
    if (fcntl(d->fd, F_SETLK, &lock) < 0 && (errno == EACCES || errno == EAGAIN))
        return explain(d, "%.300s is being downloaded by another program", d->name);
    if (!S_ISREG(st.st_mode))
        return explain(d, "%.300s is not a regular file", d->part);
    if (d->opt.resume && st.st_size > 0) {
        d->have = (uint64_t)st.st_size;
        d->changed = st.st_mtime;
    }
    return NULL;
}

/* The body begins at that byte of the file: what lies behind it is not wanted. */
static const char *position_part(download *d, uint64_t start)
{
    d->have = d->begun_with = start;
    if (ftruncate(d->fd, (off_t)start) < 0 || lseek(d->fd, (off_t)start, SEEK_SET) < 0)
        return explain_file(d, "write", d->part);
    return NULL;
}

static const char *write_part(download *d, const char *data, size_t size)
{
    while (size > 0) {
        if (interrupted)
            return "interrupted";
        ssize_t n = write(d->fd, data, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return explain_file(d, "write", d->part);
        data += n;
        size -= (size_t)n;
        d->have += (uint64_t)n;
    }
    show_progress(d, false);
    return NULL;
}

/* The server's time of change, for the next -c and for the user. */
static void stamp_part(download *d)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = d->changed}};

    if (d->changed > 0)
        futimens(d->fd, times);
}

/* Everything is there: on the disk first, then under its name. */
static const char *finish_part(download *d)
{
    stamp_part(d);
    if (fsync(d->fd) < 0)
        return explain_file(d, "write", d->part);
    if (rename(d->part, d->name) < 0)
        return explain(d, "cannot rename %.200s to %.200s: %s", d->part, d->name, strerror(errno));
    d->complete = true;
    return NULL;
}

/* What is not complete stays for -c, if there is anything. */
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

/* ---- HTTP/1.1 (RFC 9112): the head, by lines ---- */

/* Reads a line into line[MAX_LINE], without its end. */
static const char *read_line(download *d, char *line)
{
    ptrdiff_t n = pysock_file_readline(d->in, line, MAX_LINE);

    if (n < 0)
        return explain_network();
    if (n == 0 || (line[n - 1] != '\n' && n < MAX_LINE - 1))
        return "truncated: the server closed the connection in the middle of its answer";
    if (line[n - 1] != '\n')
        return "the server sent a line that is too long";
    if (memchr(line, '\0', (size_t)n))
        return "the server sent a zero byte in its header";
    n--;
    if (n > 0 && line[n - 1] == '\r')
        n--;
    line[n] = '\0';
    return NULL;
}

/* Digits, and nothing behind them but what may end them. */
static bool parse_number(const char **text, uint64_t *value)
{
    char *end;

    errno = 0;
    *value = strtoull(*text, &end, 10);
    if ((*text)[0] < '0' || (*text)[0] > '9' || errno != 0 || *value > INT64_MAX)
        return false;
    *text = end;
    return true;
}

static const char *parse_length(response *r, const char *text)
{
    uint64_t n;

    if (!parse_number(&text, &n) || *text)
        return "the server sent a Content-Length that is not a number";
    if (r->has_length && r->length != n)
        return "the server sent two different Content-Lengths";
    r->has_length = true;
    r->length = n;
    return NULL;
}

/* "bytes 100-199/200"; a star stands for a total that is unknown and, in a 416, for the range. */
static const char *parse_range(response *r, const char *text)
{
    const char *const wrong = "the server sent a Content-Range that is none";
    uint64_t first = 0, last = 0, total;
    bool none = strncasecmp(text, "bytes *", 7) == 0;

    if (strncasecmp(text, "bytes ", 6) != 0)
        return wrong;
    text += none ? 7 : 6;
    if (!none && (!parse_number(&text, &first) || *text++ != '-' || !parse_number(&text, &last) ||
                  last < first))
        return wrong;
    if (*text++ != '/')
        return wrong;
    r->range_start = first;
    if (strcmp(text, "*") == 0)
        return NULL;
    if (!parse_number(&text, &total) || *text || (!none && total <= last))
        return wrong;
    r->has_range = true;
    r->total = total;
    return NULL;
}

/* "Sun, 06 Nov 1994 08:49:37 GMT"; 0 for what is anything else. */
static time_t parse_date(const char *text)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    char month[4];
    int day, year, hour, minute, second;

    if (sscanf(text, "%*3s, %2d %3s %4d %2d:%2d:%2d GMT", &day, month, &year, &hour, &minute,
               &second) != 6 || year < 1970)
        return 0;
    const char *found = strstr(months, month);
    if (!found || strlen(month) != 3 || (found - months) % 3 != 0)
        return 0;
    struct tm tm = {.tm_mday = day, .tm_mon = (int)(found - months) / 3, .tm_year = year - 1900,
                    .tm_hour = hour, .tm_min = minute, .tm_sec = second};
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

static const char *parse_header(response *r, char *line)
{
    char *value = strchr(line, ':');

    if (!value)
        return "the server sent a header line without a colon";
    *value++ = '\0';
    value += strspn(value, " \t");
    for (size_t n = strlen(value); n > 0 && strchr(" \t", value[n - 1]); n--)
        value[n - 1] = '\0';

    if (strcasecmp(line, "Content-Length") == 0)
        return parse_length(r, value);
    if (strcasecmp(line, "Content-Range") == 0)
        return parse_range(r, value);
    if (strcasecmp(line, "Last-Modified") == 0)
        r->changed = parse_date(value);
    if (strcasecmp(line, "Location") == 0 &&
        (size_t)snprintf(r->location, sizeof r->location, "%s", value) >= sizeof r->location)
        return "the server redirects to a URL that is too long";
    if (strcasecmp(line, "Transfer-Encoding") == 0) {
        if (strcasecmp(value, "chunked") != 0)
            return "the server sent a Transfer-Encoding other than chunked";
        r->chunked = true;
    }
    return NULL;
}

/* Header lines up to the empty one. r NULL: they are trailers, and of no interest. */
static const char *read_headers(download *d, response *r)
{
    char line[MAX_LINE];

    for (int i = 0; i < MAX_HEADERS; i++) {
        const char *why = read_line(d, line);
        if (why || line[0] == '\0')
            return why;
        if (r && line[0] != ' ' && line[0] != '\t') /* else a line that goes on */
            why = parse_header(r, line);
        if (why)
            return why;
    }
    return "the server sent too many header lines";
}

/* The final head: interim ones ("103 Early Hints") are skipped. */
static const char *read_head(download *d, response *r)
{
    char line[MAX_LINE];
    int skip;

    for (int i = 0; i < 10; i++) {
        *r = (response){.status = 0};
        const char *why = read_line(d, line);
        if (why)
            return why;
        if (sscanf(line, "HTTP/1.%*1[0-9] %3d%n", &r->status, &skip) != 1 || r->status < 100)
            return "the server does not speak HTTP/1";
        snprintf(r->reason, sizeof r->reason, "%s", line + skip + (line[skip] == ' '));
        why = read_headers(d, r);
        if (why || r->status >= 200)
            return why;
    }
    return "the server sent no final answer";
}

/* ---- the body, in pieces ---- */

static const char *copy_exactly(download *d, uint64_t size)
{
    char buf[16384];

    while (size > 0) {
        ptrdiff_t n = pysock_file_read1(d->in, buf, size < sizeof buf ? (size_t)size : sizeof buf);
        if (n < 0)
            return explain_network();
        if (n == 0)
            return explain(d, "truncated: the server closed the connection %" PRIu64
                           " bytes too early", size);
        const char *why = write_part(d, buf, (size_t)n);
        if (why)
            return why;
        size -= (uint64_t)n;
    }
    return NULL;
}

static const char *copy_chunks(download *d)
{
    char line[MAX_LINE];

    for (;;) {
        const char *why = read_line(d, line);
        if (why)
            return why;
        size_t digits = strspn(line, "0123456789abcdefABCDEF");
        if (digits < 1 || digits > 15 || !strchr("; \t", line[digits]))
            return "the server sent a chunk without a valid size";
        uint64_t size = strtoull(line, NULL, 16);
        if (size == 0)
            return read_headers(d, NULL);
        why = copy_exactly(d, size);
        if (!why)
            why = read_line(d, line);
        if (why)
            return why;
        if (line[0] != '\0')
            return "the server sent a chunk that is longer than it said";
    }
}

/* Without a length the end of the stream is the end of the body, so TLS has to vouch for it. */
static const char *copy_to_end(download *d)
{
    char buf[16384];
    ptrdiff_t n;

    while ((n = pysock_file_read1(d->in, buf, sizeof buf)) > 0) {
        const char *why = write_part(d, buf, (size_t)n);
        if (why)
            return why;
    }
    if (n < 0)
        return explain_network();
    if (pysock_is_ssl(d->s) && !pysock_ssl_eof_is_clean(d->s))
        return "truncated? The connection ended without close_notify, and no length was given";
    return NULL;
}

static const char *copy_body(download *d, const response *r)
{
    const char *why;

    d->has_total = r->has_range || (r->has_length && !r->chunked);
    d->total = r->has_range ? r->total : d->have + r->length;
    d->started = d->shown = now();
    if (r->chunked)
        why = copy_chunks(d);
    else if (r->has_length)
        why = copy_exactly(d, r->length);
    else
        why = copy_to_end(d);
    show_progress(d, true);

    if (!why && d->has_total && d->have != d->total)
        why = explain(d, "the server sent %" PRIu64 " bytes of %" PRIu64 ", and calls that all",
                      d->have, d->total);
    return why ? why : finish_part(d);
}

/* ---- one request ---- */

static const char *make_tls(download *d)
{
    const char *cacert = d->opt.cacert;

    if (d->tls)
        return NULL;
    d->tls = cacert ? pysock_ssl_context_new(PYSOCK_SERVER_AUTH)
                    : pysock_ssl_create_default_context(PYSOCK_SERVER_AUTH);
    if (!d->tls || (cacert && pysock_ssl_load_verify_locations(d->tls, cacert, NULL) < 0))
        return explain_network();
    return NULL;
}

static const char *connect_to_server(download *d)
{
    const url *u = &d->u;
    const char *why = u->tls ? make_tls(d) : NULL;

    if (why)
        return why;
    d->s = pysock_create_connection(u->host, u->port, CONNECT_TIMEOUT);
    if (!d->s || (u->tls && pysock_ssl_wrap_socket(d->s, d->tls, u->host) < 0) ||
        pysock_settimeout(d->s, d->opt.timeout) < 0)
        return explain_network();
    d->in = pysock_makefile(d->s, "rw", -1);
    return d->in ? NULL : explain_network();
}

/* The socket goes with the last file that was made of it. */
static void disconnect(download *d)
{
    pysock_file_close(d->in);
    pysock_close(d->s);
    d->in = NULL;
    d->s = NULL;
}

static const char *send_request(download *d)
{
    char authority[sizeof d->u.host + 16], text[MAX_URL + 1024], date[64];
    int n;

    format_authority(&d->u, authority, sizeof authority);
    n = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: %s\r\n"
                 "User-Agent: http_download (pysock " PYSOCK_VERSION ")\r\nAccept: */*\r\n"
                 "Accept-Encoding: identity\r\nConnection: close\r\n", d->u.target, authority);
    if (d->have > 0) {
        format_date(d->changed, date, sizeof date);
        n += snprintf(text + n, sizeof text - (size_t)n, "Range: bytes=%" PRIu64 "-\r\n"
                      "If-Range: %s\r\n", d->have, date);
    }
    n += snprintf(text + n, sizeof text - (size_t)n, "\r\n");
    if (pysock_file_write(d->in, text, (size_t)n, NULL) < 0 || pysock_file_flush(d->in) < 0)
        return explain_network();
    return NULL;
}

static const char *follow(download *d, const response *r)
{
    url to;
    const char *why = resolve_url(&d->u, r->location, &to);

    if (why)
        return explain(d, "cannot follow a redirect to %.200s: %s", r->location, why);
    if (d->u.tls && !to.tls)
        return "the server redirects from https to http, which is not safe to follow";
    d->u = to;
    return NULL;
}

static bool is_redirect(const response *r)
{
    switch (r->status) {
    case 301: case 302: case 303: case 307: case 308: return r->location[0] != '\0';
    default: return false;
    }
}

/* What the answer means for the part that we have. *again: ask once more. */
static const char *take_answer(download *d, const response *r, bool *again)
{
    const char *why;

    if (is_redirect(r)) {
        *again = true;
        return follow(d, r);
    }
    if (r->status == 416 && d->have > 0) { /* nothing more comes: we have all, or too much */
        if (r->has_range && r->total == d->have)
            return finish_part(d);
        *again = true;
        return position_part(d, 0);
    }
    if (r->status >= 400)
        return NULL;
    if (r->status != 200 && r->status != 206)
        return explain(d, "the server answered with status %d, which has no file", r->status);
    if (r->status == 206 && (r->range_start != d->have || d->have == 0))
        return explain(d, "the server sent another part of the file than the one asked for");

    why = position_part(d, r->status == 206 ? d->have : 0);
    d->changed = r->changed;
    return why ? why : copy_body(d, r);
}

static const char *ask_once(download *d, response *r, bool *again)
{
    const char *why = connect_to_server(d);

    if (!why)
        why = send_request(d);
    if (!why)
        why = read_head(d, r);
    *again = false;
    if (!why)
        why = take_answer(d, r, again);
    disconnect(d);
    return why;
}

static int run(download *d)
{
    response r = {.status = 0};
    bool again = true;
    const char *why = open_part(d);

    for (int i = 0; again && !why; i++)
        why = i > MAX_REDIRECTS ? "too many redirects" : ask_once(d, &r, &again);
    if (why) {
        fputs("http_download: ", stderr);
        print_clean(why);
        fputs(d->have > 0 && d->changed > 0 ? "; -c goes on from here\n" : "\n", stderr);
    } else if (!d->complete) {
        fprintf(stderr, "http_download: the server answered %d ", r.status);
        print_clean(r.reason);
        fputc('\n', stderr);
    }
    close_part(d);
    if (d->complete)
        return 0;
    return why ? 1 : 3;
}

/* ---- the command line ---- */

static int usage(FILE *to)
{
    fputs("usage: http_download [-c] [-q] [-o NAME] [-t SECONDS] [--cacert FILE] URL\n"
          "  URL            http://host[:port][/path] or https://...\n"
          "  -o NAME        the file to write; otherwise the last part of the URL's path\n"
          "  -c             go on with NAME.part, which an earlier attempt has left\n"
          "  -q             no progress bar (there is none either if stderr is no terminal)\n"
          "  -t SECONDS     how long the server may be silent (30)\n"
          "  --cacert FILE  trust the certificates in this PEM file, not the system's\n"
          "Exit status: 0 done, 1 failure, 2 wrong usage, 3 the server has no such file\n", to);
    return to == stdout ? 0 : 2;
}

/* 0 if all is well. */
static int parse_options(options *opt, int argc, char **argv)
{
    char *end = "";

    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--help") == 0)
            exit(usage(stdout));
        if (strcmp(argv[i], "-c") == 0)
            opt->resume = true;
        else if (strcmp(argv[i], "-q") == 0)
            opt->quiet = true;
        else if (strcmp(argv[i], "-o") == 0 && more)
            opt->output = argv[++i];
        else if (strcmp(argv[i], "-t") == 0 && more)
            opt->timeout = strtod(argv[++i], &end);
        else if (strcmp(argv[i], "--cacert") == 0 && more)
            opt->cacert = argv[++i];
        else if (argv[i][0] != '-' && !opt->url)
            opt->url = argv[i];
        else
            return usage(stderr);
    }
    if (!opt->url || *end || !(opt->timeout > 0) || (opt->output && !opt->output[0]))
        return usage(stderr);
    return 0;
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
    struct sigaction action = {.sa_handler = on_signal};

    d.opt.timeout = READ_TIMEOUT;
    d.fd = -1;
    int status = parse_options(&d.opt, argc, argv);
    if (status)
        return status;
    const char *why = parse_url(d.opt.url, &d.u);
    if (!why)
        why = choose_names(&d);
    if (why) {
        fprintf(stderr, "http_download: bad URL: %s\n", why);
        return 2;
    }

    d.bar = !d.opt.quiet && isatty(STDERR_FILENO);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    pysock_set_interrupt_hook(is_interrupted, NULL);
    status = run(&d);
    pysock_ssl_context_free(d.tls);
    return status;
}
