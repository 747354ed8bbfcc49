"""`rlm-env report` in every form, on real runs: what it holds, what it must not hold, and folders that are no runs."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from rlm_env.cli import main
from rlm_env.evals.programs import Program
from rlm_env.evals.stored import stored_eval
from rlm_env.reports.data import json_schema
from rlm_env.reports.reading import read_report, run_names
from rlm_env.runs.jsonl import JsonLog
from tests.reports.conftest import HOSTILE


@pytest.fixture
def report(runs, capsys):
    """Runs the command; returns what it printed."""

    def call(*arguments: str | Path, code: int = 0) -> str:
        assert main(["report", *map(str, arguments)]) == code
        printed = capsys.readouterr()
        return printed.err if code else printed.out

    return call


class Page(HTMLParser):
    """The tags, attributes and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def test_the_json_is_the_summary_and_follows_its_schema(runs, report):
    told = json.loads(report("good", "trained", "--json"))
    (good,) = told["evals"]
    stored = json.loads((runs / "good" / "summary.json").read_text())
    assert {name: stored[name] for name in good["summary"]} == good["summary"]
    assert good["run"]["status"] == "complete"
    assert good["run"]["seed"] == 0
    assert good["run"]["record"]["tasks"] == 6
    assert "out" not in good["run"]["config"]
    assert told["trainings"][0]["steps"] == 2
    assert {curve["name"] for curve in told["trainings"][0]["curves"]} >= {"reward/mean"}
    Draft202012Validator(json_schema()).validate(told)


def test_the_schema_in_the_docs_is_the_one(request):
    path = request.config.rootpath / "docs" / "report.schema.json"
    assert json.loads(path.read_text()) == json_schema()


def test_runs_on_the_same_tasks_are_compared_task_by_task(runs, report):
    told = json.loads(report("good", "bad", "--json"))
    assert {one["scaffold"]: one["comparison"]["difference"]["mean"] for one in told["comparisons"]} == {
        "standard": 0.0,
        "rlm": -1.0,
    }
    rlm = next(one["comparison"] for one in told["comparisons"] if one["scaffold"] == "rlm")
    assert (rlm["scaffold"], rlm["baseline"]) == ("bad", "good")
    assert rlm["p"] == pytest.approx(2 / 2**6)
    assert rlm["p_holm"] == pytest.approx(2 * rlm["p"])
    assert "Runs on the same tasks" in report("good", "bad")


def test_other_tasks_are_not_compared(runs, tmp_path):
    shutil.copytree(runs / "good", tmp_path / "other")
    config = tmp_path / "other" / "config.toml"
    config.write_text(config.read_text().replace('tasks_sha256 = "', 'tasks_sha256 = "0'))
    assert read_report([Path("good"), tmp_path / "other"]).comparisons == []


def test_programs_lengths_and_money_are_told(report):
    for form in ((), ("--markdown",), ("--latex",), ("--html",)):
        told = report("good", "bad", *form)
        assert "chunk and batch" in told or "one piece to a sub-LLM" in told
        assert "reads it itself" in told
        assert "Cost of a rollout by context length" in told
    (good,) = read_report([Path("good")]).evals
    assert [group.cost_each is not None for group in good.summary.lengths] == [True] * 4


def test_a_page_is_whole_in_itself_and_runs_nothing(report):
    page = Page(report("good", "bad", "trained", "--html"))
    assert not {"script", "iframe", "object", "link", "base", "form", "img", "image", "use"} & set(page.tags)
    names = {name for name, _ in page.attributes}
    assert not [name for name in names if name.startswith("on") or name in ("style", "src", "srcset", "xlink:href")]
    assert all(value and value.startswith("#") for name, value in page.attributes if name == "href")
    (policy,) = [value for name, value in page.attributes if name == "content" and value and "default-src" in value]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert page.tags.count("polyline") >= 8
    assert any(HOSTILE in text for text in page.texts)


def test_nothing_secret_and_no_path_is_in_a_report(runs, report):
    for form in ("--html", "--json", "--latex", "--markdown"):
        told = report("good", "bad", form)
        assert "secret" not in told
        assert str(runs) not in told


def test_markdown_and_console_tell_what_the_page_tells(report):
    cells = {text for text in Page(report("good", "trained", "--html")).texts if text}
    markdown = report("good", "trained", "--markdown")
    console = report("good", "trained")
    result = stored_eval(Path("good"))
    for group in result.summary.scaffolds:
        assert str(group.score) in cells
        assert str(group.score) in markdown
        assert str(group.score) in console
    assert "## good" in markdown


def test_a_report_goes_into_a_file(report, tmp_path):
    path = tmp_path / "new" / "report.html"
    assert report("good", "--html", "--out", path) == ""
    assert path.read_text().startswith("<!doctype html>")
    assert "--out needs a form" in report("good", "--out", path, code=2)
    assert "cannot write" in report("good", "--json", "--out", path / "x", code=2)


