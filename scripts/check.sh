#!/usr/bin/env bash
# Everything that is checked without running the program: style, format, types, and which room imports which.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh full # types are checked against all that the code can import
bin=${RLM_ENV_VENV:-.venv}/bin
"$bin/ruff" check --quiet .
"$bin/ruff" format --check --quiet .
"$bin/pyright" --pythonpath "$bin/python"
"$bin/lint-imports" --no-cache
