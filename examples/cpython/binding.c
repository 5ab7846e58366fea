#include "binding.h"

#include <math.h>
#include <pthread.h>
#include <time.h>

/* The call that the thread is in, for the hooks. */
static __thread binding_call *running;

static PyThreadState *take_lock(void)
{
    PyThreadState *thread = running->thread;

    PyEval_RestoreThread(thread);
    return thread;
}

/* Python's handlers run in the main thread, between two instructions; in a call that waits this is
   the place. What a handler raises ends the call, and is raised by it. */
static int interrupted(void *arg)
{
    int raised;

    (void)arg;
    if (!running)
        return 0;
    take_lock();
    raised = PyErr_CheckSignals() < 0;
    PyEval_SaveThread();
    return raised;
}

/* What the modules do was told to sys.audit() while they held the lock, with Python's arguments:
   taking it again here would cost two turns of it a call. What they did not ask about is asked
   about here. */
static int audited(void *arg, const pysock_audit_event *event)
{
    char text[PYSOCK_ADDR_STRLEN] = "";
    int denied;

    (void)arg;
    if (!running || !running->event[0] || strcmp(running->event, event->name) == 0
        || strncmp(event->name, "pysock.", 7) == 0 || strcmp(event->name, "socket.listen") == 0)
        return 0;
    if (event->addr)
        pysock_addr_format(event->addr, text, sizeof text);
    take_lock();
    denied = PySys_Audit(event->name, "zz", event->host ? event->host : text, event->service) < 0;
    PyEval_SaveThread();
    return denied;
}

/* pysock_cleanup(): from now on nobody calls into the interpreter, which may be going down. */
static void closing(void *arg)
{
    binding *b = arg;

    b->attached = 0;
    pysock_set_interrupt_hook(NULL, NULL);
    pysock_set_audit_hook(NULL, NULL);
}

static void attach(binding *b)
{
    if (pysock_register_closer(closing, b) < 0)
        return; /* out of memory: the next call tries again */
    b->attached = 1;
    pysock_set_interrupt_hook(interrupted, b);
    pysock_set_audit_hook(audited, b);
}

/* The end of Py_Finalize(): threads that still wait find out now, not in the next interpreter. */
static void at_finalize(void)
{
    pysock_cleanup();
}

#define CAPSULE "pysock.binding"

static void binding_free(PyObject *capsule)
{
    binding *b = PyCapsule_GetPointer(capsule, CAPSULE);
    pysock_state *before = pysock_state_swap(b->state);

    pysock_unregister_closer(closing, b);
    closing(b);
    pysock_state_swap(before == b->state ? NULL : before);
    pysock_state_free(b->state);
    PyMem_Free(b);
}

static PyObject *binding_new(void)
{
    int is_main = PyInterpreterState_Get() == PyInterpreterState_Main();
    binding *b = PyMem_Calloc(1, sizeof *b);
    PyObject *capsule;

    if (!b)
        return PyErr_NoMemory();
    b->interpreter = PyInterpreterState_Get();
    b->state = is_main ? NULL : pysock_state_new();
    capsule = is_main || b->state ? PyCapsule_New(b, CAPSULE, binding_free) : PyErr_NoMemory();
    if (!capsule) {
        pysock_state_free(b->state);
        PyMem_Free(b);
        return NULL;
    }
    if (is_main)
        Py_AtExit(at_finalize); /* without a place for it, exit() does the same */
    return capsule;
}

/* How many callbacks run on threads of the library's own, and whether more may begin. From the
   interpreter's end on (its atexit) none may: a thread that then asked for the lock would never
   return. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t left;
    int inside;
} callbacks = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};

int binding_callback_begin(binding *b, binding_callback *cb)
{
    int closed;

    cb->made = !running;
    if (running) {
        cb->thread = running->thread;
        PyEval_RestoreThread(cb->thread);
        return 0;
    }
    pthread_mutex_lock(&callbacks.lock);
    closed = b->closed;
    callbacks.inside += !closed;
    pthread_mutex_unlock(&callbacks.lock);
    cb->thread = closed ? NULL : PyThreadState_New(b->interpreter);
    if (cb->thread) {
        PyEval_RestoreThread(cb->thread);
        return 0;
    }
    if (!closed) {
        pthread_mutex_lock(&callbacks.lock);
        callbacks.inside--;
        pthread_cond_broadcast(&callbacks.left);
        pthread_mutex_unlock(&callbacks.lock);
    }
    return -1;
}

void binding_callback_end(binding_callback *cb)
{
    if (!cb->made) {
        PyEval_SaveThread();
        return;
    }
    PyThreadState_Clear(cb->thread);
    PyThreadState_DeleteCurrent();
    pthread_mutex_lock(&callbacks.lock);
    callbacks.inside--;
    pthread_cond_broadcast(&callbacks.left);
    pthread_mutex_unlock(&callbacks.lock);
}

/* The interpreter's atexit: no more callbacks on other threads, once those that run are done, or
   have had a second for it. */
