/* The other one. */
#define PYSOCK_STATIC
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

const char *other_version(void);

const char *other_version(void)
{
    return PYSOCK_VERSION;
}
