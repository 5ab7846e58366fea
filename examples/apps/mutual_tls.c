/*
mutual_tls: server and client both present a certificate; the server greets the client by name.

cc -I. examples/apps/mutual_tls.c -o mutual_tls -lbearssl -lpthread

./mutual_tls
./mutual_tls server --cert server.pem --key server.key --cafile ca.pem -p 7443
./mutual_tls client --cert ada.pem --key ada.key --cafile ca.pem localhost 7443

Without arguments it is both server and client, with built-in certificates: a client with a valid
certificate, one without, and one with a self-signed certificate. The server distinguishes all three
before any application data is exchanged, and each side reports the reason.

--cafile has a different meaning on each side: the CAs that may issue the server's certificate, and
those that may issue its clients'. The server serves one client at a time, and each call may take
TIMEOUT seconds at most.
*/
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#define CLI_PROGRAM "mutual_tls"
#include "cli.h"

#include <pthread.h>
#include <unistd.h>

#define TIMEOUT 10.0

/* ---- certificates for the run without arguments ----
   A CA; "localhost" and "Ada", which it has issued; "Mallory", which is self-signed. Valid from
   2020 to 2120. The keys are public: never use them for anything else. */

static const char ca_certificate[] =
    "-----BEGIN CERTIFICATE-----\n"
    "MIIBdTCCARqgAwIBAgIQQAWnk4AQN/tdBRNouoVPZzAKBggqhkjOPQQDAjAZMRcw\n"
    "FQYDVQQDDA5weXNvY2sgZGVtbyBDQTAgFw0yMDAxMDEwMDAwMDBaGA8yMTIwMDEw\n"
    "MTAwMDAwMFowGTEXMBUGA1UEAwwOcHlzb2NrIGRlbW8gQ0EwWTATBgcqhkjOPQIB\n"
    "BggqhkjOPQMBBwNCAAT+qv2jA9UV0kqPQNZ7Z0o1TPOWNwvTE5CHXy8/5PhTPm4X\n"
    "LADpZNDFvzarrazHokAuTIUYMyZLqH6EDhO7ihGco0IwQDAPBgNVHRMBAf8EBTAD\n"
    "AQH/MA4GA1UdDwEB/wQEAwIBBjAdBgNVHQ4EFgQUqkOsXYbNgHT2TTROROucDdqK\n"
    "IcswCgYIKoZIzj0EAwIDSQAwRgIhAMvKi+1yovxAwXZ08IWCYTlbm7jWk9u6cw5+\n"
    "mRZ/lr9VAiEAoY4nBRW3PcSn2QoUbo6dNl+e/Ycw0zvP2cdDI79/Tjs=\n"
    "-----END CERTIFICATE-----\n";

static const char server_certificate[] =
    "-----BEGIN CERTIFICATE-----\n"
    "MIIBwDCCAWagAwIBAgIQQPFhHbtZMANfh/PaGKu7rTAKBggqhkjOPQQDAjAZMRcw\n"
    "FQYDVQQDDA5weXNvY2sgZGVtbyBDQTAgFw0yMDAxMDEwMDAwMDBaGA8yMTIwMDEw\n"
    "MTAwMDAwMFowFDESMBAGA1UEAwwJbG9jYWxob3N0MFkwEwYHKoZIzj0CAQYIKoZI\n"
    "zj0DAQcDQgAEyj7k59A9WdaqZQLZK8JUXl0eBkyWhdhfmswmRc84TU7dFB6kMWdT\n"
    "9+em0SLm45WK1awLuB1VpDk4tcAx0/g1SqOBkjCBjzAMBgNVHRMBAf8EAjAAMA4G\n"
    "A1UdDwEB/wQEAwIHgDAdBgNVHQ4EFgQUyRQbdYGFX+5CL38SvSxzCgR4d3AwHwYD\n"
    "VR0jBBgwFoAUqkOsXYbNgHT2TTROROucDdqKIcswEwYDVR0lBAwwCgYIKwYBBQUH\n"
    "AwEwGgYDVR0RBBMwEYIJbG9jYWxob3N0hwR/AAABMAoGCCqGSM49BAMCA0gAMEUC\n"
    "IQDM2DbX0iMp499bZOlCO113eIowcnsXviO+DeaA9JR/GgIgYX+pn8PkgmhG9e7I\n"
    "hzvmxwn/cU2l+JzVBQTFPosKp5g=\n"
    "-----END CERTIFICATE-----\n";

