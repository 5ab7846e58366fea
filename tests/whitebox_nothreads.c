/* PYSOCK_NO_THREADS: one thread does all. */
#define PYSOCK_IMPLEMENTATION
#define PYSOCK_NO_THREADS
#include "pysock.h"

#include "threadless.h"

int main(void) {
    return cmocka_run_group_tests_name("whitebox_nothreads", tests, make_contexts, free_contexts);
}
