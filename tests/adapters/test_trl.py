"""TRL's real trainers make updates on our rollouts, and our vLLM gets their weights.

Two parts of its asynchronous trainer do not run on a CPU and are replaced, in these tests alone: the attention kernel,
by torch's own on each sequence, and the peak rate of the device.
"""

import time

import pytest

torch = pytest.importorskip("torch")

import rlm_env  # noqa: E402
from rlm_env.llm.base import Sampling  # noqa: E402
from rlm_env.rollout import Rollout, Score, SubCall, Turn  # noqa: E402
from tests.packages import needs  # noqa: E402

needs("trl", "needs trl: pip install trl==1.16.0")
pytestmark = pytest.mark.slow  # to import TRL's trainer takes seconds: it imports vLLM


@pytest.fixture(scope="module")
def adapter():
    from rlm_env.adapters import trl

    return trl


class _TorchAttention:
    @staticmethod
    def flash_attn_varlen_func(q, k, v, cu_q, cu_k, *_, softmax_scale=None, **__):
        """Causal attention within each sequence, aligned at the end; shapes [tokens, heads, width]."""
        outs, repeat = [], q.shape[1] // k.shape[1]
        ends = zip(cu_q.tolist(), cu_q.tolist()[1:], cu_k.tolist(), cu_k.tolist()[1:], strict=False)
        for a, b, c, d in ends:
            keys, values = (x[c:d].repeat_interleave(repeat, 1).transpose(0, 1) for x in (k, v))
            mask = torch.ones(b - a, d - c, dtype=torch.bool).tril(d - c - (b - a))
            queries = q[a:b].transpose(0, 1)
            out = torch.nn.functional.scaled_dot_product_attention(
                queries, keys, values, attn_mask=mask, scale=softmax_scale
            )
            outs.append(out.transpose(0, 1))
        return torch.cat(outs)


@pytest.fixture
def trl_on_cpu(monkeypatch):
    import trl.experimental.async_grpo.async_grpo_trainer as trainer
    import trl.experimental.async_grpo.packing as packing

    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    monkeypatch.setattr(packing, "_flash_attn", lambda: _TorchAttention)
    monkeypatch.setattr(trainer, "get_peak_flops_per_device", lambda *_, **__: None)


def make_env(model):
    return lambda: rlm_env.load_environment(
        "oolong-rlm",
        vocabulary="easy",
        lengths=[256],
        prompt="tiny",
        action="fence",
        max_turns=3,
        max_observation_chars=400,
        root=Sampling(max_tokens=256),
        sub=Sampling(max_tokens=8),
        tokenizer=str(model),
    )


@pytest.fixture(scope="module")
def live(adapter, tiny_model_path):
    """A backend with its vLLM, for both of TRL's trainers."""
    options = {"group_size": 4, "groups": 4, "dtype": "float32"}
    with adapter.RLMBackend(tiny_model_path, make_env(tiny_model_path), **options) as backend:
        yield backend


TWO_STEPS = {
    "max_steps": 2,
    "per_device_train_batch_size": 16,
    "learning_rate": 3e-4,
    "temperature": 1.0,
    "report_to": [],
    "use_cpu": True,
    "bf16": False,
    "logging_steps": 1,
    "save_strategy": "no",
    "disable_tqdm": True,
}


def train(trainer):
    """Trains, and shows that the weights have moved."""
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    moved = max((weight - before[name]).abs().max().item() for name, weight in trainer.model.named_parameters())
    assert moved > 1e-5


