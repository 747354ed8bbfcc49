"""Each file of examples/ runs as it stands, against an endpoint in a thread."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web

EXAMPLES = Path(__file__).parents[2] / "examples"

COUNT_AND_ASK = """```repl
services = [line.split(": ")[1].split()[0] for line in context.splitlines()]
most = max(set(services), key=services.count)
print(most)
answer["content"] = llm_batch([f"Who owns {most}?"])[0]
answer["ready"] = True
```"""
FIND = """```repl
import re
text = context if isinstance(context, str) else str(context)
found = re.search(r"code word is (\\w+)", text) or re.search(r"(\\d{4,})", text)
answer["content"] = found.group(1) if found else str(len(context))
answer["ready"] = True
```"""


@pytest.fixture
def run(endpoint, tmp_path):
    """Runs an example in an empty folder with the endpoint; returns what it printed."""

    def call(name: str, *arguments: str) -> str:
        command = [sys.executable, str(EXAMPLES / name), *arguments, "--model", "stub", "--base-url", endpoint.url]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr
        return done.stdout

    return call


def reply(text: str, calls: list | None = None) -> web.Response:
    message = {"role": "assistant", "content": text} | ({"tool_calls": calls} if calls else {})
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return web.json_response({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage})


def in_repl(body: dict) -> bool:
    """The prompt of a root LLM with a REPL."""
    return "llm_batch" in str(body["messages"][0]["content"])


@pytest.mark.slow
def test_an_own_environment_with_a_tool_for_sub_llms(run, endpoint):
    def answer(body):
        last = body["messages"][-1]
        if in_repl(body):
            return reply(COUNT_AND_ASK)
        if last["role"] == "tool":
            return reply(last["content"])
        if service := re.search(r"Who owns (\w+)", str(last["content"])):
            arguments = json.dumps({"service": service[1]})
            return reply(
                "", [{"id": "1", "type": "function", "function": {"name": "owner_of", "arguments": arguments}}]
            )
        return reply("Team Nobody")

    endpoint.answer = answer
    out = run("own_environment.py", "--tasks", "2")
    assert re.search(r"\| score \[95 % interval\] \| 0\.000 .* \| 1\.000 ", out)
    assert re.search(r"\| metric service_was_seen \| 0\.000 \| 1\.000 \|", out)


@pytest.mark.slow
def test_a_model_behind_an_endpoint(run, endpoint):
    endpoint.answer = lambda body: reply(FIND) if in_repl(body) else reply("no idea")
    out = run("evaluate_endpoint.py", "--tasks", "2")
    assert "score [95 % interval]" in out
    assert "'no idea' instead of" in out


@pytest.mark.slow
def test_a_question_about_a_folder(run, endpoint, tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("the code word is heron")
    (folder / ".env").write_text("the code word is SECRET")
    endpoint.answer = lambda body: reply(FIND)
    out = run("ask_about_a_folder.py", "What is the code word?", str(folder))
    assert out.splitlines()[-2:] == ["answer so far: heron", "heron"]


@pytest.mark.slow
def test_the_notebook(endpoint, tmp_path):
    endpoint.answer = lambda body: reply(FIND) if in_repl(body) else reply("no idea")
    cells = json.loads((EXAMPLES / "notebook.ipynb").read_text())["cells"]
    code = "\n".join(f"{cell['source']}\n" for cell in cells if cell["cell_type"] == "code")
    checks = 'assert rollout.answer == "heron", rollout\nassert result.score("rlm") == 1.0\n'
    inside_a_loop = f"import asyncio\nasync def main():\n    exec({code + checks!r}, {{}})\nasyncio.run(main())\n"
    environment = {**os.environ, "RLM_MODEL": "stub", "RLM_BASE_URL": endpoint.url}
    command = [sys.executable, "-c", inside_a_loop]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_training_in_one_file_computes_the_trainers_loss(tmp_path):
    """The same samples, once through the example's loss and once through the learner that `rlm-env train` uses."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    sys.path.insert(0, str(EXAMPLES))
    try:
        import train_in_one_file as example
    finally:
        sys.path.remove(str(EXAMPLES))
    from rlm_env.train.learner.config import LossConfig, ModelConfig, OptimizerConfig
    from rlm_env.train.learner.learner import Learner
    from rlm_env.train.learner.samples import Sample

    draw = torch.Generator().manual_seed(0)
    samples = []
    for length in (5, 9, 30, 31):
        ids = torch.randint(0, 200, (length,), generator=draw).tolist()
        mask = [False, False, *[True] * (length - 2)]
        logprobs = [-3.0 if trained else 0.0 for trained in mask]
        samples.append(Sample(ids, mask, logprobs, "r", advantage=0.5 if length % 2 else -0.5))
    model = transformers.AutoModelForCausalLM.from_pretrained(example.MODEL, dtype=torch.float32)
    mine = example.update(model, torch.optim.SGD(model.parameters(), lr=0.0), samples)
    learner = Learner(example.MODEL, ModelConfig(dtype="float32"), OptimizerConfig(), LossConfig(), total_steps=1)
    theirs = learner.step(samples)
    assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.timeout(700)
def test_training_in_one_file_raises_the_reward():
    command = [sys.executable, str(EXAMPLES / "train_in_one_file.py"), "--steps", "12", "--tasks", "6", "--seed", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=680, check=False)
    assert done.returncode == 0, done.stderr
    rewards = [float(value) for value in re.findall(r"reward (\S+)", done.stdout)]
    ratios = [float(value) for value in re.findall(r"log_ratio (\S+)", done.stdout)]
    assert ratios[0] < 1e-4, "at the first step the trainer and the engine have the same weights"
    assert sum(rewards[-4:]) / 4 > sum(rewards[:2]) / 2
