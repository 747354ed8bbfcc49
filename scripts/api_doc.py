"""Writes docs/api.md: every public name with its signature, fields, methods and docstring.

python scripts/api_doc.py            # writes the page
python scripts/api_doc.py --check    # exit code 1 where it is out of date

Sources are read, not imported: no extra needs to be installed. `SECTIONS` says what is public beside `__all__`.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from options_tables import PAGES

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "api.md"
HEAD = """\
# API

Every public name: what other people's code may import and can count on. A release that renames or removes one says so
in [CHANGELOG.md](../CHANGELOG.md). All other names belong to the inside ([modules.md](modules.md)). Written by
`scripts/api_doc.py` from the docstrings.
"""
WIDTH = 100
"""Columns of a signature on one line."""
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
OPTION_PAGES = {model.__name__: page.name for page, models in PAGES.items() for model in models}
"""Classes of options -> the page that has their fields as a table."""


@dataclass(frozen=True)
class Section:
    """The public names of some modules. A module without names has all of its `__all__`, else of what it describes."""

    title: str
    about: str
    modules: dict[str, tuple[str, ...]]


SECTIONS = (
    Section("rlm_env", "What `import rlm_env` gives.", {"rlm_env": ()}),
    Section("Tasks and rollouts", "The parts of a record.", {
        "rlm_env.task": ("Tasks",),
        "rlm_env.rollout": ("Reply", "Turn", "SubCall", "SubTurn", "RecordError", "read_rollouts"),
        "rlm_env.messages": ("Message", "Usage"),
    }),
    Section("Events", "What `on_event` is called with.", {"rlm_env.events": ()}),
    Section("Engines", "Who answers prompts.", {"rlm_env.llm": ()}),
    Section("REPL", "Usable without LLMs.", {"rlm_env.repl": ()}),
    Section("Scaffolds", "How an LLM gets at a task.", {"rlm_env.scaffolds": (), "rlm_env.tools": ()}),
    Section("Replies", "For scaffolds of one's own: code, calls and thoughts in what a model wrote.", {
        "rlm_env.replies": (),
    }),
    Section("Scoring", "A score, in the process or apart from it.", {"rlm_env.scoring": ()}),
    Section("Finding environments", "By the name under which a package registers them.", {
        "rlm_env.registry": ("environments", "find_environment", "UnknownOption"),
    }),
    Section("Writing environments", "Draws that are the same everywhere, options, data sets.", {
        "rlm_env.authoring.draw": (),
        "rlm_env.authoring.options": (),
        "rlm_env.authoring.indexed": (),
        "rlm_env.authoring.published": (),
        "rlm_env.authoring.text": (),
    }),
    Section("Evaluations", "What `rlm_env.evaluate` is made of.", {
        "rlm_env.evals.config": ("EvalConfig", "load_eval_config"),
        "rlm_env.evals.matrix": ("run_any",),
        "rlm_env.evals.stored": ("stored_eval",),
        "rlm_env.reports.reading": ("read_report",),
        "rlm_env.reports.data": ("ReportData", "EvalReport", "RunFacts", "RunComparison", "TrainingReport", "Curve"),
        "rlm_env.runs.errors": ("ConfigError", "RunStopped"),
    }),
    Section("Training", "From rollouts to samples, advantages, a loss and an update; needs the extra `train`.", {
        "rlm_env.train.learner.samples": ("Sample", "SampleKind", "rollout_samples"),
        "rlm_env.train.rl.advantage": ("AdvantageConfig", "group_advantages"),
        "rlm_env.train.learner.config": ("LossConfig", "ModelConfig", "OptimizerConfig", "LoraConfig"),
        "rlm_env.train.learner.loss": ("policy_loss", "loss_denominator"),
        "rlm_env.train.rl.config": ("TrainConfig", "load_train_config"),
    }),
    Section("Other frameworks", "verifiers and prime-rl, TRL, dspy, `datasets`; each needs the extra of its name.", {
        "rlm_env.plugins": ("PLUGINS", "lazy_names"),
        "rlm_env.adapters.verifiers.taskset": ("RLMTaskset",),
        "rlm_env.adapters.verifiers.harness": ("RLMHarness",),
        "rlm_env.adapters.verifiers.seats": ("RLMSeatsEnv",),
        "rlm_env.adapters.trl": (),
        "rlm_env.adapters.dspy_interpreter": (),
    }),
    Section("Rewards", "The package `rlm_rewards`: pure functions of an output and a gold answer.", {
        "rlm_rewards.codeqa": ("score", "extract_choice"),
        "rlm_rewards.deepdive": (
            *("score", "extract_answer", "answers_match", "judge_verdict", "judge_has_verdict", "judge_extracted"),
            *("trajectory_is_valid", "redundancy"),
        ),
        "rlm_rewards.math_python": ("score", "scores", "extract", "MathWorker"),
        "rlm_rewards.needle": ("score",),
        "rlm_rewards.oolong": ("score", "judge", "pairs_f1", "read_pairs", "read_gold", "show_gold"),
        "rlm_rewards.verbatim_copy": ("metrics", "extract_answer", "extract_box", "levenshtein_similarity"),
    }),
)  # fmt: skip


def page() -> str:
    """The whole page."""
    parts, told = [HEAD], dict[str, str]()
    for section in SECTIONS:
        parts.append(f"## {section.title}\n\n{section.about}\n")
        for module in section.modules:
            again = []
            for name in public_names(module, section):
                home, node = resolve(module, name)
                if f"{home}.{name}" in told:
                    again.append(f"`{name}`")
                else:
                    told[f"{home}.{name}"] = module
                    parts.append("\n".join(entry(f"{module}.{name}", home, node)))
            if again:
                parts.append(f"`{module}` has {', '.join(again)} too.\n")
    return "\n".join(parts)


def public_names(module: str, section: Section) -> list[str]:
    """The public names of a module, in the order of the page."""
    return list(section.modules[module]) or listed(module) or definitions(module)


def listed(module: str) -> list[str]:
    """The names in a module's `__all__`; none where it has none."""
    for node in tree_of(module).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [
                str(ast.literal_eval(name))
                for name in getattr(node.value, "elts", ())
                if isinstance(name, ast.Constant)
            ]
    return []


