/* Files with certificates, keys and revocation lists: PEM of every shape, DER, and what is neither.
   A file gives all that is in it, or an error that says where it is damaged; nothing is lost. */
#include "support/support.h"
#include "support/files.h"
#include "support/handshake.h"
#include "support/messages.h"
#include "support/mint.h"
#include "support/process.h"
#include "support/shell.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define WWW "www.example.test"

/* ---- what is in the files: a root 0, an authority 1 by it, a leaf 2 ---- */

static m_der root_cert(const char *name) {
    m_spec s = {.subject = name, .extensions = M_AUTHORITY};
    return m_issue(&s);
}

static m_der middle_cert(void) {
    m_spec s = {.subject = "Middle", .issuer = "Root", .key = 1, .extensions = M_AUTHORITY};
    return m_issue(&s);
}

static m_der leaf_cert(void) {
    m_spec s = {.subject = "Leaf", .issuer = "Middle", .key = 2, .signer = 1, .extensions = M_LEAF};
    return m_issue(&s);
}

/* A list by the root that revokes nothing. */
static m_der root_crl(void) {
    m_der tbs = m_hex("020101300a" M_ECDSA_SHA256), bits = m_hex("00");
    m_add(&tbs, m_name("Root"));
    m_add(&tbs, m_string(0x17, "200101000000Z"));
    m_add(&tbs, m_string(0x17, "491231235959Z"));
    tbs = m_tlv(0x30, tbs);
    m_add(&bits, m_sign(&tbs, 0));
    m_add_hex(&tbs, "300a" M_ECDSA_SHA256);
    m_add(&tbs, m_tlv(0x03, bits));
    return m_tlv(0x30, tbs);
}

static void put_roots(p_text *out, int count) {
    for (int i = 0; i < count; i++) {
        m_der d = root_cert(p_format("Root %d", i + 1));
        m_put_certificate(out, &d);
    }
}

static void put_chain(p_text *out) {
    m_der d = leaf_cert();
    m_put_certificate(out, &d);
    d = middle_cert();
    m_put_certificate(out, &d);
}

static void put_key(p_text *out) {
    m_der d = m_key_der(2);
    m_put_pem(out, "EC PRIVATE KEY", d.data, d.size);
}

/* ---- loading them ---- */

typedef struct load {
    int result;   /* 0 or -1 */
    size_t count; /* of what was taken */
} load;

static size_t list_count(pysock_ssl_context *ctx) {
    pysock_ssl_store_stats stats;
    T_OK(pysock_ssl_cert_store_stats(ctx, &stats));
    return stats.crl;
}

/* From the file and from memory, which must agree. */
static load load_store(const char *path, const void *data, size_t size, int lists) {
    pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    pysock_ssl_context *by_memory = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    int r = pysock_ssl_load_verify_data(by_memory, data, size);
    load l;
    l.result = pysock_ssl_load_verify_locations(ctx, path, NULL);
    l.count = lists ? list_count(ctx) : (size_t)pysock_ssl_ca_count(ctx);
    if (r != l.result)
        T_FAIL("%s gives %d, its text in memory %d (%s)", path, l.result, r,
               pysock_error_message());
    T_EQ(lists ? list_count(by_memory) : (size_t)pysock_ssl_ca_count(by_memory), l.count);
    T_CHECK(l.result == 0 || l.count == 0);
    pysock_ssl_context_release(ctx);
    pysock_ssl_context_release(by_memory);
    return l;
}

static load load_anchors(const char *path, const void *data, size_t size) {
    return load_store(path, data, size, 0);
}

static load load_lists(const char *path, const void *data, size_t size) {
    return load_store(path, data, size, 1);
}

/* How many certificates a server shows. */
static size_t shown(pysock_ssl_context *server) {
    pysock_ssl_context *client = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    ptrdiff_t n;
    h_pair p;
    T_OK(pysock_ssl_set_check_hostname(client, 0));
    T_OK(pysock_ssl_set_verify_mode(client, PYSOCK_CERT_NONE));
    h_connect(&p, client, server, WWW);
    n = T_OK(pysock_ssl_get_unverified_chain(p.client, NULL, 0));
    h_close(&p);
    pysock_ssl_context_release(client);
    return (size_t)n;
}

static load load_chain_with(const char *path, const char *key) {
    pysock_ssl_context *server = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
    load l = {0, 0};
    l.result = pysock_ssl_load_cert_chain(server, path, key);
    if (l.result == 0)
        l.count = shown(server);
    pysock_ssl_context_release(server);
    return l;
}

static const char *plain_key(void) {
    p_text text = {NULL, 0, 0};
    const char *path;
    put_key(&text);
    path = f_write("plain.key", text.data, text.size);
    free(text.data);
    return path;
}

static load load_chain(const char *path, const void *data, size_t size) {
    (void)data;
    (void)size;
    return load_chain_with(path, plain_key());
}

static load load_key(const char *path, const void *data, size_t size) {
    p_text text = {NULL, 0, 0};
    load l;
    (void)data;
    (void)size;
    put_chain(&text);
    l = load_chain_with(f_write("plain.pem", text.data, text.size), path);
    l.count = l.result == 0;
    free(text.data);
    return l;
}

#define PASSWORD "correct horse battery staple"

static load load_encrypted_key(const char *path, const void *data, size_t size) {
    pysock_ssl_context *server = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
    pysock_ssl_chain_options options = PYSOCK_SSL_CHAIN_OPTIONS_INIT;
    load l;
    (void)data;
    (void)size;
    options.certfile = T_CERTS "server-ec.pem";
    options.keyfile = path;
    options.password = PASSWORD;
    l.result = pysock_ssl_load_cert_chain_ex(server, &options);
    l.count = l.result == 0;
    pysock_ssl_context_release(server);
    return l;
}

/* ---- shapes of PEM ---- */

static size_t line_length(const char *p) {
    return strcspn(p, "\n");
}

