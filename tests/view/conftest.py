"""Runs to look at: an eval with a scripted model, made once a session by the real code, and copies of it."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rlm_env.view.api import Api
from rlm_env.view.server import ViewServer
from rlm_env.view.workplace import Workplace
from tests.view.training_run import make_training
from view_material import OOLONG, ScriptedModel, make_eval

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="session")
def eval_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an eval: 6 tasks in two scaffolds, with failed sub-calls, an overflow and an exhausted budget."""
    with ScriptedModel().serving() as model:
        return make_eval(tmp_path_factory.mktemp("runs") / "scripted", model, n=6, **OOLONG)


@pytest.fixture
def api(eval_run: Path) -> Api:
    return Api(Workplace([eval_run]))


def all_rows(api: Api, name: str) -> list[dict]:
    """The rows of a run, asked for as the page does."""
    answer = api.get(["runs", name, "rows"], {})
    rows = answer["rows"]
    while answer["more"]:
        answer = api.get(["runs", name, "rows"], {"after": answer["after"]})
        rows += answer["rows"]
    return rows


CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
FLAGS += ["--disable-component-update", "--disable-quic"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium of this machine. Until it is closed, this thread can run no event loop of its own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'rlm-env[browser]'")
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        pytest.skip("no Chromium on this machine: sudo apt-get install chromium")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=FLAGS)
        yield opened
        opened.close()


OPEN_ALL = "document.querySelectorAll('main details').forEach((one) => (one.open = true))"


class Served:
    """A viewer's server in a thread, and pages of it."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.closing: list[Callable[[], None]] = []
        self.complaints: list[str] = []
        """What pages wrote to their console, and their errors."""

    def serve(self, *paths: Path) -> str:
        """Serves the runs at these paths; returns the address with the secret."""
        server = ViewServer(Workplace(paths))
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        running = server.running()
        asyncio.run_coroutine_threadsafe(running.__aenter__(), loop).result(20)

        def close() -> None:
            asyncio.run_coroutine_threadsafe(running.__aexit__(None, None, None), loop).result(20)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(20)

        self.closing.append(close)
        return server.url

    def page(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False, **options: Any) -> Page:
        """A page of a new browser profile at an address."""
        scheme = "dark" if dark else "light"
        context = self.browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **options)
        self.closing.insert(0, context.close)
        context.set_default_timeout(15_000)
        page = context.new_page()
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(url)
        return page


@pytest.fixture
def served(browser: Browser) -> Iterator[Served]:
    """Servers and pages that are closed at the end, and wrote nothing to the console."""
    made = Served(browser)
    yield made
    for close in made.closing:
        close()
    assert made.complaints == []


@pytest.fixture(scope="session")
def train_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training run: three groups of four, one of them dropped, and an evaluation before and after."""
    return make_training(tmp_path_factory.mktemp("training") / "run")
