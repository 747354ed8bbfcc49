"""The viewer in a real browser: open, filter, walk, keyboard alone, a live run, an export, phones, accessibility."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest

from rlm_env.evals.report import scaffold_table
from rlm_env.evals.stored import stored_eval
from rlm_env.rollout import read_rollouts
from rlm_env.view.export import export_page
from rlm_env.view.workplace import Workplace
from tests.view.conftest import OPEN_ALL
from view_material import OOLONG, ScriptedModel, make_eval

pytestmark = pytest.mark.slow
ROLLOUT = "#/run/scripted/rollout/rlm%2Feval-0-5%2F0"
VIEWS = {
    "run": "#/run/scripted",
    "tasks": "#/run/scripted?view=tasks",
    "numbers": "#/run/scripted?view=numbers",
    "rollout": ROLLOUT,
    "training": "#/run/run",
    "training numbers": "#/run/run?view=numbers",
    "training rollout": "#/run/run/rollout/000000%2F1",
    "group": "#/run/run/group/0",
    "runs": "#/",
}


def expect(thing):
    from playwright.sync_api import expect

    return expect(thing)


def rows(page):
    return page.locator(".grid .row:not(.head)")


def test_a_run_is_opened_filtered_and_sorted(served, eval_run):
    page = served.page(served.serve(eval_run))
    expect(rows(page)).to_have_count(12)
    assert "token" not in page.url
    assert page.title() == "scripted"
    page.get_by_role("button", name="overflow 3").click()
    expect(rows(page)).to_have_count(3)
    expect(page.get_by_role("status")).to_have_text("3 of 12 rollouts")
    page.reload()
    expect(rows(page)).to_have_count(3)  # the filter is in the address
    page.get_by_role("button", name="overflow 3").click()
    page.get_by_label("Filter by scaffold").select_option("rlm")
    expect(rows(page)).to_have_count(6)
    page.get_by_label("Filter by score").select_option("one")
    shown = rows(page).count()
    assert 0 < shown < 6
    page.get_by_label("Filter by score").select_option("")
    page.get_by_label("Filter by text").fill("eval-0-3 rlm/")
    expect(rows(page)).to_have_count(1)
    page.get_by_label("Filter by text").fill("chunk and batch")  # programs, which are read last
    expect(rows(page)).not_to_have_count(0)
    page.get_by_label("Filter by text").fill("")
    page.get_by_role("columnheader", name="score").get_by_role("button").click()
    scores = [float(text) for text in page.locator(".c-score .score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    expect(page.get_by_role("columnheader", name="score")).to_have_attribute("aria-sort", "descending")


@pytest.mark.parametrize("exported", [False, True])
def test_text_is_found_in_code_and_outputs(served, eval_run, tmp_path, exported):
    """Only where that is asked for, and a row then leads to the turn. The same in a file."""
    if exported:
        export_page(Workplace([eval_run]), tmp_path / "page.html")
    page = served.page((tmp_path / "page.html").as_uri() if exported else served.serve(eval_run))
    expect(rows(page)).to_have_count(12)
    page.get_by_label("Filter by text").fill('"again = llm_batch" rlm/')
    expect(page.get_by_text("looks through code, outputs and sub-calls too")).to_be_visible()
    page.get_by_role("button", name="in everything").click()
    cells = [[code for turn in one.turns for code in turn.code] for one in read_rollouts(eval_run / "rollouts.jsonl")]
    asked_again = sum(any("again = llm_batch" in code for code in codes) for codes in cells)
    assert asked_again > 1
    expect(rows(page)).to_have_count(asked_again)
    expect(page.get_by_role("status")).to_have_text(f"{asked_again} of 12 rollouts")
    assert "in=everything" in page.url
    page.locator(".c-question a").first.click()
    expect(page.locator("article#turn-3")).to_be_in_viewport()
    page.go_back()
    expect(rows(page)).to_have_count(asked_again)


def test_the_page_shows_the_numbers_of_the_console(served, eval_run):
    page = served.page(served.serve(eval_run))
    stored = stored_eval(eval_run)
    cells = scaffold_table(stored.summary, stored.title)
    for index, scaffold in enumerate(cells.header[1:], 1):
        card = page.get_by_label(f"scaffold {scaffold}")
        expect(card.locator(".big")).to_have_text(cells.rows[0][index].replace(" ", "", 1))
    page.get_by_role("button", name="All numbers").click()
    table = page.locator("table").first
    shown = [[cell.strip() for cell in row.split("\t")] for row in table.inner_text().splitlines() if "\t" in row]
    assert [row[1:] for row in shown[-len(cells.rows) :]] == [[cell.strip() for cell in row[1:]] for row in cells.rows]


def test_scaffolds_are_compared_item_by_item(served, eval_run):
    page = served.page(served.serve(eval_run) + "#/run/scripted?view=tasks")
    expect(page.locator(".tasks .row:not(.head)")).to_have_count(6)
    page.get_by_role("link", name=re.compile("^rlm, ")).first.click()
    expect(page.locator("article.turn").first).to_be_visible()


def test_a_rollout_is_walked(served, eval_run):
    page = served.page(served.serve(eval_run) + ROLLOUT)
    expect(page.locator("article.turn")).to_have_count(4)
    expect(page.locator(".code .t-k").first).to_be_visible()  # highlighted
    assert page.locator("article.turn").nth(1).locator(".badge.bad").first.inner_text() == "error"
    page.locator(".batch summary").first.click()
    page.locator(".call").first.click()
    drawer = page.get_by_role("dialog")
    expect(drawer).to_contain_text("Sub-call 1 · 1 of")
    drawer.get_by_role("button", name="next →").click()
    expect(drawer).to_contain_text("Sub-call 2 · 2 of")
    drawer.locator(".locate").first.click()
    expect(drawer).to_contain_text("Context · characters")
    expect(drawer.locator("mark.by-sub").first).to_be_visible()
    drawer.get_by_role("button", name="turn 2").click()
    expect(drawer).to_have_count(0)
    assert page.url.endswith("?turn=2")
    expect(page.locator(".coverage-sum")).to_contain_text("% of")
    expect(page.locator(".changes li")).to_have_count(2)
    expect(page.locator(".budget")).to_have_count(5)
    page.reload()
    expect(page.locator("article#turn-2")).to_be_in_viewport()  # a link leads to the turn
    page.get_by_role("link", name=re.compile("(next|previous) rollout")).first.click()  # it may have ended last
    expect(page.locator(".rollout-head h1")).not_to_have_text("eval-0-5")


def test_by_keyboard_alone(served, eval_run):
    page = served.page(served.serve(eval_run))
    expect(rows(page)).to_have_count(12)
    page.keyboard.press("/")
    page.keyboard.type("rlm/ eval-0-5")
    expect(rows(page)).to_have_count(1)
    page.keyboard.press("Enter")
    expect(page.locator(".grid .row:focus")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(page.locator("article.turn")).to_have_count(4)
    page.keyboard.press("j")
    expect(page.locator("article#turn-1")).to_be_focused()
    page.keyboard.press("j")
    expect(page.locator("article#turn-2")).to_be_focused()
    page.keyboard.press("k")
    expect(page.locator("article#turn-1")).to_be_focused()
    page.keyboard.press("c")
    drawer = page.get_by_role("dialog")
    expect(drawer).to_contain_text("Context ·")
    page.keyboard.press("ArrowRight")
    expect(drawer).to_contain_text("characters 6,000")
    page.keyboard.press("Escape")
    expect(drawer).to_have_count(0)
    page.locator(".batch summary").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".call").first).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(drawer).to_contain_text("Sub-call 2 ·")
    page.keyboard.press("ArrowRight")
    expect(drawer).to_contain_text("Sub-call 3 ·")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(drawer).to_contain_text("next and previous turn")
    page.keyboard.press("Escape")
    page.keyboard.press("u")
    expect(rows(page).first).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    expect(rows(page).last).to_be_focused()
    page.keyboard.press("n")  # means nothing here
    page.keyboard.press("Home")
    expect(rows(page).first).to_be_focused()


def test_every_control_is_reached_by_tab(served, eval_run):
    page = served.page(served.serve(eval_run))
    expect(rows(page)).to_have_count(12)
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.textContent")
        )
    for name in ("Skip to content", "Dark or light", "By task", "Filter by text", "Filter by scaffold", "question"):
        assert any(name in one for one in reached), name


def test_a_live_run_is_followed(served, tmp_path):
    with ScriptedModel(delay=0.15).serving() as model:
        out = tmp_path / "live"
        running = threading.Thread(target=make_eval, args=(out, model), kwargs={"n": 10, **OOLONG})
        running.start()
        while not (out / "rollouts.jsonl").exists() or not (out / "rollouts.jsonl").stat().st_size:
            running.join(0.1)
        page = served.page(served.serve(out))
        expect(page.locator(".pill.live")).to_have_text("running")
        expect(rows(page).first).to_be_visible()
        before = rows(page).count()
        assert before < 20
        rows(page).first.focus()
        expect(rows(page)).to_have_count(20, timeout=60_000)
        running.join(60)
    expect(page.locator(".pill")).to_have_text("complete", timeout=15_000)
    expect(page.locator(".title-line")).to_contain_text("20 of 20 rollouts")
    expect(page.locator(".card .value").first).to_have_text(re.compile(r"0\.\d{3}"))
    assert rows(page).first.evaluate("row => row === document.activeElement")  # the focus is where it was


def test_an_exported_page_needs_nothing(served, eval_run, train_run, tmp_path):
    path = tmp_path / "page.html"
    export_page(Workplace([eval_run, train_run]), path)
    page = served.page("about:blank")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.context.set_offline(True)
    page.goto(f"{path.as_uri()}{ROLLOUT}")
    expect(page.locator("article.turn")).to_have_count(4)
    page.locator(".batch summary").first.click()
    page.locator(".call").first.click()
    drawer = page.get_by_role("dialog")
    expect(drawer).to_contain_text("Label each message")
    page.keyboard.press("Escape")
    page.keyboard.press("c")
    expect(drawer.locator("mark").first).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("u")
    expect(rows(page)).to_have_count(12)
    page.get_by_role("button", name="By task").click()
    page.goto(f"{path.as_uri()}#/run/run/rollout/000000%2F1")
    page.get_by_text("samples, log-probabilities").click()
    expect(page.locator(".tok").first).to_be_visible()
    page.goto(f"{path.as_uri()}#/run/run/group/0")
    expect(page.locator(".member")).to_have_count(4)
    assert {url.partition("#")[0] for url in asked if not url.startswith("blob:")} == {path.as_uri()}


def test_training_rollouts_show_their_tokens_and_their_group(served, train_run):
    page = served.page(served.serve(train_run))
    expect(rows(page)).to_have_count(18)
    expect(page.locator(".c-advantage").nth(1)).to_have_text("−0.50")
    page.get_by_label("Filter by part").select_option("held out")
    expect(rows(page)).to_have_count(6)
    page.get_by_label("Filter by part").select_option("training")
    page.get_by_label("Filter by text").fill("000002/0")
    rows(page).first.click(position={"x": 5, "y": 5})
    expect(page.locator(".side")).to_contain_text("+0.750")
    expect(page.locator(".side")).to_contain_text("0 to 1 update")
    expect(page.locator("article.turn").nth(1)).to_contain_text("weights after updates: 0, from token 2 on 1")
    page.get_by_text("samples, log-probabilities").click()
    expect(page.locator(".sample")).to_have_count(2)
    expect(page.locator(".sample").first).to_contain_text("9 tokens · 5 trained")
    expect(page.locator(".sample").first).to_contain_text("advantage +0.750 · 1 off-policy step")
    expect(page.locator(".tokens .tok.given")).to_have_count(4)
    assert page.locator(".tokens .tok.l5").get_attribute("title").startswith("id 513, log-probability -3.5")
    page.get_by_role("link", name="All members of the group").click()
    expect(page.locator(".member")).to_have_count(4)
    expect(page.locator("main")).to_contain_text("trained in step 2")
    page.get_by_role("link", name="← previous").click()
    expect(page.locator("main")).to_contain_text("dropped: zero advantage")


@pytest.mark.parametrize("look", ["light", "dark", "phone"])
def test_nothing_serious_is_wrong_for_people_who_cannot_see_or_point(served, eval_run, train_run, look):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    url = served.serve(eval_run, train_run)
    page = served.page(url, width=390 if look == "phone" else 1280, dark=look == "dark", bypass_csp=True)
    serious = []
    for name, address in VIEWS.items():
        page.goto(url.partition("?")[0] + address)
        expect(page.locator("main:not([aria-busy]) h1")).to_be_visible()
        page.wait_for_load_state("networkidle")
        if name in ("rollout", "training rollout"):
            page.evaluate(OPEN_ALL)
            page.wait_for_load_state("networkidle")
        for one in axe.run(page).response["violations"]:
            if one["impact"] in ("serious", "critical"):
                serious.append((name, one["id"], [node["html"][:160] for node in one["nodes"][:3]]))
        if look == "phone":
            assert page.evaluate("document.scrollingElement.scrollWidth") <= 390, name
    assert serious == []


def test_the_panel_is_readable_for_everybody_too(served, eval_run):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = served.page(served.serve(eval_run) + ROLLOUT, bypass_csp=True)
    page.locator(".batch summary").first.click()
    for opened in ("Enter", "c", "?"):
        page.locator(".call").first.focus()
        page.keyboard.press(opened)
        expect(page.get_by_role("dialog")).to_be_visible()
        page.wait_for_load_state("networkidle")
        found = axe.run(page).response["violations"]
        assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
        page.keyboard.press("Escape")


def test_dark_and_light_are_chosen_and_kept(served, eval_run):
    page = served.page(served.serve(eval_run))
    expect(rows(page)).to_have_count(12)
    background = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(background)
    page.keyboard.press("d")
    dark = page.evaluate(background)
    assert dark != light
    page.reload()
    expect(rows(page)).to_have_count(12)
    assert page.evaluate(background) == dark


def test_a_link_without_the_secret_says_what_to_do(served, eval_run):
    url = served.serve(eval_run)
    page = served.page("about:blank")
    page.goto(url.partition("?")[0])
    expect(page.locator("body")).to_contain_text("Open the address that rlm-env view has printed")
    served.complaints.clear()  # the browser notes the 403


def test_an_address_that_leads_nowhere_is_told(served, eval_run):
    page = served.page(served.serve(eval_run) + "#/run/none")
    expect(page.locator("main")).to_contain_text("There is no run none")
    page.goto(page.url.replace("#/run/none", "#/run/scripted/rollout/none"))
    expect(page.locator("main")).to_contain_text("has no rollout 'none'")
    served.complaints.clear()  # the browser notes the 404


def test_the_stored_record_can_be_saved(served, eval_run, tmp_path):
    page = served.page(served.serve(eval_run) + ROLLOUT)
    with page.expect_download() as download:
        page.get_by_role("link", name="The record as it is stored").click()
    saved = Path(tmp_path / "saved.json")
    download.value.save_as(saved)
    assert json.loads(saved.read_text())["id"] == "rlm/eval-0-5/0"
