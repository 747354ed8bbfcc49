"""The record of a run: engines with their versions, and how a resumed run's engines differ."""

from rlm_env.runs.record import describe_engines, engine_changes, new_record
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
    assert record["started"].endswith("+00:00")


async def test_engines_are_described_by_role_and_changes_are_told():
    old = await describe_engines({"root": Engine("0.30.0"), "sub": Engine(None)})
    assert old["root"]["engine_version"] == "0.30.0"
    assert "engine_version" not in old["sub"]
    assert engine_changes(old, old) == []
    new = await describe_engines({"root": Engine("0.31.0"), "judge": Engine("1")})
    assert engine_changes(old, new) == ["root engine: engine_version was 0.30.0 when the run began, is now 0.31.0"]
