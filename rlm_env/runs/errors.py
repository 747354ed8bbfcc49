"""What can go wrong with an eval that is not the model's doing, and how it is said."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

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


def explain(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """A pydantic error as plain lines: the place, the key, what is wrong, and near matches of unknown keys."""
    lines = []
    for detail in error.errors():
        key = ".".join(str(part) for part in detail["loc"])
        if detail["type"] == "extra_forbidden":
            lines.append(
                f"{where}: unknown key '{key}'{near(str(detail['loc'][-1]), _keys_at(model, detail['loc'][:-1]))}"
            )
        elif detail["type"] == "missing":
            lines.append(f"{where}: '{key}' is missing")
        elif detail["type"] == "value_error":
            lines.append(f"{where}: {key + ': ' if key else ''}{detail.get('ctx', {}).get('error')}")
        else:
            lines.append(f"{where}: {key}: {detail['msg']}, got {detail['input']!r}")
    return "\n".join(lines)


def _keys_at(model: type[BaseModel], path: Iterable[int | str]) -> Iterable[str]:
    """The keys that are known at a place within a model; none where it is not a model itself."""
    for part in path:
        kind = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return ()
        model = kind
    return model.model_fields
