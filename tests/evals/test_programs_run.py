"""What programs are read to be is what they do: every combination of common steps is read, and run with a recording
`llm_batch`."""

from __future__ import annotations

import contextlib
import io
import itertools
from typing import Any

from rlm_env.evals.programs import Program, Trait, read_program

LINES = [f"entry {n}: {'key' if n % 7 == 3 else 'plain'} value {n * n}" for n in range(40)]
CONTEXT = "\n".join(LINES)
TAKE = (
    "parts = context.split('\\n')",
    "parts = [line for line in context.splitlines()]",
    "parts = []\nfor line in context.splitlines():\n    parts.append(line.strip())",
    "def cut(text):\n    return text.split('\\n')\nparts = cut(context)",
    "text = context\nparts = list(text.splitlines())",
    "import re\nparts = re.split(r'\\n', context)",
)
CHOOSE = (
    "",
    "parts = [part for part in parts if 'key' in part]",
    "few = []\nfor part in parts:\n    if 'key' not in part:\n        continue\n    few.append(part)\nparts = few",
    "parts = list(filter(lambda part: 'key' in part, parts))",
    "parts = [part for part in parts if part.strip() and len(part) > 2]",
    "parts = parts[:9]",
)
PACK = (
    "texts = parts",
    "texts = ['\\n'.join(parts)]",
    "texts = [parts[0]]",
    "texts = [context]",
    "texts = [f'{len(parts)} of {len(context)}']",
    "texts = []\nfor n in range(0, len(parts), 5):\n    texts.append('\\n'.join(parts[n:n + 5]))",
)
ASK = (
    "replies = llm_batch([f'Which? {text}' for text in texts])",
    "prompts = ['Which? ' + text for text in texts]\nreplies = llm_batch(prompts)",
    "replies = []\nfor text in texts:\n    replies.append(llm_query('Which? ' + text))",
    "def ask(text):\n    return llm_batch(['Which? %s' % text])[0]\nreplies = [ask(text) for text in texts]",
    "replies = list(map(lambda text: llm_query(text), texts))",
    "replies = llm_batch([{'messages': [{'role': 'system', 'content': 'Find.'}, {'role': 'user', 'content': text}]}\n"
    "    for text in texts])",
    "with_numbers = [f'{n}: {text}' for n, text in enumerate(texts)]\nreplies = llm_query_batched(with_numbers)",
)


def prompts_of(code: str) -> list[str]:
    """What the code asks sub-LLMs."""
    asked: list[str] = []

    def batch(prompts: list[Any]) -> list[str]:
        asked.extend(str(one["messages"]) if isinstance(one, dict) else one for one in prompts)
        return ["yes"] * len(prompts)

    names = {"context": CONTEXT, "answer": {}, "llm_batch": batch, "llm_query_batched": batch}
    names["llm_query"] = lambda prompt: batch([prompt])[0]
    with contextlib.redirect_stdout(io.StringIO()):
        exec(code, names)
    return asked


def really(prompts: list[str]) -> Program:
    """The program by what was sent."""
    held = [sum(line in prompt for line in LINES) for prompt in prompts]
    if any(count == len(LINES) for count in held):
        return Program.WHOLE_TO_SUB
    if sum(map(bool, held)) > 1:
        return Program.CHUNK_AND_BATCH
    return Program.PIECE_TO_SUB if any(held) else Program.SUB_WITHOUT_CONTEXT


def test_what_sub_llms_are_read_to_get_is_what_they_get():
    wrong, seen = [], set()
    for steps in itertools.product(TAKE, CHOOSE, PACK, ASK):
        code = "\n".join(steps)
        expected = really(prompts_of(code))
        seen.add(expected)
        for turns in ([[code]], [[step] for step in steps]):
            if (found := read_program(turns).program) is not expected:
                wrong.append((found, expected, code))
    assert wrong[:3] == []
    assert len(seen) == 4


def test_pieces_are_read_as_chosen_where_not_all_are_sent():
    wrong = []
    for take, choose, ask in itertools.product(TAKE, CHOOSE, ASK):
        code = "\n".join((take, choose, PACK[0], ask))
        chosen = "key" in choose
        if (Trait.CHOOSES in read_program([[code]]).traits) != chosen:
            wrong.append(code)
    assert wrong[:3] == []
