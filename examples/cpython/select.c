/* select: Python's select(), poll and epoll objects on pysock's, so that they report TLS sockets
   correctly. */
#include "binding.h"

#include <limits.h>
#include <math.h>
#ifdef __linux__
#include <sys/epoll.h>
#include <unistd.h>
#endif

typedef struct select_state {
    binding *b;
    PyObject *keep; /* owns b */
    PyTypeObject *poll_type, *epoll_type;
} select_state;

static struct PyModuleDef module_def;

/* Seconds from a timeout in units of that many seconds; None or a negative number waits without
   limit. Rounded up to whole milliseconds, as the kernel's timeouts are. */
static int wait_from_object(PyObject *o, double unit, double *seconds)
{
    double n;

    *seconds = PYSOCK_NO_TIMEOUT;
    if (!o || o == Py_None)
        return 0;
    if (!PyFloat_Check(o) && !PyIndex_Check(o)) {
        PyErr_SetString(PyExc_TypeError, "timeout must be a number or None");
        return -1;
    }
    n = PyFloat_AsDouble(o);
    if (n == -1.0 && PyErr_Occurred())
        return -1;
    if (isnan(n)) {
        PyErr_SetString(PyExc_ValueError, "the timeout is NaN (not a number)");
        return -1;
    }
    if (fabs(n * unit * 1000) > INT_MAX) {
        PyErr_SetString(PyExc_OverflowError, "timeout is too large");
        return -1;
    }
    if (n >= 0)
        *seconds = ceil(n * unit * 1000) / 1000;
    return 0;
}

/* ---- select ---- */

typedef struct fd_list {
    PyObject **objects; /* counted */
    int *all, *ready;
    size_t count, ready_count;
} fd_list;

static void free_list(fd_list *list)
{
    while (list->count)
        Py_DECREF(list->objects[--list->count]);
    PyMem_Free(list->objects);
    PyMem_Free(list->all);
    PyMem_Free(list->ready);
}

/* fileno() may change the sequence while it is read. */
static int get_list(PyObject *o, fd_list *list)
{
    PyObject *items = PySequence_Fast(o, "arguments 1-3 must be sequences");
    Py_ssize_t i, room = 0;

    if (!items)
        return -1;
    room = PySequence_Fast_GET_SIZE(items) + 1;
    list->objects = PyMem_New(PyObject *, (size_t)room);
    list->all = PyMem_New(int, (size_t)room);
    list->ready = PyMem_New(int, (size_t)room);
    if (!list->objects || !list->all || !list->ready)
        PyErr_NoMemory();
    for (i = 0; !PyErr_Occurred() && i < room && i < PySequence_Fast_GET_SIZE(items); i++) {
        PyObject *item = Py_NewRef(PySequence_Fast_GET_ITEM(items, i));
        int fd = PyObject_AsFileDescriptor(item);
        list->objects[list->count] = item;
        list->all[list->count] = list->ready[list->count] = fd;
        list->count++;
        if (fd < 0)
            break;
    }
    Py_DECREF(items);
    list->ready_count = list->count;
    return PyErr_Occurred() ? -1 : 0;
}

/* The objects whose descriptors are still in the list, in their order. */
static PyObject *ready_objects(const fd_list *list)
{
    PyObject *result = PyList_New((Py_ssize_t)list->ready_count);
    size_t i, k = 0;

    for (i = 0; result && i < list->count && k < list->ready_count; i++) {
        if (list->all[i] != list->ready[k])
            continue;
        PyList_SET_ITEM(result, (Py_ssize_t)k, Py_NewRef(list->objects[i]));
        k++;
    }
    return result;
}

