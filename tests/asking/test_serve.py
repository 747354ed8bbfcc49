"""The endpoint of `rlm-env serve`, asked by the real `openai` client: short requests, long ones, streams, mistakes."""

import asyncio
import contextlib
import json

import aiohttp
import pytest

import rlm_env
from rlm_env.asking.chat import BadRequest, as_task, read_request
from rlm_env.asking.serve import RLMServer
from rlm_env.llm.base import ContextOverflow, EngineUnavailable
from rlm_env.runs.engines import Engines
from tests.stubs import StubLLM, fenced
from tests.waiting import until

LONG = "spam ham " * 500
CODE = fenced('answer["content"] = llm_batch(["how many?"])[0] + " " + str(len(context))\nanswer["ready"] = True')


def reply(messages):
    """The model: code for an RLM's prompt, an echo for everything else."""
    return CODE if messages[0]["role"] == "system" and "llm_batch" in messages[0]["content"] else "I read it"


@contextlib.asynccontextmanager
async def serving(root=reply, **options):
    root = root if isinstance(root, StubLLM) else StubLLM(root)
    root.name = "stub"
    config = rlm_env.RLMConfig(repl=rlm_env.ReplConfig(preload=()), **options)
    server = RLMServer(Engines(root, root), config, threshold=1000)
    async with server.running():
        yield server


@contextlib.asynccontextmanager
async def asking(**options):
    openai = pytest.importorskip("openai")
    async with (
        serving(**options) as server,
        openai.AsyncOpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client,
    ):
        yield client


def user(text):
    return [{"role": "user", "content": text}]


async def test_the_openai_client_lists_the_models_and_gets_a_short_answer_from_the_model():
    async with asking() as client:
        assert [model.id async for model in client.models.list()] == ["stub", "stub:rlm", "stub:llm"]
        completion = await client.chat.completions.create(model="stub", messages=user("Hello"), temperature=0.5)
    assert completion.choices[0].message.content == "I read it"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage.prompt_tokens == 1
    assert "rlm" not in (completion.model_extra or {})


async def test_a_long_request_is_answered_by_the_rlm_with_all_its_tokens():
    async with asking() as client:
        messages = [*user(LONG), {"role": "user", "content": "How often?"}]
        completion = await client.chat.completions.create(model="stub", messages=messages)
        forced = await client.chat.completions.create(model="stub:llm", messages=messages)
        short = await client.chat.completions.create(model="stub:rlm", messages=user("short"))
    assert completion.choices[0].message.content == f"I read it {len(LONG)}"
    assert completion.model_extra["rlm"] == {"turns": 1, "sub_calls": 1, "stop_reason": "ready"}
    assert completion.usage.completion_tokens > 3
    assert forced.choices[0].message.content == "I read it"
    assert short.choices[0].message.content == "I read it 5"


@pytest.mark.parametrize("text", ["Hello", LONG])
async def test_a_stream_is_the_same_answer_in_pieces(text):
    async with asking() as client:
        whole = await client.chat.completions.create(model="stub", messages=user(text))
        options = {"stream": True, "stream_options": {"include_usage": True}}
        stream = await client.chat.completions.create(model="stub", messages=user(text), **options)
        chunks = [chunk async for chunk in stream]
    pieces = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "stop"


async def test_tools_go_to_the_model_and_not_to_the_rlm():
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    openai = pytest.importorskip("openai")
    async with asking() as client:
        await client.chat.completions.create(model="stub", messages=user("x"), tools=[tool])
        with pytest.raises(openai.BadRequestError, match="tools is for the model alone"):
            await client.chat.completions.create(model="stub", messages=user(LONG), tools=[tool])


async def test_errors_have_the_status_and_code_that_clients_know():
    openai = pytest.importorskip("openai")
    for error, kind, code in (
        (ContextOverflow(9, 8), openai.BadRequestError, "context_length_exceeded"),
        (EngineUnavailable("gone"), openai.InternalServerError, None),
    ):
        async with asking(root=StubLLM(lambda messages, error=error: error)) as client:
            with pytest.raises(kind) as caught:
                await client.chat.completions.create(model="stub", messages=user("x"))
            assert caught.value.code == code
            stream = await client.chat.completions.create(model="stub", messages=user("x"), stream=True)
            with pytest.raises(openai.APIError):
                await anext(stream)


async def test_an_rlm_without_an_answer_is_an_error_and_one_cut_off_says_length():
    openai = pytest.importorskip("openai")
    async with asking(root=lambda messages: fenced("pass"), max_turns=1) as client:
        with pytest.raises(openai.InternalServerError, match="no answer: max_turns"):
            await client.chat.completions.create(model="stub", messages=user(LONG))
    async with asking(root=lambda messages: fenced('answer["content"] = "half"'), max_turns=1) as client:
        completion = await client.chat.completions.create(model="stub", messages=user(LONG))
        assert (completion.choices[0].message.content, completion.choices[0].finish_reason) == ("half", "length")


