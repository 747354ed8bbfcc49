"""What programs a model wrote: the cells of a rollout as one `Program` and its traits.

A plan is read off the code (`dataflow.py`), and what sub-LLMs were really asked off the record: a batch in code that
failed before it counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rlm_env.evals.programs.dataflow import DataFlow
from rlm_env.evals.programs.holdings import (
    COMPUTED,
    CONTEXT,
    FOUND,
    HOLDS,
    MANY,
    MEASURED,
    PIECE,
    REPLY,
    WHOLE,
    TurnFlow,
)
from rlm_env.rollout import Rollout


class Program(StrEnum):
    """How a rollout with a REPL worked on the context. Each has one: the first that fits, in this order."""

    NO_CODE = "no code"
    """No cell ran."""
    UNPARSABLE = "unparsable"
    """No cell was Python."""
    CHUNK_AND_BATCH = "chunk and batch"
    """Pieces of the context to several sub-LLMs."""
    WHOLE_TO_SUB = "whole context to a sub-LLM"
    """A sub-LLM got the context as it is."""
    PIECE_TO_SUB = "one piece to a sub-LLM"
    """A sub-LLM got a part of the context: what a search found, a slice of it."""
    SUB_WITHOUT_CONTEXT = "sub-LLMs without the context"
    """Sub-LLMs were asked, and got nothing of the context that could be followed."""
    CODE = "code alone"
    """No sub-LLM: regular expressions, string methods, arithmetic on the context."""
    SEARCH_AND_READ = "searches and reads"
    """No sub-LLM: code printed what a search found, and the model wrote the answer."""
    READ = "reads it itself"
    """No sub-LLM: code printed the context or pieces of it, and the model wrote the answer."""
    NOTHING = "comes to nothing"
    """Nothing of the context was printed, handed in or sent, though the code names it or asks for sub-LLMs."""
    UNUSED = "context not used"


class Trait(StrEnum):
    """What else a rollout did; any number of them."""

    REGEX = "uses regular expressions"
    PRINTS = "prints pieces of the context"
    CHOOSES = "sends what it has chosen"
    """Pieces for sub-LLMs were chosen by a pattern or a condition on what is in them."""
    ASKS_AGAIN = "asks again with answers"
    """Prompts hold answers of sub-LLMs: a second pass, a check, a merge by a model."""
    REFINES = "refines its answer"
    """The answer changed in more than one turn."""
    BROKEN_CELL = "has a cell that is no Python"
    FAILED_CELL = "has a cell that failed"


@dataclass(frozen=True, slots=True)
class WrittenProgram:
    """What the code of one rollout is."""

    program: Program
    traits: tuple[Trait, ...] = ()


@dataclass(frozen=True, slots=True)
class RolloutCode:
    """What the program of a rollout is read off."""

    turns: list[list[str]]
    """The cells of each turn."""
    asked: frozenset[int]
    """The turns in which sub-LLMs were asked."""
    traits: tuple[Trait, ...]
    """Those that the record tells."""

    def read(self) -> WrittenProgram:
        """Reads the code, which takes a fraction of a millisecond."""
        written = read_program(self.turns, self.asked)
        return WrittenProgram(written.program, tuple(sorted((*written.traits, *self.traits), key=[*Trait].index)))


def written_code(rollout: Rollout) -> RolloutCode | None:
    """The code of a rollout; None where there was no REPL."""
    if "cells" not in rollout.metrics and not any(turn.code for turn in rollout.turns):
        return None
    traits = []
    if sum(turn.answer is not None for turn in rollout.turns) > 1:
        traits.append(Trait.REFINES)
    if any(turn.error is not None for turn in rollout.turns):
        traits.append(Trait.FAILED_CELL)
    asked = frozenset(call.root_turn for call in rollout.sub_calls)
    return RolloutCode([turn.code for turn in rollout.turns], asked, tuple(traits))


def program_of(rollout: Rollout) -> WrittenProgram | None:
    """The program of a rollout; None where there was no REPL."""
    code = written_code(rollout)
    return code and code.read()


def read_program(turns: Sequence[Iterable[str]], asked: Iterable[int] | None = None) -> WrittenProgram:
    """The program in the cells of each turn. `asked`: the turns in which sub-LLMs were asked; None: all that name a
    function that asks them. Never raises."""
    flow = DataFlow()
    read = [flow.read(cells) for cells in turns]
    known = None if asked is None else set(asked)
    prompts = [one for number, turn in enumerate(read) if known is None or number in known for one in turn.asked]
    hidden = bool(known) and not prompts  # sub-LLMs were asked by code that could not be followed
    traits = []
    if any(turn.regex for turn in read):
        traits.append(Trait.REGEX)
    if any(value & CONTEXT for turn in read for value in turn.printed):
        traits.append(Trait.PRINTS)
    if any(value & CONTEXT and value & FOUND for value in prompts):
        traits.append(Trait.CHOOSES)
    if any(value & REPLY for value in prompts):
        traits.append(Trait.ASKS_AGAIN)
    if any(turn.broken for turn in read):
        traits.append(Trait.BROKEN_CELL)
    return WrittenProgram(_program(read, prompts, hidden), tuple(traits))


def _program(read: list[TurnFlow], prompts: list[int], hidden: bool) -> Program:
    cells = sum(turn.cells for turn in read)
    if not cells:
        return Program.NO_CODE
    if sum(turn.broken for turn in read) == cells:
        return Program.UNPARSABLE
    if any(value & PIECE and value & MANY and not value & (WHOLE | HOLDS) for value in prompts):
        return Program.CHUNK_AND_BATCH
    if any(value & (WHOLE | HOLDS) for value in prompts):
        return Program.WHOLE_TO_SUB
    if any(value & PIECE for value in prompts):
        return Program.PIECE_TO_SUB
    if prompts or hidden:
        return Program.SUB_WITHOUT_CONTEXT
    answers = [value for turn in read for value in turn.answers]
    printed = [value for turn in read for value in turn.printed]
    if any(value & (CONTEXT | COMPUTED | MEASURED) for value in answers):
        return Program.CODE
    if any(value & CONTEXT and value & FOUND for value in printed):
        return Program.SEARCH_AND_READ
    if any(value & COMPUTED and not value & CONTEXT for value in printed):
        return Program.CODE
    if any(value & CONTEXT for value in printed):
        return Program.READ
    if any(value & MEASURED for value in printed):
        return Program.CODE
    return Program.NOTHING if any(turn.touched or turn.asked for turn in read) else Program.UNUSED
