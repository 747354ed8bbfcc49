"""The facts of an installed package, read from its syntax trees, and the package with its names replaced.

Questions use only unambiguous facts: classes and functions at the top level of a module that are bound once and not
decorated; classes whose bases are all known; calls of functions whose name is unique in the package.
"""

from __future__ import annotations

import ast
import builtins
from collections import Counter
from collections.abc import Mapping
from functools import cache

from codeqa_rlm.facts import Facts, linearize
from codeqa_rlm.rename import WORD, Slots, prefixes, words_outside
from codeqa_rlm.source import Source, importable, module_name
from codeqa_rlm.syntax import FUNCTIONS, Function, bound_by, defined, kinds_of, methods_of, named_by, resolve, scope_of
from codeqa_rlm.words import Vocabulary
from rlm_env.authoring.draw import Draw

SHORTEST = 3
"""Letters of a word that is renamed."""
LONGEST_DEFAULT = 24


@cache
def analyze(source: Source) -> Analysis:
    """The analysis of a package; made once."""
    return Analysis(source)


class Analysis:
    """Facts of one package in its own names, and the words that get others."""

    def __init__(self, source: Source) -> None:
        trees = source.trees
        self._files = source.files
        self._modules = {path: module_name(path) for path in trees}
        self._words = {word for text in source.files.values() for word in WORD.findall(text)}
        """No new name may be one of them."""
        kinds = kinds_of(trees.values())
        outside = words_outside(trees.values(), source.package, set(kinds))
        outside.discard(source.package)
        for module in self._modules.values():
            for part in module.split("."):
                kinds.setdefault(part, "module")
        known = prefixes(trees.values())
        outside |= {word.removeprefix(lead) for word in self._words for lead in known if word.startswith(lead)}
        self.kinds = {
            name: kind
            for name, kind in kinds.items()
            if len(name) >= SHORTEST and name not in outside and not name.endswith("__") and not name.startswith(known)
        }
        """Word that is renamed -> what it names."""
        in_text = {name for name, kind in self.kinds.items() if kind != "module"}
        self._slots = {path: Slots(text, set(self.kinds), in_text) for path, text in source.files.items()}

        self._definitions = Counter(name for tree in trees.values() for name in defined(tree))
        self._classes: dict[str, ast.ClassDef] = {}
        self._functions: dict[str, Function] = {}
        scopes: dict[str, dict[str, str]] = {}
        for path, tree in trees.items():
            module = self._modules[path]
            if importable(tree) and not module.endswith("__main__"):
                scopes[module] = scope_of(tree, module, path.endswith("__init__.py"))
                self._collect(tree, module)
        self._order: dict[str, list[str]] = {}
        self._bases: dict[str, list[str]] = {}
        for name in self._classes:
            self._linearize(name, scopes)
        self._own = {name: frozenset(bound_by(self._classes[name].body)) for name in self._order}
        self._methods = {name: [m for m in methods_of(self._classes[name]) if m in self.kinds] for name in self._order}
        self._defaults = {name: self._read_defaults(node) for name, node in self._functions.items()}
        self._calls: dict[str, set[str]] = {}
        self._mentions: dict[str, set[str]] = {}
        self._raises: dict[str, set[str]] = {}
        self._read_bodies()
        values = (n.value for t in trees.values() for n in ast.walk(t) if isinstance(n, ast.Constant))
        self._literals = sorted({repr(v) for v in values if type(v) in (int, float, str) and self._keeps(repr(v))})

    def new_names(self, vocabulary: Vocabulary, draw: Draw) -> dict[str, str]:
        """Another name for each word of `kinds`, all different and none of them used in the package."""
        make = {"type": vocabulary.type, "fault": vocabulary.fault, "function": vocabulary.function}
        names: dict[str, str] = {}
        taken = set(self._words)
        for word, kind in sorted(self.kinds.items()):
            lead = word[: len(word) - len(word.lstrip("_"))]
            while (name := lead + make.get(kind, vocabulary.module)(draw)) in taken:
                pass
            taken.add(name)
            names[word] = name
        return names

    def renamed(self, names: Mapping[str, str]) -> dict[str, str]:
        """The files under other names, in the order of their new paths."""
        files = {
            WORD.sub(lambda part: names.get(part[0], part[0]), path): slots.fill(names)
            for path, slots in self._slots.items()
        }
        return dict(sorted(files.items()))

    def facts(self, names: Mapping[str, str]) -> Facts:
        """The facts under other names."""

        @cache
        def new(dotted: str) -> str:
            return ".".join(names.get(part, part) for part in dotted.split("."))

        def all_new(words: set[str] | frozenset[str]) -> frozenset[str]:
            return frozenset(map(new, words))

        calls = {new(name): all_new(called) for name, called in self._calls.items()}
        return Facts(
            executed=False,
            order={new(name): [new(cls) for cls in order] for name, order in self._order.items()},
            bases={new(name): [new(cls) for cls in bases] for name, bases in self._bases.items()},
            own={new(name): all_new(bound) for name, bound in self._own.items()},
            methods={new(name): sorted(map(new, methods)) for name, methods in self._methods.items()},
            defaults={
                new(name): {new(parameter): value for parameter, value in defaults.items()}
                for name, defaults in self._defaults.items()
            },
            levels=lambda name, k: [frozenset([name]), calls[name]][: k + 1],
            mentions={new(name): all_new(named) for name, named in self._mentions.items()},
            literals=self._literals,
            exceptions=[],
            outcomes=[],
            raises={new(name): all_new(raised) for name, raised in self._raises.items()},
        )

    def _collect(self, tree: ast.Module, module: str) -> None:
        """The classes and functions at the top of a module that are what their name says."""
        bound = Counter(bound_by(tree.body))
        elsewhere = {name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names}
        for node in tree.body:
            if not isinstance(node, (*FUNCTIONS, ast.ClassDef)) or node.decorator_list:
                continue
            if bound[node.name] > 1 or node.name in elsewhere:
                continue
            name = f"{module}.{node.name}"
            if isinstance(node, ast.ClassDef):
                self._classes[name] = node
                for method, inner in methods_of(node).items():
                    self._functions[f"{name}.{method}"] = inner
            else:
                self._functions[name] = node

    def _linearize(self, name: str, scopes: Mapping[str, Mapping[str, str]]) -> list[str] | None:
        """The method resolution order of a class, kept where all its bases are known."""
        if name in self._order or name not in self._classes:
            return self._order.get(name)
        scope = scopes[name.rpartition(".")[0]]
        orders: dict[str, list[str]] = {}
        for expression in self._classes[name].bases:
            base = resolve(expression, scope)
            kind = getattr(builtins, base, None) if base and base not in scope else None
            order = [cls.__name__ for cls in kind.__mro__] if isinstance(kind, type) else self._linearize(base, scopes)
            if order is None or base == name:
                return None
            orders[base] = order
        order = linearize(name, list(orders) or ["object"], orders | {"object": ["object"]})
        if order is not None:
            self._order[name], self._bases[name] = order, list(orders)
        return order

    def _read_bodies(self) -> None:
        """The calls, names and exceptions in the code of each function, as far as their names are unique."""
        targets: dict[str, str] = {}
        for dotted in (*self._functions, *self._order):
            name = dotted.rpartition(".")[2]
            if self._definitions[name] == 1 and name in self.kinds and dotted.rpartition(".")[0] not in self._classes:
                targets[name] = dotted
        faults = {targets[name] for name in targets if "BaseException" in self._order.get(targets[name], [])}
        for dotted, node in self._functions.items():
            called, named, raised = set(), set(), set()
            for inner in (found for statement in node.body for found in ast.walk(statement)):
                named |= named_by(inner)
                if isinstance(inner, ast.Call):
                    called |= named_by(inner.func)
                elif isinstance(inner, ast.Raise) and inner.exc is not None:
                    raised |= named_by(inner.exc.func if isinstance(inner.exc, ast.Call) else inner.exc)
            functions = {targets[name] for name in called & targets.keys()} & self._functions.keys()
            self._calls[dotted] = functions
            self._mentions[dotted] = {targets[name] for name in named & targets.keys()}
            self._raises[dotted] = {targets[name] for name in raised & targets.keys()} & faults

    def _read_defaults(self, node: Function) -> dict[str, str]:
        """Parameter -> default, where both are worth asking: the parameter is renamed, the value neither a truth value
        nor nothing."""
        given = [*node.args.posonlyargs, *node.args.args]
        pairs = list(zip(given[len(given) - len(node.args.defaults) :], node.args.defaults, strict=True))
        pairs += [pair for pair in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if pair[1] is not None]
        return {
            parameter.arg: shown
            for parameter, value in pairs
            if parameter.arg in self.kinds
            and isinstance(value, ast.Constant)
            and value.value not in (None, True, False, "")
            and self._keeps(shown := repr(value.value))
        }

    def _keeps(self, shown: str) -> bool:
        """True if a value is short and contains no name that is replaced."""
        return len(shown) <= LONGEST_DEFAULT and not self.kinds.keys() & set(WORD.findall(shown))
