"""Chunked log-probabilities against the whole softmax: values, entropy, gradients, and what is held in memory."""

import pytest

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from rlm_env.train.learner import logprobs  # noqa: E402
from rlm_env.train.learner.logprobs import token_logprobs  # noqa: E402


def inputs(tokens=13, vocab=97, width=16, dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, width, generator=generator, dtype=torch.float64) * scale
    weight = torch.randn(vocab, width, generator=generator, dtype=torch.float64)
    targets = torch.randint(vocab, (tokens,), generator=generator)
    upstream = torch.randn(tokens, generator=generator, dtype=torch.float64)
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), targets, upstream


def whole(hidden, weight, targets, temperature):
    """The definition, in the type it is given."""
    logprobs = torch.log_softmax(
        hidden @ weight.T / torch.as_tensor(temperature, dtype=hidden.dtype).reshape(-1, 1), dim=-1
    )
    return logprobs.gather(1, targets[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(-1)


@pytest.mark.parametrize("chunk", [1, 4, 13, 1000, None])
@pytest.mark.parametrize("temperature", [1.0, 0.7, torch.linspace(0.3, 2.0, 13, dtype=torch.float64)])
def test_equal_to_the_whole_softmax(chunk, temperature):
    hidden, weight, targets, upstream = inputs()
    expected, expected_entropy = whole(hidden, weight, targets, temperature)
    expected_gradients = torch.autograd.grad((expected * upstream).sum(), [hidden, weight])
    found, entropy = token_logprobs(hidden, weight, targets, temperature, chunk)
    gradients = torch.autograd.grad((found * upstream).sum(), [hidden, weight])
    assert torch.allclose(found, expected, atol=1e-12, rtol=0)
    assert torch.allclose(entropy, expected_entropy, atol=1e-12, rtol=0)
    assert not entropy.requires_grad
    for gradient, right in zip(gradients, expected_gradients, strict=True):
        assert torch.allclose(gradient, right, atol=1e-12, rtol=0)


def test_gradients_by_finite_differences():
    hidden, weight, targets, _ = inputs(tokens=4, vocab=7, width=3)
    assert torch.autograd.gradcheck(lambda h, w: token_logprobs(h, w, targets, 0.7, 3).logprobs, (hidden, weight))


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_only_what_needs_a_gradient_gets_one(frozen):
    hidden, weight, targets, _ = inputs()
    (hidden if frozen == "hidden" else weight).requires_grad_(False)
    token_logprobs(hidden, weight, targets).logprobs.sum().backward()
    assert (hidden.grad is None, weight.grad is None) == (frozen == "hidden", frozen == "weight")


def test_the_softmax_of_a_bfloat16_model_is_in_float32():
    """Given the same bfloat16 logits, the values are float32's; a bfloat16 softmax is a hundred times further off."""
    hidden, weight, targets, _ = inputs(dtype=torch.bfloat16, scale=0.5)
    logits = (hidden @ weight.T).detach()
    right = torch.log_softmax(logits.double(), -1).gather(1, targets[:, None])[:, 0]
    wrong = torch.log_softmax(logits, -1).gather(1, targets[:, None])[:, 0]
    found = token_logprobs(hidden, weight, targets).logprobs
    assert found.dtype == torch.float32
    assert (found - right).abs().max() < 1e-5
    assert (wrong - right).abs().max() > 1e-3
    found.sum().backward()
    assert (hidden.grad.dtype, weight.grad.dtype) == (torch.bfloat16, torch.bfloat16)


def test_float32_master_weights_with_bfloat16_states():
    hidden, weight, targets, _ = inputs()
    states, master = hidden.detach().bfloat16().requires_grad_(), weight.detach().float().requires_grad_()
    token_logprobs(states, master, targets).logprobs.sum().backward()
    assert (states.grad.dtype, master.grad.dtype) == (torch.bfloat16, torch.float32)


def test_autocast_does_not_lower_the_precision():
    hidden, weight, targets, _ = inputs(dtype=torch.float32)
    plain = token_logprobs(hidden, weight, targets).logprobs
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(token_logprobs(hidden, weight, targets).logprobs, plain)


def test_very_unlikely_tokens_and_large_logits_stay_finite():
    hidden, weight, targets, _ = inputs(dtype=torch.float32, scale=200.0)
    found = token_logprobs(hidden, weight, targets)
    found.logprobs.sum().backward()
    assert all(torch.isfinite(t).all() for t in (*found, hidden.grad, weight.grad))


class _Largest(TorchDispatchMode):
    """The largest tensor that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return result


def test_the_whole_of_tokens_by_vocabulary_is_never_held():
    tokens, vocab, width, chunk = 64, 500, 8, 8
    hidden, weight, targets, _ = inputs(tokens, vocab, width, torch.float32)
    with _Largest() as chunked:
        token_logprobs(hidden, weight, targets, chunk=chunk).logprobs.sum().backward()
    with _Largest() as at_once:
        whole(hidden, weight, targets, 1.0)[0].sum().backward()
    assert at_once.elements == tokens * vocab  # the measure sees what it should
    assert chunked.elements == max(chunk * vocab, width * vocab)


def test_no_tokens_at_all():
    hidden, weight, targets, _ = inputs(tokens=0)
    token_logprobs(hidden, weight, targets).logprobs.sum().backward()
    assert weight.grad.eq(0).all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), torch.tensor([1.0] * 12 + [0.0])])
def test_temperatures_that_have_no_log_probabilities_are_refused(temperature):
    hidden, weight, targets, _ = inputs()
    with pytest.raises(ValueError, match="temperature must be above 0"):
        token_logprobs(hidden, weight, targets, temperature)


def test_shapes_that_do_not_fit_are_named():
    hidden, weight, targets, _ = inputs()
    with pytest.raises(ValueError, match=r"got \[13, 16\], \[97, 16\] and \[12\]"):
        token_logprobs(hidden, weight, targets[1:])


def bfloat16_softmax(patch):
    original = logprobs._logits
    patch.setattr(logprobs, "_logits", lambda *args: torch.log_softmax(original(*args).bfloat16(), -1).double())


@pytest.mark.parametrize("bug", [bfloat16_softmax], ids=lambda bug: bug.__name__)
def test_a_classic_bug_is_seen(bug, plain_step):
    plain_step.assert_seen(bug)
