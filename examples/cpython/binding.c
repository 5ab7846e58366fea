#include "binding.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <time.h>

/* The call that the thread is in, for the hooks; NULL in Python's code. */
static __thread binding_call *running;

/* How many times the main interpreter has ended. */
static unsigned lives; /* atomic */

/* Takes the interpreter's lock again. If that interpreter has ended, the thread cannot return to
   it, nor to a later one of the process: the thread ends, as Python's own do. */
static void take_lock(const binding_call *c)
{
    if (c->life != __atomic_load_n(&lives, __ATOMIC_ACQUIRE))
        pthread_exit(NULL);
    PyEval_RestoreThread(c->thread);
}

/* Leaves a call for Python's code, where no call is under way: that code may make calls that keep
   the lock and do the library's other work. */
static binding_call *into_python(void)
{
    binding_call *c = running;

    take_lock(c);
    running = NULL;
    return c;
}

/* Back from Python's code into a call, whose thread may have run another interpreter meanwhile. */
static void back_in_call(binding_call *c)
{
    running = c;
    PyEval_SaveThread();
    pysock_state_swap(c->b->state);
}

/* Python's main thread, as far as it is known: a module may be imported first by another one. */
static struct {
    pthread_t id;
    int known;
} main_thread;

static void note_main_thread(void)
{
    main_thread.id = pthread_self();
    main_thread.known = 1;
}

/* Python's signal handlers run in the main thread, between two instructions; for a call that waits,
   here. An exception of a handler ends the call, which raises it. Other threads have nothing to do,
   and must not take the lock in the middle of a call: that would end them when the interpreter
   finalizes. */
static int interrupted(void *arg)
{
    binding_call *call;
    int raised;

    (void)arg;
    if (!running || (main_thread.known && !pthread_equal(pthread_self(), main_thread.id)))
        return 0;
    call = into_python();
    raised = PyErr_CheckSignals() < 0;
    back_in_call(call);
    return raised;
}

/* The modules have called sys.audit() for their own events with the lock held, with Python's
   arguments: to take it again here would cost two switches of it per call. Other events of the
   library are passed on here. */
static int audited(void *arg, const pysock_audit_event *event)
{
    char text[PYSOCK_ADDR_STRLEN] = "";
    binding_call *call;
    int denied;

    (void)arg;
    if (!running || !running->event[0] || strcmp(running->event, event->name) == 0
        || strncmp(event->name, "pysock.", 7) == 0 || strcmp(event->name, "socket.listen") == 0)
        return 0;
    if (event->addr)
        pysock_addr_format(event->addr, text, sizeof text);
    call = into_python();
    denied = PySys_Audit(event->name, "zz", event->host ? event->host : text, event->service) < 0;
    back_in_call(call);
    return denied;
}

/* pysock_cleanup(): no more calls into the interpreter, which may be finalizing. */
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

/* The end of Py_Finalize(): ends threads that still wait, before another interpreter begins. */
static void at_finalize(void)
{
    __atomic_add_fetch(&lives, 1, __ATOMIC_RELEASE);
    pysock_cleanup();
}

/* The main interpreter's. It is never freed, as the library's threads may check until at_finalize()
   whether it takes callbacks. */
static binding main_binding;

/* ---- callbacks ----
   Python's code may take long, and its thread may end or hang in the middle of it when the
   interpreter finalizes. The library's own threads, which pysock_cleanup() joins, must not: so they
   have another thread run the callback, wait for it, and abandon it when the interpreter ends. */

#define PATIENCE 50000000 /* ns that a callback has when the interpreter ends */

enum { ERRAND_RUNS, ERRAND_DONE, ERRAND_LEFT };

typedef struct errand {
    struct errand *next;
    binding *b;
    int (*fn)(void *arg);
    int answer;
    int state;
    int users; /* the waiting and the running thread; the last one frees it */
    _Alignas(max_align_t) char arg[];
} errand;

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    errand *first; /* those with a waiting thread; guarded by lock, as are their states */
} errands = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL};

static pthread_once_t errands_once = PTHREAD_ONCE_INIT;

static int has_errand(const binding *b)
{
    const errand *e = errands.first;

    while (e && e->b != b)
        e = e->next;
    return e != NULL;
}

