/* Certificates as people read them, and the functions of Python's ssl module, each compared with
   what Python itself makes of the same. */
#include "support/support.h"
#include "support/files.h"
#include "support/handshake.h"
#include "support/process.h"

static p_process one, two;
static pysock_ssl_cert *cert; /* freed after each test */

/* ---- running Python ---- */

/* Debian's own first: it has the ssl module that these tests know. */
static const char *python(void) {
    return access("/usr/bin/python3", X_OK) == 0 ? "/usr/bin/python3" : "python3";
}

/* Runs certinfo.py with that input; what it says. */
static const char *ask_python(const char *input, const char *a, const char *b, const char *c) {
    p_args args = {{NULL}, 0};
    int status;
    P_NEED("python3");
    p_add(&args, python(), "tests/peers/certinfo.py", a, b, c, NULL);
    p_start(&one, &args);
    if (input)
        p_say(&one, input);
    p_close_fd(&one.in);
    status = p_exit_status(&one);
    if (status != 0)
        P_FAIL(&one, "certinfo.py %s ended with %d", a, status);
    return p_string(&one.said);
}

/* ---- a certificate as lines, as certinfo.py writes them ---- */

static p_text lines;

__attribute__((format(printf, 1, 2))) static void put(const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    p_append(&lines, text, (size_t)vsnprintf(text, sizeof text, format, args));
    va_end(args);
}

static void put_plain(const char *text, size_t size) {
    T_EQ(text[size], 0);
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c > 0x20 && c < 0x7f && c != '%')
            p_append(&lines, &text[i], 1);
        else
            put("%%%02X", c);
    }
}

static void put_name(const char *what, const pysock_ssl_attribute *rows, size_t count) {
    for (size_t i = 0; i < count; i++) {
        put("%s %d ", what, rows[i].rdn);
        put_plain(rows[i].name, strlen(rows[i].name));
        put(" ");
        put_plain(rows[i].value, rows[i].value_size);
        put("\n");
    }
}

static void put_uris(const char *what, const char *const *rows, size_t count) {
    for (size_t i = 0; i < count; i++) {
        put("%s ", what);
        put_plain(rows[i], strlen(rows[i]));
        put("\n");
    }
}

static void put_alt_names(void) {
    for (size_t i = 0; i < cert->subject_alt_name_count; i++) {
        const pysock_ssl_alt_name *name = &cert->subject_alt_names[i];
        put("san ");
        put_plain(name->type, strlen(name->type));
        put(" ");
        put_plain(name->value, name->value_size);
        put("\n");
        put_name("dirname", name->dirname, name->dirname_count);
    }
}

static void put_cert(void) {
    put("version %d\nserial %s\n", cert->version, cert->serial_number);
    put_name("subject", cert->subject, cert->subject_count);
    put_name("issuer", cert->issuer, cert->issuer_count);
    put("not_before %s\nnot_before_seconds %lld\n", cert->not_before,
        (long long)cert->not_before_seconds);
    put("not_after %s\nnot_after_seconds %lld\n", cert->not_after,
        (long long)cert->not_after_seconds);
    put_alt_names();
    put_uris("ocsp", cert->ocsp, cert->ocsp_count);
    put_uris("ca_issuers", cert->ca_issuers, cert->ca_issuers_count);
    put_uris("crl", cert->crl_distribution_points, cert->crl_distribution_point_count);
    put("key %s %d\n", cert->key_type ? cert->key_type : "None", cert->key_bits);
    put("signature %s\nca %d\nsha256 ", cert->signature_algorithm, cert->is_ca);
    for (int i = 0; i < 32; i++)
        put("%02x", cert->sha256[i]);
    put("\n");
}

/* The DER of the first certificate of a file; NULL if there is none, or it is damaged. */
static pysock_buf *load(const char *path) {
    static const char end_line[] = "-----END CERTIFICATE-----";
    char *text = f_read(path, NULL), *begin, *end;
    pysock_buf *der = NULL;
    begin = strstr(text, "-----BEGIN CERTIFICATE-----");
    end = begin ? strstr(begin, end_line) : NULL;
    if (end) {
        end[strlen(end_line)] = 0;
        der = pysock_ssl_pem_cert_to_der_cert(begin);
    }
    free(text);
    return der;
}

static void drop_cert(void) {
    pysock_ssl_cert_free(cert);
    cert = NULL;
}

