"""Advantages, the TRPO step, and policy optimisation on the true reward.

Letters: B trajectories (or rows, where there is no time axis), T time, N stacked rows, P flat parameters.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from policyopt import optim
from policyopt.errors import RunFailed
from policyopt.interfaces import Fields, Reward
from policyopt.options import CommonOptions
from policyopt.policies import Policy
from policyopt.sampling.mdp import MDP, sample_batch
from policyopt.sampling.rollout import SimConfig
from policyopt.torchutil import to_tensor
from policyopt.trajectories import RaggedArray, TrajBatch
from policyopt.valuefuncs import HVP_FRAC, ConstantValueFunc, ValueFunc

FEW_ROWS = 8  # up to this number of rows, adding floats in Python is faster than adding columns in numpy; the bits are the same


def discount(r_B_T: np.ndarray, gamma: float) -> np.ndarray:
    """Discounted sums along axis 1: out[b,t] = Σ_k γᵏ r[b,t+k]; further axes are carried along."""
    if r_B_T.ndim == 2 and len(r_B_T) <= FEW_ROWS:
        sums = ([*itertools.accumulate(row[::-1].tolist(), lambda later, r: r + gamma * later)][::-1] for row in r_B_T)
        return np.array([*sums], dtype=np.float64).reshape(r_B_T.shape)
    # one vectorised step per time; importing scipy.signal for its filter would cost every run most of a second
    out_T_B = np.ascontiguousarray(np.swapaxes(r_B_T, 0, 1), dtype=np.float64).copy()
    for t in range(len(out_T_B) - 2, -1, -1):
        out_T_B[t] += gamma * out_T_B[t + 1]
    return np.swapaxes(out_T_B, 0, 1)


def gae(r_B_T: np.ndarray, v_B_T: np.ndarray, gamma: float, lam: float) -> np.ndarray:
    """Generalised advantage estimates of right-padded rewards and values (Schulman et al. 2016, eq. 16).

    adv[b,t] = Σ_k (γλ)ᵏ δ[b,t+k],  δ[b,t] = r[b,t] + γ v[b,t+1] − v[b,t]; both inputs are 0 after a trajectory's end.
    As in 2016, a time limit is treated as such an end.
    """
    v_next_B_T = np.concatenate([v_B_T[:, 1:], np.zeros_like(v_B_T[:, :1])], axis=1)
    return discount(r_B_T + gamma * v_next_B_T - v_B_T, gamma * lam)


def explained_variance(q_N: np.ndarray, v_N: np.ndarray) -> np.floating:
    """1 − var(q − v)/(var q + 1e-8)."""
    return 1.0 - np.var(q_N - v_N) / (np.var(q_N) + 1e-8)


def advantages(
    r: RaggedArray, time_N: np.ndarray, v_N: np.ndarray | None, gamma: float, lam: float
) -> tuple[np.ndarray, RaggedArray, np.floating, np.floating]:
    """Advantages and returns of a ragged batch of rewards.

    Args: r: RaggedArray of rewards; v_N: stacked values, or None to use the time-dependent mean return as baseline.
    Returns (adv_N, q: RaggedArray of discounted returns, vf_r2, tdvf_r2); the r2 are explained variances of q by the
    value function and by its time-dependent mean over the batch.
    """
    mask_B_T = r.mask_B_T
    q_N = discount(r.padded(), gamma)[mask_B_T]
    per_time = ConstantValueFunc(mask_B_T.shape[1])
    per_time.fit(None, time_N, q_N)
    tdv_N = per_time.evaluate(None, time_N)
    v_N = tdv_N if v_N is None else v_N
    adv_N = gae(r.padded(), r.with_rows(v_N).padded(), gamma, lam)[mask_B_T]
    return adv_N, r.with_rows(q_N), explained_variance(q_N, v_N), explained_variance(q_N, tdv_N)


def truncation_bonus(trajs: TrajBatch, vf: ValueFunc, gamma: float) -> np.ndarray:
    """γ·V of the observation after the last action where a time limit ended the episode, in its last row; 0 elsewhere, (N,).

    Added to the rewards, it makes a time limit the end of the record and not of the return (Pardo et al. 2018, eq. 6).
    """
    assert trajs.lastobs_B_Do is not None and trajs.terminal_B is not None  # every sampled batch has them
    bonus_N = np.zeros(len(trajs.r.stacked))
    bonus_N[trajs.obs.ends - 1] = gamma * vf.evaluate(trajs.lastobs_B_Do, trajs.lengths.astype(np.float64)) * ~trajs.terminal_B
    return bonus_N


def sim_config(options: CommonOptions, mdp: MDP) -> SimConfig:
    """How the batch of an iteration is sampled."""
    return SimConfig(0, options.min_total_sa, mdp.longest(options.max_traj_len), options.sim_batch_size, options.max_envs)


def surrogate_gradient(
    policy: Policy, x_B_Do: torch.Tensor, a: torch.Tensor, old_B_Pa: torch.Tensor, adv: torch.Tensor
) -> tuple[float, torch.Tensor, torch.Tensor]:
    """(L, ∇L, probability ratios) of the surrogate at the present parameters, for normalised observations and ready advantages."""
    logp_old_B = policy.logprob(old_B_Pa, a)
    ratio_B = torch.empty_like(adv)

    def dlogp(logp, rows):
        return torch.exp(logp - logp_old_B[rows], out=ratio_B[rows]) * adv[rows] / len(adv)

    _, grad_P = policy.logprob_gradient(x_B_Do, a, dlogp)
    return float((ratio_B * adv).mean()), grad_P, ratio_B


def standardized(adv_N: np.ndarray) -> np.ndarray:
    """(adv − mean)/(std + 1e-8) over the batch."""
    return (adv_N - adv_N.mean()) / (adv_N.std() + 1e-8)


def trpo_step(
    policy: Policy,
    obs_B_Do: np.ndarray,
    a_B_Da: np.ndarray,
    adist_B_Pa: np.ndarray,
    adv_B: np.ndarray,
    *,
    max_kl: float,
    damping: float,
    rng: np.random.RandomState,
    hvp_frac: float | None = HVP_FRAC,
    **options: Any,
) -> optim.NaturalStep:
    """One TRPO step: maximise mean(exp(log π − log π_old)·adv) within mean KL(old ‖ new) (Schulman et al. 2015, eq. 14).

    adv_B: standardised. adist_B_Pa: the distribution parameters of this policy, from which the actions were drawn.
    rng draws the rows that the Hessian-vector products use (all if hvp_frac is None). options: of `optim.natural_gradient_step`.
    """
    x_B_Do, a = policy.normalized_obs(obs_B_Do), policy.action_tensor(a_B_Da)
    old_B_Pa, adv = to_tensor(adist_B_Pa, policy.theta_P), to_tensor(adv_B, policy.theta_P)
    obj0, grad_P, ratio0_B = surrogate_gradient(policy, x_B_Do, a, old_B_Pa, adv)
    # the step is exact only at KL 0: where these distributions are the policy's own
    change = float((ratio0_B - 1).abs().max())
    if math.isnan(change):
        raise optim.NotFinite('the probability of an action in the batch')
    if not change < 1e-2:
        raise RunFailed('the batch was not drawn from the present policy: its action probabilities differ by more than 1%')
    logp_old_B = policy.logprob(old_B_Pa, a)

    def make_hvp():
        return policy.kl_hvp(optim.subsample(x_B_Do, hvp_frac, rng))

    def loss_and_kl():
        new_B_Pa = policy.adist(policy.net.forward(x_B_Do))
        ratio_B = (policy.logprob(new_B_Pa, a) - logp_old_B).exp_()
        return -float((ratio_B * adv).mean()), float(policy.kl(old_B_Pa, new_B_Pa).mean())

    return optim.natural_gradient_step(policy.theta_P, -obj0, -grad_P, loss_and_kl, make_hvp, max_kl=max_kl, damping=damping, **options)


class SamplingPolicyOptimizer:
    """TRPO on the true reward, or on a learned one: sample, estimate advantages, step, fit the value function (run_rl_mj.py).

    vf: ValueFunc or None (the time-dependent mean is the baseline then). The options' seed and iteration decide all randomness of
    sampling; rng decides that of learning.
    """

    def __init__(
        self,
        options: CommonOptions,
        mdp: MDP,
        policy: Policy,
        vf: ValueFunc | None,
        rng: np.random.RandomState,
        learned: Reward | None = None,
    ):
        self.options, self.mdp, self.policy, self.vf, self.rng, self.learned = options, mdp, policy, vf, rng, learned
        self.sim_cfg = sim_config(options, mdp)
        self.iteration = self.num_sa = 0
        self.total_time = 0.0

    def sample(self, stream: str | int) -> TrajBatch:
        """A batch with the present policy; `stream` names its randomness."""
        return sample_batch(self.policy.actor(), self.mdp, self.sim_cfg, (self.options.seed, stream))

    def counters(self) -> dict[str, Any]:
        return {k: getattr(self, k) for k in ('iteration', 'num_sa', 'total_time')}

    def load_counters(self, state: Mapping[str, Any]) -> None:
        self.iteration, self.num_sa, self.total_time = int(state['iteration']), int(state['num_sa']), float(state['total_time'])

    def initialize_normalizers(self) -> None:
        """As in 2016: one extra batch only to fill the observation normalisers."""
        obs_N_Do = self.sample('init').obs.stacked
        self.policy.update_obsnorm(obs_N_Do)
        if self.vf is not None:
            self.vf.update_obsnorm(obs_N_Do)

    def step(self) -> Fields:
        """One iteration; returns its log fields [(name, value, type)] in the order of 2016."""
        t0, options = time.perf_counter(), self.options
        if self.iteration == 0:
            self.initialize_normalizers()
        trajs = self.sample(self.iteration)
        t1 = time.perf_counter()
        obs_N_Do, time_N = trajs.obs.stacked, trajs.time.stacked
        r = trajs.r
        if self.learned is not None:
            terminal_N = trajs.successors(self.sim_cfg.max_traj_len or 0)[1]
            r = r.with_rows(self.learned.learned_reward(obs_N_Do, trajs.a.stacked, time_N, terminal_N))
        v_N = None if self.vf is None else self.vf.evaluate(obs_N_Do, time_N)
        paid = r
        if options.bootstrap_time_limit and self.vf is not None:
            paid = r.with_rows(r.stacked + truncation_bonus(trajs, self.vf, options.discount))
        adv_N, q, vf_r2, tdvf_r2 = advantages(paid, time_N, v_N, options.discount, options.lam)
        t2 = time.perf_counter()
        theta0_P = self.policy.theta_P.clone()
        step = trpo_step(
            self.policy,
            obs_N_Do,
            trajs.a.stacked,
            trajs.adist.stacked,
            standardized(adv_N),
            max_kl=options.policy_max_kl,
            damping=options.policy_cg_damping,
            rng=self.rng,
        )
        self.policy.update_obsnorm(obs_N_Do)
        vf_fields = [] if self.vf is None else self.vf.fit(obs_N_Do, time_N, q.stacked, self.rng)
        t3 = time.perf_counter()
        self.num_sa += len(time_N)
        self.total_time += t3 - t0
        fields = [
            ('iter', self.iteration, int),
            ('ret', trajs.returns.mean(), float),
            *([] if self.learned is None else [('iret', r.stacked.sum() / len(trajs), float)]),
            ('avglen', int(trajs.lengths.mean()), int),
            ('nsa', self.num_sa, int),
            ('ent', mean_entropy(self.policy, trajs.adist), float),
            ('vf_r2', vf_r2, float),
            ('tdvf_r2', tdvf_r2, float),
            ('dx', max_change(self.policy, theta0_P), float),
            *step.fields(),
            *vf_fields,
            ('tsamp', t1 - t0, float),
            ('tadv', t2 - t1, float),
            ('tstep', t3 - t2, float),
            ('ttotal', self.total_time, float),
        ]
        self.iteration += 1
        return fields


def mean_entropy(policy: Policy, adist: RaggedArray) -> float:
    """Mean entropy of the distributions that a batch was drawn from."""
    return float(policy.entropy(to_tensor(adist.stacked, policy.theta_P)).mean())


def max_change(policy: Policy, theta0_P: torch.Tensor) -> float:
    """max|θ − θ0|, the log's dx."""
    return float((policy.theta_P - theta0_P).abs().max())
