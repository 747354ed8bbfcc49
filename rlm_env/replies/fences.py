"""Fenced blocks of a reply: backticks or tildes, at the start of a line or behind words, closed or not.

The text behind a block's end is never taken for code: an opening that is missed would turn its closing fence into one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from rlm_env.replies.source import dedent, parses

PYTHON_LABELS = frozenset(
    (
        *(
            "repl",
            "python",
            "py",
            "python3",
            "python2",
            "tool_code",
            "ipython",
            "ipython3",
            "jupyter",
            "pyrepl",
            "pycon",
        ),
        *("python_repl", "python-repl", "code_interpreter", "execute", "exec"),
    )
)
"""Labels of blocks that are code to run."""
_CALL_LABELS = frozenset(["json", "tool", "tool_call", "tool_calls", "function_call", "xml"])

_OPENING = re.compile(r"(?<![`~])(?P<ticks>`{3,}+|~{3,}+)[ \t]*(?:\{[ .]*)?(?P<label>[\w+.-]*)\}?(?P<info>[^`\n]*)$")
_INLINE = re.compile(r"(?<!`)(?P<ticks>`{3,}+)[ \t]*(?P<label>\w+)[ \t]+(?P<code>[^`\n]+?)[ \t]*(?P=ticks)(?!`)")
_TAIL = r"[ \t]*(?:<[^<>\n]*>[ \t]*)*$"
"""What small models and special tokens leave behind a closing fence."""
_PURE = re.compile(r"^[ \t>]*(?P<ticks>`{3,}+|~{3,}+)" + _TAIL)
_GLUED = re.compile(r"^(?P<code>.*[^`~])(?P<ticks>`{3,}+|~{3,}+)" + _TAIL)
_BEHIND = re.compile(r"^[ \t>]*(?P<ticks>`{3,}+|~{3,}+)(?P<words>(?=.*\S)(?![\w{]+\}?[ \t]*$).*)$")
"""A fence with words behind it, on the same line. One word that touches the fence is the label of another block."""
_TICKS = re.compile(r"`{3,}+|~{3,}+")
_SETTINGS = re.compile(r"\s*(?:[\w-]+=\S+|[\d.]+)\s*")
_LABEL = re.compile(r"(?:`{3,}+|~{3,}+)\w[\w+.-]*[ \t]*")
_QUOTE = re.compile(r"^[ \t]*>[ \t]?")
_LAST_TOKENS = re.compile(r"(?:\s*(?:<\|[^<>|]*\|>|</?(?:s|end_code|code)>|<end_of_turn>))+\s*$")
_MAX_ENDS_TRIED = 32
"""A reply is bounded by its token limit; this keeps the search for a block's end cheap on adversarial ones."""


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block. `start` and `end` are offsets in the reply's text, fences included."""

    label: str
    code: str
    closed: bool
    start: int
    end: int

    @property
    def is_python(self) -> bool:
        return self.label in PYTHON_LABELS


@dataclass(frozen=True, slots=True)
class _Opening:
    column: int
    ticks: str
    label: str
    first: str
    """Code on the fence's own line."""
    quoted: bool
    needs_end: bool
    """Not even its label says that it is a fence: without a closing one it is none."""


@dataclass(frozen=True, slots=True)
class _End:
    line: int
    kind: str
    """pure: a fence on a line of its own; words: with words behind it; glued: behind code; between: behind code, with
    words behind it; next: the opening fence of another block."""
    last: str = ""
    """Code before the fence."""
    column: int | None = None
    """Where the words behind the fence begin; None where there are none."""


def fenced_blocks(text: str) -> list[Block]:
    """All top-level fenced blocks, whatever their label, in order."""
    if "```" not in text and "~~~" not in text:
        return []
    lines = text.split("\n")
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line) + 1)
    blocks: list[Block] = []
    at = 0
    while at < len(lines):
        if "```" not in lines[at] and "~~~" not in lines[at]:
            at += 1
            continue
        inline = [found for found in _INLINE.finditer(lines[at]) if found["label"].lower() in PYTHON_LABELS]
        for found in inline:
            start, end = (offsets[at] + place for place in found.span())
            blocks.append(Block(found["label"].lower(), found["code"], True, start, end))
        if inline:
            lines[at] = _blanked(lines[at], inline[-1].end())
        opening = _opening(lines[at])
        if opening is None:
            at += 1
            continue
        block, at = _read_block(lines, offsets, at, opening)
        if block is not None:
            blocks.append(block)
    return blocks


