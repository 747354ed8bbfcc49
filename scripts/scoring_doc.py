#!/usr/bin/env python3
"""Writes docs/scoring.md: the scores of `official` and `strict` by example, and where known ports differ and why.

    python scripts/scoring_doc.py [--check]

The scores of `official` and `strict` are computed from `rewards/` when the page is written. Those of a port were
recorded by running it once; they are part of the cases in `BENCHMARKS`. --check writes nothing and exits with 1 if the
page on disk is out of date. Needs the extra `math`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from rlm_rewards import codeqa, deepdive, math_python, needle, oolong, verbatim_copy  # noqa: E402

PAGE = ROOT / "docs" / "scoring.md"


@dataclass(frozen=True)
class Case:
    """One answer, and why it is of interest. `ports`: the scores of ports that differ from the original."""

    gold: Any
    answer: str
    why: str
    ports: dict[str, float] = field(default_factory=dict)
    kind: str = ""
    """Oolong only: `real`, or the answer type."""


@dataclass(frozen=True)
class Benchmark:
    """One table of the page."""

    name: str
    original: str
    intro: str
    columns: dict[str, Callable[[Case], float | str]]
    """Name of a column -> this project's score of a case."""
    ports: dict[str, str]
    """Short name of a port -> what it is."""
    cases: list[Case]


def oolong_score(mode: str) -> Callable[[Case], float]:
    def score(case: Case) -> float:
        subset, kind = ("real", None) if case.kind == "real" else ("synth", case.kind)
        return oolong.score(case.answer, case.gold, subset, kind, mode)

    return score


def verdict(mode: str) -> Callable[[Case], float]:
    return lambda case: float(deepdive.judge_verdict(case.answer, mode))


def copied(metric: str) -> Callable[[Case], float]:
    return lambda case: verbatim_copy.metrics(case.gold, case.answer)[metric]


