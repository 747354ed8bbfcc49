"""Pieces of a stored context are the characters that they are, wherever they begin, and damage is told."""

import hashlib
import random

import pytest

from rlm_env.contexts import ContextError
from rlm_env.view.stored_context import StoredContext, StoredContexts


def stored(tmp_path, text: str) -> tuple[StoredContexts, str]:
    data = text.encode("utf-8", "surrogatepass")
    sha256 = hashlib.sha256(data).hexdigest()
    (tmp_path / f"{sha256}.txt").write_bytes(data)
    return StoredContexts(tmp_path), sha256


@pytest.mark.parametrize("letters", ["ab\n", "aé漢😀\ud800\r\n", "😀"])
def test_any_piece_is_the_text(tmp_path, letters):
    draw = random.Random(len(letters))
    text = "".join(draw.choice(letters) for _ in range(150_000))  # several steps of the index
    contexts, sha256 = stored(tmp_path, text)
    context = contexts.get(sha256)
    assert context.chars == len(text)
    for _ in range(200):
        start = draw.randrange(len(text) + 10)
        end = start + draw.choice([0, 1, 7, 5000, 100_000])
        assert context.text(start, end) == text[start:end]
    assert context.text(0, len(text) + 5) == text
    assert context.text(-3, 2) == text[:2]


def test_a_missing_or_changed_context_is_named(tmp_path):
    contexts, sha256 = stored(tmp_path, "some text")
    assert contexts.get(sha256) is contexts.get(sha256)
    (tmp_path / f"{sha256}.txt").write_text("another text")
    with pytest.raises(ContextError, match="hash has changed"):
        contexts.get(sha256)
    (tmp_path / f"{sha256}.txt").unlink()
    with pytest.raises(ContextError, match="cannot be read"):
        contexts.get(sha256)
    with pytest.raises(ContextError, match="cannot be read"):
        StoredContext(tmp_path / "none.txt", sha256)


def test_a_name_that_is_no_hash_opens_nothing(tmp_path):
    (tmp_path / "secret.txt").write_text("x")
    with pytest.raises(ContextError, match="no hash"):
        StoredContexts(tmp_path / "contexts").get("../secret")
