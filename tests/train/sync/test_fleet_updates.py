"""Updates while one of two engines is dead or on its way back: the other one gets them at once, the first one before it
is asked again. Stand-ins for the vLLMs; the engines, the fleet and what brings weights are real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import web

torch = pytest.importorskip("torch")
pytest.importorskip("renderers")
pytest.importorskip("transformers")

from rlm_env.llm import EngineUnavailable, Request, Sampling  # noqa: E402
from rlm_env.messages import Completion  # noqa: E402
from rlm_env.train.sync.config import SyncConfig  # noqa: E402
from rlm_env.train.sync.fleet import Fleet, Member  # noqa: E402
from rlm_env.train.sync.fleet_sync import FleetSync  # noqa: E402
from rlm_env.train.sync.local_engine import LocalEngine  # noqa: E402
from tests.tiny_model import make_model  # noqa: E402
from tests.train.stand_in_vllm import StandInVLLM  # noqa: E402
from tests.train.sync_stand_in import StandIn, differences  # noqa: E402

QUESTION = [{"role": "user", "content": "Count."}]
SAMPLED = Sampling(max_tokens=3, temperature=1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny", hidden=32, layers=1)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  what is waited for tells nobody
            await asyncio.sleep(0.01)


class Slow(StandInVLLM):
    """Waits with its start until it may. One that `hangs` answers nothing, /health neither."""

    hangs = False

    may: asyncio.Event
    loaded: list[tuple[int, str]]
    """What was loaded into which of those made."""

    async def __aenter__(self) -> StandInVLLM:
        await self.may.wait()
        return await super().__aenter__()

    async def is_healthy(self, within: float) -> bool:
        await self._unless_it_hangs(within)
        return await super().is_healthy(within) and not self.hangs

    async def pause(self, mode: str = "keep") -> None:
        await self._unless_it_hangs()
        await super().pause(mode)

    async def statistics(self) -> str:
        await self._unless_it_hangs()
        return ""

    async def _completions(self, request: web.Request) -> web.Response:
        await self._unless_it_hangs()
        return await super()._completions(request)

    async def _unless_it_hangs(self, seconds: float = 1000.0) -> None:
        if self.hangs:
            await asyncio.sleep(seconds)

    async def reload_weights(self, folder: Path) -> None:
        await self._unless_it_hangs()
        self.loaded.append((self.made.index(self), folder.name))
        await super().reload_weights(folder)


class Pair:
    """Two engines `a` and `b` that follow a trainer."""

    def __init__(self, trainer: StandIn, sync: FleetSync, engines: list[LocalEngine]) -> None:
        self.trainer, self.sync = trainer, sync
        self.a, self.b = engines
        self.told: list[str] = []
        self.fleet = Fleet([Member(engine.name, engine, ("root", "sub")) for engine in engines], self.told.append)

    async def update(self) -> dict[str, float]:
        """An optimizer step, and its weights on their way; returns when the trainer has what it waits for."""
        self.trainer.step()
        free = asyncio.Event()
        found = await asyncio.wait_for(self.sync.publish(self.trainer.version, free), 20)
        assert free.is_set()
        return found

    async def lose_a(self) -> None:
        """It dies, and a request finds that out; what was asked of it is answered by the other."""
        await StandInVLLM.made[0].kill()
        replies = await self.ask(2)
        assert {version for reply in replies for _, version in reply.weight_versions} == {self.b.version}
        assert self.a.away

    async def ask(self, prompts: int) -> list[Completion]:
        """Replies of both engines where both are up."""
        replies = await self.fleet.llm.complete_many([Request(QUESTION, sampling=SAMPLED)] * prompts)
        assert all(isinstance(reply, Completion) for reply in replies), replies
        return replies

    async def until_a_is_back(self) -> None:
        Slow.may.set()
        await until(lambda: not self.a.away and self.fleet.members[0].seat.up)

    def exports(self) -> dict[str, list[str]]:
        return {name: sorted(path.name for path in (self.sync._folder / name).iterdir()) for name in "ab"}


@pytest.fixture
async def pair(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_check: None) -> AsyncIterator[Pair]:
    monkeypatch.setattr(StandInVLLM, "made", [], raising=False)
    monkeypatch.setattr(Slow, "may", asyncio.Event(), raising=False)
    monkeypatch.setattr(Slow, "loaded", [], raising=False)
    monkeypatch.setattr("rlm_env.llm.vllm.server.VLLMServer", Slow)
    async with AsyncExitStack() as stack:
        Slow.may.set()
        engines = [LocalEngine(folder, name=name, log_folder=tmp_path, dtype="float32") for name in "ab"]
        for engine in engines:
            await stack.enter_async_context(engine)
        pair = Pair(StandIn(folder), FleetSync(SyncConfig(), tmp_path / "weights", "float32"), engines)
        stack.push_async_callback(pair.fleet.aclose)
        await pair.sync.start(pair.trainer, pair.fleet)
        Slow.loaded.clear()
        Slow.may.clear()
        yield pair
    assert not any(server.alive for server in StandInVLLM.made)


async def test_updates_do_not_wait_for_an_engine_that_is_being_restarted(pair: Pair) -> None:
    await pair.lose_a()
    for version in (1, 2):
        assert (await pair.update())["sync_mean_abs"] < 1e-5
        assert (pair.fleet.version, pair.b.version, pair.a.away) == (version, version, True)
    assert pair.exports() == {"a": ["v000000", "v000002"], "b": ["v000002"]}  # a is being started on the first of these
    await pair.until_a_is_back()
    of_a = [name for server, name in Slow.loaded if server == 2]
    assert of_a == ["canary-1", "v000000", "canary-1", "v000002"]  # compared with the trainer after both
    assert pair.a.version == 2
    assert (await differences(pair.sync._syncs[pair.a])).mean_abs < 1e-5
    assert [reply.weight_versions for reply in await pair.ask(4)] == [[[0, 2]]] * 4
    assert (await pair.update())["sync_mean_abs"] < 1e-5
    assert pair.a.version == pair.b.version == 3
    assert pair.exports() == {"a": ["v000003"], "b": ["v000003"]}
    lost, back = pair.told
    assert lost.startswith("engine a does not answer")
    assert back.startswith("engine a answers again")


async def test_an_update_that_finds_one_engine_dead_goes_to_the_other(pair: Pair) -> None:
    """Requests that wait for the update are asked of the other one, and none fails."""
    victim = StandInVLLM.made[0]
    pause = victim.pause

    async def pause_and_die(mode: str = "keep") -> None:
        await pause(mode)
        asked.append(asyncio.create_task(pair.ask(4)))
        await until(lambda: pair.fleet.members[0].seat.load > 0)
        await victim.kill()

    asked: list[asyncio.Task[list[Completion]]] = []
    victim.pause = pause_and_die
    assert (await pair.update())["sync_mean_abs"] < 1e-5
    assert (pair.a.away, pair.b.version) == (True, 1)
    assert len(await asyncio.wait_for(asked[0], 20)) == 4
    await pair.until_a_is_back()
    assert (StandInVLLM.made[2].model.name, pair.a.version) == ("v000001", 1)
    assert (await differences(pair.sync._syncs[pair.a])).mean_abs < 1e-5
    assert (await pair.update())["sync_mean_abs"] < 1e-5
    assert pair.a.version == 2


async def test_an_update_goes_on_without_an_engine_that_hangs(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked of it is asked of the other one, and it is ended and started again."""
    monkeypatch.setattr("rlm_env.train.sync.engine.HEALTH_SECONDS", 0.1)
    victim = StandInVLLM.made[0]
    victim.hangs = True
    asked = asyncio.create_task(pair.ask(6))
    await until(lambda: pair.a.gate.inside > 0)
    assert (await pair.update())["sync_mean_abs"] < 1e-5
    assert (pair.a.away, pair.b.version) == (True, 1)
    assert len(await asyncio.wait_for(asked, 20)) == 6
    assert "engine a does not answer (it hangs" in pair.told[0]
    await pair.until_a_is_back()
    assert not victim.alive
    assert pair.a.version == 1
    assert (await differences(pair.sync._syncs[pair.a])).mean_abs < 1e-5


