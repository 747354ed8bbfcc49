"""The conversation between the root LLM and its REPL in one rollout: replies, cells, observations.

How code is found in a reply and how observations are worded is in `protocol.py`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from rlm_env.events import AnswerChanged, CodeEnded, CodeStarted
from rlm_env.llm.base import LLMError
from rlm_env.messages import Completion
from rlm_env.protocol import (
    TOOL,
    Cell,
    Observation,
    extract_cells,
    join_observations,
    observation_messages,
    observation_text,
)
from rlm_env.repl import Repl, StepResult
from rlm_env.replies import AliasUses, is_repl
from rlm_env.rollout import StopReason, Turn
from rlm_env.scaffolds.base import ONLY_REASONING, Episode, ended_in_thought
from rlm_env.scaffolds.sub_llm import SubLLM
from rlm_env.tools.box import read_calls

MOST_THOUGHTS = 3
"""Replies of reasoning alone, and no other before them, that end a rollout: the endpoint hides what the model says."""
LAST_TURN = "This is your last turn: put your answer into answer."
TOO_LATE = "Nothing ran: the task had ended before this block."


@dataclass(slots=True)
class ReplLoop:
    """Turns of one rollout until the answer is ready or the budget ends it."""

    episode: Episode
    subs: SubLLM
    use_tool: bool
    """Code is asked for by the tool call, and tools are called natively; otherwise by fenced blocks."""
    cells: int = 0
    failed_cells: int = 0
    truncated_chars: int = 0
    answer_truncated_chars: int = 0
    alias_uses: AliasUses = field(default_factory=AliasUses)
    emitted_answer: tuple[str, bool] = ("", False)
    """Content and readiness of the answer that was last emitted."""

    async def run(self, repl: Repl) -> StopReason:
        """Raises what engine and REPL raise."""
        budget, record = self.episode.budget, self.episode.record
        while (stop := budget.exhausted()) is None:
            try:
                async with asyncio.timeout(budget.seconds_left):
                    completion = await self._ask_root()
                    turn = record.turns[-1]
                    observations = await self._use_tools(turn)
            except TimeoutError:
                return StopReason.WALL_TIME
            if len(record.turns) == min(MOST_THOUGHTS, budget.max_turns) and all(map(ended_in_thought, record.turns)):
                raise LLMError(ONLY_REASONING)
            if await self._run_reply(repl, turn, completion, observations):
                return StopReason.READY
        return stop

    @property
    def _own_tools(self) -> bool:
        """The root LLM has tools besides the REPL."""
        return "root" in self.episode.tool_users

    async def _ask_root(self) -> Completion:
        """One reply of the root LLM, with the schema of the REPL's tool and of its own tools."""
        episode = self.episode
        schemas = [TOOL, *(episode.tools.schemas if self._own_tools else ())] if self.use_tool else None
        completion = await episode.ask_root(episode.record.messages, schemas)
        episode.record.messages.append(completion.message())
        return completion

    async def _use_tools(self, turn: Turn) -> list[Observation]:
        """Runs the calls of the root LLM's own tools."""
        if not self._own_tools:
            return []
        tools = self.episode.tools
        calls = read_calls(turn, native=self.use_tool, names=tools)
        turn.tool_results = await tools.run([call for call in calls if not self._runs_code(call.name)])
        return [Observation(result.observation, result.id) for result in turn.tool_results]

    def _runs_code(self, name: object) -> bool:
        """True for the name of the tool that runs code, unless the environment has a tool of that name."""
        return isinstance(name, str) and is_repl(name) and name not in self.episode.tools

    async def _run_reply(self, repl: Repl, turn: Turn, completion: Completion, observations: list[Observation]) -> bool:
        """Runs the cells of a reply and tells the model what came of them, after the `observations` of its tools.
        Returns True when the answer is ready."""
        budget = self.episode.budget
        if observations and completion.tool_calls:
            names = [(call.get("function") or {}).get("name") for call in completion.tool_calls]
            pairs = zip(names, completion.tool_calls, strict=True)
            cells = [call for name, call in pairs if self._runs_code(name)]
            completion = replace(completion, tool_calls=cells)
        items = extract_cells(completion, use_tool=self.use_tool, aliases=self.episode.config.aliases)
        has_code = completion.tool_calls or any(isinstance(item, Cell) for item in items)
        if observations and not has_code:
            items = []  # only tools were called, so that there is no code is no problem
        ready = False
        for item in items:
            if not isinstance(item, Cell):
                observations.append(Observation(item.text, item.tool_call_id))
            elif ready or ((left := budget.seconds_left) is not None and left <= 0):
                observations.append(Observation(TOO_LATE, item.tool_call_id))
            else:
                text, ready = await self._run_cell(repl, turn, item.code, left)
                observations.append(Observation(text, item.tool_call_id))
        if budget.max_turns - budget.turns == 1 and not ready:
            observations[-1] = replace(observations[-1], text=f"{observations[-1].text}\n{LAST_TURN}")
        turn.observation = join_observations(observations)
        if not ready:
            self.episode.record.messages += observation_messages(observations)
        return ready

    async def _run_cell(self, repl: Repl, turn: Turn, code: str, seconds_left: float | None) -> tuple[str, bool]:
        """The observation of one cell, and True when the answer is ready."""
        config, record = self.episode.config, self.episode.record
        self.alias_uses.add(code)
        self.subs.begin_cell(len(record.turns) - 1)
        events, index = self.episode.events, len(record.turns) - 1
        if events:
            events.emit(CodeStarted, index=index, code=code)
        step = await repl.run(code, timeout=config.code_timeout, wall_timeout=seconds_left)
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
            if step.answer["content"] != record.answer:
                turn.answer = step.answer["content"]
            record.answer = step.answer["content"]
            self.answer_truncated_chars = step.answer_truncated_chars
        if self.subs.unavailable is not None:
            raise self.subs.unavailable
        text = observation_text(step, 2 * config.max_observation_chars)
        if events:
            self._emit_step(step, text, index)
        return text, step.answer["ready"]

    def _emit_step(self, step: StepResult, text: str, index: int) -> None:
        """Emits the end of a cell, and its answer if that is new."""
        events, answer = self.episode.events, (step.answer["content"], step.answer["ready"])
        events.emit(CodeEnded, index=index, output=text, error=step.error, code_seconds=step.seconds)
        if answer != self.emitted_answer and not step.state_lost:
            self.emitted_answer = answer
            events.emit(AnswerChanged, content=answer[0], ready=answer[1])

    def close(self) -> None:
        """Copies what was counted into the record."""
        record, subs = self.episode.record, self.subs
        record.sub_calls = subs.calls
        record.timing.code = sum(turn.code_seconds for turn in record.turns)
        record.timing.sub = sum(turn.sub_seconds for turn in record.turns)
        record.metrics |= {
            "cells": self.cells,
            "cells_failed": self.failed_cells,
            "code_timeouts": sum(turn.timed_out for turn in record.turns),
            "states_lost": sum(turn.state_lost for turn in record.turns),
            "observation_chars_truncated": self.truncated_chars,
            "answer_chars_truncated": self.answer_truncated_chars,
            "alias_uses": self.alias_uses.count,
            "sub_batches": subs.batches,
            "sub_calls_failed": sum(call.error is not None for call in subs.calls),
            "sub_calls_reused": subs.reused,
        }
        if self.episode.tools:
            record.metrics["sub_turns"] = sum(len(call.replies) for call in record.sub_calls)