static const char server_key[] =
    "-----BEGIN PRIVATE KEY-----\n"
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgeiwtQ4a0TQzsffY7\n"
    "BqzZ/TugZegINkh58P4lKEQVqT+hRANCAATKPuTn0D1Z1qplAtkrwlReXR4GTJaF\n"
    "2F+azCZFzzhNTt0UHqQxZ1P356bRIubjlYrVrAu4HVWkOTi1wDHT+DVK\n"
    "-----END PRIVATE KEY-----\n";

static const char ada_certificate[] =
    "-----BEGIN CERTIFICATE-----\n"
    "MIIBmzCCAUKgAwIBAgIQQEZZootgL8Vf/be8IIp5+DAKBggqhkjOPQQDAjAZMRcw\n"
    "FQYDVQQDDA5weXNvY2sgZGVtbyBDQTAgFw0yMDAxMDEwMDAwMDBaGA8yMTIwMDEw\n"
    "MTAwMDAwMFowDjEMMAoGA1UEAwwDQWRhMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcD\n"
    "QgAECAi+TQFHl+JrOYPkm3Tca6Rt5zaLod3OajfnDBzNv9qK2Pkau5duhk+fARtp\n"
    "Ueil8ubAlbCpwQkSZh0OdK4yaKN1MHMwDAYDVR0TAQH/BAIwADAOBgNVHQ8BAf8E\n"
    "BAMCB4AwHQYDVR0OBBYEFJdagLFwurL6hEi0nJwEnabyyVT4MB8GA1UdIwQYMBaA\n"
    "FKpDrF2GzYB09k00TkTrnA3aiiHLMBMGA1UdJQQMMAoGCCsGAQUFBwMCMAoGCCqG\n"
    "SM49BAMCA0cAMEQCIAashafmIb54hxL2hOcRFJYYDgMndZ8ZmbPbAgAB4DsrAiBD\n"
    "QgSTWSvZj22EWB2LlQWGUEROLBg8+f6yN1eCh5Zmrg==\n"
    "-----END CERTIFICATE-----\n";

static const char ada_key[] = "-----BEGIN PRIVATE KEY-----\n"
                              "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgi5wZj0eMy0JI+R7Y\n"
                              "6PnoKONaOfHIzZXSnjjLTA3KVUqhRANCAAQICL5NAUeX4ms5g+SbdNxrpG3nNouh\n"
                              "3c5qN+cMHM2/2orY+Rq7l26GT58BG2lR6KXy5sCVsKnBCRJmHQ50rjJo\n"
                              "-----END PRIVATE KEY-----\n";

static const char mallory_certificate[] =
    "-----BEGIN CERTIFICATE-----\n"
    "MIIBdzCCAR6gAwIBAgIQQHylmscI+pqySqAmXll+fzAKBggqhkjOPQQDAjASMRAw\n"
    "DgYDVQQDDAdNYWxsb3J5MCAXDTIwMDEwMTAwMDAwMFoYDzIxMjAwMTAxMDAwMDAw\n"
    "WjASMRAwDgYDVQQDDAdNYWxsb3J5MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n"
    "9Jc+rxKhs5hyqSUkr0s0VyOXxXY/mnJcl8dFh5Pf3hL+YjcGPZBkb8emqq7ixpzJ\n"
    "2ooYUZPnDvOINhupAgCC0qNUMFIwDAYDVR0TAQH/BAIwADAOBgNVHQ8BAf8EBAMC\n"
    "B4AwHQYDVR0OBBYEFELgf7NpQaFpQvV7FuiQI8v/ulA9MBMGA1UdJQQMMAoGCCsG\n"
    "AQUFBwMCMAoGCCqGSM49BAMCA0cAMEQCIAwFB9E8mFPDG9RssHXuU0vKnov1edO2\n"
    "qMKYdTp8oYhMAiBk5WIVvtpgW+AEuzX9QKu8EdTRvuw3nWoOWeH95P57sA==\n"
    "-----END CERTIFICATE-----\n";

