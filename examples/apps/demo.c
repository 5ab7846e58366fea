/*
demo: shows what pysock does, and checks everything that it shows.

cc -I. examples/apps/demo.c -o demo -lbearssl -lpthread

./demo

It needs no network, no file and no other program. A web server runs in one of its threads, on
loopback, with a certificate from below. Its clients are a blocking HTTPS client, a non-blocking one
with the loop from Python's documentation, and two that refuse its certificate. Then comes a chat
server on one thread, with plain and TLS clients side by side. Exit status 0 only if every check
passed.
*/
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#define CLI_PROGRAM "demo"
#include "cli.h"

#include <dirent.h>
#include <langinfo.h>
#include <locale.h>
#include <pthread.h>
#include <unistd.h>

#define TIMEOUT 10.0 /* seconds for any one thing */
#define NO_TIME (-1.0)

enum {
    DEADLINE = 60, /* seconds for the whole program */
    MILLION = 1000000,
    MEMBERS = 4,      /* in the chat */
    LINES_EACH = 250, /* that each member sends when all talk at once */
    MAX_TEXT = 64     /* bytes of a chat line */
};

/* A CA and a certificate that it issued for "localhost" and 127.0.0.1, valid from 2020 to 2120.
   They are public, the private key too: never use them for anything else. */
static const char ca_certificate[] =
    "-----BEGIN CERTIFICATE-----\n"
    "MIIBeDCCAR6gAwIBAgIUDstgdGxIrEh3V/Tf2JqVE4L1c/owCgYIKoZIzj0EAwIw\n"
    "GTEXMBUGA1UEAwwOcHlzb2NrIGRlbW8gQ0EwIBcNMjAwMTAxMDAwMDAwWhgPMjEy\n"
    "MDAxMDEwMDAwMDBaMBkxFzAVBgNVBAMMDnB5c29jayBkZW1vIENBMFkwEwYHKoZI\n"
    "zj0CAQYIKoZIzj0DAQcDQgAENCxnpDsPrVaOgIvgtHgfu9bbIqh1lzZTT3OogwTn\n"
    "Xk7wOIYuUzF/KAkoTufbJ1v0zkRC24k4pLYIn+2HBs8sU6NCMEAwDwYDVR0TAQH/\n"
    "BAUwAwEB/zAOBgNVHQ8BAf8EBAMCAQYwHQYDVR0OBBYEFDPj3H/3lSadtDEEYrFa\n"
    "509kimXoMAoGCCqGSM49BAMCA0gAMEUCICuqkugvV7vti1y9Wx4nWTetCHoms71Q\n"
    "5n2QLRp6ZV1DAiEAq189d5EkfoxWhrC2X2VqOLj9Lzb7MgPxGc4KWxtzmVY=\n"
    "-----END CERTIFICATE-----\n";

static const char server_certificate[] =
    "-----BEGIN CERTIFICATE-----\n"
    "MIIBxTCCAWqgAwIBAgIUYqsNOJ+3QackYHVd9BxigorqlSAwCgYIKoZIzj0EAwIw\n"
    "GTEXMBUGA1UEAwwOcHlzb2NrIGRlbW8gQ0EwIBcNMjAwMTAxMDAwMDAwWhgPMjEy\n"
    "MDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMMCWxvY2FsaG9zdDBZMBMGByqGSM49AgEG\n"
    "CCqGSM49AwEHA0IABKNNOEX5Vir/oagWAqE5xNglqhVmfRIUhk+dgLae2zaf3RVW\n"
    "6qLtTAhHcbBsjbpl/mkX02zP94YddT1Lo2c95FmjgZIwgY8wDAYDVR0TAQH/BAIw\n"
    "ADAOBgNVHQ8BAf8EBAMCB4AwEwYDVR0lBAwwCgYIKwYBBQUHAwEwGgYDVR0RBBMw\n"
    "EYIJbG9jYWxob3N0hwR/AAABMB0GA1UdDgQWBBSqI5LchODpQS557fvXuuF1E3D4\n"
    "vDAfBgNVHSMEGDAWgBQz49x/95UmnbQxBGKxWudPZIpl6DAKBggqhkjOPQQDAgNJ\n"
    "ADBGAiEAo6HEbcDJXW7joTGpsZeZoEbZvV8rtjs+fdkW87Gj1nICIQCBz1IKAfRq\n"
    "Qrqs5swj7kBTVhIHBN3CklTbOljYaRv+vg==\n"
    "-----END CERTIFICATE-----\n";

