"""Trajectory files: the demonstrations of experts, in HDF5.

Letters: B trajectories, T time, N stacked rows, Do observation dim, Da action storage dim.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import tables

from policyopt.arguments import as_path, check_shapes, kind_of
from policyopt.errors import UserError
from policyopt.files.ends import Episode, shaped
from policyopt.files.hdf5 import attr_text, numbers, open_h5, set_attrs, write_h5
from policyopt.shipped import as_typed
from policyopt.trajectories import LARGEST_OBS, TrajBatch

MAX_RETURN = 1e100  # absolute value; the square of a sum of such numbers is still finite


def save_trajs(path: str, trajs: TrajBatch, attrs: Mapping[str, Any], replace: bool = False) -> None:
    """Write expert trajectories: gzip datasets obs_B_T_Do, a_B_T_Da, r_B_T (right-padded with 0) and len_B (int32).

    If known, lastobs_B_Do and terminal_B (uint8) are written too, which files of 2016 do not have. Raises RunFailed where the file
    exists, unless `replace`.
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


def foreign_kind(source: str) -> str | None:
    """'folder', 'npz', 'csv' or 'minari' (an id such as cartpole/expert-v0): what scripts/import_trajs.py would convert. Otherwise None."""
    if os.path.isdir(source):
        return 'folder'
    if (suffix := str(source).lower()[-4:]) in ('.npz', '.csv'):
        return suffix[1:]
    is_id = re.fullmatch(r'([\w-]+/)*[\w-]+-v\d+', str(source), re.ASCII) and not os.path.exists(source)
    return 'minari' if is_id else None


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


def _converted_with(path: str) -> str:
    return f'are converted with: {as_typed(f"import_trajs.py {shlex.quote(str(path))} trajs.h5")}'


def load_trajs(path: str, limit_trajs: int | None = None) -> TrajBatch:
    """Read the first `limit_trajs` trajectories (all if None) of a trajectory file; adist is empty (Pa = 0).

    Raises UserError, which names the file, where a dataset is missing or holds no numbers, where shapes disagree, for lengths outside
    1..T, for NaN and infinity, and where there is no trajectory or fewer than `limit_trajs`.
    """
    path = as_path(path)
    if limit_trajs is not None and not isinstance(limit_trajs, int | np.integer):
        raise UserError(f'limit_trajs is {kind_of(limit_trajs)}; expected a whole number')
    if foreign_kind(path):
        raise UserError(f'{path}: not a trajectory file (.h5); demonstrations of another kind {_converted_with(path)}')
    with open_h5(path, 'an expert trajectory file (obs_B_T_Do, a_B_T_Da, r_B_T, len_B)') as h5:
        missing = [n for n in ARRAYS if f'/{n}' not in h5]
        if missing and layout_of_h5(h5) in ('d4rl', 'robomimic'):
            raise UserError(f'{path}: demonstrations of another layout, as of {layout_of_h5(h5)}, {_converted_with(path)}')
        if missing:
            raise UserError(f'{path}: lacks the dataset {missing[0]}; a trajectory file holds obs_B_T_Do, a_B_T_Da, r_B_T and len_B')
        ends = ('lastobs_B_Do', 'terminal_B') if '/lastobs_B_Do' in h5 and '/terminal_B' in h5 else ()
        arrays = {n: numbers(h5, n, 'an expert trajectory file') for n in (*ARRAYS, *ends)}
        env_name = attr_text(h5.root, 'env_name')
    try:
        check_shapes(**arrays)
    except UserError as e:
        raise UserError(f'{path}: {e}') from e
    num_B, max_T = arrays['r_B_T'].shape
    if limit_trajs is not None and not 1 <= limit_trajs <= num_B:
        raise UserError(f'{path}: holds {num_B} trajectories, but limit_trajs is {limit_trajs}; give 1 to {num_B}')
    obs_B_T_Do, a_B_T_Da, r_B_T, len_B, *ends = (x[:limit_trajs] for x in arrays.values())
    bad = np.flatnonzero(~((len_B >= 1) & (len_B <= max_T) & (len_B % 1 == 0)))  # written so that NaN is bad too
    if len(bad):
        raise UserError(f'{path}: len_B[{bad[0]}] is {len_B[bad[0]]}; lengths must be whole, 1 to {max_T} (the time axis of r_B_T)')
    if ends and not np.isin(ends[1], (0, 1)).all():
        raise UserError(f'{path}: terminal_B holds other things than 0 and 1; expected 1 where a trajectory ended in a terminal state')
    episodes = []
    for i, num in enumerate(len_B.astype(int).tolist()):
        obs = np.concatenate([obs_B_T_Do[i, :num], ends[0][i : i + 1]]) if ends else obs_B_T_Do[i, :num]
        terminated = bool(ends[1][i]) if ends else None
        episodes.append(Episode(f'{path}: trajectory {i}', obs, a_B_T_Da[i, :num], r_B_T[i, :num], terminated))
    trajs = batch_of(episodes, path)
    trajs.env_name = env_name
    return trajs


