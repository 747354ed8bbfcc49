"""What becomes of a test at an isolation level that does not start: skipped, or failed where the level has to work."""

import pytest

from rlm_env.repl import ReplPool, SandboxError
from tests.repl.levels import REQUIRED, open_pool


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(pool: ReplPool) -> ReplPool:
        raise SandboxError("no level", {"jail": "bubblewrap said no", "guard": "no Landlock"})

    monkeypatch.setattr(ReplPool, "__aenter__", refuse)


@pytest.mark.usefixtures("nothing_starts")
async def test_a_level_that_does_not_start_skips_unless_it_has_to_work(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(REQUIRED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="level jail does not work here: bubblewrap said no"):
        await open_pool("jail")
    monkeypatch.setenv(REQUIRED, "jail")
    with pytest.raises(
        pytest.fail.Exception, match=r"level jail has to work here .*, and does not: bubblewrap said no"
    ):
        await open_pool("jail")
    with pytest.raises(pytest.skip.Exception, match="level guard does not work here: no Landlock"):
        await open_pool("guard")
