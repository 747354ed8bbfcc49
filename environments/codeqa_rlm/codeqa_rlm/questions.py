"""Questions of multiple choice, made of facts. Exactly one option is right, and the three others are proven wrong.

A family is a function from facts and draws to a `Question`, or None where the drawn facts do not carry one. Wrong
options are near misses as far as there are any: what is called but at another depth, named but not called, inherited
but not overridden, of the same name elsewhere. The same test that makes the right option right makes them wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations

from codeqa_rlm.facts import Facts, short
from rlm_env.authoring.draw import Draw

TRIES = 12
"""To find a fact that carries a question of a family."""
OPTIONS = 4
PERMUTED = 5
"""How many of the first classes in the middle of a method resolution order are permuted."""


@dataclass(frozen=True)
class Question:
    text: str
    right: str
    wrong: list[str]
    """Three; no two options are equal."""
    claim: str
    """The text of an option, with the slot `{}`."""


Family = Callable[[Facts, Draw], Question | None]


def wrong_options(draw: Draw, right: str, *pools: Iterable[str]) -> list[str] | None:
    """Three different options that are not the right one, from the first pools as far as they go."""
    found: list[str] = []
    for pool in pools:
        for option in draw.shuffled(sorted(pool)):
            if option != right and option not in found:
                found.append(option)
                if len(found) == OPTIONS - 1:
                    return found
    return None


def alike_in_depth(names: Iterable[str], right: str) -> list[str]:
    """The names with as many dots: functions among functions, methods among methods, which are called longer."""
    return [name for name in names if name.count(".") == right.count(".")]


def callers(facts: Facts, draw: Draw) -> Question | None:
    names = list(facts.mentions)
    best: tuple[int, str, str, list[str]] | None = None
    for _ in range(TRIES):
        caller = draw.choice(names)
        called = sorted(facts.levels(caller, 1)[1] - {caller})
        if not called:
            continue
        target = draw.choice(called)
        near = [f for f in names if target in facts.mentions[f] and target not in facts.levels(f, 1)[1]]
        near = near if facts.executed else []
        if best is None or len(near) > best[0]:
            best = (len(near), caller, target, near)
        if len(near) > 1:
            break
    if best is None:
        return None
    _, right, target, near = best
    alike = {f for f in facts.mentions if f != target and short(f) == short(target)}
    homonyms = [f for f in names if alike & facts.mentions[f]] if alike else []
    others = [f for f in (draw.sample(names, 24) if facts.executed else alike_in_depth(names, right)) if f != target]

    def untrue(names: list[str]) -> list[str]:
        called = (lambda f: facts.levels(f, 1)[1]) if facts.executed else facts.mentions.__getitem__
        return [f for f in names if target not in called(f)]

    wrong = wrong_options(draw, right, near, untrue(homonyms), untrue(others))
    if wrong is None:
        return None
    if facts.executed:
        text = (
            f"Which of these functions calls `{target}` itself, not through another one, when it is called without "
            "arguments?"
        )
        return Question(text, right, wrong, f"`{{}}`, called without arguments, calls `{target}` itself.")
    text = f"In the code of which of these functions does a call of `{target}` stand?"
    return Question(text, right, wrong, f"In the code of `{{}}` stands a call of `{target}`.")


def chain(facts: Facts, draw: Draw) -> Question | None:
    if not facts.executed:
        return None
    names = list(facts.mentions)
    for _ in range(TRIES):
        start, k = draw.choice(names), draw.between(2, 4)
        reached = facts.levels(start, k + 2)
        if not reached[k]:
            continue
        right = draw.choice(sorted(reached[k]))
        near = frozenset().union(*reached[1:]) - reached[k]
        named = frozenset().union(*(facts.mentions[f] for level in reached[:k] for f in level)) - reached[k] - near
        others = [f for f in draw.sample(names, 16) if f not in reached[k]]
        wrong = wrong_options(draw, right, near - {start}, named, [f for f in others if f != start])
        if wrong is not None:
            text = (
                f"`{start}` is called without arguments. Depth 1 are the functions that it then calls itself, depth 2 "
                f"those that they call, and so on. Which of these functions is called at depth {k}?"
            )
            return Question(text, right, wrong, f"`{start}`, called without arguments, leads to `{{}}` at depth {k}.")
    return None


def overrides(facts: Facts, draw: Draw) -> Question | None:
    names = list(facts.order)
    for _ in range(TRIES):
        right = draw.choice(names)
        above = [cls for cls in facts.order[right][1:] if cls in facts.methods]
        pairs = [(cls, m) for cls in above for m in facts.methods[cls] if m in facts.methods[right]]
        if not pairs:
            continue
        base, method = draw.choice(pairs)
        heirs = [c for c in names if c != base and base in facts.order[c] and method not in facts.own[c]]
        strangers = [c for c in names if base not in facts.order[c] and method in facts.own[c]]
        others = [c for c in draw.sample(names, 16) if base not in facts.order[c]]
        near = draw.sample(heirs, 2)
        wrong = wrong_options(draw, right, near, draw.sample(strangers, 3), heirs, others)
        if wrong is not None:
            text = (
                f"Which of these classes inherits from `{base}`, directly or not, and overrides its method `{method}` "
                "in its own body?"
            )
            return Question(text, right, wrong, f"`{{}}` inherits from `{base}` and overrides its method `{method}`.")
    return None


def order(facts: Facts, draw: Draw) -> Question | None:
    names = list(facts.order)
    for _ in range(TRIES):
        cls = draw.choice(names)
        right = [short(name) for name in facts.order[cls]]
        middle = right[1 : len(right) - 1]
        if len(middle) < 3 or len(set(right)) < len(right):
            continue
        head, tail = middle[:PERMUTED], middle[PERMUTED:]
        mixed = [", ".join([right[0], *p, *tail, right[-1]]) for p in permutations(head)]
        depth_first = [right[0], *_walk(facts, cls), right[-1]]
        near = [", ".join(depth_first)] if sorted(depth_first) == sorted(right) else []
        wrong = wrong_options(draw, ", ".join(right), near, mixed)
        if wrong is not None:
            text = f"What is the method resolution order of `{cls}`?"
            return Question(text, ", ".join(right), wrong, f"The method resolution order of `{cls}` is {{}}.")
    return None


def _walk(facts: Facts, cls: str) -> list[str]:
    """The ancestors depth first, each at its first occurrence: the order before Python 2.3."""
    met: dict[str, None] = {}
    waiting = list(reversed(facts.bases[cls]))
    while waiting:
        name = waiting.pop()
        met[short(name)] = None
        waiting += reversed(facts.bases.get(name, []))
    return list(met)


def resolves(facts: Facts, draw: Draw) -> Question | None:
    names = list(facts.order)
    for attempt in range(2 * TRIES):
        cls = draw.choice(names)
        line = facts.order[cls]
        if any(name not in facts.own for name in line[1:-1]) or line[-1] != "object":
            continue
        methods = sorted({m for name in line[1:-1] for m in facts.methods[name]})
        if not methods:
            continue
        method = draw.choice(methods)
        owners = [name for name in line[:-1] if method in facts.own[name]]
        if method not in facts.methods[owners[0]] or (len(owners) < 2 and attempt < TRIES):
            continue
        elsewhere = [name for name in names if method in facts.own[name]]
        near = draw.sample(owners[1:], 2)
        wrong = wrong_options(draw, owners[0], near, line[:-1], draw.sample(elsewhere, 6), draw.sample(names, 6))
        if wrong is not None:
            text = (
                f"`{method}` is called on an instance of `{cls}`. In which class is the method defined that then runs "
                "first?"
            )
            return Question(
                text,
                owners[0],
                wrong,
                f"`{method}`, called on an instance of `{cls}`, runs first as defined in `{{}}`.",
            )
    return None


def default(facts: Facts, draw: Draw) -> Question | None:
    names = [name for name, parameters in facts.defaults.items() if parameters]
    for _ in range(TRIES):
        if not names:
            break
        function = draw.choice(names)
        parameter = draw.choice(sorted(facts.defaults[function]))
        right = facts.defaults[function][parameter]
        some = draw.sample(names, 200)
        namesakes = [name for name in some if short(name) == short(function)]
        pools = [
            [facts.defaults[name][parameter] for name in chosen if parameter in facts.defaults[name]]
            for chosen in (namesakes, some)
        ]
        pools.append([value for name in some for value in facts.defaults[name].values()])
        pools.append(list(facts.literals))
        alike = [[value for value in pool if kind_of(value) == kind_of(right)] for pool in pools]
        wrong = wrong_options(draw, right, *alike, numbers_like(right, draw))
        if wrong is not None:
            text = f"What is the default value of the parameter `{parameter}` of `{function}`?"
            return Question(
                text, right, wrong, f"The parameter `{parameter}` of `{function}` has the default value {{}}."
            )
    return None


def kind_of(value: str) -> object:
    """The kind of a value, so that options look alike: numbers with the same number of digits, or texts."""
    return len(value) if value.lstrip("-").isdecimal() else value[0]


def numbers_like(value: str, draw: Draw) -> list[str]:
    """Numbers with as many digits that look like this one: round ones if it is round, otherwise neighbors, among which
    it has a random rank. None if the value is no number."""
    if not value.isdecimal():
        return []
    number, power = int(value), 10 ** (len(value) - 1)
    rounded = {digit * power for digit in (1, 2, 3, 5, 6, 8)} | {2**n for n in range(4, 40)}
    if number not in rounded:
        first = number - draw.below(10)
        rounded = set(range(first, first + 10))
    return [str(other) for other in rounded if len(str(other)) == len(value)]


def raises(facts: Facts, draw: Draw) -> Question | None:
    if not facts.executed:
        return _raised_in_code(facts, draw)
    if not facts.outcomes:
        return None
    outcome = draw.choice(facts.outcomes)
    call = f"{outcome.function}({outcome.argument})"
    wrong = wrong_options(
        draw, short(outcome.raised), map(short, outcome.others), map(short, draw.sample(facts.exceptions, 8))
    )
    if wrong is None:
        return None
    return Question(
        f"Which exception does the call `{call}` end in?",
        short(outcome.raised),
        wrong,
        f"The call `{call}` ends in `{{}}`.",
    )


def _raised_in_code(facts: Facts, draw: Draw) -> Question | None:
    names = [name for name, raised in facts.raises.items() if raised]
    if not names:
        return None
    right = draw.choice(names)
    exception = draw.choice(sorted(facts.raises[right]))
    others = alike_in_depth(facts.mentions, right)
    wrong = wrong_options(draw, right, [name for name in others if exception not in facts.mentions[name]])
    if wrong is None:
        return None
    text = f"In the code of which of these functions is `{exception}` raised?"
    return Question(text, right, wrong, f"In the code of `{{}}`, `{exception}` is raised.")


def statement(facts: Facts, draw: Draw) -> Question | None:
    """One true claim among three false ones, each from a randomly chosen family."""
    made: list[str] = []
    for _ in range(4 * TRIES):
        question = draw.choice(SIMPLE)(facts, draw)
        if question is None:
            continue
        option = draw.choice(question.wrong) if made else question.right
        claim = question.claim.replace("{}", option)
        if claim not in made:
            made.append(claim)
        if len(made) == OPTIONS:
            return Question("Which of these statements is true?", made[0], made[1:], "{}")
    return None


SIMPLE: Sequence[Family] = (callers, chain, overrides, order, resolves, default, raises)
FAMILIES: dict[str, Family] = {family.__name__: family for family in (*SIMPLE, statement)}
"""Name -> family."""
