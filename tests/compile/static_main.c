/* One of two files with a private copy of the library each: neither sees the other's. */
#define PYSOCK_STATIC
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#include "smoke.h"

const char *other_version(void);

int main(void)
{
    return strcmp(other_version(), PYSOCK_VERSION) != 0
           || strcmp(pysock_version(), PYSOCK_VERSION) != 0 || smoke();
}
