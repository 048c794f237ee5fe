"""Record demonstrations of a person at the keyboard.

    python scripts/record_trajs.py CartPole-v1 trajs_mine.h5 --count 5
    python scripts/record_trajs.py MountainCar-v0 trajs_mine.h5 --noop 1

A window shows the environment; the keys that act are printed. Without --noop, time stands still
while no key is held. Escape ends the recording and keeps complete episodes only.
Needs pip install -e '.[video]'.
"""

import shlex
import sys

from policyopt.command_line import Parser, whole
from policyopt.files.atomic import check_output
from policyopt.provenance import draw_seed, provenance
from policyopt.shipped import as_typed


def main(argv):
    p = Parser('record_trajs', __doc__)
    p.add_argument('env_name', metavar='ENV', help='gymnasium id, a 2016 name, or package.module:EnvId')
    p.add_argument('out', metavar='OUT.h5', help='the trajectory file to write')
    p.add_argument('--count', type=whole(1), default=10, help='episodes (default: 10; Escape ends earlier)')
    p.add_argument('--noop', type=int, help='the action while no key is held, 0 for continuous ones (default: time stands still)')
    p.add_argument('--fps', type=whole(1), help='steps per second (default: what the environment says)')
    p.add_argument('--max_traj_len', type=whole(1), help="steps per episode at most (default: the env's time limit)")
    p.add_argument('--seed', type=whole(0, 2**32 - 1), help='episode i begins with seed + i (default: drawn)')
    args = p.parse_args(argv)
    if args.seed is None:
        args.seed = draw_seed()
    check_output(args.out, 'the trajectories')
    from policyopt.evaluation import record_person, scores
    from policyopt.files.trajectory_file import save_trajs

    trajs = record_person(args.env_name, args.count, args.seed, noop=args.noop, fps=args.fps, max_traj_len=args.max_traj_len)
    save_trajs(args.out, trajs, provenance() | {'env_name': args.env_name, 'seed': args.seed})
    print(f'{scores(trajs)}\n{len(trajs)} trajectories: {args.out}')
    options = f'--env_name {shlex.quote(args.env_name)} --data {shlex.quote(args.out)} --max_iter 1001 --log run.h5'
    print('next:', as_typed(f'imitate_mj.py --mode bclone {options}'), file=sys.stderr)
