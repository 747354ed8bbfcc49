"""A report as one HTML file: no script, nothing from elsewhere, and a policy that forbids both.

Names, errors and settings in it are text, whatever they hold.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from rlm_env.readable import escaped
from rlm_env.reports.document import Section
from rlm_env.reports.svg import figure_svg
from rlm_env.runs.tables import TEXT_COLUMNS, Cells

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{title}</h1>{contents}</header>
<main>
{sections}
</main>
<footer>Made by rlm-env {version}.</footer>
</body>
</html>
"""


def html_report(sections: Sequence[Section], version: str) -> str:
    """The page."""
    style = _style()
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    links = "".join(f'<li><a href="#s{n}">{escaped(one.title)}</a></li>' for n, one in enumerate(sections))
    return _PAGE.format(
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        title=escaped(sections[0].title if len(sections) == 1 else f"Report of {len(sections)} parts"),
        style=style,
        contents=f'<nav aria-label="Contents"><ul>{links}</ul></nav>' if len(sections) > 1 else "",
        sections="\n".join(_section(one, f"s{n}") for n, one in enumerate(sections)),
        version=escaped(version),
    )


@cache
def _style() -> str:
    return (files("rlm_env.reports") / "report.css").read_text("utf-8")


def _section(section: Section, anchor: str) -> str:
    parts = [f'<section id="{anchor}" aria-labelledby="{anchor}-title">']
    parts.append(f'<h2 id="{anchor}-title">{escaped(section.title)}</h2>')
    parts += [f'<p class="warning" role="note">{escaped(text)}</p>' for text in section.warnings]
    parts += [_table(cells, section.title) for cells in section.tables[:1]]
    if section.charts:
        figures = [
            f"<figure><figcaption>{escaped(one.title)}</figcaption>{figure_svg(one)}</figure>" for one in section.charts
        ]
        parts.append(f'<div class="charts">{"".join(figures)}</div>')
    parts += [_table(cells, section.title) for cells in section.tables[1:]]
    if section.notes:
        parts.append('<ul class="notes">' + "".join(f"<li>{escaped(text)}</li>" for text in section.notes) + "</ul>")
    if section.facts is not None:
        parts.append(_table(section.facts, section.title))
    for name, text in section.configs:
        summary = f"<summary>Config and record of {escaped(name)}</summary>"
        parts.append(f'<details>{summary}<pre tabindex="0">{escaped(text)}</pre></details>')
    return "\n".join([*parts, "</section>"])


def _table(cells: Cells, of: str) -> str:
    """A table that scrolls where it is wider than the page. `of`: whose it is, for those who hear the page."""
    classes = ["l" if name in TEXT_COLUMNS else "r" for name in cells.header]
    head = "".join(
        f'<th scope="col" class="{kind}">{escaped(name)}</th>' if name else "<td></td>"
        for name, kind in zip(cells.header, classes, strict=True)
    )
    rows = "\n".join(f"<tr>{_row(row, cells.keys, classes)}</tr>" for row in cells.rows)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escaped(f"{cells.title}: {of}")}"><table>'
        f"<caption>{escaped(cells.title)}</caption><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>"
    )


def _row(row: Sequence[str], keys: int, classes: Sequence[str]) -> str:
    found = []
    for index, (cell, kind) in enumerate(zip(row, classes, strict=True)):
        indent = " in" if index == 0 and cell.startswith("  ") else ""
        tag = "th" if index < keys and cell.strip() else "td"
        scope = ' scope="row"' if tag == "th" else ""
        found.append(f'<{tag}{scope} class="{kind}{indent}">{escaped(cell.strip())}</{tag}>')
    return "".join(found)
