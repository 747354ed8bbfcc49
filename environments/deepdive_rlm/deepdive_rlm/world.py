"""The things of a small web and their relations: a typed graph, drawn from a seed, with near-equal things in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta

from deepdive_rlm.names import Names
from deepdive_rlm.schema import COUNTS, KINDS, OBJECTS
from rlm_env.authoring.draw import Draw


@dataclass(slots=True)
class Thing:
    """A node of the graph and a page of the web.

    `values`: its attributes, its `noun` where its kind has several, and its `habit`, as (habit, object) in indices.
    `links`: relation -> id of the target.
    """

    id: int
    kind: str
    name: str
    title: str
    """Unique; differs from the name where two things are called the same."""
    noun: str
    values: dict[str, int | date | tuple[int, int]] = field(default_factory=dict)
    links: dict[str, int] = field(default_factory=dict)
    alias: str = ""
    similar: int | None = None
    """Id of a thing that is called nearly the same."""

    @property
    def slug(self) -> str:
        return "".join(c if c.isalnum() else "-" for c in self.title.lower()).replace("--", "-").strip("-")


class World:
    """The graph. `name` is part of its host name; equal names, profiles and seeds give equal worlds."""

    def __init__(self, name: str, profile: str, *seed: object) -> None:
        self.name = name
        self.host = f"{name}.deepdive.example"
        self.things: list[Thing] = []
        self.kinds: dict[str, list[Thing]] = {kind: [] for kind in COUNTS[profile]}
        self.sources: dict[tuple[str, str, int], list[int]] = {}
        """(kind of the source, relation, id of the target) -> ids of the sources."""
        draw = Draw("deepdive", "world", profile, *seed)
        names = Names(draw, short=profile == "tiny")
        for kind, count in COUNTS[profile].items():
            for _ in range(count):
                self._add(kind, draw, names)
        self._teach(draw)
        self._liken()
        for thing in self.things:
            for relation, target in thing.links.items():
                self.sources.setdefault((thing.kind, relation, target), []).append(thing.id)

    def __iter__(self) -> Iterator[Thing]:
        return iter(self.things)

    def url(self, thing: Thing) -> str:
        return f"http://{self.host}/wiki/{thing.slug}"

    def _add(self, kind: str, draw: Draw, names: Names) -> None:
        described = KINDS[kind]
        links = {
            relation: draw.choice(self.kinds[to.target]).id
            for relation, to in described.relations.items()
            if relation != "teacher" and self.kinds.get(to.target)
        }
        noun = draw.choice(described.nouns)
        near = {relation: self.things[target].name for relation, target in links.items()}
        name, title = names.make(kind, noun, near)
        thing = Thing(len(self.things), kind, name, title, noun, links=links)
        for attribute, about in described.attributes.items():
            value = draw.between(about.low, about.high)
            if about.after is not None:
                value += self.things[links[about.after]].values["born"].year
            thing.values[attribute] = value
        if kind == "person":
            thing.values["born"] = date(thing.values["born"], 1, 1) + timedelta(days=draw.below(365))
        if described.habits:
            thing.values["habit"] = (draw.below(len(described.habits)), draw.below(len(OBJECTS)))
        if kind in ("person", "city") and draw.below(8) == 0:
            thing.alias = names.alias(kind, name)
        self.things.append(thing)
        self.kinds[kind].append(thing)

    def _teach(self, draw: Draw) -> None:
        """Two persons of three get a teacher who is 15 to 60 years older."""
        people = self.kinds["person"]
        for pupil in people:
            for _ in range(3):
                teacher = draw.choice(people)
                older = pupil.values["born"].year - teacher.values["born"].year
                if 15 <= older <= 60:
                    pupil.links["teacher"] = teacher.id
                    break

    def _liken(self) -> None:
        """Each thing knows the next one of its kind in the order of the alphabet: its page warns of it."""
        for things in self.kinds.values():
            ordered = sorted(things, key=lambda thing: (thing.name.split()[-1], thing.title))
            for one, other in zip(ordered, ordered[1:] + ordered[:1], strict=True):
                one.similar = other.id
