"""Tests of CPython's test_ssl that leave themselves out on these modules, but can pass: a class
that is about TLS 1.3 for the most part, and those of versions that have to be asked for.

    python3 test_hidden.py      prints the names of those that pass, for exam.py
"""
import unittest
import warnings

from test import support

WITHOUT_TLS13 = ("test_pha_setter", "test_pha_not_tls13", "test_internal_chain_client",
                 "test_internal_chain_server")
OLD_VERSIONS = ("test_protocol_tlsv1", "test_protocol_tlsv1_1", "test_min_max_version_tlsv1_1",
                "test_min_max_version_tlsv1_2", "test_min_max_version_mismatch")


def suite():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)     # of modules that it imports
        from test import test_ssl
    support.verbose = False
    test_ssl.TestPostHandshakeAuth.__unittest_skip__ = False
    test_ssl.has_tls_version = lambda version: version in ("TLSv1", "TLSv1_1", "TLSv1_2")
    return unittest.TestSuite(
        [test_ssl.TestPostHandshakeAuth(name) for name in WITHOUT_TLS13]
        + [test_ssl.ThreadedTests(name) for name in OLD_VERSIONS])


def load_tests(loader, tests, pattern):
    return suite()


if __name__ == "__main__":
    for one in list(suite()):
        name = one.id()
        result = unittest.TextTestRunner().run(one)
        if result.wasSuccessful() and not result.skipped:
            print(name)
