#!/usr/bin/env python
"""Prints the tables of tiny-rlm's model card, from the folder of an eval, or writes them into a card.

    rlm-env eval configs/eval/matrix_tiny.toml -n 48
    python scripts/tiny_rlm_tables.py outputs/NAME
    python scripts/tiny_rlm_tables.py outputs/NAME --card rlm_env/models/tiny-rlm/README.md

In the card the tables stand between `<!-- table: scores -->`, `<!-- table: programs -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from rlm_env.runs.errors import ConfigError
from rlm_env.runs.files import replace_file
from rlm_env.runs.tables import markdown_tables
from tiny_rlm.scores import BLIND_TASKS, PROGRAMS_NOTE, SCORES_NOTE, line_table, program_table, score_table

BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def make_tables(folder: Path, blind_tasks: int) -> dict[str, str]:
    """Markdown by the name of its place in the card. Raises ConfigError."""
    return {
        "scores": markdown_tables([score_table(folder, blind_tasks)], [SCORES_NOTE]),
        "programs": markdown_tables([program_table(folder), line_table(folder)], [PROGRAMS_NOTE]),
    }


def fill_in(card: str, tables: dict[str, str]) -> str:
    """The card with the tables in their places. Raises ConfigError if one has no place."""
    places = {found[2] for found in BLOCK.finditer(card)}
    if missing := tables.keys() - places:
        names = ", ".join(sorted(missing))
        raise ConfigError(
            f"the card has no place for {names}: it needs a line `<!-- table: NAME -->` and `<!-- end -->`"
        )

    def filled(found: re.Match[str]) -> str:
        return f"{found[1]}\n{tables[found[2]]}\n{found[3]}" if found[2] in tables else found[0]

    return BLOCK.sub(filled, card)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the output folder of an eval")
    parser.add_argument("--card", type=Path, help="write into this file (default: print)")
    parser.add_argument("--blind-tasks", type=int, default=BLIND_TASKS, help="tasks for answers without the context")
    options = parser.parse_args()
    try:
        tables = make_tables(options.folder, options.blind_tasks)
        if options.card is None:
            print("\n".join(tables.values()))
        else:
            replace_file(options.card, fill_in(options.card.read_text("utf-8"), tables))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
