"""Rules about contexts: plain data alone, and no place in them that gives the gold answer away in every task.

A context goes into the REPL, so whatever stands in it is in the model's reach. That the gold answer occurs somewhere in
a text is the nature of many tasks. What is found here is an address that leads to it in every task: a field, a key, a
file, an item that is marked, a place that announces it (`announced.py`); and `Task.info` as a whole.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from rlm_env.context import folder_files
from rlm_env.hub.announced import LABELS, announcements
from rlm_env.hub.findings import Finding
from rlm_env.hub.scores import Answers
from rlm_env.task import Task

LEAST_TASKS, LEAST_GOLDS = 3, 2
"""A place counts if it holds the gold answer of at least so many tasks, with so many different ones."""
PARSED_CHARS = 1_000_000
"""Texts up to this length that are JSON are looked into like data."""
_PLAIN = (str, bytes, bytearray, int, float, bool, type(None), list, tuple, dict)


def context_types(tasks: Iterable[Task]) -> list[Finding]:
    """A finding for each task whose context holds anything but plain data: an object of a class of one's own can carry
    attributes, and those do not reach the REPL, or should not."""
    found: list[Finding] = []
    for task in tasks:
        for place, value in _objects(task.context, "context"):
            carried = ", ".join(getattr(value, "__dict__", {})) or "none"
            found.append(
                Finding(
                    "context-type",
                    task.id,
                    f"{place} is a {type(value).__name__}, a class of its own (attributes: {carried})",
                    "make it a plain str, bytes, list, dict or Path; what only the scorer needs belongs into Task.gold",
                )
            )
            break
    return found


def gold_places(tasks: list[Task], answers: Answers) -> list[Finding]:
    """A finding for each place in the context that is the gold answer in every task."""
    with_context = [task for task in tasks if task.context]
    return [
        Finding(
            "gold-in-context",
            place,
            f"holds the gold answer in each of {len(with_context)} tasks",
            "take it out of the context; the right answer belongs into Task.gold, which never leaves the host",
        )
        for place in common_places(with_context, answers, lambda task: task.context, "context")
    ]


def common_places(tasks: list[Task], answers: Answers, part: Callable[[Task], Any], name: str) -> list[str]:
    """The places in a part of the tasks that hold the gold answer in each of them. None where there are too few tasks
    or right answers to tell."""
    tasks = [task for task in tasks if task.gold is not None]
    if len(tasks) < LEAST_TASKS or len({repr(task.gold) for task in tasks}) < LEAST_GOLDS:
        return []
    common: set[str] | None = None
    for task in tasks:
        here = set(_places(part(task), name, _forms(task, answers), _info_labels(task)))
        common = here if common is None else common & here
        if not common:
            return []
    return sorted(common or ())


def info_places(tasks: Iterable[Task]) -> list[Finding]:
    """A finding for each task whose `info` stands as a whole in its context."""
    found: list[Finding] = []
    for task in tasks:
        if not task.info:
            continue
        written = {json.dumps(task.info, default=str), json.dumps(task.info, default=str, ensure_ascii=False)}
        written |= {repr(task.info), json.dumps(task.info, default=str, indent=2)}
        for place, value in _walk(task.context, "context"):
            if _same(value, task.info) or (isinstance(value, str) and any(text in value for text in written)):
                remedy = "keep info out of the context: it is for reports and scorers on the host"
                found.append(Finding("info-in-context", task.id, f"{place} holds Task.info", remedy))
                break
    return found


def gold_forms(task: Task, answers: Answers) -> set[str]:
    """The texts that stand for the gold answer: itself, as JSON where it is no text, the perfect answer."""
    forms = {answers.get(task.id, ""), str(task.gold)}
    if not isinstance(task.gold, str):
        with contextlib.suppress(TypeError, ValueError):
            forms.add(json.dumps(task.gold, ensure_ascii=False))
    return {form.strip() for form in forms} - {"", "None"}


def _forms(task: Task, answers: Answers) -> tuple[Any, set[str]]:
    return task.gold, gold_forms(task, answers)


def _info_labels(task: Task) -> set[str]:
    """The names of the parts of `info` that are the gold answer."""
    return {name for name, value in task.info.items() if _same(value, task.gold)}


def _places(context: Any, name: str, gold: tuple[Any, set[str]], labels: set[str]) -> Iterator[str]:
    """Addresses in a context at which the gold answer stands. Positions in lists are left out of addresses whose last
    part announces an answer."""
    value, forms = gold
    announcing = LABELS | {label.lower() for label in labels}
    for place, part in _walk(context, name):
        key = place.rpartition("[")[2].strip("]'\"").rpartition("/")[2].partition(".")[0].lower()
        if _same(part, value) or (isinstance(part, str | int | float) and str(part).strip() in forms):
            yield place
            if key in announcing:
                yield re.sub(r"\[-?\d+\]", "[...]", place)
        if isinstance(part, str) and _parsed(part) is None:
            for announced in announcements(part, forms):
                yield f"{announced} of {place}"


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal; False for values, such as arrays, that say so element by element."""
    return type(one) is type(other) and repr(one) == repr(other)


def _walk(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Every part of a context with its address, files of a folder and JSON in texts included."""
    if isinstance(value, Path):
        files = folder_files(value) if value.is_dir() else {"": value}
        for name, path in files.items():
            yield from _walk(path.read_bytes(), f"{place}[{name!r}]" if name else place)
        for which, name in zip(("first", "last"), sorted(files)[:: max(1, len(files) - 1)], strict=False):
            yield f"the name of the {which} file of {place}", Path(name).stem
        return
    if isinstance(value, bytes | bytearray):
        value = bytes(value).decode("utf-8", "replace")
    yield place, value
    yield from _inside(_parsed(value) if isinstance(value, str) else value, place)


def _parsed(text: str) -> Any:
    """What stands in a text of JSON; None for any other text."""
    if text[:1] not in ("{", "[") or len(text) > PARSED_CHARS:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _inside(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _walk(inner, f"{place}[{key!r}]")
        for name, key in zip(("first", "last"), (next(iter(value), None), next(reversed(value), None)), strict=True):
            if isinstance(key, str):
                yield f"the {name} key of {place}", key
        yield from _marked(value.values(), place)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _walk(inner, f"{place}[{index}]")
        if value:
            yield f"{place}[-1]", value[-1]
        yield from _marked(value, place)


def _marked(items: Iterable[Any], place: str) -> Iterator[tuple[str, Any]]:
    """The parts of the one item among several in which a field is true, as in a list of choices with `right`."""
    rows = [item for item in items if isinstance(item, dict)]
    flags = Counter(key for row in rows for key, value in row.items() if value is True)
    for flag in [flag for flag, count in flags.items() if count == 1]:
        row = next(row for row in rows if row.get(flag) is True)
        yield from ((f"{place}[...][{key!r}] where {flag!r} is true", value) for key, value in row.items())


def _objects(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """The parts of a context that are not exactly of a plain type."""
    if isinstance(value, Path):
        return
    if type(value) not in _PLAIN:
        yield place, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _objects(inner, f"{place}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _objects(inner, f"{place}[{index}]")
