"""Turns cases of x509-limbo, a JSON object a line, into lines that judge.c reads.

    python3 cases.py FILE

id, expectation, aside (soft or conflicting), host, time, anchors and chain, the last two as
hexadecimal DER joined by commas; separated by tabs.
"""
import base64
import json
import sys


def join(certificates):
    return ",".join(base64.b64decode(c).hex() for c in certificates) or "-"


def main():
    with open(sys.argv[1], encoding="utf-8") as cases:
        for line in cases:
            case = json.loads(line)
            aside = bool(case["soft"] or case["conflicts"])
            print(case["id"], case["expect"], int(aside), case["host"], case["time"],
                  join(case["ta"]), join(case["chain"]), sep="\t")


if __name__ == "__main__":
    main()
