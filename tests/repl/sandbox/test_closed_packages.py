"""Gold answers in installed environment packages: none can be read, in any of the layouts that packages have."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.repl.levels import does_not_start

pytestmark = pytest.mark.identity

GOLD = "GOLD-CANARY"
FILES = {
    # an environment that is one module
    "single_env.py": f"GOLD = '{GOLD}-single'\n",
    # one with a second package, and with a name that tells something
    "my_env/__init__.py": "",
    f"my_env/{GOLD}-in-a-name.txt": "x",
    "my_env_gold/__init__.py": f"ANSWERS = ['{GOLD}-second']\n",
    # the data of a third in a file at the top
    "third_env/__init__.py": "",
    "third_env_answers.json": json.dumps([f"{GOLD}-data"]),
    # the leftover of an interrupted pip, an egg of setup.py, and a package that is listed by its whole path
    "~y_env/__init__.py": f"GOLD = '{GOLD}-leftover'\n",
    "egg_env-1.0-py3.11.egg/egg_env/__init__.py": f"GOLD = '{GOLD}-egg'\n",
    "egg_env-1.0-py3.11.egg/EGG-INFO/PKG-INFO": "Metadata-Version: 2.1\nName: egg-env\nVersion: 1.0\n",
    "egg_env-1.0-py3.11.egg/EGG-INFO/entry_points.txt": "[rlm_env.environments]\negg-env = egg_env:Env\n",
    "easy-install.pth": "./egg_env-1.0-py3.11.egg\n",
    "whole_path_gold/__init__.py": f"ANSWERS = ['{GOLD}-whole-path']\n",
    "dotted_path_gold/__init__.py": f"ANSWERS = ['{GOLD}-dotted-path']\n",
    # and a package that is nobody's environment
    "harmless/__init__.py": "from . import inner\nVALUE = inner.VALUE\n",
    "harmless/inner.py": "VALUE = 42\n",
    "harmless_module.py": "VALUE = 43\n",
}
DISTRIBUTIONS = {
    "single-env": ("single_env:Env", ["single_env.py"]),
    "my.env": ("my_env:Env", [name for name in FILES if name.startswith("my_env")]),
    "third-env": (
        "third_env:Env",
        [
            *("third_env/__init__.py", "third_env_answers.json"),
            *("SITE/whole_path_gold/__init__.py", "./dotted_path_gold/__init__.py"),
        ],
    ),
    "harmless": (None, [name for name in FILES if name.startswith("harmless")]),
}
LOOK = f"""
import glob, importlib, importlib.metadata, marshal, os, sys
site, found = SITE, []
def look(path):
    try:
        with open(path, 'rb') as file:
            if b'{GOLD}' in file.read(): found.append(path)
    except OSError: pass
for name in FILES + PYC: look(site + '/' + name)
for folder in ('', '/my_env', '/my_env_gold', '/__pycache__', '/..'):
    try: names = os.listdir(site + folder)
    except OSError: continue
    found += [name for name in names if '{GOLD}' in name]
    for name in names: look(site + folder + '/' + name)
for name in ('single_env', 'my_env', 'my_env_gold', 'third_env'):
    try: module = importlib.import_module(name)
    except (ImportError, PermissionError): continue
    if module.__file__: found.append('import ' + name)  # in the jail an empty folder is left, which can be imported
for name in ('single-env', 'my.env', 'third-env'):
    try: found.append(importlib.metadata.distribution(name).read_text('RECORD') or '')
    except Exception: pass
print(sorted(f for f in found if f))
import harmless, harmless_module
print(harmless.VALUE, harmless_module.VALUE, importlib.metadata.version('harmless'))
"""
HOST = """
import asyncio, json, sys
from rlm_env.repl import ReplConfig, ReplPool
async def main():
    level, code = sys.argv[1:]
    config = ReplConfig(level=level, require=level, allow_unsafe=True, preload=())
    async with ReplPool(config) as pool, pool.open() as repl:
        step = await repl.run(code, timeout=30)
        print(json.dumps([step.output, step.error]))
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site-packages as pip leaves it, with compiled modules."""
    folder = tmp_path_factory.mktemp("lib") / "site-packages"
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(folder)], check=True)
    for name, (entry, files) in DISTRIBUTIONS.items():
        info = folder / f"{name.replace('-', '_').replace('.', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        if entry is not None:
            (info / "entry_points.txt").write_text(f"[rlm_env.environments]\n{name} = {entry}\n")
        record = "".join(f"{file},,\n" for file in [*files, f"{info.name}/RECORD"])
        (info / "RECORD").write_text(record.replace("SITE", str(folder)))
    for path in [folder, *folder.parents[:2]]:
        path.chmod(0o755)
    return folder


def looked(site: Path, level: str) -> tuple[str, str | None]:
    compiled = [str(path.relative_to(site)) for path in site.rglob("*.pyc")]
    code = LOOK.replace("SITE", repr(str(site))).replace("FILES + PYC", repr([*FILES, *compiled]))
    done = subprocess.run(
        [sys.executable, "-c", HOST, level, textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{site}:{':'.join(sys.path)}"},
        timeout=120,
    )
    if "SandboxError" in done.stderr:
        does_not_start(level, done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("level", ["guard", "jail"])
def test_no_gold_answer_and_no_name_of_a_closed_file_is_found(site: Path, level: str):
    output, error = looked(site, level)
    assert error is None
    assert output == "[]\n42 43 1.0\n"


def test_sealed_has_no_files_at_all(site: Path):
    output, error = looked(site, "sealed")
    assert output == "[]\n"
    assert "harmless" in error


def test_positive_control_in_bare_all_of_them_are_found(site: Path):
    output, error = looked(site, "bare")
    assert error is None
    found, rest = output.split("\n", 1)
    assert rest == "42 43 1.0\n"
    for name in (*FILES, "single_env.cpython", "RECORD", "import my_env_gold", "in-a-name"):
        if GOLD in FILES.get(name, GOLD):
            assert name in found, (name, found)
