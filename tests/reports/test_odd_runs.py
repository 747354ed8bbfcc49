"""Runs that are not as they should be, in every form: each is reported or refused in words, and what is unknown is told
as unknown."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from jsonschema import Draft202012Validator

from rlm_env.cli import main
from rlm_env.reports.data import json_schema

FORMS = ("", "--markdown", "--html", "--latex", "--json")
HOSTILE = "名\u202e前</td><script>x</script>![x](//x)\\end{tabular}$\\input{x}%_#~^|`\n\t\x1b[31m*[b]é😀"
NO_TOKENS = {"prompt_tokens": 0, "completion_tokens": 0, "cached_tokens": 0, "calls": 1}
Change = Callable[[dict[str, Any]], object]


def _failed(rollout: dict[str, Any], error: str = "the engine died") -> None:
    rollout.update(error=error, score=None, stop_reason="error")


LENGTHS = ("4k", "1024", [1], True, None, -5, 0, 12.5, 1e308, 10**30, {}, 512)


def _length(rollout: dict[str, Any]) -> None:
    """One of `LENGTHS`, another for each of twelve rollouts."""
    place = int(rollout["task_id"].removeprefix("eval-")) + 6 * (rollout["scaffold"] == "rlm")
    rollout["info"]["task"]["length_tokens"] = LENGTHS[place]


def _without_tokens(rollout: dict[str, Any]) -> None:
    for turn in rollout["turns"]:
        turn["usage"] = NO_TOKENS
    rollout.update(root_usage=NO_TOKENS, sub_usage=NO_TOKENS)


def _named(rollout: dict[str, Any]) -> None:
    rollout["task_id"] += HOSTILE
    rollout["answer"] = HOSTILE + "\ud800"
    if rollout["score"]:
        rollout["score"]["metrics"] = {HOSTILE: 1e300, "": 0.5}


ROLLOUTS: dict[str, Change] = {
    "all failed": _failed,
    "failed with an error that means something": lambda one: _failed(one, HOSTILE),
    "unscored": lambda one: one.update(score=None),
    "names that mean something": _named,
    "no turns": lambda one: one.update(turns=[], sub_calls=[]),
    "tokens untold": _without_tokens,
    "very long": lambda one: one["timing"].update(total=1e12),
    "lengths that are none": _length,
}
CONFIGS: dict[str, tuple[Change, str]] = {
    "no record": (lambda config: config.pop("record"), "has lost tasks of its table [record]"),
    "no tasks": (lambda config: config["record"].pop("tasks"), "has lost tasks of its table [record]"),
    "other kinds": (lambda config: config["record"].update(scaffolds=1, versions="x"), "has lost scaffolds, versions"),
    "no more than tasks": (lambda config: config.update(record={"tasks": 6}), ""),
    "another key": (lambda config: config.update(color="red"), "unknown key 'color'"),
    "a model's name": (lambda config: config["record"]["models"]["root"].update(name=HOSTILE), ""),
}


@pytest.fixture
def odd(runs, tmp_path):
    """Copies the run `good`, with each of its rollouts, its config or its list of rollouts changed."""

    def make(rollout: Change = id, config: Change = id, keep: Callable[[dict], bool] = lambda one: True) -> Path:
        folder = shutil.copytree(runs / "good", tmp_path / "odd", dirs_exist_ok=True)
        made = [json.loads(line) for line in (folder / "rollouts.jsonl").read_text().splitlines()]
        kept = [one for one in made if keep(one)]
        for one in kept:
            rollout(one)
        (folder / "rollouts.jsonl").write_text("".join(json.dumps(one) + "\n" for one in kept))
        values = tomllib.loads((folder / "config.toml").read_text())
        config(values)
        (folder / "config.toml").write_text(tomli_w.dumps(values))
        return folder

    return make


def reported(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """The run in each form; what no form may hold is looked for."""
    told = {}
    for form in FORMS:
        assert main(["report", str(folder), *([form] if form else [])]) == 0
        told[form] = capsys.readouterr().out
        told[form].encode()
        assert not re.search(r"\b(nan|inf|NaN|Infinity)\b", told[form])
        assert not set(told[form]) & {"\x1b", "\u202e", "\ud800"}
    Draft202012Validator(json_schema()).validate(json.loads(told["--json"]))
    assert "<script" not in told["--html"] + told["--markdown"]
    assert "](//" not in told["--markdown"]
    assert told["--latex"].count(r"\end{tabular}") == told["--latex"].count(r"\begin{tabular}")
    rows = [line for line in told["--markdown"].splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows), "a row is one line"
    return told


@pytest.mark.parametrize("change", ROLLOUTS.values(), ids=ROLLOUTS)
def test_rollouts_of_any_kind_are_reported(odd, capsys, change):
    reported(odd(rollout=change), capsys)


@pytest.mark.parametrize(("change", "refused"), CONFIGS.values(), ids=CONFIGS)
def test_a_config_that_lost_something_is_refused_in_words_or_reported(odd, capsys, change, refused):
    folder = odd(config=change)
    if refused:
        assert main(["report", str(folder)]) == 2
        assert refused in capsys.readouterr().err
    else:
        reported(folder, capsys)


@pytest.mark.parametrize("keep", ["nothing", "one rollout", "one task", "no standard", "no rlm"])
def test_a_part_of_a_run_is_reported(odd, capsys, keep):
    kept = {
        "nothing": lambda one: False,
        "one rollout": lambda one: (one["task_id"], one["scaffold"]) == ("eval-0", "rlm"),
        "one task": lambda one: one["task_id"] == "eval-0",
        "no standard": lambda one: one["scaffold"] != "standard",
        "no rlm": lambda one: one["scaffold"] != "rlm",
    }
    told = reported(odd(keep=kept[keep]), capsys)
    assert ("no rollout has ended yet" in told[""]) == (keep == "nothing")


def test_tokens_that_no_engine_told_are_unknown_and_so_is_their_money(odd, capsys):
    capsys.readouterr()
    assert main(["report", str(odd(rollout=_without_tokens)), "--markdown"]) == 0
    told = capsys.readouterr().out
    assert "root prompt tokens" not in told
    assert "cost, US$" not in told
    assert "score per 1,000 root tokens" not in told
    assert re.search(r"\| rlm \| 1\.00 \| - \| - \| 1\.0 \| [\d.]+ \| - \|", told), "root and sub tokens, money"
