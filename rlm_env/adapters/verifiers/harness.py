"""Every scaffold as a harness of verifiers that runs in its process: model-written code runs in our REPLs, and all
model calls go to the endpoint that verifiers gives, which records them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, ClassVar, Self, cast

import verifiers.v1 as vf
from pydantic import Field, field_validator, model_validator

from rlm_env.adapters.verifiers.calls import CallLog, InterceptedChat
from rlm_env.adapters.verifiers.counters import rollout_metrics
from rlm_env.adapters.verifiers.sampling import effective_sampling
from rlm_env.adapters.verifiers.seats import SeatLLM, SubCallData, SubCallState, sub_seat
from rlm_env.adapters.verifiers.taskset import RLMTaskData, rollout_facts, state_of
from rlm_env.adapters.verifiers.workshop import workshop
from rlm_env.llm.base import LLMError, Sampling
from rlm_env.rollout import Rollout, StopReason
from rlm_env.runs.config import merge
from rlm_env.runs.models import model_folder
from rlm_env.runs.profile import rollout_profile
from rlm_env.scaffolds import config_type

FAILED = 1
"""Exit code of a rollout that ended because the engine or the REPL failed."""
LIMITS = {"max_turns": StopReason.MAX_TURNS} | {
    f"max_{kind}_tokens": StopReason.ROOT_TOKENS for kind in ("input", "output", "total")
}
"""A limit of verifiers -> the stop reason of a rollout that it has ended."""


class RLMHarnessConfig(vf.HarnessConfig):
    """How a task is answered."""

    scaffold: str = "rlm"
    """Name of the scaffold: rlm, rlm-tips, rlm-nosub, standard, summary."""
    profile: str = ""
    """A packaged model or a model folder, whose `rlm_env.json` gives defaults that suit the model."""
    rollout: dict[str, Any] = Field(default_factory=dict)
    """Fields of `rlm_env.RLMConfig`, such as `max_turns`. Sampling is the run's where the run sets it."""
    tools: bool | None = None
    """Whether the endpoint takes tools. None: with the client `train` if the renderer reads tool calls; with `eval`
    until it refuses them. Without tools, code and calls are asked for in fenced blocks."""
    concurrency: int = Field(default=256, ge=1)
    """Most requests of one rollout at once."""
    timeout: float = Field(default=1800.0, gt=0)
    """Seconds for one model call."""

    def options(self) -> dict[str, Any]:
        """The scaffold's configuration: the profile, then `rollout`. Raises ValueError for an unknown profile."""
        return merge(rollout_profile(model_folder(self.profile) if self.profile else None), self.rollout)

    @field_validator("rollout", mode="before")
    @classmethod
    def _read_json(cls, value: Any) -> Any:
        """On a command line the table is JSON. Raises ValueError (of pydantic) for anything else."""
        return json.loads(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            config_type(self.scaffold)(**self.options())
        except KeyError:
            raise ValueError(f"scaffold: unknown scaffold {self.scaffold!r}") from None
        return self


class RLMHarness(vf.Harness[RLMHarnessConfig]):
    """Plays a task of `RLMTaskset` by a scaffold. The context goes into our REPL, never to verifiers or the trace."""

    APPENDS_SYSTEM_PROMPT: ClassVar[bool] = True
    NEEDS_CONTAINER: ClassVar[bool] = False
    EXECUTES_CODE: ClassVar[bool] = False  # not in the runtime of verifiers, which this is about
    SUPPORTS_MCP: ClassVar[bool] = False

    async def launch(
        self,
        ctx: vf.ModelContext,
        trace: vf.Trace,
        runtime: vf.Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: vf.TaskData,
    ) -> vf.ProgramResult:
        """Runs one rollout and leaves it in the trace."""
        if not isinstance(runtime.info, vf.SubprocessConfig):
            raise ValueError('runtime.type must be "subprocess": rollouts run in this process, their code in our REPLs')
        options: dict[str, Any] = {
            "model": ctx.model,
            "base_url": endpoint,
            "api_key": secret,
            "concurrency": self.config.concurrency,
            "timeout": self.config.timeout,
            "retries": 3,
            "supports_tools": self._supports_tools(ctx),
            "history": "verbatim" if isinstance(ctx.client, vf.TrainClientConfig) else "reasoning",
        }
        try:
            if isinstance(data, SubCallData):
                return await self._answer(ctx, trace, data, options)
            if isinstance(data, RLMTaskData):
                return await self._play(ctx, trace, data, options)
        except LLMError as error:
            return vf.ProgramResult(exit_code=FAILED, stdout="", stderr=str(error))
        raise TypeError(f"harness {self.config.id!r} plays tasks of rlm-env environments, not {type(data).__name__}")

    async def _play(
        self, ctx: vf.ModelContext, trace: vf.Trace, data: RLMTaskData, options: dict[str, Any]
    ) -> vf.ProgramResult:
        """One rollout. Raises EngineUnavailable."""
        if data.system_prompt is not None or not isinstance(data.prompt, str):
            raise ValueError("system prompts of verifiers are not taken: harness.rollout.prompt names a prompt file")
        task = replace(await asyncio.to_thread(data.task), question=data.prompt)
        seat = sub_seat.get()
        scaffold = workshop().scaffold(self.config.scaffold, data.source, self._scaffold_options(ctx, seat))
        log = CallLog(trace)
        async with AsyncExitStack() as clients:
            root = await clients.enter_async_context(InterceptedChat("root", log, **options))
            if seat is None:
                sub = await clients.enter_async_context(InterceptedChat("sub", log, **options))
            else:
                tools = self._supports_tools(seat.ctx)
                sub = SeatLLM(seat, supports_tools=tools, concurrency=self.config.concurrency)
            rollout = await scaffold.rollout(task, root, sub, id=trace.id)
        if seat is None and options["supports_tools"] and not (root.supports_tools and sub.supports_tools):
            workshop().without_tools.add(_engine(ctx))
        limit = trace.stop_condition
        if limit is not None and rollout.stop_reason is StopReason.ERROR:
            rollout.stop_reason = LIMITS.get(limit, StopReason.CANCELLED)
            rollout.error = f"verifiers stopped the rollout: {limit}"
        leave_in_trace(trace, rollout, log)
        failed = rollout.stop_reason is StopReason.ERROR
        return vf.ProgramResult(exit_code=FAILED if failed else 0, stdout=rollout.answer, stderr=rollout.error or "")

    async def _answer(
        self, ctx: vf.ModelContext, trace: vf.Trace, data: SubCallData, options: dict[str, Any]
    ) -> vf.ProgramResult:
        """One request to a sub-LLM that has a seat of its own. Raises LLMError."""
        sampling = Sampling(**effective_sampling(ctx, self.config.options().get("sub", {})))
        async with InterceptedChat("sub", CallLog(trace), **options) as llm:
            completion = await llm.complete(data.messages, data.tools or None, sampling)
        cast(SubCallState, trace.state).completion = completion
        return vf.ProgramResult(exit_code=0, stdout=completion.text, stderr="")

    def _scaffold_options(self, ctx: vf.ModelContext, seat: vf.Agent | None) -> dict[str, Any]:
        """The scaffold's configuration with the sampling that the engine really uses."""
        options = self.config.options()
        options["root"] = effective_sampling(ctx, options.get("root", {}))
        options["sub"] = effective_sampling(ctx if seat is None else seat.ctx, options.get("sub", {}))
        return options

    def _supports_tools(self, ctx: vf.ModelContext) -> bool:
        if self.config.tools is not None:
            return self.config.tools
        if isinstance(ctx.client, vf.TrainClientConfig):
            renderer = ctx.client.renderer
            return renderer is not None and _reads_tool_calls(renderer.model_dump())
        return _engine(ctx) not in workshop().without_tools


def leave_in_trace(trace: vf.Trace, rollout: Rollout, log: CallLog) -> None:
    """What verifiers stores of a finished rollout, and in the process the rollout itself."""
    state_of(trace).rollout = rollout
    if "root_reply" in type(trace).model_fields:  # the commit of verifiers that prime-rl pins has none
        trace.root_reply = rollout.answer
    trace.info["rollout"] = rollout_facts(rollout)
    trace.record_metrics(rollout_metrics(rollout))
    if edges := log.edges():
        trace.add_semantic_edges(vf.SemanticEdgeSet(edges=edges))


def _engine(ctx: vf.ModelContext) -> str:
    return f"{ctx.model} at {ctx.client.base_url}"


def _reads_tool_calls(renderer: Mapping[str, Any]) -> bool:
    """Whether a renderer of this configuration finds tool calls in what the model writes. `auto` may fall back to the
    default one, which finds none."""
    return renderer["name"] != "auto" and (renderer["name"] != "default" or renderer.get("tool_parser") is not None)
