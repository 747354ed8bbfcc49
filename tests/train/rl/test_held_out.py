"""The held-out evaluation: what it measures, going on with what is on disk, and an engine that does not come back."""

import errno
import os

import pytest

from rlm_env.llm.base import EngineUnavailable
from rlm_env.runs.errors import ConfigError, RunStopped
from rlm_env.train.rl.held_out import HeldOut
from tests.train.scheduling import DEAD, Engine, EnvironmentMix, Scaffold, config


class Both(EnvironmentMix):
    """The same scaffold answers held-out tasks."""

    labels = ("scripted",)

    def held_out(self, name):
        return self._scaffold


class Held(Scaffold):
    """Scores 1 for every other task; counts what it is asked."""

    def __init__(self, error=None):
        super().__init__()
        self.error = error

    def tasks(self, split):
        return EnvironmentMix(self).tasks("scripted", -1)

    async def rollout(self, task, llm, sub=None, *, id, context):
        if self.error:
            raise self.error
        self.reply = lambda task, _: float(int(task.id.rpartition("-")[2]) % 2)
        return await super().rollout(task, llm, id=id, context=context)


class Lost(Engine):
    async def restart(self):
        raise EngineUnavailable("vLLM does not start any more")


def settings():
    return config().model_copy(update={"held_out": config().held_out.model_copy(update={"n": 6})})


async def test_a_rollout_that_cannot_be_stored_is_an_error_and_ends_nothing(tmp_path):
    class Odd(Held):
        async def rollout(self, task, llm, sub=None, *, id, context):
            rollout = await super().rollout(task, llm, id=id, context=context)
            rollout.info["odd"] = {float("nan")} if task.id.endswith("-1") else None
            return rollout

    with HeldOut(settings(), Both(Odd()), Engine(), tmp_path) as held_out:
        metrics = await held_out.run(0)
    assert metrics["eval/scripted/error"] == pytest.approx(1 / 6)
    assert "cannot be stored as JSON" in (tmp_path / "held_out.jsonl").read_text()


async def test_scores_are_means_and_what_is_on_disk_is_not_made_again(tmp_path):
    scaffold = Held()
    with HeldOut(settings(), Both(scaffold), Engine(), tmp_path) as held_out:
        first = await held_out.run(0)
    assert first["eval/scripted/score"] == 0.5
    assert first["eval/scripted/error"] == 0
    assert len(scaffold.begun) == 6
    stored = (tmp_path / "held_out.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "held_out.jsonl").write_text("".join(stored[:4]) + stored[4][:50])  # a crash
    again = Held()
    with HeldOut(settings(), Both(again), Engine(), tmp_path) as resumed:
        assert await resumed.run(0) == first
        assert len(again.begun) == 2
        await resumed.run(10)
        assert len(again.begun) == 8


async def test_its_file_has_one_writer_and_damage_is_named(tmp_path):
    with HeldOut(settings(), Both(Held()), Engine(), tmp_path) as held_out:
        await held_out.run(0)
        with pytest.raises(ConfigError, match=r"is writing to .*held_out\.jsonl"):
            HeldOut(settings(), Both(Held()), Engine(), tmp_path)
    path = tmp_path / "held_out.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], "{}\n", *lines[2:]]))
    with pytest.raises(ConfigError, match=r"held_out\.jsonl, line 2 is damaged"):
        HeldOut(settings(), Both(Held()), Engine(), tmp_path)


async def test_a_full_disk_stops_the_run(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with HeldOut(settings(), Both(Held()), Engine(), tmp_path) as held_out:
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(RunStopped, match="the disk is full"):
            await held_out.run(0)


async def test_an_engine_that_does_not_come_back_ends_it(tmp_path):
    with (
        HeldOut(settings(), Both(Held(DEAD)), Lost(), tmp_path) as held_out,
        pytest.raises(EngineUnavailable, match="does not start any more"),
    ):
        await held_out.run(0)


class Unstorable(Held):
    """The third of its rollouts holds a number that JSON does not have."""

    async def rollout(self, task, llm, sub=None, *, id, context):
        rollout = await super().rollout(task, llm, id=id, context=context)
        if task.id.endswith("-3"):
            rollout.info["forged"] = [{"role": "user", "z": float("inf")}]
        return rollout


async def test_a_rollout_that_cannot_be_stored_costs_itself_and_not_the_run(tmp_path):
    with HeldOut(settings(), Both(Unstorable()), Engine(), tmp_path) as held_out:
        metrics = await held_out.run(0)
    assert metrics["eval/scripted/error"] == pytest.approx(1 / 6)
    lines = (tmp_path / "held_out.jsonl").read_text().splitlines()
    assert len(lines) == 6
    assert sum("cannot be stored as JSON" in line for line in lines) == 1
