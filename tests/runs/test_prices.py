"""Price tables: what they may hold, and how a price is told."""

from __future__ import annotations

from datetime import date

import pytest

from rlm_env.evals.config import load_eval_config
from rlm_env.evals.setup import price_notes, role_prices
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.prices import SHIPPED, Price, load_prices, load_tables


def test_a_price_has_its_day_and_its_source(tmp_path):
    path = tmp_path / "prices.toml"
    path.write_text('["a/b"]\nprompt = 0.5\ncached = 0.05\ncompletion = 2\ntaken = 2026-01-31\nsource = "a leaflet"\n')
    price = load_prices(path)["a/b"]
    assert price.taken == date(2026, 1, 31)
    assert str(price) == "0.5 for prompts, cached 0.05, 2 for completions (taken on 2026-01-31 from a leaflet)"
    assert str(Price(prompt=1, completion=2)) == "1 for prompts, 2 for completions (taken on a day not stated)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('["a"]\nprompt = 1\ncompletion = 1\ntaken = "yesterday"\n', "taken"),
        ('["a"]\nprompt = 1\ncompletion = 1\ntook = 2026-01-31\n", ', "valid TOML"),
        ('["a"]\nprompt = 1\ncompletion = 1\ntook = 2026-01-31\n', "unknown key 'took'"),
        ('["a"]\nprompt = -1\ncompletion = 1\n', "prompt"),
    ],
)
def test_a_mistake_in_a_table_is_named(tmp_path, text, message):
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_prices(path)


def test_a_config_stores_the_day_and_reads_it_again(tmp_path):
    prices = {"m": {"prompt": 1.0, "completion": 2.0, "taken": date(2026, 1, 31)}}
    values = {"model": "m", "base_url": "http://127.0.0.1:1/v1", "out": tmp_path, "environments": [{"name": "x"}]}
    config = load_eval_config(None, values | {"prices": prices})
    again = load_eval_config(None, config.as_toml())
    assert again.prices == config.prices
    assert price_notes(again) == ["US$ per million tokens: m 1 for prompts, 2 for completions (taken on 2026-01-31)."]


def test_what_has_no_price_is_not_told(tmp_path):
    values = {"model": "m", "base_url": "http://127.0.0.1:1/v1", "out": tmp_path, "environments": [{"name": "x"}]}
    assert price_notes(load_eval_config(None, values)) == []


def test_each_shipped_price_has_a_day_and_a_source_and_a_cache_that_is_cheaper():
    shipped = load_prices(SHIPPED)
    assert len(shipped) >= 8
    for model, price in shipped.items():
        assert price.taken is not None, model
        assert price.source is not None, model
        assert price.source.startswith("https://"), model
        assert price.cached is not None, model
        assert price.cached < price.prompt < price.completion, model


def test_presets_are_taken_where_they_are_asked_for_with_ones_own_over_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = {"model": "gpt-5", "base_url": "http://127.0.0.1:1/v1", "out": tmp_path, "environments": [{"name": "x"}]}
    assert role_prices(load_eval_config(None, values)) is None
    config = load_eval_config(None, values | {"prices": "presets"})
    assert config.prices == load_prices(SHIPPED)
    [note] = price_notes(config)
    assert f"(taken on {config.prices['gpt-5'].taken} from https://" in note
    (tmp_path / "mine.toml").write_text(
        '["gpt-5"]\nprompt = 9\ncompletion = 9\n["other"]\nprompt = 1\ncompletion = 1\n'
    )
    mine = load_tables("presets,mine.toml")
    assert (mine["gpt-5"].prompt, mine["gpt-5"].taken) == (9, None)
    assert mine["gpt-5-mini"] == config.prices["gpt-5-mini"]
    assert load_tables("mine.toml,presets")["gpt-5"].prompt != 9
    (tmp_path / "a,b.toml").write_text('["c"]\nprompt = 1\ncompletion = 1\n')
    assert list(load_tables("a,b.toml")) == ["c"]
    with pytest.raises(ConfigError, match=r"cannot read the price table yours\.toml"):
        load_tables("presets,yours.toml")


def test_a_model_that_the_presets_lack_is_unknown_and_not_free(tmp_path):
    values = {"model": "some-model", "base_url": "http://127.0.0.1:1/v1", "environments": [{"name": "x"}]}
    config = load_eval_config(None, values | {"out": tmp_path, "prices": "presets"})
    with pytest.raises(ConfigError, match='has no entry for "some-model"'):
        role_prices(config)
