/* Whether a socket's descriptor is still open, whose number another file may get when it is not.
   Asked of /proc: ThreadSanitizer takes an fstat() beside a close() for a race. */
#ifndef TESTS_SUPPORT_FILE_ID_H
#define TESTS_SUPPORT_FILE_ID_H

#include "support/support.h"

typedef struct file_id {
    int fd;
    char name[64]; /* "socket:[12345]", which no other socket has */
} file_id;

T_FUNC void read_file_id(int fd, char name[64]) {
    char path[64];
    ssize_t n;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    n = readlink(path, name, 63);
    name[n > 0 ? n : 0] = 0;
}

T_FUNC file_id file_of(pysock *s) {
    file_id f;
    f.fd = T_OK(pysock_fileno(s));
    read_file_id(f.fd, f.name);
    T_CHECK(f.name[0] != 0);
    return f;
}

T_FUNC int is_open(file_id f) {
    char now[64];
    read_file_id(f.fd, now);
    return strcmp(now, f.name) == 0;
}

#endif