static const char server_key[] =
    "-----BEGIN PRIVATE KEY-----\n"
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg0KJct/7JTWBYjlba\n"
    "B6DVg98MqbZWxBLtYGZO29NZRa+hRANCAASjTThF+VYq/6GoFgKhOcTYJaoVZn0S\n"
    "FIZPnYC2nts2n90VVuqi7UwIR3GwbI26Zf5pF9Nsz/eGHXU9S6NnPeRZ\n"
    "-----END PRIVATE KEY-----\n";

/* ---- what is shown ---- */

typedef struct demo {
    bool color, utf8;
    int passed, failed;
    int base_threads; /* those that are not the library's */
} demo;

/* For the watchdog, a signal handler, which has no argument. */
static const char *volatile current_part = "start";

static void on_alarm(int number)
{
    const char *text[] = {"\ndemo: FAILED: it hangs in \"", current_part, "\"\n"};

    (void)number;
    for (int i = 0; i < 3; i++)
        if (write(STDERR_FILENO, text[i], strlen(text[i])) < 0)
            break;
    _exit(1);
}

/* The escape sequence, if the terminal shows colors. */
static const char *style(const demo *d, const char *escape)
{
    return d->color ? escape : "";
}

#define BOLD "\033[1m"
#define DIM "\033[2m"
#define RED "\033[1;31m"
#define GREEN "\033[32m"
#define PLAIN "\033[0m"

static void part(const demo *d, const char *title)
{
    current_part = title;
    pysock_error_clear();
    printf("\n%s%s%s\n\n", style(d, BOLD), title, style(d, PLAIN));
}

/* Prints code, a message, or a member's words. Long lines are wrapped. */
static void show(const demo *d, const char *text)
{
    enum { WIDTH = 74 };

    while (*text) {
        size_t n = strlen(text);
        if (n > WIDTH)
            for (n = WIDTH; n > 1 && text[n] != ' '; n--)
                continue;
        printf("      %s%.*s%s\n", style(d, DIM), (int)n, text, style(d, PLAIN));
        text += n;
        text += text[0] == ' ';
    }
}

/* One claim, with a check mark if it is true; returns whether it is. */
__attribute__((format(printf, 4, 5))) static bool check(demo *d, bool ok, double seconds,
                                                        const char *format, ...)
{
    char text[256];
    const char *mark = ok ? (d->utf8 ? "\u2713" : "ok") : (d->utf8 ? "\u2717" : "FAILED");
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    printf("  %s%s%s ", style(d, ok ? GREEN : RED), mark, style(d, PLAIN));
    if (seconds >= 0)
        printf("%-64s%s%9.2f ms%s\n", text, style(d, DIM), seconds * 1e3, style(d, PLAIN));
    else
        printf("%s\n", text);
    if (!ok && pysock_error())
        printf("      the last error was %s: %s\n", pysock_error_name(), pysock_error_message());
    if (ok)
        d->passed++;
    else
        d->failed++;
    return ok;
}

static int count_entries(const char *path)
{
    DIR *dir = opendir(path);
    int n = 0;

    if (!dir)
        return -1;
    for (struct dirent *e = readdir(dir); e; e = readdir(dir))
        n += e->d_name[0] != '.';
    closedir(dir);
    return n;
}

/* How many threads the library runs, or -1 if that is unknown (not on Linux). A thread
   that was joined may be listed a little longer, so this waits a moment for what is expected. */
static int library_threads(const demo *d, int expected)
{
    int n = -1;

    for (int i = 0; i < 1000; i++) {
        n = count_entries("/proc/self/task");
        if (n < 0 || n - d->base_threads == expected)
            break;
        usleep(1000);
    }
    return n < 0 ? -1 : n - d->base_threads;
}

static void check_threads(demo *d, int expected, const char *claim)
{
    int n = library_threads(d, expected);

    if (n >= 0)
        check(d, n == expected, NO_TIME, "%s: %d", claim, n);
}

/* ---- contexts ---- */

static pysock_ssl_context *client_context(bool trusting)
{
    pysock_ssl_context *tls = pysock_ssl_context_new(PYSOCK_SERVER_AUTH);

    if (!tls || !trusting ||
        pysock_ssl_load_verify_data(tls, ca_certificate, sizeof ca_certificate - 1) == 0)
        return tls;
    pysock_ssl_context_release(tls);
    return NULL;
}

