"""CPython's own tests as an exam: each module runs twice, each time in an interpreter of its own,
with the interpreter's own _socket, select and _ssl and with those of a directory. What passes with
the first has to pass with the others, on this machine; the differences are printed by name.

    exam.py [--launcher FILE] DIR OUT [MODULE ...]

DIR has the modules, OUT gets the logs. FILE is a program that puts them in place ("FILE --ext DIR
ARGUMENTS"); without it sitecustomize.py of examples/cpython does. Exit status 1: a test is missing
that is not expected to be.
"""
import argparse
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../../examples/cpython"))
import pysock_modules  # noqa: E402

GROUPS = (
    ("sockets, select", "test_socket test_select test_poll test_epoll test_selectors"),
    ("test_ssl", "test_ssl"),
    ("asyncio", "test_asyncio.test_sock_lowlevel test_asyncio.test_streams "
                "test_asyncio.test_events test_asyncio.test_server test_asyncio.test_ssl "
                "test_asyncio.test_sslproto"),
    ("clients and servers", "test_httplib test_ftplib test_urllib2_localnet test_socketserver "
                            "test_timeout"),
)
FLAGS = {
    # Without a way to load kernel modules or a hypervisor it hangs with any modules.
    "test_socket": ["-i", "ThreadedVSOCKSocketStreamTest"],
    "test_socketserver": ["-u", "network"],
    "test_timeout": ["-u", "network"],
}
MODULE_DEADLINE = 900  # seconds

# What is expected to be missing, and why.
TLS13, DHE, TICKETS = "wants TLS 1.3", "wants finite-field DHE", "wants session tickets"
EXPECTED = {
    "test.test_ssl.BasicSocketTests.test_constants": TLS13,
    "test.test_ssl.ThreadedTests.test_version_basic": TLS13,
    "test.test_ssl.ThreadedTests.test_tls1_3": TLS13,
    "test.test_ssl.ThreadedTests.test_wrong_cert_tls13": TLS13,
    "test.test_ssl.TestSSLDebug.test_keylog_filename": TLS13,
    "test.test_ssl.ThreadedTests.test_dh_params": DHE,
    "test.test_ssl.ThreadedTests.test_session": TICKETS,
    "test.test_httplib.HTTPSTest.test_tls13_pha": TLS13,
}
AUTH = "test.test_ssl.TestPostHandshakeAuth."
EXPECTED.update((AUTH + name, TLS13) for name in (
    "test_pha_required", "test_pha_required_nocert", "test_pha_optional",
    "test_pha_optional_nocert", "test_pha_no_pha_client", "test_pha_no_pha_server",
    "test_bpo37428_pha_cert_none"))

ASK_PURITY = """
import _socket, select, ssl
print("libssl" in open("/proc/self/maps").read())
"""


class Side:
    """The tests with one kind of modules."""

    def __init__(self, name, out, command, environment):
        self.name, self.command, self.environment = name, command, environment
        self.out = os.path.join(out, name)
        self.results = {}
        os.makedirs(self.out, exist_ok=True)

    def run(self, arguments, log, deadline=120):
        """What it prints; the rest is in the log."""
        with open(os.path.join(self.out, log + ".log"), "w") as errors:
            try:
                return subprocess.run(self.command + arguments, env=self.environment,
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=errors, text=True, timeout=deadline,
                                      cwd=self.out).stdout
            except subprocess.TimeoutExpired:
                return ""

    def run_module(self, module):
        """Whether it has come to its end."""
        path = os.path.join(self.out, module + ".xml")
        if os.path.exists(path):
            os.remove(path)     # an earlier run's
        text = self.run(["-m", "test", "-v", "--timeout=300", "--junit-xml", path]
                        + FLAGS.get(module, []) + [module], module, MODULE_DEADLINE)
        with open(os.path.join(self.out, module + ".out"), "w") as f:
            f.write(text)
        try:
            self.results[module] = outcomes(path)
        except (OSError, ElementTree.ParseError):
            self.results[module] = {}
        return bool(self.results[module])

    def outcome(self, module, test):
        return self.results[module].get(test, "fails")  # one with a failed subtest has no name

    def passed(self, module):
        return {test for test, outcome in self.results[module].items() if outcome == "passes"}


