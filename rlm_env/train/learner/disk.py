"""Errors of the disk while weights and checkpoints are written, however torch and safetensors word them.

torch wraps them in a `CheckpointException`, which no `except Exception` catches, or raises a bare RuntimeError;
safetensors has a class of its own.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from torch.distributed.checkpoint.api import CheckpointException

from rlm_env.runs.files import disk_errors
from rlm_env.train.learner.checkpoint import atomic_folder

_TORCH_FILES = re.compile("PytorchStream|inline_container")
"""In the messages of torch's reader and writer of files."""
_NUMBER = re.compile(r"\(os error (\d+)\)")
"""In those of safetensors."""


@contextmanager
def torch_disk_errors() -> Iterator[None]:
    """Raises OSError where torch or safetensors could not write or read a file. Other errors pass."""
    try:
        yield
    except (CheckpointException, SafetensorError, RuntimeError) as error:
        if (found := _os_error(error)) is None:
            raise
        raise found from error


@contextmanager
def weights_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder to write weights into, which appears as `path` at the end and replaces what was there.
    Raises RunStopped where the disk refuses; `path` is then unchanged."""
    with disk_errors(path, "writing weights"), torch_disk_errors(), atomic_folder(path, durable=False) as unfinished:
        yield unfinished


def _os_error(error: BaseException | None) -> OSError | None:
    """The disk error behind another one; None where it is none."""
    text = str(error)
    if isinstance(error, OSError):
        return OSError(error.errno, error.strerror or text)
    if isinstance(error, CheckpointException):
        wrapped = (_os_error(one) for one, _ in error.failures.values())
        return next((found for found in wrapped if found is not None), None)
    if isinstance(error, SafetensorError) and (number := _NUMBER.search(text)):
        return OSError(int(number[1]), os.strerror(int(number[1])))
    if isinstance(error, RuntimeError) and _TORCH_FILES.search(text):
        return _os_error(error.__context__) or OSError(errno.EIO, text.splitlines()[0])
    return None
