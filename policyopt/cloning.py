"""Behavioural cloning: supervised learning of the expert's actions.

Letters: B rows of a batch, N expert rows, Do, Da observation and action dims.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from policyopt.errors import UserError
from policyopt.interfaces import Fields
from policyopt.optim import Adam
from policyopt.options import ImitationOptions
from policyopt.policies import Policy
from policyopt.torchutil import NetConfig
from policyopt.trajectories import Expert, FiniteSpace

if TYPE_CHECKING:
    from policyopt.sampling.mdp import MDP


class BehavioralCloningOptimizer:
    """Maximum likelihood on expert pairs: one Adam step on --bclone_batch_size of them per iteration.

    The pairs are split at random, int(bclone_train_frac·N) of them for training. `step` logs bcloss from before its update; every
    bclone_eval_freq iterations valloss and valacc (−mean squared error of the most likely action, or −valloss for finite actions) from
    after it.
    """

    def __init__(self, options: ImitationOptions, mdp: MDP | None, policy: Policy, expert: Expert, nets: NetConfig):
        self.options, self.policy = options, policy
        self.rng: Any = nets.rng
        num, num_train = len(expert.obs_N_Do), int(options.bclone_train_frac * len(expert.obs_N_Do))
        if not 0 < num_train < num:
            raise UserError(
                f'{num} expert pairs with bclone_train_frac {options.bclone_train_frac:g} leave {num_train} for training and '
                f'{num - num_train} for validation; both need at least 1: use more data or another fraction'
            )
        perm_N = self.rng.permutation(num)
        self.train_rows, self.val_rows = perm_N[:num_train], perm_N[num_train:]
        self.set_pairs(expert.obs_N_Do, expert.a_N_Da)
        self.adam = Adam(policy.theta_P, options.bclone_lr)
        self.iteration, self.total_time = 0, 0.0

    def set_pairs(self, obs_N_Do: np.ndarray, a_N_Da: np.ndarray) -> None:
        """Learn from the train_rows of these pairs and validate with the val_rows."""
        # the normaliser does not move while they are used, so observations are normalised once
        x_N_Do, a = self.policy.normalized_obs(obs_N_Do), self.policy.action_tensor(a_N_Da)
        self.train_x, self.train_a = x_N_Do[self.train_rows], a[self.train_rows]
        self.val_x, self.val_a = x_N_Do[self.val_rows], a[self.val_rows]

    def loss_gradient(self, x_B_Do: torch.Tensor, a_B_Da: torch.Tensor) -> tuple[float, torch.Tensor]:
        """−mean log π(a|s) and its gradient, for normalised observations."""
        logp_B, grad_P = self.policy.logprob_gradient(x_B_Do, a_B_Da, lambda logp, rows: torch.full_like(logp, -1 / len(x_B_Do)))
        return -float(logp_B.mean()), grad_P

    def counters(self) -> dict[str, Any]:
        return {'iteration': self.iteration, 'total_time': self.total_time} | {f'adam/{k}': v for k, v in self.adam.state().items()}

    def load_counters(self, state: Mapping[str, Any]) -> None:
        self.iteration, self.total_time = int(state['iteration']), float(state['total_time'])
        self.adam.load_state({k.removeprefix('adam/'): v for k, v in state.items() if k.startswith('adam/')})

    def validate(self) -> tuple[float, float]:
        """(valloss, valacc) on the validation pairs."""
        adist = self.policy.adist(self.policy.net.forward(self.val_x))
        loss = -float(self.policy.logprob(adist, self.val_a).mean())
        if isinstance(self.policy.action_space, FiniteSpace):
            return loss, -loss
        return loss, -float(((self.policy.action(adist) - self.val_a) ** 2).sum(1).mean())

    def step(self) -> Fields:
        t0 = time.perf_counter()
        rows = self.rng.choice(len(self.train_x), size=self.options.bclone_batch_size)
        loss, grad_P = self.loss_gradient(self.train_x[rows], self.train_a[rows])
        self.adam.step(grad_P)
        valloss, valacc = self.validate() if self.iteration % self.options.bclone_eval_freq == 0 else (None, None)
        self.total_time += time.perf_counter() - t0
        fields = [
            ('iter', self.iteration, int),
            ('bcloss', loss, float),
            ('valloss', valloss, float),
            ('valacc', valacc, float),
            ('trueret', None, float),
            ('avgr', None, float),
            ('avglen', -1, int),
            ('ent', None, float),
            ('ttotal', self.total_time, float),
        ]
        self.iteration += 1
        return fields
