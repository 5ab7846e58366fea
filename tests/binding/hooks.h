/* What the tests of the hooks and of the states share: an audit hook that takes notes. */
#ifndef TESTS_BINDING_HOOKS_H
#define TESTS_BINDING_HOOKS_H

#include "support/contexts.h"

/* What a failed test leaves is not for the next one. */
T_FUNC int forget_hooks(void **state) {
    (void)state;
    (void)pysock_state_swap(NULL);
    pysock_set_audit_hook(NULL, NULL);
    pysock_set_interrupt_hook(NULL, NULL);
    return 0;
}

T_FUNC void expect_text(const char *have, const char *want) {
    if (strcmp(have, want) != 0)
        T_FAIL("have '%s', not '%s'", have, want);
}

T_FUNC pysock *udp_on_loopback(pysock_addr *addr) {
    pysock *s = T_OK(pysock_socket(AF_INET, SOCK_DGRAM, 0));
    T_OK(pysock_bind(s, "127.0.0.1", 0));
    T_OK(pysock_getsockname(s, addr));
    return s;
}

typedef struct told {
    char name[32];
    pysock *socket;
    char addr[PYSOCK_ADDR_STRLEN]; /* "-" for NULL, as in the two below */
    char host[64];
    char service[64];
    int family, type, proto;
} told;

static pthread_mutex_t told_lock = PTHREAD_MUTEX_INITIALIZER;
static told tale[64];        /* guarded by told_lock */
static int tale_length;      /* guarded by told_lock; may be more than there is room for */
static const char *unwanted; /* guarded by told_lock; the event that is denied */
T_FUNC void (*look)(const pysock_audit_event *e); /* guarded by told_lock; asked at each event */

T_FUNC void note_text(char *to, size_t size, const char *text) {
    snprintf(to, size, "%s", text ? text : "-");
}

T_FUNC int audit(void *arg, const pysock_audit_event *e) {
    void (*ask)(const pysock_audit_event *);
    int denied;
    T_CHECK(arg == tale);
    T_CHECK(e->name != NULL);
    pthread_mutex_lock(&told_lock);
    if (tale_length < (int)(sizeof tale / sizeof tale[0])) {
        told *t = &tale[tale_length];
        note_text(t->name, sizeof t->name, e->name);
        note_text(t->host, sizeof t->host, e->host);
        note_text(t->service, sizeof t->service, e->service);
        note_text(t->addr, sizeof t->addr, NULL);
        if (e->addr)
            pysock_addr_format(e->addr, t->addr, sizeof t->addr);
        t->socket = e->socket;
        t->family = e->family;
        t->type = e->type;
        t->proto = e->proto;
    }
    tale_length++;
    denied = unwanted && strcmp(e->name, unwanted) == 0;
    ask = look;
    pthread_mutex_unlock(&told_lock);
    if (ask)
        ask(e);
    return denied;
}

/* From here on events are told; those of that name, if any, are denied. */
T_FUNC void watch(const char *deny) {
    pthread_mutex_lock(&told_lock);
    tale_length = 0;
    unwanted = deny;
    look = NULL;
    pthread_mutex_unlock(&told_lock);
    pysock_set_audit_hook(audit, tale);
}

T_FUNC void unwatch(void) {
    pysock_set_audit_hook(NULL, NULL);
}

T_FUNC int times_told(const char *name) {
    int n = 0;
    pthread_mutex_lock(&told_lock);
    for (int i = 0; i < tale_length; i++)
        n += strcmp(tale[i].name, name) == 0;
    pthread_mutex_unlock(&told_lock);
    return n;
}

/* It failed with EACCES, named as in Python, and for this reason. */
T_FUNC void expect_denied(const char *event) {
    T_CHECK(times_told(event) >= 1);
    expect_text(pysock_error_name(), "PermissionError");
    expect_text(pysock_error_reason(), "EACCES");
    T_CHECK(strstr(pysock_error_message(), "audit") != NULL);
}

/* What there is now, without the library. Returns how much that was. */
T_FUNC size_t drain_raw(int fd) {
    static char buf[65536];
    size_t got = 0;
    ssize_t n;
    while ((n = recv(fd, buf, sizeof buf, MSG_DONTWAIT)) > 0)
        got += (size_t)n;
    return got;
}

T_FUNC FILE *file_of(size_t size) {
    FILE *f = tmpfile();
    T_CHECK(f != NULL);
    T_EQ(ftruncate(fileno(f), (off_t)size), 0);
    return f;
}

T_FUNC int times_interrupted; /* atomic */

T_FUNC int stop_once(void *arg) {
    (void)arg;
    return __atomic_fetch_add(&times_interrupted, 1, __ATOMIC_ACQ_REL) == 0;
}

#endif
