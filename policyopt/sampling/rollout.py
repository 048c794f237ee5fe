"""Playing numbered trajectories in environments that step together, until a batch is full.

Trajectory i has its own random stream and environment seed, and the batch is the shortest prefix of the numbering that fills both
quotas: so neither the number of slots nor that of processes changes a result. numpy only, for worker processes.

Letters: B trajectories, K slots in one call, R recorded rows in the order of play, E ended trajectories, Do, Da, Pa as elsewhere.
`out_K` and `out_R` have the net's outputs as columns.
"""

from __future__ import annotations

import contextlib
import hashlib
import types
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from policyopt.cores import MAX_WORKERS
from policyopt.environments.classic_vec import VecEnv
from policyopt.errors import RunFailed, UserError
from policyopt.sampling.actors import AnyActor
from policyopt.trajectories import LARGEST_OBS, TrajBatch

NOISE_CHUNK = 256  # steps of action noise drawn ahead
ENDLESS = 20000  # steps after which an episode without a time limit counts as one that never ends


@dataclass(frozen=True)
class SimConfig:
    """Quotas of a batch: at least min_num_trajs trajectories and at least min_total_sa pairs, each at most max_traj_len steps.

    max_traj_len None: episodes end by themselves. sim_batch_size: 1 is one process; None uses worker processes where that pays;
    another number that many workers. max_envs: environments made at most; results do not depend on it.
    """

    min_num_trajs: int
    min_total_sa: int
    max_traj_len: int | None
    sim_batch_size: int | None = None
    max_envs: int | None = None

    def __post_init__(self):
        for name in ('min_num_trajs', 'min_total_sa'):
            if getattr(self, name) < 0:
                raise UserError(f'{name} is {getattr(self, name)}; give 0 or more')
        if self.min_num_trajs < 1 and self.min_total_sa < 1:
            raise UserError('a batch needs min_num_trajs or min_total_sa of at least 1')
        if self.sim_batch_size is not None and not 1 <= self.sim_batch_size <= MAX_WORKERS:
            raise UserError(f'sim_batch_size is {self.sim_batch_size}; give 1 or more, up to {MAX_WORKERS}, or leave it out')
        if self.max_traj_len is not None and self.max_traj_len < 1:
            raise UserError(f'max_traj_len is {self.max_traj_len}; give 1 or more')


class Streams:
    """Trajectory i's random generator, counter-based and keyed by (seed, stream name)."""

    def __init__(self, key: Iterable):
        self.key = np.frombuffer(hashlib.sha256(repr(tuple(key)).encode()).digest()[:16], dtype=np.uint64)

    def generator(self, i: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=self.key, counter=[0, 0, 0, i]))


class TrajectoryCounter:
    """Which trajectories have been started and how many steps each has so far: it decides when a batch is full.

    lengths_B and counter may lie in shared memory; the counter's lock then makes `next_numbers` safe between processes. Lengths only
    grow, so a stale one makes `needed` larger, never wrong.
    """

    def __init__(self, cfg: SimConfig, lengths_B: np.ndarray, counter: Any = None):
        self.cfg, self.lengths_B, self.counter = cfg, lengths_B, counter or types.SimpleNamespace(value=0, get_lock=contextlib.nullcontext)

    @staticmethod
    def capacity(cfg: SimConfig, num_slots: int) -> int:
        """Trajectories that can be started at most: each adds at least one step."""
        return cfg.min_num_trajs + cfg.min_total_sa + num_slots + 1

    def needed(self) -> float:
        """How many trajectories can still belong to the batch, given the steps so far; infinite while these are too few."""
        if self.cfg.min_total_sa == 0:
            return self.cfg.min_num_trajs
        cum_B = np.cumsum(self.lengths_B[: self.counter.value])
        by_pairs = int(np.searchsorted(cum_B, self.cfg.min_total_sa)) + 1
        return np.inf if by_pairs > len(cum_B) else max(self.cfg.min_num_trajs, by_pairs)

    def next_numbers(self, num: int, always: bool = False) -> np.ndarray:
        """The next `num` trajectory numbers, fewer when fewer are needed (unless always)."""
        with self.counter.get_lock():
            first = self.counter.value
            if not always:
                num = int(max(0, min(num, self.needed() - first)))
            self.counter.value = first + num
        return np.arange(first, first + num)


