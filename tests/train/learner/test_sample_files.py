"""Samples on disk come back as they were; anything else in their place is refused by name."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_env.runs.errors import ConfigError
from rlm_env.train.learner.sample_files import read_samples, sample_files, write_samples
from rlm_env.train.learner.samples import Sample, SampleKind

positive = st.floats(0, 100, exclude_min=True)


@st.composite
def samples(draw):
    size = draw(st.integers(2, 6))
    fixed = {"min_size": size, "max_size": size}
    return Sample(
        draw(st.lists(st.integers(0, 200_000), **fixed)),
        [False, *draw(st.lists(st.booleans(), min_size=size - 1, max_size=size - 1))],
        draw(st.lists(st.floats(-1e9, 0), **fixed)),
        draw(st.text(max_size=5)),
        draw(st.integers(0, 9)),
        draw(st.sampled_from(SampleKind)),
        draw(positive),
        draw(positive),
        draw(st.floats(-100, 100)),
    )


@given(found=st.lists(samples(), max_size=5))
def test_samples_come_back_to_the_bit(tmp_path_factory, found):
    path = write_samples(tmp_path_factory.mktemp("samples"), 1, found)
    assert read_samples(path) == found


def test_steps_are_read_in_order_and_a_gap_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no step-000001\.jsonl"):
        sample_files(tmp_path)
    for step in (1, 2, 4):
        write_samples(tmp_path, step, [])
    with pytest.raises(ConfigError, match=r"step-000004\.jsonl where step-000003\.jsonl was expected"):
        sample_files(tmp_path)
    write_samples(tmp_path, 3, [])
    assert [path.stem for path in sample_files(tmp_path)] == [f"step-{step:06}" for step in (1, 2, 3, 4)]


@pytest.mark.parametrize("cut", [1, 10, 10_000])
def test_a_file_that_ends_within_a_line_is_damaged(tmp_path, cut):
    """These files are written as a whole: what is missing was lost later, and the step would not be that of the run."""
    masks = [[False] + [True] * count for count in (1, 5_000)]
    path = write_samples(tmp_path, 1, [Sample([1] * len(mask), mask, [0.0] * len(mask), "r") for mask in masks])
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ConfigError, match=r"step-000001\.jsonl, line 2 is damaged: the file ends within it"):
        read_samples(path)


@pytest.mark.parametrize("line", ["{", "[]", '{"token_ids": []}', "null", 100_000 * "["], ids=lambda line: line[:20])
def test_a_line_that_is_no_sample_is_named(tmp_path, line):
    path = write_samples(tmp_path, 1, [Sample([1, 2], [False, True], [0.0, -1.0], "r")])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ConfigError, match="line 2 is damaged: "):
        read_samples(path)


GOOD = {
    "token_ids": [1, 5, 6, 7],
    "mask": [False, False, True, True],
    "behavior_logprobs": [0, 0.0, -1.0, -2.0],
    "rollout_id": "000000/0",
    "policy_version": 0,
    "kind": "root",
    "weight": 1.0,
    "temperature": 1,
    "advantage": -0.5,
}
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(
            ({"behavior_logprobs": [0, 0, value, -2.0]}, "behavior_logprobs")
            for value in (NAN, INF, -INF, 3.0, None, -(10**400))
        ),
        ({"mask": [False, True]}, "differ in length"),
        ({"mask": ["", "", "x", "x"]}, "mask must be a list of bool"),
        ({"mask": [0, 0, 1, 1]}, "mask must be a list of bool"),
        ({"mask": [True] * 4}, "first token"),
        ({"token_ids": [], "mask": [], "behavior_logprobs": []}, "no tokens"),
        *(({"token_ids": [1, 5, 6, value]}, "token_ids must be a list of int") for value in (9.5, "9", None)),
        ({"token_ids": [1, 5, 6, -1]}, "negative"),
        ({"token_ids": [1, 5, 6, 2**70]}, "no vocabulary"),
        *(({"advantage": value}, "advantage") for value in (NAN, None, "1", 1e30)),
        *(({"weight": value}, "weight") for value in (-1.0, 0.0, NAN, INF)),
        *(({"temperature": value}, "temperature") for value in (0.0, None, NAN)),
        ({"kind": "judge"}, "'judge' is not a valid SampleKind"),
        ({"policy_version": -1}, "policy_version"),
        ({"rollout_id": 3}, "rollout_id"),
        ({"extra": 1}, r"fields \['extra'\]"),
    ],
)
def test_a_sample_that_cannot_be_trained_is_refused_with_its_line(tmp_path, change, message):
    path = tmp_path / "step-000001.jsonl"
    path.write_text("".join(json.dumps(sample) + "\n" for sample in (GOOD, {**GOOD, **change})))
    no_json = any(json.dumps(part) in ("NaN", "Infinity", "-Infinity") for part in _parts(change))
    expected = "it holds -?(NaN|Infinity), which is no JSON" if no_json else f"not a sample: .*{message}"
    with pytest.raises(ConfigError, match=f"line 2 is damaged: {expected}"):
        read_samples(path)


def _parts(change: dict[str, object]) -> list[object]:
    """The values, and those within lists."""
    return [part for value in change.values() for part in (value if isinstance(value, list) else [value])]


def test_bytes_that_are_no_text_are_refused_with_their_line(tmp_path):
    path = tmp_path / "step-000001.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n\xe9\n")
    with pytest.raises(ConfigError, match="line 2 is damaged"):
        read_samples(path)
