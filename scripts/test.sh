#!/usr/bin/env bash
# Sets everything up, then runs the tests.
#   scripts/test.sh           all of them: the fast ones in two processes, then those on a real local vLLM beside the
#                             slow ones without; lines of the former begin with "engine |"
#   scripts/test.sh --fast    those that need no engine and take no more than seconds
# Further arguments go to pytest, to each run of it, for example: scripts/test.sh --fast -k protocol
# With a marker expression of your own (-m) there is one run, of what it selects.
# The exit status is pytest's: that of the first run that failed; 5 where none selects a test.
set -euo pipefail
cd "$(dirname "$0")/.."

level=full
parts=all
if [ "${1:-}" = --fast ]; then
    shift
    level=core
    parts=fast
else
    for argument in "$@"; do
        if [[ $argument == -m* ]]; then parts=chosen; fi
    done
fi
scripts/setup.sh "$level"
python=${RLM_ENV_VENV:-.venv}/bin/python

status=5
summary=()

# ended NAME CODE: a run's line of the summary, and what its exit status means for this script's.
ended() {
    local outcome
    case $2 in
        0) outcome=passed ;;
        5) outcome="nothing selected" ;;
        *) outcome="failed (exit status $2)" ;;
    esac
    summary+=("$1: $outcome")
    if [ "$status" = 5 ] || { [ "$status" = 0 ] && [ "$2" != 5 ]; }; then status=$2; fi
}

# run NAME ARGUMENTS...: pytest, to its end.
run() {
    local name=$1 code=0
    shift
    "$python" -m pytest "$@" || code=$?
    ended "$name" "$code"
    # Interrupted, broken, or called with a wrong option: a further run would be no better.
    if [[ $code == [234] ]]; then finish; fi
}

finish() {
    printf '%s\n' "${summary[@]}" "$SECONDS s in all" >&2
    exit "$status"
}

if [ "$parts" = chosen ]; then
    run "tests" "$@"
    finish
fi
run "fast tests" -m "not vllm and not slow" --numprocesses 2 --dist worksteal "$@"
if [ "$parts" = all ]; then
    "$python" -m pytest -m vllm "$@" > >(sed -u 's/^/engine | /') 2>&1 &
    trap 'kill -INT %% && wait %% || true' EXIT
    run "slow tests" -m "slow and not vllm" "$@"
    code=0
    wait %% || code=$?
    trap - EXIT
    ended "tests with an engine" "$code"
fi
finish
