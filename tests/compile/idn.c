/* International host names by libidn2: compiled with PYSOCK_IDN2, run with no locale set. */
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#include "smoke.h"

/* name must be encoded as want. */
static int encodes(const char *name, const char *want)
{
    char text[256];
    int n = pysock_idna_encode(name, text, sizeof text);

    if (n < 0)
        return smoke_fail(name);
    if (strcmp(text, want) == 0 && (size_t)n == strlen(want))
        return 0;
    fprintf(stderr, "%s is encoded as %s, not as %s\n", name, text, want);
    return 1;
}

static int refuses(const char *name, size_t size)
{
    char text[256];

    if (pysock_idna_encode(name, text, size) == -1 && pysock_error() == PYSOCK_VALUE_ERROR)
        return 0;
    fprintf(stderr, "%s is not refused\n", name);
    return 1;
}

int main(void)
{
    pysock_addrinfo *list;
    /* "localhost" in full-width letters, which UTS 46 maps to the ASCII ones. */
    const char *wide = "\xef\xbd\x8c\xef\xbd\x8f\xef\xbd\x83\xef\xbd\x81\xef\xbd\x8c\xef\xbd\x88"
                       "\xef\xbd\x8f\xef\xbd\x93\xef\xbd\x94";

    if (encodes("example.org", "example.org")
        || encodes("b\xc3\xbc"
                   "cher.example",
                   "xn--bcher-kva.example")
        || encodes("B\xc3\x9c"
                   "CHER.example",
                   "xn--bcher-kva.example")
        || encodes("fa\xc3\x9f.de", "xn--fa-hia.de") || encodes(wide, "localhost")
        || refuses("b\xfc"
                   "cher.example",
                   256)
        || refuses("b\xc3\xbc"
                   "cher.example",
                   10))
        return 1;
    if (pysock_getaddrinfo(wide, "80", AF_INET, SOCK_STREAM, 0, 0, &list) < 1)
        return smoke_fail("getaddrinfo");
    if (pysock_addr_port(&list->addr) != 80)
        return smoke_fail("addr_port");
    pysock_freeaddrinfo(list);
    return smoke();
}
