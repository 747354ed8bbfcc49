"""Functions under the names that other RLMs give to `answer` and `llm_batch`, which models may have learned.

They stand in no prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def aliases_for(names: dict[str, Any]) -> dict[str, Callable[..., Any]]:
    """The functions for a REPL with this namespace; those of sub-LLMs only where it has `llm_batch`."""

    def hand_in(content: Any) -> None:
        names["answer"] = {"content": content, "ready": True}

    def final(value: Any = None) -> None:
        hand_in(value)

    def final_var(name: Any) -> None:
        if not isinstance(name, str):
            return hand_in(name)
        key = name.strip().strip("\"'")
        if key in names:
            return hand_in(names[key])
        if key.isidentifier():
            raise NameError(f"name {key!r} is not defined: FINAL_VAR takes the name of a variable")
        return hand_in(name)

    def submit(*values: Any, **fields: Any) -> None:
        given = [*values, *fields.values()]
        hand_in(given[0] if len(given) == 1 else fields or list(values))

    found: dict[str, Callable[..., Any]] = {"FINAL": final, "FINAL_VAR": final_var, "SUBMIT": submit}
    batch = names.get("llm_batch")
    if batch is not None:

        def llm_query(prompt: Any, *_model: Any, **_settings: Any) -> Any:
            return batch([prompt])[0]

        def llm_query_batched(prompts: Any, *_model: Any, **_settings: Any) -> Any:
            return batch(prompts)

        found |= {"llm_query": llm_query, "llm_query_batched": llm_query_batched}
    return found
