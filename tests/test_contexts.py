"""Stored rollouts refer to their context instead of repeating it, and read back to the byte."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rlm_env
from rlm_env.context import context_text
from rlm_env.contexts import CONTEXTS, ContextStore, source_text
from rlm_env.messages import Completion
from rlm_env.repl import ReplPools
from rlm_env.rollout import RecordError, Rollout, SubCall, ToolResult, Turn, read_rollouts
from rlm_env.runs.folder import ROLLOUTS, RunFolder
from rlm_env.scaffolds import SCAFFOLDS, make_scaffold
from rlm_env.task import Task
from tests.scaffolds.test_scaffolds import Tipped
from tests.stubs import StubLLM, fenced

NAMES = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
WORDS = random.Random(0).choices(NAMES, k=200_000)
TEXT = " ".join(f"{word}{i % 97}" for i, word in enumerate(WORDS))[:1_000_000]
CHUNKS = (
    "size = len(context) // 50 + 1\n"
    "chunks = [context[i * size : (i + 1) * size] for i in range(50)]\n"
    'answers = llm_batch([f"Part {i}. Read this and say how many words begin with a.\\n\\n{c}\\n\\nAnswer briefly." '
    "for i, c in enumerate(chunks)])\n"
    "print(context[5000:12000])"
)
DONE = 'answer["content"] = "2"\nanswer["ready"] = True'


def stored(path: Path, rollouts: list[Rollout]) -> Path:
    with RunFolder(path, resume=False) as folder:
        for rollout in rollouts:
            folder.append(rollout)
    return path / ROLLOUTS


def dumped(rollout: Rollout) -> dict:
    """Everything that is in a rollout, as plain data."""
    return rollout.to_dict()


async def played(name: str, context, pools: ReplPools, code: str = CHUNKS) -> Rollout:
    def reply(messages):
        if messages[0]["role"] != "system" or "REPL" not in messages[0]["content"]:
            return "It is 2."
        turn = sum(message["role"] == "assistant" for message in messages)
        return fenced(code if turn == 0 and name != "rlm-nosub" else DONE if turn else "print(context[:5000])")

    options = {"repl": rlm_env.ReplConfig(preload=())} if name.startswith("rlm") else {}
    if name == "summary":
        options["window"] = 20_000
    scaffold = make_scaffold(name, Tipped(), options, pools=pools)
    try:
        return await scaffold.rollout(Task("How many words?", context, gold={"n": 2}, id="t"), StubLLM(reply))
    finally:
        await scaffold.aclose()


@pytest.mark.parametrize("name", SCAFFOLDS)
async def test_a_record_holds_the_question_the_gold_and_every_prompt_and_is_small(pools, name, tmp_path):
    rollout = await played(name, TEXT, pools)
    assert (rollout.question, rollout.gold) == ("How many words?", {"n": 2})
    prompts = json.dumps(
        [rollout.messages, [call.messages for call in rollout.sub_calls], [t.prompt for t in rollout.turns]]
    )
    assert "How many words?" in prompts
    if name in ("rlm", "rlm-tips"):
        assert len(rollout.sub_calls) == 50
    if name != "rlm-nosub":
        assert len(prompts) > 900_000
    path = stored(tmp_path / "run", [rollout, rollout])
    line = path.read_text().splitlines()[0]
    assert len(line) < 50_000
    calls = json.loads(line)["sub_calls"]
    assert all(len(json.dumps(call)) < 1000 for call in calls) or name == "summary"
    assert len(list((tmp_path / "run" / CONTEXTS).iterdir())) == 1
    for again in read_rollouts(path):
        assert dumped(again) == dumped(rollout)
        assert again == rollout


@pytest.mark.parametrize(
    "context",
    [
        [f"record {i}: {word}" for i, word in enumerate(WORDS[:20_000])],
        {f"key {i}": {"text": word * 20, "n": i} for i, word in enumerate(WORDS[:8000])},
        TEXT[:400_000].encode(),
        "folder",
    ],
    ids=["list", "dict", "bytes", "folder"],
)
async def test_contexts_of_every_kind_are_referred_to(pools, context, tmp_path):
    if context == "folder":
        context = tmp_path / "files"
        context.mkdir()
        for i in range(5):
            (context / f"{i}.txt").write_text(TEXT[i * 100_000 : (i + 1) * 100_000])
    rollout = await played("standard", context, pools)
    assert context_text(context) in rollout.messages[0]["content"]
    path = stored(tmp_path / "run", [rollout])
    assert path.stat().st_size < 10_000
    assert dumped(next(read_rollouts(path))) == dumped(rollout)


async def test_pieces_of_a_list_that_code_has_joined_are_referred_to(pools, tmp_path):
    records = [f"record {i}: {word}" for i, word in enumerate(WORDS[:20_000])]
    code = 'answers = llm_batch(["Count.\\n" + "\\n".join(context[i : i + 400]) for i in range(0, 20000, 400)])'
    rollout = await played("rlm", records, pools, code)
    path = stored(tmp_path / "run", [rollout])
    assert path.stat().st_size < 50_000
    assert dumped(next(read_rollouts(path))) == dumped(rollout)


async def test_a_rollout_that_was_read_can_be_stored_again(pools, tmp_path):
    path = stored(tmp_path / "a", [await played("standard", TEXT, pools)])
    again = stored(tmp_path / "b", list(read_rollouts(path)))
    assert again.read_text() == path.read_text()
    assert [one.name for one in (tmp_path / "b" / CONTEXTS).iterdir()] == [
        one.name for one in (tmp_path / "a" / CONTEXTS).iterdir()
    ]


async def test_a_context_that_is_missing_or_changed_is_an_error_that_names_it(pools, tmp_path):
    path = stored(tmp_path / "run", [await played("standard", TEXT, pools)])
    (context,) = (tmp_path / "run" / CONTEXTS).iterdir()
    context.write_text(TEXT + "x")
    with pytest.raises(RecordError, match=rf"line 1: .*'.*' cannot be read: .*{context.stem}.* is not that any more"):
        list(read_rollouts(path))
    context.unlink()
    with pytest.raises(RecordError, match=rf"refers to the context {context.stem}.*No such file"):
        list(read_rollouts(path))
    with pytest.raises(RecordError, match=f"refers to the context {context.stem}"):
        Rollout.from_json(path.read_text())


async def test_a_text_that_many_sub_calls_share_is_stored_once(tmp_path):
    head = "Think about the following question with great care and in many steps. " * 20
    calls = [
        SubCall(i, 0, 0, [{"role": "user", "content": f"{head}\n{TEXT[i * 900 : i * 900 + 500]}"}]) for i in range(500)
    ]
    rollout = Rollout(id="r", sub_calls=calls, context=TEXT)
    path = stored(tmp_path / "run", [rollout])
    assert path.stat().st_size < 500 * 700
    assert next(read_rollouts(path)) == rollout


async def test_a_context_whose_files_are_gone_leaves_the_text_in_the_record(pools, tmp_path):
    file = tmp_path / "context.txt"
    file.write_text(TEXT[:1000])
    rollout = await played("standard", file, pools)
    file.unlink()
    path = stored(tmp_path / "run", [rollout])
    assert TEXT[:1000] in path.read_text()
    assert next(read_rollouts(path)) == rollout


texts = st.builds(
    lambda a, i, n, b: a + TEXT[i : i + n] + b, st.text(), st.integers(0, 900), st.integers(0, 300), st.text()
)
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "tool"]), "content": texts}), max_size=3
)
results = st.lists(st.builds(ToolResult, st.just("tool"), texts, output=texts), max_size=2)
rollouts = st.builds(
    Rollout,
    id=st.text(),
    answer=texts,
    question=texts,
    messages=messages,
    turns=st.lists(st.builds(Turn, text=texts, observation=texts, prompt=messages, tool_results=results), max_size=3),
    sub_calls=st.lists(st.builds(SubCall, st.integers(), st.just(0), st.just(0), messages), max_size=4),
    context=st.sampled_from([TEXT[:2000], "", list(TEXT[:200]), TEXT[:900].encode()]),
)


@settings(max_examples=150, deadline=None)
@given(rollout=rollouts)
def test_every_rollout_reads_back(rollout, tmp_path_factory):
    store = ContextStore(tmp_path_factory.mktemp("run") / CONTEXTS)
    line = rollout.to_json(store)
    again = Rollout.from_json(line, ContextStore(store.folder))
    assert dumped(again) == dumped(rollout)
    assert Rollout.from_json(rollout.to_json()) == rollout, "without a store the record is complete by itself"


def test_a_right_answer_that_has_no_json_form_is_stored_as_text():
    completion = Completion("x", finish_reason="stop")
    scaffold = make_scaffold("standard", Tipped())
    for gold, recorded in (({1, 2}, "{1, 2}"), (float("nan"), "nan"), ((1, 2), [1, 2])):
        import asyncio

        rollout = asyncio.run(scaffold.rollout(Task("Q?", "c", gold=gold), StubLLM(lambda messages: completion)))
        assert rollout.gold == recorded
        assert Rollout.from_json(rollout.to_json()) == rollout


def test_the_source_of_a_list_holds_its_strings_as_code_prints_them():
    assert "a\nb" in source_text({"a\nb": ["x", {"y": "z"}]})
