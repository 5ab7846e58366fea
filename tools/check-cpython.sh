#!/bin/sh
# CPython's own tests on the modules of `make cpython`.
#
#   tools/check-cpython.sh DIR EXAM    the exam: the tests of EXAM (a folder with launcher.py,
#                                      run_modules.sh and score.py), each module in an interpreter
#                                      of its own; prints the score, and fails where a line of it
#                                      has not reached what it must. Without that folder it says so
#                                      and does nothing.
#   tools/check-cpython.sh DIR         a short set, without EXAM, and tests/cpython, in one or two
#                                      minutes; fails if a test fails
#
# MODULES='test_socket ...' runs just these. Where DIR has no _ssl the interpreter has none at all.
# PYTHON comes from make. The logs go to DIR/exam.
set -u
export PYTHONDONTWRITEBYTECODE=1

PYTHON=${PYTHON:-/usr/bin/python3}
dir=$(cd "$1" && pwd) || exit 1
here=$(cd "$(dirname "$0")/../examples/cpython" && pwd)
tests=$(cd "$(dirname "$0")/../tests/cpython" && pwd)
unset REQUESTS_CA_BUNDLE CURL_CA_BUNDLE SSL_CERT_FILE SSL_CERT_DIR PIP_CERT PIP_FIND_LINKS

has_ssl() {
    set -- "$dir"/_ssl.*so
    [ -e "$1" ]
}

core='test_socket test_select test_poll test_epoll test_selectors'
tls=test_ssl
asyncio='test_asyncio.test_sock_lowlevel test_asyncio.test_streams test_asyncio.test_events
    test_asyncio.test_server test_asyncio.test_ssl test_asyncio.test_sslproto'
clients='test_httplib test_ftplib test_urllib2_localnet test_socketserver test_timeout'
names=_socket,select,_ssl
if ! has_ssl; then
    tls=
    asyncio=${asyncio%test_asyncio.test_ssl*}
    names=_socket,select
    export PYTHONPATH="$here" PYSOCK_MODULES="$dir"
fi

# ---- the short set ----

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
    mkdir -p "$dir/exam"
    cd "$dir/exam" || exit 1 # the tests make files where they are
    failed=0
    # shellcheck disable=SC2046,SC2086
    timeout 600 "$PYTHON" -m test -j2 -W --timeout=300 -u network $(left_out) \
        ${MODULES:-$core $tls test_timeout test_socketserver test_httplib $asyncio} \
        </dev/null || failed=1
    [ -n "${MODULES-}" ] ||
        timeout 600 "$PYTHON" -W error -m unittest discover -s "$tests" </dev/null || failed=1
    exit $failed
}

# ---- the exam ----

# Those of the modules that are to be run.
chosen() {
    for one in "$@"; do
        case " ${MODULES:-$one} " in *" $one "*) echo "$one" ;; esac
    done
}

flags_of() {
    case $1 in
    test_socket) echo '-i ThreadedVSOCKSocketStreamTest' ;; # as above
    test_socketserver | test_timeout) echo '-u network' ;;
    esac
}

# How many of a line's tests passed, how many of them the stock modules pass and pysock could, and
# how many pass besides: from score.py's table. A module that was not run counts with none.
count() {
    modules=$1
    shift
    # shellcheck disable=SC2116,SC2086
    "$PYTHON" "$exam/score.py" "$dir/exam" "$@" | awk -v modules="$(echo $modules)" '
        BEGIN { n = split(modules, m); for (i = 1; i <= n; i++) wanted[m[i]] = 1 }
        $1 in wanted { passed += $2; all += $4 }
        $1 == "TOTAL" { besides = $NF }
        END { print passed + 0, all + 0, besides + 0 }'
}

# line NAME MISSES MODULES [--core]: one line of the score; MISSES may fail.
line() {
    name=$1 misses=$2
    # shellcheck disable=SC2086
    modules=$(chosen $3)
    [ -n "$modules" ] || return 0
    # shellcheck disable=SC2046
    set -- $(count "$modules" ${4+"$4"})
    verdict=reached
    [ "$1" -ge $(($2 - misses)) ] || verdict='NOT REACHED' failed=1
    printf '%-28s %5d of %5d   all but %d: %s\n' "$name" "$1" "$2" "$misses" "$verdict"
}

# The tests that only run because there is no TLS 1.3 are besides the ones that stock passes.
line_of_tls() {
    [ -n "$(chosen test_ssl)" ] || return 0
    # shellcheck disable=SC2046
    set -- $(count test_ssl)
    verdict=reached
    [ $(($1 + $3)) -ge 150 ] || verdict='NOT REACHED' failed=1
    printf '%-28s %5d of %5d   150: %s\n' test_ssl $(($1 + $3)) 156 "$verdict"
}

line_of_hidden_tests() {
    log=$dir/exam/force13.log
    run_on_ours "$exam/force13.py" >"$log" 2>&1
    passed=0
    ! grep -q '^Ran 4 tests' "$log" || passed=$((4 - $(grep -cE '^(FAIL|ERROR):' "$log")))
    printf '%-28s %5d of %5d\n' 'test_ssl, without TLS 1.3' $passed 4
}

line_of_purity() {
    run_on_ours -c 'import _socket, select, ssl
print("libssl" in open("/proc/self/maps").read())' >"$dir/exam/maps.log" 2>&1
    verdict='holds'
    [ "$(cat "$dir/exam/maps.log")" = False ] || verdict='DOES NOT HOLD' failed=1
    printf '%-28s %s\n' 'no libssl in the process' "$verdict"
}

run_on_ours() {
    timeout 120 "$PYTHON" "$exam/launcher.py" --ext "$dir" --mods "$names" "$@" </dev/null
}

run_modules() {
    for module in ${MODULES:-$core $tls $asyncio $clients}; do
        USEFLAGS=$(flags_of "$module")
        export USEFLAGS
        sh "$exam/run_modules.sh" "$dir/exam" "$PYTHON" "$exam/launcher.py" --ext "$dir" \
            --mods "$names" -- "$module"
    done
}

print_missing() {
    # shellcheck disable=SC2116,SC2086
    "$PYTHON" "$exam/score.py" "$dir/exam" --core --missing |
        awk -v modules="$(echo ${MODULES:-$core $tls $asyncio $clients})" '
            BEGIN { n = split(modules, m); for (i = 1; i <= n; i++) wanted[m[i]] = 1 }
            /^test/ { show = $1 in wanted }
            /^ / && show { print "missing: " $1 }'
}

run_exam() {
    rm -rf "$dir/exam"
    mkdir -p "$dir/exam"
    cd "$dir/exam" || exit 1
    export PYSOCK_PYTHON="$PYTHON"
    run_modules
    echo
    failed=0
    line 'core' 5 "$core" --core
    [ -z "$tls" ] || line_of_tls
    line 'asyncio' 5 "$asyncio"
    line 'clients and servers' 3 "$clients"
    if has_ssl; then
        line_of_hidden_tests
        line_of_purity
    fi
    print_missing
    return $failed
}

[ $# -ge 2 ] || run_short
if [ ! -f "$2/launcher.py" ]; then
    echo "check-cpython: there is no exam in $2: nothing is done"
    exit 0
fi
exam=$(cd "$2" && pwd)
run_exam
