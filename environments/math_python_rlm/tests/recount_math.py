"""A second program that solves the problems of math-python-rlm by brute force; it shares no code with the generator.

Reads JSON lines {"family", "question"} from standard input and writes one JSON string a line: the answer in LaTeX. It
takes the parameters out of the question's words, in order, and counts, walks, sieves or eliminates; no closed forms.
"""

import json
import re
import sys
from fractions import Fraction
from math import gcd


def power_remainder(base, exponent, modulus):
    """Walks the powers until one comes again, then reads the answer off the cycle."""
    seen, powers, value = {}, [], 1
    while value not in seen:
        seen[value] = len(powers)
        powers.append(value)
        value = value * base % modulus
    start = seen[value]
    return powers[exponent if exponent < start else start + (exponent - start) % (len(powers) - start)]


def sum_of_multiples(limit, a, b, c):
    return sum(i for i in range(1, limit) if (i % a == 0 or i % b == 0) and i % c)


def trailing_zeros(n, base):
    """The factorial is built from left to right; only the base's prime powers are kept."""
    primes = [p for p in range(2, base + 1) if base % p == 0 and all(p % d for d in range(2, p))]
    have = dict.fromkeys(primes, 0)
    for i in range(1, n + 1):
        for p in primes:
            k = i
            while k % p == 0:
                k //= p
                have[p] += 1
    zeros = 0
    while all(have[p] >= (zeros + 1) * power(base, p) for p in primes):
        zeros += 1
    return zeros


def power(number, p):
    count = 0
    while number % p == 0:
        number, count = number // p, count + 1
    return count


def divisor_sum(n):
    total, d = 0, 1
    while d * d <= n:
        if n % d == 0:
            total += d if d * d == n else d + n // d
        d += 1
    return total


def coprime_count(limit, number):
    return sum(gcd(i, number) == 1 for i in range(1, limit + 1))


def remainders(*pairs):
    """Sieving: steps by the product of the moduli that already fit."""
    x, step = 0, 1
    for r, m in zip(pairs[::2], pairs[1::2], strict=True):
        while x % m != r:
            x += step
        step *= m
    return x or step


def square_roots(modulus, square, _):
    return {x for x in range(modulus) if x * x % modulus == square}


def paths_avoiding(right, up, x, y):
    ways = {(0, 0): 1}
    for i in range(right + 1):
        for j in range(up + 1):
            if (i, j) == (x, y):
                ways[i, j] = 0
            elif (i, j) != (0, 0):
                ways[i, j] = ways.get((i - 1, j), 0) + ways.get((i, j - 1), 0)
    return ways[right, up]


def apart(*beads):
    """Bead by bead; the state is what is left of each color, and whether the last one was red."""
    ways = {(beads, False): 1}
    for _ in range(sum(beads)):
        after = {}
        for (left, red), count in ways.items():
            for color in range(4):
                if left[color] and not (red and color == 0):
                    rest = (*left[:color], left[color] - 1, *left[color + 1 :])
                    state = (rest, color == 0)
                    after[state] = after.get(state, 0) + count
        ways = after
    return sum(ways.values())


def round_table(seats, colors):
    """Chair by chair; the color of the first is held fixed."""
    ways = [1] + [0] * (colors - 1)
    for _ in range(seats - 1):
        total = sum(ways)
        ways = [total - w for w in ways]
    return colors * sum(ways[1:])


def bounded_sums(parts, total, most):
    ways = [1] + [0] * total
    for _ in range(parts):
        ways = [sum(ways[t - i] for i in range(min(most, t) + 1)) for t in range(total + 1)]
    return ways[total]


def tilings(length, short, short_colors, long, long_colors):
    ways = [1]
    for n in range(1, length + 1):
        ways.append(
            (short_colors * ways[n - short] if n >= short else 0) + (long_colors * ways[n - long] if n >= long else 0)
        )
    return ways[length]


def empty_handed(gifts, children, without):
    """Gift by gift; the state is how many children have one."""
    ways = {0: 1}
    for _ in range(gifts):
        after = {}
        for have, count in ways.items():
            after[have] = after.get(have, 0) + count * have
            after[have + 1] = after.get(have + 1, 0) + count * (children - have)
        ways = after
    return ways[children - without]


def dice_sum(dice, sides, total):
    chance = {0: Fraction(1)}
    for _ in range(dice):
        after = {}
        for shown, p in chance.items():
            for face in range(1, sides + 1):
                after[shown + face] = after.get(shown + face, 0) + p / sides
        chance = after
    return chance[total]


def draws(red, blue, taken, least):
    """Ball by ball, one after the other."""
    chance = {0: Fraction(1)}
    for drawn in range(taken):
        after = {}
        for reds, p in chance.items():
            left = red + blue - drawn
            after[reds + 1] = after.get(reds + 1, 0) + p * Fraction(red - reds, left)
            after[reds] = after.get(reds, 0) + p * Fraction(blue - (drawn - reds), left)
        chance = after
    return sum(p for reds, p in chance.items() if reds >= least)


