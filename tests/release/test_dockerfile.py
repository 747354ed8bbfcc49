"""The Dockerfile keeps the rules of hadolint that matter, and copies what is there and is sent to the builder.

No image is built here: the commands of its first stage are run by hand, and the sandbox inside a container by
docs/sandbox.md's command.
"""

from __future__ import annotations

import fnmatch
import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def instructions(text: str) -> list[tuple[str, str]]:
    """Keyword and rest of each instruction; lines that end in a backslash are joined, comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [
        (word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines()) if word
    ]


FOUND = instructions((ROOT / "Dockerfile").read_text("utf-8"))


def rests(word: str, found: list[tuple[str, str]]) -> list[str]:
    return [rest for name, rest in found if name == word]


def broken_rules(found: list[tuple[str, str]]) -> set[str]:
    """The rules of hadolint, by their numbers, that instructions break."""
    runs = rests("RUN", found)
    checks = {
        "DL3000": all(rest.startswith("/") for rest in rests("WORKDIR", found)),
        "DL3002": rests("USER", found)[-1:] not in ([], ["root"], ["0"]),
        "DL3004": not any(re.search(r"\bsudo\b", run) for run in runs),
        "DL3006": all(re.search(r":[^:]+|^scratch$", rest.split()[0]) for rest in rests("FROM", found)),
        "DL3007": not any(":latest" in rest for rest in rests("FROM", found)),
        "DL3009": all("rm -rf /var/lib/apt/lists" in run for run in runs if "apt-get update" in run),
        "DL3015": all("--no-install-recommends" in run for run in runs if "apt-get install" in run),
        "DL3020": not rests("ADD", found),
        "DL3025": all(
            json.loads(rest) for word in ("CMD", "ENTRYPOINT") for rest in rests(word, found) if rest[0] == "["
        ),
        "DL3042": all("--no-cache-dir" in run for run in runs if "pip install" in run)
        or any("PIP_NO_CACHE_DIR=1" in rest for rest in rests("ENV", found)),
        "DL4000": not rests("MAINTAINER", found),
        "DL4003": len(rests("CMD", found)) <= 1,
        "DL4004": len(rests("ENTRYPOINT", found)) <= 1,
    }
    return {rule for rule, kept in checks.items() if not kept}


def test_no_rule_is_broken():
    assert broken_rules(FOUND) == set()


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("FROM python\nUSER a", "DL3006"),
        ("FROM python:latest\nUSER a", "DL3007"),
        ("FROM python:3\nUSER root", "DL3002"),
        ("FROM python:3\nRUN apt-get update && \\\n  apt-get install -y gcc\nUSER a", "DL3009"),
        ("FROM python:3\nRUN pip install x\nUSER a", "DL3042"),
        ("FROM python:3\nADD . .\nUSER a", "DL3020"),
    ],
)
def test_a_broken_rule_is_found(text, rule):
    assert rule in broken_rules(instructions(text))


def test_what_is_copied_is_there_and_sent_to_the_builder():
    """.dockerignore leaves out everything and takes back what is named after `!`."""
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    sent = {line[1:] for line in lines if line.startswith("!")}
    left_out = [line.removeprefix("**/") for line in lines if line.startswith("**/")]
    assert "*" in lines
    copied = {name for rest in rests("COPY", FOUND) if not rest.startswith("--from") for name in rest.split()[:-1]}
    assert copied == sent
    for name in copied:
        assert (ROOT / name).exists()
        assert not any(fnmatch.fnmatch(name, pattern) for pattern in left_out)


def test_what_the_build_needs_is_copied():
    """Hatchling reads these: the readme, the license, the version and the packages."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    hatch = project["tool"]["hatch"]
    needed = {project["project"]["readme"], *project["project"]["license-files"], hatch["version"]["path"]}
    needed |= set(hatch["build"]["targets"]["wheel"]["packages"])
    copied = {name for rest in rests("COPY", FOUND) for name in rest.split()[:-1]}
    assert {name.split("/")[0] for name in needed} <= copied


def test_extras_are_there():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    named = re.findall(r"EXTRAS=([\w,-]+)", (ROOT / "Dockerfile").read_text("utf-8"))
    assert len(named) == 2
    assert {extra for names in named for extra in names.split(",")} <= extras.keys()
