"""Questions as walks through the graph, and the proof that a walk is the only one.

A query is a positive conjunction (kinds, conditions and relations, no negation, no superlative): its results can only
shrink when facts are removed. So without one page of its evidence the only walk is gone, and no other takes its place.
Queries are evaluated here over the whole graph; they are chosen and worded in `questions.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

from deepdive_rlm.world import Thing, World

NAME = "name"
"""The thing asked about, if the question does not ask for an attribute."""


@dataclass(frozen=True, slots=True)
class Condition:
    """`attribute` (or `noun`, `habit`) lies in [low, high]; a date counts by its year."""

    attribute: str
    low: Any
    high: Any

    def holds(self, thing: Thing) -> bool:
        value = thing.noun if self.attribute == "noun" else thing.values[self.attribute]
        if isinstance(value, date):
            value = value.year
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Step:
    """A thing on the walk: its kind, what is said of it, and how it hangs on the one before.

    `relation` is None for the first. `backwards`: this thing is the relation's source, not its target.
    """

    kind: str
    conditions: tuple[Condition, ...] = ()
    relation: str | None = None
    backwards: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """A walk and what is asked of its last thing: an attribute, or its name."""

    steps: tuple[Step, ...]
    asked: str

    def from_step(self, index: int) -> Query:
        """The rest of the walk, for a solver who skips the part before it."""
        first, *rest = self.steps[index:]
        return Query((Step(first.kind, first.conditions), *rest), self.asked)


def walks(world: World, query: Query, without: Collection[int] = ()) -> Iterator[tuple[int, ...]]:
    """All walks that fit, as ids; they may come back to a thing. `without`: things whose pages are gone, so that nobody
    knows a fact of theirs."""
    first, *rest = query.steps
    found: Iterator[tuple[int, ...]] = (
        (thing.id,) for thing in world.kinds[first.kind] if _fits(thing, first, without)
    )
    for before, step in zip(query.steps, rest, strict=False):
        found = _follow(world, found, before.kind, step, without)
    if query.asked != NAME:
        found = (walk for walk in found if walk[-1] not in without)
    return found


def answers(world: World, query: Query, without: Collection[int] = ()) -> set[Any]:
    """The different answers of all walks that fit: one, if the question is a good one."""
    ends = {walk[-1] for walk in walks(world, query, without)}
    return {value_of(world.things[end], query.asked) for end in ends}


def value_of(thing: Thing, asked: str) -> Any:
    return thing.title if asked == NAME else thing.values[asked]


def evidence(query: Query, walk: tuple[int, ...]) -> list[int]:
    """The things on the walk whose pages are needed, in the order of the walk: those of which a condition, a relation
    or the answer is said. Without any one of them there is no walk."""
    needed = []
    for index, (step, thing) in enumerate(zip(query.steps, walk, strict=True)):
        last = index == len(walk) - 1
        leads_on = not last and not query.steps[index + 1].backwards
        if step.conditions or step.backwards or leads_on or (last and query.asked != NAME):
            needed.append(thing)
    return needed


def _fits(thing: Thing, step: Step, without: Collection[int]) -> bool:
    if not step.conditions:
        return True
    return thing.id not in without and all(condition.holds(thing) for condition in step.conditions)


def _follow(
    world: World, found: Iterator[tuple[int, ...]], kind: str, step: Step, without: Collection[int]
) -> Iterator[tuple[int, ...]]:
    for walk in found:
        for id in _next(world, walk[-1], step, without):
            if world.things[id].kind == step.kind and _fits(world.things[id], step, without):
                yield (*walk, id)


def _next(world: World, at: int, step: Step, without: Collection[int]) -> list[int]:
    if step.backwards:
        sources = world.sources.get((step.kind, step.relation, at), ())
        return [id for id in sources if id not in without]
    target = world.things[at].links.get(step.relation)
    return [] if target is None or at in without else [target]