/* Ends the waits for b's callbacks. */
static void abandon_errands(const binding *b)
{
    errand *e;

    for (e = errands.first; e; e = e->next)
        if (e->b == b && e->state == ERRAND_RUNS)
            e->state = ERRAND_LEFT;
    pthread_cond_broadcast(&errands.changed);
}

static void forget_errand(const errand *e)
{
    errand **at = &errands.first;

    while (*at != e)
        at = &(*at)->next;
    *at = e->next;
}

static void drop_errand(errand *e)
{
    int users;

    pthread_mutex_lock(&errands.lock);
    users = --e->users;
    pthread_mutex_unlock(&errands.lock);
    if (!users)
        free(e);
}

static void before_fork(void)
{
    pthread_mutex_lock(&errands.lock);
}

static void after_fork(void)
{
    pthread_mutex_unlock(&errands.lock);
}

/* No waiting thread is left, and the thread that forks is Python's main thread. */
static void after_fork_in_child(void)
{
    errand *e;

    note_main_thread();
    pthread_mutex_init(&errands.lock, NULL);
    pthread_cond_init(&errands.changed, NULL);
    for (e = errands.first; e; e = e->next)
        e->users--;
    errands.first = NULL;
}

static void install_errands(void)
{
    pthread_atfork(before_fork, after_fork, after_fork_in_child);
}

static void *errand_main(void *arg)
{
    errand *e = arg;
    PyThreadState *thread = PyThreadState_New(e->b->interpreter);

    if (thread) {
        PyEval_RestoreThread(thread);
        e->answer = e->fn(e->arg);
        PyThreadState_Clear(thread);
        PyThreadState_DeleteCurrent();
    }
    pthread_mutex_lock(&errands.lock);
    if (e->state == ERRAND_RUNS)
        e->state = ERRAND_DONE;
    pthread_cond_broadcast(&errands.changed);
    pthread_mutex_unlock(&errands.lock);
    drop_errand(e);
    return NULL;
}

/* Starts the thread, with all signals blocked: they are for the program's threads. */
static int start_errand(errand *e)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    pthread_t id;
    int r;

    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&id, &attributes, errand_main, e);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return r;
}

/* Starts it, unless the interpreter is ending. */
static int send_errand(errand *e)
{
    int r = -1;

    pthread_mutex_lock(&errands.lock);
    if (!e->b->closed && start_errand(e) == 0) {
        e->next = errands.first;
        errands.first = e;
        e->users++;
        r = 0;
    }
    pthread_mutex_unlock(&errands.lock);
    return r;
}

/* Waits; 1 if it is done. */
static int await_errand(errand *e)
{
    int done;

    pthread_mutex_lock(&errands.lock);
    while (e->state == ERRAND_RUNS)
        pthread_cond_wait(&errands.changed, &errands.lock);
    done = e->state == ERRAND_DONE;
    forget_errand(e);
    pthread_cond_broadcast(&errands.changed);
    pthread_mutex_unlock(&errands.lock);
    return done;
}

int binding_call_back(binding *b, int (*fn)(void *arg), void *arg, size_t size, int refused)
{
    PyThreadState *held = NULL;
    binding_call *call;
    errand *e;
    int answer = refused;

    if (running && running->b == b) {
        call = into_python();
        answer = fn(arg);
        back_in_call(call);
        return answer;
    }
    e = calloc(1, sizeof *e + size);
    if (!e)
        return refused;
    e->b = b;
    e->fn = fn;
    e->answer = refused;
    e->users = 1;
    memcpy(e->arg, arg, size);
    if (!running && PyGILState_GetThisThreadState()) /* in a call that keeps the lock */
        held = PyEval_SaveThread();
    if (send_errand(e) == 0 && await_errand(e)) {
        answer = e->answer;
        memcpy(arg, e->arg, size);
    }
    if (held)
        PyEval_RestoreThread(held);
    drop_errand(e);
    return answer;
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
    Py_CLEAR(b->gaierror);
    Py_CLEAR(b->herror);
    if (b != &main_binding)
        PyMem_Free(b);
}

