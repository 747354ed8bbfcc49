"""Writes docs/modules.md, every module in one line, and docs/modules/, every class and function of each room.

python scripts/modules_doc.py            # writes the pages
python scripts/modules_doc.py --check    # exit code 1 where one is out of date
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
SPLIT = ("train",)
"""Rooms whose folders have a page each."""
HEAD = """\
# Modules

Every module in one line, from the foundation up. The heading of each room links to a page with all of its classes,
functions and methods, private ones included: to find a place, search there (`grep -rn WORD docs/modules/`).
Written by `scripts/modules_doc.py`. What the rooms are and where to change what: [architecture.md](architecture.md).
"""
ROOM_HEAD = """\
# {title}

{what} What to change where: [architecture.md](../architecture.md#where-to-change-what). All modules:
[modules.md](../modules.md). Written by `scripts/modules_doc.py`.
"""
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def pages() -> dict[Path, str]:
    """Every page by its path, as Markdown."""
    written, index = {}, [HEAD]
    for name, folders in rooms().items():
        title, what = room_title(folders[0])
        rows, parts = [], [ROOM_HEAD.format(title=title, what=what)]
        for file in (file for folder in folders for file in modules(folder)):
            tree = ast.parse(file.read_text("utf-8"))
            listed = list(definitions(tree))
            if file.name == "__init__.py" and not listed:
                continue
            place = file.relative_to(ROOT).as_posix()
            about = first_paragraph(tree)
            rows.append(f"| `{place}` | {about.replace('|', chr(92) + '|')} |")
            parts.append("\n".join([f"## `{place}`", "", about, "", *listed]).rstrip())
        index.append(
            "\n".join([f"## [{title}](modules/{name}.md)", "", "| module | what it is |", "| --- | --- |", *rows])
        )
        written[DOCS / "modules" / f"{name}.md"] = "\n\n".join(part.strip() for part in parts) + "\n"
    return {DOCS / "modules.md": "\n\n".join(part.strip() for part in index) + "\n", **written}


def rooms() -> dict[str, list[Path]]:
    """Name of each page -> its folders, in the order in which rooms may import each other."""
    contract = (ROOT / ".importlinter").read_text("utf-8")
    layers = re.findall(r"    (\w+)", contract.partition("containers = rlm_env\nlayers =\n")[2].partition("\n\n")[0])
    found = {"rlm_rewards": [ROOT / "rewards" / "rlm_rewards"], "rlm_env": [ROOT / "rlm_env"]}
    for room in [ROOT / "rlm_env" / layer for layer in reversed(layers)]:
        if not room.is_dir():
            continue
        inner = sorted(folder for folder in room.rglob("*") if folder.is_dir() and any(folder.glob("*.py")))
        found[room.name] = [room] if room.name in SPLIT else [room, *inner]
        if room.name in SPLIT:
            found |= {f"{room.name}-{folder.name}": [folder] for folder in inner}
    for package in sorted(path.parent for path in (ROOT / "environments").glob("*/*/__init__.py")):
        if package.name != "tests":
            inner = sorted(folder for folder in package.rglob("*") if folder.is_dir() and any(folder.glob("*.py")))
            found[f"environment-{package.name}"] = [package, *inner]
    return found


def room_title(folder: Path) -> tuple[str, str]:
    """The heading of a room and the first sentence of its package's docstring."""
    place = folder.relative_to(ROOT).as_posix()
    tree = ast.parse((folder / "__init__.py").read_text("utf-8"))
    what = first_sentence(tree)
    return f"`{place}/`", what


def modules(folder: Path) -> list[Path]:
    """The modules of a folder, without those of its folders."""
    return sorted(folder.glob("*.py"))


def definitions(tree: ast.Module) -> Iterator[str]:
    """A line for each class, function and method, in order, then the constants and what is without a description."""
    bare, constants = [], []
    for name, node in defined(tree):
        about = first_sentence(node)
        fields = f" Fields: {', '.join(f'`{field}`' for field in fields_of(node))}." if fields_of(node) else ""
        if about or fields:
            yield f"- `{name}`:{' ' if about else ''}{about}{fields}"
        else:
            bare.append(f"`{name}`")
    for name, about in constants_of(tree):
        constants.append(f"`{name}`" + (f" ({about.rstrip('.')})" if about else ""))
    if bare:
        yield f"- Also {', '.join(bare)}."
    if constants:
        yield f"- Constants: {', '.join(constants)}."


def defined(tree: ast.Module) -> Iterator[tuple[str, Definition]]:
    """Classes and functions of a module, and methods as `Class.method`; of the special ones only `__call__`."""
    for node in tree.body:
        if not isinstance(node, Definition):
            continue
        yield node.name, node
        if isinstance(node, ast.ClassDef):
            methods = [inner for inner in node.body if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)]
            yield from (
                (f"{node.name}.{inner.name}", inner)
                for inner in methods
                if not inner.name.startswith("__") or inner.name == "__call__"
            )


def fields_of(node: Definition) -> list[str]:
    """Names of the annotated fields of a class."""
    if not isinstance(node, ast.ClassDef):
        return []
    fields = [inner.target for inner in node.body if isinstance(inner, ast.AnnAssign)]
    return [field.id for field in fields if isinstance(field, ast.Name) and not field.id.startswith("_")]


def constants_of(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Names that a module assigns in capitals, or as a type, with what is written below them."""
    following = [*tree.body[1:], None]
    for node, after in zip(tree.body, following, strict=True):
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        names = [target.id for target in targets if isinstance(target, ast.Name) and target.id.strip("_")[:1].isupper()]
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        text = after.value.value if is_text and isinstance(after.value.value, str) else ""
        yield from ((name, sentence(text)) for name in names if len(name) > 1)


def first_sentence(node: ast.Module | Definition) -> str:
    """The first sentence of a docstring."""
    return sentence(ast.get_docstring(node) or "")


def first_paragraph(node: ast.Module) -> str:
    """The first paragraph of a docstring, in one line."""
    return " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())


def sentence(text: str) -> str:
    """The first sentence of a text, in one line."""
    line = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[.!?])\s+(?=[A-Z`_\"(])", line, maxsplit=1)[0]


def stored() -> dict[Path, str]:
    """The pages as they are on disk."""
    files = (DOCS / "modules.md", *(DOCS / "modules").glob("*.md"))
    return {path: path.read_text("utf-8") for path in files if path.is_file()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a page is out of date")
    check, wanted, old = parser.parse_args().check, pages(), stored()
    if check:
        if old != wanted:
            print("docs/modules is out of date: run python scripts/modules_doc.py", file=sys.stderr)
        return 0 if old == wanted else 1
    for path in old.keys() - wanted.keys():
        path.unlink()
    (DOCS / "modules").mkdir(exist_ok=True)
    for path, text in wanted.items():
        path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