/* Reads the file's certificate into cert; NULL with an SSLError. */
static void read_file(const char *path) {
    pysock_buf *der = load(path);
    drop_cert();
    if (!der)
        return;
    cert = pysock_ssl_cert_parse(pysock_buf_data(der), pysock_buf_size(der));
    pysock_buf_release(der); /* it must not be needed any more */
    if (cert)
        return;
    T_EQ(pysock_error(), PYSOCK_SSL_ERROR);
    T_CHECK(strcmp(pysock_error_reason(), "BAD_CERTIFICATE") == 0);
}

static size_t line_length(const char *text) {
    return strcspn(text, "\n");
}

static void compare_lines(const char *have, const char *want) {
    const char *path = want;
    while (*have || *want) {
        size_t a = line_length(have), b = line_length(want);
        if (b > 2 && memcmp(want, "==", 2) == 0)
            path = want;
        if (a != b || memcmp(have, want, a) != 0)
            T_FAIL("%.*s: '%.*s', but Python has '%.*s'", (int)line_length(path), path,
                   (int)(a < 300 ? a : 300), have, (int)(b < 300 ? b : 300), want);
        have += a + (have[a] == '\n');
        want += b + (want[b] == '\n');
    }
}

/* Every certificate of a directory, read by both. At least so many can be read. */
static void compare_directory(const char *folder, int least) {
    const char *want = ask_python(NULL, "show", folder, NULL), *at;
    char path[256];
    int good = 0;
    p_append(&lines, "", 0);
    lines.size = 0;
    for (at = want; *at; at += line_length(at) + 1) {
        if (strncmp(at, "== ", 3) != 0)
            continue;
        snprintf(path, sizeof path, "%.*s", (int)line_length(at) - 3, at + 3);
        T_STEP("%s", path);
        put("== %s\n", path);
        read_file(path);
        if (cert)
            put_cert();
        else
            put("error\n");
        good += cert != NULL;
    }
    p_append(&lines, "", 0);
    compare_lines(p_string(&lines), want);
    print_message("  %d certificates of %s\n", good, folder);
    T_CHECK(good >= least);
}

/* ---- certificates ---- */

T_TEST(every_odd_certificate_reads_as_python_reads_it, T_SCALE(120, 400)) {
    ask_python(NULL, "make", f_dir(), NULL);
    compare_directory(f_dir(), 80);
}

T_TEST(the_certificates_of_the_tests_read_as_python_reads_them, T_SCALE(60, 200)) {
    compare_directory("tests/certs", 13);
}

/* The system's own, if it has any. */
T_TEST(real_authorities_read_as_python_reads_them, T_SCALE(120, 400)) {
    static const char bundle[] = "/etc/ssl/certs/ca-certificates.crt";
    if (access(bundle, R_OK) != 0)
        skip();
    ask_python(NULL, "split", bundle, f_dir());
    compare_directory(f_dir(), 50);
}

/* CPython's own test data, if it is installed. */
T_TEST(the_certificates_of_pythons_tests_read_as_python_reads_them, T_SCALE(60, 200)) {
    static const char *const folders[] = {"/usr/lib/python3.11/test",
                                          "/usr/lib/python3.12/test/certdata",
                                          "/usr/lib/python3.13/test/certdata"};
    int found = 0;
    for (int i = 0; i < 3; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/allsans.pem", folders[i]);
        if (access(path, R_OK) != 0)
            continue;
        compare_directory(folders[i], 10);
        found++;
    }
    if (!found)
        skip();
}

T_TEST(text_that_openssl_does_not_read_is_shown_all_the_same, 60) {
    static const char *const good[][2] = {{"surrogates", "B\xc3\xbc"
                                                         "cher \xf0\x9f\x94\x92"},
                                          {"visible", "text"},
                                          {"octets", "#040201AB"},
                                          {"sequence", "#300E0C065374726565740C04546F776E"}};
    ask_python(NULL, "beyond", f_dir(), NULL);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        T_STEP("%s", good[i][0]);
        read_file(f_path(p_format("%s.pem", good[i][0])));
        T_CHECK(cert);
        T_EQ(cert->subject_count, 1);
        T_CHECK(strcmp(cert->subject[0].value, good[i][1]) == 0);
        T_EQ(cert->subject[0].value_size, strlen(good[i][1]));
    }
}

