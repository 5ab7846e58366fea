"""TLS with the modules in a directory against the interpreter's own, same script, same run.

    python3 bench_tls.py build/cpython [seconds]

Server and client are processes of the same kind, over loopback; TLS 1.2 with AES-128-GCM and an RSA
certificate for both kinds. A row is the median of five turns, taken in alternation.
"""
import os
import statistics
import subprocess
import sys
import tempfile
import time

from pysock_modules import environment


def make_certificate(directory):
    pem = os.path.join(directory, "server.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                    "-keyout", pem + ".key", "-out", pem, "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost"],
                   check=True, stderr=subprocess.DEVNULL)
    with open(pem, "a") as out, open(pem + ".key") as key:
        out.write(key.read())
    return pem


def contexts(pem):
    import ssl
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    for c in (client, server):
        c.maximum_version = ssl.TLSVersion.TLSv1_2
        c.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    return client, server


def serve(what, pem):
    import http.server
    import socket
    server = contexts(pem)[1]
    listener = socket.create_server(("127.0.0.1", 0))
    if what == "https":
        body = b"x" * 10000

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 65536

            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        httpd = http.server.ThreadingHTTPServer(listener.getsockname(), Handler, False)
        httpd.socket.close()
        httpd.socket = server.wrap_socket(listener, server_side=True)
        print(listener.getsockname()[1] if listener.fileno() >= 0 else
              httpd.socket.getsockname()[1], flush=True)
        httpd.serve_forever()
    print(listener.getsockname()[1], flush=True)
    while True:
        raw, _ = listener.accept()
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with server.wrap_socket(raw, server_side=True) as s:
                if what == "bulk":
                    block = b"x" * 65536
                    while True:
                        s.sendall(block)
                while data := s.recv(65536):
                    s.sendall(data)
        except OSError:
            pass


def connect(client, port):
    import socket
    raw = socket.create_connection(("127.0.0.1", port))
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client.wrap_socket(raw, server_hostname="localhost")


def measure(what, pem, port, seconds):
    import http.client
    client = contexts(pem)[0]
    n, start = 0, time.perf_counter()
    end = start + seconds
    if what == "handshakes":
        while time.perf_counter() < end:
            connect(client, port).close()
            n += 1
    elif what == "https":
        c = http.client.HTTPSConnection("localhost", port, context=client)
        while time.perf_counter() < end:
            c.request("GET", "/")
            c.getresponse().read()
            n += 1
    else:
        with connect(client, port) as s:
            view = memoryview(bytearray(65536))
            if what == "bulk":
                while time.perf_counter() < end:
                    n += s.recv_into(view)
                n /= 1e6
            while what == "echo" and time.perf_counter() < end:
                for _ in range(100):
                    s.sendall(b"x" * 64)
                    s.recv_into(view)
                n += 100
    print(n / (time.perf_counter() - start), flush=True)


ROWS = (("echo", "TLS echo round trips, 64 bytes", "/s"), ("bulk", "TLS bulk, one way", " MB/s"),
        ("handshakes", "full handshakes", "/s"), ("https", "HTTPS GETs of 10 kB, keep-alive", "/s"))


def run(ours, what, pem, seconds):
    """One turn: the number that a client of that kind prints."""
    def start(*args):
        return subprocess.Popen([sys.executable, __file__, "--child", *args], text=True,
                                stdout=subprocess.PIPE, env=environment(ours) if ours else None)
    server = start("serve", what, pem)
    try:
        port = server.stdout.readline().strip()
        with start("measure", what, pem, port, str(seconds)) as client:
            return float(client.stdout.read())
    finally:
        server.kill()
        server.communicate()


def main():
    directory = os.path.abspath(sys.argv[1])
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    with tempfile.TemporaryDirectory() as d:
        pem = make_certificate(d)
        print("| row | the interpreter's own (OpenSSL) | on pysock (BearSSL) | ratio |")
        print("| --- | --- | --- | --- |")
        for what, title, unit in ROWS:
            turns = [(run(None, what, pem, seconds), run(directory, what, pem, seconds))
                     for _ in range(5)]
            stock, ours = (statistics.median(t[i] for t in turns) for i in (0, 1))
            print("| %s | %.0f%s | %.0f%s | %.2f |"
                  % (title, stock, unit, ours, unit, ours / stock), flush=True)


if __name__ == "__main__":
    if sys.argv[1:3] == ["--child", "serve"]:
        serve(sys.argv[3], sys.argv[4])
    elif sys.argv[1:3] == ["--child", "measure"]:
        measure(sys.argv[3], sys.argv[4], int(sys.argv[5]), float(sys.argv[6]))
    elif len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    else:
        main()
