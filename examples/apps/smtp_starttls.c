/*
smtp_starttls: an SMTP client that goes from plain text to TLS on the same socket (RFC 3207).

cc -I. examples/apps/smtp_starttls.c -o smtp_starttls -lbearssl -lpthread

./smtp_starttls mail.example.org
./smtp_starttls --from me@example.org --to you@example.net mail.example.org 587 < message.txt

It connects, sends EHLO and STARTTLS, wraps the socket in place, sends EHLO again and prints the
server's extensions. With --from and --to it also delivers a message, with its header, to every
recipient or to none. What makes the change safe:

- if the server does not offer STARTTLS, nothing is sent: an attacker may have removed the offer;
- there must be no input between the server's "220" and the handshake: an attacker could inject
  plain text there, to be treated as part of the encrypted session;
- earlier replies are discarded, and EHLO is sent again.
*/
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#define CLI_PROGRAM "smtp_starttls"
#include "cli.h"

enum {
    MAX_RECIPIENTS = 100,
    MAX_ADDRESS = 254,     /* RFC 5321, with its errata */
    MAX_MESSAGE = 1 << 20, /* bytes */
    MAX_TEXT_LINE = 998,   /* bytes of a message's line */
    MAX_REPLY_LINES = 100,
    MAX_REPLY = 8192
};

typedef struct options {
    const char *host, *cafile, *from, *to[MAX_RECIPIENTS];
    size_t recipients;
    int port;
    double timeout;
    bool insecure;
} options;

typedef struct message {
    char *data;
    size_t size;
    bool has_8bit;
} message;

typedef struct smtp {
    pysock *s;
    double timeout; /* for each step of the conversation */
    char in[4096];  /* received and not yet read: from in_pos to in_len */
    size_t in_pos, in_len;
} smtp;

typedef struct reply {
    int code;
    char text[MAX_REPLY]; /* the lines without code, each with its '\n' */
} reply;

static int fail(const char *format, ...)
{
    va_list list;

    fputs("smtp_starttls: ", stderr);
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
    return -1;
}

static int fail_pysock(const char *what)
{
    return fail("%s: %s", what, pysock_error_message());
}

/* ---- replies ---- */

/* One recv, within the deadline of the whole reply. */
static int fill(smtp *c, double deadline)
{
    double left = deadline - cli_now();

    if (pysock_settimeout(c->s, left > 0.001 ? left : 0.001) < 0)
        return fail_pysock("cannot set the timeout");
    ptrdiff_t n = pysock_recv(c->s, c->in, sizeof c->in, 0);
    if (n < 0)
        return fail_pysock("no answer");
    if (n == 0)
        return fail("the server has closed the connection");
    c->in_pos = 0;
    c->in_len = (size_t)n;
    return 0;
}

/* Reads a line, without its end; control characters become '?'. */
static int read_line(smtp *c, char *line, size_t size, double deadline)
{
    size_t n = 0;

    for (;;) {
        if (c->in_pos == c->in_len && fill(c, deadline) < 0)
            return -1;
        char byte = c->in[c->in_pos++];
        if (byte == '\n')
            break;
        if (n + 1 >= size)
            return fail("the server's line is too long: is it an SMTP server?");
        line[n++] = byte;
    }
    if (n > 0 && line[n - 1] == '\r')
        n--;
    line[n] = '\0';
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
            line[i] = '?';
    return 0;
}

/* "250-..." for all lines except the last, which is "250 ..." or "250". */
static int line_code(const char *line)
{
    for (int i = 0; i < 3; i++)
        if (line[i] < '0' || line[i] > '9')
            return -1;
    if (line[0] < '2' || line[0] > '5' || (line[3] && line[3] != ' ' && line[3] != '-'))
        return -1;
    return (line[0] - '0') * 100 + (line[1] - '0') * 10 + line[2] - '0';
}

