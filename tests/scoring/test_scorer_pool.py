"""Scorer processes: broken limits are errors, never a 0; the event loop is not blocked; any environment is scored."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rlm_env.environment import Environment
from rlm_env.rollout import Rollout, Score, StopReason, Turn
from rlm_env.scoring import ScorerKilled, apart, close_scorers, score, score_rollout
from rlm_env.task import Task
from tests.scoring.scorers import InThread, Large, OddError, Scorer, Slotted

TASK = Task("what?", "the context", gold="right", id="t")


def answered(text: str) -> Rollout:
    return Rollout.from_answer(TASK, text)


async def scored(environment: Environment, text: str, task: Task = TASK) -> Score:
    return await score_rollout(environment, task, answered(text))


def pool_pids() -> list[int]:
    pool = apart._scorers.pool
    return [] if pool is None else pool.pids()


def ended(pids: list[int]) -> bool:
    """True as soon as none of the processes runs; False after some seconds."""
    for _ in range(100):
        states = [Path(f"/proc/{pid}/stat") for pid in pids]
        if not any(state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z" for state in states):
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(autouse=True)
def _no_warning() -> Iterator[None]:
    """No score falls back to a thread unless a test says so."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


async def test_scores_are_those_of_the_environment():
    env = Scorer()
    for answer in ("right_or_wrong right", "right_or_wrong wrong"):
        assert await scored(env, answer) == score(env, TASK, answered(answer))


async def test_a_scorer_runs_in_a_clean_process_that_is_used_again():
    env = Scorer()
    found = {(await scored(env, "pid")).metrics["pid"] for _ in range(5)}
    assert os.getpid() not in found
    assert found <= set(map(float, pool_pids()))
    assert (await scored(env, "pid")).metrics["torch"] == 0.0


async def test_an_environment_is_sent_as_it_is_now():
    env = Scorer()
    assert (await scored(env, "right_or_wrong right")).value == 1.0
    env.right = "left"
    assert (await scored(env, "right_or_wrong right")).value == 0.0
    assert (await scored(env, "right_or_wrong left")).value == 1.0


async def test_a_large_environment_that_has_changed_is_sent_again():
    env = Large()
    assert (await scored(env, "7", Task("what?", id="7"))).value == 1.0
    env.golds["new"] = {"gold": [8]}
    assert (await scored(env, "8", Task("what?", id="new"))).value == 1.0
    with pytest.raises(KeyError):
        await scored(env, "8", Task("what?", id="none"))


async def test_large_parts_reach_a_scorer_that_reads_them():
    rollout = answered("parts")
    rollout.turns = [Turn(text="x" * 1000) for _ in range(50)]
    found = await score_rollout(Scorer(), Task("what?", "c" * 1_000_000), rollout)
    assert found.metrics == {"context": 1_000_000.0, "turns": 50.0}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("computes", r"Scorer: score\(\) took more than 1 s of processor time; .* `score_limits`"),
        ("computes_in_c", r"took more than 1 s of processor time"),
        pytest.param("sleeps 1000", r"Scorer: score\(\) took more than 6 s; .* `score_limits`", marks=pytest.mark.slow),
        ("eats_memory", r"took more than 0.25 GiB of memory; .* `score_limits`"),
        ("exits", r"exited with status 3"),
    ],
)
async def test_a_broken_limit_is_an_error_and_the_process_is_replaced(answer: str, message: str):
    env = Scorer()
    if answer.startswith("computes"):  # the limit that is meant comes first, however busy the machine is
        env.score_limits = replace(env.score_limits, wall_seconds=300.0)
    with pytest.raises(ScorerKilled, match=message):
        await scored(env, answer)
    assert (await scored(env, "right_or_wrong right")).value == 1.0


@pytest.mark.slow
async def test_what_a_scorer_started_ends_with_it(tmp_path: Path):
    with pytest.raises(ScorerKilled):
        await scored(Scorer(), f"starts_a_process {tmp_path / 'pid'}")
    pid = int((tmp_path / "pid").read_text())
    assert ended([pid])


