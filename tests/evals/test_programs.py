"""What programs models wrote: by hand, over several turns, renamed, damaged and hostile."""

from __future__ import annotations

import ast
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_env.evals.programs import Program, Trait, WrittenProgram, program_of, read_program
from rlm_env.rollout import Rollout, SubCall, Turn

DONE = 'answer["content"] = "12"\nanswer["ready"] = True'
CHUNKS = "chunks = [context[i : i + 2000] for i in range(0, len(context), 2000)]"
ASKED = 'replies = llm_batch([f"How many in: {chunk}" for chunk in chunks])'
SUMMED = 'answer["content"] = str(sum(int(reply) for reply in replies))'
CASES: dict[Program, list[list[str]]] = {
    Program.NO_CODE: [[]],
    Program.UNPARSABLE: [["for x in"], ["print(", "answer[ = 3"]],
    Program.CHUNK_AND_BATCH: [
        [f"{CHUNKS}\n{ASKED}\n{SUMMED}"],
        [CHUNKS, ASKED, "print(replies[:3])", SUMMED],
        ["out = []\nfor part in context.split('---'):\n    out += llm_batch(['Sum up: ' + part])\nprint(out)"],
        [
            "chunks, start = [], 0\nwhile start < len(context):\n    end = min(start + 900, len(context))\n"
            "    if end < len(context):\n        end = context.rfind('\\n', start, end)\n"
            "    chunks.append(context[start:end])\n    start = end",
            "prompts = []\nfor chunk in chunks:\n    if not chunk.strip():\n        continue\n"
            "    prompts.append('Read:\\n' + chunk)\nreplies = llm_batch(prompts)",
        ],
        [
            "def cut(text, n):\n    return [text[i:i + n] for i in range(0, len(text), n)]\n"
            "def ask(prompt):\n    return llm_batch([prompt])[0]",
            "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor() as pool:\n"
            "    replies = list(pool.map(ask, cut(context, 1000)))",
        ],
        ["ask = llm_query_batched\nprint(ask(['a ' + context[:99], 'b ' + context[99:]]))"],
        [
            "rows = [x for x in context.split('\\n') if 'User: ' in x]\n"
            "labels = llm_batch(['Label: ' + x for x in rows])"
        ],
        ["replies = llm_batch([{'messages': [{'role': 'user', 'content': d['text']}]} for d in context])"],
        ["print(list(map(lambda part: llm_query('Sum up ' + part), context.splitlines())))"],
    ],
    Program.WHOLE_TO_SUB: [
        ["print(context[:300])", 'reply = llm_batch([f"{context}\\n\\nHow many?"])[0]', DONE],
        ["FINAL(llm_query('Answer: ' + context.strip()))"],
        ["reply = llm_batch(['Q: ' + '\\n'.join(context.split('\\n'))])"],
        ["reply = llm_batch(['Q: ' + '\\n'.join(one['text'] for one in context)])"],
        ["text = str(context)\nprompt = 'Q: %s' % text\nvotes = llm_batch([prompt] * 5)"],
        ["def ask(question, text=''):\n    return llm_query(question + text)\nprint(ask('Q', text=context))"],
        ["import json\ndata = json.loads(context)\nprint(llm_query(json.dumps(data)))"],
    ],
    Program.PIECE_TO_SUB: [
        ["hits = [x for x in context.splitlines() if 'key' in x]\nprint(llm_query('Which? ' + '\\n'.join(hits)))"],
        ["at = context.find('magic')\nprint(llm_query('What? ' + context[at - 200 : at + 200]))"],
        ["print(llm_batch(['Sum up: ' + context[:5000]]))"],
    ],
    Program.SUB_WITHOUT_CONTEXT: [["print(llm_query('In which year was the bridge built?'))"]],
    Program.CODE: [
        ["answer['content'] = str(context.split().count('spam'))"],
        ["answer['content'] = len(context)"],
        ["import re\nprint(len(re.findall(r'spam', context)))", DONE],
        [
            "count = 0\nfor line in context.splitlines():\n    if 'spam' in line:\n        count += 1\nprint(count)",
            DONE,
        ],
        ["from collections import Counter\nprint(Counter(context.split()).most_common(3))", DONE],
        ["print(len(context))", DONE],
        ["best = max(['a', 'b'], key=context.count)\nFINAL_VAR('best')"],
        ["answer = {'content': context[:100], 'ready': True}"],
    ],
    Program.SEARCH_AND_READ: [
        ["import re\nprint(re.findall(r'key: .*', context))", DONE],
        ["for line in context.splitlines():\n    if 'key' in line:\n        print(line)", DONE],
        ["for line in context.splitlines():\n    if 'key' not in line:\n        continue\n    print(line)", DONE],
        ["[line for line in context.splitlines() if line.startswith('key')]", DONE],
    ],
    Program.READ: [
        ["print(context[:5000])", "print(context[5000:10000])", DONE],
        ["context", DONE],
        ["print(len(context)); lines = context.split('\\n'); print(len(lines), lines[:5])", DONE],
    ],
    Program.NOTHING: [["lines = context.split()"], ["x = context", "print(undefined)"]],
    Program.UNUSED: [[DONE], ["import sympy\nprint(sympy.solve('x - 2'))", DONE], ["FINAL_VAR('nothing')"]],
}
ALL = [(program, cells) for program, many in CASES.items() for cells in many]
PARSED = [(program, cells) for program, cells in ALL if program not in (Program.NO_CODE, Program.UNPARSABLE)]


