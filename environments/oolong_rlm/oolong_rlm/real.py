"""Tasks of Oolong-real: questions about rolls and spells in one or many episodes (paper, tables 18 and 19).

Two kinds of families are left out: those that need facts which no transcript holds (base levels of spells, cantrips),
and those whose answer is a list of ties. If a question has no single right answer in the drawn context (a tie, or a
list with repeats, for which the official scorer gives a perfect copy less than 1), another one is drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from oolong_rlm.measure import Measure
from oolong_rlm.planting import Table, set_table
from oolong_rlm.transcripts import Transcripts
from rlm_env.authoring.draw import Draw
from rlm_env.task import Split, Task

FORMAT = 1
"""Part of every seed: raised when the bytes of generated tasks change."""
TRIES = 200
SUFFIX = " Return the final answer in \\boxed{}."
LIST = "Return a comma separated list."
ORDINALS = ("first", "second", "third")
NUMBERS = {2: "two", 3: "three"}

Asked = tuple[str, str] | None
"""A question and its gold, or None where this draw has no single right answer."""


@dataclass(frozen=True)
class PlantedSet:
    """The checked options of a stream of tasks about transcripts."""

    seed: int
    transcripts: Transcripts
    episodes: Sequence[int]
    """Episodes of a context; task i has `episodes[i % len(episodes)]`."""
    measure: Measure


class Scene:
    """A table as the questions see it: its rolls and casts, where, by whom."""

    def __init__(self, table: Table, draw: Draw) -> None:
        self.table, self.draw = table, draw
        self.rolls = [event for event in table.events if event.kind == "roll"]
        self.casts = [event for event in table.events if event.kind == "spell"]
        self.one = len(table.episodes) == 1
        self.scope = "in this episode" if self.one else "across all episodes"
        self.during = "during this episode" if self.one else "across all episodes"

    def player(self) -> tuple[str, str]:
        """A player and the character."""
        player = self.draw.choice(list(self.table.characters))
        return player, self.table.characters[player]

    def episode(self) -> int:
        """An episode's number, from 1."""
        return self.draw.between(1, len(self.table.episodes))


def unique_top(values: Sequence[object]) -> str | None:
    top = Counter(values).most_common(2)
    return None if not top or (len(top) > 1 and top[0][1] == top[1][1]) else str(top[0][0])


def listed(names: Sequence[str], question: str) -> Asked:
    """A question whose gold is a list without repeats."""
    if not names or len(set(names)) < len(names):
        return None
    return f"{question} {LIST}", ", ".join(names)


def roll_question(scene: Scene) -> Asked:
    """One of the families about rolls that suit one episode and many."""
    rolls, scope, draw = scene.rolls, scene.scope, scene.draw
    if not rolls:
        return None
    player, character = scene.player()
    value, check = draw.between(1, 20), draw.choice(scene.table.checks)
    all_episodes = "in this episode" if scene.one else "across all the episodes"
    share = 100 * sum(r.value == value for r in rolls) / len(rolls)
    top_check, top_value = unique_top([r.name for r in rolls]), unique_top([r.value for r in rolls])
    opening = "In this episode," if scene.one else "Across all episodes,"
    crits = "What is the count of" if scene.one else "What is the total count of"
    where = "" if scene.one else " across all episodes?"
    asked: list[Asked] = [
        (f"Total number of rolls {all_episodes}?", str(len(rolls))),
        (f"Total number of rolls by the character {character} {scope}?", str(sum(r.player == player for r in rolls))),
        (f"Total number of rolls by the player {player} {scope}?", str(sum(r.player == player for r in rolls))),
        (f"Total number of rolls of type {check} {scope}?", str(sum(r.name == check for r in rolls))),
        (f"Number of rolls of natural value {value} {scope}?", str(sum(r.value == value for r in rolls))),
        (f"{crits} Crits{where} (natural rolls of value 1 or 20)?", str(sum(r.value in (1, 20) for r in rolls))),
        (f"{crits} Nat20s{where} (natural rolls of value 20)?", str(sum(r.value == 20 for r in rolls))),
        (f"{crits} Nat1s{where} (natural rolls of value 1)?", str(sum(r.value == 1 for r in rolls))),
        # Halves are left out: rounding them has two conventions.
        None
        if share % 1 == 0.5
        else (
            f"{opening} what percentage of rolls were of value {value}? round to the nearest integer.",
            str(round(share)),
        ),
        top_check and (f"What is the most common roll type {scope}? {LIST}", top_check),
        top_value and (f"What is the most common natural roll value {scope}? {LIST}", top_value),
    ]
    return draw.choice(asked)


