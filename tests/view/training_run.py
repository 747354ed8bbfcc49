"""The folder of a training run, written by the code that writes real ones, with token ids that nobody sampled."""

from __future__ import annotations

from pathlib import Path

from rlm_env.messages import Usage
from rlm_env.rollout import GroupMember, Rollout, Score, SubCall, Turn, write_rollouts
from rlm_env.runs.folder import write_config, write_summary
from rlm_env.runs.jsonl import write_jsonl
from rlm_env.runs.record import new_record
from rlm_env.task import Task
from rlm_env.train.report.metrics import METRICS
from rlm_env.train.rl.config import TrainConfig
from rlm_env.train.rl.groups import DropReason
from rlm_env.train.rl.journal import Journal
from rlm_env.train.rl.sampler import TaskDraw
from rlm_env.train.run_files import HELD_OUT

SCORES = {0: [0.0, 1.0, 0.0, 1.0], 1: [0.5, 0.5, 0.5, 0.5], 2: [1.0, 0.0, 0.0, 0.0]}
"""Group -> the scores of its members."""
STEPS = {0: 1, 2: 2}
"""Group -> the step that trained it; the other one was dropped."""


def make_training(folder: Path) -> Path:
    folder.mkdir(parents=True)
    config = TrainConfig.model_validate(
        {
            "model": "tiny-rlm",
            "out": str(folder),
            "environments": [{"name": "oolong-rlm", "options": {"vocabulary": "easy"}}],
            "steps": 2,
            "rollout": {"sub": {"temperature": 1.0}},
            "groups": {"size": 4, "per_step": 1},
        }
    )
    write_config(folder, {**config.as_toml(), "record": new_record()})
    write_rollouts(
        folder / "rollouts.jsonl",
        [
            sampled(f"{group:06}/{member}", GroupMember("oolong-rlm", group, member, None, 0), score)
            for group, scores in SCORES.items()
            for member, score in enumerate(scores)
        ],
    )
    held_out = [
        sampled(f"{step}/oolong-rlm/eval-0-{index}/0", GroupMember("oolong-rlm", None, 0, step, step), step / 2)
        for step in (0, 2)
        for index in range(3)
    ]
    write_rollouts(folder / HELD_OUT, held_out)
    with Journal(folder) as journal:
        for group in SCORES:
            journal.drawn(TaskDraw(group, "oolong-rlm", -1, group, Task("Q", "", id=f"train-0-{group}")))
        journal.dropped(1, DropReason.ZERO_ADVANTAGE)
        for group, step in STEPS.items():
            journal.batch(step, [group])
    evaluation = {"eval/oolong-rlm/low": 0.1, "eval/oolong-rlm/high": 0.9}
    lines = [{"step": 0, "eval/oolong-rlm/score": 0.0, **evaluation}]
    lines += [{"step": step, "reward/mean": 0.25 * step, "loss": -0.1, "entropy": 0.5} for step in (1, 2)]
    write_jsonl(folder / METRICS, [*lines, {"step": 2, "eval/oolong-rlm/score": 1.0, **evaluation}])
    write_summary(folder, {"status": "complete", "steps": 2, "model": "model"})
    return folder


UPDATED = "000002/0"
"""The rollout in which the weights changed, within its second turn."""


def sampled(id: str, place: GroupMember, score: float) -> Rollout:
    """A rollout of two turns and a sub-call, with ids and log-probabilities."""
    first = Turn(
        text="```repl\nprint(1)\n```",
        code=["print(1)"],
        observation="Output:\n1",
        prompt_ids=[1, 85, 91],
        completion_ids=[417, 28, 513],
        logprobs=[-0.01, -0.7, -3.5],
        usage=Usage(3, 3, 0, 1),
    )
    second = Turn(
        text='```repl\nanswer["ready"] = True\n```',
        code=['answer["ready"] = True'],
        prompt_ids=[1, 85, 91, 417, 28, 513, 201],
        completion_ids=[223, 2],
        logprobs=[-0.1, -0.2],
        usage=Usage(7, 2, 0, 1),
    )
    call = SubCall(
        id=0,
        root_turn=0,
        batch=0,
        messages=[{"role": "user", "content": "Label: it rains"}],
        text="weather",
        prompt_ids=[1, 361],
        completion_ids=[397],
        logprobs=[-0.3],
        usage=Usage(2, 1, 0, 1),
    )
    task = f"train-0-{place.group}" if place.group is not None else id.split("/")[2]
    if id == UPDATED:
        first.weight_versions, second.weight_versions, call.weight_versions = [[0, 0]], [[0, 0], [1, 1]], [[0, 1]]
    rollout = Rollout(id, task, "oolong-rlm", question=f"How often in {task}?", gold="3", answer=str(score))
    rollout.turns, rollout.sub_calls, rollout.group, rollout.score = [first, second], [call], place, Score(score)
    rollout.root_usage, rollout.sub_usage = Usage(10, 5, 0, 2), Usage(2, 1, 0, 1)
    return rollout
