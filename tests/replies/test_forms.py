"""Code in every form in which models write it: a line for each form."""

from __future__ import annotations

import json

import pytest

from rlm_env.messages import Completion
from rlm_env.protocol import Cell, Problem, extract_cells

ONE = "print(1)"
JSON = json.dumps({"name": "python_repl", "arguments": {"code": ONE}})
TWO = json.dumps({"name": "python_repl", "arguments": {"code": "print(2)"}})
ARGUMENTS = json.dumps({"code": ONE})
MULTI = 'for x in ["a", "b"]:\n    print(f"{x}", {"k": 1})\n'


def cells(text: str, finish: str = "stop", **options) -> list[str]:
    return [item.code.strip() for item in items(text, finish, **options) if isinstance(item, Cell)]


def items(text: str, finish: str = "stop", **options) -> list[Cell | Problem]:
    return extract_cells(Completion(text, finish_reason=finish), **options)


FORMS = {
    # calls in JSON
    "hermes": f"<tool_call>\n{JSON}\n</tool_call>",
    "hermes, with words": f"I look first.\n<tool_call>\n{JSON}\n</tool_call>\nThen I go on.",
    "hermes, never closed": f"<tool_call>\n{JSON}",
    "hermes, on one line": f"<tool_call>{JSON}</tool_call>",
    "hermes, arguments encoded twice": "<tool_call>"
    + json.dumps({"name": "python_repl", "arguments": ARGUMENTS})
    + "</tool_call>",
    "hermes, raw line breaks in the string": '<tool_call>{"name": "python_repl", "arguments": {"code": "\nprint(1)\n"}}'
    "</tool_call>",
    "hermes, python's notation": "<tool_call>{'name': 'python_repl', 'arguments': {'code': 'print(1)'}}</tool_call>",
    "hermes, in a fence": f"<tool_call>\n```json\n{JSON}\n```\n</tool_call>",
    "hermes, fenced as a whole": f"```xml\n<tool_call>\n{JSON}\n</tool_call>\n```",
    "hermes, a fence in the code": "<tool_call>"
    + json.dumps({"name": "python_repl", "arguments": {"code": "```python\nprint(1)\n```"}})
    + "</tool_call>",
    "hermes, key python": '<tool_call>{"name": "python_repl", "arguments": {"python": "print(1)"}}</tool_call>',
    "hermes, key source": '<tool_call>{"name": "python_repl", "arguments": {"source": "print(1)"}}</tool_call>',
    "hermes, another name of the tool": '<tool_call>{"name": "python", "arguments": {"code": "print(1)"}}</tool_call>',
    "json behind words": f"I look first.\n\n{JSON}",
    "a list behind words": f"I look first.\n[{JSON}]",
    "python's call behind words": 'I look first.\n[python_repl(code="print(1)")]',
    "the older api's shape": json.dumps({"function_call": {"name": "python_repl", "arguments": ARGUMENTS}}),
    "the api's message": json.dumps({"tool_calls": [{"function": {"name": "python_repl", "arguments": ARGUMENTS}}]}),
    "the name as the key": '<|tools_prefix|>[{"python_repl": {"code": "print(1)"}}]<|tools_suffix|>',
    "a session": "```pycon\n>>> print(1)\n1\n```",
    "html": '<pre><code class="language-python">print(1)</code></pre>',
    "function_call": f"<function_call>{JSON}</function_call>",
    "functioncall": f"<functioncall> {JSON} </functioncall>",
    "openai's shape": '<tool_call>{"type": "function", "function": ' + JSON + "}</tool_call>",
    "mistral": f"[TOOL_CALLS][{JSON}]",
    "mistral, with a blank and an end": f"[TOOL_CALLS] [{JSON}]</s>",
    "mistral, one object": f"[TOOL_CALLS]{JSON}",
    "mistral v11": f"[TOOL_CALLS]python_repl[ARGS]{ARGUMENTS}",
    "mistral v11, call id": f"[TOOL_CALLS]python_repl[CALL_ID]abcDEF123[ARGS]{ARGUMENTS}",
    "mistral v13": f"[TOOL_CALLS]python_repl{ARGUMENTS}",
    "llama": '{"name": "python_repl", "parameters": {"code": "print(1)"}}',
    "llama, with a type": '{"type": "function", "name": "python_repl", "parameters": {"code": "print(1)"}}',
    "llama, python tag": '<|python_tag|>{"name": "python_repl", "parameters": {"code": "print(1)"}}<|eom_id|>',
    "llama, python tag before code": "<|python_tag|>print(1)<|eom_id|>",
    "llama, python tag before a call": '<|python_tag|>python_repl.call(code="print(1)")<|eom_id|>',
    "llama, python tag before a call, no end": '<|python_tag|>python_repl.call(code="print(1)")',
    "llama, python tag before a call without .call": '<|python_tag|>python_repl(code="print(1)")<|eom_id|>',
    "llama, python tag before code, no end": "<|python_tag|>print(1)",
    "python's call alone": 'python_repl(code="print(1)")',
    "python's call alone, no keyword": 'python_repl("print(1)")',
    "python's call alone, over lines": 'python_repl(\n    code="""\nprint(1)\n""",\n)',
    "python's call on a line": 'I look first.\n\npython_repl(code="print(1)")\n\nThis prints 1.',
    "python's call with its namespace": 'functions.python_repl(code="print(1)")',
    "python's call in a tool's fence": '```tool_call\npython_repl(code="print(1)")\n```',
    "python's call in a bare fence": '```\npython_repl.call(code="print(1)")\n```',
    "firefunction": f" functools[{JSON}]",
    "arguments in a list": json.dumps({"name": "python_repl", "arguments": [{"code": ONE}]}),
    "arguments in a list, in a tag": "<tool_call>"
    + json.dumps({"name": "python_repl", "arguments": [{"code": ONE}]})
    + "</tool_call>",
    "llama 3.1 function": f"<function=python_repl>{ARGUMENTS}</function>",
    "llama 4 in python": '<|python_start|>[python_repl(code="print(1)")]<|python_end|>',
    "llama in python": '[python_repl(code="print(1)")]',
    "lfm": '<|tool_call_start|>[python_repl(code="print(1)")]<|tool_call_end|>',
    "granite": f"<|tool_call|>[{JSON}]",
    "phi": f"<|tool_call|>[{JSON}]<|/tool_call|>",
    "internlm": f"<|action_start|><|plugin|>\n{JSON}<|action_end|>",
    "react json": f"Thought: I look.\nAction: python_repl\nAction Input: {ARGUMENTS}",
    "react code": "Action: python_repl\nAction Input: print(1)\nObservation: 1",
    "react fence": "Action: python_repl\nAction Input:\n```python\nprint(1)\n```\n",
    "json fence": f"I call the tool.\n```json\n{JSON}\n```",
    "tool fence": f"```tool_call\n{JSON}\n```",
    "bare fence with a call": f"```\n{JSON}\n```",
    "arguments alone": ARGUMENTS,
    "arguments alone, in a tag": f"<tool_call>{ARGUMENTS}</tool_call>",
    "arguments alone, in a fence": f"```json\n{ARGUMENTS}\n```",
    "llama, behind words": f"I call the tool.\n\n{JSON}",
    "llama, before words": f"{JSON}\n\nThis prints 1.",
    "llama, with its header": f"<|start_header_id|>assistant<|end_header_id|>\n\n{JSON}<|eot_id|>",
    "llama, python's notation": "{'name': 'python_repl', 'parameters': {'code': 'print(1)'}}",
    "a brace is missing": '<tool_call>\n{"name": "python_repl", "arguments": {"code": "print(1)"}\n</tool_call>',
    "a brace too much": f"<tool_call>\n{JSON}}}\n</tool_call>",
    "a comma too much": '<tool_call>{"name": "python_repl", "arguments": {"code": "print(1)",},}</tool_call>',
    "command r": 'Action: ```json\n[{"tool_name": "python_repl", "parameters": {"code": "print(1)"}}]\n```',
    "command a": '<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "python_repl", "parameters": '
    f"{ARGUMENTS}}}]<|END_ACTION|>",
    "jamba": f"<tool_calls>[{JSON}]</tool_calls>",
    "nemotron": f"<TOOLCALL>[{JSON}]</TOOLCALL>",
    "olmo": '<function_calls>\npython_repl(code="print(1)")\n</function_calls>',
    "functionary": f">>>python_repl\n{ARGUMENTS}",
    "function gemma": "<start_function_call>call:python_repl{code:<escape>print(1)<escape>}<end_function_call>",
    "gemma 4": '<|tool_call>call:python_repl{code:<|"|>print(1)<|"|>}<tool_call|>',
    "hunyuan": f"<tool_calls><tool_call>python_repl<tool_sep>```json\n{ARGUMENTS}\n```</tool_call></tool_calls>",
    # a name, then its arguments
    "harmony": f"<|channel|>commentary to=functions.python_repl <|constrain|>json<|message|>{ARGUMENTS}<|call|>",
    "harmony, after analysis": "<|channel|>analysis<|message|>```python\nbad()\n```<|end|><|start|>assistant<|channel|>"
    f"commentary to=functions.python_repl <|constrain|>json<|message|>{ARGUMENTS}<|call|>",
    "harmony, recipient first": "<|start|>assistant to=functions.python_repl<|channel|>commentary json<|message|>"
    f"{ARGUMENTS}<|call|>",
    "harmony, never closed": f"<|channel|>commentary to=functions.python_repl json<|message|>{ARGUMENTS}",
    "harmony's own python": "<|channel|>analysis to=python code<|message|>print(1)<|call|>",
    "harmony, tokens dropped": f"analysisI need code.assistantcommentary to=functions.python_repl json{ARGUMENTS}",
    "harmony, final channel": "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>"
    "```python\nprint(1)\n```<|return|>",
    "kimi": "<|tool_calls_section_begin|><|tool_call_begin|>functions.python_repl:0<|tool_call_argument_begin|>"
    f"{ARGUMENTS}<|tool_call_end|><|tool_calls_section_end|>",
    "deepseek v3": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>python_repl\n```json\n"
    f"{ARGUMENTS}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "deepseek v3.1": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>python_repl<｜tool▁sep｜>"
    f"{ARGUMENTS}<｜tool▁call▁end｜>",
    "qwen 2": f"✿FUNCTION✿: python_repl\n✿ARGS✿: {ARGUMENTS}\n✿RESULT✿",
    "name on its own line": f"<tool_call>python_repl\n{ARGUMENTS}\n</tool_call>",
    # XML
    "qwen3-coder": "<tool_call>\n<function=python_repl>\n<parameter=code>\nprint(1)\n</parameter>\n</function>\n"
    "</tool_call>",
    "qwen3-coder, no outer tag": "<function=python_repl>\n<parameter=code>\nprint(1)\n</parameter>\n</function>",
    "qwen3-coder, never closed": "<tool_call>\n<function=python_repl>\n<parameter=code>\nprint(1)\n",
    "qwen3-coder, inner tags never closed": "<tool_call>\n<function=python_repl>\n<parameter=code>\nprint(1)\n"
    "</tool_call>",
    "glm": "<tool_call>python_repl\n<arg_key>code</arg_key>\n<arg_value>print(1)</arg_value>\n</tool_call>",
    "anthropic": '<function_calls>\n<invoke name="python_repl">\n<parameter name="code">print(1)</parameter>\n'
    "</invoke>\n</function_calls>",
    "minimax": '<minimax:tool_call>\n<invoke name="python_repl">\n<parameter name="code">print(1)</parameter>\n'
    "</invoke>\n</minimax:tool_call>",
    "deepseek v3.2": '<｜DSML｜function_calls>\n<｜DSML｜invoke name="python_repl">\n<｜DSML｜parameter name="code" '
    'string="true">print(1)</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>',
    "tag of the tool's name": "<python_repl>\n<code>\nprint(1)\n</code>\n</python_repl>",
    # code in tags
    "code tag": "<code>\nprint(1)\n</code>",
    "code tag, one line": "I look.\n<code>print(1)</code>",
    "code tag, with a language": '<code lang="python">\nprint(1)\n</code>',
    "code tag, stopped before its end": "Thought: look.\n<code>\nprint(1)\n",
    "code tag with a fence": "<code>\n```python\nprint(1)\n```\n</code>",
    "execute tag": "<execute>\nprint(1)\n</execute>",
    "execute_ipython tag": "<execute_ipython>\nprint(1)\n</execute_ipython>",
    "python tag": "<python>\nprint(1)\n</python>",
    "code llama": "[PYTHON]\nprint(1)\n[/PYTHON]",
    # fences
    "repl": "```repl\nprint(1)\n```",
    "gemma": "```tool_code\nprint(1)\n```",
    "tildes": "~~~python\nprint(1)\n~~~",
    "tildes, no label": "~~~\nprint(1)\n~~~",
    "behind words": "Here is the code: ```python\nprint(1)\n```",
    "behind words, no label": "Here is the code: ```\nprint(1)\n```",
    "behind a bullet": "- ```python\n  print(1)\n  ```",
    "behind a number": "1. ```python\n   print(1)\n   ```",
    "in a quote": "> ```python\n> print(1)\n> ```",
    "behind a leaked channel": "analysisNeed code.assistantfinal```python\nprint(1)\n```",
    "code on the fence's line": "```python print(1)\n```",
    "all on one line": "```python print(1)```",
    "label in braces": "```{python}\nprint(1)\n```",
    "a setting behind the label": '```python title="look.py"\nprint(1)\n```',
    "words behind the fence": "```python\nprint(1)\n``` This prints one.",
    "words that touch the fence": "```python\nprint(1)\n```This prints one.",
    "a mark behind the fence": "```python\nprint(1)\n```. So it is.",
    "one word behind the fence": "```python\nprint(1)\n``` Done",
    "words behind a fence behind code": "```python\nprint(1)``` This prints one.",
    "words behind a fence in tildes": "~~~python\nprint(1)\n~~~ This prints one.",
    "words behind a fence in a quote": "> ```python\n> print(1)\n> ``` This prints one.",
    "words behind a fence without label": "```\nprint(1)\n``` This prints one.",
    "words behind a fence with a call": f"```json\n{JSON}\n``` This prints one.",
    "output behind code that is not closed": "```python\nprint(1)\n```output\n1\n```",
    "a fence and the fence of another": "```\n```python\nprint(1)\n```",
    "smolagents": "Thought: look\nCode:\n```py\nprint(1)\n```<end_code>",
    "end token behind the fence": "```python\nprint(1)\n```<|im_end|>",
    "end token instead of the fence": "```python\nprint(1)<|im_end|>",
    "a call of the tool in a block": '```python\npython_repl(code="print(1)")\n```',
    "a call in json in a block": f"```python\n{JSON}\n```",
    # thoughts
    "thoughts without opening": "I could ```python\nbad()\n```\nNo.\n</think>\n\n```python\nprint(1)\n```",
    "thoughts with an unclosed fence": "```python\nbad(\n</think>\n```python\nprint(1)\n```",
    "thoughts with a call": f"<tool_call>{TWO}</tool_call> no.\n</think>\n<tool_call>{JSON}</tool_call>",
    "thinking": "<thinking>\n```python\nbad()\n```\n</thinking>\n```python\nprint(1)\n```",
    "reasoning": "<reasoning>```python\nbad()\n```</reasoning>```python\nprint(1)\n```",
    "begin_of_thought": "<|begin_of_thought|>\n```python\nbad()\n```\n<|end_of_thought|>\n<|begin_of_solution|>\n"
    "```python\nprint(1)\n```\n<|end_of_solution|>",
    "magistral": "[THINK]```python\nbad()\n```[/THINK]```python\nprint(1)\n```",
    "kimi-vl": "◁think▷```python\nbad()\n```◁/think▷```python\nprint(1)\n```",
    "seed": "<seed:think>```python\nbad()\n```</seed:think>```python\nprint(1)\n```",
    "cohere": "<|START_THINKING|>```python\nbad()\n```<|END_THINKING|>```python\nprint(1)\n```",
    "granite, spelled out": "Here is my thought process:\n```python\nbad()\n```\nHere is my response:\n"
    "```python\nprint(1)\n```",
    "folded": '<details type="reasoning" done="true">```python\nbad()\n```</details>\n```python\nprint(1)\n```',
    "thoughts twice": "<think>a</think>\n<think>```python\nbad()\n```</think>\n```python\nprint(1)\n```",
    "thoughts behind words": "I see.\n<think>\n```python\nbad()\n```\n</think>\n```python\nprint(1)\n```",
}


