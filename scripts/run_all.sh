#!/usr/bin/env bash
# Run a whole experiment: sample the experts, train, evaluate; then print the table and draw the figure.
#
#     bash scripts/run_all.sh [PIPELINE.yaml] [options of im_pipeline.py …]
#     bash scripts/run_all.sh pipelines/classic.yaml -j 2
#
# PIPELINE.yaml is pipelines/quickstart.yaml unless given. What is finished is not done again: called again it goes on after
# an interruption, or shows the table. Without an active virtual environment, one is made in .venv; MuJoCo is added when a task
# needs it.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/_venv.sh"

pipeline=pipelines/quickstart.yaml
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
    pipeline=$1
    shift
fi
only_asking=
for arg in "$@"; do
    case $arg in
    -h | --help) print_header "${BASH_SOURCE[0]}" && exit ;;
    -n | --dry-run | --summary) only_asking=1 ;;
    esac
done

# shellcheck disable=SC2086  # a list of words
use_python requirements.lock $RUNTIME
# a file of your own keeps its outputs in your folder, ours theirs in the checkout
if [ ! -e "$pipeline" ]; then cd "$ROOT"; fi

# where the results will be, and whether a task needs MuJoCo
facts=$("$PY" - "$pipeline" "$@" <<'EOF'
import argparse

from environments.rlgymenv import needs_mujoco
from policyopt.pipeline.spec import load_spec
from policyopt.util import run_main


def main(argv):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument('--set', action='extend', nargs='+', default=[])
    spec = load_spec(argv[0], parser.parse_known_args(argv[1:])[0].set)
    print('mujoco' if any(needs_mujoco(task.env) for task in spec.tasks) else 'plain')
    print(spec.results_path)


raise SystemExit(run_main('run_all', main))
EOF
)
# shellcheck disable=SC2086
if [ -z "$only_asking" ] && [ "${facts%%$'\n'*}" = mujoco ]; then use_python requirements-mujoco.lock $MUJOCO; fi

"$PY" "$ROOT/scripts/im_pipeline.py" "$pipeline" all --resume "$@"
if [ -n "$only_asking" ]; then exit; fi

results=${facts#*$'\n'}
figure=${results%.h5}_figure1.png
"$PY" "$ROOT/scripts/analyze_results.py" "$results"
"$PY" "$ROOT/scripts/plot_results.py" "$results" -o "$figure"

folder=$(cd "$(dirname "$results")" && pwd)
echo
echo "table    $folder/$(basename "$results")"
echo "figure   $folder/$(basename "$figure")"
echo "runs     $folder/*.h5"
echo "logs     $folder/logs/"
if [ "$PY" = "$ROOT/.venv/bin/python" ]; then echo "To use the commands in scripts/ by hand: . $ROOT/.venv/bin/activate"; fi
