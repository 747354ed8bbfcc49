"""Counting: paths, arrangements, colorings, sums, tilings, distributions."""

from __future__ import annotations

from math import comb

from math_python_rlm.problem import Family, Problem
from rlm_env.authoring.draw import Draw


def paths_avoiding(draw: Draw) -> Problem:
    right, up = draw.between(12, 30), draw.between(12, 30)
    x, y = draw.between(3, right - 3), draw.between(3, up - 3)
    return Problem(
        f"A path goes from the origin to $({right}, {up})$ by steps of length one, each to the right or upwards. How "
        f"many such paths do not pass through $({x}, {y})$?",
        lambda: comb(right + up, up) - comb(x + y, y) * comb(right + up - x - y, up - y),
    )


def apart(draw: Draw) -> Problem:
    red, blue, green, white = draw.between(3, 8), draw.between(3, 9), draw.between(3, 9), draw.between(2, 6)
    others = blue + green + white
    return Problem(
        f"${red}$ red, ${blue}$ blue, ${green}$ green and ${white}$ white beads, alike but for their colors, are put "
        "in a row. In how many ways is that possible without two red beads side by side?",
        lambda: comb(others, blue) * comb(others - blue, green) * comb(others + 1, red),
    )


def round_table(draw: Draw) -> Problem:
    seats, colors = draw.between(10, 60), draw.between(4, 20)
    return Problem(
        f"${seats}$ numbered chairs stand around a table. In how many ways can each be painted in one of ${colors}$ "
        "colors so that neighbors always differ? (Paintings that only differ by a turn of the table count apart.)",
        lambda: (colors - 1) ** seats + (-1) ** seats * (colors - 1),
    )


def bounded_sums(draw: Draw) -> Problem:
    parts, most = draw.between(5, 10), draw.between(9, 25)
    total = draw.between(parts * most // 3, parts * most // 2)

    def solve() -> int:
        return sum(
            (-1) ** i * comb(parts, i) * comb(total - i * (most + 1) + parts - 1, parts - 1)
            for i in range(parts + 1)
            if total >= i * (most + 1)
        )

    return Problem(
        f"In how many ways can ${parts}$ children share ${total}$ equal marbles if nobody may have more than ${most}$ "
        "and some may have none?",
        solve,
    )


def tilings(draw: Draw) -> Problem:
    length, short = draw.between(30, 70), draw.between(1, 3)
    long, short_colors, long_colors = short + draw.between(1, 3), draw.between(1, 4), draw.between(2, 5)

    def solve() -> int:
        return sum(
            comb(i + (length - long * i) // short, i) * long_colors**i * short_colors ** ((length - long * i) // short)
            for i in range(length // long + 1)
            if (length - long * i) % short == 0
        )

    return Problem(
        f"A strip of length ${length}$ is covered by tiles of length ${short}$, of which there are ${short_colors}$ "
        f"colors, and of length ${long}$, of which there are ${long_colors}$ colors. In how many ways is that "
        "possible, if the strip is not turned?",
        solve,
    )


def empty_handed(draw: Draw) -> Problem:
    gifts, children, without = draw.between(11, 30), draw.between(6, 12), draw.between(1, 3)

    def solve() -> int:
        lucky = children - without
        return comb(children, lucky) * sum((-1) ** i * comb(lucky, i) * (lucky - i) ** gifts for i in range(lucky + 1))

    return Problem(
        f"In how many ways can ${gifts}$ different gifts be given to ${children}$ children so that exactly "
        f"${without}$ of them get none?",
        solve,
    )


FAMILIES: dict[str, Family] = {
    "paths_avoiding": paths_avoiding,
    "apart": apart,
    "round_table": round_table,
    "bounded_sums": bounded_sums,
    "tilings": tilings,
    "empty_handed": empty_handed,
}
