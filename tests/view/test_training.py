"""A training run in the viewer: groups with the advantages that training computes, samples, curves, limits."""

import pytest

from rlm_env.evals.outline import outline_of
from rlm_env.train.learner.samples import rollout_samples
from rlm_env.view.api import Api, NotFound
from rlm_env.view.tokens import sample_list, samples_of
from rlm_env.view.workplace import Workplace
from tests.view.conftest import all_rows
from tests.view.training_run import SCORES, UPDATED


@pytest.fixture
def training(train_run) -> Api:
    return Api(Workplace([train_run]))


def test_rows_are_those_of_training_and_of_evaluations(training):
    rows = all_rows(training, "run")
    assert len(rows) == 12 + 6
    assert [row["file"] for row in rows if "file" in row] == [1] * 6
    assert {row.get("group") for row in rows} == {0, 1, 2, None}
    (run,) = training.get(["runs"], {})["runs"]
    assert (run["kind"], run["status"], run["steps"]) == ("train", "complete", 2)


def test_a_group_has_its_members_with_their_advantages(training):
    groups = {group["group"]: group for group in training.get(["runs", "run", "groups"], {})["groups"]}
    assert groups.keys() == SCORES.keys()
    for number, group in groups.items():
        mean = sum(SCORES[number]) / 4
        assert [member["reward"] for member in group["members"]] == SCORES[number]
        assert [member["advantage"] for member in group["members"]] == [score - mean for score in SCORES[number]]
    assert (groups[0]["step"], groups[0]["dropped"]) == (1, None)
    assert (groups[1]["step"], groups[1]["dropped"]) == (None, "zero_advantage")
    assert [member["off_policy"] for member in groups[2]["members"]] == [1] * 4
    assert [member["off_policy"] for member in groups[1]["members"]] == [None] * 4


def test_a_group_alone_knows_its_neighbors(training):
    alone = training.get(["runs", "run", "groups", "1"], {})
    assert (alone["before"], alone["group"]["group"], alone["after"]) == (0, 1, 2)
    assert training.get(["runs", "run", "groups", "0"], {})["before"] is None
    with pytest.raises(NotFound, match="no group 7"):
        training.get(["runs", "run", "groups", "7"], {})


def test_the_numbers_are_the_table_and_the_curves(training, capsys):
    from rlm_env.cli.main import main

    numbers = training.get(["runs", "run", "numbers"], {})
    assert main(["report", str(training.workplace.runs()[0].path)]) == 0
    printed = capsys.readouterr().out
    assert all(cell.strip() in printed for row in numbers["tables"][0]["rows"] for cell in row)
    curves = {curve["name"]: curve for curve in numbers["curves"]}
    assert curves["reward/mean"]["points"] == [[1, 0.25], [2, 0.5]]
    assert curves["held out: oolong-rlm"] == {
        "name": "held out: oolong-rlm",
        "points": [[0, 0.0], [2, 1.0]],
        "bounds": [[0.1, 0.9], [0.1, 0.9]],
    }


def test_limits_are_those_of_the_models_profile(training):
    page = training.get(["runs", "run", "rollouts", "000000/0"], {})
    limits = {budget["name"]: budget["limit"] for budget in page["budgets"]}
    assert limits["turns"] == 6
    assert page["group"]["policy_version"] == 0
    assert page["has_tokens"]


def test_turns_say_which_weights_sampled_them_where_those_of_a_rollout_changed(training):
    page = training.get(["runs", "run", "rollouts", UPDATED], {})
    assert page["weight_versions"] == [0, 1]
    assert [turn["weight_versions"] for turn in page["turns"]] == [[[0, 0]], [[0, 0], [1, 1]]]
    other = training.get(["runs", "run", "rollouts", "000002/2"], {})
    assert other["weight_versions"] == []
    assert [turn["weight_versions"] for turn in other["turns"]] == [None, None]


def test_samples_and_tokens_are_those_that_are_trained(training):
    base = ["runs", "run", "rollouts", "000000/1", "samples"]
    listed = training.get(base, {})["samples"]
    source, number = training.workplace.run("run").find("000000/1")
    trained = rollout_samples(outline_of(source.record(number), tokens=True))
    assert [(one["kind"], one["tokens"], one["trained"]) for one in listed] == [("root", 9, 5), ("sub", 3, 1)]
    for index, sample in enumerate(trained):
        page = training.get([*base, str(index), "0"], {})
        assert page["ids"] == sample.token_ids
        kept = [value is not None for value in page["logprobs"]]
        assert kept == sample.mask
        assert [value for value in page["logprobs"] if value is not None] == [
            value for value, mask in zip(sample.behavior_logprobs, sample.mask, strict=True) if mask
        ]
    assert training.get([*base, "0", "6"], {})["ids"] == trained[0].token_ids[6:]


def test_tokens_that_were_sampled_greedily_are_shown_too(training):
    source, number = training.workplace.run("run").find("000000/1")
    record = source.record(number)
    record["info"]["sampling"] = {"root": {"temperature": 0.0}, "sub": {"temperature": 0.0}}
    assert [(one["tokens"], one["temperature"]) for one in sample_list(samples_of(record))] == [(9, 0.0), (3, 0.0)]


def test_token_texts_are_the_tokenizers(training):
    pytest.importorskip("tokenizers")
    page = training.get(["runs", "run", "rollouts", "000000/1", "samples", "0", "0"], {})
    assert page["texts"][0] == "<|im_start|>"
    assert len(page["texts"]) == len(page["ids"])


def test_a_run_that_has_only_begun_is_shown(train_run, tmp_path):
    (tmp_path / "config.toml").write_bytes((train_run / "config.toml").read_bytes())
    (tmp_path / "rollouts.jsonl").write_bytes((train_run / "rollouts.jsonl").read_bytes())
    (tmp_path / "journal.jsonl").write_text("")
    api = Api(Workplace([tmp_path]))
    name = api.get(["runs"], {})["runs"][0]["name"]
    assert api.get(["runs", name, "numbers"], {})["tables"] == []
    assert {group["step"] for group in api.get(["runs", name, "groups"], {})["groups"]} == {None}
    with pytest.raises(NotFound):
        api.get(["runs", name, "rollouts", "000000/0", "samples", "7", "0"], {})


def test_a_damaged_line_of_the_journal_is_named(train_run, tmp_path):
    for name in ("config.toml", "rollouts.jsonl"):
        (tmp_path / name).write_bytes((train_run / name).read_bytes())
    broken, whole = '{"event": "batch", "step": 1}', '{"event": "batch", "step": 1, "groups": [0]}'
    (tmp_path / "journal.jsonl").write_text(f"{broken}\n{whole}\n")
    api = Api(Workplace([tmp_path]))
    name = api.get(["runs"], {})["runs"][0]["name"]
    with pytest.raises(NotFound, match=r"journal\.jsonl, line 1 is damaged"):
        api.get(["runs", name, "groups"], {})
