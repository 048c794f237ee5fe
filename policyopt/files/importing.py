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
from typing import Any

import numpy as np

from policyopt.files.trajectories import TrajBatch, check_int64, foreign_kind, save_trajs
from policyopt.util import UserError, printable, provenance

NAMES = {  # what others call these arrays
    'obs': ('obs', 'observations', 'states'),
    'acts': ('acts', 'actions'),
    'rews': ('rews', 'rewards'),
    'next_obs': ('next_obs', 'next_observations'),
    'ends': ('terminal', 'terminals', 'dones', 'terminations'),
    'cuts': ('timeouts', 'truncations', 'truncateds'),
}

Episode = tuple[str, Any, Any, Any]  # where it was found, obs, acts, rews or None
_NO_NPZ = 'not a readable .npz file (damaged, or of another kind); numpy.savez makes one'


def import_trajs(source: str, out: str, env_name: str | None = None, download: bool = False) -> tuple[TrajBatch, str | None]:
    """Convert demonstrations from elsewhere into the trajectory file `out`; returns (TrajBatch, the task that they name or None).

    Args:
        source: the id of a Minari data set, an .npz file, or a folder with one CSV file per episode.
        env_name: the task that the data belong to, instead of the one that the source names; the data must fit it, see `check_task`.
        download: fetch a Minari data set that is not on this computer.
    """
    if os.path.lexists(out):
        raise UserError(f'{out}: exists already, and finished data is never overwritten; choose another name')
    kind = foreign_kind(source)
    if kind == 'folder':
        episodes, stored = read_csvs(source), None
    elif kind == 'npz':
        episodes, stored = read_npz(source), None
    elif kind == 'minari':
        episodes, stored = read_minari(source, download)
    else:
        seen = 'is a trajectory file already, which --data takes as it is' if str(source).endswith('.h5') else 'nothing that can be read'
        raise UserError(f'{source}: {seen}; expected a folder of CSV files, an .npz file, or a Minari id such as cartpole/expert-v0')
    trajs = batch_of(episodes, source)
    if env_name:
        check_task(trajs, env_name, source)
    env_name = env_name or stored
    save_trajs(out, trajs, provenance() | {'source': source} | ({'env_name': env_name} if env_name else {}))
    return trajs, env_name


def check_task(trajs: TrajBatch, env_name: str, what: str) -> None:
    """Raise UserError, which calls the data `what`, where a task cannot have their observations or actions.

    To know, the task is made, and the module of package.module:EnvId imported. Where it cannot be made here, a note says so.
    """
    from environments.rlgymenv import BadEnvironment, env_info

    try:
        info = env_info(env_name)
    except BadEnvironment as e:
        print(printable(f'note: {what}: not compared with a task, because {e}'), file=sys.stderr)
        return
    if misfit := trajs.misfit(info):
        raise UserError(f'{what}: {misfit}; give data of this env, or name theirs')


def batch_of(episodes: list[Episode], source: str) -> TrajBatch:
    """The TrajBatch of [(where, obs, acts, rews or None)], checked.

    obs may have one row more than acts, which is dropped: it is what the last action led to. Without rews the rewards are 0.
    """
    if not episodes:
        raise UserError(f'{source}: holds no episode')
    checked = [_episode(*episode) for episode in episodes]
    for i, name in enumerate(('observation', 'action')):
        sizes = [e[i].shape[1] for e in checked]
        other = next((j for j, size in enumerate(sizes) if size != sizes[0]), None)
        if other is not None:
            raise UserError(f'{episodes[other][0]}: {sizes[other]} {name} dims, but {sizes[0]} in {episodes[0][0]}; expected one task')
    if any(rews is None for *_, rews in episodes):
        print(f'{source}: no rewards; 0 is stored (they are only reported, never learned from)', file=sys.stderr)
    obs_N_Do, a_N_Da, r_N = (np.concatenate(column) for column in zip(*checked, strict=True))
    return TrajBatch(obs_N_Do, np.zeros((len(r_N), 0)), a_N_Da, r_N, [len(e[2]) for e in checked])