/* Adds a line without its end. */
static void put_line(p_text *out, const char *line) {
    p_append(out, line, line_length(line));
}

static int is_label(const char *line) {
    return strncmp(line, "-----", 5) == 0;
}

static const char *next_line(const char *line) {
    line += line_length(line);
    return *line ? line + 1 : line;
}

/* base64 in lines of so many columns; 0: in one; -1: each a little longer. Headers stay. */
static void of_width(p_text *out, const char *text, int width) {
    int column = 0, headers = 0, growing = width < 0;
    for (const char *p = text; *p; p = next_line(p)) {
        size_t n = line_length(p);
        headers = is_label(p) ? 0 : headers || memchr(p, ':', n);
        if (is_label(p) || headers) {
            m_put(out, column ? "\n" : "");
            put_line(out, p);
            m_put(out, "\n");
            column = 0;
            headers = headers && n;
            continue;
        }
        for (size_t i = 0; i < n; i++) {
            if (width > 0 && column == width) {
                m_put(out, "\n");
                column = 0;
            }
            if (growing && !column)
                width = width < 0 || width > 80 ? 1 : width + 1;
            p_append(out, p + i, 1);
            column++;
        }
    }
}

static void blanks_behind_labels(p_text *out, const char *text, int blank) {
    char c = (char)blank;
    for (const char *p = text; *p; p = next_line(p)) {
        put_line(out, p);
        for (int i = 0; is_label(p) && i < 3; i++)
            p_append(out, &c, 1);
        m_put(out, "\n");
    }
}

static void behind_every_line(p_text *out, const char *text, int c) {
    char end[3] = {(char)c, '\n', 0};
    for (const char *p = text; *p; p = next_line(p)) {
        put_line(out, p);
        m_put(out, end);
    }
}

static void behind_every_other_line(p_text *out, const char *text, int c) {
    char end[3] = {(char)c, '\n', 0};
    int n = 0;
    for (const char *p = text; *p; p = next_line(p)) {
        put_line(out, p);
        m_put(out, n++ % 2 ? end : "\n");
    }
}

static void before_every_line(p_text *out, const char *text, int blank) {
    char c = (char)blank;
    for (const char *p = text; *p; p = next_line(p)) {
        p_append(out, &c, 1);
        put_line(out, p);
        m_put(out, "\n");
    }
}

static void with_a_bom(p_text *out, const char *text, int unused) {
    (void)unused;
    m_put(out, "\xef\xbb\xbf");
    m_put(out, text);
}

/* As files with one each are put together. */
static void with_a_bom_before_each(p_text *out, const char *text, int unused) {
    (void)unused;
    for (const char *p = text; *p; p = next_line(p)) {
        m_put(out, strncmp(p, "-----BEGIN", 10) == 0 ? "\xef\xbb\xbf" : "");
        put_line(out, p);
        m_put(out, "\n");
    }
}

static void ended_by(p_text *out, const char *text, int c) {
    char end = (char)c;
    for (const char *p = text; *p; p = next_line(p)) {
        put_line(out, p);
        p_append(out, &end, 1);
    }
}

static void without_its_last_newline(p_text *out, const char *text, int unused) {
    (void)unused;
    p_append(out, text, strlen(text) - 1);
}

static void with_a_last_control_z(p_text *out, const char *text, int unused) {
    (void)unused;
    m_put(out, text);
    m_put(out, "\x1a");
}

static const char *const around[] = {
    "\n\n\n",
    "Bag Attributes\n    localKeyID: 01 02 03 04 \n    friendlyName: pysock\n"
    "subject=O = pysock tests, CN = x\n\nissuer=O = pysock tests, CN = y\n\n",
    "# a comment\n#-----BEGIN CERTIFICATE-----\n# MIIB*\n#-----END CERTIFICATE-----\n",
    "-----\n----------------------------------------\n- - - - -\n--\n-----------------------x\n",
    "see -----BEGIN CERTIFICATE----- below, and -----END CERTIFICATE----- at its end\n",
    "Gr\xc3\xbc\xc3\x9f"
    "e aus K\xc3\xb6ln, und Gr\xfc\xdf"
    "e\n\ttabbed: line\n=====\n",
    "Certificate:\n    Data:\n        Version: 3 (0x2)\n        Serial Number: 1 (0x1)\n",
};

/* Text before, between and behind the objects. */
static void with_text_around(p_text *out, const char *text, int which) {
    for (const char *p = text; *p; p = next_line(p)) {
        if (strncmp(p, "-----BEGIN", 10) == 0)
            m_put(out, around[which]);
        put_line(out, p);
        m_put(out, "\n");
    }
    m_put(out, around[which]);
}

/* A line longer than any buffer that one would think of. */
static void with_a_long_line(p_text *out, const char *text, int length) {
    for (int i = 0; i < length; i++)
        m_put(out, i % 64 != 63 ? "x" : "-----BEGIN ");
    m_put(out, "\n");
    m_put(out, text);
}

static void behind_begin(p_text *out, const char *text, const char *what) {
    for (const char *p = text; *p; p = next_line(p)) {
        put_line(out, p);
        m_put(out, "\n");
        if (strncmp(p, "-----BEGIN", 10) == 0)
            m_put(out, what);
    }
}

static void with_headers(p_text *out, const char *text, int unused) {
    (void)unused;
    behind_begin(out, text, "Comment: made by hand\nX-Note: one\n and its second line\n\n");
}

static void with_a_blank_line_first(p_text *out, const char *text, int unused) {
    (void)unused;
    behind_begin(out, text, "\n");
}

static void with_blank_lines_inside(p_text *out, const char *text, int unused) {
    (void)unused;
    ended_by(out, text, '\n');
    out->size = 0;
    for (const char *p = text; *p; p = next_line(p)) {
        put_line(out, p);
        m_put(out, "\n\n");
    }
}

