#!/bin/sh
# Builds the tests for another processor and runs them, on Debian and its kin: on one of another
# word size or byte order things show that the usual ones hide.
#
#   tools/check-arch.sh ARCH [TEST...]    ARCH: i386, s390x or armhf; without TEST, a sample of them
#
# The cross compiler, and the emulator where one is needed, are installed if they are missing; the
# libraries are only unpacked, in build/arch/ARCH, so that no package of another architecture comes
# into the system. There it stays: `rm -r build/arch` makes all of it anew.
#
# Under an emulator (s390x, armhf) everything takes some ten times longer; what asks the kernel for
# what emulators do not have may fail.
set -eu
export LC_ALL=C

sample='badinput bios buffers certificates certinfo connections crl datagrams families epoll files
    stdio sendfile keys lifecycle matrix messages cmsg descriptors flags mutual names poller
    properties python renegotiation select sessions sockets threadless threads thread_hook tls
    verifier alloc ciphers errands nostart nothreads systems'
emulated_sample='bios buffers certinfo crl keys matrix mutual poller select sessions sockets ciphers
systems'

die() {
    echo "check-arch: $*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

arch=${1-}
emulator=
case $arch in
i386) triplet=i686-linux-gnu libs=i386-linux-gnu ;;
s390x) triplet=s390x-linux-gnu libs=$triplet emulator=qemu-s390x-static sample=$emulated_sample ;;
armhf) triplet=arm-linux-gnueabihf libs=$triplet emulator=qemu-arm-static sample=$emulated_sample ;;
*) die "which? make check-arch ARCH=i386, s390x or armhf" ;;
esac
shift
# shellcheck disable=SC2086
[ $# -gt 0 ] || set -- $sample
command -v apt-get >/dev/null || die "no apt-get: this takes all from Debian"

cd "$(dirname "$0")/.."
root=$PWD/build/arch/$arch

# ---- tools and libraries ----

missing=
command -v "$triplet-gcc" >/dev/null && [ -d "/usr/$triplet/include" ] ||
    missing="gcc-$triplet libc6-dev-$arch-cross"
[ -z "$emulator" ] || command -v "$emulator" >/dev/null || missing="$missing qemu-user-static"
if [ -n "$missing" ]; then
    echo "check-arch: installing $missing"
    # shellcheck disable=SC2086
    as_root apt-get -y -q install --no-install-recommends --no-remove $missing >/dev/null
fi

# Runs apt-get for that architecture alone, with package lists of its own.
foreign_apt() {
    apt-get -qq -o "APT::Architecture=$arch" -o "APT::Architectures=$arch" \
        -o "Dir::State=$root/apt" -o "Dir::State::Lists=$root/apt/lists" \
        -o "Dir::State::status=$root/apt/status" -o "Dir::Cache=$root/apt/cache" \
        -o APT::Sandbox::User= "$@"
}

if [ ! -f "$root/usr/include/cmocka.h" ]; then
    rm -rf "$root"
    mkdir -p "$root/apt/lists/partial" "$root/apt/cache/archives/partial"
    : >"$root/apt/status"
    foreign_apt update || true # of all sources, those that have nothing for it too
    (
        cd "$root/apt"
        foreign_apt download libbearssl-dev libbearssl0 libcmocka-dev libcmocka0
        for package in *.deb; do
            dpkg-deb -x "$package" "$root"
        done
    )
    [ -f "$root/usr/include/cmocka.h" ] || die "the libraries for $arch cannot be had"
fi

# ---- the tests, in a tree of their own, because build/ holds this machine's ----

tree=$root/tree
mkdir -p "$tree"
for name in Makefile pysock.h tests examples tools; do
    ln -sfn "$PWD/$name" "$tree/$name"
done
cd "$tree"

make CC="$triplet-gcc" CPPFLAGS="-isystem $root/usr/include" \
    LDFLAGS="-L$root/usr/lib/$libs -Wl,-rpath,$root/usr/lib/$libs" \
    TESTS="$*" build-tests-plain

failed=0
for name; do
    for program in build/plain/test_$name build/plain/whitebox_$name; do
        [ -x "$program" ] || continue
        if timeout "${TIMEOUT:-1200}" ${emulator:+$emulator -L "/usr/$triplet"} "$program" \
            >"$program.log" 2>&1 </dev/null; then
            printf 'ok      %-24s %4d passed\n' "${program##*/}" \
                "$(grep -ac '^\[       OK \]' "$program.log")"
        else
            sed 's/^/  | /' "$program.log" | tail -n 40
            printf 'FAILED  %s\n' "${program##*/}"
            failed=$((failed + 1))
        fi
    done
done
[ $failed -eq 0 ] || die "$failed programs failed on $arch"
