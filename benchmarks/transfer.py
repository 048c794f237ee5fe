#!/usr/bin/env python3
"""Does a learned reward survive other dynamics? AIRL's and GAIL's rewards of one car, optimised from scratch on another.

    python benchmarks/transfer.py -o results/transfer

Rewards are learned from ten expert trajectories on MountainCar-v0 and then given to TRPO, which starts from nothing on the same car
(control) and on one whose gear is reversed: pushing left there drives it to the right. What the expert did in a state is wrong now;
where it wanted to be is not. The policies that were imitated are played on the new car too. Prints a table, writes transfer.csv and
transfer.png. Runs that are there already are kept.
"""

import argparse
import csv
import sys
from pathlib import Path

import gymnasium
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import policyopt as po
from policyopt.files.snapshots import read_log
from policyopt.sampling.tasks import sample_randomly

TASK, EXPERT = 'MountainCar-v0', 'expert_policies/classic/MountainCar-v0.h5/snapshots/iter0000100'
REWARDS = {
    'airl, g(s)': ('airl', {'airl_state_only': 1, 'reward_lr': 0.003}),
    'airl, g(s, a)': ('airl', {'reward_lr': 0.003}),
    'GAIL': ('ga', {'favor_zero_expert_reward': 1, 'save_reward': 1}),
}
LEARNING = {'min_total_sa': 5000, 'iterations': 301, 'data_subsamp_freq': 5}
USING = {'min_total_sa': 5000, 'iterations': 201, 'tiny_policy': True}


class Reversed(gymnasium.ActionWrapper):
    """Left is right and right is left."""

    def action(self, action):
        return 2 - action


def reversed_car():
    return Reversed(gymnasium.make(TASK))


CARS = {'same car': TASK, 'reversed gear': reversed_car}


def path_of(folder, name, seed, car=None):
    word = name.replace(', ', '_').translate({ord(c): None for c in '() '})
    return folder / f'{word}_seed{seed}{"" if car is None else "_on_" + car.replace(" ", "_")}.h5'


def runs_of(folder, seed):
    """{(reward, car): true returns of TRPO on it} and {(reward, car): return of the imitated policy}, training what is not there yet."""
    demos = po.Demonstrations.record(po.load_policy(EXPERT), TASK, 10, seed=seed)
    logs, played = {}, {}
    for name, (algorithm, options) in REWARDS.items():
        learned = path_of(folder, name, seed)
        if not learned.exists():
            po.train(algorithm, TASK, demos, seed=seed, **LEARNING, **options).save(learned)
        for car, env in CARS.items():
            path = path_of(folder, name, seed, car)
            if not path.exists():
                po.train('trpo', env, seed=seed, reward=str(learned), **USING).save(path)
            logs[name, car] = read_log(path)['ret']
            played[name, car] = po.evaluate(po.load_policy(learned), env, 50, seed=seed, deterministic=True).returns.mean()
    return logs, played


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('-o', '--out', type=Path, default=Path('transfer'), help='folder of the table and the picture')
    p.add_argument('--runs', type=Path, default=Path('runs/transfer'), help='folder of the runs')
    p.add_argument('--seeds', type=int, default=3)
    args = p.parse_args()
    for folder in (args.out, args.runs):
        folder.mkdir(parents=True, exist_ok=True)
    found = [runs_of(args.runs, seed) for seed in range(args.seeds)]
    expert = po.evaluate(po.load_policy(EXPERT), TASK, 50, seed=0, deterministic=True).returns.mean()
    random = sample_randomly(po.MDP(TASK), 50, 0).returns.mean()
    print(f'expert {expert:.1f}, random {random:.1f}')
    rows = []
    for name in REWARDS:
        for car in CARS:
            for seed, (logs, played) in enumerate(found):
                rows.append([name, car, seed, logs[name, car][-20:].mean(), played[name, car]])
    with open(args.out / 'transfer.csv', 'w', newline='', encoding='utf-8') as f:
        csv.writer(f).writerows([['reward', 'car', 'seed', 'return_of_new_policy', 'return_of_imitated_policy'], *rows])
    print('| reward | car | a new policy, trained on it | the imitated policy itself |\n|---|---|---:|---:|')
    for name in REWARDS:
        for car in CARS:
            new, own = (np.array([row[i] for row in rows if row[:2] == [name, car]]) for i in (3, 4))
            print(f'| {name} | {car} | {new.mean():.1f} ({", ".join(f"{x:.0f}" for x in new)}) | {own.mean():.1f} |')
    draw(args.out / 'transfer.png', found, expert, random)


def draw(path, found, expert, random):
    """Learning curves on both cars: mean and range over seeds of the true return of policies trained on each reward."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(9, 3.6), layout='constrained')
    axes = fig.subplots(1, 2, sharey=True)
    looks = dict(zip(REWARDS, [('#56B4E9', '-'), ('#D55E00', '--'), ('#0072B2', ':')], strict=True))
    for ax, car in zip(axes, CARS, strict=True):
        ax.axhline(expert, color='0.5', lw=1)
        ax.axhline(random, color='0.5', lw=1, ls=':')
        for name, (colour, line) in looks.items():
            y = np.array([logs[name, car] for logs, _ in found])
            ax.plot(y.mean(0), line, color=colour, label=name, lw=1.8)
            ax.fill_between(np.arange(y.shape[1]), y.min(0), y.max(0), color=colour, alpha=0.15, lw=0)
        ax.set(title=car, xlabel='iterations of TRPO on the learned reward')
    axes[0].set_ylabel('true return')
    axes[0].annotate('expert', (1, expert), xytext=(0, 3), textcoords='offset points', fontsize=8, color='0.4')
    axes[0].annotate('random', (1, random), xytext=(0, 3), textcoords='offset points', fontsize=8, color='0.4')
    axes[0].legend(title='reward learned by', frameon=False, fontsize=9)
    fig.savefig(path, dpi=130)


if __name__ == '__main__':
    main()
