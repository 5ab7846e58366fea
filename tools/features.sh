#!/bin/sh
# Writes the table of README.md's section "Every name of Python's socket".
#
#   tools/features.sh                   prints it
#   tools/features.sh --check README    compares it with what stands in README between the lines
#                                       <!-- features: begin --> and <!-- features: end -->
#   tools/features.sh --update README   puts it there
#
# tools/features.txt says what stands for each of Python's names. Whether it is there is found out:
# a function of pysock.h must be declared and link with the implementation; a macro, a function of
# the system's and a constant must compile. A public name of the header's socket half that
# features.txt does not mention is an error, and so is a name that it has twice.
#
# The constants are the system's, so --check compares them on Linux with a glibc that is not older
# than the one that the table was made with; elsewhere it compares the functions. A system header
# that is not installed cannot be asked: what features.txt says of it is believed.
#
# CC, CPPFLAGS, LDFLAGS and PYSOCK_DIR come from make. It needs neither BearSSL nor Python.
set -u
export LC_ALL=C

CC=${CC:-cc} CPPFLAGS=${CPPFLAGS-} LDFLAGS=${LDFLAGS-} PYSOCK_DIR=${PYSOCK_DIR:-.}
tools=$(dirname "$0")
data=$tools/features.txt
header=$PYSOCK_DIR/pysock.h
oldest_glibc=2036 # 1000 * major + minor
begin='<!-- features: begin -->' end='<!-- features: end -->'

work=$(mktemp -d "${TMPDIR:-/tmp}/pysock-features.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

die() {
    echo "features: $*" >&2
    exit 1
}

# ---- what the header has ----

# A line "BLOCK NAME" for each public function and macro, and "include FILE" for each #include.
list_header() {
    awk '
    /^#ifdef PYSOCK_IMPLEMENTATION/ { exit }
    /^\/\* ==== public: / { block = $4; sub(/,$/, "", block) }
    /^#include </ { gsub(/[<>]/, "", $2); print "include", $2 }
    block == "" { next }
    /^#define PYSOCK_/ { sub(/\(.*/, "", $2); print block, $2 }
    /^PYSOCKDEF / && match($0, /pysock_[a-z0-9_]+\(/) {
        print block, substr($0, RSTART, RLENGTH - 1)
    }' "$header"
}

# ---- what features.txt has ----

# Writes into $work: errors, functions and macros (of pysock.h), system ("HEADER FUNCTION"),
# constants ("NUMBER GNU HEADER...", and in constants.NUMBER lines "EXPRESSION NAME").
read_data() {
    awk -F '[ \t]*[|][ \t]*' -v work="$work/" '
    function tell(what) { print FILENAME ":" FNR ": " what >(work "errors") }
    function once(name) {
        if ((section, name) in seen) tell(name " is here twice")
        seen[section, name] = 1
    }
    function mention(text,    n, i, word, file) {
        n = split(text, word, /[ ,]+/)
        for (i = 1; i <= n; i++) {
            file = "-"
            if (i < n && word[i + 1] ~ /^</) file = substr(word[i + 1], 2, length(word[i + 1]) - 2)
            if (word[i] ~ /^pysock_/) print word[i] >(work "functions")
            else if (word[i] ~ /^PYSOCK_/) print word[i] >(work "macros")
            else if (word[i] !~ /^</ && word[i] != "") print file, word[i] >(work "system")
        }
    }
    function own(text,    n, i, word) { # the first name that the header does not have
        n = split(text, word, /[ ,]+/)
        for (i = 1; i <= n; i++) if (!(word[i] in have)) return word[i]
        return ""
    }
    FILENAME ~ /header$/ { split($0, word, " "); have[word[2]] = 1; next }
    /^#/ || /^$/ { next }
    /^= / { section = substr($0, 3); next }
    section == "own" {
        once($1)
        mention($1)
        if (NF != 2) tell("two columns, please")
        if (own($1)) tell(own($1) " is not in the header")
        next
    }
    section != "constants" {
        once($1)
        if (NF < 2 || NF > 3 || $1 == "" || $2 == "") tell("two or three columns, please")
        if ($2 != "language" && $2 != "windows") mention($2)
        else if ($2 == "language" && $3 == "") tell("why is there nothing for " $1 "?")
        next
    }
    {
        if (NF != 3) { tell("three columns, please"); next }
        if (!($2 in probe)) {
            probe[$2] = ++probes
            gnu = $2 ~ / GNU$/; file = $2; sub(/ GNU$/, "", file)
            print probes, gnu, file >(work "constants")
        }
        n = split($3, word, " ")
        for (i = 1; i <= n; i++) {
            expression = word[i]
            sub(/=.*/, "", word[i]); sub(/^[^=]*=/, "", expression)
            once(word[i])
            print expression, word[i] >(work "constants." probe[$2])
        }
    }' "$work/header" "$data"
}

check_mentions() {
    awk -v header="$header" '
    FILENAME ~ /(functions|macros)$/ { mentioned[$1] = 1; next }
    $1 ~ /^(include|configuration|errors|lifecycle|buffers|select|ssl)$/ { next }
    !($2 in mentioned) { print header ": " $2 " stands in no line of tools/features.txt" }
    ' "$work/functions" "$work/macros" "$work/header" >>"$work/errors"
}

# ---- looking ----

compiles() {
    # shellcheck disable=SC2086
    $CC -O0 -Werror=implicit-function-declaration "-I$PYSOCK_DIR" $CPPFLAGS -c "$work/probe.c" \
        -o "$work/probe.o" >"$work/log" 2>&1
}

links() {
    # shellcheck disable=SC2086
    compiles && $CC "$work/probe.o" "$work/pysock.o" -o "$work/probe" $LDFLAGS -lpthread \
        >"$work/log" 2>&1
}

# These compile a program that wants what the first words of the lines of $1 say.
want_functions() {
    {
        cat "$work/includes"
        echo 'typedef void (*any)(void); extern any all[]; any all[] = {'
        awk '{ print "(any)(" $1 ")," }' "$1"
        echo '0}; int main(void) { return !all[0]; }'
    } >"$work/probe.c"
    links
}

want_values() {
    {
        cat "$work/includes"
        echo 'int main(void) {'
        awk '{ print "(void)(" $1 ");" }' "$1"
        echo 'return 0; }'
    } >"$work/probe.c"
    compiles
}

# find_good WANT LIST FOUND: appends to FOUND those lines of LIST that WANT gets; halves the list
# until what is missing has been found.
find_good() {
    [ -s "$2" ] || return 0
    if "$1" "$2"; then
        cat "$2" >>"$3"
    elif [ "$(wc -l <"$2")" -gt 1 ]; then
        head -n $(($(wc -l <"$2") / 2)) "$2" >"$2.a"
        tail -n +$(($(wc -l <"$2") / 2 + 1)) "$2" >"$2.b"
        find_good "$1" "$2.a" "$3"
        find_good "$1" "$2.b" "$3"
    fi
}

# include GNU FILE...: what the programs begin with.
include() {
    {
        [ "$1" != 1 ] || echo '#define _GNU_SOURCE 1'
        echo '#include "pysock.h"'
        shift
        for file; do
            case $file in
            - | other | number) ;;
            *) echo "#include <$file>" ;;
            esac
        done
    } >"$work/includes"
}

