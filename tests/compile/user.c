/* A file that only uses the library, includes it twice, and needs no macro before it. */
#include "pysock.h"
#include "pysock.h"

#include "smoke.h"

int main(void)
{
    return smoke();
}
