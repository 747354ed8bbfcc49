"""The environments of a training run: labels, options, and one pool of REPLs for all of them."""

import pytest

from rlm_env.repl import ReplPools
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.models import resolve_folder
from rlm_env.train.rl.config import TrainConfig
from rlm_env.train.rl.environment_mix import EnvironmentMix

MODEL = resolve_folder("tiny-rlm")
STAGES = [{"from_step": 5, "options": {"lengths": [512]}}, {"from_step": 9, "options": {"lengths": [768]}}]
OOLONG = {"name": "oolong-rlm", "options": {"lengths": [256], "vocabulary": "easy"}, "curriculum": STAGES}


def config(*environments, **values) -> TrainConfig:
    values = {"rollout": {"sub": {"temperature": 1.0}}, **values}
    return TrainConfig.model_validate({"model": "tiny-rlm", "out": "o", "environments": environments, **values})


async def test_all_environments_and_stages_share_one_pool():
    made = config(OOLONG, {"name": "needle-rlm"}, {"name": "verbatim-copy-rlm"})
    async with ReplPools() as pools:
        mix = EnvironmentMix(made, MODEL, pools)
        scaffolds = [mix.scaffold("oolong-rlm", stage) for stage in (-1, 0, 1)]
        scaffolds += [mix.scaffold("needle-rlm", -1), *(mix.held_out(label) for label in mix.labels)]
        for scaffold in scaffolds:
            (task,) = scaffold.tasks("train").take(1)
            shared = await scaffold.share(task)
            await shared.close()
        assert len(pools._pools) == 1
        await mix.aclose()


def test_two_entries_of_one_environment_have_labels_and_the_options_of_all_hold_for_both():
    short = {**OOLONG, "label": "short"}
    long = {"name": "oolong-rlm", "label": "long", "options": {"lengths": [1024]}, "eval_options": {"lengths": [2048]}}
    mix = EnvironmentMix(config(short, long, options={"vocabulary": "easy", "tokenizer": "@model"}), MODEL)
    assert mix.labels == ["short", "long"]

    def length(scaffold, split="train"):
        return scaffold.tasks(split).take(1)[0].info["target_tokens"]

    assert [length(mix.scaffold("short", stage)) for stage in (-1, 0, 1)] == [256, 512, 768]
    assert length(mix.scaffold("long", -1)) == 1024
    assert length(mix.held_out("long"), "eval") == 2048
    alone = mix.any_task("short", 1)
    assert alone is not None
    assert alone(2) == mix.tasks("short", 1).take(3)[2]
    with pytest.raises(ValueError, match="'oolong-rlm' is there twice"):
        config(OOLONG, OOLONG)


def test_an_option_that_an_environment_does_not_have_names_the_label_and_nothing_twice():
    for label, said in (("odd", "^odd: environment needle-rlm has"), ("needle-rlm", "^environment needle-rlm has")):
        with pytest.raises(ConfigError, match=f"{said} no option 'colour'"):
            EnvironmentMix(config({"name": "needle-rlm", "label": label, "options": {"colour": 1}}), MODEL)
