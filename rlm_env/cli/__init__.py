"""The command `rlm-env`: one file per command."""

from rlm_env.cli.main import main

__all__ = ["main"]
