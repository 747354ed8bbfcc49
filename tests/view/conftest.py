"""Runs to look at: an eval with a scripted model, made once a session by the real code, and copies of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlm_env.view.api import Api
from rlm_env.view.workplace import Workplace
from view_material import OOLONG, ScriptedModel, make_eval


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
