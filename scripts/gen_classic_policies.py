#!/usr/bin/env python3
"""Train the experts of the classic tasks with the options of 2016 and keep the log and the last snapshot of each.

    python scripts/gen_classic_policies.py expert_policies/classic

Writes CartPole-v0.h5, MountainCar-v0.h5 and Acrobot-v0.h5 into the folder (which must not hold them yet), then plays 200
stochastic episodes with each. The defaults are the seeds of the shipped experts: of 0 to 6, those whose last policy plays like the
experts of 2016 (a policy of iteration 100 can be one TRPO step worse than its neighbours). The value function does not see
the time: so the 2016 logs look, and with it Mountain Car and Acrobot find their goal within 101 iterations far less often.
"""

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from policyopt.util import Parser, RunFailed, UserError, run_main

OPTIONS = (
    '--tiny_policy --min_total_sa 5000 --sim_batch_size 1 --max_iter 101 '
    '--lam .98 --policy_cg_damping .01 --vf_cg_damping .01 --vf_include_time 0'
)
SEEDS = {'CartPole-v0': 0, 'MountainCar-v0': 5, 'Acrobot-v0': 1}


def main(argv):
    p = Parser('gen_classic_policies', __doc__)
    p.add_argument('folder')
    p.add_argument('--tasks', nargs='+', default=list(SEEDS), choices=list(SEEDS), metavar='ENV')
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
        seed = SEEDS[task] if args.seed is None else args.seed
        options = [*OPTIONS.split(), '--seed', seed, '--print_freq', 20, '--resume', '--log', log]
        run(task, here / 'run_rl_mj.py', '--env_name', task, *options)
        TrainingLog(log, {}).keep_last()
        run(task, here / 'vis_mj.py', f'{log}/snapshots/last', '--eval_only', '--count', 200, '--seed', 0)


def run(task, script, *options):
    command = [str(script), *map(str, options)]
    print('python', os.path.relpath(command[0]), *command[1:], flush=True)
    if subprocess.run([sys.executable, *command]).returncode:
        raise RunFailed(f'{task}: the command above failed')


if __name__ == '__main__':
    sys.exit(run_main('gen_classic_policies', main))
