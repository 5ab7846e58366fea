#!/bin/sh
# Checks what no test sees, in build/check:
#
#   compile     the header in every configuration, standard and compiler; C++; what gets linked
#   symbols     the implementation defines nothing but pysock_ names
#   outline     the manual's table of contents against the sections; platform code in its place
#   text        columns, blanks and leftovers in all sources
#   format      clang-format, of whatever version is here, leaves all C as it is
#   examples    the compile line in each example, and the programs in README.md
#   install     make install and uninstall, and README.md's ways to build: pkg-config, CMake, Meson
#   smoke       the small examples, as they were compiled there, against each other
#   features    tools/python-names.md against the header and Python
#   certs       tests/certs belongs together; tools/mkcert.sh makes such certificates
#
#   tools/check.sh [CHECK...]    all of them if none is named
#
# CC, CPPFLAGS, LDFLAGS, LDLIBS, PYSOCK_DIR and JOBS come from make.
set -u
export LC_ALL=C

export CC="${CC:-cc}" CPPFLAGS="${CPPFLAGS-}" LDFLAGS="${LDFLAGS-}"
export LDLIBS="${LDLIBS:--lbearssl -lpthread}" PYSOCK_DIR="${PYSOCK_DIR:-.}" JOBS="${JOBS:-2}"
header=$PYSOCK_DIR/pysock.h
out=build/check
warnings='-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror'

# complain LOG: its beginning goes below the headline that was printed.
complain() {
    sed -n '1,40s/^/    /p' "$1"
    [ "$(wc -l <"$1")" -le 40 ] || echo "    ... (all of it is in $1)"
    return 1
}

# quietly LABEL COMMAND...: runs it; prints only if it fails.
quietly() {
    label=$1
    shift
    if ! "$@" >"$out/$label.log" 2>&1; then
        echo "  FAILED  $label: $*"
        complain "$out/$label.log"
    fi
}

# ---- compile ----

# flags_of CONFIGURATION
flags_of() {
    case $1 in
    no-ssl) echo -DPYSOCK_NO_SSL -Itests/compile/poison ;;
    no-threads) echo -DPYSOCK_NO_THREADS ;;
    no-epoll) echo -DPYSOCK_NO_EPOLL ;;
    no-ssl-no-threads) echo -DPYSOCK_NO_SSL -DPYSOCK_NO_THREADS -Itests/compile/poison ;;
    idn2) echo -DPYSOCK_IDN2 ;;
    esac
}

sources_of() {
    case $1 in
    static) echo static_main static_other ;;
    late) echo late ;;
    idn2) echo idn ;;
    *) echo user implementation ;;
    esac
}

libraries_of() {
    case $1 in
    no-ssl) echo -lpthread ;;
    no-ssl-no-threads) ;;
    idn2) echo "$LDLIBS" -lidn2 ;;
    *) echo "$LDLIBS" ;;
    esac
}

# Symbols that the implementation must not want in this configuration.
unwanted_by() {
    case $1 in
    no-ssl) echo '^_?br_' ;;
    no-threads) echo '^_?pthread_create' ;;
    no-epoll) echo '^_?epoll_' ;;
    no-ssl-no-threads) echo '^_?(br_|pthread_create)' ;;
    *) echo '^$' ;;
    esac
}

check_wants() {
    nm -gP "$1" | awk -v unwanted="$2" '
        $2 == "U" && $1 ~ unwanted { print "needs " $1; bad = 1 }
        END { exit bad }'
}

# compile_one COMPILER STANDARD CONFIGURATION: compiles, links and runs.
compile_one() {
    name=$1-${2#-std=}-$3
    mkdir -p "$out/$name"
    standard=$2
    [ "$2" != -std=c99 ] || standard='-std=c99 -D_GNU_SOURCE'
    optimize=-O0
    [ "$3" != default ] || optimize=-O2 # some warnings need the optimizer's eyes
    objects=
    for source in $(sources_of "$3"); do
        # shellcheck disable=SC2046,SC2086
        quietly "$name/$source" "$1" $standard $optimize $warnings $(flags_of "$3") \
            "-I$PYSOCK_DIR" $CPPFLAGS -c "tests/compile/$source.c" -o "$out/$name/$source.o" ||
            return 1
        objects="$objects $out/$name/$source.o"
    done
    # shellcheck disable=SC2046,SC2086
    quietly "$name/link" "$1" $objects -o "$out/$name/program" $LDFLAGS $(libraries_of "$3") &&
        quietly "$name/run" "$out/$name/program" || return 1
    case $3 in
    no-*) quietly "$name/wants" check_wants "$out/$name/implementation.o" "$(unwanted_by "$3")" ;;
    esac
}

