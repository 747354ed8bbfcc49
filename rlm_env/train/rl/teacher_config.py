"""The table `[teacher]`: who teaches in on-policy distillation, and how much that counts.

Asking it is the business of `teacher.py`; the formula is `distilled_advantages` in `rlm_env/train/learner/loss.py`.
"""

from __future__ import annotations

import os
from typing import Self

from pydantic import Field, model_validator

from rlm_env.runs.config_table import Table
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.options import EngineOptions


class TeacherConfig(Table):
    """On-policy distillation: a teacher's log-probabilities of what the policy sampled become advantages."""

    model: str
    """The teacher's name at `base_url`; without one a model folder, `tiny-rlm`, or a Hub id in the local cache, for
    which a vLLM is started on this machine. Its tokenizer must be the policy's."""
    base_url: str | None = None
    """A vLLM, with `/v1`. None: one is started here."""
    key_env: str | None = None
    """Name of the environment variable that holds the endpoint's key (never the key itself)."""
    weight: float = Field(default=1.0, gt=0)
    """Weight of the teacher: each token's advantage gains this times the teacher's log-probability minus the
    policy's."""
    reward_weight: float = Field(default=0.0, ge=0)
    """Weight of the reward's advantage beside it; 0: the teacher alone."""
    concurrency: int = Field(default=8, ge=1)
    """Most requests at once, of up to 64 samples each."""
    timeout: float = Field(default=600.0, gt=0)
    """Seconds for one request."""
    patience: float = Field(default=600.0, ge=0)
    """Seconds for which a teacher that does not answer is asked again. Then the run stops, and can be resumed without
    losing anything."""
    server: EngineOptions = EngineOptions()
    """How the local vLLM is started."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuses keys that have no effect on the kind of engine."""
        if self.base_url is None:
            if self.key_env is not None:
                raise ValueError("key_env is for an endpoint; without base_url a local vLLM is started")
            return self
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url must begin with http:// or https://, got {self.base_url!r}")
        if self.server != EngineOptions():
            raise ValueError("the options of a local vLLM (server) have no effect on the endpoint at base_url")
        return self

    def key(self) -> str | None:
        """The endpoint's key from its environment variable. Raises ConfigError if that is not set."""
        if self.key_env is None:
            return None
        if key := os.environ.get(self.key_env):
            return key
        raise ConfigError(f"teacher.key_env: the environment variable {self.key_env} is not set")
