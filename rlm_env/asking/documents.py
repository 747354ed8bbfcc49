"""What a person names on a command line, as a context: files, folders, standard input; documents become text.

Which files of a folder a model may read is decided in `rlm_env/folder.py`. Nothing is fetched, and nothing is read
besides what was named.
"""

from __future__ import annotations

import io
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rlm_env.folder import choose_files
from rlm_env.runs.errors import ConfigError

STDIN = "-"


@dataclass(frozen=True, slots=True)
class Documents:
    """The context of a question, and what was made of the files that it comes from."""

    context: str | bytes | dict[str, str | bytes]
    """The text of one file or of standard input; of several, or of a folder, a dict of path to text."""
    files: int
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Name -> why the file (or all in the folder, which ends in "/") is not in the context."""

    @property
    def size(self) -> int:
        """Characters of text and bytes of the rest."""
        texts = self.context.values() if isinstance(self.context, dict) else (self.context,)
        return sum(map(len, texts))

    def left_out_by_reason(self) -> Counter[str]:
        """Number of files and folders that were left out, by reason."""
        return Counter(self.left_out.values())


def read_documents(
    paths: Sequence[str | Path], include: Iterable[str] = (), exclude: Iterable[str] = (), stdin: str | None = None
) -> Documents:
    """The files, folders and `-` (standard input) that are named, as one context.

    `include`, `exclude`: patterns for the files of folders, as in `folder.choose_files`. `stdin`: the text of standard
    input, if it is read already. A file that is named itself is read whatever it is called; one that is neither text
    nor a document that is known becomes bytes. Raises ConfigError for what cannot be read.
    """
    include, exclude = tuple(include), tuple(exclude)
    found: dict[str, str | bytes] = {}
    left_out: dict[str, str] = {}
    several = len(paths) > 1
    alone = not several
    for path in paths:
        if str(path) == STDIN:
            _add(found, "stdin", _standard_input() if stdin is None else stdin)
        elif (folder := Path(path)).is_dir():
            alone = False
            prefix = f"{folder.as_posix()}/" if several else ""
            _read_folder(folder, prefix, include, exclude, found, left_out)
        else:
            if folder.exists() and not folder.is_file():  # a pipe would be waited for
                raise ConfigError(
                    f"{path} is neither a file nor a folder; what a pipe brings, give as - (standard input)"
                )
            _add(found, folder.as_posix(), _read(folder))
    if (include or exclude) and not any(Path(path).is_dir() for path in paths):
        raise ConfigError("include and exclude choose files of a folder, and no folder is named")
    if not paths:
        raise ConfigError("name at least one file or folder to ask about, or - for standard input")
    if not found:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ConfigError(f"no file could be read: {reasons}")
    context = next(iter(found.values())) if alone else found
    return Documents(context, len(found), left_out)


def _read_folder(
    folder: Path,
    prefix: str,
    include: Sequence[str],
    exclude: Sequence[str],
    found: dict[str, str | bytes],
    left_out: dict[str, str],
) -> None:
    try:
        chosen = choose_files(folder, include, exclude, documents=READERS)
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from error
    left_out |= {prefix + name: reason for name, reason in chosen.left_out.items()}
    for name, path in chosen.files.items():
        try:
            _add(found, prefix + name, _read(path))
        except ConfigError as error:
            left_out[prefix + name] = str(error.__cause__ or error)


def _add(found: dict[str, str | bytes], name: str, content: str | bytes) -> None:
    """Under its name, or where that is taken with a number."""
    free, number = name, 1
    while free in found:
        number += 1
        free = f"{name} ({number})"
    found[free] = content


def _read(path: Path) -> str | bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    reader = READERS.get(path.suffix.lower())
    if reader is not None:
        try:
            return reader(data)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"{path}: to read {path.suffix} files, pip install 'rlm-env[files]' ({error.name} is missing)"
            ) from error
        except Exception as error:  # whatever a library makes of a damaged file
            raise ConfigError(f"{path} cannot be read as {path.suffix}: {error}") from error
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data


def _standard_input() -> str:
    data = b"" if sys.stdin is None else sys.stdin.buffer.read()
    if not data.strip():
        raise ConfigError("nothing came on standard input; name the files and folders to ask about")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"standard input is not UTF-8 text: {error}") from error


def pdf_text(data: bytes) -> str:
    """The text of a PDF, each page below its number. A page of images alone has none."""
    from pypdf import PdfReader

    pages = PdfReader(io.BytesIO(data)).pages
    return "\n\n".join(f"[page {number}]\n{page.extract_text()}" for number, page in enumerate(pages, 1))


def html_text(data: bytes) -> str:
    """A page as Markdown, without scripts and styles. Links stay; nothing is fetched."""
    from bs4 import BeautifulSoup
    from markdownify import markdownify

    soup = BeautifulSoup(data, "html.parser")
    for element in soup(["script", "style", "template", "noscript"]):
        element.decompose()
    return markdownify(str(soup), heading_style="atx").strip()


def notebook_text(data: bytes) -> str:
    """The cells of a Jupyter notebook: Markdown as it is, code in fences, with its text output."""
    import nbformat

    notebook = nbformat.reads(data.decode("utf-8"), as_version=4)
    parts = []
    for cell in notebook.cells:
        parts.append(f"```python\n{cell.source}\n```" if cell.cell_type == "code" else cell.source)
        outputs = [text for output in cell.get("outputs", ()) if (text := _output_text(output))]
        parts += [f"```output\n{text}\n```" for text in outputs]
    return "\n\n".join(parts)


def _output_text(output: Mapping[str, object]) -> str:
    """The text of one output of a cell; images and the like have none."""
    data = output.get("data")
    text = data.get("text/plain", "") if isinstance(data, Mapping) else output.get("text", output.get("evalue", ""))
    return str(text).strip()


READERS: dict[str, Callable[[bytes], str]] = {
    ".pdf": pdf_text,
    ".html": html_text,
    ".htm": html_text,
    ".ipynb": notebook_text,
}
"""File name suffix -> how its text is found."""