def program(*cells: str) -> Program:
    return read_program([[cell] for cell in cells]).program


@pytest.mark.parametrize(("expected", "cells"), ALL, ids=lambda value: str(value)[:40])
def test_the_program_of_cells_is_what_a_person_calls_it(expected, cells):
    assert program(*cells) is expected


def test_every_program_has_a_case():
    assert CASES.keys() == set(Program)


def statements(cells: list[str]) -> list[ast.stmt]:
    return [statement for cell in cells for statement in ast.parse(cell).body]


def shows_values(cells: list[str]) -> bool:
    """True where a cell ends in a value that is no call: it is shown only at the end of a cell."""
    lasts = [statement for statement in statements(cells) if isinstance(statement, ast.Expr)]
    return any(not isinstance(last.value, ast.Call) for last in lasts)


@pytest.mark.parametrize(("expected", "cells"), PARSED, ids=lambda value: str(value)[:40])
def test_it_does_not_matter_how_code_is_spread_over_cells_and_laid_out(expected, cells):
    one_by_one = [ast.unparse(statement) for statement in statements(cells)]
    assert program(*one_by_one) is read_program([one_by_one]).program is expected
    if not shows_values(cells):
        assert program("\n".join(f"# a remark\n\n{one}" for one in one_by_one)) is expected


class Renamed(ast.NodeTransformer):
    """Every variable of the code's own under another name."""

    def __init__(self, tree: ast.AST) -> None:
        bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        self.names = {name: f"v{number}" for number, name in enumerate(sorted(bound - {"answer", "context"}))}

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.names.get(node.id, node.id), node.ctx)


@pytest.mark.parametrize(("expected", "cells"), PARSED, ids=lambda value: str(value)[:40])
def test_the_names_of_variables_do_not_matter(expected, cells):
    renamed = Renamed(ast.parse("\n".join(cells)))
    named = [ast.unparse(renamed.visit(ast.parse(cell))) for cell in cells]
    for old, new in renamed.names.items():
        named = [cell.replace(f"FINAL_VAR('{old}')", f"FINAL_VAR('{new}')") for cell in named]
    assert program(*named) is expected


def test_traits():
    second = 'replies = llm_batch(["Merge: " + "\\n".join(replies)])'
    found = read_program(
        [["import re", "print(context[:99])", CHUNKS, ASKED], [second], ["re.sub('a', 'b', 'c')"], ["("]]
    )
    assert found.program is Program.CHUNK_AND_BATCH
    assert set(found.traits) == {Trait.REGEX, Trait.PRINTS, Trait.ASKS_AGAIN, Trait.BROKEN_CELL}
    chosen = read_program([["hits = [x for x in context.split() if 'a' in x]; print(llm_batch(hits))"]])
    assert chosen.traits == (Trait.CHOOSES,)
    assert (
        read_program([["whole = [x for x in context.split('.') if x.strip() and len(x) > 3]; llm_batch(whole)"]]).traits
        == ()
    )


