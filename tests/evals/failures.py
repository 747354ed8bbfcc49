"""The failures of an endpoint that docs/evaluating.md lists, as an endpoint of the tests plays them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from rlm_env.cli import main
from tests.word_count import BARE_REPLS, EvalEndpoint

SMALL_QUESTION = "Reply with the word ready."
MODELS = {"root": "root-model", "sub-LLM": "sub-model", "judge": "judge-model"}
NUMBER_OF_TASKS = 3
Play = Callable[[], web.Response]


def _error(status: int, message: str, **fields: Any) -> Play:
    return lambda: web.json_response({"error": {"message": message, **fields}}, status=status)


def _reply(finish: str, content: str | None = None, **fields: Any) -> Play:
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **fields}, "finish_reason": finish}
    usage = {"prompt_tokens": 9, "completion_tokens": 9}
    return lambda: web.json_response({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage})


PLAYS: dict[str, Play] = {
    "key refused (401)": _error(401, "Incorrect API key provided"),
    "no such model (404)": _error(404, "The model `x` does not exist", code="model_not_found"),
    "quota used up (429)": _error(429, "You exceeded your current quota", code="insufficient_quota"),
    "request refused (400)": _error(400, "this model is out of order"),
    "server error (500)": _error(500, "internal error"),
    "error object in a 200": _error(200, "upstream failed", code=502),
    "reply ends in an error": _reply("error"),
    "reply is not JSON": lambda: web.Response(text="<html>gateway</html>", content_type="text/html"),
    "reply withheld by a filter": _reply("content_filter"),
    "empty reply": _reply("stop", ""),
    "reasoning only": _reply("stop", None, reasoning_content="Let me think."),
    "reply cut off at its limit": _reply("length", ""),
    "prompt too long": _error(
        400,
        "This model's maximum context length is 10 tokens. However, your messages resulted in 900 tokens.",
        code="context_length_exceeded",
    ),
}
"""What the endpoint answers to every question of a role but the first small ones."""
FROM_THE_START = "from the start: "
"""Failures that the first small question meets too."""


def play(endpoint: EvalEndpoint, failure: str, role: str, scaffold: str) -> tuple[str, int, str]:
    """Evaluates `scaffold` while `role` fails; returns outcomes, exit code, and whether they are in the mean."""
    at_once = failure.startswith(FROM_THE_START)
    answer = PLAYS[failure.removeprefix(FROM_THE_START)]
    asked = 0

    def fail(body: dict[str, Any]) -> web.Response | None:
        nonlocal asked
        if body["model"] != MODELS[role]:
            return None
        asked += 1
        spared = body["messages"][-1]["content"] == SMALL_QUESTION or (role == "judge" and asked <= 2)
        return None if spared and not at_once else answer()

    endpoint.answer = fail
    flags = ["--base-url", endpoint.url, "--model", MODELS["root"], "--sub-model", MODELS["sub-LLM"], "--out", "out"]
    flags += ["--judge-model", MODELS["judge"]] * (role == "judge")
    flags += ["-n", str(NUMBER_OF_TASKS), "--scaffolds", scaffold, "--no-baselines", "--concurrency", "1"]
    flags += ["--set", "rollout.max_turns=4", "--set", "options.lengths=[200]", *BARE_REPLS]
    if scaffold == "summary":  # notes of the sub-LLM are needed only where the context does not fit
        flags += ["--set", "rollout.summary.window=300", "--set", "rollout.summary.root.max_tokens=20"]
    code = main(["eval", "word-count", *flags])
    summary = json.loads(Path("out/summary.json").read_text()) if Path("out/summary.json").exists() else {}
    [group] = summary.get("scaffolds") or [{"outcomes": {}, "scored": 0}]
    outcomes = ", ".join(name for name, count in group["outcomes"].items() if count) or "none"
    return outcomes, code, "yes" if group["scored"] else "no"
