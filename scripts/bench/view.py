"""What the viewer costs with many rollouts: until a table is seen, filtered, scrolled, a rollout and a context opened.

python scripts/bench/view.py              # 10,000 rollouts, a context of 100 MB
python scripts/bench/view.py --quick      # 500 rollouts, a context of 2 MB
python scripts/bench/view.py --inspect    # beside `inspect view`, on the same rollouts as `rlm-env export` writes them

One JSON object a line. Milliseconds are a headless Chromium's on this machine, the best of three openings; server and
browser share its cores. `again_ms`: opened a second time, when the server has read the run. Needs the extras [browser]
and [inspect], and Chromium (scripts/setup.sh full).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from playwright.async_api import Browser, Page, async_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rlm_env.cli import main as cli
from rlm_env.contexts import CONTEXTS, ContextStore
from rlm_env.rollout import Rollout, SubCall, Turn
from rlm_env.view.server import ViewServer
from rlm_env.view.workplace import Workplace
from view_material import OOLONG, ScriptedModel, make_eval, multiply

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
HOST, INSPECT_PORT = "127.0.0.1", 7999
PATIENCE = 600_000
"""Milliseconds after which a step has hung: far above what any takes on a busy machine."""
ROWS = ".grid .row:not(.head)"
NOTES = """
window.times = {};
const seen = (name, selector, test) => new MutationObserver((changes, observer) => {
  const node = document.querySelector(selector);
  if (node && (!test || test(node))) { window.times[name] = performance.now(); observer.disconnect(); }
}).observe(document, { childList: true, subtree: true, characterData: true });
seen("first rows", ".grid .row:not(.head)");
seen("all rows", ".title-line", (node) => node.textContent.includes(window.wanted));
seen("scores with intervals", ".card .value");
"""
FILTER = """async (text) => {
  const input = document.getElementById("search"), start = performance.now();
  input.value = text;
  input.dispatchEvent(new Event("input"));
  await new Promise(requestAnimationFrame);
  return performance.now() - start;
}"""
SORT = """async () => {
  const start = performance.now();
  document.querySelector(".head .c-tokens button").click();
  await new Promise(requestAnimationFrame);
  return performance.now() - start;
}"""
SCROLL = """async () => {
  let longest = 0, before = performance.now();
  for (let step = 1; step <= 120; step += 1) {
    document.scrollingElement.scrollTop = (document.scrollingElement.scrollHeight * step) / 120;
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    longest = Math.max(longest, now - before);
    before = now;
  }
  return longest;
}"""


def report(step: str, milliseconds: float, viewer: str = "rlm-env view", **more: float) -> None:
    """Prints one figure."""
    times = {name: round(value, 1) for name, value in {"ms": milliseconds, **more}.items()}
    print(json.dumps({"bench": "view", "viewer": viewer, "step": step} | times), flush=True)


async def new_page(browser: Browser) -> Page:
    page = await browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(PATIENCE)
    return page


async def listening(port: int) -> None:
    """Waits until a server listens at a port. Raises TimeoutError where none does."""
    async with asyncio.timeout(PATIENCE / 1000):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(HOST, port)
                writer.close()
                return
            await asyncio.sleep(0.2)


async def opening(page: Page, url: str, rollouts: int) -> dict[str, float]:
    """Opens the run in a new page; milliseconds since the page was asked for."""
    await page.add_init_script(f"window.wanted = '{rollouts:,} of';{NOTES}")
    await page.goto(url)
    await page.locator(".title-line", has_text=f"{rollouts:,} of").wait_for()
    await page.locator(".card .value").first.wait_for()
    paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    return {"first paint": await page.evaluate(paint), **await page.evaluate("window.times")}


async def timed(page: Page, act: str, selector: str) -> float:
    """Milliseconds from a click until something is visible."""
    start = time.perf_counter()
    await page.locator(act).first.click(position={"x": 6, "y": 6})
    await page.locator(selector).first.wait_for()
    return 1000 * (time.perf_counter() - start)


async def look_everywhere(page: Page, rollouts: int) -> float:
    """Milliseconds to look for a word that occurs nowhere through everything that the rollouts hold."""
    search, everything = page.get_by_label("Filter by text"), page.get_by_role("button", name="in everything")
    start = time.perf_counter()
    await everything.click()
    await search.fill("nowhere-at-all")
    await page.get_by_text(f"0 of {rollouts:,} rollouts", exact=True).wait_for()
    took = 1000 * (time.perf_counter() - start)
    await everything.click()
    await search.fill("")
    return took


def long_context(folder: Path, megabytes: int) -> Path:
    """A run of one rollout whose 50 sub-calls read a context of so many million characters."""
    folder.mkdir()
    line = "entry {:09} says something that nobody else has said about the number {:09}\n"
    text = "".join(line.format(n, n * 7919 % 10**9) for n in range(megabytes * 10**6 // len(line.format(0, 0))))
    size = len(text) // 50
    calls = [
        SubCall(id=i, root_turn=0, batch=0, messages=[{"role": "user", "content": text[i * size : (i + 1) * size]}])
        for i in range(50)
    ]
    rollout = Rollout("long", "long", question="How long?", turns=[Turn(text="x")], sub_calls=calls, context=text)
    (folder / "rollouts.jsonl").write_text(rollout.to_json(ContextStore(folder / CONTEXTS)) + "\n")
    return folder


async def measure(large: Path, long: Path, rollouts: int, megabytes: int) -> None:
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    async with async_playwright() as started:
        browser = await started.chromium.launch(executable_path=program, args=FLAGS)
        size = (large / "rollouts.jsonl").stat().st_size / 1e6
        facts = {"rollouts": rollouts, "megabytes": round(size), "long_context_megabytes": megabytes}
        print(json.dumps({"bench": "view", **facts}), flush=True)
        found: list[dict[str, float]] = []
        for _ in range(3):
            server = ViewServer(Workplace([large]))  # a new one: nothing is indexed
            async with server.running():
                page = await new_page(browser)
                found.append(await opening(page, server.url, rollouts))
                if len(found) == 3:
                    again = await new_page(browser)
                    found_again = await opening(again, server.url, rollouts)
                    for name in found[0]:
                        report(name, min(one[name] for one in found), again_ms=found_again[name])
                    report("filter by text", await again.evaluate(FILTER, "eval-7 rlm/"))
                    report("filter by text, once more", await again.evaluate(FILTER, "answer music"))
                    await again.evaluate(FILTER, "")
                    report("text in everything", await look_everywhere(again, rollouts))
                    report("sort", await again.evaluate(SORT))
                    report("longest frame of scrolling", await again.evaluate(SCROLL))
                    await again.evaluate("window.scrollTo(0, 0)")
                    await again.locator(ROWS).first.wait_for()
                    report("open a rollout", await timed(again, ROWS, ".rollout-head"))
        server = ViewServer(Workplace([long]))
        async with server.running():
            page = await new_page(browser)
            await page.goto(server.url)
            await page.locator(ROWS).first.wait_for()
            report("open a rollout with a long context", await timed(page, ROWS, ".coverage-sum"))
            report("its context", await timed(page, "text=Open the context", "mark.by-sub"))
            after = ".drawer-tools button:last-child"
            report("another place of it", await timed(page, after, "mark.by-sub"))
        await browser.close()


async def measure_inspect(logs: Path) -> None:
    """The same steps in `inspect view`: its list of logs, the samples of the first log, one sample."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    command = ["inspect", "view", "--log-dir", str(logs), "--host", HOST, "--port", str(INSPECT_PORT)]
    quiet = asyncio.subprocess.DEVNULL
    viewer = await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet)
    try:
        await listening(INSPECT_PORT)
        async with async_playwright() as started:
            browser = await started.chromium.launch(executable_path=program, args=FLAGS)
            found: dict[str, list[float]] = {"its list of logs": [], "and the samples": [], "open a sample": []}
            for _ in range(3):
                page = await new_page(browser)
                start = time.perf_counter()
                await page.goto(f"http://{HOST}:{INSPECT_PORT}/")
                await page.get_by_text("oolong-rlm").first.wait_for()
                found["its list of logs"].append(1000 * (time.perf_counter() - start))
                found["and the samples"].append(await timed(page, "text=oolong-rlm", "text=In the above data"))
                found["open a sample"].append(await timed(page, "text=In the above data", "text=Transcript"))
                await page.close()
            for name, times in found.items():
                report(name, min(times), viewer="inspect view")
            await browser.close()
    finally:
        viewer.terminate()
        await viewer.wait()


def main() -> None:
    """Makes the runs and prints the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="500 rollouts, a context of 2 MB")
    parser.add_argument("--rollouts", type=int, help="default: 10,000")
    parser.add_argument("--megabytes", type=int, help="size of the long context; default: 100")
    parser.add_argument("--inspect", action="store_true", help="also `inspect view`, on an export of the same rollouts")
    arguments = parser.parse_args()
    rollouts = arguments.rollouts or (500 if arguments.quick else 10_000)
    megabytes = arguments.megabytes or (2 if arguments.quick else 100)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with ScriptedModel().serving() as model:
            source = make_eval(folder / "source", model, n=12, **OOLONG)
        large = multiply(source, folder / "large", rollouts)
        long = long_context(folder / "long", megabytes)
        asyncio.run(measure(large, long, rollouts, megabytes))
        if arguments.inspect:
            logs = folder / "logs"
            with contextlib.redirect_stdout(sys.stderr):
                assert cli(["export", str(large), "--to", "inspect", "--out", str(logs)]) == 0
            asyncio.run(measure_inspect(logs))


if __name__ == "__main__":
    main()
