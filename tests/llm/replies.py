"""What endpoints send, for tests of the client."""

from __future__ import annotations

import json
from typing import Any

from rlm_env.llm import OpenAIChat
from tests.stub_endpoint import StubEndpoint

HELLO = [{"role": "user", "content": "hello"}]


def said(content: Any = None, finish: str | None = "stop", **message: Any) -> dict[str, Any]:
    """A reply of status 200."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    return {"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}


def call(code: str = "", id: Any = "c1", name: str = "python_repl", arguments: Any = None) -> dict[str, Any]:
    """A tool call as it stands in a reply."""
    arguments = json.dumps({"code": code}) if arguments is None else arguments
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def refusal(words: str, status: int = 400, **error: Any) -> tuple[int, dict[str, Any]]:
    return status, {"error": {"message": words, **error}}


def client(stub: StubEndpoint, **options: Any) -> OpenAIChat:
    """A client that does not wait between its tries."""
    llm = OpenAIChat("m", stub.base_url, **{"retries": 3, **options})
    llm._endpoint._backoff = 0.001
    return llm
