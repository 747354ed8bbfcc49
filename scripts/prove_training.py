#!/usr/bin/env python
"""Whether training works, in numbers: seeds of tiny-rlm from weak to strong, and what the trained policies can do.

    python scripts/prove_training.py                       # everything: several hours on 2 CPU cores
    python scripts/prove_training.py --only learn --seeds 0
    python scripts/prove_training.py --report              # the numbers so far, and what is missing

Every part is a command of the package, in a folder of its own; a part that is there is not made again, one that was
stopped goes on. Covered, by the names of `--only`:

- `learn`: tiny-rlm trained on contexts of up to N tokens, its held-out score before and after.
- `length`: the trained policies at N, 10 N and 100 N tokens, beside the standard scaffold with the same weights.
- `unseen`: families of questions that were never trained on.
- `cost`: a trained policy that was made to ask twice, trained on with a penalty on sub-calls and without.
- `distill`: tiny-rlm trained by distillation from each trained policy, its held-out score against the tokens that were
  sampled, beside the training by reward that made the teacher.
- `roles`: a trained policy whose sub-LLM was made to read badly, trained on root and sub-LLM tokens together and on
  root tokens alone, with equally many rollouts.
- `mix`: tiny-rlm trained on all environments at once, held-out score by environment before and after; and on all but
  one, evaluated on that one (`scripts/proofs/mix.py`).

`cost` and `roles` begin with the first seed's trained policy, altered by `scripts/alter_tiny_rlm.py`.

Not covered: real models. The figures stand in docs/training-results.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from proofs import mix
from proofs.work import Work, evaluation, held_out, make, minutes, spread, status, training
from rlm_env.evals.stats import CORRECT, Estimate, paired_difference
from rlm_env.runs.folder import read_run_config
from rlm_env.train.report.metrics import read_metrics

N = 512
"""Tokens of the longest context that is trained on; a quarter of the model's window."""
TRAINED = "count,most_common,least_common"
UNSEEN = "compare,user_label"
PARTS = ("learn", "length", "unseen", "cost", "distill", "roles", mix.PART)
COST_WEIGHT = 0.3
COST_STEPS = 12
COST_LR = 1e-4
"""Lower than in the first training: a good policy is to stay good. At 5e-4 it oscillates."""
DISTILL_STEPS = 12
DISTILL_EVERY = 3
"""Steps between its held-out evaluations."""
ROLE_STEPS = 24
ROLE_LENGTHS = "[192, 256]"
"""Few lines, so that a rollout's score says something about each reading."""
MORE_TASKS = 96
"""Held-out tasks of the trainings that begin with an altered policy, whose differences are smaller."""
SCORE = "eval/oolong-rlm/score"
TOKENS = {"sampled": "tokens/sampled", "asked": "teacher/tokens"}
"""Metrics of a step that are summed up to an evaluation."""
LAST = 5
"""Steps at a run's end over which its training metrics are averaged."""
RUNS = {
    "learn": f"tiny-rlm, up to {N} tokens",
    "cost": f"asks twice, {COST_STEPS} steps with cost_weight = {COST_WEIGHT:g}",
    "free": f"asks twice, {COST_STEPS} steps without a penalty",
    "distill": f"tiny-rlm, {DISTILL_STEPS} steps of distillation from the trained policy",
    "both": f"weak reader, {ROLE_STEPS} steps: root and sub-LLM tokens",
    "root": f"weak reader, {ROLE_STEPS} steps: root tokens alone",
}
"""Trainings by the names of their folders, with what they are."""
PAIRS = (("cost", "free"), ("both", "root"))
"""Trainings whose last held-out scores are compared task by task."""