T_TEST(malformed_names_make_the_certificate_unreadable, 60) {
    static const char *const bad[] = {
        "lone-surrogate", "cut-surrogate",     "low-surrogate", "san-cut",       "san-wrong-tag",
        "san-wrong-form", "san-bad-directory", "san-bad-rid",   "san-cut-rid",   "san-empty-rid",
        "san-large-rid",  "san-bad-other",     "bad-attribute", "long-attribute"};
    ask_python(NULL, "beyond", f_dir(), NULL);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        T_STEP("%s", bad[i]);
        read_file(f_path(p_format("%s.pem", bad[i])));
        T_CHECK(!cert);
    }
}

T_TEST(an_other_name_that_is_no_text_is_unsupported, 60) {
    ask_python(NULL, "beyond", f_dir(), NULL);
    read_file(f_path("bad-upn.pem"));
    T_CHECK(cert);
    T_EQ(cert->subject_alt_name_count, 1);
    T_CHECK(strcmp(cert->subject_alt_names[0].value, "<unsupported>") == 0);
}

/* A URI is a C string here: one with a NUL would be another one. */
T_TEST(a_uri_with_a_nul_is_left_out, 60) {
    ask_python(NULL, "beyond", f_dir(), NULL);
    read_file(f_path("aia-nul.pem"));
    T_CHECK(cert);
    T_EQ(cert->ocsp_count, 1);
    T_CHECK(strcmp(cert->ocsp[0], "http://good.example/") == 0);
}

T_TEST(damaged_bytes_are_an_error_or_another_certificate, T_SCALE(60, 200)) {
    pysock_buf *der;
    unsigned char *p, *copy;
    size_t n;
    der = T_OK(load(T_CERTS "server-ec.pem"));
    p = pysock_buf_data(der);
    n = pysock_buf_size(der);
    for (size_t cut = 0; cut < n; cut++) {
        copy = malloc(cut ? cut : 1);
        memcpy(copy, p, cut);
        T_FAILS(pysock_ssl_cert_parse(copy, cut), PYSOCK_SSL_ERROR, T_ANY);
        free(copy);
    }
    for (size_t i = 0; i < n * 8; i++) {
        copy = malloc(n);
        memcpy(copy, p, n);
        copy[i / 8] ^= (unsigned char)(1 << i % 8);
        cert = pysock_ssl_cert_parse(copy, n);
        free(copy);
        lines.size = 0;
        if (cert)
            put_cert();
        drop_cert();
    }
    pysock_buf_release(der);
    T_FAILS(pysock_ssl_cert_parse(NULL, 5), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_cert_parse("", 0), PYSOCK_SSL_ERROR, T_ANY);
    pysock_ssl_cert_free(NULL);
}

/* ---- connections ---- */

T_TEST(the_peers_certificate_is_the_one_of_its_file, 60) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    char *from_file;
    h_pair p;
    h_connect(&p, client, server, "localhost");
    lines.size = 0;
    read_file(T_CERTS "server-ec.pem");
    T_CHECK(cert);
    put_cert();
    from_file = strdup(p_string(&lines));
    drop_cert();
    cert = T_OK(pysock_ssl_getpeercert(p.client));
    lines.size = 0;
    put_cert();
    T_CHECK(strcmp(from_file, p_string(&lines)) == 0);
    free(from_file);
    T_FAILS(pysock_ssl_getpeercert(p.server), PYSOCK_SSL_ERROR, T_ANY);
    T_CHECK(strcmp(pysock_error_reason(), "NO_PEER_CERTIFICATE") == 0);
    h_close(&p);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

T_TEST(a_socket_without_tls_has_no_peer_certificate, 60) {
    pysock *pair[2];
    t_pair(pair);
    T_FAILS(pysock_ssl_getpeercert(pair[0]), PYSOCK_VALUE_ERROR, EINVAL);
    pysock_close(pair[0]);
    pysock_close(pair[1]);
    T_FAILS(pysock_ssl_getpeercert(pair[0]), PYSOCK_OS_ERROR, EBADF);
}

static int start_python_server(void) {
    p_args args = {{NULL}, 0};
    int port;
    P_NEED("python3");
    p_add(&args, python(), "tests/peers/peer.py", "server", "--port", P_PORT, "--cert",
          T_CERTS "server-ec.pem", "--key", T_CERTS "server-ec.key", NULL);
    pysock_close(p_start_server(&two, &args, &port));
    return port;
}

