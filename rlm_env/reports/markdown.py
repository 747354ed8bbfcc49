"""A report as GitHub Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from rlm_env.reports.document import Section
from rlm_env.runs.tables import markdown_tables, markdown_text


def markdown_sections(sections: Sequence[Section]) -> str:
    """All sections; with headings where there are several."""
    parts = []
    for section in sections:
        tables = [*section.tables, *([section.facts] if section.facts is not None else [])]
        heading = f"## {markdown_text(section.title)}\n\n" if len(sections) > 1 else ""
        parts.append(heading + markdown_tables(tables, [*section.notes, *section.warnings]))
    return "\n".join(parts)
