#!/usr/bin/env python3
"""Certificates for tests/x509/test_certinfo.c, and what Python's own ssl module and openssl say of
them.

certinfo.py make DIR          writes certificates with every odd form of a field, as PEM
certinfo.py beyond DIR        the same, of what the library reads and OpenSSL does not
certinfo.py split BUNDLE DIR  one file for each certificate of a bundle
certinfo.py show DIR          for each DIR/*.pem: "== path", then a line for each field; "error"
                              where Python refuses the certificate
certinfo.py pems              DER_cert_to_PEM_cert() of 0 to 199 bytes
certinfo.py times             what cert_time_to_seconds() makes of each line of the input
certinfo.py objects           what txt2obj() makes of each line of the input, with and without names
certinfo.py nids LOW HIGH     what nid2obj() makes of each number
"""
import glob
import hashlib
import os
import re
import ssl
import subprocess
import sys
import tempfile

import _ssl

# ---- DER, as odd as wanted ----


def tlv(tag, *parts):
    body = b"".join(parts)
    size = len(body)
    if size < 0x80:
        return bytes([tag, size]) + body
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + body


def seq(*parts):
    return tlv(0x30, *parts)


def integer(value):
    bits = (value if value >= 0 else value + 1).bit_length()
    return tlv(0x02, value.to_bytes(bits // 8 + 1, "big", signed=True))


def oid(text):
    arcs = [int(arc) for arc in text.split(".")]
    out = b""
    for arc in [arcs[0] * 40 + arcs[1]] + arcs[2:]:
        digits = [arc & 127]
        while arc > 127:
            arc >>= 7
            digits.insert(0, 128 | arc & 127)
        out += bytes(digits)
    return tlv(0x06, out)


UTF8, NUMERIC, PRINTABLE, T61, IA5, VISIBLE, UNIVERSAL, BMP = 12, 18, 19, 20, 22, 26, 28, 30
CN = "2.5.4.3"


def attribute(name, value, tag=UTF8):
    if isinstance(value, str):
        codecs = {BMP: "utf-16-be", UNIVERSAL: "utf-32-be", T61: "latin-1"}
        value = value.encode(codecs.get(tag, "utf-8"))
    return seq(oid(name), tlv(tag, value))


def name(*rdns):
    """Each an attribute, or a list of those of one RDN."""
    return seq(*[tlv(0x31, *(rdn if isinstance(rdn, list) else [rdn])) for rdn in rdns])


def extension(number, value, critical=False):
    return seq(oid(number), tlv(0x01, b"\xff") if critical else b"", tlv(0x04, value))


MODULUS = int.from_bytes(hashlib.shake_256(b"a modulus").digest(256), "big") | 1 << 2047 | 1


def rsa_key(bits=2048):
    modulus = MODULUS >> 2048 - bits | 1
    key = seq(integer(modulus), integer(65537))
    return seq(seq(oid("1.2.840.113549.1.1.1"), tlv(5)), tlv(3, b"\0", key))


SHA256_RSA = seq(oid("1.2.840.113549.1.1.11"), tlv(5))
PLAIN = name(attribute(CN, "plain"))


def certificate(subject=PLAIN, issuer=PLAIN, serial=integer(1), extensions=(), key=None,
                algorithm=SHA256_RSA, version=3, before=tlv(23, b"251005230156Z"),
                after=tlv(24, b"20770102030405Z")):
    body = [tlv(0xA0, integer(version - 1)) if version > 1 else b"", serial, algorithm, issuer,
            seq(before, after), subject, key or rsa_key()]
    if extensions:
        body.append(tlv(0xA3, seq(*extensions)))
    return seq(seq(*body), algorithm, tlv(3, b"\0", b"no signature"))


def alt_names(*names):
    return [extension("2.5.29.17", seq(*names))]


def other_name(number, value):
    return tlv(0xA0, oid(number), tlv(0xA0, value))


def access(method, location):
    return seq(oid("1.3.6.1.5.5.7.48." + method), location)


def uri(text):
    return tlv(0x86, text.encode())


def point(*names):
    return seq(tlv(0xA0, tlv(0xA0, *names)))


SHORT = bytes(range(1, 17))
ATTRIBUTES = ["2.5.4.%d" % n for n in range(3, 101) if n < 55 or n in (65, 72, 97)]
ATTRIBUTES += ["0.9.2342.19200300.100.1.%d" % n for n in (1, 3, 25)]
ATTRIBUTES += ["1.3.6.1.4.1.311.60.2.1.%d" % n for n in (1, 2, 3)]
ATTRIBUTES += ["1.2.840.113549.1.9.%d" % n for n in (1, 2, 8)]
ATTRIBUTES += ["1.2.3.4", "2.999.1.0", "0.39.5", "1.39.128.16384",
               "2.25.329800735698586629295641978511506172918"]
SIGNATURES = ["1.2.840.113549.1.1.%d" % n for n in (4, 5, 10, 12, 13, 14)]
SIGNATURES += ["1.2.840.10045.4.1"] + ["1.2.840.10045.4.3.%d" % n for n in (1, 2, 3, 4)]
SIGNATURES += ["1.3.101.112", "1.3.101.113", "2.16.840.1.101.3.4.3.2", "1.2.3.4.5"]
CURVES = ["prime192v1", "prime256v1", "secp224r1", "secp256k1", "secp384r1", "secp521r1",
          "brainpoolP256r1", "brainpoolP384r1", "brainpoolP512r1"]


def names_of_all_kinds():
    strings = {"utf8": (UTF8, "B\u00fccher \u2713 \U0001f512"),
               "printable": (PRINTABLE, "Plain text"),
               "latin-in-printable": (PRINTABLE, b"B\xfccher"),
               "ia5": (IA5, "some@example.org"),
               "t61": (T61, "B\u00fccher"), "bmp": (BMP, "B\u00fccher \u2713"),
               "universal": (UNIVERSAL, "B\u00fccher \U0001f512"), "numeric": (NUMERIC, "12 34"),
               "bits": (3, b"\x00\x41\x42\x43"), "nul": (UTF8, "good\0evil"),
               "nul-in-bmp": (BMP, "good\0evil"), "blank": (UTF8, ""), "long": (UTF8, "x" * 3000),
               "bad-utf8": (UTF8, b"\xff\xfe"), "overlong-utf8": (UTF8, b"\xc0\x80"),
               "odd-bmp": (BMP, b"\0A\0"), "odd-universal": (UNIVERSAL, b"\0\0\0"),
               "large-universal": (UNIVERSAL, b"\0\x11\0\0"),
               "surrogate-utf8": (UTF8, b"\xed\xa0\x80")}
    for key, (tag, value) in strings.items():
        yield "string-" + key, certificate(subject=name(attribute(CN, value, tag)))
    yield "attributes", certificate(subject=name(*[attribute(a, "of " + a) for a in ATTRIBUTES]))
    yield "multi-valued", certificate(
        subject=name(attribute("2.5.4.6", "XY", PRINTABLE),
                     [attribute(CN, "one"), attribute("2.5.4.11", "two")], attribute(CN, "three")),
        issuer=name([attribute(CN, "a"), attribute(CN, "b"), attribute("1.2.3.4", "c")]))
    yield "empty-names", certificate(subject=name(), issuer=name())


def alt_names_of_all_kinds():
    kinds = {
        "dns": [tlv(0x82, b"www.example.org"), tlv(0x82, b"*.example.org"), tlv(0x82, b"")],
        "nul": [tlv(0x82, b"good.org\0.evil.org"), tlv(0x81, b"a@b\0c"), tlv(0x86, b"http://a\0b")],
        "utf8": [tlv(0x82, "b\u00fccher.example".encode()),
                 tlv(0x81, "\u2713@example.org".encode())],
        "bad-utf8": [tlv(0x82, b"b\xfccher.example")],
        "ipv4": [tlv(0x87, bytes([127, 0, 0, 1])), tlv(0x87, bytes([255, 10, 0, 99]))],
        "ipv6": [tlv(0x87, bytes(15) + b"\1"), tlv(0x87, SHORT), tlv(0x87, b"\xfe\x80" + bytes(14)),
                 tlv(0x87, bytes.fromhex("20010db8000000000000000000000001"))],
        "ip-of-other-sizes": [tlv(0x87, bytes(5)), tlv(0x87, b""), tlv(0x87, bytes(32))],
        "email": [tlv(0x81, b"some@example.org")],
        "uri": [uri("https://example.org/a?b=c&d:e")],
        "directory": [tlv(0xA4, name(attribute("2.5.4.6", "XY", PRINTABLE),
                                     [attribute(CN, "B\u00fccher", BMP),
                                      attribute("1.2.3.4", "x")])),
                      tlv(0xA4, name()), tlv(0x82, b"behind.example")],
        "rid": [tlv(0x88, oid("1.2.3.4.5")[2:]), tlv(0x88, oid("2.999.12345678901234567890")[2:])],
        "known-rid": [tlv(0x88, oid("1.3.6.1.5.5.7.3.1")[2:])],
        "other": [other_name("1.2.3.4", tlv(UTF8, b"x")), other_name("1.2.3.4", tlv(IA5, b"x")),
                  other_name("1.2.3.4", seq(integer(1)))],
        "known-other": [other_name("1.3.6.1.4.1.311.20.2.3", tlv(UTF8, b"who@example.org")),
                        other_name("1.3.6.1.5.5.7.8.5", tlv(UTF8, b"xmpp@example.org")),
                        other_name("1.3.6.1.5.5.7.8.7", tlv(IA5, b"_srv.example.org")),
                        other_name("1.3.6.1.5.5.7.8.8", tlv(UTF8, b"realm.example.org")),
                        other_name("1.3.6.1.5.5.7.8.9", tlv(UTF8, b"smtp@example.org"))],
        "known-other-of-wrong-type": [other_name("1.3.6.1.4.1.311.20.2.3", integer(1)),
                                      other_name("1.3.6.1.5.5.7.8.7", tlv(UTF8, b"x"))],
        "x400": [tlv(0xA3, seq()), tlv(0x82, b"behind.example")],
        "edi": [tlv(0xA5, tlv(0xA1, tlv(UTF8, b"party"))), tlv(0x82, b"behind.example")],
        "many": [tlv(0x82, b"host%d.example" % n) for n in range(3000)],
    }
    for key, names in kinds.items():
        yield "san-" + key, certificate(extensions=alt_names(*names))


def numbers_of_all_kinds():
    serials = {"zero": 0, "one": 1, "127": 127, "128": 128, "255": 255, "256": 256, "negative": -1,
               "minus-128": -128, "minus-129": -129, "minus-256": -256, "minus-255": -255,
               "twenty": 2 ** 159 - 1, "negative-twenty": -2 ** 158 + 5}
    for key, value in serials.items():
        yield "serial-" + key, certificate(serial=integer(value))
    yield "serial-empty", certificate(serial=tlv(2))
    yield "serial-padded", certificate(serial=tlv(2, b"\0\1"))
    yield "serial-padded-negative", certificate(serial=tlv(2, b"\xff\x81"))
    times = {"1950": tlv(23, b"500101000000Z"), "1999": tlv(23, b"991231235959Z"),
             "2049": tlv(23, b"491231235959Z"), "2000": tlv(23, b"000229120000Z"),
             "1900": tlv(24, b"19000301000000Z"), "9999": tlv(24, b"99991231235959Z")}
    for key, value in times.items():
        yield "time-" + key, certificate(before=value)
    for version in (1, 2, 3):
        yield "version-%d" % version, certificate(version=version)


def keys_of_all_kinds():
    for bits in (1024, 1031, 2047, 2048):
        yield "rsa-%d" % bits, certificate(key=rsa_key(bits))
    for number, algorithm in enumerate(SIGNATURES):
        yield "signature-%02d" % number, certificate(algorithm=seq(oid(algorithm)))
    keys = [("ec-" + curve, openssl("ecparam", "-name", curve, "-genkey", "-noout"))
            for curve in CURVES]
    keys += [(kind, openssl("genpkey", "-algorithm", kind)) for kind in ("ED25519", "X25519")]
    for title, key in keys:
        yield title, certificate(key=openssl("pkey", "-pubout", "-outform", "DER", data=key))


def extensions_of_all_kinds():
    def info(*descriptions):
        return [extension("1.3.6.1.5.5.7.1.1", seq(*descriptions))]

    def points(*values):
        return [extension("2.5.29.31", seq(*values))]

    yield "aia", certificate(extensions=info(
        access("1", uri("http://ocsp.example/a")), access("2", uri("http://ca.example/ca.crt")),
        access("1", uri("http://ocsp.example/b")), access("1", tlv(0x82, b"no.uri.example")),
        access("3", uri("http://time.example/")), access("2", tlv(0xA4, PLAIN))))
    yield "aia-empty", certificate(extensions=info())
    yield "aia-cut", certificate(extensions=info(access("1", uri("http://a/")), b"\x30\x05\x06"))
    yield "aia-wrong-type", certificate(extensions=info(integer(1)))
    yield "aia-no-sequence", certificate(extensions=[extension("1.3.6.1.5.5.7.1.1", integer(1))])
    yield "aia-trailing", certificate(extensions=[extension(
        "1.3.6.1.5.5.7.1.1", seq(access("1", uri("http://a/"))) + b"\0\0")])
    yield "cdp", certificate(extensions=points(
        point(uri("http://crl.example/a"), uri("ldap://crl.example/b")),
        point(tlv(0xA4, PLAIN), uri("http://crl.example/c")),
        seq(tlv(0xA0, tlv(0xA0, uri("http://crl.example/d"))), tlv(0x81, b"\1\x60"),
            tlv(0xA2, tlv(0xA4, PLAIN)))))
    yield "cdp-without-point", certificate(extensions=points(seq(), point(uri("http://a/"))))
    yield "cdp-empty", certificate(extensions=points())
    yield "cdp-cut", certificate(extensions=points(point(uri("http://a/")), b"\x30\x05\xa0"))
    yield "cdp-wrong-type", certificate(extensions=points(integer(1)))
    yield "ca", certificate(extensions=[extension("2.5.29.19", seq(tlv(1, b"\xff")), True)])
    yield "no-ca", certificate(extensions=[extension("2.5.29.19", seq(), True)])
    yield "unknown", certificate(extensions=[extension("1.2.3.4", b"anything")])


def what_openssl_does_not_read():
    values = {"surrogates": tlv(BMP, "B\u00fccher \U0001f512".encode("utf-16-be")),
              "lone-surrogate": tlv(BMP, b"\xd8\0\0A"), "cut-surrogate": tlv(BMP, b"\xd8\0"),
              "low-surrogate": tlv(BMP, b"\xdc\0\0A"),
              "sequence": seq(tlv(UTF8, b"Street"), tlv(UTF8, b"Town")),
              "octets": tlv(4, b"\x01\xab"), "visible": tlv(VISIBLE, b"text")}
    for title, value in values.items():
        yield title, certificate(subject=name(seq(oid(CN), value)))
    yield "aia-nul", certificate(extensions=[extension("1.3.6.1.5.5.7.1.1", seq(
        access("1", uri("http://a\0b/")), access("1", tlv(0x86, b"\xff")),
        access("1", uri("http://good.example/"))))])
    san = {"cut": [b"\x82\x05a"], "wrong-tag": [tlv(0x89, b"a")], "wrong-form": [tlv(0xA2, b"a")],
           "bad-directory": [tlv(0xA4, integer(1))], "bad-rid": [tlv(0x88, b"\x80\x01")],
           "cut-rid": [tlv(0x88, b"\x2a\x83")], "empty-rid": [tlv(0x88)],
           "large-rid": [tlv(0x88, b"\x2a" + b"\xff" * 600 + b"\x01")],
           "bad-other": [tlv(0xA0, integer(1))]}
    for title, names in san.items():
        yield "san-" + title, certificate(extensions=alt_names(*names))
    yield "bad-upn", certificate(extensions=alt_names(
        other_name("1.3.6.1.4.1.311.20.2.3", tlv(UTF8, b"\xff"))))
    yield "bad-attribute", certificate(subject=name(seq(oid(CN))))
    yield "long-attribute", certificate(subject=name(seq(oid(CN), tlv(UTF8, b"a"), integer(1))))


def write(folder, kinds):
    for title, der in kinds:
        with open(os.path.join(folder, title + ".pem"), "w") as f:
            f.write(ssl.DER_cert_to_PEM_cert(der))


def make(folder):
    for kinds in (names_of_all_kinds, alt_names_of_all_kinds, numbers_of_all_kinds,
                  keys_of_all_kinds, extensions_of_all_kinds):
        write(folder, kinds())


def beyond(folder):
    write(folder, what_openssl_does_not_read())


def split(bundle, folder):
    with open(bundle) as f:
        found = re.findall("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", f.read(),
                           re.S)
    for number, text in enumerate(found):
        with open(os.path.join(folder, "bundle-%03d.pem" % number), "w") as f:
            f.write(text)


# ---- what others say ----


def openssl(*args, data=None):
    return subprocess.run(["openssl", *args], input=data, check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL).stdout


def plain(value):
    octets = value.encode() if isinstance(value, str) else bytes(value)
    return "".join(chr(b) if 0x20 < b < 0x7F and b != 0x25 else "%%%02X" % b for b in octets)


def show_name(what, rows):
    for number, rdn in enumerate(rows):
        for key, value in rdn:
            print(what, number, plain(key), plain(value))


def show_key(path):
    text = openssl("x509", "-noout", "-text", "-in", path).decode("utf-8", "replace")
    kind = re.search("Public Key Algorithm: (.*)", text).group(1)
    bits = re.search(r"Public-Key: \((\d+) bit\)", text)
    kind = {"rsaEncryption": "RSA", "id-ecPublicKey": "EC"}.get(kind)
    print("key", kind, bits.group(1) if kind and bits else 0)
    print("signature", re.search(r"Signature Algorithm: (\S+)", text).group(1))
    print("ca", int("CA:TRUE" in text))


def show_cert(path, text):
    cert = _ssl._test_decode_cert(path)
    print("version", cert["version"])
    print("serial", cert["serialNumber"])
    show_name("subject", cert["subject"])
    show_name("issuer", cert["issuer"])
    for key, title in ("notBefore", "not_before"), ("notAfter", "not_after"):
        print(title, cert[key])
        print(title + "_seconds", ssl.cert_time_to_seconds(cert[key]))
    for kind, value in cert.get("subjectAltName", ()):
        print("san", plain(kind), "" if kind == "DirName" else plain(value))
        if kind == "DirName":
            show_name("dirname", value)
    lists = {"OCSP": "ocsp", "caIssuers": "ca_issuers", "crlDistributionPoints": "crl"}
    for key, title in lists.items():
        for value in cert.get(key, ()):
            print(title, plain(value))
    show_key(path)
    print("sha256", hashlib.sha256(ssl.PEM_cert_to_DER_cert(text)).hexdigest())


def show_one(path):
    """The first certificate of the file, whatever stands before it."""
    print("==", path)
    with open(path) as f:
        found = re.search("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", f.read(),
                          re.S)
    with tempfile.NamedTemporaryFile("w") as alone:
        alone.write(found.group(0) if found else "")
        alone.flush()
        try:
            _ssl._test_decode_cert(alone.name)
        except (ssl.SSLError, UnicodeDecodeError):
            print("error")
        else:
            show_cert(alone.name, found.group(0))


def show(folder):
    for path in sorted(glob.glob(os.path.join(folder, "*.pem"))):
        show_one(path)


def pems():
    for size in range(200):
        print(ssl.DER_cert_to_PEM_cert(bytes(range(size))), end="")


def times():
    for line in sys.stdin.read().split("\n"):
        try:
            print(ssl.cert_time_to_seconds(line))
        except ValueError:
            print("error")


def try_object(call, *args):
    try:
        print(*(str(part) for part in call(*args)), sep="|")
    except ValueError:
        print("error")


def objects():
    for line in sys.stdin.read().split("\n"):
        try_object(lambda: _ssl.txt2obj(line, name=False))
        try_object(lambda: _ssl.txt2obj(line, name=True))


def nids(low, high):
    for number in range(int(low), int(high)):
        try_object(lambda: _ssl.nid2obj(number))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
