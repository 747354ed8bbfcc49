"""Commands that read runs, on folders that are empty, going on, torn, damaged or hostile: they show what there is, or
say in a line what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rlm_env.cli import main
from rlm_env.messages import Usage
from rlm_env.rollout import Rollout, Score, SubCall, ToolResult, Turn

HOSTILE = "a\ud800\0</script><script>alert(1)</script>\x1b[2J\x1b]0;t\x07\u202e\r\x9b31m\u2028 {{7*7}} [red]x[/red] [/]"
CONFIG = """
model = "m"
base_url = "http://127.0.0.1:1/v1"
scaffolds = ["rlm"]
n = 2
out = "out"
environments = [{ name = "needle-rlm", label = "needle-rlm" }]
[record]
started = "2026-11-27T13:08:28+00:00"
environment = "needle-rlm"
tasks = 2
[record.scaffolds.rlm]
scaffold = "rlm"
config = { max_turns = 3 }
"""


def line(text: str = "fine", task: str = "eval-0") -> str:
    """A stored rollout with a text at every place."""
    one = Rollout(f"rlm/{task}/0", task, "needle-rlm", "rlm", text, {"k": [text]}, text, error=text, info={"x": text})
    one.messages = [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
    tool = ToolResult(text, text, text, text)
    one.turns = [Turn(text=text, reasoning=text, code=[text], observation=text, error=text, answer=text)]
    one.turns[0].tool_results = [tool]
    one.sub_calls = [
        SubCall(0, 0, 0, [{"role": "user", "content": text}], text=text, error=text, usage=Usage(1, 1, 0, 1))
    ]
    one.score = Score(0.5, {text: 1.0}, text)
    return one.to_json() + "\n"


def damaged() -> str:
    broken = ("garbage", '{"schema": 1}', "[]", "null", '{"schema": 2, "turns": 5}')
    return line() + "".join(f"{one}\n" for one in broken) + line(task="eval-1")


FOLDERS: dict[str, dict[str, str]] = {
    "empty": {},
    "without rollouts": {"config.toml": CONFIG},
    "just begun": {"config.toml": CONFIG, "rollouts.jsonl": ""},
    "torn": {"config.toml": CONFIG, "rollouts.jsonl": line() + line(task="eval-1")[:300]},
    "torn alone": {"rollouts.jsonl": line()[:300]},
    "damaged lines": {"config.toml": CONFIG, "rollouts.jsonl": damaged()},
    "damaged config": {"config.toml": "x = [", "rollouts.jsonl": line()},
    "damaged summary": {"config.toml": CONFIG, "rollouts.jsonl": line(), "summary.json": '{"status": "comp'},
    "summary of another kind": {"config.toml": CONFIG, "rollouts.jsonl": line(), "summary.json": "[]"},
    "hostile": {"config.toml": CONFIG, "rollouts.jsonl": line(HOSTILE, f"eval-{HOSTILE}")},
    "hostile alone": {"rollouts.jsonl": line(HOSTILE, f"eval-{HOSTILE}")},
    "endless": {"config.toml": CONFIG, "rollouts.jsonl": line(HOSTILE * 200)},
}
NO_ROLLOUT = {"just-begun", "torn-alone"}
NO_RUN = {"empty", "without-rollouts"}


@pytest.fixture(params=FOLDERS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    made = tmp_path / request.param.replace(" ", "-")
    made.mkdir()
    for name, text in FOLDERS[request.param].items():
        (made / name).write_text(text)
    return made


def run(capfd, *command: object) -> tuple[int, str, str]:
    code = main([str(part) for part in command])
    out, err = capfd.readouterr()
    steering = {"\x1b", "\x07", "\u202e", "\x9b", "\r"} & set(out + err)
    assert steering == set()
    return code, out, err


@pytest.mark.parametrize("flags", [(), ("--failed", "-n", "3"), ("--lines", "0")])
def test_show(folder, capfd, flags):
    code, out, err = run(capfd, "show", folder, *flags)
    assert code == (2 if folder.name in NO_RUN | NO_ROLLOUT else 0)
    assert (out if code == 0 else err).strip()
    if not flags:
        assert len(out) < 40_000


def test_view(folder, tmp_path, capfd):
    code, _, err = run(capfd, "view", folder, "--export", tmp_path / "page.html")
    assert code == (2 if folder.name in NO_RUN else 0), err
    if code == 0:
        assert "<script>alert" not in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("target", ["inspect", "parquet"])
def test_export(folder, tmp_path, capfd, target):
    pytest.importorskip({"inspect": "inspect_ai", "parquet": "pyarrow"}[target])
    code, out, err = run(capfd, "export", folder, "--to", target, "--out", tmp_path / "made")
    assert code in (0, 2)
    if code == 0:
        assert all(Path(path).stat().st_size for path in out.split())
    else:
        assert err.startswith("error: ")


def test_a_damaged_summary_is_told_beside_the_rollouts(tmp_path):
    from rlm_env.view.api import Api
    from rlm_env.view.workplace import Workplace

    for name, text in FOLDERS["damaged summary"].items():
        (tmp_path / name).write_text(text)
    api = Api(Workplace([tmp_path]))
    (run,) = api.runs()["runs"]
    assert "summary.json is damaged" in run["problem"]
    numbers = api.get(["runs", run["name"], "numbers"], {})
    assert [one["rollouts"] for one in numbers["summary"]["scaffolds"]] == [1]
    assert "summary.json is damaged" in numbers["warnings"][0]


def unwritable(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    return {"--export": tmp_path / "folder", "--out": tmp_path / "file"}


@pytest.mark.parametrize(
    "command",
    [("view", "--export"), *(("export", "--to", target, "--out") for target in ("inspect", "parquet", "hf"))],
)
def test_a_place_that_cannot_be_written(tmp_path, capfd, command):
    (tmp_path / "run").mkdir()
    for name, text in FOLDERS["just begun"].items():
        (tmp_path / "run" / name).write_text(text)
    code, _, err = run(capfd, command[0], tmp_path / "run", *command[1:], unwritable(tmp_path)[command[-1]])
    assert code != 0
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda folder: ("view", folder / "text.txt", "--export", folder / "page.html"), "no file of rollouts"),
        (lambda folder: ("show", folder / "text.txt"), "no file of rollouts"),
        (lambda folder: ("export", folder, "--to", "inspect"), "training run"),
    ],
)
def test_what_is_no_run(tmp_path, capfd, make: Callable[[Path], tuple[object, ...]], told):
    (tmp_path / "text.txt").write_text("text\n")
    (tmp_path / "config.toml").write_text('model = "m"\nsteps = 3\n')
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1}) + "\n")
    code, _, err = run(capfd, *make(tmp_path))
    assert code == 2
    assert told in err


@pytest.mark.parametrize("port", ["70000", "-1", "http"])
@pytest.mark.parametrize("command", ["view", "serve"])
def test_a_port_that_is_none(capfd, command, port):
    with pytest.raises(SystemExit) as stopped:
        main([command, *(["outputs"] if command == "view" else ["--model", "m"]), f"--port={port}"])
    assert stopped.value.code == 2
    assert "a port is a number from 0 to 65535" in capfd.readouterr().err
