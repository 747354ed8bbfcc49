"""`rlm-env show` and `rlm-env view` as they are typed."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from rlm_env.cli.main import main
from rlm_env.rollout import read_rollouts


def test_show_prints_the_first_rollout_and_names_others(eval_run, capsys):
    first = next(iter(read_rollouts(eval_run / "rollouts.jsonl")))
    assert main(["show", str(eval_run)]) == 0
    printed = capsys.readouterr()
    assert first.question[:60] in printed.out
    assert "11 more: rlm-env show" in printed.err


def test_show_finds_a_rollout_by_a_part_of_its_id(eval_run, capsys):
    assert main(["show", str(eval_run), "rlm/eval-0-5"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("rlm/eval-0-5/0")
    assert "turn 4" in printed.out
    assert "llm_batch(" in printed.out
    assert printed.err == ""
    assert main(["show", str(eval_run), "eval-0-5", "-n", "2"]) == 0
    assert capsys.readouterr().out.count("  question  ") == 2


def test_show_failed_begins_with_the_worst(eval_run, tmp_path, capsys):
    rollouts = list(read_rollouts(eval_run / "rollouts.jsonl"))
    below = [one for one in rollouts if one.score.value < 1]
    assert main(["show", str(eval_run), "--failed"]) == 0
    printed = capsys.readouterr()
    assert "score 0," in printed.out
    assert "turn 1" in printed.out
    assert f"{len(below) - 1} more below the full score" in printed.err
    full = next(one for one in rollouts if one.score.value == 1)
    (tmp_path / "full.jsonl").write_text(full.to_json() + "\n")
    assert main(["show", str(tmp_path / "full.jsonl"), "--failed"]) == 0
    assert "every rollout has the full score" in capsys.readouterr().err


def test_show_names_the_run_of_a_rollout_where_there_are_several(eval_run, tmp_path, capsys):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rollouts.jsonl").symlink_to(eval_run / "rollouts.jsonl")
    assert main(["show", str(tmp_path), "rlm/eval-0-5/0"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("first/rlm/eval-0-5/0\n")
    assert "1 more: " in printed.err
    assert "  second/rlm/eval-0-5/0\n" in printed.err
    assert main(["show", str(tmp_path), "second/rlm/eval-0-5/0"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("second/rlm/eval-0-5/0\n")
    assert "more" not in printed.err


def test_show_without_the_context_says_what_is_missing(eval_run, tmp_path, capsys):
    (tmp_path / "rollouts.jsonl").write_bytes((eval_run / "rollouts.jsonl").read_bytes())
    assert main(["show", str(tmp_path), "rlm/eval-0-5"]) == 0
    printed = capsys.readouterr()
    assert "shown without prompts and outputs" in printed.err
    assert "turn 4" in printed.out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(["{run}", "rlm/eval-0-55"], "no rollout has 'rlm/eval-0-55' in its id"), (["{run}/none"], "there is no")],
)
def test_show_names_mistakes(eval_run, capsys, arguments, reason):
    assert main(["show", *(part.format(run=eval_run) for part in arguments)]) == 2
    assert reason in capsys.readouterr().err


def test_view_serves_until_it_is_interrupted(eval_run):
    command = [sys.executable, "-m", "rlm_env.cli", "view", str(eval_run), "--no-browser"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ) as viewer:
        assert viewer.stderr is not None
        url = viewer.stderr.readline().strip()
        with urllib.request.urlopen(url, timeout=20) as page:
            assert b'<div id="app">' in page.read()
        viewer.send_signal(signal.SIGINT)
        said = viewer.stderr.read()
        assert viewer.wait(20) == 0
    assert said == "Ctrl-C ends it.\nended\n"


def test_view_says_that_a_port_is_taken(eval_run, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["view", str(eval_run), "--no-browser", "--port", str(port)]) == 2
    assert f"port {port} cannot be used" in capsys.readouterr().err