static PyObject *select_select(PyObject *m, PyObject *args)
{
    select_state *state = PyModule_GetState(m);
    PyObject *r, *w, *x, *timeout = Py_None, *result = NULL;
    fd_list lists[3] = {{0}, {0}, {0}};
    binding_call call;
    double seconds;
    ptrdiff_t n;
    int i;

    if (!PyArg_UnpackTuple(args, "select", 3, 4, &r, &w, &x, &timeout)
        || binding_timeout(timeout, &seconds) < 0)
        return NULL;
    if (get_list(r, &lists[0]) == 0 && get_list(w, &lists[1]) == 0 && get_list(x, &lists[2]) == 0) {
        binding_begin(state->b, &call);
        n = pysock_select(lists[0].ready, &lists[0].ready_count, lists[1].ready,
                          &lists[1].ready_count, lists[2].ready, &lists[2].ready_count, seconds);
        binding_end(&call);
        result = n < 0 ? binding_raise(state->b)
                       : Py_BuildValue("NNN", ready_objects(&lists[0]), ready_objects(&lists[1]),
                                       ready_objects(&lists[2]));
    }
    for (i = 0; i < 3; i++)
        free_list(&lists[i]);
    return result;
}

/* ---- poll objects ---- */

typedef struct poll_object {
    PyObject_HEAD binding *b;
    PyObject *masks; /* descriptor to events, in the order of registration */
    struct pollfd *fds;
    size_t count;
    int changed; /* fds differs from masks */
    int polling;
} poll_object;

#define POLL(o) ((poll_object *)(o))

/* A mask of events: 16 bits, unsigned. */
static int mask_from_object(PyObject *o, unsigned short *mask)
{
    unsigned long n;
    int negative;

    if (!PyLong_Check(o)) {
        PyErr_Format(PyExc_TypeError, "eventmask must be int, not %.200s", Py_TYPE(o)->tp_name);
        return -1;
    }
    negative = _PyLong_Sign(o) < 0;
    if (negative) {
        PyErr_SetString(PyExc_ValueError, "value must be positive");
        return -1;
    }
    n = PyLong_AsUnsignedLong(o);
    if (n == (unsigned long)-1 && PyErr_Occurred())
        return -1;
    if (n > USHRT_MAX) {
        PyErr_SetString(PyExc_OverflowError, "Python int too large for C unsigned short");
        return -1;
    }
    *mask = (unsigned short)n;
    return 0;
}

