/* Every allocation fails once, and from every allocation on all fail: an error comes back or nobody
   notices; nothing leaks, nothing hangs, nothing crashes. A cycle is run again and again, with the
   first allocation failing, then the second, until it gets through without reaching that one. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <stddef.h>

__attribute__((unused)) static void *scarce_malloc(size_t size);
__attribute__((unused)) static void *scarce_realloc(void *p, size_t size);
__attribute__((unused)) static void scarce_free(void *p);

#define PYSOCK_MALLOC(size) scarce_malloc(size)
#define PYSOCK_REALLOC(p, size) scarce_realloc(p, size)
#define PYSOCK_FREE(p) scarce_free(p)
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#include "support/support.h"
#include "support/files.h"
#include "support/process.h"

#include <limits.h>
#include <malloc.h>

/* A call that takes longer was forgotten by somebody. */
#define PATIENCE T_SCALE(10.0, 40.0)
#define AMOUNT 40000 /* bytes each way: several records, and no more than buffers hold */

/* ---- the allocator ---- */

/* All atomic. The first allocation that is refused, and the last; 0: none is. */
static long live_blocks;
static unsigned long allocations, refused, first_refused, last_refused;

static int may_allocate(void) {
    unsigned long n = __atomic_add_fetch(&allocations, 1, __ATOMIC_RELAXED);
    if (n < __atomic_load_n(&first_refused, __ATOMIC_RELAXED) ||
        n > __atomic_load_n(&last_refused, __ATOMIC_RELAXED))
        return 1;
    __atomic_add_fetch(&refused, 1, __ATOMIC_RELAXED);
    return 0;
}

static void refuse(unsigned long first, unsigned long last) {
    __atomic_store_n(&allocations, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&refused, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&first_refused, first, __ATOMIC_RELAXED);
    __atomic_store_n(&last_refused, last, __ATOMIC_RELAXED);
}

/* Secrets that no block may hold when it is freed, or left behind by growing. */
static const char *secrets[4];
static size_t secret_sizes[4];
static int secrets_found; /* atomic */

static void look_for_secrets(const void *p) {
    for (int i = 0; p && i < 4; i++)
        if (secrets[i] &&
            memmem(p, malloc_usable_size((void *)(uintptr_t)p), secrets[i], secret_sizes[i]))
            __atomic_or_fetch(&secrets_found, 1 << i, __ATOMIC_RELAXED);
}

static void *scarce_malloc(size_t size) {
    void *p = may_allocate() ? malloc(size) : NULL;
    if (p)
        __atomic_add_fetch(&live_blocks, 1, __ATOMIC_RELAXED);
    return p;
}

static void *scarce_realloc(void *p, size_t size) {
    void *grown;
    look_for_secrets(p);
    grown = may_allocate() ? realloc(p, size) : NULL;
    if (grown && !p)
        __atomic_add_fetch(&live_blocks, 1, __ATOMIC_RELAXED);
    return grown;
}

static void scarce_free(void *p) {
    if (p)
        __atomic_sub_fetch(&live_blocks, 1, __ATOMIC_RELEASE);
    look_for_secrets(p);
    free(p);
}

/* ---- what the calls of a cycle said ---- */

static struct {
    pthread_mutex_t lock;
    int memory_errors, timeouts;
    char first[1024], memory[1024];
} said = {PTHREAD_MUTEX_INITIALIZER, 0, 0, "", ""};

/* Takes the calling thread's error down. Returns -1. */
static int failed(const char *what) {
    int number = errno;
    pthread_mutex_lock(&said.lock);
    if (!said.first[0])
        snprintf(said.first, sizeof said.first, "%s: %s", what, pysock_error_message());
    if (pysock_error() == PYSOCK_MEMORY_ERROR) {
        said.memory_errors++;
        snprintf(said.memory, sizeof said.memory, "%s: %s (errno %d)", what, pysock_error_message(),
                 number);
        if (number != ENOMEM || !pysock_error_message()[0])
            T_FAIL("a strange MemoryError: %s", said.memory);
    }
    if (pysock_error() == PYSOCK_TIMEOUT_ERROR)
        said.timeouts++;
    pthread_mutex_unlock(&said.lock);
    return -1;
}

#define TRY(expr) ((expr) < 0 ? failed(#expr) : 0)
#define TRY_NEW(expr) (((expr)) ? 0 : failed(#expr))

/* A stream that ended too early, or a wait that nothing ended. */
static int disappointed(const char *what, int is_timeout) {
    pthread_mutex_lock(&said.lock);
    if (!said.first[0])
        snprintf(said.first, sizeof said.first, "%s", what);
    said.timeouts += is_timeout;
    pthread_mutex_unlock(&said.lock);
    return -1;
}

/* ---- the loop ---- */

typedef int (*cycle_fn)(void);

/* Cleans up; the blocks that are left. A name lookup that nobody waits for any more ends when the
   system's resolver returns: until then its socket counts as open. */
static long clean_up(void) {
    double end = t_now() + PATIENCE;
    for (;;) {
        pysock_cleanup();
        if (__atomic_load_n(&live_blocks, __ATOMIC_ACQUIRE) == 0 || t_now() > end)
            return __atomic_load_n(&live_blocks, __ATOMIC_ACQUIRE);
        t_nap(0.001);
    }
}

