"""What the Environments Hub makes of a wheel's requirements: which API of verifiers the package is listed under.

The rule is that of the `prime` command (0.18.0): a lower bound of verifiers at or above 0.2.0 is v1, any other
requirement of verifiers v0, none (or one by URL, or behind an extra) Unclassified. `prime env push --runtime` overrides
it, so a package need not require verifiers to be listed under v1.
"""

from __future__ import annotations

from collections.abc import Iterable

from packaging.requirements import Requirement
from packaging.version import Version

UNCLASSIFIED, V0, V1 = "Unclassified", "legacy verifiers v0", "verifiers v1"
V1_SINCE = Version("0.2.0")
_FLOORS = (">=", ">", "==", "===", "~=")


def hub_class(requirements: Iterable[str]) -> str:
    """The class of a package with these requirements (`Requires-Dist` of its wheel), if none is declared."""
    found = [one for text in requirements if (one := Requirement(text)).name.lower() == "verifiers"]
    found = [one for one in found if not _only_by_extra(one)]
    if not found:
        return UNCLASSIFIED
    chosen = max([one for one in found if one.marker is None] or found, key=lambda one: _floor(one) or Version("0"))
    if chosen.url:
        return UNCLASSIFIED
    floor = _floor(chosen)
    return V1 if floor is not None and floor >= V1_SINCE else V0


def _only_by_extra(requirement: Requirement) -> bool:
    marker = requirement.marker
    return marker is not None and "extra" in str(marker) and not marker.evaluate({"extra": ""})


def _floor(requirement: Requirement) -> Version | None:
    floors = [
        Version(spec.version.removesuffix(".*"))
        for spec in requirement.specifier
        if spec.operator in _FLOORS and spec.version.removesuffix(".*").replace(".", "").isalnum()
    ]
    return max(floors, default=None)
