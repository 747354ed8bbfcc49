"""`rlm-env envs NAME`: options with types and defaults, splits, tools, version, content and place."""

from dataclasses import dataclass

import pytest

from rlm_env.cli import main
from rlm_env.hub import describe
from rlm_env.hub.describe import Option, describe_environment, list_options
from rlm_env.origin import HASH_FILE, origin_of
from rlm_env.runs.errors import ConfigError


def test_a_page_shows_all_that_is_known(planted, capsys):
    name = planted()
    assert main(["envs", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    origin = origin_of(name)
    assert lines[0] == name
    assert f"  package   {name} 1.2.0, from {origin.project}" in lines
    assert f"  content   {origin.sha256}" in lines
    assert "  train     30 tasks" in lines
    assert "  tools     none" in lines
    assert [line.split() for line in lines[-2:]] == [["seed", "int", "0"], ["terms", "int", "3"]]


def test_a_published_package_that_was_changed_is_shown_as_such(planted):
    name = planted.installed()
    (origin_of(name).folder / HASH_FILE).write_text("f" * 64)
    assert any("(changed: published as ffffffffffff)" in line for line in describe_environment(name).lines())


def test_endless_splits_are_not_counted_to_their_end(planted, monkeypatch):
    endless = "def tasks(self, split):\n    while True:\n        yield Task('?')"
    monkeypatch.setattr(describe, "MOST_SECONDS", 60.0)
    assert describe_environment(planted(endless)).splits == {
        split: "1,000 tasks or more" for split in ("train", "eval")
    }
    monkeypatch.setattr(describe, "MOST_SECONDS", -1.0)
    assert describe_environment(planted(endless)).splits["train"] == "at least 1 tasks"
    broken = describe_environment(planted("def tasks(self, split):\n    raise OSError('no such data set')"))
    assert broken.splits["eval"] == "cannot be made: OSError: no such data set"


def test_an_unknown_environment_is_an_error_with_near_matches(planted, capsys):
    name = planted()
    assert main(["envs", f"{name}0"]) == 2
    assert f"did you mean '{name}'" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="needs its option"):
        describe_environment(planted("def __init__(self, *, key=None):\n    raise ValueError('needs its option key')"))


@dataclass(frozen=True)
class SmallOptions:
    size: int = 3
    files: str | None = None


@dataclass(frozen=True)
class LargeOptions:
    size: int = 3
    key: str = "K"


DATASETS = {"small": SmallOptions, "large": LargeOptions}


def make(*, dataset: str = "small", seed=0, **options):
    """An environment of two data sets."""


def test_options_of_data_sets_are_listed_with_their_data_sets():
    assert list_options(make) == [
        Option("dataset", "str", "'small'"),
        Option("seed", "any", "0"),
        Option("size", "int", "3", ("small", "large")),
        Option("files", "str | None", "None", ("small",)),
        Option("key", "str", "'K'", ("large",)),
    ]
