"""A reply as a page shows it: thoughts, text and the code in it, in the order in which they were written."""

from __future__ import annotations

from typing import Any

from rlm_env.replies import Code, read_forms, visible_text
from rlm_env.rollout import Reply
from rlm_env.view.texts import Texts, cut, highlighted


def shown_reply(text: str, reasoning: str | None, cells: list[str]) -> dict[str, Any]:
    """`thoughts`, and `parts`: texts, and code as {"code": pairs, "ran": whether it was a cell}.

    Cells that are not in the text, such as those of native tool calls, stand at the end.
    """
    visible = visible_text(Reply(text=text, reasoning=reasoning))
    parts: list[Any] = []
    left = list(cells)
    at = 0
    for form in read_forms(visible):
        if not isinstance(form, Code) or form.start < at:
            continue
        ran = form.code in left
        if ran:
            left.remove(form.code)
        _add_text(parts, visible[at : form.start])
        parts.append({"code": highlighted(form.code), "ran": ran})
        at = form.end
    if left and left == cells:  # the code was read in a form that has no fence
        parts, at = _by_search(visible, left)
        left = left[sum("code" in part for part in parts if isinstance(part, dict)) :]
    _add_text(parts, visible[at:])
    parts += [{"code": highlighted(code), "ran": True} for code in left]
    return {"thoughts": cut(_thoughts(text, visible, reasoning)), "parts": parts}


def shown_tools(reply: dict[str, Any], texts: Texts) -> list[dict[str, Any]]:
    """The tool calls of a reply that ran, with their results."""
    return [
        {
            "name": result["name"],
            "arguments": cut(result["arguments"]),
            "output": texts.pieces(result["output"]),
            "error": result["error"],
            "seconds": result["seconds"],
        }
        for result in reply.get("tool_results", ())
    ]


def _by_search(text: str, cells: list[str]) -> tuple[list[Any], int]:
    """The parts of a text up to the last of the cells that are found in it one after the other."""
    parts: list[Any] = []
    at = 0
    for code in cells:
        found = text.find(code, at)
        if found < 0:
            break
        _add_text(parts, text[at:found])
        parts.append({"code": highlighted(code), "ran": True})
        at = found + len(code)
    return parts, at


def _add_text(parts: list[Any], text: str) -> None:
    if text.strip():
        parts.append(cut(text.strip("\n")))


def _thoughts(text: str, visible: str, reasoning: str | None) -> str:
    if reasoning:
        return reasoning
    if visible == text:
        return ""
    return text[: -len(visible)].strip() if visible and text.endswith(visible) else text.replace(visible, "").strip()