static int read_reply(smtp *c, reply *r)
{
    double deadline = cli_now() + c->timeout;
    char line[1024];
    size_t used = 0;

    for (int i = 0; i < MAX_REPLY_LINES; i++) {
        if (read_line(c, line, sizeof line, deadline) < 0)
            return -1;
        int code = line_code(line);
        if (code < 0 || (i > 0 && code != r->code))
            return fail("this is no SMTP reply: \"%.60s\"", line);
        r->code = code;
        int n = snprintf(r->text + used, sizeof r->text - used, "%s\n", line[3] ? line + 4 : "");
        used += (size_t)n;
        if (used >= sizeof r->text)
            break;
        if (line[3] != '-')
            return 0;
    }
    return fail("the server's reply is too long");
}

/* What a code means, in case the server's text is not clear. */
static const char *meaning(int code)
{
    switch (code) {
    case 421: return "the server is closing; try again later";
    case 450: return "the mailbox is busy, or the server asks us to try later";
    case 451: return "the server had an internal error; try again later";
    case 452: return "the server has no space at the moment; try again later";
    case 454: return "the server cannot do TLS at the moment; try again later";
    case 455: return "the server cannot take these parameters at the moment";
    case 500: return "the server does not know the command";
    case 501: return "the server rejects the parameters";
    case 502: return "the server has not got the command";
    case 503: return "the server did not expect the command now";
    case 504: return "the server does not implement the parameter";
    case 521: return "this host takes no mail";
    case 530: return "the server wants to know first who we are, which this program cannot tell";
    case 535: return "the server does not accept who we are";
    case 550: return "no such mailbox, or we may not write to it";
    case 551: return "the mailbox is elsewhere";
    case 552: return "the message is too large, or the mailbox is full";
    case 553: return "the server rejects the address";
    case 554: return "the server refuses us, or the message";
    case 555: return "the server does not know the parameters of the address";
    default: break;
    }
    switch (code / 100) {
    case 4: return "it may work later";
    case 5: return "it will not work later either";
    default: return "an unexpected reply";
    }
}

/* Fails unless the reply has the wanted code; what: the command it replies to. */
static int expect(smtp *c, reply *r, int wanted, const char *what)
{
    if (read_reply(c, r) < 0)
        return fail("this should have been the reply to %s", what);
    if (r->code == wanted)
        return 0;
    return fail("%s: %d %.*s (%s)", what, r->code, (int)strcspn(r->text, "\n"), r->text,
                meaning(r->code));
}

/* ---- commands ---- */

/* Sends a line, and reads the reply to it. */
static int command(smtp *c, reply *r, int wanted, const char *format, ...)
{
    char line[600];
    va_list list;

    va_start(list, format);
    int n = vsnprintf(line, sizeof line - 2, format, list);
    va_end(list);
    if (n < 0 || (size_t)n >= sizeof line - 2)
        return fail("a command is too long");
    memcpy(line + n, "\r\n", 3);
    if (pysock_settimeout(c->s, c->timeout) < 0 || pysock_sendall(c->s, line, (size_t)n + 2, 0) < 0)
        return fail_pysock("cannot send");
    line[n] = '\0';
    return expect(c, r, wanted, line);
}

/* A client without a name sends its address (RFC 5321, 4.1.4). */
static int say_ehlo(smtp *c, reply *r)
{
    char ip[INET6_ADDRSTRLEN] = "";
    pysock_addr addr;

    if (pysock_getsockname(c->s, &addr) < 0)
        return fail_pysock("cannot tell our address");
    bool six = addr.u.sa.sa_family == AF_INET6;
    const void *packed = six ? (const void *)&addr.u.in6.sin6_addr : &addr.u.in.sin_addr;
    if (pysock_inet_ntop(addr.u.sa.sa_family, packed, six ? 16 : 4, ip, sizeof ip) < 0)
        return fail_pysock("cannot tell our address");
    return command(c, r, 250, "EHLO [%s%s]", six ? "IPv6:" : "", ip);
}

/* Whether a line of EHLO's reply, after the first, begins with this word. */
static bool offers(const reply *r, const char *word)
{
    const char *line = strchr(r->text, '\n');
    size_t n = strlen(word);

    for (; line && line[1]; line = strchr(line + 1, '\n'))
        if (strncasecmp(line + 1, word, n) == 0 && strchr(" \n", line[1 + n]))
            return true;
    return false;
}

/* ---- TLS ---- */