static void check_is_file(pysock_buf *pem, const char *path) {
    pysock_buf *want = T_OK(load(path));
    pysock_buf *have = T_OK(pysock_ssl_pem_cert_to_der_cert(pysock_buf_data(pem)));
    T_EQ(pysock_buf_size(have), pysock_buf_size(want));
    T_CHECK(memcmp(pysock_buf_data(have), pysock_buf_data(want), pysock_buf_size(want)) == 0);
    T_EQ(((char *)pysock_buf_data(pem))[pysock_buf_size(pem)], 0);
    pysock_buf_release(want);
    pysock_buf_release(have);
    pysock_buf_release(pem);
}

T_TEST(a_servers_certificate_is_had_without_trusting_it, 120) {
    int port, fds;
    port = start_python_server();
    fds = t_count_fds();
    check_is_file(T_OK(pysock_ssl_get_server_certificate("127.0.0.1", port, NULL, 30)),
                  T_CERTS "server-ec.pem");
    check_is_file(
        T_OK(pysock_ssl_get_server_certificate("localhost", port, NULL, PYSOCK_NO_TIMEOUT)),
        T_CERTS "server-ec.pem");
    while (t_count_fds() > fds) /* closing ends in the reactor */
        t_nap(0.01);
}

T_TEST(a_servers_certificate_is_verified_by_the_cas_that_are_given, 120) {
    int port;
    port = start_python_server();
    check_is_file(T_OK(pysock_ssl_get_server_certificate("localhost", port, T_CERTS "ca.pem", 30)),
                  T_CERTS "server-ec.pem");
    T_FAILS(pysock_ssl_get_server_certificate("localhost", port, T_CERTS "other-ca.pem", 30),
            PYSOCK_SSL_CERT_VERIFICATION_ERROR, T_ANY);
    T_FAILS(pysock_ssl_get_server_certificate("localhost", port, T_CERTS "no-such.pem", 30),
            PYSOCK_OS_ERROR, ENOENT);
    T_FAILS(pysock_ssl_get_server_certificate("localhost", port, NULL, 0), PYSOCK_VALUE_ERROR,
            EINVAL);
    T_FAILS(pysock_ssl_get_server_certificate("localhost", port, NULL, -3), PYSOCK_VALUE_ERROR,
            EINVAL);
}

/* The name is not checked: only who vouches for it is. */
T_TEST(a_servers_certificate_may_be_for_another_host, 120) {
    p_args args = {{NULL}, 0};
    int port;
    P_NEED("python3");
    p_add(&args, python(), "tests/peers/peer.py", "server", "--port", P_PORT, "--cert",
          T_CERTS "wrong-host.pem", "--key", T_CERTS "wrong-host.key", NULL);
    pysock_close(p_start_server(&two, &args, &port));
    check_is_file(T_OK(pysock_ssl_get_server_certificate("localhost", port, T_CERTS "ca.pem", 30)),
                  T_CERTS "wrong-host.pem");
}

