"""The page's modules: joined they are one script; none makes HTML of text; nothing is loaded from elsewhere."""

import re
from importlib.resources import files

import pytest

from rlm_env.view.assets import MAIN, read_asset, script, single_page, style

MODULES = sorted(entry.name for entry in (files("rlm_env.view") / "assets").iterdir() if entry.name.endswith(".js"))
TOP = re.compile(r"^(?:export )?(?:async )?(?:function|class|const|let) (?:\[([^\]]+)\]|([\w$]+))", re.MULTILINE)
IMPORT = re.compile(r'^import \{([^}]+)\} from "\./([\w.-]+)";$', re.MULTILINE)
SINKS = re.compile(
    r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|new Function|DOMParser|srcdoc|javascript:"
)


def defined(name: str) -> list[str]:
    return [one.strip() for many, single in TOP.findall(read_asset(name)) for one in (many or single).split(",")]


def exported(name: str) -> list[str]:
    return re.findall(r"^export (?:async )?(?:function|class|const) ([\w$]+)", read_asset(name), re.MULTILINE)


def test_every_module_is_in_the_script_once():
    for name in MODULES:
        assert script().count(f"// {name}\n") == 1
    assert MAIN in MODULES


def test_no_name_is_defined_in_two_modules():
    names = [one for name in MODULES for one in defined(name)]
    assert len(names) > 100
    assert sorted({one for one in names if names.count(one) > 1}) == []


def test_joined_they_import_and_export_nothing():
    assert re.findall(r"^\s*(?:import|export)\b.*", script(), re.MULTILINE) == []


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_what_is_there_and_uses_it(name):
    text = read_asset(name)
    assert text.count("\nimport ") + text.startswith("import ") == len(IMPORT.findall(text))
    body = IMPORT.sub("", text)
    for names, source in IMPORT.findall(text):
        for one in filter(None, map(str.strip, names.split(","))):
            assert one in exported(source)
            assert re.search(rf"\b{re.escape(one)}\b", body), f"{name} imports {one} in vain"


@pytest.mark.parametrize("name", MODULES)
def test_text_never_becomes_html(name):
    assert SINKS.findall(read_asset(name)) == []


def test_nothing_is_loaded_from_elsewhere():
    shipped = script() + style()
    assert set(re.findall(r"https?://[^\s\"'`]+", shipped)) <= {"http://www.w3.org/2000/svg"}
    assert "@import" not in style()
    assert "url(" not in style()


def test_one_file_has_the_same_script_and_style():
    page = single_page('{"a":"b"}')
    assert page.count(script()) == 1
    assert page.count(style()) == 1
    assert page.count("</script>") == 2
    assert "unsafe" not in page[:2000]
