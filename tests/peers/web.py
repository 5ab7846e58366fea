"""A web server for tests/examples/test_examples.c, with the manners and the bad manners that occur.

Every answer is a line on stdout: status, path and Range header ("-": none). Paths:

/plain/NAME           http.server as it is
/range/NAME           Range and If-Range are understood
/cut/NAME             the same, but without Range the connection ends in the middle
/hang/NAME            the same, but without Range nothing comes after the middle
/chunked/NAME         in chunks, with extensions and a trailer
/cut-chunked/NAME     the same, but it ends in the middle
/to-the-end/NAME      without a length
/redirect/N/PATH      N redirects, absolute and relative in turn, end at PATH
/loop                 a redirect to itself
/downgrade/PATH       a redirect to http
/interim/NAME         two interim answers first
/wrong-range/NAME     another part than the one that was asked for
/status/N             an answer with that status
/garbage              no HTTP
/silent               no answer
"""
import argparse
import email.utils
import http.server
import os
import ssl


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, code="-", size="-"):
        print(int(code), self.path, self.headers.get("Range", "-"), flush=True)

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.close_connection = True
        kind, _, rest = self.path[1:].partition("/")
        getattr(self, "get_" + kind.replace("-", "_"), self.get_nothing)(rest)

    def get_nothing(self, rest):
        self.send_error(404)

    def get_plain(self, rest):
        self.path = "/" + rest
        super().do_GET()

    def read(self, name):
        with open(os.path.join(self.directory, name), "rb") as file:
            data = file.read()
            return data, email.utils.formatdate(os.fstat(file.fileno()).st_mtime, usegmt=True)

    def part(self, data, changed):
        """Where the answer begins: 0 without Range, and where If-Range is not met."""
        asked = self.headers.get("Range")
        if not asked or self.headers.get("If-Range", changed) != changed:
            return 0
        return int(asked.removeprefix("bytes=").removesuffix("-"))

    def send_part(self, name):
        """The head, and what is to follow it."""
        data, changed = self.read(name)
        start = self.part(data, changed)
        if start >= len(data) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return start, b""
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("Last-Modified", changed)
        self.end_headers()
        return start, data[start:]

    def get_range(self, name):
        self.wfile.write(self.send_part(name)[1])

    def get_cut(self, name):
        start, data = self.send_part(name)
        self.wfile.write(data if start else data[:len(data) // 2])

    def get_hang(self, name):
        start, data = self.send_part(name)
        self.wfile.write(data if start else data[:len(data) // 2])
        if not start:
            self.rfile.read(1)

    def send_chunked(self, data):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for start in range(0, len(data), 7001):
            piece = data[start:start + 7001]
            self.wfile.write(b"%X;name=value\r\n%s\r\n" % (len(piece), piece))

    def get_chunked(self, name):
        self.send_chunked(self.read(name)[0])
        self.wfile.write(b"0\r\nTrailer: value\r\n\r\n")

    def get_cut_chunked(self, name):
        data = self.read(name)[0]
        self.send_chunked(data[:len(data) // 2])

    def get_to_the_end(self, name):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.read(name)[0])

    def send_redirect(self, location):
        self.send_response(302)
        self.send_header("Location", location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def get_redirect(self, rest):
        number, _, path = rest.partition("/")
        if int(number) <= 1:
            self.send_redirect("/" + path)
        elif int(number) % 2:
            self.send_redirect(f"http://{self.headers['Host']}/redirect/{int(number) - 1}/{path}")
        else:
            up = "../" * path.count("/")
            self.send_redirect(f"{up}../{int(number) - 1}/./{path}")

    def get_loop(self, rest):
        self.send_redirect("/loop")

    def get_downgrade(self, path):
        self.send_redirect(f"http://{self.headers['Host']}/{path}")

    def get_interim(self, name):
        self.wfile.write(b"HTTP/1.1 102 Processing\r\n\r\n"
                         b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")
        self.get_range(name)

    def get_wrong_range(self, name):
        data, changed = self.read(name)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes 1-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - 1))
        self.end_headers()
        self.wfile.write(data[1:])

    def get_status(self, number):
        self.send_response(int(number), "As asked\tfor")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def get_garbage(self, rest):
        self.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")

    def get_silent(self, rest):
        self.log_request(0)
        self.rfile.read(1)


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--directory", required=True)
    parser.add_argument("--cert")
    parser.add_argument("--key")
    options = parser.parse_args()

    def handle(*args):
        return Handler(*args, directory=options.directory)

    server = Server(("127.0.0.1", options.port), handle)
    if options.cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.cert, options.key)
        server.socket = context.wrap_socket(server.socket, server_side=True,
                                            do_handshake_on_connect=False)
    server.serve_forever()


main()