@pytest.mark.parametrize("form", FORMS)
def test_the_code_is_found(form):
    assert cells(FORMS[form]) == [ONE]


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        (f"<tool_call>{JSON}</tool_call>\n<tool_call>{TWO}</tool_call>", ["print(1)", "print(2)"]),
        (f"[TOOL_CALLS][{JSON}, {TWO}]", ["print(1)", "print(2)"]),
        (f"{JSON}; {TWO}", ["print(1)", "print(2)"]),
        (f"{JSON}\n{TWO}", ["print(1)", "print(2)"]),
        (f"<tool_call>[{JSON}, {TWO}]</tool_call>", ["print(1)", "print(2)"]),
        (
            f'[TOOL_CALLS]python_repl[ARGS]{ARGUMENTS}[TOOL_CALLS]python_repl[ARGS]{{"code": "print(2)"}}',
            ["print(1)", "print(2)"],
        ),
        ("First: ```python\nprint(1)\n```\nThen more.\n```python\nprint(2)\n```", ["print(1)", "print(2)"]),
        ("```repl\nprint(1)```\nThen\n```repl\nprint(2)```", ["print(1)", "print(2)"]),
        ("Here: ```python\nprint(1)\n``` and then: ```python\nprint(2)\n```\nthanks", ["print(1)", "print(2)"]),
        ("```python\nprint(1)\n``` Then the second:\n```python\nprint(2)\n```", ["print(1)", "print(2)"]),
        ("```python\nprint(1)``` Then:\n```python\nprint(2)\n``` So.", ["print(1)", "print(2)"]),
        (
            "```python print(1)``` and ```python print(2)``` and ```python\nprint(3)\n```",
            [f"print({i})" for i in (1, 2, 3)],
        ),
        ("```python\nprint(1\n``` Then the second:\n```python\nprint(2)\n```", ["print(1", "print(2)"]),
        ("```python\n!ls\n``` lists files.\n```python\nprint(2)\n```", ["!ls", "print(2)"]),
        ("```repl\nprint(1)\n```repl\nprint(2)\n```", ["print(1)", "print(2)"]),
        (
            "<tool_call>\n<function=python_repl>\n<parameter=code>\nprint(1)\n</tool_call>\n```python\nprint(2)\n```",
            ["print(1)", "print(2)"],
        ),
        ("<code>\nprint(1)\n</code>\ntext\n<code>\nprint(2)\n</code>", ["print(1)", "print(2)"]),
        (
            "<function=python_repl><parameter=code>print(1)</parameter></function>"
            "<function=python_repl><parameter=code>print(2)</parameter></function>",
            ["print(1)", "print(2)"],
        ),
    ],
)
def test_several_are_found_in_order(text, codes):
    assert cells(text) == codes


