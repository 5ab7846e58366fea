"""The modules in more than one interpreter of a process, one after another and at the same time;
and imported more than once."""
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import unittest

import test_exit

HERE = os.path.dirname(os.path.abspath(__file__))
PRELUDE = test_exit.PRELUDE % os.path.join(HERE, "../certs")

# A program for an interpreter of its own, which leaves everything open.
BUSY = PRELUDE + r'''
if ssl:
    a, b = tls_pair()
    e, f = tls_pair()
    g, h = pair()
    g = client_context().wrap_socket(g, server_hostname="localhost", do_handshake_on_connect=False)
    g.setblocking(False)
    try:
        g.do_handshake()
    except ssl.SSLWantReadError:
        pass
    select.select([g], [], [], 0)
else:
    a, b = pair()
a.sendall(b"hello")
assert b.recv(5) == b"hello"
assert socket.getdefaulttimeout() is None
socket.setdefaulttimeout(3.5)
listener = socket.create_server(("127.0.0.1", 0))
c, d = pair()
assert c.gettimeout() == 3.5
p = select.poll(); p.register(c); p.poll(0)
q = select.epoll(); q.register(d); q.poll(0)
r = select.epoll.fromfd(q.fileno())
circle = [q, r, p, c]; circle.append(circle)
try:
    socket.getaddrinfo("256.1.1.1", 1, 0, 0, 0, socket.AI_NUMERICHOST)
except socket.gaierror:
    pass
else:
    raise AssertionError("no gaierror")
'''


def python(program, *arguments, timeout=20):
    return subprocess.run([sys.executable, "-X", "faulthandler", "-c", program, *arguments],
                          capture_output=True, text=True, timeout=timeout)


class Runs(unittest.TestCase):
    def check(self, result, out=None):
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(result.stderr, "")
        if out is not None:
            self.assertEqual(result.stdout, out)


try:
    import _xxsubinterpreters
except ImportError:
    _xxsubinterpreters = None


@unittest.skipUnless(_xxsubinterpreters, "needs CPython's _xxsubinterpreters")
class Interpreters(Runs):
    def run_in(self, program):
        self.check(python("import _xxsubinterpreters as interpreters, sys\nBUSY = sys.argv[1]\n"
                          "def count(what):\n"
                          "    import os\n"
                          "    return len(os.listdir('/proc/self/' + what))\n" + program, BUSY))

    def test_one_after_another(self):
        self.run_in("""
import os
for i in range(20):
    one = interpreters.create(isolated=False)
    interpreters.run_string(one, BUSY)
    interpreters.destroy(one)
    if os.path.exists('/proc/self/fd'):
        threads = count('task')
        now = count('fd') - threads     # the reactor, a thread with a descriptor, may start late
        if i == 2:
            first = now
        assert i < 2 or now == first, (first, now)
        assert threads <= 3, threads
""")

    def test_two_at_once(self):
        self.run_in("""
import threading
one, two = interpreters.create(isolated=False), interpreters.create(isolated=False)
for i in one, two:
    interpreters.run_string(i, "import threading")  # its main thread is this one
threads = [threading.Thread(target=interpreters.run_string, args=(i, BUSY)) for i in (one, two)]
for t in threads: t.start()
for t in threads: t.join()
exec(BUSY, {})
interpreters.destroy(one)
interpreters.run_string(two, "a.sendall(b'x' * 9); assert b.recv(9) == b'x' * 9")
interpreters.destroy(two)
""")

    def test_the_main_one_goes_on(self):
        self.run_in("""
main = {}
exec(BUSY, main)
one = interpreters.create(isolated=False)
interpreters.run_string(one, BUSY)
main['a'].sendall(b'abc')
assert main['b'].recv(3) == b'abc'
main['socket'].setdefaulttimeout(7)
interpreters.run_string(one, "assert socket.getdefaulttimeout() == 3.5")
interpreters.destroy(one)
main['a'].sendall(b'abc')
assert main['b'].recv(3) == b'abc'
assert main['socket'].getdefaulttimeout() == 7
main['a'].close()
""")

    def test_a_thread_that_works_for_two(self):
        self.run_in("""
import os, socket, select
one = interpreters.create(isolated=False)
interpreters.run_string(one, BUSY)
s = socket.socket()                 # the thread has worked for the other one just before
interpreters.run_string(one, "a.settimeout(5)")
s.settimeout(1)
e = select.epoll()
interpreters.run_string(one, "socket.getdefaulttimeout()")
f = select.epoll.fromfd(e.fileno())
interpreters.destroy(one)           # takes its own sockets and pollers with it, and no others
f.register(s); f.poll(0); e.poll(0)
assert s.fileno() >= 0 and s.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
t = socket.socketpair()
t[0].send(b'x'); assert t[1].recv(1) == b'x'
""")

    def test_a_thread_in_each(self):
        self.run_in("""
one = interpreters.create(isolated=False)
interpreters.run_string(one, BUSY + '''
def serve():
    listener.settimeout(None)
    s, _ = listener.accept()
    s.sendall(s.recv(4)); s.close()
t = threading.Thread(target=serve); t.start()
s = socket.create_connection(listener.getsockname())
s.sendall(b'ping')
assert s.recv(4) == b'ping'
t.join()
''')
interpreters.destroy(one)
""")

    def test_left_at_exit(self):
        self.run_in("""
for i in range(3):
    interpreters.run_string(interpreters.create(isolated=False), BUSY)
""")


