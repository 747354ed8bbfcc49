"""Runs as logs of inspect_ai, which `inspect view` opens and `inspect_ai.log.read_eval_log` reads.

One log per scaffold. A rollout is a sample; its turns, cells and sub-calls are events, sub-calls inside a span for each
`llm_batch`, which the viewer shows as a sub-agent. Scores and means are copied, never computed anew.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from inspect_ai.event import Event, ModelEvent, SpanBeginEvent, SpanEndEvent, ToolEvent
from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalError,
    EvalLog,
    EvalMetric,
    EvalResults,
    EvalSample,
    EvalScore,
    EvalSpec,
    EvalStats,
    write_eval_log,
)
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    ModelOutput,
    ModelUsage,
    StopReason,
)
from inspect_ai.scorer import Score as InspectScore
from inspect_ai.tool import ToolCallError

from rlm_env.adapters.valid import valid_unicode
from rlm_env.evals.stored import EvalResult
from rlm_env.evals.summary import ScaffoldSummary
from rlm_env.messages import Message, Usage
from rlm_env.rollout import Reply, Rollout, SubCall, ToolResult, Turn
from rlm_env.runs.config import RECORD
from rlm_env.runs.folder import ROLLOUTS, latest_rollouts, read_run_config

SCORER = "reward"
STOP_REASONS: dict[str | None, StopReason] = {
    "stop": "stop",
    "length": "max_tokens",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
}
STATUS: dict[str, Literal["success", "started"]] = {"complete": "success", "running": "started"}
"""How a run ended -> the status of its logs; of others it is `cancelled`."""


def write_inspect_logs(result: EvalResult, out: Path) -> list[Path]:
    """Writes one `.eval` file per scaffold of a run into the folder `out`. Raises RecordError on damaged rollouts."""
    out.mkdir(parents=True, exist_ok=True)
    record = read_run_config(result.path).get(RECORD, {})
    started = datetime.fromisoformat(record["started"]) if "started" in record else datetime.now(UTC)
    by_scaffold: dict[str, list[Rollout]] = {}
    for rollout in latest_rollouts(result.path / ROLLOUTS):
        by_scaffold.setdefault(rollout.scaffold, []).append(rollout)
    paths = []
    for scaffold in result.summary.scaffolds:
        rollouts = by_scaffold.get(scaffold.scaffold, [])
        log = inspect_log(rollouts, scaffold, result.label, started)
        log.status = STATUS.get(result.status, "cancelled")
        stamp = started.strftime("%Y-%m-%dT%H-%M-%S+00-00")
        path = out / f"{stamp}_{result.label}_{scaffold.scaffold}.eval"
        write_eval_log(log, str(path))
        paths.append(path)
    return paths


def inspect_log(rollouts: Sequence[Rollout], summary: ScaffoldSummary, label: str, started: datetime) -> EvalLog:
    """The log of one scaffold. `label`: the environment's; `started`: when the run began. A run does not store when it
    ended: its log has the time that its longest rollout took."""
    epochs: Counter[str] = Counter()
    samples = []
    for rollout in rollouts:
        epochs[rollout.task_id] += 1
        samples.append(_sample(valid_unicode(rollout), epochs[rollout.task_id], started))
    models = {valid_unicode(rollout.info.get("root")) for rollout in rollouts} - {None}
    created = started.isoformat()
    ended = started + timedelta(seconds=max((rollout.timing.total for rollout in rollouts), default=0.0))
    metrics = {}
    if summary.score is not None:
        numbers = {"mean": summary.score.mean, "ci_low": summary.score.low, "ci_high": summary.score.high}
        metrics = {name: EvalMetric(name=name, value=value) for name, value in numbers.items()}
    return EvalLog(
        status="success",
        eval=EvalSpec(
            created=created,
            task=label,
            task_args={"scaffold": summary.scaffold},
            tags=[summary.scaffold],
            solver=summary.scaffold,
            dataset=EvalDataset(name=label, samples=len(epochs), sample_ids=list(epochs)),
            model=str(next(iter(models), "unknown")),
            config=EvalConfig(epochs=max(epochs.values(), default=1)),
            metadata={"made_by": "rlm-env"},
        ),
        results=EvalResults(
            total_samples=len(samples),
            completed_samples=sum(sample.error is None for sample in samples),
            scores=[EvalScore(name=SCORER, scorer=SCORER, metrics=metrics)],
        ),
        stats=EvalStats(started_at=created, completed_at=ended.isoformat(), model_usage=_total_usage(samples)),
        samples=samples,
    )


def _sample(rollout: Rollout, epoch: int, started: datetime) -> EvalSample:
    root, sub = str(rollout.info.get("root") or "root"), str(rollout.info.get("sub") or rollout.info.get("root"))
    score = rollout.score
    scores = None
    if score is not None:
        metadata = dict(score.metrics)
        explanation = score.explanation
        scores = {
            SCORER: InspectScore(
                value=score.value, answer=rollout.answer, explanation=explanation, metadata=metadata or None
            )
        }
    timeline = _Timeline(rollout, root, sub, started)
    usage = {root: _usage(rollout.root_usage), sub: _usage(rollout.sub_usage)}
    if sub == root:
        usage = {root: _usage(rollout.root_usage, rollout.sub_usage)}
    target = rollout.gold if isinstance(rollout.gold, str) else _json(rollout.gold)
    return EvalSample(
        id=rollout.task_id,
        epoch=epoch,
        input=rollout.question,
        target=target,
        messages=[_message(message) for message in rollout.messages],
        output=ModelOutput(
            model=root, choices=[ChatCompletionChoice(message=ChatMessageAssistant(content=rollout.answer))]
        ),
        scores=scores,
        metadata={"scaffold": rollout.scaffold, "stop_reason": rollout.stop_reason.value, **rollout.metrics},
        events=list(timeline.events()),
        model_usage=usage,
        total_time=rollout.timing.total,
        turn_count=len(rollout.turns),
        error=_error(rollout),
    )


def _error(rollout: Rollout) -> EvalError | None:
    return EvalError(message=rollout.error, traceback="", traceback_ansi="") if rollout.error else None


@dataclass(slots=True)
class _Timeline:
    """The events of a rollout. A record has durations only, so they follow one another from the run's start."""

    rollout: Rollout
    root: str
    sub: str
    at: datetime
    begun: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.begun = self.at

    def events(self) -> Iterator[Event]:
        replies = [index for index, message in enumerate(self.rollout.messages) if message["role"] == "assistant"]
        calls: dict[int, list[SubCall]] = {}
        for call in self.rollout.sub_calls:
            calls.setdefault(call.root_turn, []).append(call)
        for index, turn in enumerate(self.rollout.turns):
            end = replies[index] if index < len(replies) else len(self.rollout.messages)
            yield self._model(turn, turn.prompt or self.rollout.messages[:end], self.root, "root", turn.root_seconds)
            yield from self._tools(turn.tool_results)
            yield from self._cells(turn, index)
            yield from self._batches(calls.pop(index, []))
        for rest in calls.values():  # notes of the summary agent, which belong to no turn
            yield from self._batches(rest)

    def _model(self, reply: Reply, prompt: Sequence[Message], model: str, role: str, seconds: float) -> ModelEvent:
        start = self._pass(seconds)
        error = getattr(reply, "error", None) if isinstance(reply, SubCall) else None
        return ModelEvent(
            **self._times(start, seconds),
            model=model,
            role=role,
            input=[_message(message) for message in prompt],
            tools=[],
            tool_choice="auto",
            config=GenerateConfig(),
            output=_output(reply, model, seconds),
            error=error,
        )

    def _cells(self, turn: Turn, index: int) -> Iterator[ToolEvent]:
        for number, code in enumerate(turn.code):
            last = number == len(turn.code) - 1
            seconds = turn.code_seconds if last else 0.0
            start = self._pass(seconds)
            yield ToolEvent(
                **self._times(start, seconds),
                id=f"cell-{index}-{number}",
                function="python",
                arguments={"code": code},
                result=turn.observation if last else "",
                error=ToolCallError("unknown", turn.error) if last and turn.error else None,
            )

    def _tools(self, results: Sequence[ToolResult]) -> Iterator[ToolEvent]:
        for number, result in enumerate(results):
            start = self._pass(result.seconds)
            yield ToolEvent(
                **self._times(start, result.seconds),
                id=result.id or f"{result.name}-{number}",
                function=result.name,
                arguments={"arguments": result.arguments},
                result=result.output,
                error=ToolCallError("unknown", result.error) if result.error else None,
            )

    def _batches(self, calls: Sequence[SubCall]) -> Iterator[Event]:
        batches: dict[int, list[SubCall]] = {}
        for call in calls:
            batches.setdefault(call.batch, []).append(call)
        for batch, members in batches.items():
            name = f"llm_batch-{batch}"
            yield SpanBeginEvent(**self._times(self.at), id=name, name=f"llm_batch of {len(members)}", type="agent")
            for call in members:
                prompt = call.messages
                for turn in call.tool_turns:
                    yield self._model(turn, prompt, self.sub, "sub", 0.0)
                    yield from self._tools(turn.tool_results)
                yield self._model(call, prompt, self.sub, "sub", 0.0)
            self._pass(max(call.seconds for call in members))  # they ran side by side
            yield SpanEndEvent(**self._times(self.at), id=name)

    def _pass(self, seconds: float) -> datetime:
        """Lets time go by; returns when that began."""
        start = self.at
        self.at += timedelta(seconds=seconds)
        return start

    def _times(self, start: datetime, seconds: float | None = None) -> dict[str, Any]:
        """Fields that say when an event was, and with `seconds` for how long."""
        times: dict[str, Any] = {"timestamp": start, "working_start": (start - self.begun).total_seconds()}
        if seconds is not None:
            times |= {"completed": start + timedelta(seconds=seconds), "working_time": seconds}
        return times