def outcomes(path):
    """A test's name: "passes", "fails" or "is skipped"."""
    found = {}
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        tags = {child.tag for child in case}
        if tags & {"error", "failure"}:
            outcome = "fails"
        elif "skipped" in tags or case.get("result") == "skipped" or case.get("status") == "notrun":
            outcome = "is skipped"
        else:
            outcome = "passes"
        found[case.get("name")] = outcome
    found.pop(None, None)
    found.pop("", None)
    return found


def environment():
    """Without what would lead either side elsewhere."""
    return {name: value for name, value in os.environ.items()
            if name not in ("PYTHONPATH", "PYSOCK_MODULES", "REQUESTS_CA_BUNDLE",
                            "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")}


def sides(arguments):
    stock = Side("stock", arguments.out, [sys.executable], environment())
    if arguments.launcher:
        command = [sys.executable, arguments.launcher, "--ext", arguments.dir]
        return stock, Side("pysock", arguments.out, command,
                           dict(environment(), PYSOCK_PYTHON=sys.executable))
    os.environ.pop("PYTHONPATH", None)
    ours = environment()
    ours.update((name, value)
                for name, value in pysock_modules.environment(arguments.dir).items()
                if name in ("PYTHONPATH", "PYSOCK_MODULES"))
    return stock, Side("pysock", arguments.out, [sys.executable], ours)


def run_hidden(ours):
    """Those that leave themselves out count where they pass."""
    for name in ours.run([os.path.join(HERE, "test_hidden.py")], "hidden").split():
        ours.results["test_ssl"][name] = "passes"


def run_modules(stock, ours, modules):
    """The modules that have not come to an end, and whose."""
    failed = []
    for module in modules:
        for side in stock, ours:
            print("%s: %s" % (side.name, module), flush=True)
            if not side.run_module(module):
                failed.append("%s: %s has no result: see %s/%s.log"
                              % (side.name, module, side.out, module))
        if module == "test_ssl" and ours.results[module]:
            run_hidden(ours)
    return failed


def report(stock, ours, modules):
    """Prints the table and the differences. How many of them were not expected."""
    missing, besides = [], []
    print("\n%-24s %7s %7s %9s" % ("", "pysock", "stock", "besides"))
    left = list(modules)
    for group, members in GROUPS + (("others", " ".join(modules)),):
        counts = [0, 0, 0]
        chosen = [module for module in members.split() if module in left]
        left = [module for module in left if module not in chosen]
        for module in chosen:
            theirs, mine = stock.passed(module), ours.passed(module)
            missing += [(module, test) for test in sorted(theirs - mine)]
            besides += [(module, test) for test in sorted(mine - theirs)]
            for i, tests in enumerate((theirs & mine, theirs, mine - theirs)):
                counts[i] += len(tests)
        if chosen:
            print("%-24s %7d %7d %9d" % (group, *counts))
    print()
    unexpected = 0
    for module, test in missing:
        why = EXPECTED.get(test, "NOT EXPECTED")
        unexpected += test not in EXPECTED
        print("missing: %s: %s: %s" % (test, ours.outcome(module, test), why))
    for module, test in besides:
        print("besides: %s, which %s with the interpreter's own"
              % (test, stock.outcome(module, test)))
    return unexpected


def is_pure(ours):
    pure = ours.run(["-c", ASK_PURITY], "maps").strip() == "False"
    print("no libssl in the process: %s" % ("holds" if pure else "DOES NOT HOLD"))
    return pure


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--launcher")
    parser.add_argument("dir")
    parser.add_argument("out")
    parser.add_argument("modules", nargs="*")
    arguments = parser.parse_args()
    arguments.dir = os.path.abspath(arguments.dir)
    arguments.out = os.path.abspath(arguments.out)
    modules = arguments.modules or [m for group, members in GROUPS for m in members.split()]
    stock, ours = sides(arguments)
    failed = run_modules(stock, ours, modules)
    unexpected = report(stock, ours, modules)
    pure = is_pure(ours)
    for line in failed:
        print(line)
    print("unexpected differences: %d" % unexpected)
    return 1 if failed or unexpected or not pure else 0


if __name__ == "__main__":
    sys.exit(main())
