"""Tools: schemas of Python functions, calls found in replies, run on the host; nothing that goes wrong is raised."""

import asyncio
import functools
import json
import threading
import time
from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from rlm_env.messages import Completion
from rlm_env.tools.box import MAX_CALLS, ToolBox, ToolCall, read_calls, result_messages
from rlm_env.tools.schema import Tool


async def search(query: str, count: Annotated[int, Field(ge=1, le=20)] = 10, kind: Literal["web", "news"] = "web"):
    """Searches the web. Gives titles and snippets,
    best first.

    Args:
        query: words to look for
        kind: which pages

    Returns:
        Text.
    """
    return f"{count} {kind} results for {query}"


def test_the_schema_is_that_of_signature_and_docstring():
    tool = Tool(search)
    assert tool.schema == {
        "type": "function",
        "function": {
            "name": "search",
            "description": "Searches the web. Gives titles and snippets,\nbest first.",
            "parameters": {
                "type": "object",
                "properties": {
                    "query": {"type": "string", "description": "words to look for"},
                    "count": {"type": "integer", "minimum": 1, "maximum": 20, "default": 10},
                    "kind": {"type": "string", "enum": ["web", "news"], "default": "web", "description": "which pages"},
                },
                "required": ["query"],
                "additionalProperties": False,
            },
        },
    }
    assert tool.summary == "Searches the web."
    assert tool.signature == 'search(query: string, count: integer = 10, kind: string = "web")'


def test_closures_of_the_same_code_share_a_schema_and_those_that_differ_do_not():
    def make(limit: int, default: int):
        def look(count: Annotated[int, Field(le=limit)] = default) -> int:
            """Looks."""
            return count

        return look

    one, same, other, wider = (Tool(make(*options)) for options in [(5, 1), (5, 1), (5, 2), (6, 1)])
    assert one.schema is same.schema
    assert one.function is not same.function
    assert [t.schema["function"]["parameters"]["properties"]["count"] for t in (one, other, wider)] == [
        {"type": "integer", "maximum": 5, "default": 1},
        {"type": "integer", "maximum": 5, "default": 2},
        {"type": "integer", "maximum": 6, "default": 1},
    ]
    assert Tool(make(5, 1), description="Else.").schema != one.schema


class Place(BaseModel):
    title: str
    at: list[float] = []


def odd(schema: str, title: str, json: int | None, place: Place | None = None) -> str:
    """Parameters that share names with what pydantic itself uses."""
    return f"{schema} {title} {json} {place.title if place else ''}"


async def test_any_parameter_name_and_nested_models_work():
    properties = Tool(odd).schema["function"]["parameters"]["properties"]
    assert list(properties) == ["schema", "title", "json", "place"]
    call = ToolCall("odd", '{"schema": "a", "title": "b", "json": null, "place": {"title": "c"}}')
    (result,) = await ToolBox([odd]).run([call])
    assert (result.output, result.error) == ("a b None c", None)


