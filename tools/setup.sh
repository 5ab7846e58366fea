#!/bin/sh
# Finds what pysock needs and installs what is missing, with apt, dnf, pacman, apk or brew.
#
#   tools/setup.sh         a C compiler, make and BearSSL: for `make demo`, the examples, the bench
#   tools/setup.sh plain   also what `make test-plain` needs: cmocka, and as peers openssl, gnutls,
#                          nginx, curl, python3, stunnel and haproxy
#   tools/setup.sh test    also what `make test` needs: the sanitizers
#   tools/setup.sh check   what `make check` needs: clang, clang-format, a C++ compiler, libidn2,
#                          openssl, and, to try what README.md says of installing, pkg-config,
#                          cmake, meson and ninja
#   tools/setup.sh format  what `make format` needs: clang-format, of any version
#   tools/setup.sh cpython what `make cpython` needs: Python's headers
#   tools/setup.sh exam    also what `make check-cpython` needs: CPython's own tests, pip, requests,
#                          names of services
#   tools/setup.sh fuzz    what `make fuzz` needs: clang with its fuzzer and sanitizers
#   tools/setup.sh ci      all of these, and testssl for tools/check-testssl.sh
#
# Each thing is probed first, by compiling and linking or by running it: where all is there,
# neither root nor the network is needed. CC, CPPFLAGS, CFLAGS, LDFLAGS and LDLIBS are respected.
set -u
export LC_ALL=C

CC=${CC:-cc} FUZZ_CC=${FUZZ_CC:-clang} PYTHON=${PYTHON:-python3}
CPPFLAGS=${CPPFLAGS-} CFLAGS=${CFLAGS-} LDFLAGS=${LDFLAGS-}
LDLIBS="${LDLIBS:--lbearssl -lpthread}"
PATH=$PATH:/usr/sbin:/sbin # nginx and haproxy live there, and users seldom look there
services_of_ours=
policy_file=

say() {
    echo "setup: $*"
}

die() {
    echo "setup: $*" >&2
    exit 1
}

clean_up() {
    [ -z "$policy_file" ] || as_root rm -f "$policy_file"
    rm -rf "$work"
}

work=$(mktemp -d "${TMPDIR:-/tmp}/pysock-setup.XXXXXX") || die "cannot make a temporary directory"
trap clean_up EXIT
trap 'exit 1' HUP INT TERM

# ---- probes: have_THING is true if it works ----

# links COMPILER SUFFIX FLAG...: compiles and links standard input. The flag variables are lists.
links() {
    compiler=$1
    source=$work/probe.$2
    shift 2
    cat >"$source"
    # shellcheck disable=SC2086
    $compiler $CPPFLAGS $CFLAGS "$source" -o "$work/probe" $LDFLAGS "$@" >"$work/probe.log" 2>&1
}

links_main() {
    echo 'int main(void) { return 0; }' | links "$@"
}

have_cc() {
    echo '#include <stdio.h>
int main(void) { return puts("hello") < 0; }' | links "$CC" c
}

have_make() {
    command -v make >/dev/null || command -v gmake >/dev/null
}

# shellcheck disable=SC2086
links_bearssl() {
    echo '#include <bearssl.h>
int main(void) { br_ssl_client_context c; br_ssl_client_zero(&c); return 0; }' |
        links "$CC" c "$@" $LDLIBS
}

# Fedora and Homebrew keep the header where compilers do not look; the Makefile knows the same
# places.
have_bearssl() {
    ! links_bearssl || return 0
    for dir in /usr/include/bearssl /opt/homebrew/include /usr/local/include; do
        [ -f "$dir/bearssl.h" ] || continue
        if links_bearssl "-I$dir" "-L${dir%/include*}/lib"; then
            say "bearssl.h is in $dir: the Makefile knows, your own builds need -I$dir"
            return 0
        fi
    done
    return 1
}

have_cmocka() {
    for dir in '' /opt/homebrew /usr/local; do
        echo '#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
static void nothing(void **state) { (void)state; }
int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}' | links "$CC" c ${dir:+"-I$dir/include" "-L$dir/lib"} -lcmocka && return 0
    done
    return 1
}