def definitions(module: str) -> list[str]:
    """The classes and functions that a module defines and describes, without private ones."""
    found = [node for node in tree_of(module).body if isinstance(node, Definition) and ast.get_docstring(node)]
    return [node.name for node in found if node.name[0] != "_"]


def resolve(module: str, name: str) -> tuple[str, ast.stmt]:
    """The module that defines a name which `module` has, and its definition. Raises KeyError if there is none."""
    imported = None
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            imported = node.module
    for node in tree_of(module).body:
        if isinstance(node, Definition) and node.name == name:
            return module, node
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return module, node
    if imported is None:
        raise KeyError(f"{module} has no {name}")
    return resolve(imported, name)


@cache
def tree_of(module: str) -> ast.Module:
    """The parsed source of a module of this project."""
    base = ROOT / ("rewards" if module.startswith("rlm_rewards") else "") / module.replace(".", "/")
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    return ast.parse(path.read_text("utf-8"))


def entry(name: str, home: str, node: ast.stmt) -> Iterator[str]:
    """What the page says of one name; `home` is the module that defines it."""
    yield f"### `{name}`\n"
    if isinstance(node, ast.ClassDef):
        yield from class_entry(node)
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield f"```python\n{signature(node)}: ...\n```\n"
        yield about(node)
    else:
        yield f"{constant_text(home, node)}\n"


def class_entry(node: ast.ClassDef) -> Iterator[str]:
    """Bases, docstring, constructor, fields and methods of a class."""
    bases = f"({', '.join(ast.unparse(base) for base in node.bases)})" if node.bases else ""
    constructor = next((m for m in methods(node) if m.name == "__init__"), None)
    body = f"\n    {signature(constructor, indent='    ')}: ..." if constructor else " ..."
    yield f"```python\nclass {node.name}{bases}:{body}\n```\n"
    yield about(node)
    if constructor and ast.get_docstring(constructor):
        yield about(constructor)
    if node.name in OPTION_PAGES:
        yield f"Its fields: [{OPTION_PAGES[node.name]}]({OPTION_PAGES[node.name]}).\n"
    elif rows := list(field_rows(node)):
        yield "\n".join(["| field | type | meaning |", "| --- | --- | --- |", *rows]) + "\n"
    shown = [m for m in methods(node) if m.name[0] != "_" or m.name == "__call__"]
    if shown:
        yield "\n".join(f"- `{method_line(method)}`{first_paragraph(method)}" for method in shown) + "\n"


