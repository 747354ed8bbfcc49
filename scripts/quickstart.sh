#!/usr/bin/env bash
# Sets everything up, then evaluates the small policy that is shipped with the package on a local vLLM: the plain LLM
# and the RLM side by side, on contexts of half its window, 4 and 16 times its window, and on a small web that both
# search with tools. Ends with the tables. Further arguments go to `rlm-env eval`, for example:
# scripts/quickstart.sh -n 24
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh full
bin=${RLM_ENV_VENV:-.venv}/bin
exec "$bin/rlm-env" eval configs/eval/quickstart.toml --out "outputs/quickstart-$(date +%Y%m%d-%H%M%S)" "$@"
