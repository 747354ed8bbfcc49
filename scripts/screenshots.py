"""Takes the pictures of docs/viewing.md, the viewer on a desk and on a phone, light and dark; that of docs/reports.md.

python scripts/screenshots.py                                # into docs/viewing/; trains tiny-rlm for 8 steps
python scripts/screenshots.py --training outputs/tiny        # with a training run that is there

Needs the extra [browser] and Chromium (scripts/setup.sh full). The evals are made with a scripted model
(`view_material.py`), so the pictures are much the same each time.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from playwright.async_api import Browser, Page, async_playwright

from rlm_env.cli import main as main_command
from rlm_env.view.server import ViewServer
from rlm_env.view.workplace import Workplace
from view_material import OOLONG, ScriptedModel, make_eval

ROOT = Path(__file__).resolve().parents[1]
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
ROLLOUT = "#/run/oolong/rollout/rlm%2Feval-0-21%2F0"
DESK, PHONE = (1280, 800), (390, 780)
COLORS = 256
"""Colors of a picture: they are flat, and small that way."""


async def nothing(page: Page) -> None:
    """The view as it opens."""


async def a_call(page: Page) -> None:
    await page.locator(".call").first.click()
    await page.locator(".drawer .tool").first.wait_for()


async def the_context(page: Page) -> None:
    await page.keyboard.press("c")


async def second_turn(page: Page) -> None:
    await page.keyboard.press("j")
    await page.keyboard.press("j")


async def the_tokens(page: Page) -> None:
    await page.get_by_text("samples, log-probabilities").click()
    await page.locator(".tok").first.wait_for()
    await page.locator(".tokens-fold").scroll_into_view_if_needed()


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture: its name, the address, and what is done before it is taken."""

    name: str
    address: str
    act: Callable[[Page], Awaitable[None]] = nothing
    size: tuple[int, int] = DESK
    dark: bool = False


SHOTS = (
    Shot("run", "#/run/oolong"),
    Shot("tasks", "#/run/oolong?view=tasks", dark=True),
    Shot("rollout", ROLLOUT),
    Shot("turn", ROLLOUT, second_turn, dark=True),
    Shot("call", "#/run/deepdive/rollout/rlm%2Feval-0-1%2F0", a_call),
    Shot("context", ROLLOUT, the_context),
    Shot("phone-run", "#/run/oolong", size=PHONE),
    Shot("phone-rollout", ROLLOUT, second_turn, size=PHONE, dark=True),
)
OF_TRAINING = (
    Shot("training", "#/run/tiny"),
    Shot("tokens", "#/run/tiny/rollout/000003%2F2", the_tokens),
    Shot("group", "#/run/tiny/group/3", dark=True),
)


async def take(browser: Browser, url: str, shot: Shot, folder: Path) -> None:
    """Takes one picture."""
    size = {"width": shot.size[0], "height": shot.size[1]}
    page = await browser.new_page(viewport=size, color_scheme="dark" if shot.dark else "light")
    await page.goto(f"{url}{shot.address}")
    await page.locator("main:not([aria-busy]) h1").wait_for()
    await page.wait_for_load_state("networkidle")
    await shot.act(page)
    await page.wait_for_timeout(400)
    path = folder / f"{shot.name}.png"
    await page.screenshot(path=path)
    await page.close()
    squeeze(path)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def squeeze(path: Path) -> None:
    """Makes a picture small."""
    from PIL import Image

    with Image.open(path) as picture:
        flat = picture.convert("RGB").quantize(COLORS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    flat.save(path, optimize=True)


async def take_report(run: Path, folder: Path) -> None:
    """Takes a picture of the charts and tables of a report."""
    page_file = run / "report.html"
    main_command(["report", str(run), "--html", "--out", str(page_file)])
    async with async_playwright() as started:
        browser = await started.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = await browser.new_page(viewport={"width": DESK[0], "height": 1160})
        await page.goto(page_file.as_uri())
        await page.locator("figure").first.scroll_into_view_if_needed()
        await page.locator("figure").first.evaluate("one => one.scrollIntoView()")
        path = folder / "report.png"
        await page.screenshot(path=path)
        await browser.close()
    squeeze(path)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def chromium() -> str:
    """The browser of this machine."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))


async def take_all(paths: list[Path], shots: tuple[Shot, ...], folder: Path) -> None:
    """Takes the pictures of some runs."""
    server = ViewServer(Workplace(paths))
    async with server.running(), async_playwright() as started:
        browser = await started.chromium.launch(executable_path=chromium(), args=FLAGS)
        for shot in shots:
            await take(browser, server.url, shot, folder)
        await browser.close()


def main() -> None:
    """Makes the runs, then the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "viewing")
    parser.add_argument("--training", type=Path, help="a run of configs/train/tiny.toml (default: one is made)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with ScriptedModel(delay=0.05).serving() as model:
            make_eval(folder / "oolong", model, n=24, **OOLONG)
            make_eval(folder / "lengths", model, n=32, **{**OOLONG, "lengths": [1024, 2048, 4096, 16_384]})
            make_eval(folder / "deepdive", model, "deepdive-rlm", n=6, scaffolds="rlm")
        training = folder / "tiny"
        if arguments.training is not None:
            training.symlink_to(arguments.training.resolve())
        else:
            options = ["--set", "steps=8", "--set", "held_out.every=4", "--set", "held_out.n=16"]
            config = str(ROOT / "configs" / "train" / "tiny.toml")
            command = [sys.executable, "-m", "rlm_env.cli", "train", config, "--out", str(training), *options]
            subprocess.run(command, check=True)
        runs = [folder / "oolong", folder / "deepdive"]
        asyncio.run(take_report(folder / "lengths", arguments.out))
        asyncio.run(take_all(runs, SHOTS, arguments.out))
        asyncio.run(take_all([training], OF_TRAINING, arguments.out))


if __name__ == "__main__":
    main()
