"""A synthetic repository: its files, and the model that its facts are read from."""

from __future__ import annotations

from dataclasses import dataclass, field

from codeqa_rlm.facts import Facts, Outcome
from codeqa_rlm.program import Function, levels, run


@dataclass
class Synthetic:
    """A repository and the model of it. Names are dotted."""

    files: dict[str, str]
    functions: dict[str, Function] = field(default_factory=dict)
    order: dict[str, list[str]] = field(default_factory=dict)
    """Class -> its method resolution order."""
    bases: dict[str, list[str]] = field(default_factory=dict)
    methods: dict[str, list[str]] = field(default_factory=dict)
    exceptions: list[str] = field(default_factory=list)
    constants: dict[str, int] = field(default_factory=dict)
    """Constants that switches default to, with their values."""

    def facts(self) -> Facts:
        return Facts(
            executed=True,
            order=self.order,
            bases=self.bases,
            own={name: frozenset([*methods, "kind"]) for name, methods in self.methods.items()},
            methods=self.methods,
            defaults={name: function.defaults for name, function in self.functions.items()},
            literals=[],
            levels=lambda name, k: levels(self.functions[name], k),
            mentions={name: function.mentions for name, function in self.functions.items()},
            exceptions=self.exceptions,
            outcomes=[outcome for f in self.functions.values() if f.probe and (outcome := outcome_of(f))],
            raises={},
        )


def outcome_of(function: Function) -> Outcome | None:
    """The exception that the function ends in if its switch has the value asked about; None if it returns."""
    raised = run(function, function.probe).raised
    if not raised:
        return None
    near = [function, *(step.target for step in function.steps if step.passes and step.target)]
    named = {name for one in near for step in one.steps for name in (step.raises, step.catches) if name}
    return Outcome(function.name, f"{function.switch}={function.probe}", raised, sorted(named - {raised}))
