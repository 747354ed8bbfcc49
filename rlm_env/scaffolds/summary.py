"""The summary agent: reads as much of the context as fits its window, replaces it by notes, reads on, then answers.

A conversation with tools that fills the window is read in the same way. How much fits is measured in `window.py`.
Source: the summary agent of the RLM paper (arXiv:2512.24601), in which a small model may write the notes and a large
one the answer.
"""

from __future__ import annotations

import json
import time
from string import Template
from typing import Any, Literal

from rlm_env.context import context_text
from rlm_env.environment import Environment
from rlm_env.events import SubCallEnded, SubCallStarted
from rlm_env.llm.base import LLM, ContextOverflow, LLMError, Sampling
from rlm_env.messages import Completion, Message
from rlm_env.prompts import load_prompt, prompt_hash
from rlm_env.repl import ReplPools
from rlm_env.replies import strip_thinking, visible_text
from rlm_env.rollout import StopReason, SubCall
from rlm_env.scaffolds.base import ONLY_REASONING, Episode, ended_in_thought, in_thread_if_files
from rlm_env.scaffolds.chat import ChatScaffold, RootChat, opening_messages
from rlm_env.scaffolds.config import RLMConfig
from rlm_env.scaffolds.window import Window

Role = Literal["root", "sub"]
NO_NOTES = "(none yet)"


class SummaryConfig(RLMConfig):
    """`RLMConfig`, and the settings of the summary agent alone."""

    summarizer: Role = "sub"
    """The model that writes the notes. A note of the sub-LLM counts as a sub-call, one of the root LLM as a turn."""
    final: Role = "root"
    """The model that answers. Only the root LLM may call the environment's tools."""
    notes: Sampling | None = None
    """How notes are sampled; None: like root replies."""
    window: int | None = None
    """Tokens of prompt and completion in one call; None: the engine's window, or where it is unknown no limit until a
    prompt is refused."""
    fold_prompt: str = "summary_fold"
    """Name or path of the prompt that asks for notes, with $question, $summary and $text."""
    final_prompt: str = "summary_final"
    """Name or path of the prompt that asks for the answer from notes and the last part of the text; same fields."""


class SummaryScaffold(ChatScaffold):
    """A single prompt where the whole context fits, as in the standard scaffold; otherwise notes, piece by piece.

    A limit that is reached while reading ends it. The answer is then given from the notes so far (the last turn is
    kept for it), and the limit is the rollout's stop reason.
    """

    name = "summary"
    Config = SummaryConfig
    uses = frozenset(SummaryConfig.model_fields) - RLMConfig.model_fields.keys() | {"max_sub_tokens", "max_sub_calls"}

    def __init__(
        self, environment: Environment, config: SummaryConfig | None = None, *, pools: ReplPools | None = None
    ) -> None:
        self.options = config or SummaryConfig()
        super().__init__(environment, self.options, pools=pools)
        self._fold = _template(self.options.fold_prompt)
        self._final = _template(self.options.final_prompt)

    async def _answer(self, episode: Episode) -> StopReason:
        text = await in_thread_if_files(lambda task: context_text(task.context), episode.task)
        return await _Reader(self, episode, text).run()

    def closing(self, episode: Episode, notes: str, rest: str) -> list[Message]:
        """The prompt that asks for the answer from notes and the rest of the text."""
        fields = {"question": episode.task.question, "summary": notes, "text": rest or "(nothing more)"}
        return opening_messages(episode, self._final.substitute(fields).strip())

    def folding(self, episode: Episode, notes: str | None, piece: str) -> list[Message]:
        """The prompt that asks the summarizer for notes."""
        fields = {"question": episode.task.question, "summary": notes or NO_NOTES, "text": piece}
        return [{"role": "user", "content": self._fold.substitute(fields).strip()}]

    def describe(self) -> dict[str, Any]:
        """For the record of a run: configuration and prompt hashes."""
        hashes = {"fold": prompt_hash(self._fold.template), "final": prompt_hash(self._final.template)}
        return {**super().describe(), "prompts_sha256": hashes}


