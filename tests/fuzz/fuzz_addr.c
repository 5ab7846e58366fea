/* Arbitrary text as an address, which must come back the same from its own text; and arbitrary
   bytes as an address, whose text must fit. */
#include "pysock.h"
#include "fuzz.h"

static void check_text(const pysock_addr *addr)
{
    char whole[512], *part;
    size_t size, n = pysock_addr_format(addr, whole, sizeof whole);

    FUZZ_CHECK(n < PYSOCK_ADDR_STRLEN);
    FUZZ_CHECK(strlen(whole) <= n);
    FUZZ_CHECK(pysock_addr_format(addr, NULL, 0) == n);
    for (size = 1; size <= n + 2; size++) {
        part = (char *)malloc(size);
        if (!part)
            abort();
        FUZZ_CHECK(pysock_addr_format(addr, part, size) == n);
        FUZZ_CHECK(strlen(part) < size && strncmp(part, whole, strlen(part)) == 0);
        free(part);
    }
}

static void try_text(const char *text)
{
    char first[PYSOCK_ADDR_STRLEN], second[PYSOCK_ADDR_STRLEN];
    pysock_addr addr, again;

    memset(&addr, 0xa5, sizeof addr);
    if (pysock_addr_parse(&addr, text) < 0) {
        FUZZ_CHECK(pysock_error() == PYSOCK_VALUE_ERROR && pysock_error_message()[0]);
        pysock_error_clear();
        return;
    }
    check_text(&addr);
    FUZZ_CHECK(addr.size > 0 && addr.size <= sizeof addr.u);
    FUZZ_CHECK(addr.u.sa.sa_family == AF_UNIX ? pysock_addr_port(&addr) == -1
                                              : pysock_addr_port(&addr) >= 0);
    pysock_addr_format(&addr, first, sizeof first);
    FUZZ_CHECK(pysock_addr_parse(&again, first) == 0);
    pysock_addr_format(&again, second, sizeof second);
    FUZZ_CHECK(strcmp(first, second) == 0);
    FUZZ_CHECK(again.size == addr.size && memcmp(&again.u, &addr.u, addr.size) == 0);
}

/* The first byte is the length, the second the family's choice, the rest the address. */
static void try_bytes(const uint8_t *data, size_t size)
{
    static const sa_family_t families[] = {AF_INET, AF_INET6, AF_UNIX, AF_UNSPEC, 255};
    pysock_addr addr;

    if (size < 2)
        return;
    memset(&addr, 0, sizeof addr);
    memcpy(&addr.u, data + 2, size - 2 < sizeof addr.u ? size - 2 : sizeof addr.u);
    addr.size = (socklen_t)(data[0] < sizeof addr.u ? data[0] : sizeof addr.u);
    addr.u.sa.sa_family = families[data[1] % (sizeof families / sizeof families[0])];
    check_text(&addr);
    pysock_addr_port(&addr);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_text(data, size);

    try_text(text);
    try_bytes(data, size);
    free(text);
    return 0;
}
