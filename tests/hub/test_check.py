"""`rlm-env check`: a sound environment passes, and every kind of mistake is found, with its remedy."""

import json

import pytest

from rlm_env.cli import main
from rlm_env.hub import reachable, task_rules
from rlm_env.hub.check import RULES, CheckRequest, check_environment
from rlm_env.hub.findings import Finding, Findings
from rlm_env.hub.validate import add_check_findings
from rlm_env.runs.errors import ConfigError


async def check(name: str, **request) -> Findings:
    return await check_environment(CheckRequest(name, request.pop("options", {}), tasks=6, **request))


@pytest.fixture
def no_processes(monkeypatch):
    """Leaves out the rules that start processes, which take most of the time."""

    async def nothing_is_readable(paths, modules):
        return set(), [], "guard"

    monkeypatch.setattr(task_rules, "other_bytes", lambda *arguments: [])
    monkeypatch.setattr(reachable, "try_in_repl", nothing_is_readable)


async def test_a_sound_environment_passes_every_rule(planted):
    findings = await check(planted())
    assert findings.lines()[1:] == [line for line in findings.lines()[1:] if line.startswith("  ok ")]
    assert set(findings.passed) | {"judge"} == set(RULES)


@pytest.mark.usefixtures("no_processes")
async def test_options_are_those_that_are_given(planted):
    name = planted()
    assert (await check(name, options={"terms": 1})).passed["loads"] == "by name"
    findings = await check(name, options={"trems": 1})
    assert [(finding.rule, "trems" in finding.message) for finding in findings.found] == [("loads", True)]
    with pytest.raises(ConfigError, match="no environment 'no-such-env'"):
        await check("no-such-env")


MISTAKES = {
    "options": ("def __init__(self, terms):\n    self.seed, self.terms = 0, 2", "terms: it has no default"),
    "perfect-answer": ("def perfect_answer(self, task):\n    return task.gold + '!'", "scores 0, not 1"),
    "empty-answer": (
        "def score(self, task, rollout):\n    return float(task.gold.startswith(rollout.answer))",
        "scores 1",
    ),
    "other-answer": (
        "def score(self, task, rollout):\n    return float(rollout.answer.isdigit())",
        "scores 1 here too",
    ),
    "score": (
        "calls = 0\ndef score(self, task, rollout):\n    Sums.calls += 1\n"
        "    return Score(float(rollout.answer == task.gold), {'calls': Sums.calls})",
        "other metrics",
    ),
    "tools": (
        "def tools(self, task):\n    def look(page: int) -> str:\n        '''Looks.'''\n    return [look]",
        "'page'",
    ),
    "baselines": ("def baselines(self):\n    return {'cheat': lambda task: task.gold}", "not a str|gold is hidden"),
    "ids": (
        "def made(self, split, index, numbers, gold):\n    return Task('?', str(numbers), gold, str(index))",
        "2 tasks",
    ),
    "splits": (
        "def tasks(self, split):\n    for n in range(9):\n        yield Task(f'{n}?', 'c', str(n), f'{split}-{n}')",
        "asks the same",
    ),
    "same-bytes": (
        "def made(self, split, index, numbers, gold):\n"
        "    names = ', '.join({'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'})\n"
        "    return Task(f'Which of {names}?', str(numbers), gold, f'{split}-{index}')",
        "another process makes another task",
    ),
    "context-type": (
        "def made(self, split, index, numbers, gold):\n"
        "    class Text(str):\n        pass\n"
        "    text = Text(numbers)\n    text.gold = gold\n"
        "    return Task('What is the sum?', text, gold, f'{split}-{index}')",
        "context is a Text, a class of its own (attributes: gold)",
    ),
    "gold-in-context": (
        "def made(self, split, index, numbers, gold):\n"
        "    return Task('?', {'numbers': numbers, 'meta': {'answer': gold}}, gold, f'{split}-{index}')",
        "context['meta']['answer']: holds the gold answer in each of 12 tasks",
    ),
    "info-in-context": (
        "def made(self, split, index, numbers, gold):\n"
        "    info = {'numbers': numbers, 'sum': gold}\n"
        "    return Task('?', json.dumps({'text': 'some', 'about': info}), gold, f'{split}-{index}', info)",
        "holds Task.info",
    ),
    "tasks": (
        "def tasks(self, split):\n    yield from super().tasks(split) if split == 'train' else ()",
        "split eval: it has no tasks",
    ),
}


@pytest.mark.parametrize("rule", [rule for rule in MISTAKES if rule != "same-bytes"])
@pytest.mark.usefixtures("no_processes")
async def test_a_mistake_is_found(planted, rule):
    await find(planted, rule)


UNUSUAL = """
def made(self, split, index, numbers, gold):
    return Task(f"{split} {index}", {"numbers": [[0, 1, 2]]}, {gold, "a", "b", "c"}, info={"n": [1]})
def score(self, task, rollout):
    return float(rollout.answer == ",".join(sorted(task.gold)))
def perfect_answer(self, task):
    return ",".join(sorted(task.gold))
def tasks(self, split):
    return [self.made(split, n, [], str(n)) for n in range(4)] if split == "eval" else []
"""


