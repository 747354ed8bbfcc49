"""The environment `oolong-rlm`: options, tasks, scores."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from oolong_rlm.baselines import BASELINES
from oolong_rlm.hub import HubOptions, hub_tasks
from oolong_rlm.hub_pairs import SOURCE
from oolong_rlm.measure import make_measure
from oolong_rlm.pairs import PAIR_FAMILIES
from oolong_rlm.questions import EASY_FAMILIES, pick_families
from oolong_rlm.real import RealOptions, real_tasks
from oolong_rlm.synth import SynthOptions, synth_tasks
from oolong_rlm.transcripts import find_transcripts, read_transcripts
from oolong_rlm.vocabulary import load_vocabulary
from oolong_rlm.window import MIN_LINES, Size
from rlm_env.authoring.options import at_least, counts, one_of
from rlm_env.environment import Environment
from rlm_env.rollout import Rollout, Score
from rlm_env.task import Split, Task, Tasks
from rlm_rewards import oolong

GENERATED = {"profile", "families", "vocabulary", "leak", "with_labels", "tokenizer", "questions_per_context"}
OPTIONS_OF = {
    "synth": {"lengths", "lines", *GENERATED},
    "pairs": {"lengths", "lines", *GENERATED},
    "real": {"transcripts", "episodes", "tokenizer"},
    "hub-synth": {"lengths", "sources", "with_labels", "revision", "files"},
    "hub-pairs": {"lengths", "with_labels", "revision", "files"},
    "hub-real": {"revision", "files"},
}
"""Dataset -> the options that only some datasets have."""
BEFORE = {
    "more common than": "more common",
    "less common than": "less common",
    "same frequency as": "the same frequency",
}
"""What questions that compare before and after call the gold."""
PROFILES = ("standard", "tiny")
DEFAULT_LENGTH, TINY_LINES = 4096, 8
FORM = re.compile(r"in the form '([^']+)'")


class Oolong(Environment):
    """Oolong: count and compare what only reading tells, over a context of any length.

    Options, all by keyword:

    - `dataset`: `synth` (generated), `pairs` (generated; answers are lists of pairs of users), `real` (events planted
      in real transcripts), `hub-synth`, `hub-pairs` and `hub-real` (the published sets through `datasets`).
    - `seed`; `num_tasks`: how many tasks a split has (None: endless where generated, all where published).
    - `scoring`: `official` or `strict`, see `rewards/rlm_rewards/oolong.py`.
    - `profile`, of synth and pairs: `standard`, or `tiny`, which stands for `vocabulary="easy"` and `lines=8`, for very
      small models; either may be given otherwise.
    - synth and pairs: `lengths` in tokens, or instead `lines`, cycled over (None: 4096 tokens); `families` or groups
      (None: all, or the easy ones); `vocabulary` (`standard`, or `easy` for very small models); `leak`, the share of
      instances whose words give the label away (None: 0 for standard, 1 for easy); `with_labels`; `tokenizer` (a
      callable or a path; None: characters / 4); `questions_per_context`.
    - real: `transcripts` (a path; None: see `transcripts.find_transcripts`); `episodes` of a context, cycled over
      (None: 1); `tokenizer`, only to report lengths.
    - published: `revision` (None: the tested commit); `files`, a local copy; hub-synth and hub-pairs also `lengths` to
      keep and `with_labels`; hub-synth also `sources` to keep.

    The families of the easy vocabulary are most_common, least_common, compare, count (of a label), user_label (the
    user with most instances of a label), users_count (instances of a label by one user), month_count.
    """

    name = "oolong-rlm"
    tips = (resources.files("oolong_rlm") / "tips.txt").read_text("utf-8")

    def __init__(
        self,
        *,
        dataset: Literal["synth", "pairs", "real", "hub-synth", "hub-pairs", "hub-real"] = "synth",
        seed: int = 0,
        num_tasks: int | None = None,
        scoring: Literal["official", "strict"] = "official",
        profile: Literal["standard", "tiny"] | None = None,
        lengths: int | Sequence[int] | None = None,
        lines: int | Sequence[int] | None = None,
        families: str | Sequence[str] | None = None,
        vocabulary: str | None = None,
        leak: float | None = None,
        with_labels: bool | None = None,
        tokenizer: Callable[[str], Any] | str | Path | None = None,
        questions_per_context: int | None = None,
        transcripts: str | Path | None = None,
        episodes: int | Sequence[int] | None = None,
        revision: str | None = None,
        files: str | Path | None = None,
        sources: Sequence[str] | None = None,
        **unknown: Any,
    ) -> None:
        given = {name for name, value in locals().items() if value is not None}
        if unknown:
            known = [name for name in inspect.signature(Oolong).parameters if name != "unknown"]
            raise TypeError(f"unknown option {', '.join(map(repr, unknown))}; there are {', '.join(known)}")
        if dataset not in OPTIONS_OF:
            raise ValueError(f"dataset: {dataset!r} does not exist; there are {', '.join(OPTIONS_OF)}")
        idle = given & set().union(*OPTIONS_OF.values()) - OPTIONS_OF[dataset]
        if idle:
            raise ValueError(f"dataset {dataset!r} has no option {', '.join(sorted(idle))}")
        one_of("scoring", scoring, oolong.MODES)
        at_least("num_tasks", num_tasks, 1)
        self.dataset, self.scoring, self.num_tasks = dataset, scoring, num_tasks

        if dataset in ("synth", "pairs"):
            if one_of("profile", profile or "standard", PROFILES) == "tiny":
                vocabulary = vocabulary or "easy"
                lines = TINY_LINES if lengths is None and lines is None else lines
            easy = vocabulary == "easy"
            if dataset == "pairs":
                picked = pick_families(families, PAIR_FAMILIES)
            else:
                picked = pick_families(EASY_FAMILIES if easy and families is None else families)
            synth = SynthOptions(
                seed=seed,
                sizes=sizes_of(lengths, lines),
                families=picked,
                subset="pairs" if dataset == "pairs" else "synth",
                vocabulary=load_vocabulary(vocabulary or "standard"),
                leak=float(easy) if leak is None else leak,
                with_labels=bool(with_labels),
                measure=make_measure(tokenizer),
                questions_per_context=1
                if questions_per_context is None
                else counts("questions_per_context", questions_per_context)[0],
            )
            if not 0 <= synth.leak <= 1:
                raise ValueError(f"leak must lie in [0, 1], got {leak}")
            self._make: Callable[[Split], Iterator[Task]] = lambda split: synth_tasks(synth, split)
        elif dataset == "real":
            table = read_transcripts(find_transcripts(transcripts))
            real = RealOptions(
                seed, table, counts("episodes", 1 if episodes is None else episodes), make_measure(tokenizer)
            )
            if max(real.episodes) > len(table.episodes):
                raise ValueError(f"episodes: the transcripts hold {len(table.episodes)}, got {max(real.episodes)}")
            self._make = lambda split: real_tasks(real, split)
        else:
            keep = None if lengths is None else counts("lengths", lengths)
            hub = HubOptions(
                dataset, revision, files, keep, [SOURCE] if dataset == "hub-pairs" else sources, bool(with_labels)
            )
            self._make = lambda split: hub_tasks(hub, split)

    def tasks(self, split: Split) -> Iterable[Task]:
        if split not in ("train", "eval"):
            raise ValueError(f"split must be train or eval, got {split!r}")
        return Tasks(lambda: islice(self._make(split), self.num_tasks), split)

    def score(self, task: Task, rollout: Rollout) -> Score:
        if task.info["subset"] == "pairs":
            found = oolong.pairs_f1(rollout.answer, task.gold)
            strict = oolong.score(rollout.answer, task.gold, "pairs", mode="strict")
            metrics = {"exact": float(found["f1"] == 1.0), "strict": strict, **found}
            return Score(strict if self.scoring == "strict" else found["f1"], metrics)
        subset, answer_type = task.info["subset"], task.info.get("answer_type")
        value, why = oolong.judge(rollout.answer, task.gold, subset, answer_type, self.scoring)
        strict = oolong.score(rollout.answer, task.gold, subset, answer_type, "strict")
        return Score(value, {"exact": float(value == 1.0), "strict": strict}, why)

    def baselines(self) -> Mapping[str, Callable[[Task], str]]:
        return BASELINES

    def perfect_answer(self, task: Task) -> str:
        """The gold in the form that the question names."""
        if task.info["subset"] == "pairs":
            return task.gold
        if task.info["subset"] == "real":
            return f"\\boxed{{{task.gold}}}"
        value = oolong.show_gold(task.gold)
        form = FORM.search(task.question)
        head, _, tail = (form[1] if form else "Answer: [X]").partition(": ")
        if "[X] before" in tail:
            value = BEFORE.get(value, value)
        slot = next((slot for slot in ("[month] [year]", "[X]", "answer", "number") if slot in tail), tail)
        return f"{head}: {tail.replace(slot, value, 1)}"


class OolongPairs(Oolong):
    """`Oolong` with `dataset="pairs"` unless another one is named."""

    name = "oolong-pairs-rlm"

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"dataset": "pairs", **options})


def sizes_of(lengths: int | Sequence[int] | None, lines: int | Sequence[int] | None) -> list[Size]:
    """How long contexts shall be: given in tokens or in lines, not in both."""
    if lines is None:
        return [Size(n) for n in counts("lengths", DEFAULT_LENGTH if lengths is None else lengths)]
    if lengths is not None:
        raise ValueError("lengths (in tokens) and lines exclude each other; give one of them")
    few = [n for n in counts("lines", lines) if n < MIN_LINES]
    if few:
        raise ValueError(f"lines must be {MIN_LINES} or more, got {few[0]}")
    return [Size(n, "lines") for n in counts("lines", lines)]
