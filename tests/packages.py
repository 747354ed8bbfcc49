"""Skips where a package is not installed, without importing it: tests are collected in seconds."""

from importlib.util import find_spec

import pytest


def needs(package: str, reason: str = "") -> None:
    """Skips the module that calls it, or the test, where `package` is not installed."""
    if find_spec(package) is None:
        pytest.skip(reason or f"{package} is not installed", allow_module_level=True)
