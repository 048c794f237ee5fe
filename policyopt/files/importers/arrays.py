"""Named arrays of one file, in any of the layouts in which programs keep several episodes side by side.

Letters: B trajectories, T steps of one of them, N rows of all, Do observation dim, Da action dim.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policyopt.errors import UserError
from policyopt.files import ends
from policyopt.files.ends import Episode
from policyopt.files.importers.source import NAMES, ReadOptions, Source, refuse_options, without_unused_next

ROLLOUT = {'episode_starts', 'values', 'log_probs'}  # beside observations: a rollout buffer of Stable-Baselines3
RETURNS = ('ep_rets', 'episode_returns')  # one for each episode, as of openai/baselines and generate_expert_traj


@dataclass
class Arrays:
    """The arrays of a file, each loaded when it is asked for; `used` are the names of those that were.

    of_several: whether the file is one of a folder, and so one episode where it does not say where several end.
    """

    path: str
    names: list[str]
    load: Callable[[str], np.ndarray]
    options: ReadOptions
    of_several: bool = False
    used: list[str] = field(default_factory=list)

    def find(self, name: str, suffix: str = '') -> np.ndarray | None:
        """The array that is called `name`, or as others call it, or None."""
        key = next((n + suffix for n in NAMES[name] if n + suffix in self.names), None)
        if key is None:
            return None
        self.used.append(key)
        return self.load(key)

    def get(self, name: str, suffix: str = '') -> np.ndarray:
        """As `find`, or UserError."""
        x = self.find(name, suffix)
        if x is None:
            raise UserError(f"{self.path}: has no array '{name}{suffix}'; it has {', '.join(self.names) or 'none'}")
        return x

    def said(self, suffix: str = '') -> dict[str, np.ndarray]:
        """Every array that says where episodes end, or the one that the user chose."""
        chosen = ends.EVERY if self.options.ends is None else self.options.ends.split(',')
        there = [name for name in ends.EVERY if name + suffix in self.names and name in chosen]
        self.used.extend(name + suffix for name in there)
        return {name: self.load(name + suffix) for name in there}


def read_arrays(arrays: Arrays, file: str) -> Source:
    """The episodes in the arrays of a `file` (".npz"), which are of one of these kinds:

    * obs_0, acts_0, rews_0, obs_1, …: one episode each
    * obs (B, T, Do), acts (B, T[, Da]), rews (B, T): an episode a row, filled up on the right as dones, lengths or masks say; with
      time_axis rows (or columns) of an environment each, one episode after the other, as the buffers of Stable-Baselines3
    * obs (N, Do), acts (N[, Da]), rews (N), and an array of ends.EVERY: one step after the other, as of imitation or D4RL
    * obs (N + B, Do), acts, rews, and `indices` where episodes 1, 2, … begin: the older trajectories of imitation
    """
    path, chosen = arrays.path, arrays.options.ends
    ends.check_chosen(path, chosen, {re.sub(r'_\d+$', '', name) for name in arrays.names})
    numbered = sorted({int(m[1]) for key in arrays.names for name in NAMES['obs'] if (m := re.fullmatch(rf'{name}_(\d+)', key))})
    notes: list[str] = []
    if numbered or 'indices' in arrays.names:
        refuse_options(path, arrays.options, 'time_axis')
    if numbered:
        _check_numbers(arrays, numbered)
        layout, rows = 'arrays for each episode', [_numbered(arrays, i) for i in numbered]
    elif 'indices' in arrays.names:
        refuse_options(path, arrays.options, 'ends')
        layout, rows = 'older trajectories of imitation', _by_indices(arrays)
        others = [name for name in ends.EVERY if name in arrays.names and name not in arrays.used]
        notes += [f'indices say where episodes begin, so that {name} is not used' for name in others]
    else:
        layout, rows = _shared(arrays)
    episodes = [x for row in rows for x in ([row] if isinstance(row, Episode) else ends.episodes_of(row, chosen, notes))]
    _compare_returns(arrays, episodes, notes)
    unused = [name for name in arrays.names if name not in arrays.used]
    used, unused = (list(dict.fromkeys(re.sub(r'_\d+$', '_N', name) for name in names)) for names in (arrays.used, unused))
    found = Source(f'{file}, {layout}', episodes, used, unused, notes)
    return without_unused_next(found, (row for row in rows if isinstance(row, ends.Row)))


def _check_numbers(arrays: Arrays, numbered: list[int]) -> None:
    """Raise UserError where an array for one episode belongs to none of these numbers, and would be lost."""
    known = '|'.join([*(name for names in NAMES.values() for name in names), *ends.EVERY])
    for key in arrays.names:
        m = re.fullmatch(rf'(?:{known})_(\d+)', key)
        if m and (int(m[1]) not in numbered or m[1] != str(int(m[1]))):
            raise UserError(f'{arrays.path}: {key} belongs to no episode obs_{int(m[1])}; expected obs_0, acts_0, obs_1, acts_1, …')


def _numbered(arrays: Arrays, i: int) -> ends.Row:
    """Episode i of arrays for each episode."""
    at, where = f'_{i}', f'{arrays.path}: episode {i}'
    obs, acts = arrays.get('obs', at), arrays.get('acts', at)
    if 0 in (obs.ndim, acts.ndim):
        raise UserError(f'{where}: obs has shape {obs.shape}, acts {acts.shape}; expected a row for each step')
    said = {name: x if name in ends.LENGTHS else _at_last_step(x, len(acts)) for name, x in arrays.said(at).items()}
    rews, next_obs = arrays.find('rews', at), arrays.find('next_obs', at)
    return ends.Row(where, obs, acts, rews, next_obs, said=said, whole=True)


def _at_last_step(x: np.ndarray, num: int) -> np.ndarray:
    """What one number says of an episode, as flags of its steps."""
    if x.size == 1 and num != 1 and x.dtype.kind in 'biuf':
        return np.where(np.arange(num) == num - 1, x.ravel()[0], 0)
    return x


def _shared(arrays: Arrays) -> tuple[str, list[ends.Row]]:
    """(layout, rows) of arrays that hold all episodes."""
    path, time_axis = arrays.path, arrays.options.time_axis
    obs, acts, rews, next_obs, said = arrays.get('obs'), arrays.get('acts'), arrays.find('rews'), arrays.find('next_obs'), arrays.said()
    starts = said.get(ends.STARTS)
    if ROLLOUT <= set(arrays.names) and starts is not None and starts.ndim == obs.ndim == 2 and starts.size == len(obs):
        obs, acts = (_unflattened(x, starts.shape) for x in (obs, acts))  # a rollout buffer whose get() was called
    for name, x in (('obs', obs), ('acts', acts), ('rews', rews)):
        if x is not None and (x.ndim == 0 or name != 'obs' and obs.ndim == 3 and len(x) != len(obs)):
            raise UserError(f'{path}: {name} has shape {x.shape}, obs {obs.shape}; expected as many episodes in each')
    if 0 in (len(obs), len(acts)):
        raise UserError(f'{path}: obs has shape {obs.shape}, acts {acts.shape}; expected at least one step')
    if next_obs is not None and next_obs.shape != obs.shape:
        raise UserError(f'{path}: next_obs has shape {next_obs.shape}, obs {obs.shape}; expected the same')
    if obs.ndim == 3 and acts.ndim == 1:
        raise UserError(f'{path}: acts has shape {acts.shape}, obs {obs.shape}; expected episodes and steps as the first axes of both')
    if obs.ndim == 3:
        if time_axis is None:
            time_axis = _time_axis(arrays, obs, next_obs)
        if time_axis == 0 and 'pos' in arrays.names:
            size, kept = len(obs), _steps_of_buffer(arrays, len(obs))
            obs, acts = obs[kept], acts[kept]
            rews, next_obs = (None if x is None else x[kept] for x in (rews, next_obs))
            said = {name: x[kept] if x.shape[:1] == (size,) else x for name, x in said.items()}
        return _rows_of(path, obs, acts, rews=rews, next_obs=next_obs, said=said, time_axis=time_axis)
    if time_axis is not None:
        raise UserError(f'{path}: --time_axis {time_axis}: obs has shape {obs.shape}, which has one axis of steps; leave it out')
    whole = arrays.of_several and not said
    if len(obs) - len(acts) not in (0, int(arrays.of_several)) or rews is not None and len(rews) != len(acts):
        for name, x in said.items():
            if name in ends.FLAGS:
                ends.flags_of(path, name, x, len(acts))
        raise UserError(f'{path}: {_counts(obs, acts, rews)}; expected as many of each')
    return 'one step after the other', [ends.Row(path, obs, acts, rews, next_obs, said=said, whole=whole, filled=True)]


def _unflattened(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An array (environments · time, …) as (time, environments, …)."""
    return x.reshape(shape[1], shape[0], *x.shape[1:]).swapaxes(0, 1) if len(x) == shape[0] * shape[1] else x


