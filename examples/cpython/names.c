#include "names.h"

#include "address.h"

/* ---- this machine ---- */

static PyObject *names_gethostname(PyObject *m, PyObject *unused)
{
    binding *b = binding_of_module(m);
    char name[PYSOCK_HOST_STRLEN];
    binding_call call;
    int r;

    (void)unused;
    if (binding_begin_audited(b, &call, "socket.gethostname", PyTuple_New(0)) < 0)
        return NULL;
    r = pysock_gethostname(name, sizeof name);
    binding_end(&call);
    return r < 0 ? binding_raise(b) : PyUnicode_DecodeFSDefault(name);
}

static PyObject *names_sethostname(PyObject *m, PyObject *o)
{
    binding *b = binding_of_module(m);
    binding_call call;
    PyObject *name;
    int r;

    if (!PyBytes_Check(o) && !PyUnicode_Check(o)) {
        PyErr_Format(PyExc_TypeError, "sethostname() argument must be str or bytes, not %.200s",
                     Py_TYPE(o)->tp_name);
        return NULL;
    }
    if (!PyUnicode_FSConverter(o, &name))
        return NULL;
    r = binding_begin_audited(b, &call, "socket.sethostname", Py_BuildValue("(O)", o));
    if (r == 0) {
        r = pysock_sethostname(PyBytes_AS_STRING(name));
        binding_end(&call);
        if (r < 0)
            binding_raise(b);
    }
    Py_DECREF(name);
    return r < 0 ? NULL : Py_NewRef(Py_None);
}

/* ---- hosts ---- */

static int host_argument(PyObject *o, const char *caller, const char **text, PyObject **keep)
{
    if (PyUnicode_Check(o) || PyBytes_Check(o) || PyByteArray_Check(o))
        return host_from_object(o, 0, 1, text, keep);
    PyErr_Format(PyExc_TypeError, "%s() argument 1 must be str, bytes or bytearray, not %.200s",
                 caller, o == Py_None ? "None" : Py_TYPE(o)->tp_name);
    return -1;
}

static PyObject *names_gethostbyname(PyObject *m, PyObject *o)
{
    binding *b = binding_of_module(m);
    char ip[INET_ADDRSTRLEN];
    binding_call call;
    const char *host;
    PyObject *keep;
    int r;

    if (host_argument(o, "gethostbyname", &host, &keep) < 0)
        return NULL;
    r = binding_begin_audited(b, &call, "socket.gethostbyname", Py_BuildValue("(O)", o));
    if (r == 0) {
        r = pysock_gethostbyname(host, ip, sizeof ip);
        binding_end(&call);
        if (r < 0)
            binding_raise_lookup(b);
    }
    Py_DECREF(keep);
    return r < 0 ? NULL : PyUnicode_FromString(ip);
}

static PyObject *text_list(const char *const *items, size_t count)
{
    PyObject *list = PyList_New((Py_ssize_t)count);
    size_t i;

    for (i = 0; list && i < count; i++) {
        PyObject *text = PyUnicode_DecodeFSDefault(items[i]);
        if (!text) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, text);
    }
    return list;
}

static PyObject *hostent_to_object(const pysock_hostent *h)
{
    return Py_BuildValue("O&NN", PyUnicode_DecodeFSDefault, h->name,
                         text_list(h->aliases, h->alias_count),
                         text_list(h->addresses, h->address_count));
}

static PyObject *host_entry(PyObject *m, PyObject *o, const char *caller, const char *event,
                            pysock_hostent *(*get)(const char *))
{
    binding *b = binding_of_module(m);
    pysock_hostent *h = NULL;
    binding_call call;
    const char *host;
    PyObject *keep, *result = NULL;

    if (host_argument(o, caller, &host, &keep) < 0)
        return NULL;
    if (binding_begin_audited(b, &call, event, Py_BuildValue("(O)", o)) == 0) {
        h = get(host);
        binding_end(&call);
        result = h ? hostent_to_object(h) : binding_raise_lookup(b);
    }
    pysock_freehostent(h);
    Py_DECREF(keep);
    return result;
}

