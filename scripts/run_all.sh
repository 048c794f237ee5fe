#!/usr/bin/env bash
# Run a whole experiment: sample the experts, say how long training will take, train, evaluate; then make tables, figures and a report.
#
#     bash scripts/run_all.sh [PIPELINE.yaml] [options of im_pipeline.py …]
#     bash scripts/run_all.sh pipelines/classic.yaml -j 2
#
# PIPELINE.yaml is pipelines/quickstart.yaml unless given. What is finished is not done again: called again it goes on after
# an interruption, or shows the table. With --estimate it only says how long training will take, with -n or --summary what is
# to do. Where the YAML file has options.reference, every cell is judged beside the published one.
# Without an active virtual environment, one is made in .venv; MuJoCo is added when a task needs it.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/_venv.sh"

pipeline=pipelines/quickstart.yaml
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
    pipeline=$1
    shift
fi
asking=
for arg in "$@"; do
    case $arg in
    -h | --help) print_header "${BASH_SOURCE[0]}" && exit ;;
    -n* | -[kqvy]*n* | --dry-run | --summary) asking=all ;;
    --estimate) asking=1_train ;;
    esac
done

# shellcheck disable=SC2086  # a list of words
use_python requirements.lock $RUNTIME
# a file of your own keeps its outputs in your folder, ours theirs in the checkout
if [ ! -e "$pipeline" ]; then cd "$ROOT"; fi

# whether a task needs MuJoCo, where the results will be, and the published ones
facts=$("$PY" - "$pipeline" "$@" <<'EOF'
import argparse

from environments.rlgymenv import needs_mujoco
from policyopt.pipeline.spec import load_spec, select_runs
from policyopt.reporting.reference import read_reference
from policyopt.util import UserError, run_main

def main(argv):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for option in ('--set', '--only', '--exclude'):
        parser.add_argument(option, action='extend', nargs='+', default=[])
    args = parser.parse_known_args(argv[1:])[0]
    spec = load_spec(argv[0], args.set)
    cells = {(r.task, r.alg, r.num_trajs) for r in select_runs(spec.runs(0), args.only, args.exclude)}
    if spec.reference_path and not cells & set(read_reference(spec.reference_path)):
        seen = f"{spec.file}: options.reference: '{spec.options.reference}' has none of the {len(cells)} cells of this experiment"
        raise UserError(f'{seen}; expected some of their task, alg and num_trajs. Do without it: --set options.reference=null')
    print('mujoco' if any(needs_mujoco(task.env) for task in spec.tasks) else 'plain')
    print(spec.results_path, spec.reference_path or '', sep='\n')

raise SystemExit(run_main('run_all', main))
EOF
)
{ IFS= read -r engine; IFS= read -r results; IFS= read -r reference; } <<<"$facts"$'\n'
# shellcheck disable=SC2086
if [ "$engine" = mujoco ] && [ "$asking" != all ]; then use_python requirements-mujoco.lock $MUJOCO; fi
if [ -n "$asking" ]; then exec "$PY" "$ROOT/scripts/im_pipeline.py" "$pipeline" "$asking" --resume "$@"; fi

"$PY" "$ROOT/scripts/im_pipeline.py" "$pipeline" all --resume --estimate "$@"

name=${results%.h5}
"$PY" "$ROOT/scripts/analyze_results.py" "$results" ${reference:+--reference "$reference"} \
    --csv "$name.csv" --markdown "$name.md" --html "$name.html"
"$PY" "$ROOT/scripts/plot_results.py" "$results"
if [ -n "$reference" ]; then "$PY" "$ROOT/scripts/plot_results.py" "$results" --kind reproduction --reference "$reference"; fi
name=$(cd "$(dirname "$name")" && pwd)/$(basename "$name")
cat <<EOF

results  $name.h5
tables   $name.md, $name.csv (per run), ${name}_cells.csv (per cell)
report   $name.html
figures  ${name}_figure1.png${reference:+, ${name}_reproduction.png}
runs     ${name%/*}/*.h5
logs     ${name%/*}/logs/
EOF
if [ "$PY" = "$ROOT/.venv/bin/python" ]; then echo "To use the commands in scripts/ by hand: . $ROOT/.venv/bin/activate"; fi
