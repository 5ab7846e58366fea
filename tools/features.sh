#!/bin/sh
# Writes tools/python-names.md: every name of Python's socket, ssl and select, and what stands for
# it in pysock.h.
#
#   tools/features.sh            prints it
#   tools/features.sh --check    compares it with tools/python-names.md
#   tools/features.sh --update   puts it there
#   tools/features.sh --python   compares tools/features.txt with the modules of the python3 that is
#                                here, if that is 3.11
#
# tools/features.txt says what stands for each of Python's names. Whether it is there is found out:
# a function of pysock.h must be declared and link with the implementation; a macro, an enumerator,
# a function of the system's and a constant must compile. A public name of the header that
# features.txt does not mention is an error, and so is a name that it has twice.
#
# The constants of socket and select are the system's, so they are looked up on Linux with a glibc
# that is not older than the one that the file was made with. Elsewhere, and where a system header
# is not installed, what features.txt says of them is believed.
#
# CC, CPPFLAGS, LDFLAGS and PYSOCK_DIR come from make. It needs neither BearSSL nor, but for
# --python, Python.
set -u
export LC_ALL=C

CC=${CC:-cc} CPPFLAGS=${CPPFLAGS-} LDFLAGS=${LDFLAGS-} PYSOCK_DIR=${PYSOCK_DIR:-.}
tools=$(dirname "$0")
data=$tools/features.txt
page=$tools/python-names.md
header=$PYSOCK_DIR/pysock.h
oldest_glibc=2036 # 1000 * major + minor

work=$(mktemp -d "${TMPDIR:-/tmp}/pysock-features.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

die() {
    echo "features: $*" >&2
    exit 1
}

# ---- what the header has ----

# A line "NAME BLOCK" for each public function, macro and enumerator, by the lines that begin a
# block ("==== public: BLOCK ===="); "include FILE" for each #include; "error TEXT".
list_header() {
    awk '
    function enumerators(text) {
        gsub(/\/\*([^*]|\*[^\/])*(\*\/|$)/, "", text)
        while (match(text, /PYSOCK_[A-Za-z0-9_]+/)) {
            print substr(text, RSTART, RLENGTH), block
            text = substr(text, RSTART + RLENGTH)
            sub(/^[^,}]*/, "", text)
        }
    }
    /^#ifdef PYSOCK_IMPLEMENTATION/ { exit }
    /^#include </ { gsub(/[<>]/, "", $2); print "include", $2 }
    /==== *public/ {
        block = $0
        if (!sub(/^\/\* ==== public: /, "", block) || !sub(/ ====.*/, "", block))
            print "error line " NR " is not \"/* ==== public: BLOCK ====\""
        blocks++
        next
    }
    !blocks { next }
    /^#define PYSOCK_/ { sub(/\(.*/, "", $2); print $2, block; next }
    /^(typedef )?enum / { inside = 1 }
    inside { enumerators($0) }
    /}/ { inside = 0 }
    /^PYSOCKDEF / {
        if (match($0, /pysock_[a-z0-9_]+\(/)) print substr($0, RSTART, RLENGTH - 1), block
        else print "error line " NR " declares no function that I can read"
    }
    END { if (!blocks) print "error no block begins with \"/* ==== public: BLOCK ====\"" }
    ' "$header"
}

# ---- what features.txt has ----