have_openssl() { openssl version >/dev/null 2>&1; }
have_gnutls() { gnutls-cli --version >/dev/null 2>&1 && command -v gnutls-serv >/dev/null; }
have_nginx() { nginx -v >/dev/null 2>&1; }
have_stunnel() { command -v stunnel >/dev/null; }
have_haproxy() { haproxy -v >/dev/null 2>&1; }
have_testssl() { command -v testssl >/dev/null || command -v testssl.sh >/dev/null; }
have_curl() { curl --version >/dev/null 2>&1; }
have_python3() { python3 -c 'import ssl' >/dev/null 2>&1; }
have_timeout() { timeout 1 true 2>/dev/null || gtimeout 1 true 2>/dev/null; }
have_clang() { links_main clang c && links_main clang++ cpp; }
have_clang_format() { clang-format --version >/dev/null 2>&1; }
have_fuzzer() {
    echo 'int LLVMFuzzerTestOneInput(const unsigned char *data, unsigned long size);
int LLVMFuzzerTestOneInput(const unsigned char *data, unsigned long size)
{ return !data && size; }' |
        links "$FUZZ_CC" c -fsanitize=fuzzer,address,undefined
}
have_idn2() {
    echo '#include <idn2.h>
int main(void) { return idn2_check_version(IDN2_VERSION) == NULL; }' | links "$CC" c -lidn2
}
# Of the interpreter that make's PYTHON names.
have_python_dev() {
    include=$($PYTHON -c 'import sysconfig; print(sysconfig.get_path("include"))' 2>/dev/null) &&
        [ -f "$include/Python.h" ]
}
have_python_tests() { $PYTHON -c 'import test.support, test.test_socket' >/dev/null 2>&1; }
have_python_pip() { $PYTHON -m pip --version >/dev/null 2>&1; }
# Names of services, which CPython's tests look up.
have_services() { grep -q '^http[[:space:]]' /etc/services 2>/dev/null; }
have_python_requests() { $PYTHON -c 'import requests' >/dev/null 2>&1; }
have_pkg_config() { pkg-config --version >/dev/null 2>&1; }
have_cmake() { cmake --version >/dev/null 2>&1; }
have_meson() { meson --version >/dev/null 2>&1; }
have_ninja() { ninja --version >/dev/null 2>&1; }
have_cxx() { links_main g++ cpp || links_main c++ cpp; }

# As tools/run-tests.sh does, runs it once more without random addresses if it cannot start.
runs_probe() {
    "$work/probe" >/dev/null 2>&1 || setarch "$(uname -m)" -R "$work/probe" >/dev/null 2>&1
}

have_sanitizers() {
    links_main "$CC" c -fsanitize=address,undefined && runs_probe &&
        links_main "$CC" c -fsanitize=thread && runs_probe
}

describe() {
    case $1 in
    cc) echo "a C compiler ($CC)" ;;
    bearssl) echo 'BearSSL 0.6 with its header' ;;
    cmocka) echo 'cmocka with its header' ;;
    gnutls) echo 'gnutls-cli and gnutls-serv' ;;
    python3) echo 'python3 with its ssl module' ;;
    timeout) echo 'the timeout command (coreutils)' ;;
    clang) echo 'clang and clang++' ;;
    clang_format) echo 'clang-format' ;;
    fuzzer) echo "libFuzzer and the sanitizers of $FUZZ_CC" ;;
    cxx) echo 'a C++ compiler' ;;
    idn2) echo 'libidn2 with its header' ;;
    pkg_config) echo 'pkg-config' ;;
    python_dev) echo "Python's headers ($PYTHON)" ;;
    python_tests) echo "CPython's own tests ($PYTHON -m test)" ;;
    python_pip) echo "pip ($PYTHON -m pip)" ;;
    python_requests) echo "requests ($PYTHON)" ;;
    services) echo '/etc/services' ;;
    sanitizers) echo "the sanitizer libraries of $CC (address, undefined, thread)" ;;
    *) echo "$1" ;;
    esac
}

# ---- package managers ----

find_manager() {
    for manager in apt-get dnf pacman apk brew; do
        ! command -v $manager >/dev/null 2>&1 || return 0
    done
    manager=
}

# The package of CPython's tests has the interpreter's version in its name: Python comes first.
apt_python_tests() {
    $PYTHON -c 'import sys; print("libpython%d.%d-testsuite" % sys.version_info[:2])' 2>/dev/null ||
        echo python3
}

