"""Puts pysock's modules in the place of the interpreter's own, for every program that Python runs
while this folder is on PYTHONPATH:

    PYTHONPATH=examples/cpython python3 -m http.server

_socket and select may be built into the interpreter, where a file on the path can never shadow
them; so they are loaded here, before anything imports them. PYSOCK_MODULES says where they are, if
not in build/cpython. Where _ssl is not among them there is none: the interpreter's own does not
work with a foreign _socket.
"""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
DIRECTORY = os.environ.get("PYSOCK_MODULES") or os.path.join(HERE, "../../build/cpython")


def plant(directory):
    """Loads the modules of a directory under their names."""
    from importlib import machinery, util
    for name in ("_socket", "select", "_ssl"):
        path = os.path.join(os.path.abspath(directory), name + machinery.EXTENSION_SUFFIXES[0])
        if getattr(sys.modules.get(name), "__file__", None) == path:
            continue
        if name in sys.modules and sys.modules[name] is not None:
            raise ImportError("%s was imported before pysock's" % name)
        if name == "_ssl" and not os.path.exists(path):
            sys.modules[name] = None
            continue
        loader = machinery.ExtensionFileLoader(name, path)
        spec = util.spec_from_file_location(name, path, loader=loader)
        sys.modules[name] = util.module_from_spec(spec)
        try:
            spec.loader.exec_module(sys.modules[name])
        except BaseException:
            del sys.modules[name]
            raise


def run_the_next():
    """There may be another sitecustomize on the path, which this one hides."""
    from importlib import util
    from importlib.machinery import PathFinder
    path = [p for p in sys.path if os.path.abspath(p or ".") != HERE]
    spec = PathFinder.find_spec("sitecustomize", path)
    if spec and spec.loader:
        spec.loader.exec_module(util.module_from_spec(spec))


if __name__ == "sitecustomize":
    try:
        plant(DIRECTORY)
    except Exception as error:  # never fall back to the interpreter's own modules unseen
        sys.stderr.write("pysock: %s\n" % error)
        os._exit(97)
    run_the_next()
