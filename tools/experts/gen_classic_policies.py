#!/usr/bin/env python3
"""Train the experts of the classic tasks with the options of 2016 and keep the log and the last snapshot of each.

    python tools/experts/gen_classic_policies.py NEW_FOLDER

Writes CartPole-v0.h5, MountainCar-v0.h5 and Acrobot-v0.h5 into the folder and plays 200 stochastic episodes with each. Given
again, the command goes on where it was interrupted; experts that are there already are only played. The defaults are the seeds of
the shipped experts: of 0 to 6, those whose last policy plays like the experts of 2016 (a policy of iteration 100 can be one TRPO
step worse than its neighbours). The value function does not see the time: so the 2016 logs look, and with it Mountain Car and
Acrobot find their goal within 101 iterations far less often.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from policyopt.command_line import Parser, run_main
from policyopt.errors import RunFailed, UserError
from policyopt.pipeline.experiment_dir import check_place
from policyopt.signals import call

OPTIONS = (
    '--tiny_policy --min_total_sa 5000 --sim_batch_size 1 --max_iter 101 '
    '--lam .98 --policy_cg_damping .01 --vf_cg_damping .01 --vf_include_time 0'
)
EXPERTS = {'CartPole-v0': OPTIONS + ' --seed 1', 'MountainCar-v0': OPTIONS + ' --seed 5', 'Acrobot-v0': OPTIONS + ' --seed 5'}


def train_experts(prog, doc, experts, default, argv):
    """The command behind gen_*_policies.py; experts: {env: options of run_rl_mj.py}, default: those trained unless told otherwise."""

    def full_name(task):  # Hopper-v1 means legacy/Hopper-v1, as everywhere, or seals:seals/Hopper-v1
        return next((name for name in experts if name.rpartition('/')[2] == task), task)

    p = Parser(prog, doc)
    p.add_argument('folder')
    p.add_argument(
        '--tasks', nargs='+', default=default, type=full_name, choices=list(experts), metavar='ENV', help='default: ' + ' '.join(default)
    )
    p.add_argument('--seed', type=int, help='one seed for all tasks')
    args = p.parse_args(argv)
    files = {task: os.path.join(args.folder, f'{task.rpartition("/")[2]}.h5') for task in args.tasks}
    if args.seed is not None and args.seed < 0:
        raise UserError(f'--seed {args.seed}: give 0 or more')
    check_place(args.folder, 'folder')
    from policyopt.files.training_log import TrainingLog, read_root
    from policyopt.sampling.mdp import MDP

    for task, log in files.items():
        MDP(task).close()  # says what is missing before anything is made
        if os.path.exists(log):
            seed = read_root(log)['args'].get('seed')
            if args.seed not in (None, seed):
                raise UserError(f'{log}: is there already, with seed {seed}, not {args.seed}; choose another folder')
    os.makedirs(args.folder, exist_ok=True)
    scripts = Path(__file__).resolve().parents[2] / 'scripts'
    for task, log in files.items():
        if os.path.exists(log):
            print(f'{log}: is there already')
        else:
            options = experts[task].split() + ([] if args.seed is None else ['--seed', args.seed])  # the last --seed counts
            run(task, [scripts / 'run_rl_mj.py', '--env_name', task, *options, '--print_freq', 20, '--resume', '--log', log])
            TrainingLog(log, {}).keep_last()
        snapshot = f'{log}/snapshots/last'
        run(task, [scripts / 'vis_mj.py', snapshot, '--env_name', task, '--eval_only', '--count', 200, '--seed', 0])


def run(task, command):
    """Show a command, a script and its options, and run it; RunFailed when it fails."""
    command = [str(word) for word in command]
    print('python', os.path.relpath(command[0]), *command[1:], flush=True)
    if call([sys.executable, *command]):
        raise RunFailed(f'{task}: the command above failed')


if __name__ == '__main__':
    prog = 'gen_classic_policies'
    sys.exit(run_main(prog, lambda argv: train_experts(prog, __doc__, EXPERTS, list(EXPERTS), argv)))