# compile_cpp COMPILER: C++ in front, C behind.
compile_cpp() {
    name=$1-c++11
    mkdir -p "$out/$name"
    # shellcheck disable=SC2086
    quietly "$name/implementation" "$CC" -O0 "-I$PYSOCK_DIR" $CPPFLAGS \
        -c tests/compile/implementation.c -o "$out/$name/implementation.o" &&
        quietly "$name/user" "$1" -std=c++11 -Wall -Wextra -Wpedantic -Werror "-I$PYSOCK_DIR" \
            $CPPFLAGS -c tests/compile/user.cpp -o "$out/$name/user.o" &&
        quietly "$name/link" "$1" "$out/$name/user.o" "$out/$name/implementation.o" \
            -o "$out/$name/program" $LDFLAGS $LDLIBS &&
        quietly "$name/run" "$out/$name/program"
}

# compile_mixups COMPILER: enum types of parameters are what makes it see them.
compile_mixups() {
    for mixup in 0 1 2 3 4; do
        # shellcheck disable=SC2086
        "$1" -std=c99 -Wenum-conversion -Werror "-I$PYSOCK_DIR" $CPPFLAGS -DMIXUP=$mixup \
            -fsyntax-only tests/compile/mixups.c >"$out/$1-mixups.log" 2>&1
        status=$?
        [ $((status != 0)) -eq $((mixup != 0)) ] && continue
        echo "  FAILED  tests/compile/mixups.c by $1, MIXUP $mixup: status $status"
        complain "$out/$1-mixups.log"
        return 1
    done
}

list_compilations() {
    for compiler in gcc clang; do
        command -v $compiler >/dev/null || continue
        echo compile_mixups $compiler
        for standard in -std=c99 -std=c11 -std=gnu17; do
            for configuration in default static no-ssl no-threads no-epoll no-ssl-no-threads; do
                echo compile_one $compiler $standard $configuration
            done
        done
        echo compile_one $compiler -std=gnu17 late
        # shellcheck disable=SC2086
        ! echo '#include <idn2.h>' | $compiler $CPPFLAGS -E - >/dev/null 2>&1 ||
            echo compile_one $compiler -std=c99 idn2
    done
    for compiler in g++ clang++; do
        ! command -v $compiler >/dev/null || echo compile_cpp $compiler
    done
}

check_compile() {
    list_compilations >"$out/compilations"
    [ -s "$out/compilations" ] || { echo '  neither gcc nor clang is here'; return 1; }
    xargs -P "$JOBS" -L 1 tools/check.sh --run <"$out/compilations" || return 1
    echo "  $(wc -l <"$out/compilations") compiled, linked and ran"
}

# ---- symbols ----

check_symbols() {
    # shellcheck disable=SC2086
    quietly symbols "$CC" -O0 "-I$PYSOCK_DIR" $CPPFLAGS -c tests/compile/implementation.c \
        -o "$out/symbols.o" || return 1
    nm -gP "$out/symbols.o" | awk '
        $2 ~ /^[Uwv]$/ { next }
        $1 ~ /^_?pysock_[^_]/ { good++; next }
        { print "  FAILED  " $1 " is external"; bad = 1 }
        END {
            if (!good) { print "  FAILED  no pysock_ symbol is defined"; exit 1 }
            if (!bad) print "  " good " external symbols, all of them pysock_"
            exit bad
        }' || return 1
    # Without TLS the same calls are there.
    # shellcheck disable=SC2086
    quietly symbols-no-ssl "$CC" -O0 "-I$PYSOCK_DIR" $CPPFLAGS -DPYSOCK_NO_SSL \
        -c tests/compile/implementation.c -o "$out/symbols-no-ssl.o" || return 1
    for object in symbols symbols-no-ssl; do
        nm -gP "$out/$object.o" | awk '$2 == "T" { print $1 }' | sort >"$out/$object.list"
    done
    if ! diff "$out/symbols.list" "$out/symbols-no-ssl.list"; then
        echo '  FAILED  PYSOCK_NO_SSL has not the same functions'
        return 1
    fi
}

