"""A module under construction: its text, its imports, and the names that are bound in it."""

from __future__ import annotations

from collections.abc import Callable

from rlm_env.authoring.draw import Draw


class Module:
    """Collects units of code (functions, classes) and writes the imports that they need.

    The same thing is imported in different ways: by name, under another name, or through its module.
    """

    def __init__(self, path: str, doc: str, draw: Draw) -> None:
        self.path = path
        self.name = path.removesuffix(".py").replace("/", ".")
        self._doc = f'"""{doc}"""\n' if doc else ""
        self._units: list[str] = []
        self._written = 0
        self._draw = draw
        self._imports: dict[str, None] = {}
        self._bound: dict[str, str] = {}
        """Dotted name -> how it is written here."""
        self._taken: set[str] = set()
        self._before: tuple[dict[str, None], dict[str, str], set[str]] = ({}, {}, set())

    def begin(self) -> None:
        """A unit begins; `drop` undoes what it imports and defines."""
        self._before = (dict(self._imports), dict(self._bound), set(self._taken))

    def drop(self) -> None:
        self._imports, self._bound, self._taken = self._before

    def fresh(self, make: Callable[[Draw], str]) -> str:
        """A name that nothing else has here."""
        for number in range(1, 1000):
            name = make(self._draw) + (f"_{number}" if number > 50 else "")
            if name not in self._taken:
                self._taken.add(name)
                return name
        raise AssertionError("a module has fewer than a thousand names")

    def define(self, name: str) -> str | None:
        """Reserves the name and returns it; None if it was taken before."""
        if name in self._taken:
            return None
        self._taken.add(name)
        return name

    def use(self, dotted: str, alias: Callable[[Draw], str]) -> str:
        """The expression for a function, class or constant here; imports it if it belongs to another module."""
        if dotted not in self._bound:
            self._bound[dotted] = self._bring(dotted, alias)
        return self._bound[dotted]

    def _bring(self, dotted: str, alias: Callable[[Draw], str]) -> str:
        owner, _, name = dotted.rpartition(".")
        if owner == self.name:
            return name
        chance = self._draw.random()
        if owner in self._bound:
            return f"{self._bound[owner]}.{name}"
        if chance < 0.45:
            package, _, module = owner.rpartition(".")
            line = f"from {package} import {module}" if package else f"import {module}"
            bound = self.define(module)
            if bound is None:
                bound = self.fresh(lambda draw: f"{module}_{draw.between(2, 9)}")
                line += f" as {bound}"
            self._imports[line] = None
            self._bound[owner] = bound
            return f"{bound}.{name}"
        bound = self.define(name) if chance < 0.85 else None
        line = f"from {self._place(owner)} import {name}"
        if bound is None:
            bound = self.fresh(alias)
            line += f" as {bound}"
        self._imports[line] = None
        return bound

    def _place(self, owner: str) -> str:
        """The module in an import statement; from the same folder it is relative half of the time."""
        package, _, module = owner.rpartition(".")
        same = package and package == self.name.rpartition(".")[0]
        return f".{module}" if same and self._draw.random() < 0.5 else owner

    def add(self, unit: str) -> None:
        """Adds the code of a function or class; it ends with a line break."""
        self._units.append(unit)
        self._written += len(unit) + 2

    def size(self) -> int:
        """Characters of the path and the text."""
        return len(self.path) + len(self._head()) + self._written

    def text(self) -> str:
        """Units are set apart by two empty lines."""
        head = self._head()
        return "\n\n".join([head, *self._units] if head else self._units)

    def __len__(self) -> int:
        return len(self._units)

    def _head(self) -> str:
        """Docstring and imports."""
        imports = "".join(f"{line}\n" for line in sorted(self._imports))
        return "\n".join(part for part in (self._doc, imports) if part)