class Played(NamedTuple):
    """What has been played: a row for each step, and one for each end of a trajectory."""

    traj_R: np.ndarray
    t_R: np.ndarray
    obs_R_Do: np.ndarray
    adist_R_Pa: np.ndarray
    a_R_Da: np.ndarray
    r_R: np.ndarray
    traj_E: np.ndarray
    lastobs_E_Do: np.ndarray
    terminal_E: np.ndarray


class BatchRequest(NamedTuple):
    """A batch to play: the policy, the quotas, the key that names the randomness, and how many environments step at once."""

    actor: AnyActor
    cfg: SimConfig
    key: tuple
    num_slots: int
    deterministic: bool


class Rollout:
    """Slots of environments stepped together; each that ends takes the next trajectory number while more are needed."""

    def __init__(self, request: BatchRequest, vec: VecEnv, env_name: str, counter: TrajectoryCounter):
        self.actor, self.cfg, key, num_slots, self.deterministic = request
        self.vec, self.env_name, self.counter = vec, env_name, counter
        self.streams, self.num_slots = Streams(key), min(num_slots, vec.available)
        self.rngs: list[Any] = [None] * self.num_slots  # a generator in each slot that is in use
        self.limit = self.cfg.max_traj_len or ENDLESS
        self.chunk = min(NOISE_CHUNK, self.limit)
        self.noise: Any = None if self.deterministic else np.empty((self.num_slots, self.chunk, self.actor.num_noise))
        self.ends = []  # (traj_E, lastobs_E_Do, terminal_E)

    def run(self) -> Played:
        """Play until no slot is needed."""
        rows, bounds_2_Da = [], self.actor.bounds_2_Da
        slots_K = np.arange(self.num_slots)
        t_K = np.zeros(self.num_slots, dtype=np.int64)
        traj_K = self.counter.next_numbers(self.num_slots, always=True)
        obs_K_Do = self.start(slots_K, traj_K)
        while len(slots_K):
            phase_K = t_K % self.chunk
            if not self.deterministic and np.count_nonzero(phase_K) < len(phase_K):
                for slot in slots_K[phase_K == 0]:  # has used its noise up
                    self.noise[slot] = self.actor.noise(self.rngs[slot], self.chunk)
            out_K = self.actor.outputs(obs_K_Do)
            a_K_Da = self.actor.act(out_K, None if self.deterministic else self.noise[slots_K, phase_K])
            played_K_Da = a_K_Da if bounds_2_Da is None else np.minimum(np.maximum(a_K_Da, bounds_2_Da[0]), bounds_2_Da[1])
            next_obs_K_Do, r_K, done_K = self.vec.step(slots_K, played_K_Da)
            self.check(next_obs_K_Do, 'an observation', LARGEST_OBS, t_K)
            self.check(r_K, 'a reward', np.inf, t_K)
            rows.append((traj_K, t_K, obs_K_Do, out_K, a_K_Da, r_K))
            obs_K_Do, t_K = next_obs_K_Do, t_K + 1
            self.counter.lengths_B[traj_K] = t_K
            late_K = t_K >= self.limit
            if self.cfg.max_traj_len is None and (late_K & ~done_K).any():
                ended = f'and an episode has not ended in {ENDLESS} steps'
                raise UserError(f"env '{self.env_name}' has no time limit of its own, {ended}; give --max_traj_len")
            done_K = done_K | late_K
            if np.count_nonzero(done_K):
                slots_K, t_K, traj_K, obs_K_Do = self.restart(slots_K, t_K, traj_K, obs_K_Do, done_K)
        traj_R, t_R, obs_R_Do, out_R, a_R_Da, r_R = (np.concatenate(column) for column in zip(*rows, strict=True))
        ends = (np.concatenate(column) for column in zip(*self.ends, strict=True))
        return Played(traj_R, t_R, obs_R_Do, self.actor.adist_of(out_R), a_R_Da, r_R, *ends)

    def start(self, slots_K: np.ndarray, traj_K: np.ndarray) -> np.ndarray:
        """Reset these slots for these trajectory numbers; returns their first observations."""
        for slot, i in zip(slots_K, traj_K, strict=True):
            self.rngs[slot] = self.streams.generator(int(i))
        seeds_K = [int(self.rngs[slot].integers(2**31)) for slot in slots_K]
        self.actor.begin_episode()
        obs_K_Do = self.vec.reset(slots_K, seeds_K)
        self.check(obs_K_Do, 'an observation', LARGEST_OBS)
        return obs_K_Do

    def check(self, x: np.ndarray, what: str, limit: float, t_K: np.ndarray | None = None) -> None:
        """Raise RunFailed unless all that an environment returned, by a step at t_K or a reset, is finite and below the limit."""
        # the sum of squares, one quick call, decides unless it overflows
        if float(np.vdot(x, x)) < limit**2 or bool((np.abs(x) < limit).all()):
            return
        when, seen, expected = 'on reset' if t_K is None else f'at step {t_K.max()}', 'NaN or infinity', 'finite numbers'
        if np.isfinite(x).all():
            seen, expected = f'numbers up to {np.abs(x).max():.3g}', f'numbers below {limit:g}, whose squares have a mean'
        raise RunFailed(f"env '{self.env_name}' returned {seen} as {what} {when}; expected {expected}")

    def restart(
        self, slots_K: np.ndarray, t_K: np.ndarray, traj_K: np.ndarray, obs_K_Do: np.ndarray, done_K: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Give ended slots the next trajectories while more are needed; drop the others and trajectories beyond the prefix."""
        cut_K = self.vec.cut_short(slots_K[done_K])
        if self.cfg.max_traj_len is not None:
            cut_K |= t_K[done_K] >= self.cfg.max_traj_len
        self.ends.append((traj_K[done_K], obs_K_Do[done_K], ~cut_K))
        keep = ~done_K & (traj_K < self.counter.needed())
        new_traj = self.counter.next_numbers(int(done_K.sum()))
        free = slots_K[done_K][: len(new_traj)]
        slots_K, t_K, traj_K, obs_K_Do = slots_K[keep], t_K[keep], traj_K[keep], obs_K_Do[keep]
        if len(free):
            obs_K_Do = np.concatenate([obs_K_Do, self.start(free, new_traj)])
            slots_K, traj_K = np.concatenate([slots_K, free]), np.concatenate([traj_K, new_traj])
            t_K = np.concatenate([t_K, np.zeros_like(free)])
            order = np.argsort(slots_K)
            slots_K, t_K, traj_K, obs_K_Do = slots_K[order], t_K[order], traj_K[order], obs_K_Do[order]
        return slots_K, t_K, traj_K, obs_K_Do


def in_order(played: Played, lengths_B: np.ndarray) -> TrajBatch:
    """The first len(lengths_B) trajectories as a batch; they were played in any order, and some beyond them too."""
    kept_R = played.traj_R < len(lengths_B)
    dest = (np.cumsum(lengths_B) - lengths_B)[played.traj_R[kept_R]] + played.t_R[kept_R]

    def sorted_rows(field_R):
        out = np.empty((len(dest), *field_R.shape[1:]), dtype=field_R.dtype)
        out[dest] = field_R[kept_R]
        return out

    obs_N_Do, adist_N_Pa, a_N_Da, r_N = map(sorted_rows, (played.obs_R_Do, played.adist_R_Pa, played.a_R_Da, played.r_R))
    trajs = TrajBatch(obs_N_Do, adist_N_Pa, a_N_Da, r_N, lengths_B)
    order = np.argsort(played.traj_E)[: len(lengths_B)]
    trajs.lastobs_B_Do, trajs.terminal_B = played.lastobs_E_Do[order], played.terminal_E[order]
    return trajs