def _time_axis(arrays: Arrays, obs: np.ndarray, next_obs: np.ndarray | None) -> int | None:
    """0 in arrays (time, environment, …), as the buffers of Stable-Baselines3 are; None where a row is an episode."""
    if ROLLOUT <= set(arrays.names) or {'pos', 'full'} <= set(arrays.names):
        return 0
    if next_obs is not None and all(x.dtype.kind in 'biuf' for x in (obs, next_obs)):
        rows, columns = (
            [ends.follows(n, o).mean() for n, o in zip(after[:99], x[:99], strict=True) if len(o) > 1]
            for after, x in ((next_obs, obs), (next_obs.swapaxes(0, 1), obs.swapaxes(0, 1)))
        )
        if columns and np.mean(columns) > 0.5 and not (rows and np.mean(rows) > 0.5):
            return 0
    if obs.shape[1] == 1 < len(obs):
        raise UserError(
            f'{arrays.path}: obs has shape {obs.shape}: {len(obs)} episodes of one step, or {len(obs)} steps of one environment? '
            'Say which axis is the time: --time_axis 0 or --time_axis 1'
        )
    return None


def _steps_of_buffer(arrays: Arrays, size: int) -> np.ndarray:
    """The numbers of the steps of a ring buffer from the oldest to the newest: `pos` is where the next one would go."""
    pos, full = (np.ravel(arrays.load(name)) if name in arrays.names else np.array([False]) for name in ('pos', 'full'))
    arrays.used.extend(name for name in ('pos', 'full') if name in arrays.names)
    if pos.shape != (1,) or pos.dtype.kind not in 'iu' or not 0 <= pos[0] <= size or full.shape != (1,):
        raise UserError(
            f'{arrays.path}: pos is {pos[:3]} and full is {full[:3]}; expected a whole number from 0 to {size}, and true or false'
        )
    steps = np.roll(np.arange(size), -pos[0]) if full[0] else np.arange(pos[0])
    if not len(steps):
        raise UserError(f'{arrays.path}: pos is 0 and full is not true, so that the buffer is empty; expected at least one step')
    return steps