SPAM, DAY = "['spam']", "[datetime.date(2023, 1, 6)]"
CHUNK = '[\n  {\n    "id": 93810,\n    "na'
BENCHMARKS = [
    Benchmark(
        "Oolong",
        "abertsch72/oolong, commit adbf1cb, src/eval/eval_helpers.py",
        "The original reads the text behind the last colon (synth) or in the first box (real), compares labels with "
        "their case, gives 0.75 ^ |difference| for numbers, and raises on some inputs, where `official` gives 0. "
        "`strict` reads the form that the question names and nothing else, and gives no credit for a near number.",
        {"official": oolong_score("official"), "strict": oolong_score("strict")},
        {
            "oolong-rlm": "PrimeIntellect oolong-rlm, `reward_mode='oolong'`",
            "oolong-synth-v1": "PrimeIntellect-ai/verifiers, commit 141d48a, environments/oolong_synth_v1",
            "MIT training": "alexzhang13/rlm, commit 72d6940, training/environments/oolong",
        },
        [
            Case(SPAM, "Label: Spam", "The original minds case.", {"MIT training": 1.0}, "LABEL"),
            Case(SPAM, "Label: 'spam'", "The original keeps quotes.", {"MIT training": 1.0}, "LABEL"),
            Case(
                SPAM,
                "I believe the most common label is spam",
                "Without a colon, the original takes the last word of a long answer.",
                {"oolong-synth-v1": 0.0},
                "LABEL",
            ),
            Case(SPAM, "The answer is spam", "... but not of a short one.", {"MIT training": 1.0}, "LABEL"),
            Case(
                SPAM,
                "Label: spam\nNote: counted twice",
                "The original reads behind the last colon.",
                {"MIT training": 1.0},
                "LABEL",
            ),
            Case("[12]", "Answer: 13", "Nearly right numbers score in the original.", {}, "NUMERIC"),
            Case("[1234]", "Answer: 1,234", "The original's int() takes no comma.", {}, "NUMERIC"),
            Case(
                "[12]",
                "After counting all of them I get 12",
                "The last word again.",
                {"oolong-synth-v1": 0.0},
                "NUMERIC",
            ),
            Case(
                "['more common than']",
                "Answer: more common",
                "The original looks for `more common` in the answer.",
                {"MIT training": 0.0},
                "COMPARISON",
            ),
            Case(
                "['more common than']",
                "Answer: ham is not more common than spam",
                "... also where it is denied.",
                {},
                "COMPARISON",
            ),
            Case(
                "['more common']",
                "Answer: more common than",
                "Questions about before and after have golds without `than`.",
                {"oolong-synth-v1": 1.0, "MIT training": 1.0},
                "COMPARISON",
            ),
            Case("[44106]", "User 44106", "No colon, and short.", {"MIT training": 1.0}, "USER"),
            Case(
                DAY,
                "Date: 2023-01-06",
                "A port that compares a date with a time zone to one without finds every date wrong.",
                {"oolong-synth-v1": 0.0},
                "DATE",
            ),
            Case(
                "[datetime.date(2023, 11, 26)]",
                "Date: 26/11/2023",
                "The original's parser guesses the order; `strict` reads the order that the question names.",
                {"oolong-synth-v1": 0.0},
                "DATE",
            ),
            Case("84", "84", "Real: the original wants a box.", {"oolong-rlm": 1.0}, "real"),
            Case(
                "84",
                "First \\boxed{10}, then \\boxed{84}",
                "The original reads the first box, `strict` the last.",
                {"oolong-rlm": 1.0},
                "real",
            ),
            Case("84", "\\boxed{{84}}", "Double braces.", {"oolong-rlm": 0.0}, "real"),
            Case(
                "Fireball, Shield",
                "\\boxed{Shield, Fireball, Bless, Hex}",
                "The original counts what was found, not what was made up.",
                {},
                "real",
            ),
        ],
    ),
    Benchmark(
        "Oolong-pairs",
        "none: there is no official scorer; F1 over unordered pairs as arXiv:2512.24601 defines it",
        "`F1` reads every pair in the output. Both modes of the environment rest on it.",
        {"F1": lambda case: oolong.pairs_f1(case.answer, case.gold)["f1"]},
        {},
        [
            Case(["(1, 2)"], "(2, 1)", "The order within a pair does not count."),
            Case(["(1, 2)", "(3, 4)"], "(1, 2)", "What is missing costs recall."),
            Case(["(1, 2)"], "(1, 2), (5, 6)", "What is made up costs precision."),
            Case(["(1, 2)"], "everything", "No pair."),
        ],
    ),
    Benchmark(
        "CodeQA (LongBench-v2)",
        "THUDM/LongBench, commit 2e00731, pred.py, extract_answer; gold here: B",
        "The original deletes `*` and takes the first `The correct answer is (X)`, else the first `The correct answer "
        "is X`. `strict` takes the last statement of one choice, in any usual form.",
        {mode: lambda case, mode=mode: codeqa.score(case.answer, case.gold, mode) for mode in codeqa.MODES},
        {},
        [
            Case("B", "The correct answer is (B)", "The form that is asked for."),
            Case("B", "The correct answer is **B**", "Stars do not matter."),
            Case("B", "The correct answer is: (B)", "A colon is no answer in the original."),
            Case("B", "The answer is (B)", "Nor is this."),
            Case("B", "B", "Nor the bare letter."),
            Case("B", "\\boxed{B}", "Nor a box."),
            Case("B", "The correct answer is Because nothing else fits", "A capital B is enough for the original."),
            Case("B", "The correct answer is (A). No: the correct answer is (B)", "First or last statement."),
            Case("B", "The correct answer is (B) or (C)", "Two choices are one too many in `strict`."),
            Case("B", "Answer: B=C", "A chain of choices is none."),
            Case("B", "Answer:\n**B**", "On the next line."),
            Case("B", "B) It returns None", "In front of a line."),
            Case("B", "The correct answer is (B), A is never called", "A remark on another choice."),
        ],
    ),
    Benchmark(
        "DeepDive: the judge's verdict",
        "THUDM/DeepDive, commit 9c94da4, training/reward_server/launch_server.py",
        "The texts are replies of a judge. `official` is the original's reading. `strict` wants `correct` and `yes` or "
        "`no` as whole words, in any emphasis, quotes or JSON; where a judge says both, neither, or asks, there is no "
        "verdict, which is an error of the judge and not a wrong answer. Before any judge, rules compare dates, "
        "numbers and names (`rewards/rlm_rewards/deepdive.py`); the judge is asked only where they find no equal "
        "answer.",
        {mode: verdict(mode) for mode in deepdive.MODES},
        {"yes-in-reply": "PrimeIntellect deepdive: `yes` anywhere in the lower-cased reply"},
        [
            Case("", "Correct: yes\nExtracted final answer: X", "The form that is asked for."),
            Case("", "**Correct:** yes", "Bold type breaks the original."),
            Case("", "yes", "No verdict in form.", {"yes-in-reply": 1.0}),
            Case("", "Incorrect: yes", "The original takes the end of a word for the key."),
            Case("", "**Correct:** **yes**", "Emphasis around both."),
            Case("", '{"correct": "yes"}', "JSON."),
            Case("", "correct: yes/no", "Both words: no verdict in `strict`."),
            Case("", "correct: yes, but no", "Taken back: no verdict in `strict`."),
            Case("", "correct: yes\ncorrect: no", "A contradiction: no verdict in `strict`."),
            Case("", "Is it correct: yes?\ncorrect: no", "A question is no verdict."),
            Case("", "correct: yesterday", "The original takes the beginning of a word for the value."),
            Case("", "No, the response names yesterday's winner", "`yes` is in `yesterday`.", {"yes-in-reply": 1.0}),
            Case("", "correct: maybe yes", "Not a clear yes.", {"yes-in-reply": 1.0}),
        ],
    ),
    Benchmark(
        "Verbatim copy",
        "PrimeIntellect verbatim_copy and verbatim_copy_rlm",
        "The three metrics agree with the original's. There, the plain LLM is told to use a box and the RLM is not: a "
        "perfect copy of cut-off JSON, whose braces cannot be counted, then scores 0 in one scaffold only. Here every "
        "scaffold hands in the text between answer tags, or all of it, and no scaffold is told to use a box.",
        {
            "exact match": copied("exact_match"),
            "char accuracy": copied("char_accuracy"),
            "similarity": copied("levenshtein_similarity"),
        },
        {},
        [
            Case("abc def", "abc def", "A copy."),
            Case("a1-b2", "copy: \\boxed{a1-b2}", "A box is taken off by the metrics where its braces close."),
            Case(CHUNK, f"\\boxed{{{CHUNK}}}", "A perfect copy in a box whose braces cannot be counted."),
            Case("a}b{c", "\\boxed{a}b{c}", "The box closes too early."),
            Case("x,y\n1,2", "x,y\r\n1,2", "Line ends count."),
            Case("abc def", "abc def ", "So do blanks at the end."),
        ],
    ),
    Benchmark(
        "Math",
        "verifiers 0.1.9, MathRubric with its default parser, on math-verify 0.9.0",
        "`official` takes the last box, else all of the text, and asks math-verify. `strict` wants a closed box, reads "
        "what Python prints, and refuses another unit, scale, currency or base, and more than one answer.",
        {mode: lambda case, mode=mode: math_python.score(case.answer, case.gold, mode) for mode in math_python.MODES},
        {
            "no extraction": "an RLM branch that put the whole answer in a box",
            "plain math-verify": "verify(parse(gold), parse(text)), without boxes around either",
        },
        [
            Case("34", "34", "No box."),
            Case(
                "34",
                "First \\boxed{12}, then \\boxed{34}",
                "The last box counts.",
                {"no extraction": 0.0, "plain math-verify": 0.0},
            ),
            Case("2\\sqrt{3}", "\\boxed{\\sqrt{12}}", "Equal values.", {"plain math-verify": 0.0}),
            Case("50\\%", "\\boxed{0.5}", "Per cent.", {"plain math-verify": 0.0}),
            Case("5", "\\boxed{5\\%}", "5 % is 0.05, and 5 where the gold answer leaves its unit out."),
            Case("5", "\\boxed{500\\%}", "500 % is 5."),
            Case("34", "\\boxed{34", "A box that was cut off.", {"plain math-verify": 0.0}),
            Case("\\frac{1}{2}", "\\boxed{0.5}", "A fraction as a decimal."),
            Case("34", "\\boxed{34.0000001}", "Nearly is not equal."),
            Case("-2\\pi", "\\boxed{-2*pi}", "What Python prints."),
            Case("34", "\\boxed{31=32=33=34}", "A chain of guesses."),
            Case("34\\text{ km}", "\\boxed{34\\text{ miles}}", "The original leaves units out."),
            Case("101_2", "\\boxed{101_3}", "... and bases."),
        ],
    ),
    Benchmark(
        "Needle (S-NIAH)",
        "NVIDIA/RULER, scripts/eval/synthetic/constants.py, string_match_all",
        "The original looks for the number anywhere in the output, so that copying the whole context is right. "
        "`strict`, the environment's default, wants the number and nothing else.",
        {mode: lambda case, mode=mode: needle.score(case.answer, case.gold, mode) for mode in needle.MODES},
        {},
        [
            Case("4401937", "Answer: 4401937", "The form that is asked for."),
            Case("4401937", "Answer: 4,401,937", "Thousands apart."),
            Case("4401937", "1000003, 4401937, 5550123", "Everything that was found."),
            Case("4401937", "Answer: 44019370", "A longer number that holds it."),
        ],
    ),
]
HEAD = """\
# Scores

Made by `scripts/scoring_doc.py`; a test checks that it is up to date. `mode="official"` is the published scorer, to the
digit, quirks included, so that numbers can be compared. `mode="strict"` is ours: it accepts what a careful reader
would. A port of a benchmark that is known to score differently from the original has a column of its own; an empty cell
there means the same score as `official`. All scorers are pure functions that return a number in [0, 1] for any input.
"""