async def test_unusual_golds_and_a_missing_split_disturb_no_rule(planted):
    """A set has another order in another process and is still the same; a split without tasks ends nothing."""
    findings = await check(planted(UNUSUAL))
    assert [finding.rule for finding in findings.found] == ["tasks", "baselines"]
    assert "same-bytes" in findings.passed


async def test_another_process_that_does_not_end_is_a_finding(planted, monkeypatch):
    monkeypatch.setattr(task_rules, "OTHER_PROCESS_SECONDS", 0.01)
    findings = await check(planted())
    assert "another process cannot make the tasks: no end after 0.01 s" in str(findings.found[0])


async def test_what_depends_on_the_hash_seed_is_found(planted):
    await find(planted, "same-bytes")


async def find(planted, rule):
    changes, said = MISTAKES[rule]
    findings = await check(planted(changes))
    lines = [str(finding) for finding in findings.found if finding.rule == rule]
    assert lines
    assert all("Remedy: " in line and "\n" not in line for line in lines)
    assert any(part in line for line in lines for part in said.split("|"))


@pytest.mark.usefixtures("no_processes")
async def test_an_environment_without_baselines_is_found(planted):
    findings = await check(planted("def baselines(self):\n    return {}"))
    assert [finding.rule for finding in findings.found] == ["baselines"]


ASKED = """
asked = []
async def judge(self, task, rollout):
    Sums.asked.append(rollout.answer)
    rollout.info["verdict"] = rollout.answer == task.gold
def score(self, task, rollout):
    return float(rollout.info.get("verdict", rollout.answer == task.gold))
"""


@pytest.mark.usefixtures("no_processes")
async def test_a_judge_is_asked_only_where_wanted_and_named_where_it_was_not(planted):
    name = planted(ASKED)
    findings = await check(name)
    assert findings.ok
    assert "--judge asks it" in findings.unchecked["judge"]
    findings = await check(name, judge=True)
    assert findings.ok
    assert findings.passed["judge"].startswith("asked about 3 tasks")


@pytest.mark.usefixtures("no_processes")
async def test_a_judge_that_accepts_everything_is_found(planted):
    findings = await check(planted(ASKED.replace("rollout.answer == task.gold\ndef", "True\ndef")), judge=True)
    assert {finding.rule for finding in findings.found} == {"judge"}
    assert any("with its judge, the empty answer scores 1" in str(finding) for finding in findings.found)


@pytest.mark.usefixtures("no_processes")
async def test_a_rule_can_be_allowed_with_a_reason(planted):
    allow = '[tool.rlm-env.check.allow]\nbaselines = "nothing is easier than a sum"\n'
    findings = await check(planted("def baselines(self):\n    return {}", project=allow))
    assert findings.ok
    assert "  allowed      baselines: nothing is easier than a sum" in findings.lines()
    with pytest.raises(ConfigError, match="no rule 'baseline'; did you mean 'baselines'"):
        await check(planted(project='[tool.rlm-env.check.allow]\nbaseline = "why"\n'))
    with pytest.raises(ConfigError, match="give the reason for 'ids' as text"):
        await check(planted(project='[tool.rlm-env.check.allow]\nids = ""\n'))


def test_what_a_project_allows_is_allowed_of_its_installation_too():
    checked = Findings("installed", [Finding("ids", "a", "m", "r"), Finding("tools", "b", "m", "r")], {"loads": "ok"})
    findings = Findings("project")
    add_check_findings(findings, "sums-rlm", checked, {"ids": "why not"})
    assert [finding.rule for finding in findings.found] == ["tools"]
    assert findings.allowed == {"ids of sums-rlm": "why not"}


def test_findings_of_one_kind_are_not_all_printed():
    found = [Finding("ids", str(index), "m", "r") for index in range(5)]
    lines = Findings("some", [*found, Finding("tools", "t", "m", "r")]).lines()
    assert lines[1:4] == [f"  FINDING      ids  {index}: m. Remedy: r" for index in range(3)]
    assert lines[4:] == [
        "  FINDING      tools  t: m. Remedy: r",
        "  FINDING      ids  2 more of the kind; --json lists all",
    ]


def test_the_command_prints_lines_or_json_and_its_exit_code_tells(planted, capsys):
    assert main(["check", planted(), "-n", "3"]) == 0
    assert "  ok           perfect-answer: scores 1 in 6 tasks" in capsys.readouterr().out
    wrong = planted(MISTAKES["empty-answer"][0])
    assert main(["check", wrong, "-n", "3", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert {finding["rule"] for finding in told["found"]} == {"empty-answer"}
    assert str(Findings.from_dict(told).found[0]).startswith("empty-answer  train-0: the empty answer scores 1")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-n", "1"], "--tasks must be at least 2"),
        (["--set", "terms=2"], "--set terms: only options.KEY can be set here"),
    ],
)
def test_mistakes_in_the_command_are_named(planted, capsys, arguments, said):
    assert main(["check", planted(), *arguments]) == 2
    assert said in capsys.readouterr().err
