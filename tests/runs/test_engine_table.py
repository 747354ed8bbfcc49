"""`[[engines]]`: each role has one engine, and every mistake is named."""

import pytest
from pydantic import ValidationError

from rlm_env.runs.engine_table import EngineEntry, by_role, endpoint_place
from rlm_env.runs.errors import ConfigError, validation_problems
from rlm_env.runs.options import apply_overrides

URL = "http://x/v1"


def test_roles_find_their_engines():
    big = EngineEntry(model="big", base_url=URL, roles=("root",))
    small = EngineEntry(model="small", roles=("sub",))
    assert by_role([big, small]) == {"root": big, "sub": small}
    assert by_role([big]) == {"root": big, "sub": big}
    judge = EngineEntry(model="big", name="the judge", base_url=URL, roles=("judge",))
    assert by_role([big, judge])["judge"] is judge


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([{"model": "a", "roles": ["sub"]}], "none has the role root"),
        ([{"model": "a"}, {"model": "b", "roles": ["sub"]}], "a and b both have the role sub"),
        ([{"model": "a", "roles": ["root"]}, {"model": "a", "roles": ["sub"]}], "'a' is there twice"),
    ],
)
def test_roles_that_do_not_fit_together(entries, said):
    with pytest.raises(ValueError, match=said):
        by_role([EngineEntry(**entry) for entry in entries])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"roles": []}, "roles"),
        ({"roles": ["rot"]}, "rot"),
        ({"roles": ["root", "root"]}, "a role is named twice"),
        ({"base_url": "x/v1"}, "base_url must begin with http:// or https:// (or be 'local')"),
        ({"key_env": "KEY"}, "key_env is for an endpoint; without base_url a local vLLM is started"),
        ({"base_url": "local", "retries": 2}, "retries is for an endpoint"),
        ({"base_url": URL, "server": {"dtype": "float32"}}, "no effect on the endpoint"),
        ({"base_url": URL, "tokens": "folder", "key_env": "KEY"}, "key_env does not go with tokens"),
        ({"concurency": 3}, "unknown key 'concurency'; did you mean 'concurrency'?"),
        ({"timeout": 0}, "timeout"),
        ({"devices": [0]}, "unknown key 'devices'; did you mean 'server.devices'?"),
        ({"base_url": "http://host:port/v1"}, "has no port between 0 and 65535"),
    ],
)
def test_mistakes_in_an_entry_are_named(values, said):
    with pytest.raises(ValidationError) as error:
        EngineEntry.model_validate({"model": "m", **values})
    assert said in "; ".join(validation_problems(error.value, EngineEntry))


def test_of_wrong_items_it_is_not_said_that_they_are_too_few():
    with pytest.raises(ValidationError) as error:
        EngineEntry.model_validate({"model": "m", "roles": ["teacher"]})
    (problem,) = validation_problems(error.value, EngineEntry)
    assert problem.startswith("roles.0: Input should be 'root', 'sub' or 'judge'")


def test_two_local_engines_have_two_ports():
    entries = [
        EngineEntry(model=name, roles=(role,), server={"port": 8001}) for name, role in (("a", "root"), ("b", "sub"))
    ]
    with pytest.raises(ValueError, match=r"engines.b.server.port is that of engines.a.server too"):
        by_role(entries)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("http://Host/v1", "http://host:80/v1/", True),
        ("http://localhost:8000/v1", "http://127.0.0.1:8000/v1", True),
        ("https://host/v1", "http://host/v1", False),
        ("http://host/v1", "http://host/v2", False),
    ],
)
def test_an_endpoint_is_one_place_however_it_is_written(one, other, same):
    assert (endpoint_place(one) == endpoint_place(other)) is same


def test_a_local_engine_costs_nothing_unless_it_has_a_price():
    assert EngineEntry(model="m").price is not None
    assert EngineEntry(model="m", base_url=URL).price is None


def test_a_key_comes_from_the_environment_only(monkeypatch):
    entry = EngineEntry(model="m", base_url=URL, key_env="RLM_ENV_TEST_KEY")
    monkeypatch.setenv("RLM_ENV_TEST_KEY", "secret")
    assert entry.key() == "secret"
    assert "secret" not in entry.model_dump_json()
    monkeypatch.delenv("RLM_ENV_TEST_KEY")
    with pytest.raises(ConfigError, match="RLM_ENV_TEST_KEY is not set: it shall hold the key of m"):
        entry.key()


def test_the_command_line_changes_the_entry_that_it_names():
    values = {"engines": [{"model": "a", "roles": ["root"]}, {"model": "b", "name": "small", "roles": ["sub"]}]}
    changed = apply_overrides(values, {"engines": {"small": {"timeout": 5}}})
    assert changed["engines"][1] == {"model": "b", "name": "small", "roles": ["sub"], "timeout": 5}
    assert changed["engines"][0] == values["engines"][0]
    with pytest.raises(ConfigError, match=r"engines.smal: there is no engine of this name; did you mean 'small'"):
        apply_overrides(values, {"engines": {"smal": {"timeout": 5}}})
