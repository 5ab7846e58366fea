/* Certificates as Python has them: the dict of getpeercert(), and _ssl.Certificate. */
#include "ssl_objects.h"

PyObject *ssl_bytes_from_buf(pysock_buf *b)
{
    PyObject *bytes = NULL;

    if (b)
        bytes = PyBytes_FromStringAndSize(pysock_buf_data(b), (Py_ssize_t)pysock_buf_size(b));
    pysock_buf_release(b);
    return bytes;
}

/* Appends an item, whose reference is stolen, to a list. */
static int append(PyObject *list, PyObject *item)
{
    int r = list && item ? PyList_Append(list, item) : -1;

    Py_XDECREF(item);
    return r;
}

/* A tuple of a list, whose reference is stolen. */
static PyObject *as_tuple(PyObject *list, int r)
{
    PyObject *tuple = list && r == 0 ? PyList_AsTuple(list) : NULL;

    Py_XDECREF(list);
    return tuple;
}

/* A distinguished name: a tuple for each RDN, of tuples (name, value). */
static PyObject *name_tuple(const pysock_ssl_attribute *a, size_t n)
{
    PyObject *name = PyList_New(0), *rdn;
    size_t i = 0;
    int r = name ? 0 : -1, number;

    while (r == 0 && i < n) {
        rdn = PyList_New(0);
        r = rdn ? 0 : -1;
        for (number = a[i].rdn; r == 0 && i < n && a[i].rdn == number; i++)
            r = append(rdn,
                       Py_BuildValue("(ss#)", a[i].name, a[i].value, (Py_ssize_t)a[i].value_size));
        rdn = as_tuple(rdn, r);
        r = rdn ? append(name, rdn) : -1;
    }
    return as_tuple(name, r);
}

static PyObject *alt_names_tuple(const pysock_ssl_cert *cert)
{
    PyObject *names = PyList_New(0);
    const pysock_ssl_alt_name *a;
    int r = names ? 0 : -1;
    size_t i;

    for (i = 0; r == 0 && i < cert->subject_alt_name_count; i++) {
        a = &cert->subject_alt_names[i];
        if (strcmp(a->type, "DirName") == 0)
            r = append(names,
                       Py_BuildValue("(sN)", a->type, name_tuple(a->dirname, a->dirname_count)));
        else
            r = append(names, Py_BuildValue("(ss#)", a->type, a->value, (Py_ssize_t)a->value_size));
    }
    return as_tuple(names, r);
}

static PyObject *uris_tuple(const char *const *uris, size_t n)
{
    PyObject *tuple = PyTuple_New((Py_ssize_t)n), *uri;
    size_t i;

    for (i = 0; tuple && i < n; i++) {
        uri = PyUnicode_FromString(uris[i]);
        if (!uri)
            Py_CLEAR(tuple);
        else
            PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, uri);
    }
    return tuple;
}

/* Sets a value, whose reference is stolen. */
static int enter(PyObject *dict, const char *key, PyObject *value)
{
    int r = value ? PyDict_SetItemString(dict, key, value) : -1;

    Py_XDECREF(value);
    return r;
}

static int fill(PyObject *dict, const pysock_ssl_cert *c)
{
    if (enter(dict, "subject", name_tuple(c->subject, c->subject_count)) < 0
        || enter(dict, "issuer", name_tuple(c->issuer, c->issuer_count)) < 0
        || enter(dict, "version", PyLong_FromLong(c->version)) < 0
        || enter(dict, "serialNumber", PyUnicode_FromString(c->serial_number)) < 0
        || enter(dict, "notBefore", PyUnicode_FromString(c->not_before)) < 0
        || enter(dict, "notAfter", PyUnicode_FromString(c->not_after)) < 0)
        return -1;
    if (c->subject_alt_name_count && enter(dict, "subjectAltName", alt_names_tuple(c)) < 0)
        return -1;
    if (c->ocsp_count && enter(dict, "OCSP", uris_tuple(c->ocsp, c->ocsp_count)) < 0)
        return -1;
    if (c->ca_issuers_count
        && enter(dict, "caIssuers", uris_tuple(c->ca_issuers, c->ca_issuers_count)) < 0)
        return -1;
    if (!c->crl_distribution_point_count)
        return 0;
    return enter(dict, "crlDistributionPoints",
                 uris_tuple(c->crl_distribution_points, c->crl_distribution_point_count));
}

PyObject *certificate_decode(ssl_state *st, const void *der, size_t size)
{
    pysock_ssl_cert *cert = pysock_ssl_cert_parse(der, size);
    PyObject *dict;

    if (!cert)
        return ssl_raise(st, SSL_READING);
    dict = PyDict_New();
    if (dict && fill(dict, cert) < 0)
        Py_CLEAR(dict);
    pysock_ssl_cert_free(cert);
    return dict;
}

/* ---- _ssl.Certificate ---- */

typedef struct certificate_object {
    PyObject_HEAD ssl_state *st;
    pysock_buf *der;
} certificate_object;