def _output(reply: Reply, model: str, seconds: float) -> ModelOutput:
    message = _message({"role": "assistant", "content": reply.text, "reasoning": reply.reasoning})
    assert isinstance(message, ChatMessageAssistant)
    reason = STOP_REASONS.get(reply.finish_reason, "unknown")
    choice = ChatCompletionChoice(message=message, stop_reason=reason)
    return ModelOutput(model=model, choices=[choice], usage=_usage(reply.usage), time=seconds)


def _total_usage(samples: Sequence[EvalSample]) -> dict[str, ModelUsage]:
    """Model -> the tokens of all samples."""
    found: dict[str, ModelUsage] = {}
    for sample in samples:
        for model, usage in sample.model_usage.items():
            found[model] = found[model] + usage if model in found else usage
    return found


def _usage(*usages: Usage) -> ModelUsage:
    """The sum of usages."""
    prompt = sum(usage.prompt_tokens for usage in usages)
    completion = sum(usage.completion_tokens for usage in usages)
    return ModelUsage(input_tokens=prompt, output_tokens=completion, total_tokens=prompt + completion)


def _message(message: Message) -> ChatMessage:
    """A chat message; tool calls are written out as text, since their arguments may be no JSON."""
    content = message.get("content") or ""
    text = content if isinstance(content, str) else _json(content)
    match message["role"]:
        case "system":
            return ChatMessageSystem(content=text)
        case "assistant":
            calls = [
                json.dumps(call.get("function", call), ensure_ascii=False) for call in message.get("tool_calls") or ()
            ]
            text = "\n".join([text, *calls]).strip()
            if reasoning := message.get("reasoning"):
                return ChatMessageAssistant(content=[ContentReasoning(reasoning=reasoning), ContentText(text=text)])
            return ChatMessageAssistant(content=text)
        case "tool":
            return ChatMessageTool(content=text, tool_call_id=message.get("tool_call_id"))
        case _:
            return ChatMessageUser(content=text)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
