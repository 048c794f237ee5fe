#!/usr/bin/env bash
# Run the style check (ruff), the type check (basedpyright) and the tests (pytest); the exit code is that of the worst of the three.
#
#     bash scripts/run_tests.sh [--slow] [options of pytest …]
#
# Files run at once, one on each core (-n 0: one after the other). --slow runs everything, the slow tests too. Without an active virtual
# environment, one is made in .venv. MuJoCo and seals are installed too.
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
use_python requirements-test.lock nbclient ipykernel basedpyright xdist
# shellcheck disable=SC2086
use_python requirements-mujoco.lock $MUJOCO
use_python requirements-seals.lock seals
cd "$ROOT"

style=0
"$PY" -m ruff check . || style=$?
types=0
"$PY" -m basedpyright --pythonpath "$PY" || types=$?
tests=0
"$PY" -m pytest -q -n logical --maxprocesses 8 --dist loadfile "${options[@]+"${options[@]}"}" || tests=$?
if [ "$style" -ne 0 ]; then echo 'run_tests.sh: ruff check found faults, see above' >&2; fi
if [ "$types" -ne 0 ]; then echo 'run_tests.sh: basedpyright found faults, see above' >&2; fi
worst=$((style > types ? style : types))
exit $((worst > tests ? worst : tests))
