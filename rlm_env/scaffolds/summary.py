"""The summary agent: reads as much as fits its window, replaces it by notes, goes on.

Covered: reading a context of any length, or what tools have given, in pieces; notes under way; the final answer. Not
covered: how much fits
(`window.py`). Source of the scaffold: the summary agent of the RLM paper (arXiv:2512.24601), in which a small model
may write the notes and a large one the answer.
"""

from __future__ import annotations

import json
import time
from string import Template
from typing import Any, Literal

from rlm_env.context import context_text
from rlm_env.environment import Environment
from rlm_env.llm.base import LLM, ContextOverflow, Sampling
from rlm_env.messages import Completion, Message
from rlm_env.prompts import load_prompt, prompt_hash
from rlm_env.protocol import strip_thinking
from rlm_env.rollout import StopReason, SubCall
from rlm_env.scaffolds.chat import Chat, ChatScaffold
from rlm_env.scaffolds.config import RLMConfig
from rlm_env.scaffolds.window import Window

Role = Literal["root", "sub"]
NO_NOTES = "(none yet)"


class SummaryConfig(RLMConfig):
    """`RLMConfig` with what only the summary agent has. Notes are sampled as root replies are, unless set apart."""

    summarizer: Role = "sub"
    """Which model writes the notes. A note of the sub-LLM counts as a sub-call, one of the root LLM as a turn."""
    final: Role = "root"
    """Which model answers. The environment's tools, where it has any, are for the root LLM."""
    notes: Sampling | None = None
    """Sampling of the notes; None: that of `root`."""
    window: int | None = None
    """Tokens of prompt and completion that a call may take; None: the engine's own, else found by being refused."""
    fold_prompt: str = "summary_fold"
    """Name or path of the prompt that asks for notes, with $question, $summary and $text."""
    final_prompt: str = "summary_final"
    """Name or path of the prompt that asks for the answer from notes and the last part of the text; same fields."""


class SummaryScaffold(ChatScaffold):
    """A single prompt where the whole context fits, as in the standard scaffold; else notes, piece by piece.

    A limit that is reached under way ends the reading: the answer is then given from the notes so far, the last turn
    being kept for it, and the limit is the rollout's stop reason.
    """

    name = "summary"
    Config = SummaryConfig
    config: SummaryConfig
    uses = frozenset(SummaryConfig.model_fields) - RLMConfig.model_fields.keys() | {"max_sub_tokens", "max_sub_calls"}

    def __init__(self, environment: Environment, config: SummaryConfig | None = None) -> None:
        super().__init__(environment, config)
        self._fold = _template(self.config.fold_prompt)
        self._final = _template(self.config.final_prompt)

    async def _answer(self, chat: Chat) -> StopReason:
        return await _Reader(self, chat).run()

    def opening(self, chat: Chat, notes: str | None, rest: str) -> list[Message]:
        """What the final model is asked: the standard prompt, or notes and the rest of the text."""
        if notes is None:
            return chat.opening(self.environment.standard_prompt(chat.task))
        fields = {"question": chat.task.question, "summary": notes, "text": rest or "(nothing more)"}
        return chat.opening(self._final.substitute(fields).strip())

    def folding(self, chat: Chat, notes: str | None, piece: str) -> list[Message]:
        """What the summarizer is asked."""
        fields = {"question": chat.task.question, "summary": notes or NO_NOTES, "text": piece}
        return [{"role": "user", "content": self._fold.substitute(fields).strip()}]

    def describe(self) -> dict[str, Any]:
        """What is recorded with a run: configuration and prompt hashes."""
        hashes = {"fold": prompt_hash(self._fold.template), "final": prompt_hash(self._final.template)}
        return {**super().describe(), "prompts_sha256": hashes}


