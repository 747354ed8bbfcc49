"""`rlm-env check`: a sound environment passes, and every kind of mistake is found, with its remedy."""

import json
import sys

import pytest

from rlm_env.cli import main
from rlm_env.hub import guarded, reachable, sameness
from rlm_env.hub.check import RULES, CheckRequest, check_environment
from rlm_env.hub.findings import Finding, Findings
from rlm_env.hub.new import make_package
from rlm_env.hub.task_rules import unstorable_info
from rlm_env.hub.tools import ToolFailed, run_tool
from rlm_env.hub.validate import add_check_findings
from rlm_env.runs.errors import ConfigError
from rlm_env.task import Task


async def check(name: str, **request) -> Findings:
    return await check_environment(CheckRequest(name, request.pop("options", {}), tasks=6, **request))


@pytest.fixture
def no_processes(monkeypatch):
    """Leaves out the rules that start processes, which take most of the time."""

    async def nothing_is_readable(paths, modules):
        return set(), [], "guard"

    monkeypatch.setattr(sameness, "other_bytes", lambda *arguments: [])
    monkeypatch.setattr(reachable, "try_in_repl", nothing_is_readable)


@pytest.mark.usefixtures("no_processes")
async def test_prose_of_the_template_is_found_and_may_be_allowed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = make_package("left-over-rlm", tmp_path / "environments")
    assert (await check("left-over-rlm", options={"lines": 12})).found == []
    code = folder / "left_over_rlm" / "environment.py"
    code.write_text(code.read_text().replace("How many {item} reached {town} in all?", "{item}: how many in {town}?"))
    findings = await check("left-over-rlm", options={"lines": 12})
    assert {finding.rule for finding in findings.found} == {"template"}
    assert "README.md, lines 5, 10, 34" in {finding.where for finding in findings.found}
    with (folder / "pyproject.toml").open("a") as project:
        project.write('\n[tool.rlm-env.check.allow]\ntemplate = "as true of this question"\n')
    assert (await check("left-over-rlm", options={"lines": 12})).found == []


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


@pytest.mark.parametrize("length", ["4k", True, -1, [512]])
def test_a_length_that_is_no_number_of_tokens_is_found(length):
    sound, wrong = (Task("?", id=name, info={"length_tokens": value}) for name, value in (("a", 512), ("b", length)))
    (finding,) = unstorable_info([sound, wrong])
    assert (finding.rule, finding.where) == ("tasks", "b")
    assert f"length_tokens in its info is no number of tokens: {length!r}" in str(finding)


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
    monkeypatch.setattr(sameness, "OTHER_PROCESS_SECONDS", 0.01)
    findings = await check(planted())
    assert "another process cannot make the tasks: no end after 0.01 s" in str(findings.found[0])


async def test_what_depends_on_the_hash_seed_is_found(planted):
    await find(planted, "same-bytes")


@pytest.mark.slow
async def test_another_process_that_makes_fewer_tasks_is_found(planted):
    findings = await check(
        planted(
            "def tasks(self, split):\n    import os\n"
            f"    elsewhere = os.environ.get('PYTHONHASHSEED') == '{sameness.OTHER_HASH_SEED}'\n"
            "    for n in range(2 if elsewhere else 6):\n"
            "        yield self.made(split, n, [n, len(split)], str(n + len(split)))"
        )
    )
    assert [finding.rule for finding in findings.found] == ["same-bytes"] * 2


async def find(planted, rule):
    changes, said = MISTAKES[rule]
    findings = await check(planted(changes))
    lines = [str(finding) for finding in findings.found if finding.rule == rule]
    assert lines
    assert all("Remedy: " in line and "\n" not in line for line in lines)
    assert any(part in line for line in lines for part in said.split("|"))


