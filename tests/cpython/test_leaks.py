"""Nothing is lost: each operation of the three modules, where it succeeds and where it fails,
leaves no object, no memory, no descriptor and no thread behind, however often it is repeated."""
import ctypes
import gc
import os
import select
import socket
import sys
import tempfile
import unittest
import warnings
import _socket

try:
    import ssl
    import _ssl
except ImportError:
    ssl = None

CERTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../certs")
TIMES = int(os.environ.get("PYSOCK_LEAK_TIMES", "40"))


class Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
        "fordblks", "keepcost")]


try:
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = Mallinfo
except (AttributeError, OSError, TypeError):
    mallinfo = None


def memory():
    """What the C library's malloc() has given out, if it can tell."""
    if not mallinfo:
        return 0
    info = mallinfo()
    return info.uordblks + info.hblkhd


def descriptors():
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


def threads():
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0


class Steady(unittest.TestCase):
    def measure(self):
        gc.collect()
        sys._clear_type_cache()
        references = getattr(sys, "gettotalrefcount", lambda: 0)()
        return sys.getallocatedblocks(), references, memory(), descriptors(), threads()

    def steady(self, operation, times=TIMES, label=None):
        """Repeats it, round after round, until one of them leaves nothing behind; a cache may fill
        in the first ones, and a thread of the library's may be busy in any."""
        with self.subTest(label or operation.__name__):
            for _ in range(8):
                before = self.measure()
                for _ in range(times):
                    operation()
                after = self.measure()
                grown = [b - a for a, b in zip(before, after)]
                if (grown[0] < times // 4 and grown[1] < times // 4 and grown[2] < times * 8
                        and grown[3] <= 0 and grown[4] <= 0):
                    return
            self.fail("blocks, references, bytes, descriptors and threads grow by %r in %d times"
                      % (grown, times))

    def all_wrong(self, o, *skip):
        """Every method with arguments that are wrong in many ways, and every property likewise."""
        odd = (None, -1, 1 << 70, "text", b"bytes", bytearray(3), 1.5, [], [1], (), ("", ""),
               object, ("127.0.0.1", -1), ("\0", 1), {"a": 1})
        names = [n for n in dir(o) if not n.startswith("__") and n not in skip]

        def attempt(f, *args, **kwargs):
            try:
                f(*args, **kwargs)
            except Exception:
                pass

        for name in names:
            def wrong():
                f = getattr(o, name, None)
                if not callable(f):
                    for value in odd:
                        attempt(setattr, o, name, value)
                    attempt(delattr, o, name)
                    return
                attempt(f)
                attempt(f, nobody=1)
                for value in odd:
                    attempt(f, value)
                    attempt(f, value, value)
                    attempt(f, b"x", value)
                    attempt(f, value, 1, value)
                    attempt(f, value, value, value, value, value, value)
            with tempfile.TemporaryDirectory() as directory:    # some of it are names of files
                before = os.getcwd()
                os.chdir(directory)
                try:
                    self.steady(wrong, 4, "%s.%s" % (type(o).__name__, name))
                finally:
                    os.chdir(before)


class Attributes:
    def __init__(self, o):
        self.o = o


