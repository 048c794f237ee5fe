"""Tasks and the sampling of trajectories with them.

Sampling is a pure function of (seed, stream, policy): trajectories are numbered, trajectory i has its own random stream and
environment seed, and a batch is the shortest prefix of the numbering that fills both quotas, exactly the one-after-the-other
rule of 2016, whatever ran at the same time.

Letters: B trajectories, K environments stepped at once, N stacked rows, Do, Da, Pa as in LEGACY: observation, action, distribution dims.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from environments import rlgymenv
from policyopt.trajectories import ContinuousSpace, FiniteSpace, TrajBatch
from policyopt.util import RunFailed, UserError

MAX_SLOTS = 256  # environments stepped at once, at most
NOISE_CHUNK = 256  # steps of action noise drawn ahead


@dataclass(frozen=True)
class SimConfig:
    """Quotas of a batch: at least min_num_trajs trajectories and at least min_total_sa pairs, each at most max_traj_len steps.

    sim_batch_size: 1 is one process (LEGACY); None lets several environments run in worker processes where that pays.
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
        self.env_name, self.env_id, self.time_limit = env_name, info.id, info.time_limit
        self.obs_space = ContinuousSpace(info.obs_dim)
        self.action_space = FiniteSpace(info.num_actions) if info.finite else ContinuousSpace(info.a_dim)
        self._vec = None
        self.mean_len = None  # of the last batch: a hint for how many environments to step at once, never a result

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

    def close(self):
        if self._vec is not None:
            self._vec.close()
            self._vec = None


class _Streams:
    """Trajectory i's own environment seed and action noise, from a counter-based generator keyed by (seed, stream)."""

    def __init__(self, key):
        self.key = np.frombuffer(hashlib.sha256(repr(tuple(key)).encode()).digest()[:16], dtype=np.uint64)

    def of(self, i):
        return np.random.Generator(np.random.Philox(key=self.key, counter=[0, 0, 0, i]))


