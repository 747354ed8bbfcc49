"""Options of environments: each wrong one is named with what there is instead."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from rlm_env.authoring.options import at_least, chosen, counts, dataset_options, one_of


def test_numbers_and_names_are_checked():
    assert counts("lengths", 5) == [5]
    assert counts("lengths", (5, 6)) == [5, 6]
    for wrong in (0, [], [1, 0], ["5"]):
        with pytest.raises(ValueError, match="lengths must be one or more positive whole numbers"):
            counts("lengths", wrong)
    assert at_least("num_tasks", None, 1) is None
    with pytest.raises(ValueError, match="num_tasks must be at least 1 or None, got 0"):
        at_least("num_tasks", 0, 1)
    with pytest.raises(ValueError, match=r"num_tasks must be one whole number or None, got \[5, 6\]"):
        at_least("num_tasks", [5, 6], 1)
    assert one_of("mode", "a", "ab") == "a"
    with pytest.raises(ValueError, match="mode: 'c' does not exist; there are a, b"):
        one_of("mode", "c", "ab")


def test_names_may_be_one_some_or_all():
    assert chosen("kinds", "a", {"a": 1, "b": 2}) == ["a"]
    assert chosen("kinds", ["b", "b"], ("a", "b")) == ["b", "b"]
    assert chosen("kinds", None, ("a", "b")) == ["a", "b"]
    with pytest.raises(ValueError, match="kinds must name at least one of a, b"):
        chosen("kinds", [], ("a", "b"))
    with pytest.raises(ValueError, match="kinds: 'c' does not exist; there are a, b"):
        chosen("kinds", ["a", "c"], ("a", "b"))


@dataclass(frozen=True, kw_only=True)
class Made:
    length: int = 5


@dataclass(frozen=True, kw_only=True)
class Loaded:
    revision: str | None = None


DATASETS = {"made": Made, "loaded": Loaded}


def test_a_data_set_takes_its_own_options_and_no_others():
    assert dataset_options("made", DATASETS, {"length": 3, "revision": None}, ["seed"]) == Made(length=3)
    assert dataset_options("loaded", DATASETS, {"length": None}, ["seed"]) == Loaded()
    with pytest.raises(ValueError, match="dataset 'loaded' has no option length"):
        dataset_options("loaded", DATASETS, {"length": 3}, ["seed"])
    with pytest.raises(ValueError, match="dataset: 'found' does not exist; there are made, loaded"):
        dataset_options("found", DATASETS, {}, ["seed"])
    with pytest.raises(TypeError, match="unknown option 'depth', 'width'; there are seed, length, revision"):
        dataset_options("made", DATASETS, {"depth": 3, "width": 4}, ["seed"])
