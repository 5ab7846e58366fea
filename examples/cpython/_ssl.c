/* The module _ssl, for an unchanged ssl.py: arguments, objects and exceptions. TLS and certificates
   are pysock.h's. */
#include "ssl_objects.h"

/* ---- exceptions ---- */

/* OpenSSL's texts are its names in lower case, except for abbreviations. */
static void text_of_reason(const char *reason, char *text, size_t size)
{
    size_t i;

    for (i = 0; reason[i] && i + 1 < size; i++)
        text[i] = (char)(reason[i] == '_' ? ' ' : Py_TOLOWER((unsigned char)reason[i]));
    text[i] = '\0';
}

static int set_text(PyObject *e, const char *name, const char *text)
{
    PyObject *value = text && text[0] ? PyUnicode_FromString(text) : Py_NewRef(Py_None);
    int r = value ? PyObject_SetAttrString(e, name, value) : -1;

    Py_XDECREF(value);
    return r;
}

static int set_verify(PyObject *e, const char *message)
{
    PyObject *code = PyLong_FromLong(pysock_error_verify_code());
    int r = code ? PyObject_SetAttrString(e, "verify_code", code) : -1;

    Py_XDECREF(code);
    return r < 0 ? -1 : set_text(e, "verify_message", message);
}

PyObject *ssl_raise_error(ssl_state *st, PyObject *type, int code, const char *library,
                          const char *reason, const char *text, int line)
{
    char words[256] = "", where[300] = "";
    PyObject *message, *e = NULL;

    if (reason)
        text_of_reason(reason, words, sizeof words);
    if (library && reason)
        PyOS_snprintf(where, sizeof where, "[%s: %s] ", library, reason);
    else if (library)
        PyOS_snprintf(where, sizeof where, "[%s] ", library);
    message = PyUnicode_FromFormat("%s%s%s%s (_ssl.c:%d)", where, words, reason && text ? ": " : "",
                                   text ? text : "", line);
    if (message)
        e = PyObject_CallFunction(type, "iO", code, message);
    Py_XDECREF(message);
    if (!e)
        return NULL;
    if (set_text(e, "library", library) == 0 && set_text(e, "reason", reason) == 0
        && (type != st->verification || set_verify(e, text) == 0))
        PyErr_SetObject(type, e);
    Py_DECREF(e);
    return NULL;
}

/* For a call that would have to wait. */
static PyObject *raise_wait(ssl_state *st, int doing, int line)
{
    if (doing == SSL_WRITING)
        return ssl_raise_error(st, st->want_write, 3, NULL, NULL,
                               "The operation did not complete (write)", line);
    return ssl_raise_error(st, st->want_read, 2, NULL, NULL,
                           "The operation did not complete (read)", line);
}

static PyObject *raise_ssl_error(ssl_state *st, int line)
{
    const char *library = pysock_error_library(), *reason = pysock_error_reason();

    library = library[0] ? library : "SSL";
    switch (pysock_error()) {
    case PYSOCK_SSL_ZERO_RETURN_ERROR:
        return ssl_raise_error(st, st->zero_return, 6, NULL, NULL,
                               "TLS/SSL connection has been closed (EOF)", line);
    case PYSOCK_SSL_EOF_ERROR:
        return ssl_raise_error(st, st->eof, 8, NULL, NULL, "EOF occurred in violation of protocol",
                               line);
    case PYSOCK_SSL_SYSCALL_ERROR:
        return ssl_raise_error(st, st->syscall, 5, NULL, NULL, pysock_error_message(), line);
    case PYSOCK_SSL_CERT_VERIFICATION_ERROR:
        return ssl_raise_error(st, st->verification, 1, library, reason,
                               pysock_error_verify_message(), line);
    default: return ssl_raise_error(st, st->error, 1, library, reason, NULL, line);
    }
}

