"""Short sums in few words, for very small models."""

from __future__ import annotations

from math_python_rlm.problem import Family, Problem
from rlm_env.authoring.draw import Draw


def add(draw: Draw) -> Problem:
    a, b = draw.between(100, 999), draw.between(100, 999)
    return Problem(f"What is {a} + {b}?", lambda: a + b)


def subtract(draw: Draw) -> Problem:
    a, b = draw.between(100, 999), draw.between(100, 999)
    return Problem(f"What is {a} - {b}?", lambda: a - b)


def multiply(draw: Draw) -> Problem:
    a, b = draw.between(11, 99), draw.between(11, 99)
    return Problem(f"What is {a} * {b}?", lambda: a * b)


def add_all(draw: Draw) -> Problem:
    """The sum of an arithmetic progression."""
    first, step, n = draw.between(1, 9), draw.between(1, 9), draw.between(5, 9)
    terms = " + ".join(str(first + step * i) for i in range(n))
    return Problem(f"What is {terms}?", lambda: n * (2 * first + step * (n - 1)) // 2)


FAMILIES: dict[str, Family] = {"add": add, "subtract": subtract, "multiply": multiply, "add_all": add_all}
