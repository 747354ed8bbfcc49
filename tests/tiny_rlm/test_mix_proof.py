"""The part `mix` of `scripts/prove_training.py`: its commands, and what it makes of their folders."""

from __future__ import annotations

import json
import tomllib
from itertools import pairwise
from pathlib import Path

from proofs import mix
from rlm_env.rollout import GroupMember, Rollout
from rlm_env.score import Score
from tiny_rlm.all_lessons import all_lessons

STEPS = 60
TASKS = 24


def settings_of(command: tuple[str, ...]) -> dict:
    given = [value for key, value in pairwise(command) if key == "--set"]
    return tomllib.loads("\n".join(setting.replace("=", " = ", 1) for setting in given))


def rollout(label: str, task: int, value: float, step: int | None = None) -> str:
    made = Rollout(task_id=f"eval-{task}", environment=label, score=Score(value))
    made.group = None if step is None else GroupMember(label, step=step)
    return made.to_json()


def write_training(folder: Path, scores: dict[str, tuple[float, float]]) -> None:
    """A training run, with the share of tasks that are right before and after."""
    folder.mkdir()
    lines = [{"step": 0, "seconds/eval": 60.0}, {"step": STEPS, "loss": 0.1, "seconds/step": 120.0}]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (folder / "summary.json").write_text('{"status": "complete"}')
    found = [
        rollout(label, task, float(task < share * TASKS), step)
        for label, shares in scores.items()
        for step, share in zip((0, STEPS), shares, strict=True)
        for task in range(TASKS)
    ]
    (folder / "held_out.jsonl").write_text("".join(f"{line}\n" for line in found))


def write_evaluation(folder: Path, label: str, share: float) -> None:
    folder.mkdir()
    (folder / "summary.json").write_text('{"status": "complete"}')
    found = [rollout(label, task, float(task < share * TASKS)) for task in range(TASKS)]
    (folder / "rollouts.jsonl").write_text("".join(f"{line}\n" for line in found))


def test_the_config_has_all_environments_and_each_seed_leaves_another_one_out(tmp_path):
    entries = {entry["name"]: entry for entry in mix.environments()}
    assert entries.keys() == {lessons.environment for lessons in all_lessons()}
    plan = {work.name: settings_of(work.command) for work in mix.mix_plan(tmp_path, [0, 1, 2])}
    left_out = [name for name in plan if name.startswith("mix-without")]
    assert len(left_out) == 3
    for seed, name in enumerate(left_out):
        missing = mix.LEFT_OUT[seed]
        trained_on = plan[name]["environments"]
        assert trained_on == [entry for entry in entries.values() if entry["name"] != missing]
        for moment in ("before", "after"):
            evaluated = plan[f"mix-left-out-{missing}-{seed}-{moment}"]
            assert evaluated == {"seed": seed, "options": entries[missing]["options"]}


def test_what_rises_falls_and_stays_open_is_told_from_paired_tasks(tmp_path):
    for seed in (0, 1):
        write_training(tmp_path / f"mix-{seed}", {"up": (0.25, 0.75), "down": (0.5, 0.0), "same": (0.5, 0.5)})
    write_training(tmp_path / "mix-2", {"up": (0.0, 0.0)})
    (tmp_path / "mix-2" / "summary.json").write_text('{"status": "interrupted"}')
    for moment, share in (("before", 0.0), ("after", 1.0)):
        write_evaluation(tmp_path / f"mix-left-out-{mix.LEFT_OUT[0]}-0-{moment}", mix.LEFT_OUT[0], share)
    results = mix.mix_results(tmp_path, [0, 1, 2])
    assert results["mix"]["up"]["before"] == [0.25, 0.25]
    assert results["mix"]["up"]["mean"] == 0.5
    assert results["mix_minutes"] == [3.0, 3.0]
    assert results["mix_left_out"].keys() == {mix.LEFT_OUT[0]}
    verdicts = {line.split("`")[1]: line.split("|")[-2].strip() for line in mix.mix_table(results) if "`" in line}
    assert verdicts == {"up": "rises", "down": "falls", "same": "open", mix.LEFT_OUT[0]: "rises"}
    assert "| `up` | 0.25 ± 0.00 | 0.75 ± 0.00 | +0.50 [" in "\n".join(mix.mix_table(results))


def test_nothing_is_told_of_runs_that_are_not_there(tmp_path):
    assert mix.mix_results(tmp_path, [0]) == {}
    assert mix.mix_table({}) == []