def spell_question(scene: Scene) -> Asked:
    """One of the families about spells that suit one episode and many."""
    casts, scope, draw = scene.casts, scene.scope, scene.draw
    if not casts:
        return None
    player, character = scene.player()
    spell = draw.choice(casts).name
    by_player = sum(c.player == player for c in casts)
    casters = len({c.player for c in casts if c.name == spell})
    top = unique_top([c.name for c in casts])
    during = scene.during
    asked: list[Asked] = [
        (f"How many spells were cast {during}?", str(len(casts))),
        (f"How many spells were cast by the character {character} {scope}?", str(by_player)),
        (f"How many spells were cast by the player {player} {scope}?", str(by_player)),
        (f"How many {spell} spells were cast {during}?", str(sum(c.name == spell for c in casts))),
        (f"How many characters cast {spell} spell {scope}?", str(casters)),
        top and (f"What is the most common spell {scope}? {LIST}", top),
    ]
    return draw.choice(asked)


def single_spell_question(scene: Scene) -> Asked:
    """Families about the order of spells in one episode."""
    names, draw = [c.name for c in scene.casts], scene.draw
    n = min(draw.between(2, 3), len(names))
    if n < 2:
        return None
    firsts: dict[str, str] = {}
    for event in scene.casts:
        firsts.setdefault(event.player, event.name)
    casters: dict[str, set[str]] = {}
    for event in scene.casts:
        casters.setdefault(event.name, set()).add(event.player)
    asked = [
        ("What is the first spell cast in this episode?", names[0]),
        ("What is the last spell cast in this episode?", names[-1]),
        listed(names[:n], f"What are the first {NUMBERS[n]} spells cast in this episode?"),
        listed(names[-n:], f"What are the last {NUMBERS[n]} spells cast in this episode?"),
        listed(list(firsts.values()), "What is the first spell cast by each character in this episode?"),
        listed(
            [name for name, who in casters.items() if len(who) > 1],
            "Which spells were cast by more than one character in this episode?",
        ),
    ]
    return draw.choice(asked)


def many_rolls_question(scene: Scene) -> Asked:
    """Families about rolls that need the order of episodes."""
    number = scene.episode()
    player, character = scene.player()
    rolls = [r for r in scene.rolls if r.episode < number]
    rule = "Count the number of rolls and not the values of the rolls."
    by_character = f"by the character {character} at the end of episode {number}"
    asked: list[Asked] = [
        (f"What is the cummulative total of rolls by the end of episode {number}? {rule}", str(len(rolls))),
        (f"What is the cummulative total of rolls {by_character}? {rule}", str(sum(r.player == player for r in rolls))),
    ]
    return scene.draw.choice(asked)


def many_spells_question(scene: Scene) -> Asked:
    """Families about spells that need the order of episodes."""
    number, place = scene.episode(), scene.draw.below(3)
    each = [[c for c in scene.casts if c.episode == index] for index in range(len(scene.table.episodes))]
    here = each[number - 1]
    so_far = sum(map(len, each[:number]))
    asked: list[Asked] = [
        (f"What is the cummulative total of spells cast by the end of episode {number}?", str(so_far)),
        (f"What is the {ORDINALS[place]} spell cast in the episode {number}?", here[place].name)
        if len(here) > place
        else None,
        listed([casts[0].name for casts in each if casts], "List the first spell cast in each episode?"),
        listed([casts[-1].name for casts in each if casts], "List the last spell cast in each episode?"),
    ]
    return scene.draw.choice(asked)


Ask = Callable[[Scene], Asked]
SINGLE: dict[str, tuple[Ask, ...]] = {
    "singledoc_rolls": (roll_question,),
    "singledoc_spells": (spell_question, single_spell_question),
}
"""The published set's question types -> what they ask."""
MANY: dict[str, tuple[Ask, ...]] = {
    "multidoc_rolls": (roll_question, many_rolls_question),
    "multidoc_spells": (spell_question, many_spells_question),
}


def real_task(options: PlantedSet, split: Split, index: int) -> Task:
    """The task number `index`, which depends on nothing but the options and the split."""
    n = options.episodes[index % len(options.episodes)]
    draw = Draw("oolong-real", FORMAT, options.seed, split, index)
    table = set_table(options.transcripts, n, draw)
    scene = Scene(table, draw)
    kinds = SINGLE if scene.one else MANY
    for _ in range(TRIES):
        kind = draw.choice(list(kinds))
        asked = draw.choice(kinds[kind])(scene)
        if asked is not None:
            break
    else:
        raise ValueError(f"no question with one right answer about {table.episodes}; is the transcript very short?")
    info = {
        "subset": "real",
        "answer_type": None,
        "family": kind,
        "episodes": table.episodes,
        "n_episodes": n,
        "length_tokens": options.measure.tokens(options.measure.count(table.text)),
        "lines": table.text.count("\n") + 1,
        "planted": len(table.events),
    }
    return Task(asked[0] + SUFFIX, table.text, asked[1], f"{split}-{options.seed}-{index}", info)