def render() -> str:
    """The page."""
    return "\n".join([HEAD, *map(_section, BENCHMARKS)])


def _section(benchmark: Benchmark) -> str:
    lines = [f"## {benchmark.name}", "", f"Original: {benchmark.original}.", "", benchmark.intro, ""]
    kinds = any(case.kind for case in benchmark.cases)
    golds = len({repr(case.gold) for case in benchmark.cases}) > 1
    header = [*(["kind"] if kinds else []), *(["gold"] if golds else []), "answer", *benchmark.columns]
    lines += [_row([*header, *benchmark.ports, "why"]), _row(["---"] * (len(header) + len(benchmark.ports) + 1))]
    for case in benchmark.cases:
        cells = [*([case.kind] if kinds else []), *([_code(case.gold)] if golds else []), _code(case.answer)]
        cells += [_number(score(case)) for score in benchmark.columns.values()]
        cells += [_number(case.ports[port]) if port in case.ports else "" for port in benchmark.ports]
        lines.append(_row([*cells, case.why]))
    lines += ["", *(f"- {port}: {what}." for port, what in benchmark.ports.items()), *([""] if benchmark.ports else [])]
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(value: Any) -> str:
    text = repr(value)[1:-1].replace("\\\\", "\\") if isinstance(value, str) else ", ".join(value)
    return f"`{text}`".replace("|", "\\|")


def _number(value: float | str) -> str:
    return f"{value:.3g}"


def main() -> int:
    """Writes or checks the page; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the page is out of date")
    if not parser.parse_args().check:
        PAGE.write_text(render(), "utf-8")
        return 0
    if PAGE.read_text("utf-8") == render():
        return 0
    print(f"{PAGE.relative_to(ROOT)} is not up to date: run python scripts/scoring_doc.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
