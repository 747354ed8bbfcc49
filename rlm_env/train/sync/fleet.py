"""The engines of a training run: who answers in which role, who is up, and how those that died come back.

A role ends the run only when none of its engines is left. Requests are distributed in `rlm_env/llm/balance.py`, weights
in `fleet_sync.py`; one engine is `engine.py` if it follows the trainer or is started here, `FixedEndpoint` if not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from rlm_env.llm.balance import BalancedLLM
from rlm_env.llm.base import LLM, EngineRefused, EngineUnavailable, LLMError, Sampling
from rlm_env.llm.http import NoReply
from rlm_env.llm.seat import Seat
from rlm_env.llm.vllm.install import VLLMStartError
from rlm_env.runs.engine_table import Role
from rlm_env.train.sync.config import RETURN_SECONDS
from rlm_env.train.sync.engine import HEALTH_SECONDS, EngineGone, TrainEngine

PAUSE_SECONDS = 5.0
"""Between two tries to bring an engine back."""


class Returning(Protocol):
    """An engine that may come back after a death."""

    @property
    def llm(self) -> LLM: ...

    async def restart(self) -> None: ...

    async def leave(self) -> None: ...


class FixedEndpoint:
    """An endpoint of somebody else, whose weights stay as they are."""

    def __init__(self, llm: LLM) -> None:
        self.llm = llm

    async def restart(self) -> None:
        """Asks it for one token. Raises EngineUnavailable where it does not answer."""
        try:
            await self.llm.complete([{"role": "user", "content": "Hello"}], None, Sampling(max_tokens=1))
        except EngineUnavailable:
            raise
        except NoReply as error:
            raise EngineUnavailable(str(error)) from None
        except LLMError:
            return  # it is there, and dislikes the question

    async def leave(self) -> None:
        """It goes on for others."""


@dataclass(eq=False, slots=True)
class Member:
    """An engine of the run."""

    name: str
    engine: Returning
    roles: tuple[Role, ...]
    followed: bool = True
    """It gets the trainer's weights."""
    seat: Seat = field(init=False)

    @property
    def follower(self) -> TrainEngine | None:
        """The engine, if it gets the trainer's weights."""
        return self.engine if self.followed and isinstance(self.engine, TrainEngine) else None

    def __post_init__(self) -> None:
        engine = self.engine
        self.seat = Seat(self.name, engine.llm)
        if isinstance(engine, TrainEngine):
            self.seat.healthy = lambda: engine.is_healthy(HEALTH_SECONDS)


