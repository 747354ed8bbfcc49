"""Real transcripts of role-playing sessions, and names that do not occur in them.

The file has one JSON object a line, gzipped or not: `{"episode": "C2E001", "turns": [["MATT", "what was said"], ...]}`.
It is not part of the package: transcripts of CRD3 (Rameshkumar and Bailey, ACL 2020, CC BY-SA 4.0) suit.
"""

from __future__ import annotations

import gzip
import json
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rlm_env.authoring.draw import Draw

FILE_NAME = "crd3_episodes.jsonl.gz"
VARIABLE = "OOLONG_TRANSCRIPTS"


@dataclass(frozen=True)
class Episode:
    """One session: who says what, in order."""

    name: str
    turns: list[tuple[str, str]]
    """(speaker, utterance without line ends)."""


@dataclass(frozen=True)
class Transcripts:
    """Episodes and the words that occur in any of them."""

    episodes: list[Episode]
    words: str
    """All different words in lower case, separated by blanks: a name occurs in the text iff it occurs in here."""

    def invent(self, draw: Draw, n: int) -> list[str]:
        """`n` different names made of syllables, none of which is part of a word of the text or of another name."""
        names: list[str] = []
        while len(names) < n:
            name = "".join(draw.choice(ONSETS) + draw.choice(VOWELS) for _ in range(3)) + draw.choice(CODAS)
            clash = name in self.words or any(name in other.lower() or other.lower() in name for other in names)
            if not clash:
                names.append(name.capitalize())
        return names


ONSETS = (
    "b",
    "br",
    "d",
    "dr",
    "f",
    "g",
    "gl",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "qu",
    "r",
    "s",
    "sh",
    "t",
    "th",
    "v",
    "z",
)
VOWELS = ("a", "e", "i", "o", "u", "ae", "ou")
CODAS = ("l", "n", "r", "s", "th", "x")


def find_transcripts(path: str | Path | None = None) -> Path:
    """The transcript file: `path` (the file, or a folder that holds a crd3_episodes.jsonl.gz), or else what the
    environment variable OOLONG_TRANSCRIPTS names.

    Raises FileNotFoundError with the remedy where neither is given or there is no such file."""
    named = path or os.environ.get(VARIABLE)
    looked = "none are named"
    if named:
        file = Path(named) / FILE_NAME if Path(named).is_dir() else Path(named)
        if file.is_file():
            return file
        looked = f"there is no file {file}"
    raise FileNotFoundError(
        f"no transcripts ({looked}): give transcripts=<path of a .jsonl or .jsonl.gz file with one "
        f'{{"episode", "turns"}} object a line> or set {VARIABLE}'
    )


def read_transcripts(path: Path) -> Transcripts:
    """Reads a transcript file once per process. Raises ValueError naming the line that is not as described."""
    return _read(path.resolve(), path.stat().st_mtime_ns)


@cache
def _read(path: Path, modified: int) -> Transcripts:
    episodes, words = [], set()
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                turns = [(str(speaker).title(), " ".join(said.split())) for speaker, said in record["turns"]]
                episodes.append(Episode(str(record["episode"]), turns))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f'{path}, line {number}: expected {{"episode", "turns"}}, got {error!r}') from None
            for speaker, said in turns:
                words.update(re.findall(r"[^\W\d_]+", f"{speaker} {said}".lower()))
    if not episodes:
        raise ValueError(f"{path} holds no episode")
    return Transcripts(episodes, " ".join(sorted(words)))
