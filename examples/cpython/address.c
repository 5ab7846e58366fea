#include "address.h"

/* Bluetooth's addresses, which no system header defines: the kernel's own layout. */
#ifdef AF_BLUETOOTH
enum { BT_L2CAP = 0, BT_HCI = 1, BT_SCO = 2, BT_RFCOMM = 3 };

typedef struct {
    unsigned char b[6];
} __attribute__((packed)) bt_address;

struct bt_sockaddr_l2 {
    sa_family_t family;
    unsigned short psm;
    bt_address address;
    unsigned short cid;
    unsigned char address_type;
};

struct bt_sockaddr_rc {
    sa_family_t family;
    bt_address address;
    unsigned char channel;
};

struct bt_sockaddr_hci {
    sa_family_t family;
    unsigned short device, channel;
};

struct bt_sockaddr_sco {
    sa_family_t family;
    bt_address address;
};
#endif

/* ---- names ---- */

int host_from_object(PyObject *o, int none_allowed, int strict, const char **text, PyObject **keep)
{
    Py_ssize_t size;
    char *bytes;

    *keep = NULL;
    *text = NULL;
    if (o == Py_None && none_allowed)
        return 0;
    if (PyUnicode_Check(o)) {
        if (PyUnicode_READY(o) < 0)
            return -1;
        *keep = strict || !PyUnicode_IS_ASCII(o) ? PyUnicode_AsEncodedString(o, "idna", NULL)
                                                 : PyUnicode_AsASCIIString(o);
    } else if (PyBytes_Check(o)) {
        *keep = Py_NewRef(o);
    } else if (PyByteArray_Check(o)) {
        *keep = PyBytes_FromObject(o);
    } else {
        PyErr_Format(PyExc_TypeError, "str, bytes or bytearray expected, not %.200s",
                     Py_TYPE(o)->tp_name);
    }
    if (!*keep)
        return -1;
    if (PyBytes_AsStringAndSize(*keep, &bytes, &size) < 0 || (Py_ssize_t)strlen(bytes) != size) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "host name must not contain null character");
        Py_CLEAR(*keep);
        return -1;
    }
    *text = bytes;
    return 0;
}

/* Fills in the address of host, looking a name up. 0 or -1. */
static int resolve(binding *b, pysock_addr *addr, int family, const char *host, int port)
{
    binding_call call;
    int r;

    memset(addr, 0, sizeof *addr);
    if (family == AF_INET && inet_pton(AF_INET, host, &addr->u.in.sin_addr) == 1) {
        addr->size = sizeof addr->u.in;
        addr->u.in.sin_family = AF_INET;
        addr->u.in.sin_port = htons((uint16_t)port);
        return 0;
    }
    if (family == AF_INET6 && inet_pton(AF_INET6, host, &addr->u.in6.sin6_addr) == 1) {
        addr->size = sizeof addr->u.in6;
        addr->u.in6.sin6_family = AF_INET6;
        addr->u.in6.sin6_port = htons((uint16_t)port);
        return 0;
    }
    if (family == AF_INET6
        && (strcmp(host, "<broadcast>") == 0 || strcmp(host, "255.255.255.255") == 0)) {
        PyErr_SetString(PyExc_OSError, "address family mismatched");
        return -1;
    }
    binding_begin(b, &call);
    r = pysock_addr_resolve(addr, family, host, port);
    binding_end(&call);
    if (r < 0)
        binding_raise_lookup(b);
    return r;
}

/* ---- from Python ---- */

static int want_tuple(PyObject *o, const char *caller, const char *family)
{
    if (PyTuple_Check(o))
        return 0;
    PyErr_Format(PyExc_TypeError, "%s(): %s address must be tuple, not %.200s", caller, family,
                 Py_TYPE(o)->tp_name);
    return -1;
}

static int check_port(long port, const char *caller)
{
    if (port >= 0 && port <= 0xffff)
        return 0;
    PyErr_Format(PyExc_OverflowError, "%s(): port must be 0-65535.", caller);
    return -1;
}

