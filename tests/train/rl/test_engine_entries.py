"""The table `[[engines]]` of training: what it says, what is refused, what a resumed run may change in it."""

from __future__ import annotations

import re

import pytest

from rlm_env.runs.errors import ConfigError
from rlm_env.runs.options import apply_overrides
from rlm_env.train.rl.config import TrainConfig, check_train_resume
from rlm_env.train.rl.engine_entries import engines_for

URL = "http://10.0.0.2:8000/v1"
FIXED_SUB = {"name": "frozen", "roles": ["sub"], "weights": "fixed"}
ROOT = {"name": "policy", "roles": ["root"]}
ROOT_ALONE = {"samples": {"train_sub_calls": False}}


def config(*engines, **changes) -> TrainConfig:
    values = {"model": "m", "out": "o", "environments": [{"name": "e"}], "engines": list(engines), **changes}
    return TrainConfig.model_validate(values)


def names(entries) -> list[str]:
    return [entry.name for entry in entries]


def test_without_the_table_there_is_one_engine_as_the_table_engine_says():
    (entry,) = config(engine={"max_model_len": 512}).engine_entries()
    assert (entry.name, entry.model, entry.roles, entry.followed) == ("vllm", "", ("root", "sub"), True)
    assert (entry.base_url, entry.server.max_model_len) == (None, 512)
    assert "engines" not in config().as_toml()


def test_several_engines_answer_in_a_role():
    made = config({"name": "a"}, {"name": "b", "base_url": URL}, {"name": "j", "roles": ["judge"], "weights": "fixed"})
    entries = made.engine_entries()
    assert names(engines_for("root", entries)) == names(engines_for("sub", entries)) == ["a", "b"]
    assert names(engines_for("judge", entries)) == ["j"]
    assert TrainConfig.model_validate(made.as_toml()) == made


def test_the_sub_llm_is_the_root_llm_where_no_engine_has_its_role():
    assert names(engines_for("sub", config(ROOT).engine_entries())) == ["policy"]


@pytest.mark.parametrize(
    "made",
    [
        lambda: config(ROOT, FIXED_SUB, **ROOT_ALONE),
        lambda: config({**FIXED_SUB, "roles": ["root"]}, {"roles": ["sub"]}, samples={"train_root": False}),
        lambda: config({"name": "both"}, samples={"train_root": False}),
        lambda: config(ROOT, {**FIXED_SUB, "model": "gpt", "base_url": URL, "key_env": "KEY"}, **ROOT_ALONE),
        lambda: config({"model": "m", "server": {"devices": [4, 5]}}),
        lambda: config(ROOT, {"name": "s", "roles": ["sub"]}, **ROOT_ALONE),
        lambda: config(
            ROOT,
            {**FIXED_SUB, "model": "small", "base_url": URL},
            {"roles": ["judge"], "weights": "fixed", "model": "large", "base_url": URL},
            **ROOT_ALONE,
        ),
        lambda: config({"base_url": URL}, sync={"method": "nccl", "address": "10.0.0.1"}),
    ],
    ids=[
        "root alone",
        "sub alone",
        "sub alone, one engine",
        "a sub-model behind an API",
        "named as the run's model",
        "a sub-LLM that follows",
        "two fixed models of one endpoint",
        "an engine elsewhere that knows where the trainer is",
    ],
)
def test_what_may_be_trained(made):
    assert made().engine_entries()