static int start_tls(smtp *c, pysock_ssl_context *tls, const options *opt, reply *r)
{
    pysock_ssl_cipher_info info = {.name = "?"};

    if (!offers(r, "STARTTLS"))
        return fail("the server does not offer STARTTLS, or somebody on the way hides it: "
                    "not going on in plain text");
    if (command(c, r, 220, "STARTTLS") < 0)
        return -1;
    /* Input that is still in the kernel needs no test: TLS rejects plain text. */
    if (c->in_pos < c->in_len)
        return fail("%zu bytes of plain text came behind the answer to STARTTLS: somebody on the "
                    "way may have put them there",
                    c->in_len - c->in_pos);
    if (pysock_settimeout(c->s, c->timeout) < 0 || pysock_ssl_wrap_socket(c->s, tls, opt->host) < 0)
        return fail_pysock("cannot change to TLS");
    pysock_ssl_cipher(c->s, &info);
    printf("%s, %s, the certificate was %s\n", pysock_ssl_version(c->s), info.name,
           opt->insecure ? "NOT verified" : "verified");
    return 0;
}

/* ---- the message ---- */

static int check_message(message *m)
{
    size_t line = 0;

    for (size_t i = 0; i < m->size; i++) {
        unsigned char byte = (unsigned char)m->data[i];
        if (byte == 0)
            return fail("the message has a NUL, which mail cannot carry");
        m->has_8bit = m->has_8bit || byte >= 0x80;
        line = byte == '\n' || byte == '\r' ? 0 : line + 1;
        if (line > MAX_TEXT_LINE)
            return fail("the message has a line of more than %d bytes, which mail cannot carry",
                        MAX_TEXT_LINE);
    }
    return m->size > 0 ? 0 : fail("there is no message on stdin");
}

/* Reads all of it before connecting, as the server would time out while a user types. */
static int read_message(message *m)
{
    m->data = malloc(MAX_MESSAGE + 1);
    if (!m->data)
        return fail("no memory for the message");
    m->size = fread(m->data, 1, MAX_MESSAGE + 1, stdin);
    if (ferror(stdin))
        return fail("cannot read the message: %s", strerror(errno));
    if (m->size > MAX_MESSAGE)
        return fail("the message is larger than %d bytes", MAX_MESSAGE);
    return check_message(m);
}

/* All lines get CR LF at their end: another line end, which servers interpret differently, could
   hide a second message. A dot at the beginning is doubled. */
static int write_text(pysock_file *f, const message *m)
{
    bool at_start = true, after_cr = false;
    ptrdiff_t n = 0;

    for (size_t i = 0; i < m->size && n >= 0; i++) {
        char byte = m->data[i];
        bool ends = byte == '\r' || (byte == '\n' && !after_cr);
        if (ends)
            n = pysock_file_write(f, "\r\n", 2, NULL);
        else if (byte != '\n' && at_start && byte == '.')
            n = pysock_file_write(f, "..", 2, NULL);
        else if (byte != '\n')
            n = pysock_file_write(f, &byte, 1, NULL);
        after_cr = byte == '\r';
        at_start = byte == '\r' || byte == '\n';
    }
    if (n >= 0 && !at_start)
        n = pysock_file_write(f, "\r\n", 2, NULL);
    return n < 0 ? -1 : 0;
}

static int send_text(smtp *c, const message *m)
{
    pysock_file *f = pysock_makefile(c->s, "w", -1);
    int result = f ? write_text(f, m) : -1;

    if (result == 0 && pysock_file_write(f, ".\r\n", 3, NULL) < 0)
        result = -1;
    if (f && pysock_file_close(f) < 0)
        result = -1;
    return result < 0 ? fail_pysock("cannot send the message") : 0;
}