# ---- outline ----

table_of_contents() {
    awk '
    !inside && /Table of contents/ { inside = 1; next }
    inside == 1 && /^[ *]*$/ { if (seen) exit; next }
    inside == 1 && /^[ *]*>>[^ ]+ +[^ ]/ { sub(/^[ *]*>>/, ""); print $1; seen = 1 }
    ' "$header"
}

sections() {
    awk '/^\/\* ---- >>[^ ]+ ----/ { print substr($3, 3) }' "$header"
}

check_contents() {
    table_of_contents >"$out/contents"
    sections >"$out/sections"
    if [ ! -s "$out/sections" ]; then
        echo '  FAILED  no section (a line "/* ---- >>name ----")'
        return 1
    fi
    diff "$out/contents" "$out/sections" >"$out/contents.diff" && return 0
    echo '  FAILED  the table of contents (<) and the sections (>) differ'
    complain "$out/contents.diff"
}

systems='__linux|__APPLE__|__MACH__|_WIN32|_WIN64|_MSC_VER|__CYGWIN__|__ANDROID__|__unix'
systems="$systems|__GLIBC__|BSD__|__DragonFly__|__sun|_AIX"

# Below the platform's two sections nothing includes a system header or asks which system this is.
check_platform() {
    awk -v systems="$systems" '
    /^\/\* ---- >>(platform|system-calls) ----/ { platform = NR; next }
    /^\/\* ---- >>/ && platform { below = 1 }
    !below { next }
    /^[ ]*#[ ]*include/ && !/[<"]bearssl\.h[>"]/ { tell("includes a system header") }
    /^[ ]*#[ ]*(if|ifdef|ifndef|elif)/ && $0 ~ systems { tell("asks for the system") }
    function tell(what) { printf "  FAILED  %s:%d %s: %s\n", FILENAME, NR, what, $0; bad = 1 }
    END {
        if (!platform) { print "  FAILED  there is no section platform"; exit 1 }
        exit bad
    }' "$header"
}

# BearSSL's engine is driven in these sections, and prepared in contexts; all others go through
# what tls and tls-records offer.
check_seam() {
    awk '
    /^\/\* ---- >>/ { section = substr($3, 3); next }
    section ~ /^(contexts|tls-keys|tls|tls-records)$/ || section == "" { next }
    /br_ssl_|->eng([^a-z_]|$)/ {
        printf "  FAILED  %s:%d names the engine: %s\n", FILENAME, NR, $0
        bad = 1
    }
    END { exit bad }' "$header"
}

# What may be defined before the #include is in the manual's table of macros.
check_configuration() {
    awk '
    /^   Configuration$/ { table = 1 }
    /^   Errors$/ { table = 0 }
    table { known = known " " $0 }
    /^#[ ]*ifn?def PYSOCK_*[A-Z]/ && $2 !~ /^PYSOCK__/ { asked[$2] }
    /^#[ ]*(el)?if.*defined\(PYSOCK_[A-Z]/ {
        rest = $0
        while (match(rest, /defined\(PYSOCK_[A-Z][A-Z0-9_]*/)) {
            asked[substr(rest, RSTART + 8, RLENGTH - 8)]
            rest = substr(rest, RSTART + RLENGTH)
        }
    }
    END {
        for (name in asked)
            if (name != "PYSOCK_H" && known !~ "[ ]" name "[ (]") {
                print "  FAILED  " name " is not in the manual under Configuration"
                bad = 1
            }
        exit bad
    }' "$header"
}

check_outline() {
    check_contents
    contents=$?
    check_seam || contents=1
    check_configuration || contents=1
    check_platform && [ $contents -eq 0 ] && echo "  $(wc -l <"$out/sections") sections"
}

# ---- text ----

list_sources() {
    echo "$header"
    find tests examples tools .ci -type f \( -name '*.[ch]' -o -name '*.cpp' -o -name '*.sh' \
        -o -name '*.py' -o -name run \) 2>/dev/null | sort
}

