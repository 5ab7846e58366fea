/* _SSLSocket, for TLS on a socket or between two MemoryBIOs; MemoryBIO and SSLSession. */
#include "ssl_objects.h"

enum { VERIFY_HOSTNAME_MISMATCH = 62, VERIFY_IP_ADDRESS_MISMATCH = 64 }; /* OpenSSL's numbers */

/* ---- from handles to objects ----
   A callback gets the library's socket, and Python needs its own object, which another thread may
   be destroying. This table is guarded by the interpreter's lock, which all interpreters share. */

#define BUCKETS 1024

static connection_object *buckets[BUCKETS];

static connection_object **bucket_of(const pysock *s)
{
    uintptr_t n = (uintptr_t)s;

    return &buckets[(n ^ n >> 10 ^ n >> 32) % BUCKETS];
}

static void enter(connection_object *self)
{
    connection_object **at = bucket_of(self->s);

    self->next = *at;
    *at = self;
}

static void leave(connection_object *self)
{
    connection_object **at = bucket_of(self->s);

    while (*at && *at != self)
        at = &(*at)->next;
    if (*at)
        *at = self->next;
}

/* The socket's newest object, with a reference; or NULL. */
static connection_object *find(const pysock *s)
{
    connection_object *self = *bucket_of(s);

    while (self && self->s != s)
        self = self->next;
    Py_XINCREF(self);
    return self;
}

/* ---- making and dropping ---- */

/* The object behind a weak reference, which may be NULL; NULL if it is gone. */
static PyObject *behind(PyObject *reference)
{
    PyObject *o = reference ? PyWeakref_GetObject(reference) : NULL; /* borrowed */

    return o && o != Py_None ? Py_NewRef(o) : NULL;
}

static PyObject *weak_or_null(PyObject *o)
{
    return o && o != Py_None ? PyWeakref_NewRef(o, NULL) : NULL;
}

/* Whether a connection of this context may use a session. */
static int check_session(connection_object *self, PyObject *session)
{
    if (!PyObject_TypeCheck(session, self->st->session_type)) {
        PyErr_SetString(PyExc_TypeError, "Value is not a SSLSession.");
        return -1;
    }
    if (((session_object *)session)->context != self->context) {
        PyErr_SetString(PyExc_ValueError, "Session refers to a different SSLContext.");
        return -1;
    }
    if (self->server_side) {
        PyErr_SetString(PyExc_ValueError, "Cannot set session for server-side SSLSocket.");
        return -1;
    }
    return 0;
}

static connection_object *connection_new(context_object *context, int server_side,
                                         PyObject *hostname, PyObject *owner, PyObject *session)
{
    PyTypeObject *type = context->st->connection_type;
    connection_object *self = (connection_object *)type->tp_alloc(type, 0);

    if (!self)
        return NULL;
    self->st = context->st;
    self->s = BINDING_CLOSED;
    self->server_side = server_side;
    self->verify_mode = pysock_ssl_get_verify_mode(context->ctx);
    self->context = Py_NewRef((PyObject *)context);
    self->hostname = Py_NewRef(hostname);
    self->owner = weak_or_null(owner);
    if (session != Py_None && check_session(self, session) < 0)
        Py_CLEAR(self);
    else if (PyErr_Occurred()) /* there are no weak references to the owner */
        Py_CLEAR(self);
    return self;
}

static void wrap_options(const connection_object *self, PyObject *session,
                         pysock_ssl_wrap_options *options)
{
    if (self->hostname != Py_None)
        options->server_hostname = PyUnicode_AsUTF8(self->hostname); /* has been asked for before */
    options->no_handshake_on_connect = 1;
    options->raise_ragged_eofs = 1;
    options->half_close = 1;
    options->no_close_notify = 1;
    options->caller_drives = 1;
    options->server_side = self->server_side;
    options->insecure_no_check_hostname = self->hostname == Py_None; /* ssl.py has warned of that */
    if (session != Py_None)
        options->session = ((session_object *)session)->session;
}

PyObject *connection_wrap_socket(context_object *context, PyObject *socket, int server_side,
                                 PyObject *hostname, PyObject *owner, PyObject *session)
{
    connection_object *self = connection_new(context, server_side, hostname, owner, session);
    pysock *s = ((binding_socket *)socket)->s;
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    binding_call call;
    int r;

    if (!self)
        return NULL;
    self->socket = weak_or_null(socket);
    if (!self->socket) {
        Py_DECREF(self);
        return NULL;
    }
    self->s = s;
    enter(self);
    wrap_options(self, session, &options);
    binding_begin(self->st->b, &call);
    r = pysock_ssl_wrap_socket_ex(s, context->ctx, &options);
    binding_end(&call);
    if (r >= 0)
        return (PyObject *)self;
    ssl_raise(self->st, SSL_SHAKING);
    Py_DECREF(self);
    return NULL;
}