/* It accepts, in the kernel, and never answers. */
T_TEST(a_silent_server_is_given_up_at_the_deadline, 60) {
    int port;
    pysock *listener;
    double start;
    listener = t_listen(&port);
    start = t_now();
    T_FAILS(pysock_ssl_get_server_certificate("127.0.0.1", port, NULL, 0.3), PYSOCK_TIMEOUT_ERROR,
            ETIMEDOUT);
    T_CHECK(t_now() - start > 0.25);
    T_OK(pysock_setdefaulttimeout(0.2));
    T_FAILS(pysock_ssl_get_server_certificate("127.0.0.1", port, NULL, PYSOCK_DEFAULT_TIMEOUT),
            PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    T_OK(pysock_setdefaulttimeout(PYSOCK_NO_TIMEOUT));
    pysock_close(listener);
}

static int delay_the_connect(void *arg, const pysock_audit_event *event) {
    if (strcmp(event->name, "socket.connect") == 0)
        t_nap(*(double *)arg);
    return 0;
}

/* What connecting has taken is gone: the handshake does not begin a timeout of its own. */
T_TEST(the_deadline_is_for_connecting_and_the_handshake_together, 120) {
    double delay = T_SCALE(2.0, 6.0), start;
    int port;
    pysock *listener;
    listener = t_listen(&port);
    pysock_set_audit_hook(delay_the_connect, &delay);
    start = t_now();
    T_FAILS(pysock_ssl_get_server_certificate("127.0.0.1", port, NULL, delay * 1.5),
            PYSOCK_TIMEOUT_ERROR, ETIMEDOUT);
    pysock_set_audit_hook(NULL, NULL);
    T_CHECK(t_now() - start >= delay * 1.4);
    T_CHECK(t_now() - start < delay * 2.4); /* 2.5 if each had its own */
    pysock_close(listener);
}

/* ---- the module's functions ---- */

T_TEST(pem_is_written_as_python_writes_it, 60) {
    unsigned char data[200];
    const char *want;
    want = ask_python(NULL, "pems", NULL, NULL);
    lines.size = 0;
    for (size_t n = 0; n < sizeof data; n++) {
        pysock_buf *pem, *der;
        data[n] = (unsigned char)n;
        pem = T_OK(pysock_ssl_der_cert_to_pem_cert(data, n));
        T_EQ(strlen(pysock_buf_data(pem)), pysock_buf_size(pem));
        p_append(&lines, pysock_buf_data(pem), pysock_buf_size(pem));
        der = T_OK(pysock_ssl_pem_cert_to_der_cert(pysock_buf_data(pem)));
        T_EQ(pysock_buf_size(der), n);
        T_CHECK(memcmp(pysock_buf_data(der), data, n) == 0);
        pysock_buf_release(pem);
        pysock_buf_release(der);
    }
    compare_lines(p_string(&lines), want);
    T_FAILS(pysock_ssl_der_cert_to_pem_cert(NULL, 1), PYSOCK_VALUE_ERROR, EINVAL);
}

#define BEGIN_LINE "-----BEGIN CERTIFICATE-----\n"
#define END_LINE "-----END CERTIFICATE-----"

T_TEST(pem_is_read_in_its_usual_forms, 60) {
    static const char *const texts[] = {
        BEGIN_LINE "AAEC\n" END_LINE, BEGIN_LINE "AAEC\n" END_LINE " \n\t\r\n ",
        "-----BEGIN CERTIFICATE-----\r\nAAEC\r\n-----END CERTIFICATE-----\r\n"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        pysock_buf *der;
        T_STEP("form %zu", i);
        der = T_OK(pysock_ssl_pem_cert_to_der_cert(texts[i]));
        T_EQ(pysock_buf_size(der), 3);
        T_CHECK(memcmp(pysock_buf_data(der), "\0\1\2", 4) == 0);
        pysock_buf_release(der);
    }
}

T_TEST(pem_that_is_not_one_certificate_is_a_value_error, 60) {
    static const char *const texts[] = {
        "",
        "x",
        BEGIN_LINE,
        END_LINE,
        BEGIN_LINE "AAEC",
        "AAEC\n" END_LINE,
        " " BEGIN_LINE "AAEC\n" END_LINE,
        BEGIN_LINE "AAEC\n" END_LINE " x",
        BEGIN_LINE "A*EC\n" END_LINE,
        BEGIN_LINE "AAE\n" END_LINE,
        "-----BEGIN X509 CRL-----\nAAEC\n-----END X509 CRL-----",
        BEGIN_LINE "AAEC\n" END_LINE "\n" BEGIN_LINE "AAEC\n" END_LINE,
        BEGIN_LINE "AAEC\n-----END X509 CRL-----\n" BEGIN_LINE "AAEC\n" END_LINE,
        "-----BEGIN CERTIFICATE-----END CERTIFICATE-----"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        T_STEP("text %zu", i);
        T_FAILS(pysock_ssl_pem_cert_to_der_cert(texts[i]), PYSOCK_VALUE_ERROR, EINVAL);
    }
    T_FAILS(pysock_ssl_pem_cert_to_der_cert(NULL), PYSOCK_VALUE_ERROR, EINVAL);
}

/* clang-format off */
static const char *const times[] = {
    "Jan  5 09:34:43 2018 GMT", "Jan 05 09:34:43 2018 GMT", "JaN  5 09:34:43 2018 GmT",
    "Jan 5 9:4:3 2018 GMT", "May  9 00:00:00 2007 GMT", "Dec 31 23:59:60 2008 GMT",
    "Jan  1 00:00:00 2009 GMT", "Jan  5 09:34:59 2018 GMT", "Jan  5 09:34:60 2018 GMT",
    "Jan  5 09:34:61 2018 GMT", "Jan  5 09:34:62 2018 GMT", "Dec 31 23:59:59 9999 GMT",
    "Jan  1 00:00:00 0001 GMT", "Jan  1 00:00:00 0000 GMT", "Feb 29 12:00:00 2000 GMT",
    "Feb 29 12:00:00 1900 GMT", "Feb 31 12:00:00 2018 GMT", "Jan  5 09:34 2018 GMT",
    "Jan  5 09:34:43 2018", "Jan  5 09:34:43 2018 UTC", "Jan 35 09:34:43 2018 GMT",
    "Jon  5 09:34:43 2018 GMT", "Jan  5 24:00:00 2018 GMT", "Jan  5 09:60:43 2018 GMT",
    "Jan  0 09:34:43 2018 GMT", "Jan 00 09:34:43 2018 GMT", "Jan 32 09:34:43 2018 GMT",
    "Jan 31 09:34:43 2018 GMT", " Jan  5 09:34:43 2018 GMT", "Jan  5 09:34:43 2018 GMT ",
    "Jan\t5  09:34:43\t2018  GMT", "Jan5 09:34:43 2018 GMT", "Jan  5 09:34:43 2018GMT",
    "Jan  509:34:43 2018 GMT", "Jan  5 09:34:43 18 GMT", "Jan  5 09:34:43 20180 GMT",
    "Jan  5 09:34:43 2018 GMTX", "Jan  5 09:34:43 2018 GM", "Jan  5 -9:34:43 2018 GMT",
    "Jan  5 09: 4:43 2018 GMT", "Jan  5 009:34:43 2018 GMT", "Jan 005 09:34:43 2018 GMT",
    "January  5 09:34:43 2018 GMT", "Ja", "", "Jan", "Jan ", "Aug 17 23:59:59 1969 GMT"};
/* clang-format on */

/* "error" where the call fails. */
T_TEST(times_are_what_python_makes_of_them, 60) {
    char input[4096] = "";
    const char *want;
    int64_t seconds;
    size_t count = sizeof times / sizeof times[0];
    for (size_t i = 0; i < count; i++) {
        strcat(input, times[i]);
        strcat(input, i + 1 < count ? "\n" : "");
    }
    want = ask_python(input, "times", NULL, NULL);
    for (size_t i = 0; i < count; i++, want += line_length(want) + 1) {
        T_STEP("'%s'", times[i]);
        if (strncmp(want, "error", 5) == 0) {
            T_FAILS(pysock_ssl_cert_time_to_seconds(times[i], &seconds), PYSOCK_VALUE_ERROR,
                    EINVAL);
            continue;
        }
        T_EQ(pysock_ssl_cert_time_to_seconds(times[i], &seconds), 0);
        T_EQ(seconds, strtoll(want, NULL, 10));
    }
    T_FAILS(pysock_ssl_cert_time_to_seconds(NULL, &seconds), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_cert_time_to_seconds(times[0], NULL), PYSOCK_VALUE_ERROR, EINVAL);
}

static void format_object(char line[512], int result, const pysock_ssl_oid *o) {
    if (result == 0)
        snprintf(line, 512, "%d|%s|%s|%s", o->nid, o->shortname, o->longname, o->oid);
    else
        snprintf(line, 512, "error");
    if (result < 0)
        T_EQ(pysock_error(), PYSOCK_VALUE_ERROR);
}

/* Those that the table has are OpenSSL's own; it has those that certificates need. */
T_TEST(objects_have_openssls_numbers_and_names, 60) {
    static const int needed[] = {13, 14, 85, 87, 99, 129, 130, 178, 179, 408, 668, 1087};
    const char *want;
    int have = 0;
    want = ask_python(NULL, "nids", "-2", "1400");
    for (int nid = -2; nid < 1400; nid++, want += line_length(want) + 1) {
        pysock_ssl_oid o;
        char line[512];
        format_object(line, pysock_ssl_nid2obj(nid, &o), &o);
        if (strcmp(line, "error") == 0)
            continue;
        have++;
        if (strlen(line) != line_length(want) || strncmp(line, want, strlen(line)) != 0)
            T_FAIL("%s, but Python has %.*s", line, (int)line_length(want), want);
    }
    T_CHECK(have >= 150);
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        pysock_ssl_oid o;
        T_EQ(pysock_ssl_nid2obj(needed[i], &o), 0);
    }
    T_FAILS(pysock_ssl_nid2obj(129, NULL), PYSOCK_VALUE_ERROR, EINVAL);
}

