"""Tasks and the sampling of trajectories with them.

Sampling is a pure function of (seed, stream, policy): a batch is the shortest prefix of numbered trajectories that fills both
quotas, exactly the one-after-the-other rule of 2016, whatever ran at the same time (rollout.py).
"""

from __future__ import annotations

import dataclasses
import re
import sys
from typing import Any

import numpy as np

from policyopt.arguments import kind_of
from policyopt.cores import workers_from_env
from policyopt.environments import rlgymenv
from policyopt.environments.classic_vec import VecEnv
from policyopt.errors import UserError, printable
from policyopt.sampling.actors import AnyActor, RandomActor
from policyopt.sampling.rollout import BatchRequest, Rollout, SimConfig, TrajectoryCounter, in_order
from policyopt.sampling.workers import WorkerPool
from policyopt.trajectories import ContinuousSpace, FiniteSpace, TrajBatch

MAX_SLOTS = 256  # environments stepped at once, at most
MAX_ACTIONS = 100_000  # different ones of a finite space that nothing but data describes


def _base_name(env_name: str) -> str:
    """'Hopper' of package.module:legacy/Hopper-v1."""
    return re.sub(r'-v\d+$', '', re.split('[:/]', str(env_name))[-1])


class MDP:
    """A task: spaces, time limit, and environments that step together.

    task: the id of an environment, a function that returns a new gymnasium.Env, or one such environment. info: its EnvInfo where that
    is known already.
    Raises UserError for a task that is unknown or whose spaces are not supported, RunFailed for one whose close() fails.
    """

    def __init__(self, task: Any, info: rlgymenv.EnvInfo | None = None):
        info = info or rlgymenv.env_info(task)
        self.task, self.info, self.env_name, self.env_id, self.time_limit = task, info, info.name, info.id, info.time_limit
        self.obs_space = ContinuousSpace(info.obs_dim)
        self.action_space = FiniteSpace(info.num_actions) if info.finite else ContinuousSpace(info.a_dim)
        self._vec = self._pool = None
        self.mean_len: float | None = None  # of the last batch: a hint for how many environments to step at once, never a result

    def warn_of_another_task(self, path: str, env_name: str | None) -> None:
        """Warn when a file names a task other than this one; versions are ignored, and so is None (of old files, of recorded tasks)."""
        if env_name and self.env_name and _base_name(env_name) != _base_name(self.env_name):
            print(f"warning: {path} comes from env '{printable(env_name)[:200]}' and is used for '{self.env_name}'", file=sys.stderr)

    def longest(self, max_traj_len: int | None = None) -> int | None:
        """Steps after which an episode is truncated: max_traj_len, or the environment's own limit; None where neither is known.

        Raises UserError for a max_traj_len below 1.
        """
        if max_traj_len is not None and max_traj_len < 1:
            raise UserError(f'max_traj_len is {max_traj_len}; give 1 or more')
        limit = max_traj_len or self.time_limit
        return min(limit, self.time_limit or limit) if limit else None

    def horizon(self, max_traj_len: int | None = None, needed_by: str = '') -> int:
        """As `longest`, where a time limit is required; raises UserError where there is none."""
        limit = self.longest(max_traj_len)
        if limit is None:
            needs = f', and {needed_by} needs one' if needed_by else ''
            raise UserError(f"env '{self.env_name}' has no time limit of its own{needs}; give --max_traj_len")
        return limit

    def time_scale(self, max_traj_len: int | None = None) -> float:
        """The factor of the time in the inputs of nets: 1 / time limit, or 0 without a limit."""
        limit = self.time_limit or self.longest(max_traj_len)
        return 1.0 / limit if limit else 0.0

    def vec_env(self, num_slots: int) -> VecEnv:
        """At least num_slots environments that step together, kept between calls."""
        if self._vec is None or self._vec.num_slots < num_slots:
            self.close()
            self._vec = rlgymenv.make_vec_env(self.task, num_slots, self.info)
        return self._vec

    def num_workers(self, sim_batch_size: int | None) -> int:
        """Processes that play a batch: sim_batch_size if given; else one for tasks stepped in numpy, as many as cores for others.

        A task that has no id cannot be sent to another process: UserError for a sim_batch_size above 1.
        """
        if not isinstance(self.task, str) and (sim_batch_size or 1) > 1:
            raise UserError(f"sim_batch_size {sim_batch_size}: worker processes need an env's id, not '{self.env_name}' itself; give 1")
        if sim_batch_size is not None or not isinstance(self.task, str):
            return sim_batch_size or 1
        return workers_from_env() if rlgymenv.pays_in_processes(self.info) else 1

    def worker_pool(self, num_workers: int, capacity: int) -> WorkerPool:
        """Worker processes, kept between calls."""
        pool = self._pool
        if pool is None or len(pool.processes) != num_workers or pool.capacity < capacity:
            self.close()
            pool = self._pool = WorkerPool(self.env_name, num_workers, capacity)
        return pool

    def close(self) -> None:
        for kept in (self._vec, self._pool):
            if kept is not None:
                kept.close()
        self._vec = self._pool = None


