# Sourced by run_all.sh and run_tests.sh. Sets ROOT, the checkout, and with use_python PY, a Python that has every package named.
#
#     . "$(dirname "$0")/_venv.sh"; use_python requirements.lock torch numpy …
#
# An environment that is active is used; only when it lacks a package, the lock file is installed into it. When none is
# active, .venv is made in the checkout, and the lock file installed into it once: a stamp holds the lock's hash. A second
# call with another lock file adds to the same environment.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
RUNTIME='torch gymnasium tables yaml numpy scipy matplotlib tqdm threadpoolctl'
MUJOCO='mujoco imageio'

print_header() {  # print_header FILE: the comment at the top of a script, as its help
    awk 'NR > 1 && !/^#/ {exit} NR > 1 {sub(/^# ?/, ""); print}' "$1"
}

has_packages() {  # has_packages PYTHON NAME…: are all of them there?
    "$1" -c 'import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, sys.argv[1:])))' "${@:2}" 2>/dev/null
}

lock_hash() {  # lock_hash PYTHON LOCK
    "$1" -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$ROOT/$2"
}

find_base_python() {
    local candidate
    for candidate in "${PYTHON:-python3}" python3 python python3.13 python3.12 python3.11; do
        # the versions of the lock file need 3.11
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "${0##*/}: error: no Python 3.11 or newer with the module venv was found (on Debian and Ubuntu: apt install python3-venv)." \
        "Name one with PYTHON=/path/to/python; with Python 3.10, activate an environment with \`pip install -e '.[test]'\` in it" >&2
    exit 2
}

install_lock() {  # install_lock LOCK FOLDER: the lock file and this checkout, quietly, into the environment of PY in FOLDER
    local log start=$SECONDS
    log=$(mktemp)
    printf '%s: installing %s packages into %s (once; this can take a few minutes) … ' \
        "${0##*/}" "$(grep -c == "$ROOT/$1")" "$2" >&2
    if "$PY" -m pip install --disable-pip-version-check -r "$ROOT/$1" >"$log" 2>&1 &&
        "$PY" -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e "$ROOT" >>"$log" 2>&1; then
        echo "done in $((SECONDS - start)) s" >&2
        rm -f "$log"
    else
        printf 'failed\n%s\n' "$(tail -n 15 "$log")" >&2
        echo "${0##*/}: error: pip could not install the packages; its whole output is in $log" >&2
        exit 1
    fi
}

use_python() {  # use_python LOCK NAME…
    local base hash active=${VIRTUAL_ENV:-} lock=$1 stamp=$ROOT/.venv/${1%.lock}.sha256
    shift
    # conda's base environment is everybody's: nothing is installed into it
    if [ -z "$active" ] && [ "${CONDA_DEFAULT_ENV:-base}" != base ]; then active=${CONDA_PREFIX:-}; fi
    # scripts find the packages of this checkout, whatever else is installed
    export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
    if [ -n "$active" ] && [ -x "$active/bin/python" ]; then
        PY=$active/bin/python
        if ! has_packages "$PY" "$@"; then install_lock "$lock" "$active"; fi
        return
    fi
    PY=$ROOT/.venv/bin/python
    if ! "$PY" -c '' 2>/dev/null; then
        base=$(find_base_python)
        "$base" -m venv --clear "$ROOT/.venv"
    fi
    hash=$(lock_hash "$PY" "$lock")
    if [ ! -e "$stamp" ] || [ "$(cat "$stamp")" != "$hash" ]; then
        install_lock "$lock" "$ROOT/.venv"
        echo "$hash" >"$stamp"
    fi
}
