"""Expressions as Python and sympy print them, in LaTeX: `-2*pi`, `Fraction(3, 4)`, `{1, 2}`, `Interval.open(0, 1)`.

Nothing is evaluated: an expression is read as a syntax tree, and what is not known there is refused.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation

MAX_DIGITS = 60
"""Numbers with more digits keep their power of ten."""
GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau phi chi psi omega Gamma "
    "Delta Theta Lambda Sigma Phi Psi Omega"
)
CONSTANTS = {
    "pi": r"\pi",
    "E": "e",
    "I": "i",
    "oo": r"\infty",
    "inf": r"\infty",
    "zoo": r"\tilde{\infty}",
    "EmptySet": r"\emptyset",
    "Reals": r"\mathbb{R}",
    "Integers": r"\mathbb{Z}",
    "Naturals": r"\mathbb{N}",
    "Rationals": r"\mathbb{Q}",
    "Complexes": r"\mathbb{C}",
    "True": r"\text{True}",
    "False": r"\text{False}",
} | {name: f"\\{name}" for name in re.findall("[A-Za-z]+", GREEK)}
FUNCTIONS = {
    **{name: f"\\{name}" for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "ln")},
    **{f"a{name}": f"\\arc{name}" for name in ("sin", "cos", "tan", "cot", "sec", "csc")},
    **{f"arc{name}": f"\\arc{name}" for name in ("sin", "cos", "tan")},
}
SAME_VALUE = frozenset(
    re.findall(
        r"\w+",
        "Integer Float Decimal mpf mpc int float complex float16 float32 float64 int8 int16 int32 int64 uint8 uint16 "
        "uint32 uint64 complex64 complex128 bool_ str_ str list tuple sympify S N nsimplify simplify",
    )
)
"""Calls that leave their (first) argument what it is."""
SETS = frozenset(["set", "frozenset", "FiniteSet"])
MATRICES = frozenset(["Matrix", "ImmutableMatrix", "MutableDenseMatrix", "ImmutableDenseMatrix", "array"])
ENDS = {"Interval": "[]", "open": "()", "Lopen": "(]", "Ropen": "[)"}
RELATIONS = {
    ast.Eq: "=",
    ast.NotEq: r"\neq",
    ast.Lt: "<",
    ast.LtE: r"\le",
    ast.Gt: ">",
    ast.GtE: r"\ge",
}
NAMED_RELATIONS = {"Eq": "=", "Equality": "=", "Ne": r"\neq", "Lt": "<", "Le": r"\le", "Gt": ">", "Ge": r"\ge"}
FLIPPED = {">": "<", r"\ge": r"\le"}


WORD_AFTER_DIGIT = re.compile(r"[0-9](?:and|else|for|if|in|is|not|or)\b")


class _UnknownError(Exception):
    """A form that is not read."""


def python_to_latex(text: str) -> str | None:
    """The LaTeX of a Python expression; None if it is none, or has parts that are not known."""
    if "\\" in text or WORD_AFTER_DIGIT.search(text):  # Python warns of them as it reads
        return None
    for candidate in (text, _with_products(text)):
        try:
            tree = ast.parse(candidate.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        try:
            return _Writer(candidate.strip()).write(tree)
        except (_UnknownError, RecursionError):
            continue
    return None


def _with_products(text: str) -> str:
    """`2pi` as `2*pi`, `2(x+1)` as `2*(x+1)`, `x^2` as `x**2`."""
    text = re.sub(r"\^\{([^{}]*)\}", r"**(\1)", text).replace("^", "**")
    text = re.sub(r"(?<![\w.])(\d+(?:\.\d+)?)\s*(?=(?![eE][+-]?\d|j\b)[A-Za-z(])", r"\1*", text)
    return re.sub(r"\)\s*(?=[\w(])", ")*", text)


class _Writer(ast.NodeVisitor):
    """Writes each kind of node as LaTeX."""

    def __init__(self, source: str) -> None:
        self._source = source

    def write(self, node: ast.AST) -> str:
        method: Callable[[ast.AST], str] | None = getattr(self, f"visit_{type(node).__name__}", None)
        if method is None:
            raise _UnknownError
        return method(node)

    def _factor(self, node: ast.AST) -> str:
        """In brackets unless it is one thing."""
        text = self.write(node)
        one = isinstance(node, ast.Name | ast.Constant | ast.Call)
        return text if one or text.startswith(r"\frac{") else f"({text})"

    def _all(self, nodes: list[ast.expr]) -> str:
        return ", ".join(self.write(node) for node in nodes)

    def visit_Constant(self, node: ast.Constant) -> str:
        if isinstance(node.value, bool) or node.value is None:
            return rf"\text{{{node.value}}}"
        if isinstance(node.value, str):
            return decimal_latex(node.value) or python_to_latex(node.value) or node.value
        written = ast.get_source_segment(self._source, node) or ""
        if isinstance(node.value, complex):
            return f"{decimal_latex(written[:-1])}i"
        if found := decimal_latex(written.replace("_", "")):
            return found
        raise _UnknownError  # 0x1f and the like, which are no decimal numbers

    def visit_Name(self, node: ast.Name) -> str:
        if node.id in CONSTANTS:
            return CONSTANTS[node.id]
        if re.fullmatch(r"[A-Za-z]", node.id):
            return node.id
        if indexed := re.fullmatch(r"([A-Za-z])_?(\d{1,2})", node.id):
            return f"{indexed[1]}_{{{indexed[2]}}}"
        raise _UnknownError

    def visit_Attribute(self, node: ast.Attribute) -> str:
        # math.pi, sympy.oo, S.Reals, np.inf
        if isinstance(node.value, ast.Name) and node.attr in CONSTANTS:
            return CONSTANTS[node.attr]
        raise _UnknownError

    def visit_UnaryOp(self, node: ast.UnaryOp) -> str:
        sign = {ast.USub: "-", ast.UAdd: ""}.get(type(node.op))
        if sign is None:
            raise _UnknownError
        return sign + self._factor(node.operand)

    def visit_BinOp(self, node: ast.BinOp) -> str:
        left, right, kind = node.left, node.right, type(node.op)
        if kind is ast.Add:
            return f"{self.write(left)} + {self.write(right)}"
        if kind is ast.Sub:
            return f"{self.write(left)} - {self._factor(right)}"
        if kind is ast.Mult:
            return rf"{self._factor(left)} \cdot {self._factor(right)}"
        if kind is ast.Div:
            return rf"\frac{{{self.write(left)}}}{{{self.write(right)}}}"
        if kind is ast.FloorDiv:
            return rf"\lfloor \frac{{{self.write(left)}}}{{{self.write(right)}}} \rfloor"
        if kind is ast.Pow:
            base = self._factor(left)
            return f"{{{base if isinstance(left, ast.Name | ast.Constant) else f'({base})'}}}^{{{self.write(right)}}}"
        if kind is ast.BitAnd:
            return self._between(left, right)
        if kind is ast.BitOr:
            joint = r" \text{ or } " if isinstance(left, ast.Compare) else r" \cup "
            return f"{self.write(left)}{joint}{self.write(right)}"
        raise _UnknownError

    def visit_Compare(self, node: ast.Compare) -> str:
        text = self.write(node.left)
        for kind, side in zip(node.ops, node.comparators, strict=True):
            if type(kind) not in RELATIONS:
                raise _UnknownError
            text += f" {RELATIONS[type(kind)]} {self.write(side)}"
        return text

    def _between(self, left: ast.expr, right: ast.expr) -> str:
        """`(0 < x) & (x < 1)` as `0 < x < 1`, an infinite end left out."""
        bounds: dict[bool, tuple[str, str]] = {}
        middles = set()
        for node in (left, right):
            if not isinstance(node, ast.Compare) or len(node.ops) != 1:
                raise _UnknownError
            one, sign, other = self.write(node.left), RELATIONS.get(type(node.ops[0])), self.write(node.comparators[0])
            if sign in FLIPPED:
                one, sign, other = other, FLIPPED[sign], one
            if sign not in ("<", r"\le"):
                raise _UnknownError
            is_lower = bool(re.fullmatch(r"[A-Za-z]", other))
            bounds[is_lower] = (one, sign) if is_lower else (other, sign)
            middles.add(other if is_lower else one)
        if len(bounds) != 2 or len(middles) != 1:
            raise _UnknownError
        (low, from_low), (high, to_high), name = bounds[True], bounds[False], middles.pop()
        below = "" if low == r"-\infty" else f"{low} {from_low} "
        return f"{below}{name}" if high == r"\infty" else f"{below}{name} {to_high} {high}"

    def visit_Tuple(self, node: ast.Tuple) -> str:
        inside = self._all(node.elts)
        is_bare = not (ast.get_source_segment(self._source, node) or "").startswith("(")
        return inside if is_bare else f"({inside})"

    def visit_List(self, node: ast.List) -> str:
        if node.elts and all(isinstance(row, ast.List) for row in node.elts):
            return self._matrix(node)
        return f"[{self._all(node.elts)}]" if node.elts else r"\emptyset"

    def visit_Set(self, node: ast.Set) -> str:
        return rf"\{{{self._all(node.elts)}\}}"

    def visit_Dict(self, node: ast.Dict) -> str:
        if not node.keys or None in node.keys:
            raise _UnknownError
        pairs = zip(node.keys, node.values, strict=True)
        return ", ".join(f"{self.write(key)} = {self.write(value)}" for key, value in pairs if key is not None)

    def _matrix(self, node: ast.AST) -> str:
        if not isinstance(node, ast.List):
            raise _UnknownError
        rows = [row.elts if isinstance(row, ast.List) else [row] for row in node.elts]
        body = r" \\ ".join(" & ".join(map(self.write, row)) for row in rows)
        return rf"\begin{{pmatrix}}{body}\end{{pmatrix}}"

    def visit_Call(self, node: ast.Call) -> str:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        arguments = node.args
        if name in SETS:
            inner = arguments
            if len(arguments) == 1 and isinstance(arguments[0], ast.Set | ast.List):
                inner = arguments[0].elts
            return rf"\{{{self._all(inner)}\}}" if inner else r"\emptyset"
        if name in ENDS and arguments:
            return self._interval(name, node)
        if not arguments:
            raise _UnknownError
        first = arguments[0]
        if name == "complex" and len(arguments) == 2:
            return f"{self.write(first)} + ({self.write(arguments[1])})i"
        if name in SAME_VALUE:
            return self.write(first)
        if name in MATRICES:
            return self._matrix(first)
        if name in FUNCTIONS and len(arguments) == 1:
            return f"{FUNCTIONS[name]}({self.write(first)})"
        if name in NAMED_RELATIONS and len(arguments) == 2:
            return f"{self.write(first)} {NAMED_RELATIONS[name]} {self.write(arguments[1])}"
        if name in ("Union", "Or", "And", "Intersection"):
            joint = {"Union": r" \cup ", "Or": r" \text{ or } ", "Intersection": r" \cap "}.get(name)
            return self._between(*arguments) if joint is None else joint.join(map(self.write, arguments))
        return self._function(name, [self.write(argument) for argument in arguments])

    def _interval(self, name: str, node: ast.Call) -> str:
        if len(node.args) < 2:
            raise _UnknownError
        ends = [ENDS[name][0], ENDS[name][1]]
        for i, flag in enumerate(node.args[2:4]):
            if isinstance(flag, ast.Constant) and flag.value:
                ends[i] = "()"[i]
        return f"{ends[0]}{self._all(node.args[:2])}{ends[1]}"

    def _function(self, name: str, written: list[str]) -> str:
        first, second = written[0], written[1] if len(written) == 2 else ""
        if name in ("Fraction", "Rational", "mpq"):
            return rf"\frac{{{first}}}{{{second}}}" if second else first
        if name == "sqrt" and not second:
            return rf"\sqrt{{{first}}}"
        if name in ("cbrt", "root"):
            return rf"\sqrt[{second or 3}]{{{first}}}"
        if name == "exp" and not second:
            return f"e^{{{first}}}"
        if name == "log":
            return rf"\log_{{{second}}}({first})" if second else rf"\ln({first})"
        if name in ("log2", "log10") and not second:
            return rf"\log_{{{name[3:]}}}({first})"
        if name in ("Abs", "abs") and not second:
            return f"|{first}|"
        if name in ("floor", "ceiling", "ceil") and not second:
            kind = "floor" if name == "floor" else "ceil"
            return rf"\l{kind} {first} \r{kind}"
        if name == "factorial" and not second:
            return f"({first})!"
        if name in ("binomial", "comb") and second:
            return rf"\binom{{{first}}}{{{second}}}"
        if name in ("Pow", "pow") and second:
            return f"{{({first})}}^{{{second}}}"
        if name in ("Mul", "Add"):
            return (r" \cdot " if name == "Mul" else " + ").join(f"({text})" for text in written)
        raise _UnknownError


def decimal_latex(text: str) -> str | None:
    """A decimal number without its exponent: `1.5e6` is `1500000`, `5.` is `5`; None if the text is none."""
    if not re.fullmatch(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?", text.strip()):
        return None
    mantissa, _, exponent = text.strip().lower().partition("e")
    if not exponent:
        return mantissa.removesuffix(".").removeprefix("+")
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    if abs(value.adjusted()) > MAX_DIGITS:
        return rf"{mantissa.removesuffix('.')} \cdot 10^{{{int(exponent)}}}"
    plain = format(value, "f")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain
