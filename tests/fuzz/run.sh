#!/bin/sh
# tests/fuzz/run.sh FUZZER SECONDS: makes the seeds of build/fuzz/fuzz_NAME and runs it, in the
# project's folder. What it learns is kept in build/fuzz/corpus/, what it finds goes to
# build/fuzz/crashes/.
set -eu
fuzzer=$1
seconds=$2
name=$(basename "$fuzzer" | sed 's/^fuzz_//')
seeds=build/fuzz/seeds/$name
corpus=build/fuzz/corpus/$name
crashes=build/fuzz/crashes/$name
log=build/fuzz/$name.log
mkdir -p "$seeds" "$corpus" "$crashes"

max_len=4096
case $name in
pem)
    cp tests/certs/*.pem tests/certs/*.key "$seeds"
    for key in tests/certs/*.key; do
        cat "${key%.key}.pem" "$key" >"$seeds/$(basename "$key" .key).both"
    done
    ;;
cert | certinfo)
    for pem in tests/certs/*.pem; do
        sed -e '/-END/,$d' -e '/^-/d' "$pem" | base64 -d >"$seeds/$(basename "$pem" .pem).der"
    done
    ;;
chain)
    max_len=16384
    chains=$(mktemp -d "${TMPDIR:-/tmp}/fuzz-chains.XXXXXX")
    trap 'rm -rf "$chains"' EXIT
    tools/mkchains.sh "$chains"
    openssl x509 -in "$chains/root.pem" -outform DER -out "$chains/root.der"
    # A record: its kind, its length in two octets, itself; see fuzz_chain.c.
    record() {
        size=$(wc -c <"$2")
        # shellcheck disable=SC2059 # the octal escapes are the format
        printf "$1$(printf '\\%03o\\%03o' $((size / 256)) $((size % 256)))"
        cat "$2"
    }
    printf 'www.example.test' >"$chains/host"
    for pem in "$chains"/chain-*.pem; do
        rm -f "$chains"/part*
        sed '/PRIVATE/,$d' "$pem" | awk -v to="$chains/part" '/-BEGIN/ { n++ } { print >(to n) }'
        {
            printf '\001' # signatures are believed
            record A "$chains/root.der"
            for part in "$chains"/part?; do
                sed -e '/-END/,$d' -e '/^-/d' "$part" | base64 -d >"$chains/part.der"
                record C "$chains/part.der"
            done
            record H "$chains/host"
        } >"$seeds/$(basename "$pem" .pem)"
    done
    ;;
esac
if [ -d "tests/fuzz/seeds/$name" ]; then
    cp "tests/fuzz/seeds/$name/"* "$seeds"
fi

if "$fuzzer" -max_total_time="$seconds" -max_len="$max_len" -timeout=10 -rss_limit_mb=2048 \
    -print_final_stats=1 -artifact_prefix="$crashes/" "$corpus" "$seeds" >"$log" 2>&1; then
    echo "  ok    fuzz_$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") runs"
else
    tail -n 60 "$log" >&2
    echo "  FAIL  fuzz_$name: see $log and $crashes/" >&2
    exit 1
fi
