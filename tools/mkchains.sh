#!/bin/sh
# Makes the certificates and chains that tests/x509/test_verifier.c verifies, with the openssl
# command, and with "revocation" those of tests/x509/test_crl.c.
#
#   tools/mkchains.sh DIR [revocation]
#
# In DIR, NAME.pem is one certificate, crl-NAME.pem a list of revoked ones, and chain-NAME.pem a
# leaf, what is sent with it, and the key. A name says what is unusual; nothing else is. The private
# keys are for tests only.
set -eu
export LC_ALL=C

die() {
    echo "mkchains.sh: $*" >&2
    exit 1
}

[ $# -eq 1 ] || [ "$*" = "$1 revocation" ] || {
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "$0" >&2
    exit 2
}
command -v openssl >/dev/null 2>&1 || die "needs the openssl command (tools/setup.sh test)"
mkdir -p "$1"
cd "$1"
work=$(mktemp -d "${TMPDIR:-/tmp}/mkchains.XXXXXX") || die "cannot make a temporary directory"
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

run_openssl() {
    if ! openssl "$@" >"$work/log" 2>&1 </dev/null; then
        cat "$work/log" >&2
        die "openssl $* failed"
    fi
}

# ---- keys: few, for they cost time; each with a request, of which only the key is used ----

new_request() {
    run_openssl req -new -config "$work/openssl.cnf" -key "$1.key" -subj /CN=request \
        -out "$work/$1.csr"
}

ec_key() {
    run_openssl genpkey -algorithm EC -pkeyopt "ec_paramgen_curve:$2" \
        -pkeyopt ec_param_enc:named_curve -out "$1.key"
    new_request "$1"
}

rsa_key() {
    run_openssl genpkey -algorithm RSA -pkeyopt "rsa_keygen_bits:$2" -out "$1.key"
    new_request "$1"
}

# ---- certificates ----

# `openssl ca` is the one command that every OpenSSL and LibreSSL lets choose both dates.
start_ca_database() {
    : >"$work/index.txt"
    mkdir "$work/issued"
    cat >"$work/openssl.cnf" <<EOC
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
email_in_dn = yes
copy_extensions = none
preserve = yes
[any]
organizationName = optional
commonName = optional
emailAddress = optional
EOC
    number=1000
}

from=20200101000000Z
to=21200101000000Z
from_now=$from to_now=$to # of the certificates that are made now
md=sha256

# issue NAME KEY ISSUER ISSUERKEY SUBJECT EXTENSIONS [OPTION...]: ISSUER is a certificate, or self.
issue() {
    i_name=$1 i_key=$2 i_issuer=$3 i_issuer_key=$4 i_subject=$5
    printf '%s\n' "$6" >"$work/extensions"
    shift 6
    if [ "$i_issuer" = self ]; then
        set -- "$@" -selfsign -keyfile "$i_issuer_key.key"
    else
        set -- "$@" -cert "$i_issuer.pem" -keyfile "$i_issuer_key.key"
    fi
    number=$((number + 1))
    echo "40${number}00" >"$work/serial"
    : >"$work/index.txt"
    run_openssl ca -batch -notext -config "$work/openssl.cnf" -in "$work/$i_key.csr" \
        -subj "$i_subject" -out "$i_name.pem" -startdate "$from_now" -enddate "$to_now" -md "$md" \
        -extfile "$work/extensions" "$@"
}

ski='subjectKeyIdentifier = hash'
aki='authorityKeyIdentifier = keyid:always'
no_ski='subjectKeyIdentifier = none'
no_aki='authorityKeyIdentifier = none'
ca_basic='basicConstraints = critical, CA:TRUE'
ca_usage='keyUsage = critical, keyCertSign, cRLSign'
leaf_basic='basicConstraints = critical, CA:FALSE'
leaf_usage='keyUsage = critical, digitalSignature'
server_auth='extendedKeyUsage = serverAuth'
names='subjectAltName = DNS:www.example.test'

# lines LINE...: of lines that set the same extension, the last; none for "NAME = none". OpenSSL 3
# adds key identifiers unless it is told not to, which older ones do not understand.
case $(openssl version) in
'OpenSSL '[012].* | LibreSSL*) identifiers_are_added= ;;
*) identifiers_are_added=yes ;;
esac

lines() {
    while [ $# -gt 0 ]; do
        line=$1
        shift
        for later; do
            [ "${later%% =*}" != "${line%% =*}" ] || line=
        done
        case $line in
        *KeyIdentifier' = none') [ -z "$identifiers_are_added" ] || printf '%s\n' "$line" ;;
        '' | *' = none') ;;
        *) printf '%s\n' "$line" ;;
        esac
    done
}

# root NAME [LINE...]: a self-signed authority with root.key.
root() {
    r_name=$1
    shift
    issue "$r_name" root self root "/O=pysock tests/CN=$r_name" \
        "$(lines "$ca_basic" "$ca_usage" "$ski" "$@")"
}

# ca NAME [LINE...]: an intermediate with int.key, by root.
ca() {
    c_name=$1
    shift
    issue "$c_name" int root root "/O=pysock tests/CN=$c_name" \
        "$(lines "$ca_basic" "$ca_usage" "$ski" "$aki" "$@")"
}

# leaf NAME ISSUER ISSUERKEY [LINE...]: a server; a LINE replaces a default.
leaf() {
    l_name=$1 l_issuer=$2 l_issuer_key=$3
    shift 3
    # "NAME = none" leaves it out.
    issue "$l_name" "${leaf_key:-leaf}" "$l_issuer" "$l_issuer_key" \
        "${leaf_subject-/O=pysock tests/CN=server}" \
        "$(lines "$leaf_basic" "$leaf_usage" "$server_auth" "$names" "$ski" "$aki" "$@")"
}

