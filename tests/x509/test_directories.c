/* Directories of trust anchors: hashed names alone, as OpenSSL has it, or all that is there; and
   where the system's own are found, or missing. */
#include "support/support.h"
#include "support/files.h"
#include "support/handshake.h"
#include "support/messages.h"
#include "support/mint.h"
#include "support/process.h"
#include "support/shell.h"

#define FROM_HERE "../../" T_CERTS

static int tear_down(void **state) {
    unsetenv("SSL_CERT_FILE");
    unsetenv("SSL_CERT_DIR");
    p_end_all(state);
    return f_remove_all(state);
}

static pysock_ssl_context *new_client(void) {
    return T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
}

/* What the client says of a server with this certificate of tests/certs. */
static h_outcome judge(pysock_ssl_context *client, const char *name) {
    pysock_ssl_context *server = t_server_ctx_of(name);
    h_pair p;
    h_try(&p, client, server, "localhost");
    h_close(&p);
    pysock_ssl_context_release(server);
    return p.at_client;
}

static void accepts(pysock_ssl_context *client, const char *name) {
    h_outcome o = judge(client, name);
    if (o.result < 0)
        T_FAIL("%s is refused: %s", name, o.message);
}

static void does_not_know(pysock_ssl_context *client, const char *name) {
    h_outcome o = judge(client, name);
    h_is_refusal(&o, 20, "unable to get local issuer certificate");
}

/* ==== hashed names ==== */

/* The error that OpenSSL does not give may be given; a trust anchor may not. */
T_TEST(without_hashed_names_there_are_no_anchors, 60) {
    P_NEED("openssl");
    f_run("mkdir plain; cp " FROM_HERE "ca.pem plain/ca.pem; cp plain/ca.pem plain/ca.0; "
          "cp plain/ca.pem plain/0; cp plain/ca.pem plain/12345678; "
          "cp plain/ca.pem plain/1234567.0; "
          "cp plain/ca.pem plain/x$(openssl x509 -hash -noout -in plain/ca.pem).0");
    for (int purpose = 0; purpose < 2; purpose++) {
        pysock_ssl_context *ctx = purpose ? T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH))
                                          : new_client();
        if (pysock_ssl_load_verify_locations(ctx, NULL, f_path("plain")) < 0)
            H_CONTAINS(pysock_error_message(), "rehash");
        T_EQ(pysock_ssl_ca_count(ctx), 0);
        if (!purpose)
            does_not_know(ctx, "server-ec");
        T_EQ(pysock_ssl_ca_count(ctx), 0);
        pysock_ssl_context_release(ctx);
    }
}

T_TEST(hashed_names_work_and_others_beside_them_do_not, 60) {
    pysock_ssl_context *client = new_client();
    P_NEED("openssl");
    f_run("mkdir hashed; cp " FROM_HERE "other-ca.pem hashed/other.pem; cp " FROM_HERE "ca.pem "
          "hashed/$(openssl x509 -hash -noout -in " FROM_HERE "ca.pem).0");
    T_OK(pysock_ssl_load_verify_locations(client, NULL, f_path("hashed")));
    accepts(client, "server-ec");
    does_not_know(client, "untrusted");
    pysock_ssl_context_release(client);
}

T_TEST(what_rehash_makes_works, 60) {
    pysock_ssl_context *client = new_client();
    P_NEED("openssl");
    f_run("mkdir hashed; cp " FROM_HERE "other-ca.pem " FROM_HERE "ca.pem hashed; "
          "openssl rehash hashed");
    T_OK(pysock_ssl_load_verify_locations(client, NULL, f_path("hashed")));
    accepts(client, "server-ec");
    accepts(client, "untrusted");
    pysock_ssl_context_release(client);
}

T_TEST(a_hashed_name_may_hold_a_trusted_certificate, 60) {
    P_NEED("openssl");
    for (int reject = 0; reject < 2; reject++) {
        pysock_ssl_context *client = new_client();
        h_outcome o;
        f_run(p_format("mkdir -p hashed; openssl x509 -in " FROM_HERE "ca.pem -trustout %s -out "
                       "hashed/$(openssl x509 -hash -noout -in " FROM_HERE "ca.pem).0",
                       reject ? "-addreject serverAuth" : "-addtrust serverAuth"));
        T_OK(pysock_ssl_load_verify_locations(client, NULL, f_path("hashed")));
        o = judge(client, "server-ec");
        if (reject)
            h_is_refusal(&o, 28, "certificate rejected");
        else
            T_EQ(o.result, 0);
        pysock_ssl_context_release(client);
    }
}

