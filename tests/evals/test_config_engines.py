"""The engines that `model`, `base_url` and the keys beside them describe, and those of `[[engines]]`."""

import pytest

from rlm_env.evals.config import check_eval_resume, load_eval_config
from rlm_env.runs.errors import ConfigError

URL, OTHER = "https://a/v1", "https://b/v1"

TABLE = f"""
out = "o"
max_cost = 1.0
[[environments]]
name = "x"

[[engines]]
model = "org/big"
roles = ["root", "judge"]
base_url = "{URL}"
concurrency = 8
window = 1000
prices = {{ prompt = 1.0, completion = 2.0 }}

[[engines]]
name = "small"
model = "tiny-rlm"
roles = ["sub"]
server = {{ max_model_len = 2048 }}
"""


def load(**values):
    return load_eval_config(None, {"environments": [{"name": "x"}], "out": "o", **values})


def test_one_model_has_both_roles():
    (entry,) = load(model="m", base_url=URL, api_key_env="KEY").engine_entries()
    assert (entry.model, entry.roles, entry.base_url, entry.key_env) == ("m", ("root", "sub"), URL, "KEY")


def test_a_root_at_an_endpoint_with_a_local_sub_llm():
    config = load(model="big", base_url=URL, api_key_env="KEY", sub_model="tiny-rlm", sub_base_url="local")
    assert (config.root.base_url, config.root.key_env) == (URL, "KEY")
    assert (config.sub.model, config.sub.base_url, config.sub.key_env) == ("tiny-rlm", None, None)
    assert config.models_title == "big, sub-LLM tiny-rlm"


def test_engine_options_belong_to_the_local_one():
    config = load(model="big", base_url=URL, sub_model="s", sub_base_url="local", engine={"dtype": "float32"})
    assert config.sub.server.dtype == "float32"


def test_a_key_goes_to_its_own_endpoint_only():
    config = load(model="m", base_url=URL, api_key_env="KEY", sub_base_url=OTHER, judge_model="j")
    assert (config.sub.model, config.sub.base_url, config.sub.key_env) == ("m", OTHER, None)
    judge = config.engine_of("judge")
    assert judge is not None
    assert (judge.base_url, judge.key_env) == (URL, "KEY")
    config = load(model="m", base_url=URL, api_key_env="KEY", sub_base_url=OTHER, sub_api_key_env="SUB")
    assert config.sub.key_env == "SUB"


def test_a_table_says_it_all(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(TABLE)
    config = load_eval_config(path, {"engines": {"small": {"server": {"dtype": "float32"}}}})
    assert (config.root.concurrency, config.root.window, config.engine_of("judge")) == (8, 1000, config.root)
    assert (config.sub.server.max_model_len, config.sub.server.dtype) == (2048, "float32")
    (run,) = config.runs().values()
    assert type(run).model_validate(run.as_toml()).engine_entries() == config.engine_entries()
    path.write_text(path.read_text().replace('out = "o"', ""))
    assert str(load_eval_config(path, {}, "now").out) == "outputs/x-big-now"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model": "m", "engines": [{"model": "m"}]}, "model does not go with [[engines]]"),
        ({"engines": [{"model": "m", "roles": ["sub"]}]}, "none has the role root"),
        ({"engines": [{"modle": "m"}]}, "unknown key 'engines.0.modle'; did you mean 'model'"),
        ({"model": "m", "sub_base_url": "x"}, "base_url must begin with http:// or https:// (or be 'local')"),
        ({"model": "m", "judge_base_url": URL}, "judge_base_url and judge_api_key_env go with judge_model"),
        (
            {"model": "m", "base_url": URL, "sub_base_url": "local", "max_cost": 1.0},
            "max_cost needs prices: give --prices FILE.toml",
        ),
        (
            {
                "engines": [
                    {"model": "m", "base_url": URL, "roles": ["root"]},
                    {"model": "s", "base_url": OTHER, "roles": ["sub"], "prices": {"prompt": 1, "completion": 1}},
                ],
                "max_cost": 1.0,
            },
            '["m"]',
        ),
    ],
)
def test_mistakes_are_named(values, said):
    with pytest.raises(ConfigError) as error:
        load(**values)
    assert said in str(error.value)


def test_a_resumed_run_may_be_slower_but_not_elsewhere(tmp_path):
    entry = {"model": "m", "base_url": URL}
    (old,) = load(engines=[entry]).runs().values()
    (slower,) = load(engines=[{**entry, "concurrency": 2, "timeout": 5, "key_env": "K"}]).runs().values()
    check_eval_resume(old.as_toml(), slower, tmp_path)
    (elsewhere,) = load(engines=[{**entry, "base_url": OTHER}]).runs().values()
    with pytest.raises(ConfigError, match="engines was"):
        check_eval_resume(old.as_toml(), elsewhere, tmp_path)