static PyObject *poll_set(PyObject *o, int fd, unsigned short mask)
{
    PyObject *key = PyLong_FromLong(fd), *value = PyLong_FromLong(mask);
    int r = key && value ? PyDict_SetItem(POLL(o)->masks, key, value) : -1;

    Py_XDECREF(key);
    Py_XDECREF(value);
    POLL(o)->changed = 1;
    return r < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *poll_register(PyObject *o, PyObject *const *args, Py_ssize_t n)
{
    unsigned short mask = POLLIN | POLLPRI | POLLOUT;
    int fd;

    if (binding_args("register", n, 1, 2) < 0)
        return NULL;
    fd = PyObject_AsFileDescriptor(args[0]);
    if (fd < 0 || (n == 2 && mask_from_object(args[1], &mask) < 0))
        return NULL;
    return poll_set(o, fd, mask);
}

static PyObject *poll_modify(PyObject *o, PyObject *const *args, Py_ssize_t n)
{
    unsigned short mask;
    PyObject *key;
    int fd, known;

    if (binding_args("modify", n, 2, 2) < 0)
        return NULL;
    fd = PyObject_AsFileDescriptor(args[0]);
    if (fd < 0 || mask_from_object(args[1], &mask) < 0 || !(key = PyLong_FromLong(fd)))
        return NULL;
    known = PyDict_Contains(POLL(o)->masks, key);
    Py_DECREF(key);
    if (known < 0)
        return NULL;
    return known ? poll_set(o, fd, mask) : binding_raise_errno(ENOENT);
}

static PyObject *poll_unregister(PyObject *o, PyObject *arg)
{
    int fd = PyObject_AsFileDescriptor(arg), r;
    PyObject *key = fd < 0 ? NULL : PyLong_FromLong(fd);

    if (!key)
        return NULL;
    r = PyDict_DelItem(POLL(o)->masks, key); /* KeyError */
    Py_DECREF(key);
    POLL(o)->changed = 1;
    return r < 0 ? NULL : Py_NewRef(Py_None);
}

/* Copies the dictionary into the array. */
static int poll_refresh(poll_object *self)
{
    Py_ssize_t at = 0;
    PyObject *key, *value;
    struct pollfd *fds;
    size_t count = (size_t)PyDict_GET_SIZE(self->masks), i = 0;

    if (!self->changed)
        return 0;
    fds = PyMem_Realloc(self->fds, (count + 1) * sizeof *fds);
    if (!fds) {
        PyErr_NoMemory();
        return -1;
    }
    self->fds = fds;
    while (i < count && PyDict_Next(self->masks, &at, &key, &value)) {
        fds[i].fd = (int)PyLong_AsLong(key);
        fds[i++].events = (short)PyLong_AsLong(value);
    }
    self->count = i;
    self->changed = 0;
    return 0;
}

/* (fd, events) */
static PyObject *event_pair(int fd, short events)
{
    PyObject *pair = PyTuple_New(2), *number = PyLong_FromLong(fd);
    PyObject *mask = PyLong_FromLong(events & 0xffff);

    if (!pair || !number || !mask) {
        Py_XDECREF(pair);
        Py_XDECREF(number);
        Py_XDECREF(mask);
        return NULL;
    }
    PyTuple_SET_ITEM(pair, 0, number);
    PyTuple_SET_ITEM(pair, 1, mask);
    return pair;
}

static PyObject *event_list(const struct pollfd *fds, size_t count, ptrdiff_t ready)
{
    PyObject *list = PyList_New(ready);
    ptrdiff_t k = 0;
    size_t i;

    for (i = 0; list && i < count && k < ready; i++) {
        PyObject *pair;
        if (!fds[i].revents)
            continue;
        pair = event_pair(fds[i].fd, fds[i].revents);
        if (pair)
            PyList_SET_ITEM(list, k++, pair);
        else
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *poll_poll(PyObject *o, PyObject *const *args, Py_ssize_t n)
{
    poll_object *self = POLL(o);
    binding_call call;
    PyObject *result;
    double seconds;
    ptrdiff_t ready;

    if (binding_args("poll", n, 0, 1) < 0
        || wait_from_object(n ? args[0] : NULL, 0.001, &seconds) < 0)
        return NULL;
    if (self->polling) { /* it would free the array that the other one uses */
        PyErr_SetString(PyExc_RuntimeError, "concurrent poll() invocation");
        return NULL;
    }
    if (poll_refresh(self) < 0)
        return NULL;
    self->polling = 1;
    binding_begin(self->b, &call);
    ready = pysock_poll(self->fds, self->count, seconds);
    binding_end(&call);
    /* Making the list may collect garbage, and so run anything. */
    result = ready < 0 ? binding_raise(self->b) : event_list(self->fds, self->count, ready);
    self->polling = 0;
    return result;
}

static void poll_dealloc(PyObject *o)
{
    PyTypeObject *type = Py_TYPE(o);

    Py_XDECREF(POLL(o)->masks);
    PyMem_Free(POLL(o)->fds);
    PyObject_Free(o);
    Py_DECREF(type);
}

static PyObject *select_poll(PyObject *m, PyObject *unused)
{
    select_state *state = PyModule_GetState(m);
    poll_object *self = PyObject_New(poll_object, state->poll_type);

    (void)unused;
    if (!self)
        return NULL;
    self->b = state->b;
    self->fds = NULL;
    self->count = 0;
    self->changed = 1;
    self->polling = 0;
    self->masks = PyDict_New();
    if (!self->masks) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

/* clang-format off */
#define METHOD(name, function, flags, doc)                                                         \
    {name, (PyCFunction)(void (*)(void))function, flags, PyDoc_STR(doc)}
/* clang-format on */

static PyMethodDef poll_methods[] = {
    METHOD("modify", poll_modify, METH_FASTCALL,
           "modify($self, fd, eventmask, /)\n--\n\nChanges the events of a registered "
           "descriptor."),
    METHOD("poll", poll_poll, METH_FASTCALL,
           "poll($self, timeout=None, /)\n--\n\nWaits, for at most so many milliseconds, until a "
           "descriptor has an event or an error, and returns a list of (fd, event). None or a "
           "negative timeout waits as long as it takes."),
    METHOD("register", poll_register, METH_FASTCALL,
           "register($self, fd, eventmask=select.POLLIN | select.POLLPRI | select.POLLOUT, /)\n"
           "--\n\nRegisters a descriptor, or an object with a fileno() method."),
    METHOD("unregister", poll_unregister, METH_O,
           "unregister($self, fd, /)\n--\n\nForgets a registered descriptor."),
    {NULL, NULL, 0, NULL},
};

static PyType_Slot poll_slots[] = {
    {Py_tp_dealloc, poll_dealloc},
    {Py_tp_methods, poll_methods},
    {0, NULL},
};

static PyType_Spec poll_spec = {
    .name = "select.poll",
    .basicsize = sizeof(poll_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = poll_slots,
};

/* ---- epoll objects ---- */

#ifdef __linux__

typedef struct epoll_object {
    PyObject_HEAD binding *b;
    pysock_poller *p;     /* NULL: closed */
    pysock_poller *ended; /* closed, to be freed by the last call under way */
    int users;            /* how many of those there are */
    int duplicate;        /* of the poller's descriptor, which is this object's; or -1 */
} epoll_object;

#define EPOLL(o) ((epoll_object *)(o))

static pysock_poller *epoll_open(PyObject *o)
{
    if (!EPOLL(o)->p)
        PyErr_SetString(PyExc_ValueError, "I/O operation on closed epoll object");
    return EPOLL(o)->p;
}

static PyObject *epoll_around(PyTypeObject *type, binding *b, pysock_poller *p, int duplicate)
{
    epoll_object *self = (epoll_object *)type->tp_alloc(type, 0);

    if (!self) {
        pysock_poller_release(p);
        return NULL;
    }
    self->b = b;
    self->p = p;
    self->duplicate = duplicate;
    return (PyObject *)self;
}

static binding *binding_of_type(PyTypeObject *type)
{
    PyObject *m = PyType_GetModule(type);

    return m ? ((select_state *)PyModule_GetState(m))->b : NULL;
}

static PyObject *epoll_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"sizehint", "flags", NULL};
    binding *b = binding_of_type(type);
    int size = -1, flags = 0;
    binding_call call;
    pysock_poller *p;

    if (!b || !PyArg_ParseTupleAndKeywords(args, kwargs, "|ii:epoll", names, &size, &flags))
        return NULL;
    if (size != -1 && size <= 0) {
        PyErr_SetString(PyExc_ValueError, "negative sizehint");
        return NULL;
    }
    if (flags & ~EPOLL_CLOEXEC)
        return binding_raise_errno(EINVAL);
    binding_begin(b, &call);
    p = pysock_poller_new_epoll();
    binding_end(&call);
    return p ? epoll_around(type, b, p, -1) : binding_raise(b);
}

static PyObject *epoll_fromfd(PyObject *type, PyObject *arg)
{
    binding *b = binding_of_type((PyTypeObject *)type);
    pysock_poller *p;
    int fd;

    if (!b || binding_int(arg, &fd) < 0)
        return NULL;
    binding_enter(b);
    p = pysock_poller_from_fileno(fd);
    if (!p)
        return binding_raise(b);
    return epoll_around((PyTypeObject *)type, b, p, pysock_poller_fileno(p) == fd ? -1 : fd);
}

/* A call that used the poller without the interpreter's lock is over. The last one frees it. */
static void epoll_leave(epoll_object *self)
{
    pysock_poller *p = self->ended;
    binding_call call;

    if (--self->users || !p)
        return;
    self->ended = NULL;
    binding_begin(self->b, &call);
    pysock_poller_release(p);
    binding_end(&call);
}

/* Polls under way in other threads fail with EBADF; but an object with a duplicate of the poller's
   descriptor closes only that. */
static void epoll_end(epoll_object *self)
{
    binding_call call;

    if (!self->p)
        return;
    self->ended = self->p;
    self->p = NULL;
    self->users++;
    binding_begin(self->b, &call);
    if (self->duplicate < 0)
        pysock_poller_close(self->ended);
    else
        close(self->duplicate);
    binding_end(&call);
    epoll_leave(self);
}

static PyObject *epoll_close(PyObject *o, PyObject *unused)
{
    (void)unused;
    epoll_end(EPOLL(o));
    Py_RETURN_NONE;
}

static void epoll_dealloc(PyObject *o)
{
    PyTypeObject *type = Py_TYPE(o);

    epoll_end(EPOLL(o));
    type->tp_free(o);
    Py_DECREF(type);
}

static PyObject *epoll_fileno(PyObject *o, PyObject *unused)
{
    int fd;

    (void)unused;
    if (!epoll_open(o))
        return NULL;
    fd = pysock_poller_fileno(EPOLL(o)->p);
    if (fd >= 0 && EPOLL(o)->duplicate >= 0)
        fd = EPOLL(o)->duplicate;
    return fd < 0 ? binding_raise(EPOLL(o)->b) : PyLong_FromLong(fd);
}

static PyObject *epoll_closed(PyObject *o, void *unused)
{
    (void)unused;
    return PyBool_FromLong(!EPOLL(o)->p);
}

static PyObject *epoll_enter(PyObject *o, PyObject *unused)
{
    (void)unused;
    return epoll_open(o) ? Py_NewRef(o) : NULL;
}

static PyObject *epoll_exit(PyObject *o, PyObject *args)
{
    (void)args;
    return PyObject_CallMethod(o, "close", NULL);
}

/* Stores positional and keyword arguments in values; the first min are required. */
static int take_args(const char *function, const char *const *names, int min, int max,
                     PyObject *const *args, Py_ssize_t n, PyObject *kwnames, PyObject **values)
{
    Py_ssize_t i, given = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
    int k;

    if (n > max)
        return binding_args(function, n, min, max);
    for (k = 0; k < max; k++)
        values[k] = k < n ? args[k] : NULL;
    for (i = 0; i < given; i++) {
        PyObject *key = PyTuple_GET_ITEM(kwnames, i);
        for (k = 0; k < max && PyUnicode_CompareWithASCIIString(key, names[k]); k++)
            ;
        if (k == max || values[k]) {
            PyErr_Format(PyExc_TypeError, "%s(): unexpected keyword argument %R", function, key);
            return -1;
        }
        values[k] = args[n + i];
    }
    for (k = 0; k < min; k++)
        if (!values[k])
            return binding_args(function, n, min, max);
    return 0;
}

/* (fd, eventmask), the latter with a default if optional. The calls that take them do not wait, and
   keep the interpreter's lock: releasing it would cost more. */
static int epoll_args(PyObject *o, const char *function, int min, int max, PyObject *const *args,
                      Py_ssize_t n, PyObject *kwnames, int *fd, unsigned int *mask)
{
    static const char *const names[] = {"fd", "eventmask"};
    PyObject *values[2] = {NULL, NULL};

    if (take_args(function, names, min, max, args, n, kwnames, values) < 0 || !epoll_open(o))
        return -1;
    if (values[1]) {
        *mask = (unsigned int)PyLong_AsUnsignedLongMask(values[1]);
        if (PyErr_Occurred())
            return -1;
    }
    *fd = PyObject_AsFileDescriptor(values[0]);
    return *fd < 0 || !epoll_open(o) ? -1 : 0; /* fileno() may have closed it */
}

static PyObject *epoll_result(PyObject *o, int r)
{
    return r < 0 ? binding_raise(EPOLL(o)->b) : Py_NewRef(Py_None);
}

static PyObject *epoll_register(PyObject *o, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    unsigned int mask = EPOLLIN | EPOLLPRI | EPOLLOUT;
    int fd;

    if (epoll_args(o, "register", 1, 2, args, n, kwnames, &fd, &mask) < 0)
        return NULL;
    return epoll_result(o, pysock_poller_register(EPOLL(o)->p, fd, (int)mask, NULL));
}

static PyObject *epoll_modify(PyObject *o, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    unsigned int mask;
    int fd;

    if (epoll_args(o, "modify", 2, 2, args, n, kwnames, &fd, &mask) < 0)
        return NULL;
    return epoll_result(o, pysock_poller_modify(EPOLL(o)->p, fd, (int)mask));
}

static PyObject *epoll_unregister(PyObject *o, PyObject *const *args, Py_ssize_t n,
                                  PyObject *kwnames)
{
    int fd;

    if (epoll_args(o, "unregister", 1, 1, args, n, kwnames, &fd, NULL) < 0)
        return NULL;
    return epoll_result(o, pysock_poller_unregister(EPOLL(o)->p, fd));
}

static PyObject *pollevent_list(const pysock_pollevent *events, ptrdiff_t count)
{
    PyObject *list = PyList_New(count);
    ptrdiff_t i;

    for (i = 0; list && i < count; i++) {
        PyObject *pair = event_pair(events[i].fd, events[i].events);
        if (pair)
            PyList_SET_ITEM(list, i, pair);
        else
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *epoll_wait_list(epoll_object *self, pysock_pollevent *events, size_t max,
                                 double seconds)
{
    pysock_poller *p = self->p;
    binding_call call;
    PyObject *result;
    ptrdiff_t n;

    self->users++;
    binding_begin(self->b, &call);
    n = pysock_poller_poll(p, events, max, seconds);
    binding_end(&call);
    result = n < 0 ? binding_raise(self->b) : pollevent_list(events, n);
    epoll_leave(self);
    return result;
}

static PyObject *epoll_poll(PyObject *o, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    static const char *const names[] = {"timeout", "maxevents"};
    pysock_pollevent few[64], *many = NULL;
    PyObject *values[2], *result;
    int max = -1;
    double seconds;

    if (take_args("poll", names, 0, 2, args, n, kwnames, values) < 0 || !epoll_open(o)
        || (values[1] && binding_int(values[1], &max) < 0)
        || wait_from_object(values[0], 1, &seconds) < 0)
        return NULL;
    if (max == -1)
        max = FD_SETSIZE - 1;
    if (max < 1) {
        PyErr_Format(PyExc_ValueError, "maxevents must be greater than 0, got %d", max);
        return NULL;
    }
    if (max > (int)(sizeof few / sizeof *few) && !(many = PyMem_New(pysock_pollevent, (size_t)max)))
        return PyErr_NoMemory();
    result = epoll_wait_list(EPOLL(o), many ? many : few, (size_t)max, seconds);
    PyMem_Free(many);
    return result;
}

static PyMethodDef epoll_methods[] = {
    METHOD("__enter__", epoll_enter, METH_NOARGS, "__enter__($self, /)\n--\n\n"),
    METHOD("__exit__", epoll_exit, METH_VARARGS,
           "__exit__($self, exc_type=None, exc_value=None, exc_tb=None, /)\n--\n\n"),
    METHOD("close", epoll_close, METH_NOARGS,
           "close($self, /)\n--\n\nCloses the epoll object; what uses it then raises ValueError."),
    METHOD("fileno", epoll_fileno, METH_NOARGS,
           "fileno($self, /)\n--\n\nA descriptor that is readable when poll() may have "
           "something to tell."),
    METHOD("fromfd", epoll_fromfd, METH_O | METH_CLASS,
           "fromfd($type, fd, /)\n--\n\nA second epoll object around another one's descriptor."),
    METHOD("modify", epoll_modify, METH_FASTCALL | METH_KEYWORDS,
           "modify($self, /, fd, eventmask)\n--\n\nChanges the events of a registered "
           "descriptor."),
    METHOD("poll", epoll_poll, METH_FASTCALL | METH_KEYWORDS,
           "poll($self, /, timeout=None, maxevents=-1)\n--\n\nWaits, for at most so many seconds, "
           "until a descriptor has an event, and returns a list of (fd, events), no longer than "
           "maxevents. None or a negative timeout waits as long as it takes."),
    METHOD("register", epoll_register, METH_FASTCALL | METH_KEYWORDS,
           "register($self, /, fd,\n         eventmask=select.EPOLLIN | select.EPOLLPRI | "
           "select.EPOLLOUT)\n--\n\nRegisters a descriptor, or an object with a fileno() method; "
           "OSError if it is registered already."),
    METHOD("unregister", epoll_unregister, METH_FASTCALL | METH_KEYWORDS,
           "unregister($self, /, fd)\n--\n\nForgets a registered descriptor."),
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef epoll_getset[] = {
    {"closed", epoll_closed, NULL, "True if the epoll handler is closed", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(epoll_doc, "select.epoll(sizehint=-1, flags=0)\n\nWatches descriptors, of which "
                        "there may be many. sizehint and flags are for older programs.");

static PyType_Slot epoll_slots[] = {
    {Py_tp_new, epoll_new},
    {Py_tp_dealloc, epoll_dealloc},
    {Py_tp_getattro, PyObject_GenericGetAttr},
    {Py_tp_methods, epoll_methods},
    {Py_tp_getset, epoll_getset},
    {Py_tp_doc, (void *)epoll_doc},
    {0, NULL},
};

static PyType_Spec epoll_spec = {
    .name = "select.epoll",
    .basicsize = sizeof(epoll_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = epoll_slots,
};

#endif

/* ---- the module ---- */

static PyMethodDef module_methods[] = {
    METHOD("select", select_select, METH_VARARGS,
           "select($module, rlist, wlist, xlist, timeout=None, /)\n--\n\nWaits, for at most so "
           "many seconds, until something of rlist can be read, of wlist be written, or of xlist "
           "has an exceptional condition, and returns the three lists of those that are ready. "
           "What is in the lists is a descriptor or has a fileno() method."),
    METHOD("poll", select_poll, METH_NOARGS,
           "poll($module, /)\n--\n\nA polling object: register() descriptors, then poll() them."),
    {NULL, NULL, 0, NULL},
};

static const binding_constant constants[] = {
#include "select.inc"
    {"PIPE_BUF", PIPE_BUF},
    {NULL, 0},
};

static int module_exec(PyObject *m)
{
    select_state *state = PyModule_GetState(m);

    state->b = binding_get(&state->keep);
    if (!state->b)
        return -1;
    state->poll_type = (PyTypeObject *)PyType_FromModuleAndSpec(m, &poll_spec, NULL);
    if (!state->poll_type || PyModule_AddObjectRef(m, "error", PyExc_OSError) < 0)
        return -1;
#ifdef __linux__
    state->epoll_type = (PyTypeObject *)PyType_FromModuleAndSpec(m, &epoll_spec, NULL);
    if (!state->epoll_type || PyModule_AddObjectRef(m, "epoll", (PyObject *)state->epoll_type) < 0)
        return -1;
#endif
    return binding_add_constants(m, constants);
}

static int module_traverse(PyObject *m, visitproc visit, void *arg)
{
    select_state *state = PyModule_GetState(m);

    Py_VISIT(state->poll_type);
    Py_VISIT(state->epoll_type);
    return 0;
}

static int module_clear(PyObject *m)
{
    select_state *state = PyModule_GetState(m);

    Py_CLEAR(state->poll_type);
    Py_CLEAR(state->epoll_type);
    return 0;
}

static void module_free(void *m)
{
    select_state *state = PyModule_GetState(m);

    module_clear(m);
    state->b = NULL;
    Py_CLEAR(state->keep);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "select",
    .m_doc = "Waiting for many descriptors at once, with the truth about TLS sockets.",
    .m_size = sizeof(select_state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit_select(void)
{
    return PyModuleDef_Init(&module_def);
}
