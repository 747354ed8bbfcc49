"""The text of functions and methods of a synthetic repository, and the model of what the functions do.

Switches default to 10 to 29. Exceptions are raised above 30 or more, so never by default; a branch is taken by default
where its bound is below 10.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from codeqa_rlm.facts import short
from codeqa_rlm.module import Module
from codeqa_rlm.program import Function, Step
from codeqa_rlm.repository import Synthetic
from codeqa_rlm.words import Vocabulary
from rlm_env.authoring.draw import Draw

HEAVIEST = 40
"""Calls that one run may make."""
REACH = 60
"""A new function calls one of so many latest functions: call chains get long, and many functions have callers."""


class Bodies:
    """Writes functions and methods for one repository."""

    def __init__(self, vocabulary: Vocabulary, draw: Draw, done: Synthetic) -> None:
        self.vocabulary, self.draw, self.done = vocabulary, draw, done
        self.tiny = vocabulary.name == "tiny"
        self.recent: deque[Function] = deque(maxlen=REACH)
        self.ladders: deque[Function] = deque(maxlen=REACH)
        """The latest functions that raise."""
        self.called: deque[Function] = deque(maxlen=REACH)
        """Functions that others call: near misses name them."""

    def function(self, module: Module) -> tuple[str, Callable[[], None]]:
        """The text of a function, and what records it."""
        draw, tiny = self.draw, self.tiny
        name = None
        if self.recent and draw.random() < 0.2:
            name = module.define(short(draw.choice(self.recent).name))
        name = name or module.fresh(self.vocabulary.function)
        made = Function(f"{module.name}.{name}")
        kind = draw.random()
        ladder = bool(self.done.exceptions) and kind < 0.35
        value = self.vocabulary.values[draw.below(len(self.vocabulary.values))]
        head = self._head(module, made, name, value, needs_switch=ladder)
        lines = [f"total = {value} {draw.choice('+-*')} {draw.between(2, 9)}"]
        lines += self._ladder(module, made) if ladder else []
        if draw.random() < 0.85 and (not tiny or kind < 0.6):
            for _ in range(1 if tiny else draw.between(1, 3)):
                lines += self._call(module, made)
                lines += self._work() if not tiny and draw.random() < 0.6 else []
        if self.called and draw.random() < (0.3 if tiny else 0.45):
            lines += self._mention(module, made)
        elif not tiny:
            lines += self._work()
        lines.append("return total")
        if not tiny:
            lines.insert(0, f'"""{self.vocabulary.sentence(draw)}"""')

        def accept() -> None:
            self.done.functions[made.name] = made
            self.recent.append(made)
            if ladder:
                self.ladders.append(made)
            self.called.extend(step.target for step in made.steps if step.target)

        return head + "".join(f"    {line}\n" for line in lines), accept

    def method(self, module: Module, name: str, inherited: bool) -> str:
        """The text of a method; it may call functions, and the method that it overrides."""
        draw = self.draw
        value = draw.choice(self.vocabulary.values)
        lines = [f"total = {value} {draw.choice('+-*')} {draw.between(2, 9)}"]
        if not self.tiny:
            lines += self._work()
            if self.recent and draw.random() < 0.35:
                target = draw.choice(self.recent)
                lines.append(f"total += {module.use(target.name, self.vocabulary.function)}(total)")
            if inherited and draw.random() < 0.4:
                lines.append(f"total += super().{name}({value})")
        lines.append("return total")
        return f"    def {name}(self, {value}={draw.between(2, 9)}):\n" + "".join(f"        {line}\n" for line in lines)

    def _head(self, module: Module, made: Function, name: str, value: str, needs_switch: bool) -> str:
        """The line with the parameters."""
        draw, tiny = self.draw, self.tiny
        shown = str(draw.between(10, 99) if tiny else draw.between(2, 9))
        made.defaults[value] = shown
        later: list[str] = []
        if needs_switch or draw.random() < (0.3 if tiny else 0.6):
            made.switch, made.level = draw.choice(self.vocabulary.switches), draw.between(10, 29)
            given = str(made.level)
            if self.done.constants and draw.random() < 0.5:
                constant, made.level = draw.choice(list(self.done.constants.items()))
                given = module.use(constant, self.vocabulary.constant)
            made.defaults[made.switch] = str(made.level)
            later.append(f"{made.switch}={given}")
        if not tiny and draw.random() < 0.5:
            extra = draw.choice(self.vocabulary.extras)
            word = f'"{draw.choice(self.vocabulary.nouns)}"'
            made.defaults[extra] = repr(word.strip('"'))
            later.append(f"{extra}={word}")
        return f"def {name}({', '.join([f'{value}={shown}', *draw.shuffled(later)])}):\n"

    def _ladder(self, module: Module, made: Function) -> list[str]:
        """Falling bounds, each with its exception; perhaps what is raised further down on top of them."""
        draw, switch = self.draw, made.switch
        made.probe = draw.between(31, 99)
        bounds = sorted(draw.sample(range(30, 99), draw.between(1, 3)), reverse=True)
        lines: list[str] = []
        for bound in bounds:
            lines += [
                f"if {switch} > {bound}:",
                "    " + self._raise(module, raised := draw.choice(self.done.exceptions)),
            ]
            made.steps.append(Step(over=bound, raises=raised))
        if (
            self.ladders
            and draw.random() < 0.6
            and (target := draw.choice(self.ladders)).weight + made.weight < HEAVIEST
        ):
            shown = module.use(target.name, self.vocabulary.function)
            call = f"total += {shown}(total, {target.switch}={switch})"
            made.weight += target.weight
            made.mentions.add(target.name)
            named = sorted({step.raises for step in target.steps if step.raises})
            if draw.random() < 0.5:
                caught, raised = draw.choice(named), draw.choice(self.done.exceptions)
                made.steps.append(Step(target=target, passes=True, catches=caught, raises=raised))
                lines += ["try:", f"    {call}", f"except {module.use(caught, self.vocabulary.fault)} as error:"]
                lines.append(f"    {self._raise(module, raised)} from error")
            else:
                made.steps.append(Step(target=target, passes=True))
                lines.append(call)
        return lines

    def _raise(self, module: Module, exception: str) -> str:
        return f'raise {module.use(exception, self.vocabulary.fault)}("{self.draw.choice(self.vocabulary.nouns)}")'

    def _call(self, module: Module, made: Function) -> list[str]:
        """A call, some behind a condition that the default of the switch fulfils or does not."""
        draw = self.draw
        if not self.recent:
            return []
        target = draw.choice(self.recent)
        if target.weight + made.weight > HEAVIEST:
            return []
        made.weight += target.weight
        made.mentions.add(target.name)
        call = f"total += {module.use(target.name, self.vocabulary.function)}(total)"
        if made.switch and draw.random() < 0.5:
            bound = draw.between(2, 9) if draw.random() < 0.5 else draw.between(30, 98)
            made.steps.append(Step(over=bound, target=target))
            return [f"if {made.switch} > {bound}:", f"    {call}"]
        made.steps.append(Step(target=target))
        return [call]

    def _mention(self, module: Module, made: Function) -> list[str]:
        """A function is named without being called."""
        draw = self.draw
        target = draw.choice(self.called)
        name = short(target.name)
        made.mentions.add(target.name)
        kind = draw.below(3 if self.tiny else 5)
        if kind == 0:
            return [f"# no {name} here" if self.tiny else f"# {name} was called here until the {self.noun()} moved."]
        if kind == 1:
            return [f'name = "{name}"']
        shown = module.use(target.name, self.vocabulary.function)
        if kind == 2:
            return [f"later = {shown}"]
        if kind == 3:
            return ["def later():", f"    return {shown}(total)"]
        return [f'table = {{"{self.noun()}": {shown}}}', "total += len(table)"]

    def noun(self) -> str:
        return self.draw.choice(self.vocabulary.nouns)

    def _work(self) -> list[str]:
        """Lines that call nothing of the repository."""
        draw = self.draw
        kind = draw.below(6)
        if kind == 0:
            return [f"total = total % {draw.between(11, 99)}"]
        if kind == 1:
            return [f"for step in range({draw.between(2, 5)}):", f"    total += step * {draw.between(2, 9)}"]
        if kind == 2:
            return [f'names = ["{self.noun()}", "{self.noun()}", "{self.noun()}"]', "total += len(names)"]
        if kind == 3:
            return [f"# The {self.noun()} comes before the {self.noun()}.", f"total -= {draw.between(2, 9)}"]
        if kind == 4:
            return [f"if total > {draw.between(100, 900)}:", f"    total = {draw.between(10, 99)}"]
        return [f'note = f"{self.noun()} {{total}}"', "total += len(note)"]