def main() -> int:
    options = _arguments()
    plan = _plan(options.out, options.seeds)
    if not options.report:
        for work in plan:
            if work.part in options.only and not work.done():
                make(work, options.out)
    missing = [work.name for work in plan if not work.done()]
    results = _results(options.out, options.seeds)
    text = _markdown(results, options.seeds)
    (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (options.out / "results.md").write_text(text)
    print(text)
    print(f"missing: {', '.join(missing)}" if missing else "complete")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/proof"), help="folder of all runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--report", action="store_true", help="make nothing, show what is there")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def _plan(out: Path, seeds: list[int]) -> list[Work]:
    plan = [training("learn", out, f"learn-{seed}", seed) for seed in seeds]
    models = {"before": "tiny-rlm", **{f"after-{seed}": str(out / f"learn-{seed}" / "model") for seed in seeds}}
    lengths = f"lengths={N},{10 * N},{100 * N}"
    for name, model in models.items():
        plan.append(_evaluation("length", out, f"length-{name}", model, "standard,rlm", 72, TRAINED, lengths))
    for name, model in models.items():
        plan.append(_evaluation("unseen", out, f"unseen-{name}", model, "rlm", 64, UNSEEN, f"lengths={N // 2},{N}"))
    trained = out / f"learn-{seeds[0]}" / "model"
    plan.append(_alteration("cost", out, "asks-twice", trained, "--steps", "80"))
    for name, weight in (("cost", COST_WEIGHT), ("free", 0.0)):
        for seed in seeds:
            settings = (*_more(out / "asks-twice", COST_STEPS), f"optimizer.lr={COST_LR}")
            plan.append(training("cost", out, f"{name}-{seed}", seed, *settings, f"advantage.cost_weight={weight}"))
    for seed in seeds:
        taught = f"steps={DISTILL_STEPS}", f"held_out.every={DISTILL_EVERY}", f"teacher.model={models[f'after-{seed}']}"
        plan.append(training("distill", out, f"distill-{seed}", seed, *taught))
    plan.append(_alteration("roles", out, "weak-reader", trained))
    for seed in seeds:
        settings = (
            *_more(out / "weak-reader", ROLE_STEPS),
            f"environments=[{{ name = 'oolong-rlm', options = {_role_options()} }}]",
        )
        plan.append(training("roles", out, f"both-{seed}", seed, *settings))
        plan.append(training("roles", out, f"root-{seed}", seed, *settings, "samples.train_sub_calls=false"))
    return [*plan, *mix.mix_plan(out, seeds)]


def _more(model: Path, steps: int) -> tuple[str, ...]:
    """Settings of a run that begins with another model, evaluated before and after."""
    return f"model={model}", f"steps={steps}", f"held_out.every={steps}", f"held_out.n={MORE_TASKS}"


def _role_options() -> str:
    families = TRAINED.split(",")
    return f"{{ vocabulary = 'easy', tokenizer = '@model', families = {families}, lengths = {ROLE_LENGTHS} }}"


def _alteration(part: str, out: Path, name: str, model: Path, *options: str) -> Work:
    command = ("scripts/alter_tiny_rlm.py", name, "--model", str(model), "--out", str(out / name), *options)
    return Work(part, name, command, lambda: (out / name / "config.json").exists(), resumable=False)


def _evaluation(
    part: str, out: Path, name: str, model: str, scaffolds: str, n: int, families: str, lengths: str
) -> Work:
    options = ("vocabulary=easy", "tokenizer=@model", f"families={families}", lengths)
    settings = (f"options.{option}" for option in options)
    return evaluation(part, out, name, "oolong-rlm", model, n, *settings, scaffolds=scaffolds)


def _results(out: Path, seeds: list[int]) -> dict[str, Any]:
    """All numbers that can be had of the folders that are there."""
    trained = {name: [_trained(out / f"{name}-{seed}") for seed in seeds] for name in RUNS}
    found: dict[str, Any] = {
        name: {key: [run[key] for run in runs if run] for key in next(run for run in runs if run)}
        for name, runs in trained.items()
        if any(runs)
    }
    for part in ("length", "unseen"):
        models = {"before": [f"{part}-before"], "after": [f"{part}-after-{seed}" for seed in seeds]}
        found[part] = {
            moment: summaries
            for moment, names in models.items()
            if (summaries := [_evaluated(out / name) for name in names if status(out / name) == "complete"])
        }
    for name in ("learn", "distill"):
        curves = [_curve(out / f"{name}-{seed}") for seed in seeds if status(out / f"{name}-{seed}") == "complete"]
        if curves:
            found[f"{name}_by_tokens"] = [_mean_point(points) for points in zip(*curves, strict=True)]
    for first, second in PAIRS:
        if (difference := _paired(out, seeds, first, second)) is not None:
            found[f"{first}_minus_{second}"] = {
                "mean": difference.mean,
                "low": difference.low,
                "high": difference.high,
            }
    return found | mix.mix_results(out, seeds)


def _trained(folder: Path) -> dict[str, float] | None:
    """Held-out score and sub-calls at the first and the last evaluation, and metrics of the first and last steps."""
    if status(folder) != "complete":
        return None
    lines = read_metrics(folder / "metrics.jsonl")
    evaluations = [line for line in lines if SCORE in line]
    steps = [line for line in lines if "loss" in line]
    found = {}
    for moment, line in (("before", evaluations[0]), ("after", evaluations[-1])):
        for fact in ("score", "sub_calls", "root_prompt_tokens_max"):
            found[f"{fact}_{moment}"] = line[f"eval/oolong-rlm/{fact}"]
        solved = [rollout for rollout in held_out(folder, line["step"]) if rollout.score.value >= CORRECT]
        found[f"sub_calls_solved_{moment}"] = fmean(len(rollout.sub_calls) for rollout in solved)
    for moment, some in (("first", steps[:LAST]), ("last", steps[-LAST:])):
        for fact in ("reward/mean", "sub_calls/mean", "sub_calls/solved", "rollouts/ready", "seconds/step"):
            values = [line[fact] for line in some if fact in line]
            found[f"{fact} {moment}"] = fmean(values) if values else float("nan")
    found |= {"first_step_log_ratio": steps[0]["log_ratio_abs"], "minutes": minutes(lines)}
    return found | {"in_flight": _in_flight(folder)}


def _in_flight(folder: Path) -> int:
    """The number of rollouts that the run kept in flight: its file may have changed since."""
    return read_run_config(folder)["groups"]["concurrency"]


def _curve(folder: Path) -> list[dict[str, float]]:
    """At each held-out evaluation: the steps before it, the tokens that they sampled and that a teacher was asked, the
    score."""
    lines = read_metrics(folder / "metrics.jsonl")
    points = []
    for line in sorted((line for line in lines if SCORE in line), key=lambda line: line["step"]):
        before = [other for other in lines if "loss" in other and other["step"] <= line["step"]]
        sums = {name: sum(other.get(key, 0.0) for other in before) for name, key in TOKENS.items()}
        points.append({"step": line["step"], **sums, "score": line[SCORE], "in_flight": _in_flight(folder)})
    return points


def _mean_point(points: Sequence[dict[str, float]]) -> dict[str, Any]:
    """One evaluation over seeds."""
    means = {name: fmean(point[name] for point in points) for name in ("in_flight", "step", *TOKENS)}
    return {**means, "scores": [point["score"] for point in points]}


def _evaluated(folder: Path) -> list[dict[str, Any]]:
    """One entry per scaffold and context length."""
    summary = json.loads((folder / "summary.json").read_text())
    return [
        {
            "scaffold": group["scaffold"],
            "length": group["length"],
            "score": group["score"]["mean"],
            "overflows": group["outcomes"]["overflow"] / group["rollouts"],
            "longest_prompt": group["longest_prompt"],
            "sub_calls": group["sub_calls"],
        }
        for group in summary["lengths"]
    ]


def _paired(out: Path, seeds: list[int], first: str, second: str) -> Estimate | None:
    """Last held-out scores of the first training minus those of the second, paired by seed and task."""
    scores: dict[str, dict[str, list[float]]] = {first: {}, second: {}}
    steps = {"cost": COST_STEPS, "both": ROLE_STEPS}[first]
    for name, by_task in scores.items():
        for seed in seeds:
            folder = out / f"{name}-{seed}"
            for rollout in held_out(folder, steps) if status(folder) == "complete" else ():
                by_task.setdefault(f"{seed}/{rollout.task_id}", []).append(rollout.score.value)
    return paired_difference(scores[first], scores[second])


def _markdown(results: dict[str, Any], seeds: list[int]) -> str:
    lines = [f"Seeds: {', '.join(map(str, seeds))}; mean and standard deviation over seeds.", ""]
    if RUNS.keys() & results:
        lines += [
            "| training | rollouts in flight | held-out score before | after "
            "| sub-calls per correct rollout before | after | minutes |"
        ]
        lines += ["| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for name, title in RUNS.items():
        if name in results:
            run = results[name]
            facts = ("score_before", "score_after", "sub_calls_solved_before", "sub_calls_solved_after", "minutes")
            in_flight = ", ".join(str(count) for count in sorted(set(run["in_flight"])))
            lines.append(f"| {title} | {in_flight} | {' | '.join(spread(run[fact]) for fact in facts)} |")
    for first, second in PAIRS:
        if difference := results.get(f"{first}_minus_{second}"):
            mean, low, high = (difference[key] for key in ("mean", "low", "high"))
            lines += ["", f"`{first}` minus `{second}`, paired by task: {mean:+.3f} [{low:+.3f}, {high:+.3f}]."]
    if "distill_by_tokens" in results:
        lines += [
            "",
            "| training | rollouts in flight | steps | tokens sampled | tokens that the teacher was asked "
            "| held-out score |",
        ]
        lines += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
        for name, title in (("learn", "by reward"), ("distill", "by distillation")):
            for point in results.get(f"{name}_by_tokens", []):
                counts = (f"{point[key]:,.0f}" for key in ("in_flight", "step", *TOKENS))
                lines.append(f"| {title} | {' | '.join(counts)} | {spread(point['scores'])} |")
    for part, title in (("length", "trained families, by length"), ("unseen", "families never trained on")):
        for moment, runs in results.get(part, {}).items():
            lines += ["", f"**{title}: {moment}**", ""]
            lines += ["| context tokens | scaffold | score | overflow | longest root prompt | sub-calls |"]
            lines += ["| ---: | --- | ---: | ---: | ---: | ---: |"]
            for index, first in enumerate(runs[0]):
                same = [run[index] for run in runs]
                cells = (
                    f"{first['length']:,}",
                    first["scaffold"],
                    spread([entry["score"] for entry in same]),
                    f"{fmean(entry['overflows'] for entry in same):.0%}",
                    f"{max(entry['longest_prompt'] for entry in same):,}",
                    f"{fmean(entry['sub_calls'] for entry in same):.0f}",
                )
                lines.append(f"| {' | '.join(cells)} |")
    lines += mix.mix_table(results)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
