"""Number theory: remainders, divisors, coprime numbers, congruences."""

from __future__ import annotations

from itertools import combinations
from math import lcm, prod

from math_python_rlm.problem import Family, Problem
from rlm_env.authoring.draw import Draw

PRIMES = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97]


def power_remainder(draw: Draw) -> Problem:
    base, exponent, modulus = draw.between(1000, 9999), draw.between(10**11, 10**12), draw.between(20_000, 99_999)
    return Problem(
        f"What is the remainder of ${base}^{{{exponent}}}$ divided by ${modulus}$?",
        lambda: pow(base, exponent, modulus),
    )


def sum_of_multiples(draw: Draw) -> Problem:
    limit = draw.between(40_000, 200_000)
    a, b, c = draw.sample(range(6, 40), 3)

    def below(step: int) -> int:
        n = (limit - 1) // step
        return step * n * (n + 1) // 2

    def solve() -> int:
        either = below(a) + below(b) - below(lcm(a, b))
        return either - (below(lcm(a, c)) + below(lcm(b, c)) - below(lcm(a, b, c)))

    return Problem(
        f"What is the sum of all positive integers below ${limit}$ that are divisible by ${a}$ or by ${b}$ (or both), "
        f"but not by ${c}$?",
        solve,
    )


def trailing_zeros(draw: Draw) -> Problem:
    n = draw.between(20_000, 60_000)
    primes = sorted(draw.sample(PRIMES[:5], 2))
    powers = {p: draw.between(1, 2) for p in primes}
    base = prod(p**e for p, e in powers.items())

    def exponent(p: int) -> int:
        """Legendre: how often p divides n!."""
        total, power = 0, p
        while power <= n:
            total += n // power
            power *= p
        return total

    return Problem(
        f"With how many zeros does ${n}!$ end when it is written in base ${base}$?",
        lambda: min(exponent(p) // e for p, e in powers.items()),
    )


def divisor_sum(draw: Draw) -> Problem:
    powers = {p: draw.between(1, 3) for p in draw.sample(PRIMES[:14], 4)}
    n = prod(p**e for p, e in powers.items())
    while n > 10**9:
        p = max(powers)
        n //= p
        powers[p] -= 1
        powers = {p: e for p, e in powers.items() if e}
    return Problem(
        f"What is the sum of all positive divisors of ${n}$, including the number itself?",
        lambda: prod((p ** (e + 1) - 1) // (p - 1) for p, e in powers.items()),
    )


def coprime_count(draw: Draw) -> Problem:
    limit, primes = draw.between(40_000, 150_000), draw.sample(PRIMES[:12], draw.between(3, 4))
    number = prod(primes) * draw.choice(primes)

    def solve() -> int:
        return sum(
            (-1) ** size * (limit // prod(chosen))
            for size in range(len(primes) + 1)
            for chosen in combinations(primes, size)
        )

    return Problem(f"How many of the integers from one to ${limit}$ have no common factor with ${number}$?", solve)


def remainders(draw: Draw) -> Problem:
    moduli = draw.sample([49, 64, 81, 25, 11, 13, 17, 19, 23, 29, 31], 4)
    wanted = [draw.below(m) for m in moduli]

    def solve() -> int:
        whole = prod(moduli)
        x = sum(r * (whole // m) * pow(whole // m, -1, m) for r, m in zip(wanted, moduli, strict=True))
        return x % whole or whole

    said = ", ".join(f"${r}$ when divided by ${m}$" for r, m in zip(wanted, moduli, strict=True))
    return Problem(f"What is the smallest positive integer that leaves the remainders {said}?", solve)


def square_roots(draw: Draw) -> Problem:
    p, q = draw.sample(PRIMES[8:], 2)
    modulus = p * q
    root = draw.between(2, modulus - 2)
    while root % p == 0 or root % q == 0:
        root += 1
    square = root * root % modulus

    def solve() -> frozenset[int]:
        """A root modulo each prime, both signs, joined by the Chinese remainder theorem."""
        a, b = root % p, root % q
        return frozenset(
            (x * q * pow(q, -1, p) + y * p * pow(p, -1, q)) % modulus for x in (a, p - a) for y in (b, q - b)
        )

    return Problem(
        f"Find all non-negative integers $x$ below ${modulus}$ with $x \\cdot x \\equiv {square} \\pmod{{{modulus}}}$. "
        "Give them as a set, in braces.",
        solve,
    )


FAMILIES: dict[str, Family] = {
    "power_remainder": power_remainder,
    "sum_of_multiples": sum_of_multiples,
    "trailing_zeros": trailing_zeros,
    "divisor_sum": divisor_sum,
    "coprime_count": coprime_count,
    "remainders": remainders,
    "square_roots": square_roots,
}