/* ==== all of a directory ==== */

T_TEST(all_of_a_directory_is_taken_where_that_is_asked_for, 60) {
    pysock_ssl_context *client = new_client();
    P_NEED("openssl");
    f_run("mkdir all; cp " FROM_HERE "other-ca.pem all/any.name; openssl x509 -in " FROM_HERE
          "ca.pem -outform DER -out all/der; cp " FROM_HERE "README.txt " FROM_HERE "ca.key all; "
          "cp " FROM_HERE "self-signed.pem all/.hidden; cp all/any.name all/twice.pem; "
          "mkdir all/below; cp " FROM_HERE "expired.pem all/below; mkfifo all/pipe; "
          "ln -s nowhere all/dangling; : >all/empty");
    T_OK(pysock_ssl_load_verify_directory(client, f_path("all")));
    T_CHECK(pysock_ssl_ca_count(client) == 2 || pysock_ssl_ca_count(client) == 3); /* .hidden */
    accepts(client, "server-ec");
    accepts(client, "untrusted");
    pysock_ssl_context_release(client);
}

T_TEST(all_of_a_directory_means_its_lists_too, 60) {
    pysock_ssl_context *client = new_client();
    pysock_ssl_store_stats stats;
    P_NEED("openssl");
    f_write_text("ca.cnf",
                 "[ca]\ndefault_ca = d\n[d]\ndatabase = index.txt\ndefault_md = sha256\n");
    f_write_text("index.txt", "");
    f_run("mkdir all; cp " FROM_HERE "ca.pem all; "
          "openssl ca -gencrl -config ca.cnf -cert " FROM_HERE "ca.pem -keyfile " FROM_HERE
          "ca.key -crldays 30 -out all/list.pem");
    T_OK(pysock_ssl_load_verify_directory(client, f_path("all")));
    T_OK(pysock_ssl_cert_store_stats(client, &stats));
    T_EQ(stats.x509, 1);
    T_EQ(stats.crl, 1);
    pysock_ssl_context_release(client);
}

T_TEST(a_server_takes_all_of_a_directory_too, 60) {
    pysock_ssl_context *server = t_server_ctx(), *client = t_client_ctx();
    h_pair p;
    f_run("mkdir all; cp " FROM_HERE "ca.pem all/ca.pem");
    T_OK(pysock_ssl_load_verify_directory(server, f_path("all")));
    T_OK(pysock_ssl_set_verify_mode(server, PYSOCK_CERT_REQUIRED));
    T_OK(pysock_ssl_load_cert_chain(client, T_CERTS "client.pem", T_CERTS "client.key"));
    h_connect(&p, client, server, "localhost");
    h_greet(&p);
    h_close(&p);
    pysock_ssl_context_release(client);
    pysock_ssl_context_release(server);
}

T_TEST(a_damaged_file_in_all_of_a_directory_is_named, 60) {
    pysock_ssl_context *client = new_client();
    f_run("mkdir all; cp " FROM_HERE "ca.pem all; sed 5s/^./*/ " FROM_HERE "other-ca.pem "
          ">all/broken.pem");
    T_FAILS(pysock_ssl_load_verify_directory(client, f_path("all")), PYSOCK_SSL_ERROR, EPROTO);
    error_names(f_path("all/broken.pem"), 1, 1, "base64");
    T_EQ(pysock_ssl_ca_count(client), 0);
    pysock_ssl_context_release(client);
}

