/* Calls that report that output was lost. */
#ifndef TESTS_SUPPORT_LOSSES_H
#define TESTS_SUPPORT_LOSSES_H

#include "support/pairs.h"

typedef enum told_by { BY_SHUTDOWN, BY_DETACH, BY_CLOSE, BY_SEND, BY_SEND_BUF, TELLERS } told_by;

static const char *const teller_names[] = {"shutdown(SHUT_WR)", "detach", "close", "send",
                                           "send_buf"};

T_FUNC intptr_t ask(pysock *s, told_by teller) {
    intptr_t result = -1;
    int code;
    pysock_buf *b = T_OK(pysock_buf_copy("x", 1));
    pysock_error_clear();
    switch (teller) {
    case BY_SHUTDOWN: result = pysock_shutdown(s, SHUT_WR); break;
    case BY_DETACH: result = pysock_detach(s); break;
    case BY_CLOSE: result = pysock_close(s); break;
    case BY_SEND: result = pysock_send(s, "x", 1, 0); break;
    case BY_SEND_BUF: result = pysock_send_buf(s, b); break;
    case TELLERS: break;
    }
    code = errno;
    pysock_buf_release(b);
    errno = code;
    return result;
}

T_FUNC void must_tell(pysock *s, told_by teller) {
    T_EQ(ask(s, teller), -1);
    if (errno != ECONNRESET && errno != EPIPE)
        T_FAIL("errno %d: %s", errno, pysock_error_message());
    T_CHECK(pysock_error() != PYSOCK_NO_ERROR && pysock_error_message()[0]);
}

#endif
