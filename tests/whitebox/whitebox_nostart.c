/* A system that refuses new threads: the same as without threads, found out at run time. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>

static int refuse_thread(pthread_t *id, const pthread_attr_t *attr, void *(*fn)(void *),
                         void *arg) {
    (void)id, (void)attr, (void)fn, (void)arg;
    return EAGAIN;
}

#define PYSOCK_IMPLEMENTATION
#define pthread_create refuse_thread
#include "pysock.h"
#undef pthread_create

#include "core/threadless.h"

T_MAIN(.setup = make_contexts, .teardown = free_contexts)