# Writes into $work: errors, functions and macros (of pysock.h), system ("HEADER FUNCTION"),
# constants ("NUMBER GNU HEADER...", and in constants.NUMBER lines "EXPRESSION NAME").
read_data() {
    awk -F '[ \t]*[|][ \t]*' -v work="$work/" '
    function tell(what) { print FILENAME ":" FNR ": " what >(work "errors") }
    function once(names,    n, i, name) {
        n = split(names, name, / *, */)
        if (names ~ /\(/) { n = 1; name[1] = names }
        for (i = 1; i <= n; i++) {
            if ((section, name[i]) in seen) tell(name[i] " is here twice")
            seen[section, name[i]] = 1
        }
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
    function keyword(text) { return text ~ /^(missing|language|only .+)$/ }
    function constant(    n, i, word, expression, file, gnu) {
        if (NF < 3 || NF > 4) { tell("three or four columns, please"); return }
        if ($2 ~ /^(missing|language)$/ && $4 == "") tell("why is there nothing for " $1 "?")
        if (!($2 in probe)) {
            probe[$2] = ++probes
            gnu = $2 ~ / GNU$/; file = $2; sub(/ GNU$/, "", file)
            print probes, gnu, file >(work "constants")
        }
        n = split($3, word, " ")
        for (i = 1; i <= n; i++) {
            expression = word[i]
            sub(/=.*/, "", word[i]); sub(/^[^=]*=/, "", expression)
            if (index(word[i], $1) != 1 && $1 !~ /,/) tell(word[i] " does not begin with " $1)
            if ($2 ~ /^PYSOCK_/) {
                if (expression == word[i]) expression = $2 substr(word[i], length($1) + 1)
                mention(expression)
            }
            once(word[i])
            print expression, word[i] >(work "constants." probe[$2])
        }
    }
    FILENAME ~ /header$/ { split($0, word, " "); have[word[1]] = 1; next }
    /^#/ || /^$/ { next }
    /^= / {
        $1 = substr($1, 3)
        kind = $1 == "own" || $1 == "constants" ? $1 : "names"
        section = $1 " " $2 " " $3
        if (NF != (kind == "names" ? 4 : 2)) tell("what section is this?")
        next
    }
    kind == "own" {
        once($1)
        mention($1)
        if (NF != 2) tell("two columns, please")
        if (own($1)) tell(own($1) " is not in the header")
        next
    }
    kind == "constants" { constant(); next }
    {
        once($1)
        if (NF < 2 || NF > 3 || $1 == "" || $2 == "") tell("two or three columns, please")
        if (!keyword($2)) mention($2)
        else if ($2 !~ /^only / && $3 == "") tell("why is there nothing for " $1 "?")
    }' "$work/header" "$data"
}

check_mentions() {
    awk -v header="$header" '
    FILENAME ~ /(functions|macros)$/ { mentioned[$1] = 1; next }
    $1 == "include" { next }
    $1 == "error" { $1 = ""; print header ":" $0; next }
    !($1 in mentioned) {
        name = $1
        $1 = ""
        print header ": " name ", of the block" $0 ", stands in no line of tools/features.txt"
    }' "$work/functions" "$work/macros" "$work/header" >>"$work/errors"
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
            - | number | only | language | missing | PYSOCK_*) break ;;
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
    FILENAME ~ /header$/ { have[$1] = 1; next }
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

look_for_constants() {
    : >"$work/found"
    believe=
    if [ "$(glibc_version)" -lt "$oldest_glibc" ]; then
        echo 'features: not Linux with a new glibc: its constants are not looked up' >&2
        believe=yes
    fi
    while read -r number gnu files; do
        # shellcheck disable=SC2086
        include "$gnu" $files
        list=$work/constants.$number
        case $files in
        number | language) cat "$list" >>"$work/found"; continue ;;
        missing) continue ;;
        PYSOCK_*) ;;
        only*)
            [ -z "$believe" ] || continue
            only_defined "$list"
            ;;
        *)
            if [ -n "$believe" ]; then
                cat "$list" >>"$work/found"
                continue
            fi
            ;;
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

# ---- the page ----

