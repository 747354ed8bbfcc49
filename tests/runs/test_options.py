"""The tables that evals and training runs share: what they take, how mistakes in them are named."""

import pytest
from pydantic import Field, ValidationError

from rlm_env.runs.config_table import Table
from rlm_env.runs.errors import ConfigError, explain_validation
from rlm_env.runs.options import (
    EngineOptions,
    EnvironmentEntry,
    ScaffoldRolloutTable,
    apply_overrides,
    check_labels,
    environment_options,
)
from rlm_env.train.learner.config import OptimizerConfig


class Config(Table):
    environments: tuple[EnvironmentEntry, ...]
    rollout: ScaffoldRolloutTable = Field(default_factory=dict)


def said(values: dict) -> str:
    with pytest.raises(ValidationError) as error:
        Config.model_validate(values)
    return explain_validation(error.value, Config, "x.toml")


def test_a_table_that_is_none_is_asked_for_as_it_is_written():
    assert said({"environments": "a"}) == "x.toml: environments: a table for each is wanted, [[environments]], got 'a'"
    assert said({"environments": [{"name": "a", "options": 5}]}).endswith(
        "environments.0.options: a table is wanted, [environments.options], got 5"
    )


def test_the_label_of_an_environment_is_its_name_unless_it_is_given():
    assert EnvironmentEntry(name="oolong-rlm").label == "oolong-rlm"
    assert EnvironmentEntry(name="oolong-rlm", label="long").label == "long"
    with pytest.raises(ValueError, match="'a' is there twice; give each its own label"):
        check_labels([EnvironmentEntry(name="a"), EnvironmentEntry(name="b", label="a")])


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("mean", "'mean' is the name of a metric, reward/mean: give the environment another label"),
        ("..", "a name that a run's folder uses"),
        (".hidden", "a name that a run's folder uses"),
        ("summary.json", "a name that a run's folder uses"),
        ("contexts", "a name that a run's folder uses"),
        ("a/b", "should match pattern"),
        ("", "should match pattern"),
    ],
)
def test_a_label_takes_no_name_that_a_run_uses(label, message):
    with pytest.raises(ValueError, match=message):
        EnvironmentEntry(name="oolong-rlm", label=label)
    for free in ("all", "loss", "max", "v1.2", "root"):
        assert EnvironmentEntry(name="oolong-rlm", label=free).label == free


@pytest.mark.parametrize(
    ("rollout", "message"),
    [
        ({"max_turn": 3}, "x.toml: rollout: unknown key 'max_turn'; did you mean 'max_turns'"),
        ({"max_turns": 0}, "x.toml: rollout: max_turns: Input should be greater than or equal to 1, got 0"),
        ({"root": {"temprature": 0}}, "rollout: unknown key 'root.temprature'; did you mean 'temperature'?"),
        ({"rml": {"max_turns": 3}}, "unknown key 'rml'; did you mean 'rlm'?"),
        ({"rlm": {"max_turn": 3}}, "unknown key 'rlm.max_turn'; did you mean 'max_turns'"),
        ({"rlm": {"max_turns": "many"}}, "rollout: rlm.max_turns: Input should be a valid integer"),
        ({"rlm": 3}, "rollout: rlm must be a table, got 3"),
        ({"rlm": {"final": "sub"}}, "unknown key 'rlm.final'"),
    ],
)
def test_a_mistake_in_the_rollout_table_is_named(rollout, message):
    assert message in said({"environments": [], "rollout": rollout})


def test_a_scaffold_takes_the_fields_that_it_has_of_its_own():
    assert Config.model_validate({"environments": [], "rollout": {"summary": {"final": "sub"}}})


def test_an_entry_names_no_scaffold_unless_the_command_says_so():
    message = said({"environments": [{"name": "a", "rollout": {"rlm": {}}}]})
    assert "environments.0.rollout: unknown key 'rlm'" in message


def test_an_unknown_key_of_an_entry_is_named_with_near_matches():
    message = said({"environments": [{"name": "a", "option": {}}]})
    assert "unknown key 'environments.0.option'; did you mean 'options'?" in message


def test_what_the_command_line_sets_holds_for_every_environment():
    file = {
        "rollout": {"max_turns": 4, "root": {"top_p": 0.5}},
        "environments": [
            {"name": "a", "options": {"lengths": [1], "kind": "x"}, "rollout": {"max_turns": 9}},
            {"name": "b"},
        ],
    }
    merged = apply_overrides(file, {"options": {"lengths": [2]}, "rollout": {"max_turns": 2}})
    assert merged["rollout"] == {"max_turns": 2, "root": {"top_p": 0.5}}
    assert merged["options"] == {"lengths": [2]}
    assert merged["environments"] == [
        {"name": "a", "options": {"lengths": [2], "kind": "x"}, "rollout": {"max_turns": 2}},
        {"name": "b"},
    ]


def test_the_folder_of_the_model_is_filled_in():
    assert environment_options({"tokenizer": "@model", "n": 3}, "folder") == {"tokenizer": "folder", "n": 3}
    assert environment_options({"n": 3}, None) == {"n": 3}
    with pytest.raises(ConfigError, match="@model, but the model is no folder"):
        environment_options({"tokenizer": "@model"}, None)


@pytest.mark.parametrize(("table", "key"), [(EngineOptions, "startup_timeout"), (OptimizerConfig, "lr")])
def test_tables_refuse_numbers_that_are_not_finite(table: type[Table], key: str):
    with pytest.raises(ValidationError, match="finite number"):
        table.model_validate({key: float("inf")})


def test_a_seed_is_no_option_of_an_environment():
    assert environment_options({"lengths": [512]}, None) == {"lengths": [512]}
    with pytest.raises(ConfigError, match=r"options\.seed: the seed is the run's, .*: --seed N, or seed = N"):
        environment_options({"seed": 3}, None)
