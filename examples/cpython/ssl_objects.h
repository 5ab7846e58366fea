/* The objects of _ssl, which are spread over several files. */
#ifndef SSL_OBJECTS_H
#define SSL_OBJECTS_H

#include "binding.h"

/* The module's state. */
typedef struct ssl_state {
    binding *b;
    PyObject *keep; /* owns b */
    PyTypeObject *context_type, *connection_type, *bio_type, *session_type, *certificate_type;
    PyObject *error, *zero_return, *want_read, *want_write, *syscall, *eof, *verification;
} ssl_state;

extern struct PyModuleDef ssl_module;

/* The state of the module that made the object's type. */
static inline ssl_state *ssl_state_of(PyObject *self)
{
    PyObject *module = PyType_GetModuleByDef(Py_TYPE(self), &ssl_module);

    return module ? (ssl_state *)PyModule_GetState(module) : NULL;
}

/* Python's _SSLContext, with the settings whose values differ from the library's. */
typedef struct context_object {
    PyObject_HEAD ssl_state *st;
    pysock_ssl_context *ctx;
    PyObject *sni_callback, *message_callback;
    int protocol, minimum, maximum;
    unsigned long verify_flags, options;
    unsigned host_flags;
    int num_tickets, post_handshake_auth;
} context_object;

typedef struct bio_object {
    PyObject_HEAD ssl_state *st;
    pysock_bio *bio;
} bio_object;

typedef struct session_object {
    PyObject_HEAD pysock_ssl_session *session;
    PyObject *context; /* which made it */
} session_object;

enum { SSL_ENDING = 1, SSL_ENDED };

/* Python's _SSLSocket: the TLS part of an SSLSocket or SSLObject. */
typedef struct connection_object {
    PyObject_HEAD ssl_state *st;
    pysock *s;
    int owned; /* s is closed with the object: it has no Python socket */
    int server_side, verify_mode;
    int ending; /* shutdown() was called: SSL_ENDING, and SSL_ENDED */
    PyObject *context;
    PyObject *socket;               /* a weak reference; NULL for memory BIOs */
    PyObject *owner;                /* a weak reference, or NULL */
    PyObject *hostname;             /* str or None */
    struct connection_object *next; /* in the same bucket */
} connection_object;

extern PyType_Spec context_spec, connection_spec, bio_spec, session_spec, certificate_spec;

/* Raises the library's last error of the thread as Python's exception. doing: the operation that
   timed out, or would have to wait; line: in the source. Always NULL. */
enum { SSL_READING, SSL_WRITING, SSL_SHAKING };

PyObject *ssl_raise_at(ssl_state *st, int doing, int line);
#define ssl_raise(st, doing) ssl_raise_at(st, doing, __LINE__)

/* An SSLError with these attributes; library, reason and text may be NULL. NULL. */
PyObject *ssl_raise_error(ssl_state *st, PyObject *type, int code, const char *library,
                          const char *reason, const char *text, int line);

/* connection: made by the context's _wrap_socket() and _wrap_bio(). New references. */
PyObject *connection_wrap_socket(context_object *context, PyObject *socket, int server_side,
                                 PyObject *hostname, PyObject *owner, PyObject *session);
PyObject *connection_wrap_bio(context_object *context, bio_object *incoming, bio_object *outgoing,
                              int server_side, PyObject *hostname, PyObject *owner,
                              PyObject *session);

/* For pysock_ssl_set_sni_callback(); arg: the binding. */
int connection_sni_callback(void *arg, const pysock_ssl_client_hello *hello);

/* For pysock_ssl_set_message_callback(); likewise. */
void connection_message_callback(void *arg, const pysock_ssl_message *message);

/* Certificates: the dict of getpeercert(), and _ssl.Certificate. New references. */
PyObject *certificate_decode(ssl_state *st, const void *der, size_t size);
PyObject *certificate_from_buf(ssl_state *st, pysock_buf *der); /* takes der */

/* Bytes of a buffer, which is released. NULL gives NULL. */
PyObject *ssl_bytes_from_buf(pysock_buf *b);

/* clang-format off */
#define METHOD(name, function, flags, doc) {name, (PyCFunction)(void (*)(void))function, flags, doc}
/* clang-format on */

/* A docstring that inspect.signature() understands. */
#define SIGNED(signature, text) signature "\n--\n\n" text

#endif
