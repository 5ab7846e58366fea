/* The poller's tests over poll(2), as it is where there is no epoll. */
#define PYSOCK_IMPLEMENTATION
#define PYSOCK_NO_EPOLL
#include "pysock.h"

#include "io/test_poller.c"
