"""`RLMEnv` with one thing changed: the environment's tips in the prompt, or no sub-LLMs."""

from __future__ import annotations

from rlm_env.environment import Environment, environment_name
from rlm_env.repl import ReplPools
from rlm_env.scaffolds.config import RLMConfig
from rlm_env.scaffolds.rlm import RLMEnv


class TipsScaffold(RLMEnv):
    """The scaffold `rlm-tips`: the system prompt ends with the environment's tips, in `<tips>` tags.

    Their hash is recorded in `Rollout.info["tips_sha256"]`; `prompts.strip_tips` takes them out again.
    Raises ValueError for an environment that has none.
    """

    name = "rlm-tips"

    def __init__(
        self, environment: Environment, config: RLMConfig | None = None, *, pools: ReplPools | None = None
    ) -> None:
        if not environment.tips.strip():
            raise ValueError(
                f"{environment_name(environment)} has no tips: set Environment.tips, or use the scaffold rlm"
            )
        super().__init__(environment, (config or RLMConfig()).model_copy(update={"tips": True}), pools=pools)


class NoSubScaffold(RLMEnv):
    """The scaffold `rlm-nosub`: the REPL has no `llm_batch`, and the system prompt does not mention it."""

    name = "rlm-nosub"

    def __init__(
        self, environment: Environment, config: RLMConfig | None = None, *, pools: ReplPools | None = None
    ) -> None:
        super().__init__(environment, (config or RLMConfig()).model_copy(update={"sub_llms": False}), pools=pools)
