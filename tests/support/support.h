/* What all the tests share, in parts. Include it before anything else. */
#ifndef TESTS_SUPPORT_H
#define TESTS_SUPPORT_H

#include "support/base.h"
#include "support/watchdog.h"
#include "support/checks.h"
#include "support/cases.h"
#include "support/hooks.h"
#include "support/threads.h"
#include "support/machine.h"
#include "support/pairs.h"
#include "support/raw.h"
#include "support/waiters.h"
#include "support/proxy.h"
#include "support/bulk.h"

#endif
