"""Synthetic repositories of any size: real, importable Python whose facts are known from a model of it.

Modules import only what was written before them, so nothing is circular; functions call only earlier functions, so
every run ends. Every parameter has a default. Near misses are planted on purpose: functions and methods of one name in
different places, branches that the defaults do not take, calls in functions that are never called, references,
comments. Nothing is raised without arguments.
Not covered: what the text computes; nobody is asked about it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from codeqa_rlm.bodies import Bodies
from codeqa_rlm.facts import linearize
from codeqa_rlm.module import Module
from codeqa_rlm.repository import Synthetic
from codeqa_rlm.words import Vocabulary
from rlm_env.authoring.draw import Draw

MODULES_PER_FOLDER = 8
LONGEST_MRO = 8


def build(vocabulary: Vocabulary, size: int, files: int | None, classes: float, draw: Draw) -> Synthetic:
    """A repository of at most `size` characters (paths and texts), filled up to less than a function or class.

    `files` is about how many modules share it; None: as many as are usual for the size. `classes` is their share among
    functions and classes."""
    return Builder(vocabulary, size, files, classes, draw).build()


class Builder:
    """Writes one repository."""

    def __init__(self, vocabulary: Vocabulary, size: int, files: int | None, classes: float, draw: Draw) -> None:
        self.vocabulary, self.draw, self.classes = vocabulary, draw, classes
        self.tiny = vocabulary.name == "tiny"
        self.left = size
        self.per_file = None if files is None else max(1, size // files)
        self.usual = (350, 550) if self.tiny else (min(2000, size // 4), min(6000, size // 2))
        """Characters of a module."""
        self.root = "" if self.tiny else vocabulary.module(draw)
        count = files or size // 4000 + 1
        self.folders = [""] if self.tiny else self._folders(1 + count // MODULES_PER_FOLDER)
        self.done = Synthetic({})
        self.paths: set[str] = set()
        self.recent: deque[str] = deque(maxlen=14)
        """The classes that a new one may inherit from."""
        self.type_names: set[str] = set()
        self.pool = [f"{draw.choice(vocabulary.verbs)}_{noun}" for noun in draw.sample(vocabulary.nouns, 12)]
        """Names of methods: few, so that many classes have methods of one name."""
        self.bodies = Bodies(vocabulary, draw, self.done)

    def build(self) -> Synthetic:
        if not self.tiny:
            for folder in self.folders:
                self._put(
                    f"{folder}/__init__.py" if folder else "__init__.py",
                    f'"""{self.vocabulary.sentence(self.draw)}"""\n',
                )
            self._put(f"{self.root}/__init__.py", f'"""{self.vocabulary.sentence(self.draw)}"""\n')
            self._write_errors()
            self._write_settings()
        while self._write_module():
            pass
        self.done.files = dict(sorted(self.done.files.items()))
        return self.done

    def type_name(self, make: Callable[[Draw], str]) -> str:
        """A name that no other class of the repository has."""
        number = 0
        while True:
            number += 1
            name = make(self.draw) + (str(number) if number > 50 else "")
            if name not in self.type_names:
                self.type_names.add(name)
                return name

    def _folders(self, count: int) -> list[str]:
        names: dict[str, None] = {}
        while len(names) < min(count, 2000):
            names[f"{self.root}/{self.vocabulary.module(self.draw)}"] = None
        return list(names)

    def _put(self, path: str, text: str) -> None:
        self.done.files[path] = text
        self.paths.add(path)
        self.left -= len(path) + len(text)

    def _write_errors(self) -> None:
        path = f"{self.root}/errors.py"
        units = [f'"""{self.vocabulary.sentence(self.draw)}"""\n']
        for _ in range(max(5, min(60, self.left // 8000))):
            name = self.type_name(self.vocabulary.fault)
            units.append(f'class {name}(Exception):\n    """{self.vocabulary.sentence(self.draw)}"""\n')
            self.done.exceptions.append(f"{self.root}.errors.{name}")
        self._put(path, "\n\n".join(units))

    def _write_settings(self) -> None:
        names: dict[str, int] = {}
        for _ in range(max(4, min(80, self.left // 8000))):
            names[self.vocabulary.constant(self.draw)] = self.draw.between(10, 29)
        lines = "".join(f"{name} = {value}\n" for name, value in names.items())
        self._put(f"{self.root}/settings.py", f'"""{self.vocabulary.sentence(self.draw)}"""\n\n{lines}')
        self.done.constants = {f"{self.root}.settings.{name}": value for name, value in names.items()}

    def _write_module(self) -> bool:
        """Writes the next module; False where nothing more fits."""
        draw = self.draw
        folder = draw.choice(self.folders)
        while True:
            name = self.vocabulary.module(draw)
            path = f"{folder}/{name}.py" if folder else f"{name}.py"
            if path not in self.paths:
                break
            if len(self.paths) > 8 * len(self.folders) * len(self.vocabulary.nouns) or self.tiny:
                name = f"{name}_{len(self.paths)}"
                path = f"{folder}/{name}.py" if folder else f"{name}.py"
                break
        module = Module(path, "" if self.tiny else self.vocabulary.sentence(draw), draw)
        wanted = self.per_file or draw.between(*self.usual)
        while module.size() < min(wanted, self.left):
            module.begin()
            text, accept = (self._class if draw.random() < self.classes else self.bodies.function)(module)
            if module.size() + len(text) + 2 > self.left:
                module.drop()
                break
            module.add(text)
            accept()
        if not len(module):
            return False
        self._put(module.path, module.text())
        return True

    def _class(self, module: Module) -> tuple[str, Callable[[], None]]:
        """The text of a class, and what records it."""
        draw, done = self.draw, self.done
        name = self.type_name(self.vocabulary.type)
        module.define(name)
        dotted = f"{module.name}.{name}"
        bases, line = self._bases(dotted)
        shown = ", ".join(module.use(base, lambda _: self.type_name(self.vocabulary.type)) for base in bases)
        inherited = sorted({m for base in bases for cls in done.order[base][:-1] for m in done.methods[cls]})
        names: dict[str, None] = {}
        for _ in range(1 if self.tiny else draw.between(1, 3)):
            names[draw.choice(inherited if inherited and draw.random() < 0.55 else self.pool)] = None
        if inherited and draw.random() < 0.3:
            names = {method: None for method in names if method not in inherited}
        head = f"class {name}({shown}):\n" if shown else f"class {name}:\n"
        body = [f'    kind = "{draw.choice(self.vocabulary.nouns)}"\n']
        if not self.tiny:
            body.insert(0, f'    """{self.vocabulary.sentence(self.draw)}"""\n')
        body += [self.bodies.method(module, method, method in inherited) for method in names]

        def accept() -> None:
            done.order[dotted], done.bases[dotted], done.methods[dotted] = line, bases, list(names)
            self.recent.append(dotted)

        return head + ("" if self.tiny else "\n").join(body), accept

    def _bases(self, name: str) -> tuple[list[str], list[str]]:
        """Bases of a new class, and its method resolution order."""
        draw = self.draw
        for _ in range(8):
            chance = draw.random()
            bases = draw.sample(self.recent, 0 if chance < 0.25 else 1 if chance < 0.55 else 2 if chance < 0.9 else 3)
            order = linearize(name, bases, self.done.order) if bases else [name, "object"]
            if order is not None and len(order) <= LONGEST_MRO:
                return bases, order
        return [], [name, "object"]
