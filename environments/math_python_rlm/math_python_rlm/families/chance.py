"""Probability, as exact fractions."""

from __future__ import annotations

from fractions import Fraction
from math import comb

from math_python_rlm.problem import Family, Problem
from rlm_env.authoring.draw import Draw

REDUCED = "Give it as a reduced fraction."


def dice_sum(draw: Draw) -> Problem:
    dice, sides = draw.between(5, 10), draw.choice([4, 6, 8, 10, 12, 20])
    mean = dice * (sides + 1) // 2
    total = mean + draw.between(-mean // 3, mean // 3)

    def solve() -> Fraction:
        ways = sum(
            (-1) ** i * comb(dice, i) * comb(total - sides * i - 1, dice - 1)
            for i in range(dice + 1)
            if total - sides * i >= dice
        )
        return Fraction(ways, sides**dice)

    return Problem(
        f"${dice}$ fair dice with the faces one to ${sides}$ are thrown. What is the probability that they show "
        f"${total}$ in total? {REDUCED}",
        solve,
    )


def draws(draw: Draw) -> Problem:
    red, blue = draw.between(10, 30), draw.between(10, 30)
    taken = draw.between(6, 12)
    least = draw.between(2, taken - 2)

    def solve() -> Fraction:
        ways = sum(comb(red, i) * comb(blue, taken - i) for i in range(least, taken + 1))
        return Fraction(ways, comb(red + blue, taken))

    return Problem(
        f"A box holds ${red}$ red and ${blue}$ blue balls. ${taken}$ are drawn at once. What is the probability that "
        f"at least ${least}$ of them are red? {REDUCED}",
        solve,
    )


def coupons(draw: Draw) -> Problem:
    kinds = draw.between(9, 45)
    have = draw.between(1, kinds - 6)
    return Problem(
        f"Each packet holds one of ${kinds}$ pictures, all equally likely. Somebody already has ${have}$ different "
        f"ones. How many further packets are needed on average until all pictures are there? {REDUCED}",
        lambda: sum((Fraction(kinds, left) for left in range(1, kinds - have + 1)), Fraction(0)),
    )


def ruin(draw: Draw) -> Problem:
    goal = draw.between(8, 14)
    start, parts = draw.between(2, goal - 2), draw.choice([5, 7, 9, 11, 13])
    win = draw.between(parts // 2 - 1, parts // 2 + 2)

    def solve() -> Fraction:
        ratio = Fraction(parts - win, win)
        return (1 - ratio**start) / (1 - ratio**goal)

    return Problem(
        f"A player with ${start}$ coins plays until there are ${goal}$ or none. Each round wins one coin with "
        f"probability $\\frac{{{win}}}{{{parts}}}$ and loses one otherwise. What is the probability of reaching "
        f"the goal? {REDUCED}",
        solve,
    )


FAMILIES: dict[str, Family] = {"dice_sum": dice_sum, "draws": draws, "coupons": coupons, "ruin": ruin}
