"""What the page asks for, as JSON values by path. The server answers from here, and an export holds the same answers.

A path is a list of parts, `["runs", RUN, "rollouts", KEY]`; run and rollout are names that the page got from here
before. Nothing in a path becomes the name of a file. Not covered: HTTP (`server.py`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlm_env.rollout import RecordError
from rlm_env.runs.errors import ConfigError
from rlm_env.view.coverage import readers
from rlm_env.view.index import RolloutIndex
from rlm_env.view.rollout_page import open_context, rollout_page
from rlm_env.view.runs import ViewedRun
from rlm_env.view.search import find_words, words_of
from rlm_env.view.sub_calls import CALL_QUOTE_CHARS, call_block, call_list
from rlm_env.view.texts import Texts
from rlm_env.view.tokens import sample_list, samples_of, token_page
from rlm_env.view.training import ViewedTraining
from rlm_env.view.workplace import Workplace, matrices

ROWS = 2_000
"""Rows in one answer."""
PAUSE = 9.0
"""While a run goes on, its numbers are not counted again for so many times what counting took."""
READ_SECONDS = 0.15
"""An answer with rows reads this much further in the files, and one of a search looks through so much."""
CONTEXT_PAGE = 6_000
"""Characters of a context in one answer."""


class NotFound(LookupError):
    """There is nothing at this path. The message says what is missing."""


@dataclass(frozen=True, slots=True)
class _Numbers:
    """The numbers of a run as they were counted last."""

    state: Any
    """What the run was like then."""
    next_at: float
    """Not counted again before this time."""
    numbers: dict[str, Any]


class Api:
    """Answers for a workplace. Safe to use from several threads."""

    def __init__(self, workplace: Workplace) -> None:
        self.workplace = workplace
        self._numbers: dict[tuple[str, bool], _Numbers] = {}
        self._lock = threading.Lock()

    def get(self, parts: Sequence[str], query: Mapping[str, str]) -> Any:
        """The answer at a path. Raises NotFound, and OSError where a file is gone."""
        try:
            match list(parts):
                case ["runs"]:
                    return self.runs()
                case ["runs", name, "rows"]:
                    return self.rows(self.workplace.run(name), query.get("after", ""))
                case ["runs", name, "search"]:
                    return self.search(self.workplace.run(name), query.get("text", ""), query.get("after", ""))
                case ["runs", name, "numbers"]:
                    return self.numbers(self.workplace.run(name))
                case ["runs", name, "scores"]:
                    return self.numbers(self.workplace.run(name), programs=False)
                case ["runs", name, "programs"]:
                    return self.programs(self.workplace.run(name))
                case ["runs", name, "groups"]:
                    return self.groups(self.workplace.run(name))
                case ["runs", name, "groups", number]:
                    return self.group(self.workplace.run(name), int(number))
                case ["runs", name, "rollouts", key, *rest]:
                    run = self.workplace.run(name)
                    return self._of_rollout(run, *run.find(key), rest)
        except (ConfigError, RecordError, ValueError, LookupError) as error:
            raise NotFound(str(error)) from error
        raise NotFound(f"there is nothing at {'/'.join(parts)}")

    def runs(self) -> dict[str, Any]:
        """All runs, and which of them belong to one eval on several environments."""
        runs = self.workplace.runs()
        return {"runs": [run.header() for run in runs], "matrices": matrices(self.workplace)}

    def rows(self, run: ViewedRun, after: str) -> dict[str, Any]:
        """The rows after those that the page has already, read from the files for a moment.

        `after`: for each file "generation:rows", joined by commas; empty for the first time. A file that was replaced
        meanwhile begins again, and then all files do (`reset`).
        """
        run.refresh(READ_SECONDS)
        now, starts, reset = _places(run, after)
        rows: list[dict[str, Any]] = []
        ends: list[int] = []
        for number, (source, start) in enumerate(zip(run.sources, starts, strict=True)):
            new = source.rows[start : start + max(ROWS - len(rows), 0)]
            rows += [row | {"file": number} for row in new] if number else new
            ends.append(start + len(new))
        behind = any(end < len(source.rows) for end, source in zip(ends, run.sources, strict=True))
        return {
            "rows": rows,
            "reset": reset,
            "after": _after(now, ends),
            "more": behind or not run.complete,
            "share": min((source.share for source in run.sources), default=1.0),
            "problems": [problem for source in run.sources for problem in source.problems][:5],
            "status": run.header().get("status", ""),
        }

    def search(self, run: ViewedRun, text: str, after: str) -> dict[str, Any]:
        """The next rollouts that hold all words of `text` anywhere: [key, index of the first turn with one of them].

        Looks for a moment through the rollouts whose rows were read; `after` as in `rows`.
        """
        words = words_of(text)
        now, starts, reset = _places(run, after)
        ends, found, until = [*starts], [], time.monotonic() + READ_SECONDS
        for number, source in enumerate(run.sources):
            rows = source.rows[starts[number] :] if words else []
            for row in rows:
                if time.monotonic() > until:
                    break
                fits, turn = find_words(source.line(ends[number]), words, run.contexts)
                ends[number] += 1
                if fits and source.lines.get(row["key"]) == ends[number] - 1:
                    found.append([row["key"], turn])
        total = sum(len(source.rows) for source in run.sources) if words else 0
        return {
            "found": found,
            "reset": reset,
            "after": _after(now, ends),
            "more": sum(ends) < total,
            "share": sum(ends) / total if total else 1.0,
        }

    def numbers(self, run: ViewedRun, *, programs: bool = True) -> dict[str, Any]:
        """Tables, notes and summary over the rollouts that there are now, or were a moment ago (`rollouts` says how
        many): while a run goes on, at most a tenth of the time is spent on counting. `programs`: with those of
        programs, for which all code is read."""
        run.refresh()
        with self._lock:
            kept = self._numbers.get((run.name, programs))
            state = run.state()
            now = time.monotonic()
            if kept is None or (kept.state != state and now >= kept.next_at):
                numbers = run.numbers(programs=programs)
                numbers |= {"rollouts": len(run.stats(programs=False)), "status": run.header().get("status", "")}
                took = time.monotonic() - now
                kept = self._numbers[run.name, programs] = _Numbers(
                    state, now + took + (PAUSE * took if run.is_live else 0), numbers
                )
        return kept.numbers

    def programs(self, run: ViewedRun) -> dict[str, Any]:
        """Kind of program -> the keys of the rollouts that were read and wrote one."""
        return {"programs": run.programs()}

    def groups(self, run: ViewedRun) -> dict[str, Any]:
        """The groups of a training run; none of other runs."""
        run.refresh()
        return {"groups": run.groups() if isinstance(run, ViewedTraining) else []}

    def group(self, run: ViewedRun, number: int) -> dict[str, Any]:
        """One group, and the numbers of those before and after it."""
        groups = self.groups(run)["groups"]
        at = next((index for index, group in enumerate(groups) if group["group"] == number), None)
        if at is None:
            raise NotFound(f"{run.name} has no group {number}")
        before = groups[at - 1]["group"] if at else None
        after = groups[at + 1]["group"] if at + 1 < len(groups) else None
        return {"group": groups[at], "before": before, "after": after}

    def line(self, name: str, key: str) -> bytes:
        """The line of a rollout as it is stored. Raises NotFound, OSError."""
        try:
            source, number = self.workplace.run(name).find(key)
        except (ConfigError, RecordError) as error:
            raise NotFound(str(error)) from error
        return source.line(number)

    def _of_rollout(self, run: ViewedRun, source: RolloutIndex, number: int, rest: Sequence[str]) -> Any:
        record = source.record(number)
        match rest:
            case []:
                return rollout_page(
                    record, source.stats[number], source.program(number), run.contexts, run.limits(record)
                )
            case ["calls", batch]:
                return {"calls": call_list(record, int(batch), _texts(run, record))}
            case ["calls", batch, block]:
                return {"calls": call_block(record, int(batch), int(block), _texts(run, record))}
            case ["samples"]:
                return {"samples": sample_list(samples_of(record))}
            case ["samples", sample, start]:
                return token_page(samples_of(record)[int(sample)], int(start), run.model_folder())
            case ["context", page]:
                return self._context(run, record, int(page))
        raise NotFound(f"there is nothing at {'/'.join(rest)}")

    def _context(self, run: ViewedRun, record: dict[str, Any], page: int) -> dict[str, Any]:
        context, problem = open_context(record, run.contexts)
        if context is None:
            raise NotFound(problem or "this rollout refers to no context")
        start = page * CONTEXT_PAGE
        text = context.text(start, start + CONTEXT_PAGE)
        return {"start": start, "text": text, "readers": readers(record, start, start + len(text))}


def _places(run: ViewedRun, after: str) -> tuple[list[int], list[int], bool]:
    """The generation of each file, the row to go on at, and whether one was replaced meanwhile, or all are new."""
    have = [tuple(map(int, part.split(":"))) for part in after.split(",") if part]
    now = [source.generation for source in run.sources]
    reset = len(have) != len(now) or any(one[0] != new for one, new in zip(have, now, strict=True))
    return now, [0] * len(now) if reset else [one[1] for one in have], reset


def _after(generations: Sequence[int], ends: Sequence[int]) -> str:
    return ",".join(f"{generation}:{end}" for generation, end in zip(generations, ends, strict=True))


def _texts(run: ViewedRun, record: dict[str, Any]) -> Texts:
    return Texts(record, open_context(record, run.contexts)[0], quote_chars=CALL_QUOTE_CHARS)
