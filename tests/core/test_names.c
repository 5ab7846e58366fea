/* Names and addresses: the resolver's calls with all their arguments, services, protocols,
   interfaces, addresses as text and back, international names. What CPython's test_socket.py knows
   to be good or bad is here too. No name server is needed: what only one could tell is asked in a
   way that takes any answer. */
#include "support/support.h"

#include <locale.h>
#include <net/if.h>

static int setup(void **state) {
    (void)state;
    setenv("RES_OPTIONS", "timeout:1 attempts:1", 1);
    return 0;
}

static int knows_service(const char *name) {
    if (getservbyname(name, "tcp"))
        return 1;
    print_message("this machine's /etc/services has no %s: skipped\n", name);
    return 0;
}

static void expect_text(const char *have, const char *want) {
    if (!have || strcmp(have, want) != 0)
        T_FAIL("have '%s', not '%s'", have ? have : "(NULL)", want);
}

/* The message of the last error names this. */
static void expect_named(const char *word) {
    if (!strstr(pysock_error_message(), word))
        T_FAIL("'%s' does not name %s", pysock_error_message(), word);
}

static void expect_gai(int code, const char *reason, const char *word) {
    T_EQ(pysock_error_code(), code);
    expect_text(pysock_error_name(), "gaierror");
    expect_text(pysock_error_reason(), reason);
    expect_named(word);
}

