#!/usr/bin/env bash
# Run the style check (ruff) and the tests (pytest); the exit code is that of the worse of the two.
#
#     bash scripts/run_tests.sh [--slow] [options of pytest …]
#
# --slow runs everything, the slow tests too. Without an active virtual environment, one is made in .venv. MuJoCo is installed too.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/_venv.sh"

options=()
for arg in "$@"; do
    case $arg in
    -h | --help) print_header "${BASH_SOURCE[0]}" && exit ;;
    --slow) options+=(-m '') ;;
    *) options+=("$arg") ;;
    esac
done

# shellcheck disable=SC2086  # a list of words
use_python requirements.lock $RUNTIME pytest hypothesis ruff
# shellcheck disable=SC2086
use_python requirements-mujoco.lock $MUJOCO
cd "$ROOT"

style=0
"$PY" -m ruff check . || style=$?
tests=0
"$PY" -m pytest -q "${options[@]+"${options[@]}"}" || tests=$?
if [ "$style" -ne 0 ]; then echo 'run_tests.sh: ruff check found faults, see above' >&2; fi
exit $((style > tests ? style : tests))
