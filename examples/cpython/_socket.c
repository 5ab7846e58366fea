/* _socket: Python's socket objects on pysock's. The functions about names are in names.c, address
   tuples in address.c. */
#include "address.h"
#include "names.h"

#include <fcntl.h>
#include <unistd.h>

#define SELF(o) ((binding_socket *)(o))

/* ---- making and ending ---- */

static PyObject *socket_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    binding_socket *self = SELF(type->tp_alloc(type, 0));
    PyObject *keep;

    (void)args, (void)kwargs;
    if (!self)
        return NULL;
    self->s = BINDING_CLOSED;
    self->fd = -1;
    self->timeout = PYSOCK_NO_TIMEOUT;
    self->b = binding_get(&keep);
    if (!self->b) {
        Py_DECREF(self);
        return NULL;
    }
    Py_DECREF(keep); /* the type keeps the module, which has its own */
    return (PyObject *)self;
}

/* Takes over a new socket of the library's, with its family, type and protocol. */
static void socket_take(binding_socket *self, pysock *s)
{
    self->s = s;
    self->fd = pysock_fileno(s);
    self->family = pysock_family(s);
    self->type = pysock_type(s);
    self->proto = pysock_proto(s);
    self->timeout = pysock_gettimeout(s);
    pysock_obey_nonblock(s, 1);
}

static int descriptor_from_object(PyObject *o, int *fd)
{
    if (binding_int(o, fd) < 0)
        return -1;
    if (*fd >= 0)
        return 0;
    PyErr_SetString(PyExc_ValueError, "negative file descriptor");
    return -1;
}

static int socket_init(PyObject *o, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"family", "type", "proto", "fileno", NULL};
    binding_socket *self = SELF(o);
    int family = -1, type = -1, proto = -1, fd = -1;
    PyObject *fileno = NULL;
    binding_call call;
    pysock *s;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|iiiO:socket", names, &family, &type, &proto,
                                     &fileno))
        return -1;
    if (fileno && fileno != Py_None && descriptor_from_object(fileno, &fd) < 0)
        return -1;
    if (fd < 0) {
        family = family == -1 ? AF_INET : family;
        type = type == -1 ? SOCK_STREAM : type;
        proto = proto == -1 ? 0 : proto;
    }
    if (binding_begin_audited(self->b, &call, "socket.__new__",
                              Py_BuildValue("Oiii", o, family, type, proto))
        < 0)
        return -1;
    if (self->fd >= 0)
        pysock_close(self->s); /* a second __init__() */
    s = fd < 0 ? pysock_socket(family, type, proto) : pysock_adopt(fd, family, type, proto);
    binding_end(&call);
    self->s = BINDING_CLOSED;
    self->fd = -1;
    if (!s) {
        binding_raise(self->b);
        return -1;
    }
    socket_take(self, s);
    return 0;
}

/* Closes. If another socket object has adopted the descriptor, that is closed too, as they share
   it. The descriptor may also have been closed elsewhere, which is EBADF. */
static int socket_end(binding_socket *self)
{
    pysock *s = self->s, *owner;
    binding_call call;
    int fd = self->fd, gone;

    if (fd < 0)
        return 0;
    self->fd = -1;
    binding_begin(self->b, &call);
    owner = pysock_from_fileno(fd);
    gone = !owner && fcntl(fd, F_GETFD) < 0;
    if (gone || (owner && owner != s))
        pysock_detach(s);
    pysock_close(owner ? owner : s);
    binding_end(&call);
    if (!gone)
        return 0;
    binding_raise_errno(EBADF);
    return -1;
}

static void socket_finalize(PyObject *o)
{
    binding_socket *self = SELF(o);
    PyObject *type, *value, *traceback;

    if (self->fd < 0)
        return;
    PyErr_Fetch(&type, &value, &traceback);
    if (PyErr_ResourceWarning(o, 1, "unclosed %R", o) < 0 && PyErr_ExceptionMatches(PyExc_Warning))
        PyErr_WriteUnraisable(o);
    PyErr_Clear();
    if (socket_end(self) < 0)
        PyErr_Clear();
    PyErr_Restore(type, value, traceback);
}

static int socket_traverse(PyObject *o, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(o));
    return 0;
}

static void socket_dealloc(PyObject *o)
{
    PyTypeObject *type = Py_TYPE(o);

    if (PyObject_CallFinalizerFromDealloc(o) < 0)
        return;
    PyObject_GC_UnTrack(o);
    type->tp_free(o);
    Py_DECREF(type);
}

static PyObject *socket_repr(PyObject *o)
{
    binding_socket *self = SELF(o);

    return PyUnicode_FromFormat("<socket object, fd=%d, family=%d, type=%d, proto=%d>", self->fd,
                                self->family, self->type, self->proto);
}