def sample_batch(actor, mdp, cfg, key, deterministic=False):
    """Sample the shortest prefix of numbered trajectories that fills both quotas of cfg.

    Args:
        actor: numpy policy with adist(obs_B_Do), noise(rng, num), act(adist, noise).
        key: (seed, stream name or iteration): names the randomness.
    Returns a TrajBatch. Raises RunFailed when the environment fails or returns what it should not.
    """
    mean_len = mdp.mean_len or cfg.max_traj_len
    want = max(cfg.min_num_trajs, -(-cfg.min_total_sa // max(int(mean_len), 1)))
    rollout = _Rollout(actor, mdp, cfg, _Streams(key), min(want, MAX_SLOTS), deterministic)
    batch = rollout.run()
    mdp.mean_len = batch.lengths.mean()
    return batch


def sample_trajectories(actor, mdp, num_trajs, max_traj_len, key, deterministic=False):
    """Exactly num_trajs trajectories, in the order in which they were started."""
    return sample_batch(actor, mdp, SimConfig(num_trajs, 0, max_traj_len), key, deterministic)


class _Rollout:
    """Slots of environments stepped together; each slot that ends takes the next trajectory number while more are needed."""

    def __init__(self, actor, mdp, cfg, streams, num_slots, deterministic):
        self.actor, self.mdp, self.cfg, self.streams, self.deterministic = actor, mdp, cfg, streams, deterministic
        self.vec = mdp.vec_env(num_slots)
        self.num_slots = num_slots
        self.len_B = np.zeros(0, dtype=np.int64)  # steps so far of every started trajectory
        self.rows = []  # per call of step: (traj_K, t_K, obs, adist, a, r)

    def needed(self):
        """How many trajectories can still belong to the batch: the shortest prefix that fills the quotas with the steps so far."""
        cum_B = np.cumsum(self.len_B)
        if self.cfg.min_total_sa > 0:
            by_pairs = int(np.searchsorted(cum_B, self.cfg.min_total_sa)) + 1
            if by_pairs > len(cum_B):
                return np.inf
        else:
            by_pairs = 0
        return max(self.cfg.min_num_trajs, by_pairs)

    def start(self, slots_K):
        """Reset these slots with the next trajectory numbers; returns (traj_K, obs_K_Do) and keeps their noise."""
        first = len(self.len_B)
        traj_K = np.arange(first, first + len(slots_K))
        self.len_B = np.concatenate([self.len_B, np.zeros(len(slots_K), dtype=np.int64)])
        rngs = [self.streams.of(int(i)) for i in traj_K]
        seeds_K = [int(rng.integers(2**31)) for rng in rngs]
        for slot, rng in zip(slots_K, rngs, strict=True):
            self.rngs[slot] = rng
        try:
            obs_K_Do = self.vec.reset(slots_K, seeds_K)
        except rlgymenv.BadEnvironment as e:
            raise RunFailed(str(e)) from e
        return traj_K, self.checked_obs(obs_K_Do, len(slots_K), 'on reset')

    def checked_obs(self, obs_K_Do, num, when):
        if obs_K_Do.shape != (num, self.mdp.obs_space.dim) or not np.isfinite(obs_K_Do).all():
            what = f'shape {obs_K_Do.shape}' if obs_K_Do.shape != (num, self.mdp.obs_space.dim) else 'NaN or infinity'
            raise RunFailed(
                f"env '{self.mdp.env_name}' returned {what} as an observation {when}; expected {self.mdp.obs_space.dim} finite numbers"
            )
        return obs_K_Do

    def refill_noise(self, slots_K, t_K):
        """Draw the next chunk of noise for slots that have used theirs up."""
        if self.deterministic:
            return
        chunk = self.noise.shape[1]
        for slot in slots_K[t_K % chunk == 0]:
            self.noise[slot] = self.actor.noise(self.rngs[slot], chunk)

    def run(self):
        num = self.num_slots
        self.rngs = [None] * num
        chunk = min(NOISE_CHUNK, self.cfg.max_traj_len)
        if not self.deterministic:
            self.noise = np.empty((num, chunk, self.actor.num_noise))
        slots_K, t_K = np.arange(num), np.zeros(num, dtype=np.int64)
        traj_K, obs_K_Do = self.start(slots_K)
        self.refill_noise(slots_K, t_K)
        while len(slots_K):
            adist_K_Pa = self.actor.adist(obs_K_Do)
            a_K_Da = self.actor.act(adist_K_Pa, None if self.deterministic else self.noise[slots_K, t_K % chunk])
            next_obs_K_Do, r_K, done_K = self.step_env(slots_K, a_K_Da, t_K)
            self.rows.append((traj_K, t_K, obs_K_Do, adist_K_Pa, a_K_Da, r_K))
            obs_K_Do, t_K = next_obs_K_Do, t_K + 1
            self.len_B[traj_K] = t_K
            done_K = done_K | (t_K >= self.cfg.max_traj_len)
            if done_K.any():
                slots_K, t_K, traj_K, obs_K_Do = self.restart(slots_K, t_K, traj_K, obs_K_Do, done_K)
            if not self.deterministic and len(t_K) and not (t_K % chunk).all():
                self.refill_noise(slots_K, t_K)
        return self.collect()

    def step_env(self, slots_K, a_K_Da, t_K):
        try:
            obs_K_Do, r_K, done_K = self.vec.step(slots_K, a_K_Da)
        except rlgymenv.BadEnvironment as e:
            raise RunFailed(str(e)) from e
        self.checked_obs(obs_K_Do, len(slots_K), f'at step {int(t_K.max())}')
        if not np.isfinite(r_K).all():
            raise RunFailed(
                f"env '{self.mdp.env_name}' returned NaN or infinity as a reward at step {int(t_K.max())}; expected finite numbers"
            )
        return obs_K_Do, r_K, done_K

    def restart(self, slots_K, t_K, traj_K, obs_K_Do, done_K):
        """Give ended slots the next trajectories while more are needed; drop the others and trajectories beyond the prefix."""
        needed = self.needed()
        keep = ~done_K & (traj_K < needed)
        free = slots_K[done_K][: max(0, int(min(needed - len(self.len_B), len(slots_K))))]
        slots_K, t_K, traj_K, obs_K_Do = slots_K[keep], t_K[keep], traj_K[keep], obs_K_Do[keep]
        if len(free):
            new_traj, new_obs = self.start(free)
            slots_K, traj_K = np.concatenate([slots_K, free]), np.concatenate([traj_K, new_traj])
            t_K, obs_K_Do = np.concatenate([t_K, np.zeros(len(free), dtype=np.int64)]), np.concatenate([obs_K_Do, new_obs])
            order = np.argsort(slots_K)
            slots_K, t_K, traj_K, obs_K_Do = slots_K[order], t_K[order], traj_K[order], obs_K_Do[order]
        return slots_K, t_K, traj_K, obs_K_Do

    def collect(self):
        """The rows of the batch's trajectories in the order of (trajectory, time)."""
        num = int(self.needed())
        len_B = self.len_B[:num]
        starts_B = np.cumsum(len_B) - len_B
        traj_R, t_R, *fields = (np.concatenate(column) for column in zip(*self.rows, strict=True))
        kept = traj_R < num
        dest = starts_B[traj_R[kept]] + t_R[kept]
        stacked = []
        for field in fields:
            out = np.empty((len(dest), *field.shape[1:]), dtype=field.dtype)
            out[dest] = field[kept]
            stacked.append(out)
        obs_N_Do, adist_N_Pa, a_N_Da, r_N = stacked
        return TrajBatch(obs_N_Do, adist_N_Pa, a_N_Da, r_N, len_B)
