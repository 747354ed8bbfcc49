"""Environments found by name, and the environment of the README: as it stands there, by every command."""

import asyncio
import json
import re
import threading
import warnings
from pathlib import Path

import pytest

import rlm_env
from rlm_env.cli import main
from rlm_env.environment import Environment
from rlm_env.registry import environments, find_environment, load_environment, other_places
from rlm_env.task import Task
from tests.stub_endpoint import stub_endpoint
from tests.stubs import fenced, script

README = Path(__file__).parents[1] / "README.md"
DONE = fenced('answer["content"] = str(len(context.split()))\nanswer["ready"] = True')
NO_TEXT = b'[project.entry-points."rlm_env.environments"]\nx-local = 5'
COUNTS_WORDS = """
import rlm_env


class WordCount(rlm_env.Environment):
    def __init__(self, *, seed=0, words=2):
        self.seed, self.words = seed, words

    def tasks(self, split):
        yield rlm_env.Task("Q?", "w " * self.words)

    def score(self, task, rollout):
        return 1


def make(**options):
    return WordCount(**options)


def no_environment():
    return "a str"
"""


def install(folder: Path, module: str, source: str, **entry_points: str) -> None:
    """A project below `environments/` of the current folder."""
    project = folder / "environments" / module
    project.mkdir(parents=True)
    lines = [f'{name} = "{module}:{value}"' for name, value in entry_points.items()]
    project.joinpath("pyproject.toml").write_text(
        "\n".join(["[project]", 'name = "any"', '[project.entry-points."rlm_env.environments"]', *lines])
    )
    project.joinpath(f"{module}.py").write_text(source)


@pytest.fixture
def word_count(tmp_path, monkeypatch):
    names = {"word-count-local": "WordCount", "word_count_made": "make", "broken": "no_environment"}
    install(tmp_path, "rlm_env_test_registry", COUNTS_WORDS, **names)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("word_count")
def test_environments_are_found_in_the_folder():
    assert {"word-count-local", "word_count_made"} <= environments().keys()
    env = load_environment("word_count_local", seed=1, words=3, max_turns=4)
    assert (env.environment.seed, env.environment.words) == (1, 3)
    assert env.config.max_turns == 4
    task = Task("Q?")
    assert env.score(task, rlm_env.Rollout.from_answer(task, "")).value == 1.0
    with pytest.raises(TypeError, match="wrods"):
        load_environment("word-count-local", wrods=3)
    with pytest.raises(ValueError, match="did you mean 'word-count-local'"):
        find_environment("word-cuont-local")


@pytest.mark.usefixtures("word_count")
@pytest.mark.parametrize("broken", [b"x = [", b"\xff", b"project = 3", b"[project]\nentry-points = 3", NO_TEXT, None])
def test_a_broken_package_keeps_no_other_from_being_found(broken):
    project = Path("environments", "another", "pyproject.toml")
    project.parent.mkdir()
    if broken is None:
        project.mkdir()
    else:
        project.write_bytes(broken)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert find_environment("word-count-local", words=3).words == 3
        assert {"word-count-local", "word_count_made"} <= environments().keys()
    told = {str(warning.message) for warning in warned}
    assert all("another" in text for text in told)
    assert bool(told) == (broken not in (b"project = 3", b"[project]\nentry-points = 3", NO_TEXT))


@pytest.mark.usefixtures("word_count")
def test_other_places_of_a_name_are_known(tmp_path):
    assert other_places("word-count-local") == []
    install(tmp_path, "rlm_env_test_second", COUNTS_WORDS, **{"word_count-local": "WordCount"})
    assert other_places("word-count-local") == ["environments/rlm_env_test_second"]


@pytest.mark.usefixtures("word_count")
@pytest.mark.parametrize("name", ["word_count_made", "word-count-made", "word_count-made"])
def test_underscores_and_hyphens_are_the_same_in_names(name):
    """Once a name that was declared with an underscore was listed and could not be loaded."""
    assert find_environment(name, seed=5).seed == 5


@pytest.mark.usefixtures("word_count")
def test_an_entry_point_must_give_an_environment():
    with pytest.raises(TypeError, match="'broken' gives a str, which is not an Environment"):
        find_environment("broken")


class Numbered(Environment):
    """Two tasks."""

    def tasks(self, split):
        yield Task("first?")
        yield Task("second?", id="own")

    def score(self, task, rollout):
        return 0


def test_a_task_by_its_position():
    environment = Numbered()
    assert environment.task("eval", 0) == Task("first?", id="eval-0")
    assert environment.task("eval", 1).id == "own"
    for index in (2, -1):
        with pytest.raises(IndexError, match=f"task {index} of 'eval'"):
            environment.task("eval", index)


@pytest.fixture
def from_readme(tmp_path, monkeypatch):
    """The README's environment in a package named `my-count`, and the snippet's own names."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    [source] = [block for block in blocks if "class WordCount(rlm_env.Environment)" in block]
    install(tmp_path, "rlm_env_test_readme", f"import rlm_env\n\n{source}", **{"my-count": "WordCount"})
    monkeypatch.chdir(tmp_path)
    names = {"rlm_env": rlm_env}
    exec(source, names)
    return names


async def test_the_environment_of_the_readme_rolls_out(from_readme):
    for env in (from_readme["env"], load_environment("my-count", seed=3, max_turns=4)):
        [task] = env.tasks("eval").take(1)
        async with env:
            rollout = await env.rollout(task, script(DONE))
        assert env.score(task, rollout).value == 1.0
        assert env.score(task, rlm_env.Rollout.from_answer(task, "")).value == 0.0


def reply(_path, body):
    """A root LLM that counts; to the plain prompt, the right answer too."""
    prompt = body["messages"][-1]["content"]
    rlm = body["messages"][0]["role"] == "system"
    message = {"role": "assistant", "content": DONE if rlm else str(prompt.split().count("word"))}
    usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}


@pytest.mark.usefixtures("from_readme")
def test_the_environment_of_the_readme_is_evaluated(tmp_path):
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    endpoint = stub_endpoint(reply)
    try:
        url = asyncio.run_coroutine_threadsafe(endpoint.__aenter__(), loop).result(10).base_url
        assert main(["eval", "my-count", "--model", "m", "--base-url", url, "-n", "3", "--out", "out"]) == 0
    finally:
        asyncio.run_coroutine_threadsafe(endpoint.__aexit__(None, None, None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [scaffold["score"]["mean"] for scaffold in summary["scaffolds"]] == [1.0, 1.0]


@pytest.mark.slow
@pytest.mark.usefixtures("from_readme")
def test_the_environment_of_the_readme_passes_the_checks_of_a_training_run(tmp_path, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("renderers")
    config = tmp_path / "train.toml"
    config.write_text(
        'model = "tiny-rlm"\nsteps = 1\n[[environments]]\nname = "my-count"\n[rollout.sub]\ntemperature = 1.0\n'
        '[trainer]\ndevice = "cpu"\ndtype = "float32"\n'
    )
    code = main(["train", str(config), "--dry-run"])
    told = capsys.readouterr()
    assert code == 0, told.err
    assert "my-count" in told.out
