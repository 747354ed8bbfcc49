"""What the code of a rollout does with the context, by reading it: nothing runs.

A small abstract interpreter. It follows which variables hold the whole context, pieces of it, what was found or
computed, and what sub-LLMs answered (`holdings.py`); over all cells of a rollout, through loops and the code's own
functions. It knows names and calls, no values: code that is made at run time (`exec`) and classes are not followed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rlm_env.evals.programs import holdings as has
from rlm_env.evals.programs.holdings import COMPUTED, CONTEXT, FOUND, MANY, MEASURED, REPLY, WHOLE, TurnFlow
from rlm_env.replies.source import tree_of

MAX_NODES = 20_000
"""Nodes of one turn's code that are looked at, functions and loops as often as they are entered."""
MAX_DEPTH = 100
"""Nesting of statements, expressions and the code's own functions."""
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class _Enough(Exception):
    """There is more code than is looked at."""


class DataFlow:
    """The variables of one rollout's REPL, as far as its cells were read."""

    def __init__(self) -> None:
        self._scopes: list[dict[str, int]] = [{"context": WHOLE}]
        self._functions: dict[str, Function | str] = dict.fromkeys(has.ASKS, "ask")
        """The code's own functions by name; `ask` for those that ask sub-LLMs."""
        self._patterns = {"re", "regex"}
        """Names of the module `re` and of what was imported from it."""
        self._turn = TurnFlow()
        self._reset()

    def _reset(self) -> None:
        self._control = self._over = self._loops = self._depth = 0
        self._active: list[Function] = []
        self._returned = 0
        del self._scopes[1:]

    def read(self, cells: Iterable[str]) -> TurnFlow:
        """Reads the cells of the next turn. Never raises."""
        self._turn, self._nodes = TurnFlow(), 0
        for code in cells:
            self._turn.cells += 1
            tree = tree_of(code)
            if tree is None:
                self._turn.broken += 1
                continue
            try:
                if tree.body and isinstance(last := tree.body[-1], ast.Expr):
                    self._block(tree.body[:-1])
                    self._print(self._value(last.value))  # the REPL shows it
                else:
                    self._block(tree.body)
            except (_Enough, RecursionError):
                pass
            self._reset()
        return self._turn

    # statements

    def _enter(self) -> None:
        self._nodes += 1
        self._depth += 1
        if self._nodes > MAX_NODES or self._depth > MAX_DEPTH:
            raise _Enough

    def _block(self, statements: Iterable[ast.stmt]) -> None:
        before = self._control
        for statement in statements:
            self._enter()
            self._statement(statement)
            self._depth -= 1
            if isinstance(statement, ast.If) and has.leaves(statement):
                self._control |= has.depends_on(self._value(statement.test))
        self._control = before

    def _statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Expr():
                self._value(node.value)
            case ast.Assign():
                self._assign_all(node.targets, node.value)
            case ast.AnnAssign() if node.value is not None:
                self._assign_all([node.target], node.value)
            case ast.AugAssign():
                self._grow(node.target, self._owing(self._value(node.value)), several=False)
            case ast.For() | ast.AsyncFor():
                over = self._value(node.iter)
                self._iterate(node.target, node.iter, over)
                before, self._over = self._over, over
                self._loop(has.depends_on(over) & ~FOUND, [node.body, node.orelse], several=not has.is_single(over))
                self._over = before
            case ast.While():
                self._loop(has.depends_on(self._value(node.test)) & ~FOUND, [node.body, node.orelse])
            case ast.If():
                self._guarded(has.depends_on(self._value(node.test)), [node.body, node.orelse])
            case ast.Match():
                test = has.depends_on(has.computed_from(self._value(node.subject)))
                self._guarded(test, [case.body for case in node.cases])
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    value = self._value(item.context_expr)
                    if item.optional_vars is not None:
                        self._assign(item.optional_vars, value)
                self._block(node.body)
            case ast.Try() | ast.TryStar():
                for part in (node.body, *(one.body for one in node.handlers), node.orelse, node.finalbody):
                    self._block(part)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self._functions[node.name] = node
            case ast.Return():
                self._returned |= self._owing(self._value(node.value))
            case ast.Import():
                self._patterns |= {one.asname or one.name for one in node.names if one.name in ("re", "regex")}
            case ast.ImportFrom(module="re" | "regex"):
                self._patterns |= {one.asname or one.name for one in node.names}

    def _guarded(self, control: int, blocks: Iterable[list[ast.stmt]]) -> None:
        """Blocks that depend on a condition."""
        before, self._control = self._control, self._control | control
        for block in blocks:
            self._block(block)
        self._control = before

    def _loop(self, control: int, blocks: list[list[ast.stmt]], *, several: bool = True) -> None:
        """A loop, twice: what one round leaves reaches the next. `several`: more than one round."""
        with self._in_loop(several):
            self._guarded(control, blocks)
            self._guarded(control, blocks)

    @contextmanager
    def _in_loop(self, several: bool = True) -> Iterator[None]:
        self._loops += several
        yield
        self._loops -= several

    def _owing(self, value: int) -> int:
        """A value with what it owes to the conditions around it."""
        return value | self._control & (REPLY if value & CONTEXT else ~FOUND)

    def _kept(self, value: int) -> int:
        """A value that is kept under the conditions around it: a piece was chosen by them."""
        return value | FOUND if value & CONTEXT and self._control & FOUND else value

    # variables

    def _look_up(self, name: str) -> int:
        for scope in reversed(self._scopes):
            if name in scope:
                self._turn.touched |= name == "context"
                return scope[name]
        return 0

    def _iterate(self, target: ast.expr, source: ast.expr, over: int) -> None:
        """Gives the targets of a loop one element each."""
        if isinstance(source, ast.Call) and isinstance(target, ast.Tuple) and len(target.elts) > 1:
            name, arguments = has.called(source.func)[0], source.args
            if name == "enumerate" and len(target.elts) == 2 and arguments:
                self._assign(target.elts[0], over & MEASURED)
                return self._iterate(target.elts[1], arguments[0], self._value(arguments[0]))
            if name == "zip" and len(arguments) == len(target.elts):
                for one, argument in zip(target.elts, arguments, strict=True):
                    self._iterate(one, argument, self._value(argument))
                return None
        self._assign(target, has.element_of(over))
        return None

    def _assign_all(self, targets: list[ast.expr], source: ast.expr) -> None:
        first = targets[0]
        if isinstance(source, ast.Tuple) and isinstance(first, ast.Tuple) and len(first.elts) == len(source.elts):
            for one, part in zip(first.elts, source.elts, strict=True):
                self._assign_all([one], part)
            return
        value = self._owing(self._value(source))
        for target in targets:
            if isinstance(target, ast.Name):
                self._name_function(target.id, source)
                if target.id == "answer":
                    self._turn.answers.append(value)
            self._assign(target, value)

    def _name_function(self, name: str, source: ast.expr) -> None:
        """A lambda, or another name for a function, becomes a function under `name`; another value hides one."""
        if isinstance(source, ast.Lambda):
            self._functions[name] = source
        elif isinstance(source, ast.Name) and source.id in self._functions:
            self._functions[name] = self._functions[source.id]
        else:
            self._functions.pop(name, None)

    def _assign(self, target: ast.expr, value: int) -> None:
        match target:
            case ast.Name():
                self._scopes[-1][target.id] = self._kept(value)
            case ast.Tuple() | ast.List():
                for one in target.elts:
                    self._assign(one, has.element_of(value))
            case ast.Starred():
                self._assign(target.value, value | MANY)
            case ast.Subscript(value=ast.Name(id="answer"), slice=ast.Constant(value="ready")):
                pass
            case ast.Subscript() | ast.Attribute():
                self._grow(target, value)

    def _grow(self, target: ast.expr, value: int, *, several: bool = True) -> None:
        """Puts a further value into a container. In a loop it then holds `several`, unless it is a text that grows."""
        while isinstance(target, ast.Subscript | ast.Attribute):
            target = target.value
        if not isinstance(target, ast.Name):
            return
        if target.id == "answer":
            self._turn.answers.append(value)
            return
        scope = next((scope for scope in reversed(self._scopes) if target.id in scope), self._scopes[-1])
        before, value = scope.get(target.id, 0), self._kept(value)
        if several:
            value = has.held(value) | (MANY if self._loops or before & value & CONTEXT else 0)
            if value & CONTEXT and not value & FOUND:
                value |= has.parts_of(self._over) & has.ALL
        scope[target.id] = before | value

    # expressions

    def _value(self, node: ast.expr | None) -> int:
        """What a value holds."""
        if node is None:
            return 0
        self._enter()
        flags = self._flags(node)
        self._depth -= 1
        return flags

    def _all(self, nodes: Iterable[ast.expr]) -> int:
        return has.union_of(map(self._value, nodes))

    def _flags(self, node: ast.expr) -> int:
        match node:
            case ast.Constant() | ast.Lambda():
                return 0
            case ast.Name():
                return self._look_up(node.id)
            case ast.Call():
                return self._call(node)
            case ast.Subscript():
                return self._subscript(node)
            case ast.FormattedValue():
                return has.as_one_text(self._value(node.value))
            case ast.List() | ast.Tuple() | ast.Set():
                return self._display(node.elts)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp():
                return self._comprehension(node.generators, [node.elt])
            case ast.DictComp():
                return self._comprehension(node.generators, [node.key, node.value])
            case ast.NamedExpr():
                self._assign_all([node.target], node.value)
                return self._look_up(node.target.id)
            case ast.Compare():
                value = self._all([node.left, *node.comparators])
                blank = has.is_blank(node.left) or any(map(has.is_blank, node.comparators))
                return has.measure_of(value) if blank else has.computed_from(value)
            case ast.IfExp():
                return has.depends_on(self._value(node.test)) & ~FOUND | self._all([node.body, node.orelse])
            case ast.BinOp(op=ast.Mult() | ast.Div() | ast.FloorDiv() | ast.Sub() | ast.Pow()):
                value = self._all([node.left, node.right])
                repeated = isinstance(node.op, ast.Mult) and value & CONTEXT
                return value | MANY if repeated else has.computed_from(value)
            case _:
                return self._all(child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr))

    def _display(self, elements: list[ast.expr]) -> int:
        """A list or tuple as it is written: several pieces in it are many."""
        values = [has.held(self._value(one)) for one in elements]
        return has.union_of(values) | (MANY if sum(bool(value & CONTEXT) for value in values) > 1 else 0)

    def _subscript(self, node: ast.Subscript) -> int:
        value, at = self._value(node.value), self._value(node.slice)
        if isinstance(node.slice, ast.Slice):
            if node.slice.lower is None and node.slice.upper is None:
                return value
            value = has.part_of(value)
        else:
            value = has.element_of(value)
        return value | FOUND if value & CONTEXT and at & (FOUND | COMPUTED) else value

    def _comprehension(self, generators: list[ast.comprehension], elements: list[ast.expr]) -> int:
        """What a comprehension makes: all parts of what it goes over, or those that its conditions choose."""
        self._scopes.append({})
        control, over, first, single = self._control, 0, 0, True
        for generator in generators:
            flags = self._value(generator.iter)
            first, over, single = first or flags, over | flags, single and has.is_single(flags)
            self._iterate(generator.target, generator.iter, flags)
            for test in generator.ifs:
                self._control |= has.depends_on(self._value(test))
        with self._in_loop(not single):
            value = self._kept(self._all(elements))
        if not value & (CONTEXT | MEASURED):
            value |= (self._control | has.depends_on(over)) & ~FOUND
        self._control = control
        self._scopes.pop()
        if value & CONTEXT and not value & FOUND:
            value |= has.parts_of(first) & has.ALL
        return has.held(value) & ~MANY if single else has.held(value) | MANY

    # calls

    def _call(self, node: ast.Call) -> int:
        name, owner = has.called(node.func)
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        values = [self._value(one) for one in given]
        union = has.union_of(values)
        if owner is None:
            if (own := self._functions.get(name)) is not None:
                return self._ask(union) if isinstance(own, str) else self._enter_function(own, node, values)
            if name in has.HANDS_IN:
                named = node.args[0] if name == "FINAL_VAR" and node.args else None
                value = self._look_up(str(named.value)) if isinstance(named, ast.Constant) else union
                self._turn.answers.append(self._owing(value))
                return 0
            if name in has.PRINTS:
                self._print(union)
                return 0
        return self._library(name, owner, given, union)

    def _library(self, name: str, owner: ast.expr | None, given: list[ast.expr], union: int) -> int:
        """The result of a function or method that is not the code's own."""
        pattern = name in has.PATTERNS or (
            name in self._patterns if owner is None else isinstance(owner, ast.Name) and owner.id in self._patterns
        )
        self._turn.regex |= pattern
        if owner is not None and name in has.GROWS:
            self._grow(owner, self._owing(union))
            return 0
        mapped = self._passed(given, union)
        value = self._value(owner) | union
        if name in has.PLACES and given and has.is_blank(given[0]):
            return has.measure_of(value)  # the end of a line, where a piece is cut
        if mapped is not None and name not in ("filter", "sorted", "max", "min"):
            return mapped | MANY
        return has.library_result(name, value)

    def _passed(self, given: list[ast.expr], over: int) -> int | None:
        """The value that functions passed to a call (such as `key` or `map`'s first argument) make of one element of
        what it is given; None where none is passed."""
        found, element = None, has.element_of(over)
        for one in given:
            own = one if isinstance(one, ast.Lambda) else None
            if isinstance(one, ast.Name):
                own = self._functions.get(one.id)
            if own is not None:
                with self._in_loop(not has.is_single(over)):
                    made = self._ask(element) if isinstance(own, str) else self._enter_function(own, None, [element])
                found = (found or 0) | made
        return found

    def _ask(self, prompts: int) -> int:
        """Sub-LLMs are asked."""
        self._turn.asked.append(prompts | (MANY if self._loops else 0))
        return REPLY | MANY

    def _enter_function(self, own: Function, node: ast.Call | None, values: list[int]) -> int:
        """What one of the code's own functions returns. Without the `node` that calls it, all arguments are alike."""
        if own in self._active:
            return 0
        arguments = own.args
        names = [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        if node is None:
            bound = dict.fromkeys(names, values[0])
        else:
            count = len(node.args)
            bound = dict.fromkeys(names, 0) | dict(zip(names, values[:count], strict=False))
            bound |= {key.arg: one for key, one in zip(node.keywords, values[count:], strict=True) if key.arg}
        returned, self._returned = self._returned, 0
        self._scopes.append(bound)
        self._active.append(own)
        self._enter()
        if isinstance(own, ast.Lambda):
            self._returned = self._value(own.body)
        else:
            self._block(own.body)
        self._depth -= 1
        self._active.pop()
        self._scopes.pop()
        value, self._returned = self._returned, returned
        return value

    def _print(self, value: int) -> None:
        if value:
            self._turn.printed.append(self._owing(self._kept(value)))
