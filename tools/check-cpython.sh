#!/bin/sh
# CPython's own tests on the modules of `make cpython`.
#
#   tools/check-cpython.sh DIR EXAM    the exam: each module of tests runs with the modules of DIR
#                                      and with the interpreter's own, and what passes on this
#                                      machine is compared by name (tests/cpython/exam.py). Fails
#                                      where a test is missing that could pass. EXAM may be a
#                                      folder with a launcher.py, which then puts the modules in
#                                      place.
#   tools/check-cpython.sh DIR         a short set, and tests/cpython, in one or two minutes; fails
#                                      if a test fails
#
# MODULES='test_socket ...' runs just these. PYTHON comes from make. The logs go to DIR/exam.
set -u
export PYTHONDONTWRITEBYTECODE=1

PYTHON=${PYTHON:-/usr/bin/python3}
dir=$(cd "$1" && pwd) || exit 1
here=$(cd "$(dirname "$0")/../examples/cpython" && pwd)
tests=$(cd "$(dirname "$0")/../tests/cpython" && pwd)
unset REQUESTS_CA_BUNDLE CURL_CA_BUNDLE SSL_CERT_FILE SSL_CERT_DIR PIP_CERT PIP_FIND_LINKS

# ---- the short set ----

short='test_socket test_select test_poll test_epoll test_selectors test_ssl test_timeout
    test_socketserver test_httplib test_asyncio.test_sock_lowlevel test_asyncio.test_streams
    test_asyncio.test_events test_asyncio.test_server test_asyncio.test_ssl
    test_asyncio.test_sslproto'

# What it leaves out.
left_out() {
    # Without a way to load kernel modules or a hypervisor it hangs with the stock modules too.
    echo -i ThreadedVSOCKSocketStreamTest
    # They want TLS 1.3, of which BearSSL has nothing,
    echo -i test.test_ssl.BasicSocketTests.test_constants
    echo -i test.test_ssl.ThreadedTests.test_version_basic
    echo -i test.test_ssl.TestSSLDebug.test_keylog_filename
    # finite-field DHE, likewise,
    echo -i test.test_ssl.ThreadedTests.test_dh_params
    # and tickets.
    echo -i test.test_ssl.ThreadedTests.test_session
    # They sleep for long.
    echo -i test.test_poll.PollTests.test_poll2
    echo -i test.test_ssl.ThreadedTests.test_check_hostname_idn
}

run_short() {
    export PYTHONPATH="$here" PYSOCK_MODULES="$dir"
    cd "$dir/exam" || exit 1 # the tests make files where they are
    failed=0
    # shellcheck disable=SC2046,SC2086
    timeout 600 "$PYTHON" -m test -j2 -W --timeout=300 -u network $(left_out) \
        ${MODULES:-$short} </dev/null || failed=1
    [ -n "${MODULES-}" ] ||
        timeout 600 "$PYTHON" -W error -m unittest discover -s "$tests" </dev/null || failed=1
    exit $failed
}

# ---- the exam ----

run_exam() {
    launcher=
    [ ! -f "$1/launcher.py" ] || launcher=--launcher=$(cd "$1" && pwd)/launcher.py
    cd "$dir/exam" || exit 1
    # shellcheck disable=SC2086
    exec "$PYTHON" "$tests/exam.py" ${launcher:+"$launcher"} "$dir" "$dir/exam" ${MODULES-}
}

rm -rf "$dir/exam"
mkdir -p "$dir/exam"
[ $# -ge 2 ] || run_short
run_exam "$2"