static PyObject *names_gethostbyname_ex(PyObject *m, PyObject *o)
{
    return host_entry(m, o, "gethostbyname_ex", "socket.gethostbyname", pysock_gethostbyname_ex);
}

static PyObject *names_gethostbyaddr(PyObject *m, PyObject *o)
{
    return host_entry(m, o, "gethostbyaddr", "socket.gethostbyaddr", pysock_gethostbyaddr);
}

/* A port or service: None, an int, str or bytes. A number is formatted in digits. */
static int service_from_object(PyObject *o, char digits[32], const char **text)
{
    long port;

    *text = NULL;
    if (o == Py_None)
        return 0;
    if (PyLong_Check(o)) {
        port = PyLong_AsLong(o);
        if (port == -1 && PyErr_Occurred())
            return -1;
        PyOS_snprintf(digits, 32, "%ld", port);
        *text = digits;
    } else if (PyUnicode_Check(o)) {
        *text = PyUnicode_AsUTF8(o);
    } else if (PyBytes_Check(o)) {
        *text = PyBytes_AS_STRING(o);
    } else {
        PyErr_SetString(PyExc_OSError, "Int or String expected");
    }
    return *text ? 0 : -1;
}

static PyObject *addrinfo_to_list(const pysock_addrinfo *list, ptrdiff_t count)
{
    PyObject *result = PyList_New(count);
    ptrdiff_t i;

    for (i = 0; result && i < count; i++) {
        PyObject *item =
            Py_BuildValue("iiisN", list[i].family, list[i].type, list[i].proto, list[i].canonname,
                          address_to_object(&list[i].addr, list[i].proto));
        if (!item) {
            Py_DECREF(result);
            return NULL;
        }
        PyList_SET_ITEM(result, i, item);
    }
    return result;
}

static PyObject *names_getaddrinfo(PyObject *m, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"host", "port", "family", "type", "proto", "flags", NULL};
    binding *b = binding_of_module(m);
    PyObject *host_object, *port_object, *keep, *result = NULL;
    int family = AF_UNSPEC, type = 0, proto = 0, flags = 0;
    const char *host, *service;
    pysock_addrinfo *list = NULL;
    binding_call call;
    ptrdiff_t count;
    char digits[32];

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|iiii:getaddrinfo", names, &host_object,
                                     &port_object, &family, &type, &proto, &flags))
        return NULL;
    if (host_object != Py_None && !PyUnicode_Check(host_object) && !PyBytes_Check(host_object)) {
        PyErr_SetString(PyExc_TypeError, "getaddrinfo() argument 1 must be string or None");
        return NULL;
    }
    if (host_from_object(host_object, 1, 1, &host, &keep) < 0)
        return NULL;
    if (service_from_object(port_object, digits, &service) == 0
        && binding_begin_audited(
               b, &call, "socket.getaddrinfo",
               Py_BuildValue("OOiii", host_object, port_object, family, type, proto))
               == 0) {
        count = pysock_getaddrinfo(host, service, family, type, proto, flags, &list);
        binding_end(&call);
        result = count < 0 ? binding_raise_lookup(b) : addrinfo_to_list(list, count);
        if (count >= 0)
            pysock_freeaddrinfo(list);
    }
    Py_XDECREF(keep);
    return result;
}

/* The one numeric address in getnameinfo's tuple. */
static int nameinfo_addr(binding *b, const char *host, int port, unsigned int flowinfo,
                         unsigned int scope, PyObject *sockaddr, pysock_addr *addr)
{
    pysock_addrinfo *list = NULL;
    binding_call call;
    char digits[16];
    ptrdiff_t count;

    PyOS_snprintf(digits, sizeof digits, "%d", port);
    binding_begin(b, &call);
    count = pysock_getaddrinfo(host, digits, AF_UNSPEC, SOCK_DGRAM, 0,
                               AI_NUMERICHOST | AI_NUMERICSERV, &list);
    binding_end(&call);
    if (count < 0) {
        binding_raise_lookup(b);
        return -1;
    }
    *addr = list[0].addr;
    pysock_freeaddrinfo(list);
    if (count > 1) {
        PyErr_SetString(PyExc_OSError, "sockaddr resolved to multiple addresses");
        return -1;
    }
    if (addr->u.sa.sa_family == AF_INET && PyTuple_GET_SIZE(sockaddr) != 2) {
        PyErr_SetString(PyExc_OSError, "IPv4 sockaddr must be 2 tuple");
        return -1;
    }
    if (addr->u.sa.sa_family == AF_INET6) {
        addr->u.in6.sin6_flowinfo = htonl(flowinfo);
        addr->u.in6.sin6_scope_id = scope;
    }
    return 0;
}