/* expr fails with gaierror: this EAI_ code, and a message that has the word. */
#define GAI_FAILS(expr, code, word)                                                                \
    do {                                                                                           \
        T_FAILS(expr, PYSOCK_GAI_ERROR, T_ANY);                                                    \
        expect_gai(code, #code, word);                                                             \
    } while (0)

/* It fails cleanly: with gaierror, or with ValueError, as Python's UnicodeError is one. */
#define NAME_FAILS(expr)                                                                           \
    do {                                                                                           \
        T_FAILS(expr, T_ANY, T_ANY);                                                               \
        T_CHECK(pysock_error() == PYSOCK_GAI_ERROR || pysock_error() == PYSOCK_VALUE_ERROR);       \
    } while (0)

static void expect_addr(const pysock_addr *addr, const char *want) {
    char text[PYSOCK_ADDR_STRLEN];
    T_CHECK(addr->size > 0);
    pysock_addr_format(addr, text, sizeof text);
    expect_text(text, want);
}

/* ---- getaddrinfo ---- */

static ptrdiff_t look_up(const char *host, const char *service, int family, int type, int proto,
                         int flags, pysock_addrinfo **list) {
    *list = NULL;
    return pysock_getaddrinfo(host, service, family, type, proto, flags, list);
}

/* One stream address, as text. */
static void expect_one(const char *host, const char *service, int family, int flags,
                       const char *want) {
    pysock_addrinfo *list;
    T_STEP("%s, %s", host ? host : "NULL", service ? service : "NULL");
    T_EQ(T_OK(look_up(host, service, family, SOCK_STREAM, 0, flags, &list)), 1);
    T_CHECK(list != NULL);
    expect_addr(&list[0].addr, want);
    T_EQ(list[0].family, list[0].addr.u.sa.sa_family);
    T_EQ(list[0].type, SOCK_STREAM);
    T_EQ(list[0].proto, IPPROTO_TCP);
    expect_text(list[0].canonname, "");
    pysock_freeaddrinfo(list);
}

T_TEST(getaddrinfo_reads_addresses_and_ports, 30) {
    expect_one("127.0.0.1", "80", 0, 0, "127.0.0.1:80");
    expect_one("127.0.0.1", "0", AF_INET, 0, "127.0.0.1:0");
    expect_one("127.0.0.1", "65535", AF_INET, 0, "127.0.0.1:65535");
    expect_one("127.0.0.1", NULL, AF_INET, 0, "127.0.0.1:0");
    expect_one("127.1", "80", AF_INET, AI_NUMERICHOST, "127.0.0.1:80");
    expect_one("255.255.255.255", "9", 0, AI_NUMERICHOST | AI_NUMERICSERV, "255.255.255.255:9");
    expect_one(NULL, "80", AF_INET, 0, "127.0.0.1:80");
    expect_one(NULL, "80", AF_INET, AI_PASSIVE, "0.0.0.0:80");
    expect_one("127.0.0.1", "80", AF_INET, AI_PASSIVE, "127.0.0.1:80");
}

T_TEST(getaddrinfo_reads_ipv6_addresses, 30) {
    if (!t_has_ipv6())
        skip();
    expect_one("::1", "443", 0, 0, "[::1]:443");
    expect_one("::1", "443", AF_INET6, AI_NUMERICHOST, "[::1]:443");
    expect_one("2001:DB8::8D", "1", AF_INET6, 0, "[2001:db8::8d]:1"); /* a capital letter */
    expect_one(NULL, "80", AF_INET6, 0, "[::1]:80");
    expect_one(NULL, "80", AF_INET6, AI_PASSIVE, "[::]:80");
#ifdef AI_V4MAPPED
    expect_one("127.0.0.1", "80", AF_INET6, AI_V4MAPPED, "[::ffff:127.0.0.1]:80");
#endif
}

T_TEST(getaddrinfo_keeps_a_scope, 30) {
    pysock_interface *all;
    pysock_addrinfo *list;
    char host[96];
    if (!t_has_ipv6())
        skip();
    T_CHECK(T_OK(pysock_if_nameindex(&all)) > 0);
    snprintf(host, sizeof host, "ff02::1de:c0:face:8D%%%s", all[0].name);
    T_EQ(T_OK(look_up(host, "1234", AF_INET6, SOCK_DGRAM, IPPROTO_UDP, 0, &list)), 1);
    T_EQ(list[0].addr.u.in6.sin6_scope_id, all[0].index);
    T_EQ(pysock_addr_port(&list[0].addr), 1234);
    pysock_freeaddrinfo(list);
    pysock_if_freenameindex(all);
}

/* Without a type there is one entry for each that the system knows. */
T_TEST(getaddrinfo_gives_what_was_not_asked_for_in_every_kind, 30) {
    pysock_addrinfo *list;
    ptrdiff_t n;
    int stream = 0, dgram = 0;
    n = T_OK(look_up("127.0.0.1", "80", 0, 0, 0, 0, &list));
    for (ptrdiff_t i = 0; i < n; i++) {
        stream += list[i].type == SOCK_STREAM && list[i].proto == IPPROTO_TCP;
        dgram += list[i].type == SOCK_DGRAM && list[i].proto == IPPROTO_UDP;
        expect_addr(&list[i].addr, "127.0.0.1:80");
    }
    T_EQ(stream, 1);
    T_EQ(dgram, 1);
    pysock_freeaddrinfo(list);
    T_STEP("by protocol");
    n = T_OK(look_up("127.0.0.1", "80", 0, 0, IPPROTO_UDP, 0, &list));
    T_EQ(n, 1);
    T_EQ(list[0].type, SOCK_DGRAM);
    T_EQ(list[0].proto, IPPROTO_UDP);
    pysock_freeaddrinfo(list);
    T_STEP("by type and protocol");
    T_EQ(T_OK(look_up("127.0.0.1", NULL, AF_INET, SOCK_STREAM, IPPROTO_TCP, 0, &list)), 1);
    pysock_freeaddrinfo(list);
}

T_TEST(getaddrinfo_filters_families, 30) {
    pysock_addrinfo *list;
    ptrdiff_t n;
    n = T_OK(look_up("localhost", "80", AF_INET, SOCK_STREAM, 0, 0, &list));
    T_CHECK(n >= 1);
    for (ptrdiff_t i = 0; i < n; i++) {
        T_EQ(list[i].family, AF_INET);
        T_EQ(list[i].type, SOCK_STREAM);
        T_EQ(ntohl(list[i].addr.u.in.sin_addr.s_addr) >> 24, 127);
        T_EQ(pysock_addr_port(&list[i].addr), 80);
    }
    pysock_freeaddrinfo(list);
    T_STEP("any family, to listen on");
    n = T_OK(look_up(NULL, "0", 0, SOCK_STREAM, 0, AI_PASSIVE, &list));
    T_CHECK(n >= 1);
    for (ptrdiff_t i = 0; i < n; i++)
        expect_addr(&list[i].addr, list[i].family == AF_INET ? "0.0.0.0:0" : "[::]:0");
    pysock_freeaddrinfo(list);
}

/* The order and the number are the system's own. */
T_TEST(getaddrinfo_tells_what_the_system_tells, 30) {
    struct addrinfo hints, *first = NULL, *each;
    pysock_addrinfo *list;
    ptrdiff_t n, i = 0;
    memset(&hints, 0, sizeof hints);
    hints.ai_flags = AI_CANONNAME;
    T_EQ(getaddrinfo("localhost", "80", &hints, &first), 0);
    n = T_OK(look_up("localhost", "80", 0, 0, 0, AI_CANONNAME, &list));
    for (each = first; each; each = each->ai_next, i++) {
        T_CHECK(i < n);
        T_EQ(list[i].family, each->ai_family);
        T_EQ(list[i].type, each->ai_socktype);
        T_EQ(list[i].proto, each->ai_protocol);
        T_EQ(list[i].addr.size, each->ai_addrlen);
        T_EQ(memcmp(&list[i].addr.u.sa, each->ai_addr, each->ai_addrlen), 0);
        expect_text(list[i].canonname, each->ai_canonname ? each->ai_canonname : "");
    }
    T_EQ(i, n);
    T_CHECK(list[0].canonname[0] != 0);
    freeaddrinfo(first);
    pysock_freeaddrinfo(list);
}

T_TEST(getaddrinfo_knows_services_by_name, 30) {
    pysock_addrinfo *list;
    GAI_FAILS(look_up("127.0.0.1", "no-such-service", 0, SOCK_STREAM, 0, 0, &list), EAI_SERVICE,
              "no-such-service");
    T_CHECK(list == NULL);
    T_STEP("not a number, where only numbers are wanted");
    GAI_FAILS(look_up("127.0.0.1", "http", 0, SOCK_STREAM, 0, AI_NUMERICSERV, &list), EAI_NONAME,
              "http");
    if (!knows_service("http"))
        skip();
    expect_one("127.0.0.1", "http", 0, 0, "127.0.0.1:80");
    expect_one(NULL, "http", AF_INET, AI_PASSIVE, "0.0.0.0:80");
    T_STEP("a service has no raw sockets");
    GAI_FAILS(look_up("127.0.0.1", "http", 0, SOCK_RAW, 0, 0, &list), EAI_SERVICE, "http");
}

T_TEST(getaddrinfo_says_what_was_wrong, 30) {
    pysock_addrinfo *list;
    GAI_FAILS(look_up("no such.invalid", "80", 0, 0, 0, AI_NUMERICHOST, &list), EAI_NONAME,
              "no such.invalid");
    GAI_FAILS(look_up("localhost", "80", 0, 0, 0, AI_NUMERICHOST, &list), EAI_NONAME, "localhost");
    GAI_FAILS(look_up("1.2.3.4.5", NULL, 0, 0, 0, AI_NUMERICHOST, &list), EAI_NONAME, "1.2.3.4.5");
    GAI_FAILS(look_up("", "80", 0, 0, 0, AI_NUMERICHOST, &list), EAI_NONAME, "getaddrinfo");
    GAI_FAILS(look_up("127.0.0.1", "80", 9999, 0, 0, 0, &list), EAI_FAMILY, "127.0.0.1");
    GAI_FAILS(look_up("127.0.0.1", "80", AF_UNIX, 0, 0, 0, &list), EAI_FAMILY, "127.0.0.1");
    GAI_FAILS(look_up("127.0.0.1", "80", 0, 99, 0, 0, &list), EAI_SOCKTYPE, "127.0.0.1");
    GAI_FAILS(look_up("127.0.0.1", "80", 0, SOCK_STREAM, IPPROTO_UDP, 0, &list), EAI_SOCKTYPE,
              "127.0.0.1");
    GAI_FAILS(look_up("127.0.0.1", "80", 0, 0, 0, 0x08000000, &list), EAI_BADFLAGS, "127.0.0.1");
    GAI_FAILS(look_up(NULL, "80", 0, 0, 0, AI_CANONNAME, &list), EAI_BADFLAGS, "getaddrinfo");
    T_STEP("an address of the other family");
    T_FAILS(look_up("::1", "80", AF_INET, 0, 0, AI_NUMERICHOST, &list), PYSOCK_GAI_ERROR, T_ANY);
    expect_named("::1");
    T_FAILS(look_up("127.0.0.1", "80", AF_INET6, 0, 0, AI_NUMERICHOST, &list), PYSOCK_GAI_ERROR,
            T_ANY);
    T_STEP("a name that cannot be");
    T_FAILS(look_up("name.invalid", "80", 0, SOCK_STREAM, 0, 0, &list), PYSOCK_GAI_ERROR, T_ANY);
    expect_named("name.invalid");
    T_CHECK(list == NULL);
}

T_TEST(getaddrinfo_refuses_what_makes_no_sense, 30) {
    pysock_addrinfo *list;
    char host[5000];
    NAME_FAILS(look_up(NULL, NULL, 0, 0, 0, 0, &list));
    NAME_FAILS(look_up(NULL, NULL, AF_INET, SOCK_STREAM, 0, AI_PASSIVE, &list));
    T_FAILS(pysock_getaddrinfo("127.0.0.1", "80", 0, 0, 0, 0, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    pysock_freeaddrinfo(NULL);
    T_STEP("names that are too long, whole and in a part");
    memset(host, 'a', sizeof host);
    host[sizeof host - 1] = 0;
    T_FAILS(look_up(host, "80", 0, 0, 0, 0, &list), T_ANY, T_ANY);
    T_FAILS(look_up("127.0.0.1", host, 0, SOCK_STREAM, 0, 0, &list), T_ANY, T_ANY);
    memcpy(host + 64, ".invalid", 9);
    T_FAILS(look_up(host, "80", 0, 0, 0, 0, &list), T_ANY, T_ANY);
    T_FAILS(look_up("a..invalid", "80", 0, 0, 0, 0, &list), T_ANY, T_ANY);
}

/* ---- getnameinfo ---- */

static void names_of(const char *addr_text, int flags, const char *want_host,
                     const char *want_service) {
    pysock_addr addr;
    char host[PYSOCK_HOST_STRLEN] = "?", service[PYSOCK_SERVICE_STRLEN] = "?";
    T_STEP("%s, flags %d", addr_text, flags);
    T_OK(pysock_addr_parse(&addr, addr_text));
    T_OK(pysock_getnameinfo(&addr, flags, host, sizeof host, service, sizeof service));
    if (want_host)
        expect_text(host, want_host);
    if (want_service)
        expect_text(service, want_service);
    T_STEP("one at a time");
    T_OK(pysock_getnameinfo(&addr, flags, NULL, 0, service, sizeof service));
    T_OK(pysock_getnameinfo(&addr, flags, host, sizeof host, NULL, 0));
    if (want_host)
        expect_text(host, want_host);
    if (want_service)
        expect_text(service, want_service);
}

T_TEST(getnameinfo_writes_numbers_and_names, 30) {
    struct servent *http = getservbyname("http", "tcp");
    struct hostent *local;
    struct in_addr loopback;
    names_of("127.0.0.1:80", NI_NUMERICHOST | NI_NUMERICSERV, "127.0.0.1", "80");
    names_of("0.0.0.0:0", NI_NUMERICHOST | NI_NUMERICSERV, "0.0.0.0", "0");
    names_of("255.255.255.255:65535", NI_NUMERICHOST | NI_NUMERICSERV, "255.255.255.255", "65535");
    names_of("127.0.0.1:0", NI_NUMERICHOST, "127.0.0.1", "0");
    names_of("127.0.0.1:80", NI_NUMERICHOST, "127.0.0.1", http ? "http" : "80");
    names_of("127.0.0.1:80", NI_NUMERICHOST | NI_DGRAM, "127.0.0.1", NULL);
    loopback.s_addr = htonl(INADDR_LOOPBACK);
    local = gethostbyaddr(&loopback, sizeof loopback, AF_INET);
    names_of("127.0.0.1:80", NI_NUMERICSERV, local ? local->h_name : "127.0.0.1", "80");
    if (!t_has_ipv6())
        skip();
    names_of("[::1]:443", NI_NUMERICHOST | NI_NUMERICSERV, "::1", "443");
    names_of("[2001:db8::ff00:42:8329]:1", NI_NUMERICHOST | NI_NUMERICSERV,
             "2001:db8::ff00:42:8329", "1");
}

T_TEST(getnameinfo_writes_a_scope, 30) {
    pysock_interface *all;
    char text[128], want[96];
    if (!t_has_ipv6())
        skip();
    T_CHECK(T_OK(pysock_if_nameindex(&all)) > 0);
    snprintf(want, sizeof want, "ff02::1de:c0:face:8d%%%s", all[0].name);
    snprintf(text, sizeof text, "[%s]:1234", want);
    names_of(text, NI_NUMERICHOST | NI_NUMERICSERV, want, "1234");
    pysock_if_freenameindex(all);
}

T_TEST(getnameinfo_says_what_was_wrong, 30) {
    pysock_addr addr;
    char host[PYSOCK_HOST_STRLEN], service[PYSOCK_SERVICE_STRLEN];
    T_OK(pysock_addr_parse(&addr, "192.0.2.1:80"));
    T_FAILS(pysock_getnameinfo(&addr, -1, host, sizeof host, service, sizeof service),
            PYSOCK_GAI_ERROR, T_ANY);
    expect_gai(EAI_BADFLAGS, "EAI_BADFLAGS", "192.0.2.1");
    T_STEP("a name is required, and this address never has one");
    T_FAILS(pysock_getnameinfo(&addr, NI_NAMEREQD, host, sizeof host, NULL, 0), PYSOCK_GAI_ERROR,
            T_ANY);
    expect_named("192.0.2.1");
    T_STEP("what is no address, and what is no text");
    T_FAILS(pysock_getnameinfo(NULL, 0, host, sizeof host, service, sizeof service),
            PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_getnameinfo(&addr, 0, NULL, 10, service, sizeof service), PYSOCK_VALUE_ERROR,
            EINVAL);
    T_FAILS(pysock_getnameinfo(&addr, 0, host, sizeof host, NULL, 10), PYSOCK_VALUE_ERROR, EINVAL);
    memset(&addr, 0, sizeof addr);
    T_FAILS(pysock_getnameinfo(&addr, 0, host, sizeof host, service, sizeof service), T_ANY, T_ANY);
    T_STEP("a family that has no names");
    addr.size = sizeof addr.u.sa;
    addr.u.sa.sa_family = 9999;
    T_FAILS(pysock_getnameinfo(&addr, 0, host, sizeof host, service, sizeof service),
            PYSOCK_GAI_ERROR, T_ANY);
    T_EQ(pysock_error_code(), EAI_FAMILY);
}

/* ---- gethostbyname and its kin ---- */

T_TEST(gethostbyname_gives_an_ipv4_address, 30) {
    static const char *const same[] = {"127.0.0.1", "10.0.0.1", "0.0.0.0", "255.255.255.255"};
    char ip[INET_ADDRSTRLEN];
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        T_STEP("%s", same[i]);
        T_OK(pysock_gethostbyname(same[i], ip, sizeof ip));
        expect_text(ip, same[i]);
    }
    T_OK(pysock_gethostbyname("localhost", ip, sizeof ip));
    T_CHECK(strncmp(ip, "127.", 4) == 0);
    T_OK(pysock_gethostbyname("127.1", ip, sizeof ip));
    expect_text(ip, "127.0.0.1");
    T_STEP("as in Python, where every call that takes a host has them");
    T_OK(pysock_gethostbyname("", ip, sizeof ip));
    expect_text(ip, "0.0.0.0");
    T_OK(pysock_gethostbyname("<broadcast>", ip, sizeof ip));
    expect_text(ip, "255.255.255.255");
}

T_TEST(hosts_that_are_none_are_told, 60) {
    static const char *const bad[] = {"0.1.1.~1", "1+.1.1.1",          "::1q",
                                      "::1::2",   "1:1:1:1:1:1:1:1:1", "name.invalid"};
    char ip[INET_ADDRSTRLEN];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        T_STEP("%s", bad[i]);
        T_FAILS(pysock_gethostbyname(bad[i], ip, sizeof ip), PYSOCK_GAI_ERROR, T_ANY);
        expect_named(bad[i]);
        T_FAILS(pysock_gethostbyname_ex(bad[i]), T_ANY, T_ANY);
        T_CHECK(pysock_error() == PYSOCK_GAI_ERROR || pysock_error() == PYSOCK_H_ERROR);
        expect_named(bad[i]);
        T_FAILS(pysock_gethostbyaddr(bad[i]), T_ANY, T_ANY);
        T_CHECK(pysock_error() == PYSOCK_GAI_ERROR || pysock_error() == PYSOCK_H_ERROR);
        expect_named(bad[i]);
    }
    T_STEP("IPv4 only");
    T_FAILS(pysock_gethostbyname("::1", ip, sizeof ip), PYSOCK_GAI_ERROR, T_ANY);
    T_FAILS(pysock_gethostbyname_ex("::1"), T_ANY, T_ANY);
    T_STEP("NULL");
    T_FAILS(pysock_gethostbyname(NULL, ip, sizeof ip), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_gethostbyname("127.0.0.1", NULL, 16), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_gethostbyname_ex(NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_gethostbyaddr(NULL), PYSOCK_VALUE_ERROR, EINVAL);
    pysock_freehostent(NULL);
}

static int has_address(const pysock_hostent *h, const char *ip) {
    int found = 0;
    for (size_t i = 0; i < h->address_count; i++)
        found |= strcmp(h->addresses[i], ip) == 0;
    return found;
}

T_TEST(gethostbyname_ex_tells_all, 30) {
    pysock_hostent *h;
    h = T_OK(pysock_gethostbyname_ex("127.0.0.1"));
    expect_text(h->name, "127.0.0.1");
    T_EQ(h->alias_count, 0);
    T_EQ(h->address_count, 1);
    expect_text(h->addresses[0], "127.0.0.1");
    pysock_freehostent(h);
    h = T_OK(pysock_gethostbyname_ex("localhost"));
    T_CHECK(h->name && h->name[0]);
    T_CHECK(h->address_count >= 1);
    for (size_t i = 0; i < h->address_count; i++)
        T_CHECK(strncmp(h->addresses[i], "127.", 4) == 0);
    for (size_t i = 0; i < h->alias_count; i++)
        T_CHECK(h->aliases[i] && h->aliases[i][0]);
    pysock_freehostent(h);
}

/* herror for an address without a name: documentation's own, which no name server knows. */
T_TEST(gethostbyaddr_goes_both_ways, 30) {
    struct in_addr loopback;
    struct hostent *known;
    char name[PYSOCK_HOST_STRLEN] = "";
    pysock_hostent *h;
    T_FAILS(pysock_gethostbyaddr("192.0.2.1"), PYSOCK_H_ERROR, T_ANY);
    expect_text(pysock_error_name(), "herror");
    expect_named("192.0.2.1");
    T_CHECK(pysock_error_code() == HOST_NOT_FOUND || pysock_error_code() == TRY_AGAIN ||
            pysock_error_code() == NO_RECOVERY || pysock_error_code() == NO_DATA);
    loopback.s_addr = htonl(INADDR_LOOPBACK);
    known = gethostbyaddr(&loopback, sizeof loopback, AF_INET);
    if (!known) {
        print_message("127.0.0.1 has no name on this machine: skipped\n");
        skip();
    }
    snprintf(name, sizeof name, "%s", known->h_name);
    h = T_OK(pysock_gethostbyaddr("127.0.0.1"));
    expect_text(h->name, name);
    T_CHECK(has_address(h, "127.0.0.1"));
    pysock_freehostent(h);
    T_STEP("by name");
    h = T_OK(pysock_gethostbyaddr("localhost"));
    T_CHECK(h->name[0] && h->address_count >= 1);
    pysock_freehostent(h);
}

T_TEST(gethostbyaddr_knows_ipv6, 30) {
    struct hostent *known;
    char name[PYSOCK_HOST_STRLEN];
    pysock_hostent *h;
    known = gethostbyaddr(&in6addr_loopback, sizeof in6addr_loopback, AF_INET6);
    if (!known) {
        T_FAILS(pysock_gethostbyaddr("::1"), PYSOCK_H_ERROR, T_ANY);
        expect_named("::1");
        return;
    }
    snprintf(name, sizeof name, "%s", known->h_name);
    h = T_OK(pysock_gethostbyaddr("::1"));
    expect_text(h->name, name);
    T_CHECK(has_address(h, "::1"));
    pysock_freehostent(h);
}

T_TEST(this_machine_has_a_name, 30) {
    char mine[PYSOCK_HOST_STRLEN], want[PYSOCK_HOST_STRLEN];
    T_EQ(gethostname(want, sizeof want), 0);
    T_OK(pysock_gethostname(mine, sizeof mine));
    expect_text(mine, want);
    T_FAILS(pysock_gethostname(mine, strlen(want)), PYSOCK_OS_ERROR, ENAMETOOLONG);
    T_FAILS(pysock_gethostname(NULL, 10), PYSOCK_VALUE_ERROR, EINVAL);
    T_STEP("sethostname, to what it is");
    if (pysock_sethostname(want) != 0) {
        T_EQ(pysock_error(), PYSOCK_OS_ERROR);
        T_EQ(errno, EPERM);
        expect_text(pysock_error_name(), "PermissionError");
        expect_named("sethostname");
    } else
        T_EQ(geteuid(), 0);
    T_OK(pysock_gethostname(mine, sizeof mine));
    expect_text(mine, want);
    T_FAILS(pysock_sethostname(NULL), PYSOCK_VALUE_ERROR, EINVAL);
    memset(want, 'x', sizeof want);
    want[sizeof want - 1] = 0;
    T_FAILS(pysock_sethostname(want), T_ANY, T_ANY); /* nobody takes so long a name */
}

/* What Python 3.11's getfqdn does: the first of the host's names that has a dot, else its name;
   what is unknown is given back. */
static void expect_fqdn(const char *name) {
    char text[PYSOCK_HOST_STRLEN], mine[PYSOCK_HOST_STRLEN];
    const char *want = name, *dotted = NULL;
    pysock_hostent *h;
    T_STEP("%s", name ? name : "NULL");
    if (!name || !name[0] || strcmp(name, "0.0.0.0") == 0 || strcmp(name, "::") == 0) {
        T_OK(pysock_gethostname(mine, sizeof mine));
        want = mine;
    }
    h = pysock_gethostbyaddr(want);
    if (h) {
        want = h->name;
        dotted = strchr(h->name, '.') ? h->name : NULL;
        for (size_t i = 0; i < h->alias_count && !dotted; i++)
            dotted = strchr(h->aliases[i], '.') ? h->aliases[i] : NULL;
    }
    T_OK(pysock_getfqdn(name, text, sizeof text));
    expect_text(text, dotted ? dotted : want);
    pysock_freehostent(h);
}

T_TEST(getfqdn_prefers_a_name_with_a_dot, 120) {
    static const char *const names[] = {
        NULL, "", "0.0.0.0", "::", "localhost", "127.0.0.1", "192.0.2.1", "name.invalid"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        expect_fqdn(names[i]);
    T_FAILS(pysock_getfqdn("localhost", NULL, 10), PYSOCK_VALUE_ERROR, EINVAL);
}

/* ---- services, protocols ---- */

T_TEST(services_have_ports_and_ports_services, 30) {
    static const char *const candidates[] = {"daytime", "qotd", "domain"};
    const char *name = NULL;
    char text[PYSOCK_SERVICE_STRLEN];
    int port;
    T_FAILS(pysock_getservbyname("no-such-service", NULL), PYSOCK_OS_ERROR, ENOENT);
    expect_named("no-such-service");
    T_FAILS(pysock_getservbyname("no-such-service", "tcp"), PYSOCK_OS_ERROR, ENOENT);
    T_FAILS(pysock_getservbyname("", NULL), PYSOCK_OS_ERROR, ENOENT);
    T_FAILS(pysock_getservbyname(NULL, "tcp"), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_getservbyport(-1, "tcp", text, sizeof text), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_getservbyport(65536, "tcp", text, sizeof text), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_getservbyport(80, "tcp", NULL, 10), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_getservbyport(80, "no-such-protocol", text, sizeof text), PYSOCK_OS_ERROR,
            ENOENT);
    expect_named("80");
    for (size_t i = 0; i < 3 && !name; i++)
        name = getservbyname(candidates[i], "tcp") ? candidates[i] : NULL;
    if (!name) {
        print_message("this machine has no /etc/services: skipped\n");
        skip();
    }
    port = T_OK(pysock_getservbyname(name, "tcp"));
    T_EQ(port, ntohs((uint16_t)getservbyname(name, "tcp")->s_port));
    T_EQ(pysock_getservbyname(name, NULL), port);
    T_OK(pysock_getservbyport(port, NULL, text, sizeof text));
    expect_text(text, name);
    memset(text, 0, sizeof text);
    T_OK(pysock_getservbyport(port, "tcp", text, sizeof text));
    expect_text(text, name);
    if (getservbyname(name, "udp")) {
        T_EQ(pysock_getservbyname(name, "udp"), port);
        T_OK(pysock_getservbyport(port, "udp", text, sizeof text));
        expect_text(text, name);
    }
    T_FAILS(pysock_getservbyname(name, "no-such-protocol"), PYSOCK_OS_ERROR, ENOENT);
}

T_TEST(protocols_have_numbers, 30) {
    T_FAILS(pysock_getprotobyname("no-such-protocol"), PYSOCK_OS_ERROR, ENOENT);
    expect_named("no-such-protocol");
    T_FAILS(pysock_getprotobyname(""), PYSOCK_OS_ERROR, ENOENT);
    T_FAILS(pysock_getprotobyname(NULL), PYSOCK_VALUE_ERROR, EINVAL);
    if (!getprotobyname("tcp")) {
        print_message("this machine has no /etc/protocols: skipped\n");
        skip();
    }
    T_EQ(pysock_getprotobyname("tcp"), IPPROTO_TCP);
    T_EQ(pysock_getprotobyname("udp"), IPPROTO_UDP);
    T_EQ(pysock_getprotobyname("icmp"), IPPROTO_ICMP);
    T_EQ(pysock_getprotobyname("ip"), 0); /* no error */
}

/* ---- inet_ ---- */

T_TEST(inet_aton_reads_what_the_system_reads, 30) {
    static const struct {
        const char *text;
        unsigned char want[4];
    } good[] = {{"0.0.0.0", {0, 0, 0, 0}},
                {"255.255.255.255", {255, 255, 255, 255}},
                {"255.0.255.0", {255, 0, 255, 0}},
                {"170.170.170.170", {170, 170, 170, 170}},
                {"1.2.3.4", {1, 2, 3, 4}},
                {"127.1", {127, 0, 0, 1}},
                {"1", {0, 0, 0, 1}},
                {"0x7f.1", {127, 0, 0, 1}},
                {"0177.0.0.1", {127, 0, 0, 1}}};
    static const char *const bad[] = {"",          "0.0.0.", "300.0.0.0",  "a.0.0.0",
                                      "1.2.3.4.5", "::1",    " 127.0.0.1", "4294967296"};
    unsigned char out[5];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        T_STEP("%s", good[i].text);
        memset(out, 0xee, sizeof out);
        T_OK(pysock_inet_aton(good[i].text, out));
        T_EQ(memcmp(out, good[i].want, 4), 0);
        T_EQ(out[4], 0xee);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        T_STEP("'%s'", bad[i]);
        T_FAILS(pysock_inet_aton(bad[i], out), PYSOCK_OS_ERROR, EINVAL);
        expect_named(bad[i]);
    }
    T_FAILS(pysock_inet_aton(NULL, out), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_inet_aton("1.2.3.4", NULL), PYSOCK_VALUE_ERROR, EINVAL);
}

T_TEST(inet_pton_reads_ipv4, 30) {
    static const struct {
        const char *text;
        unsigned char want[4];
    } good[] = {{"0.0.0.0", {0, 0, 0, 0}},
                {"255.0.255.0", {255, 0, 255, 0}},
                {"170.170.170.170", {170, 170, 170, 170}},
                {"255.255.255.255", {255, 255, 255, 255}}};
    static const char *const bad[] = {"",          "0.0.0.", "300.0.0.0", "a.0.0.0",
                                      "1.2.3.4.5", "::1",    "127.1",     "1.2.3.4 "};
    unsigned char out[16];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        T_STEP("%s", good[i].text);
        memset(out, 0xee, sizeof out);
        T_EQ(pysock_inet_pton(AF_INET, good[i].text, out), 4);
        T_EQ(memcmp(out, good[i].want, 4), 0);
        T_EQ(out[4], 0xee);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        T_STEP("'%s'", bad[i]);
        T_FAILS(pysock_inet_pton(AF_INET, bad[i], out), PYSOCK_OS_ERROR, EINVAL);
        expect_named(bad[i]);
    }
}

T_TEST(inet_pton_reads_ipv6, 30) {
    static const struct {
        const char *text;
        unsigned char want[16];
    } good[] = {
        {"::", {0}},
        {"0::0", {0}},
        {"1::", {0, 1}},
        {"45ef:76cb:1a:56ef:afeb:bac:1924:aeae",
         {0x45, 0xef, 0x76, 0xcb, 0, 0x1a, 0x56, 0xef, 0xaf, 0xeb, 0x0b, 0xac, 0x19, 0x24, 0xae,
          0xae}},
        {"ad42:abc::127:0:254:2",
         {0xad, 0x42, 0x0a, 0xbc, 0, 0, 0, 0, 1, 0x27, 0, 0, 2, 0x54, 0, 2}},
        {"12:a::", {0, 0x12, 0, 0x0a}},
        {"::254.42.23.64", {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe, 0x2a, 0x17, 0x40}},
        {"42::a29b:254.42.23.64",
         {0, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0xa2, 0x9b, 0xfe, 0x2a, 0x17, 0x40}},
        {"42:a8b9:0:2:ffff:a29b:254.42.23.64",
         {0, 0x42, 0xa8, 0xb9, 0, 0, 0, 2, 0xff, 0xff, 0xa2, 0x9b, 0xfe, 0x2a, 0x17, 0x40}}};
    /* clang-format off */
    static const char *const bad[] = {
        "",           "0x20::",      ":::",          "::0::",
        "1::abc::",   "1::abc::def", "1:2:3:4:5:6",  "1:2:3:4:5:6:",
        "1:2:3:4:5:6:7:8:0",         "1:2:3:4:5:6:7:8:",
        "255.254.253.252",           "1::260.2.3.0", "1::0.be.e.0",
        "1:2:3:4:5:6:7:1.2.3.4",     "::1.2.3.4:0",  "0.100.200.0:3:4:5:6:7:8",
        "fe80::1%lo"};
    /* clang-format on */
    unsigned char out[17];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        T_STEP("%s", good[i].text);
        memset(out, 0xee, sizeof out);
        T_EQ(pysock_inet_pton(AF_INET6, good[i].text, out), 16);
        T_EQ(memcmp(out, good[i].want, 16), 0);
        T_EQ(out[16], 0xee);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        T_STEP("'%s'", bad[i]);
        T_FAILS(pysock_inet_pton(AF_INET6, bad[i], out), PYSOCK_OS_ERROR, EINVAL);
        expect_named(bad[i]);
    }
    T_STEP("the rest");
    T_FAILS(pysock_inet_pton(AF_UNIX, "1.2.3.4", out), PYSOCK_OS_ERROR, EAFNOSUPPORT);
    T_FAILS(pysock_inet_pton(9999, "1.2.3.4", out), PYSOCK_OS_ERROR, EAFNOSUPPORT);
    T_FAILS(pysock_inet_pton(AF_INET, NULL, out), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_inet_pton(AF_INET, "1.2.3.4", NULL), PYSOCK_VALUE_ERROR, EINVAL);
}

