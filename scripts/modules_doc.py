"""Writes docs/modules.md: every module with the first sentence of its docstring and the names that it defines.

python scripts/modules_doc.py            # writes the page
python scripts/modules_doc.py --check    # exit code 1 where it is out of date
"""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "modules.md"
PACKAGES = {"rewards/rlm_rewards": "Scorers", "rlm_env": "The package", "environments": "The environments"}
WITH_CONSTANTS = "rlm_env"
"""The package whose constants are listed too."""
HEAD = """\
# Modules

Every module in one line: what it is, and the public names that it defines. Written by
`scripts/modules_doc.py`. What the rooms are and where to change what: [architecture.md](architecture.md).
"""


def page() -> str:
    """The whole page as Markdown."""
    parts = [HEAD]
    for package, title in PACKAGES.items():
        folders: dict[str, list[str]] = {}
        for file in sorted((ROOT / package).rglob("*.py")):
            if "tests" not in file.parts and (row := module_row(file, constants=package == WITH_CONSTANTS)):
                folders.setdefault(file.parent.relative_to(ROOT).as_posix(), []).append(row)
        for folder, rows in folders.items():
            heading = f"## {title}: `{folder}/`" if folder == package else f"## `{folder}/`"
            parts.append("\n".join([heading, "", "| module | what it is | names |", "| --- | --- | --- |", *rows]))
    return "\n\n".join(parts) + "\n"


def module_row(file: Path, *, constants: bool) -> str | None:
    """One row of the table; None for a module that only re-exports."""
    tree = ast.parse(file.read_text("utf-8"))
    names = defined_names(tree, constants=constants)
    if file.name == "__init__.py" and not names:
        return None
    sentence = (ast.get_docstring(tree) or "").split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
    listed = ", ".join(f"`{name}`" for name in names)
    return f"| `{file.name}` | {sentence} | {listed} |"


def defined_names(tree: ast.Module, *, constants: bool) -> list[str]:
    """Public functions and classes at the top of a module, and constants where asked for, in order."""
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign) and constants:
            names += [target.id for target in node.targets if isinstance(target, ast.Name) and len(target.id) > 1]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and constants:
            names.append(node.target.id)
    return [name for name in names if not name.startswith("_")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where the page is out of date")
    if parser.parse_args().check:
        current = PAGE.is_file() and PAGE.read_text("utf-8") == page()
        if not current:
            print("docs/modules.md is out of date: run python scripts/modules_doc.py", file=sys.stderr)
        return 0 if current else 1
    PAGE.write_text(page(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