# under NAME [LINE...]: a leaf by the intermediate of this name, and the chain of the two.
under() {
    u_name=$1
    shift
    leaf "leaf-$u_name" "$u_name" int "$@"
    chain "$u_name" "leaf-$u_name" "$u_name"
}

# odd_ca NAME LINE...: an intermediate with these extensions alone, and a chain.
odd_ca() {
    o_name=$1
    shift
    issue "$o_name" int root root "/O=pysock tests/CN=$o_name" "$(lines "$@")"
    case "$*" in
    *"$no_ski"*) under "$o_name" "$no_aki" ;;
    *) under "$o_name" ;;
    esac
}

# odd_leaf NAME LINE...: a leaf by int, and its chain.
odd_leaf() {
    o_name=$1
    shift
    leaf "$o_name" int int "$@"
    chain "$o_name" "$o_name" int
}

# chain NAME CERT...: the file that a server loads. The key is that of all leaves, or leaf_key.
chain() {
    out=chain-$1.pem
    shift
    for cert; do
        cat "$cert.pem"
    done >"$out"
    cat "${leaf_key:-leaf}.key" >>"$out"
}

# ---- what openssl does not write: certificates that are changed and signed again ----

to_hex() {
    od -An -v -tx1 | tr -d ' \n'
}

from_hex() {
    # shellcheck disable=SC2059 # the octal escapes are the format
    printf "$(sed 's/../& /g' | tr ' ' '\n' | awk '
        function digit(c) { return index("0123456789abcdef", c) - 1 }
        length($0) == 2 {
            printf "\\%03o", digit(substr($0, 1, 1)) * 16 + digit(substr($0, 2, 1))
        }')"
}

