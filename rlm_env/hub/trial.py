"""Evaluates a few tasks of an installed environment, as a user does, with a model that knows the answers.

    python -m rlm_env.hub.trial needle-rlm 2

prints one line of JSON: what became of each rollout, and the hash of the package that was imported.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rlm_env.hub.perfect_endpoint import PerfectEndpoint
from rlm_env.origin import origin_of
from rlm_env.registry import load_environment
from rlm_env.runs.folder import RESULTS
from rlm_env.runs.jsonl import read_jsonl

SCAFFOLDS = ("standard", "rlm")


def try_eval(name: str, n: int) -> dict[str, Any]:
    """Runs `rlm-env eval` on `n` tasks. Raises RuntimeError with the end of what it said if it fails."""
    env = load_environment(name)
    answers = {task.question: env.perfect_answer(task) for task in env.tasks("eval").take(n)}
    with tempfile.TemporaryDirectory() as folder, PerfectEndpoint(answers) as endpoint:
        command = [sys.executable, "-m", "rlm_env.cli", "eval", name, "--model", "perfect"]
        command += ["--base-url", endpoint.base_url, "-n", str(n), "--scaffolds", ",".join(SCAFFOLDS), "--out", folder]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        results = Path(folder) / RESULTS
        if done.returncode or not results.is_file():
            raise RuntimeError(f"rlm-env eval ended with exit code {done.returncode}: {done.stderr.strip()[-2000:]}")
        rows = list(read_jsonl(results))
    return {
        "sha256": origin_of(name).sha256,
        "told_apart": len(answers) == n,
        "rows": [{key: row.get(key) for key in ("scaffold", "task_id", "reward", "outcome", "error")} for row in rows],
    }


def main() -> None:
    sys.stdout.write(json.dumps(try_eval(sys.argv[1], int(sys.argv[2]))) + "\n")


if __name__ == "__main__":
    main()
