/* Choices that belong to another call: with MIXUP 0 this compiles, with each of the others the
   compiler must complain. */
#include "pysock.h"

int mixups(pysock_ssl_context *ctx)
{
#if MIXUP == 1
    return pysock_ssl_set_verify_mode(ctx, PYSOCK_CLIENT_AUTH);
#elif MIXUP == 2
    return pysock_ssl_set_minimum_version(ctx, PYSOCK_PROTOCOL_TLSv1_2);
#elif MIXUP == 3
    return pysock_ssl_context_new(PYSOCK_PROTOCOL_TLS) == ctx;
#elif MIXUP == 4
    return pysock_ssl_context_new_protocol(PYSOCK_TLSv1_2) == ctx;
#else
    return pysock_ssl_set_verify_mode(ctx, PYSOCK_CERT_REQUIRED);
#endif
}
