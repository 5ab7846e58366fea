/* What other systems do otherwise than Linux with glibc, in calls that are made to do so here. See
   also tests/support/macos_like.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <dirent.h>
#include <errno.h>
#include <netdb.h>
#include <stddef.h>

static int readdir_good; /* so many entries come before an error; negative: no error */

static struct dirent *ailing_readdir(DIR *d) {
    if (readdir_good < 0 || readdir_good-- > 0)
        return readdir(d);
    errno = EIO;
    return NULL;
}

/* musl always tells a canonical name. */
static int telling_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                               struct addrinfo **list) {
    struct addrinfo more = *hints;
    if (host)
        more.ai_flags |= AI_CANONNAME;
    return getaddrinfo(host, service, &more, list);
}

#define readdir(d) ailing_readdir(d)
#define getaddrinfo(host, service, hints, list) telling_getaddrinfo(host, service, hints, list)
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"
#undef readdir
#undef getaddrinfo

#include "support/support.h"

static int count_one(void *arg, const char *path) {
    T_CHECK(path[0] == '/');
    ++*(int *)arg;
    return 0;
}

T_TEST(a_directory_that_cannot_be_read_to_its_end_is_an_error, 30) {
    char dir[] = "/tmp/pysock-test-XXXXXX", path[64];
    int n = 0;
    T_CHECK(mkdtemp(dir) != NULL);
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%d", dir, i);
        T_EQ(close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)), 0);
    }
    readdir_good = -1;
    errno = EILSEQ; /* what is left over from before is none */
    T_EQ(pysock__each_file(dir, count_one, &n), 0);
    T_EQ(n, 3);
    for (readdir_good = 0; readdir_good < 5; readdir_good++) {
        int kept = readdir_good;
        T_STEP("after %d entries", kept);
        T_EQ(pysock__each_file(dir, count_one, &n), -EIO);
        readdir_good = kept;
    }
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%d", dir, i);
        T_EQ(unlink(path), 0);
    }
    T_EQ(rmdir(dir), 0);
}

T_TEST(a_canonical_name_comes_only_where_it_was_asked_for, 30) {
    pysock_addrinfo *list;
    T_EQ(T_OK(pysock_getaddrinfo("127.0.0.1", "80", 0, SOCK_STREAM, 0, 0, &list)), 1);
    T_CHECK(strcmp(list[0].canonname, "") == 0);
    pysock_freeaddrinfo(list);
    T_EQ(T_OK(pysock_getaddrinfo("127.0.0.1", "80", 0, SOCK_STREAM, 0, AI_CANONNAME, &list)), 1);
    T_CHECK(strcmp(list[0].canonname, "127.0.0.1") == 0);
    pysock_freeaddrinfo(list);
}

static void expect_text(size_t pathlen, const char *path, const char *want) {
    pysock_addr addr;
    char text[PYSOCK_ADDR_STRLEN];
    memset(&addr, 0, sizeof addr);
    addr.u.un.sun_family = AF_UNIX;
    memcpy(addr.u.un.sun_path, path, pathlen);
    addr.size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + pathlen);
    pysock_addr_format(&addr, text, sizeof text);
    if (strcmp(text, want) != 0)
        T_FAIL("%zu bytes are '%s', not '%s'", pathlen, text, want);
}

/* Linux ends the address before the path; on the BSDs and macOS it has 16 bytes, and elsewhere it
   may be a whole sockaddr_un. */
T_TEST(a_unix_address_without_a_name_is_written_alike_everywhere, 30) {
    static const char zeros[sizeof(((struct sockaddr_un *)0)->sun_path)];
    expect_text(0, zeros, "unix:");
    expect_text(14, zeros, "unix:");
    expect_text(sizeof zeros, zeros, "unix:");
    T_STEP("names are none the worse for it");
    expect_text(6, "\0name", "unix:@name"); /* with the NUL behind it */
    expect_text(5, "\0name", "unix:@name");
    expect_text(3, "\0\0x", "unix:@");
    expect_text(5, "/path", "unix:/path");
    expect_text(6, "/path", "unix:/path");
}

T_MAIN()
