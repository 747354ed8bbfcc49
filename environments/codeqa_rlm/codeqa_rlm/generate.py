"""Tasks about synthetic repositories: seeded, endless, of any size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codeqa_rlm.choices import FORM, TINY_FORM, ask, shuffle
from codeqa_rlm.questions import FAMILIES
from codeqa_rlm.synth import build
from codeqa_rlm.words import VOCABULARIES
from rlm_env.authoring.draw import Draw
from rlm_env.task import Split, Task

FORMAT = 1
"""Part of every seed: raised when the bytes of generated tasks change."""
TRIES = 60
"""Repositories that are drawn until one has a question of the family."""
CHARACTERS_PER_TOKEN = 4
SMALL = 16_000
"""Characters; repositories up to this size consist mostly of what their question is about."""
ABOUT_CLASSES = ("overrides", "order", "resolves")
TINY_FAMILIES = ("callers", "overrides", "default")
FAMILIES_OF = {"standard": tuple(FAMILIES), "tiny": TINY_FAMILIES}


@dataclass(frozen=True)
class GeneratedSet:
    """The checked options of a stream of generated tasks."""

    seed: int
    profile: str
    lengths: Sequence[int]
    """Tokens of a context; task i has `lengths[i % len(lengths)]`."""
    files: int | None
    """About how many modules a context has."""
    families: Sequence[str]
    """Cycled over, once per round of lengths."""
    choices: str


def generated_task(options: GeneratedSet, split: Split, index: int) -> Task:
    """Task number `index`; depends on seed, split, index and the options, on nothing else.

    Raises ValueError if no repository of that length has a question of the family."""
    length = options.lengths[index % len(options.lengths)]
    family = options.families[index // len(options.lengths) % len(options.families)]
    size = length * CHARACTERS_PER_TOKEN
    classes = 0.35
    if size <= SMALL and family != "statement":
        classes = 0.75 if family in ABOUT_CLASSES else 0.15
    for attempt in range(TRIES):
        draw = Draw("codeqa", FORMAT, options.seed, split, index, family, attempt)
        repository = build(VOCABULARIES[options.profile], size, options.files, classes, draw)
        question = FAMILIES[family](repository.facts(), draw) if repository.functions and repository.order else None
        if question is not None:
            break
    else:
        raise ValueError(
            f"lengths: repositories of {length} tokens are too small for the family {family!r}; use a greater length "
            "or other families"
        )
    listed, right = shuffle(question, draw)
    text = ask(question.text, listed, options.choices, TINY_FORM if options.profile == "tiny" else FORM)
    characters = sum(len(path) + len(content) for path, content in repository.files.items())
    info = {
        "family": family,
        "dataset": "generated",
        "profile": options.profile,
        "choices": options.choices,
        "length_tokens": characters // CHARACTERS_PER_TOKEN,
        "length_characters": characters,
        "files": len(repository.files),
    }
    id = f"{split}-{options.seed}-{index}"
    return Task(text, repository.files, options.choices[right], id, info)
