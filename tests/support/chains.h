/* The chains of tools/mkchains.sh, in the test's own directory. */
#ifndef TESTS_SUPPORT_CHAINS_H
#define TESTS_SUPPORT_CHAINS_H

#include "support/files.h"
#include "support/process.h"

/* A group's set-up. kind: "revocation" or NULL, as the tool has it. Where there is no openssl each
   test says so by itself. */
T_FUNC int c_make_chains(const char *kind) {
    static p_process p;
    p_args args = {{NULL}, 0};
    int status;
    if (!p_is_installed("openssl"))
        return 0;
    t_deadline_at(__func__, 180);
    p_add(&args, "sh", "tools/mkchains.sh", f_dir(), kind, NULL);
    status = p_run_within(&p, &args, 170); /* many keys and programs */
    if (status != 0)
        P_FAIL(&p, "tools/mkchains.sh failed");
    p_end(&p);
    return status;
}

#endif
