"""Errors of a run that are not the model's doing, and how they are worded."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import get_args

from pydantic import BaseModel, ValidationError


class ConfigError(ValueError):
    """Something the user asked for cannot be done. The message is complete: what, where, and the remedy."""


class RunStopped(Exception):
    """A run that ended before its last rollout. What had finished is on disk.

    `status` is what summary.json says; `exit_code` what the command returns.
    """

    def __init__(self, status: str, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.status = status
        self.exit_code = exit_code


def near(word: str, known: Iterable[str], *, listing: bool = True) -> str:
    """ "; did you mean ...?" where something similar is known, otherwise (with `listing`) all that is known."""
    known = sorted(known)
    if matches := difflib.get_close_matches(word, known, n=2, cutoff=0.6):
        return "; did you mean " + " or ".join(f"'{match}'" for match in matches) + "?"
    return f" (known: {', '.join(known)})" if known and listing else ""


def explain_validation(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """A pydantic error as plain lines: `where`, the key, what is wrong, and near matches of unknown keys."""
    return "\n".join(f"{where}: {problem}" for problem in validation_problems(error, model))


def validation_problems(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """What is wrong, one text per key."""
    found = []
    for detail in error.errors():
        key = ".".join(str(part) for part in detail["loc"])
        if detail["type"] == "extra_forbidden":
            hint = near(str(detail["loc"][-1]), _keys_at(model, detail["loc"][:-1]))
            found.append(f"unknown key '{key}'{hint}")
        elif detail["type"] == "missing":
            found.append(f"'{key}' is missing")
        elif detail["type"] == "value_error":
            found.append(f"{key + ': ' if key else ''}{detail.get('ctx', {}).get('error')}")
        else:
            found.append(f"{key}: {detail['msg']}, got {detail['input']!r}")
    return found


def _keys_at(model: type[BaseModel], path: Iterable[int | str]) -> Iterable[str]:
    """The keys of the table at `path` within a model; none where that is not a model itself."""
    for part in path:
        if isinstance(part, int):
            continue  # an item of a tuple of models
        if part not in model.model_fields:
            return ()
        kind = model.model_fields[part].annotation
        kinds = [kind, *get_args(kind)]
        inner = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not inner:
            return ()
        model = inner[0]
    return model.model_fields
