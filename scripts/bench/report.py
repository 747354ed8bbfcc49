"""What `rlm-env report` takes: time and memory over several runs with many rollouts, beside merely reading their JSON.

python scripts/bench/report.py            # ten runs of 10,000 rollouts, 1.1 GB of them
python scripts/bench/report.py --quick    # two runs of 500

Prints one JSON object per line: seconds, seconds of processor time and the largest memory of a process that makes the
report, and of one that reads every line as JSON and keeps nothing (`floor`); `ratio` is of their processor times. The
rollouts are copies of an eval of oolong-rlm with a scripted model, with other scores; two files of them stand for all
runs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from view_material import OOLONG, ScriptedModel, make_eval, multiply

FLOOR = """
import json, sys
for path in sys.argv[1:]:
    with open(path + "/rollouts.jsonl", "rb") as lines:
        for line in lines:
            json.loads(line)
"""
REPORT = """
import sys
from rlm_env.cli import main
assert main(["report", *sys.argv[1:]]) == 0
"""
PEAK = """
for line in open("/proc/self/status"):
    if line.startswith("VmHWM"):
        print(line.split()[1])
"""
"""Tells the largest memory of the process, in KiB; what `wait4` tells includes its parent's."""


def make_runs(folder: Path, runs: int, rollouts: int) -> list[Path]:
    """Folders of evals on the same tasks, with two sets of scores between them."""
    with ScriptedModel().serving() as model:
        source = make_eval(folder / "source", model, n=24, **OOLONG)
    files = []
    for seed in range(2):
        draw = random.Random(seed)

        def change(record: dict[str, Any], index: int, draw: random.Random = draw) -> None:
            if record["score"] is not None:
                record["score"] = {**record["score"], "value": draw.choice([0.0, 0.25, 0.75, 1.0])}

        files.append(multiply(source, folder / f"rollouts-{seed}", rollouts, change))
    made = []
    for number in range(runs):
        path = folder / f"run-{number}"
        path.mkdir()
        os.link(files[number % 2] / "rollouts.jsonl", path / "rollouts.jsonl")
        (path / "config.toml").write_text((source / "config.toml").read_text())
        made.append(path)
    return made


def measure(code: str, arguments: list[str]) -> dict[str, float]:
    """Seconds, processor seconds and the largest memory of a Python process."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code + PEAK, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    peak = int(process.stdout.read())
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"it failed with status {status}")
    seconds = time.perf_counter() - begun
    cpu = usage.ru_utime + usage.ru_stime
    return {"seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1), "peak_mb": round(peak / 1024)}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    runs, rollouts = (2, 500) if quick else (10, 10_000)
    with tempfile.TemporaryDirectory() as name:
        folders = [str(path) for path in make_runs(Path(name), runs, rollouts)]
        size = sum(Path(folder, "rollouts.jsonl").stat().st_size for folder in folders)
        facts = {"runs": runs, "rollouts": rollouts, "mb": round(size / 1e6)}
        floor = measure(FLOOR, folders)
        print(json.dumps({"bench": "report", "form": "floor", **facts, **floor}), flush=True)
        found = measure(REPORT, [*folders, "--html", "--out", f"{name}/report.html"])
        ratio = round(found["cpu_seconds"] / max(floor["cpu_seconds"], 0.1), 1)
        written = round(Path(name, "report.html").stat().st_size / 1e3)
        print(json.dumps({"bench": "report", "form": "html", **facts, **found, "ratio": ratio, "kb": written}))


if __name__ == "__main__":
    main()
