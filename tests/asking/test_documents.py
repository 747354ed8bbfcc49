"""Files, folders and standard input as a context: what is read, as what, and what is not."""

import io
import json
import os
from pathlib import Path

import pytest

from rlm_env.asking.documents import html_text, notebook_text, read_documents
from rlm_env.folder import choose_files
from rlm_env.runs.errors import ConfigError
from rlm_env.solving import chosen_context


@pytest.fixture
def folder(tmp_path):
    """A project with secrets, ignored files, links outwards, and documents."""
    project = tmp_path / "project"
    (project / ".git").mkdir(parents=True)
    (project / ".git" / "config").write_text("token = SECRET-GIT")
    (project / ".env").write_text("KEY=SECRET-ENV")
    (project / ".gitignore").write_text("ignored.txt\n")
    (project / "ignored.txt").write_text("SECRET-IGNORED")
    (tmp_path / "outside.txt").write_text("SECRET-OUTSIDE")
    (project / "link.txt").symlink_to(tmp_path / "outside.txt")
    (project / "up").symlink_to(tmp_path)
    (project / "src").mkdir()
    (project / "src" / "main.py").write_text("print('hi')\n")
    (project / "logo.bin").write_bytes(b"\x89\x00\xff")
    (project / "page.html").write_text("<h1>Title</h1><script>steal()</script><p>Body</p>")
    return project


def test_a_folder_is_a_dict_of_its_texts_and_nothing_else_is_read(folder):
    documents = read_documents([folder])
    assert documents.context == {
        ".gitignore": "ignored.txt\n",
        "page.html": "# Title\n\nBody",
        "src/main.py": "print('hi')\n",
    }
    assert "SECRET" not in repr(documents)
    assert documents.left_out["logo.bin"] == "not UTF-8 text"
    assert {".env", ".git/", "ignored.txt", "link.txt", "up"} <= {*documents.left_out} | {".git/"}
    assert documents.left_out_by_reason()["links"] == 2


def test_patterns_choose_files_of_folders(folder):
    assert list(read_documents([folder], include=["*.py"]).context) == ["src/main.py"]
    assert "page.html" not in read_documents([folder], exclude=["*.html"]).context
    assert read_documents([folder], include=["logo.bin"]).context == {"logo.bin": b"\x89\x00\xff"}


@pytest.mark.parametrize("include", [(), ("logo.bin",), ("img/logo.bin",), ("/img/logo.bin",), ("img/",), ("*.bin",)])
def test_solve_and_ask_choose_the_same_files_of_a_folder(folder, include):
    (folder / "img").mkdir()
    (folder / "img" / "logo.bin").write_bytes(b"\x89\xff")
    (folder / "zero.dat").write_bytes(b"valid UTF-8\0but no text")
    try:
        chosen = {*choose_files(folder, include).files}
    except ValueError:
        chosen = None
    try:
        asked = {*read_documents([folder], include).context}
    except ConfigError:
        asked = None
    assert asked == chosen
    assert chosen is None or "zero.dat" not in chosen


def test_one_file_is_its_text_and_several_are_told_apart_by_their_paths(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_documents(["project/src/main.py"]).context == "print('hi')\n"
    assert read_documents([".env" if os.path.exists(".env") else "project/.env"]).context == "KEY=SECRET-ENV"
    several = read_documents(["project/src", "outside.txt"]).context
    assert several == {"project/src/main.py": "print('hi')\n", "outside.txt": "SECRET-OUTSIDE"}


def test_the_same_file_twice_keeps_both(folder):
    path = folder / "src" / "main.py"
    assert list(read_documents([path, path]).context) == [path.as_posix(), f"{path.as_posix()} (2)"]


def test_standard_input_is_a_text(monkeypatch, folder):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("Ü piped".encode())))
    assert read_documents(["-"]).context == "Ü piped"
    assert read_documents(["-", folder / "src"], stdin="given").context["stdin"] == "given"