T_TEST(inet_ntoa_and_ntop_write_addresses, 30) {
    static const unsigned char mixed[16] = {0x0a, 0xef, 0x0b, 0x01, 0x05, 0x06, 0x10, 0x01,
                                            0xff, 0xff, 0x99, 0x97, 0x00, 0x55, 0x01, 0x70};
    static const struct {
        unsigned char bytes[4];
        const char *want;
    } four[] = {{{1, 0, 1, 0}, "1.0.1.0"},
                {{0xaa, 0x55, 0xaa, 0x55}, "170.85.170.85"},
                {{255, 255, 255, 255}, "255.255.255.255"},
                {{1, 2, 3, 4}, "1.2.3.4"}};
    static const size_t wrong_sizes[] = {0, 3, 5, 15, 17};
    unsigned char sixteen[17] = {0};
    char text[64];
    for (size_t i = 0; i < sizeof four / sizeof four[0]; i++) {
        T_OK(pysock_inet_ntoa(four[i].bytes, 4, text, sizeof text));
        expect_text(text, four[i].want);
        memset(text, 'x', sizeof text);
        T_OK(pysock_inet_ntop(AF_INET, four[i].bytes, 4, text, sizeof text));
        expect_text(text, four[i].want);
    }
    T_OK(pysock_inet_ntop(AF_INET6, sixteen, 16, text, sizeof text));
    expect_text(text, "::");
    sixteen[15] = 1;
    T_OK(pysock_inet_ntop(AF_INET6, sixteen, 16, text, sizeof text));
    expect_text(text, "::1");
    T_OK(pysock_inet_ntop(AF_INET6, mixed, 16, text, sizeof text));
    expect_text(text, "aef:b01:506:1001:ffff:9997:55:170");
    T_STEP("wrong sizes");
    for (size_t i = 0; i < sizeof wrong_sizes / sizeof wrong_sizes[0]; i++) {
        size_t n = wrong_sizes[i];
        T_FAILS(pysock_inet_ntoa(sixteen, n, text, sizeof text), PYSOCK_VALUE_ERROR, EINVAL);
        T_FAILS(pysock_inet_ntop(AF_INET, sixteen, n, text, sizeof text), PYSOCK_VALUE_ERROR,
                EINVAL);
        T_FAILS(pysock_inet_ntop(AF_INET6, sixteen, n, text, sizeof text), PYSOCK_VALUE_ERROR,
                EINVAL);
    }
    T_FAILS(pysock_inet_ntoa(sixteen, 16, text, sizeof text), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_inet_ntop(AF_INET, sixteen, 16, text, sizeof text), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_inet_ntop(AF_INET6, sixteen, 4, text, sizeof text), PYSOCK_VALUE_ERROR, EINVAL);
    T_STEP("the rest");
    T_FAILS(pysock_inet_ntop(AF_UNIX, sixteen, 4, text, sizeof text), PYSOCK_OS_ERROR,
            EAFNOSUPPORT);
    T_FAILS(pysock_inet_ntoa(NULL, 4, text, sizeof text), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_inet_ntoa(sixteen, 4, NULL, 16), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_inet_ntop(AF_INET, NULL, 4, text, sizeof text), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_inet_ntop(AF_INET, sixteen, 4, NULL, 16), PYSOCK_VALUE_ERROR, EINVAL);
}

