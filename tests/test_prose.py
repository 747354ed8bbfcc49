"""Files and folders that docstrings, comments and documents name in backticks exist."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("rlm_env", "rewards", "environments", "scripts", "docs", "tests", "configs", "examples", ".github", ".ci")
NAMED = re.compile(r"`([\w.@/-]+(?:\.(?:py|md|toml|jsonl?|txt|sh|yaml|yml|png|jinja|gz|safetensors)|/))`")
"""A name in backticks that ends like a file, or in a slash like a folder."""
ELSEWHERE = {
    "config.toml": "a run's configuration",
    "summary.json": "a run's outcome",
    "rollouts.jsonl": "a run's rollouts",
    "results.jsonl": "an evaluation's scores",
    "metrics.jsonl": "a training run's metrics",
    "held_out.jsonl": "a training run's scores on held-out tasks",
    "journal.jsonl": "a training run's draws",
    "teacher.jsonl": "a training run's answers of its teacher",
    "contexts/": "a run's contexts, each one once",
    "baselines.jsonl": "an evaluation's baselines, task by task",
    "checkpoints/": "a training run's checkpoints",
    "contents.json": "part of a checkpoint",
    "model/": "a training run's model",
    "root/": "the adapter of the root",
    "sub/": "the adapter of the sub-LLMs",
    "step-000001.jsonl": "a training run's samples of one step",
    "step-000020/": "a checkpoint",
    "out/": "a user's output folder",
    "my_env/environment.py": "a file of a new environment package",
    "environments/my_env/my_env/environment.py": "the same, in the project that it is made in",
    "my_env/tips.txt": "a file of a new environment package",
    "data.json": "a file of LongBench-v2",
    ".jsonl.gz": "an ending",
    "json/decoder.py": "a file of Python's standard library",
    "json/__init__.py": "a file of Python's standard library",
}
"""Files and folders that are named in backticks and lie outside of the repository -> what they are."""


def existing() -> set[str]:
    """Every file and folder of the project, and every end of its path: `a/b.py` is known as `a/b.py` and `b.py`."""
    paths = [path for room in ROOMS for path in (ROOT / room).rglob("*") if "__pycache__" not in path.parts]
    paths += [path for path in ROOT.iterdir() if path.name in ROOMS or path.is_file()]
    known: set[str] = set()
    for path in paths:
        parts = path.relative_to(ROOT).parts
        known |= {"/".join(parts[start:]) for start in range(len(parts))}
    return known


@cache
def prose_of(path: Path) -> str:
    """A document, or the strings that stand alone (docstrings) and the comments of a Python file."""
    text = path.read_text("utf-8")
    if path.suffix == ".md":
        return text
    alone = [
        node.value.value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return "\n".join([*alone, *(token.string for token in tokens if token.type == tokenize.COMMENT)])


def sources() -> list[Path]:
    patterns = ["*.md", "docs/**/*.md", "environments/*/*.md"]
    patterns += [f"{room}/**/*.py" for room in ("rlm_env", "rewards", "environments", "scripts", "examples")]
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern))


def missing(path: Path, known: set[str]) -> list[str]:
    """The named files and folders that do not exist."""
    return [
        f"{path.relative_to(ROOT)}: `{name}`"
        for name in dict.fromkeys(NAMED.findall(prose_of(path)))
        if name not in ELSEWHERE and name.strip("/") not in known and not (path.parent / name).exists()
    ]


def test_named_files_exist():
    known = existing()
    wrong = [text for path in sources() for text in missing(path, known)]
    assert wrong == []


def test_every_exception_is_in_use():
    named = {name for path in sources() for name in NAMED.findall(prose_of(path))}
    assert set(ELSEWHERE) - named == set()


def test_a_missing_file_is_found(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tests.test_prose.ROOT", tmp_path)
    source = tmp_path / "channel.py"
    source.write_text('"""See `channel.py`, `wire.py` and `walls/`."""\nx = "`string.py`"  # and `comment.py`\n')
    assert missing(source, set()) == [f"channel.py: `{name}`" for name in ("wire.py", "walls/", "comment.py")]
