"""Environment packages made for a test: sources in a folder, or installed where REPLs can read."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent, indent

import pytest

SOUND = '''
"""Sums of numbers, soundly made."""

import json
import random
from importlib import resources

from rlm_env import Environment, Score, Task


class Sums(Environment):
    name = "sums-rlm"

    def __init__(self, *, seed: int = 0, terms: int = 3):
        self.seed, self.terms = seed, terms

    def tasks(self, split):
        for index in range(30):
            draw = random.Random(f"{self.seed}/{split}/{index}")
            numbers = [draw.randrange(10_000, 99_999) for _ in range(self.terms)]
            yield self.made(split, index, numbers, str(sum(numbers)))

    def made(self, split, index, numbers, gold):
        text = "\\n".join(map(str, numbers)) + "\\nend"
        return Task("What is the sum?", text, gold, f"{split}-{index}", {"terms": self.terms})

    def score(self, task, rollout):
        return float(rollout.answer.strip() == task.gold)

    def baselines(self):
        return {"first": lambda task: task.context.split()[0]}
'''
PROJECT = """
[project]
name = "{package}"
version = "1.2.0"

[project.entry-points."rlm_env.environments"]
{package} = "{module}:{made}"
"""


class Planted:
    """Writes environment packages below a folder, each under names that no other test has imported."""

    count = 0

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._monkeypatch = folder, monkeypatch

    def __call__(self, changes: str = "", *, replace: tuple[str, str] | None = None, project: str = "") -> str:
        """A package in `environments/`: the sound environment, with `changes` to its class. Returns its name."""
        module, name = self._names()
        folder = self.folder / "environments" / module
        self._write(folder / module, changes, replace)
        text = PROJECT.format(package=name, module=module, made="Sums")
        (folder / "pyproject.toml").write_text(text + project)
        return name

    def installed(
        self, changes: str = "", *, files: dict[str, str] | None = None, requires: tuple[str, ...] = ()
    ) -> str:
        """The same as an installed distribution, with further `files` in its `site-packages`. Returns its name."""
        module, name = self._names()
        site = self.site_packages()
        self._write(site / module, changes, None)
        written = [f"{module}/__init__.py"]
        for path, text in (files or {}).items():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_text(text)
            written.append(path)
        self._distribution(site, name, written, requires, f"[rlm_env.environments]\n{name} = {module}:Sums\n")
        return name

    def distribution(self, name: str, files: dict[str, str], requires: tuple[str, ...] = ()) -> None:
        """Another installed distribution, of no environment."""
        site = self.site_packages()
        for path, text in files.items():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_text(text)
        self._distribution(site, name, list(files), requires, "")

    def site_packages(self) -> Path:
        site = self.folder / "site-packages"
        site.mkdir(exist_ok=True)
        if str(site) not in sys.path:
            self._monkeypatch.syspath_prepend(str(site))
        return site

    def _names(self) -> tuple[str, str]:
        Planted.count += 1
        return f"rlm_env_planted_{Planted.count}", f"rlm-env-planted-{Planted.count}"

    def _write(self, folder: Path, changes: str, replace: tuple[str, str] | None) -> None:
        source = SOUND + indent(dedent(changes), "    ")
        if replace is not None:
            assert replace[0] in source
            source = source.replace(*replace)
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(source)

    def _distribution(
        self, site: Path, name: str, files: list[str], requires: tuple[str, ...], entry_points: str
    ) -> None:
        info = site / f"{name.replace('-', '_')}-1.2.0.dist-info"
        info.mkdir()
        needs = "".join(f"Requires-Dist: {need}\n" for need in requires)
        (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.2.0\n{needs}")
        (info / "entry_points.txt").write_text(entry_points)
        recorded = [*files, *(f"{info.name}/{part}" for part in ("METADATA", "entry_points.txt", "RECORD"))]
        (info / "RECORD").write_text("".join(f"{path},,\n" for path in recorded))


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planted:
    """Makes environment packages below the current folder, which is empty otherwise."""
    monkeypatch.chdir(tmp_path)
    return Planted(tmp_path, monkeypatch)