class _Reader:
    """One rollout: the position in the text, and the notes so far."""

    def __init__(self, scaffold: SummaryScaffold, episode: Episode, text: str) -> None:
        config = scaffold.options
        self.scaffold, self.config, self.episode = scaffold, config, episode
        self.text = text
        self.standard_prompt: str | None = None
        """Made once, since it may read files."""
        self.at = 0
        self.to_the_end = False
        """The text is a conversation that has filled the window: all of it must become notes."""
        self.notes: str | None = None
        self.limit: StopReason | None = None
        self.sampling = config.notes or config.root
        writer, answerer = self._llm(config.summarizer), self._llm(config.final)
        self.reading = Window(writer, self.sampling, config.window)
        self.answering = self.reading
        if answerer is not writer or self.sampling != config.root:
            self.answering = Window(answerer, config.root, config.window)
        episode.record.info |= {"sub": episode.sub.name, "summarizer": config.summarizer, "final": config.final}
        episode.record.info["sampling"]["notes"] = self.sampling.recorded()

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
            return self.scaffold.closing(self.episode, self.notes or NO_NOTES, "")
        if self.at == len(self.text):  # nothing is left to make notes of: if it does not fit, that is the outcome
            self.to_the_end = False
            return await self._final_prompt("")
        if self.to_the_end or not self.answering.may_fit(len(self.text) - self.at):
            return None
        messages = await self._final_prompt(self.text[self.at :])
        return messages if await self.answering.fits(messages) else None

    async def _final_prompt(self, rest: str) -> list[Message]:
        """The standard prompt where there are no notes, else notes and the rest of the text."""
        if self.notes is not None:
            return self.scaffold.closing(self.episode, self.notes, rest)
        if self.standard_prompt is None:
            make = self.scaffold.environment.standard_prompt
            self.standard_prompt = await in_thread_if_files(make, self.episode.task)
        return opening_messages(self.episode, self.standard_prompt)

    async def _answer(self, messages: list[Message]) -> StopReason | None:
        """The answer, after the tool calls that it takes. None when their results have filled the window."""
        episode, record = self.episode, self.episode.record
        chat = RootChat(episode, messages)
        record.messages = messages
        first = len(messages)
        while True:
            try:
                if self.config.final == "root":
                    completion = await chat.step()
                else:
                    completion = await self._ask_sub(messages, self.config.root)
            except ContextOverflow as error:
                if len(messages) == first:
                    raise
                self.answering.refused(messages, error)
                return self._put_away(messages[first:])
            if completion is not None:
                messages.append(completion.message())
                record.metrics["context_chars_read"] = self.at if self.limit else len(self.text)
                return chat.finish(completion)
            if (stop := episode.budget.exhausted()) is not None:
                return stop
            if not await self.answering.fits(messages):
                return self._put_away(messages[first:])

    def _put_away(self, conversation: list[Message]) -> None:
        """Makes a conversation that has filled the window part of the text to be read."""
        self.text = f"{self.text[self.at :]}\n{_transcript(conversation)}"
        self.at, self.to_the_end = 0, True

    async def _read(self) -> None:
        """Notes on the next piece. Raises ContextOverflow where question and notes alone fill the window."""

        def prompt(piece: str) -> list[Message]:
            return self.scaffold.folding(self.episode, self.notes, piece)

        size = await self.reading.piece(self.text, self.at, prompt)
        if not size:
            raise ContextOverflow(await self.reading.count(prompt("")), self.reading.tokens)
        messages = prompt(self.text[self.at : self.at + size])
        try:
            if self.config.summarizer == "root":
                completion = await self.episode.ask_root(messages, sampling=self.sampling)
                self.episode.record.turns[-1].prompt = messages
            else:
                completion = await self._ask_sub(messages, self.sampling)
        except ContextOverflow as error:
            self.reading.refused(messages, error)
            self.episode.budget.sub_calls -= self.config.summarizer == "sub"  # it was granted, and was not made
            return
        self.reading.answered(messages, completion.usage.prompt_tokens)
        notes = visible_text(completion).strip()
        if not notes and ended_in_thought(completion):
            raise LLMError(ONLY_REASONING)
        self.notes = notes
        self.at += size

    def _limit(self) -> StopReason | None:
        """The limit that forbids another note, if any. One turn is kept for the answer."""
        budget = self.episode.budget
        if self.config.summarizer == "sub":
            return None if budget.grant_sub_calls(1) else budget.refused
        if (stop := budget.exhausted()) is not None:
            return stop
        return StopReason.MAX_TURNS if budget.max_turns - budget.turns <= 1 else None

    async def _ask_sub(self, messages: list[Message], sampling: Sampling) -> Completion:
        """One call of the sub-LLM, charged and recorded."""
        record, events = self.episode.record, self.episode.events
        number = len(record.sub_calls)
        call = SubCall(number, len(record.turns), number, list(messages))
        events.emit(SubCallStarted, call=call)
        start = time.monotonic()
        try:
            completion = await self.episode.sub.complete(messages, None, sampling)
        except LLMError as error:
            call.error = str(error)
            events.emit(SubCallEnded, call=call)
            if error.usage is not None:
                self.episode.budget.sub += error.usage
            raise
        call.seconds, call.usage = time.monotonic() - start, completion.usage
        call.take(completion)
        record.sub_calls.append(call)
        self.episode.budget.sub += completion.usage
        record.timing.sub += call.seconds
        events.emit(SubCallEnded, call=call)
        self.episode.tell_spent()
        return completion

    def _llm(self, role: Role) -> LLM:
        return self.episode.root if role == "root" else self.episode.sub


def _transcript(messages: list[Message]) -> str:
    """A conversation with tools as text: the calls and their results."""
    lines = []
    for message in messages:
        calls = [json.dumps(call["function"], ensure_ascii=False) for call in message.get("tool_calls") or ()]
        lines.append("\n".join([f"[{message['role']}]", strip_thinking(message["content"]).strip(), *calls]))
    return "\n".join(lines)


def _template(name: str) -> Template:
    """The prompt as a template. Raises ValueError where there is none of that name, or it has an unknown field."""
    template = Template(load_prompt(name))
    fields = {"question", "summary", "text"}
    if unknown := set(template.get_identifiers()) - fields:
        raise ValueError(f"prompt {name!r} asks for ${min(unknown)}; known fields: {', '.join(sorted(fields))}")
    return template
