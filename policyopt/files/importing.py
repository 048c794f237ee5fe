"""Demonstrations from elsewhere become trajectory files: Minari data sets, .npz files, folders of CSV files; and Minari as the way out.

Nothing here is ever unpickled, since unpickling a file runs what its author wished.
Letters: B trajectories, T steps of one of them, N rows of all, Do observation dim, Da action dim.
"""

from __future__ import annotations

import csv
import os
import re
import sys
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policyopt.errors import UserError, printable
from policyopt.files import ends
from policyopt.files.ends import Episode
from policyopt.files.trajectory_file import check_int64, foreign_kind, save_trajs
from policyopt.provenance import provenance
from policyopt.trajectories import TrajBatch

NAMES = {  # what others call these arrays
    'obs': ('obs', 'observations', 'states'),
    'acts': ('acts', 'actions', 'acs'),
    'rews': ('rews', 'rewards'),
    'next_obs': ('next_obs', 'next_observations', 'next_states'),
}

_NO_NPZ = 'not a readable .npz file (damaged, or of another kind); numpy.savez makes one'


@dataclass
class Source:
    """What a source holds, as it was understood: its episodes, its format, which arrays were used and which were not, and notes."""

    format: str
    episodes: list[Episode]
    used: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    env_name: str | None = None


def read_source(source: str, download: bool = False, ends: str | None = None, time_axis: int | None = None) -> Source:
    """What a Minari data set, an .npz file or a folder of CSV files holds. Raises UserError for anything else.

    ends: the one array that says where episodes end, where several contradict each other. time_axis: 0 or 1, of arrays (., ., …) whose
    rows hold several episodes.
    """
    kind = foreign_kind(source)
    if kind == 'folder':
        return read_csvs(source, ends)
    if kind == 'npz':
        return read_npz(source, ends, time_axis)
    if kind == 'minari':
        return read_minari(source, download)
    seen = 'is a trajectory file already, which --data takes as it is' if str(source).endswith('.h5') else 'nothing that can be read'
    raise UserError(f'{source}: {seen}; expected a folder of CSV files, an .npz file, or a Minari id such as cartpole/expert-v0')


def import_trajs(
    source: str,
    out: str,
    env_name: str | None = None,
    download: bool = False,
    force: bool = False,
    ends: str | None = None,
    time_axis: int | None = None,
) -> tuple[TrajBatch, str | None]:
    """Convert demonstrations from elsewhere into the trajectory file `out`; returns (TrajBatch, the task that they name or None).

    Args:
        source: the id of a Minari data set, an .npz file, or a folder with one CSV file per episode.
        env_name: the task that the data belong to, instead of the one that the source names; the data must fit it, see `check_task`.
        download: fetch a Minari data set that is not on this computer.
        force: store a task that cannot be made here without comparing the data with it.
        ends, time_axis: see `read_source`.
    """
    if os.path.lexists(out):
        raise UserError(f'{out}: exists already, and finished data is never overwritten; choose another name')
    found = read_source(source, download, ends, time_axis)
    trajs = batch_of(found.episodes, source)
    if env_name:
        check_task(trajs, env_name, source, force)
    env_name = env_name or found.env_name
    print(described(found, trajs), file=sys.stderr)
    save_trajs(out, trajs, provenance() | {'source': source} | ({'env_name': env_name} if env_name else {}))
    return trajs, env_name


def described(found: Source, trajs: TrajBatch) -> str:
    """Lines that say what of a source was understood."""

    def spread(x: np.ndarray) -> str:
        return f'{x.min():.6g} to {x.max():.6g}, median {np.median(x):.6g}'

    ended = [e.terminated for e in found.episodes]
    kinds = [f'{ended.count(value)} {name}' for value, name in ((True, 'terminated'), (False, 'truncated'), (None, 'of unknown end'))]
    obs_N_Do, a_N_Da = trajs.obs.stacked, trajs.a.stacked
    action = f'integers {a_N_Da.min()} to {a_N_Da.max()}' if a_N_Da.dtype.kind == 'i' else f'{a_N_Da.shape[1]} numbers'
    kept = 'kept' if trajs.lastobs_B_Do is not None else 'not known'
    lines = [
        f'format: {found.format}',
        f'used: {", ".join(found.used)}',
        f'not used: {", ".join(found.unused) or "nothing"}',
        f'episodes: {len(trajs)} ({", ".join(kind for kind in kinds if not kind.startswith("0 "))}); after their last actions: {kept}',
        f'lengths: {spread(trajs.lengths)}; returns: {spread(trajs.returns)}',
        f'observations: {obs_N_Do.shape[1]} numbers, {obs_N_Do.min():.6g} to {obs_N_Do.max():.6g}; actions: {action}',
    ]
    return '\n'.join(map(printable, [*lines, *(f'note: {note}' for note in dict.fromkeys(found.notes))]))


