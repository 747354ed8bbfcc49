"""Tasks about installed packages with their identifiers replaced, so that knowing the package does not help.

Each task replaces the names anew. The facts are read from the syntax trees (`analysis.py`); calls and exceptions are
those written in the code, since unknown functions cannot safely be called. The standard library differs between Python
versions, and so do these tasks: `info["source"]` records the version and a hash of the files. Contexts are as long as
the packages, and chains of calls are not asked about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codeqa_rlm.analysis import analyze
from codeqa_rlm.choices import ask, shuffle
from codeqa_rlm.generate import CHARACTERS_PER_TOKEN, FORMAT
from codeqa_rlm.questions import FAMILIES
from codeqa_rlm.source import locate, read_source
from codeqa_rlm.words import STANDARD
from rlm_env.authoring.draw import Draw
from rlm_env.task import Split, Task

STANDARD_LIBRARY: dict[Split, tuple[str, ...]] = {
    "train": ("email", "logging", "xmlrpc", "multiprocessing", "configparser", "wsgiref", "xml"),
    "eval": ("asyncio", "unittest", "json", "http", "argparse", "urllib", "concurrent", "html"),
}
"""Packages that every installation of Python has."""
FAMILIES_HERE = tuple(name for name in FAMILIES if name != "chain")
TRIES = 40
"""Packages and draws that are tried for a question of a family."""


@dataclass(frozen=True)
class InstalledSet:
    """The checked options of a stream of tasks about installed packages."""

    seed: int
    packages: Sequence[str] | None
    """None: `STANDARD_LIBRARY`."""
    families: Sequence[str]
    """Cycled over."""
    choices: str


def check_packages(packages: str | Sequence[str]) -> list[str]:
    """The names of packages with source. Raises ValueError for one that is not installed or not written in Python."""
    names = [packages] if isinstance(packages, str) else list(packages)
    if not names:
        raise ValueError("packages must name at least one package")
    for name in names:
        locate(name)
    return names


def installed_task(options: InstalledSet, split: Split, index: int) -> Task:
    """Task number `index`; depends on seed, split, index, the options and the files of the package.

    A package that has no question of the family (one without classes, say) is passed over for another one; raises
    ValueError if none has one."""
    family = options.families[index % len(options.families)]
    packages = options.packages or STANDARD_LIBRARY[split]
    for attempt in range(TRIES):
        draw = Draw("codeqa-installed", FORMAT, options.seed, split, index, family, attempt)
        source = read_source(draw.choice(packages))
        analysis = analyze(source)
        names = analysis.new_names(STANDARD, draw)
        facts = analysis.facts(names)
        question = FAMILIES[family](facts, draw) if facts.order and facts.mentions else None
        if question is not None:
            break
    else:
        raise ValueError(
            f"packages: none of {', '.join(packages)} carries a question of the family {family!r}; name others, or "
            "other families"
        )
    listed, right = shuffle(question, draw)
    files = analysis.renamed(names)
    characters = sum(len(path) + len(content) for path, content in files.items())
    info = {
        "family": family,
        "dataset": "installed",
        "choices": options.choices,
        "length_tokens": characters // CHARACTERS_PER_TOKEN,
        "length_characters": characters,
        "files": len(files),
        "source": source.described(),
    }
    text = ask(question.text, listed, options.choices)
    return Task(text, files, options.choices[right], f"{split}-{options.seed}-{index}", info)
