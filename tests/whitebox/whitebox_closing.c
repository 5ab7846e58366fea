/* A close's bound, three seconds here. */
#define PYSOCK_IMPLEMENTATION
#define PYSOCK_CLOSE_TIMEOUT 3.0
#include "pysock.h"

#include "whitebox/closing.h"

T_MAIN(.setup = set_up, .teardown = free_contexts)
