"""Configs: every shipped file parses, every mistake names its place and the remedy."""

import tomllib
from pathlib import Path

import pytest

from rlm_env.evals.config import EvalRunConfig, check_eval_resume, load_eval_config
from rlm_env.registry import find_environment
from rlm_env.runs.errors import ConfigError
from rlm_env.scaffolds import make_scaffold

SHIPPED = sorted((Path(__file__).parents[2] / "configs" / "eval").glob("*.toml"))
ONE = [{"name": "oolong-rlm"}]
MINIMAL = {"environments": ONE, "model": "tiny-rlm", "out": "outputs/x"}


def load(overrides: dict) -> EvalRunConfig:
    (run,) = load_eval_config(None, {**MINIMAL, **overrides}, "now").runs().values()
    return run


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_config_parses(path, monkeypatch):
    monkeypatch.chdir(path.parents[2])  # a price table is named relative to the project
    config = load_eval_config(path, {}, "now")
    for run in config.runs().values():
        environment = find_environment(run.environment)
        for scaffold in run.scaffolds:
            make_scaffold(scaffold, environment, run.rollout_options(scaffold, {}))


def test_there_are_shipped_configs():
    assert {"quickstart.toml", "oolong_openai.toml", "matrix_tiny.toml"} <= {path.name for path in SHIPPED}


def test_defaults():
    config = load_eval_config(None, {"environments": ONE, "model": "models/My Model"}, "now")
    assert (config.scaffolds, config.n, config.repeats, config.seed) == (("standard", "rlm"), 32, 1, 0)
    assert config.out == Path("outputs/oolong-rlm-My Model-now")


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("repeat", "unknown key 'repeat'; did you mean 'repeats'?"),
        ("concurency", "unknown key 'concurency'; did you mean 'concurrency'?"),
        ("zzz", "unknown key 'zzz' (known: "),
    ],
)
def test_a_typo_names_the_key_the_file_and_near_matches(tmp_path, key, said):
    path = tmp_path / "x.toml"
    path.write_text(f'model = "b"\n{key} = 3\n[[environments]]\nname = "a"\n')
    with pytest.raises(ConfigError) as error:
        load_eval_config(path, {}, "now")
    assert said in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"n": 0}, "n: Input should be greater than or equal to 1, got 0"),
        ({"n": -3}, "n: "),
        ({"repeats": 0}, "repeats: "),
        ({"concurrency": 0}, "concurrency: "),
        ({"split": "test"}, "split: Input should be 'train' or 'eval', got 'test'"),
        ({"scaffolds": "standard,rml"}, "unknown scaffold 'rml'; did you mean 'rlm'?"),
        ({"scaffolds": ""}, "at least one scaffold"),
        ({"scaffolds": "rlm,rlm"}, "a scaffold is named twice"),
        ({"max_cost": 1.0}, "max_cost needs prices"),
        ({"max_cost": 0}, "max_cost: "),
        ({"engine": {"extra_args": ["--host=0.0.0.0"]}}, "engine.extra_args: --host is not to be set"),
        ({"tokens": "folder"}, "tokens goes with base_url"),
        ({"api_key_env": "KEY"}, "api_key_env goes with base_url"),
        ({"base_url": "http://x/v1", "engine": {"dtype": "float32"}}, "no effect on the endpoint"),
        ({"engine": {"dtyp": "float32"}}, "unknown key 'engine.dtyp'; did you mean 'dtype'?"),
        ({"rollout": {"max_turn": 3}}, "unknown key 'max_turn'; did you mean 'max_turns'"),
        (
            {"scaffolds": "rlm", "rollout": {"standard": {"max_turns": 3}}},
            "this scaffold is not in scaffolds (rlm)",
        ),
        ({"base_url": "localhost:8000/v1"}, "base_url must begin with http"),
        ({"model": None}, "model"),
    ],
)
def test_a_mistake_is_named(overrides, said):
    with pytest.raises(ConfigError) as error:
        load(overrides)
    assert said in str(error.value)


def test_what_is_missing_is_named():
    with pytest.raises(ConfigError, match="Add --model"):
        load_eval_config(None, {"environments": ONE}, "now")
    with pytest.raises(ConfigError, match="--resume needs"):
        load_eval_config(None, {"environments": ONE, "model": "tiny-rlm"}, None)


def test_a_file_that_is_not_there_or_not_toml(tmp_path):
    (tmp_path / "quickstart.toml").write_text("n = [")
    with pytest.raises(ConfigError, match=r"no such config file: .*quickstrt\.toml; did you mean 'quickstart\.toml'"):
        load_eval_config(tmp_path / "quickstrt.toml", {}, "now")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        load_eval_config(tmp_path / "quickstart.toml", {}, "now")


def test_the_command_line_lies_over_the_file_key_by_key(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(
        'model = "b"\nn = 3\n[[environments]]\nname = "a"\n[options]\nlengths = [1]\nvocabulary = "easy"\n'
        "[rollout]\nmax_turns = 4\nroot.temperature = 0.5\nrlm.max_turns = 6\n"
    )
    config = load_eval_config(
        path, {"n": 5, "options": {"lengths": [2]}, "rollout": {"rlm": {"tips": True}}}, "now"
    ).runs()["a"]
    assert config.n == 5
    assert config.options == {"lengths": [2], "vocabulary": "easy"}
    profile = {"max_turns": 2, "root": {"temperature": 1.0, "max_tokens": 9}}
    assert config.rollout_options("standard", profile) == {
        "max_turns": 4,
        "root": {"temperature": 0.5, "max_tokens": 9},
    }
    assert config.rollout_options("rlm", profile)["max_turns"] == 6
    assert config.rollout_options("rlm", profile)["tips"] is True


def test_a_config_reads_back_from_its_own_toml(tmp_path):
    import tomli_w

    config = load({"prices": {"tiny-rlm": {"prompt": 1.0, "completion": 2.0}}, "max_cost": 3.0})
    again = EvalRunConfig.model_validate(tomllib.loads(tomli_w.dumps(config.as_toml())))
    assert again == config


def test_resume_refuses_what_changes_results_and_names_it():
    old = load({"n": 8}).as_toml()
    for overrides, said in (
        ({"seed": 1}, "seed was 0, is now 1"),
        ({"model": "other"}, "model was 'tiny-rlm', is now 'other'"),
        ({"options": {"lengths": 3}}, "options was {}, is now {'lengths': 3}"),
        ({"n": 4}, "n was 8, is now 4 (it may only grow)"),
        ({"scaffolds": "rlm"}, "now without standard"),
    ):
        with pytest.raises(ConfigError) as error:
            check_eval_resume(old, load({"n": 8, **overrides}), Path("outputs/x"))
        assert said in str(error.value)


def test_resume_takes_more_of_the_same():
    old = load({"n": 8, "scaffolds": "rlm"}).as_toml()
    check_eval_resume(old, load({"n": 9, "repeats": 3, "concurrency": 1}), Path("outputs/x"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prompt = 1", "is outside of a table"),
        ('["m"]\nprompt = 1', "'completion' is missing"),
        ('["m"]\nprompt = 1\ncompletion = 2\ncache = 1', "unknown key 'cache'; did you mean 'cached'?"),
        ('["m"]\nprompt = -1\ncompletion = 2', "prompt: "),
        ("= 3", "is not valid TOML"),
    ],
)
def test_mistakes_in_a_price_table(tmp_path, text, said):
    (tmp_path / "prices.toml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load({"prices": str(tmp_path / "prices.toml")})
    assert said in str(error.value)
    assert "prices.toml" in str(error.value)
