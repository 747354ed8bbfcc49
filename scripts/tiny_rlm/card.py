"""Writes the model folder: weights, tokenizer, profile, and the model card with its record of the build."""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

import rlm_env
from rlm_env.runs.profile import FILE_NAME, load_profile
from tiny_rlm.profile import PROFILE


def save(
    options: argparse.Namespace, model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, facts: dict[str, Any]
) -> None:
    """`options`: the build's; `facts`: what was measured."""
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    weights = out / "model.safetensors"
    weights.chmod(0o644)
    tokenizer.save_pretrained(out)
    (out / FILE_NAME).write_text(json.dumps(PROFILE, indent=2) + "\n", encoding="utf-8")
    load_profile(out)
    record = {
        **{name: getattr(options, name) for name in ("seed", "steps", "sessions", "openings", "threads")},
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers")}
        | {"python": platform.python_version(), "rlm-env": rlm_env.__version__},
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        **facts,
    }
    card = Path(__file__).with_name("card.md").read_text("utf-8")
    (out / "README.md").write_text(card.replace("{record}", json.dumps(record, indent=2)), encoding="utf-8")
