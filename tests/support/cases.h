/* How a program gets its cases: T_TEST defines them, T_MAIN runs them. */
#ifndef TESTS_SUPPORT_CASES_H
#define TESTS_SUPPORT_CASES_H

#include "support/watchdog.h"

#define T_MOST_CASES 512

typedef struct t_case {
    int place; /* they run in the order in which they are defined */
    struct CMUnitTest test;
} t_case;

static t_case t_cases[T_MOST_CASES];
static size_t t_case_count;

/* Constructors run in any order. */
T_FUNC void t_add(int place, struct CMUnitTest test) {
    size_t at = t_case_count++;
    if (at == T_MOST_CASES)
        abort();
    for (; at > 0 && t_cases[at - 1].place > place; at--)
        t_cases[at] = t_cases[at - 1];
    t_cases[at].place = place;
    t_cases[at].test = test;
}

/* T_TEST(name, seconds) { ... } is a case of the program. When it is not over after so many
   seconds, the program is aborted; see t_deadline_at. */
#define T_TEST(name, seconds) T_TEST_WITH(name, seconds, NULL, NULL)

/* The same with fixtures of its own, in place of the program's .each_setup and .each_teardown. */
#define T_TEST_WITH(name, seconds, setup, teardown)                                                \
    static void name(void);                                                                        \
    static void t_run_##name(void **state) {                                                       \
        (void)state;                                                                               \
        t_deadline_at(#name, seconds);                                                             \
        name();                                                                                    \
    }                                                                                              \
    __attribute__((constructor)) static void t_add_##name(void) {                                  \
        struct CMUnitTest test = {#name, t_run_##name, setup, teardown, NULL};                     \
        t_add(__COUNTER__, test);                                                                  \
    }                                                                                              \
    static void name(void)

typedef struct t_program {
    const char *file;
    CMFixtureFunction setup, teardown;           /* before the first case, after the last */
    CMFixtureFunction each_setup, each_teardown; /* around every case without its own */
    int (*as_child)(int argc, char **argv);      /* -1: it was not started by one of its cases */
} t_program;

T_FUNC int t_main(const t_program *p, int argc, char **argv) {
    static struct CMUnitTest tests[T_MOST_CASES];
    const char *slash = strrchr(p->file, '/');
    int status = p->as_child ? p->as_child(argc, argv) : -1;
    if (status >= 0)
        return status;
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    for (size_t i = 0; i < t_case_count; i++) {
        tests[i] = t_cases[i].test;
        if (!tests[i].setup_func && !tests[i].teardown_func) {
            tests[i].setup_func = p->each_setup;
            tests[i].teardown_func = p->each_teardown;
        }
    }
    return _cmocka_run_group_tests(slash ? slash + 1 : p->file, tests, t_case_count, p->setup,
                                   p->teardown);
}

/* Runs all cases; a command-line argument such as '*select*' chooses among them. What is given are
   fields of t_program: T_MAIN(.setup = make_contexts, .teardown = free_contexts) */
#define T_MAIN(...)                                                                                \
    int main(int argc, char **argv) {                                                              \
        static const t_program t_this = {.file = __BASE_FILE__, __VA_ARGS__};                      \
        return t_main(&t_this, argc, argv);                                                        \
    }

#endif
