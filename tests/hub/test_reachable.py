"""What a REPL can really read of an installed environment package: planted leaks of each kind are found."""

import gzip
import time

import pytest

from rlm_env.hub.check import CheckRequest, check_environment
from rlm_env.hub.contexts import gold_places
from rlm_env.hub.reachable import golds_in
from rlm_env.task import Task

NAMES = ("first", "second", "third")
GOLDS = [str(100_000 + 7919 * index) for index in range(30)]
KNOWN = f"""
golds = {GOLDS!r}
def made(self, split, index, numbers, gold):
    return Task('Which?', f'{{split}} {{index}}', self.golds[index], f'{{split}}-{{index}}')
def baselines(self):
    return {{"first": lambda task: "1"}}
"""


async def leaks(name: str) -> list[str]:
    findings = await check_environment(CheckRequest(name, {}, tasks=8))
    assert {finding.rule for finding in findings.found} <= {"package-in-repl", "gold-in-files"}
    return [f"{finding.where}: {finding.message}" for finding in findings.found]


async def test_a_package_that_keeps_its_golds_to_itself_leaks_nothing(planted):
    assert await leaks(planted.installed(KNOWN, files={})) == []


async def test_a_data_file_in_a_required_package_is_found(planted):
    planted.distribution("rlm-env-planted-data", {"rlm_env_planted_data/golds.json": repr(GOLDS)})
    [leak] = await leaks(planted.installed(KNOWN, requires=("rlm-env-planted-data>=1",)))
    assert "golds.json: can be read in the REPL and holds 8 of 8 gold answers, such as '100000'" in leak


async def test_a_data_file_in_what_a_required_package_requires_is_found(planted):
    planted.distribution("rlm-env-planted-deep", {"rlm_env_planted_deep/golds.json": repr(GOLDS)})
    planted.distribution("rlm-env-planted-between", {"between.txt": "nothing"}, requires=("rlm-env-planted-deep>=1",))
    [leak] = await leaks(planted.installed(KNOWN, requires=("rlm_env_planted.between>=1",)))
    assert "rlm_env_planted_deep/golds.json: can be read in the REPL and holds 8 of 8" in leak


async def test_what_a_package_requires_is_searched_before_it_is_installed(planted):
    planted.distribution("rlm-env-planted-early", {"rlm_env_planted_early/golds.json": repr(GOLDS)})
    name = planted(KNOWN)
    path = planted.folder / "environments" / name.replace("-", "_") / "pyproject.toml"
    path.write_text(path.read_text().replace("[project]", '[project]\ndependencies = ["rlm-env-planted-early"]'))
    [leak] = await leaks(name)
    assert "rlm_env_planted_early/golds.json: can be read in the REPL" in leak


@pytest.mark.slow
async def test_a_constant_of_a_module_in_a_required_package_is_found(planted):
    planted.distribution(
        "rlm-env-planted-more", {"rlm_env_planted_more.py": f"GOLDS = {GOLDS!r}\n", "other.txt": "none"}
    )
    [leak] = await leaks(planted.installed(KNOWN, requires=("rlm_env.planted.more",)))
    assert "rlm_env_planted_more.py: can be read in the REPL and holds 8 of 8" in leak


async def test_further_packages_of_the_same_distribution_are_kept_from_the_repl(planted):
    files = {"rlm_env_planted_second/golds.json": repr(GOLDS), "rlm_env_planted_third.py": f"GOLDS = {GOLDS!r}\n"}
    assert await leaks(planted.installed(KNOWN, files=files)) == []


async def test_sources_that_lie_among_the_installed_packages_are_found(planted, monkeypatch):
    planted.folder = planted.site_packages()
    monkeypatch.chdir(planted.folder)
    name = planted(KNOWN)  # its golds are a constant of the module
    module = name.replace("-", "_")
    (planted.folder / "environments" / module / module / "golds.json").write_text(repr(GOLDS))
    held = "can be read in the REPL and holds 8 of 8 gold answers, such as '100000'"
    assert await leaks(name) == [
        "pyproject.toml: can be read in the REPL",
        f"{module}/__init__.py: {held}",
        f"{module}/golds.json: {held}",
    ]


def test_files_are_searched_as_text_compressed_or_not(tmp_path):
    golds = {"alpha", "beta", "gamma", "delta"}
    for name, data, found in (
        ("plain.txt", b"alpha, beta and gamma", {"alpha", "beta", "gamma"}),
        ("packed.json.gz", gzip.compress(b'["alpha", "beta", "gamma"]'), {"alpha", "beta", "gamma"}),
        ("few.txt", b"alpha, beta", set()),
        ("parts.txt", b"alphabet betas gammas delta", set()),
        ("broken.gz", b"alpha beta gamma", set()),
    ):
        (tmp_path / name).write_bytes(data)
        assert golds_in(tmp_path / name, golds) == found


def places(*contexts, golds=NAMES) -> list[str]:
    tasks = [Task("?", context, gold, str(gold)) for context, gold in zip(contexts, golds, strict=True)]
    return [finding.where for finding in gold_places(tasks, {})]


def test_golds_in_fields_lists_lines_and_texts_that_are_json(tmp_path):
    assert places(*({"a": [{"x": gold}]} for gold in NAMES)) == ["context['a'][0]['x']"]
    assert places(["n", "first"], ["n", "n", "second"], ["third"]) == ["context[-1]"]
    assert places(*(f"some text\nmore text\nthat is {gold}." for gold in NAMES)) == ["the last line of context"]
    texts = ["one\n" + "more\n" * n + f"Answer: {gold}\nend" for n, gold in enumerate(NAMES)]
    assert places(*texts) == ["the line 'answer:' of context"]
    assert places(*(f'{{"k": "{gold}"}}' for gold in NAMES)) == ["context['k']"]
    many = [[{"label": "no"}] * n + [{"label": gold}, {"label": "no"}] for n, gold in enumerate(NAMES)]
    assert places(*many) == ["context[...]['label']"]
    for gold in NAMES:
        (tmp_path / gold).mkdir()
        (tmp_path / gold / "answer.txt").write_text(f"{gold}\n")
        (tmp_path / gold / "text.txt").write_text("nothing of it")
    assert places(*(tmp_path / gold for gold in NAMES)) == ["context['answer.txt']"]


def test_long_and_empty_lines_take_no_time():
    tasks = [Task("?", "-" * 200_000 + "\n" * 200_000 + "answer" + " " * 200_000 + name, name, name) for name in NAMES]
    begin = time.perf_counter()
    assert [finding.where for finding in gold_places(tasks, {})] == ["the last line of context"]
    assert time.perf_counter() - begin < 5


def test_golds_that_stand_in_the_context_by_the_tasks_nature_are_no_leak():
    assert places("a first b", "second of many", "in the third") == []
    assert places(["x", "first"], ["second", "y"], ["y", "third", "x"]) == []
    assert places("yes\nmore", "yes\nmore", "yes\nmore", golds=("yes", "yes", "yes")) == []


@pytest.mark.parametrize("golds", [(3, 14, 15), ([1, 2], [3], [4])])
def test_golds_that_are_no_text_are_found_too(golds):
    assert places(*({"n": gold} for gold in golds), golds=golds) == ["context['n']"]