def differences(backend, model, folder):
    """Of the log-probabilities of a fixed prompt: those of the backend's engine minus those of a model's weights."""
    from transformers import AutoModelForCausalLM

    prompt = list(range(5, 25))
    body = {"model": backend._engine.policy.name, "prompt": [prompt], "max_tokens": 1, "prompt_logprobs": 0}
    reply = backend._run(backend._engine.completions(body))
    told = [next(iter(entry.values()))["logprob"] for entry in reply["choices"][0]["prompt_logprobs"][1:]]
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    plain.load_state_dict(model.state_dict())  # the attention of TRL's asynchronous trainer takes packed samples only
    with torch.no_grad():
        logits = plain(torch.tensor([prompt])).logits[0, :-1]
    expected = logits.log_softmax(-1).gather(-1, torch.tensor(prompt[1:])[:, None])[:, 0]
    return (torch.tensor(told) - expected).abs()


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_trainer_moves_on_our_samples_and_the_engine_follows(adapter, live, tiny_model_path, trl_on_cpu, tmp_path):
    from trl.experimental.async_grpo import AsyncGRPOConfig, AsyncGRPOTrainer

    put, seen = live.rollout_buffer.put_nowait, []
    live.rollout_buffer.put_nowait = lambda sample: (seen.append(sample), put(sample))
    trainer = AsyncGRPOTrainer(
        model=str(tiny_model_path),
        reward_funcs=[adapter.unused_reward],
        args=AsyncGRPOConfig(output_dir=str(tmp_path), vllm_server_base_url=live.url, **TWO_STEPS),
        train_dataset=adapter.placeholder_dataset(),
        rollout_worker=live,
        weight_transfer=live,
    )
    train(trainer)
    assert {sample.metrics["sub_sample"] for sample in seen} == {0.0, 1.0}
    assert {sample.advantage for sample in seen} - {0.0}
    assert differences(live, trainer.model, tiny_model_path).max() < 2e-4, "the engine has the trainer's last weights"
    logged = {key for entry in trainer.state.log_history for key in entry}
    assert any("rollout/groups_total" in key for key in logged)


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_synchronous_trainer_moves_on_our_rows_and_the_engine_follows(live, tiny_model_path, monkeypatch, tmp_path):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    env = make_env(tiny_model_path)()
    tasks = {task.id: task for task in env.tasks("train").take(16)}
    served, rows = [], []

    def rollouts(prompts, trainer):
        live.update_weights(trainer.model)
        served.append((trainer.state.global_step, differences(live, trainer.model, tiny_model_path).max().item()))
        columns = live.root_rollouts(env, [tasks[prompt] for prompt in prompts])
        rows.extend(zip(prompts, *columns.values(), strict=True))
        return columns

    trainer = GRPOTrainer(
        model=str(tiny_model_path),
        args=GRPOConfig(output_dir=str(tmp_path), num_generations=4, **TWO_STEPS),
        rollout_func=rollouts,
        reward_funcs=[lambda completions, reward, **_: reward],
        train_dataset=Dataset.from_list([{"prompt": name} for name in tasks]),
    )
    train(trainer)
    assert [step for step, _ in served] == [0, 1]
    assert max(difference for _, difference in served) < 2e-4, "the engine has the weights that each step begins with"
    assert differences(live, trainer.model, tiny_model_path).max() > 2e-4, "the last step's are not sent yet"
    live.update_weights(trainer.model)
    assert differences(live, trainer.model, tiny_model_path).max() < 2e-4
    assert len(rows) == 32
    assert len({row[0] for row in rows}) == 8, "four tasks a step, four rollouts each"
    assert len({row[-1] for row in rows}) > 1, "rewards differ"


SHIPPED = rlm_env.__path__[0] + "/models/tiny-rlm"


@pytest.fixture
def backend(adapter):
    """One whose engine is never started."""
    return adapter.RLMBackend(SHIPPED, lambda: None, group_size=2, dtype="float32")


def scored(reward, temperature=1.0):
    ids = {"prompt_ids": [1, 2], "completion_ids": [3, 4], "logprobs": [-0.5, -0.25]}
    call = SubCall(id=0, root_turn=0, batch=0, messages=[], text="x", **ids)
    rollout = Rollout(id=f"r{reward}", turns=[Turn(text="y", **ids)], sub_calls=[call], score=Score(reward))
    rollout.info["sampling"] = {role: {"temperature": temperature} for role in ("root", "sub")}
    return rollout


def test_every_sample_of_a_group_has_its_rollouts_advantage(backend):
    backend._hand_over([scored(1.0), scored(0.0)], 7)
    samples = [backend.rollout_buffer.get_nowait() for _ in range(4)]
    assert [sample.advantage for sample in samples] == [0.5, 0.5, -0.5, -0.5]
    assert {sample.group_id for sample in samples} == {7}
    assert samples[0].completion_mask.tolist() == [0, 0, 1, 1]
    assert samples[0].old_log_probs.tolist() == [0.0, 0.0, -0.5, -0.25]
    assert backend.metrics_queue.get_nowait()["rollout/groups_total"] == 1.0


