"""docs/evaluating-options.md and docs/training-options.md: their tables of options are those of the models."""

from __future__ import annotations

import pytest

import options_tables

PAGES = [pytest.param(page, models, id=page.name) for page, models in options_tables.PAGES.items()]


@pytest.mark.parametrize(("page", "models"), PAGES)
def test_tables_of_options_are_up_to_date(page, models):
    text = page.read_text("utf-8")
    assert options_tables.with_tables(text) == text, "run python scripts/options_tables.py"
    assert {name for _, name, _ in options_tables.BLOCK.findall(text)} == {model.__name__ for model in models}


@pytest.mark.parametrize("model", options_tables.TABLES.values(), ids=str)
def test_texts_belong_to_fields(model):
    texts = options_tables.field_texts(model)
    assert texts.keys() <= set(options_tables.field_names(model))
    assert texts


@pytest.mark.parametrize("model", options_tables.TABLES.values(), ids=str)
def test_every_option_has_a_meaning(model):
    """A text, the values it takes, or that it is a table; and no default is the `repr` of an object."""
    for line in options_tables.table(model).splitlines()[2:]:
        assert not line.endswith("|  |"), line
        assert "(" not in line.split(" | ")[1].replace("(needed)", ""), line
