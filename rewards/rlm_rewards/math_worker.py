"""The process in which math-verify runs. `math_python.py` starts it by path; it is never imported.

Reads JSON lines `{"pairs": [[gold, response], ...], "sides": [[sign, side], ...], "exact": bool}` and answers each with
`1` if one of the pairs is equal and the sides of a chain of equations agree, else `0`. sympy can take forever, or all
memory, over an answer of twenty characters; here only this process pays: it is limited to `memory_bytes`, and a request
that takes more than `cpu_seconds` of processor time ends it, even inside a C function, because the signal keeps its
default action. The limit is processor time, not wall time, so that a busy machine changes no score.
"""

from __future__ import annotations

import json
import logging
import re
import resource
import signal
import sys
from typing import Any

POINTS = (3, -7, 13, -29, 41, -53, 71, 97)
"""Tenths: values of the variables at which expressions are compared."""
INEQUALITY = re.compile(r"[<>]|\\(?:le|ge)")
DIGITS = 50
"""Two numbers that agree to so many digits are equal."""
PLAIN_NUMBER = re.compile(r"\s*[-+]?\d+(\.\d+)?\s*")


def values(text: str) -> list[Any]:
    """What math-verify reads in a text: expressions, then the text itself."""
    from math_verify import parse

    # 0: none of the library's own time limits, which need SIGALRM and cannot interrupt C code.
    return parse(f"\\boxed{{{text}}}", parsing_timeout=0)


def is_equal(gold: str, response: str) -> bool:
    """The verdict of math-verify."""
    from math_verify import verify

    return bool(verify(values(gold), values(response), timeout_seconds=0))


def exact_number(text: str) -> Any:
    """The number that a text gives, `i` being imaginary; None if it gives none."""
    import sympy

    found = values(text)[:1]
    if not found or not isinstance(found[0], sympy.Expr):
        return None
    number = found[0].subs({symbol: sympy.I for symbol in found[0].free_symbols if str(symbol) == "i"}).doit()
    return None if number.free_symbols or not number.is_number else number


def is_same_number(gold: str, response: str) -> bool:
    """True if both are numbers that agree to `DIGITS` digits: `e^{i\\pi}` and `-1`."""
    import sympy

    numbers = [exact_number(gold), exact_number(response)]
    if None in numbers or any(number.has(sympy.Float) for number in numbers):
        return False
    one, other = (number.evalf(DIGITS + 10, maxn=1000) for number in numbers)
    if not (one.is_finite and other.is_finite):
        return bool(one == other)
    return bool(abs(one - other) <= sympy.Float(10) ** -DIGITS * (1 + abs(one)))


def is_same_expression(gold: str, response: str) -> bool:
    """True if both have the same variables and the same value wherever both are real: `1/sqrt(n)` and `sqrt(1/n)`."""
    import sympy

    found = [values(text)[:1] for text in (gold, response)]
    if not all(one and isinstance(one[0], sympy.Expr) and one[0].free_symbols for one in found):
        return False
    one, other = (expression[0] for expression in found)
    if {str(symbol) for symbol in one.free_symbols} != {str(symbol) for symbol in other.free_symbols}:
        return False
    compared = 0
    for i, point in enumerate(POINTS):
        both = []
        for expression in (one, other):
            names = sorted(expression.free_symbols, key=str)
            at = {symbol: sympy.Rational(point + 7 * i * place, 10) for place, symbol in enumerate(names)}
            both.append(expression.subs(at).evalf(DIGITS))
        if not all(number.is_real and number.is_finite for number in both):
            continue
        if abs(both[0] - both[1]) > sympy.Float(10) ** (10 - DIGITS) * (1 + abs(both[0])):
            return False
        compared += 1
    return compared >= 3


def sides_agree(sides: list[list[str]]) -> bool:
    """True if all numbers in a chain of equations are equal, decimals being rounded: `1/3 = 0.333`, but not `2 = 3`."""
    first = None
    for sign, side in sides:
        number = exact_number(side)
        if number is None:
            continue
        if first is None:
            first = number
            continue
        error = abs((first - number).evalf(30))
        decimals = re.search(r"\.(\d+)\s*$", side) if PLAIN_NUMBER.fullmatch(side) else None
        if decimals is not None:
            allowed = 10.0 ** -len(decimals[1])
        else:
            allowed = 0.5 if sign == "~" and PLAIN_NUMBER.fullmatch(side) else 1e-25
        if not (error.is_finite and error < allowed):
            return False
    return True


def answer(request: dict[str, Any]) -> bool:
    """The answer to one request."""
    if not sides_agree(request["sides"]):
        return False
    if not request["exact"]:
        return any(is_equal(*pair) for pair in request["pairs"])
    return any(is_equal(*pair) or is_same_value(*pair) for pair in request["pairs"])


def is_same_value(gold: str, response: str) -> bool:
    """What math-verify misses: numbers and expressions in other forms, an inequality for an interval."""
    if gold.split() == response.split():
        return True
    if INEQUALITY.search(gold + response):
        return is_equal(response, gold)
    return is_same_number(gold, response) or is_same_expression(gold, response)


def main(cpu_seconds: float, memory_bytes: int) -> None:
    """Answers requests until the input ends."""
    import math_verify  # noqa: F401 - it takes seconds, which count for no request

    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("ready", flush=True)  # noqa: T201 - the answer channel
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        try:
            found = answer(json.loads(line))
        except Exception:  # sympy raises anything; the original scores 0 then
            found = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(int(found), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
