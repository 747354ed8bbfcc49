"""The host's parser against mutated traffic: nothing but the protocol error comes out, and time and memory
are bounded by the number of bytes."""

import asyncio
import contextlib
import os
import random
import time
import tracemalloc

import pytest

from rlm_env.repl.child.prompt_items import frames_of, items_of, size_of
from rlm_env.repl.host.batch_host import MAX_BATCHES, BatchHost
from rlm_env.repl.host.cell_report import REPORT_FIELDS, cell_report
from rlm_env.repl.host.prompt_budget import PromptBudget
from rlm_env.repl.wire import CHUNK, HEADER, MAX_PROMPT_FIELDS, MAX_PROMPT_FRAME, FrameParser, ProtocolError, pack
from tests.repl.batch_line import batch_host

SECONDS = float(os.environ.get("FUZZ_SECONDS", "20"))
"""Of CPU: what others do on the machine costs no cases."""
SECONDS_PER_BYTE = 10e-6
"""Of this thread's CPU: a batch of 20 bytes is a task with its handler, its answer and its end."""
BYTES_PER_BYTE, BYTES_PER_BATCH = 40, 5 * 2**10
MARKERS = bytes.fromhex("c0c2c3c4c5c6c7cacbcccdcecfd0d3d4d8d9dadbdcdddedf8090a0e0007fff")
JSON = (
    b'{"messages":[' + b"{}," * 400 + b"{}]}",
    b'{"prompt":"' + b"\\u0041\\n" * 400 + b'"}',
    b'{"messages":[{"role":"user","content":0,"x":' + b"[" * 20 + b"1e9" + b"]" * 20 + b"}]}",
    b'{"prompt":0,"n":1e999}',
    b'{"prompt":"x","' + b"k" * 500 + b'":[null,true,-9223372036854775807]}',
)


def valid_streams(chance: random.Random) -> list[bytes]:
    """Frames that an honest child sends, in order, with numbers from 1 on."""
    frames: list[bytes] = []
    for number in range(1, chance.randrange(2, 6)):
        texts = [
            "x" * chance.choice((0, 1, 100, 5000, CHUNK + 3)),
            {"prompt": "y" * chance.choice((1, 9000))},
            "\u4e2d" * chance.choice((9, 9, 9, CHUNK + 3)),  # the last one comes in two pieces
        ]
        items = items_of(chance.choices(texts, k=chance.randrange(1, 8)))
        frames += frames_of(number, items, size_of(items))
        if chance.random() < 0.3:
            frames.append(pack("batch", number + 10, 1, 0, chance.choice(JSON)))
    return frames


def mutated(frames: list[bytes], chance: random.Random) -> bytes:
    """Frames with bytes changed, cut, repeated, put in another order, or with forged lengths."""
    frames = [bytearray(frame) for frame in frames]
    for frame in frames:
        for _ in range(chance.choice((0, 0, 1, 3))):
            at = chance.randrange(len(frame))
            kind = chance.randrange(5)
            if kind == 0:
                frame[at] = chance.choice(MARKERS)
            elif kind == 1:
                frame[at : at + chance.randrange(9)] = chance.randbytes(chance.randrange(9))
            elif kind == 2:
                part = bytes(frame[at : at + chance.choice((1, 4, 60))])
                frame[at:at] = part * chance.choice((1, 50, 3000))
            elif kind == 3:
                del frame[at:]
            if chance.random() < 0.8:
                frame[:4] = HEADER.pack(max(len(frame) - 4, 0))
            if len(frame) < 5:
                break
    if chance.random() < 0.2:
        chance.shuffle(frames)
    if chance.random() < 0.2:
        frames *= 2
    return b"".join(frames)


def memory_for(data: bytes) -> int:
    return BYTES_PER_BYTE * len(data) + BYTES_PER_BATCH * min(len(data) // 20, MAX_BATCHES) + 2**20


def feed(data: bytes) -> BatchHost:
    """One connection's worth, to parser, batches and reports. Raises what they raise."""
    host, line = batch_host(budget=PromptBudget(2**24), max_items=1000, max_bytes=2**22)

    def on_frame(fields: list) -> None:
        with contextlib.suppress(ProtocolError):
            cell_report(fields)
        host.receive(fields)

    parser = FrameParser(on_frame, MAX_PROMPT_FRAME, MAX_PROMPT_FIELDS, REPORT_FIELDS)
    view = memoryview(data)
    try:
        while view:
            room = parser.get_buffer()
            count = min(len(room), len(view))
            room[:count] = view[:count]
            room.release()
            view = view[count:]
            more = parser.buffer_updated(count)
            while more:
                more = parser.advance()
    except ProtocolError:
        pass
    finally:
        host.close()
    assert not line.failed
    return host


def feed_in_time(data: bytes) -> BatchHost:
    """Fails where it takes too long three times: what the bytes cost, they cost each time."""
    seconds: list[float] = []
    for _ in range(3):
        begin = time.thread_time()
        host = feed(data)
        seconds.append(time.thread_time() - begin)
        if seconds[-1] < SECONDS_PER_BYTE * len(data) + 0.05:
            return host
    raise AssertionError(f"{seconds} s for {len(data)} bytes, {data[:2000]!r}")


async def check_that_nothing_is_kept(host: BatchHost) -> None:
    for _ in range(3):
        await asyncio.sleep(0)
    assert host._bytes == 0
    assert not host._tasks


@pytest.mark.slow
async def test_mutated_traffic():
    chance = random.Random(os.environ.get("FUZZ_SEED", "0"))
    end, cases = time.process_time() + SECONDS, 0
    while time.process_time() < end:
        data = (
            mutated(valid_streams(chance), chance)
            if chance.random() < 0.9
            else chance.randbytes(chance.randrange(4000))
        )
        state = chance.getstate()
        cases += 1
        memory = cases % 20 == 0
        if memory:
            tracemalloc.start()
        try:
            host = feed(data) if memory else feed_in_time(data)
        except Exception as error:
            raise AssertionError(f"case {cases}: {error!r} by {data[:2000]!r}, seed state {hash(state)}") from error
        await check_that_nothing_is_kept(host)
        if memory:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < memory_for(data), (cases, peak, len(data))
    assert cases > 20 * SECONDS


WORST = {
    "brackets in JSON": (pack("batch", 1, 2, 0, *[b'{"messages":[' + b"{}," * 4000 + b"{}]}"] * 2)),
    "escapes in JSON": (pack("batch", 1, 2, 0, *[b'{"prompt":"' + b"\\n" * 16_000 + b'"}'] * 2)),
    "short texts": pack("batch", 1, 30_000, 0, *["ab"] * 30_000),
    "nothing": pack(*[None] * 30_000),
    "small batches": b"".join(pack("batch", n, 1, 0, "x") for n in range(1, 2000)),
    "small pieces": pack("announce", 1, 1, 2**24) + b"".join(pack("piece", 1, False, "x") for _ in range(4000)),
    "strays": pack("announce", 1, 1, 100) + b"".join(pack("batch", 1, 1, 1, "x") for _ in range(4000)),
    "a wide text": pack("announce", 1, 1, 2**24) + pack("piece", 1, True, "\U0001f600" * CHUNK),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name.startswith("small") else name for name in WORST]
)
async def test_the_worst_bytes_that_we_know_are_bounded_too(name: str):
    data = WORST[name]
    await check_that_nothing_is_kept(feed_in_time(data))
    tracemalloc.start()
    try:
        await check_that_nothing_is_kept(feed(data))
        assert tracemalloc.get_traced_memory()[1] < memory_for(data)
    finally:
        tracemalloc.stop()
