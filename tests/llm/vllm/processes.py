"""What tests of engine processes share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any


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


def wait_for(condition: Any, seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())
