/*
https_server: serves the files of a directory over HTTPS, on one thread.

cc -I. examples/apps/https_server.c -o https_server -lbearssl -lpthread

./https_server --cert cert.pem --key key.pem public_html

One poller watches the listening socket, every connection, and a pipe that signals write to. All
are non-blocking, and each event leads to one bounded step: one recv or one send. A client that is
slow, silent or hostile costs its buffers until its deadline, and does not delay other clients:

- a request must be complete 10 s after its connection or its first byte, however slowly it arrives;
- a response must be taken at 4 KiB/s on average;
- at the limit of connections, or of descriptors, the client that has been idle longest is closed;
  if all are being served, new ones wait in the kernel's queue;
- only regular files below the directory are served, hidden ones are not, and a symbolic link that
  leads out of it is refused.
*/
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#define CLI_PROGRAM "https_server"
#include "cli.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    MAX_CONNECTIONS = 400, /* fewer if the limit of descriptors is low */
    MAX_FD = 4096,         /* POSIX returns the lowest free number */
    MAX_HEAD = 8192,       /* bytes of a request */
    MAX_LISTED = 10000,    /* names in a listing */
    PIECE = 16384,         /* bytes per step: one TLS record */
    ACCEPTS = 32           /* connections per step */
};

#define HEAD_TIMEOUT 10.0  /* seconds for a whole request, the TLS handshake included */
#define IDLE_TIMEOUT 15.0  /* between two requests */
#define LINGER_TIMEOUT 2.0 /* for the client to close after us */
#define STOP_TIMEOUT 5.0   /* for responses under way when a signal stops us */
#define GRACE 1.0          /* no connection is closed for others before this */
#define SWEEP 0.5          /* how often deadlines are checked */
#define MIN_RATE 4096.0    /* bytes a second */

typedef enum phase { READING, SENDING, LINGERING } phase;

typedef struct conn {
    pysock *s;
    int fd;
    phase phase;
    double since, deadline; /* when the phase began, when it must be over */
    char peer[PYSOCK_ADDR_STRLEN];

    char in[MAX_HEAD + 1]; /* requests, as they arrive */
    size_t in_len;
    bool served; /* at least one request */

    /* the response: text, then a part of a file */
    bool keep_alive, head_only;
    int status;
    char *text;
    size_t text_len;
    int file; /* or -1 */
    off_t file_pos, file_end;
    uint64_t sent;
    size_t text_sent;
    char line[160]; /* the request line, for the log */
} conn;

typedef struct server {
    pysock_poller *poller;
    pysock *listener;
    int listen_fd; /* -1 when we are stopping */
    bool paused;   /* the listener is not watched until there is room */
    double stop_at;
    char root[PATH_MAX]; /* without a slash at its end: "" for "/" */
    size_t count, max_count;
    conn *conns[MAX_FD]; /* by descriptor */
} server;

typedef struct request {
    char *target, *range;
    bool head, keep_alive;
} request;

/* ---- responses ---- */

static const char *reason_phrase(int status)
{
    switch (status) {
    case 200: return "OK";
    case 206: return "Partial Content";
    case 301: return "Moved Permanently";
    case 400: return "Bad Request";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 413: return "Content Too Large";
    case 416: return "Range Not Satisfiable";
    case 431: return "Request Header Fields Too Large";
    case 503: return "Service Unavailable";
    case 505: return "HTTP Version Not Supported";
    default: return "Internal Server Error";
    }
}

static int status_of_errno(int error)
{
    switch (error) {
    case EACCES:
    case EPERM: return 403;
    case ENOENT:
    case ENOTDIR:
    case ELOOP:
    case ENAMETOOLONG: return 404;
    case EMFILE:
    case ENFILE:
    case ENOMEM: return 503;
    default: return 500;
    }
}

