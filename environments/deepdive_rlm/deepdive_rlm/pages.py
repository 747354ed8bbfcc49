"""The page of a thing: a first sentence that gives nothing away, its facts in random order, and filler sentences.

Pages are made here, as text and HTML; they are found in `search.py` and served in `server.py`.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from datetime import date

from deepdive_rlm.schema import KINDS, OBJECTS
from deepdive_rlm.world import Thing, World
from rlm_env.authoring.draw import Draw

PADDING = (
    "Older handbooks pass over this in a single line.",
    "The parish registers were copied twice and agree with each other.",
    "A photograph was long thought to be lost.",
    "The article was shortened at the request of its readers.",
    "Some of the sources are kept in private hands.",
    "Spelling differs from one map to the next.",
    "A memorial plate was put up by a local society.",
    "The following remarks are taken from a printed guide.",
    "Nothing is known of the years before.",
    "Letters of that time mention it now and then.",
    "Scholars have paid little attention to the matter.",
    "The illustrations were redrawn for this edition.",
)


MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August", "September", "October"),
    *("November", "December"),
)


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the web. `lead` is its first sentence, and all that a search result shows."""

    url: str
    title: str
    lead: str
    paragraphs: tuple[str, ...]
    """HTML; links are `<a href="/wiki/...">`."""

    @property
    def html(self) -> str:
        body = "\n".join(f"<p>{paragraph}</p>" for paragraph in (self.lead, *self.paragraphs))
        title = html.escape(self.title)
        return (
            f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title></head>\n'
            f"<body>\n<h1>{title}</h1>\n{body}\n</body>\n</html>\n"
        )


def make_page(world: World, thing: Thing) -> Page:
    """The page of a thing. The same world gives the same bytes."""
    draw = Draw("deepdive", "page", world.name, thing.title)
    facts = draw.shuffled(_facts(world, thing, draw))
    padding = draw.sample(PADDING, draw.between(2, 5))
    for sentence in padding:
        facts.insert(draw.below(len(facts) + 1), sentence)
    half = (len(facts) + 1) // 2
    paragraphs = [" ".join(part) for part in (facts[:half], facts[half:]) if part]
    if thing.similar is not None and thing.similar != thing.id:
        paragraphs.append(f"Not to be confused with {_link(world.things[thing.similar])}.")
    article = "an" if thing.noun[0] in "aeio" else "a"
    lead = f"{thing.name} {'was' if thing.kind == 'person' else 'is'} {article} {thing.noun}."
    return Page(world.url(thing), thing.title, lead, tuple(paragraphs))


def shown(value: int | date, unit: str) -> str:
    """A value as pages and answers write it: `12 March 1874`, `64,949`; years without a comma."""
    if isinstance(value, date):
        return f"{value.day} {MONTHS[value.month - 1]} {value.year}"
    return f"{value:,}" if unit else str(value)


def _facts(world: World, thing: Thing, draw: Draw) -> list[str]:
    kind = KINDS[thing.kind]
    facts = [
        draw.choice(about.sentences).format(name=thing.name, v=shown(thing.values[attribute], about.unit))
        for attribute, about in kind.attributes.items()
    ]
    facts += [
        draw.choice(kind.relations[relation].sentences).format(name=thing.name, link=_link(world.things[target]))
        for relation, target in thing.links.items()
    ]
    if "habit" in thing.values:
        habit, item = thing.values["habit"]
        facts.append(kind.habits[habit][0].format(name=thing.name, object=OBJECTS[item][0]))
    if thing.alias:
        once = f"{thing.name} also signed as {thing.alias}." if thing.kind == "person" else None
        facts.append(once or f"It was formerly called {thing.alias}.")
    return facts


def _link(thing: Thing) -> str:
    return f'<a href="/wiki/{thing.slug}">{html.escape(thing.title)}</a>'
