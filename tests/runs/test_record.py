"""The record of a run: engines with their versions, and how a resumed run's engines differ."""

from pathlib import Path

import rlm_env
from rlm_env.origin import Origin
from rlm_env.runs.record import check_record, describe_engines, engine_changes, make_record, new_record
from rlm_env.task import Task
from tests.stubs import StubLLM


class Engine(StubLLM):
    def __init__(self, version: str | None) -> None:
        super().__init__(lambda messages: "")
        self.version = version

    async def describe(self):
        return {**await super().describe(), "engine": "vllm", "engine_version": self.version}


def test_a_record_has_the_versions_of_packages_and_the_start():
    record = new_record(tasks=3, nothing=None)
    assert record["tasks"] == 3
    assert "nothing" not in record
    assert record["versions"]["python"].startswith("3.")
    assert record["versions"]["rlm-env"] == rlm_env.__version__  # that of the code, whatever was installed before
    assert record["started"].endswith("+00:00")


async def test_engines_are_described_by_role_and_changes_are_told():
    old = await describe_engines({"root": Engine("0.30.0"), "sub": Engine(None)})
    assert old["root"]["engine_version"] == "0.30.0"
    assert "engine_version" not in old["sub"]
    assert engine_changes(old, old) == []
    new = await describe_engines({"root": Engine("0.31.0"), "judge": Engine("1")})
    assert engine_changes(old, new) == ["root engine: engine_version was 0.30.0 when the run began, is now 0.31.0"]


def origin(version: str = "0.2.0", sha256: str = "a" * 64, published: str | None = None) -> Origin:
    return Origin("needle-rlm", version, "needle_rlm", Path("needle_rlm"), None, sha256, published)


def test_a_record_names_the_package_of_the_environment_and_its_content():
    record = make_record([Task("?", id="eval-0")], {}, {}, "needle-rlm", origin())
    assert record["package"] == {"name": "needle-rlm", "version": "0.2.0", "sha256": "a" * 64}
    changed = make_record([Task("?", id="eval-0")], {}, {}, "needle-rlm", origin(published="b" * 64))
    assert changed["package"]["published_sha256"] == "b" * 64


def test_a_resumed_run_is_told_that_the_environment_has_changed(tmp_path):
    tasks = [Task("?", id="eval-0")]
    old, new = (make_record(tasks, {}, {}, "needle-rlm", origin(sha256=char * 64)) for char in "ab")
    assert check_record(old, old, tasks, tmp_path) == []
    [warning] = check_record(old, new, tasks, tmp_path)
    assert "needle-rlm 0.2.0 (content aaaaaaaaaaaa) when the run began" in warning
    assert "now needle-rlm 0.2.0 (content bbbbbbbbbbbb)" in warning
    del old["package"]  # of a run of an earlier version
    assert check_record(old, new, tasks, tmp_path) == []
