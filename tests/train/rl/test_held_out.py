"""The held-out evaluation: what it measures, going on with what is on disk, and an engine that does not come back."""

import pytest

from rlm_env.llm.base import EngineUnavailable
from rlm_env.train.rl.held_out import HeldOut
from tests.train.scheduling import DEAD, Engine, EnvironmentMix, Scaffold, config


class Both(EnvironmentMix):
    """The same scaffold answers held-out tasks."""

    names = ("scripted",)

    def held_out(self, name):
        return self._scaffold


class Held(Scaffold):
    """Scores 1 for every other task; counts what it is asked."""

    def __init__(self, error=None):
        super().__init__()
        self.error = error

    def tasks(self, split):
        return EnvironmentMix(self).tasks("scripted", -1)

    async def rollout(self, task, llm, *, id, context):
        if self.error:
            raise self.error
        self.reply = lambda task, _: float(int(task.id.rpartition("-")[2]) % 2)
        return await super().rollout(task, llm, id=id, context=context)


class Lost(Engine):
    async def restart(self):
        raise EngineUnavailable("vLLM does not start any more")


def settings():
    return config().model_copy(update={"held_out": config().held_out.model_copy(update={"n": 6})})


async def test_scores_are_means_and_what_is_on_disk_is_not_made_again(tmp_path):
    scaffold = Held()
    held_out = HeldOut(settings(), Both(scaffold), Engine(), tmp_path)
    first = await held_out.run(0)
    assert first["eval/scripted/score"] == 0.5
    assert first["eval/scripted/error"] == 0
    assert len(scaffold.begun) == 6
    stored = (tmp_path / "held_out.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "held_out.jsonl").write_text("".join(stored[:4]) + stored[4][:50])  # a crash
    again = Held()
    resumed = HeldOut(settings(), Both(again), Engine(), tmp_path)
    assert await resumed.run(0) == first
    assert len(again.begun) == 2
    await resumed.run(10)
    assert len(again.begun) == 8


async def test_an_engine_that_does_not_come_back_is_told_as_such(tmp_path):
    with pytest.raises(EngineUnavailable, match="does not start any more"):
        await HeldOut(settings(), Both(Held(DEAD)), Lost(), tmp_path).run(0)
