"""Print the returns of the policy that acts at random.

    python scripts/media/random_returns.py CartPole-v0 Reacher-v1 --num_trajs 100 --seed 0

Per task: mean and standard deviation (sd) of the return over episodes, and the mean length.
Finite actions are equally likely. Continuous ones are uniform between the task's bounds (standard
normal where it has none), which gives the random returns of the paper.
"""

import sys

from policyopt.command_line import Parser, whole
from policyopt.errors import UserError
from policyopt.options import MAX_TRAJS
from policyopt.provenance import draw_seed


def main(argv):
    parser = Parser('random_returns', __doc__)
    parser.add_argument('env', nargs='+', help='a gymnasium id, or package.module:EnvId')
    parser.add_argument('--num_trajs', type=whole(1, MAX_TRAJS), default=50, help='episodes of each task (50)')
    parser.add_argument('--seed', type=int, help='same seed, same numbers; drawn and printed unless given')
    parser.add_argument('--a_max', type=float, help="continuous actions uniform in ±a_max, whatever the task's bounds")
    parser.add_argument('--max_traj_len', type=whole(1), help="steps of an episode at most (the task's own limit)")
    args = parser.parse_args(argv)
    if args.a_max is not None and not 0 < args.a_max <= 1e300:  # in this order, NaN is rejected
        raise UserError(f'--a_max {args.a_max}: give a number above 0, up to 1e300')
    from policyopt.sampling.mdp import MDP, sample_randomly

    mdps = [MDP(name) for name in args.env]
    if args.a_max is not None and all(mdp.info.finite for mdp in mdps):
        raise UserError(f'--a_max {args.a_max}: no task has continuous actions; leave it out')
    for mdp in mdps:
        mdp.horizon(args.max_traj_len)
    seed = draw_seed() if args.seed is None else args.seed
    if args.seed is None:
        print(f'seed: {seed}', file=sys.stderr)
    for mdp in mdps:
        trajs = sample_randomly(mdp, args.num_trajs, seed, args.max_traj_len, args.a_max)
        mdp.close()
        returns, lengths = trajs.returns, trajs.lengths
        print(f'{mdp.env_name}  return: {returns.mean():.2f} (sd {returns.std():.2f})  length: {lengths.mean():.1f}')
