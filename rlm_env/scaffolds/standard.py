"""The plain LLM: context and question in one prompt, no REPL; with the benchmark's tools where it has any."""

from __future__ import annotations

from rlm_env.rollout import StopReason
from rlm_env.scaffolds.base import Episode, in_thread_if_files
from rlm_env.scaffolds.chat import ChatScaffold, RootChat, opening_messages


class StandardScaffold(ChatScaffold):
    """A single prompt with the whole context in it. Where that does not fit, the outcome is an overflow.

    There is no REPL and no sub-LLM. Where the environment has tools, the LLM calls them itself, turn by turn;
    otherwise its first reply is its answer.
    """

    name = "standard"
    uses = frozenset()

    async def _answer(self, episode: Episode) -> StopReason:
        prompt = await in_thread_if_files(self.environment.standard_prompt, episode.task)
        episode.record.messages = messages = opening_messages(episode, prompt)
        chat = RootChat(episode, messages)
        while (stop := episode.budget.exhausted()) is None:
            completion = await chat.step()
            if completion is not None:
                messages.append(completion.message())
                return chat.finish(completion)
        return stop