class Embedded(Runs):
    def test_python_begins_and_ends_several_times(self):
        compiler = shutil.which(os.environ.get("CC", "cc"))
        library = sysconfig.get_config_var("LDLIBRARY") or ""
        version = sysconfig.get_config_var("LDVERSION")
        if not compiler:
            self.skipTest("there is no C compiler")
        with tempfile.TemporaryDirectory() as directory:
            program = os.path.join(directory, "embed")
            built = subprocess.run(
                [compiler, os.path.join(HERE, "embed.c"), "-I" + sysconfig.get_path("include"),
                 "-L" + (sysconfig.get_config_var("LIBDIR") or "."), "-lpython" + version,
                 "-o", program, *(sysconfig.get_config_var("LIBS") or "").split(), "-lm"],
                capture_output=True, text=True)
            if built.returncode:
                self.skipTest("no program with Python in it can be built (%s): %s"
                              % (library, built.stderr.splitlines()[:1]))
            result = subprocess.run([program, "5", BUSY + r'''
del circle, p, q, r     # what the threads keep is never freed, and pollers are nobody else's
gc.collect()
blocked(lambda: listener.accept(), lambda: d.recv(1), lambda: select.select([c], [], []))
print(os.path.exists("/proc/self/fd") and len(os.listdir("/proc/self/fd")), flush=True)
'''], capture_output=True, text=True, timeout=20)
        self.check(result)
        self.assertEqual(len(set(result.stdout.split())), 1, result.stdout)


class Imports(Runs):
    def test_again(self):
        self.check(python(r'''
import _socket, select, sys, importlib, socket
first, poll = _socket, select
s, t = _socket.socketpair()
for name in "_socket", "select":
    del sys.modules[name]
import _socket, select
assert _socket is not first and select is not poll
assert _socket.gaierror is first.gaierror and _socket.timeout is TimeoutError
assert _socket.AF_INET == first.AF_INET
u, v = _socket.socketpair()
s.send(b"x"); u.send(b"y")
assert [sorted(map(len, m.select([t, v], [], [], 5))) for m in (poll, select)] == [[0, 0, 2]] * 2
for module in first, _socket:
    try:
        module.getaddrinfo("256.1.1.1", 1, 0, 0, 0, 4)
    except first.gaierror:
        pass
assert importlib.reload(_socket) is _socket and importlib.reload(select) is select
del first, poll
import gc; gc.collect()
assert t.recv(1) + v.recv(1) == b"xy"
try:
    _socket.getaddrinfo("256.1.1.1", 1, 0, 0, 0, 4)
except _socket.gaierror:
    pass
'''))

    @unittest.skipUnless(test_exit.have_ssl(), "the modules are without _ssl")
    def test_ssl_again(self):
        self.check(python(PRELUDE + r'''
import importlib
a, b = tls_pair()
old = ssl
for name in "ssl", "_ssl", "_socket", "socket":
    del sys.modules[name]
import socket, ssl
assert ssl is not old
c, d = tls_pair()
b.sendall(b"old"); d.sendall(b"new")
assert a.recv(3) + c.recv(3) == b"oldnew"
ssl, new = old, ssl
e, f = pair()   # the old module around the new one's sockets
g, h = tls_pair()
g.sendall(b"mix"); assert h.recv(3) == b"mix"
del old, new, ssl
gc.collect()
c.sendall(b"x"); assert d.recv(1) == b"x"
'''))

    def test_in_other_processes(self):
        with tempfile.TemporaryDirectory() as directory:
            program = os.path.join(directory, "program.py")
            with open(program, "w") as f:
                f.write(PRELUDE + r'''
import multiprocessing

def work(q):
    a, b = tls_pair() if ssl else pair()
    a.sendall(b"x" * 1000)
    got = b""
    while len(got) < 1000:
        got += b.recv(1000)
    q.put((len(got), os.path.dirname(sys.modules["_socket"].__file__)))

if __name__ == "__main__":
    a, b = tls_pair() if ssl else pair()
    blocked(lambda: a.recv(1), lambda: select.select([b], [], []))
    for method in "fork", "spawn":
        context = multiprocessing.get_context(method)
        q = context.Queue()
        processes = [context.Process(target=work, args=(q,)) for _ in range(2)]
        for p in processes: p.start()
        for p in processes: assert q.get(timeout=30) == (
            1000, os.path.dirname(sys.modules["_socket"].__file__))
        for p in processes: p.join(); assert p.exitcode == 0
''')
            self.check(subprocess.run([sys.executable, "-X", "faulthandler", program],
                                      capture_output=True, text=True, timeout=20))


if __name__ == "__main__":
    unittest.main()
