#!/usr/bin/env python3
"""Measure where the CPU seconds of an adversarial run go: sampling, policy, value and classifier steps, gradient penalty.

    python benchmarks/iteration.py                                     # gail and ga on seals/HalfCheetah-v1, float64
    python benchmarks/iteration.py --task cartpole --dtype float64 float32
    python benchmarks/iteration.py --all --json iteration.json

The split is in CPU seconds per 100 000 environment steps, of this process on one thread: means over --iterations, after two that are not
counted. `other` is rewards, advantages and log fields. `ms` is the median of an iteration, and `products` that in units of one matrix
product (5000×100×100 in blocks of 512 rows) timed in turn with the iterations, which compares machines and busy hours. `by hand` and
`autograd` are the milliseconds of the iteration's gradients and curvature products alone, by our own code and by plain autograd
(derivatives.py; ga on classic tasks). `peak` is the most memory that this process has held so far, in MB.

Every algorithm has the options of its mode: 2000 pairs an iteration for gail; 5000 for the others. The expert data are four trajectories of
the shipped experts, every N-th pair on the classic tasks. `mujoco-shaped` and `humanoid-shaped` are synthetic batches of 50 000 rows
with 17 and 6, or 376 and 17 observation and action dims: nothing is sampled there.
"""

import argparse
import collections
import json
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))
from policyopt.cores import limit_threads  # noqa: E402
from policyopt.provenance import git_hash, machine, versions  # noqa: E402

limit_threads()
import numpy as np  # noqa: E402
import torch  # noqa: E402
from derivatives import jobs  # noqa: E402

from policyopt import algorithms, imitation, rewards, rl, training  # noqa: E402
from policyopt.evaluation import open_policy, sample_episodes  # noqa: E402
from policyopt.nn import BLOCK_ROWS, SIMPLE_ARCHITECTURE  # noqa: E402
from policyopt.options import ImitationOptions  # noqa: E402
from policyopt.policies import make_policy  # noqa: E402
from policyopt.sampling.mdp import RecordedTask  # noqa: E402
from policyopt.torchutil import (  # noqa: E402
    DTYPES,
    NetConfig,
    mm,
    numerics,
)
from policyopt.trajectories import ContinuousSpace, Expert, TrajBatch  # noqa: E402
from policyopt.valuefuncs import ValueFunc  # noqa: E402

# task: (env, the file of its expert, every N-th pair of the demonstrations)
TASKS = {
    'cartpole': ('CartPole-v0', 'classic/CartPole-v0', 10),
    'mountaincar': ('MountainCar-v0', 'classic/MountainCar-v0', 5),
    'acrobot': ('Acrobot-v0', 'classic/Acrobot-v0', 5),
    'halfcheetah': ('HalfCheetah-v1', 'modern/HalfCheetah-v1', 1),
    'seals-halfcheetah': ('seals:seals/HalfCheetah-v1', 'seals/HalfCheetah-v1', 1),
}
SHAPES = {'mujoco-shaped': (17, 6), 'humanoid-shaped': (376, 17)}
PARTS = 'sampling', 'policy', 'value', 'classifier', 'penalty', 'other'
STEPS = 100_000  # environment steps that the split refers to


def one_product(dtype):
    """A function that does one 5000×100×100 product, in blocks as the nets do it."""
    a, w, out = (torch.randn(s, dtype=dtype) for s in ((5000, 100), (100, 100), (5000, 100)))

    def once():
        for at in range(0, 5000, BLOCK_ROWS):
            mm(a[at : at + BLOCK_ROWS], w, out=out[at : at + BLOCK_ROWS])

    return once


def cpu_ms(f):
    start = time.process_time()
    f()
    return 1e3 * (time.process_time() - start)


def median_ms(f, repeats):
    f()
    return statistics.median(cpu_ms(f) for _ in range(repeats))


class FixedShapeOptimizer(imitation.ImitationOptimizer):
    """The product's step on one batch of observations and actions, with the present policy's distributions."""

    fixed: tuple[np.ndarray, np.ndarray, np.ndarray, list[int]]

    def sample(self):
        obs, a, r, lengths = self.fixed
        return TrajBatch(obs, self.policy.actor().adist(obs), a, r, lengths)


