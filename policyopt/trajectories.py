"""The data of training: spaces, trajectories of different lengths, expert pairs, transitions. Nothing here reads files.

Letters: B trajectories, T time, N stacked rows, Do observation dim, Df feature dim, Da action storage dim, Pa distribution parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from policyopt.arguments import as_integer, check_shapes
from policyopt.errors import UserError

if TYPE_CHECKING:
    from typing import Self

    from policyopt.environments.rlgymenv import EnvInfo


LARGEST_OBS = 1e150  # observations that are not smaller cannot be normalised: float64 does not hold the mean of such squares


@dataclass(frozen=True)
class FiniteSpace:
    """`size` alternatives, stored as one integer."""

    size: int
    storage_size = 1
    storage_type = np.int64


@dataclass(frozen=True)
class ContinuousSpace:
    """A vector of `dim` floats."""

    dim: int
    storage_type = np.float64

    @property
    def storage_size(self) -> int:
        return self.dim


Space = FiniteSpace | ContinuousSpace


@dataclass(repr=False)
class Trajectory:
    """One episode; the observation at t is the one that the action at t was chosen from, the last one is not stored."""

    obs_T_Do: np.ndarray
    obsfeat_T_Df: np.ndarray
    adist_T_Pa: np.ndarray
    a_T_Da: np.ndarray
    r_T: np.ndarray

    def __len__(self) -> int:
        return len(self.r_T)

    def __repr__(self) -> str:
        return f'<Trajectory: {len(self)} steps, return {self.r_T.sum():.4g}>'


class RaggedArray:
    """Arrays that differ in length only, kept as one stack of rows.

    stacked: (N, …), lengths: (B,) with sum N. `[i]` is a view of the i-th array.
    """

    def __init__(self, stacked: np.ndarray, lengths: ArrayLike):
        self.stacked, self.lengths = stacked, np.asarray(lengths, dtype=np.int64)
        if len(stacked) != self.lengths.sum():
            raise UserError(f'a ragged array of {len(stacked)} rows cannot have lengths that sum to {self.lengths.sum()}')
        self.ends = np.cumsum(self.lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> np.ndarray:
        end = self.ends[i]
        return self.stacked[end - self.lengths[i] : end]

    @property
    def mask_B_T(self) -> np.ndarray:
        """True where `padded` holds data."""
        return np.arange(self.lengths.max(initial=0)) < self.lengths[:, None]

    def padded(self, fill: float = 0.0) -> np.ndarray:
        """(B, max T, …), filled up on the right."""
        out = np.full((len(self), self.lengths.max(initial=0), *self.stacked.shape[1:]), fill, dtype=self.stacked.dtype)
        out[self.mask_B_T] = self.stacked
        return out

    def sums(self) -> np.ndarray:
        """The sum of each array of numbers, (B,)."""
        return np.add.reduceat(self.stacked, self.ends - self.lengths) if len(self) else np.zeros(0)

    def with_rows(self, stacked: np.ndarray) -> RaggedArray:
        """Other rows with the same lengths."""
        return RaggedArray(stacked, self.lengths)


class Transitions(NamedTuple):
    """What a reward with `uses_transitions` sees in addition to pairs, a row for each."""

    nextobs_B_Do: np.ndarray
    terminal_B: np.ndarray  # bool: whether the next observation is that of a terminal state, which a time limit is not
    logp_B: np.ndarray  # log π(a|s) under the policy that played the batch, for expert pairs too


class Batch(NamedTuple):
    """Pairs with their times, and for a reward that uses transitions what follows them: what a reward function is given."""

    obs_B_Do: np.ndarray
    a_B_Da: np.ndarray
    t_B: np.ndarray
    transitions: Transitions | None = None

    def rows(self, which: Any) -> Batch:
        transitions = None if self.transitions is None else Transitions(*(x[which] for x in self.transitions))
        return Batch(self.obs_B_Do[which], self.a_B_Da[which], self.t_B[which], transitions)

    def followed_by(self, other: Batch) -> Batch:
        """These rows and then those of another batch of the same kind."""
        transitions = None
        if self.transitions is not None and other.transitions is not None:
            transitions = Transitions(*map(np.concatenate, zip(self.transitions, other.transitions, strict=True)))
        obs_B_Do, a_B_Da = np.concatenate([self.obs_B_Do, other.obs_B_Do]), np.concatenate([self.a_B_Da, other.a_B_Da])
        return Batch(obs_B_Do, a_B_Da, np.concatenate([self.t_B, other.t_B]), transitions)


class Expert(NamedTuple):
    """Expert pairs, and for a reward that uses transitions what follows them.

    ended: (steps from terminal states to the horizon, all steps to the horizon) of its trajectories.
    """

    obs_N_Do: np.ndarray
    a_N_Da: np.ndarray
    time_N: np.ndarray
    nextobs_N_Do: np.ndarray | None = None
    terminal_N: np.ndarray | None = None
    ended: tuple[float, float] = (0.0, 0.0)

    @property
    def pairs(self) -> Batch:
        return Batch(self.obs_N_Do, self.a_N_Da, self.time_N)


class TrajBatch:
    """A batch of trajectories: one RaggedArray a field, and `time` (0, 1, 2, … as float).

    obs_N_Do, adist_N_Pa, a_N_Da, r_N are stacked in the order of the trajectories; lengths_B says where each ends.
    The observation features are the observations themselves. env_name: the task that a file says it holds, else None.
    lastobs_B_Do: what the last action led to; terminal_B: whether that is a terminal state, and not a time limit. None: not known.
    """

    env_name: str | None = None
    lastobs_B_Do: np.ndarray | None = None
    terminal_B: np.ndarray | None = None

    def __init__(
        self,
        obs_N_Do: np.ndarray,
        adist_N_Pa: np.ndarray,
        a_N_Da: np.ndarray,
        r_N: np.ndarray,
        lengths_B: ArrayLike,
        time_N: np.ndarray | None = None,
    ):
        check_shapes(obs_N_Do=obs_N_Do, adist_N_Pa=adist_N_Pa, a_N_Da=a_N_Da, r_N=r_N)
        self.obs = RaggedArray(obs_N_Do, lengths_B)
        self.obsfeat = self.obs
        self.adist, self.a, self.r = (self.obs.with_rows(x) for x in (adist_N_Pa, a_N_Da, r_N))
        if time_N is None:
            starts_B = self.obs.ends - self.obs.lengths
            time_N = np.arange(len(r_N), dtype=np.float64) - np.repeat(starts_B, self.obs.lengths)
        self.time = self.obs.with_rows(time_N)

    @classmethod
    def from_trajs(cls, trajs: Sequence[Trajectory]) -> Self:
        obs, adist, a, r = (np.concatenate([getattr(t, f) for t in trajs]) for f in ('obs_T_Do', 'adist_T_Pa', 'a_T_Da', 'r_T'))
        return cls(obs, adist, a, r, [len(t) for t in trajs])

    def __len__(self) -> int:
        return len(self.obs)

    def __iter__(self) -> Iterator[Trajectory]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: Any) -> Any:
        """Trajectory i, or of a slice a batch of those trajectories."""
        if isinstance(i, slice):
            chosen = np.arange(len(self))[i]
            spans = [np.arange(end - num, end) for end, num in zip(self.obs.ends[chosen], self.lengths[chosen], strict=True)]
            return self._part(chosen, np.concatenate([np.zeros(0, np.int64), *spans]))
        return Trajectory(self.obs[i], self.obsfeat[i], self.adist[i], self.a[i], self.r[i])

    def first(self, num: int) -> Self:
        """The first `num` trajectories, at least one, without copying their rows."""
        num = as_integer(num, 'num', 1, len(self))
        return self._part(slice(num), slice(int(self.obs.ends[num - 1])))

    def _part(self, chosen: np.ndarray | slice, rows: np.ndarray | slice) -> Self:
        """Some trajectories, which have these rows."""
        fields = (x.stacked[rows] for x in (self.obs, self.adist, self.a, self.r))
        some = type(self)(*fields, lengths_B=self.lengths[chosen], time_N=self.time.stacked[rows])
        some.env_name = self.env_name
        if self.lastobs_B_Do is not None and self.terminal_B is not None:
            some.lastobs_B_Do, some.terminal_B = self.lastobs_B_Do[chosen], self.terminal_B[chosen]
        return some

    def misfit(self, info: EnvInfo) -> str | None:
        """Why the batch cannot come from a task, as the middle of a sentence; None when it can.

        Actions 0.0, 1.0, … of a finite space become the integers that they are.
        """
        a_N_Da = self.a.stacked
        if info.finite and a_N_Da.dtype.kind == 'f' and (a_N_Da == np.rint(a_N_Da)).all() and np.abs(a_N_Da).max(initial=0) < 2**53:
            self.a.stacked = a_N_Da = a_N_Da.astype(np.int64)
        for name, num, takes in (('observation', self.obs.stacked.shape[1], info.obs_dim), ('action', a_N_Da.shape[1], info.a_dim)):
            if num != takes:
                return f"{num} {name} dims, but env '{info.name}' has {takes}"
        whole = a_N_Da.dtype.kind == 'i'
        if info.finite and not (whole and a_N_Da.min() >= 0 and a_N_Da.max() < info.num_actions):
            seen = f'{"whole" if whole else "decimal"} numbers from {a_N_Da.min()} to {a_N_Da.max()}'
            return f"actions that are {seen}, but env '{info.name}' takes integers from 0 to {info.num_actions - 1}"
        return None

    def successors(self, horizon: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(next_obs_N_Do, terminal_N, known_N): what each action led to, whether that is a terminal state, and whether it is known.

        Without lastobs_B_Do, trajectories shorter than `horizon` steps are taken to end in a terminal state, whose observation is
        then not needed (here: zeros), and the last step of the others has no known successor.
        """
        last_N = self.obs.ends - 1
        next_obs_N_Do = np.roll(self.obs.stacked, -1, axis=0)
        terminal_N, known_N = np.zeros(len(next_obs_N_Do), bool), np.ones(len(next_obs_N_Do), bool)
        if self.lastobs_B_Do is not None and self.terminal_B is not None:
            next_obs_N_Do[last_N], terminal_N[last_N] = self.lastobs_B_Do, self.terminal_B
        else:
            next_obs_N_Do[last_N], terminal_N[last_N], known_N[last_N] = 0, self.lengths < horizon, self.lengths < horizon
        return next_obs_N_Do, terminal_N, known_N

    @property
    def lengths(self) -> np.ndarray:
        return self.obs.lengths

    @property
    def returns(self) -> np.ndarray:
        """Undiscounted return of each trajectory, (B,)."""
        return self.r.sums()


def subsampled_rows(trajs: TrajBatch, data_subsamp_freq: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows_N, start_B): of trajectory i every `data_subsamp_freq`-th row, the first being start_B[i].

    As in 2016, starts are drawn once, from RandomState(0), and a trajectory shorter than its start contributes nothing.
    Raises UserError when nothing is kept.
    """
    if data_subsamp_freq < 1:
        raise UserError(f'data_subsamp_freq is {data_subsamp_freq}; give 1 or more')
    start_B = np.random.RandomState(0).randint(0, data_subsamp_freq, size=len(trajs))
    rows_N = np.flatnonzero(trajs.time.stacked % data_subsamp_freq == np.repeat(start_B, trajs.lengths))
    if not len(rows_N):
        raise UserError(f'data_subsamp_freq {data_subsamp_freq} keeps no pair: every trajectory is shorter than its start; lower it')
    return rows_N, start_B
