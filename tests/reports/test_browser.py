"""The page of a report in a real browser: nothing in it runs, nothing is loaded, and it is readable by all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rlm_env.cli import main
from tests.view.conftest import browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["browser"]
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_runs_nothing_loads_nothing_and_is_readable(runs: Path, browser: Browser, scheme: str):
    """The runs are made before the browser is opened, which takes this thread's event loop."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    assert main(["report", "good", "bad", "trained", "--html", "--out", "page.html"]) == 0
    address = (runs / "page.html").as_uri()
    told: list[str] = []
    with browser.new_context(color_scheme=scheme, viewport={"width": 390, "height": 800}) as context:
        page = context.new_page()
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("dialog", lambda dialog: told.append(dialog.message))
        page.on("request", lambda request: told.extend([request.url] if request.url != address else []))
        page.goto(address)
        assert told == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.locator("figure svg").count() >= 8
        before = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (before == "rgb(255, 255, 255)") == (scheme == "light")
        page.locator("summary").first.focus()
        page.keyboard.press("Enter")
        assert page.locator("details[open] pre").is_visible()
    with browser.new_context(color_scheme=scheme, bypass_csp=True) as context:
        page = context.new_page()
        page.goto(address)
        assert [(one["id"], one["nodes"][0]["html"]) for one in axe.run(page).response["violations"]] == []
