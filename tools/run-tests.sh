#!/bin/sh
# Runs cmocka programs, JOBS of them at a time, and adds up their cases.
#
#   tools/run-tests.sh build/VARIANT/NAME...
#
# They mostly wait, so there may be more of them than processors; JOBS is one more, unless given.
# VARIANT (plain, asan or tsan) chooses the time that a program may take; TIMEOUT, in seconds,
# overrides it. The output of a program goes to build/VARIANT/NAME.log, and is shown if it failed. A
# case that begins and does not end, because the program crashed or hung, counts as failed, and so
# does a program that fails with no failed case. The last line is "N passed, N failed".
set -u
export LC_ALL=C

export ASAN_OPTIONS="detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1:\
allocator_may_return_null=1:handle_segv=2:exitcode=66:${ASAN_OPTIONS-}"
export UBSAN_OPTIONS="print_stacktrace=1:${UBSAN_OPTIONS-}"
export TSAN_OPTIONS="second_deadlock_stack=1:die_after_fork=0:handle_segv=2:${TSAN_OPTIONS-}"

seconds_for() {
    case $1 in
    plain) echo "${TIMEOUT:-240}" ;;
    *) echo "${TIMEOUT:-480}" ;;
    esac
}

# What ends the program and all that it started, first gently, then not.
find_timeout() {
    for timeout in timeout gtimeout; do
        ! command -v $timeout >/dev/null || return 0
    done
    timeout=
    echo "run-tests.sh: no timeout command here: a test that hangs will hang for ever" >&2
}

# The ThreadSanitizer of gcc 13 and older cannot start where the kernel shuffles addresses widely.
find_setarch() {
    setarch="setarch $(uname -m) -R"
    $setarch true 2>/dev/null || setarch=
}

# Reads a log, writes "PASSED FAILED SKIPPED" and then the names of the failed cases, a line each.
count_cases() {
    awk '
    function fail(name) { failed++; names = names name "\n" }
    function left_open() { if (name != "") fail(name " (did not end)"); name = "" }
    /^\[ RUN      \] / { left_open(); name = substr($0, 14); next }
    /^\[==========\] .* run\.$/ { left_open(); next }
    name != "" && $0 == "[       OK ] " name { passed++; name = ""; next }
    name != "" && $0 == "[  SKIPPED ] " name { skipped++; name = ""; next }
    name != "" && $0 == "[  FAILED  ] " name { fail(name); name = ""; next }
    name != "" && $0 == "[  ERROR   ] " name { fail(name); name = ""; next }
    END { left_open(); printf "%d %d %d\n%s", passed, failed, skipped, names }
    ' "$1"
}

explain_status() {
    case $1 in
    124 | 137) echo "was stopped after $2 s" ;;
    23 | 66) echo "exit status $1: a sanitizer's report" ;;
    *)
        if [ "$1" -gt 128 ]; then
            echo "was killed by signal $(($1 - 128))"
        else
            echo "exit status $1"
        fi
        ;;
    esac
}

# Shows the end of the log, where the failure is; a case that repeats itself can fill it.
show_log() {
    if [ "$(wc -l <"$1")" -gt 400 ]; then
        echo "  ... (all of it is in $1)"
    fi
    tail -n 400 "$1" | sed 's/^/  | /'
}

# report PROGRAM LOG STATUS SECONDS LIMIT
report() {
    label=${1#build/}
    count_cases "$2" >"$2.count"
    read -r ok bad skip <"$2.count"
    why=
    # cmocka's own exit status is how many cases failed.
    [ "$3" -eq "$bad" ] || why=" ($(explain_status "$3" "$5"))"
    if [ $((ok + bad + skip)) -eq 0 ]; then
        why="$why (ran no case)"
    fi
    if [ "$bad" -eq 0 ] && [ -n "$why" ]; then
        bad=1
        echo "no case failed, but:$why" >>"$2.count"
    fi
    if [ "$bad" -eq 0 ]; then
        [ "$skip" -eq 0 ] || why=", $skip skipped"
        printf 'ok      %-32s %4d s %4d passed%s\n' "$label" "$4" "$ok" "$why"
    else
        show_log "$2"
        printf 'FAILED  %-32s %4d s %4d passed, %d failed%s\n' "$label" "$4" "$ok" "$bad" "$why"
    fi
    echo "$ok $bad $skip" >"$1.sum"
    sed "1d; s|^|  $label: |" "$2.count" >>"$1.sum"
    rm -f "$2.count"
}

# run PROGRAM: what it has to say comes in one piece.
run() {
    find_timeout
    find_setarch
    variant=${1#build/}
    limit=$(seconds_for "${variant%%/*}")
    log=$1.log
    begin=$(date +%s)
    launcher=
    case $variant in tsan/*) launcher=$setarch ;; esac
    # shellcheck disable=SC2086
    ${timeout:+$timeout -k 10 "$limit"} $launcher "$1" >"$log" 2>&1 </dev/null
    status=$?
    report "$1" "$log" $status $(($(date +%s) - begin)) "$limit" >"$1.report"
    cat "$1.report"
    rm -f "$1.report"
}

if [ "${1-}" = --run ]; then
    run "$2"
    exit 0
fi

for program; do
    rm -f "$program.sum"
done
jobs=${JOBS:-$(($(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1) + 1))}
printf '%s\n' "$@" | xargs -n 1 -P "$jobs" "$0" --run
passed=0 failed=0 skipped=0
failures=
for program; do
    if ! read -r ok bad skip <"$program.sum"; then
        ok=0 bad=1 skip=0
        echo "  ${program#build/}: nothing is known of it" >"$program.sum"
    fi
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
    failures="$failures$(sed -n '/^  /p' "$program.sum")"
    [ "$bad" -eq 0 ] || failures="$failures
"
    rm -f "$program.sum"
done
if [ -n "$failures" ]; then
    echo
    echo 'Failed:'
    printf '%s' "$failures"
fi
[ "$skipped" -eq 0 ] || echo "$skipped skipped"
mkdir -p build
echo "$passed passed, $failed failed" | tee build/test-summary.txt
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
