#!/usr/bin/env python3
"""Train experts of our own on the MuJoCo tasks of 2016 and keep the log and the last snapshot of each.

    python scripts/gen_modern_policies.py expert_policies/modern --tasks Reacher-v1

Writes Reacher-v1.h5 and so on into the folder (which must not hold them yet), then plays 200 stochastic episodes with each. A run
that was interrupted goes on when the command is given again. The options of InvertedPendulum-v1 and Reacher-v1 are those of
the shipped experts. The other tasks can be named, but nobody has trained them yet: their options are a proposal, with
the batch size, iterations and lam of 2016 and nets of 100-100 units (2016: 50-50).
"""

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from policyopt.util import Parser, RunFailed, UserError, run_main

OPTIONS = '--min_total_sa 50000 --sim_batch_size 1'
TASKS = {  # iterations, seed, further options
    'InvertedPendulum-v1': (41, 0, ''),
    'Reacher-v1': (201, 0, ''),
    'Hopper-v1': (501, 0, '--lam .98'),
    'HalfCheetah-v1': (501, 0, '--lam .98'),
    'Walker2d-v1': (501, 0, '--lam .98'),
    'Ant-v1': (501, 0, '--lam .97'),
}
TRAINED = ['InvertedPendulum-v1', 'Reacher-v1']


def main(argv):
    p = Parser('gen_modern_policies', __doc__)
    p.add_argument('folder')
    p.add_argument('--tasks', nargs='+', default=TRAINED, choices=list(TASKS), metavar='ENV', help='default: ' + ' '.join(TRAINED))
    p.add_argument('--seed', type=int, help='one seed for all tasks')
    p.add_argument('--verbose', action='store_true')
    args = p.parse_args(argv)
    taken = [t for t in args.tasks if os.path.exists(os.path.join(args.folder, f'{t}.h5'))]
    if taken:
        raise UserError(f'{args.folder}: holds {taken[0]}.h5 already, and finished data is never overwritten; choose another folder')
    if args.seed is not None and args.seed < 0:
        raise UserError(f'--seed {args.seed}: give 0 or more')
    try:
        os.makedirs(args.folder, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as e:
        raise UserError(f'{args.folder}: cannot be a folder, because a file of that name is in the way; choose another') from e
    from policyopt.snapshots import TrainingLog

    here = Path(__file__).resolve().parent
    for task in args.tasks:
        log = os.path.join(args.folder, f'{task}.h5')
        num_iter, seed, options = TASKS[task]
        seed = seed if args.seed is None else args.seed
        options = [*OPTIONS.split(), '--max_iter', num_iter, *options.split(), '--seed', seed, '--print_freq', 20, '--resume', '--log', log]
        run(task, here / 'run_rl_mj.py', '--env_name', f'legacy/{task}', *options)
        TrainingLog(log, {}).keep_last()
        run(task, here / 'vis_mj.py', f'{log}/snapshots/last', '--eval_only', '--count', 200, '--seed', 0)


def run(task, script, *options):
    command = [str(script), *map(str, options)]
    print('python', os.path.relpath(command[0]), *command[1:], flush=True)
    if subprocess.run([sys.executable, *command]).returncode:
        raise RunFailed(f'{task}: the command above failed')


if __name__ == '__main__':
    sys.exit(run_main('gen_modern_policies', main))
