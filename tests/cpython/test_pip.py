"""pip and requests on pysock, from an index that is served over TLS by the same modules."""
import base64
import functools
import hashlib
import http.server
import io
import os
import ssl
import subprocess
import sys
import tempfile
import threading
import unittest
import zipfile

try:
    import requests
except ImportError:
    requests = None

DEADLINE = 120  # seconds
WHEEL = "pysock_probe-1.0-py3-none-any.whl"
CERTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../certs")
# These beat pip's and requests' own options.
ENVIRONMENT = {name: value for name, value in os.environ.items()
               if not name.startswith(("PIP_", "SSL_CERT_"))
               and name not in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")}


def cert(name):
    return os.path.join(CERTS, name)



def make_wheel():
    """A wheel with a module of many TLS records."""
    info = "pysock_probe-1.0.dist-info/"
    files = {"pysock_probe.py": b"ANSWER = 42\n" + b"#" * 200000 + b"\n",
             info + "METADATA": b"Metadata-Version: 2.1\nName: pysock-probe\nVersion: 1.0\n",
             info + "WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
                             b"Tag: py3-none-any\n"}
    record = ""
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record += "%s,sha256=%s,%d\n" % (name, digest, len(data))
    files[info + "RECORD"] = (record + info + "RECORD,,\n").encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name, data in files.items():
            z.writestr(name, data)
    return out.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, pages, *args):
        self.pages = pages
        super().__init__(*args)

    def do_GET(self):
        body = self.pages.get(self.path)
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Type", "text/html" if self.path[-1] == "/" else "application/zip")
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, address):
        pass  # clients that do not trust the server hang up on it


@unittest.skipUnless(requests, "requests is not installed")
class TestPip(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        cls.wheel = wheel = make_wheel()
        link = '<!DOCTYPE html><a href="/%s#sha256=%s">%s</a>' % (
            WHEEL, hashlib.sha256(wheel).hexdigest(), WHEEL)
        pages = {"/simple/": b'<!DOCTYPE html><a href="pysock-probe/">pysock-probe</a>',
                 "/simple/pysock-probe/": link.encode(), "/" + WHEEL: wheel}
        server = Server(("127.0.0.1", 0), functools.partial(Handler, pages))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert("server-rsa.pem"), cert("server-rsa.key"))
        server.socket = context.wrap_socket(server.socket, server_side=True)
        cls.url = "https://localhost:%d/simple/" % server.server_address[1]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        cls.addClassCleanup(server.server_close)
        cls.addClassCleanup(thread.join, DEADLINE)
        cls.addClassCleanup(server.shutdown)

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder, name)

    def pip(self, command, ca, *args):
        return subprocess.run(
            (sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check",
             "--no-cache-dir", "--retries", "0", command, "--no-deps", "-i", self.url, "--cert",
             cert(ca), "pysock-probe") + args,
            timeout=DEADLINE, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=ENVIRONMENT)

    def test_the_modules_are_pysocks_and_openssl_is_not_there(self):
        self.assertIn("pysock", ssl.OPENSSL_VERSION)
        with open("/proc/self/maps") as maps:
            self.assertNotIn("libssl", maps.read())

    def test_download(self):
        r = self.pip("download", "ca.pem", "-d", self.path("downloads"))
        self.assertEqual(r.returncode, 0, r.stdout)
        with open(os.path.join(self.path("downloads"), WHEEL), "rb") as f:
            self.assertTrue(f.read() == self.wheel)

    def test_install(self):
        r = self.pip("install", "ca.pem", "--target", self.path("target"))
        self.assertEqual(r.returncode, 0, r.stdout)
        self.assertTrue(os.path.exists(os.path.join(self.path("target"), "pysock_probe.py")))

    def test_a_wrong_ca_is_told(self):
        r = self.pip("download", "other-ca.pem", "-d", self.path("nothing"))
        self.assertNotEqual(r.returncode, 0, r.stdout)
        self.assertIn("CERTIFICATE_VERIFY_FAILED", r.stdout)
        self.assertFalse(os.path.exists(os.path.join(self.path("nothing"), WHEEL)))

    def test_requests(self):
        with requests.Session() as session:
            session.trust_env = False
            for _ in range(20):
                page = session.get(self.url, verify=cert("ca.pem"), timeout=DEADLINE)
                self.assertEqual(page.status_code, 200)
                self.assertIn("pysock-probe", page.text)
            self.assertEqual(session.get(self.url + "none", verify=cert("ca.pem"),
                                         timeout=DEADLINE).status_code, 404)

    def test_requests_with_a_wrong_ca(self):
        with requests.Session() as session:
            session.trust_env = False
            for verify in cert("other-ca.pem"), True:
                with self.assertRaisesRegex(requests.exceptions.SSLError,
                                            "CERTIFICATE_VERIFY_FAILED"):
                    session.get(self.url, verify=verify, timeout=DEADLINE)


if __name__ == "__main__":
    unittest.main()
