/* The one implementation of pysock.h in the process: libpysock.so, which all three modules use. */
#define PYSOCKDEF extern __attribute__((visibility("default")))
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"