static const char *content_type(const char *path)
{
    /* clang-format off */
    static const char *const types[][2] = {
        {"css", "text/css; charset=utf-8"}, {"csv", "text/csv; charset=utf-8"},
        {"gif", "image/gif"}, {"htm", "text/html; charset=utf-8"},
        {"html", "text/html; charset=utf-8"}, {"ico", "image/x-icon"}, {"jpeg", "image/jpeg"},
        {"jpg", "image/jpeg"}, {"js", "text/javascript; charset=utf-8"},
        {"json", "application/json"}, {"md", "text/markdown; charset=utf-8"},
        {"mjs", "text/javascript; charset=utf-8"}, {"mp3", "audio/mpeg"}, {"mp4", "video/mp4"},
        {"ogg", "audio/ogg"}, {"otf", "font/otf"}, {"pdf", "application/pdf"},
        {"png", "image/png"}, {"svg", "image/svg+xml"}, {"ttf", "font/ttf"},
        {"txt", "text/plain; charset=utf-8"}, {"wasm", "application/wasm"},
        {"wav", "audio/wav"}, {"webm", "video/webm"}, {"webp", "image/webp"},
        {"woff", "font/woff"}, {"woff2", "font/woff2"}, {"xml", "application/xml"},
        {"zip", "application/zip"},
    };
    /* clang-format on */
    const char *dot = strrchr(path, '.');

    for (size_t i = 0; dot && i < sizeof types / sizeof types[0]; i++)
        if (strcasecmp(dot + 1, types[i][0]) == 0)
            return types[i][1];
    return "application/octet-stream";
}

static void format_time(char *text, size_t size, const char *format)
{
    time_t t = time(NULL);
    struct tm tm;

    gmtime_r(&t, &tm);
    strftime(text, size, format, &tm);
}

/* Sets the response: a head, then body (or, if body is NULL, the file's part from file_pos to
   file_end). extra is empty or whole header lines. False: out of memory. */