/* Runs the cycle with that allocation refused; 0 when none was refused any more. */
static int survive_one(cycle_fn cycle, unsigned long n, int all_later) {
    int result, fds = t_count_fds();
    unsigned long count;
    long left;
    T_STEP("allocation %lu%s refused", n, all_later ? " and all later ones" : "");
    memset(&said.memory_errors, 0, sizeof said - offsetof(__typeof__(said), memory_errors));
    refuse(n, all_later ? ULONG_MAX : n);
    result = cycle();
    count = __atomic_load_n(&refused, __ATOMIC_RELAXED);
    refuse(ULONG_MAX, 0);
    left = clean_up();
    if (left != 0)
        T_FAIL("allocation %lu refused: %ld blocks leaked (first error: %s)", n, left, said.first);
    if (t_count_fds() != fds)
        T_FAIL("allocation %lu refused: %d descriptors were open, %d are (first error: %s)", n, fds,
               t_count_fds(), said.first);
    if (said.timeouts)
        T_FAIL("allocation %lu refused: something was forgotten: %s", n, said.first);
    if (result < 0 && !count)
        T_FAIL("the cycle failed with all the memory it wanted: %s", said.first);
    if (result < 0 && !said.memory_errors)
        T_FAIL("allocation %lu refused: nobody reported a MemoryError, but %s", n, said.first);
    return count > 0;
}

static void survive(cycle_fn cycle) {
    unsigned long n;
    refuse(ULONG_MAX, 0);
    if (cycle() < 0)
        T_FAIL("the cycle does not work: %s", said.first);
    T_EQ(clean_up(), 0);
    for (int all_later = 0; all_later < 2; all_later++) {
        n = 1;
        while (survive_one(cycle, n, all_later))
            n++;
        print_message("  %lu allocations refused%s\n", n - 1,
                      all_later ? ", each with all that followed" : "");
        T_CHECK(n > 1);
    }
}

/* ---- contexts ---- */

static pysock_ssl_context *new_server_ctx(void) {
    static const char *const names[] = {"http/1.1", "x"};
    pysock_ssl_context *ctx = pysock_ssl_context_new(PYSOCK_CLIENT_AUTH);
    if (TRY_NEW(ctx) == 0 && TRY(pysock_ssl_set_alpn_protocols(ctx, names, 2)) == 0 &&
        TRY(pysock_ssl_load_cert_chain(ctx, T_CERTS "chain-ec.pem", T_CERTS "chain-ec.key")) == 0)
        return ctx;
    pysock_ssl_context_release(ctx);
    return NULL;
}

static pysock_ssl_context *new_client_ctx(void) {
    static const char *const names[] = {"http/1.1"};
    pysock_ssl_context *ctx = pysock_ssl_context_new(PYSOCK_SERVER_AUTH);
    if (TRY_NEW(ctx) == 0 && TRY(pysock_ssl_set_alpn_protocols(ctx, names, 1)) == 0 &&
        TRY(pysock_ssl_load_verify_locations(ctx, T_CERTS "ca.pem", NULL)) == 0)
        return ctx;
    pysock_ssl_context_release(ctx);
    return NULL;
}

static int load_rsa_and_default_certs(pysock_ssl_context *ctx) {
    if (TRY(pysock_ssl_load_cert_chain(ctx, T_CERTS "server-rsa.pem", T_CERTS "server-rsa.key")))
        return -1;
    if (TRY(pysock_ssl_load_verify_directory(ctx, "tests/certs")))
        return -1;
    return TRY(pysock_ssl_set_session_cache(ctx, 10));
}

#define PASSWORD "a password to be wiped"

/* PKCS#8 with PBES2, the traditional form behind its parameters, and one that is not encrypted. */
static int keys_cycle(void) {
    static const char *const names[] = {"encrypted.key", "traditional.key", "plain.key"};
    pysock_ssl_context *ctx = pysock_ssl_context_new(PYSOCK_CLIENT_AUTH);
    pysock_ssl_chain_options options = PYSOCK_SSL_CHAIN_OPTIONS_INIT;
    int result = TRY_NEW(ctx);
    if (result == 0) /* a long one, which must not grow through several blocks */
        result = TRY(
            pysock_ssl_load_cert_chain(ctx, T_CERTS "server-rsa.pem", T_CERTS "server-rsa.key"));
    options.certfile = T_CERTS "server-ec.pem";
    options.password = PASSWORD;
    for (int i = 0; i < 3 && result == 0; i++) {
        options.keyfile = f_path(names[i]);
        result = TRY(pysock_ssl_load_cert_chain_ex(ctx, &options));
    }
    pysock_ssl_context_release(ctx);
    return result;
}

static void make_keys(void) {
    static p_process p;
    p_args args = {{NULL}, 0};
    p_add(&args, "sh", "-ec",
          "key=" T_CERTS "server-ec.key; pass='pass:" PASSWORD "'\n"
          "openssl pkcs8 -topk8 -in $key -passout \"$pass\" -iter 10 -out $1/encrypted.key\n"
          "openssl ecparam -name prime256v1 -out $1/traditional.key\n"
          "openssl ec -in $key -aes128 -passout \"$pass\" >>$1/traditional.key\n"
          "openssl ec -in $key -out $1/plain.key\n"
          "openssl ec -in $key -outform DER -out $1/plain.der\n"
          "openssl pkcs8 -topk8 -nocrypt -in " T_CERTS "server-rsa.key -outform DER -out "
          "$1/long.der\n",
          "sh", f_dir(), NULL);
    if (p_run(&p, &args) != 0)
        P_FAIL(&p, "openssl failed");
    p_end(&p);
}

