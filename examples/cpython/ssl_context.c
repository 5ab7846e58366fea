/* _SSLContext: settings, certificates and keys for connections. */
#include "ssl_objects.h"

/* OpenSSL's defaults. */
#define CONTEXT_OPTIONS                                                                            \
    (PYSOCK_OP_ALL | PYSOCK_OP_NO_SSLv3 | PYSOCK_OP_CIPHER_SERVER_PREFERENCE                       \
     | PYSOCK_OP_NO_COMPRESSION | PYSOCK_OP_ENABLE_MIDDLEBOX_COMPAT                                \
     | PYSOCK_OP_IGNORE_UNEXPECTED_EOF)

#ifndef PYSOCK_OP_LEGACY_SERVER_CONNECT
#define PYSOCK_OP_LEGACY_SERVER_CONNECT ((uint64_t)0) /* the library needs no such option */
#endif

/* Options that the library has. Others are workarounds for bugs that it does not have. */
#define CONTEXT_KNOWN_OPTIONS                                                                      \
    (CONTEXT_OPTIONS | PYSOCK_OP_NO_TICKET | PYSOCK_OP_NO_TLSv1 | PYSOCK_OP_NO_TLSv1_1             \
     | PYSOCK_OP_NO_TLSv1_2 | PYSOCK_OP_NO_TLSv1_3 | PYSOCK_OP_NO_RENEGOTIATION                    \
     | PYSOCK_OP_ALLOW_CLIENT_RENEGOTIATION | PYSOCK_OP_LEGACY_SERVER_CONNECT)

#define HOST_NO_PARTIAL_WILDCARDS 0x4u
#define HOST_NEVER_CHECK_SUBJECT 0x20u

static int warn_deprecated(const char *what)
{
    return PyErr_WarnFormat(PyExc_DeprecationWarning, 2, "ssl.%s is deprecated", what);
}

/* Whether a protocol means exactly one version. */
static int is_fixed(int protocol)
{
    return protocol == PYSOCK_PROTOCOL_TLSv1 || protocol == PYSOCK_PROTOCOL_TLSv1_1
           || protocol == PYSOCK_PROTOCOL_TLSv1_2;
}

static int warn_of_protocol(int protocol)
{
    switch (protocol) {
    case PYSOCK_PROTOCOL_TLS: return warn_deprecated("PROTOCOL_TLS");
    case PYSOCK_PROTOCOL_TLSv1: return warn_deprecated("PROTOCOL_TLSv1");
    case PYSOCK_PROTOCOL_TLSv1_1: return warn_deprecated("PROTOCOL_TLSv1_1");
    case PYSOCK_PROTOCOL_TLSv1_2: return warn_deprecated("PROTOCOL_TLSv1_2");
    default: return 0;
    }
}

/* Python's defaults, where the library has others. The lowest version is the library's, as with an
   OpenSSL configured with MinProtocol = TLSv1.2: minimum_version reports and changes it. */
static int set_defaults(context_object *self)
{
    self->minimum = is_fixed(self->protocol) ? PYSOCK_MINIMUM_SUPPORTED : PYSOCK_TLSv1_2;
    self->maximum = PYSOCK_MAXIMUM_SUPPORTED;
    self->options = (unsigned long)CONTEXT_OPTIONS;
    self->verify_flags = PYSOCK_VERIFY_X509_TRUSTED_FIRST;
    self->host_flags = HOST_NO_PARTIAL_WILDCARDS;
    self->num_tickets = 2;
    if (!is_fixed(self->protocol) && pysock_ssl_set_minimum_version(self->ctx, self->minimum) < 0)
        return -1;
    if (pysock_ssl_set_options(self->ctx, CONTEXT_OPTIONS | PYSOCK_OP_COMPLETE_CHAIN) < 0
        || pysock_ssl_set_hostname_checks_common_name(self->ctx, 1) < 0
        || pysock_ssl_set_ciphers(self->ctx, "DEFAULT") < 0
        || pysock_ssl_set_verify_flags(self->ctx, PYSOCK_VERIFY_X509_TRUSTED_FIRST) < 0)
        return -1;
    if (self->protocol != PYSOCK_PROTOCOL_TLS_CLIENT)
        return 0;
    return pysock_ssl_set_session_cache(self->ctx, 0); /* Python resumes only given sessions */
}

static PyObject *context_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *module = PyType_GetModuleByDef(type, &ssl_module);
    context_object *self;
    int protocol;

    if (!module)
        return NULL;
    if (PyTuple_GET_SIZE(args) != 1 || (kwargs && PyDict_GET_SIZE(kwargs)))
        return PyErr_Format(PyExc_TypeError, "_SSLContext expected 1 argument, got %zd",
                            PyTuple_GET_SIZE(args));
    if (binding_int(PyTuple_GET_ITEM(args, 0), &protocol) < 0)
        return NULL;
    if (warn_of_protocol(protocol) < 0)
        return NULL;
    self = (context_object *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->st = (ssl_state *)PyModule_GetState(module);
    self->protocol = protocol;
    self->ctx = pysock_ssl_context_new_protocol(protocol);
    if (self->ctx && set_defaults(self) == 0)
        return (PyObject *)self;
    if (!self->ctx && pysock_error() == PYSOCK_VALUE_ERROR)
        PyErr_Format(PyExc_ValueError, "invalid or unsupported protocol version %i", protocol);
    else
        ssl_raise(self->st, SSL_READING);
    Py_DECREF(self);
    return NULL;
}