class Fleet:
    """The engines of a run while they run. `members`: all of them, ready to answer. `tell`: called with each thing that
    happens to one, for people and for the record. `return_seconds`: see `SyncConfig`."""

    def __init__(
        self,
        members: Sequence[Member],
        tell: Callable[[str], None] = lambda _: None,
        return_seconds: float = RETURN_SECONDS,
    ) -> None:
        self.members = list(members)
        self._return_seconds = return_seconds
        self.events: list[dict[str, Any]] = []
        """What happened to engines, oldest first: `at`, `engine`, `what`."""
        self._tell = tell
        self._returning: dict[Seat, asyncio.Task[None]] = {}
        self._gone: dict[Seat, Exception] = {}
        """Engines that will not come back, and why."""
        self._llms: dict[Role, BalancedLLM] = {}
        for role in ("root", "sub", "judge"):
            if seats := [member.seat for member in self.members if role in member.roles]:
                self._llms[role] = BalancedLLM(seats, self._lost, self._rests)

    @property
    def llm(self) -> LLM:
        """The root LLM."""
        return self._llms["root"]

    @property
    def sub(self) -> LLM | None:
        """The sub-LLM; None: the root LLM."""
        return None if self._one_for_both else self._llms.get("sub")

    @property
    def judge(self) -> LLM | None:
        """The judge, where there is one."""
        return self._llms.get("judge")

    @property
    def followed(self) -> list[TrainEngine]:
        """The engines that get the trainer's weights."""
        return [member.follower for member in self.members if member.follower is not None]

    @property
    def version(self) -> int:
        """Optimizer steps that the oldest weights have seen from which a token may be sampled now."""
        return min(self._versions())

    @property
    def newest_version(self) -> int:
        """The same of the newest weights."""
        return max(self._versions())

    @property
    def windows(self) -> list[int]:
        """The context windows of what is trained, in tokens, as far as they are known."""
        windows = [engine.policy.context_window for engine in self.followed]
        return [window for window in windows if window is not None]

    @property
    def described(self) -> dict[str, LLM]:
        """Every engine by name, for the record."""
        return {member.name: member.seat.llm for member in self.members}

    async def restart(self) -> None:
        """Returns when root and sub-LLM have an engine that is up. Raises what is wrong with the last one of a role,
        EngineUnavailable for most, where none is left."""
        await self._role_is_up("root")
        await self._role_is_up("sub")

    async def judge_is_up(self) -> None:
        """The same for the judge, if the run has one."""
        await self._role_is_up("judge")

    def lose(self, engine: TrainEngine, error: EngineUnavailable) -> None:
        """An engine was found dead by something else than a request."""
        seat = next(member.seat for member in self.members if member.engine is engine)
        if seat.up:
            seat.up, seat.error = False, error
            self._lost(seat, error)

    async def statistics(self, engine: TrainEngine) -> str:
        """Its counters, see `TrainEngine.statistics`. One that does not answer has died: if it was started again by
        somebody else and was asked nothing meanwhile, it would answer the next request with the weights that it was
        started on. Raises LLMError."""
        try:
            return await engine.statistics()
        except EngineUnavailable as error:
            self.lose(engine, error)
            raise

    def is_gone(self, engine: TrainEngine) -> bool:
        """Whether it will not come back."""
        return any(member.engine is engine and member.seat in self._gone for member in self.members)

    def returned(self, engine: TrainEngine) -> None:
        """An engine had died and is back, which was found out by something else than a request."""
        member = next(member for member in self.members if member.engine is engine)
        if member.seat.up:  # else whoever brings it back says so
            self._note(member, "had died, and was started again with the newest weights")

    async def aclose(self) -> None:
        """Nobody is waited for any more."""
        for task in self._returning.values():
            task.cancel()
        await asyncio.gather(*self._returning.values(), return_exceptions=True)

    async def _role_is_up(self, role: Role) -> None:
        seats = self._llms[role].seats if role in self._llms else []
        while seats and not any(seat.up for seat in seats):
            waiting = [self._returning[seat] for seat in seats if seat in self._returning]
            if not waiting:
                raise self._none_left(seats)
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)

    @property
    def _one_for_both(self) -> bool:
        root, sub = self._llms["root"], self._llms.get("sub")
        return sub is None or sub.seats == root.seats

    def _versions(self) -> list[int]:
        up = [member.follower.version for member in self.members if member.follower is not None and member.seat.up]
        return up or [engine.version for engine in self.followed] or [0]

    def _lost(self, seat: Seat, error: EngineUnavailable) -> None:
        """An engine does not answer: it is left out until it is back."""
        member = next(member for member in self.members if member.seat is seat)
        if member.follower is not None:
            member.follower.away = True
        others = sum(other.seat.up for other in self.members if set(other.roles) & set(member.roles))
        wait = "the run waits for it" if not self._has_stand_ins(member) else f"{others} other engines go on"
        self._note(member, f"does not answer ({error}); {wait}")
        self._returning[seat] = asyncio.create_task(self._bring_back(member))

    def _rests(self, seat: Seat, error: LLMError | None) -> None:
        """An endpoint answers with errors, for which others are asked, or answers again (None)."""
        member = next(member for member in self.members if member.seat is seat)
        if error is None:
            self._note(member, "answers again after errors")
        else:
            self._note(member, f"answers with errors ({error}) and rests; others are asked meanwhile")

    async def _bring_back(self, member: Member) -> None:
        """Starts a local engine again, and looks after others until they answer; gives up after `return_seconds` where
        nobody else has its role."""
        clock, seat = asyncio.get_running_loop(), member.seat
        left_at = clock.time()
        try:
            while True:
                try:
                    await member.engine.restart()
                    while member.follower is not None and member.follower.is_behind:
                        await member.engine.restart()
                except (EngineGone, EngineRefused) as error:
                    return await self._give_up(member, error)
                except (EngineUnavailable, NoReply) as error:
                    waited = clock.time() - left_at
                    if waited > self._return_seconds and not self._has_stand_ins(member):
                        limit = f"sync.return_seconds = {self._return_seconds:g}"
                        return await self._give_up(member, EngineUnavailable(f"{error} ({limit} are over)"))
                    if isinstance(error, VLLMStartError):  # of one by URL nothing new is known
                        self._note(member, f"did not start again ({error}) and is tried once more")
                    await asyncio.sleep(PAUSE_SECONDS)
                except Exception as error:  # its weights or its settings are not those of the run
                    return await self._give_up(member, error)
                else:
                    seat.up, seat.error = True, None
                    return self._note(member, f"answers again after {clock.time() - left_at:.0f} s")
        finally:
            del self._returning[seat]

    def _has_stand_ins(self, member: Member) -> bool:
        """Whether each of its roles has another engine that is up."""
        return all(
            any(other.seat.up for other in self.members if other is not member and role in other.roles)
            for role in member.roles
        )

    async def _give_up(self, member: Member, error: Exception) -> None:
        """It is left out until the end of the run, and what is left of a local one holds no memory."""
        self._gone[member.seat] = error
        self._note(member, f"is left out for good: {error}")
        await member.engine.leave()

    def _note(self, member: Member, what: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.events.append({"at": now, "engine": member.name, "what": what})
        self._tell(f"engine {member.name} {what}")

    def _none_left(self, seats: Sequence[Seat]) -> Exception:
        """Why nobody answers in a role, with what to do."""
        errors = {seat.name: self._gone.get(seat, seat.error) for seat in seats}
        if len(errors) == 1:
            (error,) = errors.values()
            return error or EngineUnavailable(f"the engine {seats[0].name} does not answer")
        lines = "".join(f"\n  {name}: {error}" for name, error in errors.items())
        return EngineUnavailable(f"none of {len(errors)} engines is left; start one again, and resume the run:{lines}")