PyObject *connection_wrap_bio(context_object *context, bio_object *incoming, bio_object *outgoing,
                              int server_side, PyObject *hostname, PyObject *owner,
                              PyObject *session)
{
    connection_object *self = connection_new(context, server_side, hostname, owner, session);
    pysock_ssl_wrap_options options = PYSOCK_SSL_WRAP_OPTIONS_INIT;
    binding_call call;
    pysock *s;

    if (!self)
        return NULL;
    wrap_options(self, session, &options);
    binding_begin(self->st->b, &call);
    s = pysock_ssl_wrap_bio(context->ctx, incoming->bio, outgoing->bio, &options);
    binding_end(&call);
    if (!s) {
        ssl_raise(self->st, SSL_SHAKING);
        Py_DECREF(self);
        return NULL;
    }
    self->s = s;
    self->owned = 1;
    enter(self);
    return (PyObject *)self;
}

static int connection_traverse(connection_object *self, visitproc visit, void *arg)
{
    Py_VISIT(self->context);
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static int connection_clear(connection_object *self)
{
    Py_CLEAR(self->context);
    return 0;
}

static void connection_dealloc(connection_object *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    leave(self);
    if (self->owned)
        pysock_close(self->s); /* without a descriptor there is nothing to wait for */
    connection_clear(self);
    Py_XDECREF(self->socket);
    Py_XDECREF(self->owner);
    Py_XDECREF(self->hostname);
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- the sni_callback ---- */

/* The callback's result as an alert; 0 goes on. */
static int alert_of(PyObject *answer, PyObject *callback)
{
    int alert;

    if (!answer) {
        PyErr_WriteUnraisable(callback);
        return PYSOCK_ALERT_HANDSHAKE_FAILURE;
    }
    if (answer == Py_None)
        return 0;
    if (binding_int(answer, &alert) == 0)
        return alert & 0xff ? alert & 0xff : PYSOCK_ALERT_INTERNAL_ERROR;
    PyErr_WriteUnraisable(callback);
    return PYSOCK_ALERT_INTERNAL_ERROR;
}

static int ask_callback(connection_object *self, const pysock_ssl_client_hello *hello)
{
    PyObject *context = Py_XNewRef(self->context), *name, *owner, *answer = NULL;
    PyObject *callback = context ? ((context_object *)context)->sni_callback : NULL;
    int alert = 0;

    if (callback) {
        Py_INCREF(callback);
        name = hello->server_name ? PyUnicode_FromString(hello->server_name) : Py_NewRef(Py_None);
        owner = self->owner ? behind(self->owner) : behind(self->socket);
        if (name)
            answer = PyObject_CallFunctionObjArgs(callback, owner ? owner : (PyObject *)self, name,
                                                  context, NULL);
        Py_XDECREF(owner);
        Py_XDECREF(name);
        Py_SETREF(context, Py_NewRef(Py_None)); /* the callback may have held the last one */
        alert = alert_of(answer, callback);
        Py_XDECREF(answer);
        Py_DECREF(callback);
    }
    Py_XDECREF(context);
    return alert;
}

/* A copy of a hello, independent of the library's. */
typedef struct asked {
    pysock_ssl_client_hello hello;
    char name[256];
} asked;

static int ask(void *arg)
{
    asked *a = arg;
    connection_object *self = find(a->hello.socket);
    int alert = PYSOCK_ALERT_INTERNAL_ERROR;

    if (!self)
        return alert;
    if (a->hello.server_name)
        a->hello.server_name = a->name;
    alert = ask_callback(self, &a->hello);
    Py_DECREF(self);
    return alert;
}

int connection_sni_callback(void *arg, const pysock_ssl_client_hello *hello)
{
    asked a;

    a.hello = *hello;
    PyOS_snprintf(a.name, sizeof a.name, "%s", hello->server_name ? hello->server_name : "");
    return binding_call_back((binding *)arg, ask, &a, sizeof a, PYSOCK_ALERT_INTERNAL_ERROR);
}

/* ---- the message callback ---- */

static void tell_message(connection_object *self, const pysock_ssl_message *m)
{
    context_object *context = (context_object *)self->context; /* NULL: self is garbage */
    PyObject *callback = context ? context->message_callback : NULL;
    PyObject *owner = self->owner ? behind(self->owner) : behind(self->socket);

    if (callback && owner) {
        Py_INCREF(callback);
        Py_XDECREF(PyObject_CallFunction(callback, "Osiiiy#", owner, m->sent ? "write" : "read",
                                         m->version, m->content_type, m->type,
                                         (const char *)m->data, (Py_ssize_t)m->size));
        Py_DECREF(callback);
    }
    Py_XDECREF(owner);
}

/* A copy of a message, independent of the library's; its data follows. */
typedef struct told {
    pysock_ssl_message message;
    unsigned long thread; /* whose handshake it is */
} told;

/* An exception of the callback is raised by the call that drives the handshake, at its end; on a
   thread of the library's own there is no such call. */
static int tell(void *arg)
{
    told *t = arg;
    connection_object *self = PyErr_Occurred() ? NULL : find(t->message.socket);

    if (!self)
        return 0;
    t->message.data = t + 1;
    tell_message(self, &t->message);
    if (PyErr_Occurred() && t->thread != PyThread_get_thread_ident())
        PyErr_WriteUnraisable((PyObject *)self);
    Py_DECREF(self);
    return 0;
}

void connection_message_callback(void *arg, const pysock_ssl_message *message)
{
    size_t size = sizeof(told) + message->size;
    told *t = malloc(size);

    if (!t)
        return;
    t->message = *message;
    t->thread = PyThread_get_thread_ident();
    memcpy(t + 1, message->data, message->size);
    binding_call_back((binding *)arg, tell, t, size, 0);
    free(t);
}

/* ---- calls ---- */

/* As ssl_raise(); a host name mismatch is reported with the expected name. */
static PyObject *raise_of(connection_object *self, int doing, int line)
{
    ssl_state *st = self->st;
    const char *name = self->hostname != Py_None ? PyUnicode_AsUTF8(self->hostname) : NULL;
    int code = pysock_error_verify_code();
    char text[320];

    if (!PyErr_Occurred() && name && pysock_error() == PYSOCK_SSL_CERT_VERIFICATION_ERROR
        && (code == VERIFY_HOSTNAME_MISMATCH || code == VERIFY_IP_ADDRESS_MISMATCH)) {
        PyOS_snprintf(text, sizeof text, "%s mismatch, certificate is not valid for '%.255s'.",
                      code == VERIFY_HOSTNAME_MISMATCH ? "Hostname" : "IP address", name);
        return ssl_raise_error(st, st->verification, 1, "SSL", pysock_error_reason(), text, line);
    }
    return ssl_raise_at(st, doing, line);
}

static PyObject *connection_do_handshake(connection_object *self, PyObject *args)
{
    binding_call call;
    int r;

    (void)args;
    binding_begin(self->st->b, &call);
    r = pysock_ssl_do_handshake(self->s);
    binding_end(&call);
    if (r < 0 && !PyErr_Occurred() && pysock_error_code() == EINPROGRESS)
        return ssl_raise_error(self->st, self->st->want_read, 2, NULL, NULL,
                               "The operation did not complete (read)", __LINE__);
    if (r < 0 || PyErr_Occurred())
        return raise_of(self, SSL_SHAKING, __LINE__);
    Py_RETURN_NONE;
}

/* Continues the shutdown of TLS: 0 at its end, -1 with an exception. */
static int go_on_ending(connection_object *self)
{
    binding_call call;
    int r;

    if (self->ending == SSL_ENDED)
        return 0;
    self->ending = SSL_ENDING;
    binding_begin(self->st->b, &call);
    r = pysock_ssl_unwrap(self->s);
    binding_end(&call);
    if (r == 0)
        self->ending = SSL_ENDED;
    else if (pysock_error_code() == EINPROGRESS && !PyErr_Occurred())
        ssl_raise_error(self->st, self->st->want_read, 2, NULL, NULL,
                        "The operation did not complete (read)", __LINE__);
    else
        raise_of(self, SSL_READING, __LINE__);
    return r;
}

static PyObject *connection_shutdown(connection_object *self, PyObject *args)
{
    PyObject *socket;

    (void)args;
    if (go_on_ending(self) < 0)
        return NULL;
    if (!self->socket)
        Py_RETURN_NONE;
    socket = behind(self->socket);
    return socket ? socket : Py_NewRef(Py_None);
}

static ptrdiff_t receive(connection_object *self, void *buf, size_t size)
{
    binding_call call;
    ptrdiff_t n;

    binding_begin(self->st->b, &call);
    n = pysock_recv(self->s, buf, size, 0);
    binding_end(&call);
    if (PyErr_Occurred())
        return -1;
    if (n > 0 || (n == 0 && !self->ending))
        return n;
    if (n < 0)
        raise_of(self, SSL_READING, __LINE__);
    else /* both sides have ended */
        ssl_raise_error(self->st, self->st->zero_return, 6, NULL, NULL,
                        "TLS/SSL connection has been closed (EOF)", __LINE__);
    return -1;
}

static PyObject *read_into(connection_object *self, Py_ssize_t size, PyObject *buffer)
{
    Py_buffer view;
    ptrdiff_t n = 0;

    if (PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE) < 0) {
        PyErr_SetString(PyExc_TypeError, "read() argument 2 must be read-write bytes-like object");
        return NULL;
    }
    if (size <= 0 || size > view.len)
        size = view.len;
    if (size)
        n = receive(self, view.buf, (size_t)size);
    PyBuffer_Release(&view);
    return n < 0 ? NULL : PyLong_FromSsize_t(n);
}

#define READ_MAX ((Py_ssize_t)1 << 18) /* a record has less: a larger buffer gets no more */

static PyObject *connection_read(connection_object *self, PyObject *const *args, Py_ssize_t nargs)
{
    Py_ssize_t size;
    PyObject *bytes;
    ptrdiff_t n;

    if (binding_args("read", nargs, 1, 2) < 0)
        return NULL;
    size = PyNumber_AsSsize_t(args[0], PyExc_OverflowError);
    if (size == -1 && PyErr_Occurred())
        return NULL;
    if (nargs == 2)
        return read_into(self, size, args[1]);
    if (size < 0) {
        PyErr_SetString(PyExc_ValueError, "size should not be negative");
        return NULL;
    }
    bytes = PyBytes_FromStringAndSize(NULL, size < READ_MAX ? size : READ_MAX);
    if (!bytes || size == 0)
        return bytes;
    n = receive(self, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
    if (n < 0)
        Py_CLEAR(bytes);
    else if (n < PyBytes_GET_SIZE(bytes))
        _PyBytes_Resize(&bytes, n);
    return bytes;
}

/* If it may wait, or there is nothing to wait for, OpenSSL writes everything. */
static ptrdiff_t send_most(connection_object *self, const void *data, size_t size)
{
    if (size > 16384 && (self->owned || pysock_gettimeout(self->s) != 0))
        return pysock_sendall(self->s, data, size, 0) < 0 ? -1 : (ptrdiff_t)size;
    return pysock_send(self->s, data, size, 0);
}

static PyObject *connection_write(connection_object *self, PyObject *data)
{
    binding_call call;
    Py_buffer view;
    ptrdiff_t n = 0;

    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    if (view.len) {
        binding_begin(self->st->b, &call);
        n = send_most(self, view.buf, (size_t)view.len);
        binding_end(&call);
    }
    PyBuffer_Release(&view);
    if (n < 0 || PyErr_Occurred())
        return raise_of(self, SSL_WRITING, __LINE__);
    return PyLong_FromSsize_t(n);
}

static PyObject *connection_pending(connection_object *self, PyObject *args)
{
    (void)args;
    return PyLong_FromSsize_t(Py_MAX(pysock_ssl_pending(self->s), 0));
}

static PyObject *connection_post_handshake(connection_object *self, PyObject *args)
{
    (void)args; /* TLS 1.3 only */
    return ssl_raise_error(self->st, self->st->error, 266, "SSL", "WRONG_SSL_VERSION", NULL,
                           __LINE__);
}

/* ---- what was agreed ---- */

static int is_established(const connection_object *self)
{
    return pysock_ssl_version(self->s) != NULL;
}

static PyObject *text_or_none(const char *text)
{
    if (!text)
        Py_RETURN_NONE;
    return PyUnicode_FromString(text);
}

static PyObject *connection_getpeercert(connection_object *self, PyObject *args)
{
    PyObject *r = NULL;
    pysock_buf *der;
    int binary = 0;

    if (!PyArg_ParseTuple(args, "|p:getpeercert", &binary))
        return NULL;
    if (!is_established(self)) {
        PyErr_SetString(PyExc_ValueError, "handshake not done yet");
        return NULL;
    }
    der = pysock_ssl_getpeercert_der(self->s);
    if (!der)
        return ssl_raise(self->st, SSL_READING);
    if (pysock_buf_size(der) == 0)
        r = Py_NewRef(Py_None);
    else if (binary)
        r = ssl_bytes_from_buf(pysock_buf_retain(der));
    else if (self->verify_mode == PYSOCK_CERT_NONE)
        r = PyDict_New();
    else
        r = certificate_decode(self->st, pysock_buf_data(der), pysock_buf_size(der));
    pysock_buf_release(der);
    return r;
}

#define CHAIN_MAX 64

/* Certificate objects of a chain, or None if there is none. */
static PyObject *chain_list(connection_object *self,
                            ptrdiff_t (*get)(pysock *s, pysock_buf **out, size_t max))
{
    pysock_buf *chain[CHAIN_MAX];
    ptrdiff_t i, n = is_established(self) ? get(self->s, chain, CHAIN_MAX) : 0;
    PyObject *list, *item;

    if (n < 0)
        return ssl_raise(self->st, SSL_READING);
    if (n == 0)
        Py_RETURN_NONE;
    n = n < CHAIN_MAX ? n : CHAIN_MAX;
    list = PyList_New(0);
    for (i = 0; i < n; i++) {
        item = certificate_from_buf(self->st, chain[i]);
        if (list && (!item || PyList_Append(list, item) < 0))
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list;
}

static PyObject *connection_verified_chain(connection_object *self, PyObject *args)
{
    (void)args;
    return chain_list(self, pysock_ssl_get_verified_chain);
}

static PyObject *connection_unverified_chain(connection_object *self, PyObject *args)
{
    (void)args;
    return chain_list(self, pysock_ssl_get_unverified_chain);
}

static PyObject *cipher_tuple(const pysock_ssl_cipher_info *info)
{
    return Py_BuildValue("(ssi)", info->name, info->protocol, info->secret_bits);
}

static PyObject *connection_cipher(connection_object *self, PyObject *args)
{
    pysock_ssl_cipher_info info;

    (void)args;
    if (!is_established(self) || pysock_ssl_cipher(self->s, &info) < 0)
        Py_RETURN_NONE;
    return cipher_tuple(&info);
}

/* On a client, and before the handshake, what this side offers. */
static PyObject *connection_shared_ciphers(connection_object *self, PyObject *args)
{
    context_object *context = (context_object *)self->context;
    pysock_ssl_cipher_info infos[128];
    PyObject *list, *item;
    ptrdiff_t i, n;

    (void)args;
    if (self->server_side && is_established(self))
        n = pysock_ssl_shared_ciphers(self->s, infos, Py_ARRAY_LENGTH(infos));
    else
        n = pysock_ssl_get_ciphers(context->ctx, infos, Py_ARRAY_LENGTH(infos));
    if (n < 0)
        return ssl_raise(self->st, SSL_READING);
    list = PyList_New(0);
    for (i = 0; list && i < n && i < (ptrdiff_t)Py_ARRAY_LENGTH(infos); i++) {
        item = cipher_tuple(&infos[i]);
        if (!item || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list;
}

static PyObject *connection_version(connection_object *self, PyObject *args)
{
    (void)args;
    return text_or_none(pysock_ssl_version(self->s));
}

static PyObject *connection_alpn(connection_object *self, PyObject *args)
{
    char name[256];

    (void)args;
    return pysock_ssl_selected_alpn_protocol(self->s, name, sizeof name) > 0
               ? PyUnicode_FromString(name)
               : Py_NewRef(Py_None);
}

static PyObject *connection_compression(connection_object *self, PyObject *args)
{
    (void)args;
    return text_or_none(pysock_ssl_compression(self->s));
}

static PyObject *connection_channel_binding(connection_object *self, PyObject *args,
                                            PyObject *kwargs)
{
    static char *names[] = {"cb_type", NULL};
    const char *type = "tls-unique";
    unsigned char bytes[64];
    ptrdiff_t n;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|s:get_channel_binding", names, &type))
        return NULL;
    if (strcmp(type, "tls-unique") != 0)
        return PyErr_Format(PyExc_ValueError, "'%s' channel binding type not implemented", type);
    if (!is_established(self))
        Py_RETURN_NONE;
    n = pysock_ssl_get_channel_binding(self->s, type, bytes, sizeof bytes);
    if (n < 0)
        return ssl_raise(self->st, SSL_READING);
    return PyBytes_FromStringAndSize((const char *)bytes, n);
}

/* ---- properties ---- */

static PyObject *get_context(connection_object *self, void *closure)
{
    (void)closure;
    return Py_NewRef(self->context);
}

/* In an sni_callback the handshake continues with the new one, and before a handshake it begins
   with it; later it may be set, but has no effect. */
static int set_context(connection_object *self, PyObject *value, void *closure)
{
    pysock_ssl_context *ctx;

    (void)closure;
    if (!value || !PyObject_TypeCheck(value, self->st->context_type)) {
        PyErr_SetString(PyExc_TypeError, "The value must be a SSLContext");
        return -1;
    }
    ctx = ((context_object *)value)->ctx;
    if (pysock_ssl_set_context(self->s, ctx) == 0)
        self->verify_mode = pysock_ssl_get_verify_mode(ctx);
    else if (pysock_error_code() != EALREADY && pysock_error_code() != EBADF)
        return ssl_raise(self->st, SSL_SHAKING) ? 0 : -1;
    Py_SETREF(self->context, Py_NewRef(value));
    return 0;
}

static PyObject *get_server_side(connection_object *self, void *closure)
{
    (void)closure;
    return PyBool_FromLong(self->server_side);
}

static PyObject *get_server_hostname(connection_object *self, void *closure)
{
    (void)closure;
    return Py_NewRef(self->hostname);
}

static PyObject *get_owner(connection_object *self, void *closure)
{
    PyObject *owner = behind(self->owner);

    (void)closure;
    return owner ? owner : Py_NewRef(Py_None);
}

static int set_owner(connection_object *self, PyObject *value, void *closure)
{
    PyObject *owner = weak_or_null(value);

    (void)closure;
    if (!owner && PyErr_Occurred())
        return -1;
    Py_XSETREF(self->owner, owner);
    return 0;
}

static PyObject *get_session(connection_object *self, void *closure)
{
    PyTypeObject *type = self->st->session_type;
    pysock_ssl_session *session;
    session_object *o;

    (void)closure;
    session = is_established(self) ? pysock_ssl_get_session(self->s) : NULL;
    if (!session)
        Py_RETURN_NONE;
    o = (session_object *)type->tp_alloc(type, 0);
    if (!o) {
        pysock_ssl_session_release(session);
        return NULL;
    }
    o->session = session;
    o->context = Py_NewRef(self->context);
    return (PyObject *)o;
}

static int set_session(connection_object *self, PyObject *value, void *closure)
{
    (void)closure;
    if (!value)
        PyErr_SetString(PyExc_TypeError, "cannot delete attribute");
    if (!value || check_session(self, value) < 0)
        return -1;
    if (is_established(self)) {
        PyErr_SetString(PyExc_ValueError, "Cannot set session after handshake.");
        return -1;
    }
    if (pysock_ssl_set_session(self->s, ((session_object *)value)->session) == 0)
        return 0;
    ssl_raise(self->st, SSL_SHAKING);
    return -1;
}

static PyObject *get_session_reused(connection_object *self, void *closure)
{
    (void)closure;
    return PyBool_FromLong(pysock_ssl_session_reused(self->s));
}

static PyMethodDef connection_methods[] = {
    METHOD("do_handshake", connection_do_handshake, METH_NOARGS,
           SIGNED("do_handshake($self, /)", "Does or goes on with it.")),
    METHOD("read", connection_read, METH_FASTCALL, "read(size, [buffer])\nAt most size bytes."),
    METHOD("write", connection_write, METH_O,
           SIGNED("write($self, b, /)", "Sends bytes, and returns how many were taken.")),
    METHOD("pending", connection_pending, METH_NOARGS,
           SIGNED("pending($self, /)", "Decrypted bytes that wait.")),
    METHOD("shutdown", connection_shutdown, METH_NOARGS,
           SIGNED("shutdown($self, /)", "Ends TLS; returns the plain socket.")),
    METHOD("getpeercert", connection_getpeercert, METH_VARARGS,
           SIGNED("getpeercert($self, der=False, /)", "The peer's certificate.")),
    METHOD("get_verified_chain", connection_verified_chain, METH_NOARGS,
           SIGNED("get_verified_chain($self, /)", "The path to the anchor.")),
    METHOD("get_unverified_chain", connection_unverified_chain, METH_NOARGS,
           SIGNED("get_unverified_chain($self, /)", "What the peer has sent.")),
    METHOD("get_channel_binding", connection_channel_binding, METH_VARARGS | METH_KEYWORDS,
           SIGNED("get_channel_binding($self, /, cb_type='tls-unique')",
                  "RFC 5929's tls-unique; None before the handshake.")),
    METHOD("cipher", connection_cipher, METH_NOARGS,
           SIGNED("cipher($self, /)", "(name, version, bits) of the suite.")),
    METHOD("shared_ciphers", connection_shared_ciphers, METH_NOARGS,
           SIGNED("shared_ciphers($self, /)", "Those of both sides.")),
    METHOD("version", connection_version, METH_NOARGS,
           SIGNED("version($self, /)", "The version that is spoken.")),
    METHOD("selected_alpn_protocol", connection_alpn, METH_NOARGS,
           SIGNED("selected_alpn_protocol($self, /)", "What ALPN agreed on.")),
    METHOD("compression", connection_compression, METH_NOARGS,
           SIGNED("compression($self, /)", "None: there is none.")),
    METHOD("verify_client_post_handshake", connection_post_handshake, METH_NOARGS,
           SIGNED("verify_client_post_handshake($self, /)", "Of TLS 1.3, which is not spoken.")),
    {NULL, NULL, 0, NULL},
};

/* clang-format off */
#define READ_ONLY(name, doc) {#name, (getter)get_##name, NULL, doc, NULL}
#define PROPERTY(name, doc) {#name, (getter)get_##name, (setter)set_##name, doc, NULL}
/* clang-format on */

static PyGetSetDef connection_properties[] = {
    PROPERTY(context, "The SSLContext; an sni_callback may set another."),
    READ_ONLY(server_side, "Whether this is a server's end."),
    READ_ONLY(server_hostname, "Whom the client wants."),
    PROPERTY(owner, "The SSLSocket or SSLObject around this."),
    PROPERTY(session, "The session; before the handshake one to be resumed may be set."),
    READ_ONLY(session_reused, "Whether a session was resumed."),
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot connection_slots[] = {
    {Py_tp_traverse, connection_traverse}, {Py_tp_clear, connection_clear},
    {Py_tp_dealloc, connection_dealloc},   {Py_tp_methods, connection_methods},
    {Py_tp_getset, connection_properties}, {0, NULL},
};

PyType_Spec connection_spec = {
    .name = "_ssl._SSLSocket",
    .basicsize = sizeof(connection_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = connection_slots,
};

/* ---- SSLSession ---- */

static int session_traverse(session_object *self, visitproc visit, void *arg)
{
    Py_VISIT(self->context);
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static int session_clear(session_object *self)
{
    Py_CLEAR(self->context);
    return 0;
}

static void session_dealloc(session_object *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    session_clear(self);
    pysock_ssl_session_release(self->session);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *session_compare(session_object *self, PyObject *other, int op)
{
    unsigned char a[32], b[32];
    ptrdiff_t n;
    int same;

    if (Py_TYPE(self) != Py_TYPE(other) || (op != Py_EQ && op != Py_NE))
        Py_RETURN_NOTIMPLEMENTED;
    n = pysock_ssl_session_id(self->session, a);
    same = (PyObject *)self == other
           || (n > 0 && n == pysock_ssl_session_id(((session_object *)other)->session, b)
               && memcmp(a, b, (size_t)n) == 0);
    return PyBool_FromLong(same == (op == Py_EQ));
}

static PyObject *get_id(session_object *self, void *closure)
{
    unsigned char id[32];

    (void)closure;
    return PyBytes_FromStringAndSize((const char *)id, pysock_ssl_session_id(self->session, id));
}

static PyObject *get_time(session_object *self, void *closure)
{
    (void)closure;
    return PyLong_FromLongLong(pysock_ssl_session_time(self->session));
}

static PyObject *get_timeout(session_object *self, void *closure)
{
    (void)closure;
    return PyLong_FromLong(pysock_ssl_session_timeout(self->session));
}

static PyObject *get_has_ticket(session_object *self, void *closure)
{
    (void)self;
    (void)closure;
    Py_RETURN_FALSE;
}

static PyObject *get_ticket_lifetime_hint(session_object *self, void *closure)
{
    (void)self;
    (void)closure;
    return PyLong_FromLong(0);
}

static PyGetSetDef session_properties[] = {
    READ_ONLY(id, "The session's id."),
    READ_ONLY(time, "When it was made, in seconds since 1970."),
    READ_ONLY(timeout, "For how many seconds it may be resumed."),
    READ_ONLY(has_ticket, "False: there are ids alone."),
    READ_ONLY(ticket_lifetime_hint, "0."),
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot session_slots[] = {
    {Py_tp_traverse, session_traverse}, {Py_tp_clear, session_clear},
    {Py_tp_dealloc, session_dealloc},   {Py_tp_richcompare, session_compare},
    {Py_tp_getset, session_properties}, {0, NULL},
};

PyType_Spec session_spec = {
    .name = "_ssl.SSLSession",
    .basicsize = sizeof(session_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = session_slots,
};

/* ---- MemoryBIO ---- */

static PyObject *bio_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *module = PyType_GetModuleByDef(type, &ssl_module);
    bio_object *self;

    if (!module)
        return NULL;
    if (PyTuple_GET_SIZE(args) || (kwargs && PyDict_GET_SIZE(kwargs))) {
        PyErr_SetString(PyExc_TypeError, "MemoryBIO() takes no arguments");
        return NULL;
    }
    self = (bio_object *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->st = (ssl_state *)PyModule_GetState(module);
    self->bio = pysock_bio_new();
    if (self->bio)
        return (PyObject *)self;
    Py_DECREF(self);
    return PyErr_NoMemory();
}

static void bio_dealloc(bio_object *self)
{
    PyTypeObject *type = Py_TYPE(self);

    pysock_bio_release(self->bio);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *bio_read(bio_object *self, PyObject *const *args, Py_ssize_t nargs)
{
    Py_ssize_t size = -1, have = pysock_bio_pending(self->bio);
    PyObject *bytes;
    ptrdiff_t n;

    if (binding_args("read", nargs, 0, 1) < 0)
        return NULL;
    if (nargs == 1)
        size = PyNumber_AsSsize_t(args[0], PyExc_OverflowError);
    if (size == -1 && PyErr_Occurred())
        return NULL;
    if (size < 0 || size > have)
        size = have;
    bytes = PyBytes_FromStringAndSize(NULL, size);
    if (!bytes || size == 0)
        return bytes;
    n = pysock_bio_read(self->bio, PyBytes_AS_STRING(bytes), (size_t)size);
    if (n < size)
        _PyBytes_Resize(&bytes, n);
    return bytes;
}

static PyObject *bio_write(bio_object *self, PyObject *data)
{
    Py_buffer view;
    ptrdiff_t n;

    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    n = pysock_bio_write(self->bio, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    if (n >= 0)
        return PyLong_FromSsize_t(n);
    if (pysock_error() != PYSOCK_SSL_ERROR)
        return ssl_raise(self->st, SSL_WRITING);
    PyErr_SetString(self->st->error, "cannot write() after write_eof()");
    return NULL;
}

static PyObject *bio_write_eof(bio_object *self, PyObject *args)
{
    (void)args;
    pysock_bio_write_eof(self->bio);
    Py_RETURN_NONE;
}

static PyObject *get_pending(bio_object *self, void *closure)
{
    (void)closure;
    return PyLong_FromSsize_t(pysock_bio_pending(self->bio));
}

static PyObject *get_eof(bio_object *self, void *closure)
{
    (void)closure;
    return PyBool_FromLong(pysock_bio_eof(self->bio));
}

static PyMethodDef bio_methods[] = {
    METHOD("read", bio_read, METH_FASTCALL,
           SIGNED("read($self, size=-1, /)", "At most size bytes, or all.")),
    METHOD("write", bio_write, METH_O,
           SIGNED("write($self, b, /)", "Appends bytes, and returns how many.")),
    METHOD("write_eof", bio_write_eof, METH_NOARGS,
           SIGNED("write_eof($self, /)", "No more will come.")),
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef bio_properties[] = {
    READ_ONLY(pending, "How many bytes there are."),
    READ_ONLY(eof, "Whether all was read, and no more will come."),
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot bio_slots[] = {
    {Py_tp_new, bio_new},
    {Py_tp_dealloc, bio_dealloc},
    {Py_tp_methods, bio_methods},
    {Py_tp_getset, bio_properties},
    {0, NULL},
};

PyType_Spec bio_spec = {
    .name = "_ssl.MemoryBIO",
    .basicsize = sizeof(bio_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = bio_slots,
};
