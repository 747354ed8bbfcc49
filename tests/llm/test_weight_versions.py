"""Which weights sampled which tokens: stretches of a prompt, across updates, continuations and retries."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from rlm_env.llm.weight_versions import WeightVersions, extend, oldest, within
from rlm_env.rollout import GroupMember, Rollout, SubCall, Turn
from rlm_env.train.learner.samples import recorded_samples
from rlm_env.train.rl.groups import Batch, oldest_version


@dataclass
class InFlight:
    completion_ids: list[int] = field(default_factory=list)
    stretches: list[list[int]] = field(default_factory=list)


def vllm_id(fields: dict[str, str], index: int, suffix: str = "1a2b3c4d") -> str:
    return f"cmpl-{fields['request_id']}-{index}-{suffix}"


def test_without_versions_nothing_is_sent_or_recorded() -> None:
    versions, prompt = WeightVersions(), InFlight()
    with versions.request([prompt]) as fields:
        assert fields == {}
    assert prompt.stretches == []


def test_a_request_across_two_updates() -> None:
    versions, first, second, waiting = WeightVersions(), InFlight(), InFlight(), InFlight()
    versions.changed(3)
    with versions.request([first, second, waiting]) as fields:
        assert versions.changed(4, {vllm_id(fields, 0): 10, vllm_id(fields, 1): 0, "cmpl-others-0-x": 7}) == 3
        assert versions.changed(5, {vllm_id(fields, 0): 25, vllm_id(fields, 1): 0}) == 3
    assert first.stretches == [[0, 3], [10, 4], [25, 5]]
    assert second.stretches == waiting.stretches == [[0, 5]]  # nothing was sampled before
    assert versions.changed(6, {}) == 0


def test_a_continuation_counts_from_what_was_there() -> None:
    versions, prompt = WeightVersions(), InFlight()
    versions.changed(1)
    with versions.request([prompt]):
        pass
    prompt.completion_ids = [7] * 20
    versions.changed(2)
    with versions.request([prompt]) as fields:
        versions.changed(3, {vllm_id(fields, 0): 5, vllm_id(fields, 0, "retried"): 2})
    assert prompt.stretches == [[0, 1], [20, 2], [25, 3]]


def test_an_engine_that_tells_nothing_leaves_the_older_version() -> None:
    versions, prompt = WeightVersions(), InFlight()
    versions.changed(1)
    with versions.request([prompt]):
        assert versions.changed(2) == 0
    assert prompt.stretches == [[0, 1]]


def test_a_request_that_fails_is_forgotten() -> None:
    versions = WeightVersions()
    versions.changed(1)
    with pytest.raises(ZeroDivisionError), versions.request([InFlight()]):
        raise ZeroDivisionError
    assert versions.changed(2, {}) == 0


def test_stretches() -> None:
    found: list[list[int]] = []
    extend(found, 0, 1)
    extend(found, 4, 1)
    assert found == [[0, 1]]
    extend(found, 9, 2)
    assert within(found, 9) == [[0, 1]]
    assert within(found, 10) == [[0, 1], [9, 2]]
    assert oldest([[0, 5], [3, 6]]) == 5
    assert oldest(None) is None


def reply(ids: list[int], versions: list[list[int]] | None) -> dict:
    return {"prompt_ids": [1], "completion_ids": ids, "logprobs": [-1.0] * len(ids), "weight_versions": versions}


def test_off_policy_steps_count_from_the_oldest_token_and_records_keep_the_versions() -> None:
    rollout = Rollout(id="r", group=GroupMember("env", policy_version=3))
    rollout.turns = [Turn(**reply([2, 3], [[0, 5], [1, 6]])), Turn(**reply([4], [[0, 6]]))]
    rollout.sub_calls = [SubCall(0, 0, 0, [], **reply([5], [[0, 4]]))]
    read = Rollout.from_json(rollout.to_json())
    assert [turn.weight_versions for turn in read.turns] == [[[0, 5], [1, 6]], [[0, 6]]]
    assert oldest_version(read) == 4
    assert Batch(8, []).off_policy_steps(read) == 3
    assert [sample.policy_version for sample in recorded_samples(read)] == [5, 6, 4]
    read.turns[1].weight_versions = None  # an older record
    assert oldest_version(read) == 3
    assert '"weight_versions":null' not in read.to_json()