PyObject *ssl_raise_at(ssl_state *st, int doing, int line)
{
    static const char *const timed_out[] = {"The read operation timed out",
                                            "The write operation timed out",
                                            "The handshake operation timed out"};

    if (PyErr_Occurred())
        return NULL;
    switch (pysock_error()) {
    case PYSOCK_TIMEOUT_ERROR: PyErr_SetString(PyExc_TimeoutError, timed_out[doing]); return NULL;
    case PYSOCK_OS_ERROR:
        if (pysock_error_code() == EAGAIN || pysock_error_code() == EINPROGRESS)
            return raise_wait(st, doing, line);
        return binding_raise(st->b);
    case PYSOCK_SSL_WANT_READ_ERROR: return raise_wait(st, SSL_READING, line);
    case PYSOCK_SSL_WANT_WRITE_ERROR: return raise_wait(st, SSL_WRITING, line);
    case PYSOCK_SSL_ERROR:
    case PYSOCK_SSL_ZERO_RETURN_ERROR:
    case PYSOCK_SSL_EOF_ERROR:
    case PYSOCK_SSL_SYSCALL_ERROR:
    case PYSOCK_SSL_CERT_VERIFICATION_ERROR: return raise_ssl_error(st, line);
    default: return binding_raise(st->b);
    }
}

/* For the other modules, whose sockets may be wrapped. */
static PyObject *raise_for_others(binding *b)
{
    return raise_ssl_error((ssl_state *)b->ssl, __LINE__);
}

static PyObject *error_str(PyObject *self)
{
    PyObject *text = PyObject_GetAttrString(self, "strerror"), *args, *r;

    if (!text)
        PyErr_Clear();
    else if (PyUnicode_Check(text))
        return text;
    Py_XDECREF(text);
    args = PyObject_GetAttrString(self, "args");
    if (!args)
        return NULL;
    if (PyTuple_Check(args) && PyTuple_GET_SIZE(args) == 1)
        r = PyObject_Str(PyTuple_GET_ITEM(args, 0));
    else
        r = PyObject_Str(args);
    Py_DECREF(args);
    return r;
}

static PyType_Slot error_slots[] = {
    {Py_tp_doc, "An error occurred in the SSL implementation."},
    {Py_tp_str, error_str},
    {0, NULL},
};

static PyType_Spec error_spec = {
    .name = "ssl.SSLError",
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = error_slots,
};

static int add_exception(PyObject *module, PyObject **slot, const char *name, const char *doc,
                         PyObject *bases)
{
    char full[64];

    PyOS_snprintf(full, sizeof full, "ssl.%s", name);
    *slot = PyErr_NewExceptionWithDoc(full, doc, bases, NULL);
    return *slot ? PyModule_AddObjectRef(module, name, *slot) : -1;
}

static int add_exceptions(PyObject *module, ssl_state *st)
{
    PyObject *bases = PyTuple_Pack(1, PyExc_OSError);
    int r;

    if (!bases)
        return -1;
    st->error = PyType_FromModuleAndSpec(module, &error_spec, bases);
    Py_DECREF(bases);
    if (!st->error || PyModule_AddObjectRef(module, "SSLError", st->error) < 0)
        return -1;
    bases = PyTuple_Pack(2, st->error, PyExc_ValueError);
    if (!bases)
        return -1;
    r = add_exception(module, &st->verification, "SSLCertVerificationError",
                      "A certificate could not be verified.", bases);
    Py_DECREF(bases);
    if (r < 0
        || add_exception(module, &st->zero_return, "SSLZeroReturnError",
                         "The peer has ended the TLS connection in order.", st->error)
               < 0
        || add_exception(module, &st->want_read, "SSLWantReadError",
                         "Without waiting there is nothing more to read; try again when the "
                         "socket is readable.",
                         st->error)
               < 0
        || add_exception(module, &st->want_write, "SSLWantWriteError",
                         "Without waiting nothing more can be written; try again when the socket "
                         "is writable.",
                         st->error)
               < 0
        || add_exception(module, &st->syscall, "SSLSyscallError",
                         "The system reported an error during a TLS operation.", st->error)
               < 0)
        return -1;
    return add_exception(module, &st->eof, "SSLEOFError",
                         "The stream ended without the end of TLS.", st->error);
}

