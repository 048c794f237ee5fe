#!/usr/bin/env python3
"""Time one training iteration, split into its parts, and state it in units of one matrix product measured in the same run.

    python benchmarks/iteration.py                           # ga on cartpole, float64
    python benchmarks/iteration.py --all --json iteration.json

Times are CPU seconds of this process on one thread, medians over iterations. One product is 5000×100×100 in blocks of 512 rows.
`mujoco-shaped` and `humanoid-shaped` are synthetic batches of 50 000 rows with 17 and 6, or 376 and 17 observation and action dims:
nothing is sampled there. `by hand` and `autograd` are the gradients and curvature products of that iteration alone, computed by the
product's own code and by plain autograd (derivatives.py; ga on classic tasks). `peak` is the most memory that this process has held so
far, in MB. The expert data
comes from expert_policies/classic, four trajectories a task, subsampled as in pipelines/classic.yaml.
"""

import argparse
import json
import resource
import statistics
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))
from policyopt.cores import limit_threads  # noqa: E402
from policyopt.provenance import git_hash, machine, versions  # noqa: E402

limit_threads()
import numpy as np  # noqa: E402
import torch  # noqa: E402
from derivatives import jobs  # noqa: E402

from policyopt import algorithms, cloning, imitation, rewards, training, trajectories  # noqa: E402
from policyopt.evaluation import evaluate_file  # noqa: E402
from policyopt.nn import BLOCK_ROWS, SIMPLE_ARCHITECTURE, NetConfig  # noqa: E402
from policyopt.options import ImitationOptions, parsed  # noqa: E402
from policyopt.policies import make_policy  # noqa: E402
from policyopt.rl import TRPOConfig  # noqa: E402
from policyopt.torchutil import mm, numerics, setup_torch  # noqa: E402
from policyopt.trajectories import ContinuousSpace, Expert, TrajBatch  # noqa: E402
from policyopt.valuefuncs import ValueFunc  # noqa: E402

TASKS = {'cartpole': ('CartPole-v0', 10, 0), 'mountaincar': ('MountainCar-v0', 5, 1), 'acrobot': ('Acrobot-v0', 5, 1)}
SHAPES = {'mujoco-shaped': (17, 6), 'humanoid-shaped': (376, 17)}
REWARDS = {name: row.reward_type for name, row in algorithms.ALGORITHMS.items() if row.reward_type}


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


def options(mode, env, freeze):
    """The classic pipeline's options as the training code takes them."""
    flags = f'--mode {mode} --data - --env_name {env} --min_total_sa 5000 --sim_batch_size 1 --seed 0'.split()
    return parsed('iteration', __doc__, ImitationOptions, flags + freeze)


class FixedShapeOptimizer(imitation.ImitationOptimizer):
    """The product's step on one batch of observations and actions, with the present policy's distributions."""

    def sample(self):
        obs, a, r, lengths = self.fixed
        return TrajBatch(obs, self.policy.actor().adist(obs), a, r, lengths)