# Drops what the preprocessor does not know: Python asks for such names by #ifdef, too.
only_defined() {
    {
        cat "$work/includes"
        awk '{ print "#ifdef " $1 "\n\"here is " $2 " \"\n#endif" }' "$1"
    } >"$work/probe.c"
    # shellcheck disable=SC2086
    $CC -E "-I$PYSOCK_DIR" $CPPFLAGS "$work/probe.c" 2>/dev/null |
        awk '$1 == "\"here" { print $3, $3 }' >"$1.defined"
    mv "$1.defined" "$1"
}

look_for_functions() {
    include 0
    awk '
    FILENAME ~ /header$/ { have[$2] = 1; next }
    ($1 in have) && !done[$1]++' "$work/header" "$work/functions" >"$work/declared"
    printf '#define %s 1\n' PYSOCK_IMPLEMENTATION PYSOCK_NO_SSL | cat - "$work/includes" \
        >"$work/probe.c"
    compiles || { cat "$work/log" >&2; die "$header does not compile"; }
    mv "$work/probe.o" "$work/pysock.o"
    : >"$work/good"
    find_good want_functions "$work/declared" "$work/good"
    awk '
    FILENAME ~ /good$/ { good[$1] = 1; next }
    !($1 in good) { names = names " " $1 }
    END { if (names != "") print "features: declared, and not in the implementation:" names }' \
        "$work/good" "$work/declared" >&2
    find_good want_values "$work/macros" "$work/good"
    while read -r file name; do
        include 0 "$file"
        echo "$name" >"$work/one"
        find_good want_functions "$work/one" "$work/good"
    done <"$work/system"
}

