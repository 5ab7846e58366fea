#!/bin/sh
# Makes certificates with the openssl command line.
#
#   tools/mkcert.sh [DIR]                          all that the tests use, into DIR (tests/certs)
#   tools/mkcert.sh --self-signed NAME.pem HOST... a certificate for development, with its key
#
# HOST is a name, "*.name" or an IP address; none stands for localhost, 127.0.0.1 and ::1.
set -eu
export LC_ALL=C

usage() {
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "$0"
}

die() {
    echo "mkcert.sh: $*" >&2
    exit 1
}

# `openssl ca` is the one command that every OpenSSL and LibreSSL lets choose both dates.
start_ca_database() {
    work=$(mktemp -d "${TMPDIR:-/tmp}/mkcert.XXXXXX") || die "cannot make a temporary directory"
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
    : >"$work/index.txt"
    mkdir "$work/issued"
    cat >"$work/openssl.cnf" <<EOF
[req]
distinguished_name = dn
prompt = no
[dn]
CN = placeholder
[ca]
default_ca = db
[db]
database = $work/index.txt
serial = $work/serial
new_certs_dir = $work/issued
default_md = sha256
policy = any
unique_subject = no
email_in_dn = no
copy_extensions = none
preserve = yes
[any]
organizationName = optional
commonName = supplied
EOF
}

run_openssl() {
    if ! openssl "$@" >"$work/log" 2>&1 </dev/null; then
        cat "$work/log" >&2
        die "openssl $1 failed"
    fi
}

# new_key FILE TYPE: P-256 in PKCS #8 (ec) or SEC 1 (ec-sec1), or RSA of 2048 bits (rsa).
new_key() {
    case $2 in
    ec) run_openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 \
        -pkeyopt ec_param_enc:named_curve -out "$1" ;;
    ec-sec1) run_openssl ecparam -name prime256v1 -genkey -noout -out "$1" ;;
    rsa) run_openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$1" ;;
    esac
}

# issue CERT KEY ISSUER SUBJECT FROM TO EXTENSIONS: ISSUER is a path without .pem and .key, or
# "self". EXTENSIONS has one x509v3_config line each.
issue() {
    printf '%s\n' "$7" >"$work/extensions"
    run_openssl req -new -config "$work/openssl.cnf" -key "$2" -subj "$4" -out "$work/request"
    set -- "$1" "$2" "$3" "$5" "$6"
    if [ "$3" = self ]; then
        set -- "$@" -selfsign -keyfile "$2"
    else
        set -- "$@" -cert "$3.pem" -keyfile "$3.key"
    fi
    out=$1 from=$4 to=$5
    shift 5
    # A random serial number, so that two runs never make two certificates that clients confuse.
    printf '%s\n' "40$(openssl rand -hex 15)" >"$work/serial"
    run_openssl ca -batch -notext -config "$work/openssl.cnf" -in "$work/request" -out "$out" \
        -startdate "$from" -enddate "$to" -extfile "$work/extensions" "$@"
}

ca_extensions='basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash'

identifiers='subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always'

# leaf_extensions KEYTYPE PURPOSE SAN ("" for none)
leaf_extensions() {
    echo 'basicConstraints = critical, CA:FALSE'
    case $1 in
    rsa) echo 'keyUsage = critical, digitalSignature, keyEncipherment' ;;
    *) echo 'keyUsage = critical, digitalSignature' ;;
    esac
    echo "extendedKeyUsage = $2"
    [ -z "$3" ] || echo "subjectAltName = $3"
}

# authority NAME ISSUER CN
authority() {
    new_key "$1.key" ec
    extensions=$ca_extensions
    [ "$2" = self ] || extensions="$extensions
authorityKeyIdentifier = keyid:always"
    issue "$1.pem" "$1.key" "$2" "/O=pysock tests/CN=$3" "$valid_from" "$valid_to" "$extensions"
}

# leaf NAME KEYTYPE ISSUER CN SAN [PURPOSE [FROM TO]]
leaf() {
    new_key "$1.key" "$2"
    issue "$1.pem" "$1.key" "$3" "/O=pysock tests/CN=$4" \
        "${7:-$valid_from}" "${8:-$valid_to}" "$(leaf_extensions "$2" "${6:-serverAuth}" "$5")
$identifiers"
}