@pytest.mark.parametrize(
    "code",
    [
        MULTI,
        'x = r.split("</think>")[-1]\nprint(x)',
        'import re\nx = re.sub(r"<think>.*?</think>\\s*", "", r)',
        'prompt = """Answer as\n```json\n{"a": 1}\n```\nonly."""',
        'prompt = """Close it:\n``` and go on\n```python and so on\n``` Done."""\nprint(prompt)',
        'prompt = """\n```python\nprint(2)\n``` prints two.\n"""',
        "x = 1  # use ```json here\nprint(x)",
        "prompt = '''Think in <think>\n</think>\ntags'''",
        'ask = "Call <tool_call>{\\"name\\": \\"python_repl\\"}</tool_call>"',
        "html = '<code>x</code>'\nprint(html)",
        'prompt = """Write\npython_repl(code="print(2)")\nfunctools[{"name": "python_repl"}]"""\nprint(prompt)',
        'import subprocess\nsubprocess.call(["ls"])',
        'client.call(code="print(2)")',
        'print("</parameter>")',
        'x = "</function>"\nprint(x)',
        'x = "<parameter=code>"\nprint(x)',
        'x = """\n</parameter>\n</function>\n</tool_call>\n<function=python_repl>\n<parameter=code>\n"""\nprint(x)',
        "# until </parameter>\nprint(1)",
        'print("</arg_value>")',
        'print("</code>")',
        'x = """\n</code>\n"""\nprint(x)',
        'FINAL("x")',
        'llm_batch(["Write ```python\\nprint(2)\\n``` please"])',
    ],
)
@pytest.mark.parametrize(
    "wrap",
    [
        "```repl\n{}\n```",
        "```python\n{}\n```\nThat is all.",
        "~~~python\n{}\n~~~",
        "Look: ```python\n{}\n```",
        "<code>\n{}\n</code>",
        "<function=python_repl>\n<parameter=code>\n{}\n</parameter>\n</function>",
        "<tool_call>\n<function=python_repl>\n<parameter=code>\n{}\n</parameter>\n</function>\n</tool_call>",
        "<function=python_repl><parameter=code>{}</parameter></function>",
        "<function=python_repl>\n<parameter=code>\n{}",
        '<invoke name="python_repl">\n<parameter name="code">{}</parameter>\n</invoke>\nThat is all.',
        "<tool_call>python_repl\n<arg_key>code</arg_key>\n<arg_value>{}</arg_value>\n</tool_call>",
        "json",
    ],
)
def test_what_stands_in_the_code_is_code(code, wrap):
    if wrap == "json":
        text = f"<tool_call>{json.dumps({'name': 'python_repl', 'arguments': {'code': code}})}</tool_call>"
    else:
        text = wrap.replace("{}", code)
    assert cells(text) == [code.strip()]


