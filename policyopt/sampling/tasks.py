"""Tasks and the sampling of trajectories with them.

Sampling is a pure function of (seed, stream, policy): a batch is the shortest prefix of numbered trajectories that fills both
quotas, exactly the one-after-the-other rule of 2016, whatever ran at the same time (rollout.py).
"""

import re
import sys
from dataclasses import dataclass

import numpy as np

from environments import rlgymenv
from policyopt.files.trajectories import ContinuousSpace, FiniteSpace, TrajBatch
from policyopt.sampling.actor import RandomActor
from policyopt.sampling.rollout import Ledger, Rollout, Streams, in_order
from policyopt.sampling.workers import WorkerPool, default_workers
from policyopt.util import UserError

MAX_SLOTS = 256  # environments stepped at once, at most


def _base_name(env_name):
    """'Hopper' of package.module:legacy/Hopper-v1."""
    return re.sub(r'-v\d+$', '', re.split('[:/]', env_name)[-1])


@dataclass(frozen=True)
class SimConfig:
    """Quotas of a batch: at least min_num_trajs trajectories and at least min_total_sa pairs, each at most max_traj_len steps.

    sim_batch_size: 1 is one process; None uses worker processes where that pays; another number that many workers.
    """

    min_num_trajs: int
    min_total_sa: int
    max_traj_len: int
    sim_batch_size: int | None = None

    def __post_init__(self):
        for name in ('min_num_trajs', 'min_total_sa'):
            if getattr(self, name) < 0:
                raise UserError(f'{name} is {getattr(self, name)}; give 0 or more')
        if self.min_num_trajs < 1 and self.min_total_sa < 1:
            raise UserError('a batch needs min_num_trajs or min_total_sa of at least 1')
        if self.sim_batch_size is not None and self.sim_batch_size < 1:
            raise UserError(f'sim_batch_size is {self.sim_batch_size}; give 1 or more, or leave it out')
        if self.max_traj_len < 1:
            raise UserError(f'max_traj_len is {self.max_traj_len}; give 1 or more')


class MDP:
    """A task by its environment id: spaces, time limit, and environments that step together.

    Raises UserError for an id that is unknown or whose spaces are not supported.
    """

    def __init__(self, env_name):
        try:
            info = rlgymenv.env_info(env_name)
        except rlgymenv.BadEnvironment as e:
            raise UserError(str(e)) from e
        self.info, self.env_name, self.env_id, self.time_limit = info, env_name, info.id, info.time_limit
        self.obs_space = ContinuousSpace(info.obs_dim)
        self.action_space = FiniteSpace(info.num_actions) if info.finite else ContinuousSpace(info.a_dim)
        self._vec = self._pool = None
        self.mean_len = None  # of the last batch: a hint for how many environments to step at once, never a result

    def warn_of_another_task(self, path, env_name):
        """Say when a file names a task other than this one; versions do not count, and None (of old files) says nothing."""
        if env_name and _base_name(env_name) != _base_name(self.env_name):
            print(f"warning: {path} comes from env '{env_name}' and is used for '{self.env_name}'", file=sys.stderr)

    def horizon(self, max_traj_len=None):
        """Steps after which an episode is cut: max_traj_len, or the environment's own limit.

        Raises UserError where neither exists, and for a max_traj_len below 1.
        """
        if max_traj_len is not None and max_traj_len < 1:
            raise UserError(f'max_traj_len is {max_traj_len}; give 1 or more')
        limit = max_traj_len or self.time_limit
        if not limit:
            raise UserError(f"env '{self.env_name}' has no time limit of its own; give --max_traj_len")
        return min(limit, self.time_limit or limit)

    def vec_env(self, num_slots):
        """At least num_slots environments that step together, kept between calls."""
        if self._vec is None or self._vec.num_slots < num_slots:
            self.close()
            self._vec = rlgymenv.make_vec_env(self.env_name, num_slots)
        return self._vec

    def num_workers(self, sim_batch_size):
        """Processes that play a batch: sim_batch_size if given; else one for tasks stepped in numpy, as many as cores for others."""
        if sim_batch_size is not None:
            return sim_batch_size
        return default_workers() if self.vec_env(1).pays_in_processes else 1

    def worker_pool(self, num_workers, capacity):
        """Worker processes, kept between calls."""
        pool = self._pool
        if pool is None or len(pool.processes) != num_workers or pool.capacity < capacity:
            self.close()
            self._pool = WorkerPool(self.env_name, self.obs_space.dim, num_workers, capacity)
        return self._pool

    def close(self):
        for kept in (self._vec, self._pool):
            if kept is not None:
                kept.close()
        self._vec = self._pool = None


def sample_batch(actor, mdp, cfg, key, deterministic=False):
    """Sample the shortest prefix of numbered trajectories that fills both quotas of cfg.

    Args:
        actor: numpy policy with outputs(obs_B_Do), adist_of(outputs), noise(rng, num), act(outputs, noise).
        key: (seed, stream name or iteration): names the randomness.
    Returns a TrajBatch. Raises RunFailed when the environment or a worker fails, or returns what it should not.
    """
    mean_len = mdp.mean_len or cfg.max_traj_len
    want = max(cfg.min_num_trajs, -(-cfg.min_total_sa // max(int(mean_len), 1)))
    num_slots, num_workers = min(want, MAX_SLOTS), mdp.num_workers(cfg.sim_batch_size)
    if num_workers > 1:
        pool = mdp.worker_pool(num_workers, Ledger.capacity(cfg, MAX_SLOTS + num_workers))
        rows, ledger = pool.play(actor, cfg, key, num_slots, deterministic)
    else:
        ledger = Ledger(cfg, np.zeros(Ledger.capacity(cfg, num_slots), dtype=np.int64))
        vec = mdp.vec_env(num_slots)
        rows = Rollout(actor, vec, mdp.env_name, mdp.obs_space.dim, cfg, ledger, Streams(key), num_slots, deterministic).run()
    lengths_B = ledger.lengths_B[: ledger.needed()].copy()
    mdp.mean_len = lengths_B.mean()
    obs_N_Do, adist_N_Pa, a_N_Da, r_N = in_order(rows, lengths_B)
    return TrajBatch(obs_N_Do, adist_N_Pa, a_N_Da, r_N, lengths_B)


def sample_trajectories(actor, mdp, num_trajs, max_traj_len, key, deterministic=False):
    """Exactly num_trajs trajectories, in the order in which they were started."""
    return sample_batch(actor, mdp, SimConfig(num_trajs, 0, max_traj_len), key, deterministic)


def sample_randomly(mdp, num_trajs, seed, max_traj_len=None, a_max=None):
    """Exactly num_trajs episodes of the random policy (RandomActor), in the order in which they were started."""
    actor = RandomActor(mdp.info, a_max)
    return sample_trajectories(actor, mdp, num_trajs, mdp.horizon(max_traj_len), (seed, 'evaluate'))
