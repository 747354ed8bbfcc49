"""What docs and configs say of memory is what a run is refused by today."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from memory_tables import CONFIGS, HEAD, PAGE, TABLE, make_model, with_head, with_table
from rlm_env.train.learner.config import LoraConfig, ModelConfig
from rlm_env.train.learner.memory import GIB, memory_of

PAGE_TEXT = PAGE.read_text("utf-8")
MEASURED = re.compile(
    r"^\| Qwen3-([\d.]+B)(, LoRA of rank 16)? \| `(auto|sdpa)`[^|]* \| \w+ \| ([\d,]+) \|.* "
    r"([\d.]+|\*) \| ([\d.]+) \|$",
    re.MULTILINE,
)
"""A row of the trainer's steps: model, adapter, attention, tokens of a pack, peak, estimate."""


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_heads_of_configs_are_up_to_date(path):
    text = path.read_text("utf-8")
    assert HEAD.search(text)
    assert with_head(text, path) == text, "run python scripts/memory_tables.py"


@pytest.mark.slow
def test_the_sizing_table_is_up_to_date():
    assert TABLE.search(PAGE_TEXT)
    assert with_table(PAGE_TEXT) == PAGE_TEXT, "run python scripts/memory_tables.py"


def test_estimates_beside_measured_peaks_are_todays():
    rows = MEASURED.findall(PAGE_TEXT)
    assert len(rows) == 8
    above = {False: [], True: []}
    for name, adapter, attention, tokens, peak, estimate in rows:
        lora = LoraConfig() if adapter else None
        settings = {"device": "cuda", "gradient_checkpointing": True, "pack_tokens": int(tokens.replace(",", ""))}
        need = memory_of(make_model(name), ModelConfig(**settings, lora=lora, attention=attention)).total / GIB
        assert f"{need:.1f}" == estimate
        if peak[-1] != "*":
            above[bool(adapter)].append(100 * (need / float(peak) - 1))
    low, high, lora = min(above[False]), max(above[False]), above[True][0]
    assert (
        f"The estimate of memory is {low:.0f} to {high:.0f} % above the peak, {lora:.0f} % with an adapter" in PAGE_TEXT
    )
