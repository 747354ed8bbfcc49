"""The summary agent: what it reads, what it notes, how it ends, on engines that tell all, little and nothing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_env.llm.base import ContextOverflow, EngineUnavailable, Sampling
from rlm_env.messages import Completion
from rlm_env.rollout import Rollout, StopReason
from rlm_env.scaffolds import make_scaffold
from rlm_env.scaffolds.window import Window
from rlm_env.task import Task
from tests.scaffolds.test_rlm import WordCount
from tests.stubs import StubLLM, script

LINES = [f"line {i} holds spam\n" if i % 3 else f"line {i} holds none\n" for i in range(300)]
TASK = Task("How often does spam occur?", "".join(LINES), gold="200", id="t")
PIECE = re.compile(r"The next piece of the text:\n(.*)\n\nWrite new notes", re.DOTALL)
LAST = re.compile(r"The last part of the text:\n(.*)\n\nHow often", re.DOTALL)
NOTES = re.compile(r"(?:Notes on the text so far|what comes before its last part):\n(.*?)\n\nThe ", re.DOTALL)


class Counter(StubLLM):
    """Counts spam as it goes. Its window is in words; it tells of it what `tells` says."""

    def __init__(self, window: int, tells: str = "counts", thinks: bool = False) -> None:
        super().__init__(self.answer)
        self.window, self.thinks, self.tells = window, thinks, tells
        self.pieces: list[str] = []
        self.refusals = 0
        if tells in ("counts", "window"):
            self.context_window = window

    def count_tokens(self, messages, tools=None):
        return _words(messages) if self.tells == "counts" else None

    def answer(self, messages):
        text = messages[-1]["content"]
        if (words := _words(messages)) > self.window:
            self.refusals += 1
            return ContextOverflow(words, self.window) if self.tells == "refusal" else ContextOverflow(None, None)
        notes = NOTES.search(text)
        before = int(notes[1]) if notes and notes[1].isdigit() else 0
        piece = PIECE.search(text) or LAST.search(text)
        read = piece[1] if piece else text.split("\n\nHow often")[0]
        self.pieces.append(read)
        said = str(before + read.count("spam"))
        return Completion(f"<think>{before} and more</think>\n{said}" if self.thinks else said, finish_reason="stop")


def _words(messages) -> int:
    return sum(len(message["content"].split()) for message in messages)


async def run(root: StubLLM, task: Task = TASK, sub: StubLLM | None = None, **options) -> Rollout:
    options = {"root": {"max_tokens": 20}, **options}
    return await make_scaffold("summary", WordCount(), options).rollout(task, root, sub)


@pytest.mark.parametrize("tells", ["counts", "window", "refusal", "nothing"])
@pytest.mark.parametrize("thinks", [False, True])
async def test_every_line_is_read_once_and_in_order_whatever_the_engine_tells(tells, thinks):
    root = Counter(300, tells, thinks)
    rollout = await run(root)
    assert (rollout.answer, rollout.stop_reason, rollout.scaffold) == ("200", StopReason.READY, "summary")
    assert "".join(piece if piece.endswith("\n") else f"{piece}\n" for piece in root.pieces) == TASK.context
    assert len(rollout.sub_calls) == len(root.pieces) - 1 >= 4
    assert len(rollout.turns) == rollout.root_usage.calls == 1
    assert rollout.sub_usage.calls == len(rollout.sub_calls) == rollout.metrics["sub_calls"]
    assert not any("think" in str(call.messages) for call in rollout.sub_calls)
    assert root.refusals == (0 if tells == "counts" else root.refusals) <= 8
    assert rollout.metrics["context_chars_read"] == len(TASK.context)


async def test_what_fits_is_asked_as_the_standard_scaffold_asks_it():
    short = Task(TASK.question, "spam\nham", gold="1", id="s")
    root, standard = Counter(300), Counter(300)
    rollout = await run(root, short)
    plain = await make_scaffold("standard", WordCount(), {}).rollout(short, standard)
    assert root.seen == standard.seen
    assert (rollout.answer, len(rollout.sub_calls)) == (plain.answer, 0)


@pytest.mark.parametrize(("summarizer", "final"), [("sub", "root"), ("root", "root"), ("root", "sub"), ("sub", "sub")])
async def test_who_writes_notes_and_who_answers(summarizer, final):
    root, sub = Counter(300), Counter(400)
    rollout = await run(root, sub=sub, summarizer=summarizer, final=final)
    assert rollout.answer == "200"
    asked = {"root": len(root.pieces), "sub": len(sub.pieces)}
    assert asked["root"] == rollout.root_usage.calls == len(rollout.turns)
    assert asked["sub"] == rollout.sub_usage.calls == len(rollout.sub_calls)
    assert (asked[final] == 1) if summarizer != final else asked[final] > 4
    assert (rollout.info["summarizer"], rollout.info["final"]) == (summarizer, final)


@pytest.mark.parametrize(
    ("options", "stop", "notes"),
    [
        ({"max_sub_calls": 2}, StopReason.SUB_CALLS, 2),
        ({"max_sub_tokens": 300}, StopReason.SUB_TOKENS, 2),
        ({"max_turns": 3, "summarizer": "root"}, StopReason.MAX_TURNS, 2),
    ],
)
async def test_a_limit_ends_the_reading_and_the_notes_so_far_are_answered_from(options, stop, notes):
    root = Counter(300)
    rollout = await run(root, **options)
    assert rollout.stop_reason is stop
    assert len(root.pieces) == notes + 1
    assert 0 < int(rollout.answer) < 200
    assert 0 < rollout.metrics["context_chars_read"] < len(TASK.context)


async def test_overflow_time_and_a_dead_engine_are_told_apart():
    long_question = Task("spam " * 400, "x" * 5000, id="q")
    overflow = await run(Counter(300), long_question)
    assert (overflow.stop_reason, overflow.answer) == (StopReason.CONTEXT_OVERFLOW, "")
    assert overflow.metrics["overflow_prompt_tokens"] > 300
    slow = StubLLM(lambda messages: "1", delay=9)
    assert (await run(slow, max_seconds=0.2)).stop_reason is StopReason.WALL_TIME
    with pytest.raises(EngineUnavailable):
        await run(script(EngineUnavailable("gone")))


async def test_a_context_that_is_no_text_is_read_as_the_standard_scaffold_shows_it():
    root = Counter(300)
    rollout = await run(root, Task(TASK.question, {"a": LINES}, id="d"))
    assert rollout.answer == "200"
    assert "".join(root.pieces).startswith('{"a": ["line 0 holds none')


class Shelf(WordCount):
    """Pages that a tool gives; all of them together fill no window of 400 words."""

    def tools(self, task: Task) -> list:
        def look(page: int) -> str:
            """Reads a page."""
            return f"page {page}: " + "spam " * 60

        return [look]


@pytest.mark.parametrize("knows", [True, False])
async def test_a_conversation_with_tools_that_fills_the_window_becomes_notes(knows):
    """Reads pages 1 to 12, noting how far it has come whenever it is asked to."""

    def reply(messages):
        if _words(messages) > 400:
            return ContextOverflow(None, None)
        text = "\n".join(str(m["content"]) for m in messages)
        pages = [int(page) for page in re.findall(r"(?:page|read up to) (\d+)", text)]
        done = max(pages, default=0)
        if "Write new notes" in text:
            return f"read up to {done}"
        if done == 12:
            return "720"
        call = {"name": "look", "arguments": f'{{"page": {done + 1}}}'}
        return Completion("", tool_calls=[{"id": str(done), "type": "function", "function": call}])

    root = StubLLM(reply, supports_tools=True)
    if knows:
        root.context_window = 400
        root.count_tokens = lambda messages, tools=None: _words(messages)
    scaffold = make_scaffold("summary", Shelf(), {"root": {"max_tokens": 10}, "max_turns": 40})
    rollout = await scaffold.rollout(Task("How often does spam occur?", id="s"), root)
    assert (rollout.answer, rollout.stop_reason) == ("720", StopReason.READY)
    assert rollout.metrics["tool_calls"] == 12
    assert len(rollout.sub_calls) >= 2
    assert all(_words(call.messages) <= 400 for call in rollout.sub_calls)


def test_prompts_of_ones_own_are_checked(tmp_path):
    (tmp_path / "own.txt").write_text("$question $txt")
    with pytest.raises(ValueError, match=r"own\.txt' asks for \$txt; known fields: question, summary, text"):
        make_scaffold("summary", WordCount(), {"fold_prompt": str(tmp_path / "own.txt")})
    with pytest.raises(ValueError, match="sumarizer"):
        make_scaffold("summary", WordCount(), {"sumarizer": "sub"})
    assert make_scaffold("summary", WordCount(), {"final": "sub"}).describe()["config"]["final"] == "sub"


@settings(max_examples=100)
@given(st.text(alphabet="ab \n", max_size=600), st.integers(4, 200), st.booleans())
async def test_a_piece_fits_and_is_nearly_the_longest_that_does(text, words, counts):
    llm = Counter(words, "counts" if counts else "window")
    window = Window(llm, Sampling(max_tokens=1))

    def prompt(piece):
        return [{"role": "user", "content": f"Read: {piece}"}]

    size = await window.piece(text, 0, prompt)
    assert 0 <= size <= len(text)
    if size:
        assert await window.fits(prompt(text[:size]))
    if size < len(text):
        assert not await window.fits(prompt(text[: size * 3 // 2 + 40]))
