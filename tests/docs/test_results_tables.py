"""Tables of README and docs are those of the numbers in docs/results/."""

from __future__ import annotations

import json
import re

import pytest

import results_tables
from results_tables import BENCHES, BLOCK, MEASURED, PAGES, RESULTS, ROOT, TABLES, with_tables

README = (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_are_up_to_date(page):
    text = page.read_text("utf-8")
    assert with_tables(text) == text, "run python scripts/results_tables.py"


def test_every_table_stands_on_one_page():
    names = [name for page in PAGES for _, name, _ in BLOCK.findall(page.read_text("utf-8"))]
    assert sorted(names) == sorted(TABLES)


def test_readme_has_no_measurement_outside_of_its_tables():
    prose = BLOCK.sub("", README)
    found = re.findall(r"[^.\n]*(?:\d[\d.]* times|\d ?%|± ?\d|\d ?ms\b|tokens/s)[^.\n]*", prose)
    assert found == [], "put it into docs/results and scripts/results_tables.py"


def test_kept_numbers_name_what_made_them():
    for path in RESULTS.iterdir():
        numbers = json.loads(path.read_text("utf-8"))
        assert {"rlm-env", "python"} <= numbers["versions"].keys()
        if path.stem in BENCHES:
            assert numbers["lines"]
            assert (ROOT / numbers["command"].split()[1]).is_file()


def test_every_kept_file_is_shown():
    assert {path.stem for path in RESULTS.iterdir()} <= {*TABLES, *MEASURED}


def test_a_bench_is_kept_with_its_options(monkeypatch, tmp_path):
    (tmp_path / "bench.py").write_text('import sys\nprint("warming up")\nprint(\'{"got": "%s"}\' % sys.argv[1:])')
    monkeypatch.setitem(BENCHES, "mine", (str(tmp_path / "bench.py"),))
    assert results_tables.bench_numbers("mine", ["--quick"])["lines"] == [{"got": "['--quick']"}]
