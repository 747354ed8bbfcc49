"""Hooks of mkdocs.yml: pages of the site that are files outside of docs/, and links to them.

The sources are written for a git host: a link is relative to the file that it stands in, and may lead anywhere in the
repository. What is outside of docs/ and linked to becomes a page here, and each link leads from page to page. A link
that leads nowhere is left as it is, for mkdocs to complain about.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
LISTINGS = {
    "examples.md": ("Examples", "Each runs as it stands, and is run by a test.", ("examples/*.py",)),
    "configs.md": (
        "Configs",
        "Every key: [evaluations](docs/evaluating-options.md), [training](docs/training-options.md).",
        ("configs/eval/*.toml", "configs/train/*.toml"),
    ),
}
"""Pages that show source files: title, first words (links are relative to the root) and files."""
NOTEBOOK, NOTEBOOK_PAGE = "examples/notebook.ipynb", "notebook.md"
LINK = re.compile(r"(\]\()([^)#\s:]+)(#[^)\s]*)?(?=\))")
"""A relative link or picture: bracket, path, anchor."""


def pages_outside() -> dict[str, str]:
    """Path of each document outside of docs/ -> its page."""
    found = {name: name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")}
    found |= {
        path.relative_to(ROOT).as_posix(): f"environments/{path.parent.name}.md"
        for path in sorted(ROOT.glob("environments/*/README.md"))
    }
    return {**found, "README.md": "overview.md", "rlm_env/models/tiny-rlm/README.md": "tiny-rlm.md"}


def listed_files(uri: str) -> list[str]:
    """Paths of the files that a page of `LISTINGS` shows."""
    return [path.relative_to(ROOT).as_posix() for glob in LISTINGS[uri][2] for path in sorted(ROOT.glob(glob))]


def listing(uri: str) -> str:
    """A page of `LISTINGS`: every file under a heading of its own."""
    title, about, _ = LISTINGS[uri]
    parts = [f"# {title}\n\n{about}\n"]
    for name in listed_files(uri):
        language = {".py": "python", ".toml": "toml"}[Path(name).suffix]
        parts.append(f"## {name}\n\n````{language}\n{(ROOT / name).read_text('utf-8').rstrip()}\n````\n")
    return "\n".join(parts)


def notebook() -> str:
    """The page of the notebook: its text and its code, in order, and the file itself."""
    cells = json.loads((ROOT / NOTEBOOK).read_text("utf-8"))["cells"]
    parts = ["".join(cell["source"]) for cell in cells]
    shown = [
        f"````python\n{text}\n````" if cell["cell_type"] == "code" else text
        for cell, text in zip(cells, parts, strict=True)
    ]
    title, *rest = shown
    return "\n\n".join([title, f"[Download it]({posixpath.basename(NOTEBOOK)}).", *rest]) + "\n"


def targets() -> dict[str, str]:
    """Path of a file or folder in the repository, outside of docs/ -> where it is in the site, maybe with an anchor."""
    found = {**pages_outside(), NOTEBOOK: NOTEBOOK_PAGE}
    for uri in LISTINGS:
        for name in listed_files(uri):
            found[name] = f"{uri}#{re.sub(r'[^a-z0-9_-]', '', name.lower())}"
            found[posixpath.dirname(name)] = uri
            found[posixpath.dirname(posixpath.dirname(name)) or posixpath.dirname(name)] = uri
    return found


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds the pages from outside of docs/."""
    from mkdocs.structure.files import File

    for source, uri in pages_outside().items():
        files.append(File.generated(config, uri, content=(ROOT / source).read_text("utf-8")))
    for uri in LISTINGS:
        files.append(File.generated(config, uri, content=listing(uri)))
    files.append(File.generated(config, NOTEBOOK_PAGE, content=notebook()))
    files.append(File.generated(config, posixpath.basename(NOTEBOOK), content=(ROOT / NOTEBOOK).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links from page to page, and the two things that mkdocs reads otherwise than git hosts (`as_mkdocs_reads_it`)."""
    uri = page.file.src_uri
    if uri.startswith("modules/"):
        page.meta["search"] = {"exclude": True}
    sources = {page_uri: source for source, page_uri in pages_outside().items()}
    source = "listing.md" if uri in (*LISTINGS, NOTEBOOK_PAGE) else sources.get(uri, f"docs/{uri}")
    outside = targets()

    def moved(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), found[2]))
        place = path.removeprefix("docs/") if path.startswith("docs/") else outside.get(path)
        if place is None:
            return found[0]
        return f"{found[1]}{posixpath.relpath(place, posixpath.dirname(uri) or '.')}{found[3] or ''}"

    return as_mkdocs_reads_it(LINK.sub(moved, markdown))


def as_mkdocs_reads_it(markdown: str) -> str:
    """Outside of code blocks: lists in lists are indented by four blanks, and in the code of tables `|` needs no
    backslash, which would be shown."""
    lines, in_code = [], False
    for line in markdown.split("\n"):
        in_code ^= line.lstrip().startswith("```")
        if not in_code and line.startswith("|"):
            line = re.sub(r"`[^`]+`", lambda code: code[0].replace("\\|", "|"), line)
        elif not in_code:
            line = re.sub(r"^(  )+(?=[-*] )", lambda blanks: blanks[0] * 2, line)
        lines.append(line)
    return "\n".join(lines)
