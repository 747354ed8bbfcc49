"""The tables of options in the environments' READMEs name the options that there are."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path.name for path in (ROOT / "environments").iterdir() if (path / "pyproject.toml").is_file())
ROW = re.compile(r"^\| `(\w+)` \|", re.M)


def options_of(package: str) -> set[str]:
    """The keyword arguments of an environment's class, those of its data sets included."""
    module = importlib.import_module(f"{package}.environment")
    made = getattr(importlib.import_module(package), importlib.import_module(package).__all__[0])
    names = {
        name
        for name, parameter in inspect.signature(made).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    datasets = getattr(module, "DATASETS", {})
    return names | {field.name for kind in datasets.values() for field in dataclasses.fields(kind)}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_table_of_arguments_is_complete_and_true(package: str):
    readme = (ROOT / "environments" / package / "README.md").read_text("utf-8")
    table = readme.partition("### Environment Arguments")[2].partition("\n### ")[0]
    listed = ROW.findall(table)
    assert len(set(listed)) == len(listed)
    assert set(listed) == options_of(package)
