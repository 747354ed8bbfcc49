"""Samples on disk come back as they were; anything else in their place is refused by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_env.runs.errors import ConfigError
from rlm_env.train.learner.sample_files import read_samples, sample_files, write_samples
from rlm_env.train.learner.samples import Sample, SampleKind

finite = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def samples(draw):
    size = draw(st.integers(2, 6))
    fixed = {"min_size": size, "max_size": size}
    return Sample(
        draw(st.lists(st.integers(0, 200_000), **fixed)),
        draw(st.lists(st.booleans(), **fixed)),
        draw(st.lists(finite, **fixed)),
        draw(st.text(max_size=5)),
        draw(st.integers(0, 9)),
        draw(st.sampled_from(SampleKind)),
        draw(finite),
        draw(finite),
        draw(finite),
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


@pytest.mark.parametrize("line", ["{", "[]", '{"token_ids": []}', "null"])
def test_a_line_that_is_no_sample_is_named(tmp_path, line):
    path = write_samples(tmp_path, 1, [Sample([1, 2], [False, True], [0.0, -1.0], "r")])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ConfigError, match="line 2: not a sample"):
        read_samples(path)