/* The TypeError for a wrong tuple names the call; other exceptions stay. */
static int bad_tuple(const char *caller, const char *family, const char *shape)
{
    if (PyErr_ExceptionMatches(PyExc_TypeError))
        PyErr_Format(PyExc_TypeError, "%s(): %s address must be a tuple %s", caller, family, shape);
    return -1;
}

static int inet_from_object(binding_socket *s, PyObject *o, pysock_addr *addr, int family,
                            const char *caller)
{
    const char *name = family == AF_INET6 ? "AF_INET6" : "AF_INET", *host;
    PyObject *host_object, *keep;
    unsigned int flowinfo = 0, scope = 0;
    int port, r;

    if (want_tuple(o, caller, name) < 0)
        return -1;
    if (family == AF_INET6 ? !PyArg_ParseTuple(o, "Oi|II", &host_object, &port, &flowinfo, &scope)
                           : !PyArg_ParseTuple(o, "Oi", &host_object, &port)) {
        if (PyErr_ExceptionMatches(PyExc_OverflowError))
            return check_port(-1, caller);
        if (PyTuple_GET_SIZE(o) >= 2 && PyTuple_GET_SIZE(o) <= (family == AF_INET6 ? 4 : 2))
            return -1; /* the exception reports which item is wrong */
        return bad_tuple(caller, name,
                         family == AF_INET6 ? "(host, port[, flowinfo[, scopeid]])"
                                            : "(host, port)");
    }
    if (host_from_object(host_object, 0, 0, &host, &keep) < 0) {
        if (PyErr_ExceptionMatches(PyExc_UnicodeError)) /* in an address, Python's TypeError */
            PyErr_SetString(PyExc_TypeError, "encoding of hostname failed");
        return -1;
    }
    r = check_port(port, caller);
    if (r == 0 && flowinfo > 0xfffff) {
        PyErr_Format(PyExc_OverflowError, "%s(): flowinfo must be 0-1048575.", caller);
        r = -1;
    }
    if (r == 0)
        r = resolve(s->b, addr, family, host, port);
    Py_DECREF(keep);
    if (r == 0 && family == AF_INET6) {
        addr->u.in6.sin6_flowinfo = htonl(flowinfo);
        if (scope)
            addr->u.in6.sin6_scope_id = scope;
    }
    return r;
}

static int unix_from_object(PyObject *o, pysock_addr *addr, const char *caller)
{
    struct sockaddr_un *un = &addr->u.un;
    PyObject *path = NULL;
    size_t size;
    Py_buffer view;

    if (PyUnicode_Check(o) && !(path = PyUnicode_EncodeFSDefault(o)))
        return -1;
    if (PyObject_GetBuffer(path ? path : o, &view, PyBUF_SIMPLE) < 0) {
        PyErr_Format(PyExc_TypeError, "%s(): AF_UNIX address must be str or bytes, not %.200s",
                     caller, Py_TYPE(o)->tp_name);
        return -1;
    }
    size = (size_t)view.len;
    memset(addr, 0, sizeof *addr);
    un->sun_family = AF_UNIX;
    /* A path ends with a zero; an abstract name begins with one. */
    if (size + (size && !((char *)view.buf)[0] ? 0 : 1) > sizeof un->sun_path) {
        PyBuffer_Release(&view);
        Py_XDECREF(path);
        PyErr_SetString(PyExc_OSError, "AF_UNIX path too long");
        return -1;
    }
    memcpy(un->sun_path, view.buf, size);
    addr->size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size);
    if (size && un->sun_path[0])
        addr->size++;
    PyBuffer_Release(&view);
    Py_XDECREF(path);
    return 0;
}

#ifdef __linux__

/* A network interface's index by its name; "" is any. */
static int interface_index(binding *b, const char *name)
{
    int index = name[0] ? pysock_if_nametoindex(name) : 0;

    if (index < 0)
        binding_raise(b);
    return index;
}

static int interface_from_object(binding *b, PyObject *name)
{
    PyObject *bytes;
    int index;

    if (!PyUnicode_FSConverter(name, &bytes))
        return -1;
    index = interface_index(b, PyBytes_AS_STRING(bytes));
    Py_DECREF(bytes);
    return index;
}

