"""`rlm_env.evaluate` on an endpoint in a thread: the folder and numbers of the command line."""

import json

import pytest

import rlm_env
from rlm_env.cli import main
from rlm_env.evals.evaluate import Evaluation
from rlm_env.events import RolloutEnded
from rlm_env.rollout import write_rollouts
from rlm_env.runs.errors import ConfigError, RunStopped

pytestmark = pytest.mark.usefixtures("bare_repls")


class Spam(rlm_env.Environment):
    """Counts spam; defined in a script, found by no name."""

    def tasks(self, split):
        for count in range(1, 5):
            yield rlm_env.Task("How often does spam occur?", "spam " * count, str(count))

    def score(self, task, rollout):
        return float(rollout.answer.strip() == task.gold)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr("rlm_env.llm.http.LONGEST_WAIT", 0.05)


@pytest.fixture
def options(workplace, endpoint):
    return {"model": "stub", "base_url": endpoint.url, "out": "out", "progress": False}


def test_an_eval_from_python_is_the_eval_of_the_command_line(options, endpoint, capfd):
    ended, events = [], []
    result = rlm_env.evaluate_sync("word-count", n=2, on_rollout=ended.append, on_event=events.append, **options)
    assert capfd.readouterr().err == ""
    assert (result.status, result.score("rlm"), result.score("standard")) == ("complete", 1.0, 0.5)
    assert {rollout.id for rollout in ended} == {rollout.id for rollout in result.rollouts()}
    assert {e.rollout_id for e in events if isinstance(e, RolloutEnded)} == {rollout.id for rollout in ended}
    assert all(rollout.score for rollout in ended)
    where = ["--model", "stub", "--base-url", endpoint.url, "--out", "by-command"]
    assert main(["eval", "word-count", "-n", "2", *where]) == 0
    by_command = Evaluation.load("by-command")
    keys = ("task_id", "scaffold", "reward", "outcome")
    assert [{key: record.get(key) for key in keys} for record in _sorted(result)] == [
        {key: record.get(key) for key in keys} for record in _sorted(by_command)
    ]


async def test_results_are_tables(options):
    result = await rlm_env.evaluate("word-count", n=2, scaffolds="rlm", **options)
    assert sorted(record["task_id"] for record in result.results()) == ["eval-0", "eval-1"]  # stored as they end
    assert "| score [95 % interval] | 1.000" in result.to_markdown()
    assert repr(result) == "<Evaluation 'out': complete, word-count rlm 1.000>"
    assert result._repr_markdown_() == result.to_markdown()
    pandas = pytest.importorskip("pandas")
    frame = result.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["scaffold"]) == ["rlm", "rlm"]


async def test_a_rollout_that_was_made_again_is_there_once(options):
    result = await rlm_env.evaluate("word-count", n=1, scaffolds="rlm", **options)
    (rollout,) = result.rollouts()
    failed = rlm_env.Rollout(rollout.id, rollout.task_id, info=rollout.info, error="the engine died")
    write_rollouts(result.path / "rollouts.jsonl", [failed, rollout])
    assert [one.error for one in Evaluation.load("out").rollouts()] == [None]


async def test_an_environment_of_ones_own_is_taken_as_it_is(options):
    result = await rlm_env.evaluate(Spam(), n=3, scaffolds=["rlm"], **options)
    assert result.score("rlm") == 1.0
    assert Evaluation.load("out").score("rlm") == 1.0


async def test_several_environments_are_one_table(options):
    result = await rlm_env.evaluate([Spam(), "word-count"], n=2, scaffolds=["rlm"], **options)
    assert list(result.summaries) == ["Spam", "word-count"]
    assert {record["environment"] for record in result.results()} == {"Spam", "word-count"}
    assert len(list(result.rollouts())) == 4
    with pytest.raises(KeyError, match="name one of"):
        result.score("rlm")


async def test_it_goes_on_where_it_was_stopped(options, endpoint):
    endpoint.before_reply = lambda count: endpoint.die() if count == 3 else None
    with pytest.raises(RunStopped):
        await rlm_env.evaluate(Spam(), n=4, scaffolds=["rlm"], concurrency=1, **options)
    endpoint.before_reply = lambda count: None
    endpoint.restart()
    result = await rlm_env.evaluate(Spam(), n=4, scaffolds=["rlm"], concurrency=1, resume=True, **options)
    assert (result.status, result.score("rlm")) == ("complete", 1.0)


async def test_a_callback_that_raises_costs_nothing(options, caplog):
    def broken(rollout):
        raise RuntimeError("my plot failed")

    result = await rlm_env.evaluate(Spam(), n=2, scaffolds=["rlm"], on_rollout=broken, **options)
    assert result.score("rlm") == 1.0
    assert "my plot failed" in caplog.text


async def test_mistakes_are_found_before_anything_is_paid(options, endpoint):
    for wrong, message in (({"rollouts": 2}, "unknown key 'rollouts'"), ({"scaffolds": "rml"}, "unknown scaffold")):
        with pytest.raises(ConfigError, match=message):
            await rlm_env.evaluate("word-count", **{**options, **wrong})
    with pytest.raises(ConfigError, match="make the object with them"):
        await rlm_env.evaluate(Spam(), **options, **{"options": {"seed": 1}})
    assert endpoint.requests == []


async def test_the_form_without_await_works_beside_a_running_loop(options):
    assert rlm_env.evaluate_sync(Spam(), n=1, scaffolds=["rlm"], **options).score("rlm") == 1.0


def _sorted(result):
    return sorted(result.results(), key=lambda record: json.dumps([record["scaffold"], record["task_id"]]))
