#!/usr/bin/env bash
# Run the style check (ruff), the type check (basedpyright) and the tests (pytest); the exit code is that of the worst of the three.
#
#     bash scripts/run_tests.sh [--quick | --slow] [options of pytest …]
#
# --quick takes less than a minute on two cores: the numbers of 2016, steps against slow accounts, nets, experiment files, trajectories,
# statistics, imports, and one training run. --slow runs everything, the slow tests too. Files run at once, one on each core (-n 0: one
# after the other). Without an active virtual environment, one is made in .venv. MuJoCo and seals are installed too.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/_venv.sh"

QUICK=(tests/test_golden.py tests/test_golden_imitation.py tests/algorithms/test_{steps,continuous_steps,moments,nn}.py
    tests/pipeline/test_spec.py tests/files/test_trajectories.py tests/reporting/test_aggregate.py tests/docs/test_architecture.py
    tests/algorithms/test_training.py::test_the_same_seed_gives_the_same_file_and_another_one_another)
options=()
for arg in "$@"; do
    case $arg in
    -h | --help) print_header "${BASH_SOURCE[0]}" && exit ;;
    --quick) options+=("${QUICK[@]}") ;;
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

types_said=$(mktemp)
trap 'rm -f "$types_said"' EXIT
"$PY" -m basedpyright --pythonpath "$PY" >"$types_said" 2>&1 &
style=0 types=0 tests=0
"$PY" -m ruff check . || style=$?
"$PY" -m pytest -q -n logical --maxprocesses 8 --dist loadfile "${options[@]+"${options[@]}"}" || tests=$?
wait $! || types=$?
cat "$types_said"
if [ "$style" -ne 0 ]; then echo 'run_tests.sh: ruff check found faults, see above' >&2; fi
if [ "$types" -ne 0 ]; then echo 'run_tests.sh: basedpyright found faults, see above' >&2; fi
worst=$((style > types ? style : types))
exit $((worst > tests ? worst : tests))