static PyObject *socket_close(PyObject *o, PyObject *unused)
{
    (void)unused;
    return socket_end(SELF(o)) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *socket_detach(PyObject *o, PyObject *unused)
{
    binding_socket *self = SELF(o);
    binding_call call;
    int fd = self->fd, r;

    (void)unused;
    if (fd < 0)
        return PyLong_FromLong(-1);
    binding_begin(self->b, &call);
    r = pysock_detach(self->s);
    binding_end(&call);
    if (r < 0 && pysock_error_code() != EBADF) /* EBADF: already closed */
        return binding_raise(self->b);
    self->fd = -1;
    return PyLong_FromLong(fd);
}

static PyObject *socket_fileno(PyObject *o, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLong(SELF(o)->fd);
}

/* ---- connections ---- */

/* Begins a call with an address, after sys.audit(). */
static int begin_with_address(binding_socket *self, PyObject *address, const char *event,
                              const char *caller, pysock_addr *addr, binding_call *call)
{
    if (address_from_object(self, address, addr, caller) < 0)
        return -1;
    return binding_begin_audited(self->b, call, event, PyTuple_Pack(2, self, address));
}

static PyObject *none_or_raise(binding_socket *self, int r)
{
    return r < 0 ? binding_raise(self->b) : Py_NewRef(Py_None);
}

static PyObject *socket_bind(PyObject *o, PyObject *address)
{
    binding_socket *self = SELF(o);
    binding_call call;
    pysock_addr addr;
    int r;

    if (begin_with_address(self, address, "socket.bind", "bind", &addr, &call) < 0)
        return NULL;
    r = pysock_bind_addr(self->s, &addr);
    binding_end(&call);
    return none_or_raise(self, r);
}

static PyObject *socket_connect(PyObject *o, PyObject *address)
{
    binding_socket *self = SELF(o);
    binding_call call;
    pysock_addr addr;
    int r;

    if (begin_with_address(self, address, "socket.connect", "connect", &addr, &call) < 0)
        return NULL;
    r = pysock_connect_addr(self->s, &addr);
    binding_end(&call);
    return none_or_raise(self, r);
}

static PyObject *socket_connect_ex(PyObject *o, PyObject *address)
{
    binding_socket *self = SELF(o);
    binding_call call;
    pysock_addr addr;
    int r;

    if (begin_with_address(self, address, "socket.connect", "connect_ex", &addr, &call) < 0)
        return NULL;
    r = pysock_connect_addr(self->s, &addr);
    binding_end(&call);
    if (r == 0)
        return PyLong_FromLong(0);
    if (!PyErr_Occurred() && pysock_error() == PYSOCK_TIMEOUT_ERROR)
        return PyLong_FromLong(EAGAIN);
    if (!PyErr_Occurred() && pysock_error() == PYSOCK_OS_ERROR)
        return PyLong_FromLong(pysock_error_code());
    return binding_raise(self->b);
}

static PyObject *socket_listen(PyObject *o, PyObject *const *args, Py_ssize_t n)
{
    binding_socket *self = SELF(o);
    int backlog = SOMAXCONN < 128 ? SOMAXCONN : 128, r;
    binding_call call;

    if (binding_args("listen", n, 0, 1) < 0 || (n && binding_int(args[0], &backlog) < 0))
        return NULL;
    binding_begin(self->b, &call);
    r = pysock_listen(self->s, backlog < 0 ? 0 : backlog);
    binding_end(&call);
    return none_or_raise(self, r);
}

static PyObject *socket_accept(PyObject *o, PyObject *unused)
{
    binding_socket *self = SELF(o);
    binding_call call;
    pysock_addr peer;
    PyObject *address, *result;
    int fd;

    (void)unused;
    binding_begin(self->b, &call);
    fd = pysock_accept_fd(self->s, &peer);
    binding_end(&call);
    if (fd < 0)
        return binding_raise(self->b);
    address = address_to_object(&peer, self->proto);
    result = address ? Py_BuildValue("iN", fd, address) : NULL;
    if (!result)
        close(fd);
    return result;
}

static PyObject *socket_shutdown(PyObject *o, PyObject *arg)
{
    binding_socket *self = SELF(o);
    binding_call call;
    int how, r;

    if (binding_int(arg, &how) < 0)
        return NULL;
    binding_begin(self->b, &call);
    r = pysock_shutdown(self->s, how);
    binding_end(&call);
    if (r < 0 && pysock_error() == PYSOCK_VALUE_ERROR)
        return binding_raise_errno(EINVAL);
    return none_or_raise(self, r);
}

static PyObject *name_of(binding_socket *self, int (*get)(pysock *, pysock_addr *))
{
    binding_call call;
    pysock_addr addr;
    int r;

    binding_begin(self->b, &call);
    r = get(self->s, &addr);
    binding_end(&call);
    return r < 0 ? binding_raise(self->b) : address_to_object(&addr, self->proto);
}

static PyObject *socket_getsockname(PyObject *o, PyObject *unused)
{
    (void)unused;
    return name_of(SELF(o), pysock_getsockname);
}

static PyObject *socket_getpeername(PyObject *o, PyObject *unused)
{
    (void)unused;
    return name_of(SELF(o), pysock_getpeername);
}

/* ---- timeouts and options ---- */

static PyObject *set_timeout(binding_socket *self, double seconds)
{
    if (pysock_settimeout(self->s, seconds) < 0)
        return binding_raise(self->b);
    self->timeout = seconds;
    Py_RETURN_NONE;
}

static PyObject *socket_settimeout(PyObject *o, PyObject *arg)
{
    double seconds;

    return binding_timeout(arg, &seconds) < 0 ? NULL : set_timeout(SELF(o), seconds);
}

static PyObject *socket_setblocking(PyObject *o, PyObject *arg)
{
    long on = PyLong_AsLong(arg);

    return on == -1 && PyErr_Occurred() ? NULL : set_timeout(SELF(o), on ? PYSOCK_NO_TIMEOUT : 0.0);
}

static PyObject *socket_gettimeout(PyObject *o, PyObject *unused)
{
    (void)unused;
    if (SELF(o)->timeout < 0)
        Py_RETURN_NONE;
    return PyFloat_FromDouble(SELF(o)->timeout);
}

static PyObject *socket_timeout(PyObject *o, void *unused)
{
    (void)unused;
    return socket_gettimeout(o, NULL);
}

static PyObject *socket_getblocking(PyObject *o, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(SELF(o)->timeout != 0);
}

/* Options of AF_VSOCK itself are 64 bits wide. */
static int is_wide(const binding_socket *self, int level)
{
#ifdef AF_VSOCK
    return self->family == AF_VSOCK && level == AF_VSOCK;
#else
    (void)self, (void)level;
    return 0;
#endif
}

static PyObject *set_number(binding_socket *self, int level, int name, PyObject *value)
{
    unsigned long long wide;
    int number, r;

    if (is_wide(self, level)) {
        wide = PyLong_AsUnsignedLongLong(value);
        if (wide == (unsigned long long)-1 && PyErr_Occurred())
            return NULL;
        r = pysock_setsockopt(self->s, level, name, &wide, sizeof wide);
    } else {
        if (binding_int(value, &number) < 0)
            return NULL;
        r = pysock_setsockopt_int(self->s, level, name, number);
    }
    return none_or_raise(self, r);
}

static PyObject *socket_setsockopt(PyObject *o, PyObject *const *args, Py_ssize_t n)
{
    binding_socket *self = SELF(o);
    int level, name, r;
    unsigned int size;
    Py_buffer view;

    if (binding_args("setsockopt", n, 3, 4) < 0 || binding_int(args[0], &level) < 0
        || binding_int(args[1], &name) < 0)
        return NULL;
    if (n == 4) {
        if (args[2] != Py_None) {
            PyErr_SetString(PyExc_TypeError, "setsockopt() takes a length only after None");
            return NULL;
        }
        size = (unsigned int)PyLong_AsUnsignedLongMask(args[3]);
        if (PyErr_Occurred())
            return NULL;
        r = pysock_setsockopt(self->s, level, name, NULL, size);
        return none_or_raise(self, r);
    }
    if (PyLong_Check(args[2]) || PyIndex_Check(args[2]))
        return set_number(self, level, name, args[2]);
    if (PyObject_GetBuffer(args[2], &view, PyBUF_SIMPLE) < 0)
        return NULL;
    if (view.len > INT_MAX) {
        PyBuffer_Release(&view);
        PyErr_Format(PyExc_OverflowError, "socket option is larger than %i bytes", INT_MAX);
        return NULL;
    }
    r = pysock_setsockopt(self->s, level, name, view.buf, (socklen_t)view.len);
    PyBuffer_Release(&view);
    return none_or_raise(self, r);
}

static PyObject *socket_getsockopt(PyObject *o, PyObject *const *args, Py_ssize_t n)
{
    binding_socket *self = SELF(o);
    int level, name, size = 0, value = 0;
    unsigned long long wide = 0;
    PyObject *bytes;
    socklen_t len;

    if (binding_args("getsockopt", n, 2, 3) < 0 || binding_int(args[0], &level) < 0
        || binding_int(args[1], &name) < 0 || (n == 3 && binding_int(args[2], &size) < 0))
        return NULL;
    if (size == 0 && is_wide(self, level)) {
        len = sizeof wide;
        if (pysock_getsockopt(self->s, level, name, &wide, &len) < 0)
            return binding_raise(self->b);
        return PyLong_FromUnsignedLongLong(wide);
    }
    if (size == 0) {
        if (pysock_getsockopt_int(self->s, level, name, &value) < 0)
            return binding_raise(self->b);
        return PyLong_FromLong(value);
    }
    if (size < 0 || size > 1024) {
        PyErr_SetString(PyExc_OSError, "getsockopt buflen out of range");
        return NULL;
    }
    bytes = PyBytes_FromStringAndSize(NULL, size);
    if (!bytes)
        return NULL;
    len = (socklen_t)size;
    if (pysock_getsockopt(self->s, level, name, PyBytes_AS_STRING(bytes), &len) < 0) {
        Py_DECREF(bytes);
        return binding_raise(self->b);
    }
    _PyBytes_Resize(&bytes, (Py_ssize_t)len);
    return bytes;
}

/* ---- receiving ---- */

/* (buffersize[, flags]) */
static int size_and_flags(PyObject *const *args, Py_ssize_t n, const char *name, Py_ssize_t *size,
                          int *flags)
{
    *flags = 0;
    if (binding_args(name, n, 1, 2) < 0)
        return -1;
    *size = PyNumber_AsSsize_t(args[0], PyExc_OverflowError);
    if (*size == -1 && PyErr_Occurred())
        return -1;
    return n == 2 ? binding_int(args[1], flags) : 0;
}

/* Small amounts are received into a local buffer and copied: bytes that are made too large and then
   shrunk cost more. */
#define LITTLE 4096

/* With MSG_TRUNC the size is the datagram's, of which only the first bytes were received. */
static void clear_unknown(PyObject *bytes, size_t known)
{
    size_t size = (size_t)PyBytes_GET_SIZE(bytes);

    if (size > known)
        memset(PyBytes_AS_STRING(bytes) + known, 0, size - known);
}

/* from: where the sender's address goes, or NULL. */
static PyObject *recv_little(binding_socket *self, size_t size, int flags, pysock_addr *from)
{
    char room[LITTLE];
    binding_call call;
    PyObject *data;
    ptrdiff_t got;

    binding_begin(self->b, &call);
    got = from ? pysock_recvfrom(self->s, room, size, flags, from)
               : pysock_recv(self->s, room, size, flags);
    binding_end(&call);
    if (got < 0)
        return binding_raise(self->b);
    if ((size_t)got <= size)
        return PyBytes_FromStringAndSize(room, got);
    data = PyBytes_FromStringAndSize(NULL, got);
    if (data) {
        memcpy(PyBytes_AS_STRING(data), room, size);
        clear_unknown(data, size);
    }
    return data;
}

/* The same into bytes of that size. */
static PyObject *recv_much(binding_socket *self, Py_ssize_t size, int flags, pysock_addr *from)
{
    PyObject *data = PyBytes_FromStringAndSize(NULL, size);
    binding_call call;
    ptrdiff_t got;

    if (!data)
        return NULL;
    binding_begin(self->b, &call);
    got = from ? pysock_recvfrom(self->s, PyBytes_AS_STRING(data), (size_t)size, flags, from)
               : pysock_recv(self->s, PyBytes_AS_STRING(data), (size_t)size, flags);
    binding_end(&call);
    if (got < 0) {
        Py_DECREF(data);
        return binding_raise(self->b);
    }
    if (got != size && _PyBytes_Resize(&data, got) == 0)
        clear_unknown(data, (size_t)size);
    return data;
}

static PyObject *recv_bytes(binding_socket *self, Py_ssize_t size, int flags, const char *name,
                            pysock_addr *from)
{
    if (size < 0) {
        PyErr_Format(PyExc_ValueError, "negative buffersize in %s", name);
        return NULL;
    }
    return size <= LITTLE ? recv_little(self, (size_t)size, flags, from)
                          : recv_much(self, size, flags, from);
}

static PyObject *socket_recv(PyObject *o, PyObject *const *args, Py_ssize_t n)
{
    Py_ssize_t size;
    int flags;

    if (size_and_flags(args, n, "recv", &size, &flags) < 0)
        return NULL;
    return recv_bytes(SELF(o), size, flags, "recv", NULL);
}

static PyObject *socket_recvfrom(PyObject *o, PyObject *const *args, Py_ssize_t n)
{
    PyObject *data, *address, *result;
    pysock_addr from;
    Py_ssize_t size;
    int flags;

    if (size_and_flags(args, n, "recvfrom", &size, &flags) < 0)
        return NULL;
    data = recv_bytes(SELF(o), size, flags, "recvfrom", &from);
    address = data ? address_to_object(&from, SELF(o)->proto) : NULL;
    result = address ? PyTuple_Pack(2, data, address) : NULL;
    Py_XDECREF(data);
    Py_XDECREF(address);
    return result;
}

/* A writable buffer, or a TypeError. */
static int writable_buffer(PyObject *o, Py_buffer *view)
{
    if (PyObject_GetBuffer(o, view, PyBUF_WRITABLE) == 0)
        return 0;
    PyErr_Format(PyExc_TypeError, "a read-write bytes-like object is required, not '%.200s'",
                 Py_TYPE(o)->tp_name);
    return -1;
}

/* (buffer, [nbytes[, flags]]): the buffer, and how many bytes of it to use. */
static int buffer_and_flags(PyObject *const *args, Py_ssize_t n, PyObject *kwnames,
                            const char *name, Py_buffer *view, Py_ssize_t *size, int *flags)
{
    static const char *const keywords[] = {"buffer", "nbytes", "flags"};
    PyObject *values[3] = {NULL, NULL, NULL};
    Py_ssize_t i, given = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
    int k;

    if (n > 3)
        return binding_args(name, n, 1, 3);
    for (i = 0; i < n; i++)
        values[i] = args[i];
    for (i = 0; i < given; i++) {
        PyObject *key = PyTuple_GET_ITEM(kwnames, i);
        for (k = 0; k < 3 && PyUnicode_CompareWithASCIIString(key, keywords[k]); k++)
            ;
        if (k == 3 || values[k]) {
            PyErr_Format(PyExc_TypeError, "%s(): unexpected keyword argument %R", name, key);
            return -1;
        }
        values[k] = args[n + i];
    }
    *size = *flags = 0;
    if (!values[0])
        return binding_args(name, 0, 1, 3);
    if (values[1]) {
        *size = PyNumber_AsSsize_t(values[1], PyExc_OverflowError);
        if (*size == -1 && PyErr_Occurred())
            return -1;
    }
    if ((values[2] && binding_int(values[2], flags) < 0) || writable_buffer(values[0], view) < 0)
        return -1;
    if (*size < 0)
        PyErr_Format(PyExc_ValueError, "negative buffersize in %s", name);
    else if (*size > view->len)
        PyErr_SetString(PyExc_ValueError, "buffer too small for requested bytes");
    else
        return 0;
    PyBuffer_Release(view);
    return -1;
}

static PyObject *socket_recv_into(PyObject *o, PyObject *const *args, Py_ssize_t n,
                                  PyObject *kwnames)
{
    binding_socket *self = SELF(o);
    binding_call call;
    Py_ssize_t size;
    Py_buffer view;
    ptrdiff_t got;
    int flags;

    if (buffer_and_flags(args, n, kwnames, "recv_into", &view, &size, &flags) < 0)
        return NULL;
    binding_begin(self->b, &call);
    got = pysock_recv_into(self->s, view.buf, (size_t)(size ? size : view.len), flags);
    binding_end(&call);
    PyBuffer_Release(&view);
    return got < 0 ? binding_raise(self->b) : PyLong_FromSsize_t(got);
}

static PyObject *socket_recvfrom_into(PyObject *o, PyObject *const *args, Py_ssize_t n,
                                      PyObject *kwnames)
{
    binding_socket *self = SELF(o);
    binding_call call;
    pysock_addr from;
    Py_ssize_t size;
    Py_buffer view;
    ptrdiff_t got;
    int flags;

    if (buffer_and_flags(args, n, kwnames, "recvfrom_into", &view, &size, &flags) < 0)
        return NULL;
    binding_begin(self->b, &call);
    got = pysock_recvfrom_into(self->s, view.buf, (size_t)(size ? size : view.len), flags, &from);
    binding_end(&call);
    PyBuffer_Release(&view);
    return got < 0 ? binding_raise(self->b)
                   : Py_BuildValue("nN", got, address_to_object(&from, self->proto));
}

/* ---- messages ---- */

/* An exception drops a received message: closes the descriptors that it carried. */
static void close_passed(const pysock_msg *msg)
{
    pysock_cmsg item;
    size_t at;
    int fd;

    memset(&item, 0, sizeof item);
    while (pysock_msg_next(msg, &item)) {
        if (item.level != SOL_SOCKET || item.type != SCM_RIGHTS)
            continue;
        for (at = 0; at + sizeof fd <= item.size; at += sizeof fd) {
            memcpy(&fd, (const char *)item.data + at, sizeof fd);
            close(fd);
        }
    }
}

static PyObject *ancillary_to_list(const pysock_msg *msg)
{
    PyObject *list = PyList_New(0);
    pysock_cmsg item;

    memset(&item, 0, sizeof item);
    while (list && pysock_msg_next(msg, &item)) {
        PyObject *entry = Py_BuildValue("iiy#", item.level, item.type, (const char *)item.data,
                                        (Py_ssize_t)item.size);
        if (!entry || PyList_Append(list, entry) < 0)
            Py_CLEAR(list);
        Py_XDECREF(entry);
    }
    return list;
}

/* Receives into the buffers. Returns (data, ancdata, msg_flags, address), where data is first, its
   reference stolen, or, if that is NULL, the number of bytes. */
static PyObject *receive_message(binding_socket *self, struct iovec *buffers, size_t count,
                                 Py_ssize_t room, int flags, PyObject *first)
{
    PyObject *ancillary = NULL, *address = NULL, *result = NULL;
    binding_call call;
    pysock_msg msg;
    ptrdiff_t got;

    memset(&msg, 0, sizeof msg);
    msg.control_size = (size_t)room;
    msg.control = room ? PyMem_Malloc((size_t)room) : NULL;
    if (room && !msg.control) {
        Py_XDECREF(first);
        return PyErr_NoMemory();
    }
    binding_begin(self->b, &call);
    got = pysock_recvmsg_into(self->s, buffers, count, &msg, flags);
    binding_end(&call);
    if (got < 0) {
        Py_XDECREF(first);
        PyMem_Free(msg.control);
        return binding_raise(self->b);
    }
    if (!first)
        first = PyLong_FromSsize_t(got);
    else if (got < PyBytes_GET_SIZE(first)) /* with MSG_TRUNC it may be more */
        _PyBytes_Resize(&first, got);
    if (first && (ancillary = ancillary_to_list(&msg)))
        address = address_to_object(&msg.addr, self->proto);
    if (address)
        result = Py_BuildValue("OOiO", first, ancillary, msg.flags, address);
    if (!result)
        close_passed(&msg);
    Py_XDECREF(first);
    Py_XDECREF(ancillary);
    Py_XDECREF(address);
    PyMem_Free(msg.control);
    return result;
}

static int check_room(Py_ssize_t room)
{
    if (room >= 0 && room <= INT_MAX)
        return 0;
    PyErr_SetString(PyExc_ValueError, "invalid ancillary data buffer length");
    return -1;
}

static PyObject *socket_recvmsg(PyObject *o, PyObject *args)
{
    Py_ssize_t size, room = 0;
    struct iovec buffer;
    PyObject *data;
    int flags = 0;

    if (!PyArg_ParseTuple(args, "n|ni:recvmsg", &size, &room, &flags))
        return NULL;
    if (size < 0) {
        PyErr_SetString(PyExc_ValueError, "negative buffer size in recvmsg()");
        return NULL;
    }
    if (check_room(room) < 0 || !(data = PyBytes_FromStringAndSize(NULL, size)))
        return NULL;
    buffer.iov_base = PyBytes_AS_STRING(data);
    buffer.iov_len = (size_t)size;
    return receive_message(SELF(o), &buffer, 1, room, flags, data);
}

/* The buffers of an iterable, held until they are released. */
typedef struct buffer_list {
    PyObject *items;
    Py_buffer *views;
    struct iovec *iov;
    size_t count;
} buffer_list;

static void release_buffers(buffer_list *list)
{
    while (list->count)
        PyBuffer_Release(&list->views[--list->count]);
    PyMem_Free(list->views);
    PyMem_Free(list->iov);
    Py_XDECREF(list->items);
}

static int get_buffers(PyObject *o, int writable, const char *complaint, buffer_list *list)
{
    Py_ssize_t i, n;
    int r;

    memset(list, 0, sizeof *list);
    list->items = PySequence_Fast(o, complaint);
    if (!list->items)
        return -1;
    n = PySequence_Fast_GET_SIZE(list->items);
    list->views = PyMem_New(Py_buffer, n ? (size_t)n : 1);
    list->iov = PyMem_New(struct iovec, n ? (size_t)n : 1);
    if (!list->views || !list->iov) {
        PyErr_NoMemory();
        release_buffers(list);
        return -1;
    }
    for (i = 0; i < n; i++) {
        Py_buffer *view = &list->views[i];
        PyObject *item = PySequence_Fast_GET_ITEM(list->items, i);
        r = writable ? writable_buffer(item, view) : PyObject_GetBuffer(item, view, PyBUF_SIMPLE);
        if (r < 0) {
            release_buffers(list);
            return -1;
        }
        list->count++;
        list->iov[i].iov_base = view->buf;
        list->iov[i].iov_len = (size_t)view->len;
    }
    return 0;
}

static PyObject *socket_recvmsg_into(PyObject *o, PyObject *args)
{
    PyObject *buffers, *result;
    Py_ssize_t room = 0;
    buffer_list list;
    int flags = 0;

    if (!PyArg_ParseTuple(args, "O|ni:recvmsg_into", &buffers, &room, &flags)
        || check_room(room) < 0
        || get_buffers(buffers, 1, "recvmsg_into() argument 1 must be an iterable", &list) < 0)
        return NULL;
    result = receive_message(SELF(o), list.iov, list.count, room, flags, NULL);
    release_buffers(&list);
    return result;
}

/* ---- sending ---- */

static int data_and_flags(PyObject *const *args, Py_ssize_t n, const char *name, Py_buffer *view,
                          int *flags)
{
    *flags = 0;
    if (binding_args(name, n, 1, 2) < 0 || (n == 2 && binding_int(args[1], flags) < 0))
        return -1;
    return PyObject_GetBuffer(args[0], view, PyBUF_SIMPLE);
}

static PyObject *socket_send(PyObject *o, PyObject *const *args, Py_ssize_t n)
{
    binding_socket *self = SELF(o);
    binding_call call;
    Py_buffer view;
    ptrdiff_t sent;
    int flags;

    if (data_and_flags(args, n, "send", &view, &flags) < 0)
        return NULL;
    binding_begin(self->b, &call);
    sent = pysock_send(self->s, view.buf, (size_t)view.len, flags);
    binding_end(&call);
    PyBuffer_Release(&view);
    return sent < 0 ? binding_raise(self->b) : PyLong_FromSsize_t(sent);
}

static PyObject *socket_sendall(PyObject *o, PyObject *const *args, Py_ssize_t n)
{
    binding_socket *self = SELF(o);
    binding_call call;
    Py_buffer view;
    int flags, r;

    if (data_and_flags(args, n, "sendall", &view, &flags) < 0)
        return NULL;
    binding_begin(self->b, &call);
    r = pysock_sendall(self->s, view.buf, (size_t)view.len, flags);
    binding_end(&call);
    PyBuffer_Release(&view);
    return none_or_raise(self, r);
}

static PyObject *socket_sendto(PyObject *o, PyObject *const *args, Py_ssize_t n)
{
    binding_socket *self = SELF(o);
    binding_call call;
    pysock_addr addr;
    Py_buffer view;
    ptrdiff_t sent;
    int flags = 0;

    if (n < 2 || n > 3) {
        PyErr_Format(PyExc_TypeError, "sendto() takes 2 or 3 arguments (%zd given)", n);
        return NULL;
    }
    if (PyObject_GetBuffer(args[0], &view, PyBUF_SIMPLE) < 0)
        return NULL;
    if ((n == 3 && binding_int(args[1], &flags) < 0)
        || begin_with_address(self, args[n - 1], "socket.sendto", "sendto", &addr, &call) < 0) {
        PyBuffer_Release(&view);
        return NULL;
    }
    sent = pysock_sendto_addr(self->s, view.buf, (size_t)view.len, flags, &addr);
    binding_end(&call);
    PyBuffer_Release(&view);
    return sent < 0 ? binding_raise(self->b) : PyLong_FromSsize_t(sent);
}

/* The items of sendmsg()'s ancdata; their bytes are held by the views. */
typedef struct ancillary {
    pysock_cmsg *items;
    Py_buffer *views;
    size_t count;
} ancillary;

static void release_ancillary(ancillary *a)
{
    while (a->count)
        PyBuffer_Release(&a->views[--a->count]);
    PyMem_Free(a->views);
    PyMem_Free(a->items);
}

static int get_ancillary(PyObject *o, ancillary *a)
{
    PyObject *list;
    Py_ssize_t i, n;

    memset(a, 0, sizeof *a);
    if (!o)
        return 0;
    list = PySequence_Fast(o, "sendmsg() argument 2 must be an iterable");
    if (!list)
        return -1;
    n = PySequence_Fast_GET_SIZE(list);
    a->items = PyMem_New(pysock_cmsg, n ? (size_t)n : 1);
    a->views = PyMem_New(Py_buffer, n ? (size_t)n : 1);
    if (!a->items || !a->views)
        PyErr_NoMemory();
    for (i = 0; i < n && !PyErr_Occurred(); i++) {
        pysock_cmsg *item = &a->items[i];
        PyObject *tuple = PySequence_Fast(PySequence_Fast_GET_ITEM(list, i),
                                          "an item of sendmsg()'s ancdata must be a tuple");
        PyObject *copy = tuple ? PySequence_Tuple(tuple) : NULL;
        if (copy
            && PyArg_ParseTuple(copy, "iiy*:[sendmsg() ancillary data items]", &item->level,
                                &item->type, &a->views[i])) {
            item->data = a->views[i].buf;
            item->size = (size_t)a->views[i].len;
            a->count++;
        }
        Py_XDECREF(tuple);
        Py_XDECREF(copy);
    }
    Py_DECREF(list);
    if (!PyErr_Occurred())
        return 0;
    release_ancillary(a);
    return -1;
}

/* Too much ancillary data is an OSError in Python. */
static int check_ancillary(const ancillary *a)
{
    ptrdiff_t space;
    size_t i, total = 0;

    for (i = 0; i < a->count; i++) {
        space = pysock_cmsg_space(a->items[i].size);
        total += space < 0 ? 0 : (size_t)space;
        if (space < 0 || total > INT_MAX) {
            PyErr_SetString(PyExc_OSError, space > 0 ? "too much ancillary data"
                                                     : "ancillary data item too large");
            return -1;
        }
    }
    return 0;
}

static PyObject *socket_sendmsg(PyObject *o, PyObject *args)
{
    binding_socket *self = SELF(o);
    PyObject *buffers, *ancdata = NULL, *address = NULL, *result = NULL;
    ancillary items = {0};
    binding_call call;
    pysock_addr addr;
    buffer_list list;
    ptrdiff_t sent;
    int flags = 0;

    if (!PyArg_ParseTuple(args, "O|OiO:sendmsg", &buffers, &ancdata, &flags, &address)
        || get_buffers(buffers, 0, "sendmsg() argument 1 must be an iterable", &list) < 0)
        return NULL;
    if (address == Py_None)
        address = NULL;
    if ((address && address_from_object(self, address, &addr, "sendmsg") < 0)
        || get_ancillary(ancdata, &items) < 0) {
        release_buffers(&list);
        return NULL;
    }
    if (check_ancillary(&items) == 0
        && binding_begin_audited(self->b, &call, "socket.sendmsg",
                                 PyTuple_Pack(2, o, address ? address : Py_None))
               == 0) {
        sent = pysock_sendmsg(self->s, list.iov, list.count, items.items, items.count, flags,
                              address ? &addr : NULL);
        binding_end(&call);
        result = sent < 0 ? binding_raise(self->b) : PyLong_FromSsize_t(sent);
    }
    release_ancillary(&items);
    release_buffers(&list);
    return result;
}

#ifdef AF_ALG

static PyObject *socket_sendmsg_afalg(PyObject *o, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"msg", "op", "iv", "assoclen", "flags", NULL};
    binding_socket *self = SELF(o);
    PyObject *msg = NULL, *op_object = NULL, *assoclen_object = NULL, *result = NULL;
    int op = -1, assoclen = -1, flags = 0;
    Py_buffer iv = {0};
    buffer_list list = {0};
    binding_call call;
    ptrdiff_t sent;

    if (self->family != AF_ALG) {
        PyErr_SetString(PyExc_OSError, "algset is only supported for AF_ALG");
        return NULL;
    }
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O$Oy*Oi:sendmsg_afalg", names, &msg,
                                     &op_object, &iv, &assoclen_object, &flags))
        return NULL;
    if (!op_object || binding_int(op_object, &op) < 0 || op < 0) {
        PyErr_SetString(PyExc_TypeError, "Invalid or missing argument 'op'");
    } else if (assoclen_object && (binding_int(assoclen_object, &assoclen) < 0 || assoclen < 0)) {
        PyErr_SetString(PyExc_TypeError, "assoclen must be positive");
    } else if (!msg
               || get_buffers(msg, 0, "sendmsg_afalg() argument 1 must be an iterable", &list)
                      == 0) {
        binding_begin(self->b, &call);
        sent = pysock_sendmsg_afalg(self->s, list.iov, list.count, op, iv.buf, (size_t)iv.len,
                                    assoclen, flags);
        binding_end(&call);
        result = sent < 0 ? binding_raise(self->b) : PyLong_FromSsize_t(sent);
        release_buffers(&list);
    }
    PyBuffer_Release(&iv);
    return result;
}