@pytest.mark.parametrize(
    "text",
    [
        "The tag <code>len</code> marks code.",
        "Wrap it in ```python fences and send it.",
        "Use `print(1)` to see it.",
        'A row of it:\n{"name": "Ann", "arguments": {"age": 5}}',
        "The list is\n[1, 2, 3]",
        "<tool_call>",
        "Write to=you and me.",
        "```html\n<code>\nprint(1)\n</code>\n```",
        '```json\n{"name": "Ann", "age": 5}\n```',
        "a ~~~ b",
        "The tool python_repl(code) runs code.",
        "Call the tool as\npython_repl(code)\nand read what it prints.",
        "I have\npython_repl()\nto run code.",
        'I can call python_repl(code="print(1)") to see it.',
        "functools[1] is no call, and functools.partial is a function.",
        'print("a")\nresult = python_repl(code="print(1)")',
        'search.call(query="x")',
        "<think>```python\nprint(1)\n```</think>",
        "I am still\n<think>\n```python\nprint(1)\n```",
    ],
)
def test_what_is_no_code_is_not_run(text):
    assert cells(text) == []
    assert items(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('<tool_call>{"name": "search", "arguments": {"q": "x"}}</tool_call>', "no tool 'search', only python_repl"),
        ('<tool_call>{"name": "python_repl", "arguments": {}}</tool_call>', 'needs {"code"'),
        ('<tool_call>{"name": "python_repl", "arguments": {"code": "x = 1', "not valid JSON"),
    ],
)
def test_a_call_in_text_that_cannot_run_is_told_why(text, why):
    (problem,) = items(text)
    assert isinstance(problem, Problem)
    assert why in problem.text


