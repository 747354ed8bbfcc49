"""Which rollouts hold given words anywhere: in what was written, run, printed, asked and answered.

Nothing of it is kept: a search reads the stored records again, piece by piece, so that a page with 10,000 rollouts
neither loads their texts nor waits for all of them. What a rollout quotes of its context is read there. Not covered:
the words of the table's own columns, which the page looks through itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from rlm_env.lines import parse_record
from rlm_env.view.index import complete_record, shown_gold
from rlm_env.view.rollout_page import open_context
from rlm_env.view.stored_context import StoredContexts
from rlm_env.view.texts import Texts

Place = int | None
"""Index of a turn; None for what belongs to none."""
_WORDS = re.compile(r'"([^"]+)"?|([^\s"]+)')


def words_of(text: str) -> list[str]:
    """What is looked for, in lower case: words, and phrases in double quotes."""
    return [(phrase or word).lower() for phrase, word in _WORDS.findall(text)]


def find_words(line: bytes, words: Sequence[str], contexts: StoredContexts) -> tuple[bool, Place]:
    """Whether all words occur in a stored rollout, and the first turn with one of them."""
    record = complete_record(parse_record(line))
    texts = Texts(record, open_context(record, contexts)[0])
    missing, first = set(words), None
    for place, text in _texts(record, texts):
        lower = text.lower()
        found = {word for word in missing if word in lower}
        if found:
            missing -= found
            first = place if first is None else first
        if not missing:
            return True, first
    return False, None


def _texts(record: dict[str, Any], texts: Texts) -> Iterator[tuple[Place, str]]:
    """All texts of a record and where they are; turns first, each with what it caused."""
    calls: dict[int, list[dict[str, Any]]] = {}
    for call in record["sub_calls"]:
        calls.setdefault(call["root_turn"], []).append(call)
    for index, turn in enumerate(record["turns"]):
        for value in (*turn["code"], turn["observation"], turn["error"], turn["answer"]):
            yield index, texts.whole(value)
        yield from ((index, text) for text in _reply(turn, texts))
        yield from ((index, texts.whole(message.get("content"))) for message in turn["prompt"])
        yield from ((index, text) for call in calls.pop(index, ()) for text in _call(call, texts))
    yield from ((None, text) for rest in calls.values() for call in rest for text in _call(call, texts))
    score = record.get("score") or {}
    facts = (record["id"], record["question"], record["answer"], record["error"], score.get("explanation"))
    yield from ((None, texts.whole(value)) for value in (*facts, shown_gold(record["gold"])))


def _call(call: dict[str, Any], texts: Texts) -> Iterator[str]:
    yield from _reply(call, texts)
    yield texts.whole(call["error"])
    yield from (texts.whole(message.get("content")) for message in call["messages"])
    for turn in call["tool_turns"]:
        yield from _reply(turn, texts)


def _reply(reply: dict[str, Any], texts: Texts) -> Iterator[str]:
    """What an LLM said, and what its tools answered."""
    yield texts.whole(reply["text"])
    yield texts.whole(reply.get("reasoning"))
    for result in reply.get("tool_results", ()):
        yield from (texts.whole(result[name]) for name in ("name", "arguments", "output", "error") if name in result)