look_for_constants() {
    : >"$work/found"
    while read -r number gnu files; do
        # shellcheck disable=SC2086
        include "$gnu" $files
        list=$work/constants.$number
        case $files in
        number) cat "$list" >>"$work/found"; continue ;;
        other) only_defined "$list" ;;
        esac
        : >"$work/none"
        if want_values "$work/none"; then
            find_good want_values "$list" "$work/found"
        else
            echo "features: <$files> is not installed, and is believed to have its names" >&2
            cat "$list" >>"$work/found"
        fi
    done <"$work/constants"
}

# ---- the table ----

write_table() {
    awk -F '[ \t]*[|][ \t]*' '
    function heading(text) {
        print ""
        print "**" text "**"
        print ""
    }
    function mark(names,    n, i, word, out) { # Python names, each in its own backquotes
        if (names ~ /`/ || names ~ /^for /) return names
        n = split(names, word, /, */)
        for (i = 1; i <= n; i++) out = out (i > 1 ? ", " : "") "`" word[i] "`"
        return out
    }
    function state_of(names,    n, i, word) {
        n = split(names, word, /[ ,]+/)
        for (i = 1; i <= n; i++)
            if (word[i] !~ /^</ && !(word[i] in good)) return "not yet"
        return "works"
    }
    function here(names) {
        gsub(/ *<[^>]*>/, "", names)
        return mark(names)
    }
    function row(    state, text) {
        if ($2 == "language") { state = "Python'"'"'s own"; text = $3 }
        else if ($2 == "windows") {
            state = "not on this platform"
            text = "Windows alone" ($3 == "" ? "" : ": " $3)
        } else { state = state_of($2); text = here($2) ($3 == "" ? "" : " (" $3 ")") }
        count[section, state]++
        lines[section] = lines[section] "| " mark($1) " | " text " | " state " |\n"
    }
    function constant(    i, n, word, name) {
        if (!($1 in rows)) { rows[$1] = 1; order[++groups] = $1 }
        n = split($3, word, " ")
        for (i = 1; i <= n; i++) {
            name = word[i]; sub(/=.*/, "", name)
            if (!(name in found)) { add("missing", $1, name); missing++; continue }
            works[$1]++; total++
            if ($2 == "number") { sub(/=/, " ", word[i]); add("number", $1, word[i]) }
            else if (word[i] ~ /=/) {
                if (!renamed[$1]) renamed[$1] = word[i]
            }
            if ($2 ~ / GNU$/) add("gnu", $1, name)
            else if ($2 != "number" && $2 != "other") from($1, $2, name)
        }
    }
    function add(kind, group, name) {
        named[kind, group] = named[kind, group] (named[kind, group] == "" ? "" : ", ") "`" name "`"
    }
    function from(group, file, name) {
        if (file in included) { inside[group]++; return }
        if (!((group, file) in from_count)) files[group] = files[group] "|" file
        from_count[group, file]++
        from_names[group, file] = from_names[group, file] \
            (from_names[group, file] == "" ? "" : ", ") "`" name "`"
    }
    # Where the names of a row come from, where that is not pysock.h alone.
    function origin(group,    n, i, file, out, whole) {
        n = split(substr(files[group], 2), file, "|")
        for (i = 1; i <= n && files[group] != ""; i++) {
            whole = from_count[group, file[i]] == works[group]
            gsub(/ /, ">`, `<", file[i])
            out = out (out == "" ? "" : "; ") "`<" file[i] ">`"
            gsub(/>`, `</, " ", file[i])
            if (!whole && from_count[group, file[i]] <= 3)
                out = out " for " from_names[group, file[i]]
            else if (!whole)
                out = out " for " from_count[group, file[i]]
        }
        if (renamed[group] != "") {
            i = renamed[group]; sub(/=/, "` is `", i)
            out = out ", where `" i "`"
        }
        if (named["gnu", group] != "")
            out = out (out == "" ? "" : "; ") "with `_GNU_SOURCE`: " named["gnu", group]
        if (named["number", group] != "")
            out = out (out == "" ? "" : "; ") "no header has them: " named["number", group]
        return out
    }
    FILENAME ~ /good$/ { good[$1] = 1; next }
    FILENAME ~ /found$/ { sub(/^[^ ]* /, ""); found[$0] = 1; next }
    FILENAME ~ /header$/ { if (sub(/^include /, "")) included[$0] = 1; next }
    /^#/ || /^$/ { next }
    /^= / { section = substr($0, 3); next }
    section == "own" {
        lines[section] = lines[section] "| " mark($1) " | " $2 " | " state_of($1) " |\n"
        next
    }
    section == "constants" { constant(); next }
    { row() }
    END {
        print "| of Python 3.11 | works | not on this platform | not yet | Python'"'"'s own |"
        print "| --- | --- | --- | --- | --- |"
        n = split("module sockets files", sections, " ")
        title["module"] = "functions and other names of the module"
        title["sockets"] = "methods and attributes of sockets"
        title["files"] = "what `makefile()` returns"
        for (i = 1; i <= n; i++) {
            s = sections[i]
            printf "| %s | %d | %d | %d | %d |\n", title[s], count[s, "works"], \
                count[s, "not on this platform"], count[s, "not yet"], count[s, "Python'"'"'s own"]
        }
        printf "| constants | %d | %d | 0 | |\n", total, missing
        print ""
        print "<details>"
        print "<summary>All of them</summary>"
        for (i = 1; i <= n; i++) {
            heading(toupper(substr(title[sections[i]], 1, 1)) substr(title[sections[i]], 2))
            print "| Python | here | |"
            print "| --- | --- | --- |"
            printf "%s", lines[sections[i]]
        }
        heading("Of pysock'"'"'s own")
        print "| here | what for | |"
        print "| --- | --- | --- |"
        printf "%s", lines["own"]
        heading("Constants: the system'"'"'s own, under Python'"'"'s names")
        print "| Python | how many | not with pysock.h alone, but with | not on this platform |"
        print "| --- | --- | --- | --- |"
        for (i = 1; i <= groups; i++)
            printf "| %s | %d | %s | %s |\n", mark(order[i]), works[order[i]], origin(order[i]), \
                named["missing", order[i]]
        print ""
        print "</details>"
    }' "$work/good" "$work/found" "$work/header" "$data" | sed 's/ *| *|/ | |/g; s/ *|$/ |/'
}

# 1000 * major + minor of the C library's version, or 0: this is no Linux with glibc.
glibc_version() {
    cat >"$work/probe.c" <<'EOF'
#include <stdio.h>
#if defined(__linux__) && defined(__GLIBC__)
version __GLIBC__ __GLIBC_MINOR__
#endif
EOF
    # shellcheck disable=SC2086
    $CC -E $CPPFLAGS "$work/probe.c" 2>/dev/null | awk '
    $1 == "version" { inside = 1 }
    inside && !/^#/ { text = text " " $0 }
    END { split(text, word, " "); print 1000 * word[2] + word[3] }'
}

# What between the marks of file $1 stands.
between_marks() {
    awk -v begin="$begin" -v end="$end" '
    $0 == end { inside = 0; ends++ }
    inside { print }
    $0 == begin { inside = 1; begins++ }
    END { exit begins != 1 || ends != 1 }' "$1"
}

without_constants() {
    awk '/^\| constants / { next } /^\*\*Constants/ { exit } { print }' "$1"
}

check_table() {
    between_marks "$1" >"$work/there" || die "$1 needs one line '$begin' and one '$end'"
    if [ "$(glibc_version)" -lt "$oldest_glibc" ]; then
        echo 'features: not Linux with a new glibc: its constants are not compared'
        for file in there table; do
            without_constants "$work/$file" >"$work/$file.functions"
            mv "$work/$file.functions" "$work/$file"
        done
    fi
    diff "$work/there" "$work/table" && return 0
    echo "features: $1 (<) is not what tools/features.sh finds (>): tools/features.sh --update $1"
    return 1
}

update_table() {
    between_marks "$1" >"$work/there" || die "$1 needs one line '$begin' and one '$end'"
    awk -v begin="$begin" -v end="$end" -v table="$work/table" '
    $0 == end { inside = 0 }
    !inside { print }
    $0 == begin { inside = 1; while ((getline line <table) > 0) print line }' "$1" >"$work/new" &&
        cat "$work/new" >"$1"
}

case ${1-} in
'' | --check | --update) ;;
*) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "$0" && exit 2 ;;
esac
[ $# -ne 1 ] || die "$1 of which file?"
: >"$work/errors"
for list in functions macros system constants; do : >"$work/$list"; done
list_header >"$work/header"
[ -s "$work/header" ] || die "$header is not there"
read_data
check_mentions
look_for_functions
look_for_constants
write_table >"$work/table"
cat "$work/errors" >&2
case ${1-} in
--check) check_table "$2" || exit 1 ;;
--update) update_table "$2" ;;
*) cat "$work/table" ;;
esac
[ ! -s "$work/errors" ]
