/* Checks that print the library's own message. cmocka's asserts longjmp and are for the test's
   thread only. These may be used on any; while other threads run, whose stacks a longjmp would pull
   away, they abort the program. */
#ifndef TESTS_SUPPORT_CHECKS_H
#define TESTS_SUPPORT_CHECKS_H

#include "support/watchdog.h"

__attribute__((format(printf, 3, 4), noreturn, unused)) static void t_fail_at(const char *file,
                                                                              int line,
                                                                              const char *format,
                                                                              ...) {
    va_list args;
    fprintf(stderr, "*** %s: %s:%d: ", t_watch ? t_watch->test : "?", file, line);
    if (t_watch && t_watch->step[(t_watch->next + T_STEPS - 1) % T_STEPS][0])
        fprintf(stderr, "[%s] ", t_watch->step[(t_watch->next + T_STEPS - 1) % T_STEPS]);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    if (t_is_child)
        _exit(99);
    if (!t_watch || !pthread_equal(pthread_self(), t_main_thread) ||
        __atomic_load_n(&t_live_threads, __ATOMIC_ACQUIRE) > 0) {
        fprintf(stderr, "*** other threads are running: no further test can be trusted\n");
        abort();
    }
    _fail(file, line);
    abort();
}

#define T_FAIL(...) t_fail_at(__FILE__, __LINE__, __VA_ARGS__)

/* A condition, with the error of the library should it matter. */
#define T_CHECK(condition)                                                                         \
    ((condition) ? (void)0                                                                         \
                 : t_fail_at(__FILE__, __LINE__, "%s is false (last error: %s)", #condition,       \
                             pysock_error_message()))

T_FUNC void t_equal_at(const char *file, int line, const char *text, long long have,
                       long long want) {
    if (have != want)
        t_fail_at(file, line, "%s is %lld, not %lld (last error: %s)", text, have, want,
                  pysock_error_message());
}

#define T_EQ(have, want) t_equal_at(__FILE__, __LINE__, #have, (long long)(have), (long long)(want))

T_FUNC intptr_t t_ok_at(intptr_t value, int is_pointer, const char *text, const char *file,
                        int line) {
    if (is_pointer ? value == 0 : value < 0)
        t_fail_at(file, line, "%s failed: %s [%s, %s, errno %d]", text, pysock_error_message(),
                  pysock_error_name(), pysock_error_reason(), errno);
    return value;
}

#define T_IS_POINTER(expr) (__builtin_classify_type(expr) == 5)

/* The value of expr, which must not be negative (a pointer: NULL). */
#define T_OK(expr)                                                                                 \
    __extension__({                                                                                \
        (__typeof__(expr))t_ok_at((intptr_t)(expr), T_IS_POINTER(expr), #expr, __FILE__,           \
                                  __LINE__);                                                       \
    })

#define T_ANY (-1)

T_FUNC void t_fails_at(intptr_t value, int is_pointer, int code, int kind, int want,
                       const char *text, const char *file, int line) {
    if (is_pointer ? value != 0 : value != -1)
        t_fail_at(file, line, "%s gave %lld, but should have failed", text, (long long)value);
    if (kind != T_ANY && (int)pysock_error() != kind)
        t_fail_at(file, line, "%s failed with kind %d (%s: %s), not %d", text, (int)pysock_error(),
                  pysock_error_name(), pysock_error_message(), kind);
    if (want != T_ANY && code != want)
        t_fail_at(file, line, "%s failed with errno %d (%s), not %d (%s): %s", text, code,
                  strerror(code), want, strerror(want), pysock_error_message());
    if (pysock_error() == PYSOCK_NO_ERROR || code == 0 || !pysock_error_message()[0] ||
        !pysock_error_name()[0] || !pysock_error_reason()[0])
        t_fail_at(file, line, "%s failed without saying why (kind %d, errno %d, '%s', '%s', '%s')",
                  text, (int)pysock_error(), code, pysock_error_name(), pysock_error_reason(),
                  pysock_error_message());
}

/* 1 while a non-blocking do_handshake or unwrap goes on, 0 when it is done. */
#define t_in_progress(rc) t_in_progress_at(rc, #rc, __FILE__, __LINE__)

T_FUNC int t_in_progress_at(int rc, const char *what, const char *file, int line) {
    if (rc < 0 && errno == EINPROGRESS)
        return 1;
    if (rc != 0)
        t_fail_at(file, line, "%s gave %d: %s", what, rc, pysock_error_message());
    return 0;
}

/* expr must fail (-1 or NULL) with this kind and errno (either may be T_ANY) and a message. */
#define T_FAILS(expr, kind, want)                                                                  \
    __extension__({                                                                                \
        intptr_t t_value;                                                                          \
        pysock_error_clear();                                                                      \
        errno = 0;                                                                                 \
        t_value = (intptr_t)(expr);                                                                \
        t_fails_at(t_value, T_IS_POINTER(expr), errno, (int)(kind), want, #expr, __FILE__,         \
                   __LINE__);                                                                      \
    })

/* The same of a question, whose answer is then 0. */
#define T_ASKS_IN_VAIN(expr, kind, want) T_FAILS((expr) ? 1 : -1, kind, want)

#endif
