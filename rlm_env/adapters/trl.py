"""TRL's asynchronous GRPO trainer on rollouts of RLMs: samples of root and sub-LLMs, new weights into our vLLM.

`RLMBackend` is what `AsyncGRPOTrainer` takes both as its `rollout_worker` and as its `weight_transfer`. TRL owns model,
loss and optimizer; rollouts, scores and group advantages are those of `rlm-env train`. Tested with trl 1.16.0, whose
interface for this is experimental. `root_rollouts` serves the synchronous `GRPOTrainer`, which has one row per prompt
and so trains the root LLM's first sample alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy
from safetensors.torch import save_file
from trl.experimental.async_grpo.async_rollout_worker import RolloutSample

from rlm_env.llm.base import EngineUnavailable
from rlm_env.rollout import GroupMember, Rollout
from rlm_env.runs.options import EngineOptions
from rlm_env.scaffolds.rlm import RLMEnv
from rlm_env.scoring import score_rollout
from rlm_env.task import Split, Task
from rlm_env.train.learner.config import SamplesConfig
from rlm_env.train.learner.model import copy_side_files
from rlm_env.train.learner.samples import Sample, SampleKind, rollout_samples
from rlm_env.train.rl.advantage import AdvantageConfig, group_advantages
from rlm_env.train.sync.local_engine import LocalEngine

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

Result = TypeVar("Result")
POLL_SECONDS = 0.2
STOP_SECONDS = 60.0
NO_TOKENS: dict[str, list[Any]] = {"prompt_ids": [0], "completion_ids": [0], "logprobs": [0.0], "env_mask": [0]}
"""The row of a rollout in which nothing was sampled: TRL wants a token, and trains none that is masked."""


def unused_reward(completions: Sequence[Any], **_: Any) -> list[float]:
    """For `reward_funcs`, which TRL wants and does not ask: rewards are the environment's scores."""
    return [0.0] * len(completions)


def placeholder_dataset(rows: int = 1024) -> Dataset:
    """For `train_dataset`, which TRL wants and does not read: tasks are the environment's."""
    from datasets import Dataset

    return Dataset.from_list([{"prompt": [{"role": "user", "content": "made by the environment"}]}] * rows)