def _opening(line: str) -> _Opening | None:
    """The opening fence in a line, if it is one."""
    found = _OPENING.search(line)
    if not found:
        return None
    before, label, info = line[: found.start()], found["label"].lower().strip("."), found["info"]
    quoted = bool(_QUOTE.match(before))
    alone = not before.strip(" \t>*-+#") or bool(re.fullmatch(r"\s*\d+[.)]\s*", before))
    known = label in PYTHON_LABELS or label in _CALL_LABELS
    first = ""
    if info.strip():
        behind = (found["label"] + info).strip()
        is_code = not found["label"].isidentifier() or info[0] in "(=[."
        if alone and not known and is_code and not behind.isidentifier() and parses(behind):
            first, label = behind, ""
        elif label in PYTHON_LABELS and not _SETTINGS.fullmatch(info) and not info.strip().isidentifier():
            first = info.strip() if parses(info) else ""
        if not alone and not first:
            return None  # prose about fences
    if not alone and found["ticks"][0] == "~" and not known:
        return None
    return _Opening(found.start(), found["ticks"], label, first, quoted, needs_end=not alone and not label)


def _read_block(lines: list[str], offsets: list[int], at: int, opening: _Opening) -> tuple[Block | None, int]:
    """The block that opens in line `at`, and the line at which to go on: what is read of it becomes blanks."""
    start = offsets[at] + opening.column
    ends = list(islice(_ends(lines, at, opening.ticks), _MAX_ENDS_TRIED))
    first = next((end for end in ends if end.kind in ("pure", "words")), None)
    chosen = first
    if opening.label in PYTHON_LABELS or opening.label == "":
        # A fence inside a string of the code (a prompt with ```json in it, say) looks like the end of the block:
        # the end is the first one at which the code is whole; if there is none, simply the first one.
        ends.sort(key=lambda end: end.kind == "between")
        chosen = next((end for end in ends if _is_whole(_body(lines, at, opening, end), end)), first)
    if chosen is not None:
        body = _body(lines, at, opening, chosen)
        if chosen.kind == "next":
            if not body.strip():
                return None, chosen.line
            return Block(opening.label, dedent(body), True, start, offsets[chosen.line]), chosen.line
        if chosen.column is not None:
            lines[chosen.line] = _blanked(lines[chosen.line], chosen.column)
            return Block(opening.label, dedent(body), True, start, offsets[chosen.line] + chosen.column), chosen.line
        end = offsets[chosen.line] + len(lines[chosen.line])
        return Block(opening.label, dedent(body), True, start, end), chosen.line + 1
    if opening.needs_end:
        return None, at + 1
    body = _body(lines, at, opening, _End(len(lines), "pure")).rstrip()
    if not parses(body):
        body = _LAST_TOKENS.sub("", body)
    closed = body.endswith(opening.ticks)  # ... on the last line of code, as small models do
    body = dedent(body.removesuffix(opening.ticks))
    return Block(opening.label, body, closed, start, offsets[-1] - 1), len(lines)


def _blanked(line: str, column: int) -> str:
    """A line with blanks up to a column: what stands there has been read."""
    return " " * column + line[column:]


def _is_whole(body: str, end: _End) -> bool:
    """True where the code up to an end parses, and a fence between code and words does not stand in a comment."""
    return parses(body) and not (end.kind == "between" and parses(body + ")"))


def _body(lines: list[str], at: int, opening: _Opening, end: _End) -> str:
    """The lines of a block, without the marks of a quotation around it."""
    inner = lines[at + 1 : end.line]
    if end.kind in ("glued", "between"):
        inner = [*inner, end.last]
    if opening.quoted:
        inner = [_QUOTE.sub("", line) for line in inner]
    return "\n".join([opening.first, *inner] if opening.first else inner)


def _ends(lines: list[str], opening: int, ticks: str) -> Iterator[_End]:
    """The places after line `opening` where a block with that fence could end."""
    for index in range(opening + 1, len(lines)):
        line = lines[index]
        if ticks[0] * 3 not in line:
            continue
        if (pure := _PURE.match(line)) and pure["ticks"].startswith(ticks):
            yield _End(index, "pure")
        elif _opens_another(line.lstrip()):
            yield _End(index, "next")
        elif (behind := _BEHIND.match(line)) and behind["ticks"].startswith(ticks):
            yield _End(index, "words", column=behind.start("words"))
        else:
            if (glued := _GLUED.match(line)) and glued["ticks"].startswith(ticks):
                yield _End(index, "glued", glued["code"])
            for found in _TICKS.finditer(line):
                if found[0].startswith(ticks) and line[: found.start()].strip() and line[found.end() :].strip():
                    yield _End(index, "between", line[: found.start()], found.end())


def _opens_another(line: str) -> bool:
    """True for a line that opens a block of code, or begins with a fence and a label that touches it."""
    again = _INLINE.match(line) or _OPENING.match(line)
    if not again:
        return False
    return again["label"].lower() in PYTHON_LABELS or bool(_LABEL.fullmatch(line))