T_TEST(a_directory_that_cannot_be_taken_is_named, 60) {
    pysock_ssl_context *client = new_client();
    f_run("mkdir empty");
    T_FAILS(pysock_ssl_load_verify_directory(client, f_path("nowhere")), PYSOCK_OS_ERROR, ENOENT);
    H_CONTAINS(pysock_error_message(), f_path("nowhere"));
    T_FAILS(pysock_ssl_load_verify_directory(client, T_CERTS "ca.pem"), PYSOCK_OS_ERROR, ENOTDIR);
    H_CONTAINS(pysock_error_message(), T_CERTS "ca.pem");
    T_FAILS(pysock_ssl_load_verify_directory(client, f_path("empty")), PYSOCK_SSL_ERROR, EPROTO);
    H_CONTAINS(pysock_error_message(), f_path("empty"));
    T_FAILS(pysock_ssl_load_verify_directory(client, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_ssl_load_verify_directory(NULL, "x"), PYSOCK_VALUE_ERROR, EINVAL);
    T_EQ(pysock_ssl_ca_count(client), 0);
    pysock_ssl_context_release(client);
}

/* ==== the system's trust store ==== */

static void set_environment(const char *file, const char *dir) {
    if (file)
        T_EQ(setenv("SSL_CERT_FILE", file, 1), 0);
    else
        unsetenv("SSL_CERT_FILE");
    if (dir)
        T_EQ(setenv("SSL_CERT_DIR", dir, 1), 0);
    else
        unsetenv("SSL_CERT_DIR");
}

static int same_text(const char *a, const char *b) {
    return a == b || (a && b && strcmp(a, b) == 0);
}

T_TEST(each_variable_replaces_what_it_names, 60) {
    pysock_ssl_verify_paths usual, paths;
    set_environment(NULL, NULL);
    T_OK(pysock_ssl_get_default_verify_paths(&usual));
    set_environment(T_CERTS "ca.pem", NULL);
    T_OK(pysock_ssl_get_default_verify_paths(&paths));
    H_SAME(paths.cafile, T_CERTS "ca.pem");
    T_CHECK(same_text(paths.capath, usual.capath));
    set_environment(NULL, f_dir());
    T_OK(pysock_ssl_get_default_verify_paths(&paths));
    H_SAME(paths.capath, f_dir());
    T_CHECK(same_text(paths.cafile, usual.cafile));
    set_environment(T_CERTS "ca.pem", f_dir());
    T_OK(pysock_ssl_get_default_verify_paths(&paths));
    H_SAME(paths.cafile, T_CERTS "ca.pem");
    H_SAME(paths.capath, f_dir());
}

T_TEST(ssl_cert_file_replaces_the_systems_file, 60) {
    pysock_ssl_context *client;
    set_environment(T_CERTS "ca.pem", NULL);
    client = T_OK(pysock_ssl_create_default_context(PYSOCK_SERVER_AUTH));
    T_EQ(pysock_ssl_ca_count(client), 1);
    accepts(client, "server-ec");
    pysock_ssl_context_release(client);
}

T_TEST(ssl_cert_dir_leaves_the_systems_file, 60) {
    pysock_ssl_context *client;
    ptrdiff_t usual;
    P_NEED("openssl");
    client = T_OK(pysock_ssl_create_default_context(PYSOCK_SERVER_AUTH));
    usual = pysock_ssl_ca_count(client);
    pysock_ssl_context_release(client);
    f_run("mkdir hashed; cp " FROM_HERE "ca.pem hashed; openssl rehash hashed");
    set_environment(NULL, f_path("hashed"));
    client = T_OK(pysock_ssl_create_default_context(PYSOCK_SERVER_AUTH));
    T_EQ(pysock_ssl_ca_count(client), usual);
    accepts(client, "server-ec");
    T_EQ(pysock_ssl_ca_count(client), usual + 1);
    does_not_know(client, "untrusted");
    pysock_ssl_context_release(client);
}

/* A certificate that claims to be by one of the system's roots: where that is found the signature
   is wrong, or of another kind; where it is not, there is no issuer. */
static int finds_the_issuer(pysock_ssl_context *client, const char *root_file) {
    char *pem = f_read(root_file, NULL);
    m_der root = m_from_pem(pem, 0), issuer = m_field(&root, 5), leaf, key = m_key_der(2);
    m_spec s = {.subject = "forged", .issuer_name = &issuer, .key = 2, .extensions = M_LEAF};
    pysock_ssl_context *server = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
    p_text chain = {NULL, 0, 0};
    h_pair p;
    leaf = m_issue(&s);
    m_put_certificate(&chain, &leaf);
    m_put_pem(&chain, "EC PRIVATE KEY", key.data, key.size);
    T_OK(pysock_ssl_load_cert_chain_data(server, chain.data, chain.size, NULL, 0));
    h_try(&p, client, server, "www.example.test");
    T_EQ(p.at_client.kind, PYSOCK_SSL_CERT_VERIFICATION_ERROR);
    h_close(&p);
    free(chain.data);
    free(pem);
    pysock_ssl_context_release(server);
    return p.at_client.verify_code != 20;
}

/* The first hashed name of a root in a directory; "" if there is none. */
static void first_hashed(const char *dir, char path[512]) {
    DIR *d = opendir(dir);
    struct dirent *e;
    path[0] = 0;
    while (d && (e = readdir(d)) != NULL)
        if (strlen(e->d_name) == 10 && strcmp(e->d_name + 8, ".0") == 0 &&
            strspn(e->d_name, "0123456789abcdef") == 8)
            snprintf(path, 512, "%s/%s", dir, e->d_name);
    if (d)
        closedir(d);
}

T_TEST(ssl_cert_file_leaves_the_systems_directory, 60) {
    static const char *const dirs[] = {"/etc/ssl/certs", "/etc/pki/tls/certs",
                                       "/usr/lib/ssl/certs"};
    pysock_ssl_context *client;
    char path[512] = "";
    for (size_t i = 0; i < 3 && !path[0]; i++)
        first_hashed(dirs[i], path);
    if (!path[0]) {
        print_message("the system has no directory of hashed names: skipped\n");
        skip();
    }
    set_environment(T_CERTS "ca.pem", NULL);
    client = T_OK(pysock_ssl_create_default_context(PYSOCK_SERVER_AUTH));
    T_CHECK(finds_the_issuer(client, path));
    pysock_ssl_context_release(client);
    set_environment(T_CERTS "ca.pem", "/nowhere");
    client = T_OK(pysock_ssl_create_default_context(PYSOCK_SERVER_AUTH));
    T_CHECK(!finds_the_issuer(client, path));
    pysock_ssl_context_release(client);
}

T_TEST(a_system_without_authorities_is_told_which_package_has_them, 60) {
    pysock_ssl_context *client;
    h_outcome o;
    set_environment("/nowhere/at-all.pem", "/nowhere/at-all");
    client = T_OK(pysock_ssl_create_default_context(PYSOCK_SERVER_AUTH));
    T_EQ(pysock_ssl_ca_count(client), 0);
    o = judge(client, "server-ec");
    T_EQ(o.kind, PYSOCK_SSL_CERT_VERIFICATION_ERROR);
    H_CONTAINS(o.message, "ca-certificates");
    pysock_ssl_context_release(client);
    set_environment(NULL, NULL);
    client = t_client_ctx();
    o = judge(client, "untrusted");
    if (h_contains(o.message, "ca-certificates"))
        T_FAIL("there are some: '%s'", o.message);
    pysock_ssl_context_release(client);
}

/* As in Python it is no error of the context. But who is refused then is told of the file: nothing
   is missing, and no package has to be installed. */
T_TEST(a_damaged_default_file_is_named_in_the_end, 60) {
    pysock_ssl_context *client;
    p_text text = {NULL, 0, 0};
    const char *path;
    char *ca = f_read(T_CERTS "other-ca.pem", NULL);
    m_put(&text, ca);
    m_put(&text, ca);
    *strchr(strstr(text.data + 100, "-----BEGIN"), '\n') = '*';
    path = f_write("damaged.pem", text.data, text.size);
    free(text.data);
    free(ca);
    set_environment(path, "/nowhere");
    client = pysock_ssl_create_default_context(PYSOCK_SERVER_AUTH);
    if (!client) {
        H_CONTAINS(pysock_error_message(), path);
        return;
    }
    h_outcome o = judge(client, "server-ec");
    T_EQ(o.kind, PYSOCK_SSL_CERT_VERIFICATION_ERROR);
    H_CONTAINS(o.message, path);
    if (h_contains(o.message, "ca-certificates"))
        T_FAIL("'%s'", o.message);
    pysock_ssl_context_release(client);
}

T_MAIN(.each_teardown = tear_down)
