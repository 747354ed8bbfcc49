"""What `rlm-env validate` says of pyproject.toml, README, license, wheel and class, without building anything."""

import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from rlm_env.cli import main
from rlm_env.hub.build import WHEEL_BYTES, Built, wheel_findings
from rlm_env.hub.classification import UNCLASSIFIED, V0, V1, hub_class
from rlm_env.hub.leftover import ABOUT_ITS_TASK, _template, _template_lines, template_prose
from rlm_env.hub.metadata import metadata_findings, readme_findings, requirement_findings
from rlm_env.hub.new import make_package
from rlm_env.hub.places.base import pip_finds
from rlm_env.hub.project import environment_names, find_project, read_project, stage_project
from rlm_env.hub.tools import ToolFailed
from rlm_env.hub.validate import left_out
from rlm_env.origin import HASH_FILE, content_hash, origin_of
from rlm_env.runs.errors import ConfigError

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(path.parent for path in ROOT.glob("environments/*/pyproject.toml"))


@pytest.fixture
def project(tmp_path, monkeypatch, request):
    """A new package, in `environments/` of the current folder."""
    monkeypatch.chdir(tmp_path)
    return make_package(f"made-{abs(hash(request.node.name))}-rlm", Path("environments")).resolve()


def all_findings(folder: Path) -> list[str]:
    project = read_project(folder)
    return [str(one) for rule in (metadata_findings, requirement_findings, readme_findings) for one in rule(project)]


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_the_packages_of_this_project_are_as_they_should_be(folder):
    assert all_findings(folder) == []
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_the_extra_environments_names_all_packages_of_this_project_and_admits_them():
    extras = read_project(ROOT).metadata["optional-dependencies"]["environments"]
    projects = map(read_project, SHIPPED)
    assert extras == [f"{project.name}>=0.2,<0.3" for project in projects if project.version.startswith("0.2.")]
    assert len(extras) == len(SHIPPED)


MISTAKES = {
    ('version = "0.1.0"', 'version = "first"'): "version  pyproject.toml: version 'first' is no version",
    ("description = ", "x-description = "): "there is no description",
    ('license = "Apache-2.0"\n', ""): "there is no license",
    ("tags = [", "keywords = ["): "there are no tags",
    ("hatchling.build", "setuptools.build_meta"): "setuptools.build_meta refuses tags in [project]",
    ('requires-python = ">=3.11"', ""): "requires-python is missing",
    ("rlm-env>=0.2,<0.3", "rlm-env"): "rlm-env has no lower and upper bound",
    ("rlm-env>=0.2,<0.3", "rlm-env>=0.2"): 'Remedy: require "rlm-env>=0.2,<0.3"',
    ("rlm-env>=0.2,<0.3", "rlm-env>=9,<10"): "does not admit rlm-env",
    ("rlm-env>=0.2,<0.3", "numpy"): 'rlm-env is not required. Remedy: add "rlm-env>=0.2,<0.3"',
    ("rlm-env>=0.2,<0.3", "rlm-env>=0.2,<0.3', 'x @ https://a.b/c"): "'x @ https://a.b/c' is required by URL",
    ("rlm-env>=0.2,<0.3", "rlm-env>>0.2"): "Remedy: write NAME>=LOWER,<UPPER",
    ("<0.3", "<0.3; python_version < '3.9'"): "is not required everywhere",
    ('version = "0.1.0"', 'version = "0.1.0+cpu"'): "an index refuses the local version 0.1.0+cpu",
    (
        'license = "Apache-2.0"',
        'license = "My own"',
    ): "Invalid license expression: 'My own'. Remedy: name it by its SPDX",
    (">=3.11", "3.11"): "requires-python '3.11' is no bound on versions",
}
UNREADABLE = {
    ('version = "0.1.0"', "version = 1"): "project.version: text in quotes is expected, got 1",
    ('tags = ["rlm", ', "tags = [5, "): "project.tags: a list of texts is expected, got [5, ",
    ('dependencies = ["rlm-env>=0.2,<0.3"]', 'dependencies = "rlm-env"'): "project.dependencies: a list of texts",
    ('name = "made', 'name = "ma de'): "project.name: letters, digits, - _ . are expected, got 'ma de",
    (":Made", ";Made"): 'NAME = "package:Class" is expected',
    ("[project]", "[projects]"): "[project]: there is no name",
}


