"""What `--until` asks for: `rlm>standard`, read and checked. The test itself is in `until.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlm_env.scaffolds import SCAFFOLDS
from rlm_env.spelling import near_matches

EXAMPLE = "rlm>standard"


@dataclass(frozen=True, slots=True)
class Condition:
    """Two scaffolds between which a run shall decide. The test has two sides; `ours` is the one hoped to be better."""

    ours: str
    theirs: str

    def __str__(self) -> str:
        return f"{self.ours}>{self.theirs}"


def read_conditions(texts: str | Sequence[str], scaffolds: Sequence[str]) -> tuple[Condition, ...]:
    """The conditions in `rlm>standard`, in such texts joined by commas, or in a list of both. `a<b` is `b>a`.

    Raises ValueError for another syntax, for scaffolds that are not in the run, and for a pair that is named twice.
    """
    given = [texts] if isinstance(texts, str) else texts
    listed = [part for text in given for part in (text.split(",") if isinstance(text, str) else [text])]
    conditions = tuple(_read(text, scaffolds) for text in listed if not isinstance(text, str) or text.strip())
    pairs = [frozenset((one.ours, one.theirs)) for one in conditions]
    for condition, pair in zip(conditions, pairs, strict=True):
        if pairs.count(pair) > 1:
            raise ValueError(f"{condition.ours} and {condition.theirs} are compared twice; the test has two sides")
    return conditions


def _read(text: object, scaffolds: Sequence[str]) -> Condition:
    """One condition. Raises ValueError."""
    for sign in "><":
        if not isinstance(text, str) or text.count(sign) != 1 or text.count(">") + text.count("<") != 1:
            continue
        left, right = (name.strip() for name in text.split(sign))
        for name in (left, right):
            _check(name, scaffolds)
        if left == right:
            raise ValueError(f"{text!r} compares {left} with itself")
        return Condition(left, right) if sign == ">" else Condition(right, left)
    raise ValueError(f"{text!r} is no comparison of two scaffolds; write it in quotes, as '{EXAMPLE}'")


def _check(name: str, scaffolds: Sequence[str]) -> None:
    if not name:
        raise ValueError(f"a scaffold is missing; write it in quotes, as '{EXAMPLE}'")
    if name not in SCAFFOLDS:
        raise ValueError(f"unknown scaffold '{name}'{near_matches(name, SCAFFOLDS)}")
    if name not in scaffolds:
        raise ValueError(f"{name} is not in scaffolds ({', '.join(scaffolds)}), so nothing can be decided about it")