/* A listening socket on a free port of 127.0.0.1. Its children speak TLS if it does. */
static pysock *listen_on_loopback(bool with_tls, int *port)
{
    pysock *s = pysock_create_server("127.0.0.1", 0, -1);
    pysock_ssl_context *tls = NULL;
    pysock_addr addr;
    bool ok = s && pysock_getsockname(s, &addr) == 0;

    if (ok && with_tls) {
        tls = pysock_ssl_server_context();
        ok = tls &&
             pysock_ssl_load_cert_chain_data(tls, server_certificate, sizeof server_certificate - 1,
                                             server_key, sizeof server_key - 1) == 0 &&
             pysock_ssl_wrap_socket(s, tls, NULL) == 0;
    }
    pysock_ssl_context_release(tls); /* the socket has its own reference */
    if (!ok) {
        pysock_close(s);
        return NULL;
    }
    *port = pysock_addr_port(&addr);
    return s;
}

/* ---- the web server: one thread, blocking sockets, one client after the other ---- */

typedef struct web {
    pysock *listener;
    int port;
    pthread_t thread;
    pthread_mutex_t lock;
    int clients;          /* guarded by lock: how many were served or refused */
    char last_reason[64]; /* guarded by lock: why the last one was not served */
} web;

/* Byte i of the large page. */
static char pattern(size_t i)
{
    return (char)(' ' + (i * 31 + i / 251) % 95);
}

static int send_head(pysock *s, const char *status, size_t length)
{
    char head[256];
    int n = snprintf(head, sizeof head,
                     "HTTP/1.1 %s\r\nContent-Type: text/html\r\nContent-Length: %zu\r\n"
                     "Connection: close\r\n\r\n",
                     status, length);

    return pysock_sendall(s, head, (size_t)n, 0);
}

static int send_million(pysock *s)
{
    char piece[10000];

    if (send_head(s, "200 OK", MILLION) < 0)
        return -1;
    for (size_t at = 0; at < MILLION; at += sizeof piece) {
        for (size_t i = 0; i < sizeof piece; i++)
            piece[i] = pattern(at + i);
        if (pysock_sendall(s, piece, sizeof piece, 0) < 0)
            return -1;
    }
    return 0;
}

static int send_page(pysock *s)
{
    pysock_ssl_cipher_info info;
    char page[256];

    if (pysock_ssl_cipher(s, &info) < 0)
        return -1;
    int n = snprintf(page, sizeof page,
                     "<!DOCTYPE html>\n<title>pysock</title>\n<p>Hello. We speak %s, %s.\n",
                     info.protocol, info.name);
    return send_head(s, "200 OK", (size_t)n) < 0 ? -1 : pysock_sendall(s, page, (size_t)n, 0);
}

static int serve_client(pysock *s)
{
    char request[2048];
    size_t len = 0;

    if (pysock_settimeout(s, TIMEOUT) < 0)
        return -1;
    while (!memmem(request, len, "\r\n\r\n", 4)) {
        ptrdiff_t n = pysock_recv(s, request + len, sizeof request - len, 0);
        if (n <= 0)
            return (int)n;
        len += (size_t)n;
    }
    if (len > 13 && memcmp(request, "GET /million ", 13) == 0)
        return send_million(s);
    if (len > 6 && memcmp(request, "GET / ", 6) == 0)
        return send_page(s);
    return send_head(s, "404 Not Found", 0);
}

static void *run_web(void *arg)
{
    web *w = arg;
    pysock *s;

    while ((s = pysock_accept(w->listener, NULL)) != NULL) {
        int result = serve_client(s);
        pthread_mutex_lock(&w->lock);
        w->clients++;
        snprintf(w->last_reason, sizeof w->last_reason, "%s",
                 result < 0 ? pysock_error_reason() : "");
        pthread_mutex_unlock(&w->lock);
        pysock_close(s);
    }
    return NULL; /* the listening socket was closed, in another thread */
}

static bool start_web(demo *d, web *w)
{
    w->listener = listen_on_loopback(true, &w->port);
    bool ok = w->listener && pthread_create(&w->thread, NULL, run_web, w) == 0;

    if (!check(d, ok, NO_TIME, "an HTTPS server, in a thread of its own: https://localhost:%d/",
               w->port)) {
        pysock_close(w->listener);
        return false;
    }
    d->base_threads = count_entries("/proc/self/task");
    return true;
}

static void stop_web(demo *d, web *w)
{
    double start = cli_now();

    pysock_close(w->listener);
    pthread_join(w->thread, NULL);
    d->base_threads--;
    check(d, true, cli_now() - start, "closing its listening socket woke the web server's accept");
}