static PyObject *names_getnameinfo(PyObject *m, PyObject *args)
{
    binding *b = binding_of_module(m);
    char host[PYSOCK_HOST_STRLEN], service[PYSOCK_SERVICE_STRLEN];
    unsigned int flowinfo = 0, scope = 0;
    PyObject *sockaddr;
    const char *text;
    binding_call call;
    pysock_addr addr;
    int port, flags, r;

    if (!PyArg_ParseTuple(args, "Oi:getnameinfo", &sockaddr, &flags))
        return NULL;
    if (!PyTuple_Check(sockaddr)) {
        PyErr_SetString(PyExc_TypeError, "getnameinfo() argument 1 must be a tuple");
        return NULL;
    }
    if (!PyArg_ParseTuple(sockaddr, "si|II;getnameinfo(): illegal sockaddr argument", &text, &port,
                          &flowinfo, &scope))
        return NULL;
    if (flowinfo > 0xfffff) {
        PyErr_SetString(PyExc_OverflowError, "getnameinfo(): flowinfo must be 0-1048575.");
        return NULL;
    }
    if (PySys_Audit("socket.getnameinfo", "(O)", sockaddr) < 0)
        return NULL;
    if (nameinfo_addr(b, text, port, flowinfo, scope, sockaddr, &addr) < 0)
        return NULL;
    binding_begin(b, &call);
    r = pysock_getnameinfo(&addr, flags, host, sizeof host, service, sizeof service);
    binding_end(&call);
    if (r < 0)
        return binding_raise(b);
    return Py_BuildValue("O&s", PyUnicode_DecodeFSDefault, host, service);
}

/* ---- services and protocols ---- */

/* A name missing from the system's tables gives an OSError without errno, as in Python. */
static PyObject *not_found(binding *b, const char *what)
{
    if (PyErr_Occurred() || pysock_error() != PYSOCK_OS_ERROR || pysock_error_code() != ENOENT)
        return binding_raise(b);
    PyErr_SetString(PyExc_OSError, what);
    return NULL;
}

static PyObject *names_getservbyname(PyObject *m, PyObject *args)
{
    binding *b = binding_of_module(m);
    const char *name, *proto = NULL;
    binding_call call;
    int port;

    if (!PyArg_ParseTuple(args, "s|s:getservbyname", &name, &proto))
        return NULL;
    if (binding_begin_audited(b, &call, "socket.getservbyname",
                              Py_BuildValue("ss", name, proto ? proto : ""))
        < 0)
        return NULL;
    port = pysock_getservbyname(name, proto);
    binding_end(&call);
    return port < 0 ? not_found(b, "service/proto not found") : PyLong_FromLong(port);
}

static PyObject *names_getservbyport(PyObject *m, PyObject *args)
{
    binding *b = binding_of_module(m);
    const char *proto = NULL;
    binding_call call;
    char name[256];
    int port, r;

    if (!PyArg_ParseTuple(args, "i|s:getservbyport", &port, &proto))
        return NULL;
    if (port < 0 || port > 0xffff) {
        PyErr_SetString(PyExc_OverflowError, "getservbyport: port must be 0-65535.");
        return NULL;
    }
    if (binding_begin_audited(b, &call, "socket.getservbyport",
                              Py_BuildValue("is", port, proto ? proto : ""))
        < 0)
        return NULL;
    r = pysock_getservbyport(port, proto, name, sizeof name);
    binding_end(&call);
    return r < 0 ? not_found(b, "port/proto not found") : PyUnicode_FromString(name);
}

