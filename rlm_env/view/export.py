"""One HTML file that shows a run, or some of its rollouts, without a server: the page with the answers in it.

The answers are those of `api.py`, compressed one by one, so that a browser unpacks only what is looked at. The file
loads nothing from elsewhere, and its policy forbids it to.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rlm_env.runs.errors import ConfigError
from rlm_env.runs.files import disk_errors, replace_file
from rlm_env.view.api import CONTEXT_PAGE, Api
from rlm_env.view.assets import single_page
from rlm_env.view.runs import ViewedRun
from rlm_env.view.sub_calls import BLOCK
from rlm_env.view.tokens import PAGE
from rlm_env.view.workplace import Workplace

CONTEXT_CHARS = 200_000
"""Of a longer context the pages are left out; what prompts quote of it is there all the same."""
SAMPLES = 16
"""Samples of a rollout whose tokens are in the file."""


EACH_RUN = ("scores", "numbers", "programs", "groups")
"""What is held of every run as a whole, besides its rows."""


def export_page(
    workplace: Workplace,
    path: Path,
    wanted: Sequence[str] = (),
    report: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Writes the page; returns the number of rollouts in it. `wanted`: ids, or parts of ids; all rollouts by default.

    Raises ConfigError where no rollout has such an id, and RunStopped where the disk refuses.
    """
    api = Api(workplace)
    keys: dict[str, list[str]] = {}
    for run in workplace.runs():
        run.refresh()
        keys[run.name] = [key for source in run.sources for key in source.lines if _is_wanted(key, wanted)]
    total = sum(map(len, keys.values()))
    if wanted and not total:
        raise ConfigError(f"no rollout has {' or '.join(map(repr, wanted))} in its id")
    held = {"runs": _packed(api.get(["runs"], {}))}
    done = 0
    for run in workplace.runs():
        base = ["runs", run.name]
        held |= {_path([*base, what]): _packed(api.get([*base, what], {})) for what in EACH_RUN}
        for group in api.groups(run)["groups"]:
            parts = [*base, "groups", str(group["group"])]
            held[_path(parts)] = _packed(api.get(parts, {}))
        held[_path([*base, "rows"])] = _packed(_all_rows(api, run, set(keys[run.name])))
        for key in keys[run.name]:
            for parts, answer in _of_rollout(api, [*base, "rollouts", key]):
                held[_path(parts)] = _packed(answer)
            done += 1
            report(done, total)
    data = json.dumps(held, separators=(",", ":")).replace("<", "\\u003c")
    path.parent.mkdir(parents=True, exist_ok=True)
    with disk_errors(path, "writing it"):
        replace_file(path, single_page(data))
    return total


def _is_wanted(key: str, wanted: Sequence[str]) -> bool:
    return not wanted or any(part in key for part in wanted)


def _all_rows(api: Api, run: ViewedRun, keys: set[str]) -> dict[str, Any]:
    answer = api.rows(run, "")
    while answer["more"]:
        further = api.rows(run, answer["after"])
        answer = further | {"rows": answer["rows"] + further["rows"], "reset": True}
    return answer | {"rows": [row for row in answer["rows"] if row["key"] in keys]}


def _of_rollout(api: Api, base: list[str]) -> Iterator[tuple[list[str], Any]]:
    page = api.get(base, {})
    yield base, page
    for batch in page["batches"]:
        parts = [*base, "calls", str(batch["batch"])]
        yield parts, api.get(parts, {})
        for block in range(0, (batch["calls"] + BLOCK - 1) // BLOCK):
            yield [*parts, str(block)], api.get([*parts, str(block)], {})
    if page["has_tokens"]:
        samples = api.get([*base, "samples"], {})
        yield [*base, "samples"], samples
        for index, sample in enumerate(samples["samples"][:SAMPLES]):
            for start in range(0, sample["tokens"], PAGE):
                parts = [*base, "samples", str(index), str(start)]
                yield parts, api.get(parts, {})
    coverage = page["coverage"]
    if coverage is not None and page["context_problem"] is None and coverage["chars"] <= CONTEXT_CHARS:
        for number in range((coverage["chars"] + CONTEXT_PAGE - 1) // CONTEXT_PAGE):
            parts = [*base, "context", str(number)]
            yield parts, api.get(parts, {})


def _path(parts: Sequence[str]) -> str:
    """As the page writes it: each part encoded like `encodeURIComponent` does."""
    return "/".join(quote(part, safe="!'()*-._~") for part in parts)


def _packed(answer: Any) -> str:
    data = json.dumps(answer, separators=(",", ":")).encode("ascii")
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode("ascii")
