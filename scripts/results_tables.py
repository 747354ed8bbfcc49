"""Writes the tables of README and docs whose numbers are in docs/results/, and keeps numbers there.

python scripts/results_tables.py                                 # all tables, from the numbers that are there
python scripts/results_tables.py quickstart outputs/NAME         # first keeps those of a run of scripts/quickstart.sh
python scripts/results_tables.py training outputs/proof          # of scripts/prove_training.py
python scripts/results_tables.py dspy                            # runs the bench and keeps what it prints
python scripts/results_tables.py loop --peers FOLDER             # the same, with an option of the bench

Benches: dspy, engine, loop, repl, report, until, view. A table stands between `<!-- table: NAME -->` and
`<!-- end -->`; a test checks that all are up to date.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from types import SimpleNamespace
from typing import Any

from rlm_env.evals.report import length_table
from rlm_env.evals.stats import Estimate
from rlm_env.evals.stored import stored_eval
from rlm_env.runs.folder import read_run_config
from rlm_env.runs.record import versions
from rlm_env.runs.tables import markdown_tables

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
PAGE_NAMES = ("trl_dspy", "viewing", "reports", "evaluating")
PAGES = tuple(ROOT / name for name in ("README.md", *(f"docs/{page}.md" for page in PAGE_NAMES)))
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n\n).*?(\n<!-- end -->)", re.DOTALL)
BENCHES = {
    "dspy": ("scripts/bench/dspy_interpreters.py",),
    "engine": ("scripts/bench/engine.py",),
    "loop": ("scripts/bench/loop.py", "--no-engine"),
    "repl": ("scripts/bench/repl.py", "--only", "opening,stepping"),
    "report": ("scripts/bench/report.py",),
    "until": ("scripts/simulate_until.py",),
    "view": ("scripts/bench/view.py", "--inspect"),
}


def quickstart_numbers(run: Path) -> dict[str, Any]:
    """The numbers of each context length and scaffold in `oolong-rlm`, and the versions that made them."""
    folder = run / "oolong-rlm"
    groups = [asdict(group) for group in stored_eval(folder).summary.lengths]
    return {"versions": read_run_config(folder)["record"]["versions"], "lengths": groups}


def training_numbers(proof: Path) -> dict[str, Any]:
    return {"versions": versions(), **json.loads((proof / "results.json").read_text("utf-8"))}


def bench_numbers(name: str, options: list[str]) -> dict[str, Any]:
    """What a bench printed, line by line."""
    command = [*BENCHES[name], *options]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {"command": f"python {BENCHES[name][0]}", "cores": os.cpu_count(), "versions": versions(), "lines": lines}


def keep(name: str, numbers: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(numbers, indent=1) + "\n", "utf-8")


def kept(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


def quickstart_table() -> str:
    """The first table by context length that the command prints, and the command."""
    groups = [SimpleNamespace(**{**one, "score": Estimate(**one["score"])}) for one in kept("quickstart")["lengths"]]
    made_by = f"{groups[0].tasks} tasks of each length, at temperature 1: `scripts/quickstart.sh`."
    return f"{markdown_tables([length_table(SimpleNamespace(lengths=groups))], []).strip()}\n\n{made_by}"


NO_FIGURES = "(No figures are kept for this version: the command prints them.)"


def dspy_table() -> str:
    """Milliseconds of each interpreter, and how many times ours."""
    if not (RESULTS / "dspy.json").exists():
        return NO_FIGURES
    *timed, keeps = kept("dspy")["lines"]
    systems = list(dict.fromkeys(line["system"] for line in timed))
    rows = [["", *(f"`{system.removeprefix('dspy ')}`" if system != systems[0] else system for system in systems)]]
    for what in dict.fromkeys(line["bench"] for line in timed):
        cells = [line for line in timed if line["bench"] == what]
        rows.append([what, *(_milliseconds(line["median_s"], line["ratio"]) for line in cells)])
    rows.append(
        ["`context = context[:10]` still holds in the next cell", *("yes" if keeps[s] else "no" for s in systems)]
    )
    return _markdown(rows)


def _milliseconds(seconds: float, ratio: float) -> str:
    shown = f"{seconds * 1e3:,.2f} ms" if seconds < 0.01 else f"{seconds * 1e3:,.0f} ms"
    return shown if ratio == 1 else f"{shown} ({_times(ratio)})"


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} x" if ratio >= 10 else f"{ratio:.1f} x"


VIEWED = {
    "first paint": "first paint",
    "first rows": "first rows",
    "all rows": "all rows",
    "scores with intervals": "the numbers of all tables",
    "filter by text, once more": "filter by text",
    "sort": "sort",
    "longest frame of scrolling": "scroll through all rows: the longest frame",
    "text in everything": "a word that occurs nowhere, looked for in everything",
    "open a rollout": "open a rollout",
    "open a rollout with a long context": "open a rollout whose context has {long_context_megabytes} MB",
    "its context": "show that context",
    "another place of it": "another place of it",
}
"""Step of the bench -> its row."""
INSPECTED = {
    "its list of logs": "its list of logs",
    "and the samples": "the samples of one log",
    "open a sample": "a sample",
}


def view_table() -> str:
    """Seconds of each step in the viewer, and of `inspect view` on the same rollouts."""
    if not (RESULTS / "view.json").exists():
        return NO_FIGURES
    facts, *steps = kept("view")["lines"]
    found = {(line["viewer"], line["step"]): line for line in steps}
    rows = [[f"{facts['rollouts']:,} rollouts, {facts['megabytes']} MB", "seconds", "opened again"]]
    for step, row in VIEWED.items():
        line = found["rlm-env view", step]
        again = _seconds(line["again_ms"]) if "again_ms" in line else ""
        rows.append([row.format(**facts), _seconds(line["ms"]), again])
    for step, row in INSPECTED.items():
        rows.append([f"`inspect view` on the same rollouts: {row}", _seconds(found["inspect view", step]["ms"]), ""])
    return _markdown(rows)


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds / 1e3:.1f}" if milliseconds >= 1000 else f"{milliseconds / 1e3:.2f}"


def report_table() -> str:
    """Time and memory of a report, beside reading the same lines as JSON."""
    if not (RESULTS / "report.json").exists():
        return NO_FIGURES
    floor, html = kept("report")["lines"]
    what = f"{html['runs']} runs of {html['rollouts']:,} rollouts, {html['mb']:,} MB"
    rows = [[what, "seconds of processor time", "memory"]]
    for name, line in (("each line read as JSON, nothing kept", floor), ("`rlm-env report --html`", html)):
        rows.append([name, f"{line['cpu_seconds']:.0f}", f"{line['peak_mb']} MB"])
    return _markdown(rows)


def until_table() -> str:
    """How often the test that ends a run decides, and after how many tasks."""
    if not (RESULTS / "until.json").exists():
        return NO_FIGURES
    lines = kept("until")["lines"]
    rows = [[f"{lines[0]['runs']:,} runs each", "decided rightly", "decided wrongly", "tasks, mean", "tasks saved"]]
    for line in lines:
        if line["kind"] == "null":
            rows.append([f"nothing to find: {line['differences']}", "", f"{100 * line['wrong']:.1f} %", "", ""])
        else:
            saved = f"{100 * (1 - line['tasks'] / line['most_tasks']):.0f} %"
            shares = (f"{100 * line['right']:.1f} %", f"{100 * line['wrong']:.1f} %")
            rows.append([f"rlm is better: {line['differences']}", *shares, f"{line['tasks']:.0f}", saved])
    return _markdown(rows)


def measured_table() -> str:
    """What README says is unique, each with its measurement and the command that makes it again."""
    rows = [row for name, made in MEASURED.items() if (RESULTS / f"{name}.json").exists() for row in made(kept(name))]
    return _markdown([["what", "measured", "by `scripts/...`"], *rows])


def _of_training(numbers: dict[str, Any]) -> list[list[str]]:
    learn, by = numbers["learn"], "`prove_training.py`"
    score = f"{_spread(learn['score_before'])} before, **{_spread(learn['score_after'])}** after"
    rows = [
        [
            "what was sampled is what is trained: mean \\|log ratio\\| of trainer to engine, first step, float32",
            f"at most {max(learn['first_step_log_ratio']):.1e}",
            by,
        ],
        [
            "root and sub-LLM trained together: held-out score of tiny-rlm",
            f"{score} {fmean(learn['minutes']):.0f} minutes ({len(learn['score_after'])} seeds)",
            by,
        ],
    ]
    if numbers["length"].get("after"):
        longest = max(one["length"] for one in numbers["length"]["before"][0])
        before, after = (
            [one["score"] for run in runs for one in run if (one["length"], one["scaffold"]) == (longest, "rlm")]
            for runs in (numbers["length"]["before"], numbers["length"]["after"])
        )
        what = f"the same on {longest:,} tokens, 100 times what was trained on; without the REPL all overflow"
        rows.append([what, f"{_spread(before)} before, **{_spread(after)}** after", by])
    if mix := numbers.get("mix"):
        before, after = (
            [fmean(scores) for scores in zip(*(change[moment] for change in mix.values()), strict=True)]
            for moment in ("before", "after")
        )
        rises = sum(change["low"] > 0 for change in mix.values())
        what = f"one policy trained on {len(mix)} environments at once, tools included: mean held-out score"
        score = f"{_spread(before)} before, **{_spread(after)}** after; rises in {rises} of them ({len(after)} seeds)"
        rows.append([what, score, by])
    return rows


def _of_repl(numbers: dict[str, Any]) -> list[list[str]]:
    lines = {line["bench"]: line for line in numbers["lines"]}
    opened, step = lines["open_and_step_vs_cold_start"], lines["step_guarded_vs_bare"]["guarded_us"] / 1e3
    what = "a sandboxed REPL with scipy and sympy imported: opened and its first cell run; a further cell"
    figures = f"**{opened['open_ms']:.0f} ms**, a cold Python {opened['cold_ms']:,.0f} ms; {step:.2f} ms"
    return [[what, figures, "`bench/repl.py`"]]


def _of_loop(numbers: dict[str, Any]) -> list[list[str]]:
    ratios = {line["system"]: line["ratio_to_floor"] for line in numbers["lines"]}
    what = "two turns end to end, the model taking no time; a bare child process over a pipe takes 1"
    peers = f"`dspy.RLM` {ratios['dspy.RLM, local interpreter']:.1f}, `rlms` {ratios['rlms']:.0f}, neither in a sandbox"
    return [[what, f"**{ratios['rlm-env']:.1f}**; {peers}", "`bench/loop.py`"]]


def _of_dspy(numbers: dict[str, Any]) -> list[list[str]]:
    lines = [line for line in numbers["lines"] if line["bench"].startswith("three turns")]
    deno = next(line["ratio"] for line in lines if "Deno" in line["system"])
    what = "`dspy.RLM` in a sandbox, three turns on 1 MB: our REPL takes 1, dspy's own sandbox"
    return [[what, f"{deno:.0f}", "`bench/dspy_interpreters.py`"]]


def _of_engine(numbers: dict[str, Any]) -> list[list[str]]:
    ways = {line["way"]: line for line in numbers["lines"] if "way" in line}
    what = "768 short prompts: one `llm_batch` beside the `openai` client with 64 in flight"
    return [[what, f"**{ways['openai client']['batch_is_times_as_fast']:.0f} times** as fast", "`bench/engine.py`"]]


MEASURED = {"training": _of_training, "repl": _of_repl, "loop": _of_loop, "dspy": _of_dspy, "engine": _of_engine}
"""File in docs/results/ -> its rows."""


def _spread(values: list[float]) -> str:
    return f"{fmean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def _markdown(rows: list[list[str]]) -> str:
    """A table; the first row is its head."""
    head, *body = rows
    rule = [" --- ", *(" --- " for _ in head[1:])]
    return "\n".join([_row(head), f"|{'|'.join(rule)}|", *map(_row, body)])


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


TABLES: dict[str, Callable[[], str]] = {
    "quickstart": quickstart_table,
    "measured": measured_table,
    "dspy": dspy_table,
    "view": view_table,
    "report": report_table,
    "until": until_table,
}


def with_tables(text: str) -> str:
    """A page with the tables of the numbers that are kept."""
    return BLOCK.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}\n{found[3]}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=["quickstart", "training", *BENCHES], help="what to keep numbers of")
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="of quickstart and training: the run")
    given, options = parser.parse_known_args()
    if given.name in BENCHES:
        keep(given.name, bench_numbers(given.name, options))
    elif given.name:
        if given.folder is None or options:
            parser.error(f"{given.name} takes the folder of a run, and nothing else")
        keep(given.name, {"quickstart": quickstart_numbers, "training": training_numbers}[given.name](given.folder))
    for page in PAGES:
        page.write_text(with_tables(page.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