@pytest.mark.parametrize("stdin", [None, b"", b" \n"])
def test_an_empty_standard_input_is_a_mistake_and_costs_nothing(monkeypatch, stdin):
    monkeypatch.setattr("sys.stdin", None if stdin is None else io.TextIOWrapper(io.BytesIO(stdin)))
    with pytest.raises(ConfigError, match="nothing came on standard input"):
        read_documents(["-"])


@pytest.mark.timeout(20)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/null"):
        with pytest.raises(ConfigError, match="neither a file nor a folder"):
            read_documents([path])
        with pytest.raises(ValueError, match="neither a file nor a folder"):
            chosen_context(Path(path))


@pytest.mark.parametrize(
    ("paths", "options", "message"),
    [
        ([], {}, "name at least one file"),
        (["/no/such/file"], {}, "cannot read /no/such/file: No such file"),
        (["page.html"], {"include": ["*.py"]}, "no folder is named"),
    ],
)
def test_mistakes_are_told(folder, monkeypatch, paths, options, message):
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match=message):
        read_documents(paths, **options)


def test_a_folder_without_files_says_what_was_left_out(tmp_path):
    (tmp_path / ".env").write_text("x")
    with pytest.raises(ConfigError, match="possible secrets"):
        read_documents([tmp_path])


def test_a_damaged_document_is_an_error_by_its_name_and_is_left_out_of_a_folder(tmp_path):
    pytest.importorskip("pypdf")
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    (tmp_path / "fine.txt").write_text("fine")
    with pytest.raises(ConfigError, match=r"broken\.pdf cannot be read as \.pdf"):
        read_documents([tmp_path / "broken.pdf"])
    documents = read_documents([tmp_path])
    assert documents.context == {"fine.txt": "fine"}
    assert "broken.pdf" in documents.left_out
    (tmp_path / "fine.txt").unlink()
    with pytest.raises(ConfigError, match=r"no file could be read: broken\.pdf"):
        read_documents([tmp_path])


def test_pages_of_a_pdf_are_told_apart(tmp_path):
    pypdf = pytest.importorskip("pypdf")
    path = tmp_path / "two.pdf"
    writer = pypdf.PdfWriter()
    for text in ("first page here", "second page here"):
        _add_page(writer, text)
    writer.write(path)
    text = read_documents([path]).context
    assert text.index("[page 1]") < text.index("first page here") < text.index("[page 2]") < text.index("second page")


def _add_page(writer, text):
    """A page with one line of text in a font that every reader has."""
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    page = writer.add_blank_page(300, 300)
    names = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}
    font = DictionaryObject({NameObject(key): NameObject(value) for key, value in names.items()})
    fonts = DictionaryObject({NameObject("/F1"): writer._add_object(font)})
    page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
    stream = DecodedStreamObject()
    stream.set_data(f"BT /F1 12 Tf 20 200 Td ({text}) Tj ET".encode())
    page[NameObject("/Contents")] = writer._add_object(stream)


def test_cells_of_a_notebook_come_with_their_output():
    pytest.importorskip("nbformat")
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": "# Notes", "id": "a"},
        {
            **{"cell_type": "code", "metadata": {}, "source": "1 + 1", "id": "b", "execution_count": 1},
            "outputs": [
                {"output_type": "execute_result", "data": {"text/plain": "2"}, "metadata": {}, "execution_count": 1},
                {"output_type": "display_data", "data": {"image/png": "aWVq"}, "metadata": {}},
                {"output_type": "stream", "name": "stdout", "text": "printed\n"},
            ],
        },
    ]
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    text = notebook_text(json.dumps(notebook).encode())
    assert text == "# Notes\n\n```python\n1 + 1\n```\n\n```output\n2\n```\n\n```output\nprinted\n```"


def test_a_page_keeps_its_words_and_links_and_loses_its_scripts():
    text = html_text(b"<style>p{}</style><p>Read <a href='https://a.b'>this</a></p><noscript>no</noscript>")
    assert text == "Read [this](https://a.b)"