#endif

/* ---- the type ---- */

/* clang-format off */
#define METHOD(name, function, flags, doc)                                                         \
    {name, (PyCFunction)(void (*)(void))function, flags, PyDoc_STR(doc)}
/* clang-format on */

static PyMethodDef socket_methods[] = {
    METHOD("_accept", socket_accept, METH_NOARGS,
           "_accept() -> (integer, address info)\n\nWaits for a connection. Returns its "
           "descriptor and the client's address."),
    METHOD("bind", socket_bind, METH_O,
           "bind(address)\n\nGives the socket a local address: for IP (host, port), where host is "
           "this machine's; for packets (ifname, proto [,pkttype [,hatype [,addr]]])."),
    METHOD("close", socket_close, METH_NOARGS,
           "close()\n\nCloses the socket, for good. Calls that wait on it end."),
    METHOD("connect", socket_connect, METH_O,
           "connect(address)\n\nConnects to a remote address: for IP (host, port)."),
    METHOD("connect_ex", socket_connect_ex, METH_O,
           "connect_ex(address) -> errno\n\nThe same, but returns an error's number instead of "
           "raising it."),
    METHOD("detach", socket_detach, METH_NOARGS,
           "detach()\n\nLets the descriptor go, without closing it, and returns it. The socket "
           "cannot be used any more."),
    METHOD("fileno", socket_fileno, METH_NOARGS,
           "fileno() -> integer\n\nThe descriptor; -1 if the socket is closed."),
    METHOD("getblocking", socket_getblocking, METH_NOARGS,
           "getblocking()\n\nFalse if the timeout is 0, else True."),
    METHOD("getpeername", socket_getpeername, METH_NOARGS,
           "getpeername() -> address info\n\nThe other end's address: for IP (hostaddr, port)."),
    METHOD("getsockname", socket_getsockname, METH_NOARGS,
           "getsockname() -> address info\n\nThis end's address: for IP (hostaddr, port)."),
    METHOD("getsockopt", socket_getsockopt, METH_FASTCALL,
           "getsockopt(level, option[, buffersize]) -> value\n\nAn option of the socket's: an "
           "integer or, with a buffersize, so many bytes. The system's manual has them."),
    METHOD("gettimeout", socket_gettimeout, METH_NOARGS,
           "gettimeout() -> timeout\n\nThe timeout of calls in seconds; None: there is none."),
    METHOD("listen", socket_listen, METH_FASTCALL,
           "listen([backlog])\n\nFrom now on the socket takes connections; so many may wait before "
           "others are refused. Below 0 is 0; the default is a reasonable number."),
    METHOD("recv", socket_recv, METH_FASTCALL,
           "recv(buffersize[, flags]) -> data\n\nAt most so many bytes; at least one, but for the "
           "end of the stream. The system's manual has the flags."),
    METHOD("recv_into", socket_recv_into, METH_FASTCALL | METH_KEYWORDS,
           "recv_into(buffer, [nbytes[, flags]]) -> nbytes_read\n\nLike recv(), into a buffer: all "
           "of it, or its first nbytes."),
    METHOD("recvfrom", socket_recvfrom, METH_FASTCALL,
           "recvfrom(buffersize[, flags]) -> (data, address info)\n\nLike recv(), with the "
           "sender's address."),
    METHOD("recvfrom_into", socket_recvfrom_into, METH_FASTCALL | METH_KEYWORDS,
           "recvfrom_into(buffer[, nbytes[, flags]]) -> (nbytes, address info)\n\nLike "
           "recv_into(), with the sender's address."),
    METHOD("recvmsg", socket_recvmsg, METH_VARARGS,
           "recvmsg(bufsize[, ancbufsize[, flags]]) -> (data, ancdata, msg_flags, address)\n\n"
           "A message with all that belongs to it. ancbufsize is the room for ancillary data; "
           "CMSG_SPACE() and CMSG_LEN() say how much an item takes, and what does not fit is cut "
           "off. ancdata is a list of (cmsg_level, cmsg_type, cmsg_data). Descriptors that came "
           "with a message that cannot be returned are closed."),
    METHOD("recvmsg_into", socket_recvmsg_into, METH_VARARGS,
           "recvmsg_into(buffers[, ancbufsize[, flags]]) -> (nbytes, ancdata, msg_flags, "
           "address)\n\nLike recvmsg(), into the buffers of an iterable, one after the other."),
    METHOD("send", socket_send, METH_FASTCALL,
           "send(data[, flags]) -> count\n\nSends what can be sent at once, and returns how many "
           "bytes that were. The system's manual has the flags."),
    METHOD("sendall", socket_sendall, METH_FASTCALL,
           "sendall(data[, flags])\n\nSends all of the data. After an error nobody can tell how "
           "much of it was."),
    METHOD("sendmsg", socket_sendmsg, METH_VARARGS,
           "sendmsg(buffers[, ancdata[, flags[, address]]]) -> count\n\nSends the bytes of an "
           "iterable of buffers as one message, with ancillary data, an iterable of (cmsg_level, "
           "cmsg_type, cmsg_data), to the address or, where that is None, to the peer."),
#ifdef AF_ALG
    METHOD("sendmsg_afalg", socket_sendmsg_afalg, METH_VARARGS | METH_KEYWORDS,
           "sendmsg_afalg([msg], *, op[, iv[, assoclen[, flags=MSG_MORE]]])\n\nSends data to the "
           "kernel's cryptography: what is to be done, the initial vector, and how much of the "
           "data is associated data."),
#endif
    METHOD("sendto", socket_sendto, METH_FASTCALL,
           "sendto(data[, flags], address) -> count\n\nLike send(), to an address: for IP "
           "(hostaddr, port)."),
    METHOD("setblocking", socket_setblocking, METH_O,
           "setblocking(flag)\n\nTrue is settimeout(None), False is settimeout(0.0)."),
    METHOD("setsockopt", socket_setsockopt, METH_FASTCALL,
           "setsockopt(level, option, value: int)\nsetsockopt(level, option, value: buffer)\n"
           "setsockopt(level, option, None, optlen: int)\n\nSets an option of the socket's. The "
           "system's manual has them."),
    METHOD("settimeout", socket_settimeout, METH_O,
           "settimeout(timeout)\n\nGives calls so many seconds, a float. 0: they do not wait; "
           "None: they wait as long as it takes."),
    METHOD("shutdown", socket_shutdown, METH_O,
           "shutdown(flag)\n\nEnds reading (SHUT_RD), writing (SHUT_WR) or both (SHUT_RDWR)."),
    {NULL, NULL, 0, NULL},
};

