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
        if detail["type"] == "too_short" and detail["input"]:
            continue  # its items are wrong, which is said of each
        if detail["type"] == "extra_forbidden":
            found.append(f"unknown key '{key}'{_hint(str(detail['loc'][-1]), _table_at(model, detail['loc'][:-1]))}")
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
        return (
            f"a table for each is wanted, [[{key}]]" if _table_at(model, detail["loc"]) else "a list is wanted, [...]"
        )
    return f"a table is wanted, [{key}]" if detail["type"] in ("model_type", "dict_type") else detail["msg"]


def _hint(key: str, table: type[BaseModel] | None) -> str:
    """What was probably meant by an unknown key: one of a table inside of its own, or one that is spelled alike."""
    fields = {} if table is None else table.model_fields
    inner = {name: table_model(field.annotation) for name, field in fields.items()}
    places = [f"'{name}.{key}'" for name, model in inner.items() if model is not None and key in model.model_fields]
    return f"; did you mean {' or '.join(places)}?" if places else near_matches(key, fields)


def _table_at(model: type[BaseModel], path: Iterable[int | str]) -> type[BaseModel] | None:
    """The model of the table at `path` within a model; None where that is not a model itself."""
    found: type[BaseModel] | None = model
    for part in path:
        if isinstance(part, int):
            continue  # an item of a tuple of models
        if found is None or part not in found.model_fields:
            return None
        found = table_model(found.model_fields[part].annotation)
    return found


def table_model(annotation: Any) -> type[BaseModel] | None:
    """The model of a field that is a table: `Model`, `Model | None` or `tuple[Model, ...]`; None for other fields."""
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