class Sockets(Steady):
    def setUp(self):
        warnings.simplefilter("ignore")
        self.a, self.b = socket.socketpair()
        self.a.setblocking(False)
        self.b.setblocking(False)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.udp.setblocking(False)

    def tearDown(self):
        for s in self.a, self.b, self.listener, self.udp:
            s.close()

    def test_calls_that_succeed(self):
        a, b, listener, udp = self.a, self.b, self.listener, self.udp
        room = bytearray(100)

        def stream():
            a.send(b"x" * 100); b.recv(10); b.recv_into(room, 10); b.recv(8000)
            a.sendall(b"y"); b.recvfrom(1)
            a.sendmsg([b"x", b"y"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, b"\0\0\0\0")])
            for _, _, data in b.recvmsg(10, 100)[1]:
                os.close(int.from_bytes(data[:4], sys.byteorder))
            a.sendmsg([b"x"]); b.recvmsg_into([room, bytearray(4)])

        def datagram():
            udp.sendto(b"x", udp.getsockname()); udp.recvfrom(10)
            udp.sendto(b"x", 0, udp.getsockname()); udp.recvfrom_into(room)

        def descriptor():
            with socket.socket() as s:
                socket.close(socket.dup(s.fileno()))

        def connected():
            with socket.create_connection(listener.getsockname()) as c:
                c.getpeername(), c.getsockname(), c.family, c.type, c.proto, repr(c)
                listener.accept()[0].close()

        def options():
            a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 5000)
            a.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            a.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8)
            a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, b"\0\1\0\0")
            a.settimeout(3.5); a.gettimeout(); a.getblocking(); a.setblocking(False)

        def names():
            socket.getaddrinfo("127.0.0.1", 80); socket.getaddrinfo("localhost", None)
            socket.gethostname(); socket.getnameinfo(("127.0.0.1", 80), 3)
            socket.gethostbyname("127.0.0.1"); socket.inet_aton("1.2.3.4")
            socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, "::1"))
            socket.if_nameindex(); socket.CMSG_SPACE(4); socket.htonl(5)
            socket.setdefaulttimeout(2.5); socket.getdefaulttimeout()
            socket.setdefaulttimeout(None)

        def forgotten():
            socket.socket()
            c, d = map(Attributes, socket.socketpair())
            c.other, d.other = d, c

        def begun_twice():
            s = _socket.socket()
            s.__init__()
            s.close()

        def made_and_closed():
            c, d = socket.socketpair()
            os.close(c.detach())
            d.close()

        for operation in (stream, datagram, made_and_closed, descriptor, connected, options, names,
                          forgotten, begun_twice):
            self.steady(operation)

    def test_wrong_arguments(self):
        one, two = _socket.socketpair()
        one.settimeout(0)
        self.all_wrong(one, "close", "detach", "setblocking", "settimeout")
        packets = _socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        packets.settimeout(0)
        self.all_wrong(packets, "close", "detach", "setblocking", "settimeout")
        two.settimeout(0)
        self.all_wrong(two, "close", "detach", "shutdown")
        two.close()
        self.all_wrong(two)
        one.close()
        packets.close()

    def test_wrong_arguments_of_the_module(self):
        self.all_wrong(_socket, "close", "dup", "sethostname", "socketpair", "gethostbyaddr",
                       "gethostbyname", "gethostbyname_ex", "getaddrinfo", "getnameinfo",
                       "getservbyname", "getservbyport", "SocketType", "CAPI",
                       *[n for n in dir(_socket) if n.isupper() or isinstance(
                           getattr(_socket, n), type)])

        def made():
            for args in ((-5,), (1, 2, 3, 4, 5), ("x",), (socket.AF_INET, 77),
                         (-1, -1, -1, 1 << 40), (-1, -1, -1, -5), (-1, -1, -1, 987654)):
                try:
                    socket.socket(*args)
                except (OSError, TypeError, ValueError, OverflowError):
                    pass

        def names():
            for f, *args in ((socket.getaddrinfo, "256.1.1.1", 1, 0, 0, 0, socket.AI_NUMERICHOST),
                             (socket.getaddrinfo, b"\xff", None, 1, 2, 3, 4, 5),
                             (socket.getnameinfo, ("x", 1, 2), 0), (socket.getnameinfo, 1, 2),
                             (socket.gethostbyname, 5), (socket.getservbyname, "nobody"),
                             (socket.getservbyport, -1), (socket.close, 987654),
                             (socket.dup, -1), (socket.socketpair, 1, 2, 3, 4)):
                try:
                    f(*args)
                except (OSError, TypeError, ValueError, OverflowError):
                    pass

        self.steady(made)
        self.steady(names)

    def test_select_and_pollers(self):
        a, b = self.a, self.b

        def selected():
            select.select([a, b], [a], [b], 0)
            for args in (([a, 5.5], [], []), (1, 2, 3), ([a], [b], [-1]), ([a], [], [], "x"),
                         ([a], [], [], -1)):
                try:
                    select.select(*args)
                except (TypeError, ValueError, OSError):
                    pass

        def polled():
            p = select.poll()
            p.register(a); p.register(b, select.POLLOUT); p.modify(a, select.POLLIN); p.poll(0)
            p.unregister(a)
            try:
                p.unregister(a)
            except KeyError:
                pass

        def epolled():
            with select.epoll() as e:
                e.register(a, select.EPOLLOUT); e.modify(a, select.EPOLLIN)
                e.poll(0); e.poll(0, 500)
                try:
                    e.register(a)
                except FileExistsError:
                    pass
                e.unregister(a)
                f = select.epoll.fromfd(e.fileno())
                f.poll(0); f.close()
            e.closed, f.closed
            select.epoll()

        for operation in selected, polled, epolled:
            self.steady(operation)
        p, e = select.poll(), select.epoll()
        self.all_wrong(p, "poll")
        self.all_wrong(e, "poll", "close", "fromfd", "__exit__")
        e.close()
        self.all_wrong(e, "fromfd")