static int context_traverse(context_object *self, visitproc visit, void *arg)
{
    Py_VISIT(self->sni_callback);
    Py_VISIT(self->message_callback);
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static int context_clear(context_object *self)
{
    Py_CLEAR(self->sni_callback);
    Py_CLEAR(self->message_callback);
    return 0;
}

static void context_dealloc(context_object *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    context_clear(self);
    if (self->ctx) {
        pysock_ssl_set_sni_callback(self->ctx, NULL, NULL);
        pysock_ssl_set_message_callback(self->ctx, NULL, NULL);
        pysock_ssl_context_release(self->ctx);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

/* None, or the exception for a call that has failed. */
static PyObject *none_or_raise(context_object *self, int r)
{
    if (r < 0)
        return ssl_raise(self->st, SSL_READING);
    Py_RETURN_NONE;
}

static int zero_or_raise(context_object *self, int r)
{
    if (r < 0)
        ssl_raise(self->st, SSL_READING);
    return r < 0 ? -1 : 0;
}

/* ---- wrapping ---- */

/* A server_hostname is ASCII, without NUL, or None. */
static int check_hostname_argument(PyObject *name)
{
    Py_ssize_t n;

    if (name == Py_None)
        return 0;
    if (!PyUnicode_Check(name)) {
        PyErr_Format(PyExc_TypeError, "argument must be str, not %.50s", Py_TYPE(name)->tp_name);
        return -1;
    }
    if (PyUnicode_READY(name) < 0)
        return -1;
    if (!PyUnicode_IS_ASCII(name)) {
        Py_XDECREF(PyUnicode_AsASCIIString(name)); /* sets the exception */
        return -1;
    }
    n = PyUnicode_GET_LENGTH(name);
    if (strlen((const char *)PyUnicode_1BYTE_DATA(name)) != (size_t)n) {
        PyErr_SetString(PyExc_TypeError,
                        "argument must be encoded string without null bytes, not str");
        return -1;
    }
    return 0;
}

/* Whether the context can be used on that side. */
static int check_side(context_object *self, int server_side)
{
    const char *text;

    if (self->protocol == PYSOCK_PROTOCOL_TLS_CLIENT && server_side)
        text = "Cannot create a server socket with a PROTOCOL_TLS_CLIENT context";
    else if (self->protocol == PYSOCK_PROTOCOL_TLS_SERVER && !server_side)
        text = "Cannot create a client socket with a PROTOCOL_TLS_SERVER context";
    else
        return 0;
    ssl_raise_error(self->st, self->st->error, 0, NULL, NULL, text, __LINE__);
    return -1;
}

#define HOSTNAME_MAX 255                      /* bytes of a name in the server_name extension */
#define SSL_R_SSL3_EXT_INVALID_SERVERNAME 319 /* OpenSSL's number */

/* Whether a server_hostname is a valid name. */
static int check_hostname_value(context_object *self, PyObject *name)
{
    Py_ssize_t n = name == Py_None ? 1 : PyUnicode_GET_LENGTH(name);

    if (n == 0 || (name != Py_None && PyUnicode_READ_CHAR(name, 0) == '.')) {
        PyErr_SetString(PyExc_ValueError, "server_hostname cannot be an empty string or start "
                                          "with a leading dot.");
        return -1;
    }
    if (n > HOSTNAME_MAX) {
        ssl_raise_error(self->st, self->st->error, SSL_R_SSL3_EXT_INVALID_SERVERNAME, "SSL",
                        "SSL3_EXT_INVALID_SERVERNAME", NULL, __LINE__);
        return -1;
    }
    return 0;
}

static PyObject *context_wrap_socket(context_object *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"sock", "server_side", "server_hostname", "owner", "session", NULL};
    PyObject *sock, *hostname = Py_None, *owner = Py_None, *session = Py_None;
    int server_side;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Op|O$OO:_wrap_socket", names, &sock,
                                     &server_side, &hostname, &owner, &session))
        return NULL;
    if (!self->st->b->is_socket || !self->st->b->is_socket(sock))
        return PyErr_Format(PyExc_TypeError,
                            "_wrap_socket() argument 'sock' must be _socket.socket, not %.50s",
                            Py_TYPE(sock)->tp_name);
    if (check_hostname_argument(hostname) < 0 || check_side(self, server_side) < 0
        || check_hostname_value(self, hostname) < 0)
        return NULL;
    return connection_wrap_socket(self, sock, server_side, hostname, owner, session);
}

static PyObject *context_wrap_bio(context_object *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"incoming", "outgoing", "server_side", "server_hostname",
                            "owner",    "session",  NULL};
    PyObject *incoming, *outgoing, *hostname = Py_None, *owner = Py_None, *session = Py_None;
    int server_side;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!p|O$OO:_wrap_bio", names,
                                     self->st->bio_type, &incoming, self->st->bio_type, &outgoing,
                                     &server_side, &hostname, &owner, &session))
        return NULL;
    if (check_hostname_argument(hostname) < 0 || check_side(self, server_side) < 0
        || check_hostname_value(self, hostname) < 0)
        return NULL;
    return connection_wrap_bio(self, (bio_object *)incoming, (bio_object *)outgoing, server_side,
                               hostname, owner, session);
}

/* ---- certificates and keys ---- */

/* A path's bytes into *path (a new reference), NULL for None. */
static int take_path(PyObject *o, const char *name, PyObject **path)
{
    *path = NULL;
    if (!o || o == Py_None)
        return 0;
    if (PyUnicode_FSConverter(o, path))
        return 0;
    if (PyErr_ExceptionMatches(PyExc_TypeError))
        PyErr_Format(PyExc_TypeError, "%s should be a valid filesystem path", name);
    return -1;
}

