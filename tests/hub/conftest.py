"""Fixtures of the tests of packages."""

from tests.hub.planting import planted  # noqa: F401 - a fixture