static PyObject *names_getprotobyname(PyObject *m, PyObject *args)
{
    binding *b = binding_of_module(m);
    binding_call call;
    const char *name;
    int proto;

    if (!PyArg_ParseTuple(args, "s:getprotobyname", &name))
        return NULL;
    binding_begin(b, &call);
    proto = pysock_getprotobyname(name);
    binding_end(&call);
    return proto < 0 ? not_found(b, "protocol not found") : PyLong_FromLong(proto);
}

/* ---- numbers ---- */

/* Swaps the bytes of an unsigned integer of that many bits. */
static PyObject *swap(PyObject *o, const char *name, int bits)
{
    unsigned long long n;

    if (!PyLong_Check(o)) {
        PyErr_Format(PyExc_TypeError, "%s() argument must be int, not %.200s", name,
                     Py_TYPE(o)->tp_name);
        return NULL;
    }
    n = PyLong_AsUnsignedLongLong(o);
    if (n == (unsigned long long)-1 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_OverflowError))
            PyErr_Format(PyExc_OverflowError, "%s: not a %d-bit unsigned integer", name, bits);
        return NULL;
    }
    if (n >> bits) {
        PyErr_Format(PyExc_OverflowError,
                     "%s: Python int too large to convert to C %d-bit "
                     "unsigned integer",
                     name, bits);
        return NULL;
    }
    return PyLong_FromUnsignedLong(bits == 16 ? htons((uint16_t)n) : htonl((uint32_t)n));
}

/* clang-format off */
static PyObject *names_ntohs(PyObject *m, PyObject *o) { (void)m; return swap(o, "ntohs", 16); }
static PyObject *names_htons(PyObject *m, PyObject *o) { (void)m; return swap(o, "htons", 16); }
static PyObject *names_ntohl(PyObject *m, PyObject *o) { (void)m; return swap(o, "ntohl", 32); }
static PyObject *names_htonl(PyObject *m, PyObject *o) { (void)m; return swap(o, "htonl", 32); }
/* clang-format on */

static PyObject *illegal_ip(const char *function)
{
    PyErr_Format(PyExc_OSError, "illegal IP address string passed to %s", function);
    return NULL;
}

static PyObject *names_inet_aton(PyObject *m, PyObject *args)
{
    unsigned char packed[4];
    const char *text;

    (void)m;
    if (!PyArg_ParseTuple(args, "s:inet_aton", &text))
        return NULL;
    if (pysock_inet_aton(text, packed) < 0)
        return illegal_ip("inet_aton");
    return PyBytes_FromStringAndSize((char *)packed, sizeof packed);
}

static PyObject *names_inet_ntoa(PyObject *m, PyObject *args)
{
    char text[INET_ADDRSTRLEN];
    Py_buffer packed;
    int r;

    (void)m;
    if (!PyArg_ParseTuple(args, "y*:inet_ntoa", &packed))
        return NULL;
    r = pysock_inet_ntoa(packed.buf, (size_t)packed.len, text, sizeof text);
    PyBuffer_Release(&packed);
    if (r == 0)
        return PyUnicode_FromString(text);
    PyErr_SetString(PyExc_OSError, "packed IP wrong length");
    return NULL;
}

static PyObject *names_inet_pton(PyObject *m, PyObject *args)
{
    unsigned char packed[16];
    const char *text;
    int family, size;

    if (!PyArg_ParseTuple(args, "is:inet_pton", &family, &text))
        return NULL;
    size = pysock_inet_pton(family, text, packed);
    if (size < 0 && pysock_error_code() == EAFNOSUPPORT)
        return binding_raise(binding_of_module(m));
    return size < 0 ? illegal_ip("inet_pton") : PyBytes_FromStringAndSize((char *)packed, size);
}

static PyObject *names_inet_ntop(PyObject *m, PyObject *args)
{
    char text[INET6_ADDRSTRLEN];
    Py_buffer packed;
    int family, r;

    (void)m;
    if (!PyArg_ParseTuple(args, "iy*:inet_ntop", &family, &packed))
        return NULL;
    r = pysock_inet_ntop(family, packed.buf, (size_t)packed.len, text, sizeof text);
    PyBuffer_Release(&packed);
    if (r == 0)
        return PyUnicode_FromString(text);
    if (family != AF_INET && family != AF_INET6)
        PyErr_Format(PyExc_ValueError, "unknown address family %d", family);
    else
        PyErr_SetString(PyExc_ValueError, "invalid length of packed IP address string");
    return NULL;
}

