"""The first lines of the zygote's interpreter: `python -s -S -P boot.py <descriptor>`.

Makes the modules of `rlm_env.repl` that a REPL needs importable under their usual names, without `rlm_env/__init__.py`
(and what that imports) and without the project's directory on `sys.path`. Our modules get a private copy of the
builtins: a cell that sets `builtins.print = None` breaks its own code and not ours.
"""

import builtins
import importlib.util
import json
import socket
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import ModuleType

_REPL = __file__.rsplit("/", 2)[0]
_BUILTINS = dict(builtins.__dict__)


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = _BUILTINS
        code = self.get_code(module.__name__)
        if code is None:
            raise ImportError(f"no code for {module.__name__}")
        exec(code, module.__dict__)


class _Finder:
    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if not name.startswith("rlm_env.repl."):
            return None
        file = f"{_REPL}/{'/'.join(name.split('.')[2:])}.py"
        return importlib.util.spec_from_file_location(name, file, loader=_Loader(name, file))


def _boot() -> None:
    """Gets the instructions from the host and becomes the zygote."""
    for name in ("rlm_env", "rlm_env.repl", "rlm_env.repl.child", "rlm_env.repl.sandbox"):
        package = sys.modules[name] = ModuleType(name)
        package.__path__ = []
    sys.meta_path.insert(0, _Finder)
    control = socket.socket(fileno=int(sys.argv[1]))
    _, (instructions,), _, _ = socket.recv_fds(control, 1, 1)
    with open(instructions, "rb") as file:
        spec = json.load(file)
    sys.path[:] = spec["sys_path"]
    importlib.import_module("rlm_env.repl.child.zygote").run_zygote(control, spec)


_boot()
