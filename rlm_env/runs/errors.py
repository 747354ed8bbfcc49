"""Errors of a run that are not the model's doing, and how they are worded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rlm_env.spelling import near_matches


class ConfigError(ValueError):
    """Something that the user asked for cannot be done. The message says what, where, and the remedy."""


class RunStopped(Exception):
    """A run was stopped before its end. What had finished is on disk.

    `status` goes into summary.json; `exit_code` is that of the command.
    """

    def __init__(self, status: str, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.status = status
        self.exit_code = exit_code


def explain_validation(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """A pydantic error as plain lines: `where`, the key, what is wrong, and near matches of unknown keys."""
    return "\n".join(f"{where}: {problem}" for problem in validation_problems(error, model))


def validation_problems(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """The mistakes in a pydantic error, one text per key."""
    found = []
    for detail in error.errors():
        key = ".".join(str(part) for part in detail["loc"])
        if detail["type"] == "default_factory_not_called":
            continue  # it follows from another mistake, which is named too
        if detail["type"] == "extra_forbidden":
            hint = near_matches(str(detail["loc"][-1]), _keys_at(model, detail["loc"][:-1]))
            found.append(f"unknown key '{key}'{hint}")
        elif detail["type"] == "missing":
            found.append(f"'{key}' is missing")
        elif detail["type"] == "value_error":
            found.append(f"{key + ': ' if key else ''}{detail.get('ctx', {}).get('error')}")
        else:
            found.append(f"{key}: {_wanted(detail, model)}, got {detail['input']!r}")
    return found


def _wanted(detail: ErrorDetails, model: type[BaseModel]) -> str:
    """What a key takes, in the words of a config."""
    key = ".".join(part for part in detail["loc"] if isinstance(part, str))
    if detail["type"] in ("tuple_type", "list_type"):
        return f"a table for each is wanted, [[{key}]]" if _keys_at(model, detail["loc"]) else "a list is wanted, [...]"
    return f"a table is wanted, [{key}]" if detail["type"] in ("model_type", "dict_type") else detail["msg"]


def _keys_at(model: type[BaseModel], path: Iterable[int | str]) -> Iterable[str]:
    """The keys of the table at `path` within a model; none where that is not a model itself."""
    for part in path:
        if isinstance(part, int):
            continue  # an item of a tuple of models
        inner = table_model(model.model_fields[part].annotation) if part in model.model_fields else None
        if inner is None:
            return ()
        model = inner
    return model.model_fields


def table_model(annotation: Any) -> type[BaseModel] | None:
    """The model of a field that is a table: `Model`, `Model | None` or `tuple[Model, ...]`; None for other fields."""
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
