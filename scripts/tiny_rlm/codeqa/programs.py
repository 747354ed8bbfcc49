"""The pieces of code that the teachers of `codeqa-rlm` put together.

Every program lists the options in the order of their letters, finds the index `i` of one, and ends in the same way.
The blocks of a file (functions, classes, its imports) are set apart by two empty lines.
"""

from __future__ import annotations

from tiny_rlm.codeqa.questions import CodeQuestion
from tiny_rlm.lessons import READY

BLOCKS = (
    r'blocks = {f[:-2] + re.split(r"\W+", b)[1]: t.split("def ")[0] + b for f, t in context.items() '
    r'for b in t.split("\n\n\n")}'
)
"""Function or class -> its code, after the imports of its file. The name of a module is its path without `py`:
`race.` + `show_drum`."""
TEXT = r'text = "\n".join(context.values())'
CONCLUDE = 'answer["content"] = f"The correct answer is ({\'ABCD\'[i]})"'


def options(question: CodeQuestion) -> str:
    """Four lines of code."""
    return f'options = [x[4:] for x in """{question.listed}""".split("\\n")]'


def start(question: CodeQuestion) -> list[str]:
    return ["import re", options(question), BLOCKS]


def heirs(question: CodeQuestion) -> list[str]:
    """Code to `good`, the options that inherit from the target. Only class statements and imports name classes, and
    no two classes or new names for them are alike, so modules do not matter; eight rounds, since heirs may stand before
    what they inherit."""
    return [
        "import re",
        options(question),
        f'names = {{"{question.name}"}}',
        r'for x in "\n".join(context.values()).split("\n") * 8:',
        r'    if names & set(re.findall(r"\w+", x)):',
        '        names.add(x.split("(")[0].split()[-1])',
        'good = [x for x in options if x.split(".")[1] in names]',
        "print(good)",
    ]


def ask(question: CodeQuestion) -> list[str]:
    """Code from `options` and `blocks` to the replies of sub-LLMs."""
    match question.family:
        case "callers":
            return [f'replies = llm_batch([f"Calls {question.target}? {{x}} {{blocks[x]}}" for x in options])']
        case "overrides":
            return [f'replies = llm_batch([f"Has {question.member}? {{blocks[x]}}" for x in good])']
        case "default":
            return [f'replies = llm_batch(["Default of {question.member}? " + blocks["{question.target}"]])']


def pick(question: CodeQuestion) -> str:
    """Code from `replies` to the index `i` of the option."""
    match question.family:
        case "callers":
            return 'i = replies.index("yes")'
        case "overrides":
            return 'i = options.index(good[replies.index("yes")])'
        case "default":
            return "i = options.index(replies[0])"


def names(question: CodeQuestion) -> list[str]:
    """Code to `names`, those under which the target is known where each option stands: through imports, or at home."""
    brought = f"from {question.module} import (?={question.name}\\b).*?(\\w+)\\n"
    home = f'"{question.target}".removeprefix(x.split(".")[0] + ".")'
    return [
        *start(question),
        f'names = {{x: re.findall(r"{brought}", blocks[x]) + [{home}] for x in options}}',
        "print(names)",
    ]


def search(question: CodeQuestion) -> list[str]:
    """Code to `i` without sub-LLMs. A branch above a bound of two digits is not taken by default, and a function has at
    most one."""
    match question.family:
        case "callers":
            called = 'any(f"= {n}(" in blocks[x] for n in names[x])'
            taken = 'not re.search(r"> \\d\\d:", blocks[x])'
            return [f"i = [{called} and {taken} for x in options].index(True)"]
        case "overrides":
            found = f'[x for x in good if "def {question.member}(" in blocks[x]][0]'
            return [*start(question), f"i = options.index({found})"]
        case "default":
            value = f're.search(r"{question.member}=(\\w+)", blocks["{question.target}"])[1]'
            return [*start(question), f"i = options.index({value})"]


def finish(*before: str) -> list[str]:
    return [*before, CONCLUDE, READY]