# der TAG HEX: an element.
der() {
    length=$((${#2} / 2))
    if [ "$length" -lt 128 ]; then
        printf '%s%02x%s' "$1" "$length" "$2"
    elif [ "$length" -lt 256 ]; then
        printf '%s81%02x%s' "$1" "$length" "$2"
    else
        printf '%s82%04x%s' "$1" "$length" "$2"
    fi
}

# body_of CERT: the contents of tbsCertificate, or of tbsCertList.
body_of() {
    openssl asn1parse -in "$1.pem" >"$work/head"
    header=$(sed -n '1s/.*hl=\([0-9]*\).*/\1/p' "$work/head")
    openssl asn1parse -in "$1.pem" -strparse "$header" -noout -out "$work/tbs" >/dev/null
    openssl asn1parse -inform DER -in "$work/tbs" | head -1 >"$work/head"
    header=$(sed 's/.*hl=\([0-9]*\).*/\1/' "$work/head")
    to_hex <"$work/tbs" | cut -c $((header * 2 + 1))-
}

ecdsa_sha256=300a06082a8648ce3d040302

# assemble NAME TBS [ALGORITHM [SIGNATURE]]
assemble() {
    all=$(der 30 "$2${3:-$ecdsa_sha256}$(der 03 "00$4")")
    {
        echo "-----BEGIN ${label:-CERTIFICATE}-----"
        printf '%s' "$all" | from_hex | openssl base64
        echo "-----END ${label:-CERTIFICATE}-----"
    } >"$1.pem"
}

# changed NAME CERT ISSUERKEY SED [ALGORITHM]: SED is applied to the hexadecimal body.
changed() {
    body=$(body_of "$2")
    new=$(printf '%s\n' "$body" | sed "$4")
    [ "$body" != "$new" ] || [ $# -gt 4 ] || die "$1: $4 changes nothing"
    tbs=$(der 30 "$new")
    printf '%s' "$tbs" | from_hex >"$work/changed"
    openssl dgst -sha256 -sign "$3.key" "$work/changed" >"$work/signature"
    assemble "$1" "$tbs" "${5:-$ecdsa_sha256}" "$(to_hex <"$work/signature")"
}

# ---- the certificates ----

start_ca_database
ec_key root P-256
ec_key int P-256
ec_key int2 P-256
ec_key leaf P-256

# What is right in every way, and how it may be sent.
make_basic() {
    root root
    root root-other
    ca int
    leaf leaf int int
    leaf leaf-of-root root root
    issue int2 int2 int int '/O=pysock tests/CN=int2' \
        "$(lines "$ca_basic" "$ca_usage" "$ski" "$aki")"
    leaf leaf2 int2 int2
    leaf leaf-self self leaf "$no_aki"
    leaf_subject='/CN=by leaf'
    leaf leaf-by-leaf leaf leaf
    unset leaf_subject
    issue unrelated int2 self int2 '/CN=unrelated' "$(lines "$ca_basic" "$ca_usage" "$ski")"
    chain good leaf int
    chain good-rooted leaf int root
    chain of-root leaf-of-root
    chain long leaf2 int2 int
    chain long-disorder leaf2 unrelated int root int2
    chain extra leaf unrelated leaf-of-root int unrelated
    chain twice leaf leaf int int leaf root root
    chain missing leaf
    chain missing-middle leaf2 int
    chain self-signed leaf-self
    chain by-leaf leaf-by-leaf leaf int
    leaf client int int 'extendedKeyUsage = clientAuth'
    chain client client int
    chain client-missing client
    leaf both int int 'extendedKeyUsage = serverAuth, clientAuth'
    chain both both int
}

# One authority under several names, certificates and ages.
make_crossed() {
    ec_key new P-256
    subject='/O=pysock tests/CN=new root'
    extensions=$(lines "$ca_basic" "$ca_usage" "$ski")
    with_aki=$(lines "$ca_basic" "$ca_usage" "$ski" "$aki")
    issue new-root new self new "$subject" "$extensions"
    issue new-crossed new root root "$subject" "$with_aki"
    from_now=20200101000000Z to_now=20210101000000Z
    issue new-crossed-expired new root root "$subject" "$with_aki"
    issue int-old int root root '/O=pysock tests/CN=int' "$with_aki"
    to_now=$to
    leaf leaf-new new-root new
    chain crossed leaf-new new-crossed
    chain crossed-both leaf-new new-root new-crossed
    chain crossed-expired leaf-new new-crossed-expired
    chain crossed-expired-and-good leaf-new new-crossed-expired new-root new-crossed
    chain renewed leaf int-old int
    chain renewed-not leaf int-old

    # Two authorities that sign each other, and one of them by the root.
    issue a int self int '/CN=A' "$extensions"
    issue b int2 a int '/CN=B' "$with_aki"
    issue a-by-b int b int2 '/CN=A' "$with_aki"
    issue a-by-root int root root '/CN=A' "$with_aki"
    leaf leaf-a a int
    chain cycle leaf-a a-by-b b
    chain cycle-with-way-out leaf-a a-by-b b a-by-root

    # Another key by the name of int; identifiers would tell the two apart.
    extensions=$(lines "$ca_basic" "$ca_usage" "$no_ski" "$no_aki")
    issue int-impostor int2 self int2 '/O=pysock tests/CN=int' "$extensions"
    issue int-anonymous int root root '/O=pysock tests/CN=int' "$extensions"
    leaf leaf-anonymous int-anonymous int "$no_aki"
    leaf leaf-forged int-impostor int2 "$no_aki"
    chain two-keys leaf-anonymous int-impostor int-anonymous
    chain forged leaf-forged int-anonymous

    # A rollover: the same name signs its own new key, which no path length counts.
    ca roll-0 'basicConstraints = critical, CA:TRUE, pathlen:0'
    issue roll-new int2 roll-0 int '/O=pysock tests/CN=roll-0' "$with_aki"
    leaf leaf-roll roll-new int2
    chain self-issued leaf-roll roll-new roll-0
}

make_dated() {
    for age in expired future; do
        case $age in
        expired) from_now=20200101000000Z to_now=20210101000000Z ;;
        future) from_now=21000101000000Z to_now=21200101000000Z ;;
        esac
        root "root-$age"
        ca "int-$age"
        leaf "leaf-$age" int int
        leaf "client-$age" int int 'extendedKeyUsage = clientAuth'
        from_now=$from to_now=$to
        chain "leaf-$age" "leaf-$age" int
        chain "client-$age" "client-$age" int
        under "int-$age"
        leaf "leaf-root-$age" "root-$age" root
        chain "root-$age" "leaf-root-$age"
    done
}

make_extended_usage() {
    odd_leaf eku-none 'extendedKeyUsage = none'
    odd_leaf eku-any 'extendedKeyUsage = anyExtendedKeyUsage'
    odd_leaf eku-code 'extendedKeyUsage = codeSigning'
    ca int-server "$server_auth" && under int-server
    ca int-client 'extendedKeyUsage = clientAuth' && under int-client
    ca int-code 'extendedKeyUsage = codeSigning, emailProtection' && under int-code
    leaf client-int-server int-server int 'extendedKeyUsage = clientAuth'
    chain client-int-server client-int-server int-server
    root root-client 'extendedKeyUsage = clientAuth'
    leaf leaf-root-client root-client root
    chain root-client leaf-root-client
}

make_usage() {
    odd_leaf usage-none 'keyUsage = none'
    odd_leaf usage-other 'keyUsage = critical, nonRepudiation'
    odd_leaf client-usage-other 'keyUsage = critical, nonRepudiation' \
        'extendedKeyUsage = clientAuth'
}

make_authorities() {
    odd_ca ca-no-basic "$ca_usage" "$ski" "$aki"
    odd_ca ca-false 'basicConstraints = critical, CA:FALSE' "$ski" "$aki"
    odd_ca ca-no-sign "$ca_basic" 'keyUsage = critical, cRLSign' "$ski" "$aki"
    ca pathlen-0 'basicConstraints = critical, CA:TRUE, pathlen:0' && under pathlen-0
    ca pathlen-1 'basicConstraints = critical, CA:TRUE, pathlen:1'
    for n in 0 1; do
        issue "below-$n" int2 "pathlen-$n" int "/CN=below" \
            "$(lines "$ca_basic" "$ca_usage" "$ski" "$aki")"
        leaf "leaf-below-$n" "below-$n" int2
        chain "below-pathlen-$n" "leaf-below-$n" "below-$n" "pathlen-$n"
    done
    root root-pathlen 'basicConstraints = critical, CA:TRUE, pathlen:0'
    issue below-root int root-pathlen root '/CN=below root' \
        "$(lines "$ca_basic" "$ca_usage" "$ski" "$aki")"
    leaf leaf-below-root below-root int
    chain below-root-pathlen leaf-below-root below-root
    leaf leaf-root-pathlen root-pathlen root
    chain root-pathlen leaf-root-pathlen
}

# constrained NAME CONSTRAINTS: an intermediate nc-NAME.
constrained() {
    ca "nc-$1" "nameConstraints = $2"
}

# named NAME ISSUER SAN: a leaf with these names.
named() {
    leaf "$1" "nc-$2" int "subjectAltName = $3"
    chain "$1" "$1" "nc-$2"
}

make_constraints() {
    constrained dns 'critical, permitted;DNS:example.test'
    named dns-in dns 'DNS:www.example.test'
    named dns-in-all dns 'DNS:www.example.test, DNS:example.test, DNS:a.b.example.test'
    named dns-out dns 'DNS:www.other.test'
    named dns-suffix-out dns 'DNS:www.notexample.test'
    named dns-one-out dns 'DNS:www.example.test, DNS:www.other.test'
    named dns-wildcard-in dns 'DNS:*.example.test'
    named dns-other-kinds dns 'DNS:www.example.test, IP:10.0.0.1, email:a@other.test'
    leaf_subject='/CN=www.other.test'
    named dns-cn-out dns none
    leaf_subject='/CN=www.example.test'
    named dns-cn-in dns none
    leaf_subject='/CN=www.other.test.'
    named dns-cn-dot-out dns none
    leaf_subject='/CN=localhost'
    named dns-cn-label-out dns none
    unset leaf_subject
    constrained dns-soft 'permitted;DNS:example.test'
    named dns-soft-out dns-soft 'DNS:www.other.test'
    constrained dns-dot 'critical, permitted;DNS:.example.test'
    named dns-dot-in dns-dot 'DNS:www.example.test'
    constrained dns-no 'critical, excluded;DNS:example.test'
    named dns-no-hit dns-no 'DNS:www.example.test'
    named dns-no-miss dns-no 'DNS:www.other.test'
    named dns-no-wildcard dns-no 'DNS:*.test'
    constrained dns-no-www 'critical, excluded;DNS:www.example.test'
    named dns-no-covered dns-no-www 'DNS:*.example.test'
    constrained dns-both 'critical, permitted;DNS:example.test, excluded;DNS:www.example.test'
    named dns-both-hit dns-both 'DNS:www.example.test'
    named dns-both-miss dns-both 'DNS:mail.example.test'
    constrained dns-two 'critical, permitted;DNS:one.test, permitted;DNS:example.test'
    named dns-two-in dns-two 'DNS:www.example.test, DNS:www.one.test'
    constrained dns-nothing "critical, DER:$(der 30 "$(der a1 "$(der 30 8200)")")"
    named dns-nothing-left dns-nothing 'DNS:www.example.test'
    constrained ip 'critical, permitted;IP:127.0.0.0/255.0.0.0'
    named ip-in ip 'IP:127.0.0.1'
    named ip-out ip 'IP:10.0.0.1'
    named ip-six-out ip 'IP:::1'
    constrained ip6 'critical, permitted;IP:::/FFFF:FFFF:FFFF:FFFF:FFFF:FFFF:FFFF:FF00'
    named ip6-in ip6 'IP:::1'
    named ip6-out ip6 'IP:fe80::1'
    constrained ip-no 'critical, excluded;IP:127.0.0.0/255.0.0.0'
    named ip-no-hit ip-no 'IP:127.0.0.1'
    named ip-no-miss ip-no 'IP:10.0.0.1'
    constrained mail 'critical, permitted;email:example.test'
    named mail-in mail 'DNS:www.example.test, email:a@example.test'
    named mail-out mail 'DNS:www.example.test, email:a@other.test'
    named mail-below mail 'DNS:www.example.test, email:a@b.example.test'
    leaf_subject='/CN=server/emailAddress=a@other.test'
    named mail-subject-out mail 'DNS:www.example.test'
    unset leaf_subject
    constrained mail-no 'critical, excluded;email:a@example.test'
    named mail-no-hit mail-no 'DNS:www.example.test, email:a@EXAMPLE.test'
    named mail-no-miss mail-no 'DNS:www.example.test, email:b@example.test'
    constrained mail-at 'critical, excluded;email:@example.test'
    named mail-at-hit mail-at 'DNS:www.example.test, email:a@example.test'
    constrained dns-star 'critical, excluded;DNS:*.example.test'
    named dns-star-hit dns-star 'DNS:www.example.test'
    constrained dns-end 'critical, excluded;DNS:example.test.'
    named dns-end-hit dns-end 'DNS:www.example.test'
    constrained uri 'critical, permitted;URI:.example.test'
    named uri-in uri 'DNS:www.example.test, URI:https://www.example.test/x'
    named uri-out uri 'DNS:www.example.test, URI:https://www.other.test/x'
    named uri-bare uri 'DNS:www.example.test, URI:urn:isbn:0'
    constrained id 'critical, permitted;RID:1.2.3'
    named id-other-kind id 'DNS:www.example.test'
    named id-out id 'DNS:www.example.test, RID:1.2.3.4'
    constrained other 'critical, excluded;otherName:1.2.3;UTF8:x'
    named other-kind other 'DNS:www.example.test'
    named other-hit other 'DNS:www.example.test, otherName:1.2.3;UTF8:x'

    organization=$(printf '%s' 'pysock tests' | to_hex)
    elsewhere=$(printf '%s' 'other people' | to_hex)
    in_here=$(der 30 "$(der 31 "$(der 30 "060355040a$(der 0c "$organization")")")")
    in_others=$(der 30 "$(der 31 "$(der 30 "060355040a$(der 0c "$elsewhere")")")")
    constrained dir "critical, DER:$(der 30 "$(der a0 "$(der 30 "$(der a4 "$in_here")")")")"
    named dir-in dir 'DNS:www.example.test'
    leaf_subject='/O=PYSOCK  Tests/CN=server'
    named dir-in-folded dir 'DNS:www.example.test'
    leaf_subject='/O=other people/CN=server'
    named dir-out dir 'DNS:www.example.test'
    unset leaf_subject
    constrained dir-no "critical, DER:$(der 30 "$(der a1 "$(der 30 "$(der a4 "$in_others")")")")"
    named dir-no-miss dir-no 'DNS:www.example.test'
    leaf_subject='/O=other people/CN=server'
    named dir-no-hit dir-no 'DNS:www.example.test'
    unset leaf_subject

    # 82: a DNS name; 87: an address and a mask.
    base=$(der 82 "$(printf example.test | to_hex)")
    for malformed in "empty 3000" "cut 3002a010" "nothing 3002a000" \
        "max $(der 30 "$(der a0 "$(der 30 "${base}810101")")")" \
        "min $(der 30 "$(der a0 "$(der 30 "${base}800101")")")" \
        "mask $(der 30 "$(der a0 "$(der 30 "87087f000000ff00ff00")")")" \
        "length $(der 30 "$(der a0 "$(der 30 "87057f000000ff")")")"; do
        kind=${malformed%% *}
        constrained "bad-$kind" "critical, DER:${malformed#* }"
        case $kind in
        mask | length) named "bad-$kind" "bad-$kind" 'IP:127.0.0.1' ;;
        *) named "bad-$kind" "bad-$kind" 'DNS:www.example.test' ;;
        esac
    done

    # Of the root, and for the intermediate's own subject.
    root root-nc 'nameConstraints = critical, permitted;DNS:example.test'
    leaf leaf-root-nc-in root-nc root
    leaf leaf-root-nc-out root-nc root 'subjectAltName = DNS:www.other.test'
    chain root-nc-in leaf-root-nc-in
    chain root-nc-out leaf-root-nc-out
    issue nc-below int2 nc-dir int '/O=other people/CN=below' \
        "$(lines "$ca_basic" "$ca_usage" "$ski" "$aki")"
    leaf leaf-nc-below nc-below int2
    chain dir-middle-out leaf-nc-below nc-below nc-dir
    odd_leaf nc-in-leaf 'nameConstraints = critical, permitted;DNS:example.test'
}

