"""Recognizes servers whose defaults for sampling come from the model's own files instead of the API's documentation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def has_own_defaults(reply: Any) -> bool:
    """True for a reply of vLLM, SGLang, llama.cpp or Ollama. They sample a request without `temperature` as the model's
    generation config or modelfile says, so that it must be sent even where it is 1."""
    if not isinstance(reply, Mapping):
        return False
    if "prompt_logprobs" in reply or "kv_transfer_params" in reply:  # vLLM
        return True
    fingerprint = str(reply.get("system_fingerprint") or "")
    if "timings" in reply or re.match(r"fp_ollama|b\d+-", fingerprint):  # llama.cpp: the number of its build
        return True
    choices = reply.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    return isinstance(choice, Mapping) and "matched_stop" in choice  # SGLang
