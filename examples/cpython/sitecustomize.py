"""Puts pysock's modules in the place of the interpreter's own, for every program that Python runs
while this folder is on PYTHONPATH:

    PYTHONPATH=examples/cpython python3 -m http.server
"""
import os
import sys

import pysock_modules


def run_the_next():
    """There may be another sitecustomize on the path, which this one hides."""
    from importlib import util
    from importlib.machinery import PathFinder
    path = [p for p in sys.path if os.path.abspath(p or ".") != pysock_modules.HERE]
    spec = PathFinder.find_spec("sitecustomize", path)
    if spec and spec.loader:
        spec.loader.exec_module(util.module_from_spec(spec))


try:
    pysock_modules.plant()
except Exception as error:  # never fall back to the interpreter's own modules unseen
    sys.stderr.write("pysock: %s\n" % error)
    os._exit(97)
run_the_next()
