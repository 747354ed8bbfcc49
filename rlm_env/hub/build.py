"""Builds a package's wheel and source archive, and looks into them."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

import rlm_env
from rlm_env.hub.findings import Finding
from rlm_env.hub.project import PYPROJECT, Project, read_project
from rlm_env.hub.tools import require_modules, run_tool
from rlm_env.origin import HASH_FILE, content_files

WHEEL_BYTES = 10_000_000
"""A wheel beyond this is a finding: data belongs into a data set that the package loads."""
SECRET_NAMES = (".env", ".pypirc", ".netrc", "id_rsa", "id_ed25519", "credentials", "token")


@dataclass(frozen=True, slots=True)
class Built:
    """The files of a build."""

    wheel: Path
    archive: Path

    @property
    def requirements(self) -> list[str]:
        """`Requires-Dist` of the wheel."""
        with zipfile.ZipFile(self.wheel) as wheel:
            [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
            return HeaderParser().parsestr(wheel.read(name).decode("utf-8")).get_all("Requires-Dist", [])


def build(project: Project, out: Path) -> Built:
    """Builds wheel and source archive into `out`, in an environment of their own, as any installer would.

    Raises ToolFailed, and ConfigError without the package `build`.
    """
    require_modules("build")
    command = [sys.executable, "-m", "build", "--wheel", "--sdist", "--outdir", str(out), str(project.folder)]
    run_tool("building the package", command)
    return Built(next(out.glob("*.whl")), next(out.glob("*.tar.gz")))


def core_wheel(out: Path) -> Path | None:
    """The wheel of the rlm-env that runs here, built from its sources; None where it is installed without them, so that
    an index has to provide it. Raises ToolFailed."""
    sources = Path(rlm_env.__file__).parents[1]
    if not (sources / PYPROJECT).is_file() or read_project(sources).name != "rlm-env":
        return None
    require_modules("build")
    run_tool("building rlm-env", [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(sources)])
    return next(out.glob("rlm_env-*.whl"))


def wheel_findings(project: Project, built: Built) -> list[Finding]:
    """Findings about what the wheel holds: all of the one package, its license and hash, and nothing else."""
    with zipfile.ZipFile(built.wheel) as wheel:
        names = wheel.namelist()
    found: list[Finding] = []

    def add(message: str, remedy: str) -> None:
        found.append(Finding("wheel", built.wheel.name, message, remedy))

    packaged = {name for name in names if not name.partition("/")[0].endswith(".dist-info")}
    tops = {name.partition("/")[0] for name in packaged}
    if others := sorted(tops - {project.module}):
        remedy = f"install {project.module} alone: what else is needed belongs into it, tests into the source archive"
        add(f"installs {', '.join(others)} beside {project.module}", remedy)
    expected = {f"{project.module}/{name}" for name in [*content_files(project.content_folder), HASH_FILE]}
    if missing := sorted(expected - packaged):
        add(f"lacks {', '.join(missing[:3])}", "let pyproject.toml include every file of the package")
    if not any(".dist-info/licenses/" in name for name in names):
        add("holds no license text", 'add license-files = ["LICENSE"] to [project]')
    with tarfile.open(built.archive) as archive:
        names += [member.name for member in archive.getmembers()]
    secret = sorted({name for name in names if Path(name).name in SECRET_NAMES or name.endswith((".pem", ".key"))})
    if secret:
        add(f"holds {secret[0]}, which looks like a secret", "keep secrets out of the project's folder")
    if (size := built.wheel.stat().st_size) > WHEEL_BYTES:
        add(f"has {size / 1e6:.1f} MB", "load large data from a data set (rlm_env/authoring/published.py)")
    return found
