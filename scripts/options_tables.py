"""Writes the tables of docs/evaluating-options.md and docs/training-options.md from the models of the configs.

Usage: python scripts/options_tables.py

A table stands between `<!-- options: NAME -->` and `<!-- end -->`; names are in `PAGES`. A test checks that they are up
to date.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
import typing
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from rlm_env.evals.config import EvalConfig, EvalEnvironment
from rlm_env.llm.base import Sampling
from rlm_env.repl.config import ReplConfig
from rlm_env.runs.engine_keys import EngineKeys
from rlm_env.runs.engine_table import EngineEntry
from rlm_env.runs.errors import table_model
from rlm_env.runs.options import EngineOptions, EnvironmentEntry
from rlm_env.runs.prices import Price
from rlm_env.scaffolds.config import RLMConfig
from rlm_env.scaffolds.summary import SummaryConfig
from rlm_env.train.learner.config import (
    CheckpointConfig,
    LoraConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    SamplesConfig,
)
from rlm_env.train.report.tracking import TrackerConfig, WandbConfig
from rlm_env.train.rl.advantage import AdvantageConfig
from rlm_env.train.rl.config import (
    CurriculumStage,
    DifficultyPools,
    GroupsConfig,
    HeldOutConfig,
    TrainConfig,
    TrainEnvironment,
)
from rlm_env.train.rl.engine_entries import TrainEngineEntry
from rlm_env.train.rl.supervised_config import SupervisedConfig
from rlm_env.train.rl.teacher_config import TeacherConfig
from rlm_env.train.sft.config import KeepConfig, SFTConfig
from rlm_env.train.sync.config import SyncConfig

DOCS = Path(__file__).parents[1] / "docs"
PAGES: dict[Path, tuple[type[Any], ...]] = {
    DOCS / "evaluating-options.md": (
        EngineKeys,
        EvalConfig,
        EvalEnvironment,
        EngineEntry,
        EngineOptions,
        Price,
        RLMConfig,
        SummaryConfig,
        Sampling,
        ReplConfig,
    ),
    DOCS / "training-options.md": (
        TrainConfig,
        EnvironmentEntry,
        TrainEnvironment,
        CurriculumStage,
        GroupsConfig,
        DifficultyPools,
        AdvantageConfig,
        LossConfig,
        TeacherConfig,
        SupervisedConfig,
        SyncConfig,
        TrainEngineEntry,
        HeldOutConfig,
        ModelConfig,
        LoraConfig,
        OptimizerConfig,
        SamplesConfig,
        CheckpointConfig,
        WandbConfig,
        TrackerConfig,
        SFTConfig,
        KeepConfig,
    ),
}
"""Each page, and the models whose tables it has."""
TABLES: dict[str, type[Any]] = {model.__name__: model for models in PAGES.values() for model in models}
BLOCK = re.compile(r"(<!-- options: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_tables(text: str) -> str:
    """The page with its tables as the models have them."""
    return BLOCK.sub(lambda found: f"{found[1]}{table(TABLES[found[2]])}{found[3]}", text)


def table(model: type[Any]) -> str:
    """One row per field that the model itself declares: name, default, meaning."""
    rows = [
        f"| `{name}` | {default(model, name)} | {' '.join(filter(None, (text, choices(model, name, text))))} |"
        for name, text in field_texts(model).items()
    ]
    return "\n".join(["| key | default | meaning |", "| --- | --- | --- |", *rows]) + "\n"


def choices(model: type[Any], name: str, text: str) -> str:
    """The values that a field may have, where they are few and its text does not name them all; or that it is a
    table."""
    annotation = typing.get_type_hints(model, include_extras=True)[name]
    if table_model(annotation) is not None:
        if text:
            return ""
        return f"Tables, `[[{name}]]`." if typing.get_origin(annotation) is tuple else f"A table, `[{name}]`."
    kinds = [annotation, *typing.get_args(annotation)]
    known = [value for kind in kinds if typing.get_origin(kind) is Literal for value in typing.get_args(kind)]
    if all(f"`{value}`" in text for value in known):
        return ""
    return f"One of {', '.join(f'`{value}`' for value in known)}."


def field_texts(model: type[Any]) -> dict[str, str]:
    """The texts below the fields in the source of a model; "" where there is none."""
    body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for statement, after in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            text = ""
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                text = " ".join(str(after.value.value).split())
            found[statement.target.id] = text.replace("|", "\\|")
    return {name: text for name, text in found.items() if name in field_names(model)}


def field_names(model: type[Any]) -> list[str]:
    """The fields of a pydantic model or a dataclass, inherited ones included."""
    if issubclass(model, BaseModel):
        return [*model.model_fields]
    return [field.name for field in dataclasses.fields(model)]


def default(model: type[Any], name: str) -> str:
    """The default of a field as it is written in TOML; empty where there is none, or a table of its own."""
    if issubclass(model, BaseModel):
        value: Any = model.model_fields[name].default
        needed = model.model_fields[name].is_required()
    else:
        value = next(field.default for field in dataclasses.fields(model) if field.name == name)
        needed = False
    if needed:
        return "(needed)"
    if value is None or value in (PydanticUndefined, dataclasses.MISSING):
        return ""
    if isinstance(value, BaseModel) or dataclasses.is_dataclass(value):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        items = ", ".join(f'"{item}"' for item in value)
        return f"`[{items}]`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(with_tables(page.read_text("utf-8")), "utf-8")