/* ---- interfaces ---- */

T_TEST(interfaces_have_names_and_numbers, 30) {
    pysock_interface *all = NULL;
    char name[IF_NAMESIZE], longer[64];
    ptrdiff_t n;
    n = T_OK(pysock_if_nameindex(&all));
    for (ptrdiff_t i = 0; i < n; i++) {
        T_CHECK(all[i].index > 0);
        T_CHECK(all[i].name[0] != 0);
        T_EQ(pysock_if_nametoindex(all[i].name), all[i].index);
        T_OK(pysock_if_indextoname(all[i].index, name, sizeof name));
        expect_text(name, all[i].name);
        T_EQ(if_nametoindex(all[i].name), all[i].index);
    }
    T_CHECK(n > 0 || if_nametoindex("lo") == 0);
    T_STEP("those that are none");
    T_FAILS(pysock_if_nametoindex("_DEADBEEF"), PYSOCK_OS_ERROR, ENODEV);
    expect_named("_DEADBEEF");
    T_FAILS(pysock_if_nametoindex(""), PYSOCK_OS_ERROR, ENODEV);
    T_FAILS(pysock_if_nametoindex(NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_if_indextoname(0, name, sizeof name), PYSOCK_OS_ERROR, ENXIO);
    T_FAILS(pysock_if_indextoname(0x7ffffff0, name, sizeof name), PYSOCK_OS_ERROR, ENXIO);
    T_FAILS(pysock_if_indextoname(1, NULL, IF_NAMESIZE), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_if_nameindex(NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_STEP("a name that only begins like one, and is too long for the kernel");
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = 0;
    T_FAILS(pysock_if_nametoindex(longer), PYSOCK_OS_ERROR, ENODEV);
    if (n > 0) {
        memcpy(longer, all[0].name, strlen(all[0].name));
        T_FAILS(pysock_if_nametoindex(longer), PYSOCK_OS_ERROR, ENODEV);
    }
    pysock_if_freenameindex(all);
    pysock_if_freenameindex(NULL);
}

/* ---- buffers ---- */

static int write_hostname(char *text, size_t size) {
    return pysock_gethostname(text, size);
}

static int write_address(char *text, size_t size) {
    return pysock_gethostbyname("255.255.255.255", text, size);
}

static int write_fqdn(char *text, size_t size) {
    return pysock_getfqdn("127.0.0.1", text, size);
}

static int write_host(char *text, size_t size) {
    pysock_addr addr;
    T_OK(pysock_addr_parse(&addr, "192.0.2.123:80"));
    return pysock_getnameinfo(&addr, NI_NUMERICHOST, text, size, NULL, 0);
}

static int write_port(char *text, size_t size) {
    pysock_addr addr;
    T_OK(pysock_addr_parse(&addr, "192.0.2.123:12345"));
    return pysock_getnameinfo(&addr, NI_NUMERICSERV, NULL, 0, text, size);
}

static int write_ntoa(char *text, size_t size) {
    return pysock_inet_ntoa("\xc0\x00\x02\x7b", 4, text, size);
}

static int write_ntop4(char *text, size_t size) {
    return pysock_inet_ntop(AF_INET, "\xc0\x00\x02\x7b", 4, text, size);
}

static int write_ntop6(char *text, size_t size) {
    return pysock_inet_ntop(AF_INET6, "0123456789abcdef", 16, text, size);
}

static int write_idna(char *text, size_t size) {
    return pysock_idna_encode("www.example.org", text, size);
}

static int write_interface(char *text, size_t size) {
    return pysock_if_indextoname(if_nametoindex("lo"), text, size);
}

static int write_service(char *text, size_t size) {
    return pysock_getservbyport(80, "tcp", text, size);
}

T_TEST(a_text_that_does_not_fit_is_an_error_and_nothing_is_overwritten, 60) {
    static const struct {
        const char *name;
        int (*write)(char *text, size_t size);
        size_t smallest; /* getnameinfo: size 0 means that it is not wanted */
    } writers[] = {{"gethostname", write_hostname, 0},   {"gethostbyname", write_address, 0},
                   {"getfqdn", write_fqdn, 0},           {"getnameinfo, host", write_host, 1},
                   {"getnameinfo, port", write_port, 1}, {"inet_ntoa", write_ntoa, 0},
                   {"inet_ntop, IPv4", write_ntop4, 0},  {"inet_ntop, IPv6", write_ntop6, 0},
                   {"idna_encode", write_idna, 0},       {"if_indextoname", write_interface, 0},
                   {"getservbyport", write_service, 0}};
    for (size_t i = 0; i < sizeof writers / sizeof writers[0]; i++) {
        char whole[PYSOCK_HOST_STRLEN], text[PYSOCK_HOST_STRLEN + 8];
        size_t n;
        if ((writers[i].write == write_interface && !if_nametoindex("lo")) ||
            (writers[i].write == write_service && !getservbyport(htons(80), "tcp")))
            continue; /* neither there, on this machine */
        T_STEP("%s", writers[i].name);
        T_OK(writers[i].write(whole, sizeof whole));
        n = strlen(whole);
        T_CHECK(n > 0);
        for (size_t size = writers[i].smallest; size <= n; size++) {
            T_STEP("%s, %zu bytes for %zu", writers[i].name, size, n + 1);
            memset(text, 0x7e, sizeof text);
            T_FAILS(writers[i].write(text, size), T_ANY, T_ANY);
            for (size_t k = size; k < sizeof text; k++)
                T_EQ(text[k], 0x7e);
        }
        memset(text, 0x7e, sizeof text);
        T_OK(writers[i].write(text, n + 1));
        expect_text(text, whole);
        T_EQ(text[n + 1], 0x7e);
    }
}

/* ---- addresses ---- */

T_TEST(resolve_reads_what_calls_with_host_and_port_read, 30) {
    pysock_addr addr;
    T_OK(pysock_addr_resolve(&addr, AF_INET, "127.0.0.1", 80));
    expect_addr(&addr, "127.0.0.1:80");
    T_EQ(addr.size, sizeof addr.u.in);
    T_OK(pysock_addr_resolve(&addr, AF_INET, "127.1", 65535));
    expect_addr(&addr, "127.0.0.1:65535");
    T_OK(pysock_addr_resolve(&addr, AF_INET, "", 0));
    expect_addr(&addr, "0.0.0.0:0");
    T_OK(pysock_addr_resolve(&addr, AF_INET, NULL, 7));
    expect_addr(&addr, "0.0.0.0:7");
    T_OK(pysock_addr_resolve(&addr, AF_INET, "<broadcast>", 9));
    expect_addr(&addr, "255.255.255.255:9");
    T_OK(pysock_addr_resolve(&addr, AF_INET, "localhost", 1));
    T_EQ(addr.u.sa.sa_family, AF_INET);
    T_EQ(ntohl(addr.u.in.sin_addr.s_addr) >> 24, 127);
    T_EQ(pysock_addr_port(&addr), 1);
    if (!t_has_ipv6())
        skip();
    T_OK(pysock_addr_resolve(&addr, AF_INET6, "::1", 80));
    expect_addr(&addr, "[::1]:80");
    T_EQ(addr.size, sizeof addr.u.in6);
    T_OK(pysock_addr_resolve(&addr, AF_INET6, "", 0));
    expect_addr(&addr, "[::]:0");
    T_OK(pysock_addr_resolve(&addr, AF_INET6, NULL, 7));
    expect_addr(&addr, "[::]:7");
    if (if_nametoindex("lo")) {
        T_OK(pysock_addr_resolve(&addr, AF_INET6, "fe80::1%lo", 80));
        T_EQ(addr.u.in6.sin6_scope_id, if_nametoindex("lo"));
        expect_addr(&addr, "[fe80::1%lo]:80");
    }
}

T_TEST(resolve_says_what_was_wrong, 30) {
    pysock_addr addr;
    char host[2000];
    T_FAILS(pysock_addr_resolve(&addr, AF_INET, "name.invalid", 80), PYSOCK_GAI_ERROR, T_ANY);
    expect_named("name.invalid");
    T_FAILS(pysock_addr_resolve(&addr, AF_INET, "::1", 80), PYSOCK_GAI_ERROR, T_ANY);
    T_FAILS(pysock_addr_resolve(&addr, AF_INET6, "<broadcast>", 80), T_ANY, T_ANY);
    T_FAILS(pysock_addr_resolve(&addr, AF_INET, "127.0.0.1", -1), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_addr_resolve(&addr, AF_INET, "127.0.0.1", 65536), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_addr_resolve(NULL, AF_INET, "127.0.0.1", 80), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_addr_resolve(&addr, 9999, "127.0.0.1", 80), T_ANY, T_ANY);
    T_FAILS(pysock_addr_resolve(&addr, AF_NETLINK, "127.0.0.1", 80), T_ANY, T_ANY);
    memset(host, 'a', sizeof host);
    host[sizeof host - 1] = 0;
    T_FAILS(pysock_addr_resolve(&addr, AF_INET, host, 80), T_ANY, T_ANY);
}

/* CPython's limits: a path needs its final NUL, an abstract name does not. */
T_TEST(unix_names_may_be_as_long_as_the_system_takes_them, 30) {
    pysock_addr addr;
    size_t room = sizeof addr.u.un.sun_path, head = offsetof(struct sockaddr_un, sun_path);
    char host[200], text[256];
    T_OK(pysock_addr_resolve(&addr, AF_UNIX, "/tmp/x", -1)); /* the port is ignored */
    expect_addr(&addr, "unix:/tmp/x");
    T_EQ(addr.u.sa.sa_family, AF_UNIX);
    T_EQ(addr.size, head + 7);
    memset(host, 'p', sizeof host);
    host[room - 1] = 0;
    T_OK(pysock_addr_resolve(&addr, AF_UNIX, host, 0));
    snprintf(text, sizeof text, "unix:%s", host);
    expect_addr(&addr, text);
    host[room - 1] = 'p';
    host[room] = 0;
    T_FAILS(pysock_addr_resolve(&addr, AF_UNIX, host, 0), PYSOCK_OS_ERROR, ENAMETOOLONG);
    snprintf(text, sizeof text, "unix:%s", host);
    T_FAILS(pysock_addr_parse(&addr, text), T_ANY, T_ANY);
    T_STEP("abstract");
    T_OK(pysock_addr_resolve(&addr, AF_UNIX, "@name", 0));
    expect_addr(&addr, "unix:@name");
    T_EQ(addr.size, head + 5);
    T_EQ(addr.u.un.sun_path[0], 0);
    host[0] = '@';
    T_OK(pysock_addr_resolve(&addr, AF_UNIX, host, 0));
    T_EQ(addr.size, sizeof addr.u.un);
    snprintf(text, sizeof text, "unix:%s", host);
    expect_addr(&addr, text);
    T_OK(pysock_addr_parse(&addr, text));
    expect_addr(&addr, text);
    host[room] = 'p';
    host[room + 1] = 0;
    T_FAILS(pysock_addr_resolve(&addr, AF_UNIX, host, 0), PYSOCK_OS_ERROR, ENAMETOOLONG);
    snprintf(text, sizeof text, "unix:%s", host);
    T_FAILS(pysock_addr_parse(&addr, text), T_ANY, T_ANY);
}

T_TEST(the_longest_abstract_name_is_bound_and_found, 30) {
    pysock_addr addr, have;
    char host[sizeof addr.u.un.sun_path + 1], text[PYSOCK_ADDR_STRLEN], want[PYSOCK_ADDR_STRLEN];
    pysock *listener, *a, *b;
    memset(host, 'h', sizeof host);
    snprintf(host, 64, "@pysock-test-%ld-", (long)getpid());
    host[strlen(host)] = 'h';
    host[sizeof host - 1] = 0;
    T_EQ(strlen(host), sizeof addr.u.un.sun_path);
    listener = T_OK(pysock_socket(AF_UNIX, SOCK_STREAM, 0));
    T_OK(pysock_bind(listener, host, 0));
    T_OK(pysock_listen(listener, 1));
    T_OK(pysock_getsockname(listener, &have));
    pysock_addr_format(&have, text, sizeof text);
    snprintf(want, sizeof want, "unix:%s", host);
    expect_text(text, want);
    a = T_OK(pysock_socket(AF_UNIX, SOCK_STREAM, 0));
    T_OK(pysock_connect(a, host, 0));
    b = T_OK(pysock_accept(listener, NULL));
    t_say(a, "x");
    t_expect(b, "x");
    T_OK(pysock_close(a));
    T_OK(pysock_close(b));
    T_OK(pysock_close(listener));
}

/* Linux chooses an abstract name of five hexadecimal digits. */
T_TEST(a_unix_socket_bound_to_nothing_gets_a_name, 30) {
    static const char *const nothing[] = {"", NULL};
    for (int i = 0; i < 2; i++) {
        pysock *s = T_OK(pysock_socket(AF_UNIX, SOCK_STREAM, 0)), *a, *b;
        char text[PYSOCK_ADDR_STRLEN], more[2];
        unsigned int number;
        pysock_addr addr;
        T_STEP("%s", nothing[i] ? "''" : "NULL");
        T_OK(pysock_bind(s, nothing[i], 0));
        T_OK(pysock_getsockname(s, &addr));
        T_EQ(addr.size, offsetof(struct sockaddr_un, sun_path) + 6);
        pysock_addr_format(&addr, text, sizeof text);
        T_EQ(sscanf(text, "unix:@%5x%1s", &number, more), 1);
        T_OK(pysock_listen(s, 1));
        a = T_OK(pysock_socket(AF_UNIX, SOCK_STREAM, 0));
        T_OK(pysock_connect_addr(a, &addr));
        b = T_OK(pysock_accept(s, NULL));
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
        T_OK(pysock_close(s));
    }
}

T_TEST(bad_addresses_are_refused_and_named, 30) {
    /* clang-format off */
    static const char *const bad[] = {
        "",           "127.0.0.1",     "127.0.0.1:",      "127.0.0.1:-1", ":80",
        "127.0.0.1:65536",             "127.0.0.1:80x",   "[::1]",        "[::1]:",
        "[::1",       "[::1:80",       "localhost:80",    "[127.0.0.1]:80",
        "127.0.0.1: 80",               "127.0.0.1:99999999999999999999",
        "[fe80::1%no-such-interface]:80",                 "300.0.0.1:80", "[::g]:80"};
    /* clang-format on */
    pysock_addr addr;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        T_STEP("'%s'", bad[i]);
        T_FAILS(pysock_addr_parse(&addr, bad[i]), PYSOCK_VALUE_ERROR, EINVAL);
        expect_named(bad[i]);
    }
    T_FAILS(pysock_addr_parse(NULL, "127.0.0.1:80"), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_addr_parse(&addr, NULL), PYSOCK_VALUE_ERROR, EINVAL);
    T_EQ(pysock_addr_port(NULL), -1);
    T_EQ(pysock_addr_format(NULL, NULL, 0), 0);
}

T_TEST(a_scope_is_written_by_name_where_it_may_be_read_by_name, 30) {
    pysock_addr addr, again;
    char text[PYSOCK_ADDR_STRLEN];
    if (!t_has_ipv6() || !if_nametoindex("lo"))
        skip();
    T_OK(pysock_addr_parse(&addr, "[ff02::1%lo]:80"));
    T_EQ(addr.u.in6.sin6_scope_id, if_nametoindex("lo"));
    expect_addr(&addr, "[ff02::1%lo]:80");
    T_STEP("an interface that is gone");
    addr.u.in6.sin6_scope_id = 0x7ffffff0;
    pysock_addr_format(&addr, text, sizeof text);
    expect_text(text, "[ff02::1%2147483632]:80");
    T_OK(pysock_addr_parse(&again, text));
    T_EQ(again.u.in6.sin6_scope_id, 0x7ffffff0);
}

T_TEST(any_sockaddr_can_be_an_address, 30) {
    pysock_addr addr;
    struct sockaddr_in in;
    struct sockaddr_storage any;
    char text[PYSOCK_ADDR_STRLEN], huge[sizeof addr.u + 16];
    memset(&in, 0, sizeof in);
    in.sin_family = AF_INET;
    in.sin_port = htons(80);
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    T_OK(pysock_addr_from_sockaddr(&addr, (struct sockaddr *)&in, sizeof in));
    T_EQ(addr.size, sizeof in);
    expect_addr(&addr, "127.0.0.1:80");
    T_STEP("a family that the library knows nothing of, at full length");
    memset(&any, 0x5a, sizeof any);
    any.ss_family = AF_NETLINK;
    T_OK(pysock_addr_from_sockaddr(&addr, (struct sockaddr *)&any, sizeof any));
    T_EQ(addr.size, sizeof any);
    T_EQ(memcmp(&addr.u, &any, sizeof any), 0);
    T_EQ(pysock_addr_port(&addr), -1);
    T_CHECK(pysock_addr_format(&addr, text, sizeof text) == strlen(text) && text[0]);
    T_STEP("too long");
    memset(huge, 0, sizeof huge);
    T_FAILS(pysock_addr_from_sockaddr(&addr, (struct sockaddr *)(void *)huge, sizeof huge),
            PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_addr_from_sockaddr(&addr, NULL, sizeof in), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_addr_from_sockaddr(NULL, (struct sockaddr *)&in, sizeof in), PYSOCK_VALUE_ERROR,
            EINVAL);
}

/* A family without host and port: the kernel's own messages. */
T_TEST(ipv6_is_told_as_it_is, 30) {
    int fd = socket(AF_INET6, SOCK_STREAM, 0), off = 0;
    int dual = fd >= 0 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) == 0;
    T_EQ(pysock_has_ipv6(), fd >= 0);
    T_EQ(pysock_has_dualstack_ipv6(), dual);
    if (fd >= 0)
        close(fd);
}

/* ---- international names ---- */

/* "localhost" in full-width letters, U+FF4C U+FF4F U+FF43 U+FF41 U+FF4C U+FF48 U+FF4F U+FF53
   U+FF54: IDNA maps it to the plain ones. */
static const char wide_localhost[] = "\xef\xbd\x8c\xef\xbd\x8f\xef\xbd\x83\xef\xbd\x81\xef\xbd\x8c"
                                     "\xef\xbd\x88\xef\xbd\x8f\xef\xbd\x93\xef\xbd\x94";

/* Whether there is anything that maps names: in the library, or in the system's resolver. */
static int names_are_mapped(void) {
#ifdef PYSOCK_IDN2
    return 1;
#elif defined(AI_IDN)
    locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0), old;
    struct addrinfo hints, *list = NULL;
    int err;
    if (utf8 == (locale_t)0) {
        print_message("this machine has no UTF-8 locale: skipped\n");
        return 0;
    }
    memset(&hints, 0, sizeof hints);
    hints.ai_flags = AI_IDN;
    old = uselocale(utf8);
    err = getaddrinfo(wide_localhost, NULL, &hints, &list);
    uselocale(old);
    freelocale(utf8);
    if (err == 0)
        freeaddrinfo(list);
    else
        print_message("this system maps no international names (%s): skipped\n", gai_strerror(err));
    return err == 0;
#else
    print_message("this system maps no international names: skipped\n");
    return 0;
#endif
}

