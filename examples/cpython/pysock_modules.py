"""Puts pysock's _socket, select and _ssl in the place of the interpreter's own:

    import pysock_modules
    pysock_modules.plant()      # before anything imports socket, select or ssl

_socket and select may be built into the interpreter, where a file on the path can never shadow
them; so the modules are loaded here, from build/cpython or the directory that PYSOCK_MODULES names.
"""
import os
import sys

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


def plant(where=None):
    """Loads the modules of a directory under their names. ImportError if one is missing, or if the
    interpreter's own is in use already."""
    from importlib import machinery, util
    where = os.path.abspath(where or directory())
    for name in NAMES:
        path = os.path.join(where, name + machinery.EXTENSION_SUFFIXES[0])
        if getattr(sys.modules.get(name), "__file__", None) == path:
            continue
        if name in sys.modules:
            raise ImportError("%s was imported before pysock's" % name)
        if not os.path.exists(path):
            raise ImportError("%s is missing: make cpython builds it" % path)
        loader = machinery.ExtensionFileLoader(name, path)
        spec = util.spec_from_file_location(name, path, loader=loader)
        sys.modules[name] = util.module_from_spec(spec)
        try:
            spec.loader.exec_module(sys.modules[name])
        except BaseException:
            del sys.modules[name]
            raise