/* ---- functions ---- */

static ssl_state *state_of_module(PyObject *module)
{
    return (ssl_state *)PyModule_GetState(module);
}

static PyObject *rand_add(PyObject *module, PyObject *args)
{
    Py_buffer data;
    double entropy;

    (void)module;
    if (!PyArg_ParseTuple(args, "s*d:RAND_add", &data, &entropy))
        return NULL;
    PyBuffer_Release(&data); /* ignored: the system's generator is seeded */
    Py_RETURN_NONE;
}

static PyObject *rand_bytes(PyObject *module, PyObject *arg)
{
    PyObject *bytes;
    int n;

    if (binding_int(arg, &n) < 0)
        return NULL;
    if (n < 0) {
        PyErr_SetString(PyExc_ValueError, "num must be positive");
        return NULL;
    }
    bytes = PyBytes_FromStringAndSize(NULL, n);
    if (bytes && pysock_ssl_rand_bytes(PyBytes_AS_STRING(bytes), (size_t)n) < 0) {
        Py_DECREF(bytes);
        return ssl_raise(state_of_module(module), SSL_READING);
    }
    return bytes;
}

static PyObject *rand_pseudo_bytes(PyObject *module, PyObject *arg)
{
    PyObject *bytes;

    if (PyErr_WarnEx(PyExc_DeprecationWarning, "ssl.RAND_pseudo_bytes() is deprecated", 1) < 0)
        return NULL;
    bytes = rand_bytes(module, arg);
    return bytes ? Py_BuildValue("(NO)", bytes, Py_True) : NULL;
}

static PyObject *rand_status(PyObject *module, PyObject *args)
{
    (void)module;
    (void)args;
    Py_RETURN_TRUE;
}

/* The file's first certificate as the dict of getpeercert(), for CPython's tests. */
static PyObject *test_decode_cert(PyObject *module, PyObject *arg)
{
    ssl_state *st = state_of_module(module);
    PyObject *path, *text = NULL, *io, *file = NULL, *cert = NULL;
    const char *pem;
    pysock_buf *der;

    if (!PyUnicode_FSConverter(arg, &path))
        return NULL;
    io = PyImport_ImportModule("io");
    if (io)
        file = PyObject_CallMethod(io, "open", "Os", path, "rb");
    if (file) {
        text = PyObject_CallMethod(file, "read", NULL);
        Py_XDECREF(PyObject_CallMethod(file, "close", NULL));
    }
    Py_XDECREF(file);
    Py_XDECREF(io);
    Py_DECREF(path);
    if (!text || !PyBytes_Check(text)) {
        Py_XDECREF(text);
        PyErr_SetString(st->error, "Can't open file");
        return NULL;
    }
    pem = strstr(PyBytes_AS_STRING(text), "-----BEGIN CERTIFICATE");
    if (pem && (der = pysock_ssl_pem_cert_to_der_cert(pem)) != NULL) {
        cert = certificate_decode(st, pysock_buf_data(der), pysock_buf_size(der));
        pysock_buf_release(der);
    } else if (!PyErr_Occurred()) {
        PyErr_SetString(st->error, "Error decoding PEM-encoded file");
    }
    Py_DECREF(text);
    return cert;
}

static PyObject *get_default_verify_paths(PyObject *module, PyObject *args)
{
    pysock_ssl_verify_paths paths;

    (void)args;
    if (pysock_ssl_get_default_verify_paths(&paths) < 0)
        return ssl_raise(state_of_module(module), SSL_READING);
    return Py_BuildValue("(ssss)", paths.openssl_cafile_env, paths.openssl_cafile,
                         paths.openssl_capath_env, paths.openssl_capath);
}

static PyObject *oid_tuple(const pysock_ssl_oid *oid)
{
    return Py_BuildValue("(isss)", oid->nid, oid->shortname, oid->longname, oid->oid);
}

