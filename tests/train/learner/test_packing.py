"""Packs: who shares one, their tensors, and that real models give the same over a pack as sample by sample."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from rlm_env.train.learner import forward, packing  # noqa: E402
from rlm_env.train.learner.attention import BY_SAMPLE, Boundaries, register  # noqa: E402
from rlm_env.train.learner.forward import pack_logprobs, vocabulary_head  # noqa: E402
from rlm_env.train.learner.packing import balanced_packs, collate, pack_samples  # noqa: E402
from rlm_env.train.learner.packing_check import PackingError, can_pack, check_packing, shallow_copy  # noqa: E402
from rlm_env.train.learner.samples import Sample  # noqa: E402
from tests.train.plain_step import PAD  # noqa: E402

TINY = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}


def make_sample(size, *, start=0, weight=1.0, name="r"):
    ids = [(start + index) % 97 for index in range(size)]
    return Sample(ids, [False] + [True] * (size - 1), [0.0] + [-0.5] * (size - 1), name, weight=weight)


@given(st.lists(st.integers(2, 50), max_size=60), st.integers(50, 120))
def test_every_sample_is_in_one_pack_within_the_budget(sizes, budget):
    samples = [make_sample(size, name=str(index)) for index, size in enumerate(sizes)]
    packs = pack_samples(samples, budget)
    assert sorted(sample.rollout_id for pack in packs for sample in pack) == sorted(
        sample.rollout_id for sample in samples
    )
    assert all(0 < sum(map(len, pack)) <= budget for pack in packs)
    # First fit: no pack could have been emptied into the one before it.
    assert all(sum(map(len, a)) + min(map(len, b)) > budget for i, b in enumerate(packs) for a in packs[:i])


def test_first_fit_decreasing_by_hand():
    packs = pack_samples([make_sample(size) for size in (2, 6, 4, 3, 5)], 10)
    assert [[len(sample) for sample in pack] for pack in packs] == [[6, 4], [5, 3, 2]]


def test_equal_lengths_keep_their_order():
    packs = pack_samples([make_sample(4, name=name) for name in "abcd"], 8)
    assert [[sample.rollout_id for sample in pack] for pack in packs] == [["a", "b"], ["c", "d"]]


def test_a_sample_over_the_budget_is_named():
    with pytest.raises(
        ValueError, match=r"rollout 'long' has 1,001 tokens, more than the token budget of a pack \(1,000\)"
    ):
        pack_samples([make_sample(1001, name="long")], 1000)


def test_the_tensors_of_a_pack():
    pack = collate([make_sample(3), make_sample(2, start=10, weight=0.5)])
    assert pack.input_ids.tolist() == [[0, 1, 2, 10, 11]]
    assert pack.position_ids.tolist() == [[0, 1, 2, 0, 1]]
    assert pack.sequence_ids.tolist() == [0, 0, 0, 1, 1]
    assert pack.mask.tolist() == [False, True, True, False, True]
    assert pack.behavior_logprobs.tolist() == [0.0, -0.5, -0.5, 0.0, -0.5]
    assert pack.weights.tolist() == [1.0, 1.0, 1.0, 0.5, 0.5]
    assert pack.spread([2.0, -1.0]).tolist() == [2.0, 2.0, 2.0, -1.0, -1.0]
    assert len(pack.to("cpu")) == len(pack) == 5
    with pytest.raises(ValueError, match="each of the 2 samples, got 1"):
        pack.spread([1.0])


@pytest.mark.parametrize("samples", [[], [Sample([], [], [], "r")], [Sample([1], [True], [-1.0], "r")]])
def test_packs_that_cannot_be_trained_are_refused(samples):
    with pytest.raises(ValueError, match=r"at least one sample|first token"):
        collate(samples)


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [
        ({}, 1e-12),
        ({"tie_word_embeddings": True}, 1e-12),
        ({"attn_implementation": "sdpa"}, 1e-12),
        ({"attn_implementation": "eager"}, 1e-5),  # its softmax is in float32
    ],
)
def test_a_pack_gives_what_its_samples_give_alone(make_qwen3, settings, tolerance):
    model = make_qwen3(torch.float64, **settings)
    samples = [make_sample(size, start=7 * size) for size in (9, 2, 14)]
    packed = pack_logprobs(model, collate(samples), 0.7)
    alone = [pack_logprobs(model, collate([sample]), 0.7) for sample in samples]
    for name in ("logprobs", "entropy"):
        expected = torch.cat([getattr(part, name) for part in alone])
        assert torch.allclose(getattr(packed, name), expected, atol=tolerance, rtol=0)
    assert packed.logprobs[~collate(samples).mask].eq(0).all()


def test_log_probabilities_are_those_of_the_next_token(make_qwen3):
    """Against the model's own logits, token by token, at two temperatures in one pack."""
    model = make_qwen3(torch.float64)
    samples = [make_sample(6), make_sample(5, start=40)]
    pack = collate(samples)
    found = pack_logprobs(model, pack, pack.spread([0.5, 2.0])).logprobs
    expected = []
    for sample, temperature in zip(samples, [0.5, 2.0], strict=True):
        logits = model(torch.tensor([sample.token_ids])).logits[0] / temperature
        chosen = [torch.log_softmax(logits[i - 1], -1)[token] for i, token in enumerate(sample.token_ids)]
        expected += [torch.zeros((), dtype=torch.float64), *chosen[1:]]
    assert torch.allclose(found, torch.stack(expected), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5), ("bfloat16", 0.05)])