static const char *path_text(PyObject *path)
{
    return path ? PyBytes_AS_STRING(path) : NULL;
}

#define PASSWORD_MAX 1024

/* Copies a password from a str, bytes or bytearray, with a NUL after it. Its length; -1 with an
   exception: of_type is the message for a wrong type. */
static Py_ssize_t copy_password(PyObject *o, const char *of_type, char *buf)
{
    const char *text;
    Py_ssize_t n;

    if (PyUnicode_Check(o)) {
        text = PyUnicode_AsUTF8AndSize(o, &n);
        if (!text)
            return -1;
    } else if (PyBytes_Check(o)) {
        text = PyBytes_AS_STRING(o);
        n = PyBytes_GET_SIZE(o);
    } else if (PyByteArray_Check(o)) {
        text = PyByteArray_AS_STRING(o);
        n = PyByteArray_GET_SIZE(o);
    } else {
        PyErr_SetString(PyExc_TypeError, of_type);
        return -1;
    }
    if (n > PASSWORD_MAX) {
        PyErr_Format(PyExc_ValueError, "password cannot be longer than %d bytes", PASSWORD_MAX);
        return -1;
    }
    memcpy(buf, text, (size_t)n);
    buf[n] = '\0';
    return n;
}

typedef struct password_question {
    binding *b;
    PyObject *callback; /* borrowed */
    char *buf;
    size_t size;
} password_question;

/* The password's length; -1 with an exception, which the call raises. */
static int ask_in_python(void *arg)
{
    password_question *q = arg;
    PyObject *answer = PyObject_CallNoArgs(q->callback);
    char text[PASSWORD_MAX + 1];
    Py_ssize_t n;

    if (!answer)
        return -1;
    n = copy_password(answer, "password callback must return a string", text);
    Py_DECREF(answer);
    if (n >= 0)
        memcpy(q->buf, text, (size_t)n < q->size ? (size_t)n : q->size);
    return (int)n;
}

/* The library calls this on the thread of the call. */
static ptrdiff_t ask_password(void *arg, char *buf, size_t size)
{
    password_question *q = arg;

    q->buf = buf;
    q->size = size;
    return binding_call_back(q->b, ask_in_python, q, sizeof *q, -1);
}

/* OpenSSL attributes errors in a file to its PEM library. */
static PyObject *raise_of_file(context_object *self, const char *library, int line)
{
    if (PyErr_Occurred())
        return NULL;
    if (pysock_error() != PYSOCK_SSL_ERROR
        || (strcmp(pysock_error_library(), "PEM") != 0
            && strcmp(pysock_error_reason(), "PEM_LIB") != 0))
        return ssl_raise_at(self->st, SSL_READING, line);
    return ssl_raise_error(self->st, self->st->error, 524297, library, NULL, "PEM lib", line);
}

static PyObject *load_chain(context_object *self, PyObject *cert, PyObject *key, PyObject *password)
{
    password_question question = {self->st->b, password, NULL, 0};
    pysock_ssl_chain_options options = PYSOCK_SSL_CHAIN_OPTIONS_INIT;
    char text[PASSWORD_MAX + 1];
    binding_call call;
    int r;

    options.certfile = path_text(cert);
    options.keyfile = path_text(key);
    if (password != Py_None && PyCallable_Check(password)) {
        options.password_callback = ask_password;
        options.arg = &question;
    } else if (password != Py_None) {
        if (copy_password(password, "password should be a string or callable", text) < 0)
            return NULL;
        options.password = text;
    }
    binding_begin(self->st->b, &call);
    r = pysock_ssl_load_cert_chain_ex(self->ctx, &options);
    binding_end(&call);
    if (r < 0)
        return raise_of_file(self, "SSL", __LINE__);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *context_load_cert_chain(context_object *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"certfile", "keyfile", "password", NULL};
    PyObject *certfile, *keyfile = Py_None, *password = Py_None, *cert, *key = NULL, *r = NULL;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OO:load_cert_chain", names, &certfile,
                                     &keyfile, &password))
        return NULL;
    if (certfile == Py_None) {
        PyErr_SetString(PyExc_TypeError, "certfile should be a valid filesystem path");
        return NULL;
    }
    if (take_path(certfile, "certfile", &cert) < 0)
        return NULL;
    if (take_path(keyfile, "keyfile", &key) == 0)
        r = load_chain(self, cert, key, password);
    Py_XDECREF(cert);
    Py_XDECREF(key);
    return r;
}

/* Certificates in memory: PEM as an ASCII str, DER as bytes. */
static int load_cadata(context_object *self, PyObject *data)
{
    ssl_state *st = self->st;
    int pem = PyUnicode_Check(data), r;
    Py_buffer view;

    if (pem && !PyUnicode_IS_ASCII(data)) {
        PyErr_SetString(PyExc_TypeError, "cadata should be an ASCII string or a bytes-like object");
        return -1;
    }
    if (pem) {
        PyBuffer_FillInfo(&view, data, PyUnicode_1BYTE_DATA(data), PyUnicode_GET_LENGTH(data), 1,
                          PyBUF_SIMPLE);
    } else if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        PyErr_SetString(PyExc_TypeError, "cadata should be an ASCII string or a bytes-like object");
        return -1;
    }
    r = -1;
    if (view.len == 0)
        PyErr_SetString(PyExc_ValueError, "Empty certificate data");
    else if (pysock_ssl_load_verify_data(self->ctx, view.buf, (size_t)view.len) == 0)
        r = 0;
    else if (pysock_error() != PYSOCK_SSL_ERROR)
        ssl_raise(st, SSL_READING);
    else if (pem)
        ssl_raise_error(st, st->error, 1, "PEM", "NO_START_LINE",
                        "cadata does not contain a certificate", __LINE__);
    else
        ssl_raise_error(st, st->error, 1, "ASN1", "NOT_ENOUGH_DATA",
                        "cadata does not contain a certificate", __LINE__);
    PyBuffer_Release(&view);
    return r;
}

