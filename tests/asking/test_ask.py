"""`rlm_env.ask` and `rlm-env ask` on an endpoint in a thread: the answer, what is shown, how it ends."""

import json
import signal
import subprocess
import sys

import pytest
from aiohttp import web

import rlm_env
from rlm_env.cli import main
from rlm_env.events import AnswerChanged, RolloutEnded
from rlm_env.rollout import StopReason, read_rollouts
from rlm_env.runs.errors import ConfigError

pytestmark = pytest.mark.usefixtures("bare_repls")

SLOW_CODE = '```repl\nanswer["content"] = "half of it"\n```'


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("spam ham spam")
    return path


@pytest.fixture
def ask(endpoint, text, capfd, monkeypatch):
    """Runs `rlm-env ask` about a file; returns exit code, stdout, stderr."""
    monkeypatch.setattr("rlm_env.llm.http.LONGEST_WAIT", 0.05)

    def call(*arguments: str, question: str = "How often does spam occur?") -> tuple[int, str, str]:
        where = ["--model", "stub", "--base-url", endpoint.url]
        code = main(["ask", question, str(text), *where, *arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return call


async def test_a_question_about_a_text_by_the_name_of_a_model(endpoint):
    events = []
    rollout = await rlm_env.ask(
        "How often does spam occur?", "spam ham spam", model="stub", base_url=endpoint.url, on_event=events.append
    )
    assert (rollout.answer, rollout.stop_reason) == ("2", StopReason.READY)
    assert isinstance(events[-1], RolloutEnded)
    assert AnswerChanged in {type(event) for event in events}


async def test_the_form_without_await_works_beside_a_running_loop(endpoint, text):
    rollout = rlm_env.ask_sync("How often?", text, model="stub", base_url=endpoint.url)
    assert rollout.answer == "2"


@pytest.mark.parametrize("by", ["command", "python"])
def test_root_and_sub_llm_are_sampled_as_they_are_told(ask, endpoint, text, by):
    if by == "command":
        assert ask("--set", "rollout.root.temperature=0", "--set", "rollout.sub.max_tokens=9")[:2] == (0, "2\n")
    else:
        options = {"root": {"temperature": 0}, "sub": {"max_tokens": 9}}
        rlm_env.ask_sync("How often?", text, model="stub", base_url=endpoint.url, **options)
    root, sub = endpoint.requests[0], endpoint.requests[-1]
    assert (root["temperature"], sub.get("temperature")) == (0, None)
    assert 9 in sub.values()
    assert 9 not in root.values()


def test_of_a_long_traceback_the_error_is_shown(ask, endpoint):
    endpoint.answer = _replies("```repl\n" + "\n".join(f"def f{i}(): f{i + 1}()" for i in range(9)) + "\nf0()\n```")
    _, _, err = ask("--set", "rollout.max_turns=1")
    assert "more lines" in err
    assert "NameError: name 'f9' is not defined" in err


def test_a_question_that_breaks_off_leaves_no_folder_behind(ask, monkeypatch, tmp_path):
    def broken(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("rlm_env.solving.solve_as_configured", broken)
    with pytest.raises(ZeroDivisionError):
        ask()
    assert list(tmp_path.glob("rlm-env-ask-*")) == []


async def test_mistakes_are_found_before_anything_is_asked(endpoint):
    for wrong, message in (
        ({"model": None}, "which model"),
        ({"max_turn": 3}, "unknown key 'max_turn'"),
        ({"engine_keys": {"judge_model": "x"}}, "no judge"),
        ({"api_key_env": "NO_SUCH_VARIABLE"}, "NO_SUCH_VARIABLE is not set"),
    ):
        with pytest.raises(ConfigError, match=message):
            await rlm_env.ask("Q?", "text", **{"model": "stub", "base_url": endpoint.url, **wrong})
    assert endpoint.requests == []


def test_the_answer_alone_is_on_standard_output(ask):
    code, out, err = ask()
    assert (code, out) == (0, "2\n")
    for part in ("1 file, 13 characters", "turn 1", "llm_batch", "sub-calls  1 asked", "1 turn, 1 sub-call"):
        assert part in err


def test_quiet_shows_nothing_and_json_tells_all(ask, tmp_path):
    prices = tmp_path / "prices.toml"
    prices.write_text("[stub]\nprompt = 1.0\ncompletion = 2.0\n")
    code, out, err = ask("--quiet", "--json", "--prices", str(prices))
    result = json.loads(out)
    assert (code, err) == (0, "")
    assert (result["answer"], result["stop_reason"], result["turns"], result["sub_calls"]) == ("2", "ready", 1, 1)
    assert result["cost_usd"] > 0
    assert result["root_tokens"]["prompt"] > 0


def test_the_rollout_can_be_stored_and_an_old_file_is_not_replaced(ask, tmp_path):
    path = tmp_path / "one.jsonl"
    assert ask("--output", str(path))[0] == 0
    (rollout,) = read_rollouts(path)
    assert (rollout.question, rollout.answer) == ("How often does spam occur?", "2")
    code, _, err = ask("--output", str(path))
    assert code == 2
    assert "exists already" in err


def test_a_budget_that_ends_it_gives_the_answer_so_far(ask, endpoint):
    endpoint.answer = _replies(SLOW_CODE)
    code, out, err = ask("--set", "rollout.max_turns=2")
    assert (code, out) == (0, "half of it\n")
    assert "ended by max_turns: the answer so far" in err


def test_no_answer_is_told_and_is_no_success(ask, endpoint):
    endpoint.answer = _replies("```repl\npass\n```")
    code, out, err = ask("--set", "rollout.max_turns=1")
    assert (code, out) == (1, "")
    assert "there is no answer" in err


def test_an_endpoint_that_refuses_is_told_with_exit_code_3(ask, endpoint):
    endpoint.stop()
    code, out, err = ask()
    assert (code, out) == (3, "")
    assert "does not answer" in err


def test_a_refused_key_is_told_once_with_the_remedy(ask, endpoint):
    endpoint.answer = lambda body: web.json_response({"error": {"message": "Incorrect API key provided"}}, status=401)
    code, out, err = ask()
    assert (code, out) == (3, "")
    assert err.count("Incorrect API key provided") == 1
    assert "check the API key and the environment variable that holds it" in " ".join(err.split())
    assert "so far" not in err
    assert "there is no answer" not in err


def test_what_a_model_writes_does_not_steer_the_terminal(ask, endpoint):
    code = '```repl\nprint("\\x1b[31mred\\x1b]0;title\\x07")\nanswer["content"] = "x"\nanswer["ready"] = True\n```'
    endpoint.answer = _replies(code)
    _, _, err = ask()
    assert "\x1b" not in err
    assert "\x07" not in err


@pytest.mark.parametrize("terminal", [False, True])
def test_an_answer_is_printed_as_it_is_unless_it_would_steer_a_terminal(ask, endpoint, monkeypatch, terminal):
    """Lone surrogates can be printed nowhere."""
    steering = "\x1b[2J\x1b]0;title\x07 \x9b31m \u202e"
    endpoint.answer = _replies(f'```repl\nanswer["content"] = {steering!r} + chr(0xd800)\nanswer["ready"] = True\n```')
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda stream: terminal, raising=False)
    for flags in ((), ("--json",)):
        code, out, _ = ask("--quiet", *flags)
        text = json.loads(out)["answer"] if flags else out.removesuffix("\n")
        assert code == 0
        if terminal:
            assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(out)
            assert text.endswith("31m \ufffd\ufffd")
        else:
            assert text == steering + "\ufffd"
    endpoint.answer = lambda body: web.json_response({"error": {"message": f"no: {steering}"}}, status=401)
    _, out, err = ask()
    assert out == ""
    assert [part for part in ("\x1b[2J", "\x1b]0", "\x07", "\x9b", "\u202e") if part in err] == []


def test_a_mistake_has_no_traceback(ask):
    code, _, err = ask(question=" ")
    assert code == 2
    assert err.strip() == "error: the question is empty"


def test_ctrl_c_prints_the_answer_so_far(endpoint, text):
    replies = iter([SLOW_CODE])
    endpoint.answer = lambda body: _reply(next(replies, "```repl\nimport time\ntime.sleep(60)\n```"))
    command = [sys.executable, "-m", "rlm_env.cli", "ask", "Q?", str(text), "--model", "stub"]
    process = subprocess.Popen(
        [*command, "--base-url", endpoint.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    seen = ""
    while "answer so far" not in seen:
        line = process.stderr.readline()
        assert line, seen
        seen += line
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert out == "half of it\n"
    assert "Traceback" not in err


def _replies(text):
    """An endpoint that gives the same reply to everything."""
    return lambda body: _reply(text)


def _reply(text):
    from aiohttp import web

    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return web.json_response({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage})
