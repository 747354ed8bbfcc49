"""The forward over a pack: each trained token is predicted by the token before it, at its sample's temperature."""

import pytest

torch = pytest.importorskip("torch")

from rlm_env.train.learner import forward  # noqa: E402
from tests.train.plain_step import Pipeline  # noqa: E402


def off_by_one(patch):
    """A token's logprob is read where the token itself was put in."""
    original = forward.last_hidden_state
    patch.setattr(forward, "last_hidden_state", lambda *args: original(*args).roll(-1, dims=1))


def no_temperature(patch):
    patch.setattr(Pipeline, "logprobs", lambda _, model, pack: forward.pack_logprobs(model, pack).logprobs)


@pytest.mark.parametrize("bug", [off_by_one, no_temperature], ids=lambda bug: bug.__name__)
def test_a_classic_bug_is_seen(bug, plain_step):
    plain_step.assert_seen(bug)
