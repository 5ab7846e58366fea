"""What a new context does by itself, and what only a program that asks for it gets: versions of
TLS, the common name, trust stores."""
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import unittest
import warnings

CERTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../certs")
CA_HASH = "df98f584"    # of the subject of ca.pem, as openssl x509 -hash prints it
V = ssl.TLSVersion


def cert(name):
    return os.path.join(CERTS, name)


def client_context(ca="ca.pem", protocol=ssl.PROTOCOL_TLS_CLIENT):
    context = ssl.SSLContext(protocol)
    context.verify_mode = ssl.CERT_REQUIRED
    if ca:
        context.load_verify_locations(cert(ca))
    return context


def server_context(name="server-rsa", protocol=ssl.PROTOCOL_TLS_SERVER):
    context = ssl.SSLContext(protocol)
    context.load_cert_chain(cert(name + ".pem"), cert(name + ".key"))
    return context


def shake(client, server, name="localhost"):
    """The version that two contexts agree on."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(to_client, to_server, server_hostname=name),
            server.wrap_bio(to_server, to_client, server_side=True)]
    left = list(ends)
    for turn in range(10):
        for end in list(left):
            try:
                end.do_handshake()
                left.remove(end)
            except ssl.SSLWantReadError:
                pass
        if not left:
            return ends[0].version()
    raise AssertionError("no end of the handshake")


def restrict(context, lowest=None, highest=None):
    if lowest is not None:
        context.minimum_version = lowest
    if highest is not None:
        context.maximum_version = highest
    return context


class Versions(unittest.TestCase):
    def setUp(self):
        filters = warnings.catch_warnings()
        filters.__enter__()
        self.addCleanup(filters.__exit__, None, None, None)
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of what is below 1.2

    def clients(self):
        yield "create_default_context", ssl.create_default_context(cafile=cert("ca.pem"))
        yield "PROTOCOL_TLS_CLIENT", client_context()
        yield "PROTOCOL_TLS", client_context(protocol=ssl.PROTOCOL_TLS)

    def servers(self):
        yield "PROTOCOL_TLS_SERVER", server_context()
        yield "PROTOCOL_TLS", server_context(protocol=ssl.PROTOCOL_TLS)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(cert("server-rsa.pem"), cert("server-rsa.key"))
        yield "create_default_context", context

    def test_a_client_speaks_to_no_old_server_unless_asked(self):
        for highest, version in (V.TLSv1, "TLSv1"), (V.TLSv1_1, "TLSv1.1"):
            for name, client in self.clients():
                with self.subTest(client=name, server=version):
                    server = restrict(server_context(), V.TLSv1, highest)
                    self.assertRaises(ssl.SSLError, shake, client, server)
                    self.assertEqual(shake(restrict(client, highest), server), version)

    def test_a_server_speaks_to_no_old_client_unless_asked(self):
        for highest, version in (V.TLSv1, "TLSv1"), (V.TLSv1_1, "TLSv1.1"):
            for name, server in self.servers():
                with self.subTest(server=name, client=version):
                    client = restrict(client_context(), V.TLSv1, highest)
                    self.assertRaises(ssl.SSLError, shake, client, server)
                    self.assertEqual(shake(client, restrict(server, highest)), version)

    def test_the_default_is_told(self):
        for kind in self.clients, self.servers:
            for name, context in kind():
                with self.subTest(kind=kind.__name__, context=name):
                    self.assertEqual(context.minimum_version, V.TLSv1_2)
                    self.assertEqual(context.maximum_version, V.MAXIMUM_SUPPORTED)

    def test_the_lowest_that_there_is_has_to_be_asked_for(self):
        server = restrict(server_context(), V.TLSv1, V.TLSv1)
        client = restrict(client_context(), V.MINIMUM_SUPPORTED)
        self.assertEqual(client.minimum_version, V.MINIMUM_SUPPORTED)
        self.assertEqual(shake(client, server), "TLSv1")

    def test_only_a_highest_version_below_the_lowest_leaves_none(self):
        client = restrict(client_context(), highest=V.TLSv1)
        self.assertRaises(ssl.SSLError, shake, client, restrict(server_context(), V.TLSv1))

    def test_a_protocol_of_one_version_asks_for_it(self):
        for protocol, version in ((ssl.PROTOCOL_TLSv1, "TLSv1"), (ssl.PROTOCOL_TLSv1_1, "TLSv1.1"),
                                  (ssl.PROTOCOL_TLSv1_2, "TLSv1.2")):
            with self.subTest(version=version):
                client = client_context(protocol=protocol)
                server = restrict(server_context(), V.TLSv1)
                self.assertEqual(shake(client, server), version)

    @unittest.skipIf(ssl.HAS_TLSv1_3, "is of a library without TLS 1.3")
    def test_a_program_that_demands_tls_1_3_is_refused(self):
        for name, context in list(self.clients()) + list(self.servers()):
            with self.subTest(context=name):
                with self.assertRaisesRegex(ValueError, "^Unsupported protocol version 0x304$"):
                    context.minimum_version = V.TLSv1_3
                self.assertEqual(context.minimum_version, V.TLSv1_2)

    def test_a_highest_version_of_tls_1_3_allows_what_is_below(self):
        client, server = client_context(), restrict(server_context(), highest=V.TLSv1_2)
        client.maximum_version = V.TLSv1_3
        self.assertEqual(client.maximum_version, V.TLSv1_3)
        self.assertEqual(shake(client, server), "TLSv1.2")

    def test_ssl_3_bounds_from_below_alone(self):
        context = restrict(client_context(), V.SSLv3)
        self.assertEqual(context.minimum_version, V.SSLv3)
        server = restrict(server_context(), V.TLSv1, V.TLSv1)
        self.assertEqual(shake(context, server), "TLSv1")
        with self.assertRaisesRegex(ValueError, "^Unsupported protocol version 0x300$"):
            restrict(context, highest=V.SSLv3)
        self.assertEqual(context.maximum_version, V.MAXIMUM_SUPPORTED)

    def test_what_is_no_version(self):
        for which in "minimum_version", "maximum_version":
            context = client_context()
            before = getattr(context, which)
            for value, error in ((-3, ValueError), (0, ValueError), (1, ValueError),
                                 (100, ValueError), (0x2ff, ValueError), (0x305, ValueError),
                                 (0xfefd, ValueError), (2 ** 31 - 1, ValueError),
                                 (-2 ** 31, ValueError), (-2 ** 40, ValueError),
                                 (2 ** 31, OverflowError), (2 ** 70, OverflowError),
                                 (None, TypeError), ("TLSv1_2", TypeError), (1.2, TypeError)):
                with self.subTest(which=which, value=value):
                    self.assertRaises(error, setattr, context, which, value)
                    self.assertEqual(getattr(context, which), before)

    def test_a_protocol_of_one_version_has_no_others(self):
        context = client_context(protocol=ssl.PROTOCOL_TLSv1_2)
        for which in "minimum_version", "maximum_version":
            for value in V.TLSv1_2, V.TLSv1_3, 100:
                with self.subTest(which=which, value=value):
                    with self.assertRaisesRegex(ValueError, "doesn't support modification"):
                        setattr(context, which, value)


class CommonName(unittest.TestCase):
    def test_it_is_checked_by_default(self):
        for client in (client_context(), ssl.create_default_context(cafile=cert("ca.pem"))):
            self.assertIs(client.hostname_checks_common_name, True)
            shake(client, server_context("cn-only"))

    def test_it_is_not_checked_where_that_is_off(self):
        client = client_context()
        client.hostname_checks_common_name = False
        self.assertIs(client.hostname_checks_common_name, False)
        with self.assertRaises(ssl.SSLCertVerificationError) as caught:
            shake(client, server_context("cn-only"))
        self.assertEqual(caught.exception.verify_code, 62)  # X509_V_ERR_HOSTNAME_MISMATCH
        client.hostname_checks_common_name = True
        shake(client, server_context("cn-only"))

    def test_a_subject_alternative_name_goes_before(self):
        with self.assertRaises(ssl.SSLCertVerificationError):
            shake(client_context(), server_context("cn-ignored"))


class TrustStores(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def put(self, name, ca="ca.pem"):
        shutil.copyfile(cert(ca), os.path.join(self.folder, name))

    def shake(self):
        client = client_context(ca=None)
        client.load_verify_locations(capath=self.folder)
        shake(client, server_context())

    def test_a_directory_counts_by_hashed_names(self):
        self.put(CA_HASH + ".0")
        self.shake()

    def test_a_directory_without_hashed_names_trusts_nothing(self):
        for name in "ca.pem", "ca.crt", CA_HASH, CA_HASH + ".pem", "ca.0":
            self.put(name)
        with self.assertRaises(ssl.SSLCertVerificationError):
            self.shake()

    def in_another(self, **variables):
        """Another process: how many CAs a default context has, and whether it trusts the server."""
        program = "import sys; sys.path.insert(0, sys.argv[1]); import ssl; " \
                  "from test_contexts import *; " \
                  "context = ssl.create_default_context(); " \
                  "print(context.cert_store_stats()['x509_ca']); " \
                  "shake(context, server_context())"
        env = {name: value for name, value in os.environ.items()
               if not name.startswith("SSL_CERT_")}
        return subprocess.run(
            [sys.executable, "-c", program, os.path.dirname(os.path.abspath(__file__))],
            env=dict(env, **variables), capture_output=True, text=True, timeout=60)

    def test_a_file_and_a_directory_of_the_environment(self):
        self.put(CA_HASH + ".0")
        run = self.in_another(SSL_CERT_FILE=cert("other-ca.pem"), SSL_CERT_DIR=self.folder)
        self.assertEqual((run.stdout, run.stderr), ("1\n", ""))

    def test_a_directory_of_the_environment_leaves_the_file(self):
        default = ssl.get_default_verify_paths().openssl_cafile
        if not os.path.exists(default):
            self.skipTest("this system has no " + default)
        plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        plain.load_verify_locations(default)
        self.put(CA_HASH + ".0")
        run = self.in_another(SSL_CERT_DIR=self.folder)
        self.assertEqual((run.stdout, run.stderr),
                         ("%d\n" % plain.cert_store_stats()["x509_ca"], ""))

    def test_a_file_of_the_environment_replaces_the_file(self):
        run = self.in_another(SSL_CERT_FILE=cert("ca.pem"))
        self.assertEqual((run.stdout, run.stderr), ("1\n", ""))
        run = self.in_another(SSL_CERT_FILE=cert("other-ca.pem"))
        self.assertEqual(run.stdout, "1\n")
        self.assertIn("CERTIFICATE_VERIFY_FAILED", run.stderr)


if __name__ == "__main__":
    unittest.main()
