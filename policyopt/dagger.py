"""DAgger: the learner plays, the expert labels the observations, and cloning continues on all pairs so far.

Letters: N pairs of the aggregate, M pairs of one round, Do, Da observation and action dims.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from policyopt.cloning import BehavioralCloningOptimizer
from policyopt.errors import UserError
from policyopt.interfaces import Fields
from policyopt.options import ImitationOptions
from policyopt.policies import Policy
from policyopt.sampling.actors import AnyActor, FunctionActor, MixtureActor
from policyopt.sampling.mdp import MDP, sample_trajectories
from policyopt.sampling.rollout import Streams
from policyopt.torchutil import NetConfig
from policyopt.trajectories import Expert, TrajBatch


class DaggerOptimizer:
    """Dataset aggregation (Ross, Gordon & Bagnell 2011, Algorithm 3.1), on top of behavioural cloning.

    Round 0 is cloning of the demonstrations `expert`, the paper's first iteration. Before each of --dagger_rounds further rounds, which
    divide --max_iter evenly, episodes are played, and cloning continues with the same net and the same Adam. teacher: the expert that
    labels and, with probability β, acts. Actions are sampled, the expert's too. Labelled pairs are split as the demonstrations are, and
    the policy's normaliser is that of all observations of the aggregate. Without rounds it is behavioural cloning to the bit.
    """

    def __init__(
        self, options: ImitationOptions, mdp: MDP, policy: Policy, expert: Expert, nets: NetConfig, teacher: AnyActor | None = None
    ):
        if teacher is None:
            raise UserError('--mode dagger queries an expert for labels; give --expert FILE.h5/snapshots/…, a policy for this task')
        if isinstance(teacher, FunctionActor) and (options.sim_batch_size or 1) > 1:
            raise UserError(f'sim_batch_size {options.sim_batch_size}: worker processes cannot call a function for labels; give 1')
        self.options, self.mdp, self.policy, self.teacher = options, mdp, policy, teacher
        self.max_iter: Any = options.max_iter
        if self.max_iter <= options.dagger_rounds:
            raise UserError(
                f'--max_iter {self.max_iter} leaves some of {options.dagger_rounds} --dagger_rounds without a step; give more than that'
            )
        self.cloning = BehavioralCloningOptimizer(options, mdp, policy, expert, nets)
        self.rng = self.cloning.rng
        self.obs_N_Do, self.a_N_Da = expert.obs_N_Do, expert.a_N_Da
        self.num_demos, self.round = len(self.obs_N_Do), 0

    def start(self, round: int) -> int:
        """The iteration before whose Adam step a round is played."""
        return round * self.max_iter // (self.options.dagger_rounds + 1)

    @property
    def beta(self) -> float:
        """β of this round: dagger_beta^round, or max(0, 1 − round·(1 − dagger_beta)); 1 for the demonstrations."""
        beta = self.options.dagger_beta
        return beta**self.round if self.options.dagger_beta_schedule == 'exponential' else max(0.0, 1.0 - self.round * (1.0 - beta))

    @property
    def iteration(self) -> int:
        return self.cloning.iteration

    @property
    def total_time(self) -> float:
        return self.cloning.total_time

    def step(self) -> Fields:
        """One Adam step on the aggregate; before it, a round of play where one is due. Returns its log fields."""
        t0 = time.perf_counter()
        trajs = None
        if self.round < self.options.dagger_rounds and self.iteration == self.start(self.round + 1):
            self.round += 1
            trajs = self.play()
            obs_M_Do, adist_M_Pa = self.query(trajs)
            self.aggregate(obs_M_Do, self.labels(adist_M_Pa))
        tsamp = time.perf_counter() - t0 if trajs else 0.0
        self.cloning.total_time += tsamp
        fields = self.cloning.step()
        seen = {}  # of the episodes of this round
        if trajs:
            seen = {'trueret': trajs.returns.mean(), 'avgr': trajs.r.stacked.mean(), 'avglen': int(trajs.lengths.mean())}
        *fields, ttotal = [(name, seen.get(name, value), kind) for name, value, kind in fields]
        return [
            *fields,
            ('round', self.round, int),
            ('beta', self.beta, float),
            ('nlabels', len(self.obs_N_Do), int),
            ('tsamp', tsamp, float),
            ttotal,
        ]

    def play(self) -> TrajBatch:
        """The episodes of this round. Their adist is the expert's, unless the learner acts alone."""
        learner, beta, options = self.policy.actor(), self.beta, self.options
        # an actor that acts alone plays the same episodes as without the other
        actor = learner if beta == 0 else self.teacher if beta == 1 else MixtureActor(learner, self.teacher, beta)
        key, longest = (options.seed, 'dagger', self.round), options.max_traj_len
        return sample_trajectories(actor, self.mdp, options.dagger_round_trajs, longest, key, sim_batch_size=options.sim_batch_size)

    def query(self, trajs: TrajBatch) -> tuple[np.ndarray, np.ndarray]:
        """(obs_M_Do, adist_M_Pa): every data_subsamp_freq-th observation of each episode, and the expert's distribution there.

        The first of them is drawn, as for demonstrations, but from within the episode, so that each episode has a label. Where the
        expert has played, its recorded distribution is used, so that it sees no observation twice.
        """
        every, lengths_B = self.options.data_subsamp_freq, trajs.lengths
        start_B = Streams((self.options.seed, 'dagger labels', self.round)).generator(1).integers(np.minimum(every, lengths_B))
        rows_M = np.flatnonzero(trajs.time.stacked % every == np.repeat(start_B, lengths_B))
        obs_M_Do = trajs.obs.stacked[rows_M]
        if self.beta:
            return obs_M_Do, trajs.adist.stacked[rows_M]
        return obs_M_Do, self.teacher.adist(obs_M_Do)

    def labels(self, adist_M_Pa: np.ndarray) -> np.ndarray:
        """The expert's actions a_M_Da."""
        if self.options.dagger_label == 'mean':
            return self.teacher.act_by(adist_M_Pa, None)
        rng = Streams((self.options.seed, 'dagger labels', self.round)).generator(0)
        return self.teacher.act_by(adist_M_Pa, self.teacher.noise(rng, len(adist_M_Pa)))

    def aggregate(self, obs_M_Do: np.ndarray, a_M_Da: np.ndarray) -> None:
        """Add labelled pairs to those that cloning learns from and validates with."""
        rows_M = len(self.obs_N_Do) + self.rng.permutation(len(obs_M_Do))
        num_train = int(self.options.bclone_train_frac * (len(self.obs_N_Do) + len(obs_M_Do))) - len(self.cloning.train_rows)
        self.policy.update_obsnorm(obs_M_Do)
        self.set_aggregate(
            np.concatenate([self.obs_N_Do, obs_M_Do]),
            np.concatenate([self.a_N_Da, a_M_Da]),
            np.concatenate([self.cloning.train_rows, rows_M[:num_train]]),
            np.concatenate([self.cloning.val_rows, rows_M[num_train:]]),
        )

    def set_aggregate(self, obs_N_Do: np.ndarray, a_N_Da: np.ndarray, train_rows: np.ndarray, val_rows: np.ndarray) -> None:
        self.obs_N_Do, self.a_N_Da = obs_N_Do, a_N_Da
        self.cloning.train_rows, self.cloning.val_rows = train_rows, val_rows
        self.cloning.set_pairs(obs_N_Do, a_N_Da)

    def counters(self) -> dict[str, Any]:
        """Those of cloning, the round, and what the rounds have added to the demonstrations."""
        mine = {'round': self.round, 'train_rows': self.cloning.train_rows, 'val_rows': self.cloning.val_rows}
        added = {'obs_M_Do': self.obs_N_Do[self.num_demos :], 'a_M_Da': self.a_N_Da[self.num_demos :]} if self.round else {}
        return self.cloning.counters() | {f'dagger/{k}': v for k, v in (mine | added).items()}

    def load_counters(self, state: Mapping[str, Any]) -> None:
        self.cloning.load_counters(state)
        mine = {k.removeprefix('dagger/'): v for k, v in state.items() if k.startswith('dagger/')}
        self.round = int(mine['round'])
        if self.round:
            obs_N_Do, a_N_Da = np.concatenate([self.obs_N_Do, mine['obs_M_Do']]), np.concatenate([self.a_N_Da, mine['a_M_Da']])
            self.set_aggregate(obs_N_Do, a_N_Da, mine['train_rows'], mine['val_rows'])