/* The program has chosen no locale, and none has been chosen for it. */
static void expect_no_locale(void) {
    expect_text(setlocale(LC_ALL, NULL), "C");
    T_CHECK(uselocale((locale_t)0) == LC_GLOBAL_LOCALE);
}

T_TEST(an_international_name_is_looked_up, 30) {
    pysock_addrinfo *list;
    pysock_addr addr;
    pysock_hostent *h;
    char ip[INET_ADDRSTRLEN], text[PYSOCK_HOST_STRLEN];
    expect_no_locale();
    if (!names_are_mapped())
        skip();
    T_CHECK(T_OK(look_up(wide_localhost, "80", AF_INET, SOCK_STREAM, 0, 0, &list)) >= 1);
    T_EQ(ntohl(list[0].addr.u.in.sin_addr.s_addr) >> 24, 127);
    pysock_freeaddrinfo(list);
    T_OK(pysock_addr_resolve(&addr, AF_INET, wide_localhost, 1));
    T_EQ(ntohl(addr.u.in.sin_addr.s_addr) >> 24, 127);
    T_OK(pysock_gethostbyname(wide_localhost, ip, sizeof ip));
    T_CHECK(strncmp(ip, "127.", 4) == 0);
    h = T_OK(pysock_gethostbyname_ex(wide_localhost));
    T_CHECK(h->address_count >= 1 && strncmp(h->addresses[0], "127.", 4) == 0);
    pysock_freehostent(h);
    h = T_OK(pysock_gethostbyaddr(wide_localhost));
    T_CHECK(h->address_count >= 1);
    pysock_freehostent(h);
    T_OK(pysock_getfqdn(wide_localhost, text, sizeof text));
    expect_no_locale();
}

