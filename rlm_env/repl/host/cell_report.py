"""A REPL's report of a cell that ended: its types are checked here, its contents are claims."""

from __future__ import annotations

from typing import NamedTuple

from rlm_env.repl.wire import ProtocolError, Scalar

REPORT_FIELDS = 8
"""Fields of a report, the longest frame on the control socket."""
_MOST = 2**53
"""Upper limit of counts of characters: every reader of JSON can hold it exactly."""


class CellReport(NamedTuple):
    """What a "done" frame says."""

    output: str
    total: int
    """Characters that were written, of which `output` is head and tail."""
    error: str | None
    content: str | None
    """The answer's content; None where it has not changed."""
    ready: bool
    cut: int
    """Characters that `content` lacks."""


def cell_report(fields: list[Scalar]) -> CellReport:
    """The report in a "done" frame. ProtocolError where a field is missing or of another type."""
    # Not a `match`, which takes eight times as long, in every step.
    if len(fields) == REPORT_FIELDS:
        _kind, _number, output, total, error, content, ready, cut = fields
        if (
            isinstance(output, str)
            and isinstance(total, int)
            and 0 <= total < _MOST
            and (error is None or isinstance(error, str))
            and (content is None or isinstance(content, str))
            and isinstance(ready, bool)
            and isinstance(cut, int)
            and cut < _MOST
        ):
            return CellReport(output, total, error, content, ready, cut)
    raise ProtocolError("a report with fields of other types")