def check_task(trajs: TrajBatch, env_name: str, what: str, force: bool = True) -> None:
    """Raise UserError, which calls the data `what`, where a task cannot have their observations or actions.

    To know, the task is made, and the module of package.module:EnvId imported. Where it cannot be made here, that is an error too,
    or with `force` a note. Actions 0.0 and 1.0 of a finite space become the integers that they are.
    """
    from policyopt.environments.rlgymenv import BadEnvironment, env_info

    try:
        info = env_info(env_name)
    except BadEnvironment as e:
        if not force:
            raise UserError(f'{what}: cannot be compared with its task: {e}; with --force it is stored as it is') from e
        print(printable(f'note: {what}: not compared with a task, because {e}'), file=sys.stderr)
        return
    trajs.take_whole_actions(info)
    if misfit := trajs.misfit(info):
        raise UserError(f'{what}: {misfit}; give data of this env, or name theirs')


def batch_of(episodes: list[Episode], source: str) -> TrajBatch:
    """The TrajBatch of episodes, checked; without rewards these are 0.

    What the last actions led to is kept where every episode says whether it ended in a terminal state, and what followed if it did not.
    """
    if not episodes:
        raise UserError(f'{source}: holds no episode')
    checked: list[Any] = [_episode(episode) for episode in episodes]
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
    return trajs


def _episode(episode: Episode) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """(obs_T_Do, a_T_Da, r_T, lastobs_Do or None) of one episode."""
    where = episode.where
    obs_T_Do, a_T_Da = _numbers(where, 'observations', episode.obs), _numbers(where, 'actions', episode.acts)
    if obs_T_Do.ndim != 2 or obs_T_Do.shape[1] == 0:
        raise UserError(f'{where}: observations of shape {obs_T_Do.shape}; expected (steps, numbers): one flat vector a step')
    if a_T_Da.ndim == 1:
        a_T_Da = a_T_Da[:, None]
    if a_T_Da.ndim != 2 or a_T_Da.shape[1] == 0:
        raise UserError(f'{where}: actions of shape {a_T_Da.shape}; expected (steps,) or (steps, numbers)')
    num = len(a_T_Da)
    if num == 0 or len(obs_T_Do) not in (num, num + 1):
        raise UserError(f'{where}: {len(obs_T_Do)} observations for {num} actions; expected as many, or one more, and at least one action')
    r_T = np.zeros(num) if episode.rews is None else _numbers(where, 'rewards', episode.rews)
    r_T = r_T[:, 0] if r_T.shape == (num, 1) else r_T
    if r_T.shape != (num,):
        raise UserError(f'{where}: rewards of shape {r_T.shape} for {num} actions; expected one number for each')
    check_int64(f'{where}: actions', a_T_Da)
    whole = a_T_Da.dtype.kind in 'biu' and a_T_Da.shape[1] == 1
    with np.errstate(over='ignore'):  # a longdouble beyond float64 becomes infinite, which is said below
        arrays = obs_T_Do[:num].astype(np.float64), a_T_Da.astype(np.int64 if whole else np.float64), r_T.astype(np.float64)
        last = obs_T_Do[num] if len(obs_T_Do) > num else episode.last_obs_Do
        last = None if last is None else np.asarray(last, dtype=np.float64)
    for name, x in zip(('observations', 'actions', 'rewards'), arrays, strict=True):
        if not np.isfinite(x).all():
            row = int(np.flatnonzero(~np.isfinite(x).reshape(num, -1).all(axis=1))[0])
            raise UserError(f'{where}: NaN or infinity among the {name} of step {row}; expected finite numbers')
    if last is not None and not np.isfinite(last).all():
        raise UserError(f'{where}: NaN or infinity in the observation after the last action; expected finite numbers')
    return *arrays, last


