"""Imports in the zygote, before it forks, so that no REPL has to make them."""

from __future__ import annotations

import contextlib
import importlib
import os

_WARM_UP = {
    "numpy": "numpy.random.default_rng(numpy.random.seed(0)); numpy.linalg.norm(numpy.fft.fft(numpy.ones(2)))",
    "sympy": "x = sympy.Symbol('x'); str(sympy.solve(sympy.simplify('x**2 - 1'), x)); sympy.integrate(sympy.sin(x), x)",
}
"""Packages that import parts of themselves at first use, which takes time and at level sealed cannot be done."""

_SEALED_MODULES = """
abc argparse array ast asyncio base64 bisect binascii calendar cmath codecs collections.abc colorsys
concurrent.futures concurrent.futures.thread configparser contextlib contextvars copy csv ctypes ctypes.util
dataclasses datetime decimal difflib dis email.parser enum errno fcntl fractions functools gc getpass glob
graphlib gzip hashlib heapq hmac html html.parser http.client inspect io ipaddress itertools json keyword
linecache locale logging lzma bz2 math mmap multiprocessing multiprocessing.pool multiprocessing.context
multiprocessing.popen_fork multiprocessing.dummy multiprocessing.queues multiprocessing.synchronize numbers
operator os pathlib pickle pickletools pkgutil platform pprint queue random re reprlib resource sched secrets
select selectors shelve shlex shutil signal socket sqlite3 ssl stat statistics string stringprep struct
subprocess symtable sysconfig tempfile textwrap threading time timeit token tokenize traceback types typing
unicodedata unittest urllib.parse urllib.request uuid warnings weakref xml.dom.minidom xml.etree.ElementTree
xml.sax zipfile zlib zoneinfo
"""
_SEALED_ENCODINGS = "ascii latin_1 utf_16 utf_32 utf_8_sig cp1252 idna punycode unicode_escape"
SEALED = (*_SEALED_MODULES.split(), *(f"encodings.{name}" for name in _SEALED_ENCODINGS.split()))
"""Modules to import for level sealed, where no file can be opened, so that nothing can be imported later."""


_PARTS = {
    "scipy": "cluster.hierarchy cluster.vq constants fft integrate interpolate io linalg misc ndimage odr optimize "
    "signal sparse sparse.csgraph sparse.linalg spatial spatial.distance special stats stats.qmc",
    "numpy": "fft linalg ma polynomial random testing",
}


def preload_parts(found: dict[str, str]) -> None:
    """For level sealed: imports the parts of the packages in `found` that they import only when asked for."""
    for package, parts in _PARTS.items():
        if package in found and not found[package].startswith("missing"):
            for part in parts.split():
                with contextlib.suppress(ImportError):  # versions differ in what they have
                    importlib.import_module(f"{package}.{part}")


def preload(names: list[str]) -> dict[str, str]:
    """Imports what is installed of `names`. Returns {name: version, or why it is missing}."""
    # One BLAS thread per REPL, and none in the zygote: a process with threads must not be forked.
    settings = {name: "1" for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    os.environ.update(settings)
    found = {}
    for name in names:
        try:
            module = importlib.import_module(name)
            if name in _WARM_UP:
                exec(_WARM_UP[name], {name: module})
            found[name] = str(getattr(module, "__version__", ""))
        except Exception as error:
            found[name] = f"missing: {type(error).__name__}: {error}"[:200]
    for name in settings:
        del os.environ[name]
    return found
