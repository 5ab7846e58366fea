/* What the harnesses share. A broken promise of the library aborts, as a sanitizer's finding
   does. */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define FUZZ_CHECK(condition) ((condition) ? (void)0 : fuzz_broken(#condition, __FILE__, __LINE__))

static inline void fuzz_broken(const char *condition, const char *file, int line)
{
    fprintf(stderr, "%s:%d: broken: %s (last error: %s)\n", file, line, condition,
            pysock_error_message());
    abort();
}

/* A copy in a block of exactly that size, so that AddressSanitizer sees a read behind it. Free
   it. */
static inline uint8_t *fuzz_copy(const uint8_t *data, size_t size)
{
    uint8_t *p = (uint8_t *)malloc(size ? size : 1);

    if (!p)
        abort();
    if (size)
        memcpy(p, data, size);
    return p;
}

/* The same with a terminating zero; what follows a zero in the data is not seen. */
static inline char *fuzz_text(const uint8_t *data, size_t size)
{
    char *p = (char *)malloc(size + 1);

    if (!p)
        abort();
    if (size)
        memcpy(p, data, size);
    p[size] = 0;
    return p;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#endif