def test_the_check_accepts_qwen3(make_qwen3, dtype, tolerance):
    model = make_qwen3(getattr(torch, dtype)).train()
    state = torch.random.get_rng_state()
    check = check_packing(model, temperature=0.7)
    assert check.leak == 0
    assert check.logprobs < tolerance
    assert check.gradients < tolerance
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def make_model(name, attention=BY_SAMPLE, **settings):
    """A random model of any architecture."""
    transformers = pytest.importorskip("transformers")
    register()
    shape = TINY if "Mamba" in name else TINY | HEADS
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.AutoModelForCausalLM.from_config(
            getattr(transformers, f"{name}Config")(**shape | settings), attn_implementation=attention
        )


HYBRID = {
    "num_hidden_layers": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
ROUTED = {**EXPERTS, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 4}
WINDOWS = {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("Llama", {}),
        ("Qwen2", {}),
        ("Qwen3Moe", {**EXPERTS, "num_experts": 4}),
        ("Glm4Moe", ROUTED),
        ("DeepseekV3", {**ROUTED, **LATENT, "num_key_value_heads": 4}),  # values narrower than keys
        ("Mistral", {"sliding_window": 5}),
        ("Gemma3Text", {**WINDOWS, "head_dim": 8}),
        ("GPT2", {}),
    ],
)
def test_attention_by_sample_is_exact_for_other_architectures(name, settings):
    check = check_packing(make_model(name, **settings))
    assert check.leak == 0
    assert max(check.head, check.logprobs, check.gradients) < 1e-5


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("Lfm2", {"layer_types": ["conv", "full_attention"]}, "affected by the samples before it"),
        ("Mamba", {"state_size": 8}, "affected by the samples before it"),
        ("Qwen3_5Text", HYBRID, "affected by the samples before it"),
        ("Granite", {"logits_scaling": 4.0}, "its head"),
        ("Gemma2", {"head_dim": 8}, r"caps attention logits.*trainer.attention = \"eager\""),
        ("GptOss", {"head_dim": 8, "num_local_experts": 4}, "attention sinks"),
    ],
)
def test_the_check_refuses_what_packing_would_train_wrongly(name, settings, message):
    """A leaking state is found however small its effect: Lfm2's here moves the gradient by 1e-4 only."""
    model = make_model(name, **settings)
    with pytest.raises(PackingError, match=message):
        check_packing(model)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_that_sees_later_tokens_is_refused_one_sample_at_a_time_too():
    """Bloom computes its attention itself, and attends to everything where it is given no mask."""
    model = make_model("Bloom", hidden_size=32, n_layer=2, n_head=4)
    with (
        pytest.warns(UserWarning, match="affected by the samples before it"),
        pytest.raises(PackingError, match="affected by later tokens"),
    ):
        can_pack(model, "auto", 1e-5)


