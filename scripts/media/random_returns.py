#!/usr/bin/env python3
"""Print the returns of the policy that acts at random: mean ± sd over episodes, and the mean length.

Finite actions are equally likely; every dimension of a continuous action is uniform in [-a_max, a_max].

Example:
    python scripts/media/random_returns.py CartPole-v0 MountainCar-v0 --num_trajs 100 --seed 0
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from environments import rlgymenv
from policyopt.util import RunFailed, UserError, derive_seed, draw_seed, run_main


def play(env, rng, a_max, max_traj_len):
    """One episode with random actions: (return, length)."""
    info = env.info
    env.reset(int(rng.integers(2**31)))
    total, length, done = 0.0, 0, False
    while not done and length < max_traj_len:
        a_Da = rng.integers(info.num_actions, size=1) if info.finite else rng.uniform(-a_max, a_max, info.a_dim)
        _, r, done = env.step(a_Da)
        total, length = total + r, length + 1
    return total, length


def main(argv):
    parser = argparse.ArgumentParser(prog='random_returns', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('env', nargs='+', help='a gymnasium id, or package.module:EnvId')
    parser.add_argument('--num_trajs', type=int, default=50, help='episodes of each task (50)')
    parser.add_argument('--seed', type=int, help='same seed, same numbers; drawn and printed unless given')
    parser.add_argument('--a_max', type=float, default=1.0, help='largest size of a continuous action (1, as in most MuJoCo tasks)')
    parser.add_argument('--max_traj_len', type=int, help="steps of an episode at most (the task's own limit)")
    parser.add_argument('--verbose', action='store_true', help='show a traceback on errors')
    args = parser.parse_args(argv)
    for flag in ('num_trajs', 'max_traj_len'):
        if (value := getattr(args, flag)) is not None and value < 1:
            raise UserError(f'--{flag} is {value}; give 1 or more')
    try:
        envs = [rlgymenv.make_env(name) for name in args.env]
    except rlgymenv.BadEnvironment as e:
        raise UserError(str(e)) from e
    for env in envs:
        if not (args.max_traj_len or env.info.time_limit):
            raise UserError(f"env '{env.info.name}' has no time limit of its own; give --max_traj_len")
    seed = draw_seed() if args.seed is None else args.seed
    if args.seed is None:
        print(f'seed: {seed}', file=sys.stderr)
    for env in envs:
        rngs = [np.random.default_rng(derive_seed(seed, i)) for i in range(args.num_trajs)]
        try:
            episodes = [play(env, rng, args.a_max, args.max_traj_len or env.info.time_limit) for rng in rngs]
        except rlgymenv.BadEnvironment as e:
            raise RunFailed(str(e)) from e
        returns, lengths = np.array(episodes).T
        env.close()
        print(f'{env.info.name}  return: {returns.mean():.2f} +/- {returns.std():.2f}  length: {lengths.mean():.1f}')


if __name__ == '__main__':
    sys.exit(run_main('random_returns', main))