static int netlink_from_object(PyObject *o, pysock_addr *addr, const char *caller)
{
    struct sockaddr_nl *nl = (struct sockaddr_nl *)&addr->u;
    unsigned int pid, groups;

    if (want_tuple(o, caller, "AF_NETLINK") < 0)
        return -1;
    if (!PyArg_ParseTuple(o, "II", &pid, &groups))
        return bad_tuple(caller, "AF_NETLINK", "(pid, groups)");
    nl->nl_family = AF_NETLINK;
    nl->nl_pid = pid;
    nl->nl_groups = groups;
    addr->size = sizeof *nl;
    return 0;
}

static int packet_from_object(binding *b, PyObject *o, pysock_addr *addr, const char *caller)
{
    struct sockaddr_ll *ll = (struct sockaddr_ll *)&addr->u;
    Py_buffer hardware = {0};
    int proto, kind = 0, type = 0, index;
    PyObject *name;

    if (want_tuple(o, caller, "AF_PACKET") < 0)
        return -1;
    if (!PyArg_ParseTuple(o, "Ui|iiy*", &name, &proto, &kind, &type, &hardware))
        return bad_tuple(caller, "AF_PACKET", "(ifname, proto[, pkttype[, hatype[, addr]]])");
    index = interface_from_object(b, name);
    if (index < 0)
        goto done;
    if (hardware.len > (Py_ssize_t)sizeof ll->sll_addr) {
        PyErr_SetString(PyExc_ValueError, "Hardware address must be 8 bytes or less");
        index = -1;
    } else if (proto < 0 || proto > 0xffff) {
        PyErr_Format(PyExc_OverflowError, "%s(): proto must be 0-65535.", caller);
        index = -1;
    } else {
        ll->sll_family = AF_PACKET;
        ll->sll_protocol = htons((uint16_t)proto);
        ll->sll_ifindex = index;
        ll->sll_pkttype = (unsigned char)kind;
        ll->sll_hatype = (unsigned short)type;
        ll->sll_halen = (unsigned char)hardware.len;
        if (hardware.len)
            memcpy(ll->sll_addr, hardware.buf, (size_t)hardware.len);
        addr->size = sizeof *ll;
    }
done:
    PyBuffer_Release(&hardware);
    return index < 0 ? -1 : 0;
}

static int tipc_from_object(PyObject *o, pysock_addr *addr, const char *caller)
{
    struct sockaddr_tipc *t = (struct sockaddr_tipc *)&addr->u;
    unsigned int kind, v1, v2, v3, scope = TIPC_CLUSTER_SCOPE;

    if (want_tuple(o, caller, "AF_TIPC") < 0)
        return -1;
    if (!PyArg_ParseTuple(o, "IIII|I", &kind, &v1, &v2, &v3, &scope))
        return bad_tuple(caller, "AF_TIPC", "(addr_type, v1, v2, v3[, scope])");
    t->family = AF_TIPC;
    t->scope = (signed char)scope;
    t->addrtype = (unsigned char)kind;
    addr->size = sizeof *t;
    switch (kind) {
    case TIPC_ADDR_NAMESEQ:
        t->addr.nameseq.type = v1;
        t->addr.nameseq.lower = v2;
        t->addr.nameseq.upper = v3;
        return 0;
    case TIPC_ADDR_NAME:
        t->addr.name.name.type = v1;
        t->addr.name.name.instance = v2;
        return 0;
    case TIPC_ADDR_ID:
        t->addr.id.node = v1;
        t->addr.id.ref = v2;
        return 0;
    default: PyErr_Format(PyExc_TypeError, "%s(): Invalid address type", caller); return -1;
    }
}

