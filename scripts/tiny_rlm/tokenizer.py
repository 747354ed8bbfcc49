"""tiny-rlm's tokenizer: a small byte-level BPE with ChatML messages.

Trains the tokenizer and turns a conversation into token ids with a loss mask. Any text can be encoded, since every byte
is in the vocabulary. What a small model has to copy has the same tokens wherever it stands: each digit is a token, and
a space belongs to the word behind it only for a few common words. Line breaks are never merged with anything, so that
the boundary between template and message is always a boundary between tokens, and appending messages never changes
earlier ids (the prefix property). As a root LLM the policy writes its code into a fenced block, as a sub-LLM it calls
tools.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from rlm_env.llm.base import ToolSchema
from rlm_env.messages import Message

END_OF_TURN = "<|im_end|>"
PAD = "<|endoftext|>"
REPLY = "<|im_start|>assistant\n"
"""What stands before each reply."""
SPECIALS = [PAD, "<|im_start|>", END_OF_TURN]
MARKERS = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
"""Single tokens, as in Qwen3, so that its renderer accepts the tokenizer too; decoding keeps them. Thoughts are never
trained on."""

CHAT_TEMPLATE = r"""
{%- set listing = namespace(text="Tools:") -%}
{%- for tool in tools or [] -%}
  {%- set names = ((tool.function.parameters or {}).properties or {}) | join(", ") -%}
  {%- set listing.text = listing.text + "\n" + tool.function.name + "(" + names + ")" -%}
{%- endfor -%}
{%- if tools and messages[0].role != "system" -%}
  {{- "<|im_start|>system\n" + listing.text + "<|im_end|>\n" -}}
{%- endif -%}
{%- for message in messages -%}
  {%- set content = message.content or "" -%}
  {%- if message.role == "tool" -%}
    {{- "<|im_start|>user\n<tool_response>\n" + content + "\n</tool_response>" -}}
  {%- else -%}
    {{- "<|im_start|>" + message.role + "\n" + content -}}
    {%- if tools and loop.first and message.role == "system" -%}
      {{- "\n\n" + listing.text -}}
    {%- endif -%}
    {%- for call in message.tool_calls or [] -%}
      {%- set arguments = call.function.arguments -%}
      {%- set arguments = arguments if arguments is string else arguments | tojson -%}
      {{- "" if loop.first else "\n" -}}
      {%- if call.function.name -%}
        {{- '<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' + arguments + "}\n</tool_call>" -}}
      {%- else -%}
        {{- "<tool_call>\n" + arguments + "\n</tool_call>" -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
  {{- "<|im_end|>\n" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- "<|im_start|>assistant\n" -}}
{%- endif -%}
"""
"""ChatML, with tool calls and results in Qwen3's form, but a turn for each result, so that appending messages never
changes earlier ids. Of a tool's schema only its name and its parameters are shown. A call that could not be parsed has
no name and keeps the model's own text."""

TOOL_RENDERER = {"name": "default", "tool_parser": "qwen3"}
"""How `rlm_env` renders and parses: by the template above, and calls between their markers."""

_COMMON = """
a about above again all am Among an and Answer answer any are as ask associated at b be before between block by
call called calls can characters check classes classified code common compute consider context Copy copy correct
data default dict different do each else every exactly example f few final Find first following for form from
functions Give give guess has have how I if In in instances int into is it its itself JSON label labels least
line lines list llm_batch look magic many max may more most name names no not nothing number numbers of on one
only or out own page pieces points print Put Python question re read rows same search sentence several should
special split stands str string subset t text than That that The the their them then there these they thinking
this through times to True user users value was What what when where Which which who whole will with without
word write x you your
"""
"""Words of the prompts and programs: only these begin a token with the space before them."""
_PIECES = (
    rf"\n|\d| (?:{'|'.join(_COMMON.split())})(?![A-Za-z0-9_])|[A-Za-z_]+"
    r"| ?[^\sA-Za-z0-9_]+| +(?=\S)| +|\s"
)


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
    tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message], tools: Sequence[ToolSchema] | None = None
) -> tuple[list[int], list[bool]]:
    """Token ids of a whole conversation, and a mask of those that the policy has to produce: its replies, with their
    tool calls, and the token that ends each. Both have shape [tokens]. `tools`: what the prompt offers."""
    ids: list[int] = []
    mask: list[bool] = []
    for index, message in enumerate(messages):
        text = tokenizer.apply_chat_template([message], tools=None if index else tools, tokenize=False)
        own = message["role"] == "assistant"
        start = text.index(REPLY) + len(REPLY) if own else 0
        for part, produced in ((text[:start], False), (text[start:-1], own), (text[-1], False)):
            found = tokenizer.encode(part, add_special_tokens=False)
            ids += found
            mask += [produced] * len(found)
    return ids, mask
