"""The names of other RLMs are functions in every REPL, unless they are turned off."""

import pytest

from rlm_env.repl import ReplConfig, ReplPool
from tests.repl.conftest import echo


@pytest.mark.parametrize(
    ("code", "content"),
    [
        ("FINAL(42)", "42"),
        ('FINAL("x")\nprint(1)', "x"),
        ("FINAL([1, 2])", "[1, 2]"),
        ('result = 6 * 7\nFINAL_VAR("result")', "42"),
        ("result = 6 * 7\nFINAL_VAR(result)", "42"),
        ('FINAL_VAR("a long text")', "a long text"),
        ("SUBMIT(42)", "42"),
        ("SUBMIT(answer=42)", "42"),
        ("SUBMIT(a=1, b=2)", '{"a": 1, "b": 2}'),
        ('FINAL(llm_query("q"))', "<q>"),
        ('FINAL(llm_query("q", model="any"))', "<q>"),
        ('FINAL(llm_query_batched(["p", "q"]))', '["<p>", "<q>"]'),
    ],
)
async def test_an_alias_does_what_it_does_elsewhere(repl, code, content):
    step = await repl.run(code)
    assert step.error is None
    assert step.answer == {"content": content, "ready": True}


async def test_final_var_of_an_unknown_variable_says_so(repl):
    step = await repl.run('FINAL_VAR("result")')
    assert "name 'result' is not defined: FINAL_VAR takes the name of a variable" in step.error
    assert not step.answer["ready"]


async def test_without_sub_llms_there_is_no_llm_query(pool):
    async with pool.open(context="x") as repl:
        assert "NameError" in (await repl.run("llm_query")).error
        assert (await repl.run("FINAL(1)")).answer["ready"]


async def test_aliases_can_be_turned_off():
    async with ReplPool(ReplConfig(preload=(), aliases=False)) as pool, pool.open("x", echo) as repl:
        for name in ("FINAL", "FINAL_VAR", "SUBMIT", "llm_query", "llm_query_batched"):
            assert "NameError" in (await repl.run(name)).error
