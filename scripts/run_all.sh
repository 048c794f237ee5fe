#!/usr/bin/env bash
# Run a whole experiment: sample the experts, say how long training will take, train, evaluate; then make tables, figures and a report.
#
#     bash scripts/run_all.sh [PIPELINE.yaml] [options of im_pipeline.py …]
#     bash scripts/run_all.sh pipelines/classic.yaml -j 2
#
# PIPELINE.yaml is pipelines/quickstart.yaml unless given. What is finished is not done again: called again it goes on after
# an interruption, or shows the table. With --estimate it only says how long training will take, with -n or --summary what is
# to do. Where the YAML file has options.reference, every cell is judged beside the published one.
# Without an active virtual environment, one is made in .venv; MuJoCo and seals are added when
# a task needs them.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/_venv.sh"

pipeline=pipelines/quickstart.yaml
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
    pipeline=$1
    shift
fi
for arg in "$@"; do
    case $arg in
    -h | --help) print_header "${BASH_SOURCE[0]}" && exit ;;
    esac
done

# shellcheck disable=SC2086  # a list of words
use_python requirements.lock $RUNTIME
# a file of your own keeps its outputs in your folder, ours theirs in the checkout
if [ ! -e "$pipeline" ]; then
    cd "$ROOT"
    echo "run_all: paths are below $ROOT" >&2
fi

needs=$("$PY" -m policyopt.commands.run_all --needs "$pipeline" "$@")
for extra in $needs; do
    case $extra in
    # shellcheck disable=SC2086
    mujoco) use_python requirements-mujoco.lock $MUJOCO ;;
    seals) use_python requirements-seals.lock seals ;;
    esac
done
exec "$PY" -m policyopt.commands.run_all "$pipeline" "$@"
