/* What an error message must say, whatever its words. */
#ifndef TESTS_SUPPORT_MESSAGES_H
#define TESTS_SUPPORT_MESSAGES_H

#include "support/support.h"
#include "support/handshake.h"

/* 1 if the number stands in the text by itself, outside of the file's path. */
T_FUNC int says_number(const char *text, const char *path, int number) {
    const char *p = text, *found;
    size_t n = path ? strlen(path) : 0;
    for (; *p; p++) {
        char *end;
        found = n ? strstr(p, path) : NULL;
        if (found == p) {
            p += n - 1;
            continue;
        }
        if (*p < '0' || *p > '9')
            continue;
        if (strtol(p, &end, 10) == number && (p == text || !strchr("_-x", p[-1])))
            return 1;
        p = end - 1;
    }
    return 0;
}

/* words: alternatives, parted by bars. */
T_FUNC int says_one_of(const char *text, const char *words) {
    char copy[256], *word, *rest = copy;
    snprintf(copy, sizeof copy, "%s", words);
    while ((word = strtok_r(rest, "|", &rest)) != NULL)
        if (h_contains(text, word))
            return 1;
    return 0;
}

/* The same outside of the file's path, which may be NULL: what is in a name is said by nobody. */
T_FUNC int says_besides(const char *text, const char *path, const char *words) {
    char copy[2048], *found;
    snprintf(copy, sizeof copy, "%s", text);
    while (path && (found = strstr(copy, path)) != NULL)
        memmove(found, found + strlen(path), strlen(found + strlen(path)) + 1);
    return says_one_of(copy, words);
}

/* The last error is about that file, that object in it (0: any) and has one of these causes. */
T_FUNC void error_names(const char *path, int number, int or_number, const char *causes) {
    const char *message = pysock_error_message();
    if (pysock_error() != PYSOCK_SSL_ERROR)
        T_FAIL("%s, not SSLError: %s", pysock_error_name(), message);
    if (path && !strstr(message, path))
        T_FAIL("'%s' does not name %s", message, path);
    if (number && !says_number(message, path, number) && !says_number(message, path, or_number))
        T_FAIL("'%s' does not say that it is object %d", message, number);
    if (!says_besides(message, path, causes))
        T_FAIL("'%s' says nothing of '%s'", message, causes);
}

#endif
