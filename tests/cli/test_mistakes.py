"""What a user gets wrong is named in a line or two, without a traceback."""

import argparse
from pathlib import Path

import pytest

from rlm_env.cli import main
from rlm_env.cli.main import make_parser

WHERE = ("--model", "stub", "--base-url", "http://127.0.0.1:9/v1")


@pytest.fixture
def fails(workplace, capfd):
    """Runs a command that must end with exit code 2; returns what it says, in one line."""

    def call(*arguments: str) -> str:
        assert main([*arguments]) == 2
        err = capfd.readouterr().err
        assert "Traceback" not in err
        return " ".join(err.split())

    return call


def module(workplace: Path) -> Path:
    return workplace / "environments" / "word_count" / "rlm_env_test_word_count.py"


def test_a_mistyped_flag_is_named_with_near_matches(fails):
    said = fails("eval", "word-count", *WHERE, "--concurency", "4")
    assert said == "error: unknown option --concurency; did you mean '--concurrency'?"


def test_without_a_command_all_of_them_are_listed(fails):
    said = fails()
    assert "usage: rlm-env" in said
    assert "report tell what came out of runs" in said


def test_a_folder_of_runs_where_one_is_wanted_names_one(fails, tmp_path):
    (tmp_path / "outputs" / "first").mkdir(parents=True)
    (tmp_path / "outputs" / "first" / "config.toml").write_text("")
    said = fails("score", str(tmp_path / "outputs"))
    assert "holds no run: cannot read config.toml" in said
    assert said.endswith("name a run in it, such as " + str(tmp_path / "outputs" / "first"))


def test_no_command_takes_the_beginning_of_an_option_for_the_option():
    parser = make_parser()
    [commands] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    assert [name for name, command in commands.choices.items() if command.allow_abbrev] == []
    assert not parser.allow_abbrev


def test_the_beginning_of_an_option_is_refused_with_the_whole_of_it(fails):
    for short, whole in (("--scaffold", "--scaffolds"), ("--con", "--concurrency"), ("--dry", "--dry-run")):
        said = fails("eval", "word-count", *WHERE, short, "rlm")
        assert said == f"error: unknown option {short}; did you mean '{whole}'?"
    assert "unknown option --markdow; did you mean '--markdown'?" in fails("report", "outputs", "--markdow")


def test_an_option_that_the_environment_does_not_have(fails):
    said = fails("eval", "word-count", *WHERE, "--set", "options.length=[20]")
    assert said == (
        "error: environment word-count has no option 'length'; did you mean 'lengths'? "
        "Its options: seed, lengths, spoilt, flaw, judge, bonus, slow."
    )
    assert "has no option 'zzz'. Its options: seed," in fails("eval", "word-count", *WHERE, "--set", "options.zzz=3")


def test_a_module_that_is_missing(fails, workplace):
    project = workplace / "environments" / "word_count" / "pyproject.toml"
    project.write_text(project.read_text().replace("rlm_env_test_word_count:", "rlm_env_test_no_such_module:"))
    assert "its module cannot be imported (No module named 'rlm_env_test_no_such_module')" in fails(
        "eval", "word-count", *WHERE
    )


def test_tasks_that_raise_anything(fails, workplace):
    name = "rlm_env_test_raising"
    folder = workplace / "environments" / "word_count"
    (folder / f"{name}.py").write_text(
        module(workplace).read_text().replace("for index in range(1000):", 'for index in {}["no data"]:')
    )
    project = folder / "pyproject.toml"
    project.write_text(project.read_text().replace("rlm_env_test_word_count:", f"{name}:"))
    assert "cannot make its tasks: KeyError: 'no data' (rlm_env_test_raising.py, line" in fails(
        "eval", "word-count", *WHERE
    )


def test_a_config_that_is_a_folder(fails):
    Path("d.toml").mkdir()
    assert "cannot read the config d.toml: Is a directory" in fails("eval", "d.toml")


@pytest.mark.parametrize("out", ["", "."])
def test_the_current_folder_as_output(fails, out):
    assert "--out must name a folder of its own" in fails("eval", "word-count", *WHERE, "--out", out)


def test_a_folder_with_other_files(fails):
    Path("mine").mkdir()
    Path("mine/thesis.tex").touch()
    assert "mine holds other files (thesis.tex)" in fails("eval", "word-count", *WHERE, "--out", "mine")


def test_a_report_without_rollouts(fails):
    Path("out").mkdir()
    Path("out/config.toml").write_text(
        'model = "m"\nbase_url = "http://x/v1"\nout = "out"\n[[environments]]\nname = "word-count"\n'
        "[record]\ntasks = 1\n"
    )
    assert "out holds no rollouts: there is no rollouts.jsonl" in fails("report", "out")


def test_money_without_prices(fails):
    said = fails("eval", "word-count", *WHERE, "--max-cost", "1")
    assert 'give --prices FILE.toml with the US dollars per million tokens, for example ["stub"] prompt = 0.25' in said


def test_an_async_score(fails, workplace):
    name = "rlm_env_test_async"
    folder = workplace / "environments" / "word_count"
    (folder / f"{name}.py").write_text(module(workplace).read_text().replace("def score(", "async def score("))
    project = folder / "pyproject.toml"
    project.write_text(project.read_text().replace("rlm_env_test_word_count:", f"{name}:"))
    assert "score() must not be async; put what has to be awaited into judge()" in fails("eval", "word-count", *WHERE)
