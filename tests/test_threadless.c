/* An audit hook that denies the library its threads: the same as without them, at run time. */
#include "threadless.h"

static int deny_threads(void *arg, const pysock_audit_event *event) {
    (void)arg;
    return strcmp(event->name, "pysock.thread") == 0;
}

static int deny_and_make_contexts(void **state) {
    pysock_set_audit_hook(deny_threads, NULL);
    return make_contexts(state);
}

int main(void) {
    return cmocka_run_group_tests_name("test_threadless", tests, deny_and_make_contexts,
                                       free_contexts);
}
