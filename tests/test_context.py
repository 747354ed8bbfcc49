"""One reader of contexts: what a model is told of one, what it gets of it, in every scaffold."""

import os

import pytest

from rlm_env.context import context_text, describe_context, folder_files
from rlm_env.environment import Environment
from rlm_env.scaffolds import SCAFFOLDS, make_scaffold
from rlm_env.task import Task
from tests.stubs import StubLLM, fenced

SECRET = "the host's secret"


@pytest.fixture
def folder(tmp_path):
    """Two files, of which one is no text, and links: to a file, to a folder outside, to a file inside, to nothing."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text(SECRET)
    inside = tmp_path / "folder"
    (inside / "b").mkdir(parents=True)
    (inside / "b" / "two.txt").write_bytes("zwei\r\né".encode())
    (inside / "a.bin").write_bytes(b"\xffab")
    (inside / "link.txt").symlink_to(outside / "secret.txt")
    (inside / "links").symlink_to(outside)
    (inside / "again.txt").symlink_to(inside / "b" / "two.txt")
    (inside / "dangling").symlink_to("nothing")
    os.mkfifo(inside / "pipe")
    return inside


def test_a_folder_is_its_regular_files_and_links_are_not_followed(folder):
    assert folder_files(folder) == {"a.bin": folder / "a.bin", "b/two.txt": folder / "b" / "two.txt"}


def test_the_description_names_files_that_are_no_text(folder):
    told = describe_context(folder)
    assert told == (
        "dict of file name to text or bytes, 2 files, 11 bytes; bytes, since they are not UTF-8 text: a.bin"
    )
    (folder / "a.bin").unlink()
    assert describe_context(folder) == "dict of file name to text, 1 files, 8 bytes"
    for index in range(12):
        (folder / f"{index:02}").write_bytes(b"\xff")
    assert describe_context(folder).endswith("00, 01, 02, 03, 04, 05, 06, 07, 08, 09 and 2 more")


def test_a_file_is_described_as_what_it_becomes(tmp_path):
    path = tmp_path / "file"
    for data, told in (
        (b"", "str, 0 characters, 1 lines"),
        ("é\r\n€".encode(), "str, 4 characters, 2 lines"),
        (b"\xff\n", "bytes, 2 bytes (a file that is not UTF-8 text)"),
        ("é".encode()[:1], "bytes, 1 bytes (a file that is not UTF-8 text)"),
        ("é".encode() * 2**20, "str, 1,048,576 characters, 1 lines"),
    ):
        path.write_bytes(data)
        assert describe_context(path) == told
        if told.startswith("str"):
            assert describe_context(path) == describe_context(data.decode())
            assert context_text(path) == data.decode()


def test_contexts_as_text(folder):
    assert context_text("a\r\n") == "a\r\n"
    assert context_text(b"a") == "a"
    assert context_text({"a": [1]}) == '{"a": [1]}'
    assert context_text(folder) == "### a.bin (bytes, 3 bytes)\n\ufffdab\n\n### b/two.txt\nzwei\r\né"
    with pytest.raises(ValueError, match="utf-8"):
        context_text(folder / "a.bin")


def test_file_names_that_are_no_text_can_stand_in_a_prompt(tmp_path):
    (tmp_path / os.fsdecode(b"\xff.bin")).write_bytes(b"\xff")
    for text in (describe_context(tmp_path), context_text(tmp_path)):
        assert r"\udcff.bin" in text
        text.encode("utf-8")


class Listing(Environment):
    """Asks for the files of a folder."""

    tips = "Look at the names."

    def __init__(self, folder) -> None:
        self.folder = folder

    def tasks(self, split):
        yield Task("Which files are there?", self.folder)

    def score(self, task, rollout):
        return 0.0


@pytest.mark.parametrize("name", SCAFFOLDS)
async def test_every_scaffold_gets_the_same_files(name, folder):
    """Once one scaffold was told of a file that its REPL did not hold, and another read it outside the folder."""
    environment = Listing(folder)
    scaffold = make_scaffold(name, environment, {"repl": {"preload": ()}, "max_turns": 1, "action": "fence"})
    root = StubLLM(lambda messages: fenced('answer["content"] = sorted(context); answer["ready"] = True'))
    rollout = await scaffold.rollout(Task("Which files are there?", folder), root)
    await scaffold.aclose()
    prompt = "\n".join(message["content"] for message in root.seen[0])
    assert SECRET not in prompt
    assert "link" not in prompt
    if name.startswith("rlm"):
        assert describe_context(folder) in prompt
        assert rollout.answer == '["a.bin", "b/two.txt"]'
    else:
        assert context_text(folder) in prompt
