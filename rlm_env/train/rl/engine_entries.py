"""The table `[[engines]]` of a training config: that of evaluations, with several engines for a role, and with the
question whether an engine follows the trainer.

Not covered: starting engines, choosing among them (`rlm_env/train/sync/fleet.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from rlm_env.llm.vllm.arguments import set_elsewhere
from rlm_env.runs.engine_table import EngineEntry, Role, endpoint_place, file_name, port_problems
from rlm_env.runs.options import UNNAMED, EngineOptions
from rlm_env.train.learner.config import SamplesConfig
from rlm_env.train.rl.engine_arguments import argument_problems
from rlm_env.train.rl.teacher_config import TeacherConfig
from rlm_env.train.sync.config import METHODS_OF_VLLM

OF_TEXT_ENDPOINTS = ("key_env", "tokens", "window", "tools", "stream")
"""Keys that say nothing of an engine that follows: it is a vLLM, and serves the run's model."""


class TrainEngineEntry(EngineEntry):
    """One of `[[engines]]` in training: the keys that evaluations have too, and those of training."""

    model: str = ""
    """What it serves: of a local one a model folder, at `base_url` the name there. Default: the run's `model`."""
    name: str = Field(default_factory=lambda known: known.get("model") or UNNAMED, min_length=1, validate_default=True)
    """Its name in messages and for `--set engines.NAME.key=value`. Default: `model`, or `vllm` without one."""
    weights: Literal["followed", "fixed"] = "followed"
    """`followed`: it gets the trainer's weights after every step. `fixed`: it keeps those it has, and nothing that it
    samples is trained."""

    @property
    def followed(self) -> bool:
        """Whether it gets the trainer's weights."""
        return self.weights == "followed"


def engines_for(role: Role, entries: Sequence[TrainEngineEntry]) -> list[TrainEngineEntry]:
    """The engines that answer in a role; the sub-LLM is the root LLM where no engine has its role."""
    found = [entry for entry in entries if role in entry.roles]
    return found if found or role != "sub" else engines_for("root", entries)


def engine_problems(
    entries: Sequence[TrainEngineEntry], engine: EngineOptions, model: str, samples: SamplesConfig, method: str
) -> Iterator[tuple[bool, str]]:
    """Whether something is wrong with the table, and what to say then. `engine`: the table `[engine]`. `method`: how
    weights travel."""
    if not entries:
        return
    yield engine != EngineOptions(), "[engine] does not go with [[engines]]: give each its own server = { ... }"
    names = [entry.name for entry in entries]
    twice = {name for name in names if names.count(name) > 1}
    yield bool(twice), f"engines: '{min(twice, default='')}' is there twice; give each its own name"
    files = [file_name(name) for name in names]
    alike = [name for name in names if files.count(file_name(name)) > 1]
    yield bool(alike) and not twice, f"engines: {' and '.join(alike)} would share one log; give them other names"
    for entry in entries:
        yield from _entry_problems(entry, model)
    following = [entry.name for entry in entries if entry.followed]
    yield (
        method in METHODS_OF_VLLM and len(following) > 1,
        f'sync.method = "{method}" goes to one engine, and {", ".join(following)} follow: use "disk" or "lora"',
    )
    yield (
        method == "ipc" and any(entry.followed and entry.base_url for entry in entries),
        'sync.method = "ipc" is for an engine that the run starts on the GPUs of the trainer: use "disk" or "nccl"',
    )
    yield not engines_for("root", entries), 'engines: none has the role root; add roles = ["root", "sub"]'
    trained: dict[Role, bool] = {"root": samples.train_root, "sub": samples.train_sub_calls}
    for role in trained:
        of_role = engines_for(role, entries)
        kinds = {entry.weights for entry in of_role}
        yield (
            len(kinds) > 1,
            f"engines: of those with the role {role} ({', '.join(entry.name for entry in of_role)}) some follow and "
            "some are fixed: name the roles of each (roles = [...])",
        )
        key = "train_root" if role == "root" else "train_sub_calls"
        yield (
            kinds == {"fixed"} and trained[role],
            f'engines: the role {role} has weights = "fixed", whose tokens are not trained: set samples.{key} = false',
        )


def _entry_problems(entry: TrainEngineEntry, model: str) -> Iterator[tuple[bool, str]]:
    """What is wrong with one engine."""
    where = f"engines.{entry.name}"
    default = type(entry).model_fields
    yield entry.name in (".", ".."), f"{where}: '{entry.name}' cannot be a name"
    check = argument_problems if entry.followed else set_elsewhere
    for problem in check(entry.server.extra_args):
        yield True, f"{where}.server.extra_args: {problem}"
    yield entry.prices is not None, f"{where}.prices has no effect in training, which counts no money"
    if entry.followed:
        yield "judge" in entry.roles, f'{where}: a judge that learns along would change the reward: weights = "fixed"'
        yield (
            entry.base_url is None and entry.model not in ("", model),
            f"{where}.model: an engine that follows serves the run's model; leave it out",
        )
        given = [key for key in OF_TEXT_ENDPOINTS if getattr(entry, key) != default[key].default]
        yield bool(given), f"{where}.{', '.join(given)}: has no effect on a vLLM that follows the trainer"
    else:
        yield (
            entry.base_url is not None and not entry.model,
            f"{where}.model: name the model that is asked at {entry.base_url}",
        )


def place_problems(entries: Sequence[TrainEngineEntry], teacher: TeacherConfig | None) -> Iterator[tuple[bool, str]]:
    """Whether two of these are one vLLM, of which one changes the weights, or want one port, and what to say then."""
    at: dict[tuple[str, int, str], TrainEngineEntry] = {}
    for entry in entries:
        if entry.base_url is not None:
            other = at.setdefault(endpoint_place(entry.base_url), entry)
            yield (
                other is not entry and (other.followed or entry.followed),
                f"engines.{other.name} and engines.{entry.name} are one vLLM, at {entry.base_url}, whose weights the "
                "run changes: name it once, with all its roles",
            )
    servers = {f"engines.{entry.name}.server": entry.server for entry in entries}
    if teacher is not None:
        same = at.get(endpoint_place(teacher.base_url)) if teacher.base_url else None
        yield (
            same is not None and same.followed,
            f"teacher.base_url is engines.{same.name if same else ''}, which gets the weights that are trained: a "
            "teacher has its own",
        )
        servers["teacher.server"] = teacher.server
    for problem in port_problems(servers):
        yield True, problem