T_TEST(an_international_name_is_connected_to_in_every_mode, 60) {
    static const double modes[] = {PYSOCK_NO_TIMEOUT, 30, 0};
    int port, error = -1;
    pysock *listener, *a, *b;
    if (!names_are_mapped())
        skip();
    listener = t_listen(&port);
    for (int i = 0; i < 3; i++) {
        T_STEP("connect, timeout %g", modes[i]);
        a = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
        T_OK(pysock_settimeout(a, modes[i]));
        if (modes[i] != 0)
            T_OK(pysock_connect(a, wide_localhost, port));
        else
            T_FAILS(pysock_connect(a, wide_localhost, port), PYSOCK_OS_ERROR, EINPROGRESS);
        T_EQ(t_writable(a, PYSOCK_NO_TIMEOUT), 1);
        T_OK(pysock_getsockopt_int(a, SOL_SOCKET, SO_ERROR, &error));
        T_EQ(error, 0);
        b = T_OK(pysock_accept(listener, NULL));
        t_say(b, "there");
        t_expect(a, "there");
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
    }
    for (int i = 0; i < 2; i++) {
        T_STEP("create_connection, timeout %g", modes[i]);
        a = T_OK(pysock_create_connection(wide_localhost, port, modes[i]));
        b = T_OK(pysock_accept(listener, NULL));
        T_OK(pysock_close(a));
        T_OK(pysock_close(b));
    }
    T_STEP("bind and create_server");
    a = T_OK(pysock_socket(AF_INET, SOCK_DGRAM, 0));
    T_OK(pysock_bind(a, wide_localhost, 0));
    T_OK(pysock_close(a));
    a = T_OK(pysock_create_server(wide_localhost, 0, 1));
    T_OK(pysock_close(a));
    T_OK(pysock_close(listener));
    expect_no_locale();
}

