"""A whole experiment from one command: the three stages, then tables, report and figures.

`gail-pipeline all` and `gail-pipeline quickstart` call this directly, `scripts/run_all.sh` after it has installed the packages.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from policyopt.command_line import run_main
from policyopt.commands import run
from policyopt.errors import UserError
from policyopt.shipped import shipped

if TYPE_CHECKING:
    from policyopt.pipeline.spec import Spec

_ENDING = """
report   {name}.html
figures  {name}_figure1.png{reproduction}
tables   {name}.md, .csv (per run), _cells.csv (per cell)
results  {name}.h5
runs     {folder}/*.h5
logs     {folder}/logs/"""


def experiment(argv: list[str]) -> tuple[Spec, str | None]:
    """(specification, stage) of the arguments `SPEC.yaml [options of im_pipeline.py …]`; stage: what to do instead of a whole run.

    The stage is 'all' (for -n or --summary), '1_train' (for --estimate) or None. Raises UserError for an invalid file, selection or
    reference.
    """
    from policyopt.commands import im_pipeline
    from policyopt.pipeline.spec import load_spec, select_runs
    from policyopt.reporting.reference import read_reference

    path, _, overrides, summary, how = im_pipeline.parsed([argv[0], 'all', *argv[1:]])
    spec = load_spec(path, overrides)
    cells = {(r.task, r.alg, r.num_trajs) for r in select_runs(spec.runs(0), how.only, how.exclude)}
    if spec.reference_path and not cells & set(read_reference(spec.reference_path)):
        seen = f"{spec.file}: options.reference: '{spec.options.reference}' has none of the {len(cells)} cells of this experiment"
        raise UserError(f'{seen}; expected some of their task, alg and num_trajs. Do without it: --set options.reference=null')
    if how.dry_run or summary:
        return spec, 'all'
    return spec, '1_train' if how.estimate else None


def run_all(argv: list[str]) -> int:
    """Do `SPEC.yaml [options of im_pipeline.py …]`; returns an exit code. Finished work is not repeated."""
    if {'-h', '--help'} & set(argv):
        return run('im_pipeline', ['--help'])
    spec, asked = experiment(argv)
    if asked:
        return run('im_pipeline', [spec.file, asked, '--resume', *argv[1:]])
    name, extension = os.path.splitext(spec.results_path)
    results, reference = name + extension, ['--reference', spec.reference_path] if spec.reference_path else []
    tables = [word for kind, end in (('csv', '.csv'), ('markdown', '.md'), ('html', '.html')) for word in (f'--{kind}', name + end)]
    code = (
        run('im_pipeline', [spec.file, 'all', '--resume', '--estimate', '--no-table', *argv[1:]])
        or run('analyze_results', [results, *reference, *tables])
        or run('plot_results', [results])
        or (run('plot_results', [results, '--kind', 'reproduction', *reference]) if reference else 0)
    )
    if code:
        return code
    print(_ENDING.format(name=name, folder=os.path.dirname(name), reproduction=f', {name}_reproduction.png' if reference else ''))
    if os.path.realpath(sys.prefix) == os.path.realpath(shipped('.venv')):
        print(f'To use the commands in scripts/ by hand: . {os.path.relpath(shipped(".venv"))}/bin/activate')
    return 0


def _main(argv: list[str]) -> int | None:
    """Run the experiment; with --needs only print which of the extras mujoco and seals its tasks need."""
    if argv[0] != '--needs':
        return run_all(argv)
    from policyopt.environments.rlgymenv import needs_mujoco, needs_seals

    spec, asked = experiment(argv[1:])
    names = [] if asked == 'all' else [task.env for task in spec.tasks]
    needed = [extra for extra, needs in (('mujoco', needs_mujoco), ('seals', needs_seals)) if any(map(needs, names))]
    print(*needed or ['nothing more'])
    return None


if __name__ == '__main__':
    sys.exit(run_main('run_all', _main))
