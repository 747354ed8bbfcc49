"""The tables of a report as LaTeX, for the preamble `\\usepackage{booktabs}`; pdfLaTeX, XeLaTeX and LuaLaTeX take them.

Charts are left out: their numbers stand in the tables. Characters that a plain document cannot set are written as their
code points.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlm_env.readable import visible
from rlm_env.reports.document import Section
from rlm_env.runs.tables import TEXT_COLUMNS, Cells

HEAD = "% Tables of rlm-env {version}. Needs \\usepackage{{booktabs}} in the preamble.\n"
_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "`": r"\`{}", "±": r"$\pm$", "…": r"\ldots{}", "×": r"$\times$",
    "\n": " ", "\t": " ",
}  # fmt: skip
_NOT_IN_OT1 = frozenset("÷ÐðÞþ")
"""Letters that need the font encoding T1."""


def latex_report(sections: Sequence[Section], version: str) -> str:
    """All tables, each a `table` with its caption; notes follow the tables of their section."""
    parts = [HEAD.format(version=version)]
    for section in sections:
        parts.append(f"% {_comment(section.title)}\n")
        tables = [*section.tables, *([section.facts] if section.facts is not None else [])]
        parts += [_table(cells) for cells in tables]
        said = [*section.warnings, *section.notes]
        if said:
            items = "\n".join(f"\\item {latex_text(text)}" for text in said)
            parts.append(f"\\begin{{itemize}}\n{items}\n\\end{{itemize}}\n")
    return "\n".join(parts)


def latex_text(text: str) -> str:
    """The text with everything escaped that means something to LaTeX, or that it cannot set."""
    escaped = "".join(map(_character, visible(text)))
    return escaped.replace("--", "-{}-").replace("--", "-{}-")  # no dashes of hyphens: options are named


def _character(character: str) -> str:
    if character in _SPECIAL:
        return _SPECIAL[character]
    if " " <= character <= "~" or ("À" <= character <= "ÿ" and character not in _NOT_IN_OT1):
        return character
    return f"[U+{ord(character):04X}]"


def _comment(text: str) -> str:
    """A text in a comment, which ends with its line."""
    return " ".join(visible(text).encode("ascii", "backslashreplace").decode("ascii").split())


def _table(cells: Cells) -> str:
    columns = "".join("l" if name in TEXT_COLUMNS else "r" for name in cells.header)
    rows = [_row(row) for row in cells.rows]
    lines = [
        r"\begin{table}[htbp]",
        r"\centering\small",
        rf"\caption{{{latex_text(cells.title)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _row(cells.header),
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _row(row: Sequence[str]) -> str:
    texts = [rf"\quad {latex_text(cell.strip())}" if cell.startswith("  ") else latex_text(cell) for cell in row]
    # a row that began with a bracket or a star would be an argument of the line break before it
    return " & ".join(f"{{{text}}}" if text.startswith(("[", "*")) else text for text in texts) + r" \\"
