"""`RLMEnv`: an environment whose tasks a root LLM answers by driving a REPL. The scaffold `rlm`.

The turns of one rollout are in `repl_loop.py`, `llm_batch` in `sub_llm.py`, prompts in `prompts/`.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from rlm_env.environment import Environment
from rlm_env.events import OnEvent
from rlm_env.llm.base import LLM, ToolsRefused
from rlm_env.prompts import load_prompt, prompt_hash, render_prompt
from rlm_env.protocol import user_message
from rlm_env.repl import ReplConfig, ReplPool, ReplPools, SandboxReport, SharedContext
from rlm_env.rollout import Rollout, Score, StopReason
from rlm_env.scaffolds.base import Episode, Scaffold, in_thread_if_files
from rlm_env.scaffolds.config import RLMConfig
from rlm_env.scaffolds.repl_loop import ReplLoop
from rlm_env.scaffolds.sub_llm import SubLLM
from rlm_env.scoring import score
from rlm_env.task import Split, Task, Tasks
from rlm_env.tools.box import ToolBox, ToolUser, root_note


class RLMEnv(Scaffold):
    """Rolls out an environment's tasks with a root LLM that drives a REPL.

    Many rollouts can run at once on one event loop; they share one pool of REPLs. With `pools` it is taken from there
    and left open; without, it is started at the first rollout, and ended by `aclose()` or by using the object as an
    async context manager.
    """

    name = "rlm"

    def __init__(
        self, environment: Environment, config: RLMConfig | None = None, *, pools: ReplPools | None = None
    ) -> None:
        super().__init__(environment, config, pools=pools)
        self._prompt_text = load_prompt(self.config.prompt)
        self._tips = environment.tips if self.config.tips else ""
        self.system_prompt(use_tool=False)  # a prompt with an unknown field fails here, not in the first rollout
        self._given_pools = pools
        self._own_pools: tuple[asyncio.AbstractEventLoop, ReplPools] | None = None
        self._sandbox: SandboxReport | None = None

    def tasks(self, split: Split) -> Tasks:
        """The environment's tasks of a split: lazy, and can be iterated again; `.take(n)`, `.to_dataset()`."""
        return Tasks(lambda: self.environment.tasks(split), split)

    def score(self, task: Task, rollout: Rollout) -> Score:
        """Scores the rollout's answer. Pure; where the environment has a judge, await `judge` first."""
        return score(self.environment, task, rollout)

    async def judge(self, task: Task, rollout: Rollout) -> None:
        """Leaves a judge's verdict in the rollout, for `score` to read."""
        await self.environment.judge(task, rollout)

    def perfect_answer(self, task: Task) -> str:
        """An answer that scores 1.0. Host side only."""
        return self.environment.perfect_answer(task)

    def system_prompt(self, *, use_tool: bool, tools: ToolBox | None = None) -> str:
        """The root LLM's system prompt. `use_tool`: code is asked for by the tool call; `tools`: the environment's."""
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
                "</sub>, and what replaces it between <alone> and </alone>"
            )
        return text

    async def share(self, task: Task) -> SharedContext:
        """Loads the task's context once for several rollouts (`rollout(..., context=...)`), which share its memory.

        Close it once they have begun. Raises ReplError.
        """
        return await (await self._pool()).share(task.context)

    async def rollout(
        self,
        task: Task,
        root: LLM,
        sub: LLM | None = None,
        *,
        id: str | None = None,
        context: SharedContext | None = None,
        on_event: OnEvent | None = None,
    ) -> Rollout:
        """Runs one rollout; `sub` defaults to `root`. The result is not scored yet.

        `context`: what `share(task)` returned; None loads the task's context for this rollout alone. `on_event` is
        called with each event. Whatever goes wrong with the model, its code or one request ends in the rollout's
        `stop_reason`. Raises EngineUnavailable where no rollout can succeed any more, and asyncio.CancelledError.
        """
        episode = self._begin(task, root, sub, id, on_event)
        return await episode.run(self._play(episode, context))

    async def _play(self, episode: Episode, context: SharedContext | None = None) -> StopReason:
        """Opens a REPL with the context and the seed, and runs the turns in it."""
        config, task, record = self.config, episode.task, episode.record
        use_tool = episode.root.supports_tools if config.action == "auto" else config.action == "tool"
        await self._open_record(episode, use_tool)
        subs = SubLLM(episode)
        loop = ReplLoop(episode, subs, use_tool)
        start = time.monotonic()
        try:
            pool = await self._pool()
            record.info["sandbox"] = pool.report.to_dict()
            held = task.context if context is None else context
            seed = zlib.crc32(record.id.encode())
            async with pool.open(held, subs if config.sub_llms else None, seed) as repl:
                record.timing.setup = time.monotonic() - start
                try:
                    return await loop.run(repl)
                except ToolsRefused:
                    if config.action != "auto":
                        raise
                    loop.use_tool = False
                    self._ask_for_fences(episode)
                    return await loop.run(repl)
                finally:
                    if repl.ends:
                        record.info["repl_ends"] = list(repl.ends)
        finally:
            loop.close()

    def _ask_for_fences(self, episode: Episode) -> None:
        """Puts the system prompt that asks for fenced blocks in place of the one that asks for tool calls."""
        system = self.system_prompt(use_tool=False, tools=episode.tools)
        episode.record.messages[0] = {"role": "system", "content": system}
        episode.record.info["prompt_sha256"] = prompt_hash(system)

    async def _open_record(self, episode: Episode, use_tool: bool) -> None:
        """Begins the conversation, and records what is needed to repeat it."""
        config, record = self.config, episode.record
        system = self.system_prompt(use_tool=use_tool, tools=episode.tools)
        question = await in_thread_if_files(user_message, episode.task)
        record.messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
        record.info["sub"] = episode.sub.name if config.sub_llms else None
        record.info["sampling"]["sub"] = config.sub.recorded()
        record.info |= {"prompt": config.prompt, "prompt_sha256": prompt_hash(system)}
        if self._tips:
            record.info["tips_sha256"] = prompt_hash(self._tips)

    def _tool_users(self) -> frozenset[ToolUser]:
        users = self.config.tools_for
        if users == "none":
            return frozenset()
        if not self.config.sub_llms:
            return frozenset({"root"})
        return frozenset({"root", "sub"}) if users == "both" else frozenset({users})

    async def _pool(self) -> ReplPool:
        """The pool of REPLs, given or its own."""
        pools = self._given_pools
        if pools is None:
            loop = asyncio.get_running_loop()
            if self._own_pools is None or self._own_pools[0] is not loop:  # a second asyncio.run gets new ones
                self._own_pools = loop, ReplPools()
            pools = self._own_pools[1]
        pool = await pools.get(self._repl_config())
        self._sandbox = pool.report
        return pool

    def _repl_config(self) -> ReplConfig:
        return replace(
            self.config.repl, max_output_chars=self.config.max_observation_chars, aliases=self.config.aliases
        )

    def describe(self) -> dict[str, Any]:
        """For the record of a run: configuration, prompt hashes, and once a REPL was opened its sandbox."""
        return {
            **super().describe(),
            "prompt_sha256": prompt_hash(self._prompt_text),
            "tips_sha256": prompt_hash(self._tips) if self._tips else None,
            "sandbox": self._sandbox.to_dict() if self._sandbox else None,
        }

    async def aclose(self) -> None:
        """Ends its own pool of REPLs and what the environment's tools hold. Both can be used again afterwards."""
        own, self._own_pools = self._own_pools, None
        if own is not None and own[0] is asyncio.get_running_loop():
            await own[1].close()
        await super().aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
