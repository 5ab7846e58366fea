"""bench.py DIR [ROUNDS]: the modules in DIR against the interpreter's own, by the same script.

Each case runs in an interpreter of its own, first with the stock modules, then with DIR's, several
times in turn; what counts is each one's best. The time is the processor's, of all threads, because
it depends less on what else the machine does. The last column is stock's time divided by DIR's:
above 1.00 the modules in DIR are the faster ones.
"""
import os
import subprocess
import sys
import threading
import time

from pysock_modules import environment

CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def timed(function, count):
    start = time.process_time()
    for _ in range(count):
        function()
    return (time.process_time() - start) / count * 1e6


def tcp_pair(timeout=None):
    import socket
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    for s in client, server:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.settimeout(timeout)
    return client, server


def ping_pong(timeout):
    """One thread plays both ends: what the calls themselves cost."""
    a, b = tcp_pair(timeout)

    def turn():
        a.send(b"x" * 64)
        b.send(b.recv(4096))
        a.recv(4096)
    timed(turn, 2000)
    return timed(turn, 30000)


@case
def tcp_64_bytes_blocking():
    return ping_pong(None)


@case
def tcp_64_bytes_with_a_timeout():
    return ping_pong(5.0)


@case
def tcp_64_bytes_non_blocking():
    return ping_pong(0.0)


@case
def echo_through_a_thread():
    a, b = tcp_pair()

    def echo():
        while data := b.recv(65536):
            b.sendall(data)
    thread = threading.Thread(target=echo)
    thread.start()

    def turn():
        a.sendall(b"x" * 64)
        a.recv(4096)
    timed(turn, 1000)
    result = timed(turn, 10000)
    a.close()
    thread.join()
    return result


@case
def tcp_1_MiB_sendall_recv_into():
    a, b = tcp_pair()
    data, room = b"x" * (1 << 20), bytearray(1 << 18)

    def sink():
        while b.recv_into(room):
            pass
    thread = threading.Thread(target=sink)
    thread.start()
    timed(lambda: a.sendall(data), 50)
    result = timed(lambda: a.sendall(data), 1000)
    a.close()
    thread.join()
    return result


@case
def udp_sendto_recvfrom():
    import socket
    a, b = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
    b.bind(("127.0.0.1", 0))
    to = b.getsockname()

    def turn():
        a.sendto(b"x" * 64, to)
        b.recvfrom(4096)
    timed(turn, 2000)
    return timed(turn, 30000)


@case
def connect_accept_close():
    import socket
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        address = listener.getsockname()

        def turn():
            with socket.create_connection(address):
                listener.accept()[0].close()
        timed(turn, 200)
        return timed(turn, 3000)


@case
def a_line_through_makefile():
    a, b = tcp_pair()
    reader = b.makefile("rb")

    def turn():
        a.send(b"x" * 63 + b"\n")
        reader.readline()
    timed(turn, 2000)
    return timed(turn, 20000)


@case
def select_of_10():
    import select
    pairs = [tcp_pair() for _ in range(10)]
    pairs[7][0].send(b"x")
    readers = [b for _, b in pairs]
    return timed(lambda: select.select(readers, [], [], 5), 20000)


@case
def poll_of_10():
    import select
    pairs = [tcp_pair() for _ in range(10)]
    pairs[7][0].send(b"x")
    poller = select.poll()
    for _, b in pairs:
        poller.register(b, select.POLLIN)
    return timed(lambda: poller.poll(5000), 20000)


@case
def epoll_of_100():
    import select
    pairs = [tcp_pair() for _ in range(100)]
    pairs[7][0].send(b"x")
    poller = select.epoll()
    for _, b in pairs:
        poller.register(b, select.EPOLLIN)
    return timed(lambda: poller.poll(5), 20000)


@case
def epoll_register_unregister():
    import select
    a, b = tcp_pair()
    poller = select.epoll()

    def turn():
        poller.register(b, select.EPOLLIN)
        poller.unregister(b)
    return timed(turn, 20000)


@case
def asyncio_echo_of_10_clients():
    import asyncio

    async def serve(reader, writer):
        while data := await reader.read(4096):
            writer.write(data)
        writer.close()

    async def talk(address, turns):
        reader, writer = await asyncio.open_connection(*address)
        for _ in range(turns):
            writer.write(b"x" * 64)
            await reader.readexactly(64)
        writer.close()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        start = time.process_time()
        await asyncio.gather(*(talk(address, 300) for _ in range(10)))
        result = (time.process_time() - start) / 3000 * 1e6
        server.close()
        return result
    return asyncio.run(main())


def measure(name, directory):
    command = [sys.executable, os.path.abspath(__file__), "--case", name]
    env = environment(directory) if directory else os.environ
    return float(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True,
                                env=env).stdout)


def main():
    directory = os.path.abspath(sys.argv[1])
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    print("| us of CPU for each of | stock | pysock | stock / pysock |")
    print("| --- | ---: | ---: | ---: |")
    for name in CASES:
        stock, ours = [], []
        for _ in range(rounds):
            stock.append(measure(name, None))
            ours.append(measure(name, directory))
        print("| %s | %.2f | %.2f | %.2f |" % (name.replace("_", " "), min(stock), min(ours),
                                               min(stock) / min(ours)), flush=True)


if sys.argv[1:2] == ["--case"]:
    print(CASES[sys.argv[2]]())
elif len(sys.argv) < 2 or sys.argv[1].startswith("-"):
    sys.exit(__doc__)
else:
    main()
