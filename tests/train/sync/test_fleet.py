"""The engines of a run together: those that die and come back, those that do not, and versions of weights."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("torch")

from rlm_env.llm.base import LLM, EngineRefused, EngineUnavailable, LLMError, Request
from rlm_env.llm.http import EndpointError, NoReply
from rlm_env.llm.vllm.install import VLLMStartError
from rlm_env.messages import Completion
from rlm_env.train.sync import fleet as module
from rlm_env.train.sync.engine import EngineGone, TrainEngine
from rlm_env.train.sync.fleet import FixedEndpoint, Fleet, Member
from rlm_env.train.sync.fleet_sync import FleetSync, worst_of
from rlm_env.train.sync.sync_check import SyncError
from tests.tiny_model import make_model

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "tiny", hidden=32, layers=1)


class Answering(LLM):
    """The LLM of an engine that is dead now and then."""

    def __init__(self, name: str) -> None:
        self.name, self.dead = name, False

    async def complete(self, messages, tools=None, sampling=None):
        if self.dead:
            raise EngineUnavailable(f"{self.name} is gone")
        return Completion(self.name)


class Engine(TrainEngine):
    """Comes back when it may; `end`: what a restart raises for good."""

    def __init__(self, name: str, folder) -> None:
        super().__init__(folder, name=name, dtype="float32")
        self.answering = Answering(name)
        self.may, self.end, self.ended = asyncio.Event(), None, False

    @property
    def llm(self):
        return self.answering

    async def restart(self):
        await self.may.wait()
        if self.end is not None:
            raise self.end
        self.answering.dead = False

    async def _start(self):
        raise NotImplementedError

    async def _replace(self):
        raise NotImplementedError

    async def _stop(self):
        self.ended = True


class Several:
    """A fleet of engines that all follow and answer root and sub, and what it told."""

    def __init__(self, folder, names: str, more=(), **members) -> None:
        self.engines = {name: Engine(name, folder) for name in names}
        self.told: list[str] = []
        found = [Member(name, engine, ("root", "sub")) for name, engine in self.engines.items()]
        self.fleet = Fleet([*found, *more], self.told.append, **members)

    def kill(self, name: str) -> None:
        self.engines[name].answering.dead = True

    async def ask(self) -> str:
        return (await self.fleet.llm.complete(HELLO)).text


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_an_engine_that_dies_is_left_out_until_it_is_back(folder):
    run = Several(folder, "ab")
    run.kill("a")
    assert [await run.ask() for _ in range(3)] == ["b", "b", "b"]
    await asyncio.wait_for(run.fleet.restart(), 1)  # nothing to wait for: the other goes on
    assert run.told == ["engine a does not answer (a is gone); 1 other engines go on"]
    run.engines["a"].may.set()
    await settle()
    assert run.told[1:] == ["engine a answers again after 0 s"]
    run.kill("b")
    assert await run.ask() == "a"
    assert [event["engine"] for event in run.fleet.events] == ["a", "a", "b"]
    await run.fleet.aclose()


async def test_an_engine_that_died_with_nothing_in_flight_is_found_out_by_its_statistics(folder):
    """Otherwise one by URL that was started again would answer the next request with its first weights."""
    run = Several(folder, "ab")

    async def statistics():
        raise EngineUnavailable("connection refused")

    run.engines["a"].statistics = statistics
    with pytest.raises(EngineUnavailable):
        await run.fleet.statistics(run.engines["a"])
    assert run.engines["a"].away
    assert run.told == ["engine a does not answer (connection refused); 1 other engines go on"]
    await run.fleet.aclose()


async def test_the_judge_is_waited_for_on_its_own(folder):
    judge = Engine("judge", folder)
    run = Several(folder, "a", more=[Member("judge", judge, ("judge",), followed=False)])
    await run.fleet.judge_is_up()
    judge.answering.dead = True
    with pytest.raises(EngineUnavailable):
        await run.fleet.judge.complete(HELLO)
    waiting = asyncio.create_task(run.fleet.judge_is_up())
    await settle()
    assert not waiting.done()
    judge.may.set()
    await asyncio.wait_for(waiting, 1)
    assert await run.fleet.judge.complete(HELLO)
    await Several(folder, "a").fleet.judge_is_up()  # a run without one


async def test_with_none_left_a_rollout_waits_for_the_first_that_is_back(folder):
    run = Several(folder, "ab")
    run.kill("a"), run.kill("b")
    with pytest.raises(EngineUnavailable, match="a is gone; b is gone"):
        await run.ask()
    waiting = [asyncio.create_task(run.fleet.restart()) for _ in range(3)]
    await settle()
    assert not any(task.done() for task in waiting)
    run.engines["b"].may.set()
    await asyncio.wait_for(asyncio.gather(*waiting), 1)
    assert await run.ask() == "b"
    await run.fleet.aclose()


async def test_the_run_ends_only_when_no_engine_of_a_role_is_left_and_says_what_to_do(folder):
    run = Several(folder, "ab")
    for name, engine in run.engines.items():
        engine.end = EngineGone(f"{name} has died 11 times; its last log: x")
        engine.may.set()
    run.kill("a")
    await run.ask()
    await settle()
    assert run.told[-1] == "engine a is left out for good: a has died 11 times; its last log: x"
    assert run.engines["a"].ended  # it holds no memory
    await run.fleet.restart()  # b is there
    run.kill("b")
    with pytest.raises(EngineUnavailable):
        await run.ask()
    with pytest.raises(EngineUnavailable, match="none of 2 engines is left; start one again") as caught:
        await asyncio.wait_for(run.fleet.restart(), 1)
    assert "a has died 11 times" in str(caught.value)
    assert "b has died 11 times" in str(caught.value)


@pytest.mark.parametrize("end", [EngineGone("died too often"), SyncError("serves other weights")])
async def test_the_only_engine_says_itself_why_it_does_not_come_back(folder, end):
    run = Several(folder, "a")
    run.engines["a"].end = end
    run.engines["a"].may.set()
    run.kill("a")
    with pytest.raises(EngineUnavailable):
        await run.ask()
    with pytest.raises(type(end), match=str(end)):
        await asyncio.wait_for(run.fleet.restart(), 1)


async def test_an_engine_by_url_is_looked_after_until_it_answers(folder, monkeypatch):
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.01)
    llm = Answering("api")
    more = [Member("api", FixedEndpoint(llm), ("judge",), followed=False)]
    run = Several(folder, "a", more=more)
    llm.dead = True
    assert run.fleet.judge is not None
    with pytest.raises(EngineUnavailable, match="api is gone"):
        await run.fleet.judge.complete(HELLO)
    await run.fleet.restart()  # the judge is not what rollouts wait for
    await asyncio.sleep(0.05)
    assert not more[0].seat.up
    llm.dead = False
    await asyncio.sleep(0.05)
    assert more[0].seat.up
    impatient = Several(folder, "a", more=[Member("api", FixedEndpoint(llm), ("judge",))], return_seconds=0.0)
    llm.dead = True
    with pytest.raises(EngineUnavailable):
        await impatient.fleet.judge.complete(HELLO)
    await asyncio.sleep(0.05)
    assert impatient.told == [
        "engine api does not answer (api is gone); the run waits for it",
        "engine api is left out for good: api is gone (sync.return_seconds = 0 are over)",
    ]


async def test_a_local_engine_that_does_not_start_at_once_is_tried_again(folder, monkeypatch):
    """The memory of a card is not free at once when a process dies."""
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.01)
    run = Several(folder, "a")
    run.engines["a"].end = VLLMStartError("no memory is free")
    run.engines["a"].may.set()
    run.kill("a")
    with pytest.raises(EngineUnavailable):
        await run.ask()
    waiting = asyncio.create_task(run.fleet.restart())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    run.engines["a"].end = None
    await asyncio.wait_for(waiting, 5)
    assert await run.ask() == "a"
    assert run.told[0] == "engine a does not answer (a is gone); the run waits for it"
    assert set(run.told[1:-1]) == {"engine a did not start again (no memory is free) and is tried once more"}
    assert run.told[-1] == "engine a answers again after 0 s"
    assert [event["engine"] for event in run.fleet.events] == ["a"] * len(run.told)


async def test_a_refused_key_is_not_asked_again(folder):
    class Refusing(Answering):
        async def complete(self, messages, tools=None, sampling=None):
            raise EngineRefused("the key is wrong")

    more = [Member("api", FixedEndpoint(Refusing("api")), ("judge",), followed=False)]
    run = Several(folder, "a", more=more)
    with pytest.raises(EngineUnavailable):
        await run.fleet.judge.complete(HELLO)
    await settle()
    assert run.told[-1] == "engine api is left out for good: the key is wrong"


async def test_an_endpoint_that_dislikes_the_question_is_there():
    class Picky(Answering):
        async def complete(self, messages, tools=None, sampling=None):
            raise LLMError("max_tokens must be at least 16")

    await FixedEndpoint(Picky("api")).restart()


async def test_an_endpoint_that_is_silent_is_not_there():
    class Silent(Answering):
        async def complete(self, messages, tools=None, sampling=None):
            raise NoReply("no reply within 600 s")

    with pytest.raises(EngineUnavailable, match="no reply within 600 s"):
        await FixedEndpoint(Silent("api")).restart()


async def test_an_endpoint_behind_a_proxy_whose_engine_has_died_rests_and_no_sub_call_fails(folder):
    class Proxy(Answering):
        async def complete(self, messages, tools=None, sampling=None):
            if self.dead:
                raise EndpointError("api: /chat/completions answered 502: Bad Gateway", 502, "Bad Gateway")
            return Completion(self.name)

    proxy, told = Proxy("proxy"), []
    root, subs = Engine("policy", folder), [proxy, Answering("good")]
    seats = [Member(llm.name, FixedEndpoint(llm), ("sub",), followed=False) for llm in subs]
    fleet = Fleet([Member("policy", root, ("root",)), *seats], told.append)
    proxy.dead = True
    assert {(await fleet.sub.complete(HELLO)).text for _ in range(20)} == {"good"}
    answers = await fleet.sub.complete_many([Request(HELLO)] * 40)
    assert {answer.text for answer in answers} == {"good"}
    proxy.dead, seats[0].seat.rest_ends = False, 0.0
    seats[1].seat.load = 1
    assert (await fleet.sub.complete([{"role": "user", "content": "Another"}])).text == "proxy"
    assert told == [
        "engine proxy answers with errors (api: /chat/completions answered 502: Bad Gateway) and rests; others are "
        "asked meanwhile",
        "engine proxy answers again after errors",
    ]
    assert [event["engine"] for event in fleet.events] == ["proxy"] * 2


async def test_a_time_out_on_the_way_back_is_not_the_end(folder, monkeypatch):
    """It has answered /health, and hangs again."""
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.01)
    run = Several(folder, "ab")
    run.engines["a"].end = NoReply("no reply to /v1/models within 120 s")
    run.engines["a"].may.set()
    run.kill("a")
    assert await run.ask() == "b"
    await asyncio.sleep(0.03)
    assert not run.fleet.is_gone(run.engines["a"])
    run.engines["a"].end = None
    async with asyncio.timeout(5):
        while not run.fleet.members[0].seat.up:  # noqa: ASYNC110  what is waited for tells nobody
            await asyncio.sleep(0.01)
    await run.fleet.aclose()


async def test_a_frozen_sub_model_has_engines_of_its_own(folder):
    frozen = Engine("frozen", folder)
    root = Engine("policy", folder)
    fleet = Fleet([Member("policy", root, ("root",)), Member("frozen", frozen, ("sub",), followed=False)])
    assert (await fleet.llm.complete(HELLO)).text == "policy"
    assert (await fleet.sub.complete(HELLO)).text == "frozen"
    assert fleet.followed == [root]
    root.version, frozen.version = 3, 0
    assert (fleet.version, fleet.newest_version) == (3, 3)
    assert Several(folder, "ab").fleet.sub is None


async def test_the_version_is_that_of_the_oldest_weights_that_may_sample(folder):
    run = Several(folder, "ab")
    run.engines["a"].version, run.engines["b"].version = 4, 5
    assert (run.fleet.version, run.fleet.newest_version) == (4, 5)
    run.kill("a")
    await run.ask()
    assert run.fleet.version == 5  # a samples nothing until it is back, with the weights that it should have
    await run.fleet.aclose()


class Sync:
    """Gives weights to one engine; a dead one cannot be given any."""

    made: list[Sync]

    def __init__(self, config, folder, dtype):
        self.folder = folder
        self.made.append(self)

    async def start(self, learner, engine):
        self.learner, self.engine = learner, engine
        return await self.publish(learner.version)

    async def publish(self, version, learner_free=None):
        await asyncio.to_thread(self.learner.export, self.folder / f"v{version}")
        if learner_free is not None:
            learner_free.set()
        if self.engine.answering.dead:
            raise EngineUnavailable("gone")
        self.engine.version = version
        return {"sync_mean_abs": float(len(self.engine.name)), "sync_requests_cut": 1.0}


class Learner:
    """Its export is one file, which it counts."""

    def __init__(self):
        self.version, self.exports = 0, 0

    def export(self, folder):
        folder.mkdir(parents=True)
        (folder / "weights").write_text(f"version {self.version}")
        self.exports += 1


@pytest.fixture
def syncs(monkeypatch):
    monkeypatch.setattr(Sync, "made", [], raising=False)
    monkeypatch.setattr("rlm_env.train.sync.fleet_sync.make_sync", Sync)
    return Sync.made


async def test_weights_are_exported_once_and_reach_every_engine(folder, tmp_path, syncs):
    run, learner = Several(folder, "ab"), Learner()
    sync = FleetSync(None, tmp_path / "weights", "float32")
    assert await sync.start(learner, run.fleet) == {"sync_mean_abs": 1.0, "sync_requests_cut": 2.0}
    learner.version = 1
    free = asyncio.Event()
    await sync.publish(1, free)
    assert free.is_set()
    assert [engine.version for engine in run.engines.values()] == [1, 1]
    assert learner.exports == 2
    files = [tmp_path / "weights" / name / "v1" / "weights" for name in "ab"]
    assert [file.read_text() for file in files] == ["version 1"] * 2
    assert files[0].samefile(files[1])  # no second copy on disk


async def test_a_dead_engine_does_not_keep_weights_from_the_others(folder, tmp_path, syncs):
    run, learner = Several(folder, "ab"), Learner()
    sync = FleetSync(None, tmp_path / "weights", "float32")
    await sync.start(learner, run.fleet)
    run.kill("a")
    learner.version = 1
    free = asyncio.Event()
    assert await asyncio.wait_for(sync.publish(1, free), 2) == {"sync_mean_abs": 1.0, "sync_requests_cut": 1.0}
    assert free.is_set()
    assert run.fleet.version == 1
    assert run.told[0].startswith("engine a does not answer (gone)")
    await run.fleet.aclose()


async def test_one_engine_is_given_weights_as_ever(folder, tmp_path, syncs):
    run, learner = Several(folder, "a"), Learner()
    await FleetSync(None, tmp_path / "weights", "float32").start(learner, run.fleet)
    (sync,) = syncs
    assert sync.learner is learner
    assert sync.folder == tmp_path / "weights"


async def test_an_engine_that_takes_other_weights_stops_the_update_of_all(folder, tmp_path, syncs, monkeypatch):
    run, learner = Several(folder, "ab"), Learner()
    sync = FleetSync(None, tmp_path / "weights", "float32")
    await sync.start(learner, run.fleet)

    async def refuse(version, learner_free):
        raise SyncError("serves other weights")

    monkeypatch.setattr(syncs[1], "publish", refuse)
    free = asyncio.Event()
    with pytest.raises(SyncError):
        await asyncio.wait_for(sync.publish(1, free), 2)
    assert free.is_set()


def test_the_metrics_of_several_engines_are_the_worst_of_each():
    first = {"sync_mean_abs": 1e-6, "sync_change_share": 0.99, "sync_requests_cut": 2.0}
    second = {"sync_mean_abs": 2e-6, "sync_requests_cut": 1.0}
    assert worst_of([first, second]) == {"sync_mean_abs": 2e-6, "sync_change_share": 0.99, "sync_requests_cut": 3.0}
    assert worst_of([]) == {}


async def test_an_engine_that_an_update_found_dead_and_brought_back_is_told_of(folder, tmp_path, syncs, monkeypatch):
    run, learner = Several(folder, "ab"), Learner()
    sync = FleetSync(None, tmp_path / "weights", "float32")
    await sync.start(learner, run.fleet)

    async def restarted(version, learner_free):
        run.engines["a"].restarts += 1
        return {}

    monkeypatch.setattr(syncs[0], "publish", restarted)
    learner.version = 1
    await sync.publish(1)
    assert run.told == ["engine a had died, and was started again with the newest weights"]
