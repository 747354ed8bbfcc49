"""Reading and comparing the configs of runs: TOML files, and `--set key=value` over them.

Not covered: the tables that evals and training runs share (`options.py`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rlm_env.runs.errors import ConfigError
from rlm_env.spelling import near_matches
from rlm_env.toml_file import read_toml

RECORD = "record"
"""The table of a run's config.toml that holds facts (versions, hashes); the rest of the file is what was asked for."""


def read_config_file(path: Path) -> dict[str, Any]:
    """The values of a config file. In one that a run has written, `out` is the folder of the file, wherever the run was
    started from. Raises ConfigError, with near matches if there is no such file."""
    try:
        values = read_toml(path, ConfigError)
    except FileNotFoundError as error:
        near_files = near_matches(path.name, [p.name for p in path.parent.glob("*.toml")])
        raise ConfigError(f"no such config file: {path}{near_files}") from error
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}") from error
    if values.pop(RECORD, None):
        values["out"] = str(path.parent)
    return values


def merge(old: Any, new: Any) -> Any:
    """`old` with `new` over it: dicts are merged key by key, anything else is replaced."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{key: merge(old.get(key), value) for key, value in new.items()}}
    return new


def parse_option(text: str) -> dict[str, Any]:
    """`key=value` of the command line as a (nested) dict: `root.temperature=0` is {"root": {"temperature": 0}}.

    The value is read as TOML (8, 0.5, true, [1, 2], "text"); `a,b,c` is a list; anything else is text.
    Raises ConfigError.
    """
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"an option is written key=value, got '{text}'")
    parsed: Any = _value(value)
    for part in reversed(key.split(".")):
        parsed = {part.strip(): parsed}
    return parsed


def merge_options(texts: Iterable[str]) -> dict[str, Any]:
    """Several `key=value` as one dict; later ones win."""
    merged: dict[str, Any] = {}
    for text in texts:
        merged = merge(merged, parse_option(text))
    return merged


def _value(text: str) -> Any:
    """The value in `key=value`: as in TOML, else a list at commas, else text."""
    try:
        parsed = tomllib.loads(f"value = {text}")
        if list(parsed) == ["value"]:
            return parsed["value"]
    except tomllib.TOMLDecodeError:
        pass
    return [_value(part) for part in text.split(",")] if "," in text else text


def refuse_differences(out: Path, differences: list[str]) -> None:
    """Raises ConfigError that lists the differences between a config and that of the run to resume."""
    if differences:
        raise ConfigError(
            f"{out} began with another config:\n  "
            + "\n  ".join(differences)
            + "\nResume it as it was, or choose another --out."
        )


def config_differences(old: Mapping[str, Any], new: Mapping[str, Any], allowed: frozenset[str]) -> list[str]:
    """The keys in which two configs differ beyond the allowed ones, as "key was ..., is now ..."."""
    return [
        f"{key} was {old.get(key)!r}, is now {new.get(key)!r}"
        for key in sorted((old.keys() | new.keys()) - allowed)
        if old.get(key) != new.get(key)
    ]
