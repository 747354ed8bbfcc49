"""Only arguments of vLLM that are known to change nothing of what is sampled are given to an engine that is trained."""

from __future__ import annotations

import pytest

from rlm_env.llm.vllm.arguments import SET_BY_US, SHORT, argument_names, parser_complaint, server_arguments
from rlm_env.train.rl.engine_arguments import ALLOWED, FLAG, REASONS, SEVERAL, argument_problems


@pytest.mark.parametrize(
    "words",
    [
        ["--tensor-parallel-size", "4", "--enable-expert-parallel"],
        ["--tensor_parallel_size=4"],
        ["-tp", "4", "-ep", "-O3"],
        ["-O", "3"],
        ["-O=3"],
        ["--no-enable-prefix-caching"],
        ["--compilation-config", '{"mode": 3}'],
        ["--compilation-config.mode", "3"],
        ["-cc.mode=3"],
        ["--max-num-batched-tokens", "8k", "--gpu-memory-utilization", ".5"],
        ["--cudagraph-capture-sizes", "1", "2", "4"],
    ],
)
def test_what_leaves_sampling_alone_is_allowed_in_every_spelling(words):
    assert list(argument_problems(words)) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--logits-processors", "mine:Processor"], "--logits-processors is not to be set: sampled tokens would not"),
        (["--generation-config=auto"], "--generation-config is not to be set: sampled tokens would not"),
        (["--override_generation_config", "{}"], "--override-generation-config is not to be set"),
        (["--override-generation-config.top_k", "5"], "--override-generation-config is not to be set"),
        (["-sc", "{}"], "--speculative-config is not to be set"),
        (["--speculative-config.method=ngram"], "--speculative-config is not to be set"),
        (["-q", "fp8"], "--quantization is not to be set"),
        (["--quantizat", "fp8"], "--quantizat is not to be set: it is not among the arguments"),
        (["--kv-cache-dtype=fp8"], "--kv-cache-dtype is not to be set"),
        (["--logprobs_mode", "raw_logits"], "--logprobs-mode is not to be set: log-probabilities before"),
        (["--max_model_len=8"], "--max-model-len is not to be set: set engine.max_model_len"),
        (["--host=0.0.0.0"], "--host is not to be set: the engine is local"),
        (["--config", "more.yaml"], "--config is not to be set: its arguments could not be checked"),
        (["--no-enforce-eager"], "--no-enforce-eager is not to be set: set engine.eager"),
        (["--something-new"], "--something-new is not to be set: it is not among the arguments"),
        (["--gpu-memory-utilisation", "0.3"], "did you mean '--gpu-memory-utilization'?"),
        (["--tensor-parallel-size 4"], 'is one word; write "--tensor-parallel-size", "4"'),
        (["--tensor-parallel-size", "two"], "--tensor-parallel-size takes a whole number, got 'two'"),
        (["--tensor-parallel-size"], "--tensor-parallel-size lacks its value"),
        (["--tensor-parallel-size", "2", "4"], "--tensor-parallel-size takes one value, got '2 4'"),
        (["--no-block-size", "16"], "did you mean '--block-size'?"),
        (["--block-size.x", "16"], "--block-size has no keys"),
        (["--enable-prefix-caching", "true"], "--enable-prefix-caching takes no value, got 'true'"),
        (["--performance-mode", "fast"], "takes balanced or interactivity or throughput, got 'fast'"),
        (["--compilation-config", "{mode: 3}"], "--compilation-config takes a table, got '{mode: 3}'"),
        (["4"], "'4' belongs to no argument"),
    ],
)
def test_everything_else_is_refused_with_the_reason(words, message):
    (problem,) = argument_problems(words)
    assert message in problem


def test_nothing_is_both_allowed_and_refused():
    assert not ALLOWED.keys() & (SET_BY_US.keys() | REASONS.keys())
    assert not SET_BY_US.keys() & REASONS.keys()
    assert set(SEVERAL) <= ALLOWED.keys()


def test_arguments_are_named_in_full():
    assert argument_names(["-tp", "2", "--no-async_scheduling", "-O3"]) == {
        "--tensor-parallel-size",
        "--async-scheduling",
        "--optimization-level",
    }
    assert [a.values for a in server_arguments(["--watermark", "-1", "--block-size=8"])] == [("-1",), ("8",)]


@pytest.mark.slow
def test_the_installed_vllm_takes_each_allowed_argument_as_it_is_listed(monkeypatch):
    """Names, flags, choices and short names are compared with its own parser. Importing it takes seconds, once for this
    test and tests/train/sync/test_transfer_contract.py."""
    pytest.importorskip("vllm")
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "ERROR")
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    actions = make_arg_parser(FlexibleArgumentParser())._actions
    known = {name: action for action in actions for name in action.option_strings}
    listed = ALLOWED.keys() | SET_BY_US.keys() | REASONS.keys()
    assert listed <= known.keys(), listed - known.keys()
    for short, name in SHORT.items():
        assert short == "-O" or name in known[short].option_strings
    for name, kind in ALLOWED.items():
        action = known[name]
        assert (action.nargs == 0) == (kind == FLAG), name
        assert kind != FLAG or f"--no-{name[2:]}" in action.option_strings, name
        assert (action.nargs == "+") == (name in SEVERAL), name
        assert not isinstance(kind, tuple) or not action.choices or {*kind} <= {*map(str, action.choices)}, name
    assert parser_complaint(["--block-size", "8"]) is None
    assert "--blok-size" in parser_complaint(["--blok-size", "8"])
    assert "--block-size" in parser_complaint(["--block-size", "x"])
    assert {*map(str, known["--dtype"].choices)} == {"auto", "bfloat16", "float16", "float32", "half", "float"}
