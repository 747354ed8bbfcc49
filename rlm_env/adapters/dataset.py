"""Runs as data sets: Parquet files, and a folder that `datasets.load_dataset` reads and the Hugging Face Hub takes.

`rollouts` has one row per rollout. `conversations` has one row per conversation of the root LLM or a sub-LLM, with
`messages` as chat templates and trainers take them. Tokens and logprobs stay in rollouts.jsonl.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from rlm_env.adapters.valid import valid_unicode
from rlm_env.messages import Message
from rlm_env.rollout import Rollout, SubCall

TEXT, NUMBER, COUNT = pyarrow.string(), pyarrow.float64(), pyarrow.int64()
MESSAGES = pyarrow.list_(pyarrow.struct([("role", TEXT), ("content", TEXT)]))
ROLLOUTS_SCHEMA = pyarrow.schema(
    [
        *(("id", TEXT), ("environment", TEXT), ("scaffold", TEXT), ("task_id", TEXT), ("question", TEXT)),
        *(("gold", TEXT), ("answer", TEXT), ("score", NUMBER), ("explanation", TEXT), ("stop_reason", TEXT)),
        *(("error", TEXT), ("turns", COUNT), ("sub_calls", COUNT), ("root_tokens", COUNT), ("sub_tokens", COUNT)),
        *(("seconds", NUMBER), ("metrics", TEXT), ("root_model", TEXT), ("sub_model", TEXT), ("messages", MESSAGES)),
    ]
)
CONVERSATIONS_SCHEMA = pyarrow.schema(
    [
        *(("rollout_id", TEXT), ("environment", TEXT), ("scaffold", TEXT), ("task_id", TEXT), ("role", TEXT)),
        *(("root_turn", COUNT), ("batch", COUNT), ("score", NUMBER), ("error", TEXT), ("messages", MESSAGES)),
    ]
)
BATCH = 256
"""Rows that are held in memory at once."""

CARD = """\
---
configs:
- config_name: rollouts
  data_files: rollouts.parquet
- config_name: conversations
  data_files: conversations.parquet
tags:
- recursive-language-models
- rlm-env
---

# {title}

{count:,} rollouts of {environments}, made by rlm-env {version}.

- `rollouts`: one row per rollout: question, right answer, answer, score, and the conversation of the root LLM.
- `conversations`: one row per conversation of the root LLM or a sub-LLM, as `messages`.
"""


def write_parquet(read: Callable[[], Iterable[Rollout]], out: Path) -> list[Path]:
    """Writes `rollouts.parquet` and `conversations.parquet` into the folder `out`; `read` gives the rollouts, twice."""
    out.mkdir(parents=True, exist_ok=True)
    rollouts, conversations = out / "rollouts.parquet", out / "conversations.parquet"
    _write(rollouts, ROLLOUTS_SCHEMA, (_rollout_row(valid_unicode(rollout)) for rollout in read()))
    _write(
        conversations, CONVERSATIONS_SCHEMA, (row for one in read() for row in _conversation_rows(valid_unicode(one)))
    )
    return [rollouts, conversations]


def write_hub_folder(read: Callable[[], Iterable[Rollout]], out: Path, title: str, version: str) -> list[Path]:
    """`write_parquet`, and a data set card: what `hf upload REPO OUT --repo-type dataset` takes."""
    paths = write_parquet(read, out)
    table = pyarrow.parquet.read_table(paths[0], columns=["environment"])
    names = sorted(set(table["environment"].to_pylist()))
    card = out / "README.md"
    card.write_text(
        CARD.format(title=title, count=len(table), environments=", ".join(names) or "no environment", version=version),
        "utf-8",
    )
    return [*paths, card]


def _write(path: Path, schema: pyarrow.Schema, rows: Iterator[dict[str, Any]]) -> None:
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        batch: list[dict[str, Any]] = []
        for row in rows:
            batch.append(row)
            if len(batch) == BATCH:
                writer.write_table(pyarrow.Table.from_pylist(batch, schema))
                batch = []
        writer.write_table(pyarrow.Table.from_pylist(batch, schema))


def _rollout_row(rollout: Rollout) -> dict[str, Any]:
    score = rollout.score
    return {
        "id": rollout.id,
        "environment": rollout.environment,
        "scaffold": rollout.scaffold,
        "task_id": rollout.task_id,
        "question": rollout.question,
        "gold": rollout.gold if isinstance(rollout.gold, str) else json.dumps(rollout.gold),
        "answer": rollout.answer,
        "score": score and score.value,
        "explanation": score and score.explanation,
        "stop_reason": rollout.stop_reason.value,
        "error": rollout.error,
        "turns": len(rollout.turns),
        "sub_calls": len(rollout.sub_calls),
        "root_tokens": rollout.root_usage.prompt_tokens + rollout.root_usage.completion_tokens,
        "sub_tokens": rollout.sub_usage.prompt_tokens + rollout.sub_usage.completion_tokens,
        "seconds": rollout.timing.total,
        "metrics": json.dumps({**rollout.metrics, **(score.metrics if score else {})}),
        "root_model": rollout.info.get("root"),
        "sub_model": rollout.info.get("sub"),
        "messages": _messages(rollout.messages),
    }


def _conversation_rows(rollout: Rollout) -> Iterator[dict[str, Any]]:
    common = {
        "rollout_id": rollout.id,
        "environment": rollout.environment,
        "scaffold": rollout.scaffold,
        "task_id": rollout.task_id,
        "score": rollout.score and rollout.score.value,
    }
    if rollout.messages:
        yield {**common, "role": "root", "error": rollout.error, "messages": _messages(rollout.messages)}
    for call in rollout.sub_calls:
        place = {"root_turn": call.root_turn, "batch": call.batch, "error": call.error}
        yield {**common, "role": "sub", **place, "messages": _messages(_sub_messages(call))}


def _sub_messages(call: SubCall) -> list[Message]:
    """A sub-LLM's conversation, its tool calls and their results included."""
    messages = list(call.messages)
    for turn in call.tool_turns:
        calls = [{"role": "assistant", "content": turn.text, "tool_calls": turn.tool_calls}]
        messages += calls + [{"role": "tool", "content": result.observation} for result in turn.tool_results]
    if call.error is None:
        messages.append({"role": "assistant", "content": call.text})
    return messages


def _messages(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Roles and texts. Tool calls are written out as JSON below the text."""
    rows = []
    for message in messages:
        content = message.get("content") or ""
        parts = [content if isinstance(content, str) else json.dumps(content)]
        parts += [json.dumps(call.get("function", call)) for call in message.get("tool_calls") or ()]
        rows.append({"role": message["role"], "content": "\n".join(part for part in parts if part)})
    return rows