/* Waits until the web server is done with that many clients; why it refused the last one. */
static void await_web(web *w, int clients, char reason[64])
{
    bool done = false;

    for (double deadline = cli_now() + TIMEOUT; !done && cli_now() < deadline; usleep(500)) {
        pthread_mutex_lock(&w->lock);
        done = w->clients >= clients;
        memcpy(reason, w->last_reason, sizeof w->last_reason);
        pthread_mutex_unlock(&w->lock);
    }
}

/* ---- a blocking client ---- */

/* Reads to the end of the stream; the size, or -1. The text is terminated with a NUL. */
static ptrdiff_t read_all(pysock *s, char *buf, size_t size)
{
    size_t len = 0;
    ptrdiff_t n;

    while ((n = pysock_recv(s, buf + len, size - 1 - len, 0)) > 0)
        len += (size_t)n;
    buf[len] = '\0';
    return n < 0 ? -1 : (ptrdiff_t)len;
}

/* Connects and does the handshake; NULL if that failed. */
static pysock *open_https(int port, pysock_ssl_context *tls, double *connected, double *shaken)
{
    double start = cli_now();
    pysock *s = pysock_create_connection("localhost", port, PYSOCK_NO_TIMEOUT);

    *connected = cli_now() - start;
    start = cli_now();
    if (!s || pysock_ssl_wrap_socket(s, tls, "localhost") < 0) {
        pysock_close(s);
        s = NULL;
    }
    *shaken = cli_now() - start;
    return s;
}

static void get_page(demo *d, pysock *s)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    char answer[2048];
    double start = cli_now();
    pysock_ssl_cipher_info info = {.name = "?"};
    bool ok = pysock_sendall(s, request, sizeof request - 1, 0) == 0 &&
              read_all(s, answer, sizeof answer) > 0;
    double seconds = cli_now() - start;
    const char *body = ok ? strstr(answer, "\r\n\r\n") : NULL;

    ok = body && strncmp(answer, "HTTP/1.1 200 OK\r\n", 17) == 0;
    if (!check(d, ok, seconds, "GET / was answered: 200 OK, %zu bytes", ok ? strlen(body + 4) : 0))
        return;
    check(d, pysock_ssl_cipher(s, &info) == 0 && strstr(body, info.name) != NULL, NO_TIME,
          "both sides name the same cipher");
    check(d, pysock_ssl_eof_is_clean(s) == 1, NO_TIME,
          "the end is a true end: close_notify, nothing cut off");
}

static void blocking_client(demo *d, const web *w)
{
    pysock_ssl_context *tls = client_context(true);
    pysock_ssl_cipher_info info = {.name = "?", .protocol = "?"};
    double connected, full, resumed;

    part(d, "2. A blocking HTTPS client");
    show(d, "s = pysock_create_connection(\"localhost\", port, PYSOCK_NO_TIMEOUT);");
    show(d, "pysock_ssl_wrap_socket(s, tls, \"localhost\");");
    show(d, "pysock_sendall(s, request, sizeof request - 1, 0);");
    show(d, "while ((n = pysock_recv(s, buf, sizeof buf, 0)) > 0) ...");
    puts("");

    pysock *s = open_https(w->port, tls, &connected, &full);
    bool ok = s && pysock_ssl_cipher(s, &info) == 0;
    if (!check(d, ok, connected + full, "connected: %s, %s", info.protocol, info.name)) {
        pysock_close(s);
        pysock_ssl_context_release(tls);
        return;
    }
    pysock_buf *certificate = pysock_ssl_getpeercert_der(s);
    check(d, pysock_buf_size(certificate) > 0, NO_TIME,
          "certificate of %zu bytes, verified against the CA and \"localhost\"",
          pysock_buf_size(certificate));
    pysock_buf_release(certificate);
    check_threads(d, 0, "threads of the library, as the callers do all the work");
    get_page(d, s); /* the server's close may start one, for output under way */
    pysock_close(s);

    s = open_https(w->port, tls, &connected, &resumed);
    check(d, s && pysock_ssl_session_reused(s) == 1, connected + resumed,
          "once more: the session is resumed, %.1f times as fast", full / resumed);
    pysock_close(s);
    pysock_ssl_context_release(tls);
}

/* ---- a non-blocking client ---- */

typedef struct turns {
    int want_read, want_write, frames, selects;
} turns;

/* select.select([s], [], [], timeout) */
static ptrdiff_t wait_readable(pysock *s, double timeout)
{
    int list[1] = {pysock_fileno(s)};
    size_t count = 1;

    return pysock_select(list, &count, NULL, NULL, NULL, NULL, timeout);
}

