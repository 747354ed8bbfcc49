"""Which further arguments a vLLM may be started with where its samples are trained (`engine.extra_args`).

The trainer computes the probability of what was sampled from the weights and the temperature alone. So only arguments
are allowed that are known to leave both as they are: parallelism, memory, scheduling, speed, loading, logging. vLLM has
several hundred; a new one is refused until it is added here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from rlm_env.llm.vllm.arguments import SET_BY_US, Argument, server_arguments
from rlm_env.spelling import near_matches

FLAG, WHOLE, SIZE, FRACTION, TEXT, TABLE = "flag", "a whole number", "a size", "a number", "a text", "a table"
"""What an argument takes. `SIZE`: a whole number, or one such as 8k or 40G. `TABLE`: JSON, or its keys one by one."""
ALLOWED: dict[str, str | tuple[str, ...]] = {
    # Parallelism on one machine.
    "--tensor-parallel-size": WHOLE,
    "--pipeline-parallel-size": WHOLE,
    "--decode-context-parallel-size": WHOLE,
    "--enable-expert-parallel": FLAG,
    "--all2all-backend": TEXT,
    "--disable-custom-all-reduce": FLAG,
    "--distributed-executor-backend": ("mp", "ray", "uni"),
    "--numa-bind": FLAG,
    # Memory.
    "--gpu-memory-utilization": FRACTION,
    "--kv-cache-memory-bytes": SIZE,
    "--num-gpu-blocks-override": WHOLE,
    "--block-size": WHOLE,
    "--cpu-offload-gb": FRACTION,
    "--enable-prefix-caching": FLAG,
    "--prefix-caching-hash-algo": ("sha256", "sha256_cbor", "xxhash", "xxhash_cbor"),
    "--language-model-only": FLAG,
    "--skip-mm-profiling": FLAG,
    # Which requests are computed together.
    "--max-num-batched-tokens": SIZE,
    "--max-num-scheduled-tokens": SIZE,
    "--max-num-seqs": WHOLE,
    "--long-prefill-token-threshold": WHOLE,
    "--enable-chunked-prefill": FLAG,
    "--async-scheduling": FLAG,
    "--stream-interval": WHOLE,
    "--watermark": FRACTION,
    # Kernels and compilation.
    "--attention-backend": TEXT,
    "--moe-backend": TEXT,
    "--gdn-prefill-backend": TEXT,
    "--disable-cascade-attn": FLAG,
    "--enable-flashinfer-autotune": FLAG,
    "--compilation-config": TABLE,
    "--optimization-level": ("0", "1", "2", "3"),
    "--performance-mode": ("balanced", "interactivity", "throughput"),
    "--cudagraph-capture-sizes": WHOLE,
    "--max-cudagraph-capture-size": WHOLE,
    # Loading.
    "--safetensors-load-strategy": ("eager", "lazy", "prefetch"),
    "--safetensors-prefetch-num-threads": WHOLE,
    "--max-parallel-loading-workers": WHOLE,
    "--use-tqdm-on-load": FLAG,
    # What is reported.
    "--max-logprobs": WHOLE,
    "--enable-log-requests": FLAG,
    "--max-log-len": WHOLE,
    "--log-error-stack": FLAG,
    "--uvicorn-log-level": ("critical", "debug", "error", "info", "trace", "warning"),
    "--kv-cache-metrics": FLAG,
    "--kv-cache-metrics-sample": FRACTION,
    "--cudagraph-metrics": FLAG,
    "--enable-mfu-metrics": FLAG,
    "--enable-logging-iteration-details": FLAG,
    "--enable-layerwise-nvtx-tracing": FLAG,
    "--otlp-traces-endpoint": TEXT,
    "--shutdown-timeout": WHOLE,
}
"""Arguments of vLLM that change neither the weights nor what is sampled from them, with what they take."""
SEVERAL = ("--cudagraph-capture-sizes",)
"""Those of them that take several values."""
_OTHER_MODEL = "the engine would run another model than is trained"
_OTHER_PROBABILITIES = "sampled tokens would not have the probabilities that the trainer computes"
_NO_EFFECT = "it has no effect, since the run exchanges token ids"
_OLD_CACHE = "keys and values of older weights would outlast an update"
REASONS = {
    "--logprobs-mode": "log-probabilities before temperature cannot be trained on",
    "--logits-processors": _OTHER_PROBABILITIES,
    "--generation-config": _OTHER_PROBABILITIES,
    "--override-generation-config": _OTHER_PROBABILITIES,
    "--speculative-config": _OTHER_PROBABILITIES,
    "--spec-method": _OTHER_PROBABILITIES,
    "--spec-model": _OTHER_PROBABILITIES,
    "--spec-tokens": _OTHER_PROBABILITIES,
    "--watermark-config": _OTHER_PROBABILITIES,
    "--quantization": _OTHER_PROBABILITIES,
    "--quantization-config": _OTHER_PROBABILITIES,
    "--kv-cache-dtype": _OTHER_PROBABILITIES,
    "--structured-outputs-config": _OTHER_PROBABILITIES,
    "--hf-overrides": _OTHER_MODEL,
    "--hf-config-path": _OTHER_MODEL,
    "--model-class-overrides": _OTHER_MODEL,
    "--model-impl": _OTHER_MODEL,
    "--trust-remote-code": _OTHER_MODEL,
    "--disable-sliding-window": _OTHER_MODEL,
    "--load-format": _OTHER_MODEL,
    "--revision": "set model to the folder of that revision",
    "--tokenizer": "set model to a folder with that tokenizer",
    "--chat-template": _NO_EFFECT,
    "--reasoning-parser": _NO_EFFECT,
    "--tool-call-parser": _NO_EFFECT,
    "--enable-auto-tool-choice": _NO_EFFECT,
    "--kv-transfer-config": _OLD_CACHE,
    "--kv-offloading-size": _OLD_CACHE,
    "--kv-offloading-backend": _OLD_CACHE,
    "--data-parallel-size": "give each copy its own entry of [[engines]], so that the weights of each are checked",
    "--disable-log-stats": "the run reports the engine's counters",
    "--enable-lora": 'set sync.method = "lora"',
    "--max-loras": 'set sync.method = "lora"',
    "--max-lora-rank": "set trainer.lora.rank",
    "--weight-transfer-config": "set sync.method",
}
"""Arguments that are refused for a reason of their own; any other has `UNKNOWN`."""
UNKNOWN = "it is not among the arguments that are known to leave what is sampled as it is"


def argument_problems(arguments: Sequence[str]) -> Iterator[str]:
    """What is wrong with `extra_args` of an engine whose samples are trained, one text per argument."""
    for argument in server_arguments(arguments):
        yield from _problem(argument)


def _problem(argument: Argument) -> Iterator[str]:
    if not argument.name:
        yield f"{' '.join(argument.values)!r} belongs to no argument"
    elif " " in argument.name:
        name, _, value = argument.name.partition(" ")
        yield f'"{argument.name}" is one word; write "{name}", "{value}"'
    elif reason := (SET_BY_US | REASONS).get(argument.positive):
        yield f"{argument.name} is not to be set: {reason}"
    elif argument.positive not in ALLOWED or (
        argument.name != argument.positive and ALLOWED[argument.positive] != FLAG
    ):
        yield f"{argument.name} is not to be set: {UNKNOWN}{near_matches(argument.name, ALLOWED, listing=False)}"
    elif problem := _value_problem(argument, ALLOWED[argument.positive]):
        yield f"{argument.name} {problem}"


def _value_problem(argument: Argument, kind: str | tuple[str, ...]) -> str:
    """What is wrong with the values of an allowed argument, in words; "" if nothing is."""
    values = argument.values
    if kind == FLAG:
        return f"takes no value, got {' '.join(values)!r}" if values else ""
    if argument.is_table and kind != TABLE:
        return "has no keys"
    if not values or (len(values) > 1 and argument.name not in SEVERAL):
        return f"takes one value, got {' '.join(values)!r}" if values else "lacks its value"
    return next((f"takes {_wanted(kind)}, got {value!r}" for value in values if not _fits(argument, value, kind)), "")


def _fits(argument: Argument, value: str, kind: str | tuple[str, ...]) -> bool:
    if isinstance(kind, tuple):
        return value in kind
    if kind == TABLE:
        return argument.is_table or _is_json_table(value)
    pattern = {WHOLE: r"\d+", SIZE: r"\d+|\d+(\.\d+)?[kKmMgGtT]", FRACTION: r"\d*\.?\d+"}.get(kind, ".+")
    return re.fullmatch(pattern, value) is not None


def _is_json_table(value: str) -> bool:
    try:
        return isinstance(json.loads(value), dict)
    except ValueError:
        return False


def _wanted(kind: str | tuple[str, ...]) -> str:
    return " or ".join(kind) if isinstance(kind, tuple) else kind
