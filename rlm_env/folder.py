"""A folder that a person hands over: which of its files a model may read.

Left out are links, what git ignores or keeps for itself, files that usually hold secrets, what tools have made, and
files that are not text. Not covered: folders that an environment gives as a context, which are taken whole
(`context.py`).
"""

from __future__ import annotations

import codecs
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

GITIGNORE = ".gitignore"
LEFT_OUT = {
    "version control": (".git", ".hg/", ".svn/", ".jj/", ".bzr/"),
    "possible secrets": (
        *(".env*", ".netrc", ".pgpass", ".pypirc", ".npmrc", ".htpasswd", ".git-credentials"),
        *(".ssh/", ".gnupg/", ".aws/", ".azure/", ".kube/"),
        *("*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx"),
        *("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519"),
    ),
    "made by tools": ("__pycache__/", "node_modules/", ".venv/"),
}
"""Reason -> patterns in the syntax of .gitignore."""
IGNORED, EXCLUDED, NOT_INCLUDED = "ignored by git", "excluded", "not included"
LINK, NOT_TEXT, NO_FILE, UNREADABLE = "links", "not UTF-8 text", "not regular files", "cannot be read"
WILDCARDS = frozenset("*?[")
_CHUNK = 2**20


@dataclass(frozen=True, slots=True)
class Folder:
    """The files of a folder that were chosen to be a context. `choose_files` makes one.

    In the REPL it is a dict of relative path to text; a file that is not text, which `include` named, is bytes.
    """

    path: Path
    files: Mapping[str, Path]
    """Relative path with "/" -> file, sorted."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Relative path -> the reason; a folder ends in "/" and stands for all that is in it."""

    def summary(self) -> str:
        """One line: how many files there are, and what was left out."""
        reasons = Counter(self.left_out.values())
        left_out = ", ".join(f"{reason} ({count:,})" for reason, count in reasons.most_common())
        return f"{len(self.files):,} files" + (f"; left out: {left_out}" if left_out else "")


def choose_files(
    path: Path, include: Iterable[str] = (), exclude: Iterable[str] = (), *, documents: Collection[str] = ()
) -> Folder:
    """The files of a folder that a model may read.

    `include`: only files that match one of these patterns. One without wildcards ("logo.png", "build/") also
    takes in that file or folder where it is left out otherwise, but no link. `exclude`: further patterns of what is
    left out. Both are in the syntax of .gitignore, relative to the folder. `documents`: suffixes, such as ".pdf", of
    files that the caller makes text of; they need not be UTF-8 text.

    Raises FileNotFoundError and NotADirectoryError where there is no such folder, ValueError for a pattern that cannot
    be read, and where no file is left.
    """
    if not path.is_dir():
        kind = NotADirectoryError if path.exists() else FileNotFoundError
        raise kind(f"there is no folder {path}")
    found = Folder(path, files := {}, left_out := {})
    rules = _Rules(_patterns(include, "include"), _patterns(exclude, "exclude"), documents)
    for name, entry, reason in _walk(path, rules):
        if reason is None:
            files[name] = entry
        else:
            left_out[name] = reason
    if not files:
        raise ValueError(f"{path} has no file for a model to read ({found.summary()}); `include` takes files in")
    return found


