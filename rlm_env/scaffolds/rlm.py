"""RLMEnv: from a task to a rollout, by the multi-turn loop between the root LLM and its REPL.

Covered: configuration, the conversation, how a rollout ends. Not covered: what a task is worth (environments),
how code runs (`repl/`), how prompts are answered (`llm/`).
"""

from __future__ import annotations

import asyncio
import time
import uuid
import zlib
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from rlm_env.environment import Environment, environment_name
from rlm_env.llm.base import LLM, ContextOverflow, EngineUnavailable, LLMError
from rlm_env.messages import Completion, Message
from rlm_env.prompts import load_prompt, prompt_hash, render_prompt
from rlm_env.protocol import TOOL, TOOL_NAME, Cell, bound, extract, join_observations, observation, user_message
from rlm_env.repl import Repl, ReplError, ReplPool, SharedContext
from rlm_env.rollout import Rollout, Score, StopReason, Turn
from rlm_env.scaffolds.budget import Budget
from rlm_env.scaffolds.config import RLMConfig
from rlm_env.scaffolds.sub_llm import SubLLM
from rlm_env.scoring import score
from rlm_env.task import Split, Task, Tasks
from rlm_env.tools.box import ToolBox, ToolUser, read_calls, root_note

Told = tuple[str | None, str]
"""What a model is told of one thing that it asked for, and the id of the tool call, where it was one."""