def rollout(*cells: str, asked: int | None = None, **fields) -> Rollout:
    calls = [] if asked is None else [SubCall(id=0, root_turn=asked, batch=0, messages=[])]
    turns = [Turn(code=[cell] if cell else []) for cell in cells]
    return Rollout(turns=turns, sub_calls=calls, metrics={"cells": len(cells)}, **fields)


def written(made: Rollout) -> WrittenProgram:
    found = program_of(made)
    assert found is not None
    return found


def test_what_was_really_asked_counts_and_not_what_failed_before():
    assert written(rollout(CHUNKS, ASKED, DONE)).program is Program.NOTHING
    assert written(rollout(CHUNKS, ASKED, DONE, asked=1)).program is Program.CHUNK_AND_BATCH
    failed = rollout("llm_batch([context, undefined])", f"{CHUNKS}\n{ASKED}", asked=1)
    failed.turns[0].error = "NameError"
    assert written(failed).program is Program.CHUNK_AND_BATCH
    assert written(failed).traits == (Trait.FAILED_CELL,)
    hidden = rollout("exec('r = llm_batch([context])')", asked=0)
    assert written(hidden).program is Program.SUB_WITHOUT_CONTEXT


def test_an_answer_that_changes_is_refined():
    made = rollout("answer['content'] = context[:9]", "answer['content'] = context[:8]")
    for turn in made.turns:
        turn.answer = "x"
    assert written(made).traits == (Trait.REFINES,)


def test_a_scaffold_without_a_repl_has_no_program():
    assert program_of(Rollout(turns=[Turn(text="7")])) is None
    assert written(rollout("")).program is Program.NO_CODE


HOSTILE = [
    "x = " + "(" * 90 + "context" + ")" * 90,
    "x = " + " + ".join(["context"] * 3000),
    "def f(n):\n    return f(n - 1) + f(n - 2)\nprint(f(context))",
    "def f(g):\n    return g(g)\nprint(f(f))",
    "f = lambda x: f(f(x))\nf(context)",
    "\n".join(f"def f{n}(x):\n    return f{n + 1}(x) + f{n + 1}(x) + f{n + 1}(x)" for n in range(40)) + "\nf0(context)",
    "".join(f"{' ' * n}for a in context:\n" for n in range(60)) + " " * 60 + "llm_batch(a)",
    "a = a = a[a](a)(a)[a:a] = context",
    "answer = answer.answer = answer['x']['y'] = context",
    "lambda: (yield)",
    "x" * 300_000,
    "\x00",
    "\ud800",
    "llm_batch(*[context], **{'a': context})",
    "print(*context, sep=context)",
    "with open(context) as (a, *b): pass",
    "match context:\n    case [a, *b] if a: llm_batch(b)\n    case {'x': y}: print(y)",
    "del context, answer, llm_batch\nglobal context",
    "(lambda a, /, b, *c, d, **e: llm_batch([a]))(context)",
    "@context\nclass A(context): answer = context",
    "async def f():\n    async for x in context: await llm_batch(x)\nawait f()",
]


@pytest.mark.parametrize("code", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_code_is_read_in_bounded_time_and_raises_nothing(code):
    begun = time.process_time()
    assert read_program([[code, code]]).program in Program
    assert time.process_time() - begun < 5.0


TOKENS = """
context answer llm_batch print ( ) [ ] { } : , . = += for in if else while def return lambda x y f re findall split
'a' 1 f'{x}' * not and await async with try except yield import match case := |
"""
WORDS = st.sampled_from([*TOKENS.split(), "\n", "\n    "])


@settings(max_examples=150)
@given(st.lists(st.lists(WORDS, max_size=25).map(" ".join), max_size=4))
def test_no_text_breaks_it(cells):
    found = read_program([cells])
    assert found == read_program([cells])
    assert (found.program is Program.NO_CODE) == (not cells)