static const char mallory_key[] =
    "-----BEGIN PRIVATE KEY-----\n"
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg4n4uGZuk9CMjki3V\n"
    "0wHGKtYmQy81Ex++jzD92YZ1Ve2hRANCAAT0lz6vEqGzmHKpJSSvSzRXI5fFdj+a\n"
    "clyXx0WHk9/eEv5iNwY9kGRvx6aqruLGnMnaihhRk+cO84g2G6kCAILS\n"
    "-----END PRIVATE KEY-----\n";

/* ---- both sides ---- */

/* A certificate and its key, in files or in memory. All NULL: none. */
typedef struct identity {
    const char *certfile, *keyfile, *cert, *key;
} identity;

static int complain(const char *who, const char *what)
{
    fprintf(stderr, "%s: %s: %s\n", who, what, pysock_error_message());
    return -1;
}

static int load_identity(pysock_ssl_context *tls, const identity *me)
{
    if (me->certfile)
        return pysock_ssl_load_cert_chain(tls, me->certfile, me->keyfile);
    if (me->cert)
        return pysock_ssl_load_cert_chain_data(tls, me->cert, strlen(me->cert), me->key,
                                               strlen(me->key));
    return 0;
}

/* cafile NULL: the built-in CA. Not the system's: with those, a server would accept any client with
   a certificate of a public CA. */
static pysock_ssl_context *make_context(pysock_ssl_purpose purpose, const identity *me,
                                        const char *cafile)
{
    pysock_ssl_context *tls = pysock_ssl_context_new(purpose);

    if (tls && load_identity(tls, me) == 0 &&
        (cafile ? pysock_ssl_load_verify_locations(tls, cafile, NULL)
                : pysock_ssl_load_verify_data(tls, ca_certificate, sizeof ca_certificate - 1)) == 0)
        return tls;
    complain("mutual_tls", "cannot set TLS up");
    pysock_ssl_context_release(tls);
    return NULL;
}

/* The common name, in text[size]. Names that contain a NUL are ignored, as a C string would show
   only the part before it; so are those with control characters. */
static bool common_name(pysock *s, char *text, size_t size)
{
    pysock_ssl_cert *cert = pysock_ssl_getpeercert(s);
    bool found = false;

    for (size_t i = 0; cert && i < cert->subject_count && !found; i++) {
        const pysock_ssl_attribute *a = &cert->subject[i];
        found = strcmp(a->name, "commonName") == 0 && strlen(a->value) == a->value_size &&
                a->value_size > 0 && a->value_size < size;
        if (found)
            memcpy(text, a->value, a->value_size + 1);
    }
    for (size_t i = 0; found && text[i]; i++)
        found = (unsigned char)text[i] >= ' ' && text[i] != 0x7f;
    pysock_ssl_cert_free(cert);
    return found;
}

/* ---- the server ---- */

static pysock *listen_with_tls(const char *address, int port, const identity *me,
                               const char *cafile)
{
    pysock_ssl_context *tls = make_context(PYSOCK_CLIENT_AUTH, me, cafile);
    pysock *s = NULL;

    /* This asks every client for a certificate, and refuses those that have none. */
    if (tls && pysock_ssl_set_verify_mode(tls, PYSOCK_CERT_REQUIRED) == 0 &&
        (s = pysock_create_server(address, port, -1)) != NULL &&
        pysock_ssl_wrap_socket(s, tls, NULL) == 0) {
        pysock_ssl_context_release(tls); /* the socket has its own reference */
        return s;
    }
    if (tls)
        complain("server", "cannot listen");
    pysock_close(s);
    pysock_ssl_context_release(tls);
    return NULL;
}