PyObject *certificate_from_buf(ssl_state *st, pysock_buf *der)
{
    certificate_object *self = PyObject_New(certificate_object, st->certificate_type);

    if (!self) {
        pysock_buf_release(der);
        return NULL;
    }
    self->st = st;
    self->der = der;
    return (PyObject *)self;
}

static void certificate_dealloc(certificate_object *self)
{
    PyTypeObject *type = Py_TYPE(self);

    pysock_buf_release(self->der);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyObject *certificate_get_info(certificate_object *self, PyObject *args)
{
    (void)args;
    return certificate_decode(self->st, pysock_buf_data(self->der), pysock_buf_size(self->der));
}

static PyObject *certificate_public_bytes(certificate_object *self, PyObject *args,
                                          PyObject *kwargs)
{
    static char *names[] = {"format", NULL};
    int format = 1;
    pysock_buf *pem;
    PyObject *text;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|i:public_bytes", names, &format))
        return NULL;
    if (format == 2)
        return ssl_bytes_from_buf(pysock_buf_retain(self->der));
    if (format != 1) {
        PyErr_SetString(PyExc_ValueError, "Unsupported format");
        return NULL;
    }
    pem = pysock_ssl_der_cert_to_pem_cert(pysock_buf_data(self->der), pysock_buf_size(self->der));
    if (!pem)
        return ssl_raise(self->st, SSL_READING);
    text = PyUnicode_FromStringAndSize(pysock_buf_data(pem), (Py_ssize_t)pysock_buf_size(pem));
    pysock_buf_release(pem);
    return text;
}

/* The subject as LDAP writes it (RFC 4514), the last RDN first: "CN=localhost,O=Example". */
static PyObject *subject_text(const pysock_ssl_cert *cert)
{
    PyObject *text = PyUnicode_FromString(""), *next;
    const pysock_ssl_attribute *a;
    pysock_ssl_oid oid;
    size_t i;

    for (i = cert->subject_count; text && i > 0; i--) {
        a = &cert->subject[i - 1];
        next = PyUnicode_FromFormat(
            "%U%s%s=%s", text,
            i == cert->subject_count ? ""
            : a[0].rdn == a[1].rdn   ? "+"
                                     : ",",
            pysock_ssl_txt2obj(a->name, 1, &oid) == 0 ? oid.shortname : a->name, a->value);
        Py_SETREF(text, next);
    }
    return text;
}

static PyObject *certificate_repr(certificate_object *self)
{
    pysock_ssl_cert *cert =
        pysock_ssl_cert_parse(pysock_buf_data(self->der), pysock_buf_size(self->der));
    PyObject *subject, *repr;

    if (!cert)
        return ssl_raise(self->st, SSL_READING);
    subject = subject_text(cert);
    pysock_ssl_cert_free(cert);
    if (!subject)
        return NULL;
    repr = PyUnicode_FromFormat("<%s '%U'>", Py_TYPE(self)->tp_name, subject);
    Py_DECREF(subject);
    return repr;
}

static int same_bytes(pysock_buf *a, pysock_buf *b)
{
    return pysock_buf_size(a) == pysock_buf_size(b)
           && memcmp(pysock_buf_data(a), pysock_buf_data(b), pysock_buf_size(a)) == 0;
}

static PyObject *certificate_compare(certificate_object *self, PyObject *other, int op)
{
    int same;

    if (Py_TYPE(self) != Py_TYPE(other) || (op != Py_EQ && op != Py_NE))
        Py_RETURN_NOTIMPLEMENTED;
    same = same_bytes(self->der, ((certificate_object *)other)->der);
    return PyBool_FromLong(same == (op == Py_EQ));
}

static Py_hash_t certificate_hash(certificate_object *self)
{
    PyObject *bytes = ssl_bytes_from_buf(pysock_buf_retain(self->der));
    Py_hash_t hash = bytes ? PyObject_Hash(bytes) : -1;

    Py_XDECREF(bytes);
    return hash;
}

static PyMethodDef certificate_methods[] = {
    {"get_info", (PyCFunction)(void (*)(void))certificate_get_info, METH_NOARGS,
     SIGNED("get_info($self, /)", "What getpeercert() tells of it.")},
    {"public_bytes", (PyCFunction)(void (*)(void))certificate_public_bytes,
     METH_VARARGS | METH_KEYWORDS,
     SIGNED("public_bytes($self, /, format=Encoding.PEM)",
            "The certificate as PEM (a str) or DER (bytes).")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot certificate_slots[] = {
    {Py_tp_dealloc, certificate_dealloc},
    {Py_tp_repr, certificate_repr},
    {Py_tp_hash, certificate_hash},
    {Py_tp_richcompare, certificate_compare},
    {Py_tp_methods, certificate_methods},
    {Py_tp_doc, "A certificate that a peer has sent, or that a path leads over."},
    {0, NULL},
};

PyType_Spec certificate_spec = {
    .name = "_ssl.Certificate",
    .basicsize = sizeof(certificate_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = certificate_slots,
};
