"""Every file in configs/train/ is one that its command accepts, down to the options of its environments."""

from pathlib import Path

import pytest

from rlm_env.train.rl.config import load_train_config
from rlm_env.train.sft.config import load_sft_config

FILES = sorted((Path(__file__).parents[2] / "configs" / "train").glob("*.toml"))
TRAIN = [path for path in FILES if not path.name.startswith("sft")]
SFT = [path for path in FILES if path.name.startswith("sft")]


def name(path):
    return path.stem


def test_there_are_configs_of_both_kinds():
    assert len(TRAIN) >= 4
    assert SFT


@pytest.mark.parametrize("path", TRAIN, ids=name)
def test_train_configs_pass_the_dry_run(path, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("renderers")
    from rlm_env.cli import main

    assert main(["train", str(path), "--dry-run"]) == 0
    assert "rollouts" in capsys.readouterr().out
    # With a model that is here, so that environments, options and tasks are checked too; its window and heads are few.
    config = load_train_config(path)
    one_gpu = ",devices=[0]" if config.engine.devices else ""
    smaller = [] if config.engines else ["--set", f"engine={{max_model_len=1024,extra_args=[]{one_gpu}}}"]
    assert main(["train", str(path), "--dry-run", "--set", "model=tiny-rlm", *smaller]) == 0
    told = capsys.readouterr().out
    for environment in config.environments:
        assert environment.name in told


@pytest.mark.parametrize("path", TRAIN, ids=name)
def test_a_conversation_fits_into_a_pack(path):
    config = load_train_config(path)
    assert config.engine.max_model_len is None or config.engine.max_model_len <= config.trainer.pack_tokens


@pytest.mark.parametrize("path", SFT, ids=name)
def test_sft_configs_are_read(path):
    assert load_sft_config(path).rollouts