make_test_certificates() {
    start_ca_database
    mkdir -p "$1"
    cd "$1"
    valid_from=20200101000000Z valid_to=21200101000000Z
    names='DNS:localhost, DNS:*.example.test, IP:127.0.0.1, IP:::1'

    authority ca self 'pysock test CA'
    authority other-ca self 'another test CA'
    authority "$work/intermediate" ca 'pysock test intermediate CA'

    leaf server-ec ec ca localhost "$names"
    leaf server-rsa rsa ca localhost "$names"
    leaf chain-ec ec-sec1 "$work/intermediate" localhost 'DNS:localhost'
    cat "$work/intermediate.pem" >>chain-ec.pem
    leaf wrong-host ec ca other.test 'DNS:other.test'
    leaf expired ec ca localhost "$names" serverAuth 20200101000000Z 20210101000000Z
    leaf not-yet-valid ec ca localhost "$names" serverAuth 21000101000000Z 21200101000000Z
    leaf self-signed ec self localhost 'DNS:localhost'
    leaf untrusted ec other-ca localhost 'DNS:localhost'
    leaf cn-only ec ca localhost ''
    leaf cn-ignored ec ca localhost 'DNS:other.test'
    leaf client ec ca client '' clientAuth
    rm -f other-ca.key
    # Test keys are public, and everybody who checks the project out must be able to read them.
    chmod 644 ./*.pem ./*.key

    cat >README.txt <<'EOF'
Certificates for the tests and the demo, made by tools/mkcert.sh.

The private keys here are public: everybody has them. Never trust these certificates, and never use
them for anything but tests on your own machine. They are valid until 2120, "expired" and
"not-yet-valid" aside.

ca               the authority that signed the others
other-ca         another one, which no test trusts
server-ec        a server: localhost, *.example.test, 127.0.0.1, ::1; P-256, as all but the next
server-rsa       the same with an RSA key of 2048 bits
chain-ec         localhost, by an intermediate authority that follows it in the file; key in SEC 1
wrong-host       for other.test only
expired          as server-ec, valid for the year 2020
not-yet-valid    as server-ec, valid from 2100
self-signed      localhost, signed by itself
untrusted        localhost, signed by other-ca
cn-only          the name localhost stands in the common name, and there is no subjectAltName
cn-ignored       common name localhost, subjectAltName other.test
client           for a client (extendedKeyUsage clientAuth)
EOF
}

# alt_names HOST...: the subjectAltName for them.
alt_names() {
    list=
    for host; do
        case $host in
        *[!A-Za-z0-9.:*_-]* | '') die "'$host' is not a host name or IP address" ;;
        *:*) kind=IP ;;
        *[!0-9.]*) kind=DNS ;;
        *) kind=IP ;;
        esac
        list="$list${list:+, }$kind:$host"
    done
    echo "$list"
}

# Valid for two years: some clients refuse servers whose certificate is for more than 825 days.
make_self_signed() {
    [ $# -gt 0 ] || die "--self-signed needs a file name: see mkcert.sh --help"
    pem=$1
    shift
    [ ! -e "$pem" ] || die "$pem exists; take another name or remove it first"
    [ $# -gt 0 ] || set -- localhost 127.0.0.1 ::1
    names=$(alt_names "$@") || exit 1
    start_ca_database
    from=$(date -u +%Y%m%d000000Z)
    year=$(date -u +%Y)
    to=$((year + 2))$(date -u +%m)01000000Z
    new_key "$work/key" ec
    issue "$work/cert" "$work/key" self "/CN=$1" "$from" "$to" \
        "$(leaf_extensions ec serverAuth "$names")
subjectKeyIdentifier = hash"
    (umask 077 && cat "$work/cert" "$work/key" >"$pem") || die "cannot write $pem"
    echo "$pem: certificate and private key for $*, valid until $(
        openssl x509 -in "$pem" -noout -enddate | sed 's/^notAfter=//')"
}

command -v openssl >/dev/null 2>&1 || die "needs the openssl command (tools/setup.sh test)"
case ${1-} in
-h | --help) usage ;;
--self-signed)
    shift
    make_self_signed "$@"
    ;;
-*) die "unknown option $1: see mkcert.sh --help" ;;
*) make_test_certificates "${1:-"$(dirname "$0")/../tests/certs"}" ;;
esac
