"""Room for the prompts of all REPLs of a pool, and batches that wait for theirs."""

import asyncio
import json
import sys
from collections.abc import Iterable

import pytest

from rlm_env.repl.bounds import TEXT_COST, held_bytes
from rlm_env.repl.child.prompt_items import frames_of, items_of, size_of
from rlm_env.repl.host import arrival
from rlm_env.repl.host.arrival import Arrival
from rlm_env.repl.host.batch_host import BatchHost
from rlm_env.repl.host.prompt_budget import PromptBudget
from rlm_env.repl.wire import CHUNK, MAX_PROMPT_FIELDS, MAX_PROMPT_FRAME, ProtocolError, unpack, unpack_at_most
from tests.repl.batch_line import batch_host
from tests.waiting import until


def receive_all(host: BatchHost, frames: Iterable[list]) -> None:
    for frame in frames:
        host.receive(frame)


def test_claims_are_granted_in_turn_and_small_ones_have_a_line_of_their_own():
    budget = PromptBudget(3200)
    granted: list[str] = []
    first = budget.claim(2000, lambda: granted.append("first"))
    second = budget.claim(1500, lambda: granted.append("second"))
    third = budget.claim(300, lambda: granted.append("third"))
    small = budget.claim(100, lambda: granted.append("small"))
    assert (first.granted, second.granted, third.granted, small.granted) == (True, False, False, True)
    assert budget.used == 2100
    first.give_back()
    assert granted == ["second", "third"]
    for claim in (first, second, second, third, small):
        claim.give_back()
    assert budget.used == 0


def test_a_claim_above_all_the_room_gets_its_turn_alone_and_one_that_leaves_holds_up_nobody():
    budget = PromptBudget(1000)
    huge = budget.claim(10_000, lambda: None)
    granted: list[int] = []
    waiting = [budget.claim(500, lambda n=n: granted.append(n)) for n in range(3)]
    assert huge.granted
    waiting[0].give_back()
    huge.give_back()
    assert granted == [1]
    waiting[1].give_back()
    assert granted == [1, 2]


texts = {
    "short": ["a", "b"],
    "one megabyte": ["a" * 2**20],
    "many": [str(n) for n in range(50_000)],
    "wide at its end": ["x" * (2**20 - 1) + "\U0001f600"],
    "wide at its end, in a piece of one": ["x" * CHUNK + "\U0001f600"],
    "latin": ["\xe9" * (3 * CHUNK + 5)],
    "two bytes": ["\u4e2d" * (2 * CHUNK)],
    "just over a frame": ["x" * (CHUNK + 1)],
    "mixed": ["x" * 2**19, "y", {"prompt": "z" * 2**19}, {"prompt": "w"}, "v" * 10],
    "chat": [{"messages": [{"role": "user", "content": c * 20_000} for c in "abcdef"]}] * 3,
    "many dicts": [{"prompt": "q" * 100, "n": n} for n in range(3000)],
    "surrogates": ["\ud800" * 300_000],
    # Put together, two take more room than apart: the text becomes one of wide characters.
    "pairs of surrogates": ["\xe9" * 2000 + "\ud83d\ude00"] * 200,
    "a pair of surrogates at a cut": ["\xe9" * (CHUNK - 1) + "\ud83d\ude00 "],
    "pairs of surrogates in a chat": [{"messages": [{"role": "user", "content": "\xe9" * 9000 + "\ud83d\ude00"}]}],
    "a chat of many short messages": [{"messages": [{"role": "user", "content": f"m{n}"} for n in range(600)]}],
}


@pytest.mark.parametrize("name", texts)
async def test_what_an_honest_child_sends_is_within_what_it_announced(name: str):
    """Every frame within its limits, and the host's charge within the announced size."""
    seen = []

    async def keep(prompts: list) -> list:
        seen.extend(prompts)
        return ["ok"] * len(prompts)

    budget = PromptBudget(2**30)
    host, line = batch_host(keep, budget, max_items=100_000, max_bytes=2**28)
    items = items_of(texts[name])
    sizes = []
    for frame in frames_of(1, items, size_of(items)):
        assert len(frame) <= MAX_PROMPT_FRAME
        sizes.append(len(frame))
        host.receive(unpack_at_most(MAX_PROMPT_FIELDS, frame[4:]))
    assert budget.used >= sum(sys.getsizeof(item) for item in items if type(item) is str)
    await asyncio.sleep(0.01)
    wanted = [
        json.loads(json.dumps(t))
        if isinstance(t, dict)
        else t.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        for t in texts[name]
    ]
    assert seen == wanted
    assert line.sent[0][:2] == ["answer", 1]
    assert budget.used == host._bytes == 0


async def test_a_handler_may_keep_the_prompts_that_it_was_given():
    """They are dropped some at a time, from a list of the host's own."""
    kept = []

    async def keep(prompts: list) -> list:
        kept.append(prompts)
        return ["ok"] * len(prompts)

    budget = PromptBudget(2**30)
    host, line = batch_host(keep, budget, max_bytes=2**26)
    items = [letter * 9_000_000 for letter in "abc"]
    for frame in frames_of(1, items, size_of(items)):
        host.receive(unpack(frame[4:]))
    await until(lambda: not budget.used)
    assert kept == [items]
    assert line.sent == [["answer", 1, 0, "ok", "ok", "ok"]]


