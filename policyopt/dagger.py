"""DAgger: the learner plays, the expert labels the observations, and cloning continues on all pairs so far.

Letters: N pairs of the aggregate, M pairs of one round, Do, Da observation and action dims.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from policyopt.cloning import BehavioralCloningOptimizer
from policyopt.interfaces import Fields
from policyopt.sampling.actors import AnyActor, MixtureActor
from policyopt.sampling.mdp import MDP, sample_trajectories
from policyopt.sampling.rollout import Streams
from policyopt.trajectories import Expert, TrajBatch


@dataclass(frozen=True)
class Rounds:
    """When episodes are played, how many, and by whom. Round 0 is the demonstrations; rounds 1, 2, … are played.

    number, trajs: rounds, and episodes in each. max_iter: Adam steps in all, divided evenly between the number + 1 rounds.
    beta, schedule: see `beta_of`. label: 'mean' or 'sampled' actions of the expert. horizon: steps of an episode at most.
    subsamp_freq: label every N-th observation of an episode.
    """

    number: int
    trajs: int
    max_iter: int
    beta: float = 0.0
    schedule: str = 'exponential'
    label: str = 'mean'
    horizon: int | None = None
    subsamp_freq: int = 1
    sim_batch_size: int | None = None

    def start(self, round: int) -> int:
        """The iteration before whose Adam step a round is played."""
        return round * self.max_iter // (self.number + 1)

    def beta_of(self, round: int) -> float:
        """β of a round: beta^round, or max(0, 1 − round·(1 − beta)); 1 for the demonstrations, `beta` for round 1."""
        return self.beta**round if self.schedule == 'exponential' else max(0.0, 1.0 - round * (1.0 - self.beta))


class DaggerOptimizer:
    """Dataset aggregation (Ross, Gordon & Bagnell 2011, Algorithm 3.1), on top of behavioural cloning.

    cloning: its pairs are the demonstrations `expert`, the paper's first iteration, and every round continues it with the same net
    and the same Adam. teacher: the expert that labels and, with probability β, acts. Actions are sampled, the expert's too. Labelled
    pairs are split as the demonstrations are, and the policy's normaliser is that of all observations of the aggregate. Without
    rounds it is behavioural cloning to the bit.
    """

    def __init__(self, mdp: MDP, cloning: BehavioralCloningOptimizer, teacher: AnyActor, expert: Expert, rounds: Rounds, seed: int):
        self.mdp, self.cloning, self.teacher, self.rounds, self.seed = mdp, cloning, teacher, rounds, seed
        self.policy, self.rng = cloning.policy, cloning.rng
        self.obs_N_Do, self.a_N_Da = expert.obs_N_Do, expert.a_N_Da
        self.num_demos, self.round = len(self.obs_N_Do), 0

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
        if self.round < self.rounds.number and self.iteration == self.rounds.start(self.round + 1):
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
            ('beta', self.rounds.beta_of(self.round), float),
            ('nlabels', len(self.obs_N_Do), int),
            ('tsamp', tsamp, float),
            ttotal,
        ]

    def play(self) -> TrajBatch:
        """The episodes of this round. Their adist is the expert's, unless the learner acts alone."""
        learner, beta = self.policy.actor(), self.rounds.beta_of(self.round)
        # an actor that acts alone plays the same episodes as without the other
        actor = learner if beta == 0 else self.teacher if beta == 1 else MixtureActor(learner, self.teacher, beta)
        key, workers = (self.seed, 'dagger', self.round), self.rounds.sim_batch_size
        return sample_trajectories(actor, self.mdp, self.rounds.trajs, self.rounds.horizon, key, sim_batch_size=workers)

    def query(self, trajs: TrajBatch) -> tuple[np.ndarray, np.ndarray]:
        """(obs_M_Do, adist_M_Pa): every subsamp_freq-th observation of each episode, and the expert's distribution there.

        The first of them is drawn, as for demonstrations, but from within the episode, so that each episode has a label. Where the
        expert has played, its recorded distribution is used, so that it sees no observation twice.
        """
        every, lengths_B = self.rounds.subsamp_freq, trajs.lengths
        start_B = Streams((self.seed, 'dagger labels', self.round)).generator(1).integers(np.minimum(every, lengths_B))
        rows_M = np.flatnonzero(trajs.time.stacked % every == np.repeat(start_B, lengths_B))
        obs_M_Do = trajs.obs.stacked[rows_M]
        if self.rounds.beta_of(self.round):
            return obs_M_Do, trajs.adist.stacked[rows_M]
        return obs_M_Do, self.teacher.adist(obs_M_Do)

    def labels(self, adist_M_Pa: np.ndarray) -> np.ndarray:
        """The expert's actions a_M_Da."""
        if self.rounds.label == 'mean':
            return self.teacher.act_by(adist_M_Pa, None)
        rng = Streams((self.seed, 'dagger labels', self.round)).generator(0)
        return self.teacher.act_by(adist_M_Pa, self.teacher.noise(rng, len(adist_M_Pa)))

    def aggregate(self, obs_M_Do: np.ndarray, a_M_Da: np.ndarray) -> None:
        """Add labelled pairs to those that cloning learns from and validates with."""
        rows_M = len(self.obs_N_Do) + self.rng.permutation(len(obs_M_Do))
        num_train = int(self.cloning.train_frac * (len(self.obs_N_Do) + len(obs_M_Do))) - len(self.cloning.train_rows)
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
