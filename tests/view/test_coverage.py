"""What was read of a context: counted from the references of a real rollout, and from made ones."""

from rlm_env.contexts import ContextStore
from rlm_env.rollout import Rollout, SubCall, Turn
from rlm_env.view.coverage import coverage, merged, readers


def test_spans_are_merged_in_order():
    assert merged([(5, 9), (0, 3), (2, 4), (20, 30)]) == [(0, 4), (5, 9), (20, 30)]
    assert merged([(5, 9), (0, 3), (12, 13)], gap=2) == [(0, 9), (12, 13)]
    assert merged([]) == []


def test_root_and_sub_llms_are_told_apart(tmp_path):
    context = "".join(f"line {index} has its own words {index * 7919}\n" for index in range(400))
    turn = Turn(text="x", observation="Output:\n" + context[:1000])
    calls = [
        SubCall(id=index, root_turn=1, batch=0, messages=[{"role": "user", "content": "Read: " + context[start:end]}])
        for index, (start, end) in enumerate([(2000, 4000), (3000, 5000)])
    ]
    record = Rollout(turns=[turn, Turn()], sub_calls=calls, context=context).to_dict(ContextStore(tmp_path))
    found = coverage(record)
    assert found is not None
    assert found["chars"] == len(context)
    assert found["tracks"]["root"] == {"read": 1000, "spans": [(0, 1000)]}
    assert found["tracks"]["sub"]["read"] == 3000
    assert found["read"] == 4000
    assert found["turns"]["0"] == {"root": [(0, 1000)], "sub": []}
    assert found["turns"]["1"]["root"] == []
    both = readers(record, 3500, 3501)
    assert (both["count"], both["sub_count"], both["turns"]) == (2, 2, [1])
    assert {one["call"] for one in both["first"]} == {0, 1}
    assert both["spans"] == {"root": [], "sub": [(3500, 3501)]}
    assert readers(record, 900, 2500)["spans"] == {"root": [(900, 1000)], "sub": [(2000, 2500)]}
    assert readers(record, 6000, 6001)["count"] == 0


def test_a_rollout_without_references_has_none():
    record = Rollout(turns=[Turn(observation="nothing")], context="a short one").to_dict()
    assert coverage(record) is None
