"""The tables of tiny-rlm's card: from the folder of an eval on an endpoint, and from replies alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web

import tiny_rlm_tables
from rlm_env.cli import main
from rlm_env.evals.programs import Program
from rlm_env.registry import find_environment
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.tables import Cells
from tests.word_count import BARE_REPLS
from tiny_rlm.lessons import say
from tiny_rlm.scores import best_policy, line_table, program_table, score_table, scores_without_context
from tiny_rlm.strategies import NO_LINE, OTHERS, strategy_shares

MATRIX = """
model = "stub"
base_url = "{url}"
scaffolds = ["standard", "rlm"]
n = 4

[[environments]]
name = "word-count"

[[environments]]
name = "math-python-rlm"
n = 2
options = {{ profile = "tiny" }}
"""
SUM = "Task: a sum.\nI add.\n```repl\nanswer['content'] = '\\\\boxed{-1}'; answer['ready'] = True\n```"


@pytest.fixture
def folder(workplace, endpoint, capsys) -> Path:
    """An eval on one environment with two lengths of contexts, and on one without contexts."""

    def answer(body: dict) -> web.Response | None:
        asked = str(body["messages"][-1]["content"])
        if "spam" in asked:
            return None
        message = {"role": "assistant", "content": SUM}
        return web.json_response({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    endpoint.answer = answer
    Path("matrix.toml").write_text(MATRIX.format(url=endpoint.url))
    assert main(["eval", "matrix.toml", "--out", "out", "--no-baselines", *BARE_REPLS]) == 0, capsys.readouterr().err
    return Path("out")


def by_heading(table: Cells, row: list[str]) -> dict[str, str]:
    return dict(zip(table.header, row, strict=True))


@pytest.mark.slow
def test_an_eval_becomes_the_tables_of_the_card(folder, capsys):
    table = score_table(folder, blind_tasks=4)
    whole, short, long, *sums = [by_heading(table, row) for row in table.rows]
    assert (whole["environment"], whole["context"]) == ("word-count", "all")
    assert (short["context"], long["context"]) == ("from 20 tokens", "from 200 tokens")
    assert whole["rlm"].startswith("**1.00 [0.")
    assert whole["best without it"] == "0.00 -"
    assert long["standard"].startswith("0.00 [0.00, ")
    assert long["standard"].endswith(", 2 of 2 too long")
    assert sums[0]["environment"] == "math-python-rlm"
    assert {row["environment"] for row in sums[1:]} == {""}
    assert {row["context"] for row in sums[1:]} >= {"add", "subtract"}

    assert [row[:3] for row in program_table(folder).rows if row[0] == "math-python-rlm"] == [
        ["math-python-rlm", Program.UNUSED, "1.00"]
    ]
    assert line_table(folder).rows == [
        ["word-count", NO_LINE, "1.00", "1.00"],
        ["math-python-rlm", "I add.", "1.00", "0.00"],
    ]

    card = Path("README.md")
    card.write_text("# Card\n<!-- table: scores -->\nstale\n<!-- end -->\n<!-- table: programs --><!-- end -->\n")
    assert run_script(folder, "--card", card) == 2
    assert "no place for programs" in capsys.readouterr().err
    card.write_text(
        "# Card\n<!-- table: scores -->\nstale\n<!-- end -->\n<!-- table: programs -->\n<!-- end -->\nEnd\n"
    )
    assert run_script(folder, "--card", card) == 0
    text = card.read_text()
    assert "stale" not in text
    assert "| word-count | all | " in text
    assert text.endswith("<!-- end -->\nEnd\n")
    assert run_script(folder, "--card", card) == 0
    assert card.read_text() == text

    config = folder / "math-python-rlm" / "config.toml"
    config.write_text(config.read_text().replace("\nn = 2\n", "\nn = 1\n"))
    with pytest.raises(ConfigError, match="not made any more"):
        score_table(folder, blind_tasks=1)


def run_script(*arguments: object) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["tiny_rlm_tables.py", "--blind-tasks", "4", *map(str, arguments)])
        return tiny_rlm_tables.main()


def test_a_folder_without_an_eval_is_refused(tmp_path, capsys):
    assert run_script(tmp_path) == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "options", "low", "high"),
    [
        ("codeqa-rlm", {"profile": "tiny"}, 0.15, 0.45),  # the letters; its search for names reads the context
        ("needle-rlm", {"profile": "tiny", "lengths": 600}, 0.0, 0.1),
        ("oolong-rlm", {"vocabulary": "easy", "lengths": 256}, 0.0, 0.6),
    ],
)
def test_what_can_be_answered_without_the_context(name, options, low, high):
    environment = find_environment(name, **options)
    tasks = _take(environment, 40)
    scores = scores_without_context(environment, tasks)
    _, best = best_policy(scores, frozenset(task.id for task in tasks))
    assert low <= best <= high


def _take(environment, n):
    tasks = environment.tasks("eval")
    return [task for task, _ in zip(tasks, range(n), strict=False)]


def test_no_policy_without_the_context_gets_it():
    environment = find_environment("codeqa-rlm", profile="tiny")
    [task] = _take(environment, 1)
    seen = []
    environment.baselines = lambda: {"peeks": lambda bare: seen.append(bare.context) or bare.context["no such file"]}
    assert scores_without_context(environment, [task])["peeks"] == {task.id: 0.0}
    assert seen == [{}]


def test_replies_are_told_apart_by_code_and_by_line():
    batch = say("Task: x.\nI read.", "r = llm_batch(context.split())", 'answer["content"] = str(r)')
    guess = say("Task: x.\nI guess.", 'answer["content"] = "1"')
    shares = strategy_shares([[batch], [batch], [guess], ["I think."]], lines=2)
    assert shares.programs == {Program.CHUNK_AND_BATCH: 0.5, Program.UNUSED: 0.25, Program.NO_CODE: 0.25}
    assert shares.lines == {"I read.": 0.5, "I guess.": 0.25, OTHERS: 0.25}
    with pytest.raises(ValueError, match="at least one"):
        strategy_shares([])
