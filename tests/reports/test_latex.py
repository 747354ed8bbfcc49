"""Tables as LaTeX: whatever a name holds is text, and a real pdfLaTeX sets it."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_env.reports.document import Section
from rlm_env.reports.latex import latex_report, latex_text
from rlm_env.runs.tables import Cells
from tests.reports.conftest import HOSTILE

NASTY = [
    HOSTILE,
    "[1]",
    "*",
    "\\end{tabular}",
    "50 % & more",
    "a--b---c",
    "ÄÖÜß éñçøå ÐÞ ł 中文 🙂",
    "\x1b[31m\x00\u202e",
    "¿¡«»°µ±…×÷",
]
COMMANDS = (
    r"\\(?:textbackslash|textasciicircum|textasciitilde|textless|textgreater|textbar|ldots|`)\{\}|\$\\(?:pm|times)\$"
)
PLAIN = re.compile(rf"(?:{COMMANDS}|\\[{{}}$&#%_]|-\{{\}}|[^\\{{}}$&#%_^~\"<>|\n])*")


def section(texts: list[str]) -> Section:
    rows = [[text, f"  {text}", text] for text in texts]
    return Section(texts[0], tables=[Cells(texts[0], ["", texts[-1], "scaffold"], rows)], notes=texts, warnings=texts)


@settings(max_examples=50)
@given(st.text(max_size=40) | st.text("\\{}$&#%_^~<>|`-[]*\"'", max_size=40))
def test_nothing_in_a_text_means_anything_to_latex(text):
    told = latex_text(text)
    assert PLAIN.fullmatch(told)
    assert "--" not in told
    assert all(" " <= character <= "ÿ" for character in told)


def test_plain_words_stay_as_they_are():
    assert latex_text("score [95 % interval], rlm-tips: 0.5") == r"score [95 \% interval], rlm-tips: 0.5"


def test_no_row_is_taken_for_an_argument_of_the_one_before():
    rows = latex_report([section(["[1]", "*"])], "1").split(r"\midrule")[1].split(r"\bottomrule")[0].strip().split("\n")
    assert [row[:5] for row in rows] == ["{[1]}", "{*} &"]


def test_pdflatex_sets_it(tmp_path):
    program = shutil.which("pdflatex")
    if program is None:
        pytest.skip("no pdflatex on this machine: apt-get install texlive-latex-recommended")
    head = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
    (tmp_path / "x.tex").write_text(head + latex_report([section(NASTY)], "1") + "\\end{document}\n")
    command = [program, "-interaction=nonstopmode", "-halt-on-error", "x.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "x.pdf").exists()
