"""Calls whose answer is not what the arguments lead one to expect, and objects that change under
the call that uses them."""
import errno
import gc
import os
import select
import socket
import subprocess
import sys
import threading
import unittest

try:
    import ssl
except ImportError:
    ssl = None

CERTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../certs")


class Truncated(unittest.TestCase):
    """With MSG_TRUNC the kernel's answer is the datagram's size, which may be more than was asked
    for."""

    def setUp(self):
        self.to = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(self.to.close)
        self.to.bind(("127.0.0.1", 0))
        self.sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(self.sender.close)
        self.sender.connect(self.to.getsockname())

    @unittest.skipUnless(os.uname().sysname == "Linux", "what MSG_TRUNC asks for is Linux's")
    def test_what_did_not_come_is_zero(self):
        for size in (10, 5000):
            with self.subTest(size=size):
                self.sender.send(b"x" * 60000)
                expected = b"x" * size + bytes(60000 - size)
                self.assertEqual(self.to.recv(size, socket.MSG_TRUNC | socket.MSG_PEEK), expected)
                self.assertEqual(self.to.recvfrom(size, socket.MSG_TRUNC)[0], expected)

    @unittest.skipUnless(os.uname().sysname == "Linux", "what MSG_TRUNC asks for is Linux's")
    def test_recvmsg_has_only_what_came(self):
        self.sender.send(b"x" * 9000)
        data, ancdata, flags, address = self.to.recvmsg(10, 0, socket.MSG_TRUNC)
        self.assertEqual(data, b"x" * 10)
        self.assertTrue(flags & socket.MSG_TRUNC)


class Poll(unittest.TestCase):
    def test_garbage_polls_while_the_answer_is_written(self):
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        os.write(write, b"x")
        self.addCleanup(os.close, write)
        copies = [os.dup(read) for i in range(300)]
        for fd in copies:
            self.addCleanup(os.close, fd)
        poll = select.poll()
        for fd in copies[:150]:
            poll.register(fd, select.POLLIN)
        left = copies[150:]

        class Garbage:
            def __init__(self):
                self.itself = self

            def __del__(self):
                if left:
                    poll.register(left.pop(), select.POLLIN)
                try:
                    poll.poll(0)
                except RuntimeError:
                    pass        # one at a time
        before = gc.get_threshold()
        gc.set_threshold(1)
        self.addCleanup(gc.set_threshold, *before)
        for i in range(20):
            Garbage()
            for fd, events in poll.poll(0):
                self.assertIn(fd, copies)
                self.assertEqual(events, select.POLLIN)


@unittest.skipUnless(hasattr(select, "epoll"), "needs epoll")
class Epoll(unittest.TestCase):
    def test_close_while_others_poll(self):
        for i in range(300):
            epoll, ready = select.epoll(), threading.Barrier(2)
            failed = []

            def run():
                ready.wait()
                try:
                    epoll.poll(None if i % 2 else 0)
                except (OSError, ValueError) as e:
                    failed.append(e)
            thread = threading.Thread(target=run)
            thread.start()
            ready.wait()
            epoll.close()
            thread.join()
            self.assertTrue(epoll.closed)
            for e in failed:
                if isinstance(e, OSError):
                    self.assertEqual(e.errno, errno.EBADF)

    def test_fromfd_of_a_duplicate(self):
        ours, theirs = socket.socketpair()
        with ours, theirs, select.epoll() as epoll:
            epoll.register(ours, select.EPOLLIN)
            copy = os.dup(epoll.fileno())
            second = select.epoll.fromfd(copy)
            self.assertEqual(second.fileno(), copy)
            theirs.send(b"x")
            self.assertEqual(second.poll(10), [(ours.fileno(), select.EPOLLIN)])
            second.close()
            self.assertTrue(second.closed)
            self.assertFalse(epoll.closed)
            self.assertRaises(OSError, os.fstat, copy)
            self.assertEqual(epoll.poll(10), [(ours.fileno(), select.EPOLLIN)])
            self.assertRaises(OSError, select.epoll.fromfd, ours.fileno())


@unittest.skipUnless(ssl, "needs ssl")
class Callbacks(unittest.TestCase):
    def server_context(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTS + "/server-ec.pem", CERTS + "/server-ec.key")
        return context

    def test_an_sni_callback_drops_the_socket_and_its_new_context(self):
        """On a thread of the library's, while nobody else has either of them."""
        held = []

        def callback(sock, name, context):
            sock.context = self.server_context()
            held.clear()
        server = self.server_context()
        server.sni_callback = callback
        client = ssl.create_default_context(cafile=CERTS + "/ca.pem")
        for i in range(5):
            ours, theirs = socket.socketpair()
            theirs.setblocking(False)

            def shake():
                try:
                    client.wrap_socket(ours, server_hostname="localhost").close()
                except OSError:
                    pass        # it depends on how far the other side came
            thread = threading.Thread(target=shake)
            with self.assertWarns(ResourceWarning):     # the socket is dropped, not closed
                held.append(server.wrap_socket(theirs, server_side=True,
                                               do_handshake_on_connect=False))
                fd = held[0].fileno()
                del theirs
                thread.start()
                try:
                    select.select([fd], [], [], 10)
                except OSError as e:
                    self.assertEqual(e.errno, errno.EBADF)
                thread.join()
            self.assertFalse(held)

    @unittest.skipUnless(os.path.exists("/proc/self/statm"), "needs Linux's /proc")
    def test_a_call_that_keeps_the_interpreters_lock_does_the_librarys_work(self):
        """Where no thread can be started, as there is no room for its stack."""
        program = """if 1:
            import resource, select, socket, ssl, sys, warnings
            warnings.simplefilter("ignore")
            certs, calls = sys.argv[1], []

            def callback(sock, name, context):
                calls.append(name)
                other.setblocking(False)
            other = socket.socket()
            other.setblocking(False)
            server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server.load_cert_chain(certs + "/server-ec.pem", certs + "/server-ec.key")
            server.sni_callback = callback
            client = ssl.create_default_context(cafile=certs + "/ca.pem")
            ours, theirs = socket.socketpair()
            theirs.setblocking(False)
            wrapped = server.wrap_socket(theirs, server_side=True, do_handshake_on_connect=False)
            epoll = select.epoll()
            soft, hard = resource.getrlimit(resource.RLIMIT_AS)
            with open("/proc/self/statm") as f:
                used = int(f.read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + 1000000, hard))
            epoll.register(wrapped, select.EPOLLIN)
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            try:
                client.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
            except ssl.SSLWantReadError:
                ours.sendall(outgoing.read())
            while not calls:
                other.setblocking(False)
            print(calls)
            """
        run = subprocess.run([sys.executable, "-c", program, CERTS], capture_output=True,
                             text=True, timeout=60)
        self.assertEqual((run.stdout, run.stderr), ("['localhost']\n", ""))


if __name__ == "__main__":
    unittest.main()
