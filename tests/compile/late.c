/* One file that meets system headers and the declarations before the implementation. */
#include <stdio.h>
#include <sys/socket.h>

#include "pysock.h"

#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

#include "smoke.h"

int main(void)
{
    return smoke();
}
