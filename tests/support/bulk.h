/* A pattern for bulk data. */
#ifndef TESTS_SUPPORT_BULK_H
#define TESTS_SUPPORT_BULK_H

#include "support/checks.h"

#define T_PATTERN 65521 /* prime: a shifted, repeated or swapped piece does not look right */

static unsigned char t_pattern[2 * T_PATTERN];
static pthread_once_t t_pattern_once = PTHREAD_ONCE_INIT;

T_FUNC void t_pattern_make(void) {
    uint32_t x = 2463534242u;
    for (size_t i = 0; i < T_PATTERN; i++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        t_pattern[i] = t_pattern[i + T_PATTERN] = (unsigned char)(x >> 11);
    }
}

/* Up to T_PATTERN bytes of stream number seed, from an offset on. */
T_FUNC const unsigned char *t_bytes(uint64_t offset, unsigned int seed) {
    pthread_once(&t_pattern_once, t_pattern_make);
    return t_pattern + (offset + (uint64_t)seed * 7919u) % T_PATTERN;
}

T_FUNC void t_fill(unsigned char *buf, size_t size, uint64_t offset, unsigned int seed) {
    for (size_t done = 0; done < size;) {
        size_t n = size - done < T_PATTERN ? size - done : T_PATTERN;
        memcpy(buf + done, t_bytes(offset + done, seed), n);
        done += n;
    }
}

T_FUNC void t_verify(const unsigned char *buf, size_t size, uint64_t offset, unsigned int seed) {
    for (size_t done = 0; done < size;) {
        size_t n = size - done < 1024 ? size - done : 1024;
        if (memcmp(buf + done, t_bytes(offset + done, seed), n) != 0)
            T_FAIL("wrong bytes in stream %u near offset %llu", seed,
                   (unsigned long long)(offset + done));
        done += n;
    }
}

#endif