static int contexts_cycle(void) {
    pysock_ssl_context *server = new_server_ctx(), *client = NULL;
    int result = -1;
    if (server && (client = new_client_ctx()) != NULL)
        result = load_rsa_and_default_certs(server);
    pysock_ssl_context_release(server);
    pysock_ssl_context_release(client);
    return result;
}

/* ---- certificates, and what the ssl module makes of them ---- */

static int reparse(const pysock_buf *der) {
    pysock_buf *pem = pysock_ssl_der_cert_to_pem_cert(pysock_buf_data(der), pysock_buf_size(der));
    pysock_buf *again = NULL;
    pysock_ssl_cert *cert = NULL;
    int result = TRY_NEW(pem);
    if (result == 0)
        result = TRY_NEW(again = pysock_ssl_pem_cert_to_der_cert(pysock_buf_data(pem)));
    if (result == 0)
        result = TRY_NEW(
            cert = pysock_ssl_cert_parse(pysock_buf_data(again), pysock_buf_size(again)));
    if (result == 0 && cert->subject_alt_name_count == 0)
        T_FAIL("half a certificate");
    pysock_ssl_cert_free(cert);
    pysock_buf_release(again);
    pysock_buf_release(pem);
    return result;
}

static int certificates_cycle(void) {
    char text[4096];
    pysock_buf *der;
    int result;
    FILE *f = fopen(T_CERTS "server-ec.pem", "r");
    T_CHECK(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    T_CHECK(strstr(text, "-----END CERTIFICATE-----"));
    strstr(text, "-----END CERTIFICATE-----")[25] = 0;
    der = pysock_ssl_pem_cert_to_der_cert(strstr(text, "-----BEGIN CERTIFICATE-----"));
    result = TRY_NEW(der);
    if (result == 0)
        result = reparse(der);
    pysock_buf_release(der);
    return result;
}

/* ---- blocking: a server in a thread, a client in this one ---- */

typedef struct service {
    pysock *listener;
    pysock_ssl_context *ctx; /* NULL: plain */
    int port, connections;
    int reads_only; /* takes AMOUNT bytes and answers with one */
    int result;
} service;

static int echo(pysock *s, int reads_only) {
    char buf[7001];
    size_t have = 0;
    ptrdiff_t n;
    while (have < AMOUNT) {
        if ((n = pysock_recv(s, buf, sizeof buf, 0)) < 0)
            return failed("recv of the server");
        if (n == 0)
            return disappointed("the client ended early", 0);
        if (!reads_only && TRY(pysock_sendall(s, buf, (size_t)n, 0)))
            return -1;
        have += (size_t)n;
    }
    if (reads_only && TRY(pysock_sendall(s, "k", 1, 0)))
        return -1;
    return TRY(pysock_recv(s, buf, 1, 0));
}

static int serve_one(service *v) {
    int result = -1;
    pysock *s = pysock_accept(v->listener, NULL);
    if (!s)
        return failed("accept");
    if (TRY(pysock_settimeout(s, PATIENCE)) == 0 &&
        (!v->ctx || TRY(pysock_ssl_wrap_socket(s, v->ctx, NULL)) == 0))
        result = echo(s, v->reads_only);
    return TRY(pysock_close(s)) < 0 ? -1 : result;
}

/* A server that fails takes its listener away, so that no client waits for it. */
static void *serve(void *arg) {
    service *v = arg;
    for (int i = 0; i < v->connections && v->result == 0; i++)
        v->result = serve_one(v);
    if (v->result < 0)
        pysock_close(v->listener);
    return NULL;
}

static int start_service(service *v) {
    pysock_addr addr;
    v->listener = pysock_create_server("127.0.0.1", 0, -1);
    if (TRY_NEW(v->listener) || TRY(pysock_settimeout(v->listener, PATIENCE)) ||
        TRY(pysock_getsockname(v->listener, &addr)))
        return -1;
    v->port = pysock_addr_port(&addr);
    return 0;
}

/* Sends what the stream has from an offset on, and takes the echo. */
static int talk(pysock *s) {
    unsigned char buf[5003];
    size_t have = 0;
    ptrdiff_t n;
    if (TRY(pysock_sendall(s, t_bytes(0, 1), AMOUNT, 0)))
        return -1;
    while (have < AMOUNT) {
        size_t left = AMOUNT - have;
        if ((n = pysock_recv(s, buf, left < sizeof buf ? left : sizeof buf, 0)) < 0)
            return failed("recv of the client");
        if (n == 0)
            return disappointed("the server ended early", 0);
        if (memcmp(buf, t_bytes(have, 1), (size_t)n) != 0)
            T_FAIL("wrong bytes");
        have += (size_t)n;
    }
    return 0;
}

static int check_certificate(pysock *s) {
    pysock_buf *der = pysock_ssl_getpeercert_der(s);
    pysock_ssl_cert *cert = NULL;
    int result = TRY_NEW(der);
    if (result == 0 && pysock_buf_size(der) < 200)
        T_FAIL("a certificate of %zu bytes", pysock_buf_size(der));
    pysock_buf_release(der);
    if (result == 0)
        result = TRY_NEW(cert = pysock_ssl_getpeercert(s));
    pysock_ssl_cert_free(cert);
    return result;
}

static int be_a_client(int port, pysock_ssl_context *ctx, int (*job)(pysock *s)) {
    int result = -1;
    pysock *s = pysock_create_connection("127.0.0.1", port, PATIENCE);
    if (!s)
        return failed("create_connection");
    if (!ctx ||
        (TRY(pysock_ssl_wrap_socket(s, ctx, "localhost")) == 0 && check_certificate(s) == 0))
        result = job(s);
    return TRY(pysock_close(s)) < 0 ? -1 : result;
}

static int run_service(service *v, pysock_ssl_context *client, int (*job)(pysock *s)) {
    t_thread thread;
    int result = start_service(v);
    if (result == 0) {
        t_spawn(&thread, serve, v);
        for (int i = 0; i < v->connections && result == 0; i++)
            result = be_a_client(v->port, client, job);
        if (result < 0)
            pysock_close(v->listener);
        t_join(&thread);
    }
    pysock_close(v->listener);
    return result < 0 ? result : v->result;
}

static int plain_cycle(void) {
    service v;
    memset(&v, 0, sizeof v);
    v.connections = 1;
    return run_service(&v, NULL, talk);
}

/* Two connections: the second resumes the session of the first. */
static int tls_cycle_with(int (*job)(pysock *s), int reads_only) {
    service v;
    int result = -1;
    pysock_ssl_context *client = new_client_ctx();
    memset(&v, 0, sizeof v);
    v.connections = 2;
    v.reads_only = reads_only;
    v.ctx = new_server_ctx();
    if (client && v.ctx)
        result = run_service(&v, client, job);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(v.ctx);
    return result;
}

static int blocking_tls_cycle(void) {
    return tls_cycle_with(talk, 0);
}

/* Shakes hands with one who only wants to see the certificate. */
static void *serve_inspector(void *arg) {
    service *v = arg;
    pysock *s = pysock_accept(v->listener, NULL);
    if (!s) {
        failed("accept");
        pysock_close(v->listener); /* so that nobody waits for it */
    } else if (TRY(pysock_settimeout(s, PATIENCE)) == 0) {
        TRY(pysock_ssl_wrap_socket(s, v->ctx, NULL));
    }
    pysock_close(s);
    return NULL;
}

static int server_certificate_cycle(void) {
    service v;
    t_thread thread;
    pysock_buf *pem = NULL;
    int result;
    memset(&v, 0, sizeof v);
    v.ctx = new_server_ctx();
    result = v.ctx ? start_service(&v) : -1;
    if (result == 0) {
        t_spawn(&thread, serve_inspector, &v);
        pem = pysock_ssl_get_server_certificate("127.0.0.1", v.port, NULL, PATIENCE);
        result = TRY_NEW(pem);
        pysock_close(v.listener); /* a client that failed may not have come to it */
        t_join(&thread);
    }
    pysock_close(v.listener);
    pysock_buf_release(pem);
    pysock_ssl_context_release(v.ctx);
    return result;
}

/* ---- revocation lists, and directories that are looked up ---- */

static void run_openssl(const char *first, ...) {
    static p_process p;
    p_args args = {{NULL}, 0};
    const char *text;
    va_list list;
    p_add(&args, "openssl", first, NULL);
    va_start(list, first);
    while ((text = va_arg(list, const char *)) != NULL)
        p_add(&args, text, NULL);
    va_end(list);
    if (p_run(&p, &args) != 0)
        P_FAIL(&p, "openssl %s failed", first);
}

/* A directory with the authority and its list. */
static void make_directory(void) {
    char text[512];
    const char *config, *list = f_path("hashed/list.pem");
    char *ca = f_read(T_CERTS "ca.pem", NULL);
    if (mkdir(f_path("hashed"), 0777) != 0)
        T_FAIL("mkdir: %s", strerror(errno));
    f_write_text("hashed/ca.pem", ca);
    free(ca);
    snprintf(text, sizeof text,
             "[ca]\ndefault_ca = db\n[db]\ndatabase = %s\ndefault_md = sha256\n"
             "[crl]\nauthorityKeyIdentifier = keyid\n",
             f_path("index"));
    config = f_write_text("config", text);
    f_write_text("index", "R\t491231235959Z\t200601000000Z\t11\tunknown\t/CN=revoked\n");
    run_openssl("ca", "-gencrl", "-config", config, "-cert", T_CERTS "ca.pem", "-keyfile",
                T_CERTS "ca.key", "-crldays", "2", "-crlexts", "crl", "-out", list, NULL);
    run_openssl("crl", "-in", list, "-outform", "DER", "-out", f_path("list.der"), NULL);
    run_openssl("rehash", f_path("hashed"), NULL);
}

static int load_lists(pysock_ssl_context *ctx) {
    size_t n;
    char *der = f_read(f_path("list.der"), &n);
    pysock_ssl_store_stats stats;
    pysock_buf *ca = NULL;
    int result = -1;
    if (TRY(pysock_ssl_load_verify_locations(ctx, f_path("hashed/list.pem"), NULL)) == 0 &&
        TRY(pysock_ssl_load_verify_data(ctx, der, n)) == 0 &&
        TRY(pysock_ssl_load_verify_locations(ctx, T_CERTS "ca.pem", NULL)) == 0 &&
        TRY(pysock_ssl_get_ca_certs(ctx, &ca, 1)) == 0)
        result = TRY(pysock_ssl_cert_store_stats(ctx, &stats));
    if (result == 0 && (!ca || stats.x509_ca != 1 || stats.crl != 1))
        T_FAIL("%zu authorities and %zu lists", stats.x509_ca, stats.crl);
    pysock_buf_release(ca);
    free(der);
    return result;
}

static int lists_cycle(void) {
    pysock_ssl_context *ctx = pysock_ssl_context_new(PYSOCK_SERVER_AUTH);
    int result = TRY_NEW(ctx);
    if (result == 0)
        result = load_lists(ctx);
    pysock_ssl_context_release(ctx);
    return result;
}

static int directory_cycle(void) {
    pysock_ssl_context *client = pysock_ssl_context_new(PYSOCK_SERVER_AUTH);
    service v;
    int result = TRY_NEW(client);
    memset(&v, 0, sizeof v);
    v.connections = 1;
    v.ctx = pysock_ssl_context_new(PYSOCK_CLIENT_AUTH);
    if (result == 0 && TRY_NEW(v.ctx) == 0 &&
        TRY(pysock_ssl_load_cert_chain(v.ctx, T_CERTS "server-ec.pem", T_CERTS "server-ec.key")) ==
            0 &&
        TRY(pysock_ssl_load_verify_locations(client, NULL, f_path("hashed"))) == 0 &&
        TRY(pysock_ssl_set_verify_flags(client, PYSOCK_VERIFY_CRL_CHECK_LEAF)) == 0)
        result = run_service(&v, client, talk);
    else
        result = -1;
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(v.ctx);
    return result;
}

/* ---- queued buffers ---- */

static int queue_buffers(pysock *s) {
    pysock_buf *whole = pysock_buf_copy(t_bytes(0, 2), AMOUNT), *slice;
    int result = TRY_NEW(whole);
    for (size_t at = 0; at < AMOUNT && result == 0; at += AMOUNT / 8) {
        slice = pysock_buf_slice(whole, at, AMOUNT / 8);
        result = TRY_NEW(slice);
        if (result == 0)
            result = TRY(pysock_send_buf(s, slice));
        pysock_buf_release(slice);
    }
    pysock_buf_release(whole);
    return result;
}

/* Queues while the socket does not block, so that the reactor has a part in it. */
static int send_buffers(pysock *s) {
    pysock_buf *answer;
    int result;
    if (TRY(pysock_set_watermarks(s, AMOUNT, 2 * AMOUNT)) || TRY(pysock_setblocking(s, 0)))
        return -1;
    result = queue_buffers(s);
    if (result < 0 || TRY(pysock_settimeout(s, PATIENCE)))
        return -1;
    answer = pysock_recv_buf(s, 1);
    result = TRY_NEW(answer);
    if (result == 0 && pysock_buf_size(answer) != 1)
        result = disappointed("no answer", 0);
    pysock_buf_release(answer);
    return result;
}

static int plain_buffers_cycle(void) {
    service v;
    memset(&v, 0, sizeof v);
    v.connections = 1;
    v.reads_only = 1;
    return run_service(&v, NULL, send_buffers);
}

static int tls_buffers_cycle(void) {
    return tls_cycle_with(send_buffers, 1);
}

/* ---- non-blocking: both sides in this thread, the reactor beside it ---- */

enum { CONNECTING, HANDSHAKING, TALKING, FINISHED };

typedef struct side {
    pysock *s;
    int state;
    int registered; /* the events at the poller, 0: none */
    size_t sent, have;
} side;

typedef struct party {
    pysock *listener;
    pysock_ssl_context *client_ctx, *server_ctx;
    side sides[2];         /* the client and the server */
    pysock_poller *poller; /* NULL: select */
} party;

static int would_block(ptrdiff_t result) {
    return result < 0 && pysock_error() == PYSOCK_OS_ERROR && errno == EAGAIN;
}

static int side_talk(side *a) {
    unsigned char buf[3001];
    ptrdiff_t n;
    if (a->sent < AMOUNT) {
        n = pysock_send(a->s, t_bytes(a->sent, 3), AMOUNT - a->sent, 0);
        if (n < 0 && !would_block(n))
            return failed("send");
        if (n > 0)
            a->sent += (size_t)n;
    }
    n = pysock_recv(a->s, buf, AMOUNT - a->have < sizeof buf ? AMOUNT - a->have : sizeof buf, 0);
    if (n < 0 && !would_block(n))
        return failed("recv");
    if (n == 0 && a->have < AMOUNT)
        return disappointed("the other side ended early", 0);
    if (n > 0 && memcmp(buf, t_bytes(a->have, 3), (size_t)n) != 0)
        T_FAIL("wrong bytes");
    if (n > 0)
        a->have += (size_t)n;
    if (a->have == AMOUNT && a->sent == AMOUNT)
        a->state = FINISHED;
    return 0;
}

static int side_step(party *p, side *a, int is_writable) {
    int result;
    switch (a->state) {
    case CONNECTING:
        if (!is_writable)
            return 0;
        if (TRY(pysock_ssl_wrap_socket(a->s, p->client_ctx, "localhost")))
            return -1;
        a->state = HANDSHAKING;
        return 0;
    case HANDSHAKING:
        result = pysock_ssl_do_handshake(a->s);
        if (result == 0)
            a->state = TALKING;
        return result < 0 && errno != EINPROGRESS ? failed("do_handshake") : 0;
    case TALKING: return side_talk(a);
    default: return 0;
    }
}

/* What a side waits for. */
static short events_of(const side *a) {
    if (!a->s || a->state == FINISHED)
        return 0;
    if (a->state == CONNECTING)
        return POLLOUT;
    return a->state == HANDSHAKING || a->sent < AMOUNT ? POLLIN | POLLOUT : POLLIN;
}

static int party_select(party *p, int *writable) {
    int rlist[3], wlist[2];
    size_t rcount = 0, wcount = 0;
    ptrdiff_t n;
    if (!p->sides[1].s)
        rlist[rcount++] = pysock_fileno(p->listener);
    for (int i = 0; i < 2; i++) {
        short events = events_of(&p->sides[i]);
        if (events & POLLIN)
            rlist[rcount++] = pysock_fileno(p->sides[i].s);
        if (events & POLLOUT)
            wlist[wcount++] = pysock_fileno(p->sides[i].s);
    }
    n = pysock_select(rlist, &rcount, wlist, &wcount, NULL, NULL, PATIENCE);
    if (n <= 0)
        return n < 0 ? failed("select") : disappointed("select has nothing to say", 1);
    for (size_t i = 0; i < wcount; i++)
        if (wlist[i] == pysock_fileno(p->sides[0].s))
            *writable = 1;
    return 0;
}

static int party_register(party *p) {
    for (int i = 0; i < 2; i++) {
        side *a = &p->sides[i];
        short events = events_of(a);
        if (!a->s || events == a->registered)
            continue;
        if (events == 0 ? TRY(pysock_poller_unregister(p->poller, pysock_fileno(a->s)))
                        : TRY(pysock_poller_register(p->poller, pysock_fileno(a->s), events, NULL)))
            return -1;
        a->registered = events;
    }
    return 0;
}

static int party_poll(party *p, int *writable) {
    pysock_pollevent events[2];
    ptrdiff_t n;
    if (party_register(p) < 0)
        return -1;
    n = pysock_poller_poll(p->poller, events, 2, PATIENCE);
    if (n <= 0)
        return n < 0 ? failed("poll") : disappointed("poll has nothing to say", 1);
    for (ptrdiff_t i = 0; i < n; i++)
        if (events[i].fd == pysock_fileno(p->sides[0].s) && events[i].events != POLLIN)
            *writable = 1;
    return 0;
}

static int party_accept(party *p) {
    pysock *s = pysock_accept(p->listener, NULL);
    if (would_block(s ? 0 : -1))
        return 0;
    if (!s)
        return failed("accept");
    p->sides[1].s = s;
    p->sides[1].state = HANDSHAKING;
    if (p->poller && TRY(pysock_poller_unregister(p->poller, pysock_fileno(p->listener))))
        return -1;
    return TRY(pysock_setblocking(s, 0));
}

/* The client looks a name up and connects without waiting. */
static int party_begin(party *p) {
    pysock_addr addr;
    pysock *s;
    if (!(p->client_ctx = new_client_ctx()) || !(p->server_ctx = new_server_ctx()))
        return -1;
    p->listener = pysock_create_server("127.0.0.1", 0, -1);
    if (TRY_NEW(p->listener) || TRY(pysock_setblocking(p->listener, 0)) ||
        TRY(pysock_ssl_wrap_socket(p->listener, p->server_ctx, NULL)) ||
        TRY(pysock_getsockname(p->listener, &addr)))
        return -1;
    s = p->sides[0].s = pysock_socket(AF_INET, SOCK_STREAM, 0);
    if (TRY_NEW(s) || TRY(pysock_setblocking(s, 0)))
        return -1;
    if (pysock_connect(s, "localhost", pysock_addr_port(&addr)) < 0 && errno != EINPROGRESS)
        return failed("connect");
    if (p->poller)
        return TRY(pysock_poller_register(p->poller, pysock_fileno(p->listener), POLLIN, NULL));
    return 0;
}

/* One side has failed, perhaps because the other had: that knows why. */
static int party_ask(side *other) {
    char byte;
    if (other->s && pysock_recv(other->s, &byte, 1, 0) < 0 && !would_block(-1))
        failed("recv of the other side");
    return -1;
}

static int party_run(party *p) {
    while (p->sides[0].state != FINISHED || p->sides[1].state != FINISHED) {
        int writable = 0;
        if ((p->poller ? party_poll(p, &writable) : party_select(p, &writable)) < 0)
            return -1;
        if (!p->sides[1].s && party_accept(p) < 0)
            return -1;
        for (int i = 0; i < 2; i++)
            if (p->sides[i].s && side_step(p, &p->sides[i], writable) < 0)
                return party_ask(&p->sides[1 - i]);
    }
    return 0;
}

static int party_cycle(pysock_poller *poller) {
    party p;
    int result;
    memset(&p, 0, sizeof p);
    p.poller = poller;
    result = party_begin(&p);
    if (result == 0)
        result = party_run(&p);
    pysock_close(p.sides[0].s);
    pysock_close(p.sides[1].s);
    pysock_close(p.listener);
    pysock_ssl_context_release(p.client_ctx);
    pysock_ssl_context_release(p.server_ctx);
    return result;
}

static int select_cycle(void) {
    return party_cycle(NULL);
}

static int poller_cycle(void) {
    pysock_poller *poller = pysock_poller_new();
    int result;
    if (!poller)
        return failed("poller_new");
    result = party_cycle(poller);
    pysock_poller_release(poller);
    return result;
}

/* ---- what is left ---- */

static void do_nothing(void *arg) {
    (void)arg;
}

static int small_things_on(pysock *pair[2]) {
    char buf[5];
    pysock_buf *b;
    int result;
    if (TRY(pysock_send(pair[0], "hello", 5, 0)) || TRY(pysock_recv(pair[1], buf, 5, 0)) ||
        TRY(pysock_send(pair[1], "hello", 5, 0)))
        return -1;
    b = pysock_recv_buf(pair[0], 5);
    result = TRY_NEW(b);
    pysock_buf_release(b);
    return result;
}

static int small_things_cycle(void) {
    pysock *pair[2] = {NULL, NULL}, *s;
    pysock_buf *b;
    int result;
    if (TRY(pysock_register_closer(do_nothing, NULL)))
        return -1;
    b = pysock_buf_new(100);
    result = TRY_NEW(b);
    pysock_buf_release(b);
    if (result < 0 || TRY(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair)))
        return -1;
    result = small_things_on(pair);
    pysock_close(pair[0]);
    pysock_close(pair[1]);
    if (result < 0)
        return -1;
    /* Nobody listens there: the error itself wants memory, perhaps. */
    s = pysock_create_connection("127.0.0.1", 1, PATIENCE);
    if (!s && pysock_error() == PYSOCK_MEMORY_ERROR)
        return failed("create_connection");
    pysock_close(s);
    return 0;
}

