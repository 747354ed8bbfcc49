"""Contexts arrive byte-exact, or are refused with the type's name."""

import datetime
import os
from pathlib import Path

import pytest

from rlm_env.repl import Repl, ReplPool
from rlm_env.repl.context_file import decode, encode

CONTEXTS = [
    "",
    "plain",
    "crlf\r\nlf\ncr\r nul\x00 é — 🙂",
    "lone \ud800 \udfff and a pair as two: \ud83d\ude42",
    b"",
    bytes(range(256)),
    [],
    {},
    [1, "a", None, True, 2.5, b"x", (1, (2,)), {"k": [{}]}, float("inf"), 10**40, "\udc80\r\n"],
    {1: "int", (1, 2): "tuple", "s": {None: 0, True: 1}, b"b": {3, 4}},
    [{"id": i, "text": f"line {i}"} for i in range(1000)],
]


@pytest.mark.parametrize("context", CONTEXTS, ids=range(len(CONTEXTS)))
def test_round_trip(context: object):
    encoded = encode(context)
    try:
        back = decode(encoded.fd, encoded.kind, encoded.size)
    finally:
        encoded.close()
    assert back == context
    assert type(back) is type(context)
    assert repr(back) == repr(context)


def test_shared_and_cyclic_values():
    inner: list = []
    inner.append(inner)
    encoded = encode([inner, inner])
    back = decode(encoded.fd, encoded.kind, encoded.size)
    encoded.close()
    assert back[0] is back[1] is back[0][0]


@pytest.mark.parametrize("context", [c for c in CONTEXTS if c != ""], ids=range(len(CONTEXTS) - 1))
async def test_in_a_repl(pool: ReplPool, context: object):
    async with pool.open(context=context) as repl:
        step = await repl.run("context")
        assert step.error is None
        if len(repr(context)) < 8000:
            assert step.output == repr(context).encode("utf-16", "surrogatepass").decode("utf-16", "replace") + "\n"


async def test_a_context_can_be_changed_deleted_and_comes_back_after_death(pool: ReplPool):
    async with pool.open(context=["a", "b"]) as repl:
        assert (await repl.run("context.append('c'); context")).output == "['a', 'b', 'c']\n"
        assert "NameError" in (await repl.run("del context\ncontext")).error
        await repl.run("import os; os._exit(1)")
        assert (await repl.run("context")).output == "['a', 'b']\n"


async def test_paths(pool: ReplPool, tmp_path: Path):
    text = tmp_path / "text.txt"
    text.write_bytes("é\r\nzwei".encode())
    (tmp_path / "data.bin").write_bytes(b"\xff\x00")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.py").write_text("print(1)\n")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "empty").touch()
    expected = {
        text: "é\r\nzwei",
        tmp_path / "data.bin": b"\xff\x00",
        tmp_path / "empty": "",
        tmp_path: {"data.bin": b"\xff\x00", "empty": "", "sub/x.py": "print(1)\n", "text.txt": "é\r\nzwei"},
    }
    for path, value in expected.items():
        async with pool.open(context=path) as repl:
            assert (await repl.run("context")).output == f"{value!r}\n"
    with pytest.raises(FileNotFoundError):
        await pool.open(context=tmp_path / "nothing")
    with pytest.raises(IsADirectoryError):
        encode(tmp_path)  # which files a folder's context has is not decided here


class Custom:
    pass


@pytest.mark.parametrize(
    ("context", "told"),
    [
        (5, "int"),
        (Custom(), "Custom"),
        ([{"when": datetime.date(2020, 1, 1)}], "datetime.date"),
        ({"f": print}, "builtin_function_or_method"),
        ([Path("/x")], "PosixPath"),
        ([Custom], "builtins.type"),
        (range(3), "range"),
    ],
)
async def test_other_types_are_refused_by_name(pool: ReplPool, context: object, told: str):
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(TypeError, match=told) as caught:
        await pool.open(context=context)
    assert "pathlib.Path" in str(caught.value)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_no_context_is_none(pool: ReplPool):
    repl: Repl = await pool.open()
    assert (await repl.run("context is None")).output == "True\n"
    await repl.close()


def test_memory_files_cannot_be_written_to():
    encoded = encode("shared")
    with pytest.raises(PermissionError):
        os.write(encoded.fd, b"x")
    encoded.close()
