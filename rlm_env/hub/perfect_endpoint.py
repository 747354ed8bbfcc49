"""An OpenAI-compatible endpoint whose model knows the answers: it shows that a package can be evaluated at all."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class PerfectEndpoint:
    """`/v1/chat/completions` on 127.0.0.1, in a thread. `answers` maps a question to its right answer.

    A prompt that holds one of the questions is answered with its answer: as code where the system prompt asks for code,
    else as text. Any other prompt is answered with `ready`.
    """

    def __init__(self, answers: Mapping[str, str]) -> None:
        self.answers = dict(answers)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def reply(self, messages: list[dict[str, Any]]) -> str:
        """The reply to a conversation."""
        said = "\n".join(str(message.get("content")) for message in messages if message.get("role") == "user")
        answer = next((answer for question, answer in self.answers.items() if question in said), None)
        if answer is None:
            return "ready"
        if messages[0].get("role") == "system":
            return f'```repl\nanswer["content"] = {answer!r}\nanswer["ready"] = True\n```'
        return answer

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send({"object": "list", "data": [{"id": "perfect", "object": "model"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                text = endpoint.reply(body["messages"])
                choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
                usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
                self._send({"id": "reply", "object": "chat.completion", "choices": [choice], "usage": usage})

            def _send(self, reply: dict[str, Any]) -> None:
                data = json.dumps(reply).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing: the eval says what it does."""

        return Handler