/* The client's identity is known only once the handshake is finished. */
static void greet(pysock *s)
{
    char name[128], text[160];

    if (pysock_settimeout(s, TIMEOUT) < 0 || pysock_ssl_do_handshake(s) < 0) {
        complain("server", "refused a client");
        return;
    }
    if (!common_name(s, name, sizeof name)) {
        fprintf(stderr, "server: the client's certificate has no common name to greet\n");
        return;
    }
    int n = snprintf(text, sizeof text, "Good day, %s!\n", name);
    if (pysock_sendall(s, text, (size_t)n, 0) < 0)
        complain("server", "cannot greet");
    else
        fprintf(stderr, "server: greeted %s\n", name);
}

/* False: the listening socket has failed. */
static bool serve_one(pysock *listener)
{
    pysock *s = pysock_accept(listener, NULL);
    int error = errno;

    if (s) {
        greet(s);
        pysock_close(s);
        return true;
    }
    complain("server", "cannot accept");
    if (error != EMFILE && error != ENFILE && error != ENOMEM && error != ECONNABORTED)
        return false;
    usleep(100000); /* there may be room again */
    return true;
}

static int listening_port(pysock *listener)
{
    pysock_addr addr;
    char text[PYSOCK_ADDR_STRLEN];

    if (pysock_getsockname(listener, &addr) < 0)
        return complain("server", "cannot tell the address");
    pysock_addr_format(&addr, text, sizeof text);
    fprintf(stderr, "server: listening on %s\n", text);
    return pysock_addr_port(&addr);
}

/* ---- the client ---- */

/* An alert is the server's error; a failed verification is our own. */
static int explain_failure(bool has_certificate)
{
    const char *reason = pysock_error_reason();
    bool is_alert = strstr(reason, "ALERT") != NULL;

    complain("client", "no connection");
    if (has_certificate && is_alert && (strstr(reason, "CERTIFICATE") || strstr(reason, "CA")))
        fputs("client: the server does not accept our certificate: has it been issued by an "
              "authority that the server knows, for a client, and is it still valid?\n",
              stderr);
    else if (!has_certificate && is_alert)
        fputs("client: the server seems to want a certificate: give --cert and --key\n", stderr);
    return -1;
}

static int read_greeting(pysock *s, bool has_certificate)
{
    char buf[256];
    ptrdiff_t n;

    while ((n = pysock_recv(s, buf, sizeof buf, 0)) > 0)
        fwrite(buf, 1, (size_t)n, stdout);
    return n < 0 ? explain_failure(has_certificate) : 0;
}

static int be_client(const char *host, int port, const identity *me, const char *cafile)
{
    bool has_certificate = me->certfile || me->cert;
    pysock_ssl_context *tls = make_context(PYSOCK_SERVER_AUTH, me, cafile);
    pysock *s = tls ? pysock_create_connection(host, port, TIMEOUT) : NULL;
    int result = -1;

    if (s && pysock_ssl_wrap_socket(s, tls, host) == 0)
        result = read_greeting(s, has_certificate);
    else if (tls)
        explain_failure(has_certificate);
    pysock_close(s);
    pysock_ssl_context_release(tls);
    return result;
}

/* ---- both parts in one program ---- */

enum { SCENES = 3 };

static void *serve_scenes(void *listener)
{
    for (int i = 0; i < SCENES && serve_one(listener); i++)
        continue;
    return NULL;
}