static PyObject *txt2obj(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"txt", "name", NULL};
    pysock_ssl_oid oid;
    const char *text;
    int by_name = 0;

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s|p:txt2obj", names, &text, &by_name))
        return NULL;
    if (pysock_ssl_txt2obj(text, by_name, &oid) == 0)
        return oid_tuple(&oid);
    return PyErr_Format(PyExc_ValueError, "unknown object '%.100s'", text);
}

static PyObject *nid2obj(PyObject *module, PyObject *arg)
{
    pysock_ssl_oid oid;
    int nid;

    (void)module;
    if (binding_int(arg, &nid) < 0)
        return NULL;
    if (nid < 0) {
        PyErr_SetString(PyExc_ValueError, "NID must be positive.");
        return NULL;
    }
    if (pysock_ssl_nid2obj(nid, &oid) == 0)
        return oid_tuple(&oid);
    return PyErr_Format(PyExc_ValueError, "unknown NID %i", nid);
}

static PyMethodDef ssl_functions[] = {
    {"RAND_add", rand_add, METH_VARARGS,
     SIGNED("RAND_add($module, string, entropy, /)",
            "Does nothing: the generator is the system's.")},
    {"RAND_bytes", rand_bytes, METH_O,
     SIGNED("RAND_bytes($module, n, /)", "n random bytes, strong enough for keys.")},
    {"RAND_pseudo_bytes", rand_pseudo_bytes, METH_O,
     SIGNED("RAND_pseudo_bytes($module, n, /)", "(bytes, True); deprecated.")},
    {"RAND_status", rand_status, METH_NOARGS,
     SIGNED("RAND_status($module, /)", "True: the generator is always seeded.")},
    {"_test_decode_cert", test_decode_cert, METH_O,
     SIGNED("_test_decode_cert($module, path, /)", "A PEM file as getpeercert()'s dict.")},
    {"get_default_verify_paths", get_default_verify_paths, METH_NOARGS,
     SIGNED("get_default_verify_paths($module, /)",
            "Where the system's trust store is: (variable, file, variable, directory).")},
    {"txt2obj", (PyCFunction)(void (*)(void))txt2obj, METH_VARARGS | METH_KEYWORDS,
     SIGNED("txt2obj($module, /, txt, name=False)",
            "(nid, shortname, longname, oid) of an OID, or of a name too.")},
    {"nid2obj", nid2obj, METH_O,
     SIGNED("nid2obj($module, nid, /)", "(nid, shortname, longname, oid) of OpenSSL's number.")},
    {NULL, NULL, 0, NULL},
};

/* ---- constants ---- */