T_TEST(objects_are_found_by_what_python_finds_them_by, 60) {
    /* clang-format off */
    static const char *const texts[] = {
        "1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2", "serverAuth", "clientAuth", "serverauth",
        "TLS Web Server Authentication", "1.2.3.4", "3.1", "1..2", ".1", "1", "abc", "commonName",
        "CN", "SN", "surname", "serialNumber", "name", "title", "GN", "givenName", "2.5.4.3",
        "02.5.4.3", "1.2.840.113549.1.1.11", "RSA-SHA256", "sha256WithRSAEncryption",
        "subjectAltName", "X509v3 Subject Alternative Name", "OCSP", "caIssuers", "ED25519",
        "UID", "uid", "DC", "prime256v1", "SHA256", "sha256", "emailAddress", ""};
    /* clang-format on */
    char input[4096] = "";
    const char *want;
    size_t count = sizeof texts / sizeof texts[0];
    for (size_t i = 0; i < count; i++) {
        strcat(input, texts[i]);
        strcat(input, i + 1 < count ? "\n" : "");
    }
    want = ask_python(input, "objects", NULL, NULL);
    for (size_t i = 0; i < 2 * count; i++, want += line_length(want) + 1) {
        pysock_ssl_oid o;
        char line[512];
        T_STEP("'%s'", texts[i / 2]);
        format_object(line, pysock_ssl_txt2obj(texts[i / 2], i % 2, &o), &o);
        if (strlen(line) != line_length(want) || strncmp(line, want, strlen(line)) != 0)
            T_FAIL("%s, but Python has %.*s", line, (int)line_length(want), want);
    }
    T_FAILS(pysock_ssl_txt2obj(NULL, 0, NULL), PYSOCK_VALUE_ERROR, EINVAL);
}

