"""Runs to look at: evals with a scripted model behind a real endpoint, and files of thousands of rollouts made of them.

The environments, the REPL, the sandbox, the tools and the files are the real ones; only the model is a script.

python scripts/view_material.py FOLDER
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from rich.console import Console

WINDOW = 3_000
"""Words that fit the scripted model's window."""
LOOK = 'lines = context.split("\\n")\nprint(len(lines), "lines")\nprint("\\n".join(lines[:14]))'
DELEGATE = """\
import re

rows = [line for line in lines if "|| Instance:" in line]
names = re.findall(r"'([^']+)'", context[:600])
pieces = [rows[i : i + 20] for i in range(0, len(rows), 20)]
prompts = [
    f"Label each message with one of {', '.join(names)}. One label per line, nothing else.\\n\\n" + "\\n".join(piece)
    for piece in pieces
]
labels = {}
for piece, reply in zip(pieces, llm_batch(prompts)):
    got = reply.split("\\n") if reply else []
    if len(got) == len(piece):
        labels.update(zip(piece, got))
print(len(labels), "of", len(rows), "rows have a label")
answer["content"] = f"{len(labels)} rows are labeled so far"
print(Counter(labels.values()).most_common())"""
MEND = """\
from collections import Counter

left = [row for row in rows if row not in labels]
again = llm_batch([f"Label this message with one of {', '.join(names)}.\\n\\n{row}" for row in left])
labels.update({row: reply for row, reply in zip(left, again) if reply})
counts = Counter(labels[row] for row in rows if row in labels)
for name, count in counts.most_common():
    print(f"{name:32} {count}")"""
GUESS = 'answer["content"] = "Label: " + context.split("\'")[1]\nanswer["ready"] = True'
THOUGHTS = (
    "I cannot see the context, so I look at its first lines before I decide how to cut it.\nIts size is given: too "
    "long to print, short enough to hand out in pieces of twenty lines.",
    "One message per line, with a date, a user and the text. Whether a message belongs to a label needs reading, so I "
    "give that to sub-LLMs, twenty lines each, and ask for one label per line so that it is easy to parse.",
    "Counter was never imported, so the cell failed at its end; the labels are there all the same. Some pieces came "
    "back short or failed. I ask again for what is missing, one row at a time, and count then.",
    "All rows have a label now. The counts are plausible, so I put the answer into the form that was asked for.",
)


def finish(question: str) -> str:
    """The last cell: the answer in the form of the question."""
    if label := re.search(r"label '([^']+)'", question):
        return f'answer["content"] = f"Answer: {{counts[{label[1]!r}]}}"\nanswer["ready"] = True'
    index = -1 if "least common" in question else 0
    return f'answer["content"] = "Label: " + counts.most_common()[{index}][0]\nanswer["ready"] = True'


class ScriptedModel:
    """`/v1/chat/completions` in a thread: a root LLM that works in four turns, sub-LLMs that label or search."""

    def __init__(self, *, delay: float = 0.0, wrong: float = 0.04) -> None:
        """`delay`: seconds of every reply. `wrong`: share of labels that sub-LLMs get wrong."""
        self.delay, self.wrong = delay, wrong
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._phrases: dict[str, str] = {}

    @contextmanager
    def serving(self) -> Iterator[ScriptedModel]:
        """Answers until the block is left."""
        self._thread.start()
        runner = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), self._loop).result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)

    async def _start(self) -> web.AppRunner:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/v1/chat/completions", self._complete)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        return runner

    async def _complete(self, request: web.Request) -> web.Response:
        body = await request.json()
        messages = body["messages"]
        text = " ".join(str(message.get("content")) for message in messages)
        words = len(text.split())
        await asyncio.sleep(self.delay * (0.5 + zlib.crc32(text.encode()) % 100 / 100))
        if words > WINDOW:
            said = f"This model's maximum context length is {WINDOW} tokens. However, your messages resulted in {words}"
            error = {"message": f"{said} tokens.", "code": "context_length_exceeded"}
            return web.json_response({"error": error}, status=400)
        message = self._root(body) if messages[0]["role"] == "system" else self._sub(body)
        if message is None:
            return web.json_response({"error": {"message": "the server had to stop this reply"}}, status=400)
        said = len((str(message["content"]) + str(message.get("reasoning_content", ""))).split())
        said += len(json.dumps(message.get("tool_calls", "")).split())
        usage = {"prompt_tokens": words, "completion_tokens": said, "total_tokens": words + said}
        finish_reason = "tool_calls" if message.get("tool_calls") else "stop"
        choice = {"index": 0, "message": message, "finish_reason": finish_reason}
        return web.json_response({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage})

    def _root(self, body: dict[str, Any]) -> dict[str, Any]:
        messages = body["messages"]
        question = str(messages[1]["content"])
        turn = sum(message["role"] == "assistant" for message in messages)
        kind = zlib.crc32(question.encode()) % 8
        if "In the above data" not in question:
            ask = f'answer["content"] = llm_batch([{question[:400]!r}])[0]\nprint(answer["content"])'
            return _code('answer["ready"] = True', "It is found.", body) if turn else _code(ask, "", body)
        if kind == 0:  # a shortcut
            return _code(GUESS, "The first label is as good as any.", body)
        if kind == 1 and turn > 1:  # never ends
            return _code("print(Counter(labels.values()))", "I look at the counts once more.", body)
        cells = (LOOK, DELEGATE, MEND, finish(question))
        at = min(turn, len(cells) - 1)
        return _code(cells[at], THOUGHTS[at], body)

    def _sub(self, body: dict[str, Any]) -> dict[str, Any] | None:
        messages = body["messages"]
        prompt = str(messages[0]["content"])
        if body.get("tools"):
            return _search(messages)
        if not prompt.startswith("Label "):
            return {"role": "assistant", "content": "Answer: I am not sure"}
        draw = random.Random(prompt)
        if draw.random() < 0.03 and len(messages) == 1 and "each message" in prompt:
            return None
        names = re.search(r"one of (.*?)\. ?(?:One|\n)", prompt)
        labels = names[1].split(", ") if names else ["unknown"]
        lines = [line for line in prompt.split("\n") if "|| Instance:" in line]
        found = [draw.choice(labels) if draw.random() < self.wrong else self._label(line, labels) for line in lines]
        if draw.random() < 0.05:
            found = found[:-1]
        return {"role": "assistant", "content": "\n".join(found)}

    def _label(self, line: str, labels: list[str]) -> str:
        if not self._phrases:
            from oolong_rlm.vocabulary import load_vocabulary

            for name in ("standard", "easy"):
                known = load_vocabulary(name).labels
                self._phrases |= {phrase: label for label, phrases in known.items() for phrase in phrases}
        text = line.split("|| Instance:")[1]
        return next((label for phrase, label in self._phrases.items() if phrase in text and label in labels), labels[0])


