"""One stored rollout as the page shows it: a time line of turns, its budgets as they were spent, what was read.

It is made from the record as it is stored, so that quotes of the context stay references. Sub-calls are loaded by
batch (`sub_calls.py`), tokens by sample (`tokens.py`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from rlm_env.contexts import ContextError
from rlm_env.evals.programs import WrittenProgram
from rlm_env.evals.rollout_stats import RolloutStats
from rlm_env.view.coverage import coverage
from rlm_env.view.index import shown_gold
from rlm_env.view.replies import shown_reply, shown_tools
from rlm_env.view.stored_context import StoredContext, StoredContexts
from rlm_env.view.sub_calls import batches_of
from rlm_env.view.texts import Texts, cut

LIMITS = (
    ("turns", "max_turns", ""),
    ("root tokens", "max_root_tokens", ""),
    ("sub-calls", "max_sub_calls", ""),
    ("sub tokens", "max_sub_tokens", ""),
    ("seconds", "max_seconds", "s"),
)
"""Name on the page, key of `RLMConfig`, unit."""


def open_context(record: Mapping[str, Any], contexts: StoredContexts) -> tuple[StoredContext | None, str | None]:
    """The context that a record refers to, and why it cannot be shown."""
    if record.get("context") is None:
        return None, None
    try:
        return contexts.get(record["context"]["sha256"]), None
    except ContextError as error:
        return None, str(error)


def rollout_page(
    record: dict[str, Any],
    stats: RolloutStats,
    written: WrittenProgram | None,
    contexts: StoredContexts,
    limits: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything but sub-calls and tokens. `limits`: the rollout's configuration, of `RLMConfig`'s names."""
    context, problem = open_context(record, contexts)
    texts = Texts(record, context)
    versions = weight_versions(record)
    return {
        "id": record["id"],
        "task_id": record["task_id"],
        "environment": record["environment"],
        "scaffold": record["scaffold"],
        "question": cut(record["question"]),
        "gold": cut(shown_gold(record.get("gold"))),
        "answer": cut(record["answer"]),
        "outcome": stats.outcome.value,
        "program": [written.program, *written.traits] if written else [],
        "stop_reason": stats.stop_reason.value,
        "error": stats.error,
        "score": record.get("score"),
        "cost": stats.cost,
        "timing": record["timing"],
        "usage": {"root": record["root_usage"], "sub": record["sub_usage"]},
        "metrics": record["metrics"],
        "group": record.get("group"),
        "weight_versions": versions,
        "info": record["info"],
        "prompt": _prompt(record, texts),
        "turns": _turns(record, texts, len(versions) > 1),
        "batches": batches_of(record),
        "budgets": budgets(record, limits),
        "coverage": coverage(record),
        "context_problem": problem,
        "has_tokens": any(turn.get("completion_ids") for turn in record["turns"]),
    }


def _prompt(record: dict[str, Any], texts: Texts) -> list[dict[str, Any]]:
    """What the root LLM was told before its first reply."""
    found: list[dict[str, Any]] = []
    for message in record["messages"]:
        if message.get("role") == "assistant":
            break
        found.append({"role": message.get("role", ""), "content": texts.pieces(message.get("content"))})
    return found


def weight_versions(record: dict[str, Any]) -> list[int]:
    """The versions of the weights that sampled its root LLM and sub-LLMs, in order; [] outside of training."""
    replies = [*record["turns"], *record["sub_calls"], *(t for call in record["sub_calls"] for t in call["tool_turns"])]
    return sorted({version for reply in replies for _, version in reply.get("weight_versions") or ()})


def _turns(record: dict[str, Any], texts: Texts, with_versions: bool) -> list[dict[str, Any]]:
    """`with_versions`: also which weights sampled which tokens, as `Reply.weight_versions`."""
    return [
        {
            **shown_reply(turn["text"], turn["reasoning"], turn["code"]),
            "prompt": [
                {"role": message.get("role", ""), "content": texts.pieces(message.get("content"))}
                for message in turn["prompt"]
            ],
            "tools": shown_tools(turn, texts),
            "observation": texts.pieces(turn["observation"]),
            "answer": None if turn.get("answer") is None else cut(turn["answer"]),
            "error": turn["error"],
            "timed_out": turn["timed_out"],
            "state_lost": turn["state_lost"],
            "finish_reason": turn["finish_reason"],
            "usage": turn["usage"],
            "weight_versions": turn["weight_versions"] if with_versions else None,
            "seconds": {part: turn[f"{part}_seconds"] for part in ("root", "code", "sub")},
        }
        for turn in record["turns"]
    ]


def budgets(record: dict[str, Any], limits: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each budget its limit and what was spent of it up to the end of each turn.

    Seconds are those of replies and cells; the last value is the whole rollout's.
    """
    calls: Counter[int] = Counter()
    tokens: Counter[int] = Counter()
    for call in record["sub_calls"]:
        calls[call["root_turn"]] += len(call["tool_turns"]) + 1
        tokens[call["root_turn"]] += call["usage"]["prompt_tokens"] + call["usage"]["completion_tokens"]
    spent: dict[str, list[float]] = defaultdict(list)
    sums: Counter[str] = Counter({"seconds": record["timing"]["setup"]})
    for index, turn in enumerate(record["turns"]):
        sums["turns"] += 1
        sums["root tokens"] += turn["usage"]["prompt_tokens"] + turn["usage"]["completion_tokens"]
        sums["sub-calls"] += calls[index]
        sums["sub tokens"] += tokens[index]
        sums["seconds"] += turn["root_seconds"] + turn["code_seconds"] + turn["sub_seconds"]
        for name, _, _ in LIMITS:
            spent[name].append(sums[name])
    if spent["seconds"]:
        spent["seconds"][-1] = max(spent["seconds"][-1], record["timing"]["total"])
    return [
        {"name": name, "unit": unit, "limit": limits.get(key), "spent": spent[name]}
        for name, key, unit in LIMITS
        if any(spent[name])
    ]