/* A directory without hashed names is an error in C; here it trusts nothing, as in Python. */
static int load_locations(context_object *self, PyObject *file, PyObject *path)
{
    const char *reason;
    int r = 0;

    Py_BEGIN_ALLOW_THREADS if (file) r =
        pysock_ssl_load_verify_locations(self->ctx, path_text(file), NULL);
    if (r == 0 && path) {
        r = pysock_ssl_load_verify_locations(self->ctx, NULL, path_text(path));
        reason = r < 0 ? pysock_error_reason() : NULL;
        if (reason && strcmp(reason, "NO_CERTIFICATE_OR_CRL_FOUND") == 0)
            r = 0;
    }
    Py_END_ALLOW_THREADS if (r < 0) raise_of_file(self, "X509", __LINE__);
    return r;
}

static PyObject *context_load_verify_locations(context_object *self, PyObject *args,
                                               PyObject *kwargs)
{
    static char *names[] = {"cafile", "capath", "cadata", NULL};
    PyObject *cafile = Py_None, *capath = Py_None, *cadata = Py_None, *file, *path = NULL;
    int r = -1;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OOO:load_verify_locations", names, &cafile,
                                     &capath, &cadata))
        return NULL;
    if (cafile == Py_None && capath == Py_None && cadata == Py_None) {
        PyErr_SetString(PyExc_TypeError, "cafile, capath and cadata cannot be all omitted");
        return NULL;
    }
    if (take_path(cafile, "cafile", &file) < 0)
        return NULL;
    if (take_path(capath, "capath", &path) == 0
        && (cadata == Py_None || load_cadata(self, cadata) == 0))
        r = load_locations(self, file, path);
    Py_XDECREF(file);
    Py_XDECREF(path);
    if (r < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *context_set_default_verify_paths(context_object *self, PyObject *args)
{
    int r;

    (void)args;
    Py_BEGIN_ALLOW_THREADS r = pysock_ssl_load_default_certs(self->ctx);
    Py_END_ALLOW_THREADS if (r < 0
                             && pysock_error() == PYSOCK_MEMORY_ERROR) return PyErr_NoMemory();
    Py_RETURN_NONE; /* without a trust store, the first handshake fails */
}

/* Whether a line of the file begins with beginning. errno: 0, or why it could not be read. */
static int file_has_line(const char *path, const char *beginning)
{
    FILE *f = fopen(path, "rbe");
    size_t size = 0;
    char *line = NULL;
    int found = 0;

    if (!f)
        return 0;
    errno = 0;
    while (!found && getline(&line, &size, f) >= 0)
        found = strncmp(line, beginning, strlen(beginning)) == 0;
    if (!ferror(f))
        errno = 0;
    free(line);
    fclose(f);
    return found;
}

static PyObject *context_load_dh_params(context_object *self, PyObject *arg)
{
    PyObject *path;
    int found, code;

    if (PySys_Audit("open", "Osi", arg, "rb", 0) < 0 || !PyUnicode_FSConverter(arg, &path))
        return NULL;
    Py_BEGIN_ALLOW_THREADS found =
        file_has_line(PyBytes_AS_STRING(path), "-----BEGIN DH PARAMETERS-----");
    code = errno;
    Py_END_ALLOW_THREADS Py_DECREF(path);
    errno = code;
    if (!found && code)
        return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, arg);
    if (!found)
        return ssl_raise_error(self->st, self->st->error, 108, "PEM", "NO_START_LINE", NULL,
                               __LINE__);
    Py_RETURN_NONE; /* there is no finite-field DHE, so they are not needed */
}

static PyObject *context_get_ca_certs(context_object *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"binary_form", NULL};
    pysock_buf **certs = NULL;
    ptrdiff_t i, n, max = 0;
    PyObject *list = NULL, *item;
    int binary = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|p:get_ca_certs", names, &binary))
        return NULL;
    n = pysock_ssl_get_ca_certs(self->ctx, NULL, 0);
    if (n < 0)
        return ssl_raise(self->st, SSL_READING);
    certs = PyMem_Calloc((size_t)n + 1, sizeof *certs);
    if (!certs)
        return PyErr_NoMemory();
    max = n;
    n = pysock_ssl_get_ca_certs(self->ctx, certs, (size_t)max);
    list = n < 0 ? ssl_raise(self->st, SSL_READING) : PyList_New(0);
    n = n < max ? n : max;
    for (i = 0; i < n; i++) {
        item = NULL;
        if (list && binary)
            item = ssl_bytes_from_buf(pysock_buf_retain(certs[i]));
        else if (list)
            item =
                certificate_decode(self->st, pysock_buf_data(certs[i]), pysock_buf_size(certs[i]));
        if (list && (!item || PyList_Append(list, item) < 0))
            Py_CLEAR(list);
        Py_XDECREF(item);
        pysock_buf_release(certs[i]);
    }
    PyMem_Free(certs);
    return list;
}