def _compare_returns(arrays: Arrays, episodes: list[Episode], notes: list[str]) -> None:
    """Note where a file's own list of returns is another than that of the episodes."""
    for name in RETURNS:
        if name in arrays.names and all(e.rews is not None and e.rews.dtype.kind in 'biuf' for e in episodes):
            listed, summed = np.ravel(arrays.load(name)), np.array([np.sum(e.rews) for e in episodes])
            arrays.used.append(name)
            if len(listed) != len(episodes):
                notes.append(f'{name} holds {len(listed)} returns, but there are {len(episodes)} episodes')
            elif listed.dtype.kind in 'biuf' and not np.allclose(listed, summed, rtol=1e-3, atol=1e-3):
                i = int(np.argmax(np.abs(listed - summed)))
                notes.append(f'{name} says {listed[i]:.6g} of episode {i}, whose rewards add up to {summed[i]:.6g}')


def _counts(obs: np.ndarray, acts: np.ndarray, rews: np.ndarray | None) -> str:
    return f'{len(obs)} observations, {len(acts)} actions{"" if rews is None else f", {len(rews)} rewards"}'


def _rows_of(
    path: str, obs: np.ndarray, acts: np.ndarray, rews: Any, next_obs: Any, said: dict[str, np.ndarray], time_axis: int | None
) -> tuple[str, list[ends.Row]]:
    """(layout, rows) of arrays with two axes before the numbers: an episode a row, or with time_axis one environment each."""
    if time_axis is not None:
        if lengths := [name for name in said if name in ends.LENGTHS]:
            counted = f'{path}: {lengths[0]} counts the steps of an episode in each row'
            raise UserError(f'{counted}; with --time_axis, choose other arrays by --ends')
        shape = acts.shape[:2]
        for name, x in {**said, **({} if rews is None else {'rews': rews})}.items():
            if x.shape[:2] != shape:
                raise UserError(f'{path}: {name} has shape {x.shape}; expected one for each step of acts, {shape}')
        obs, acts = np.moveaxis(obs, time_axis, 1), np.moveaxis(acts, time_axis, 1)
        rews, next_obs = (None if x is None else np.moveaxis(x, time_axis, 1) for x in (rews, next_obs))
        said = {name: np.moveaxis(x, time_axis, 1) for name, x in said.items()}
    num_rows, num = len(obs), acts.shape[1]
    said = {name: x for name, x in said.items() if name not in ends.IDS or x.shape != (num_rows,)}  # the number of each row says nothing
    for name, x in said.items():
        per_row = name in ends.LENGTHS or (x.ndim == 1 and len(x) == num_rows and num_rows != num)
        if x.ndim == 0 or len(x) != num_rows or (not per_row and x.shape[:2] != (num_rows, num)):
            wanted = f'{num_rows} whole numbers, 1 to {num}' if name in ends.LENGTHS else f'({num_rows}, {num}), one for each step'
            raise UserError(f'{path}: {name} of shape {x.shape}; expected {wanted}')
    rows = []
    for i in range(num_rows):
        each = {name: x[i] if name in ends.LENGTHS else _at_last_step(np.asarray(x[i]), num) for name, x in said.items()}
        own_rews, own_next = (None if x is None else x[i] for x in (rews, next_obs))
        where = f'{path}: {"episode" if time_axis is None else "environment"} {i}'
        rows.append(ends.Row(where, obs[i], acts[i], own_rews, own_next, said=each, whole=time_axis is None, filled=True))
    return {None: 'axes (episode, step)', 0: 'axes (step, environment)', 1: 'axes (environment, step)'}[time_axis], rows