T_TEST(random_bytes_fill_the_buffer_and_never_repeat, 60) {
    static unsigned char a[200001], b[200001];
    int counts[256] = {0};
    T_EQ(pysock_ssl_rand_bytes(NULL, 0), 0);
    T_FAILS(pysock_ssl_rand_bytes(NULL, 1), PYSOCK_VALUE_ERROR, EINVAL);
    T_EQ(pysock_ssl_rand_bytes(a, sizeof a - 1), 0);
    T_EQ(pysock_ssl_rand_bytes(b, sizeof b - 1), 0);
    T_EQ(a[sizeof a - 1], 0);
    for (size_t i = 0; i + 16 < sizeof a; i += 16)
        T_CHECK(memcmp(a + i, b + i, 16) != 0 && (!i || memcmp(a + i, a, 16) != 0));
    for (size_t i = 0; i < sizeof a - 1; i++)
        counts[a[i]]++;
    for (int i = 0; i < 256; i++) /* 781 each on the average, with a deviation of 28 */
        T_CHECK(counts[i] > 500 && counts[i] < 1100);
}

/* What a forked child draws is not what its parent does. */
T_TEST(a_forked_child_has_random_bytes_of_its_own, 60) {
    unsigned char mine[32], theirs[32];
    int pipes[2];
    pid_t child;
    T_EQ(pysock_ssl_rand_bytes(mine, sizeof mine), 0);
    T_EQ(pipe(pipes), 0);
    fflush(NULL);
    child = fork();
    if (child == 0) {
        int ok = pysock_ssl_rand_bytes(theirs, sizeof theirs) == 0;
        _exit(!ok || write(pipes[1], theirs, sizeof theirs) != sizeof theirs);
    }
    T_EQ(pysock_ssl_rand_bytes(mine, sizeof mine), 0);
    t_wait_for_child(child);
    T_EQ(read(pipes[0], theirs, sizeof theirs), sizeof theirs);
    T_CHECK(memcmp(mine, theirs, sizeof mine) != 0);
    close(pipes[0]);
    close(pipes[1]);
}