async def test_exceptions_are_those_of_the_scorer_with_their_traceback():
    with pytest.raises(KeyError, match="missing key") as found:
        await scored(Scorer(), "raises")
    shown = "".join(traceback.format_exception(found.value))
    assert "in raises" in shown
    assert "scorers.py" in shown
    with pytest.raises(RuntimeError, match="OddError"):
        await scored(Scorer(), "raises_oddly")
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        await scored(Scorer(), "outside")
    assert issubclass(OddError, Exception)


@pytest.mark.slow
async def test_a_slow_score_delays_neither_the_loop_nor_the_others():
    env = Scorer()
    await scored(env, "right_or_wrong right")
    worst, ended = 0.0, False

    async def tick() -> None:
        nonlocal worst
        while not ended:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            worst = max(worst, time.monotonic() - before)

    ticker = asyncio.create_task(tick())
    slow = [asyncio.create_task(scored(env, "sleeps 4.5")) for _ in range(4)]
    await asyncio.sleep(0.1)
    started = time.monotonic()
    found = await asyncio.gather(*(scored(env, "right_or_wrong right") for _ in range(50)))
    seconds = time.monotonic() - started
    assert [one.value for one in await asyncio.gather(*slow)] == [1.0] * 4
    ended = True
    await ticker
    assert [one.value for one in found] == [1.0] * 50
    assert seconds < 4  # they did not wait for the slow ones
    assert worst < 0.5


async def test_many_at_once_and_a_cancelled_one():
    env = Scorer()
    jobs = [asyncio.create_task(scored(env, f"right_or_wrong {'right' if i % 3 else 'wrong'}")) for i in range(200)]
    await asyncio.sleep(0)
    jobs[7].cancel()
    found = await asyncio.gather(*jobs, return_exceptions=True)
    assert isinstance(found[7], asyncio.CancelledError)
    assert [one.value for i, one in enumerate(found) if isinstance(one, Score)] == [
        float(i % 3 != 0) for i in range(200) if i != 7
    ]


async def test_a_process_that_died_idle_is_replaced():
    env = Scorer()
    await scored(env, "right_or_wrong right")
    for pid in pool_pids():
        os.kill(pid, signal.SIGKILL)
    await asyncio.sleep(0.2)
    for _ in range(8):
        assert (await scored(env, "right_or_wrong right")).value == 1.0


async def test_after_closing_the_next_score_starts_new_processes():
    env = Scorer()
    await scored(env, "right_or_wrong right")
    old = pool_pids()
    close_scorers()
    assert ended(old)
    assert (await scored(env, "right_or_wrong right")).value == 1.0


def test_event_loops_share_the_processes():
    env = Scorer()
    first = asyncio.run(scored(env, "pid")).metrics["pid"]
    pids = {asyncio.run(scored(env, "pid")).metrics["pid"] for _ in range(3)}
    assert first in set(map(float, pool_pids()))
    assert pids <= set(map(float, pool_pids()))


@pytest.mark.parametrize("answer", ["uses_lambda right", "hides_it right", "asks_its_kind"])
async def test_a_scorer_that_needs_what_cannot_be_sent_is_run_in_a_thread_with_a_warning(answer: str):
    env = Scorer()
    with pytest.warns(
        RuntimeWarning, match=r"Scorer is scored in a thread of this process: score\(\) uses .*(lambda|Closing)"
    ):
        assert (await scored(env, answer)).value == 1.0
    assert (await scored(env, answer)).value == 1.0  # the warning comes once
    assert (await scored(env, "pid")).metrics["pid"] == os.getpid()


async def test_a_local_class_is_scored_in_a_thread_with_a_warning():
    class Local(Scorer):
        pass

    with pytest.warns(RuntimeWarning, match=r"Local is scored in a thread .* `score_in_process = True`"):
        assert (await scored(Local(), "right_or_wrong right")).value == 1.0


