"""Plants rolls and spells in transcripts: the contexts of Oolong-real, with golds that are known exactly.

The published set takes its golds from fans' notes of the sessions. Here the real text is the haystack, and the events
asked about are planted in it: rolls of invented checks and casts of invented spells, spoken by the real players in one
to three turns between the real ones. About as many decoys name the same checks and spells without a roll or a cast
(plans, memories, questions, corrections). The rolls and spells of the real text do not count, and the header says so.
Names are invented anew for each context and occur nowhere in the transcripts.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from oolong_rlm.transcripts import Episode, Transcripts
from rlm_env.authoring.draw import Draw
from rlm_env.authoring.text import join_once

CHECKS, SPELLS, MAX_PLAYERS = 4, 8, 6


@dataclass(frozen=True)
class Event:
    """A planted roll or cast."""

    kind: str
    """`roll` or `spell`."""
    episode: int
    """Place of its episode in the context, from 0."""
    player: str
    name: str
    """The check or the spell."""
    value: int
    """The natural value of a roll, 1 to 20."""


@dataclass(frozen=True)
class Table:
    """A context with planted events, in the order of the text."""

    text: str
    episodes: list[str]
    """Names of the transcripts, in order."""
    characters: dict[str, str]
    """Player -> invented character."""
    checks: list[str]
    spells: list[str]
    events: list[Event] = field(default_factory=list)


@cache
def templates() -> dict[str, Any]:
    return json.loads((resources.files("oolong_rlm") / "data" / "events.json").read_text("utf-8"))


def set_table(transcripts: Transcripts, n_episodes: int, draw: Draw) -> Table:
    """Draws `n_episodes` different episodes, in the order of the file, and plants events in each."""
    places = sorted(draw.sample(range(len(transcripts.episodes)), n_episodes))
    chosen = [transcripts.episodes[place] for place in places]
    master, players = cast(chosen)
    names = transcripts.invent(draw, len(players) + CHECKS + SPELLS)
    characters = dict(zip(players, names, strict=False))
    checks = names[len(players) : len(players) + CHECKS]
    spells = names[len(players) + CHECKS :]
    table = Table("", [episode.name for episode in chosen], characters, checks, spells)
    chunks = deque([header(master, table)])
    for index, episode in enumerate(chosen):
        chunks.append(("" if index == 0 else "\n\n") + plant(episode, index, master, table, draw))
    text = join_once(chunks)
    return Table(text, table.episodes, characters, checks, spells, table.events)


def cast(episodes: Sequence[Episode]) -> tuple[str, list[str]]:
    """The game master (who speaks most) and up to six players, of those who speak alone."""
    counts = Counter(speaker for episode in episodes for speaker, _ in episode.turns if speaker.isalpha())
    speakers = [
        speaker for speaker, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if speaker != "All"
    ]
    if len(speakers) < 3:
        raise ValueError(f"the transcript {episodes[0].name} has fewer than three speakers")
    return speakers[0], speakers[1 : 1 + MAX_PLAYERS]


def header(master: str, table: Table) -> str:
    """The instructions, in the published set's words, the mapping from players to characters, the house rules."""
    if len(table.episodes) == 1:
        what, each, all_of_it = "a single episode transcript", "The episode transcript", "The transcript is"
    else:
        what, each, all_of_it = "multiple episode transcripts", "Each episode transcript", "The transcripts are"
    mapping = "\n".join(f"{player} plays the character {character}." for player, character in table.characters.items())
    return (
        f"The following lines contains {what} of a Dungeons and Dragons game played by a group of players. {each} is "
        f"delimited by [START OF EPISODE] and [END OF EPISODE]. {all_of_it} followed by a question about the game "
        "statistics. Do not try to guess, estimate or approximate the result. Return the final answer in \\boxed{}.\n\n"
        "The following lines contain the mapping between player names and character names.\n"
        f"{mapping}\n{master} is the game master.\n\n"
        f"House rules: this table has checks of its own, namely {', '.join(table.checks)}, and spells of its own, "
        f"namely {', '.join(table.spells)}. Questions about rolls are about rolls of these checks, questions about "
        "spells about these spells; all others do not count. A roll counts when the player says what came up; its "
        "natural value is what the die shows, its type is the check. A spell counts when it is cast. What is only "
        "planned, asked, remembered or taken back does not count. Episodes are numbered in the order in which they "
        "stand here, from 1.\n\n"
    )


def plant(episode: Episode, index: int, master: str, table: Table, draw: Draw) -> str:
    """The episode's text with new events, which are appended to `table.events`."""
    kinds = ["roll"] * draw.between(8, 24) + ["spell"] * draw.between(4, 12)
    kinds += ["roll_decoy"] * draw.between(6, 18) + ["spell_decoy"] * draw.between(4, 10)
    places: dict[int, str] = {}
    # At most every other gap holds a plant; a short transcript gets fewer.
    for kind in draw.shuffled(kinds)[: max(2, len(episode.turns) // 2)]:
        place = draw.below(len(episode.turns) + 1)
        while place in places:
            place = (place + 1) % (len(episode.turns) + 1)
        places[place] = kind
    # Some checks and spells are used more than others, so that "most common" has an answer.
    checks = [check for i, check in enumerate(draw.shuffled(table.checks)) for _ in range(i + 1)]
    spells = [spell for i, spell in enumerate(draw.shuffled(table.spells)) for _ in range(i + 1)]
    lines = ["[START OF EPISODE]"]
    for place, (speaker, said) in enumerate([*episode.turns, ("", "")]):
        if place in places:
            lines += act(places[place], index, master, table, checks, spells, draw)
        if speaker:
            lines.append(f"{speaker}: {said}")
    return "\n".join([*lines, "[END OF EPISODE]"])


def act(
    kind: str, index: int, master: str, table: Table, checks: list[str], spells: list[str], draw: Draw
) -> list[str]:
    """The lines of one event or decoy; events are recorded."""
    player, other = draw.sample(list(table.characters), 2)
    check, spell = draw.choice(checks), draw.choice(spells)
    value = draw.choice((1, 20)) if draw.below(8) == 0 else draw.between(1, 20)
    bonus = draw.between(2, 9)
    if kind in ("roll", "spell"):
        table.events.append(Event(kind, index, player, check if kind == "roll" else spell, value))
    slots = {
        "player": player,
        "check": check,
        "spell": spell,
        "value": value,
        "word": templates()["words"][value].capitalize(),
        "bonus": bonus,
        "total": value + bonus,
    }
    who = {"GM": master, "P": player, "Q": other}
    return [f"{who[role]}: {said.format(**slots)}" for role, said in draw.choice(templates()[kind])]