T_TEST(bytes_that_are_no_text_are_no_name, 60) {
    static const char *const bad[] = {"\xff\xfe",     "caf\xe9.invalid",  "\xef\xbd",
                                      "\xc0\xaf.com", "\xed\xa0\x80.com", "\x80localhost"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        pysock *s = T_OK(pysock_socket(AF_INET, SOCK_STREAM, 0));
        pysock_addrinfo *list;
        pysock_addr addr;
        char ip[INET_ADDRSTRLEN], text[300];
        T_STEP("number %zu", i);
        NAME_FAILS(look_up(bad[i], "80", 0, SOCK_STREAM, 0, 0, &list));
        NAME_FAILS(pysock_addr_resolve(&addr, AF_INET, bad[i], 80));
        NAME_FAILS(pysock_gethostbyname(bad[i], ip, sizeof ip));
        NAME_FAILS(pysock_connect(s, bad[i], 80));
        NAME_FAILS(pysock_create_connection(bad[i], 80, 30));
        NAME_FAILS(pysock_create_connection(bad[i], 80, PYSOCK_NO_TIMEOUT));
        T_FAILS(pysock_gethostbyname_ex(bad[i]), T_ANY, T_ANY);
        T_FAILS(pysock_gethostbyaddr(bad[i]), T_ANY, T_ANY);
        T_FAILS(pysock_idna_encode(bad[i], text, sizeof text), T_ANY, T_ANY);
        T_OK(pysock_close(s));
    }
    expect_no_locale();
}