async def test_a_thread_can_be_asked_for():
    env = InThread()
    assert (await scored(env, "pid")).metrics["pid"] == os.getpid()
    assert (await scored(env, "uses_lambda right")).value == 1.0
    with pytest.raises(KeyError):
        await scored(env, "raises")


@pytest.mark.slow
async def test_a_late_score_in_a_thread_is_an_error_and_those_after_it_are_scored():
    env = InThread()
    late = asyncio.create_task(scored(env, "sleeps 30"))
    await asyncio.sleep(0.1)
    with pytest.raises(ScorerKilled, match="took more than 6 s"):
        await late
    assert (await scored(env, "right_or_wrong right")).value == 1.0


async def test_an_environment_without_weak_references_or_hash_is_scored():
    assert (await scored(Slotted(), "x")).value == 1.0


async def test_an_unanswered_overflow_asks_no_scorer():
    rollout = Rollout(task_id="t", stop_reason=StopReason.CONTEXT_OVERFLOW)
    assert (await score_rollout(Scorer(), TASK, rollout)).value == 0.0


SCRIPT = """
import asyncio, warnings
import rlm_env
from rlm_env.scoring import score_rollout

class WordCount(rlm_env.Environment):
    def tasks(self, split):
        yield rlm_env.Task(question="How many words?", context="a b", gold="2")

    def score(self, task, rollout):
        return float(rollout.answer.strip() == task.gold)

task = next(iter(WordCount().tasks("eval")))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    value = asyncio.run(score_rollout(WordCount(), task, rlm_env.Rollout.from_answer(task, "2"))).value
print(value, len(caught), caught[0].category.__name__)
"""


def test_an_environment_of_a_script_is_scored_and_the_script_does_not_run_again(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["1.0", "1", "RuntimeWarning"], done.stderr


def test_the_warning_about_a_class_of_a_script_is_one_line_at_its_score(tmp_path: Path):
    script = tmp_path / "my_env.py"
    rollout = 'rlm_env.Rollout.from_answer(task, "2")'
    scored_often = f"for _ in range(3):\n    print(asyncio.run(score_rollout(WordCount(), task, {rollout})).value)\n"
    script.write_text(SCRIPT.partition("with warnings")[0] + scored_often)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["1.0"] * 3, done.stderr
    line = next(n for n, text in enumerate(script.read_text().splitlines(), 1) if "def score" in text)
    said, source = done.stderr.splitlines()
    assert said.startswith(
        f"{script}:{line}: RuntimeWarning: WordCount is scored in a thread of this process: its class"
    )
    assert "defined in the script or notebook itself" in said
    assert "Move the class to a module" in said
    assert source.strip().startswith("def score(")


HOST = """
import asyncio, os, sys
from rlm_env.scoring import apart, score_rollout
from tests.scoring.scorers import Scorer
from rlm_env.task import Task
from rlm_env.rollout import Rollout

async def main():
    task = Task("what?")
    env = Scorer()
    await score_rollout(env, task, Rollout.from_answer(task, "right_or_wrong right"))
    if not os.fork():
        await score_rollout(env, task, Rollout.from_answer(task, "right_or_wrong right"))
        assert not set(apart._scorers.pool.pids()) & set(map(int, sys.argv[2:]))
        apart.close_scorers()
        os._exit(0)
    assert os.wait()[1] == 0
    print(*apart._scorers.pool.pids(), flush=True)
    if sys.argv[1] == "killed":
        task = asyncio.create_task(score_rollout(env, task, Rollout.from_answer(task, "sleeps 1000")))
        await asyncio.sleep(0.5)
        os.kill(os.getpid(), 9)

asyncio.run(main())
"""


@pytest.mark.parametrize("way", ["at exit", "killed"])
def test_processes_end_with_theirs(way: str):
    done = subprocess.run([sys.executable, "-c", HOST, way], capture_output=True, text=True, check=False)
    assert done.returncode == (0 if way == "at exit" else -9), done.stderr
    pids = [int(pid) for pid in done.stdout.split()]
    assert pids
    assert ended(pids)
