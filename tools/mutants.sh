#!/bin/sh
# Makes one-line changes in pysock.h, one at a time and in copies, and asks whether a test notices.
#
#   tools/mutants.sh [NAME...]     all of tests/mutants.txt, or those that are named ("crl_*" too)
#
# For each the implementation is compiled once, without optimisation, and linked with the one
# program that the table names; a whitebox_ program is compiled with it. It must fail, or not end
# in time. A change that goes unnoticed, whose place is not found exactly once, or that does not
# compile makes this fail, and so does a test that fails without any change. Copies, programs and
# logs are in OUT, build/mutants, which two at a time must not share. JOBS run at once; CC,
# CPPFLAGS, LDFLAGS, LDLIBS and PYSOCK_DIR are as for make.
set -u
export LC_ALL=C

: "${CC:=cc}" "${CPPFLAGS=}" "${LDFLAGS=}" "${LDLIBS=-lbearssl -lpthread}" "${PYSOCK_DIR:=.}"
: "${TABLE:=tests/mutants.txt}" "${OUT:=build/mutants}"
: "${JOBS:=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)}"
export CC CPPFLAGS LDFLAGS LDLIBS PYSOCK_DIR OUT

# The shortest limit, and the one of a test without any change, in seconds.
LEAST=20
MOST=240

separator=$(printf '\037') # not a blank, of which several would count as one

# Turns the table into lines of NAME, FUNCTION, FIND, PUT and TEST, with a separator between, for
# the names that are given. Says what is wrong with it.
read_table() {
    awk -v names="$*" '
    function complain(text) { print FILENAME ":" FNR ": " text >"/dev/stderr"; bad = 1 }
    function chosen(name,   i) {
        if (wanted == 0)
            return 1
        for (i = 1; i <= wanted; i++)
            if (name ~ pattern[i]) {
                used[i] = 1
                return 1
            }
        return 0
    }
    function finish(   i) {
        if (!started)
            return
        for (i = 1; i <= 5; i++)
            if (!((words[i]) in field))
                complain("before this line: \"" words[i] "\" is missing")
        if (seen[field["name"]]++)
            complain("a second " field["name"])
        if (chosen(field["name"]))
            print field["name"] SEP field["in"] SEP field["find"] SEP field["put"] SEP field["test"]
        delete field
        started = 0
    }
    BEGIN {
        SEP = "\037"
        split("name in find put test", words)
        wanted = split(names, pattern, " ")
        for (i = 1; i <= wanted; i++) {
            shown[i] = pattern[i]
            gsub(/\*/, ".*", pattern[i])
            pattern[i] = "^" pattern[i] "$"
        }
    }
    /^#/ { next }
    /^ *$/ { finish(); next }
    {
        key = $1
        sub(/^[a-z]+ */, "")
        if (key !~ /^(name|in|find|put|test)$/ || (key in field))
            complain("\"" key "\" is not expected here")
        field[key] = $0
        started = 1
    }
    END {
        finish()
        for (i = 1; i <= wanted; i++)
            if (!used[i])
                complain("no change is named " shown[i])
        exit bad
    }' "$TABLE"
}

# change FUNCTION FIND PUT: the header with FIND, in the one line of FUNCTION that has it, replaced
# by PUT. "-" for FUNCTION: anywhere in the implementation. Fails with how often it was found.
change() {
    FUNCTION=$1 FIND=$2 PUT=$3 awk '
    BEGIN { name = ENVIRON["FUNCTION"]; find = ENVIRON["FIND"]; put = ENVIRON["PUT"] }
    /^#ifdef PYSOCK_IMPLEMENTATION/ { implementation = 1 }
    /^[^ \t#\/*}]/ && implementation && $0 !~ /;$/ {
        at = index($0, name "(")
        if (at && substr($0, at - 1, 1) ~ /[ *]/)
            inside = 1
    }
    {
        here = name == "-" ? implementation : inside
        at = here ? index($0, find) : 0
        if (at) {
            count++
            $0 = substr($0, 1, at - 1) put substr($0, at + length(find))
            if (index(substr($0, at + length(put)), find))
                count++
        }
        print
    }
    /^}/ { inside = 0 }
    END {
        if (count != 1) {
            print "found " count + 0 " times" >"/dev/stderr"
            exit 1
        }
    }' "$PYSOCK_DIR/pysock.h"
}