def fixed_shape_optimizer(reward_type, task, dtype):
    """The optimiser of `ga` and its kind on a synthetic batch."""
    rng = np.random.RandomState(0)
    nets = NetConfig(rng, DTYPES[dtype])
    obs_dim, a_dim = SHAPES[task]
    obs_space, a_space, lengths = ContinuousSpace(obs_dim), ContinuousSpace(a_dim), [1000] * 50
    obs, a, r = rng.randn(50000, obs_dim), rng.randn(50000, a_dim), rng.randn(50000)
    policy = make_policy(obs_space, a_space, SIMPLE_ARCHITECTURE, rng=rng, dtype=dtype)
    policy.update_obsnorm(obs)
    options = ImitationOptions(reward_type=reward_type, policy_hidden_spec=SIMPLE_ARCHITECTURE, seed=0)
    vf = ValueFunc(options, obs_dim, 1e-3, nets)
    expert = Expert(obs[:200], a[:200], np.arange(200.0))
    if reward_type == 'nn':
        reward: Any = rewards.TransitionClassifier(options, obs_space, a_space, 1e-3, nets)
    else:
        reward = rewards.LinearReward(options, obs_space, a_space, 1e-3, expert, rng)
    mdp = RecordedTask(TrajBatch(obs, np.zeros((50000, 0)), a, r, lengths))
    opt = FixedShapeOptimizer(options, mdp, policy, vf, reward, expert, rng)
    opt.fixed = obs, a, r, lengths
    return opt


def make_optimizer(alg, task, dtype) -> Any:
    """The optimiser of an algorithm at the start of a run with the default options of its mode."""
    row = algorithms.ALGORITHMS[alg]
    if task in SHAPES:
        return fixed_shape_optimizer(row.reward_type, task, dtype)
    env, expert_file, freq = TASKS[task]
    policy, mdp = open_policy(str(REPO / f'expert_policies/{expert_file}.h5/snapshots/last'), env)
    trajs = sample_episodes(policy, mdp, 4, seed=0)
    chosen = {'env_name': env, 'mode': row.mode, 'data_subsamp_freq': freq, 'dtype': dtype}
    chosen |= {'max_iter': 1000, 'seed': 0, 'sim_batch_size': 1}
    if row.reward_type is not None:
        chosen['reward_type'] = row.reward_type
    if row.mode == 'ga':
        chosen |= {'min_total_sa': 5000, 'favor_zero_expert_reward': int(env in ('MountainCar-v0', 'Acrobot-v0'))}
    args = training.with_reward_sign(training.prepare(ImitationOptions(**chosen)), trajs, mdp)
    return training.imitation_run(args, mdp, training.expert_pairs(args, trajs, mdp, expert_file)).opt


def timed(seconds, part, function):
    """The function, which adds the CPU seconds of its calls to those of a part."""

    def call(*args, **kwargs):
        start = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[part] += time.process_time() - start

    return call


def split(opt):
    """{part: CPU seconds so far} of an optimiser whose steps are timed from now on; a penalty counts as `classifier` too."""
    seconds = collections.defaultdict(float)
    opt.sample = timed(seconds, 'sampling', opt.sample)
    opt.reward.fit = timed(seconds, 'classifier', opt.reward.fit)
    opt.vf.fit = timed(seconds, 'value', opt.vf.fit)
    if hasattr(opt.reward, 'penalty_gradient'):
        opt.reward.penalty_gradient = timed(seconds, 'penalty', opt.reward.penalty_gradient)
    return seconds


def derivatives_ms(opt):
    """CPU milliseconds of one iteration's derivatives, by hand and by autograd, after checking that both give the same vectors."""
    ours = theirs = 0.0
    for name, (by_hand, by_autograd) in jobs(opt, opt.sample(), np.random.default_rng(0)).items():
        a, b = by_hand(), by_autograd()
        tolerance = 1e-9 if a.dtype == torch.float64 else 1e-3
        assert float((a - b).abs().max()) <= tolerance * float(b.abs().max()), name
        ours, theirs = ours + median_ms(by_hand, 10), theirs + median_ms(by_autograd, 10)
    return ours, theirs