/* ---- names, messages, files, states: one after the other in this thread ---- */

static int names_cycle(void) {
    pysock_addrinfo *list = NULL;
    pysock_interface *interfaces = NULL;
    pysock_hostent *host = NULL;
    pysock_addr addr;
    int result = -1;
    if (TRY(pysock_getaddrinfo("127.0.0.1", "80", 0, 0, 0, AI_CANONNAME, &list)) == 0 &&
        TRY(pysock_if_nameindex(&interfaces)) == 0 &&
        TRY_NEW(host = pysock_gethostbyname_ex("127.0.0.1")) == 0)
        result = TRY(pysock_addr_resolve(&addr, AF_INET, "localhost", 1));
    if (result == 0 && (strcmp(list->canonname, "127.0.0.1") != 0 || host->address_count != 1))
        T_FAIL("wrong names: '%s', %zu addresses", list->canonname, host->address_count);
    pysock_freeaddrinfo(list);
    pysock_if_freenameindex(interfaces);
    pysock_freehostent(host);
    return result;
}

/* Descriptors that are passed, adopted, duplicated; ancillary data that does not fit the stack. */
static int pass_descriptors(pysock *pair[2]) {
    int fds[70], got[70];
    size_t count = 70;
    char byte;
    pysock *adopted;
    for (size_t i = 0; i < count; i++)
        fds[i] = pysock_fileno(pair[1]);
    if (TRY(pysock_send_fds(pair[0], "x", 1, fds, count, 0)) ||
        TRY(pysock_recv_fds(pair[1], &byte, 1, got, &count, 0, NULL)))
        return -1;
    T_EQ(count, 70);
    for (size_t i = 1; i < count; i++)
        close(got[i]);
    adopted = pysock_adopt(got[0], -1, -1, -1);
    if (TRY_NEW(adopted)) {
        close(got[0]);
        return -1;
    }
    return TRY_NEW(pysock_dup(adopted)) || TRY_NEW(pysock_fromfd(fds[0], -1, -1, -1)) ? -1 : 0;
}

