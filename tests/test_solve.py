"""`solve` and `solve_sync`: a question without an environment."""

import asyncio
import subprocess
import sys
import textwrap

import pytest

import rlm_env
from rlm_env.blocking import run_blocking
from rlm_env.llm import Sampling
from tests.stubs import StubLLM, fenced, script

pytestmark = pytest.mark.usefixtures("bare_repls")

DONE = fenced('answer["content"] = str(len(context)); answer["ready"] = True')
NAMES = fenced('answer["content"] = " ".join(sorted(context)); answer["ready"] = True')


class Recording(StubLLM):
    """Keeps the sampling of every request."""

    def __init__(self, reply) -> None:
        super().__init__(reply)
        self.sampled = []

    async def complete(self, messages, tools=None, sampling=None):
        self.sampled.append(sampling)
        return await super().complete(messages, tools, sampling)


@pytest.mark.parametrize("of_subs", [None, Sampling(temperature=0.5)])
async def test_sampling_of_root_and_sub_llms(of_subs):
    code = fenced('answer["content"] = llm_batch(["Q"])[0]; answer["ready"] = True')
    root, sub = Recording(lambda messages: code), Recording(lambda messages: "A")
    sampling = Sampling(temperature=0, max_tokens=50, extra={"reasoning_effort": "low"})
    rollout = await rlm_env.solve("Q?", "", root, sub, sampling=sampling, sub_sampling=of_subs, max_turns=2)
    assert rollout.answer == "A"
    assert root.sampled == [sampling]
    assert sub.sampled == [of_subs or sampling]


async def test_a_folder_without_what_is_not_meant_for_a_model(tmp_path):
    for name, data in {"a.py": b"x", ".env": b"API=1", ".git/config": b"x", "logo.png": b"\0\xff"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    rollout = await rlm_env.solve("Which?", tmp_path, script(NAMES))
    assert rollout.answer == "a.py"
    assert rollout.info["folder"].startswith("1 files; left out: ")
    assert "1 files" in rollout.messages[1]["content"]
    rollout = await rlm_env.solve("Which?", tmp_path, script(NAMES), include=["*.py", ".env"])
    assert rollout.answer == ".env a.py"


async def test_mistakes_are_told_before_anything_is_asked(tmp_path):
    root = script(DONE)
    with pytest.raises(FileNotFoundError, match=r"context: there is no file or folder .*nowhere"):
        await rlm_env.solve("Q?", tmp_path / "nowhere", root)
    with pytest.raises(ValueError, match="include and exclude choose files of a folder"):
        await rlm_env.solve("Q?", "text", root, exclude=["*.py"])
    with pytest.raises(TypeError, match="unknown option 'max_turn' of the rollout; did you mean 'max_turns'"):
        await rlm_env.solve("Q?", "text", root, max_turn=3)
    with pytest.raises(TypeError, match=r"root is the str 'gpt-5'.*OpenAIChat"):
        await rlm_env.solve("Q?", "text", "gpt-5")
    with pytest.raises(TypeError, match=r"sub is the str 'gpt-5'.*OpenAIChat"):
        await rlm_env.solve("Q?", "text", root, "gpt-5")
    assert root.seen == []


def test_without_an_event_loop():
    assert rlm_env.solve_sync("How long?", "abc", script(DONE), max_turns=2).answer == "3"


async def test_while_an_event_loop_is_running():
    """As in a notebook: `asyncio.run` refuses there."""
    assert rlm_env.solve_sync("How long?", "abc", script(DONE)).answer == "3"


async def test_an_exception_comes_out_of_the_thread():
    async def fail():
        raise KeyError("x")

    with pytest.raises(KeyError):
        run_blocking(fail())


def test_an_interrupt_cancels_the_work_in_the_thread(tmp_path):
    program = """
        import asyncio, os, pathlib, signal, sys, threading
        from rlm_env.blocking import run_blocking

        async def work():
            try:
                threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
                await asyncio.sleep(60)
            finally:
                pathlib.Path(sys.argv[1]).write_text("cancelled")

        async def cell():
            run_blocking(work())

        signal.signal(signal.SIGINT, signal.default_int_handler)
        asyncio.new_event_loop().run_until_complete(cell())
    """
    told = tmp_path / "told"
    command = [sys.executable, "-c", textwrap.dedent(program), told]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=50)
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
    assert told.read_text() == "cancelled"


@pytest.mark.slow
def test_a_client_that_nobody_closes_closes_itself(endpoint):
    program = """
        import asyncio, sys
        import rlm_env
        from rlm_env.llm import OpenAIChat

        root = OpenAIChat("m", sys.argv[1])
        print(asyncio.run(rlm_env.solve("How often does spam occur?", "spam ham", root)).answer)
        print(rlm_env.solve_sync("How often does spam occur?", "spam ham", root).answer)

        async def drop():
            await OpenAIChat("m", sys.argv[1]).complete([{"role": "user", "content": "spam"}])

        asyncio.run(drop())
    """
    command = [sys.executable, "-X", "dev", "-c", textwrap.dedent(program), endpoint.url]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    assert done.stdout == "1\n1\n"
    assert "Unclosed" not in done.stderr, done.stderr


def test_a_cell_of_a_notebook(endpoint):
    """What a notebook's kernel does with a cell: it runs it while its event loop is running."""
    cell = f'rlm_env.solve_sync("How often?", "spam", OpenAIChat("m", {endpoint.url!r})).answer'

    async def kernel():
        return eval(cell, {"rlm_env": rlm_env, "OpenAIChat": rlm_env.llm.OpenAIChat})

    assert asyncio.run(kernel()) == "1"
    assert "How often?" in endpoint.requests[0]["messages"][1]["content"]