# compile_test PROGRAM ARGUMENT...: of a program in one of the folders of tests/.
compile_test() {
    source=$(echo tests/*/"$1.c")
    shift
    # shellcheck disable=SC2086
    $CC -std=gnu99 -O0 -g -w -Itests $CPPFLAGS "$source" "$@"
}

# compile DIR PROGRAM: DIR/PROGRAM with the header in DIR.
compile() {
    # shellcheck disable=SC2086
    case $2 in
    whitebox_*) compile_test "$2" "-I$1" -o "$1/$2" $LDFLAGS -lcmocka $LDLIBS -lm ;;
    *)
        $CC -std=gnu99 -O0 -g -w "-I$1" $CPPFLAGS -c tests/pysock_impl.c -o "$1/pysock_impl.o" &&
            $CC "$OUT/$2.o" "$1/pysock_impl.o" -o "$1/$2" $LDFLAGS -lcmocka $LDLIBS -lm
        ;;
    esac
}

# run DIR PROGRAM CASE LIMIT LOG
run() {
    # shellcheck disable=SC2086
    T_ONLY=$3 T_NO_STACKS=1 timeout -k 5 "$4" "$1/$2" >"$5" 2>&1 </dev/null
}

# --baseline TEST: without any change it passes; how long it takes is the measure for later.
baseline() {
    program=${1%% *} case=${1#"$program"} case=${case# }
    log="$OUT/$program.${case:-all}.log"
    begin=$(date +%s)
    if ! run "$OUT/pristine" "$program" "$case" $MOST "$log"; then
        tail -n 20 "$log" | sed 's/^/  | /'
        echo "FAILED without any change: $1"
        return 1
    fi
    if ! grep -q '^\[       OK \]' "$log"; then
        echo "FAILED: no such test: $1"
        return 1
    fi
    limit=$((10 * ($(date +%s) - begin)))
    [ "$limit" -ge $LEAST ] || limit=$LEAST
    echo "$limit" >"$OUT/$program.${case:-all}.limit"
}

# --one LINE: of the table. Writes a line, and one more into $OUT/failed where it went unnoticed.
one() {
    IFS=$separator read -r name function find put test <<EOF
$1
EOF
    program=${test%% *} case=${test#"$program"} case=${case# }
    dir="$OUT/$name"
    mkdir -p "$dir"
    if [ ! -f "$OUT/$program.${case:-all}.limit" ]; then
        said="FAILED its test fails without it"
    elif ! why=$(change "$function" "$find" "$put" 2>&1 >"$dir/pysock.h"); then
        said="FAILED its place is ${why:-not found}"
    elif ! compile "$dir" "$program" >"$dir/log" 2>&1; then
        said="FAILED it does not compile"
    else
        read -r limit <"$OUT/$program.${case:-all}.limit"
        run "$dir" "$program" "$case" "$limit" "$dir/log"
        case $? in
        0) said="FAILED nobody notices" ;;
        124 | 137) said="ok     no end in $limit s" ;;
        *) said="ok     noticed" ;;
        esac
    fi
    printf '%-6s %-42s %-40s %s\n' "${said%% *}" "$name" "$test" "${said#* }"
    case $said in
    FAILED*) echo "  $name: ${said#FAILED }" >>"$OUT/failed" ;;
    *) rm -rf "$dir" ;;
    esac
}

case ${1-} in
--one)
    one "$2"
    exit 0
    ;;
--baseline)
    baseline "$2" || echo "  $2: fails without any change" >>"$OUT/failed"
    exit 0
    ;;
esac

# each OPTION: runs this script once for every line of its input, JOBS at a time.
each() {
    tr '\n' '\0' | xargs -0 -n 1 -P "$JOBS" "$0" "$1"
}

mkdir -p "$OUT/pristine"
rm -f "$OUT/failed" "$OUT"/*.limit
read_table "$@" >"$OUT/list" || exit 2
cp "$PYSOCK_DIR/pysock.h" "$OUT/pristine/pysock.h"
for program in $(cut -d "$separator" -f 5 "$OUT/list" | cut -d ' ' -f 1 | sort -u); do
    case $program in
    test_*) compile_test "$program" "-I$PYSOCK_DIR" -c -o "$OUT/$program.o" || exit 2 ;;
    esac
    compile "$OUT/pristine" "$program" || exit 2
done
cut -d "$separator" -f 5 "$OUT/list" | sort -u | each --baseline
each --one <"$OUT/list"
total=$(wc -l <"$OUT/list")
bad=0
if [ -f "$OUT/failed" ]; then
    echo
    echo 'Failed:'
    cat "$OUT/failed"
    bad=$(wc -l <"$OUT/failed")
fi
echo "$total changes, $bad failed"
[ "$bad" -eq 0 ] && [ "$total" -gt 0 ]
