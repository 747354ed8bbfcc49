"""The plain LLM: context and question in one prompt, no REPL; with the benchmark's tools where it has any."""

from __future__ import annotations

from rlm_env.rollout import StopReason
from rlm_env.scaffolds.chat import Chat, ChatScaffold


class StandardScaffold(ChatScaffold):
    """A single prompt that holds the whole context. Where that does not fit, the outcome is an overflow.

    There is no REPL and no sub-LLM. Where the environment has tools, the LLM calls them itself, turn by turn; without,
    its first reply is its answer.
    """

    name = "standard"
    uses = frozenset()

    async def _answer(self, chat: Chat) -> StopReason:
        messages = chat.opening(self.environment.standard_prompt(chat.task))
        first = len(messages)
        while (stop := chat.budget.exhausted()) is None:
            completion = await chat.step(messages)
            # The prompt is the context: it is told by its tokens, not stored a second time as text.
            chat.record.messages = messages[first:]
            if completion is not None:
                chat.record.messages.append(completion.message())
                return chat.finish(completion)
        return stop