class Counter:
    """Counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, step: int = 1) -> int:
        self.calls += step
        return self.calls

    def bound(self, step: int) -> int:
        """The same, as a method."""
        return self(step)


async def test_methods_callable_objects_and_partials_are_tools_too():
    counter = Counter()
    partial = Tool(functools.partial(search, kind="news"), name="news", description="News.")
    box = ToolBox([Tool(counter, name="count"), counter.bound, partial])
    calls = [ToolCall("count", "{}"), ToolCall("bound", '{"step": 5}'), ToolCall("news", {"query": "q"})]
    results = [(await box.run([call]))[0].output for call in calls]
    assert results == ["1", "6", "10 news results for q"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tool(lambda: 1), "cannot be called '<lambda>'"),
        (lambda: Tool(lambda: 1, name="f"), "'f' has no docstring"),
        (lambda: Tool(lambda x: x, name="f", description="d"), "parameter 'x' has no type"),
        (lambda: Tool(search, name="python_repl"), "not python_repl"),
        (lambda: Tool(functools.partial(print), name="f"), "by name, which"),
        (lambda: ToolBox([search, search]), "same name"),
        (lambda: ToolBox([opaque]), "no schema can be made"),
    ],
)
def test_what_cannot_be_a_tool_says_why(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def opaque(x: threading.Thread) -> str:
    """A thread is nothing that JSON can hold."""
    return str(x)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("{", "not valid JSON"),
        ("[1]", "must be a JSON object, not list"),
        ("", "query: Field required"),
        ('{"query": "q", "count": 0}', "count: Input should be greater than or equal to 1"),
        ('{"query": "q", "kind": "images"}', "kind: Input should be 'web' or 'news'"),
        ('{"query": "q", "page": 2}', "page: Extra inputs are not permitted"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
async def test_wrong_arguments_are_told(arguments, error):
    box = ToolBox([search])
    (result,) = await box.run([ToolCall("search", arguments)])
    assert error in result.error
    assert result.observation.startswith("Error: ")
    assert box.metrics()["tool_calls_failed_search"] == 1


async def test_numbers_in_quotes_are_numbers():
    (result,) = await ToolBox([search]).run([ToolCall("search", '{"query": "q", "count": "3"}')])
    assert result.output == "3 web results for q"


def boom(kind: str) -> str:
    """Fails."""
    errors = {
        "exit": SystemExit(3),
        "stop": StopIteration(1),
        "cancel": asyncio.CancelledError(),
        "late": TimeoutError(),
    }
    raise errors.get(kind) or RuntimeError(f"{kind}\nsecret of the second line")


async def async_boom(kind: str) -> str:
    """Fails, asynchronously."""
    return boom(kind)


@pytest.mark.parametrize("name", ["boom", "async_boom"])
@pytest.mark.parametrize("kind", ["exit", "stop", "cancel", "x" * 9999, ""])
async def test_what_a_tool_raises_is_told_and_never_raised(name, kind):
    (result,) = await ToolBox([boom, async_boom]).run([ToolCall(name, {"kind": kind})])
    assert result.error
    assert "secret" not in result.error
    assert len(result.observation) < 400


async def test_a_cancellation_from_outside_is_one():
    async def wait(n: int) -> str:
        """Waits."""
        await asyncio.sleep(30)

    task = asyncio.create_task(ToolBox([wait]).run([ToolCall("wait", {"n": 1})]))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_slow_tools_end_at_their_limit_and_run_side_by_side():
    release = threading.Event()

    def hangs(n: int) -> str:
        """Blocks its thread."""
        release.wait(30)
        return "late"

    async def sleeps(n: int) -> str:
        """Takes too long."""
        await asyncio.sleep(30)

    box = ToolBox([hangs, Tool(sleeps, timeout=0.2), search], timeout=0.3)
    calls = [ToolCall("hangs", {"n": 1})] * 6 + [ToolCall("sleeps", {"n": 1}), ToolCall("search", {"query": "q"})]
    start = time.monotonic()
    results = await box.run(calls)
    release.set()
    assert time.monotonic() - start < 5
    assert [r.error for r in results] == ["it took longer than 0.3 s"] * 6 + ["it took longer than 0.2 s", None]
    assert box.metrics()["tool_seconds_hangs"] >= 6 * 0.29


async def test_results_are_text_and_bounded():
    def long(n: int) -> str:
        """Long."""
        return "x" * n

    def table(n: int) -> dict:
        """A dict."""
        return {"ä": [n]}

    box = ToolBox([long, table, Tool(long, name="short", max_chars=300)], max_chars=1000)
    results = await box.run(
        [ToolCall("long", {"n": 10**6}), ToolCall("table", {"n": 1}), ToolCall("short", {"n": 999})]
    )
    assert len(results[0].output) <= 1000
    assert "of 1,000,000 characters omitted" in results[0].output
    assert results[1].output == '{"ä": [1]}'
    assert len(results[2].output) <= 300
    with pytest.raises(ValueError, match="max_chars=100 must be at least 200"):
        Tool(long, max_chars=100)


async def test_unknown_tools_and_too_many_calls_are_told():
    box = ToolBox([search])
    (result,) = await box.run([ToolCall("serach", "{}")])
    assert result.error == "there is no tool 'serach', only search"
    results = await box.run([ToolCall("search", {"query": "q"})] * (MAX_CALLS + 2))
    assert [r.error is None for r in results] == [True] * MAX_CALLS + [False] * 2
    metrics = box.metrics()
    assert (metrics["tool_calls"], metrics["tool_calls_search"], metrics["tool_calls_failed"]) == (
        MAX_CALLS + 3,
        MAX_CALLS + 2,
        3,
    )


def test_native_calls_are_read_and_told():
    calls = [{"id": "a", "type": "function", "function": {"name": "search", "arguments": "{}"}}, {"id": "b"}]
    found = read_calls(Completion("```tool\n{}\n```", tool_calls=calls), native=True)
    assert found == [ToolCall("search", "{}", "a"), ToolCall("", "", "b")]
    assert read_calls(Completion("```tool\n{}\n```"), native=True) == []


def block(name, **arguments):
    return f"```tool\n{json.dumps({'name': name, 'arguments': arguments})}\n```"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("It is Paris.", []),
        ("```python\nprint(1)\n```", []),
        (f"First:\n{block('a', x='`')}\nthen\n{block('b')}\n", ["a", "b"]),
        ('```tool\n{"name": "a"}', ["a"]),  # cut off by a stop string
        ('<tool_call>\n{"name": "a", "arguments": {}}\n</tool_call>', ["a"]),
        (f"<think>{block('a')}</think>Paris", []),
        ("```tool\nsearch('x')\n```", [""]),
        ("```tool\n[1]\n```", [""]),
    ],
)
def test_calls_in_the_text_protocol(text, names):
    assert [call.name for call in read_calls(Completion(text), native=False)] == names


async def test_both_protocols_tell_every_result():
    box = ToolBox([search])
    results = await box.run([ToolCall("search", {"query": "q"}, "a"), ToolCall("", "search('x')", "b")])
    native = result_messages(results, native=True)
    assert [(m["role"], m["tool_call_id"]) for m in native] == [("tool", "a"), ("tool", "b")]
    (message,) = result_messages(results, native=False)
    assert message["role"] == "user"
    assert "[search]\n10 web results for q" in message["content"]
    assert "Error: there is no tool ''" in message["content"]
    assert "search(query: string" in box.instructions()


@given(st.text())
def test_any_text_is_calls_or_an_answer(text):
    for call in read_calls(Completion(text), native=False):
        assert isinstance(call.name, str)


scalars = st.none() | st.booleans() | st.floats() | st.text()


@settings(max_examples=50)
@given(st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=6))
def test_any_arguments_are_a_result(value):
    box = ToolBox([search])
    results = asyncio.run(box.run([ToolCall("search", value), ToolCall("search", json.dumps(value))]))
    assert all(result.error or result.output for result in results)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>\n<function=search>\n<parameter=query>\nx\n</parameter>\n</function>\n</tool_call>",
        '[TOOL_CALLS][{"name": "search", "arguments": {"query": "x"}}]',
        '{"name": "search", "parameters": {"query": "x"}}',
        '<|channel|>commentary to=functions.search <|constrain|>json<|message|>{"query": "x"}<|call|>',
        'Hm.</think><tool_call>{"name": "search", "arguments": {"query": "x"}}</tool_call>',
    ],
)
def test_calls_of_known_tools_are_read_in_every_form(text, native):
    (call,) = read_calls(Completion(text), native=native, names={"search"})
    assert (call.name, call.arguments, call.id) == ("search", {"query": "x"}, None)


def test_calls_of_unknown_tools_in_other_forms_are_an_answer():
    text = '{"name": "Ann", "parameters": {"age": 5}}'
    assert read_calls(Completion(text), native=True, names={"search"}) == []
    assert read_calls(Completion(text), native=False, names={"search"}) == []
