#!/usr/bin/env python3
"""AIRL on a small deterministic world: is the reward that it learns the true one?

    python benchmarks/airl_recovery.py -o docs/airl_recovery.png

A 4 × 4 grid, five actions (stay and four directions), a random reward of the state, an expert that is soft-optimal for it, no end.
Policy and visits are computed exactly, so nothing is left to chance but the reward. Fu, Luo & Levine (2018, theorem 5.1): with
deterministic, decomposable dynamics a reward g(s) of the state alone comes out as the true one up to a constant, and h as the value
function. A reward g(s, a) explains the same expert, but need not be the true one.

Letters: S states, A actions, N = S·A pairs.
"""

import argparse
import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from policyopt.airl import AIRLReward
from policyopt.options import ImitationOptions
from policyopt.reporting.figures import STYLE, WIDE, figure, save_figure
from policyopt.trajectories import Batch, ContinuousSpace, FiniteSpace, Transitions

SIDE, GAMMA = 4, 0.9
MOVES = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
S, A = SIDE * SIDE, len(MOVES)


def next_states():
    """next_S_A: where each action leads; a wall stops."""
    y_S, x_S = np.divmod(np.arange(S), SIDE)
    moved = [np.clip(y_S + dy, 0, SIDE - 1) * SIDE + np.clip(x_S + dx, 0, SIDE - 1) for dy, dx in MOVES]
    return np.stack(moved, axis=1)


def soft_policy(r_S_A, next_S_A, v_S, backups):
    """(π_S_A, V_S) of maximum-entropy control: Q = r + γ V(s′), V = log Σ exp Q, π = exp(Q − V); from V_S, so many backups."""
    for _ in range(backups):
        q_S_A = r_S_A + GAMMA * v_S[next_S_A]
        v_S = np.logaddexp.reduce(q_S_A, axis=1)
    return np.exp(q_S_A - v_S[:, None]), v_S


def visits(pi_S_A, next_S_A):
    """Discounted visits of pairs from a uniform start, of sum 1."""
    P_S_S = np.zeros((S, S))
    np.add.at(P_S_S, (np.repeat(np.arange(S), A), next_S_A.ravel()), pi_S_A.ravel())
    d_S = np.linalg.solve(np.eye(S) - GAMMA * P_S_S.T, np.full(S, (1 - GAMMA) / S))
    return d_S[:, None] * pi_S_A


def recover(state_only, seed=0, iterations=4000):
    """Learn from the expert of a random reward; returns (true r_S, learned g_S_A, learned h_S, true V_S), each with mean 0."""
    rng, next_S_A = np.random.RandomState(seed), next_states()
    r_S = rng.randn(S)
    pi_expert, v_S = soft_policy(np.repeat(r_S[:, None], A, axis=1), next_S_A, np.zeros(S), 500)
    expert_N = visits(pi_expert, next_S_A).ravel()
    states_N, a_N_1, zeros_N = np.repeat(np.arange(S), A), np.tile(np.arange(A), S)[:, None], np.zeros(S * A)
    options = ImitationOptions(policy_hidden_spec='[]', reward_ent_reg_weight=0.0, discount=GAMMA, airl_state_only=state_only)
    reward = AIRLReward(options, ContinuousSpace(S), FiniteSpace(A))
    onehot = np.eye(S)
    labels = torch.as_tensor(np.repeat([0.0, 1.0], S * A))
    g_S_A, guess_S = np.zeros((S, A)), np.zeros(S)
    for i in range(iterations):
        reward.adam.lr = 0.1 * 0.5 ** (5 * i / iterations)
        pi_S_A, guess_S = soft_policy(g_S_A, next_S_A, guess_S, 20)  # shaping does not change the best policy, so g will do for f
        logp_N = np.log(pi_S_A).ravel()
        seen = Transitions(onehot[next_S_A.ravel()], np.zeros(S * A, bool), logp_N)
        batch = Batch(onehot[states_N], a_N_1, zeros_N, seen)
        rows = reward.rows(batch.followed_by(batch))
        weight = torch.as_tensor(np.concatenate([visits(pi_S_A, next_S_A).ravel(), expert_N]))
        reward.adam.step(reward.loss_gradient(rows, labels, weight)[1])
        g_S_A = reward.learned_reward(onehot[states_N], a_N_1, zeros_N).reshape(S, A)
    h_S = reward.shaping(onehot, np.zeros(S))
    return tuple(x - x.mean() for x in (r_S, g_S_A, h_S, v_S))


@matplotlib.rc_context(STYLE)
def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('-o', '--out', default='airl_recovery.png')
    p.add_argument('--seed', type=int, default=0)
    args = p.parse_args()
    fig, axes = figure(WIDE, 3.2, 1, 3)
    r_S, g_S_A, h_S, v_S = recover(1, args.seed)
    pairs = [(r_S, g_S_A[:, 0], 'g(s)', 'true reward'), (v_S, h_S, 'h(s)', 'true value function')]
    r_S, both_S_A, _, _ = recover(0, args.seed)
    pairs.append((np.repeat(r_S, A), both_S_A.ravel(), 'g(s, a)', 'true reward'))
    for ax, (truth, learned, name, what) in zip(axes[0], pairs, strict=True):
        low, high = min(truth.min(), learned.min()), max(truth.max(), learned.max())
        ax.plot([low, high], [low, high], color='0.7', lw=1)
        ax.plot(truth, learned, 'o', ms=4, color='#56B4E9', mec='0.3', mew=0.5)
        ax.set(xlabel=f'{what} − mean', ylabel=f'learned {name} − mean')
        ax.set_title(f'largest error {np.abs(truth - learned).max():.2g}')
        print(f'{name}: largest error {np.abs(truth - learned).max():.3g}')
    save_figure(fig, args.out)


if __name__ == '__main__':
    main()