class RLMBackend:
    """Rollouts for TRL's `AsyncGRPOTrainer` and weights from it; a context manager that starts and stops the vLLM.

    `model`: the folder that training begins with. `make_env`: makes the environment, in the thread that runs it.
    `group_size`: rollouts of a task. `groups`: tasks in flight at once. `temperature`: of root and sub-LLM, the same as
    TRL's. `max_buffered`: no group begins while so many samples wait for the trainer.

    Every sample has the advantage of its rollout, and as its version that of the weights when the rollout began; TRL
    drops what is older than its `max_staleness`. While new weights are loaded, requests wait, so no reply spans two
    versions. A vLLM that dies is started again.
    """

    def __init__(
        self,
        model: str | Path,
        make_env: Callable[[], RLMEnv],
        *,
        group_size: int = 8,
        groups: int = 8,
        split: Split = "train",
        temperature: float = 1.0,
        train_sub_calls: bool = True,
        advantage: AdvantageConfig | None = None,
        engine: EngineOptions | None = None,
        dtype: str = "bfloat16",
        max_buffered: int = 1024,
        drain_seconds: float = 120.0,
        seed: int = 0,
    ) -> None:
        self.rollout_buffer: queue.Queue[RolloutSample] = queue.Queue()
        self.metrics_queue: queue.Queue[dict[str, Any]] = queue.Queue()
        self._make_env, self._temperature = make_env, temperature
        self._split: Split = split
        self._group_size, self._groups, self._max_buffered = group_size, groups, max_buffered
        self._advantage = advantage or AdvantageConfig()
        self._samples = SamplesConfig(train_sub_calls=train_sub_calls)
        self._drain_seconds = drain_seconds
        self._folder = Path(tempfile.mkdtemp(prefix="rlm-env-trl-"))
        self._engine = LocalEngine(model, engine, log_folder=self._folder, dtype=dtype, seed=seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rlm-env", daemon=True)
        self._work: asyncio.Task[None] | None = None
        self._pause: contextlib.AbstractAsyncContextManager[float] | None = None
        self._played: set[RLMEnv] = set()
        self._version = 0
        self._last_sample = time.monotonic()
        self.failure: BaseException | None = None
        """What ended the rollouts, if something did."""

    def __enter__(self) -> Self:
        """Starts the vLLM. Raises VLLMStartError."""
        self._thread.start()
        self._run(self._engine.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
            for env in self._played:
                self._run(env.aclose())
            self._run(self._engine.__aexit__(None, None, None))
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(STOP_SECONDS)
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """For `AsyncGRPOConfig.vllm_server_base_url`: TRL waits until it answers."""
        return self._engine.base_url.removesuffix("/v1")

    # The protocol of a rollout worker

    def start(self) -> None:
        """Begins with the rollouts."""
        self._last_sample = time.monotonic()
        self._work = self._run(_create_task(self._produce()))

    def stop(self) -> None:
        """Ends the rollouts. Safe to call twice."""
        work, self._work = self._work, None
        if work is not None:
            self._run(_cancelled(work))

    def update_model_version(self, model_version: int) -> None:
        """The version that rollouts are tagged with from now on."""
        self._version = model_version

    def check_health(self, stale_after_s: float) -> None:
        """Raises RuntimeError if the rollouts have ended, or gave no sample for so many seconds."""
        if self.failure is not None:
            raise RuntimeError(f"the rollouts have ended: {self.failure}") from self.failure
        if (silent := time.monotonic() - self._last_sample) > stale_after_s:
            raise RuntimeError(
                f"no sample for {silent:.0f} s: do all groups have equal rewards, or is the vLLM too slow "
                f"(its log: {self._engine.log_path})?"
            )

    # The protocol of a weight transfer

    def init_weight_transfer(self) -> None:
        """Nothing: weights go through a folder."""

    def pause(self) -> None:
        """Waits until no request is in flight, and makes new ones wait."""
        self._pause = self._engine.paused(self._drain_seconds)
        self._run(self._pause.__aenter__())

    def send_weights(self, iterator: Iterator[tuple[str, torch.Tensor]]) -> None:
        """Serves these weights from now on. Raises LLMError where vLLM refuses them."""
        folder = self._folder / f"v{self._engine.version + 1:06d}"
        folder.mkdir(parents=True)
        source = self._engine.model.path
        save_file({name: tensor.cpu().contiguous() for name, tensor in iterator}, folder / "model.safetensors")
        copy_side_files(source, folder)
        shutil.copyfile(source / "config.json", folder / "config.json")
        old = self._engine.served
        self._run(self._engine.load(folder, self._engine.version + 1))
        if old.parent == self._folder:
            shutil.rmtree(old)

    def resume(self) -> None:
        """Lets requests go on."""
        pause, self._pause = self._pause, None
        if pause is not None:
            self._run(pause.__aexit__(None, None, None))

    def destroy(self) -> None:
        """Nothing: the vLLM stops with the context."""

    # Rollouts

    async def _produce(self) -> None:
        """Groups side by side, until it is cancelled or something goes wrong for good."""
        try:
            async with self._make_env() as env:
                tasks = _endless(env, self._split)
                workers = [asyncio.create_task(self._worker(env, tasks)) for _ in range(self._groups)]
                try:
                    await asyncio.gather(*workers)
                finally:
                    for worker in workers:
                        worker.cancel()
                    await asyncio.gather(*workers, return_exceptions=True)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.failure = error

    async def _worker(self, env: RLMEnv, tasks: Iterator[tuple[int, Task]]) -> None:
        for number, task in tasks:
            while self.rollout_buffer.qsize() >= self._max_buffered:
                self._last_sample = time.monotonic()  # it is the trainer that takes its time
                await asyncio.sleep(POLL_SECONDS)
            try:
                rollouts = await self.sample_group(env, task, number)
            except EngineUnavailable:
                await self._engine.restart()
                continue
            self._hand_over(rollouts, number)

    async def sample_group(self, env: RLMEnv, task: Task, number: int) -> list[Rollout]:
        """Scored rollouts of one task; a `score` of None where one failed. Raises EngineUnavailable."""

        async def one(member: int) -> Rollout:
            place = GroupMember(env.environment.name or "", number, member, policy_version=self._version)
            rollout = await env.rollout(task, self._engine.llm)
            rollout.group = place
            if rollout.error is None:
                rollout.score = await score_rollout(env.environment, task, rollout)
            return rollout

        return list(await asyncio.gather(*(one(member) for member in range(self._group_size))))

    def _hand_over(self, rollouts: Sequence[Rollout], number: int) -> None:
        """Puts the samples of a group into TRL's queue. Raises ValueError where they cannot be trained."""
        rewards = [rollout.score.value if rollout.score else None for rollout in rollouts]
        scored = [reward for reward in rewards if reward is not None]
        advantages = group_advantages(rewards, self._advantage)
        counts = {"rollout/failed_total": float(len(rewards) - len(scored)), "rollout/groups_total": 1.0}
        counts["rollout/groups_without_advantage_total"] = float(not any(advantages))
        self.metrics_queue.put_nowait(counts)
        for rollout, reward, advantage in zip(rollouts, rewards, advantages, strict=True):
            if not advantage or reward is None:
                continue
            facts = {
                "reward": reward,
                "reward_std": pstdev(scored),
                "reward_group": fmean(scored),
                "turns": float(len(rollout.turns)),
                "sub_calls": float(len(rollout.sub_calls)),
            }
            for sample in rollout_samples(rollout, self._samples):
                self.rollout_buffer.put_nowait(self._trl_sample(sample, rollout, advantage, number, facts))
                self._last_sample = time.monotonic()

    def _trl_sample(
        self, sample: Sample, rollout: Rollout, advantage: float, group: int, facts: dict[str, float]
    ) -> RolloutSample:
        self._require_temperature(sample)
        return RolloutSample(
            prompt=[{"role": "user", "content": rollout.question}],
            completion=[{"role": "assistant", "content": rollout.answer}],
            input_ids=numpy.array(sample.token_ids),
            completion_mask=numpy.array(sample.mask, dtype=numpy.int64),
            old_log_probs=numpy.array(sample.behavior_logprobs, dtype=numpy.float32),
            advantage=advantage,
            model_version=sample.policy_version,
            group_id=group,
            metrics={**facts, "sub_sample": float(sample.kind is SampleKind.SUB)},
            enqueued_at=time.time(),
        )

    def _require_temperature(self, sample: Sample) -> None:
        if sample.temperature != self._temperature:
            raise ValueError(
                f"the {sample.kind} LLM is sampled at temperature {sample.temperature:g}, but TRL trains at "
                f"{self._temperature:g}: give the environment {sample.kind}=Sampling(temperature={self._temperature:g})"
            )

    # For GRPOTrainer

    def root_rollouts(self, env: RLMEnv, tasks: Sequence[Task]) -> dict[str, list[Any]]:
        """One rollout of each task in the shape that `GRPOTrainer`'s `rollout_func` returns, and `reward`, which goes
        to its reward functions: None where a rollout failed, which TRL leaves out of its group. The root LLM's first
        sample only: `GRPOTrainer` has one row per prompt. The environment is closed with the backend.

        Raises ValueError where the root LLM is sampled at another temperature than TRL's.
        """
        self._played.add(env)

        async def play(task: Task) -> Rollout:
            rollout = await env.rollout(task, self._engine.llm)
            rollout.score = await score_rollout(env.environment, task, rollout) if rollout.error is None else None
            return rollout

        async def play_all() -> list[Rollout]:
            return list(await asyncio.gather(*map(play, tasks)))

        return self._columns(self._run(play_all()))

    def _columns(self, rollouts: Sequence[Rollout]) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {name: [] for name in (*NO_TOKENS, "reward")}
        for rollout in rollouts:
            samples = rollout_samples(rollout, SamplesConfig(train_sub_calls=False))
            for name, value in (self._row(samples[0]) if samples else NO_TOKENS).items():
                columns[name].append(value)
            columns["reward"].append(rollout.score.value if rollout.score else None)
        return columns

    def _row(self, sample: Sample) -> dict[str, list[Any]]:
        self._require_temperature(sample)
        first = sample.mask.index(True)
        return {
            "prompt_ids": sample.token_ids[:first],
            "completion_ids": sample.token_ids[first:],
            "logprobs": sample.behavior_logprobs[first:],
            "env_mask": [int(trained) for trained in sample.mask[first:]],
        }

    def update_weights(self, model: torch.nn.Module) -> None:
        """Serves the weights of a model from now on; requests in flight end first. For `GRPOTrainer`, which does not
        send them by itself. Raises LLMError where vLLM refuses them, and ValueError for a model with adapters, whose
        weights have names that vLLM does not know."""
        weights = [(name, weight.detach()) for name, weight in model.named_parameters()]
        if adapted := next((name for name, _ in weights if "lora_" in name or ".base_layer." in name), None):
            raise ValueError(
                f"the model has adapters ({adapted}): train all weights, or give update_weights a copy into which they "
                "are merged (peft's merge_and_unload)"
            )
        self.pause()
        try:
            self.send_weights(iter(weights))
        finally:
            self.resume()

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Runs a coroutine in the backend's own event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _create_task(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.create_task(work)


async def _cancelled(work: asyncio.Task[None]) -> None:
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


def _endless(env: RLMEnv, split: Split) -> Iterator[tuple[int, Task]]:
    """The tasks of a split with a number each, again from the first when they end. Raises ValueError if there are
    none."""
    number = 0
    while True:
        begun = number
        for task in env.tasks(split):
            yield number, task
            number += 1
        if number == begun:
            raise ValueError(f"the environment has no tasks in its split {split!r}")
