"""Algebra and geometry: sums, determinants, recurrences, areas, lengths."""

from __future__ import annotations

from fractions import Fraction
from math import comb

from math_python_rlm.problem import Family, Problem, Surd
from rlm_env.authoring.draw import Draw


def power_sum(draw: Draw) -> Problem:
    n, k = draw.between(1000, 9999), draw.between(3, 7)

    def solve() -> int:
        """Faulhaber's formula; Bernoulli numbers by their recurrence, with B1 = +1/2."""
        bernoulli = [Fraction(1)]
        for m in range(1, k + 1):
            bernoulli.append(-sum(comb(m + 1, j) * bernoulli[j] for j in range(m)) / (m + 1))
        bernoulli[1] = Fraction(1, 2)
        return int(sum(comb(k + 1, j) * bernoulli[j] * n ** (k + 1 - j) for j in range(k + 1)) / (k + 1))

    return Problem(f"What is $\\sum_{{i}} i^{{{k}}}$, where $i$ runs through all integers from one to ${n}$?", solve)


def telescope(draw: Draw) -> Problem:
    n, gap = draw.between(100, 2000), draw.between(2, 5)

    def solve() -> Fraction:
        first = sum((Fraction(1, i) for i in range(1, gap + 1)), Fraction(0))
        last = sum((Fraction(1, i) for i in range(n + 1, n + gap + 1)), Fraction(0))
        return (first - last) / gap

    return Problem(
        f"What is the sum of the reciprocals of $i(i + {gap})$, where $i$ runs through all integers from one to ${n}$? "
        "Give it as a reduced fraction.",
        solve,
    )


def determinant(draw: Draw) -> Problem:
    size, middle, above, below = draw.between(7, 14), draw.between(3, 19), draw.between(2, 9), draw.between(2, 9)

    def solve() -> int:
        return sum(
            (-1) ** j * comb(size - j, j) * middle ** (size - 2 * j) * (above * below) ** j
            for j in range(size // 2 + 1)
        )

    return Problem(
        f"A square matrix with ${size}$ rows has ${middle}$ everywhere on its main diagonal, ${above}$ everywhere "
        f"directly above it, ${below}$ everywhere directly below it, and zeros elsewhere. What is its determinant?",
        solve,
    )


def recurrence(draw: Draw) -> Problem:
    first, second, p, q = draw.between(1, 50), draw.between(1, 50), draw.between(2, 30), draw.between(2, 30)
    n, modulus = draw.between(20_000, 90_000), draw.between(100_000, 999_999)

    def solve() -> int:
        """a_n by squaring the matrix [[p, q], [1, 0]]."""
        result, power, exponent = (1, 0, 0, 1), (p, q, 1, 0), n - 1
        while exponent:
            if exponent & 1:
                result = times(result, power, modulus)
            power, exponent = times(power, power, modulus), exponent >> 1
        return (result[0] * second + result[1] * first) % modulus

    return Problem(
        f"A sequence starts with ${first}$ and ${second}$; its terms are numbered from zero on. Every later term is "
        f"${p}$ times the term before it plus ${q}$ times the one before that. What is the remainder of term number "
        f"${n}$ divided by ${modulus}$?",
        solve,
    )


def times(a: tuple[int, ...], b: tuple[int, ...], modulus: int) -> tuple[int, ...]:
    """Product of two matrices [[a0, a1], [a2, a3]]."""
    return (
        (a[0] * b[0] + a[1] * b[2]) % modulus,
        (a[0] * b[1] + a[1] * b[3]) % modulus,
        (a[2] * b[0] + a[3] * b[2]) % modulus,
        (a[2] * b[1] + a[3] * b[3]) % modulus,
    )


def polygon(draw: Draw) -> Problem:
    """Two chains from the left to the right corner, one above and one below the line y = 60: never crossing."""
    xs = sorted(draw.sample(range(121), 2 + draw.between(4, 7)))
    left, *between, right = xs
    upper = draw.sample(between, draw.between(1, len(between) - 1))
    corners = [(left, 60)]
    corners += [(x, draw.between(5, 55)) for x in between if x not in upper]
    corners += [(right, 60)]
    corners += [(x, draw.between(65, 115)) for x in reversed(between) if x in upper]

    def solve() -> Fraction:
        """The shoelace formula."""
        turned = [*corners[1:], corners[0]]
        return Fraction(abs(sum(x * v - u * y for (x, y), (u, v) in zip(corners, turned, strict=True))), 2)

    said = ", ".join(f"$({x}, {y})$" for x, y in corners)
    return Problem(f"What is the area of the polygon with the corners {said}, in this order?", solve)


def distance(draw: Draw) -> Problem:
    one = [draw.between(0, 400) for _ in range(3)]
    other = [draw.between(0, 400) for _ in range(3)]

    def solve() -> Surd:
        """Square factors are taken out prime by prime."""
        rest, factor, radicand, p = sum((a - b) ** 2 for a, b in zip(one, other, strict=True)), 1, 1, 2
        while p * p <= rest:
            power = 0
            while rest % p == 0:
                rest, power = rest // p, power + 1
            factor, radicand, p = factor * p ** (power // 2), radicand * p ** (power % 2), p + 1
        return Surd(factor, radicand * rest)

    return Problem(
        f"How far apart are the points $({one[0]}, {one[1]}, {one[2]})$ and $({other[0]}, {other[1]}, {other[2]})$? "
        "Give the exact value, square factors taken out of the root.",
        solve,
    )


FAMILIES: dict[str, Family] = {
    "power_sum": power_sum,
    "telescope": telescope,
    "determinant": determinant,
    "recurrence": recurrence,
    "polygon": polygon,
    "distance": distance,
}
