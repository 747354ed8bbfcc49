"""What the tests of training share: a tiny random model, and one real engine that takes new weights."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from rlm_env.train.sync.engine import TrainEngine
    from rlm_env.train.sync.weight_sync import DiskSync
    from tests.train.plain_step import PlainStep
    from tests.train.sync_stand_in import StandIn

VOCAB = 97


@pytest.fixture(scope="session")
def make_qwen3():
    """Makes a random Qwen3 with attention by sample: `make_qwen3(dtype=torch.float64, ...)`; always the same one. With
    `num_experts` it is a mixture of experts."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from rlm_env.train.learner import attention

    attention.register()

    def make(dtype: Any = torch.float32, seed: int = 0, **settings: Any) -> Any:
        kind = transformers.Qwen3MoeConfig if "num_experts" in settings else transformers.Qwen3Config
        config = kind(
            **{
                "vocab_size": VOCAB,
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "head_dim": 8,
                "initializer_range": 0.2,
                "attn_implementation": attention.BY_SAMPLE,
                **settings,
            }
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return transformers.AutoModelForCausalLM.from_config(config).to(dtype)

    return make


@pytest.fixture(scope="session")
def plain_step(make_qwen3: Any) -> PlainStep:
    """A step whose right gradient is known, with attention by sample."""
    torch = pytest.importorskip("torch")
    from tests.train.plain_step import PlainStep

    return PlainStep(make_qwen3(torch.float64))


@pytest.fixture(scope="session")
def masked_plain_step(make_qwen3: Any) -> PlainStep:
    """The same with a mask over the whole pack, which transformers derives from the position ids."""
    torch = pytest.importorskip("torch")
    from tests.train.plain_step import PlainStep

    return PlainStep(make_qwen3(torch.float64, attn_implementation="sdpa"))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def train_engine(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TrainEngine]:
    """A real vLLM for training in float32. Tests may kill it; it serves what the last one published."""
    from rlm_env.train.sync.local_engine import LocalEngine

    logs = tmp_path_factory.mktemp("engine")
    async with LocalEngine(tiny_model_path, log_folder=logs, dtype="float32", max_restarts=10) as engine:
        yield engine


@pytest.fixture
def short_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison of engine and trainer takes few tokens, since a stand-in for a vLLM is slow."""
    monkeypatch.setattr("rlm_env.train.sync.sync_check.PROMPTS", 2)
    monkeypatch.setattr("rlm_env.train.sync.sync_check.REPLY_TOKENS", 6)


@pytest.fixture
def trainer(tiny_model_path: Path) -> StandIn:
    """A trainer of the shipped model that takes steps of a given size, and no samples."""
    from tests.train.sync_stand_in import StandIn

    return StandIn(tiny_model_path)


@pytest.fixture
def sync(tmp_path: Path) -> DiskSync:
    """Whole weights through a folder of the test's own."""
    from rlm_env.train.sync.config import SyncConfig
    from rlm_env.train.sync.weight_sync import make_sync

    return make_sync(SyncConfig(drain_seconds=30), tmp_path / "weights", "float32")