static PyObject *context_cert_store_stats(context_object *self, PyObject *args)
{
    pysock_ssl_store_stats stats;

    (void)args;
    if (pysock_ssl_cert_store_stats(self->ctx, &stats) < 0)
        return ssl_raise(self->st, SSL_READING);
    return Py_BuildValue("{snsnsn}", "x509", (Py_ssize_t)stats.x509, "crl", (Py_ssize_t)stats.crl,
                         "x509_ca", (Py_ssize_t)stats.x509_ca);
}

static PyObject *context_session_stats(context_object *self, PyObject *args)
{
    pysock_ssl_session_stats s;

    (void)args;
    if (pysock_ssl_get_session_stats(self->ctx, &s) < 0)
        return ssl_raise(self->st, SSL_READING);
    return Py_BuildValue("{sKsKsKsKsKsKsKsKsKsKsK}", "number", s.number, "connect", s.connect,
                         "connect_good", s.connect_good, "connect_renegotiate",
                         s.connect_renegotiate, "accept", s.accept, "accept_good", s.accept_good,
                         "accept_renegotiate", s.accept_renegotiate, "hits", s.hits, "misses",
                         s.misses, "timeouts", s.timeouts, "cache_full", s.cache_full);
}

/* ---- cipher suites and protocols ---- */

static PyObject *context_set_ciphers(context_object *self, PyObject *arg)
{
    const char *list = PyUnicode_Check(arg) ? PyUnicode_AsUTF8(arg) : NULL;

    if (!list && !PyErr_Occurred())
        PyErr_Format(PyExc_TypeError, "set_ciphers() argument must be str, not %.50s",
                     Py_TYPE(arg)->tp_name);
    if (!list)
        return NULL;
    if (pysock_ssl_set_ciphers(self->ctx, list) == 0)
        Py_RETURN_NONE;
    if (pysock_error() != PYSOCK_SSL_ERROR)
        return ssl_raise(self->st, SSL_READING);
    PyErr_SetString(self->st->error, "No cipher can be selected.");
    return NULL;
}

/* A line as "openssl ciphers -v" writes it. */
static PyObject *describe_cipher(const pysock_ssl_cipher_info *c)
{
    char kx[24], au[24], text[200];

    PyOS_snprintf(kx, sizeof kx, "%s", strchr(c->kea, '-') ? strchr(c->kea, '-') + 1 : c->kea);
    PyOS_snprintf(au, sizeof au, "%s", strchr(c->auth, '-') ? strchr(c->auth, '-') + 1 : c->auth);
    PyOS_snprintf(text, sizeof text, "%-30s %-7s Kx=%-8s Au=%-5s Enc=%-22s Mac=%-4s", c->name,
                  c->protocol, kx, au, c->symmetric, c->aead || !c->digest ? "AEAD" : c->digest);
    return PyUnicode_FromString(text);
}

static PyObject *cipher_dict(const pysock_ssl_cipher_info *c)
{
    return Py_BuildValue("{sisssssNsisisOsssssssz}", "id", c->id | 0x3000000, "name", c->name,
                         "protocol", c->protocol, "description", describe_cipher(c),
                         "strength_bits", c->secret_bits, "alg_bits", c->alg_bits, "aead",
                         c->aead ? Py_True : Py_False, "symmetric", c->symmetric, "kea", c->kea,
                         "auth", c->auth, "digest", c->digest);
}

