"""Writes README's table of scores by context length from the numbers of a run of scripts/quickstart.sh.

python scripts/readme_table.py RUN    # the folder of a run: its numbers go into docs/results/quickstart.json first
python scripts/readme_table.py        # from the numbers that are there

The table stands between `<!-- table: quickstart -->` and `<!-- end -->`. A test checks that it is up to date.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rlm_env.evals.report import length_table
from rlm_env.evals.stats import Estimate
from rlm_env.evals.stored import stored_eval
from rlm_env.runs.folder import read_run_config
from rlm_env.runs.tables import markdown_tables

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
NUMBERS = ROOT / "docs" / "results" / "quickstart.json"
BLOCK = re.compile(r"(<!-- table: quickstart -->\n\n).*?(\n<!-- end -->)", re.DOTALL)


def take(run: Path) -> None:
    """Stores the numbers of a run: those of each context length and scaffold, and the record of what made them."""
    groups = [asdict(group) for group in stored_eval(run).summary.lengths]
    record = read_run_config(run)["record"]
    numbers = {"versions": record["versions"], "lengths": groups}
    NUMBERS.parent.mkdir(exist_ok=True)
    NUMBERS.write_text(json.dumps(numbers, indent=1) + "\n", "utf-8")


def table(numbers: dict[str, Any]) -> str:
    """The table that the command prints, as Markdown."""
    groups = [SimpleNamespace(**{**group, "score": Estimate(**group["score"])}) for group in numbers["lengths"]]
    return markdown_tables([length_table(SimpleNamespace(lengths=groups))], []).strip() + "\n"


def with_table(text: str) -> str:
    """README with the table of the stored numbers."""
    numbers = json.loads(NUMBERS.read_text("utf-8"))
    return BLOCK.sub(lambda found: f"{found[1]}{table(numbers)}{found[2]}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, metavar="RUN", help="the folder of a run")
    if run := parser.parse_args().run:
        take(run)
    README.write_text(with_table(README.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
