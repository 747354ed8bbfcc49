"""Files that a REPL can read: Python's own files, and nothing of this project or of environment packages."""

import importlib.metadata
import shutil
import sys
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import pytest

from rlm_env.repl import ReplPool
from rlm_env.repl.host import isolation, jail, readable


def test_packages_of_ours_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    site = tmp_path / "lib" / "site-packages"
    site.mkdir(parents=True)
    names = [
        "numpy",
        "numpy.libs",
        "rlm_env",
        "rlm_rewards",
        "my_task",
        "my_task_data",
        "rlm_env-0.1.dist-info",
        "my_task-1.0.dist-info",
    ]
    for name in [*names, "rlm_rewards_of_others"]:
        (site / name).mkdir()
    for name in ("six.py", "_editable.pth", "my_task.py", "single.py", "single.cpython-311-x86_64-linux-gnu.so"):
        (site / name).touch()
    (site / "__pycache__").mkdir()
    for name in ("six", "single", "my_task"):
        (site / "__pycache__" / f"{name}.cpython-311.pyc").touch()
    listed = [
        "my_task/env.py",
        "my_task_data/golds.json",
        "../../bin/my-task",
        "single.py",
        "My.Task-1.0.dist-info/RECORD",
    ]
    dist = SimpleNamespace(
        name="My.Task",
        files=[*map(PurePosixPath, listed)],
        read_text=lambda name: "also_mine\n",
        locate_file=lambda file: site / file,
    )
    entry = SimpleNamespace(value="my_task.env:load", dist=dist)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry])
    assert readable.closed_names() == {"rlm_env", "rlm_rewards", "my_task", "my_task_data", "single", "also_mine"}
    read = [Path(path) for path in readable.readable_paths([str(site)]) if path.startswith(str(site))]
    assert {str(path.relative_to(site)) for path in read} == {
        "numpy",
        "numpy.libs",
        "six.py",
        "rlm_rewards_of_others",
        "__pycache__/six.cpython-311.pyc",
    }


def test_compiled_modules_of_the_standard_library_are_one_rule_where_all_of_them_are_open(tmp_path: Path):
    """Every REPL pays for each rule as it enters its sandbox."""
    compiled = tmp_path / "lib" / "__pycache__"
    compiled.mkdir(parents=True)
    (tmp_path / "lib" / "lib-dynload").mkdir()
    for name in ("ast", "bdb"):
        (compiled / f"{name}.cpython-311.pyc").touch()
    (tmp_path / "lib" / "lib-dynload" / "_json.so").touch()

    def found() -> set[str]:
        folders = [str(tmp_path / "lib"), str(tmp_path / "lib" / "lib-dynload")]
        read = [Path(path) for path in readable.readable_paths(folders) if path.startswith(str(tmp_path))]
        return {str(path.relative_to(tmp_path / "lib")) for path in read}

    assert found() == {"__pycache__", "lib-dynload"}
    (compiled / "rlm_env.cpython-311.pyc").touch()  # an installation can have all packages in there
    files = {f"__pycache__/{name}.cpython-311.pyc" for name in ("ast", "bdb")}
    assert found() == {*files, "lib-dynload"}


def test_the_jail_hides_nothing_of_what_guard_lets_be_read():
    python = readable.python_path()
    read = readable.readable_paths(python)
    hidden = jail._unreadable(python, read)
    assert not [path for path in hidden if any(path.is_relative_to(tree) for tree in read)]
    assert not [path for path in hidden if path.name.startswith(("_socket", "ast."))]


def test_a_folder_of_libraries_that_is_a_link_opens_libraries_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As where /usr/lib64 leads to /usr/lib, which holds packages and settings too."""
    library = tmp_path / "usr" / "lib"
    (library / "python3" / "dist-packages").mkdir(parents=True)
    for name in ("libm.so.6", "os-release", "libfoo.a"):
        (library / name).touch()
    (tmp_path / "lib64").symlink_to(library)
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "lib64").mkdir()
    monkeypatch.setattr(readable, "_LIBRARY_DIRS", (str(tmp_path / "lib64"), str(tmp_path / "real" / "lib64")))
    found = [path for path in readable.readable_paths([]) if path.startswith(str(tmp_path))]
    assert found == [str(library / "libm.so.6"), str(tmp_path / "real" / "lib64")]


def test_the_path_has_no_place_of_the_project():
    path = readable.python_path()
    assert path
    project = Path(__file__).parents[2]
    outside = [Path(entry) for entry in path if not Path(entry).is_relative_to(sys.prefix)]  # a venv may lie in it
    assert not [entry for entry in outside if entry.is_relative_to(project)]
    assert not [entry for entry in path if project.is_relative_to(entry)]
    assert all("python" in entry or "packages" in entry for entry in path)
    assert "" not in path


def test_the_jail_holds_only_what_a_child_runs_of_this_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    site = tmp_path / "lib" / "site-packages"
    for name in ("numpy", "rlm_env", "my_task"):
        (site / name).mkdir(parents=True)
    (site / "my_answers.py").touch()
    monkeypatch.setattr(shutil, "which", lambda _name: "bwrap")
    line = jail.jail_command([str(site)], [str(site / "numpy")])
    hidden = {line[i + 1] for i, word in enumerate(line) if word == "--tmpfs"}
    assert hidden == {str(site / "rlm_env"), str(site / "my_task")}
    assert line[line.index(str(site / "my_answers.py")) - 1] == "/dev/null"
    bound = [line[i + 1] for i, word in enumerate(line) if word.startswith("--ro-bind")]
    package = Path(isolation.__file__).parents[1]
    ours = {Path(path).relative_to(package).as_posix() for path in bound if Path(path).is_relative_to(package)}
    assert ours == {"child", "sandbox", "bounds.py", "context_file.py", "wire.py"}


def test_the_trusted_side_and_the_untrusted_one_do_not_import_each_other():
    package = Path(isolation.__file__).parents[1]
    for folder, other in (("host", "child"), ("child", "host"), ("sandbox", "child"), ("sandbox", "host")):
        for file in (package / folder).glob("*.py"):
            assert f"rlm_env.repl.{other}" not in file.read_text(), file


async def test_an_own_package_that_is_installed_cannot_be_read(pool: ReplPool):
    async with pool.open() as repl:
        for name in ("rlm_env", "rlm_rewards", "rlm_env.repl.child.worker"):
            step = await repl.run(f"import {name}")
            assert "ModuleNotFoundError" in step.error or "PermissionError" in step.error, step.error
        step = await repl.run("import sys; [m for m in sys.modules if m.startswith(('rlm_env', 'rlm_rewards'))]")
        assert step.output == "[]\n"
