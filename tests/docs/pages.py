"""The documents of the project, their code blocks, commands and links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
GENERATED = ("docs/api.md", "docs/modules.md", "docs/modules/")
"""Pages that a script writes from the code: their signatures are no examples."""
FENCE = re.compile(r"^(`{3,})(\w*)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"<!-- (run by|not run:) ([^>]+?) -->\n+\Z")
"""What stands above a block: the test that runs it, or why none does."""
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    """A fenced block. `kind` is `run by`, `not run:` or empty, `why` the rest of the comment above it."""

    page: str
    line: int
    language: str
    text: str
    kind: str
    why: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A line of a shell, as words; `|`, `&&` and leading assignments separate commands and are left out."""

    place: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.place} {shlex.join(self.words)}"


@cache
def pages() -> dict[str, str]:
    """Path of each document -> its text."""
    patterns = ("*.md", "docs/**/*.md", "environments/*/README.md", "rlm_env/models/*/README.md")
    found = sorted(path for pattern in patterns for path in ROOT.glob(pattern))
    return {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in found}


@cache
def blocks() -> tuple[Block, ...]:
    """Every fenced block that somebody wrote."""
    found = []
    for page, text in pages().items():
        if page.startswith(GENERATED):
            continue
        for match in FENCE.finditer(text):
            mark = MARK.search(text[: match.start()])
            kind, why = (mark[1], mark[2]) if mark else ("", "")
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(page, line, match[2], match[3], kind, why))
    return tuple(found)


@cache
def commands() -> tuple[Command, ...]:
    """Every command in a block of `bash`, and every one in backticks that begins with a program of ours."""
    found = [command for block in blocks() if block.language == "bash" for command in of_block(block)]
    for page, text in pages().items():
        if page.startswith(GENERATED):
            continue
        prose = FENCE.sub("", text)
        for code in INLINE.findall(prose):
            if re.match(r"(rlm-env|(python )?(\./)?scripts/\S+\.(sh|py))(?= |$)", code):
                found += [Command(page, words) for words in split(code)]
    return tuple(found)


def of_block(block: Block) -> Iterator[Command]:
    """The commands of a block, one a line; a backslash or an open quote joins lines, a comment ends one."""
    begun = ""
    for line in block.text.replace("\\\n", " ").splitlines():
        begun = f"{begun}\n{line}" if begun else line
        try:
            found = list(split(begun))
        except ValueError:  # a quote is open
            continue
        begun = ""
        yield from (Command(str(block), words) for words in found)
    assert not begun, f"{block}: a quote that is never closed"


def split(line: str) -> Iterator[tuple[str, ...]]:
    """The commands of a line, without assignments in front and redirections."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    lexer.commenters = "#" if " #" in line or line.startswith("#") else ""
    words: list[str] = []
    for word in [*lexer, "&&"]:
        if word in ("|", "&", "&&", ";"):
            while words and re.match(r"[A-Z_]+=", words[0]):
                words.pop(0)
            if words:
                yield tuple(words)
            words = []
        else:
            words.append(word)
