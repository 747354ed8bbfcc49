"""On-policy distillation: the advantages by their formula, and a teacher that is asked, fails, and is asked again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from dataclasses import replace

import pytest
from aiohttp import web

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from pydantic import ValidationError  # noqa: E402

from rlm_env.runs.errors import ConfigError, RunStopped  # noqa: E402
from rlm_env.train.learner.config import LossConfig, ModelConfig, OptimizerConfig  # noqa: E402
from rlm_env.train.learner.learner import Learner  # noqa: E402
from rlm_env.train.learner.loss import distilled_advantages, loss_denominator, policy_loss  # noqa: E402
from rlm_env.train.learner.sample_files import read_samples, write_samples  # noqa: E402
from rlm_env.train.learner.samples import Sample, SampleKind  # noqa: E402
from rlm_env.train.rl.config import TrainConfig, check_train_resume  # noqa: E402
from rlm_env.train.rl.groups import Batch, RolloutGroup  # noqa: E402
from rlm_env.train.rl.teacher import LOWEST, check_teacher, open_teacher  # noqa: E402
from rlm_env.train.rl.teacher_config import TeacherConfig  # noqa: E402
from rlm_env.train.run_files import TEACHER  # noqa: E402
from tests.tiny_model import make_model, make_tokenizer  # noqa: E402
from tests.train import scheduling  # noqa: E402

WINDOW = 64


def samples(model_vocab=400, count=6):
    generator = torch.Generator().manual_seed(1)
    found = []
    for index in range(count):
        size = WINDOW if index == 0 else 5 + 3 * index  # the first one fills the window
        ids = torch.randint(0, model_vocab, (size,), generator=generator).tolist()
        mask = [place > 1 and (place % 2 == 0 or place == size - 1) for place in range(size)]
        logprobs = [-5.0 * trained for trained in mask]
        kind = SampleKind.SUB if index % 2 else SampleKind.ROOT
        found.append(Sample(ids, mask, logprobs, f"r{index}", kind=kind, advantage=0.5 - index % 2))
    return [*found, replace(found[1], rollout_id="same", advantage=-0.25)]


class StandIn:
    """A vLLM with the routes that a teacher is asked on, transformers behind them. It refuses what vLLM refuses."""

    def __init__(self, model, window=WINDOW):
        self.weights = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        self.window, self.tokens, self.failures, self.runner = window, 0, 0, None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self):
        app = web.Application()
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/completions", self.completions)
        app.router.add_post("/detokenize", self.detokenize)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port, reuse_address=True).start()
        return self

    async def __aexit__(self, *_):
        await self.runner.cleanup()

    async def models(self, request):
        return web.json_response({"data": [{"id": "big", "max_model_len": self.window}]})

    async def detokenize(self, request):
        body = await request.json()
        return web.json_response({"prompt": self.tokenizer.decode(body["tokens"])})

    async def completions(self, request):
        body = await request.json()
        assert (body["model"], body["temperature"], body["max_tokens"]) == ("big", 1.0, 1)
        if self.failures:
            self.failures -= 1
            return web.json_response({"error": {"message": "busy", "code": 503}}, status=503)
        choices = []
        for index, ids in enumerate(body["prompt"]):
            if len(ids) >= self.window:
                return web.json_response({"error": {"message": "longer than the maximum model length"}}, status=400)
            self.tokens += len(ids)
            with torch.no_grad():
                found = self.weights(torch.tensor([ids])).logits[0].log_softmax(-1)
            entries = [{str(t): {"logprob": float(row[t])}} for row, t in zip(found, ids[1:], strict=False)]
            choice = {"index": index, "prompt_logprobs": [None, *entries], "logprobs": None}
            if last := body.get("logprob_token_ids"):
                choice["logprobs"] = {"top_logprobs": [{f"token_id:{last[0]}": float(found[-1][last[0]])}]}
            choices.append(choice)
        return web.json_response({"choices": choices[::-1]})


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Student and teacher: one tokenizer, other weights."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = make_tokenizer()
    return [
        make_model(folder / name, hidden=32, layers=2, seed=seed, window=WINDOW, tokenizer=tokenizer)
        for seed, name in enumerate(("student", "teacher"))
    ]


def learner(folder, loss=None):
    model = ModelConfig(dtype="float32", device="cpu", pack_tokens=WINDOW, threads=1)
    return Learner(folder, model, OptimizerConfig(lr=1e-2), loss or LossConfig(preset="dapo"), 10)


@contextlib.asynccontextmanager
async def teaching(models, folder, trained=0, served=None, **settings):
    async with served or StandIn(models[1]) as stand_in:
        config = TeacherConfig(**{"model": "big", "base_url": stand_in.url, "patience": 30, **settings})
        async with open_teacher(config, models[0], folder, trained, WINDOW) as teacher:
            yield teacher, stand_in


def test_the_advantages_and_the_gradient_by_the_formula():
    generator = torch.Generator().manual_seed(0)
    p, q, t = (-3 * torch.rand(9, generator=generator, dtype=torch.float64) for _ in range(3))
    rewards, weights = (
        torch.randn(9, generator=generator, dtype=torch.float64),
        torch.full((9,), 0.7, dtype=torch.float64),
    )
    p.requires_grad_()
    found = distilled_advantages(p, rewards, t, weights)
    assert not found.requires_grad
    assert torch.allclose(found, rewards + 0.7 * (t - p.detach()), atol=1e-15, rtol=0)
    loss, _ = policy_loss(
        p, q, found, torch.ones(9, dtype=torch.bool), LossConfig(preset="dapo", clip_high=1e3, clip_low=1)
    )
    (gradient,) = torch.autograd.grad(loss, p)
    ratio = (p - q).exp().detach()
    assert torch.allclose(gradient, -ratio * (rewards + 0.7 * (t - p.detach())), atol=1e-12, rtol=0)


def test_alone_it_descends_the_reverse_kl():
    """Summed over the vocabulary with the probabilities of the policy, the gradient is exactly that of KL(policy,
    teacher)."""
    generator = torch.Generator().manual_seed(0)
    logits, theirs = (torch.randn(11, dtype=torch.float64, generator=generator) for _ in range(2))
    logits.requires_grad_()
    policy, teacher = logits.log_softmax(-1), theirs.log_softmax(-1)
    (exact,) = torch.autograd.grad((policy.exp() * (policy - teacher)).sum(), logits, retain_graph=True)
    none, one = torch.zeros(11, dtype=torch.float64), torch.ones(11, dtype=torch.float64)
    advantages = distilled_advantages(policy, none, teacher, one)
    every, probabilities = torch.ones(11, dtype=torch.bool), policy.detach().exp()
    tensors = (policy, policy.detach(), advantages, every, LossConfig(preset="dapo"), None, probabilities)
    (found,) = torch.autograd.grad(policy_loss(*tensors)[0], logits)
    assert torch.allclose(found, exact, atol=1e-12, rtol=0)


async def test_every_trained_token_gets_the_teachers_logprob(models, tmp_path):
    """Also the last one of a sample that fills the window; equal samples are asked once."""
    found = samples()
    async with teaching(models, tmp_path, weight=0.5) as (teacher, stand_in):
        metrics = await teacher.read(1, found)
    expected = learner(models[1]).score([replace(sample, temperature=1.0) for sample in found])
    for sample, values in zip(found, expected, strict=True):
        own = [v for v, trained in zip(sample.teacher_logprobs, sample.mask, strict=True) if trained]
        assert own == pytest.approx(values, abs=2e-5)
        assert all(v == 0 for v, trained in zip(sample.teacher_logprobs, sample.mask, strict=True) if not trained)
        assert sample.teacher_weight == 0.5
        sample.check()
    assert metrics["teacher/samples"] == len(found) - 1
    assert metrics["teacher/tokens"] == sum(map(len, found[:-1])) == stand_in.tokens + 1


async def test_a_teacher_that_fails_for_a_while_is_asked_again_and_nothing_twice(models, tmp_path):
    first, again = samples(), samples()
    async with teaching(models, tmp_path) as (teacher, stand_in):
        stand_in.failures = 2
        await teacher.read(3, first)
        asked = stand_in.tokens
        await teacher.read(4, again)  # a later step asks for itself
        assert stand_in.tokens == 2 * asked
    async with teaching(models, tmp_path, trained=3) as (teacher, stand_in):
        metrics = await teacher.read(4, again)
    assert (stand_in.tokens, metrics["teacher/tokens"]) == (0, 0.0)
    assert [s.teacher_logprobs for s in again] == [s.teacher_logprobs for s in first]


async def test_a_teacher_that_is_gone_stops_the_run_and_what_it_said_stays(models, tmp_path):
    found = samples()
    async with teaching(models, tmp_path, patience=0.2, concurrency=1) as (teacher, stand_in):
        teacher.endpoint._retries, teacher.endpoint._backoff = 0, 0.01
        await teacher.read(1, found[:2])
        await stand_in.runner.cleanup()
        with pytest.raises(RunStopped, match="on disk; when it is back, --resume goes on") as stopped:
            await teacher.read(1, found)
        assert (stopped.value.status, stopped.value.exit_code) == ("teacher unavailable", 3)
    assert len((tmp_path / TEACHER).read_text().splitlines()) == 2
    async with teaching(models, tmp_path) as (teacher, _):
        assert (await teacher.read(1, found))["teacher/samples"] == len(found) - 3


async def test_what_cannot_teach_this_policy_is_refused_before_anything_is_sampled(models, tmp_path, monkeypatch):
    other = make_model(tmp_path / "other", hidden=32, layers=1, window=WINDOW, tokenizer=make_tokenizer(vocab_size=300))
    cases = [
        (StandIn(other), {}, "the teacher has another tokenizer than .*: take a teacher of the same family"),
        (StandIn(models[1], window=32), {}, "its window of 32 tokens is below the policy's of 64"),
        (StandIn(models[1]), {"model": "small"}, "serves no 'small'; it serves big"),
    ]
    for served, settings, message in cases:
        with pytest.raises(ConfigError, match=message):
            async with teaching(models, tmp_path, served=served, **settings):
                raise AssertionError
    config = TeacherConfig(model="big", base_url="http://127.0.0.1:1/v1")
    monkeypatch.setattr("rlm_env.llm.http.random.uniform", lambda *_: 0.0)
    with pytest.raises(RunStopped, match="no engine at"):
        async with open_teacher(config, models[0], tmp_path, 0, WINDOW):
            raise AssertionError
    with pytest.raises(ConfigError, match=r"teacher\.model: .*entries of their vocabularies differ"):
        check_teacher(TeacherConfig(model=str(other)), models[0])
    check_teacher(TeacherConfig(model=str(models[1])), models[0])
    with pytest.raises(ConfigError, match="TEACHER_KEY_THAT_IS_NOT_SET is not set"):
        check_teacher(
            TeacherConfig(model="m", base_url="http://x/v1", key_env="TEACHER_KEY_THAT_IS_NOT_SET"), models[0]
        )


async def test_an_endpoint_that_is_no_vllm_is_named(models, tmp_path):
    stand_in = StandIn(models[1])

    async def text_only(request):
        return web.json_response({"choices": [{"index": 0, "text": "hello"}] * len((await request.json())["prompt"])})

    stand_in.completions = text_only
    async with teaching(models, tmp_path, served=stand_in) as (teacher, _):
        with pytest.raises(RunStopped, match="the teacher must be a vLLM"):
            await teacher.read(1, samples())
    stand_in = StandIn(models[1])

    async def missing(request):
        return web.json_response({"detail": "Not Found"}, status=404)

    stand_in.detokenize = missing
    message = r"the teacher does not say which text token ids mean: .*whose route /detokenize is asked"
    with pytest.raises(ConfigError, match=message):
        async with teaching(models, tmp_path, served=stand_in):
            raise AssertionError


@pytest.mark.parametrize("said", [float("nan"), float("inf"), 5.0, True, "-1.0", None])
async def test_what_is_no_log_probability_is_never_taken_for_one(models, tmp_path, said):
    stand_in = StandIn(models[1])

    async def lies(request):
        ids = (await request.json())["prompt"]
        entries = [[None, *({str(token): {"logprob": said}} for token in each[1:])] for each in ids]
        return web.json_response({"choices": [{"index": i, "prompt_logprobs": e} for i, e in enumerate(entries)]})

    stand_in.completions = lies
    async with teaching(models, tmp_path, served=stand_in) as (teacher, _):
        with pytest.raises(RunStopped, match="no log-probability for each of the token ids"):
            await teacher.read(1, samples())


async def test_two_choices_for_one_prompt_are_refused(models, tmp_path):
    stand_in = StandIn(models[1])
    whole = stand_in.completions

    async def doubled(request):
        found = json.loads((await whole(request)).body)
        return web.json_response({"choices": [{**choice, "index": 0} for choice in found["choices"]]})

    stand_in.completions = doubled
    async with teaching(models, tmp_path, served=stand_in) as (teacher, _):
        with pytest.raises(RunStopped, match="no log-probability for each of the token ids"):
            await teacher.read(1, samples())


async def test_a_token_that_the_teacher_rules_out_is_bounded(models, tmp_path):
    async with teaching(models, tmp_path) as (teacher, stand_in):
        stand_in.weights.lm_head.weight.data *= 1e5
        await teacher.read(1, found := samples())
    assert min(min(sample.teacher_logprobs) for sample in found) == LOWEST


def test_the_learner_trains_the_teachers_advantage_of_each_token(models):
    """One step against the plain formula; then the reverse KL falls, for root and sub tokens alike."""
    found = samples()
    teacher = learner(models[1])
    student = learner(models[0])
    for sample, values, own in zip(found, teacher.score(found), student.score(found), strict=True):
        for name, numbers in (("teacher_logprobs", iter(values)), ("behavior_logprobs", iter(own))):
            setattr(sample, name, [next(numbers) if trained else 0.0 for trained in sample.mask])
        sample.teacher_weight, sample.advantage = 1.0, 0.0
    behavior = torch.tensor(
        [v for s in found for v, trained in zip(s.behavior_logprobs, s.mask, strict=True) if trained]
    )
    theirs = torch.tensor([v for s in found for v, trained in zip(s.teacher_logprobs, s.mask, strict=True) if trained])
    metrics = student.step(found)
    assert metrics["loss"] == pytest.approx(-(theirs - behavior).sum().item() / loss_denominator(found), rel=1e-4)
    assert metrics["teacher_kl"] == pytest.approx((behavior - theirs).mean().item(), rel=1e-4)
    assert metrics["samples"] == len(found)
    assert {"root/teacher_kl", "sub/teacher_kl"} <= metrics.keys()
    assert "teacher_kl" not in student.step([replace(s, teacher_logprobs=None, teacher_weight=0.0) for s in found])


def test_samples_with_a_teacher_survive_a_file_and_broken_ones_are_refused(tmp_path):
    sample = samples()[0]
    sample.teacher_logprobs, sample.teacher_weight = [-1.5 * trained for trained in sample.mask], 0.5
    assert read_samples(write_samples(tmp_path, 1, [sample])) == [sample]
    for changes, message in (
        ({"teacher_logprobs": [0.0]}, "differ in length"),
        ({"teacher_logprobs": [float("nan")] * len(sample)}, "teacher_logprobs must be finite"),
        ({"teacher_logprobs": [1.0] * len(sample)}, "teacher_logprobs must not be above 0"),
        ({"teacher_logprobs": None}, "teacher_weight needs teacher_logprobs"),
        ({"teacher_weight": -1.0}, "teacher_weight must be a number of at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(sample, **changes).check()


def config(**teacher):
    values = scheduling.config().as_toml()
    return TrainConfig.model_validate({**values, "teacher": {"model": "big", "base_url": "http://x/v1", **teacher}})


def test_no_group_is_without_advantages_and_the_reward_has_a_weight():
    for weight, expected in ((0.0, [0.0, 0.0]), (0.5, [-0.25, 0.25])):
        group = RolloutGroup(0, "scripted", config(reward_weight=weight))
        for member in range(2):
            rollout = asyncio.run(
                scheduling.Scaffold().rollout(scheduling.Task("q"), None, id=f"0/{member}", context=None)
            )
            rollout.score = scheduling.Score(float(member))
            group.rollouts.append(rollout)
        assert [sample.advantage for sample in Batch(1, [group]).samples()] == expected
        group.rollouts[1].score = scheduling.Score(0.0)
        assert not group.is_zero_advantage


def test_the_place_of_the_teacher_may_change_on_resume_and_its_weight_may_not(tmp_path):
    recorded = config().as_toml()
    check_train_resume(recorded, config(base_url="http://elsewhere/v1", concurrency=3, patience=5))
    for change in ({"weight": 2.0}, {"reward_weight": 1.0}, {"model": "bigger"}):
        with pytest.raises(ConfigError, match="teacher was"):
            check_train_resume(recorded, config(**change))
    with pytest.raises(ConfigError, match="teacher"):
        check_train_resume(scheduling.config().as_toml(), config())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "m", "base_url": "localhost:8000"}, "must begin with http:// or https://"),
        ({"model": "m", "key_env": "KEY"}, "key_env is for an endpoint"),
        ({"model": "m", "base_url": "http://x/v1", "server": {"dtype": "float32"}}, "have no effect on the endpoint"),
        ({"model": "m", "weight": 0}, "greater than 0"),
        ({"model": "m", "tau": 1}, "tau"),
        ({}, "model"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        TeacherConfig(**settings)


@pytest.mark.vllm
@pytest.mark.timeout(600)
@pytest.mark.asyncio(loop_scope="session")
async def test_a_real_vllm_answers_what_its_weights_say(train_engine, tiny_model_path, tmp_path):
    """Its own routes: /v1/models, /detokenize over the whole vocabulary, prompt_logprobs, and the last token of a
    sample that fills the window."""
    window = train_engine.policy.context_window
    generator = torch.Generator().manual_seed(1)
    found = []
    for size in (window, 7, 30, 200):
        ids = torch.randint(0, 400, (size,), generator=generator).tolist()
        found.append(Sample(ids, [False] + [True] * (size - 1), [0.0] * size, str(size)))
    name = train_engine.policy.name
    settings = TeacherConfig(model=name, base_url=train_engine.base_url)
    async with open_teacher(settings, tiny_model_path, tmp_path, 0, window) as teacher:
        await teacher.read(1, found)
    other = make_model(tmp_path / "other", hidden=32, layers=1)
    with pytest.raises(ConfigError, match=r"the teacher has another tokenizer than other: ids 0 to \d+ mean another"):
        async with open_teacher(settings, other, tmp_path, 0, window):
            raise AssertionError
    served = Learner(
        train_engine.served,
        ModelConfig(dtype="float32", device="cpu", pack_tokens=window),
        OptimizerConfig(),
        LossConfig(),
        1,
    )
    for sample, values in zip(found, served.score(found), strict=True):
        own = sample.teacher_logprobs[1:]
        assert sum(abs(a - max(b, LOWEST)) for a, b in zip(own, values, strict=True)) / len(own) < 1e-4
    assert len(json.loads((tmp_path / TEACHER).read_text().splitlines()[0])["logprobs"]) > 0
