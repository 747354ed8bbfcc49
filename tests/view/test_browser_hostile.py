"""Whatever a model wrote stays text: scripts are planted in every text of every record, and none runs."""

from __future__ import annotations

import json
import re

import pytest

from rlm_env.view.export import export_page
from rlm_env.view.workplace import Workplace
from tests.view.conftest import OPEN_ALL

pytestmark = pytest.mark.slow
PAYLOAD = (
    '"><img src=x onerror="window.pwned=1"><script>window.pwned=1</script><svg onload="window.pwned=1">'
    "</script></title></textarea><a href='javascript:window.pwned=1'>x</a>${window.pwned=1}{{window.pwned=1}}"
)
STEERING = "\u202e\u2066\x1b[2J\x9b\0\ud800"
"""Turns text around, steers terminals, cannot be encoded."""
KEPT = ("schema", "stop_reason", "role", "finish_reason", "type")


def planted(value, key=""):
    """The value with the payload in front of every text in it, names of metrics and facts included."""
    if isinstance(value, str):
        return value if key in KEPT else PAYLOAD + STEERING + value
    if isinstance(value, dict):
        named = key in ("metrics", "info", "task")
        return {PAYLOAD + name if named else name: planted(item, name) for name, item in value.items()}
    return [planted(item, key) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def hostile_run(eval_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "<img src=x onerror=window.pwned=1>"
    folder.mkdir()
    with open(folder / "rollouts.jsonl", "w") as out:
        for line in (eval_run / "rollouts.jsonl").read_text().splitlines():
            record = json.loads(line)
            scaffold, context = record["scaffold"], record.get("context")
            record = planted(record)
            record["info"] = {"repeat": 0, **record["info"]}
            record["scaffold"] = scaffold
            if context is not None:
                record["context"] = context
            out.write(json.dumps(record) + "\n")
    config = (eval_run / "config.toml").read_text()
    (folder / "config.toml").write_text(config.replace('model = "scripted"', f"model = {json.dumps(PAYLOAD)}", 1))
    (folder / "contexts").symlink_to(eval_run / "contexts")
    return folder


def look_at_everything(page, start: str) -> None:
    """Opens every view of the first run, and everything that can be opened in a rollout."""
    page.goto(start)
    page.locator(".grid .row:not(.head)").first.wait_for()
    page.get_by_label("Filter by text").fill(PAYLOAD.lower()[:60])
    for tab in ("By task", "All numbers", "Rollouts"):
        page.get_by_role("button", name=tab).click()
    page.get_by_label("Filter by text").fill("")
    page.get_by_label("Filter by scaffold").select_option("rlm")
    page.locator(".c-turns", has_text=re.compile("^4$")).first.click()
    page.locator("article.turn").first.wait_for()
    page.evaluate(OPEN_ALL)
    page.locator(".call").first.click()
    drawer = page.get_by_role("dialog")
    drawer.wait_for()
    assert PAYLOAD in drawer.inner_text()
    page.keyboard.press("Escape")
    page.keyboard.press("c")
    drawer.wait_for()
    page.keyboard.press("Escape")


def check(page) -> None:
    assert page.evaluate("window.pwned") is None
    assert page.locator("main img, main script, main a[href^='javascript']").count() == 0
    assert page.locator("article.turn", has_text=PAYLOAD[:60]).count() == 4  # it is there, as text
    assert page.locator(".rollout-head", has_text=PAYLOAD[:60]).count() == 1
    assert set(STEERING) & set(page.evaluate("document.querySelector('main').textContent")) <= set("[2J\ud800")


def test_nothing_that_was_planted_runs_on_the_page(served, hostile_run):
    page = served.page("about:blank")
    look_at_everything(page, served.serve(hostile_run))
    check(page)


def test_nothing_that_was_planted_runs_in_an_exported_page(served, hostile_run, tmp_path):
    path = tmp_path / "page.html"
    export_page(Workplace([hostile_run]), path)
    text = path.read_text()
    assert text.count("<script") == 2
    assert "<img" not in text
    assert "onerror=" not in text
    page = served.page("about:blank")
    look_at_everything(page, path.as_uri())
    check(page)


def test_a_script_that_got_into_the_page_would_not_run(served, eval_run):
    page = served.page(served.serve(eval_run))
    refused = page.evaluate(
        """() => {
            const script = document.createElement("script"), image = document.createElement("img");
            const markup = "<img src=x onerror='window.pwned=1'>";
            const attempts = [
                () => { script.textContent = "window.pwned = 1"; document.body.append(script); },
                () => { document.body.innerHTML = markup; },
                () => { document.body.insertAdjacentHTML("beforeend", markup); },
                () => { image.setAttribute("onerror", "window.pwned = 1"); },
            ];
            return attempts.map((attempt) => { try { attempt(); return ""; } catch (error) { return error.name; } });
        }"""
    )
    page.wait_for_timeout(300)
    assert page.evaluate("window.pwned") is None
    assert refused == ["TypeError"] * 4
    served.complaints.clear()  # the browser says what it has refused
