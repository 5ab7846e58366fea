"""The end of an interpreter that still has sockets, handshakes, waits and callbacks: quick, without
a crash, and with the right status."""
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ATTEMPTS = 3    # a busy machine may need them to be quick
ASAN = "asan" in os.environ.get("LD_PRELOAD", "")
QUICK = 5 if ASAN else 0.2  # seconds from the end of the program to the end of the process
REPEAT = int(os.environ.get("PYSOCK_REPEAT", "1"))

# What every program begins with. A thread is waited for until it sleeps in the kernel, but not for
# the interpreter's lock.
PRELUDE = r'''
import atexit, gc, os, select, signal, socket, sys, threading, time
try:
    import ssl
except ImportError:
    ssl = None
CERTS = %r
FUTEX = "202 "

def done():
    """The program has nothing left to do."""
    os.write(1, b"%%d\n" %% time.monotonic_ns())

def pair():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        a = socket.create_connection(listener.getsockname())
        return a, listener.accept()[0]

def server_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTS + "/server-ec.pem", CERTS + "/server-ec.key")
    return context

def client_context():
    return ssl.create_default_context(cafile=CERTS + "/ca.pem")

def tls_pair():
    a, b = pair()
    got = []
    t = threading.Thread(target=lambda: got.append(
        server_context().wrap_socket(b, server_side=True)))
    t.start()
    a = client_context().wrap_socket(a, server_hostname="localhost")
    t.join()
    return a, got[0]

def asleep(tid):
    try:
        with open("/proc/self/task/%%d/syscall" %% tid) as f:
            text = f.read()
    except OSError:
        return True     # a system that does not tell
    return text != "running\n" and (not text.startswith(FUTEX) or threading.stack)

def blocked(*calls, daemon=True):
    """Threads that wait, each in one of the calls."""
    for call in calls:
        def run(call=call):
            tid.append(threading.get_native_id())
            begun.set()
            try:
                call()
            except Exception:
                pass
        tid, begun = [], threading.Event()
        t = threading.Thread(target=run, daemon=daemon)
        t.start()
        begun.wait()
        while t.is_alive() and not asleep(tid[0]):
            time.sleep(0.001)

threading.stack = False
'''


def have_ssl():
    try:
        import ssl
    except ImportError:
        return False
    return bool(ssl)