@unittest.skipUnless(ssl, "the modules are without _ssl")
class Tls(Steady):
    def setUp(self):
        warnings.simplefilter("ignore")
        self.client = ssl.create_default_context(cafile=CERTS + "/ca.pem")
        with open(CERTS + "/ca.pem") as f:
            self.pem = f.read()

    def server_context(self):
        """A new one, as it keeps sessions."""
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(CERTS + "/server-ec.pem", CERTS + "/server-ec.key")
        server.sni_callback = lambda *args: None
        return server

    def memory_pair(self, client=None, name="localhost", server=None):
        """Two ends that have shaken hands in memory."""
        one, two = ssl.MemoryBIO(), ssl.MemoryBIO()
        a = (client or self.client).wrap_bio(one, two, server_hostname=name)
        b = (server or self.server_context()).wrap_bio(two, one, server_side=True)
        for s in a, b, a, b, a:
            try:
                s.do_handshake()
            except ssl.SSLWantReadError:
                pass
        return a, b

    def socket_pair(self):
        a, b = socket.socketpair()
        a = self.client.wrap_socket(a, server_hostname="localhost", do_handshake_on_connect=False)
        b = self.server_context().wrap_socket(b, server_side=True, do_handshake_on_connect=False)
        a.setblocking(False)
        b.setblocking(False)
        left = [a, b]
        while left:
            for s in list(left):
                try:
                    s.do_handshake()
                    left.remove(s)
                except ssl.SSLWantReadError:
                    pass
            select.select([a, b], [], [], 0.001)
        return a, b

    def test_connections(self):
        def in_memory():
            a, b = self.memory_pair()
            a.write(b"x"); b.read(); a.getpeercert(); a.getpeercert(True); a.cipher(); a.version()
            a.get_channel_binding(); a.session; b.shared_ciphers(); a.pending(); a.compression()
            a._sslobj.get_verified_chain(); a._sslobj.get_unverified_chain(); a.session_reused
            try:
                a.unwrap()
            except ssl.SSLWantReadError:
                pass

        def on_sockets():
            a, b = self.socket_pair()
            a.sendall(b"x"); select.select([b], [], []); b.recv(1); a.getpeercert(); repr(a)
            try:
                b.recv(1)
            except ssl.SSLWantReadError:
                pass
            a.close(); b.close()

        def forgotten():
            a, b = self.socket_pair()
            a.itself = [a, b]

        def refused():
            try:
                self.memory_pair(name="wrong.host")
            except ssl.SSLCertVerificationError:
                pass

        def not_tls():
            incoming = ssl.MemoryBIO()
            incoming.write(b"GET / HTTP/1.0\r\n\r\n")
            s = self.server_context().wrap_bio(incoming, ssl.MemoryBIO(), server_side=True)
            try:
                s.do_handshake()
            except ssl.SSLError:
                pass

        def refused_by_callback():
            server = self.server_context()
            server.sni_callback = lambda *args: ssl.ALERT_DESCRIPTION_ACCESS_DENIED
            try:
                self.memory_pair(server=server)
            except ssl.SSLError:
                pass

        def another_context():
            server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

            def called(s, name, context):
                s.context = self.server_context()
            server.sni_callback = called
            self.memory_pair(server=server)

        for operation in (in_memory, on_sockets, forgotten, refused, not_tls, refused_by_callback,
                          another_context):
            self.steady(operation, 12)

    def test_contexts(self):
        def settings():
            c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            c.load_verify_locations(cadata=self.pem); c.load_verify_locations(CERTS + "/ca.pem")
            c.get_ca_certs(); c.get_ca_certs(True); c.cert_store_stats(); c.session_stats()
            c.get_ciphers(); c.set_ciphers("ECDHE"); c.set_alpn_protocols(["h2", "http/1.1"])
            c.load_cert_chain(CERTS + "/server-ec.pem", CERTS + "/server-ec.key", lambda: "x")
            c.check_hostname = False; c.verify_mode = ssl.CERT_NONE; c.options |= ssl.OP_NO_TICKET
            c.minimum_version = ssl.TLSVersion.TLSv1_2; c.maximum_version, c.verify_flags
            c.set_ecdh_curve("prime256v1"); c.itself = c

        def failures():
            c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            for f, *args in ((c.load_verify_locations, "/nowhere"),
                             (c.load_verify_locations, None, None, "x"),
                             (c.load_verify_locations, None, None, b"x"),
                             (c.load_verify_locations, None, None, 5),
                             (c.load_cert_chain, CERTS + "/ca.pem"),
                             (c.load_cert_chain, CERTS + "/ca.pem", CERTS + "/client.key"),
                             (c.load_cert_chain, "/nowhere"), (c.set_ciphers, "nothing"),
                             (c.load_dh_params, CERTS + "/ca.pem"), (c.set_ecdh_curve, "nothing")):
                try:
                    f(*args)
                except (OSError, TypeError, ValueError):
                    pass

        self.steady(settings, 12)
        self.steady(failures, 12)

    def test_wrong_arguments(self):
        a, b = self.memory_pair()
        self.all_wrong(ssl._ssl._SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        self.all_wrong(a._sslobj, "_leave")
        self.all_wrong(b._sslobj)
        self.all_wrong(ssl.MemoryBIO())
        self.all_wrong(a.session or self.memory_pair()[0].session)
        self.all_wrong(self.memory_pair()[0]._sslobj.get_verified_chain()[0])
        self.all_wrong(_ssl, *[n for n in dir(_ssl) if n[0].isupper() or n.startswith("_SSL")
                               or not callable(getattr(_ssl, n))])

    def test_objects(self):
        def objects():
            bio = ssl.MemoryBIO()
            bio.write(b"x"); bio.read(); bio.write_eof(); bio.eof, bio.pending
            a, b = self.memory_pair()
            session = a.session
            session.id, session.time, session.timeout, session == a.session, session != b
            c = a._sslobj.get_verified_chain()[0]
            c.get_info(); c.public_bytes(); c.public_bytes(2); repr(c); hash(c); c == c
            ssl.RAND_bytes(4); ssl._ssl.txt2obj("CN", True); ssl._ssl.nid2obj(13)
            d, _ = self.memory_pair()
            try:
                d.session = session
            except ValueError:
                pass

        self.steady(objects, 12)


if __name__ == "__main__":
    unittest.main()
