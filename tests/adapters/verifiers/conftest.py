"""Importing verifiers takes seconds: its tests are slow ones, and are not even read where those are deselected."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if "not slow" not in (config.option.markexpr or "") or collection_path.suffix != ".py":
        return None
    return True if 'importorskip("verifiers"' in collection_path.read_text("utf-8") else None