# Columns are counted in characters: the second and later bytes of one in UTF-8 do not count.
check_text() {
    list_sources >"$out/sources"
    # shellcheck disable=SC2016
    xargs awk -v leftovers='(^|[^A-Za-z0-9_])(FIX''ME|TO''DO|X''XX)([^A-Za-z0-9_]|$)' '
    function tell(what) { printf "  FAILED  %s:%d %s\n", FILENAME, FNR, what; bad = 1 }
    /\t/ { tell("tab") }
    /[ \r]$/ { tell("blank at the end") }
    $0 ~ leftovers { tell("leftover: " $0) }
    { gsub(/[\200-\277]/, ""); if (length($0) > 100) tell(length($0) " columns") }
    END { exit bad }' <"$out/sources" && echo "  $(wc -l <"$out/sources") files"
}

# ---- format ----

list_formatted() {
    echo "$header"
    find tests examples tools -type f -name '*.[ch]' | sort
}

# compare_format FILE: with what the .clang-format beside it, or the next one above, makes of it.
compare_format() {
    log=$out/format/$(echo "$1" | tr / -)
    if ! clang-format --fallback-style=none "$1" >"$log" 2>"$log.err"; then
        what="  FAILED  clang-format $1" how=$(sed -n '1,4s/^/    /p' "$log.err")
    elif ! diff "$1" "$log" >"$log.diff"; then
        what="  FAILED  $1: $(grep -c '^[<>]' "$log.diff") lines"
        how=$(sed -n '1,8s/^/    /p' "$log.diff")
    else
        return 0
    fi
    printf '%s\n%s\n' "$what" "$how" # at once: others run beside it
    return 1
}

check_format() {
    version=$(clang-format --version) || { echo '  FAILED  no clang-format is here'; return 1; }
    mkdir -p "$out/format"
    list_formatted >"$out/formatted"
    if ! xargs -P "$JOBS" -n 1 tools/check.sh --run compare_format <"$out/formatted" \
        >"$out/format.log" 2>&1; then
        echo "  FAILED  \`make format\` mends $(grep -c '^  FAILED' "$out/format.log") files" \
            "($version)"
        complain "$out/format.log"
        return 1
    fi
    echo "  $(wc -l <"$out/formatted") files ($version)"
}

# ---- examples ----

# The `cc` line of an example: in its first comment, perhaps continued with a backslash.
compile_line() {
    awk '
    /\*\// { last = 1 }
    { sub(/\*\/.*$/, ""); sub(/^[ *\/]+/, "") }
    more || /^(\$ )?cc / { sub(/^\$ /, ""); more = sub(/ *\\$/, ""); printf "%s ", $0; found = 1 }
    (found && !more) || last { exit }
    ' "$1"
}

# compile_example FILE: runs its line as it stands, from the top of the project; only the program
# goes to build/.
compile_example() {
    name=$(basename "$1" .c)
    line=$(compile_line "$1")
    if [ -z "$line" ]; then
        echo "  FAILED  $1: its first comment has no line that begins with cc"
        return 1
    fi
    program=$PWD/$out/examples/$name
    case " $line" in
    *" -o "*) line=$(echo "$line" | sed "s| -o *[^ ]*| -o '$program'|") ;;
    *) line="$line -o '$program'" ;;
    esac
    line="$line $CPPFLAGS $LDFLAGS"
    if ! sh -c "$line" >"$out/examples/$name.log" 2>&1 ||
        [ -s "$out/examples/$name.log" ] || [ ! -x "$program" ]; then
        echo "  FAILED  $1: its compile line must work without a word: $line"
        complain "$out/examples/$name.log"
    fi
}