static const binding_constant ssl_constants[] = {
    {"PROTOCOL_SSLv23", PYSOCK_PROTOCOL_TLS},
    {"PROTOCOL_TLS", PYSOCK_PROTOCOL_TLS},
    {"PROTOCOL_TLS_CLIENT", PYSOCK_PROTOCOL_TLS_CLIENT},
    {"PROTOCOL_TLS_SERVER", PYSOCK_PROTOCOL_TLS_SERVER},
    {"PROTOCOL_TLSv1", PYSOCK_PROTOCOL_TLSv1},
    {"PROTOCOL_TLSv1_1", PYSOCK_PROTOCOL_TLSv1_1},
    {"PROTOCOL_TLSv1_2", PYSOCK_PROTOCOL_TLSv1_2},
    {"PROTO_MINIMUM_SUPPORTED", PYSOCK_MINIMUM_SUPPORTED},
    {"PROTO_MAXIMUM_SUPPORTED", PYSOCK_MAXIMUM_SUPPORTED},
    {"PROTO_SSLv3", PYSOCK_SSLv3},
    {"PROTO_TLSv1", PYSOCK_TLSv1},
    {"PROTO_TLSv1_1", PYSOCK_TLSv1_1},
    {"PROTO_TLSv1_2", PYSOCK_TLSv1_2},
    {"PROTO_TLSv1_3", PYSOCK_TLSv1_3},
    {"CERT_NONE", PYSOCK_CERT_NONE},
    {"CERT_OPTIONAL", PYSOCK_CERT_OPTIONAL},
    {"CERT_REQUIRED", PYSOCK_CERT_REQUIRED},
    {"VERIFY_DEFAULT", PYSOCK_VERIFY_DEFAULT},
    {"VERIFY_CRL_CHECK_LEAF", PYSOCK_VERIFY_CRL_CHECK_LEAF},
    {"VERIFY_CRL_CHECK_CHAIN", PYSOCK_VERIFY_CRL_CHECK_CHAIN},
    {"VERIFY_X509_STRICT", PYSOCK_VERIFY_X509_STRICT},
    {"VERIFY_ALLOW_PROXY_CERTS", PYSOCK_VERIFY_ALLOW_PROXY_CERTS},
    {"VERIFY_X509_TRUSTED_FIRST", PYSOCK_VERIFY_X509_TRUSTED_FIRST},
    {"VERIFY_X509_PARTIAL_CHAIN", PYSOCK_VERIFY_X509_PARTIAL_CHAIN},
    {"OP_ALL", (long long)PYSOCK_OP_ALL},
    {"OP_NO_SSLv2", (long long)PYSOCK_OP_NO_SSLv2},
    {"OP_NO_SSLv3", (long long)PYSOCK_OP_NO_SSLv3},
    {"OP_NO_TLSv1", (long long)PYSOCK_OP_NO_TLSv1},
    {"OP_NO_TLSv1_1", (long long)PYSOCK_OP_NO_TLSv1_1},
    {"OP_NO_TLSv1_2", (long long)PYSOCK_OP_NO_TLSv1_2},
    {"OP_NO_TLSv1_3", (long long)PYSOCK_OP_NO_TLSv1_3},
    {"OP_NO_COMPRESSION", (long long)PYSOCK_OP_NO_COMPRESSION},
    {"OP_NO_RENEGOTIATION", (long long)PYSOCK_OP_NO_RENEGOTIATION},
    {"OP_NO_TICKET", (long long)PYSOCK_OP_NO_TICKET},
    {"OP_CIPHER_SERVER_PREFERENCE", (long long)PYSOCK_OP_CIPHER_SERVER_PREFERENCE},
    {"OP_SINGLE_DH_USE", (long long)PYSOCK_OP_SINGLE_DH_USE},
    {"OP_SINGLE_ECDH_USE", (long long)PYSOCK_OP_SINGLE_ECDH_USE},
    {"OP_ENABLE_MIDDLEBOX_COMPAT", (long long)PYSOCK_OP_ENABLE_MIDDLEBOX_COMPAT},
    {"OP_IGNORE_UNEXPECTED_EOF", (long long)PYSOCK_OP_IGNORE_UNEXPECTED_EOF},
    {"HOSTFLAG_ALWAYS_CHECK_SUBJECT", 0x1},
    {"HOSTFLAG_NO_WILDCARDS", 0x2},
    {"HOSTFLAG_NO_PARTIAL_WILDCARDS", 0x4},
    {"HOSTFLAG_MULTI_LABEL_WILDCARDS", 0x8},
    {"HOSTFLAG_SINGLE_LABEL_SUBDOMAINS", 0x10},
    {"HOSTFLAG_NEVER_CHECK_SUBJECT", 0x20},
    {"ENCODING_PEM", 1},
    {"ENCODING_DER", 2},
    {"SSL_ERROR_SSL", 1},
    {"SSL_ERROR_WANT_READ", 2},
    {"SSL_ERROR_WANT_WRITE", 3},
    {"SSL_ERROR_WANT_X509_LOOKUP", 4},
    {"SSL_ERROR_SYSCALL", 5},
    {"SSL_ERROR_ZERO_RETURN", 6},
    {"SSL_ERROR_WANT_CONNECT", 7},
    {"SSL_ERROR_EOF", 8},
    {"SSL_ERROR_INVALID_ERROR_CODE", 10},
    {"ALERT_DESCRIPTION_CLOSE_NOTIFY", PYSOCK_ALERT_CLOSE_NOTIFY},
    {"ALERT_DESCRIPTION_UNEXPECTED_MESSAGE", PYSOCK_ALERT_UNEXPECTED_MESSAGE},
    {"ALERT_DESCRIPTION_BAD_RECORD_MAC", PYSOCK_ALERT_BAD_RECORD_MAC},
    {"ALERT_DESCRIPTION_RECORD_OVERFLOW", PYSOCK_ALERT_RECORD_OVERFLOW},
    {"ALERT_DESCRIPTION_DECOMPRESSION_FAILURE", PYSOCK_ALERT_DECOMPRESSION_FAILURE},
    {"ALERT_DESCRIPTION_HANDSHAKE_FAILURE", PYSOCK_ALERT_HANDSHAKE_FAILURE},
    {"ALERT_DESCRIPTION_BAD_CERTIFICATE", PYSOCK_ALERT_BAD_CERTIFICATE},
    {"ALERT_DESCRIPTION_UNSUPPORTED_CERTIFICATE", PYSOCK_ALERT_UNSUPPORTED_CERTIFICATE},
    {"ALERT_DESCRIPTION_CERTIFICATE_REVOKED", PYSOCK_ALERT_CERTIFICATE_REVOKED},
    {"ALERT_DESCRIPTION_CERTIFICATE_EXPIRED", PYSOCK_ALERT_CERTIFICATE_EXPIRED},
    {"ALERT_DESCRIPTION_CERTIFICATE_UNKNOWN", PYSOCK_ALERT_CERTIFICATE_UNKNOWN},
    {"ALERT_DESCRIPTION_ILLEGAL_PARAMETER", PYSOCK_ALERT_ILLEGAL_PARAMETER},
    {"ALERT_DESCRIPTION_UNKNOWN_CA", PYSOCK_ALERT_UNKNOWN_CA},
    {"ALERT_DESCRIPTION_ACCESS_DENIED", PYSOCK_ALERT_ACCESS_DENIED},
    {"ALERT_DESCRIPTION_DECODE_ERROR", PYSOCK_ALERT_DECODE_ERROR},
    {"ALERT_DESCRIPTION_DECRYPT_ERROR", PYSOCK_ALERT_DECRYPT_ERROR},
    {"ALERT_DESCRIPTION_PROTOCOL_VERSION", PYSOCK_ALERT_PROTOCOL_VERSION},
    {"ALERT_DESCRIPTION_INSUFFICIENT_SECURITY", PYSOCK_ALERT_INSUFFICIENT_SECURITY},
    {"ALERT_DESCRIPTION_INTERNAL_ERROR", PYSOCK_ALERT_INTERNAL_ERROR},
    {"ALERT_DESCRIPTION_USER_CANCELLED", PYSOCK_ALERT_USER_CANCELLED},
    {"ALERT_DESCRIPTION_NO_RENEGOTIATION", PYSOCK_ALERT_NO_RENEGOTIATION},
    {"ALERT_DESCRIPTION_UNSUPPORTED_EXTENSION", PYSOCK_ALERT_UNSUPPORTED_EXTENSION},
    {"ALERT_DESCRIPTION_CERTIFICATE_UNOBTAINABLE", PYSOCK_ALERT_CERTIFICATE_UNOBTAINABLE},
    {"ALERT_DESCRIPTION_UNRECOGNIZED_NAME", PYSOCK_ALERT_UNRECOGNIZED_NAME},
    {"ALERT_DESCRIPTION_BAD_CERTIFICATE_STATUS_RESPONSE",
     PYSOCK_ALERT_BAD_CERTIFICATE_STATUS_RESPONSE},
    {"ALERT_DESCRIPTION_BAD_CERTIFICATE_HASH_VALUE", PYSOCK_ALERT_BAD_CERTIFICATE_HASH_VALUE},
    {"ALERT_DESCRIPTION_UNKNOWN_PSK_IDENTITY", PYSOCK_ALERT_UNKNOWN_PSK_IDENTITY},
    {NULL, 0},
};