def _numbers(where: str, name: str, x: Any) -> np.ndarray:
    if isinstance(x, (dict, tuple)):
        raise UserError(f'{where}: {name} in several parts (a {type(x).__name__}); expected one array of numbers')
    x = np.asarray(x)
    if x.dtype.kind not in 'biuf':
        raise UserError(f'{where}: {name} of type {x.dtype}; expected numbers')
    return x


# Minari ----------------------------------------------------------------------------------------------------------------------------


def _minari() -> Any:
    try:
        import minari  # pyright: ignore[reportMissingImports] (an extra)
    except ImportError as e:
        raise UserError(f"Minari data sets need the package minari ({e}); install it: pip install -e '.[minari]'") from e
    return minari


def read_minari(dataset_id: Any, download: bool = False) -> Source:
    """The episodes of a Minari data set, by its id or as it is, with the observation after the last action and how each ended."""
    minari = _minari()
    try:
        dataset = minari.load_dataset(dataset_id, download=download) if isinstance(dataset_id, str) else dataset_id
        episodes = [
            Episode(f'{dataset_id}, episode {e.id}', e.observations, e.actions, e.rewards, bool(np.asarray(e.terminations)[-1]))
            for e in dataset.iterate_episodes()
        ]
    except FileNotFoundError as e:
        way = 'it is at no remote either' if download else '--download fetches it'
        raise UserError(f'{dataset_id}: no Minari data set of that name on this computer, and no file; {way}') from e
    except ImportError as e:
        raise UserError(f"{dataset_id}: Minari lacks a package to fetch or read it ({e}); pip install 'minari[hdf5,hf]'") from e
    except (ValueError, KeyError, IndexError, OSError) as e:
        raise UserError(f'{dataset_id}: Minari cannot read this data set: {e}') from e
    arrays = ['observations', 'actions', 'rewards', 'terminations', 'truncations']
    return Source('Minari data set', episodes, arrays, env_name=dataset.env_spec.id if dataset.env_spec else None)


def save_minari(trajs: TrajBatch, dataset_id: str, env_id: str) -> Any:
    """Store trajectories as a Minari data set on this computer, for programs that read those.

    Where a file does not hold what an episode's last action led to, the last observation stands there again, and the episode counts
    as truncated, so that nothing is learned from that step as an end.

    Args:
        trajs: a TrajBatch.
        dataset_id: a name such as cartpole/expert-v0, which must be new.
        env_id: the environment that they come from, as here: a Gymnasium id, a 2016 name, or package.module:EnvId.
    """
    from policyopt.environments.rlgymenv import spec_and_spaces

    minari = _minari()
    from minari.data_collector import EpisodeBuffer  # pyright: ignore[reportMissingImports] (as above)

    check_task(trajs, env_id, dataset_id)
    spec, obs_space, action_space = spec_and_spaces(env_id)
    buffers = []
    lastobs_B_Do, terminal_B = trajs.lastobs_B_Do, trajs.terminal_B
    for i, traj in enumerate(trajs):
        last_1_Do = traj.obs_T_Do[-1:] if lastobs_B_Do is None else lastobs_B_Do[i : i + 1]
        obs_Tp1_Do = np.concatenate([traj.obs_T_Do, last_1_Do]).astype(obs_space.dtype)
        acts = traj.a_T_Da.astype(action_space.dtype).reshape(len(traj), *action_space.shape)
        last_T = np.arange(len(traj)) == len(traj) - 1
        terminal = bool(terminal_B is not None and lastobs_B_Do is not None and terminal_B[i])
        ends = (last_T & terminal).tolist(), (last_T & (not terminal)).tolist()
        buffers.append(EpisodeBuffer(i, None, None, obs_Tp1_Do, acts, traj.r_T.tolist(), *ends, {}))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # that nobody is named as the author
            spaces = {'observation_space': obs_space, 'action_space': action_space}
            return minari.create_dataset_from_buffers(dataset_id, buffers, env=spec, **spaces)
    except ValueError as e:
        raise UserError(f'{dataset_id}: Minari does not store this data set: {e}') from e


# .npz ------------------------------------------------------------------------------------------------------------------------------


