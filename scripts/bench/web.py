#!/usr/bin/env python3
"""How fast the small web of deepdive-rlm is made, searched and read, beside the least that could do the same.

    python scripts/bench/web.py [--quick]

One JSON line each: making a web with its search index (pages per second); `search_web` and `open_lines` through tool
loop, HTTP and server, 16 calls at a time (calls per second, and `share_of_floor`: that speed over the speed of bare
HTTP requests to the same server for a page that it does not have); a page that was read before; a `ToolBox` for one
rollout (per second).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable

import aiohttp

from deepdive_rlm import DeepDive
from deepdive_rlm.server import Site
from rlm_env.authoring.draw import Draw
from rlm_env.tools.box import ToolBox, ToolCall

AT_ONCE = 16


async def speed(n: int, ask: Callable[[int], Awaitable[object]]) -> float:
    """Calls per second of `ask(i)` for i below n, so many at once."""
    started = time.perf_counter()
    for start in range(0, n, AT_ONCE):
        await asyncio.gather(*(ask(i) for i in range(start, min(start + AT_ONCE, n))))
    return n / (time.perf_counter() - started)


def show(name: str, rate: float, floor: float | None = None) -> None:
    record: dict[str, object] = {"web": name, "per_second": round(rate, 1)}
    if floor is not None:
        record["share_of_floor"] = round(rate / floor, 3)
    print(json.dumps(record), flush=True)


async def measure(n: int) -> None:
    env = DeepDive()
    task = env.tasks("eval").take(1)[0]
    world = env.source.world(task.info["world"])
    started = time.perf_counter()
    Site(world)
    show("pages made and indexed", len(world.things) / (time.perf_counter() - started))
    box = ToolBox(env.tools(task))
    await box.run([ToolCall("search_web", {"query": "bridge"})])  # starts the server and makes its site
    things = Draw("bench", "web").sample(world.things, n)

    async def call(name: str, **arguments: object) -> None:
        (result,) = await box.run([ToolCall(name, arguments)])
        if result.error is not None:
            raise RuntimeError(result.error)

    async with aiohttp.ClientSession(headers={"Host": world.host}) as session:

        async def bare(i: int) -> None:
            async with session.get(f"http://127.0.0.1:{env.source.server.port}/wiki/none-{i}") as reply:
                await reply.read()

        floor = await speed(n, bare)
    show("bare requests", floor)
    show("search_web", await speed(n, lambda i: call("search_web", query=f"{things[i].name} {things[i].noun}")), floor)
    show("open_lines", await speed(n, lambda i: call("open_lines", url=world.url(things[i]))), floor)
    show("open_lines, read before", await speed(n, lambda i: call("open_lines", url=world.url(things[i]))), floor)
    started = time.perf_counter()
    for _ in range(n):
        ToolBox(env.tools(task))
    show("toolboxes", n / (time.perf_counter() - started))
    await env.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer calls")
    asyncio.run(measure(160 if parser.parse_args().quick else 1600))


if __name__ == "__main__":
    main()