LOOK = 'def look(page: int = 1) -> str:\n        "Looks.\\n\\nArgs:\\n    page: which"\n        return ""\n'
LESS_OBVIOUS = {
    "no baselines": ("def baselines(self):\n    return {}", "baselines  baselines(): there are none"),
    "baselines raise": ("def baselines(self):\n    1 / 0", "baselines  baselines(): raises ZeroDivisionError"),
    "baselines are a list": ("def baselines(self):\n    return ['a']", "returns a list, not a dict"),
    "a perfect answer that is no text": (
        "def perfect_answer(self, task):\n    return 5",
        "perfect-answer  train-0: raises TypeError: an answer is a str, not a int",
    ),
    "a score for blanks": (
        "def score(self, task, rollout):\n    said = rollout.answer\n"
        "    return float(said != '' and said.strip() in task.gold)",
        "empty-answer  train-0: an answer of blanks, ' \\n', scores 1, not 0",
    ),
    "a score that changes the task": (
        "def score(self, task, rollout):\n    task.info['seen'] = 1\n    return float(rollout.answer == task.gold)",
        "perfect-answer  train-0: raises ValueError: score() changes task.gold or task.info",
    ),
    "a score that ends the program": (
        "def score(self, task, rollout):\n    raise SystemExit(3)",
        "perfect-answer  train-0: raises SystemExit: 3 (__init__.py, line ",
    ),
    "an error of many lines": (
        "def score(self, task, rollout):\n    raise ValueError('a\\n    b')",
        "perfect-answer  train-0: raises ValueError: a b (__init__.py, line ",
    ),
    "a constructor that ends the program": ("def __init__(self):\n    exit('no')", "raises SystemExit: no"),
    "a file that is not there": (
        "def made(self, split, index, numbers, gold):\n    from pathlib import Path\n"
        "    return Task('?', Path('/no/such/file'), gold, f'{split}-{index}')",
        "tasks  train-0: its context cannot be read: raises FileNotFoundError",
    ),
    "an id that comes again late": (
        "def made(self, split, index, numbers, gold):\n"
        "    return Task('?', str(numbers), gold, f'{split}-{min(index, 28)}')",
        "ids  train-28: 2 tasks have this id",
    ),
    "state that outlives a call": (
        "def tasks(self, split):\n    self.draw = getattr(self, 'draw', random.Random(self.seed))\n"
        "    for index in range(30):\n        number = self.draw.randrange(10**6)\n"
        "        yield self.made(split, index, [number, 1], str(number + 1))",
        "same-bytes  split train: tasks() gives other tasks when it is called a second time",
    ),
    "another task by index": (
        "def task(self, split, index):\n    return self.made(split, index, [index], str(index))",
        "task-by-index  task('eval', 0): gives another task than tasks() at that place",
    ),
    "a task by index where there is none": (
        "def task(self, split, index):\n    return [*self.tasks(split)][index]",
        "task-by-index  task('train', -1): gives a task, though tasks() has none there",
    ),
    "two tools of one name": (
        f"def tools(self, task):\n    {LOOK}    return [look, look]",
        "tools  look: 2 tools have this name",
    ),
    "a tool that tells": (
        f"def tools(self, task):\n    {LOOK}    look.__doc__ += f'. Not {{task.gold}}.'\n    return [look]",
        "gold-in-prompt  tools(): describe the gold answer in each of 5 tasks",
    ),
    "tips that tell": (
        "def __init__(self, *, seed: int = 0, terms: int = 3):\n    self.seed, self.terms = seed, terms\n"
        "    type(self).tips = ', '.join(task.gold for split in ('train', 'eval') for task in self.tasks(split))",
        "gold-in-prompt  tips: hold 12 of 12 gold answers",
    ),
    "a question that tells": (
        "def made(self, split, index, numbers, gold):\n"
        "    return Task(f'What is it?\\nAnswer: {gold}', str(numbers), gold, f'{split}-{index}')",
        "gold-in-prompt  the line 'answer:' of the question",
    ),
    "a standard prompt that tells": (
        "def standard_prompt(self, task):\n    return f'{task.question}\\n{task.context}\\nsolution = {task.gold}\\n?'",
        "gold-in-prompt  the line 'solution:' of standard_prompt()",
    ),
}


@pytest.mark.parametrize("mistake", LESS_OBVIOUS)
@pytest.mark.usefixtures("no_processes")
async def test_a_less_obvious_mistake_is_found(planted, mistake):
    changes, said = LESS_OBVIOUS[mistake]
    lines = list(map(str, (await check(planted(changes))).found))
    assert any(said in line for line in lines), lines
    assert not [line for line in lines if "\n" in line]


@pytest.mark.parametrize("rule", ["tasks", "score"])
@pytest.mark.usefixtures("no_processes")
async def test_what_does_not_end_is_ended_and_found(planted, monkeypatch, rule):
    monkeypatch.setattr(guarded, "CALL_SECONDS", 0.2)
    findings = await check(planted(f"def {rule}(self, *arguments):\n    while True:\n        pass"))
    [finding] = findings.found
    assert (finding.rule, finding.message) == ("perfect-answer" if rule == "score" else rule, "no end after 0.2 s")
    assert findings.unchecked == {"the rules after it": f"{finding.rule} did not come to an end"}


@pytest.mark.usefixtures("no_processes")
def test_what_an_environment_prints_is_no_part_of_the_findings(planted, capsys):
    assert main(["check", planted("print('loading')"), "-n", "3", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["ok"]
    assert "loading" in err


def test_a_check_that_dies_is_told_in_its_words():
    with pytest.raises(ToolFailed, match="checking failed: no module named so"):
        run_tool("checking", [sys.executable, "-c", "raise SystemExit('no module named so')"], answers=True)


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
    found = [Finding("ids", str(index), "m", "r") for index in range(6)]
    lines = Findings("some", [*found, Finding("tools", "t", "m", "r")]).lines()
    assert lines[1:5] == [f"  FINDING      ids  {index}: m. Remedy: r" for index in range(4)]
    assert lines[5:] == [
        "  FINDING      tools  t: m. Remedy: r",
        "  FINDING      ids  2 more of the kind; --json lists all",
    ]


@pytest.mark.slow
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
        (["--set", "options.seed=2"], "--set options.seed: the seed is given by --seed"),
    ],
)
def test_mistakes_in_the_command_are_named(planted, capsys, arguments, said):
    assert main(["check", planted(), *arguments]) == 2
    assert said in capsys.readouterr().err