static const struct {
    const char *name;
    int value;
} ssl_truths[] = {
    {"HAS_SNI", 1},     {"HAS_ECDH", 1},    {"HAS_ALPN", 1},    {"HAS_TLS_UNIQUE", 1},
    {"HAS_NPN", 0},     {"HAS_SSLv2", 0},   {"HAS_SSLv3", 0},   {"HAS_TLSv1", 1},
    {"HAS_TLSv1_1", 1}, {"HAS_TLSv1_2", 1}, {"HAS_TLSv1_3", 0},
};

/* Programs test the version for what OpenSSL can do. What is here is closest to 1.1.1; urllib3 also
   checks the name. */
#define SSL_VERSION_TEXT "OpenSSL 1.1.1 (as spoken by pysock " PYSOCK_VERSION " over BearSSL)"

/* OpenSSL's numbers for the libraries that an SSLError names, and for some of the reasons; no
   program is known to read more of these tables. */
static const struct {
    const char *name;
    int code;
} ssl_libraries[] = {{"PEM", 9}, {"X509", 11}, {"ASN1", 13}, {"SSL", 20}};

static const struct {
    const char *name;
    int library, code;
} ssl_reasons[] = {
    {"NO_START_LINE", 9, 108},
    {"KEY_VALUES_MISMATCH", 11, 116},
    {"NOT_ENOUGH_DATA", 13, 142},
    {"CERTIFICATE_VERIFY_FAILED", 20, 134},
    {"HTTP_REQUEST", 20, 156},
    {"NO_PROTOCOLS_AVAILABLE", 20, 191},
    {"NO_SHARED_CIPHER", 20, 193},
    {"UNSUPPORTED_PROTOCOL", 20, 258},
    {"WRONG_SSL_VERSION", 20, 266},
    {"WRONG_VERSION_NUMBER", 20, 267},
    {"SSLV3_ALERT_HANDSHAKE_FAILURE", 20, 1040},
    {"TLSV1_ALERT_UNKNOWN_CA", 20, 1048},
    {"TLSV1_ALERT_PROTOCOL_VERSION", 20, 1070},
};

