/* What else is found in files of certificates and keys: DER, which loads, trusted certificates of
   OpenSSL, with their settings, and forms that are not read, which the error names together with
   the command that converts them. */
#include "support/support.h"
#include "support/files.h"
#include "support/handshake.h"
#include "support/messages.h"
#include "support/mint.h"
#include "support/process.h"
#include "support/shell.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define FROM_HERE "../../" T_CERTS

static pysock_ssl_context *new_client(void) {
    return T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
}

static pysock_ssl_context *new_server(void) {
    return T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
}

/* Takes both contexts. */
static void is_accepted(pysock_ssl_context *client, pysock_ssl_context *server) {
    h_pair p;
    h_connect(&p, client, server, "localhost");
    h_greet(&p);
    h_close(&p);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

/* Takes both contexts. */
static void is_refused(pysock_ssl_context *client, pysock_ssl_context *server) {
    h_pair p;
    h_try(&p, client, server, "localhost");
    h_is_refusal(&p.at_client, 28, "certificate rejected");
    h_close(&p);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

/* ==== DER ==== */

T_TEST(an_anchor_loads_from_a_file_in_der, 60) {
    pysock_ssl_context *client = new_client();
    P_NEED("openssl");
    f_run("openssl x509 -in " FROM_HERE "ca.pem -outform DER -out ca.der");
    T_OK(pysock_ssl_load_verify_locations(client, f_path("ca.der"), NULL));
    T_EQ(pysock_ssl_ca_count(client), 1);
    is_accepted(client, t_server_ctx());
}

T_TEST(a_list_loads_from_a_file_in_der, 60) {
    pysock_ssl_context *client = new_client();
    pysock_ssl_store_stats stats;
    P_NEED("openssl");
    f_write_text("ca.cnf",
                 "[ca]\ndefault_ca = d\n[d]\ndatabase = index.txt\ndefault_md = sha256\n");
    f_write_text("index.txt", "");
    f_run("openssl ca -gencrl -config ca.cnf -cert " FROM_HERE "ca.pem -keyfile " FROM_HERE
          "ca.key -crldays 30 -out crl.pem; openssl crl -in crl.pem -outform DER -out crl.der");
    T_OK(pysock_ssl_load_verify_locations(client, f_path("crl.der"), NULL));
    T_OK(pysock_ssl_cert_store_stats(client, &stats));
    T_EQ(stats.crl, 1);
    T_OK(pysock_ssl_load_verify_locations(client, T_CERTS "ca.pem", NULL));
    T_OK(pysock_ssl_set_verify_flags(client, PYSOCK_VERIFY_CRL_CHECK_LEAF));
    is_accepted(client, t_server_ctx());
}

T_TEST(an_identity_loads_from_files_in_der, 60) {
    static const char *const commands[] = {"openssl pkcs8 -topk8 -nocrypt",
                                           "openssl pkey -traditional"};
    static const char *const kinds[] = {"ec", "rsa"};
    P_NEED("openssl");
    for (size_t i = 0; i < 4; i++) {
        const char *kind = kinds[i % 2], *pem = p_format(T_CERTS "server-%s.pem", kind);
        pysock_ssl_context *server = new_server();
        T_STEP("%s, key %zu", kind, i / 2);
        f_run(p_format("openssl x509 -in " FROM_HERE "server-%s.pem -outform DER -out cert.der",
                       kind));
        f_run(p_format("%s -in " FROM_HERE "server-%s.key -outform DER -out key.der",
                       commands[i / 2], kind));
        T_OK(pysock_ssl_load_cert_chain(server, f_path("cert.der"), f_path("key.der")));
        is_accepted(t_client_ctx(), server);
        server = new_server();
        T_OK(pysock_ssl_load_cert_chain(server, pem, f_path("key.der")));
        is_accepted(t_client_ctx(), server);
        server = new_server();
        T_OK(pysock_ssl_load_cert_chain(server, f_path("cert.der"),
                                        p_format(T_CERTS "server-%s.key", kind)));
        is_accepted(t_client_ctx(), server);
    }
}

T_TEST(an_encrypted_key_loads_from_a_file_in_der, 60) {
    pysock_ssl_context *server = new_server();
    pysock_ssl_chain_options options = PYSOCK_SSL_CHAIN_OPTIONS_INIT;
    P_NEED("openssl");
    f_run("openssl pkcs8 -topk8 -in " FROM_HERE "server-ec.key -passout pass:swordfish -iter 1000 "
          "-outform DER -out key.der");
    options.certfile = T_CERTS "server-ec.pem";
    options.keyfile = f_path("key.der");
    T_FAILS(pysock_ssl_load_cert_chain_ex(server, &options), PYSOCK_SSL_ERROR, EPROTO);
    H_SAME(pysock_error_reason(), "BAD_PASSWORD_READ");
    options.password = "swordfish";
    T_OK(pysock_ssl_load_cert_chain_ex(server, &options));
    is_accepted(t_client_ctx(), server);
}

T_TEST(an_identity_loads_from_der_in_memory, 60) {
    pysock_ssl_context *server = new_server();
    char *cert, *key;
    size_t cert_size, key_size;
    P_NEED("openssl");
    f_run("openssl x509 -in " FROM_HERE "server-ec.pem -outform DER -out cert.der; "
          "openssl pkey -in " FROM_HERE "server-ec.key -outform DER -out key.der");
    cert = f_read(f_path("cert.der"), &cert_size);
    key = f_read(f_path("key.der"), &key_size);
    T_OK(pysock_ssl_load_cert_chain_data(server, cert, cert_size, key, key_size));
    is_accepted(t_client_ctx(), server);
    free(cert);
    free(key);
}

T_TEST(damaged_der_is_named, 60) {
    char *der;
    size_t size;
    P_NEED("openssl");
    f_run("openssl x509 -in " FROM_HERE "server-ec.pem -outform DER -out cert.der; "
          "openssl pkey -in " FROM_HERE "server-ec.key -outform DER -out key.der");
    for (int i = 0; i < 4; i++) {
        pysock_ssl_context *client = new_client(), *server = new_server();
        const char *path;
        T_STEP("%d", i);
        der = f_read(f_path(i < 2 ? "cert.der" : "key.der"), &size);
        der = realloc(der, size + 3);
        T_CHECK(der != NULL);
        memcpy(der + size, "\0\0\0", 3);
        path = f_write("damaged.der", der, i % 2 ? size + 3 : size - 1);
        free(der);
        if (i < 2) {
            T_FAILS(pysock_ssl_load_verify_locations(client, path, NULL), PYSOCK_SSL_ERROR, EPROTO);
            error_names(path, 0, 0, "DER|damaged|cut off");
            T_EQ(pysock_ssl_ca_count(client), 0);
            T_FAILS(pysock_ssl_load_cert_chain(server, path, T_CERTS "server-ec.key"),
                    PYSOCK_SSL_ERROR, EPROTO);
        } else {
            T_FAILS(pysock_ssl_load_cert_chain(server, T_CERTS "server-ec.pem", path),
                    PYSOCK_SSL_ERROR, EPROTO);
        }
        error_names(path, 0, 0, "DER|damaged|cut off");
        pysock_ssl_context_release(client);
        pysock_ssl_context_release(server);
    }
}

/* As pysock_ssl_load_verify_data() takes it: all of them, or an error. */
T_TEST(der_one_after_the_other_loses_nothing, 60) {
    m_spec s = {.subject = "One", .extensions = M_AUTHORITY};
    m_der one = m_issue(&s), three, all;
    s.subject = "Three";
    three = m_issue(&s);
    for (int i = 0; i < 4; i++) {
        pysock_ssl_context *client = new_client();
        m_der two;
        T_STEP("%d", i);
        s.subject = "Two";
        two = m_issue(&s);
        if (i == 1)
            two = m_hex("3003020101");
        else if (i == 2)
            two = m_hex("0500");
        else if (i == 3)
            two.data[3]++;
        all = one;
        m_add(&all, two);
        m_add(&all, three);
        if (i == 0) {
            T_OK(pysock_ssl_load_verify_data(client, all.data, all.size));
            T_EQ(pysock_ssl_ca_count(client), 3);
        } else {
            T_FAILS(pysock_ssl_load_verify_data(client, all.data, all.size), PYSOCK_SSL_ERROR,
                    EPROTO);
            T_CHECK(says_number(pysock_error_message(), NULL, 2));
            T_EQ(pysock_ssl_ca_count(client), 0);
        }
        pysock_ssl_context_release(client);
    }
}

/* A certificate where the key should be, and the other way round. */
T_TEST(der_of_another_kind_is_named, 60) {
    pysock_ssl_context *client = new_client(), *server = new_server();
    P_NEED("openssl");
    f_run("openssl x509 -in " FROM_HERE "server-ec.pem -outform DER -out cert.der; "
          "openssl pkey -in " FROM_HERE "server-ec.key -outform DER -out key.der");
    T_FAILS(pysock_ssl_load_verify_locations(client, f_path("key.der"), NULL), PYSOCK_SSL_ERROR,
            EPROTO);
    error_names(f_path("key.der"), 0, 0, "private key");
    T_FAILS(pysock_ssl_load_cert_chain(server, f_path("key.der"), f_path("key.der")),
            PYSOCK_SSL_ERROR, EPROTO);
    error_names(f_path("key.der"), 0, 0, "private key");
    T_FAILS(pysock_ssl_load_cert_chain(server, f_path("cert.der"), f_path("cert.der")),
            PYSOCK_SSL_ERROR, EPROTO);
    error_names(f_path("cert.der"), 0, 0, "no private key|a certificate");
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

/* ==== forms that are not read ==== */

enum { AS_ANCHORS = 1, AS_CHAIN = 2, AS_KEY = 4, AS_ALL = 7 };

/* The files have no name that gives them away. */
static const struct foreign {
    const char *make; /* writes the file "foreign" */
    int as;
    const char *kind, *command; /* what the message says; NULL: no command */
} foreigners[] = {
    {"openssl pkcs12 -export -in " FROM_HERE "server-ec.pem -inkey " FROM_HERE "server-ec.key "
     "-passout pass:x -out foreign",
     AS_ALL, "PKCS#12", "openssl pkcs12"},
    {"openssl crl2pkcs7 -nocrl -certfile " FROM_HERE "chain-ec.pem -out foreign",
     AS_ANCHORS | AS_CHAIN, "PKCS#7|PKCS7", "openssl pkcs7"},
    {"openssl crl2pkcs7 -nocrl -certfile " FROM_HERE "chain-ec.pem -outform DER -out foreign",
     AS_ANCHORS | AS_CHAIN, "PKCS#7|PKCS7", "openssl pkcs7"},
    {"(printf '\\377\\376'; iconv -t UTF-16LE " FROM_HERE "server-ec.pem) >foreign", AS_ALL,
     "UTF-16", "iconv"},
    {"(printf '\\376\\377'; iconv -t UTF-16BE " FROM_HERE "server-ec.pem) >foreign", AS_ALL,
     "UTF-16", "iconv"},
    {"iconv -t UTF-16LE " FROM_HERE "server-ec.key >foreign", AS_ALL, "UTF-16", "iconv"},
    {"iconv -t UTF-16BE " FROM_HERE "server-ec.key >foreign", AS_ALL, "UTF-16", "iconv"},
    {"openssl req -new -key " FROM_HERE "server-ec.key -subj /CN=x -out foreign",
     AS_ANCHORS | AS_CHAIN | AS_KEY, "CERTIFICATE REQUEST|certificate request", NULL},
    {"openssl req -new -key " FROM_HERE "server-ec.key -subj /CN=x -outform DER -out foreign",
     AS_ANCHORS | AS_CHAIN, "CERTIFICATE REQUEST|certificate request", NULL},
    {"openssl pkey -in " FROM_HERE "server-ec.key -pubout -out foreign", AS_ALL,
     "PUBLIC KEY|public key", NULL},
    {"openssl pkey -in " FROM_HERE "server-ec.key -pubout -outform DER -out foreign", AS_KEY,
     "public key", NULL},
    {"cp " FROM_HERE "server-ec.key foreign", AS_ANCHORS | AS_CHAIN, "private key", NULL},
    {"cp " FROM_HERE "server-ec.pem foreign", AS_KEY, "certificate", NULL},
    {": >foreign", AS_ALL, "empty", NULL},
};

static void tells(const char *path, int as, const struct foreign *f, int *wrong) {
    pysock_ssl_context *ctx = as == AS_ANCHORS ? new_client() : new_server();
    int r;
    pysock_error_clear();
    if (as == AS_ANCHORS)
        r = pysock_ssl_load_verify_locations(ctx, path, NULL);
    else if (as == AS_CHAIN)
        r = pysock_ssl_load_cert_chain(ctx, path, T_CERTS "server-ec.key");
    else
        r = pysock_ssl_load_cert_chain(ctx, T_CERTS "server-ec.pem", path);
    if (r == 0 || pysock_error() != PYSOCK_SSL_ERROR || !strstr(pysock_error_message(), path) ||
        !says_besides(pysock_error_message(), path, f->kind) ||
        (f->command && !strstr(pysock_error_message(), f->command))) {
        fprintf(stderr, "%s, as %d: result %d, not '%s' and '%s': %s\n", f->make, as, r, f->kind,
                f->command ? f->command : "", pysock_error_message());
        ++*wrong;
    }
    pysock_ssl_context_release(ctx);
}

T_TEST(forms_that_are_not_read_are_named_with_what_converts_them, 120) {
    int wrong = 0;
    P_NEED("openssl");
    P_NEED("iconv");
    for (size_t i = 0; i < COUNT(foreigners); i++) {
        T_STEP("%s", foreigners[i].make);
        f_run(foreigners[i].make);
        for (int as = AS_ANCHORS; as <= AS_KEY; as *= 2)
            if (foreigners[i].as & as)
                tells(f_path("foreign"), as, &foreigners[i], &wrong);
    }
    T_EQ(wrong, 0);
}

/* There are certificates in it, too. */
T_TEST(pkcs7_beside_a_certificate_is_named, 60) {
    pysock_ssl_context *client = new_client(), *server = new_server();
    P_NEED("openssl");
    f_run("openssl crl2pkcs7 -nocrl -certfile " FROM_HERE "chain-ec.pem -out p7; "
          "cat " FROM_HERE "chain-ec.pem p7 >both.pem");
    T_FAILS(pysock_ssl_load_verify_locations(client, f_path("both.pem"), NULL), PYSOCK_SSL_ERROR,
            EPROTO);
    error_names(f_path("both.pem"), 3, 3, "PKCS#7|PKCS7");
    T_EQ(pysock_ssl_ca_count(client), 0);
    T_FAILS(pysock_ssl_load_cert_chain(server, f_path("both.pem"), T_CERTS "chain-ec.key"),
            PYSOCK_SSL_ERROR, EPROTO);
    error_names(f_path("both.pem"), 3, 3, "PKCS#7|PKCS7");
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

/* As ssh-keygen writes it by default: a line of 70 columns, too. */
static const char openssh_key[] =
    "-----BEGIN OPENSSH PRIVATE KEY-----\n"
    "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW\n"
    "QyNTUxOQAAACCzPq7zfqLffKoBDe/eo04kH2XxtSmk9D7RQyf1xUqrYgAAAJgAIAxdACAM\n"
    "XQAAAAtzc2gtZWQyNTUxOQAAACCzPq7zfqLffKoBDe/eo04kH2XxtSmk9D7RQyf1xUqrYg\n"
    "AAAEC2BsIi0QwW2uFscKTUUXNHLsYX4FxlaSDSblbM+WR47bM+rvN+ot98qgEN796jTiQf\n"
    "ZfG1KaT0PtFDJ/XFSqtiAAAAEHVzZXJAZXhhbXBsZS5jb20BAgMEBQ==\n"
    "-----END OPENSSH PRIVATE KEY-----\n";

T_TEST(a_key_of_openssh_is_named_with_what_converts_it, 60) {
    static const struct foreign as_key = {"an OpenSSH key", AS_KEY, "OpenSSH", "ssh-keygen"};
    const char *path = f_write_text("foreign", openssh_key);
    int wrong = 0;
    tells(path, AS_KEY, &as_key, &wrong);
    T_EQ(wrong, 0);
    H_CONTAINS(pysock_error_message(), "ssh-keygen -p");
}

/* The other key in the file is not found by chance. */
T_TEST(a_key_of_openssh_beside_a_certificate_is_named, 60) {
    pysock_ssl_context *server = new_server();
    p_text text = {NULL, 0, 0};
    char *cert = f_read(T_CERTS "server-ec.pem", NULL);
    const char *path;
    m_put(&text, cert);
    m_put(&text, openssh_key);
    path = f_write("both.pem", text.data, text.size);
    T_FAILS(pysock_ssl_load_cert_chain(server, path, NULL), PYSOCK_SSL_ERROR, EPROTO);
    error_names(path, 0, 0, "OpenSSH");
    H_CONTAINS(pysock_error_message(), "ssh-keygen");
    pysock_ssl_context_release(server);
    free(text.data);
    free(cert);
}

/* ==== trusted certificates of OpenSSL ==== */

/* Makes trusted.pem of a certificate with these settings. */
static const char *trusted(const char *cert, const char *settings) {
    char *text;
    f_run(p_format("openssl x509 -in %s -trustout %s -out trusted.pem", cert, settings));
    text = f_read(f_path("trusted.pem"), NULL);
    T_CHECK(strstr(text, "-----BEGIN TRUSTED CERTIFICATE-----"));
    free(text);
    return f_path("trusted.pem");
}

enum { FOR_SERVERS = 1, FOR_CLIENTS = 2 };

static const struct setting {
    const char *options;
    int good_for;
} settings[] = {
    {"", FOR_SERVERS | FOR_CLIENTS},
    {"-setalias 'a root'", FOR_SERVERS | FOR_CLIENTS},
    {"-addtrust serverAuth", FOR_SERVERS},
    {"-addtrust clientAuth", FOR_CLIENTS},
    {"-addtrust emailProtection", 0},
    {"-addtrust serverAuth -addtrust clientAuth", FOR_SERVERS | FOR_CLIENTS},
    {"-addtrust anyExtendedKeyUsage", FOR_SERVERS | FOR_CLIENTS},
    {"-addreject serverAuth", FOR_CLIENTS},
    {"-addreject clientAuth", FOR_SERVERS},
    {"-addreject emailProtection", FOR_SERVERS | FOR_CLIENTS},
    {"-addreject anyExtendedKeyUsage", 0},
    {"-addtrust serverAuth -addreject serverAuth", 0},
    {"-addtrust serverAuth -addreject clientAuth -setalias x", FOR_SERVERS},
};

/* 1 if there was no objection, 0 if it was OpenSSL's against what is not trusted for that. */
static int is_good(const h_outcome *o) {
    if (o->result < 0)
        h_is_refusal(o, 28, "certificate rejected");
    return o->result == 0;
}

/* Whether a client that has the file takes a server's certificate. */
static int good_for_servers(const char *path) {
    pysock_ssl_context *client = new_client(), *server = t_server_ctx();
    h_pair p;
    T_OK(pysock_ssl_load_verify_locations(client, path, NULL));
    h_try(&p, client, server, "localhost");
    h_close(&p);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
    return is_good(&p.at_client);
}

static int good_for_clients(const char *path) {
    pysock_ssl_context *client = t_client_ctx(), *server = t_server_ctx();
    h_pair p;
    T_OK(pysock_ssl_load_cert_chain(client, T_CERTS "client.pem", T_CERTS "client.key"));
    T_OK(pysock_ssl_load_verify_locations(server, path, NULL));
    T_OK(pysock_ssl_set_verify_mode(server, PYSOCK_CERT_REQUIRED));
    h_try(&p, client, server, "localhost");
    h_close(&p);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
    return is_good(&p.at_server);
}

T_TEST(the_settings_of_a_trusted_certificate_hold, 120) {
    int wrong = 0;
    P_NEED("openssl");
    for (size_t i = 0; i < COUNT(settings); i++) {
        const char *path = trusted(FROM_HERE "ca.pem", settings[i].options);
        int good_for;
        T_STEP("%s", settings[i].options);
        good_for = (good_for_servers(path) ? FOR_SERVERS : 0) |
                   (good_for_clients(path) ? FOR_CLIENTS : 0);
        if (good_for != settings[i].good_for) {
            fprintf(stderr, "'%s' is good for %d, not %d\n", settings[i].options, good_for,
                    settings[i].good_for);
            wrong++;
        }
    }
    T_EQ(wrong, 0);
}

T_TEST(a_trusted_certificate_loads_beside_others, 60) {
    pysock_ssl_context *client = new_client();
    char *with, *other;
    p_text text = {NULL, 0, 0};
    const char *path;
    P_NEED("openssl");
    with = f_read(trusted(FROM_HERE "ca.pem", "-addreject serverAuth"), NULL);
    other = f_read(T_CERTS "other-ca.pem", NULL);
    m_put(&text, with);
    m_put(&text, other);
    path = f_write("bundle.pem", text.data, text.size);
    free(with);
    free(other);
    free(text.data);
    T_OK(pysock_ssl_load_verify_locations(client, path, NULL));
    is_accepted(client, t_server_ctx_of("untrusted"));
    client = new_client();
    T_OK(pysock_ssl_load_verify_locations(client, path, NULL));
    is_refused(client, t_server_ctx());
}

/* An authority below a root that is trusted. */
T_TEST(a_rejected_intermediate_ends_no_path, 60) {
    pysock_ssl_context *client = new_client(), *server = new_server();
    char *chain = f_read(T_CERTS "chain-ec.pem", NULL), *second;
    P_NEED("openssl");
    second = strstr(chain + 1, "-----BEGIN CERTIFICATE-----");
    T_CHECK(second != NULL);
    f_write_text("middle.pem", second);
    *second = 0;
    f_write_text("leaf.pem", chain);
    free(chain);
    T_OK(pysock_ssl_load_cert_chain(server, f_path("leaf.pem"), T_CERTS "chain-ec.key"));
    T_OK(pysock_ssl_load_verify_locations(client, T_CERTS "ca.pem", NULL));
    T_OK(pysock_ssl_load_verify_locations(client, trusted("middle.pem", ""), NULL));
    is_accepted(client, server);
    client = new_client();
    server = new_server();
    T_OK(pysock_ssl_load_cert_chain(server, f_path("leaf.pem"), T_CERTS "chain-ec.key"));
    T_OK(pysock_ssl_load_verify_locations(client, T_CERTS "ca.pem", NULL));
    T_OK(pysock_ssl_load_verify_locations(client, trusted("middle.pem", "-addreject serverAuth"),
                                          NULL));
    is_refused(client, server);
}

/* The settings are for who has the file: they are not sent. */
T_TEST(a_chain_may_begin_with_a_trusted_certificate, 60) {
    pysock_ssl_context *server = new_server(), *client = t_client_ctx();
    pysock_ssl_cert *cert;
    pysock_buf *seen;
    h_pair p;
    P_NEED("openssl");
    T_OK(pysock_ssl_load_cert_chain(
        server, trusted(FROM_HERE "server-ec.pem", "-addtrust serverAuth -setalias x"),
        T_CERTS "server-ec.key"));
    h_connect(&p, client, server, "localhost");
    seen = T_OK(pysock_ssl_getpeercert_der(p.client));
    cert = T_OK(pysock_ssl_cert_parse(pysock_buf_data(seen), pysock_buf_size(seen)));
    pysock_ssl_cert_free(cert);
    pysock_buf_release(seen);
    h_close(&p);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

/* OpenSSL takes no notice of it there. */
T_TEST(a_trusted_certificate_further_down_a_chain_is_sent_or_named, 60) {
    pysock_ssl_context *server = new_server();
    char *chain = f_read(T_CERTS "chain-ec.pem", NULL), *second, *middle;
    p_text text = {NULL, 0, 0};
    const char *path;
    P_NEED("openssl");
    second = strstr(chain + 1, "-----BEGIN CERTIFICATE-----");
    T_CHECK(second != NULL);
    f_write_text("middle.pem", second);
    *second = 0;
    middle = f_read(trusted("middle.pem", "-addtrust serverAuth"), NULL);
    m_put(&text, chain);
    m_put(&text, middle);
    path = f_write("chain.pem", text.data, text.size);
    free(text.data);
    free(chain);
    free(middle);
    if (pysock_ssl_load_cert_chain(server, path, T_CERTS "chain-ec.key") < 0) {
        error_names(path, 2, 2, "TRUSTED");
        pysock_ssl_context_release(server);
        return;
    }
    is_accepted(t_client_ctx(), server);
}

/* The certificate, and behind it what OpenSSL's CERT_CERTIFICATE_AUX does not know. */
T_TEST(malformed_settings_are_an_error, 60) {
    static const char *const settings_of[] = {
        "3003020100",   /* an INTEGER */
        "300a30080608", /* half */
        "3081",         /* no length */
        "30023005",     /* longer than what is there */
        "300030",       /* something behind */
    };
    char *pem = f_read(T_CERTS "ca.pem", NULL);
    m_der ca = m_from_pem(pem, 0);
    free(pem);
    for (size_t i = 0; i < COUNT(settings_of); i++) {
        pysock_ssl_context *client = new_client();
        m_der d = ca;
        p_text text = {NULL, 0, 0};
        const char *path;
        T_STEP("%s", settings_of[i]);
        m_add_hex(&d, settings_of[i]);
        m_put_pem(&text, "TRUSTED CERTIFICATE", d.data, d.size);
        path = f_write("trusted.pem", text.data, text.size);
        free(text.data);
        T_FAILS(pysock_ssl_load_verify_locations(client, path, NULL), PYSOCK_SSL_ERROR, EPROTO);
        error_names(path, 1, 1, "trust");
        T_EQ(pysock_ssl_ca_count(client), 0);
        pysock_ssl_context_release(client);
    }
}

/* OpenSSL writes them so where there are none. */
T_TEST(a_trusted_certificate_may_have_no_settings, 60) {
    char *pem = f_read(T_CERTS "ca.pem", NULL);
    m_der ca = m_from_pem(pem, 0);
    free(pem);
    for (int i = 0; i < 2; i++) {
        pysock_ssl_context *client = new_client();
        p_text text = {NULL, 0, 0};
        m_der with = ca;
        pysock_buf *told;
        const char *path;
        m_add_hex(&with, i ? "3000" : "");
        m_put_pem(&text, "TRUSTED CERTIFICATE", with.data, with.size);
        path = f_write("trusted.pem", text.data, text.size);
        free(text.data);
        T_OK(pysock_ssl_load_verify_locations(client, path, NULL));
        T_EQ(pysock_ssl_get_ca_certs(client, &told, 1), 1);
        T_EQ(pysock_buf_size(told), ca.size);
        T_CHECK(memcmp(pysock_buf_data(told), ca.data, ca.size) == 0);
        pysock_buf_release(told);
        is_accepted(client, t_server_ctx());
    }
}

T_MAIN(.each_teardown = p_clear_away)
