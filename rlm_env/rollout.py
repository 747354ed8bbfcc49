"""The record of one rollout, with the score it got.

One record serves as an evaluation result, a training sample and a page in a viewer. It is stored as one line of JSON.
Not covered: making rollouts (`scaffolds/`), scoring them (`scoring/`), appending them to a run's file
(`runs/folder.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from rlm_env.as_dict import as_dict
from rlm_env.context import Context
from rlm_env.contexts import CONTEXTS, ContextError, ContextStore, fold_record, unfold_record
from rlm_env.lines import read_lines
from rlm_env.messages import Completion, Message, Usage
from rlm_env.readable import Readable
from rlm_env.score import MetricError, Score

if TYPE_CHECKING:
    from rlm_env.task import Task

SCHEMA_VERSION = 2
"""Changes whenever a stored rollout could be misread by code of another version."""


class RecordError(ValueError):
    """A rollout that cannot be read from its stored form, or cannot be stored. The message says where and why."""


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
    """One tool call that ran on the host, and its result (`tools/box.py`)."""

    name: str
    arguments: str
    """As the model wrote them: the text of a JSON object, if the model kept to the format."""
    output: str = ""
    """The tool's return value as text, shortened to its limit; empty where the call failed."""
    error: str | None = None
    seconds: float = 0.0
    """Run time, without waiting for a free slot."""
    id: str | None = None
    """Id of the tool call in the engine's reply; None in the text protocol."""

    @property
    def observation(self) -> str:
        """The text that the model gets as the result of its call."""
        return self.output if self.error is None else f"Error: {self.error}"


@dataclass(slots=True, kw_only=True)
class Reply:
    """A reply that an engine sampled, with its tokens: what `Turn`, `SubTurn` and `SubCall` have in common."""

    text: str = ""
    """The visible text."""
    reasoning: str | None = None
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    """In the OpenAI shape."""
    finish_reason: str | None = None
    prompt_ids: list[int] | None = None
    """Token ids that the engine was given, shape [prompt]; None where the endpoint returns no token ids."""
    completion_ids: list[int] | None = None
    """Token ids that the engine sampled, shape [completion]."""
    logprobs: list[float] | None = None
    """Behavior logprobs of `completion_ids` (natural log, after temperature), shape [completion]."""
    weight_versions: list[list[int]] | None = None
    """Pairs `[index, version]`: from that token on, weights after so many optimizer steps sampled. None: unknown."""
    usage: Usage = field(default_factory=Usage)

    @classmethod
    def from_completion(cls, completion: Completion, **own: Any) -> Self:
        """The record of an engine's reply; `own` are the other fields of the subclass."""
        return cls(**{name: getattr(completion, name) for name in _SAMPLED}, **{"usage": completion.usage, **own})


_SAMPLED = tuple(each.name for each in fields(Reply) if each.name != "usage")


@dataclass(slots=True)
class Turn(Reply):
    """A reply of the root LLM, and what happened because of it."""

    code: list[str] = field(default_factory=list)
    """The cells that ran, in order."""
    tool_results: list[ToolResult] = field(default_factory=list)
    """Results of the tools that the root LLM itself called."""
    observation: str = ""
    """The text that the model got back, shortened to its limit; empty after the last turn of a finished rollout."""
    answer: str | None = None
    """`answer["content"]` after these cells, where they changed it."""
    error: str | None = None
    """The short traceback of the last failing cell, if any."""
    timed_out: bool = False
    state_lost: bool = False
    prompt: list[Message] = field(default_factory=list)
    """The chat that it answers, where that is not part of `Rollout.messages`."""
    root_seconds: float = 0.0
    code_seconds: float = 0.0
    sub_seconds: float = 0.0


@dataclass(slots=True)
class SubTurn(Reply):
    """A reply of a sub-LLM that called tools, and their results."""

    tool_results: list[ToolResult] = field(default_factory=list)


@dataclass(slots=True)
class SubCall(Reply):
    """One sub-LLM call: its prompt, the replies, and the answer or the error.

    The fields of `Reply` describe the last reply, which is the answer. Earlier replies, in which the sub-LLM called
    tools, are in `tool_turns`. `usage` and `seconds` cover the whole call.
    """

    id: int
    """Unique within the rollout."""
    root_turn: int
    """Index into `Rollout.turns`: the turn whose code made the call."""
    batch: int
    """Index of the `llm_batch` invocation within the rollout."""
    messages: list[Message]
    """The chat that the sub-LLM was first given."""
    error: str | None = None
    """Why there is no answer; `tool_turns` may hold replies all the same."""
    seconds: float = 0.0
    tool_turns: list[SubTurn] = field(default_factory=list)

    @property
    def replies(self) -> list[Reply]:
        """All replies of this call in order: `tool_turns`, then the last one where there is one."""
        failed = self.error is not None and self.completion_ids is None
        return [*self.tool_turns] if failed else [*self.tool_turns, self]

    def take(self, completion: Completion) -> None:
        """Makes an engine's reply the answer of the call. `usage` is left for the caller to count."""
        for name in _SAMPLED:
            setattr(self, name, getattr(completion, name))


