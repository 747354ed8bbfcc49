"""The model of a synthetic function: which calls it makes and what it raises, as data that can be interpreted.

A function has one *switch*, an integer parameter that decides which steps are taken. Everything else that its text
does (sums, strings, comments) changes neither calls nor exceptions, and is not modeled.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class Function:
    """A function of a synthetic repository."""

    name: str
    """Dotted."""
    switch: str = ""
    """Name of the parameter that decides; empty: there is none."""
    level: int = 0
    """Default of the switch."""
    defaults: dict[str, str] = field(default_factory=dict)
    """Parameter -> its default value, as `repr` writes it."""
    steps: list[Step] = field(default_factory=list)
    mentions: set[str] = field(default_factory=set)
    """Functions that its text names, called or not."""
    weight: int = 1
    """No run makes more calls than this, whatever the switch."""
    probe: int = 0
    """A value of the switch to ask about; 0: none."""
    runs: dict[int, Run] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """A call or a raise."""

    over: int | None = None
    """Taken only where the switch is greater; None: always."""
    target: Function | None = None
    """The function that is called."""
    passes: bool = False
    """If true, the caller passes on the value of its own switch; otherwise the target uses its default."""
    catches: str = ""
    """An exception of the target, in place of which `raises` is raised."""
    raises: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """The effects of one call of a function."""

    calls: list[tuple[Function, int]]
    """Its direct calls in order, each with the value of the switch there."""
    raised: str
    """The exception that leaves the function; empty: none."""


def run(function: Function, level: int) -> Run:
    """The function called with that value of its switch."""
    known = function.runs.get(level)
    if known is None:
        known = function.runs[level] = _run(function, level)
    return known


def _run(function: Function, level: int) -> Run:
    calls: list[tuple[Function, int]] = []
    for step in function.steps:
        if step.over is not None and level <= step.over:
            continue
        if step.target is None:
            return Run(calls, step.raises)
        passed = level if step.passes else step.target.level
        calls.append((step.target, passed))
        raised = run(step.target, passed).raised
        if raised:
            return Run(calls, step.raises if raised == step.catches else raised)
    return Run(calls, "")


def levels(function: Function, k: int) -> list[frozenset[str]]:
    """Names of the functions that are reached by exactly 0, 1, ... k calls when it runs without arguments."""
    states = {(function, function.level)}
    found = [frozenset([function.name])]
    for _ in range(k):
        states = {state for caller, level in states for state in run(caller, level).calls}
        found.append(frozenset(target.name for target, _ in states))
    return found
