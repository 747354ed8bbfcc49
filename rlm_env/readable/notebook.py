"""A rollout as a card in a notebook: HTML without scripts, in which everything a model wrote is escaped."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from rlm_env.readable import escaped
from rlm_env.readable.words import batch_facts, batches, call_line, shortened_lines, spent, turn_facts, verdict

LINES = 40
"""Most lines of one text."""
CALLS = 20
_PRE = "margin:2px 0 8px;padding:6px 10px;white-space:pre-wrap;overflow-wrap:anywhere;border-left:3px solid #8886"
_BOX = "border:1px solid #8885;border-radius:8px;padding:10px 14px;max-width:960px;font-size:0.95em"


def rollout_html(rollout: Any) -> str:
    """The card: question, answer and verdict, and each turn to be opened."""
    gold = rollout.gold if isinstance(rollout.gold, str) else json.dumps(rollout.gold, ensure_ascii=False)
    explained = rollout.score.explanation if rollout.score else None
    facts = {"question": rollout.question, "answer": rollout.answer or "(none)", "right answer": gold}
    parts = [
        f'<div style="{_BOX}">',
        f"<b>{escaped(rollout.id or rollout.task_id)}</b> {escaped(', '.join([*verdict(rollout), *spent(rollout)]))}",
    ]
    for label, text in {**facts, "why": explained, "error": rollout.error}.items():
        if text and text != "null":
            parts.append(f"<div><small>{label}</small>{_pre(text)}</div>")
    parts += [_turn(rollout, turn, index) for index, turn in enumerate(rollout.turns)]
    return "".join([*parts, "</div>"])


def _turn(rollout: Any, turn: Any, index: int) -> str:
    inner = [f"<small>thoughts</small>{_pre(turn.reasoning)}"] if turn.reasoning else []
    inner += [f"<small>says</small>{_pre(turn.text)}"] if turn.text.strip() else []
    inner += [f"<small>code that ran</small>{_pre(code)}" for code in turn.code]
    inner += [
        f"<small>tool</small>{_pre(f'{result.name}({result.arguments}){chr(10)}{result.observation}')}"
        for result in turn.tool_results
    ]
    for calls in batches(rollout, index):
        listed = "\n".join(call_line(call, 80) for call in calls[:CALLS])
        more = f"\nand {len(calls) - CALLS:,} more" if len(calls) > CALLS else ""
        inner.append(f"<details><summary>{escaped(batch_facts(calls))}</summary>{_pre(listed + more)}</details>")
    inner += [f"<small>saw</small>{_pre(turn.observation)}"] if turn.observation else []
    inner += [f"<small>answer is now</small>{_pre(turn.answer)}"] if turn.answer else []
    head = f"turn {index + 1}: {', '.join(turn_facts(turn))}{', error' if turn.error else ''}"
    return f"<details><summary>{escaped(head)}</summary>{''.join(inner)}</details>"


def _pre(text: Any) -> str:
    return f'<pre style="{_PRE}">{escape(shortened_lines(str(text), LINES))}</pre>'