async def test_an_engine_that_hangs_is_found_by_its_counters(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlm_env.train.sync.engine.HEALTH_SECONDS", 0.05)
    assert await pair.a.statistics() == ""
    StandInVLLM.made[0].hangs = True
    with pytest.raises(EngineUnavailable, match="hangs"):
        await pair.a.statistics()


async def test_an_engine_that_comes_back_during_an_update_takes_part_in_it(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair.lose_a()
    sync = pair.sync._syncs[pair.a]
    scores = sync._trainer_logprobs

    async def come_back_meanwhile() -> object:
        await pair.until_a_is_back()
        return await scores()

    monkeypatch.setattr(sync, "_trainer_logprobs", come_back_meanwhile)
    await pair.update()
    assert pair.a.version == pair.b.version == 1
    assert not pair.a.is_behind
    assert (await differences(sync)).mean_abs < 1e-5


@pytest.mark.slow
async def test_with_both_dead_an_update_waits_for_the_first_that_is_back(pair: Pair) -> None:
    await pair.lose_a()
    await StandInVLLM.made[1].kill()
    pair.trainer.step()
    publishing = asyncio.create_task(pair.sync.publish(1))
    await asyncio.wait([publishing], timeout=0.5)
    assert not publishing.done()
    with pytest.raises(EngineUnavailable):
        await pair.fleet.llm.complete(QUESTION, None, SAMPLED)
    Slow.may.set()
    assert await asyncio.wait_for(publishing, 20) == {}
    await pair.until_a_is_back()
    assert [reply.weight_versions for reply in await pair.ask(2)] == [[[0, 1]]] * 2


@pytest.mark.slow
async def test_one_that_comes_back_with_other_weights_is_left_out_for_good(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes what it was started on, but not the update that it missed."""
    await pair.lose_a()
    await pair.update()
    reload = Slow.reload_weights

    async def not_the_newest(server: Slow, folder: Path) -> None:
        await reload(server, folder.with_name("v000000") if folder.name == "v000001" else folder)

    monkeypatch.setattr(Slow, "reload_weights", not_the_newest)
    Slow.may.set()
    await until(lambda: pair.fleet.is_gone(pair.a) and not StandInVLLM.made[2].alive)
    assert "engine a is left out for good" in pair.told[-1]
    assert {reply.weight_versions[0][1] for reply in await pair.ask(3)} == {1}
    assert (await pair.update())["sync_mean_abs"] < 1e-5
    assert (pair.fleet.version, pair.fleet.newest_version) == (2, 2)