make_algorithms() {
    md=sha1
    leaf leaf-sha1 int int && chain leaf-sha1 leaf-sha1 int
    ca int-sha1
    root root-sha1
    md=sha256
    under int-sha1
    leaf leaf-root-sha1 root-sha1 root && chain root-sha1 leaf-root-sha1
    for key in p384:P-384 p521:P-521 k1:secp256k1; do
        name=${key%%:*}
        ec_key "$name" "${key#*:}"
        issue "int-$name" "$name" root root "/CN=int-$name" \
            "$(lines "$ca_basic" "$ca_usage" "$ski" "$aki")"
    done
    md=sha384 && leaf leaf-int-p384 int-p384 p384 && chain int-p384 leaf-int-p384 int-p384
    md=sha512 && leaf leaf-int-p521 int-p521 p521 && chain int-p521 leaf-int-p521 int-p521
    md=sha256 && leaf leaf-int-k1 int-k1 k1 && chain int-k1 leaf-int-k1 int-k1
    for leaf_key in p384 p521; do
        leaf "leaf-$leaf_key" int int
        chain "leaf-$leaf_key" "leaf-$leaf_key" int
    done
    rsa_key rsa 2048
    rsa_key rsa1024 1024
    for leaf_key in rsa rsa1024; do
        leaf "leaf-$leaf_key" int int 'keyUsage = critical, digitalSignature, keyEncipherment'
        chain "leaf-$leaf_key" "leaf-$leaf_key" int
    done
    unset leaf_key
    for key in rsa rsa1024; do
        issue "int-$key" "$key" root root "/CN=int-$key" \
            "$(lines "$ca_basic" "$ca_usage" "$ski" "$aki")"
        leaf "leaf-int-$key" "int-$key" "$key" && chain "int-$key" "leaf-int-$key" "int-$key"
    done
    md=sha512 && leaf leaf-rsa-sha512 int-rsa rsa && md=sha256
    chain rsa-sha512 leaf-rsa-sha512 int-rsa
    name=leaf-pss
    issue "$name" leaf int-rsa rsa '/CN=server' "$(lines "$leaf_basic" "$leaf_usage" \
        "$server_auth" "$names" "$ski" "$aki")" -sigopt rsa_padding_mode:pss
    chain rsa-pss leaf-pss int-rsa
    # An authority, because a server with such a key and a client of TLS 1.2 share no suite.
    run_openssl genpkey -algorithm ED25519 -out ed25519.key
    new_request ed25519
    issue int-ed25519 ed25519 root root '/CN=int-ed25519' \
        "$(lines "$ca_basic" "$ca_usage" "$ski" "$aki")"
    lines "$leaf_basic" "$leaf_usage" "$server_auth" "$names" >"$work/extensions"
    run_openssl x509 -req -in "$work/leaf.csr" -CA int-ed25519.pem -CAkey ed25519.key \
        -set_serial 77 -days 3000 -extfile "$work/extensions" -out leaf-int-ed25519.pem
    chain int-ed25519 leaf-int-ed25519 int-ed25519
    leaf_key=ed25519
    leaf leaf-ed25519 int int && chain leaf-ed25519 leaf-ed25519 int
    run_openssl genpkey -genparam -algorithm DSA -pkeyopt dsa_paramgen_bits:1024 \
        -out "$work/dsa.pem"
    run_openssl genpkey -paramfile "$work/dsa.pem" -out dsa.key
    new_request dsa
    leaf_key=dsa
    leaf leaf-dsa int int && chain leaf-dsa leaf-dsa int
    unset leaf_key
    issue int-dsa dsa root root '/CN=int-dsa' "$(lines "$ca_basic" "$ca_usage" "$ski" "$aki")"
    leaf leaf-int-dsa int-dsa dsa && chain int-dsa leaf-int-dsa int-dsa
}