# The packages of THING for the manager; nothing where it has none.
packages_of() {
    case $manager:$1 in
    apt-get:cc) echo gcc libc6-dev ;;
    apt-get:bearssl) echo libbearssl-dev ;;
    apt-get:cmocka) echo libcmocka-dev ;;
    apt-get:gnutls) echo gnutls-bin ;;
    apt-get:timeout) echo coreutils ;;
    apt-get:stunnel) echo stunnel4 ;;
    apt-get:testssl | pacman:testssl | apk:testssl) echo testssl.sh ;;
    apt-get:clang) echo clang g++ ;;
    apt-get:fuzzer) echo clang libclang-rt-dev ;;
    apt-get:clang_format | brew:clang_format) echo clang-format ;;
    apt-get:cxx) echo g++ ;;
    apt-get:idn2) echo libidn2-dev ;;
    apt-get:pkg_config) echo pkg-config ;;
    dnf:pkg_config) echo pkgconf-pkg-config ;;
    *:pkg_config) echo pkgconf ;;
    apt-get:ninja | dnf:ninja) echo ninja-build ;;
    apk:ninja) echo samurai ;; # brings the command ninja
    apt-get:python_dev) echo python3-dev ;;
    apt-get:python_tests) apt_python_tests ;;
    apt-get:python_pip) echo python3-pip ;;
    apt-get:python_requests) echo python3-requests ;;
    apt-get:services) echo netbase ;;
    dnf:services) echo setup ;;
    pacman:services) echo iana-etc ;;
    apk:services) echo alpine-baselayout ;;
    dnf:python_dev) echo python3-devel ;;
    dnf:python_tests) echo python3-test ;;
    dnf:python_pip) echo python3-pip ;;
    dnf:python_requests) echo python3-requests ;;
    pacman:python_dev) echo python ;;
    pacman:python_tests) echo python-tests ;;
    pacman:python_pip) echo python-pip ;;
    pacman:python_requests) echo python-requests ;;
    apk:python_dev) echo python3-dev ;;
    apk:python_tests) echo python3-tests ;;
    apk:python_pip) echo py3-pip ;;
    apk:python_requests) echo py3-requests ;;
    brew:python_*) ;; # brew's python has its headers and tests; the others are pip's
    dnf:cc) echo gcc glibc-devel ;;
    dnf:bearssl) echo bearssl-devel ;;
    dnf:cmocka) echo libcmocka-devel ;;
    dnf:gnutls) echo gnutls-utils ;;
    dnf:timeout) echo coreutils ;;
    dnf:cxx) echo gcc-c++ ;;
    dnf:clang_format) echo clang-tools-extra ;;
    dnf:idn2) echo libidn2-devel ;;
    pacman:cc | pacman:cxx) echo gcc ;;
    pacman:idn2 | brew:idn2) echo libidn2 ;;
    pacman:python3) echo python ;;
    pacman:timeout) echo coreutils ;;
    pacman:clang_format) echo clang ;;
    apk:cc) echo gcc musl-dev ;;
    apk:bearssl) echo bearssl-dev ;;
    apk:cmocka) echo cmocka-dev ;;
    apk:gnutls) echo gnutls-utils ;;
    apk:timeout) echo coreutils ;;
    apk:clang) echo clang g++ ;;
    apk:cxx) echo g++ ;;
    apk:clang_format) echo clang-extra-tools ;;
    apk:idn2) echo libidn2-dev ;;
    brew:cc | brew:cxx | brew:clang | brew:sanitizers) ;; # Xcode's; brew's would not be used
    brew:python3) echo python ;;
    brew:fuzzer) ;; # Apple's clang has none
    *:fuzzer) echo clang compiler-rt ;;
    brew:timeout) echo coreutils ;;
    *:sanitizers)
        case $manager:$CC in
        apt-get:*clang*) echo libclang-rt-dev ;;
        *clang* | apk:*) echo compiler-rt ;;
        dnf:*) echo libasan libubsan libtsan ;;
        *) echo gcc ;;
        esac
        ;;
    *) echo "$1" ;;
    esac
}

install_command() {
    case $manager in
    apt-get) echo apt-get install ;;
    dnf) echo dnf install ;;
    pacman) echo pacman -S ;;
    apk) echo apk add ;;
    brew) echo brew install ;;
    esac
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    elif command -v doas >/dev/null 2>&1; then
        doas "$@"
    else
        return 1
    fi
}

can_be_root() {
    [ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null 2>&1 || command -v doas >/dev/null 2>&1
}

apt() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Lock::Timeout=120 "$@"
}

# Debian starts a service when its package is installed, unless this file says no.
forbid_services() {
    [ -n "$services_of_ours" ] && [ ! -e /usr/sbin/policy-rc.d ] || return 0
    printf '#!/bin/sh\nexit 101\n' >"$work/policy-rc.d"
    policy_file=/usr/sbin/policy-rc.d
    as_root install -m 755 "$work/policy-rc.d" $policy_file
}

allow_services() {
    [ -z "$policy_file" ] || as_root rm -f "$policy_file"
    policy_file=
}

