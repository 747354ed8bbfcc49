"""The record of one rollout, and what scoring it returns.

Covered: the data of a rollout (turns, sub-calls, tokens, time, how it ended), reading and writing it as one
JSON line. Not covered: making rollouts (`env.py`), judging them (environments), drawing them (`evals/`).
The very same record is an evaluation result, a training sample and a page in a viewer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rlm_env.messages import Completion, Message, Usage

if TYPE_CHECKING:
    from rlm_env.task import Task

SCHEMA_VERSION = 1


class StopReason(StrEnum):
    """Why a rollout ended. Every rollout has exactly one."""

    READY = "ready"
    """The policy set `answer["ready"] = True` (RLM), or finished its reply (other scaffolds)."""
    MAX_TURNS = "max_turns"
    ROOT_TOKENS = "root_tokens"
    SUB_TOKENS = "sub_tokens"
    SUB_CALLS = "sub_calls"
    WALL_TIME = "wall_time"
    CONTEXT_OVERFLOW = "context_overflow"
    """The root prompt (for the standard scaffold: with the whole context in it) does not fit the model's window."""
    LENGTH = "length"
    """A single-turn scaffold's reply was cut off by its token limit."""
    ERROR = "error"
    """The engine or the REPL failed; `Rollout.error` says how. Never counted as a wrong answer."""
    CANCELLED = "cancelled"


@dataclass(slots=True)
class Timing:
    """Where the seconds of a rollout went, all measured on the host."""

    total: float = 0.0
    root: float = 0.0
    """Waiting for the root LLM."""
    code: float = 0.0
    """Model-written code running, without its waits in `llm_batch`."""
    sub: float = 0.0
    """`llm_batch` in flight (wall time: concurrent batches count once)."""
    setup: float = 0.0
    """Opening the REPL and handing it the context."""


@dataclass(slots=True)
class ToolResult:
    """One call of a tool on the host and what came of it (`tools.py`)."""

    name: str
    arguments: str
    """The model's own text: a JSON object, if the model kept to it."""
    output: str = ""
    """What the tool returned, bounded; empty where it failed."""
    error: str | None = None
    seconds: float = 0.0
    """Without the wait for the call's turn."""
    id: str | None = None
    """Of the tool call in the engine's reply; None in the text protocol."""

    @property
    def told(self) -> str:
        """What the model is told of it."""
        return self.output if self.error is None else f"Error: {self.error}"


@dataclass(slots=True)
class Turn:
    """One reply of the root LLM and what came of it."""

    text: str = ""
    """The reply's visible text."""
    reasoning: str | None = None
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: str | None = None
    prompt_ids: list[int] | None = None
    """Token ids that the engine was given, shape [prompt]; None where the endpoint does not tell."""
    completion_ids: list[int] | None = None
    """Token ids that the engine sampled, shape [completion]."""
    logprobs: list[float] | None = None
    """Behavior logprobs of `completion_ids` (natural log, after temperature), shape [completion]."""
    usage: Usage = field(default_factory=Usage)
    code: list[str] = field(default_factory=list)
    """The cells that ran, in order."""
    tool_results: list[ToolResult] = field(default_factory=list)
    """The tools that the root LLM itself called, where it has any."""
    observation: str = ""
    """What the model was told afterwards (bounded); empty after the last turn of a finished rollout."""
    error: str | None = None
    """The short traceback of the last failing cell, if any."""
    timed_out: bool = False
    state_lost: bool = False
    root_seconds: float = 0.0
    code_seconds: float = 0.0
    sub_seconds: float = 0.0

    @classmethod
    def from_completion(cls, completion: Completion, seconds: float) -> Turn:
        """The turn that an engine's reply begins; `seconds` is how long the root LLM took."""
        return cls(
            **_sampled(completion), tool_calls=completion.tool_calls, usage=completion.usage, root_seconds=seconds
        )


@dataclass(slots=True)
class SubTurn:
    """A reply of a sub-LLM that called tools, and what they gave. Fields as in `Turn`."""

    text: str = ""
    reasoning: str | None = None
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: str | None = None
    prompt_ids: list[int] | None = None
    completion_ids: list[int] | None = None
    logprobs: list[float] | None = None
    usage: Usage = field(default_factory=Usage)
    tool_results: list[ToolResult] = field(default_factory=list)

    @classmethod
    def from_completion(cls, completion: Completion) -> SubTurn:
        """The turn that an engine's reply begins."""
        return cls(**_sampled(completion), tool_calls=completion.tool_calls, usage=completion.usage)


@dataclass(slots=True)
class SubCall:
    """One sub-LLM call: a prompt, its answer or its error. Ids are unique within the rollout.

    Text, tokens and logprobs are those of the reply that is the answer; the replies before it, in which a sub-LLM
    with tools called them, are `turns`. `usage` and `seconds` are of the whole call.
    """

    id: int
    turn: int
    """Index of the root turn whose code made the call."""
    batch: int
    """Index of the `llm_batch` invocation within the rollout."""
    messages: list[Message]
    """As the sub-LLM got them at first."""
    text: str = ""
    error: str | None = None
    """Why there is no answer; the turns before may be there all the same."""
    reasoning: str | None = None
    finish_reason: str | None = None
    prompt_ids: list[int] | None = None
    completion_ids: list[int] | None = None
    logprobs: list[float] | None = None
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0
    turns: list[SubTurn] = field(default_factory=list)

    @property
    def replies(self) -> list[SubTurn | SubCall]:
        """Everything that was sampled in this call, in order: `turns`, then the last reply where there is one."""
        return list(self.turns) if self.error is not None and self.completion_ids is None else [*self.turns, self]

    def take(self, completion: Completion) -> None:
        """Makes an engine's reply the answer of the call. Its usage is the caller's to count."""
        for name, value in _sampled(completion).items():
            setattr(self, name, value)