def test_a_run_that_goes_on_or_was_stopped_says_so(runs, report, tmp_path):
    folder = shutil.copytree(runs / "good", tmp_path / "half")
    (folder / "summary.json").unlink()
    lines = (folder / "rollouts.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "rollouts.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:99])  # the fourth is being written
    told = report(folder, "--markdown")
    assert "half: the run has not ended" in told
    log = JsonLog(folder / "rollouts.jsonl")
    try:
        assert "half: the run goes on" in report(folder, "--markdown")
    finally:
        log.close()
    (folder / "rollouts.jsonl").write_text("")
    for form in ((), ("--markdown",), ("--html",), ("--latex",), ("--json",)):
        told = report(folder, *form)
        assert "no rollout has ended yet" in told or form == ("--json",)


def test_folders_that_are_no_runs_are_named(runs, report, tmp_path):
    assert "nowhere holds no run" in report("good", "nowhere", code=2)
    folder = shutil.copytree(runs / "good", tmp_path / "damaged")
    with open(folder / "rollouts.jsonl", "r+b") as file:
        file.write(b"{oops")
    assert "rollouts.jsonl, line 1: not a line of JSON" in report(folder, "--html", code=2)
    begun = shutil.copytree(runs / "trained", tmp_path / "begun")
    (begun / "metrics.jsonl").unlink()
    assert "no step has ended yet" in report(begun, code=2)
    (folder / "config.toml").write_text("model = ")
    assert "config.toml is not valid TOML" in report(folder, code=2)
    assert "--curve is for training runs alone" in report("good", "trained", "--curve", "x.png", code=2)


def test_all_runs_in_a_folder_are_reported_and_those_that_cannot_be_read_are_named(runs, report, tmp_path, capsys):
    place = tmp_path / "outputs"
    for name, run in (("a/good", "good"), ("bad", "bad"), ("trained", "trained")):
        shutil.copytree(runs / run, place / name)
    (place / "empty").mkdir()
    (place / "notes.txt").write_text("no run")
    told = json.loads(report(place, "--json"))
    assert [one["run"]["name"] for one in told["evals"]] == ["good", "bad"]
    assert [one["run"]["name"] for one in told["trainings"]] == ["trained"]
    assert {one["scaffold"] for one in told["comparisons"]} == {"standard", "rlm"}
    titles = ("good", "bad", "Comparison of runs", "Training")
    assert [line for line in report(place).splitlines() if line.strip() in titles] == [*titles]
    assert "good" not in report(place / "a").splitlines()  # one run needs no title
    (place / "trained" / "metrics.jsonl").write_text("")
    (place / "bad" / "rollouts.jsonl").write_text("{oops\n{}\n")
    assert main(["report", str(place), "--json"]) == 0
    printed = capsys.readouterr()
    assert [one["run"]["name"] for one in json.loads(printed.out)["evals"]] == ["good"]
    said = " ".join(printed.err.split())
    assert said.count("left out: ") == 2
    assert "no step has ended yet" in said
    assert "rollouts.jsonl, line 1" in said
    shutil.rmtree(place / "a")
    assert "none of the 2 runs in" in report(place, code=2)
    assert "empty holds no run" in report(place / "empty", code=2)
    assert "--curve is for training runs alone" in report(place, "--curve", "x.png", code=2)


def test_a_matrix_has_its_parts_in_the_page_and_its_table_on_the_console(runs, report, tmp_path):
    folder = tmp_path / "both"
    for label in ("easy", "hard"):
        shutil.copytree(runs / "good", folder / label)
    config = (runs / "good" / "config.toml").read_text()
    start = config.index("environments = ")
    entries = 'environments = [{ name = "word-count", label = "easy" }, { name = "word-count", label = "hard" }]\n'
    end = config.index("]\n", start) + 2
    (folder / "config.toml").write_text(config[:start] + entries + config[end:])
    console, page = report(folder), report(folder, "--html")
    assert "mean of environments" in console
    assert "score [95 % interval]" not in console
    assert {"both", "both/easy", "both/hard"} <= set(Page(page).texts)
    assert "both: the run has not ended" in console  # it has no summary.json


def test_two_runs_of_the_same_name_are_told_apart():
    assert run_names([Path("/a/x"), Path("/b/x"), Path("/c/y")]) == ["a/x", "b/x", "y"]
    assert run_names([Path("/a/x"), Path("/a/x")]) == ["x (1)", "x (2)"]
    assert run_names([Path("/p/a/x"), Path("/q/a/x")]) == ["p/a/x", "q/a/x"]


def test_the_page_of_the_docs_is_what_happens(request, runs, monkeypatch, tmp_path, capsys):
    """Every block of docs/reports.md, as it stands."""
    page = (request.config.rootpath / "docs" / "reports.md").read_text()
    for name, run in (("BEFORE", "good"), ("AFTER", "bad")):
        shutil.copytree(runs / run, tmp_path / "outputs" / name)
    monkeypatch.chdir(tmp_path)
    (shell,) = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    for line in shell.splitlines():
        assert main(shlex.split(line, comments=True)[1:]) == 0
    assert Path("report.html").exists()
    assert Path("tables.tex").exists()
    capsys.readouterr()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code, {})
    assert "AFTER rlm reads it itself 6 0.000" in capsys.readouterr().out
    for text in [*Program, "programs", "comparisons", "matrices", "trainings"]:
        assert str(text) in page


def test_a_report_loads_no_torch(runs):
    code = (
        "import sys; from rlm_env.cli import main; main(['report', 'good', 'trained', '--html', '--out', 'x.html'])\n"
    )
    code += "sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=runs, check=False).returncode == 0
