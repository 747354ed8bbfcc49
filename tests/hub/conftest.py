"""Fixtures of the tests of packages: planted environments, a real index that has rlm-env, the command `prime`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.planting import planted  # noqa: F401 - a fixture
from tests.hub.servers import package_index
from tests.hub.shell import PYTHON, Shell

ROOT = Path(__file__).parents[2]
PRIME = "0.18.0"


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a package index that has rlm-env: its source archive, and the wheel that was built from that."""
    for module in ("build", "twine", "pypiserver"):
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp("index")
    with package_index(folder / "packages") as url:
        shell = Shell(folder)
        shell(sys.executable, "-m", "build", "--outdir", "core", ROOT)
        made = sorted((folder / "core").iterdir())
        assert [path.suffix for path in made] == [".whl", ".gz"]
        shell(*Shell.upload(url), *made)
        yield url


@pytest.fixture(scope="session")
def prime(pytestconfig: pytest.Config) -> Path:
    """The folder with the command `prime`; kept between runs in a virtual environment of its own."""
    found = shutil.which("prime")
    folder = Path(found).parent if found else Path(pytestconfig.cache.mkdir("prime")) / "venv" / "bin"
    if not (folder / "prime").exists():
        subprocess.run([PYTHON, "-m", "venv", "--without-pip", folder.parent], check=True)
        install = [sys.executable, "-m", "pip", "--python", folder / "python", "install", "--quiet", f"prime=={PRIME}"]
        ours = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        subprocess.run(install, check=True, env=ours | {"PIP_COMPILE": "0"})
    return folder