static int messages_cycle(void) {
    pysock *pair[2], *udp = pysock_socket(AF_INET, SOCK_DGRAM, 0);
    if (TRY_NEW(udp) || TRY(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair)))
        return -1;
    if (pass_descriptors(pair) < 0 || TRY(pysock_settimeout(udp, PATIENCE)))
        return -1;
    return TRY(pysock_sendto(udp, "x", 1, 0, "localhost", 9));
}

static int read_lines(pysock *from, pysock *to) {
    static const char text[] = "a line that is longer than the buffer\nanother\nthe last";
    pysock_file *out = pysock_makefile(to, "w", 16), *in = NULL;
    pysock_buf **lines = NULL, *all = NULL;
    ptrdiff_t n = -1;
    int result = -1;
    FILE *f = NULL;
    if (TRY_NEW(out) == 0 && TRY_NEW(in = pysock_makefile(from, "r", 8)) == 0 &&
        TRY_NEW(f = pysock_fdopen(from, "r")) == 0 &&
        TRY(pysock_file_write(out, text, sizeof text - 1, NULL)) == 0 &&
        TRY(pysock_file_flush(out)) == 0 && TRY(pysock_shutdown(to, SHUT_WR)) == 0 &&
        TRY(n = pysock_file_readlines(in, 40, &lines)) == 0 &&
        TRY_NEW(all = pysock_file_readall(in)) == 0)
        result = 0;
    if (result == 0 && (n != 2 || pysock_buf_size(all) != 8))
        T_FAIL("%td lines, and %zu bytes behind them", n, pysock_buf_size(all));
    pysock_file_freelines(lines, n > 0 ? (size_t)n : 0);
    pysock_buf_release(all);
    if (f)
        fclose(f);
    pysock_file_close(out);
    pysock_file_close(in);
    return result;
}

