"""Python's own ssl module as a peer for tests/peers/test_peers.c and test_interop.c: an echo
server or a client of one.

Every event is a line on stdout; a client's exit status is 0 if all went well.
"""
import argparse
import hashlib
import random
import select
import socket
import ssl
import sys


def say(*words):
    print(*words, flush=True)


def describe(sock, sni=None):
    say(f"connected version={sock.version()} reused={sock.session_reused} "
        f"alpn={sock.selected_alpn_protocol()} sni={sni} cipher={sock.cipher()[0]}")


def describe_failure(error):
    code = getattr(error, "verify_code", 0)
    text = getattr(error, "verify_message", "")
    reason = getattr(error, "reason", "")
    say(f"failed {type(error).__name__} reason={reason} code={code} {text} [{error}]")


def restrict(context, options):
    # Some versions of Python set it, and then cannot tell a ragged end from a clean one.
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    if options.tls12:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if options.version:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion[options.version]
    if options.alpn:
        context.set_alpn_protocols(options.alpn.split(","))


def end(sock, how):
    """Closes with close_notify, or by a bare FIN."""
    if how == "clean":
        sock.unwrap().close()
    else:
        socket.socket(fileno=sock.detach()).close()


def ragged(error):
    """The stream ended without close_notify: an SSLEOFError, but in some versions of Python."""
    if not isinstance(error, ssl.SSLEOFError) and error.reason != "UNEXPECTED_EOF_WHILE_READING":
        raise error
    return "ragged"


def send_in_records(sock, data, size):
    """Each call is a record of its own."""
    view = memoryview(data)
    for begin in range(0, len(view), size):
        sock.sendall(view[begin:begin + size])


def echo(sock, record):
    total, digest = 0, hashlib.sha256()
    how = "clean"
    try:
        while data := sock.recv(16384):
            total += len(data)
            digest.update(data)
            send_in_records(sock, data, record)
    except ssl.SSLError as error:
        how = ragged(error)
    say(f"end {how} bytes={total} sha256={digest.hexdigest()}")
    return how


def greet_and_go(sock, how):
    sock.sendall(b"bye")
    end(sock, how)
    say("gone")


def serve(options):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.cert, options.key)
    restrict(context, options)
    names = {}
    context.sni_callback = lambda sock, name, ctx: names.__setitem__(sock, name)
    listener = socket.create_server(("127.0.0.1", options.port))
    say("listening")
    while True:
        raw, _ = listener.accept()
        raw.settimeout(options.timeout)
        try:
            sock = context.wrap_socket(raw, server_side=True, suppress_ragged_eofs=False,
                                       do_handshake_on_connect=False)
            sock.do_handshake()
        except OSError as error:
            describe_failure(error)
            raw.close()
            continue
        describe(sock, names.get(sock))
        names.clear()
        try:
            if options.end:
                greet_and_go(sock, options.end)
            else:
                end(sock, echo(sock, options.record or 16384))
        except OSError as error:
            describe_failure(error)


def send_and_compare(sock, size, record):
    """One thread: OpenSSL allows no two calls at a time on one connection."""
    data = random.Random(size).randbytes(size)
    sent, total, digest = 0, 0, hashlib.sha256()
    timeout = sock.gettimeout()
    sock.setblocking(False)
    while total < size:
        if not sock.pending():
            ready = select.select([sock], [sock] if sent < size else [], [], timeout)
            if not any(ready):
                raise TimeoutError(f"stuck with {sent} bytes sent and {total} received")
        try:
            if sent < size:
                sent += sock.send(data[sent:sent + (record or 20011)])
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        try:
            piece = sock.recv(min(size - total, 10007))
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            continue
        if not piece:
            break
        total += len(piece)
        digest.update(piece)
    sock.settimeout(timeout)
    if total != size or digest.digest() != hashlib.sha256(data).digest():
        raise OSError(f"{total} of {size} bytes came back, or other bytes")
    say(f"echoed {total}")


def read_to_end(sock):
    how = "clean"
    try:
        while sock.recv(16384):
            pass
    except ssl.SSLError as error:
        how = ragged(error)
    say(f"end {how}")


def connect(options):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(options.ca)
    restrict(context, options)
    session = None
    for _ in range(options.times):
        raw = socket.create_connection(("127.0.0.1", options.port), timeout=options.timeout)
        sock = context.wrap_socket(raw, server_hostname=options.host, session=session,
                                   suppress_ragged_eofs=False)
        describe(sock)
        session = sock.session
        if options.end == "wait":
            read_to_end(sock)
            continue
        send_and_compare(sock, options.size, options.record)
        end(sock, options.end or "clean")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["server", "client"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--ca")
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--alpn")
    parser.add_argument("--tls12", action="store_true")
    parser.add_argument("--version", choices=["TLSv1", "TLSv1_1", "TLSv1_2"])
    parser.add_argument("--record", type=int)
    parser.add_argument("--size", type=int, default=10)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--end", choices=["clean", "ragged", "wait"])
    parser.add_argument("--timeout", type=float, default=60)
    options = parser.parse_args()
    if options.role == "server":
        serve(options)
        return 0
    try:
        connect(options)
    except OSError as error:
        describe_failure(error)
        return 1
    return 0


sys.exit(main())