static PyObject *binding_new(void)
{
    int is_main = PyInterpreterState_Get() == PyInterpreterState_Main();
    binding *b = is_main ? &main_binding : PyMem_Malloc(sizeof *b);
    PyObject *capsule;

    if (!b)
        return PyErr_NoMemory();
    pthread_once(&errands_once, install_errands);
    memset(b, 0, sizeof *b);
    b->interpreter = PyInterpreterState_Get();
    b->state = is_main ? NULL : pysock_state_new();
    capsule = is_main || b->state ? PyCapsule_New(b, CAPSULE, binding_free) : PyErr_NoMemory();
    if (!capsule) {
        pysock_state_free(b->state);
        if (!is_main)
            PyMem_Free(b);
        return NULL;
    }
    if (is_main) {
        Py_AtExit(at_finalize); /* if there is no slot for it, exit() does the same */
        pysock_state_swap(NULL);
        pysock_setdefaulttimeout(PYSOCK_NO_TIMEOUT); /* not that of the one before */
    }
    return capsule;
}

/* The interpreter's atexit: no more callbacks on the library's threads, once those that run are
   done, or have had some time. A sub-interpreter cannot end while it has a thread, so there the
   call waits for them as for threads. */
static PyObject *close_callbacks(PyObject *capsule, PyObject *unused)
{
    binding *b = PyCapsule_GetPointer(capsule, CAPSULE);
    struct timespec until;
    int r = 0;

    (void)unused;
    if (!b)
        return NULL;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += PATIENCE;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    Py_BEGIN_ALLOW_THREADS pthread_mutex_lock(&errands.lock);
    b->closed = 1;
    while (has_errand(b) && r == 0)
        r = b->state ? pthread_cond_wait(&errands.changed, &errands.lock)
                     : pthread_cond_timedwait(&errands.changed, &errands.lock, &until);
    abandon_errands(b);
    pthread_mutex_unlock(&errands.lock);
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

static PyMethodDef close_callbacks_method = {"close_callbacks", close_callbacks, METH_NOARGS, NULL};

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
    if (_PyOS_IsMainThread())
        note_main_thread();
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

void binding_enter(binding *b)
{
    pysock_state_swap(b->state); /* a thread may work for one interpreter and then for another */
}

void binding_begin(binding *b, binding_call *c)
{
    binding_enter(b);
    if (!b->attached)
        attach(b);
    c->b = b;
    c->life = __atomic_load_n(&lives, __ATOMIC_RELAXED);
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
    take_lock(c);
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

static PyObject *raise_gai(binding *b, int code)
{
    return raise_pair(b->gaierror ? b->gaierror : PyExc_OSError, code, gai_strerror(code));
}

PyObject *binding_raise(binding *b)
{
    int code = pysock_error_code();

    if (PyErr_Occurred())
        return NULL;
    switch (pysock_error()) {
    case PYSOCK_TIMEOUT_ERROR: PyErr_SetString(PyExc_TimeoutError, "timed out"); return NULL;
    case PYSOCK_GAI_ERROR: return raise_gai(b, code);
    case PYSOCK_H_ERROR:
        return raise_pair(b->herror ? b->herror : PyExc_OSError, code, hstrerror(code));
    case PYSOCK_VALUE_ERROR: PyErr_SetString(PyExc_ValueError, pysock_error_message()); return NULL;
    case PYSOCK_MEMORY_ERROR: return PyErr_NoMemory();
    case PYSOCK_KEY_ERROR: PyErr_SetString(PyExc_KeyError, pysock_error_message()); return NULL;
    case PYSOCK_NO_ERROR:
    case PYSOCK_OS_ERROR: return binding_raise_errno(code);
    default:
        if (b->raise_ssl)
            return b->raise_ssl(b);
        return raise_pair(PyExc_OSError, EPROTO, pysock_error_message());
    }
}

PyObject *binding_raise_lookup(binding *b)
{
    int refused = pysock_error() == PYSOCK_VALUE_ERROR;

#ifdef EAI_IDN_ENCODE
    refused |= pysock_error() == PYSOCK_GAI_ERROR && pysock_error_code() == EAI_IDN_ENCODE;
#endif
    return refused && !PyErr_Occurred() ? raise_gai(b, EAI_NONAME) : binding_raise(b);
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
                 min == max ? "exactly "
                 : n < min  ? "at least "
                            : "at most ",
                 n < min ? min : max, (n < min ? min : max) == 1 ? "" : "s", n);
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