class RLMEnv:
    """Rolls out an environment's tasks with a root LLM that drives a REPL. The scaffold `rlm`.

    Safe for many rollouts at once on one event loop; they share one pool of REPLs, started at the first.
    Use it as an async context manager, or call `aclose()`, to end the pool.
    """

    name = "rlm"

    def __init__(self, environment: Environment, config: RLMConfig | None = None) -> None:
        self.environment = environment
        self.config = config or RLMConfig()
        self._prompt_text = load_prompt(self.config.prompt)
        self._tips = environment.tips if self.config.tips else ""
        self.system_prompt(use_tool=False)  # a prompt with an unknown field fails here, not in the first rollout
        self._pool: ReplPool | None = None
        self._pool_loop: asyncio.AbstractEventLoop | None = None
        self._pool_lock = asyncio.Lock()

    def tasks(self, split: Split) -> Tasks:
        """The environment's tasks of a split: iterable, re-iterable, lazy; `.take(n)`, `.to_dataset()`."""
        return Tasks(lambda: self.environment.tasks(split), split)

    def score(self, task: Task, rollout: Rollout) -> Score:
        """What the rollout's answer is worth. Pure; a judge, where one is used, ran before it (`judge`)."""
        return score(self.environment, task, rollout)

    async def judge(self, task: Task, rollout: Rollout) -> None:
        """Leaves a judge's verdict in the rollout, for `score` to read."""
        await self.environment.judge(task, rollout)

    def perfect_answer(self, task: Task) -> str:
        """An answer that scores 1.0. Host side only."""
        return self.environment.perfect_answer(task)

    def system_prompt(self, *, use_tool: bool, tools: ToolBox | None = None) -> str:
        """The system prompt as the root LLM gets it, with `tools` for whom the configuration says."""
        config = self.config
        fields = {
            "max_turns": config.max_turns,
            "max_observation_chars": f"{config.max_observation_chars:,}",
            "code_timeout": f"{config.code_timeout:g}",
        }
        note = root_note(tools, self._tool_users(), native=use_tool) if tools else ""
        text = render_prompt(
            self._prompt_text, use_tool=use_tool, sub_llms=config.sub_llms, note=note, tips=self._tips, fields=fields
        )
        if not config.sub_llms and "llm_batch" in text:
            where = "text of the tips" if "llm_batch" in self._tips else f"prompt {config.prompt!r}"
            raise ValueError(
                f"sub_llms is off, but the {where} speaks of llm_batch; in a prompt, put such text between <sub> and "
                "</sub>, and what stands for it between <alone> and </alone>"
            )
        return text

    async def share(self, task: Task) -> SharedContext:
        """Loads the task's context once for several rollouts (`rollout(..., context=...)`), which share its memory.

        To be closed when they have begun. Raises ReplError.
        """
        return await (await self._open_pool()).share(task.context)

    async def rollout(
        self,
        task: Task,
        root: LLM,
        sub: LLM | None = None,
        *,
        id: str | None = None,
        context: SharedContext | None = None,
    ) -> Rollout:
        """Runs one rollout; `sub` defaults to `root`. The result is not scored yet.

        `context`: what `share(task)` returned; None loads the task's context for this rollout alone.
        Whatever goes wrong with the model, its code or one request ends in the rollout's `stop_reason`.
        Raises only EngineUnavailable (no rollout can succeed) and asyncio.CancelledError.
        """
        config = self.config
        budget = Budget(
            config.max_turns,
            config.max_root_tokens,
            config.max_sub_tokens,
            config.max_sub_calls,
            config.max_seconds,
        )
        tools = ToolBox(self.environment.tools(task), config.tool_timeout, config.max_tool_chars)
        users = self._tool_users() if tools else set()
        sub_tools, root_tools = (tools if who in users else None for who in ("sub", "root"))
        subs = SubLLM(sub or root, config.sub, budget, config.sub_system_prompt, sub_tools, config.max_tool_turns)
        use_tool = root.supports_tools if config.action == "auto" else config.action == "tool"
        system = self.system_prompt(use_tool=use_tool, tools=tools)
        record = Rollout(
            id=id or uuid.uuid4().hex,
            task_id=task.id,
            environment=environment_name(self.environment),
            scaffold=self.name,
            messages=[{"role": "system", "content": system}, {"role": "user", "content": user_message(task)}],
            info={
                "task": task.info,
                "root": root.name,
                "sub": (sub or root).name if config.sub_llms else None,
                "sampling": {"root": config.root.recorded(), "sub": config.sub.recorded()},
                "prompt": config.prompt,
                "prompt_sha256": prompt_hash(system),
            },
        )
        if self._tips:
            record.info["tips_sha256"] = prompt_hash(self._tips)
        if users:
            record.info["tools"] = {"for": sorted(users), "names": [tool.name for tool in tools.tools]}
        episode = _Episode(config, task, root, subs, budget, record, use_tool, root_tools)
        start = time.monotonic()
        try:
            pool = await self._open_pool()
            record.info["sandbox"] = pool.report.to_dict()
            seed = zlib.crc32(record.id.encode())
            held = task.context if context is None else context
            async with pool.open(held, subs if config.sub_llms else None, seed) as repl:
                record.timing.setup = time.monotonic() - start
                record.stop_reason = await episode.run(repl)
        except EngineUnavailable:
            raise
        except ContextOverflow as error:
            record.stop_reason = StopReason.CONTEXT_OVERFLOW
            if error.prompt_tokens is not None:
                record.metrics["overflow_prompt_tokens"] = error.prompt_tokens
        except (LLMError, ReplError) as error:
            record.stop_reason, record.error = StopReason.ERROR, f"{type(error).__name__}: {error}"
        record.timing.total = time.monotonic() - start
        episode.summarize()
        if users:
            record.metrics |= tools.metrics() | {"sub_turns": sum(len(call.replies) for call in record.sub_calls)}
        return record

    def _tool_users(self) -> set[ToolUser]:
        """Who may call the environment's tools."""
        if self.config.tools_for == "none":
            return set()
        if not self.config.sub_llms:
            return {"root"}
        return {"root", "sub"} if self.config.tools_for == "both" else {self.config.tools_for}

    def describe(self) -> dict[str, Any]:
        """What is recorded with a run: configuration, prompt hashes, sandbox."""
        return {
            "scaffold": self.name,
            "config": self.config.model_dump(mode="json", exclude_none=True),
            "prompt_sha256": prompt_hash(self._prompt_text),
            "tips_sha256": prompt_hash(self._tips) if self._tips else None,
            "sandbox": self._pool.report.to_dict() if self._pool else None,
        }

    async def aclose(self) -> None:
        """Ends the pool of REPLs and what the environment's tools hold. Both can be used again afterwards."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.__aexit__(None, None, None)
        await self.environment.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _open_pool(self) -> ReplPool:
        loop = asyncio.get_running_loop()
        if self._pool_loop is not loop:  # a pool belongs to its event loop; a second asyncio.run gets a new one
            self._pool, self._pool_loop, self._pool_lock = None, loop, asyncio.Lock()
        async with self._pool_lock:
            if self._pool is None:
                limits = replace(self.config.repl, max_output_chars=self.config.max_observation_chars)
                self._pool = await ReplPool(limits).__aenter__()
        return self._pool


@dataclass(slots=True)
class _Episode:
    """The conversation of one rollout, as it goes on."""

    config: RLMConfig
    task: Task
    root: LLM
    subs: SubLLM
    budget: Budget
    record: Rollout
    use_tool: bool
    tools: ToolBox | None = None
    """What the root LLM itself may call besides the REPL."""
    cells: int = 0
    failed_cells: int = 0
    truncated_chars: int = 0

    async def run(self, repl: Repl) -> StopReason:
        """Turns until the answer is ready or a budget ends it."""
        while (stop := self.budget.exhausted()) is None:
            try:
                async with asyncio.timeout(self.budget.seconds_left):
                    completion = await self._ask_root()
                    told = await self._use_tools(self.record.turns[-1])
            except TimeoutError:
                return StopReason.WALL_TIME
            if await self._act(repl, self.record.turns[-1], completion, told):
                return StopReason.READY
        return stop

    async def _ask_root(self) -> Completion:
        start = time.monotonic()
        tools = [TOOL, *(self.tools.schemas if self.tools else ())] if self.use_tool else None
        completion = await self.root.complete(self.record.messages, tools, self.config.root)
        seconds = time.monotonic() - start
        self.budget.turns += 1
        self.budget.root += completion.usage
        self.record.timing.root += seconds
        self.record.messages.append(completion.message())
        self.record.turns.append(Turn.from_completion(completion, root_seconds=seconds))
        return completion

    async def _use_tools(self, turn: Turn) -> list[Told]:
        """Runs the calls of the root LLM's own tools."""
        if not self.tools:
            return []
        calls = read_calls(turn, native=self.use_tool)
        turn.tool_results = await self.tools.run([call for call in calls if call.name != TOOL_NAME])
        return [(result.id, result.observation) for result in turn.tool_results]

    async def _act(self, repl: Repl, turn: Turn, completion: Completion, told: list[Told]) -> bool:
        """Runs the cells of a reply and tells the model what came of it, after what was `told` of its tools. True
        when the answer is ready."""
        if told and completion.tool_calls:
            mine = [call for call in completion.tool_calls if (call.get("function") or {}).get("name") == TOOL_NAME]
            completion = replace(completion, tool_calls=mine)
        items = extract(completion, use_tool=self.use_tool)
        if told and not (completion.tool_calls if self.use_tool else any(isinstance(item, Cell) for item in items)):
            items = []  # no code, and none was to be expected
        ready = False
        for item in items:
            if not isinstance(item, Cell):
                told.append((item.tool_call_id, item.text))
            elif ready or ((left := self.budget.seconds_left) is not None and left <= 0):
                told.append((item.tool_call_id, "Nothing ran: the task had ended before this block."))
            else:
                text, ready = await self._run_cell(repl, turn, item.code)
                told.append((item.tool_call_id, text))
        if self.budget.max_turns - self.budget.turns == 1 and not ready:
            last_id, last_text = told[-1]
            told[-1] = (last_id, f"{last_text}\nThis is your last turn: put your answer into answer.")
        turn.observation = join_observations([text for _, text in told])
        if not ready:
            self.record.messages.extend(_tell(told))
        return ready

    async def _run_cell(self, repl: Repl, turn: Turn, code: str) -> tuple[str, bool]:
        self.subs.begin_cell(len(self.record.turns) - 1)
        step = await repl.run(code, timeout=self.config.code_timeout, wall_timeout=self.budget.seconds_left)
        failed = step.error is not None or step.timed_out or step.state_lost
        self.subs.end_cell(failed)
        self.cells += 1
        self.failed_cells += failed
        self.truncated_chars += step.truncated_chars
        turn.code.append(code)
        turn.error = step.error or turn.error
        turn.timed_out |= step.timed_out
        turn.state_lost |= step.state_lost
        turn.code_seconds += step.seconds
        turn.sub_seconds += step.sub_llm_seconds
        if not step.state_lost:  # a lost REPL begins with an empty answer; what was there before still counts
            self.record.answer = step.answer["content"]
        if self.subs.unavailable is not None:
            raise self.subs.unavailable
        return bound(observation(step), 2 * self.config.max_observation_chars), step.answer["ready"]

    def summarize(self) -> None:
        """Copies the ledger into the record."""
        record, subs = self.record, self.subs
        record.sub_calls = subs.calls
        record.root_usage, record.sub_usage = self.budget.root, self.budget.sub
        record.timing.code = sum(turn.code_seconds for turn in record.turns)
        record.timing.sub = sum(turn.sub_seconds for turn in record.turns)
        record.metrics |= {
            "turns": len(record.turns),
            "cells": self.cells,
            "cells_failed": self.failed_cells,
            "code_timeouts": sum(turn.timed_out for turn in record.turns),
            "states_lost": sum(turn.state_lost for turn in record.turns),
            "observation_chars_truncated": self.truncated_chars,
            "sub_calls": len(subs.calls),
            "sub_batches": subs.batches,
            "sub_calls_failed": sum(call.error is not None for call in subs.calls),
            "sub_calls_reused": subs.reused,
            "root_prompt_tokens_max": max((turn.usage.prompt_tokens for turn in record.turns), default=0),
        }


def _tell(told: list[Told]) -> list[Message]:
    """Observations as messages: one tool message per tool call, one user message for fenced blocks."""
    if told[0][0] is None:
        return [{"role": "user", "content": join_observations([text for _, text in told])}]
    return [{"role": "tool", "tool_call_id": call_id, "content": text} for call_id, text in told]
