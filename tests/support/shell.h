/* Shell commands in the test's own directory, and the end of both. */
#ifndef TESTS_SUPPORT_SHELL_H
#define TESTS_SUPPORT_SHELL_H

#include "support/files.h"
#include "support/process.h"

T_FUNC void f_run(const char *line) {
    static p_process p;
    p_args args = {{NULL}, 0};
    p_add(&args, "sh", "-ec", p_format("cd %s; %s", f_dir(), line), NULL);
    if (p_run_within(&p, &args, 6 * P_PATIENCE) != 0) /* keys take long to make */
        P_FAIL(&p, "'%s' failed", line);
    p_end(&p);
}

/* A fixture: no program runs on, and no file stays. */
T_FUNC int p_clear_away(void **state) {
    p_end_all(state);
    return f_remove_all(state);
}

#endif
