"""Framing: round trips, arbitrary cuts, and random bytes against the host's parsers."""

import asyncio
import functools
import sys
import tracemalloc

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_env.repl.host.prompt_budget import PromptBudget
from rlm_env.repl.wire import (
    CHUNK,
    HEADER,
    FrameParser,
    ProtocolError,
    chunks,
    pack,
    sanitize,
    unpack,
    unpack_at_most,
    unpack_likely,
)
from tests.repl.batch_line import batch_host


def feed(parser: FrameParser, data: bytes) -> None:
    """Gives `data` to the parser as asyncio does, in pieces that fit its buffer."""
    while data:
        room = parser.get_buffer()
        part, data = data[: len(room)], data[len(room) :]
        room[: len(part)] = part
        room.release()
        parser.buffer_updated(len(part))


text = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    text,
    st.binary(),
)
frames = st.lists(st.lists(scalars, max_size=8), max_size=8)


@given(frames, st.data())
def test_round_trip_at_any_cut(wanted: list, data: st.DataObject):
    stream = b"".join(pack(*fields) for fields in wanted)
    seen: list = []
    parser = FrameParser(seen.append)
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        feed(parser, stream[:cut])
        stream = stream[cut:]
    assert seen == wanted
    assert [[type(v) for v in f] for f in seen] == [[type(v) for v in f] for f in wanted]


@given(st.lists(st.one_of(text, st.binary()), min_size=1, max_size=20), st.integers(0, 3))
def test_chunks_keep_all_items_in_order(items: list, large: int):
    items += ["x" * CHUNK] * large
    groups = chunks(items)
    assert [item for _, group in groups for item in group] == items
    assert [start for start, _ in groups] == [sum(len(g) for _, g in groups[:i]) for i in range(len(groups))]
    for _, group in groups:
        assert len(group) == 1 or sum(len(item) for item in group) <= CHUNK


@given(st.text())
def test_sanitized_text_can_be_encoded(value: str):
    clean = sanitize(value)
    clean.encode()
    if not any(0xD800 <= ord(c) <= 0xDFFF for c in value):
        assert clean == value


@given(st.binary(max_size=2000))
@settings(max_examples=1000)
def test_random_bytes_raise_nothing_but_the_protocol_error(data: bytes):
    parser = FrameParser(lambda fields: None, max_frame=1000)
    try:
        feed(parser, data)
    except ProtocolError:
        return


@given(st.binary(max_size=400), st.integers(0, 15))
@settings(max_examples=1000)
def test_random_bodies(body: bytes, likely: int):
    try:
        fields = unpack(body)
    except ProtocolError:
        with pytest.raises(ProtocolError):
            unpack_likely(likely, body)
        return
    assert all(type(field) in (type(None), bool, int, float, str, bytes) for field in fields)
    assert repr(unpack_likely(likely, body)) == repr(fields)  # NaN is not equal to itself


structures = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=20)


@given(st.lists(structures, min_size=1, max_size=5))
def test_structures_are_refused(values: list):
    body = b"".join(map(msgpack.packb, values))
    for take in (unpack, functools.partial(unpack_likely, len(values))):
        if any(isinstance(value, (list, dict)) for value in values):
            with pytest.raises(ProtocolError):
                take(body)
        else:
            assert take(body) == values


@pytest.mark.parametrize(
    "body",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\x91" * 100_000,
        b"\xdd\x00\x0f\xff\xff" * 10_000,
        b"\xd6\xff\x00\x00\x00\x00",
        b"\xa1\xff",
        b"\xc1",
    ],
)
def test_claims_of_size_cost_no_memory(body: bytes):
    tracemalloc.start()
    try:
        for likely in (1, 8, 15):
            with pytest.raises(ProtocolError):
                unpack_likely(likely, body)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(body) + 2**20
    finally:
        tracemalloc.stop()


def test_a_large_claim_allocates_only_what_arrives():
    parser = FrameParser(lambda fields: None, max_frame=2**30)
    tracemalloc.start()
    try:
        feed(parser, HEADER.pack(2**30) + b"x" * 100_000)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    with pytest.raises(ProtocolError, match="over the limit"):
        feed(FrameParser(lambda fields: None, max_frame=100), HEADER.pack(101))


@given(st.lists(scalars, min_size=1, max_size=6), st.data())
def test_a_cut_body_is_refused_or_ends_between_fields(wanted: list, data: st.DataObject):
    parts = [pack(field)[4:] for field in wanted]
    body = b"".join(parts)
    ends = {len(b"".join(parts[:n])): n for n in range(len(parts) + 1)}
    cut = data.draw(st.integers(0, len(body)))
    if cut in ends:
        assert unpack(body[:cut]) == wanted[: ends[cut]]
    else:
        with pytest.raises(ProtocolError):
            unpack(body[:cut])


