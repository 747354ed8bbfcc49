"""What the sub-LLM reads in the lessons of `codeqa-rlm`, and its right answers.

Four kinds of prompts: `Calls module.name?` with a function below the imports of its file, `Has method?` with a class,
`Default of parameter?` with a function, `Choose:` with the whole question and all files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from rlm_env.llm.base import ContextOverflow

CHOOSABLE = 3500
"""Characters of a prompt `Choose:`, which is code: about as much as tiny-rlm's window holds."""
_CALLS = re.compile(r"Calls (\w+)\.(\w+)\? (\w+)\.\w+ (.*)", re.S)
_HAS = re.compile(r"Has (\w+)\? (.*)", re.S)
_DEFAULT = re.compile(r"Default of (\w+)\? .*?\b\1=(\w+)", re.S)
_CHOOSE = re.compile(r"Choose: (.*?\n\(D\) [^\n]*)", re.S)
_IMPORT = re.compile(r"^from (\w+) import (\w+)(?: as (\w+))?$", re.M)
_NOT_TAKEN = re.compile(r"> \d\d:")
"""A branch that the defaults do not take: switches default to 10 to 29, bounds have one digit or are above 29."""


def read_code(prompt: str, letters: Mapping[str, str]) -> str | None:
    """The right answer; None for a prompt that no teacher writes. `letters`: the right option by `chosen_from`."""
    if found := _CALLS.fullmatch(prompt):
        return _yes(_is_called(*found.groups()))
    if found := _HAS.fullmatch(prompt):
        return _yes(f"def {found[1]}(" in found[2])
    if found := _DEFAULT.match(prompt):
        return found[2]
    if (found := _CHOOSE.match(prompt)) and found[1] in letters:
        if len(prompt) > CHOOSABLE:
            raise ContextOverflow(None, None)
        return letters[found[1]]
    return None


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def _is_called(module: str, name: str, where: str, code: str) -> bool:
    """True if the function is called by `code`, which stands in the module `where` and begins with its imports."""
    names = {f"{module}.{name}"} | ({name} if where == module else set())
    names |= {alias or brought for owner, brought, alias in _IMPORT.findall(code) if (owner, brought) == (module, name)}
    return any(f"= {known}(" in code for known in names) and not _NOT_TAKEN.search(code)


def block_prompts(files: Mapping[str, str]) -> Iterator[str]:
    """For each function of the files a prompt `Calls ...?` about each other function that its text names (in a call, a
    branch, a comment, a text, under another name) and `Default of ...?` about each parameter; for each class one
    `Has ...?` about each method that its text names, and about one that it does not."""
    methods = sorted({name for text in files.values() for name in re.findall(r"    def (\w+)\(", text)})
    for path, text in files.items():
        where, top = path.removesuffix(".py"), text.split("def ")[0]
        blocks = text.split("\n\n\n")
        functions = {b.split("(")[0].removeprefix("def "): b for b in blocks if b.startswith("def ")}
        for block in blocks:
            if block.startswith("class "):
                named = [name for name in methods if name in block]
                for name in [*named, *[name for name in methods if name not in named][:1]]:
                    yield f"Has {name}? {top}{block}"
        known = {name: (where, name) for name in functions}
        known |= {alias or name: (module, name) for module, name, alias in _IMPORT.findall(text)}
        for function, block in functions.items():
            named = {known[word] for word in re.findall(r"\w+", block) if word in known and word != function}
            named |= set(re.findall(r"= (\w+)\.(\w+)", block))
            for module, name in sorted(named):
                yield f"Calls {module}.{name}? {where}.{function} {top}{block}"
            for parameter in re.findall(r"(\w+)=", block.split("\n")[0]):
                yield f"Default of {parameter}? {top}{block}"