@pytest.mark.parametrize("change", UNREADABLE, ids=lambda change: change[1])
def test_a_key_of_another_type_is_named(project, change, capsys):
    path = project / "pyproject.toml"
    assert change[0] in path.read_text()
    path.write_text(path.read_text().replace(change[0], change[1], 1))
    assert main(["validate", str(project)]) == 2
    assert UNREADABLE[change] in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("change", MISTAKES, ids=lambda change: change[1])
def test_a_mistake_in_pyproject_is_found(project, change):
    assert all_findings(project) == []
    path = project / "pyproject.toml"
    new = change[1].replace("', '", '", "')
    assert change[0] in path.read_text()
    path.write_text(path.read_text().replace(change[0], new, 1))
    [found] = all_findings(project)
    assert MISTAKES[change] in found


def test_mistakes_in_readme_and_license_are_found(project):
    readme = project / "README.md"
    text = readme.read_text()
    for old, new, said in (
        ("### Metrics", "### Numbers", "the section 'Metrics' is missing. Remedy: add ### Metrics"),
        ("- **Tags**", "- **Words**", "'Tags' is missing in the Overview"),
        ("| `lines` |", "| `length` |", "the options differ in lines, length"),
        (f"`{read_project(project).name}`", "`another`", "is not named"),
    ):
        readme.write_text(text.replace(old, new))
        assert said in "\n".join(all_findings(project))
    readme.write_bytes(text.encode() + b"\xe9")
    assert "it is not UTF-8" in "\n".join(all_findings(project))
    (project / "LICENSE").write_text(" \n")
    assert "the LICENSE beside it holds no text" in "\n".join(all_findings(project))
    readme.unlink()
    (project / "LICENSE").unlink()
    found = all_findings(project)
    assert ["README.md: it is missing" in found[1], "no LICENSE file" in found[0], len(found)] == [True, True, 2]


def test_projects_are_found_by_name_of_package_or_environment_or_folder(project, planted):
    assert find_project(read_project(project).name).folder.resolve() == project
    assert find_project(str(project)).folder == project
    assert find_project(planted()).environments
    for name, said in (
        ("no-such-env", "A folder with a pyproject.toml can be named too"),
        (planted.installed(), "without its sources; give the folder"),
    ):
        with pytest.raises(ConfigError, match=said):
            find_project(name)


def test_names_of_packages_and_folders_stand_for_their_environments(project, tmp_path, capsys):
    [name] = read_project(project).environments
    for named in (name, name.replace("-", "_"), str(project), f"environments/{project.name}"):
        assert environment_names(named)[0].replace("_", "-") == name
    path = project / "pyproject.toml"
    path.write_text(path.read_text().replace(f'name = "{name}"', 'name = "Some_Package"', 1))
    assert environment_names("some-package") == [name]
    elsewhere = project.rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=f"{name} cannot be loaded by name: pip install -e {elsewhere}"):
        environment_names(str(elsewhere))


def test_a_folder_here_does_not_hide_the_environment_of_its_name(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "environments" / "oolong_rlm", tmp_path / "oolong-rlm")
    monkeypatch.chdir(tmp_path)
    assert environment_names("oolong-rlm") == ["oolong-rlm"]
    assert environment_names("./oolong-rlm") == ["oolong-rlm", "oolong-pairs-rlm"]


@pytest.mark.slow
def test_an_index_that_does_not_answer_is_no_index_without_the_package():
    with pytest.raises(ToolFailed, match="failed: an index cannot be reached"):
        pip_finds("rlm-env>=0.2", ["--index-url", "http://127.0.0.1:9/simple/"])


