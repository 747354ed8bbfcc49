"""Two evals of the same tasks and a training run, made once a module; the second eval answers worse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
import tomli_w
from aiohttp import web

from rlm_env.cli import main
from tests.view.training_run import make_training
from tests.word_count import BARE_REPLS, ENVIRONMENT, PROJECT, EvalEndpoint

HOSTILE = "</title><script>alert(1)</script>\"'&$\\input{x}%_#~^|`*[b]"
"""A model's name; it means something in HTML, LaTeX, Markdown and on the console."""
PRICES = {model: {"prompt": 1.0, "completion": 2.0} for model in ("stub", HOSTILE)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the runs `good`, `bad` and `trained`."""
    place = tmp_path_factory.mktemp("reports")
    package = place / "environments" / "word_count"
    package.mkdir(parents=True)
    (package / "pyproject.toml").write_text(PROJECT)
    (package / "rlm_env_test_word_count.py").write_text(dedent(ENVIRONMENT))
    (place / "prices.toml").write_text(tomli_w.dumps(PRICES))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        endpoint = EvalEndpoint().start()
        try:
            evaluate(endpoint, "good", "stub")
            endpoint.answer = wrong
            evaluate(endpoint, "bad", HOSTILE)
        finally:
            endpoint.end()
        make_training(place / "trained")
        yield place


def evaluate(endpoint: EvalEndpoint, out: str, model: str) -> None:
    where = ["--model", model, "--base-url", endpoint.url.replace("://", "://user:secret@"), "--out", out]
    assert main(["eval", "word-count", *where, "-n", "6", "--prices", "prices.toml", *BARE_REPLS]) == 0


def wrong(body: dict) -> web.Response | None:
    """The root LLM of the REPL reads the context and guesses."""
    if body["messages"][0]["role"] != "system":
        return None
    text = '```repl\nprint(context[:40])\nanswer["content"] = "0"\nanswer["ready"] = True\n```'
    usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return web.json_response({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage})