static int play(int port)
{
    static const struct {
        const char *title;
        identity who;
        int result;
    } scenes[SCENES] = {
        {"a client with a certificate", {.cert = ada_certificate, .key = ada_key}, 0},
        {"a client without one", {.cert = NULL}, -1},
        {"a client with one that nobody vouches for",
         {.cert = mallory_certificate, .key = mallory_key},
         -1},
    };

    for (int i = 0; i < SCENES; i++) {
        printf("\n%s\n", scenes[i].title);
        fflush(stdout);
        if (be_client("localhost", port, &scenes[i].who, NULL) != scenes[i].result) {
            fputs("mutual_tls: that is not what should have happened\n", stderr);
            return -1;
        }
        fflush(stdout);
    }
    return 0;
}

static int play_both_parts(void)
{
    const identity server = {.cert = server_certificate, .key = server_key};
    pysock *listener = listen_with_tls("127.0.0.1", 0, &server, NULL);
    int port = listener ? listening_port(listener) : -1;
    pthread_t thread;

    if (port < 0)
        return 1;
    if (pthread_create(&thread, NULL, serve_scenes, listener) != 0) {
        fputs("mutual_tls: cannot start a thread\n", stderr);
        return 1;
    }
    int result = play(port);
    if (result < 0)
        pysock_close(listener); /* ends accept */
    pthread_join(thread, NULL);
    pysock_close(listener);
    return result < 0;
}

/* ---- the command line ---- */

typedef struct options {
    identity me;
    const char *cafile, *address, *host;
    int port;
} options;

static const char usage[] =
    "usage: mutual_tls\n"
    "       mutual_tls server --cert FILE [--key FILE] --cafile FILE [-p PORT] [-b ADDRESS]\n"
    "       mutual_tls client [--cert FILE [--key FILE]] --cafile FILE HOST [PORT]\n"
    "  --cert FILE    our own certificate chain (PEM)\n"
    "  --key FILE     its private key (PEM), if it is not in the same file\n"
    "  --cafile FILE  the authorities (PEM) that the other side must come from\n"
    "  PORT           default 7443; -p 0: any free port\n"
    "  -b ADDRESS     default 127.0.0.1; \"\": all of this machine's\n";

static int run_server(int argc, char **argv)
{
    identity me = {.cert = NULL};
    const char *cafile = NULL, *address = "127.0.0.1";
    int port = 7443;
    const cli_option table[] = {{"--cert", .text = &me.certfile}, {"--key", .text = &me.keyfile},
                                {"--cafile", .text = &cafile},    {"-p", .port = &port},
                                {"-b", .text = &address},         {.name = NULL}};

    cli_parse(argc, argv, table, NULL, 0, usage);
    if (!me.certfile || !cafile)
        cli_wrong_usage(usage);
    pysock *listener = listen_with_tls(address, port, &me, cafile);
    if (!listener || listening_port(listener) < 0)
        return 1;
    while (serve_one(listener))
        continue;
    return 1;
}

static int run_client(int argc, char **argv)
{
    identity me = {.cert = NULL};
    const char *cafile = NULL, *operands[2];
    const cli_option table[] = {{"--cert", .text = &me.certfile},
                                {"--key", .text = &me.keyfile},
                                {"--cafile", .text = &cafile},
                                {.name = NULL}};
    int count = cli_parse(argc, argv, table, operands, 2, usage);
    int port = count > 1 ? cli_parse_port(operands[1], 1) : 7443;

    if (count == 0 || port < 0 || !cafile || (me.keyfile && !me.certfile))
        cli_wrong_usage(usage);
    return be_client(operands[0], port, &me, cafile) < 0;
}

int main(int argc, char **argv)
{
    if (argc == 1)
        return play_both_parts();
    if (strcmp(argv[1], "server") == 0)
        return run_server(argc - 1, argv + 1);
    if (strcmp(argv[1], "client") == 0)
        return run_client(argc - 1, argv + 1);
    cli_parse(argc, argv, &(cli_option){.name = NULL}, NULL, 0, usage);
    return 2;
}