def batch_of(episodes: list[Episode], source: str) -> TrajBatch:
    """Check episodes and put them together into a TrajBatch; missing rewards are 0.

    lastobs and terminal are kept if each episode either terminated, or was truncated and holds the observation after its last action.
    Raises UserError for episodes of different tasks, for NaN and infinity, and where returns or observations are too large for a mean of
    their squares.
    """
    if not episodes:
        raise UserError(f'{source}: holds no trajectory')
    checked: list[Any] = [_checked(episode) for episode in episodes]
    for i, name in enumerate(('observation', 'action')):
        sizes = [e[i].shape[1] for e in checked]
        other = next((j for j, size in enumerate(sizes) if size != sizes[0]), None)
        if other is not None:
            seen = f'{sizes[other]} {name} dims, but {sizes[0]} in {episodes[0].where}'
            raise UserError(f'{episodes[other].where}: {seen}; expected one task')
    if any(e.rews is None for e in episodes):
        print(f'{source}: no rewards; 0 is stored (they are only reported, never learned from)', file=sys.stderr)
    obs_N_Do, a_N_Da, r_N = (np.concatenate([e[k] for e in checked]) for k in range(3))
    trajs = TrajBatch(obs_N_Do, np.zeros((len(r_N), 0)), a_N_Da, r_N, [len(e[2]) for e in checked])
    last = [e[3] for e in checked]
    if all(e.terminated or (e.terminated is False and x is not None) for e, x in zip(episodes, last, strict=True)):
        nothing = np.zeros(obs_N_Do.shape[1])
        trajs.lastobs_B_Do = np.array([nothing if x is None else x for x in last])
        trajs.terminal_B = np.array([bool(e.terminated) for e in episodes])
    with np.errstate(over='ignore'):
        returns = trajs.returns
    for name, x, most in (
        ('the return of trajectory', returns, MAX_RETURN),
        ('the observation of step', trajs.obs.stacked, LARGEST_OBS),
    ):
        sizes = np.abs(x).reshape(len(x), -1).max(axis=1, initial=0)
        bad = np.flatnonzero(~(sizes < most))
        if len(bad):
            seen = f'{name} {bad[0]} is {sizes[bad[0]]:.3g} in size'
            raise UserError(f'{source}: {seen}; expected less than {most:g}, whose squares have a mean')
    return trajs


def _checked(episode: Episode) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """(obs_T_Do, a_T_Da, r_T, lastobs_Do or None) of one episode, of finite numbers."""
    obs, a_T_Da, r_T = shaped(episode)
    num = len(a_T_Da)
    if a_T_Da.dtype.kind == 'u' and a_T_Da.max() > np.iinfo(np.int64).max:
        raise UserError(f'{episode.where}: actions: {a_T_Da.max()} is among them; expected integers below 2^63')
    whole = a_T_Da.dtype.kind in 'biu' and a_T_Da.shape[1] == 1
    with np.errstate(over='ignore'):  # a longdouble beyond float64 becomes infinite, and is refused below
        obs, r_T = obs.astype(np.float64, copy=False), r_T.astype(np.float64, copy=False)
        a_T_Da = a_T_Da.astype(np.int64 if whole else np.float64, copy=False)
    for name, x in (('observations', obs), ('actions', a_T_Da), ('rewards', r_T)):
        if not np.isfinite(x).all():
            row = int(np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(axis=1))[0])
            place = f'among the {name} of step {row}' if row < num else 'in the observation after the last action'
            raise UserError(f'{episode.where}: NaN or infinity {place}; expected finite numbers')
    return obs[:num], a_T_Da, r_T, obs[num] if len(obs) > num else None
