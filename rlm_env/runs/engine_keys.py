"""The keys that say which engines a run has: `[[engines]]`, or `model` and the keys beside it for the usual cases.

Not covered: the table itself (`engine_table.py`), starting engines (`engines.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ValidationError, model_validator

from rlm_env.llm.vllm.arguments import set_elsewhere
from rlm_env.runs.config_table import Table
from rlm_env.runs.engine_table import LOCAL, EngineEntry, Role, by_role
from rlm_env.runs.errors import validation_problems
from rlm_env.runs.options import EngineOptions
from rlm_env.runs.prices import Price, load_tables

SHORTHAND = (
    *("model", "sub_model", "judge_model", "base_url", "sub_base_url", "judge_base_url"),
    *("api_key_env", "sub_api_key_env", "judge_api_key_env", "tokens", "engine"),
)
"""Keys that `[[engines]]` takes the place of."""


class EngineKeys(Table):
    """A config of a run that asks LLMs. A subclass adds the other keys."""

    example: ClassVar[str] = "--model tiny-rlm"
    """A command line that messages show."""
    model: str | None = None
    """The root LLM: a model folder or `tiny-rlm`, which a local vLLM serves; with `base_url`, a model's name there."""
    sub_model: str | None = None
    """The sub-LLM; None: the root LLM."""
    judge_model: str | None = None
    """The LLM that judges, for environments with an option `judge`."""
    base_url: str | None = None
    """An OpenAI-compatible endpoint, for example `https://api.openai.com/v1`. None: a local vLLM is started."""
    sub_base_url: str | None = None
    """The sub-LLM's endpoint; `local`: a local vLLM. None: where the root LLM is."""
    judge_base_url: str | None = None
    """The judge's endpoint; `local`: a local vLLM. None: where the root LLM is."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the endpoint's key (never the key itself)."""
    sub_api_key_env: str | None = None
    """The same for the sub-LLM. None: that of the root LLM if the endpoint is the same, else no key."""
    judge_api_key_env: str | None = None
    """The same for the judge."""
    tokens: str | None = None
    """The endpoint is a vLLM that serves this model folder: token ids are exchanged instead of text."""
    engine: EngineOptions = EngineOptions()
    engines: tuple[EngineEntry, ...] = ()
    """Instead of `model`, `base_url`, their like, and `[engine]`: every engine with its roles and settings."""
    prices: dict[str, Price] | None = None
    """US dollars per million tokens by model name; in a TOML file also the path of a price table, `presets` for the
    dated prices that are shipped, or both with a comma between them, the later one over the earlier."""

    @model_validator(mode="before")
    @classmethod
    def _price_table(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Reads `prices` where it names tables."""
        values = dict(values)
        if isinstance(values.get("prices"), str | Path):
            values["prices"] = load_tables(str(values["prices"]))
        return values

    def checked_engines(self) -> dict[Role, EngineEntry]:
        """The engine of each role. Raises ValueError where keys do not go together."""
        if self.base_url is None and (self.api_key_env or self.tokens):
            given = "api_key_env" if self.api_key_env else "tokens"
            raise ValueError(f"{given} goes with base_url; without it a local vLLM is started")
        try:
            roles = by_role(self.engine_entries())
        except ValidationError as error:
            raise ValueError("; ".join(validation_problems(error, EngineEntry))) from error
        for entry in roles.values():
            for problem in set_elsewhere(entry.server.extra_args):
                where = f"engines.{entry.name}.server" if self.engines else "engine"
                raise ValueError(f"{where}.extra_args: {problem}")
        if self.engine != EngineOptions() and all(entry.base_url for entry in roles.values()):
            raise ValueError("[engine] is for a local vLLM; it has no effect on the endpoint at base_url")
        return roles

    def engine_entries(self) -> tuple[EngineEntry, ...]:
        """All engines: `[[engines]]`, or those that `model` and the keys beside it describe. Raises ValueError."""
        if self.engines:
            if given := [key for key in SHORTHAND if getattr(self, key) != EngineKeys.model_fields[key].default]:
                raise ValueError(
                    f"{given[0]} does not go with [[engines]], which says it all; "
                    f"to change an entry: --set engines.{self.engines[0].name}.KEY=VALUE"
                )
            return self.engines
        if self.model is None:
            raise ValueError(f"which model? Add --model (or model = ... in a file), for example: {self.example}")
        places: dict[tuple[str, str | None, str | None], list[Role]] = {}
        for role, model, url, key in self._places():
            places.setdefault((model, url, key), []).append(role)
        names = [model for model, _, _ in places]
        return tuple(
            EngineEntry(
                name=model if names.count(model) == 1 else f"{model} ({', '.join(roles)})",
                model=model,
                roles=tuple(roles),
                base_url=url,
                key_env=key,
                tokens=self.tokens if url is not None and url == self.base_url else None,
                server=self.engine if url is None else EngineOptions(),
            )
            for (model, url, key), roles in places.items()
        )

    def _places(self) -> Iterator[tuple[Role, str, str | None, str | None]]:
        """Role, model, base URL and key variable of each engine that the keys beside `[[engines]]` describe."""
        model = self.model or ""
        yield "root", model, self.base_url, self.api_key_env
        more: tuple[tuple[Role, str | None, str | None, str | None], ...] = (
            ("sub", self.sub_model or model, self.sub_base_url, self.sub_api_key_env),
            ("judge", self.judge_model, self.judge_base_url, self.judge_api_key_env),
        )
        for role, name, url, key in more:
            if name is None:
                if url or key:
                    raise ValueError(f"{role}_base_url and {role}_api_key_env go with {role}_model")
                continue
            url = None if url == LOCAL else url or self.base_url
            if key is None and url is not None and url == self.base_url:
                key = self.api_key_env  # a key is never sent to another place than its own
            yield role, name, url, key

    def engine_of(self, role: Role) -> EngineEntry | None:
        """The engine of a role; None for a judge if there is none."""
        return by_role(self.engine_entries()).get(role)

    @property
    def root(self) -> EngineEntry:
        """The engine of the root LLM."""
        return by_role(self.engine_entries())["root"]

    @property
    def sub(self) -> EngineEntry:
        """The engine of the sub-LLM."""
        return by_role(self.engine_entries())["sub"]

    @property
    def models_title(self) -> str:
        """The models in one line."""
        return self.root.model + (f", sub-LLM {self.sub.model}" if self.sub.model != self.root.model else "")
