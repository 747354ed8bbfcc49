"""Measures of a rollout's searches and pages, from its record. They are metrics and not part of the reward.

The tool calls of root and sub-LLMs count alike.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urldefrag

from rlm_env.rollout import Rollout, ToolResult
from rlm_env.tools.box import tool_results
from rlm_rewards import deepdive


def metrics(rollout: Rollout, evidence: Sequence[str] | None) -> dict[str, float]:
    """`searches`, `pages_opened` (different ones) and `redundancy` of the queries. Given the addresses of the evidence
    in the order of the walk, also `evidence_recall` (share of them that was opened) and `hop_coverage` (share of the
    walk that was opened without a gap from its start)."""
    queries, opened = [], set()
    for result in tool_results(rollout):
        arguments = _arguments(result)
        if result.name == "search_web" and isinstance(arguments.get("query"), str):
            queries.append(arguments["query"])
        elif result.name in ("scan_page", "open_lines") and result.error is None:
            opened.add(_address(arguments.get("url")))
    found = {
        "searches": float(len(queries)),
        "pages_opened": float(len(opened)),
        "redundancy": deepdive.redundancy(queries),
    }
    if evidence:
        hits = [_address(url) in opened for url in evidence]
        whole = hits.index(False) if False in hits else len(hits)
        found |= {"evidence_recall": sum(hits) / len(hits), "hop_coverage": whole / len(hits)}
    return found


def _arguments(result: ToolResult) -> dict[str, Any]:
    try:
        arguments = json.loads(result.arguments)
    except (ValueError, RecursionError):
        return {}
    return arguments if isinstance(arguments, dict) else {}


def _address(url: Any) -> str:
    return urldefrag(url)[0].rstrip("/") if isinstance(url, str) else ""