/* Adds key and value, whose references are stolen, to a dict. */
static int dict_put(PyObject *dict, PyObject *key, PyObject *value)
{
    int r = dict && key && value ? PyDict_SetItem(dict, key, value) : -1;

    Py_XDECREF(key);
    Py_XDECREF(value);
    return r;
}

static int add_tables(PyObject *module)
{
    PyObject *names = PyDict_New(), *codes = PyDict_New(), *libraries = PyDict_New();
    int r = names && codes && libraries ? 0 : -1;
    size_t i;

    for (i = 0; r == 0 && i < Py_ARRAY_LENGTH(ssl_libraries); i++)
        r = dict_put(libraries, PyLong_FromLong(ssl_libraries[i].code),
                     PyUnicode_FromString(ssl_libraries[i].name));
    for (i = 0; r == 0 && i < Py_ARRAY_LENGTH(ssl_reasons); i++) {
        r = dict_put(names, Py_BuildValue("(ii)", ssl_reasons[i].library, ssl_reasons[i].code),
                     PyUnicode_FromString(ssl_reasons[i].name));
        if (r == 0)
            r = dict_put(codes, PyUnicode_FromString(ssl_reasons[i].name),
                         Py_BuildValue("(ii)", ssl_reasons[i].library, ssl_reasons[i].code));
    }
    if (r == 0)
        r = PyModule_AddObjectRef(module, "err_codes_to_names", names);
    if (r == 0)
        r = PyModule_AddObjectRef(module, "err_names_to_codes", codes);
    if (r == 0)
        r = PyModule_AddObjectRef(module, "lib_codes_to_names", libraries);
    Py_XDECREF(names);
    Py_XDECREF(codes);
    Py_XDECREF(libraries);
    return r;
}