def check_mdp(mdp: Any) -> None:
    """Raise UserError for what is neither a task nor None."""
    if mdp is not None and not isinstance(mdp, MDP):
        raise UserError(f"mdp is {kind_of(mdp)}; expected a task, such as MDP('CartPole-v1')")


class RecordedTask(MDP):
    """The spaces of demonstrations without an environment: enough to clone them, and nothing to play in."""

    def __init__(self, trajs: TrajBatch, num_actions: int | None = None):
        """num_actions: of a finite action space; None: up to the largest action in the data."""
        a_N_Da = trajs.a.stacked
        finite = a_N_Da.dtype.kind in 'iu'
        if num_actions is not None and not finite:
            raise UserError(f'num_actions is {num_actions}, but the actions of the data are no integers; leave it out')
        if finite and (a_N_Da.shape[1] != 1 or a_N_Da.min() < 0):
            seen = f'integers of shape {a_N_Da.shape}, from {a_N_Da.min()}'
            raise UserError(f'the actions of the data are {seen}; expected one integer from 0 a step, or decimal numbers')
        size = int(num_actions or a_N_Da.max() + 1) if finite else 0
        if finite and max(size, int(a_N_Da.max()) + 1) > MAX_ACTIONS:
            raise UserError(f'the largest action of the data is {a_N_Da.max()}; expected fewer than {MAX_ACTIONS} different ones')
        dims = trajs.obs.stacked.shape[1], size, a_N_Da.shape[1]
        super().__init__(None, rlgymenv.EnvInfo('the data', 'the data', *dims, time_limit=None))
        self.env_name: Any = None

    def vec_env(self, num_slots: int) -> VecEnv:
        raise UserError('there is no environment to play in; give --env_name')


def sample_batch(actor: AnyActor, mdp: MDP, cfg: SimConfig, key: tuple, deterministic: bool = False) -> TrajBatch:
    """Sample the shortest prefix of numbered trajectories that fills both quotas of cfg.

    Args:
        actor: numpy policy with outputs(obs_B_Do), adist_of(outputs), noise(rng, num), act(outputs, noise).
        key: (seed, stream name or iteration): names the randomness.
    Returns a TrajBatch. Raises RunFailed when the environment or a worker fails, or returns what it should not.
    """
    cfg = dataclasses.replace(cfg, max_traj_len=mdp.longest(cfg.max_traj_len))
    mean_len = mdp.mean_len or cfg.max_traj_len or 1000
    want = max(cfg.min_num_trajs, -(-cfg.min_total_sa // max(int(mean_len), 1)))
    num_slots, num_workers = min(want, cfg.max_envs or MAX_SLOTS if mdp.info.copies else 1), mdp.num_workers(cfg.sim_batch_size)
    num_workers = min(num_workers, cfg.max_envs or num_workers)
    if num_workers > 1:
        pool = mdp.worker_pool(num_workers, TrajectoryCounter.capacity(cfg, MAX_SLOTS + num_workers))
        played, counter = pool.play(BatchRequest(actor, cfg, key, num_slots, deterministic))
    else:
        counter = TrajectoryCounter(cfg, np.zeros(TrajectoryCounter.capacity(cfg, num_slots), dtype=np.int64))
        request = BatchRequest(actor, cfg, key, num_slots, deterministic)
        played = Rollout(request, mdp.vec_env(num_slots), mdp.env_name, counter).run()
    lengths_B = counter.lengths_B[: counter.needed()].copy()
    mdp.mean_len = lengths_B.mean()
    return in_order(played, lengths_B)


def sample_trajectories(
    actor: AnyActor, mdp: MDP, num_trajs: int, max_traj_len: int | None, key: tuple, deterministic: bool = False,
    sim_batch_size: int | None = None, max_envs: int | None = None,
) -> TrajBatch:  # fmt: skip
    """Exactly num_trajs trajectories, in the order in which they were started; the other arguments as in SimConfig."""
    return sample_batch(actor, mdp, SimConfig(num_trajs, 0, max_traj_len, sim_batch_size, max_envs), key, deterministic)


def sample_randomly(mdp: MDP, num_trajs: int, seed: int, max_traj_len: int | None = None, a_max: float | None = None) -> TrajBatch:
    """Exactly num_trajs episodes of the random policy (RandomActor), in the order in which they were started."""
    return sample_trajectories(RandomActor(mdp.info, a_max), mdp, num_trajs, max_traj_len, (seed, 'evaluate'))