def _code(code: str, thoughts: str, body: dict[str, Any]) -> dict[str, Any]:
    """A reply that runs code, by the tool if there is one."""
    thought = {"reasoning_content": thoughts} if thoughts else {}
    if body.get("tools"):
        call = {"name": "python_repl", "arguments": json.dumps({"code": code})}
        calls = [{"id": f"call_{zlib.crc32(code.encode())}", "type": "function", "function": call}]
        return {"role": "assistant", "content": "", "tool_calls": calls, **thought}
    return {"role": "assistant", "content": f"```repl\n{code}\n```", **thought}


def _search(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """A sub-LLM with the tools of deepdive-rlm: it searches, looks through the first page, and answers."""
    results = [str(message["content"]) for message in messages if message["role"] == "tool"]
    question = str(messages[0]["content"])
    if not results:
        call = {"name": "search_web", "arguments": json.dumps({"query": " ".join(question.split()[5:17]), "count": 5})}
    elif len(results) == 1 and (link := re.search(r"https?://\S+", results[0])):
        call = {"name": "scan_page", "arguments": json.dumps({"url": link[0], "find": "person|founder|born"})}
    else:
        title = re.search(r"1\. (.+)", results[0])
        return {"role": "assistant", "content": f"Answer: {title[1] if title else 'unknown'}"}
    calls = [{"id": f"call_{len(results)}", "type": "function", "function": call}]
    return {"role": "assistant", "content": "", "reasoning_content": "I look it up.", "tool_calls": calls}


def make_eval(
    out: Path,
    model: ScriptedModel,
    environment: str = "oolong-rlm",
    *,
    scaffolds: str = "standard,rlm",
    n: int = 12,
    repeats: int = 1,
    **options: Any,
) -> Path:
    """Runs a real eval with the scripted model into `out`."""
    from rlm_env.evals.config import load_eval_config
    from rlm_env.evals.matrix import run_any

    values = {
        "environments": [{"name": environment}],
        "model": "scripted",
        "base_url": model.url,
        "scaffolds": scaffolds,
        "n": n,
        "repeats": repeats,
        "out": str(out),
        "options": options,
        "rollout": {"max_turns": 6, "max_root_tokens": 20_000, "max_seconds": 120.0, "repl": {"preload": []}},
        "concurrency": 4,
    }
    with open("/dev/null", "w") as nowhere, ThreadPoolExecutor(1) as thread:  # the caller may have a loop of its own
        work = run_any(load_eval_config(None, values, "run"), Console(file=nowhere))
        thread.submit(asyncio.run, work).result()
    return out


OOLONG = {"leak": 1.0, "families": ["count", "most_common", "least_common"], "lengths": [1024, 6000]}
"""Options of oolong-rlm whose questions the scripted model understands."""


def multiply(
    source: Path, out: Path, rollouts: int, change: Callable[[dict[str, Any], int], None] | None = None
) -> Path:
    """A folder like `source` with so many rollouts: copies under other tasks, with other scores."""
    out.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in (source / "rollouts.jsonl").read_text().splitlines()]
    draw = random.Random(0)
    with open(out / "rollouts.jsonl", "w", encoding="ascii") as file:
        for index in range(rollouts):
            record = dict(lines[index % len(lines)])
            record["task_id"] = f"eval-{index // len(lines)}-{record['task_id']}"
            record["id"] = f"{record['scaffold']}/{record['task_id']}/0"
            if record["score"] is not None:
                record["score"] = {**record["score"], "value": draw.choice([0.0, 0.25, 0.75, 1.0])}
            if change is not None:
                change(record, index)
            file.write(json.dumps(record, separators=(",", ":")) + "\n")
    (out / "config.toml").write_text((source / "config.toml").read_text())
    if (source / "contexts").is_dir() and not (out / "contexts").exists():
        (out / "contexts").symlink_to((source / "contexts").resolve())
    return out


def main() -> None:
    """Makes an eval of each kind in a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    with ScriptedModel(delay=0.05).serving() as model:
        make_eval(folder / "oolong", model, n=24, **OOLONG)
        make_eval(folder / "deepdive", model, "deepdive-rlm", n=6, scaffolds="rlm")


if __name__ == "__main__":
    main()
