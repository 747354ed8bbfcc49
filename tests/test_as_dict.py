"""A dataclass as a dict: what `dataclasses.asdict` gives, and nothing that can be changed is shared."""

from dataclasses import asdict, dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rlm_env.as_dict import as_dict
from rlm_env.rollout import Rollout, StopReason, SubCall, SubTurn, ToolResult, Turn


@dataclass(slots=True)
class Inner:
    value: Any


@dataclass
class Outer:
    value: Any = None
    inner: list[Inner] = field(default_factory=list)
    by_name: dict[str, Inner] = field(default_factory=dict)


atoms = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.sampled_from(StopReason)
values = st.recursive(
    atoms,
    lambda inside: (
        st.lists(inside, max_size=4)
        | st.dictionaries(st.text(), inside, max_size=4)
        | st.tuples(inside, inside)
        | st.builds(Inner, inside)
    ),
    max_leaves=12,
)


def containers(value: Any) -> list[Any]:
    """All lists and dicts in a dataclass or a value, at any depth."""
    if isinstance(value, list | tuple):
        inside = [found for item in value for found in containers(item)]
    elif isinstance(value, dict):
        inside = [found for item in value.values() for found in containers(item)]
    elif hasattr(value, "__dataclass_fields__"):
        return [found for name in value.__dataclass_fields__ for found in containers(getattr(value, name))]
    else:
        return []
    return inside if isinstance(value, tuple) else [value, *inside]


inners = st.builds(Inner, values)


@given(st.builds(Outer, values, st.lists(inners), st.dictionaries(st.text(), inners)))
def test_the_result_is_that_of_asdict_and_shares_nothing(outer):
    found = as_dict(outer)
    assert found == asdict(outer)
    assert repr(found) == repr(asdict(outer))  # the same order, and 1 is not True
    assert not {id(one) for one in containers(found)} & {id(one) for one in containers(outer)}


def test_a_whole_rollout_is_copied_as_asdict_copies_it():
    reply = {"prompt_ids": [1, 2], "completion_ids": [3], "logprobs": [-0.5], "weight_versions": [[0, 1], [1, 2]]}
    call = SubCall(id=0, root_turn=0, batch=0, messages=[{"role": "user", "content": "?"}], tool_turns=[SubTurn()])
    tool = ToolResult("look", "{}", "found", seconds=0.25)
    rollout = Rollout(turns=[Turn(**reply, tool_results=[tool])], sub_calls=[call], info={"a": {"b": [1, None]}})
    assert repr(as_dict(rollout)) == repr(asdict(rollout))
    assert "info" not in as_dict(rollout, leave_out=("info",))