write_page() {
    awk -F '[ \t]*[|][ \t]*' '
    function mark(names,    n, i, word, out) { # Python names, each in its own backquotes
        if (names ~ /`/ || names ~ /^for /) return names
        if (names ~ /\(/) return "`" names "`"
        n = split(names, word, /, */)
        for (i = 1; i <= n; i++) out = out (i > 1 ? ", " : "") "`" word[i] "`"
        return out
    }
    function qualified(names,    out) {
        out = mark(names)
        if (qualifier != "-" && names !~ /`/) gsub(/(^|, )`/, "&" qualifier, out)
        return out
    }
    function count_names(names) {
        gsub(/\([^)]*\)/, "", names)
        return split(names, unused, /,/)
    }
    function lacking(names,    n, i, word) { # the first of them that is not there
        n = split(names, word, /[ ,]+/)
        for (i = 1; i <= n; i++)
            if (word[i] !~ /^</ && !(word[i] in good)) return word[i]
        return ""
    }
    function here(names) {
        gsub(/ *<[^>]*>/, "", names)
        return mark(names)
    }
    function join(list, text) { return list (list == "" ? "" : ", ") text }

    # An exception of a module: the names whose state, text and reason are the same are one row.
    function except(state, names, text, why,    key) {
        key = module SUBSEP state SUBSEP text SUBSEP why
        if (!(key in except_names)) {
            except_keys[module, state, ++excepts[module, state]] = key
            except_text[key] = text
            except_why[key] = why
        }
        except_names[key] = join(except_names[key], names)
    }
    function row(    state, text, why, missing) {
        why = $3
        if ($2 == "language" || $2 == "missing") state = $2
        else if ($2 ~ /^only /) {
            state = "only"
            why = substr($2, 6) (why == "" ? "" : ": " why)
        } else {
            text = here($2)
            missing = lacking($2)
            state = "works"
            if (missing != "") { state = "missing"; why = "pysock.h has no `" missing "`" }
            else if (sub(/^differs: /, "", why)) state = "differs"
        }
        count[section, state] += count_names($1)
        if (state == "works") work_row(text, why)
        else except(state, qualified($1), text, why)
    }
    # Names that differ from those of pysock.h by what is before them alone share a line.
    function work_row(text, why,    rule, one) {
        one = why == "" && $1 !~ /[`,(]/
        if (one && $2 == $1) rule = "the system'"'"'s own, under the same name"
        else if (one && $2 ~ /^[a-z_0-9]+$/ && substr($2, length($2) - length($1) + 1) == $1)
            rule = "`" substr($2, 1, length($2) - length($1)) "` and the name"
        else if (one && $2 ~ ("^[a-z_]+_get_" $1 ", [a-z_]+_set_" $1 "$")) {
            rule = $2
            sub(/get_.*/, "", rule)
            rule = "`" rule "get_` and `" rule "set_` and the name"
        }
        if (rule == "") {
            work_rows[section] = work_rows[section] "| " mark($1) " | " text " | " why " |\n"
            return
        }
        if (!((section, rule) in ruled)) rules[section, ++rule_count[section]] = rule
        ruled[section, rule] = join(ruled[section, rule], mark($1))
    }
    function constant(    i, n, word, name, why, group, file) {
        group = module SUBSEP $1
        if (!(group in rows)) {
            rows[group] = 1
            groups[module, ++group_count[module]] = $1
        }
        n = split($3, word, " ")
        for (i = 1; i <= n; i++) {
            name = word[i]; sub(/=.*/, "", name)
            why = $4
            if ($2 == "language" || $2 == "missing") {
                constants[module, $2]++
                except($2, mark(name), "", why)
                continue
            }
            if (!(name in found)) {
                file = $2 ~ /^only /
                constants[module, file ? "only" : "missing"]++
                if (file) why = substr($2, 6) (why == "" ? "" : ": " why)
                else why = ($2 ~ /^PYSOCK_/ ? "pysock.h" : "`<" $2 ">`") " does not have it"
                except(file ? "only" : "missing", mark(name), "", why)
                continue
            }
            works[group]++
            if (sub(/^differs: /, "", why)) {
                constants[module, "differs"]++
                except("differs", mark(name), "", why)
            } else constants[module, "works"]++
            if ($2 == "number") {
                sub(/=/, " ", word[i])
                number[group] = join(number[group], "`" word[i] "`")
            } else if (word[i] ~ /=/) {
                if (!renamed[group]) renamed[group] = word[i]
            } else if ($2 ~ /^PYSOCK_/) prefix[group] = $2
            if ($2 ~ / GNU$/) gnu[group] = join(gnu[group], mark(name))
            file = $2; sub(/ GNU$/, "", file)
            if (file != "number" && file !~ /^(only|PYSOCK_)/) from(group, file, name)
        }
    }
    function from(group, file, name) {
        if (file in included) return
        if (!((group, file) in from_count)) files[group] = files[group] "|" file
        from_count[group, file]++
        from_names[group, file] = join(from_names[group, file], "`" name "`")
    }
    # Where the names of a row come from, where that is not pysock.h under the same name.
    function origin(group, prefixes,    n, i, file, out, whole) {
        if (prefix[group] != "")
            out = "`" prefix[group] "` in place of `" prefixes "`"
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
            out = out (prefix[group] == "" ? ", where `" : "; `") i "`"
        }
        if (gnu[group] != "")
            out = out (out == "" ? "" : "; ") "with `_GNU_SOURCE`: " gnu[group]
        if (number[group] != "")
            out = out (out == "" ? "" : "; ") "no header has them: " number[group]
        return out
    }

    function print_exceptions(state, title, columns,    i, key) {
        if (!excepts[module, state]) {
            if (state == "missing") print "No name is missing.\n"
            return
        }
        print "**" title "**\n"
        print columns == 3 ? "| Python | here | |" : "| Python | |"
        print columns == 3 ? "| --- | --- | --- |" : "| --- | --- |"
        for (i = 1; i <= excepts[module, state]; i++) {
            key = except_keys[module, state, i]
            printf "| %s |%s %s |\n", except_names[key], \
                columns == 3 ? " " except_text[key] " |" : "", except_why[key]
        }
        print ""
    }
    function print_counts(label, works, differs, missing, only, language) {
        printf "| %s | %d | %d | %d | %d | %d |\n", label, works, differs, missing, only, language
    }
    function print_section(s,    i) {
        print "**" toupper(substr(title[s], 1, 1)) substr(title[s], 2) "**\n"
        for (i = 1; i <= rule_count[s]; i++)
            print "- " rules[s, i] ": " ruled[s, rules[s, i]]
        if (rule_count[s]) print ""
        if (work_rows[s] != "") {
            print "| Python | here | |\n| --- | --- | --- |"
            print work_rows[s]
        }
    }

    FILENAME ~ /good$/ { good[$1] = 1; next }
    FILENAME ~ /found$/ { sub(/^[^ ]* /, ""); found[$0] = 1; next }
    FILENAME ~ /header$/ { if (sub(/^include /, "")) included[$0] = 1; next }
    /^#/ || /^$/ { next }
    /^= / {
        kind = substr($1, 3)
        if (kind == "own") { owns++; own_title[owns] = $2; next }
        if (kind == "constants") { module = $2; next }
        module = kind
        qualifier = $2
        section = module SUBSEP $3
        title[section] = $3
        if (!(module in sections)) modules[++module_count] = module
        order[module, ++sections[module]] = section
        next
    }
    kind == "own" { owned[owns] = owned[owns] "| " mark($1) " | " $2 " |\n"; next }
    kind == "constants" { constant(); next }
    { row() }

    END {
        for (m = 1; m <= module_count; m++) {
            module = modules[m]
            print "\n## `" module "`: exceptions\n"
            print_exceptions("missing", "Missing", 2)
            print_exceptions("differs", "Works differently", 3)
            print_exceptions("only", "On other systems only", 2)
            print_exceptions("language", "Python'"'"'s own: there is nothing to do in C", 2)
        }
        print "\n## Counts\n"
        print "| names of Python 3.11 | work | work differently | missing | other systems only |" \
            " Python'"'"'s own |"
        print "| --- | ---: | ---: | ---: | ---: | ---: |"
        for (m = 1; m <= module_count; m++) {
            module = modules[m]
            for (i = 1; i <= sections[module]; i++) {
                s = order[module, i]
                print_counts("`" module "`: " title[s], count[s, "works"], count[s, "differs"], \
                    count[s, "missing"], count[s, "only"], count[s, "language"])
            }
            print_counts("`" module "`: constants", constants[module, "works"], \
                constants[module, "differs"], constants[module, "missing"], \
                constants[module, "only"], constants[module, "language"])
        }
        for (m = 1; m <= module_count; m++) {
            module = modules[m]
            print "\n## `" module "`: what works\n"
            for (i = 1; i <= sections[module]; i++) print_section(order[module, i])
            print "**Constants**\n"
            print "| Python | how many | where, if not in pysock.h under the same name |"
            print "| --- | ---: | --- |"
            for (i = 1; i <= group_count[module]; i++) {
                s = groups[module, i]
                if (works[module, s])
                    printf "| %s | %d | %s |\n", mark(s), works[module, s], \
                        origin(module SUBSEP s, s)
            }
        }
        print "\n## Beyond Python"
        for (i = 1; i <= owns; i++) {
            print "\n**" toupper(substr(own_title[i], 1, 1)) substr(own_title[i], 2) "**\n"
            print "| here | what for |\n| --- | --- |"
            printf "%s", owned[i]
        }
    }' "$work/good" "$work/found" "$work/header" "$data" | sed 's/ *| *|/ | |/g; s/ *|$/ |/' |
        cat -s
}

write_all() {
    cat <<'EOF'
# Python's names in pysock

Every name of Python 3.11's `socket`, `ssl` and `select`, and what stands for it in `pysock.h`:
first what is missing or different, then how many names there are of each kind, then what works.
Names that begin with an underscore are left out, but for a few that programs use.

`tools/features.sh --update` writes this page from [features.txt](features.txt), which has every
constant by name. It looks each name up in the header, in the compiled implementation and in the
system's headers; `make check` fails where this page differs from what it finds.
EOF
    write_page
}

check_page() {
    diff "$page" "$work/page" && return 0
    echo "features: $page (<) is not what is found (>): tools/features.sh --update"
    return 1
}

# ---- Python ----

compare_with_python() {
    python3 - "$data" <<'EOF'
import io, keyword, re, select, socket, ssl, sys

if sys.version_info[:2] != (3, 11):
    print(f"features: python3 is {sys.version.split()[0]}, and its names are not compared")
    sys.exit(0)

INHERITED = (object, OSError, tuple, socket.socket)
modules = {"socket": socket, "ssl": ssl, "select": select}
listed = {}  # by module: the names of the module itself
wrong = []


def of(owner):
    names = set(dir(owner))
    if isinstance(owner, type):
        for base in owner.__mro__[1:]:
            names -= set(dir(base)) if base in INHERITED else set()
    return {name for name in names if not name.startswith("_")}


# A constant may be missing in a Python that was built without the header that has it.
def compare(section, names, owners):
    have = set().union(*(dir(owner) for owner, _ in owners))
    wanted = set().union(*(names_of for _, names_of in owners))
    for name in sorted(wanted - names.keys()):
        wrong.append(f"{section} lacks {name}")
    for name, absent in names.items():
        if name not in have and not absent:
            wrong.append(f"{section} has {name}, and Python does not")


sections = []
for line in open(sys.argv[1], encoding="utf-8"):
    if not line.strip() or line.startswith("#"):
        continue
    fields = [field.strip() for field in line.rstrip("\n").split("|")]
    if line.startswith("= "):
        fields[0] = fields[0][2:]
        sections.append((fields, {}))
        continue
    head, names = sections[-1]
    if head[0] == "own":
        continue
    if head[0] == "constants":
        words = [word.split("=")[0] for word in fields[2].split()]
    else:
        words = re.split(", *", re.sub(r"\(.*?\)", "", fields[0].replace("`", "")))
    for word in words:
        if word.isidentifier() and not keyword.iskeyword(word):
            names[word] = head[0] == "constants" or fields[1].startswith("only")

for head, names in sections:
    if head[0] == "constants" or head[0] in modules and head[1] == "-":
        listed.setdefault(head[-1], {}).update(names)
    elif head[0] in modules and head[3] != "-":
        # Every word is an expression; the modules' own names are all that it may use.
        owners = [eval(word, dict(modules, io=io)) for word in head[3].split()]
        compare(head[2], names, [(owner, of(owner)) for owner in owners])
for name, names in listed.items():
    compare(name, names, [(modules[name], of(modules[name]))])
sys.exit("\n".join(wrong) or 0)
EOF
}

case ${1-} in
--python) compare_with_python; exit ;;
'' | --check | --update) ;;
*) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "$0" && exit 2 ;;
esac
: >"$work/errors"
for list in functions macros system constants; do : >"$work/$list"; done
list_header >"$work/header"
[ -s "$work/header" ] || die "$header is not there"
read_data
check_mentions
look_for_functions
look_for_constants
write_all >"$work/page"
cat "$work/errors" >&2
case ${1-} in
--check) check_page || exit 1 ;;
--update) cat "$work/page" >"$page" ;;
*) cat "$work/page" ;;
esac
[ ! -s "$work/errors" ]