def make_optimizer(alg, task, dtype):
    device, torch_dtype = setup_torch('cpu', dtype)
    rng = np.random.RandomState(0)
    nets = NetConfig(rng, torch_dtype, device)
    if task in SHAPES:
        obs_dim, a_dim = SHAPES[task]
        obs_space, a_space, lengths = ContinuousSpace(obs_dim), ContinuousSpace(a_dim), [1000] * 50
        obs, a, r = rng.randn(50000, obs_dim), rng.randn(50000, a_dim), rng.randn(50000)
        policy = make_policy(obs_space, a_space, SIMPLE_ARCHITECTURE, rng=rng, dtype=torch_dtype, device=device)
        policy.update_obsnorm(obs)
        vf = ValueFunc(obs_dim, SIMPLE_ARCHITECTURE, 1e-3, nets=nets)
        expert = Expert(obs[:200], a[:200], np.arange(200.0))
        if alg == 'ga':
            reward = rewards.TransitionClassifier(
                obs_space, a_space, rewards.ClassifierConfig(hidden_spec=SIMPLE_ARCHITECTURE, time_scale=1e-3), nets
            )
        else:
            reward = rewards.LinearReward(
                obs_space, a_space, mode=REWARDS[alg], favor_zero_expert_reward=0, include_time=0, time_scale=1e-3, expert=expert, rng=rng
            )
        trpo = TRPOConfig(discount=0.995, lam=0.97, max_kl=0.01, damping=0.1)
        opt = FixedShapeOptimizer(None, policy, vf, reward, expert, sim_cfg=None, trpo=trpo, policy_ent_reg=0.0, seed=0, rng=rng)
        opt.fixed = obs, a, r, lengths
        return opt
    env, freq, favor_zero = TASKS[task]
    _, mdp, trajs = evaluate_file(str(REPO / f'expert_policies/classic/{env}.h5/snapshots/last'), 4, seed=0)
    expert = Expert(*trajectories.subsample(trajs, freq)[:3])
    policy = make_policy(mdp.obs_space, mdp.action_space, SIMPLE_ARCHITECTURE, rng=rng, dtype=torch_dtype, device=device)
    policy.update_obsnorm(expert[0])
    if alg == 'bclone':
        return cloning.BehavioralCloningOptimizer(policy, expert[0], expert[1], rng, eval_freq=100)
    flags = ['--reward_type', REWARDS[alg], '--favor_zero_expert_reward', str(favor_zero), '--policy_hidden_spec', SIMPLE_ARCHITECTURE]
    return training.imitation_optimizer(options('ga', env, flags), mdp, policy, expert, nets)


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
    """A row of the table; wall-clock splits from the log, CPU time around each step."""
    opt = make_optimizer(alg, task, dtype)
    torch.set_grad_enabled(False)
    cpu, splits, units, fields = [], [], [], {}
    once = one_product(opt.policy.theta_P.dtype)
    for i in range(iterations):
        cpu.append(cpu_ms(lambda: fields.update({name: value for name, value, _ in opt.step()})))
        splits.append([1e3 * fields.get(k, 0.0) for k in ('tsamp', 'tadv', 'tstep')])
        if alg != 'bclone' or i % 20 == 0:
            units.append(cpu_ms(once))  # in turn with the iterations, so that both see the same slow moments
    skip = iterations // 4  # buffers are allocated and the first policies are short-lived
    tsamp, tadv, tstep = (statistics.median(s) for s in zip(*splits[skip:], strict=True))
    unit = statistics.median(units[len(units) // 4 :])
    total = statistics.median(cpu[skip:])
    by_hand, by_autograd = derivatives_ms(opt) if alg == 'ga' and task in TASKS else (float('nan'),) * 2
    return {
        'alg': alg, 'task': task, 'dtype': dtype, 'iterations': iterations, 'cpu_ms': total, 'tsamp_ms': tsamp, 'tadv_ms': tadv,
        'tstep_ms': tstep, 'product_ms': unit, 'products': total / unit, 'by_hand_ms': by_hand, 'autograd_ms': by_autograd,
        'peak_mb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--alg', nargs='+', default=['ga'], choices=[*REWARDS, 'bclone'])
    p.add_argument('--task', nargs='+', default=['cartpole'], choices=[*TASKS, *SHAPES])
    p.add_argument('--dtype', nargs='+', default=['float64'], choices=['float64', 'float32'])
    p.add_argument('--iterations', type=int, default=60)
    p.add_argument('--all', action='store_true', help='every algorithm, task and precision')
    p.add_argument('--json', metavar='FILE')
    args = p.parse_args()
    if args.all:
        args.alg, args.task, args.dtype = [*REWARDS, 'bclone'], [*TASKS, 'mujoco-shaped'], ['float64', 'float32']
    print(f'{machine()}; {numerics()}')
    print(
        f'{"alg":8} {"task":14} {"dtype":8} {"CPU ms":>8} {"tsamp":>7} {"tadv":>7} {"tstep":>7} {"product":>8} {"products":>9} '
        f'{"by hand":>8} {"autograd":>9} {"peak":>6}'
    )
    rows = []
    for task in args.task:
        for alg in args.alg:
            for dtype in args.dtype:
                if task in SHAPES and alg == 'bclone':
                    continue  # cloning does not depend on the batch
                iterations = 1001 if alg == 'bclone' else 8 if task in SHAPES else args.iterations
                r = measure(alg, task, dtype, iterations)
                rows.append(r)
                print(
                    f'{alg:8} {task:14} {dtype:8} {r["cpu_ms"]:8.2f} {r["tsamp_ms"]:7.1f} {r["tadv_ms"]:7.1f} {r["tstep_ms"]:7.1f} '
                    f'{r["product_ms"]:8.2f} {r["products"]:9.1f} {r["by_hand_ms"]:8.1f} {r["autograd_ms"]:9.1f} '
                    f'{r["peak_mb"]:6.0f}', flush=True,
                )  # fmt: skip
    if args.json:
        facts = {'git_hash': git_hash(), 'versions': versions(), 'machine': machine(), 'numerics': numerics()}
        Path(args.json).write_text(json.dumps(facts | {'rows': rows}, indent=1))
        print(f'written: {args.json}')


if __name__ == '__main__':
    main()