make_extensions() {
    odd_leaf critical '1.2.3.4 = critical, DER:0500'
    odd_leaf not-critical '1.2.3.4 = DER:0500'
    ca int-critical '1.2.3.4 = critical, DER:0500' && under int-critical
    root root-critical '1.2.3.4 = critical, DER:0500'
    leaf leaf-root-critical root-critical root && chain root-critical leaf-root-critical
    odd_leaf policies 'certificatePolicies = critical, 1.2.3'
    ca int-policies 'policyConstraints = critical, requireExplicitPolicy:0' && under int-policies

    leaf two int int '1.2.3.4 = DER:0500' '1.2.3.5 = DER:0500'
    changed duplicate two int 's/06032a03050402/06032a03040402/'
    chain duplicate duplicate int
    ca int-two '1.2.3.4 = DER:0500' '1.2.3.5 = DER:0500'
    changed int-duplicate int-two root 's/06032a03050402/06032a03040402/'
    leaf leaf-int-duplicate int-two int
    chain int-duplicate leaf-int-duplicate int-duplicate
    leaf plain int int
    serial='s/^\(a003020102\)0204......../\1'
    changed serial-zero plain int "${serial}020100/" && chain serial-zero serial-zero int
    long=4011223344556677889900aabbccddeeff00112233
    changed serial-long plain int "${serial}0215$long/" && chain serial-long serial-long int
    changed version-4 int root 's/^a003020102/a003020103/' && chain version-4 leaf version-4
    changed version-1-extensions int root 's/^a003020102//'
    chain version-1-extensions leaf version-1-extensions
    changed algorithms-differ plain int 's/^x/x/' 300a06082a8648ce3d040303
    chain algorithms-differ algorithms-differ int
    tbs=$(der 30 "$(body_of plain)")
    assemble damaged "$tbs" "$ecdsa_sha256" "$(der 30 020101020101)" && chain damaged damaged int

    # Version 1: no extensions at all.
    to_version_1='s/^a003020102//; s/a3[0-9a-f]\{2\}30[0-9a-f]\{2\}30.*06032a0304.*$//'
    leaf_subject='/CN=www.example.test'
    leaf bare int int 'basicConstraints = none' 'keyUsage = none' 'extendedKeyUsage = none' \
        'subjectAltName = none' "$no_ski" "$no_aki" \
        '1.2.3.4 = DER:0500'
    unset leaf_subject
    changed version-1 bare int "$to_version_1"
    chain version-1 version-1 int
    issue bare-ca int root root '/O=pysock tests/CN=bare-ca' \
        "$(lines "$no_ski" "$no_aki" '1.2.3.4 = DER:0500')"
    changed ca-version-1 bare-ca root "$to_version_1"
    leaf leaf-ca-version-1 ca-version-1 int "$no_aki"
    chain ca-version-1 leaf-ca-version-1 ca-version-1
    issue bare-root root self root '/O=pysock tests/CN=bare-root' \
        "$(lines "$no_ski" "$no_aki" '1.2.3.4 = DER:0500')"
    changed root-version-1 bare-root root "$to_version_1"
    leaf leaf-root-version-1 root-version-1 root "$no_aki"
    chain root-version-1 leaf-root-version-1
}

