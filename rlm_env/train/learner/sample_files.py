"""Samples on disk: one JSONL file per step, so that a training run can be repeated or debugged without an engine."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from rlm_env.runs.errors import ConfigError
from rlm_env.train.learner.samples import Sample, SampleKind


def write_samples(folder: Path, step: int, samples: Sequence[Sample]) -> Path:
    """Writes the samples of a step atomically; returns the file, `step-000001.jsonl` for the first step."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:06}.jsonl"
    temporary = path.with_suffix(".tmp")
    with open(temporary, "w", encoding="ascii") as out:
        out.writelines(json.dumps(asdict(sample), separators=(",", ":"), allow_nan=False) + "\n" for sample in samples)
    os.replace(temporary, path)
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
    """The samples of a file. Raises ConfigError with the line number if one is not as `write_samples` writes it."""
    known = {field.name for field in fields(Sample)}
    samples = []
    with open(path, encoding="ascii") as lines:
        for number, line in enumerate(lines, 1):
            try:
                values = json.loads(line)
                if values.keys() != known:
                    raise ValueError(f"fields {sorted(values.keys() ^ known)} are missing or unknown")
                sample = Sample(**{**values, "kind": SampleKind(values["kind"])})
                if not len(sample.token_ids) == len(sample.mask) == len(sample.behavior_logprobs):
                    raise ValueError("token_ids, mask and behavior_logprobs differ in length")
            except (ValueError, TypeError, AttributeError) as error:
                raise ConfigError(f"{path}, line {number}: not a sample: {error}") from error
            samples.append(sample)
    return samples
