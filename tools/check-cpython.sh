#!/bin/sh
# CPython's own tests on the modules of `make cpython`.
#
#   tools/check-cpython.sh DIR EXAM    the exam: the tests of EXAM (a folder with launcher.py,
#                                      run_modules.sh and score.py) in an interpreter each; prints
#                                      the score, and succeeds whatever it is. Without that folder
#                                      it says so and does nothing.
#   tools/check-cpython.sh DIR         a short set, without EXAM; fails if a test fails
#
# MODULES='test_socket ...' runs just these. Where DIR has no _ssl the interpreter has none at all.
# PYTHON comes from make. The logs go to DIR/exam.
set -u
export LC_ALL=C PYTHONDONTWRITEBYTECODE=1

PYTHON=${PYTHON:-/usr/bin/python3}
dir=$(cd "$1" && pwd) || exit 1
here=$(cd "$(dirname "$0")/../examples/cpython" && pwd)
unset REQUESTS_CA_BUNDLE CURL_CA_BUNDLE SSL_CERT_FILE SSL_CERT_DIR PIP_CERT PIP_FIND_LINKS

# Without a way to load kernel modules or a hypervisor these hang with the stock modules too.
flags_of() {
    case $1 in
    test_socket) echo '-i ThreadedVSOCKSocketStreamTest' ;;
    test_socketserver | test_timeout) echo '-u network' ;;
    esac
}

has_ssl() {
    set -- "$dir"/_ssl.*so
    [ -e "$1" ]
}

modules='test_socket test_select test_poll test_epoll test_selectors test_socketserver test_timeout
    test_httplib test_ftplib test_urllib2_localnet test_asyncio.test_sock_lowlevel
    test_asyncio.test_streams test_asyncio.test_events test_asyncio.test_server'
names=_socket,select
if has_ssl; then
    modules="$modules test_ssl test_asyncio.test_ssl test_asyncio.test_sslproto"
    names=$names,_ssl
fi

if [ $# -lt 2 ]; then
    failed=
    export PYTHONPATH="$here" PYSOCK_MODULES="$dir"
    for module in ${MODULES:-test_select test_epoll test_poll test_selectors test_timeout \
        test_socketserver test_socket}; do
        # shellcheck disable=SC2046
        timeout 600 "$PYTHON" -m test --timeout=300 $(flags_of "$module") "$module" \
            >"$dir/$module.log" 2>&1 </dev/null && echo "ok      $module" && continue
        echo "FAILED  $module"
        tail -n 40 "$dir/$module.log"
        failed="$failed $module"
    done
    [ -z "$failed" ]
    exit
fi

if [ ! -f "$2/launcher.py" ]; then
    echo "check-cpython: there is no exam in $2: nothing is done"
    exit 0
fi
exam=$(cd "$2" && pwd)
rm -rf "$dir/exam"
mkdir -p "$dir/exam"
cd "$dir/exam" || exit 1 # the tests make files where they are
has_ssl || export PYTHONPATH="$here" PYSOCK_MODULES="$dir"
for module in ${MODULES:-$modules}; do
    USEFLAGS=$(flags_of "$module")
    export USEFLAGS PYSOCK_PYTHON="$PYTHON"
    sh "$exam/run_modules.sh" "$dir/exam" "$PYTHON" "$exam/launcher.py" --ext "$dir" \
        --mods "$names" -- "$module"
done
echo "the core:"
"$PYTHON" "$exam/score.py" "$dir/exam" --core | grep -E '^test_(socket|select|poll|epoll|selectors) '
echo "all:"
"$PYTHON" "$exam/score.py" "$dir/exam" || true
