#!/usr/bin/env bash
# Sets everything up, then runs the tests.
#   scripts/test.sh           all of them: the fast ones in two processes, then the others, on a real local vLLM
#   scripts/test.sh --fast    those that need no engine and take no more than seconds
# Further arguments go to pytest, to both runs of it, for example: scripts/test.sh --fast -k protocol
# With a marker expression of your own (-m) there is one run, of what it selects.
# The exit status is pytest's: that of the first run that failed; 5 where neither selects a test.
set -euo pipefail
cd "$(dirname "$0")/.."

level=full
parts=(fast slow)
if [ "${1:-}" = --fast ]; then
    shift
    level=core
    parts=(fast)
else
    for argument in "$@"; do
        if [[ $argument == -m* ]]; then parts=(chosen); fi
    done
fi
scripts/setup.sh "$level"
python=${RLM_ENV_VENV:-.venv}/bin/python

status=5
summary=()

# part NAME ARGUMENTS...: one run of pytest, its line of the summary, and what it means for the exit status.
part() {
    local name=$1 begin=$SECONDS code=0 outcome
    shift
    "$python" -m pytest "$@" || code=$?
    case $code in
        0) outcome=passed ;;
        5) outcome="nothing selected" ;;
        *) outcome="failed (exit status $code)" ;;
    esac
    summary+=("$name: $outcome, $((SECONDS - begin)) s")
    if [ "$status" = 5 ] || { [ "$status" = 0 ] && [ "$code" != 5 ]; }; then status=$code; fi
    # Interrupted, broken, or called with a wrong option: a second run would be no better.
    if [[ $code == [234] ]]; then finish; fi
}

finish() {
    printf '%s\n' "${summary[@]}" >&2
    exit "$status"
}

for name in "${parts[@]}"; do
    case $name in
        fast) part "fast tests" -m "not vllm and not slow" --numprocesses 2 --dist worksteal "$@" ;;
        slow) part "tests with an engine, and slow ones" -m "vllm or slow" "$@" ;;
        chosen) part "tests" "$@" ;;
    esac
done
finish