def test_a_call_in_text_that_was_cut_off_is_told_so():
    (problem,) = items('<tool_call>{"name": "python_repl", "arguments": {"code": "x = 1', "length")
    assert isinstance(problem, Problem)
    assert "cut off by the token limit" in problem.text


ENCODINGS = {
    "text": ARGUMENTS,
    "object": {"code": ONE},
    "encoded twice": json.dumps(ARGUMENTS),
    "encoded three times": json.dumps(json.dumps(ARGUMENTS)),
    "python's notation": "{'code': 'print(1)'}",
    "raw line breaks": '{"code": "\nprint(1)\n"}',
    "a fence": json.dumps({"code": "```python\nprint(1)\n```"}),
    "a fence without label": json.dumps({"code": "```\nprint(1)\n```"}),
    "tildes": json.dumps({"code": "~~~py\nprint(1)\n~~~"}),
    "a fence with words": json.dumps({"code": "Here it is:\n```python\nprint(1)\n```"}),
    "a tag": json.dumps({"code": "<code>print(1)</code>"}),
    "key python": '{"python": "print(1)"}',
    "key source": '{"source": "print(1)"}',
    "an unknown key": '{"text": "print(1)"}',
    "a list of lines": '{"code": ["print(1)"]}',
    "a list of one object": '[{"code": "print(1)"}]',
    "an object with a list": '{"arguments": [{"code": "print(1)"}]}',
    "nested": '{"arguments": {"code": "print(1)"}}',
    "nested, encoded": json.dumps({"arguments": ARGUMENTS}),
    "json in the code": json.dumps({"code": ARGUMENTS}),
    "only a string": '"print(1)"',
    "raw code": "print(1)",
    "control tokens behind it": ARGUMENTS + "<|call|>",
    "a bracket too much": ARGUMENTS + "}",
}


@pytest.mark.parametrize("name", ["python_repl", "functions.python_repl", "python_repl<|channel|>commentary", "python"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_code_of_a_tool_call_is_found_however_it_is_encoded(encoding, name):
    call = {"id": "c1", "type": "function", "function": {"name": name, "arguments": ENCODINGS[encoding]}}
    (cell,) = extract_cells(Completion("", tool_calls=[call]))
    assert isinstance(cell, Cell)
    assert (cell.code.strip(), cell.tool_call_id) == (ONE, "c1")
    assert call["function"]["arguments"] == ENCODINGS[encoding], "the record holds what the model said"