async def test_a_batch_waits_for_its_room_and_costs_nothing_meanwhile():
    release = asyncio.Event()

    async def slow(prompts: list) -> list:
        await release.wait()
        return ["ok"] * len(prompts)

    budget = PromptBudget(4 * 2**20)
    busy: list[bool] = []
    first, _ = batch_host(slow, budget, max_bytes=2**24)
    second, line = batch_host(slow, budget, busy.append, max_bytes=2**24)
    prompt = "x" * (2 * 2**20)
    for frame in frames_of(1, [prompt], len(prompt)):
        first.receive(unpack(frame[4:]))
    frames = list(frames_of(1, [prompt], len(prompt)))
    second.receive(unpack(frames[0][4:]))
    assert line.held
    assert busy == [True]
    release.set()
    await asyncio.sleep(0.01)
    assert not line.held
    for frame in frames[1:]:
        second.receive(unpack(frame[4:]))
    await asyncio.sleep(0.01)
    assert line.sent == [["answer", 1, 0, "ok"]]
    assert busy == [True, False]
    assert budget.used == 0


def test_arriving_costs_nothing_at_the_speed_of_an_honest_repl_and_no_longer(monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr(arrival.time, "monotonic", lambda: now)
    account, size = Arrival(), 0

    def look_after(seconds: float, arrived: int, behind: bool = False) -> bool:
        nonlocal now, size
        now, size = now + seconds, size + arrived
        account.look(size, behind)
        return account.stalled

    account.begin()
    for _ in range(100):
        assert not look_after(0.5, arrival.RATE // 2)
    assert not look_after(0.3, 1000)
    assert look_after(0.3, 1000)
    assert look_after(0.5, 0)
    assert not look_after(0.5, 10 * arrival.RATE)
    assert account.next_look == arrival.LOOK  # nothing is kept for later
    assert not look_after(0.4, 0)
    assert account.next_look == pytest.approx(0.1)
    for _ in range(10):
        assert not look_after(0.5, 0, behind=True)
    account.begin()
    size = 0
    assert look_after(0.2, 0)  # another batch is no new beginning
    assert not look_after(0.5, 17 * arrival.RATE)


async def until_told(busy: list[bool], *told: bool) -> None:
    await until(lambda: busy == [*told])


async def test_a_batch_that_does_not_arrive_is_its_repls_own_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(arrival, "LOOK", 0.05)
    busy: list[bool] = []
    host, line = batch_host(on_busy=busy.append, max_bytes=2**20)
    host.receive(["announce", 1, 1, 2**20])
    assert busy == [True]
    while busy == [True]:  # drips do not count
        host.receive(["piece", 1, False, "x"])
        await asyncio.sleep(0.01)
    line.behind = True
    await until_told(busy, True, False, True)
    line.behind = False
    await until_told(busy, True, False, True, False)
    host.close()
    await asyncio.sleep(0.1)
    assert busy == [True, False, True, False]


async def test_what_a_repl_waits_for_besides_a_batch_that_stalls_is_not_free(monkeypatch: pytest.MonkeyPatch):
    """Else one slow answer would pay for the room that is held meanwhile."""
    monkeypatch.setattr(arrival, "LOOK", 0.05)
    release = asyncio.Event()

    async def slow(prompts: list) -> list:
        await release.wait()
        return prompts

    busy: list[bool] = []
    host, line = batch_host(slow, on_busy=busy.append)
    host.receive(["batch", 1, 1, 0, "x"])
    host.receive(["announce", 2, 2, 1000])
    assert busy == [True]
    await until_told(busy, True, False)
    host.receive(["batch", 2, 2, 0, "x", "y"])  # now it has come
    assert busy == [True, False, True]
    release.set()
    await until_told(busy, True, False, True, False)
    assert sorted(frame[:2] for frame in line.sent) == [["answer", 1], ["answer", 2]]


async def test_a_batch_that_begins_gives_up_the_one_that_has_not_arrived():
    """A REPL cannot hold room with one and wait for free behind another."""
    budget = PromptBudget(3200)
    busy: list[bool] = []
    host, line = batch_host(budget=budget, on_busy=busy.append, max_bytes=2000)
    host.receive(["announce", 1, 2, 2000])
    host.receive(["announce", 2, 2, 2000])
    assert not line.held
    assert budget.used == 2000
    host.receive(["batch", 2, 2, 0, "a", "b"])
    await until(lambda: len(line.sent) == 2)
    assert [frame[:2] for frame in line.sent] == [["fail", 1], ["answer", 2]]
    assert budget.used == 0
    assert busy == [True, False, True, False]
    with pytest.raises(ProtocolError, match="in vain"):
        receive_all(host, (["announce", number, 2, 2000] for number in range(3, 10_000)))
    host.close()
    assert budget.used == 0


async def test_a_cell_that_ends_gives_back_what_it_waited_for():
    budget = PromptBudget(1000)
    other = budget.claim(900, lambda: None)
    host, line = batch_host(budget=budget)
    host.receive(["announce", 1, 2, 900])
    assert line.held
    host.close()
    assert not line.held
    assert line.sent == [["fail", 1, "the cell was stopped before this batch was answered"]]
    other.give_back()
    assert budget.used == 0
    host.receive(["piece", 1, True, "what was on its way"])  # is dropped
    host.open()
    host.receive(["batch", 2, 1, 0, "x"])
    await asyncio.sleep(0.01)
    assert line.sent[-1] == ["answer", 2, 0, "x"]


@pytest.mark.parametrize(
    ("announced", "frames"),
    [
        (100, [["piece", 1, False, "x" * 200]]),
        (4096, [["piece", 1, False, "x"]] * 20),
        (4096, [["piece", 1, False, "x" * 2000], ["piece", 1, True, "\U0001f600"]]),
        (4096, [["batch", 1, 3, 0, "x" * 5000]]),
        (4096, [["batch", 1, 3, 0, json.dumps({"prompt": "x" * 300}).encode()]]),
        (4096, [["piece", 1, True, ""]]),
        (4096, [["piece", 1, True, "x"], ["batch", 1, 3, 0, 0, 0]]),
        (4096, [["batch", 1, 3, 1, "x"]]),
        (4096, [["batch", 1, 2, 0, "x"]]),
        (4096, [["batch", 1, 3, 0, 5]]),
        (4096, [["batch", 1, 3, 0, True]]),
    ],
)
async def test_more_than_was_announced_is_a_protocol_error(announced: int, frames: list):
    host, _line = batch_host()
    host.receive(["announce", 1, 3, announced])
    with pytest.raises(ProtocolError):
        receive_all(host, frames)
    host.close()


async def test_a_flood_of_refusals_is_a_protocol_error_and_a_few_are_told():
    host, line = batch_host()
    host.close()
    for number in range(1, 100):
        host.receive(["batch", number, 1, 0, "x"])
    assert line.sent == [["fail", n, "llm_batch can be called only while a cell runs"] for n in range(1, 100)]
    with pytest.raises(ProtocolError, match="flood"):
        receive_all(host, (["batch", number, 1, 0, "x"] for number in range(100, 10_000)))
    assert len(line.sent) < 5000


async def test_refusals_that_nobody_reads_end_the_repl():
    async def never(prompts: list) -> list:
        await asyncio.Event().wait()
        return []

    host, line = batch_host(never, max_bytes=2**20)
    line.writable = False
    number = 0
    for _ in range(4):
        for _ in range(4096):
            number += 1
            host.receive(["batch", number, 1, 0, "x"])
        host.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        host.open()
    assert "unread" in line.failed
    assert len(line.sent) < 10_000


async def test_frames_of_a_batch_that_was_given_up_are_dropped_but_not_for_ever():
    host, _line = batch_host()
    host.receive(["announce", 1, 10, 1000])
    host.close()
    host.open()
    with pytest.raises(ProtocolError, match="do not exist"):
        receive_all(host, (["piece", 1, False, "x"] for _ in range(100_000)))
    with pytest.raises(ProtocolError, match="do not exist"):
        host.receive(["piece", 2, False, "x"])


@pytest.mark.parametrize("between_cells", [False, True])
async def test_frames_that_serve_nothing_count_for_what_they_cost(between_cells: bool):
    """Each of these takes the host milliseconds."""
    host, _line = batch_host(max_items=100_000, max_bytes=2**28)
    frame = ["x"] * MAX_PROMPT_FIELDS
    if between_cells:
        host.close()
        frames = [["batch", number, len(frame), 0, *frame] for number in range(1, 200)]
    else:
        host.receive(["batch", 1, 1, 0, "x"])
        frames = [["batch", 1, 100_000, 1, *frame]] * 200
    with pytest.raises(ProtocolError, match="do not exist"):
        receive_all(host, frames)


async def test_the_rest_of_an_honest_batch_that_was_given_up_is_within_what_is_allowed():
    host, _line = batch_host(max_items=100_000, max_bytes=2**24)
    for texts in (
        ["\U0001f600" * 2**20] * 4,
        ["x" * 160] * 100_000,
        [{"prompt": "y" * 100, "n": n} for n in range(9000)],
    ):
        items = items_of(texts)
        announce, *rest = [unpack(frame[4:]) for frame in frames_of(1, items, size_of(items))]
        host._seen = 0
        host.receive(announce)
        host.close()
        host.open()
        receive_all(host, rest)
        receive_all(host, rest)


def test_a_long_text_counts_for_what_it_takes():
    assert held_bytes("x" * 1000) == sys.getsizeof("x" * 1000)
    assert held_bytes("\U0001f600" * 1000) >= 4000
    assert held_bytes(b"x" * 1000) >= 29_000
    assert TEXT_COST > 0