static int deliver(smtp *c, const options *opt, const message *m, reply *r)
{
    bool mime = offers(r, "8BITMIME");

    if (m->has_8bit && !mime)
        return fail("the message has 8-bit text, which this server does not take");
    if (command(c, r, 250, "MAIL FROM:<%s>%s", opt->from, m->has_8bit ? " BODY=8BITMIME" : "") < 0)
        return -1;
    for (size_t i = 0; i < opt->recipients; i++)
        if (command(c, r, 250, "RCPT TO:<%s>", opt->to[i]) < 0)
            return -1;
    if (command(c, r, 354, "DATA") < 0 || send_text(c, m) < 0 ||
        expect(c, r, 250, "the message") < 0)
        return -1;
    printf("sent: %s", r->text);
    return 0;
}

/* ---- the whole of it ---- */

static int talk(smtp *c, pysock_ssl_context *tls, const options *opt, const message *m)
{
    reply r;

    if (expect(c, &r, 220, "connecting") < 0 || say_ehlo(c, &r) < 0 ||
        start_tls(c, tls, opt, &r) < 0 || say_ehlo(c, &r) < 0)
        return -1;
    printf("%s", r.text);
    if (opt->from && deliver(c, opt, m, &r) < 0)
        return -1;
    /* All is done: the reply to QUIT does not matter. */
    command(c, &r, 221, "QUIT");
    return 0;
}

static int run(const options *opt)
{
    static smtp c; /* zeroed */
    message m = {.data = NULL};
    pysock_ssl_context *tls = NULL;
    int result = opt->from ? read_message(&m) : 0;

    c.timeout = opt->timeout;
    if (result == 0 && (tls = cli_client_context(opt->cafile, opt->insecure, NULL, NULL)) == NULL)
        result = fail_pysock("cannot set TLS up");
    if (result == 0 && (c.s = pysock_create_connection(opt->host, opt->port, c.timeout)) == NULL)
        result = fail_pysock("cannot connect");
    if (result == 0)
        result = talk(&c, tls, opt, &m);
    pysock_close(c.s);
    pysock_ssl_context_release(tls);
    free(m.data);
    return result == 0 ? 0 : 1;
}

static int usage(FILE *to)
{
    fputs("usage: smtp_starttls [OPTIONS] [--from ADDRESS --to ADDRESS ...] HOST [PORT]\n"
          "  PORT             default 587\n"
          "  --from, --to     send the message on stdin, header and all; --to for each recipient\n"
          "  --cafile FILE    trust the certificates in this PEM file, not the system's\n"
          "  --insecure       accept any certificate: open to man-in-the-middle attacks\n"
          "  --timeout N      seconds for each step; default 30\n",
          to);
    return to == stdout ? 0 : 2;
}

/* An address is part of a command: it must not contain what could end that or begin another. */
static bool is_address(const char *text)
{
    size_t n = strlen(text);

    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] <= ' ' || (unsigned char)text[i] >= 0x7f ||
            strchr("<>\"\\", text[i]))
            return false;
    return n > 0 && n <= MAX_ADDRESS && strchr(text, '@');
}

/* An option with a value. */
static bool take_option(options *opt, const char *name, const char *value)
{
    if (strcmp(name, "--cafile") == 0) {
        opt->cafile = value;
        return true;
    }
    if (strcmp(name, "--timeout") == 0)
        return cli_parse_seconds(value, &opt->timeout);
    if (strcmp(name, "--from") == 0) {
        opt->from = value;
        return is_address(value);
    }
    if (strcmp(name, "--to") != 0 || opt->recipients == MAX_RECIPIENTS)
        return false;
    opt->to[opt->recipients++] = value;
    return is_address(value);
}

int main(int argc, char **argv)
{
    static options opt = {.port = 587, .timeout = 30};
    const char *port = NULL;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--help") == 0)
            return usage(stdout);
        if (strcmp(argv[i], "--insecure") == 0)
            opt.insecure = true;
        else if (argv[i][0] != '-' && !opt.host)
            opt.host = argv[i];
        else if (argv[i][0] != '-' && !port)
            port = argv[i];
        else if (i + 1 < argc && take_option(&opt, argv[i], argv[i + 1]))
            i++;
        else
            return usage(stderr);
    }
    if (port)
        opt.port = cli_parse_port(port, 1);
    if (!opt.host || opt.port < 0 || !opt.from != !opt.recipients)
        return usage(stderr);
    setvbuf(stdout, NULL, _IOLBF, 0);
    return run(&opt);
}
