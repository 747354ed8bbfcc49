"""The table `[[engines]]`: which model answers in which role, where it is, and how it is asked.

One entry is one model at one place: an OpenAI-compatible endpoint, or a vLLM that is started on this machine. Not
covered: starting and closing engines (`rlm_env/runs/engines.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from rlm_env.runs.config_table import Table
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.options import EngineOptions
from rlm_env.runs.prices import Price

Role = Literal["root", "sub", "judge"]
LOCAL = "local"
"""As a base URL: a vLLM that is started on this machine."""
ENDPOINT_KEYS = ("key_env", "tokens", "timeout", "retries", "window", "tools", "stream")
"""Keys that say nothing of a local vLLM."""


class EngineEntry(Table):
    """One of `[[engines]]`."""

    model: str
    """The name of a model at `base_url`; without one a model folder, `tiny-rlm`, or a Hub id in the local cache."""
    name: str = Field(default_factory=lambda known: known.get("model", ""), min_length=1, validate_default=True)
    """Its name in messages and for `--set engines.NAME.key=value`. Default: `model`."""
    roles: tuple[Role, ...] = Field(default=("root", "sub"), min_length=1)
    """`root`; `sub`, the sub-LLM (the root LLM's engine if none has it); `judge`, for environments that take one."""
    base_url: str | None = None
    """An OpenAI-compatible endpoint, such as `https://api.openai.com/v1`. None or `local`: a vLLM is started here."""
    key_env: str | None = None
    """Name of the environment variable that holds the endpoint's key (never the key itself)."""
    tokens: str | None = None
    """The endpoint is a vLLM that serves this model (a folder, `tiny-rlm`, a Hub id in the local cache): token ids are
    exchanged instead of text, and the defaults in the model's `rlm_env.json` hold."""
    concurrency: int = Field(default=64, ge=1)
    """Most requests at once."""
    timeout: float = Field(default=600.0, gt=0)
    """Seconds for one request."""
    retries: int = Field(default=5, ge=0)
    """Further tries after rate limits, errors of the server and lost connections, with growing pauses."""
    window: int | None = Field(default=None, ge=2)
    """The context window in tokens, where the endpoint does not tell it. Of a local vLLM: `server.max_model_len`."""
    tools: bool = True
    """Off: the endpoint takes no `tools`; code and tool calls are then written as text."""
    stream: bool = False
    """Replies are streamed: for endpoints that only stream, and for replies that outlast a proxy."""
    prices: Price | None = None
    """US dollars per million tokens. A local vLLM costs nothing."""
    server: EngineOptions = EngineOptions()
    """How the local vLLM is started."""

    @model_validator(mode="before")
    @classmethod
    def _local(cls, values: dict[str, object]) -> dict[str, object]:
        return {key: value for key, value in values.items() if (key, value) != ("base_url", LOCAL)}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuses keys that have no effect on the kind of engine."""
        if len(set(self.roles)) < len(self.roles):
            raise ValueError("a role is named twice")
        if self.base_url is None:
            for key in ENDPOINT_KEYS:
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"{key} is for an endpoint; without base_url a local vLLM is started")
            return self
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url must begin with http:// or https:// (or be '{LOCAL}'), got {self.base_url!r}")
        endpoint_place(self.base_url)
        if self.server != EngineOptions():
            raise ValueError("the options of a local vLLM have no effect on the endpoint at base_url")
        if self.tokens and self.key_env:
            raise ValueError("key_env does not go with tokens: the token path speaks to a vLLM that needs no key")
        return self

    @property
    def price(self) -> Price | None:
        """The price in the table; 0 for a local vLLM without one."""
        return Price(prompt=0, completion=0) if self.prices is None and self.base_url is None else self.prices

    def key(self) -> str | None:
        """The endpoint's key from its environment variable. Raises ConfigError if that is not set."""
        if self.key_env is None:
            return None
        if key := os.environ.get(self.key_env):
            return key
        raise ConfigError(f"the environment variable {self.key_env} is not set: it shall hold the key of {self.name}")


def by_role(entries: Sequence[EngineEntry]) -> dict[Role, EngineEntry]:
    """The engine of each role; `judge` only if there is one. Raises ValueError on missing and double roles."""
    _check_names(entries)
    for problem in port_problems({f"engines.{entry.name}.server": entry.server for entry in entries}):
        raise ValueError(problem)
    found: dict[Role, EngineEntry] = {}
    for entry in entries:
        for role in entry.roles:
            if role in found:
                raise ValueError(f"engines: {found[role].name} and {entry.name} both have the role {role}")
            found[role] = entry
    if "root" not in found:
        raise ValueError('engines: none has the role root; add roles = ["root"]')
    return {"sub": found["root"], **found}


def _check_names(entries: Iterable[EngineEntry]) -> None:
    """Raises ValueError if two entries have the same name."""
    names = [entry.name for entry in entries]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"engines: '{min(twice)}' is there twice; give each its own name")


def port_problems(servers: Mapping[str, EngineOptions]) -> Iterator[str]:
    """What is wrong with the ports of local vLLMs, one text each. `servers`: their options, by place in the config."""
    at: dict[int, str] = {}
    for where, options in servers.items():
        if options.port and (other := at.setdefault(options.port, where)) != where:
            yield f"{where}.port is that of {other} too: give each its own, or leave it out"


def endpoint_place(base_url: str) -> tuple[str, int, str]:
    """Host, port and path of an endpoint: the same for two spellings of one place. Raises ValueError for a port that is
    none."""
    parts = urlsplit(base_url)
    host = (parts.hostname or "").lower()
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise ValueError(f"base_url: {base_url!r} has no port between 0 and 65535") from None
    return "127.0.0.1" if host == "localhost" else host, port, parts.path.rstrip("/")


def file_name(name: str) -> str:
    """An engine's name as that of its files."""
    return name.replace("/", "--")