# As many authorities as a chain may have, each with a key of 4,096 bits and a public exponent as
# long, and a leaf whose signature one of them might have made.
make_costly() {
    octets=5555555555555555
    for _ in 1 2 3 4 5 6; do
        octets=$octets$octets
    done
    integer=$(der 02 "00d${octets#5}") # odd, and larger than the signature
    public=$(der 30 "$integer$integer")
    spki=$(der 30 "300d06092a864886f70d0101010500$(der 03 "00$public")")
    changed int-costly int-rsa root \
        "s/30820122300d06092a864886f70d0101010500.\{540\}0203010001/$spki/"
    assemble costly "$(der 30 "$(body_of leaf-int-rsa)")" 300d06092a864886f70d01010b0500 "$octets"
    list=
    for _ in 1 2 3 4 5 6 7; do
        list="$list int-costly int-costly int-costly int-costly int-costly int-costly int-costly"
        list="$list int-costly int-costly"
    done
    # shellcheck disable=SC2086 # a list of names
    chain costly costly $list
}

make_names() {
    odd_leaf wildcard 'subjectAltName = DNS:*.example.test'
    odd_leaf wildcard-top 'subjectAltName = DNS:*.test'
    odd_leaf wildcard-part 'subjectAltName = DNS:w*.example.test'
    odd_leaf wildcard-inner 'subjectAltName = DNS:www.*.test'
    odd_leaf wildcard-bare 'subjectAltName = DNS:*'
    odd_leaf address 'subjectAltName = IP:127.0.0.1, IP:::1'
    odd_leaf address-as-name 'subjectAltName = DNS:127.0.0.1'
    odd_leaf mail-only 'subjectAltName = email:a@www.example.test'
    leaf_subject='/CN=www.example.test'
    odd_leaf cn-only 'subjectAltName = none'
    odd_leaf cn-beside 'subjectAltName = DNS:other.test'
    odd_leaf cn-beside-mail 'subjectAltName = email:a@other.test'
    odd_leaf cn-beside-address 'subjectAltName = IP:127.0.0.1'
    leaf_subject='/CN=127.0.0.1'
    odd_leaf cn-address 'subjectAltName = none'
    leaf_subject='/CN=*.example.test'
    odd_leaf cn-wildcard 'subjectAltName = none'
    leaf_subject=/
    odd_leaf empty-subject 'subjectAltName = critical, DNS:www.example.test'
    odd_leaf empty-subject-soft
    unset leaf_subject
}

# RFC 5280 asks for more than OpenSSL does without X509_STRICT.
make_strict() {
    odd_ca soft-basic 'basicConstraints = CA:TRUE' "$ca_usage" "$ski" "$aki"
    odd_ca no-usage "$ca_basic" "$ski" "$aki"
    odd_ca no-ski "$ca_basic" "$ca_usage" "$no_ski" "$aki"
    odd_ca no-aki "$ca_basic" "$ca_usage" "$ski" "$no_aki"
    odd_ca critical-ski "$ca_basic" "$ca_usage" 'subjectKeyIdentifier = critical, hash' "$aki"
    odd_ca critical-aki "$ca_basic" "$ca_usage" "$ski" \
        'authorityKeyIdentifier = critical, keyid:always'
    odd_leaf leaf-no-aki "$no_aki"
    odd_leaf leaf-no-ski "$no_ski"
    odd_leaf leaf-no-basic 'basicConstraints = none'
    odd_leaf leaf-pathlen 'basicConstraints = critical, DER:3003020100'
    odd_leaf leaf-signs 'keyUsage = critical, digitalSignature, keyCertSign'
    odd_leaf leaf-is-ca "$ca_basic" "$ca_usage"
    issue root-nameless root self root / "$(lines "$ca_basic" "$ca_usage" "$ski")"
    leaf leaf-nameless root-nameless root
    chain root-nameless leaf-nameless
    issue int-nameless int root root / "$(lines "$ca_basic" "$ca_usage" "$ski" "$aki")"
    leaf leaf-int-nameless int-nameless int
    chain int-nameless leaf-int-nameless int-nameless
    issue root-no-usage root self root '/CN=root-no-usage' "$(lines "$ca_basic" "$ski")"
    leaf leaf-root-no-usage root-no-usage root && chain root-no-usage leaf-root-no-usage
    issue root-no-ski root self root '/CN=root-no-ski' \
        "$(lines "$ca_basic" "$ca_usage" "$no_ski" "$no_aki")"
    leaf leaf-root-no-ski root-no-ski root "$no_aki"
    chain root-no-ski leaf-root-no-ski
}

