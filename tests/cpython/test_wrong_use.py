"""What wrong use raises: the exceptions that programs know from the interpreter's own modules."""
import os
import socket
import ssl
import tempfile
import unittest
import warnings


class Addresses(unittest.TestCase):
    def calls(self):
        for call in ("connect", "connect_ex", "bind"):
            s = socket.socket()
            self.addCleanup(s.close)
            yield getattr(s, call)

    def test_a_host_that_cannot_be_encoded_is_a_type_error(self):
        for call in self.calls():
            with self.assertRaisesRegex(TypeError, "encoding of hostname failed"):
                call(("\udcff", 80))

    def test_a_wrong_item_is_told_from_a_wrong_tuple(self):
        for call in self.calls():
            with self.assertRaisesRegex(TypeError, "'str' object cannot be interpreted as an int"):
                call(("127.0.0.1", "80"))
            with self.assertRaisesRegex(TypeError, "AF_INET address must be"):
                call(("127.0.0.1", 80, 0))


def name_of(size):
    """A host name of so many bytes, none of whose labels is too long."""
    return ("a" * 60 + ".") * (size // 61) + "a" * (size % 61)


class Names(unittest.TestCase):
    """Names that cannot be looked up. gaierror is what programs catch: an address that a user has
    typed is no reason to end."""

    def lookups(self):
        for family in socket.AF_INET, socket.AF_INET6:
            for call in ("connect", "connect_ex", "bind"):
                yield call, lambda host: getattr(self.sockets[family], call)((host, 9))
            yield "sendto", lambda host: self.sockets[family].sendto(b"x", (host, 9))
            yield "sendto with flags", lambda host: self.sockets[family].sendto(b"x", 0, (host, 9))
            yield "sendmsg", lambda host: self.sockets[family].sendmsg([b"x"], [], 0, (host, 9))
        yield "getaddrinfo", lambda host: socket.getaddrinfo(host, 9)
        yield "AI_PASSIVE", lambda host: socket.getaddrinfo(host, 9, flags=socket.AI_PASSIVE)
        yield "gethostbyname", socket.gethostbyname
        yield "gethostbyname_ex", socket.gethostbyname_ex
        yield "gethostbyaddr", socket.gethostbyaddr
        yield "create_connection", lambda host: socket.create_connection((host, 9), 5)

    def setUp(self):
        self.sockets = {}
        for family in socket.AF_INET, socket.AF_INET6:
            try:
                self.sockets[family] = socket.socket(family, socket.SOCK_DGRAM)
            except OSError:
                self.skipTest("this system has no IPv6")
            self.addCleanup(self.sockets[family].close)

    def check(self, host, code=None):
        for name, call in self.lookups():
            with self.subTest(call=name, size=len(host)):
                with self.assertRaises(socket.gaierror) as caught:
                    call(host)
                if code is not None:
                    self.assertEqual(caught.exception.errno, code)

    def test_a_name_of_more_than_255_bytes_is_not_known(self):
        for size in 256, 300, 1024, 1025, 70000:
            self.check(name_of(size), socket.EAI_NONAME)
            self.check(name_of(size).encode(), socket.EAI_NONAME)

    def test_a_name_that_grows_too_long_is_not_known(self):
        self.check("\xe4." * 60, socket.EAI_NONAME)     # "xn--4ca." each

    def test_bytes_that_are_no_text_are_not_known(self):
        for host in b"\xff\xfe", b"\xe4.invalid":
            self.check(host)

    def test_a_label_that_is_too_long_is_a_unicode_error_where_it_is_encoded(self):
        for host in "a" * 64, "a..b", "\xe4" * 70, "\udcff", "\u05d0a":
            for call in (lambda host: socket.getaddrinfo(host, 9), socket.gethostbyname,
                         socket.gethostbyname_ex, socket.gethostbyaddr):
                with self.subTest(host=ascii(host)):
                    self.assertRaises(UnicodeError, call, host)

    def test_what_is_no_name_is_a_type_error(self):
        for host in 5, 1.5, ("a",), ["a"], memoryview(b"a"):
            for name, call in self.lookups():
                with self.subTest(host=host, call=name):
                    self.assertRaises(TypeError, call, host)
        with self.assertRaisesRegex(TypeError, "argument 1 must be string or None"):
            socket.getaddrinfo(bytearray(b"localhost"), 9)
        with self.assertRaisesRegex(TypeError, "must be str, bytes or bytearray, not None"):
            socket.gethostbyname(None)

    def test_the_broadcast_address_is_of_ipv4(self):
        for host in "<broadcast>", "255.255.255.255":
            for call in "connect", "bind":
                with self.assertRaisesRegex(OSError, "address family mismatched"):
                    getattr(self.sockets[socket.AF_INET6], call)((host, 9))


class ServerNames(unittest.TestCase):
    def setUp(self):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        filters = warnings.catch_warnings()
        filters.__enter__()
        self.addCleanup(filters.__exit__, None, None, None)
        warnings.simplefilter("ignore", ResourceWarning)    # wrap_socket() drops what has failed

    def wraps(self):
        def around_a_socket(name):
            ours, theirs = socket.socketpair()
            with ours, theirs:
                return self.context.wrap_socket(ours, server_hostname=name,
                                                do_handshake_on_connect=False).close()
        yield around_a_socket
        yield lambda name: self.context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), False, name)

    def check(self, name, error, text=""):
        for check_hostname in True, False:
            self.context.check_hostname = check_hostname
            for wrap in self.wraps():
                with self.subTest(name=ascii(name)[:30], check_hostname=check_hostname):
                    with self.assertRaisesRegex(error, text) as caught:
                        wrap(name)
                    self.assertIs(type(caught.exception), error)

    def test_one_of_255_bytes_is_fine(self):
        for wrap in self.wraps():
            wrap(name_of(255))

    def test_one_of_more_bytes_is_an_ssl_error(self):
        for size in 256, 1025, 70000:
            self.check(name_of(size), ssl.SSLError, "SSL3_EXT_INVALID_SERVERNAME")

    def test_one_that_cannot_be_encoded_is_a_unicode_error(self):
        for name in "a" * 64, "a..b", "localhost..", "\xe4" * 70, "\u05d0a":
            self.check(name, UnicodeError)

    def test_an_empty_one_is_a_value_error(self):
        self.check("", ValueError, "check_hostname requires|cannot be an empty string")

    def test_one_with_a_nul_is_a_type_error(self):
        self.check("localhost\0.example.com", TypeError, "without null bytes")

    def test_the_module_below_wants_ascii(self):
        wrap = super(ssl.SSLContext, self.context)._wrap_bio
        for name, error in (("\xe4.de", UnicodeEncodeError), ("\udcff", UnicodeEncodeError),
                            (b"localhost", TypeError), (5, TypeError)):
            with self.subTest(name=ascii(name)):
                self.assertRaises(error, wrap, ssl.MemoryBIO(), ssl.MemoryBIO(), False, name)


class Settings(unittest.TestCase):
    def test_setblocking_takes_numbers_alone(self):
        with socket.socket() as s:
            s.setblocking(0)
            for wrong in ("", "yes", None):
                with self.assertRaises(TypeError):
                    s.setblocking(wrong)
            self.assertEqual(s.gettimeout(), 0)
            s.setblocking(2 ** 32)
            self.assertIsNone(s.gettimeout())

    def test_a_key_log_that_cannot_be_opened_is_named(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        with tempfile.TemporaryDirectory() as folder:
            missing = os.path.join(folder, "missing", "keys")
            with self.assertRaises(FileNotFoundError) as caught:
                context.keylog_filename = missing
        self.assertEqual(caught.exception.filename, missing)


if __name__ == "__main__":
    unittest.main()
