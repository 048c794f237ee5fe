"""Read the named arrays of one file, in any layout in which programs store several episodes.

Letters: B trajectories, T steps of a trajectory, N steps of all, Do observation dim, Da action dim.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policyopt.errors import UserError
from policyopt.files import ends
from policyopt.files.ends import Episode, Row
from policyopt.files.importers.source import NAMES, ReadOptions, Source, refuse_options

ROLLOUT = {'episode_starts', 'values', 'log_probs'}  # a file with these arrays is a rollout buffer of Stable-Baselines3
RETURNS = ('ep_rets', 'episode_returns')  # one number for each episode, in files of openai/baselines and of generate_expert_traj


@dataclass
class Arrays:
    """The arrays of a file. `take` loads one and adds its name to `used`.

    of_several: whether the file is one of a folder. Then it is one episode, unless its arrays say where several end.
    filled: whether zeros at the end may be padding.
    """

    path: str
    names: list[str]
    load: Callable[[str], np.ndarray]
    options: ReadOptions
    of_several: bool = False
    filled: bool = True
    used: list[str] = field(default_factory=list)

    def take(self, name: str) -> np.ndarray:
        """Load an array; a single number becomes an array of one axis."""
        self.used.append(name)
        return np.atleast_1d(self.load(name))

    def parts(self, suffix: str = '') -> dict[str, Any]:
        """{'obs', 'acts' and, if the file has them, 'rews', 'next_obs': array}, known by NAMES. Raises UserError without obs or acts."""
        found = {}
        for name, known in NAMES.items():
            key = next((n + suffix for n in known if n + suffix in self.names), None)
            if key is not None:
                found[name] = self.take(key)
            elif name in ('obs', 'acts'):
                raise UserError(f"{self.path}: has no array '{name}{suffix}'; it has {', '.join(self.names) or 'none'}")
        return found

    def said(self, suffix: str = '') -> dict[str, np.ndarray]:
        """The arrays that say where episodes end: those that the user chose, or else all."""
        chosen = ends.EVERY if self.options.ends is None else self.options.ends.split(',')
        return {name: self.take(name + suffix) for name in ends.EVERY if name + suffix in self.names and name in chosen}


def read_arrays(arrays: Arrays, file: str) -> Source:
    """The episodes in the arrays of a `file` (".npz"), in one of these layouts:

    * obs_0, acts_0, rews_0, obs_1, …: arrays for each episode.
    * obs (B, T, Do), acts (B, T[, Da]), rews (B, T): an episode a row. dones, lengths or masks say where the padding on its right begins.
      With time_axis, a row (or a column) is an environment with one episode after the other, as in buffers of Stable-Baselines3.
    * obs (N, Do), acts (N[, Da]), rews (N), and an array of ends.EVERY: one step after the other, as in files of imitation or D4RL.
    * obs (N + B, Do), acts, rews, and `indices` where episodes 1, 2, … begin: older trajectories of imitation.
    """
    path, options = arrays.path, arrays.options
    refuse_options(path, options, 'obs_keys')
    _check_chosen(arrays)
    numbered = sorted({int(m[1]) for key in arrays.names for name in NAMES['obs'] if (m := re.fullmatch(rf'{name}_(\d+)', key))})
    notes: list[str] = []
    if numbered:
        refuse_options(path, options, 'time_axis')
        _check_numbers(arrays, numbered)
        layout = 'arrays for each episode'
        rows = [Row(f'{path}: episode {i}', **arrays.parts(f'_{i}'), said=arrays.said(f'_{i}'), whole=True) for i in numbered]
    elif 'indices' in arrays.names:
        refuse_options(path, options, 'time_axis', 'ends')
        layout, rows = 'older trajectories of imitation', _by_indices(arrays)
        others = [name for name in ends.EVERY if name in arrays.names and name not in arrays.used]
        notes += [f'indices say where episodes begin, so that {name} is not used' for name in others]
    else:
        layout, rows = _shared(arrays)
    for row in rows:
        row.is_chosen = options.ends is not None
    episodes = [episode for row in rows for episode in ends.episodes_of(row, notes)]
    _compare_returns(arrays, episodes, notes)
    if all(row.next_obs is None for row in rows):
        arrays.used = [name for name in arrays.used if not name.startswith(NAMES['next_obs'])]
    unused = [name for name in arrays.names if name not in arrays.used]
    used, unused = (list(dict.fromkeys(re.sub(r'_\d+$', '_N', name) for name in names)) for names in (arrays.used, unused))
    return Source(f'{file}, {layout}', episodes, used, unused, notes)


def _check_chosen(arrays: Arrays) -> None:
    """Raise UserError unless each array that --ends names is in the file and is of a kind that says where episodes end."""
    names = {re.sub(r'_\d+$', '', name) for name in arrays.names}
    there = [name for name in ends.EVERY if name in names]
    for name in arrays.options.ends.split(',') if arrays.options.ends is not None else ():
        if name not in there:
            said = ', '.join(there) or 'none'
            raise UserError(f"{arrays.path}: --ends: no array '{name}' that says where episodes end; there is {said}")


def _check_numbers(arrays: Arrays, numbered: list[int]) -> None:
    """Raise UserError where the number in an array's name is none of these, since the array would be ignored."""
    known = '|'.join([*(name for names in NAMES.values() for name in names), *ends.EVERY])
    for key in arrays.names:
        m = re.fullmatch(rf'(?:{known})_(\d+)', key)
        if m and (int(m[1]) not in numbered or m[1] != str(int(m[1]))):
            raise UserError(f'{arrays.path}: {key} belongs to no episode obs_{int(m[1])}; expected obs_0, acts_0, obs_1, acts_1, …')


