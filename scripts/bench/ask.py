#!/usr/bin/env python3
"""From `rlm_env.ask` on a folder to the first turn, beside a floor that only reads the same files.

    python scripts/bench/ask.py [--quick]

A folder of 2,000 small files in 40 subfolders (--quick: 200 in 4) with a .gitignore; a stub endpoint on 127.0.0.1 that
answers at once. Steps: files are chosen and read, the REPL's pool is started, the context goes into it, the first reply
comes. The floor walks the folder and reads the files. Medians of five runs in turn; one JSON object a line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

from aiohttp import web

import rlm_env
from rlm_env.asking.documents import read_documents
from rlm_env.events import CodeStarted, Event, TurnReplied

REPLY = '```repl\nanswer["content"] = str(len(context))\nanswer["ready"] = True\n```'


def make_folder(root: Path, files: int) -> None:
    """A folder of small texts, a twentieth of them ignored by git."""
    (root / ".git").mkdir()
    (root / ".gitignore").write_text("*.log\n")
    for number in range(files):
        folder = root / f"part{number % max(1, files // 50)}"
        folder.mkdir(exist_ok=True)
        suffix = "log" if number % 20 == 0 else "txt"
        (folder / f"{number}.{suffix}").write_text(f"file {number}\n" + "some text of a line\n" * 40)


async def complete(request: web.Request) -> web.Response:
    """The stub's only answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": REPLY}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return web.json_response({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage})


def floor(root: Path) -> float:
    """Seconds to read every file."""
    start = time.perf_counter()
    for path in root.rglob("*"):
        if path.is_file():
            path.read_text()
    return time.perf_counter() - start


def reading(root: Path) -> float:
    """Seconds until the files that a model may read are in memory."""
    start = time.perf_counter()
    read_documents([root])
    return time.perf_counter() - start


async def asking(root: Path, url: str) -> dict[str, float]:
    """Seconds to the first reply, to the first cell, and to the answer."""
    start = time.perf_counter()
    at: dict[str, float] = {}

    def listen(event: Event) -> None:
        if isinstance(event, TurnReplied | CodeStarted):
            at.setdefault(type(event).__name__, time.perf_counter() - start)

    rollout = await rlm_env.ask("How many files?", root, model="stub", base_url=url, on_event=listen)
    assert rollout.answer, rollout.error
    return {"first_turn": at["TurnReplied"], "first_cell": at["CodeStarted"], "answer": time.perf_counter() - start}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200 files and three runs")
    quick = parser.parse_args().quick
    app = web.Application(client_max_size=1 << 28)
    app.router.add_post("/v1/chat/completions", complete)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    files = 200 if quick else 2000
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_folder(root, files)
        for _ in range(3 if quick else 5):
            seconds.setdefault("floor", []).append(floor(root))
            seconds.setdefault("reading", []).append(reading(root))
            for name, value in (await asking(root, url)).items():
                seconds.setdefault(name, []).append(value)
    await runner.cleanup()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in medians.items():
        ratio = value / medians["floor"]
        print(
            json.dumps(
                {"bench": "ask", "files": files, "step": name, "median_s": round(value, 4), "ratio": round(ratio, 2)}
            )
        )


if __name__ == "__main__":
    asyncio.run(main())
