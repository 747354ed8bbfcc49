"""Prices of tokens: a table in TOML, and the cost of a rollout.

Prices are in US dollars per million tokens, one table per model name:

    ["gpt-5-mini"]
    prompt = 0.25
    cached = 0.025      # optional: prompt tokens answered from the provider's cache; as `prompt` if left out
    completion = 2.0
    taken = 2026-01-31  # optional: the day on which the price was looked up, and where; reports tell both
    source = "the provider's page of prices"

`presets` in place of a file means `prices.toml` beside this module: a few common models, each with its day and source.
They are used only where they are asked for, since prices change. A price that nobody looked up is unknown, not 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlm_env.messages import Usage
from rlm_env.rollout import Rollout
from rlm_env.runs.errors import ConfigError, explain_validation
from rlm_env.toml_file import read_toml


class Price(BaseModel):
    """US dollars per million tokens of one model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: float = Field(ge=0)
    """Of prompt tokens."""
    completion: float = Field(ge=0)
    """Of completion tokens, reasoning included."""
    cached: float | None = Field(default=None, ge=0)
    """Of prompt tokens that the provider had cached; None: as `prompt`."""
    taken: date | None = None
    """The day on which the price was looked up."""
    source: str | None = None
    """Where it was looked up."""

    def of(self, usage: Usage) -> float | None:
        """Dollars for this usage; None where the engine told no tokens and they are not free."""
        if usage.untold and (self.prompt or self.completion):
            return None
        cached_price = self.prompt if self.cached is None else self.cached
        fresh = max(0, usage.prompt_tokens - usage.cached_tokens)
        return (
            fresh * self.prompt + usage.cached_tokens * cached_price + usage.completion_tokens * self.completion
        ) / 1e6

    def __str__(self) -> str:
        cached = "" if self.cached is None else f", cached {self.cached:g}"
        day = "on a day not stated" if self.taken is None else f"on {self.taken.isoformat()}"
        source = "" if self.source is None else f" from {self.source}"
        return f"{self.prompt:g} for prompts{cached}, {self.completion:g} for completions (taken {day}{source})"


Prices = dict[str, Price]
PRESETS, SHIPPED = "presets", Path(__file__).with_name("prices.toml")


def load_tables(given: str) -> Prices:
    """The price tables that a text names, with commas between them: files, and `presets`. Of a model that is in several
    the last price counts. Raises ConfigError."""
    names = [given] if Path(given).is_file() else [name.strip() for name in given.split(",")]
    prices: Prices = {}
    for name in names:
        prices |= load_prices(SHIPPED if name == PRESETS else Path(name))
    return prices


def load_prices(path: Path) -> Prices:
    """Reads a price table. Raises ConfigError that names the file and the key."""
    try:
        tables = read_toml(path, ConfigError)
    except OSError as error:
        raise ConfigError(f"cannot read the price table {path}: {error.strerror}") from error
    prices: Prices = {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(f'{path}: {name} is outside of a table; write ["model name"] above the prices')
        try:
            prices[name] = Price.model_validate(table)
        except ValidationError as error:
            raise ConfigError(explain_validation(error, Price, f'{path}, ["{name}"]')) from error
    return prices


def total_cost(*costs: float | None) -> float | None:
    """The sum of costs; None where one is unknown."""
    known = [cost for cost in costs if cost is not None]
    return math.fsum(known) if len(known) == len(costs) else None


def rollout_cost(rollout: Rollout, root_price: Price, sub_price: Price) -> float | None:
    """US dollars that a rollout cost; None where an engine told no tokens."""
    return total_cost(root_price.of(rollout.root_usage), sub_price.of(rollout.sub_usage))


def price_of(prices: Mapping[str, Price], model: str) -> Price:
    """A model's price. Raises ConfigError that lists the names that there are."""
    if model not in prices:
        known = ", ".join(sorted(prices)) or "none"
        raise ConfigError(f'the price table has no entry for "{model}" (it has: {known}); add ["{model}"]')
    return prices[model]


@dataclass(slots=True)
class CostLimit:
    """The US dollars that one run, or several together, may spend; and what they have spent."""

    limit: float | None = None
    spent: float = 0.0
    """Includes rollouts that failed and were repeated."""

    @property
    def reached(self) -> bool:
        return self.limit is not None and self.spent >= self.limit