# Every block of C in README.md that has a main is a complete program.
check_readme() {
    [ -f README.md ] || return 0
    rm -f "$out"/examples/readme-*.c
    awk -v prefix="$out/examples/readme-" '
    /^```c$/ { inside = 1; text = ""; next }
    /^```$/ && inside {
        if (text ~ /int main\(/) { n++; file = prefix n ".c"; printf "%s", text >file }
        inside = 0
    }
    inside { text = text $0 "\n" }' README.md
    for source in "$out"/examples/readme-*.c; do
        [ -f "$source" ] || continue
        # shellcheck disable=SC2086
        quietly "examples/$(basename "$source" .c)" "$CC" $warnings "-I$PYSOCK_DIR" $CPPFLAGS \
            "$source" -o "${source%.c}" $LDFLAGS $LDLIBS || return 1
    done
}

# So is every usage example at the head of a public block of the header, in a function of its own.
check_usage() {
    awk '
    BEGIN {
        print "#include \"pysock.h\"\n#include <stdio.h>\nvoid serve(pysock *s);"
        parameters = "(pysock *s, pysock *peer, pysock *listener, pysock_ssl_context *tls)"
    }
    /^#ifdef PYSOCK_IMPLEMENTATION/ { exit }
    /^   Usage/ { inside = 1; begun = 0; next }
    inside && /^       / {
        if (!begun) {
            n++
            begun = 1
            print "void usage_" n parameters ";\nvoid usage_" n parameters "\n{"
            print "    (void)s, (void)peer, (void)listener, (void)tls;\n    {"
        }
        print
        next
    }
    inside && begun { print "    }\n}"; inside = 0 }
    ' "$header" >"$out/examples/usage.c"
    # shellcheck disable=SC2086
    quietly examples/usage "$CC" -std=c99 $warnings -Wno-shadow "-I$PYSOCK_DIR" $CPPFLAGS -c \
        "$out/examples/usage.c" -o "$out/examples/usage.o" || return 1
    grep -c '^void usage_.*;' "$out/examples/usage.c" >"$out/examples/usage.count"
    [ "$(cat "$out/examples/usage.count")" -ge 14 ] || {
        echo '  FAILED  fewer than 14 usage examples in the header'
        return 1
    }
}

# An example shows one idea; what is longer is a program, and stands in examples/apps/.
check_lengths() {
    awk 'FNR == 151 { print "  FAILED  " FILENAME " has more than 150 lines"; bad = 1 }
        END { exit bad }' examples/*.c
}

check_examples() {
    mkdir -p "$out/examples"
    check_lengths || return 1
    for source in examples/*.c examples/apps/*.c tools/*.c; do
        echo "compile_example $source"
    done >"$out/examples/list"
    echo check_readme >>"$out/examples/list"
    check_usage || return 1
    xargs -P "$JOBS" -L 1 tools/check.sh --run <"$out/examples/list" || return 1
    echo "  $(($(wc -l <"$out/examples/list") - 1)) compile lines, the programs in README.md, and" \
        "$(cat "$out/examples/usage.count") usage examples of the header"
}

# ---- install ----

# readme_block LANGUAGE: the one block of README.md that is marked as such.
readme_block() {
    awk -v mark="\`\`\`$1" '
    $0 == mark { blocks++; inside = 1; next }
    /^```$/ { inside = 0 }
    inside { print }
    END { exit blocks != 1 }' README.md && return 0
    echo "  FAILED  README.md must have one block that begins with \`\`\`$1" >&2
    return 1
}

# make_install TARGET DESTDIR PREFIX LIBDIR
make_install() {
    quietly "install/$1" env MAKEFLAGS= "${MAKE:-make}" --no-print-directory "$1" "DESTDIR=$2" \
        "PREFIX=$3" "LIBDIR=$4" "PYSOCK_DIR=$PYSOCK_DIR"
}

# check_gone DIR: uninstall has left no file there.
check_gone() {
    [ -n "$(find "$1" -type f)" ] || return 0
    echo "  FAILED  make uninstall leaves $(find "$1" -type f)"
    return 1
}

# A package is made in another folder than the one that it names.
check_staged() {
    stage=$out/install/stage
    make_install install "$stage" /opt/py /opt/py/lib64 || return 1
    if ! cmp -s "$header" "$stage/opt/py/include/pysock.h" ||
        ! grep -qx 'prefix=/opt/py' "$stage/opt/py/lib64/pkgconfig/pysock.pc"; then
        echo '  FAILED  make install DESTDIR=... PREFIX=/opt/py LIBDIR=/opt/py/lib64'
        return 1
    fi
    make_install uninstall "$stage" /opt/py /opt/py/lib64 && check_gone "$stage"
}

# start_project NAME: its folder, with the get.c that README.md's snippets build.
start_project() {
    mkdir -p "$out/install/$1/third_party"
    cat >"$out/install/$1/get.c" <<'EOF'
#define PYSOCK_IMPLEMENTATION
#include "pysock.h"

int main(void)
{
    pysock_ssl_context *tls = pysock_ssl_server_context();
    int failed = !tls || puts(pysock_version()) < 0;
    pysock_ssl_context_release(tls);
    return failed;
}
EOF
}

# check_prints PROJECT PROGRAM: it runs, and prints the header's version.
check_prints() {
    quietly "install/$1-run" "$2" || return 1
    [ "$(cat "$out/install/$1-run.log")" = "$version" ] && return 0
    echo "  FAILED  the program built with $1 does not print $version"
    return 1
}

check_pkg_config() {
    start_project pkg-config
    quietly install/flags pkg-config --cflags --libs pysock || return 1
    # shellcheck disable=SC2046,SC2086
    quietly install/pkg-config "$CC" $CPPFLAGS "$out/install/pkg-config/get.c" \
        -o "$out/install/pkg-config/get" $LDFLAGS $(cat "$out/install/flags.log") &&
        check_prints pkg-config "$out/install/pkg-config/get" || return 1
    [ "$(pkg-config --modversion pysock)" = "$version" ] && return 0
    echo "  FAILED  the version in pysock.pc is not $version"
    return 1
}

check_cmake() {
    project=$out/install/cmake
    start_project cmake
    cp "$header" "$project/third_party/"
    readme_block cmake >"$project/CMakeLists.txt" &&
        quietly install/cmake-configure env "CFLAGS=$CPPFLAGS" cmake -S "$project" \
            -B "$project/build" &&
        quietly install/cmake-build cmake --build "$project/build" &&
        check_prints cmake "$project/build/get"
}

# check_meson NAME: whether it takes the copy or what is installed is up to the environment.
check_meson() {
    project=$out/install/$1
    start_project "$1"
    [ "$1" != meson-copy ] || cp "$header" "$project/third_party/"
    readme_block meson >"$project/meson.build" &&
        quietly "install/$1-setup" meson setup "$project" "$project/build" &&
        quietly "install/$1-build" meson compile -C "$project/build" &&
        check_prints "$1" "$project/build/get"
}

check_install() {
    for tool in pkg-config cmake meson ninja; do
        command -v $tool >/dev/null && continue
        echo "  FAILED  $tool is not installed: tools/setup.sh check installs it"
        return 1
    done
    rm -rf "$out/install"
    mkdir -p "$out/install"
    version=$(sed -n 's/^#define PYSOCK_VERSION "\(.*\)"$/\1/p' "$header")
    prefix=$PWD/$out/install/prefix
    check_staged && check_cmake || return 1
    (export PKG_CONFIG_LIBDIR=/nonexistent && check_meson meson-copy) || return 1
    make_install install '' "$prefix" "$prefix/lib" || return 1
    (
        export PKG_CONFIG_PATH="$prefix/lib/pkgconfig"
        check_pkg_config && check_meson meson-installed
    ) || return 1
    make_install uninstall '' "$prefix" "$prefix/lib" && check_gone "$prefix" &&
        echo '  installed and uninstalled; programs by pkg-config, CMake and Meson'
}

# ---- smoke ----

# serve NAME ARGUMENT...: an example in the background, until the check ends.
serve() {
    name=$1
    shift
    "$out/examples/$name" "$@" >"$out/smoke-$name.log" 2>&1 &
    servers="$servers $!"
}

# expect TEXT NAME ARGUMENT...: an example must print TEXT and end well, soon: its server may not
# listen yet. On its stdin is "hello".
expect() {
    text=$1
    name=$2
    shift 2
    tries=50
    while ! echo hello | "$out/examples/$name" "$@" >"$out/smoke.log" 2>&1 ||
        ! grep -q "$text" "$out/smoke.log"; do
        tries=$((tries - 1))
        if [ $tries -eq 0 ]; then
            echo "  FAILED  $name $* does not print '$text'"
            complain "$out/smoke.log"
            return 1
        fi
        sleep 0.1
    done
    smoked=$((smoked + 1))
}

# tests/peers/smtp.py tells its port when it listens.
serve_smtp() {
    python3 tests/peers/smtp.py --cert "$cert.pem" --key "$cert.key" >"$out/smoke-smtp.log" 2>&1 &
    servers="$servers $!"
    tries=50
    until smtp_port=$(sed -n 's/.*listening on .*:\([0-9]*\)$/\1/p' "$out/smoke-smtp.log") &&
        [ -n "$smtp_port" ]; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || { complain "$out/smoke-smtp.log"; return 1; }
        sleep 0.1
    done
}

smoke() {
    serve echo_poller "$port" "$cert.pem" "$cert.key"
    serve echo_threads $((port + 1)) "$cert.pem" "$cert.key"
    serve sni $((port + 2)) other.test tests/certs/wrong-host.pem tests/certs/wrong-host.key \
        localhost "$cert.pem" "$cert.key"
    serve mutual server $((port + 3)) "$cert.pem" "$cert.key" "$ca"
    serve udp_retry server $((port + 4))
    expect '^hello$' stdin_select localhost "$port" "$ca" &&
        expect '^hello$' stdin_select localhost $((port + 1)) "$ca" &&
        expect '^This is localhost' tls_client localhost $((port + 2)) "$ca" &&
        expect '^TLSv1.2' nonblocking_handshake localhost $((port + 2)) "$ca" &&
        expect '^Good day, client!' mutual client $((port + 3)) tests/certs/client.pem \
            tests/certs/client.key "$ca" &&
        expect 'echoed after' udp_retry client localhost $((port + 4)) hello &&
        expect 'the child served' unix_fds || return 1
    command -v python3 >/dev/null || { echo '  starttls is skipped: no python3 here'; return 0; }
    serve_smtp && expect '8BITMIME' starttls localhost "$smtp_port" "$ca"
}

check_smoke() {
    [ -x "$out/examples/unix_fds" ] || check_examples || return 1
    ca=tests/certs/ca.pem cert=tests/certs/server-ec port=$((20000 + $$ % 12000))
    servers='' smoked=0
    trap 'kill $servers 2>/dev/null; exit 1' HUP INT TERM
    smoke
    result=$?
    trap - HUP INT TERM
    # shellcheck disable=SC2086
    kill $servers 2>/dev/null
    [ $result -eq 0 ] && echo "  $smoked runs of the small examples"
}

# ---- features ----

check_features() {
    quietly features tools/features.sh --check || return 1
    if python3 -c 'import ssl' 2>/dev/null; then
        quietly features-python tools/features.sh --python || return 1
        sed 's/^features:/ /' "$out/features-python.log"
    fi
    awk -F '|' '
    /^\| `[a-z]+`: / { works += $3; differ += $4; missing += $5 }
    END { print "  Python has " works " that work, " differ " that differ, " missing " missing" }
    ' tools/python-names.md
}

# ---- certs ----

same_key() {
    [ "$(openssl x509 -in "$1" -noout -pubkey)" = "$(openssl pkey -in "$2" -pubout)" ]
}

# check_certificates DIR
check_certificates() {
    for key in "$1"/*.key; do
        quietly "key-$(basename "$key")" same_key "${key%.key}.pem" "$key" || return 1
    done
    for name in server-ec server-rsa chain-ec wrong-host cn-only cn-ignored client; do
        quietly "verify-$name" openssl verify -CAfile "$1/ca.pem" -untrusted "$1/$name.pem" \
            "$1/$name.pem" || return 1
    done
    for name in expired not-yet-valid self-signed untrusted; do
        if openssl verify -CAfile "$1/ca.pem" "$1/$name.pem" >/dev/null 2>&1; then
            echo "  FAILED  $1/$name.pem is valid"
            return 1
        fi
    done
    [ -f "$1/README.txt" ]
}

check_certs() {
    command -v openssl >/dev/null || { echo '  skipped: no openssl command here'; return 0; }
    rm -rf "$out/certs" "$out/dev.pem"
    check_certificates tests/certs &&
        quietly mkcert tools/mkcert.sh "$out/certs" && check_certificates "$out/certs" &&
        quietly self-signed tools/mkcert.sh --self-signed "$out/dev.pem" game.test 127.0.0.1 &&
        quietly self-signed-key same_key "$out/dev.pem" "$out/dev.pem" &&
        quietly self-signed-verify openssl verify -CAfile "$out/dev.pem" \
            -verify_hostname game.test "$out/dev.pem" && echo '  tests/certs and tools/mkcert.sh'
}

# ---- which ----

if [ "${1-}" = --run ]; then
    shift
    "$@"
    exit
fi
cd "$(dirname "$0")/.." || exit 1
mkdir -p $out
[ $# -gt 0 ] || set -- compile symbols outline text format examples install smoke features certs
failed=
for check; do
    case $check in
    compile | symbols | outline | text | format | examples | install | smoke | features | certs) ;;
    *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "$0" && exit 2 ;;
    esac
    echo "check $check"
    "check_$check" || failed="$failed $check"
done
if [ -n "$failed" ]; then
    echo "check failed:$failed"
    exit 1
fi
echo 'check: all is well'
