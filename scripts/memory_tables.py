"""Writes what is computed of memory and disk: the sizing table of docs/performance.md and the heads of configs/train/.

Usage: python scripts/memory_tables.py

From the estimate with which a run is refused (`rlm_env/train/learner/memory.py`), for a CUDA card, on the shapes of
Qwen3's published `config.json` files; no weights are made. A test checks that what is written is up to date.
GiB is 2^30 bytes, of memory; GB is 10^9 bytes, of files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Qwen3Config

from rlm_env.train.learner.config import LoraConfig, ModelConfig
from rlm_env.train.learner.memory import GIB, memory_of
from rlm_env.train.rl.config import TrainConfig, load_train_config

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"
CONFIGS = sorted((ROOT / "configs" / "train").glob("qwen*.toml"))
TABLE = re.compile(r"(<!-- memory: sizing -->\n).*?(<!-- end -->)", re.DOTALL)
HEAD = re.compile(r"(# Computed \(scripts/memory_tables\.py\):\n)(?:# - .*\n)*")
_SMALL = {"vocab_size": 151_936, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True}
_LARGE = {**_SMALL, "tie_word_embeddings": False}
MODELS: dict[str, dict[str, Any]] = {
    "0.6B": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
    "1.7B": {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16},
    "4B": {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32},
    "8B": {"hidden_size": 4096, "intermediate_size": 12_288, "num_hidden_layers": 36, "num_attention_heads": 32},
    "14B": {"hidden_size": 5120, "intermediate_size": 17_408, "num_hidden_layers": 40, "num_attention_heads": 40},
    "32B": {"hidden_size": 5120, "intermediate_size": 25_600, "num_hidden_layers": 64, "num_attention_heads": 64},
}
"""Qwen3 by name."""
WINDOWS = (16_384, 32_768)
GROUPS = (8, 16)
CARD = 79.6 * GIB
"""Bytes of a card of 80 GB."""
FILLED = 0.9
"""The share of it that may be filled."""
PROCESSES = (1, 2, 4, 8, 16, 32, 64)


@cache
def make_model(name: str) -> Any:
    """The model on the meta device."""
    tied = _SMALL if name in ("0.6B", "1.7B", "4B") else _LARGE
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(Qwen3Config(**tied, **MODELS[name]))


def count_parameters(name: str) -> int:
    return sum(parameter.numel() for parameter in make_model(name).parameters())


def trainer_cell(name: str, window: int, lora: LoraConfig | None) -> str:
    """GiB on one card, and the fewest cards that hold the training."""
    config = ModelConfig(device="cuda", gradient_checkpointing=True, pack_tokens=window, lora=lora)
    alone = memory_of(make_model(name), config).total
    fitting = (n for n in PROCESSES if memory_of(make_model(name), config, n).total <= FILLED * CARD)
    return f"{alone / GIB:.0f}, {next(fitting)}"


def engine_cell(name: str, window: int, group: int) -> str:
    """GiB of weights, and of keys and values of a group, in bfloat16; and the fewest cards that hold them."""
    shape = make_model(name).config
    token = 2 * 2 * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim
    needed = 2 * count_parameters(name) + token * window * group
    return f"{needed / GIB:.0f}, {next(n for n in PROCESSES if needed <= n * FILLED * CARD)}"


def sizing_table() -> Iterator[str]:
    """The lines of the table."""
    groups = [f"engine, group of {group}" for group in GROUPS]
    columns = ["model", "context", "trainer, all weights", "trainer, LoRA of rank 16", *groups]
    yield f"| {' | '.join(columns)} |"
    yield f"| --- |{' ---: |' * (len(columns) - 1)}"
    for name in MODELS:
        for window in WINDOWS:
            cells = [trainer_cell(name, window, lora) for lora in (None, LoraConfig())]
            cells += [engine_cell(name, window, group) for group in GROUPS]
            yield f"| Qwen3-{name} | {window:,} | {' | '.join(cells)} |"


def config_lines(config: TrainConfig, processes: int) -> Iterator[str]:
    """What the head of a config says of memory and disk."""
    name = config.model.removeprefix("Qwen/Qwen3-").partition("-")[0]
    trainer = config.trainer.model_copy(update={"device": "cuda"})
    need = memory_of(make_model(name), trainer, processes)
    each = "the GPU" if processes == 1 else f"each of {processes} GPUs"
    yield f"# - The trainer takes {need.total / GIB:.1f} GiB of {each}: {need}."
    trained = need.moments * processes // 8
    weights = 4 * trained if config.sync.method == "lora" else 2 * count_parameters(name)
    yield f"# - An update of the engine is {weights / 1e9:.2g} GB, a checkpoint {12 * trained / 1e9:.2g} GB on disk."


def with_head(text: str, path: Path) -> str:
    """A config's text with its lines up to date."""
    found = re.search(r"torchrun --nproc-per-node (\d+) -m rlm_env\.cli train configs", text)
    lines = config_lines(load_train_config(path), int(found[1]) if found else 1)
    return HEAD.sub(lambda match: match[1] + "".join(f"{line}\n" for line in lines), text)


def with_table(text: str) -> str:
    """The page with its table up to date."""
    return TABLE.sub(lambda match: match[1] + "".join(f"{line}\n" for line in sizing_table()) + match[2], text)


def main() -> None:
    PAGE.write_text(with_table(PAGE.read_text("utf-8")), "utf-8")
    for path in CONFIGS:
        path.write_text(with_head(path.read_text("utf-8"), path), "utf-8")


if __name__ == "__main__":
    main()
