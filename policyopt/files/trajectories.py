"""Spaces, trajectories of different lengths, and the files that hold them.

Letters: B trajectories, T time, N stacked rows, Do observation dim, Df feature dim, Da action storage dim, Pa distribution parameters.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tables

from policyopt.arguments import as_array
from policyopt.files.h5files import attr_text, open_h5, set_attrs, write_h5
from policyopt.util import UserError, as_typed, check_shapes

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import ArrayLike

    from environments.rlgymenv import EnvInfo


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


@dataclass
class Trajectory:
    """One episode; the observation at t is the one that the action at t was chosen from, the last one is not stored."""

    obs_T_Do: np.ndarray
    obsfeat_T_Df: np.ndarray
    adist_T_Pa: np.ndarray
    a_T_Da: np.ndarray
    r_T: np.ndarray

    def __len__(self) -> int:
        return len(self.r_T)


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

    def like(self, stacked: np.ndarray) -> RaggedArray:
        """Other rows with the same lengths."""
        return RaggedArray(stacked, self.lengths)


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
        self.adist, self.a, self.r = (self.obs.like(x) for x in (adist_N_Pa, a_N_Da, r_N))
        if time_N is None:
            starts_B = self.obs.ends - self.obs.lengths
            time_N = np.arange(len(r_N), dtype=np.float64) - np.repeat(starts_B, self.obs.lengths)
        self.time = self.obs.like(time_N)

    @classmethod
    def from_trajs(cls, trajs: Sequence[Trajectory]) -> Self:
        obs, adist, a, r = (np.concatenate([getattr(t, f) for t in trajs]) for f in ('obs_T_Do', 'adist_T_Pa', 'a_T_Da', 'r_T'))
        return cls(obs, adist, a, r, [len(t) for t in trajs])

    def __len__(self) -> int:
        return len(self.obs)

    def __iter__(self) -> Iterator[Trajectory]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> Trajectory:
        return Trajectory(self.obs[i], self.obsfeat[i], self.adist[i], self.a[i], self.r[i])

    def first(self, num: int) -> TrajBatch:
        """The first `num` trajectories."""
        rows = slice(int(self.obs.ends[num - 1]) if num else 0)
        fields = (x.stacked[rows] for x in (self.obs, self.adist, self.a, self.r))
        some = TrajBatch(*fields, lengths_B=self.lengths[:num], time_N=self.time.stacked[rows])
        some.env_name = self.env_name
        if self.lastobs_B_Do is not None and self.terminal_B is not None:
            some.lastobs_B_Do, some.terminal_B = self.lastobs_B_Do[:num], self.terminal_B[:num]
        return some

    def take_whole_actions(self, info: EnvInfo) -> None:
        """Make actions 0.0, 1.0, … of a finite space the integers that they are."""
        a_N_Da = self.a.stacked
        if info.finite and a_N_Da.dtype.kind == 'f' and (a_N_Da == np.rint(a_N_Da)).all() and np.abs(a_N_Da).max(initial=0) < 2**53:
            self.a.stacked = a_N_Da.astype(np.int64)

    def misfit(self, info: EnvInfo) -> str | None:
        """Why the batch cannot come from a task, as the middle of a sentence; None when it can."""
        a_N_Da = self.a.stacked
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


def numbers(x: Any, what: str) -> np.ndarray:
    """Anything array-like as a float64 array; raises UserError, which calls it `what`, unless it holds finite numbers."""
    x = as_array(x, what)
    if x.dtype.kind not in 'biuf':
        raise UserError(f'{what} is of type {x.dtype}; expected numbers')
    if not np.isfinite(x).all():
        raise UserError(f'{what} holds NaN or infinity; expected finite numbers')
    return x.astype(np.float64)


def save_trajs(path: str, trajs: TrajBatch, attrs: Mapping[str, Any], replace: bool = False) -> None:
    """Write expert trajectories: gzip datasets obs_B_T_Do, a_B_T_Da, r_B_T (right-padded with 0) and len_B (int32).

    Where they are known also lastobs_B_Do and terminal_B (uint8), which the original did not keep. Raises RunFailed where the file exists,
    unless it is to be replaced.
    """
    filters = tables.Filters(complevel=4, complib='zlib', fletcher32=True)
    arrays = {'obs_B_T_Do': trajs.obs.padded(), 'a_B_T_Da': trajs.a.padded(0), 'r_B_T': trajs.r.padded()}
    arrays['len_B'] = trajs.lengths.astype(np.int32)
    if trajs.lastobs_B_Do is not None and trajs.terminal_B is not None:
        arrays |= {'lastobs_B_Do': trajs.lastobs_B_Do, 'terminal_B': trajs.terminal_B.astype(np.uint8)}
    with write_h5(path, replace) as h5:
        for name, array in arrays.items():
            h5.create_carray('/', name, obj=array, filters=filters)
        set_attrs(h5.root, attrs)


def check_int64(what: str, x: np.ndarray) -> None:
    """Raise UserError for unsigned integers that would become negative as signed ones."""
    if x.dtype.kind == 'u' and x.size and x.max() > np.iinfo(np.int64).max:
        raise UserError(f'{what}: {x.max()} is among them; expected integers below 2^63')


def foreign_kind(source: str) -> str | None:
    """'folder', 'npz' or 'minari' (an id such as cartpole/expert-v0) of demonstrations that scripts/import_trajs.py converts; else None."""
    if os.path.isdir(source):
        return 'folder'
    if str(source).lower().endswith('.npz'):
        return 'npz'
    is_id = re.fullmatch(r'([\w-]+/)*[\w-]+-v\d+', str(source), re.ASCII) and not os.path.exists(source)
    return 'minari' if is_id else None


def _converted_with(path: str) -> str:
    return f'are converted with: {as_typed(f"import_trajs.py {shlex.quote(str(path))} trajs.h5")}'


ARRAYS = ('obs_B_T_Do', 'a_B_T_Da', 'r_B_T', 'len_B')


def layout_of_h5(h5: Any) -> str:
    """What an open HDF5 file holds: 'trajectories' (ours and those of 2016), 'd4rl', 'robomimic', 'minari', 'run', 'results' or 'other'."""
    names = h5.root._v_children
    if all(name in names for name in ARRAYS):
        return 'trajectories'
    if names.keys() & {'observations', 'obs', 'states'} and names.keys() & {'actions', 'acts', 'acs'}:
        return 'd4rl'
    for layout, name in (('run', 'log'), ('run', 'snapshots'), ('results', 'results'), ('minari', 'episode_0'), ('robomimic', 'data')):
        if name in names:
            return layout
    return 'other'


def load_trajs(path: str, limit_trajs: int | None = None) -> TrajBatch:
    """Read the first `limit_trajs` trajectories (all if None) of a trajectory file; adist is empty (Pa = 0).

    Raises UserError, naming the file: missing datasets, other things than numbers, shapes that disagree, lengths outside 1..T,
    NaN or infinite values, no trajectory, or fewer than `limit_trajs`.
    """
    if foreign_kind(path):
        raise UserError(f'{path}: not a trajectory file (.h5); demonstrations of another kind {_converted_with(path)}')
    with open_h5(path, 'an expert trajectory file (obs_B_T_Do, a_B_T_Da, r_B_T, len_B)') as h5:
        missing = [n for n in ARRAYS if f'/{n}' not in h5]
        if missing and layout_of_h5(h5) in ('d4rl', 'robomimic'):
            raise UserError(f'{path}: demonstrations of another layout, as of {layout_of_h5(h5)}, {_converted_with(path)}')
        if missing:
            raise UserError(f'{path}: lacks the dataset {missing[0]}; a trajectory file holds obs_B_T_Do, a_B_T_Da, r_B_T and len_B')
        ends = ('lastobs_B_Do', 'terminal_B') if '/lastobs_B_Do' in h5 and '/terminal_B' in h5 else ()
        nodes = {n: h5.get_node(f'/{n}') for n in (*ARRAYS, *ends)}
        for name, node in nodes.items():
            if not isinstance(node, tables.Array) or node.dtype.kind not in 'biuf':
                raise UserError(f'{path}: {name} is not an array of numbers; expected an expert trajectory file')
        arrays = {name: node.read() for name, node in nodes.items()}
        env_name = attr_text(h5.root, 'env_name')
    try:
        check_shapes(**arrays)
    except UserError as e:
        raise UserError(f'{path}: {e}') from e
    num_B, max_T = arrays['r_B_T'].shape
    if num_B == 0:
        raise UserError(f'{path}: holds no trajectory')
    if limit_trajs is not None:
        if not 1 <= limit_trajs <= num_B:
            raise UserError(f'{path}: holds {num_B} trajectories, but limit_trajs is {limit_trajs}; give 1 to {num_B}')
        arrays = {name: x[:limit_trajs] for name, x in arrays.items()}
    obs_B_T_Do, a_B_T_Da, r_B_T, len_B, *ends = arrays.values()
    bad = np.flatnonzero(~((len_B >= 1) & (len_B <= max_T) & (len_B % 1 == 0)))  # this way round, NaN is bad too
    if len(bad):
        raise UserError(f'{path}: len_B[{bad[0]}] is {len_B[bad[0]]}; lengths must be whole, 1 to {max_T} (the time axis of r_B_T)')
    mask_B_T = np.arange(max_T) < len_B[:, None]
    check_int64(f'{path}: a_B_T_Da', a_B_T_Da)
    a_type = np.int64 if np.issubdtype(a_B_T_Da.dtype, np.integer) else np.float64
    obs_N_Do, a_N_Da, r_N = obs_B_T_Do[mask_B_T].astype(np.float64), a_B_T_Da[mask_B_T].astype(a_type), r_B_T[mask_B_T].astype(np.float64)
    for name, x in (('obs_B_T_Do', obs_N_Do), ('a_B_T_Da', a_N_Da), ('r_B_T', r_N)):
        if not np.isfinite(x).all():
            row = int(np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(axis=1))[0])
            traj = int(np.searchsorted(np.cumsum(len_B), row, side='right'))
            raise UserError(f'{path}: {name} holds NaN or infinity in trajectory {traj}; trajectories must be finite numbers')
    trajs = TrajBatch(obs_N_Do, np.zeros((len(r_N), 0)), a_N_Da, r_N, len_B)
    trajs.env_name = env_name
    if ends:
        if not np.isfinite(ends[0]).all():
            raise UserError(f'{path}: lastobs_B_Do holds NaN or infinity; trajectories must be finite numbers')
        trajs.lastobs_B_Do, trajs.terminal_B = ends[0].astype(np.float64), ends[1] != 0
    return trajs


def subsample(trajs: TrajBatch, data_subsamp_freq: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """From trajectory i every `data_subsamp_freq`-th step starting at start_B[i] (as in 2016: drawn once, from RandomState(0)).

    Returns (obs_N_Do, a_N_Da, time_N, start_B): the kept pairs with their true time indices. A trajectory shorter than its
    start contributes nothing. Raises UserError when nothing is kept.
    """
    rows_N, start_B = subsampled_rows(trajs, data_subsamp_freq)
    return trajs.obs.stacked[rows_N], trajs.a.stacked[rows_N], trajs.time.stacked[rows_N], start_B


def subsampled_rows(trajs: TrajBatch, data_subsamp_freq: int) -> tuple[np.ndarray, np.ndarray]:
    """(numbers of the rows that `subsample` keeps, start_B)."""
    if data_subsamp_freq < 1:
        raise UserError(f'data_subsamp_freq is {data_subsamp_freq}; give 1 or more')
    start_B = np.random.RandomState(0).randint(0, data_subsamp_freq, size=len(trajs))
    rows_N = np.concatenate([
        np.arange(end - n + start, end, data_subsamp_freq)
        for end, n, start in zip(trajs.obs.ends, trajs.lengths, start_B, strict=True)
    ])  # fmt: skip
    if not len(rows_N):
        raise UserError(f'data_subsamp_freq {data_subsamp_freq} keeps no pair: every trajectory is shorter than its start; lower it')
    return rows_N, start_B
