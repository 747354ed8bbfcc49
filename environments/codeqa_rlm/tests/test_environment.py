"""codeqa-rlm: options, scoring, prompt; loaded by name."""

from __future__ import annotations

import pytest

import rlm_env
from codeqa_rlm import CodeQA
from rlm_env.rollout import Rollout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(dataset="real"), "dataset: 'real' does not exist; there are generated, installed, hub"),
        (dict(lengths=0), "lengths must be one or more positive whole numbers"),
        (dict(lengths=[]), "lengths must be"),
        (dict(files_per_context=0), "files_per_context must be at least 1"),
        (dict(families="caller"), "families: 'caller' does not exist; there are callers, chain"),
        (dict(families=[]), "families must name at least one"),
        (dict(profile="huge"), "profile: 'huge' does not exist; there are standard, tiny"),
        (dict(profile="tiny", families="chain"), "families: 'chain' does not exist; there are callers, overrides"),
        (dict(scoring="mild"), "scoring: 'mild' does not exist"),
        (dict(choices="1234"), "choices: '1234' does not exist; there are ABCD, 0123"),
        (dict(num_tasks=0), "num_tasks must be at least 1"),
        (dict(packages="json"), "dataset 'generated' has no option packages"),
        (dict(dataset="installed", lengths=1000), "dataset 'installed' has no option lengths"),
        (dict(dataset="installed", packages=[]), "packages must name at least one"),
        (dict(dataset="installed", packages="no_such_package"), "packages: 'no_such_package' is not installed"),
        (dict(dataset="installed", packages="math"), "packages: 'math' is not written in Python"),
        (dict(dataset="installed", packages="xml.dom"), "'xml.dom' must be the name of a top-level package"),
        (dict(dataset="hub", families="chain"), "dataset 'hub' has no option families"),
    ],
)
def test_bad_options_are_named_with_the_remedy(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        CodeQA(**options)


def test_unknown_options_and_splits_are_refused():
    with pytest.raises(TypeError, match="length"):
        CodeQA(length=3)
    with pytest.raises(ValueError, match="split: 'test' does not exist"):
        CodeQA().tasks("test")


def test_too_short_a_length_is_refused_by_name():
    with pytest.raises(ValueError, match="lengths: repositories of 300 tokens are too small for the family 'order'"):
        CodeQA(lengths=300, families="order").tasks("eval").take(1)


def test_both_ways_of_reading_an_answer_are_reported():
    task = CodeQA(lengths=1000).tasks("eval").take(1)[0]
    env = CodeQA()
    said = f"Answer: {task.gold}"
    score = env.score(task, Rollout.from_answer(task, said))
    assert score.value == 0.0
    assert score.metrics == {"official": 0.0, "strict": 1.0, "answered": 0.0}
    assert CodeQA(scoring="strict").score(task, Rollout.from_answer(task, said)).value == 1.0


def test_the_standard_prompt_shows_every_file_under_its_path():
    env = CodeQA(lengths=1000)
    task = env.tasks("eval").take(1)[0]
    prompt = env.standard_prompt(task)
    for path, text in task.context.items():
        assert f"### {path}\n{text}" in prompt
    assert prompt.endswith(task.question)


def test_it_loads_by_name_and_has_tips():
    env = rlm_env.load_environment("codeqa-rlm", seed=2, profile="tiny", max_turns=3)
    assert env.environment.name == "codeqa-rlm"
    assert "imports" in env.environment.tips
    assert isinstance(env.tasks("eval").take(1)[0].context, dict)