static PyObject *close_callbacks(PyObject *capsule, PyObject *args)
{
    binding *b = PyCapsule_GetPointer(capsule, CAPSULE);
    struct timespec until;
    int r = 0;

    (void)args;
    if (!b)
        return NULL;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec++;
    Py_BEGIN_ALLOW_THREADS
    pthread_mutex_lock(&callbacks.lock);
    b->closed = 1;
    while (callbacks.inside && r == 0)
        r = pthread_cond_timedwait(&callbacks.left, &callbacks.lock, &until);
    pthread_mutex_unlock(&callbacks.lock);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyMethodDef close_callbacks_method = {"close_callbacks", close_callbacks, METH_NOARGS,
                                             NULL};

static int register_close_callbacks(PyObject *capsule)
{
    PyObject *function = PyCFunction_New(&close_callbacks_method, capsule), *r = NULL;
    PyObject *module = function ? PyImport_ImportModule("atexit") : NULL;

    if (module)
        r = PyObject_CallMethod(module, "register", "O", function);
    Py_XDECREF(r);
    Py_XDECREF(module);
    Py_XDECREF(function);
    return r ? 0 : -1;
}

binding *binding_get(PyObject **keep)
{
    PyObject *dict = PyInterpreterState_GetDict(PyInterpreterState_Get());
    PyObject *capsule = dict ? PyDict_GetItemString(dict, CAPSULE) : NULL;

    *keep = NULL;
    if (!dict)
        return (binding *)PyErr_NoMemory();
    if (capsule) {
        Py_INCREF(capsule);
    } else {
        capsule = binding_new();
        if (!capsule)
            return NULL;
        if (register_close_callbacks(capsule) < 0
            || PyDict_SetItemString(dict, CAPSULE, capsule) < 0) {
            Py_DECREF(capsule);
            return NULL;
        }
    }
    *keep = capsule;
    return PyCapsule_GetPointer(capsule, CAPSULE);
}

void binding_begin(binding *b, binding_call *c)
{
    pysock_state_swap(b->state); /* a thread may work for one interpreter and then for another */
    if (!b->attached)
        attach(b);
    c->event = "";
    c->outer = running;
    running = c;
    c->thread = PyEval_SaveThread();
}

int binding_begin_audited(binding *b, binding_call *c, const char *event, PyObject *args)
{
    int r;

    if (!args)
        return -1;
    r = PySys_Audit(event, "O", args);
    Py_DECREF(args);
    if (r < 0)
        return -1;
    binding_begin(b, c);
    c->event = event;
    return 0;
}

void binding_end(binding_call *c)
{
    running = c->outer;
    PyEval_RestoreThread(c->thread);
}

PyObject *binding_raise_errno(int code)
{
    errno = code;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *raise_pair(PyObject *type, int code, const char *text)
{
    PyObject *args = Py_BuildValue("(is)", code, text);

    PyErr_SetObject(type, args);
    Py_XDECREF(args);
    return NULL;
}

PyObject *binding_raise(binding *b)
{
    int code = pysock_error_code();

    if (PyErr_Occurred())
        return NULL;
    switch (pysock_error()) {
    case PYSOCK_TIMEOUT_ERROR:
        PyErr_SetString(PyExc_TimeoutError, "timed out");
        return NULL;
    case PYSOCK_GAI_ERROR:
        return raise_pair(b->gaierror ? b->gaierror : PyExc_OSError, code, gai_strerror(code));
    case PYSOCK_H_ERROR:
        return raise_pair(b->herror ? b->herror : PyExc_OSError, code, hstrerror(code));
    case PYSOCK_VALUE_ERROR:
        PyErr_SetString(PyExc_ValueError, pysock_error_message());
        return NULL;
    case PYSOCK_MEMORY_ERROR:
        return PyErr_NoMemory();
    case PYSOCK_KEY_ERROR:
        PyErr_SetString(PyExc_KeyError, pysock_error_message());
        return NULL;
    case PYSOCK_NO_ERROR:
    case PYSOCK_OS_ERROR:
        return binding_raise_errno(code);
    default:
        if (b->raise_ssl)
            return b->raise_ssl(b);
        return raise_pair(PyExc_OSError, EPROTO, pysock_error_message());
    }
}

int binding_int(PyObject *o, int *value)
{
    long n = PyLong_AsLong(o);

    if (n == -1 && PyErr_Occurred())
        return -1;
    if (n != (int)n) {
        PyErr_SetString(PyExc_OverflowError, n < 0 ? "signed integer is less than minimum"
                                                   : "signed integer is greater than maximum");
        return -1;
    }
    *value = (int)n;
    return 0;
}

int binding_timeout(PyObject *o, double *seconds)
{
    double s;

    if (o == Py_None) {
        *seconds = PYSOCK_NO_TIMEOUT;
        return 0;
    }
    if (PyFloat_Check(o)) {
        s = PyFloat_AS_DOUBLE(o);
    } else if (PyLong_Check(o)) {
        s = PyLong_AsDouble(o);
        if (s == -1.0 && PyErr_Occurred())
            return -1;
    } else {
        PyErr_Format(PyExc_TypeError, "timeout must be a number or None, not %.200s",
                     Py_TYPE(o)->tp_name);
        return -1;
    }
    if (isnan(s)) {
        PyErr_SetString(PyExc_ValueError, "the timeout is NaN (not a number)");
        return -1;
    }
    if (fabs(s) >= 9.2e9) {
        PyErr_SetString(PyExc_OverflowError, "the timeout is too large");
        return -1;
    }
    if (s < 0) {
        PyErr_SetString(PyExc_ValueError, "Timeout value out of range");
        return -1;
    }
    *seconds = s;
    return 0;
}

int binding_args(const char *name, Py_ssize_t n, Py_ssize_t min, Py_ssize_t max)
{
    if (n >= min && n <= max)
        return 0;
    PyErr_Format(PyExc_TypeError, "%s() takes %s%zd argument%s (%zd given)", name,
                 min == max ? "exactly " : n < min ? "at least " : "at most ", n < min ? min : max,
                 (n < min ? min : max) == 1 ? "" : "s", n);
    return -1;
}

int binding_add_constants(PyObject *module, const binding_constant *list)
{
    for (; list->name; list++) {
        PyObject *value = PyLong_FromLongLong(list->value);
        int r = value ? PyModule_AddObjectRef(module, list->name, value) : -1;
        Py_XDECREF(value);
        if (r < 0)
            return -1;
    }
    return 0;
}