static bool answer(conn *c, int status, const char *extra, const char *type, const char *body,
                   size_t size)
{
    char date[64];
    intmax_t length = body ? (intmax_t)size : (intmax_t)(c->file_end - c->file_pos);
    FILE *f = open_memstream(&c->text, &c->text_len);

    if (!f)
        return false;
    format_time(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT");
    fprintf(f,
            "HTTP/1.1 %d %s\r\n"
            "Date: %s\r\n"
            "Content-Type: %s\r\n"
            "Content-Length: %jd\r\n"
            "X-Content-Type-Options: nosniff\r\n"
            "Connection: %s\r\n"
            "%s\r\n",
            status, reason_phrase(status), date, type, length,
            c->keep_alive ? "keep-alive" : "close", extra);
    if (body && !c->head_only)
        fwrite(body, 1, size, f);
    bool failed = ferror(f);
    if (fclose(f) != 0 || failed)
        return false;

    if (c->head_only)
        c->file_pos = c->file_end;
    c->status = status;
    c->text_sent = 0;
    c->sent = 0;
    c->phase = SENDING;
    c->since = cli_now();
    c->deadline = c->since + HEAD_TIMEOUT + (double)length / MIN_RATE;
    return true;
}

static bool answer_status(conn *c, int status, const char *extra)
{
    char body[256];
    int n = snprintf(body, sizeof body, "<!DOCTYPE html>\n<title>%d</title>\n<h1>%d %s</h1>\n",
                     status, status, reason_phrase(status));

    return answer(c, status, extra, "text/html; charset=utf-8", body, (size_t)n);
}

/* ---- listings ---- */

static void write_html(FILE *f, const char *text)
{
    for (; *text; text++) {
        switch (*text) {
        case '&': fputs("&amp;", f); break;
        case '<': fputs("&lt;", f); break;
        case '>': fputs("&gt;", f); break;
        case '"': fputs("&quot;", f); break;
        case '\'': fputs("&#39;", f); break;
        default: fputc(*text, f); break;
        }
    }
}

/* Percent-encodes all except unreserved characters and slashes, for headers and attributes. */
static void write_url(FILE *f, const char *text)
{
    const char *plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";

    for (; *text; text++)
        fprintf(f, strchr(plain, *text) ? "%c" : "%%%02X", (unsigned char)*text);
}

static int is_not_hidden(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static bool answer_listing(conn *c, const char *dir, const char *path)
{
    struct dirent **names;
    char *body = NULL;
    size_t size = 0;
    int n = scandir(dir, &names, is_not_hidden, alphasort);

    if (n < 0)
        return answer_status(c, status_of_errno(errno), "");

    FILE *f = open_memstream(&body, &size);
    if (f) {
        fputs("<!DOCTYPE html>\n<meta charset=\"utf-8\">\n<title>", f);
        write_html(f, path);
        fputs("</title>\n<h1>", f);
        write_html(f, path);
        fputs("</h1>\n<ul>\n", f);
        if (strcmp(path, "/") != 0)
            fputs("<li><a href=\"../\">../</a>\n", f);
    }
    for (int i = 0; i < n; i++) {
        if (f && i < MAX_LISTED) {
            const char *slash = names[i]->d_type == DT_DIR ? "/" : "";
            fputs("<li><a href=\"", f);
            write_url(f, names[i]->d_name);
            fprintf(f, "%s\">", slash);
            write_html(f, names[i]->d_name);
            fprintf(f, "%s</a>\n", slash);
        }
        free(names[i]);
    }
    free(names);
    if (!f)
        return false;
    fprintf(f, "</ul>\n%s", n > MAX_LISTED ? "<p>and more\n" : "");

    bool failed = ferror(f);
    bool ok = fclose(f) == 0 && !failed &&
              answer(c, 200, "", "text/html; charset=utf-8", body, size);
    free(body);
    return ok;
}

/* ---- from path to file ---- */

static int hex_digit(char c)
{
    const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c | 0x20) : NULL;

    return at ? (int)(at - digits) : -1;
}

/* Decodes the path of a target into path[MAX_HEAD]. Returns 0 or a status. */
static int decode_path(const char *target, char *path)
{
    size_t n = 0;

    for (; *target && *target != '?' && *target != '#'; target++) {
        int c = *target;
        if (c == '%') {
            int high = hex_digit(target[1]), low = high < 0 ? -1 : hex_digit(target[2]);
            c = high * 16 + low;
            if (low < 0 || c == 0)
                return 400;
            target += 2;
        }
        path[n++] = (char)c;
    }
    path[n] = '\0';
    if (path[0] != '/')
        return 400;
    return strstr(path, "/.") ? 403 : 0; /* "..", ".", and hidden files */
}

/* Resolves root + path into real[PATH_MAX]; it must be below the root. 0 or a status. */
static int resolve(const server *sv, const char *path, char *real)
{
    char joined[PATH_MAX];
    size_t n = strlen(sv->root);

    if ((size_t)snprintf(joined, sizeof joined, "%s%s", sv->root, path) >= sizeof joined)
        return 404;
    if (!realpath(joined, real))
        return status_of_errno(errno);
    return strncmp(real, sv->root, n) == 0 && (real[n] == '/' || real[n] == '\0') ? 0 : 403;
}

/* The only part of "bytes=FIRST-LAST", "bytes=FIRST-" or "bytes=-COUNT". Returns 206 with the part
   in *pos and *end, 416 if the file has no such part, 200 for anything else. */
static int parse_range(const char *text, off_t size, off_t *pos, off_t *end)
{
    char *rest;
    const char *digits = "0123456789";

    if (!text || strncasecmp(text, "bytes=", 6) != 0)
        return 200;
    text += 6;
    size_t first = strspn(text, digits);
    size_t last = text[first] == '-' ? strspn(text + first + 1, digits) : 0;
    if (text[first] != '-' || first + last == 0 || text[first + 1 + last] != '\0')
        return 200;

    intmax_t from = strtoimax(text, &rest, 10), to = INTMAX_MAX;
    if (last > 0)
        to = strtoimax(text + first + 1, NULL, 10);
    if (first == 0) {
        from = to < size ? size - to : 0;
        to = to > 0 ? size - 1 : -1;
    }
    if (first > 0 && last > 0 && from > to)
        return 200;
    if (from >= size || to < 0)
        return 416;
    *pos = (off_t)from;
    *end = (off_t)(to < size - 1 ? to + 1 : size);
    return 206;
}

static bool answer_file(conn *c, const char *real, const char *range)
{
    struct stat st;
    char extra[128] = "Accept-Ranges: bytes\r\n";

    /* O_NONBLOCK: opening a FIFO must not wait; O_NOFOLLOW: real has no links left */
    c->file = open(real, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW);
    if (c->file < 0 || fstat(c->file, &st) < 0)
        return answer_status(c, status_of_errno(errno), "");
    if (!S_ISREG(st.st_mode))
        return answer_status(c, 403, "");

    off_t pos = 0, end = st.st_size;
    int status = parse_range(range, st.st_size, &pos, &end);
    if (status == 206)
        snprintf(extra, sizeof extra, "Content-Range: bytes %jd-%jd/%jd\r\n", (intmax_t)pos,
                 (intmax_t)end - 1, (intmax_t)st.st_size);
    if (status == 416) {
        snprintf(extra, sizeof extra, "Content-Range: bytes */%jd\r\n", (intmax_t)st.st_size);
        return answer_status(c, status, extra);
    }
    c->file_pos = pos;
    c->file_end = end;
    return answer(c, status, extra, content_type(real), NULL, 0);
}

/* A directory's relative links work only if its URL ends with a slash. */
static bool answer_moved(conn *c, const char *path)
{
    char *extra = NULL;
    size_t size;
    FILE *f = open_memstream(&extra, &size);

    if (!f)
        return false;
    fputs("Location: /", f); /* one slash: "//host/" would lead to another server */
    write_url(f, path + strspn(path, "/"));
    fputs("/\r\n", f);
    bool failed = ferror(f);
    bool ok = fclose(f) == 0 && !failed && answer_status(c, 301, extra);
    free(extra);
    return ok;
}

static bool answer_path(const server *sv, conn *c, const char *target, const char *range)
{
    char path[MAX_HEAD], inner[MAX_HEAD + 16], real[PATH_MAX], page[PATH_MAX];
    struct stat st;
    int status = decode_path(target, path);

    if (!status)
        status = resolve(sv, path, real);
    if (!status && stat(real, &st) < 0)
        status = status_of_errno(errno);
    if (status)
        return answer_status(c, status, "");
    if (!S_ISDIR(st.st_mode))
        return answer_file(c, real, range);
    if (path[strlen(path) - 1] != '/')
        return answer_moved(c, path);

    snprintf(inner, sizeof inner, "%sindex.html", path);
    status = resolve(sv, inner, page);
    if (!status)
        return answer_file(c, page, range);
    return status == 404 ? answer_listing(c, real, path) : answer_status(c, status, "");
}

/* ---- requests (RFC 9112) ---- */

/* 0 or a status. */
static int parse_header(request *r, char *line, bool *host)
{
    char *name = strsep(&line, ":");

    if (!line || name[0] == '\0' || strpbrk(name, " \t"))
        return 400;
    line += strspn(line, " \t");
    for (size_t n = strlen(line); n > 0 && strchr(" \t", line[n - 1]); n--)
        line[n - 1] = '\0';

    if (strcasecmp(name, "Host") == 0) {
        if (*host)
            return 400;
        *host = true;
    } else if (strcasecmp(name, "Range") == 0) {
        r->range = line;
    } else if (strcasecmp(name, "Connection") == 0) {
        if (strcasestr(line, "close"))
            r->keep_alive = false;
        else if (strcasestr(line, "keep-alive"))
            r->keep_alive = true;
    } else if (strcasecmp(name, "Transfer-Encoding") == 0 ||
               (strcasecmp(name, "Content-Length") == 0 && strcmp(line, "0") != 0)) {
        return 413; /* a body would be read as the next request */
    }
    return 0;
}

/* Parses head, whose lines end with CRLF. 0 or a status. */
static int parse_request(request *r, char *head)
{
    char *end = strstr(head, "\r\n"), *line = head;
    bool host = false;

    *end = '\0';
    char *method = strsep(&line, " ");
    r->target = strsep(&line, " ");
    if (!r->target || !line || strncmp(line, "HTTP/", 5) != 0)
        return 400;
    if (strcmp(line, "HTTP/1.1") != 0 && strcmp(line, "HTTP/1.0") != 0)
        return 505;
    bool old = line[7] == '0';
    r->keep_alive = !old;
    r->head = strcmp(method, "HEAD") == 0;
    if (!r->head && strcmp(method, "GET") != 0)
        return 405;
    for (const char *p = r->target; *p; p++)
        if ((unsigned char)*p <= ' ' || *p == 0x7f)
            return 400;

    for (line = end + 2; *line; line = end + 2) {
        end = strstr(line, "\r\n");
        *end = '\0';
        int status = parse_header(r, line, &host);
        if (status)
            return status;
    }
    if (!host && !old)
        return 400;
    if (strncasecmp(r->target, "https://", 8) == 0) { /* the absolute form, too */
        r->target = strchr(r->target + 8, '/');
        if (!r->target)
            r->target = "/";
    }
    return 0;
}

/* The log is read in terminals: no control characters, and nothing that could end the quotes. */
static void note_request_line(conn *c, const char *head)
{
    size_t n = 0;

    for (; n + 1 < sizeof c->line && head[n] && head[n] != '\r'; n++)
        c->line[n] = head[n] < ' ' || head[n] > '~' || strchr("\"\\", head[n]) ? '?' : head[n];
    c->line[n] = '\0';
}

/* If a whole request has arrived, begins its response. False: close the connection. */
static bool try_request(const server *sv, conn *c)
{
    request r = {.target = NULL};
    char *end = memmem(c->in, c->in_len, "\r\n\r\n", 4);

    c->keep_alive = c->head_only = false;
    if (!end && c->in_len < MAX_HEAD)
        return true;
    c->in[c->in_len] = '\0';
    note_request_line(c, c->in);
    if (!end) {
        c->in_len = 0;
        return answer_status(c, 431, "");
    }

    size_t used = (size_t)(end + 4 - c->in);
    end[2] = '\0';
    int status = strlen(c->in) == used - 2 ? parse_request(&r, c->in) : 400;
    c->head_only = r.head;
    c->keep_alive = r.keep_alive && status == 0 && sv->listen_fd >= 0;
    bool ok = status ? answer_status(c, status, status == 405 ? "Allow: GET, HEAD\r\n" : "")
                     : answer_path(sv, c, r.target, r.range);
    c->in_len -= used;
    memmove(c->in, c->in + used, c->in_len);
    return ok;
}

/* ---- connections ---- */

static void log_request(const conn *c, const char *remark)
{
    char when[64];

    format_time(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ");
    printf("%s %s \"%s\" %d %" PRIu64 " %.1fms%s\n", c->peer, when, c->line, c->status, c->sent,
           (cli_now() - c->since) * 1e3, remark);
}

static void drop_answer(conn *c)
{
    free(c->text);
    c->text = NULL;
    if (c->file >= 0)
        close(c->file);
    c->file = -1;
    c->file_pos = c->file_end = 0;
}

static void pause_accepting(server *sv, bool paused)
{
    if (sv->paused == paused || sv->listen_fd < 0)
        return;
    if (pysock_poller_modify(sv->poller, sv->listen_fd, paused ? 0 : POLLIN) == 0)
        sv->paused = paused;
}

static void close_conn(server *sv, conn *c)
{
    if (c->phase == SENDING)
        log_request(c, " aborted");
    drop_answer(c);
    pysock_poller_unregister(sv->poller, c->fd);
    sv->conns[c->fd] = NULL;
    sv->count--;
    pysock_close(c->s);
    free(c);
    pause_accepting(sv, false);
}

static void enter(conn *c, phase next, double timeout)
{
    c->phase = next;
    c->since = cli_now();
    c->deadline = c->since + timeout;
}

/* Closing at once, with input unread, would make TCP reset the connection and lose the response: so
   the client closes first, or LINGER_TIMEOUT passes. */
static bool finish_answer(const server *sv, conn *c)
{
    log_request(c, "");
    drop_answer(c);
    c->served = true;
    if (!c->keep_alive) {
        enter(c, LINGERING, LINGER_TIMEOUT);
        return pysock_shutdown(c->s, SHUT_WR) == 0;
    }
    enter(c, READING, c->in_len > 0 ? HEAD_TIMEOUT : IDLE_TIMEOUT);
    return c->in_len == 0 || try_request(sv, c);
}

/* The steps return false when the connection is to be closed. */

static bool step_reading(const server *sv, conn *c)
{
    ptrdiff_t n = pysock_recv(c->s, c->in + c->in_len, MAX_HEAD - c->in_len, 0);

    if (n < 0 && errno == EAGAIN)
        return true;
    if (n < 0 && !c->served) /* later it is only a client that has disconnected */
        fprintf(stderr, "%s: %s\n", c->peer, pysock_error_message());
    if (n <= 0)
        return false;
    if (c->in_len == 0 && c->served)
        enter(c, READING, HEAD_TIMEOUT);
    c->in_len += (size_t)n;
    return try_request(sv, c);
}

static bool step_sending(const server *sv, conn *c)
{
    char piece[PIECE];
    const char *data = piece;
    size_t size = 0;

    if (c->text_sent < c->text_len) {
        data = c->text + c->text_sent;
        size = c->text_len - c->text_sent < PIECE ? c->text_len - c->text_sent : PIECE;
    } else if (c->file_pos < c->file_end) {
        off_t left = c->file_end - c->file_pos;
        ssize_t n = pread(c->file, piece, left < PIECE ? (size_t)left : PIECE, c->file_pos);
        if (n <= 0)
            return false; /* the file shrank, or cannot be read: only closing is left */
        size = (size_t)n;
    }

    ptrdiff_t n = pysock_send(c->s, data, size, 0);
    if (n < 0)
        return errno == EAGAIN;
    c->sent += (uint64_t)n;
    if (c->text_sent < c->text_len)
        c->text_sent += (size_t)n;
    else
        c->file_pos += n;
    return c->text_sent < c->text_len || c->file_pos < c->file_end || finish_answer(sv, c);
}

static bool step_lingering(conn *c)
{
    char scrap[PIECE];
    ptrdiff_t n = pysock_recv(c->s, scrap, sizeof scrap, 0);

    return n > 0 || (n < 0 && errno == EAGAIN);
}

static void step(server *sv, conn *c)
{
    bool was_sending = c->phase == SENDING, ok = false;

    switch (c->phase) {
    case READING: ok = step_reading(sv, c); break;
    case SENDING: ok = step_sending(sv, c); break;
    case LINGERING: ok = step_lingering(c); break;
    }
    bool sending = c->phase == SENDING;
    if (ok && sending != was_sending)
        ok = pysock_poller_modify(sv->poller, c->fd, sending ? POLLOUT : POLLIN) == 0;
    if (!ok)
        close_conn(sv, c);
}

static bool add_conn(server *sv, pysock *s, const pysock_addr *peer)
{
    int fd = pysock_fileno(s);
    conn *c = fd >= 0 && fd < MAX_FD ? calloc(1, sizeof *c) : NULL;

    if (!c)
        return false;
    c->s = s;
    c->fd = fd;
    c->file = -1;
    pysock_addr_format(peer, c->peer, sizeof c->peer);
    enter(c, READING, HEAD_TIMEOUT);
    /* a small response is two sends: the second must not wait for the first's acknowledgement */
    if (pysock_setblocking(s, 0) < 0 || pysock_setsockopt_int(s, IPPROTO_TCP, TCP_NODELAY, 1) < 0 ||
        pysock_poller_register(sv->poller, fd, POLLIN, NULL) < 0) {
        free(c);
        return false;
    }
    sv->conns[fd] = c;
    sv->count++;
    return true;
}

/* Closes the waiting connection that is nearest to its deadline, if there is one. */
static bool make_room(server *sv)
{
    conn *worst = NULL;

    for (int fd = 0; fd < MAX_FD; fd++) {
        conn *c = sv->conns[fd];
        if (c && c->phase != SENDING && cli_now() - c->since > GRACE &&
            (!worst || c->deadline < worst->deadline))
            worst = c;
    }
    if (worst)
        close_conn(sv, worst);
    return worst != NULL;
}

static void accept_some(server *sv)
{
    for (int i = 0; i < ACCEPTS; i++) {
        bool full = sv->count >= sv->max_count;
        if (full && !make_room(sv)) {
            pause_accepting(sv, true);
            return;
        }
        pysock_addr peer;
        pysock *s = pysock_accept(sv->listener, &peer);
        int error = s ? 0 : errno;
        if (s && !add_conn(sv, s, &peer))
            pysock_close(s);
        if (error == ECONNABORTED)
            continue;
        if (error && error != EAGAIN) {
            cli_complain_of_pysock();
            if (error == EMFILE || error == ENFILE)
                make_room(sv);
            pause_accepting(sv, true); /* retrying at once would only spin */
        }
        if (error || full)
            return;
    }
}

static void sweep(server *sv)
{
    double t = cli_now();

    for (int fd = 0; fd < MAX_FD; fd++)
        if (sv->conns[fd] && t > sv->conns[fd]->deadline)
            close_conn(sv, sv->conns[fd]);
    if (sv->paused && (sv->count < sv->max_count || make_room(sv)))
        pause_accepting(sv, false);
}

/* Stops listening and lets responses under way finish; a second call closes them. */
static void stop(server *sv)
{
    sv->stop_at = sv->listen_fd < 0 ? 0 : cli_now() + STOP_TIMEOUT;
    if (sv->listen_fd >= 0)
        pysock_poller_unregister(sv->poller, sv->listen_fd);
    pysock_close(sv->listener);
    sv->listen_fd = -1;
    for (int fd = 0; fd < MAX_FD; fd++) {
        conn *c = sv->conns[fd];
        if (c && c->phase == SENDING)
            c->keep_alive = false;
        else if (c)
            close_conn(sv, c);
    }
}

/* A handler may only write(2), and has no argument: its end of the pipe is the one global. */
static int signal_pipe[2] = {-1, -1};

static void on_signal(int number)
{
    int saved = errno;
    char c = (char)number;

    if (write(signal_pipe[1], &c, 1) < 0)
        c = 0; /* full: the loop will see it anyway */
    errno = saved;
}

static bool watch_signals(server *sv)
{
    struct sigaction action = {.sa_handler = on_signal};

    if (pipe(signal_pipe) < 0 || fcntl(signal_pipe[1], F_SETFL, O_NONBLOCK) < 0 ||
        pysock_poller_register(sv->poller, signal_pipe[0], POLLIN, NULL) < 0)
        return false;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* the reader of the log may exit */
    return true;
}

static int serve(server *sv)
{
    pysock_pollevent events[64];
    double next_sweep = cli_now() + SWEEP;

    while (sv->listen_fd >= 0 || (sv->count > 0 && cli_now() < sv->stop_at)) {
        double timeout = sv->count > 0 || sv->paused ? SWEEP : PYSOCK_NO_TIMEOUT;
        ptrdiff_t n = pysock_poller_poll(sv->poller, events, 64, timeout);
        char scrap[16];

        if (n < 0) {
            cli_complain_of_pysock();
            return 1;
        }
        for (ptrdiff_t i = 0; i < n; i++) {
            int fd = events[i].fd;
            if (fd == sv->listen_fd)
                accept_some(sv);
            else if (fd == signal_pipe[0] && read(fd, scrap, sizeof scrap) > 0)
                stop(sv);
            else if (fd < MAX_FD && sv->conns[fd]) /* an earlier event may have closed it */
                step(sv, sv->conns[fd]);
        }
        if (cli_now() >= next_sweep) {
            sweep(sv);
            next_sweep = cli_now() + SWEEP;
        }
    }
    fputs("https_server: stopped\n", stderr);
    return 0;
}

/* ---- start ---- */

/* A connection may have a socket and a file; closed sockets may take a moment longer. */
static size_t max_connections(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur > 2 * MAX_CONNECTIONS + 32)
        return MAX_CONNECTIONS;
    return limit.rlim_cur > 34 ? (size_t)(limit.rlim_cur - 32) / 2 : 1;
}

typedef struct options {
    const char *address, *cert, *key, *dir;
    int port;
} options;

static bool start(server *sv, const options *opt)
{
    char real[PATH_MAX], name[PYSOCK_ADDR_STRLEN];
    struct stat st;

    if (!realpath(opt->dir, real) || stat(real, &st) < 0 || !S_ISDIR(st.st_mode))
        return cli_complain("%s is not a directory that can be read", opt->dir);
    snprintf(sv->root, sizeof sv->root, "%s", strcmp(real, "/") == 0 ? "" : real);
    sv->max_count = max_connections();

    pysock_ssl_context *tls = cli_server_context(opt->cert, opt->key);
    bool ok = tls && (sv->listener = pysock_create_server(opt->address, opt->port, -1)) != NULL &&
              pysock_ssl_wrap_socket(sv->listener, tls, NULL) == 0 &&
              pysock_setblocking(sv->listener, 0) == 0 &&
              (sv->listen_fd = pysock_fileno(sv->listener)) >= 0 &&
              (sv->poller = pysock_poller_new()) != NULL &&
              pysock_poller_register(sv->poller, sv->listen_fd, POLLIN, NULL) == 0;
    pysock_ssl_context_release(tls); /* the listening socket has its own reference */
    if (!ok)
        return cli_complain_of_pysock();
    if (!watch_signals(sv))
        return cli_complain("cannot watch for signals: %s", strerror(errno));
    fprintf(stderr, "https_server: serving %s at https://%s/\n", real,
            cli_name_of(sv->listener, name));
    return true;
}

static void finish(server *sv)
{
    for (int fd = 0; fd < MAX_FD; fd++)
        if (sv->conns[fd])
            close_conn(sv, sv->conns[fd]);
    pysock_poller_release(sv->poller);
    pysock_close(sv->listener);
}

static const char usage[] =
    "usage: https_server [-p PORT] [-b ADDRESS] --cert FILE [--key FILE] DIR\n"
    "  -p PORT      default 8443; 0: any free port\n"
    "  -b ADDRESS   default 127.0.0.1; \"\": all of this machine's\n"
    "  --cert FILE  the certificate chain, PEM\n"
    "  --key FILE   its private key, PEM, if it is not in the same file\n"
    "  DIR          what to serve\n";

int main(int argc, char **argv)
{
    options opt = {.address = "127.0.0.1", .port = 8443};
    const cli_option table[] = {{"-p", .port = &opt.port},
                                {"-b", .text = &opt.address},
                                {"--cert", .text = &opt.cert},
                                {"--key", .text = &opt.key},
                                {.name = NULL}};
    static server sv; /* zeroed, and large for a stack */

    if (cli_parse(argc, argv, table, &opt.dir, 1, usage) == 0 || !opt.cert)
        cli_wrong_usage(usage);
    setvbuf(stdout, NULL, _IOLBF, 0);
    int status = start(&sv, &opt) ? serve(&sv) : 1;
    finish(&sv);
    return status;
}