/* select.select([], [s], [], timeout) */
static ptrdiff_t wait_writable(pysock *s, double timeout)
{
    int list[1] = {pysock_fileno(s)};
    size_t count = 1;

    return pysock_select(NULL, NULL, list, &count, NULL, NULL, timeout);
}

/* The documented loop, in C. 0: finished; 1: in progress; -1: failed. */
static int handshake_loop(pysock *s, turns *t)
{
    for (;;) {
        int result = pysock_ssl_do_handshake(s);
        if (result == 0 || errno == EINPROGRESS)
            return result < 0;
        if (pysock_error() == PYSOCK_SSL_WANT_READ_ERROR) {
            t->want_read++;
            if (wait_readable(s, TIMEOUT) <= 0)
                return -1;
        } else if (pysock_error() == PYSOCK_SSL_WANT_WRITE_ERROR) {
            t->want_write++;
            if (wait_writable(s, TIMEOUT) <= 0)
                return -1;
        } else {
            return -1;
        }
    }
}

/* Draws a frame each millisecond until s is writable. False: an error, or it took too long. */
static bool draw_until_writable(pysock *s, turns *t)
{
    for (double deadline = cli_now() + TIMEOUT; cli_now() < deadline; t->frames++) {
        ptrdiff_t n = wait_writable(s, 0.001);
        if (n != 0)
            return n > 0;
    }
    return false;
}

/* Reads to the end of the stream without ever blocking in recv; the size, or -1. */
static ptrdiff_t read_all_selecting(pysock *s, char *buf, size_t size, turns *t)
{
    size_t len = 0;

    for (;;) {
        ptrdiff_t n = pysock_recv(s, buf + len, size - len, 0);
        if (n == 0)
            return (ptrdiff_t)len;
        if (n > 0) {
            len += (size_t)n;
            continue;
        }
        t->selects++;
        if (errno != EAGAIN || wait_readable(s, TIMEOUT) <= 0)
            return -1;
    }
}

static bool is_million(const char *answer, ptrdiff_t size)
{
    const char *body = size > 0 ? memmem(answer, (size_t)size, "\r\n\r\n", 4) : NULL;

    if (!body || answer + size - (body + 4) != MILLION)
        return false;
    for (size_t i = 0; i < MILLION; i++)
        if (body[4 + i] != pattern(i))
            return false;
    return true;
}

static void get_million(demo *d, pysock *s)
{
    static const char request[] = "GET /million HTTP/1.1\r\nHost: localhost\r\n\r\n";
    size_t size = MILLION + 4096;
    char *answer = malloc(size);
    turns t = {.selects = 0};
    double start = cli_now();
    ptrdiff_t n = -1;

    if (answer && pysock_sendall(s, request, sizeof request - 1, 0) == 0)
        n = read_all_selecting(s, answer, size, &t);
    double seconds = cli_now() - start;
    check(d, is_million(answer, n), seconds,
          "GET /million: every byte is right, after %d times select", t.selects);
    free(answer);
}

static bool shake_hands(demo *d, pysock *s, pysock_ssl_context *tls)
{
    pysock_ssl_wrap_options wrap = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    turns t = {.frames = 0};
    double start = cli_now();

    wrap.server_hostname = "localhost";
    wrap.no_handshake_on_connect = 1;
    int result = pysock_ssl_wrap_socket_ex(s, tls, &wrap);
    if (result == 0)
        result = handshake_loop(s, &t);
    double returned = cli_now() - start;
    if (!check(d, result >= 0, returned, "do_handshake returned at once: \"%s\"",
               result ? "in progress" : "finished"))
        return false;
    check(d, t.want_read + t.want_write == 0, NO_TIME,
          "SSLWantReadError %d times, SSLWantWriteError %d times: not needed", t.want_read,
          t.want_write);
    bool ok = draw_until_writable(s, &t) && pysock_ssl_do_handshake(s) == 0;
    return check(d, ok, cli_now() - start,
                 "select said writable, it is finished; %d frames drawn meanwhile", t.frames);
}

static bool connect_nonblocking(demo *d, pysock *s, int port)
{
    turns t = {.frames = 0};
    double start = cli_now();
    bool ok = s && pysock_setblocking(s, 0) == 0 &&
              (pysock_connect(s, "127.0.0.1", port) == 0 || errno == EINPROGRESS);

    ok = ok && draw_until_writable(s, &t) &&
         (pysock_connect(s, "127.0.0.1", port) == 0 || errno == EISCONN); /* the result */
    return check(d, ok, cli_now() - start, "connect returned at once, then select said writable");
}