@pytest.mark.parametrize(
    ("engines", "changes", "message"),
    [
        ([{}, {}], {}, "engines: 'vllm' is there twice; give each its own name"),
        ([{"roles": ["sub"]}], {}, "none has the role root"),
        (
            [ROOT, FIXED_SUB],
            {},
            'the role sub has weights = "fixed", whose tokens are not trained: set samples.train_sub',
        ),
        ([{"name": "a"}, FIXED_SUB], ROOT_ALONE, "with the role sub (a, frozen) some follow and some are fixed"),
        ([{"roles": ["root", "judge"]}], {}, "a judge that learns along would change the reward"),
        ([{"model": "other"}], {}, "engines.other.model: an engine that follows serves the run's model"),
        ([{"base_url": URL, "tokens": "m"}], {}, "engines.vllm.tokens: has no effect on a vLLM that follows"),
        ([{"base_url": URL, "key_env": "K"}], {}, "engines.vllm.key_env: has no effect on a vLLM that follows"),
        ([ROOT, {**FIXED_SUB, "base_url": URL}], ROOT_ALONE, "engines.frozen.model: name the model that is asked at"),
        ([{"prices": {"prompt": 1, "completion": 1}}], {}, "engines.vllm.prices has no effect in training"),
        ([{}], {"engine": {"eager": True}}, "[engine] does not go with [[engines]]"),
        ([{"server": {"extra_args": ["--seed=1"]}}], {}, "engines.vllm.server.extra_args: --seed is not to be set"),
        ([{"base_url": URL, "server": {"devices": [1]}}], {}, "the options of a local vLLM have no effect"),
        ([{"server": {"devices": []}}], {}, "devices"),
        ([{"weight": "fixed"}], {}, "weight"),
        (
            [{}, {"name": "b"}],
            {"sync": {"method": "nccl"}},
            'sync.method = "nccl" goes to one engine, and vllm, b follow',
        ),
        ([{"base_url": URL}], {"sync": {"method": "ipc"}}, "is for an engine that the run starts on the GPUs"),
        ([{}], {"samples": {"train_root": False, "train_sub_calls": False}}, "nothing would be trained"),
        (
            [{"name": "a", "base_url": URL}, {"name": "b", "base_url": "http://10.0.0.2:8000/v1/"}],
            {},
            "engines.a and engines.b are one vLLM",
        ),
        (
            [
                {**ROOT, "base_url": "http://localhost:80/v1"},
                {**FIXED_SUB, "model": "m", "base_url": "http://127.0.0.1/v1"},
            ],
            ROOT_ALONE,
            "engines.policy and engines.frozen are one vLLM",
        ),
        ([{"base_url": URL}], {"teacher": {"model": "t", "base_url": URL}}, "teacher.base_url is engines.vllm"),
        (
            [{"server": {"port": 8001}}, {"name": "b", "server": {"port": 8001}}],
            {},
            "engines.b.server.port is that of engines.vllm.server too",
        ),
        (
            [{"server": {"port": 8001}}],
            {"teacher": {"model": "t", "server": {"port": 8001}}},
            "teacher.server.port is that of engines.vllm.server too",
        ),
        ([{"name": "a/b"}, {"name": "a--b"}], {}, "engines: a/b and a--b would share one log"),
        ([{"name": ".."}], {}, "engines...: '..' cannot be a name"),
        ([{"base_url": "http://x:port/v1"}], {}, "has no port between 0 and 65535"),
        (
            [{"base_url": URL}],
            {"sync": {"method": "nccl"}},
            "sync.address: 127.0.0.1 is not this machine for the engine",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(engines, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        config(*engines, **changes)


def test_an_engine_is_changed_by_its_name_on_the_command_line():
    values = {"engines": [{"name": "a"}, {"name": "b"}]}
    changed = apply_overrides(values, {"engines": {"b": {"server": {"devices": [3]}}}})
    assert changed["engines"] == [{"name": "a"}, {"name": "b", "server": {"devices": [3]}}]
    with pytest.raises(ConfigError, match=r"engines\.c: there is no engine of this name"):
        apply_overrides(values, {"engines": {"c": {}}})


def test_an_engine_without_a_name_is_changed_by_the_name_that_it_gets():
    values = {"engines": [{"roles": ["root"]}, {"name": "b"}]}
    changed = apply_overrides(values, {"engines": {"vllm": {"server": {"max_model_len": 512}}}})
    assert changed["engines"] == [{"roles": ["root"], "server": {"max_model_len": 512}}, {"name": "b"}]
    assert config(*changed["engines"]).engines[0].name == "vllm"
    with pytest.raises(ConfigError, match="engines: 'vllm' is there twice"):
        apply_overrides({"engines": [{}, {}, {"name": "b"}]}, {"engines": {"vllm": {}}})
    three = {"engines": [{}, {}, {"name": "b"}]}
    assert len(apply_overrides(three, {"engines": {"b": {"weights": "fixed"}}})["engines"]) == 3


def test_a_resumed_run_may_have_other_engines_but_not_other_fixed_models():
    old = config(ROOT, FIXED_SUB, **ROOT_ALONE).as_toml()
    more = [ROOT, {**ROOT, "name": "second", "base_url": URL}, FIXED_SUB]
    check_train_resume(old, config(*more, **ROOT_ALONE))
    with pytest.raises(ConfigError, match="engines was"):
        check_train_resume(old, config(ROOT, {**FIXED_SUB, "model": "other"}, **ROOT_ALONE))
    check_train_resume(old, config(ROOT, FIXED_SUB, {**FIXED_SUB, "name": "replica"}, **ROOT_ALONE))
    check_train_resume(config().as_toml(), config({"name": "a"}, {"name": "b"}))


def test_a_resumed_run_may_wait_longer_and_be_elsewhere_but_brings_weights_as_before():
    drains = {"method": "nccl", "in_flight": "drain"}
    old = config(sync={**drains, "return_seconds": 9}).as_toml()
    where = {"return_seconds": 900, "drain_seconds": 9, "address": "10.0.0.9", "check_tolerance": 0.1}
    check_train_resume(old, config(sync={**drains, **where}))
    with pytest.raises(ConfigError, match=r"sync was .*in_flight"):
        check_train_resume(old, config(sync={"method": "nccl"}))
