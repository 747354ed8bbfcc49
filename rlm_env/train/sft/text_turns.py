"""Encodes rollouts that lack the student's token ids: those of a teacher behind a text-only API, or of a model with
another tokenizer.

This is the only place in the package where text is encoded in order to be trained. Everywhere else a trained token is
one that the engine sampled. Here the ids are unknown, or mean nothing to the student, and the text is learned. Turn by
turn, a reply gets the ids that the student's chat template gives it after the prompt that the student would have been
given, as if the student had sampled it. Such replies have no behavior logprobs, so they serve supervised training only.
Not covered: sub-calls that used tools, since the tools' schemas are not recorded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from rlm_env.llm.base import ToolSchema
from rlm_env.llm.chat_tokens import ChatTokens
from rlm_env.messages import Completion, Message
from rlm_env.protocol import TOOL
from rlm_env.rollout import Reply, Rollout, SubCall, Turn

R = TypeVar("R", bound=Reply)


class CannotEncode(ValueError):
    """A rollout cannot be encoded for the student; the message is a short reason, which is shown in a table."""


def in_students_tokens(rollout: Rollout, tokens: ChatTokens) -> tuple[Rollout, bool]:
    """The rollout with ids and logprobs everywhere, and whether anything had to be encoded.

    Recorded ids are kept if they are the student's, that is, if they decode to the recorded text. Missing logprobs
    become 0. Sub-calls that cannot be encoded are left out. Raises CannotEncode if the root's turns cannot be encoded.
    """
    encoded = False
    turns = rollout.turns
    if _are_students(turns, tokens):
        turns = [_with_logprobs(turn) for turn in turns]
    else:
        turns, encoded = _encode_root(rollout, tokens), True
    replies = [reply for call in rollout.sub_calls for reply in call.replies]
    if _are_students(replies, tokens):
        calls = [
            replace(_with_logprobs(call), tool_turns=[_with_logprobs(turn) for turn in call.tool_turns])
            for call in rollout.sub_calls
            if call.replies
        ]
    else:
        encoded = True
        found = (
            _encode_sub_call(call, tokens) for call in rollout.sub_calls if call.error is None and not call.tool_turns
        )
        calls = [call for call in found if call is not None]
    return replace(rollout, turns=turns, sub_calls=calls), encoded


def _are_students(replies: Sequence[Reply], tokens: ChatTokens) -> bool:
    """Whether all replies, which come from one model, have ids of the student's tokenizer. Only one is decoded."""
    if not all(reply.prompt_ids and reply.completion_ids is not None for reply in replies):
        return False
    for reply in replies:
        if not reply.prompt_ids or not reply.completion_ids:
            continue
        if max(*reply.prompt_ids, *reply.completion_ids) >= len(tokens.tokenizer):
            return False
        completion = Completion("", prompt_ids=reply.prompt_ids, completion_ids=reply.completion_ids)
        tokens.parse(completion, [TOOL])
        return completion.text == reply.text
    return True


def _with_logprobs(reply: R) -> R:
    return reply if reply.logprobs is not None else replace(reply, logprobs=[0.0] * len(reply.completion_ids or ()))


def _encode_root(rollout: Rollout, tokens: ChatTokens) -> list[Turn]:
    """The root turns with ids of the student's tokenizer, encoded from the recorded messages."""
    messages = rollout.messages
    if not messages or messages[0]["role"] == "assistant":
        raise CannotEncode("no recorded prompt as text")
    if sum(message["role"] == "assistant" for message in messages) != len(rollout.turns):
        raise CannotEncode("recorded messages that do not match its turns")
    tools = [TOOL] if any(turn.tool_calls for turn in rollout.turns) else None
    history: list[Message] = []
    turns: list[Turn] = []
    for message in messages:
        if message["role"] != "assistant":
            history.append(message)
            continue
        turn = rollout.turns[len(turns)]
        completion = _encode(turn, history, tools, tokens)
        turns.append(_with_ids(turn, completion))
        history.append(completion.message())  # so that the next prompt begins with exactly these ids
    return turns


def _encode_sub_call(call: SubCall, tokens: ChatTokens) -> SubCall | None:
    """A sub-call with ids of the student's tokenizer; None where that is not exact."""
    try:
        return _with_ids(call, _encode(call, call.messages, None, tokens))
    except CannotEncode:
        return None


def _with_ids(reply: R, completion: Completion) -> R:
    ids = completion.completion_ids or []
    return replace(reply, prompt_ids=completion.prompt_ids, completion_ids=ids, logprobs=[0.0] * len(ids))


def _encode(reply: Reply, history: list[Message], tools: list[ToolSchema] | None, tokens: ChatTokens) -> Completion:
    """The completion that the student would have sampled for this reply. Raises CannotEncode."""
    prompt = tokens.prompt(history, tools)
    wanted = Completion(reply.text, list(reply.tool_calls), reply.reasoning)
    render = tokens.renderer.render_ids
    before = render([*map(dict, history)], tools=tools, add_generation_prompt=True)
    whole = render([*map(dict, history), dict(wanted.message())], tools=tools, add_generation_prompt=False)
    if whole[: len(before)] != before:
        raise CannotEncode("a reply that the student's template does not put right after its prompt")
    ids = _up_to_the_stop(whole[len(before) :], tokens.stop_token_ids, cut_off=reply.finish_reason == "length")
    found = Completion("", prompt_ids=prompt.ids, completion_ids=ids, history_key=prompt.history_key)
    tokens.parse(found, tools)
    if _content(found) != _content(wanted):
        raise CannotEncode("a reply that does not survive the student's template")
    return found


def _up_to_the_stop(ids: list[int], stops: Sequence[int], *, cut_off: bool) -> list[int]:
    """The sampled part of a rendered reply: everything up to and including its stop token, which a reply that was cut
    off does not have. Some templates write it only before the next message; it is added then."""
    at = next((place for place in range(len(ids) - 1, -1, -1) if ids[place] in stops), None)
    own = ids if at is None else ids[:at]
    return own if cut_off else [*own, stops[0] if at is None else ids[at]]


def _content(completion: Completion) -> tuple[str, str]:
    """What must be equal after encoding and parsing: text and tool calls."""
    calls = [(call["function"]["name"], _arguments(call["function"]["arguments"])) for call in completion.tool_calls]
    return completion.text.strip(), json.dumps(calls, sort_keys=True)


def _arguments(given: object) -> object:
    """A call's arguments as a value: text that is JSON is read, an object that some endpoints send is one already."""
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except ValueError:
        return given
