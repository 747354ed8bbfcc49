"""Commands as people type them, in a folder, with nobody's logins."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHON = Path(sys.base_prefix) / "bin" / "python3"


class Shell:
    """Runs commands in a folder and keeps them. Only this interpreter finds this project's sources."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        self.commands: list[list[str]] = []
        self.environ = {**os.environ, "HOME": str(folder), "NO_COLOR": "1"}
        self.environ |= {"TWINE_USERNAME": "any", "TWINE_PASSWORD": "any", **variables}
        self.environ["PIP_COMPILE"] = "0"  # most of what is installed is never imported,
        self.environ["PYTHONDONTWRITEBYTECODE"] = ""  # and what is imported is compiled once, not by each command
        self.environ.pop("HF_HUB_OFFLINE", None)

    def __call__(self, *command: object, code: int = 0) -> str:
        """Runs a command, which must end with that exit code; returns its standard output."""
        words = [str(word) for word in command]
        self.commands.append(words)
        environ = dict(self.environ)
        environ.pop("PYTHONPATH", None)
        if words[0] == sys.executable:
            environ["PYTHONPATH"] = f"{ROOT}:{ROOT / 'rewards'}"
        done = subprocess.run(words, cwd=self.folder, env=environ, capture_output=True, text=True)
        assert done.returncode == code, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def rlm_env(self, *arguments: object, code: int = 0) -> str:
        """`rlm-env` with these arguments."""
        return self(sys.executable, "-m", "rlm_env.cli", *arguments, code=code)

    def venv(self, name: str) -> Path:
        """A virtual environment with pip; the folder of its commands. pip is copied: Python makes one in 4 s of CPU. It
        is not imported here, which would keep setuptools, and so vLLM, from being imported afterwards."""
        self(PYTHON, "-m", "venv", "--without-pip", name)
        [packages] = self.folder.glob(f"{name}/lib/*/site-packages")
        ours = Path(str(distribution("pip").locate_file("pip")))
        for source in (ours, *ours.parent.glob("pip-*.dist-info")):
            shutil.copytree(source, packages / source.name)
        return self.folder / name / "bin"

    @staticmethod
    def upload(url: str) -> list[str]:
        """The command that uploads files to an index."""
        return [sys.executable, "-m", "twine", "upload", "--non-interactive", "--repository-url", url]