/* NULL: the variable is not set; nothing is read. */
static void expect_paths(const char *file, const char *dir, const char *cafile,
                         const char *capath) {
    pysock_ssl_verify_paths p;
    T_STEP("SSL_CERT_FILE %s, SSL_CERT_DIR %s", file ? file : "unset", dir ? dir : "unset");
    if (file)
        setenv("SSL_CERT_FILE", file, 1);
    else
        unsetenv("SSL_CERT_FILE");
    if (dir)
        setenv("SSL_CERT_DIR", dir, 1);
    else
        unsetenv("SSL_CERT_DIR");
    T_OK(pysock_ssl_get_default_verify_paths(&p));
    T_CHECK(strcmp(p.openssl_cafile_env, "SSL_CERT_FILE") == 0);
    T_CHECK(strcmp(p.openssl_capath_env, "SSL_CERT_DIR") == 0);
    T_CHECK(p.openssl_cafile && p.openssl_capath);
    T_CHECK(cafile ? p.cafile && strcmp(p.cafile, cafile) == 0 : !p.cafile);
    T_CHECK(capath ? p.capath && strcmp(p.capath, capath) == 0 : !p.capath);
}

T_TEST(the_default_paths_are_what_load_default_certs_reads, 60) {
    pysock_ssl_verify_paths p;
    pysock_ssl_context *ctx;
    ptrdiff_t usual;
    unsetenv("SSL_CERT_FILE");
    unsetenv("SSL_CERT_DIR");
    T_OK(pysock_ssl_get_default_verify_paths(&p));
    if (access("/etc/ssl/certs/ca-certificates.crt", R_OK) == 0) /* Debian's */
        H_SAME(p.cafile, "/etc/ssl/certs/ca-certificates.crt");
    if (access("/etc/ssl/certs/.", R_OK) == 0)
        H_SAME(p.capath, "/etc/ssl/certs");
    T_CHECK(!p.cafile || access(p.cafile, R_OK) == 0);
    T_CHECK(!p.capath || access(p.capath, R_OK | X_OK) == 0);
    expect_paths("", "", p.cafile, p.capath);
    /* Each replaces what it names, and leaves the other. */
    expect_paths(T_CERTS "ca.pem", NULL, T_CERTS "ca.pem", p.capath);
    expect_paths(T_CERTS "ca.pem", "", T_CERTS "ca.pem", p.capath);
    expect_paths(NULL, "tests/certs", p.cafile, "tests/certs");
    expect_paths("", "tests/certs", p.cafile, "tests/certs");
    expect_paths(T_CERTS "ca.pem", "tests/certs", T_CERTS "ca.pem", "tests/certs");
    /* What is not there, or of the other kind, is not read, and nothing takes its place. */
    expect_paths("tests/certs", T_CERTS "ca.pem", NULL, NULL);
    expect_paths(T_CERTS "no-such.pem", "", NULL, p.capath);
    expect_paths(NULL, T_CERTS "nowhere", p.cafile, NULL);
    expect_paths(NULL, NULL, p.cafile, p.capath);
    ctx = T_OK(pysock_ssl_create_default_context(PYSOCK_SERVER_AUTH));
    usual = pysock_ssl_ca_count(ctx);
    pysock_ssl_context_release(ctx);
    expect_paths(T_CERTS "ca.pem", "", T_CERTS "ca.pem", p.capath);
    ctx = T_OK(pysock_ssl_create_default_context(PYSOCK_SERVER_AUTH));
    T_EQ(pysock_ssl_ca_count(ctx), 1);
    pysock_ssl_context_release(ctx);
    expect_paths("", "tests/certs", p.cafile, "tests/certs"); /* without hashed names */
    ctx = T_OK(pysock_ssl_create_default_context(PYSOCK_SERVER_AUTH));
    T_EQ(pysock_ssl_ca_count(ctx), usual);
    pysock_ssl_context_release(ctx);
    expect_paths(T_CERTS "no-such.pem", "tests/certs", NULL, "tests/certs");
    ctx = T_OK(pysock_ssl_create_default_context(PYSOCK_SERVER_AUTH));
    T_EQ(pysock_ssl_ca_count(ctx), 0);
    pysock_ssl_context_release(ctx);
    unsetenv("SSL_CERT_FILE");
    unsetenv("SSL_CERT_DIR");
    T_FAILS(pysock_ssl_get_default_verify_paths(NULL), PYSOCK_VALUE_ERROR, EINVAL);
}

static int tear_down(void **state) {
    drop_cert();
    p_end_all(state);
    free(lines.data);
    memset(&lines, 0, sizeof lines);
    return f_remove_all(state);
}

T_MAIN(.each_teardown = tear_down)
