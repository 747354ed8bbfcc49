"""The contexts of stored rollouts: once per run, and references to them in the prompts that quote them.

In a stored rollout, a prompt or observation that quotes 64 characters or more of the context is {"$parts": [...]}:
text, [start, end] of the context, or the index of a text that occurs several times. `contexts/` beside the file holds
each context that is referred to, under its hash.
"""

from __future__ import annotations

import os
from collections import Counter, OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlm_env.context import Context, context_text
from rlm_env.stretches import SHORTEST, Part, Stretches, unfold

CONTEXTS = "contexts"
"""The folder, beside the file of rollouts."""
PARTS = "$parts"
_KEPT, _KEPT_CHARS = 16, 2**28
"""Contexts that are kept in memory with their index, and their characters, not counting the last one."""


class ContextError(ValueError):
    """A context that a stored rollout refers to is missing or not the one that it was."""


def source_text(context: Context) -> str:
    """The text that prompts quote. Of a list or dict, its strings, which code prints as they are, and its JSON."""
    if isinstance(context, list | dict):
        return "\n".join([*_strings(context), context_text(context)])
    if isinstance(context, bytes):
        return context.decode("utf-8", "replace")
    if isinstance(context, Path) and not context.is_dir():
        return context.read_bytes().decode("utf-8", "replace")
    return context_text(context)


class ContextStore:
    """The contexts of one run's rollouts, in a folder that is made when the first one is referred to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sources: OrderedDict[int, tuple[Context, Stretches]] = OrderedDict()
        """By the id of the context, which is kept alive too."""
        self._read: OrderedDict[str, str] = OrderedDict()

    def source(self, context: Context) -> Stretches:
        """A context with its index, which is kept for the next rollout of the task. Raises OSError if its files cannot
        be read."""
        key = id(context)
        if key not in self._sources:
            self._sources[key] = context, Stretches(source_text(context))
        self._sources.move_to_end(key)
        while _too_many([len(one.source) for _, one in self._sources.values()]):
            self._sources.popitem(last=False)
        return self._sources[key][1]

    def save(self, source: Stretches) -> None:
        """Writes a context, unless it is there already. Raises OSError."""
        path = self._path(source.sha256)
        if path.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.part")
        partial.write_bytes(source.source.encode("utf-8", "surrogatepass"))
        partial.replace(path)

    def text(self, sha256: str) -> str:
        """A stored context. Raises ContextError, which names it, where it is missing or has changed."""
        if sha256 in self._read:
            self._read.move_to_end(sha256)
            return self._read[sha256]
        path = self._path(sha256)
        try:
            text = path.read_bytes().decode("utf-8", "surrogatepass")
        except (OSError, UnicodeDecodeError) as error:
            raise ContextError(f"it refers to the context {sha256}, and {path} cannot be read: {error}") from error
        if Stretches(text).sha256 != sha256:
            raise ContextError(f"it refers to the context {sha256}, and {path} is not that any more")
        self._read[sha256] = text
        while _too_many([*map(len, self._read.values())]):
            self._read.popitem(last=False)
        return text

    def _path(self, sha256: str) -> Path:
        """The file of a context, by its hash."""
        return self.folder / f"{sha256}.txt"


def _too_many(chars: list[int]) -> bool:
    return len(chars) > 1 and (len(chars) > _KEPT or sum(chars) > _KEPT_CHARS)


def fold_record(record: dict[str, Any], context: Context, store: ContextStore) -> None:
    """Puts references into the prompts and observations of a record, in place, and the context into the store."""
    try:
        source = store.source(context)
    except (OSError, ValueError):
        return  # its files are gone: the record holds the text itself
    folded = [(holder, key, source.fold(holder[key])) for holder, key in _places(record)]
    literals = Counter(
        part for *_, parts in folded for part in parts if isinstance(part, str) and len(part) >= SHORTEST
    )
    repeated = {text: index for index, text in enumerate(text for text, count in literals.items() if count > 1)}
    refers = False
    for holder, key, parts in folded:
        if len(parts) == 1 and isinstance(parts[0], str) and parts[0] not in repeated:
            continue
        refers = refers or any(isinstance(part, list) for part in parts)
        holder[key] = {PARTS: [repeated.get(part, part) if isinstance(part, str) else part for part in parts]}
    if repeated:
        record["texts"] = list(repeated)
    if refers:
        store.save(source)
        record["context"] = {"sha256": source.sha256, "chars": len(source.source)}


def unfold_record(record: dict[str, Any], store: ContextStore | None) -> tuple[dict[str, Any], str | None]:
    """The inverse of `fold_record`, as a new record, and the context that it refers to. Raises ContextError."""
    reference, texts = record.get("context"), record.get("texts", [])
    source = ""
    if reference is not None:
        if store is None:
            raise ContextError(f"it refers to the context {reference['sha256']}; read it with the file that it is in")
        source = store.text(reference["sha256"])

    def whole(value: Any) -> Any:
        if isinstance(value, dict):
            if value.keys() == {PARTS}:
                return "".join(text(part) for part in value[PARTS])
            return {key: item if key == "tool_calls" else whole(item) for key, item in value.items()}
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return [whole(item) for item in value]
        return value

    def text(part: Part | int) -> str:
        return texts[part] if isinstance(part, int) else unfold([part], source)

    kept = {name: value for name, value in record.items() if name not in ("context", "texts")}
    folded = {name: whole(kept[name]) for name in ("messages", "turns", "sub_calls") if name in kept}
    return kept | folded, None if reference is None else source


def _places(record: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """The prompts and observations of a record, as (dict, key)."""
    for message in record.get("messages", ()):
        if message.get("role") != "assistant":
            yield from _text_of(message, "content")
    for turn in record.get("turns", ()):
        yield from _text_of(turn, "observation")
        for message in turn.get("prompt") or ():
            yield from _text_of(message, "content")
        for result in turn.get("tool_results", ()):
            yield from _text_of(result, "output")
    for call in record.get("sub_calls", ()):
        for message in call.get("messages", ()):
            yield from _text_of(message, "content")
        for turn in call.get("tool_turns", ()):
            for result in turn.get("tool_results", ()):
                yield from _text_of(result, "output")


def _text_of(holder: dict[str, Any], key: str) -> Iterator[tuple[dict[str, Any], str]]:
    value = holder.get(key)
    if isinstance(value, str):
        yield holder, key


def _strings(value: Any) -> Iterator[str]:
    """The strings of a list or dict, at any depth, in order."""
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            todo += [item for pair in reversed(one.items()) for item in (pair[1], pair[0])]
        elif isinstance(one, list | tuple):
            todo += reversed(one)