def _sampled(completion: Completion) -> dict[str, Any]:
    """What every record of a reply holds of it."""
    return {
        "text": completion.text,
        "reasoning": completion.reasoning,
        "finish_reason": completion.finish_reason,
        "prompt_ids": completion.prompt_ids,
        "completion_ids": completion.completion_ids,
        "logprobs": completion.logprobs,
    }


Reply = TypeVar("Reply", Turn, SubTurn, SubCall)


@dataclass(slots=True)
class Score:
    """What an environment says of a rollout. Source of the shape: inspect_ai's `Score`."""

    value: float
    """The reward, in [0, 1]."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Named numbers that are not the reward."""
    explanation: str | None = None
    answered: bool = True
    """False where no answer could be read from the output: reports tell that apart from a wrong one."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.value <= 1.0:  # also refuses nan
            raise ValueError(f"Score.value must lie in [0, 1], got {self.value!r}; put other numbers into metrics")


@dataclass(slots=True)
class Rollout:
    """Everything that happened between a task and its answer.

    `messages` is the root conversation as text; `turns` holds the same replies with their tokens.
    `info` records what is needed to run it again: model names, sampling, prompt hashes, versions, sandbox tier.
    """

    id: str = ""
    task_id: str = ""
    environment: str = ""
    scaffold: str = "rlm"
    answer: str = ""
    stop_reason: StopReason = StopReason.READY
    error: str | None = None
    messages: list[Message] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    sub_calls: list[SubCall] = field(default_factory=list)
    root_usage: Usage = field(default_factory=Usage)
    sub_usage: Usage = field(default_factory=Usage)
    timing: Timing = field(default_factory=Timing)
    metrics: dict[str, float] = field(default_factory=dict)
    """Facts measured by the host: see `docs/architecture.md` for the names."""
    score: Score | None = None
    info: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_answer(cls, task: Task, answer: str) -> Rollout:
        """A rollout that only has an answer: what a scorer needs, nothing else."""
        return cls(task_id=task.id, answer=answer)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict. Each reply's prompt ids that repeat the reply before are stored as their count only
        (`prompt_prefix`), so that a long conversation takes linear space."""
        record = {"schema": SCHEMA_VERSION, **asdict(self)}
        for replies in (record["turns"], *([*call["turns"], call] for call in record["sub_calls"])):
            _fold_prompts(replies)
        return record

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Rollout:
        """The inverse of `to_dict`. Raises ValueError on another schema version or an unknown field."""
        record = dict(record)
        schema = record.pop("schema", None)
        if schema != SCHEMA_VERSION:
            raise ValueError(f"rollout schema {schema!r} cannot be read by this version (it reads {SCHEMA_VERSION})")
        unknown = record.keys() - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"rollout has unknown fields: {', '.join(sorted(unknown))}")
        record["turns"] = _read_replies(Turn, record.get("turns", ()))
        record["sub_calls"] = [_read_sub_call(call) for call in record.get("sub_calls", ())]
        for name, kind in (("root_usage", Usage), ("sub_usage", Usage), ("timing", Timing)):
            record[name] = kind(**record.get(name, {}))
        if record.get("score") is not None:
            record["score"] = Score(**record["score"])
        record["stop_reason"] = StopReason(record["stop_reason"])
        return cls(**record)

    def to_json(self) -> str:
        """One line of JSON. Lone surrogates, which a REPL can print, survive as escapes."""
        return json.dumps(self.to_dict(), ensure_ascii=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Rollout:
        return cls.from_dict(json.loads(line))


def _fold_prompts(replies: list[dict[str, Any]]) -> None:
    """Prompt ids that repeat the reply before become their count, in place."""
    seen: list[int] = []
    for reply in replies:
        ids = reply["prompt_ids"]
        if ids is None or reply["completion_ids"] is None:
            seen = []
            continue
        if seen and ids[: len(seen)] == seen:
            reply["prompt_prefix"] = len(seen)
            reply["prompt_ids"] = ids[len(seen) :]
        seen = ids + reply["completion_ids"]


def _read_replies(kind: type[Reply], records: Iterable[dict[str, Any]], last: SubTurn | None = None) -> list[Reply]:
    """Replies of a conversation that `last` began, with their prompt ids whole again."""
    replies: list[Reply] = []
    for raw in records:
        raw = dict(raw, usage=Usage(**raw["usage"]))
        if "tool_results" in raw:
            raw["tool_results"] = [ToolResult(**result) for result in raw["tool_results"]]
        before = replies[-1] if replies else last
        if raw.pop("prompt_prefix", 0):
            raw["prompt_ids"] = [*before.prompt_ids, *before.completion_ids, *raw["prompt_ids"]]
        replies.append(kind(**raw))
    return replies


def _read_sub_call(raw: dict[str, Any]) -> SubCall:
    turns = _read_replies(SubTurn, raw.get("turns", ()))
    (call,) = _read_replies(SubCall, [dict(raw, turns=turns)], last=turns[-1] if turns else None)
    return call


def read_rollouts(path: str | Path) -> Iterator[Rollout]:
    """Rollouts of a JSONL file, in order. A last line that was cut off by a crash is left out."""
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n") and line.strip():
                yield Rollout.from_json(line)


def write_rollouts(path: str | Path, rollouts: Iterable[Rollout]) -> None:
    """Writes rollouts as JSONL, replacing the file."""
    with open(path, "w", encoding="utf-8") as out:
        out.writelines(rollout.to_json() + "\n" for rollout in rollouts)