def _shared(arrays: Arrays) -> tuple[str, list[Row]]:
    """(layout, rows) of arrays that hold all episodes."""
    own, said = arrays.parts(), arrays.said()
    starts = said.get(ends.STARTS)
    if ROLLOUT <= set(arrays.names) and starts is not None and starts.ndim == own['obs'].ndim == 2 and starts.size == len(own['obs']):
        own |= {name: _unflattened(own[name], starts.shape) for name in ('obs', 'acts')}  # a rollout buffer whose get() was called
    if own['obs'].ndim == 3:
        return _rows_by_axes(arrays, own, said)
    path, time_axis = arrays.path, arrays.options.time_axis
    if time_axis is not None:
        raise UserError(f'{path}: --time_axis {time_axis}: obs has shape {own["obs"].shape}, one axis of steps; leave it out')
    if len(own['obs']) > len(own['acts']) and not arrays.of_several:
        raise UserError(f'{path}: {len(own["obs"])} observations for {len(own["acts"])} actions; expected as many, and at least one step')
    whole = arrays.of_several and not said
    return 'one step after the other', [Row(path, **own, said=said, whole=whole, filled=arrays.filled)]


def _rows_by_axes(arrays: Arrays, own: dict[str, np.ndarray], said: dict[str, np.ndarray]) -> tuple[str, list[Row]]:
    """(layout, rows) of observations of three axes: an episode a row, or if one axis is the time, an environment a row."""
    path, time_axis = arrays.path, arrays.options.time_axis
    if time_axis is None and _is_time_first(arrays, own['obs'], own.get('next_obs')):
        time_axis = 0
    is_episode = time_axis is None
    acts_shape = own['acts'].shape
    for name, array in {**own, **said}.items():
        axes = 1 if is_episode or name == 'obs' else 2  # obs may have a step more
        if array.shape[:axes] != acts_shape[:axes] or name in own and array.ndim < 2:
            other = f'obs {own["obs"].shape}' if name == 'acts' else f'acts {acts_shape}'
            raise UserError(f'{path}: {name} has shape {array.shape}, {other}; expected the same episodes and steps in both')
    if time_axis == 0:
        steps = _steps_of_buffer(arrays, len(own['obs'])) if 'pos' in arrays.names else slice(None)
        own, said = ({name: array[steps].swapaxes(0, 1) for name, array in kind.items()} for kind in (own, said))
    unit = 'episode' if is_episode else 'environment'
    rows = []
    for i in range(len(own['obs'])):
        own_i, said_i = ({name: array[i] for name, array in kind.items()} for kind in (own, said))
        rows.append(Row(f'{path}: {unit} {i}', **own_i, said=said_i, whole=is_episode, filled=True))
    return f'axes (step, {unit})' if time_axis == 0 else f'axes ({unit}, step)', rows


