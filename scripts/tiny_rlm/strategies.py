"""How a policy's programs are distributed over strategies.

Two views of the same replies: what the code does (`rlm_env.evals.programs`), and the line of prose that names the
strategy, which is the second line of a first reply that begins by restating its task.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rlm_env.evals.programs import Program, read_program
from rlm_env.messages import Completion
from rlm_env.protocol import Cell, extract_cells

NO_LINE = "(no such line)"
OTHERS = "(others)"


@dataclass(frozen=True, slots=True)
class StrategyShares:
    """Shares of some policy's sessions, the largest first; each adds up to 1."""

    programs: dict[str, float]
    """By `Program`."""
    lines: dict[str, float]
    """By the line that names the strategy."""


def strategy_shares(sessions: Sequence[Sequence[str]], lines: int = 12) -> StrategyShares:
    """The shares of sessions, each given by its replies or the first of them. All lines but the `lines` most frequent
    are counted together. Raises ValueError where there are none."""
    if not sessions:
        raise ValueError("shares need at least one session")
    programs = [program_in(replies) for replies in sessions]
    named = [strategy_line(replies[0] if replies else "") for replies in sessions]
    return StrategyShares(_shares(programs), _shares(most_frequent(named, lines)))


def strategy_line(reply: str) -> str:
    """The line that names the strategy of a first reply."""
    above = [line.strip() for line in reply.split("```")[0].split("\n")]
    return above[1] if len(above) > 1 and above[1] else NO_LINE


def program_in(replies: Iterable[str]) -> Program:
    """What the code of these replies does, every call of `llm_batch` taken as made."""
    cells = [extract_cells(Completion(reply, finish_reason="stop")) for reply in replies]
    return read_program([[cell.code for cell in turn if isinstance(cell, Cell)] for turn in cells]).program


def most_frequent(lines: Sequence[str], n: int) -> list[str]:
    """The lines, with `OTHERS` in place of each that is not among the `n` most frequent."""
    kept = {line for line, _ in Counter(lines).most_common(n)}
    return [line if line in kept else OTHERS for line in lines]


def _shares(found: Sequence[str]) -> dict[str, float]:
    return {str(name): count / len(found) for name, count in Counter(found).most_common()}
