"""Stops a run that fails in the same way over and over, so that nothing more is paid for it.

What is counted is rollouts that end one after the other in equal errors. A few are enough where the endpoint refuses
(key, model, quota) or where every sub-call failed; of other errors more are needed, and not one rollout that ended
well.
"""

from __future__ import annotations

import re
from collections import defaultdict

from rlm_env.evals.outcomes import SUB_CALLS_FAILED, Outcome
from rlm_env.evals.rollout_stats import RolloutStats
from rlm_env.repl.bounds import first_line
from rlm_env.runs.errors import RunStopped

REFUSALS = 3
"""Equal refusals in a row, of one scaffold, that end a run."""
ERRORS = 10
"""Other equal errors in a row, before anything has ended well, that end a run."""
REFUSED = re.compile(
    r"answered 40[1-4]\b|insufficient[_ ]quota|(?:exceeded|out of) (?:your |the )?(?:current )?(?:quota|credit)|"
    r"(?:invalid|incorrect|missing) api key|model\S* .*(?:does not exist|not found)",
    re.IGNORECASE,
)
CHANGING = re.compile(r"[0-9a-f]{8,}|\d+", re.IGNORECASE)
"""Numbers and ids, in which two messages of the same error may differ."""


class Guard:
    """Watches the rollouts of a run as they end. The errors of scaffolds are counted apart."""

    def __init__(self) -> None:
        self._errors: dict[str, list[str]] = defaultdict(list)
        """Scaffold -> its latest errors, all equal."""
        self._well = False
        """Some rollout has ended well."""

    def add(self, stats: RolloutStats) -> None:
        """Raises RunStopped if the run makes no sense any more."""
        row = self._errors[stats.scaffold]
        if stats.outcome is not Outcome.ERROR:
            self._well = True
            row.clear()
            return
        error = first_line(stats.error or "")
        if row and CHANGING.sub("", row[-1]) != CHANGING.sub("", error):
            row.clear()
        row.append(error)
        refused = REFUSED.search(error) or error.startswith(SUB_CALLS_FAILED)
        if (refused and len(row) >= REFUSALS) or (not self._well and len(row) >= ERRORS):
            raise RunStopped(
                "repeated errors", f"{len(row)} rollouts of {stats.scaffold} in a row failed alike: {error}", 3
            )