static void nonblocking_client(demo *d, const web *w)
{
    pysock_ssl_context *tls = client_context(true);
    pysock *s = pysock_socket(AF_INET, SOCK_STREAM, 0);

    part(d, "3. A non-blocking one, with the loop from Python's documentation");
    show(d, "while True:");
    show(d, "    try:");
    show(d, "        s.do_handshake()");
    show(d, "        break");
    show(d, "    except ssl.SSLWantReadError:");
    show(d, "        select.select([s], [], [])");
    show(d, "    except ssl.SSLWantWriteError:");
    show(d, "        select.select([], [s], [])");
    puts("");

    if (connect_nonblocking(d, s, w->port) && shake_hands(d, s, tls))
        get_million(d, s);
    pysock_close(s);
    pysock_ssl_context_release(tls);
    check_threads(d, 1, "threads of the library, now one that finishes handshakes");
}

/* ---- clients that refuse ---- */

/* Tries a handshake that must fail, with this verify code. */
static void refuse(demo *d, web *w, bool trusting, const char *hostname, int code)
{
    pysock_ssl_context *tls = client_context(trusting);
    pysock *s = pysock_create_connection("127.0.0.1", w->port, TIMEOUT);
    double start = cli_now();
    int result = s ? pysock_ssl_wrap_socket(s, tls, hostname) : 0;
    double seconds = cli_now() - start;

    if (check(d, result < 0 && pysock_error() == PYSOCK_SSL_CERT_VERIFICATION_ERROR, seconds,
              "asked for \"%s\"%s: %s", hostname, trusting ? "" : ", CA unknown",
              pysock_error_name()))
        show(d, pysock_error_message());
    check(d, pysock_error_verify_code() == code, NO_TIME, "the reason, by OpenSSL's number: %d, %s",
          pysock_error_verify_code(), pysock_error_verify_message());
    pysock_close(s);
    pysock_ssl_context_release(tls);
}

static void refusing_clients(demo *d, web *w)
{
    char reason[64];

    part(d, "4. Clients that refuse, and say why");
    refuse(d, w, false, "localhost", 20);
    await_web(w, 4, reason);
    check(d, strcmp(reason, "TLSV1_ALERT_UNKNOWN_CA") == 0, NO_TIME, "the server was told why: %s",
          reason);
    refuse(d, w, true, "example.org", 62);
}

/* ---- the chat server: one thread, one poller ---- */

typedef struct client {
    pysock *s; /* NULL: this place is free */
    int fd;
    char line[MAX_TEXT];
    size_t len;
} client;

typedef struct chat {
    pysock_poller *poller;
    pysock *listeners[2]; /* plain, TLS */
    int listener_fds[2], ports[2];
    client clients[MEMBERS];
    pthread_t thread;
} chat;

/* One buffer for a line, queued on every socket. */
static void broadcast(chat *c, const char *line, size_t size)
{
    pysock_buf *b = pysock_buf_copy(line, size);

    for (int i = 0; b && i < MEMBERS; i++)
        if (c->clients[i].s)
            pysock_send_buf(c->clients[i].s, b);
    pysock_buf_release(b);
}

static void leave(chat *c, client *m)
{
    pysock_poller_unregister(c->poller, m->fd);
    pysock_close(m->s);
    m->s = NULL;
    m->len = 0;
}

static void receive_from(chat *c, client *m)
{
    ptrdiff_t n = pysock_recv(m->s, m->line + m->len, sizeof m->line - m->len, 0);
    char *start = m->line, *end;

    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        leave(c, m);
        return;
    }
    m->len += (size_t)n;
    while ((end = memchr(start, '\n', m->len)) != NULL) {
        size_t size = (size_t)(end + 1 - start);
        broadcast(c, start, size);
        m->len -= size;
        start = end + 1;
    }
    memmove(m->line, start, m->len);
    if (m->len == sizeof m->line)
        leave(c, m);
}

static void admit(chat *c, pysock *listener)
{
    pysock *s = pysock_accept(listener, NULL);

    for (int i = 0; s && i < MEMBERS; i++) {
        client *m = &c->clients[i];
        if (m->s)
            continue;
        m->s = s;
        m->fd = pysock_fileno(s);
        if (pysock_setblocking(s, 0) < 0 ||
            pysock_poller_register(c->poller, m->fd, POLLIN, NULL) < 0)
            leave(c, m);
        return;
    }
    pysock_close(s);
}