# ---- revocation ----

crl_aki='authorityKeyIdentifier = keyid:always'

# crl NAME ISSUER KEY LINES [SERIAL...]: LINES are extensions.
crl() {
    c_name=$1 c_issuer=$2 c_key=$3
    {
        cat "$work/openssl.cnf"
        printf '[crl]\n%s\n' "$4"
    } >"$work/crl.cnf"
    shift 4
    for c_serial; do
        printf 'R\t491231235959Z\t200601000000Z\t%s\tunknown\t/CN=revoked\n' "$c_serial"
    done >"$work/index.txt"
    run_openssl ca -gencrl -config "$work/crl.cnf" -cert "$c_issuer.pem" -keyfile "$c_key.key" \
        -crl_lastupdate "$from_now" -crl_nextupdate "$to_now" -crlexts crl -md "$md" \
        -out "crl-$c_name.pem"
}

# crl_by_int NAME LINE [SERIAL...]: by the intermediate, with one more extension.
crl_by_int() {
    c_name=$1 c_line=$2
    shift 2
    crl "$c_name" int int "$(lines "$crl_aki" "$c_line")" "$@"
}

# changed_crl NAME CRL SED: SED is applied to the hexadecimal body, which int signs again.
changed_crl() {
    label='X509 CRL'
    changed "crl-$1" "crl-$2" int "$3"
    unset label
}

serial_of() {
    openssl x509 -in "$1.pem" -noout -serial | sed 's/serial=//'
}

ski_of() {
    openssl x509 -in "$1.pem" -noout -ext subjectKeyIdentifier | sed -n '2s/ //gp'
}

make_revoked_chains() {
    root root
    ca int
    leaf leaf int int && chain good leaf int
    leaf other int int && chain other other int
    leaf leaf-of-root root root && chain of-root leaf-of-root
    leaf leaf-self self leaf "$no_aki" && chain self-signed leaf-self
    ca int-no-sign 'keyUsage = critical, keyCertSign' && under int-no-sign
    issue int2 int2 int int '/O=pysock tests/CN=int2' \
        "$(lines "$ca_basic" "$ca_usage" "$ski" "$aki")"
    leaf leaf2 int2 int2 && chain long leaf2 int2 int
    leaf client int int 'extendedKeyUsage = clientAuth' && chain client client int
}

make_lists() {
    serial=$(serial_of leaf)
    # Near misses: a part of the number, a longer one, its neighbour.
    crl int int int "$crl_aki" "${serial%??}" "${serial}00" "${serial%?}1" "01$serial" "80$serial"
    crl int-leaf int int "$crl_aki" 11 "$serial" 22
    crl int-client int int "$crl_aki" "$(serial_of client)"
    crl int-no-aki int int 'issuerAltName = DNS:ca.test' "$serial"
    crl int-int2 int int "$crl_aki" "$(serial_of int2)"
    crl int2 int2 int2 "$crl_aki"
    crl root root root "$crl_aki"
    crl root-int root root "$crl_aki" "$(serial_of int)"
    crl int-no-sign int-no-sign int "$crl_aki"
    from_now=20200101000000Z to_now=20210101000000Z
    crl int-expired int int "$crl_aki"
    crl int-expired-leaf int int "$crl_aki" "$serial"
    from_now=21000101000000Z to_now=$to
    crl int-future int int "$crl_aki"
    from_now=20230101000000Z
    crl int-later int int "$crl_aki"
    from_now=$from
    md=sha1 && crl int-sha1 int int "$crl_aki" && md=sha256

    # Others of the same name: with the same key identifier, and with its own.
    ec_key twin P-256
    issue int-twin twin root root '/O=pysock tests/CN=int' \
        "$(lines "$ca_basic" "$ca_usage" "subjectKeyIdentifier = $(ski_of int)" "$aki")"
    issue int-namesake twin root root '/O=pysock tests/CN=int' \
        "$(lines "$ca_basic" "$ca_usage" "$ski" "$aki")"
    crl int-forged int-twin twin "$crl_aki"
    crl int-forged-leaf int-twin twin "$crl_aki" "$serial"
    crl int-namesake int-namesake twin "$crl_aki" "$serial"

    # Fifty thousand entries, and the leaf.
    awk -v last="$serial" 'BEGIN {
        for (i = 0; i < 50000; i++)
            printf "R\t491231235959Z\t200601000000Z\t50%08X\tunknown\t/CN=revoked\n", i
        printf "R\t491231235959Z\t200601000000Z\t%s\tunknown\t/CN=revoked\n", last
    }' >"$work/many"
    crl int-some int int "$crl_aki" # writes the configuration
    cp "$work/many" "$work/index.txt"
    run_openssl ca -gencrl -config "$work/crl.cnf" -cert int.pem -keyfile int.key -crlexts crl \
        -crl_lastupdate "$from" -crl_nextupdate "$to" -out crl-int-many.pem
}