def test_a_project_anywhere_is_read_and_one_that_cannot_be_imported_is_found(project, tmp_path):
    elsewhere = project.rename(tmp_path / "elsewhere")
    assert all_findings(elsewhere) == []
    path = elsewhere / "pyproject.toml"
    path.write_text(path.read_text().replace(":Made", ":Missing"))
    [found] = all_findings(elsewhere)
    assert "cannot be imported: raises AttributeError" in found


def test_a_copy_to_build_from_holds_its_hash_and_nothing_hidden(project, tmp_path):
    for name in (".env", "dist/old.whl", "__pycache__/x.pyc", "outputs/run/rollouts.jsonl"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("not for others")
    (project / "link").symlink_to("/etc/hostname")
    words = project / read_project(project).module / "outputs" / "words.txt"  # of the package, not made by a tool
    words.parent.mkdir()
    words.write_text("for everybody")
    staged, sha256 = stage_project(read_project(project), tmp_path / "copy")
    names = {path.relative_to(staged.folder).as_posix() for path in staged.folder.rglob("*") if path.is_file()}
    module = staged.module
    assert names == {
        *("pyproject.toml", "README.md", "LICENSE", "tests/test_environment.py"),
        *(f"{module}/{name}" for name in ("__init__.py", "environment.py", "tips.txt", "outputs/words.txt", HASH_FILE)),
    }
    assert left_out(read_project(project), staged) == []
    (words.parent / "more.txt").symlink_to(words)
    [found] = left_out(read_project(project), staged)
    assert (found.where, found.message) == (f"{module}/outputs/more.txt", "it would not be published")
    (words.parent / "more.txt").unlink()
    assert (staged.content_folder / HASH_FILE).read_text() == f"{sha256}\n"
    assert content_hash(staged.content_folder) == content_hash(project / module) == sha256


def built_of(staged, tmp_path, *, without: str = "", more: tuple[str, ...] = (), size: int = 0) -> Built:
    """A wheel and an archive with all files of a project, some changed."""
    info = f"{staged.module}-0.1.0.dist-info"
    wheel, archive = tmp_path / "made.whl", tmp_path / "made.tar.gz"
    with zipfile.ZipFile(wheel, "w") as file:
        for path in staged.content_folder.rglob("*"):
            file.write(path, path.relative_to(staged.folder)) if path.name != without else None
        file.writestr(f"{info}/licenses/LICENSE" if without != "LICENSE" else f"{info}/METADATA", "")
        for name in more:
            file.writestr(name, bytes(size))
    tarfile.open(archive, "w:gz").close()
    return Built(wheel, archive)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"without": "tips.txt"}, "/tips.txt. Remedy: let pyproject.toml include every file"),
        ({"without": HASH_FILE}, f"/{HASH_FILE}"),
        ({"without": "LICENSE"}, "holds no license text"),
        ({"more": ("tests/test_it.py", "golds.py")}, "installs golds.py, tests beside"),
        ({"more": ("MODULE/.env",)}, "/.env, which looks like a secret"),
        ({"more": ("MODULE/data.bin",), "size": WHEEL_BYTES}, "has 10.0 MB"),
    ],
)
def test_what_a_wheel_should_not_be_is_found(project, tmp_path, change, said):
    staged, _ = stage_project(read_project(project), tmp_path / "copy")
    change["more"] = tuple(name.replace("MODULE", staged.module) for name in change.get("more", ()))
    found = [str(one) for one in wheel_findings(staged, built_of(staged, tmp_path, **change))]
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