class _Reader:
    """One rollout: where in the text it is, and what it has noted."""

    def __init__(self, scaffold: SummaryScaffold, chat: Chat) -> None:
        config = scaffold.config
        self.scaffold, self.chat = scaffold, chat
        self.text = context_text(chat.task.context) if chat.task.context else ""
        self.at = 0
        self.to_the_end = False
        """Whether the text is a conversation that has filled the window, so that all of it must go."""
        self.notes: str | None = None
        self.limit: StopReason | None = None
        self.sampling = config.notes or config.root
        writer, answerer = self._llm(config.summarizer), self._llm(config.final)
        self.reading = Window(writer, self.sampling, config.window)
        self.answering = self.reading
        if answerer is not writer or self.sampling != config.root:
            self.answering = Window(answerer, config.root, config.window)
        chat.record.info |= {"sub": chat.sub.name, "summarizer": config.summarizer, "final": config.final}
        chat.record.info["sampling"]["notes"] = self.sampling.recorded()

    async def run(self) -> StopReason:
        """Reads on until the rest fits the final prompt, or a limit is reached; then answers."""
        while True:
            messages = await self._opening()
            if messages is not None:
                try:
                    stop = await self._answer(messages)
                except ContextOverflow as error:
                    if self.limit or self.at == len(self.text):
                        raise
                    self.answering.refused(messages, error)
                    continue
                if stop is not None:
                    return self.limit or stop
            self.limit = self._limit()
            if self.limit is None:
                await self._read()

    async def _opening(self) -> list[Message] | None:
        """The final prompt, where it is time for it."""
        if self.limit is not None:
            return self.scaffold.opening(self.chat, self.notes or NO_NOTES, "")
        if self.at == len(self.text):  # nothing is left to make notes of: if it does not fit, that is the outcome
            self.to_the_end = False
            return self.scaffold.opening(self.chat, self.notes, "")
        if self.to_the_end or not self.answering.may_fit(len(self.text) - self.at):
            return None
        messages = self.scaffold.opening(self.chat, self.notes, self.text[self.at :])
        return messages if await self.answering.fits(messages) else None

    async def _answer(self, messages: list[Message]) -> StopReason | None:
        """The answer, after the calls of tools that it takes. None when these have filled the window."""
        chat = self.chat
        first = len(messages)
        while True:
            try:
                if self.scaffold.config.final == "root":
                    completion = await chat.step(messages)
                else:
                    completion = await self._ask_sub(messages, self.scaffold.config.root)
            except ContextOverflow as error:
                if len(messages) == first:
                    raise
                self.answering.refused(messages, error)
                return self._put_away(messages[first:])
            chat.record.messages = messages[0 if self.notes else first :]
            if completion is not None:
                chat.record.messages.append(completion.message())
                chat.record.metrics["context_chars_read"] = self.at if self.limit else len(self.text)
                return chat.finish(completion)
            if (stop := chat.budget.exhausted()) is not None:
                return stop
            if not await self.answering.fits(messages):
                return self._put_away(messages[first:])

    def _put_away(self, conversation: list[Message]) -> None:
        """Makes a conversation that has filled the window the next text to be read."""
        self.text = f"{self.text[self.at :]}\n{_transcript(conversation)}"
        self.at, self.to_the_end = 0, True

    async def _read(self) -> None:
        """Notes on the next piece. Raises ContextOverflow where question and notes alone fill the window."""

        def prompt(piece: str) -> list[Message]:
            return self.scaffold.folding(self.chat, self.notes, piece)

        size = await self.reading.piece(self.text, self.at, prompt)
        if not size:
            raise ContextOverflow(await self.reading.count(prompt("")), self.reading.tokens)
        messages = prompt(self.text[self.at : self.at + size])
        try:
            if self.scaffold.config.summarizer == "root":
                completion = await self.chat.ask_root(messages, sampling=self.sampling)
            else:
                completion = await self._ask_sub(messages, self.sampling)
        except ContextOverflow as error:
            self.reading.refused(messages, error)
            self.chat.budget.sub_calls -= self.scaffold.config.summarizer == "sub"  # it was granted, and was not made
            return
        self.reading.answered(messages, completion.usage.prompt_tokens)
        self.notes = strip_thinking(completion.text).strip()
        self.at += size

    def _limit(self) -> StopReason | None:
        """The limit that forbids another note, if any; a turn is kept for the answer."""
        budget, config = self.chat.budget, self.scaffold.config
        if config.summarizer == "sub":
            return None if budget.grant_sub_calls(1) else budget.refused
        if (stop := budget.exhausted()) is not None:
            return stop
        return StopReason.MAX_TURNS if budget.max_turns - budget.turns <= 1 else None

    async def _ask_sub(self, messages: list[Message], sampling: Sampling) -> Completion:
        """One call of the sub-LLM, on record."""
        chat = self.chat
        start = time.monotonic()
        completion = await chat.sub.complete(messages, None, sampling)
        seconds = time.monotonic() - start
        number = len(chat.record.sub_calls)
        call = SubCall(number, len(chat.record.turns), number, list(messages), usage=completion.usage, seconds=seconds)
        call.take(completion)
        chat.record.sub_calls.append(call)
        chat.budget.sub += completion.usage
        chat.record.timing.sub += seconds
        return completion

    def _llm(self, role: Role) -> LLM:
        return self.chat.root if role == "root" else self.chat.sub


def _transcript(messages: list[Message]) -> str:
    """A conversation with tools as text: the calls, and what they gave."""
    lines = []
    for message in messages:
        calls = [json.dumps(call["function"], ensure_ascii=False) for call in message.get("tool_calls") or ()]
        lines.append("\n".join([f"[{message['role']}]", strip_thinking(message["content"]).strip(), *calls]))
    return "\n".join(lines)


def _template(name: str) -> Template:
    """Raises ValueError where the prompt is not there or asks for something else."""
    template = Template(load_prompt(name))
    fields = {"question", "summary", "text"}
    if unknown := set(template.get_identifiers()) - fields:
        raise ValueError(f"prompt {name!r} asks for ${min(unknown)}; known fields: {', '.join(sorted(fields))}")
    return template
