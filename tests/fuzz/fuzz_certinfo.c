/* Arbitrary bytes as a certificate that is to be shown, as a date, and as what PEM carries. */
#include "pysock.h"
#include "fuzz.h"

/* Text is terminated where its size says, and there is as much of it as memory says. */
static void check_text(const char *text, size_t size)
{
    FUZZ_CHECK(text && text[size] == 0);
}

static void check_name(const pysock_ssl_attribute *rows, size_t count)
{
    int rdn = 0;
    size_t i;

    FUZZ_CHECK(!rows == !count);
    for (i = 0; i < count; i++) {
        FUZZ_CHECK(rows[i].name && *rows[i].name);
        check_text(rows[i].value, rows[i].value_size);
        FUZZ_CHECK(rows[i].rdn >= rdn);
        rdn = rows[i].rdn;
    }
}

static void check_uris(const char *const *rows, size_t count)
{
    size_t i;

    FUZZ_CHECK(!rows == !count);
    for (i = 0; i < count; i++)
        check_text(rows[i], strlen(rows[i]));
}

static void check_alt_names(const pysock_ssl_cert *cert)
{
    size_t i;

    FUZZ_CHECK(!cert->subject_alt_names == !cert->subject_alt_name_count);
    for (i = 0; i < cert->subject_alt_name_count; i++) {
        const pysock_ssl_alt_name *name = &cert->subject_alt_names[i];
        FUZZ_CHECK(name->type && *name->type);
        check_text(name->value, name->value_size);
        check_name(name->dirname, name->dirname_count);
        FUZZ_CHECK(!name->dirname || strcmp(name->type, "DirName") == 0);
    }
}

/* A date that is shown can be read back, if its year has the four digits that Python wants. */
static void check_time(const char *text, int64_t seconds)
{
    int64_t again = 0;

    FUZZ_CHECK(strlen(text) >= 21 && strcmp(text + strlen(text) - 4, " GMT") == 0);
    if (strlen(text) == 24 && strstr(text, " 0 GMT") == NULL)
        FUZZ_CHECK(pysock_ssl_cert_time_to_seconds(text, &again) == 0 && again == seconds);
}

static void check_serial(const char *text)
{
    size_t n;

    text += *text == '-';
    n = strlen(text);
    FUZZ_CHECK(n && n % 2 == 0 && strspn(text, "0123456789ABCDEF") == n);
    FUZZ_CHECK(n == 2 || strncmp(text, "00", 2) != 0);
}

static void try_certificate(const uint8_t *data, size_t size)
{
    uint8_t *copy = fuzz_copy(data, size);
    pysock_ssl_cert *cert = pysock_ssl_cert_parse(copy, size);

    free(copy);
    if (!cert) {
        FUZZ_CHECK(pysock_error() == PYSOCK_SSL_ERROR);
        return;
    }
    FUZZ_CHECK(cert->version >= 1 && cert->version <= 3);
    check_serial(cert->serial_number);
    check_name(cert->subject, cert->subject_count);
    check_name(cert->issuer, cert->issuer_count);
    check_time(cert->not_before, cert->not_before_seconds);
    check_time(cert->not_after, cert->not_after_seconds);
    check_alt_names(cert);
    check_uris(cert->ocsp, cert->ocsp_count);
    check_uris(cert->ca_issuers, cert->ca_issuers_count);
    check_uris(cert->crl_distribution_points, cert->crl_distribution_point_count);
    FUZZ_CHECK(cert->key_bits >= 0 && (cert->key_type || !cert->key_bits));
    FUZZ_CHECK(cert->signature_algorithm && *cert->signature_algorithm);
    FUZZ_CHECK(cert->is_ca == 0 || cert->is_ca == 1);
    pysock_ssl_cert_free(cert);
}

static void try_text(const uint8_t *data, size_t size)
{
    char *text = fuzz_text(data, size);
    int64_t seconds = 0;
    pysock_ssl_oid oid;
    pysock_buf *der;

    if (pysock_ssl_cert_time_to_seconds(text, &seconds) == 0)
        FUZZ_CHECK(seconds >= INT64_C(-62135596800) && seconds <= INT64_C(253402300801));
    else
        FUZZ_CHECK(pysock_error() == PYSOCK_VALUE_ERROR);
    if (pysock_ssl_txt2obj(text, 1, &oid) == 0)
        FUZZ_CHECK(oid.nid > 0 && oid.oid && oid.shortname && oid.longname);
    der = pysock_ssl_pem_cert_to_der_cert(text);
    FUZZ_CHECK(der || pysock_error() == PYSOCK_VALUE_ERROR);
    pysock_buf_release(der);
    free(text);
}

static void try_pem(const uint8_t *data, size_t size)
{
    pysock_buf *pem = pysock_ssl_der_cert_to_pem_cert(data, size), *der;

    FUZZ_CHECK(pem && strlen(pysock_buf_data(pem)) == pysock_buf_size(pem));
    der = pysock_ssl_pem_cert_to_der_cert(pysock_buf_data(pem));
    FUZZ_CHECK(der && pysock_buf_size(der) == size);
    FUZZ_CHECK(!size || memcmp(pysock_buf_data(der), data, size) == 0);
    pysock_buf_release(pem);
    pysock_buf_release(der);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try_certificate(data, size);
    try_text(data, size);
    try_pem(data, size);
    return 0;
}