/* ---- interfaces ---- */

static PyObject *names_if_nameindex(PyObject *m, PyObject *unused)
{
    binding *b = binding_of_module(m);
    pysock_interface *list = NULL;
    binding_call call;
    ptrdiff_t count, i;
    PyObject *result;

    (void)unused;
    binding_begin(b, &call);
    count = pysock_if_nameindex(&list);
    binding_end(&call);
    if (count < 0)
        return binding_raise(b);
    result = PyList_New(count);
    for (i = 0; result && i < count; i++) {
        PyObject *item =
            Py_BuildValue("IO&", list[i].index, PyUnicode_DecodeFSDefault, list[i].name);
        if (item)
            PyList_SET_ITEM(result, i, item);
        else
            Py_CLEAR(result);
    }
    pysock_if_freenameindex(list);
    return result;
}

static PyObject *names_if_nametoindex(PyObject *m, PyObject *args)
{
    PyObject *name;
    int index;

    (void)m;
    if (!PyArg_ParseTuple(args, "O&:if_nametoindex", PyUnicode_FSConverter, &name))
        return NULL;
    index = pysock_if_nametoindex(PyBytes_AS_STRING(name));
    Py_DECREF(name);
    if (index > 0)
        return PyLong_FromLong(index);
    PyErr_SetString(PyExc_OSError, "no interface with this name");
    return NULL;
}

static PyObject *names_if_indextoname(PyObject *m, PyObject *o)
{
    unsigned long index = PyLong_AsUnsignedLong(o);
    char name[IF_NAMESIZE + 1];

    if (index == (unsigned long)-1 && PyErr_Occurred())
        return NULL;
    if (index > UINT_MAX) {
        PyErr_SetString(PyExc_OverflowError, "the index is too large");
        return NULL;
    }
    if (pysock_if_indextoname((unsigned int)index, name, sizeof name) < 0)
        return binding_raise(binding_of_module(m));
    return PyUnicode_DecodeFSDefault(name);
}

/* ---- ancillary data ---- */

static PyObject *cmsg_size(PyObject *o, const char *name, ptrdiff_t (*size_of)(size_t))
{
    Py_ssize_t size = PyLong_AsSsize_t(o);
    ptrdiff_t result;

    if (size == -1 && PyErr_Occurred())
        return NULL;
    result = size < 0 ? -1 : size_of((size_t)size);
    if (result >= 0)
        return PyLong_FromSsize_t(result);
    PyErr_Format(PyExc_OverflowError, "%s() argument out of range", name);
    return NULL;
}

static PyObject *names_CMSG_LEN(PyObject *m, PyObject *o)
{
    (void)m;
    return cmsg_size(o, "CMSG_LEN", pysock_cmsg_len);
}

static PyObject *names_CMSG_SPACE(PyObject *m, PyObject *o)
{
    (void)m;
    return cmsg_size(o, "CMSG_SPACE", pysock_cmsg_space);
}

/* ---- the default timeout ---- */

static PyObject *names_getdefaulttimeout(PyObject *m, PyObject *unused)
{
    binding *b = binding_of_module(m);
    double seconds;

    (void)unused;
    pysock_state_swap(b->state);
    seconds = pysock_getdefaulttimeout();
    return seconds < 0 ? Py_NewRef(Py_None) : PyFloat_FromDouble(seconds);
}

static PyObject *names_setdefaulttimeout(PyObject *m, PyObject *o)
{
    binding *b = binding_of_module(m);
    double seconds;

    if (binding_timeout(o, &seconds) < 0)
        return NULL;
    pysock_state_swap(b->state);
    if (pysock_setdefaulttimeout(seconds) < 0)
        return binding_raise(b);
    Py_RETURN_NONE;
}

/* ---- the table ---- */

/* clang-format off */
#define METHOD(name, flags, doc) {#name, (PyCFunction)(void (*)(void))names_##name, flags, doc}
/* clang-format on */

