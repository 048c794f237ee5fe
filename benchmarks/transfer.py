#!/usr/bin/env python3
"""Does a learned reward survive another body? AIRL's and GAIL's rewards of one walker, optimised from scratch on another.

    python benchmarks/transfer.py -o results/transfer

The walkers live on the 4 × 4 grid of airl_recovery.py, in --worlds random worlds. Rewards are learned from an expert whose legs go where
they are told, and then optimised, exactly and from nothing, for the same walker (control) and for one whose legs are mounted the other way
round: told north it goes south, told east west. What the expert did in a state is wrong there; where it wanted to be is not. Policies
are judged by the true reward, discounted, from a uniform start: 0 is the uniformly random policy, 1 the best one of that body. The
policies that were imitated walk with the new body too. Prints a table, writes transfer.csv and transfer.png.

GAIL's reward is that of the classifier when the walker is as good as the expert: −log(1 − D) of TransitionClassifier.
"""

import argparse
import csv
import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from airl_recovery import GAMMA, MOVES, A, S, next_states, recover, soft_policy, visits

from policyopt.options import ImitationOptions
from policyopt.reporting.figures import STYLE, WIDE, figure, outside_legend, share_y
from policyopt.rewards import TransitionClassifier
from policyopt.trajectories import Batch, ContinuousSpace, FiniteSpace

NEXT = next_states()
REVERSED = NEXT[:, [MOVES.index((-dy, -dx)) for dy, dx in MOVES]]
BODIES = {'same body': NEXT, 'legs reversed': REVERSED}


def best_policy(r_S_A, next_S_A):
    """The policy (S, A) of highest return, by value iteration."""
    v_S = np.zeros(S)
    for _ in range(500):
        v_S = (r_S_A + GAMMA * v_S[next_S_A]).max(axis=1)
    return np.eye(A)[(r_S_A + GAMMA * v_S[next_S_A]).argmax(axis=1)]


def expert_of(r_S):
    """Soft-optimal (maximum entropy) for the true reward on the body that it was seen on."""
    return soft_policy(np.repeat(r_S[:, None], A, axis=1), NEXT, np.zeros(S), 500)[0]


def gail(r_S, iterations=2000, step=0.02):
    """(reward_S_A, π_S_A) at the end of GAIL: a step of the classifier, then π ← π exp(step·Q) normalised, Q of its reward."""
    onehot, states_N, a_N_1 = np.eye(S), np.repeat(np.arange(S), A), np.tile(np.arange(A), S)[:, None]
    classifier = TransitionClassifier(ImitationOptions(policy_hidden_spec='[]', reward_lr=0.05), ContinuousSpace(S), FiniteSpace(A))
    expert_N = visits(expert_of(r_S), NEXT).ravel()
    x, index = onehot[states_N], torch.as_tensor(np.concatenate([a_N_1, a_N_1]))
    logits_S_A, labels = np.zeros((S, A)), torch.as_tensor(np.repeat([0.0, 1.0], S * A))
    for i in range(iterations):
        pi_S_A = np.exp(logits_S_A - np.logaddexp.reduce(logits_S_A, axis=1)[:, None])
        classifier.adam.lr = 0.05 * 0.5 ** (5 * i / iterations)
        weight = torch.as_tensor(np.concatenate([visits(pi_S_A, NEXT).ravel(), expert_N]))
        classifier.adam.step(classifier.loss_gradient(torch.as_tensor(np.concatenate([x, x])), index, labels, weight)[1])
        reward_S_A = classifier.compute_reward(Batch(x, a_N_1, np.zeros(S * A))).reshape(S, A)
        q_S_A = reward_S_A.copy()
        for _ in range(200):
            q_S_A = reward_S_A + GAMMA * (pi_S_A * q_S_A).sum(1)[NEXT]
        logits_S_A = logits_S_A + step * q_S_A
    return reward_S_A, pi_S_A


def scores_of(seed):
    """{(reward, body): (score of the policy that is best for it, score of the policy that was imitated)} in one world."""
    r_S, g_S_A, _, _ = recover(1, seed)
    true_S_A = np.repeat(r_S[:, None], A, axis=1)
    both_S_A = recover(0, seed)[1]
    reward_S_A, gail_pi = gail(r_S)
    learned = {'airl, g(s)': g_S_A, 'airl, g(s, a)': both_S_A, 'GAIL': reward_S_A}
    imitated = {name: soft_policy(r, NEXT, np.zeros(S), 500)[0] for name, r in learned.items()} | {'GAIL': gail_pi}
    found = {}
    for body, next_S_A in BODIES.items():
        low, high = ((visits(pi, next_S_A) * true_S_A).sum() for pi in (np.full((S, A), 1 / A), best_policy(true_S_A, next_S_A)))
        for name, r_S_A in learned.items():
            policies = best_policy(r_S_A, next_S_A), imitated[name]
            found[name, body] = tuple(((visits(pi, next_S_A) * true_S_A).sum() - low) / (high - low) for pi in policies)
    return found


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('-o', '--out', type=Path, default=Path('transfer'), help='folder of the table and the picture')
    p.add_argument('--worlds', type=int, default=10)
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    found = [scores_of(seed) for seed in range(args.worlds)]
    rows = [[*key, seed, *world[key]] for key in found[0] for seed, world in enumerate(found)]
    with open(args.out / 'transfer.csv', 'w', newline='', encoding='utf-8') as f:
        csv.writer(f).writerows([['reward', 'body', 'world', 'score_of_new_policy', 'score_of_imitated_policy'], *rows])
    print('| reward | body | a new policy, optimised for it: mean (lowest) | the imitated policy itself |\n|---|---|---:|---:|')
    for name, body in found[0]:
        new, own = np.array([world[name, body] for world in found]).T
        print(f'| {name} | {body} | {new.mean():.2f} ({new.min():.2f}) | {own.mean():.2f} |'.replace('-', '−'))
    draw(args.out / 'transfer.png', found)


@matplotlib.rc_context(STYLE)
def draw(path, found):
    """A panel per body: every world's score of the policy that is best for each reward, their mean, and that of the imitated policy."""
    fig, axes = figure(WIDE, 3.8, 1, 2)
    names = list(dict.fromkeys(name for name, _ in found[0]))
    for ax, body in zip(axes[0], BODIES, strict=True):
        share_y(ax, axes, ax is axes[0, 0])
        ax.axhline(1, color='0.5', lw=1)
        ax.axhline(0, color='0.5', lw=1, ls=':')
        for i, (name, colour) in enumerate(zip(names, ('#56B4E9', '#009E73', '#0072B2'), strict=True)):
            new, own = np.array([world[name, body] for world in found]).T
            ax.plot(i + np.linspace(-0.12, 0.12, len(new)), new, 'o', ms=4, color=colour, alpha=0.5, mew=0)
            ax.plot(i, new.mean(), 'D', ms=8, color=colour)
            ax.plot(i + 0.25, own.mean(), 'x', ms=7, mew=2, color='0.4')
        ax.plot([], [], 'D', ms=8, color='0.6', label='new policy, optimised for the learned reward')
        ax.plot([], [], 'x', ms=7, mew=2, color='0.4', label='imitated policy')
        ax.set(title=body, xticks=range(len(names)), xticklabels=[n.replace('airl', 'AIRL') for n in names], xlim=(-0.5, len(names) - 0.5))
    axes[0, 0].set_ylabel('true return (0 random, 1 best)')
    outside_legend(fig, axes, 2)
    fig.savefig(path, dpi=150)


if __name__ == '__main__':
    main()
