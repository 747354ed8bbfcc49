"""Draws questions: a random walk, enough clues to make it the only one, and their wording.

Walks, clues, obfuscation, shortcuts and English are here; queries are evaluated in `query.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from deepdive_rlm.pages import shown
from deepdive_rlm.query import NAME, Condition, Query, Step, answers, evidence, value_of, walks
from deepdive_rlm.schema import KINDS, OBJECTS
from deepdive_rlm.world import Thing, World
from rlm_env.authoring.draw import Draw

FORM = "Give your final answer in the form 'Answer: ...'."
TRIES = 2000
SHORTCUT = 3
"""Least number of different answers that the rest of a question must leave to somebody who skips its first steps."""
CROWD = 60
"""A walk does not go on backwards from a thing to which more than so many others of one kind hang."""
SOURCES = {
    kind: [(source, name) for source, k in KINDS.items() for name, to in k.relations.items() if to.target == kind]
    for kind in KINDS
}
"""Kind -> (kind of the source, relation) of all that may hang on it."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its only walk."""

    text: str
    gold: str
    aliases: tuple[str, ...]
    query: Query
    walk: tuple[int, ...]
    evidence: tuple[int, ...]


def make_question(world: World, draw: Draw, hops: int, obfuscate: bool) -> Question:
    """A question of so many hops that has one answer. Raises RuntimeError where the world seems to have none."""
    for _ in range(TRIES):
        walk = _random_walk(world, draw, hops)
        if walk is None:
            continue
        steps, things = walk
        query = Query(tuple(steps), _asked(things[-1], draw))
        query = _only_one(world, query, things, obfuscate)
        if query is None or _has_shortcut(world, query):
            continue
        ids = tuple(thing.id for thing in things)
        last = things[-1]
        unit = "" if query.asked == NAME else KINDS[last.kind].attributes[query.asked].unit
        gold = last.name if query.asked == NAME else shown(value_of(last, query.asked), unit)
        aliases = tuple({last.title, last.alias} - {"", gold}) if query.asked == NAME else ()
        text = f"{in_words(query, obfuscate)} {FORM}"
        return Question(text, gold, tuple(sorted(aliases)), query, ids, tuple(evidence(query, ids)))
    raise RuntimeError(f"no question of {hops} hops was found in {TRIES} tries")


def _random_walk(world: World, draw: Draw, hops: int) -> tuple[list[Step], list[Thing]] | None:
    thing = draw.choice(world.kinds[draw.choice([kind for kind in world.kinds if KINDS[kind].habits])])
    steps, things = [Step(thing.kind)], [thing]
    for _ in range(hops):
        ways = [(relation, False, [target]) for relation, target in thing.links.items()]
        for kind, relation in SOURCES[thing.kind]:
            found = world.sources.get((kind, relation, thing.id), [])
            if 0 < len(found) <= CROWD:
                ways.append((relation, True, found))
        relation, backwards, ends = draw.choice(ways) if ways else ("", False, [thing.id])
        thing = world.things[draw.choice(ends)]
        if thing in things:
            return None
        things.append(thing)
        steps.append(Step(thing.kind, (), relation, backwards))
    return steps, things


def _asked(thing: Thing, draw: Draw) -> str:
    attributes = list(KINDS[thing.kind].attributes)
    return NAME if not attributes or draw.below(4) == 0 else draw.choice(attributes)


def _only_one(world: World, query: Query, things: list[Thing], obfuscate: bool) -> Query | None:
    """The query with as many clues as make its walk the only one; None where there are not enough."""
    query = _with(query, 0, *_clues(things[0], ("noun", "habit"), obfuscate))
    backwards = [index for index, step in enumerate(query.steps) if step.backwards]
    more = [(i, clue) for i in backwards for clue in _clues(things[i], ("noun",), obfuscate)]
    more += [(i, clue) for i in (*backwards, 0) for clue in _clues(things[i], _dated(things[i]), obfuscate)]
    more = [(i, c) for i, c in more if (i, c.attribute) != (len(things) - 1, query.asked)]
    while True:
        found = [walk for walk, _ in zip(walks(world, query), range(2), strict=False)]
        if len(found) == 1:
            return query
        if not more:
            return None
        index, clue = more.pop(0)
        query = _with(query, index, clue)


def _dated(thing: Thing) -> tuple[str, ...]:
    return tuple(name for name, about in KINDS[thing.kind].attributes.items() if about.clue)


def _clues(thing: Thing, attributes: tuple[str, ...], obfuscate: bool) -> list[Condition]:
    clues = []
    for attribute in attributes:
        if attribute == "noun":
            if len(KINDS[thing.kind].nouns) > 1:
                clues.append(Condition("noun", thing.noun, thing.noun))
            continue
        value = thing.values[attribute]
        if attribute != "habit":
            value = getattr(value, "year", value)
            first = value // 10 * 10 if obfuscate else value
            clues.append(Condition(attribute, first, first + 9 if obfuscate else value))
        else:
            clues.append(Condition(attribute, value, value))
    return clues


def _with(query: Query, index: int, *clues: Condition) -> Query:
    steps = list(query.steps)
    steps[index] = replace(steps[index], conditions=(*steps[index].conditions, *clues))
    return replace(query, steps=tuple(steps))


def _has_shortcut(world: World, query: Query) -> bool:
    """True if a solver who starts further on has next to no choice left."""
    return any(len(answers(world, query.from_step(index))) < SHORTCUT for index in range(1, len(query.steps)))


def in_words(query: Query, obfuscate: bool) -> str:
    """The question in English: a sentence per step, each about the thing that the one before ended with."""
    first = query.steps[0]
    sentences = [f"I am thinking of {_a(first, obfuscate)}."]
    before = _noun(first)
    for step, previous in zip(query.steps[1:], query.steps, strict=False):
        new, old = _a(step, obfuscate, another=_noun(step) == before), f"that {before}"
        source = step.kind if step.backwards else previous.kind
        words = KINDS[source].relations[step.relation].words
        sentence = words.format(src=new, dst=old) if step.backwards else words.format(src=old, dst=new)
        sentences.append(f"{sentence[0].upper()}{sentence[1:]}.")
        before = _noun(step)
    last = KINDS[query.steps[-1].kind]
    asked = "What is {that} called?" if query.asked == NAME else last.attributes[query.asked].asked
    return " ".join([*sentences, asked.format(that=f"that {before}")])


def _noun(step: Step) -> str:
    return next((condition.low for condition in step.conditions if condition.attribute == "noun"), step.kind)


def _a(step: Step, obfuscate: bool, another: bool = False) -> str:
    noun = _noun(step)
    article = "another" if another else "an" if noun[0] in "aeio" else "a"
    clues = [_clue(step.kind, c, obfuscate) for c in step.conditions if c.attribute != "noun"]
    if not clues:
        return f"{article} {noun}"
    return f"{article} {noun} {'who' if step.kind == 'person' else 'that'} {' and '.join(clues)}"


def _clue(kind: str, condition: Condition, obfuscate: bool) -> str:
    if condition.attribute == "habit":
        habit, item = condition.low
        return KINDS[kind].habits[habit][1].format(object=OBJECTS[item][int(obfuscate)])
    when = f"the {condition.low}s" if condition.high > condition.low else condition.low
    return KINDS[kind].attributes[condition.attribute].clue.format(v=when)
