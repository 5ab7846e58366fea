// C++ uses the declarations; the implementation is compiled as C.
#include "pysock.h"
#include "pysock.h"

#include "smoke.h"

int main()
{
    pysock_addr addr = pysock_addr();
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;

    if (pysock_addr_parse(&addr, "127.0.0.1:80") < 0 || pysock_addr_port(&addr) != 80)
        return smoke_fail("addr_parse");
    if (pysock_ssl_wrap_socket_ex(NULL, NULL, &options) != -1)
        return smoke_fail("wrap_socket_ex of nothing");
    return smoke();
}
