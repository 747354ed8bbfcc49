"""One pool per configuration for a whole run."""

import asyncio
from pathlib import Path

import pytest

from rlm_env.repl import ReplConfig, ReplError, ReplPool, ReplPools, SandboxError
from rlm_env.repl.host import zygote_client

SMALL = ReplConfig(preload=())


async def test_equal_configurations_share_one_pool():
    async with ReplPools() as pools:
        first = await pools.get(SMALL)
        assert await pools.get(ReplConfig(preload=())) is first
        async with first.open(context="abc") as repl:
            assert (await repl.run("len(context)")).output == "3\n"


async def test_callers_at_the_same_time_get_the_same_pool():
    async with ReplPools() as pools:
        opened = await asyncio.gather(*(pools.get(SMALL) for _ in range(5)))
        assert len(set(map(id, opened))) == 1


async def test_different_configurations_get_different_pools():
    async with ReplPools() as pools:
        small, large = await asyncio.gather(pools.get(SMALL), pools.get(ReplConfig(preload=(), memory_mb=3000)))
        assert small is not large
        assert large.config.memory_mb == 3000


async def test_all_pools_and_repls_end_with_it():
    async with ReplPools() as pools:
        repls = [await (await pools.get(ReplConfig(preload=(), nice=nice))).open() for nice in (1, 2)]
    for repl in repls:
        assert repl.pid is None
        with pytest.raises(ReplError, match="closed"):
            await repl.run("1")
    with pytest.raises(ReplError, match="the pools are closed"):
        await pools.get(SMALL)
    await pools.close()


async def test_a_pool_that_is_still_starting_when_they_close_is_closed_too():
    pools = ReplPools()
    starting = asyncio.create_task(pools.get(SMALL))
    await asyncio.sleep(0.01)
    await pools.close()
    with pytest.raises(ReplError, match="the pools are closed"):
        await starting


async def test_a_pool_that_cannot_start_is_an_error_for_each_caller(monkeypatch: pytest.MonkeyPatch):
    refused = ReplConfig(preload=(), start_timeout=1e-6)
    async with ReplPools() as pools:
        for _ in range(2):
            with pytest.raises(SandboxError, match="did not come up"):
                await pools.get(refused)
        assert (await pools.get(SMALL)).report is not None


async def test_a_zygote_that_is_late_is_not_waited_for_any_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "boot.py").write_text("import time; time.sleep(1000)  # as long imports do\n")
    monkeypatch.setattr(zygote_client, "_BOOT", str(tmp_path / "boot.py"))
    monkeypatch.setattr(zygote_client, "END_SECONDS", 1000)
    with pytest.raises(SandboxError, match=r"did not come up within 0\.1 s"):
        await asyncio.wait_for(ReplPool(ReplConfig(start_timeout=0.1)).__aenter__(), 60)