def test_a_head_that_caps_logits_is_refused():
    settings = {"head_dim": 8, "query_pre_attn_scalar": 8, "final_logit_softcapping": 1.0}
    with pytest.raises(PackingError, match="its head"):
        check_packing(make_model("Gemma2", "eager", **settings))


@pytest.mark.parametrize(
    ("name", "settings"), [("Lfm2", {"layer_types": ["conv", "full_attention"]}), ("Qwen3_5Text", HYBRID)]
)
def test_a_model_whose_state_leaks_is_trained_one_sample_at_a_time(name, settings):
    model = make_model(name, **settings)
    with pytest.warns(UserWarning, match="Training one sample at a time"):
        assert not can_pack(model, "auto", 1e-5)
    assert not can_pack(model, False, 1e-5)
    with pytest.raises(PackingError, match=r"trainer\.packing = false"):
        can_pack(model, True, 1e-5)


@pytest.mark.filterwarnings("ignore:.*one sample at a time")
@pytest.mark.parametrize(
    ("name", "settings", "layers"),
    [("Qwen3", {}, 1), ("Glm4Moe", {**ROUTED, "first_k_dense_replace": 2}, 3), ("Qwen3_5Text", HYBRID, 4)],
)
def test_a_few_layers_stand_for_the_whole_model(name, settings, layers):
    model = make_model(name, **{"num_hidden_layers": 6, **settings})
    whole = len(model.model.layers)
    few = shallow_copy(model)
    assert (len(few.model.layers), len(model.model.layers)) == (layers, whole)
    assert few.model.embed_tokens.weight is not model.model.embed_tokens.weight
    assert can_pack(few, "auto", 1e-5) == (name != "Qwen3_5Text")


def test_a_model_that_keeps_samples_apart_is_packed(make_qwen3):
    assert can_pack(make_qwen3(), "auto", 1e-5)
    assert can_pack(make_qwen3(), True, 1e-5)
    assert not can_pack(make_qwen3(), False, 1e-5)


def test_the_check_finds_an_attention_mask_that_lets_samples_see_each_other(make_qwen3):
    model = make_qwen3(attn_implementation="sdpa")
    forward = model.model.forward

    def leaking(input_ids, **settings):
        return forward(input_ids, **{**settings, "attention_mask": torch.ones_like(input_ids)})

    model.model.forward = leaking
    with pytest.raises(PackingError, match="affected by the samples before it"):
        check_packing(model)


def test_the_check_wants_a_model_without_gradients(make_qwen3):
    model = make_qwen3()
    model(torch.tensor([[1, 2]])).logits.sum().backward()
    with pytest.raises(ValueError, match="zero_grad"):
        check_packing(model)
    with pytest.raises(ValueError, match="no trainable parameters"):
        check_packing(model.requires_grad_(False))


def test_a_head_with_a_bias_is_refused(make_qwen3):
    model = make_qwen3()
    model.lm_head = torch.nn.Linear(32, 97)
    with pytest.raises(ValueError, match="not one plain matrix"):
        vocabulary_head(model)


def test_adapters(make_qwen3):
    """LoRA below the head trains on packs; on the head it would lose its gradient, and is refused."""
    peft = pytest.importorskip("peft")
    lora = peft.get_peft_model(make_qwen3(), peft.LoraConfig(target_modules=["q_proj", "down_proj"]))
    check = check_packing(lora)
    assert check.leak == 0
    assert check.gradients < 1e-5
    with pytest.raises(ValueError, match="keep adapters off the head"):
        vocabulary_head(peft.get_peft_model(make_qwen3(), peft.LoraConfig(target_modules=["q_proj", "lm_head"])))


