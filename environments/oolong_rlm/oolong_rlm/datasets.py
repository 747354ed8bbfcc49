"""The six data sets of Oolong: a dataclass of options each, whose `stream` checks them and gives the tasks.

The tasks themselves are made in `synth.py` (synth and pairs), `real.py` and `hub.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from oolong_rlm.hub import PublishedSet, hub_tasks
from oolong_rlm.hub_pairs import SOURCE
from oolong_rlm.measure import make_measure
from oolong_rlm.pairs import PAIR_FAMILIES
from oolong_rlm.questions import EASY_FAMILIES, Family, pick_families
from oolong_rlm.real import PlantedSet, real_task
from oolong_rlm.synth import GeneratedSet, SynthTasks
from oolong_rlm.transcripts import find_transcripts, read_transcripts
from oolong_rlm.vocabulary import load_vocabulary
from oolong_rlm.window import MIN_LINES, Size
from rlm_env.authoring.indexed import IndexedTasks
from rlm_env.authoring.options import counts, one_of
from rlm_env.task import Split, Task

PROFILES = ("standard", "tiny")
DEFAULT_LENGTH, TINY_LINES = 4096, 8

Stream = Callable[[Split], Iterator[Task]]
"""The tasks of a split, from the first one on."""


@dataclass(frozen=True, kw_only=True)
class SynthOptions:
    """`synth`: generated windows of labeled instances, asked for counts, comparisons, users and dates."""

    profile: Literal["standard", "tiny"] = "standard"
    """`tiny`, for very small models, is short for `vocabulary="easy"` and `lines=8`; either may be overridden."""
    lengths: int | Sequence[int] | None = None
    """Tokens of a context, cycled over; 4096 unless `lines` is given."""
    lines: int | Sequence[int] | None = None
    """Instances of a context, cycled over, in place of `lengths`; at least 4."""
    families: str | Sequence[str] | None = None
    """Families of questions, or groups of them; None: all, or with the easy vocabulary the easy ones."""
    vocabulary: str | None = None
    """`standard` (the default), or `easy` (closed and tiny, for very small models)."""
    leak: float | None = None
    """Share of the instances whose words give the label away; None: 0 (standard) or 1 (easy)."""
    with_labels: bool = False
    """Print the label behind each instance."""
    tokenizer: Callable[[str], Any] | str | Path | None = None
    """Counts tokens: a callable, or the path of a tokenizer; None: characters / 4."""
    questions_per_context: int = 1
    """Consecutive tasks about the same context (25 in the paper)."""

    subset: ClassVar[Literal["synth", "pairs"]] = "synth"

    def stream(self, seed: int) -> Stream:
        tiny = one_of("profile", self.profile, PROFILES) == "tiny"
        vocabulary = self.vocabulary or ("easy" if tiny else "standard")
        easy = vocabulary == "easy"
        leak = float(easy) if self.leak is None else self.leak
        if not 0 <= leak <= 1:
            raise ValueError(f"leak must lie in [0, 1], got {leak}")
        lines = TINY_LINES if tiny and self.lengths is None and self.lines is None else self.lines
        generated = GeneratedSet(
            seed=seed,
            sizes=sizes_of(self.lengths, lines),
            families=self._families(easy),
            subset=self.subset,
            vocabulary=load_vocabulary(vocabulary),
            leak=leak,
            with_labels=self.with_labels,
            measure=make_measure(self.tokenizer),
            questions_per_context=counts("questions_per_context", self.questions_per_context)[0],
        )
        return IndexedTasks(SynthTasks(generated))

    def _families(self, easy: bool) -> dict[str, tuple[str, Family]]:
        return pick_families(EASY_FAMILIES if easy and self.families is None else self.families)


@dataclass(frozen=True, kw_only=True)
class PairsOptions(SynthOptions):
    """`pairs`: the same windows, asked for all pairs of users that meet a condition."""

    subset: ClassVar[Literal["synth", "pairs"]] = "pairs"

    def _families(self, easy: bool) -> dict[str, tuple[str, Family]]:
        return pick_families(self.families, PAIR_FAMILIES)


@dataclass(frozen=True, kw_only=True)
class RealOptions:
    """`real`: rolls and spells planted in real transcripts."""

    transcripts: str | Path | None = None
    """The file of the transcripts, or the folder that holds it; None: what OOLONG_TRANSCRIPTS names."""
    episodes: int | Sequence[int] = 1
    """Episodes of a context, cycled over."""
    tokenizer: Callable[[str], Any] | str | Path | None = None
    """Only to report lengths in tokens; None: characters / 4."""

    def stream(self, seed: int) -> Stream:
        transcripts = read_transcripts(find_transcripts(self.transcripts))
        episodes = counts("episodes", self.episodes)
        if max(episodes) > len(transcripts.episodes):
            raise ValueError(f"episodes: the transcripts hold {len(transcripts.episodes)}, got {max(episodes)}")
        return IndexedTasks(partial(real_task, PlantedSet(seed, transcripts, episodes, make_measure(self.tokenizer))))


@dataclass(frozen=True, kw_only=True)
class HubRealOptions:
    """`hub-real`: the published Oolong-real, which knows no seed."""

    revision: str | None = None
    """Another commit than the tested one (40 hex digits)."""
    files: str | Path | None = None
    """A local copy of the published files."""

    def stream(self, seed: int) -> Stream:
        return partial(hub_tasks, PublishedSet("hub-real", self.revision, self.files))


@dataclass(frozen=True, kw_only=True)
class HubPairsOptions(HubRealOptions):
    """`hub-pairs`: the RLM paper's questions about pairs, on the windows of the published Oolong-synth."""

    lengths: int | Sequence[int] | None = None
    """The values of `context_len` to keep; None: all."""
    with_labels: bool = False
    """Take the contexts that print the labels."""

    def stream(self, seed: int) -> Stream:
        return self._published("hub-pairs", [SOURCE])

    def _published(self, dataset: str, sources: Sequence[str] | None) -> Stream:
        lengths = None if self.lengths is None else counts("lengths", self.lengths)
        published = PublishedSet(dataset, self.revision, self.files, lengths, sources, self.with_labels)
        return partial(hub_tasks, published)


@dataclass(frozen=True, kw_only=True)
class HubSynthOptions(HubPairsOptions):
    """`hub-synth`: the published Oolong-synth."""

    sources: Sequence[str] | None = None
    """The values of the column `dataset` to keep, for example `["trec_coarse"]`; None: all."""

    def stream(self, seed: int) -> Stream:
        return self._published("hub-synth", self.sources)


DatasetOptions = SynthOptions | RealOptions | HubRealOptions
DATASETS: dict[str, type[DatasetOptions]] = {
    "synth": SynthOptions,
    "pairs": PairsOptions,
    "real": RealOptions,
    "hub-synth": HubSynthOptions,
    "hub-pairs": HubPairsOptions,
    "hub-real": HubRealOptions,
}


def sizes_of(lengths: int | Sequence[int] | None, lines: int | Sequence[int] | None) -> list[Size]:
    """The sizes of contexts, in tokens or in lines but not in both."""
    if lines is None:
        return [Size(n) for n in counts("lengths", DEFAULT_LENGTH if lengths is None else lengths)]
    if lengths is not None:
        raise ValueError("lengths (in tokens) and lines exclude each other; give one of them")
    few = [n for n in counts("lines", lines) if n < MIN_LINES]
    if few:
        raise ValueError(f"lines must be {MIN_LINES} or more, got {few[0]}")
    return [Size(n, "lines") for n in counts("lines", lines)]
