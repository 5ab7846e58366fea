/* System headers, the library, and what sanitizers are there. */
#ifndef TESTS_SUPPORT_BASE_H
#define TESTS_SUPPORT_BASE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#ifndef _FILE_OFFSET_BITS
#define _FILE_OFFSET_BITS 64 /* as tests/pysock_impl.c */
#endif

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pysock.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define T_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define T_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) && !defined(T_ASAN)
#define T_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__) && !defined(T_TSAN)
#define T_TSAN 1
#endif
#ifndef T_ASAN
#define T_ASAN 0
#endif
#ifndef T_TSAN
#define T_TSAN 0
#endif
#define T_SANITIZED (T_ASAN || T_TSAN)

#if T_TSAN
/* glibc keeps the resolver configurations of all threads in one array, which grows under a lock
   that ThreadSanitizer does not see: it is no pthread_mutex_t. ThreadSanitizer itself leaves
   getaddrinfo out of its reports, but neither gethostbyname2_r nor gethostbyaddr_r: the growing
   frame is left out here. The case in tests/core/test_names.c that needs it is
   many_threads_that_look_hosts_up_live_at_once. pysock__pset_knows asks the kernel whether a number
   that the program gave is a poller's set; whose number that is meanwhile is the program's affair,
   but ThreadSanitizer takes the question for a use of what another thread has just opened. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void) {
    return "race:__libc_dynarray_emplace_enlarge\nrace:pysock__pset_knows\n";
}
#endif

/* Built with an implementation that takes the system for macOS: see tests/support/macos_like.h. */
#ifndef T_MACOS_LIKE
#define T_MACOS_LIKE 0
#endif

/* Whether the descriptor of a socket with this timeout has O_NONBLOCK. */
#define T_HAS_O_NONBLOCK(timeout) ((timeout) >= 0 || T_MACOS_LIKE)

/* The number for a plain build, and the one for builds that run many times slower. */
#define T_SCALE(plain, sanitized) (T_SANITIZED ? (sanitized) : (plain))

#define T_FUNC static __attribute__((unused))

#endif
