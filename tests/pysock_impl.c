/* The one object with the implementation that every tests/test_*.c is linked with. */
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"
