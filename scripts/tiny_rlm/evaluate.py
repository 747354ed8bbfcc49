"""Measures the finished model without an engine: reading, well-formed replies, mixture of strategies.

These numbers go into the model card. Scores of whole rollouts come from `rlm-env eval` on the real vLLM.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from rlm_env.messages import Completion, Message
from rlm_env.protocol import Cell, extract_cells
from tiny_rlm.copying import copy_rates
from tiny_rlm.mix import Mix
from tiny_rlm.pretrain import Example
from tiny_rlm.sessions import Conversation
from tiny_rlm.tokenizer import END_OF_TURN, REPLY, encode_conversation

READING_TOKENS = 64
COPIES_EACH, OPENINGS_EACH, READINGS_EACH = 12, 80, 60
"""Texts per kind and size, openings per environment, sub-LLM conversations per environment."""


@torch.inference_mode()
def sample_replies(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    conversations: Sequence[Conversation],
    temperature: float,
    max_tokens: int,
    seed: int = 0,
    batch: int = 128,
) -> list[Completion]:
    """The next reply of each conversation; greedy if `temperature` is 0."""
    torch.manual_seed(seed)
    end = tokenizer.convert_tokens_to_ids(END_OF_TURN)
    replies = []
    for start in range(0, len(conversations), batch):
        prompts = [
            tokenizer.apply_chat_template(each.messages, each.tools, add_generation_prompt=True, tokenize=False)
            for each in conversations[start : start + batch]
        ]
        inputs = tokenizer(
            prompts,
            padding=True,
            padding_side="left",
            add_special_tokens=False,
            return_tensors="pt",
            return_token_type_ids=False,
        )
        choice = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
        out = model.generate(**inputs, max_new_tokens=max_tokens, **choice)
        for ids in out[:, inputs["input_ids"].shape[1] :].tolist():
            done = end in ids
            text = tokenizer.decode(ids[: ids.index(end)] if done else ids, skip_special_tokens=True)
            replies.append(Completion(text, finish_reason="stop" if done else "length"))
    return replies


def reading_accuracy(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, readings: Sequence[Conversation], temperature: float
) -> float:
    """Share of readings whose last reply is given exactly, tool call or text."""
    replies = sample_replies(model, tokenizer, [asked(reading) for reading in readings], temperature, READING_TOKENS)
    return fmean(reply.text == last_text(tokenizer, reading) for reply, reading in zip(replies, readings, strict=True))


def reply_prefixes(reading: Conversation) -> list[Conversation]:
    """A conversation cut behind each of its replies."""
    return [
        Conversation(reading.messages[: i + 1], reading.tools)
        for i, message in enumerate(reading.messages)
        if message["role"] == "assistant"
    ]


def first_replies(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, openings: Sequence[Conversation], seed: int
) -> dict[str, Any]:
    """Samples first replies at temperature 1: the share that restates the task as the opening does, and `shares`."""
    replies = sample_replies(model, tokenizer, [asked(each) for each in openings], 1.0, 256, seed)
    restated = [_line(r.text, 0) == _line(o.messages[-1]["content"], 0) for r, o in zip(replies, openings, strict=True)]
    return {"task_restated": round(fmean(restated), 3), **shares(replies)}


def shares(replies: Sequence[Completion]) -> dict[str, Any]:
    """The share of first replies with exactly one block of code that compiles, and that of each second line, which
    names the strategy."""
    plans = Counter(_line(reply.text, 1) for reply in replies)
    return {
        "well_formed": round(fmean(_well_formed(reply) for reply in replies), 3),
        "strategies": {plan: round(n / len(replies), 3) for plan, n in plans.most_common(12)},
    }


@torch.inference_mode()
def held_out_loss(model: Qwen3ForCausalLM, examples: Sequence[Example]) -> float:
    """Mean loss in nats per own token, over examples that were not trained on."""
    total, tokens = 0.0, 0
    for ids, mask in examples:
        x = torch.tensor(ids)[None]
        wanted = torch.tensor(mask)[1:]
        logits = model(x[:, :-1]).logits[0][wanted]
        total += torch.nn.functional.cross_entropy(logits, x[0, 1:][wanted], reduction="sum").item()
        tokens += int(wanted.sum())
    return total / tokens


def asked(conversation: Conversation) -> Conversation:
    """The conversation without its last reply."""
    return Conversation(conversation.messages[:-1], conversation.tools)


def last_text(tokenizer: PreTrainedTokenizerFast, conversation: Conversation) -> str:
    """The last reply as the model has to write it, tool calls included."""
    ids, _ = encode_conversation(tokenizer, conversation.messages[-1:])
    return tokenizer.decode(ids).removeprefix(REPLY).removesuffix(f"{END_OF_TURN}\n")


def _line(reply: str, index: int) -> str:
    return "".join(reply.split("\n")[index : index + 1])


def _well_formed(reply: Completion) -> bool:
    found = extract_cells(reply)
    if len(found) != 1 or not isinstance(found[0], Cell):
        return False
    try:
        compile(found[0].code, "<cell>", "exec")
    except (SyntaxError, ValueError):
        return False
    return True


def measure(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, held_out: Sequence[Mix], seed: int
) -> dict[str, Any]:
    """The measurements of the model card, all on conversations that were not trained on."""

    def copies(conversations: Sequence[list[Message]]) -> list[str]:
        replies = sample_replies(model, tokenizer, [Conversation(each) for each in conversations], 0.0, 160)
        return [reply.text for reply in replies]

    found: dict[str, Any] = {"copy_rate": copy_rates(copies, COPIES_EACH, seed), "by_environment": {}}
    for mix in held_out:
        sessions = [
            encode_conversation(tokenizer, session.root.messages, session.root.tools) for session in mix.sessions
        ]
        by_environment = {
            "loss_held_out_sessions": round(held_out_loss(model, sessions), 4),
            **first_replies(model, tokenizer, mix.openings[:OPENINGS_EACH], seed),
        }
        readings = [cut for reading in mix.readings[:READINGS_EACH] for cut in reply_prefixes(reading)]
        if readings:
            by_environment["reading_accuracy"] = round(reading_accuracy(model, tokenizer, readings, 0.0), 3)
        found["by_environment"][mix.environment] = by_environment
    return found