def _by_indices(arrays: Arrays) -> list[Episode]:
    """The episodes of the older trajectories of imitation: `indices` say where 1, 2, … begin, obs has one row more for each."""
    path, obs, acts, rews = arrays.path, arrays.get('obs'), arrays.get('acts'), arrays.find('rews')
    indices = arrays.load('indices')
    arrays.used.append('indices')
    if indices.dtype.kind not in 'iu' and indices.size:
        raise UserError(f'{path}: indices of type {indices.dtype}; expected whole numbers: where episodes 1, 2, … begin among acts')
    for name, x in (('obs', obs), ('acts', acts), ('rews', rews)):
        if x is not None and x.ndim == 0:
            raise UserError(f'{path}: {name} has shape (); expected a row for each step')
    starts = [0, *indices.ravel().tolist(), len(acts)]
    if sorted(set(starts)) != starts or len(obs) != len(acts) + len(starts) - 1 or rews is not None and len(rews) != len(acts):
        num = len(starts) - 1
        seen = f'{_counts(obs, acts, rews)} for {num} episode{"s" * (num != 1)}'
        raise UserError(f'{path}: {seen}; expected as many of each, one observation more an episode')
    key = next((n for n in ends.TERMINAL if n in arrays.names), None)
    terminal = None if key is None else arrays.load(key)
    ended: list[bool | None] = [None] * (len(starts) - 1)
    if terminal is not None and terminal.shape == (len(ended),):
        arrays.used.append(str(key))
        ended = [bool(x) for x in terminal]
    return [
        Episode(f'{path}: episode {i}', obs[a + i : b + i + 1], acts[a:b], None if rews is None else rews[a:b], ended[i])
        for i, (a, b) in enumerate(zip(starts[:-1], starts[1:], strict=True))
    ]
