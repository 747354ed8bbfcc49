"""Where an environment comes from: the same hash for sources and for what is installed, another for any change."""

import shutil
from pathlib import Path

import pytest

from rlm_env.origin import HASH_FILE, content_files, content_hash, origin_of
from tests.hub.planting import planted  # noqa: F401 - a fixture


def package(folder: Path) -> Path:
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("x = 1\n")
    (folder / "data" / "golds.json").write_text("{}")
    return folder


def test_the_hash_covers_names_and_bytes_and_nothing_else(tmp_path):
    place = package(tmp_path / "a")
    first = content_hash(place)
    assert first == content_hash(package(tmp_path / "b"))
    for junk in ("__pycache__/x.pyc", ".hidden/file", ".gitignore", HASH_FILE):
        (place / junk).parent.mkdir(exist_ok=True)
        (place / junk).write_text("of no importance")
    assert content_hash(place) == first
    assert list(content_files(place)) == ["__init__.py", "data/golds.json"]
    (place / "data" / "golds.json").rename(place / "data" / "gold.json")
    moved = content_hash(place)
    (place / "data" / "gold.json").write_text("[]")
    assert len({first, moved, content_hash(place)}) == 3


def test_sources_and_an_installed_package_have_the_same_hash(planted):  # noqa: F811
    name = planted()
    sources = origin_of(name)
    assert (sources.package, sources.version, sources.module) == (name, "1.2.0", name.replace("-", "_"))
    assert sources.project is not None
    assert sources.folder == (sources.project / sources.module).resolve()
    assert (sources.published_sha256, sources.changed) == (None, False)
    shutil.copytree(sources.folder, planted.site_packages() / sources.module)
    installed = origin_of(planted.installed())
    assert installed.project is None
    assert installed.sha256 == sources.sha256


def test_a_published_package_that_was_changed_is_known(planted):  # noqa: F811
    name = planted.installed()
    origin = origin_of(name)
    (origin.folder / HASH_FILE).write_text(f"{origin.sha256}\n")
    assert origin_of(name).published_sha256 == origin.sha256
    assert not origin_of(name).changed
    (origin.folder / "more.py").write_text("")
    assert origin_of(name).changed


def test_an_entry_point_whose_package_is_gone_is_named(planted):  # noqa: F811
    name = planted.installed()
    shutil.rmtree(origin_of(name).folder)
    with pytest.raises(ImportError, match=f"the package {name.replace('-', '_')}, named by an entry point"):
        origin_of(name)