static void with_a_blank_line_last(p_text *out, const char *text, int unused) {
    (void)unused;
    for (const char *p = text; *p; p = next_line(p)) {
        m_put(out, strncmp(p, "-----END", 8) == 0 ? "\n" : "");
        put_line(out, p);
        m_put(out, "\n");
    }
}

static void with_blanks_inside(p_text *out, const char *text, int unused) {
    (void)unused;
    for (const char *p = text; *p; p = next_line(p)) {
        size_t n = line_length(p);
        if (is_label(p) || n < 20 || memchr(p, ':', n)) {
            put_line(out, p);
        } else {
            p_append(out, p, 10);
            m_put(out, " ");
            p_append(out, p + 10, n - 10);
        }
        m_put(out, "\n");
    }
}

/* The end of the data and the END in one line. */
static void with_data_before_end(p_text *out, const char *text, int unused) {
    (void)unused;
    for (const char *p = text; *p; p = next_line(p)) {
        const char *next = next_line(p);
        put_line(out, p);
        m_put(out, strncmp(next, "-----END", 8) == 0 ? "" : "\n");
    }
}

/* OPEN: where there is no rule that all follow, the file loads whole or not at all. */
enum { LOADS, OPEN };

static const struct shape {
    const char *name;
    void (*make)(p_text *out, const char *text, int arg);
    int arg, want;
} shapes[] = {
    {"as it is", of_width, 64, LOADS},
    {"in columns of 1", of_width, 1, LOADS},
    {"in columns of 3", of_width, 3, LOADS},
    {"in columns of 48", of_width, 48, LOADS},
    {"in columns of 65", of_width, 65, LOADS},
    {"in columns of 76", of_width, 76, LOADS},
    {"in columns of 77", of_width, 77, LOADS},
    {"in columns of 254", of_width, 254, LOADS},
    {"in columns of 255", of_width, 255, LOADS},
    {"in columns of 1,000", of_width, 1000, LOADS},
    {"in one line", of_width, 0, LOADS},
    {"in lines of all lengths", of_width, -1, LOADS},
    {"blanks behind labels", blanks_behind_labels, ' ', LOADS},
    {"tabs behind labels", blanks_behind_labels, '\t', LOADS},
    {"carriage returns behind labels", blanks_behind_labels, '\r', LOADS},
    {"blanks behind all lines", behind_every_line, ' ', LOADS},
    {"tabs behind all lines", behind_every_line, '\t', LOADS},
    {"CRLF", behind_every_line, '\r', LOADS},
    {"CRLF in every other line", behind_every_other_line, '\r', LOADS},
    {"blanks behind every other line", behind_every_other_line, ' ', LOADS},
    {"a BOM", with_a_bom, 0, LOADS},
    {"a BOM before each object", with_a_bom_before_each, 0, LOADS},
    {"no last newline", without_its_last_newline, 0, LOADS},
    {"control-Z at the end", with_a_last_control_z, 0, OPEN},
    {"blank lines around", with_text_around, 0, LOADS},
    {"what pkcs12 writes around", with_text_around, 1, LOADS},
    {"comments around", with_text_around, 2, LOADS},
    {"dashes around", with_text_around, 3, LOADS},
    {"labels in the text around", with_text_around, 4, LOADS},
    {"other letters around", with_text_around, 5, LOADS},
    {"what x509 -text writes around", with_text_around, 6, LOADS},
    {"a long line before", with_a_long_line, 9000, LOADS},
    {"a blank line last", with_a_blank_line_last, 0, OPEN},
    {"blank lines inside", with_blank_lines_inside, 0, OPEN},
    {"blanks inside", with_blanks_inside, 0, OPEN},
    {"blanks before all lines", before_every_line, ' ', OPEN},
    {"tabs before all lines", before_every_line, '\t', OPEN},
    {"carriage returns alone", ended_by, '\r', OPEN},
    {"form feeds for newlines", ended_by, '\f', OPEN},
    {"data before END", with_data_before_end, 0, OPEN},
};

/* Each shape, with all that is wrong printed. */
static void loads_in_all_shapes(const char *text, size_t count,
                                load (*fn)(const char *path, const void *data, size_t size),
                                const struct shape *list, size_t shape_count) {
    int wrong = 0;
    for (size_t i = 0; i < shape_count; i++) {
        const struct shape *s = &list[i];
        p_text made = {NULL, 0, 0};
        const char *path;
        load l;
        T_STEP("%s", s->name);
        s->make(&made, text, s->arg);
        path = f_write("shape.pem", made.data, made.size);
        pysock_error_clear();
        l = fn(path, made.data, made.size);
        free(made.data);
        if (l.result == 0 ? l.count == count
                          : s->want == OPEN && strstr(pysock_error_message(), path) != NULL)
            continue;
        fprintf(stderr, "%s: %zu of %zu are loaded, result %d: %s\n", s->name, l.count, count,
                l.result, pysock_error_message());
        wrong++;
    }
    T_EQ(wrong, 0);
}

/* ==== every shape of PEM ==== */

T_TEST(anchors_load_from_pem_of_every_shape, 60) {
    p_text text = {NULL, 0, 0};
    put_roots(&text, 3);
    loads_in_all_shapes(text.data, 3, load_anchors, shapes, COUNT(shapes));
    free(text.data);
}

T_TEST(a_chain_loads_from_pem_of_every_shape, 60) {
    p_text text = {NULL, 0, 0};
    put_chain(&text);
    loads_in_all_shapes(text.data, 2, load_chain, shapes, COUNT(shapes));
    free(text.data);
}

T_TEST(a_key_loads_from_pem_of_every_shape, 60) {
    p_text text = {NULL, 0, 0};
    put_key(&text);
    loads_in_all_shapes(text.data, 1, load_key, shapes, COUNT(shapes));
    free(text.data);
}

