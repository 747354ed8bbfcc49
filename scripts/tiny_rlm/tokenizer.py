"""tiny-rlm's tokenizer: a small byte-level BPE with ChatML messages.

Trains the tokenizer and turns a conversation into token ids with a loss mask. Any text can be encoded, since every byte
is in the vocabulary. Numbers are cut into pairs of digits. Line breaks are never merged with anything, so that the
boundary between template and message is always a boundary between tokens, and appending messages never changes earlier
ids (the prefix property). There are no tool calls: the policy writes its code into a fenced block.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from rlm_env.messages import Message

END_OF_TURN = "<|im_end|>"
PAD = "<|endoftext|>"
SPECIALS = [PAD, "<|im_start|>", END_OF_TURN]
MARKERS = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
"""Single tokens, as in Qwen3, so that its renderer accepts the tokenizer too; decoding keeps them. Never trained on."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_PIECES = r"\n|\d{1,2}| ?[A-Za-z_]+| +(?=\S)| +| ?[^\sA-Za-z0-9_]+|\s"


def train_tokenizer(texts: Iterable[str], vocab_size: int, window: int) -> PreTrainedTokenizerFast:
    """A tokenizer of `vocab_size` entries, or fewer if the texts allow no more merges."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(MARKERS),
        special_tokens=SPECIALS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in MARKERS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=PAD,
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHAT_TEMPLATE,
        model_max_length=window,
        clean_up_tokenization_spaces=False,
    )


def encode_conversation(
    tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message]
) -> tuple[list[int], list[bool]]:
    """Token ids of a whole conversation, and a mask of those that the policy has to produce: its replies and the token
    that ends each. Both have shape [tokens]."""
    ids: list[int] = []
    mask: list[bool] = []
    for message in messages:
        head = tokenizer.encode(f"<|im_start|>{message['role']}\n", add_special_tokens=False)
        body = tokenizer.encode(f"{message['content']}{END_OF_TURN}", add_special_tokens=False)
        tail = tokenizer.encode("\n", add_special_tokens=False)
        ids += head + body + tail
        own = message["role"] == "assistant"
        mask += [False] * len(head) + [own] * len(body) + [False] * len(tail)
    return ids, mask
