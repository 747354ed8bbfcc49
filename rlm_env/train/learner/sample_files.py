"""Samples on disk: one JSONL file per step, so that a training run can be repeated or debugged without an engine."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from rlm_env.lines import parse_record
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.files import disk_errors
from rlm_env.runs.jsonl import read_jsonl
from rlm_env.train.learner.samples import Sample, SampleKind

_OPTIONAL = {"label", "stands_for", "counted_tokens", "teacher_logprobs", "teacher_weight"}


def write_samples(folder: Path, step: int, samples: Sequence[Sample]) -> Path:
    """Writes the samples of a step atomically; returns the file, `step-000001.jsonl` for the first step. Raises
    RunStopped where the disk refuses."""
    path = folder / f"step-{step:06}.jsonl"
    lines = (json.dumps(asdict(sample), separators=(",", ":"), allow_nan=False) + "\n" for sample in samples)
    with disk_errors(path, "writing samples"):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        try:
            with open(temporary, "w", encoding="ascii") as out:
                out.writelines(lines)
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    return path


def sample_files(folder: Path) -> list[Path]:
    """The files of a folder by step. Raises ConfigError if there are none or one is missing."""
    files = sorted(folder.glob("step-*.jsonl"))
    if not files:
        raise ConfigError(
            f"--from-samples: there is no step-000001.jsonl in {folder}; make such files with --dump-samples"
        )
    for step, path in enumerate(files, 1):
        if path.stem != f"step-{step:06}":
            raise ConfigError(f"--from-samples: {folder} has {path.name} where step-{step:06}.jsonl was expected")
    return files


def read_samples(path: Path) -> list[Sample]:
    """The samples of a file. Raises ConfigError with the line number if one cannot be trained, or is cut off."""
    return list(read_jsonl(path, _read_sample, torn=False))


def _read_sample(line: str) -> Sample:
    values = parse_record(line)
    known = {field.name for field in fields(Sample)}
    if wrong := (values.keys() - known) | (known - _OPTIONAL - values.keys()):
        raise ValueError(f"not a sample: fields {sorted(wrong)} are missing or unknown")
    try:
        sample = Sample(**{**values, "kind": SampleKind(values["kind"])})
        sample.check()
    except ValueError as error:
        raise ValueError(f"not a sample: {error}") from error
    return sample