def test_a_group_of_equal_rewards_gives_no_samples_and_is_counted(backend):
    backend._hand_over([scored(1.0), scored(1.0)], 0)
    assert backend.rollout_buffer.empty()
    assert backend.metrics_queue.get_nowait()["rollout/groups_without_advantage_total"] == 1.0


def test_another_temperature_than_the_trainers_is_refused(backend):
    with pytest.raises(ValueError, match=r"root=Sampling\(temperature=1\)"):
        backend._hand_over([scored(1.0, 0.7), scored(0.0, 0.7)], 0)


def test_a_row_of_the_synchronous_trainer_is_the_roots_first_sample(backend):
    columns = backend._columns([scored(0.5)])
    assert columns == {
        "prompt_ids": [[1, 2]],
        "completion_ids": [[3, 4]],
        "logprobs": [[-0.5, -0.25]],
        "env_mask": [[1, 1]],
        "reward": [0.5],
    }
    with pytest.raises(ValueError, match=r"root=Sampling\(temperature=1\)"):
        backend._columns([scored(1.0, 0.7)])


def test_a_failed_rollout_has_no_reward_and_may_have_no_tokens(backend):
    failed = scored(0.5)
    failed.score, failed.error = None, "the engine died"
    columns = backend._columns([failed, Rollout(error="no engine at http://127.0.0.1:1")])
    assert columns["reward"] == [None, None]
    assert columns["env_mask"] == [[1, 1], [0]]
    assert {len(values) for values in columns.values()} == {2}


@pytest.mark.timeout(600)
def test_the_synchronous_trainer_moves_on_root_samples_and_leaves_failed_rollouts_out(backend, monkeypatch, tmp_path):
    """Without an engine: the rollouts are made up, the trainer and its two updates are real."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    asked, seen = [], []

    def rollouts(prompts, trainer):
        asked.append((len(prompts), trainer.state.global_step))
        made = [scored(number % 4 / 4) for number in range(len(prompts))]
        made[1].score, made[1].error = None, "the engine died"
        made[2] = Rollout(error="no engine at http://127.0.0.1:1")
        return backend._columns(made)

    def reward(completions, reward, **_):
        seen.extend(reward)
        return reward

    options = TWO_STEPS | {"num_generations": 4, "per_device_train_batch_size": 8}
    trainer = GRPOTrainer(
        model=SHIPPED,
        args=GRPOConfig(output_dir=str(tmp_path), **options),
        rollout_func=rollouts,
        reward_funcs=[reward],
        train_dataset=Dataset.from_list([{"prompt": f"train-{number}"} for number in range(16)]),
    )
    train(trainer)
    assert asked == [(8, 0), (8, 1)]
    assert seen[:8] == [0.0, None, None, 0.75, 0.0, 0.25, 0.5, 0.75]
    logged = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    assert logged[0] == pytest.approx((0.0 + 0.75 + 0.0 + 0.25 + 0.5 + 0.75) / 6), "failed rollouts are in no mean"


def test_new_weights_are_sent_while_requests_wait_and_those_go_on_after_a_refusal(backend, monkeypatch):
    steps = []
    monkeypatch.setattr(backend, "pause", lambda: steps.append("pause"))
    monkeypatch.setattr(backend, "resume", lambda: steps.append("resume"))

    def send(weights):
        steps.append([name for name, _ in weights])
        raise ValueError("refused")

    monkeypatch.setattr(backend, "send_weights", send)
    with pytest.raises(ValueError, match="refused"):
        backend.update_weights(torch.nn.Linear(1, 1))
    assert steps == ["pause", ["weight", "bias"], "resume"]


def test_weights_under_the_names_of_adapters_are_refused_before_anything_waits(backend, monkeypatch):
    monkeypatch.setattr(backend, "pause", lambda: pytest.fail("requests wait"))
    model = torch.nn.ModuleDict({"q_proj": torch.nn.ModuleDict({"lora_A": torch.nn.Linear(1, 1)})})
    with pytest.raises(ValueError, match=r"the model has adapters \(q_proj\.lora_A\.weight\)"):
        backend.update_weights(model)


def test_rollouts_that_ended_or_fell_silent_are_told(backend):
    backend.check_health(10)
    backend._last_sample = time.monotonic() - 20
    with pytest.raises(RuntimeError, match="no sample for 20 s"):
        backend.check_health(10)
    backend.failure = ValueError("the environment has no tasks")
    with pytest.raises(RuntimeError, match="no tasks"):
        backend.check_health(10)