static int can_from_object(binding_socket *s, PyObject *o, pysock_addr *addr, const char *caller)
{
    struct sockaddr_can *can = (struct sockaddr_can *)&addr->u;
    unsigned long rx = 0, tx = 0, pgn = J1939_NO_PGN;
    unsigned long long j1939_name = J1939_NO_NAME;
    unsigned char j1939_addr = J1939_NO_ADDR;
    PyObject *interface;
    const char *shape;
    int index, ok;

    if (want_tuple(o, caller, "AF_CAN") < 0)
        return -1;
    if (s->proto == CAN_ISOTP) {
        shape = "(interface, rx_addr, tx_addr)";
        ok = PyArg_ParseTuple(o, "O&kk", PyUnicode_FSConverter, &interface, &rx, &tx);
    } else if (s->proto == CAN_J1939) {
        shape = "(interface, name, pgn, addr)";
        ok = PyArg_ParseTuple(o, "O&Kkb", PyUnicode_FSConverter, &interface, &j1939_name, &pgn,
                              &j1939_addr);
    } else {
        shape = "(interface, )";
        ok = PyArg_ParseTuple(o, "O&", PyUnicode_FSConverter, &interface);
    }
    if (!ok)
        return bad_tuple(caller, "AF_CAN", shape);
    index = interface_index(s->b, PyBytes_AS_STRING(interface));
    Py_DECREF(interface);
    if (index < 0)
        return -1;
    can->can_family = AF_CAN;
    can->can_ifindex = index;
    addr->size = sizeof *can;
    if (s->proto == CAN_ISOTP) {
        can->can_addr.tp.rx_id = (canid_t)rx;
        can->can_addr.tp.tx_id = (canid_t)tx;
    } else if (s->proto == CAN_J1939) {
        can->can_addr.j1939.name = j1939_name;
        can->can_addr.j1939.pgn = (unsigned int)pgn;
        can->can_addr.j1939.addr = j1939_addr;
    }
    return 0;
}

static int alg_from_object(PyObject *o, pysock_addr *addr, const char *caller)
{
    struct sockaddr_alg *alg = (struct sockaddr_alg *)&addr->u;
    const char *type, *name;

    if (want_tuple(o, caller, "AF_ALG") < 0)
        return -1;
    if (!PyArg_ParseTuple(o, "ss|HH", &type, &name, &alg->salg_feat, &alg->salg_mask))
        return bad_tuple(caller, "AF_ALG", "(type, name[, feat[, mask]])");
    if (strlen(type) >= sizeof alg->salg_type || strlen(name) >= sizeof alg->salg_name) {
        PyErr_SetString(PyExc_ValueError, strlen(type) >= sizeof alg->salg_type
                                              ? "AF_ALG type too long."
                                              : "AF_ALG name too long.");
        return -1;
    }
    alg->salg_family = AF_ALG;
    memcpy(alg->salg_type, type, strlen(type) + 1);
    memcpy(alg->salg_name, name, strlen(name) + 1);
    addr->size = sizeof *alg;
    return 0;
}

static int vsock_from_object(PyObject *o, pysock_addr *addr, const char *caller)
{
    struct sockaddr_vm *vm = (struct sockaddr_vm *)&addr->u;
    unsigned int cid, port;

    if (want_tuple(o, caller, "AF_VSOCK") < 0)
        return -1;
    if (!PyArg_ParseTuple(o, "II", &cid, &port))
        return bad_tuple(caller, "AF_VSOCK", "(CID, port)");
    vm->svm_family = AF_VSOCK;
    vm->svm_cid = cid;
    vm->svm_port = port;
    addr->size = sizeof *vm;
    return 0;
}

static int qrtr_from_object(PyObject *o, pysock_addr *addr, const char *caller)
{
    struct sockaddr_qrtr *q = (struct sockaddr_qrtr *)&addr->u;
    unsigned int node, port;

    if (want_tuple(o, caller, "AF_QIPCRTR") < 0)
        return -1;
    if (!PyArg_ParseTuple(o, "II", &node, &port))
        return bad_tuple(caller, "AF_QIPCRTR", "(node, port)");
    q->sq_family = AF_QIPCRTR;
    q->sq_node = node;
    q->sq_port = port;
    addr->size = sizeof *q;
    return 0;
}

#endif /* __linux__ */

#ifdef AF_BLUETOOTH

