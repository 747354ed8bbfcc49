"""A model's own defaults: the file `rlm_env.json` in its folder, with `RLMConfig` fields that suit the model.

A small model needs a short prompt, short observations and few turns; that belongs with its weights.
The extra key `renderer` names the `renderers` renderer of its chat template.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlm_env.scaffolds.config import RLMConfig

FILE_NAME = "rlm_env.json"


def load_profile(model: str | Path) -> dict[str, Any]:
    """The profile in a model folder; {} where there is none. Raises ValueError on an unknown key, naming the file."""
    path = Path(model) / FILE_NAME
    if not path.is_file():
        return {}
    profile = json.loads(path.read_text("utf-8"))
    unknown = profile.keys() - RLMConfig.model_fields.keys() - {"renderer"}
    if unknown:
        raise ValueError(f"{path}: unknown keys {', '.join(sorted(unknown))}; known: renderer and RLMConfig's fields")
    RLMConfig(**{key: value for key, value in profile.items() if key != "renderer"})
    return profile
