"""A model's own defaults: the file `rlm_env.json` in its folder, with `RLMConfig` fields that suit the model.

A small model needs a short prompt, short observations and few turns; that belongs with its weights.
The extra key `renderer` configures the `renderers` renderer of its chat template.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rlm_env.runs.errors import ConfigError, explain_validation
from rlm_env.scaffolds.config import RLMConfig

FILE_NAME = "rlm_env.json"


def load_profile(model: str | Path) -> dict[str, Any]:
    """The profile in a model folder; {} if there is none. Raises ConfigError that names the file and the mistake."""
    path = Path(model) / FILE_NAME
    if not path.is_file():
        return {}
    try:
        profile = json.loads(path.read_text("utf-8"))
        RLMConfig.model_validate({key: value for key, value in profile.items() if key != "renderer"})
    except ValidationError as error:
        raise ConfigError(explain_validation(error, RLMConfig, str(path))) from error
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"{path} is not a table of RLMConfig fields in JSON: {error}") from error
    return profile


def rollout_profile(model: str | Path | None) -> dict[str, Any]:
    """The `RLMConfig` fields of the profile in a model folder; {} without one. Raises what `load_profile` does."""
    profile = {} if model is None else load_profile(model)
    return {key: value for key, value in profile.items() if key != "renderer"}
