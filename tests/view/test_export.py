"""An exported page holds what the server answers, and nothing that a browser could take for code."""

import base64
import gzip
import json
import re
from urllib.parse import unquote

import pytest

from rlm_env.cli.main import main
from rlm_env.runs.errors import ConfigError
from rlm_env.view.api import Api
from rlm_env.view.export import export_page
from rlm_env.view.workplace import Workplace
from tests.view.conftest import all_rows


def held(path) -> dict[str, object]:
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.DOTALL)
    assert data is not None
    packed = json.loads(data[1])
    return {name: json.loads(gzip.decompress(base64.b64decode(text))) for name, text in packed.items()}


def test_it_holds_the_answers_of_the_server(eval_run, tmp_path, capsys):
    path = tmp_path / "sub" / "page.html"
    assert main(["view", str(eval_run), "--export", str(path)]) == 0
    assert "12 rollouts" in capsys.readouterr().err
    answers = held(path)
    api = Api(Workplace([eval_run]))
    assert answers["runs/scripted/rows"]["rows"] == all_rows(api, "scripted")
    kinds = set()
    for name, answer in answers.items():
        if not name.endswith("/rows"):
            parts = [unquote(part) for part in name.split("/")]
            assert answer == json.loads(json.dumps(api.get(parts, {}))), name
            kinds.add(parts[4] if len(parts) > 4 else parts[-1])
    assert kinds >= {"runs", "numbers", "calls", "context"}


def test_some_rollouts_only(eval_run, tmp_path):
    path = tmp_path / "page.html"
    assert export_page(Workplace([eval_run]), path, ["rlm/eval-0-1/", "rlm/eval-0-2/"]) == 2
    answers = held(path)
    assert {row["key"] for row in answers["runs/scripted/rows"]["rows"]} == {"rlm/eval-0-1/0", "rlm/eval-0-2/0"}
    assert answers["runs/scripted/numbers"]["rollouts"] == 12
    with pytest.raises(ConfigError, match="no rollout has 'none'"):
        export_page(Workplace([eval_run]), path, ["none"])


def test_ids_without_export_are_a_mistake(eval_run, capsys):
    assert main(["view", str(eval_run), "--rollout", "x"]) == 2
    assert "--rollout goes with --export" in capsys.readouterr().err


def test_a_folder_without_a_run_is_told(tmp_path, capsys):
    assert main(["view", str(tmp_path)]) == 2
    assert "no run in" in capsys.readouterr().err