def coupons(kinds, have):
    """Expected waits from the last state backwards: E = 1 + P(known) E + P(new) E_next."""
    wait = Fraction(0)
    for known in range(kinds - 1, have - 1, -1):
        new = Fraction(kinds - known, kinds)
        wait = (1 + new * wait) / new
    return wait


def ruin(start, goal, win, parts):
    """Solves p(i) = w p(i+1) + (1 - w) p(i-1) by elimination."""
    w = Fraction(win, parts)
    rows = []
    for i in range(1, goal):
        row = [Fraction(0)] * goal
        row[i - 1] = Fraction(1)
        if i > 1:
            row[i - 2] = w - 1
        if i < goal - 1:
            row[i] = -w
        row[-1] = w if i == goal - 1 else Fraction(0)
        rows.append(row)
    return eliminate(rows)[start - 1]


def eliminate(rows):
    """Gauss and Jordan on rows [coefficients..., right side]."""
    for i in range(len(rows)):
        pivot = next(k for k in range(i, len(rows)) if rows[k][i])
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [x / rows[i][i] for x in rows[i]]
        for k in range(len(rows)):
            if k != i and rows[k][i]:
                rows[k] = [x - rows[k][i] * y for x, y in zip(rows[k], rows[i], strict=True)]
    return [row[-1] for row in rows]


def power_sum(k, n):
    return sum(i**k for i in range(1, n + 1))


def telescope(gap, n):
    return sum(Fraction(1, i * (i + gap)) for i in range(1, n + 1))


def determinant(size, middle, above, below):
    rows = [[Fraction({0: middle, 1: above, -1: below}.get(j - i, 0)) for j in range(size)] for i in range(size)]
    value = Fraction(1)
    for i in range(size):
        pivot = next((k for k in range(i, size) if rows[k][i]), None)
        if pivot is None:
            return 0
        if pivot != i:
            rows[i], rows[pivot], value = rows[pivot], rows[i], -value
        value *= rows[i][i]
        for k in range(i + 1, size):
            factor = rows[k][i] / rows[i][i]
            rows[k] = [x - factor * y for x, y in zip(rows[k], rows[i], strict=True)]
    return value


def recurrence(first, second, p, q, n, modulus):
    for _ in range(n):
        first, second = second, (p * second + q * first) % modulus
    return first % modulus


def polygon(*coordinates):
    """Pick's theorem: points inside, counted one by one, and points on the border."""
    corners = list(zip(coordinates[::2], coordinates[1::2], strict=True))
    sides = list(zip(corners, corners[1:] + corners[:1], strict=True))
    border = sum(gcd(abs(u - x), abs(v - y)) for (x, y), (u, v) in sides)
    inside = 0
    for px in range(min(x for x, _ in corners), max(x for x, _ in corners) + 1):
        # Where the border crosses this column, as fractions; a point is inside above an odd number of crossings.
        crossings = []
        upright = set()
        for (x, y), (u, v) in sides:
            if x == u == px:
                upright |= set(range(min(y, v), max(y, v) + 1))
            if min(x, u) <= px < max(x, u):
                crossings.append(y + Fraction((px - x) * (v - y), u - x))
            if px in (x, u) or (min(x, u) < px < max(x, u)):
                at = y if px == x else v if px == u else y + Fraction((px - x) * (v - y), u - x)
                if at == int(at):
                    upright.add(int(at))
        for py in range(min(y for _, y in corners), max(y for _, y in corners) + 1):
            if py not in upright and sum(c < py for c in crossings) % 2:
                inside += 1
    return Fraction(2 * inside + border - 2, 2)


def distance(a, b, c, d, e, f):
    """The largest square that divides the squared distance, by trying all."""
    square = (a - d) ** 2 + (b - e) ** 2 + (c - f) ** 2
    factor = max(k for k in range(1, int(square**0.5) + 2) if square % (k * k) == 0)
    rest = square // factor**2
    if rest == 1:
        return str(factor)
    return ("" if factor == 1 else str(factor)) + "\\sqrt{" + str(rest) + "}"


def in_words(question):
    """The tiny problems are sums that stand there."""
    sign = "+" if "+" in question else "-" if "-" in question else "*"
    first, *rest = (int(n) for n in re.findall(r"\d+", question))
    for n in rest:
        first = first + n if sign == "+" else first - n if sign == "-" else sum([first] * n)
    return first


def written(value):
    if isinstance(value, str):
        return value
    if isinstance(value, set):
        return "\\{" + ", ".join(str(x) for x in sorted(value)) + "\\}"
    value = Fraction(value)
    if value.denominator == 1:
        return str(value.numerator)
    return ("-" if value < 0 else "") + "\\frac{" + str(abs(value.numerator)) + "}{" + str(value.denominator) + "}"


for line in sys.stdin:
    task = json.loads(line)
    if task["family"] in ("add", "subtract", "multiply", "add_all"):
        answer = in_words(task["question"])
    else:
        answer = globals()[task["family"]](*map(int, re.findall(r"\d+", task["question"])))
    print(json.dumps(written(answer)))
