"""A model's own defaults: mistakes in the file are named."""

import pytest

from rlm_env.runs.errors import ConfigError
from rlm_env.runs.profile import FILE_NAME, load_profile


def test_a_folder_without_a_profile_has_no_defaults(tmp_path):
    assert load_profile(tmp_path) == {}


def test_a_profile_is_read_with_its_renderer(tmp_path):
    (tmp_path / FILE_NAME).write_text('{"max_turns": 3, "renderer": {"name": "qwen3"}}')
    assert load_profile(tmp_path) == {"max_turns": 3, "renderer": {"name": "qwen3"}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"max_turn": 3}', "unknown key 'max_turn'; did you mean 'max_turns'"),
        ('{"max_turns": 0}', "max_turns: Input should be greater than or equal to 1"),
        ("[]", "is not a table of RLMConfig fields in JSON"),
        ("{", "is not a table of RLMConfig fields in JSON"),
    ],
)
def test_a_mistake_is_named_with_the_file(tmp_path, text, said):
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(ConfigError) as error:
        load_profile(tmp_path)
    assert said in str(error.value)
    assert str(tmp_path / FILE_NAME) in str(error.value)
