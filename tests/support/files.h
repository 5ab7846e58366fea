/* A directory of the test's own under build/, and files in it. */
#ifndef TESTS_SUPPORT_FILES_H
#define TESTS_SUPPORT_FILES_H

#include "support/support.h"

#include <ftw.h>
#include <sys/stat.h>

static char f_directory[64]; /* "" while there is none */

/* The directory, relative to the project's root; it is made when first asked for. */
T_FUNC const char *f_dir(void) {
    if (f_directory[0])
        return f_directory;
    mkdir("build", 0777);
    snprintf(f_directory, sizeof f_directory, "build/test-XXXXXX");
    if (!mkdtemp(f_directory))
        T_FAIL("mkdtemp: %s", strerror(errno));
    return f_directory;
}

/* The path of a file in it; the text stays until sixteen more were asked for. */
T_FUNC const char *f_path(const char *name) {
    static char paths[16][256];
    static size_t next;
    char *path = paths[next++ % 16];
    snprintf(path, sizeof paths[0], "%s/%s", f_dir(), name);
    return path;
}

T_FUNC int f_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

/* For cmocka's teardown. */
T_FUNC int f_remove_all(void **state) {
    (void)state;
    if (f_directory[0])
        nftw(f_directory, f_remove_one, 8, FTW_DEPTH | FTW_PHYS);
    f_directory[0] = 0;
    return 0;
}

/* Writes a file in the directory; its path, as f_path() gives it. */
T_FUNC const char *f_write(const char *name, const void *data, size_t size) {
    const char *path = f_path(name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0)
        T_FAIL("cannot write %s: %s", path, strerror(errno));
    return path;
}

T_FUNC const char *f_write_text(const char *name, const char *text) {
    return f_write(name, text, strlen(text));
}

/* A whole file, terminated; the caller frees it. size may be NULL. */
T_FUNC char *f_read(const char *path, size_t *size) {
    size_t have = 0, room = 4096, n;
    char *data = malloc(room);
    FILE *f = fopen(path, "rb");
    if (!f || !data)
        T_FAIL("cannot read %s: %s", path, strerror(errno));
    while ((n = fread(data + have, 1, room - have - 1, f)) > 0) {
        have += n;
        if (room - have > 1)
            continue;
        room *= 2;
        data = realloc(data, room);
        if (!data)
            T_FAIL("no memory");
    }
    fclose(f);
    data[have] = 0;
    if (size)
        *size = have;
    return data;
}

#endif
