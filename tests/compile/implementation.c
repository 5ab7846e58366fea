/* The file with the implementation. Including it again, with or without the macro, adds nothing. */
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"
#include "pysock.h"
#undef PYSOCK_IMPLEMENTATION
#include "pysock.h"
