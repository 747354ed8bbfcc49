#!/usr/bin/env bash
# Sets everything up, then runs the tests.
#   scripts/test.sh           all of them: the fast ones in two processes, then four runs side by side: those that share
#                             a real local vLLM (lines that begin with "engine |"), those that start one of their own
#                             ("engines |"), the slow ones of the REPL, which mostly wait, of evaluations and of adapters
#                             ("repl |"), the other slow ones
#   scripts/test.sh --fast    those that need no engine and take no more than seconds
# Further arguments go to pytest, to each run of it, for example: scripts/test.sh --fast -k protocol
# With a path among them the slow tests are one run.
# With a marker expression of your own (-m) there is one run, of what it selects.
# The exit status is pytest's: that of the first run that failed; 5 where none selects a test.
set -euo pipefail
cd "$(dirname "$0")/.."

level=full
parts=all
repl=(tests/repl tests/evals tests/train/sync/test_lora_sync.py) # as long as the other runs
if [ "${1:-}" = --fast ]; then
    shift
    level=core
    parts=fast
else
    for argument in "$@"; do
        if [[ $argument == -m* ]]; then parts=chosen; fi
        if [[ $argument != -* && -e ${argument%%::*} ]]; then repl=(); fi
    done
fi
scripts/setup.sh "$level"
python=${RLM_ENV_VENV:-.venv}/bin/python

# Where bubblewrap can make the namespaces of the REPL's isolation level jail, that level has to start: its tests fail
# there instead of skipping. RLM_ENV_REQUIRED_LEVELS= (empty) takes that back.
namespaces=(--unshare-user --unshare-ipc --unshare-pid --unshare-net --unshare-uts --cap-drop ALL)
if bwrap "${namespaces[@]}" --ro-bind / / --dev /dev --proc /proc true 2>/dev/null; then
    export RLM_ENV_REQUIRED_LEVELS=${RLM_ENV_REQUIRED_LEVELS-jail}
fi

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

# beside NAME ARGUMENTS...: pytest in the background, each line of what it prints after "NAME |".
beside() {
    local name=$1
    shift
    "$python" -m pytest "$@" > >(sed -u "s/^/$name | /") 2>&1 &
    background+=($!)
}

# collect NAME PID: the end of such a run.
collect() {
    local code=0
    wait "$2" || code=$?
    ended "$1" "$code"
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
    # Each has half a core or more: threads that wait for work would take it from the others.
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
    background=()
    trap 'kill -INT "${background[@]}" 2>/dev/null || true; wait "${background[@]}" || true' EXIT
    beside engine -m "vllm and not slow" "$@"
    beside engines -m "vllm and slow" "${repl[@]/#/--ignore=}" "$@"
    if [ ${#repl[@]} != 0 ]; then beside repl -m slow "${repl[@]}" "$@"; fi
    run "slow tests" -m "slow and not vllm" "${repl[@]/#/--ignore=}" "$@"
    if [ ${#repl[@]} != 0 ]; then collect "slow tests of REPL, evaluations and adapters" "${background[2]}"; fi
    collect "tests that share an engine" "${background[0]}"
    collect "tests with engines of their own" "${background[1]}"
    trap - EXIT
fi
finish