def packing_leak_by_attention_mask(patch):
    def leaking(model, input_ids, position_ids, _):
        inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
        return model.model(**inputs, position_ids=position_ids, use_cache=False).last_hidden_state

    patch.setattr(forward, "last_hidden_state", leaking)


def packing_leak_by_position_ids(patch):
    original = packing.collate

    def running_on(pack):
        batch = original(pack)
        return replace(batch, position_ids=torch.arange(len(batch))[None])

    patch.setattr(packing, "collate", running_on)


def end_of_reply_taken_for_padding(patch):
    """Where pad and eos are one token, masking what looks like padding never trains the end of a reply."""
    original = packing.collate

    def without_padding(pack):
        batch = original(pack)
        return replace(batch, mask=batch.mask & (batch.input_ids[0] != PAD))

    patch.setattr(packing, "collate", without_padding)


def packing_leak_by_boundaries(patch):
    original = packing.collate

    def one_sample(pack):
        batch = original(pack)
        return replace(batch, boundaries=Boundaries.of([len(batch)]))

    patch.setattr(packing, "collate", one_sample)


@pytest.mark.parametrize(
    "bug", [packing_leak_by_boundaries, end_of_reply_taken_for_padding], ids=lambda bug: bug.__name__
)
def test_a_classic_bug_is_seen(bug, plain_step):
    plain_step.assert_seen(bug)


@pytest.mark.parametrize(
    "bug", [packing_leak_by_attention_mask, packing_leak_by_position_ids], ids=lambda bug: bug.__name__
)
def test_a_classic_bug_of_masks_is_seen(bug, masked_plain_step):
    masked_plain_step.assert_seen(bug)


def squares(sample):
    """A cost that grows faster than the length, as attention's does: about that of Qwen3-0.6B."""
    return len(sample) + len(sample) ** 2 / 8000


@given(
    lengths=st.lists(st.integers(2, 40), min_size=1, max_size=40),
    processes=st.integers(2, 5),
    together=st.booleans(),
)
def test_packs_of_several_processes_are_whole_and_as_few_rounds_as_without_balance(lengths, processes, together):
    samples = [make_sample(length, name=str(index)) for index, length in enumerate(lengths)]
    packs = balanced_packs(samples, 40, processes, squares, together)
    assert sorted(sample.rollout_id for pack in packs for sample in pack) == sorted(map(str, range(len(lengths))))
    assert all(0 < sum(map(len, pack)) <= 40 for pack in packs)
    if not together:
        assert all(len(pack) == 1 for pack in packs)
    plain = pack_samples(samples, 40, together)
    assert -(-len(packs) // processes) <= -(-len(plain) // processes)
    assert [sum(map(squares, pack)) for pack in packs] == sorted(
        (sum(map(squares, pack)) for pack in packs), reverse=True
    )
    assert all(list(map(len, pack)) == sorted(map(len, pack), reverse=True) for pack in packs)
    assert packs == balanced_packs(samples, 40, processes, squares, together)


def rounds_cost(packs, processes):
    """What all processes together take: each round as long as its most expensive pack."""
    costs = [sum(map(squares, pack)) for pack in packs]
    return sum(max(costs[start : start + processes]) for start in range(0, len(costs), processes))


def test_processes_wait_for_each_other_little():
    """RLM lengths: a few long roots among many short sub-calls, whose attention costs far more per token."""
    draw = random.Random(0)
    lengths = [draw.randint(600, 4000) if draw.random() < 0.1 else draw.randint(60, 500) for _ in range(300)]
    samples = [make_sample(length) for length in lengths]
    ideal = sum(map(squares, samples)) / 8
    balanced = rounds_cost(balanced_packs(samples, 8192, 8, squares), 8)
    unbalanced = rounds_cost(pack_samples(samples, 8192), 8)
    assert balanced < 1.1 * ideal
    assert unbalanced > 1.3 * ideal


def test_a_sample_over_the_budget_is_named_on_several_processes_too():
    with pytest.raises(ValueError, match="'long' has 1,001 tokens"):
        balanced_packs([make_sample(1001, name="long")], 1000, 2, squares)
