"""Running the tools of packaging: build, twine, pip, venv. What they say is shown only where they fail."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlm_env.runs.errors import ConfigError

EXTRA = "hub"
TIMEOUT = 1800
MODULES = ("build", "twine", "packaging", "pip")
"""What validating a package needs, of the extra `hub`."""
_OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
"""Variables that would show a fresh environment the packages of this one."""


class ToolFailed(Exception):
    """A tool ended with an error. `said` holds the end of what it printed."""

    def __init__(self, what: str, said: str) -> None:
        lines = [line for line in said.strip().splitlines() if line.strip()]
        self.said = "\n".join(lines[-15:])
        self.last = lines[-1].strip() if lines else "it said nothing"
        super().__init__(f"{what} failed: {self.last}")


@dataclass(frozen=True, slots=True)
class FreshVenv:
    """A virtual environment of its own."""

    folder: Path

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    @classmethod
    def make(cls, folder: Path) -> FreshVenv:
        """A new one, with nothing in it. Raises ToolFailed."""
        run_tool("making a virtual environment", [sys.executable, "-m", "venv", "--without-pip", str(folder)])
        return cls(folder)

    def install(self, what: Sequence[str], arguments: Sequence[str] = ()) -> None:
        """Installs packages by our pip, as it is configured: one of its own would take seconds to make. Raises
        ToolFailed."""
        command = [sys.executable, "-m", "pip", "--python", self.python, "install"]
        command += ["--quiet", "--disable-pip-version-check", "--no-input"]
        run_tool("pip install", [*command, *arguments, *what], environ=fresh_environ())


def require_modules(*names: str) -> None:
    """Raises ConfigError if one of the modules of the extra `hub` is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"this needs the package {name!r}: pip install 'rlm-env[{EXTRA}]'")


def fresh_environ() -> dict[str, str]:
    """The environment variables of this process, without those that point at its own packages."""
    return {name: value for name, value in os.environ.items() if name not in _OURS}


def run_tool(
    what: str,
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    environ: Mapping[str, str] | None = None,
    answers: bool = False,
) -> str:
    """Runs a command and returns what it printed on standard output.

    `answers`: it prints JSON, and its exit code is 1 where the answer is no. Raises ToolFailed if it fails, ConfigError
    if it is not there.
    """
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError as error:
        raise ConfigError(f"{what}: the command {command[0]} is not there") from error
    except subprocess.TimeoutExpired as error:
        raise ToolFailed(what, f"no end after {TIMEOUT} s") from error
    if done.returncode not in ((0, 1) if answers else (0,)) or (answers and not done.stdout.startswith("{")):
        raise ToolFailed(what, f"{done.stdout}\n{done.stderr}")
    return done.stdout
