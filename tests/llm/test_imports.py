"""What importing the room needs."""

from __future__ import annotations

import subprocess
import sys


def test_core_imports_need_no_engine() -> None:
    """`import rlm_env.llm` and the OpenAI client work with the core dependencies alone."""
    program = (
        "import sys, rlm_env.llm; from rlm_env.llm import OpenAIChat; "
        "print([m for m in ('torch', 'transformers', 'renderers', 'vllm', 'tokenizers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