CLASSES = {
    (): UNCLASSIFIED,
    ("rlm-env>=0.2,<0.3",): UNCLASSIFIED,
    ("rlm-env[verifiers]>=0.2",): UNCLASSIFIED,
    ("verifiers",): V0,
    ("verifiers<0.2",): V0,
    ("verifiers>=0.1.14",): V0,
    ("verifiers>=0.4,<0.5",): V1,
    ("Verifiers==0.4.*",): V1,
    ("verifiers~=0.2.0", "verifiers>=0.1"): V1,
    ('verifiers>=0.4; extra == "vf"',): UNCLASSIFIED,
    ("verifiers @ https://a.b/verifiers.whl",): UNCLASSIFIED,
    ('verifiers>=0.4; python_version < "3"', "verifiers>=0.1"): V0,
}


@pytest.mark.parametrize("requirements", CLASSES, ids=" ".join)
def test_the_class_that_the_hub_sees_in_requirements(requirements):
    assert hub_class(requirements) == CLASSES[requirements]


def test_a_missing_tool_is_named_with_the_extra_that_has_it(project, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("rlm_env.hub.")]:
        monkeypatch.delitem(sys.modules, name)
    for command in (["validate", str(project)], ["publish", str(project), "--to", "index"]):
        for missing in ("build", "packaging"):
            with monkeypatch.context() as patched:
                patched.setattr("rlm_env.hub.tools.MODULES", (missing,))
                patched.setitem(sys.modules, missing, None)
                assert main(command) == 2
            assert f"this needs the package '{missing}': pip install 'rlm-env[hub]'" in capsys.readouterr().err
    monkeypatch.setattr("rlm_env.hub.tools.MODULES", ())
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert main(["publish", str(project), "--to", "hub"]) == 2
    assert "--to hub needs the command prime: install it in an environment of its own" in capsys.readouterr().err


def test_findings_end_a_validation_before_anything_is_built(project, monkeypatch, capsys):
    for name in ("build", "twine"):
        pytest.importorskip(name)
    (project / "LICENSE").unlink()
    monkeypatch.setattr("rlm_env.hub.validate.build", lambda *_: pytest.fail("it was built"))
    assert main(["validate", str(project)]) == 1
    out = capsys.readouterr().out
    assert "FINDING      license  pyproject.toml: there is no LICENSE file beside it. Remedy: add" in out
    assert "not checked  wheel, check and eval: the findings come first" in out


def test_a_folder_without_an_environment_is_refused(tmp_path, capsys):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "any"\n')
    assert main(["validate", str(tmp_path)]) == 2
    assert "names no environment: add [project.entry-points" in capsys.readouterr().err


def test_prose_that_is_left_from_the_template_is_found_once_the_question_is_another(project, capsys):
    name = read_project(project).name
    origin = origin_of(name)
    assert template_prose(origin.folder, origin.project) == []
    code = origin.folder / "environment.py"
    code.write_text(code.read_text().replace("How many {item} reached {town} in all?", "Who sent {item} to {town}?"))
    found = {one.where: one for one in template_prose(origin.folder, origin.project)}
    package = origin.folder.name
    assert list(found) == [
        "README.md, lines 5, 10, 34",
        "pyproject.toml, line 8",
        "tests/test_environment.py, lines 14, 21",
        f"{package}/environment.py, lines 35, 40",
        f"{package}/tips.txt, lines 2, 3",
    ]
    assert "'- **Short description**: how many" in found["README.md, lines 5, 10, 34"].message
    assert template_prose(origin.folder, None) == [one for where, one in found.items() if where.startswith(package)]
    assert main(["validate", name]) == 1
    assert "template README.md, lines 5, 10, 34: left from rlm-env new" in " ".join(capsys.readouterr().out.split())
    for where in found:
        file = project / where.partition(",")[0]
        for line in _template_lines():
            file.write_text(file.read_text().replace(line, "x"))
    assert template_prose(origin.folder, origin.project) == []


def test_each_beginning_of_the_template_is_a_line_of_it():
    for name, beginnings in ABOUT_ITS_TASK.items():
        lines = [line.strip() for line in _template(name).splitlines()]
        assert [sum(line.startswith(beginning) for line in lines) for beginning in beginnings] == [1] * len(beginnings)