T_TEST(idna_encode_gives_ascii, 30) {
    static const char *const ascii[] = {"localhost", "www.example.org",       "WWW.Example.ORG",
                                        "x",         "xn--bcher-kva.example", "127.0.0.1"};
    char text[300];
    for (size_t i = 0; i < sizeof ascii / sizeof ascii[0]; i++) {
        T_EQ(pysock_idna_encode(ascii[i], text, sizeof text), strlen(ascii[i]));
        expect_text(text, ascii[i]);
    }
    T_FAILS(pysock_idna_encode("localhost", text, 9), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_idna_encode(NULL, text, sizeof text), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_idna_encode("localhost", NULL, 9), PYSOCK_VALUE_ERROR, EINVAL);
#ifdef PYSOCK_IDN2
    T_EQ(pysock_idna_encode("B\xc3\xbc"
                            "cher.example",
                            text, sizeof text),
         21);
    expect_text(text, "xn--bcher-kva.example");
    T_EQ(pysock_idna_encode(wide_localhost, text, sizeof text), 9);
    expect_text(text, "localhost");
    T_OK(pysock_idna_encode("fa\xc3\x9f.de", text, sizeof text));
    expect_text(text, "xn--fa-hia.de"); /* IDNA 2008: not fass.de */
    T_FAILS(pysock_idna_encode("\xff", text, sizeof text), PYSOCK_VALUE_ERROR, EINVAL);
    T_FAILS(pysock_idna_encode("B\xc3\xbc"
                               "cher.example",
                               text, 21),
            PYSOCK_VALUE_ERROR, EINVAL);
#else
    T_FAILS(pysock_idna_encode("b\xc3\xbc"
                               "cher.example",
                               text, sizeof text),
            PYSOCK_OS_ERROR, ENOTSUP);
    T_FAILS(pysock_idna_encode(wide_localhost, text, sizeof text), PYSOCK_OS_ERROR, ENOTSUP);
#endif
}

/* ---- threads ---- */

enum { LOOKERS = 8 };

typedef struct looker {
    int number;
    int rounds;
    int services;  /* the machine has an /etc/services */
    int protocols; /* and an /etc/protocols */
    int loopback;  /* 127.0.0.1 has a name */
} looker;

static void look_up_hosts(const looker *me, int round) {
    char host[32], port[16], text[PYSOCK_HOST_STRLEN], want[64];
    pysock_addrinfo *list;
    pysock_hostent *h;
    pysock_addr addr;
    snprintf(host, sizeof host, "10.%d.%d.7", me->number, round % 256);
    snprintf(port, sizeof port, "%d", 1000 + me->number);
    snprintf(want, sizeof want, "%s:%s", host, port);
    T_EQ(T_OK(look_up(host, port, 0, SOCK_STREAM, 0, 0, &list)), 1);
    expect_addr(&list[0].addr, want);
    T_OK(pysock_getnameinfo(&list[0].addr, NI_NUMERICHOST | NI_NUMERICSERV, text, sizeof text, NULL,
                            0));
    expect_text(text, host);
    pysock_freeaddrinfo(list);
    T_OK(pysock_gethostbyname(host, text, sizeof text));
    expect_text(text, host);
    h = T_OK(pysock_gethostbyname_ex(host));
    T_CHECK(has_address(h, host));
    expect_text(h->name, host);
    pysock_freehostent(h);
    T_OK(pysock_addr_resolve(&addr, AF_INET, "localhost", 1000 + me->number));
    T_EQ(pysock_addr_port(&addr), 1000 + me->number);
    T_OK(pysock_inet_ntoa(&addr.u.in.sin_addr, 4, text, sizeof text));
    T_CHECK(strncmp(text, "127.", 4) == 0);
    if (me->loopback) {
        h = T_OK(pysock_gethostbyaddr("127.0.0.1"));
        T_CHECK(has_address(h, "127.0.0.1"));
        pysock_freehostent(h);
        T_OK(pysock_getfqdn("127.0.0.1", text, sizeof text));
    }
}

static void look_up_tables(const looker *me) {
    static const struct {
        const char *name;
        int port;
    } services[] = {{"http", 80}, {"domain", 53}, {"smtp", 25}, {"ssh", 22}};
    static const struct {
        const char *name;
        int number;
    } protocols[] = {{"tcp", 6}, {"udp", 17}, {"icmp", 1}, {"ip", 0}};
    char text[PYSOCK_SERVICE_STRLEN];
    if (me->services) {
        T_EQ(pysock_getservbyname(services[me->number % 4].name, "tcp"),
             services[me->number % 4].port);
        T_OK(pysock_getservbyport(services[me->number % 4].port, "tcp", text, sizeof text));
        expect_text(text, services[me->number % 4].name);
    }
    if (me->protocols)
        T_EQ(pysock_getprotobyname(protocols[me->number % 4].name),
             protocols[me->number % 4].number);
    T_FAILS(pysock_getservbyname("no-such-service", NULL), PYSOCK_OS_ERROR, ENOENT);
}

static void look_up_interfaces(void) {
    pysock_interface *all;
    ptrdiff_t n = T_OK(pysock_if_nameindex(&all));
    char name[IF_NAMESIZE];
    for (ptrdiff_t i = 0; i < n; i++)
        if (strcmp(all[i].name, "lo") == 0) {
            T_EQ(pysock_if_nametoindex("lo"), all[i].index);
            T_OK(pysock_if_indextoname(all[i].index, name, sizeof name));
            expect_text(name, "lo");
        }
    pysock_if_freenameindex(all);
}

static void *looker_thread(void *arg) {
    const looker *me = arg;
    for (int round = 0; round < me->rounds; round++) {
        pysock_addrinfo *list;
        char host[32];
        look_up_hosts(me, round);
        look_up_tables(me);
        look_up_interfaces();
        snprintf(host, sizeof host, "%d.1.1.~1", me->number); /* each has its own error */
        T_FAILS(look_up(host, "80", 0, 0, 0, AI_NUMERICHOST, &list), PYSOCK_GAI_ERROR, T_ANY);
        expect_named(host);
    }
    return NULL;
}

T_TEST(eight_threads_look_names_up_at_once, 120) {
    static const char *const services[] = {"http", "domain", "smtp", "ssh"};
    struct in_addr loopback;
    t_thread threads[LOOKERS];
    looker lookers[LOOKERS];
    looker first = {0, T_SCALE(60, 20), 1, 0, 0};
    for (int i = 0; i < 4; i++)
        first.services = first.services && getservbyname(services[i], "tcp");
    first.protocols = getprotobyname("tcp") != NULL;
    loopback.s_addr = htonl(INADDR_LOOPBACK);
    first.loopback = gethostbyaddr(&loopback, sizeof loopback, AF_INET) != NULL;
    for (int i = 0; i < LOOKERS; i++) {
        lookers[i] = first;
        lookers[i].number = i;
        t_spawn(&threads[i], looker_thread, &lookers[i]);
    }
    for (int i = 0; i < LOOKERS; i++)
        t_join(&threads[i]);
}

#define CROWD 64

/* Each thread that asks for a host has a resolver of its own in the system, as long as it lives:
   none ends before all have theirs. */
static void *crowd_thread(void *arg) {
    pysock_hostent *h;
    pthread_barrier_wait(arg);
    h = T_OK(pysock_gethostbyname_ex("127.0.0.1")); /* an address: no getaddrinfo comes first */
    T_CHECK(has_address(h, "127.0.0.1"));
    pysock_freehostent(h);
    pthread_barrier_wait(arg);
    return NULL;
}

T_TEST(many_threads_that_look_hosts_up_live_at_once, 60) {
    static t_thread threads[CROWD];
    pthread_barrier_t barrier;
    T_EQ(pthread_barrier_init(&barrier, NULL, CROWD), 0);
    for (int i = 0; i < CROWD; i++)
        t_spawn(&threads[i], crowd_thread, &barrier);
    for (int i = 0; i < CROWD; i++)
        t_join(&threads[i]);
    T_EQ(pthread_barrier_destroy(&barrier), 0);
}

T_MAIN(.setup = setup)
