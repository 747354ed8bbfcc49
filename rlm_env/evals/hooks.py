"""What a program hands to an eval that a config file cannot hold: environments that are objects, and callbacks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rlm_env.environment import Environment
from rlm_env.events import OnEvent
from rlm_env.rollout import Rollout

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hooks:
    """Environments by name, which are used as they are, and whom to tell what happens."""

    environments: Mapping[str, Environment] = field(default_factory=dict)
    on_rollout: Callable[[Rollout], None] | None = None
    """Called with each rollout when it is scored and stored."""
    on_event: OnEvent | None = None
    """Called with the events of every rollout while it runs; `Event.rollout_id` tells them apart."""
    pilot: bool = False
    """The run is the pilot of a larger one (`dry_run.py`)."""

    def ended(self, rollout: Rollout) -> None:
        """Tells of a rollout. A callback that raises is logged: it costs no rollout that is paid for."""
        if self.on_rollout is not None:
            try:
                self.on_rollout(rollout)
            except Exception:
                log.exception("on_rollout raised for the rollout %s", rollout.id)


NO_HOOKS = Hooks()
