"""The environment of verifiers that plays our tasks: one seat, `agent`; or two, where sub-calls are runs of `sub`.

With one seat, root and sub-calls are one trace: both are sampled by the run's model, and both are trained. With
`separate_sub`, each request of a sub-LLM is a trace of its own, of another model or another sampling if the seat says
so, and is not trained unless `train_sub` is on.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, cast

import verifiers.v1 as vf
from pydantic import ConfigDict, Field, model_validator

from rlm_env.adapters.verifiers.workshop import claim_workshop, release_workshop
from rlm_env.llm.base import LLM, LLMError, Sampling, ToolSchema
from rlm_env.messages import Completion, Message

sub_seat: ContextVar[vf.Agent | None] = ContextVar("the seat of sub-LLMs in the current episode", default=None)


class RLMSeatsEnvConfig(vf.SingleAgentEnvConfig):
    """The seats. Both run in this process, so neither needs another runtime than `subprocess`."""

    agent: vf.AgentConfig = vf.AgentConfig(runtime=vf.SubprocessConfig())
    """The root LLM, and unless `separate_sub` is on the sub-LLMs."""
    sub: vf.AgentConfig = vf.AgentConfig(runtime=vf.SubprocessConfig())
    """The sub-LLMs, where they have a seat of their own: `model`, `client`, `sampling`."""
    separate_sub: bool = False
    """Sub-calls are runs of the seat `sub`, each with a trace."""
    train_sub: bool = False
    """Whether traces of the seat `sub` are trained. GRPO in prime-rl then counts them into the group's baseline."""
    max_concurrent_agents: int | None = Field(default=None, ge=1)
    """Seats of one episode that may run at once. A limit of 1 would let the root wait for its sub-calls forever."""

    @model_validator(mode="before")
    @classmethod
    def _name_harnesses(cls, data: Any) -> Any:
        """A seat's harness is the taskset's own unless it is named: verifiers would take settings of a harness without
        an id for settings of `bash`, and refuse them."""
        taskset = data.get("taskset") if isinstance(data, dict) else None
        own = taskset.get("id") if isinstance(taskset, dict) else getattr(taskset, "id", None)
        if not own:
            return data
        seats = {
            name: {**seat, "harness": {"id": own, **seat["harness"]}}
            for name in ("agent", "sub")
            if isinstance(seat := data.get(name), dict) and isinstance(seat.get("harness"), dict)
        }
        return {**data, **seats}


class SubCallData(vf.TaskData):
    """One request to a sub-LLM."""

    messages: list[dict[str, Any]] = Field(default_factory=list)
    tools: list[dict[str, Any]] = Field(default_factory=list)


class SubCallState(vf.State):
    """The reply, in the process that asked."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    completion: Completion | None = None


class SubCallTask(vf.Task[SubCallData, SubCallState, vf.TaskConfig]):
    """One request to a sub-LLM. It has no score of its own."""


class SeatLLM(LLM):
    """A sub-LLM whose requests are runs of a seat."""

    def __init__(self, agent: vf.Agent, *, supports_tools: bool, concurrency: int) -> None:
        self.name = agent.ctx.model
        self.supports_tools = supports_tools
        self.concurrency = concurrency
        self._agent = agent

    async def complete(
        self, messages: list[Message], tools: list[ToolSchema] | None = None, sampling: Sampling | None = None
    ) -> Completion:
        """`sampling` is left to the seat."""
        request = {"prompt": str(messages[-1]["content"]), "messages": messages, "tools": tools or []}
        trace = await self._agent.run(cast(Any, SubCallTask(SubCallData.model_validate(request))))
        completion = cast(SubCallState, trace.state).completion
        if completion is None:
            raise LLMError(trace.errors[-1].message if trace.errors else f"no reply ({trace.stop_condition})")
        return completion


class RLMSeatsEnv(vf.SingleAgentEnv, vf.Env[RLMSeatsEnvConfig]):  # pyright: ignore[reportGeneralTypeIssues]
    """Plays one task by the seat `agent`, and where asked its sub-calls by the seat `sub`."""

    config: RLMSeatsEnvConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    _claimed = False

    async def setup(self, agents: vf.Agents) -> None:
        agents.sub.trainable = self.config.train_sub

    async def run(self, task: vf.Task, agents: vf.Agents) -> None:
        limit = self.config.max_concurrent_agents
        if self.config.separate_sub and limit is not None and limit < 2:
            raise ValueError("max_concurrent_agents must be above 1 with separate_sub: the root waits for sub-calls")
        token = sub_seat.set(agents.sub if self.config.separate_sub else None)
        try:
            await agents.agent.run(task)
        finally:
            sub_seat.reset(token)

    async def start(self) -> None:
        claim_workshop()
        self._claimed = True

    async def stop(self) -> None:
        if self._claimed:
            self._claimed = False
            await release_workshop()
