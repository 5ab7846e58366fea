/* For whom a certificate is: names and addresses one by one, as RFC 6125 and Python have it. */
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#include "support/support.h"

#define TEXT(text) text, sizeof text - 1

T_TEST(a_wildcard_is_one_whole_leftmost_label, 30) {
    static const struct {
        const char *pattern;
        size_t size;
        const char *host;
        int match;
    } rows[] = {
        {TEXT("example.test"), "example.test", 1},
        {TEXT("EXAMPLE.test"), "example.TEST", 1},
        {TEXT("example.test."), "example.test", 1},
        {TEXT("example.test"), "example.tes", 0},
        {TEXT("example.test"), "www.example.test", 0},
        {TEXT("www.example.test"), "example.test", 0},
        {TEXT("*.example.test"), "www.example.test", 1},
        {TEXT("*.example.test"), "WWW.Example.Test", 1},
        {TEXT("*.example.test."), "www.example.test", 1},
        {TEXT("*.example.test"), "example.test", 0},
        {TEXT("*.example.test"), ".example.test", 0},
        {TEXT("*.example.test"), "a.b.example.test", 0},
        {TEXT("*.example.test"), "www.ex", 0},
        {TEXT("*.example.test"), "www.example", 0},
        {TEXT("*.example.test"), "www.example.test.more", 0},
        {TEXT("*.test"), "example.test", 0},
        {TEXT("*."), "example.", 0},
        {TEXT("*"), "localhost", 0},
        {TEXT("*"), "x", 0},
        {TEXT("w*.example.test"), "www.example.test", 0},
        {TEXT("*w.example.test"), "www.example.test", 0},
        {TEXT("www.*.test"), "www.example.test", 0},
        {TEXT("*.*.test"), "www.example.test", 0},
        {TEXT("*.*.test"), "www.*.test", 0},
        {TEXT("localhost\0.example.test"), "localhost", 0},
        {TEXT("*.example\0.test"), "www.example", 0},
        {TEXT(""), "", 0},
        {TEXT("."), "", 0},
        {TEXT("*.example.test"), "", 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        T_STEP("%s for %s", rows[i].pattern, rows[i].host);
        T_EQ(pysock__dns_match((const unsigned char *)rows[i].pattern, rows[i].size, rows[i].host,
                               strlen(rows[i].host)),
             rows[i].match);
    }
}

/* The subject is one common name; the alternative names are as they stand in the sequence. */
static int matches(const char *cn, const void *san, size_t san_size, const char *host,
                   int no_common_name) {
    unsigned char subject[64];
    size_t n = strlen(cn);
    pysock__cert cert;
    T_CHECK(n < 40);
    memset(&cert, 0, sizeof cert);
    memcpy(subject,
           (unsigned char[]){0x31, (unsigned char)(n + 9), 0x30, (unsigned char)(n + 7), 6, 3, 0x55,
                             4, 3, 0x0c, (unsigned char)n},
           11);
    memcpy(subject + 11, cn, n);
    cert.subject.p = subject;
    cert.subject.end = subject + 11 + n;
    if (san) {
        cert.seen = PYSOCK__EXT_SAN;
        cert.san.p = san;
        cert.san.end = cert.san.p + san_size;
    }
    return pysock__cert_matches(&cert, host, no_common_name);
}

T_TEST(names_count_for_names_and_addresses_for_addresses, 30) {
    static const char dns[] = "\x82\x09"
                              "localhost\x82\x09"
                              "127.0.0.2";
    static const char ip[] = "\x87\x04\x7f\0\0\1\x87\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1";
    T_EQ(matches("x", TEXT(dns), "localhost", 0), 1);
    T_EQ(matches("x", TEXT(dns), "localhost.", 0), 1);
    T_EQ(matches("x", TEXT(dns), "127.0.0.2", 0), 0); /* as text it is no address */
    T_EQ(matches("x", TEXT(ip), "127.0.0.1", 0), 1);
    T_EQ(matches("x", TEXT(ip), "127.0.0.2", 0), 0);
    T_EQ(matches("x", TEXT(ip), "::1", 0), 1);
    T_EQ(matches("x", TEXT(ip), "0:0:0:0:0:0:0:1", 0), 1);
    T_EQ(matches("x", TEXT(ip), "::2", 0), 0);
    T_EQ(matches("x", TEXT(ip), "localhost", 0), 0);
    T_EQ(matches("x",
                 "\x82\x7f"
                 "localhost",
                 11, "localhost", 0),
         0); /* cut off */
}

T_TEST(a_common_name_counts_only_where_nothing_else_does, 30) {
    static const char dns[] = "\x82\x05"
                              "other";
    T_EQ(matches("localhost", NULL, 0, "localhost", 0), 1);
    T_EQ(matches("localhost", NULL, 0, "localhost.", 0), 1);
    T_EQ(matches("localhost", NULL, 0, "localhost", 1), 0);
    T_EQ(matches("localhost", TEXT(dns), "localhost", 0), 0);
    T_EQ(matches("127.0.0.1", NULL, 0, "127.0.0.1", 0), 0);
    T_EQ(matches("::1", NULL, 0, "::1", 0), 0);
}

T_MAIN()
