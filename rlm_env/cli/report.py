"""The command `rlm-env report`: what came out of runs, in every form; and the tables that other commands end with."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from rlm_env.cli.common import add_command
from rlm_env.readable import visible
from rlm_env.runs.console import PLAIN_WIDTH, say, standard_output
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.files import replace_file
from rlm_env.runs.tables import print_tables

if TYPE_CHECKING:
    from rlm_env.evals.matrix import MatrixResult
    from rlm_env.evals.stored import EvalResult
    from rlm_env.reports.data import ReportData
    from rlm_env.reports.document import Section

PLAIN_WIDTH_OF_MANY = 190
"""As `PLAIN_WIDTH`, for a table with many scaffolds."""
EXAMPLES = """\
  rlm-env report outputs/NAME
  rlm-env report outputs                                 # every run in there
  rlm-env report outputs/NAME --markdown
  rlm-env report outputs/BEFORE outputs/AFTER --html --out report.html
  rlm-env report outputs/NAME --json | jq .evals[0].summary.comparisons
  rlm-env report outputs/SEED0 outputs/SEED1 outputs/SEED2 --curve reward.png
"""
FORMS = ("markdown", "html", "latex", "json")


def add_report(commands: Any) -> None:
    """Adds the command to the parser of `rlm-env`."""
    command = add_command(
        commands,
        "report",
        summary="tell what came out of runs, from their folders: tables, a page, LaTeX, JSON",
        description="Reports on evals and training runs, finished or not. Evals are reported one after the other; "
        "those of the same tasks are compared with the first of them, task by task. Training runs, such as several "
        "seeds of one, share a table.",
        examples=EXAMPLES,
    )
    command.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="FOLDER",
        help="the output folder of a run, or a folder that holds several",
    )
    form = command.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="Markdown")
    form.add_argument("--html", action="store_true", help="one page with charts by context length, without scripts")
    form.add_argument("--latex", action="store_true", help="tables for a paper; they need the package booktabs")
    form.add_argument("--json", action="store_true", help="the numbers; docs/report.schema.json says what they are")
    command.add_argument("--out", type=Path, metavar="FILE", help="write to this file (default: standard output)")
    command.add_argument(
        "--curve",
        type=Path,
        metavar="FILE.png",
        help="also draw the reward curve of training runs (default: tables alone)",
    )
    command.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    from rlm_env.reports.document import make_document
    from rlm_env.reports.reading import is_training, run_folders

    form = next((form for form in FORMS if getattr(arguments, form)), None)
    if arguments.out is not None and form is None:
        raise ConfigError(f"--out needs a form: --{', --'.join(FORMS)}")
    named = {folder.resolve() for folder in arguments.folders}
    folders = [
        run
        for folder in arguments.folders
        for run in run_folders(folder)
        if run == folder or run.resolve() not in named
    ]
    if arguments.curve is not None and not all(map(is_training, folders)):
        raise ConfigError("--curve is for training runs alone")
    data, read = _read(folders, arguments.folders)
    trained = [folder for folder in read if is_training(folder)]
    sections = make_document(data, trained)
    if form is None:
        _print_sections([section for section in sections if not section.within])
    else:
        _write(_as_text(form, data, sections), arguments.out)
    if arguments.curve is not None:
        from rlm_env.train.report.curve import draw_curve
        from rlm_env.train.report.report import load_run

        draw_curve([load_run(folder) for folder in trained], arguments.curve)
    return 0


def _read(folders: Sequence[Path], named: Sequence[Path]) -> tuple[ReportData, list[Path]]:
    """The numbers of the runs, and those of the folders that could be read. Of the runs in a folder that was named,
    those that cannot be read are told and left out. Raises ConfigError and RecordError for a run that was itself named,
    and where none can be read."""
    from rlm_env.reports.reading import read_report

    errors = Console(stderr=True)
    show = len(folders) > 1 and errors.is_terminal
    left: list[Path] = []

    def left_out(folder: Path, error: ValueError) -> None:
        if folder in named:
            raise error
        left.append(folder)
        say(errors, f"left out: {error}", "yellow")

    data = read_report(folders, lambda folder: say(errors, f"reading {folder}") if show else None, left_out)
    read = [folder for folder in folders if folder not in left]
    if not read:
        raise ConfigError(f"none of the {len(left)} runs in {', '.join(map(str, named))} can be read")
    return data, read


def _print_sections(sections: Sequence[Section]) -> None:
    from rlm_env.evals.report import MANY_SCAFFOLDS

    for section in sections:
        console = standard_output(PLAIN_WIDTH if section.scaffolds <= MANY_SCAFFOLDS else PLAIN_WIDTH_OF_MANY)
        if len(sections) > 1:  # the titles of tables do not name the folder
            console.print(f"\n{visible(section.title)}\n", markup=False, highlight=False, style="bold underline")
        print_tables(console, section.tables, section.notes, section.warnings)


def _as_text(form: str, data: ReportData, sections: Sequence[Section]) -> str:
    """The report in one of `FORMS`."""
    from rlm_env.reports.html import html_report
    from rlm_env.reports.latex import latex_report
    from rlm_env.reports.markdown import markdown_sections

    if form == "json":
        return data.to_json()
    if form == "markdown":
        return markdown_sections([section for section in sections if not section.within])
    return html_report(sections, data.version) if form == "html" else latex_report(sections, data.version)


def _write(text: str, path: Path | None) -> None:
    """Writes to a file, or to standard output. Raises ConfigError where the file cannot be written."""
    if path is None:
        sys.stdout.write(text)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error


def print_result(result: EvalResult | MatrixResult, *, markdown: bool) -> None:
    """Prints the tables of an eval."""
    from rlm_env.evals.matrix import MatrixResult
    from rlm_env.evals.matrix_report import markdown_matrix, print_matrix
    from rlm_env.evals.report import MANY_SCAFFOLDS, markdown_report, print_report

    most = max((len(summary.scaffolds) for summary in result.summaries.values()), default=0)
    console = standard_output(PLAIN_WIDTH if most <= MANY_SCAFFOLDS else PLAIN_WIDTH_OF_MANY)
    if isinstance(result, MatrixResult):
        if markdown:
            sys.stdout.write(markdown_matrix(result.summaries, result.title))
        else:
            print_matrix(console, result.summaries, result.title)
    elif markdown:
        sys.stdout.write(markdown_report(result.summary, result.title))
    else:
        print_report(console, result.summary, result.title)
