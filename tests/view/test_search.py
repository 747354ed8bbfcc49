"""Text in everything that rollouts hold: code, outputs, replies, tools, sub-calls, and quotes of the context."""

from __future__ import annotations

import json

import pytest

from rlm_env.rollout import Rollout, Score, SubCall, SubTurn, ToolResult, Turn, write_rollouts
from rlm_env.view.api import Api
from rlm_env.view.search import words_of
from rlm_env.view.workplace import Workplace

CONTEXT = "\n".join(f"line {number}: {'x' * 40}" for number in range(300)) + "\nThe Heron stood still."


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two rollouts; the second has nothing to find."""
    looked = SubTurn(text="I search", tool_results=[ToolResult("look", '{"for": "toolargs"}', "tooloutput")])
    calls = [
        SubCall(
            0, 1, 0, [{"role": "user", "content": f"Read: {CONTEXT[-200:]}"}], text="subanswer", tool_turns=[looked]
        ),
        SubCall(1, 1, 0, [{"role": "user", "content": [{"type": "text", "text": "inparts"}]}], error="suberror"),
    ]
    turns = [
        Turn(text="saying", reasoning="thinking", code=["print(FirstCode)"], observation=CONTEXT[:200]),
        Turn(text="then", code=["answer"], observation="printed", error="KeyError: key", answer="draft"),
    ]
    info = {"gold": {"k": ["goldvalue"]}, "answer": "final", "error": "broke", "score": Score(0.5, {}, "because")}
    full = Rollout("rlm/a/0", "a", question="Which bird?", turns=turns, sub_calls=calls, context=CONTEXT, **info)
    folder = tmp_path_factory.mktemp("search") / "run"
    folder.mkdir()
    write_rollouts(folder / "rollouts.jsonl", [full, Rollout("rlm/b/0", "b", turns=[Turn(text="nothing")])])
    assert "Heron" not in (folder / "rollouts.jsonl").read_text()  # it is a reference to the context
    return folder


def search(folder, text):
    """All that is found, asked for as the page does."""
    api = Api(Workplace([folder]))
    api.rows(api.workplace.run("run"), "")
    answer = api.get(["runs", "run", "search"], {"text": text})
    found = answer["found"]
    while answer["more"]:
        answer = api.get(["runs", "run", "search"], {"text": text, "after": answer["after"]})
        found += answer["found"]
    assert answer["share"] == 1.0
    return found


@pytest.mark.parametrize(
    ("text", "turn"),
    [
        *(("firstcode", 0), ("thinking", 0), ("SAYING", 0), ("line 3:", 0), ("printed", 1), ("keyerror", 1)),
        *(("draft", 1), ("heron", 1), ("toolargs", 1), ("tooloutput", 1), ("subanswer", 1), ("inparts", 1)),
        *(("suberror", 1), ("goldvalue", None), ("because", None), ("bird?", None), ("broke", None)),
        *(("thinking subanswer", 0), ('"heron stood" bird', 1), ('"stood still', 1), ("print(firstcode)", 0)),
    ],
)
def test_a_text_is_found_with_its_turn(run, text, turn):
    assert search(run, text) == [["rlm/a/0", turn]]


@pytest.mark.parametrize("text", ["", '""', "  ", "nowhere", '"heron still"', "thinking nowhere"])
def test_what_does_not_occur_is_not_found(run, text):
    assert search(run, text) == []


def test_words_and_phrases():
    assert words_of('One "Two  three" four"five') == ["one", "two  three", "four", "five"]


def test_a_search_goes_on_where_it_was_and_begins_again_with_a_new_file(run, monkeypatch):
    monkeypatch.setattr("rlm_env.view.api.READ_SECONDS", -1.0)
    api = Api(Workplace([run]))
    api.workplace.run("run").refresh()
    answer = api.get(["runs", "run", "search"], {"text": "then"})
    assert (answer["found"], answer["more"], answer["share"]) == ([], True, 0.0)
    monkeypatch.setattr("rlm_env.view.api.READ_SECONDS", 10.0)
    answer = api.get(["runs", "run", "search"], {"text": "then", "after": answer["after"]})
    assert (answer["found"], answer["more"], answer["reset"]) == ([["rlm/a/0", 1]], False, False)
    assert api.get(["runs", "run", "search"], {"text": "then", "after": "7:2"})["reset"]


def test_of_a_rollout_that_was_stored_twice_the_last_counts(run, tmp_path):
    first = json.loads((run / "rollouts.jsonl").read_text().splitlines()[1])
    again = first | {"turns": [first["turns"][0] | {"text": "other"}]}
    (tmp_path / "run").mkdir()
    (tmp_path / "run/rollouts.jsonl").write_text(f"{json.dumps(first)}\n{json.dumps(again)}\n")
    assert search(tmp_path / "run", "nothing") == []
    assert search(tmp_path / "run", "other") == [["rlm/b/0", 0]]
