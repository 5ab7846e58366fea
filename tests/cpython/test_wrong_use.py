"""What wrong use raises: the exceptions that programs know from the interpreter's own modules."""
import os
import socket
import ssl
import tempfile
import unittest


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