def measure(alg, task, dtype, iterations):
    """A row of the table."""
    opt = make_optimizer(alg, task, dtype)
    torch.set_grad_enabled(False)
    once, adversarial = one_product(opt.policy.theta_P.dtype), algorithms.MODES[algorithms.ALGORITHMS[alg].mode].adversarial
    for _ in range(2):  # buffers are allocated
        opt.step()
    cpu, units, row, steps_before = [], [], {}, getattr(opt, 'num_sa', 0)
    trpo_step, seconds = rl.trpo_step, split(opt) if adversarial else {}
    rl.trpo_step = timed(seconds, 'policy', trpo_step)
    try:
        for i in range(iterations):
            cpu.append(cpu_ms(opt.step))
            if adversarial or i % 20 == 0:
                units.append(cpu_ms(once))  # in turn with the iterations, so that both see the same slow moments
    finally:
        rl.trpo_step = trpo_step
    if adversarial:
        seconds['classifier'] -= seconds['penalty']
        seconds['other'] = sum(cpu) / 1e3 - sum(seconds.values())
        row = {part: seconds[part] * STEPS / (opt.num_sa - steps_before) for part in PARTS}
        row['total'] = sum(row.values())
    row |= {'alg': alg, 'task': task, 'dtype': dtype, 'iterations': iterations, 'ms': statistics.median(cpu)}
    row['products'] = row['ms'] / statistics.median(units)
    if alg == 'ga' and task in ('cartpole', 'mountaincar', 'acrobot'):
        row['by hand'], row['autograd'] = derivatives_ms(opt)
    return row | {'peak': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main():
    adversarial = [name for name, row in algorithms.ALGORITHMS.items() if row.reward_type]
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--alg', nargs='+', default=['gail', 'ga'], choices=[*adversarial, 'bclone'])
    p.add_argument('--task', nargs='+', default=['seals-halfcheetah'], choices=[*TASKS, *SHAPES])
    p.add_argument('--dtype', nargs='+', default=['float64'], choices=['float64', 'float32'])
    p.add_argument('--iterations', type=int, default=20)
    p.add_argument('--all', action='store_true', help='every algorithm, task and precision')
    p.add_argument('--json', metavar='FILE')
    args = p.parse_args()
    if args.all:
        args.alg, args.task, args.dtype = [*adversarial, 'bclone'], [*TASKS, 'mujoco-shaped'], ['float64', 'float32']
    columns = 'total', *PARTS, 'ms', 'products', 'by hand', 'autograd', 'peak'
    print(f'{machine()}; {numerics()}\nCPU seconds per {STEPS} environment steps, then milliseconds of an iteration')
    print(' '.join([f'{"alg":8} {"task":17} {"dtype":8}', *(f'{name:>{max(8, len(name))}}' for name in columns)]))
    rows = []
    for task in args.task:
        for alg in args.alg:
            for dtype in args.dtype:
                if task in SHAPES and alg in ('bclone', 'gail', 'airl'):
                    continue  # cloning does not depend on the batch, the others are not built there
                rows.append(measure(alg, task, dtype, 50 * args.iterations if alg == 'bclone' else args.iterations))
                cells = (f'{rows[-1][name]:.2f}' if name in rows[-1] else '' for name in columns)
                print(' '.join([f'{alg:8} {task:17} {dtype:8}', *(f'{c:>{max(8, len(n))}}' for n, c in zip(columns, cells, strict=True))]),
                      flush=True)  # fmt: skip
    if args.json:
        facts = {'git_hash': git_hash(), 'versions': versions(), 'machine': machine(), 'numerics': numerics()}
        Path(args.json).write_text(json.dumps(facts | {'rows': rows}, indent=1))
        print(f'written: {args.json}')


if __name__ == '__main__':
    main()
