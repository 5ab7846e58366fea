#!/usr/bin/env python3
"""Variants of PEM files for tests/x509/test_pemfiles.c, and what Python's own ssl module, with
OpenSSL, takes of each.

pemfiles.py DIR   writes DIR/anchors-*.pem, chain-*.pem and key-*.pem, and to its output a line for
                  each: the file, how many objects OpenSSL takes (-1: it refuses the file), how many
                  lines there are that end one, and what was done to it
"""
import os
import ssl
import sys

CERTS = "tests/certs/"
CHAIN_KEY = CERTS + "chain-ec.key"
KEY_CERT = CERTS + "server-ec.pem"

INSERTED = {
    "newline": b"\n", "CR": b"\r", "CRLF": b"\r\n", "blank": b" ", "tab": b"\t", "VT": b"\v",
    "FF": b"\f", "NUL": b"\0", "control-Z": b"\x1a", "DEL": b"\x7f", "dash": b"-", "pad": b"=",
    "letter": b"A", "star": b"*", "colon": b":", "hash": b"#", "umlaut": b"\xc3\xa4",
    "no-break space": b"\xa0", "BOM": b"\xef\xbb\xbf", "text": b" x", "five dashes": b"-----",
    "empty line": b"\n\n", "blank line": b"\n \n", "long text": b"x" * 300,
    "long line": b"\n" + b"x" * 300 + b"\n", "long blanks": b" " * 300, "header": b"Note: x\n",
    "header and line": b"Note: x\n\n", "comment line": b"\n# a comment\n", "backslash": b"\\\n",
    "pad and line": b"=\n", "BEGIN": b"-----BEGIN CERTIFICATE-----\n",
    "END": b"-----END CERTIFICATE-----\n", "BEGIN of another kind": b"-----BEGIN X-----\n",
    "escape": b"\\n", "quote": b'"', "comma": b",", "bracket": b"</ds:X509Certificate>",
}


def read(name):
    with open(CERTS + name, "rb") as f:
        return f.read()


def places(text, number):
    """Where something can be done to the object, by name; offsets."""
    begin = -1
    for _ in range(number):
        begin = text.index(b"-----BEGIN", begin + 1)
    begin_end = text.index(b"\n", begin)
    end = text.index(b"-----END", begin)
    end_end = text.index(b"\n", end)
    lines = text[begin_end + 1:end].count(b"\n")
    middle = begin_end + 1 + 65 * (lines // 2)
    return {
        "before BEGIN": begin, "in the dashes of BEGIN": begin + 2, "in BEGIN": begin + 7,
        "behind BEGIN": begin + 10, "before the kind": begin + 11, "in the kind": begin + 15,
        "behind the kind": begin_end - 5, "in the last dashes of BEGIN": begin_end - 2,
        "behind the label BEGIN": begin_end, "before the data": begin_end + 1,
        "in the first line": begin_end + 21, "behind the first line": begin_end + 65,
        "before a line": middle, "in a line": middle + 22, "in the last line": end - 6,
        "before the padding": text.index(b"=", end - 4) if b"=" in text[end - 4:end] else end - 1,
        "behind the data": end - 1, "before END": end, "in END": end + 7,
        "before END's kind": end + 9,
        "in END's kind": end + 13, "behind END's kind": end_end - 5,
        "in the last dashes of END": end_end - 2, "behind the label END": end_end,
        "behind the object": end_end + 1,
    }


def variants(text, number):
    """The text, changed at one place of that object; and what was done."""
    for place, at in places(text, number).items():
        for name, what in INSERTED.items():
            yield text[:at] + what + text[at:], "%s %s" % (name, place)
        yield text[:at] + text[at + 1:], "one byte less %s" % place
        yield text[:at], "cut %s" % place
        yield text[:at] + text[at:at + 1].swapcase() + text[at + 1:], "other case %s" % place
    for name, (old, new) in {
            "all in lower case": (None, bytes.lower), "CR alone": (b"\n", b"\r"),
            "CRCRLF": (b"\n", b"\r\r\n"), "LFCR": (b"\n", b"\n\r"),
            "double spaced": (b"\n", b"\n\n"), "X509": (b" CERTIFICATE", b" X509 CERTIFICATE"),
            "en dashes": (b"-----", b"\xe2\x80\x93"),
            "four dashes": (b"-----", b"----"), "six dashes": (b"-----", b"------"),
            "two blanks": (b"BEGIN ", b"BEGIN  "), "tab for blank": (b"BEGIN ", b"BEGIN\t"),
            "underscores": (b"BEGIN ", b"BEGIN_"), "escaped newlines": (b"\n", b"\\n"),
            "indented": (b"\n", b"\n  "), "quoted": (b"\n", b"\n> "), "URL's letters": (b"+", b"-"),
            "no padding": (b"=", b""), "percent": (b"=", b"%3D"),
            "blanks for plus": (b"+", b" ")}.items():
        yield new(text) if old is None else text.replace(old, new), name
    lines = text.split(b"\n")
    for i in range(len(lines) - 1):
        if i < 3 or i % 3 == 0:
            yield b"\n".join(lines[:i] + lines[i + 1:]), "line %d less" % i
            yield b"\n".join(lines[:i] + [lines[i]] + lines[i:]), "line %d twice" % i
            yield b"\n".join(lines[:i] + [lines[i] + lines[i + 1]] + lines[i + 2:]), "joined %d" % i


def count_anchors(path):
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        ctx.load_verify_locations(path)
    except (ssl.SSLError, ValueError):
        return -1
    return ctx.cert_store_stats()["x509"]


def count_shown(ctx):
    """How many certificates a server shows."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up), ctx.wrap_bio(up, down, server_side=True)]
    done = [False, False]
    while not all(done):
        for i, end in enumerate(ends):
            try:
                end.do_handshake()
                done[i] = True
            except ssl.SSLWantReadError:
                pass
    return len(ends[0]._sslobj.get_unverified_chain())


def count_chain(path):
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        ctx.load_cert_chain(path, CHAIN_KEY)
    except (ssl.SSLError, ValueError):
        return -1
    return count_shown(ctx)


def count_key(path):
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        ctx.load_cert_chain(KEY_CERT, path)
    except (ssl.SSLError, ValueError):
        return -1
    return 1


def main(directory):
    kinds = (("anchors", read("ca.pem") + read("server-rsa.pem") + read("other-ca.pem"), 2,
              count_anchors),
             ("chain", read("chain-ec.pem"), 2, count_chain),
             ("key", read("server-ec.key"), 1, count_key))
    for kind, text, number, count in kinds:
        for i, (variant, what) in enumerate(variants(text, number)):
            path = os.path.join(directory, "%s-%04d.pem" % (kind, i))
            with open(path, "wb") as f:
                f.write(variant)
            ends = sum(line.startswith(b"-----END ") for line in variant.split(b"\n"))
            print(path, count(path), ends, what, flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
