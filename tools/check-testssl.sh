#!/bin/sh
# Runs testssl.sh with its default checks against https_server (examples/apps/) with its default
# settings, and fails on any finding of severity HIGH, CRITICAL or FATAL that is not due to the
# certificate.
#
#   tools/check-testssl.sh [CERT]    CERT is a name in tests/certs: server-ec if not said
#
# build/examples/https_server must be there (make examples). All stays on loopback, without DNS; it
# takes about a minute, and is ended after LIMIT seconds (600).
set -u
export LC_ALL=C

cd "$(dirname "$0")/.." || exit 1
cert=tests/certs/${1:-server-ec}
limit=${LIMIT:-600}
server=build/examples/https_server
out=build/testssl

die() {
    echo "check-testssl.sh: $*" >&2
    exit 1
}

for testssl in testssl testssl.sh ''; do
    ! command -v "$testssl" >/dev/null 2>&1 || break
done
[ -n "$testssl" ] || die "testssl is not installed; run tools/setup.sh ci"
[ -x $server ] || die "$server is not there; run make examples"

rm -rf $out
mkdir -p $out/files
echo hello >$out/files/index.html
$server -p 0 --cert "$cert.pem" --key "$cert.key" $out/files >$out/server.log 2>&1 &
server_pid=$!
trap 'kill $server_pid 2>/dev/null' EXIT
trap 'exit 1' HUP INT TERM
port=
while [ -z "$port" ]; do
    kill -0 $server_pid 2>/dev/null || { cat $out/server.log >&2; die "the server ended"; }
    port=$(sed -n 's|.* at https://127\.0\.0\.1:\([0-9]*\)/.*|\1|p' $out/server.log)
    [ -n "$port" ] || sleep 0.1
done

# Its exit status adds up findings of every severity: the report tells more.
timeout -k 10 "$limit" "$testssl" --ip 127.0.0.1 --nodns none --warnings batch --color 0 \
    --jsonfile $out/report.json "https://localhost:$port" >$out/log 2>&1 </dev/null
kill -0 $server_pid 2>/dev/null || { cat $out/server.log >&2; die "the server died"; }
[ -s $out/report.json ] || { tail -n 40 $out/log >&2; die "$testssl wrote no report"; }

python3 - $out/report.json <<'EOF'
import json
import sys

# What is due to the test certificate, and to nothing that the server does.
EXCEPTED = {
    "cert_chain_of_trust": "its authority is the tests' own, which no trust store has",
    "cert_trust": "the same, as some versions call it",
    "cert_validityPeriod": "it is valid for a hundred years, so that tests never expire",
    "cert_extlifeSpan": "the same, as newer versions call it",
    "cert_revocation": "it names neither a CRL nor an OCSP responder: nobody revokes it",
}

# The checks that must have been made; a report without them is of a run that broke off.
EXPECTED = ["TLS1_2", "cipher_negotiated", "heartbleed", "secure_renego", "BEAST", "LUCKY13",
            "RC4", "scanTime"]

with open(sys.argv[1]) as file:
    findings = json.load(file)
known = {finding["id"] for finding in findings}
missing = [name for name in EXPECTED if name not in known]
bad = []
for finding in findings:
    if finding["severity"] not in ("HIGH", "CRITICAL", "FATAL"):
        continue
    line = f"{finding['severity']} {finding['id']}: {finding['finding']}"
    reason = EXCEPTED.get(finding["id"].split(" ")[0])
    print(f"{line} ({reason})" if reason else f"FAILED {line}")
    if not reason:
        bad.append(line)
if missing:
    print("FAILED: the report has nothing of", *missing)
print(f"testssl: {len(findings)} findings, {len(bad)} of them HIGH or worse and ours")
sys.exit(1 if bad or missing else 0)
EOF