PyMethodDef names_methods[] = {
    METHOD(gethostname, METH_NOARGS, "gethostname() -> string\n\nThe name of this machine."),
    METHOD(sethostname, METH_O, "sethostname(name)\n\nGives this machine another name."),
    METHOD(gethostbyname, METH_O,
           "gethostbyname(host) -> address\n\nAn IPv4 address of a host, as text."),
    METHOD(gethostbyname_ex, METH_O,
           "gethostbyname_ex(host) -> (name, aliaslist, addresslist)\n\nThe host's proper name, "
           "its other names and its IPv4 addresses."),
    METHOD(gethostbyaddr, METH_O,
           "gethostbyaddr(host) -> (name, aliaslist, addresslist)\n\nThe same for an address, IPv4 "
           "or IPv6, or a name."),
    METHOD(getaddrinfo, METH_VARARGS | METH_KEYWORDS,
           "getaddrinfo(host, port [, family, type, proto, flags])\n    -> list of (family, type, "
           "proto, canonname, sockaddr)\n\nThe addresses that a host and a port or service stand "
           "for."),
    METHOD(getnameinfo, METH_VARARGS,
           "getnameinfo(sockaddr, flags) --> (host, port)\n\nThe names for a socket address."),
    METHOD(getservbyname, METH_VARARGS,
           "getservbyname(servicename[, protocolname]) -> integer\n\nThe port of a service; "
           "protocolname is 'tcp' or 'udp', else either does."),
    METHOD(getservbyport, METH_VARARGS,
           "getservbyport(port[, protocolname]) -> string\n\nThe service that has the port; "
           "protocolname is 'tcp' or 'udp', else either does."),
    METHOD(getprotobyname, METH_VARARGS,
           "getprotobyname(name) -> integer\n\nThe number of a protocol."),
    METHOD(ntohs, METH_O, "ntohs(integer) -> integer\n\nA 16-bit number from network byte order."),
    METHOD(htons, METH_O, "htons(integer) -> integer\n\nA 16-bit number in network byte order."),
    METHOD(ntohl, METH_O, "ntohl(integer) -> integer\n\nA 32-bit number from network byte order."),
    METHOD(htonl, METH_O, "htonl(integer) -> integer\n\nA 32-bit number in network byte order."),
    METHOD(inet_aton, METH_VARARGS,
           "inet_aton(string) -> bytes giving packed 32-bit IP representation\n\nAn IPv4 address "
           "in any form that the system takes ('127.1') as 4 bytes."),
    METHOD(inet_ntoa, METH_VARARGS,
           "inet_ntoa(packed_ip) -> ip_address_string\n\nFour bytes as an IPv4 address."),
    METHOD(inet_pton, METH_VARARGS,
           "inet_pton(af, ip) -> packed IP address string\n\nAn address of family AF_INET or "
           "AF_INET6 as bytes."),
    METHOD(inet_ntop, METH_VARARGS,
           "inet_ntop(af, packed_ip) -> string formatted IP address\n\nBytes as an address of "
           "family AF_INET or AF_INET6."),
    METHOD(if_nameindex, METH_NOARGS,
           "if_nameindex()\n\nThe network interfaces, as a list of (index, name)."),
    METHOD(if_nametoindex, METH_VARARGS,
           "if_nametoindex(if_name)\n\nThe index of the interface with this name."),
    METHOD(if_indextoname, METH_O,
           "if_indextoname(if_index)\n\nThe name of the interface with this index."),
    METHOD(CMSG_LEN, METH_O,
           "CMSG_LEN(length) -> control message length\n\nThe bytes that an item of ancillary data "
           "with so much data takes, without the padding that may follow it."),
    METHOD(CMSG_SPACE, METH_O,
           "CMSG_SPACE(length) -> buffer size\n\nThe bytes that recvmsg() needs for an item of "
           "ancillary data with so much data, with its padding."),
    METHOD(getdefaulttimeout, METH_NOARGS,
           "getdefaulttimeout() -> timeout\n\nThe timeout of new sockets in seconds; None: they "
           "block."),
    METHOD(setdefaulttimeout, METH_O,
           "setdefaulttimeout(timeout)\n\nSets the timeout of new sockets in seconds, a float; "
           "None: they block."),
    {NULL, NULL, 0, NULL},
};