make_odd_lists() {
    crl_by_int int-critical '1.2.3.4 = critical, DER:0500'
    crl_by_int int-critical-leaf '1.2.3.4 = critical, DER:0500' "$serial"
    crl_by_int int-not-critical '1.2.3.4 = DER:0500'
    crl_by_int int-delta '2.5.29.27 = critical, DER:020101' "$serial"
    # issuingDistributionPoint: 81 users only, 82 authorities only, 83 some reasons, 84 indirect, 85
    # attribute certificates only, a0 a distribution point.
    crl_by_int int-users '2.5.29.28 = critical, DER:30038101ff'
    crl_by_int int-users-leaf '2.5.29.28 = critical, DER:30038101ff' "$serial"
    crl_by_int int-cas '2.5.29.28 = critical, DER:30038201ff'
    crl_by_int int-cas-soft '2.5.29.28 = DER:30038201ff'
    crl_by_int int-reasons '2.5.29.28 = critical, DER:300483020640'
    crl_by_int int-reasons-leaf '2.5.29.28 = critical, DER:300483020640' "$serial"
    crl_by_int int-indirect '2.5.29.28 = critical, DER:30038401ff'
    crl_by_int int-attributes '2.5.29.28 = critical, DER:30038501ff'
    point=$(der a0 "$(der a0 "$(der 86 "$(printf 'http://crl.test/1' | to_hex)")")")
    crl_by_int int-partition "2.5.29.28 = critical, DER:$(der 30 "$point")"
    crl_by_int int-bad-scope '2.5.29.28 = critical, DER:3000'
    crl_by_int int-bad-order '2.5.29.28 = critical, DER:30068201ff8101ff'

    # The date of the entry 11, and behind it what it says besides.
    crl int-11 int int "$crl_aki" 11
    entry=020111170d3230303630313030303030305a
    longer() {
        extension=$(der 30 "$(der 30 "$2")")
        item=$(der 30 "$entry$extension")
        changed_crl "$1" int-11 "s/$(der 30 "$(der 30 "$entry")")/$(der 30 "$item")/"
    }
    longer int-entry-critical 06032a03040101ff04020500
    longer int-entry-soft 06032a030404020500
    longer int-entry-reason 0603551d1504030a0101
    longer int-entry-issuer 0603551d1d0101ff040430028200

    # Malformed: no nextUpdate, an entry without a date, version 1 with extensions, another version.
    changed_crl bad-no-next int 's/180f32313230303130313030303030305a//'
    item=$(der 30 0201110500)
    changed_crl bad-entry int-11 "s/$(der 30 "$(der 30 "$entry")")/$(der 30 "$item")/"
    changed_crl bad-version-1 int 's/^020101//'
    changed_crl bad-version-3 int 's/^020101/020102/'
}

make_weak() {
    md=sha1 && leaf leaf-sha1 int int && md=sha256
    chain sha1 leaf-sha1 int
    for bits in 512 1024 2048 3072; do
        rsa_key "rsa$bits" "$bits"
        issue "int-rsa$bits" "rsa$bits" root root "/CN=int-rsa$bits" \
            "$(lines "$ca_basic" "$ca_usage" "$ski" "$aki")"
        leaf "leaf-rsa$bits" "int-rsa$bits" "rsa$bits"
        chain "rsa$bits" "leaf-rsa$bits" "int-rsa$bits"
    done
    md=sha1 && leaf leaf-rsa-sha1 int-rsa2048 rsa2048 && md=sha256
    chain rsa-sha1 leaf-rsa-sha1 int-rsa2048
    leaf_key=rsa1024
    leaf leaf-of-rsa1024 int int 'keyUsage = critical, digitalSignature, keyEncipherment'
    chain leaf-rsa1024 leaf-of-rsa1024 int
    unset leaf_key
    leaf_subject='/CN=www.example.test'
    odd_leaf cn-only 'subjectAltName = none'
    odd_leaf cn-only-mail 'subjectAltName = email:a@other.test'
    odd_leaf cn-beside 'subjectAltName = DNS:other.test'
    odd_leaf cn-beside-address 'subjectAltName = IP:127.0.0.1'
    unset leaf_subject
}

# Roots whose names are written in unusual ways, each with a leaf.
named_root() {
    n_name=$1 n_subject=$2
    shift 2
    issue "named/$n_name" root self root "$n_subject" \
        "$(lines "$ca_basic" "$ca_usage" "$ski")" "$@"
    leaf "leaf-named-$n_name" "named/$n_name" root && chain "named-$n_name" "leaf-named-$n_name"
}

make_directories() {
    mkdir named many
    named_root case '/O=PySock TESTS/CN=RooT of Case'
    named_root blanks '/O=  pysock    tests  /CN= root of   blanks '
    named_root umlaut '/O=pysock tests/CN=Grüße aus Köln' -utf8
    named_root multi '/CN=root/O=pysock tests+emailAddress=Root@Example.TEST+CN=Another' \
        -multivalue-rdn
    # The same text as a BMPString and as a TeletexString, in issuer and subject.
    named_root plain '/CN=AbcD'
    common_name() {
        der 30 "$(der 31 "$(der 30 "0603550403$1")")"
    }
    for kind in bmp:1e080041006200630044 teletex:140441626344 latin:1404e4626344; do
        n_name=${kind%%:*}
        changed "named/$n_name" named/plain root \
            "s/$(common_name 0c0441626344)/$(common_name "${kind#*:}")/g"
        leaf "leaf-named-$n_name" "named/$n_name" root
        chain "named-$n_name" "leaf-named-$n_name"
    done
    rm named/plain.pem

    # A crowd, with the root and another one of its name.
    count=0
    extensions=$(lines "$ca_basic" "$ca_usage")
    while [ $count -lt 198 ]; do
        count=$((count + 1))
        issue "many/$count" int self int "/CN=number $count" "$extensions"
    done
    cp root.pem many/root.pem
    issue many/namesake int self int '/O=pysock tests/CN=root' \
        "$(lines "$ca_basic" "$ca_usage" "$ski")"
}

if [ "${2-}" = revocation ]; then
    make_revoked_chains
    make_lists
    make_odd_lists
    make_weak
    make_directories
    exit
fi
make_basic
make_crossed
make_dated
make_extended_usage
make_usage
make_authorities
make_constraints
make_algorithms
make_extensions
make_costly
make_names
make_strict
