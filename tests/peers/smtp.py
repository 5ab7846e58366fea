"""A small SMTP server with STARTTLS, as a peer for tests/examples/test_examples_tls.c.

It serves one client after the other and tells on stdout what they said ("command ...") and sent
("message ...", in Python's notation). What it does otherwise than a good server is chosen with
--mode; --answer "RCPT=550 no such user" replaces the answer to a command.
"""
import argparse
import socket
import ssl
import sys


def say(*words):
    print(*words, flush=True)


class Client:
    def __init__(self, sock, context, options):
        self.sock, self.context, self.options = sock, context, options
        self.answers = dict(text.split("=", 1) for text in options.answer)
        self.file = sock.makefile("rb")
        self.secure = False

    def send(self, *lines):
        self.sock.sendall("".join(line + "\r\n" for line in lines).encode())

    def start_tls(self):
        if self.options.mode == "inject":
            self.send("220 go ahead", "250-evil.example", "250 AUTH PLAIN")
            return
        self.send("220 go ahead")
        self.sock = self.context.wrap_socket(self.sock, server_side=True)
        self.file = self.sock.makefile("rb")
        self.secure = True
        say("tls", self.sock.version())

    def ehlo(self):
        lines = ["mail.example.test", "SIZE 1000000", "PIPELINING"]
        if self.secure:
            lines += ["8BITMIME"] if self.options.mode != "7bit" else []
        elif self.options.mode != "hide":
            lines += ["STARTTLS"]
        self.send(*["250-" + line for line in lines[:-1]], "250 " + lines[-1])

    def data(self):
        self.send("354 end with a dot")
        text = b""
        while not text.endswith(b"\r\n.\r\n"):
            line = self.file.readline()
            if not line:
                say("truncated", repr(text))
                return
            text += line
        say("message", repr(text))
        self.send(self.answers.get("MESSAGE", "250 queued"))

    def serve(self):
        if self.options.mode == "silent":
            self.file.read()
            return
        if self.options.mode == "garbage":
            self.send("HTTP/1.0 400 Bad Request")
            self.file.read()
            return
        self.send(self.answers.get("CONNECT", "220 mail.example.test ESMTP"))
        while line := self.file.readline().decode():
            say("command", line.rstrip("\r\n"))
            word = line.split()[0].split(":")[0].upper()
            if word in self.answers:
                self.send(self.answers[word])
            elif word == "EHLO":
                self.ehlo()
            elif word == "STARTTLS":
                self.start_tls()
            elif word in ("MAIL", "RCPT"):
                self.send("250 fine")
            elif word == "DATA":
                self.data()
            elif word == "QUIT":
                self.send("221 bye")
                return
            else:
                self.send("502 what?")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cert", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--mode", default="good",
                        choices=["good", "hide", "inject", "silent", "garbage", "7bit"])
    parser.add_argument("--answer", action="append", default=[])
    options = parser.parse_args()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.cert, options.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(f"listening on 127.0.0.1:{listener.getsockname()[1]}", file=sys.stderr, flush=True)
        while True:
            sock, _ = listener.accept()
            try:
                Client(sock, context, options).serve()
            except (OSError, IndexError) as error:
                say("failed", error)
            sock.close()
            say("done")


main()