def _episode(where: str, obs: Any, acts: Any, rews: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(obs_T_Do, a_T_Da, r_T) of one episode."""
    obs_T_Do, a_T_Da = _numbers(where, 'observations', obs), _numbers(where, 'actions', acts)
    if obs_T_Do.ndim != 2 or obs_T_Do.shape[1] == 0:
        raise UserError(f'{where}: observations of shape {obs_T_Do.shape}; expected (steps, numbers): one flat vector a step')
    if a_T_Da.ndim == 1:
        a_T_Da = a_T_Da[:, None]
    if a_T_Da.ndim != 2 or a_T_Da.shape[1] == 0:
        raise UserError(f'{where}: actions of shape {a_T_Da.shape}; expected (steps,) or (steps, numbers)')
    num = len(a_T_Da)
    if num == 0 or len(obs_T_Do) not in (num, num + 1):
        raise UserError(f'{where}: {len(obs_T_Do)} observations for {num} actions; expected as many, or one more, and at least one action')
    r_T = np.zeros(num) if rews is None else _numbers(where, 'rewards', rews)
    if r_T.shape != (num,):
        raise UserError(f'{where}: rewards of shape {r_T.shape} for {num} actions; expected one number for each')
    check_int64(f'{where}: actions', a_T_Da)
    whole = a_T_Da.dtype.kind in 'biu' and a_T_Da.shape[1] == 1
    episode = obs_T_Do[:num].astype(np.float64), a_T_Da.astype(np.int64 if whole else np.float64), r_T.astype(np.float64)
    for name, x in zip(('observations', 'actions', 'rewards'), episode, strict=True):
        if not np.isfinite(x).all():
            row = int(np.flatnonzero(~np.isfinite(x).reshape(num, -1).all(axis=1))[0])
            raise UserError(f'{where}: NaN or infinity among the {name} of step {row}; expected finite numbers')
    return episode


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


def read_minari(dataset_id: str, download: bool = False) -> tuple[list[Episode], str | None]:
    """([(where, obs, acts, rews)], id of the environment or None) of a Minari data set on this computer."""
    minari = _minari()
    try:
        dataset = minari.load_dataset(dataset_id, download=download)
        episodes = [(f'{dataset_id}, episode {e.id}', e.observations, e.actions, e.rewards) for e in dataset.iterate_episodes()]
    except FileNotFoundError as e:
        way = 'it is at no remote either' if download else '--download fetches it'
        raise UserError(f'{dataset_id}: no Minari data set of that name on this computer, and no file; {way}') from e
    except (ValueError, KeyError, OSError) as e:
        raise UserError(f'{dataset_id}: Minari cannot read this data set: {e}') from e
    return episodes, dataset.env_spec.id if dataset.env_spec else None


def save_minari(trajs: TrajBatch, dataset_id: str, env_id: str) -> Any:
    """Store trajectories as a Minari data set on this computer, for programs that read those.

    The observation after an episode's last action is not in our files: the last one stands there again, and the episode counts as
    cut off (truncated), so that nothing is learned from that step as an end.

    Args:
        trajs: a TrajBatch.
        dataset_id: a name such as cartpole/expert-v0, which must be new.
        env_id: the environment that they come from, as here: a Gymnasium id, a 2016 name, or package.module:EnvId.
    """
    from environments.rlgymenv import spec_and_spaces

    minari = _minari()
    from minari.data_collector import EpisodeBuffer  # pyright: ignore[reportMissingImports] (as above)

    check_task(trajs, env_id, dataset_id)
    spec, obs_space, action_space = spec_and_spaces(env_id)
    buffers = []
    for i, traj in enumerate(trajs):
        obs_Tp1_Do = np.concatenate([traj.obs_T_Do, traj.obs_T_Do[-1:]]).astype(obs_space.dtype)
        acts = traj.a_T_Da.astype(action_space.dtype).reshape(len(traj), *action_space.shape)
        last_T = np.arange(len(traj)) == len(traj) - 1
        buffers.append(EpisodeBuffer(i, None, None, obs_Tp1_Do, acts, traj.r_T.tolist(), [False] * len(traj), last_T.tolist(), {}))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # that nobody is named as the author
            spaces = {'observation_space': obs_space, 'action_space': action_space}
            return minari.create_dataset_from_buffers(dataset_id, buffers, env=spec, **spaces)
    except ValueError as e:
        raise UserError(f'{dataset_id}: Minari does not store this data set: {e}') from e


# .npz ------------------------------------------------------------------------------------------------------------------------------


def read_npz(path: str) -> list[Episode]:
    """[(where, obs, acts, rews or None)] of an .npz file, whose arrays are of one of these kinds:

    * obs_0, acts_0, rews_0, obs_1, …: one episode each
    * obs (B, T, Do), acts (B, T[, Da]), rews (B, T): episodes of equal length; with `lengths` of B, they are filled up on the right
    * obs (N, Do), acts (N[, Da]), rews (N), terminal or dones (N): one step after the other, as of imitation or D4RL (timeouts too)
    * obs (N + B, Do), acts, rews, and `indices` where episodes 1, 2, … begin: the older trajectories of imitation
    """
    try:
        npz = np.load(path, allow_pickle=False)
    except FileNotFoundError as e:
        raise UserError(f'{path}: no such file; expected an .npz file with obs and acts') from e
    except Exception as e:  # on damaged bytes zipfile and numpy raise errors of any type
        raise UserError(f'{path}: {_NO_NPZ}') from e
    if not isinstance(npz, np.lib.npyio.NpzFile):
        raise UserError(f'{path}: {_NO_NPZ}')
    with npz:
        return _npz_episodes(path, npz)


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


def _npz_episodes(path: str, npz: Any) -> list[Episode]:
    def find(name: str, suffix: str = '', needed: bool = False) -> Any:
        key = next((n + suffix for n in NAMES[name] if n + suffix in npz.files), None)
        if key is None and needed:
            raise UserError(f"{path}: has no array '{name}{suffix}'; it has {', '.join(npz.files) or 'none'}")
        return None if key is None else _npz_array(path, npz, key)

    numbered = sorted({int(m[1]) for key in npz.files for name in NAMES['obs'] if (m := re.fullmatch(rf'{name}_(\d+)', key))})
    if numbered:
        return [(f'{path}: episode {i}', find('obs', f'_{i}', True), find('acts', f'_{i}', True), find('rews', f'_{i}')) for i in numbered]
    obs, acts, rews = find('obs', needed=True), find('acts', needed=True), find('rews')
    for name, x in (('obs', obs), ('acts', acts), ('rews', rews)):
        if x is not None and (x.ndim == 0 or name != 'obs' and x.ndim and obs.ndim == 3 and len(x) != len(obs)):
            raise UserError(f'{path}: {name} has shape {x.shape}, obs {obs.shape}; expected as many episodes in each')
    if 0 in (len(obs), len(acts)):
        raise UserError(f'{path}: obs has shape {obs.shape}, acts {acts.shape}; expected at least one step')
    if obs.ndim == 3 and acts.ndim == 1:
        raise UserError(f'{path}: acts has shape {acts.shape}, obs {obs.shape}; expected episodes and steps as the first axes of both')
    if obs.ndim == 3:
        lengths = _npz_array(path, npz, 'lengths') if 'lengths' in npz.files else np.full(len(obs), acts.shape[1])
        if lengths.shape != (len(obs),) or lengths.dtype.kind not in 'iu' or not (0 < lengths).all() or lengths.max() > acts.shape[1]:
            raise UserError(f'{path}: lengths of shape {lengths.shape}; expected {len(obs)} whole numbers, 1 to {acts.shape[1]}')
        return [(f'{path}: episode {i}', obs[i, :n], acts[i, :n], None if rews is None else rews[i, :n]) for i, n in enumerate(lengths)]
    if 'indices' in npz.files:
        indices = _npz_array(path, npz, 'indices')
        if indices.dtype.kind not in 'iu' and indices.size:
            raise UserError(f'{path}: indices of type {indices.dtype}; expected whole numbers: where episodes 1, 2, … begin among acts')
        starts = [0, *indices.ravel().tolist(), len(acts)]
        extra = 1
    else:
        starts = _flat_starts(path, obs, acts, find('ends'), find('cuts'), find('next_obs'))
        extra = 0
    if sorted(set(starts)) != starts or len(obs) != len(acts) + extra * (len(starts) - 1) or rews is not None and len(rews) != len(acts):
        seen = f'{len(obs)} observations, {len(acts)} actions{"" if rews is None else f", {len(rews)} rewards"}'
        raise UserError(
            f'{path}: {seen} for {len(starts) - 1} episodes; expected as many of each{", one observation more an episode" * extra}'
        )
    return [
        (f'{path}: episode {i}', obs[a + i * extra : b + (i + 1) * extra], acts[a:b], None if rews is None else rews[a:b])
        for i, (a, b) in enumerate(zip(starts[:-1], starts[1:], strict=True))
    ]


def _flat_starts(
    path: str, obs: np.ndarray, acts: np.ndarray, ends: np.ndarray | None, cuts: np.ndarray | None, next_obs: np.ndarray | None
) -> list[int]:
    """Where episodes begin among steps, and the number of steps: after an end, a time limit, or an observation that does not follow."""
    end_N = np.zeros(len(acts), bool)
    for name, x in (('terminal', ends), ('timeouts', cuts)):
        if x is not None and x.shape[:1] != (len(acts),):
            raise UserError(f'{path}: {name} has shape {x.shape} for {len(acts)} actions; expected one for each')
        if x is not None:
            end_N |= x.reshape(len(acts), -1).astype(bool).any(axis=1)
    if next_obs is not None:
        if next_obs.shape != obs.shape:
            raise UserError(f'{path}: next_obs has shape {next_obs.shape}, obs {obs.shape}; expected the same')
        if len(obs) == len(acts):  # else the caller says so
            end_N[:-1] |= (next_obs[:-1] != obs[1:]).any(axis=tuple(range(1, obs.ndim)))  # a time limit is no terminal state
    elif ends is None and cuts is None:
        raise UserError(f"{path}: nothing says where an episode ends; expected an array 'terminal' or 'dones' beside obs and acts")
    starts = [0, *(np.flatnonzero(end_N) + 1).tolist()]
    return starts if starts[-1] == len(acts) else [*starts, len(acts)]


# CSV -------------------------------------------------------------------------------------------------------------------------------


def read_csvs(folder: str) -> list[Episode]:
    """[(file, obs, acts, rews or None)] of a folder with one CSV file per episode, in the order of their names (2 before 10).

    The first line names the columns: obs…, act… and rew… in any number and order; others are left out.
    """
    names = [n for n in os.listdir(folder) if n.lower().endswith('.csv') and os.path.isfile(os.path.join(folder, n))]
    names.sort(key=lambda n: [int(p) if p.isdecimal() else p for p in re.split(r'(\d+)', n)])
    if not names:
        raise UserError(f'{folder}: a folder without .csv files; expected one for each episode')
    return [_read_csv(os.path.join(folder, name)) for name in names]


def _read_csv(path: str) -> Episode:
    try:
        with open(path, newline='', encoding='utf-8-sig') as f:
            header, *rows = list(csv.reader(f)) or [[]]
    except (UnicodeDecodeError, csv.Error) as e:
        raise UserError(f'{path}: not a CSV file of UTF-8 text ({e})') from e
    header = [name.strip().lower() for name in header]
    columns = {kind: [i for i, name in enumerate(header) if name.startswith(kind)] for kind in ('obs', 'act', 'rew')}
    if not columns['obs'] or not columns['act'] or len(columns['rew']) > 1:
        raise UserError(f"{path}: its columns are '{','.join(header)[:80]}'; expected obs0, obs1, …, act0, … and at most one reward")
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise UserError(f'{path}: line {line} has {len(row)} fields, the first line {len(header)}; expected as many')

    def column(i):
        return [_number(path, line, row[i]) for line, row in enumerate(rows, start=2)]

    obs, acts, rews = ([column(i) for i in columns[kind]] for kind in ('obs', 'act', 'rew'))
    if not rows:
        raise UserError(f'{path}: has no line below its first; expected one for each step')
    return path, np.array(obs, dtype=np.float64).T, np.array(acts).T, np.array(rews[0]) if rews else None


def _number(path: str, line: int, text: str) -> float:
    try:
        return int(text) if re.fullmatch(r'\s*[+-]?\d{1,18}\s*', text, re.ASCII) else float(text)
    except ValueError as e:
        raise UserError(f"{path}: line {line}: '{text[:40]}' is not a number; expected only numbers below the first line") from e
