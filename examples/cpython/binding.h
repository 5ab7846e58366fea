/* What the modules share: releasing the interpreter's lock, its hooks and exceptions, and the state
   of each interpreter. It is in libpysock.so, with the implementation of pysock.h, because all
   modules must see the same calls of a thread. */
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

/* One interpreter's state. Its modules keep it alive through the capsule of binding_get(). */
typedef struct binding {
    pysock_state *state; /* NULL: the main interpreter has the main one */
    int attached;        /* its hooks are set; pysock_cleanup() removes them */
    /* From the modules that have them; NULL until then. A module that is imported a second time
       finds the same exceptions, and knows the other copy's sockets. */
    PyObject *gaierror, *herror;
    int (*is_socket)(PyObject *o);
    PyObject *(*raise_ssl)(struct binding *b); /* for the errors that only _ssl has a class for */
    void *ssl;                                 /* the state of _ssl */
    PyInterpreterState *interpreter;
    int closed; /* no more callbacks on the library's threads: it is finalizing */
} binding;

/* A call of the library under way: between binding_begin() and binding_end() the interpreter's lock
   is released, and no object may be used. */
typedef struct binding_call {
    struct binding_call *outer;
    binding *b;
    PyThreadState *thread;
    unsigned life;     /* of the main interpreter, which may end meanwhile */
    const char *event; /* what sys.audit() was called with; "": no event */
} binding_call;

/* The Python object of a socket, for _ssl, which wraps the socket in place. */
typedef struct binding_socket {
    PyObject_HEAD binding *b;
    pysock *s; /* BINDING_CLOSED, or a dead handle, once it is closed */
    int fd;    /* -1 then */
    int family, type, proto;
    double timeout; /* stays when it is closed */
} binding_socket;

#define BINDING_CLOSED ((pysock *)~(uintptr_t)0) /* a handle that never was one: EBADF */

/* The running interpreter's binding, made when it is first needed. *keep owns it. NULL with an
   exception. */
BINDING_API binding *binding_get(PyObject **keep);

/* For a call of the library that does not wait, and so needs no binding_begin(), but makes or looks
   up something that belongs to the interpreter. */
BINDING_API void binding_enter(binding *b);

/* Releases the interpreter's lock, for calls of the library, and takes it again. */
BINDING_API void binding_begin(binding *b, binding_call *c);
BINDING_API void binding_end(binding_call *c);

/* The same for a call that has an audit event in Python: sys.audit() is called first, with the lock
   held and with args, a tuple whose reference is stolen. -1 with an exception: the call has not
   begun. */
BINDING_API int binding_begin_audited(binding *b, binding_call *c, const char *event,
                                      PyObject *args);

/* Raises the thread's last error of the library as Python's exception, or leaves the one that a
   signal handler or audit hook has raised. Always NULL. */
BINDING_API PyObject *binding_raise(binding *b);

/* Likewise for a lookup of a host. Where the library rejects a name without a lookup, because it is
   too long or cannot be encoded, Python raises gaierror: not known. */
BINDING_API PyObject *binding_raise_lookup(binding *b);

/* A callback of the library into Python: fn(arg) with the interpreter's lock held, and its result;
   or refused, if the interpreter is finalizing. On the thread of a call it runs there. On one of
   the library's own, or if a call that keeps the lock does the library's work, another thread runs
   it, with a copy of arg (size bytes), which is copied back. */
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
