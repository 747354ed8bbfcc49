"""The order of `rlm-env publish`: refusals before anything is built, findings before anything is uploaded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rlm_env.cli import main
from rlm_env.hub import publish as publishing
from rlm_env.hub import tools
from rlm_env.hub.build import Built
from rlm_env.hub.findings import Finding, Findings
from rlm_env.hub.new import make_package
from rlm_env.hub.places.base import Place
from rlm_env.hub.project import read_project
from rlm_env.hub.publish import publish
from rlm_env.hub.tools import ToolFailed, require_modules
from rlm_env.hub.validate import Validated
from rlm_env.runs.errors import ConfigError


class Shelf(Place):
    """A place that keeps what it is given; may refuse, fail, or not answer."""

    def __init__(self, name: str, *, refuses: bool = False, fails: bool = False, silent: bool = False) -> None:
        self.name = name
        self._refuses, self._fails, self._silent = refuses, fails, silent
        self.got: list[Path] = []

    def refusals(self, project):
        if self._silent:
            raise ToolFailed("asking it", "line one\nno route to host")
        return [Finding("published", self.name, "is there already", "raise it")] if self._refuses else []

    def upload(self, staged, built):
        if self._fails:
            raise ToolFailed("uploading", "a long story\nthe disk there is full")
        self.got.append(built.wheel)
        return [f"it lies on {self.name}"]


@pytest.fixture
def project(tmp_path):
    return read_project(make_package("some-shelved-rlm", tmp_path))


@pytest.fixture
def validations(monkeypatch):
    """Validations are not made but recorded; each finds what is in `found`."""
    calls, found = [], []

    def validate(project, work, say, index):
        calls.append(index)
        built = Built(work / "some.whl", work / "some.tar.gz")
        return Validated(project, Findings("it", list(found), {"wheel": "ok"}), "f" * 64, project, built)

    monkeypatch.setattr(publishing, "validate", validate)
    return calls, found


def said(_text: str) -> None:
    """Progress, which nobody reads here."""


def test_all_places_get_a_package_that_is_sound(project, validations, tmp_path):
    places = [Shelf("one"), Shelf("two")]
    done = publish(project, places, tmp_path, said, ["--extra-index-url", "u"])
    assert done.ok
    assert done.said == {"one": ["it lies on one"], "two": ["it lies on two"]}
    assert [place.got for place in places] == [[tmp_path / "some.whl"]] * 2
    assert validations[0] == [["--extra-index-url", "u"]]
    assert f"sha256 {'f' * 64}" in done.findings.passed["content"]


def test_if_one_place_refuses_nothing_is_built_or_uploaded_anywhere(project, validations, tmp_path):
    places = [Shelf("one"), Shelf("two", refuses=True)]
    done = publish(project, places, tmp_path, said)
    assert [finding.where for finding in done.findings.found] == ["two"]
    assert done.findings.unchecked == {"validation": "refused before"}
    assert (validations[0], places[0].got, done.ok) == ([], [], False)


@pytest.mark.parametrize("dry_run", [True, False])
def test_findings_and_dry_runs_upload_nothing(project, validations, tmp_path, dry_run):
    if not dry_run:
        validations[1].append(Finding("wheel", "w", "m", "r"))
    place = Shelf("one")
    done = publish(project, [place], tmp_path, said, dry_run=dry_run)
    assert (done.ok, place.got, done.said) == (dry_run, [], {})


def test_a_failed_upload_is_told_and_the_other_places_get_theirs(project, validations, tmp_path):
    places = [Shelf("one", fails=True), Shelf("two")]
    done = publish(project, places, tmp_path, said)
    assert not done.ok
    assert done.failed == {"one": "uploading failed: the disk there is full\na long story\nthe disk there is full"}
    assert places[1].got


def test_a_place_that_cannot_be_asked_is_an_error_in_its_words(project, validations, tmp_path):
    with pytest.raises(ConfigError, match="--to one: asking it failed: no route to host"):
        publish(project, [Shelf("one", silent=True)], tmp_path, said)
    assert validations[0] == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--to", "index", "--owner", "me"], "--owner is of --to hub and hf, not of --to index"),
        (["--to", "index", "--private"], "--private is of --to hub and hf"),
        (
            ["--to", "hub", "--to", "hf", "--repository", "testpypi"],
            "--repository is of --to index, not of --to hub, hf",
        ),
    ],
)
def test_a_flag_that_no_place_takes_is_refused(project, capsys, flags, said):
    assert main(["publish", str(project.folder), *flags]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_an_environment_without_pip_is_told_to_get_it(monkeypatch):
    """As tools other than pip make them."""
    monkeypatch.setitem(sys.modules, "pip", None)
    with pytest.raises(ConfigError, match=r"this needs the package 'pip': pip install 'rlm-env\[hub\]'"):
        require_modules(*tools.MODULES[-1:])
