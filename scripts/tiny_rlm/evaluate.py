"""Measures the finished model without an engine: reading, well-formed replies, mixture of strategies.

These numbers go into the model card. Scores of whole rollouts come from `rlm-env eval` on the real vLLM.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from rlm_env.messages import Completion, Message
from rlm_env.protocol import Cell, extract_cells
from tiny_rlm.pretrain import Example
from tiny_rlm.tokenizer import END_OF_TURN


@torch.inference_mode()
def sample_replies(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    conversations: Sequence[list[Message]],
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
            tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            for messages in conversations[start : start + batch]
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
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, readings: Sequence[list[Message]], temperature: float
) -> float:
    """Share of reading tasks (a prompt and its right reply) that are answered exactly."""
    replies = sample_replies(model, tokenizer, [messages[:-1] for messages in readings], temperature, 8)
    return sum(reply.text == messages[-1]["content"] for reply, messages in zip(replies, readings, strict=True)) / len(
        readings
    )


def first_replies(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, openings: Sequence[list[Message]], seed: int
) -> tuple[float, dict[str, float]]:
    """Samples first replies at temperature 1. Returns the share with exactly one block of code that compiles, and the
    share of each second line, which names the strategy (the first line restates the task)."""
    replies = sample_replies(model, tokenizer, openings, 1.0, 256, seed)
    good = sum(_well_formed(reply) for reply in replies)
    plans = Counter("".join(reply.text.split("\n")[1:2]) for reply in replies)
    return good / len(replies), {plan: n / len(replies) for plan, n in plans.most_common(12)}


def restated(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, openings: Sequence[list[Message]], seed: int
) -> float:
    """Share of first replies, sampled at temperature 1, whose first line restates the task like the opening's."""
    replies = sample_replies(model, tokenizer, [messages[:-1] for messages in openings], 1.0, 48, seed)
    right = [_task_line(reply.text) == _task_line(m[-1]["content"]) for reply, m in zip(replies, openings, strict=True)]
    return sum(right) / len(right)


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


def _task_line(reply: str) -> str:
    return reply.split("\n")[0]


def _well_formed(reply: Completion) -> bool:
    found = extract_cells(reply)
    if len(found) != 1 or not isinstance(found[0], Cell):
        return False
    try:
        compile(found[0].code, "<cell>", "exec")
    except (SyntaxError, ValueError):
        return False
    return True