static PyMemberDef socket_members[] = {
    {"family", T_INT, offsetof(binding_socket, family), READONLY, "the socket family"},
    {"type", T_INT, offsetof(binding_socket, type), READONLY, "the socket type"},
    {"proto", T_INT, offsetof(binding_socket, proto), READONLY, "the socket protocol"},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef socket_getset[] = {
    {"timeout", socket_timeout, NULL, "the socket timeout", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(socket_doc,
             "socket(family=AF_INET, type=SOCK_STREAM, proto=0) -> socket object\n"
             "socket(family=-1, type=-1, proto=-1, fileno=None) -> socket object\n\n"
             "One end of a network connection, or a socket that will be. With fileno, a "
             "descriptor, it is found out what is -1. A new socket is not inherited by programs "
             "that are started.");

static PyType_Slot socket_slots[] = {
    {Py_tp_new, socket_new},
    {Py_tp_init, socket_init},
    {Py_tp_finalize, socket_finalize},
    {Py_tp_dealloc, socket_dealloc},
    {Py_tp_traverse, socket_traverse},
    {Py_tp_repr, socket_repr},
    {Py_tp_getattro, PyObject_GenericGetAttr},
    {Py_tp_methods, socket_methods},
    {Py_tp_members, socket_members},
    {Py_tp_getset, socket_getset},
    {Py_tp_doc, (void *)socket_doc},
    {0, NULL},
};

static PyType_Spec socket_spec = {
    .name = "_socket.socket",
    .basicsize = sizeof(binding_socket),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = socket_slots,
};

/* ---- functions of the module ---- */

static PyObject *module_close(PyObject *m, PyObject *arg)
{
    binding *b = binding_of_module(m);
    binding_call call;
    pysock *owner;
    int fd, r, code;

    if (binding_int(arg, &fd) < 0)
        return NULL;
    binding_begin(b, &call);
    owner = pysock_from_fileno(fd);
    r = owner ? pysock_close(owner) : close(fd);
    code = errno;
    binding_end(&call);
    if (r < 0 && code != ECONNRESET)
        return binding_raise_errno(code);
    Py_RETURN_NONE;
}

static PyObject *module_dup(PyObject *m, PyObject *arg)
{
    int fd;

    (void)m;
    if (binding_int(arg, &fd) < 0)
        return NULL;
    fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    return fd < 0 ? binding_raise_errno(errno) : PyLong_FromLong(fd);
}

static PyObject *new_around(PyTypeObject *type, pysock *s)
{
    PyObject *o = socket_new(type, NULL, NULL);

    if (o)
        socket_take(SELF(o), s);
    else
        pysock_close(s);
    return o;
}

static PyObject *module_socketpair(PyObject *m, PyObject *args)
{
    socket_state *state = PyModule_GetState(m);
    int family = AF_UNIX, type = SOCK_STREAM, proto = 0, r;
    PyObject *first, *second;
    binding_call call;
    pysock *pair[2];

    if (!PyArg_ParseTuple(args, "|iii:socketpair", &family, &type, &proto))
        return NULL;
    binding_begin(state->b, &call);
    r = pysock_socketpair(family, type, proto, pair);
    binding_end(&call);
    if (r < 0)
        return binding_raise(state->b);
    first = new_around(state->socket_type, pair[0]);
    second = new_around(state->socket_type, pair[1]);
    if (first && second)
        return Py_BuildValue("NN", first, second);
    Py_XDECREF(first);
    Py_XDECREF(second);
    return NULL;
}

static PyMethodDef module_methods[] = {
    METHOD("close", module_close, METH_O,
           "close(integer) -> None\n\nCloses a socket's descriptor, as os.close() does, and ends "
           "the socket object that has it."),
    METHOD("dup", module_dup, METH_O,
           "dup(integer) -> integer\n\nA duplicate of a descriptor, not inheritable."),
    METHOD("socketpair", module_socketpair, METH_VARARGS,
           "socketpair([family[, type [, proto]]]) -> (socket object, socket object)\n\nTwo "
           "connected sockets; the family is AF_UNIX if it is not given."),
    {NULL, NULL, 0, NULL},
};

/* ---- the module ---- */

static const binding_constant constants[] = {
#include "_socket.inc"
    {NULL, 0},
};

static int add_exceptions(PyObject *m, socket_state *state)
{
    binding *b = state->b;

    if (!b->gaierror)
        b->gaierror = PyErr_NewException("socket.gaierror", PyExc_OSError, NULL);
    if (!b->herror)
        b->herror = PyErr_NewException("socket.herror", PyExc_OSError, NULL);
    if (!b->gaierror || !b->herror || PyModule_AddObjectRef(m, "gaierror", b->gaierror) < 0
        || PyModule_AddObjectRef(m, "herror", b->herror) < 0
        || PyModule_AddObjectRef(m, "error", PyExc_OSError) < 0)
        return -1;
    return PyModule_AddObjectRef(m, "timeout", PyExc_TimeoutError);
}

/* Whether the object is a socket of this module, or of another copy of it. */
static int is_socket(PyObject *o)
{
    PyTypeObject *type = Py_TYPE(o);

    while (type && type->tp_dealloc != socket_dealloc)
        type = type->tp_base;
    return type != NULL;
}

static int module_exec(PyObject *m)
{
    socket_state *state = PyModule_GetState(m);

    state->b = binding_get(&state->keep);
    if (!state->b || add_exceptions(m, state) < 0)
        return -1;
    state->socket_type = (PyTypeObject *)PyType_FromModuleAndSpec(m, &socket_spec, NULL);
    if (!state->socket_type)
        return -1;
    state->b->is_socket = is_socket;
    if (PyModule_AddObjectRef(m, "socket", (PyObject *)state->socket_type) < 0
        || PyModule_AddObjectRef(m, "SocketType", (PyObject *)state->socket_type) < 0
        || PyModule_AddObjectRef(m, "has_ipv6", Py_True) < 0)
        return -1;
#ifdef AF_BLUETOOTH
    if (PyModule_AddStringConstant(m, "BDADDR_ANY", "00:00:00:00:00:00") < 0
        || PyModule_AddStringConstant(m, "BDADDR_LOCAL", "00:00:00:FF:FF:FF") < 0)
        return -1;
#endif
    if (binding_add_constants(m, constants) < 0)
        return -1;
    return PyModule_AddFunctions(m, names_methods);
}

static int module_traverse(PyObject *m, visitproc visit, void *arg)
{
    socket_state *state = PyModule_GetState(m);

    Py_VISIT(state->socket_type);
    return 0;
}

static int module_clear(PyObject *m)
{
    socket_state *state = PyModule_GetState(m);

    Py_CLEAR(state->socket_type);
    return 0;
}

static void module_free(void *m)
{
    socket_state *state = PyModule_GetState(m);

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
    .m_name = "_socket",
    .m_doc = "Python's sockets on pysock.\n\nSee the socket module for documentation.",
    .m_size = sizeof(socket_state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__socket(void)
{
    return PyModuleDef_Init(&module_def);
}