def read_npz(path: str, ends: str | None = None, time_axis: int | None = None) -> Source:
    """The episodes of an .npz file, whose arrays are of one of these kinds:

    * obs_0, acts_0, rews_0, obs_1, …: one episode each
    * obs (B, T, Do), acts (B, T[, Da]), rews (B, T): an episode a row, filled up on the right as dones, lengths or masks say; with
      time_axis rows (or columns) of an environment each, one episode after the other, as the buffers of Stable-Baselines3
    * obs (N, Do), acts (N[, Da]), rews (N), and an array of ends.EVERY: one step after the other, as of imitation or D4RL
    * obs (N + B, Do), acts, rews, and `indices` where episodes 1, 2, … begin: the older trajectories of imitation
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise ValueError('it is no regular file')  # a pipe would keep us waiting
        npz = np.load(path, allow_pickle=False)
    except FileNotFoundError as e:
        raise UserError(f'{path}: no such file; expected an .npz file with obs and acts') from e
    except Exception as e:  # on damaged bytes zipfile and numpy raise errors of any type
        raise UserError(f'{path}: {_NO_NPZ}') from e
    if not isinstance(npz, np.lib.npyio.NpzFile):
        raise UserError(f'{path}: {_NO_NPZ}')
    with npz:
        return _npz_source(path, npz, ends, time_axis)


def _npz_array(path: str, npz: Any, key: str) -> np.ndarray:
    try:
        return npz[key]
    except ValueError as e:
        seen = 'holds Python objects, which could run code when they are read' if 'allow_pickle' in str(e) else f'cannot be read ({e})'
        raise UserError(
            f'{path}: {key} {seen}; expected arrays of numbers (obs_0, acts_0, obs_1, … for episodes of different lengths)'
        ) from e
    except Exception as e:  # as above
        raise UserError(f'{path}: {key} cannot be read; {_NO_NPZ}') from e


def _npz_source(path: str, npz: Any, chosen: str | None, time_axis: int | None) -> Source:
    files, notes = list(npz.files), []
    if chosen is not None and chosen not in files:
        raise UserError(f'{path}: --ends {chosen}: no array of that name; it has {", ".join(files)}')
    used: list[str] = []

    def find(name: str, suffix: str = '', needed: bool = False) -> Any:
        key = next((n + suffix for n in NAMES[name] if n + suffix in files), None)
        if key is None and needed:
            raise UserError(f"{path}: has no array '{name}{suffix}'; it has {', '.join(files) or 'none'}")
        if key is not None:
            used.append(key)
        return None if key is None else _npz_array(path, npz, key)

    def said(suffix: str = '') -> dict[str, np.ndarray]:
        there = [name for name in ends.EVERY if name + suffix in files and (chosen is None or name + suffix == chosen)]
        used.extend(name + suffix for name in there)
        return {name: _npz_array(path, npz, name + suffix) for name in there}

    def source(format: str, rows: list[ends.Row]) -> Source:
        episodes = [episode for row in rows for episode in ends.episodes_of(row, chosen, notes)]
        return Source(f'.npz, {format}', episodes, used, [n for n in files if n not in used], notes)

    numbered = sorted({int(m[1]) for key in files for name in NAMES['obs'] if (m := re.fullmatch(rf'{name}_(\d+)', key))})
    if numbered:
        rows = []
        for i in numbered:
            at, obs, acts = f'_{i}', find('obs', f'_{i}', True), find('acts', f'_{i}', True)
            if 0 in (obs.ndim, acts.ndim):
                raise UserError(f'{path}: episode {i}: obs has shape {obs.shape}, acts {acts.shape}; expected a row for each step')
            each = {name: _at_last_step(x, len(acts)) for name, x in said(at).items()}
            rows.append(ends.Row(f'{path}: episode {i}', obs, acts, find('rews', at), find('next_obs', at), each, True))
        return source('arrays for each episode', rows)
    obs, acts, rews, next_obs = find('obs', needed=True), find('acts', needed=True), find('rews'), find('next_obs')
    for name, x in (('obs', obs), ('acts', acts), ('rews', rews)):
        if x is not None and (x.ndim == 0 or name != 'obs' and x.ndim and obs.ndim == 3 and len(x) != len(obs)):
            raise UserError(f'{path}: {name} has shape {x.shape}, obs {obs.shape}; expected as many episodes in each')
    if 0 in (len(obs), len(acts)):
        raise UserError(f'{path}: obs has shape {obs.shape}, acts {acts.shape}; expected at least one step')
    if next_obs is not None and next_obs.shape != obs.shape:
        raise UserError(f'{path}: next_obs has shape {next_obs.shape}, obs {obs.shape}; expected the same')
    if obs.ndim == 3 and acts.ndim == 1:
        raise UserError(f'{path}: acts has shape {acts.shape}, obs {obs.shape}; expected episodes and steps as the first axes of both')
    if obs.ndim == 3:
        return source(*_rows_of(path, obs, acts, rews, next_obs, said(), time_axis))
    if time_axis is not None:
        raise UserError(f'{path}: --time_axis {time_axis}: obs has shape {obs.shape}, which has one axis of steps; leave it out')
    if 'indices' in files:
        used.append('indices')
        episodes = _by_indices(path, npz, obs, acts, rews)
        return Source('.npz, older trajectories of imitation', episodes, used, [n for n in files if n not in used])
    every = said()
    if len(obs) != len(acts) or rews is not None and len(rews) != len(acts):
        for name, x in every.items():
            if name in ends.FLAGS:
                ends.flags_of(path, name, x, len(acts))
        seen = f'{len(obs)} observations, {len(acts)} actions{"" if rews is None else f", {len(rews)} rewards"}'
        raise UserError(f'{path}: {seen}; expected as many of each')
    return source('one step after the other', [ends.Row(path, obs, acts, rews, next_obs, every)])


def _at_last_step(x: np.ndarray, num: int) -> np.ndarray:
    """What one number says of an episode, as flags of its steps."""
    if x.size == 1 and num != 1 and x.dtype.kind in 'biuf':
        return np.where(np.arange(num) == num - 1, x.ravel()[0], 0)
    return x


def _rows_of(
    path: str, obs: np.ndarray, acts: np.ndarray, rews: Any, next_obs: Any, said: dict[str, np.ndarray], time_axis: int | None
) -> tuple[str, list[ends.Row]]:
    """(format, rows) of arrays with two axes before the numbers: an episode a row, or with time_axis one environment each."""
    if time_axis is not None:
        obs, acts = np.moveaxis(obs, time_axis, 1), np.moveaxis(acts, time_axis, 1)
        rews, next_obs = (None if x is None else np.moveaxis(x, time_axis, 1) for x in (rews, next_obs))
        shape = acts.shape[:2]
        for name, x in said.items():
            if x.shape[:2] not in (shape, shape[::-1]):
                raise UserError(f'{path}: {name} has shape {x.shape}; expected one for each step of acts, {shape}')
        said = {name: np.moveaxis(x, time_axis, 1) for name, x in said.items()}
    num_rows, num = len(obs), acts.shape[1]
    for name, x in said.items():
        per_row = name == ends.LENGTHS or (x.ndim == 1 and len(x) == num_rows and num_rows != num)
        if x.ndim == 0 or len(x) != num_rows or (not per_row and x.shape[:2] != (num_rows, num)):
            wanted = f'{num_rows} whole numbers, 1 to {num}' if name == ends.LENGTHS else f'({num_rows}, {num}), one for each step'
            raise UserError(f'{path}: {name} of shape {x.shape}; expected {wanted}')
    rows = []
    for i in range(num_rows):
        each = {name: x[i] if name == ends.LENGTHS else _at_last_step(np.asarray(x[i]), num) for name, x in said.items()}
        own_rews, own_next = (None if x is None else x[i] for x in (rews, next_obs))
        where = f'{path}: {"episode" if time_axis is None else "environment"} {i}'
        rows.append(ends.Row(where, obs[i], acts[i], own_rews, own_next, each, time_axis is None))
    return ('an episode a row' if time_axis is None else 'an environment a row'), rows


def _by_indices(path: str, npz: Any, obs: np.ndarray, acts: np.ndarray, rews: np.ndarray | None) -> list[Episode]:
    """The episodes of the older trajectories of imitation: `indices` say where 1, 2, … begin, obs has one row more for each."""
    indices = _npz_array(path, npz, 'indices')
    if indices.dtype.kind not in 'iu' and indices.size:
        raise UserError(f'{path}: indices of type {indices.dtype}; expected whole numbers: where episodes 1, 2, … begin among acts')
    starts = [0, *indices.ravel().tolist(), len(acts)]
    if sorted(set(starts)) != starts or len(obs) != len(acts) + len(starts) - 1 or rews is not None and len(rews) != len(acts):
        seen = f'{len(obs)} observations, {len(acts)} actions{"" if rews is None else f", {len(rews)} rewards"}'
        raise UserError(f'{path}: {seen} for {len(starts) - 1} episodes; expected as many of each, one observation more an episode')
    terminal = next((_npz_array(path, npz, n) for n in ends.TERMINAL if n in npz.files), None)
    ended = [None] * (len(starts) - 1) if terminal is None or len(terminal) != len(starts) - 1 else [bool(x) for x in terminal]
    return [
        Episode(f'{path}: episode {i}', obs[a + i : b + i + 1], acts[a:b], None if rews is None else rews[a:b], ended[i])
        for i, (a, b) in enumerate(zip(starts[:-1], starts[1:], strict=True))
    ]


# CSV -------------------------------------------------------------------------------------------------------------------------------


def read_csvs(folder: str, chosen: str | None = None) -> Source:
    """The episodes of a folder with one CSV file each, in the order of their names (2 before 10).

    The first line names the columns: obs…, act…, rew, next_obs…, and terminated, truncated and the like, in any order; obs and act are
    taken in the order of their names and numbers (obs2 before obs10), which must be the same in all files.
    """
    names = [n for n in os.listdir(folder) if n.lower().endswith('.csv') and os.path.isfile(os.path.join(folder, n))]
    names.sort(key=_in_order)
    if not names:
        raise UserError(f'{folder}: a folder without .csv files; expected one for each episode')
    episodes, notes, first = [], [], None
    for name in names:
        path = os.path.join(folder, name)
        row, used, unused = _read_csv(path)
        if first is not None and used != first[0]:
            odd = sorted(set(used) ^ set(first[0])) or used
            raise UserError(f'{path}: its columns differ from those of {names[0]}: {", ".join(odd)}; expected the same in every file')
        first = first or (used, unused)
        episodes += ends.episodes_of(row, chosen, notes)
    assert first is not None
    return Source('a CSV file for each episode', episodes, *first, notes)


def _in_order(name: str) -> list[Any]:
    """A key that sorts by name and number: obs2 before obs10."""
    return [int(part) if part.isdecimal() and part.isascii() else part for part in re.split(r'([0-9]+)', name)]


def _read_csv(path: str) -> tuple[ends.Row, list[str], list[str]]:
    """(row, columns used, columns not used) of one file."""
    try:
        with open(path, newline='', encoding='utf-8-sig') as f:
            header, *rows = list(csv.reader(f)) or [[]]
    except (UnicodeDecodeError, csv.Error) as e:
        raise UserError(f'{path}: not a CSV file of UTF-8 text ({e})') from e
    header = [name.strip().lower() for name in header]
    kinds = {kind: sorted((n for n in header if n.startswith(kind)), key=_in_order) for kind in ('obs', 'act', 'rew', 'next_obs')}
    flags = [name for name in ends.FLAGS if name in header]
    if not kinds['obs'] or not kinds['act'] or len(kinds['rew']) > 1:
        raise UserError(f"{path}: its columns are '{','.join(header)[:80]}'; expected obs0, obs1, …, act0, … and at most one reward")
    used = [*(name for names in kinds.values() for name in names), *flags]
    if twice := sorted({name for name in used if header.count(name) > 1}):
        raise UserError(f"{path}: the column '{twice[0]}' stands twice; expected different names")
    if kinds['next_obs'] and len(kinds['next_obs']) != len(kinds['obs']):
        raise UserError(f'{path}: {len(kinds["next_obs"])} columns next_obs… for {len(kinds["obs"])} obs…; expected as many')
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise UserError(f'{path}: line {line} has {len(row)} fields, the first line {len(header)}; expected as many')
    if not rows:
        raise UserError(f'{path}: has no line below its first; expected one for each step')

    def columns(names: list[str]) -> np.ndarray:
        return np.array([[_number(path, line, row[header.index(n)]) for line, row in enumerate(rows, start=2)] for n in names]).T

    rews = columns(kinds['rew'])[:, 0] if kinds['rew'] else None
    next_obs = columns(kinds['next_obs']).astype(np.float64) if kinds['next_obs'] else None
    said = {name: columns([name])[:, 0] for name in flags}
    row = ends.Row(path, columns(kinds['obs']).astype(np.float64), columns(kinds['act']), rews, next_obs, said, whole=True)
    return row, used, [name for name in header if name not in used]


def _number(path: str, line: int, text: str) -> float:
    try:
        if '_' in text or not text.isascii():
            raise ValueError('a number as Python writes it, or of another script')
        return int(text) if re.fullmatch(r'\s*[+-]?\d{1,18}\s*', text) else float(text)
    except ValueError as e:
        raise UserError(f"{path}: line {line}: '{text[:40]}' is not a number; expected only numbers below the first line") from e