async def test_a_client_that_leaves_ends_its_rollout():
    root = StubLLM(lambda messages: CODE, delay=1000)

    def handled() -> bool:
        return any("_handle_request" in repr(task.get_coro()) for task in asyncio.all_tasks())

    async with serving(root) as server, aiohttp.ClientSession() as session:
        body = {"model": "stub", "messages": user(LONG)}
        client = asyncio.create_task(session.post(f"{server.base_url}/chat/completions", json=body))
        await until(lambda: root.seen)
        assert handled()
        client.cancel()
        await until(lambda: not handled())  # the model takes longer than that
        assert server.served == {"llm": 0, "rlm": 0}
        assert len(root.seen) == 1


async def test_pages_of_the_web_are_refused():
    async with serving() as server, aiohttp.ClientSession() as session:
        url = f"{server.base_url}/chat/completions"
        body = json.dumps({"model": "stub", "messages": user("x")})
        for headers, status in (
            ({"Content-Type": "application/json"}, 200),
            ({"Content-Type": "application/json", "Host": "evil.example"}, 403),
            ({"Content-Type": "application/json", "Origin": "https://evil.example"}, 403),
            ({"Content-Type": "text/plain"}, 400),
        ):
            async with session.post(url, data=body, headers=headers) as response:
                assert response.status == status, headers


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[" * 100_000, b'{"messages": NaN}', b""])
async def test_a_body_that_is_no_json_is_a_mistake_of_the_client(body):
    async with serving() as server, aiohttp.ClientSession() as session:
        headers = {"Content-Type": "application/json"}
        async with session.post(f"{server.base_url}/chat/completions", data=body, headers=headers) as response:
            assert response.status == 400
            assert (await response.json())["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_with_characters_that_cannot_be_encoded_arrives(stream):
    code = fenced('answer["content"] = "a" + chr(0xd800) + "b\\0\\x1b" + chr(0x1f600)\nanswer["ready"] = True')
    async with asking(root=lambda messages: code) as client:
        made = await client.chat.completions.create(model="stub", messages=user(LONG), stream=stream)
        parts = [part async for part in made] if stream else [made]
    texts = [one.choices[0].delta.content if stream else one.choices[0].message.content for one in parts if one.choices]
    text = "".join(part or "" for part in texts)
    assert (text[0], text[2:]) == ("a", "b\0\x1b\U0001f600")


async def test_what_asks_for_nothing_special_is_no_obstacle_for_the_rlm():
    usual = {"tool_choice": "auto", "response_format": {"type": "text"}, "logprobs": False, "tools": []}
    async with asking() as client:
        completion = await client.chat.completions.create(model="stub", messages=user(LONG), extra_body=usual)
    assert completion.model_extra["rlm"]["turns"] == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "a JSON object"),
        ({"messages": []}, "at least one message"),
        ({"messages": [{"content": "x"}]}, "with a role"),
        ({"messages": user("x"), "temprature": 1}, "unknown field 'temprature'"),
        ({"messages": user("x"), "n": 2}, "n must be 1"),
        ({"messages": user("x"), "logprobs": True}, "logprobs are not returned"),
        ({"messages": user("x"), "stream": "no"}, "stream must be true or false"),
        ({"messages": user("x"), "stop": 5}, "stop must be"),
        ({"messages": user("x"), "stop": [5]}, "sampling parameter"),
        ({"messages": user("x"), "tools": "all"}, "tools must be a list"),
        ({"messages": user("x"), "tools": ["all"]}, "tools must be a list"),
        ({"messages": [{"role": "user", "content": 5}]}, "must be text or a list"),
        ({"messages": user("x"), "temperature": -1}, "sampling parameter"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "type 'image_url' is no text"),
    ],
)
def test_a_request_that_cannot_be_answered_says_why(body, message):
    with pytest.raises(BadRequest, match=message):
        read_request(body)


def test_how_a_long_request_becomes_a_question():
    system = {"role": "system", "content": "Answer in French."}
    parts = {"role": "user", "content": [{"type": "text", "text": LONG}, {"type": "text", "text": "more"}]}
    task = as_task(read_request({"messages": [system, parts, *user("How often?")]}))
    assert (task.question, task.context) == ("Answer in French.\n\nHow often?", f"{LONG}\nmore")
    alone = as_task(read_request({"messages": user(f"Count the spam.\n{LONG}")}))
    assert "Count the spam." in alone.question
    assert alone.context == f"Count the spam.\n{LONG}"
    chat = as_task(read_request({"messages": [*user("Hi"), {"role": "assistant", "content": LONG}, *user("So?")]}))
    assert chat.question == "So?"
    assert [message["role"] for message in chat.context] == ["user", "assistant"]