def _unflattened(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An array (environments · time, …) as (time, environments, …); unchanged if it has another number of rows."""
    return x.reshape(shape[1], shape[0], *x.shape[1:]).swapaxes(0, 1) if len(x) == shape[0] * shape[1] else x


def _is_time_first(arrays: Arrays, obs: np.ndarray, next_obs: np.ndarray | None) -> bool:
    """Whether the axes are (time, environment, …), as in buffers of Stable-Baselines3, and not (episode, time, …)."""
    if ROLLOUT <= set(arrays.names) or {'pos', 'full'} <= set(arrays.names):
        return True
    if next_obs is not None and next_obs.shape == obs.shape and all(x.dtype.kind in 'biuf' for x in (obs, next_obs)):
        rows, columns = (
            [ends.follows(n, o).mean() for n, o in zip(after[:99], x[:99], strict=True) if len(o) > 1]
            for after, x in ((next_obs, obs), (next_obs.swapaxes(0, 1), obs.swapaxes(0, 1)))
        )
        if columns and np.mean(columns) > 0.5 and not (rows and np.mean(rows) > 0.5):
            return True
    if obs.shape[1] == 1 < len(obs):
        raise UserError(
            f'{arrays.path}: obs has shape {obs.shape}: {len(obs)} episodes of one step, or {len(obs)} steps of one environment? '
            'Say which axis is the time: --time_axis 0 or --time_axis 1'
        )
    return False


def _steps_of_buffer(arrays: Arrays, size: int) -> np.ndarray:
    """The indices into a ring buffer from the oldest step to the newest: the next step would be stored at `pos`."""
    pos, full = (arrays.take(name).ravel() if name in arrays.names else np.array([False]) for name in ('pos', 'full'))
    if pos.shape != (1,) or pos.dtype.kind not in 'iu' or not 0 <= pos[0] <= size or full.shape != (1,):
        raise UserError(
            f'{arrays.path}: pos is {pos[:3]} and full is {full[:3]}; expected a whole number from 0 to {size}, and true or false'
        )
    steps = np.roll(np.arange(size), -pos[0]) if full[0] else np.arange(pos[0])
    if not len(steps):
        raise UserError(f'{arrays.path}: pos is 0 and full is not true, so that the buffer is empty; expected at least one step')
    return steps


def _compare_returns(arrays: Arrays, episodes: list[Episode], notes: list[str]) -> None:
    """Add a note where the returns that a file lists are not the sums of the rewards."""
    for name in RETURNS:
        if name in arrays.names and all(e.rews is not None and e.rews.dtype.kind in 'biuf' for e in episodes):
            listed, summed = arrays.take(name).ravel(), np.array([np.sum(e.rews) for e in episodes])
            if len(listed) != len(episodes):
                notes.append(f'{name} holds {len(listed)} returns, but there are {len(episodes)} episodes')
            elif listed.dtype.kind in 'biuf' and not np.allclose(listed, summed, rtol=1e-3, atol=1e-3):
                i = int(np.argmax(np.abs(listed - summed)))
                notes.append(f'{name} says {listed[i]:.6g} of episode {i}, whose rewards add up to {summed[i]:.6g}')


def _by_indices(arrays: Arrays) -> list[Row]:
    """The episodes of older trajectories of imitation: `indices` say where episodes 1, 2, … begin, and obs has one row more in each."""
    path, own, indices = arrays.path, arrays.parts(), arrays.take('indices')
    if indices.dtype.kind not in 'iu' and indices.size:
        raise UserError(f'{path}: indices of type {indices.dtype}; expected whole numbers: where episodes 1, 2, … begin among acts')
    starts = [0, *indices.ravel().tolist(), len(own['acts'])]
    num = len(starts) - 1
    sizes = {name: len(x) for name, x in own.items() if name != 'next_obs'}
    expected = dict.fromkeys(sizes, sizes['acts']) | {'obs': sizes['acts'] + num}
    if sorted(set(starts)) != starts or sizes != expected:
        seen = ', '.join(f'{size} {name}' for name, size in sizes.items())
        raise UserError(f'{path}: {seen} for {num} episode{"s" * (num != 1)}; expected as many of each, one of obs more an episode')
    key = next((n for n in ends.TERMINAL if n in arrays.names and np.shape(arrays.load(n)) == (num,)), None)
    terminal = None if key is None else arrays.take(key)
    rows = []
    for i, (a, b) in enumerate(zip(starts[:-1], starts[1:], strict=True)):
        rews = own['rews'][a:b] if 'rews' in own else None
        said = {} if terminal is None else {'terminal': terminal[i]}
        rows.append(Row(f'{path}: episode {i}', own['obs'][a + i : b + i + 1], own['acts'][a:b], rews, said=said, whole=True))
    return rows