/* "01:23:45:67:89:AB", whose last byte comes first. */
static int bt_parse(const char *text, bt_address *out)
{
    unsigned int v[6];
    char rest;
    int i;

    if (sscanf(text, "%X:%X:%X:%X:%X:%X%c", &v[5], &v[4], &v[3], &v[2], &v[1], &v[0], &rest) == 6) {
        for (i = 0; i < 6 && v[i] < 256; i++)
            out->b[i] = (unsigned char)v[i];
        if (i == 6)
            return 0;
    }
    PyErr_SetString(PyExc_OSError, "bad bluetooth address");
    return -1;
}

static int bluetooth_from_object(binding_socket *s, PyObject *o, pysock_addr *addr,
                                 const char *caller)
{
    struct bt_sockaddr_l2 *l2 = (struct bt_sockaddr_l2 *)&addr->u;
    struct bt_sockaddr_rc *rc = (struct bt_sockaddr_rc *)&addr->u;
    struct bt_sockaddr_hci *hci = (struct bt_sockaddr_hci *)&addr->u;
    struct bt_sockaddr_sco *sco = (struct bt_sockaddr_sco *)&addr->u;
    const char *text;

    if (s->proto != BT_SCO && want_tuple(o, caller, "AF_BLUETOOTH") < 0)
        return -1;
    addr->u.sa.sa_family = AF_BLUETOOTH;
    switch (s->proto) {
    case BT_L2CAP:
        if (!PyArg_ParseTuple(o, "sH", &text, &l2->psm))
            return bad_tuple(caller, "AF_BLUETOOTH", "(bdaddr, psm)");
        addr->size = sizeof *l2;
        return bt_parse(text, &l2->address);
    case BT_RFCOMM:
        if (!PyArg_ParseTuple(o, "sb", &text, &rc->channel))
            return bad_tuple(caller, "AF_BLUETOOTH", "(bdaddr, channel)");
        addr->size = sizeof *rc;
        return bt_parse(text, &rc->address);
    case BT_HCI:
        if (!PyArg_ParseTuple(o, "H", &hci->device))
            return bad_tuple(caller, "AF_BLUETOOTH", "(device_id,)");
        addr->size = sizeof *hci;
        return 0;
    case BT_SCO:
        if (!PyBytes_Check(o)) {
            PyErr_Format(PyExc_OSError, "%s(): wrong format", caller);
            return -1;
        }
        addr->size = sizeof *sco;
        return bt_parse(PyBytes_AS_STRING(o), &sco->address);
    default: PyErr_Format(PyExc_OSError, "%s(): unknown Bluetooth protocol", caller); return -1;
    }
}

#endif

int address_from_object(binding_socket *s, PyObject *o, pysock_addr *addr, const char *caller)
{
    memset(addr, 0, sizeof *addr);
    switch (s->family) {
    case AF_INET:
#ifdef AF_RDS
    case AF_RDS:
#endif
        return inet_from_object(s, o, addr, AF_INET, caller);
    case AF_INET6: return inet_from_object(s, o, addr, AF_INET6, caller);
    case AF_UNIX: return unix_from_object(o, addr, caller);
#ifdef __linux__
    case AF_NETLINK: return netlink_from_object(o, addr, caller);
    case AF_PACKET: return packet_from_object(s->b, o, addr, caller);
    case AF_TIPC: return tipc_from_object(o, addr, caller);
    case AF_CAN: return can_from_object(s, o, addr, caller);
    case AF_ALG: return alg_from_object(o, addr, caller);
    case AF_VSOCK: return vsock_from_object(o, addr, caller);
    case AF_QIPCRTR: return qrtr_from_object(o, addr, caller);
#endif
#ifdef AF_BLUETOOTH
    case AF_BLUETOOTH: return bluetooth_from_object(s, o, addr, caller);
#endif
    default: PyErr_Format(PyExc_OSError, "%s(): bad family", caller); return -1;
    }
}

/* ---- to Python ---- */

