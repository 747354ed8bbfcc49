"""Vocabularies: the phrases that instances are made of, and how far their words give the label away.

A vocabulary is a JSON file in `data/vocabularies/`: labels with phrases that belong to one label only, and frames
with slots. A *plain* frame holds one phrase, of the label: whoever knows the phrases knows the label. A *hard* frame
holds one phrase of every label of the window, and only its wording says which of them is meant ("not A or B but C").
All orders occur, so counting keywords is chance for an instance and, however many there are, for a window: each label
is named as often as any other. `leak` is the share of plain frames.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources

from rlm_env.authoring.draw import Draw


@dataclass(frozen=True)
class Vocabulary:
    """One vocabulary; see the module's docstring."""

    name: str
    noun: str
    """The header's word for the instances."""
    task: str
    """How the header describes the labels, with the slots {k} and {labels}."""
    lead: list[str]
    """Phrases that may precede a frame and are unrelated to the label; `tail` are those that may follow it."""
    labels: dict[str, list[str]]
    """Label -> the phrases that belong to it."""
    plain: list[str]
    hard: list[str]
    tail: list[str]

    def writer(self, labels: list[str], leak: float, draw: Draw) -> Callable[[int], str]:
        """A function from the index of a label in `labels` to a new instance text. `labels` are those of the window:
        the decoy phrases of an instance belong to the others."""
        plain = [tuple(frame.split("{yes}")) for frame in self.plain]
        phrases = [self.labels[label] for label in labels]
        others = [[p for j, p in enumerate(phrases) if j != i] for i in range(len(labels))]
        random, choice = draw.random, draw.choice
        bare = self.lead == self.tail == [""]

        def write(label: int) -> str:
            yes = choice(phrases[label])
            if random() < leak:
                before, after = choice(plain)
                text = before + yes + after
            else:
                no = " or ".join([choice(p) for p in draw.shuffled(others[label])])
                text = choice(self.hard).replace("{yes}", yes).replace("{no}", no)
            return text if bare else choice(self.lead) + text + choice(self.tail)

        return write


@cache
def load_vocabulary(name: str) -> Vocabulary:
    """Reads `data/vocabularies/<name>.json`. Raises ValueError naming those that exist."""
    folder = resources.files("oolong_rlm") / "data" / "vocabularies"
    known = sorted(f.name.removesuffix(".json") for f in folder.iterdir() if f.name.endswith(".json"))
    if name not in known:
        raise ValueError(f"vocabulary: {name!r} does not exist; there are {', '.join(known)}")
    data = json.loads((folder / f"{name}.json").read_text("utf-8"))
    del data["about"]
    return Vocabulary(name, **data)
