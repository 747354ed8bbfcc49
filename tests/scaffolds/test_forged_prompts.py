"""What a cell sends as a prompt, forged or by the rules, can always be stored and read back; floods are on record."""

import asyncio
import json

import pytest

import rlm_env
from rlm_env.rollout import Rollout, StopReason
from rlm_env.scaffolds.config import RLMConfig
from rlm_env.scaffolds.rlm import RLMEnv
from rlm_env.task import Task
from tests.repl.levels import does_not_start
from tests.stubs import StubLLM, echo, fenced, script
from tests.waiting import until

SEND = """
import os, struct, time
def send(item, number=10**6):
    body = b'\\xa5batch\\xce' + struct.pack('>I', number) + b'\\x01\\x00\\xc6' + struct.pack('>I', len(item)) + item
    data = struct.pack('<I', len(body)) + body
    while data: data = data[os.write(4, data):]
"""
MESSAGE = b'{"messages":[{"role":"user","content":"x","z":%s}]}'
FORGED = {
    # name: (the item, whether it goes to the sub-LLM)
    "an infinite number": (MESSAGE % b"1e999", False),
    "a negative one": (b'{"prompt":"x","n":-1e999}', False),
    "nested 900 deep": (MESSAGE % (b"[" * 900 + b"]" * 900), False),
    "nested 400 deep": (MESSAGE % (b'{"a":' * 400 + b"1" + b"}" * 400), False),
    "4,000 digits": (MESSAGE % (b"9" * 4000), False),
    "a message that is none": (b'{"messages":["x"]}', False),
    "lone surrogates": (b'{"prompt":"\\ud800"}', True),
    "surrogates in a message": (b'{"messages":[{"role":"user","content":"\\udfff"}]}', True),
    "unknown keys of a message": (MESSAGE % b'{"a":[1,null,"\\ud800"]}', True),
    "plain": (b'{"prompt":"x"}', True),
}
BY_THE_RULES = {
    "keys that are not known": "[{'messages': [{'role': 'user', 'content': 'x', 'z': [1, {'a': None}], '\\ud8': 1}]}]",
    "an endless number past the child's check": (
        "[{'messages': [{'role': 'user', 'content': 'x', 'z': float('inf')}]}]"
    ),
    "surrogates": "['\\ud800', {'prompt': '\\udc00'}]",
    "NUL and control characters": "['\\x00\\x1b\\x7f', {'prompt': '\\x00'}]",
}


class Simple(rlm_env.Environment):
    def tasks(self, split):
        yield Task(question="q", context="c", gold="x")

    def score(self, task, rollout):
        return float(rollout.answer == task.gold)


@pytest.fixture(scope="module")
def config() -> RLMConfig:
    return RLMConfig(repl=rlm_env.ReplConfig(preload=()), max_turns=2)


def stored_and_read(rollout: Rollout) -> Rollout:
    line = rollout.to_json()
    json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} in the record"))
    return Rollout.from_json(line)


@pytest.mark.slow
@pytest.mark.identity
@pytest.mark.parametrize("level", ["guard", "sealed", "jail", "bare"])
async def test_every_forged_prompt_leaves_a_rollout_that_can_be_stored(level: str):
    repl = rlm_env.ReplConfig(preload=(), level=level, require=level, allow_unsafe=True)
    async with RLMEnv(Simple(), RLMConfig(repl=repl, max_turns=2)) as env:
        try:
            await env._pool()
        except rlm_env.SandboxError as error:
            does_not_start(level, error.reasons[level])
        await asyncio.gather(*(is_stored(env, *forged) for forged in FORGED.items()))


async def is_stored(env: RLMEnv, name: str, forged: tuple[bytes, bool]) -> None:
    item, asked = forged
    code = f"{SEND}send({item!r})\ntime.sleep(0.3)\nanswer['content'] = 'x'; answer['ready'] = True"
    rollout = stored_and_read(await env.rollout(next(iter(env.tasks("eval"))), script(fenced(code)), echo()))
    assert len(rollout.sub_calls) == asked, name
    if asked:
        assert rollout.stop_reason is StopReason.READY
        assert set(rollout.sub_calls[0].messages[0]) == {"role", "content"}
        assert "repl_ends" not in rollout.info
    else:
        assert "protocol" in rollout.info["repl_ends"][0], name
        assert rollout.metrics["states_lost"] >= 1


async def test_what_passes_a_childs_own_checks_can_be_stored_as_well(config: RLMConfig):
    """The child's checks are within the model's reach: here its test for finite numbers is replaced."""
    patch = "f = llm_batch.__func__.__globals__['items_of'].__globals__; f['_isfinite'] = lambda v: True\n"
    patch += "import json; f['_dumps'] = lambda v, **k: json.dumps(v, ensure_ascii=False)\n"
    async with RLMEnv(Simple(), config) as env:
        task = next(iter(env.tasks("eval")))
        for name, prompts in BY_THE_RULES.items():
            for before in ("", patch):
                code = f"{before}try: llm_batch({prompts})\nexcept Exception as e: print(e)\nanswer['ready'] = True"
                rollout = await env.rollout(task, script(fenced(code)), echo())
                assert stored_and_read(rollout).id == rollout.id, name
                forged = bool(before) and "endless" in name
                assert forged == ("protocol" in str(rollout.info.get("repl_ends"))), name
                for call in rollout.sub_calls:
                    assert all(set(message) <= {"role", "content", "name"} for message in call.messages)


async def test_a_flood_while_the_root_thinks_is_on_record(config: RLMConfig):
    flood = f"""{SEND}
import threading
def flood():
    time.sleep(0.2); n = 1
    while True: send(b'{{"prompt":"x"}}', n); n += 1
threading.Thread(target=flood, daemon=True).start()
"""

    class Thinking(StubLLM):
        async def complete(self, messages, tools=None, sampling=None):
            if len(self.seen):
                await until(lambda: any(repl.ends for repl in repls))
            return await super().complete(messages, tools, sampling)

    replies = [fenced(flood), fenced("answer['content'] = 'x'; answer['ready'] = True")]
    root = Thinking(lambda messages: replies[min(sum(m["role"] == "assistant" for m in messages), 1)])
    async with RLMEnv(Simple(), config) as env:
        repls = (await env._pool())._zygote.repls
        task = next(iter(env.tasks("eval")))
        rollout = stored_and_read(await env.rollout(task, root, echo()))
    assert "flood" in rollout.info["repl_ends"][0]
    assert rollout.metrics["states_lost"] == 1
