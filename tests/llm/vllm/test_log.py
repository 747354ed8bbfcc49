"""What an error message takes from vLLM's log."""

from __future__ import annotations

from pathlib import Path

from rlm_env.llm.vllm.log import describe_failure, startup_stage


def test_log_is_read_for_the_cause() -> None:
    log = (
        "(EngineCore pid=7) ERROR 11-22 [core.py:1366] ValueError: head_dim 7 is not supported\n"
        "(APIServer pid=5) RuntimeError: Engine core initialization failed. See root cause above.\n"
        "nanobind: leaked 2 types!\n - leaked type x\n"
    )
    told = describe_failure(log, Path("/x/vllm.log"))
    assert told.startswith(": ValueError: head_dim 7 is not supported\nits log ends with\n")
    assert told.endswith("See root cause above.\nwhole log: /x/vllm.log")
    assert startup_stage("") == "importing vLLM"
    assert startup_stage("Initializing a V1 LLM engine\nStarting to load model m") == "loading the weights"