def _why_not_text(path: Path) -> str | None:
    """Why a file is no UTF-8 text; None for one that is. A zero byte is in no text."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with open(path, "rb") as file:
            while data := file.read(_CHUNK):
                if b"\0" in data:
                    return NOT_TEXT
                decoder.decode(data)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return NOT_TEXT
    except OSError:
        return UNREADABLE
    return None


def _patterns(patterns: Iterable[str], name: str) -> tuple[str, ...]:
    if isinstance(patterns, str):
        return (patterns,)
    found = tuple(patterns)
    if wrong := [pattern for pattern in found if not isinstance(pattern, str)]:
        raise TypeError(f"{name} takes patterns as text, got {wrong[0]!r}")
    return found


def _spec(lines: Iterable[str], where: str) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec

    try:
        return GitIgnoreSpec.from_lines(lines)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


class _Rules:
    """What is left out of every folder, and what the caller wants."""

    def __init__(self, include: Sequence[str], exclude: Sequence[str], documents: Collection[str]) -> None:
        self.documents = documents
        self._included = _spec(include, "include") if include else None
        self._excluded = _spec(exclude, "exclude")
        self._named = [pattern for pattern in include if not WILDCARDS & set(pattern)]
        self._left_out = {reason: _spec(patterns, reason) for reason, patterns in LEFT_OUT.items()}

    def names(self, name: str) -> bool:
        """The caller has named this very file or folder, without wildcards."""
        path, is_folder = name.rstrip("/"), name.endswith("/")
        for pattern in self._named:
            wanted = pattern.strip("/")
            here = path if "/" in pattern.rstrip("/") else path.rpartition("/")[2]
            if here == wanted and (is_folder or not pattern.endswith("/")):
                return True
        return False

    def names_within(self, folder: str) -> bool:
        """The caller has named something in this folder by its path."""
        return any(pattern.lstrip("/").startswith(folder) for pattern in self._named)

    def excludes(self, name: str) -> bool:
        return self._excluded.match_file(name)

    def includes(self, name: str) -> bool:
        return self._included is None or self._included.match_file(name)

    def left_out(self, name: str) -> str | None:
        """Why a file or folder of this last name is left out everywhere."""
        return next((reason for reason, spec in self._left_out.items() if spec.match_file(name)), None)


class _Ignored:
    """The ignore files of git that hold in a folder: its own, and those of the folders above it in the repository."""

    def __init__(self, specs: Sequence[tuple[Path, GitIgnoreSpec]]) -> None:
        self._specs = specs

    @classmethod
    def above(cls, folder: Path) -> _Ignored:
        """Those of the folders above, of the repository, and of the user."""
        folder = folder.resolve()
        root = next((place for place in (folder, *folder.parents) if (place / ".git").exists()), None)
        if root is None:
            return cls(())
        home = Path(os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser())
        files = [(root, home / "git" / "ignore"), (root, root / ".git" / "info" / "exclude")]
        inner = folder.relative_to(root).parts
        places = [root.joinpath(*inner[:depth]) for depth in range(len(inner))]
        return cls(_read_specs([*files, *((place, place / GITIGNORE) for place in places)]))

    def within(self, folder: Path) -> _Ignored:
        """With the ignore file of a folder below."""
        more = _read_specs([(folder.resolve(), folder / GITIGNORE)])
        return _Ignored([*self._specs, *more]) if more else self

    def covers(self, path: Path, *, is_folder: bool) -> bool:
        """The last pattern that matches decides, and the innermost file comes first."""
        for base, spec in reversed(self._specs):
            name = path.relative_to(base).as_posix() + ("/" if is_folder else "")
            if (result := spec.check_file(name).include) is not None:
                return result
        return False


def _read_specs(files: Iterable[tuple[Path, Path]]) -> list[tuple[Path, GitIgnoreSpec]]:
    found = []
    for base, file in files:
        try:
            lines = file.read_text("utf-8", "replace").splitlines()
        except OSError:
            continue
        found.append((base, _spec(lines, str(file))))
    return found


def _walk(root: Path, rules: _Rules) -> Iterator[tuple[str, Path, str | None]]:
    """Every file as (relative path, path, reason why it is left out), sorted; a folder that is left out as one."""
    yield from _Walk(root.resolve(), rules).folder(root, "", _Ignored.above(root), None)


@dataclass(frozen=True, slots=True)
class _Walk:
    root: Path
    rules: _Rules

    def folder(
        self, folder: Path, prefix: str, ignored: _Ignored | None, left_out: str | None
    ) -> Iterator[tuple[str, Path, str | None]]:
        """`ignored`: None in a folder that the caller has named although git ignores it. `left_out`: why only what the
        caller has named is taken from this folder."""
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            yield prefix, folder, UNREADABLE
            return
        ignored = ignored and ignored.within(folder)
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            path, name = folder / entry.name, f"{prefix}{entry.name}{'/' if is_folder else ''}"
            reason = left_out or self._left_out(name, ignored)
            if is_folder and not self.rules.excludes(name) and (reason is None or self.rules.names(name)):
                yield from self.folder(path, name, None if reason else ignored, None)
            elif is_folder and not self.rules.excludes(name) and self.rules.names_within(name):
                yield from self.folder(path, name, ignored, reason)
            else:
                yield name, path, self._why(entry, path, name, reason)

    def _left_out(self, name: str, ignored: _Ignored | None) -> str | None:
        last = name.rstrip("/").rpartition("/")[2] + ("/" if name.endswith("/") else "")
        if reason := self.rules.left_out(last):
            return reason
        return IGNORED if ignored and ignored.covers(self.root / name, is_folder=name.endswith("/")) else None

    def _why(self, entry: os.DirEntry[str], path: Path, name: str, reason: str | None) -> str | None:
        """Why an entry that is not gone into is left out."""
        if entry.is_symlink():
            return LINK
        if self.rules.excludes(name):
            return EXCLUDED
        if not entry.is_file(follow_symlinks=False):
            return reason or NO_FILE
        if self.rules.names(name):
            return None
        if reason is not None or not self.rules.includes(name):
            return reason or NOT_INCLUDED
        return None if path.suffix.lower() in self.rules.documents else _why_not_text(path)
