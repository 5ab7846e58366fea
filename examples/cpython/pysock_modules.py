"""Puts pysock's _socket, select and _ssl in the place of the interpreter's own:

    import pysock_modules
    pysock_modules.plant()      # before anything imports socket, select or ssl

_socket and select may be built into the interpreter, where a file on the path can never shadow
them; so the modules are loaded here, from build/cpython or the directory that PYSOCK_MODULES names.
"""
import os
import sys
from importlib import import_module, machinery, util

HERE = os.path.dirname(os.path.abspath(__file__))
NAMES = ("_socket", "select", "_ssl")


def directory():
    """Where the modules are."""
    return os.environ.get("PYSOCK_MODULES") or os.path.join(HERE, "../../build/cpython")


def environment(where=None):
    """os.environ for another Python, with the modules of a directory in place there."""
    path = [HERE] + [p for p in [os.environ.get("PYTHONPATH")] if p]
    return dict(os.environ, PYTHONPATH=os.pathsep.join(path),
                PYSOCK_MODULES=os.path.abspath(where or directory()))


class Finder:
    """Finds the modules of a directory before the interpreter's own, also when they are imported
    again."""

    def __init__(self, where):
        self.where = where

    def path(self, name):
        return os.path.join(self.where, name + machinery.EXTENSION_SUFFIXES[0])

    def find_spec(self, name, path=None, target=None):
        if name not in NAMES:
            return None
        loader = machinery.ExtensionFileLoader(name, self.path(name))
        return util.spec_from_file_location(name, loader.path, loader=loader)


def plant(where=None):
    """Loads the modules of a directory under their names. ImportError if one is missing, or if the
    interpreter's own is in use already."""
    finder = Finder(os.path.abspath(where or directory()))
    for name in NAMES:
        if getattr(sys.modules.get(name), "__file__", None) == finder.path(name):
            continue
        if name in sys.modules:
            raise ImportError("%s was imported before pysock's" % name)
        if not os.path.exists(finder.path(name)):
            raise ImportError("%s is missing: make cpython builds it" % finder.path(name))
    sys.meta_path.insert(0, finder)
    for name in NAMES:
        import_module(name)
