/* The one object with the implementation that every test program is linked with. */
#ifndef _FILE_OFFSET_BITS
#define _FILE_OFFSET_BITS 64 /* large files on 32-bit systems too */
#endif
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"
