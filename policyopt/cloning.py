"""Behavioural cloning: supervised learning of the expert's actions.

Letters: B rows of a batch, N expert rows, Do, Da observation and action dims.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from policyopt.errors import UserError
from policyopt.interfaces import Fields
from policyopt.optim import Adam
from policyopt.policies import Policy
from policyopt.trajectories import FiniteSpace


class BehavioralCloningOptimizer:
    """Maximum likelihood on expert pairs: one Adam step on 128 of them per iteration.

    The pairs are split at random, int(train_frac·N) of them for training. `step` logs bcloss from before its update; every
    eval_freq iterations valloss and valacc (−mean squared error of the most likely action, or −valloss for finite actions) from after it.
    """

    def __init__(
        self,
        policy: Policy,
        obs_N_Do: np.ndarray,
        a_N_Da: np.ndarray,
        rng: np.random.RandomState,
        *,
        lr: float = 1e-3,
        batch_size: int = 128,
        eval_freq: int = 1000,
        train_frac: float = 0.7,
    ):
        self.policy, self.rng, self.batch_size, self.eval_freq, self.train_frac = policy, rng, batch_size, eval_freq, train_frac
        num_train = int(train_frac * len(obs_N_Do))
        if not 0 < num_train < len(obs_N_Do):
            raise UserError(
                f'{len(obs_N_Do)} expert pairs with bclone_train_frac {train_frac:g} leave {num_train} for training and '
                f'{len(obs_N_Do) - num_train} for validation; both need at least 1: use more data or another fraction'
            )
        perm_N = rng.permutation(len(obs_N_Do))
        self.train_rows, self.val_rows = perm_N[:num_train], perm_N[num_train:]
        self.set_pairs(obs_N_Do, a_N_Da)
        self.adam = Adam(policy.theta_P, lr)
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
        rows = self.rng.choice(len(self.train_x), size=self.batch_size)
        loss, grad_P = self.loss_gradient(self.train_x[rows], self.train_a[rows])
        self.adam.step(grad_P)
        valloss, valacc = self.validate() if self.iteration % self.eval_freq == 0 else (None, None)
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
