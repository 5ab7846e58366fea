/* PYSOCK_NO_THREADS: one thread does all. */
#define PYSOCK_IMPLEMENTATION
#define PYSOCK_NO_THREADS
#include "pysock.h"

#include "core/threadless.h"

T_MAIN(.setup = make_contexts, .teardown = free_contexts)