@dataclass(frozen=True, slots=True)
class GroupMember:
    """The place of a rollout in a training run."""

    label: str
    """The environment's label in the run's configuration; `Rollout.environment` is the environment's own name."""
    group: int | None = None
    """Number of the group, in the order in which groups were begun; None for a held-out rollout."""
    member: int = 0
    """Index within the group; of a held-out rollout, the index of the repeat."""
    step: int | None = None
    """Optimizer steps done when a held-out evaluation began; None for a rollout that is made to be trained."""
    policy_version: int = 0
    """Optimizer steps that the weights had seen when the rollout began."""
    last_policy_version: int | None = None
    """The same when it ended: weights may change while it runs. None in older records."""


@dataclass(slots=True, repr=False)
class Rollout(Readable):
    """Everything that happened between a task and its answer.

    `messages` is the root conversation as text; `turns` holds the same replies with their tokens.
    """

    id: str = ""
    task_id: str = ""
    environment: str = ""
    """The environment's own name, as `load_environment` takes it."""
    scaffold: str = "rlm"
    question: str = ""
    gold: Any = None
    """The right answer, in a form that JSON has. For those who read the record; no model sees it."""
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
    group: GroupMember | None = None
    """Set by a training run."""
    info: dict[str, Any] = field(default_factory=dict)
    """What is needed to run it again: the task's info, model names, sampling, prompt and its hashes, tools, sandbox.
    JSON values only."""
    context: Context | None = field(default=None, repr=False, compare=False)
    """What stored prompts may refer to: the task's context, or of a rollout that was read its text. Not a part of the
    record; None where prompts refer to none."""

    @classmethod
    def from_answer(cls, task: Task, answer: str) -> Rollout:
        """A rollout with an answer and nothing else, which is all that a scorer needs."""
        return cls(task_id=task.id, answer=answer)

    def to_dict(self, contexts: ContextStore | None = None) -> dict[str, Any]:
        """A dict of JSON values, provided that `info` and `messages` hold nothing else.

        Prompt ids that repeat the reply before are stored as their count (`prompt_prefix`), so that a long
        conversation takes linear space. With `contexts`, stretches of the context are stored there once and referred
        to (`contexts.py`). Raises OSError where that cannot be written.
        """
        record = {"schema": SCHEMA_VERSION, **as_dict(self, leave_out=("context",))}
        for conversation in _conversations(record):
            _fold_prompts(conversation)
            for reply in conversation:
                if reply["weight_versions"] is None:  # outside of training
                    del reply["weight_versions"]
        if contexts is not None and self.context is not None:
            fold_record(record, self.context, contexts)
        return record

    @classmethod
    def from_dict(cls, record: dict[str, Any], contexts: ContextStore | None = None) -> Rollout:
        """The inverse of `to_dict`. Raises RecordError on another schema version, an unknown field or a damaged one,
        and on a context that it refers to and that is not in `contexts` any more, which it names."""
        _check_schema(record)
        try:
            record = {name: value for name, value in record.items() if name != "schema"}
            if "context" in record or "texts" in record:
                record, context = unfold_record(record, contexts)
                record["context"] = context
            record["turns"] = [dict(turn) for turn in record.get("turns", ())]
            record["sub_calls"] = [_copied_call(call) for call in record.get("sub_calls", ())]
            for conversation in _conversations(record):
                _unfold_prompts(conversation)
            record["turns"] = [_reply(Turn, turn) for turn in record["turns"]]
            record["sub_calls"] = [_sub_call(call) for call in record["sub_calls"]]
            for name, kind in (("root_usage", Usage), ("sub_usage", Usage), ("timing", Timing)):
                record[name] = kind(**record.get(name, {}))
            if record.get("group") is not None:
                record["group"] = GroupMember(**record["group"])
            if record.get("score") is not None:
                record |= _score(record)
            record["stop_reason"] = StopReason(record["stop_reason"])
            return cls(**record)
        except ContextError as error:
            raise RecordError(f"rollout {record.get('id')!r} cannot be read: {error}") from error
        except (TypeError, ValueError, LookupError, AttributeError, RecursionError) as error:
            raise RecordError(f"damaged rollout ({type(error).__name__}: {error})") from error

    def to_json(self, contexts: ContextStore | None = None) -> str:
        """One line of ASCII JSON. Lone surrogates, which a REPL can print, survive as escapes. `contexts`: see
        `to_dict`.

        Raises RecordError where a value has no JSON form: an object, NaN, nesting that is too deep.
        """
        try:
            return json.dumps(self.to_dict(contexts), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise RecordError(f"rollout {self.id!r} cannot be stored as JSON: {error}") from error

    @classmethod
    def from_json(cls, line: str | bytes, contexts: ContextStore | None = None) -> Rollout:
        """The inverse of `to_json`. Raises RecordError."""
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise RecordError(f"not a line of JSON ({error})") from error
        return cls.from_dict(record, contexts)


def _score(record: dict[str, Any]) -> dict[str, Any]:
    """The fields that a stored score sets. One with a metric that is no number, as earlier versions could store it, is
    a failure of its scorer: the rollout can be scored again."""
    try:
        return {"score": Score(**record["score"])}
    except MetricError as error:
        return {"score": None, "error": record.get("error") or f"scorer: {error}"}


def _check_schema(record: Any) -> None:
    """Raises RecordError for a record of another version, or with unknown fields."""
    if not isinstance(record, dict):
        raise RecordError(f"a rollout is a JSON object, this is a {type(record).__name__}")
    schema = record.get("schema")
    if schema == 1:
        raise RecordError(
            "this rollout was made by rlm-env before 0.2 (schema 1), and this version reads schema 2 only: "
            "use `pip install 'rlm-env<0.2'` to read it, or run it again"
        )
    if schema != SCHEMA_VERSION:
        raise RecordError(f"rollout schema {schema!r} is unknown to this version of rlm-env, which reads schema 2")
    if unknown := record.keys() - {f.name for f in fields(Rollout)} - {"schema", "texts"}:
        raise RecordError(f"rollout has unknown fields: {', '.join(sorted(unknown))}")


def _conversations(record: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """The stored replies of the root and of each sub-call, in the order in which they were sampled."""
    yield record["turns"]
    for call in record["sub_calls"]:
        yield [*call["tool_turns"], call]


def _fold_prompts(replies: list[dict[str, Any]]) -> None:
    """Replaces prompt ids that repeat the reply before by their count, in place."""
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


def _unfold_prompts(replies: list[dict[str, Any]]) -> None:
    """The inverse of `_fold_prompts`."""
    seen: list[int] = []
    for reply in replies:
        if folded := reply.pop("prompt_prefix", 0):
            if folded != len(seen):
                raise ValueError(f"prompt_prefix is {folded}, but {len(seen)} tokens precede it")
            reply["prompt_ids"] = seen + reply["prompt_ids"]
        seen = (reply["prompt_ids"] or []) + (reply["completion_ids"] or [])


def _copied_call(call: dict[str, Any]) -> dict[str, Any]:
    return dict(call, tool_turns=[dict(turn) for turn in call["tool_turns"]])


AnyReply = TypeVar("AnyReply", bound=Reply)


def _reply(kind: type[AnyReply], raw: dict[str, Any]) -> AnyReply:
    raw["usage"] = Usage(**raw["usage"])
    if "tool_results" in raw:
        raw["tool_results"] = [ToolResult(**result) for result in raw["tool_results"]]
    return kind(**raw)


def _sub_call(raw: dict[str, Any]) -> SubCall:
    raw["tool_turns"] = [_reply(SubTurn, turn) for turn in raw["tool_turns"]]
    return _reply(SubCall, raw)


def read_rollouts(path: str | Path) -> Iterator[Rollout]:
    """The rollouts of a JSONL file, in order, with the contexts that lie beside it. A last line without a line break,
    which a crash left, is skipped.

    Raises RecordError, naming file and line, for a line that holds no rollout.
    """
    contexts = ContextStore(Path(path).parent / CONTEXTS)
    return read_lines(path, lambda line: Rollout.from_json(line, contexts), RecordError)


def write_rollouts(path: str | Path, rollouts: Iterable[Rollout]) -> None:
    """Writes rollouts as JSONL, replacing the file, and the contexts that they refer to beside it. Raises RecordError
    where one cannot be stored."""
    contexts = ContextStore(Path(path).parent / CONTEXTS)
    with open(path, "w", encoding="utf-8") as out:
        out.writelines(rollout.to_json(contexts) + "\n" for rollout in rollouts)
