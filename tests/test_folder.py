"""Which files of a folder that a person hands over a model gets."""

import shutil
import subprocess
from pathlib import Path

import pytest

from rlm_env.context import context_text, describe_context, folder_files
from rlm_env.folder import choose_files


def write(folder: Path, **files: str | bytes) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    """A checkout with what nobody means to send: git's own folder, secrets, links, binaries, ignored files."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = tmp_path / "repository"
    write(
        folder,
        **{
            "main.py": "print('hi')",
            "docs/guide.md": "# Guide é",
            "docs/logo.png": b"\x89PNG\0\xff",
            "docs/latin.txt": "caf\u00e9".encode("latin-1"),
            "deep/nested/keep.log": "kept",
            "deep/nested/other.log": "ignored",
            "build/out.txt": "ignored",
            "local.txt": "ignored by .git/info/exclude",
            "swap~": "ignored by the user",
            ".gitignore": "build/\n*.log\n",
            "deep/nested/.gitignore": "!keep.log\n",
            ".env": "API_KEY=1",
            ".env.production": "API_KEY=2",
            "deep/.envrc": "export API_KEY=3",
            "deploy/id_rsa": "key",
            "deploy/server.pem": "key",
            ".git/config": "[core]",
            ".git/info/exclude": "local.txt\n",
            "node_modules/left/pad.js": "x",
        },
    )
    write(tmp_path, **{"config/git/ignore": "*~\n", "outside/secret.txt": "secret"})
    (folder / "link.txt").symlink_to(tmp_path / "outside" / "secret.txt")
    (folder / "linked").symlink_to(tmp_path / "outside")
    return folder


ORDINARY = [".gitignore", "deep/nested/.gitignore", "deep/nested/keep.log", "docs/guide.md", "main.py"]


def test_what_is_left_out_of_a_folder_and_why(repository):
    chosen = choose_files(repository)
    assert [*chosen.files] == ORDINARY
    assert chosen.left_out == {
        ".git/": "version control",
        ".env": "possible secrets",
        ".env.production": "possible secrets",
        "deep/.envrc": "possible secrets",
        "deploy/id_rsa": "possible secrets",
        "deploy/server.pem": "possible secrets",
        "build/": "ignored by git",
        "deep/nested/other.log": "ignored by git",
        "local.txt": "ignored by git",
        "swap~": "ignored by git",
        "docs/latin.txt": "not UTF-8 text",
        "docs/logo.png": "not UTF-8 text",
        "link.txt": "links",
        "linked": "links",
        "node_modules/": "made by tools",
    }
    assert chosen.summary() == (
        "5 files; left out: possible secrets (5), ignored by git (4), not UTF-8 text (2), links (2), "
        "version control (1), made by tools (1)"
    )


def test_every_reader_of_a_context_gets_the_chosen_files(repository):
    chosen = choose_files(repository)
    assert folder_files(chosen) == {name: repository / name for name in ORDINARY}
    assert describe_context(chosen).startswith("dict of file name to text, 5 files, ")
    text = context_text(chosen)
    assert "### docs/guide.md\n# Guide é" in text
    assert "API_KEY" not in text
    assert "secret" not in text


@pytest.mark.parametrize(
    ("include", "exclude", "names"),
    [
        (["*.py"], [], ["main.py"]),
        ("*.md", [], ["docs/guide.md"]),
        (["docs/"], [], ["docs/guide.md"]),
        (["*"], [], ORDINARY),  # a wildcard takes in nothing that is left out otherwise
        (["*.env*"], ["x"], None),
        ([".env"], [], [".env"]),
        (["build/out.txt", "*.py"], [], ["build/out.txt", "main.py"]),
        (["build"], [], ["build/out.txt"]),
        (["build/", "node_modules"], [], ["build/out.txt", "node_modules/left/pad.js"]),
        (["docs/logo.png", "latin.txt"], [], ["docs/latin.txt", "docs/logo.png"]),
        (["link.txt", "linked"], [], None),  # never
        ([], ["deep/", ".gitignore"], ["docs/guide.md", "main.py"]),
        ([], "*.md", [".gitignore", "deep/nested/.gitignore", "deep/nested/keep.log", "main.py"]),
        ([".env", "main.py"], [".env"], ["main.py"]),
    ],
)
def test_include_and_exclude(repository, include, exclude, names):
    if names is None:
        with pytest.raises(ValueError, match=r"has no file for a model to read .*`include` takes files in"):
            choose_files(repository, include, exclude)
    else:
        assert [*choose_files(repository, include, exclude).files] == names


def test_documents_that_the_caller_reads_need_not_be_text(repository):
    chosen = choose_files(repository, documents={".png"}).files.keys()
    assert "docs/logo.png" in chosen
    assert "docs/latin.txt" not in chosen


def test_a_folder_inside_a_repository_is_under_its_ignore_files(repository):
    write(repository, **{"src/build/out.txt": "ignored", "src/a.py": "x", "src/local.txt": "ignored"})
    assert [*choose_files(repository / "src").files] == ["a.py"]


def test_ignore_files_hold_without_a_repository_too(tmp_path):
    write(tmp_path, **{".gitignore": "*.csv\n", "a.csv": "1", "b.txt": "2"})
    assert [*choose_files(tmp_path).files] == [".gitignore", "b.txt"]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_ignore_files_mean_what_git_takes_them_for(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    folder = tmp_path / "repository"
    names = [
        f"{place}{name}" for place in ("", "a/", "a/b/", "out/", "a/out/") for name in ("x.log", "y.txt", "out.md")
    ]
    write(folder, **dict.fromkeys(names, "text"))
    write(
        folder, **{".gitignore": "*.log\n/out\n!a/b/x.log\n# note\n\\#z\na/**/out.md\n", "a/.gitignore": "!x.log\ny*\n"}
    )
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    command = ["git", "-C", str(folder), "ls-files", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert {*choose_files(folder).files} == {*listed.rstrip("\0").split("\0")}


def test_mistakes(repository, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        choose_files(tmp_path / "nowhere")
    with pytest.raises(NotADirectoryError, match=r"main\.py"):
        choose_files(repository / "main.py")
    with pytest.raises(TypeError, match="exclude takes patterns as text, got 3"):
        choose_files(repository, exclude=[3])
    with pytest.raises(ValueError, match="include: "):
        choose_files(repository, include=["!"])


def test_what_cannot_be_read_is_left_out(repository, monkeypatch):
    def refuse(path, *arguments):
        if Path(path).name == "guide.md":
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments)

    real = open
    monkeypatch.setattr("builtins.open", refuse)
    assert choose_files(repository).left_out["docs/guide.md"] == "cannot be read"