static int files_cycle(void) {
    pysock *pair[2];
    if (TRY(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair)))
        return -1;
    return read_lines(pair[0], pair[1]);
}

static void count_one(void *arg) {
    ++*(int *)arg;
}

static int states_cycle(void) {
    pysock_state *st = pysock_state_new(), *before;
    pysock *pair[2];
    int result = -1, closed = 0;
    if (TRY_NEW(st))
        return -1;
    before = pysock_state_swap(st);
    if (TRY(pysock_register_closer(count_one, &closed)) == 0)
        result = TRY(pysock_socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    pysock_state_swap(before);
    pysock_state_free(st);
    if (result == 0)
        T_EQ(closed, 1);
    return result;
}

/* ---- the tests ---- */

T_TEST(contexts_survive_every_allocation_failure, T_SCALE(120, 300)) {
    survive(contexts_cycle);
}

T_TEST(encrypted_keys_survive_every_allocation_failure, T_SCALE(120, 300)) {
    P_NEED("openssl");
    make_keys();
    survive(keys_cycle);
    f_remove_all(NULL);
}

/* The password, the key itself, the text that it was read from, and a part of a longer key. */
T_TEST(keys_and_passwords_leave_nothing_in_freed_memory, 60) {
    char *der, *rsa, *pem, *line;
    size_t size, rsa_size;
    P_NEED("openssl");
    make_keys();
    der = f_read(f_path("plain.der"), &size);
    rsa = f_read(f_path("long.der"), &rsa_size);
    pem = f_read(f_path("plain.key"), NULL);
    line = strchr(pem, '\n');
    T_CHECK(rsa_size > 1000 && size > 40 && der[5] == 4 && der[6] == 32 && line != NULL);
    secrets[0] = PASSWORD;
    secret_sizes[0] = sizeof PASSWORD - 1;
    secrets[1] = der + 7;
    secret_sizes[1] = 32;
    secrets[2] = line + 1;
    secret_sizes[2] = 60;
    secrets[3] = rsa + 400; /* in the private exponent */
    secret_sizes[3] = 32;
    refuse(ULONG_MAX, 0);
    T_EQ(keys_cycle(), 0);
    T_EQ(clean_up(), 0);
    memset(secrets, 0, sizeof secrets);
    T_EQ(secrets_found, 0);
    free(der);
    free(rsa);
    free(pem);
    f_remove_all(NULL);
}

T_TEST(plain_sockets_survive_every_allocation_failure, T_SCALE(120, 300)) {
    survive(plain_cycle);
}

T_TEST(blocking_tls_survives_every_allocation_failure, T_SCALE(120, 300)) {
    survive(blocking_tls_cycle);
}

T_TEST(revocation_lists_survive_every_allocation_failure, T_SCALE(120, 300)) {
    P_NEED("openssl");
    make_directory();
    survive(lists_cycle);
    f_remove_all(NULL);
}

T_TEST(directories_survive_every_allocation_failure, T_SCALE(120, 300)) {
    P_NEED("openssl");
    make_directory();
    survive(directory_cycle);
    f_remove_all(NULL);
}

T_TEST(queued_buffers_survive_every_allocation_failure, T_SCALE(120, 300)) {
    survive(plain_buffers_cycle);
}

T_TEST(queued_buffers_on_tls_survive_every_allocation_failure, T_SCALE(120, 300)) {
    survive(tls_buffers_cycle);
}

T_TEST(select_and_reactor_survive_every_allocation_failure, T_SCALE(120, 300)) {
    survive(select_cycle);
}

T_TEST(poller_and_reactor_survive_every_allocation_failure, T_SCALE(120, 300)) {
    survive(poller_cycle);
}

T_TEST(small_things_survive_every_allocation_failure, T_SCALE(120, 300)) {
    survive(small_things_cycle);
}

T_TEST(certificates_survive_every_allocation_failure, T_SCALE(120, 300)) {
    survive(certificates_cycle);
}

T_TEST(get_server_certificate_survives_every_allocation_failure, T_SCALE(300, 900)) {
    survive(server_certificate_cycle);
}

T_TEST(names_survive_every_allocation_failure, T_SCALE(120, 300)) {
    survive(names_cycle);
}

T_TEST(messages_survive_every_allocation_failure, T_SCALE(120, 300)) {
    survive(messages_cycle);
}

T_TEST(files_survive_every_allocation_failure, T_SCALE(120, 300)) {
    survive(files_cycle);
}

T_TEST(states_survive_every_allocation_failure, T_SCALE(120, 300)) {
    survive(states_cycle);
}

T_MAIN()