# The package lists are fetched only if the packages cannot be had with those that are there.
install_with_apt() {
    forbid_services
    apt install --no-install-recommends "$@" >"$work/install.log" 2>&1 ||
        { apt update && apt install --no-install-recommends "$@"; } >"$work/install.log" 2>&1
    status=$?
    allow_services
    return $status
}

# The tests start servers of their own; the system's are not to run, now or after a reboot, because
# of them.
silence_services() {
    [ -d /run/systemd/system ] || return 0
    for service in $services_of_ours; do
        as_root systemctl disable --now "$service" >/dev/null 2>&1 || true
    done
}

install_packages() {
    case $manager in
    apt-get) install_with_apt "$@" ;;
    dnf) as_root dnf -y install "$@" >"$work/install.log" 2>&1 ;;
    pacman)
        as_root pacman -S --noconfirm --needed "$@" >"$work/install.log" 2>&1 ||
            as_root pacman -Sy --noconfirm --needed "$@" >"$work/install.log" 2>&1
        ;;
    apk) as_root apk add --no-cache "$@" >"$work/install.log" 2>&1 ;;
    brew) brew install "$@" >"$work/install.log" 2>&1 ;;
    esac
}

# ---- what to do ----

missing_of() {
    for thing; do
        "have_$thing" || echo "$thing"
    done
}

explain() {
    {
        echo
        echo "setup: still missing:"
        for thing; do
            echo "  - $(describe "$thing")"
            case $manager:$thing in
            brew:cc | brew:cxx | brew:clang)
                echo "    install Apple's with: xcode-select --install"
                ;;
            *:bearssl)
                echo "    or build it from the source at https://bearssl.org and run make with"
                echo "    CPPFLAGS=-I.../BearSSL/inc LDFLAGS=-L.../BearSSL/build"
                ;;
            *:sanitizers)
                echo "    or do without (make test-plain), or take another compiler (CC=clang)"
                ;;
            esac
        done
        if [ -n "$packages" ]; then
            echo "To install them by hand: $(install_command) $packages"
        else
            echo "Install them with your system's package manager, then try again."
        fi
    } >&2
    exit 1
}

install_missing() {
    find_manager
    packages=
    for thing; do
        for package in $(packages_of "$thing"); do
            case " $packages " in
            *" $package "*) ;;
            *) packages="$packages${packages:+ }$package" ;;
            esac
        done
        case $thing in
        nginx | haproxy) services_of_ours="$services_of_ours $thing" ;;
        stunnel) services_of_ours="$services_of_ours stunnel4" ;;
        esac
    done
    [ -n "$packages" ] || explain "$@"
    [ -n "$manager" ] || { packages= && explain "$@"; }
    if [ "$manager" != brew ] && ! can_be_root; then
        echo "setup: needs root to install packages, and there is no sudo here" >&2
        explain "$@"
    fi
    say "installing with $manager: $packages"
    # shellcheck disable=SC2086
    if ! install_packages $packages; then
        tail -n 20 "$work/install.log" >&2
        echo "setup: $manager could not install them (its last lines are above)" >&2
        # shellcheck disable=SC2046
        explain $(missing_of "$@")
    fi
    silence_services
}

base='cc make bearssl'
for_plain='cmocka openssl gnutls nginx curl python3 timeout stunnel haproxy'
for_check='clang clang_format cxx idn2 pkg_config cmake meson ninja'
for_exam='python_tests python_pip python_requests services'
case ${1-} in
'') wanted=$base ;;
plain) wanted="$base $for_plain" ;;
test) wanted="$base $for_plain sanitizers" ;;
check) wanted="$base $for_check openssl" ;;
format) wanted=clang_format ;;
cpython) wanted="$base python_dev" ;;
exam) wanted="$base python_dev $for_exam" ;;
fuzz) wanted="$base fuzzer" ;;
ci) wanted="$base $for_plain sanitizers $for_check fuzzer testssl python_dev $for_exam" ;;
*)
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "$0"
    case $1 in -h | --help) exit 0 ;; *) exit 2 ;; esac
    ;;
esac

missing=
for thing in $wanted; do
    "have_$thing" || missing="$missing $thing"
done
if [ -n "$missing" ]; then
    # shellcheck disable=SC2086
    install_missing $missing
    # shellcheck disable=SC2046,SC2086
    set -- $(missing_of $missing)
    if [ "$*" = python_tests ]; then
        install_missing python_tests
        # shellcheck disable=SC2046
        set -- $(missing_of python_tests)
    fi
    [ $# -eq 0 ] || explain "$@"
fi
say "all there: $wanted"
