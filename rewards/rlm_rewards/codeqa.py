"""Scores multiple choice over a code repository (LongBench-v2 "Code Repository Understanding", RLM paper's CodeQA).

`official` is the extraction of LongBench-v2 (THUDM/LongBench, pred.py): all `*` are deleted; the answer is the first
`The correct answer is (X)`, else the first `The correct answer is X`, with exactly this case and these blanks,
whatever letters follow. Anything else is no answer.

`strict` is ours:
- the last statement counts, in any case and with any brackets, quotes or `*`: `answer is X`, `answer: X` (also on the
  next line), `option X is correct`, `I choose X`, `\\boxed{X}`;
- an `<answer>` tag or a JSON object with the key `answer` is read instead of the text around it;
- without a statement, the choice in front of the first or last line counts (`X) because ...`), or the single letter
  that is the whole text, unless other lines begin with other choices;
- the choice is a capital letter by itself (not `Alpha`, not the article in `A loop`);
- a statement that continues with another choice (`A or B`, `A, C`, `A=B`, `A|B`, `A > B`) is no answer, unless
  something else is said of that one (`A, C is never called`).

Not covered: LongBench-v2's switch, off by default, that gives 0.25 if nothing was extracted.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, NamedTuple

from rlm_rewards.final_answer import TAGGED, json_object

MODES = ("official", "strict")
STRICT_LENGTH = 100_000
"""The strict mode reads so many last characters of a response."""
ANSWER_KEYS = ("answer", "final_answer", "final answer", "correct_answer", "choice", "option")
"""Keys of a response in JSON that may hold the choice."""
DENIAL = re.compile(r"\b(?i:incorrect|not correct|wrong|false|not|not the|nor)[\w ]{0,8}$")
"""Before a statement: it is no answer."""
ONE_OF_SEVERAL = re.compile(r"[A-Z0-9][)\]]? ?(?:or|and|[,;/&|>=+]) ?[(\[]?$")
"""Before `X is correct`: X is one of several."""
ARTICLE = re.compile(
    r" (?!(?:is|are|was|because|since|as|and|or|which|due|based|given|for|but|not|would|will|does|has|can|fits)\b)[a-z]"
)
"""After a capital A: it is an article."""
WIDE = str.maketrans("：（）．。", ":()..")
DRESS = re.compile(r"[ \t*`\"'$]+")
"""Decoration that models put around an answer; `strict` reads each run of it as one blank."""


def score(response: Any, gold: Any, mode: str = "official", choices: str = "ABCD") -> float:
    """1.0 if the extracted choice is `gold`, else 0.0. `gold` is a choice; in the form of the RLM paper
    (`choices="0123"`) it may also be a number. Raises ValueError for an unknown mode or choices, and nothing else."""
    said = extract_choice(response, mode, choices)
    return float(said is not None and isinstance(gold, str | int) and said == str(gold))


def extract_choice(response: Any, mode: str = "official", choices: str = "ABCD") -> str | None:
    """The choice that a response states, or None. `choices`: one letter or digit each.

    Raises ValueError for an unknown mode or choices, and nothing else."""
    if mode not in MODES:
        raise ValueError(f"mode must be official or strict, got {mode!r}")
    if not choices.isalnum() or not choices.isascii():
        raise ValueError(f"choices must be ASCII letters or digits, got {choices!r}")
    if not isinstance(response, str):
        return None
    if mode == "official":
        text = response.replace("*", "")
        bracketed, plain = official_patterns(choices)
        match = bracketed.search(text) or plain.search(text)
        return match[1] if match else None
    return _stated(response[-STRICT_LENGTH:], choices)


def _stated(text: str, choices: str, *, inside: bool = False) -> str | None:
    """The choice of the strict mode. `inside`: the text is what a reply holds between its answer tags."""
    if not inside and (answer := _tagged_answer(text.strip())) is not None:
        return _stated(answer, choices, inside=True)
    plain = DRESS.sub(" ", text.translate(WIDE).replace(r"\(", "(").replace(r"\)", ")")).strip()
    patterns = strict_patterns(choices)
    if alone := patterns.alone.fullmatch(plain):
        return alone["choice"]
    last = None
    for match in (*patterns.statement.finditer(plain), *patterns.verdict.finditer(plain)):
        if not _is_denied(plain, match) and (last is None or match.end("choice") > last.end("choice")):
            last = match
    in_front = _in_front(plain, choices, numbered=not inside)
    if last is None:
        return in_front.pop() if len(in_front) == 1 else None
    begins_line = not plain[: last.start("choice")].rpartition("\n")[2].strip(" ([")
    if (begins_line and len(in_front) > 1) or _names_another(plain, last, patterns):
        return None
    return last["choice"]


def _tagged_answer(text: str) -> str | None:
    """The content of the last `<answer>` tag, or the value of `answer` if the text is a JSON object."""
    if tagged := TAGGED.findall(text):
        return tagged[-1]
    found = json_object(text) or {}
    values = [found[key] for key in ANSWER_KEYS if key in found]
    return str(values[0]) if values and isinstance(values[0], str | int | list) else None


def _is_denied(plain: str, match: re.Match[str]) -> bool:
    """True if the statement is about a wrong answer, one of several, or no choice at all (the article in `A loop`)."""
    before = plain[max(0, match.start() - 30) : match.start()]
    after = plain[match.end("choice") : match.end("choice") + 30]
    if DENIAL.search(before) or ONE_OF_SEVERAL.search(
        plain[max(0, match.start("choice") - 12) : match.start("choice")]
    ):
        return True
    return match["choice"] == "A" and bool(ARTICLE.match(after))


def _names_another(plain: str, match: re.Match[str], patterns: Patterns) -> bool:
    """True if another choice follows as part of the same answer: `A or B`, `A, C`, but not `B, C is never called`."""
    end = match.end("choice")
    another = patterns.another.match(plain, end)
    if another is None or (another["choice"] == "A" and ARTICLE.match(plain, another.end("choice"))):
        return False
    if not another["sign"].strip():
        return plain[end : end + 1] not in (")", "]")  # `(D) B, D and F`: the letters are the text of option D
    clause = patterns.clause.match(plain, another.end("choice"))
    return clause is None or (another["sign"].strip() not in (",", ";", ".") and not clause["wrong"])


def _in_front(plain: str, choices: str, *, numbered: bool) -> set[str]:
    """The choices that begin a line (`B) text`). Empty if neither the first nor the last line begins with one; and for
    digits in several lines, unless `numbered` is false: lines are often numbered."""
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    if choices.isdigit() and len(lines) > 1 and numbered:
        return set()
    found = [strict_patterns(choices).in_front.match(line) for line in lines]
    if not found or not (found[0] or found[-1]):
        return set()
    return {match["choice"] for match in found if match is not None}


@cache
def official_patterns(choices: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    return (
        re.compile(rf"The correct answer is \(([{choices}])\)"),
        re.compile(rf"The correct answer is ([{choices}])"),
    )


class Patterns(NamedTuple):
    """Each has a group `choice`. They read a text in which each run of `DRESS` is one blank."""

    alone: re.Pattern[str]
    statement: re.Pattern[str]
    """`answer: X`, `I choose X`, `\\boxed{X}`."""
    verdict: re.Pattern[str]
    """`X is correct`."""
    another: re.Pattern[str]
    """How the text may go on after a choice with another one; `sign` is what joins them."""
    clause: re.Pattern[str]
    """The continuation if the other choice begins a separate clause; `wrong` if it is called wrong."""
    in_front: re.Pattern[str]
    """A choice at the beginning of a line."""


@cache
def strict_patterns(choices: str) -> Patterns:
    choice = rf"(?P<choice>[{choices}])(?![A-Za-z0-9_+#]|\.[0-9]|-[A-Za-z])"
    box = r"(?:\\(?:boxed|fbox|text|textbf|mathrm|mathbf) ?\{ ?){0,3}"
    named = r"(?i:option |choice |letter ){0,2}"
    verb = r"(?i: (?:is|are|was|be|would be|should be|must be|will be))"
    surely = r"(?i: (?:clearly|definitely|therefore|thus|simply|most likely))?"
    link = r" ?(?:[:=]|->|=>|\u2192|[-\u2013\u2014])"
    answer = rf"(?<![A-Za-z])(?i:answer|答案)(?:{verb}{surely})?(?:{link})?\s{{0,6}}"
    names = r"(?<![A-Za-z])(?i:choice|option|selection|selected|statement|final)"
    noun = rf"{names}(?:{verb}{surely}(?:{link})?|{link})\s{{0,6}}"
    chosen = r"\bI (?i:(?:would |will |ll |d )?(?:choose|select|pick|go with)) (?i:the )?"
    boxed = r"\\boxed ?\{? ?"
    marked = r"(?i:option |choice )[(\[]?" if choices.isdigit() else r"(?<![A-Za-z0-9_])"
    others = rf"(?:[ ,]{{1,2}}(?i:(?:and|or) )?[(\[]?[{choices}]\b[)\]]?){{0,3}}"
    return Patterns(
        re.compile(rf"[\s(\[{{<]*{named}[(\[]?{box}[(\[]? ?(?P<choice>[{choices}])[\s)\]}}>.]*"),
        re.compile(rf"(?:{answer}|{noun}|{chosen}|{boxed}){named}[(\[<]?{box}{named}[(\[{{]? ?{choice}"),
        re.compile(
            rf"{marked}{choice}[)\]]? (?i:is (?:the )?(?:only |single |most )?(?:correct|right|best answer|answer))\b"
        ),
        re.compile(
            rf"[)\]}}]{{0,4}}(?P<sign>[., ]{{0,2}}(?i:\b(?:or|and)\b)| ?(?:[,;.&/|>=+\u2192]|[-=]>) ?| )"
            r" ?(?:option |choice )?[(\[]? ?"
            rf"(?P<choice>[{choices}])(?![A-Za-z0-9_])"
        ),
        re.compile(
            rf"[)\]]?{others} (?i:is|are|was|were|does|do|has|have|had|can|could|would|fails?|never|only|cannot)\b"
            rf"(?! (?i:(?:both|all|also|the|too|equally) )*(?i:correct|right|true|valid|answers?)\b)"
            rf"(?P<wrong> (?i:both |all |also )?(?i:wrong|incorrect|false|not|never|invalid|out))?"
        ),
        re.compile(
            rf"(?i:(?:so|therefore|thus|hence),? )?(?i:option |choice )?[(\[]?(?P<choice>[{choices}])"
            rf"(?:[)\]](?=[ :.,]|$)| ?:(?= |$)|[.)](?= |$)| ?[-\u2013\u2014](?= )|$)"
        ),
    )
