"""A report as sections of tables, charts and remarks, which every form for people lays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import tomli_w

from rlm_env.evals.explained import PAGE, comparison_notes, few_tasks_notes
from rlm_env.evals.matrix_report import matrix_notes, matrix_table
from rlm_env.evals.report import p_text, report_notes, report_tables, report_warnings
from rlm_env.reports.charts import BarChart, Chart, length_charts, sub_call_charts, training_charts
from rlm_env.reports.data import Curve, EvalReport, ReportData, RunFacts, TrainingReport
from rlm_env.runs.folder import plain
from rlm_env.runs.tables import NONE, Cells
from rlm_env.train.report.report import before_after_table, load_run, training_notes


@dataclass(slots=True)
class Section:
    """A part of a report: one run, several training runs, or a comparison."""

    title: str
    scaffolds: int = 0
    """Columns of its first table."""
    within: bool = False
    """It is a part of an eval on several environments: the console and Markdown leave it to its own folder."""
    tables: list[Cells] = field(default_factory=list)
    charts: list[Chart | BarChart] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: Cells | None = None
    """What the runs were made of: versions, seeds, hashes; a column per run."""
    configs: list[tuple[str, str]] = field(default_factory=list)
    """(name of a run, its config and record as TOML)"""


def make_document(data: ReportData, trained: Sequence[Path] = ()) -> list[Section]:
    """The sections of a report. `trained`: the folders of its training runs, in order, for their table."""
    sections = []
    for run in data.matrices:
        parts = [one for one in data.evals if one.matrix == run.name]
        sections += [_matrix_section(run, parts), *map(_eval_section, parts)]
    sections += [_eval_section(one) for one in data.evals if one.matrix is None]
    if data.comparisons:
        sections.append(_comparison_section(data))
    if trained:
        runs = [load_run(folder) for folder in trained]
        facts = [one.run for one in data.trainings]
        section = Section(
            "Training",
            tables=[before_after_table(runs), *_program_tables(data.trainings)],
            charts=[*training_charts(data.trainings)],
            notes=training_notes(runs),
            warnings=[text for one in facts for text in _status_warnings(one)],
        )
        sections.append(_with_facts(section, facts))
    return sections


def _program_tables(runs: Sequence[TrainingReport]) -> list[Cells]:
    """The programs of the first and the last fifth of each training; none where no policy wrote any."""
    header = ["run", "program", "share in the first fifth of steps", "in the last"]
    table = Cells("Programs that the policies wrote", header, keys=2)
    for run in runs:
        for curve in run.programs:
            some = max(1, len(curve.points) // 5)
            shares = (_mean_share(curve, slice(some)), _mean_share(curve, slice(-some, None)))
            first = curve is run.programs[0]
            table.rows.append([run.run.name if first else "", curve.name, *(f"{share:.0%}" for share in shares)])
    return [table] if table.rows else []


def _mean_share(curve: Curve, some: slice) -> float:
    return fmean(share for _, share in curve.points[some])


def _matrix_section(run: RunFacts, parts: Sequence[EvalReport]) -> Section:
    summaries = {one.environment: one.summary for one in parts}
    section = Section(
        run.name,
        scaffolds=max(len(summary.scaffolds) for summary in summaries.values()),
        tables=[matrix_table(summaries, run.title)],
        notes=matrix_notes(summaries),
        warnings=_status_warnings(run),
    )
    return _with_facts(section, [run])


def _eval_section(one: EvalReport) -> Section:
    summary = one.summary
    section = Section(
        one.run.name,
        scaffolds=len(summary.scaffolds),
        within=one.matrix is not None,
        tables=report_tables(summary, one.run.title),
        charts=[*length_charts(summary), *sub_call_charts(summary)],
        notes=report_notes(summary),
        warnings=[*_status_warnings(one.run), *report_warnings(summary)],
    )
    if not any(group.rollouts for group in summary.scaffolds):
        section.warnings.append(f"{one.run.name}: no rollout has ended yet.")
    return _with_facts(section, [one.run])


def _status_warnings(run: RunFacts) -> list[str]:
    """What is to be said of a run that has not ended, or was ended early."""
    if run.status in ("complete", "decided"):
        return []
    if run.status == "pilot":
        return [f"{run.name}: a pilot; the eval itself has not begun."]
    if run.status == "running":
        return [f"{run.name}: the run goes on; the numbers are those of what has ended so far."]
    if run.status in ("stopped", "unfinished"):
        return [f"{run.name}: the run has not ended, or not well; --resume goes on with it."]
    return [f"{run.name}: the run is {run.status}."]


def _comparison_section(data: ReportData) -> Section:
    comparisons = data.comparisons
    many = len(comparisons) > 1
    p = f"p, corrected for {len(comparisons)} (Holm)" if many else "p"
    header = ["scaffold", "run", "minus run", "score, paired [95 % interval]", "tasks", "right alone, wrong alone", p]
    table = Cells("Runs on the same tasks", header, keys=2)
    for one in comparisons:
        found = one.comparison
        difference = found.difference
        alone = f"{found.mcnemar.only_ours}, {found.mcnemar.only_theirs}" if found.mcnemar else NONE
        interval = f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
        cells = [interval, str(difference.tasks), alone, p_text(found.p_holm)]
        table.rows.append([one.scaffold, found.scaffold, found.baseline, *cells])
    return Section("Comparison of runs", tables=[table], notes=_comparison_notes(data))


def _comparison_notes(data: ReportData) -> list[str]:
    tested = {one.run.name for one in data.evals if one.summary.stopping is not None}
    everything = [one.comparison for one in data.comparisons]
    fixed = [one for one in everything if not tested & {one.scaffold, one.baseline}]
    notes = [f"Each run is compared with the first one that was asked the same tasks. On intervals and tests: {PAGE}."]
    if fixed:
        fewest = min(one.difference.tasks for one in fixed)
        notes += [*comparison_notes(fixed), *few_tasks_notes(fewest, fixed)]
    if len(fixed) < len(everything):
        notes.append("Where a test may have ended one of the two runs, interval and p hold whenever one stops.")
    return notes


def _with_facts(section: Section, runs: Sequence[RunFacts]) -> Section:
    listed = [_facts_of(run) for run in runs]
    names = dict.fromkeys(name for facts in listed for name in facts)
    section.facts = Cells("What the runs were made of", ["", *(run.name for run in runs)], wrap=True)
    section.facts.rows = [[name, *(facts.get(name, NONE) for facts in listed)] for name in names]
    section.configs = [(run.name, tomli_w.dumps(plain({**run.config, "record": run.record}))) for run in runs]
    return section


def _facts_of(run: RunFacts) -> dict[str, str]:
    """The facts that tell one run from another, as text."""
    record, facts = run.record, {"status": run.status, "started": run.started or NONE}
    if run.seed is not None:
        facts["seed"] = str(run.seed)
    for role, model in _tables(record.get("models")).items():
        facts[f"{role} model"] = " ".join([str(model.get("name")), *_hash(model.get("sha256"))])
    if isinstance(model := record.get("model"), Mapping):
        facts["model"] = " ".join([str(model.get("name")), *_hash(model.get("sha256"))])
    if package := _table(record.get("package")):
        shown = f"{package.get('name')} {package.get('version')}"
        facts["environment"] = " ".join([shown, *_hash(package.get("sha256"))])
    if "tasks_sha256" in record:
        facts["tasks"] = " ".join([str(record.get("tasks")), *_hash(record["tasks_sha256"])])
    for scaffold, described in _tables(record.get("scaffolds")).items():
        if "prompt_sha256" in described:
            facts[f"prompt of {scaffold}"] = " ".join(_hash(described["prompt_sha256"]))
    return facts | {package: str(version) for package, version in _table(record.get("versions")).items()}


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _tables(value: Any) -> dict[str, Mapping[str, Any]]:
    return {key: one for key, one in _table(value).items() if isinstance(one, Mapping)}


def _hash(sha256: Any) -> list[str]:
    return [f"({str(sha256)[:12]})"] if sha256 else []
