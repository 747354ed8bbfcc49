"""What a check says: findings with their remedies, what was fine, and what was not checked.

A finding can be allowed by the package's pyproject.toml, with a reason that is shown:

    [tool.rlm-env.check.allow]
    gold-in-context = "the title that is asked for is a field of every document"
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

SHOWN = 4
"""Findings of one rule that are printed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong with an environment or its package."""

    rule: str
    """The rule's name, for example `empty-answer`."""
    where: str
    """A task's id, a file, an option."""
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.rule}  {self.where}: {self.message}. Remedy: {self.remedy}"


@dataclass(slots=True)
class Findings:
    """The outcome of the rules that were applied."""

    subject: str
    """What was checked, for example `needle-rlm 0.2.0`."""
    found: list[Finding] = field(default_factory=list)
    passed: dict[str, str] = field(default_factory=dict)
    """Rule -> what was seen."""
    allowed: dict[str, str] = field(default_factory=dict)
    """Rule with findings -> the package's reason to allow them."""
    unchecked: dict[str, str] = field(default_factory=dict)
    """What was not checked -> why, and how it can be."""

    def conclude(self, rule: str, found: list[Finding], seen: str, allow: Mapping[str, str] | None = None) -> None:
        """Notes the outcome of one rule: its findings, or what was seen where it has none."""
        reason = (allow or {}).get(rule)
        if found and reason is not None:
            self.allowed[rule] = reason
        elif found:
            self.found += found
        else:
            self.passed[rule] = seen

    @property
    def ok(self) -> bool:
        return not self.found

    def add(self, other: Findings) -> None:
        """Adds the outcomes in other findings about the same subject."""
        self.found += other.found
        for own, theirs in (
            (self.passed, other.passed),
            (self.allowed, other.allowed),
            (self.unchecked, other.unchecked),
        ):
            own.update(theirs)

    def lines(self) -> list[str]:
        """One line per rule, then the findings, the first ones of each rule."""
        said = [self.subject]
        said += [f"  ok           {rule}: {seen}" for rule, seen in self.passed.items()]
        said += [f"  allowed      {rule}: {reason}" for rule, reason in self.allowed.items()]
        said += [f"  not checked  {what}: {why}" for what, why in self.unchecked.items()]
        counts: Counter[str] = Counter()
        for finding in self.found:
            counts[finding.rule] += 1
            if counts[finding.rule] <= SHOWN:
                said.append(f"  FINDING      {finding}")
        said += [
            f"  FINDING      {rule}  {count - SHOWN} more of the kind; --json lists all"
            for rule, count in counts.items()
            if count > SHOWN
        ]
        return said

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "ok": self.ok}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Findings:
        """The findings that `to_dict` wrote."""
        found = [Finding(**one) for one in stored["found"]]
        parts = {name: dict(stored[name]) for name in ("passed", "allowed", "unchecked")}
        return cls(stored["subject"], found, **parts)
