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

# record KIND FILE: its kind, its length in two octets, itself; see fuzz_chain.c and fuzz_crl.c.
record() {
    size=$(wc -c <"$2")
    # shellcheck disable=SC2059 # the octal escapes are the format
    printf "$1$(printf '\\%03o\\%03o' $((size / 256)) $((size % 256)))"
    cat "$2"
}

# pem_to_der FILE: the first object in it.
pem_to_der() {
    sed -e '/-END/,$d' -e '/^-/d' "$1" | base64 -d
}

max_len=4096
case $name in
pem)
    cp tests/certs/*.pem tests/certs/*.key "$seeds"
    for key in tests/certs/*.key; do
        cat "${key%.key}.pem" "$key" >"$seeds/$(basename "$key" .key).both"
    done
    cat tests/certs/ca.pem tests/certs/other-ca.pem >"$seeds/two"
    for pem in tests/certs/ca.pem tests/certs/other-ca.pem; do
        printf '\357\273\277'
        cat "$pem"
    done >"$seeds/marks"
    sed 's/ CERTIFICATE/ TRUSTED&/' "$seeds/two" >"$seeds/trusted"
    sed '2s/$/ /;3,$s/$/\r/' "$seeds/two" >"$seeds/blanks"
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
crl)
    max_len=8192
    chains=$(mktemp -d "${TMPDIR:-/tmp}/fuzz-chains.XXXXXX")
    trap 'rm -rf "$chains"' EXIT
    tools/mkchains.sh "$chains" revocation
    rm "$chains/crl-int-many.pem"
    for name_of in root int int2 leaf leaf2 crl-root crl-int crl-int2; do
        pem_to_der "$chains/$name_of.pem" >"$chains/$name_of.der"
    done
    for pem in "$chains"/crl-*.pem "$chains"/named/*.pem; do
        pem_to_der "$pem" >"$chains/one.der"
        {
            printf '\001' # signatures are believed
            record A "$chains/root.der"
            for sent in leaf int; do
                record C "$chains/$sent.der"
            done
            case $pem in
            */named/*) record A "$chains/one.der" ;;
            *)
                record R "$chains/one.der"
                record R "$chains/crl-root.der"
                ;;
            esac
        } >"$seeds/$(basename "$pem" .pem)"
    done
    {
        printf '\001'
        for sent in leaf2 int2 int; do
            record C "$chains/$sent.der"
        done
        for held in root:A crl-root:R crl-int:R crl-int2:R; do
            record "${held#*:}" "$chains/${held%:*}.der"
        done
    } >"$seeds/long"
    ;;
key)
    # The forms of the keys in tests/certs, and others of which the first bytes matter.
    ec=tests/certs/server-ec.key
    rsa=tests/certs/server-rsa.key
    out() {
        form=$1
        shift
        openssl "$@" -passout pass:secret -out "$seeds/$form" 2>/dev/null
    }
    for key in "$ec" "$rsa"; do
        to=$(basename "$key" .key)
        openssl pkcs8 -topk8 -nocrypt -in "$key" -out "$seeds/$to-pkcs8"
        out "$to-pbes2" pkcs8 -topk8 -in "$key" -iter 2
    done
    openssl rsa -in "$rsa" -traditional -out "$seeds/rsa-pkcs1" 2>/dev/null
    openssl ec -in "$ec" -out "$seeds/ec-sec1" 2>/dev/null
    openssl ec -in "$ec" -param_enc explicit -out "$seeds/ec-explicit" 2>/dev/null
    openssl genpkey -algorithm ED25519 -out "$seeds/ed25519"
    { openssl ecparam -name prime256v1 && cat "$seeds/ec-sec1"; } >"$seeds/ec-parameters"
    { cat tests/certs/server-ec.pem && printf '\0' && cat "$ec"; } >"$seeds/both"
    for cipher in aes-128-cbc:SHA1 aes-192-cbc:SHA224 aes-256-cbc:SHA512 des3:SHA384; do
        out "ec-$cipher" pkcs8 -topk8 -in "$ec" -iter 2 -v2 "${cipher%:*}" \
            -v2prf "hmacWith${cipher#*:}"
    done
    for cipher in aes128 aes192 aes256 des3; do
        out "ec-$cipher" ec -in "$ec" "-$cipher"
    done
    sed 's/$/\r/' "$seeds/ec-aes128" >"$seeds/ec-crlf"
    out scrypt pkcs8 -topk8 -in "$ec" -scrypt -scrypt_N 2
    out pbes1 pkcs8 -topk8 -in "$ec" -v1 PBE-SHA1-3DES
    for pem in "$seeds"/*; do
        number=$(sed -n -e '1s/.*BEGIN PRIV.*/1/p' -e '1s/.*BEGIN ENC.*/2/p' \
            -e '1s/.*BEGIN RSA.*/3/p' -e '1s/.*BEGIN EC PRIV.*/4/p' "$pem")
        case $pem:$number in
        *.der:* | *:) ;; # DER already, or a certificate
        *)
            # shellcheck disable=SC2059 # the octal escape is the format
            { printf "\\00$number" && sed -e '/-END/,$d' -e '/[-:]/d' "$pem" | base64 -d -i; } \
                >"$pem.der"
            ;;
        esac
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
