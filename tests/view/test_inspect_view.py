"""A run exported to inspect_ai, opened in `inspect view` by a real browser."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rlm_env.cli import main
from rlm_env.rollout import Rollout, read_rollouts

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow


@pytest.fixture
def inspect_view(eval_run: Path, tmp_path: Path) -> Iterator[str]:
    """The address of an `inspect view` on the logs of the run."""
    pytest.importorskip("inspect_ai", reason="inspect_ai is not installed: pip install 'rlm-env[inspect]'")
    assert main(["export", str(eval_run), "--to", "inspect", "--out", str(tmp_path / "logs")]) == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "inspect_ai._cli.main", "view", "--log-dir", str(tmp_path / "logs")]
    viewer = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(port)], stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 120
        while viewer.poll() is None and time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/"
    finally:
        viewer.terminate()
        viewer.wait(30)


def test_samples_and_the_events_of_one(browser: Browser, inspect_view: str, eval_run: Path):
    from playwright.sync_api import expect

    def solved(rollout: Rollout) -> bool:
        return rollout.scaffold == "rlm" and rollout.score is not None and rollout.score.value == 1

    rollout = max(filter(solved, read_rollouts(eval_run / "rollouts.jsonl")), key=lambda one: len(one.sub_calls))
    page = browser.new_page(viewport={"width": 1280, "height": 4000})
    page.set_default_timeout(60_000)
    page.goto(inspect_view)
    page.get_by_role("row").filter(has_text='scaffold="rlm"').get_by_text("oolong-rlm").click()
    expect(page.get_by_text("6 Samples", exact=True)).to_be_visible(timeout=60_000)
    row = page.get_by_role("row").filter(has_text=rollout.task_id)
    expect(row).to_contain_text(rollout.answer)
    row.click()
    expect(page.get_by_text(rollout.question).first).to_be_visible(timeout=60_000)
    expect(page.get_by_text("MODEL CALL (ROOT)").first).to_be_visible()
    first = rollout.turns[0].code[0].split("\n")[0]
    expect(page.get_by_text(first).first).to_be_visible()
    size = sum(call.batch == rollout.sub_calls[0].batch for call in rollout.sub_calls)
    page.get_by_text(re.compile(f"sub-agent: llm_batch of {size}$", re.IGNORECASE)).click()
    expect(page.get_by_text("MODEL CALL (SUB)").nth(1)).to_be_visible()
    page.close()
