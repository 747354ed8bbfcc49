"""The names that nodes and modules of a syntax tree bind and use, and what they refer to."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from codeqa_rlm.rename import WORD

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def named_by(node: ast.AST) -> set[str]:
    """The words that a node by itself names."""
    if isinstance(node, ast.Name):
        return {node.id}
    if isinstance(node, ast.Attribute):
        return {node.attr}
    if isinstance(node, ast.alias):
        return {*node.name.split("."), node.asname or ""}
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return set(WORD.findall(node.value))
    return set()


def kinds_of(trees: Iterable[ast.Module]) -> dict[str, str]:
    """Name -> what it is, for all classes, functions and parameters, wherever they are defined."""
    kinds: dict[str, str] = {}
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.ClassDef):
            kinds[node.name] = "fault" if node.name.endswith(("Error", "Exception", "Warning")) else "type"
        elif isinstance(node, FUNCTIONS):
            kinds.setdefault(node.name, "function")
        elif isinstance(node, ast.arg):
            kinds.setdefault(node.arg, "parameter")
    return kinds


def defined(tree: ast.Module) -> Iterator[str]:
    """Every name as often as something is given it."""
    for node in ast.walk(tree):
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            yield node.attr
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname


def bound_by(statements: list[ast.stmt]) -> Iterator[str]:
    """The names that statements bind in their own scope, once for each time."""
    waiting: list[ast.AST] = list(statements)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            continue
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.alias):
            yield node.asname or node.name.partition(".")[0]
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name
            waiting += ast.iter_child_nodes(node)
        else:
            waiting += ast.iter_child_nodes(node)


def methods_of(node: ast.ClassDef) -> dict[str, Function]:
    """The methods of a class that are not decorated, bound once, and can be looked up from outside."""
    bound = Counter(bound_by(node.body))
    return {
        inner.name: inner
        for inner in node.body
        if isinstance(inner, FUNCTIONS)
        and not inner.decorator_list
        and bound[inner.name] == 1
        and not (inner.name.startswith("__") and not inner.name.endswith("__"))
    }


def scope_of(tree: ast.Module, module: str, is_package: bool) -> dict[str, str]:
    """Name at the top of a module -> the dotted name that it refers to, if a class or import binds it exactly once."""
    bound = Counter(bound_by(tree.body))
    package = module if is_package else module.rpartition(".")[0]
    scope = {name: "" for name in bound}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            scope[node.name] = f"{module}.{node.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                scope[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            parent = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                parent = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                scope[alias.asname or alias.name] = f"{parent}.{alias.name}"
    return {name: "" if bound[name] > 1 else meant for name, meant in scope.items()}


def resolve(expression: ast.expr, scope: Mapping[str, str]) -> str:
    """The dotted name that an expression means, a builtin's own name, or nothing."""
    if isinstance(expression, ast.Name):
        return scope.get(expression.id, expression.id)
    if isinstance(expression, ast.Attribute):
        owner = resolve(expression.value, scope)
        return f"{owner}.{expression.attr}" if owner else ""
    return ""
