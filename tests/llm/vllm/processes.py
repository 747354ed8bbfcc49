"""What tests of engine processes share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rlm_env.llm import VLLMServer


def make_folder(path: Path) -> Path:
    path.mkdir()
    (path / "config.json").write_text('{"max_position_embeddings": 64, "dtype": "float32"}')
    (path / "model.safetensors").write_bytes(b"12345678")
    (path / "tokenizer.json").write_text("{}")
    return path


def exists(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def group_of(server: VLLMServer) -> list[int]:
    """Pids of the engine's process tree, without the supervisor."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    queue = [server._supervisor.pid]
    while queue:
        found += (new := children.get(queue.pop(), []))
        queue += new
    return found


def wait_for(condition: Any, seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())
