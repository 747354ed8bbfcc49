"""Packages as plugins of verifiers: exported where it is installed, imported by nobody unasked."""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib.util import find_spec

import pytest

from rlm_env.plugins import PLUGINS

PACKAGES = ("rlm_env", "codeqa_rlm", "deepdive_rlm", "math_python_rlm", "needle_rlm", "oolong_rlm", "verbatim_copy_rlm")
INSTALLED = find_spec("verifiers") is not None


def test_no_package_imports_verifiers_unasked():
    program = f"import sys, {', '.join(PACKAGES)}, rlm_env.cli, rlm_env.evals; print('verifiers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_packages_can_be_imported_whole_where_verifiers_is_not_installed():
    program = f"""
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "verifiers" else find(name, *rest)
for name in {PACKAGES}:
    exec(f"from {{name}} import *")
import needle_rlm
print(needle_rlm.__all__, hasattr(needle_rlm, "RLMTaskset"))
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "['Needle'] False\n"


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="needs the extra verifiers")
@pytest.mark.parametrize("package", PACKAGES)
def test_the_name_of_a_package_is_the_id_of_all_three_plugins(package):
    from verifiers.v1.utils.loaders import environment_class, harness_class, taskset_class

    module = importlib.import_module(package)
    assert set(PLUGINS) <= set(module.__all__) & set(dir(module))
    for plugin_id in (package, package.replace("_", "-"), f"owner/{package.replace('_', '-')}@0.1.0"):
        assert taskset_class(plugin_id) is module.RLMTaskset
        assert harness_class(plugin_id) is module.RLMHarness
        assert environment_class(plugin_id) is module.RLMSeatsEnv
