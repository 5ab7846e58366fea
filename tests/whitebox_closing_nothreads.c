/* The same without threads: close waits itself. */
#define PYSOCK_IMPLEMENTATION
#define PYSOCK_NO_THREADS
#define PYSOCK_CLOSE_TIMEOUT 3.0
#include "pysock.h"

#include "closing.h"

CLOSING_MAIN("whitebox_closing_nothreads")