static int add_constants(PyObject *module)
{
    PyObject *version = Py_BuildValue("(iiiii)", 1, 1, 1, 0, 15);
    size_t i;
    int r;

    if (!version)
        return -1;
    r = PyModule_AddObjectRef(module, "OPENSSL_VERSION_INFO", version);
    if (r == 0)
        r = PyModule_AddObjectRef(module, "_OPENSSL_API_VERSION", version);
    Py_DECREF(version);
    for (i = 0; r == 0 && i < Py_ARRAY_LENGTH(ssl_truths); i++)
        r = PyModule_AddObjectRef(module, ssl_truths[i].name,
                                  ssl_truths[i].value ? Py_True : Py_False);
    if (r < 0 || PyModule_AddIntConstant(module, "OPENSSL_VERSION_NUMBER", 0x1010100f) < 0
        || PyModule_AddStringConstant(module, "OPENSSL_VERSION", SSL_VERSION_TEXT) < 0
        || PyModule_AddStringConstant(module, "_DEFAULT_CIPHERS", "DEFAULT") < 0
        || binding_add_constants(module, ssl_constants) < 0)
        return -1;
    return add_tables(module);
}

/* ---- the module ---- */

static int add_type(PyObject *module, PyTypeObject **slot, PyType_Spec *spec, const char *name)
{
    *slot = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *slot ? PyModule_AddObjectRef(module, name, (PyObject *)*slot) : -1;
}

static int ssl_exec(PyObject *module)
{
    ssl_state *st = state_of_module(module);

    st->b = binding_get(&st->keep);
    if (!st->b || add_exceptions(module, st) < 0
        || add_type(module, &st->context_type, &context_spec, "_SSLContext") < 0
        || add_type(module, &st->connection_type, &connection_spec, "_SSLSocket") < 0
        || add_type(module, &st->bio_type, &bio_spec, "MemoryBIO") < 0
        || add_type(module, &st->session_type, &session_spec, "SSLSession") < 0
        || add_type(module, &st->certificate_type, &certificate_spec, "Certificate") < 0
        || add_constants(module) < 0)
        return -1;
    st->b->ssl = st;
    st->b->raise_ssl = raise_for_others;
    return 0;
}

static int ssl_traverse(PyObject *module, visitproc visit, void *arg)
{
    ssl_state *st = state_of_module(module);

    Py_VISIT(st->context_type);
    Py_VISIT(st->connection_type);
    Py_VISIT(st->bio_type);
    Py_VISIT(st->session_type);
    Py_VISIT(st->certificate_type);
    Py_VISIT(st->error);
    Py_VISIT(st->zero_return);
    Py_VISIT(st->want_read);
    Py_VISIT(st->want_write);
    Py_VISIT(st->syscall);
    Py_VISIT(st->eof);
    Py_VISIT(st->verification);
    return 0;
}

static int ssl_clear(PyObject *module)
{
    ssl_state *st = state_of_module(module);

    if (st->b && st->b->ssl == st) {
        st->b->raise_ssl = NULL;
        st->b->ssl = NULL;
    }
    Py_CLEAR(st->context_type);
    Py_CLEAR(st->connection_type);
    Py_CLEAR(st->bio_type);
    Py_CLEAR(st->session_type);
    Py_CLEAR(st->certificate_type);
    Py_CLEAR(st->error);
    Py_CLEAR(st->zero_return);
    Py_CLEAR(st->want_read);
    Py_CLEAR(st->want_write);
    Py_CLEAR(st->syscall);
    Py_CLEAR(st->eof);
    Py_CLEAR(st->verification);
    return 0;
}

static void ssl_free(void *module)
{
    ssl_state *st = state_of_module(module);

    ssl_clear(module);
    Py_CLEAR(st->keep);
}

static PyModuleDef_Slot ssl_slots[] = {
    {Py_mod_exec, ssl_exec},
    {0, NULL},
};

struct PyModuleDef ssl_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_ssl",
    .m_doc = "TLS for Python's ssl, by pysock over BearSSL.",
    .m_size = sizeof(ssl_state),
    .m_methods = ssl_functions,
    .m_slots = ssl_slots,
    .m_traverse = ssl_traverse,
    .m_clear = ssl_clear,
    .m_free = ssl_free,
};

PyMODINIT_FUNC PyInit__ssl(void)
{
    return PyModuleDef_Init(&ssl_module);
}