/* Nothing here tests which client uses TLS: the poller and recv handle both. */
static void *run_chat(void *arg)
{
    chat *c = arg;
    pysock_pollevent events[16];
    ptrdiff_t n;

    while ((n = pysock_poller_poll(c->poller, events, 16, PYSOCK_NO_TIMEOUT)) > 0) {
        for (ptrdiff_t i = 0; i < n; i++) {
            for (int k = 0; k < 2; k++) {
                if (events[i].fd != c->listener_fds[k])
                    continue;
                if (events[i].events & POLLNVAL) /* closed: the signal to stop */
                    return NULL;
                admit(c, c->listeners[k]);
            }
            for (int k = 0; k < MEMBERS; k++)
                if (c->clients[k].s && events[i].fd == c->clients[k].fd)
                    receive_from(c, &c->clients[k]);
        }
    }
    return NULL;
}

static bool start_chat(demo *d, chat *c)
{
    bool ok = (c->poller = pysock_poller_new()) != NULL;

    for (int i = 0; ok && i < 2; i++) {
        c->listeners[i] = listen_on_loopback(i == 1, &c->ports[i]);
        c->listener_fds[i] = pysock_fileno(c->listeners[i]);
        ok = c->listeners[i] && pysock_setblocking(c->listeners[i], 0) == 0 &&
             pysock_poller_register(c->poller, c->listener_fds[i], POLLIN, NULL) == 0;
    }
    ok = ok && pthread_create(&c->thread, NULL, run_chat, c) == 0;
    d->base_threads += ok;
    return check(d, ok, NO_TIME, "a chat server, one thread: plain on port %d, TLS on port %d",
                 c->ports[0], c->ports[1]);
}

static void stop_chat(demo *d, chat *c, bool running)
{
    pysock_close(c->listeners[0]);
    pysock_close(c->listeners[1]);
    if (running) {
        pthread_join(c->thread, NULL);
        d->base_threads--;
    }
    for (int i = 0; i < MEMBERS; i++)
        pysock_close(c->clients[i].s);
    pysock_poller_release(c->poller);
}

/* ---- its members: blocking sockets of the main thread ---- */

typedef struct member {
    const char *name;
    bool tls;
    pysock *s;
    char in[32768]; /* in[pos] to in[len - 1] is received and not yet read */
    size_t pos, len;
} member;

/* The next line, without its end, into line[MAX_TEXT]. False: an error, or the end. */
static bool hear(member *m, char *line)
{
    for (size_t n = 0; n < MAX_TEXT; n++) {
        if (m->pos == m->len) {
            ptrdiff_t got = pysock_recv(m->s, m->in, sizeof m->in, 0);
            if (got <= 0)
                return false;
            m->pos = 0;
            m->len = (size_t)got;
        }
        line[n] = m->in[m->pos++];
        if (line[n] == '\n') {
            line[n] = '\0';
            return true;
        }
    }
    return false;
}

__attribute__((format(printf, 2, 3))) static bool say(member *m, const char *format, ...)
{
    char text[MAX_TEXT], line[MAX_TEXT + 32];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    int n = snprintf(line, sizeof line, "%s: %s\n", m->name, text);
    return pysock_sendall(m->s, line, (size_t)n, 0) == 0;
}

static bool join_chat(member *m, const chat *c, pysock_ssl_context *tls)
{
    m->s = pysock_create_connection("127.0.0.1", c->ports[m->tls], TIMEOUT);
    return m->s && (!m->tls || pysock_ssl_wrap_socket(m->s, tls, "localhost") == 0);
}

/* All members receive the line of one; it is shown as it arrives at the next one. */
static bool say_and_hear(demo *d, member *members, int who, const char *text)
{
    char expected[MAX_TEXT], line[MAX_TEXT], shown[2 * MAX_TEXT];

    snprintf(expected, sizeof expected, "%s: %s", members[who].name, text);
    if (!say(&members[who], "%s", text))
        return false;
    for (int i = 0; i < MEMBERS; i++)
        if (!hear(&members[i], line) || strcmp(line, expected) != 0)
            return false;
    snprintf(shown, sizeof shown, "%-6s(%s)%s %s", members[who].name,
             members[who].tls ? "TLS" : "plain", members[who].tls ? "  " : "", text);
    show(d, shown);
    return true;
}

