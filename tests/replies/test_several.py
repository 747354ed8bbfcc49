"""Several calls in one reply: each runs once, in order, whatever stands between them."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.replies.test_forms import cells


def _json(code: str, key: str = "arguments") -> str:
    return json.dumps({"name": "python_repl", key: {"code": code}})


def _arguments(code: str) -> str:
    return json.dumps({"code": code})


FAMILIES: dict[str, Callable[[str], str]] = {
    "hermes": lambda code: f"<tool_call>{_json(code)}</tool_call>",
    "hermes, own lines": lambda code: f"<tool_call>\n{_json(code)}\n</tool_call>",
    "hermes, a list": lambda code: f"<tool_call>\n[{_json(code)}]\n</tool_call>",
    "hermes, never closed": lambda code: f"<tool_call>\n{_json(code)}",
    "hermes, in a fence": lambda code: f"<tool_call>\n```json\n{_json(code)}\n```\n</tool_call>",
    "hermes, fenced": lambda code: f"\n```xml\n<tool_call>\n{_json(code)}\n</tool_call>\n```\n",
    "json on its own line": lambda code: f"\n{_json(code)}\n",
    "json list on its own line": lambda code: f"\n[{_json(code)}]\n",
    "json in a fence": lambda code: f"\n```json\n{_json(code)}\n```\n",
    "llama": lambda code: f"\n{_json(code, 'parameters')}\n",
    "llama, python tag": lambda code: f"<|python_tag|>{_json(code, 'parameters')}<|eom_id|>",
    "llama, function": lambda code: f"<function=python_repl>{_arguments(code)}</function>",
    "granite": lambda code: f"<|tool_call|>\n[{_json(code)}]",
    "phi": lambda code: f"<|tool_call|>\n{_json(code)}\n<|/tool_call|>",
    "tools": lambda code: f"<tools>\n{_json(code)}\n</tools>",
    "function_call": lambda code: f"<function_call>\n{_json(code)}\n</function_call>",
    "internlm": lambda code: f"<|action_start|><|plugin|>\n{_json(code)}<|action_end|>",
    "jamba": lambda code: f"<tool_calls>\n[{_json(code)}]\n</tool_calls>",
    "mistral": lambda code: f"[TOOL_CALLS][{_json(code)}]",
    "mistral v11": lambda code: f"[TOOL_CALLS]python_repl[ARGS]{_arguments(code)}",
    "lfm": lambda code: f"<|tool_call_start|>[python_repl(code={code!r})]<|tool_call_end|>",
    "olmo": lambda code: f"<function_calls>\npython_repl(code={code!r})\n</function_calls>",
    "olmo, a list": lambda code: f"<function_calls>[python_repl(code={code!r})]</function_calls>",
    "python's call on its own line": lambda code: f"\npython_repl(code={code!r})\n",
    "python's list on its own line": lambda code: f"\n[python_repl(code={code!r})]\n",
    "llama, python tag before a call": lambda code: f"<|python_tag|>python_repl.call(code={code!r})<|eom_id|>",
    "firefunction": lambda code: f"functools[{_json(code)}]",
    "functionary": lambda code: f"\n>>>python_repl\n{_arguments(code)}",
    "react": lambda code: f"\nAction: python_repl\nAction Input: {_arguments(code)}\nObservation: ",
    "function gemma": lambda code: (
        f"<start_function_call>call:python_repl{{code:<escape>{code}<escape>}}<end_function_call>"
    ),
    "hunyuan": lambda code: f"<tool_call>python_repl<tool_sep>```json\n{_arguments(code)}\n```</tool_call>",
    "harmony": lambda code: (
        f"<|channel|>commentary to=functions.python_repl <|constrain|>json<|message|>{_arguments(code)}<|call|>"
    ),
    "kimi": lambda code: (
        f"<|tool_call_begin|>functions.python_repl:0<|tool_call_argument_begin|>{_arguments(code)}<|tool_call_end|>"
    ),
    "deepseek": lambda code: f"<｜tool▁call▁begin｜>python_repl<｜tool▁sep｜>{_arguments(code)}<｜tool▁call▁end｜>",
    "qwen 2": lambda code: f"✿FUNCTION✿: python_repl\n✿ARGS✿: {_arguments(code)}\n✿RESULT✿",
    "qwen3-coder": lambda code: (
        f"<tool_call>\n<function=python_repl>\n<parameter=code>\n{code}\n</parameter>\n</function>\n</tool_call>"
    ),
    "qwen3-coder, one line": lambda code: f"<function=python_repl><parameter=code>{code}</parameter></function>",
    "glm": lambda code: f"<tool_call>python_repl\n<arg_key>code</arg_key>\n<arg_value>{code}</arg_value>\n</tool_call>",
    "anthropic": lambda code: f'<invoke name="python_repl">\n<parameter name="code">{code}</parameter>\n</invoke>',
}
SEPARATORS = {
    "nothing": "",
    "a line break": "\n",
    "an empty line": "\n\n",
    "words": " and then ",
    "a line of words": "\nThen I look at the next one.\n",
}


def reply(family: str, codes: list[str], between: str) -> str:
    return between.join(FAMILIES[family](code) for code in codes)


@pytest.mark.parametrize("between", SEPARATORS)
@pytest.mark.parametrize("family", FAMILIES)
def test_each_call_runs_once_in_order(family, between):
    for codes in (
        ["print(0)", "print(1)"],
        ["print(0)", "print(1)", "print(2)", "print(3)"],
        ["print(0)", "print(0)"],  # equal calls are two
        ["print(0)", "print(1)", "print(1)", "print(0)"],
    ):
        assert cells(reply(family, codes, SEPARATORS[between])) == codes