/* "127.0.0.1", for each received datagram: inet_ntop() takes several times as long. */
static PyObject *ipv4_text(const unsigned char b[4])
{
    char text[INET_ADDRSTRLEN], *p = text;
    int i;

    for (i = 0; i < 4; i++) {
        if (b[i] > 99)
            *p++ = (char)('0' + b[i] / 100);
        if (b[i] > 9)
            *p++ = (char)('0' + b[i] / 10 % 10);
        *p++ = (char)('0' + b[i] % 10);
        *p++ = '.';
    }
    return PyUnicode_FromStringAndSize(text, p - text - 1);
}

/* A tuple of two objects, whose references are stolen. */
static PyObject *pair(PyObject *first, PyObject *second)
{
    PyObject *tuple = first && second ? PyTuple_New(2) : NULL;

    if (!tuple) {
        Py_XDECREF(first);
        Py_XDECREF(second);
        return NULL;
    }
    PyTuple_SET_ITEM(tuple, 0, first);
    PyTuple_SET_ITEM(tuple, 1, second);
    return tuple;
}

static PyObject *inet_to_object(const pysock_addr *addr)
{
    char text[INET6_ADDRSTRLEN] = "";

    if (addr->u.sa.sa_family == AF_INET)
        return pair(ipv4_text((const unsigned char *)&addr->u.in.sin_addr),
                    PyLong_FromLong(ntohs(addr->u.in.sin_port)));
    pysock_inet_ntop(AF_INET6, &addr->u.in6.sin6_addr, 16, text, sizeof text);
    return Py_BuildValue("(siII)", text, ntohs(addr->u.in6.sin6_port),
                         ntohl(addr->u.in6.sin6_flowinfo), addr->u.in6.sin6_scope_id);
}

static PyObject *unix_to_object(const pysock_addr *addr)
{
    const struct sockaddr_un *un = &addr->u.un;
    size_t head = offsetof(struct sockaddr_un, sun_path);
    size_t size = addr->size > head ? addr->size - head : 0;

    if (size && !un->sun_path[0]) /* abstract: all of it is the name */
        return PyBytes_FromStringAndSize(un->sun_path, (Py_ssize_t)size);
    return PyUnicode_DecodeFSDefaultAndSize(un->sun_path, (Py_ssize_t)strnlen(un->sun_path, size));
}

#ifdef __linux__

/* The interface's name, or "" if it no longer exists. */
static const char *interface_name(int index, char name[IF_NAMESIZE])
{
    if (index <= 0 || !if_indextoname((unsigned int)index, name))
        name[0] = 0;
    return name;
}

static PyObject *packet_to_object(const pysock_addr *addr)
{
    const struct sockaddr_ll *ll = (const struct sockaddr_ll *)&addr->u;
    Py_ssize_t size = ll->sll_halen;
    char name[IF_NAMESIZE];

    if (size > (Py_ssize_t)sizeof ll->sll_addr)
        size = sizeof ll->sll_addr;
    return Py_BuildValue("O&iiiy#", PyUnicode_DecodeFSDefault,
                         interface_name(ll->sll_ifindex, name), ntohs(ll->sll_protocol),
                         ll->sll_pkttype, ll->sll_hatype, (const char *)ll->sll_addr, size);
}

static PyObject *tipc_to_object(const pysock_addr *addr)
{
    const struct sockaddr_tipc *t = (const struct sockaddr_tipc *)&addr->u;

    switch (t->addrtype) {
    case TIPC_ADDR_NAMESEQ:
        return Py_BuildValue("IIIII", t->addrtype, t->addr.nameseq.type, t->addr.nameseq.lower,
                             t->addr.nameseq.upper, t->scope);
    case TIPC_ADDR_NAME:
        return Py_BuildValue("IIIII", t->addrtype, t->addr.name.name.type,
                             t->addr.name.name.instance, t->addr.name.name.instance, t->scope);
    case TIPC_ADDR_ID:
        return Py_BuildValue("IIIII", t->addrtype, t->addr.id.node, t->addr.id.ref, 0u, t->scope);
    default: PyErr_SetString(PyExc_ValueError, "Invalid address type"); return NULL;
    }
}

