"""The loop of generative adversarial imitation: play, improve the policy, learn the reward function, fit the value function.

Letters: B policy rows, N stacked rows, Do, Da observation and action dims.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from policyopt import optim, rl
from policyopt.interfaces import Fields, Reward, further_fields, uses_transitions
from policyopt.options import ImitationOptions
from policyopt.policies import Policy
from policyopt.sampling.mdp import MDP, sample_batch
from policyopt.torchutil import to_tensor
from policyopt.trajectories import Batch, Expert, TrajBatch, Transitions
from policyopt.valuefuncs import ValueFunc


class ImitationOptimizer:
    """Generative adversarial imitation with TRPO (Ho & Ermon 2016, Algorithm 1), for any reward function of rewards.py.

    As in 2016, the policy's normaliser is updated *after* its step and the classifier's *before* its Adam steps.
    The entropy bonus counts in the advantages and in the logged iret and avgr, but not in the targets of the value function.
    """

    def __init__(
        self,
        options: ImitationOptions,
        mdp: MDP,
        policy: Policy,
        vf: ValueFunc | None,
        reward: Reward,
        expert: Expert,
        rng: np.random.RandomState,
    ):
        self.num_critics_only = 0  # so many first iterations fit only the reward and the value function, and keep the policy
        self.options, self.mdp, self.policy, self.vf, self.reward = options, mdp, policy, vf, reward
        self.expert, self.rng = expert, rng
        self.sim_cfg = rl.sim_config(options, mdp)
        self.iteration = self.num_sa = self.num_trajs = 0
        self.total_time = 0.0

    def sample(self) -> TrajBatch:
        return sample_batch(self.policy.actor(), self.mdp, self.sim_cfg, (self.options.seed, self.iteration))

    def max_kl(self) -> float:
        """Step size of this iteration: it changes linearly from policy_max_kl to policy_final_kl in the last iteration."""
        first, last, max_iter = self.options.policy_max_kl, self.options.policy_final_kl, self.options.max_iter
        if last is None or max_iter is None:
            return first
        # rounding can end a wide range at or below 0
        return max(first + (last - first) / max(max_iter - 1, 1) * self.iteration, min(first, last) / 2)

    def transitions(self, trajs: TrajBatch, logp_N: np.ndarray) -> tuple[Transitions, Transitions]:
        """Return the transitions of a batch and those of all expert pairs, both with log π under the present policy."""
        nextobs_N_Do, terminal_N, _ = trajs.successors(self.sim_cfg.max_traj_len or 0)
        expert, policy = self.expert, self.policy
        assert expert.nextobs_N_Do is not None and expert.terminal_N is not None  # see training.expert_pairs
        exlogp_N = policy.logprob(policy.compute_adist(expert.obs_N_Do), policy.action_tensor(expert.a_N_Da)).cpu().numpy()
        return Transitions(nextobs_N_Do, terminal_N, logp_N), Transitions(expert.nextobs_N_Do, expert.terminal_N, exlogp_N)

    def counters(self) -> dict[str, Any]:
        return {k: getattr(self, k) for k in ('iteration', 'num_sa', 'num_trajs', 'total_time')}

    def load_counters(self, state: Mapping[str, Any]) -> None:
        self.iteration, self.num_sa, self.num_trajs = (int(state[k]) for k in ('iteration', 'num_sa', 'num_trajs'))
        self.total_time = float(state['total_time'])

    def step(self) -> Fields:
        """Do one iteration; returns its log fields [(name, value, type)]: the columns of 2016 in their order, then newer ones."""
        t0, options = time.perf_counter(), self.options
        trajs = self.sample()
        t1 = time.perf_counter()
        obs_N_Do, a_N_Da, time_N = trajs.obs.stacked, trajs.a.stacked, trajs.time.stacked
        batch, expert = Batch(obs_N_Do, self.policy.clipped(a_N_Da), time_N), self.expert.pairs

        # imitation rewards under the present reward function, and advantages
        by_transitions = uses_transitions(self.reward)
        logp_N: Any = None
        if options.policy_ent_reg or by_transitions:
            adist = to_tensor(trajs.adist.stacked, self.policy.theta_P)
            logp_N = self.policy.logprob(adist, self.policy.action_tensor(a_N_Da)).cpu().numpy()
        if by_transitions:
            transitions, expert_transitions = self.transitions(trajs, logp_N)
            batch, expert = batch._replace(transitions=transitions), expert._replace(transitions=expert_transitions)
        learned_N = self.reward.compute_reward(batch)
        entropy_bonus_N = -options.policy_ent_reg * logp_N if options.policy_ent_reg else np.zeros_like(learned_N)
        rewards = trajs.r.with_rows(learned_N + entropy_bonus_N)
        v_N, truncation_bonus_N = None, None
        if self.vf is not None:
            v_N = self.vf.evaluate(obs_N_Do, time_N)
            if options.bootstrap_time_limit:
                truncation_bonus_N = rl.truncation_bonus(trajs, self.vf, options.discount)
        bootstrapped = rewards if truncation_bonus_N is None else rewards.with_rows(rewards.stacked + truncation_bonus_N)
        adv_N, _, vf_r2, tdvf_r2 = rl.advantages(bootstrapped, time_N, v_N, options.discount, options.lam)
        t2 = time.perf_counter()

        # policy, then its normaliser
        theta0_P = self.policy.theta_P.clone()
        if self.iteration < self.num_critics_only:
            step = optim.NaturalStep(0.0, None, 0.0)  # no step
        else:
            step = rl.trpo_step(
                self.policy,
                obs_N_Do,
                a_N_Da,
                trajs.adist.stacked,
                rl.standardized(adv_N),
                max_kl=self.max_kl(),
                damping=options.policy_cg_damping,
                rng=self.rng,
            )
            if options.obsnorm_mode != 'none':
                self.policy.update_obsnorm(obs_N_Do)

        # reward function against as many expert pairs drawn with replacement, then the value function on the new rewards
        drawn_B = self.rng.choice(len(expert.t_B), size=len(obs_N_Do))
        distinct, count = np.unique(drawn_B, return_counts=True)
        reward_fields, new_rewards_N = self.reward.fit(batch, expert.rows(distinct), count)
        vf_fields = []
        if self.vf is not None:
            if truncation_bonus_N is not None:
                new_rewards_N = new_rewards_N + truncation_bonus_N
            new_returns_N = rl.discount(rewards.with_rows(new_rewards_N).padded(), options.discount)[rewards.mask_B_T]
            vf_fields = self.vf.fit(obs_N_Do, time_N, new_returns_N, self.rng)
        t3 = time.perf_counter()

        self.num_sa += len(time_N)
        self.num_trajs += len(trajs)
        self.total_time += t3 - t0
        fields = [
            ('iter', self.iteration, int),
            ('trueret', trajs.returns.mean(), float),
            ('iret', rewards.stacked.sum() / len(trajs), float),
            ('avglen', int(trajs.lengths.mean()), int),
            ('ntrajs', self.num_trajs, int),
            ('nsa', self.num_sa, int),
            ('ent', rl.mean_entropy(self.policy, trajs.adist), float),
            ('vf_r2', vf_r2, float),
            ('tdvf_r2', tdvf_r2, float),
            ('dx', rl.max_change(self.policy, theta0_P), float),
            *step.fields(),
            *vf_fields,
            *reward_fields,
            ('avgr', rewards.stacked.mean(), float),
            ('avgunregr', learned_N.mean(), float),
            ('avgpreg', entropy_bonus_N.mean(), float),
            ('tsamp', t1 - t0, float),
            ('tadv', t2 - t1, float),
            ('tstep', t3 - t2, float),
            ('ttotal', self.total_time, float),
            *further_fields(self.reward),
        ]
        self.iteration += 1
        return fields