fields = st.one_of(
    st.lists(scalars, max_size=6),
    st.tuples(st.just("batch"), scalars, scalars, scalars, scalars).map(list),
    st.tuples(st.just("batch"), *(st.integers(-2, 12) for _ in range(3)), text).map(list),
    st.tuples(st.just("batch"), *(st.integers(0, 3) for _ in range(3)), st.binary()).map(list),
    st.tuples(st.just("batch"), *(st.integers(0, 3) for _ in range(3)), st.just(0)).map(list),
    st.tuples(st.just("announce"), *(st.integers(-1, 3) for _ in range(2)), st.integers(-1, 2**17)).map(list),
    st.tuples(st.just("piece"), st.integers(0, 3), st.booleans(), text).map(list),
)


@given(st.lists(fields, max_size=10))
@settings(max_examples=500)
async def test_random_frames_against_the_batch_host(received: list):
    budget = PromptBudget(2**20)
    host, line = batch_host(budget=budget)
    try:
        for frame in received:
            host.receive(frame)
    except ProtocolError:
        pass
    assert budget.used == host._bytes <= host._max_bytes
    host.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert budget.used == host._bytes == 0
    assert not line.held
    assert not line.failed


@pytest.mark.parametrize(
    "frame",
    [
        ["batch", 1, 11, 0, "x"],
        ["batch", 1, 0, 0, "x"],
        ["batch", 1, 2, 2, "x"],
        ["batch", 1, 1, 0, "x", "y"],
        ["batch", 1, 1, 0],
        ["batch", 1, 1, 0, 5],
        ["batch", 0, 1, 0, "x"],
        ["batch", True, 1, 0, "x"],
        ["batch", 1, 1, 0, b"not json"],
        ["batch", 1, 1, 0, b"[]"],
        ["batch", 1, 1, 0, b'{"prompt": 5}'],
        ["batch", 1, 1, 0, b'{"prompt": "x", "n": NaN}'],
        ["batch", 1, 1, 0, b"[" * 100_000],
        ["batch", 1, 1, 0, b"[" * 10_000],
        ["batch", 1, 1, 0, b'{"prompt": "x", "n": 1e999}'],
        ["batch", 1, 1, 0, b'{"prompt": "x", "n": ' + b"[" * 40 + b"]" * 40 + b"}"],
        ["batch", 1, 1, 0, b'{"prompt": "x", "n": 9223372036854775808}'],
        ["batch", 1, 1, 0, b'{"prompt": "x", "n": "' + b"x" * 2**15 + b'"}'],
        ["batch", 1, 10, 0, *[b'{"prompt": "' + b"x" * 2**13 + b'"}'] * 10],
        ["batch", 1, 2, 0, "x"],
        ["batch", 1, 1, 0, 0],
        ["batch", 1, 1, 0, b'{"prompt": 0}'],
        ["announce", 1, 11, 1],
        ["announce", 1, 1, 2**40],
        ["announce", 1, 1, -1],
        ["piece", 1, True, "x"],
        ["other", 1, 1, 0, "x"],
        [],
    ],
)
async def test_forged_batches_are_protocol_errors(frame: list):
    host, _line = batch_host()
    with pytest.raises(ProtocolError):
        host.receive(frame)


async def test_bytes_in_flight_are_bounded():
    async def never(prompts: list) -> list:
        await asyncio.Event().wait()
        return []

    host, _line = batch_host(never)
    prompt = "x" * 1000
    room = host._max_bytes // sys.getsizeof(prompt)
    for number in range(1, room + 1):
        host.receive(["batch", number, 1, 0, prompt])
    with pytest.raises(ProtocolError, match="more bytes"):
        host.receive(["batch", room + 1, 1, 0, prompt])
    host.close()
    await asyncio.sleep(0.01)
    assert host._bytes == 0


@pytest.mark.parametrize("count", [0, 1, 15, 16, 65_535, 65_536, 70_000])
def test_any_number_of_fields(count: int):
    assert unpack(pack(*range(count))[4:]) == list(range(count))


@pytest.mark.parametrize("field", [b"\xa2ab", b"\xc0", b"\xcd\xff\xff", b"\xa0", b"\xc4\x00"])
def test_a_frame_of_many_fields_is_refused_before_they_are_made(field: bytes):
    body = field * (2**20 // len(field))
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="more than 1000 fields"):
            unpack_at_most(1000, body)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(body)
    finally:
        tracemalloc.stop()
    assert len(unpack_at_most(1000, field * 1000)) == 1000


def test_frames_are_taken_in_slices():
    seen: list = []
    parser = FrameParser(seen.append)
    stream = b"".join(pack("x", i) for i in range(1000))
    turns = 0
    more = False
    for at in range(0, len(stream), 4096):
        room = parser.get_buffer()
        part = stream[at : at + 4096]
        room[: len(part)] = part
        room.release()
        more = parser.buffer_updated(len(part))
        while more:
            turns += 1
            more = parser.advance()
    assert [fields[1] for fields in seen] == list(range(1000))
    assert turns >= 20


def test_a_held_parser_takes_nothing_until_it_is_released():
    seen: list = []
    parser = FrameParser(seen.append)
    parser.held = True
    feed(parser, pack("x", 1) + pack("x", 2))
    assert parser.advance()
    assert seen == []
    parser.held = False
    assert not parser.advance()
    assert seen == [["x", 1], ["x", 2]]