class Programs(unittest.TestCase):
    """Runs programs, and looks how they end."""

    def run_once(self, code, interrupt):
        program = PRELUDE % os.path.join(HERE, "../certs")
        program += "".join(textwrap.dedent(piece) for piece in code)
        p = subprocess.Popen([sys.executable, "-X", "faulthandler", "-c", program], bufsize=0,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        watchdog = threading.Timer(30, p.send_signal, [signal.SIGABRT])
        watchdog.start()
        try:
            first = p.stdout.readline()
            if interrupt:
                first = b"%d\n" % time.monotonic_ns()
                p.send_signal(interrupt)
            out, err = p.communicate()
        finally:
            watchdog.cancel()
            p.stdout.close()
            p.stderr.close()
        end = time.monotonic_ns()
        took = (end - int(first)) / 1e9 if first.strip().isdigit() else -1
        return p.returncode, out.decode(errors="replace"), err.decode(errors="replace"), took

    def check(self, *code, status=0, error="", interrupt=None, quick=QUICK, out=None):
        """The program ends with that status, and writes that (a part of it; "": nothing) to
        stderr. interrupt: the signal that it gets once it has said that it is done."""
        for _ in range(REPEAT):
            best = None
            for _ in range(ATTEMPTS):
                got, written, complaint, took = self.run_once(code, interrupt)
                self.assertEqual(got, status, complaint)
                if error:
                    self.assertIn(error, complaint)
                else:
                    self.assertEqual(complaint, "")
                if out is not None:
                    self.assertEqual(written, out)
                self.assertGreaterEqual(took, 0, "it never was done: " + complaint)
                best = took if best is None else min(best, took)
                if best < quick:
                    break
            self.assertLess(best, quick)
            if os.environ.get("PYSOCK_TIMES"):
                with open(os.environ["PYSOCK_TIMES"], "a") as f:
                    f.write("%s %.1f\n" % (self._testMethodName, took * 1000))


class Plain(Programs):
    def test_open_sockets(self):
        self.check("""
            a, b = pair(); listener = socket.create_server(("127.0.0.1", 0))
            u = socket.socketpair(); p = select.poll(); e = select.epoll()
            p.register(a); e.register(b)
            done()
            """)

    def test_a_blocked_accept_recv_and_send(self):
        self.check("""
            listener = socket.create_server(("127.0.0.1", 0)); a, b = pair()
            blocked(listener.accept, lambda: a.recv(1), lambda: a.sendall(bytes(1 << 26)))
            done()
            """)

    def test_calls_with_a_timeout(self):
        self.check("""
            listener = socket.create_server(("127.0.0.1", 0)); a, b = pair()
            listener.settimeout(60); a.settimeout(60)
            blocked(listener.accept, lambda: a.recv(1), lambda: a.sendall(bytes(1 << 26)))
            done()
            """)

    def test_a_blocked_connect(self):
        self.check("""
            full = socket.create_server(("127.0.0.1", 0), backlog=0)
            some = []
            for i in range(4):
                s = socket.socket(); s.setblocking(False); s.connect_ex(full.getsockname())
                some.append(s)
            a, b = socket.socket(), socket.socket()
            b.settimeout(60)
            blocked(lambda: a.connect(full.getsockname()), lambda: b.connect(full.getsockname()))
            done()
            """)

    def test_select_poll_and_epoll(self):
        self.check("""
            a, b = pair(); p = select.poll(); e = select.epoll()
            p.register(a, select.POLLIN); e.register(a, select.EPOLLIN)
            blocked(lambda: select.select([a], [], []), lambda: select.select([], [], [], 60),
                    p.poll, lambda: p.poll(60000), e.poll, lambda: e.poll(60))
            done()
            """)

    def test_many_threads(self):
        self.check("""
            listener = socket.create_server(("127.0.0.1", 0))
            blocked(*[listener.accept] * 50)
            done()
            """)

    def test_sys_exit(self):
        self.check("""
            listener = socket.create_server(("127.0.0.1", 0)); blocked(listener.accept)
            done()
            sys.exit(3)
            """, status=3)

    def test_an_exception(self):
        self.check("""
            listener = socket.create_server(("127.0.0.1", 0)); blocked(listener.accept)
            done()
            raise RuntimeError("the end")
            """, status=1, error="RuntimeError: the end")

    def test_os_exit(self):
        self.check("""
            listener = socket.create_server(("127.0.0.1", 0)); blocked(listener.accept)
            done()
            os._exit(4)
            """, status=4)

    def test_os_exit_from_a_thread(self):
        self.check("""
            listener = socket.create_server(("127.0.0.1", 0))
            def end():
                done()
                os._exit(5)
            threading.Timer(0.01, end).start()
            listener.accept()
            """, status=5)

    def test_an_interrupted_accept(self):
        self.check("""
            listener = socket.create_server(("127.0.0.1", 0)); a, b = pair()
            blocked(lambda: a.recv(1))
            done()
            listener.accept()
            """, status=-signal.SIGINT, error="KeyboardInterrupt", interrupt=signal.SIGINT)

    def test_an_interrupted_select(self):
        self.check("""
            a, b = pair()
            blocked(lambda: a.recv(1))
            done()
            select.select([a], [], [])
            """, status=-signal.SIGINT, error="KeyboardInterrupt", interrupt=signal.SIGINT)

    def test_a_signal_that_kills(self):
        self.check("""
            a, b = pair()
            done()
            a.recv(1)
            """, status=-signal.SIGTERM, interrupt=signal.SIGTERM)

    def test_a_thread_that_ends_when_its_socket_is_closed(self):
        self.check("""
            listener = socket.create_server(("127.0.0.1", 0)); a, b = pair()
            blocked(listener.accept, lambda: a.recv(1), daemon=False)
            done()
            listener.shutdown(socket.SHUT_RDWR); listener.close(); a.shutdown(socket.SHUT_RDWR)
            """)

    def test_sockets_in_an_exit_handler(self):
        self.check("""
            a, b = pair()
            def end():
                b.sendall(b"bye")
                c, d = pair()
                c.sendall(a.recv(3))
                print(d.recv(3).decode(), select.select([d], [], [], 0))
            atexit.register(end)
            done()
            """, out="bye ([], [], [])\n")

    def test_sockets_that_are_closed_by_del(self):
        self.check("""
            class Owner:
                def __init__(self):
                    self.s, self.t = socket.socketpair()
                def __del__(self):
                    self.s.send(b"x"); self.s.close(); self.t.close()
            sys.keep = Owner()
            keep = Owner(); keep.itself = keep
            done()
            """)

    def test_names_that_are_looked_up(self):
        self.check("""
            s = socket.socket(); s.setblocking(False)
            threading.stack = True
            blocked(lambda: socket.getaddrinfo("nobody.invalid", 80),
                    lambda: socket.gethostbyaddr("127.0.0.1"))
            try:
                s.connect(("nobody.invalid", 80))
            except OSError:
                pass
            done()
            """, quick=30)  # a resolver of the system's may be asked: for as long as it takes

    def test_a_daemon_that_never_stops(self):
        self.check("""
            a, b = pair()
            def busy():
                while True:
                    c, d = socket.socketpair()
                    select.select([c], [d], [], 0); d.send(b"x"); c.recv(1)
            for i in range(3):
                threading.Thread(target=busy, daemon=True).start()
            time.sleep(0.02)
            done()
            """)

    def test_a_fork_while_threads_wait(self):
        self.check("""
            a, b = pair(); listener = socket.create_server(("127.0.0.1", 0))
            blocked(lambda: a.recv(1), listener.accept, lambda: select.select([a], [], []))
            pid = os.fork()
            if not pid:
                c, d = pair()
                c.send(b"x")
                sys.exit(7 if d.recv(1) == b"x" and select.select([a], [], [], 0)[0] == [] else 8)
            status = os.waitpid(pid, 0)[1]
            done()
            sys.exit(os.waitstatus_to_exitcode(status))
            """, status=7)


@unittest.skipUnless(have_ssl(), "the modules are without _ssl")
class Tls(Programs):
    def test_open_sockets(self):
        self.check("""
            a, b = tls_pair(); c, d = tls_pair()
            c.sendall(b"x"); p = select.poll(); p.register(d); p.poll()
            done()
            """)

    def test_blocked_calls(self):
        self.check("""
            a, b = tls_pair(); c, d = tls_pair(); d.settimeout(60)
            blocked(lambda: a.recv(1), lambda: c.sendall(bytes(1 << 26)), d.unwrap, b.unwrap,
                    lambda: select.select([a], [], []))
            done()
            """)

    def test_blocked_handshakes(self):
        self.check("""
            def shake(s, **more):
                client_context().wrap_socket(s, server_hostname="localhost", **more)
            a, b = pair(); c, d = pair(); e, f = pair(); e.settimeout(60)
            blocked(lambda: shake(a), lambda: shake(e),
                    lambda: server_context().wrap_socket(d, server_side=True))
            done()
            """)

    def test_handshakes_that_the_reactor_drives(self):
        self.check("""
            some = []
            for i in range(20):
                a, b = pair()
                a = client_context().wrap_socket(a, server_hostname="localhost",
                                                 do_handshake_on_connect=False)
                b = server_context().wrap_socket(b, server_side=True, do_handshake_on_connect=False)
                some += a, b
                a.setblocking(False); b.setblocking(False)
                for s in a, b:
                    try:
                        s.do_handshake()
                    except ssl.SSLWantReadError:
                        pass
            select.select(some, [], [], 0)
            done()
            """)

    def test_output_that_nobody_reads(self):
        self.check("""
            a, b = tls_pair()
            a.setblocking(False)
            try:
                while a.send(bytes(1 << 16)):
                    pass
            except ssl.SSLWantWriteError:
                pass
            done()
            """)

    def test_memory_bios_and_contexts(self):
        self.check("""
            one, two = ssl.MemoryBIO(), ssl.MemoryBIO()
            o = client_context().wrap_bio(one, two, server_hostname="localhost")
            p = server_context().wrap_bio(two, one, server_side=True)
            for s in o, p, o:
                try:
                    s.do_handshake()
                except ssl.SSLWantReadError:
                    pass
            sys.keep = o; p.itself = p
            done()
            """)

    SNI = """
        a, b = pair()
        context = server_context(); context.sni_callback = called
        a = client_context().wrap_socket(a, server_hostname="localhost",
                                         do_handshake_on_connect=False)
        b = context.wrap_socket(b, server_side=True, do_handshake_on_connect=False)
        a.setblocking(False)

        def begin(s):
            try:
                s.do_handshake()
            except ssl.SSLWantReadError:
                pass
        """

    def test_a_callback_that_waits_in_a_daemon(self):
        self.check("""
            inside = threading.Event()
            def called(*args):
                inside.set()
                threading.Event().wait()
            """, self.SNI, """
            begin(a)
            threading.Thread(target=b.do_handshake, daemon=True).start()
            inside.wait()
            done()
            """)

    def in_the_reactor(self, wait):
        self.check("""
            inside = threading.Event()
            def called(*args):
                inside.set()
                %s
            """ % wait, self.SNI, """
            b.setblocking(False)
            begin(b); begin(a)  # the client's hello comes when the call has returned
            while not inside.is_set():
                select.select([b], [], [], 0.01)
            done()
            """)

    def test_a_callback_that_waits_in_the_reactor(self):
        self.in_the_reactor("threading.Event().wait()")

    def test_a_callback_that_sleeps_in_the_reactor(self):
        self.in_the_reactor("time.sleep(5)")

    @unittest.skipIf(ASAN, "AddressSanitizer knows nothing of the threads that Python ends")
    def test_a_callback_that_computes_in_the_reactor(self):
        self.in_the_reactor("while True: pass")

    @unittest.skipIf(ASAN, "likewise")
    def test_a_callback_that_computes_in_a_daemon(self):
        self.check("""
            inside = threading.Event()
            def called(*args):
                inside.set()
                while True:
                    pass
            """, self.SNI, """
            begin(a)
            threading.Thread(target=b.do_handshake, daemon=True).start()
            inside.wait()
            done()
            """)

    def test_tls_in_an_exit_handler(self):
        self.check("""
            a, b = tls_pair()
            def end():
                b.sendall(b"bye")
                print(a.recv(3).decode())
                c, d = tls_pair()
                c.sendall(b"x"); print(d.recv(1).decode())
            atexit.register(end)
            done()
            """, out="bye\nx\n")

    def test_sockets_that_are_closed_by_del(self):
        self.check("""
            class Owner:
                def __init__(self):
                    self.s, self.t = tls_pair()
                def __del__(self):
                    self.s.send(b"x"); self.s.close(); self.t.close()
            sys.keep = Owner()
            keep = Owner(); keep.itself = keep
            done()
            """)

    def test_a_fork_while_threads_wait(self):
        self.check("""
            a, b = tls_pair(); c, d = pair()
            blocked(lambda: a.recv(1),
                    lambda: server_context().wrap_socket(d, server_side=True))
            pid = os.fork()
            if not pid:
                e, f = tls_pair()
                e.send(b"x")
                sys.exit(7 if f.recv(1) == b"x" else 8)
            status = os.waitpid(pid, 0)[1]
            done()
            sys.exit(os.waitstatus_to_exitcode(status))
            """, status=7)


if __name__ == "__main__":
    unittest.main()
