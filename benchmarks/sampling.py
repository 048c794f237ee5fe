#!/usr/bin/env python3
"""Closed-loop sampling speed, policy included: state-action pairs per CPU second and core.

    python benchmarks/sampling.py [--env CartPole-v0 …] [--workers 2] [--json sampling.json]

Four ways to sample the same kind of batch (5000 pairs of a freshly initialised 100-100 policy), medians of several batches:
  one      one gymnasium environment at a time, one observation per policy evaluation
  loop     many gymnasium environments stepped one after the other, one policy evaluation for all
  product  what training uses: our vectorised dynamics where we have them
  workers  the same in worker processes (wall-clock seconds, divided by the number of workers)
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))
from policyopt.cores import limit_threads  # noqa: E402
from policyopt.provenance import git_hash, versions  # noqa: E402

limit_threads()
import numpy as np  # noqa: E402

from policyopt.environments import rlgymenv  # noqa: E402
from policyopt.nn import SIMPLE_ARCHITECTURE  # noqa: E402
from policyopt.policies import make_policy  # noqa: E402
from policyopt.sampling.mdp import MDP, sample_batch  # noqa: E402
from policyopt.sampling.rollout import SimConfig  # noqa: E402


def one_at_a_time(actor, mdp, cfg):
    env, rng, pairs = rlgymenv.SingleEnv(mdp.env_name), np.random.default_rng(0), 0
    while pairs < cfg.min_total_sa:
        obs, done, t = env.reset(int(rng.integers(2**31))), False, 0
        while not done and t < cfg.max_traj_len:
            obs, _, done = env.step(actor.act(actor.outputs(obs[None]), actor.noise(rng, 1))[0])
            t += 1
        pairs += t
    env.close()
    return pairs


def rate(play, clock, repeats):
    """Median pairs per second of `clock`; the first call makes environments and is not counted."""
    play()
    rates = []
    for _ in range(repeats):
        start = clock()
        pairs = play()
        rates.append(pairs / (clock() - start))
    return statistics.median(rates)


def measure(env, pairs, workers, repeats):
    mdp = MDP(env)
    policy = make_policy(mdp.obs_space, mdp.action_space, SIMPLE_ARCHITECTURE, rng=np.random.RandomState(0))
    actor, cfg = policy.actor(), SimConfig(0, pairs, mdp.horizon())
    batches = iter(range(10**9))

    def sample(mdp, sim_batch_size):
        cfg = SimConfig(0, pairs, mdp.horizon(), sim_batch_size)
        return lambda: len(sample_batch(actor, mdp, cfg, (0, next(batches))).r.stacked)

    looped = MDP(env)
    looped._vec = rlgymenv.LoopVecEnv(env, 256)  # in place of the vectorised dynamics
    row = {
        'env': env,
        'one': rate(lambda: one_at_a_time(actor, mdp, cfg), time.process_time, repeats),
        'loop': rate(sample(looped, 1), time.process_time, repeats),
        'product': rate(sample(mdp, 1), time.process_time, repeats),
        'workers': rate(sample(mdp, workers), time.perf_counter, repeats) / workers,
    }
    mdp.close()
    looped.close()
    return row


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--env', nargs='+', default=['CartPole-v0', 'MountainCar-v0', 'Acrobot-v0'])
    p.add_argument('--pairs', type=int, default=5000)
    p.add_argument('--workers', type=int, default=2)
    p.add_argument('--repeats', type=int, default=7)
    p.add_argument('--json', metavar='FILE')
    args = p.parse_args()
    print(f'{"env":16} {"one":>9} {"loop":>9} {"product":>9} {"workers":>9}   product / one   (pairs per second and core)')
    rows = []
    for env in args.env:
        r = measure(env, args.pairs, args.workers, args.repeats)
        rows.append(r)
        ratio = r['product'] / r['one']
        print(f'{env:16} {r["one"]:9.0f} {r["loop"]:9.0f} {r["product"]:9.0f} {r["workers"]:9.0f}   {ratio:.1f}', flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps({'git_hash': git_hash(), 'versions': versions(), 'rows': rows}, indent=1))
        print(f'written: {args.json}')


if __name__ == '__main__':
    main()
