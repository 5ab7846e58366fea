/* What the modules share: where the interpreter's lock is let go, where its hooks and exceptions
   come in, and what belongs to one interpreter of several. It lives in libpysock.so, beside the
   implementation of pysock.h, because a thread's calls are one thing to all modules. */
#ifndef BINDING_H
#define BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#if PY_VERSION_HEX >> 16 != 0x030b
#error "these modules are what the Lib of CPython 3.11 wants; say make cpython PYTHON=python3.11"
#endif

#include "pysock.h"

#define BINDING_API extern __attribute__((visibility("default")))

/* What one interpreter has. Its modules keep it alive, by the capsule that binding_get() gives. */
typedef struct binding {
    pysock_state *state; /* NULL: the main interpreter has the main one */
    int attached;        /* its hooks are in place; pysock_cleanup() takes them away */
    /* From the modules that have them; NULL until then. A module that is imported a second time
       finds the same exceptions, and knows the other copy's sockets. */
    PyObject *gaierror, *herror;
    int (*is_socket)(PyObject *o);
    PyObject *(*raise_ssl)(struct binding *b); /* for the errors that only _ssl has a class for */
    void *ssl;                                 /* the state of _ssl */
    PyInterpreterState *interpreter;
    int closed; /* no more callbacks on the library's threads: it is going down */
} binding;

/* A call of the library's under way: between binding_begin() and binding_end() the interpreter's
   lock is free, and no object may be touched. */
typedef struct binding_call {
    struct binding_call *outer;
    binding *b;
    PyThreadState *thread;
    unsigned life;     /* of the main interpreter, which may end meanwhile */
    const char *event; /* what sys.audit() has been asked about; "": nobody asks, it is no event */
} binding_call;

/* The Python object around a socket, for _ssl, which wraps TLS around it in place. */
typedef struct binding_socket {
    PyObject_HEAD
    binding *b;
    pysock *s;  /* BINDING_CLOSED, or a dead handle, once it is closed */
    int fd;     /* -1 then */
    int family, type, proto;
    double timeout; /* stays when it is closed */
} binding_socket;

#define BINDING_CLOSED ((pysock *)~(uintptr_t)0) /* a handle that never was one: EBADF */

/* The running interpreter's binding, made when it is first asked for. *keep owns it. NULL with an
   exception. */
BINDING_API binding *binding_get(PyObject **keep);

/* For a call of the library that needs no binding_begin(), as it does not wait, but makes something
   that belongs to the interpreter, or asks what does. */
BINDING_API void binding_enter(binding *b);

/* Lets the interpreter's lock go, for calls of the library; and takes it again. */
BINDING_API void binding_begin(binding *b, binding_call *c);
BINDING_API void binding_end(binding_call *c);

/* The same for a call that Python has an audit event for: sys.audit() is asked first, while the
   lock is held, with args, a tuple that is taken. -1 with an exception, and then the call has not
   begun. */
BINDING_API int binding_begin_audited(binding *b, binding_call *c, const char *event,
                                      PyObject *args);

/* Raises the thread's last error of the library as Python's exception, or leaves the one that a
   signal handler or audit hook has raised. Always NULL. */
BINDING_API PyObject *binding_raise(binding *b);

/* Likewise for a host that was to be looked up. Where the library refuses a name unasked, because
   it is too long or cannot be encoded, Python says gaierror: not known. */
BINDING_API PyObject *binding_raise_lookup(binding *b);

/* A callback of the library's into Python: fn(arg) with the interpreter's lock held, and its
   answer; or refused, where the interpreter is going down. On the thread of a call it runs there.
   On one of the library's own, or where a call that keeps the lock does the library's work,
   another thread does it, with a copy of arg (so many bytes), which is copied back. */
BINDING_API int binding_call_back(binding *b, int (*fn)(void *arg), void *arg, size_t size,
                                  int refused);

/* OSError with this errno value; a subclass where there is one. NULL. */
BINDING_API PyObject *binding_raise_errno(int code);

/* An int of C's from an object; -1 with an exception. */
BINDING_API int binding_int(PyObject *o, int *value);

/* Seconds from None (PYSOCK_NO_TIMEOUT) or a number of Python's; -1 with an exception. */
BINDING_API int binding_timeout(PyObject *o, double *seconds);

/* Checks how many positional arguments there are. -1 with a TypeError. */
BINDING_API int binding_args(const char *name, Py_ssize_t n, Py_ssize_t min, Py_ssize_t max);

/* Adds the constants; the last one's name is NULL. */
typedef struct binding_constant {
    const char *name;
    long long value;
} binding_constant;

BINDING_API int binding_add_constants(PyObject *module, const binding_constant *list);

#endif
