"""What a run came to: the table, its Markdown and the curve, from a metrics.jsonl that was written by hand."""

import builtins
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import rlm_env
from rlm_env.cli import main
from rlm_env.cli.training import conclude_training
from rlm_env.runs.errors import ConfigError
from rlm_env.train.report import curve
from rlm_env.train.report.report import before_after_table, load_run, training_notes

STEPS = 20


def write_run(folder, lift=0.0, extra=()):
    """Reward rises from 0.1 to 0.9 and half a step is cut off at the end, as a crash leaves it."""
    lines = []
    for step in range(STEPS + 1):
        reward = 0.1 + 0.8 * step / STEPS + lift
        if step:
            sizes = {"sub_calls/mean": 20.0 - step, "entropy": 0.5, "mismatch_kl": 1e-6}
            lines.append({"step": step, "loss": 0.1, "reward/mean": reward, "reward/words": reward, **sizes})
        if step % 10 == 0:
            score = {"eval/words/score": reward, "eval/words/low": reward - 0.05, "eval/words/high": reward + 0.05}
            lines.append({"step": step, **score, "eval/words/sub_calls": 20.0 - step, "seconds/eval": 1.0})
    folder.mkdir(parents=True)
    text = "".join(json.dumps(line) + "\n" for line in [*lines, *extra])
    (folder / "metrics.jsonl").write_text(text + '{"step": 21, "lo')
    return folder


def cells(table):
    return {row[0].strip(): row[1:] for row in table.rows}


def test_before_and_after_of_one_run(tmp_path):
    run = load_run(write_run(tmp_path / "first"))
    table = before_after_table([run])
    found = cells(table)
    assert table.title == "first"
    assert found["score"] == ["0.100 [0.050, 0.150]", "0.900 [0.850, 0.950]", "+0.800"]
    assert found["reward"] == ["0.220", "0.820", "+0.600"]  # means of steps 1 to 5 and 16 to 20
    assert found["sub-calls"] == ["17.0", "2.000", "-15.0"]  # of the training, which stands below the held-out one
    assert found["mismatch KL"] == ["1.0e-06", "1.0e-06", "+0.000"]
    assert [row[0] for row in table.rows][:3] == ["held out: words", "  score", "  sub-calls"]
    assert "turns" not in found  # not in the file
    assert training_notes([run]) == [
        "held out: after 0 and after 20 updates; [95 % interval over tasks]",
        "training: means of the first and the last 5 of 20 steps",
    ]


def test_several_seeds_give_mean_and_spread(tmp_path):
    runs = [load_run(write_run(tmp_path / f"seed-{i}", lift)) for i, lift in enumerate((-0.03, 0.0, 0.03))]
    table = before_after_table(runs)
    assert table.title == "3 runs: seed-0, seed-1, seed-2"
    assert cells(table)["score"] == ["0.100 ± 0.030", "0.900 ± 0.030", "+0.800 ± 0.000"]
    assert "mean ± sample standard deviation of 3 runs" in training_notes(runs)


def test_supervised_training_has_losses(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": s, "eval/loss": 2.0 - s}) + "\n" for s in (0, 1))
        + "".join(json.dumps({"step": s, "loss": 2.0 / s}) + "\n" for s in (1, 2, 3, 4))
    )
    run = load_run(tmp_path)
    assert training_notes([run])[0] == "held out: after 0 and after 1 updates"
    assert before_after_table([run]).rows == [
        ["held out", "", "", ""],
        ["  loss", "2.000", "1.000", "-1.000"],
        ["training", "", "", ""],
        ["  loss", "1.500", "0.583", "-0.917"],
    ]


def test_the_command_prints_one_run_or_several(tmp_path, capsys):
    runs = [str(write_run(tmp_path / f"seed-{i}")) for i in range(2)]
    assert main(["report", runs[0], "--markdown"]) == 0
    assert "| &nbsp;&nbsp;score | 0.100 [0.050, 0.150] | 0.900 [0.850, 0.950] | +0.800 |" in capsys.readouterr().out
    assert main(["report", *runs]) == 0
    assert "2 runs: seed-0, seed-1" in capsys.readouterr().out
    assert main(["report", str(tmp_path), runs[1]]) == 0  # the folder of both, and one of them again
    assert "2 runs: seed-0, seed-1" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    assert main(["report", str(tmp_path / "empty"), runs[0]]) == 2
    assert f"{tmp_path / 'empty'} holds no run" in capsys.readouterr().err


def test_a_folder_without_metrics_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"has no metrics\.jsonl"):
        load_run(tmp_path)


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_curve_is_a_picture(tmp_path, seeds):
    pytest.importorskip("matplotlib")
    runs = [load_run(write_run(tmp_path / f"seed-{i}", i / 50)) for i in range(seeds)]
    path = curve.draw_curve(runs, tmp_path / "new" / "curve.png")
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert path.stat().st_size > 10_000


def test_a_point_of_the_curve_spans_the_weights_that_it_was_made_with(tmp_path):
    """The evaluation that was due after 10 steps ran on the weights of steps 11 to 14; the others on one version."""
    folder = write_run(tmp_path / "run")
    path = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()[:-1]]
    for line in lines:
        if line["step"] == 10 and "eval/words/score" in line:
            line |= {"eval/words/policy_version/min": 11.0, "eval/words/policy_version/max": 14.0}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    drawn = []

    class Axes:
        def errorbar(self, x, y, **options):
            drawn.append((x, options["xerr"]))

    run = load_run(folder)
    curve._draw_held_out(Axes(), [run], "eval/words/score", "words", "red")
    assert drawn == [([0, 11.0, 20], [[0, 0, 0], [0, 3.0, 0]])]
    curve._draw_held_out(Axes(), [load_run(write_run(tmp_path / "plain"))], "eval/words/score", "words", "red")
    assert drawn[1] == ([0, 10, 20], None)


def test_what_every_run_has_reached_is_averaged(tmp_path):
    steps, means, spreads = curve._over_runs([{1: 0.0, 2: 1.0, 3: 1.0}, {1: 1.0, 2: 1.0}])
    assert (steps, means) == ([1, 2], [0.5, 1.0])
    assert spreads == pytest.approx([0.5**0.5, 0.0])


def test_without_matplotlib_the_table_is_there_and_the_remedy_said(tmp_path, monkeypatch, capsys):
    whole = builtins.__import__

    def without(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(name, name="matplotlib")
        return whole(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    folder = write_run(tmp_path / "run")
    conclude_training(folder, folder / "model", Console(width=100))
    told = capsys.readouterr().out
    assert "held out: words" in told
    assert "no curve: a curve needs the package 'matplotlib': pip install 'rlm-env[report]'" in told
    assert not (folder / "reward.png").exists()
    assert main(["report", str(folder), "--curve", str(tmp_path / "x.png")]) == 2


def test_importing_a_report_loads_neither_torch_nor_the_sandbox():
    """With `rlm_env` itself left empty, since its public names bring the scaffolds in."""
    program = """
import sys, types
sys.modules["rlm_env"] = package = types.ModuleType("rlm_env")
package.__path__ = [sys.argv[1]]
import rlm_env.train.report.curve, rlm_env.train.report.report
rooms = {name.split(".")[1] for name in sys.modules if name.startswith("rlm_env.")}
found = rooms & {"repl", "llm", "scaffolds", "evals"} | {"torch"} & sys.modules.keys()
sys.exit(f"loaded: {found}" if found else 0)
"""
    folder = Path(rlm_env.__file__).parent
    run = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