/* The headers belong to it, and no others are put among them. */
T_TEST(an_encrypted_key_loads_from_pem_of_every_shape, 120) {
    char *text;
    P_NEED("openssl");
    f_write_text("password", PASSWORD);
    f_run("openssl ec -in ../../" T_CERTS "server-ec.key -aes256 -passout file:password "
          "-out old.key");
    text = f_read(f_path("old.key"), NULL);
    T_CHECK(strstr(text, "Proc-Type: 4,ENCRYPTED"));
    loads_in_all_shapes(text, 1, load_encrypted_key, shapes, COUNT(shapes));
    free(text);
    f_run("openssl pkcs8 -topk8 -in ../../" T_CERTS "server-ec.key -passout file:password "
          "-iter 1000 -out new.key");
    text = f_read(f_path("new.key"), NULL);
    T_CHECK(strstr(text, "-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    loads_in_all_shapes(text, 1, load_encrypted_key, shapes, COUNT(shapes));
    free(text);
}

T_TEST(a_revocation_list_loads_from_pem_of_every_shape, 60) {
    p_text text = {NULL, 0, 0};
    m_der crl = root_crl();
    m_put_pem(&text, "X509 CRL", crl.data, crl.size);
    loads_in_all_shapes(text.data, 1, load_lists, shapes, COUNT(shapes));
    free(text.data);
}

T_TEST(headers_and_a_blank_line_before_the_data_are_skipped, 60) {
    static const struct shape with[] = {{"headers", with_headers, 0, LOADS},
                                        {"a blank line", with_a_blank_line_first, 0, LOADS}};
    p_text text = {NULL, 0, 0};
    m_der crl = root_crl();
    put_roots(&text, 3);
    loads_in_all_shapes(text.data, 3, load_anchors, with, 2);
    text.size = 0;
    put_chain(&text);
    loads_in_all_shapes(text.data, 2, load_chain, with, 2);
    text.size = 0;
    put_key(&text);
    loads_in_all_shapes(text.data, 1, load_key, with, 2);
    text.size = 0;
    m_put_pem(&text, "X509 CRL", crl.data, crl.size);
    loads_in_all_shapes(text.data, 1, load_lists, with, 2);
    free(text.data);
}

T_TEST(a_nul_in_the_text_around_ends_nothing, 60) {
    p_text text = {NULL, 0, 0};
    load l;
    p_append(&text, "before\0", 7);
    m_put(&text, "\n");
    put_roots(&text, 1);
    p_append(&text, "between\0\0", 9);
    m_put(&text, "\n");
    put_roots(&text, 2);
    l = load_anchors(f_write("nul.pem", text.data, text.size), text.data, text.size);
    T_CHECK(l.result == 0 ? l.count == 2 : l.count == 0); /* the first one is there twice */
    free(text.data);
}

T_TEST(objects_of_kinds_that_do_not_matter_are_passed_over, 60) {
    p_text text = {NULL, 0, 0};
    m_der crl = root_crl(), key = m_key_der(2), leaf = leaf_cert(), middle = middle_cert();
    m_der parameters = m_hex(M_OID_P256);
    const char *path;
    load l;
    m_put_pem(&text, "EC PARAMETERS", parameters.data, parameters.size);
    m_put_pem(&text, "EC PRIVATE KEY", key.data, key.size);
    m_put_certificate(&text, &leaf);
    m_put_pem(&text, "DH PARAMETERS", parameters.data, parameters.size);
    m_put_pem(&text, "CERTIFICATE REQUEST", parameters.data, parameters.size);
    m_put_pem(&text, "NEW CERTIFICATE REQUEST", parameters.data, parameters.size);
    m_put_pem(&text, "PUBLIC KEY", parameters.data, parameters.size);
    m_put_pem(&text, "X509 CERTIFICATE", middle.data, middle.size);
    m_put_pem(&text, "X509 CRL", crl.data, crl.size);
    path = f_write("all.pem", text.data, text.size);
    l = load_chain_with(path, NULL);
    if (l.result < 0)
        T_FAIL("%s", pysock_error_message());
    T_EQ(l.count, 2);
    l = load_lists(path, text.data, text.size);
    T_EQ(l.result, 0);
    T_EQ(l.count, 1);
    T_EQ(load_anchors(path, text.data, text.size).count, 2);
    free(text.data);
}

/* ==== damage ==== */

/* What is done to an object that stands between two others; the text ends with '\n'. */
static char *object_at(char *text, int number) {
    for (; number > 1; number--)
        text = strstr(text + 1, "-----BEGIN ");
    return text;
}

static char *end_of(char *object) {
    return strstr(object, "-----END ");
}

static char *data_of(char *object) {
    return strchr(object, '\n') + 1;
}

/* Takes n bytes at p out, and puts a text there. */
static void replace(p_text *text, char *p, size_t n, const char *by) {
    p_text made = {NULL, 0, 0};
    p_append(&made, text->data, (size_t)(p - text->data));
    m_put(&made, by);
    m_put(&made, p + n);
    free(text->data);
    *text = made;
}

static void cut_at(p_text *text, char *p) {
    *p = 0;
    text->size = (size_t)(p - text->data);
}

static void join_end_and_begin(p_text *t) {
    char *end = end_of(t->data);
    replace(t, end + line_length(end), 1, "");
}

static void join_end_and_begin_by_a_blank(p_text *t) {
    char *end = end_of(t->data);
    replace(t, end + line_length(end), 1, " ");
}

static void write_behind_end(p_text *t) {
    char *end = end_of(object_at(t->data, 2));
    replace(t, end + line_length(end), 0, " x");
}

static void write_behind_begin(p_text *t) {
    char *begin = object_at(t->data, 2);
    replace(t, begin + line_length(begin), 0, " x");
}

static void drop_end(p_text *t) {
    char *end = end_of(object_at(t->data, 2));
    replace(t, end, line_length(end) + 1, "");
}

static void drop_begin(p_text *t) {
    char *begin = object_at(t->data, 2);
    replace(t, begin, line_length(begin) + 1, "");
}

static void end_another_kind(p_text *t) {
    char *end = end_of(object_at(t->data, 2));
    replace(t, end, line_length(end), "-----END X509 CRL-----");
}

static void end_in_lower_case(p_text *t) {
    char *end = end_of(object_at(t->data, 2));
    replace(t, end, line_length(end), "-----end certificate-----");
}

static void shorten_the_dashes_of_end(p_text *t) {
    char *end = end_of(object_at(t->data, 2));
    replace(t, end + line_length(end) - 1, 1, "");
}

static void shorten_the_dashes_of_begin(p_text *t) {
    char *begin = object_at(t->data, 2);
    replace(t, begin + line_length(begin) - 1, 1, "");
}

static void break_begin(p_text *t) {
    char *begin = object_at(t->data, 2);
    replace(t, begin + 14, 0, "\n");
}

static void break_end(p_text *t) {
    char *end = end_of(object_at(t->data, 2));
    replace(t, end + 12, 0, "\n");
}

static void misspell_the_kind(p_text *t) {
    replace(t, strstr(object_at(t->data, 2), "CERTIFICATE"), 11, "CERTIFCATE");
    replace(t, strstr(end_of(object_at(t->data, 2)), "CERTIFICATE"), 11, "CERTIFCATE");
}

static void write_a_star(p_text *t) {
    data_of(object_at(t->data, 2))[70] = '*';
}

static void write_a_letter_that_is_none(p_text *t) {
    replace(t, data_of(object_at(t->data, 2)) + 70, 1, "\xc3\xa4");
}

static void write_a_dash(p_text *t) {
    data_of(object_at(t->data, 2))[70] = '-';
}

static void write_a_comment(p_text *t) {
    replace(t, data_of(object_at(t->data, 2)) + 65, 0, "# here the second line begins\n");
}

static void pad_in_the_middle(p_text *t) {
    memset(data_of(object_at(t->data, 2)) + 67, '=', 2);
}

static void drop_a_letter(p_text *t) {
    replace(t, data_of(object_at(t->data, 2)) + 70, 1, "");
}

static void drop_a_line(p_text *t) {
    replace(t, data_of(object_at(t->data, 2)) + 65, 65, "");
}

static void change_a_length(p_text *t) {
    data_of(object_at(t->data, 2))[3]++;
}

static void drop_the_last_line(p_text *t) {
    char *end = end_of(object_at(t->data, 2)), *line = end - 2;
    while (line[-1] != '\n')
        line--;
    replace(t, line, (size_t)(end - line), "");
}

static void drop_all_data(p_text *t) {
    char *data = data_of(object_at(t->data, 2)), *end = end_of(data);
    replace(t, data, (size_t)(end - data), "");
}

static void write_other_bytes(p_text *t) {
    char *data = data_of(object_at(t->data, 2)), *end = end_of(data);
    replace(t, data, (size_t)(end - data), "VGhpcyBpcyBubyBjZXJ0aWZpY2F0ZS4=\n");
}

static void end_after_begin(p_text *t) {
    cut_at(t, data_of(object_at(t->data, 3)));
}

static void end_in_the_data(p_text *t) {
    cut_at(t, data_of(object_at(t->data, 3)) + 100);
}

static void end_before_end(p_text *t) {
    cut_at(t, end_of(object_at(t->data, 3)));
}

static void end_in_end(p_text *t) {
    cut_at(t, end_of(object_at(t->data, 3)) + 12);
}

static void end_in_begin(p_text *t) {
    cut_at(t, object_at(t->data, 3) + 20);
}

/* Which object is damaged, or the one next to it, where two are involved; and what may be said. */
static const struct damage {
    const char *name;
    void (*make)(p_text *text);
    int number, or_number;
    const char *causes;
} damages[] = {
    {"END and BEGIN joined", join_end_and_begin, 1, 2, "END|BEGIN|line"},
    {"END and BEGIN in a line", join_end_and_begin_by_a_blank, 1, 2, "END|BEGIN|line"},
    {"text behind END", write_behind_end, 2, 3, "END|line"},
    {"text behind BEGIN", write_behind_begin, 2, 2, "BEGIN|line"},
    {"no END", drop_end, 2, 3, "END"},
    {"no BEGIN", drop_begin, 2, 2, "BEGIN"},
    {"END of another kind", end_another_kind, 2, 2, "END|CRL"},
    {"end in lower case", end_in_lower_case, 2, 3, "END|base64|line"},
    {"a dash too few in END", shorten_the_dashes_of_end, 2, 3, "END|line"},
    {"a dash too few in BEGIN", shorten_the_dashes_of_begin, 2, 2, "BEGIN|line"},
    {"BEGIN in two lines", break_begin, 2, 2, "BEGIN|line"},
    {"END in two lines", break_end, 2, 3, "END|line"},
    {"a kind that nobody knows", misspell_the_kind, 2, 2, "CERTIFCATE"},
    {"a star", write_a_star, 2, 2, "base64"},
    {"a letter that is none", write_a_letter_that_is_none, 2, 2, "base64"},
    {"a dash", write_a_dash, 2, 2, "base64"},
    {"a comment", write_a_comment, 2, 2, "base64"},
    {"padding in the middle", pad_in_the_middle, 2, 2, "base64"},
    {"a letter too few", drop_a_letter, 2, 2, "base64"},
    {"a line too few", drop_a_line, 2, 2, "DER|certificate"},
    {"another length", change_a_length, 2, 2, "DER|certificate"},
    {"no last line", drop_the_last_line, 2, 2, "DER|certificate|ends"},
    {"no data", drop_all_data, 2, 2, "empty|no data|DER|certificate"},
    {"other bytes", write_other_bytes, 2, 2, "DER|certificate"},
    {"ends after BEGIN", end_after_begin, 3, 3, "END|cut off|ends"},
    {"ends in the data", end_in_the_data, 3, 3, "END|cut off|ends"},
    {"ends before END", end_before_end, 3, 3, "END|cut off|ends"},
    {"ends in END", end_in_end, 3, 3, "END|cut off|ends"},
    {"ends in BEGIN", end_in_begin, 3, 3, "BEGIN|cut off|ends|line"},
};

/* Prints what is wrong with a failure that should have come; 0 if nothing is. */
static int is_told(const struct damage *d, const char *path, int result, const char *where) {
    const char *what = NULL, *m = pysock_error_message();
    if (result == 0)
        what = "no error";
    else if (pysock_error() != PYSOCK_SSL_ERROR)
        what = "no SSLError";
    else if (path && !strstr(m, path))
        what = "no file";
    else if (!says_number(m, path, d->number) && !says_number(m, path, d->or_number))
        what = "no number of the object";
    else if (!says_besides(m, path, d->causes))
        what = "no cause";
    if (what)
        fprintf(stderr, "%s, %s: %s ('%s')\n", d->name, where, what, m);
    return what != NULL;
}

T_TEST(a_damaged_anchor_is_named_and_none_is_taken, 60) {
    int wrong = 0;
    for (size_t i = 0; i < 2 * COUNT(damages); i++) {
        const struct damage *d = &damages[i / 2];
        pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
        p_text text = {NULL, 0, 0};
        const char *path;
        T_STEP("%s", d->name);
        T_OK(pysock_ssl_load_verify_locations(ctx, T_CERTS "ca.pem", NULL));
        put_roots(&text, 3);
        d->make(&text);
        path = f_write("damaged.pem", text.data, text.size);
        pysock_error_clear();
        if (i % 2)
            wrong += is_told(d, NULL, pysock_ssl_load_verify_data(ctx, text.data, text.size),
                             "anchors in memory");
        else
            wrong += is_told(d, path, pysock_ssl_load_verify_locations(ctx, path, NULL),
                             "a file of anchors");
        if (pysock_ssl_ca_count(ctx) != 1) {
            fprintf(stderr, "%s: %zu anchors, not the one that was there before\n", d->name,
                    pysock_ssl_ca_count(ctx));
            wrong++;
        }
        free(text.data);
        pysock_ssl_context_release(ctx);
    }
    T_EQ(wrong, 0);
}

/* A chain that is not shown whole is worse than none: most clients fail, and some do not. */
T_TEST(a_damaged_certificate_of_a_chain_is_named, 60) {
    int wrong = 0;
    for (size_t i = 0; i < COUNT(damages); i++) {
        pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
        const char *key = plain_key(), *path;
        p_text text = {NULL, 0, 0};
        m_der root = root_cert("Root");
        T_STEP("%s", damages[i].name);
        put_chain(&text);
        m_put_certificate(&text, &root);
        damages[i].make(&text);
        path = f_write("damaged.pem", text.data, text.size);
        pysock_error_clear();
        wrong += is_told(&damages[i], path, pysock_ssl_load_cert_chain(ctx, path, key), "a chain");
        pysock_ssl_context_release(ctx);
        free(text.data);
    }
    T_EQ(wrong, 0);
}

T_TEST(a_damaged_list_is_named, 60) {
    pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    m_der crl = root_crl(), root = root_cert("Root");
    p_text text = {NULL, 0, 0};
    const char *path;
    m_put_certificate(&text, &root);
    m_put_pem(&text, "X509 CRL", crl.data, crl.size);
    data_of(object_at(text.data, 2))[70] = '*';
    path = f_write("list.pem", text.data, text.size);
    T_FAILS(pysock_ssl_load_verify_locations(ctx, path, NULL), PYSOCK_SSL_ERROR, EPROTO);
    error_names(path, 2, 2, "base64");
    text.size = 0;
    m_put_certificate(&text, &root);
    m_put_pem(&text, "X509 CRL", crl.data, crl.size - 7);
    path = f_write("list.pem", text.data, text.size);
    T_FAILS(pysock_ssl_load_verify_locations(ctx, path, NULL), PYSOCK_SSL_ERROR, EPROTO);
    error_names(path, 2, 2, "DER|list|CRL");
    T_EQ(pysock_ssl_ca_count(ctx), 0);
    pysock_ssl_context_release(ctx);
    free(text.data);
}

T_TEST(a_damaged_key_is_named_with_its_cause, 60) {
    m_der key = m_key_der(2);
    p_text chain = {NULL, 0, 0}, text = {NULL, 0, 0};
    put_chain(&chain);
    for (int i = 0; i < 4; i++) {
        static const char *const causes[] = {"base64", "END|cut off|ends", "END|BEGIN|line",
                                             "damaged|DER|no data|empty"};
        pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
        const char *cert = f_write("chain.pem", chain.data, chain.size), *path;
        text.size = 0;
        m_put_pem(&text, "EC PRIVATE KEY", key.data, i == 3 ? 0 : key.size);
        if (i == 0)
            data_of(text.data)[30] = '*';
        else if (i == 1)
            cut_at(&text, end_of(text.data));
        else if (i == 2)
            replace(&text, text.data + text.size - 1, 1, "-----BEGIN CERTIFICATE-----\n");
        path = f_write("broken.key", text.data, text.size);
        T_STEP("%s", causes[i]);
        T_FAILS(pysock_ssl_load_cert_chain(ctx, cert, path), PYSOCK_SSL_ERROR, EPROTO);
        error_names(path, 1, 1, causes[i]);
        pysock_ssl_context_release(ctx);
    }
    free(chain.data);
    free(text.data);
}

T_TEST(of_a_bundle_of_140_the_damaged_one_is_named, 120) {
    pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    p_text text = {NULL, 0, 0};
    const char *path;
    int wrong = 0;
    put_roots(&text, 140);
    T_OK(pysock_ssl_load_verify_locations(ctx, f_write("whole.pem", text.data, text.size), NULL));
    T_EQ(pysock_ssl_ca_count(ctx), 140);
    pysock_ssl_context_release(ctx);
    for (size_t i = 0; i < COUNT(damages); i++) {
        struct damage d = damages[i];
        p_text three = {NULL, 0, 0}, made = {NULL, 0, 0};
        char *first = object_at(text.data, 69), *behind = object_at(text.data, 72);
        if (d.number != 2)
            continue;
        T_STEP("%s", d.name);
        ctx = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
        p_append(&three, first, (size_t)(behind - first));
        d.make(&three);
        p_append(&made, text.data, (size_t)(first - text.data));
        m_put(&made, three.data);
        m_put(&made, behind);
        d.number += 68;
        d.or_number += 68;
        path = f_write("bundle.pem", made.data, made.size);
        pysock_error_clear();
        wrong += is_told(&d, path, pysock_ssl_load_verify_locations(ctx, path, NULL),
                         "a bundle of 140");
        wrong += pysock_ssl_ca_count(ctx) != 0;
        pysock_ssl_context_release(ctx);
        free(three.data);
        free(made.data);
    }
    T_EQ(wrong, 0);
    free(text.data);
}

/* DER that goes on behind its end: OpenSSL does not look there. Whole, or an error. */
T_TEST(bytes_behind_a_certificate_in_pem_lose_nothing, 60) {
    m_der der = root_cert("Root 1"), other = root_cert("Root 2");
    p_text text = {NULL, 0, 0};
    const char *path;
    pysock_ssl_context *ctx;
    load l;
    m_add_hex(&der, "00");
    m_put_certificate(&text, &der);
    m_put_certificate(&text, &other);
    path = f_write("behind.pem", text.data, text.size);
    l = load_anchors(path, text.data, text.size);
    T_CHECK(l.result == 0 ? l.count == 2 : l.count == 0);
    free(text.data);
    if (l.result == 0)
        return;
    ctx = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    T_FAILS(pysock_ssl_load_verify_locations(ctx, path, NULL), PYSOCK_SSL_ERROR, EPROTO);
    error_names(path, 1, 1, "DER|certificate|behind");
    pysock_ssl_context_release(ctx);
}

/* The last anchor stands behind more text than anybody reads: it is found, or there is an error. */
T_TEST(a_file_that_is_too_long_is_not_read_in_part, 120) {
    static char lines[1 << 20];
    pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
    p_text first = {NULL, 0, 0}, last = {NULL, 0, 0};
    m_der d = root_cert("Last");
    const char *path = f_path("long.pem");
    FILE *f = fopen(path, "wb");
    int r;
    T_CHECK(f != NULL);
    put_roots(&first, 1);
    m_put_certificate(&last, &d);
    memset(lines, 'x', sizeof lines);
    for (size_t i = 63; i < sizeof lines; i += 64)
        lines[i] = '\n';
    T_EQ(fwrite(first.data, 1, first.size, f), first.size);
    for (int i = 0; i < 66; i++)
        T_EQ(fwrite(lines, 1, sizeof lines, f), sizeof lines);
    T_EQ(fwrite(last.data, 1, last.size, f), last.size);
    T_EQ(fclose(f), 0);
    r = pysock_ssl_load_verify_locations(ctx, path, NULL);
    if (r < 0)
        H_CONTAINS(pysock_error_message(), path);
    T_EQ(pysock_ssl_ca_count(ctx), r < 0 ? 0 : 2);
    pysock_ssl_context_release(ctx);
    free(first.data);
    free(last.data);
}

/* Certificates that OpenSSL loads, whatever it says of them later. */
static const struct odd {
    const char *what;
    m_spec spec;
    const char *validity; /* the contents */
} odd_ones[] = {
    {"TRUE as 01", {.extensions = "300f0603551d13010101040530030101ff"}, NULL},
    {"a time without seconds", {.extensions = M_AUTHORITY, .not_before = "2001010000Z"}, NULL},
    {"a time with an offset", {.extensions = M_AUTHORITY, .not_before = "200101000000+0100"}, NULL},
    {"a time that is none", {.extensions = M_AUTHORITY, .not_before = "yesterday"}, NULL},
    {"the hour 24", {.extensions = M_AUTHORITY, .not_before = "200101240000Z"}, NULL},
    {"the second 60", {.extensions = M_AUTHORITY, .not_before = "200630235960Z"}, NULL},
    {"30 February", {.extensions = M_AUTHORITY, .not_before = "200230000000Z"}, NULL},
    {"a fraction of a second",
     {.extensions = M_AUTHORITY},
     "181132303230303130313030303030302e355a180f32303439313233313233353935395a"},
    {"version 1 and extensions", {.extensions = M_AUTHORITY, .version = "00"}, NULL},
    {"version 4", {.extensions = M_AUTHORITY, .version = "a003020103"}, NULL},
    {"an extension twice", {.extensions = M_AUTHORITY M_CA}, NULL},
    {"another extension twice",
     {.extensions = M_AUTHORITY "300906032a030404020500300906032a030404020500"},
     NULL},
    {"a malformed subjectAltName", {.extensions = M_AUTHORITY "30090603551d1104020500"}, NULL},
    {"an empty subjectAltName", {.extensions = M_AUTHORITY "30090603551d1104023000"}, NULL},
    {"malformed basicConstraints", {.extensions = "30090603551d1304020500"}, NULL},
    {"a malformed keyUsage", {.extensions = M_CA "30090603551d0f04020500"}, NULL},
    {"a malformed extKeyUsage", {.extensions = M_AUTHORITY "30090603551d2504020500"}, NULL},
    {"an empty extKeyUsage", {.extensions = M_AUTHORITY "30090603551d2504023000"}, NULL},
    {"malformed nameConstraints", {.extensions = M_AUTHORITY "30090603551d1e04023000"}, NULL},
    {"a malformed key identifier", {.extensions = M_AUTHORITY "30090603551d0e04020500"}, NULL},
    {"a malformed authority identifier",
     {.extensions = M_AUTHORITY "30090603551d2304020500"},
     NULL},
    {"an unknown critical extension",
     {.extensions = M_AUTHORITY "300c06032a03040101ff04020500"},
     NULL},
    {"an empty sequence of extensions", {.extensions = ""}, NULL},
    {"no extensions", {.extensions = NULL}, NULL},
};

static m_der odd_cert(const struct odd *o) {
    m_spec s = o->spec;
    m_der validity = m_tlv(0x30, m_hex(o->validity ? o->validity : ""));
    s.subject = "Odd";
    if (o->validity)
        s.validity = &validity;
    if (s.version && strcmp(s.version, "00") == 0)
        s.version = "";
    return m_issue(&s);
}

/* One that the library cannot read is not passed over. */
T_TEST(an_odd_certificate_among_others_is_counted_or_named, 60) {
    int wrong = 0;
    for (size_t i = 0; i < COUNT(odd_ones); i++) {
        pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
        struct damage d = {odd_ones[i].what, NULL, 2, 2, "DER|certificate|encoding"};
        m_der first = root_cert("First"), odd = odd_cert(&odd_ones[i]), last = root_cert("Last");
        p_text text = {NULL, 0, 0};
        const char *path;
        int r;
        T_STEP("%s", d.name);
        m_put_certificate(&text, &first);
        m_put_certificate(&text, &odd);
        m_put_certificate(&text, &last);
        path = f_write("odd.pem", text.data, text.size);
        free(text.data);
        pysock_error_clear();
        r = pysock_ssl_load_verify_locations(ctx, path, NULL);
        if (r < 0)
            wrong += is_told(&d, path, r, "a file of anchors");
        if (pysock_ssl_ca_count(ctx) != (r < 0 ? 0 : 3)) {
            fprintf(stderr, "%s: %td anchors of 3, result %d\n", d.name, pysock_ssl_ca_count(ctx),
                    r);
            wrong++;
        }
        pysock_ssl_context_release(ctx);
    }
    T_EQ(wrong, 0);
}

/* The same as an authority that a server shows. */
T_TEST(an_odd_certificate_in_a_chain_is_shown_or_named, 60) {
    int wrong = 0;
    for (size_t i = 0; i < COUNT(odd_ones); i++) {
        struct damage d = {odd_ones[i].what, NULL, 2, 2, "DER|certificate|encoding"};
        m_der leaf = leaf_cert(), odd = odd_cert(&odd_ones[i]);
        const char *key = plain_key(), *path;
        p_text text = {NULL, 0, 0};
        load l;
        T_STEP("%s", d.name);
        m_put_certificate(&text, &leaf);
        m_put_certificate(&text, &odd);
        path = f_write("odd.pem", text.data, text.size);
        free(text.data);
        pysock_error_clear();
        l = load_chain_with(path, key);
        if (l.result < 0)
            wrong += is_told(&d, path, l.result, "a chain");
        else if (l.count != 2) {
            fprintf(stderr, "%s: %zu certificates of 2 are shown\n", d.name, l.count);
            wrong++;
        }
    }
    T_EQ(wrong, 0);
}

/* ==== beside OpenSSL ==== */

static const char *python(void) { /* the interpreter that the set-up has installed modules for */
    return access("/usr/bin/python3", X_OK) == 0 ? "/usr/bin/python3" : "python3";
}

/* Three thousand variants: whatever is done to a file, what OpenSSL finds in it is found, and so is
   every object that ends; or there is an error that names the file. */
T_TEST(no_variant_of_a_file_loses_an_object_without_an_error, T_SCALE(180, 600)) {
    static p_process p;
    p_args args = {{NULL}, 0};
    int count = 0, wrong = 0, refused_both = 0, taken = 0;
    char *line, *rest;
    P_NEED("python3");
    p_add(&args, python(), "tests/peers/pemfiles.py", f_dir(), NULL);
    if (p_run_within(&p, &args, T_SCALE(120, 400)) != 0)
        P_FAIL(&p, "pemfiles.py failed");
    rest = p.said.data;
    while ((line = strtok_r(rest, "\n", &rest)) != NULL) {
        char path[128], what[128];
        int theirs, ends, ours;
        T_EQ(sscanf(line, "%127s %d %d %127[^\n]", path, &theirs, &ends, what), 4);
        pysock_error_clear();
        count++;
        if (strstr(path, "/anchors-")) {
            pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_SERVER_AUTH));
            int r = pysock_ssl_load_verify_locations(ctx, path, NULL);
            ours = r < 0 ? -1 : (int)pysock_ssl_ca_count(ctx);
            T_CHECK(r == 0 || pysock_ssl_ca_count(ctx) == 0);
            pysock_ssl_context_release(ctx);
        } else if (strstr(path, "/key-")) {
            pysock_ssl_context *ctx = T_OK(pysock_ssl_context_new(PYSOCK_CLIENT_AUTH));
            ends = 0;
            ours = pysock_ssl_load_cert_chain(ctx, T_CERTS "server-ec.pem", path) < 0 ? -1 : 1;
            pysock_ssl_context_release(ctx);
        } else {
            load l = load_chain_with(path, T_CERTS "chain-ec.key");
            ours = l.result < 0 ? -1 : (int)l.count;
        }
        refused_both += ours < 0 && theirs < 0;
        taken += ours > 0;
        if (ours < 0 ? strstr(pysock_error_message(), path) != NULL
                     : ours >= theirs && ours >= ends)
            continue;
        if (wrong++ < 100)
            fprintf(stderr, "%s, %s: %d, OpenSSL %d, lines that end one %d (%s)\n", path, what,
                    ours, theirs, ends, pysock_error_message());
    }
    p_end(&p);
    T_EQ(wrong, 0);
    T_CHECK(count > 1000 && refused_both > 100 && taken > 100);
}

T_MAIN(.each_teardown = p_clear_away)