static PyObject *can_to_object(const pysock_addr *addr, int proto)
{
    const struct sockaddr_can *can = (const struct sockaddr_can *)&addr->u;
    char name[IF_NAMESIZE];

    interface_name(can->can_ifindex, name);
    if (proto == CAN_ISOTP)
        return Py_BuildValue("O&kk", PyUnicode_DecodeFSDefault, name,
                             (unsigned long)can->can_addr.tp.rx_id,
                             (unsigned long)can->can_addr.tp.tx_id);
    if (proto == CAN_J1939)
        return Py_BuildValue("O&KIB", PyUnicode_DecodeFSDefault, name,
                             (unsigned long long)can->can_addr.j1939.name,
                             (unsigned int)can->can_addr.j1939.pgn, can->can_addr.j1939.addr);
    return Py_BuildValue("(O&)", PyUnicode_DecodeFSDefault, name);
}

#endif

#ifdef AF_BLUETOOTH

static PyObject *bt_to_object(const bt_address *a)
{
    return PyUnicode_FromFormat("%02X:%02X:%02X:%02X:%02X:%02X", a->b[5], a->b[4], a->b[3], a->b[2],
                                a->b[1], a->b[0]);
}

static PyObject *bluetooth_to_object(const pysock_addr *addr, int proto)
{
    const struct bt_sockaddr_l2 *l2 = (const struct bt_sockaddr_l2 *)&addr->u;
    const struct bt_sockaddr_rc *rc = (const struct bt_sockaddr_rc *)&addr->u;
    const struct bt_sockaddr_hci *hci = (const struct bt_sockaddr_hci *)&addr->u;
    const struct bt_sockaddr_sco *sco = (const struct bt_sockaddr_sco *)&addr->u;

    switch (proto) {
    case BT_L2CAP: return Py_BuildValue("NH", bt_to_object(&l2->address), l2->psm);
    case BT_RFCOMM: return Py_BuildValue("NB", bt_to_object(&rc->address), rc->channel);
    case BT_HCI: return Py_BuildValue("(H)", hci->device);
    case BT_SCO: return bt_to_object(&sco->address);
    default: PyErr_SetString(PyExc_ValueError, "Unknown Bluetooth protocol"); return NULL;
    }
}

#endif

PyObject *address_to_object(const pysock_addr *addr, int proto)
{
    if (!addr->size)
        Py_RETURN_NONE;
    (void)proto;
    switch (addr->u.sa.sa_family) {
    case AF_INET:
    case AF_INET6: return inet_to_object(addr);
    case AF_UNIX: return unix_to_object(addr);
#ifdef __linux__
    case AF_NETLINK: {
        const struct sockaddr_nl *nl = (const struct sockaddr_nl *)&addr->u;
        return Py_BuildValue("II", nl->nl_pid, nl->nl_groups);
    }
    case AF_PACKET: return packet_to_object(addr);
    case AF_TIPC: return tipc_to_object(addr);
    case AF_CAN: return can_to_object(addr, proto);
    case AF_ALG: {
        const struct sockaddr_alg *alg = (const struct sockaddr_alg *)&addr->u;
        return Py_BuildValue("s#s#HH", alg->salg_type,
                             (Py_ssize_t)strnlen((const char *)alg->salg_type, 14), alg->salg_name,
                             (Py_ssize_t)strnlen((const char *)alg->salg_name, 64), alg->salg_feat,
                             alg->salg_mask);
    }
    case AF_VSOCK: {
        const struct sockaddr_vm *vm = (const struct sockaddr_vm *)&addr->u;
        return Py_BuildValue("II", vm->svm_cid, vm->svm_port);
    }
    case AF_QIPCRTR: {
        const struct sockaddr_qrtr *q = (const struct sockaddr_qrtr *)&addr->u;
        return Py_BuildValue("II", q->sq_node, q->sq_port);
    }
#endif
#ifdef AF_BLUETOOTH
    case AF_BLUETOOTH: return bluetooth_to_object(addr, proto);
#endif
    default: /* as it is: the family and what follows it */
        return Py_BuildValue("iy#", addr->u.sa.sa_family, addr->u.sa.sa_data,
                             (Py_ssize_t)(addr->size - offsetof(struct sockaddr, sa_data)));
    }
}