/* All talk at once. Every member must receive all lines, in one order that keeps each sender's. */
static bool talk_at_once(member *members)
{
    int next[MEMBERS] = {0};
    char first[MAX_TEXT], line[MAX_TEXT];

    for (int i = 0; i < LINES_EACH; i++)
        for (int who = 0; who < MEMBERS; who++)
            if (!say(&members[who], "%d", i))
                return false;
    for (int i = 0; i < LINES_EACH * MEMBERS; i++) {
        int who = 0, at = 0;
        for (int k = 0; k < MEMBERS; k++)
            if (!hear(&members[k], k == 0 ? first : line) || (k > 0 && strcmp(first, line) != 0))
                return false;
        while (who < MEMBERS && (strncmp(first, members[who].name, strlen(members[who].name)) != 0))
            who++;
        if (who == MEMBERS || sscanf(first, "%*[^:]: %d", &at) != 1 || at != next[who]++)
            return false;
    }
    return true;
}

static void talk(demo *d, member *members)
{
    bool ok = say_and_hear(d, members, 0, "Hello, everybody. Who is encrypted?") &&
              say_and_hear(d, members, 1, "I am. You sound no different.") &&
              say_and_hear(d, members, 2, "I am not. Does the server mind?") &&
              say_and_hear(d, members, 3, "Ask it: one poller, one recv, no special case.");
    double start = cli_now();

    if (!check(d, ok, NO_TIME, "every line reached all %d of them", MEMBERS))
        return;
    ok = talk_at_once(members);
    check(d, ok, cli_now() - start, "all talk at once: %d lines for each of %d, in the same order",
          LINES_EACH * MEMBERS, MEMBERS);
}

static void chat_room(demo *d)
{
    static member members[MEMBERS] = {{.name = "ada"},
                                      {.name = "grace", .tls = true},
                                      {.name = "alan"},
                                      {.name = "radia", .tls = true}};
    static chat c = {.listener_fds = {-1, -1}};
    pysock_ssl_context *tls = client_context(true);

    part(d, "5. A chat: one thread, one poller, plain and TLS side by side");
    bool running = start_chat(d, &c);
    if (running) {
        double start = cli_now();
        bool ok = tls != NULL;
        for (int i = 0; ok && i < MEMBERS; i++)
            ok = join_chat(&members[i], &c, tls);
        if (check(d, ok, cli_now() - start, "%d members joined, every second one by TLS", MEMBERS))
            talk(d, members);
        check_threads(d, 1, "threads of the library");
    }
    for (int i = 0; i < MEMBERS; i++)
        pysock_close(members[i].s);
    stop_chat(d, &c, running);
    pysock_ssl_context_release(tls);
}

/* ---- all of it ---- */

static void run(demo *d)
{
    static web w = {.lock = PTHREAD_MUTEX_INITIALIZER};
    int descriptors = count_entries("/proc/self/fd");

    part(d, "1. A web server");
    if (!start_web(d, &w))
        return;
    blocking_client(d, &w);
    nonblocking_client(d, &w);
    refusing_clients(d, &w);
    chat_room(d);

    part(d, "6. The end");
    stop_web(d, &w);
    pysock_cleanup();
    check_threads(d, 0, "threads that pysock_cleanup() left of the library");
    if (descriptors >= 0)
        check(d, count_entries("/proc/self/fd") == descriptors, NO_TIME,
              "as many descriptors are open as at the start");
}

static void report(const demo *d, double seconds)
{
    if (d->failed > 0)
        printf("\n%s%d of %d checks FAILED%s, in %.2f s.\n", style(d, RED), d->failed,
               d->passed + d->failed, style(d, PLAIN), seconds);
    else
        printf("\n%sAll %d checks passed%s, in %.2f s.\n", style(d, GREEN), d->passed,
               style(d, PLAIN), seconds);
}

int main(int argc, char **argv)
{
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
    demo d = {.passed = 0};
    double start = cli_now();

    cli_parse(argc, argv, &(cli_option){.name = NULL}, NULL, 0,
              "usage: demo\n"
              "Shows what pysock does, on loopback, and checks it. It takes no arguments; colors\n"
              "are for terminals, and NO_COLOR=1 switches them off.\n");
    setlocale(LC_CTYPE, "");
    d.utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    d.color = isatty(STDOUT_FILENO) && !(no_color && *no_color) &&
              !(term && strcmp(term, "dumb") == 0);
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGALRM, on_alarm);
    alarm(DEADLINE);

    printf("%spysock " PYSOCK_VERSION "%s: Python's socket, select and ssl, in one C header\n",
           style(&d, BOLD), style(&d, PLAIN));
    run(&d);
    report(&d, cli_now() - start);
    return d.failed > 0 ? 1 : 0;
}
