"""Names that other RLMs give to what a REPL has under `answer` and `llm_batch`.

They are functions in every REPL (`repl/child/aliases.py`) and stand in no prompt.
"""

from __future__ import annotations

import ast
import re

from rlm_env.replies.fences import fenced_blocks
from rlm_env.replies.source import tree_of

ALIASES = ("FINAL", "FINAL_VAR", "SUBMIT", "llm_query", "llm_query_batched")
"""Names that other RLMs give to handing in an answer and to asking sub-LLMs."""

_LINE = re.compile(r"^[ \t*>]*`?(?P<name>FINAL_VAR|FINAL|SUBMIT)\((?P<value>.*)\)[`*.;]*[ \t]*$", re.MULTILINE)
_FIRST_LINE = re.compile(r"^[ \t]*(?P<name>FINAL|SUBMIT)\(", re.MULTILINE)


def handed_in(text: str) -> str | None:
    """The code for a `FINAL(...)` that a reply without code holds on a line of its own, or over several lines; None
    where there is none."""
    for block in reversed(fenced_blocks(text)):
        text = text[: block.start] + text[block.end :]
    text = text.rstrip()
    if found := _LINE.search(text):
        name, value = found["name"], found["value"].strip()
    elif (found := _FIRST_LINE.search(text)) and text.endswith(")"):
        name, value = found["name"], text[found.end() : -1].strip()
    else:
        return None
    if name == "FINAL_VAR":
        return f"FINAL_VAR({value.strip(chr(34) + chr(39) + ' ')!r})"
    code = f"{name}({value})"
    return code if _is_literal(value) else f"{name}({value!r})"


def _is_literal(value: str) -> bool:
    """True where the text in the brackets is written as Python: in quotes, or a number, list or the like."""
    try:
        ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return False
    return True


class AliasUses:
    """Counts where the code of one rollout names an alias, but for names that the code has bound itself."""

    def __init__(self) -> None:
        self.count = 0
        self._own: set[str] = set()

    def add(self, code: str) -> None:
        """Takes in a cell that is about to run."""
        if not any(name in code for name in ALIASES):
            return
        tree = tree_of(code)
        nodes = list(ast.walk(tree)) if tree is not None else []
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self._own.add(node.name)
            elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                self._own.add(node.id)
        self.count += sum(
            isinstance(node, ast.Name) and node.id in ALIASES and node.id not in self._own for node in nodes
        )
