#!/usr/bin/env python3
"""How the cost of a training iteration grows: with the batch, with the width of the nets, and with the environments stepped at once.

    python benchmarks/scaling.py --json scaling.json --png scaling.png

Learning: one `ga` step on a synthetic CartPole-shaped batch (4 observation dims, 2 actions), CPU milliseconds of one thread, medians.
Sampling: state-action pairs per CPU second of the shipped CartPole expert for different numbers of environments in lock-step.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))
from policyopt.cores import limit_threads  # noqa: E402
from policyopt.provenance import git_hash, versions  # noqa: E402

limit_threads()
import matplotlib  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from policyopt import imitation, rewards  # noqa: E402
from policyopt.evaluation import load_policy  # noqa: E402
from policyopt.nn import SIMPLE_ARCHITECTURE  # noqa: E402
from policyopt.options import ImitationOptions  # noqa: E402
from policyopt.policies import GibbsPolicy  # noqa: E402
from policyopt.reporting.figures import STYLE, WIDE, figure, save_figure  # noqa: E402
from policyopt.sampling.mdp import MDP, sample_batch  # noqa: E402
from policyopt.sampling.rollout import SimConfig  # noqa: E402
from policyopt.torchutil import NetConfig  # noqa: E402
from policyopt.trajectories import ContinuousSpace, Expert, FiniteSpace, TrajBatch  # noqa: E402
from policyopt.valuefuncs import ValueFunc  # noqa: E402

BATCHES, WIDTHS, SLOTS = (1250, 2500, 5000, 10000, 20000, 40000), (25, 50, 100, 200, 400), (1, 4, 16, 64, 256)


class FixedBatch(imitation.ImitationOptimizer):
    """The product's step on one batch."""

    batch: TrajBatch

    def sample(self):
        return self.batch


def learning_ms(batch, width, repeats=7):
    rng = np.random.RandomState(0)
    nets = NetConfig(rng)
    obs_space, a_space, spec = ContinuousSpace(4), FiniteSpace(2), SIMPLE_ARCHITECTURE.replace('100', str(width))
    obs, a = rng.randn(batch, 4), rng.randint(0, 2, (batch, 1))
    options = ImitationOptions(policy_hidden_spec=spec, seed=0)
    policy, vf = GibbsPolicy(obs_space, a_space, spec, nets=nets), ValueFunc(options, 4, 0.005, nets)
    policy.update_obsnorm(obs)
    reward: Any = rewards.TransitionClassifier(options, obs_space, a_space, 0.005, nets)
    expert = Expert(obs[:80], a[:80], np.arange(80.0))
    opt = FixedBatch(options, MDP('CartPole-v0'), policy, vf, reward, expert, rng)
    times = []
    for _ in range(repeats):
        opt.batch = TrajBatch(obs, policy.compute_adist(obs).numpy(), a, np.ones(batch), [125] * (batch // 125))
        start = time.process_time()
        opt.step()
        times.append(1e3 * (time.process_time() - start))
    return statistics.median(times[1:])


def pairs_per_second(slots, repeats=7):
    mdp = MDP('CartPole-v0')
    actor = load_policy(str(REPO / 'expert_policies/classic/CartPole-v0.h5/snapshots/last'), mdp).actor()
    cfg, rates = SimConfig(0, max(5000, 200 * slots), 200, 1, max_envs=slots), []
    for i in range(repeats):
        mdp.mean_len = 1  # asks for as many environments as allowed
        start = time.process_time()
        pairs = len(sample_batch(actor, mdp, cfg, (0, i)).r.stacked)
        rates.append(pairs / (time.process_time() - start))
    return statistics.median(rates[1:])


@matplotlib.rc_context(STYLE)
def picture(data, path):
    fig, axes = figure(WIDE, 3.2, 1, 3)
    panels = (
        ('learning, 100-100 nets', 'batch', 'pairs an iteration', 'CPU ms an iteration'),
        ('learning, 5000 pairs', 'width', 'units a layer', 'CPU ms an iteration'),
        ('sampling, CartPole', 'slots', 'environments at once', 'pairs a CPU second'),
    )
    for ax, (title, key, xlabel, ylabel) in zip(axes[0], panels, strict=True):
        x, y = zip(*data[key], strict=True)
        ax.loglog(x, y, 'o-', color='#0072B2')
        ax.set_xticks(x, [f'{v // 1000}k' if v >= 10000 else str(v) for v in x])
        ax.tick_params(axis='x', labelsize=9)
        ax.minorticks_off()
        ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    save_figure(fig, path)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--json', metavar='FILE')
    p.add_argument('--png', metavar='FILE')
    args = p.parse_args()
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    data = {
        'batch': [(n, learning_ms(n, 100)) for n in BATCHES],
        'width': [(w, learning_ms(5000, w)) for w in WIDTHS],
        'slots': [(s, pairs_per_second(s)) for s in SLOTS],
    }
    for key, unit in (('batch', 'ms per iteration'), ('width', 'ms per iteration'), ('slots', 'pairs per second')):
        print(f'{key:6} ' + ' '.join(f'{x:>9}' for x, _ in data[key]))
        print(f'{"":6} ' + ' '.join(f'{y:9.1f}' for _, y in data[key]) + f'   {unit}')
    if args.json:
        Path(args.json).write_text(json.dumps({'git_hash': git_hash(), 'versions': versions(), **data}, indent=1))
    if args.png:
        picture(data, args.png)
        print(f'written: {args.png}')


if __name__ == '__main__':
    main()