static PyObject *context_get_ciphers(context_object *self, PyObject *args)
{
    pysock_ssl_cipher_info ciphers[128];
    ptrdiff_t i, n = pysock_ssl_get_ciphers(self->ctx, ciphers, Py_ARRAY_LENGTH(ciphers));
    PyObject *list, *item;

    (void)args;
    if (n < 0)
        return ssl_raise(self->st, SSL_READING);
    list = PyList_New(0);
    for (i = 0; list && i < n; i++) {
        item = cipher_dict(&ciphers[i]);
        if (!item || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list;
}

static PyObject *context_set_ecdh_curve(context_object *self, PyObject *arg)
{
    PyObject *name;
    int r;

    if (!PyUnicode_FSConverter(arg, &name))
        return NULL;
    r = pysock_ssl_set_ecdh_curve(self->ctx, PyBytes_AS_STRING(name));
    if (r < 0 && pysock_error() == PYSOCK_VALUE_ERROR)
        PyErr_Format(PyExc_ValueError, "unknown elliptic curve name %R", arg);
    else if (r < 0)
        ssl_raise(self->st, SSL_READING);
    Py_DECREF(name);
    if (r < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* Names, each with its length in the byte before it, as ALPN sends them. */
static PyObject *context_set_alpn_protocols(context_object *self, PyObject *args)
{
    const char *names[256];
    char text[65536];
    Py_ssize_t at, n;
    size_t count = 0, used = 0;
    Py_buffer view;
    int r = -1;

    if (!PyArg_ParseTuple(args, "y*:_set_alpn_protocols", &view))
        return NULL;
    for (at = 0; at < view.len && view.len < 65536; at += 1 + n) {
        n = ((const unsigned char *)view.buf)[at];
        if (n == 0 || n >= view.len - at || count == Py_ARRAY_LENGTH(names))
            break;
        names[count++] = text + used;
        memcpy(text + used, (const char *)view.buf + at + 1, (size_t)n);
        used += (size_t)n;
        text[used++] = '\0';
    }
    if (at == view.len)
        r = pysock_ssl_set_alpn_protocols(self->ctx, names, count);
    else
        PyErr_SetString(PyExc_ValueError, "protos is not a list of names with their lengths");
    PyBuffer_Release(&view);
    return PyErr_Occurred() ? NULL : none_or_raise(self, r);
}

/* ---- properties ---- */

/* Checks a setter's value: NULL, which means del, is refused. */
static int is_given(PyObject *value)
{
    if (!value)
        PyErr_SetString(PyExc_TypeError, "cannot delete attribute");
    return value != NULL;
}

static PyObject *get_check_hostname(context_object *self, void *closure)
{
    (void)closure;
    return PyBool_FromLong(pysock_ssl_get_check_hostname(self->ctx));
}

static int set_check_hostname(context_object *self, PyObject *value, void *closure)
{
    int on = is_given(value) ? PyObject_IsTrue(value) : -1;

    (void)closure;
    return on < 0 ? -1 : zero_or_raise(self, pysock_ssl_set_check_hostname(self->ctx, on));
}

static PyObject *get_host_flags(context_object *self, void *closure)
{
    (void)closure;
    return PyLong_FromUnsignedLong(self->host_flags);
}

static int set_host_flags(context_object *self, PyObject *value, void *closure)
{
    unsigned long flags = is_given(value) ? PyLong_AsUnsignedLongMask(value) : (unsigned long)-1;

    (void)closure;
    if (flags == (unsigned long)-1 && PyErr_Occurred())
        return -1;
    self->host_flags = (unsigned)flags;
    return zero_or_raise(self, pysock_ssl_set_hostname_checks_common_name(
                                   self->ctx, !(flags & HOST_NEVER_CHECK_SUBJECT)));
}

/* Python deprecates all except the newest two. */
static int warn_of_version(int version)
{
    switch (version) {
    case PYSOCK_SSLv3: return warn_deprecated("TLSVersion.SSLv3");
    case PYSOCK_TLSv1: return warn_deprecated("TLSVersion.TLSv1");
    case PYSOCK_TLSv1_1: return warn_deprecated("TLSVersion.TLSv1_1");
    default: return 0;
    }
}

/* One of Python's versions; the library checks whether it supports it. */
static int take_version(context_object *self, PyObject *value, int *version)
{
    long v = is_given(value) ? PyLong_AsLong(value) : -1;

    if (v == -1 && PyErr_Occurred())
        return -1;
    if (v > INT_MAX) {
        PyErr_SetString(PyExc_OverflowError, "Option is too long");
        return -1;
    }
    if (is_fixed(self->protocol)) {
        PyErr_SetString(PyExc_ValueError, "The context's protocol doesn't support modification of "
                                          "highest and lowest version.");
        return -1;
    }
    if (v != PYSOCK_MINIMUM_SUPPORTED && v != PYSOCK_MAXIMUM_SUPPORTED
        && (v < PYSOCK_SSLv3 || v > PYSOCK_TLSv1_3)) {
        PyErr_Format(PyExc_ValueError, "Unsupported TLS/SSL version 0x%x", (unsigned)v);
        return -1;
    }
    *version = (int)v;
    return warn_of_version(*version);
}

/* The library refuses bounds that no handshake could satisfy: a lowest version above all that it
   has, or a highest one below. That is Python's ValueError. */
static int set_version(context_object *self, int version,
                       int (*set)(pysock_ssl_context *ctx, int version))
{
    if (set(self->ctx, version) == 0)
        return 0;
    if (pysock_error() == PYSOCK_MEMORY_ERROR)
        ssl_raise(self->st, SSL_READING);
    else
        PyErr_Format(PyExc_ValueError, "Unsupported protocol version 0x%x", (unsigned)version);
    return -1;
}

static PyObject *get_minimum_version(context_object *self, void *closure)
{
    (void)closure;
    return PyLong_FromLong(self->minimum);
}

static int set_minimum_version(context_object *self, PyObject *value, void *closure)
{
    int version;

    (void)closure;
    if (take_version(self, value, &version) < 0)
        return -1;
    if (version == PYSOCK_MAXIMUM_SUPPORTED)
        version = PYSOCK_TLSv1_2;
    if (set_version(self, version, pysock_ssl_set_minimum_version) < 0)
        return -1;
    self->minimum = version;
    return 0;
}

static PyObject *get_maximum_version(context_object *self, void *closure)
{
    (void)closure;
    return PyLong_FromLong(self->maximum);
}

static int set_maximum_version(context_object *self, PyObject *value, void *closure)
{
    int version;

    (void)closure;
    if (take_version(self, value, &version) < 0)
        return -1;
    if (version == PYSOCK_MINIMUM_SUPPORTED)
        version = PYSOCK_TLSv1;
    if (set_version(self, version, pysock_ssl_set_maximum_version) < 0)
        return -1;
    self->maximum = version;
    return 0;
}

static PyObject *get_keylog_filename(context_object *self, void *closure)
{
    char name[4096];

    (void)closure;
    if (pysock_ssl_get_keylog_filename(self->ctx, name, sizeof name) <= 0)
        Py_RETURN_NONE;
    return PyUnicode_DecodeFSDefault(name);
}

static int set_keylog_filename(context_object *self, PyObject *value, void *closure)
{
    PyObject *path = NULL;
    int r;

    (void)closure;
    if (value && value != Py_None && !PyUnicode_FSConverter(value, &path))
        return -1;
    r = pysock_ssl_set_keylog_filename(self->ctx, path_text(path));
    Py_XDECREF(path);
    if (r == 0 || pysock_error() != PYSOCK_OS_ERROR)
        return zero_or_raise(self, r);
    errno = pysock_error_code();
    PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, value);
    return -1;
}

static PyObject *get_message_callback(context_object *self, void *closure)
{
    (void)closure;
    return Py_NewRef(self->message_callback ? self->message_callback : Py_None);
}

static int set_message_callback(context_object *self, PyObject *value, void *closure)
{
    (void)closure;
    if (value && value != Py_None && !PyCallable_Check(value)) {
        PyErr_Format(PyExc_TypeError, "%R is not callable.", value);
        return -1;
    }
    Py_XSETREF(self->message_callback, value && value != Py_None ? Py_NewRef(value) : NULL);
    return zero_or_raise(
        self,
        pysock_ssl_set_message_callback(
            self->ctx, self->message_callback ? connection_message_callback : NULL, self->st->b));
}

static PyObject *get_sni_callback(context_object *self, void *closure)
{
    (void)closure;
    return Py_NewRef(self->sni_callback ? self->sni_callback : Py_None);
}

static int set_sni_callback(context_object *self, PyObject *value, void *closure)
{
    int none = !value || value == Py_None;

    (void)closure;
    if (self->protocol == PYSOCK_PROTOCOL_TLS_CLIENT) {
        PyErr_SetString(PyExc_ValueError, "sni_callback cannot be set on TLS_CLIENT context");
        return -1;
    }
    if (!none && !PyCallable_Check(value)) {
        PyErr_SetString(PyExc_TypeError, "not a callable object");
        return -1;
    }
    Py_XSETREF(self->sni_callback, none ? NULL : Py_NewRef(value));
    return zero_or_raise(self, pysock_ssl_set_sni_callback(
                                   self->ctx, none ? NULL : connection_sni_callback, self->st->b));
}

static PyObject *get_num_tickets(context_object *self, void *closure)
{
    (void)closure;
    return PyLong_FromLong(self->num_tickets);
}

static int set_num_tickets(context_object *self, PyObject *value, void *closure)
{
    int n;

    (void)closure;
    if (!is_given(value) || binding_int(value, &n) < 0)
        return -1;
    if (n < 0) {
        PyErr_SetString(PyExc_ValueError, "value must be non-negative");
        return -1;
    }
    if (self->protocol != PYSOCK_PROTOCOL_TLS_SERVER) {
        PyErr_SetString(PyExc_ValueError, "SSLContext is not a server context.");
        return -1;
    }
    self->num_tickets = n;
    return 0;
}

static PyObject *get_options(context_object *self, void *closure)
{
    (void)closure;
    return PyLong_FromUnsignedLong(self->options);
}

static int set_options(context_object *self, PyObject *value, void *closure)
{
    const unsigned long versions =
        (unsigned long)(PYSOCK_OP_NO_SSLv3 | PYSOCK_OP_NO_TLSv1 | PYSOCK_OP_NO_TLSv1_1
                        | PYSOCK_OP_NO_TLSv1_2 | PYSOCK_OP_NO_TLSv1_3);
    long signed_options = is_given(value) ? PyLong_AsLong(value) : -1;
    unsigned long options = (unsigned long)signed_options;

    (void)closure;
    if (signed_options == -1 && PyErr_Occurred())
        return -1;
    if (options & ~self->options & versions
        && PyErr_WarnEx(PyExc_DeprecationWarning,
                        "ssl.OP_NO_SSL*/ssl.OP_NO_TLS* options are deprecated", 2)
               < 0)
        return -1;
    if (zero_or_raise(self, pysock_ssl_set_options(self->ctx, (options & CONTEXT_KNOWN_OPTIONS)
                                                                  | PYSOCK_OP_COMPLETE_CHAIN))
        < 0)
        return -1;
    self->options = options;
    return 0;
}

static PyObject *get_post_handshake_auth(context_object *self, void *closure)
{
    (void)closure;
    return PyBool_FromLong(self->post_handshake_auth);
}

static int set_post_handshake_auth(context_object *self, PyObject *value, void *closure)
{
    int on = is_given(value) ? PyObject_IsTrue(value) : -1;

    (void)closure;
    if (on < 0)
        return -1;
    self->post_handshake_auth = on; /* TLS 1.3 only: without effect */
    return 0;
}

static PyObject *get_protocol(context_object *self, void *closure)
{
    (void)closure;
    return PyLong_FromLong(self->protocol);
}

static PyObject *get_verify_flags(context_object *self, void *closure)
{
    (void)closure;
    return PyLong_FromUnsignedLong(self->verify_flags);
}

static int set_verify_flags(context_object *self, PyObject *value, void *closure)
{
    unsigned long flags = is_given(value) ? PyLong_AsUnsignedLong(value) : (unsigned long)-1;
    unsigned known;

    (void)closure;
    if (flags == (unsigned long)-1 && PyErr_Occurred())
        return -1;
    /* Ignored: the library never allows proxy certificates, which is stricter. */
    known = (unsigned)flags & ~(unsigned)PYSOCK_VERIFY_ALLOW_PROXY_CERTS;
    if (zero_or_raise(self, pysock_ssl_set_verify_flags(self->ctx, known)) < 0)
        return -1;
    self->verify_flags = flags;
    return 0;
}

static PyObject *get_verify_mode(context_object *self, void *closure)
{
    (void)closure;
    return PyLong_FromLong(pysock_ssl_get_verify_mode(self->ctx));
}

static int set_verify_mode(context_object *self, PyObject *value, void *closure)
{
    int mode;

    (void)closure;
    if (!is_given(value))
        return -1;
    if (!PyIndex_Check(value)) {
        PyErr_Format(PyExc_TypeError, "'%.50s' object cannot be interpreted as an integer",
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    if (binding_int(value, &mode) < 0)
        return -1;
    if (mode < PYSOCK_CERT_NONE || mode > PYSOCK_CERT_REQUIRED) {
        PyErr_SetString(PyExc_ValueError, "invalid value for verify_mode");
        return -1;
    }
    if (mode == PYSOCK_CERT_NONE && pysock_ssl_get_check_hostname(self->ctx)) {
        PyErr_SetString(PyExc_ValueError, "Cannot set verify_mode to CERT_NONE when "
                                          "check_hostname is enabled.");
        return -1;
    }
    return zero_or_raise(self, pysock_ssl_set_verify_mode(self->ctx, mode));
}

static PyObject *get_security_level(context_object *self, void *closure)
{
    (void)closure;
    return PyLong_FromLong(pysock_ssl_get_security_level(self->ctx));
}

static PyMethodDef context_methods[] = {
    METHOD("_wrap_socket", context_wrap_socket, METH_VARARGS | METH_KEYWORDS,
           SIGNED("_wrap_socket($self, /, sock, server_side, server_hostname=None, *, owner=None, "
                  "session=None)",
                  "TLS around a socket, in place.")),
    METHOD("_wrap_bio", context_wrap_bio, METH_VARARGS | METH_KEYWORDS,
           SIGNED("_wrap_bio($self, /, incoming, outgoing, server_side, server_hostname=None, *, "
                  "owner=None, session=None)",
                  "TLS between two MemoryBIOs.")),
    METHOD("set_ciphers", context_set_ciphers, METH_O,
           SIGNED("set_ciphers($self, cipherlist, /)", "The suites, in OpenSSL's language.")),
    METHOD("get_ciphers", context_get_ciphers, METH_NOARGS,
           SIGNED("get_ciphers($self, /)", "The suites, a dict each.")),
    METHOD(
        "_set_alpn_protocols", context_set_alpn_protocols, METH_VARARGS,
        SIGNED("_set_alpn_protocols($self, protos, /)", "ALPN's names, each behind its length.")),
    METHOD("load_cert_chain", context_load_cert_chain, METH_VARARGS | METH_KEYWORDS,
           SIGNED("load_cert_chain($self, /, certfile, keyfile=None, password=None)",
                  "The own certificate chain and its key, from PEM files.")),
    METHOD("load_dh_params", context_load_dh_params, METH_O,
           SIGNED("load_dh_params($self, path, /)",
                  "Checks the file; no finite-field DHE is spoken.")),
    METHOD("load_verify_locations", context_load_verify_locations, METH_VARARGS | METH_KEYWORDS,
           SIGNED("load_verify_locations($self, /, cafile=None, capath=None, cadata=None)",
                  "Adds trust anchors and revocation lists.")),
    METHOD("set_default_verify_paths", context_set_default_verify_paths, METH_NOARGS,
           SIGNED("set_default_verify_paths($self, /)", "Adds the system's trust anchors.")),
    METHOD("get_ca_certs", context_get_ca_certs, METH_VARARGS | METH_KEYWORDS,
           SIGNED("get_ca_certs($self, /, binary_form=False)",
                  "The CAs among the trust anchors: dicts, or DER.")),
    METHOD("cert_store_stats", context_cert_store_stats, METH_NOARGS,
           SIGNED("cert_store_stats($self, /)",
                  "How many certificates, CAs and revocation lists there are.")),
    METHOD("session_stats", context_session_stats, METH_NOARGS,
           SIGNED("session_stats($self, /)", "What became of sessions.")),
    METHOD("set_ecdh_curve", context_set_ecdh_curve, METH_O,
           SIGNED("set_ecdh_curve($self, name, /)", "The curve of ECDHE.")),
    {NULL, NULL, 0, NULL},
};

/* clang-format off */
#define PROPERTY(name, doc) {#name, (getter)get_##name, (setter)set_##name, doc, NULL}
/* clang-format on */

static PyGetSetDef context_properties[] = {
    PROPERTY(check_hostname, "Whether the certificate must be for server_hostname."),
    {"_host_flags", (getter)get_host_flags, (setter)set_host_flags, "How names match.", NULL},
    PROPERTY(minimum_version, "The lowest version."),
    PROPERTY(maximum_version, "The highest version."),
    PROPERTY(keylog_filename, "Where the keys of connections are logged."),
    {"_msg_callback", (getter)get_message_callback, (setter)set_message_callback,
     "Sees the messages of the protocol.", NULL},
    PROPERTY(sni_callback, "Called with the name that a client asks for."),
    PROPERTY(num_tickets, "Of TLS 1.3, which is not spoken."),
    PROPERTY(options, "OpenSSL's SSL_OP_ flags."),
    PROPERTY(post_handshake_auth, "Of TLS 1.3, which is not spoken."),
    {"protocol", (getter)get_protocol, NULL, "What the context was made for.", NULL},
    PROPERTY(verify_flags, "OpenSSL's X509_V_FLAG_ flags."),
    PROPERTY(verify_mode, "Whether the peer's certificate is wanted and verified."),
    {"security_level", (getter)get_security_level, NULL, "OpenSSL's security level.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot context_slots[] = {
    {Py_tp_new, context_new},
    {Py_tp_traverse, context_traverse},
    {Py_tp_clear, context_clear},
    {Py_tp_dealloc, context_dealloc},
    {Py_tp_methods, context_methods},
    {Py_tp_getset, context_properties},
    {0, NULL},
};

PyType_Spec context_spec = {
    .name = "_ssl._SSLContext",
    .basicsize = sizeof(context_object),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = context_slots,
};
