"""What every room shares: one real vLLM for the whole test session, fixtures, property tests without a time limit."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

from rlm_env.repl import ReplPools
from rlm_env.scaffolds.rlm import RLMEnv
from tests.packages import needs
from tests.word_count import endpoint, other_endpoint, workplace  # noqa: F401 - fixtures

if TYPE_CHECKING:
    from rlm_env.llm import VLLMServer

# Limits of time would test how busy the machine is.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

if "PYTEST_XDIST_WORKER" in os.environ:
    # Tests run beside each other, each on a core of its own: threads that wait for work would take it from the other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # The tests are a job in the background. What they start would ignore Ctrl-C too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHIPPED_MODEL = Path(__file__).parents[1] / "rlm_env" / "models" / "tiny-rlm"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("vllm"):
        needs("vllm")


@pytest.fixture(scope="session")
def tiny_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model, or a random one of its shape."""
    if (SHIPPED_MODEL / "config.json").exists():
        return SHIPPED_MODEL
    pytest.importorskip("transformers")
    from tests.tiny_model import make_model

    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest_asyncio.fixture(scope="module")
async def pools() -> AsyncIterator[ReplPools]:
    """Where scaffolds get their REPLs: one pool per configuration, for all tests of a module."""
    async with ReplPools() as opened:
        yield opened


@pytest.fixture
def bare_repls(monkeypatch: pytest.MonkeyPatch) -> None:
    """REPLs of scaffolds have no packages imported beforehand, which takes half a second a pool."""
    configured = RLMEnv._repl_config
    monkeypatch.setattr(RLMEnv, "_repl_config", lambda scaffold: replace(configured(scaffold), preload=()))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def vllm_server(tiny_model_path: Path) -> AsyncIterator[VLLMServer]:
    """A real vLLM that serves `tiny_model_path`; a test that reloads its weights puts the old ones back."""
    from rlm_env.llm import VLLMServer

    async with VLLMServer(tiny_model_path, scale_out=True) as server:
        await server.warm_up()
        yield server