def methods(node: ast.ClassDef) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [inner for inner in node.body if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)]


def field_rows(node: ast.ClassDef) -> Iterator[str]:
    """A row for each annotated field, and each member of an enumeration, with the text below it."""
    for statement, after in zip(node.body, [*node.body[1:], None], strict=True):
        target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        if not isinstance(target, ast.Name) or target.id[0] == "_" or target.id == "model_config":
            continue
        text = " ".join(docstring_below(after).split())
        kind = ast.unparse(statement.annotation if isinstance(statement, ast.AnnAssign) else statement.value)
        if isinstance(statement, ast.AnnAssign) and statement.value is not None:
            kind += f" = {ast.unparse(statement.value)}"
        yield f"| `{target.id}` | `{cell(kind)}` | {cell(text)} |"


def docstring_below(after: ast.stmt | None) -> str:
    """The text that stands alone below a field; "" where there is none."""
    constant = after.value if isinstance(after, ast.Expr) else None
    return constant.value if isinstance(constant, ast.Constant) and isinstance(constant.value, str) else ""


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef, indent: str = "") -> str:
    """`def name(arguments) -> type`, on several lines where one is too long."""
    head = f"{'async ' if isinstance(node, ast.AsyncFunctionDef) else ''}def {node.name}("
    tail = f") -> {ast.unparse(node.returns)}" if node.returns else ")"
    line = f"{head}{ast.unparse(node.args)}{tail}"
    if len(line) <= WIDTH:
        return line
    inner = "".join(f"\n{indent}    {text}," for text in arguments(node.args))
    return f"{head}{inner}\n{indent}{tail}"


def arguments(args: ast.arguments) -> list[str]:
    """Each argument with its annotation and default, and the marks `/` and `*`."""
    positional = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(positional) - len(args.defaults)) + list(args.defaults)
    texts = [argument(arg, value) for arg, value in zip(positional, defaults, strict=True)]
    if args.posonlyargs:
        texts.insert(len(args.posonlyargs), "/")
    if args.vararg or args.kwonlyargs:
        texts.append(f"*{argument(args.vararg, None)}" if args.vararg else "*")
    texts += [argument(arg, value) for arg, value in zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    return texts + ([f"**{argument(args.kwarg, None)}"] if args.kwarg else [])


def argument(arg: ast.arg, value: ast.expr | None) -> str:
    text = ast.unparse(arg)
    return (
        text
        if value is None
        else f"{text} = {ast.unparse(value)}"
        if arg.annotation
        else f"{text}={ast.unparse(value)}"
    )


def method_line(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """A method as it is called: without `self`; a property without brackets."""
    kinds = {ast.unparse(decorator) for decorator in node.decorator_list}
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    if kinds & {"property", "cached_property"}:
        return f"{node.name}{returns}"
    texts = arguments(node.args)[0 if "staticmethod" in kinds else 1 :]
    prefix = "await " if isinstance(node, ast.AsyncFunctionDef) else ""
    return f"{prefix}{node.name}({', '.join(texts)}){returns}"


def first_paragraph(node: Definition) -> str:
    text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
    return f": {text}" if text else ""


def about(node: Definition) -> str:
    """The docstring as Markdown: a blank line below, `Args:` and its like as they are."""
    return f"{ast.get_docstring(node) or ''}\n"


def constant_text(module: str, node: ast.stmt) -> str:
    """The text below a constant."""
    body = tree_of(module).body
    index = body.index(node)
    return docstring_below(body[index + 1] if index + 1 < len(body) else None) or "A constant."


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where it is out of date")
    if not parser.parse_args().check:
        PAGE.write_text(page(), "utf-8")
        return 0
    if PAGE.read_text("utf-8") == page():
        return 0
    print("docs/api.md is out of date: run python scripts/api_doc.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
